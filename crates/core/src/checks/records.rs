//! A record of any bytes can be written in every output format, without loss where the format promises that.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::json::{self, Node};
use crate::event::{EventId, cloudevents, time};
use crate::record::{Record, csv, json as record_json};

/// A record of any bytes.
pub fn record(data: &[u8]) {
    check(&record_of(data));
}

/// Returns the record that an input describes: key, value, and names and values of headers, as [`parts`](super::parts).
pub fn record_of(data: &[u8]) -> Record {
    let mut parts = super::parts(data);
    let (key, value) = (parts.next().flatten(), parts.next().flatten());
    let parts: Vec<_> = parts.collect();
    let names: Vec<String> =
        parts.chunks(2).map(|pair| String::from_utf8_lossy(pair[0].unwrap_or_default()).into_owned()).collect();
    let headers = names.iter().zip(parts.chunks(2)).map(|(name, pair)| (name.as_str(), pair.get(1).copied().flatten()));
    Record::new(1, 812, Some(1_795_435_200_123), key, value, headers)
}

/// A record whose value is in CloudEvents structured mode.
pub fn structured_record_of(data: &[u8]) -> Record {
    let structured = [(cloudevents::CONTENT_TYPE, Some(&b"application/cloudevents+json; charset=utf-8"[..]))];
    Record::new(0, 0, None, None, Some(data), structured.into_iter())
}

/// A value in CloudEvents structured mode.
pub fn foreign_record(data: &[u8]) {
    let record = structured_record_of(data);
    check(&record);
    let Some(envelope) = std::str::from_utf8(data).ok().and_then(json::read) else { return };
    // An attribute that the record reports is one of the CloudEvent.
    let own = |name| envelope.get(name).and_then(Node::text).map(str::to_owned);
    let fields = record.user_and_action();
    if let Some(id) = record.id() {
        assert_eq!(own("id").as_deref(), Some(&*id));
    }
    if let Some(data) = envelope.get("data").filter(|data| **data != Node::Null)
        && record.event_json().is_some_and(|text| json::read(text).as_ref() == Some(data))
    {
        for (field, name) in [(&fields.user, "user"), (&fields.action, "action")] {
            assert!(field.is_none() || data.all(name).any(|value| value.text() == field.as_deref()), "{name}");
        }
    }
}

fn check(record: &Record) {
    as_json(record);
    as_csv(record);
    if let Some(json) = record.json() {
        assert_eq!(json::read(&record_json::pretty(json, usize::MAX)), json::read(json), "prettier and another");
    }
}

