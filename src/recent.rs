//! Counts of the last five minutes by action, for any filter: the strip of the live page.
//!
//! Without a filter the statistics have them. For a filter they are counted from memory: a counter reads all of it once,
//! and after that only the new blocks. Counters are kept for the filters that were asked for last.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::event::Record;
use crate::event::time::now_ms;
use crate::feed::{Feed, Filter};
use crate::stats::{RecentCounts, Stats};

/// Most filters with a counter.
const COUNTERS: usize = 64;
/// Most actions that a counter tells apart.
const NAMES: usize = 32;
/// Longer names are among the others.
const LONGEST_NAME: usize = 800;
/// For so long an answer is given again.
const EVERY: Duration = Duration::from_secs(1);

/// The counters, shared by all viewers.
pub struct Recents {
    feed: Feed,
    stats: Arc<Stats>,
    counters: Mutex<HashMap<String, Kept>>,
}

/// A counter, and when it was last asked for.
struct Kept {
    asked: Instant,
    counter: Arc<Mutex<Counter>>,
}

/// The counts of one filter.
#[derive(Default)]
struct Counter {
    latest: Option<(Instant, Arc<RecentCounts>)>,
    /// The incarnation of the topic that is counted, and the number of the next block; `None` before the first read.
    place: Option<(Option<u64>, u64)>,
    known_from_ms: i64,
    /// By the number of a step: the count of each of the names, after that of the others.
    steps: BTreeMap<i64, Vec<u64>>,
    names: Vec<Box<str>>,
}

impl Recents {
    /// Returns counters that read this memory, and these statistics without a filter.
    pub fn new(feed: Feed, stats: Arc<Stats>) -> Self {
        Recents { feed, stats, counters: Mutex::default() }
    }

    /// Returns the counts of a filter, at most a second old. Blocks: the first call for a filter looks through all of memory.
    pub fn counts(&self, filter: &Filter) -> Arc<RecentCounts> {
        let counter = self.counter(filter.key());
        let mut counter = lock(&counter);
        match &counter.latest {
            Some((at, counts)) if at.elapsed() < EVERY => counts.clone(),
            _ => {
                let counts = match filter.is_empty() {
                    true => self.stats.recent(),
                    false => counter.count(&self.feed, &self.stats, filter, now_ms()),
                };
                counter.latest.insert((Instant::now(), Arc::new(counts))).1.clone()
            }
        }
    }

