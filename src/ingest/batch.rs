//! The events of one request on their way: who waits is woken once, when the last of them is settled.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use tokio::sync::Notify;

use super::ids::{Ids, Key};
use super::{Failure, Metrics, Written};
use crate::event::time::now_ms;
use crate::kafka::{Completion, Delivered, ProduceError};

pub struct Batch {
    /// Ids and times, and what became of the events, by index; an event that is never produced stays without.
    events: Vec<(Key, i64)>,
    outcomes: Box<[OnceLock<Result<Written, Failure>>]>,
    /// Events that were produced and not settled, and one more until all are produced.
    open: AtomicUsize,
    /// Whether Kafka was asked at all: a replay or a refusal takes no time of its.
    reported: AtomicBool,
    settled: Notify,
    memory: Arc<Ids>,
    metrics: Metrics,
    begun: Instant,
    /// The same on the clock that Kafka's timestamps have, in milliseconds since 1970.
    begun_ms: i64,
}

impl Batch {
    pub fn new(events: Vec<(Key, i64)>, memory: Arc<Ids>, metrics: Metrics) -> Self {
        let outcomes = events.iter().map(|_| OnceLock::new()).collect();
        let (open, reported, settled) = (AtomicUsize::new(1), AtomicBool::new(false), Notify::new());
        Batch { events, outcomes, open, reported, settled, memory, metrics, begun: Instant::now(), begun_ms: now_ms() }
    }

    /// One more event is about to be produced.
    pub fn begin(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    pub fn begun(&self) -> Instant {
        self.begun
    }

    pub fn key(&self, index: usize) -> Key {
        self.events[index].0
    }

    /// An event is settled, or (once) all events are produced.
    pub fn end(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            if self.reported.load(Ordering::Relaxed) {
                self.metrics.produce_seconds.observe(self.begun.elapsed().as_secs_f64());
            }
            self.settled.notify_waiters();
        }
    }

    pub fn fail(&self, index: usize, failure: Failure) {
        let _ = self.outcomes[index].set(Err(failure)); // the first outcome counts
    }

    pub fn outcome(&self, index: usize) -> Option<Result<Written, Failure>> {
        self.outcomes[index].get().cloned()
    }

    /// Waits until all that was produced is settled.
    pub async fn wait(&self) {
        let settled = self.settled.notified();
        tokio::pin!(settled);
        settled.as_mut().enable();
        if self.open.load(Ordering::Acquire) > 0 {
            settled.await;
        }
    }
}

impl Completion for Batch {
    fn complete(&self, index: usize, outcome: Result<Delivered, ProduceError>) {
        let (key, time_ms) = self.events[index];
        let outcome = match outcome {
            Ok(Delivered { partition, offset }) => {
                let written = Written { partition, offset, time_ms };
                self.memory.settle(key, written);
                Ok(written)
            }
            Err(error) => {
                match error {
                    ProduceError::Placeless => self.memory.misplace(key, self.begun_ms),
                    ProduceError::Unknown(_) => self.memory.doubt(key, self.begun_ms),
                    _ => self.memory.release(key),
                }
                Err(error.into())
            }
        };
        let _ = self.outcomes[index].set(outcome); // the first outcome counts
        self.reported.store(true, Ordering::Relaxed);
        self.end();
    }
}
