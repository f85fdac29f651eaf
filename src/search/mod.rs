//! Searching the topic: pages of history, single records, a user's counts, and exports of any length.
//!
//! A [`SearchRequest`] says which records to return; [`Searches`] reads them from Kafka in bounded time and memory,
//! when a permit is free, and stops when the caller is dropped. `web` makes the requests and the answers; this folder
//! knows no HTTP.

mod export;
mod neighbours;
mod outlet;
mod request;
mod run;
mod user_counts;
mod user_moments;

pub use export::{Chunks, Csv, ExportError, ExportFormat, Ndjson, Progress};
pub use neighbours::{Neighbour, Neighbours};
pub use request::{Bound, Order, SearchRequest};
pub use run::{RangeReader, SearchError, Searches};
pub use user_counts::{Counts, Scope, UserCounts};
pub use user_moments::{Session, UserMoments};
