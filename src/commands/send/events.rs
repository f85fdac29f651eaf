//! Turns lines into events that the server accepts.
//!
//! A line is an event, or a record as `/api/v1/events.ndjson` exports it. An event is sent as a line of NDJSON, with an id. A
//! record is sent as a CloudEvent: so the bytes of its value stay the same, and its id, time, source, type and extensions
//! are those of the first event.

use std::collections::BTreeMap;

use bytes::Bytes;
use footfall::event::EventId;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::lines::{LINE_BYTES, Line};

/// The most characters of the name at the start of an id.
const NAME: usize = 80;

/// How the lines are read.
pub enum Format {
    Json,
    /// Each line is the `message` of an event.
    Text {
        user: String,
        action: String,
    },
}

/// Makes the ids of lines: the name, the number of the line, and a hash of the origin and the line.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Ids {
    name: String,
    /// What the name is short for, such as the path of a file.
    origin: String,
}

/// How an item is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Event,
    CloudEvent,
}

/// An event to send.
#[derive(Debug)]
pub struct Item {
    pub line: u64,
    /// The bytes of the line.
    pub source: Bytes,
    pub kind: Kind,
    /// JSON, on one line.
    pub body: Vec<u8>,
}

/// A line that cannot be sent, or that the server refused.
#[derive(Debug)]
pub struct Rejected {
    pub line: u64,
    /// The bytes of the line, if it was not too long.
    pub source: Option<Bytes>,
    pub why: String,
}

impl Ids {
    pub fn new(name: &str, origin: &str) -> Self {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '~');
        let name = name.chars().take(NAME).map(|c| if allowed(c) { c } else { '_' }).collect();
        Ids { name, origin: origin.to_owned() }
    }

    fn of(&self, line: u64, bytes: &[u8]) -> String {
        let mut hash = Context::new(&SHA256);
        for part in [self.origin.as_bytes(), b"\n", bytes] {
            hash.update(part);
        }
        format!("{}:{line}:{}", self.name, super::hex(&hash.finish().as_ref()[..8]))
    }
}

/// The members of a line that decide how it is sent.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    user: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    action: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    time: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    topic: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    partition: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    offset: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    value: Option<&'a RawValue>,
}

/// Of a record: what becomes the attributes of a CloudEvent.
#[derive(Deserialize)]
struct Exported {
    id: Option<String>,
    source: Option<String>,
    r#type: Option<String>,
    time: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, Value>,
}

/// A member that is there, also if it is `null`.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl Format {
    /// Whether more bytes could make the line an event.
    pub fn is_incomplete(&self, line: &Line) -> bool {
        let is_json = |bytes: &Bytes| serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok();
        matches!(self, Format::Json) && line.bytes.as_ref().is_some_and(|bytes| !is_json(bytes))
    }
}

/// Makes an item of a line; `None` of a blank one.
pub fn item(line: &Line, format: &Format, ids: &Ids) -> Result<Option<Item>, Rejected> {
    let rejected = |source: Option<&Bytes>, why: String| Rejected { line: line.number, source: source.cloned(), why };
    let Some(source) = &line.bytes else {
        return Err(rejected(None, format!("the line is too long: expected at most {LINE_BYTES} bytes")));
    };
    if source.trim_ascii().is_empty() {
        return Ok(None);
    }
    let made = match std::str::from_utf8(source) {
        Err(_) => Err("the line is not UTF-8".to_owned()),
        Ok(text) => match format {
            Format::Json => of_json(text.trim(), || ids.of(line.number, source)),
            Format::Text { user, action } => {
                let event = json!({"id": ids.of(line.number, source), "user": user, "action": action, "message": text});
                Ok((Kind::Event, event.to_string().into_bytes()))
            }
        },
    };
    match made {
        Ok((kind, body)) => Ok(Some(Item { line: line.number, source: source.clone(), kind, body })),
        Err(why) => Err(rejected(Some(source), why)),
    }
}

