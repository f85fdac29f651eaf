//! Counts one user's events: by action, with the first and the last time. Memory is bounded whatever the names of the
//! actions.

use std::collections::HashMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::Searches;
use crate::bounds::{ACTION_BYTES, ACTIONS};
use crate::event::Record;
use crate::event::time::format_ms;
use crate::kafka::HistoryError;

/// Most actions that [`Counts`] lists; the most frequent ones.
const LISTED: usize = 100;

/// The partitions in which a user's events are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The partition of the user's key. Footfall and other programs with Kafka's default partitioner write there.
    Own(i32),
    /// All partitions of the topic, and their number.
    All(usize),
}

impl Scope {
    /// Returns the partition, if it is only one.
    pub fn partition(self) -> Option<i32> {
        match self {
            Scope::Own(partition) => Some(partition),
            Scope::All(_) => None,
        }
    }
}

impl Searches {
    /// The partition of a user's key.
    pub fn partition_of(&self, user: &str) -> Result<i32, HistoryError> {
        self.reads.history().partition_of(user.as_bytes())
    }

    /// Partitions of the topic.
    pub fn partitions(&self) -> Result<usize, HistoryError> {
        self.reads.history().partitions()
    }
}

/// Counts the events of one user.
#[derive(Default)]
pub struct UserCounts {
    events: u64,
    /// The times of the earliest and the latest event, in milliseconds since 1970.
    first_ms: Option<i64>,
    last_ms: Option<i64>,
    actions: HashMap<String, u64>,
    other: u64,
}

/// What the events of a user add up to.
#[derive(Debug, Serialize, PartialEq, ToSchema)]
pub struct Counts {
    /// The earliest `time` of these events.
    #[schema(required, format = DateTime)]
    pub first_seen: Option<String>,
    /// The latest `time` of these events.
    #[schema(required, format = DateTime)]
    pub last_seen: Option<String>,
    pub events: u64,
    /// The most frequent first.
    #[schema(max_items = 100)]
    pub actions: Vec<ActionCount>,
    /// Events of all other actions, and those without an action.
    pub other: u64,
}

#[derive(Debug, Serialize, PartialEq, ToSchema)]
pub struct ActionCount {
    pub action: String,
    #[schema(minimum = 1)]
    pub events: u64,
}

impl UserCounts {
    pub fn observe(&mut self, record: &Record) {
        self.events += 1;
        if let Some(ms) = record.time_ms() {
            self.first_ms = Some(self.first_ms.map_or(ms, |first| first.min(ms)));
            self.last_ms = Some(self.last_ms.map_or(ms, |last| last.max(ms)));
        }
        let action = record.user_and_action().action.filter(|action| action.len() <= ACTION_BYTES);
        match action {
            Some(action) if self.actions.contains_key(&*action) || self.actions.len() < ACTIONS => {
                *self.actions.entry(action.into_owned()).or_default() += 1;
            }
            _ => self.other += 1,
        }
    }

    pub fn events(&self) -> u64 {
        self.events
    }

    pub fn sum(&self) -> Counts {
        let mut actions: Vec<(&String, u64)> = self.actions.iter().map(|(action, events)| (action, *events)).collect();
        actions.sort_unstable_by(|(a, more), (b, less)| less.cmp(more).then_with(|| a.cmp(b)));
        let rest: u64 = actions.iter().skip(LISTED).map(|(_, events)| events).sum();
        let listed = actions.into_iter().take(LISTED);
        Counts {
            first_seen: self.first_ms.map(format_ms),
            last_seen: self.last_ms.map(format_ms),
            events: self.events,
            actions: listed.map(|(action, events)| ActionCount { action: action.clone(), events }).collect(),
            other: self.other + rest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observe(counts: &mut UserCounts, ms: i64, action: &str) {
        let value = format!(r#"{{"user":"Ann","action":"{action}"}}"#);
        counts.observe(&Record::new(0, 0, Some(ms), None, Some(value.as_bytes()), std::iter::empty()));
    }

    #[test]
    fn the_most_frequent_comes_first_and_times_may_run_backwards() {
        let mut counts = UserCounts::default();
        for (ms, action) in [(2000, "b"), (3000, "c"), (1000, "c"), (2500, "a")] {
            observe(&mut counts, ms, action);
        }
        let counts = counts.sum();
        let actions: Vec<(&str, u64)> = counts.actions.iter().map(|one| (one.action.as_str(), one.events)).collect();
        assert_eq!(actions, [("c", 2), ("a", 1), ("b", 1)]);
        assert_eq!((counts.events, counts.other), (4, 0));
        assert_eq!(counts.first_seen.as_deref(), Some("1970-01-01T00:00:01.000Z"));
        assert_eq!(counts.last_seen.as_deref(), Some("1970-01-01T00:00:03.000Z"));
    }

    #[test]
    fn memory_is_bounded_and_the_sum_is_exact() {
        let mut counts = UserCounts::default();
        for n in 0..ACTIONS + 500 {
            observe(&mut counts, 0, &format!("action {n}"));
        }
        observe(&mut counts, 0, "action 7");
        observe(&mut counts, 0, &"x".repeat(ACTION_BYTES + 1));
        counts.observe(&Record::new(0, 0, None, None, Some(br#"{"user":"Ann"}"#), std::iter::empty()));
        let (kept, counts) = (counts.actions.len(), counts.sum());
        assert_eq!(counts.actions.len(), LISTED);
        assert_eq!((counts.actions[0].action.as_str(), counts.actions[0].events), ("action 7", 2));
        assert_eq!(counts.events, counts.other + counts.actions.iter().map(|one| one.events).sum::<u64>());
        assert!(kept <= ACTIONS);
    }
}
