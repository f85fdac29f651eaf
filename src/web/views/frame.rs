//! The frame of every page.

use super::format::Stamp;

/// What every page has in common.
#[derive(Clone)]
pub struct Frame {
    /// Hashed addresses of `app.css`, `app.js` and `favicon.svg`.
    pub css: String,
    pub js: String,
    pub icon: String,
    pub topic: String,
    /// The brokers in words: `kafka-1:9092`, `embedded broker`.
    pub servers: String,
    /// The embedded broker: the page says that it is not storage.
    pub embedded: bool,
    pub broker: Broker,
}

/// Whether Kafka is reachable.
#[derive(Clone)]
pub enum Broker {
    Up,
    Away {
        /// Milliseconds since 1970.
        since_ms: i64,
        reason: String,
    },
    /// Kafka is reachable, but not all posts and streams are served.
    Impaired(String),
}

impl Frame {
    /// Since when Kafka has been unreachable, if it is.
    pub fn away(&self) -> Option<Away<'_>> {
        match &self.broker {
            Broker::Up | Broker::Impaired(_) => None,
            Broker::Away { since_ms, reason } => Some(Away { since: Stamp::new(*since_ms), reason }),
        }
    }

    /// Why not all posts and streams are served, although Kafka is reachable.
    pub fn impaired(&self) -> Option<&str> {
        match &self.broker {
            Broker::Impaired(reason) => Some(reason),
            Broker::Up | Broker::Away { .. } => None,
        }
    }
}

pub struct Away<'a> {
    pub since: Stamp,
    pub reason: &'a str,
}
