//! The one background reader of a process: all partitions of the topic, without a consumer group, in the order that
//! Kafka delivers.
//!
//! It passes every record to its sink once, or reports that it could not: records that expired before they were read
//! and a recreated topic are reported, never skipped silently. It starts without a reachable broker and recovers by
//! itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::watch;

use super::fetch::{FetchError, Fetcher};
use super::uncommitted::{TailPositions, TailStart};
use crate::event::Record;
use crate::event::time::now_ms;
use crate::kafka::admin::topics;
use crate::kafka::health::{Health, ReadMode};
use crate::kafka::watch::{TopicId, TopicState};
use crate::kafka::{BackgroundThread, Cluster, ClusterState, Connection, ConnectionError, QUESTION, Stop};

/// Receives the records that the tail reads. Called on the tail's thread.
pub trait Sink: Send + 'static {
    /// Reading starts at these offsets, one per partition; the topic ended at `ends` at that moment. A partition
    /// without a leader has no offset.
    fn start(&mut self, positions: &[Option<i64>], ends: &[i64]);
    /// A partition that had no leader at the start is read from the offset `from` on; it ended at `end` at that moment.
    /// By their timestamps, the records from `since` on were written after the start.
    fn start_partition(&mut self, partition: i32, from: i64, since: i64, end: i64);
    /// Everything that the topic held at the start has been passed on.
    fn caught_up(&mut self, topic: TopicId);
    /// Partitions were added, up to this number; each is read from offset 0.
    fn add_partitions(&mut self, partitions: usize);
    /// The records of a partition from the current position up to `next` expired before they were read.
    fn skip(&mut self, partition: i32, next: i64);
    /// The topic was deleted and recreated; where reading starts is not known yet. `restart` follows.
    fn topic_deleted(&mut self);
    /// The topic was deleted and recreated: reading starts at these offsets, and earlier offsets mean nothing any more.
    fn restart(&mut self, positions: &[i64]);
    fn push(&mut self, record: Record);
    /// Publishes pending records that are due. Returns the time until the next publication;
    /// [`Duration::MAX`] if nothing is pending.
    fn publish(&mut self) -> Duration;
}

/// Reads until it is dropped.
pub struct Tail {
    lag: Arc<AtomicU64>,
    reached: TailPositions,
    _thread: BackgroundThread,
}

impl Tail {
    /// Starts with about the last `preload` records of the topic.
    pub fn start(
        connection: &Connection,
        cluster: &Cluster,
        preload: usize,
        sink: impl Sink,
    ) -> Result<Self, ConnectionError> {
        let mut config = connection.reader(&[("queued.min.messages", "20000"), ("queued.max.messages.kbytes", "8192")]);
        config.set("statistics.interval.ms", "5000");
        // A partition may end in offsets without a record (a transaction's markers), so record offsets do not show its
        // end.
        config.set("enable.partition.eof", "true");
        let lag = Arc::new(AtomicU64::new(0));
        let context = TailContext { lag: lag.clone(), health: cluster.health() };
        let fetcher = Arc::new(Fetcher::new(&config, context.clone())?);
        let reached = TailPositions::default();
        let reader = TailReader {
            fetcher,
            config,
            context,
            topic: connection.topic.clone(),
            embedded: connection.is_embedded(),
            topic_id: TopicId::default(),
            positions: Vec::new(),
            reached: reached.clone(),
            start: TailStart::default(),
            ends: Vec::new(),
            unknown: BTreeSet::new(),
            started_ms: 0,
            asked: None,
            late: BTreeMap::new(),
            preload,
            cluster: cluster.state(),
            cut_off: None,
            out_of_range: None,
            unassigned: false,
            failing: false,
            sink,
        };
        let thread = BackgroundThread::start("kafka-tail", move |stop| reader.run(&stop))?;
        Ok(Tail { lag, reached, _thread: thread })
    }

