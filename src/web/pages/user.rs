//! The page of a user: counts and events, past and live.
//!
//! Kafka's default partitioner puts all records of a key into one partition, so only that one is read unless all are
//! requested. The page reads a bounded part of the topic; its script continues the count.

use std::collections::HashMap;
use std::sync::Arc;

use askama::Template;
use footfall_core::query_string::QueryBuilder;
use rocket::http::Status;
use rocket::{State, get};

use super::overview::Overviews;
use super::progress::SearchProgress;
use super::{Html, ROWS, html};
use crate::bounds::{Address, FIRST_LOOK, MERGE_BYTES};
use crate::colours;
use crate::event::Record;
use crate::event::time::{now_ms, parse_ms};
use crate::feed::{Cursor, Frames};
use crate::search::{Counts, ExportFormat, Progress, Scope, SearchRequest, Searches, Session, UserCounts, UserMoments};
use crate::stats::StatsSnapshot;
use crate::web::api::users::scope;
use crate::web::guards::RequestId;
use crate::web::long_answer::Streamed;
use crate::web::openapi;
use crate::web::problem::{Kind, Problem};
use crate::web::query::Parameters;
use crate::web::views::{
    BrokerStatus, Chart, Filters, Listing, PageFrame, Row, RowUser, Series, Span, Stamp, WrongParameters, Zone,
    count_of, cut, duration, event_html, rate_over, sentence, step, thousands, user_page,
};

/// Most columns of the chart, and actions with a series of their own.
const COLUMNS: usize = 61;
const SERIES: usize = 5;

#[derive(Template)]
#[template(path = "user.html")]
struct UserPage {
    frame: PageFrame,
    name: String,
    /// The page's own address, without its parameters.
    address: String,
    form: NarrowForm,
    /// Query of the history: this user's events in all partitions.
    everywhere: String,
    found: Option<Found>,
    /// Why nothing is known, as a sentence.
    notice: Option<String>,
}

/// The form that narrows the page to an action, or widens it to all partitions, as it was sent.
#[derive(Default)]
struct NarrowForm {
    actions: Vec<String>,
    partitions: String,
    wrong: WrongParameters,
}

impl NarrowForm {
    fn of(parameters: &Parameters) -> Self {
        NarrowForm {
            actions: parameters.all("action").map(str::to_owned).collect(),
            partitions: parameters.get("partitions").unwrap_or_default().to_owned(),
            wrong: WrongParameters::default(),
        }
    }

    fn action(&self) -> &str {
        self.actions.first().map_or("", String::as_str)
    }

    /// What is wrong with a parameter.
    fn error(&self, name: &str) -> Option<&str> {
        self.wrong.of(name).map(|wrong| &*wrong.words)
    }

    /// What is wrong with a parameter that has no field.
    fn other_error(&self) -> Option<&str> {
        self.wrong.iter().find(|wrong| !matches!(&*wrong.name, "action" | "partitions")).map(|wrong| &*wrong.words)
    }
}

/// The counts and rows of a user.
struct Found {
    scope: Scope,
    /// The zone of the page's times.
    zone: Zone,
    /// The partition of the user's key.
    own: i32,
    /// Address of the count in all partitions, if this one is of a single partition.
    in_all: Option<String>,
    counts: Counts,
    actions: Vec<Action>,
    /// The filter for actions in words, and the address of the page without it.
    narrowed: Option<(String, String)>,
    /// The events over time; `None` without events.
    chart: Option<Chart>,
    /// Events per minute, hour or day: `5.1/min`.
    pace: Option<String>,
    /// `login → page_view → add_to_cart`, and how often.
    order: Option<(String, String)>,
    /// `7 sessions`, if all events are counted.
    sessions: Option<String>,
    scanned: u64,
    total: u64,
    /// Newest first.
    rows: Vec<UserRow>,
    /// The query by which the stream and the history filter.
    filters: String,
    /// After the newest row: the live stream starts there.
    cursor: String,
    /// Address at which the count continues, if it is not finished.
    rest: Option<String>,
}

