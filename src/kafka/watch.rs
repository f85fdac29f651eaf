//! Watches whether Kafka is reachable and what our topic looks like. One thread asks once a second; posts (503 at
//! once), readiness, the tail (new partitions, a recreated topic) and the page read its latest answer.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::sync::Arc;
use std::thread::Thread;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::bindings as sys;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::watch;

use super::admin::{self, Op, Owned};
use super::embedded::{EmbeddedBroker, Emptied};
use super::health::{Cause, Health, HeldUp, Rights, TopicConfig, Trouble, YET, stops_all};
use super::{BackgroundThread, Connection, Quiet, Stop};
use crate::config::KafkaSettings;
use crate::event::time::now_ms;

/// What is known about Kafka and our topic.
#[derive(Debug, Clone, PartialEq)]
pub enum ClusterState {
    /// No broker has answered since the start.
    Connecting {
        since_ms: i64,
        cause: Cause,
        reason: String,
    },
    Up(Arc<TopicState>),
    /// Kafka was reachable before.
    Unreachable {
        since_ms: i64,
        cause: Cause,
        reason: String,
    },
}

impl ClusterState {
    pub fn topic(&self) -> Option<&Arc<TopicState>> {
        match self {
            ClusterState::Up(topic) => Some(topic),
            _ => None,
        }
    }

    /// Returns why nothing can be written or read; `None` while Kafka is up.
    pub fn trouble(&self) -> Option<Trouble> {
        match self {
            ClusterState::Up(_) => None,
            ClusterState::Connecting { cause: Cause::Unreachable, reason, .. }
            | ClusterState::Unreachable { cause: Cause::Unreachable, reason, .. } => {
                Some(Trouble::new(Cause::Unreachable, format!("Kafka is unreachable: {reason}")))
            }
            ClusterState::Connecting { cause, reason, .. } | ClusterState::Unreachable { cause, reason, .. } => {
                Some(Trouble::new(*cause, reason.clone()))
            }
        }
    }
}

/// A topic's id (KIP-516), upper and lower 64 bits. A different id means that the topic was deleted and recreated. Zero
/// if the broker has no topic ids.
pub type TopicId = (i64, i64);

/// Our topic, as the brokers describe it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TopicState {
    pub id: TopicId,
    /// By partition number, from 0.
    pub partitions: Vec<PartitionState>,
    /// The number of partitions when this process first saw the topic. Kafka only ever adds partitions.
    pub partitions_at_first: usize,
    /// By partition: the offset before which records are deleted although the broker still has them. Empty, except of the
    /// embedded broker after its topic was emptied.
    pub starts: Vec<i64>,
    /// Replicas that must be in sync for a write with `acks=all` (`min.insync.replicas`); 0 until that is known.
    pub min_in_sync: usize,
    /// What keeps posts from being written or streams from getting records.
    pub troubles: Vec<Trouble>,
}

impl TopicState {
    /// Returns the first and next offset of a partition, given those that the broker reports.
    pub(super) fn marks(&self, partition: i32, (first, next): (i64, i64)) -> (i64, i64) {
        let start = usize::try_from(partition).ok().and_then(|index| self.starts.get(index));
        (start.map_or(first, |start| first.max(*start)), next)
    }

    /// Returns why a post to this partition is rejected without an attempt.
    pub fn refusal(&self, partition: i32) -> Option<&Trouble> {
        self.troubles.iter().find(|trouble| refuses(trouble) && trouble.partition.is_none_or(|it| it == partition))
    }

    /// Returns the partitions that have a leader. The others can be neither read nor written.
    pub fn led(&self) -> Vec<i32> {
        (0..).zip(&self.partitions).filter(|(_, partition)| partition.leader.is_some()).map(|(n, _)| n).collect()
    }

    /// Returns why a post is rejected without an attempt, whatever its partition.
    pub fn refusal_of_all(&self) -> Option<&Trouble> {
        if self.troubles.is_empty() {
            return None;
        }
        stops_all(&self.troubles, self.partitions.len(), refuses)
    }
}

