//! Reads lines in bounded memory, and knows where each chunk of them ends in the input.
//!
//! A thread of its own reads, because reads of a pipe cannot be interrupted.

use std::io::{self, Read};

use bytes::Bytes;
use ring::digest::{Context, SHA256};
use tokio::sync::mpsc;

/// The most bytes of a line. A server's events have 32 KiB by default, at most 900 KiB.
pub const LINE_BYTES: usize = 1 << 20;

/// The most lines of a chunk: the default of the server's `ingest.max_batch`.
const CHUNK_LINES: usize = 500;

/// The bytes of a chunk after which it ends: half of the default of the server's `ingest.max_body`.
const CHUNK_BYTES: usize = 256 << 10;

/// The chunks that are read ahead.
const AHEAD: usize = 2;

/// A place in the input, and the SHA-256 of everything before it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Position {
    pub bytes: u64,
    pub lines: u64,
    pub sha256: String,
    /// Whether the last line had no end, because the input ended.
    #[serde(default)]
    pub unterminated: bool,
}

/// A line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// Counted from 1.
    pub number: u64,
    /// `None` if the line is longer than [`LINE_BYTES`].
    pub bytes: Option<Bytes>,
}

/// Lines that were read together.
#[derive(Debug, PartialEq, Eq)]
pub struct Chunk {
    pub lines: Vec<Line>,
    /// Where the last one ends.
    pub end: Position,
}

/// Why reading ended early.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("cannot read the input: {0}")]
    Io(#[from] io::Error),
    #[error(
        "the input does not start with the {0} bytes that were sent before: give the same input, or another resume file"
    )]
    OtherInput(u64),
    #[error(
        "line {0} was sent before it was complete, and the input has grown in the middle of it: send the rest of the input \
         with another resume file"
    )]
    Longer(u64),
}

/// Starts to read the input behind a position. A chunk has what has arrived, so that the lines of a slow pipe do not wait.
///
/// # Errors
///
/// If no thread can be started.
pub fn read(
    input: impl Read + Send + 'static,
    start: Option<Position>,
) -> io::Result<mpsc::Receiver<Result<Chunk, ReadError>>> {
    let (chunks, receiver) = mpsc::channel(AHEAD);
    std::thread::Builder::new().name("input".into()).spawn(move || {
        if let Err(error) = read_all(input, start, &mut |chunk| chunks.blocking_send(Ok(chunk)).is_ok()) {
            let _ = chunks.blocking_send(Err(error)); // nobody waits for it any more
        }
    })?;
    Ok(receiver)
}

