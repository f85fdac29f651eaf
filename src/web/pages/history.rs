//! The history page, and the search that continues behind it and sends matches as it finds them.

use askama::Template;
use footfall_core::query_string::BadParameter;
use rocket::Either;
use rocket::response::Redirect;
use rocket::{State, get};

use super::progress::SearchProgress;
use super::suggestions::Suggestions;
use super::{ROWS, to_condition};
use crate::bounds::{Address, FIRST_LOOK};
use crate::event::Record;
use crate::feed::{Cursor, Feed, Frames};
use crate::kafka::HistoryRange;
use crate::search::{ExportFormat, Progress, RangeReader, SearchError, SearchRequest, Searches};
use crate::web::api::history::request;
use crate::web::guards::RequestId;
use crate::web::long_answer::{LongBody, Streamed, Whole};
use crate::web::openapi;
use crate::web::problem::{Kind, Problem};
use crate::web::query::Parameters;
use crate::web::views::{
    BrokerStatus, Listing, PageFrame, Row, RowUser, event_html, history_page, sentence, thousands,
};

/// A bounded piece of the topic, `GET /history`.
#[derive(Template)]
#[template(path = "history.html")]
struct HistoryPage {
    frame: PageFrame,
    listing: Listing,
    suggestions: Suggestions,
    parameters: Parameters,
    limit: usize,
    newest_first: bool,
    /// In the order of the page.
    rows: Vec<Row>,
    /// Address of the next page in that order.
    next: Option<String>,
    /// The rest of the search, if the first part did not find enough.
    search: Option<Search>,
    /// Queries of the exports: all matches, and these rows.
    all: String,
    these: String,
    /// Why requested records are missing, as a sentence.
    notice: Option<String>,
}

/// A search that is not finished.
struct Search {
    scanned: u64,
    total: u64,
    /// The range where it continues.
    rest: String,
}

impl Search {
    fn words(&self, found: usize) -> String {
        let (scanned, total) = (thousands(self.scanned), thousands(self.total));
        format!("Searched {scanned} of {total} records; {found} found so far.")
    }
}

impl HistoryPage {
    /// A page without records.
    fn new(frame: PageFrame, parameters: Parameters, request: &SearchRequest) -> Result<Self, Problem> {
        let order = order(request.is_newest_first());
        let limit = request.limit.to_string();
        Ok(HistoryPage {
            frame,
            listing: listing(&parameters)?,
            suggestions: Suggestions::default(),
            limit: request.limit,
            newest_first: request.is_newest_first(),
            rows: Vec::new(),
            next: None,
            search: None,
            all: parameters.with(&[("limit", ""), ("last", ""), ("order", order), ("col", "")]),
            these: parameters.with(&[("limit", &limit), ("order", order), ("col", "")]),
            notice: None,
            parameters,
        })
    }

    /// Reads the rows, and renders them. Blocks.
    fn read(mut self, feed: &Feed, reader: RangeReader<'_>) -> Result<Result<LongBody, Problem>, SearchError> {
        let (parameters, newest_first, limit) = (self.parameters.clone(), self.newest_first, self.limit);
        let page = reader.page(|record| {
            self.rows.push(Row::new(&record, &self.listing));
            record.size()
        })?;
        self.suggestions = Suggestions::of(feed);
        if parameters.get("last").is_none() {
            self.these = within(&parameters, newest_first, &page.range, limit);
        }
        if let Some(next) = &page.end.next {
            let left = limit - self.rows.len();
            self.next = Some(history_page(rest(&parameters, newest_first, next, limit)));
            if left > 0 {
                let rest = rest(&parameters, newest_first, next, left);
                self.search = Some(Search { scanned: page.end.scanned, total: page.total(), rest });
            }
        }
        Ok(LongBody::page(&self))
    }

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

    /// The numbers of rows to choose from, including the chosen one.
    fn limits(&self) -> Vec<(usize, bool)> {
        let mut limits = vec![50, 100, 200, 500, 1000, self.limit];
        limits.sort_unstable();
        limits.dedup();
        limits.into_iter().map(|limit| (limit, limit == self.limit)).collect()
    }

    fn partition(&self) -> String {
        self.listing.filters.partition.first().map(i32::to_string).unwrap_or_default()
    }

    /// Whether any filter or bound is set.
    fn is_narrowed(&self) -> bool {
        !self.listing.filters.is_empty()
            || ["from", "to", "since", "until", "offset"].into_iter().any(|name| self.parameters.get(name).is_some())
    }
}

