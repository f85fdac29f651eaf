//! The progress and speed of a search, for pages.

use std::time::Instant;

use serde::Serialize;
use utoipa::ToSchema;

use crate::event::time::format_ms;
use crate::feed::{Cursor, Dialect, Frames};
use crate::kafka::{HistoryRange, SearchEnd};
use crate::search::{Counts, Progress};

/// The progress of a search as the events of a page.
pub struct SearchProgress {
    range: HistoryRange,
    started_at: Instant,
}

/// `event: progress` and, at the end, `event: done`. How far a search or a count is.
#[derive(Serialize, ToSchema)]
pub struct ProgressMessage {
    /// Of a count: the sums so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    counts: Option<Counts>,
    /// Records that were found.
    found: u64,
    /// The place at which the search continues; null if it looked at everything.
    #[schema(required)]
    next: Option<Cursor>,
    /// Records a second.
    rate: u64,
    /// The time up to which everything was looked at. Left out at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    reached: Option<String>,
    /// Records that were looked at.
    scanned: u64,
    /// Of a search: the times of the records that were found since the last report, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    times: Vec<i64>,
    /// Offsets in range.
    total: u64,
}

/// `event: failed`. Why a search or a count ended early.
#[derive(Serialize, ToSchema)]
pub struct FailureMessage<'a> {
    /// Of a count: the sums so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    counts: Option<Counts>,
    detail: &'a str,
    /// Records that were found.
    found: u64,
}

impl SearchProgress {
    pub fn new(range: &HistoryRange) -> Self {
        SearchProgress { range: range.clone(), started_at: Instant::now() }
    }

    /// Appends the event of the page; `found` records were found so far, those since the last report at `times`, and a
    /// count has its sums.
    pub fn write(
        &self,
        out: &mut Vec<u8>,
        found: u64,
        times: Vec<i64>,
        counts: Option<Counts>,
        progress: Progress<'_>,
    ) {
        let (name, scanned, total, next, reached) = match progress {
            Progress::Searching { scanned, left, next, reached_ms } => {
                ("progress", scanned, scanned + left, Some(next), reached_ms.map(format_ms))
            }
            Progress::Done(SearchEnd { scanned, next }) => {
                let left = next.as_deref().map_or(0, |next| self.range.left(next));
                ("done", *scanned, scanned + left, next.as_deref(), None)
            }
            Progress::Failed(detail) => {
                let message = FailureMessage { counts, detail, found };
                return Frames::control(out, Dialect::Html, "failed", None, &message);
            }
        };
        let rate = (scanned as f64 / self.started_at.elapsed().as_secs_f64().max(0.001)) as u64;
        let next = next.map(Cursor::new);
        let message = ProgressMessage { counts, found, next, rate, reached, scanned, times, total };
        Frames::control(out, Dialect::Html, name, None, &message);
    }
}
