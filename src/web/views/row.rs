//! A record as one row. `_event.html` is its only rendering, for first paint and live update.
//!
//! A row can be made from any bytes, and its size is bounded whatever the record's. It does not hold the whole record,
//! which the page fetches on demand.

use std::borrow::Cow;

use askama::Template;
use footfall_core::value::for_each_member;
use serde_json::value::RawValue;

use super::address::user_page;
use super::format::{Stamp, cut, is_text, size};
use crate::event::Record;

/// Most characters of a field's name, of its value, and of all fields together in a row.
const NAME_CHARS: usize = 40;
const VALUE_CHARS: usize = 60;
const LINE_CHARS: usize = 180;
/// Fields beyond this many are only counted.
const MAX_FIELDS: usize = 32;
/// Hues that `app.css` defines as `hue-0` to `hue-23`.
pub const HUES: u32 = 24;

/// Renders a record with `_event.html`.
pub fn event_html(record: &Record) -> String {
    #[derive(Template)]
    #[template(path = "_event.html")]
    struct EventRow<'a> {
        row: &'a Row,
    }
    let row = Row::new(record);
    // Writing into a String cannot fail, and the template calls nothing that can.
    EventRow { row: &row }.render().unwrap_or_default()
}

/// A record as one row.
pub struct Row {
    pub partition: i32,
    pub offset: i64,
    pub time: Option<Stamp>,
    pub user: RowUser,
    /// Address of the user's page.
    pub user_page: Option<String>,
    pub action: String,
    pub fields: Vec<Field>,
    /// The number of fields that are not shown.
    pub more: usize,
    /// The value as text, cut, if it is not an object.
    pub raw: String,
    /// Why the value is not an event, in words; empty if it is one.
    pub note: String,
}

pub enum RowUser {
    User(String),
    /// The key of a record without a user.
    Key(String),
    Missing,
}

pub struct Field {
    pub name: String,
    pub value: String,
}

impl Row {
    pub fn new(record: &Record) -> Self {
        let columns = record.user_and_action();
        let user_page = columns.user.as_deref().and_then(user_page);
        let user = match (columns.user, record.key().map(std::str::from_utf8)) {
            (Some(user), _) => RowUser::User(cut(&user, usize::MAX)),
            (None, Some(Ok(key))) if !key.is_empty() => RowUser::Key(cut(key, NAME_CHARS)),
            _ => RowUser::Missing,
        };
        let mut row = Row {
            partition: record.partition(),
            offset: record.offset(),
            time: record.time_ms().map(Stamp::new),
            user,
            user_page,
            action: columns.action.map(|action| cut(&action, usize::MAX)).unwrap_or_default(),
            fields: Vec::new(),
            more: 0,
            raw: String::new(),
            note: String::new(),
        };
        match record.value() {
            None => row.note = "tombstone".to_owned(),
            Some([]) => row.note = "empty value".to_owned(),
            Some(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) if is_text(text) => row.read(record, text),
                _ => row.note = format!("binary, {}", size(bytes.len())),
            },
        }
        row
    }

    fn read(&mut self, record: &Record, text: &str) {
        if let Some(object) = Object::read(record.event_json().unwrap_or(text)) {
            return self.lay_out(&object);
        }
        self.raw = cut(text, LINE_CHARS);
        self.note = match record.json() {
            Some(_) => "JSON, not an object".to_owned(),
            None if text.len() > LINE_CHARS => format!("not JSON, {}", size(text.len())),
            None => "not JSON".to_owned(),
        };
    }

    /// Adds as many fields as fit on the line; `user` and `action` have columns of their own.
    fn lay_out(&mut self, object: &Object) {
        let mut used = 0;
        for (name, value) in object.shown() {
            let field = Field { name: cut(name, NAME_CHARS), value: plain(value) };
            let width = field.name.chars().count() + field.value.chars().count();
            if used + width > LINE_CHARS && used > 0 {
                break;
            }
            used += width;
            self.fields.push(field);
        }
        self.more = object.shown().count() - self.fields.len() + object.uncounted;
    }

    /// Returns the hue of the action's dot: FNV-1a of its name.
    pub fn hue(&self) -> u32 {
        let hash = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        self.action.bytes().fold(0x811c_9dc5, hash) % HUES
    }
}

