//! The live feed in memory: a ring of the recent records, and subscriptions that read it, each at its own pace.
//!
//! Promises that a subscription gets every record that matches its filter, in order, or a message that says exactly
//! which ones it did not get. Memory is bounded whatever the number of subscriptions and however slowly they read; no
//! reader delays another. Knows neither Kafka nor HTTP: the tail fills the feed, `stream` reads it.

mod column;
mod encodings;
mod index;
mod ring;
mod subscription;
#[cfg(test)]
mod tests;
mod waiters;
mod waves;

pub use footfall_core::{BadCursor, Cursor, Dialect, Filter, Frames, Gap, GapReason, Text, UNKNOWN};
pub use ring::{Feed, Looked, OpenStream, Writer};
pub use subscription::{Next, Subscription};
