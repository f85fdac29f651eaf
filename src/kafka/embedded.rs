//! The broker inside the process: librdkafka's mock cluster, which speaks the real protocol and keeps all data in
//! memory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;

use rdkafka::error::KafkaError;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::watch::TopicId;
use super::{Cluster, Connection, History, HistoryError};
use crate::config::KafkaSettings;

pub(super) struct EmbeddedBroker {
    _cluster: MockCluster<'static, DefaultProducerContext>,
    servers: String,
    emptied: Mutex<Emptied>,
}

/// What readers do not see of the topic, because it was emptied: the mock cluster can delete neither records nor topics.
#[derive(Clone, Default)]
pub(super) struct Emptied {
    /// How often the topic was emptied.
    pub times: i64,
    /// By partition: the offset at which the topic starts since then. Empty if it was never emptied.
    pub starts: Vec<i64>,
}

impl Emptied {
    /// The topic's id: an emptied topic counts as recreated.
    pub fn topic_id(&self) -> TopicId {
        (0, self.times)
    }
}

// The mock cluster runs on a thread of librdkafka's; this handle only stops it at the end.
unsafe impl Send for EmbeddedBroker {}
unsafe impl Sync for EmbeddedBroker {}

impl EmbeddedBroker {
    pub fn start(settings: &KafkaSettings) -> Result<Self, KafkaError> {
        let cluster = MockCluster::new(1)?;
        cluster.create_topic(&settings.topic, settings.partitions, 1)?;
        let servers = cluster.bootstrap_servers();
        Ok(EmbeddedBroker { _cluster: cluster, servers, emptied: Mutex::default() })
    }

    pub fn emptied(&self) -> MutexGuard<'_, Emptied> {
        self.emptied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers the next requests of a kind with these errors.
    #[cfg(test)]
    pub fn fail(&self, what: rdkafka::types::RDKafkaApiKey, errors: &[rdkafka::types::RDKafkaRespErr]) {
        self._cluster.request_errors(what, errors);
    }

    /// Makes the only broker the leader of a partition, or leaves the partition without one.
    #[cfg(test)]
    pub fn lead(&self, topic: &str, partition: i32, leads: bool) {
        self._cluster.partition_leader(topic, partition, leads.then_some(1)).expect("a partition of the topic");
    }

    pub fn servers(&self) -> &str {
        &self.servers
    }
}

/// Empties the topic of the embedded broker.
#[derive(Clone)]
pub struct TopicEmptier {
    broker: Arc<EmbeddedBroker>,
    history: Arc<History>,
    watcher: Thread,
}

impl TopicEmptier {
    /// Returns `None` if the broker is not the embedded one.
    pub fn new(connection: &Connection, cluster: &Cluster, history: &Arc<History>) -> Option<Self> {
        let (broker, watcher) = (connection.embedded.clone()?, cluster.watcher()?);
        Some(TopicEmptier { broker, history: history.clone(), watcher })
    }

    /// Hides what the topic holds now from all readers of this process, as if the topic had been recreated, except that the
    /// offsets continue. Returns the topic's new id, which the cluster's state has soon. Blocks.
    pub fn empty(&self) -> Result<TopicId, HistoryError> {
        let mut starts: Vec<i64> = self.history.bounds_of(&[])?.into_iter().map(|(_, end)| end).collect();
        let mut emptied = self.broker.emptied();
        // Another call may have asked later.
        starts.iter_mut().zip(&emptied.starts).for_each(|(start, before)| *start = (*start).max(*before));
        *emptied = Emptied { times: emptied.times + 1, starts };
        self.watcher.unpark(); // so that it does not wait for its next question
        Ok(emptied.topic_id())
    }
}
