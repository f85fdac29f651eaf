//! The messages of a stream beside its events: heartbeats, changes of Kafka's state, rejects, and the last message.

use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::coop::has_budget_remaining;
use tokio::time::{Instant, Sleep, sleep_until};
use utoipa::ToSchema;

use super::Streams;
use crate::event::time::format_ms;
use crate::feed::{Cursor, Dialect, Frames};
use crate::kafka::{Cause, ClusterState, Trouble, describe_troubles};
use crate::rejects::Rejected;

/// Most time between two heartbeats of a page, which learns from them whether a proxy buffers its stream.
const PAGE_HEARTBEAT: Duration = Duration::from_secs(5);

/// Decides when a stream sends such a message.
pub struct Pulse {
    opened_at: Instant,
    heartbeat: Duration,
    /// Whether heartbeats come up to a fifth early, at random: a proxy that forwards at a fixed interval could otherwise
    /// delay all of them by the same time.
    jittered: bool,
    heartbeat_at: Instant,
    /// Ends the stream at its maximum age, so that the client resumes, perhaps at another replica.
    end_at: Instant,
    timer: Pin<Box<Sleep>>,
    timer_runs: bool,
    /// What the timer wakes, since its last reset.
    timer_wakes: Option<Waker>,
    /// Changes with Kafka's state, and to true at the end of the process.
    alerts: watch::Receiver<bool>,
    /// Waits for a change, while a stream waits that the feed does not wake.
    alerted: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// `None`: the client gets no reports about Kafka.
    kafka: Option<watch::Receiver<ClusterState>>,
    /// Whether to report states in which only posts fail.
    reports_writes: bool,
    /// Whether the state at the start of the stream was looked at.
    looked: bool,
    /// The status that the client has or, at the start, assumes.
    reported: Option<Status>,
    /// `None`: the client is no page.
    rejects: Option<watch::Receiver<Rejected>>,
    /// Whether to look for rejects.
    looks_for_rejects: bool,
    /// The number of rejects that the client knows.
    reported_rejects: u64,
}

/// One message that is not an event.
pub enum Beat {
    /// With the time since the stream was opened.
    Heartbeat(Duration),
    Status(Status),
    Rejected(Rejected),
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

/// `event: heartbeat`, which only pages get.
#[derive(Serialize, ToSchema)]
#[schema(examples(json!({"elapsed_ms": 4810})))]
pub struct Heartbeat {
    /// Milliseconds since the stream was opened, by the server's clock.
    elapsed_ms: u64,
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
        let now = Instant::now();
        let heartbeat = if is_page { settings.heartbeat.min(PAGE_HEARTBEAT) } else { settings.heartbeat };
        let (heartbeat_at, end_at) = (now + interval(heartbeat, is_page), now + age);
        Pulse {
            opened_at: now,
            heartbeat,
            jittered: is_page,
            heartbeat_at,
            end_at,
            timer: Box::pin(sleep_until(heartbeat_at.min(end_at))),
            timer_runs: false,
            timer_wakes: None,
            alerts: streams.alerts(),
            alerted: None,
            kafka: dialect.map(|_| streams.kafka.clone()),
            reports_writes: is_page,
            looked: false,
            reported: (!is_page).then_some(UP),
            rejects: is_page.then(|| streams.rejects.clone()),
            looks_for_rejects: false,
            reported_rejects: 0,
        }
    }

    /// Waits until there is something to send. Cancel safe.
    pub async fn beat(&mut self) -> Beat {
        loop {
            if let Some(beat) = self.due() {
                return beat;
            }
            poll_fn(|cx| self.poll_changed(cx)).await;
        }
    }

