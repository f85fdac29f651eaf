//! The messages of a stream beside its events: heartbeats, changes of Kafka's state, and the last message.

use std::future::pending;
use std::pin::Pin;

use bytes::Bytes;
use serde::Serialize;
use tokio::select;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, Sleep, interval_at, sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;
use utoipa::ToSchema;

use super::Streams;
use crate::event::time::format_ms;
use crate::feed::{Cursor, Dialect, Frames};
use crate::kafka::{Cause, ClusterState, Trouble, describe_troubles};

/// Decides when a stream sends such a message.
pub struct Pulse {
    heartbeat: Interval,
    /// Ends the stream at its maximum age, so that the client resumes, perhaps at another replica.
    end: Pin<Box<Sleep>>,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    /// `None`: the client gets no reports about Kafka.
    kafka: Option<watch::Receiver<ClusterState>>,
    /// Whether to report states in which only posts fail.
    reports_writes: bool,
    /// Whether the state at the start of the stream was looked at.
    looked: bool,
    /// The status that the client has or, at the start, assumes.
    reported: Option<Status>,
}

/// One message that is not an event.
pub enum Beat {
    Heartbeat,
    Status(Status),
    /// The last message, with the reason.
    Bye(&'static str),
}

/// `event: status`. Why no records come, and when that is over.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(examples(json!({"broker": "away", "since": "2026-11-23T12:00:00.000Z", "reason": "connection refused"})))]
pub struct Status {
    broker: BrokerState,
    #[schema(required)]
    reason: Option<String>,
    #[schema(required, format = DateTime)]
    since: Option<String>,
}

/// Whether Kafka answers, and whether of all partitions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum BrokerState {
    Up,
    Impaired,
    Away,
}

/// `event: bye`. The server closes now; resume with the last id.
#[derive(Serialize, ToSchema)]
#[schema(examples(json!({"reason": "shutdown"})))]
pub struct Bye {
    reason: &'static str,
}

impl Pulse {
    /// Returns the pulse of a new stream. A page (`Dialect::Html`) gets every status; a program gets only a status
    /// that keeps some records from it, and the end of that. Without a dialect the client gets no status.
    pub(super) fn new(streams: &Streams, dialect: Option<Dialect>) -> Self {
        let is_page = dialect == Some(Dialect::Html);
        let settings = &streams.settings;
        // Less up to a fifth, at random, so that clients that connected together do not reconnect together.
        let age = settings.max_age.mul_f64(1.0 - fastrand::f64() / 5.0);
        Pulse {
            heartbeat: interval_at(Instant::now() + settings.heartbeat, settings.heartbeat),
            end: Box::pin(sleep(age)),
            closing: Box::pin(streams.closing.clone().cancelled_owned()),
            kafka: dialect.map(|_| streams.kafka.clone()),
            reports_writes: is_page,
            looked: false,
            reported: (!is_page).then_some(UP),
        }
    }

    /// Waits until there is something to send. Cancel safe.
    pub async fn beat(&mut self) -> Beat {
        if !self.looked {
            self.looked = true;
            if let Some(status) = self.new_status() {
                return Beat::Status(status);
            }
        }
        loop {
            let changed = async {
                match &mut self.kafka {
                    Some(kafka) => kafka.changed().await.is_ok() || pending().await,
                    None => pending().await,
                }
            };
            select! {
                _ = self.heartbeat.tick() => return Beat::Heartbeat,
                () = &mut self.end => return Beat::Bye("max age"),
                () = &mut self.closing => return Beat::Bye("shutdown"),
                _ = changed => {}
            }
            if let Some(status) = self.new_status() {
                return Beat::Status(status);
            }
        }
    }

    /// Returns the broker's status, if it differs from the last one that was sent.
    fn new_status(&mut self) -> Option<Status> {
        let reports_writes = self.reports_writes;
        let status = match &*self.kafka.as_mut()?.borrow_and_update() {
            ClusterState::Up(topic) => {
                let concerns = |it: &&Trouble| reports_writes || it.cause.stops_streams() || it.cause == Cause::HeldUp;
                let troubles: Vec<Trouble> = topic.troubles.iter().filter(concerns).cloned().collect();
                match describe_troubles(&troubles) {
                    None => UP,
                    reason => Status { broker: BrokerState::Impaired, reason, since: None },
                }
            }
            ClusterState::Connecting { since_ms, reason, .. } | ClusterState::Unreachable { since_ms, reason, .. } => {
                Status { broker: BrokerState::Away, reason: Some(reason.clone()), since: Some(format_ms(*since_ms)) }
            }
        };
        let known = self.reported.as_ref().is_some_and(|reported| {
            reported.broker == status.broker && (status.broker == BrokerState::Away || reported.reason == status.reason)
        });
        if known {
            return None;
        }
        self.reported = Some(status.clone());
        Some(status)
    }
}

const UP: Status = Status { broker: BrokerState::Up, reason: None, since: None };

impl Beat {
    /// Returns the message; `place` is the client's position, if it is known.
    pub fn bytes(&self, dialect: Dialect, place: Option<&Cursor>) -> Bytes {
        let mut out = Vec::new();
        match self {
            Beat::Heartbeat => Frames::heartbeat(&mut out, dialect, place),
            Beat::Status(status) => Frames::control(&mut out, dialect, "status", place, status),
            Beat::Bye(reason) => Frames::control(&mut out, dialect, "bye", place, &Bye { reason }),
        }
        out.into()
    }

    /// Whether it is the last message of its stream.
    pub fn is_last(&self) -> bool {
        matches!(self, Beat::Bye(_))
    }
}