    /// Returns the counter of a filter; drops the one that was asked for longest ago if there are too many.
    fn counter(&self, key: String) -> Arc<Mutex<Counter>> {
        let mut counters = lock(&self.counters);
        if counters.len() >= COUNTERS && !counters.contains_key(&key) {
            let oldest = counters.iter().min_by_key(|(_, kept)| kept.asked).map(|(key, _)| key.clone());
            oldest.map(|key| counters.remove(&key));
        }
        let kept = counters.entry(key).or_insert_with(|| Kept { asked: Instant::now(), counter: Arc::default() });
        kept.asked = Instant::now();
        kept.counter.clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Counter {
    /// Counts what is new in memory. Starts over if the topic was recreated, or if memory has evicted what is not counted.
    fn count(&mut self, feed: &Feed, stats: &Stats, filter: &Filter, now: i64) -> RecentCounts {
        let incarnation = feed.incarnation();
        self.steps = self.steps.split_off(&(RecentCounts::empty(now, now).from_ms / RecentCounts::STEP));
        if let Some((known, from)) = self.place.filter(|(known, _)| *known == incarnation) {
            let looked = feed.each_matching(filter, Some(from), |record| self.add(record, stats, now));
            self.place = looked.is_whole.then_some((known, looked.next));
        } else {
            self.place = None;
        }
        if self.place.is_none() {
            (self.steps, self.names) = Default::default();
            let looked = feed.each_matching(filter, None, |record| self.add(record, stats, now));
            self.place = Some((incarnation, looked.next));
            self.known_from_ms = looked.oldest.map_or(now, |oldest| stats.time_of(&oldest));
        }
        self.counts(now)
    }

    fn add(&mut self, record: &Record, stats: &Stats, now: i64) {
        let ms = stats.time_of(record).min(now);
        if ms < RecentCounts::empty(now, now).from_ms {
            return;
        }
        let name = record.user_and_action().action.filter(|name| name.len() <= LONGEST_NAME);
        let index = name.and_then(|name| self.index(&name));
        let counts = self.steps.entry(ms / RecentCounts::STEP).or_insert_with(|| vec![0; NAMES + 1]);
        counts[index.unwrap_or(NAMES)] += 1;
    }

    fn index(&mut self, name: &str) -> Option<usize> {
        if let Some(index) = self.names.iter().position(|known| **known == *name) {
            return Some(index);
        }
        if self.names.len() < NAMES {
            self.names.push(name.into());
            return Some(self.names.len() - 1);
        }
        // The place of a name that is in no step any more.
        let index = (0..NAMES).find(|index| self.steps.values().all(|counts| counts[*index] == 0))?;
        self.names[index] = name.into();
        Some(index)
    }

    fn counts(&self, now: i64) -> RecentCounts {
        let mut recent = RecentCounts::empty(now, self.known_from_ms);
        let first = recent.from_ms / RecentCounts::STEP;
        let columns = |of: &dyn Fn(&Vec<u64>) -> u64| -> Vec<u64> {
            (first..first + RecentCounts::COLUMNS).map(|number| self.steps.get(&number).map_or(0, of)).collect()
        };
        recent.columns = columns(&|counts| counts.iter().sum());
        let mut actions: Vec<(String, Vec<u64>)> = self
            .names
            .iter()
            .enumerate()
            .map(|(index, name)| (name.to_string(), columns(&|counts| counts[index])))
            .collect();
        actions.retain(|(_, columns)| columns.iter().any(|count| *count > 0));
        actions
            .sort_by(|(name, a), (other, b)| b.iter().sum::<u64>().cmp(&a.iter().sum()).then_with(|| name.cmp(other)));
        actions.truncate(RecentCounts::ACTIONS);
        recent.actions = actions;
        recent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::{Frames, Writer};

    fn record(offset: i64, ms: i64, action: &str) -> Record {
        let value = format!(r#"{{"user":"Ann","action":"{action}"}}"#);
        Record::new(0, offset, Some(ms), None, Some(value.as_bytes()), std::iter::empty())
    }

    fn parts(records: usize) -> (Recents, Writer) {
        let feed = Feed::new("topic", Frames::new(|_| String::new()), records, 1 << 20);
        let mut writer = feed.writer();
        writer.start(&[0], &[0]);
        (Recents::new(feed, Arc::new(Stats::new(false))), writer)
    }

    fn push(writer: &mut Writer, records: impl IntoIterator<Item = Record>) {
        records.into_iter().for_each(|record| writer.push(record));
        while writer.publish() != Duration::MAX {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn of_ann() -> Filter {
        Filter { users: vec!["Ann".into()], ..Filter::default() }
    }

    fn counted(recents: &Recents, now: i64) -> RecentCounts {
        let counter = recents.counter(of_ann().key());
        lock(&counter).count(&recents.feed, &recents.stats, &of_ann(), now)
    }

    #[test]
    fn a_counter_reads_only_what_is_new_and_starts_over_after_an_eviction() {
        let (recents, mut writer) = parts(100);
        let now = now_ms();
        push(&mut writer, (0..10).map(|n| record(n, now - 60_000, "login")));
        assert_eq!(counted(&recents, now).columns.iter().sum::<u64>(), 10);
        push(&mut writer, (10..15).map(|n| record(n, now - 30_000, "view")));
        let counts = counted(&recents, now);
        assert_eq!(counts.actions.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["login", "view"]);
        assert_eq!((counts.columns.iter().sum::<u64>(), counts.known_from_ms), (15, now - 60_000));
        // More than memory holds: what was evicted is not known, and not counted as none.
        push(&mut writer, (15..500).map(|n| record(n, now - 1000, "view")));
        let counts = counted(&recents, now);
        assert_eq!((counts.actions.len(), counts.known_from_ms), (1, now - 1000));
        // Five minutes later it has left the strip.
        assert_eq!(counted(&recents, now + 400_000).columns.iter().sum::<u64>(), 0);
    }

    #[test]
    fn counters_and_names_are_bounded() {
        let (recents, mut writer) = parts(1000);
        for n in 0..200 {
            recents.counts(&Filter { users: vec![format!("user-{n}")], ..Filter::default() });
        }
        assert_eq!(lock(&recents.counters).len(), COUNTERS);
        let now = now_ms();
        push(&mut writer, (0..400).map(|n| record(n, now - 1000, &format!("action-{n}"))));
        let counts = counted(&recents, now);
        assert_eq!((counts.columns.iter().sum::<u64>(), counts.actions.len()), (400, RecentCounts::ACTIONS));
        let counter = recents.counter(of_ann().key());
        assert_eq!(lock(&counter).names.len(), NAMES);
        // The names of before make room.
        push(&mut writer, (400..450).map(|n| record(n, now + 400_000, "later")));
        let counts = counted(&recents, now + 400_000);
        assert_eq!(counts.actions.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["later"]);
    }
}
