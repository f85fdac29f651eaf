//! Bounded searches: each runs when there is a permit, on a thread that may block, and is cancelled with its caller.

use std::ops::ControlFlow;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::Request;
use crate::bounds::{self, Address, Busy, Share, Shares};
use crate::event::Record;
use crate::kafka::{End, History, HistoryError, HistoryRange, Marks, ReadError, ReadKind, Reads, Step};

/// All that searches share. Cheap to clone.
#[derive(Clone)]
pub struct Searches {
    pub(super) reads: Reads,
    /// Exports that are open.
    pub(super) exports: Shares,
    /// Large answers that wait in memory for their clients.
    answers: Shares,
    /// Cancelled when the process is asked to end: exports break off.
    pub(super) closing: CancellationToken,
}

/// A search that did not take place, or did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("too many searches and exports are open: {0}")]
    Exports(#[source] Busy),
    #[error("too many answers wait for their clients to take them: {0}")]
    Answers(#[source] Busy),
    /// Not all of the last records were found within the bounds of a page, so it is not known where they begin.
    #[error(
        "only {found} that match are among the newest {scanned} records that were looked at; ask for order=newest, which \
         goes on with `next`"
    )]
    LastNotFound { found: usize, scanned: u64 },
}

impl From<HistoryError> for SearchError {
    fn from(error: HistoryError) -> Self {
        SearchError::Read(error.into())
    }
}

/// A page that was read.
pub struct Page {
    /// What was searched.
    pub range: HistoryRange,
    pub end: End,
}

impl Page {
    /// Records that were looked at, and those that are left to look at at most.
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

    /// Permits that are held, by the kind of read.
    pub fn held(&self) -> [(&'static str, usize); 3] {
        let [pages, scans] = self.reads.held();
        [pages, scans, ("export", self.exports.held())]
    }

    /// Runs `work` on a thread that may block, with a reader of what the request asks for in about `scan` records. Beside the
    /// result, the caller gets the permit, for as long as it still needs the memory of the read.
    pub async fn read<T: Send + 'static>(
        &self,
        client: Address,
        request: Request,
        scan: u64,
        work: impl FnOnce(Reader<'_>) -> Result<T, SearchError> + Send + 'static,
    ) -> Result<(T, Share), SearchError> {
        let kind = request.kind();
        let run = move |history: &History, stop: &CancellationToken| {
            let range = request.range(history, scan)?;
            work(Reader { request: &request, range, history, stop })
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

    /// The permit of a large answer, which is held until its client has taken it.
    pub async fn answer(&self, client: Address) -> Result<Share, SearchError> {
        self.answers.acquire(client, bounds::TURN).await.map_err(SearchError::Answers)
    }
}

/// Reads what a request asks for. Every method blocks.
pub struct Reader<'a> {
    request: &'a Request,
    range: HistoryRange,
    history: &'a History,
    stop: &'a CancellationToken,
}

impl Reader<'_> {
    /// Reads a page: `take` gets the records in their order, and returns how many bytes it keeps of each. The page ends early
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
            |record| self.request.matches(record),
            |record| {
                bytes += take(record);
                if bytes >= bounds::READ_BYTES { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            },
            &in_time,
        )?;
        Ok(Page { range: self.range, end })
    }

    /// Shows `each` the records in their order, for at most [`bounds::PAGE_TIME`].
    pub fn each(self, mut each: impl FnMut(&Record)) -> Result<Page, SearchError> {
        let in_time = in_time();
        let matches = |record: &Record| self.request.matches(record);
        let end = self.history.search(&self.range, self.stop, matches, |step| {
            if let Step::Found(record) = step {
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
