//! What several pages share: their frame, a record as one line, addresses, and the formats of times and numbers.
//!
//! Nothing here reads from Kafka or knows HTTP.

mod address;
mod chart;
mod first_event;
mod format;
mod frame;
mod listing;
mod marks;
mod row;
mod wrong;
mod zone;

pub use address::{history_page, live_page, user_page};
pub use chart::{Chart, Series, Span, spark, spark_with_gaps};
pub use first_event::SNIPPETS;
pub use footfall_core::query_string::Filters;
pub use format::{Stamp, count_of, cut, duration, explicit, is_text, rate, sentence, size, thousands};
pub use frame::{BrokerStatus, PageFrame};
pub use listing::{Listing, name, typed_condition};
pub use row::{Row, RowUser, event_html, frames, members};
pub use wrong::WrongParameters;
pub use zone::{Bound, Zone};
