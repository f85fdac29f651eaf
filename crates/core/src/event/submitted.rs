//! Parses and validates a submitted body into events, or returns the reason why it is rejected.
//!
//! The value of an event is kept as the bytes that were sent. Nothing here reads a clock, a broker or a header.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::cloudevents;
use super::fields::{self, Fallbacks, well_formed};
use super::refused::{Checked, FieldError, Limits, Refused, body_text, trimmed};

/// The format of a body, by its content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFormat {
    /// `application/json`: an event or an array of them.
    Json,
    /// `application/cloudevents+json`: one CloudEvent in structured mode.
    CloudEvent,
    /// `application/cloudevents-batch+json`: an array of those.
    CloudEventBatch,
    /// `application/x-ndjson`: an event on each line.
    JsonLines,
}

/// The events of a body.
#[derive(Debug)]
pub enum Parsed {
    One(Box<Checked>),
    Many(Vec<Checked>),
    /// The event of each line that is not blank, with the line's number, counted from 0.
    Lines(Vec<(usize, Checked)>),
}

/// Parses a body. Invalid items of an array, and invalid lines, do not affect the valid ones.
pub fn parse(body: &Bytes, format: BodyFormat, limits: &Limits) -> Result<Parsed, Refused> {
    if format == BodyFormat::JsonLines {
        return lines(body, limits);
    }
    let text = body_text(body)?;
    let one = match (text.as_bytes().first(), format) {
        (Some(b'{'), BodyFormat::Json | BodyFormat::CloudEvent) => true,
        (Some(b'['), BodyFormat::Json | BodyFormat::CloudEventBatch) => false,
        _ => {
            well_formed(text)?;
            return Err(Refused::WrongType(
                match format {
                    BodyFormat::Json | BodyFormat::JsonLines => "expected a JSON object, or an array of them",
                    BodyFormat::CloudEvent => "expected one CloudEvent, a JSON object",
                    BodyFormat::CloudEventBatch => "expected an array of CloudEvents",
                }
                .into(),
            ));
        }
    };
    let check = |text: &str| match format {
        BodyFormat::Json | BodyFormat::JsonLines => fields::event(body, text, &Fallbacks::default(), limits),
        BodyFormat::CloudEvent | BodyFormat::CloudEventBatch => cloudevents::structured(body, text, limits),
    };
    if one {
        limits.check_size(0, text)?;
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
        limits.check_size(index, item.get())?;
    }
    items.iter().map(|item| check(item.get())).collect::<Result<_, _>>().map(Parsed::Many)
}

/// Parses an event on each line. A line ends with LF or CR LF, the last one also with the body; blank lines are
/// skipped.
fn lines(body: &Bytes, limits: &Limits) -> Result<Parsed, Refused> {
    let text = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
    let is_blank = |line: &[u8]| line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r'));
    let lines = || text.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !is_blank(line));
    let count = lines().count();
    if count == 0 {
        return Err(Refused::NoLines(limits.batch));
    }
    if count > limits.batch {
        return Err(Refused::TooMany { count, max: limits.batch });
    }
    let checked = |(number, line)| match std::str::from_utf8(line) {
        Ok(text) => {
            let text = trimmed(text);
            limits.check_size(number, text)?;
            Ok((number, checked_line(body, text, limits)?))
        }
        Err(error) => {
            let detail = format!("the line is not UTF-8: invalid byte at position {}", error.valid_up_to());
            Ok((number, Err(vec![FieldError::new("", detail)])))
        }
    };
    lines().map(checked).collect::<Result<_, _>>().map(Parsed::Lines)
}

