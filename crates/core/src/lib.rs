//! The core of Footfall: events, records, cursors, filters and query strings.
//!
//! Nothing here does I/O or knows Kafka's client, HTTP, or an async runtime, so its tests and the fuzz targets build in
//! seconds. Everything here accepts any bytes: a client or another writer of the topic may have sent them.

#[cfg(any(test, feature = "checks"))]
pub mod checks;
mod condition;
mod cursor;
pub mod event;
mod filter;
mod frame;
pub mod query_string;
pub mod record;
#[cfg(feature = "schema")]
pub mod schema;
mod text;
pub mod value;

pub use condition::{Condition, Operator, Pointer};
pub use cursor::{BadCursor, Cursor, UNKNOWN};
pub use event::EventId;
pub use filter::Filter;
pub use frame::{Dialect, Dropped, Frames, Gap, GapReason, Position};
pub use record::Record;
pub use text::{Part, Text};
