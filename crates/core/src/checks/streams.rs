//! A strict parser gets out of a stream what was put in, wherever the bytes are split.

use super::event_stream::{Frame, Parser, SseMessage};
use super::json;
use crate::record::{Record, json as record_json};
use crate::{Cursor, Dialect, Frames, Gap, GapReason};

/// Parses the frames of a stream strictly. The bytes arrive in two pieces, split at `cut`.
pub fn frames(bytes: &[u8], cut: usize) -> Vec<Frame> {
    let (first, second) = bytes.split_at(cut.min(bytes.len()));
    let mut parser = Parser::default();
    parser.feed(first);
    parser.feed(second);
    assert!(parser.is_between_frames(), "a frame without its end: {}", String::from_utf8_lossy(bytes));
    parser.frames.into_iter().collect()
}

/// Writes one frame of each kind, with text from [`parts`](super::parts), which may be anything.
pub fn stream(data: &[u8]) {
    let cut = data.first().copied().unwrap_or_default().into();
    let (mut out, mut expected) = (Vec::new(), Vec::new());
    let mut place = Cursor::new([0, 0]);
    for (index, part) in super::parts(data).enumerate() {
        let bytes = part.unwrap_or_default();
        let text = String::from_utf8_lossy(bytes).into_owned();
        let offset = index as i64;
        place.set((index % 2) as i32, offset + 1);
        let id = place.to_string();
        let message = |event: &str, data: String| {
            Frame::Message(SseMessage { event: event.into(), data, last_event_id: id.clone() })
        };
        match index % 6 {
            0 => {
                let record = Record::new((index % 2) as i32, offset, None, part, part, [(&*text, part)].into_iter());
                Frames::new(|_| String::new()).event(&mut out, Dialect::Json, "t", &record, &place);
                let mut data = Vec::new();
                record_json::write(&mut data, "t", &record);
                expected.push(message("message", String::from_utf8(data).expect("UTF-8")));
            }
            1 => {
                let html = |record: &Record| String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned();
                let record = Record::new(0, offset, None, None, Some(bytes), std::iter::empty());
                Frames::new(html).event(&mut out, Dialect::Html, "t", &record, &place);
                // The standard joins lines with `\n` whichever line break was sent; empty lines mean nothing in HTML.
                let lines: Vec<&str> = text.split(['\n', '\r']).filter(|line| !line.is_empty()).collect();
                expected.push(match lines.is_empty() {
                    true => Frame::Silent { last_event_id: id },
                    false => message("message", lines.join("\n")),
                });
            }
            2 => {
                Frames::position(&mut out, Dialect::Json, Some(&place));
                expected.push(message("position", "{}".to_owned()));
            }
            3 => {
                let missed = part.map(|part| part.len() as u64);
                let gap = Gap { requested: text.clone(), resumed: place.clone(), missed, reason: GapReason::Expired };
                Frames::gap(&mut out, Dialect::Json, &gap);
                let data = serde_json::json!({"requested": text, "resumed": id, "missed": missed, "reason": "expired"});
                expected.push(message("gap", data.to_string()));
            }
            4 => {
                let (count, from) = (bytes.len() as u64, Cursor::new([0]));
                let data = serde_json::json!({"count": count, "from": "0-0", "to": id}).to_string();
                match bytes.len() % 2 {
                    0 => Frames::dropped(&mut out, Dialect::Json, count, &from, &place),
                    _ => Frames::skipped(&mut out, Dialect::Json, count, &from, &place),
                }
                expected.push(message(["dropped", "skipped"][bytes.len() % 2], data));
            }
            _ => {
                let data = serde_json::json!({"detail": text});
                Frames::control(&mut out, Dialect::Json, "failed", Some(&place), &data);
                expected.push(message("failed", data.to_string()));
            }
        }
    }
    let found = frames(&out, cut);
    assert_eq!(found, expected, "{}", String::from_utf8_lossy(&out));
    for frame in &found {
        if let Frame::Message(SseMessage { event, data, .. }) = frame
            && (event != "message" || data.starts_with('{') && json::read(data).is_some())
        {
            assert!(json::read(data).is_some(), "{data}");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_stream_returns_what_was_put_in(
            parts in proptest::collection::vec(prop_oneof![Just(None), "[\\PC\r\n\0: ]{0,12}".prop_map(Some)], 1..12),
        ) {
            let parts: Vec<String> = parts.into_iter().map(|part| part.map_or(String::new(), |part| format!("+{part}"))).collect();
            super::stream(parts.join("\u{1e}").as_bytes());
        }
    }
}
