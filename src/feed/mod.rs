//! The live feed in memory: a ring of the recent records, and subscriptions that read it at their own pace.
//!
//! Promises that a subscription gets every record that matches, in order, or is told exactly what it did not get.
//! Memory is bounded whatever the number of subscriptions and however slowly they read, and none delays another.
//! Knows neither Kafka nor HTTP: the tail fills it, `web` reads it.

mod cursor;
mod filter;
mod frame;
mod index;
#[cfg(test)]
mod model;
mod ring;
mod subscription;

pub use cursor::{BadCursor, Cursor};
pub use filter::Filter;
pub use frame::{Dialect, Frames, Gap};
pub use ring::{Feed, Metrics, OpenStream, Writer};
pub use subscription::{Next, Start, Subscription};
