//! `footfall consume`: a member of a consumer group that writes records to its output, at least once.
//!
//! An offset is stored after its record was written and flushed; stored offsets are committed in the background and at
//! the end. An offset after transaction markers and aborted records, which are never delivered, is stored once it is
//! reached.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};

use super::consumer::fetch::record_of;
use super::{Connection, connection_errors};
use crate::event::Record;

pub struct Options {
    pub group: String,
    /// Read everything again, including what the group has committed.
    pub from_beginning: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("Kafka: {0}")]
    Kafka(#[from] KafkaError),
    /// Kafka rejects the login: a wrong password or certificate, as librdkafka reports it.
    #[error("Kafka: {0}")]
    Refused(String),
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
}

/// Most records between two flushes.
const BATCH: u32 = 1000;
/// How long the same report of librdkafka is not logged again.
const REPEAT_AFTER: Duration = Duration::from_secs(30);

/// Reads as a member of the group until `stop` is set or `write` fails. Calls `flush` before it stores the offset of
/// what `write` got.
pub fn consume(
    connection: &Connection,
    options: &Options,
    stop: &AtomicBool,
    write: &mut dyn FnMut(&Record) -> io::Result<()>,
    flush: &mut dyn FnMut() -> io::Result<()>,
) -> Result<(), WorkerError> {
    let preferred = [("auto.commit.interval.ms", "1000"), ("queued.max.messages.kbytes", "8192")];
    let mut config = connection.reader(&preferred);
    config.set("group.id", &options.group);
    config.set("auto.offset.reset", "earliest");
    config.set("enable.auto.commit", "true");
    let group = GroupContext {
        from_beginning: options.from_beginning,
        started: Mutex::default(),
        assigned: AtomicBool::new(false),
        refused: Mutex::default(),
        logged: Mutex::default(),
    };
    let consumer = BaseConsumer::from_config_and_context(&config, group)?;
    consumer.subscribe(&[connection.topic()])?;
    let mut worker = GroupConsumer {
        consumer,
        topic: connection.topic().to_owned(),
        written: BTreeMap::new(),
        stored: BTreeMap::new(),
    };
    let result = worker.run(connection, stop, write, flush);
    // What was written is committed on every return path, also after a closed pipe.
    worker.commit();
    result
}

struct GroupConsumer {
    consumer: BaseConsumer<GroupContext>,
    topic: String,
    /// By partition, the offset after the last record written since the last flush.
    written: BTreeMap<i32, i64>,
    /// The last offset stored, by partition.
    stored: BTreeMap<i32, i64>,
}

