//! What is in the topic: the history page, searches that take long and tell what they find as they find it, and all of
//! it as a file.
//!
//! A search reads as fast as its client takes what it finds, and ends when the client goes away.

use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::time::{Duration, Instant};

use askama::Template;
use bytes::Bytes;
use futures_util::Stream;
use rocket::get;
use rocket::http::{ContentType, Header};
use rocket::request::Request;
use rocket::response::stream::stream;
use rocket::response::{self, Responder, Response};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::io::StreamReader;

use super::App;
use super::guards::Shared;
use super::pages::{Html, ROWS, frame, html};
use super::problem::{Kind, Problem};
use super::query::Parameters;
use super::reading::{self, Wanted};
use super::view::{Broker, Filters, Frame, Row, Who, event_html, thousands};
use crate::event::time::format_ms;
use crate::event::{Record, json as record_json};
use crate::feed::{Cursor, Dialect, Frames};
use crate::kafka::{End, HistoryError, Query, Step};

/// Records that are looked at before the page is shown; a search that needs more goes on behind it.
pub const FIRST_LOOK: u64 = 50_000;
/// Searches and exports at once; each holds a consumer and a thread.
pub const SEARCHES: usize = 6;
/// Bytes that are handed to the connection at once, about, and how many of those wait for the client.
const CHUNK: usize = 32 * 1024;
const AHEAD: usize = 4;
/// How long a client may take nothing before its search is given up.
const UNTAKEN: Duration = Duration::from_secs(30);
/// Between two signs of how far it got.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// A bounded piece of the topic, `GET /history`.
#[derive(Template)]
#[template(path = "history.html")]
struct HistoryPage<'a> {
    frame: Frame,
    filters: Filters,
    parameters: &'a Parameters,
    limit: usize,
    newest_first: bool,
    /// In the order they are shown.
    rows: Vec<Row>,
    /// Address of the page that follows in that order.
    next: Option<String>,
    /// What is left to look at, where the first look did not find enough.
    search: Option<Search>,
    /// Queries of the exports: all that match, and these rows.
    all: String,
    these: String,
    /// Why something that was asked for is not here, as a sentence.
    notice: Option<String>,
}

/// A search that is not at its end.
struct Search {
    scanned: u64,
    total: u64,
    /// Query that goes on with it.
    rest: String,
}

impl Search {
    fn words(&self, found: usize) -> String {
        let (scanned, total) = (thousands(self.scanned), thousands(self.total));
        format!("Looked at {scanned} of {total} records; {found} found so far.")
    }
}

impl HistoryPage<'_> {
    fn summary(&self) -> String {
        let order = if self.newest_first { "newest first" } else { "oldest first" };
        let count = match self.rows.len() {
            0 => "No events".to_owned(),
            1 => "1 event".to_owned(),
            n => format!("{} events, {order}", thousands(n as u64)),
        };
        match (self.parameters.get("from"), self.parameters.get("to")) {
            (None, None) => count,
            (Some(from), None) => format!("{count}, from {from}"),
            (None, Some(to)) => format!("{count}, before {to}"),
            (Some(from), Some(to)) => format!("{count}, from {from} up to {to}"),
        }
    }

    fn value<'b>(&'b self, name: &'b str) -> &'b str {
        self.parameters.get(name).unwrap_or_default()
    }

    /// The numbers of rows to choose from, the chosen one among them.
    fn limits(&self) -> Vec<(usize, bool)> {
        let mut limits = vec![50, 100, 200, 500, 1000, self.limit];
        limits.sort_unstable();
        limits.dedup();
        limits.into_iter().map(|limit| (limit, limit == self.limit)).collect()
    }

    fn partition(&self) -> String {
        self.filters.partition.first().map(i32::to_string).unwrap_or_default()
    }

    /// Whether anything narrows the search down.
    fn is_narrowed(&self) -> bool {
        !self.filters.is_empty()
            || ["from", "to", "since", "until", "offset"].into_iter().any(|name| self.parameters.get(name).is_some())
    }
}

#[get("/history")]
pub async fn history(app: Shared, parameters: Parameters) -> Result<Html, Problem> {
    let filters = parameters.filters()?;
    let wanted = Wanted::new(&parameters, ROWS, 1000)?;
    let (limit, newest_first) = (wanted.limit, wanted.newest_first);
    let read = reading::blocking(&app, move |history| {
        let query = wanted.query(history, FIRST_LOOK)?;
        Ok((wanted.page(history, &query)?, query))
    });
    let mut page = HistoryPage {
        frame: frame(&app),
        filters,
        parameters: &parameters,
        limit,
        newest_first,
        rows: Vec::new(),
        next: None,
        search: None,
        all: parameters.with(&[("limit", ""), ("last", ""), ("order", order(newest_first))]),
        these: parameters.with(&[("limit", &limit.to_string()), ("order", order(newest_first))]),
        notice: None,
    };
    match read.await {
        Ok((found, query)) => {
            if parameters.get("last").is_none() {
                page.these = within(&parameters, newest_first, &query, limit);
            }
            page.rows = found.records.iter().map(Row::new).collect();
            if let Some(next) = found.end.next {
                let left = limit - page.rows.len();
                page.next = Some(format!("/history?{}", rest(&parameters, newest_first, &next, limit)));
                if left > 0 {
                    let rest = rest(&parameters, newest_first, &next, left);
                    page.search = Some(Search { scanned: found.end.scanned, total: query.total(), rest });
                }
            }
        }
        Err(problem) if matches!(problem.kind, Kind::Unavailable | Kind::NotImplemented) => {
            page.notice = Some(problem.detail().to_owned());
        }
        Err(problem) => return Err(problem),
    }
    html(rocket::http::Status::Ok, &page)
}

