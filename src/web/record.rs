//! One record's page: all of it, its neighbours, and ways to take it along or send it again.

use askama::Template;
use rocket::get;
use rocket::http::Status;

use super::guards::Shared;
use super::pages::{Base, Html, frame, html};
use super::problem::{Kind, Problem};
use super::reading;
use super::view::{Broker, Frame, Row, Who, is_text, members, size};
use crate::event::{Record, json};

/// Characters of a value that are shown; the record as JSON has all of it.
const MOST_SHOWN: usize = 100_000;
/// Bytes of a binary value that are shown.
const MOST_HEX: usize = 512;

#[derive(Template)]
#[template(path = "record.html")]
struct RecordPage {
    frame: Frame,
    row: Row,
    /// Kafka's own time.
    timestamp: Option<super::view::Stamp>,
    key: Option<String>,
    id: Option<String>,
    headers: Vec<(String, String)>,
    value: String,
    value_size: String,
    /// Whether the value is longer than what is shown of it.
    is_cut: bool,
    /// The record as the API has it.
    json: String,
    previous: Option<i64>,
    following: Option<i64>,
    again: Option<Again>,
}

/// The event without what made it this one, to be sent as another.
struct Again {
    user: String,
    action: String,
    details: String,
    curl: String,
}

#[get("/events/<partition>/<offset>")]
pub async fn record(app: Shared, base: Base, partition: &str, offset: &str) -> Result<Html, Problem> {
    let missing = || {
        let detail =
            format!("there is no record at partition {partition}, offset {offset}, or Kafka no longer keeps it");
        Problem::new(Kind::NotFound, detail)
    };
    let (Ok(number), Ok(place)) = (partition.parse::<i32>(), offset.parse::<i64>()) else { return Err(missing()) };
    let (found, bounds) =
        reading::blocking(&app, move |history| Ok((history.record(number, place)?, history.bounds()?))).await?;
    let record = found.ok_or_else(missing)?;
    let (low, high) = usize::try_from(number).ok().and_then(|index| bounds.get(index)).copied().unwrap_or_default();
    let mut whole = Vec::new();
    json::write(&mut whole, app.connection.topic(), &record);
    let whole = String::from_utf8_lossy(&whole).into_owned();
    let value = shown(&record);
    let is_cut = value.chars().count() > MOST_SHOWN;
    let page = RecordPage {
        frame: frame(&app),
        row: Row::new(&record),
        timestamp: record.timestamp_ms().map(super::view::Stamp::new),
        key: record.key().map(|key| String::from_utf8_lossy(key).into_owned()),
        id: record.id().map(|id| id.into_owned()),
        headers: record
            .headers()
            .map(|(name, value)| {
                let value =
                    value.map_or_else(|| "null".to_owned(), |bytes| String::from_utf8_lossy(bytes).into_owned());
                (name.to_owned(), value)
            })
            .collect(),
        value: if is_cut { value.chars().take(MOST_SHOWN).collect() } else { value },
        value_size: size(record.value().unwrap_or_default().len()),
        is_cut,
        json: whole,
        previous: (place > low).then(|| place - 1),
        following: (place + 1 < high).then_some(place + 1),
        again: again(&record, &base.0),
    };
    html(Status::Ok, &page)
}

/// The value for a person to read.
fn shown(record: &Record) -> String {
    match (record.json(), record.value()) {
        (Some(json), _) => json::pretty(json),
        (None, None) => String::new(),
        (None, Some(bytes)) => match std::str::from_utf8(bytes) {
            Ok(text) if is_text(text) => text.to_owned(),
            _ => hex(bytes),
        },
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (line, chunk) in bytes[..bytes.len().min(MOST_HEX)].chunks(16).enumerate() {
        let octets: Vec<String> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        text.push_str(&format!("{:06x}  {}\n", line * 16, octets.join(" ")));
    }
    if bytes.len() > MOST_HEX {
        text.push_str(&format!("… {} bytes in all\n", bytes.len()));
    }
    text
}

/// How to send it once more: without its id, or it would be the same event, and without its time.
fn again(record: &Record, base: &str) -> Option<Again> {
    let told = record.who_and_what();
    let (user, action) = (told.user?.into_owned(), told.action?.into_owned());
    let members = members(record.event_json()?)?;
    let others = |left_out: &[&str]| {
        let kept = members.iter().filter(|(name, _)| !left_out.contains(&name.as_str()));
        let pairs: Vec<String> = kept.map(|(name, value)| format!("{}:{value}", serde_json::json!(name))).collect();
        format!("{{{}}}", pairs.join(","))
    };
    let details = others(&["user", "action", "id", "time"]);
    let body = others(&["id", "time"]).replace('\'', "'\\''");
    let curl = format!("curl -H 'Content-Type: application/json' -d '{body}' {base}/api/v1/events");
    Some(Again { user, action, details: if details == "{}" { String::new() } else { details }, curl })
}
