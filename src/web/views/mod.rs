//! What several pages share: their frame, a record as one line, addresses, and the formats of times and numbers.
//!
//! Nothing here reads from Kafka or knows HTTP.

mod address;
mod chart;
mod fields;
mod first_event;
mod format;
mod frame;
mod listing;
mod marks;
mod row;
mod wrong;
mod zone;

pub use address::{compare_page, history_page, live_page, record_page, user_page};
pub use chart::{Chart, Series, Span, spark, spark_with_gaps};
pub use fields::{ComparedField, FieldTree, compare};
pub use first_event::SNIPPETS;
pub use footfall_core::query_string::Filters;
pub use format::{Stamp, count_of, cut, duration, explicit, is_text, rate, rate_over, sentence, size, step, thousands};
pub use frame::{BrokerStatus, PageFrame};
pub use listing::{Listing, typed_condition};
pub use row::{Row, RowUser, event_html, frames, members};
pub use wrong::WrongParameters;
pub use zone::{Bound, Zone};