    /// How far the tail has read.
    pub(in crate::kafka) fn reached(&self) -> TailPositions {
        self.reached.clone()
    }

    /// Records of the topic that were not read yet, at most five seconds old.
    pub fn lag(&self) -> Arc<AtomicU64> {
        self.lag.clone()
    }
}

/// How long the tail waits for a new topic id when a topic ends before what was read.
const CUT_OFF: Duration = Duration::from_secs(3);
/// After this long without an answer, the tail asks again where partitions start.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long the tail waits for the offsets of a partition that had no leader: the others are not read meanwhile.
const LATE: Duration = Duration::from_millis(500);
/// How often the tail looks at the cluster's state and at `stop`, at least.
const LOOK_UP: Duration = Duration::from_millis(100);
/// How long the embedded broker may take to answer, before it is asked again.
const NEAR: Duration = Duration::from_millis(20);

/// How long the tail lets records collect, at most.
const PAUSE: Duration = Duration::from_millis(10);
/// After a fetch of this many records the tail fetches again at once: there are probably more.
const FULL: usize = 100;

/// The position of a partition that still has no leader: larger than every offset, so none of its records is passed on.
pub(in crate::kafka) const UNKNOWN: i64 = i64::MAX;

struct TailReader<S> {
    fetcher: Arc<Fetcher<TailContext>>,
    config: ClientConfig,
    context: TailContext,
    topic: Arc<str>,
    embedded: bool,
    topic_id: TopicId,
    /// The next offset of every partition, [`UNKNOWN`] where it is not known; empty until the first start.
    positions: Vec<i64>,
    /// The same for other threads, set once the records before it have been passed on.
    reached: TailPositions,
    /// When reading started, for the users of `reached`.
    start: TailStart,
    /// Where the partitions ended when reading started, 0 once a partition was read up to there; empty once all were.
    ends: Vec<i64>,
    /// Partitions that have had no leader since reading started, so that their first and last offsets are not known.
    unknown: BTreeSet<i32>,
    /// When reading of the others started, in milliseconds since 1970.
    started_ms: i64,
    /// When the tail last asked for the offsets of these partitions without an answer.
    asked: Option<Instant>,
    /// Partitions that were unknown, or that lost their leader before they were read, and where each ended when its
    /// reading started; until they are read up to there.
    late: BTreeMap<i32, i64>,
    preload: usize,
    cluster: watch::Receiver<ClusterState>,
    /// Since when the topic ends before what was read: its new id may become known only a moment later.
    cut_off: Option<Instant>,
    /// When Kafka was last asked where the partitions start and end, because a requested offset does not exist; `None`
    /// once it has answered. librdkafka fetches from such a partition only after it is assigned again.
    out_of_range: Option<Instant>,
    /// Whether the assignment of the partitions failed.
    unassigned: bool,
    /// Whether the last poll failed: a change is logged, a repetition is not.
    failing: bool,
    sink: S,
}

impl<S: Sink> TailReader<S> {
    fn run(mut self, stop: &Stop) {
        let mut is_full = false;
        while !stop.is_requested() {
            if self.cluster.has_changed().unwrap_or(false) || self.positions.is_empty() {
                self.follow_the_topic();
            }
            if self.cut_off.is_some_and(|since| since.elapsed() > CUT_OFF) {
                tracing::warn!(
                    kafka.topic = &*self.topic,
                    "the topic ends before the records that were read; reading it from its beginning"
                );
                self.start_over();
            }
            if self.asked.is_some_and(|asked| asked.elapsed() > ASK_AGAIN) {
                self.start_late_partitions();
            }
            if self.out_of_range.is_some_and(|asked| asked.elapsed() > ASK_AGAIN) {
                self.out_of_range();
            } else if self.unassigned {
                self.assign();
            }
            // Many fetches per look at the state: it changes seldom.
            let looked = Instant::now();
            loop {
                let mut wait = self.sink.publish();
                if wait < Duration::MAX && !is_full {
                    // Records wait to be published together. Let more of them collect, instead of waking for each.
                    std::thread::sleep(wait.min(PAUSE));
                    wait = Duration::ZERO;
                }
                let count = self.fetch(wait.min(LOOK_UP));
                is_full = count >= FULL;
                if count == 0 || looked.elapsed() >= LOOK_UP {
                    break;
                }
            }
        }
    }

