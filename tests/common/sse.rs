//! A client for Server-Sent Events that follows the algorithm of the HTML standard (section 9.2, "Server-sent events") to the
//! letter, over a bare connection that a test can cut at any byte. What the standard would silently pass over (an unknown field,
//! a retry that is no number, a frame that is cut off by an orderly end) is a mistake of the server and panics.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::http::{Arrival, Chunks, Connection, Head, Request};
use super::wait::PATIENCE;

const LAST_EVENT_ID: &str = "Last-Event-ID";

/// What an `EventSource` would dispatch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `message` if the server named none.
    pub event: String,
    pub data: String,
    pub last_event_id: String,
}

impl Message {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// One block of lines up to a blank line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    Message(Message),
    /// A block without data: nothing is dispatched, an id in it counts.
    Silent {
        last_event_id: String,
    },
}

/// The parser, fed with decoded bytes as they arrive.
#[derive(Default)]
pub struct Parser {
    line: Vec<u8>,
    started: bool,
    after_cr: bool,
    /// The buffers of the standard.
    data: String,
    event: String,
    id: String,
    block_has_lines: bool,
    pub last_event_id: String,
    pub retry: Option<Duration>,
    pub comments: usize,
    pub frames: VecDeque<Frame>,
}

impl Parser {
    /// A parser after a reconnect: the id of before is the last one until another one comes.
    pub fn resumed(last_event_id: &str) -> Self {
        Parser { id: last_event_id.into(), last_event_id: last_event_id.into(), ..Parser::default() }
    }

    pub fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                b'\n' if self.after_cr => self.after_cr = false,
                b'\n' | b'\r' => {
                    self.after_cr = byte == b'\r';
                    let line = std::mem::take(&mut self.line);
                    self.take_line(&line);
                }
                _ => {
                    self.after_cr = false;
                    self.line.push(byte);
                }
            }
        }
    }

    /// Whether nothing of a next frame was there yet.
    pub fn is_between_frames(&self) -> bool {
        self.line.is_empty() && !self.block_has_lines
    }

    fn take_line(&mut self, line: &[u8]) {
        let mut line =
            std::str::from_utf8(line).unwrap_or_else(|e| panic!("{e} in {:?}", String::from_utf8_lossy(line)));
        if !std::mem::replace(&mut self.started, true) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            return self.dispatch();
        }
        self.block_has_lines = true;
        if line.starts_with(':') {
            self.comments += 1;
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.event = value.into(),
            "data" => {
                self.data += value;
                self.data.push('\n');
            }
            "id" => {
                // The standard ignores such an id, and so the client would resume at the one before.
                assert!(!value.contains('\0'), "an id with NUL: {value:?}");
                self.id = value.into();
            }
            "retry" => {
                assert!(
                    !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()),
                    "a retry that is no number: {value:?}"
                );
                self.retry = Some(Duration::from_millis(value.parse().expect("a number")));
            }
            _ => panic!("an unknown field: {line:?}"),
        }
    }

    fn dispatch(&mut self) {
        assert!(std::mem::take(&mut self.block_has_lines), "a blank line that ends no frame");
        self.last_event_id.clone_from(&self.id);
        let event = std::mem::take(&mut self.event);
        let mut data = std::mem::take(&mut self.data);
        let last_event_id = self.last_event_id.clone();
        if data.is_empty() {
            assert!(event.is_empty(), "an event {event:?} without data would never be dispatched");
            return self.frames.push_back(Frame::Silent { last_event_id });
        }
        data.pop();
        let event = if event.is_empty() { "message".into() } else { event };
        // `EventSource` dispatches these two itself, without data.
        assert!(event != "error" && event != "open", "an event called {event:?}");
        self.frames.push_back(Frame::Message(Message { event, data, last_event_id }));
    }
}

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

    /// Opens a stream over a connection that is there already.
    #[track_caller]
    pub fn over_connection(stream: std::net::TcpStream, target: &str) -> Self {
        let address = stream.peer_addr().expect("an address");
        let request = Subscription::request(address, target, &[]);
        Subscription::over(Connection::over(stream, &request), address, target, Vec::new(), Parser::default())
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

    /// Where a reconnect goes on.
    pub fn last_event_id(&self) -> &str {
        &self.parser.last_event_id
    }

    pub fn retry(&self) -> Option<Duration> {
        self.parser.retry
    }

    /// The next message, control messages included.
    #[track_caller]
    pub fn next(&mut self) -> Message {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.frame(deadline) {
                Some(Frame::Message(message)) => return message,
                Some(Frame::Silent { .. }) => {}
                None => {
                    panic!("no message, the stream ended or was quiet for {PATIENCE:?} after {}", self.last_event_id())
                }
            }
        }
    }

    /// The next message, which must be a record.
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

    /// The next row of the page's stream; the state of the broker is told there in between.
    #[track_caller]
    pub fn row(&mut self) -> Message {
        loop {
            let message = self.next();
            match message.event.as_str() {
                "message" => return message,
                "status" => {}
                _ => panic!("no row: {message:?}"),
            }
        }
    }

    /// The next message, which must be a control message of that name.
    #[track_caller]
    pub fn control(&mut self, event: &str) -> Message {
        let message = self.next();
        assert_eq!(message.event, event, "another one: {message:?}");
        message
    }

    /// The next frame, also one without data.
    #[track_caller]
    pub fn next_frame(&mut self) -> Frame {
        self.frame(Instant::now() + PATIENCE).expect("a frame")
    }

    /// The next frame; `None` at the end of the stream or if there is none until the deadline.
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

    /// Whether the server ends the stream before the deadline, and in an orderly way: with the last chunk.
    #[track_caller]
    pub fn ends(&mut self, deadline: Instant) -> bool {
        while self.take_in(deadline, usize::MAX) == Arrival::Bytes {}
        self.chunks.is_complete()
    }

    /// Receives at most that many bytes, as they are on the wire, and parses them.
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

    /// How many records come, up to `wanted`; control messages and heartbeats do not count.
    #[track_caller]
    pub fn received_records(&mut self, wanted: usize) -> usize {
        let deadline = Instant::now() + Duration::from_millis(500);
        let mut count = 0;
        while count < wanted {
            match self.frame(deadline) {
                Some(Frame::Message(message)) if message.event == "message" => count += 1,
                Some(_) => {}
                None => break,
            }
        }
        count
    }

    /// What was received whole and not taken yet.
    pub fn received_frames(&mut self) -> Vec<Frame> {
        self.parser.frames.drain(..).collect()
    }

    /// Drops the connection and comes back with the last id, as `EventSource` does, to `address` (the same server or
    /// another replica). What arrived whole before the cut stays.
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
