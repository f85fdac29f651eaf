//! Accepting events: dedupe, produce, receipt. An event is answered with success only when Kafka has acknowledged it.
//!
//! Every call ends within the deadline, and at once while Kafka is away. Knows nothing of HTTP: `web` turns a
//! [`Failure`] into a status.

mod batch;
mod ids;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};

use batch::Batch;
use ids::{Claim, Ids};

use crate::config::IngestSettings;
use crate::event::cloudevents::{CONTENT_TYPE, ID, SOURCE, SPECVERSION, TIME, TYPE};
use crate::event::{Event, EventId, Record};
use crate::kafka::{Completion, History, Message, ProduceError, Producer, State, TopicState, partition_of};

/// An event that is in Kafka.
#[derive(Debug, Clone)]
pub struct Receipt {
    pub id: EventId,
    pub written: Written,
    /// It was there before: this is the answer to a retry.
    pub replayed: bool,
}

/// Where an event stands in Kafka, and when it happened (milliseconds since 1970).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    pub partition: i32,
    pub offset: i64,
    pub time_ms: i64,
}

/// Why an event is not, or not certainly, in Kafka.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Failure {
    #[error("the id was used before, with another body")]
    IdReused,
    /// Not written; later it will work.
    #[error("{0}")]
    Unavailable(String),
    /// Perhaps written: only a retry with the same id is safe.
    #[error("Kafka did not acknowledge the event in time; it may or may not be written")]
    Unknown,
    /// Kafka will never take it.
    #[error("{0}")]
    Refused(String),
}

impl From<ProduceError> for Failure {
    fn from(error: ProduceError) -> Self {
        match error {
            ProduceError::Placeless | ProduceError::Unknown(_) => Failure::Unknown,
            ProduceError::Refused(_) => Failure::Refused(error.to_string()),
            ProduceError::QueueFull | ProduceError::NotWritten(_) => Failure::Unavailable(error.to_string()),
        }
    }
}

/// What became of an event that was submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types)]
pub enum Outcome {
    acknowledged,
    replayed,
    queued,
    invalid,
    id_reused,
    unavailable,
    unknown,
    refused,
    rate_limited,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    pub outcome: Outcome,
}

/// What ingest counts.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub events: Family<OutcomeLabel, Counter>,
    pub produce_seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        // 0.25 ms to 16 s
        let produce_seconds = Histogram::new(exponential_buckets(0.000_25, 2.0, 17));
        Metrics { events: Family::default(), produce_seconds }
    }
}

impl Metrics {
    pub fn count(&self, outcome: Outcome, events: usize) {
        if events > 0 {
            self.events.get_or_create(&OutcomeLabel { outcome }).inc_by(events as u64);
        }
    }
}

/// Events that the topic is asked for at a time; each takes a thread and a client of Kafka.
const LOOK_UPS: usize = 4;

pub struct Ingest {
    producer: Arc<Producer>,
    kafka: watch::Receiver<State>,
    history: Arc<History>,
    ids: Arc<Ids>,
    look_ups: Arc<Semaphore>,
    /// A permit for each request that may be under way.
    admission: Semaphore,
    settings: IngestSettings,
    /// Whether the tail has read what it found at its start: only then are the ids of a process before this one and of other
    /// replicas known, and a stream that is open sees what is sent.
    reading: AtomicBool,
    closing: AtomicBool,
    metrics: Metrics,
}

impl Ingest {
    pub fn new(
        producer: Arc<Producer>,
        kafka: watch::Receiver<State>,
        history: Arc<History>,
        settings: IngestSettings,
    ) -> Self {
        let ids = Arc::new(Ids::new(settings.ids, settings.ids_for));
        let look_ups = Arc::new(Semaphore::new(LOOK_UPS));
        let admission = Semaphore::new(settings.concurrency);
        let (reading, closing) = (AtomicBool::new(false), AtomicBool::new(false));
        Ingest {
            producer,
            kafka,
            history,
            ids,
            look_ups,
            admission,
            settings,
            reading,
            closing,
            metrics: Metrics::default(),
        }
    }

