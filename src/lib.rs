//! Footfall: user-activity events in, live feed out, on Apache Kafka.
//!
//! [`rocket()`] is the one place where the parts are put together. An event goes `web/api.rs` -> `event` -> `ingest` ->
//! `kafka/producer.rs` -> Kafka -> `kafka/tail.rs` -> `feed` -> `web/live.rs` -> page.

/// What holds for every input: shared by the unit tests and the fuzzing in `fuzz/`.
#[cfg(test)]
#[path = "../fuzz/checks/mod.rs"]
mod checks;
pub mod config;
pub mod demo;
pub mod event;
pub mod feed;
pub mod ingest;
pub mod kafka;
pub mod stats;
pub mod tally;
pub mod telemetry;
pub mod web;

use std::sync::Arc;
use std::time::Duration;

use rocket::error::ErrorKind;
use rocket::fairing::AdHoc;
use rocket::figment::Figment;
use rocket::{Build, Rocket};
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use config::Settings;
use event::Record;
use feed::{Feed, Frames, Writer};
use ingest::Ingest;
use kafka::{Cluster, Connection, ConnectionError, History, Inspector, Producer, Sink, Tail};
use stats::Stats;

/// How long accepted events may take to be delivered after the last request.
const FLUSH: Duration = Duration::from_secs(5);

/// How long the clients of Kafka may take to close their connections: one whose broker does not answer would wait for it.
const CLOSE: Duration = Duration::from_secs(1);

/// Beside the deadline of the posts under way: how long requests may take to end once the process is asked to.
const DRAIN: Duration = Duration::from_secs(2);

/// Records of the topic that are read at the start, at most, so that pages show something and ids are known: an idle
/// process stays small, whatever is in the topic.
const PRELOAD: usize = 10_000;

/// Records whose mean size estimates what a partition holds.
const SIZED: usize = 500;

/// The parts that outlive the requests.
pub struct Parts {
    producer: Arc<Producer>,
    ingest: Arc<Ingest>,
    requests: TaskTracker,
    closing: CancellationToken,
    _tail: Tail,
    _cluster: Cluster,
    /// Keeps the embedded broker until all that was accepted is delivered; dropped last.
    connection: Connection,
}

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// In one line: the Debug of Rocket's error would print the configuration with its secrets.
    #[error("{0}")]
    Rocket(String),
    #[error("some accepted events were not delivered to Kafka in time")]
    Undelivered,
}

impl Parts {
    /// Where events are accepted, for those that are not posted.
    pub fn ingest(&self) -> Arc<Ingest> {
        self.ingest.clone()
    }

    /// Where Kafka's clients reach the broker, also the embedded one.
    pub fn servers(&self) -> &str {
        self.connection.addresses()
    }

