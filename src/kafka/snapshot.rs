//! The cluster as the page about Kafka shows it: brokers, topics, our topic's partitions, consumer groups and their
//! lag.
//!
//! A snapshot is requested at most once a second and shared, so a thousand viewers cost as much as one. Without viewers
//! a [`Sampler`] asks every 10 s for the topic's ends and the groups on it, so that the last 15 minutes are known. If one
//! part fails (a missing ACL, the embedded broker), the others are still complete.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use std::{fmt, io, sync};

use footfall_core::schema::Partition;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::bindings as sys;
use rdkafka::metadata::Metadata;
use serde::Serialize;
use tokio::sync::{Mutex, watch};
use utoipa::ToSchema;

use super::admin::groups::{self, CommitHistory, Group, GroupChoice, Groups, ListedGroup, Purpose};
use super::admin::next_records::LookaheadCache;
use super::admin::topics::{self, Described, Offsets, TopicSummary};
use super::admin::{self, AdminError, Op};
use super::trends::{TrendSnapshot, Trends};
use super::watch::{TopicId, TopicState};
use super::{BackgroundThread, Cluster, ClusterState, Connection, Quiet};
use crate::bounds::{CLUSTER_FRESH, COUNTED_PARTITIONS, LISTED, SAMPLE_EVERY, TOPICS, WANTED, WANTED_FOR};
use crate::event::time::now_ms;

/// A rate is measured over at most, and at least, this long.
const RATE_OVER: Duration = Duration::from_secs(10);
const RATE_AT_LEAST: Duration = Duration::from_millis(500);
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How often the topic's retention and its oldest record are requested.
const FACTS_EVERY: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    #[error("Kafka is unreachable: {0}")]
    Unreachable(String),
    /// Kafka answers other requests: it may still be loading the groups.
    #[error("Kafka cannot list its groups now: {0}")]
    Unlisted(String),
    /// The embedded broker does not support this request.
    #[error("the embedded broker cannot list consumer groups; it can with Apache Kafka (kafka.bootstrap_servers)")]
    NoGroups,
}

/// The answers of one moment.
#[derive(Debug, Clone)]
pub struct ClusterSnapshot {
    pub cluster: ClusterSummary,
    /// All topics but Kafka's internal ones, sorted by name; at most `bounds::LISTED`. The records are counted of the first
    /// `bounds::TOPICS` and of those that viewers want.
    pub topics: Vec<TopicSummary>,
    /// Topics beyond the listed ones.
    pub topics_left_out: usize,
    pub topic: TopicDetail,
    pub facts: TopicFacts,
    /// What happened in the last 15 minutes.
    pub trends: TrendSnapshot,
    /// All groups, sorted by name; at most `bounds::LISTED`.
    pub listed_groups: Vec<ListedGroup>,
    /// How many of them have not been described yet, so that it is not known whether they read our topic.
    pub unexamined_groups: usize,
    pub groups: Result<Groups, InspectError>,
    /// The parts that could not be determined.
    pub problems: Vec<Missing>,
}

/// A part that is missing or incomplete, and why: an ACL that is missing, a broker that does not answer.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Missing {
    pub part: Part,
    pub detail: String,
}

