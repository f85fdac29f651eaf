//! Where an export hands over its chunks, and whose turn it is to read.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::select;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::{SendTimeoutError, TrySendError};
use tokio_util::sync::CancellationToken;

use super::Broken;
use crate::bounds::{self, Address, Share, Shares};

/// How long an export waits for its client without giving up its turn to read.
const GLANCE: Duration = Duration::from_millis(50);
/// How long a page that takes nothing is waited for, to send it the reason why its search failed.
const LAST_WITHIN: Duration = Duration::from_secs(1);

/// The way of an export to its client. Used on the thread of the export: every method blocks.
pub struct Outlet {
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

impl Outlet {
    /// An outlet of the runtime in which it is made. It gives up once `stop` is cancelled.
    pub fn new(chunks: mpsc::Sender<Bytes>, stop: CancellationToken, scans: Shares, client: Address) -> Self {
        Outlet { chunks, stop, scans, client, turn: None, waited: Duration::ZERO, runtime: Handle::current() }
    }

    /// Waits for a turn to read, as long as that takes. A turn that is held is kept for [`bounds::SCAN_TURN`].
    pub fn take_turn(&mut self) -> Result<(), Broken> {
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
        self.turn = Some((turn.ok_or(Broken::Gone)?, Instant::now()));
        Ok(())
    }

    pub fn end_turn(&mut self) {
        self.turn = None;
    }

    /// Hands a chunk to the client. While it waits for more than a moment, others may read.
    pub fn send(&mut self, chunk: Vec<u8>) -> Result<(), Broken> {
        let chunk = match self.chunks.try_send(chunk.into()) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Closed(_)) => return Err(Broken::Gone),
            Err(TrySendError::Full(chunk)) => chunk,
        };
        let started_at = Instant::now();
        let sent = match self.runtime.block_on(self.chunks.send_timeout(chunk, GLANCE)) {
            Ok(()) => Ok(()),
            Err(SendTimeoutError::Closed(_)) => Err(Broken::Gone),
            Err(SendTimeoutError::Timeout(chunk)) => {
                self.end_turn();
                self.send_in_time(chunk)
            }
        };
        self.waited += started_at.elapsed();
        sent?;
        if self.waited > bounds::EXPORT_WAITS { Err(Broken::TooSlow) } else { Ok(()) }
    }

    fn send_in_time(&self, chunk: Bytes) -> Result<(), Broken> {
        self.runtime.block_on(async {
            select! {
                () = self.stop.cancelled() => Err(Broken::Gone),
                sent = self.chunks.send_timeout(chunk, bounds::UNTAKEN) => sent.map_err(|error| match error {
                    SendTimeoutError::Timeout(_) => Broken::Untaken,
                    SendTimeoutError::Closed(_) => Broken::Gone,
                }),
            }
        })
    }

    /// Hands over the last chunk of a search that failed; false if the client does not take it at once.
    pub fn send_last(&self, chunk: Vec<u8>) -> bool {
        self.runtime.block_on(self.chunks.send_timeout(chunk.into(), LAST_WITHIN)).is_ok()
    }
}
