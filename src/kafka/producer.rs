//! Writing: a message goes into a bounded queue at once, and what became of it is told exactly once.
//!
//! The queue is ours, a lane for each partition, and a lane hands on to librdkafka only when what it handed on before has
//! been answered. librdkafka's idempotent producer does the same (`rd_kafka_toppar_producer_serve` in 2.12 sends nothing to a
//! partition while five messages are under way to it), but asks its sockets over and over in the meantime, and sends the
//! first messages of many before it has seen the others. So there are two clients of it: one that sends a lone message at
//! once, and one that waits a moment for all that are handed on together. Kafka gets half as many requests.
//!
//! Promises `acks=all` with idempotence: `Ok` means that all in-sync replicas have it, once. It makes no policy: when
//! to refuse and what to answer is `ingest`'s.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::bindings as sys;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use tokio::sync::watch;

use super::cluster::Known;
use super::{Cluster, Connection, ConnectionError, State, or_set, partition_of};
use crate::config::IngestSettings;

/// How long a message waits here, and then is tried, whether somebody still waits for it or not: Kafka's own default for
/// `delivery.timeout.ms` (KIP-91), or twice the deadline of a request.
const DELIVERY: Duration = Duration::from_secs(120);
/// What the queue holds at most in kibibytes, unless the operator says otherwise (`queue.buffering.max.kbytes`).
const QUEUE_KIB: usize = 256 * 1024;
/// Of topics with more partitions than this, some share a lane.
const LANES: usize = 1024;
/// Bytes that are handed on together, about: librdkafka's own bound of a request (`batch.size`).
const BATCH_BYTES: usize = 1_000_000;
/// How long messages that are handed on together wait for each other: librdkafka's clock for that goes by milliseconds.
const TOGETHER: Duration = Duration::from_millis(1);
/// How long a thread that takes the delivery reports waits for one before it looks whether it should end.
const LOOK_UP: Duration = Duration::from_millis(100);

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

/// What travels with a message and comes back with its delivery report.
struct Ticket {
    completion: Arc<dyn Completion>,
    index: usize,
    lane: usize,
    size: usize,
}

pub struct Producer {
    queue: Arc<Queue>,
    clients: Clients,
    topic: watch::Receiver<State>,
    stop: Arc<AtomicBool>,
    /// They take the delivery reports.
    threads: Vec<JoinHandle<()>>,
}

type Client = BaseProducer<Reports>;

/// librdkafka's producers: one for a lone message, and one for those that travel together.
struct Clients {
    prompt: Arc<Client>,
    patient: Arc<Client>,
}

impl Producer {
    pub fn new(connection: &Connection, cluster: &Cluster, settings: &IngestSettings) -> Result<Self, ConnectionError> {
        let mut config = connection.base.clone();
        config.set("acks", "all");
        config.set("enable.idempotence", "true");
        config.set("partitioner", "murmur2_random");
        config.set("compression.type", &settings.compression);
        // Far longer than the request's deadline: a message that times out makes librdkafka take a new epoch, in which the
        // broker no longer recognises the retries of other messages, and those would be written twice.
        let patience = settings.deadline.saturating_mul(2).max(DELIVERY);
        config.set("message.timeout.ms", patience.as_millis().to_string());
        config.set("request.timeout.ms", (settings.deadline.as_millis() * 9 / 10).clamp(1, 30_000).to_string());
        // Both clients are connected before they are needed, or the first event would wait for it, perhaps in vain.
        or_set(&mut config, &[("retry.backoff.ms", "50"), ("enable.sparse.connections", "false")]);
        // The bounds are the queue's. librdkafka counts a message for a moment longer, and must not refuse it then.
        let kib = config.get("queue.buffering.max.kbytes").and_then(|kib| kib.parse().ok()).unwrap_or(QUEUE_KIB);
        let messages = settings.queue_messages as usize;
        config.set("queue.buffering.max.messages", (2 * messages).min(i32::MAX as usize).to_string());
        config.set("queue.buffering.max.kbytes", (2 * kib).min(i32::MAX as usize).to_string());
        let queue = Arc::new(Queue {
            topic: connection.topic.clone(),
            known: cluster.known(),
            clients: OnceLock::new(),
            lanes: std::array::from_fn(|_| Mutex::default()),
            bounds: (messages, kib.saturating_mul(1024)),
            patience,
            messages: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        });
        let client = |linger: Duration| {
            let mut config = config.clone();
            config.set("linger.ms", (linger.as_secs_f64() * 1000.0).to_string());
            Client::from_config_and_context(&config, Reports { queue: queue.clone() }).map(Arc::new)
        };
        let (prompt, patient) = (client(settings.linger)?, client(settings.linger.max(TOGETHER))?);
        let _ = queue.clients.set([Arc::downgrade(&prompt), Arc::downgrade(&patient)]); // set once
        let stop = Arc::new(AtomicBool::new(false));
        let mut producer =
            Producer { queue, clients: Clients { prompt, patient }, topic: cluster.state(), stop, threads: Vec::new() };
        for client in [&producer.clients.prompt, &producer.clients.patient] {
            let (client, stop) = (client.clone(), producer.stop.clone());
            let take = move || {
                while !stop.load(Ordering::Relaxed) {
                    client.poll(LOOK_UP);
                }
            };
            producer.threads.push(std::thread::Builder::new().name("kafka-reports".into()).spawn(take)?);
        }
        Ok(producer)
    }

