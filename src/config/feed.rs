//! `[default.feed]`: the live feed in memory, and the streams that clients follow.

use std::time::Duration;

use rocket::data::ByteUnit;

use super::table::{settings, unit};

settings! {
    "feed";
    /// The live feed in memory, and the streams that clients follow.
    pub struct FeedSettings {
        /// Most records kept in memory. A client that resumes further back is served from Kafka.
        pub events: usize = 50_000, in 10..=10_000_000;
        /// Most memory of the records (three quarters) and of their encoded frames (a quarter).
        pub bytes: ByteUnit = ByteUnit::Mebibyte(32), in "1MiB"..="16GiB";
        /// Time between two heartbeats of a stream. Pages get one every 5 s at the latest. Above 30s clients may take the
        /// connection for broken: `footfall tail` does so after 60 s without a byte.
        #[serde(with = "unit")]
        pub heartbeat: Duration = Duration::from_secs(15), in "100ms"..="5m";
        /// How long a stream lasts, less a random part of up to a fifth. Then Footfall sends `bye` and the client resumes,
        /// so that clients spread over replicas.
        #[serde(with = "unit")]
        pub max_age: Duration = Duration::from_secs(900), in "1s"..="24h";
        /// How long a browser waits before it reconnects (the `retry` field of Server-Sent Events).
        #[serde(with = "unit")]
        pub retry: Duration = Duration::from_secs(3), in "100ms"..="5m";
        /// Most open streams. Beyond that the answer is 503.
        pub max_streams: usize = 20_000, in 1..=1_000_000;
        /// How long an answer of any kind may wait for its client to accept more bytes. After that Footfall closes the
        /// connection.
        #[serde(with = "unit")]
        pub stalled: Duration = Duration::from_secs(60), in "1s"..="24h";
        /// Most records that a client that resumes gets from Kafka. Beyond that Footfall sends `gap` with the number missed.
        pub max_catch_up: u64 = 1_000_000, in 0..=1_000_000_000;
    }
}
