//! Submitted events are accepted if and only if the rules of `docs/api.md` say so, and accepted ones are passed on byte
//! for byte. The rules are implemented a second time here, slowly and with a JSON parser of its own.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::json::{self, Node};
use crate::Record;
use crate::event::cloudevents;
use crate::event::time::parse_ms;
use crate::event::{BodyFormat, Event, EventId, Limits, Parsed, Refused, parse};

/// Small, so that generated inputs exceed them.
const LIMITS: Limits = Limits { event: 600, batch: 4, now_ms: 1_795_435_200_000 };

/// A body of `application/json`.
pub fn events(body: &[u8]) {
    check(body, BodyFormat::Json);
}

/// A body of `application/cloudevents+json`.
pub fn cloud_event(body: &[u8]) {
    check(body, BodyFormat::CloudEvent);
}

/// A body of `application/cloudevents-batch+json`.
pub fn cloud_events(body: &[u8]) {
    check(body, BodyFormat::CloudEventBatch);
}

/// A body of `application/x-ndjson`.
pub fn json_lines(body: &[u8]) {
    check(body, BodyFormat::JsonLines);
}

/// What the rules say about a body.
#[derive(Debug, PartialEq)]
enum Expected {
    Empty,
    NotUtf8,
    NotJson,
    WrongType,
    EmptyArray,
    TooMany,
    TooLarge,
    /// Each event as it was submitted; `None` for an invalid one.
    One(Option<String>),
    Many(Vec<Option<String>>),
    Lines(Vec<(usize, Option<String>)>),
}

fn check(body: &[u8], format: BodyFormat) {
    let shared = Bytes::copy_from_slice(body);
    let parsed = parse(&shared, format, &LIMITS);
    let value = |checked: &Result<Event, _>| {
        let event = checked.as_ref().ok()?;
        passed_on(event);
        Some(String::from_utf8(event.value.to_vec()).expect("UTF-8"))
    };
    let found = match &parsed {
        Ok(Parsed::One(checked)) => Expected::One(value(checked)),
        Ok(Parsed::Many(items)) => Expected::Many(items.iter().map(value).collect()),
        Ok(Parsed::Lines(lines)) => {
            Expected::Lines(lines.iter().map(|(number, line)| (*number, value(line))).collect())
        }
        Err(Refused::Empty | Refused::NoLines(_)) => Expected::Empty,
        Err(Refused::NotUtf8(_)) => Expected::NotUtf8,
        Err(Refused::NotJson(_)) => Expected::NotJson,
        Err(Refused::EmptyArray(_)) => Expected::EmptyArray,
        Err(Refused::WrongType(_)) => Expected::WrongType,
        Err(Refused::TooMany { .. }) => Expected::TooMany,
        Err(Refused::TooLarge { .. }) => Expected::TooLarge,
    };
    assert_eq!(found, verdict(body, format), "{format:?} {parsed:?}");
    for errors in match parsed {
        Ok(Parsed::One(checked)) => vec![checked.err()],
        Ok(Parsed::Many(items)) => items.into_iter().map(Result::err).collect(),
        Ok(Parsed::Lines(lines)) => lines.into_iter().map(|(_, line)| line.err()).collect(),
        Err(_) => Vec::new(),
    } {
        assert!(errors.is_none_or(|errors| !errors.is_empty()), "refused without a reason");
    }
}

