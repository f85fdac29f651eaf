//! Parsing and validating what was submitted: a body of bytes becomes events, or a refusal that says what was expected.
//!
//! The value kept is the very bytes that came. Nothing here looks at a clock, a broker or a header.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::time::{format_ms, parse_ms};
use super::{Event, EventId};

/// What a body is, by its content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `application/json`: an event or an array of them.
    Json,
    /// `application/cloudevents+json`: one CloudEvent in structured mode.
    CloudEvent,
    /// `application/cloudevents-batch+json`: an array of those.
    CloudEventBatch,
}

/// The bounds of what is taken, and the time it is taken at.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of one event.
    pub event: usize,
    /// Events in one array.
    pub batch: usize,
    /// Milliseconds since 1970.
    pub now_ms: i64,
}

/// JSON deeper than this is refused: readers' stacks differ.
pub const MAX_DEPTH: usize = 32;
/// Characters in `user` and `action`.
pub const MAX_TEXT: usize = 200;
/// How far in the future `time` may be: clocks differ, and so do zones that were left out.
const MAX_FUTURE_MS: i64 = 24 * 60 * 60 * 1000;

/// One thing that is wrong with an event, and where: a JSON pointer (RFC 6901) into it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FieldError {
    pub pointer: String,
    pub detail: String,
}

impl FieldError {
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        FieldError { pointer: pointer.into(), detail: detail.into() }
    }
}

pub type Checked = Result<Event, Vec<FieldError>>;

/// What a body held.
#[derive(Debug)]
pub enum Parsed {
    One(Box<Checked>),
    Many(Vec<Checked>),
}

/// Why a body as a whole is not taken.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum Refused {
    #[error("the body is empty; expected a JSON object, or an array of them")]
    Empty,
    #[error("the body is not UTF-8: invalid byte at position {0}")]
    NotUtf8(usize),
    #[error("the body is not JSON: {0}")]
    NotJson(String),
    #[error("the array is empty; expected 1 to {0} events")]
    EmptyArray(usize),
    #[error("{0}")]
    WrongType(String),
    #[error("{count} events in one request; at most {max} are taken")]
    TooMany { count: usize, max: usize },
    #[error("an event of {size} bytes; at most {max} are taken")]
    TooLarge { index: usize, size: usize, max: usize },
}

/// Reads the events of a body. Array items that are wrong don't spoil those that are right.
pub fn parse(body: &Bytes, format: Format, limits: &Limits) -> Result<Parsed, Refused> {
    let text = std::str::from_utf8(body).map_err(|e| Refused::NotUtf8(e.valid_up_to()))?;
    // A byte order mark: RFC 8259, section 8.1 lets a parser ignore it.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_matches(|c| matches!(c, ' ' | '\t' | '\n' | '\r'));
    let one = match (text.as_bytes().first(), format) {
        (None, _) => return Err(Refused::Empty),
        (Some(b'{'), Format::Json | Format::CloudEvent) => true,
        (Some(b'['), Format::Json | Format::CloudEventBatch) => false,
        _ => {
            well_formed(text)?;
            return Err(Refused::WrongType(
                match format {
                    Format::Json => "expected a JSON object, or an array of them",
                    Format::CloudEvent => "expected one CloudEvent, a JSON object",
                    Format::CloudEventBatch => "expected an array of CloudEvents",
                }
                .into(),
            ));
        }
    };
    let check = |text: &str| match format {
        Format::Json => event(body, text, limits),
        Format::CloudEvent | Format::CloudEventBatch => cloud_event(body, text, limits),
    };
    if one {
        too_large(0, text, limits)?;
        return check(text).map(|checked| Parsed::One(Box::new(checked)));
    }
    let items: Vec<&RawValue> = match serde_json::from_str(text) {
        Ok(items) => items,
        Err(e) => return Err(Refused::NotJson(e.to_string())),
    };
    if items.is_empty() {
        return Err(Refused::EmptyArray(limits.batch));
    }
    if items.len() > limits.batch {
        return Err(Refused::TooMany { count: items.len(), max: limits.batch });
    }
    for (index, item) in items.iter().enumerate() {
        too_large(index, item.get(), limits)?;
    }
    items.iter().map(|item| check(item.get())).collect::<Result<_, _>>().map(Parsed::Many)
}

