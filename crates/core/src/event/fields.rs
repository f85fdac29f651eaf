//! The rules for one event: its members `user`, `action`, `id` and `time`, and its depth.

use std::borrow::Cow;

use bytes::Bytes;
use serde::de::IgnoredAny;

use super::refused::{Checked, FieldError, Limits, Refused};
use super::time::{format_ms, parse_ms};
use super::{Event, EventId};
use crate::value::{MemberValue, for_each_member, is_deeper};

/// Most levels of nesting: parsers of other programs have limited stacks.
pub const MAX_DEPTH: usize = 32;
/// Most characters of `user` and `action`.
pub const MAX_TEXT: usize = 200;
/// How far in the future `time` may be. Clocks differ, and a missing zone counts as UTC.
const MAX_FUTURE_MS: i64 = 24 * 60 * 60 * 1000;

pub(super) fn well_formed(text: &str) -> Result<(), Refused> {
    serde_json::from_str::<IgnoredAny>(text).map(|_| ()).map_err(|e| Refused::NotJson(e.to_string()))
}

/// Returns the error for an event that serde_json cannot parse. It may still be valid JSON, such as a name with half of
/// a surrogate pair; then only this event is invalid, not the whole array.
pub(super) fn unreadable(text: &str, error: &serde_json::Error) -> Result<Checked, Refused> {
    well_formed(text)?;
    Ok(Err(vec![FieldError::new("", format!("must be a readable JSON object: {error}"))]))
}

/// A CloudEvent's `subject` and `type`, which replace a missing `user` and `action` in its data.
#[derive(Default)]
pub(super) struct Fallbacks {
    pub user: Option<String>,
    pub action: Option<String>,
}

/// Parses and checks one event. `text` is a part of `body`. An error in a fallback points to the attribute.
pub(super) fn event(body: &Bytes, text: &str, fallbacks: &Fallbacks, limits: &Limits) -> Result<Checked, Refused> {
    let fields = match Fields::read(text) {
        Ok(fields) => fields,
        Err(e) if e.is_data() => {
            return Ok(Err(vec![FieldError::new("", "must be a JSON object with `user` and `action`")]));
        }
        Err(e) => return unreadable(text, &e),
    };
    let mut errors = fields.repeated("");
    too_deep(text, "", &mut errors);
    let user = required(["/user", "subject"], fields.user, fallbacks.user.as_deref(), &mut errors);
    required(["/action", "type"], fields.action, fallbacks.action.as_deref(), &mut errors);
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
        content_type: None,
        extra_headers: Vec::new(),
    }))
}

/// Checks a required member, or its fallback if it is missing. `names` are the names of both.
fn required<'a>(
    names: [&str; 2],
    value: Option<MemberValue<'a>>,
    stand_in: Option<&'a str>,
    errors: &mut Vec<FieldError>,
) -> Cow<'a, str> {
    let (name, value) = match (value, stand_in) {
        (None, Some(text)) => (names[1], Some(MemberValue::Text(text.into()))),
        (value, _) => (names[0], value),
    };
    let complaint = match value {
        None => format!("is missing: expected a string of 1 to {MAX_TEXT} characters"),
        Some(MemberValue::Other(kind)) => format!("must be a string, not {kind}"),
        Some(MemberValue::Text(text)) => {
            if text.chars().all(is_blank) {
                "must not be blank".to_owned()
            } else if text.len() > MAX_TEXT && text.chars().count() > MAX_TEXT {
                format!("must have at most {MAX_TEXT} characters, not {}", text.chars().count())
            } else if text.chars().any(char::is_control) {
                "must not contain control characters".to_owned()
            } else {
                return text;
            }
        }
    };
    errors.push(FieldError::new(name, complaint));
    Cow::Borrowed("")
}

