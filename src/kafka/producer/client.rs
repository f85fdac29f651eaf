//! librdkafka's producers: each has a thread, which takes the delivery reports and replaces the client after a fatal error.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::bindings as sys;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{Producer as _, ProducerContext};

use super::super::{Stop, connection_errors, log_client};
use super::{CHECK_EVERY, Client, ClientKind, Delivered, ProduceError, SendQueue, Ticket, blames_the_batch};

/// How long a replacement of a failed client is watched before it counts as working: a missing right shows when the
/// client requests its producer id, right after it has connected.
const TRIAL: Duration = Duration::from_millis(500);
/// How long messages in flight of a failed client may take to be acknowledged.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(1);
/// Pauses between a failed client and the next one: at first, and at most.
const REPLACE_AFTER: Duration = Duration::from_millis(100);
const REPLACE_AFTER_MOST: Duration = Duration::from_secs(5);

/// Runs one of librdkafka's producers: takes its delivery reports, and replaces it after a fatal error.
pub(super) struct ClientThread {
    pub(super) queue: Arc<SendQueue>,
    pub(super) which: ClientKind,
    pub(super) config: ClientConfig,
}

impl ClientThread {
    /// Creates a client, which gets all further messages.
    pub(super) fn connect(&self) -> Result<Arc<Client>, KafkaError> {
        let reports = Reports { queue: self.queue.clone() };
        let client = Arc::new(Client::from_config_and_context(&self.config, reports)?);
        self.queue.set_client(self.which, Some(client.clone()));
        Ok(client)
    }

    pub(super) fn run(self, mut client: Arc<Client>, stop: &Stop) {
        let (mut started, mut pause) = (Instant::now(), REPLACE_AFTER);
        let mut failed = false;
        while !stop.is_requested() {
            client.poll(CHECK_EVERY);
            if let Some((code, reason)) = client.client().fatal_error() {
                failed = true;
                tracing::debug!(kafka.error = %code, reason, "fatal error of a producer");
                self.queue.health.producer(self.which as usize, Some((code, &reason)));
                self.end(client);
                match self.replace(&mut pause, stop) {
                    Some(next) => client = next,
                    None => return,
                }
                started = Instant::now();
            } else if failed && started.elapsed() > TRIAL {
                (failed, pause) = (false, REPLACE_AFTER);
                self.queue.health.producer(self.which as usize, None);
            }
        }
        self.queue.set_client(self.which, None);
    }

    /// Closes a client that accepts nothing any more. Its messages in flight get a moment to be acknowledged.
    fn end(&self, client: Arc<Client>) {
        self.queue.set_client(self.which, None);
        let started = Instant::now();
        // Another holder of the client is about to pass it a message.
        while Arc::strong_count(&client) > 1 || client.in_flight_count() > 0 && started.elapsed() < ACKNOWLEDGED_WITHIN
        {
            client.poll(Duration::from_millis(10));
        }
        drop(client); // reports what is left
    }

    /// Returns the next client, after a pause; `None` if the producer is being dropped.
    fn replace(&self, pause: &mut Duration, stop: &Stop) -> Option<Arc<Client>> {
        loop {
            let (started, denied) = (Instant::now(), self.queue.health.rights().write == Some(false));
            while started.elapsed() < *pause {
                if stop.is_requested() {
                    return None;
                }
                if denied && self.queue.health.rights().write == Some(true) {
                    break;
                }
                std::thread::sleep(CHECK_EVERY.min(*pause));
            }
            *pause = pause.saturating_mul(2).min(REPLACE_AFTER_MOST);
            match self.connect() {
                Ok(client) => return Some(client),
                Err(error) => tracing::error!(error = %error, "cannot create a producer; retrying"),
            }
        }
    }
}

/// librdkafka's callbacks.
pub(super) struct Reports {
    pub(super) queue: Arc<SendQueue>,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_client(level, facility, message);
        if facility == connection_errors::FAILED {
            self.queue.health.on_connection_failed(message);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.queue.health.on_client_error(&error, reason);
        tracing::debug!(kafka.error = %error, kafka.reason = reason, "kafka producer");
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Self::DeliveryOpaque) {
        let mut ticket = ticket;
        let outcome = match result {
            Ok(message) if message.offset() < 0 => Err(ProduceError::OffsetUnknown),
            Ok(message) => Ok(Delivered { partition: message.partition(), offset: message.offset() }),
            Err((error, message)) => {
                let status = unsafe { sys::rd_kafka_message_status(message.ptr()) };
                let perhaps_written = status != sys::rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_NOT_PERSISTED;
                if !perhaps_written {
                    ticket = match self.queue.try_alone(error, message, ticket) {
                        Ok(()) => return,
                        Err(ticket) => ticket,
                    };
                }
                let in_company = !ticket.alone && error.rdkafka_error_code().is_some_and(blames_the_batch);
                Err(match in_company && !perhaps_written {
                    // A message that was sent after it is written, so its sender must send it again.
                    true => ProduceError::NotWritten(error.to_string()),
                    false => self.queue.explain(error, perhaps_written),
                })
            }
        };
        let written = outcome.is_ok();
        if written {
            self.queue.health.written();
        }
        let clock_refused = |error: &KafkaError| error.rdkafka_error_code() == Some(RDKafkaErrorCode::InvalidTimestamp);
        if let (Err((error, _)), Err(explained)) = (result, &outcome)
            && ticket.alone
            && clock_refused(error)
        {
            self.queue.give_up_refused(ticket.partition_queue, explained);
        }
        ticket.completion.complete(ticket.index, outcome);
        self.queue.settle(&ticket, written);
    }
}
