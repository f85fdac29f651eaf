//! Accepting events: an event is answered with success only when Kafka has acknowledged it.
//!
//! [`submit`](Ingest::submit) is the only way in. `produce.rs` writes the events, `ids.rs` keeps an event from being
//! written twice, `recover.rs` looks in the topic for events that Kafka did not acknowledge. Every call ends within the
//! deadline, and at once while Kafka is unreachable. Knows nothing of HTTP.

mod batch;
mod ids;
mod losses;
mod produce;
mod recover;
mod submit;
mod undecided;
mod verdict;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{Semaphore, watch};

use ids::Ids;
use losses::LossReports;
pub use submit::{Ack, Events, Handling, Shape, Submission, SubmitError, Verdicts};
pub use undecided::UndecidedIds;
pub use verdict::{Failure, IngestMetrics, Verdict, Written};

use crate::bounds::{Address, Shares, part_of_one_address, part_of_unawaited};
use crate::config::IngestSettings;
use crate::event::Record;
use crate::event::cloudevents::{CONTENT_TYPE, ID, SOURCE, SPECVERSION, TIME, TYPE};
use crate::event::tracker::LossReport;
use crate::kafka::{Cause, ClusterState, History, Producer, TopicId, TopicState, Trouble};
use crate::limits::{HeavyWork, RateLimit};

/// Most searches of the topic for doubtful events at a time; each uses a thread and a Kafka consumer.
const LOOK_UPS: usize = 4;
const KIB: usize = 1024;

/// Accepts events. There is one per process; `web` and `demo` submit events to it, and the tail passes it the ids of
/// records.
pub struct Ingest {
    producer: Arc<Producer>,
    kafka: watch::Receiver<ClusterState>,
    history: Arc<History>,
    ids: Arc<Ids>,
    look_ups: Arc<Semaphore>,
    /// A permit for each request that may be in flight.
    admission: Shares,
    /// Permits for events that no client waits for, until they are settled: one for each event, and one for each KiB of
    /// it.
    unawaited: [Shares; 2],
    rate_limit: RateLimit,
    loss_reports: LossReports,
    /// Parses large bodies.
    heavy: HeavyWork,
    settings: IngestSettings,
    /// The topic whose records, as of the start, the tail has read. Until then the ids written by an earlier process or
    /// another replica are unknown, and an open stream would miss new events.
    reading: RwLock<Option<TopicId>>,
    /// Whether the ids after the start of another writer's open transaction, as of the start, are known too.
    read_behind: AtomicBool,
    /// Whether the process ends soon. Events are still accepted.
    ending: AtomicBool,
    closing: AtomicBool,
    metrics: IngestMetrics,
}

impl Ingest {
    pub fn new(
        producer: Arc<Producer>,
        kafka: watch::Receiver<ClusterState>,
        history: Arc<History>,
        settings: IngestSettings,
        heavy: HeavyWork,
    ) -> Self {
        let ids = Arc::new(Ids::new(&settings.source, settings.ids, settings.ids_for));
        let look_ups = Arc::new(Semaphore::new(LOOK_UPS));
        let shares = |all: usize, least: usize| {
            let all = all.clamp(least, Semaphore::MAX_PERMITS);
            Shares::new(all, part_of_one_address(all).max(least))
        };
        let admission = shares(settings.concurrency, 1);
        let (messages, bytes) = producer.room();
        let unawaited = [
            shares(part_of_unawaited(messages), settings.max_batch), // the events of one request always fit
            shares(part_of_unawaited(bytes) / KIB, 1),
        ];
        let rate_limit = RateLimit::new(settings.rate_limit, settings.max_batch);
        let [read_behind, ending, closing] = [false; 3].map(AtomicBool::new);
        Ingest {
            producer,
            kafka,
            history,
            ids,
            look_ups,
            admission,
            unawaited,
            rate_limit,
            loss_reports: LossReports::default(),
            heavy,
            settings,
            reading: RwLock::default(),
            read_behind,
            ending,
            closing,
            metrics: IngestMetrics::default(),
        }
    }

    pub fn settings(&self) -> &IngestSettings {
        &self.settings
    }

    pub fn metrics(&self) -> &IngestMetrics {
        &self.metrics
    }

