//! Builds the application from its parts.

use std::sync::Arc;
use std::time::Duration;

use rocket::figment::Figment;
use rocket::{Build, Rocket};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{IngestSettings, InvalidConfig, Settings, TlsSettings};
use crate::ephemeral::Ephemeral;
use crate::feed::{Feed, Frames};
use crate::follow::TailSink;
use crate::hot_keys::HotKeys;
use crate::ingest::{Ingest, UndecidedIds};
use crate::kafka::{
    Cluster, Connection, ConnectionError, History, Inspector, Producer, Tail, TopicEmptier, Uncommitted,
};
use crate::lifecycle::Parts;
use crate::limits::HeavyWork;
use crate::recent::Recents;
use crate::rejects::Rejects;
use crate::search::Searches;
use crate::server::{ClientAuthorities, Tls, TlsFiles};
use crate::stats::Stats;
use crate::stream::Streams;
use crate::{bounds, kafka, server, telemetry, web};

/// Most records of the topic that are read at the start, so that pages show something and ids are known. An idle
/// process stays small, however much is in the topic.
const PRELOAD: usize = 10_000;

/// How many of the latest records the estimate of a partition's size uses.
const SIZED: usize = 500;

/// Why the application cannot be built: one line.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    #[error(transparent)]
    Kafka(#[from] ConnectionError),
}

/// Reads the certificate of HTTPS, if there is one. Its sources in the figment are named in the error.
pub fn load_tls(figment: &Figment, settings: &TlsSettings) -> Result<Option<Tls>, InvalidConfig> {
    let (Some(certs), Some(key)) = (settings.certs.clone(), settings.key.clone()) else { return Ok(None) };
    let clients = settings.mutual.ca_certs.clone();
    let clients = clients.map(|ca_certs| ClientAuthorities { ca_certs, mandatory: settings.mutual.mandatory });
    let loaded = Tls::load(TlsFiles { certs, key, clients });
    loaded.map(Some).map_err(|error| InvalidConfig::at(figment, error.key, error.why))
}

/// Refuses a path of the tracker at which another route is.
pub fn check_tracker(figment: &Figment, settings: &IngestSettings) -> Result<(), InvalidConfig> {
    let tracker = &settings.tracker;
    if web::is_taken(tracker) {
        let why =
            format!("`{tracker}` and the same without .js must not be paths of other routes; choose another name");
        return Err(InvalidConfig::at(figment, "ingest.tracker", why));
    }
    Ok(())
}

