//! A record as one row. `_event.html` is its only rendering, for first paint and live update.
//!
//! A row can be made from any bytes, and its size is bounded whatever the record's. It does not hold the whole record,
//! which the page fetches on demand.

use std::borrow::Cow;
use std::sync::Arc;

use askama::Template;
use footfall_core::value::for_each_member;
use footfall_core::{Frames, Pointer};
use serde_json::value::RawValue;

use super::address::user_page;
use super::format::{Stamp, cut, is_text, size};
use super::listing::{Listing, filter_value, name, written};
use super::marks::Marks;
use crate::colours::{self, Colour};
use crate::event::Record;

/// Most characters of a field's name, of its value, and of all fields together in a row.
const NAME_CHARS: usize = 40;
const VALUE_CHARS: usize = 60;
const LINE_CHARS: usize = 180;
/// Fields beyond this many are only counted.
const MAX_FIELDS: usize = 32;

/// Most bytes of a condition that a field carries for its filter. The open record has filters for longer values.
const CONDITION_BYTES: usize = 120;

/// Renders a record with `_event.html`, for a page with these filters and columns.
pub fn event_html(record: &Record, listing: &Listing) -> String {
    #[derive(Template)]
    #[template(path = "_event.html")]
    struct EventRow<'a> {
        row: &'a Row,
    }
    let row = Row::new(record, listing);
    // Writing into a String cannot fail, and the template calls nothing that can.
    EventRow { row: &row }.render().unwrap_or_default()
}

/// Returns the frames that encode the rows of a page; `None` if it has neither filters nor columns, because the feed
/// encodes those itself.
pub fn frames(listing: &Listing) -> Option<Frames> {
    let key = listing.query();
    let listing = listing.clone();
    (!key.is_empty()).then(|| Frames::keyed(&key, move |record| event_html(record, &listing)))
}

/// A record as one row.
pub struct Row {
    pub partition: i32,
    pub offset: i64,
    pub time: Option<Stamp>,
    /// The time since the event before, if the page shows that: `+19 s`.
    pub since: Option<String>,
    pub user: RowUser,
    /// What the filters of the page found is marked.
    pub marks: Arc<Marks>,
    /// Address of the user's page.
    pub user_page: Option<String>,
    pub action: String,
    /// Address of the page with a filter for the action.
    pub action_page: String,
    /// What follows the address of the record's page to keep filters and columns.
    pub suffix: String,
    /// The fields that have a column, in the order of the columns.
    pub cells: Vec<Option<Field>>,
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
    /// The condition that only this value meets, as `f` has it, if name and value as they are shown do not say it. A
    /// pointer alone if there is no such condition; empty if the field can have no filter and no column.
    pub condition: Option<String>,
}

impl Field {
    fn new(pointer: &Pointer, name: &str, json: &str) -> Self {
        let shown = Field { name: cut(name, NAME_CHARS), value: plain(json), condition: None };
        // What the page's script makes of a field without a condition.
        let readable = (!json.starts_with(['{', '['])).then(|| equal(&Pointer::to_member(&shown.name), &shown.value));
        let (pointer_alone, own) = (pointer.to_string(), filter_value(json).map(|value| equal(pointer, &value)));
        let is_said = match &own {
            Some(own) => readable.as_ref() == Some(own),
            None => readable.is_none() && Pointer::to_member(&shown.name) == *pointer,
        };
        let fits = |text: &String| text.len() <= CONDITION_BYTES && !text.contains(char::is_control);
        let carried = || own.filter(fits).or(Some(pointer_alone).filter(fits)).unwrap_or_default();
        Field { condition: (!is_said).then(carried), ..shown }
    }
}

fn equal(pointer: &Pointer, value: &str) -> String {
    format!("{pointer}:eq:{value}")
}

impl Row {
    pub fn new(record: &Record, listing: &Listing) -> Self {
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
            time: record.time_ms().map(|ms| Stamp::new(ms, &listing.zone)),
            since: None,
            user,
            marks: listing.marks.clone(),
            user_page,
            action_page: columns.action.as_deref().map(|action| listing.action_page(action)).unwrap_or_default(),
            action: columns.action.map(|action| cut(&action, usize::MAX)).unwrap_or_default(),
            suffix: listing.suffix(),
            cells: listing.columns.iter().map(|column| cell(record, column)).collect(),
            fields: Vec::new(),
            more: 0,
            raw: String::new(),
            note: String::new(),
        };
        match record.value() {
            None => row.note = "tombstone".to_owned(),
            Some([]) => row.note = "empty value".to_owned(),
            Some(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) if is_text(text) => row.read(record, text, &listing.columns),
                _ => row.note = format!("binary, {}", size(bytes.len())),
            },
        }
        row
    }

    fn read(&mut self, record: &Record, text: &str, columns: &[Pointer]) {
        if let Some(mut object) = Object::read(record.event_json().unwrap_or(text)) {
            object.fields.retain(|(name, _)| !columns.iter().any(|column| *column.names() == [name.as_ref()]));
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
            let field = Field::new(&Pointer::to_member(name), name, value);
            let width = field.name.chars().count() + field.value.chars().count();
            if used + width > LINE_CHARS && used > 0 {
                break;
            }
            used += width;
            self.fields.push(field);
        }
        self.more = object.shown().count() - self.fields.len() + object.uncounted;
    }

    /// The colour of the action's dot.
    pub fn colour(&self) -> Colour {
        colours::of(&self.action)
    }
}

