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

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::bindings as sys;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use tokio::sync::watch;

use super::health::Health;
use super::{
    BackgroundThread, Cluster, ClusterState, Connection, ConnectionError, Stop, connection_errors, or_set, partition_of,
};
use crate::bounds::{QUEUE_KIB, UNAWAITED_BATCH_BYTES};
use crate::config::IngestSettings;

/// How long a message may wait in the queue, and how long librdkafka may then retry it: Kafka's default for
/// `delivery.timeout.ms` (KIP-91), or twice the deadline of a request if that is longer.
const DELIVERY: Duration = Duration::from_secs(120);
/// In topics with more partitions than this, some partitions share a queue.
const QUEUES: usize = 1024;
/// How long messages that are sent together wait for each other: librdkafka's clock for that has a resolution of 1 ms.
const BURST_LINGER: Duration = Duration::from_millis(1);
/// How long a thread waits for delivery reports before it checks whether it should end.
const CHECK_EVERY: Duration = Duration::from_millis(100);
/// How long a replacement of a failed client is watched before it counts as working: a missing right shows when the
/// client requests its producer id, right after it has connected.
const TRIAL: Duration = Duration::from_millis(500);
/// How long messages in flight of a failed client may take to be acknowledged.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(1);
/// Pauses between a failed client and the next one: at first, and at most.
const REPLACE_AFTER: Duration = Duration::from_millis(100);
const REPLACE_AFTER_MOST: Duration = Duration::from_secs(5);
/// Most bytes of a record beside key, value and headers, and of a header beside name and value (KIP-98).
const RECORD_OVERHEAD: usize = 24;
const HEADER_OVERHEAD: usize = 5;
/// Batches of awaited messages between two batches of unawaited ones, by partition.
const AWAITED_BATCHES: usize = 3;
/// In a batch of unawaited messages, one user with an awaited message gets one part in this many, if there are others.
const URGENT_PARTS: usize = 8;

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

/// Runs one of librdkafka's producers: takes its delivery reports, and replaces it after a fatal error.
struct ClientThread {
    queue: Arc<SendQueue>,
    which: ClientKind,
    config: ClientConfig,
}

impl ClientThread {
    /// Creates a client, which gets all further messages.
    fn connect(&self) -> Result<Arc<Client>, KafkaError> {
        let reports = Reports { queue: self.queue.clone() };
        let client = Arc::new(Client::from_config_and_context(&self.config, reports)?);
        self.queue.set_client(self.which, Some(client.clone()));
        Ok(client)
    }

