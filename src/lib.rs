//! Footfall: user-activity events in, live feed out, on Apache Kafka.
//!
//! An event comes in through `web/`, which hands it to the one door, [`ingest::Ingest::submit`]. It is parsed, checked and
//! deduplicated there, and `kafka::Producer` writes it into the topic. `kafka::Tail` reads the topic and hands every record
//! to `follow.rs`: its id goes to `ingest`, its numbers to `stats`, and the record to the `feed` in memory, from where
//! streams send it to their clients. Searches read the topic itself.
//!
//! [`rocket()`] in `app.rs` is the one place where the parts are put together; `lifecycle.rs` serves them and ends them.

mod app;
pub mod bounds;
pub mod config;
pub mod demo;
pub mod feed;
mod follow;
pub mod hosts;
pub mod ingest;
pub mod kafka;
mod lifecycle;
pub mod limits;
pub mod search;
pub mod server;
pub mod stats;
pub mod stream;
pub mod telemetry;
pub mod web;

pub use app::rocket;
pub use lifecycle::{Parts, ServeError};

/// Events and records, of the core.
pub mod event {
    pub use footfall_core::event::*;
    pub use footfall_core::record::*;
}
