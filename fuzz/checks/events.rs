//! Submitted events are accepted if and only if the rules of `docs/api.md` say so, told by a slow reading of them, and what
//! is accepted is passed on byte for byte.

use bytes::Bytes;

use super::json::{self, Node};
use crate::event::cloudevents;
use crate::event::time::parse_ms;
use crate::event::{Event, EventId, Format, Limits, Parsed, Record, Refused, parse};

/// Small, so that what lies beyond them is met.
const LIMITS: Limits = Limits { event: 600, batch: 4, now_ms: 1_795_435_200_000 };

/// A body of `application/json`.
pub fn events(body: &[u8]) {
    check(body, Format::Json);
}

/// A body of `application/cloudevents+json`.
pub fn cloud_event(body: &[u8]) {
    check(body, Format::CloudEvent);
}

/// A body of `application/cloudevents-batch+json`.
pub fn cloud_events(body: &[u8]) {
    check(body, Format::CloudEventBatch);
}

/// What the rules say about a body.
#[derive(Debug, PartialEq)]
enum Verdict {
    Empty,
    NotUtf8,
    NotJson,
    WrongType,
    EmptyArray,
    TooMany,
    TooLarge,
    /// Events, each as it stands; `None` for one that is none.
    One(Option<String>),
    Many(Vec<Option<String>>),
}

fn check(body: &[u8], format: Format) {
    let shared = Bytes::copy_from_slice(body);
    let parsed = parse(&shared, format, &LIMITS);
    let value = |checked: &Result<Event, _>| {
        let event = checked.as_ref().ok()?;
        passed_on(event);
        Some(String::from_utf8(event.value.to_vec()).expect("UTF-8"))
    };
    let found = match &parsed {
        Ok(Parsed::One(checked)) => Verdict::One(value(checked)),
        Ok(Parsed::Many(items)) => Verdict::Many(items.iter().map(value).collect()),
        Err(Refused::Empty) => Verdict::Empty,
        Err(Refused::NotUtf8(_)) => Verdict::NotUtf8,
        Err(Refused::NotJson(_)) => Verdict::NotJson,
        Err(Refused::EmptyArray(_)) => Verdict::EmptyArray,
        Err(Refused::WrongType(_)) => Verdict::WrongType,
        Err(Refused::TooMany { .. }) => Verdict::TooMany,
        Err(Refused::TooLarge { .. }) => Verdict::TooLarge,
    };
    assert_eq!(found, verdict(body, format), "{format:?} {parsed:?}");
    for errors in match parsed {
        Ok(Parsed::One(checked)) => vec![checked.err()],
        Ok(Parsed::Many(items)) => items.into_iter().map(Result::err).collect(),
        Err(_) => Vec::new(),
    } {
        assert!(errors.is_none_or(|errors| !errors.is_empty()), "refused without a reason");
    }
}

/// Its header fields are what a record in Kafka tells again.
fn passed_on(event: &Event) {
    let own = [
        (cloudevents::ID, event.id.as_str()),
        (cloudevents::SOURCE, event.source.as_deref().unwrap_or("/s")),
        (cloudevents::TYPE, event.kind.as_deref().unwrap_or("t")),
        (cloudevents::TIME, &event.time),
        (cloudevents::CONTENT_TYPE, "application/json"),
    ];
    let more = event.extra_headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let headers: Vec<(&str, &str)> = own.into_iter().chain(more).collect();
    for (index, (name, _)) in headers.iter().enumerate() {
        assert!(headers[..index].iter().all(|(earlier, _)| earlier != name), "{name} twice in {event:?}");
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-');
        assert!(name.bytes().all(is_plain), "{name}");
    }
    let bytes = headers.iter().map(|(name, value)| (*name, Some(value.as_bytes())));
    let record = Record::new(0, 0, Some(7), Some(event.user.as_bytes()), Some(&event.value), bytes);
    assert_eq!(record.id().as_deref(), Some(event.id.as_str()));
    assert_eq!(record.time_ms(), Some(event.time_ms), "{event:?}");
    assert_eq!(record.who_and_what().user.as_deref(), Some(event.user.as_str()));
    assert!(record.who_and_what().action.is_some() && record.json().is_some(), "{event:?}");
}

