//! For those who run it: is it alive, would it take a post, what does it count.

use rocket::get;
use rocket::http::{ContentType, Status};

use super::guards::Shared;
use super::query::Parameters;
use crate::kafka::State;

#[get("/livez")]
pub fn livez() -> &'static str {
    "ok\n"
}

/// 200 exactly when a post would be tried.
#[get("/readyz")]
pub fn readyz(app: Shared, parameters: Parameters) -> (Status, String) {
    let unavailable = app.ingest.unavailable();
    let status = if unavailable.is_none() { Status::Ok } else { Status::ServiceUnavailable };
    let summary = unavailable.unwrap_or_else(|| "ok".into());
    if !parameters.flag("verbose") {
        return (status, format!("{summary}\n"));
    }
    let mark = |good: bool| if good { "[+]" } else { "[-]" };
    let kafka = match &*app.kafka.borrow() {
        State::Up(topic) => {
            let leaders = topic.partitions.iter().filter(|partition| partition.leader.is_some()).count();
            format!(
                "[+] kafka: {} answers\n{} topic: {}, {} partitions, {leaders} with a leader",
                app.connection.servers(),
                mark(leaders == topic.partitions.len()),
                app.connection.topic(),
                topic.partitions.len(),
            )
        }
        State::Connecting { reason, .. } | State::Away { reason, .. } => format!("[-] kafka: {reason}"),
    };
    let tail = match app.feed.now() {
        Some(cursor) => format!("[+] tail: reads, at {cursor}"),
        None => "[-] tail: has not started".into(),
    };
    let embedded = match app.connection.is_embedded() {
        true => "[!] embedded broker: events are kept in memory until the process ends\n",
        false => "",
    };
    let open = mark(status == Status::Ok);
    (status, format!("{kafka}\n{tail}\n{embedded}{open} posts: {summary}\n"))
}

#[get("/metrics")]
pub fn metrics(app: Shared) -> (ContentType, String) {
    let open_metrics =
        ContentType::new("application", "openmetrics-text").with_params([("version", "1.0.0"), ("charset", "utf-8")]);
    (open_metrics, app.metrics.encode())
}
