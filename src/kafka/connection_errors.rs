//! Why a client gets no answer. librdkafka reports the reason in callbacks; the request itself only times out.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::{Connection, HistoryError};

/// How long a client gets to report why it has no answer.
const LISTENS: Duration = Duration::from_secs(2);

/// Returns the error of a request without an answer. An admin client does not report connection errors, so a consumer
/// connects too and reports why it cannot. Blocks for at most 2 s.
pub(super) fn no_answer(connection: &Connection, otherwise: impl std::fmt::Display) -> HistoryError {
    let reason = heard(connection).unwrap_or_else(|| otherwise.to_string());
    HistoryError::Unreachable(format!("no answer from {}: {reason}", connection.servers()))
}

/// Returns why a client cannot reach a broker, in librdkafka's words; `None` if it can, or reports nothing.
pub(super) fn heard(connection: &Connection) -> Option<String> {
    let causes = Causes::default();
    let mut config = connection.reader(&[]);
    log_failures(&mut config);
    let consumer: BaseConsumer<Causes> = config.create_with_context(causes.clone()).ok()?;
    let started = Instant::now();
    while started.elapsed() < LISTENS {
        let _ = consumer.poll(Duration::from_millis(50)); // the callbacks get the reason
        if causes.rank() > 1 {
            break;
        }
    }
    let heard = causes.0.lock().unwrap_or_else(PoisonError::into_inner);
    heard.as_ref().map(|(_, reason)| reason.clone())
}

/// Makes a client log each failed connection, with the facility [`FAILED`]. librdkafka reports in no other way that a
/// broker closed the connection, as brokers do with clients that should log in.
pub(super) fn log_failures(config: &mut ClientConfig) {
    config.set("log.connection.close", "true");
    config.set_log_level(RDKafkaLogLevel::Info);
}

/// The facility of librdkafka's log lines about failed connections.
pub(super) const FAILED: &str = "FAIL";

/// Strips the parts of librdkafka's reason that differ each time: the thread and the duration.
pub(super) fn plain(message: &str) -> &str {
    let reason = match message.strip_prefix("[thrd:").and_then(|rest| rest.split_once("]: ")) {
        Some((_, reason)) => reason,
        None => message,
    };
    reason.split(" (after ").next().unwrap_or(reason)
}

/// Returns what an operator can do about a reason, where librdkafka does not say it.
pub(super) fn hint(reason: &str) -> Option<&'static str> {
    // librdkafka names a broker `host:port/bootstrap` at first, and `host:port/id` once the cluster has announced it.
    let broker = reason.split(": ").next().and_then(|broker| broker.rsplit_once('/'));
    if reason.contains("Disconnected") {
        Some("the broker closes the connection: it may expect a login or TLS (kafka.security_protocol)")
    } else if broker.is_some_and(|(_, number)| number.parse::<i32>().is_ok()) {
        Some("this is the address that the broker advertises (advertised.listeners)")
    } else {
        None
    }
}

/// Keeps the most informative reason.
#[derive(Clone, Default)]
struct Causes(Arc<Mutex<Option<(u8, String)>>>);

impl Causes {
    fn rank(&self) -> u8 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map_or(0, |(rank, _)| *rank)
    }

    fn learn(&self, message: &str) {
        let reason = plain(message);
        if ["SASL", "SSL", "uthentication"].iter().any(|word| reason.contains(word)) {
            self.keep(3, reason.to_owned());
        } else if let Some(hint) = hint(reason) {
            self.keep(2, format!("{reason}; {hint}"));
        } else {
            self.keep(1, reason.to_owned());
        }
    }

    fn keep(&self, rank: u8, reason: String) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.as_ref().is_none_or(|(known, _)| *known < rank) {
            *heard = Some((rank, reason));
        }
    }
}

impl ClientContext for Causes {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::log_client(level, facility, message);
        if facility == FAILED {
            self.learn(message);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(kafka.error = %error, kafka.reason = reason, "kafka client");
        // The number of brokers that are down is no reason.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            self.learn(reason);
        }
    }
}

impl ConsumerContext for Causes {}
