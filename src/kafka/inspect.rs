//! The cluster as the page about Kafka shows it: brokers, topics, our topic's partitions, consumer groups and their lag.
//!
//! A snapshot is asked for at most once a second and shared, so that a thousand viewers cost as much as one; while nobody
//! looks nothing is asked. What one part cannot tell (a missing ACL, the embedded broker) leaves the others whole.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::AdminClient;
use rdkafka::bindings as sys;
use rdkafka::metadata::Metadata;
use serde::Serialize;
use tokio::sync::{Mutex, watch};

use super::admin::{self, Op, Unanswered};
use super::cluster::TopicId;
use super::groups::{self, Groups};
use super::topics::{self, Offsets, TopicSummary};
use super::{Cluster, Connection, History, Quiet, State};
use crate::event::time::now_ms;

/// A snapshot is as good as new for this long.
const FRESH: Duration = Duration::from_secs(1);
/// The rate is that of so long at most, and of so long at least.
const RATE_OVER: Duration = Duration::from_secs(10);
const RATE_AT_LEAST: Duration = Duration::from_millis(500);
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Topics whose records are counted, at most.
const MOST_TOPICS: usize = 500;
/// Records that one snapshot reads from each partition, at most, to tell lags in time: one for each group that is behind.
const READS: usize = 4;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    #[error("kafka is away: {0}")]
    Away(String),
    /// The embedded broker has no question for it.
    #[error("the embedded broker cannot list consumer groups; it can with Apache Kafka (kafka.bootstrap_servers)")]
    NoGroups,
}

/// What was answered at one time.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub cluster: ClusterSummary,
    /// All but Kafka's internal ones, by name.
    pub topics: Vec<TopicSummary>,
    /// Beyond those that are listed.
    pub topics_left_out: usize,
    pub topic: TopicDetail,
    pub groups: Result<Groups, InspectError>,
    /// What could not be found out.
    pub problems: Vec<Missing>,
}

/// A part that is not there, or not whole, and why.
#[derive(Debug, Clone, Serialize)]
pub struct Missing {
    pub part: &'static str,
    pub detail: String,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct ClusterSummary {
    pub id: Option<String>,
    /// Number of the broker that takes administrative requests. With KRaft each of them does, and Kafka names any.
    pub controller: Option<i32>,
    /// By number.
    pub brokers: Vec<BrokerSummary>,
}

#[derive(Debug, Clone, Serialize)]
pub struct BrokerSummary {
    pub broker: i32,
    pub host: String,
    pub port: u16,
    pub rack: Option<String>,
}

/// Our topic.
#[derive(Debug, Clone, Serialize)]
pub struct TopicDetail {
    pub topic: String,
    pub partitions: Vec<PartitionDetail>,
}

#[derive(Debug, Clone, Serialize)]
pub struct PartitionDetail {
    pub partition: i32,
    /// Numbers of brokers. No leader: nothing can be written or read.
    pub leader: Option<i32>,
    pub replicas: Vec<i32>,
    pub in_sync: Vec<i32>,
    /// The oldest record that is still there, and the one that will be written next.
    pub first_offset: Option<i64>,
    pub next_offset: Option<i64>,
    /// From the one to the other: compaction and transactions may make it more than the records.
    pub records: Option<i64>,
    /// The records times the mean size (key, value and headers) of the latest ones in memory. Kafka's own figure cannot be
    /// asked for (librdkafka has no DescribeLogDirs), and compression makes it smaller.
    pub bytes_estimate: Option<u64>,
    /// Over the last 10 s at most; `None` until someone has looked for a moment.
    pub records_per_second: Option<f64>,
}

/// Mean bytes of the latest records in memory, by partition.
pub type MeanSizes = Box<dyn Fn() -> BTreeMap<i32, f64> + Send + Sync>;

pub struct Inspector {
    admin: Arc<AdminClient<Quiet>>,
    topic: Arc<str>,
    servers: String,
    embedded: bool,
    state: watch::Receiver<State>,
    history: Arc<History>,
    sizes: MeanSizes,
    known: Arc<Mutex<Known>>,
}

/// What is kept from one snapshot to the next.
#[derive(Default)]
struct Known {
    latest: Option<(Instant, Result<Arc<Snapshot>, InspectError>)>,
    /// Next offsets by partition, oldest first.
    earlier: VecDeque<(Instant, Vec<Option<i64>>)>,
    /// Kafka's timestamps of the records at committed offsets, by partition and offset; `None`: there is no such record.
    times: HashMap<(i32, i64), Option<i64>>,
    topic: TopicId,
    /// Counts snapshots: with more groups behind than can be read for, each has its turn.
    turn: usize,
}

impl Inspector {
    pub fn new(connection: &Connection, cluster: &Cluster, history: Arc<History>, sizes: MeanSizes) -> Self {
        Inspector {
            admin: cluster.admin(),
            topic: connection.topic.clone(),
            servers: connection.servers().to_owned(),
            embedded: connection.is_embedded(),
            state: cluster.state(),
            history,
            sizes,
            known: Arc::default(),
        }
    }

    /// The latest snapshot, at most a second old. Waits while one is being asked for, a few seconds at the most.
    pub async fn snapshot(self: &Arc<Self>) -> Result<Arc<Snapshot>, InspectError> {
        let mut known = self.known.clone().lock_owned().await;
        if let Some((at, latest)) = &known.latest
            && at.elapsed() < FRESH
        {
            return latest.clone();
        }
        let inspector = self.clone();
        // The lock goes along: whoever gives up waiting must not make the next one ask beside it.
        let asked = tokio::task::spawn_blocking(move || {
            let latest = inspector.ask(&mut known).map(Arc::new);
            known.latest = Some((Instant::now(), latest.clone()));
            latest
        });
        asked.await.unwrap_or_else(|_| Err(InspectError::Away("the question failed".into())))
    }

