//! The outcome of an event, and the metrics that count it.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::event::tracker::Loss;
use crate::event::{EventId, FieldError};
use crate::kafka::ProduceError;

/// The outcome of one submitted event.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// The event is in Kafka: all in-sync replicas have acknowledged it. If `replayed`, an earlier attempt wrote it, and
    /// this is the answer to a retry.
    Written { id: EventId, at: Written, replayed: bool },
    /// The event is in the queue to Kafka, and the client does not wait for the acknowledgement. `time_ms` is the event's
    /// time in milliseconds since 1970.
    Queued { id: EventId, time_ms: i64 },
    /// The event is invalid; it was not sent to Kafka.
    Invalid(Vec<FieldError>),
    /// The event is valid, but is not, or not certainly, in Kafka.
    Failed { id: EventId, failure: Failure },
}

/// The position of an event in Kafka, and the event's time in milliseconds since 1970.
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
    /// Not written; a later attempt may succeed.
    #[error("{0}")]
    Unavailable(String),
    /// Possibly written: only a retry with the same id is safe.
    #[error("Kafka did not acknowledge the event in time; it may or may not be written")]
    Unknown,
    /// Kafka will never accept the event.
    #[error("{0}")]
    Refused(String),
    /// Not written, because another event of a request with [`Handling::Strict`](super::Handling::Strict) was refused.
    #[error("not written, because another event of the request was refused")]
    Withheld,
}

impl From<ProduceError> for Failure {
    fn from(error: ProduceError) -> Self {
        match error {
            ProduceError::OffsetUnknown | ProduceError::Unknown(_) => Failure::Unknown,
            ProduceError::Refused(_) => Failure::Refused(error.to_string()),
            ProduceError::QueueFull | ProduceError::NotWritten(_) | ProduceError::Unavailable(_) => {
                Failure::Unavailable(error.to_string())
            }
        }
    }
}

impl Verdict {
    /// The value of the label `outcome`.
    fn outcome(&self) -> &'static str {
        match self {
            Verdict::Written { replayed: true, .. } => "replayed",
            Verdict::Written { .. } => "acknowledged",
            Verdict::Queued { .. } => "queued",
            Verdict::Invalid(_) => "invalid",
            Verdict::Failed { failure: Failure::IdReused, .. } => "id_reused",
            Verdict::Failed { failure: Failure::Unavailable(_), .. } => "unavailable",
            Verdict::Failed { failure: Failure::Unknown, .. } => "unknown",
            Verdict::Failed { failure: Failure::Refused(_), .. } => "refused",
            Verdict::Failed { failure: Failure::Withheld, .. } => "withheld",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    pub outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    pub reason: &'static str,
}

/// The metrics of ingest.
#[derive(Debug, Clone)]
pub struct IngestMetrics {
    pub events: Family<OutcomeLabel, Counter>,
    /// Events that trackers discarded, as they report.
    pub discarded: Family<ReasonLabel, Counter>,
    pub produce_seconds: Histogram,
}

impl Default for IngestMetrics {
    fn default() -> Self {
        // 0.25 ms to 16 s
        let produce_seconds = Histogram::new(exponential_buckets(0.000_25, 2.0, 17));
        IngestMetrics { events: Family::default(), discarded: Family::default(), produce_seconds }
    }
}

impl IngestMetrics {
    /// Counts events by outcome.
    pub(super) fn count(&self, verdicts: &[Verdict]) {
        for same in verdicts.chunk_by(|a, b| a.outcome() == b.outcome()) {
            self.add(same[0].outcome(), same.len());
        }
    }

    /// Counts the events of a submission that the rate limit rejected, and its invalid ones.
    pub(super) fn count_rate_limited(&self, events: usize, invalid: usize) {
        self.add("rate_limited", events);
        self.add("invalid", invalid);
    }

    pub(super) fn count_losses(&self, losses: &[Loss]) {
        for loss in losses {
            self.discarded.get_or_create(&ReasonLabel { reason: loss.reason.name() }).inc_by(loss.quantity);
        }
    }

    fn add(&self, outcome: &'static str, events: usize) {
        if events > 0 {
            self.events.get_or_create(&OutcomeLabel { outcome }).inc_by(events as u64);
        }
    }
}