fn order(newest_first: bool) -> &'static str {
    if newest_first { "newest" } else { "oldest" }
}

/// The same rows again, whatever has been written since.
fn within(parameters: &Parameters, newest_first: bool, query: &Query, limit: usize) -> String {
    let (from, to) = (Cursor::new(&*query.from).to_string(), Cursor::new(&*query.to).to_string());
    let bounds = [("since", ""), ("until", ""), ("offset", ""), ("from", &*from), ("to", &*to)];
    let limit = limit.to_string();
    parameters.with(&[&bounds[..], &[("order", order(newest_first)), ("limit", &limit)]].concat())
}

/// The query that goes on where another one ended.
fn rest(parameters: &Parameters, newest_first: bool, next: &[i64], limit: usize) -> String {
    let (next, limit) = (Cursor::new(next).to_string(), limit.to_string());
    let bound = if newest_first { "to" } else { "from" };
    parameters.with(&[("order", order(newest_first)), ("last", ""), ("limit", &limit), (bound, &next)])
}

/// The page's search: rows as they are found, `progress` as it goes, `done` or `failed` at its end.
#[get("/history/search")]
pub async fn search(app: Shared, parameters: Parameters) -> Result<File, Problem> {
    let wanted = Wanted::new(&parameters, ROWS, 1000)?;
    let (query, permit) = begin(&app, &wanted).await?;
    let format = Events { pace: Pace::new(&query), found: 0 };
    Ok(events(&app, wanted, query, permit, format))
}

/// A search that a page follows.
pub fn events(app: &App, wanted: Wanted, query: Query, permit: Permit, format: impl Format + 'static) -> File {
    let chunks = run(app, wanted, query, permit, format);
    File { content_type: ContentType::EventStream, name: None, chunks: Box::pin(chunks) }
}

/// Everything that matches, one JSON object a line.
#[get("/api/v1/events.ndjson")]
pub async fn ndjson(app: Shared, parameters: Parameters) -> Result<File, Problem> {
    let format = Ndjson { topic: app.connection.topic().to_owned() };
    export(app, parameters, ContentType::new("application", "x-ndjson"), "ndjson", format).await
}

/// Everything that matches, as RFC 4180 has it.
#[get("/api/v1/events.csv")]
pub async fn csv(app: Shared, parameters: Parameters) -> Result<File, Problem> {
    export(app, parameters, ContentType::CSV.with_params(("charset", "utf-8")), "csv", Csv).await
}

async fn export(
    app: Shared,
    parameters: Parameters,
    content_type: ContentType,
    extension: &str,
    format: impl Format + 'static,
) -> Result<File, Problem> {
    let wanted = Wanted::new(&parameters, usize::MAX, usize::MAX)?;
    let (query, permit) = begin(&app, &wanted).await?;
    let name = format!("{}.{extension}", app.connection.topic());
    let chunks = run(&app, wanted, query, permit, format);
    Ok(File { content_type, name: Some(name), chunks: Box::pin(chunks) })
}

pub type Permit = tokio::sync::OwnedSemaphorePermit;

/// The query, and the right to run it: what can be refused is refused with a status.
pub async fn begin(app: &App, wanted: &Wanted) -> Result<(Query, Permit), Problem> {
    let busy = |_| Problem::new(Kind::Unavailable, format!("{SEARCHES} searches or exports are under way already"));
    let permit = app.searches.clone().try_acquire_owned().map_err(busy)?;
    let wanted = wanted.clone();
    let query = reading::blocking(app, move |history| wanted.query(history, u64::MAX)).await?;
    Ok((query, permit))
}

/// What becomes of the records.
pub trait Format: Send {
    fn head(&self) -> &'static [u8] {
        b""
    }

    fn record(&mut self, out: &mut Vec<u8>, record: &Record);

    /// A sign of life or of the end; false where the format has none.
    fn tell(&mut self, _out: &mut Vec<u8>, _told: Told<'_>) -> bool {
        false
    }
}

