//! The page of a user: counts and events, past and live.
//!
//! Kafka's default partitioner puts all records of a key into one partition, so only that one is read unless all are
//! requested. The page reads a bounded part of the topic; its script continues the count.

use askama::Template;
use footfall_core::query_string::QueryBuilder;
use rocket::http::Status;
use rocket::{State, get};

use super::progress::SearchProgress;
use super::{Html, ROWS, html};
use crate::bounds::{Address, FIRST_LOOK, MERGE_BYTES};
use crate::event::Record;
use crate::event::time::parse_ms;
use crate::feed::{Cursor, Frames};
use crate::search::{Counts, ExportFormat, Progress, Scope, SearchRequest, Searches, UserCounts};
use crate::web::api::users::scope;
use crate::web::guards::RequestId;
use crate::web::long_answer::Streamed;
use crate::web::openapi;
use crate::web::problem::{Kind, Problem};
use crate::web::query::Parameters;
use crate::web::views::{
    BrokerStatus, Filters, Listing, PageFrame, Row, RowUser, Stamp, Zone, count_of, cut, event_html, history_page,
    sentence, thousands, user_page,
};

#[derive(Template)]
#[template(path = "user.html")]
struct UserPage {
    frame: PageFrame,
    name: String,
    /// Query of the history: this user's events in all partitions.
    everywhere: String,
    found: Option<Found>,
    /// Why nothing is known, as a sentence.
    notice: Option<String>,
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
    scanned: u64,
    total: u64,
    /// Newest first.
    rows: Vec<Row>,
    /// The query by which the stream and the history filter.
    filters: String,
    /// After the newest row: the live stream starts there.
    cursor: String,
    /// Address at which the count continues, if it is not finished.
    rest: Option<String>,
}

/// A row of the table of actions.
struct Action {
    name: String,
    events: u64,
    /// Percentage of the most frequent action.
    share: u64,
    /// These events in the history.
    address: String,
}

impl Found {
    /// An action as a template for the page's script.
    fn blank(&self) -> Action {
        Action { name: String::new(), events: 0, share: 0, address: history_page(&self.filters) }
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
}

/// `1,204`; askama gives references.
fn number(number: &u64) -> String {
    thousands(*number)
}

/// One user's events and counts, live
#[utoipa::path(
    operation_id = "userPage",
    tag = "pages",
    params(openapi::User, openapi::Partitions),
    responses(openapi::HtmlOrNotice, openapi::BadParameter,)
)]
#[get("/users/<user>")]
pub async fn page(
    searches: &State<Searches>,
    frame: PageFrame,
    client: Address,
    user: &str,
    parameters: Parameters,
) -> Result<Html, Problem> {
    let mut everywhere = QueryBuilder::default();
    everywhere.add("user", user);
    let found = match scope(searches, user, &parameters) {
        Ok(scope) => look(searches, client, user, scope, frame.zone.clone()).await,
        Err(problem) => Err(problem),
    };
    let (found, notice) = match found {
        Ok(found) => (Some(found), None),
        Err(problem) if matches!(problem.kind, Kind::Unavailable) => (None, Some(sentence(problem.detail()))),
        Err(problem) => return Err(problem),
    };
    let name = cut(user, usize::MAX);
    html(Status::Ok, &UserPage { frame, name, everywhere: everywhere.text(), found, notice })
}

/// Reads the newest records of the user's partition, or of all.
async fn look(searches: &Searches, client: Address, user: &str, scope: Scope, zone: Zone) -> Result<Found, Problem> {
    let (own, partitions) = (searches.partition_of(user)?, searches.partitions()?);
    let request = SearchRequest::of_user(user, scope.partition(), None);
    let filters = of_user(user, &scope);
    let listing = Listing::of_rows(filters.clone(), Vec::new()).in_zone(&zone);
    let read = searches.read(client, request, FIRST_LOOK, move |reader| {
        let (mut counts, mut rows, mut bytes) = (UserCounts::default(), Vec::new(), 0);
        let page = reader.each(|record| {
            counts.observe(record);
            if rows.len() < ROWS && bytes < MERGE_BYTES {
                bytes += record.size();
                rows.push(Row::new(record, &listing));
            }
        })?;
        Ok((page, counts.sum(), rows))
    });
    let ((page, counts, rows), _) = read.await?;
    // The live stream starts exactly where the count does, in the same partitions.
    let cursor = Cursor::new(&*page.range.to).to_string();
    let filters = filters.query();
    let (scanned, total) = (page.end.scanned, page.total());
    let address = user_page(user).unwrap_or_default();
    let rest = page.end.next.map(|next| {
        let mut rest = QueryBuilder::default();
        rest.add("to", &Cursor::new(next).to_string());
        rest.add("limit", &(ROWS - rows.len()).to_string());
        if let Scope::All(_) = scope {
            rest.add("partitions", "all");
        }
        format!("{address}/count?{}", rest.text())
    });
    let in_all = (scope.partition().is_some() && partitions > 1).then(|| format!("{address}?partitions=all"));
    let most = counts.actions.first().map_or(1, |first| first.events.max(1));
    let action = |(name, events): (&str, u64)| {
        let mut address = QueryBuilder::default();
        address.add("action", name);
        let address = history_page(format_args!("{filters}&{}", address.text()));
        Action { name: cut(name, usize::MAX), events, share: events * 100 / most, address }
    };
    let actions = counts.actions.iter().map(|one| action((&one.action, one.events))).collect();
    Ok(Found { scope, zone, own, in_all, counts, actions, scanned, total, rows, filters, cursor, rest })
}

/// The filters for a user's events.
fn of_user(user: &str, scope: &Scope) -> Filters {
    let partition = scope.partition().into_iter().collect();
    Filters { user: vec![user.to_owned()], partition, ..Filters::default() }
}

/// Continues the count of the user's page
///
/// Server-Sent Events: `progress` with the sums so far, about five a second, `done` or `failed` at the end, and as many
/// rows without a name as `limit` says. What is sent may change in any version.
#[utoipa::path(
    operation_id = "countOn",
    tag = "pages",
    params(openapi::User, openapi::CountUpTo, openapi::Partitions, openapi::RowCount),
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
    let export = searches.export(client, SearchRequest::of_user(user, scope.partition(), to), id.0).await?;
    let listing = Listing::of_rows(of_user(user, &scope), Vec::new());
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