/// What a form submits: `details` is blank or a JSON object that is merged behind `user` and `action`.
/// The errors' pointers are the names of the form's fields.
pub fn parse_form(user: &str, action: &str, details: &str, limits: &Limits) -> Checked {
    let mut errors = Vec::new();
    let details = details.trim();
    let inner = match serde_json::from_str::<Members>(details) {
        _ if details.is_empty() => "",
        Ok(members) => {
            for name in ["user", "action"] {
                if members.0.iter().any(|member| member == name) {
                    errors.push(FieldError::new("/details", format!("must not hold `{name}`: it has its own field")));
                }
            }
            if errors.is_empty() { details[1..details.len() - 1].trim() } else { "" }
        }
        Err(e) if e.is_data() => {
            errors.push(FieldError::new("/details", "must be a JSON object such as {\"page\": \"/cart\"}"));
            ""
        }
        Err(e) => {
            let place = if details.contains('\n') { format!("line {} column", e.line()) } else { "column".into() };
            let detail =
                format!("is not JSON at {place} {}; expected an object such as {{\"page\": \"/cart\"}}", e.column());
            errors.push(FieldError::new("/details", detail));
            ""
        }
    };
    let mut value = Vec::with_capacity(user.len() + action.len() + inner.len() + 32);
    value.extend_from_slice(b"{\"user\":");
    super::json::string(&mut value, user.trim());
    value.extend_from_slice(b",\"action\":");
    super::json::string(&mut value, action.trim());
    if !inner.is_empty() {
        value.push(b',');
        value.extend_from_slice(inner.as_bytes());
    }
    value.push(b'}');
    if value.len() > limits.event {
        errors.push(FieldError::new(
            "/details",
            Refused::TooLarge { index: 0, size: value.len(), max: limits.event }.to_string(),
        ));
        return Err(errors);
    }
    let value = Bytes::from(value);
    let text = std::str::from_utf8(&value).unwrap_or_default();
    match event(&value, text, limits) {
        Ok(Ok(event)) if errors.is_empty() => return Ok(event),
        Ok(Ok(_)) => {}
        Ok(Err(more)) => errors.extend(more.into_iter().map(|error| match error.pointer.as_str() {
            "/user" | "/action" => error,
            inside => FieldError::new("/details", format!("{inside} {}", error.detail).trim_start().to_owned()),
        })),
        Err(refused) => errors.push(FieldError::new("/details", refused.to_string())),
    }
    // In the order of the form.
    errors.sort_by_key(|error| error.pointer == "/details");
    Err(errors)
}

fn too_large(index: usize, text: &str, limits: &Limits) -> Result<(), Refused> {
    if text.len() > limits.event {
        return Err(Refused::TooLarge { index, size: text.len(), max: limits.event });
    }
    Ok(())
}

fn well_formed(text: &str) -> Result<(), Refused> {
    serde_json::from_str::<IgnoredAny>(text).map(|_| ()).map_err(|e| Refused::NotJson(e.to_string()))
}

/// What a parser of values gives up on may be JSON all the same, such as a name with half of a surrogate pair: then it is
/// this event that is wrong, and not those beside it.
fn unreadable(text: &str, error: &serde_json::Error) -> Result<Checked, Refused> {
    well_formed(text)?;
    Ok(Err(vec![FieldError::new("", format!("must be a JSON object that can be read: {error}"))]))
}

/// One event; `text` is a part of `body`, which it is kept as.
fn event(body: &Bytes, text: &str, limits: &Limits) -> Result<Checked, Refused> {
    let fields: Fields = match serde_json::from_str(text) {
        Ok(fields) => fields,
        Err(e) if e.is_data() => {
            return Ok(Err(vec![FieldError::new("", "must be a JSON object with `user` and `action`")]));
        }
        Err(e) => return unreadable(text, &e),
    };
    let mut errors = fields.repeated("");
    too_deep(text, "", &mut errors);
    let user = required("/user", fields.user, &mut errors);
    required("/action", fields.action, &mut errors);
    let id = optional_id("/id", fields.id, &mut errors);
    let time = optional_time("/time", fields.time, limits, &mut errors);
    if !errors.is_empty() {
        return Ok(Err(errors));
    }
    Ok(Ok(Event {
        id_was_given: id.is_some(),
        id: id.unwrap_or_default(),
        time_ms: time.as_ref().map_or(limits.now_ms, |(ms, _)| *ms),
        time: time.map_or_else(|| format_ms(limits.now_ms), |(_, text)| text),
        user: user.into_owned(),
        value: body.slice_ref(text.as_bytes()),
        source: None,
        kind: None,
        extra_headers: Vec::new(),
    }))
}