    /// Begins to send so many messages, which belong together. The messages of a key stay in order while the topic has as many
    /// partitions as before.
    pub fn sending(&self, messages: usize) -> Sending<'_> {
        let partitions = self.topic.borrow().topic().map_or(1, |topic| topic.partitions.len());
        let (queue, client, begun) = (&self.queue, self.clients.of(messages), Instant::now());
        Sending { queue, client, partitions, begun, held: Lanes::default() }
    }

    /// Messages that wait or are under way.
    pub fn in_flight(&self) -> usize {
        self.queue.messages.load(Ordering::Relaxed)
    }

    /// Blocks until everything was delivered or given up, at most for `within`. Says whether nothing is left.
    pub fn flush(&self, within: Duration) -> bool {
        let begun = Instant::now();
        while self.in_flight() > 0 && begun.elapsed() < within {
            for client in [&self.clients.prompt, &self.clients.patient] {
                let _ = client.flush(LOOK_UP.min(within.saturating_sub(begun.elapsed()))); // comes here again
            }
        }
        self.in_flight() == 0
    }
}

impl Clients {
    fn of(&self, messages: usize) -> &Client {
        if messages > 1 { &self.patient } else { &self.prompt }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // a panic of it was printed
        }
    }
}

/// Messages of one request, which go to Kafka together. What is under way keeps those back that come after it, but not one
/// of these another.
pub struct Sending<'a> {
    queue: &'a Queue,
    client: &'a Client,
    partitions: usize,
    begun: Instant,
    /// Those that these messages are the first in.
    held: Lanes,
}

impl Sending<'_> {
    /// Queues a message; never blocks. `completion` hears of it unless this returns an error.
    pub fn send(
        &mut self,
        message: Message,
        index: usize,
        completion: &Arc<dyn Completion>,
    ) -> Result<(), ProduceError> {
        let lane = partition_of(message.key, self.partitions) as usize % LANES;
        let queue = self.queue;
        let size = message.key.len() + message.value.len();
        queue.take_on(size)?;
        let ticket = Box::new(Ticket { completion: completion.clone(), index, lane, size });
        {
            let mut lane = queue.lane(lane);
            if lane.under_way == 0 {
                self.held.insert(ticket.lane);
                lane.under_way = 1;
            }
            if !self.held.contains(ticket.lane) {
                lane.waiting.push_back(Waiting::new(message, ticket, self.begun));
                return Ok(());
            }
            lane.under_way += 1;
        }
        queue.hand_on(self.client, message, ticket).map_err(|(error, ticket)| {
            queue.settle(&ticket);
            explain(&error, false)
        })
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.held.iter().for_each(|lane| self.queue.leave(lane));
    }
}

/// Some of the lanes, a bit for each: every post has such a set.
#[derive(Default)]
struct Lanes([u64; LANES / 64]);

impl Lanes {
    fn insert(&mut self, lane: usize) {
        self.0[lane / 64] |= 1 << (lane % 64);
    }

