//! Kafka itself: the cluster, its topics and consumer groups.

use std::sync::Arc;

use rocket::{State, get};
use serde::Serialize;

use crate::kafka::{ClusterSummary, Group, Inspector, Missing, TopicDetail, TopicSummary};
use crate::web::answer::Answer;
use crate::web::openapi;
use crate::web::problem::Problem;

/// The topics, our topic's partitions and the cluster, at most a second old
#[utoipa::path(
    operation_id = "listTopics",
    tag = "operations",
    responses(
        (
            status = 200,
            description = "What Kafka says; parts that it does not report are named in `problems`.",
            body = openapi::Topics,
        ),
        openapi::ReadUnavailable,
    )
)]
#[get("/api/v1/topics")]
pub async fn topics(inspector: &State<Arc<Inspector>>) -> Result<Answer, Problem> {
    #[derive(Serialize)]
    struct Body<'a> {
        topics: &'a [TopicSummary],
        left_out: usize,
        topic: &'a TopicDetail,
        cluster: &'a ClusterSummary,
        problems: Vec<&'a Missing>,
    }
    let snapshot = inspector.snapshot().await?;
    let body = Body {
        topics: &snapshot.topics,
        left_out: snapshot.topics_left_out,
        topic: &snapshot.topic,
        cluster: &snapshot.cluster,
        problems: snapshot.problems.iter().filter(|missing| missing.part != "groups").collect(),
    };
    Ok(Answer::json(200, &body).header("Cache-Control", "no-store"))
}

/// The consumer groups, who has which partition, and their lag, at most a second old
#[utoipa::path(
    operation_id = "listGroups",
    tag = "operations",
    responses(
        (
            status = 200,
            description = "The groups that Footfall may see, by name, at most 100.",
            body = openapi::Groups,
        ),
        openapi::NoGroups,
        openapi::ReadUnavailable,
    )
)]
#[get("/api/v1/groups")]
pub async fn groups(inspector: &State<Arc<Inspector>>) -> Result<Answer, Problem> {
    #[derive(Serialize)]
    struct Body<'a> {
        groups: &'a [Group],
        left_out: usize,
        /// The types that are listed: librdkafka does not know share groups and streams groups.
        types: [&'static str; 2],
        problems: Vec<&'a Missing>,
    }
    let snapshot = inspector.snapshot().await?;
    let groups = snapshot.groups.as_ref().map_err(Clone::clone)?;
    let problems = snapshot.problems.iter().filter(|missing| missing.part != "cluster").collect();
    let types = ["classic", "consumer"];
    let body = Body { groups: &groups.groups, left_out: groups.left_out, types, problems };
    Ok(Answer::json(200, &body).header("Cache-Control", "no-store"))
}
