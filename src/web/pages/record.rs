//! The page of one record: its content, its neighbours, and ways to copy it or send it again.

use askama::Template;
use footfall_core::Pointer;
use footfall_core::value::{for_each_element, for_each_member};
use rocket::{State, get};

use super::Base;
use crate::bounds::{Address, SHOWN_BYTES, SHOWN_CHARS};
use crate::event::{Record, json};
use crate::kafka::Marks;
use crate::search::Searches;
use crate::web::long_answer::{LongBody, Whole};
use crate::web::openapi;
use crate::web::problem::{Kind, Problem};
use crate::web::query::Parameters;
use crate::web::views::{
    BrokerStatus, Filters, Listing, PageFrame, Row, RowUser, Stamp, cut, is_text, members, name, size,
};

/// Most fields that are listed, most levels that they are deep, and most characters of a name or a value.
const MOST_FIELDS: usize = 100;
const DEEPEST: usize = 8;
const SHOWN_FIELD: usize = 200;

#[derive(Template)]
#[template(path = "record.html")]
struct RecordPage {
    frame: PageFrame,
    row: Row,
    /// The history from the event's time on.
    from_time: Option<String>,
    /// Kafka's timestamp, and the history of the record's partition from it on.
    timestamp: Option<(Stamp, String)>,
    key: Option<String>,
    id: Option<String>,
    headers: Vec<(String, String)>,
    fields: Vec<FieldLine>,
    value: String,
    value_size: String,
    /// Whether only a part of the value is shown.
    is_cut: bool,
    /// The record as in the API.
    json: String,
    previous: Option<i64>,
    following: Option<i64>,
    again: Option<Again>,
}

/// A field of the event, with addresses of events like this one.
struct FieldLine {
    name: String,
    value: String,
    /// Only the events with this value, and those without it; `None` for values that cannot be compared.
    narrowed: Option<[String; 2]>,
    /// The field as a column.
    column: String,
}

/// The event without its id and time, to send it as a new one.
struct Again {
    user: String,
    action: String,
    details: String,
    /// The command up to the address.
    curl: String,
    /// Scheme and authority as the browser used them.
    base: String,
}

/// One record, with links to its neighbours; copy and export
#[utoipa::path(
    operation_id = "recordPage",
    tag = "pages",
    params(openapi::Place, openapi::Filter, openapi::Columns),
    responses(openapi::Html, openapi::BadParameter, openapi::NotFound, openapi::ReadUnavailable,)
)]
#[get("/events/<partition>/<offset>")]
pub async fn record(
    searches: &State<Searches>,
    frame: PageFrame,
    client: Address,
    base: Base,
    parameters: Parameters,
    partition: &str,
    offset: &str,
) -> Result<Whole, Problem> {
    let listing =
        Listing::of("/history", parameters.filters()?, parameters.columns()?, String::new()).in_zone(&frame.zone);
    let detail = format!("there is no record at partition {partition}, offset {offset}, or Kafka no longer keeps it");
    let missing = Problem::new(Kind::NotFound, detail);
    let (Ok(number), Ok(place)) = (partition.parse::<i32>(), offset.parse::<i64>()) else { return Err(missing) };
    let read = searches.record(client, number, place, move |found| {
        let (record, bounds) = found?;
        Some(LongBody::page(&RecordPage::new(frame, &record, bounds, &base.0, &listing)))
    });
    let (body, permit) = read.await?;
    Ok(Whole::html(searches, client, body.ok_or(missing)??, permit).await?)
}

impl RecordPage {
    /// Renders the page of a record; `bounds` are the first and the next offset of its partition.
    fn new(frame: PageFrame, record: &Record, (low, high): Marks, base: &str, listing: &Listing) -> Self {
        let mut whole = Vec::new();
        json::write(&mut whole, &frame.topic, record);
        let value = shown(record);
        let is_cut = value.chars().count() > SHOWN_CHARS;
        let place = record.offset();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        RecordPage {
            frame,
            row: Row::new(record, listing),
            from_time: record.time_ms().map(|ms| listing.history_from(listing.filters.clone(), ms)),
            timestamp: record.timestamp_ms().map(|ms| {
                let own = Filters { partition: vec![record.partition()], ..listing.filters.clone() };
                (Stamp::new(ms, &listing.zone), listing.history_from(own, ms))
            }),
            key: record.key().map(text),
            id: record.id().map(|id| id.into_owned()),
            headers: record
                .headers()
                .map(|(name, value)| (name.to_owned(), value.map_or_else(|| "null".to_owned(), text)))
                .collect(),
            fields: fields(record, listing),
            value: if is_cut { value.chars().take(SHOWN_CHARS).collect() } else { value },
            value_size: size(record.value().unwrap_or_default().len()),
            is_cut,
            json: text(&whole),
            previous: (place > low).then(|| place - 1),
            following: (place + 1 < high).then_some(place + 1),
            again: again(record, base),
        }
    }
}