    fn run(self, mut client: Arc<Client>, stop: &Stop) {
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

#[derive(Default)]
struct PartitionQueue {
    /// Messages that librdkafka has, and one more for each request that is passing messages on.
    in_flight: usize,
    /// Bytes that the request in front has passed on, and whether its other messages must wait.
    bytes: usize,
    full: bool,
    waiting: VecDeque<WaitingMessage>,
    unawaited: Unawaited,
    /// How many messages have waited so far.
    arrived: u64,
    /// Batches since the last one with unawaited messages.
    batches: usize,
    /// Messages that were rejected together with others. They are sent alone, before those that wait.
    refused: VecDeque<WaitingMessage>,
    /// How many messages were passed to librdkafka so far, and the number of the last one that was written.
    passed_on: u64,
    written: u64,
}

impl PartitionQueue {
    /// Returns whether another message of the request in front fits into the batch. After one that does not fit, none
    /// does, so that they stay in order.
    fn has_room(&mut self, size: usize, most: usize) -> bool {
        self.full = self.full || self.bytes > 0 && self.bytes + size > most;
        if !self.full {
            self.bytes += size;
        }
        !self.full
    }

    fn wait(&mut self, mut waiting: WaitingMessage, priority: Priority) {
        self.arrived += 1;
        waiting.arrived = self.arrived;
        if priority == Priority::Awaited && !self.unawaited.users.contains_key(&waiting.user) {
            self.waiting.push_back(waiting);
        } else {
            self.unawaited.push(waiting, priority);
        }
    }

    /// Takes the next batch from the front of the queue: awaited messages, unless it is the turn of the unawaited ones.
    /// Unawaited messages never overtake awaited ones that arrived earlier.
    fn take_waiting(&mut self, most: usize) -> Vec<WaitingMessage> {
        self.batches += 1;
        if self.waiting.is_empty() || self.batches > AWAITED_BATCHES {
            let before = self.waiting.front().map_or(u64::MAX, |first| first.arrived);
            let taken = self.unawaited.take(most.min(UNAWAITED_BATCH_BYTES), before);
            if !taken.is_empty() {
                self.batches = 0;
                return taken;
            }
        }
        let mut bytes = 0;
        let fits = |waiting: &&WaitingMessage| {
            bytes += waiting.ticket.size;
            bytes <= most
        };
        let many = self.waiting.iter().take_while(fits).count().max(1).min(self.waiting.len());
        self.waiting.drain(..many).collect()
    }

    fn next_number(&mut self) -> u64 {
        self.passed_on += 1;
        self.passed_on
    }

    /// Takes the messages to pass on next. They count as in flight from then on.
    fn next_batch(&mut self, most: usize) -> Vec<WaitingMessage> {
        (self.bytes, self.full) = (0, false);
        let mut batch: Vec<_> = match self.refused.pop_front() {
            Some(alone) => vec![alone],
            None => self.take_waiting(most),
        };
        let alone = batch.len() == 1;
        for waiting in &mut batch {
            (waiting.ticket.number, waiting.ticket.alone) = (self.next_number(), alone);
        }
        self.in_flight = batch.len();
        batch
    }
}

/// The unawaited messages of a partition, and those that must not overtake one of them.
#[derive(Default)]
struct Unawaited {
    /// The messages of each key, by its hash.
    users: HashMap<u64, UserQueue>,
    /// All messages in the order of arrival, as key and number. An entry stays for a while after its message was sent.
    order: VecDeque<(u64, u64)>,
    /// Keys with an awaited message; perhaps also others.
    urgent: VecDeque<u64>,
    /// Whether the last batch had no room for the first message, which is then the first of the next batch.
    passed_over: bool,
    count: usize,
}

#[derive(Default)]
struct UserQueue {
    messages: VecDeque<WaitingMessage>,
    /// The number of the last awaited message.
    awaited: Option<u64>,
}

impl UserQueue {
    /// Returns the first message, if it or one after it is awaited.
    fn urgent(&self) -> Option<&WaitingMessage> {
        self.messages.front().filter(|first| self.awaited.is_some_and(|last| first.arrived <= last))
    }
}

impl Unawaited {
    fn push(&mut self, waiting: WaitingMessage, priority: Priority) {
        let (user, number) = (waiting.user, waiting.arrived);
        let of_user = self.users.entry(user).or_default();
        if priority == Priority::Awaited {
            if of_user.urgent().is_none() {
                self.urgent.push_back(user);
            }
            of_user.awaited = Some(number);
        }
        of_user.messages.push_back(waiting);
        self.order.push_back((user, number));
        self.count += 1;
    }

    /// Takes one batch. Half of it is for users with an awaited message, a part for each in turn; the rest is in the
    /// order of arrival, as long as the number is below `before`.
    fn take(&mut self, most: usize, before: u64) -> Vec<WaitingMessage> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        let in_order = std::mem::take(&mut self.passed_over);
        'urgent: while !in_order && let Some(user) = self.urgent.pop_front() {
            let mut of_user = 0;
            while let Some(first) = self.users.get(&user).and_then(UserQueue::urgent) {
                let size = first.ticket.size;
                if bytes > 0 && bytes + size > most / 2 {
                    self.urgent.push_front(user);
                    break 'urgent;
                }
                if of_user > 0 && of_user + size > most / URGENT_PARTS {
                    self.urgent.push_back(user);
                    break;
                }
                (bytes, of_user) = (bytes + size, of_user + size);
                taken.extend(self.pop(user));
            }
        }
        let mut any_in_order = false;
        while let Some((user, number)) = self.order.front().copied() {
            let first = self.users.get(&user).and_then(|of_user| of_user.messages.front());
            let Some(first) = first.filter(|first| first.arrived == number) else {
                self.order.pop_front(); // was sent before its turn
                continue;
            };
            if number >= before {
                break;
            }
            if bytes > 0 && bytes + first.ticket.size > most {
                self.passed_over = !any_in_order;
                break;
            }
            any_in_order = true;
            bytes += first.ticket.size;
            self.order.pop_front();
            taken.extend(self.pop(user));
        }
        if self.order.len() > 2 * self.count + 64 {
            let users = &self.users;
            let first = |user: u64| users.get(&user).and_then(|of_user| of_user.messages.front());
            self.order.retain(|(user, number)| first(*user).is_some_and(|first| first.arrived <= *number));
        }
        taken
    }

