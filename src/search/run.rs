//! Bounded searches: each runs when a permit is free, on a thread that may block, and is cancelled with its caller.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::SearchRequest;
use crate::bounds::{self, Address, Busy, Share, Shares};
use crate::event::Record;
use crate::kafka::{
    History, HistoryError, HistoryRange, Marks, ReadError, ReadKind, Reads, SearchEnd, SearchReport, TimeCounts,
};

/// The parts that all searches share. Cheap to clone.
#[derive(Clone)]
pub struct Searches {
    pub(super) reads: Reads,
    pub(super) exports: Shares,
    /// Large answers that wait in memory for their clients.
    answers: Shares,
    /// Cancelled when the process is asked to end; exports then break off.
    pub(super) closing: CancellationToken,
}

/// A search that did not take place, or did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("too many searches and exports are open: {0}")]
    Exports(#[source] Busy),
    #[error("too many answers wait for their clients to read them: {0}")]
    Answers(#[source] Busy),
    /// Not all of the last records were found within the bounds of a page, so their start is unknown.
    #[error("only {found} of the newest {scanned} records match; use order=newest, which continues with `next`")]
    LastNotFound { found: usize, scanned: u64 },
}

impl From<HistoryError> for SearchError {
    fn from(error: HistoryError) -> Self {
        SearchError::Read(error.into())
    }
}

/// The result of reading a page.
pub struct Page {
    /// The range that was searched.
    pub range: HistoryRange,
    pub end: SearchEnd,
}

impl Page {
    /// Records that were read, and the most that are left to read.
    pub fn total(&self) -> u64 {
        self.end.scanned + self.end.next.as_deref().map_or(0, |next| self.range.left(next))
    }
}

impl Searches {
    pub fn new(reads: Reads, closing: CancellationToken) -> Self {
        Searches {
            reads,
            exports: Shares::new(bounds::EXPORTS, bounds::EXPORTS_EACH),
            answers: Shares::new(bounds::ANSWERS, bounds::ANSWERS_EACH),
            closing,
        }
    }

    /// The history that the searches read.
    pub fn history(&self) -> &Arc<History> {
        self.reads.history()
    }

    /// Permits that are held, by the kind of read.
    pub fn held(&self) -> [(&'static str, usize); 3] {
        let [pages, scans] = self.reads.held();
        [pages, scans, ("export", self.exports.held())]
    }

    /// Runs `work` on a thread that may block, with a reader of the requested range and about `scan` records. The
    /// caller also gets the permit, to keep as long as it needs the memory of the read.
    pub async fn read<T: Send + 'static>(
        &self,
        client: Address,
        request: SearchRequest,
        scan: u64,
        work: impl FnOnce(RangeReader<'_>) -> Result<T, SearchError> + Send + 'static,
    ) -> Result<(T, Share), SearchError> {
        let kind = request.kind();
        let run = move |history: &History, stop: &CancellationToken| {
            let range = request.range(history, scan)?;
            work(RangeReader { request: &request, range, history, stop })
        };
        self.reads.run(client, kind, run).await
    }

    /// Reads one record, with the first and next offset of its partition, and runs `work` on the same thread.
    pub async fn record<T: Send + 'static>(
        &self,
        client: Address,
        partition: i32,
        offset: i64,
        work: impl FnOnce(Option<(Record, Marks)>) -> T + Send + 'static,
    ) -> Result<(T, Share), SearchError> {
        let run = move |history: &History, _: &CancellationToken| Ok(work(history.record(partition, offset)?));
        self.reads.run(client, ReadKind::Page, run).await
    }

    /// Counts the records of partitions over time, as [`History::counts_over_time`] does it.
    pub async fn counts_over_time(
        &self,
        client: Address,
        partitions: Vec<i32>,
        edges: impl FnOnce(Option<i64>, usize) -> Vec<i64> + Send + 'static,
    ) -> Result<TimeCounts, SearchError> {
        let count = move |history: &History, stop: &CancellationToken| {
            Ok::<_, SearchError>(history.counts_over_time(&partitions, stop, edges)?)
        };
        let (counts, _) = self.reads.run(client, ReadKind::Page, count).await?;
        Ok(counts)
    }

    /// Waits for the permit of a large answer, to hold until its client has read it.
    pub async fn answer(&self, client: Address) -> Result<Share, SearchError> {
        self.answers.acquire(client, bounds::TURN).await.map_err(SearchError::Answers)
    }
}

/// Reads the requested range. Every method blocks.
pub struct RangeReader<'a> {
    request: &'a SearchRequest,
    range: HistoryRange,
    history: &'a History,
    stop: &'a CancellationToken,
}

impl RangeReader<'_> {
    /// Reads a page: `take` gets the records in order, and returns how many bytes it keeps of each. The page ends early
    /// after [`bounds::READ_BYTES`] or [`bounds::PAGE_TIME`].
    pub fn page(mut self, mut take: impl FnMut(Record) -> usize) -> Result<Page, SearchError> {
        let in_time = in_time();
        let last = self.request.find_last(self.history, self.stop, &mut self.range, |_| in_time())?;
        if let Some(last) = last.filter(|last| !last.whole) {
            return Err(SearchError::LastNotFound { found: last.found, scanned: last.scanned });
        }
        let mut bytes = 0;
        let end = self.history.page(
            &self.range,
            self.stop,
            |record| self.request.matches(record, self.history.time_ms(record)),
            |record| {
                bytes += take(record);
                if bytes >= bounds::READ_BYTES { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            },
            &in_time,
        )?;
        Ok(Page { range: self.range, end })
    }

    /// Passes the records to `each` in order, for at most [`bounds::PAGE_TIME`].
    pub fn each(self, mut each: impl FnMut(&Record)) -> Result<Page, SearchError> {
        let in_time = in_time();
        let matches = |record: &Record| self.request.matches(record, self.history.time_ms(record));
        let end = self.history.search(&self.range, self.stop, matches, |step| {
            if let SearchReport::Found(record) = step {
                each(&record);
            }
            in_time()
        })?;
        Ok(Page { range: self.range, end })
    }
}

fn in_time() -> impl Fn() -> ControlFlow<()> {
    let started_at = Instant::now();
    move || match started_at.elapsed() < bounds::PAGE_TIME {
        true => ControlFlow::Continue(()),
        false => ControlFlow::Break(()),
    }
}
