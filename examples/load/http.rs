//! The HTTP/1.1 that the load needs: requests as bytes, answers by status and length, chunked bodies.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub fn broken(what: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.into())
}

pub async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A keep-alive connection, for one request at a time.
pub struct Connection {
    stream: TcpStream,
    /// Bytes read and not used yet.
    read: Vec<u8>,
}

pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        Ok(Connection { stream: connect(address).await?, read: Vec::with_capacity(4096) })
    }

    /// Sends a whole request and reads its answer.
    pub async fn exchange(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.stream.write_all(request).await?;
        let head = loop {
            if let Some(end) = memmem::find(&self.read, b"\r\n\r\n") {
                break end + 4;
            }
            self.more().await?;
        };
        let status = status(&self.read)?;
        let length = header(&self.read[..head], "content-length").and_then(|text| text.parse::<usize>().ok());
        let length = length.ok_or_else(|| broken("an answer without Content-Length"))?;
        while self.read.len() < head + length {
            self.more().await?;
        }
        let body = self.read[head..head + length].to_vec();
        self.read.drain(..head + length);
        Ok(Answer { status, body })
    }

    async fn more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.read).await? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

pub fn status(head: &[u8]) -> io::Result<u16> {
    let digits = head.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| broken("no status line"))
}

pub fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    std::str::from_utf8(head).ok()?.split("\r\n").find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

pub fn post(address: SocketAddr, path: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

pub fn get(address: SocketAddr, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").into_bytes()
}

/// Decodes the chunked transfer coding (RFC 9112, section 7.1), in pieces of any size.
#[derive(Default)]
pub struct Chunks {
    state: Chunk,
}

#[derive(Default)]
enum Chunk {
    #[default]
    Begin,
    Size(usize),
    Data(usize),
    /// Bytes of the line break behind the data.
    Break(u8),
    End,
}

impl Chunks {
    /// Passes on the payload in `bytes`, piece by piece. Returns false after the last chunk.
    pub fn take(&mut self, mut bytes: &[u8], mut each: impl FnMut(&[u8])) -> io::Result<bool> {
        while let Some(first) = bytes.first() {
            match &mut self.state {
                Chunk::Begin => self.state = Chunk::Size(0),
                Chunk::Size(size) => {
                    match first {
                        b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F' => {
                            let digit = (*first as char).to_digit(16).unwrap_or(0);
                            *size = (*size << 4) | digit as usize;
                        }
                        b'\r' => {}
                        b'\n' => self.state = if *size == 0 { Chunk::End } else { Chunk::Data(*size) },
                        other => return Err(broken(format!("byte {other} in a chunk's size"))),
                    }
                    bytes = &bytes[1..];
                }
                Chunk::Data(left) => {
                    let here = bytes.len().min(*left);
                    each(&bytes[..here]);
                    *left -= here;
                    if *left == 0 {
                        self.state = Chunk::Break(2);
                    }
                    bytes = &bytes[here..];
                }
                Chunk::Break(left) => {
                    *left -= 1;
                    if *left == 0 {
                        self.state = Chunk::Begin;
                    }
                    bytes = &bytes[1..];
                }
                Chunk::End => return Ok(false),
            }
        }
        Ok(!matches!(self.state, Chunk::End))
    }
}
