//! The in-flight events of one request; the waiting task is woken once, when the last event is settled.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::ids::{IdHash, Ids};
use super::{Failure, IngestMetrics, Written};
use crate::event::time::now_ms;
use crate::kafka::{Completion, Delivered, ProduceError};

pub struct Batch {
    /// Ids and times, and the outcomes, by index. An event that is never produced has no outcome.
    events: Vec<(IdHash, i64)>,
    outcomes: Box<[OnceLock<Result<Written, Failure>>]>,
    /// Events that were produced and are not settled, plus one until all are produced.
    open: AtomicUsize,
    /// Dropped when all events are settled.
    held: Mutex<Option<Box<dyn Send>>>,
    /// Whether any event reached Kafka: replays and rejections must not enter the produce-time histogram.
    reported: AtomicBool,
    settled: Notify,
    memory: Arc<Ids>,
    metrics: IngestMetrics,
    started_at: Instant,
    /// The same moment on the clock of Kafka's timestamps, in milliseconds since 1970.
    started_ms: i64,
}

impl Batch {
    pub fn new(events: Vec<(IdHash, i64)>, memory: Arc<Ids>, metrics: IngestMetrics) -> Self {
        let outcomes = events.iter().map(|_| OnceLock::new()).collect();
        let (open, reported, settled) = (AtomicUsize::new(1), AtomicBool::new(false), Notify::new());
        let (held, started_at, started_ms) = (Mutex::default(), Instant::now(), now_ms());
        Batch { events, outcomes, open, held, reported, settled, memory, metrics, started_at, started_ms }
    }

    /// Keeps a value until all events are settled. Call it before the last [`Batch::settle_one`].
    pub fn hold(&self, what: impl Send + 'static) {
        *self.held() = Some(Box::new(what));
    }

    fn held(&self) -> MutexGuard<'_, Option<Box<dyn Send>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more event that is about to be produced.
    pub fn add_pending(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    pub fn started_at(&self) -> Instant {
        self.started_at
    }

    pub fn key(&self, index: usize) -> IdHash {
        self.events[index].0
    }

    /// Counts off one settled event, or (once) the request itself after all its events are produced.
    pub fn settle_one(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            if self.reported.load(Ordering::Relaxed) {
                self.metrics.produce_seconds.observe(self.started_at.elapsed().as_secs_f64());
            }
            drop(self.held().take());
            self.settled.notify_waiters();
        }
    }

    pub fn fail(&self, index: usize, failure: Failure) {
        let _ = self.outcomes[index].set(Err(failure)); // the first outcome counts
    }

    pub fn outcome(&self, index: usize) -> Option<Result<Written, Failure>> {
        self.outcomes[index].get().cloned()
    }

    /// Waits until everything that was produced is settled.
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
                    ProduceError::OffsetUnknown => self.memory.mark_offset_unknown(key, self.started_ms),
                    ProduceError::Unknown(_) => self.memory.doubt(key, self.started_ms),
                    _ => self.memory.release(key),
                }
                Err(error.into())
            }
        };
        let _ = self.outcomes[index].set(outcome); // the first outcome counts
        self.reported.store(true, Ordering::Relaxed);
        self.settle_one();
    }
}