/// A CloudEvent in structured mode: its `data` is the event, its attributes become the headers.
fn cloud_event(body: &Bytes, text: &str, limits: &Limits) -> Result<Checked, Refused> {
    let envelope: CloudEventFields = match serde_json::from_str(text) {
        Ok(envelope) => envelope,
        Err(e) if e.is_data() => return Ok(Err(vec![FieldError::new("", format!("must be a CloudEvent: {e}"))])),
        Err(e) => return unreadable(text, &e),
    };
    let mut errors = envelope.errors;
    let mut attribute = |name: &str, value: Option<Member>| match value {
        Some(Member::Text(text)) if !text.is_empty() => Some(text.into_owned()),
        Some(Member::Text(_)) => {
            errors.push(FieldError::new(format!("/{name}"), "must not be empty"));
            None
        }
        Some(Member::Other(kind)) => {
            errors.push(FieldError::new(format!("/{name}"), format!("must be a string, not {kind}")));
            None
        }
        None => {
            errors.push(FieldError::new(format!("/{name}"), "is missing: CloudEvents 1.0 requires it"));
            None
        }
    };
    let specversion = attribute("specversion", envelope.specversion);
    let source = attribute("source", envelope.source);
    let kind = attribute("type", envelope.kind);
    if specversion.is_some_and(|version| version != "1.0") {
        errors.push(FieldError::new("/specversion", "must be \"1.0\""));
    }
    for (name, text) in [("source", &source), ("type", &kind)] {
        if let Some(text) = text
            && (text.len() > 2048 || text.chars().any(char::is_control))
        {
            errors.push(FieldError::new(format!("/{name}"), "must be at most 2,048 bytes without control characters"));
        }
    }
    if envelope.id.is_none() {
        errors.push(FieldError::new("/id", "is missing: CloudEvents 1.0 requires it"));
    }
    let id = optional_id("/id", envelope.id, &mut errors);
    let time = optional_time("/time", envelope.time, limits, &mut errors);
    let data = match envelope.data {
        Some(data) => match event(body, data.get(), limits)? {
            Ok(event) => Some((event, data)),
            Err(inner) => {
                errors.extend(inner.into_iter().map(|e| FieldError::new(format!("/data{}", e.pointer), e.detail)));
                None
            }
        },
        None => {
            errors.push(FieldError::new("/data", "is missing: expected a JSON object with `user` and `action`"));
            None
        }
    };
    if let (Some(id), Some((event, data))) = (&id, &data)
        && serde_json::from_str::<Fields>(data.get()).is_ok_and(|fields| fields.id.is_some())
        && event.id != *id
    {
        errors.push(FieldError::new("/data/id", "must be the CloudEvent's `id`, or be left out"));
    }
    match (id, data) {
        (Some(id), Some((event, _))) if errors.is_empty() => Ok(Ok(Event {
            id,
            id_was_given: true,
            time_ms: time.as_ref().map_or(event.time_ms, |(ms, _)| *ms),
            time: time.map_or(event.time, |(_, text)| text),
            source,
            kind,
            extra_headers: envelope.extensions,
            ..event
        })),
        _ => Ok(Err(errors)),
    }
}

