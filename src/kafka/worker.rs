//! `footfall consume`: a member of a consumer group that writes records out, at least once.
//!
//! An offset is stored after its record was written out and flushed, and committed in the background and at the end.

use std::collections::{BTreeMap, HashSet};
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

use super::Connection;
use super::fetch::record_of;
use crate::event::Record;

pub struct Options {
    pub group: String,
    /// Read everything again, also what the group has committed.
    pub from_beginning: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("kafka: {0}")]
    Kafka(#[from] KafkaError),
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
}

/// Records written out between two flushes, at most.
const BATCH: u32 = 1000;

/// Reads as a member of the group until `stop` is set or `write` fails. `write` is followed by `flush` before the
/// offset is stored.
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
    let group = Group { from_beginning: options.from_beginning, begun: Mutex::default() };
    let consumer = BaseConsumer::from_config_and_context(&config, group)?;
    consumer.subscribe(&[connection.topic()])?;
    let mut worker = Worker { consumer, topic: connection.topic().to_owned(), written: BTreeMap::new() };
    let result = worker.run(stop, write, flush);
    // What was written is committed on every way out, also after a closed pipe.
    worker.commit();
    result
}

struct Worker {
    consumer: BaseConsumer<Group>,
    topic: String,
    /// The next offset of every partition of which something was written since the last flush.
    written: BTreeMap<i32, i64>,
}

impl Worker {
    fn run(
        &mut self,
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
                    if troubled.is_none() {
                        tracing::warn!(kafka.topic = self.topic, error = %error, "cannot read; trying on");
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
            }
        }
        flush()?;
        self.store()
    }

    fn store(&mut self) -> Result<(), WorkerError> {
        let mut offsets = TopicPartitionList::with_capacity(self.written.len());
        for (partition, next) in std::mem::take(&mut self.written) {
            offsets.add_partition_offset(&self.topic, partition, Offset::Offset(next))?;
        }
        match self.consumer.store_offsets(&offsets) {
            // A partition that was taken from us meanwhile: its new owner reads the records again (at least once).
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

fn error_is_final(error: &KafkaError, consumer: &BaseConsumer<Group>) -> bool {
    use RDKafkaErrorCode::*;
    matches!(error.rdkafka_error_code(), Some(TopicAuthorizationFailed | GroupAuthorizationFailed | Fatal))
        || consumer.client().fatal_error().is_some()
}

/// A member of a group: takes what it is assigned, if asked to from the beginning, and says so.
struct Group {
    from_beginning: bool,
    /// Partitions that this process has begun to read: they are taken from their beginning once.
    begun: Mutex<HashSet<i32>>,
}

impl ClientContext for Group {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::log_client(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(kafka.error = %error, kafka.reason = reason, "kafka");
    }
}

impl ConsumerContext for Group {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions: Vec<i32> = list.elements().iter().map(|element| element.partition()).collect();
        let cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let done = match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                tracing::info!(?partitions, "assigned");
                self.begin(list);
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
            tracing::error!(error = %error, "the assignment cannot be taken");
        }
    }
}

impl Group {
    /// Begins at the beginning of the partitions that are new to this process, whatever the group has committed.
    fn begin(&self, list: &mut TopicPartitionList) {
        if !self.from_beginning {
            return;
        }
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        for mut element in list.elements() {
            if begun.insert(element.partition())
                && let Err(error) = element.set_offset(Offset::Beginning)
            {
                tracing::error!(error = %error, partition = element.partition(), "not read from the beginning");
            }
        }
    }
}
