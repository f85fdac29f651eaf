//! What a person reads: the pages as askama templates, and the row that a record becomes.
//!
//! A row is made from any bytes, is bounded in size whatever the record's, and has ONE rendering (`_event.html`)
//! for first paint and live update. The whole record is not in it: the page fetches that on demand.
//! Nothing here reads from Kafka or knows HTTP; `pages.rs` and the feed call it.

use std::borrow::Cow;
use std::fmt;

use askama::Template;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::event::{Record, time};

/// Characters of a field's name, of its value, and of all fields together that a row shows.
const NAME_CHARS: usize = 40;
const VALUE_CHARS: usize = 60;
const LINE_CHARS: usize = 180;
/// Fields beyond this many are counted, not read out.
const MAX_FIELDS: usize = 32;
/// Hues that `app.css` defines as `hue-0` to `hue-23`.
const HUES: u32 = 24;

/// `_event.html` of one record.
pub fn event_html(record: &Record) -> String {
    #[derive(Template)]
    #[template(path = "_event.html")]
    struct Event<'a> {
        row: &'a Row,
    }
    let row = Row::new(record);
    // Writing into a String cannot fail, and the template calls nothing that can.
    Event { row: &row }.render().unwrap_or_default()
}

/// The live page, `GET /`, and the answer to a form that was not accepted.
#[derive(Template)]
#[template(path = "live.html")]
pub struct LivePage {
    pub frame: Frame,
    pub filters: Filters,
    /// Newest first.
    pub rows: Vec<Row>,
    /// The cursor after the newest row: where the live stream takes over.
    pub cursor: String,
    pub form: SendForm,
    /// What the browser was redirected with after a form was accepted.
    pub receipt: Option<Receipt>,
    /// Milliseconds after which the server answers at the latest.
    pub deadline_ms: u128,
    /// Scheme and authority as the browser used them, for the `curl` line: `http://127.0.0.1:8000`.
    pub base: String,
}

/// Any answer that is not a page: `404`, a refused form, a failure of ours.
#[derive(Template)]
#[template(path = "error.html")]
pub struct ErrorPage {
    pub frame: Frame,
    pub status: u16,
    pub title: String,
    pub detail: String,
    pub request_id: String,
}

/// What stands around every page.
pub struct Frame {
    /// Hashed addresses of `app.css`, `app.js` and `favicon.svg`.
    pub css: String,
    pub js: String,
    pub icon: String,
    pub topic: String,
    /// The brokers in words: `kafka-1:9092`, `embedded broker`.
    pub servers: String,
    /// The embedded broker: the page says that it is not storage.
    pub embedded: bool,
    pub broker: Broker,
}

/// Whether Kafka answers.
pub enum Broker {
    Up,
    Away {
        /// Milliseconds since 1970.
        since_ms: i64,
        reason: String,
    },
}

/// The view's filters as they stand in its address.
#[derive(Default, Clone)]
pub struct Filters {
    pub user: Vec<String>,
    pub action: Vec<String>,
    pub q: Vec<String>,
    pub partition: Vec<i32>,
}

/// The form with what was typed into it.
#[derive(Default)]
pub struct SendForm {
    pub user: String,
    pub action: String,
    /// JSON, as typed.
    pub details: String,
    /// What the event's id will be: whoever sends the form again sends the same event.
    pub id: String,
    pub errors: Vec<FormError>,
    /// The last ones seen, most recent first, for the suggestions.
    pub users: Vec<String>,
    pub actions: Vec<String>,
}

/// Why the form was not accepted.
pub struct FormError {
    /// `user`, `action` or `details`; empty where no field is to blame (Kafka away, too many requests).
    pub field: &'static str,
    /// What is wrong, to be read after the field's name: `must be a string`.
    pub detail: String,
}

/// Where Kafka put the event.
pub struct Receipt {
    pub partition: i32,
    pub offset: i64,
}

impl LivePage {
    /// Whether someone is at the form, which on a narrow screen is folded away otherwise.
    fn in_hand(&self) -> bool {
        self.receipt.is_some() || !self.form.errors.is_empty()
    }
}

impl Frame {
    /// When Kafka went away, if it has.
    pub fn away(&self) -> Option<Away<'_>> {
        match &self.broker {
            Broker::Up => None,
            Broker::Away { since_ms, reason } => Some(Away { since: Stamp::new(*since_ms), reason }),
        }
    }
}

pub struct Away<'a> {
    pub since: Stamp,
    pub reason: &'a str,
}

impl Filters {
    /// The filters as a query, without `?`: `user=John&q=cart`; empty without filters.
    pub fn query(&self) -> String {
        let mut query = Query::default();
        for (name, values) in self.texts() {
            values.iter().for_each(|value| query.add(name, value));
        }
        self.partition.iter().for_each(|n| query.add("partition", &n.to_string()));
        query.0
    }