    /// Returns what is to be sent now.
    pub fn due(&mut self) -> Option<Beat> {
        if !self.looked || self.has_alert() {
            self.looked = true;
            self.looks_for_rejects = true;
            if *self.alerts.borrow_and_update() {
                return Some(Beat::Bye("shutdown"));
            }
            if let Some(status) = self.new_status() {
                return Some(Beat::Status(status));
            }
        }
        if std::mem::take(&mut self.looks_for_rejects)
            && let Some(rejected) = self.new_rejects()
        {
            return Some(Beat::Rejected(rejected));
        }
        // Asks the timer and not the clock, which takes longer than the rest of a look.
        if !self.timer.is_elapsed() {
            if !self.timer_runs {
                // A timer starts with its first poll, and a stream that never waits does not poll it otherwise.
                self.timer_runs = has_budget_remaining();
                let _ = self.timer.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            }
            return None;
        }
        let now = Instant::now();
        if now >= self.end_at {
            return Some(Beat::Bye("max age"));
        }
        self.heartbeat_at = now + interval(self.heartbeat, self.jittered);
        self.timer.as_mut().reset(self.heartbeat_at.min(self.end_at));
        (self.timer_runs, self.timer_wakes) = (false, None);
        Some(Beat::Heartbeat(now - self.opened_at))
    }

    /// Whether there may be a message beside a heartbeat.
    pub fn has_alert(&self) -> bool {
        self.alerts.has_changed().unwrap_or(false) // the sender ends with the runtime
    }

    /// Ready when [`due`](Self::due) may have something.
    pub fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.poll_own_timer(cx).is_pending() {
            let alerts = &self.alerts;
            let alerted = self.alerted.get_or_insert_with(|| {
                let mut alerts = alerts.clone();
                Box::pin(async move {
                    if alerts.changed().await.is_err() {
                        pending::<()>().await; // the sender has ended with the runtime
                    }
                })
            });
            ready!(alerted.as_mut().poll(cx));
        }
        self.alerted = None;
        Poll::Ready(())
    }

    /// Ready when it is time for a heartbeat or for the end. The feed tells the stream about alerts.
    pub fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.alerted = None;
        self.poll_own_timer(cx)
    }

    fn poll_own_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.timer_wakes.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) && !self.timer.is_elapsed() {
            return Poll::Pending;
        }
        // Without a budget (tokio's `coop`) the timer only wakes the task, and does not start.
        if has_budget_remaining() {
            (self.timer_runs, self.timer_wakes) = (true, Some(cx.waker().clone()));
        }
        self.timer.as_mut().poll(cx)
    }

    /// Returns the rejects, if there are others than the client knows.
    fn new_rejects(&mut self) -> Option<Rejected> {
        let rejected = self.rejects.as_ref()?.borrow();
        if rejected.count == self.reported_rejects {
            return None;
        }
        self.reported_rejects = rejected.count;
        Some(rejected.clone())
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

/// Returns the time until the next heartbeat.
fn interval(heartbeat: Duration, jittered: bool) -> Duration {
    if jittered { heartbeat.mul_f64(1.0 - fastrand::f64() / 5.0) } else { heartbeat }
}

const UP: Status = Status { broker: BrokerState::Up, reason: None, since: None };

impl Beat {
    /// Returns the message; `place` is the client's position, if it is known.
    pub fn bytes(&self, dialect: Dialect, place: Option<&Cursor>) -> Bytes {
        let mut out = Vec::new();
        match self {
            Beat::Heartbeat(elapsed) if dialect == Dialect::Html => {
                let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
                Frames::control(&mut out, dialect, "heartbeat", place, &Heartbeat { elapsed_ms });
            }
            Beat::Heartbeat(_) => Frames::heartbeat(&mut out, dialect, place),
            Beat::Status(status) => Frames::control(&mut out, dialect, "status", place, status),
            Beat::Rejected(rejected) => Frames::control(&mut out, dialect, "rejected", place, rejected),
            Beat::Bye(reason) => Frames::control(&mut out, dialect, "bye", place, &Bye { reason }),
        }
        out.into()
    }

    /// Whether it is the last message of its stream.
    pub fn is_last(&self) -> bool {
        matches!(self, Beat::Bye(_))
    }
}