#[derive(Clone, Copy)]
pub enum Told<'a> {
    Progress { scanned: u64, next: &'a [i64], reached_ms: Option<i64> },
    Done(&'a End),
    Failed(&'a HistoryError),
}

/// How far and how fast a search gets, for the page.
pub struct Pace {
    total: u64,
    begun: Instant,
}

impl Pace {
    pub fn new(query: &Query) -> Self {
        Pace { total: query.total(), begun: Instant::now() }
    }

    /// The event's name and its data.
    pub fn told(&self, found: u64, told: Told<'_>) -> (&'static str, Value) {
        let total = self.total;
        let rate = |scanned: u64| (scanned as f64 / self.begun.elapsed().as_secs_f64().max(0.001)) as u64;
        let place = |next: &[i64]| Cursor::new(next).to_string();
        match told {
            Told::Progress { scanned, next, reached_ms } => (
                "progress",
                json!({"scanned": scanned, "total": total, "found": found, "rate": rate(scanned),
                    "reached": reached_ms.map(format_ms), "next": place(next)}),
            ),
            Told::Done(End { scanned, next }) => (
                "done",
                json!({"scanned": scanned, "total": total, "found": found, "rate": rate(*scanned),
                    "next": next.as_deref().map(place)}),
            ),
            Told::Failed(error) => ("failed", json!({"detail": error.to_string(), "found": found})),
        }
    }
}

/// Server-Sent Events for the page: rows as they are found.
struct Events {
    pace: Pace,
    found: u64,
}

impl Format for Events {
    fn record(&mut self, out: &mut Vec<u8>, record: &Record) {
        self.found += 1;
        Frames::data(out, &event_html(record));
    }

    fn tell(&mut self, out: &mut Vec<u8>, told: Told<'_>) -> bool {
        let (name, data) = self.pace.told(self.found, told);
        Frames::control(out, Dialect::Html, name, None, &data);
        true
    }
}

struct Ndjson {
    topic: String,
}

impl Format for Ndjson {
    fn record(&mut self, out: &mut Vec<u8>, record: &Record) {
        record_json::write(out, &self.topic, record);
        out.push(b'\n');
    }
}

struct Csv;

impl Format for Csv {
    fn head(&self) -> &'static [u8] {
        super::csv::HEAD
    }

    fn record(&mut self, out: &mut Vec<u8>, record: &Record) {
        super::csv::line(out, record);
    }
}

/// Runs a search on a thread of its own, a little ahead of who takes its chunks.
fn run<F: Format + 'static>(
    app: &App,
    wanted: Wanted,
    query: Query,
    permit: Permit,
    mut format: F,
) -> impl Stream<Item = io::Result<Bytes>> + use<F> {
    let (sender, mut receiver) = mpsc::channel::<io::Result<Bytes>>(AHEAD);
    let (history, closing) = (app.history.clone(), app.closing.clone());
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let send = |chunk| runtime.block_on(sender.send_timeout(chunk, UNTAKEN)).is_ok();
        let (mut out, mut told, mut wanted_on) = (format.head().to_vec(), Instant::now(), true);
        let searched = history.search(
            &query,
            |record| wanted.filter.matches(record),
            |step| {
                let mut ready = false;
                match step {
                    Step::Found(record) => format.record(&mut out, &record),
                    Step::Progress { scanned, next, reached_ms } if told.elapsed() >= TELL_EVERY => {
                        ready = format.tell(&mut out, Told::Progress { scanned, next: &next, reached_ms });
                    }
                    Step::Progress { .. } => {}
                }
                if ready || out.len() >= CHUNK {
                    told = Instant::now();
                    wanted_on = send(Ok(std::mem::take(&mut out).into()));
                }
                wanted_on &= !sender.is_closed() && !closing.is_cancelled();
                if wanted_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            },
        );
        let broken = match &searched {
            // A file that ends here must not look whole.
            _ if !wanted_on => Some("the search was broken off".to_owned()),
            Ok(end) => {
                format.tell(&mut out, Told::Done(end));
                None
            }
            Err(error) => (!format.tell(&mut out, Told::Failed(error))).then(|| error.to_string()),
        };
        send(Ok(out.into()));
        if let Some(why) = broken {
            tracing::debug!(why, "a search broke off");
            send(Err(io::Error::other(why)));
        }
    });
    stream! {
        while let Some(chunk) = receiver.recv().await {
            yield chunk;
        }
    }
}

/// An answer that is as long as what is found.
pub struct File {
    content_type: ContentType,
    /// It is to be kept under this name.
    name: Option<String>,
    chunks: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>,
}

impl<'r> Responder<'r, 'static> for File {
    fn respond_to(self, _: &'r Request<'_>) -> response::Result<'static> {
        let mut builder = Response::build();
        builder.header(self.content_type).header(Header::new("Cache-Control", "no-store, no-transform"));
        builder.header(Header::new("X-Accel-Buffering", "no"));
        if let Some(name) = self.name {
            // A topic's name is of [A-Za-z0-9._-].
            builder.header(Header::new("Content-Disposition", format!("attachment; filename=\"{name}\"")));
        }
        builder.streamed_body(StreamReader::new(self.chunks)).max_chunk_size(CHUNK).ok()
    }
}