/// An event, with what lies between it and those around it.
struct UserRow {
    row: Row,
    /// The pause after it and its session, if it is the newest of that: `41 min pause`, `session 3: 22 events, 6 min`.
    pause: Option<(String, String)>,
}

/// A row of the table of actions.
struct Action {
    name: String,
    events: u64,
    /// Percentage of the most frequent action.
    share: u64,
    /// Its part of this user's events, and of all users' events of the last day: `45 %`.
    of_user: String,
    of_all: String,
    /// The page with these events only.
    address: String,
}

impl Found {
    /// An action as a template for the page's script.
    fn blank(&self, page: &str) -> Action {
        let address = narrowed_page(page, self.scope, "");
        Action { name: String::new(), events: 0, share: 0, of_user: String::new(), of_all: "–".to_owned(), address }
    }

    fn first_seen(&self) -> Option<Stamp> {
        self.stamp(self.counts.first_seen.as_deref())
    }

    fn last_seen(&self) -> Option<Stamp> {
        self.stamp(self.counts.last_seen.as_deref())
    }

    fn stamp(&self, time: Option<&str>) -> Option<Stamp> {
        time.and_then(parse_ms).map(|ms| Stamp::new(ms, &self.zone))
    }

    /// How long ago the last event was.
    fn ago(&self) -> String {
        let ms = self.counts.last_seen.as_deref().and_then(parse_ms).map(|ms| (now_ms() - ms).max(0).unsigned_abs());
        ms.map(|ms| format!("{} ago", duration(ms - ms % 1_000))).unwrap_or_default()
    }

    fn words(&self) -> String {
        let (scanned, total, of) = (thousands(self.scanned), thousands(self.total), self.of_partitions());
        match (&self.rest, self.scanned) {
            (Some(_), _) => {
                let so_far = count_of(self.counts.events, "event");
                format!("Counted {scanned} of {total} records{of}, newest first; {so_far} so far.")
            }
            (None, 0) => format!("No records{of}."),
            (None, 1) => format!("Counted the one record{of}."),
            (None, _) => format!("Counted all {scanned} records{of}."),
        }
    }

    /// The partitions that were read, for example ` in partition 2`.
    fn of_partitions(&self) -> String {
        match self.scope {
            Scope::Own(partition) => format!(" in partition {partition}"),
            Scope::All(1) => " in the only partition".to_owned(),
            Scope::All(count) => format!(" in all {count} partitions"),
        }
    }

    /// The events that are looked for: `events from this user`, `checkout events from this user`.
    fn looked_for(&self) -> String {
        match &self.narrowed {
            Some((action, _)) => format!("{action} events from this user"),
            None => "events from this user".to_owned(),
        }
    }
}

/// Returns the page with one action only; the caller may append the action's name.
fn narrowed_page(page: &str, scope: Scope, action: &str) -> String {
    let mut query = QueryBuilder::default();
    if let Scope::All(_) = scope {
        query.add("partitions", "all");
    }
    query.add("action", action);
    format!("{page}?{}", query.text())
}

/// `1,204`; askama gives references.
fn number(number: &u64) -> String {
    thousands(*number)
}

/// One user's events and counts, live
#[utoipa::path(
    operation_id = "userPage",
    tag = "pages",
    params(openapi::User, openapi::Partitions, openapi::OneAction),
    responses(openapi::HtmlOrNotice, openapi::BadParameter,)
)]
#[get("/users/<user>")]
pub async fn page(
    searches: &State<Searches>,
    overviews: &State<Arc<Overviews>>,
    frame: PageFrame,
    client: Address,
    user: &str,
    parameters: Parameters,
) -> Result<Html, Problem> {
    let zone = frame.zone.clone();
    let mut page = UserPage::new(frame, user, &parameters);
    let actions = parameters.filters()?.action;
    let found = match scope(searches, user, &parameters) {
        Ok(scope) => look(searches, client, user, scope, actions, zone).await,
        Err(problem) => Err(problem),
    };
    match found {
        Ok(mut found) => {
            found.compare(&overviews.snapshot());
            page.found = Some(found);
        }
        Err(problem) if matches!(problem.kind, Kind::Unavailable) => page.notice = Some(sentence(problem.detail())),
        Err(problem) => return Err(problem),
    }
    html(Status::Ok, &page)
}

