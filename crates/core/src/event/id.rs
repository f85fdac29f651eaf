use std::fmt;

use serde::{Serialize, Serializer};

/// An event's identity: 1 to 128 visible ASCII characters (0x21 to 0x7E).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "schema", schema(pattern = "^[!-~]{1,128}$", examples("order-977-paid")))]
pub struct EventId(Box<str>);

impl EventId {
    pub const MAX: usize = 128;

    /// Makes a UUIDv7 (RFC 9562, section 5.7): unique, and sorted by time.
    pub fn new() -> Self {
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        EventId((&*uuid::Uuid::now_v7().hyphenated().encode_lower(&mut text)).into())
    }

    /// Parses an id that a client chose.
    pub fn parse(text: &str) -> Option<Self> {
        Self::is_valid(text).then(|| EventId(text.into()))
    }

    pub fn is_valid(text: &str) -> bool {
        (1..=Self::MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for EventId {
    fn default() -> Self {
        Self::new()
    }
}

impl std::borrow::Borrow<str> for EventId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Serialize for EventId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventId({})", self.0)
    }
}
