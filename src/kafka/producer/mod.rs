//! Writes messages to Kafka: a message goes into a bounded queue at once, and its outcome is reported exactly once.
//!
//! Messages queue per partition, and a partition's next batch is sent only when the previous one was acknowledged.
//! librdkafka's idempotent producer also limits what is in flight (`rd_kafka_toppar_producer_serve` in 2.12 sends
//! nothing to a partition with five messages in flight), but it busy-polls meanwhile and splits a burst. Hence two
//! clients: one without linger for single messages, and one with 1 ms for messages that are sent together. Kafka gets
//! half as many requests.
//!
//! Messages that a client waits for (awaited) precede those that no client waits for (`?ack=none`), unless one of the
//! latter has the same key: a user's events stay in order. One in every few batches has unawaited messages, so that
//! they are not starved; those of keys with an awaited message come first.
//!
//! Kafka accepts or rejects a batch as a whole. A batch is never larger than the topic accepts, and a message that was
//! rejected together with others is sent again alone before it counts as rejected.
//!
//! A client with a fatal error accepts nothing any more. It is replaced, with growing pauses as long as the
//! replacements fail.
//!
//! Promises `acks=all` with idempotence: `Ok` means that all in-sync replicas have the message, once. Decides no
//! policy: when to reject and what to answer is up to `ingest`.

mod client;
mod partition_queue;

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use tokio::sync::watch;

use client::{ClientThread, Reports};
use partition_queue::{PartitionQueue, WaitingMessage};

use super::health::Health;
use super::{
    BackgroundThread, Cluster, ClusterState, Connection, ConnectionError, connection_errors, or_set, partition_of,
};
use crate::bounds::QUEUE_KIB;
use crate::config::IngestSettings;

/// How long a message may wait in the queue, and how long librdkafka may then retry it: Kafka's default for
/// `delivery.timeout.ms` (KIP-91), or twice the deadline of a request if that is longer.
const DELIVERY: Duration = Duration::from_secs(120);
/// In topics with more partitions than this, some partitions share a queue.
const QUEUES: usize = 1024;
/// How long messages that are sent together wait for each other: librdkafka's clock for that has a resolution of 1 ms.
const BURST_LINGER: Duration = Duration::from_millis(1);
/// How long a thread waits for delivery reports before it checks whether it should end. The last part of a millisecond of
/// each wait is a busy loop in rdkafka.
const CHECK_EVERY: Duration = Duration::from_millis(250);
/// Most bytes of a record beside key, value and headers, and of a header beside name and value (KIP-98).
const RECORD_OVERHEAD: usize = 24;
const HEADER_OVERHEAD: usize = 5;
/// A message to write.
pub struct Message<'a> {
    key: &'a [u8],
    value: &'a [u8],
    headers: OwnedHeaders,
    /// Most bytes that it takes in a batch.
    size: usize,
}

impl<'a> Message<'a> {
    pub fn new<'h>(key: &'a [u8], value: &'a [u8], headers: impl Iterator<Item = (&'h str, &'h str)>) -> Self {
        let owned = OwnedHeaders::new_with_capacity(headers.size_hint().0);
        let mut size = RECORD_OVERHEAD + key.len() + value.len();
        let headers = headers.fold(owned, |owned, (key, value)| {
            size += HEADER_OVERHEAD + key.len() + value.len();
            owned.insert(Header { key, value: Some(value) })
        });
        Message { key, value, headers, size }
    }
}

/// Where Kafka stored a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    pub partition: i32,
    pub offset: i64,
}

/// Why a message is not, or may not be, in Kafka.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ProduceError {
    #[error("the queue to Kafka is full")]
    QueueFull,
    /// Certainly not written: a retry makes sense.
    #[error("Kafka did not accept it: {0}")]
    NotWritten(String),
    /// Certainly not written, for a reason that is not the message's fault and concerns others too.
    #[error("{0}")]
    Unavailable(String),
    /// Certainly written: Kafka recognised a retry of a message that it has, and did not return its offset.
    #[error("Kafka stored the event but did not return its offset")]
    OffsetUnknown,
    /// Perhaps written: only a retry with the same id is safe.
    #[error("Kafka did not acknowledge it: {0}")]
    Unknown(String),
    /// Kafka will never accept the message, not even alone: its size, or a policy.
    #[error("Kafka rejects it: {0}")]
    Refused(String),
}

/// Gets the outcome of each message, once. Called on the producer's threads, so it must not block.
pub trait Completion: Send + Sync {
    fn complete(&self, index: usize, outcome: Result<Delivered, ProduceError>);
}