fn refuses(trouble: &Trouble) -> bool {
    trouble.cause.stops_posts() && !trouble.tried
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct PartitionState {
    /// `None` if the partition has no leader: it can be neither read nor written.
    pub leader: Option<i32>,
    pub replicas: usize,
    pub in_sync: usize,
    /// Since when the partition has had no leader, as far as this process knows.
    pub leaderless_since: Option<Instant>,
}

const ASK_EVERY: Duration = Duration::from_secs(1);
/// How often the watcher asks while Kafka is unreachable, so that it notices recovery soon.
const ASK_AGAIN: Duration = Duration::from_millis(200);
const ASK_FOR_CONFIG_EVERY: Duration = Duration::from_secs(10);
const ANSWER_WITHIN: Duration = Duration::from_millis(1500);

/// Watches the cluster on a thread of its own until it is dropped.
pub struct Cluster {
    state: watch::Receiver<ClusterState>,
    health: Health,
    admin: Arc<AdminClient<Quiet>>,
    thread: BackgroundThread,
}

impl Cluster {
    pub fn watch(connection: &Connection, settings: &KafkaSettings) -> Result<Self, super::ConnectionError> {
        let mut config = connection.base.clone();
        // A request that waits for the controller asks for a connection whenever a broker's state changes, and each
        // time librdkafka (2.12, RD_KAFKA_OP_CONNECT) resets `reconnect.backoff.ms`: with all brokers down it would
        // occupy a core.
        super::or_set(&mut config, &[("socket.timeout.ms", "5000"), ("enable.sparse.connections", "false")]);
        let reason = format!("no answer from {}{YET}", connection.servers());
        let (sender, state) =
            watch::channel(ClusterState::Connecting { since_ms: now_ms(), cause: Cause::Unreachable, reason });
        let user = Some(settings.sasl_username.as_str()).filter(|user| !user.is_empty());
        let health = Health::new(sender, connection.servers(), &connection.topic, user);
        let admin = AdminClient::from_config_and_context(&config, Quiet)?;
        let admin = Arc::new(admin);
        let watcher = Watcher {
            admin: admin.clone(),
            embedded: connection.embedded.clone(),
            health: health.clone(),
            create: settings.create_topic.then_some((settings.partitions, settings.replication)),
            first_seen: None,
            configured: None,
            leaderless: HashMap::new(),
        };
        let thread = BackgroundThread::start("kafka-watch", move |stop| watcher.run(&stop))?;
        Ok(Cluster { state, health, admin, thread })
    }

    pub(super) fn health(&self) -> Health {
        self.health.clone()
    }

    /// The thread of the watcher: it asks when it is unparked.
    pub(super) fn watcher(&self) -> Option<Thread> {
        self.thread.thread()
    }

    /// The watcher's client, for other requests: it is connected already.
    pub(super) fn admin(&self) -> Arc<AdminClient<Quiet>> {
        self.admin.clone()
    }

    /// Returns a function that lists the partitions held up by a transaction, a few seconds old at most.
    pub fn held_up(&self) -> impl Fn() -> Vec<HeldUp> + Send + Sync + 'static {
        let health = self.health();
        move || health.held_up()
    }

    /// The latest state, and a way to wait for the next one.
    pub fn state(&self) -> watch::Receiver<ClusterState> {
        self.state.clone()
    }
}

struct Watcher {
    admin: Arc<AdminClient<Quiet>>,
    embedded: Option<Arc<EmbeddedBroker>>,
    health: Health,
    /// Partitions and replication factor of a topic to create; `None` once the topic was seen.
    create: Option<(i32, i32)>,
    /// The topic that was seen first, and its number of partitions.
    first_seen: Option<(TopicId, usize)>,
    /// When the topic's settings were last requested.
    configured: Option<Instant>,
    /// Since when partitions have had no leader.
    leaderless: HashMap<usize, Instant>,
}

enum Question {
    NoSuchTopic,
    /// This client may not describe the topic.
    Denied,
    /// No answer. librdkafka words the reason differently from one time to the next.
    Silent(String),
    Failed(String),
}

