//! `[default.ingest]`: how Footfall accepts events and writes them to Kafka.

use std::time::Duration;

use rocket::data::ByteUnit;
use serde::Deserializer;

use super::InvalidValue;
use super::table::{names, settings, unit};
use crate::origins::Origins;

settings! {
    "ingest";
    /// How Footfall accepts events and writes them to Kafka.
    pub struct IngestSettings {
        /// Largest body of a request, also after decompression. At least `ingest.max_event`. A larger one is answered 413.
        pub max_body: ByteUnit = ByteUnit::Kibibyte(512), in "1B"..="64MiB";
        /// Largest event. A larger one is answered 413. A Kafka broker accepts messages up to 1 MB by default.
        pub max_event: ByteUnit = ByteUnit::Kibibyte(32), in "1B"..="900KiB",
            because "a Kafka broker accepts messages up to 1 MB by default";
        /// Most events in one request. A longer array is answered 413.
        pub max_batch: usize = 500, in 1..=10_000;
        /// How long a request waits for Kafka to acknowledge its events. After that the answer is 504.
        #[serde(with = "unit")]
        pub deadline: Duration = Duration::from_secs(10), in "100ms"..="5m";
        /// How many event ids Footfall remembers, so that a retry gets the first receipt and is written once.
        /// It evicts the oldest first. 0 remembers none.
        pub ids: usize = 100_000, in 0..=10_000_000;
        /// How long Footfall remembers an event id.
        #[serde(with = "unit")]
        pub ids_for: Duration = Duration::from_secs(600), in "0s"..="24h";
        /// Events per second that one client address (for IPv6: one /64 network) may send. 0 is no limit.
        /// A client may send one second's worth, or one array of `ingest.max_batch` events, at once. More is answered 429.
        pub rate_limit: u32 = 0;
        /// Origins of other sites whose pages may send events, such as `["https://shop.example"]`; in a variable also with
        /// commas between them. Scripts of these pages may post JSON and read the answer to it (CORS), and nothing else.
        /// Events from pages of all other sites are answered 403.
        #[serde(deserialize_with = "origins")]
        pub origins: Origins = Origins::default();
        /// Where the script is that other sites include, the tracker. It posts to the same path without `.js`. Another name
        /// than `track` keeps ad blockers that know this one from blocking it.
        pub tracker: String = "/track.js".into();
        /// The header `ce_source` of events that do not bring their own.
        pub source: String = "/footfall".into();
        /// The header `ce_type` of events that do not bring their own.
        pub event_type: String = "footfall.user_activity".into();
        /// How the producer compresses batches: `none`, `gzip`, `snappy`, `lz4` or `zstd`. Every reader of the topic must
        /// support it: kafka-python needs further packages for all but `gzip`.
        pub compression: String = "none".into();
        /// How long the producer waits for more events before it sends a batch (librdkafka's `linger.ms`).
        /// Shorter than `ingest.deadline`.
        #[serde(with = "unit")]
        pub linger: Duration = Duration::ZERO, in "0s"..="1s";
        /// Most events that wait for Kafka, at least `ingest.max_batch`. While the queue is full, the answer is 503.
        pub queue_messages: u32 = 100_000, in 1..=10_000_000;
        /// Most requests that wait for Kafka. One client address may have three quarters of them.
        /// Beyond that the answer is 503 at once, so that the other requests do not become slower.
        pub concurrency: usize = 1000, in 1..=1_000_000;
    }
}

impl IngestSettings {
    pub(super) fn check(&self) -> Result<(), InvalidValue> {
        if self.max_body < self.max_event {
            let why = format!("expected at least ingest.max_event ({}), not {}", self.max_event, self.max_body);
            return InvalidValue::because("ingest.max_body", why);
        }
        if (self.queue_messages as usize) < self.max_batch {
            let why = format!("expected at least ingest.max_batch ({}), not {}", self.max_batch, self.queue_messages);
            return InvalidValue::because("ingest.queue_messages", why);
        }
        if self.linger >= self.deadline {
            let why = format!("expected less than ingest.deadline ({:?}), not {:?}", self.deadline, self.linger);
            return InvalidValue::because("ingest.linger", why);
        }
        if !["none", "gzip", "snappy", "lz4", "zstd"].contains(&self.compression.as_str()) {
            let why = format!("`{}` is none of none, gzip, snappy, lz4, zstd", self.compression);
            return InvalidValue::because("ingest.compression", why);
        }
        if !is_script_path(&self.tracker) {
            let why = format!(
                "`{}` is not the path of a script; expected a slash, up to {TRACKER} letters, digits, - and _, and .js, \
                 such as /track.js",
                self.tracker
            );
            return InvalidValue::because("ingest.tracker", why);
        }
        for (key, text) in [("ingest.source", &self.source), ("ingest.event_type", &self.event_type)] {
            if text.is_empty() || text.chars().any(char::is_control) {
                return InvalidValue::because(key, "must not be empty or contain control characters");
            }
        }
        Ok(())
    }
}

fn origins<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Origins, D::Error> {
    let texts = names(deserializer, "a list of origins, such as https://shop.example")?;
    Origins::parse(texts.iter().map(String::as_str)).map_err(serde::de::Error::custom)
}

/// Most characters of the tracker's name.
const TRACKER: usize = 100;

fn is_script_path(path: &str) -> bool {
    let name = path.strip_prefix('/').and_then(|file| file.strip_suffix(".js"));
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    name.is_some_and(|name| (1..=TRACKER).contains(&name.len()) && name.bytes().all(is_plain))
}
