//! Encodes the frames of a stream: Server-Sent Events (WHATWG HTML, section 9.2), or one JSON object per line. An
//! event's frame is encoded once and shared by all readers; it carries the cursor after the event.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use memchr::memmem;
use serde::Serialize;

use crate::Cursor;
use crate::record::{Record, json};

/// The encoding of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// A Server-Sent Event whose `data:` is the record, for programs.
    Json,
    /// A Server-Sent Event whose `data:` is the row's HTML, for the page.
    Html,
    /// A JSON object on a line of its own, which becomes a WebSocket message.
    Lines,
}

/// Encodes frames. A function makes the row's HTML, because the feed does not know pages.
#[derive(Clone)]
pub struct Frames {
    html: Arc<dyn Fn(&Record) -> String + Send + Sync>,
    key: Arc<str>,
}

/// `event: gap`. The start that was asked for cannot be had; the stream continues at `resumed`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "schema", schema(
    examples(json!({"requested": "0-5", "resumed": "0-42", "missed": 37, "reason": "expired"})),
))]
pub struct Gap {
    /// Records of the topic before filtering; null if it cannot be known.
    #[cfg_attr(feature = "schema", schema(required))]
    pub missed: Option<u64>,
    pub reason: GapReason,
    /// What was asked for; as it came if it was no cursor.
    pub requested: String,
    pub resumed: Cursor,
}

/// Why the start that was asked for cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum GapReason {
    #[serde(rename = "expired")]
    Expired,
    #[serde(rename = "too far behind")]
    TooFarBehind,
    #[serde(rename = "topic recreated")]
    TopicRecreated,
    #[serde(rename = "unknown partition")]
    UnknownPartition,
    #[serde(rename = "malformed cursor")]
    MalformedCursor,
    #[serde(rename = "no leader")]
    NoLeader,
}

impl fmt::Display for GapReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// `event: dropped`. The client had everything once and then read too slowly; the records from `from` up to `to` were not
/// sent. `event: skipped`: they were not sent because the client asked for no more than a rate.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "schema", schema(
    examples(json!({"count": 1200, "from": "0-812.1-790.2-455", "to": "0-1290.1-1502.2-465"})),
))]
pub struct Dropped<'a> {
    /// Of `dropped`: records of the topic before filtering. Of `skipped`: records that match the filter.
    count: u64,
    from: &'a Cursor,
    to: &'a Cursor,
}

/// `event: position`. Nothing but the `id`: the stream has come so far. Without an `id` the cursor is not known yet.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(max_properties = 0, examples(json!({}))))]
pub struct Position {}

impl Frames {
    pub fn new(html: impl Fn(&Record) -> String + Send + Sync + 'static) -> Self {
        Frames::keyed("", html)
    }

    /// Makes frames with other rows than those of the feed. Readers share what is encoded with an equal key, which must
    /// not be empty.
    pub fn keyed(key: &str, html: impl Fn(&Record) -> String + Send + Sync + 'static) -> Self {
        Frames { html: Arc::new(html), key: key.into() }
    }

    /// Returns what its rows are told apart by; empty for the rows of the feed.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Appends an event's frame; `cursor` is the position after it.
    pub fn event(&self, out: &mut Vec<u8>, dialect: Dialect, topic: &str, record: &Record, cursor: &Cursor) {
        match dialect {
            Dialect::Json => {
                out.extend_from_slice(b"data: ");
                json::write(out, topic, record);
                out.push(b'\n');
                end(out, Some(cursor));
            }
            Dialect::Html => {
                data_lines(out, &(self.html)(record));
                end(out, Some(cursor));
            }
            Dialect::Lines => {
                line(out, "event", Some(cursor));
                out.extend_from_slice(b",\"record\":");
                json::write(out, topic, record);
                out.extend_from_slice(b"}\n");
            }
        }
    }

    /// Appends an event with this data, which may have several lines.
    pub fn data(out: &mut Vec<u8>, text: &str) {
        data_lines(out, text);
        end(out, None);
    }

    /// Appends the first frame of a stream: the position, if it is known, and how long a browser waits before it
    /// reconnects. `retry:` has no block of its own, because some parsers dispatch an empty message for it.
    pub fn first(out: &mut Vec<u8>, dialect: Dialect, retry: Duration, cursor: Option<&Cursor>) {
        if dialect != Dialect::Lines {
            out.extend_from_slice(format!("retry: {}\n", retry.as_millis()).as_bytes());
        }
        Self::position(out, dialect, cursor);
    }