    /// Counts events that a tracker discarded, once for each report. For the rate limit, a new report is one event of the
    /// client; one that is sent again is none, so that the retry of a full batch still fits into the limit.
    pub fn count_losses(&self, report: &LossReport, client: Address) -> Result<(), SubmitError> {
        if report.losses.is_empty() || self.loss_reports.contains(&report.id) {
            return Ok(());
        }
        self.rate_limit.check(client, 1).map_err(|retry_after_s| SubmitError::RateLimited { retry_after_s })?;
        if self.loss_reports.record(&report.id) {
            self.metrics.count_losses(&report.losses);
        }
        Ok(())
    }

    /// What currently keeps posts from being written or streams from getting records.
    pub fn troubles(&self) -> Vec<Trouble> {
        let mut troubles = Vec::new();
        if self.ending.load(Ordering::Relaxed) {
            troubles.push(Trouble::new(Cause::ShuttingDown, SHUTTING_DOWN));
        }
        match &*self.kafka.borrow() {
            ClusterState::Up(topic) => {
                if !self.knows_ids_of(topic) {
                    troubles.push(Trouble::new(Cause::NotReadYet, not_read_yet(topic)));
                }
                troubles.extend(topic.troubles.iter().cloned());
            }
            state => troubles.extend(state.trouble()),
        }
        troubles
    }

    /// Returns why a post would be rejected without an attempt; `None` if it would be attempted.
    pub fn unavailable(&self) -> Option<String> {
        self.refusals().0
    }

    /// Returns why all posts are rejected without an attempt, if they are; otherwise the topic, if some of its
    /// partitions cannot be written.
    fn refusals(&self) -> (Option<String>, Option<Arc<TopicState>>) {
        if self.closing.load(Ordering::Relaxed) {
            return (Some(SHUTTING_DOWN.into()), None);
        }
        match &*self.kafka.borrow() {
            ClusterState::Up(topic) => match topic.refusal_of_all() {
                Some(trouble) => (Some(trouble.detail.clone()), None),
                None if !self.knows_ids_of(topic) => (Some(not_read_yet(topic)), None),
                None => (None, Some(topic).filter(|topic| !topic.troubles.is_empty()).cloned()),
            },
            state => (state.trouble().map(|trouble| trouble.detail), None),
        }
    }

    /// Notes that the tail has read the records that this topic held at the start.
    pub fn open(&self, topic: TopicId) {
        *self.reading.write().unwrap_or_else(PoisonError::into_inner) = Some(topic);
    }

    /// Whether the ids in this topic are known. The tail may still be reading a deleted topic of the same name.
    fn knows_ids_of(&self, topic: &TopicState) -> bool {
        let reading = *self.reading.read().unwrap_or_else(PoisonError::into_inner);
        reading == Some(topic.id) && self.read_behind.load(Ordering::Relaxed)
    }

    /// Learns the id of a record in the topic, whoever wrote it.
    pub fn observe(&self, record: &Record) {
        self.ids.observe(record);
    }

    /// Drops the receipts of the old topic after the topic was recreated: a retry must not get them.
    pub fn topic_recreated(&self) {
        *self.reading.write().unwrap_or_else(PoisonError::into_inner) = None;
        // Without transactions nothing is read behind one.
        self.read_behind.store(!self.history.has_transactions(), Ordering::Relaxed);
        self.ids.topic_recreated();
    }

    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Reports from now on that the process ends, so that clients go to others.
    pub fn announce_end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// Rejects all further events.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }
}

const SHUTTING_DOWN: &str = "shutting down";

/// The first headers of every record that Footfall writes.
const HEADERS: [&str; 6] = [SPECVERSION, ID, SOURCE, TYPE, TIME, CONTENT_TYPE];

/// Whether a record has the headers of a record that Footfall wrote.
fn is_ours(record: &Record) -> bool {
    record.key().is_some() && HEADERS.into_iter().eq(record.headers().map(|(name, _)| name).take(HEADERS.len()))
}

/// Returns why the tail has not read the records of the start yet, if that is known.
fn not_read_yet(topic: &TopicState) -> String {
    let reason = topic.troubles.iter().find(|trouble| trouble.cause.stops_streams());
    reason.map_or_else(|| "the topic is not read yet".to_owned(), |trouble| trouble.detail.clone())
}
