//! Searching the topic: a page of history, one record, what a user's events add up to, and exports of any length.
//!
//! A [`Request`] says which records are wanted; [`Searches`] reads them from Kafka in bounded time and memory, when there is a
//! permit, and stops when nobody waits for it any more. `web` makes the requests and the answers; this folder knows no HTTP.

mod export;
mod outlet;
mod request;
mod run;
mod user_counts;

pub use export::{Broken, Chunks, Csv, Format, Ndjson, Progress};
pub use request::{Bound, Order, Request};
pub use run::{Reader, SearchError, Searches};
pub use user_counts::{Counts, Scope, UserCounts};