    /// Moves the client's position without an event of the topic. The frame has data, because some parsers also
    /// dispatch a block without data, and a name, so that `onmessage` does not get it.
    pub fn position(out: &mut Vec<u8>, dialect: Dialect, cursor: Option<&Cursor>) {
        Self::control(out, dialect, "position", cursor, &Position {});
    }

    /// Appends a heartbeat. As a Server-Sent Event it is a comment without an empty line after it: some parsers end an
    /// event at any empty line.
    pub fn heartbeat(out: &mut Vec<u8>, dialect: Dialect, cursor: Option<&Cursor>) {
        match dialect {
            Dialect::Lines => Self::position(out, dialect, cursor),
            Dialect::Json | Dialect::Html => out.extend_from_slice(b": heartbeat\n"),
        }
    }

    /// Returns the last cursor in these frames, as text.
    pub fn last_id(frames: &[u8], dialect: Dialect) -> Option<&[u8]> {
        if dialect == Dialect::Lines {
            const CURSOR: &[u8] = b"\"cursor\":\"";
            let lines = frames.strip_suffix(b"\n").unwrap_or(frames);
            let last = memchr::memrchr(b'\n', lines).map_or(lines, |end| &lines[end + 1..]);
            let start = memmem::find(last, CURSOR)? + CURSOR.len();
            let end = memchr::memchr(b'"', &last[start..])?;
            return Some(&last[start..start + end]);
        }
        const ID: &[u8] = b"\nid: ";
        let start = match memmem::rfind(frames, ID) {
            Some(start) => start + ID.len(),
            None => frames.strip_prefix(&ID[1..]).map(|_| ID.len() - 1)?,
        };
        let end = memchr::memchr(b'\n', &frames[start..])?;
        Some(&frames[start..start + end])
    }

    /// Takes whole frames from the front: as many as fit into `size`, and at least one.
    pub fn split(frames: &mut Bytes, dialect: Dialect, size: usize) -> Bytes {
        let end: &[u8] = if dialect == Dialect::Lines { b"\n" } else { b"\n\n" };
        if frames.len() <= size {
            return std::mem::take(frames);
        }
        let length = match memmem::rfind(&frames[..size], end) {
            Some(start) => start + end.len(),
            None => memmem::find(frames, end).map_or(frames.len(), |start| start + end.len()),
        };
        frames.split_to(length)
    }

    pub fn gap(out: &mut Vec<u8>, dialect: Dialect, gap: &Gap) {
        Self::control(out, dialect, "gap", Some(&gap.resumed), gap);
    }

    /// Reports that this client was too slow: `count` records between two positions were not sent.
    pub fn dropped(out: &mut Vec<u8>, dialect: Dialect, count: u64, from: &Cursor, to: &Cursor) {
        Self::control(out, dialect, "dropped", Some(to), &Dropped { count, from, to });
    }

    /// Reports that `count` matching records between two positions were left out because the client asked for a lower
    /// rate.
    pub fn skipped(out: &mut Vec<u8>, dialect: Dialect, count: u64, from: &Cursor, to: &Cursor) {
        Self::control(out, dialect, "skipped", Some(to), &Dropped { count, from, to });
    }

    /// A control message, whose data is an object with members: an event with a name, which `onmessage` does not get, or
    /// a line of that type.
    pub fn control(out: &mut Vec<u8>, dialect: Dialect, name: &str, cursor: Option<&Cursor>, data: &impl Serialize) {
        // Every message has text for keys, and no number that JSON lacks.
        let data = serde_json::to_string(data).unwrap_or_default();
        if dialect == Dialect::Lines {
            line(out, name, cursor);
            let members = data.strip_prefix('{').unwrap_or("}");
            let comma = if members == "}" { "" } else { "," };
            out.extend_from_slice(format!("{comma}{members}\n").as_bytes());
            return;
        }
        out.extend_from_slice(format!("event: {name}\ndata: {data}\n").as_bytes());
        end(out, cursor);
    }
}

/// Appends text as the data of an event. `\r`, `\n` and `\r\n` end a field, so each line becomes a field of its own.
fn data_lines(out: &mut Vec<u8>, text: &str) {
    for line in text.split(['\n', '\r']).filter(|line| !line.is_empty()) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
    }
}

/// Ends an event with its `id:` field. It comes last because some clients store an id as soon as they have read its
/// line, and would lose the event if the connection broke between id and data.
fn end(out: &mut Vec<u8>, cursor: Option<&Cursor>) {
    if let Some(cursor) = cursor {
        out.extend_from_slice(b"id: ");
        cursor.write(out);
        out.push(b'\n');
    }
    out.push(b'\n');
}