    pub fn is_empty(&self) -> bool {
        self.texts().iter().all(|(_, values)| values.is_empty()) && self.partition.is_empty()
    }

    fn texts(&self) -> [(&'static str, &[String]); 3] {
        [("user", &self.user), ("action", &self.action), ("q", &self.q)]
    }

    /// The one that stands in the filter's input.
    pub fn typed<'a>(&self, values: &'a [String]) -> &'a str {
        values.first().map_or("", String::as_str)
    }

    /// Those that have no input of their own: further values of a filter, and partitions beyond so many.
    pub fn chips(&self, partition_inputs: usize) -> Vec<Chip> {
        let mut chips = Vec::new();
        for (index, &partition) in self.partition.iter().enumerate().skip(partition_inputs) {
            let mut without = self.clone();
            without.partition.remove(index);
            chips.push(Chip { name: "partition", value: partition.to_string(), without: without.query() });
        }
        for (name, values) in self.texts() {
            for (index, value) in values.iter().enumerate().skip(1) {
                let mut without = self.clone();
                match name {
                    "user" => without.user.remove(index),
                    "action" => without.action.remove(index),
                    _ => without.q.remove(index),
                };
                chips.push(Chip { name, value: value.clone(), without: without.query() });
            }
        }
        chips
    }
}

/// A filter without an input, and the query without it.
pub struct Chip {
    pub name: &'static str,
    pub value: String,
    pub without: String,
}

/// An `application/x-www-form-urlencoded` query under construction.
#[derive(Default)]
pub struct Query(String);

impl Query {
    /// Without `?`.
    pub fn text(self) -> String {
        self.0
    }

    pub fn add(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        encode(&mut self.0, name);
        self.0.push('=');
        encode(&mut self.0, value);
    }
}

/// Percent-encodes everything but RFC 3986's unreserved characters.
fn encode(out: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte.into()),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
}

impl FormError {
    /// `Details must be a JSON object`, for the list above the form.
    fn sentence(&self) -> String {
        let mut name = self.field.chars();
        match name.next() {
            Some(first) => format!("{}{} {}", first.to_uppercase(), name.as_str(), self.detail),
            None => self.detail.clone(),
        }
    }
}

impl SendForm {
    /// The field that is the first to be mended.
    fn is_first_wrong(&self, field: &str) -> bool {
        self.errors.iter().find(|error| !error.field.is_empty()).is_some_and(|error| error.field == field)
    }

    fn error(&self, field: &str) -> Option<&str> {
        self.errors.iter().find(|error| error.field == field).map(|error| error.detail.as_str())
    }
}

/// A record as one line.
pub struct Row {
    pub partition: i32,
    pub offset: i64,
    pub time: Option<Stamp>,
    pub who: Who,
    /// Address of the user's page.
    pub person: Option<String>,
    pub action: String,
    pub fields: Vec<Field>,
    /// Fields that the line has no room for.
    pub more: usize,
    /// The value where it is no object: as text, cut.
    pub raw: String,
    /// Why the value is not an event, in words; empty where it is one.
    pub note: String,
}

pub enum Who {
    User(String),
    /// Of a record without a user.
    Key(String),
    Nobody,
}

pub struct Field {
    pub name: String,
    pub value: String,
}

/// A time as a row needs it.
pub struct Stamp {
    /// `2026-11-23T12:04:31.120Z`
    pub iso: String,
}

impl Stamp {
    pub fn new(ms: i64) -> Self {
        Stamp { iso: time::format_ms(ms) }
    }

    /// `2026-11-23 12:04:31.120 UTC`
    pub fn exact(&self) -> String {
        format!("{} {} UTC", self.date(), self.part(11..23))
    }

    /// `2026-11-23`
    pub fn date(&self) -> &str {
        self.part(0..10)
    }

    /// `12:04:31`
    pub fn clock(&self) -> &str {
        self.part(11..19)
    }

    fn part(&self, range: std::ops::Range<usize>) -> &str {
        self.iso.get(range).unwrap_or_default()
    }
}

