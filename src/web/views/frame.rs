//! The frame of every page: header, navigation, Kafka's state.

use super::format::Stamp;
use super::zone::Zone;

#[derive(Clone)]
pub struct PageFrame {
    /// Hashed addresses of `app.css`, `app.js` and `favicon.svg`.
    pub css: String,
    pub js: String,
    pub icon: String,
    pub topic: String,
    /// The brokers in words: `kafka-1:9092`, `embedded broker`.
    pub servers: String,
    /// Whether the broker is the embedded one: the page then warns that it is not storage.
    pub embedded: bool,
    pub broker: BrokerStatus,
    /// The zone of the page's times, and whether the browser has chosen it.
    pub zone: Zone,
    pub zone_is_chosen: bool,
    /// Path and query of the page as the browser requested it, to come back to it.
    pub here: String,
}

/// Whether Kafka is reachable.
#[derive(Clone)]
pub enum BrokerStatus {
    Up,
    Unreachable {
        /// Milliseconds since 1970.
        since_ms: i64,
        reason: String,
    },
    /// Kafka is reachable, but not all posts and streams are served.
    Impaired(String),
}

impl PageFrame {
    /// Since when Kafka has been unreachable, if it is.
    pub fn unreachable(&self) -> Option<Outage<'_>> {
        match &self.broker {
            BrokerStatus::Up | BrokerStatus::Impaired(_) => None,
            BrokerStatus::Unreachable { since_ms, reason } => {
                Some(Outage { since: Stamp::new(*since_ms, &self.zone), reason })
            }
        }
    }

    /// Why not all posts and streams are served, although Kafka is reachable.
    pub fn impaired(&self) -> Option<&str> {
        match &self.broker {
            BrokerStatus::Impaired(reason) => Some(reason),
            BrokerStatus::Up | BrokerStatus::Unreachable { .. } => None,
        }
    }
}

pub struct Outage<'a> {
    pub since: Stamp,
    pub reason: &'a str,
}