    /// Takes what has been fetched. Returns how much that was; 0 after an error.
    fn fetch(&mut self, wait: Duration) -> usize {
        let fetcher = self.fetcher.clone();
        let (mut count, mut failed, mut out_of_range) = (0, false, false);
        for fetched in fetcher.fetch(wait) {
            count += 1;
            match fetched {
                Ok(message) => {
                    let index = message.partition() as usize;
                    // A message of an assignment that was replaced in between.
                    if self.positions.get(index).is_some_and(|next| *next <= message.offset()) {
                        self.positions[index] = message.offset() + 1;
                        self.sink.push(message.record());
                        self.check_caught_up();
                    }
                    if std::mem::take(&mut self.failing) {
                        tracing::info!(kafka.topic = &*self.topic, "the tail reads again");
                        self.context.health.reading(None);
                    }
                }
                Err(FetchError::End { partition, offset }) => {
                    self.reached.pass(partition, offset);
                    if self.late.remove(&partition).is_some() {
                        self.report_unread();
                    }
                    if let Some(end) = self.ends.get_mut(partition as usize) {
                        *end = 0;
                        self.check_caught_up();
                    }
                }
                Err(FetchError::Client(error)) => {
                    failed = true;
                    if matches!(
                        error.rdkafka_error_code(),
                        Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
                    ) {
                        out_of_range = true;
                    } else if !std::mem::replace(&mut self.failing, true) {
                        tracing::warn!(kafka.topic = &*self.topic, error = %error, "the tail cannot read");
                        self.context.health.reading(Some(&error));
                    }
                }
            }
        }
        if count > 0 {
            self.reached.raise(&self.positions);
        }
        if out_of_range {
            self.out_of_range();
        }
        if failed {
            // Errors come in quick succession while brokers are down.
            std::thread::sleep(Duration::from_millis(20));
        }
        if failed { 0 } else { count }
    }

    fn check_caught_up(&mut self) {
        if !self.late.is_empty() {
            let before = self.late.len();
            self.late.retain(|partition, end| self.positions[*partition as usize] < *end);
            if self.late.len() < before {
                self.report_unread();
            }
        }
        if !self.ends.is_empty() && self.ends.iter().zip(&self.positions).all(|(end, next)| next >= end) {
            self.ends.clear();
            self.sink.caught_up(self.topic_id);
        }
    }

    /// Starts, adds partitions or starts over, as the topic's description requires.
    fn follow_the_topic(&mut self) {
        let Some(topic) = self.cluster.borrow_and_update().topic().cloned() else { return };
        let count = topic.partitions.len();
        if self.positions.is_empty() {
            let led = topic.led();
            self.started_ms = now_ms();
            let Some(marks) = self.first_marks(&led) else { return };
            (self.positions, self.ends) = (vec![UNKNOWN; count], vec![0; count]);
            self.unknown = (0..count as i32).collect();
            for (partition, (low, high)) in led.into_iter().zip(marks) {
                self.unknown.remove(&partition);
                self.positions[partition as usize] = self.start_offset(low, high);
                self.ends[partition as usize] = high;
            }
            self.report_unread();
            let known: Vec<Option<i64>> =
                self.positions.iter().map(|next| Some(*next).filter(|next| *next != UNKNOWN)).collect();
            self.sink.start(&known, &self.ends);
            self.topic_id = topic.id;
            self.start.topic = topic.id;
            self.assign();
            self.check_caught_up();
        } else if topic.id != self.topic_id {
            self.sink.topic_deleted(); // before the old client ends, which takes a moment
            self.positions = vec![0; count];
            self.topic_id = topic.id;
            if topic.starts.is_empty() {
                tracing::warn!(kafka.topic = &*self.topic, "the topic was deleted and recreated");
                // A client that knew the old topic does not fetch from the new one (librdkafka 2.12 keeps its leader
                // epochs).
                match Fetcher::new(&self.config, self.context.clone()) {
                    Ok(fetcher) => self.fetcher = Arc::new(fetcher),
                    Err(error) => tracing::error!(error = %error, "cannot create a consumer for the recreated topic"),
                }
            } else {
                tracing::info!(kafka.topic = &*self.topic, "the topic was emptied");
            }
            self.out_of_range = None;
            self.start_over();
        } else if count > self.positions.len() {
            tracing::info!(kafka.topic = &*self.topic, partitions = count, "the topic has more partitions");
            self.positions.resize(count, 0);
            self.sink.add_partitions(count);
            self.assign();
        }
        self.defer_leaderless(&topic);
        self.start_late_partitions();
    }

