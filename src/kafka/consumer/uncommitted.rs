//! Reads the records after the start of another writer's open transaction: Kafka has them, but the tail gets none of
//! them before the transaction ends. One reader looks for partitions that are held up like this, reports them, and
//! reads their uncommitted records.
//!
//! These records only teach the memory of ids, and never reach the feed: they may belong to a transaction that is
//! aborted. The sink is notified when the tail has passed an offset, and can then compare.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::admin::AdminClient;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::watch;

use super::fetch::{FetchError, Fetcher};
use super::tail::{Tail, UNKNOWN};
use crate::event::Record;
use crate::kafka::admin::topics;
use crate::kafka::health::{Health, HeldUp, ReadMode};
use crate::kafka::watch::{TopicId, TopicState};
use crate::kafka::{BackgroundThread, Cluster, ClusterState, Connection, ConnectionError, Quiet, Stop};

/// How often the ends of the partitions are requested.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// The same at the start, until the ends are known, because no event is accepted before that. Also how often the reader
/// checks at the start whether the tail has caught up.
const AT_START: Duration = Duration::from_millis(20);
const ANSWER_WITHIN: Duration = Duration::from_millis(1500);
/// How long the readable end must stay in place before the partition's end until the reader reads beyond it. Most
/// transactions are shorter.
const READ_AFTER: Duration = Duration::from_millis(200);
/// The same until the partition is reported as held up.
const HELD_UP_AFTER: Duration = Duration::from_secs(3);
/// How long the consumer is kept without a partition to read.
const KEPT: Duration = Duration::from_secs(30);
/// How often the reader looks at `stop`, at least.
const LOOK_UP: Duration = Duration::from_millis(100);

/// Receives the records. Called on the reader's thread.
pub trait UncommittedSink: Send + 'static {
    /// A record that is written and not committed.
    fn push(&mut self, record: &Record);
    /// The tail has passed these offsets, by partition: of the records before them it got those that are committed.
    fn decided(&mut self, reached: &[i64]);
    /// The tail or this reader has read everything that the topic held at the start, except for partitions without a
    /// leader.
    fn caught_up(&mut self);
    /// The topic was recreated, or the tail reads it from its beginning again.
    fn restart(&mut self);
}

/// The next offset of the tail, by partition. Empty until the tail starts.
#[derive(Clone, Default)]
pub(in crate::kafka) struct TailPositions(Arc<Mutex<(TailStart, Vec<i64>)>>);

/// When the tail started to read: of which topic, and how often it has started over.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(in crate::kafka) struct TailStart {
    pub topic: TopicId,
    pub count: u64,
}

impl TailPositions {
    /// Sets the offsets from which the tail reads on.
    pub fn set(&self, start: TailStart, positions: &[i64]) {
        *self.lock() = (start, positions.iter().map(|next| if *next == UNKNOWN { 0 } else { *next }).collect());
    }

    /// Raises the positions to these offsets; a position never goes back.
    pub fn raise(&self, positions: &[i64]) {
        let known = |(_, next): &(_, &i64)| **next != UNKNOWN;
        self.lock()
            .1
            .iter_mut()
            .zip(positions)
            .filter(known)
            .for_each(|(reached, next)| *reached = (*reached).max(*next));
    }

    /// Notes that there is no record in a partition between the tail's position and this offset.
    pub fn pass(&self, partition: i32, next: i64) {
        if let Ok(index) = usize::try_from(partition)
            && let Some(reached) = self.lock().1.get_mut(index)
        {
            *reached = next.max(*reached);
        }
    }