fn required<'a>(pointer: &str, value: Option<Member<'a>>, errors: &mut Vec<FieldError>) -> Cow<'a, str> {
    let complaint = match value {
        None => format!("is missing: expected a string of 1 to {MAX_TEXT} characters"),
        Some(Member::Other(kind)) => format!("must be a string, not {kind}"),
        Some(Member::Text(text)) => {
            if text.trim().is_empty() {
                "must not be blank".to_owned()
            } else if text.len() > MAX_TEXT && text.chars().count() > MAX_TEXT {
                format!("must have at most {MAX_TEXT} characters, not {}", text.chars().count())
            } else if text.chars().any(char::is_control) {
                "must not hold control characters".to_owned()
            } else {
                return text;
            }
        }
    };
    errors.push(FieldError::new(pointer, complaint));
    Cow::Borrowed("")
}

fn optional_id(pointer: &str, value: Option<Member>, errors: &mut Vec<FieldError>) -> Option<EventId> {
    let complaint = match value? {
        Member::Text(text) => match EventId::parse(&text) {
            Some(id) => return Some(id),
            None => format!("must be 1 to {} visible ASCII characters", EventId::MAX),
        },
        Member::Other(kind) => format!("must be a string, not {kind}"),
    };
    errors.push(FieldError::new(pointer, complaint));
    None
}

fn optional_time(
    pointer: &str,
    value: Option<Member>,
    limits: &Limits,
    errors: &mut Vec<FieldError>,
) -> Option<(i64, String)> {
    let complaint = match value? {
        Member::Text(text) => match parse_ms(&text) {
            Some(ms) if ms > limits.now_ms + MAX_FUTURE_MS => "must not be more than 24 hours in the future".to_owned(),
            Some(ms) => return Some((ms, text.into_owned())),
            None => "must be an RFC 3339 date-time such as 2026-11-23T12:00:00Z".to_owned(),
        },
        Member::Other(kind) => format!("must be a string, not {kind}"),
    };
    errors.push(FieldError::new(pointer, complaint));
    None
}

fn too_deep(text: &str, pointer: &str, errors: &mut Vec<FieldError>) {
    if is_deeper(text, MAX_DEPTH) {
        errors.push(FieldError::new(pointer, format!("must not be nested more than {MAX_DEPTH} levels deep")));
    }
}

/// Whether well-formed JSON is nested more than so many levels deep; `{}` is one level.
pub(super) fn is_deeper(json: &str, levels: usize) -> bool {
    // Most has few brackets at all, and counting them is much quicker than following them.
    json.bytes().filter(|b| matches!(b, b'{' | b'[')).count() > levels && depth(json) > levels
}

fn depth(json: &str) -> usize {
    let (mut now, mut most, mut in_string, mut escaped) = (0usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                now += 1;
                most = most.max(now);
            }
            b'}' | b']' => now = now.saturating_sub(1),
            _ => {}
        }
    }
    most
}

/// A member's name or a text, borrowed where it has no escapes.
pub(super) struct Text<'a>(pub Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyText;
        impl<'de> Visitor<'de> for AnyText {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(AnyText)
    }
}

/// A member's value: a string, or the name of what it is instead.
pub(super) enum Member<'a> {
    Text(Cow<'a, str>),
    Other(&'static str),
}

impl<'de> Deserialize<'de> for Member<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = <&RawValue>::deserialize(deserializer)?.get();
        // By its first byte, as a parser of numbers has an opinion on 1e999, which is JSON.
        Ok(match json.as_bytes().first() {
            Some(b'"') => match serde_json::from_str(json) {
                Ok(Text(text)) => Member::Text(text),
                Err(_) => Member::Other("text with half of a surrogate pair"),
            },
            Some(b'{') => Member::Other("an object"),
            Some(b'[') => Member::Other("an array"),
            Some(b't' | b'f') => Member::Other("a boolean"),
            Some(b'n') => Member::Other("null"),
            _ => Member::Other("a number"),
        })
    }
}

/// The members of an event that mean something to us.
#[derive(Default)]
struct Fields<'a> {
    user: Option<Member<'a>>,
    action: Option<Member<'a>>,
    id: Option<Member<'a>>,
    time: Option<Member<'a>>,
    twice: Vec<&'static str>,
}