fn verdict(body: &[u8], format: Format) -> Verdict {
    let Ok(text) = std::str::from_utf8(body) else { return Verdict::NotUtf8 };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_matches([' ', '\t', '\n', '\r']);
    if text.is_empty() {
        return Verdict::Empty;
    }
    let takes = |first| match first {
        '{' => format != Format::CloudEventBatch,
        '[' => format != Format::CloudEvent,
        _ => false,
    };
    let (takes, is_one) = (text.starts_with(takes), text.starts_with('{'));
    if takes && is_one && text.len() > LIMITS.event {
        return Verdict::TooLarge;
    }
    if json::read(text).is_none() {
        return Verdict::NotJson;
    }
    if !takes {
        return Verdict::WrongType;
    }
    let judge = |text: &str| match format {
        Format::Json => event(text),
        Format::CloudEvent | Format::CloudEventBatch => envelope(text),
    };
    if is_one {
        return Verdict::One(judge(text));
    }
    let items = json::items(text).unwrap_or_default();
    match items.len() {
        0 => Verdict::EmptyArray,
        count if count > LIMITS.batch => Verdict::TooMany,
        _ if items.iter().any(|item| item.len() > LIMITS.event) => Verdict::TooLarge,
        _ => Verdict::Many(items.into_iter().map(judge).collect()),
    }
}

/// The event that a text is.
fn event(text: &str) -> Option<String> {
    let node = json::read(text)?;
    let once = |name| node.all(name).count() <= 1;
    let right = node.members().is_some()
        && node.is_named()
        && node.depth() <= 32
        && ["user", "action", "id", "time"].into_iter().all(once)
        && ["user", "action"].into_iter().all(|name| node.get(name).and_then(Node::text).is_some_and(is_name))
        && node.get("id").is_none_or(is_id)
        && node.get("time").is_none_or(is_time);
    right.then(|| text.to_owned())
}

/// The same of a CloudEvent: its `data`.
fn envelope(text: &str) -> Option<String> {
    let node = json::read(text)?;
    let members = node.members()?;
    let data = match json::member(text, "data") {
        Some(data) if node.all("data").count() == 1 => event(data),
        _ => None,
    };
    let text_of = |name| node.get(name).and_then(Node::text);
    let named = |name| text_of(name).is_some_and(|t| !t.is_empty() && t.len() <= 2048 && !t.contains(char::is_control));
    let inner_id = node.get("data").and_then(|data| data.get("id"));
    let right = node.is_named()
        && members.iter().all(|(name, _)| node.all(name.as_deref().unwrap_or_default()).count() == 1)
        && text_of("specversion") == Some("1.0")
        && named("source")
        && named("type")
        && node.get("id").is_some_and(is_id)
        && node.get("time").is_none_or(is_time)
        && node.get("data_base64").is_none()
        && node.get("datacontenttype").is_none_or(|value| {
            value
                .text()
                .is_some_and(|text| text.split(';').next().is_some_and(|text| text.trim() == "application/json"))
        })
        && inner_id.is_none_or(|id| id.text() == text_of("id"))
        && members.iter().all(|(name, value)| is_attribute(name.as_deref().unwrap_or_default(), value));
    data.filter(|_| right)
}

fn is_name(text: &str) -> bool {
    !text.trim().is_empty() && text.chars().count() <= 200 && !text.contains(char::is_control)
}

fn is_id(node: &Node) -> bool {
    node.text().is_some_and(EventId::is_valid)
}

fn is_time(node: &Node) -> bool {
    node.text().and_then(parse_ms).is_some_and(|ms| ms <= LIMITS.now_ms + 24 * 60 * 60 * 1000)
}

