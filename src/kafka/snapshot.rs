//! The cluster as the page about Kafka shows it: brokers, topics, our topic's partitions, consumer groups and their
//! lag.
//!
//! A snapshot is requested at most once a second and shared, so a thousand viewers cost as much as one; without viewers
//! nothing is requested. If one part fails (a missing ACL, the embedded broker), the others are still complete.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use footfall_core::schema::Partition;
use rdkafka::admin::AdminClient;
use rdkafka::bindings as sys;
use rdkafka::metadata::Metadata;
use serde::Serialize;
use tokio::sync::{Mutex, watch};
use utoipa::ToSchema;

use super::admin::groups::{self, CommitHistory, Groups};
use super::admin::next_records::LookaheadCache;
use super::admin::topics::{self, Offsets, TopicSummary};
use super::admin::{self, AdminError, Op};
use super::watch::TopicId;
use super::{Cluster, ClusterState, Connection, Quiet};
use crate::bounds::{CLUSTER_FRESH, TOPICS};

/// A rate is measured over at most, and at least, this long.
const RATE_OVER: Duration = Duration::from_secs(10);
const RATE_AT_LEAST: Duration = Duration::from_millis(500);
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

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
    /// All topics but Kafka's internal ones, sorted by name.
    pub topics: Vec<TopicSummary>,
    /// Topics beyond the listed ones.
    pub topics_left_out: usize,
    pub topic: TopicDetail,
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
}

/// What one snapshot keeps for the next.
#[derive(Default)]
struct SnapshotCache {
    latest: Option<(Instant, Result<Arc<ClusterSnapshot>, InspectError>)>,
    /// Next offsets by partition, oldest first.
    earlier: VecDeque<(Instant, Vec<Option<i64>>)>,
    lookahead: LookaheadCache,
    commits: CommitHistory,
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
        }
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

    fn ask(&self, known: &mut SnapshotCache) -> Result<ClusterSnapshot, InspectError> {
        let ours = match &*self.state.borrow() {
            ClusterState::Up(topic) => topic.clone(),
            ClusterState::Connecting { reason, .. } | ClusterState::Unreachable { reason, .. } => {
                return Err(InspectError::Unreachable(reason.clone()));
            }
        };
        if ours.id != known.topic {
            *known = SnapshotCache { topic: ours.id, ..SnapshotCache::default() };
        }
        let failed = |error: String| InspectError::Unreachable(format!("no answer from {}: {error}", self.servers));
        let metadata = self.admin.inner().fetch_metadata(None, ANSWER_WITHIN).map_err(|e| failed(e.to_string()))?;
        let mut problems = Vec::new();
        let cluster = self.cluster(&metadata, &mut problems);
        let mut groups = match self.embedded {
            true => Err(InspectError::NoGroups),
            false => match groups::describe(&self.admin, ANSWER_WITHIN) {
                Ok(groups) => Ok(groups),
                Err(AdminError::Failed(reason)) => Err(InspectError::Unlisted(reason)),
                Err(denied) => Ok(Groups { problem: Some(denied.to_string()), ..Groups::default() }),
            },
        };
        if let Some(detail) = groups.as_ref().ok().and_then(|groups| groups.problem.clone()) {
            problems.push(Missing { part: Part::Groups, detail });
        }
        let mut names = topics::names(&metadata);
        let topics_left_out = names.len().saturating_sub(TOPICS);
        names.truncate(TOPICS);
        let mut places: Vec<_> = names.iter().flat_map(|name| topics::places(&metadata, name)).collect();
        places.extend(topics::places(&metadata, &self.topic));
        places.extend(groups.iter().flat_map(|groups| groups.places(&metadata)));
        // Requested after the committed offsets, so that a lag is never negative.
        let mut offsets = topics::offsets(&self.admin, places, ANSWER_WITHIN).unwrap_or_else(|error| {
            problems.push(Missing { part: Part::Offsets, detail: error.to_string() });
            Offsets::new()
        });
        for ((topic, partition), marks) in &mut offsets {
            if *topic == *self.topic {
                *marks = ours.marks(*partition, *marks);
            }
        }
        let topic = self.topic(&metadata, &offsets, known);
        if let Ok(groups) = &mut groups {
            groups.measure(&metadata, &offsets);
            groups.look_ahead(&self.connection, &mut known.lookahead);
            known.commits.watch(groups);
        }
        let topics = names.iter().map(|name| topics::summary(&metadata, name, &offsets)).collect();
        Ok(ClusterSnapshot { cluster, topics, topics_left_out, topic, groups, problems })
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

    fn topic(&self, metadata: &Metadata, offsets: &Offsets, known: &mut SnapshotCache) -> TopicDetail {
        let sizes = (self.sizes)();
        let described = metadata.topics().iter().find(|topic| topic.name() == &*self.topic);
        let mut partitions: Vec<PartitionDetail> = described
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

impl SnapshotCache {
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