impl Watcher {
    fn run(mut self, stop: &Stop) {
        while !stop.is_requested() {
            let asked = Instant::now();
            let emptied = self.embedded.as_ref().map(|broker| broker.emptied().clone());
            let described = match &emptied {
                Some(emptied) => self.metadata(emptied),
                None => self.describe(),
            };
            let next = match described {
                Ok((topic, rights)) => {
                    self.create = None;
                    let partitions_at_first = match self.first_seen {
                        Some((id, count)) if id == topic.id => count,
                        _ => topic.partitions.len(),
                    };
                    self.first_seen = Some((topic.id, partitions_at_first));
                    let mut topic = TopicState { partitions_at_first, ..topic };
                    self.count_leaderless(&mut topic);
                    self.health.on_description(topic, rights);
                    if self.embedded.is_none() {
                        self.ask_for_config();
                    }
                    ASK_EVERY
                }
                Err(Question::NoSuchTopic) => {
                    match self.create {
                        Some((partitions, replication)) => self.create(partitions, replication),
                        None => self.missing(format!("topic `{}` does not exist", self.health.topic())),
                    }
                    ASK_AGAIN
                }
                Err(Question::Denied) => {
                    self.health.describe_denied();
                    ASK_AGAIN
                }
                Err(Question::Silent(error)) => {
                    tracing::debug!(error, "kafka does not describe the topic");
                    self.health.mark_unreachable();
                    ASK_AGAIN
                }
                Err(Question::Failed(reason)) => {
                    self.health.mark_unavailable(Cause::Unreachable, reason);
                    ASK_AGAIN
                }
            };
            std::thread::park_timeout(next.saturating_sub(asked.elapsed()).max(Duration::from_millis(50)));
        }
    }

    /// Records since when partitions have had no leader.
    fn count_leaderless(&mut self, topic: &mut TopicState) {
        self.leaderless.retain(|partition, _| topic.partitions.get(*partition).is_some_and(|it| it.leader.is_none()));
        for (number, partition) in topic.partitions.iter_mut().enumerate().filter(|(_, it)| it.leader.is_none()) {
            partition.leaderless_since = Some(*self.leaderless.entry(number).or_insert_with(Instant::now));
        }
    }

    fn missing(&self, reason: String) {
        self.health.mark_unavailable(Cause::TopicMissing, reason);
    }

