//! Finds the record that a consumer group reads next: the first one that exists at or after a committed offset. That
//! offset may belong to a record that was compacted away or aborted, or only transaction markers may follow it.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};

use crate::bounds::{NEXT_RECORDS, NEXT_RECORDS_TIME};
use crate::kafka::{Connection, Quiet};

/// What follows an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kafka) enum Ahead {
    /// The next readable record, with Kafka's timestamp in milliseconds since 1970.
    Record { offset: i64, timestamp_ms: Option<i64> },
    /// There is no record before this offset; everything up to it is committed or aborted.
    Nothing { up_to: i64 },
}

/// A consumer that belongs to no group and commits nothing.
pub(in crate::kafka) struct Lookahead(BaseConsumer<Quiet>);

impl Lookahead {
    pub fn new(connection: &Connection) -> KafkaResult<Self> {
        // One record per partition is enough; the rest of a fetch is dropped.
        let mut config = connection.reader(&[
            ("fetch.wait.max.ms", "10"),
            ("max.partition.fetch.bytes", "65536"),
            ("queued.min.messages", "1"),
            ("queued.max.messages.kbytes", "1024"),
        ]);
        config.set("enable.partition.eof", "true");
        Ok(Lookahead(BaseConsumer::from_config_and_context(&config, Quiet)?))
    }

    /// Looks at one offset of each of these partitions of a topic. Blocks for at most `within`; partitions that did not
    /// answer by then are missing in the result.
    pub fn look(
        &self,
        topic: &str,
        wanted: &BTreeMap<i32, i64>,
        within: Duration,
    ) -> KafkaResult<BTreeMap<i32, Ahead>> {
        let mut assignment = TopicPartitionList::with_capacity(wanted.len());
        for (partition, offset) in wanted {
            assignment.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
        }
        self.0.assign(&assignment)?;
        let found = self.read(topic, wanted, Instant::now() + within);
        // A pause outlives the assignment.
        self.0.unassign()?;
        self.0.resume(&assignment)?;
        while self.0.poll(Duration::ZERO).is_some() {}
        found
    }

    fn read(&self, topic: &str, wanted: &BTreeMap<i32, i64>, until: Instant) -> KafkaResult<BTreeMap<i32, Ahead>> {
        let mut found = BTreeMap::new();
        while found.len() < wanted.len() && Instant::now() < until {
            let (partition, ahead) = match self.0.poll(Duration::from_millis(50)) {
                None => continue,
                Some(Ok(message)) => {
                    let timestamp_ms = message.timestamp().to_millis();
                    (message.partition(), Ahead::Record { offset: message.offset(), timestamp_ms })
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    // librdkafka also counts the transaction markers that it skipped.
                    let position = self.0.position()?;
                    let position = position.find_partition(topic, partition).map(|place| place.offset());
                    let begin = wanted.get(&partition).copied().unwrap_or_default();
                    let up_to = if let Some(Offset::Offset(offset)) = position { offset.max(begin) } else { begin };
                    (partition, Ahead::Nothing { up_to })
                }
                // Deleted during the look-up: the next snapshot asks again.
                Some(Err(error)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset) => {
                    return Err(error);
                }
                Some(Err(_)) => continue,
            };
            if wanted.contains_key(&partition) && found.insert(partition, ahead).is_none() {
                let mut done = TopicPartitionList::with_capacity(1);
                done.add_partition(topic, partition);
                self.0.pause(&done)?;
            }
        }
        Ok(found)
    }
}

/// An offset is looked at again after this long: it got no answer, or compaction may have removed the record meanwhile.
const AGAIN: Duration = Duration::from_secs(10);

/// What was found at offsets of one topic, kept as long as groups are at these offsets.
#[derive(Default)]
pub(in crate::kafka) struct LookaheadCache {
    lookahead: Option<Lookahead>,
    found: HashMap<(i32, i64), (Option<Ahead>, Instant)>,
    /// Counts calls: if more groups lag than can be looked up at once, they take turns.
    turn: usize,
}

impl LookaheadCache {
    /// Looks at these partitions and offsets, each with the partition's end, as far as the answers are not known.
    /// Blocks for [`NEXT_RECORDS_TIME`] at most.
    pub fn look(&mut self, connection: &Connection, mut wanted: Vec<(i32, i64, i64)>) {
        self.found.retain(|(partition, offset), (found, at)| {
            let place = wanted.iter().find(|(p, o, _)| (p, o) == (partition, offset));
            place.is_some_and(|(_, _, end)| match found {
                Some(Ahead::Record { .. }) => true,
                Some(Ahead::Nothing { up_to }) => *up_to >= *end,
                None => at.elapsed() < AGAIN,
            })
        });
        self.turn += 1;
        if !wanted.is_empty() {
            let turn = self.turn % wanted.len();
            wanted.rotate_left(turn);
        }
        let until = Instant::now() + NEXT_RECORDS_TIME;
        for _ in 0..NEXT_RECORDS {
            let mut round = BTreeMap::new();
            // Unknown offsets first, then those that may have changed.
            for again in [false, true] {
                for (partition, offset, _) in &wanted {
                    let due = match self.found.get(&(*partition, *offset)) {
                        None => true,
                        Some((_, at)) => again && at.elapsed() >= AGAIN,
                    };
                    if due {
                        round.entry(*partition).or_insert(*offset);
                    }
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if round.is_empty() || left.is_zero() {
                break;
            }
            let found = match &self.lookahead {
                Some(lookahead) => lookahead.look(connection.topic(), &round, left),
                None => Lookahead::new(connection)
                    .and_then(|lookahead| self.lookahead.insert(lookahead).look(connection.topic(), &round, left)),
            };
            let found = found.unwrap_or_else(|error| {
                tracing::debug!(error = %error, "the next records of consumer groups are not known");
                BTreeMap::new()
            });
            if found.len() < round.len() {
                // It may know a deleted topic or stale leaders.
                self.lookahead = None;
            }
            for place in round {
                let known = self.found.get(&place).and_then(|(known, _)| *known);
                self.found.insert(place, (found.get(&place.0).copied().or(known), Instant::now()));
            }
        }
    }

    /// Returns what follows an offset, if that is known.
    pub fn at(&self, partition: i32, offset: i64) -> Option<Ahead> {
        self.found.get(&(partition, offset)).and_then(|(found, _)| *found)
    }
}
