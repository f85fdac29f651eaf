//! A client for Server-Sent Events, over a bare connection that a test can cut at any byte.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;

pub use super::event_stream::{Frame, Parser, SseMessage};
use super::http::{Arrival, Chunks, Connection, Head, Request};
use super::wait::PATIENCE;

const LAST_EVENT_ID: &str = "Last-Event-ID";

/// An open stream.
pub struct Subscription {
    address: SocketAddr,
    target: String,
    headers: Vec<(String, String)>,
    connection: Connection,
    pub head: Head,
    chunks: Chunks,
    decoded: Vec<u8>,
    parser: Parser,
}

impl Subscription {
    /// Opens a stream as `EventSource` does.
    #[track_caller]
    pub fn open(address: SocketAddr, target: &str) -> Self {
        Subscription::open_with(address, target, &[])
    }

    #[track_caller]
    pub fn open_with(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Self {
        let headers: Vec<_> = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let request = Subscription::request(address, target, &headers);
        Subscription::over(Connection::open(request), address, target, headers, Parser::default())
    }

    /// Like `open_with`, but returns `None` if the server is missing or has no stream for it.
    pub fn try_open(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Option<Self> {
        let headers: Vec<_> = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let request = Subscription::request(address, target, &headers);
        let stream = std::net::TcpStream::connect_timeout(&address, PATIENCE).ok()?;
        let mut connection = Connection::over(stream, &request);
        let head = connection.try_head(Instant::now() + PATIENCE)?;
        let stream = Subscription::after(connection, head, address, target, headers, Parser::default());
        Some(stream).filter(|stream| stream.head.status == 200)
    }

    fn request(address: SocketAddr, target: &str, headers: &[(String, String)]) -> Request {
        let request = Request::new(address, "GET", target)
            .header("Accept", "text/event-stream")
            .header("Cache-Control", "no-store")
            .header("Connection", "keep-alive");
        headers.iter().fold(request, |request, (name, value)| request.header(name, value))
    }

    #[track_caller]
    fn over(
        mut connection: Connection,
        address: SocketAddr,
        target: &str,
        headers: Vec<(String, String)>,
        parser: Parser,
    ) -> Self {
        let head = connection.head();
        assert_eq!(head.status, 200, "{head:?}");
        let media_type = head.header("Content-Type").unwrap_or_default();
        assert!(matches!(media_type, "text/event-stream" | "text/event-stream; charset=utf-8"), "{head:?}");
        assert_eq!(head.header("Transfer-Encoding"), Some("chunked"), "{head:?}");
        Subscription::after(connection, head, address, target, headers, parser)
    }

    fn after(
        connection: Connection,
        head: Head,
        address: SocketAddr,
        target: &str,
        headers: Vec<(String, String)>,
        parser: Parser,
    ) -> Self {
        Subscription {
            address,
            target: target.into(),
            headers,
            connection,
            head,
            chunks: Chunks::default(),
            decoded: Vec::new(),
            parser,
        }
    }

    /// The cursor at which a reconnect resumes.
    pub fn last_event_id(&self) -> &str {
        &self.parser.last_event_id
    }

    pub fn retry(&self) -> Option<Duration> {
        self.parser.retry
    }

    /// The number of comments so far.
    pub fn comments(&self) -> usize {
        self.parser.comments
    }

    /// Returns the next message, including control messages, but not those that only move the position, nor a program's
    /// `status`.
    #[track_caller]
    pub fn next(&mut self) -> SseMessage {
        let deadline = Instant::now() + PATIENCE;
        let is_program = self.target.starts_with("/api/");
        loop {
            match self.frame(deadline) {
                Some(Frame::Message(message)) if message.is_position() => {}
                Some(Frame::Message(message)) if is_program && message.event == "status" => {}
                Some(Frame::Message(message)) => return message,
                Some(Frame::Silent { .. }) => panic!("lax parsers dispatch a block without data"),
                None => {
                    panic!("no message, the stream ended or was quiet for {PATIENCE:?} after {}", self.last_event_id())
                }
            }
        }
    }

    /// Waits until the stream reports this state of Kafka, and returns the message.
    #[track_caller]
    pub fn status(&mut self, broker: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut said = Vec::new();
        while let Some(frame) = self.frame(deadline) {
            if let Frame::Message(message) = frame
                && message.event == "status"
            {
                said.push(message.json());
                if message.json()["broker"] == broker {
                    return message.json();
                }
            }
        }
        panic!("nothing says that Kafka is {broker}: {said:?}")
    }

    /// Returns the next message, which must be a record.
    #[track_caller]
    pub fn record(&mut self) -> Value {
        let message = self.next();
        assert_eq!(message.event, "message", "no record: {message:?}");
        message.json()
    }

    #[track_caller]
    pub fn records(&mut self, count: usize) -> Vec<Value> {
        (0..count).map(|_| self.record()).collect()
    }

    /// Returns the next row of the page's stream; skips `status` messages and heartbeats.
    #[track_caller]
    pub fn row(&mut self) -> SseMessage {
        loop {
            let message = self.next();
            match message.event.as_str() {
                "message" => return message,
                "status" | "heartbeat" => {}
                _ => panic!("no row: {message:?}"),
            }
        }
    }

    /// Returns the next message, which must be a control message with that name; skips heartbeats.
    #[track_caller]
    pub fn control(&mut self, event: &str) -> SseMessage {
        loop {
            let message = self.next();
            if message.event == event {
                return message;
            }
            assert_eq!(message.event, "heartbeat", "another one: {message:?}");
        }
    }

    /// Returns the next frame, including those that only move the position.
    #[track_caller]
    pub fn next_frame(&mut self) -> Frame {
        self.frame(Instant::now() + PATIENCE).expect("a frame")
    }

    /// Returns the next frame; `None` at the end of the stream or if none arrives until the deadline.
    #[track_caller]
    pub fn frame(&mut self, deadline: Instant) -> Option<Frame> {
        loop {
            if let Some(frame) = self.parser.frames.pop_front() {
                return Some(frame);
            }
            if self.take_in(deadline, usize::MAX) != Arrival::Bytes {
                return None;
            }
        }
    }

    /// Returns the next frame; `None` if none arrives until the deadline, and an error if the stream was ended or cut.
    pub fn frame_or_cut(&mut self, deadline: Instant) -> Result<Option<Frame>, Arrival> {
        loop {
            if let Some(frame) = self.parser.frames.pop_front() {
                return Ok(Some(frame));
            }
            match self.take_in(deadline, usize::MAX) {
                Arrival::Bytes => {}
                Arrival::Nothing => return Ok(None),
                Arrival::End => return Err(Arrival::End),
            }
        }
    }

    /// Whether the server ends the stream before the deadline and in order, with the last chunk.
    #[track_caller]
    pub fn ends(&mut self, deadline: Instant) -> bool {
        while self.take_in(deadline, usize::MAX) == Arrival::Bytes {}
        self.chunks.is_complete()
    }

    /// Receives at most that many bytes from the wire, and parses them.
    #[track_caller]
    pub fn take_in(&mut self, deadline: Instant, limit: usize) -> Arrival {
        if self.chunks.is_complete() {
            return Arrival::End;
        }
        if self.connection.received.is_empty() || !self.decode() {
            match self.connection.receive(deadline, limit) {
                Arrival::Bytes => {
                    self.decode();
                }
                other => return other,
            }
        }
        if self.chunks.is_complete() {
            assert!(self.parser.is_between_frames(), "the stream ended within a frame");
        }
        Arrival::Bytes
    }

    fn decode(&mut self) -> bool {
        let before = self.connection.received.len();
        self.chunks.decode(&mut self.connection.received, &mut self.decoded);
        self.parser.feed(&self.decoded);
        self.decoded.clear();
        self.connection.received.len() < before
    }

    /// What was received whole and not taken yet.
    pub fn received_frames(&mut self) -> Vec<Frame> {
        self.parser.frames.drain(..).collect()
    }

    /// Drops the connection and resumes with the last id, as `EventSource` does, at `address` (the same server or
    /// another replica). Frames that arrived completely before the cut are kept.
    #[track_caller]
    pub fn reconnect_to(self, address: SocketAddr) -> Self {
        let Subscription { target, mut headers, parser, connection, .. } = self;
        drop(connection);
        headers.retain(|(name, _)| name != LAST_EVENT_ID);
        let mut sent = headers.clone();
        if !parser.last_event_id.is_empty() {
            sent.push((LAST_EVENT_ID.into(), parser.last_event_id.clone()));
        }
        let mut next = Parser::resumed(&parser.last_event_id);
        next.frames = parser.frames;
        let request = Subscription::request(address, &target, &sent);
        Subscription::over(Connection::open(request), address, &target, headers, next)
    }

    #[track_caller]
    pub fn reconnect(self) -> Self {
        let address = self.address;
        self.reconnect_to(address)
    }
}
