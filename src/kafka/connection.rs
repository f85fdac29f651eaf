//! The connection settings that all clients share, and what their callbacks log.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;

use super::embedded;
use crate::config::KafkaSettings;

/// Where Kafka is and how to reach it. Cheap to clone; keeps the embedded broker alive.
#[derive(Clone)]
pub struct Connection {
    pub(super) base: ClientConfig,
    pub(super) topic: Arc<str>,
    servers: Arc<str>,
    pub(super) embedded: Option<Arc<embedded::EmbeddedBroker>>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// A property that librdkafka does not know, or that contradicts another one.
    #[error("configuration: kafka: {0}")]
    Client(String),
    #[error("cannot start the embedded broker: {0}")]
    Embedded(#[source] KafkaError),
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

impl From<KafkaError> for ConnectionError {
    fn from(error: KafkaError) -> Self {
        ConnectionError::Client(match error {
            // The last field is the property's value, which may be a password: the message leaves it out.
            KafkaError::ClientConfig(_, problem, property, _) if problem.contains(&property) => problem,
            KafkaError::ClientConfig(_, problem, property, _) => format!("{property}: {problem}"),
            other => other.to_string(),
        })
    }
}

impl Connection {
    /// Prepares the clients' settings. Starts the embedded broker if no servers are configured. Needs no reachable
    /// broker.
    pub fn new(settings: &KafkaSettings) -> Result<Self, ConnectionError> {
        let embedded = match settings.embedded() {
            true => Some(Arc::new(embedded::EmbeddedBroker::start(settings).map_err(ConnectionError::Embedded)?)),
            false => None,
        };
        let servers = embedded.as_ref().map_or(settings.bootstrap_servers.as_str(), |broker| broker.servers());
        let mut base = Self::config(settings);
        base.set("bootstrap.servers", servers);
        base.create_native_config()?;
        Ok(Connection { base, topic: settings.topic.as_str().into(), servers: servers.into(), embedded })
    }

    fn config(settings: &KafkaSettings) -> ClientConfig {
        let mut base = ClientConfig::new();
        base.set("client.id", "footfall");
        base.set("topic.metadata.refresh.interval.ms", "10000");
        base.set("reconnect.backoff.ms", "50");
        base.set("reconnect.backoff.max.ms", "1000");
        base.set("socket.keepalive.enable", "true");
        base.set("socket.nagle.disable", "true");
        base.set("log.connection.close", "false");
        for (property, value) in &settings.properties {
            base.set(property, &value.0);
        }
        for (property, value) in [
            ("security.protocol", settings.security_protocol.as_str()),
            ("sasl.mechanism", &settings.sasl_mechanism),
            ("sasl.username", &settings.sasl_username),
            ("sasl.password", settings.sasl_password.reveal()),
            ("ssl.ca.location", &settings.ssl_ca_location),
            ("ssl.certificate.location", &settings.ssl_certificate_location),
            ("ssl.key.location", &settings.ssl_key_location),
            ("ssl.key.password", settings.ssl_key_password.reveal()),
        ] {
            if !value.is_empty() {
                base.set(property, value);
            }
        }
        base.set("bootstrap.servers", &settings.bootstrap_servers);
        base.set_log_level(RDKafkaLogLevel::Warning);
        base
    }

    /// Checks whether librdkafka accepts the settings. Connects to nothing.
    pub fn check(settings: &KafkaSettings) -> Result<(), ConnectionError> {
        let config = Self::config(settings);
        // Some contradictions (a key without its certificate) only show when a client is created.
        match settings.embedded() {
            true => Ok(()),
            false => Ok(rdkafka::client::Client::new(
                &config,
                config.create_native_config()?,
                rdkafka::types::RDKafkaType::RD_KAFKA_PRODUCER,
                Quiet,
            )
            .map(|_| ())?),
        }
    }

    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// `host:port` of the bootstrap servers, separated by commas.
    pub fn addresses(&self) -> &str {
        &self.servers
    }

    /// The brokers as logs and pages name them.
    pub fn servers(&self) -> &str {
        if self.is_embedded() { "embedded broker" } else { &self.servers }
    }

    /// Whether the broker runs in this process. Its events end with the process.
    pub fn is_embedded(&self) -> bool {
        self.embedded.is_some()
    }

    /// Settings that all our readers share: we keep the offsets, and a deleted offset is an error and not skipped
    /// silently. `preferred` applies where the operator has set nothing.
    pub(super) fn reader(&self, preferred: &[(&str, &str)]) -> ClientConfig {
        let mut config = self.base.clone();
        or_set(&mut config, preferred);
        config.set("group.id", "footfall");
        config.set("enable.auto.commit", "false");
        config.set("enable.auto.offset.store", "false");
        config.set("auto.offset.reset", "error");
        config.set("allow.auto.create.topics", "false");
        // The embedded broker does not answer a waiting fetch when data arrives.
        let wait = if self.is_embedded() { "10" } else { "500" };
        let ours = [("fetch.error.backoff.ms", "100"), ("fetch.queue.backoff.ms", "5"), ("fetch.wait.max.ms", wait)];
        or_set(&mut config, &ours);
        config
    }
}

/// Sets properties that are not set yet: the operator's (`kafka.properties`) take precedence.
pub(super) fn or_set(config: &mut ClientConfig, values: &[(&str, &str)]) {
    for (property, value) in values {
        if config.get(property).is_none() {
            config.set(*property, *value);
        }
    }
}

/// A client's callbacks: logs what librdkafka logs, at a level that an unreachable broker does not flood.
#[derive(Clone, Default)]
pub(super) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_client(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(kafka.error = %error, kafka.reason = reason, "kafka client");
    }
}

impl rdkafka::consumer::ConsumerContext for Quiet {}

/// librdkafka repeats itself while a broker is unreachable; `health` logs each change once.
pub(super) fn log_client(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(kafka.facility = facility, "{message}");
        }
        _ => tracing::debug!(kafka.facility = facility, "{message}"),
    }
}

/// How long one request to Kafka may take.
pub(super) const QUESTION: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Property;

    #[test]
    fn operator_settings_of_a_reader_take_precedence() {
        let set = |name: &str, value: &str| (name.to_owned(), Property(value.to_owned()));
        let settings = KafkaSettings {
            bootstrap_servers: "127.0.0.1:9".into(),
            properties: [set("fetch.wait.max.ms", "77"), set("queued.min.messages", "78")].into(),
            ..KafkaSettings::default()
        };
        let connection = Connection::new(&settings).expect("valid settings");
        let config = connection.reader(&[("fetch.wait.max.ms", "10"), ("queued.max.messages.kbytes", "79")]);
        assert_eq!(config.get("fetch.wait.max.ms"), Some("77"));
        assert_eq!(config.get("queued.min.messages"), Some("78"));
        assert_eq!(config.get("queued.max.messages.kbytes"), Some("79"));
    }

    #[test]
    fn a_property_that_is_refused_is_named_without_its_value() {
        for name in ["ssl.key.passwrod", "sasl.jaas.config"] {
            let settings = KafkaSettings {
                bootstrap_servers: "127.0.0.1:9".into(),
                properties: [(name.to_owned(), Property("hunter2".into()))].into(),
                ..KafkaSettings::default()
            };
            let Err(error) = Connection::check(&settings) else { panic!("{name} is taken") };
            let (display, debug) = (error.to_string(), format!("{error:?}"));
            assert!(display.contains(name) && !display.contains("hunter2") && !debug.contains("hunter2"), "{display}");
        }
    }
}
