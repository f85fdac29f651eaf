//! The broker inside the process: librdkafka's mock cluster, which speaks the real protocol and keeps all in memory.

use rdkafka::error::KafkaError;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use crate::config::KafkaSettings;

pub(super) struct Broker {
    _cluster: MockCluster<'static, DefaultProducerContext>,
    servers: String,
}

// The mock cluster is a thread of librdkafka's own; the handle is only kept, to stop it at the end.
unsafe impl Send for Broker {}
unsafe impl Sync for Broker {}

impl Broker {
    pub fn start(settings: &KafkaSettings) -> Result<Self, KafkaError> {
        let cluster = MockCluster::new(1)?;
        cluster.create_topic(&settings.topic, settings.partitions, 1)?;
        let servers = cluster.bootstrap_servers();
        Ok(Broker { _cluster: cluster, servers })
    }

    /// Answers the next requests of a kind with these errors.
    #[cfg(test)]
    pub fn fail(&self, what: rdkafka::types::RDKafkaApiKey, errors: &[rdkafka::types::RDKafkaRespErr]) {
        self._cluster.request_errors(what, errors);
    }

    pub fn servers(&self) -> &str {
        &self.servers
    }
}
