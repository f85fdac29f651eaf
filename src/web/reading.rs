//! Bounded reads of the topic on behalf of a request: what the parameters ask for, as a query of the history.

use std::time::Duration;

use tokio::time::timeout;

use super::App;
use super::READS;
use super::problem::{Kind, Problem};
use super::query::{Parameters, bad};
use crate::feed::{Cursor, Filter};
use crate::kafka::{History, HistoryError, Page, Query};

/// Records that one request looks at, about; a filter that finds little goes on with `next`.
pub const SCAN: u64 = 200_000;

/// How long a read waits for its turn.
const TURN: Duration = Duration::from_secs(5);

/// A piece of the topic, as it was asked for.
#[derive(Clone)]
pub struct Wanted {
    pub filter: Filter,
    pub limit: usize,
    pub newest_first: bool,
    /// `limit` counts from the newest, whatever the order.
    last: bool,
    /// Milliseconds since 1970: from the one on, before the other.
    since: Option<i64>,
    until: Option<i64>,
    pub from: Option<Cursor>,
    pub to: Option<Cursor>,
    /// The partition and offset to begin with.
    place: Option<(i32, i64)>,
}

impl Wanted {
    /// Reads the parameters; `limit` is at most `most`.
    pub fn new(parameters: &Parameters, default: usize, most: usize) -> Result<Self, Problem> {
        let filters = parameters.filters()?;
        let limit = parameters.number("limit", 1..=most)?;
        let last = parameters.number("last", 1..=most)?;
        let (since, until) = (parameters.time("since")?, parameters.time("until")?);
        let (from, latest) = match parameters.get("from") {
            Some("beginning") => (Some(Cursor::default()), false),
            None | Some("latest") => (None, true),
            Some(_) => (parameters.cursor("from")?, false),
        };
        let to = parameters.cursor("to")?;
        let place = match (parameters.number("offset", 0..=i64::MAX as usize)?, filters.partition.as_slice()) {
            (None, _) => None,
            (Some(offset), [partition]) => Some((*partition, offset as i64)),
            (Some(_), _) => return Err(bad("offset", "expected one `partition` beside it".to_owned())),
        };
        let forward = since.is_some() || place.is_some() || (!latest && last.is_none());
        let newest_first = match parameters.get("order") {
            None => !forward,
            Some("newest") => true,
            Some("oldest") => false,
            Some(other) => return Err(bad("order", format!("expected newest or oldest, not `{other}`"))),
        };
        let filter = Filter::from(&filters);
        let limit = last.or(limit).unwrap_or(default);
        Ok(Wanted { filter, limit, newest_first, last: last.is_some(), since, until, from, to, place })
    }

    /// All of one user's events in one partition before a place, the newest first.
    pub fn of_user(user: &str, partition: i32, to: Option<Cursor>) -> Self {
        let filter = Filter { users: vec![user.to_owned()], partitions: vec![partition], ..Filter::default() };
        let (last, since, until, from, place) = (false, None, None, None, None);
        Wanted { filter, limit: usize::MAX, newest_first: true, last, since, until, from, to, place }
    }

    /// The query that answers it now, in what the topic holds. Blocks.
    pub fn query(&self, history: &History, scan: u64) -> Result<Query, HistoryError> {
        let bounds = history.bounds()?;
        let at =
            |ms: Option<i64>| ms.map(|ms| history.offsets_since(ms)).transpose().map(|found| found.map(Cursor::new));
        let (since, until) = (at(self.since)?, at(self.until)?);
        let each = |partition: usize, (low, high): (i64, i64)| -> (i64, i64) {
            let number = partition as i32;
            let wanted = &self.filter.partitions;
            if !wanted.is_empty() && !wanted.contains(&number) {
                return (low, low);
            }
            let lows = [self.from.as_ref(), since.as_ref()].into_iter().flatten().map(|cursor| cursor.get(number));
            let highs = [self.to.as_ref(), until.as_ref()].into_iter().flatten().map(|cursor| cursor.get(number));
            let (mut start, mut end) = (lows.fold(low, i64::max), highs.fold(high, i64::min));
            if let Some((_, offset)) = self.place {
                match self.newest_first {
                    true => end = end.min(offset.saturating_add(1)),
                    false => start = start.max(offset),
                }
            }
            (start.clamp(low, high), end.clamp(low, high))
        };
        let (from, to) = bounds.into_iter().enumerate().map(|(partition, marks)| each(partition, marks)).unzip();
        // The oldest of the last so many are found from the end, and then turned round.
        Ok(Query { from, to, newest_first: self.newest_first || self.last, limit: self.limit, scan })
    }

    /// The page that it is. Blocks.
    pub fn page(&self, history: &History, query: &Query) -> Result<Page, HistoryError> {
        let mut page = history.page(query, |record| self.filter.matches(record))?;
        if query.newest_first && !self.newest_first {
            page.records.reverse();
            page.end.next = None;
        }
        Ok(page)
    }
}

/// Runs a blocking read of the topic, one of a bounded number.
pub async fn blocking<T: Send + 'static>(
    app: &App,
    work: impl FnOnce(&History) -> Result<T, HistoryError> + Send + 'static,
) -> Result<T, Problem> {
    let history = app.history.clone();
    let refused = |detail: String| Problem::new(Kind::Unavailable, detail);
    let busy = |_| refused(format!("{READS} reads of the topic are under way already"));
    let turn = timeout(TURN, app.reads.clone().acquire_owned()).await.map_err(busy)?;
    let permit = turn.map_err(|_| refused("shutting down".to_owned()))?;
    let done = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work(&history)
    });
    match done.await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Problem::new(Kind::Internal, "the read failed")),
    }
}