impl Row {
    pub fn new(record: &Record) -> Self {
        let told = record.who_and_what();
        let person = told.user.as_deref().and_then(person);
        let who = match (told.user, record.key().map(std::str::from_utf8)) {
            (Some(user), _) => Who::User(cut(&user, usize::MAX)),
            (None, Some(Ok(key))) if !key.is_empty() => Who::Key(cut(key, NAME_CHARS)),
            _ => Who::Nobody,
        };
        let mut row = Row {
            partition: record.partition(),
            offset: record.offset(),
            time: record.time_ms().map(Stamp::new),
            who,
            person,
            action: told.action.map(|action| cut(&action, usize::MAX)).unwrap_or_default(),
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
        if let Ok(object) = serde_json::from_str::<Object>(record.event_json().unwrap_or(text)) {
            return self.lay_out(&object);
        }
        self.raw = cut(text, LINE_CHARS);
        self.note = match record.json() {
            Some(_) => "JSON, but no object".to_owned(),
            None if text.len() > LINE_CHARS => format!("not JSON, {}", size(text.len())),
            None => "not JSON".to_owned(),
        };
    }

    /// As many fields as fit on the line; `user` and `action` have columns of their own.
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

    /// The hue of the action's dot: FNV-1a of its name.
    pub fn hue(&self) -> u32 {
        let hash = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        self.action.bytes().fold(0x811c_9dc5, hash) % HUES
    }
}

/// Address of a user's page; a path cannot name everybody.
pub fn person(user: &str) -> Option<String> {
    let mut address = "/users/".to_owned();
    encode(&mut address, user);
    (!matches!(user, "" | "." | "..")).then_some(address)
}

/// All members of a JSON object in their order, each value still as JSON.
pub fn members(object: &str) -> Option<Vec<(String, &RawValue)>> {
    struct All<'a>(Vec<(String, &'a RawValue)>);
    impl<'de> Deserialize<'de> for All<'de> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Members;
            impl<'de> Visitor<'de> for Members {
                type Value = All<'de>;

                fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                    f.write_str("a JSON object")
                }

                fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                    let mut all = Vec::new();
                    while let Some(member) = map.next_entry()? {
                        all.push(member);
                    }
                    Ok(All(all))
                }
            }
            deserializer.deserialize_map(Members)
        }
    }
    serde_json::from_str::<All>(object).ok().map(|all| all.0)
}

/// The members of a JSON object in their order, each value still as JSON, as many as a row may show.
struct Object<'a> {
    fields: Vec<(String, &'a RawValue)>,
    uncounted: usize,
}

impl Object<'_> {
    fn shown(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.get()))
            .filter(|(name, value)| !(matches!(*name, "user" | "action") && value.starts_with('"')))
    }
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut object = Object { fields: Vec::new(), uncounted: 0 };
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    if object.fields.len() < MAX_FIELDS {
                        object.fields.push((name, value));
                    } else {
                        object.uncounted += 1;
                    }
                }
                Ok(object)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// A JSON value as a row shows it: a string without its quotes unless it would be misread, anything else as it stands.
fn plain(json: &str) -> String {
    match serde_json::from_str::<Cow<str>>(json) {
        Ok(text) if !text.is_empty() && !text.contains([' ', '=']) => cut(&text, VALUE_CHARS),
        _ => cut(json, VALUE_CHARS),
    }
}

/// At most `chars` characters, with those that would not show made visible.
pub fn cut(text: &str, chars: usize) -> String {
    let mut rest = text.chars();
    let mut short: String = rest.by_ref().take(chars).map(visible).collect();
    if rest.next().is_some() {
        short.push('…');
    }
    short
}

fn visible(c: char) -> char {
    match c {
        '\t' | '\n' | '\r' | '\u{2028}' | '\u{2029}' => ' ',
        '\0'..='\x1f' => char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{fffd}'),
        '\x7f' => '\u{2421}',
        // C1 controls, and those that turn the direction of text: a name must not read backwards.
        '\u{80}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        _ => c,
    }
}

/// Text that happens to be UTF-8 but is mostly control characters is binary to a reader.
pub fn is_text(text: &str) -> bool {
    let head = text.chars().take(1000);
    let (mut all, mut control) = (0, 0);
    for c in head {
        all += 1;
        control += u32::from(c.is_control() && !c.is_ascii_whitespace());
    }
    control * 10 <= all
}

/// `812 B`, `31 kB`, `1.4 MB`.
pub fn size(bytes: usize) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{} kB", bytes / 1_000),
        _ => format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000),
    }
}

/// `1,204`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
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
    fn what_is_no_event_is_named() {
        for (value, words) in [
            (None, "tombstone"),
            (Some(&b""[..]), "empty value"),
            (Some(b"\xff\xfe"), "binary, 2 B"),
            (Some(b"\0\x01\x02\x03"), "binary, 4 B"),
            (Some(b"plain"), "not JSON"),
            (Some(b"[1]"), "JSON, but no object"),
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

    #[test]
    fn filters_are_written_as_the_address_has_them() {
        let filters = Filters {
            user: vec!["Ann".into(), "J & J".into()],
            q: vec!["a=b".into()],
            partition: vec![1],
            ..Filters::default()
        };
        assert_eq!(filters.query(), "user=Ann&user=J%20%26%20J&q=a%3Db&partition=1");
        let chips: Vec<String> = filters.chips(0).into_iter().map(|chip| chip.without).collect();
        assert_eq!(chips, ["user=Ann&user=J%20%26%20J&q=a%3Db", "user=Ann&q=a%3Db&partition=1"]);
    }

    #[test]
    fn thousands_are_separated() {
        assert_eq!([thousands(7), thousands(1_204), thousands(1_000_000)], ["7", "1,204", "1,000,000"]);
    }
}