    fn get(&self) -> (TailStart, Vec<i64>) {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, (TailStart, Vec<i64>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads until it is dropped.
pub struct Uncommitted {
    _thread: BackgroundThread,
}

impl Uncommitted {
    /// Starts the reader. After the start of a transaction it reads at first about the last `preload` records of the
    /// topic. The embedded broker has no transactions, so nothing is read there.
    pub fn start(
        connection: &Connection,
        cluster: &Cluster,
        tail: &Tail,
        preload: usize,
        mut sink: impl UncommittedSink,
    ) -> Result<Self, ConnectionError> {
        if connection.is_embedded() {
            sink.caught_up();
            return Ok(Uncommitted { _thread: BackgroundThread::default() });
        }
        Self::read(connection, cluster, tail, preload, sink)
    }

    fn read(
        connection: &Connection,
        cluster: &Cluster,
        tail: &Tail,
        preload: usize,
        sink: impl UncommittedSink,
    ) -> Result<Self, ConnectionError> {
        let mut config = connection.reader(&[("queued.min.messages", "10000"), ("queued.max.messages.kbytes", "1024")]);
        config.set("isolation.level", "read_uncommitted");
        config.set("enable.partition.eof", "true");
        let reader = UncommittedReader {
            config,
            admin: cluster.admin(),
            health: cluster.health(),
            state: cluster.state(),
            reached: tail.reached(),
            preload,
            topic_id: None,
            starts: 0,
            caught_up: false,
            unknown: BTreeMap::new(),
            unread: HashMap::new(),
            positions: BTreeMap::new(),
            fetcher: None,
            needed: Instant::now(),
            sink,
        };
        Ok(Uncommitted { _thread: BackgroundThread::start("kafka-ids", move |stop| reader.run(&stop))? })
    }
}

/// By partition: the offset up to which committed records can be read, and the end.
type Ends = BTreeMap<i32, (i64, i64)>;

struct UncommittedReader<S> {
    config: ClientConfig,
    admin: Arc<AdminClient<Quiet>>,
    health: Health,
    state: watch::Receiver<ClusterState>,
    reached: TailPositions,
    preload: usize,
    topic_id: Option<TopicId>,
    /// How often the tail had started over when the topic was last looked at.
    starts: u64,
    /// Whether everything that the topic held at the start was read, except for partitions without a leader.
    caught_up: bool,
    /// The partitions that are not read yet up to their ends at the start, and those ends once Kafka has reported them.
    unknown: BTreeMap<i32, Option<(i64, i64)>>,
    /// Partitions that cannot be read to their ends: up to which offset, and since when.
    unread: HashMap<i32, (i64, Instant)>,
    /// The next offset of each partition that is read after the start of a transaction.
    positions: BTreeMap<i32, i64>,
    fetcher: Option<Fetcher<Quiet>>,
    /// When a partition was last read.
    needed: Instant,
    sink: S,
}

impl<S: UncommittedSink> UncommittedReader<S> {
    fn run(mut self, stop: &Stop) {
        let mut asked: Option<Instant> = None;
        while !stop.is_requested() {
            let every = if self.caught_up || self.knows_ends() { ASK_EVERY } else { AT_START };
            let wait = asked.map_or(Duration::ZERO, |asked| every.saturating_sub(asked.elapsed()));
            let most = if self.caught_up { LOOK_UP } else { AT_START };
            if wait.is_zero() {
                asked = Some(Instant::now());
                self.look();
            } else if self.positions.is_empty() {
                std::thread::park_timeout(wait.min(most));
            } else {
                self.fetch(wait.min(most));
            }
            self.check_caught_up();
        }
    }

    /// Requests the ends of the partitions, and finds those that are held up.
    fn look(&mut self) {
        let Some(topic) = self.state.borrow().topic().cloned() else { return };
        let starts = self.reached.get().0.count;
        if self.topic_id != Some(topic.id) || self.starts != starts {
            if self.topic_id.is_some() {
                self.sink.restart();
            }
            (self.topic_id, self.starts, self.caught_up) = (Some(topic.id), starts, false);
            self.unknown = (0..topic.partitions.len() as i32).map(|partition| (partition, None)).collect();
            self.unread.clear();
            self.stop_reading();
        }
        // librdkafka would wait for a leader of the others.
        let places: Vec<_> = topic.led().into_iter().map(|n| (self.health.topic().to_owned(), n)).collect();
        let ends: Ends = match topics::ends(&self.admin, &places, ANSWER_WITHIN) {
            Ok(ends) => ends.into_iter().map(|((_, partition), ends)| (partition, ends)).collect(),
            Err(error) => return tracing::debug!(error = %error, "no ends of partitions"),
        };
        let unread = ends.iter().filter(|(_, (readable, end))| readable < end);
        self.unread = unread
            .map(|(partition, (readable, _))| {
                let before = self.unread.get(partition).filter(|(before, _)| before == readable);
                (*partition, before.copied().unwrap_or((*readable, Instant::now())))
            })
            .collect();
        for (partition, at_start) in &mut self.unknown {
            *at_start = at_start.or(ends.get(partition).copied());
        }
        self.report(&ends);
        self.read_behind(&ends, topic.partitions.len());
        self.sink.decided(&self.reached());
    }

    /// Returns how far the tail has read this topic; empty if it still reads another one.
    fn reached(&self) -> Vec<i64> {
        let (start, reached) = self.reached.get();
        if Some(start.topic) == self.topic_id && start.count == self.starts { reached } else { Vec::new() }
    }

    /// Returns whether Kafka has reported the ends of all partitions that have a leader.
    fn knows_ends(&self) -> bool {
        let Some(topic) = self.topic() else { return false };
        topic.led().iter().all(|partition| self.unknown.get(partition).is_none_or(Option::is_some))
    }

    /// Returns the topic, if it is still the one that is read.
    fn topic(&self) -> Option<Arc<TopicState>> {
        self.state.borrow().topic().filter(|topic| Some(topic.id) == self.topic_id).cloned()
    }

    /// Reports the partitions that have been held up for some time.
    fn report(&self, ends: &Ends) {
        let held_up = ends.iter().filter_map(|(partition, (readable, end))| {
            let (_, since) = self.unread.get(partition)?;
            let (partition, readable, records) = (*partition, *readable, end - readable);
            (since.elapsed() >= HELD_UP_AFTER).then_some(HeldUp { partition, readable, records })
        });
        self.health.hold_up(held_up.collect());
    }

    /// Starts to read the partitions that are held up, and stops where they no longer are. Until a partition was first
    /// read, even a short transaction counts.
    fn read_behind(&mut self, ends: &Ends, partitions: usize) {
        let is_due = |partition: &i32| {
            let at_start = self.unknown.contains_key(partition);
            self.unread.get(partition).is_some_and(|(_, since)| at_start || since.elapsed() >= READ_AFTER)
        };
        let mut positions = self.positions.clone();
        positions.retain(|partition, _| self.unread.contains_key(partition));
        let each = (self.preload / partitions.max(1)) as i64;
        for (partition, (readable, end)) in ends.iter().filter(|(partition, _)| is_due(partition)) {
            positions.entry(*partition).or_insert_with(|| (end - each).max(*readable));
        }
        if !positions.is_empty() {
            self.needed = Instant::now();
        } else if self.needed.elapsed() > KEPT {
            self.fetcher = None;
        }
        if positions.keys().eq(self.positions.keys()) {
            return;
        }
        match self.assign(&positions) {
            Ok(()) => self.positions = positions,
            Err(error) => {
                tracing::warn!(error = %error, "the records after an open transaction cannot be read for their ids");
                self.stop_reading(); // the caller retries
            }
        }
    }

    fn assign(&mut self, positions: &BTreeMap<i32, i64>) -> KafkaResult<()> {
        let fetcher = match self.fetcher.take() {
            Some(fetcher) => fetcher,
            None => Fetcher::new(&self.config, Quiet)?,
        };
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for (partition, next) in positions {
            list.add_partition_offset(self.health.topic(), *partition, Offset::Offset(*next))?;
        }
        fetcher.assign(&list)?;
        self.fetcher = Some(fetcher);
        Ok(())
    }

    fn stop_reading(&mut self) {
        self.positions.clear();
        self.fetcher = None;
    }

    fn fetch(&mut self, wait: Duration) {
        let Some(fetcher) = &self.fetcher else { return };
        let (mut failed, mut out_of_range) = (false, false);
        for fetched in fetcher.fetch(wait) {
            match fetched {
                Ok(message) => {
                    // A message of an assignment that was replaced in between has an offset that was read already.
                    let next = self.positions.get_mut(&message.partition());
                    if let Some(next) = next.filter(|next| **next <= message.offset()) {
                        *next = message.offset() + 1;
                        self.sink.push(&message.record());
                    }
                }
                Err(FetchError::End { partition, offset }) => {
                    if let Some(next) = self.positions.get_mut(&partition) {
                        *next = offset.max(*next);
                    }
                }
                Err(FetchError::Client(error)) => {
                    failed = true;
                    out_of_range |= matches!(
                        error.rdkafka_error_code(),
                        Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
                    );
                    tracing::debug!(error = %error, "the records after an open transaction cannot be read");
                }
            }
        }
        if out_of_range {
            self.stop_reading(); // the next look starts over
        }
        if failed {
            // Errors come in quick succession while brokers are down.
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Checks whether the records of the start have been read: the readable ones by the tail, those after an open
    /// transaction by this reader. A partition without a leader does not delay the others: it is reported as unread
    /// until it is read.
    fn check_caught_up(&mut self) {
        if self.caught_up && self.unknown.is_empty() {
            return;
        }
        let Some(topic) = self.topic() else { return };
        let (reached, positions) = (self.reached(), &self.positions);
        let is_read = |partition: &i32, (readable, end): (i64, i64)| {
            let by_tail = reached.get(*partition as usize).copied().unwrap_or(-1);
            let behind = positions.get(partition).copied().unwrap_or(readable);
            by_tail >= readable && by_tail.max(behind) >= end
        };
        let before = self.unknown.len();
        self.unknown.retain(|partition, ends| !ends.is_some_and(|ends| is_read(partition, ends)));
        let catches_up = !self.caught_up && topic.led().iter().all(|partition| !self.unknown.contains_key(partition));
        if catches_up || self.caught_up && self.unknown.len() < before {
            self.health.unread(ReadMode::Uncommitted, self.unknown.keys().copied().collect());
        }
        if catches_up {
            self.caught_up = true;
            self.sink.caught_up();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Sender};

    use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::super::tail::Sink;
    use super::*;
    use crate::config::KafkaSettings;
    use crate::kafka::health::Cause;
    use crate::kafka::{QUESTION, embedded};

    #[derive(Debug, PartialEq)]
    enum Report {
        TailCaughtUp,
        IdsCaughtUp,
        Partition(i32),
    }

    /// Removes the leader of partition 1 as soon as the tail knows its end.
    struct Records(Sender<Report>, Arc<embedded::EmbeddedBroker>, String);

    impl Sink for Records {
        fn start(&mut self, _: &[Option<i64>], ends: &[i64]) {
            assert_eq!(ends, [1, 1]);
            // The mock cluster crashes when a partition without a leader is fetched: after these errors, librdkafka
            // asks for leaders first.
            let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE;
            self.1.fail(RDKafkaApiKey::Fetch, &[error; 2]);
            self.1.lead(&self.2, 1, false);
        }
        fn start_partition(&mut self, _: i32, _: i64, _: i64, _: i64) {}
        fn caught_up(&mut self, _: TopicId) {
            let _ = self.0.send(Report::TailCaughtUp); // fails after the receiver ended
        }
        fn add_partitions(&mut self, _: usize) {}
        fn skip(&mut self, _: i32, _: i64) {}
        fn topic_deleted(&mut self) {}
        fn restart(&mut self, _: &[i64]) {}
        fn push(&mut self, record: Record) {
            let _ = self.0.send(Report::Partition(record.partition()));
        }
        fn publish(&mut self) -> Duration {
            LOOK_UP
        }
    }

    struct Ids(Sender<Report>);

    impl UncommittedSink for Ids {
        fn push(&mut self, _: &Record) {}
        fn decided(&mut self, _: &[i64]) {}
        fn caught_up(&mut self) {
            let _ = self.0.send(Report::IdsCaughtUp);
        }
        fn restart(&mut self) {}
    }

    #[test]
    fn a_partition_that_loses_its_leader_before_it_is_read_does_not_delay_the_others() {
        let settings = KafkaSettings { partitions: 2, ..KafkaSettings::default() };
        let connection = Connection::new(&settings).expect("an embedded broker");
        let broker = connection.embedded.clone().expect("an embedded broker");
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", connection.addresses()).create().expect("a producer");
        for partition in [0, 1] {
            let record: BaseRecord<'_, str, str> =
                BaseRecord::to(connection.topic()).partition(partition).payload("{}");
            producer.send(record).expect("room in the queue");
        }
        producer.flush(QUESTION).expect("receipts");

        let cluster = Cluster::watch(&connection, &settings).expect("a watcher");
        let (sender, reports) = mpsc::channel();
        let topic = connection.topic().to_owned();
        let sink = Records(sender.clone(), broker.clone(), topic.clone());
        let tail = Tail::start(&connection, &cluster, 10, sink).expect("a tail");
        let _ids = Uncommitted::read(&connection, &cluster, &tail, 10, Ids(sender)).expect("a reader");
        let mut first: Vec<_> = (0..3).map(|_| reports.recv_timeout(QUESTION).expect("what is read")).collect();
        for expected in [Report::Partition(0), Report::TailCaughtUp, Report::IdsCaughtUp] {
            let place = first.iter().position(|report| *report == expected);
            first.remove(place.unwrap_or_else(|| panic!("{expected:?} is missing beside {first:?}")));
        }
        let causes = || -> Vec<Cause> {
            let state = cluster.state();
            let topic = state.borrow().topic().cloned();
            topic.map_or_else(Vec::new, |topic| topic.troubles.iter().map(|trouble| trouble.cause).collect())
        };
        assert_eq!(causes(), [Cause::LeaderMissing]);

        broker.lead(&topic, 1, true);
        assert_eq!(reports.recv_timeout(QUESTION), Ok(Report::Partition(1)));
        let started = Instant::now();
        while !causes().is_empty() {
            assert!(started.elapsed() < QUESTION, "{:?}", causes());
            std::thread::sleep(LOOK_UP);
        }
    }
}
