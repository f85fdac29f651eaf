//! Reads streams: only counts events on most of them, checks every frame on a sample.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::http::{self, Chunks, broken};
use crate::stats::{Histogram, now_us};

thread_local! {
    /// Readers own no buffer: thousands of them would be most of the load's memory.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; 256 * 1024]);
}

/// How every event's data begins, and nothing else on a stream.
const EVENT: &[u8] = b"data: {\"topic\":";

/// How long an answer's head may take.
const HEAD: Duration = Duration::from_secs(30);

/// An open stream.
pub struct Stream {
    stream: TcpStream,
    chunks: Chunks,
    /// Payload that came with the head.
    early: Vec<u8>,
}

impl Stream {
    /// Connects and waits for the answer's head; the connection is refused if the status is not 200.
    pub async fn open(address: SocketAddr, path: &str) -> io::Result<Self> {
        timeout(HEAD, Self::begin(address, path)).await.map_err(|_| io::Error::from(ErrorKind::TimedOut))?
    }

    async fn begin(address: SocketAddr, path: &str) -> io::Result<Self> {
        let mut stream = http::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut read = Vec::with_capacity(1024);
        let head = loop {
            if let Some(end) = memmem::find(&read, b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut read).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        };
        match http::status(&read)? {
            200 => Ok(Stream { stream, chunks: Chunks::default(), early: read.split_off(head) }),
            status => Err(broken(format!("status {status}"))),
        }
    }

    /// Hands on the payload of the next bytes that come. False at the end of the stream.
    pub async fn next(&mut self, mut each: impl FnMut(&[u8])) -> io::Result<bool> {
        if !self.early.is_empty() {
            return self.chunks.take(&std::mem::take(&mut self.early), each);
        }
        loop {
            self.stream.readable().await?;
            let taken = BUFFER.with_borrow_mut(|buffer| match self.stream.try_read(buffer) {
                Ok(0) => Ok(Some(false)),
                Ok(size) => self.chunks.take(&buffer[..size], &mut each).map(Some),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
                Err(error) => Err(error),
            })?;
            if let Some(goes_on) = taken {
                return Ok(goes_on);
            }
        }
    }
}

/// Counts events without parsing them.
#[derive(Default)]
pub struct Counter {
    /// The last bytes seen, because the start of an event may be cut in two.
    carry: Vec<u8>,
}

impl Counter {
    /// The number of events whose start is completed by this piece of payload.
    pub fn count(&mut self, bytes: &[u8]) -> u64 {
        let seam = EVENT.len() - 1;
        let kept = self.carry.len();
        self.carry.extend_from_slice(&bytes[..bytes.len().min(seam)]);
        let across = u64::from(kept > 0 && memmem::find(&self.carry, EVENT).is_some());
        let inside = memmem::find_iter(bytes, EVENT).count() as u64;
        if bytes.len() >= seam {
            self.carry.clear();
            self.carry.extend_from_slice(&bytes[bytes.len() - seam..]);
        } else {
            let surplus = self.carry.len().saturating_sub(seam);
            self.carry.drain(..surplus);
        }
        across + inside
    }
}

/// The result of a fully parsed stream.
#[derive(Default, Clone)]
pub struct Seen {
    pub events: u64,
    /// Offsets left out, offsets that came again or out of order, cursors that don't say what the event says.
    pub gaps: u64,
    pub repeats: u64,
    pub wrong_cursors: u64,
    /// Control messages: `gap`, `dropped`, `bye`.
    pub told_gaps: u64,
    pub told_drops: u64,
    pub byes: u64,
    pub bytes: u64,
    pub latency: Histogram,
}

impl Seen {
    pub fn merge(&mut self, other: &Seen) {
        self.events += other.events;
        self.gaps += other.gaps;
        self.repeats += other.repeats;
        self.wrong_cursors += other.wrong_cursors;
        self.told_gaps += other.told_gaps;
        self.told_drops += other.told_drops;
        self.byes += other.byes;
        self.bytes += other.bytes;
        self.latency.merge(&other.latency);
    }
}

/// Parses every frame, and checks that the offsets of each partition come one after the other, each once.
#[derive(Default)]
pub struct Checker {
    pub rest: Vec<u8>,
    /// The next offset of each partition, from the first cursor on.
    pub next: Vec<u64>,
    /// With a filter, offsets only increase; missing ones cannot be detected.
    pub filtered: bool,
    /// Events stamped before this moment are not timed.
    pub timed_from_us: u64,
    pub seen: Seen,
}

impl Checker {
    pub fn take(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        let all = std::mem::take(&mut self.rest);
        let mut begin = 0;
        while let Some(end) = memmem::find(&all[begin..], b"\n\n") {
            self.frame(&all[begin..begin + end]);
            begin += end + 2;
        }
        self.rest = all;
        self.rest.drain(..begin);
    }

    fn frame(&mut self, frame: &[u8]) {
        let (mut id, mut name, mut data) = (None, None, None);
        for line in frame.split(|byte| *byte == b'\n') {
            if let Some(value) = line.strip_prefix(b"id: ") {
                id = cursor(value);
            } else if let Some(value) = line.strip_prefix(b"event: ") {
                name = Some(value);
            } else if let Some(value) = line.strip_prefix(b"data: ") {
                data = Some(value);
            }
        }
        match (name, data) {
            (Some(b"gap"), _) => self.seen.told_gaps += 1,
            (Some(b"dropped"), _) => self.seen.told_drops += 1,
            (Some(b"bye"), _) => self.seen.byes += 1,
            (None, Some(data)) => return self.event(frame.len() as u64 + 2, id, data),
            _ => {}
        }
        if let Some(id) = id {
            self.next = id;
        }
    }

    fn event(&mut self, size: u64, id: Option<Vec<u64>>, data: &[u8]) {
        self.seen.events += 1;
        self.seen.bytes += size;
        let (Some(partition), Some(offset)) = (number(data, b"\"partition\":"), number(data, b"\"offset\":")) else {
            self.seen.wrong_cursors += 1;
            return;
        };
        let partition = partition as usize;
        if self.next.len() <= partition {
            self.next.resize(partition + 1, offset);
        }
        let expected = std::mem::replace(&mut self.next[partition], offset + 1);
        match offset.cmp(&expected) {
            std::cmp::Ordering::Less => self.seen.repeats += 1,
            std::cmp::Ordering::Greater if !self.filtered => self.seen.gaps += offset - expected,
            _ => {}
        }
        if id.is_some_and(|id| id.get(partition) != Some(&(offset + 1))) {
            self.seen.wrong_cursors += 1;
        }
        if let Some(stamp) = number(data, b"\"t\":")
            && stamp >= self.timed_from_us
        {
            self.seen.latency.record(now_us().saturating_sub(stamp));
        }
    }
}

/// The number that follows a member's name. The load's own events hold no such name in their text.
pub fn number(data: &[u8], name: &[u8]) -> Option<u64> {
    let begin = memmem::find(data, name)? + name.len();
    let digits = data[begin..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// `0-812.1-790.2-455`: the next offset of every partition.
pub fn cursor(text: &[u8]) -> Option<Vec<u64>> {
    let mut next = Vec::new();
    for part in std::str::from_utf8(text).ok()?.split('.') {
        let (partition, offset) = part.split_once('-')?;
        let partition: usize = partition.parse().ok()?;
        if next.len() <= partition {
            next.resize(partition + 1, 0);
        }
        next[partition] = offset.parse().ok()?;
    }
    Some(next)
}