/// Builds the application and its parts. Needs no reachable broker.
pub fn rocket(figment: Figment, settings: Settings) -> Result<(Rocket<Build>, Parts), BuildError> {
    check_tracker(&figment, &settings.ingest)?;
    let tls = load_tls(&figment, &settings.tls)?;
    let connection = Connection::new(&settings.kafka)?;
    let cluster = Cluster::watch(&connection, &settings.kafka)?;
    let producer = Arc::new(Producer::new(&connection, &cluster, &settings.ingest)?);
    let history = Arc::new(History::new(&connection, cluster.state()));
    let heavy = HeavyWork::default();
    let uncommitted = history.uncommitted();
    let ingest = Ingest::new(producer.clone(), cluster.state(), uncommitted, settings.ingest.clone(), heavy.clone());
    let ingest = Arc::new(ingest);
    let memory = settings.feed.bytes.as_u64() as usize;
    let feed = Feed::new(
        connection.topic(),
        Frames::new(|record| web::views::event_html(record, &web::views::Listing::default())),
        settings.feed.events,
        memory,
    );
    let stats = Arc::new(Stats::new(connection.is_embedded()));
    let (requests, closing) = (TaskTracker::new(), CancellationToken::new());
    let hot_keys = Arc::new(HotKeys::default());
    let sink =
        TailSink::new(feed.writer(), ingest.clone(), stats.clone(), hot_keys.clone(), history.clone(), closing.clone());
    let preload = settings.feed.events.min(PRELOAD);
    let tail = Tail::start(&connection, &cluster, preload, sink)?;
    let behind = Uncommitted::start(&connection, &cluster, &tail, PRELOAD, UndecidedIds::new(ingest.clone()))?;
    let sizes = feed.clone();
    let sizes = Box::new(move || sizes.mean_sizes(SIZED));
    let inspector = Arc::new(Inspector::new(&connection, &cluster, sizes));
    let sampler = inspector.sample_in_background().map_err(ConnectionError::from)?;
    let held_up = Box::new(cluster.held_up());
    let rejects = Arc::new(Rejects::default());
    let emptier = if settings.ephemeral { TopicEmptier::new(&connection, &cluster, &history) } else { None };
    let ephemeral = emptier.map(|emptier| Ephemeral::new(emptier, cluster.state(), ingest.clone(), rejects.clone()));
    let reads = kafka::Reads::new(history);
    let streams = Streams::new(
        feed.clone(),
        reads.clone(),
        cluster.state(),
        rejects.news(),
        connection.is_embedded(),
        closing.clone(),
        settings.feed.clone(),
    );
    let searches = Searches::new(reads, closing.clone());
    let held = (searches.clone(), streams.catch_ups().clone());
    let certificate_expiry = tls.as_ref().map(Tls::expiry);
    let connections = server::ServerMetrics { certificate_expiry, ..server::ServerMetrics::default() };
    let sources = telemetry::Sources {
        ingest: ingest.clone(),
        feed: feed.clone(),
        producer: producer.clone(),
        kafka: cluster.state(),
        lag: tail.lag(),
        held_up,
        rejects: rejects.clone(),
        reads: Box::new(move || [&held.0.held()[..], &[("catch_up", held.1.held())]].concat()),
    };
    let metrics = Arc::new(telemetry::Metrics::new(sources, &connections));
    let (limits, reuse_port) = (limits(&figment, &settings), settings.http.reuse_port);
    settings.http.base_path.serve();
    let rocket = rocket::custom(figment)
        .manage(settings.http.hosts)
        .manage(settings.ingest.origins)
        .manage(web::Https(tls.is_some()))
        .manage(connection.clone())
        .manage(cluster.state())
        .manage(ingest.clone())
        .manage(feed.clone())
        .manage(inspector)
        .manage(hot_keys)
        .manage(Arc::new(streams))
        .manage(searches)
        .manage(heavy)
        .manage(Arc::new(Recents::new(feed.clone(), stats.clone())))
        .manage(Arc::new(web::Overviews::new(stats, rejects.clone())))
        .manage(metrics.clone())
        .manage(requests.clone());
    let rocket = match ephemeral {
        Some(ephemeral) => rocket.manage(ephemeral),
        None => rocket,
    };
    let rocket = web::mount(rocket, metrics, rejects, settings.log.requests, &settings.ingest.tracker);
    let parts = Parts {
        producer,
        ingest,
        requests,
        closing,
        reuse_port,
        limits,
        connections,
        tls,
        _behind: behind,
        _tail: tail,
        _sampler: sampler,
        _cluster: cluster,
        connection,
    };
    Ok((rocket, parts))
}

/// What a connection and a request may use, by the settings.
fn limits(figment: &Figment, settings: &Settings) -> server::Limits {
    let http = &settings.http;
    let body = settings.ingest.max_body.as_u64() as usize;
    let idle: u64 = figment.extract_inner("keep_alive").unwrap_or(bounds::IDLE.as_secs());
    let connections = bounds::connections(http.max_connections);
    server::Limits {
        deadlines: server::Deadlines {
            head: http.head_deadline,
            body: http.body_deadline,
            idle: Duration::from_secs(idle),
            write: settings.feed.stalled,
        },
        head: http.max_head.as_u64() as usize,
        body: body.max(web::form_bytes(settings.ingest.max_event.as_u64() as usize)),
        body_rate: http.body_rate.as_u64(),
        connections,
        connections_each: bounds::connections_each(connections, http.max_connections_per_address),
    }
}
