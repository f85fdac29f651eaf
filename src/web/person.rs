//! One user: what was counted, and the events, past and live.
//!
//! Kafka's usual partitioner puts all records of a key into one partition, so only that one is read. The page and each
//! answer of the API look at a bounded piece of it; the page's script lets the count go on behind it.

use std::ops::ControlFlow;

use askama::Template;
use rocket::get;
use rocket::http::Status;
use serde::Serialize;
use serde_json::json;

use super::App;
use super::api::Answer;
use super::guards::Shared;
use super::pages::{Html, ROWS, frame, html};
use super::problem::{Kind, Problem};
use super::query::Parameters;
use super::reading::{self, SCAN, Wanted};
use super::search::{self, FIRST_LOOK, File, Format, Pace, Told};
use super::view::{Broker, Filters, Frame, Query, Row, Stamp, Who, cut, event_html, person, thousands};
use crate::event::Record;
use crate::event::time::parse_ms;
use crate::feed::{Cursor, Dialect, Frames};
use crate::kafka::{self, End, History, HistoryError, Step};
use crate::tally::{Counts, Tally};

#[derive(Template)]
#[template(path = "person.html")]
struct PersonPage {
    frame: Frame,
    name: String,
    /// Queries of the history: this user's events in all partitions.
    everywhere: String,
    found: Option<Found>,
    /// Why nothing is known, as a sentence.
    notice: Option<String>,
}

/// What there is to show of someone.
struct Found {
    partition: i32,
    counts: Counts,
    actions: Vec<Action>,
    scanned: u64,
    total: u64,
    /// Newest first.
    rows: Vec<Row>,
    /// What the stream and the history filter by, as a query.
    filters: String,
    /// After the newest row: where the live stream takes over.
    cursor: String,
    /// Address at which the count goes on, where it is not at its end.
    rest: Option<String>,
}

/// A row of the table of actions.
struct Action {
    name: String,
    events: u64,
    /// Of the most frequent one, in hundredths.
    share: u64,
    /// These events in the history.
    address: String,
}

impl Found {
    /// An action as the page's script fills it in.
    fn blank(&self) -> Action {
        Action { name: String::new(), events: 0, share: 0, address: format!("/history?{}", self.filters) }
    }

    fn first_seen(&self) -> Option<Stamp> {
        self.counts.first_seen.as_deref().and_then(parse_ms).map(Stamp::new)
    }

    fn last_seen(&self) -> Option<Stamp> {
        self.counts.last_seen.as_deref().and_then(parse_ms).map(Stamp::new)
    }

    fn words(&self) -> String {
        let (scanned, total, partition) = (thousands(self.scanned), thousands(self.total), self.partition);
        match (&self.rest, self.total) {
            (Some(_), _) => format!(
                "Looked at {scanned} of {total} records of partition {partition}, the newest; {} so far.",
                events(self.counts.events)
            ),
            (None, 0) => format!("Partition {partition} holds no records."),
            (None, 1) => format!("Looked at the one record of partition {partition}."),
            (None, _) => format!("Looked at all {total} records of partition {partition}."),
        }
    }
}

/// `1,204`; askama gives references.
fn number(number: &u64) -> String {
    thousands(*number)
}

fn events(number: u64) -> String {
    format!("{} {}", thousands(number), if number == 1 { "event" } else { "events" })
}

#[get("/users/<user>")]
pub async fn page(app: Shared, user: &str) -> Result<Html, Problem> {
    let mut everywhere = Query::default();
    everywhere.add("user", user);
    let (found, notice) = match look(&app, user).await {
        Ok(found) => (Some(found), None),
        Err(problem) if matches!(problem.kind, Kind::Unavailable) => (None, Some(problem.detail().to_owned())),
        Err(problem) => return Err(problem),
    };
    let name = cut(user, usize::MAX);
    html(Status::Ok, &PersonPage { frame: frame(&app), name, everywhere: everywhere.text(), found, notice })
}