/// A part of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    Cluster,
    Offsets,
    Groups,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct ClusterSummary {
    /// Null with the embedded broker.
    #[schema(required)]
    pub id: Option<String>,
    /// Id of the broker that takes administrative requests. With KRaft every broker does, and Kafka names any of them.
    #[schema(required)]
    pub controller: Option<i32>,
    /// Sorted by id.
    pub brokers: Vec<BrokerSummary>,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct BrokerSummary {
    pub broker: i32,
    pub host: String,
    pub port: u16,
    #[schema(required)]
    pub rack: Option<String>,
}

/// Our topic.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TopicDetail {
    pub topic: String,
    pub partitions: Vec<PartitionDetail>,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PartitionDetail {
    #[schema(value_type = Partition)]
    pub partition: i32,
    /// Id of the broker that takes writes. Null: the partition can be neither read nor written.
    #[schema(required)]
    pub leader: Option<i32>,
    /// Ids of the brokers that have a copy.
    pub replicas: Vec<i32>,
    /// Ids of the brokers whose copy is complete.
    pub in_sync: Vec<i32>,
    /// Offset of the oldest record that was not deleted.
    #[schema(required)]
    pub first_offset: Option<i64>,
    /// Offset of the next record to be written.
    #[schema(required)]
    pub next_offset: Option<i64>,
    /// The difference of the two offsets. At least the number of records: compaction and transactions leave offsets
    /// without a record.
    #[schema(required)]
    pub records: Option<i64>,
    /// The records times the mean size (key, value and headers) of the latest ones in memory; null if there are none.
    // Kafka's own figure is smaller because of compression; librdkafka cannot request it (it has no DescribeLogDirs).
    #[schema(required)]
    pub bytes_estimate: Option<u64>,
    /// Over the last 10 s at most; null until there are two snapshots at least 0.5 s apart.
    #[schema(required)]
    pub records_per_second: Option<f64>,
}

/// What Kafka says about our topic as a whole. `None`: not known.
#[derive(Debug, Clone, Default)]
pub struct TopicFacts {
    /// `retention.ms`; -1 for no limit.
    pub retention_ms: Option<i64>,
    /// `retention.bytes` of each partition; -1 for no limit.
    pub retention_bytes: Option<i64>,
    /// `cleanup.policy`.
    pub cleanup: Option<String>,
    /// Kafka's timestamp of the oldest record of all partitions, in milliseconds since 1970.
    pub oldest_ms: Option<i64>,
}

/// Mean bytes of the latest records in memory, by partition.
pub type MeanSizes = Box<dyn Fn() -> BTreeMap<i32, f64> + Send + Sync>;

pub struct Inspector {
    admin: Arc<AdminClient<Quiet>>,
    topic: Arc<str>,
    servers: String,
    embedded: bool,
    state: watch::Receiver<ClusterState>,
    connection: Connection,
    sizes: MeanSizes,
    known: Arc<Mutex<SnapshotCache>>,
    wanted: sync::Mutex<Wanted>,
}

/// The names of topics and groups beyond the first ones that viewers have found lately, and when.
#[derive(Default)]
struct Wanted {
    topics: HashMap<String, Instant>,
    groups: HashMap<String, Instant>,
}

/// Samples the topic and its groups while nobody looks, until it is dropped.
pub struct Sampler(#[expect(dead_code, reason = "ends when it is dropped")] BackgroundThread);

/// What one snapshot keeps for the next.
#[derive(Default)]
struct SnapshotCache {
    latest: Option<(Instant, Result<Arc<ClusterSnapshot>, InspectError>)>,
    /// Next offsets by partition, oldest first.
    earlier: VecDeque<(Instant, Vec<Option<i64>>)>,
    lookahead: LookaheadCache,
    commits: CommitHistory,
    choice: GroupChoice,
    trends: Trends,
    sampled: Option<Instant>,
    facts: Option<(Instant, TopicFacts)>,
    topic: TopicId,
}

impl Inspector {
    pub fn new(connection: &Connection, cluster: &Cluster, sizes: MeanSizes) -> Self {
        Inspector {
            admin: cluster.admin(),
            topic: connection.topic.clone(),
            servers: connection.servers().to_owned(),
            embedded: connection.is_embedded(),
            state: cluster.state(),
            connection: connection.clone(),
            sizes,
            known: Arc::default(),
            wanted: sync::Mutex::default(),
        }
    }

    /// Samples in the background: every 10 s, unless a snapshot was requested meanwhile. Each sample asks every
    /// broker for its groups and the topic's ends, and the coordinators about at most 100 groups.
    pub fn sample_in_background(self: &Arc<Self>) -> io::Result<Sampler> {
        let inspector = self.clone();
        let thread = BackgroundThread::start("kafka-sample", move |stop| {
            while !stop.is_requested() {
                let mut known = inspector.known.clone().blocking_lock_owned();
                if known.sampled.is_none_or(|at| at.elapsed() >= SAMPLE_EVERY) {
                    inspector.sample(&mut known);
                }
                drop(known);
                std::thread::park_timeout(SAMPLE_EVERY / 4);
            }
        })?;
        Ok(Sampler(thread))
    }

    /// Has the next snapshots count these topics and describe these groups too. As many as a bound allows.
    pub fn want<'a>(&self, topics: impl Iterator<Item = &'a str>, groups: impl Iterator<Item = &'a str>) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        remember(&mut wanted.topics, topics);
        remember(&mut wanted.groups, groups);
    }

    /// Returns the latest snapshot, at most a second old. Waits while one is being requested, a few seconds at most.
    pub async fn snapshot(self: &Arc<Self>) -> Result<Arc<ClusterSnapshot>, InspectError> {
        let mut known = self.known.clone().lock_owned().await;
        if let Some((at, latest)) = &known.latest
            && at.elapsed() < CLUSTER_FRESH
        {
            return latest.clone();
        }
        let inspector = self.clone();
        // The thread keeps the lock: if the caller gives up, the next one must not request a second snapshot in
        // parallel.
        let asked = tokio::task::spawn_blocking(move || {
            let latest = inspector.ask(&mut known).map(Arc::new);
            known.latest = Some((Instant::now(), latest.clone()));
            latest
        });
        asked.await.unwrap_or_else(|_| Err(InspectError::Unreachable("the request failed".into())))
    }

    /// Returns our topic as it is now, and forgets everything about an older one of that name.
    fn ours(&self, known: &mut SnapshotCache) -> Result<Arc<TopicState>, InspectError> {
        let ours = match &*self.state.borrow() {
            ClusterState::Up(topic) => topic.clone(),
            ClusterState::Connecting { reason, .. } | ClusterState::Unreachable { reason, .. } => {
                return Err(InspectError::Unreachable(reason.clone()));
            }
        };
        if ours.id != known.topic {
            *known = SnapshotCache { topic: ours.id, ..SnapshotCache::default() };
        }
        Ok(ours)
    }

    fn ask(&self, known: &mut SnapshotCache) -> Result<ClusterSnapshot, InspectError> {
        let ours = self.ours(known)?;
        let failed = |error: String| InspectError::Unreachable(format!("no answer from {}: {error}", self.servers));
        let metadata = self.admin.inner().fetch_metadata(None, ANSWER_WITHIN).map_err(|e| failed(e.to_string()))?;
        let described = Described::new(&metadata);
        let mut problems = Vec::new();
        let cluster = self.cluster(&metadata, &mut problems);
        let (wanted_topics, wanted_groups) = self.wanted();
        let mut listed_groups = Vec::new();
        let mut groups = self.groups(known, Purpose::Snapshot, &wanted_groups, &mut listed_groups);
        if let Some(detail) = groups.as_ref().ok().and_then(|groups| groups.problem.clone()) {
            problems.push(Missing { part: Part::Groups, detail });
        }
        let mut names = described.names();
        let topics_left_out = names.len().saturating_sub(LISTED);
        names.truncate(LISTED);
        let wanted = names.iter().filter(|name| wanted_topics.contains(**name));
        let counted = wanted.chain(names.iter().take(TOPICS)).flat_map(|name| described.places(name));
        let mut places: Vec<_> = counted.take(COUNTED_PARTITIONS).collect();
        places.extend(described.places(&self.topic));
        places.extend(groups.iter().flat_map(|groups| groups.places(&described)));
        let offsets = self.offsets(&ours, places).unwrap_or_else(|error| {
            problems.push(Missing { part: Part::Offsets, detail: error.to_string() });
            Offsets::new()
        });
        let topic = self.topic(&described, &offsets, known);
        if let Ok(groups) = &mut groups {
            self.measure(groups, &described, &offsets, known);
            known.commits.watch(groups);
        }
        let readers = || groups.iter().flat_map(|groups| &groups.groups).filter(|group| group.reads(&self.topic));
        known.add_sample(&self.topic, topic.partitions.iter().map(|partition| partition.next_offset), readers());
        let trends = known.trends.snapshot(now_ms(), &self.topic, readers());
        let topics = names.iter().map(|name| described.summary(name, &offsets)).collect();
        let unexamined_groups = listed_groups.len().saturating_sub(known.choice.known());
        let facts = self.facts(&ours, known);
        Ok(ClusterSnapshot {
            cluster,
            topics,
            topics_left_out,
            topic,
            facts,
            trends,
            listed_groups,
            unexamined_groups,
            groups,
            problems,
        })
    }

    /// Asks for what the trends need, and for no other topic.
    fn sample(&self, known: &mut SnapshotCache) {
        let Ok(ours) = self.ours(known) else { return };
        known.sampled = Some(Instant::now());
        let Ok(metadata) = self.admin.inner().fetch_metadata(Some(&self.topic), ANSWER_WITHIN) else { return };
        let described = Described::new(&metadata);
        let mut groups = self.groups(known, Purpose::Sample, &HashSet::new(), &mut Vec::new());
        let Ok(offsets) = self.offsets(&ours, described.places(&self.topic)) else { return };
        if let Ok(groups) = &mut groups {
            groups.groups.retain(|group| group.reads(&self.topic));
            self.measure(groups, &described, &offsets, known);
        }
        let partitions = 0..ours.partitions.len() as i32;
        let ends = partitions.map(|partition| offsets.get(&(self.topic.to_string(), partition)).map(|(_, end)| *end));
        let readers = groups.iter().flat_map(|groups| &groups.groups);
        known.add_sample(&self.topic, ends, readers);
    }

    /// Returns the names that viewers want.
    fn wanted(&self) -> (HashSet<String>, HashSet<String>) {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        (wanted.topics.keys().cloned().collect(), wanted.groups.keys().cloned().collect())
    }

    /// Lists all groups, and describes as many as the purpose needs.
    fn groups(
        &self,
        known: &mut SnapshotCache,
        purpose: Purpose,
        wanted: &HashSet<String>,
        all: &mut Vec<ListedGroup>,
    ) -> Result<Groups, InspectError> {
        if self.embedded {
            return Err(InspectError::NoGroups);
        }
        let mut groups = match groups::list(&self.admin, ANSWER_WITHIN) {
            Ok(groups) => groups,
            Err(AdminError::Failed(reason)) => return Err(InspectError::Unlisted(reason)),
            Err(denied) => return Ok(Groups { problem: Some(denied.to_string()), ..Groups::default() }),
        };
        groups.groups.sort_by(|a, b| a.group.cmp(&b.group));
        groups.groups.truncate(LISTED);
        all.extend(groups.groups.iter().map(|group| ListedGroup {
            group: group.group.clone(),
            state: group.state.clone(),
            kind: group.kind.clone(),
        }));
        known.choice.choose(&mut groups, purpose, wanted);
        groups::describe_listed(&self.admin, &mut groups, ANSWER_WITHIN);
        known.choice.note(&groups.groups, &self.topic);
        Ok(groups)
    }

    /// Requests both ends of these partitions. Called after the committed offsets are known, so that a lag is never
    /// negative.
    fn offsets(&self, ours: &TopicState, places: Vec<topics::Place>) -> Result<Offsets, AdminError> {
        let mut offsets = topics::offsets(&self.admin, places, ANSWER_WITHIN)?;
        for ((topic, partition), marks) in &mut offsets {
            if *topic == *self.topic {
                *marks = ours.marks(*partition, *marks);
            }
        }
        Ok(offsets)
    }

    fn measure(&self, groups: &mut Groups, described: &Described<'_>, offsets: &Offsets, known: &mut SnapshotCache) {
        groups.measure(described, offsets);
        groups.look_ahead(&self.connection, &mut known.lookahead);
    }

    /// Requests the topic's retention and its oldest record every [`FACTS_EVERY`]. The embedded broker knows neither.
    fn facts(&self, ours: &TopicState, known: &mut SnapshotCache) -> TopicFacts {
        if self.embedded {
            return TopicFacts::default();
        }
        if let Some((_, facts)) = known.facts.as_ref().filter(|(at, _)| at.elapsed() < FACTS_EVERY) {
            return facts.clone();
        }
        let mut facts = self.retention().unwrap_or_default();
        let client = self.admin.inner();
        // The first record whose timestamp is not before 1970.
        let oldest = topics::first_records(client, &self.topic, &ours.led(), &[0], ANSWER_WITHIN);
        let oldest = oldest.into_iter().flatten().flatten().flatten();
        facts.oldest_ms = oldest.map(|(_, at_ms)| at_ms).filter(|at_ms| *at_ms > 0).min();
        known.facts = Some((Instant::now(), facts.clone()));
        facts
    }

    fn retention(&self) -> Option<TopicFacts> {
        let topic = [ResourceSpecifier::Topic(&self.topic)];
        let options = AdminOptions::new().request_timeout(Some(ANSWER_WITHIN));
        let described = pollster::block_on(self.admin.describe_configs(&topic, &options)).ok()?;
        let config = described.into_iter().next()?.ok()?;
        let value = |name: &str| config.get(name)?.value.clone();
        let number = |name: &str| value(name)?.parse().ok();
        Some(TopicFacts {
            retention_ms: number("retention.ms"),
            retention_bytes: number("retention.bytes"),
            cleanup: value("cleanup.policy"),
            oldest_ms: None,
        })
    }

    /// Describes the cluster (DescribeCluster). The embedded broker does not support that; its metadata has most of it.
    fn cluster(&self, metadata: &Metadata, problems: &mut Vec<Missing>) -> ClusterSummary {
        let described = match self.embedded {
            true => None,
            false => describe_cluster(&self.admin)
                .map_err(|error| problems.push(Missing { part: Part::Cluster, detail: error.to_string() }))
                .ok(),
        };
        let mut cluster = described.unwrap_or_else(|| ClusterSummary {
            brokers: metadata
                .brokers()
                .iter()
                .map(|broker| BrokerSummary {
                    broker: broker.id(),
                    host: broker.host().to_owned(),
                    port: broker.port() as u16,
                    rack: None,
                })
                .collect(),
            ..ClusterSummary::default()
        });
        cluster.brokers.sort_by_key(|broker| broker.broker);
        cluster
    }

    fn topic(&self, described: &Described<'_>, offsets: &Offsets, known: &mut SnapshotCache) -> TopicDetail {
        let sizes = (self.sizes)();
        let mut partitions: Vec<PartitionDetail> = described
            .topic(&self.topic)
            .map_or(&[][..], |topic| topic.partitions())
            .iter()
            .map(|partition| {
                let ends = offsets.get(&(self.topic.to_string(), partition.id())).copied();
                let records = ends.map(|(first, next)| next - first);
                let bytes = match records {
                    Some(0) => Some(0),
                    _ => records.zip(sizes.get(&partition.id())).map(|(n, mean)| (n as f64 * mean) as u64),
                };
                let mut in_sync = partition.isr().to_vec();
                in_sync.sort_unstable();
                PartitionDetail {
                    partition: partition.id(),
                    leader: Some(partition.leader()).filter(|id| *id >= 0),
                    replicas: partition.replicas().to_vec(),
                    in_sync,
                    first_offset: ends.map(|(first, _)| first),
                    next_offset: ends.map(|(_, next)| next),
                    records,
                    bytes_estimate: bytes,
                    records_per_second: None,
                }
            })
            .collect();
        partitions.sort_by_key(|partition| partition.partition);
        known.rate(&mut partitions);
        TopicDetail { topic: self.topic.to_string(), partitions }
    }
}

/// Adds names as wanted now, as far as there is room.
fn remember<'a>(wanted: &mut HashMap<String, Instant>, names: impl Iterator<Item = &'a str>) {
    wanted.retain(|_, at| at.elapsed() < WANTED_FOR);
    for name in names {
        if let Some(at) = wanted.get_mut(name) {
            *at = Instant::now();
        } else if wanted.len() < WANTED {
            wanted.insert(name.to_owned(), Instant::now());
        }
    }
}

