//! A hand-made HTTP/1.1 client, so that a test sees exactly what is on the wire and can stop in the middle. Strict: a
//! response that violates RFC 9112 panics.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::wait::PATIENCE;

/// A request under construction; `send` opens a connection of its own.
#[derive(Clone)]
pub struct Request {
    address: SocketAddr,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    pub fn new(address: SocketAddr, method: &str, target: &str) -> Self {
        assert!(target.starts_with('/') && target.bytes().all(|b| b.is_ascii_graphic()), "no target: {target:?}");
        Request { address, method: method.into(), target: target.into(), headers: Vec::new(), body: Vec::new() }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn body(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.header("Content-Type", content_type)
    }

    /// A body without a Content-Type, or with one set as a header.
    pub fn body_only(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    /// `application/x-www-form-urlencoded`, as a browser submits a form.
    pub fn form(self, fields: &[(&str, &str)]) -> Self {
        let body: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        self.body("application/x-www-form-urlencoded", body.join("&"))
    }

    #[track_caller]
    pub fn send(self) -> Response {
        let method = self.method.clone();
        Connection::open(self).response(&method)
    }

    /// Like `send`, but returns `None` if the server is missing or closes the connection before the answer is complete.
    pub fn try_send(self) -> Option<Response> {
        let stream = TcpStream::connect_timeout(&self.address, PATIENCE).ok()?;
        let mut connection = Connection::over(stream, &self);
        let deadline = Instant::now() + PATIENCE;
        while connection.receive(deadline, usize::MAX) == Arrival::Bytes {}
        find(&connection.received, b"\r\n\r\n")?;
        let head = connection.head();
        let body_size: usize =
            head.header("Content-Length").and_then(|size| size.parse().ok()).expect("a Content-Length");
        assert!(connection.received.len() <= body_size, "bytes after the response");
        (connection.received.len() == body_size).then_some(Response { head, body: connection.received })
    }

    /// Sends the same request with a body that is only announced; the caller sends the body.
    #[track_caller]
    pub fn send_head(self, content_length: usize) -> Connection {
        assert!(self.body.is_empty());
        Connection::open(self.header("Content-Length", &content_length.to_string()))
    }

    /// Sends the same request, whose answers are read one by one.
    #[track_caller]
    pub fn open(self) -> Connection {
        Connection::open(self)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        let given = |name: &str| self.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        if !given("Host") {
            text += &format!("Host: {}\r\n", self.address);
        }
        if !given("Connection") {
            text += "Connection: close\r\n";
        }
        if !given("Content-Length") && !given("Transfer-Encoding") && (self.method == "POST" || !self.body.is_empty()) {
            text += &format!("Content-Length: {}\r\n", self.body.len());
        }
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += "\r\n";
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// Percent-encodes a value of a query or form.
pub fn encoded(value: &str) -> String {
    value
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// The first lines of a response.
#[derive(Debug, Clone)]
pub struct Head {
    pub status: u16,
    headers: Vec<(String, String)>,
}

impl Head {
    /// Returns the value of a header that appears once; `None` without it.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} comes twice: {:?}", self.headers);
        value
    }

    /// Whether a header names `token` in its list of values.
    pub fn lists(&self, name: &str, token: &str) -> bool {
        self.header(name).is_some_and(|list| list.split(',').any(|item| item.trim().eq_ignore_ascii_case(token)))
    }

    fn parse(text: &str) -> Self {
        let mut lines = text.strip_suffix("\r\n\r\n").expect("a complete head").split("\r\n");
        let status_line = lines.next().expect("a status line");
        let status = status_line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3).filter(|_| rest.len() == 3 || rest.as_bytes()[3] == b' '))
            .and_then(|code| code.parse().ok())
            .unwrap_or_else(|| panic!("malformed status line: {status_line:?}"));
        let headers = lines
            .map(|line| {
                let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("malformed header: {line:?}"));
                let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
                assert!(!name.is_empty() && name.bytes().all(is_token), "malformed header: {line:?}");
                assert!(!value.chars().any(|c| c.is_control() && c != '\t'), "malformed header: {line:?}");
                (name.to_owned(), value.trim_matches([' ', '\t']).to_owned())
            })
            .collect();
        Head { status, headers }
    }
}

/// A whole response.
#[derive(Debug, Clone)]
pub struct Response {
    pub head: Head,
    pub body: Vec<u8>,
}

impl Response {
    pub fn status(&self) -> u16 {
        self.head.status
    }

    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// Checks the status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status(), status, "{:?}\n{}", self.head, String::from_utf8_lossy(&self.body));
        self
    }

    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        let media_type = self.header("Content-Type").unwrap_or_default();
        assert!(
            media_type == "application/json" || media_type == "application/problem+json",
            "no JSON: {:?}\n{}",
            self.head,
            String::from_utf8_lossy(&self.body)
        );
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// Returns the body as an RFC 9457 problem. Panics if a required member is missing.
    #[track_caller]
    pub fn problem(&self) -> Value {
        assert_eq!(
            self.header("Content-Type"),
            Some("application/problem+json"),
            "{}",
            String::from_utf8_lossy(&self.body)
        );
        let problem = self.json();
        assert_eq!(problem["status"], self.status(), "{problem}");
        for name in ["type", "title", "request_id"] {
            assert!(problem[name].as_str().is_some_and(|text| !text.is_empty()), "{name} is missing: {problem}");
        }
        assert!(problem["retryable"].is_boolean(), "retryable is missing: {problem}");
        assert_eq!(problem["request_id"].as_str(), self.header("X-Request-Id"), "{problem}");
        problem
    }
}

