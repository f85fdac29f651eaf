//! All communication with Kafka; no other folder names rdkafka. The `pub use` list below is everything that the rest of
//! the program may use.
//!
//! Functions that may block say so; async callers run them in `spawn_blocking`.

mod admin;
mod background;
mod connection;
mod connection_errors;
mod consumer;
mod embedded;
mod group_consumer;
mod health;
mod history;
mod partitioner;
mod producer;
mod reads;
mod snapshot;
mod trends;
mod watch;

pub use admin::groups::{AssignedPartition, Group, GroupMember, GroupPartition, ListedGroup, groups};
pub use admin::topics::{TopicSummary, topics};
pub use connection::{Connection, ConnectionError};
pub use consumer::tail::{Sink, Tail};
pub use consumer::uncommitted::{Uncommitted, UncommittedSink};
pub use embedded::TopicEmptier;
pub use group_consumer::{Options, WorkerError, consume};
pub use health::{Cause, HeldUp, Trouble, describe_troubles, stops_all};
pub use history::{History, HistoryError, HistoryRange, LastMatches, Marks, SearchEnd, SearchReport, TimeCounts};
pub use partitioner::partition_of;
pub use producer::{Completion, Delivered, Message, Priority, ProduceError, Producer};
pub use reads::{ReadError, ReadKind, Reads};
pub use snapshot::{
    ClusterSnapshot, ClusterSummary, InspectError, Inspector, Missing, Part, PartitionDetail, Sampler, TopicDetail,
    TopicFacts,
};
pub use trends::{GroupChange, GroupTrend, LagTime, POINTS, Progress, TrendSnapshot};
pub use watch::{Cluster, ClusterState, TopicId, TopicState};

use background::{BackgroundThread, Stop};
use connection::{QUESTION, Quiet, log_client, or_set};
