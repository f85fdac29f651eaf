//! Server-Sent Events as bytes (WHATWG HTML, section 9.2). An event's frame is encoded once and shared by all who want
//! it; its `id` is the cursor after it.

use super::Cursor;
use crate::event::{Record, json};

/// What `data:` of an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// The record, for programs.
    Json,
    /// The row's HTML, for the page.
    Html,
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
        out.extend_from_slice(b"id: ");
        cursor.write(out);
        match dialect {
            Dialect::Json => {
                out.extend_from_slice(b"\ndata: ");
                json::write(out, topic, record);
                out.push(b'\n');
            }
            Dialect::Html => {
                out.push(b'\n');
                Self::data(out, &(self.html)(record));
                return;
            }
        }
        out.push(b'\n');
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

    /// Moves the client's last event id on and dispatches nothing: an event without data is none.
    pub fn position(out: &mut Vec<u8>, cursor: &Cursor) {
        out.extend_from_slice(b"id: ");
        cursor.write(out);
        out.extend_from_slice(b"\n\n");
    }

    pub fn gap(out: &mut Vec<u8>, gap: &Gap) {
        let data = serde_json::json!({
            "requested": gap.requested,
            "resumed": gap.resumed.to_string(),
            "missed": gap.missed,
            "reason": gap.reason,
        });
        Self::control(out, "gap", Some(&gap.resumed), &data);
    }

    /// This client was too slow: `count` records between two places were not sent.
    pub fn dropped(out: &mut Vec<u8>, count: u64, from: &Cursor, to: &Cursor) {
        let data = serde_json::json!({"count": count, "from": from.to_string(), "to": to.to_string()});
        Self::control(out, "dropped", Some(to), &data);
    }

    /// This client asked for no more than a rate: `count` records between two places that it would have got were left out.
    pub fn skipped(out: &mut Vec<u8>, count: u64, from: &Cursor, to: &Cursor) {
        let data = serde_json::json!({"count": count, "from": from.to_string(), "to": to.to_string()});
        Self::control(out, "skipped", Some(to), &data);
    }

    /// A control message: an event with a name, which `onmessage` does not get.
    pub fn control(out: &mut Vec<u8>, name: &str, cursor: Option<&Cursor>, data: &serde_json::Value) {
        if let Some(cursor) = cursor {
            out.extend_from_slice(b"id: ");
            cursor.write(out);
            out.push(b'\n');
        }
        out.extend_from_slice(format!("event: {name}\ndata: {data}\n\n").as_bytes());
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
        Frames::dropped(&mut out, 37, &Cursor::new([1]), &Cursor::new([38]));
        assert_eq!(
            String::from_utf8_lossy(&out),
            "id: 0-38\nevent: dropped\ndata: {\"count\":37,\"from\":\"0-1\",\"to\":\"0-38\"}\n\n"
        );
    }
}