    fn create(&mut self, partitions: i32, replication: i32) {
        let topic = NewTopic::new(self.health.topic(), partitions, TopicReplication::Fixed(replication));
        let options = AdminOptions::new().operation_timeout(Some(ANSWER_WITHIN)).request_timeout(Some(ANSWER_WITHIN));
        match pollster::block_on(self.admin.create_topics([&topic], &options)) {
            Ok(results) => match results.into_iter().next() {
                Some(Ok(_)) => tracing::info!(kafka.topic = self.health.topic(), partitions, "topic created"),
                // Another replica of Footfall created it first.
                Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) | None => {}
                Some(Err((_, code))) => self.missing(self.not_created(&code)),
            },
            Err(error) => self.missing(self.not_created(&error)),
        }
    }

    fn not_created(&self, error: &dyn std::fmt::Display) -> String {
        format!("topic `{}` does not exist and cannot be created: {error}", self.health.topic())
    }

    /// Requests the topic's settings every 10 s, and when a rejected write puts them in doubt. Without the ACL
    /// `DescribeConfigs` the values stay unknown, and a write reports the problem.
    fn ask_for_config(&mut self) {
        let due = self.configured.is_none_or(|asked| asked.elapsed() >= ASK_FOR_CONFIG_EVERY);
        if !self.health.take_doubt_of_config() && !due {
            return;
        }
        self.configured = Some(Instant::now());
        let topic = [ResourceSpecifier::Topic(self.health.topic())];
        let options = AdminOptions::new().request_timeout(Some(ANSWER_WITHIN));
        let described = pollster::block_on(self.admin.describe_configs(&topic, &options));
        let Ok(described) = described else { return }; // what was known stays
        let config = described.into_iter().next().and_then(Result::ok);
        self.health.configured(config.map_or_else(TopicConfig::default, |config| {
            let value = |name: &str| config.get(name)?.value.as_deref();
            let timestamps = ["message.timestamp.before.max.ms", "message.timestamp.after.max.ms"];
            let timestamps = timestamps.into_iter().filter_map(|name| Some(format!("{name}={}", value(name)?)));
            TopicConfig {
                min_in_sync: value("min.insync.replicas").and_then(|value| value.parse().ok()).unwrap_or(0),
                max_batch: value("max.message.bytes").and_then(|value| value.parse().ok()),
                timestamps: Some(timestamps.collect::<Vec<_>>().join(", ")).filter(|text| !text.is_empty()),
            }
        }));
    }

    /// Asks the embedded broker, which has no controller to describe topics.
    fn metadata(&self, emptied: &Emptied) -> Result<(TopicState, Rights), Question> {
        let metadata = self.admin.inner().fetch_metadata(Some(self.health.topic()), ANSWER_WITHIN);
        let metadata = metadata.map_err(|error| Question::Silent(error.to_string()))?;
        let topic = metadata.topics().first().ok_or(Question::NoSuchTopic)?;
        let partitions = topic.partitions().iter().map(|partition| PartitionState {
            leader: Some(partition.leader()).filter(|id| *id >= 0),
            replicas: partition.replicas().len(),
            in_sync: partition.isr().len(),
            ..PartitionState::default()
        });
        let (id, starts) = (emptied.topic_id(), emptied.starts.clone());
        let topic = TopicState { id, starts, partitions: partitions.collect(), ..TopicState::default() };
        Ok((topic, Rights::default()))
    }

    /// Requests the topic's partitions and id, and this client's rights on it. Blocks for at most [`ANSWER_WITHIN`].
    ///
    /// rdkafka has no DescribeTopics, and its metadata has no topic id; hence librdkafka's own functions.
    fn describe(&self) -> Result<(TopicState, Rights), Question> {
        let name = CString::new(self.health.topic()).map_err(|e| Question::Failed(e.to_string()))?;
        let client = self.admin.inner().native_ptr();
        unsafe {
            let mut names = [name.as_ptr()];
            let topics = Owned::new(
                sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr().cast(), names.len()),
                sys::rd_kafka_TopicCollection_destroy,
            );
            let event =
                admin::ask(&self.admin, Op::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS, ANSWER_WITHIN, |options, queue| {
                    sys::rd_kafka_AdminOptions_set_include_authorized_operations(options.cast_mut(), 1);
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
    unsafe fn read(&self, topic: *const sys::rd_kafka_TopicDescription_t) -> Result<(TopicState, Rights), Question> {
        unsafe {
            let error = sys::rd_kafka_TopicDescription_error(topic);
            match sys::rd_kafka_error_code(error) {
                sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => {}
                sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART => return Err(Question::NoSuchTopic),
                sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED => return Err(Question::Denied),
                _ => {
                    let text = CStr::from_ptr(sys::rd_kafka_error_string(error)).to_string_lossy();
                    return Err(Question::Failed(format!("topic `{}`: {text}", self.health.topic())));
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
                    *slot = PartitionState { leader, replicas, in_sync, ..PartitionState::default() };
                }
            }
            Ok((TopicState { id, partitions, ..TopicState::default() }, rights(topic)))
        }
    }
}

/// Returns this client's rights on a topic, if the description has them.
///
/// # Safety
///
/// `topic` must be a valid description.
unsafe fn rights(topic: *const sys::rd_kafka_TopicDescription_t) -> Rights {
    use sys::rd_kafka_AclOperation_t::*;
    let mut count = 0;
    let operations = unsafe { sys::rd_kafka_TopicDescription_authorized_operations(topic, &mut count) };
    if operations.is_null() {
        return Rights::default();
    }
    let operations = unsafe { std::slice::from_raw_parts(operations, count) };
    let may = |operation| Some(operations.contains(&operation));
    Rights { read: may(RD_KAFKA_ACL_OPERATION_READ), write: may(RD_KAFKA_ACL_OPERATION_WRITE) }
}
