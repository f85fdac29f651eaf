//! Exports: searches of any length. An export reads as fast as its client, takes turns with other long reads, and ends
//! when the client leaves.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::select;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::outlet::ExportSender;
use super::{SearchError, SearchRequest, Searches};
use crate::bounds::{self, Address, Share};
use crate::event::{Record, json};
use crate::kafka::{History, HistoryError, HistoryRange, ReadKind, SearchEnd, SearchReport};
use footfall_core::record::csv;

/// Time between two reports of progress.
const REPORT_EVERY: Duration = Duration::from_millis(200);

/// An export that is ready to start: nothing can reject it any more.
pub struct Export {
    searches: Searches,
    request: SearchRequest,
    range: HistoryRange,
    client: Address,
    /// Identifies the export in the log.
    request_id: String,
    /// Held until the thread of the export has ended.
    open: Share,
}

impl Searches {
    /// Opens an export, unless too many are open. `request_id` identifies it in the log.
    pub async fn export(
        &self,
        client: Address,
        request: SearchRequest,
        request_id: String,
    ) -> Result<Export, SearchError> {
        let open = self.exports.try_acquire(client).map_err(SearchError::Exports)?;
        let asked = request.clone();
        let find =
            move |history: &History, _: &CancellationToken| Ok::<_, SearchError>(asked.range(history, u64::MAX)?);
        let (range, _) = self.reads.run(client, ReadKind::Page, find).await?;
        Ok(Export { searches: self.clone(), request, range, client, request_id, open })
    }
}

impl Export {
    /// Returns the offsets that it searches.
    pub fn range(&self) -> &HistoryRange {
        &self.range
    }

    /// Starts the search on a thread of its own, a little ahead of the client.
    pub fn run(self, format: impl ExportFormat + 'static) -> Chunks {
        let Export { searches, request, range, client, request_id, open } = self;
        let (sender, chunks) = mpsc::channel(bounds::CHUNKS_AHEAD);
        let (stop, reset) = (searches.closing.child_token(), CancellationToken::new());
        let result = Chunks { chunks, reset: reset.clone(), _cancels: stop.clone().drop_guard() };
        let outlet = ExportSender::new(sender, stop.clone(), searches.reads.scans().clone(), client);
        let running = Running { request, range, format, outlet, stop, reset };
        spawn_blocking(move || {
            running.run(searches.reads.history(), &searches.closing, &request_id);
            drop(open);
        });
        result
    }
}

/// The chunks of an export. Dropping this ends the export.
pub struct Chunks {
    chunks: mpsc::Receiver<Bytes>,
    /// Cancelled if the export broke off.
    reset: CancellationToken,
    _cancels: DropGuard,
}

/// An export that broke off. Its connection must be reset, because what was sent must not look complete.
#[derive(Debug, thiserror::Error)]
#[error("ended early")]
pub struct BrokenOff;

impl Chunks {
    /// Waits for the next chunk; `None` after the last one, or an error if the export broke off. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Bytes, BrokenOff>> {
        select! {
            // At once, even if chunks are left to send.
            biased;
            () = self.reset.cancelled() => Some(Err(BrokenOff)),
            chunk = self.chunks.recv() => chunk.map(Ok),
        }
    }
}

/// Why an export ended early.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("the client left")]
    Gone,
    #[error("the server is shutting down")]
    Closing,
    #[error("the client read nothing for {} s", bounds::UNTAKEN.as_secs())]
    Untaken,
    #[error("the export waited for its client for {} s in all", bounds::EXPORT_WAITS.as_secs())]
    TooSlow,
    #[error(transparent)]
    Read(#[from] HistoryError),
}

/// Formats the records of an export.
pub trait ExportFormat: Send {
    /// The start of the output. It is sent at once, because finding the first record may take long.
    fn head(&self) -> &'static [u8] {
        b""
    }

    fn record(&mut self, out: &mut Vec<u8>, record: &Record);

    /// Appends a report of the progress, or of the end. Returns false if the format has no reports.
    fn report(&mut self, _out: &mut Vec<u8>, _progress: Progress<'_>) -> bool {
        false
    }
}

