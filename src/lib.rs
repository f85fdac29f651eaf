//! Footfall: user-activity events in, live feed out, on Apache Kafka.
//!
//! An event comes in through `web/`, which hands it to the one door, `ingest::Ingest::submit`. It is parsed, checked and
//! deduplicated there, and `kafka::Producer` writes it into the topic. `kafka::Tail` reads the topic and hands every record
//! to `follow.rs`: its id goes to `ingest`, its numbers to `stats`, and the record to the `feed` in memory, from where
//! streams send it to their clients. Searches read the topic itself.
//!
//! [`rocket()`] in `app.rs` is the one place where the parts are put together; `lifecycle.rs` serves them and ends them.

mod app;
mod base_path;
mod bounds;
mod colours;
pub mod config;
pub mod demo;
mod ephemeral;
pub mod feed;
mod follow;
mod hosts;
mod hot_keys;
mod ingest;
pub mod kafka;
mod lifecycle;
mod limits;
mod origins;
mod recent;
mod rejects;
mod search;
mod server;
pub mod stats;
mod stream;
pub mod telemetry;
mod web;

pub use app::{BuildError, check_tracker, load_tls, rocket};
pub use lifecycle::{Parts, ServeError};
pub use server::{Tls, inherited_socket};

/// Events and records, of the core.
pub mod event {
    pub use footfall_core::event::*;
    pub use footfall_core::record::*;
}
