//! The page of one record: its content, its neighbours, and ways to copy it or send it again after a question.

use askama::Template;
use footfall_core::query_string::QueryBuilder;
use rocket::{State, get};

use super::Base;
use crate::bounds::{Address, SHOWN_BYTES, SHOWN_CHARS};
use crate::event::{Record, json};
use crate::feed::Cursor;
use crate::kafka::Marks;
use crate::search::{Neighbour, Neighbours, Searches};
use crate::web::long_answer::{LongBody, Whole};
use crate::web::openapi;
use crate::web::problem::{Kind, Problem};
use crate::web::query::Parameters;
use crate::web::views::{
    BrokerStatus, ComparedField, FieldTree, Filters, Listing, PageFrame, Row, RowUser, Stamp, Zone, compare,
    compare_page, history_page, is_text, members, record_page, size, step, thousands,
};

#[derive(Template)]
#[template(path = "record.html")]
struct RecordPage {
    frame: PageFrame,
    row: Row,
    /// The history from the event's time on.
    from_time: Option<String>,
    /// Kafka's timestamp, and the history of the record's partition from it on.
    timestamp: Option<(Stamp, String)>,
    /// The time from the event to Kafka: `+1.1 s`; `None` if one of them is not known.
    delay: Option<String>,
    /// Whether the event's time is later than Kafka's: the clocks disagree.
    is_early: bool,
    key: Option<String>,
    id: Option<String>,
    headers: Vec<(String, String)>,
    fields: Option<FieldTree>,
    /// Whether some fields are left out or cut.
    fields_cut: bool,
    value: String,
    /// What the value is, with its size: `31 B`, `binary, 18 B`.
    value_words: String,
    /// Whether only a part of the value is shown.
    is_cut: bool,
    /// The record as in the API.
    json: String,
    previous: Option<i64>,
    following: Option<i64>,
    /// The records of the same user; `None` if they were not asked for or the record has no user.
    around: Option<Around>,
    again: Option<Again>,
}

/// The records of the same user in the same partition, before and after this one.
struct Around {
    /// The nearest one on each side, with an arrow and a word for the side.
    nearest: [(char, &'static str, Nearest); 2],
    /// The fields that differ from those of the previous one.
    differences: Vec<ComparedField>,
    /// The page that compares the two.
    compare: Option<String>,
}

/// The nearest record of the same user on one side.
enum Nearest {
    Row {
        address: String,
        action: String,
        time: Option<Stamp>,
        offset: i64,
    },
    None,
    /// Not among so many records; the history continues.
    Farther {
        looked_at: String,
        history: String,
    },
    Unknown,
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
    params(openapi::Place, openapi::Filter, openapi::Columns, openapi::Alone),
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
    let around = !parameters.flag("alone");
    let place = place_of(partition, offset)?;
    let read = searches.record_among(client, place, around, move |found| {
        let (record, bounds, neighbours) = found?;
        Some(LongBody::page(&RecordPage::new(frame, &record, bounds, neighbours, &base.0, &listing)))
    });
    let (body, permit) = read.await?;
    Ok(Whole::html(searches, client, body.ok_or_else(|| missing(partition, offset))??, permit).await?)
}

/// Parses partition and offset; what is no number has no record.
fn place_of(partition: &str, offset: &str) -> Result<(i32, i64), Problem> {
    match (partition.parse(), offset.parse()) {
        (Ok(partition), Ok(offset)) => Ok((partition, offset)),
        _ => Err(missing(partition, offset)),
    }
}

fn missing(partition: &str, offset: &str) -> Problem {
    let detail = format!("there is no record at partition {partition}, offset {offset}, or Kafka no longer keeps it");
    Problem::new(Kind::NotFound, detail)
}

/// The question before an event is sent again.
#[derive(Template)]
#[template(path = "again.html")]
struct AgainPage {
    frame: PageFrame,
    record: String,
    again: Again,
}

/// Asks before the event of a record is sent again
#[utoipa::path(
    operation_id = "againPage",
    tag = "pages",
    params(openapi::Place),
    responses(openapi::Html, openapi::NotFound, openapi::ReadUnavailable,)
)]
#[get("/events/<partition>/<offset>/again")]
pub async fn again_page(
    searches: &State<Searches>,
    frame: PageFrame,
    client: Address,
    base: Base,
    partition: &str,
    offset: &str,
) -> Result<Whole, Problem> {
    let (number, place) = place_of(partition, offset)?;
    let read = searches.record(client, number, place, move |found| {
        let (record, _) = found?;
        let again = again(&record, &base.0)?;
        Some(LongBody::page(&AgainPage { frame, record: record_page(number, place), again }))
    });
    let (body, permit) = read.await?;
    Ok(Whole::html(searches, client, body.ok_or_else(|| missing(partition, offset))??, permit).await?)
}

