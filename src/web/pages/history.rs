//! The history page, and the search that continues behind it and sends matches as it finds them.

use std::sync::Arc;

use askama::Template;
use footfall_core::query_string::BadParameter;
use rocket::Either;
use rocket::response::Redirect;
use rocket::{State, get};

use super::histogram::Histogram;
use super::progress::SearchProgress;
use super::suggestions::Suggestions;
use super::wrong::separate;
use super::zone::explicit_times;
use super::{history_request, to_condition};
use crate::bounds::{Address, FIRST_LOOK};
use crate::event::Record;
use crate::feed::{Cursor, Feed, Frames};
use crate::kafka::{History, HistoryRange};
use crate::search::{ExportFormat, Progress, RangeReader, SearchError, SearchRequest, Searches};
use crate::web::guards::RequestId;
use crate::web::long_answer::{LongBody, Streamed, Whole};
use crate::web::openapi;
use crate::web::problem::{Kind, Problem};
use crate::web::query::Parameters;
use crate::web::views::{
    BrokerStatus, Listing, PageFrame, Row, RowUser, Stamp, event_html, history_page, sentence, thousands,
};

/// Periods up to now that the page offers, and their `since`.
const PERIODS: [(&str, &str); 7] =
    [("5m", "-5m"), ("15m", "-15m"), ("1h", "-1h"), ("6h", "-6h"), ("24h", "-24h"), ("7d", "-168h"), ("all", "")];

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
    /// The query of the histogram, and the histogram itself if the page was asked for it.
    histogram: String,
    shown: Option<Histogram>,
    /// The times of the rows by which they were found, in milliseconds since 1970: the histogram counts them.
    times: Vec<i64>,
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
            listing: listing(&parameters)?.in_zone(&frame.zone),
            frame,
            suggestions: Suggestions::default(),
            limit: request.limit,
            newest_first: request.is_newest_first(),
            rows: Vec::new(),
            next: None,
            search: None,
            histogram: parameters.with(&[("col", ""), ("limit", ""), ("last", ""), ("chart", "")]),
            shown: None,
            times: Vec::new(),
            all: parameters.with(&[("limit", ""), ("last", ""), ("order", order), ("col", ""), ("chart", "")]),
            these: parameters.with(&[("limit", &limit), ("order", order), ("col", ""), ("chart", "")]),
            notice: None,
            parameters,
        })
    }

    /// The page with the form as it was sent, and what is wrong in it; `None` if that is not in the form. It keeps
    /// everything that is right.
    fn with_errors(frame: PageFrame, parameters: &Parameters) -> Option<Self> {
        let page_of = |parameters: &Parameters| {
            let request = history_request(parameters)?;
            HistoryPage::new(frame.clone(), parameters.clone(), &request)
        };
        let (mut page, wrong) = separate(parameters, page_of)?;
        let notice = (!wrong.is_empty()).then(|| "Nothing was searched, because a filter is wrong.".to_owned());
        page.listing.wrong = wrong;
        Some(HistoryPage { notice, ..page })
    }

    /// Reads the rows, and renders them. Blocks.
    fn read(
        mut self,
        history: &History,
        feed: &Feed,
        reader: RangeReader<'_>,
    ) -> Result<Result<LongBody, Problem>, SearchError> {
        let (parameters, newest_first, limit) = (self.parameters.clone(), self.newest_first, self.limit);
        let page = reader.page(|record| {
            self.times.extend(history.time_ms(&record));
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

    /// How many events the page shows, and whether there are more.
    fn summary(&self) -> String {
        let order = if self.newest_first { "newest first" } else { "oldest first" };
        let rows = self.rows.len() as u64;
        let count = match (rows, &self.search, &self.next) {
            _ if self.notice.is_some() => return String::new(),
            (0, Some(_), _) => "Searching".to_owned(),
            (0, None, _) => "No events".to_owned(),
            (_, Some(_), _) => format!("{} found so far, {order}", thousands(rows)),
            (_, None, Some(_)) => format!("{} shown, {order}; more below", thousands(rows)),
            (1, None, None) => "1 event".to_owned(),
            (_, None, None) => format!("{} events, {order}", thousands(rows)),
        };
        match (self.parameters.get("from"), self.parameters.get("to")) {
            (None, None) => count,
            (Some(from), None) => format!("{count}, from {from}"),
            (None, Some(to)) => format!("{count}, before {to}"),
            (Some(from), Some(to)) => format!("{count}, from {from} up to {to}"),
        }
    }

    /// How many events the export of all matches has, as far as that is known: `212`, `≥ 50`.
    fn exported(&self) -> String {
        let rows = thousands(self.rows.len() as u64);
        if self.rows.is_empty() && self.next.is_some() {
            return "…".to_owned();
        }
        if self.next.is_some() { format!("≥ {rows}") } else { rows }
    }

    /// The times of the rows for the script, as `1795435200000,…`.
    fn row_times(&self) -> String {
        self.times.iter().map(i64::to_string).collect::<Vec<_>>().join(",")
    }

    /// The address of this page with its histogram, for browsers without script.
    fn with_histogram(&self) -> String {
        history_page(self.parameters.with(&[("chart", "1")]))
    }

    /// The address of this page.
    fn again(&self) -> String {
        history_page(self.parameters.with(&[]))
    }

    /// Periods to choose, with their address, and whether the page shows it.
    fn periods(&self) -> Vec<(&'static str, String, bool)> {
        let period = |(name, since): (&'static str, &str)| {
            let range = [("since", since), ("until", ""), ("from", ""), ("to", ""), ("offset", "")];
            (name, history_page(self.parameters.with(&range)), self.is_within(since))
        };
        PERIODS.into_iter().map(period).collect()
    }

    /// Whether the range of the page is a period up to now; `""` is everything.
    fn is_within(&self, since: &str) -> bool {
        self.value("since") == since && self.value("until").is_empty() && !self.is_placed()
    }

    /// Whether the range starts or ends at an offset.
    fn is_placed(&self) -> bool {
        ["from", "to", "offset"].into_iter().any(|name| self.parameters.get(name).is_some())
    }

    /// The range that is chosen, in words.
    fn range_words(&self) -> String {
        let bound = |name| match self.parameters.time(name) {
            Ok(Some(ms)) if self.is_absolute(name) => Stamp::new(ms, &self.frame.zone).to_second(),
            _ => self.value(name).to_owned(),
        };
        let named = PERIODS.into_iter().find(|(_, since)| self.is_within(since)).map(|(name, _)| name);
        match (named, self.value("since"), self.value("until")) {
            (Some("all"), ..) => "All times".to_owned(),
            (Some(name), ..) => format!("Last {name}"),
            (None, "", "") => "Range".to_owned(),
            (None, _, "") => format!("{} – now", bound("since")),
            (None, "", _) => format!("until {}", bound("until")),
            (None, ..) => format!("{} – {}", bound("since"), bound("until")),
        }
    }

    /// Whether a bound is a time and not a duration ago, or what was typed in its place.
    fn is_absolute(&self, name: &str) -> bool {
        !self.value(name).starts_with('-') && self.listing.wrong.of(name).is_none()
    }

    /// Whether a field of the range's popover is wrong.
    fn is_range_wrong(&self) -> bool {
        ["since", "until", "partition", "offset", "order", "limit"]
            .into_iter()
            .any(|name| self.listing.wrong.of(name).is_some())
    }

    /// The value of the input for a bound: `2026-11-23T12:00:00` in the zone of the page, or the duration ago.
    fn bound(&self, name: &str) -> String {
        match self.parameters.time(name) {
            // To the second, so that no match is left out when the form is sent again.
            Ok(Some(ms)) if self.is_absolute(name) => {
                let ms = if *name == *"until" { ms.saturating_add(999) } else { ms };
                Stamp::new(ms, &self.frame.zone).input().to_owned()
            }
            _ => self.value(name).to_owned(),
        }
    }

    /// The day of a row, if it is another than that of the row before: `Wed 25 Nov`.
    fn new_day(&self, index: &usize) -> Option<String> {
        let day = |index: usize| self.rows.get(index)?.time.as_ref().map(Stamp::day);
        let (before, own) = (day(index.checked_sub(1)?)?, day(*index)?);
        (before != own).then_some(own)
    }

    fn value<'b>(&'b self, name: &'b str) -> &'b str {
        self.listing.wrong.of(name).map(|wrong| &*wrong.typed).or_else(|| self.parameters.get(name)).unwrap_or_default()
    }

    /// The numbers of rows to choose from, including the chosen one.
    fn limits(&self) -> Vec<(usize, bool)> {
        let mut limits = vec![50, 100, 200, 500, 1000, self.limit];
        limits.sort_unstable();
        limits.dedup();
        limits.into_iter().map(|limit| (limit, limit == self.limit)).collect()
    }

    fn partition(&self) -> String {
        match self.listing.wrong.of("partition") {
            Some(wrong) => wrong.typed.clone(),
            None => self.listing.filters.partition.first().map(i32::to_string).unwrap_or_default(),
        }
    }

    /// Whether any filter or bound is set.
    fn is_narrowed(&self) -> bool {
        !self.listing.filters.is_empty()
            || self.is_placed()
            || ["since", "until"].into_iter().any(|name| self.parameters.get(name).is_some())
    }
}

/// The history page: a page of the topic's records, and a search through the rest
#[utoipa::path(
    operation_id = "historyPage",
    tag = "pages",
    params(
        openapi::HistoryPage,
        openapi::Columns,
        openapi::TypedCondition,
        openapi::ShowHistogram,
        openapi::TimesZone,
    ),
    responses(
        openapi::HtmlOrNotice,
        (
            status = 303,
            description = "To the page with `field`, `op` and `value` as `f`, or with times in UTC that had no zone.",
            headers(("Location" = String)),
        ),
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
    if let Some(query) = explicit_times(&parameters, &frame.zone)? {
        return Ok(Either::Left(Redirect::to(history_page(query))));
    }
    let request = history_request(&parameters)?;
    let mut page = HistoryPage::new(frame.clone(), parameters.clone(), &request)?;
    if let Some(to) = to_condition("/history", &parameters) {
        return Ok(Either::Left(to));
    }
    if parameters.get("chart").is_some() {
        page.shown = Some(Histogram::in_time(searches, client, &request, &parameters, &page.frame.zone).await?);
    }
    let without_records = HistoryPage::new(frame, parameters, &request)?;
    match answer(searches, feed, client, request, page).await {
        Err(problem) if matches!(problem.kind, Kind::Unavailable | Kind::NotImplemented) => {
            let notice = Some(format!("Could not search. {}", sentence(problem.detail())));
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
    let (history, feed) = (searches.history().clone(), feed.clone());
    let read = move |reader: RangeReader<'_>| page.read(&history, &feed, reader);
    let (body, permit) = searches.read(client, request, FIRST_LOOK, read).await?;
    Ok(Whole::html(searches, client, body?, permit).await?)
}

/// Returns the page of a request whose parameters are wrong, for people.
pub fn with_errors(frame: PageFrame, parameters: &Parameters) -> Option<String> {
    HistoryPage::with_errors(frame, parameters)?.render().ok()
}

/// The filters and columns of the page. Its place in the topic does not stay when they change.
fn listing(parameters: &Parameters) -> Result<Listing, BadParameter> {
    Listing::new("/history", parameters, &["from", "to", "field", "op", "value", "chart"])
}

fn order(newest_first: bool) -> &'static str {
    if newest_first { "newest" } else { "oldest" }
}

/// Returns a query for the same rows, whatever is written later.
fn within(parameters: &Parameters, newest_first: bool, range: &HistoryRange, limit: usize) -> String {
    let (from, to) = (Cursor::new(&*range.from).to_string(), Cursor::new(&*range.to).to_string());
    let bounds =
        [("since", ""), ("until", ""), ("offset", ""), ("col", ""), ("chart", ""), ("from", &*from), ("to", &*to)];
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
    let request = history_request(&parameters)?;
    let export = searches.export(client, request, id.0).await?;
    let listing = listing(&parameters)?;
    let (history, progress) = (searches.history().clone(), SearchProgress::new(export.range()));
    let format = Rows { listing, history, progress, found: 0, times: Vec::new() };
    Ok(Streamed::events(export.run(format)))
}

/// Server-Sent Events for the page: rows as they are found.
struct Rows {
    listing: Listing,
    history: Arc<History>,
    progress: SearchProgress,
    found: u64,
    /// The times of what was found since the last report.
    times: Vec<i64>,
}

impl ExportFormat for Rows {
    fn record(&mut self, out: &mut Vec<u8>, record: &Record) {
        self.found += 1;
        self.times.extend(self.history.time_ms(record));
        Frames::data(out, &event_html(record, &self.listing));
    }

    fn report(&mut self, out: &mut Vec<u8>, progress: Progress<'_>) -> bool {
        self.progress.write(out, self.found, std::mem::take(&mut self.times), None, progress);
        true
    }
}