    fn ask(&self, known: &mut Known) -> Result<Snapshot, InspectError> {
        let id = match &*self.state.borrow() {
            State::Up(topic) => topic.id,
            State::Connecting { reason, .. } | State::Away { reason, .. } => {
                return Err(InspectError::Away(reason.clone()));
            }
        };
        if id != known.topic {
            *known = Known { topic: id, ..Known::default() };
        }
        let away = |error| InspectError::Away(format!("no answer from {}: {error}", self.servers));
        let metadata = self.admin.inner().fetch_metadata(None, ANSWER_WITHIN).map_err(|e| away(e.to_string()))?;
        let mut problems = Vec::new();
        let cluster = self.cluster(&metadata, &mut problems);
        let mut groups = match self.embedded {
            true => Err(InspectError::NoGroups),
            false => match groups::describe(&self.admin, ANSWER_WITHIN) {
                Ok(groups) => Ok(groups),
                Err(Unanswered::Failed(reason)) => Err(away(reason)),
                Err(denied) => Ok(Groups { problem: Some(denied.to_string()), ..Groups::default() }),
            },
        };
        if let Some(detail) = groups.as_ref().ok().and_then(|groups| groups.problem.clone()) {
            problems.push(Missing { part: "groups", detail });
        }
        let mut names = topics::names(&metadata);
        let topics_left_out = names.len().saturating_sub(MOST_TOPICS);
        names.truncate(MOST_TOPICS);
        let mut places: Vec<_> = names.iter().flat_map(|name| topics::places(&metadata, name)).collect();
        places.extend(topics::places(&metadata, &self.topic));
        places.extend(groups.iter().flat_map(Groups::places));
        // After what groups have committed: a lag is never less than nothing.
        let offsets = topics::offsets(&self.admin, places, ANSWER_WITHIN).unwrap_or_else(|error| {
            problems.push(Missing { part: "offsets", detail: error.to_string() });
            Offsets::new()
        });
        let topic = self.topic(&metadata, &offsets, known);
        if let Ok(groups) = &mut groups {
            groups.measure(&offsets);
            self.measure_time(groups, &topic, known);
        }
        let topics = names.iter().map(|name| topics::summary(&metadata, name, &offsets)).collect();
        Ok(Snapshot { cluster, topics, topics_left_out, topic, groups, problems })
    }

    /// DescribeCluster; the embedded broker has no answer to it, and its metadata says the most of it.
    fn cluster(&self, metadata: &Metadata, problems: &mut Vec<Missing>) -> ClusterSummary {
        let described = match self.embedded {
            true => None,
            false => describe_cluster(&self.admin)
                .map_err(|error| problems.push(Missing { part: "cluster", detail: error.to_string() }))
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

    fn topic(&self, metadata: &Metadata, offsets: &Offsets, known: &mut Known) -> TopicDetail {
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

    /// How old the record is at which each group goes on in our topic.
    fn measure_time(&self, groups: &mut Groups, topic: &TopicDetail, known: &mut Known) {
        known.turn += 1;
        let first =
            |partition: i32| topic.partitions.iter().find(|p| p.partition == partition).and_then(|p| p.first_offset);
        // The committed offset, or the oldest record where retention was faster than the group.
        let place = |partition: &groups::GroupPartition| {
            let behind = partition.topic == topic.topic && partition.lag.is_some_and(|lag| lag > 0);
            let offset = partition.committed?.max(first(partition.partition)?);
            behind.then_some((partition.partition, offset))
        };
        let mut wanted: Vec<(i32, i64)> =
            groups.groups.iter().flat_map(|group| group.partitions.iter().filter_map(place)).collect();
        known.times.retain(|place, _| wanted.contains(place));
        if !wanted.is_empty() {
            let turn = known.turn % wanted.len();
            wanted.rotate_left(turn);
        }
        for _ in 0..READS {
            let mut round: BTreeMap<i32, i64> = BTreeMap::new();
            for (partition, offset) in wanted.iter().filter(|place| !known.times.contains_key(place)) {
                round.entry(*partition).or_insert(*offset);
            }
            if round.is_empty() {
                break;
            }
            let count = topic.partitions.len();
            let from: Vec<i64> = (0..count as i32).map(|p| round.get(&p).copied().unwrap_or(0)).collect();
            let to: Vec<i64> = (0..count as i32).map(|p| round.get(&p).map_or(0, |offset| offset + 1)).collect();
            let mut found = HashMap::new();
            let read = self.history.read(&from, &to, |record| {
                found.insert((record.partition(), record.offset()), record.timestamp_ms());
                ControlFlow::Continue(())
            });
            if let Err(error) = read {
                tracing::debug!(error = %error, "no timestamps for lags");
                break;
            }
            // What compaction took away is not there the next time either.
            known.times.extend(round.into_iter().map(|place| (place, found.get(&place).copied().flatten())));
        }
        let now = now_ms();
        for group in &mut groups.groups {
            for partition in &mut group.partitions {
                partition.lag_ms = match (partition.lag, place(partition)) {
                    (Some(0), _) => Some(0),
                    (_, Some(place)) => known.times.get(&place).copied().flatten().map(|at| (now - at).max(0)),
                    _ => None,
                };
            }
            group.lag_ms = group.partitions.iter().filter_map(|partition| partition.lag_ms).max();
        }
    }
}

impl Known {
    /// Compares with what was known some seconds ago.
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

fn describe_cluster(admin: &AdminClient<Quiet>) -> Result<ClusterSummary, Unanswered> {
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
