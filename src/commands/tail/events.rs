//! Parses Server-Sent Events out of the bytes of a stream (WHATWG HTML, section 9.2.6). Comments and `retry` are skipped:
//! `tail` has waits of its own.

/// The most bytes of an event. A record has at most about 1 MB by a broker's default, and a third more as Base64.
const MOST: usize = 32 << 20;

/// An event of the stream.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Event {
    /// Empty for a record.
    pub name: String,
    pub data: String,
    /// The cursor after the event, if it has one.
    pub id: Option<String>,
}

impl Event {
    pub fn is_record(&self) -> bool {
        matches!(&*self.name, "" | "message")
    }
}

/// What has arrived of the next event.
#[derive(Default)]
pub struct Parser {
    /// The bytes of an unfinished line.
    line: Vec<u8>,
    event: Event,
    has_data: bool,
}

/// Why a stream cannot be read further.
#[derive(Debug, thiserror::Error)]
pub enum BadStream {
    #[error("an event is too large: expected at most {MOST} bytes")]
    TooLarge,
    #[error("the stream is not UTF-8")]
    NotText,
}

impl Parser {
    /// Takes bytes and returns the events that end in them.
    pub fn take(&mut self, mut bytes: &[u8]) -> Result<Vec<Event>, BadStream> {
        let mut events = Vec::new();
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            self.line.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            let line = std::mem::take(&mut self.line);
            let line = std::str::from_utf8(&line).map_err(|_| BadStream::NotText)?;
            match line.strip_suffix('\r').unwrap_or(line) {
                "" => {
                    let event = std::mem::take(&mut self.event);
                    if std::mem::take(&mut self.has_data) {
                        events.push(event);
                    }
                }
                line => self.field(line),
            }
            self.bound(0)?;
        }
        self.bound(bytes.len())?;
        self.line.extend_from_slice(bytes);
        Ok(events)
    }

    fn bound(&self, more: usize) -> Result<(), BadStream> {
        match self.line.len() + self.event.data.len() + more > MOST {
            true => Err(BadStream::TooLarge),
            false => Ok(()),
        }
    }

    fn field(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => self.event.name = value.to_owned(),
            "id" => self.event.id = Some(value.to_owned()),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_however_the_bytes_are_divided() {
        let stream = "retry: 3000\nevent: position\ndata: {}\nid: 0-1\n\n: heartbeat\n\ndata: {\"a\":\"é\"}\r\nid: 0-2\r\n\r\n\
                      id: 0-9\n\ndata\ndata:x\n\ndata: unfinished";
        let event = |name: &str, data: &str, id: Option<&str>| Event {
            name: name.into(),
            data: data.into(),
            id: id.map(str::to_owned),
        };
        let expected =
            [event("position", "{}", Some("0-1")), event("", "{\"a\":\"é\"}", Some("0-2")), event("", "\nx", None)];
        for size in 1..=stream.len() {
            let mut parser = Parser::default();
            let events: Vec<Event> =
                stream.as_bytes().chunks(size).flat_map(|bytes| parser.take(bytes).expect("a stream")).collect();
            assert_eq!(events, expected, "{size}");
        }
    }

    #[test]
    fn an_event_is_bounded() {
        let mut parser = Parser::default();
        let line = format!("data: {}\n", "x".repeat(MOST / 4));
        let taken = (0..5).find_map(|_| parser.take(line.as_bytes()).err());
        assert!(matches!(taken, Some(BadStream::TooLarge)), "{taken:?}");
        assert!(matches!(Parser::default().take(&vec![b'x'; MOST + 1]), Err(BadStream::TooLarge)));
    }
}
