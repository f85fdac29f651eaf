//! The losses that trackers report: events that they discarded, which therefore never arrive.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::bounds::LOSS_REPORTS;
use crate::event::EventId;

/// The latest reports of losses, so that a report that is sent again is not counted again.
#[derive(Debug, Default)]
pub struct LossReports {
    hasher: RandomState,
    seen: Mutex<Seen>,
}

/// Hashes of the reports' ids.
#[derive(Debug, Default)]
struct Seen {
    ids: HashSet<u64>,
    /// The oldest first.
    order: VecDeque<u64>,
}

impl LossReports {
    /// Whether the report was recorded.
    pub fn contains(&self, id: &EventId) -> bool {
        self.lock().ids.contains(&self.hasher.hash_one(id))
    }

    /// Records a report. Returns whether it is new.
    pub fn record(&self, id: &EventId) -> bool {
        let id = self.hasher.hash_one(id);
        let mut seen = self.lock();
        if !seen.ids.insert(id) {
            return false;
        }
        seen.order.push_back(id);
        if seen.order.len() > LOSS_REPORTS
            && let Some(oldest) = seen.order.pop_front()
        {
            seen.ids.remove(&oldest);
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_reports_are_remembered() {
        let (reports, id) = (LossReports::default(), |n: usize| EventId::parse(&format!("report-{n}")).expect("an id"));
        assert!((0..LOSS_REPORTS).all(|n| !reports.contains(&id(n)) && reports.record(&id(n))));
        assert!((0..LOSS_REPORTS).all(|n| reports.contains(&id(n)) && !reports.record(&id(n))));
        assert!(reports.record(&id(LOSS_REPORTS)));
        assert!(!reports.contains(&id(0)), "it was the oldest");
        assert!(reports.record(&id(0)));
        assert!(!reports.record(&id(2)));
        assert_eq!(reports.seen.lock().expect("a lock").ids.len(), LOSS_REPORTS);
    }
}
