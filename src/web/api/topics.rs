//! Kafka itself: the cluster, its topics and consumer groups.

use std::sync::Arc;

use rocket::{State, get};
use serde::Serialize;
use utoipa::ToSchema;

use crate::bounds;
use crate::kafka::{ClusterSummary, Group, Inspector, Missing, Part, TopicDetail, TopicSummary};
use crate::web::answer::Answer;
use crate::web::openapi;
use crate::web::problem::Problem;

/// The cluster and its topics.
#[derive(Serialize, ToSchema)]
#[schema(examples(json!({
    "topics": [{"topic": "user_activity", "partitions": 1, "records": 812}],
    "left_out": 0,
    "topic": {"topic": "user_activity", "partitions": [{
        "partition": 0, "leader": 1, "replicas": [1], "in_sync": [1], "first_offset": 0, "next_offset": 812,
        "records": 812, "bytes_estimate": 145000, "records_per_second": 2.5,
    }]},
    "cluster": {
        "id": "4L6g3nShT-eMCtK--X86sw",
        "controller": 1,
        "brokers": [{"broker": 1, "host": "kafka-1", "port": 9092, "rack": null}],
    },
    "problems": [],
})))]
struct Topics<'a> {
    /// By name, without Kafka's internal ones.
    topics: &'a [TopicSummary],
    /// Topics beyond the 500 that are listed.
    left_out: usize,
    topic: &'a TopicDetail,
    cluster: &'a ClusterSummary,
    /// What could not be found out.
    problems: Vec<&'a Missing>,
}

/// The consumer groups.
#[derive(Serialize, ToSchema)]
#[schema(examples(json!({
    "groups": [{
        "group": "user_activity_group", "state": "Stable", "type": "classic", "assignor": "range", "coordinator": 1,
        "members": [{
            "id": "footfall-0f2c", "client_id": "footfall", "host": "127.0.0.1",
            "partitions": [{"topic": "user_activity", "partition": 0}],
        }],
        "lag": 12,
        "lag_ms": 3500,
        "partitions": [{
            "topic": "user_activity", "partition": 0, "committed": 800, "first": 0, "end": 812, "lag": 12,
            "lag_ms": 3500, "stalled_ms": null, "member": "footfall-0f2c",
        }],
    }],
    "left_out": 0,
    "types": ["classic", "consumer"],
    "problems": [],
})))]
struct Groups<'a> {
    groups: &'a [Group],
    /// Groups beyond the 100 that are described. Those that read our topic come first, then those that were not described
    /// yet, then those with members.
    left_out: usize,
    /// The types of groups that can be listed. Others (share groups, streams groups) are not listed.
    types: &'static [GroupType],
    /// What could not be found out.
    problems: Vec<&'a Missing>,
}

/// A type of consumer groups.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum GroupType {
    Classic,
    Consumer,
}

/// The topics, our topic's partitions and the cluster, at most a second old
#[utoipa::path(
    operation_id = "listTopics",
    tag = "operations",
    responses(
        (
            status = 200,
            description = "What Kafka says; parts that it does not report are named in `problems`.",
            body = Topics,
        ),
        openapi::ReadUnavailable,
    )
)]
#[get("/api/v1/topics")]
pub async fn topics(inspector: &State<Arc<Inspector>>) -> Result<Answer, Problem> {
    let snapshot = inspector.snapshot().await?;
    let listed = snapshot.topics.len().min(bounds::TOPICS);
    let body = Topics {
        topics: &snapshot.topics[..listed],
        left_out: snapshot.topics.len() - listed + snapshot.topics_left_out,
        topic: &snapshot.topic,
        cluster: &snapshot.cluster,
        problems: snapshot.problems.iter().filter(|missing| missing.part != Part::Groups).collect(),
    };
    Ok(Answer::json(200, &body).header("Cache-Control", "no-store"))
}

/// The consumer groups with members, assigned partitions and lag, at most a second old
#[utoipa::path(
    operation_id = "listGroups",
    tag = "operations",
    responses(
        (
            status = 200,
            description = "The groups that Footfall may see, by name, at most 100.",
            body = Groups,
        ),
        openapi::NoGroups,
        openapi::ReadUnavailable,
    )
)]
#[get("/api/v1/groups")]
pub async fn groups(inspector: &State<Arc<Inspector>>) -> Result<Answer, Problem> {
    let snapshot = inspector.snapshot().await?;
    let groups = snapshot.groups.as_ref().map_err(Clone::clone)?;
    let problems = snapshot.problems.iter().filter(|missing| missing.part != Part::Cluster).collect();
    // librdkafka cannot list share groups and streams groups.
    let types = &[GroupType::Classic, GroupType::Consumer];
    let body = Groups { groups: &groups.groups, left_out: groups.left_out, types, problems };
    Ok(Answer::json(200, &body).header("Cache-Control", "no-store"))
}