/// Returns the field of a record that a column shows.
fn cell(record: &Record, column: &Pointer) -> Option<Field> {
    let json = column.find(record.event_json()?)?;
    Some(Field::new(column, &name(column), json))
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
        Ok(text) => cut(&written(text), VALUE_CHARS),
        Err(_) => cut(json, VALUE_CHARS),
    }
}

#[cfg(test)]
mod tests {
    use footfall_core::checks::{for_each_seed, record_of, structured_record_of};
    use footfall_core::query_string::QueryString;
    use proptest::prelude::*;
    use proptest::sample::select;
    use serde_json::json;

    use super::*;

    fn html(key: Option<&[u8]>, value: Option<&[u8]>) -> String {
        listed(key, value, &Listing::default())
    }

    fn listed(key: Option<&[u8]>, value: Option<&[u8]>, listing: &Listing) -> String {
        event_html(&Record::new(1, 812, Some(1_795_435_200_123), key, value, std::iter::empty()), listing)
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
    fn a_field_says_what_its_filter_is_if_it_does_not_show_it() {
        let object = json!({
            "plain": "x:y", "quoted": "a b", "number": 5, "text": "5", "nested": {"a": 1}, "a/b": true, "long": "x".repeat(70),
        });
        let html = html(None, Some(object.to_string().as_bytes()));
        for shown in [
            "<bdi><b>plain=</b>x:y<",
            "<bdi><b>quoted=</b>&#34;a b&#34;<",
            "<bdi><b>number=</b>5<",
            "<bdi><b>text=</b>&#34;5&#34;<",
            "<bdi><b>nested=</b>{",
            "<bdi><b>a/b=</b>true<",
            &format!("<bdi data-f=\"/long:eq:{}\"><b>long=</b>", "x".repeat(70)),
        ] {
            assert!(html.contains(shown), "{shown} in {html}");
        }
        let odd = json!({"very": "y".repeat(700), "tab": "a\tb"}).to_string();
        let html = self::html(None, Some(odd.as_bytes()));
        assert!(html.contains("<bdi data-f=\"/very\"><b>very=</b>y"), "{html}");
        assert!(html.contains("<bdi data-f=\"/tab:eq:&#34;a\\tb&#34;\"><b>tab=</b>a b<"), "{html}");
    }

    #[test]
    fn a_column_has_its_field_and_the_details_have_the_others() {
        let parameters = QueryString::parse("col=/page&col=/card/kind&user=Ann").expect("valid");
        let listing = Listing::new("/", &parameters, &[]).expect("valid");
        let value =
            json!({"user": "Ann", "action": "pay", "card": {"kind": "visa"}, "page": "/cart", "n": 1}).to_string();
        let html = listed(None, Some(value.as_bytes()), &listing);
        let cells = r#"<span class="fields"><span class="cell"><bdi><b>page=</b>/cart</bdi></span> <span class="cell"><bdi data-f="/card/kind:eq:visa"><b>card.kind=</b>visa</bdi></span> <span class="rest"><bdi><b>card=</b>"#;
        assert!(html.contains(cells), "{html}");
        assert!(html.contains("/?user=Ann&#38;col=%2Fpage&#38;col=%2Fcard%2Fkind&#38;action=pay"), "{html}");
        assert_eq!(html.matches("page=").count(), 1, "{html}");
        assert!(listed(None, None, &listing).contains(r#"<span class="cell"></span> <span class="cell"></span>"#));
    }

    #[test]
    fn an_action_has_the_colour_of_its_name() {
        crate::colours::choose_first(["login"]);
        let class = crate::colours::of("login").class();
        let html = html(None, Some(br#"{"action":"login"}"#));
        assert!(html.contains(&format!(r#"<span class="what {class}">"#)), "{html}");
    }

    /// A row has exactly the elements of its template, so nothing in a record can become markup.
    fn check_row(record: &Record) {
        let html = event_html(record, &Listing::default());
        let plain =
            Record::new(record.partition(), record.offset(), record.timestamp_ms(), None, None, std::iter::empty());
        assert!(
            html.starts_with(event_html(&plain, &Listing::default()).split_once("><").map_or("", |(head, _)| head)),
            "{html}"
        );
        let mut open = Vec::new();
        for tag in html.split('<').skip(1) {
            let (tag, text) = tag.split_once('>').unwrap_or_else(|| panic!("a tag that does not end: {html}"));
            assert!(!text.contains('>') && tag.matches('"').count() % 2 == 0, "{html}");
            let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
            assert!(!attributes.to_ascii_lowercase().contains(" on"), "{html}");
            match name.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name), "{html}"),
                None => {
                    let known = ["li", "details", "summary", "time", "i", "span", "bdi", "b", "em", "p", "a", "mark"];
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
