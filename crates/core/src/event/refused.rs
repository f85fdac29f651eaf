//! Why a body or one of its events is rejected, and the limits.

use super::Event;

/// The limits of a body, and the current time.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most bytes of one event.
    pub event: usize,
    /// Most events in one array.
    pub batch: usize,
    /// Milliseconds since 1970.
    pub now_ms: i64,
}

impl Limits {
    /// Checks the size of one event, the item `index` of its body.
    pub(super) fn check_size(&self, index: usize, text: &str) -> Result<(), Refused> {
        if text.len() > self.event {
            return Err(Refused::TooLarge { index, size: text.len(), max: self.event });
        }
        Ok(())
    }
}

/// One thing that is wrong with an event, and where: a JSON pointer (RFC 6901) into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    pub pointer: String,
    pub detail: String,
}

impl FieldError {
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        FieldError { pointer: pointer.into(), detail: detail.into() }
    }
}

pub type Checked = Result<Event, Vec<FieldError>>;

/// Why a whole body is rejected.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum Refused {
    #[error("the body is empty; expected a JSON object, or an array of them")]
    Empty,
    #[error("the body is not UTF-8: invalid byte at position {0}")]
    NotUtf8(usize),
    #[error("the body is not JSON: {0}")]
    NotJson(String),
    #[error("the array is empty; expected 1 to {0} events")]
    EmptyArray(usize),
    #[error("the body has no lines; expected 1 to {0} events, JSON objects, one per line")]
    NoLines(usize),
    #[error("{0}")]
    WrongType(String),
    #[error("{count} events in one request; the maximum is {max}")]
    TooMany { count: usize, max: usize },
    #[error("an event of {size} bytes; the maximum is {max}")]
    TooLarge { index: usize, size: usize, max: usize },
}

/// Returns a body as text without surrounding white space. Fails if it is empty.
pub(super) fn body_text(body: &[u8]) -> Result<&str, Refused> {
    let text = std::str::from_utf8(body).map_err(|e| Refused::NotUtf8(e.valid_up_to()))?;
    // A byte order mark: RFC 8259, section 8.1 lets a parser ignore it.
    let text = trimmed(text.strip_prefix('\u{feff}').unwrap_or(text));
    if text.is_empty() { Err(Refused::Empty) } else { Ok(text) }
}

/// Returns why a body is refused that could not be read as an object; `expected` says what it should have been.
pub(super) fn not_an_object(error: &serde_json::Error, expected: &str) -> Refused {
    if error.is_data() { Refused::WrongType(expected.to_owned()) } else { Refused::NotJson(error.to_string()) }
}

/// Returns a text without the white space of JSON around it (RFC 8259, section 2).
pub(super) fn trimmed(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\n', '\r'])
}