/// The result of waiting for bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival {
    Bytes,
    End,
    /// Nothing until the deadline.
    Nothing,
}

/// A connection on which one request was sent.
pub struct Connection {
    stream: TcpStream,
    /// Bytes that were received and not parsed yet.
    pub received: Vec<u8>,
}

impl Connection {
    #[track_caller]
    pub fn open(request: Request) -> Self {
        let stream = TcpStream::connect_timeout(&request.address, PATIENCE).expect("a connection to the application");
        Connection::over(stream, &request)
    }

    #[track_caller]
    pub fn over(stream: TcpStream, request: &Request) -> Self {
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_write_timeout(Some(PATIENCE)).expect("a write timeout");
        let mut connection = Connection { stream, received: Vec::new() };
        // A server may answer and close before it has read everything; only its answer counts.
        if let Err(error) = connection.send(&request.bytes()) {
            assert!(is_closed(error.kind()), "{error}");
        }
        connection
    }

    /// Sends another request on the same connection.
    #[track_caller]
    pub fn send_request(&mut self, request: &Request) {
        self.send(&request.bytes()).expect("an open connection");
    }

    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Closes the sending side.
    pub fn end_sending(&self) {
        let _ = self.stream.shutdown(Shutdown::Write); // the server may have closed already
    }