impl Fields<'_> {
    fn repeated(&self, prefix: &str) -> Vec<FieldError> {
        let complaint = "stands there twice; readers disagree on which one counts";
        self.twice.iter().map(|name| FieldError::new(format!("{prefix}/{name}"), complaint)).collect()
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Fields::default();
                while let Some(name) = map.next_key::<Text>()? {
                    let (name, field) = match &*name.0 {
                        "user" => ("user", &mut fields.user),
                        "action" => ("action", &mut fields.action),
                        "id" => ("id", &mut fields.id),
                        "time" => ("time", &mut fields.time),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    if field.replace(map.next_value()?).is_some() {
                        fields.twice.push(name);
                    }
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// The names of an object's members.
struct Members(Vec<String>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut names = Vec::new();
                while let Some((name, _)) = map.next_entry::<String, IgnoredAny>()? {
                    names.push(name);
                }
                Ok(Members(names))
            }
        }
        deserializer.deserialize_map(Names)
    }
}

/// A CloudEvent's attributes (CloudEvents JSON format 1.0, section 3).
#[derive(Default)]
struct CloudEventFields<'a> {
    specversion: Option<Member<'a>>,
    id: Option<Member<'a>>,
    source: Option<Member<'a>>,
    kind: Option<Member<'a>>,
    time: Option<Member<'a>>,
    data: Option<&'a RawValue>,
    extensions: Vec<(String, String)>,
    errors: Vec<FieldError>,
}

impl<'de> Deserialize<'de> for CloudEventFields<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Attributes;
        impl<'de> Visitor<'de> for Attributes {
            type Value = CloudEventFields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut found = CloudEventFields::default();
                let mut seen: Vec<String> = Vec::new();
                while let Some(Text(name)) = map.next_key::<Text>()? {
                    if seen.iter().any(|earlier| *earlier == name) {
                        found.errors.push(FieldError::new(pointer(&name), "stands there twice"));
                    }
                    seen.push(name.to_string());
                    match &*name {
                        "specversion" => found.specversion = Some(map.next_value()?),
                        "id" => found.id = Some(map.next_value()?),
                        "source" => found.source = Some(map.next_value()?),
                        "type" => found.kind = Some(map.next_value()?),
                        "time" => found.time = Some(map.next_value()?),
                        "data" => found.data = Some(map.next_value()?),
                        "data_base64" => {
                            map.next_value::<IgnoredAny>()?;
                            found
                                .errors
                                .push(FieldError::new("/data_base64", "is not taken: put a JSON object into `data`"));
                        }
                        "datacontenttype" => {
                            let value: Member = map.next_value()?;
                            if !matches!(&value, Member::Text(text) if text.split(';').next().unwrap_or_default().trim() == "application/json")
                            {
                                found.errors.push(FieldError::new("/datacontenttype", "must be \"application/json\""));
                            }
                        }
                        _ => match map.next_value::<&RawValue>()?.get() {
                            "null" => {}
                            value => match extension(&name, value) {
                                Ok(header) => found.extensions.push(header),
                                Err(error) => found.errors.push(error),
                            },
                        },
                    }
                }
                Ok(found)
            }
        }
        deserializer.deserialize_map(Attributes)
    }
}

