//! What a stream says as bytes: Server-Sent Events (WHATWG HTML, section 9.2), or a JSON object a line. An event's frame
//! is encoded once and shared by all who want it; it carries the cursor after it.

use std::time::Duration;

use serde_json::Value;

use super::Cursor;
use crate::event::{Record, json};

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// A Server-Sent Event whose `data:` is the record, for programs.
    Json,
    /// One whose `data:` is the row's HTML, for the page.
    Html,
    /// A JSON object on a line of its own, each a message of a WebSocket.
    Lines,
}

/// How frames are made. The page's HTML is made by a function, as the feed does not know pages.
#[derive(Clone, Copy)]
pub struct Frames {
    html: fn(&Record) -> String,
}

/// Records that cannot be shown any more: told to the client, never skipped in silence.
#[derive(Debug, Clone, PartialEq)]
pub struct Gap {
    /// What was asked for; as it came if it was no cursor.
    pub requested: String,
    pub resumed: Cursor,
    /// How many records lie between, where that can be known.
    pub missed: Option<u64>,
    pub reason: &'static str,
}

impl Frames {
    pub fn new(html: fn(&Record) -> String) -> Self {
        Frames { html }
    }

    /// Appends an event's frame; `cursor` is the place after it.
    pub fn event(&self, out: &mut Vec<u8>, dialect: Dialect, topic: &str, record: &Record, cursor: &Cursor) {
        match dialect {
            Dialect::Json => {
                id(out, cursor);
                out.extend_from_slice(b"data: ");
                json::write(out, topic, record);
                out.extend_from_slice(b"\n\n");
            }
            Dialect::Html => {
                id(out, cursor);
                Self::data(out, &(self.html)(record));
            }
            Dialect::Lines => {
                line(out, "event", Some(cursor));
                out.extend_from_slice(b",\"record\":");
                json::write(out, topic, record);
                out.extend_from_slice(b"}\n");
            }
        }
    }

    /// Text of any lines as the data of an event, and the event's end.
    pub fn data(out: &mut Vec<u8>, text: &str) {
        // Line breaks of all three kinds end a field, so each line is a field of its own.
        for line in text.split(['\n', '\r']).filter(|line| !line.is_empty()) {
            out.extend_from_slice(b"data: ");
            out.extend_from_slice(line.as_bytes());
            out.push(b'\n');
        }
        out.push(b'\n');
    }

    /// The first of all: the place, if it is known, and how long a browser waits before it connects again.
    pub fn first(out: &mut Vec<u8>, dialect: Dialect, retry: Duration, cursor: Option<&Cursor>) {
        match (dialect, cursor) {
            (Dialect::Lines, _) => Self::position(out, dialect, cursor),
            (_, cursor) => {
                out.extend_from_slice(format!("retry: {}\n", retry.as_millis()).as_bytes());
                cursor.into_iter().for_each(|cursor| id(out, cursor));
                out.push(b'\n');
            }
        }
    }

    /// Moves the client on and tells no event, as a sign of life. An event without data is none, and without a cursor
    /// either it is a comment.
    pub fn position(out: &mut Vec<u8>, dialect: Dialect, cursor: Option<&Cursor>) {
        match (dialect, cursor) {
            (Dialect::Lines, _) => {
                line(out, "position", cursor);
                out.extend_from_slice(b"}\n");
            }
            (_, Some(cursor)) => {
                id(out, cursor);
                out.push(b'\n');
            }
            (_, None) => out.extend_from_slice(b":\n\n"),
        }
    }

    pub fn gap(out: &mut Vec<u8>, dialect: Dialect, gap: &Gap) {
        let data = serde_json::json!({
            "requested": gap.requested,
            "resumed": gap.resumed.to_string(),
            "missed": gap.missed,
            "reason": gap.reason,
        });
        Self::control(out, dialect, "gap", Some(&gap.resumed), &data);
    }

    /// This client was too slow: `count` records between two places were not sent.
    pub fn dropped(out: &mut Vec<u8>, dialect: Dialect, count: u64, from: &Cursor, to: &Cursor) {
        let data = serde_json::json!({"count": count, "from": from.to_string(), "to": to.to_string()});
        Self::control(out, dialect, "dropped", Some(to), &data);
    }

    /// This client asked for no more than a rate: `count` records between two places that it would have got were left out.
    pub fn skipped(out: &mut Vec<u8>, dialect: Dialect, count: u64, from: &Cursor, to: &Cursor) {
        let data = serde_json::json!({"count": count, "from": from.to_string(), "to": to.to_string()});
        Self::control(out, dialect, "skipped", Some(to), &data);
    }

    /// A control message, whose data is an object with members: an event with a name, which `onmessage` does not get, or
    /// a line of that type.
    pub fn control(out: &mut Vec<u8>, dialect: Dialect, name: &str, cursor: Option<&Cursor>, data: &Value) {
        let data = data.to_string();
        if dialect == Dialect::Lines {
            line(out, name, cursor);
            let members = data.strip_prefix('{').unwrap_or("}");
            out.extend_from_slice(format!(",{members}\n").as_bytes());
            return;
        }
        cursor.into_iter().for_each(|cursor| id(out, cursor));
        out.extend_from_slice(format!("event: {name}\ndata: {data}\n\n").as_bytes());
    }
}

/// The field that becomes the client's last event id.
fn id(out: &mut Vec<u8>, cursor: &Cursor) {
    out.extend_from_slice(b"id: ");
    cursor.write(out);
    out.push(b'\n');
}

/// The members that every line begins with.
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
    fn a_frame_is_an_id_and_data_on_one_line_each() {
        let record = Record::new(0, 4, Some(0), None, Some(b"{\n\"user\":\"a\"}"), std::iter::empty());
        let frames = Frames::new(|_| "<li>\n  a\r\n</li>\n".to_owned());
        let mut out = Vec::new();
        frames.event(&mut out, Dialect::Html, "t", &record, &Cursor::new([5]));
        assert_eq!(String::from_utf8_lossy(&out), "id: 0-5\ndata: <li>\ndata:   a\ndata: </li>\n\n");
        out.clear();
        frames.event(&mut out, Dialect::Json, "t", &record, &Cursor::new([5]));
        assert_eq!(out.iter().filter(|b| **b == b'\n').count(), 3);
    }

    #[test]
    fn a_control_message_has_a_name_and_the_place_it_leads_to() {
        let mut out = Vec::new();
        Frames::dropped(&mut out, Dialect::Json, 37, &Cursor::new([1]), &Cursor::new([38]));
        assert_eq!(
            String::from_utf8_lossy(&out),
            "id: 0-38\nevent: dropped\ndata: {\"count\":37,\"from\":\"0-1\",\"to\":\"0-38\"}\n\n"
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
}
