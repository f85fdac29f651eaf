//! The one background reader of a process: all partitions of the topic, no consumer group, in the order Kafka gives.
//!
//! It hands on every record once, or says that it could not: a retention that overtook it and a topic made anew are
//! told to the sink, never jumped over in silence. It starts without a reachable broker and heals by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::watch;

use super::cluster::{Known, TopicId};
use super::fetch::Fetcher;
use super::{Cluster, Connection, ConnectionError, State, topics};
use crate::event::Record;

/// Where the tail puts what it reads. Called on the tail's thread.
pub trait Sink: Send + 'static {
    /// Reading begins at these offsets, one for each partition; the topic ended at `ends` then.
    fn start(&mut self, positions: &[i64], ends: &[i64]);
    /// What stood in the topic when reading began has been handed on.
    fn caught_up(&mut self);
    /// Partitions were added; each is read from its offset 0.
    fn grow(&mut self, partitions: usize);
    /// The records of a partition from where reading was up to `next` are gone for good.
    fn skip(&mut self, partition: i32, next: i64);
    /// The topic was deleted and made anew: reading begins at these offsets, and earlier offsets mean nothing any more.
    fn restart(&mut self, positions: &[i64]);
    fn push(&mut self, record: Record);
    /// Publishes what is due, and says how long nothing will be.
    fn publish(&mut self) -> Duration;
}

/// Reads until it is dropped.
pub struct Tail {
    lag: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Tail {
    /// Begins with about the last `preload` records of the topic.
    pub fn start(
        connection: &Connection,
        cluster: &Cluster,
        preload: usize,
        sink: impl Sink,
    ) -> Result<Self, ConnectionError> {
        let mut config = connection.reader(&[("queued.min.messages", "20000"), ("queued.max.messages.kbytes", "8192")]);
        config.set("statistics.interval.ms", "5000");
        // A partition may end in records that are never handed out (a transaction's), so its offsets don't say all.
        config.set("enable.partition.eof", "true");
        let lag = Arc::new(AtomicU64::new(0));
        let context = TailContext { lag: lag.clone(), known: cluster.known() };
        let fetcher = Arc::new(Fetcher::new(&config, context.clone())?);
        let stop = Arc::new(AtomicBool::new(false));
        let reader = Reader {
            fetcher,
            config,
            context,
            topic: connection.topic.clone(),
            topic_id: TopicId::default(),
            positions: Vec::new(),
            ends: Vec::new(),
            preload,
            cluster: cluster.state(),
            stop: stop.clone(),
            cut_off: None,
            out_of_range: None,
            unassigned: false,
            troubled: false,
            sink,
        };
        let thread = std::thread::Builder::new().name("kafka-tail".into()).spawn(move || reader.run())?;
        Ok(Tail { lag, stop, thread: Some(thread) })
    }

    /// Records that stand in the topic and were not read yet, as of at most five seconds ago.
    pub fn lag(&self) -> Arc<AtomicU64> {
        self.lag.clone()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic of it was printed
        }
    }
}

/// How long a topic that ends too early is given to turn out to be another one.
const CUT_OFF: Duration = Duration::from_secs(3);
/// How long after an answer that did not come Kafka is asked again for where the partitions begin.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long to wait at most before looking at the cluster's state and at `stop` again.
const LOOK_UP: Duration = Duration::from_millis(100);

struct Reader<S> {
    fetcher: Arc<Fetcher<TailContext>>,
    config: ClientConfig,
    context: TailContext,
    topic: Arc<str>,
    topic_id: TopicId,
    /// The next offset of every partition; empty until the first start.
    positions: Vec<i64>,
    /// Where the partitions ended when reading began; empty once all of it was read.
    ends: Vec<i64>,
    preload: usize,
    cluster: watch::Receiver<State>,
    stop: Arc<AtomicBool>,
    /// Since when the topic ends before what was read: the topic's new id may only be known a moment later.
    cut_off: Option<Instant>,
    /// When Kafka was last asked where the partitions begin and end, because an offset that we want is not there; `None`
    /// once it has said so. librdkafka does not fetch from that partition again before it is assigned anew.
    out_of_range: Option<Instant>,
    /// Whether the partitions could not be assigned.
    unassigned: bool,
    /// Whether the last poll failed: a change is logged, a repetition is not.
    troubled: bool,
    sink: S,
}

