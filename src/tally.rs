//! What one user did: events and actions counted, the first and the last seen.
//!
//! Counts what it is shown, which is for `web` to choose. Memory is bounded whatever the names of the actions.

use std::collections::HashMap;

use serde::Serialize;

use crate::event::Record;
use crate::event::time::format_ms;

/// Different actions that are counted each on its own, the longest name of one, and how many are told.
const NAMES: usize = 10_000;
const LONGEST_NAME: usize = 800;
const TOLD: usize = 100;

#[derive(Default)]
pub struct Tally {
    events: u64,
    /// When the earliest and the latest happened, in milliseconds since 1970.
    first_ms: Option<i64>,
    last_ms: Option<i64>,
    actions: HashMap<String, u64>,
    other: u64,
}

/// The sums as they are told.
#[derive(Debug, Serialize, PartialEq)]
pub struct Counts {
    pub first_seen: Option<String>,
    pub last_seen: Option<String>,
    pub events: u64,
    /// The most frequent first.
    pub actions: Vec<Counted>,
    /// Events of all other actions, and those without any.
    pub other: u64,
}

#[derive(Debug, Serialize, PartialEq)]
pub struct Counted {
    pub action: String,
    pub events: u64,
}

impl Tally {
    pub fn observe(&mut self, record: &Record) {
        self.events += 1;
        if let Some(ms) = record.time_ms() {
            self.first_ms = Some(self.first_ms.map_or(ms, |first| first.min(ms)));
            self.last_ms = Some(self.last_ms.map_or(ms, |last| last.max(ms)));
        }
        let told = record.who_and_what();
        let action = told.action.filter(|action| action.len() <= LONGEST_NAME);
        match action {
            Some(action) if self.actions.contains_key(&*action) || self.actions.len() < NAMES => {
                *self.actions.entry(action.into_owned()).or_default() += 1;
            }
            _ => self.other += 1,
        }
    }

    pub fn events(&self) -> u64 {
        self.events
    }

    pub fn counts(&self) -> Counts {
        let mut actions: Vec<(&String, u64)> = self.actions.iter().map(|(action, events)| (action, *events)).collect();
        actions.sort_unstable_by(|(a, more), (b, less)| less.cmp(more).then_with(|| a.cmp(b)));
        let rest: u64 = actions.iter().skip(TOLD).map(|(_, events)| events).sum();
        let told = actions.into_iter().take(TOLD);
        Counts {
            first_seen: self.first_ms.map(format_ms),
            last_seen: self.last_ms.map(format_ms),
            events: self.events,
            actions: told.map(|(action, events)| Counted { action: action.clone(), events }).collect(),
            other: self.other + rest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observe(tally: &mut Tally, ms: i64, action: &str) {
        let value = format!(r#"{{"user":"Ann","action":"{action}"}}"#);
        tally.observe(&Record::new(0, 0, Some(ms), None, Some(value.as_bytes()), std::iter::empty()));
    }

    #[test]
    fn the_most_frequent_comes_first_and_times_may_run_backwards() {
        let mut tally = Tally::default();
        for (ms, action) in [(2000, "b"), (3000, "c"), (1000, "c"), (2500, "a")] {
            observe(&mut tally, ms, action);
        }
        let counts = tally.counts();
        let told: Vec<(&str, u64)> = counts.actions.iter().map(|one| (one.action.as_str(), one.events)).collect();
        assert_eq!(told, [("c", 2), ("a", 1), ("b", 1)]);
        assert_eq!((counts.events, counts.other), (4, 0));
        assert_eq!(counts.first_seen.as_deref(), Some("1970-01-01T00:00:01.000Z"));
        assert_eq!(counts.last_seen.as_deref(), Some("1970-01-01T00:00:03.000Z"));
    }

    #[test]
    fn memory_is_bounded_and_the_sum_is_right_all_the_same() {
        let mut tally = Tally::default();
        for n in 0..NAMES + 500 {
            observe(&mut tally, 0, &format!("action {n}"));
        }
        observe(&mut tally, 0, "action 7");
        observe(&mut tally, 0, &"x".repeat(LONGEST_NAME + 1));
        tally.observe(&Record::new(0, 0, None, None, Some(br#"{"user":"Ann"}"#), std::iter::empty()));
        let counts = tally.counts();
        assert_eq!(counts.actions.len(), TOLD);
        assert_eq!((counts.actions[0].action.as_str(), counts.actions[0].events), ("action 7", 2));
        assert_eq!(counts.events, counts.other + counts.actions.iter().map(|one| one.events).sum::<u64>());
        assert!(tally.actions.len() <= NAMES);
    }
}
