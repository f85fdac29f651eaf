//! A strict parser of Server-Sent Events, by the algorithm of the HTML standard (section 9.2, "Server-sent events").
//! Panics on what the standard silently ignores and a server must not send: an unknown field, a retry that is not a
//! number, a frame cut off by an orderly end.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::Value;

/// What an `EventSource` would dispatch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SseMessage {
    /// `message` if the server named none.
    pub event: String,
    pub data: String,
    pub last_event_id: String,
}

impl SseMessage {
    /// Whether the message only moves the client's position.
    pub fn is_position(&self) -> bool {
        self.event == "position"
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// The lines up to a blank line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    Message(SseMessage),
    /// A block without data. It dispatches nothing, but an id in it counts.
    Silent {
        last_event_id: String,
    },
}

impl Frame {
    /// The frame that moves the client to a position without an event of the topic.
    pub fn position(last_event_id: &str) -> Self {
        Frame::Message(SseMessage { event: "position".into(), data: "{}".into(), last_event_id: last_event_id.into() })
    }
}

/// The parser. It is fed with decoded bytes as they arrive.
#[derive(Default)]
pub struct Parser {
    line: Vec<u8>,
    started: bool,
    after_cr: bool,
    /// The buffers that the standard defines.
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
    /// Returns a parser after a reconnect, with the last event id of the previous connection.
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

    /// Whether the parser has read nothing of a next frame.
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
        if line.starts_with(':') {
            self.comments += 1;
            return;
        }
        self.block_has_lines = true;
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.event = value.into(),
            "data" => {
                self.data += value;
                self.data.push('\n');
            }
            "id" => {
                // The standard ignores such an id, so the client would resume at the previous one.
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
        self.frames.push_back(Frame::Message(SseMessage { event, data, last_event_id }));
    }
}