fn of_json(text: &str, id: impl Fn() -> String) -> Result<(Kind, Vec<u8>), String> {
    let members = members(text)?;
    let (Some(value), Some(_), Some(_), Some(_), None, None) =
        (members.value, members.topic, members.partition, members.offset, members.user, members.action)
    else {
        return Ok((Kind::Event, with(text, &[("id", members.id.is_none().then(id))])));
    };
    let record: Exported = serde_json::from_str(text).map_err(|error| format!("the line is no record: {error}"))?;
    let value = value.get();
    if !value.starts_with('{') {
        return Err("the record's value is no event: expected a JSON object".to_owned());
    }
    let content_type = record.headers.get("content-type").and_then(Value::as_str);
    if content_type.is_some_and(|kind| kind.starts_with("application/cloudevents+json")) {
        return Ok((Kind::CloudEvent, value.into()));
    }
    match (record.id, record.source, record.r#type) {
        (Some(id), Some(source), Some(kind)) => {
            let mut attributes = Map::new();
            for (name, value) in &record.headers {
                // An attribute that appears twice is an array.
                if let (Some(name), Value::String(text)) = (name.strip_prefix("ce_"), value) {
                    attributes.insert(name.to_owned(), text.as_str().into());
                }
            }
            if let Some(content_type) = content_type {
                attributes.insert("datacontenttype".into(), content_type.into());
            }
            let own = [("id", Some(id)), ("source", Some(source)), ("type", Some(kind)), ("time", record.time)];
            for (name, text) in own.into_iter().filter_map(|(name, text)| Some((name, text?))) {
                attributes.insert(name.into(), text.into());
            }
            attributes.insert("specversion".into(), "1.0".into());
            let mut body = Value::Object(attributes).to_string().into_bytes();
            body.pop();
            for part in [b",\"data\":", value.as_bytes(), b"}"] {
                body.extend_from_slice(part);
            }
            Ok((Kind::CloudEvent, body))
        }
        // Another program has written it.
        (own_id, ..) => {
            let inside = self::members(value)?;
            let id = inside.id.is_none().then(|| own_id.filter(|own| EventId::is_valid(own)).unwrap_or_else(id));
            let time = record.time.filter(|_| inside.time.is_none());
            Ok((Kind::Event, with(value, &[("id", id), ("time", time)])))
        }
    }
}

fn members(text: &str) -> Result<Members<'_>, String> {
    if !text.starts_with('{') {
        return Err("the line is no event: expected a JSON object".to_owned());
    }
    serde_json::from_str(text).map_err(|error| format!("the line is no event: {error}"))
}

/// Returns the object with more members at its start. Its other bytes stay the same.
fn with(object: &str, members: &[(&str, Option<String>)]) -> Vec<u8> {
    let rest = &object[1..];
    let mut out = Vec::with_capacity(object.len() + 160);
    out.push(b'{');
    for (name, text) in members.iter().filter_map(|(name, text)| Some((name, text.as_ref()?))) {
        if out.len() > 1 {
            out.push(b',');
        }
        out.extend_from_slice(format!("{}:{}", json!(name), json!(text)).as_bytes());
    }
    if out.len() > 1 && !rest.trim_start().starts_with('}') {
        out.push(b',');
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(text: &str) -> Result<(Kind, Value), String> {
        let line = Line { number: 7, bytes: Some(Bytes::copy_from_slice(text.as_bytes())) };
        let item = item(&line, &Format::Json, &Ids::new("a b.ndjson", "/x/a b.ndjson")).map_err(|r| r.why)?;
        let item = item.expect("not blank");
        Ok((item.kind, serde_json::from_slice(&item.body).expect("JSON")))
    }

    #[test]
    fn an_event_gets_an_id_unless_it_has_one() {
        let (kind, event) = made(r#" {"user":"Ann","action":"login"} "#).expect("an event");
        let id = event["id"].as_str().expect("an id");
        assert!(kind == Kind::Event && id.starts_with("a_b.ndjson:7:") && EventId::is_valid(id), "{event}");
        assert_eq!(event, json!({"id": id, "user": "Ann", "action": "login"}));
        for same in [r#"{"id":"x","user":"Ann"}"#, r#"{"id":null}"#] {
            assert_eq!(made(same).expect("an event").1.to_string(), same);
        }
        assert!(made("{}").expect("an object").1["id"].is_string());
        assert!(made("[1]").is_err() && made("{").is_err() && made(r#"{"user":"a","user":"b"}"#).is_err());
    }

    #[test]
    fn a_record_keeps_what_identifies_its_event() {
        let record = r#"{"topic":"t","partition":0,"offset":3,"timestamp":"2026-11-23T12:00:00.123Z","key":"Ann","id":"i","source":"/s","type":"k","time":"2026-11-23T12:00:00.000Z","headers":{"ce_subject":"S","other":"x","ce_twice":["a","b"]},"value":{"user":"Ann", "action":"a"}}"#;
        let (kind, event) = made(record).expect("a record");
        assert_eq!(kind, Kind::CloudEvent);
        assert_eq!(
            event,
            json!({"specversion": "1.0", "id": "i", "source": "/s", "type": "k", "time": "2026-11-23T12:00:00.000Z",
                "subject": "S", "data": {"user": "Ann", "action": "a"}})
        );
        let foreign = record.replace(r#""source":"/s""#, r#""source":null"#).replace(r#""id":"i""#, r#""id":null"#);
        let (kind, event) = made(&foreign).expect("a record");
        assert_eq!((kind, &event["time"]), (Kind::Event, &json!("2026-11-23T12:00:00.000Z")));
        assert!(event["id"].as_str().is_some_and(|id| id.starts_with("a_b.ndjson:7:")), "{event}");
        let tombstone = record.replace(r#"{"user":"Ann", "action":"a"}"#, "null");
        assert!(made(&tombstone).is_err());
    }
}