/// Passed through librdkafka with a message; the delivery report returns it.
struct Ticket {
    completion: Arc<dyn Completion>,
    index: usize,
    partition_queue: usize,
    size: usize,
    /// When the request started.
    since: Instant,
    /// Its number among the messages that its partition queue has passed to librdkafka.
    number: u64,
    /// Whether the message was passed to librdkafka without others.
    alone: bool,
}

pub struct Producer {
    queue: Arc<SendQueue>,
    topic: watch::Receiver<ClusterState>,
    /// They take the delivery reports.
    threads: Vec<BackgroundThread>,
}

type Client = BaseProducer<Reports>;

/// Which of librdkafka's producers: the one for single messages, or the one for messages that are sent together.
#[derive(Clone, Copy)]
enum ClientKind {
    Single,
    Burst,
}

impl ClientKind {
    fn of(messages: usize) -> Self {
        if messages > 1 { ClientKind::Burst } else { ClientKind::Single }
    }
}

impl Producer {
    pub fn new(connection: &Connection, cluster: &Cluster, settings: &IngestSettings) -> Result<Self, ConnectionError> {
        let mut config = connection.base.clone();
        config.set("acks", "all");
        config.set("enable.idempotence", "true");
        config.set("partitioner", "murmur2_random");
        config.set("compression.type", &settings.compression);
        // Far longer than the request's deadline: a message that times out makes librdkafka take a new epoch, in which
        // the broker no longer recognises retries of other messages, and those would be written twice.
        let patience = settings.deadline.saturating_mul(2).max(DELIVERY);
        config.set("message.timeout.ms", patience.as_millis().to_string());
        config.set("request.timeout.ms", (settings.deadline.as_millis() * 9 / 10).clamp(1, 30_000).to_string());
        // Both clients connect before they are needed; otherwise the first event would wait for the connection.
        or_set(&mut config, &[("retry.backoff.ms", "50"), ("enable.sparse.connections", "false")]);
        connection_errors::log_failures(&mut config);
        // The queue enforces the bounds. librdkafka counts a message a moment longer and must not reject one for that.
        let kib = config.get("queue.buffering.max.kbytes").and_then(|kib| kib.parse().ok()).unwrap_or(QUEUE_KIB);
        let messages = settings.queue_messages as usize;
        config.set("queue.buffering.max.messages", (2 * messages).min(i32::MAX as usize).to_string());
        config.set("queue.buffering.max.kbytes", (2 * kib).min(i32::MAX as usize).to_string());
        let queue = Arc::new(SendQueue {
            topic: connection.topic.clone(),
            health: cluster.health(),
            clients: Default::default(),
            partition_queues: std::array::from_fn(|_| Mutex::default()),
            users: RandomState::new(),
            bounds: (messages, kib.saturating_mul(1024)),
            patience,
            messages: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        });
        let mut producer = Producer { queue, topic: cluster.state(), threads: Vec::new() };
        for (which, linger) in
            [(ClientKind::Single, settings.linger), (ClientKind::Burst, settings.linger.max(BURST_LINGER))]
        {
            let mut config = config.clone();
            config.set("linger.ms", (linger.as_secs_f64() * 1000.0).to_string());
            let keeper = ClientThread { queue: producer.queue.clone(), which, config };
            let client = keeper.connect()?;
            producer.threads.push(BackgroundThread::start("kafka-reports", move |stop| keeper.run(client, &stop))?);
        }
        Ok(producer)
    }

    /// Starts to send this many messages of one request. The messages of a key stay in order as long as the number of
    /// partitions does not change.
    pub fn sending(&self, messages: usize, priority: Priority) -> Sending<'_> {
        let partitions = self.topic.borrow().topic().map_or(1, |topic| topic.partitions.len());
        let (queue, client) = (&self.queue, self.queue.client(ClientKind::of(messages)));
        let (started, alone) = (Instant::now(), messages == 1);
        Sending { queue, client, partitions, started, alone, priority, held: QueueSet::default() }
    }

    /// The most messages, and the most bytes of them, that may be queued or in flight.
    pub fn room(&self) -> (usize, usize) {
        self.queue.bounds
    }

    /// Messages that are queued or in flight.
    pub fn in_flight(&self) -> usize {
        self.queue.messages.load(Ordering::Relaxed)
    }

    /// Blocks until everything was delivered or has failed, for at most `within`. Returns whether nothing is left.
    pub fn flush(&self, within: Duration) -> bool {
        let started = Instant::now();
        while self.in_flight() > 0 && started.elapsed() < within {
            let wait = CHECK_EVERY.min(within.saturating_sub(started.elapsed()));
            match [ClientKind::Single, ClientKind::Burst].map(|which| self.queue.client(which)) {
                [None, None] => std::thread::sleep(wait),
                clients => {
                    for client in clients.iter().flatten() {
                        let _ = client.flush(wait); // the caller retries
                    }
                }
            }
        }
        self.in_flight() == 0
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // The threads are dropped next, one after the other.
        self.threads.iter().for_each(BackgroundThread::request_stop);
    }
}