/// Reads to the end, or until `send` returns false.
fn read_all(
    mut input: impl Read,
    start: Option<Position>,
    send: &mut dyn FnMut(Chunk) -> bool,
) -> Result<(), ReadError> {
    let mut lines =
        Lines { digest: Context::new(&SHA256), bytes: 0, number: 0, unfinished: Vec::new(), too_long: false };
    if let Some(start) = &start {
        lines.skip(&mut input, start)?;
    }
    let mut space = vec![0; CHUNK_BYTES];
    loop {
        match input.read(&mut space) {
            Ok(0) => break,
            Ok(count) if !lines.take(&space[..count], send) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    lines.finish(send);
    Ok(())
}

/// What is known between two reads.
struct Lines {
    digest: Context,
    /// Bytes before `unfinished`, and the line before it.
    bytes: u64,
    number: u64,
    unfinished: Vec<u8>,
    /// Whether the unfinished line is too long and its bytes were discarded.
    too_long: bool,
}

impl Lines {
    fn skip(&mut self, input: &mut impl Read, start: &Position) -> Result<(), ReadError> {
        let mut behind = input.take(start.bytes);
        let mut space = vec![0; CHUNK_BYTES];
        loop {
            match behind.read(&mut space) {
                Ok(0) => break,
                Ok(count) => {
                    self.digest.update(&space[..count]);
                    self.bytes += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.number = start.lines;
        if self.position(start.unterminated) != *start {
            return Err(ReadError::OtherInput(start.bytes));
        }
        match start.unterminated {
            true => self.skip_end(input),
            false => Ok(()),
        }
    }

    /// Skips the end of a line that was sent without it.
    fn skip_end(&mut self, input: &mut impl Read) -> Result<(), ReadError> {
        let mut next = || -> io::Result<Option<u8>> {
            let mut byte = Vec::new();
            input.take(1).read_to_end(&mut byte)?;
            self.digest.update(&byte);
            self.bytes += byte.len() as u64;
            Ok(byte.pop())
        };
        let first = next()?;
        match if first == Some(b'\r') { next()? } else { first } {
            None | Some(b'\n') => Ok(()),
            Some(_) => Err(ReadError::Longer(self.number)),
        }
    }

    /// Takes what was read, and sends the lines that end in it.
    fn take(&mut self, mut bytes: &[u8], send: &mut dyn FnMut(Chunk) -> bool) -> bool {
        let mut chunk = Vec::new();
        let mut size = 0;
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            self.grow(&bytes[..=end]);
            bytes = &bytes[end + 1..];
            let line = self.line();
            size += line.bytes.as_ref().map_or(0, Bytes::len);
            chunk.push(line);
            if chunk.len() == CHUNK_LINES || size >= CHUNK_BYTES {
                size = 0;
                if !send(Chunk { lines: std::mem::take(&mut chunk), end: self.position(false) }) {
                    return false;
                }
            }
        }
        let goes_on = chunk.is_empty() || send(Chunk { lines: chunk, end: self.position(false) });
        self.grow(bytes);
        goes_on
    }

    /// Adds to the unfinished line.
    fn grow(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        self.too_long |= self.unfinished.len() + bytes.len() > LINE_BYTES + 2;
        match self.too_long {
            true => self.unfinished = Vec::new(),
            false => self.unfinished.extend_from_slice(bytes),
        }
    }

    /// Ends the unfinished line. The first one may have a byte order mark.
    fn line(&mut self) -> Line {
        self.number += 1;
        let mut bytes = std::mem::take(&mut self.unfinished);
        if self.number == 1 && bytes.starts_with("\u{feff}".as_bytes()) {
            bytes.drain(..3);
        }
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        let too_long = std::mem::take(&mut self.too_long) || bytes.len() > LINE_BYTES;
        Line { number: self.number, bytes: (!too_long).then(|| bytes.into()) }
    }

    /// Sends the last line if the input did not end with the end of a line.
    fn finish(&mut self, send: &mut dyn FnMut(Chunk) -> bool) {
        if self.too_long || !self.unfinished.is_empty() {
            let line = self.line();
            send(Chunk { lines: vec![line], end: self.position(true) });
        }
    }

    fn position(&self, unterminated: bool) -> Position {
        let digest = self.digest.clone().finish();
        Position { bytes: self.bytes, lines: self.number, sha256: super::hex(digest.as_ref()), unterminated }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(input: &[u8], start: Option<Position>) -> Result<Vec<Chunk>, ReadError> {
        let mut chunks = Vec::new();
        read_all(input, start, &mut |chunk| {
            chunks.push(chunk);
            true
        })?;
        Ok(chunks)
    }

    fn lines(chunks: Vec<Chunk>) -> Vec<(u64, Option<usize>)> {
        let lines = chunks.into_iter().flat_map(|chunk| chunk.lines);
        lines.map(|line| (line.number, line.bytes.map(|bytes| bytes.len()))).collect()
    }

    #[test]
    fn every_line_has_its_number_and_one_that_is_too_long_has_no_bytes() {
        let long = "x".repeat(3 * LINE_BYTES);
        let largest = "y".repeat(LINE_BYTES);
        let input = format!("a\r\n\n{long}\n{largest}\r\nb\n{long}");
        let found = lines(chunks(input.as_bytes(), None).expect("bytes can be read"));
        assert_eq!(found, [(1, Some(1)), (2, Some(0)), (3, None), (4, Some(LINE_BYTES)), (5, Some(1)), (6, None)]);
        assert_eq!(lines(chunks(b"", None).expect("bytes can be read")), []);
    }

    #[test]
    fn a_line_without_an_end_may_get_it_and_nothing_else() {
        let all = chunks(b"\xef\xbb\xbfa\nbc", None).expect("bytes can be read");
        assert_eq!(all[0].lines, [Line { number: 1, bytes: Some(Bytes::from_static(b"a")) }]);
        let end = &all[1].end;
        assert!(end.unterminated && !all[0].end.unterminated);
        for (rest, expected) in [("", vec![]), ("\n", vec![]), ("\r\n", vec![]), ("\r\n\nd\n", vec![(3, 0), (4, 1)])] {
            let grown = [b"\xef\xbb\xbfa\nbc", rest.as_bytes()].concat();
            let found = lines(chunks(&grown, Some(end.clone())).expect("the same input"));
            assert_eq!(found, expected.into_iter().map(|(n, size)| (n, Some(size))).collect::<Vec<_>>(), "{rest:?}");
        }
        for rest in ["d", "\rd\n"] {
            let grown = [b"\xef\xbb\xbfa\nbc", rest.as_bytes()].concat();
            assert!(matches!(chunks(&grown, Some(end.clone())), Err(ReadError::Longer(2))), "{rest:?}");
        }
    }

    #[test]
    fn reading_continues_behind_every_chunk_of_the_same_input_only() {
        let input: String = (0..1700).map(|n| format!("line {n} {}\n", "z".repeat(n % 400))).collect();
        let all = chunks(input.as_bytes(), None).expect("bytes can be read");
        assert!(all.len() > 3 && all.iter().all(|chunk| chunk.lines.len() <= CHUNK_LINES));
        for (n, chunk) in all.iter().enumerate() {
            let rest = chunks(input.as_bytes(), Some(chunk.end.clone())).expect("the same input");
            let expected: Vec<&Line> = all[n + 1..].iter().flat_map(|chunk| &chunk.lines).collect();
            assert_eq!(rest.iter().flat_map(|chunk| &chunk.lines).collect::<Vec<_>>(), expected);
        }
        let end = &all[0].end;
        let other = input.replacen("line 3", "line X", 1);
        assert!(matches!(chunks(other.as_bytes(), Some(end.clone())), Err(ReadError::OtherInput(_))));
        let shorter = &input.as_bytes()[..end.bytes as usize - 1];
        assert!(matches!(chunks(shorter, Some(end.clone())), Err(ReadError::OtherInput(_))));
    }
}
