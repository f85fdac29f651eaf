//! Work for a request that would keep an async worker busy for too long: parsing a large body, rendering a page.

use bytes::Bytes;

use crate::bounds::{self, Address, Busy, SMALL_BODY, Shares};

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
    /// Parses a body: at once if it has at most [`SMALL_BODY`], else as [`HeavyWork::run`] does.
    pub async fn parse<T: Send + 'static>(
        &self,
        client: Address,
        body: Bytes,
        parse: impl FnOnce(Bytes) -> T + Send + 'static,
    ) -> Result<T, HeavyWorkError> {
        match body.len() <= SMALL_BODY {
            true => Ok(parse(body)),
            false => self.run(client, move || parse(body)).await,
        }
    }

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
