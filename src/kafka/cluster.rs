//! Is Kafka there, and what does our topic look like? One watcher asks once a second, and everyone else looks at its
//! answer: posts (503 at once), readiness, the tail (new partitions, a topic made anew) and the page.

use std::ffi::{CStr, CString};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::bindings as sys;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::sync::watch;

use super::admin::{self, Op, Owned};
use super::{Connection, Quiet};
use crate::config::KafkaSettings;
use crate::event::time::now_ms;

/// What is known of Kafka and of our topic.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// No answer yet, since the start.
    Connecting {
        since_ms: i64,
        reason: String,
    },
    Up(Arc<TopicState>),
    /// It was there once.
    Away {
        since_ms: i64,
        reason: String,
    },
}

impl State {
    pub fn topic(&self) -> Option<&Arc<TopicState>> {
        match self {
            State::Up(topic) => Some(topic),
            _ => None,
        }
    }
}

/// A topic's id (KIP-516), its upper and its lower 64 bits: another one means that the topic was deleted and made anew.
/// Zero where the broker has none.
pub type TopicId = (i64, i64);

/// Our topic, as the brokers describe it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TopicState {
    pub id: TopicId,
    /// By partition number, from 0.
    pub partitions: Vec<PartitionState>,
    /// How many it had when this process saw it first: they only become more.
    pub partitions_at_first: usize,
    /// Replicas that must be in sync for a write with `acks=all` (`min.insync.replicas`); 0 as long as that is not known.
    pub min_in_sync: usize,
}

impl TopicState {
    /// Why Kafka would refuse a write to a partition for as long as its replicas are away.
    pub fn refusal(&self, partition: usize) -> Option<String> {
        let in_sync = self.partitions.get(partition)?.in_sync;
        (in_sync < self.min_in_sync).then(|| {
            format!(
                "partition {partition} has {in_sync} of the {} in-sync replicas that a write needs (min.insync.replicas)",
                self.min_in_sync
            )
        })
    }

    /// Whether it would refuse some writes, and whether all.
    pub fn refuses_some(&self) -> bool {
        self.partitions.iter().any(|partition| partition.in_sync < self.min_in_sync)
    }

    pub fn refuses_all(&self) -> bool {
        self.partitions.iter().all(|partition| partition.in_sync < self.min_in_sync)
    }
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct PartitionState {
    /// `None` while there is none: nothing can be written or read.
    pub leader: Option<i32>,
    pub replicas: usize,
    pub in_sync: usize,
}

/// How the reason ends until something is known.
const YET: &str = " yet";
const ASK_EVERY: Duration = Duration::from_secs(1);
/// While Kafka is away: recovery is noticed soon.
const ASK_AGAIN: Duration = Duration::from_millis(200);
const ASK_FOR_CONFIG_EVERY: Duration = Duration::from_secs(30);
const ANSWER_WITHIN: Duration = Duration::from_millis(1500);

/// Watches the cluster on a thread of its own until it is dropped.
pub struct Cluster {
    state: watch::Receiver<State>,
    known: Known,
    admin: Arc<AdminClient<Quiet>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Cluster {
    pub fn watch(connection: &Connection, settings: &KafkaSettings) -> Result<Self, super::ConnectionError> {
        let mut config = connection.base.clone();
        // A question that waits for the controller asks for a connection whenever a broker's state changes, and each time
        // librdkafka (2.12, RD_KAFKA_OP_CONNECT) forgets `reconnect.backoff.ms`: with all brokers down it would fill a core.
        super::or_set(&mut config, &[("socket.timeout.ms", "5000"), ("enable.sparse.connections", "false")]);
        let reason = format!("no answer from {}{YET}", connection.servers());
        let (sender, state) = watch::channel(State::Connecting { since_ms: now_ms(), reason });
        let known =
            Known { state: Arc::new(sender), servers: connection.servers().into(), topic: connection.topic.clone() };
        let admin = AdminClient::from_config_and_context(&config, Quiet)?;
        let admin = Arc::new(admin);
        let stop = Arc::new(AtomicBool::new(false));
        let watcher = Watcher {
            admin: admin.clone(),
            embedded: connection.is_embedded(),
            known: known.clone(),
            create: settings.create_topic.then_some((settings.partitions, settings.replication)),
            first_seen: None,
            min_in_sync: 0,
            configured: None,
            stop: stop.clone(),
        };
        let thread = std::thread::Builder::new().name("kafka-watch".into()).spawn(move || watcher.run())?;
        Ok(Cluster { state, known, admin, stop, thread: Some(thread) })
    }

    pub(super) fn known(&self) -> Known {
        self.known.clone()
    }

    /// The client that asks, for other questions: it is connected already.
    pub(super) fn admin(&self) -> Arc<AdminClient<Quiet>> {
        self.admin.clone()
    }

    /// The latest state, and a way to wait for the next.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join(); // a panic of it was printed
        }
    }
}