/// The progress of an export.
#[derive(Clone, Copy)]
pub enum Progress<'a> {
    Searching {
        scanned: u64,
        /// Offsets left to search; at least the number of records.
        left: u64,
        next: &'a [i64],
        /// The time up to which every record was looked at, in milliseconds since 1970.
        reached_ms: Option<i64>,
    },
    Done(&'a SearchEnd),
    Failed(&'a str),
}

/// One record per line, as JSON.
pub struct Ndjson {
    pub topic: String,
}

impl ExportFormat for Ndjson {
    fn record(&mut self, out: &mut Vec<u8>, record: &Record) {
        json::write(out, &self.topic, record);
        out.push(b'\n');
    }
}

/// One record per line, as CSV (RFC 4180).
pub struct Csv;

impl ExportFormat for Csv {
    fn head(&self) -> &'static [u8] {
        csv::HEAD
    }

    fn record(&mut self, out: &mut Vec<u8>, record: &Record) {
        csv::line(out, record);
    }
}

/// An export on its thread.
struct Running<F> {
    request: SearchRequest,
    range: HistoryRange,
    format: F,
    outlet: ExportSender,
    stop: CancellationToken,
    reset: CancellationToken,
}

impl<F: ExportFormat> Running<F> {
    fn run(mut self, history: &History, closing: &CancellationToken, request_id: &str) {
        let (broken, reported) = match self.search_and_send(history, closing) {
            Ok(()) => return,
            Err(broken) => broken,
        };
        // A page that got the reason needs no other sign.
        if !reported {
            self.reset.cancel();
        }
        match broken {
            // Not worth a warning.
            ExportError::Gone => {
                tracing::debug!(request.id = request_id, "the client of an export or a search is gone")
            }
            broken => {
                tracing::warn!(request.id = request_id, why = broken.to_string(), "an export or a search ended early")
            }
        }
    }

    /// Sends everything. The error also says whether the client got the reason.
    fn search_and_send(&mut self, history: &History, closing: &CancellationToken) -> Result<(), (ExportError, bool)> {
        let mut out = self.format.head().to_vec();
        let started = if out.is_empty() { Ok(()) } else { self.outlet.send(std::mem::take(&mut out)) };
        let searched = started.and_then(|()| self.search(history, &mut out)).map_err(|broken| match broken {
            ExportError::Gone | ExportError::Read(HistoryError::Cancelled) if closing.is_cancelled() => {
                ExportError::Closing
            }
            ExportError::Read(HistoryError::Cancelled) => ExportError::Gone,
            broken => broken,
        });
        // Only the client can still delay the export.
        self.outlet.end_turn();
        match searched {
            Ok(end) => {
                self.format.report(&mut out, Progress::Done(&end));
                let sent = if out.is_empty() { Ok(()) } else { self.outlet.send(out) };
                sent.map_err(|broken| (broken, false))
            }
            Err(broken) => {
                let has_report = self.format.report(&mut out, Progress::Failed(&broken.to_string()));
                let reported = has_report && self.outlet.send_last(out);
                Err((broken, reported))
            }
        }
    }

    fn search(&mut self, history: &History, out: &mut Vec<u8>) -> Result<SearchEnd, ExportError> {
        let Running { request, range, format, outlet, stop, .. } = self;
        let mut broken = None;
        outlet.take_turn()?;
        request.find_last(history, stop, range, |_| go_on(outlet.take_turn(), &mut broken))?;
        if let Some(broken) = broken {
            return Err(broken);
        }
        let mut reported_at = Instant::now();
        let end = history.search(
            range,
            stop,
            |record| request.matches(record, history.time_ms(record)),
            |step| {
                let mut has_report = false;
                match step {
                    SearchReport::Found(record) => format.record(out, &record),
                    SearchReport::Progress { scanned, next, reached_ms } => {
                        if reported_at.elapsed() >= REPORT_EVERY {
                            let left = range.left(&next);
                            has_report =
                                format.report(out, Progress::Searching { scanned, left, next: &next, reached_ms });
                        }
                        if let Err(error) = outlet.take_turn() {
                            return go_on(Err(error), &mut broken);
                        }
                    }
                }
                if !has_report && out.len() < bounds::CHUNK {
                    return ControlFlow::Continue(());
                }
                reported_at = Instant::now();
                let sent = outlet.send(std::mem::take(out)).and_then(|()| outlet.take_turn());
                go_on(sent, &mut broken)
            },
        )?;
        match broken {
            Some(broken) => Err(broken),
            None => Ok(end),
        }
    }
}

/// Returns whether to continue; otherwise stores why not.
fn go_on(result: Result<(), ExportError>, broken: &mut Option<ExportError>) -> ControlFlow<()> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            *broken = Some(error);
            ControlFlow::Break(())
        }
    }
}
