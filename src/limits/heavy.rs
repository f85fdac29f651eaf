//! Work for a request that would keep an async worker busy for too long: parsing a large body, rendering a page.

use crate::bounds::{self, Address, Busy, Shares};

/// Runs such work on threads of its own, a bounded number at a time, of which one address has half. Cheap to clone.
#[derive(Clone)]
pub struct HeavyWork(Shares);

/// Why the work was not done.
#[derive(Debug, thiserror::Error)]
pub enum HeavyWorkError {
    /// No thread became free within [`bounds::TURN`].
    #[error("too many large requests and pages are being processed: {0}")]
    Busy(#[from] Busy),
    /// The work panicked.
    #[error("the work on the request failed")]
    Failed,
}

impl Default for HeavyWork {
    fn default() -> Self {
        let (total, each) = bounds::parsers();
        HeavyWork(Shares::new(total, each))
    }
}

impl HeavyWork {
    /// Runs the work when it is the turn of its address. The permit is held until the work ends, even if no one waits
    /// for the result any more.
    pub async fn run<T: Send + 'static>(
        &self,
        client: Address,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, HeavyWorkError> {
        let share = self.0.acquire(client, bounds::TURN).await?;
        let done = tokio::task::spawn_blocking(move || {
            let _share = share;
            work()
        });
        done.await.map_err(|_| HeavyWorkError::Failed)
    }
}