    /// Takes the first message of a user.
    fn pop(&mut self, user: u64) -> Option<WaitingMessage> {
        let of_user = self.users.get_mut(&user)?;
        let first = of_user.messages.pop_front()?;
        if of_user.messages.is_empty() {
            self.users.remove(&user);
        }
        self.count -= 1;
        Some(first)
    }
}

struct WaitingMessage {
    /// Key and value.
    data: Box<[u8]>,
    key_len: usize,
    headers: OwnedHeaders,
    ticket: Box<Ticket>,
    /// The hash of its key.
    user: u64,
    /// Its number among those of its partition queue that have waited.
    arrived: u64,
}

impl WaitingMessage {
    fn new(message: Message, ticket: Box<Ticket>, user: u64) -> Self {
        let Message { key, value, headers, .. } = message;
        WaitingMessage { data: [key, value].concat().into(), key_len: key.len(), headers, ticket, user, arrived: 0 }
    }

    /// Copies a message that librdkafka gives back.
    fn again(message: &BorrowedMessage<'_>, ticket: Box<Ticket>) -> Self {
        let (key, value) = (message.key().unwrap_or_default(), message.payload().unwrap_or_default());
        let headers = message.headers().map_or_else(OwnedHeaders::new, |headers| headers.detach());
        WaitingMessage { data: [key, value].concat().into(), key_len: key.len(), headers, ticket, user: 0, arrived: 0 }
    }
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

/// librdkafka's callbacks.
struct Reports {
    queue: Arc<SendQueue>,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::log_client(level, facility, message);
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::QUESTION;
    use super::*;
    use crate::config::KafkaSettings;

    /// The outcomes of each message, by index.
    #[derive(Default)]
    struct Outcomes(Mutex<HashMap<usize, Vec<Result<Delivered, ProduceError>>>>);

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
    fn a_post_waits_only_for_unawaited_messages_of_its_own_user() {
        let completion: Arc<dyn Completion> = Arc::new(Outcomes::default());
        let mut partition_queue = PartitionQueue::default();
        let value = [b'x'; 1000];
        let wait = |partition_queue: &mut PartitionQueue, user: u64, priority| {
            let message = Message::new(b"key", &value, std::iter::empty());
            let size = message.size;
            let (completion, since) = (completion.clone(), Instant::now());
            let ticket =
                Box::new(Ticket { completion, index: 0, partition_queue: 0, size, since, number: 0, alone: true });
            partition_queue.wait(WaitingMessage::new(message, ticket, user), priority);
        };
        let (noise, greedy, victim) = (0, 1, 2);
        for _ in 0..5000 {
            wait(&mut partition_queue, noise, Priority::Unawaited);
            wait(&mut partition_queue, greedy, Priority::Unawaited);
        }
        wait(&mut partition_queue, greedy, Priority::Awaited);
        wait(&mut partition_queue, victim, Priority::Unawaited);
        wait(&mut partition_queue, victim, Priority::Awaited);
        let users = |batch: &[WaitingMessage], user| batch.iter().filter(|waiting| waiting.user == user).count();
        let first = partition_queue.next_batch(1_000_000);
        assert_eq!((users(&first, victim), users(&first, greedy) > 0, users(&first, noise) > 0), (2, true, true));
        assert!(first.iter().map(|waiting| waiting.ticket.size).sum::<usize>() <= UNAWAITED_BATCH_BYTES);

        // Awaited messages get three of four batches, each user's messages stay in order, and nothing is left of what
        // was sent.
        let (mut batches, mut last) = (vec![first], HashMap::new());
        for turn in 1.. {
            wait(&mut partition_queue, 10 + turn, Priority::Awaited);
            let batch = partition_queue.next_batch(1_000_000);
            assert!(partition_queue.unawaited.order.len() <= 2 * partition_queue.unawaited.count + 64);
            assert_eq!(batch[0].user >= 10, turn % 4 != 0, "batch {turn}");
            batches.push(batch);
            if partition_queue.unawaited.count == 0 {
                break;
            }
        }
        for waiting in batches.iter().flatten() {
            let before = last.insert(waiting.user, waiting.arrived);
            assert!(before.is_none_or(|before| before < waiting.arrived), "{}", waiting.user);
        }
        let sent = |user| batches.iter().map(|batch| users(batch, user)).sum::<usize>();
        assert_eq!([noise, greedy, victim].map(sent), [5000, 5001, 2]);
        assert!(partition_queue.unawaited.users.is_empty() && partition_queue.unawaited.urgent.len() <= 1);
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
