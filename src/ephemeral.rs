//! A test double for tracking: a process that can forget everything it was sent (`footfall serve --ephemeral`).

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::bounds;
use crate::ingest::Ingest;
use crate::kafka::{ClusterState, HistoryError, TopicEmptier};
use crate::rejects::Rejects;

/// Why not everything was forgotten.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    #[error(transparent)]
    History(#[from] HistoryError),
    #[error("events were forgotten, but new ones are not accepted yet")]
    NotReady,
    /// The thread of the request panicked.
    #[error("the request failed")]
    Failed,
}

/// Forgets all events and rejects on demand. Only a test double has one.
pub struct Ephemeral {
    emptier: TopicEmptier,
    kafka: watch::Receiver<ClusterState>,
    ingest: Arc<Ingest>,
    rejects: Arc<Rejects>,
}

impl Ephemeral {
    pub fn new(
        emptier: TopicEmptier,
        kafka: watch::Receiver<ClusterState>,
        ingest: Arc<Ingest>,
        rejects: Arc<Rejects>,
    ) -> Self {
        Ephemeral { emptier, kafka, ingest, rejects }
    }

    /// Forgets the events that were acknowledged and the requests that were refused before this call, and waits until new
    /// events are accepted. To readers the topic was recreated: open streams get a `gap`, and then what comes.
    pub async fn forget(&self) -> Result<(), ForgetError> {
        let emptier = self.emptier.clone();
        let emptied = tokio::task::spawn_blocking(move || emptier.empty());
        let topic = emptied.await.map_err(|_| ForgetError::Failed)??;
        self.rejects.clear();
        let mut kafka = self.kafka.clone();
        let ready = async {
            // The ids of an emptied topic only grow.
            let is_emptied = |state: &ClusterState| state.topic().is_some_and(|known| known.id >= topic);
            kafka.wait_for(is_emptied).await.map_err(|_| ForgetError::NotReady)?;
            while self.ingest.unavailable().is_some() {
                sleep(bounds::LOOK_AGAIN).await;
            }
            Ok(())
        };
        timeout(bounds::READY, ready).await.unwrap_or(Err(ForgetError::NotReady))
    }
}
