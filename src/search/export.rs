//! Searches that are as long as what they find. An export reads as fast as its client takes what it finds, takes turns with
//! other long reads, and ends when the client is gone.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::select;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::outlet::Outlet;
use super::{Request, SearchError, Searches};
use crate::bounds::{self, Address, Share};
use crate::event::{Record, json};
use crate::kafka::{End, History, HistoryError, HistoryRange, ReadKind, Step};
use footfall_core::record::csv;

/// Between two reports of progress.
const REPORT_EVERY: Duration = Duration::from_millis(200);

/// A search of any length that can begin: what could be refused has been refused.
pub struct Export {
    searches: Searches,
    request: Request,
    range: HistoryRange,
    client: Address,
    /// Identifies the export in the log.
    request_id: String,
    /// Held until the thread of the export has ended.
    open: Share,
}

impl Searches {
    /// Opens an export, unless too many are open. `request_id` identifies it in the log.
    pub async fn export(&self, client: Address, request: Request, request_id: String) -> Result<Export, SearchError> {
        let open = self.exports.try_acquire(client).map_err(SearchError::Exports)?;
        let asked = request.clone();
        let find =
            move |history: &History, _: &CancellationToken| Ok::<_, SearchError>(asked.range(history, u64::MAX)?);
        let (range, _) = self.reads.run(client, ReadKind::Page, find).await?;
        Ok(Export { searches: self.clone(), request, range, client, request_id, open })
    }
}

impl Export {
    /// The offsets that it searches.
    pub fn range(&self) -> &HistoryRange {
        &self.range
    }

    /// Begins the search on a thread of its own, a little ahead of the client.
    pub fn run(self, format: impl Format + 'static) -> Chunks {
        let Export { searches, request, range, client, request_id, open } = self;
        let (sender, chunks) = mpsc::channel(bounds::CHUNKS_AHEAD);
        let (stop, reset) = (searches.closing.child_token(), CancellationToken::new());
        let result = Chunks { chunks, reset: reset.clone(), _cancels: stop.clone().drop_guard() };
        let outlet = Outlet::new(sender, stop.clone(), searches.reads.scans().clone(), client);
        let running = Running { request, range, format, outlet, stop, reset };
        spawn_blocking(move || {
            running.run(searches.reads.history(), &searches.closing, &request_id);
            drop(open);
        });
        result
    }
}

/// The chunks of an export. When this is dropped the export ends.
pub struct Chunks {
    chunks: mpsc::Receiver<Bytes>,
    /// Cancelled if the export broke off.
    reset: CancellationToken,
    _cancels: DropGuard,
}

/// An export that broke off. Its connection must be reset, because what was sent must not look complete.
#[derive(Debug, thiserror::Error)]
#[error("broken off before its end")]
pub struct BrokenOff;

impl Chunks {
    /// Waits for the next chunk; `None` after the last one, or an error if the export broke off. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Bytes, BrokenOff>> {
        select! {
            // At once, whatever is still to be sent.
            biased;
            () = self.reset.cancelled() => Some(Err(BrokenOff)),
            chunk = self.chunks.recv() => chunk.map(Ok),
        }
    }
}

/// Why an export ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("the client is gone")]
    Gone,
    #[error("the server is shutting down")]
    Closing,
    #[error("the client took nothing for {} s", bounds::UNTAKEN.as_secs())]
    Untaken,
    #[error("the export waited for its client for {} s in all", bounds::EXPORT_WAITS.as_secs())]
    TooSlow,
    #[error(transparent)]
    Read(#[from] HistoryError),
}

/// What an export makes of the records.
pub trait Format: Send {
    /// What comes before the first record. It is sent at once, as the first record may take long to be found.
    fn head(&self) -> &'static [u8] {
        b""
    }

    fn record(&mut self, out: &mut Vec<u8>, record: &Record);

    /// Appends a report of the progress, or of the end; false if the format has no such thing.
    fn report(&mut self, _out: &mut Vec<u8>, _progress: Progress<'_>) -> bool {
        false
    }
}

/// How far an export is.
#[derive(Clone, Copy)]
pub enum Progress<'a> {
    Searching {
        scanned: u64,
        /// Offsets that are left to look at; at least as many as there are records.
        left: u64,
        next: &'a [i64],
        /// The time up to which everything was looked at, in milliseconds since 1970.
        reached_ms: Option<i64>,
    },
    Done(&'a End),
    Failed(&'a str),
}

/// One record a line, as JSON.
pub struct Ndjson {
    pub topic: String,
}

impl Format for Ndjson {
    fn record(&mut self, out: &mut Vec<u8>, record: &Record) {
        json::write(out, &self.topic, record);
        out.push(b'\n');
    }
}

/// One record a line, as RFC 4180 has it.
pub struct Csv;

impl Format for Csv {
    fn head(&self) -> &'static [u8] {
        csv::HEAD
    }

    fn record(&mut self, out: &mut Vec<u8>, record: &Record) {
        csv::line(out, record);
    }
}

/// An export on its thread.
struct Running<F> {
    request: Request,
    range: HistoryRange,
    format: F,
    outlet: Outlet,
    stop: CancellationToken,
    reset: CancellationToken,
}

impl<F: Format> Running<F> {
    fn run(mut self, history: &History, closing: &CancellationToken, request_id: &str) {
        let (broken, reported) = match self.search_and_send(history, closing) {
            Ok(()) => return,
            Err(broken) => broken,
        };
        // A page that has the reason needs no other sign.
        if !reported {
            self.reset.cancel();
        }
        match broken {
            // Nothing to warn of.
            Broken::Gone => tracing::debug!(request.id = request_id, "the client of an export or a search is gone"),
            broken => tracing::warn!(
                request.id = request_id,
                why = broken.to_string(),
                "an export or a search was broken off before its end"
            ),
        }
    }

    /// Sends everything. The error says whether the client has been sent the reason.
    fn search_and_send(&mut self, history: &History, closing: &CancellationToken) -> Result<(), (Broken, bool)> {
        let mut out = self.format.head().to_vec();
        let started = if out.is_empty() { Ok(()) } else { self.outlet.send(std::mem::take(&mut out)) };
        let searched = started.and_then(|()| self.search(history, &mut out)).map_err(|broken| match broken {
            Broken::Gone | Broken::Read(HistoryError::Cancelled) if closing.is_cancelled() => Broken::Closing,
            Broken::Read(HistoryError::Cancelled) => Broken::Gone,
            broken => broken,
        });
        // Nothing is left to wait for but the client.
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

    fn search(&mut self, history: &History, out: &mut Vec<u8>) -> Result<End, Broken> {
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
            |record| request.matches(record),
            |step| {
                let mut has_report = false;
                match step {
                    Step::Found(record) => format.record(out, &record),
                    Step::Progress { scanned, next, reached_ms } => {
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

/// Goes on, or keeps the reason why not.
fn go_on(result: Result<(), Broken>, broken: &mut Option<Broken>) -> ControlFlow<()> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            *broken = Some(error);
            ControlFlow::Break(())
        }
    }
}
