//! Sends the chunks of an export, and waits for its turns to read.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::select;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::{SendTimeoutError, TrySendError};
use tokio_util::sync::CancellationToken;

use super::ExportError;
use crate::bounds::{self, Address, Share, Shares};

/// How long an export waits for its client before it gives up its turn to read.
const GLANCE: Duration = Duration::from_millis(50);
/// How long to wait for a page that reads nothing, to send it the reason why its search failed.
const LAST_WITHIN: Duration = Duration::from_secs(1);

/// Sends an export to its client. Used on the thread of the export: every method blocks.
pub struct ExportSender {
    chunks: mpsc::Sender<Bytes>,
    stop: CancellationToken,
    scans: Shares,
    client: Address,
    /// The permit to read, and since when it is held.
    turn: Option<(Share, Instant)>,
    /// How long the client has kept the export waiting.
    waited: Duration,
    runtime: Handle,
}

impl ExportSender {
    /// Makes a sender in the current runtime. It gives up once `stop` is cancelled.
    pub fn new(chunks: mpsc::Sender<Bytes>, stop: CancellationToken, scans: Shares, client: Address) -> Self {
        ExportSender { chunks, stop, scans, client, turn: None, waited: Duration::ZERO, runtime: Handle::current() }
    }

    /// Waits for a turn to read, as long as necessary. Keeps a turn for [`bounds::SCAN_TURN`].
    pub fn take_turn(&mut self) -> Result<(), ExportError> {
        if self.turn.as_ref().is_some_and(|(_, since)| since.elapsed() < bounds::SCAN_TURN) {
            return Ok(());
        }
        self.turn = None;
        let (scans, client, stop) = (&self.scans, self.client, &self.stop);
        let turn = self.runtime.block_on(async {
            loop {
                select! {
                    () = stop.cancelled() => return None,
                    turn = scans.acquire(client, bounds::UNTAKEN) => if let Ok(turn) = turn { return Some(turn) },
                }
            }
        });
        self.turn = Some((turn.ok_or(ExportError::Gone)?, Instant::now()));
        Ok(())
    }

    pub fn end_turn(&mut self) {
        self.turn = None;
    }

    /// Sends a chunk to the client. If that takes more than a moment, others may read meanwhile.
    pub fn send(&mut self, chunk: Vec<u8>) -> Result<(), ExportError> {
        let chunk = match self.chunks.try_send(chunk.into()) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Closed(_)) => return Err(ExportError::Gone),
            Err(TrySendError::Full(chunk)) => chunk,
        };
        let started_at = Instant::now();
        let sent = match self.runtime.block_on(self.chunks.send_timeout(chunk, GLANCE)) {
            Ok(()) => Ok(()),
            Err(SendTimeoutError::Closed(_)) => Err(ExportError::Gone),
            Err(SendTimeoutError::Timeout(chunk)) => {
                self.end_turn();
                self.send_in_time(chunk)
            }
        };
        self.waited += started_at.elapsed();
        sent?;
        if self.waited > bounds::EXPORT_WAITS { Err(ExportError::TooSlow) } else { Ok(()) }
    }

    fn send_in_time(&self, chunk: Bytes) -> Result<(), ExportError> {
        self.runtime.block_on(async {
            select! {
                () = self.stop.cancelled() => Err(ExportError::Gone),
                sent = self.chunks.send_timeout(chunk, bounds::UNTAKEN) => sent.map_err(|error| match error {
                    SendTimeoutError::Timeout(_) => ExportError::Untaken,
                    SendTimeoutError::Closed(_) => ExportError::Gone,
                }),
            }
        })
    }

    /// Sends the last chunk of a failed search. Returns false if the client does not read it at once.
    pub fn send_last(&self, chunk: Vec<u8>) -> bool {
        self.runtime.block_on(self.chunks.send_timeout(chunk.into(), LAST_WITHIN)).is_ok()
    }
}
