//! What a stream sends without an event: heartbeats, changes of Kafka's state, and the last message.

use std::future::pending;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::select;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, Sleep, interval_at, sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::Streams;
use crate::event::time::format_ms;
use crate::feed::{Cursor, Dialect, Frames};
use crate::kafka::{Cause, State, Trouble, describe_troubles};

/// When a stream has to send something, whether there are events or not.
pub struct Pulse {
    heartbeat: Interval,
    /// Ends the stream at its maximum age, so that the client resumes, perhaps at another replica.
    end: Pin<Box<Sleep>>,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    /// `None`: the client gets no reports about Kafka.
    kafka: Option<watch::Receiver<State>>,
    /// Whether to report also what only keeps events from being written.
    reports_writes: bool,
    /// Whether the state at the start of the stream was looked at.
    looked: bool,
    /// The status that the client has.
    reported: Option<Value>,
}

/// One message that is not an event.
pub enum Beat {
    Heartbeat,
    Status(Value),
    /// The last message, with the reason.
    Bye(&'static str),
}

impl Pulse {
    /// A page (`Dialect::Html`) gets every status, a program only what keeps records from it, and the end of that. Without
    /// a dialect the client gets no status.
    pub(super) fn new(streams: &Streams, dialect: Option<Dialect>) -> Self {
        let is_page = dialect == Some(Dialect::Html);
        let settings = &streams.settings;
        // Less up to a fifth, at random, so that clients that connected together do not reconnect together.
        let random = (RandomState::new().hash_one(()) % 1000) as f64 / 1000.0;
        let age = settings.max_age.mul_f64(1.0 - random / 5.0);
        Pulse {
            heartbeat: interval_at(Instant::now() + settings.heartbeat, settings.heartbeat),
            end: Box::pin(sleep(age)),
            closing: Box::pin(streams.closing.clone().cancelled_owned()),
            kafka: dialect.map(|_| streams.kafka.clone()),
            reports_writes: is_page,
            looked: false,
            reported: (!is_page).then(up),
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

    /// The broker's status, if it differs from the one that the client has.
    fn new_status(&mut self) -> Option<Value> {
        let reports_writes = self.reports_writes;
        let status = match &*self.kafka.as_mut()?.borrow_and_update() {
            State::Up(topic) => {
                let concerns = |it: &&Trouble| reports_writes || it.cause.stops_streams() || it.cause == Cause::HeldUp;
                let troubles: Vec<Trouble> = topic.troubles.iter().filter(concerns).cloned().collect();
                match describe_troubles(&troubles) {
                    None => up(),
                    Some(reason) => json!({"broker": "impaired", "since": null, "reason": reason}),
                }
            }
            State::Connecting { since_ms, reason, .. } | State::Away { since_ms, reason, .. } => {
                json!({"broker": "away", "since": format_ms(*since_ms), "reason": reason})
            }
        };
        let known = self.reported.as_ref().is_some_and(|reported| {
            let same_reason = status["broker"] == "away" || reported["reason"] == status["reason"];
            reported["broker"] == status["broker"] && same_reason
        });
        if known {
            return None;
        }
        self.reported = Some(status.clone());
        Some(status)
    }
}

fn up() -> Value {
    json!({"broker": "up", "since": null, "reason": null})
}

impl Beat {
    /// The message; `place` is the client's, where it is known.
    pub fn bytes(&self, dialect: Dialect, place: Option<&Cursor>) -> Bytes {
        let mut out = Vec::new();
        match self {
            Beat::Heartbeat => Frames::heartbeat(&mut out, dialect, place),
            Beat::Status(status) => Frames::control(&mut out, dialect, "status", place, status),
            Beat::Bye(reason) => Frames::control(&mut out, dialect, "bye", place, &json!({"reason": reason})),
        }
        out.into()
    }

    /// Whether it is the last message of its stream.
    pub fn is_last(&self) -> bool {
        matches!(self, Beat::Bye(_))
    }
}