/// The header fields of an event can be read back from its record in Kafka.
fn passed_on(event: &Event) {
    let own = [
        (cloudevents::ID, event.id.as_str()),
        (cloudevents::SOURCE, event.source.as_deref().unwrap_or("/s")),
        (cloudevents::TYPE, event.kind.as_deref().unwrap_or("t")),
        (cloudevents::TIME, &event.time),
        (cloudevents::CONTENT_TYPE, event.content_type.as_deref().unwrap_or("application/json")),
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
    assert_eq!(record.user_and_action().user.as_deref(), Some(event.user.as_str()));
    assert!(record.user_and_action().action.is_some() && record.json().is_some(), "{event:?}");
}

fn verdict(body: &[u8], format: BodyFormat) -> Expected {
    if format == BodyFormat::JsonLines {
        return verdict_on_lines(body);
    }
    let Ok(text) = std::str::from_utf8(body) else { return Expected::NotUtf8 };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_matches([' ', '\t', '\n', '\r']);
    if text.is_empty() {
        return Expected::Empty;
    }
    let takes = |first| match first {
        '{' => format != BodyFormat::CloudEventBatch,
        '[' => format != BodyFormat::CloudEvent,
        _ => false,
    };
    let (takes, is_one) = (text.starts_with(takes), text.starts_with('{'));
    if takes && is_one && text.len() > LIMITS.event {
        return Expected::TooLarge;
    }
    if json::read(text).is_none() {
        return Expected::NotJson;
    }
    if !takes {
        return Expected::WrongType;
    }
    let judge = |text: &str| match format {
        BodyFormat::Json | BodyFormat::JsonLines => event(text),
        BodyFormat::CloudEvent | BodyFormat::CloudEventBatch => envelope(text),
    };
    if is_one {
        return Expected::One(judge(text));
    }
    let items = json::items(text).unwrap_or_default();
    match items.len() {
        0 => Expected::EmptyArray,
        count if count > LIMITS.batch => Expected::TooMany,
        _ if items.iter().any(|item| item.len() > LIMITS.event) => Expected::TooLarge,
        _ => Expected::Many(items.into_iter().map(judge).collect()),
    }
}

fn verdict_on_lines(body: &[u8]) -> Expected {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let mut lines = Vec::new();
    for (number, line) in body.split(|byte| *byte == b'\n').enumerate() {
        match std::str::from_utf8(line).map(|line| line.trim_matches([' ', '\t', '\r'])) {
            Ok("") => {}
            line => lines.push((number, line.ok())),
        }
    }
    match lines.len() {
        0 => Expected::Empty,
        count if count > LIMITS.batch => Expected::TooMany,
        _ if lines.iter().any(|(_, line)| line.is_some_and(|line| line.len() > LIMITS.event)) => Expected::TooLarge,
        _ => Expected::Lines(lines.into_iter().map(|(number, line)| (number, line.and_then(event))).collect()),
    }
}

/// Returns the event in a text, if it is valid.
fn event(text: &str) -> Option<String> {
    event_with(text, [None, None])
}

/// The same, with fallbacks for a missing `user` and a missing `action`.
fn event_with(text: &str, fallbacks: [Option<&str>; 2]) -> Option<String> {
    let node = json::read(text)?;
    let once = |name| node.all(name).count() <= 1;
    let named = |(name, stand_in): (&str, Option<&str>)| match node.get(name) {
        Some(value) => value.text().is_some_and(is_name),
        None => stand_in.is_some_and(is_name),
    };
    let right = node.members().is_some()
        && node.is_named()
        && node.depth() <= 32
        && ["user", "action", "id", "time"].into_iter().all(once)
        && ["user", "action"].into_iter().zip(fallbacks).all(named)
        && node.get("id").is_none_or(is_id)
        && node.get("time").is_none_or(is_time);
    right.then(|| text.to_owned())
}

/// The same for a CloudEvent; returns its `data`. A member that is null counts as missing.
fn envelope(text: &str) -> Option<String> {
    let node = json::read(text)?;
    let members = node.members()?;
    let get = |name| node.get(name).filter(|value| **value != Node::Null);
    let text_of = |name| get(name).and_then(Node::text);
    let fallbacks = [text_of("subject"), text_of("type")];
    let decoded = |text: &str| String::from_utf8(STANDARD.decode(text).ok()?).ok();
    let data = match (get("data"), get("data_base64")) {
        (Some(_), None) => json::member(text, "data").map(str::to_owned),
        (None, Some(encoded)) => encoded.text().and_then(decoded).map(|text| text.trim().to_owned()),
        _ => None,
    };
    let event = data.as_deref().and_then(|data| event_with(data, fallbacks));
    let inner_id =
        data.as_deref().and_then(json::read).and_then(|data| Some(data.get("id")?.text()? == text_of("id")?));
    let optional = |name, right: fn(&str) -> bool| get(name).is_none_or(|value| value.text().is_some_and(right));
    let extensions = members.iter().filter(|(name, _)| name.as_deref().is_none_or(|name| !is_core(name)));
    let right = node.is_named()
        && members.iter().all(|(name, _)| node.all(name.as_deref().unwrap_or_default()).count() == 1)
        && text_of("specversion") == Some("1.0")
        && text_of("source").is_some_and(|text| is_attribute_text(text) && is_reference(text))
        && text_of("type").is_some_and(is_attribute_text)
        && get("id").is_some_and(is_id)
        && get("time").is_none_or(is_time)
        && optional("subject", is_attribute_text)
        && optional("dataschema", |text| is_attribute_text(text) && is_reference(text) && has_scheme(text))
        && optional("datacontenttype", is_json_type)
        && inner_id.is_none_or(|same| same)
        && extensions.clone().count() <= 64
        && extensions.into_iter().all(|(name, value)| is_extension(name.as_deref().unwrap_or_default(), value));
    event.filter(|_| right)
}

fn is_name(text: &str) -> bool {
    !text.chars().all(crate::event::is_blank) && text.chars().count() <= 200 && !text.contains(char::is_control)
}

fn is_core(name: &str) -> bool {
    let known = ["specversion", "id", "source", "type", "subject", "time", "dataschema", "datacontenttype"];
    known.contains(&name) || name == "data" || name == "data_base64"
}

/// Whether a text is the specification's String, within our bounds.
fn is_attribute_text(text: &str) -> bool {
    (1..=2048).contains(&text.len()) && is_text(text)
}

fn is_text(text: &str) -> bool {
    text.chars().all(|c| {
        let code = u32::from(c);
        !c.is_control() && !(0xfdd0..=0xfdef).contains(&code) && !matches!(code & 0xffff, 0xfffe | 0xffff)
    })
}

fn is_reference(text: &str) -> bool {
    let mut parts = text.split('%');
    let plain = |part: &str| {
        part.chars().all(|c| match c.is_ascii() {
            true => c.is_ascii_alphanumeric() || "-._~:/?#[]@!$&'()*+,;=".contains(c),
            false => !c.is_whitespace() && !c.is_control(),
        })
    };
    parts.next().is_some_and(plain)
        && parts.all(|part| part.len() >= 2 && part.bytes().take(2).all(|b| b.is_ascii_hexdigit()) && plain(part))
}

fn has_scheme(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, rest)| {
        !rest.is_empty()
            && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
    })
}

