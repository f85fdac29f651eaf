//! Kafka itself: the page about the cluster, its topics and consumer groups, and the same for programs.

use rocket::get;
use serde::Serialize;

use super::api::Answer;
use super::guards::Shared;
use super::kafka_page::KafkaPage;
use super::pages::{Html, frame, html};
use super::problem::Problem;
use crate::kafka::{ClusterSummary, Group, Missing, TopicDetail, TopicSummary};

/// Always 200: what cannot be told is told as such.
#[get("/kafka")]
pub async fn page(app: Shared) -> Result<Html, Problem> {
    let snapshot = app.inspector.snapshot().await;
    html(rocket::http::Status::Ok, &KafkaPage::new(frame(&app), snapshot))
}

#[get("/api/v1/topics")]
pub async fn topics(app: Shared) -> Result<Answer, Problem> {
    #[derive(Serialize)]
    struct Body<'a> {
        topics: &'a [TopicSummary],
        left_out: usize,
        topic: &'a TopicDetail,
        cluster: &'a ClusterSummary,
        problems: Vec<&'a Missing>,
    }
    let snapshot = app.inspector.snapshot().await?;
    let body = Body {
        topics: &snapshot.topics,
        left_out: snapshot.topics_left_out,
        topic: &snapshot.topic,
        cluster: &snapshot.cluster,
        problems: snapshot.problems.iter().filter(|missing| missing.part != "groups").collect(),
    };
    Ok(Answer::json(200, &body).header("Cache-Control", "no-store"))
}

#[get("/api/v1/groups")]
pub async fn groups(app: Shared) -> Result<Answer, Problem> {
    #[derive(Serialize)]
    struct Body<'a> {
        groups: &'a [Group],
        left_out: usize,
        problems: Vec<&'a Missing>,
    }
    let snapshot = app.inspector.snapshot().await?;
    let groups = snapshot.groups.as_ref().map_err(Clone::clone)?;
    let problems = snapshot.problems.iter().filter(|missing| missing.part != "cluster").collect();
    let body = Body { groups: &groups.groups, left_out: groups.left_out, problems };
    Ok(Answer::json(200, &body).header("Cache-Control", "no-store"))
}