/// Returns the page with the form as it was sent and what is wrong, for people.
pub fn with_error(frame: PageFrame, user: &str, parameters: &Parameters, problem: &Problem) -> Option<String> {
    let mut page = UserPage::new(frame, user, parameters);
    // The detail begins with the name.
    let (name, detail) = problem.detail().split_once(' ')?;
    page.form.wrong.add(name, parameters.get(name).unwrap_or_default(), detail);
    page.notice = Some("Nothing was looked for, because a filter is wrong.".to_owned());
    page.render().ok()
}

impl UserPage {
    /// The page without events.
    fn new(frame: PageFrame, user: &str, parameters: &Parameters) -> Self {
        let mut everywhere = QueryBuilder::default();
        everywhere.add("user", user);
        UserPage {
            frame,
            name: cut(user, usize::MAX),
            address: user_page(user).unwrap_or_default(),
            form: NarrowForm::of(parameters),
            everywhere: everywhere.text(),
            found: None,
            notice: None,
        }
    }
}

/// Reads the newest records of the user's partition, or of all.
async fn look(
    searches: &Searches,
    client: Address,
    user: &str,
    scope: Scope,
    only: Vec<String>,
    zone: Zone,
) -> Result<Found, Problem> {
    let (own, partitions) = (searches.partition_of(user)?, searches.partitions()?);
    let request = request(user, scope, &only, None);
    let filters = of_user(user, scope, only);
    let listing = Listing::of_rows(filters.clone(), Vec::new()).in_zone(&zone);
    let read = searches.read(client, request, FIRST_LOOK, move |reader| {
        let (mut counts, mut moments) = (UserCounts::default(), UserMoments::default());
        let (mut rows, mut bytes) = (Vec::new(), 0);
        let page = reader.each(|record| {
            counts.observe(record);
            moments.observe(record);
            if rows.len() < ROWS && bytes < MERGE_BYTES {
                bytes += record.size();
                rows.push(Row::new(record, &listing));
            }
        })?;
        Ok((page, counts.sum(), moments, rows))
    });
    let ((page, counts, moments, rows), _) = read.await?;
    // The live stream starts exactly where the count does, in the same partitions.
    let cursor = Cursor::new(&*page.range.to).to_string();
    let (scanned, total) = (page.end.scanned, page.total());
    let address = user_page(user).unwrap_or_default();
    let rest = page.end.next.as_deref().map(|next| {
        let mut rest = QueryBuilder::default();
        rest.add("to", &Cursor::new(next).to_string());
        rest.add("limit", &(ROWS - rows.len()).to_string());
        if let Scope::All(_) = scope {
            rest.add("partitions", "all");
        }
        filters.action.iter().for_each(|action| rest.add("action", action));
        format!("{address}/count?{}", rest.text())
    });
    let in_all = (scope.partition().is_some() && partitions > 1).then(|| format!("{address}?partitions=all"));
    let whole = if let Scope::All(_) = scope { format!("{address}?partitions=all") } else { address.clone() };
    let shown = filters.action.iter().map(|action| cut(action, usize::MAX)).collect::<Vec<_>>().join(" or ");
    let narrowed = (!filters.action.is_empty()).then_some((shown, whole));
    let all: u64 = counts.events;
    let most = counts.actions.first().map_or(1, |first| first.events.max(1));
    let action = |(name, events): (&str, u64)| Action {
        name: cut(name, usize::MAX),
        events,
        share: events * 100 / most,
        of_user: percent(events, all),
        of_all: "–".to_owned(),
        address: narrowed_page(&address, scope, name),
    };
    let actions = counts.actions.iter().map(|one| action((&one.action, one.events))).collect();
    let filters = filters.query();
    let sessions = moments.sessions();
    Ok(Found {
        scope,
        own,
        in_all,
        actions,
        narrowed,
        chart: chart(&moments, filters.clone(), &zone),
        zone,
        pace: pace(&counts),
        order: moments.usual_order().map(|(order, times)| {
            (order.map(|action| cut(action, usize::MAX)).join(" → "), format!("{} times", thousands(times)))
        }),
        sessions: rest.is_none().then(|| count_of(sessions.len() as u64, "session")),
        rows: timeline(rows, &moments, &sessions, rest.is_none()),
        counts,
        scanned,
        total,
        filters,
        cursor,
        rest,
    })
}

