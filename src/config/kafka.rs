//! `[default.kafka]`: which cluster and topic, and how to connect.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::InvalidValue;
use super::secret::{Property, Secret};
use super::table::settings;

settings! {
    "kafka";
    /// The Kafka cluster, the topic that Footfall writes and reads, and how to connect.
    pub struct KafkaSettings {
        /// Addresses of brokers as `host:port`, separated by commas. Empty: Footfall starts the embedded broker.
        /// The variable `KAFKA_BOOTSTRAP_SERVERS` sets it too.
        pub bootstrap_servers: String = String::new();
        /// The topic that Footfall writes and reads: 1 to 249 of `a-z A-Z 0-9 . _ -`. The variable `KAFKA_TOPIC` sets it too.
        pub topic: String = "user_activity".into();
        /// Whether Footfall creates the topic at start if it does not exist.
        pub create_topic: bool = true;
        /// Partitions of a topic that Footfall creates. An existing topic keeps its own.
        pub partitions: i32 = 3, in 1..=1000;
        /// Replication factor of a topic that Footfall creates: 1 to 100, or -1 for the broker's default.
        pub replication: i32 = -1;
        /// `plaintext`, `ssl`, `sasl_plaintext` or `sasl_ssl`.
        /// Empty: the value of `security.protocol` in `kafka.properties`, otherwise `plaintext`.
        pub security_protocol: String = String::new();
        /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`. Needs a security protocol with SASL.
        pub sasl_mechanism: String = String::new();
        /// User name for SASL. Needs a security protocol with SASL.
        pub sasl_username: String = String::new();
        /// Password for SASL. Never shown. Set either the password or the file.
        pub sasl_password: Secret = Secret::default();
        /// File that holds the password for SASL. Line ends at its end do not count.
        pub sasl_password_file: Option<PathBuf> = None;
        /// PEM file of the authorities that signed the brokers' certificates. Empty: those of the system.
        /// Needs a security protocol with TLS, as do the other `ssl_` settings.
        pub ssl_ca_location: String = String::new();
        /// PEM file of the client's certificate, for mutual TLS.
        pub ssl_certificate_location: String = String::new();
        /// PEM file of the client's private key, for mutual TLS.
        pub ssl_key_location: String = String::new();
        /// Password of the private key. Never shown. Set either the password or the file.
        pub ssl_key_password: Secret = Secret::default();
        /// File that holds the password of the private key. Line ends at its end do not count.
        pub ssl_key_password_file: Option<PathBuf> = None;
        /// Any property of librdkafka, such as `"socket.timeout.ms" = 60000`, for all of Footfall's Kafka clients.
        /// It takes precedence over what Footfall prefers. Footfall refuses properties that its guarantees depend on
        /// (`acks`, for example) and names the setting to use instead. Values are never shown. The properties:
        /// <https://github.com/confluentinc/librdkafka/blob/v2.12.1/CONFIGURATION.md>
        pub properties: BTreeMap<String, Property> = BTreeMap::new();
    }
}

impl KafkaSettings {
    /// Whether Footfall starts the embedded broker.
    pub fn embedded(&self) -> bool {
        self.bootstrap_servers.is_empty()
    }

    /// Reads the passwords that are kept in files. An empty path is no file.
    pub(super) fn read_secrets(&mut self) -> Result<(), InvalidValue> {
        for file in [&mut self.sasl_password_file, &mut self.ssl_key_password_file] {
            file.take_if(|path| path.as_os_str().is_empty());
        }
        read_secret("kafka.sasl_password", &mut self.sasl_password, self.sasl_password_file.as_ref())?;
        read_secret("kafka.ssl_key_password", &mut self.ssl_key_password, self.ssl_key_password_file.as_ref())
    }

    pub(super) fn check(&self) -> Result<(), InvalidValue> {
        self.check_topic()?;
        self.check_servers()?;
        self.check_security()?;
        self.check_properties()
    }

    fn check_topic(&self) -> Result<(), InvalidValue> {
        let topic = &self.topic;
        let is_legal = (1..=249).contains(&topic.len())
            && topic != "."
            && topic != ".."
            && topic.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if !is_legal {
            let why = format!("`{topic}` is not a name of a topic; expected 1 to 249 of a-z A-Z 0-9 . _ -");
            return InvalidValue::because("kafka.topic", why);
        }
        if self.replication != -1 && !(1..=100).contains(&self.replication) {
            let why = format!("expected -1 (the broker's default) or 1 to 100, not {}", self.replication);
            return InvalidValue::because("kafka.replication", why);
        }
        Ok(())
    }

    fn check_servers(&self) -> Result<(), InvalidValue> {
        for server in self.bootstrap_servers.split(',').filter(|_| !self.embedded()) {
            let port = server.trim().rsplit_once(':').map(|(host, port)| (host.is_empty(), port.parse::<u16>()));
            if !matches!(port, Some((false, Ok(1..)))) {
                let why = format!("`{server}` is not an address; expected host:port, separated by commas");
                return InvalidValue::because("kafka.bootstrap_servers", why);
            }
        }
        Ok(())
    }

    fn check_security(&self) -> Result<(), InvalidValue> {
        let protocol = self.security_protocol.to_ascii_lowercase();
        if !["", "plaintext", "ssl", "sasl_plaintext", "sasl_ssl"].contains(&protocol.as_str()) {
            let why = format!("`{}` is none of plaintext, ssl, sasl_plaintext, sasl_ssl", self.security_protocol);
            return InvalidValue::because("kafka.security_protocol", why);
        }
        let property = self.properties.get("security.protocol");
        let has_sasl = protocol.starts_with("sasl")
            || property.is_some_and(|property| property.0.to_ascii_lowercase().starts_with("sasl"));
        for (key, value) in [
            ("kafka.sasl_mechanism", self.sasl_mechanism.as_str()),
            ("kafka.sasl_username", &self.sasl_username),
            ("kafka.sasl_password", self.sasl_password.reveal()),
        ] {
            if !value.is_empty() && !has_sasl {
                return InvalidValue::because(key, "needs kafka.security_protocol to be sasl_ssl or sasl_plaintext");
            }
        }
        for (key, path) in [
            ("kafka.ssl_ca_location", &self.ssl_ca_location),
            ("kafka.ssl_certificate_location", &self.ssl_certificate_location),
            ("kafka.ssl_key_location", &self.ssl_key_location),
        ] {
            if !path.is_empty() && !protocol.ends_with("ssl") {
                return InvalidValue::because(key, "needs kafka.security_protocol to be ssl or sasl_ssl");
            }
        }
        Ok(())
    }

    fn check_properties(&self) -> Result<(), InvalidValue> {
        for key in self.properties.keys() {
            if let Some((_, instead)) = RESERVED.iter().find(|(reserved, _)| reserved == key) {
                return InvalidValue::because(
                    &format!("kafka.properties.{key}"),
                    format!("cannot be set here: {instead}"),
                );
            }
        }
        if self.embedded() && (!self.security_protocol.is_empty() || !self.properties.is_empty()) {
            let has_protocol = !self.security_protocol.is_empty();
            return InvalidValue::because(
                if has_protocol { "kafka.security_protocol" } else { "kafka.properties" },
                "needs kafka.bootstrap_servers: without it Footfall starts the embedded broker, which has no such settings",
            );
        }
        Ok(())
    }
}

fn read_secret(key: &str, secret: &mut Secret, file: Option<&PathBuf>) -> Result<(), InvalidValue> {
    let Some(file) = file else { return Ok(()) };
    let file_key = format!("{key}_file");
    if !secret.reveal().is_empty() {
        return InvalidValue::because(&file_key, format!("`{key}` is set too; set only one of them"));
    }
    match std::fs::read_to_string(file) {
        Ok(text) => *secret = Secret(text.trim_end_matches(['\r', '\n']).to_owned()),
        Err(error) => return InvalidValue::because(&file_key, format!("cannot read {}: {error}", file.display())),
    }
    Ok(())
}

/// Properties of librdkafka that Footfall sets itself, and what to use instead.
pub(super) const RESERVED: &[(&str, &str)] = &[
    ("bootstrap.servers", "use kafka.bootstrap_servers"),
    ("metadata.broker.list", "use kafka.bootstrap_servers"),
    ("acks", "a 201 means that all in-sync replicas have the event"),
    ("request.required.acks", "a 201 means that all in-sync replicas have the event"),
    ("enable.idempotence", "it is always on, so that retries inside librdkafka write nothing twice"),
    ("message.timeout.ms", "it is 2 minutes, longer than ingest.deadline, so that nothing is written twice"),
    ("delivery.timeout.ms", "it is 2 minutes, longer than ingest.deadline, so that nothing is written twice"),
    ("request.timeout.ms", "it follows ingest.deadline"),
    ("delivery.report.only.error", "Footfall answers a request when librdkafka reports the delivery"),
    ("enable.gapless.guarantee", "after one event that Kafka rejects, librdkafka would reject all others"),
    ("linger.ms", "use ingest.linger"),
    ("queue.buffering.max.ms", "use ingest.linger"),
    ("queue.buffering.max.messages", "use ingest.queue_messages"),
    ("compression.type", "use ingest.compression"),
    ("compression.codec", "use ingest.compression"),
    ("partitioner", "it is murmur2_random, so that every client puts a user into the same partition"),
    ("transactional.id", "Footfall does not use transactions"),
    ("group.id", "use footfall consume --group"),
    ("auto.commit.enable", "the feed commits nothing, and consume commits what it has written to its output"),
    ("enable.auto.commit", "the feed commits nothing, and consume commits what it has written to its output"),
    ("enable.auto.offset.store", "consume stores an offset after it has written the record to its output"),
    ("auto.offset.reset", "Footfall reports an offset that no longer exists as a gap"),
    ("enable.partition.eof", "Footfall's readers depend on it"),
    ("allow.auto.create.topics", "use kafka.create_topic"),
    ("statistics.interval.ms", "the metric footfall_tail_lag_records depends on it"),
];