    fn contains(&self, lane: usize) -> bool {
        self.0[lane / 64] & 1 << (lane % 64) != 0
    }

    fn iter(&self) -> impl Iterator<Item = usize> {
        let words = self.0.iter().enumerate().filter(|(_, word)| **word != 0);
        words.flat_map(|(index, _)| index * 64..(index + 1) * 64).filter(|lane| self.contains(*lane))
    }
}

/// What waits for librdkafka, and how much it was given.
struct Queue {
    topic: Arc<str>,
    known: Known,
    /// Those of [`Clients`], which end before this.
    clients: OnceLock<[Weak<Client>; 2]>,
    lanes: [Mutex<Lane>; LANES],
    /// Messages and bytes at most.
    bounds: (usize, usize),
    /// How long a message may wait.
    patience: Duration,
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

/// The messages of a partition.
#[derive(Default)]
struct Lane {
    /// Those that librdkafka has, and one more for each that hands messages on.
    under_way: usize,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    /// Key and value.
    data: Box<[u8]>,
    key_len: usize,
    headers: OwnedHeaders,
    ticket: Box<Ticket>,
    since: Instant,
}

impl Waiting {
    fn new(message: Message, ticket: Box<Ticket>, since: Instant) -> Self {
        let Message { key, value, headers } = message;
        Waiting { data: [key, value].concat().into(), key_len: key.len(), headers, ticket, since }
    }
}

impl Queue {
    fn lane(&self, number: usize) -> MutexGuard<'_, Lane> {
        self.lanes[number].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a message, if there is room for it.
    fn take_on(&self, size: usize) -> Result<(), ProduceError> {
        let messages = self.messages.fetch_add(1, Ordering::Relaxed);
        let bytes = self.bytes.fetch_add(size, Ordering::Relaxed);
        if messages < self.bounds.0 && bytes < self.bounds.1 {
            return Ok(());
        }
        self.forget(size);
        Err(ProduceError::QueueFull)
    }

    fn forget(&self, size: usize) {
        self.messages.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(size, Ordering::Relaxed);
    }

    #[allow(clippy::result_large_err)]
    fn hand_on(&self, client: &Client, message: Message, ticket: Box<Ticket>) -> Result<(), (KafkaError, Box<Ticket>)> {
        let Message { key, value, headers } = message;
        let record = BaseRecord::with_opaque_to(&self.topic, ticket).key(key).payload(value).headers(headers);
        client.send(record).map_err(|(error, record)| (error, record.delivery_opaque))
    }

    /// A message has left librdkafka, or never got there.
    fn settle(&self, ticket: &Ticket) {
        self.forget(ticket.size);
        self.leave(ticket.lane);
    }

    /// One less is under way in a lane; after the last of them comes what waits.
    fn leave(&self, number: usize) {
        loop {
            let due = {
                let mut lane = self.lane(number);
                lane.under_way -= 1;
                if lane.under_way > 0 || lane.waiting.is_empty() {
                    return;
                }
                let mut bytes = 0;
                let room = |waiting: &&Waiting| {
                    bytes += waiting.data.len();
                    bytes <= BATCH_BYTES
                };
                let many = lane.waiting.iter().take_while(room).count().max(1);
                lane.under_way = many + 1;
                lane.waiting.drain(..many).collect::<Vec<_>>()
            };
            let client = self
                .clients
                .get()
                .and_then(|[prompt, patient]| Some(Clients { prompt: prompt.upgrade()?, patient: patient.upgrade()? }));
            let client = client.as_ref().map(|clients| clients.of(due.len()));
            let now = Instant::now();
            for Waiting { data, key_len, headers, ticket, since } in due {
                let (key, value) = data.split_at(key_len);
                let handed_on = match client {
                    Some(client) if now.saturating_duration_since(since) < self.patience => {
                        self.hand_on(client, Message { key, value, headers }, ticket)
                    }
                    _ => Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut), ticket)),
                };
                if let Err((error, ticket)) = handed_on {
                    ticket.completion.complete(ticket.index, Err(explain(&error, false)));
                    self.forget(ticket.size);
                    self.lane(number).under_way -= 1;
                }
            }
        }
    }
}