/// `45 %`, `< 1 %`.
fn percent(part: u64, whole: u64) -> String {
    match part * 100 / whole.max(1) {
        0 if part > 0 => "< 1 %".to_owned(),
        percent => format!("{percent} %"),
    }
}

/// Returns the average rate from the first event to the last, if they are some time apart.
fn pace(counts: &Counts) -> Option<String> {
    let ms = |time: &Option<String>| time.as_deref().and_then(parse_ms);
    let length_ms = ms(&counts.last_seen)?.checked_sub(ms(&counts.first_seen)?).filter(|ms| *ms >= 60_000)?;
    Some(rate_over(counts.events, length_ms.unsigned_abs()))
}

/// Returns the rows with the times and pauses between them.
fn timeline(rows: Vec<Row>, moments: &UserMoments, sessions: &[Session], is_whole: bool) -> Vec<UserRow> {
    // An event without a time has no moment, so its index would not be that of its row.
    let has_moments = rows.iter().all(|row| row.time.is_some());
    let row = |(index, mut row): (usize, Row)| {
        let place = sessions.iter().position(|session| session.start == index).filter(|_| has_moments);
        let pause = place.and_then(|place| {
            let session = sessions[place];
            let is_last = place + 1 == sessions.len();
            let name = if is_whole { format!("session {}: ", sessions.len() - place) } else { String::new() };
            let at_least = if is_last && !is_whole { "at least " } else { "" };
            let length = duration(session.length_ms.unsigned_abs());
            let words = format!("{name}{at_least}{}, {length}", count_of(session.events as u64, "event"));
            Some((format!("{} pause", duration(session.pause_ms?.unsigned_abs())), words))
        });
        row.since = moments.since_previous(index).filter(|_| has_moments).map(step);
        UserRow { row, pause }
    };
    rows.into_iter().enumerate().map(row).collect()
}

/// Returns the chart of all events that were looked at, by action.
fn chart(moments: &UserMoments, query: String, zone: &Zone) -> Option<Chart> {
    let times = || moments.iter().map(|(ms, _)| ms);
    let (first_ms, last_ms) = (times().min()?, times().max()?);
    let length = Span::step(last_ms.saturating_sub(first_ms), COLUMNS);
    let spans = Span::all_from(zone.offset_ms(first_ms), first_ms, last_ms + 1, length, i64::MIN, now_ms());
    let start_ms = spans.first()?.from_ms;
    let (mut all, mut by_action) = (vec![0; spans.len()], HashMap::<&str, Vec<u64>>::new());
    for (ms, action) in moments.iter() {
        let column = ((ms - start_ms) / length) as usize;
        let Some(count) = all.get_mut(column) else { continue };
        *count += 1;
        if let Some(action) = action {
            by_action.entry(action).or_insert_with(|| vec![0; spans.len()])[column] += 1;
        }
    }
    let mut named: Vec<(&str, Vec<u64>)> = by_action.into_iter().collect();
    named.sort_by_key(|(action, values)| (std::cmp::Reverse(values.iter().sum::<u64>()), *action));
    named.truncate(SERIES);
    let series =
        |(action, values)| Series { name: cut(action, usize::MAX), colour: colours::of(action), values, link: None };
    let series = Series::stack(all, named.into_iter().map(series).collect(), "other actions");
    Some(Chart {
        id: "user",
        label: "Events by action".to_owned(),
        unit: "event",
        spans,
        series,
        previous: Vec::new(),
        height: 100,
        axes: true,
        zone: zone.clone(),
        query,
    })
}