fn is_json_type(text: &str) -> bool {
    text.len() <= 256 && text.bytes().all(|b| (b' '..=b'~').contains(&b)) && crate::event::cloudevents::is_json(text)
}

fn is_id(node: &Node) -> bool {
    node.text().is_some_and(EventId::is_valid)
}

fn is_time(node: &Node) -> bool {
    node.text().and_then(parse_ms).is_some_and(|ms| ms <= LIMITS.now_ms + 24 * 60 * 60 * 1000)
}

fn is_extension(name: &str, value: &Node) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    *value == Node::Null
        || (1..=64).contains(&name.len())
            && name.bytes().all(plain)
            && match value {
                Node::Bool(_) => true,
                Node::Number(number) => number.parse::<i32>().is_ok(),
                Node::Text(Some(text)) => is_text(text),
                _ => false,
            }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    /// Generates JSON by the grammar: mostly values close to the limits of the rules, and some noise.
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
            // Most have the required members, so that the other rules are reached.
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

    /// The same with one byte changed.
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
        fn bodies_are_accepted_by_the_rules_and_passed_on_byte_for_byte(body in nearly_json()) {
            super::events(&body);
            super::cloud_event(&body);
            super::cloud_events(&body);
            super::json_lines(&body);
        }

        #[test]
        fn lines_are_judged_one_by_one(lines in proptest::collection::vec(nearly_json(), 0..6)) {
            super::json_lines(&lines.join(&b"\n"[..]));
            super::json_lines(&lines.join(&b"\r\n \r\n"[..]));
        }

        #[test]
        fn an_array_is_judged_item_by_item(items in proptest::collection::vec(nearly_json(), 0..6)) {
            let body = [&b"["[..], &items.join(&b","[..]), &b"]"[..]].concat();
            super::events(&body);
            super::cloud_events(&body);
        }
    }
}