impl GroupConsumer {
    fn run(
        &mut self,
        connection: &Connection,
        stop: &AtomicBool,
        write: &mut dyn FnMut(&Record) -> io::Result<()>,
        flush: &mut dyn FnMut() -> io::Result<()>,
    ) -> Result<(), WorkerError> {
        let mut unflushed = 0;
        let mut troubled: Option<Instant> = None;
        while !stop.load(Ordering::Relaxed) {
            let wait = if unflushed > 0 { Duration::ZERO } else { Duration::from_millis(100) };
            let consumer = &self.consumer;
            match consumer.poll(wait) {
                Some(Ok(message)) => {
                    troubled = None;
                    write(&record_of(&message))?;
                    self.written.insert(message.partition(), message.offset() + 1);
                    unflushed += 1;
                    if unflushed < BATCH {
                        continue;
                    }
                }
                Some(Err(error)) if error_is_final(&error, consumer) => return Err(error.into()),
                Some(Err(error)) => {
                    if let Some(reason) = consumer.context().refused() {
                        return Err(WorkerError::Refused(reason));
                    }
                    if troubled.is_none() {
                        // A consumer without an assignment does not know the reason.
                        let why =
                            if consumer.context().is_assigned() { None } else { connection_errors::heard(connection) };
                        let error = why.unwrap_or_else(|| error.to_string());
                        tracing::warn!(kafka.topic = self.topic, error, "cannot read; retrying");
                        troubled = Some(Instant::now());
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
                None => {}
            }
            if unflushed > 0 {
                flush()?;
                unflushed = 0;
                self.store()?;
            } else {
                self.store_reached()?;
            }
        }
        flush()?;
        self.store()?;
        self.store_reached()
    }

    /// Stores the offsets that librdkafka has reached, when every delivered record is written and flushed. They are
    /// after the last record if only transaction markers and aborted records follow it.
    fn store_reached(&mut self) -> Result<(), WorkerError> {
        for place in self.consumer.position()?.elements() {
            if let Offset::Offset(reached) = place.offset()
                && self.stored.get(&place.partition()).is_some_and(|stored| *stored < reached)
            {
                self.written.insert(place.partition(), reached);
            }
        }
        self.store()
    }

    fn store(&mut self) -> Result<(), WorkerError> {
        if self.written.is_empty() {
            return Ok(());
        }
        let mut offsets = TopicPartitionList::with_capacity(self.written.len());
        for (partition, next) in std::mem::take(&mut self.written) {
            self.stored.insert(partition, next);
            offsets.add_partition_offset(&self.topic, partition, Offset::Offset(next))?;
        }
        match self.consumer.store_offsets(&offsets) {
            // The partition was revoked meanwhile: its new owner reads the records again (at least once).
            Err(error) if error.rdkafka_error_code() != Some(RDKafkaErrorCode::State) => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn commit(&self) {
        match self.consumer.commit_consumer_state(CommitMode::Sync) {
            Err(error) if error.rdkafka_error_code() != Some(RDKafkaErrorCode::NoOffset) => {
                tracing::warn!(error = %error, "the last offsets were not committed; they will be read again");
            }
            _ => {}
        }
    }
}

fn error_is_final(error: &KafkaError, consumer: &BaseConsumer<GroupContext>) -> bool {
    use RDKafkaErrorCode::*;
    matches!(error.rdkafka_error_code(), Some(TopicAuthorizationFailed | GroupAuthorizationFailed | Fatal))
        || consumer.client().fatal_error().is_some()
}

/// librdkafka's callbacks: takes the assigned partitions, from their beginning if requested.
struct GroupContext {
    from_beginning: bool,
    /// Partitions that this process has started to read: they are read from their beginning only once.
    started: Mutex<HashSet<i32>>,
    /// Whether the consumer has ever been assigned partitions.
    assigned: AtomicBool,
    /// Why Kafka rejects the login.
    refused: Mutex<Option<String>>,
    /// What was logged, and when.
    logged: Mutex<HashMap<String, Instant>>,
}

impl ClientContext for GroupContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::log_client(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        use RDKafkaErrorCode::*;
        self.log_error(&error, reason);
        if let Some(Authentication | SaslAuthenticationFailed | SSL) = error.rdkafka_error_code() {
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
        }
    }
}

impl ConsumerContext for GroupContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions: Vec<i32> = list.elements().iter().map(|element| element.partition()).collect();
        let cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let done = match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                tracing::info!(?partitions, "assigned");
                self.assigned.store(true, Ordering::Relaxed);
                self.start_at_beginning(list);
                if cooperative { consumer.incremental_assign(list) } else { consumer.assign(list) }
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => {
                tracing::info!(?partitions, "revoked");
                if cooperative { consumer.incremental_unassign(list) } else { consumer.unassign() }
            }
            _ => {
                tracing::warn!(error = %RDKafkaErrorCode::from(code), "rebalance failed");
                consumer.unassign()
            }
        };
        if let Err(error) = done {
            tracing::error!(error = %error, "the partitions cannot be assigned");
        }
    }
}

impl GroupContext {
    /// Logs what librdkafka reports, the same text at most once in [`REPEAT_AFTER`]: while no broker answers it repeats
    /// itself many times a second.
    fn log_error(&self, error: &KafkaError, reason: &str) {
        // The numbers in `1/3 brokers are down` change.
        let is_down = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown);
        let reason = if is_down { "no broker answers" } else { connection_errors::plain(reason) };
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        logged.retain(|_, at| at.elapsed() < REPEAT_AFTER);
        if logged.contains_key(reason) {
            return tracing::debug!(kafka.error = %error, kafka.reason = reason, "kafka");
        }
        logged.insert(reason.to_owned(), Instant::now());
        tracing::warn!(kafka.error = %error, kafka.reason = reason, "kafka");
    }

    fn is_assigned(&self) -> bool {
        self.assigned.load(Ordering::Relaxed)
    }

    /// Returns why the consumer never joined the group. Later, a broker that rejects logins may just be restarting.
    fn refused(&self) -> Option<String> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.clone().filter(|_| !self.assigned.load(Ordering::Relaxed))
    }

    /// Sets partitions that are new to this process to their beginning, whatever the group has committed.
    fn start_at_beginning(&self, list: &mut TopicPartitionList) {
        if !self.from_beginning {
            return;
        }
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        for mut element in list.elements() {
            if started.insert(element.partition())
                && let Err(error) = element.set_offset(Offset::Beginning)
            {
                tracing::error!(error = %error, partition = element.partition(), "not read from the beginning");
            }
        }
    }
}