    /// Waits for more bytes, at most `limit` of them.
    #[track_caller]
    pub fn receive(&mut self, deadline: Instant, limit: usize) -> Arrival {
        let mut buffer = vec![0; limit.min(64 * 1024)];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // Zero would mean no timeout.
            self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1)))).expect("a read timeout");
            match self.stream.read(&mut buffer) {
                Ok(0) => return Arrival::End,
                Ok(count) => {
                    self.received.extend_from_slice(&buffer[..count]);
                    return Arrival::Bytes;
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if Instant::now() >= deadline {
                        return Arrival::Nothing;
                    }
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if is_closed(e.kind()) => return Arrival::End,
                Err(e) => panic!("while receiving: {e}"),
            }
        }
    }

    /// The head of the response.
    #[track_caller]
    pub fn head(&mut self) -> Head {
        let head = self.try_head(Instant::now() + PATIENCE);
        head.unwrap_or_else(|| panic!("no answer after {:?}", String::from_utf8_lossy(&self.received)))
    }

    /// Returns the head of the response; `None` if the connection ends before it, or if nothing arrives until the
    /// deadline.
    #[track_caller]
    pub fn try_head(&mut self, deadline: Instant) -> Option<Head> {
        loop {
            if let Some(end) = find(&self.received, b"\r\n\r\n") {
                let head: Vec<u8> = self.received.drain(..end + 4).collect();
                let head = Head::parse(std::str::from_utf8(&head).expect("a head in ASCII"));
                if head.status != 100 {
                    return Some(head);
                }
                continue;
            }
            if self.receive(deadline, usize::MAX) != Arrival::Bytes {
                return None;
            }
        }
    }

    /// Returns the whole response to a request with this method, after which nothing may follow.
    #[track_caller]
    pub fn response(mut self, method: &str) -> Response {
        let response = self.next_response(method);
        assert!(self.received.is_empty(), "bytes after the response: {:?}", String::from_utf8_lossy(&self.received));
        response
    }

    #[track_caller]
    pub fn next_response(&mut self, method: &str) -> Response {
        let head = self.head();
        let has_body = method != "HEAD" && head.status != 204 && head.status != 304;
        let body = match (head.header("Transfer-Encoding"), head.header("Content-Length")) {
            _ if !has_body => Vec::new(),
            (Some(coding), length) => {
                assert_eq!((coding, length), ("chunked", None), "RFC 9112, section 6");
                self.chunked_body()
            }
            (None, Some(length)) => self.sized_body(length.parse().expect("a Content-Length")),
            (None, None) => panic!("neither Content-Length nor chunks: {head:?}"),
        };
        Response { head, body }
    }

    fn sized_body(&mut self, length: usize) -> Vec<u8> {
        let deadline = Instant::now() + PATIENCE;
        while self.received.len() < length {
            assert_eq!(self.receive(deadline, usize::MAX), Arrival::Bytes, "the body was cut off");
        }
        self.received.drain(..length).collect()
    }

    fn chunked_body(&mut self) -> Vec<u8> {
        let deadline = Instant::now() + PATIENCE;
        let (mut chunks, mut body) = (Chunks::default(), Vec::new());
        loop {
            chunks.decode(&mut self.received, &mut body);
            if chunks.is_complete() {
                return body;
            }
            assert_eq!(self.receive(deadline, usize::MAX), Arrival::Bytes, "the body was cut off");
        }
    }
}

fn is_closed(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted)
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// Chunked transfer coding (RFC 9112, section 7.1), decoded as it arrives.
#[derive(Default)]
pub struct Chunks {
    state: ChunkState,
}

#[derive(Default, PartialEq)]
enum ChunkState {
    #[default]
    Size,
    Data(usize),
    DataEnd,
    Trailers,
    Complete,
}

impl Chunks {
    /// Whether the last chunk was received.
    pub fn is_complete(&self) -> bool {
        self.state == ChunkState::Complete
    }

    /// Decodes `input` into `output`, and leaves an incomplete chunk in `input`.
    pub fn decode(&mut self, input: &mut Vec<u8>, output: &mut Vec<u8>) {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            match self.state {
                ChunkState::Size => {
                    let Some(end) = find(rest, b"\r\n") else {
                        assert!(rest.len() < 1024, "malformed chunk: {:?}", String::from_utf8_lossy(&rest[..80]));
                        break;
                    };
                    let line = std::str::from_utf8(&rest[..end]).expect("a chunk size in ASCII");
                    let digits = line.split(';').next().unwrap_or_default();
                    assert!(
                        !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit()),
                        "malformed chunk: {line:?}"
                    );
                    used += end + 2;
                    self.state = match usize::from_str_radix(digits, 16).expect("a chunk size") {
                        0 => ChunkState::Trailers,
                        size => ChunkState::Data(size),
                    };
                }
                ChunkState::Data(size) => {
                    let taken = size.min(rest.len());
                    output.extend_from_slice(&rest[..taken]);
                    used += taken;
                    if taken < size {
                        self.state = ChunkState::Data(size - taken);
                        break;
                    }
                    self.state = ChunkState::DataEnd;
                }
                ChunkState::DataEnd => {
                    if rest.len() < 2 {
                        break;
                    }
                    assert_eq!(&rest[..2], b"\r\n", "no line end behind a chunk");
                    used += 2;
                    self.state = ChunkState::Size;
                }
                ChunkState::Trailers => {
                    let Some(end) = find(rest, b"\r\n") else { break };
                    used += end + 2;
                    if end == 0 {
                        self.state = ChunkState::Complete;
                    }
                }
                ChunkState::Complete => break,
            }
        }
        input.drain(..used);
    }
}
