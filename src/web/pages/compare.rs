//! The page that compares two records field by field. It works by its address alone.

use askama::Template;
use rocket::http::Status;
use rocket::{State, get};

use super::{Html, html};
use crate::bounds::Address;
use crate::event::Record;
use crate::search::Searches;
use crate::web::openapi;
use crate::web::problem::{Kind, Problem};
use crate::web::query::{Parameters, bad};
use crate::web::views::{
    BrokerStatus, ComparedField, Listing, PageFrame, Row, RowUser, Stamp, Zone, compare, record_page, sentence, step,
};

#[derive(Template)]
#[template(path = "compare.html")]
struct ComparePage {
    frame: PageFrame,
    sides: [Side; 2],
    comparison: Option<Comparison>,
    /// Why there is no comparison, as a sentence.
    notice: Option<String>,
}

/// The place of one of the records, as it was typed.
struct Side {
    name: &'static str,
    label: &'static str,
    typed: String,
    /// What is wrong with it, as a sentence.
    error: Option<String>,
}

/// Two records that were read.
struct Comparison {
    heads: [Head; 2],
    /// The time from the first to the second: `+19 s`.
    step: Option<String>,
    fields: Vec<ComparedField>,
}

/// The head of a record's column.
struct Head {
    address: String,
    who: String,
    action: String,
    time: Option<Stamp>,
    place: String,
}

/// What a place must be.
const EXPECTED: &str = "must be a partition and an offset, such as 2-3525";

impl ComparePage {
    /// The page without records.
    fn new(frame: PageFrame, parameters: &Parameters) -> Self {
        let sides = [Side::new("a", "First", parameters), Side::new("b", "Second", parameters)];
        ComparePage { frame, sides, comparison: None, notice: None }
    }

    /// The number of fields that differ, in words.
    fn words(&self, fields: &[ComparedField]) -> String {
        let differ = fields.iter().filter(|field| !field.is_same).count();
        match (differ, fields.len()) {
            (0, _) => "All fields are the same.".to_owned(),
            (differ, all) => format!("{differ} of {all} fields differ."),
        }
    }

    fn is_wrong(&self) -> bool {
        self.sides.iter().any(|side| side.error.is_some())
    }
}

impl Side {
    fn new(name: &'static str, label: &'static str, parameters: &Parameters) -> Self {
        let typed = parameters.get(name).unwrap_or_default().to_owned();
        let is_wrong = !typed.is_empty() && place_of(&typed).is_none();
        let error = is_wrong.then(|| format!("{label} {EXPECTED}."));
        Side { name, label, typed, error }
    }
}

impl Head {
    fn new(record: &Record, zone: &Zone) -> Self {
        let row = Row::new(record, &Listing::default().in_zone(zone));
        let who = match row.user {
            RowUser::User(name) | RowUser::Key(name) => name,
            RowUser::Missing => String::new(),
        };
        Head {
            address: record_page(row.partition, row.offset),
            who,
            action: if row.action.is_empty() { row.note } else { row.action },
            time: row.time,
            place: format!("{} · {}", row.partition, row.offset),
        }
    }
}

impl Comparison {
    fn new([a, b]: [&Record; 2], zone: &Zone) -> Self {
        let step = b.time_ms().zip(a.time_ms()).map(|(b, a)| step(b.saturating_sub(a)));
        Comparison { heads: [Head::new(a, zone), Head::new(b, zone)], step, fields: compare(a, b) }
    }
}

/// Parses `2-3525`, a partition and an offset.
fn place_of(text: &str) -> Option<(i32, i64)> {
    let (partition, offset) = text.split_once('-')?;
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(partition) && is_number(offset)).then_some(())?;
    Some((partition.parse().ok()?, offset.parse().ok()?))
}

/// Two records, field by field; those that differ come first
#[utoipa::path(
    operation_id = "comparePage",
    tag = "pages",
    params(openapi::Compared),
    responses(openapi::Html, openapi::BadParameter, openapi::NotFound, openapi::ReadUnavailable,)
)]
#[get("/compare")]
pub async fn page(
    searches: &State<Searches>,
    frame: PageFrame,
    client: Address,
    parameters: Parameters,
) -> Result<Html, Problem> {
    let mut page = ComparePage::new(frame, &parameters);
    if let Some(side) = page.sides.iter().find(|side| side.error.is_some()) {
        return Err(bad(side.name, format!("{EXPECTED}, not \"{}\"", side.typed)));
    }
    if let [Some(first), Some(second)] = [0, 1].map(|index| place_of(&page.sides[index].typed)) {
        let (first, second) = (read(searches, client, first).await?, read(searches, client, second).await?);
        page.comparison = Some(Comparison::new([&first, &second], &page.frame.zone));
    }
    html(Status::Ok, &page)
}

async fn read(searches: &Searches, client: Address, (partition, offset): (i32, i64)) -> Result<Record, Problem> {
    let read = searches.record(client, partition, offset, |found| found.map(|(record, _)| record));
    // Two records need no permit while they are compared: a record is at most as large as a message.
    let (record, _) = read.await?;
    let detail = format!("there is no record at partition {partition}, offset {offset}, or Kafka no longer keeps it");
    record.ok_or_else(|| Problem::new(Kind::NotFound, detail))
}

/// Returns the page with the form as it was sent and what is wrong, for people.
pub fn with_error(frame: PageFrame, parameters: &Parameters, problem: &Problem) -> Option<String> {
    let mut page = ComparePage::new(frame, parameters);
    page.notice = (!page.is_wrong()).then(|| sentence(problem.detail()));
    page.render().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_partition_and_an_offset() {
        assert_eq!(place_of("2-3525"), Some((2, 3525)));
        for wrong in ["", "2", "-", "2-", "-1", "+2-1", "2-3-4", "a-b", "2-99999999999999999999"] {
            assert_eq!(place_of(wrong), None, "{wrong}");
        }
    }
}