/// What is known, shared with the other clients: a broker that was killed is known to their callbacks long before a
/// question to it has timed out.
#[derive(Clone)]
pub(super) struct Known {
    state: Arc<watch::Sender<State>>,
    servers: Arc<str>,
    topic: Arc<str>,
}

impl Known {
    /// Looks at an error that a client was told out of turn.
    pub fn hear(&self, error: &KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) => self.silent(),
            // What an operator must mend: it would be away for ever.
            Some(
                RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::SaslAuthenticationFailed
                | RDKafkaErrorCode::SSL
                | RDKafkaErrorCode::Resolve,
            ) if self.state.borrow().topic().is_none() => self.away(reason.to_owned()),
            _ => {}
        }
    }

    /// No answer, and no reason; a reason that is known already stands.
    fn silent(&self) {
        let first = match &*self.state.borrow() {
            State::Up(_) => true,
            State::Connecting { reason, .. } => reason.ends_with(YET),
            State::Away { .. } => false,
        };
        if first {
            self.away(format!("no answer from {}", self.servers));
        }
    }

    fn away(&self, reason: String) {
        self.state.send_if_modified(|state| match state {
            State::Up(_) => {
                tracing::warn!(kafka.servers = &*self.servers, kafka.topic = &*self.topic, reason, "kafka is away");
                *state = State::Away { since_ms: now_ms(), reason };
                true
            }
            State::Connecting { reason: known, .. } | State::Away { reason: known, .. } if *known != reason => {
                tracing::warn!(kafka.servers = &*self.servers, kafka.topic = &*self.topic, reason, "kafka is away");
                *known = reason;
                true
            }
            _ => false,
        });
    }
}

struct Watcher {
    admin: Arc<AdminClient<Quiet>>,
    embedded: bool,
    known: Known,
    /// Partitions and replication, until the topic was seen.
    create: Option<(i32, i32)>,
    /// Which topic it was, and how many partitions it had.
    first_seen: Option<(TopicId, usize)>,
    min_in_sync: usize,
    /// When that was asked for.
    configured: Option<Instant>,
    stop: Arc<AtomicBool>,
}

enum Question {
    NoSuchTopic,
    /// No answer: librdkafka's words for it change from one time to the next.
    Silent(String),
    Failed(String),
}