    /// Lets the other partitions count as read although some lost their leader before they were read.
    fn defer_leaderless(&mut self, topic: &TopicState) {
        if self.ends.is_empty() {
            return;
        }
        let places = self.ends.iter_mut().zip(&self.positions).zip(&topic.partitions);
        for (partition, ((end, next), state)) in (0..).zip(places) {
            if state.leader.is_none() && *next < *end {
                self.late.insert(partition, std::mem::take(end));
            }
        }
        self.report_unread();
        self.check_caught_up();
    }

    /// Returns the first and next offset of these partitions at the start. While its connections open, librdkafka 2.12
    /// sometimes takes half a second to answer. The embedded broker, which is near, is asked again instead.
    fn first_marks(&self, partitions: &[i32]) -> Option<Vec<(i64, i64)>> {
        let soon = || topics::watermarks(self.fetcher.consumer(), &self.topic, partitions, NEAR).ok();
        let attempts = if self.embedded { 5 } else { 0 };
        (0..attempts).find_map(|_| soon()).or_else(|| self.watermarks(partitions))
    }

    /// Returns where reading of a partition with these bounds starts.
    fn start_offset(&self, low: i64, high: i64) -> i64 {
        let each = (self.preload / self.positions.len().max(1)) as i64;
        (high - each).max(low)
    }

    /// Starts to read partitions that had no leader at first and have one now.
    fn start_late_partitions(&mut self) {
        self.asked = None;
        if self.unknown.is_empty() {
            return;
        }
        let led: Vec<i32> = match self.cluster.borrow().topic() {
            Some(topic) => topic.led().into_iter().filter(|partition| self.unknown.contains(partition)).collect(),
            None => return,
        };
        if led.is_empty() {
            return;
        }
        let Some(marks) = self.watermarks_within(&led, LATE) else {
            self.asked = Some(Instant::now()); // the caller retries
            return;
        };
        // After the end is known, so that records written meanwhile are not passed over.
        let since = topics::since(self.fetcher.consumer(), &self.topic, &led, self.started_ms, LATE);
        let since = since.unwrap_or_else(|error| {
            // Readers get a gap in any case.
            tracing::debug!(kafka.topic = &*self.topic, error = %error, "no offsets by time");
            vec![None; led.len()]
        });
        for ((partition, (low, high)), since) in led.into_iter().zip(marks).zip(since) {
            let from = self.start_offset(low, high);
            let since = since.map_or(high, |since| since.min(high));
            tracing::info!(
                kafka.topic = &*self.topic,
                partition,
                offset = from,
                "the partition has a leader and is read"
            );
            self.unknown.remove(&partition);
            self.late.insert(partition, high);
            self.positions[partition as usize] = from;
            self.sink.start_partition(partition, from, since, high);
        }
        self.assign();
        self.check_caught_up();
        self.report_unread();
    }