/// Whether a client waits for the messages to be written. Awaited messages come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    Awaited,
    Unawaited,
}

/// Messages of one request. They wait for earlier batches of their partition, not for each other.
pub struct Sending<'a> {
    queue: &'a SendQueue,
    client: Option<Arc<Client>>,
    partitions: usize,
    started: Instant,
    alone: bool,
    priority: Priority,
    /// The queues in which these messages are the first.
    held: QueueSet,
}

impl Sending<'_> {
    /// Queues a message; never blocks. `completion` gets its outcome, unless this returns an error.
    pub fn send(
        &mut self,
        message: Message,
        index: usize,
        completion: &Arc<dyn Completion>,
    ) -> Result<(), ProduceError> {
        let partition_queue = partition_of(message.key, self.partitions) as usize % QUEUES;
        let queue = self.queue;
        let size = message.size;
        queue.reserve(size)?;
        let (completion, since, alone) = (completion.clone(), self.started, self.alone);
        let mut ticket = Box::new(Ticket { completion, index, partition_queue, size, since, number: 0, alone });
        {
            let mut partition_queue = queue.partition_queue(partition_queue);
            if partition_queue.in_flight == 0 {
                self.held.insert(ticket.partition_queue);
                partition_queue.in_flight = 1;
            }
            if !self.held.contains(ticket.partition_queue)
                || !partition_queue.has_room(size, queue.health.batch_bytes())
            {
                let user = queue.users.hash_one(message.key);
                partition_queue.wait(WaitingMessage::new(message, ticket, user), self.priority);
                return Ok(());
            }
            partition_queue.in_flight += 1;
            ticket.number = partition_queue.next_number();
        }
        queue.pass_on(self.client.as_deref(), message, ticket).map_err(|(error, ticket)| {
            queue.settle(&ticket, false);
            queue.explain(&error, false)
        })
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.held.iter().for_each(|partition_queue| self.queue.finish_one(partition_queue, None));
    }
}

/// A set of partition queues, one bit each: every post has such a set.
#[derive(Default)]
struct QueueSet([u64; QUEUES / 64]);

impl QueueSet {
    fn insert(&mut self, partition_queue: usize) {
        self.0[partition_queue / 64] |= 1 << (partition_queue % 64);
    }

    fn contains(&self, partition_queue: usize) -> bool {
        self.0[partition_queue / 64] & 1 << (partition_queue % 64) != 0
    }

    fn iter(&self) -> impl Iterator<Item = usize> {
        let words = self.0.iter().enumerate().filter(|(_, word)| **word != 0);
        words
            .flat_map(|(index, _)| index * 64..(index + 1) * 64)
            .filter(|partition_queue| self.contains(*partition_queue))
    }
}

/// The messages that wait for librdkafka, and how many messages and bytes librdkafka has.
struct SendQueue {
    topic: Arc<str>,
    health: Health,
    /// By [`ClientKind`]; `None` while there is no client. The client's thread removes it at the end.
    clients: [RwLock<Option<Arc<Client>>>; 2],
    partition_queues: [Mutex<PartitionQueue>; QUEUES],
    /// Hashes keys.
    users: RandomState,
    /// Most messages and bytes.
    bounds: (usize, usize),
    /// How long a message may wait.
    patience: Duration,
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

impl SendQueue {
    fn partition_queue(&self, number: usize) -> MutexGuard<'_, PartitionQueue> {
        self.partition_queues[number].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a message, if there is room for it.
    fn reserve(&self, size: usize) -> Result<(), ProduceError> {
        let messages = self.messages.fetch_add(1, Ordering::Relaxed);
        let bytes = self.bytes.fetch_add(size, Ordering::Relaxed);
        if messages < self.bounds.0 && bytes < self.bounds.1 {
            return Ok(());
        }
        self.release(size);
        Err(ProduceError::QueueFull)
    }

    fn release(&self, size: usize) {
        self.messages.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(size, Ordering::Relaxed);
    }

