//! A WebSocket client that can be cut off at any message. A message that violates the documentation panics: one that is
//! not text, not an object on one line, or without a type.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;
use tungstenite::client::IntoClientRequest;
use tungstenite::http::{HeaderName, HeaderValue};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Error, Message as Frame, WebSocket};

use super::sse::SseMessage;
use super::wait::PATIENCE;

pub struct Socket {
    pub address: SocketAddr,
    target: String,
    socket: WebSocket<TcpStream>,
    /// The cursor of the latest message, without answers.
    pub cursor: Option<String>,
    /// Messages that arrived while another one was awaited.
    waiting: VecDeque<Value>,
    /// How the server closed.
    closed: Option<u16>,
    pub pings: usize,
    pub pongs: usize,
}

/// Whether a message answers one of the client's.
fn is_answer(message: &Value) -> bool {
    message["type"] == "receipt" || message["type"] == "problem"
}

impl Socket {
    /// The target is appended to `/api/v1/ws`.
    #[track_caller]
    pub fn open(address: SocketAddr, query: &str) -> Self {
        Socket::open_with(address, query, &[])
    }

    #[track_caller]
    pub fn open_with(address: SocketAddr, query: &str, headers: &[(&str, &str)]) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("a connection to the application");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_write_timeout(Some(PATIENCE)).expect("a write timeout");
        stream.set_read_timeout(Some(PATIENCE)).expect("a read timeout");
        let mut request = format!("ws://{address}/api/v1/ws{query}").into_client_request().expect("a target");
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            request.headers_mut().insert(name, HeaderValue::from_str(value).expect("a value"));
        }
        let config = WebSocketConfig::default().read_buffer_size(4096);
        let (socket, answer) = tungstenite::client::client_with_config(request, stream, Some(config))
            .unwrap_or_else(|error| panic!("no WebSocket: {error}"));
        assert_eq!(answer.status(), 101);
        Socket {
            address,
            target: query.into(),
            socket,
            cursor: None,
            waiting: VecDeque::new(),
            closed: None,
            pings: 0,
            pongs: 0,
        }
    }

    #[track_caller]
    pub fn send(&mut self, message: &Value) {
        self.send_text(&message.to_string());
    }

    #[track_caller]
    pub fn send_text(&mut self, text: &str) {
        self.socket.send(Frame::text(text)).expect("an open socket");
    }

    /// Sends anything, as long as the server reads.
    pub fn try_send(&mut self, frame: Frame) -> Result<(), Error> {
        self.socket.send(frame)
    }

    /// Sends bytes that are not a frame.
    #[track_caller]
    pub fn send_raw(&mut self, bytes: &[u8]) {
        std::io::Write::write_all(self.socket.get_mut(), bytes).expect("an open connection");
    }

    /// Reads one message from the connection; `None` at its end, or if none arrives until the deadline.
    #[track_caller]
    fn receive(&mut self, deadline: Instant) -> Option<Value> {
        while self.closed.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            // Zero would mean no timeout.
            self.socket.get_mut().set_read_timeout(Some(left.max(Duration::from_millis(1)))).expect("a read timeout");
            match self.socket.read() {
                Ok(Frame::Text(text)) => {
                    assert!(!text.contains('\n'), "more than a line: {text}");
                    let message: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
                    assert!(message.is_object() && message["type"].is_string(), "no type: {message}");
                    assert_ne!(is_answer(&message), message.get("cursor").is_some(), "{message}");
                    return Some(message);
                }
                Ok(Frame::Ping(_)) => self.pings += 1,
                Ok(Frame::Pong(_)) => self.pongs += 1,
                Ok(Frame::Close(frame)) => {
                    self.closed = Some(frame.map_or(1005, |frame| frame.code.into()));
                    // The answer to it, and the end.
                    while self.socket.read().is_ok() {}
                }
                Ok(other) => panic!("not for us: {other:?}"),
                Err(Error::Io(error)) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if Instant::now() >= deadline {
                        return None;
                    }
                }
                Err(Error::Io(_) | Error::ConnectionClosed | Error::AlreadyClosed | Error::Protocol(_)) => {
                    self.closed = Some(1006);
                }
                Err(error) => panic!("while receiving: {error}"),
            }
        }
        None
    }

    /// Returns the first matching message, among those that are stored and those that arrive; the others are stored.
    #[track_caller]
    fn take(&mut self, deadline: Instant, wanted: impl Fn(&Value) -> bool) -> Option<Value> {
        if let Some(place) = self.waiting.iter().position(&wanted) {
            return self.waiting.remove(place);
        }
        loop {
            let message = self.receive(deadline)?;
            if wanted(&message) {
                return Some(message);
            }
            self.waiting.push_back(message);
        }
    }

    /// Returns the next message that is neither an answer nor a status; `None` at the end, or if none arrives until the
    /// deadline.
    #[track_caller]
    pub fn next_until(&mut self, deadline: Instant) -> Option<Value> {
        let message = self.take(deadline, |message| !is_answer(message) && message["type"] != "status")?;
        self.cursor = message["cursor"].as_str().map(str::to_owned);
        Some(message)
    }

    /// Returns the next message that is not an answer.
    #[track_caller]
    pub fn next_message(&mut self) -> Value {
        let closed = |socket: &Socket| format!("no message after {:?}; closed: {:?}", socket.cursor, socket.closed);
        self.next_until(Instant::now() + PATIENCE).unwrap_or_else(|| panic!("{}", closed(self)))
    }

    /// Returns the next event or control message, in the form of a stream.
    #[track_caller]
    pub fn next(&mut self) -> SseMessage {
        loop {
            let message = self.next_message();
            let last_event_id = message["cursor"].as_str().unwrap_or_default().to_owned();
            let (event, data) = match message["type"].as_str() {
                Some("position") => continue,
                Some("event") => ("message", &message["record"]),
                Some(control) => (control, &message),
                None => panic!("no type: {message}"),
            };
            return SseMessage { event: event.into(), data: data.to_string(), last_event_id };
        }
    }

    /// Waits until the socket reports this state of Kafka, and returns the message.
    #[track_caller]
    pub fn status(&mut self, broker: &str) -> Value {
        let wanted = |message: &Value| message["type"] == "status" && message["broker"] == broker;
        self.take(Instant::now() + PATIENCE, wanted).unwrap_or_else(|| panic!("nothing says that Kafka is {broker}"))
    }

    #[track_caller]
    pub fn record(&mut self) -> Value {
        let message = self.next();
        assert_eq!(message.event, "message", "no record: {message:?}");
        message.json()
    }

    /// Returns the next event or control message, which must be of this type.
    #[track_caller]
    pub fn control(&mut self, kind: &str) -> Value {
        let message = self.next();
        assert_eq!(message.event, kind, "another one: {message:?}");
        message.json()
    }

    /// Returns the next answer.
    #[track_caller]
    pub fn answer(&mut self) -> Value {
        let answer = self.take(Instant::now() + PATIENCE, is_answer);
        answer.unwrap_or_else(|| panic!("no answer; closed: {:?}", self.closed))
    }

    /// Returns the answer to the message with this `ref`.
    #[track_caller]
    pub fn answer_to(&mut self, reference: &Value) -> Value {
        let wanted = |message: &Value| is_answer(message) && message["ref"] == *reference;
        let answer = self.take(Instant::now() + PATIENCE, wanted);
        answer.unwrap_or_else(|| panic!("no answer to {reference}; closed: {:?}", self.closed))
    }

    /// Sends a message, and returns its answer.
    #[track_caller]
    pub fn ask(&mut self, message: &Value) -> Value {
        self.send(message);
        self.answer_to(&message["ref"])
    }

    /// Returns the code with which the server closes; skips messages before it.
    #[track_caller]
    pub fn close_code(&mut self) -> u16 {
        let deadline = Instant::now() + PATIENCE;
        while self.receive(deadline).is_some() {}
        self.closed.expect("the server closes")
    }

    /// Closes, and waits for the server's confirmation.
    #[track_caller]
    pub fn close(mut self) {
        self.socket.close(None).expect("an open socket");
        self.close_code();
    }

    /// Cuts the connection, and resumes at a cursor.
    #[track_caller]
    pub fn reconnect(&mut self, cursor: &str) {
        let _ = self.socket.get_ref().shutdown(std::net::Shutdown::Both); // the server may have closed
        *self = Socket::open_with(self.address, &self.target, &[("Last-Event-ID", cursor)]);
    }
}
