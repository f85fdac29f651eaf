//! HTTP: routes that parse, call one function of the house, and answer.

mod api;
mod assets;
mod body;
pub mod connections;
pub(crate) mod csv;
mod guards;
mod inspect;
mod kafka_page;
mod live;
mod methods;
mod ops;
mod overview;
mod pages;
pub(crate) mod parameters;
mod person;
mod problem;
mod query;
mod reading;
mod record;
mod request_log;
mod search;
mod security;
pub mod view;
mod ws;

pub use guards::RateLimit;

use std::sync::Arc;

use rocket::{Build, Rocket, catchers, routes};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Settings;
use crate::feed::Feed;
use crate::ingest::Ingest;
use crate::kafka::{Connection, History, Inspector, State};
use crate::stats::Stats;
use crate::telemetry::Metrics;

/// What the handlers share.
pub struct App {
    pub settings: Settings,
    pub connection: Connection,
    pub kafka: watch::Receiver<State>,
    pub ingest: Arc<Ingest>,
    pub feed: Feed,
    pub history: Arc<History>,
    pub inspector: Arc<Inspector>,
    /// Reads of the topic that may be under way at once; each holds a consumer.
    pub reads: Arc<Semaphore>,
    /// Streams that may catch up from Kafka at once: as many, but at their clients' pace.
    pub catch_ups: Arc<Semaphore>,
    /// Searches and exports that may be under way at once.
    pub searches: Arc<Semaphore>,
    pub stats: Arc<Stats>,
    pub overview: Overviews,
    pub metrics: Metrics,
    /// Every request that is being answered, streams among them.
    pub requests: TaskTracker,
    /// Cancelled when the process is asked to end: streams say bye.
    pub closing: CancellationToken,
    pub limits: RateLimit,
}

/// Reads of the topic at once, and as many streams that catch up.
pub const READS: usize = 10;
pub use overview::Overviews;
pub use search::SEARCHES;

/// Puts routes, catchers and fairings on a Rocket.
pub fn mount(rocket: Rocket<Build>, app: App) -> Rocket<Build> {
    rocket
        .manage(Arc::new(app))
        .attach(request_log::RequestLog)
        .attach(security::shield())
        .mount(
            "/",
            routes![
                pages::live,
                pages::submit,
                search::history,
                search::search,
                search::ndjson,
                search::csv,
                record::record,
                person::page,
                person::count,
                person::json,
                overview::page,
                overview::stream,
                overview::stats,
                live::page_stream,
                live::api_stream,
                ws::socket,
                api::submit,
                api::tutorial,
                api::history,
                api::record,
                api::openapi,
                inspect::page,
                inspect::topics,
                inspect::groups,
                ops::livez,
                ops::readyz,
                ops::metrics,
                assets::hashed,
                assets::favicon,
            ],
        )
        .mount("/", methods::not_allowed())
        .register("/", catchers![problem::catch])
}