fn is_attribute(name: &str, value: &Node) -> bool {
    let known = ["specversion", "id", "source", "type", "time", "data", "data_base64", "datacontenttype"];
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let is_value = matches!(value, Node::Bool(_) | Node::Number(_) | Node::Text(Some(_)));
    known.contains(&name)
        || *value == Node::Null
        || (1..=64).contains(&name.len()) && name.bytes().all(plain) && is_value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    /// JSON by the grammar, with what is near to the rules' edges and a little noise between.
    fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            select(vec![
                "null",
                "true",
                "false",
                "0",
                "-1.5e+3",
                "1e999",
                "\"\"",
                "\" \"",
                "\"a\"",
                "\"\\u0000\"",
                "\"1.0\""
            ])
            .prop_map(str::to_owned),
            select(vec![
                "\"\\ud83d\\ude00\"",
                "\"\\ud800\"",
                "\"2026-11-23T12:00:00Z\"",
                "\"2027-11-23T12:00:00Z\"",
                "\"x-1\""
            ])
            .prop_map(str::to_owned),
            r"[0-9eE.+-]{1,6}",
            "[a-zé\\\\\"]{0,5}".prop_map(|text| format!("\"{text}\"")),
            (195..205_usize).prop_map(|count| format!("\"{}\"", "é".repeat(count))),
            (1..40_usize).prop_map(|levels| format!("{}1{}", "[".repeat(levels), "]".repeat(levels))),
        ];
        let blank = || select(vec!["", "", "", " ", "\n", "\t \r\n"]);
        leaf.prop_recursive(3, 24, 6, move |inner| {
            let names = vec![
                "user", "action", "us\\u0065r", "id", "time", "x", "data", "source", "type", "specversion", "ext1", "A", "\\ud800",
            ];
            let member = (select(names), blank(), inner.clone()).prop_map(|(name, blank, value)| format!("\"{name}\"{blank}:{value}"));
            let object = (proptest::collection::vec(member, 0..6), blank())
                .prop_map(|(members, blank)| format!("{{{blank}{}}}{blank}", members.join(",")));
            let array = (proptest::collection::vec(inner.clone(), 0..6), blank())
                .prop_map(|(items, blank)| format!("[{}{blank}]", items.join(&format!(",{blank}"))));
            // Most have what they need, so that what else decides is met.
            let event = (object.clone(), blank()).prop_map(|(more, blank)| {
                let rest = more.trim_end().trim_start_matches('{').to_owned();
                let comma = if rest.trim() == "}" { "" } else { "," };
                format!("{{\"user\":\"J\\u006fhn\"{blank},\"action\":\"login\"{comma}{rest}")
            });
            let cloud = (event.clone(), inner).prop_map(|(data, more)| {
                format!("{{\"specversion\":\"1.0\",\"id\":\"e1\",\"source\":\"/s\",\"type\":\"t\",\"ext\":{more},\"data\":{data}}}")
            });
            prop_oneof![1 => object, 1 => array.clone(), 3 => event, 2 => cloud, 1 => array]
        })
    }

    /// The same with one place changed.
    fn nearly_json() -> impl Strategy<Value = Vec<u8>> {
        (json(), any::<prop::sample::Index>(), prop_oneof![Just(None), any::<u8>().prop_map(Some)], 0..4_u8).prop_map(
            |(text, place, byte, how)| {
                let mut bytes = text.into_bytes();
                let at = place.index(bytes.len());
                match (how, byte) {
                    (0, Some(byte)) => bytes.insert(at, byte),
                    (0, None) => _ = bytes.remove(at),
                    _ => {}
                }
                bytes
            },
        )
    }

    proptest! {
        #[test]
        fn what_the_rules_accept_is_accepted_and_passed_on_byte_for_byte(body in nearly_json()) {
            super::events(&body);
            super::cloud_event(&body);
            super::cloud_events(&body);
        }

        #[test]
        fn an_array_is_judged_item_by_item(items in proptest::collection::vec(nearly_json(), 0..6)) {
            let body = [&b"["[..], &items.join(&b","[..]), &b"]"[..]].concat();
            super::events(&body);
            super::cloud_events(&body);
        }
    }
}