/// The JSON pointer to an object's member.
fn pointer(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// An extension attribute as a Kafka header: a string, number or boolean by a name of lower-case letters and digits.
fn extension(name: &str, value: &str) -> Result<(String, String), FieldError> {
    let pointer = || pointer(name);
    let named = (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !named {
        return Err(FieldError::new(pointer(), "is not an attribute's name: 1 to 64 lower-case letters and digits"));
    }
    let text = match value.as_bytes().first() {
        Some(b'"') => match serde_json::from_str(value) {
            Ok(text) => text,
            Err(_) => return Err(FieldError::new(pointer(), "must not be text with half of a surrogate pair")),
        },
        Some(b'{' | b'[') => {
            return Err(FieldError::new(pointer(), "must be a string, a number or a boolean"));
        }
        _ => value.to_owned(),
    };
    Ok((format!("ce_{name}"), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { event: 32 * 1024, batch: 500, now_ms: 1_795_435_200_000 };

    fn one(json: &str) -> Checked {
        match parse(&Bytes::copy_from_slice(json.as_bytes()), Format::Json, &LIMITS) {
            Ok(Parsed::One(checked)) => *checked,
            other => panic!("expected one event, got {other:?}"),
        }
    }

    fn errors(json: &str) -> Vec<(String, String)> {
        one(json).expect_err("errors").into_iter().map(|e| (e.pointer, e.detail)).collect()
    }

    fn refused(body: &[u8]) -> Refused {
        parse(&Bytes::copy_from_slice(body), Format::Json, &LIMITS).expect_err("a refusal")
    }

    #[test]
    fn the_value_is_kept_byte_for_byte() {
        let event = one(" {\"user\" : \"J\\u006fhn\",\"action\":\"login\", \"n\":1.0e+2 }\n").expect("an event");
        assert_eq!(&event.value[..], b"{\"user\" : \"J\\u006fhn\",\"action\":\"login\", \"n\":1.0e+2 }");
        assert_eq!(event.user, "John");
    }

    #[test]
    fn id_and_time_are_taken_as_given_or_made() {
        let event =
            one(r#"{"user":"a","action":"b","id":"x-1","time":"2026-11-23T13:00:00+01:00"}"#).expect("an event");
        assert_eq!((event.id.as_str(), event.time.as_str()), ("x-1", "2026-11-23T13:00:00+01:00"));
        let event = one(r#"{"user":"a","action":"b"}"#).expect("an event");
        assert_eq!((event.id.as_str().len(), event.time.as_str()), (36, "2026-11-23T12:00:00.000Z"));
    }

    #[test]
    fn each_wrong_field_is_named() {
        let long = "x".repeat(201);
        let found = errors(&format!(r#"{{"user":7,"action":"{long}","id":"a b","time":"noon"}}"#));
        let pointers: Vec<&str> = found.iter().map(|(pointer, _)| pointer.as_str()).collect();
        assert_eq!(pointers, ["/user", "/action", "/id", "/time"]);
        assert_eq!(found[0].1, "must be a string, not a number");
        assert_eq!(errors(r#"{"user":" ","action":"a\u0007"}"#)[0].1, "must not be blank");
        assert_eq!(errors(r#"{"user":"u"}"#)[0].0, "/action");
    }

    #[test]
    fn two_hundred_characters_are_counted_as_characters() {
        assert!(one(&format!(r#"{{"user":"{}","action":"b"}}"#, "é".repeat(200))).is_ok());
        assert!(one(&format!(r#"{{"user":"{}","action":"b"}}"#, "é".repeat(201))).is_err());
    }

    #[test]
    fn a_field_that_stands_there_twice_is_refused_also_when_escaped() {
        assert_eq!(errors(r#"{"user":"a","action":"b","us\u0065r":"c"}"#)[0].0, "/user");
    }

    #[test]
    fn depth_is_bounded_and_brackets_in_strings_do_not_count() {
        let nested = |n: usize| format!(r#"{{"user":"a","action":"b","x":{}1{}}}"#, "[".repeat(n), "]".repeat(n));
        assert!(one(&nested(31)).is_ok());
        assert!(one(&nested(32)).is_err());
        assert!(one(&format!(r#"{{"user":"a","action":"b","x":"{}\""}}"#, "[".repeat(99))).is_ok());
    }

    #[test]
    fn what_is_not_json_is_refused_whole() {
        assert_eq!(refused(b"  "), Refused::Empty);
        assert!(matches!(refused(b"{\"user\":"), Refused::NotJson(_)));
        assert!(matches!(refused(b"\xff"), Refused::NotUtf8(0)));
        assert!(matches!(refused(b"[]"), Refused::EmptyArray(500)));
        assert!(matches!(refused(b"7"), Refused::WrongType(_)));
        assert!(matches!(refused(b"{} {}"), Refused::NotJson(_)));
    }

    #[test]
    fn an_array_keeps_the_order_and_judges_each() {
        let body = Bytes::from_static(br#"[{"user":"a","action":"b"}, 7 ,{"user":"c","action":"d"}]"#);
        let Ok(Parsed::Many(items)) = parse(&body, Format::Json, &LIMITS) else { panic!("an array") };
        assert_eq!(items.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    }

    #[test]
    fn an_item_that_a_parser_gives_up_on_does_not_spoil_the_others() {
        let body = br#"[1e999,"\ud800",{"\ud800":1},{"user":"a","action":"b","x":1e999,"y":"\ud800"}]"#;
        let Ok(Parsed::Many(items)) = parse(&Bytes::from_static(body), Format::Json, &LIMITS) else {
            panic!("an array")
        };
        assert_eq!(items.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, false, false, true]);
        let found = errors(r#"{"user":1e999,"action":"\ud800"}"#);
        let details: Vec<&str> = found.iter().map(|(_, detail)| detail.as_str()).collect();
        assert_eq!(
            details,
            ["must be a string, not a number", "must be a string, not text with half of a surrogate pair"]
        );
    }

    #[test]
    fn a_cloud_events_extension_is_passed_on_or_refused_and_never_changed() {
        let body = br#"{"specversion":"1.0","id":"e1","source":"/s","type":"t","n":"\ud800","data":{"user":"a","action":"b"}}"#;
        let Ok(Parsed::One(checked)) = parse(&Bytes::from_static(body), Format::CloudEvent, &LIMITS) else {
            panic!("one")
        };
        assert_eq!(checked.expect_err("an error")[0].pointer, "/n");
    }

    #[test]
    fn too_many_and_too_large_say_how_much() {
        let many = format!("[{}]", vec!["{}"; 501].join(","));
        assert_eq!(refused(many.as_bytes()), Refused::TooMany { count: 501, max: 500 });
        let large = format!(r#"[{{}},{{"user":"a","action":"{}"}}]"#, "x".repeat(40_000));
        assert!(matches!(refused(large.as_bytes()), Refused::TooLarge { index: 1, .. }));
    }

    #[test]
    fn a_form_becomes_the_equivalent_object() {
        let event = parse_form(" John ", "log\"in", " { \"page\": \"/cart\" } ", &LIMITS).expect("an event");
        assert_eq!(&event.value[..], br#"{"user":"John","action":"log\"in","page": "/cart"}"#);
        let event = parse_form("John", "login", "{}", &LIMITS).expect("an event");
        assert_eq!(&event.value[..], br#"{"user":"John","action":"login"}"#);
    }

    #[test]
    fn a_form_says_which_field_is_wrong() {
        let fields = |user, action, details| {
            let errors: Vec<FieldError> = parse_form(user, action, details, &LIMITS).expect_err("errors");
            errors.into_iter().map(|e| e.pointer).collect::<Vec<_>>()
        };
        assert_eq!(fields("", "login", ""), ["/user"]);
        assert_eq!(fields("a", "b", "[1]"), ["/details"]);
        assert_eq!(fields("a", "b", "{"), ["/details"]);
        assert_eq!(fields("a", "", "{\"user\":1}"), ["/action", "/details"]);
        assert_eq!(fields("a", "b", "{\"id\":7}"), ["/details"]);
    }

    #[test]
    fn a_cloud_event_gives_its_data_and_its_attributes() {
        let body = Bytes::from_static(
            br#"{"specversion":"1.0","id":"e1","source":"/shop","type":"t","n":3,"data":{"user":"a","action":"b"}}"#,
        );
        let Ok(Parsed::One(checked)) = parse(&body, Format::CloudEvent, &LIMITS) else { panic!("one") };
        let event = checked.expect("an event");
        assert_eq!(&event.value[..], br#"{"user":"a","action":"b"}"#);
        assert_eq!(
            (event.id.as_str(), event.source.as_deref(), event.kind.as_deref()),
            ("e1", Some("/shop"), Some("t"))
        );
        assert_eq!(event.extra_headers, [("ce_n".to_owned(), "3".to_owned())]);
    }

    #[test]
    fn a_cloud_event_without_its_attributes_is_told_which() {
        let body = Bytes::from_static(br#"{"specversion":"0.3","data":{"user":"a"}}"#);
        let Ok(Parsed::One(checked)) = parse(&body, Format::CloudEvent, &LIMITS) else { panic!("one") };
        let mut pointers: Vec<String> = checked.expect_err("errors").into_iter().map(|e| e.pointer).collect();
        pointers.sort();
        assert_eq!(pointers, ["/data/action", "/id", "/source", "/specversion", "/type"]);
    }
}