impl Found {
    /// Adds what part of all users' events each action is, if the last day is counted.
    fn compare(&mut self, stats: &StatsSnapshot) {
        if stats.filling || stats.day.events == 0 {
            return;
        }
        for action in &mut self.actions {
            let known = stats.day.top_actions.iter().find(|known| cut(&known.name, usize::MAX) == action.name);
            if let Some(known) = known {
                action.of_all = percent(known.count, stats.day.events);
            }
        }
    }
}

fn request(user: &str, scope: Scope, only: &[String], to: Option<Cursor>) -> SearchRequest {
    let mut request = SearchRequest::of_user(user, scope.partition(), to);
    request.filter.actions = only.to_vec();
    request
}

/// The filters for a user's events.
fn of_user(user: &str, scope: Scope, action: Vec<String>) -> Filters {
    let partition = scope.partition().into_iter().collect();
    Filters { user: vec![user.to_owned()], action, partition, ..Filters::default() }
}

/// Continues the count of the user's page
///
/// Server-Sent Events: `progress` with the sums so far, about five a second, `done` or `failed` at the end, and as many
/// rows without a name as `limit` says. What is sent may change in any version.
#[utoipa::path(
    operation_id = "countOn",
    tag = "pages",
    params(openapi::User, openapi::CountUpTo, openapi::Partitions, openapi::OneAction, openapi::RowCount),
    responses(
        (status = 200, description = "The count.", content_type = "text/event-stream", body = openapi::SearchEvent),
        openapi::BadParameter,
        openapi::ReadUnavailable,
    )
)]
#[get("/users/<user>/count")]
pub async fn count(
    searches: &State<Searches>,
    client: Address,
    id: RequestId,
    user: &str,
    parameters: Parameters,
) -> Result<Streamed, Problem> {
    let to = parameters.cursor("to")?;
    let rows = parameters.number("limit", 0..=ROWS)?.unwrap_or(0);
    let scope = scope(searches, user, &parameters)?;
    let only = parameters.filters()?.action;
    let export = searches.export(client, request(user, scope, &only, to), id.0).await?;
    let listing = Listing::of_rows(of_user(user, scope, only), Vec::new());
    let format = Sums { progress: SearchProgress::new(export.range()), counts: UserCounts::default(), rows, listing };
    Ok(Streamed::events(export.run(format)))
}

/// Server-Sent Events for the page: counts, and a number of rows.
struct Sums {
    progress: SearchProgress,
    counts: UserCounts,
    rows: usize,
    listing: Listing,
}

impl ExportFormat for Sums {
    fn record(&mut self, out: &mut Vec<u8>, record: &Record) {
        self.counts.observe(record);
        if self.rows > 0 {
            self.rows -= 1;
            Frames::data(out, &event_html(record, &self.listing));
        }
    }

    fn report(&mut self, out: &mut Vec<u8>, progress: Progress<'_>) -> bool {
        let mut counts = self.counts.sum();
        // In the form that rows show.
        counts.actions.iter_mut().for_each(|one| one.action = cut(&one.action, usize::MAX));
        self.progress.write(out, self.counts.events(), Vec::new(), Some(counts), progress);
        true
    }
}