    /// Serves until `stop` resolves; then, in bounded time: readiness and new posts turn 503, streams say bye, requests
    /// under way are answered, and what was accepted is delivered.
    ///
    /// Rocket's own graceful shutdown waits for its whole grace period while any connection is open, so it gets a second,
    /// when all requests have ended.
    pub async fn serve(
        self,
        rocket: Rocket<Build>,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Failure> {
        let failed = |error: rocket::Error| Failure::Rocket(error.to_string());
        let rocket = rocket.ignite().await.map_err(failed)?;
        let end = rocket.shutdown();
        let (ingest, requests, closing) = (self.ingest.clone(), self.requests.clone(), self.closing.clone());
        let within = self.ingest.settings().deadline + DRAIN;
        tokio::spawn(async move {
            stop.await;
            tracing::info!("shutting down");
            ingest.close();
            closing.cancel();
            requests.close();
            if tokio::time::timeout(within, requests.wait()).await.is_err() {
                tracing::warn!(requests = requests.len(), "requests did not end in time");
            }
            end.notify();
        });
        let served = match rocket.launch().await {
            Ok(_) => Ok(()),
            // Something of a connection is left; it ends with the process.
            Err(error) if matches!(error.kind(), ErrorKind::Shutdown(_, None)) => {
                tracing::warn!("connections did not end in time");
                Ok(())
            }
            Err(error) => Err(failed(error)),
        };
        // However serving ended, what was accepted is delivered.
        self.ingest.close();
        let producer = self.producer.clone();
        let flushed = tokio::task::spawn_blocking(move || producer.flush(FLUSH)).await;
        let (ended, end) = oneshot::channel();
        let close = move || {
            drop(self);
            let _ = ended.send(()); // nobody may wait any more
        };
        if std::thread::Builder::new().name("end".into()).spawn(close).is_ok() {
            let _ = tokio::time::timeout(CLOSE, end).await; // nothing is lost if it takes longer
        }
        match flushed {
            Ok(true) => served,
            _ => Err(Failure::Undelivered),
        }
    }
}

/// The application, ready to be served by its parts; no broker need be reachable.
pub fn rocket(figment: Figment, settings: Settings) -> Result<(Rocket<Build>, Parts), ConnectionError> {
    let connection = Connection::new(&settings.kafka)?;
    let cluster = Cluster::watch(&connection, &settings.kafka)?;
    let producer = Arc::new(Producer::new(&connection, &cluster, &settings.ingest)?);
    let history = Arc::new(History::new(&connection, cluster.state()));
    let ingest = Arc::new(Ingest::new(producer.clone(), cluster.state(), history.clone(), settings.ingest.clone()));
    let memory = settings.feed.bytes.as_u64() as usize;
    let feed = Feed::new(connection.topic(), Frames::new(web::view::event_html), settings.feed.events, memory);
    let stats = Arc::new(Stats::new(connection.is_embedded()));
    let (requests, closing) = (TaskTracker::new(), CancellationToken::new());
    let sink = FeedSink {
        writer: feed.writer(),
        ingest: ingest.clone(),
        stats: stats.clone(),
        history: history.clone(),
        closing: closing.clone(),
        filling: closing.child_token(),
    };
    let tail = Tail::start(&connection, &cluster, settings.feed.events.min(PRELOAD), sink)?;
    let sizes = feed.clone();
    let sizes = Box::new(move || sizes.mean_sizes(SIZED));
    let inspector = Arc::new(Inspector::new(&connection, &cluster, history.clone(), sizes));
    let metrics = telemetry::Metrics::new(&ingest, &feed, producer.clone(), cluster.state(), tail.lag());
    let stalled = settings.feed.stalled;
    let app = web::App {
        stats,
        overview: web::Overviews::default(),
        history,
        inspector,
        kafka: cluster.state(),
        ingest: ingest.clone(),
        feed,
        reads: Arc::new(Semaphore::new(web::READS)),
        catch_ups: Arc::new(Semaphore::new(web::READS)),
        searches: Arc::new(Semaphore::new(web::SEARCHES)),
        metrics,
        requests: requests.clone(),
        closing: closing.clone(),
        limits: web::RateLimit::new(settings.ingest.rate_limit, settings.ingest.max_batch),
        connection: connection.clone(),
        settings,
    };
    // Signals are ours, and when Rocket is told to end no request is under way any more; but the last bytes of an answer
    // may still be on their way from Rocket to the socket, and without a grace period they would be cut off.
    let figment = figment
        .merge(("shutdown.ctrlc", false))
        .merge(("shutdown.signals", Vec::<String>::new()))
        .merge(("shutdown.grace", 1))
        .merge(("shutdown.mercy", 1));
    let rocket = web::mount(rocket::custom(figment), app).attach(AdHoc::on_liftoff("Listening", move |rocket| {
        Box::pin(async move {
            let config = rocket.config();
            let scheme = if config.tls_enabled() { "https" } else { "http" };
            let address = format!("{scheme}://{}", std::net::SocketAddr::new(config.address, config.port));
            if let Err(error) = web::connections::bound(config.port, stalled) {
                tracing::warn!(error = %error, "clients that take nothing keep their connections");
            }
            tracing::info!(address, "listening");
        })
    }));
    Ok((rocket, Parts { producer, ingest, requests, closing, _tail: tail, _cluster: cluster, connection }))
}

/// Where the tail's records go: to the feed, to the statistics, and their ids to the memory of ids.
struct FeedSink {
    writer: Writer,
    ingest: Arc<Ingest>,
    stats: Arc<Stats>,
    history: Arc<History>,
    closing: CancellationToken,
    /// Ends the read of what lies before the place where the tail began.
    filling: CancellationToken,
}

impl FeedSink {
    /// Counts what the tail does not read, on a thread of its own.
    fn count_what_lies_before(&mut self, positions: &[i64]) {
        self.filling.cancel();
        self.filling = self.closing.child_token();
        let (stats, history, stop, ends) =
            (self.stats.clone(), self.history.clone(), self.filling.clone(), positions.to_vec());
        let work = move || stats.fill(&history, &ends, &stop);
        if let Err(error) = std::thread::Builder::new().name("stats".into()).spawn(work) {
            tracing::error!(error = %error, "the last day is not counted");
        }
    }
}

impl Sink for FeedSink {
    fn start(&mut self, positions: &[i64], ends: &[i64]) {
        self.writer.start(positions, ends);
        self.count_what_lies_before(positions);
    }

    fn caught_up(&mut self) {
        self.ingest.open();
    }

    fn grow(&mut self, partitions: usize) {
        self.writer.grow(partitions);
    }

    fn skip(&mut self, partition: i32, next: i64) {
        self.writer.skip(partition, next);
    }

    fn restart(&mut self, positions: &[i64]) {
        self.ingest.start_anew();
        self.writer.restart(positions);
        self.filling.cancel();
        self.stats.clear();
    }

    fn push(&mut self, record: Record) {
        self.ingest.observe(&record);
        self.stats.observe(&record);
        self.writer.push(record);
    }

    fn publish(&mut self) -> Duration {
        self.writer.publish()
    }
}
