//! Endpoints for operators: liveness, readiness, and metrics.

use std::sync::Arc;

use rocket::http::{Accept, ContentType, Header, QMediaType, Status};
use rocket::{Responder, State, get};

use crate::bounds::TROUBLES;
use crate::feed::Feed;
use crate::ingest::Ingest;
use crate::kafka::{ClusterState, Connection, Trouble, stops_all};
use crate::telemetry::Metrics;
use crate::web::guards::KafkaState;
use crate::web::openapi;
use crate::web::problem;
use crate::web::query::Parameters;

/// Whether the process can answer
#[utoipa::path(
    operation_id = "live",
    tag = "operations",
    responses(
        (status = 200, description = "It can.", content_type = "text/plain", body = String),
    )
)]
#[get("/livez")]
pub fn livez() -> &'static str {
    "ok\n"
}

/// Whether posts are written and new streams get records now
///
/// 503 exactly when every post would be rejected or no new stream would get records, with the reason. What concerns only
/// some partitions is named too.
#[utoipa::path(
    operation_id = "ready",
    tag = "operations",
    params(
        (
            "verbose" = String,
            Query,
            description = "List each check. `0` and `false` mean no, anything else means yes, also no value.",
        ),
    ),
    responses(
        (
            status = 200,
            description = "They are, of most partitions at least; the text names what is not served.",
            content_type = "text/plain",
            body = String,
            example = json!(openapi::READY),
        ),
        (
            status = 503,
            description = "Every post would be rejected, or no new stream would get records; the text says why, as \
                           `cause: sentence`. A problem if too many connections are open or the server is shutting \
                           down.",
            content((String = "text/plain"), (problem::ProblemBody = "application/problem+json")),
        ),
    )
)]
#[get("/readyz")]
pub fn readyz(
    ingest: &State<Arc<Ingest>>,
    kafka: &State<KafkaState>,
    connection: &State<Connection>,
    feed: &State<Feed>,
    parameters: Parameters,
) -> (Status, String) {
    let troubles = ingest.troubles();
    let partitions = kafka.borrow().topic().map_or(0, |topic| topic.partitions.len());
    let posts = stops_all(&troubles, partitions, |trouble| trouble.cause.stops_posts());
    let streams = stops_all(&troubles, partitions, |trouble| trouble.cause.stops_streams());
    let status = if posts.or(streams).is_none() { Status::Ok } else { Status::ServiceUnavailable };
    let mut lines: Vec<String> =
        troubles.iter().take(TROUBLES).map(|it| format!("{}: {}\n", it.cause.name(), it.detail)).collect();
    if troubles.len() > TROUBLES {
        lines.push(format!("and {} more\n", troubles.len() - TROUBLES));
    }
    if !parameters.flag("verbose") {
        let ok = if status == Status::Ok { "ok\n" } else { "" };
        return (status, format!("{ok}{}", lines.concat()));
    }
    let mark = |good: bool| if good { "[+]" } else { "[-]" };
    let lines: String = lines.iter().map(|line| format!("[-] {line}")).collect();
    let check = |name: &str, trouble: Option<&Trouble>| {
        format!("{} {name}: {}\n", mark(trouble.is_none()), trouble.map_or("ok", |trouble| &trouble.detail))
    };
    let cluster = match &*kafka.borrow() {
        ClusterState::Up(topic) => {
            let leaders = topic.partitions.iter().filter(|partition| partition.leader.is_some()).count();
            format!(
                "[+] kafka: {} answers\n{} topic: {}, {} partitions, {leaders} with a leader",
                connection.servers(),
                mark(leaders == topic.partitions.len()),
                connection.topic(),
                topic.partitions.len(),
            )
        }
        ClusterState::Connecting { reason, .. } | ClusterState::Unreachable { reason, .. } => {
            format!("[-] kafka: {reason}")
        }
    };
    let tail = match feed.now() {
        Some(cursor) => format!("[+] tail: reads, at {cursor}"),
        None => "[-] tail: has not started".into(),
    };
    let embedded = match connection.is_embedded() {
        true => "[!] embedded broker: events are kept in memory until the process ends\n",
        false => "",
    };
    let served = check("posts", posts) + &check("streams", streams);
    (status, format!("{cluster}\n{tail}\n{embedded}{lines}{served}"))
}

/// Metrics for Prometheus
#[utoipa::path(
    operation_id = "metrics",
    tag = "operations",
    responses(
        (
            status = 200,
            description = "The text format of Prometheus, or OpenMetrics where `Accept` asks for it.",
            content(
                (String = "text/plain; version=0.0.4; charset=utf-8"),
                (String = "application/openmetrics-text; version=1.0.0; charset=utf-8"),
            ),
        ),
    )
)]
#[get("/metrics")]
pub fn metrics(metrics: &State<Arc<Metrics>>, accept: Option<&Accept>) -> Series {
    let open = accept.is_some_and(prefers_open_metrics);
    let (format, text) = match open {
        true => {
            (ContentType::new("application", "openmetrics-text").with_params(("version", "1.0.0")), metrics.encode())
        }
        false => (ContentType::new("text", "plain").with_params(("version", "0.0.4")), metrics.encode_text()),
    };
    Series {
        text,
        format: Header::new("Content-Type", format!("{format}; charset=utf-8")),
        vary: Header::new("Vary", "Accept"),
    }
}

/// All metrics in one of the two formats.
#[derive(Responder)]
pub struct Series {
    text: String,
    format: Header<'static>,
    vary: Header<'static>,
}

/// Whether the client accepts OpenMetrics 1.0.0 by its name, with at least the weight of plain text.
fn prefers_open_metrics(accept: &Accept) -> bool {
    let weight = |wanted: &dyn Fn(&QMediaType) -> bool| {
        let weights = accept.iter().filter(|media| wanted(media)).map(|media| media.weight_or(1.0));
        weights.fold(0.0, f32::max)
    };
    let open = weight(&|media| {
        let version = media.params().find(|(name, _)| name == "version").map(|(_, value)| value);
        *media.top() == "application" && *media.sub() == "openmetrics-text" && version.is_none_or(|it| it == "1.0.0")
    });
    open > 0.0 && open >= weight(&|media| *media.top() == "text" && *media.sub() == "plain")
}