    fn client(&self, which: ClientKind) -> Option<Arc<Client>> {
        self.clients[which as usize].read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_client(&self, which: ClientKind, client: Option<Arc<Client>>) {
        *self.clients[which as usize].write().unwrap_or_else(PoisonError::into_inner) = client;
    }

    #[allow(clippy::result_large_err)]
    fn pass_on(
        &self,
        client: Option<&Client>,
        message: Message,
        ticket: Box<Ticket>,
    ) -> Result<(), (KafkaError, Box<Ticket>)> {
        let Some(client) = client else {
            return Err((KafkaError::MessageProduction(RDKafkaErrorCode::Fatal), ticket));
        };
        let Message { key, value, headers, .. } = message;
        let record = BaseRecord::with_opaque_to(&self.topic, ticket).key(key).payload(value).headers(headers);
        client.send(record).map_err(|(error, record)| (error, record.delivery_opaque))
    }

    /// Removes a message from the count of messages in flight.
    fn settle(&self, ticket: &Ticket, written: bool) {
        self.release(ticket.size);
        self.finish_one(ticket.partition_queue, written.then_some(ticket.number));
    }

    /// Queues a message to send it alone, if it was rejected because of others in its batch, and if no later message
    /// was written meanwhile. Returns its ticket otherwise.
    fn try_alone(
        &self,
        error: &KafkaError,
        message: &BorrowedMessage<'_>,
        ticket: Box<Ticket>,
    ) -> Result<(), Box<Ticket>> {
        if ticket.alone || !error.rdkafka_error_code().is_some_and(blames_the_batch) {
            return Err(ticket);
        }
        self.health.doubt_config();
        let number = ticket.partition_queue;
        {
            let mut partition_queue = self.partition_queue(number);
            if partition_queue.written > ticket.number {
                return Err(ticket);
            }
            partition_queue.refused.push_back(WaitingMessage::again(message, ticket));
        }
        self.finish_one(number, None);
        Ok(())
    }

    /// Fails the messages that wait to be sent alone: they would be rejected for the same reason, which concerns all
    /// records.
    fn give_up_refused(&self, number: usize, reason: &ProduceError) {
        let refused = std::mem::take(&mut self.partition_queue(number).refused);
        for WaitingMessage { ticket, .. } in refused {
            ticket.completion.complete(ticket.index, Err(reason.clone()));
            self.release(ticket.size);
        }
    }

    /// Counts off one message in flight, with its number if it was written. After the last one, passes the next batch
    /// on.
    fn finish_one(&self, number: usize, written: Option<u64>) {
        let mut written = written.unwrap_or(0);
        loop {
            let due = {
                let mut partition_queue = self.partition_queue(number);
                partition_queue.written = partition_queue.written.max(std::mem::take(&mut written));
                partition_queue.in_flight -= 1;
                if partition_queue.in_flight > 0 {
                    return;
                }
                let due = partition_queue.next_batch(self.health.batch_bytes());
                if due.is_empty() {
                    return;
                }
                partition_queue.in_flight += 1;
                due
            };
            let client = self.client(ClientKind::of(due.len()));
            let now = Instant::now();
            for WaitingMessage { data, key_len, headers, ticket, .. } in due {
                let (key, value) = data.split_at(key_len);
                let size = ticket.size;
                let passed_on = match now.saturating_duration_since(ticket.since) < self.patience {
                    true => self.pass_on(client.as_deref(), Message { key, value, headers, size }, ticket),
                    false => Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut), ticket)),
                };
                if let Err((error, ticket)) = passed_on {
                    ticket.completion.complete(ticket.index, Err(self.explain(&error, false)));
                    self.release(ticket.size);
                    self.partition_queue(number).in_flight -= 1;
                }
            }
        }
    }

    /// Returns what an error means for its message.
    fn explain(&self, error: &KafkaError, perhaps_written: bool) -> ProduceError {
        use RDKafkaErrorCode::*;
        match error.rdkafka_error_code() {
            Some(QueueFull) => ProduceError::QueueFull,
            // Also if the last attempt was denied: an earlier one may have been appended.
            Some(code) if perhaps_written => ProduceError::Unknown(code.to_string()),
            Some(MessageSizeTooLarge | InvalidMessageSize | MessageBatchTooLarge) => {
                let most = self.health.max_batch().map_or_else(String::new, |most| format!(" of {most} bytes"));
                ProduceError::Refused(format!("the record is larger than the topic's max.message.bytes{most}"))
            }
            Some(code @ (PolicyViolation | InvalidRecord)) => ProduceError::Refused(code.to_string()),
            Some(code @ (TopicAuthorizationFailed | ClusterAuthorizationFailed)) => {
                ProduceError::Unavailable(self.health.denied(code))
            }
            Some(InvalidTimestamp) => ProduceError::Unavailable(self.health.clock_refused()),
            Some(Fatal | PurgeQueue) => ProduceError::Unavailable(self.health.producer_words()),
            Some(code) => ProduceError::NotWritten(code.to_string()),
            None => ProduceError::NotWritten(error.to_string()),
        }
    }
}

