//! How far and how fast a search gets, for the pages that follow one.

use std::time::Instant;

use serde_json::{Value, json};

use crate::event::time::format_ms;
use crate::feed::Cursor;
use crate::kafka::{End, HistoryRange};
use crate::search::Progress;

/// The progress of a search as the events of a page.
pub struct SearchProgress {
    range: HistoryRange,
    started_at: Instant,
}

impl SearchProgress {
    pub fn new(range: &HistoryRange) -> Self {
        SearchProgress { range: range.clone(), started_at: Instant::now() }
    }

    /// The name of the event and its data; `found` records were found so far.
    pub fn event(&self, found: u64, progress: Progress<'_>) -> (&'static str, Value) {
        let rate = |scanned: u64| (scanned as f64 / self.started_at.elapsed().as_secs_f64().max(0.001)) as u64;
        let place = |next: &[i64]| Cursor::new(next).to_string();
        match progress {
            Progress::Searching { scanned, left, next, reached_ms } => (
                "progress",
                json!({"scanned": scanned, "total": scanned + left, "found": found, "rate": rate(scanned),
                    "reached": reached_ms.map(format_ms), "next": place(next)}),
            ),
            Progress::Done(End { scanned, next }) => {
                let total = scanned + next.as_deref().map_or(0, |next| self.range.left(next));
                (
                    "done",
                    json!({"scanned": scanned, "total": total, "found": found, "rate": rate(*scanned),
                        "next": next.as_deref().map(place)}),
                )
            }
            Progress::Failed(why) => ("failed", json!({"detail": why, "found": found})),
        }
    }
}