/// Returns all members of a JSON object in their order, each value as JSON.
pub fn members(object: &str) -> Option<Vec<(Cow<'_, str>, &RawValue)>> {
    let mut all = Vec::new();
    for_each_member(object, |name, value| all.push((name, value))).ok()?;
    Some(all)
}

/// The first members of a JSON object in their order, each value as JSON, as many as a row may show.
struct Object<'a> {
    fields: Vec<(Cow<'a, str>, &'a RawValue)>,
    uncounted: usize,
}

impl<'a> Object<'a> {
    fn read(json: &'a str) -> Option<Self> {
        let mut object = Object { fields: Vec::new(), uncounted: 0 };
        let each = |name, value| match object.fields.len() < MAX_FIELDS {
            true => object.fields.push((name, value)),
            false => object.uncounted += 1,
        };
        for_each_member(json, each).ok()?;
        Some(object)
    }

    fn shown(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields
            .iter()
            .map(|(name, value)| (&**name, value.get()))
            .filter(|(name, value)| !(matches!(*name, "user" | "action") && value.starts_with('"')))
    }
}

/// Formats a JSON value for a row: a string without its quotes unless that would be ambiguous, anything else unchanged.
fn plain(json: &str) -> String {
    match serde_json::from_str::<Cow<str>>(json) {
        Ok(text) if !text.is_empty() && !text.contains([' ', '=']) => cut(&text, VALUE_CHARS),
        _ => cut(json, VALUE_CHARS),
    }
}

#[cfg(test)]
mod tests {
    use footfall_core::checks::{for_each_seed, record_of, structured_record_of};
    use proptest::prelude::*;
    use proptest::sample::select;
    use serde_json::json;

    use super::*;

    fn html(key: Option<&[u8]>, value: Option<&[u8]>) -> String {
        event_html(&Record::new(1, 812, Some(1_795_435_200_123), key, value, std::iter::empty()))
    }

