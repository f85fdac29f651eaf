//! The broker inside the process: librdkafka's mock cluster, which speaks the real protocol and keeps all data in
//! memory.

use rdkafka::error::KafkaError;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use crate::config::KafkaSettings;

pub(super) struct EmbeddedBroker {
    _cluster: MockCluster<'static, DefaultProducerContext>,
    servers: String,
}

// The mock cluster runs on a thread of librdkafka's; this handle only stops it at the end.
unsafe impl Send for EmbeddedBroker {}
unsafe impl Sync for EmbeddedBroker {}

impl EmbeddedBroker {
    pub fn start(settings: &KafkaSettings) -> Result<Self, KafkaError> {
        let cluster = MockCluster::new(1)?;
        cluster.create_topic(&settings.topic, settings.partitions, 1)?;
        let servers = cluster.bootstrap_servers();
        Ok(EmbeddedBroker { _cluster: cluster, servers })
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