impl SnapshotCache {
    /// Adds what was found now to the trends.
    fn add_sample<'a>(
        &mut self,
        topic: &str,
        ends: impl Iterator<Item = Option<i64>>,
        readers: impl Iterator<Item = &'a Group>,
    ) {
        let now = now_ms();
        self.trends.add_ends(now, ends);
        self.trends.add_groups(now, topic, readers);
        self.sampled = Some(Instant::now());
    }

    /// Sets the rates, by comparison with the offsets some seconds ago.
    fn rate(&mut self, partitions: &mut [PartitionDetail]) {
        let now = Instant::now();
        while self.earlier.front().is_some_and(|(at, _)| now - *at > RATE_OVER) {
            self.earlier.pop_front();
        }
        if let Some((at, offsets)) = self.earlier.front().filter(|(at, _)| now - *at >= RATE_AT_LEAST) {
            let seconds = (now - *at).as_secs_f64();
            for (partition, before) in partitions.iter_mut().zip(offsets) {
                let written = partition.next_offset.zip(*before).map(|(next, before)| (next - before).max(0));
                partition.records_per_second = written.map(|n| (n as f64 / seconds * 10.0).round() / 10.0);
            }
        }
        self.earlier.push_back((now, partitions.iter().map(|partition| partition.next_offset).collect()));
    }
}