/// Looks at the newest records of the user's partition.
async fn look(app: &App, user: &str) -> Result<Found, Problem> {
    let (partition, name) = (app.history.partition_of(user.as_bytes())?, user.to_owned());
    let (cursor, query, end, tally, rows) = reading::blocking(app, move |history| {
        // The live stream begins exactly where the count does.
        let ends = Cursor::new(history.bounds()?.into_iter().map(|(_, high)| high).collect::<Vec<_>>());
        let wanted = Wanted::of_user(&name, partition, Some(ends.clone()));
        let query = wanted.query(history, FIRST_LOOK)?;
        let (mut tally, mut rows) = (Tally::default(), Vec::new());
        let end = go_through(history, &wanted, &query, |record| {
            tally.observe(record);
            if rows.len() < ROWS {
                rows.push(Row::new(record));
            }
        })?;
        Ok((ends.to_string(), query, end, tally, rows))
    })
    .await?;
    let filters = Filters { user: vec![user.to_owned()], partition: vec![partition], ..Filters::default() }.query();
    let rest = end.next.and_then(|next| {
        let mut rest = Query::default();
        rest.add("to", &Cursor::new(next).to_string());
        rest.add("limit", &(ROWS - rows.len()).to_string());
        Some(format!("{}/count?{}", person(user)?, rest.text()))
    });
    let counts = tally.counts();
    let most = counts.actions.first().map_or(1, |first| first.events.max(1));
    let action = |(name, events): (&str, u64)| {
        let mut address = Query::default();
        address.add("action", name);
        let address = format!("/history?{filters}&{}", address.text());
        Action { name: cut(name, usize::MAX), events, share: events * 100 / most, address }
    };
    let actions = counts.actions.iter().map(|one| action((&one.action, one.events))).collect();
    let (scanned, total) = (end.scanned, query.total());
    Ok(Found { partition, counts, actions, scanned, total, rows, filters, cursor, rest })
}

/// Goes through a user's records, the newest first.
fn go_through(
    history: &History,
    wanted: &Wanted,
    query: &kafka::Query,
    mut each: impl FnMut(&Record),
) -> Result<End, HistoryError> {
    history.search(
        query,
        |record| wanted.filter.matches(record),
        |step| {
            if let Step::Found(record) = step {
                each(&record);
            }
            ControlFlow::Continue(())
        },
    )
}

/// The page's count, going on: `progress` with the sums so far, `done` or `failed` at its end, and the rows that the page
/// still has room for.
#[get("/users/<user>/count")]
pub async fn count(app: Shared, user: &str, parameters: Parameters) -> Result<File, Problem> {
    let partition = app.history.partition_of(user.as_bytes())?;
    let wanted = Wanted::of_user(user, partition, parameters.cursor("to")?);
    let (query, permit) = search::begin(&app, &wanted).await?;
    let rows = parameters.number("limit", 0..=ROWS)?.unwrap_or(0);
    let format = Counting { pace: Pace::new(&query), tally: Tally::default(), rows };
    Ok(search::events(&app, wanted, query, permit, format))
}

/// Server-Sent Events for the page: sums, and so many rows.
struct Counting {
    pace: Pace,
    tally: Tally,
    rows: usize,
}

impl Format for Counting {
    fn record(&mut self, out: &mut Vec<u8>, record: &Record) {
        self.tally.observe(record);
        if self.rows > 0 {
            self.rows -= 1;
            Frames::data(out, &event_html(record));
        }
    }

    fn tell(&mut self, out: &mut Vec<u8>, told: Told<'_>) -> bool {
        let (name, mut data) = self.pace.told(self.tally.events(), told);
        let mut counts = self.tally.counts();
        // As rows show them.
        counts.actions.iter_mut().for_each(|one| one.action = cut(&one.action, usize::MAX));
        data["counts"] = json!(counts);
        Frames::control(out, Dialect::Html, name, None, &data);
        true
    }
}

#[derive(Serialize)]
struct PersonBody<'a> {
    user: &'a str,
    partition: i32,
    #[serde(flatten)]
    counts: Counts,
    scanned: u64,
    complete: bool,
    next: Option<String>,
}

#[get("/api/v1/users/<user>")]
pub async fn json(app: Shared, user: &str, parameters: Parameters) -> Result<Answer, Problem> {
    let partition = app.history.partition_of(user.as_bytes())?;
    let wanted = Wanted::of_user(user, partition, parameters.cursor("to")?);
    let (end, tally) = reading::blocking(&app, move |history| {
        let query = wanted.query(history, SCAN)?;
        let mut tally = Tally::default();
        let end = go_through(history, &wanted, &query, |record| tally.observe(record))?;
        Ok((end, tally))
    })
    .await?;
    let next = end.next.map(|next| Cursor::new(next).to_string());
    let (counts, scanned, complete) = (tally.counts(), end.scanned, next.is_none());
    let body = PersonBody { user, partition, counts, scanned, complete, next };
    Ok(Answer::json(200, &body).header("Cache-Control", "no-store"))
}