/// Parses the event of one line. A line that is not JSON is an error of its event only.
fn checked_line(body: &Bytes, text: &str, limits: &Limits) -> Result<Checked, Refused> {
    match fields::event(body, text, &Fallbacks::default(), limits) {
        Err(Refused::NotJson(why)) => {
            // The parser sees one line only, so its line number says nothing.
            let why = why.replace(" at line 1 column ", " at column ");
            Ok(Err(vec![FieldError::new("", format!("the line is not JSON: {why}"))]))
        }
        checked => checked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { event: 32 * 1024, batch: 500, now_ms: 1_795_435_200_000 };

    fn one(json: &str) -> Checked {
        match parse(&Bytes::copy_from_slice(json.as_bytes()), BodyFormat::Json, &LIMITS) {
            Ok(Parsed::One(checked)) => *checked,
            other => panic!("expected one event, got {other:?}"),
        }
    }

    fn errors(json: &str) -> Vec<(String, String)> {
        one(json).expect_err("errors").into_iter().map(|e| (e.pointer, e.detail)).collect()
    }

    fn refused(body: &[u8]) -> Refused {
        parse(&Bytes::copy_from_slice(body), BodyFormat::Json, &LIMITS).expect_err("a refusal")
    }

    #[test]
    fn the_value_is_kept_byte_for_byte() {
        let event = one(" {\"user\" : \"J\\u006fhn\",\"action\":\"login\", \"n\":1.0e+2 }\n").expect("an event");
        assert_eq!(&event.value[..], b"{\"user\" : \"J\\u006fhn\",\"action\":\"login\", \"n\":1.0e+2 }");
        assert_eq!(event.user, "John");
    }

    #[test]
    fn a_body_that_is_not_json_is_rejected() {
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
        let Ok(Parsed::Many(items)) = parse(&body, BodyFormat::Json, &LIMITS) else { panic!("an array") };
        assert_eq!(items.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    }

    #[test]
    fn an_item_that_serde_json_rejects_does_not_affect_the_others() {
        let body = br#"[1e999,"\ud800",{"\ud800":1},{"user":"a","action":"b","x":1e999,"y":"\ud800"}]"#;
        let Ok(Parsed::Many(items)) = parse(&Bytes::from_static(body), BodyFormat::Json, &LIMITS) else {
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
        let Ok(Parsed::One(checked)) = parse(&Bytes::from_static(body), BodyFormat::CloudEvent, &LIMITS) else {
            panic!("one")
        };
        assert_eq!(checked.expect_err("an error")[0].pointer, "/n");
    }

    #[test]
    fn lines_are_numbered_from_0_and_blank_ones_skipped() {
        let body = b"\xef\xbb\xbf{\"user\":\"a\",\"action\":\"b\"}\r\n\n \t\r\n{\"user\":\"a\"\n \xff\n7\n{\"user\":\"c\",\"action\":\"d\"} ";
        let Ok(Parsed::Lines(lines)) = parse(&Bytes::from_static(body), BodyFormat::JsonLines, &LIMITS) else {
            panic!("lines")
        };
        let found: Vec<(usize, String)> = lines
            .into_iter()
            .map(|(number, checked)| match checked {
                Ok(event) => (number, String::from_utf8(event.value.to_vec()).expect("UTF-8")),
                Err(errors) => (number, errors[0].detail.clone()),
            })
            .collect();
        let expected = [
            (0, r#"{"user":"a","action":"b"}"#),
            (3, "the line is not JSON: EOF while parsing an object at column 11"),
            (4, "the line is not UTF-8: invalid byte at position 1"),
            (5, "must be a JSON object with `user` and `action`"),
            (6, r#"{"user":"c","action":"d"}"#),
        ];
        assert_eq!(found, expected.map(|(number, text)| (number, text.to_owned())));
    }

    #[test]
    fn bounds_of_lines_are_those_of_arrays() {
        let refused = |body: &str| {
            parse(&Bytes::copy_from_slice(body.as_bytes()), BodyFormat::JsonLines, &LIMITS).expect_err("a refusal")
        };
        for empty in ["", "\n", " \r\n\t\n", "\u{feff}"] {
            assert_eq!(refused(empty), Refused::NoLines(500), "{empty:?}");
        }
        assert_eq!(refused(&"{}\n\n".repeat(501)), Refused::TooMany { count: 501, max: 500 });
        let large = format!("{{}}\n\n{{\"x\":\"{}\"}}\n", "x".repeat(40_000));
        assert!(matches!(refused(&large), Refused::TooLarge { index: 2, .. }));
    }

    #[test]
    fn errors_of_size_name_the_limit() {
        let many = format!("[{}]", vec!["{}"; 501].join(","));
        assert_eq!(refused(many.as_bytes()), Refused::TooMany { count: 501, max: 500 });
        let large = format!(r#"[{{}},{{"user":"a","action":"{}"}}]"#, "x".repeat(40_000));
        assert!(matches!(refused(large.as_bytes()), Refused::TooLarge { index: 1, .. }));
    }

    #[test]
    fn a_cloud_event_gives_its_data_and_its_attributes() {
        let body = Bytes::from_static(
            br#"{"specversion":"1.0","id":"e1","source":"/shop","type":"t","n":3,"data":{"user":"a","action":"b"}}"#,
        );
        let Ok(Parsed::One(checked)) = parse(&body, BodyFormat::CloudEvent, &LIMITS) else { panic!("one") };
        let event = checked.expect("an event");
        assert_eq!(&event.value[..], br#"{"user":"a","action":"b"}"#);
        assert_eq!(
            (event.id.as_str(), event.source.as_deref(), event.kind.as_deref()),
            ("e1", Some("/shop"), Some("t"))
        );
        assert_eq!(event.extra_headers, [("ce_n".to_owned(), "3".to_owned())]);
    }

    #[test]
    fn errors_name_the_missing_attributes_of_a_cloud_event() {
        let body = Bytes::from_static(br#"{"specversion":"0.3","data":{"user":"a"}}"#);
        let Ok(Parsed::One(checked)) = parse(&body, BodyFormat::CloudEvent, &LIMITS) else { panic!("one") };
        let mut pointers: Vec<String> = checked.expect_err("errors").into_iter().map(|e| e.pointer).collect();
        pointers.sort();
        assert_eq!(pointers, ["/data/action", "/id", "/source", "/specversion", "/type"]);
    }
}