/// What librdkafka tells.
struct Reports {
    queue: Arc<Queue>,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::log_client(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.queue.known.hear(&error, reason);
        tracing::debug!(kafka.error = %error, kafka.reason = reason, "kafka producer");
    }
}

impl ProducerContext for Reports {
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
        self.queue.settle(&ticket);
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
    use std::collections::HashMap;

    use super::super::QUESTION;
    use super::*;
    use crate::config::KafkaSettings;

    /// What became of each message, by index.
    #[derive(Default)]
    struct Outcomes(Mutex<HashMap<usize, Vec<Result<Delivered, ProduceError>>>>);

    impl Outcomes {
        fn told(&self) -> MutexGuard<'_, HashMap<usize, Vec<Result<Delivered, ProduceError>>>> {
            self.0.lock().expect("no panic")
        }
    }

    impl Completion for Outcomes {
        fn complete(&self, index: usize, outcome: Result<Delivered, ProduceError>) {
            self.told().entry(index).or_default().push(outcome);
        }
    }

    /// With what must live as long.
    fn producer(queue_messages: u32) -> (Producer, Cluster, Connection) {
        let kafka = KafkaSettings::default();
        let connection = Connection::new(&kafka).expect("an embedded broker");
        let cluster = Cluster::watch(&connection, &kafka).expect("a watcher");
        let known = Instant::now();
        while cluster.state().borrow().topic().is_none() {
            assert!(known.elapsed() < QUESTION, "the topic is not known");
            std::thread::sleep(Duration::from_millis(10));
        }
        let settings = IngestSettings { queue_messages, ..IngestSettings::default() };
        (Producer::new(&connection, &cluster, &settings).expect("a producer"), cluster, connection)
    }

    fn message(key: &str) -> Message<'_> {
        Message::new(key.as_bytes(), b"{}", std::iter::empty())
    }

    #[test]
    fn what_waits_for_what_is_under_way_is_told_once_and_stays_in_order() {
        let (producer, _cluster, _connection) = producer(100_000);
        let outcomes = Arc::new(Outcomes::default());
        let completion: Arc<dyn Completion> = outcomes.clone();
        // Alone and many at a time, from more threads than partitions; each thread is a user.
        let (threads, each) = (8, 400);
        std::thread::scope(|scope| {
            for user in 0..threads {
                let (producer, completion) = (&producer, &completion);
                scope.spawn(move || {
                    let key = format!("user-{user}");
                    let mut next = 0;
                    while next < each {
                        let many = (next % 7 + 1).min(each - next);
                        let mut sending = producer.sending(many);
                        for n in next..next + many {
                            sending.send(message(&key), user * each + n, completion).expect("room in the queue");
                        }
                        next += many;
                    }
                });
            }
        });
        assert!(producer.flush(QUESTION), "{} left", producer.in_flight());
        let told = outcomes.told();
        for user in 0..threads {
            let places = (0..each).map(|n| match &told[&(user * each + n)][..] {
                [Ok(delivered)] => *delivered,
                other => panic!("message {n} of {user}: {other:?}"),
            });
            let places: Vec<_> = places.collect();
            for pair in places.windows(2) {
                assert!(pair[0].partition == pair[1].partition && pair[0].offset < pair[1].offset, "{pair:?}");
            }
        }
    }

    #[test]
    fn the_queue_is_bounded_whether_messages_wait_or_are_under_way() {
        let (producer, _cluster, _connection) = producer(100);
        let outcomes = Arc::new(Outcomes::default());
        let completion: Arc<dyn Completion> = outcomes.clone();
        let mut refused = 0;
        for n in 0..1000 {
            match producer.sending(1).send(message("John"), n, &completion) {
                Ok(()) => assert!(producer.in_flight() <= 100),
                Err(error) => {
                    assert_eq!(error, ProduceError::QueueFull);
                    refused += 1;
                }
            }
        }
        assert!(producer.flush(QUESTION), "{} left", producer.in_flight());
        assert_eq!((refused > 0, outcomes.told().len()), (true, 1000 - refused));
        // There is room again.
        producer.sending(1).send(message("John"), 1000, &completion).expect("room in the queue");
    }

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
