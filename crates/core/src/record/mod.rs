//! A record in Kafka, written by anybody: key, value and headers may be any bytes.
//!
//! A record is one allocation: the feed keeps tens of thousands of them, and the tail makes hundreds of thousands a
//! second.

pub mod csv;
pub mod json;

use std::borrow::Cow;
use std::fmt;

use serde::de::IgnoredAny;

use crate::event::EventId;
use crate::event::cloudevents::{self, Envelope};
use crate::event::time::parse_ms;
use crate::value::{MemberValue, for_each_member, is_deeper};

#[derive(Clone)]
pub struct Record {
    partition: i32,
    offset: i64,
    /// Milliseconds since 1970, or [`NO_TIMESTAMP`].
    timestamp: i64,
    /// Key, value and headers in a row. The lengths of key and value are below; each header starts with its own.
    data: Box<[u8]>,
    key_len: u32,
    value_len: u32,
}

const NO_TIMESTAMP: i64 = i64::MIN;
/// JSON with more levels than this counts as invalid, because many parsers reject it.
const READABLE_DEPTH: usize = 128;
/// The length that means "null", as in Kafka's protocol.
const NULL: u32 = u32::MAX;

impl Record {
    /// Copies a record that Kafka delivered. `timestamp_ms` is the record's own (CreateTime or LogAppendTime).
    pub fn new<'a>(
        partition: i32,
        offset: i64,
        timestamp_ms: Option<i64>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + Clone,
    ) -> Self {
        let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        let header_bytes: usize = headers.clone().map(|(name, value)| 8 + name.len() + length(value)).sum();
        let mut data = Vec::with_capacity(length(key) + length(value) + header_bytes);
        data.extend_from_slice(key.unwrap_or_default());
        data.extend_from_slice(value.unwrap_or_default());
        for (name, value) in headers {
            data.extend_from_slice(&(name.len() as u32).to_le_bytes());
            data.extend_from_slice(&value.map_or(NULL, |v| v.len() as u32).to_le_bytes());
            data.extend_from_slice(name.as_bytes());
            data.extend_from_slice(value.unwrap_or_default());
        }
        Record {
            partition,
            offset,
            timestamp: timestamp_ms.unwrap_or(NO_TIMESTAMP),
            data: data.into_boxed_slice(),
            key_len: key.map_or(NULL, |k| k.len() as u32),
            value_len: value.map_or(NULL, |v| v.len() as u32),
        }
    }

    pub fn partition(&self) -> i32 {
        self.partition
    }

    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// Returns Kafka's timestamp in milliseconds since 1970.
    pub fn timestamp_ms(&self) -> Option<i64> {
        (self.timestamp != NO_TIMESTAMP).then_some(self.timestamp)
    }

    pub fn key(&self) -> Option<&[u8]> {
        (self.key_len != NULL).then(|| &self.data[..self.key_end()])
    }

    /// `None` is a tombstone.
    pub fn value(&self) -> Option<&[u8]> {
        (self.value_len != NULL).then(|| &self.data[self.key_end()..self.value_end()])
    }

    /// Returns the headers in their order. A name may appear more than once; a value may be null or any bytes.
    pub fn headers(&self) -> Headers<'_> {
        Headers { rest: &self.data[self.value_end()..] }
    }

    /// Returns the event's id (`ce_id`; CloudEvents Kafka binding, section 3.2.1), if it is valid.
    pub fn id(&self) -> Option<Cow<'_, str>> {
        self.attributes().id
    }

    /// Returns the event's time (`ce_time`), or Kafka's timestamp, in milliseconds since 1970.
    pub fn time_ms(&self) -> Option<i64> {
        self.attributes().time_ms
    }

    /// Returns the CloudEvents attributes that Footfall uses: those of the envelope in structured mode, otherwise the
    /// headers, of which the last with a name counts.
    pub fn attributes(&self) -> Attributes<'_> {
        let (mut values, mut content_type) = ([None; 5], None);
        for (name, value) in self.headers() {
            let index = match name {
                cloudevents::ID => 0,
                cloudevents::SOURCE => 1,
                cloudevents::TYPE => 2,
                cloudevents::SUBJECT => 3,
                cloudevents::TIME => 4,
                cloudevents::CONTENT_TYPE => {
                    content_type = value;
                    continue;
                }
                _ => continue,
            };
            values[index] = value;
        }
        let texts = match self.envelope_of(content_type) {
            Some(Envelope { id, source, kind, subject, time, .. }) => [id, source, kind, subject, time],
            None => values.map(|value| std::str::from_utf8(value?).ok().map(Cow::Borrowed)),
        };
        let [id, source, kind, subject, time] = texts;
        Attributes {
            id: id.filter(|id| EventId::is_valid(id)),
            source,
            kind,
            subject,
            time_ms: time.and_then(|time| parse_ms(&time)).or(self.timestamp_ms()),
        }
    }

    fn envelope(&self) -> Option<Envelope<'_>> {
        let content_type = self.headers().filter(|(name, _)| *name == cloudevents::CONTENT_TYPE).last()?.1;
        self.envelope_of(content_type)
    }

    fn envelope_of(&self, content_type: Option<&[u8]>) -> Option<Envelope<'_>> {
        if !cloudevents::is_structured(std::str::from_utf8(content_type?).ok()?) {
            return None;
        }
        // Only an object: serde would accept an array as the fields of a struct.
        let value = self.value().filter(|value| value.trim_ascii_start().starts_with(b"{"))?;
        serde_json::from_slice(value).ok()
    }

    /// Returns the value if it is JSON with at most 128 levels.
    pub fn json(&self) -> Option<&str> {
        let text = std::str::from_utf8(self.value()?).ok()?;
        serde_json::from_str::<IgnoredAny>(text).ok()?;
        (!is_deeper(text, READABLE_DEPTH)).then_some(text)
    }

    /// Returns `user` and `action` of the value, if it is a JSON object and they are strings. A CloudEvent's `subject`
    /// and `type` replace missing ones.
    pub fn user_and_action(&self) -> UserAndAction<'_> {
        let (mut user, mut action) = (None, None);
        let mut read = |json| {
            for_each_member(json, |name, value| match &*name {
                "user" => user = Some(MemberValue::read(value)),
                "action" => action = Some(MemberValue::read(value)),
                _ => {}
            })
        };
        if self.event_json().is_none_or(|json| read(json).is_err()) {
            return UserAndAction::default();
        }
        let text = |member| match member {
            Some(MemberValue::Text(text)) => Some(text),
            _ => None,
        };
        if user.is_some() && action.is_some() {
            return UserAndAction { user: text(user), action: text(action) };
        }
        let attributes = self.attributes();
        UserAndAction {
            user: if user.is_some() { text(user) } else { attributes.subject },
            action: if action.is_some() { text(action) } else { attributes.kind },
        }
    }

    /// Returns the text of the event's JSON: the value, or the `data` in CloudEvents structured mode. `None` if it is
    /// not UTF-8.
    pub fn event_json(&self) -> Option<&str> {
        match self.envelope().and_then(|envelope| envelope.data) {
            Some(data) => Some(data.get()),
            None => self.value().and_then(|value| std::str::from_utf8(value).ok()),
        }
    }

    /// Returns the memory it takes, in bytes.
    pub fn size(&self) -> usize {
        std::mem::size_of::<Self>() + self.data.len()
    }

    /// Returns the bytes of key, value and headers.
    pub fn data_size(&self) -> usize {
        self.data.len()
    }

    fn key_end(&self) -> usize {
        if self.key_len == NULL { 0 } else { self.key_len as usize }
    }

    fn value_end(&self) -> usize {
        self.key_end() + if self.value_len == NULL { 0 } else { self.value_len as usize }
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({}-{}, {} bytes)", self.partition, self.offset, self.data.len())
    }
}