impl<S: Sink> Reader<S> {
    fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            if self.cluster.has_changed().unwrap_or(false) || self.positions.is_empty() {
                self.follow_the_topic();
            }
            if self.cut_off.is_some_and(|since| since.elapsed() > CUT_OFF) {
                tracing::warn!(kafka.topic = &*self.topic, "the topic was cut off before what was read");
                self.start_over();
            }
            if self.out_of_range.is_some_and(|asked| asked.elapsed() > ASK_AGAIN) {
                self.out_of_range();
            } else if self.unassigned {
                self.assign();
            }
            // Many fetches a look: the state is only worth a glance now and then.
            for _ in 0..100 {
                let wait = self.sink.publish().min(LOOK_UP);
                if !self.fetch(wait) {
                    break;
                }
            }
        }
    }

    /// Takes in what is there; false if that was nothing.
    fn fetch(&mut self, wait: Duration) -> bool {
        let fetcher = self.fetcher.clone();
        let (mut any, mut failed, mut out_of_range) = (false, false, false);
        for fetched in fetcher.fetch(wait) {
            any = true;
            match fetched {
                Ok(message) => {
                    let index = message.partition() as usize;
                    // A message of an assignment that was replaced in between.
                    if self.positions.get(index).is_some_and(|next| *next <= message.offset()) {
                        self.positions[index] = message.offset() + 1;
                        self.sink.push(message.record());
                        self.look_whether_caught_up();
                    }
                    if std::mem::take(&mut self.troubled) {
                        tracing::info!(kafka.topic = &*self.topic, "the tail reads again");
                    }
                }
                Err(KafkaError::PartitionEOF(partition)) => {
                    if let Some(end) = self.ends.get_mut(partition as usize) {
                        *end = 0;
                        self.look_whether_caught_up();
                    }
                }
                Err(error) => {
                    failed = true;
                    if matches!(
                        error.rdkafka_error_code(),
                        Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
                    ) {
                        out_of_range = true;
                    } else if !std::mem::replace(&mut self.troubled, true) {
                        tracing::warn!(kafka.topic = &*self.topic, error = %error, "the tail cannot read");
                    }
                }
            }
        }
        if out_of_range {
            self.out_of_range();
        }
        if failed {
            // Errors come in a quick row while brokers are down.
            std::thread::sleep(Duration::from_millis(20));
        }
        any && !failed
    }

    fn look_whether_caught_up(&mut self) {
        if !self.ends.is_empty() && self.ends.iter().zip(&self.positions).all(|(end, next)| next >= end) {
            self.ends.clear();
            self.sink.caught_up();
        }
    }

    /// Starts, adds partitions or starts over, as the topic's description says.
    fn follow_the_topic(&mut self) {
        let Some(topic) = self.cluster.borrow_and_update().topic().cloned() else { return };
        let count = topic.partitions.len();
        if self.positions.is_empty() {
            let Some(marks) = self.watermarks(count) else { return };
            let each = (self.preload / count.max(1)) as i64;
            self.positions = marks.iter().map(|(low, high)| (high - each).max(*low)).collect();
            self.ends = marks.iter().map(|(_, high)| *high).collect();
            self.sink.start(&self.positions, &self.ends);
            self.topic_id = topic.id;
            self.assign();
            self.look_whether_caught_up();
        } else if topic.id != self.topic_id {
            tracing::warn!(kafka.topic = &*self.topic, "the topic was deleted and made anew");
            self.positions = vec![0; count];
            self.topic_id = topic.id;
            // A client that knew the old topic does not fetch from the new one (librdkafka 2.12 keeps its leader epochs).
            match Fetcher::new(&self.config, self.context.clone()) {
                Ok(fetcher) => self.fetcher = Arc::new(fetcher),
                Err(error) => tracing::error!(error = %error, "no new consumer for the topic made anew"),
            }
            self.out_of_range = None;
            self.start_over();
        } else if count > self.positions.len() {
            tracing::info!(kafka.topic = &*self.topic, partitions = count, "the topic has more partitions");
            self.positions.resize(count, 0);
            self.sink.grow(count);
            self.assign();
        }
    }

    /// Reads the topic from its beginning: earlier offsets mean nothing any more.
    fn start_over(&mut self) {
        let Some(marks) = self.watermarks(self.positions.len()) else {
            self.cut_off.get_or_insert_with(Instant::now); // comes here again
            return;
        };
        self.cut_off = None;
        (self.positions, self.ends) = marks.into_iter().unzip();
        self.sink.restart(&self.positions);
        self.assign();
        self.look_whether_caught_up();
    }

    fn assign(&mut self) {
        let mut list = TopicPartitionList::with_capacity(self.positions.len());
        for (partition, next) in self.positions.iter().enumerate() {
            // Fails only for offsets that are none.
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

    /// An offset that we want is not there: retention was faster, or the log was cut off or made anew.
    fn out_of_range(&mut self) {
        let Some(marks) = self.watermarks(self.positions.len()) else {
            self.out_of_range = Some(Instant::now()); // comes here again
            return;
        };
        self.out_of_range = None;
        if self.positions.iter().zip(&marks).any(|(next, (_, high))| next > high) {
            self.cut_off.get_or_insert_with(Instant::now);
            return;
        }
        for (partition, (low, _)) in marks.iter().enumerate() {
            if self.positions[partition] < *low {
                let missed = low - self.positions[partition];
                tracing::warn!(kafka.topic = &*self.topic, partition, missed, "records expired before they were read");
                self.positions[partition] = *low;
                self.sink.skip(partition as i32, *low);
            }
        }
        self.assign();
        self.look_whether_caught_up();
    }

    /// First and next offset of every partition; `None` if Kafka does not say.
    fn watermarks(&self, partitions: usize) -> Option<Vec<(i64, i64)>> {
        match topics::watermarks(self.fetcher.consumer(), &self.topic, partitions) {
            Ok(marks) => Some(marks),
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
    known: Known,
}

impl ClientContext for TailContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::log_client(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.known.hear(&error, reason);
        tracing::debug!(kafka.error = %error, kafka.reason = reason, "kafka tail");
    }

    fn stats(&self, statistics: Statistics) {
        let partitions = statistics.topics.values().flat_map(|topic| topic.partitions.values());
        // librdkafka counts what it has not assigned as partition -1, and what it does not know yet as below 0.
        let known = partitions.filter(|p| p.partition >= 0 && p.hi_offset >= 0 && p.app_offset >= 0);
        self.lag.store(known.map(|p| (p.hi_offset - p.app_offset).max(0) as u64).sum(), Ordering::Relaxed);
    }
}

impl ConsumerContext for TailContext {}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Sender};

    use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::super::QUESTION;
    use super::*;
    use crate::config::KafkaSettings;

    /// Tells the offsets that come.
    struct Offsets(Sender<i64>);

    impl Sink for Offsets {
        fn start(&mut self, _: &[i64], _: &[i64]) {}
        fn caught_up(&mut self) {}
        fn grow(&mut self, _: usize) {}
        fn skip(&mut self, _: i32, _: i64) {}
        fn restart(&mut self, _: &[i64]) {}
        fn push(&mut self, record: Record) {
            let _ = self.0.send(record.offset()); // to nobody at the end
        }
        fn publish(&mut self) -> Duration {
            LOOK_UP
        }
    }

    #[test]
    fn an_offset_out_of_range_is_asked_about_until_kafka_answers() {
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