    /// Reports the partitions whose records are not known, because they had no leader when the others were read.
    fn report_unread(&self) {
        let unread = self.unknown.iter().chain(self.late.keys()).copied().collect();
        self.context.health.unread(ReadMode::Committed, unread);
    }

    /// Reads the topic from its beginning: earlier offsets mean nothing any more.
    fn start_over(&mut self) {
        self.sink.topic_deleted();
        let led = self.led();
        let marks = if led.is_empty() { None } else { self.watermarks(&led) };
        let Some(marks) = marks else {
            self.cut_off.get_or_insert_with(Instant::now); // the caller retries
            return;
        };
        self.cut_off = None;
        // A partition without a leader starts at 0, or where Kafka says once it has a leader. It counts as read when
        // its end is reached.
        (self.positions, self.ends) = (vec![0; self.positions.len()], vec![0; self.positions.len()]);
        self.unknown.clear();
        self.late = (0..self.positions.len() as i32).filter(|it| !led.contains(it)).map(|it| (it, i64::MAX)).collect();
        for (partition, (low, high)) in led.into_iter().zip(marks) {
            (self.positions[partition as usize], self.ends[partition as usize]) = (low, high);
        }
        self.report_unread();
        self.sink.restart(&self.positions);
        self.start = TailStart { topic: self.topic_id, count: self.start.count + 1 };
        self.assign();
        self.check_caught_up();
    }

    fn assign(&mut self) {
        self.reached.set(self.start, &self.positions);
        let mut list = TopicPartitionList::with_capacity(self.positions.len());
        for (partition, next) in self.positions.iter().enumerate().filter(|(_, next)| **next != UNKNOWN) {
            // Fails only for invalid offsets.
            let _ = list.add_partition_offset(&self.topic, partition as i32, Offset::Offset(*next));
        }
        let assigned = self.fetcher.assign(&list);
        if let Err(error) = &assigned
            && !self.unassigned
        {
            tracing::error!(kafka.topic = &*self.topic, error = %error, "the tail cannot be assigned its partitions");
        }
        self.unassigned = assigned.is_err();
    }

    /// Handles a requested offset that does not exist: retention deleted it, or the log was truncated or recreated.
    /// Skips partitions without a leader: nothing is fetched from them, and no broker can say where they start.
    fn out_of_range(&mut self) {
        let asked: Vec<i32> = self.led().into_iter().filter(|partition| !self.unknown.contains(partition)).collect();
        let marks = if asked.is_empty() { None } else { self.watermarks(&asked) };
        let Some(marks) = marks else {
            self.out_of_range = Some(Instant::now()); // the caller retries
            return;
        };
        self.out_of_range = None;
        let marks: Vec<(usize, (i64, i64))> = asked.iter().map(|partition| *partition as usize).zip(marks).collect();
        if marks.iter().any(|(partition, (_, high))| self.positions[*partition] > *high) {
            self.cut_off.get_or_insert_with(Instant::now);
            return;
        }
        for (partition, (low, _)) in marks {
            if self.positions[partition] < low {
                let missed = low - self.positions[partition];
                tracing::warn!(kafka.topic = &*self.topic, partition, missed, "records expired before they were read");
                self.positions[partition] = low;
                self.sink.skip(partition as i32, low);
            }
        }
        self.assign();
        self.check_caught_up();
    }

    /// Returns the known partitions that have a leader now.
    fn led(&self) -> Vec<i32> {
        let mut led = self.cluster.borrow().topic().map_or_else(Vec::new, |topic| topic.led());
        led.retain(|partition| (*partition as usize) < self.positions.len());
        led
    }

    /// Returns the first and next offset of these partitions; `None` if Kafka does not answer.
    fn watermarks(&self, partitions: &[i32]) -> Option<Vec<(i64, i64)>> {
        self.watermarks_within(partitions, QUESTION)
    }