/// Whether a character is invisible: white space, or default-ignorable in Unicode 16 (DerivedCoreProperties.txt), such
/// as zero-width spaces, direction marks and Hangul fillers.
pub fn is_blank(c: char) -> bool {
    c.is_whitespace()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{2800}' // a Braille pattern without dots
            | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

pub(super) fn optional_id(pointer: &str, value: Option<MemberValue>, errors: &mut Vec<FieldError>) -> Option<EventId> {
    let complaint = match value? {
        MemberValue::Text(text) => match EventId::parse(&text) {
            Some(id) => return Some(id),
            None => format!("must be 1 to {} visible ASCII characters", EventId::MAX),
        },
        MemberValue::Other(kind) => format!("must be a string, not {kind}"),
    };
    errors.push(FieldError::new(pointer, complaint));
    None
}

pub(super) fn optional_time(
    pointer: &str,
    value: Option<MemberValue>,
    limits: &Limits,
    errors: &mut Vec<FieldError>,
) -> Option<(i64, String)> {
    let complaint = match value? {
        MemberValue::Text(text) => match parse_ms(&text) {
            Some(ms) if ms > limits.now_ms + MAX_FUTURE_MS => "must not be more than 24 hours in the future".to_owned(),
            Some(ms) => return Some((ms, text.into_owned())),
            None => "must be an RFC 3339 date-time such as 2026-11-23T12:00:00Z".to_owned(),
        },
        MemberValue::Other(kind) => format!("must be a string, not {kind}"),
    };
    errors.push(FieldError::new(pointer, complaint));
    None
}

fn too_deep(text: &str, pointer: &str, errors: &mut Vec<FieldError>) {
    if is_deeper(text, MAX_DEPTH) {
        errors.push(FieldError::new(pointer, format!("must not be nested more than {MAX_DEPTH} levels deep")));
    }
}

/// The members of an event that Footfall reads.
#[derive(Default)]
struct Fields<'a> {
    user: Option<MemberValue<'a>>,
    action: Option<MemberValue<'a>>,
    id: Option<MemberValue<'a>>,
    time: Option<MemberValue<'a>>,
    twice: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    fn read(json: &'a str) -> Result<Self, serde_json::Error> {
        let mut fields = Fields::default();
        for_each_member(json, |name, value| {
            let (name, field) = match &*name {
                "user" => ("user", &mut fields.user),
                "action" => ("action", &mut fields.action),
                "id" => ("id", &mut fields.id),
                "time" => ("time", &mut fields.time),
                _ => return,
            };
            if field.replace(MemberValue::read(value)).is_some() && !fields.twice.contains(&name) {
                fields.twice.push(name);
            }
        })?;
        Ok(fields)
    }

    fn repeated(&self, prefix: &str) -> Vec<FieldError> {
        let complaint = "appears twice; JSON parsers disagree on which one counts";
        self.twice.iter().map(|name| FieldError::new(format!("{prefix}/{name}"), complaint)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { event: 32 * 1024, batch: 500, now_ms: 1_795_435_200_000 };

    fn one(json: &str) -> Checked {
        let body = Bytes::copy_from_slice(json.as_bytes());
        let text = std::str::from_utf8(&body).expect("UTF-8");
        event(&body, text, &Fallbacks::default(), &LIMITS).expect("JSON")
    }

    fn errors(json: &str) -> Vec<(String, String)> {
        one(json).expect_err("errors").into_iter().map(|e| (e.pointer, e.detail)).collect()
    }

    #[test]
    fn id_and_time_are_kept_or_generated() {
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
    fn a_duplicate_field_is_rejected_even_if_escaped() {
        assert_eq!(errors(r#"{"user":"a","action":"b","us\u0065r":"c"}"#)[0].0, "/user");
    }

    #[test]
    fn depth_is_bounded_and_brackets_in_strings_do_not_count() {
        let nested = |n: usize| format!(r#"{{"user":"a","action":"b","x":{}1{}}}"#, "[".repeat(n), "]".repeat(n));
        assert!(one(&nested(31)).is_ok());
        assert!(one(&nested(32)).is_err());
        assert!(one(&format!(r#"{{"user":"a","action":"b","x":"{}\""}}"#, "[".repeat(99))).is_ok());
    }
}
