//! Reads of the topic for requests. Each read waits for a permit, runs on a thread that may block, and is cancelled when
//! the caller is dropped.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{History, HistoryError};
use crate::bounds::{self, Address, Busy, Share, Shares};

/// How many records a read looks at, which decides whose turn it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadKind {
    /// About as many as it returns.
    Page,
    /// Perhaps many more than it returns.
    Scan,
}

/// A read that did not take place, or did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No permit became free within `bounds::TURN`.
    #[error("too many reads of the topic run or wait: {0}")]
    Busy(#[from] Busy),
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The thread of the read panicked.
    #[error("the read failed")]
    Failed,
}

/// The topic's history with the permits of all that read it for requests. Cheap to clone.
#[derive(Clone)]
pub struct Reads {
    history: Arc<History>,
    pages: Shares,
    scans: Shares,
}

impl Reads {
    pub fn new(history: Arc<History>) -> Self {
        Reads {
            history,
            pages: Shares::new(bounds::READS, bounds::READS_EACH),
            scans: Shares::new(bounds::SCANS, bounds::SCANS_EACH),
        }
    }

    /// The history, for a read that holds a permit of its own.
    pub fn history(&self) -> &Arc<History> {
        &self.history
    }

    /// The permits of long reads, for one that takes turns.
    pub fn scans(&self) -> &Shares {
        &self.scans
    }

    /// Permits that are held, by the kind of read.
    pub fn held(&self) -> [(&'static str, usize); 2] {
        [("page", self.pages.held()), ("scan", self.scans.held())]
    }

    /// Runs `work` on a thread that may block, once there is a permit for `client`. If the caller is dropped, it leaves the
    /// queue, or cancels the token that `work` gets. The permit is held until `work` has really returned; with its result the
    /// caller gets the permit, to keep as long as it needs the memory of the read.
    pub async fn run<T, E>(
        &self,
        client: Address,
        kind: ReadKind,
        work: impl FnOnce(&History, &CancellationToken) -> Result<T, E> + Send + 'static,
    ) -> Result<(T, Share), E>
    where
        T: Send + 'static,
        E: From<ReadError> + Send + 'static,
    {
        let shares = match kind {
            ReadKind::Page => &self.pages,
            ReadKind::Scan => &self.scans,
        };
        let share = shares.acquire(client, bounds::TURN).await.map_err(ReadError::from)?;
        let (history, stop) = (self.history.clone(), CancellationToken::new());
        let _cancels = stop.clone().drop_guard();
        let done = tokio::task::spawn_blocking(move || {
            let result = work(&history, &stop);
            (result, share)
        });
        let (result, share) = done.await.map_err(|_| ReadError::Failed)?;
        Ok((result?, share))
    }
}
