//! The page of one record: its content, its neighbours, and ways to copy it or send it again.

use askama::Template;
use rocket::{State, get};

use super::Base;
use crate::bounds::{Address, SHOWN_BYTES, SHOWN_CHARS};
use crate::event::{Record, json};
use crate::kafka::{Connection, Marks};
use crate::search::Searches;
use crate::web::long_answer::{LongBody, Whole};
use crate::web::openapi;
use crate::web::problem::{Kind, Problem};
use crate::web::views::{BrokerStatus, PageFrame, Row, RowUser, is_text, members, size};

#[derive(Template)]
#[template(path = "record.html")]
struct RecordPage {
    frame: PageFrame,
    row: Row,
    /// Kafka's timestamp.
    timestamp: Option<crate::web::views::Stamp>,
    key: Option<String>,
    id: Option<String>,
    headers: Vec<(String, String)>,
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
    params(openapi::Place),
    responses(openapi::Html, openapi::NotFound, openapi::ReadUnavailable,)
)]
#[get("/events/<partition>/<offset>")]
pub async fn record(
    searches: &State<Searches>,
    connection: &State<Connection>,
    frame: PageFrame,
    client: Address,
    base: Base,
    partition: &str,
    offset: &str,
) -> Result<Whole, Problem> {
    let detail = format!("there is no record at partition {partition}, offset {offset}, or Kafka no longer keeps it");
    let missing = Problem::new(Kind::NotFound, detail);
    let (Ok(number), Ok(place)) = (partition.parse::<i32>(), offset.parse::<i64>()) else { return Err(missing) };
    let topic = connection.topic().to_owned();
    let read = searches.record(client, number, place, move |found| {
        let (record, bounds) = found?;
        Some(LongBody::page(&RecordPage::new(frame, &topic, &record, bounds, &base.0)))
    });
    let (body, permit) = read.await?;
    Ok(Whole::html(searches, client, body.ok_or(missing)??, permit).await?)
}

impl RecordPage {
    /// Renders the page of a record; `bounds` are the first and the next offset of its partition.
    fn new(frame: PageFrame, topic: &str, record: &Record, (low, high): Marks, base: &str) -> Self {
        let mut whole = Vec::new();
        json::write(&mut whole, topic, record);
        let value = shown(record);
        let is_cut = value.chars().count() > SHOWN_CHARS;
        let place = record.offset();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        RecordPage {
            frame,
            row: Row::new(record),
            timestamp: record.timestamp_ms().map(crate::web::views::Stamp::new),
            key: record.key().map(text),
            id: record.id().map(|id| id.into_owned()),
            headers: record
                .headers()
                .map(|(name, value)| (name.to_owned(), value.map_or_else(|| "null".to_owned(), text)))
                .collect(),
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