/// Returns the fields of an event, those of objects and arrays one by one.
fn fields(record: &Record, listing: &Listing) -> Vec<FieldLine> {
    let mut lines = Vec::new();
    let Some(json) = record.event_json().filter(|_| record.json().is_some()) else { return lines };
    descend(json, &mut Vec::new(), &mut |names, json| {
        let pointer = Pointer::to(names);
        lines.push(FieldLine {
            name: cut(&name(&pointer), SHOWN_FIELD),
            value: cut(json, SHOWN_FIELD),
            narrowed: listing.narrowed(&pointer, json),
            column: listing.with_column(&pointer),
        });
        lines.len() < MOST_FIELDS
    });
    lines
}

/// Calls `each` with the names on the way to a value that has no members or elements to descend to, and its JSON, for all
/// of them until it returns false. Returns false then too.
fn descend(json: &str, names: &mut Vec<String>, each: &mut impl FnMut(&[String], &str) -> bool) -> bool {
    let mut inner: Vec<(String, &str)> = Vec::new();
    let read = match json.as_bytes().first() {
        _ if names.len() == DEEPEST => Ok(()),
        Some(b'{') => for_each_member(json, |name, value| inner.push((name.into_owned(), value.get()))),
        Some(b'[') => for_each_element(json, |index, value| inner.push((index.to_string(), value.get()))),
        _ => Ok(()),
    };
    if read.is_err() || inner.is_empty() {
        return names.is_empty() || each(names, json);
    }
    inner.into_iter().all(|(name, value)| {
        names.push(name);
        let goes_on = descend(value, names, each);
        names.pop();
        goes_on
    })
}

/// Formats the value for reading.
fn shown(record: &Record) -> String {
    match (record.json(), record.value()) {
        (Some(json), _) => json::pretty(json, SHOWN_CHARS * char::MAX.len_utf8()),
        (None, None) => String::new(),
        (None, Some(bytes)) => match std::str::from_utf8(bytes) {
            Ok(text) if is_text(text) => text.to_owned(),
            _ => hex(bytes),
        },
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (line, chunk) in bytes[..bytes.len().min(SHOWN_BYTES)].chunks(16).enumerate() {
        let octets: Vec<String> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        text.push_str(&format!("{:06x}  {}\n", line * 16, octets.join(" ")));
    }
    if bytes.len() > SHOWN_BYTES {
        text.push_str(&format!("… {} bytes in all\n", bytes.len()));
    }
    text
}

/// Returns how to send it again: without its id, which would make it the same event, and without its time.
fn again(record: &Record, base: &str) -> Option<Again> {
    let fields = record.user_and_action();
    let (user, action) = (fields.user?.into_owned(), fields.action?.into_owned());
    let members = members(record.event_json()?)?;
    let others = |left_out: &[&str]| {
        let kept = members.iter().filter(|(name, _)| !left_out.contains(&&**name));
        let pairs: Vec<String> = kept.map(|(name, value)| format!("{}:{value}", serde_json::json!(name))).collect();
        format!("{{{}}}", pairs.join(","))
    };
    let details = others(&["user", "action", "id", "time"]);
    // A CloudEvent's attributes replace members that its data does not have.
    let missing = [("user", &user), ("action", &action)]
        .into_iter()
        .filter(|(name, _)| members.iter().all(|(member, _)| member != name))
        .map(|(name, text)| format!("\"{name}\":{}", serde_json::json!(text)));
    let whole = others(&["id", "time"]);
    let rest = whole[1..whole.len() - 1].to_owned();
    let parts: Vec<String> = missing.chain((!rest.is_empty()).then_some(rest)).collect();
    let body = format!("{{{}}}", parts.join(",")).replace('\'', "'\\''");
    let curl = format!("curl -H 'Content-Type: application/json' -d '{body}' ");
    let details = if details == "{}" { String::new() } else { details };
    Some(Again { user, action, details, curl, base: base.to_owned() })
}