fn as_json(record: &Record) {
    let mut out = Vec::new();
    record_json::write(&mut out, "user_activity", record);
    let text = String::from_utf8(out).expect("UTF-8");
    assert!(!text.contains(['\n', '\r']), "one line: {text}");
    let node = json::read(&text).unwrap_or_else(|| panic!("no JSON: {text}"));
    assert!(
        node.is_named()
            && node
                .members()
                .unwrap_or_default()
                .iter()
                .all(|(name, _)| { node.all(name.as_deref().unwrap_or_default()).count() == 1 }),
        "a member twice: {text}"
    );
    let is_time = |ms: Option<i64>, node: Option<&Node>| match ms {
        Some(ms) => {
            node.and_then(Node::text).and_then(time::parse_ms)
                == Some(ms.clamp(-62_167_219_200_000, 253_402_300_799_999))
        }
        None => node == Some(&Node::Null),
    };
    assert!(
        is_time(record.timestamp_ms(), node.get("timestamp")) && is_time(record.time_ms(), node.get("time")),
        "{text}"
    );
    assert_eq!(node.get("partition"), Some(&Node::Number(record.partition().to_string())));
    assert_eq!(node.get("offset"), Some(&Node::Number(record.offset().to_string())));
    assert_eq!(bytes(node.get("key"), node.get("key_raw")).as_deref(), record.key(), "{text}");
    assert!(record.id().is_none_or(|id| EventId::is_valid(&id)));
    assert_eq!(node.get("id"), Some(&Node::from(record.id().as_deref())), "{text}");

    let value = record.value().map(|value| std::str::from_utf8(value).ok().and_then(json::read));
    match value {
        Some(Some(value)) if value.depth() <= 128 => {
            assert!(record.json().is_some() && node.get("raw").is_none());
            assert_eq!(node.get("value"), Some(&value), "{text}");
        }
        _ => {
            assert!(record.json().is_none() && node.get("value") == Some(&Node::Null), "{text}");
            let raw = node.get("raw").and_then(Node::text).map(|raw| BASE64.decode(raw).expect("Base64"));
            assert_eq!(raw.as_deref(), record.value(), "{text}");
        }
    }

    let content_types = || record.headers().filter(|(name, _)| *name == cloudevents::CONTENT_TYPE);
    let is_expected = content_types().all(|(_, value)| value == Some(b"application/json"));
    let member = |name: &str| node.get(name).and_then(Node::text).map(str::as_bytes);
    let is_shown = |name: &str, value: Option<&[u8]>| match name {
        cloudevents::SPECVERSION => value == Some(b"1.0"),
        cloudevents::ID => value.is_some() && value == member("id"),
        cloudevents::SOURCE => value.is_some() && value == member("source"),
        cloudevents::TYPE => value.is_some() && value == member("type"),
        cloudevents::TIME => {
            let ms = value.and_then(|value| std::str::from_utf8(value).ok()).and_then(time::parse_ms);
            ms.is_some() && ms == record.time_ms()
        }
        cloudevents::CONTENT_TYPE => is_expected,
        _ => false,
    };
    let others: Vec<_> = record.headers().filter(|(name, value)| !is_shown(name, *value)).collect();
    let of_name = |name: &str| -> Vec<Option<&[u8]>> {
        others.iter().filter(|(other, _)| *other == name).map(|(_, value)| *value).collect()
    };
    let headers = node.get("headers");
    assert_eq!(headers.is_some(), !others.is_empty(), "{text}");
    for (name, _) in &others {
        let node = headers.and_then(|headers| headers.get(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
        let found: Vec<Option<Vec<u8>>> = match node {
            Node::Array(nodes) => nodes.iter().map(|node| bytes(Some(node), node.get("raw"))).collect(),
            node => vec![bytes(Some(node), node.get("raw"))],
        };
        assert_eq!(found.iter().map(Option::as_deref).collect::<Vec<_>>(), of_name(name), "{name} in {text}");
    }
}

impl From<Option<&str>> for Node {
    fn from(text: Option<&str>) -> Self {
        text.map_or(Node::Null, |text| Node::Text(Some(text.to_owned())))
    }
}

/// Returns the bytes of a text member, or of the Base64 member beside it.
fn bytes(node: Option<&Node>, raw: Option<&Node>) -> Option<Vec<u8>> {
    match raw.and_then(Node::text) {
        Some(raw) => Some(BASE64.decode(raw).expect("Base64")),
        None => node.and_then(Node::text).map(|text| text.as_bytes().to_vec()),
    }
}

fn as_csv(record: &Record) {
    let mut out = Vec::new();
    csv::line(&mut out, record);
    let text = String::from_utf8(out).expect("UTF-8");
    let cells = cells(&text).unwrap_or_else(|| panic!("no line of CSV: {text:?}"));
    assert_eq!(cells.len(), std::str::from_utf8(csv::HEAD).expect("text").split(',').count(), "{text:?}");
    let utf8 =
        |bytes: Option<&[u8]>| bytes.and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default().to_owned();
    let fields = record.user_and_action();
    let expected = [
        (2, record.partition().to_string()),
        (3, record.offset().to_string()),
        (4, utf8(record.key())),
        (5, record.id().unwrap_or_default().into_owned()),
        (6, fields.user.unwrap_or_default().into_owned()),
        (7, fields.action.unwrap_or_default().into_owned()),
        (8, utf8(record.value())),
    ];
    for (index, expected) in expected {
        let cell = &cells[index];
        assert!(*cell == expected || cell.strip_prefix('\'') == Some(&expected), "{expected:?} became {cell:?}");
    }
    for cell in &cells {
        assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']), "a formula: {cell:?}");
    }
    if let Some(raw) = record.value().filter(|value| std::str::from_utf8(value).is_err()) {
        assert_eq!(BASE64.decode(cells[9].trim_start_matches('\'')).ok().as_deref(), Some(raw));
    }
}

/// Parses the cells of one line (RFC 4180, section 2).
fn cells(line: &str) -> Option<Vec<String>> {
    let mut rest = line.strip_suffix("\r\n")?;
    let mut cells = Vec::new();
    loop {
        let mut cell = String::new();
        if let Some(quoted) = rest.strip_prefix('"') {
            rest = quoted;
            loop {
                let end = rest.find('"')?;
                cell.push_str(&rest[..end]);
                rest = &rest[end + 1..];
                match rest.strip_prefix('"') {
                    Some(more) => {
                        cell.push('"');
                        rest = more;
                    }
                    None => break,
                }
            }
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            cell.push_str(&rest[..end]);
            rest = &rest[end..];
            if cell.contains(['"', '\r', '\n']) {
                return None;
            }
        }
        cells.push(cell);
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return rest.is_empty().then_some(cells),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            "\\PC{0,20}",
            "[-=+@\t\r\n\"',;a<>&]{0,6}",
            select(vec![
                "",
                "John",
                "=1+1",
                "\u{feff}x",
                "\u{202e}x",
                "<script>",
                "{\"user\":\"John\",\"action\":\"a\\nb\"}"
            ])
            .prop_map(str::to_owned),
        ]
    }

    fn some_bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
        let members =
            proptest::collection::vec((select(vec!["user", "action", "id", "x", "<b>", "y=z"]), text()), 0..6);
        let object = members.prop_map(|members| {
            let members: Vec<String> = members
                .iter()
                .map(|(name, value)| format!("{}:\r\n{}", serde_json::json!(name), serde_json::json!(value)))
                .collect();
            format!("{{{}}} ", members.join(", ")).into_bytes()
        });
        prop_oneof![
            1 => Just(None),
            2 => proptest::collection::vec(any::<u8>(), 0..40).prop_map(Some),
            2 => text().prop_map(|text| Some(text.into_bytes())),
            4 => object.prop_map(Some),
        ]
    }

    fn headers() -> impl Strategy<Value = Vec<(String, Option<Vec<u8>>)>> {
        let names = ["a", "ce_id", "ce_time", "content-type", "traceparent"].map(str::to_owned).to_vec();
        let values = prop_oneof![
            3 => some_bytes(),
            1 => select(vec!["application/json", "application/cloudevents+json", "e1", "2026-11-23T12:00:00Z"])
                .prop_map(|text| Some(text.as_bytes().to_vec())),
        ];
        proptest::collection::vec((prop_oneof![3 => select(names), 1 => text()], values), 0..6)
    }

    proptest! {
        #[test]
        fn a_record_of_any_bytes_is_written_in_full(
            key in some_bytes(), value in some_bytes(), headers in headers(), time in proptest::option::of(any::<i64>()),
        ) {
            let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
            check(&Record::new(3, 7, time.filter(|ms| *ms != i64::MIN), key.as_deref(), value.as_deref(), headers));
        }

        #[test]
        fn a_record_in_structured_mode_is_its_envelope(value in some_bytes(), id in text()) {
            let value = String::from_utf8(value.unwrap_or_default()).unwrap_or_default();
            foreign_record(value.as_bytes());
            foreign_record(format!("{{\"id\":{},\"data\":{value}}}", serde_json::json!(id)).as_bytes());
        }
    }
}
