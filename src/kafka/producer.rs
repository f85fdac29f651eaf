//! Writing: a message goes into librdkafka's bounded queue at once, and what became of it is told exactly once.
//!
//! Promises `acks=all` with idempotence: `Ok` means that all in-sync replicas have it, once. It makes no policy: when
//! to refuse and what to answer is `ingest`'s.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::bindings as sys;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};

use super::cluster::Known;
use super::{Cluster, Connection, ConnectionError, or_set};
use crate::config::IngestSettings;

/// How long a message is tried, whether somebody still waits for it or not: Kafka's own default for `delivery.timeout.ms`
/// (KIP-91).
const DELIVERY: Duration = Duration::from_secs(120);

/// What is to be written.
pub struct Message<'a> {
    key: &'a [u8],
    value: &'a [u8],
    headers: OwnedHeaders,
}

impl<'a> Message<'a> {
    pub fn new<'h>(key: &'a [u8], value: &'a [u8], headers: impl Iterator<Item = (&'h str, &'h str)>) -> Self {
        let owned = OwnedHeaders::new_with_capacity(headers.size_hint().0);
        let headers = headers.fold(owned, |owned, (key, value)| owned.insert(Header { key, value: Some(value) }));
        Message { key, value, headers }
    }
}

/// Where Kafka put it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    pub partition: i32,
    pub offset: i64,
}

/// Why it is not, or may not be, in Kafka.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ProduceError {
    #[error("the queue to Kafka is full")]
    QueueFull,
    /// Not written for certain: a retry makes sense.
    #[error("kafka did not take it: {0}")]
    NotWritten(String),
    /// Written for certain: Kafka took a retry for what it had already, and did not say where that stands.
    #[error("kafka has it, and did not say where")]
    Placeless,
    /// Perhaps written: only a retry with the same id is safe.
    #[error("kafka did not acknowledge it: {0}")]
    Unknown(String),
    /// Kafka will never take it: size, permission, policy.
    #[error("kafka refuses it: {0}")]
    Refused(String),
}

/// Is told, once for each message, what became of it; on the producer's own thread, so it must not block.
pub trait Completion: Send + Sync {
    fn complete(&self, index: usize, outcome: Result<Delivered, ProduceError>);
}

/// What travels with a message through librdkafka and comes back with its delivery report.
struct Ticket {
    completion: Arc<dyn Completion>,
    index: usize,
}

pub struct Producer {
    inner: ThreadedProducer<Deliveries>,
    topic: Arc<str>,
}

impl Producer {
    pub fn new(connection: &Connection, cluster: &Cluster, settings: &IngestSettings) -> Result<Self, ConnectionError> {
        let mut config = connection.base.clone();
        config.set("acks", "all");
        config.set("enable.idempotence", "true");
        config.set("partitioner", "murmur2_random");
        config.set("compression.type", &settings.compression);
        config.set("linger.ms", (settings.linger.as_secs_f64() * 1000.0).to_string());
        config.set("queue.buffering.max.messages", settings.queue_messages.to_string());
        // Far longer than the request's deadline: a message that times out makes librdkafka take a new epoch, in which the
        // broker no longer recognises the retries of other messages, and those would be written twice.
        config.set("message.timeout.ms", settings.deadline.saturating_mul(2).max(DELIVERY).as_millis().to_string());
        config.set("request.timeout.ms", (settings.deadline.as_millis() * 9 / 10).clamp(1, 30_000).to_string());
        or_set(&mut config, &[("queue.buffering.max.kbytes", "262144"), ("retry.backoff.ms", "50")]);
        let inner = ThreadedProducer::from_config_and_context(&config, Deliveries { known: cluster.known() })?;
        Ok(Producer { inner, topic: connection.topic.clone() })
    }

    /// Queues a message; never blocks. `completion` hears of it unless this returns an error.
    pub fn send(&self, message: Message, index: usize, completion: &Arc<dyn Completion>) -> Result<(), ProduceError> {
        let Message { key, value, headers } = message;
        let ticket = Box::new(Ticket { completion: completion.clone(), index });
        let record = BaseRecord::with_opaque_to(&self.topic, ticket).key(key).payload(value).headers(headers);
        self.inner.send(record).map_err(|(error, _)| explain(&error, false))
    }

    /// Messages that wait or are under way.
    pub fn in_flight(&self) -> i32 {
        self.inner.in_flight_count()
    }

    /// Blocks until everything was delivered or given up, at most for `within`. Says whether nothing is left.
    pub fn flush(&self, within: Duration) -> bool {
        self.inner.flush(within).is_ok()
    }
}

struct Deliveries {
    known: Known,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::log_client(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.known.hear(&error, reason);
        tracing::debug!(kafka.error = %error, kafka.reason = reason, "kafka producer");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Self::DeliveryOpaque) {
        let outcome = match result {
            Ok(message) if message.offset() < 0 => Err(ProduceError::Placeless),
            Ok(message) => Ok(Delivered { partition: message.partition(), offset: message.offset() }),
            Err((error, message)) => {
                let status = unsafe { sys::rd_kafka_message_status(message.ptr()) };
                Err(explain(error, status != sys::rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_NOT_PERSISTED))
            }
        };
        ticket.completion.complete(ticket.index, outcome);
    }
}

fn explain(error: &KafkaError, perhaps_written: bool) -> ProduceError {
    use RDKafkaErrorCode::*;
    match error.rdkafka_error_code() {
        Some(QueueFull) => ProduceError::QueueFull,
        // Also if the last attempt was denied: an earlier one may have been appended.
        Some(code) if perhaps_written => ProduceError::Unknown(code.to_string()),
        Some(
            code @ (MessageSizeTooLarge
            | InvalidMessageSize
            | TopicAuthorizationFailed
            | ClusterAuthorizationFailed
            | PolicyViolation
            | InvalidRecord),
        ) => ProduceError::Refused(code.to_string()),
        Some(code) => ProduceError::NotWritten(code.to_string()),
        None => ProduceError::NotWritten(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(code: RDKafkaErrorCode, perhaps_written: bool) -> ProduceError {
        explain(&KafkaError::MessageProduction(code), perhaps_written)
    }

    #[test]
    fn what_may_be_written_is_unknown_whatever_came_last() {
        for code in [RDKafkaErrorCode::TopicAuthorizationFailed, RDKafkaErrorCode::MessageTimedOut] {
            assert!(matches!(explained(code, true), ProduceError::Unknown(_)), "{code}");
        }
        assert!(matches!(explained(RDKafkaErrorCode::TopicAuthorizationFailed, false), ProduceError::Refused(_)));
    }

    #[test]
    fn a_topic_that_is_away_for_a_moment_is_worth_a_retry() {
        for code in [RDKafkaErrorCode::UnknownTopic, RDKafkaErrorCode::UnknownPartition] {
            assert!(matches!(explained(code, false), ProduceError::NotWritten(_)), "{code}");
        }
    }
}