/// Appends the members that every line starts with.
fn line(out: &mut Vec<u8>, kind: &str, cursor: Option<&Cursor>) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"cursor\":");
    match cursor {
        Some(cursor) => {
            out.push(b'"');
            cursor.write(out);
            out.push(b'"');
        }
        None => out.extend_from_slice(b"null"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_data_and_then_an_id() {
        let record = Record::new(0, 4, Some(0), None, Some(b"{\n\"user\":\"a\"}"), std::iter::empty());
        let frames = Frames::new(|_| "<li>\n  a\r\n</li>\n".to_owned());
        let mut out = Vec::new();
        frames.event(&mut out, Dialect::Html, "t", &record, &Cursor::new([5]));
        assert_eq!(String::from_utf8_lossy(&out), "data: <li>\ndata:   a\ndata: </li>\nid: 0-5\n\n");
        out.clear();
        frames.event(&mut out, Dialect::Json, "t", &record, &Cursor::new([5]));
        assert_eq!(out.iter().filter(|b| **b == b'\n').count(), 3);
    }

    #[test]
    fn a_control_message_has_a_name_and_a_cursor() {
        let mut out = Vec::new();
        Frames::dropped(&mut out, Dialect::Json, 37, &Cursor::new([1]), &Cursor::new([38]));
        assert_eq!(
            String::from_utf8_lossy(&out),
            "event: dropped\ndata: {\"count\":37,\"from\":\"0-1\",\"to\":\"0-38\"}\nid: 0-38\n\n"
        );
    }

    #[test]
    fn a_line_is_an_object_with_its_type_and_the_place_after_it() {
        let lines = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            String::from_utf8(out).expect("text")
        };
        let record = Record::new(0, 4, Some(0), None, Some(b"{\n\"user\":\"a\"}"), std::iter::empty());
        let frames = Frames::new(|_| String::new());
        let event = lines(&|out| frames.event(out, Dialect::Lines, "t", &record, &Cursor::new([5])));
        assert!(event.starts_with("{\"type\":\"event\",\"cursor\":\"0-5\",\"record\":{\"topic\":\"t\","), "{event}");
        assert!(event.ends_with("\"value\":{ \"user\":\"a\"}}}\n") && event.lines().count() == 1, "{event}");
        assert_eq!(
            lines(&|out| Frames::dropped(out, Dialect::Lines, 37, &Cursor::new([1]), &Cursor::new([38]))),
            "{\"type\":\"dropped\",\"cursor\":\"0-38\",\"count\":37,\"from\":\"0-1\",\"to\":\"0-38\"}\n"
        );
        let first = lines(&|out| Frames::first(out, Dialect::Lines, Duration::from_secs(3), None));
        assert_eq!(first, "{\"type\":\"position\",\"cursor\":null}\n");
    }

    #[test]
    fn the_first_frame_and_the_heartbeat_have_no_block_without_data() {
        let mut out = Vec::new();
        Frames::first(&mut out, Dialect::Json, Duration::from_secs(3), Some(&Cursor::new([5])));
        Frames::heartbeat(&mut out, Dialect::Json, Some(&Cursor::new([5])));
        assert_eq!(String::from_utf8_lossy(&out), "retry: 3000\nevent: position\ndata: {}\nid: 0-5\n\n: heartbeat\n");
    }

    #[test]
    fn frames_are_split_between_events() {
        let mut frames =
            Bytes::from_static(b"data: 1\nid: 0-1\n\ndata: \"\\nid: 0-9\"\nid: 0-2\n\ndata: 3\nid: 0-3\n\n");
        assert_eq!(Frames::last_id(&frames, Dialect::Json), Some(&b"0-3"[..]));
        let first = Frames::split(&mut frames, Dialect::Json, 4);
        assert_eq!(
            (&first[..], Frames::last_id(&first, Dialect::Json)),
            (&b"data: 1\nid: 0-1\n\n"[..], Some(&b"0-1"[..]))
        );
        let second = Frames::split(&mut frames, Dialect::Json, 34);
        assert_eq!(Frames::last_id(&second, Dialect::Json), Some(&b"0-2"[..]));
        let third = Frames::split(&mut frames, Dialect::Json, 1000);
        assert!(third.starts_with(b"data: 3") && frames.is_empty());
        assert_eq!(Frames::last_id(b": heartbeat\n", Dialect::Json), None);
        let lines = b"{\"type\":\"event\",\"cursor\":\"0-1\"}\n{\"type\":\"event\",\"cursor\":\"0-2\",\"x\":\"\"}\n";
        assert_eq!(Frames::last_id(lines, Dialect::Lines), Some(&b"0-2"[..]));
    }
}
