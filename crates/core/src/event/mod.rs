//! Events: parsing and validating submissions, ids and times, and the form of an event as a Kafka record (CloudEvents
//! 1.0 Kafka binding, binary mode). Knows neither Kafka's client nor HTTP.

pub mod cloudevents;
mod fields;
mod form;
mod id;
mod refused;
pub mod segment;
mod submitted;
pub mod time;
pub mod trace;
pub mod tracker;

pub use fields::is_blank;
pub use form::parse_form;
pub use id::EventId;
pub use refused::{Checked, FieldError, Limits, Refused};
pub use submitted::{BodyFormat, Parsed, parse};

use bytes::Bytes;

/// Most extension attributes of one CloudEvent.
pub const EXTENSIONS: usize = 64;
/// Most errors reported for one event.
pub const ERRORS_EACH: usize = 20;

/// A valid event, ready to become a Kafka record.
#[derive(Debug, Clone)]
pub struct Event {
    pub id: EventId,
    /// Whether the client chose the id.
    pub id_was_given: bool,
    /// RFC 3339, as submitted or set by the server: the `ce_time` header.
    pub time: String,
    /// The same in milliseconds since 1970.
    pub time_ms: i64,
    /// The record's key: `user`, or a CloudEvent's `subject`. Events with the same key stay in order.
    pub user: String,
    /// The record's value: the JSON object exactly as submitted.
    pub value: Bytes,
    /// Other headers than `ce_specversion`, `ce_id`, `ce_time` and `content-type`; `None` means the configured
    /// `ce_source` and `ce_type`.
    pub source: Option<String>,
    pub kind: Option<String>,
    /// `None` means `application/json`.
    pub content_type: Option<String>,
    /// Other CloudEvents attributes (`ce_…`) and trace context, passed on unchanged.
    pub extra_headers: Vec<(String, String)>,
}