fn describe_cluster(admin: &AdminClient<Quiet>) -> Result<ClusterSummary, AdminError> {
    let client = admin.inner().native_ptr();
    unsafe {
        let event = admin::ask(admin, Op::RD_KAFKA_ADMIN_OP_DESCRIBECLUSTER, ANSWER_WITHIN, |options, queue| {
            sys::rd_kafka_DescribeCluster(client, options, queue);
        })?;
        let result = sys::rd_kafka_event_DescribeCluster_result(event.pointer());
        let controller = sys::rd_kafka_DescribeCluster_result_controller(result);
        let nodes = admin::items(|count| sys::rd_kafka_DescribeCluster_result_nodes(result, count));
        let brokers = nodes.iter().map(|node| BrokerSummary {
            broker: sys::rd_kafka_Node_id(*node),
            host: admin::text(sys::rd_kafka_Node_host(*node)),
            port: sys::rd_kafka_Node_port(*node),
            rack: Some(admin::text(sys::rd_kafka_Node_rack(*node))).filter(|rack| !rack.is_empty()),
        });
        Ok(ClusterSummary {
            id: Some(admin::text(sys::rd_kafka_DescribeCluster_result_cluster_id(result))).filter(|id| !id.is_empty()),
            controller: (!controller.is_null()).then(|| sys::rd_kafka_Node_id(controller)),
            brokers: brokers.collect(),
        })
    }
}