impl Watcher {
    fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            let asked = Instant::now();
            let described = if self.embedded { self.metadata() } else { self.describe() };
            let next = match described {
                Ok(topic) => {
                    self.create = None;
                    let partitions_at_first = match self.first_seen {
                        Some((id, count)) if id == topic.id => count,
                        _ => topic.partitions.len(),
                    };
                    self.first_seen = Some((topic.id, partitions_at_first));
                    self.up(TopicState { min_in_sync: self.min_in_sync, partitions_at_first, ..topic });
                    self.ask_for_min_in_sync();
                    ASK_EVERY
                }
                Err(Question::NoSuchTopic) => {
                    match self.create {
                        Some((partitions, replication)) => self.create(partitions, replication),
                        None => self.away(format!("topic `{}` does not exist", self.known.topic)),
                    }
                    ASK_AGAIN
                }
                Err(Question::Silent(error)) => {
                    tracing::debug!(error, "kafka does not describe the topic");
                    self.known.silent();
                    ASK_AGAIN
                }
                Err(Question::Failed(reason)) => {
                    self.away(reason);
                    ASK_AGAIN
                }
            };
            std::thread::park_timeout(next.saturating_sub(asked.elapsed()).max(Duration::from_millis(50)));
        }
    }

    fn up(&self, topic: TopicState) {
        let leaderless = topic.partitions.iter().filter(|p| p.leader.is_none()).count();
        if leaderless > 0 && leaderless == topic.partitions.len() {
            return self.away(format!("no partition of `{}` has a leader", self.known.topic));
        }
        let topic = State::Up(Arc::new(topic));
        self.known.state.send_if_modified(|state| {
            if *state == topic {
                return false;
            }
            if !matches!(state, State::Up(_)) {
                tracing::info!(
                    kafka.servers = &*self.known.servers,
                    kafka.topic = &*self.known.topic,
                    "kafka is there"
                );
            }
            *state = topic;
            true
        });
    }

    fn away(&self, reason: String) {
        self.known.away(reason);
    }

    fn create(&mut self, partitions: i32, replication: i32) {
        let topic = NewTopic::new(&self.known.topic, partitions, TopicReplication::Fixed(replication));
        let options = AdminOptions::new().operation_timeout(Some(ANSWER_WITHIN)).request_timeout(Some(ANSWER_WITHIN));
        let created = futures_util::FutureExt::boxed(self.admin.create_topics([&topic], &options));
        match block_on(created) {
            Ok(results) => match results.into_iter().next() {
                Some(Ok(_)) => tracing::info!(kafka.topic = &*self.known.topic, partitions, "topic created"),
                // Another replica was faster.
                Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) | None => {}
                Some(Err((_, code))) => self.away(format!("topic `{}` cannot be created: {code}", self.known.topic)),
            },
            Err(error) => self.away(format!("topic `{}` cannot be created: {error}", self.known.topic)),
        }
    }

    /// Asks for `min.insync.replicas` now and then. Who may not be told (ACL `DescribeConfigs`) finds out by posting.
    fn ask_for_min_in_sync(&mut self) {
        if self.embedded || self.configured.is_some_and(|asked| asked.elapsed() < ASK_FOR_CONFIG_EVERY) {
            return;
        }
        self.configured = Some(Instant::now());
        let topic = [ResourceSpecifier::Topic(&self.known.topic)];
        let options = AdminOptions::new().request_timeout(Some(ANSWER_WITHIN));
        let described = block_on(futures_util::FutureExt::boxed(self.admin.describe_configs(&topic, &options)));
        let described = described.ok().and_then(|described| described.into_iter().next()?.ok());
        let value = described.as_ref().and_then(|config| config.get("min.insync.replicas")?.value.as_deref());
        self.min_in_sync = value.and_then(|value| value.parse().ok()).unwrap_or(0);
    }

    /// The same question to the embedded broker, which has no controller to describe topics.
    fn metadata(&self) -> Result<TopicState, Question> {
        let metadata = self.admin.inner().fetch_metadata(Some(&self.known.topic), ANSWER_WITHIN);
        let metadata = metadata.map_err(|error| Question::Silent(error.to_string()))?;
        let topic = metadata.topics().first().ok_or(Question::NoSuchTopic)?;
        let partitions = topic.partitions().iter().map(|partition| PartitionState {
            leader: Some(partition.leader()).filter(|id| *id >= 0),
            replicas: partition.replicas().len(),
            in_sync: partition.isr().len(),
        });
        Ok(TopicState { partitions: partitions.collect(), ..TopicState::default() })
    }

    /// Asks for the topic's partitions and id. Blocks for at most [`ANSWER_WITHIN`].
    ///
    /// rdkafka has no DescribeTopics, and its metadata has no topic id, hence librdkafka's own functions.
    fn describe(&self) -> Result<TopicState, Question> {
        let name = CString::new(&*self.known.topic).map_err(|e| Question::Failed(e.to_string()))?;
        let client = self.admin.inner().native_ptr();
        unsafe {
            let mut names = [name.as_ptr()];
            let topics = Owned::new(
                sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr().cast(), names.len()),
                sys::rd_kafka_TopicCollection_destroy,
            );
            let event =
                admin::ask(&self.admin, Op::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS, ANSWER_WITHIN, |options, queue| {
                    sys::rd_kafka_DescribeTopics(client, topics.pointer(), options, queue);
                });
            let event = event.map_err(|error| Question::Silent(error.to_string()))?;
            let result = sys::rd_kafka_event_DescribeTopics_result(event.pointer());
            let described = admin::items(|count| sys::rd_kafka_DescribeTopics_result_topics(result, count));
            self.read(*described.first().ok_or_else(|| Question::Failed("an empty answer".into()))?)
        }
    }

    /// # Safety
    /// `topic` must be a valid description.
    unsafe fn read(&self, topic: *const sys::rd_kafka_TopicDescription_t) -> Result<TopicState, Question> {
        unsafe {
            let error = sys::rd_kafka_TopicDescription_error(topic);
            match sys::rd_kafka_error_code(error) {
                sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => {}
                sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART => return Err(Question::NoSuchTopic),
                _ => {
                    let text = CStr::from_ptr(sys::rd_kafka_error_string(error)).to_string_lossy();
                    return Err(Question::Failed(format!("topic `{}`: {text}", self.known.topic)));
                }
            }
            let id = sys::rd_kafka_TopicDescription_topic_id(topic);
            let id = match id.is_null() {
                true => TopicId::default(),
                false => (sys::rd_kafka_Uuid_most_significant_bits(id), sys::rd_kafka_Uuid_least_significant_bits(id)),
            };
            let mut count = 0;
            let described = sys::rd_kafka_TopicDescription_partitions(topic, &mut count);
            let mut partitions = vec![PartitionState::default(); count];
            for index in 0..count {
                let partition = *described.add(index);
                let number = sys::rd_kafka_TopicPartitionInfo_partition(partition);
                let leader = sys::rd_kafka_TopicPartitionInfo_leader(partition);
                let (mut replicas, mut in_sync) = (0, 0);
                sys::rd_kafka_TopicPartitionInfo_replicas(partition, &mut replicas);
                sys::rd_kafka_TopicPartitionInfo_isr(partition, &mut in_sync);
                let leader = (!leader.is_null()).then(|| sys::rd_kafka_Node_id(leader)).filter(|id| *id >= 0);
                // Kafka numbers partitions from 0 without holes.
                if let Some(slot) = usize::try_from(number).ok().and_then(|number| partitions.get_mut(number)) {
                    *slot = PartitionState { leader, replicas, in_sync };
                }
            }
            Ok(TopicState { id, partitions, ..TopicState::default() })
        }
    }
}

/// Waits for a future on this thread, which belongs to no runtime.
fn block_on<T>(mut future: futures_util::future::BoxFuture<'_, T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(value) => return value,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}