    #[test]
    fn an_event_is_one_line_with_its_fields_in_their_order() {
        let html = html(Some(b"John"), Some(br#"{"user":"John","z":1,"action":"login","page":"/cart","a":"b c"}"#));
        assert!(html.starts_with(r#"<li class="event" id="e-1-812">"#), "{html}");
        assert!(
            html.contains(r#"<time datetime="2026-11-23T12:00:00.123Z" title="2026-11-23 12:00:00.123 UTC">"#),
            "{html}"
        );
        assert!(html.contains(r#"<bdi class="who">John</bdi>"#), "{html}");
        assert!(html.contains("<b>z=</b>1</bdi> <bdi><b>page=</b>/cart</bdi> <bdi><b>a=</b>&#34;b c&#34;"), "{html}");
        assert!(html.contains(r#"href="/events/1/812""#), "{html}");
    }

    #[test]
    fn values_that_are_not_events_are_described() {
        for (value, words) in [
            (None, "tombstone"),
            (Some(&b""[..]), "empty value"),
            (Some(b"\xff\xfe"), "binary, 2 B"),
            (Some(b"\0\x01\x02\x03"), "binary, 4 B"),
            (Some(b"plain"), "not JSON"),
            (Some(b"[1]"), "JSON, not an object"),
            (Some(br#"{"\ud800":1}"#), "{&#34;\\ud800&#34;:1}"),
        ] {
            let html = html(Some(b"k1"), value);
            assert!(html.contains(words), "{words} in {html}");
            assert!(html.contains("the record&#39;s key") || html.contains("the record's key"), "{html}");
        }
        assert!(html(None, Some(&[0xff; 900_000])).contains("binary, 900 kB"));
    }

    #[test]
    fn a_row_is_small_whatever_the_record() {
        let many = (0..2_000).map(|n| format!("\"field_{n}\":\"{}\"", "<".repeat(300))).collect::<Vec<_>>().join(",");
        let html = html(None, Some(format!("{{{many}}}").as_bytes()));
        assert!(html.len() < 4_000, "{} bytes", html.len());
        assert!(html.contains("<em>+199"), "{html}");
        let deep = "[".repeat(100_000);
        assert!(self::html(None, Some(deep.as_bytes())).len() < 2_000);
    }

    #[test]
    fn text_stays_text_and_reads_forwards() {
        let html =
            html(None, Some("{\"user\":\"<script>\",\"action\":\"\u{202e}nigol\",\"a\":\"x\\u0000\\n\"}".as_bytes()));
        assert!(!html.contains("<script>") && !html.contains('\u{202e}'), "{html}");
        assert!(html.contains("\u{fffd}nigol") && html.contains("x\u{2400} "), "{html}");
    }

    #[test]
    fn an_action_has_a_steady_hue() {
        assert!(html(None, Some(br#"{"action":"login"}"#)).contains(r#"<span class="what hue-2">"#));
    }

    /// A row has exactly the elements of its template, so nothing in a record can become markup.
    fn check_row(record: &Record) {
        let html = event_html(record);
        let plain =
            Record::new(record.partition(), record.offset(), record.timestamp_ms(), None, None, std::iter::empty());
        assert!(html.starts_with(event_html(&plain).split_once("><").map_or("", |(head, _)| head)), "{html}");
        let mut open = Vec::new();
        for tag in html.split('<').skip(1) {
            let (tag, text) = tag.split_once('>').unwrap_or_else(|| panic!("a tag that does not end: {html}"));
            assert!(!text.contains('>') && tag.matches('"').count() % 2 == 0, "{html}");
            let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
            assert!(!attributes.to_ascii_lowercase().contains(" on"), "{html}");
            match name.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name), "{html}"),
                None => {
                    let known = ["li", "details", "summary", "time", "i", "span", "bdi", "b", "em", "p", "a"];
                    assert!(known.contains(&name), "<{name}> in {html}");
                    open.push(name);
                }
            }
        }
        assert!(open.is_empty(), "{html}");
        assert!(!html.contains(|c: char| c.is_control() && c != '\n'), "{html:?}");
    }

    #[test]
    fn a_row_of_every_seed_is_its_template_s_elements() {
        for_each_seed("record", |seed| check_row(&record_of(seed)));
        for_each_seed("foreign_record", |seed| check_row(&structured_record_of(seed)));
    }

    fn any_text() -> impl Strategy<Value = String> {
        prop_oneof![
            "\\PC{0,20}",
            "[-=+@\t\r\n\"',;a<>&]{0,6}",
            Just("\u{202e}x".to_owned()),
            Just("<script>".to_owned())
        ]
    }

    fn any_value() -> impl Strategy<Value = Option<Vec<u8>>> {
        let member = (select(vec!["user", "action", "id", "x", "<b>", "y=z"]), any_text());
        let object = proptest::collection::vec(member, 0..6).prop_map(|members| {
            let members = members.iter().map(|(name, value)| format!("{}:{}", json!(name), json!(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(",")).into_bytes()
        });
        prop_oneof![
            1 => Just(None),
            2 => proptest::collection::vec(any::<u8>(), 0..40).prop_map(Some),
            2 => any_text().prop_map(|text| Some(text.into_bytes())),
            4 => object.prop_map(Some),
        ]
    }

    proptest! {
        #[test]
        fn a_row_of_any_record_is_its_template_s_elements(key in any_value(), value in any_value(), id in any_value()) {
            let headers = [("ce_id", id.as_deref())];
            check_row(&Record::new(3, 7, Some(0), key.as_deref(), value.as_deref(), headers.into_iter()));
        }
    }
}