impl RecordPage {
    /// Makes the page of a record; `bounds` are the first and the next offset of its partition.
    fn new(
        frame: PageFrame,
        record: &Record,
        (low, high): Marks,
        neighbours: Option<Neighbours>,
        base: &str,
        listing: &Listing,
    ) -> Self {
        let mut whole = Vec::new();
        json::write(&mut whole, &frame.topic, record);
        let value = shown(record);
        let is_cut = value.chars().count() > SHOWN_CHARS;
        let place = record.offset();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let row = Row::new(record, listing);
        let id = record.id().map(|id| id.into_owned());
        let delay = delay(record);
        let (fields, fields_cut) = FieldTree::of(record, listing).unzip();
        RecordPage {
            from_time: record.time_ms().map(|ms| listing.history_from(listing.filters.clone(), ms)),
            timestamp: record.timestamp_ms().map(|ms| {
                let own = Filters { partition: vec![record.partition()], ..listing.filters.clone() };
                (Stamp::new(ms, &listing.zone), listing.history_from(own, ms))
            }),
            delay: delay.map(step),
            is_early: delay.is_some_and(|ms| ms < 0),
            key: record.key().map(text),
            headers: record
                .headers()
                .filter(|(name, value)| *name != "ce_id" || value.map(text) != id)
                .map(|(name, value)| (name.to_owned(), value.map_or_else(|| "null".to_owned(), text)))
                .collect(),
            id,
            fields,
            fields_cut: fields_cut.unwrap_or(false),
            value: if is_cut { value.chars().take(SHOWN_CHARS).collect() } else { value },
            value_words: value_words(&row.note, record.value()),
            is_cut,
            json: text(&whole),
            previous: (place > low).then(|| place - 1),
            following: (place + 1 < high).then_some(place + 1),
            around: neighbours.map(|neighbours| Around::new(record, &neighbours, &listing.zone)),
            again: again(record, base),
            frame,
            row,
        }
    }

    /// What happened, as parts of a sentence: who, what and, in the template, when.
    fn subject(&self) -> Vec<String> {
        let who = match &self.row.user {
            RowUser::User(name) | RowUser::Key(name) => name.clone(),
            RowUser::Missing => String::new(),
        };
        let parts = [who, self.row.action.clone(), self.row.note.clone()];
        let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        match parts.is_empty() {
            true => vec![format!("Partition {}, offset {}", self.row.partition, self.row.offset)],
            false => parts,
        }
    }

    /// `Ann · checkout · 12:04:31.120`
    fn title(&self) -> String {
        let time = self.row.time.as_ref().map(|time| time.to_millisecond().to_owned());
        self.subject().into_iter().chain(time).collect::<Vec<_>>().join(" · ")
    }

    /// The address of this page and what is below it.
    fn address(&self) -> String {
        record_page(self.row.partition, self.row.offset)
    }

    fn at(&self, offset: &i64) -> String {
        record_page(self.row.partition, *offset)
    }
}

/// Returns the time from the event to Kafka, in milliseconds. An event without a time of its own has Kafka's.
fn delay(record: &Record) -> Option<i64> {
    let delay = record.timestamp_ms()?.checked_sub(record.time_ms()?)?;
    (delay != 0).then_some(delay)
}

fn value_words(note: &str, value: Option<&[u8]>) -> String {
    let size = size(value.unwrap_or_default().len());
    match note {
        "" => size,
        "tombstone" | "empty value" => note.to_owned(),
        note if note.ends_with(&size) => note.to_owned(),
        note => format!("{note}, {size}"),
    }
}

impl Around {
    fn new(record: &Record, neighbours: &Neighbours, zone: &Zone) -> Self {
        let (differences, compare) = match &neighbours.before {
            Neighbour::Found(before) => {
                let mut differences = compare(before, record);
                differences.retain(|field| !field.is_same);
                (differences, Some(compare_page(before, record)))
            }
            _ => (Vec::new(), None),
        };
        Around {
            nearest: [
                ('←', "earlier", Nearest::new(record, &neighbours.before, "newest", zone)),
                ('→', "later", Nearest::new(record, &neighbours.after, "oldest", zone)),
            ],
            differences,
            compare,
        }
    }
}

impl Nearest {
    /// Describes a neighbour of a record, and where to look further in an order of the history.
    fn new(record: &Record, neighbour: &Neighbour, order: &str, zone: &Zone) -> Self {
        match neighbour {
            Neighbour::Found(found) => Nearest::Row {
                address: record_page(found.partition(), found.offset()),
                action: Row::new(found, &Listing::default()).action,
                time: found.time_ms().map(|ms| Stamp::new(ms, zone)),
                offset: found.offset(),
            },
            Neighbour::None => Nearest::None,
            Neighbour::Farther(scanned) => {
                Nearest::Farther { looked_at: thousands(*scanned), history: user_history(record, order) }
            }
            Neighbour::Unknown => Nearest::Unknown,
        }
    }
}

/// Returns the history of a record's user in its partition, in an order from the record on.
fn user_history(record: &Record, order: &str) -> String {
    let mut query = QueryBuilder::default();
    query.add("user", record.user_and_action().user.as_deref().unwrap_or_default());
    query.add("partition", &record.partition().to_string());
    let is_newest_first = order == "newest";
    let mut place = vec![0; record.partition() as usize + 1];
    place[record.partition() as usize] = record.offset() + i64::from(!is_newest_first);
    query.add(if is_newest_first { "to" } else { "from" }, &Cursor::new(place).to_string());
    query.add("order", order);
    history_page(query.text())
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