/// Iterates over a record's headers.
#[derive(Clone)]
pub struct Headers<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let (name_len, rest) = self.rest.split_first_chunk::<4>()?;
        let (value_len, rest) = rest.split_first_chunk::<4>()?;
        let (name, rest) = rest.split_at(u32::from_le_bytes(*name_len) as usize);
        let value_len = u32::from_le_bytes(*value_len);
        let (value, rest) = rest.split_at(if value_len == NULL { 0 } else { value_len as usize });
        self.rest = rest;
        // The name came from a &str.
        Some((std::str::from_utf8(name).unwrap_or_default(), (value_len != NULL).then_some(value)))
    }
}

/// The two fields that filters and pages use.
#[derive(Debug, Default, PartialEq)]
pub struct UserAndAction<'a> {
    pub user: Option<Cow<'a, str>>,
    pub action: Option<Cow<'a, str>>,
}

/// A CloudEvent's attributes in a record.
pub struct Attributes<'a> {
    /// `None` if there is none, or an invalid one.
    pub id: Option<Cow<'a, str>>,
    pub source: Option<Cow<'a, str>>,
    pub kind: Option<Cow<'a, str>>,
    pub subject: Option<Cow<'a, str>>,
    /// `ce_time`, else Kafka's timestamp; milliseconds since 1970.
    pub time_ms: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: Option<&[u8]>) -> Record {
        let headers: [(&str, Option<&[u8]>); 3] = [("a", Some(b"1")), ("b", None), ("a", Some(b"2"))];
        Record::new(1, 812, Some(5), Some(b"John"), value, headers.into_iter())
    }

    #[test]
    fn a_record_returns_what_kafka_delivered() {
        let record = record(Some(b"{}"));
        assert_eq!(record.key(), Some(&b"John"[..]));
        assert_eq!(record.value(), Some(&b"{}"[..]));
        assert_eq!(record.headers().collect::<Vec<_>>(), [("a", Some(&b"1"[..])), ("b", None), ("a", Some(&b"2"[..]))]);
    }

    #[test]
    fn null_and_empty_are_distinct() {
        let nulls = Record::new(0, 0, None, None, None, std::iter::empty());
        assert_eq!((nulls.key(), nulls.value(), nulls.timestamp_ms()), (None, None, None));
        let empties = Record::new(0, 0, Some(0), Some(b""), Some(b""), std::iter::empty());
        assert_eq!((empties.key(), empties.value()), (Some(&b""[..]), Some(&b""[..])));
    }

    #[test]
    fn user_and_action_are_read_where_they_are_strings() {
        let record = record(Some(br#"{"user":"Jo\u0068n","n":[1],"action":7}"#));
        assert_eq!(record.user_and_action(), UserAndAction { user: Some("John".into()), action: None });
        assert_eq!(self::record(Some(b"[1]")).user_and_action(), UserAndAction::default());
        assert_eq!(self::record(Some(b"\xff")).user_and_action(), UserAndAction::default());
    }

    #[test]
    fn an_array_is_not_a_cloud_event() {
        let structured = [(cloudevents::CONTENT_TYPE, Some(&b"application/cloudevents+json"[..]))];
        let of = |value: &[u8]| Record::new(0, 0, None, None, Some(value), structured.into_iter());
        assert_eq!(of(br#"["id-"]"#).id(), None);
        assert_eq!(of(br#" {"id":"id-"}"#).id().as_deref(), Some("id-"));
    }

    #[test]
    fn invalid_utf8_inside_a_string_is_not_json() {
        assert_eq!(record(Some(b"{\"a\":\"\xff\"}")).json(), None);
    }
}
