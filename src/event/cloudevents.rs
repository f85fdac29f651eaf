//! The names of the CloudEvents 1.0 Kafka protocol binding, and the structured mode's envelope.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

pub const SPECVERSION: &str = "ce_specversion";
pub const ID: &str = "ce_id";
pub const SOURCE: &str = "ce_source";
pub const TYPE: &str = "ce_type";
pub const TIME: &str = "ce_time";
pub const CONTENT_TYPE: &str = "content-type";

/// What a structured-mode message says beside its data (CloudEvents JSON format, section 3).
#[derive(Deserialize, Default)]
pub struct Envelope<'a> {
    #[serde(borrow, default)]
    pub id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub time: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub data: Option<&'a RawValue>,
}

/// Whether a content type names the structured mode's JSON format.
pub fn is_structured(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/cloudevents+json")
}
