//! Records as JSON, in all outputs: stream, history, export, `consume --format json`.

use std::borrow::Cow;
use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{Attributes, Record};
use crate::event::cloudevents;
use crate::event::time::{format_ms, parse_ms};
pub use crate::value::write_string as string;

/// Appends the record as one JSON object on one line.
///
/// A JSON value is written as it was submitted, except that line breaks between tokens become spaces. Any other value
/// becomes `"value":null,"raw":"<base64>"`, a tombstone `"value":null`.
pub fn write(out: &mut Vec<u8>, topic: &str, record: &Record) {
    out.extend_from_slice(b"{\"topic\":");
    string(out, topic);
    out.extend_from_slice(b",\"partition\":");
    out.extend_from_slice(record.partition().to_string().as_bytes());
    out.extend_from_slice(b",\"offset\":");
    out.extend_from_slice(record.offset().to_string().as_bytes());
    out.extend_from_slice(b",\"timestamp\":");
    time(out, record.timestamp_ms());
    out.extend_from_slice(b",\"key\":");
    match record.key().map(|key| (key, std::str::from_utf8(key))) {
        None => out.extend_from_slice(b"null"),
        Some((_, Ok(text))) => string(out, text),
        Some((key, Err(_))) => {
            out.extend_from_slice(b"null,\"key_raw\":");
            quoted_base64(out, key);
        }
    }
    let attributes = record.attributes();
    for (name, text) in
        [(&b",\"id\":"[..], &attributes.id), (b",\"source\":", &attributes.source), (b",\"type\":", &attributes.kind)]
    {
        out.extend_from_slice(name);
        match text {
            Some(text) => string(out, text),
            None => out.extend_from_slice(b"null"),
        }
    }
    out.extend_from_slice(b",\"time\":");
    time(out, attributes.time_ms);
    headers(out, record, &attributes);
    out.extend_from_slice(b",\"value\":");
    match (record.json(), record.value()) {
        (Some(json), _) => on_one_line(out, json.as_bytes()),
        (None, Some(value)) => {
            out.extend_from_slice(b"null,\"raw\":");
            quoted_base64(out, value);
        }
        (None, None) => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
}

/// Appends JSON with its line breaks replaced. A JSON string has no raw line break, so all of them are white space
/// between tokens.
fn on_one_line(out: &mut Vec<u8>, json: &[u8]) {
    let json = json.trim_ascii();
    let start = out.len();
    out.extend_from_slice(json);
    if memchr::memchr2(b'\n', b'\r', json).is_some() {
        for byte in &mut out[start..] {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
    }
}

/// Returns JSON with line breaks and indentation; numbers and names are unchanged. The result is cut after about `most`
/// bytes, because indentation may be many times as long as the JSON.
pub fn pretty(json: &str, most: usize) -> String {
    let mut out = String::with_capacity(json.len().min(most));
    let mut depth = 0_usize;
    let mut rest = json;
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    while let Some(c) = rest.chars().next().filter(|_| out.len() <= most) {
        match c {
            '"' => {
                let end = end_of_string(rest);
                out.push_str(&rest[..end]);
                rest = &rest[end..];
                continue;
            }
            '{' | '[' => {
                let inner = rest[1..].trim_start();
                if inner.starts_with(['}', ']']) {
                    out.push(c);
                    out.extend(inner.chars().next());
                    rest = &inner[1..];
                    continue;
                }
                depth += 1;
                out.push(c);
                line(&mut out, depth);
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => out.push(c),
        }
        rest = &rest[c.len_utf8()..];
    }
    out
}

/// Returns the length of the string at the start of a text, with its quotes.
fn end_of_string(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// With more headers than this, a table is used to find those of the same name.
const FEW: usize = 16;

/// Appends the headers that are not in other members. Several headers of the same name become an array.
fn headers(out: &mut Vec<u8>, record: &Record, attributes: &Attributes) {
    let content_types = || record.headers().filter(|(name, _)| *name == cloudevents::CONTENT_TYPE);
    let is_json = content_types().all(|(_, value)| value == Some(b"application/json"));
    let others = record.headers().filter(|(name, value)| !is_in_another_member(name, *value, attributes, is_json));
    let mut open = false;
    let mut header = |name: &str, values: &mut dyn Iterator<Item = Option<&[u8]>>, many: bool| {
        out.extend_from_slice(if open { b"," } else { b",\"headers\":{" });
        open = true;
        string(out, name);
        out.push(b':');
        if !many {
            return header_value(out, values.next().flatten());
        }
        for (n, value) in values.enumerate() {
            out.push(if n == 0 { b'[' } else { b',' });
            header_value(out, value);
        }
        out.push(b']');
    };
    if others.clone().nth(FEW).is_none() {
        for (index, (name, _)) in others.clone().enumerate() {
            if others.clone().take(index).all(|(earlier, _)| earlier != name) {
                let same = || others.clone().filter(|(other, _)| *other == name).map(|(_, value)| value);
                header(name, &mut same(), same().nth(1).is_some());
            }
        }
    } else {
        // A record may have thousands of headers.
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut grouped: Vec<(&str, Vec<Option<&[u8]>>)> = Vec::new();
        for (name, value) in others {
            let place = *places.entry(name).or_insert(grouped.len());
            match grouped.get_mut(place) {
                Some((_, values)) => values.push(value),
                None => grouped.push((name, vec![value])),
            }
        }
        for (name, values) in grouped {
            header(name, &mut values.iter().copied(), values.len() > 1);
        }
    }
    if open {
        out.push(b'}');
    }
}

/// Whether another member has the value of a header. `is_json` is whether all content types are `application/json`.
fn is_in_another_member(name: &str, value: Option<&[u8]>, attributes: &Attributes, is_json: bool) -> bool {
    let is = |member: &Option<Cow<str>>| value.is_some() && value == member.as_deref().map(str::as_bytes);
    match name {
        cloudevents::SPECVERSION => value == Some(b"1.0"),
        cloudevents::ID => is(&attributes.id),
        cloudevents::SOURCE => is(&attributes.source),
        cloudevents::TYPE => is(&attributes.kind),
        cloudevents::TIME => {
            let time = value.and_then(|value| std::str::from_utf8(value).ok()).and_then(parse_ms);
            time.is_some() && time == attributes.time_ms
        }
        cloudevents::CONTENT_TYPE => is_json,
        _ => false,
    }
}

/// Appends text as a string, null as null, any other bytes as `{"raw":"<base64>"}`.
fn header_value(out: &mut Vec<u8>, value: Option<&[u8]>) {
    match value.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => out.extend_from_slice(b"null"),
        Some((_, Ok(text))) => string(out, text),
        Some((bytes, Err(_))) => {
            out.extend_from_slice(b"{\"raw\":");
            quoted_base64(out, bytes);
            out.push(b'}');
        }
    }
}

fn time(out: &mut Vec<u8>, ms: Option<i64>) {
    match ms {
        Some(ms) => {
            out.push(b'"');
            out.extend_from_slice(format_ms(ms).as_bytes());
            out.push(b'"');
        }
        None => out.extend_from_slice(b"null"),
    }
}

fn quoted_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(base64(bytes).as_bytes());
    out.push(b'"');
}

/// Encodes bytes as Base64 (RFC 4648, section 4).
pub fn base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(&str, Option<&[u8]>)]) -> serde_json::Value {
        let record = Record::new(1, 812, Some(1_795_435_200_123), key, value, headers.iter().copied());
        let mut out = Vec::new();
        write(&mut out, "user_activity", &record);
        assert!(!out.contains(&b'\n') && !out.contains(&b'\r'), "one line");
        serde_json::from_slice(&out).expect("valid JSON")
    }

    #[test]
    fn our_own_record_reads_as_the_contract_says() {
        let json = json(
            Some(b"John"),
            Some(b"{\"user\":\"John\",\r\n \"action\":\"login\"}"),
            &[
                ("ce_specversion", Some(b"1.0")),
                ("ce_id", Some(b"abc")),
                ("ce_time", Some(b"2026-11-23T12:00:00.120Z")),
                ("content-type", Some(b"application/json")),
                ("traceparent", Some(b"00-1-2-01")),
            ],
        );
        assert_eq!(
            json,
            serde_json::json!({"topic":"user_activity","partition":1,"offset":812,"timestamp":"2026-11-23T12:00:00.123Z",
                "key":"John","id":"abc","source":null,"type":null,"time":"2026-11-23T12:00:00.120Z","headers":{"traceparent":"00-1-2-01"},
                "value":{"user":"John","action":"login"}})
        );
    }

    #[test]
    fn foreign_bytes_are_kept_and_named() {
        let json = json(
            Some(b"\xff"),
            Some(b"\xfe"),
            &[("a", None), ("b", Some(b"\xfd")), ("c", Some(b"1")), ("c", Some(b"2"))],
        );
        assert_eq!(json["key"], serde_json::Value::Null);
        assert_eq!(json["key_raw"], "/w==");
        assert_eq!(json["value"], serde_json::Value::Null);
        assert_eq!(json["raw"], "/g==");
        assert_eq!(json["headers"], serde_json::json!({"a":null,"b":{"raw":"/Q=="},"c":["1","2"]}));
        assert_eq!(json["id"], serde_json::Value::Null);
    }

    #[test]
    fn a_second_content_type_is_kept_even_if_the_first_is_the_expected_one() {
        let json = json(None, None, &[("content-type", Some(b"application/json")), ("content-type", None)]);
        assert_eq!(json["headers"], serde_json::json!({"content-type": ["application/json", null]}));
    }

    #[test]
    fn a_cloud_event_header_without_a_member_is_among_the_headers() {
        let own: [(&str, Option<&[u8]>); 5] = [
            ("ce_specversion", Some(b"0.3")),
            ("ce_id", Some(b"two words")),
            ("ce_source", Some(b"\xff")),
            ("ce_type", None),
            ("ce_time", Some(b"yesterday")),
        ];
        let found = json(None, None, &own);
        assert_eq!(
            found["headers"],
            serde_json::json!({"ce_specversion":"0.3","ce_id":"two words","ce_source":{"raw":"/w=="},"ce_type":null,
                "ce_time":"yesterday"})
        );
        assert_eq!(found["id"], serde_json::Value::Null);
        let twice = json(None, None, &[("ce_id", Some(b"a")), ("ce_id", Some(b"b"))]);
        assert_eq!((&twice["id"], &twice["headers"]), (&serde_json::json!("b"), &serde_json::json!({"ce_id":"a"})));
    }

    #[test]
    fn indentation_is_bounded() {
        let deep = format!("{}{}1{}", "[".repeat(128), "1,".repeat(100_000), "]".repeat(128));
        assert!(pretty(&deep, 1000).len() < 1500);
        assert_eq!(pretty("[1,2]", 1000), "[\n  1,\n  2\n]");
    }

    #[test]
    fn a_tombstone_has_no_raw() {
        assert_eq!(json(None, None, &[]).get("raw"), None);
    }
}