    fn watermarks_within(&self, partitions: &[i32], within: Duration) -> Option<Vec<(i64, i64)>> {
        match topics::watermarks(self.fetcher.consumer(), &self.topic, partitions, within) {
            Ok(marks) => Some(match self.cluster.borrow().topic() {
                Some(topic) => partitions.iter().zip(marks).map(|(n, marks)| topic.marks(*n, marks)).collect(),
                None => marks,
            }),
            Err(error) => {
                tracing::debug!(kafka.topic = &*self.topic, error = %error, "no watermarks");
                std::thread::sleep(LOOK_UP);
                None
            }
        }
    }
}

#[derive(Clone)]
struct TailContext {
    lag: Arc<AtomicU64>,
    health: Health,
}

impl ClientContext for TailContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        crate::kafka::log_client(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.health.on_client_error(&error, reason);
        tracing::debug!(kafka.error = %error, kafka.reason = reason, "kafka tail");
    }

    fn stats(&self, statistics: Statistics) {
        let partitions = statistics.topics.values().flat_map(|topic| topic.partitions.values());
        // librdkafka counts unassigned messages as partition -1, and has negative offsets for what it does not know
        // yet. The tail cannot read what an open transaction holds up, and the last offset may be a transaction's
        // marker.
        let lag = partitions.filter(|p| p.partition >= 0).filter_map(|p| {
            let end = Some(p.ls_offset).filter(|end| *end >= 0).or(Some(p.hi_offset).filter(|end| *end >= 0))?;
            let reached = if p.fetchq_cnt == 0 { p.app_offset.max(p.eof_offset) } else { p.app_offset };
            (reached >= 0).then(|| (end - reached).max(0) as u64)
        });
        self.lag.store(lag.sum(), Ordering::Relaxed);
    }
}

impl ConsumerContext for TailContext {}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Sender};

    use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;
    use crate::config::KafkaSettings;

    /// Sends the offsets of the records.
    struct Offsets(Sender<i64>);

    impl Sink for Offsets {
        fn start(&mut self, _: &[Option<i64>], _: &[i64]) {}
        fn start_partition(&mut self, _: i32, _: i64, _: i64, _: i64) {}
        fn caught_up(&mut self, _: TopicId) {}
        fn add_partitions(&mut self, _: usize) {}
        fn skip(&mut self, _: i32, _: i64) {}
        fn topic_deleted(&mut self) {}
        fn restart(&mut self, _: &[i64]) {}
        fn push(&mut self, record: Record) {
            let _ = self.0.send(record.offset()); // fails after the receiver ended
        }
        fn publish(&mut self) -> Duration {
            Duration::MAX
        }
    }

    #[test]
    fn an_offset_out_of_range_is_looked_up_until_kafka_answers() {
        let settings = KafkaSettings { partitions: 1, ..KafkaSettings::default() };
        let connection = Connection::new(&settings).expect("an embedded broker");
        let cluster = Cluster::watch(&connection, &settings).expect("a watcher");
        let (sender, offsets) = mpsc::channel();
        let _tail = Tail::start(&connection, &cluster, 10, Offsets(sender)).expect("a tail");
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", connection.addresses()).create().expect("a producer");
        let write = || {
            let record: BaseRecord<'_, str, str> = BaseRecord::to(connection.topic()).payload("{}");
            producer.send(record).expect("room in the queue");
            producer.flush(QUESTION).expect("a receipt");
        };
        write();
        assert_eq!(offsets.recv_timeout(QUESTION), Ok(0));

        let broker = connection.embedded.as_ref().expect("an embedded broker");
        broker.fail(RDKafkaApiKey::ListOffsets, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_REQUEST; 2]);
        broker.fail(RDKafkaApiKey::Fetch, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE]);
        std::thread::sleep(LOOK_UP); // a fetch is answered every 10 ms
        write();
        assert_eq!(offsets.recv_timeout(QUESTION), Ok(1));
    }
}