    pub fn settings(&self) -> &IngestSettings {
        &self.settings
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Why a post would be refused now; `None` if it would be tried.
    pub fn unavailable(&self) -> Option<String> {
        if self.closing.load(Ordering::Relaxed) {
            return Some("shutting down".into());
        }
        match &*self.kafka.borrow() {
            State::Up(_) if !self.reading.load(Ordering::Relaxed) => Some("the topic is not read yet".into()),
            State::Up(topic) if topic.refuses_all() => topic.refusal(0),
            State::Up(_) => None,
            State::Connecting { reason, .. } | State::Away { reason, .. } => Some(format!("Kafka is away: {reason}")),
        }
    }

    /// The topic, if some of its partitions take no writes.
    fn impaired(&self) -> Option<Arc<TopicState>> {
        self.kafka.borrow().topic().filter(|topic| topic.refuses_some()).cloned()
    }

    /// The tail has read what it found in the topic.
    pub fn open(&self) {
        self.reading.store(true, Ordering::Relaxed);
    }

    /// A record that stands in the topic, whoever wrote it: its id is known from now on.
    pub fn observe(&self, record: &Record) {
        self.ids.observe(record);
    }

    /// The topic is another one, which the tail begins to read: a place in the one before is no answer to a retry.
    pub fn start_anew(&self) {
        self.reading.store(false, Ordering::Relaxed);
        self.ids.start_anew();
    }

    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Takes no more events from now on.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Produces events and waits for Kafka's acknowledgements, each in its own right, in the order given.
    pub async fn accept(&self, events: Vec<Event>) -> Vec<Result<Receipt, Failure>> {
        let Ok(_permit) = self.admission.try_acquire() else { return self.turn_away(events.len()) };
        let deadline = self.deadline();
        self.resolve_doubts(&events, deadline).await;
        let produced = self.produce(&events);
        let mut results = Vec::with_capacity(events.len());
        for (event, produced) in events.into_iter().zip(produced) {
            let (written, replayed) = match produced {
                Produced::Waiting(batch, index, replayed) => {
                    // The first wait is for all of the batch, so that the others find it settled.
                    let waited = timeout_at(deadline, batch.wait()).await;
                    let unknown = || {
                        debug_assert!(waited.is_err());
                        Err(Failure::Unknown)
                    };
                    let mut outcome = batch.outcome(index).unwrap_or_else(unknown);
                    if waited.is_ok() && outcome == Err(Failure::Unknown) {
                        // There may be time to ask the topic. It may yet get what it does not have now, so only the
                        // retry frees the id.
                        let _ = timeout_at(deadline, self.look_up(&event)).await;
                        outcome = self.ids.written(self.ids.key(event.id.as_str())).ok_or(Failure::Unknown);
                    }
                    (outcome, replayed)
                }
                Produced::Known(written) => (Ok(written), true),
                Produced::Failed(failure) => (Err(failure), false),
            };
            results.push(written.map(|written| Receipt { id: event.id, written, replayed }));
        }
        self.count(&results, Outcome::of);
        results
    }

    /// More at once would only make all of them slower.
    fn turn_away<T>(&self, events: usize) -> Vec<Result<T, Failure>> {
        let failure = Failure::Unavailable("as many requests as are taken at once wait for Kafka".into());
        self.metrics.count(Outcome::of_failure(&failure), events);
        std::iter::repeat_with(|| Err(failure.clone())).take(events).collect()
    }

    fn count<T>(&self, results: &[T], outcome: impl Fn(&T) -> Outcome) {
        for same in results.chunk_by(|a, b| outcome(a) == outcome(b)) {
            self.metrics.count(outcome(&same[0]), same.len());
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.settings.deadline
    }

    /// After an answer 504 nobody knows whether the event is in the topic; before it is written again, the topic is asked.
    /// Whatever comes of it, the claim says what is known by then.
    async fn resolve_doubts(&self, events: &[Event], deadline: Instant) {
        for event in events.iter().filter(|event| event.id_was_given) {
            if let Ok(Some(since_ms)) = timeout_at(deadline, self.look_up(event)).await {
                self.ids.clear(self.ids.key(event.id.as_str()), since_ms);
            }
        }
    }

    /// Asks the topic for an event that is in doubt. If it is there its id is known from then on; if it is not, this is the
    /// time since when it was looked for.
    async fn look_up(&self, event: &Event) -> Option<i64> {
        let since_ms = self.ids.doubtful_since(self.ids.key(event.id.as_str()))?;
        // The thread goes on after the deadline, and its permit with it.
        let permit = self.look_ups.clone().acquire_owned().await.ok()?;
        let (history, id, user) = (self.history.clone(), event.id.clone(), event.user.clone());
        let find = move || {
            let _permit = permit;
            history.find(id.as_str(), user.as_bytes(), since_ms)
        };
        match tokio::task::spawn_blocking(find).await {
            Ok(Ok(Some(record))) => self.ids.observe(&record),
            Ok(Ok(None)) => return Some(since_ms),
            Ok(Err(_)) | Err(_) => {} // it stays in doubt
        }
        None
    }

    /// Produces events without waiting for Kafka's acknowledgements: those that are on their way come back.
    pub async fn enqueue(&self, events: Vec<Event>) -> Vec<Result<Event, Failure>> {
        let Ok(_permit) = self.admission.try_acquire() else { return self.turn_away(events.len()) };
        self.resolve_doubts(&events, self.deadline()).await;
        let produced = self.produce(&events);
        let results: Vec<_> = events
            .into_iter()
            .zip(produced)
            .map(|(event, produced)| match produced {
                Produced::Failed(failure) => Err(failure),
                _ => Ok(event),
            })
            .collect();
        self.count(&results, |result| match result {
            Ok(_) => Outcome::queued,
            Err(failure) => Outcome::of_failure(failure),
        });
        results
    }

    fn produce(&self, events: &[Event]) -> Vec<Produced> {
        let keys = events.iter().map(|event| (self.ids.key(event.id.as_str()), event.time_ms)).collect();
        let batch = Arc::new(Batch::new(keys, self.ids.clone(), self.metrics.clone()));
        let completion: Arc<dyn Completion> = batch.clone();
        let (unavailable, impaired) = (self.unavailable(), self.impaired());
        let refusal = |event: &Event| {
            let refused = |topic: &Arc<TopicState>| {
                topic.refusal(partition_of(event.user.as_bytes(), topic.partitions.len()) as usize)
            };
            unavailable.clone().or_else(|| impaired.as_ref().and_then(refused)).map(Failure::Unavailable)
        };
        // Users of whom an event is to be sent again: what stands behind it must not overtake it.
        let mut held: HashMap<&str, Failure> = HashMap::new();
        let mut new = Vec::with_capacity(events.len());
        let mut produced: Vec<Produced> = events
            .iter()
            .enumerate()
            .map(|(index, event)| match self.ids.claim(batch.key(index), event, &batch, index) {
                Claim::Known(written) => Produced::Known(written),
                Claim::Pending(batch, index) => Produced::Waiting(batch, index, true),
                Claim::Reused => Produced::Failed(Failure::IdReused),
                Claim::Doubtful => {
                    let reason = "an earlier attempt may have been written, and the topic cannot be asked now";
                    let failure = Failure::Unavailable(reason.into());
                    held.insert(&event.user, failure.clone());
                    Produced::Failed(failure)
                }
                Claim::New => match held.get(&*event.user).cloned().or_else(|| refusal(event)) {
                    Some(failure) => self.give_up(&batch, index, failure),
                    None => {
                        new.push((index, self.message(event)));
                        Produced::Waiting(batch.clone(), index, false)
                    }
                },
            })
            .collect();
        held.clear();
        let mut sending = self.producer.sending(new.len());
        for (index, message) in new {
            let user = &*events[index].user;
            if let Some(failure) = held.get(user) {
                produced[index] = self.give_up(&batch, index, failure.clone());
                continue;
            }
            batch.begin();
            if let Err(error) = sending.send(message, index, &completion) {
                batch.end();
                let failure = Failure::from(error);
                if matches!(failure, Failure::Unavailable(_)) {
                    held.insert(user, failure.clone());
                }
                produced[index] = self.give_up(&batch, index, failure);
            }
        }
        drop(sending);
        batch.end();
        produced
    }

    /// An event that was claimed and will not be written.
    fn give_up(&self, batch: &Batch, index: usize, failure: Failure) -> Produced {
        self.ids.release(batch.key(index));
        batch.fail(index, failure.clone());
        Produced::Failed(failure)
    }

    fn message<'a>(&self, event: &'a Event) -> Message<'a> {
        let own = [
            (SPECVERSION, "1.0"),
            (ID, event.id.as_str()),
            (SOURCE, event.source.as_deref().unwrap_or(&self.settings.source)),
            (TYPE, event.kind.as_deref().unwrap_or(&self.settings.event_type)),
            (TIME, &event.time),
            (CONTENT_TYPE, "application/json"),
        ];
        let more = event.extra_headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        Message::new(event.user.as_bytes(), &event.value, own.into_iter().chain(more))
    }
}

/// An event after the first half of its way.
enum Produced {
    /// In the batch that will know, by its index there; `true` if that is another request's.
    Waiting(Arc<Batch>, usize, bool),
    Known(Written),
    Failed(Failure),
}

impl Outcome {
    fn of(result: &Result<Receipt, Failure>) -> Self {
        match result {
            Ok(receipt) if receipt.replayed => Outcome::replayed,
            Ok(_) => Outcome::acknowledged,
            Err(failure) => Outcome::of_failure(failure),
        }
    }

    fn of_failure(failure: &Failure) -> Self {
        match failure {
            Failure::IdReused => Outcome::id_reused,
            Failure::Unavailable(_) => Outcome::unavailable,
            Failure::Unknown => Outcome::unknown,
            Failure::Refused(_) => Outcome::refused,
        }
    }
}