/// Returns whether Kafka may reject a message with this error because of others in its batch.
fn blames_the_batch(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::*;
    matches!(
        code,
        MessageSizeTooLarge
            | InvalidMessageSize
            | MessageBatchTooLarge
            | PolicyViolation
            | InvalidRecord
            | InvalidDifferentRecord
    )
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::QUESTION;
    use super::*;
    use crate::config::KafkaSettings;

    /// The outcomes of each message, by index.
    #[derive(Default)]
    pub(super) struct Outcomes(Mutex<HashMap<usize, Vec<Result<Delivered, ProduceError>>>>);

    impl Outcomes {
        fn reported(&self) -> MutexGuard<'_, HashMap<usize, Vec<Result<Delivered, ProduceError>>>> {
            self.0.lock().expect("no panic")
        }
    }

    impl Completion for Outcomes {
        fn complete(&self, index: usize, outcome: Result<Delivered, ProduceError>) {
            self.reported().entry(index).or_default().push(outcome);
        }
    }

    /// Returns a producer with what must live as long.
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
    fn queued_messages_are_reported_once_and_stay_in_order() {
        let (producer, _cluster, _connection) = producer(100_000);
        let outcomes = Arc::new(Outcomes::default());
        let completion: Arc<dyn Completion> = outcomes.clone();
        // Single messages and bursts, from more threads than partitions; each thread is a user.
        let (threads, each) = (8, 400);
        std::thread::scope(|scope| {
            for user in 0..threads {
                let (producer, completion) = (&producer, &completion);
                scope.spawn(move || {
                    let key = format!("user-{user}");
                    let mut next = 0;
                    while next < each {
                        let many = (next % 7 + 1).min(each - next);
                        let mut sending = producer.sending(many, [Priority::Awaited, Priority::Unawaited][next % 2]);
                        for n in next..next + many {
                            sending.send(message(&key), user * each + n, completion).expect("room in the queue");
                        }
                        next += many;
                    }
                });
            }
        });
        assert!(producer.flush(QUESTION), "{} left", producer.in_flight());
        let reported = outcomes.reported();
        for user in 0..threads {
            let places = (0..each).map(|n| match &reported[&(user * each + n)][..] {
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
    fn the_queue_bounds_waiting_and_in_flight_messages() {
        let (producer, _cluster, _connection) = producer(100);
        let outcomes = Arc::new(Outcomes::default());
        let completion: Arc<dyn Completion> = outcomes.clone();
        let mut refused = 0;
        for n in 0..1000 {
            match producer.sending(1, Priority::Awaited).send(message("John"), n, &completion) {
                Ok(()) => assert!(producer.in_flight() <= 100),
                Err(error) => {
                    assert_eq!(error, ProduceError::QueueFull);
                    refused += 1;
                }
            }
        }
        assert!(producer.flush(QUESTION), "{} left", producer.in_flight());
        assert_eq!((refused > 0, outcomes.reported().len()), (true, 1000 - refused));
        // There is room again.
        producer.sending(1, Priority::Awaited).send(message("John"), 1000, &completion).expect("room in the queue");
    }

    #[test]
    fn an_error_is_explained_by_what_it_means_for_the_message() {
        use RDKafkaErrorCode::*;
        let (producer, _cluster, _connection) = producer(100);
        let explained = |code, perhaps| producer.queue.explain(&KafkaError::MessageProduction(code), perhaps);
        for code in [TopicAuthorizationFailed, MessageTimedOut] {
            assert!(matches!(explained(code, true), ProduceError::Unknown(_)), "{code}");
        }
        for code in [UnknownTopic, UnknownPartition] {
            assert!(matches!(explained(code, false), ProduceError::NotWritten(_)), "{code}");
        }
        for code in [TopicAuthorizationFailed, ClusterAuthorizationFailed, InvalidTimestamp, Fatal] {
            assert!(matches!(explained(code, false), ProduceError::Unavailable(_)), "{code}");
        }
        for code in [MessageSizeTooLarge, InvalidRecord, PolicyViolation] {
            assert!(matches!(explained(code, false), ProduceError::Refused(_)), "{code}");
        }
    }
}