/// The history page: a page of the topic's records, and a search through the rest
#[utoipa::path(
    operation_id = "historyPage",
    tag = "pages",
    params(openapi::HistoryPage, openapi::Columns, openapi::TypedCondition),
    responses(
        openapi::HtmlOrNotice,
        (status = 303, description = "To the page with `field`, `op` and `value` as `f`.", headers(("Location" = String))),
        openapi::BadParameter,
    )
)]
#[get("/history")]
pub async fn page(
    searches: &State<Searches>,
    feed: &State<Feed>,
    frame: PageFrame,
    client: Address,
    parameters: Parameters,
) -> Result<Either<Redirect, Whole>, Problem> {
    if let Some(to) = to_condition("/history", &parameters) {
        return Ok(Either::Left(to));
    }
    let request = request(&parameters, ROWS, 1000)?;
    let page = HistoryPage::new(frame.clone(), parameters.clone(), &request)?;
    let without_records = HistoryPage::new(frame, parameters, &request)?;
    match answer(searches, feed, client, request, page).await {
        Err(problem) if matches!(problem.kind, Kind::Unavailable | Kind::NotImplemented) => {
            let notice = Some(sentence(problem.detail()));
            Ok(Either::Right(Whole::small_html(LongBody::page(&HistoryPage { notice, ..without_records })?)))
        }
        answer => answer.map(Either::Right),
    }
}

async fn answer(
    searches: &Searches,
    feed: &Feed,
    client: Address,
    request: SearchRequest,
    page: HistoryPage,
) -> Result<Whole, Problem> {
    let feed = feed.clone();
    let (body, permit) = searches.read(client, request, FIRST_LOOK, move |reader| page.read(&feed, reader)).await?;
    Ok(Whole::html(searches, client, body?, permit).await?)
}

/// The filters and columns of the page. Its place in the topic does not stay when they change.
fn listing(parameters: &Parameters) -> Result<Listing, BadParameter> {
    Listing::new("/history", parameters, &["from", "to", "field", "op", "value"])
}

fn order(newest_first: bool) -> &'static str {
    if newest_first { "newest" } else { "oldest" }
}

/// Returns a query for the same rows, whatever is written later.
fn within(parameters: &Parameters, newest_first: bool, range: &HistoryRange, limit: usize) -> String {
    let (from, to) = (Cursor::new(&*range.from).to_string(), Cursor::new(&*range.to).to_string());
    let bounds = [("since", ""), ("until", ""), ("offset", ""), ("col", ""), ("from", &*from), ("to", &*to)];
    let limit = limit.to_string();
    parameters.with(&[&bounds[..], &[("order", order(newest_first)), ("limit", &limit)]].concat())
}

/// Returns the query that continues a search.
fn rest(parameters: &Parameters, newest_first: bool, next: &[i64], limit: usize) -> String {
    let (next, limit) = (Cursor::new(next).to_string(), limit.to_string());
    let bound = if newest_first { "to" } else { "from" };
    parameters.with(&[("order", order(newest_first)), ("last", ""), ("limit", &limit), (bound, &next)])
}

/// The history page's search, as Server-Sent Events
///
/// `data` is a row of HTML. Control events: `progress`, `done`, `failed`. May change in any version.
#[utoipa::path(
    operation_id = "searchHistory",
    tag = "pages",
    params(openapi::HistoryPage, openapi::Columns),
    responses(
        (
            status = 200,
            description = "Matches, until the search ends or the client disconnects.",
            content_type = "text/event-stream",
            body = openapi::SearchEvent,
        ),
        openapi::SearchFailures,
    )
)]
#[get("/history/search")]
pub async fn search(
    searches: &State<Searches>,
    client: Address,
    id: RequestId,
    parameters: Parameters,
) -> Result<Streamed, Problem> {
    let request = request(&parameters, ROWS, 1000)?;
    let export = searches.export(client, request, id.0).await?;
    let listing = listing(&parameters)?;
    let format = Rows { listing, progress: SearchProgress::new(export.range()), found: 0 };
    Ok(Streamed::events(export.run(format)))
}

/// Server-Sent Events for the page: rows as they are found.
struct Rows {
    listing: Listing,
    progress: SearchProgress,
    found: u64,
}

impl ExportFormat for Rows {
    fn record(&mut self, out: &mut Vec<u8>, record: &Record) {
        self.found += 1;
        Frames::data(out, &event_html(record, &self.listing));
    }

    fn report(&mut self, out: &mut Vec<u8>, progress: Progress<'_>) -> bool {
        self.progress.write(out, self.found, None, progress);
        true
    }
}
