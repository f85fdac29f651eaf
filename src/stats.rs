//! Statistics of the topic's events: their rate, the top actions and users, and the number of active users.
//!
//! Memory is bounded whatever the number of users: counts by time are exact, users are counted by a HyperLogLog sketch,
//! the top names by a frequent-items sketch (Apache DataSketches). The tail and a read of the last day at the start feed it.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use datasketches::common::NumStdDev;
use datasketches::frequencies::{ErrorType, FrequentItemsSketch};
use datasketches::hll::{HllSketch, HllType, HllUnion};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::event::Record;
use crate::event::time::{format_ms, now_ms};
use crate::kafka::{History, HistoryError};

const MINUTE: i64 = 60_000;
const QUARTER: i64 = 15 * MINUTE;
const DAY: i64 = 24 * 60 * MINUTE;
/// How far a clock may be ahead: such an event counts as of now. Events with later timestamps are not counted.
const AHEAD: i64 = MINUTE;
/// 2^12 registers: a standard error of 1.6 %.
const LG_REGISTERS: u8 = 12;
/// Most names of a sketch. Up to three quarters of it, counts are exact; beyond that, each name carries its error
/// bound.
const NAMES: usize = 256;
/// Most names in a list.
const TOP: usize = 10;
/// Most records of the last day that are read at the start: a few seconds of reading.
const COUNTED: i64 = 2_000_000;
/// Longer names are counted but not listed.
const LONGEST_NAME: usize = 800;

/// The events of the last day, by Kafka's timestamp.
pub struct Stats {
    windows: Mutex<Windows>,
    /// The embedded broker's timestamps are constant, so there the event's own time counts.
    embedded: bool,
}

struct Windows {
    /// The last 15 minutes, by the minute; an older minute is merged into its quarter of an hour.
    minutes: VecDeque<Period>,
    quarters: VecDeque<Period>,
    fine: Timeline,
    coarse: Timeline,
    /// Since when every event is counted, in milliseconds since 1970.
    since_ms: i64,
    /// Whether the tail has reported where it starts, or the topic was recreated, so that the tail reads all of it.
    started: bool,
    /// Reads of the last day that have not ended.
    reads: usize,
    /// Partitions without a leader, whose part of the last day is read later.
    unknown: usize,
    /// Whether any part of the last day was read.
    filled: bool,
}

/// The events of a minute, or of a quarter of an hour.
struct Period {
    /// Its number since 1970.
    number: i64,
    events: u64,
    users: HllSketch,
    top_users: FrequentItemsSketch<String>,
    top_actions: FrequentItemsSketch<String>,
}

impl Period {
    fn new(number: i64) -> Self {
        let names = || FrequentItemsSketch::new(NAMES).expect("a power of two");
        let users = HllSketch::new(LG_REGISTERS, HllType::Hll8).expect("between 4 and 21");
        Period { number, events: 0, users, top_users: names(), top_actions: names() }
    }

    fn count(&mut self, user: Option<&str>, action: Option<&str>) {
        self.events += 1;
        if let Some(user) = user {
            self.users.update(user);
        }
        for (name, top) in [(user, &mut self.top_users), (action, &mut self.top_actions)] {
            if let Some(name) = name.filter(|name| name.len() <= LONGEST_NAME) {
                top.update_ref(name);
            }
        }
    }

    fn merge(&mut self, other: &Period) {
        self.events += other.events;
        let mut union = HllUnion::new(LG_REGISTERS).expect("between 4 and 21");
        union.update(&self.users);
        union.update(&other.users);
        self.users = union.to_sketch(HllType::Hll8);
        self.top_users.merge(&other.top_users);
        self.top_actions.merge(&other.top_actions);
    }
}

/// Exact counts by steps of time.
struct Timeline {
    step_ms: i64,
    /// By the step's number modulo the length: the number counted there, and its count.
    steps: Vec<(i64, u64)>,
}

impl Timeline {
    fn new(step_ms: i64, span_ms: i64) -> Self {
        Timeline { step_ms, steps: vec![(0, 0); (span_ms / step_ms) as usize + 1] }
    }

    fn count(&mut self, ms: i64) {
        let number = ms / self.step_ms;
        let length = self.steps.len() as i64;
        let step = &mut self.steps[(number % length) as usize];
        if step.0 < number {
            *step = (number, 0);
        }
        if step.0 == number {
            step.1 += 1;
        }
    }

    fn points(&self, now: i64) -> Points {
        let length = self.steps.len() as i64;
        // The current step is incomplete.
        let first = now / self.step_ms - length + 1;
        let count = |number: i64| {
            let (counted, count) = self.steps[(number % length) as usize];
            if counted == number { count } else { 0 }
        };
        let counts = (first..first + length - 1).map(count).collect();
        Points { start: format_ms(first * self.step_ms), step_s: self.step_ms / 1000, counts }
    }
}

/// Events by steps of time.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Points {
    /// When the first step starts.
    #[schema(format = DateTime)]
    pub start: String,
    /// Seconds per step.
    pub step_s: i64,
    /// Events of each step that is over, oldest first.
    pub counts: Vec<u64>,
}

/// A name and its count.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Named)]
pub struct NameCount {
    pub name: String,
    /// An upper bound; the true count is at least this minus `error`.
    pub count: u64,
    pub error: u64,
}

/// A number of distinct users: the estimate, and bounds with 95 % confidence.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Users)]
pub struct DistinctUsers {
    pub estimate: u64,
    pub low: u64,
    pub high: u64,
}

impl From<&HllUnion> for DistinctUsers {
    fn from(union: &HllUnion) -> Self {
        DistinctUsers {
            estimate: union.estimate().round() as u64,
            low: union.lower_bound(NumStdDev::Two).round() as u64,
            high: union.upper_bound(NumStdDev::Two).round() as u64,
        }
    }
}

/// The events of a period up to now.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Stretch)]
pub struct PeriodStats {
    pub events: u64,
    pub users: DistinctUsers,
    pub top_actions: Vec<NameCount>,
    pub top_users: Vec<NameCount>,
}

/// All statistics at one moment.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Stats)]
pub struct StatsSnapshot {
    #[schema(format = DateTime)]
    pub now: String,
    /// Every event since then is counted; a day ago, unless the topic holds more than is read at the start.
    #[schema(format = DateTime)]
    pub since: String,
    /// Whether the last day is still being read from Kafka.
    pub filling: bool,
    /// Over the last ten whole seconds.
    pub events_per_second: f64,
    /// Distinct users of this minute and the previous one.
    pub users_now: DistinctUsers,
    #[serde(rename = "last_15m")]
    pub quarter: PeriodStats,
    #[serde(rename = "last_24h")]
    pub day: PeriodStats,
    #[serde(rename = "line_15m")]
    pub fine: Points,
    #[serde(rename = "line_24h")]
    pub coarse: Points,
}

impl Stats {
    pub fn new(embedded: bool) -> Self {
        Stats { windows: Mutex::new(Windows::new()), embedded }
    }

    /// Counts a record, wherever in the last day it belongs.
    pub fn observe(&self, record: &Record) {
        let ms = if self.embedded { record.time_ms() } else { record.timestamp_ms() };
        let now = now_ms();
        let ms = ms.unwrap_or(now);
        if ms <= now - DAY || ms > now + AHEAD {
            return;
        }
        let ms = ms.min(now);
        let statistics = record.user_and_action();
        self.with(|windows| windows.count(ms, statistics.user.as_deref(), statistics.action.as_deref()));
    }

    /// Announces one [`fill`](Self::fill) with these ends, perhaps on another thread, while others run.
    pub fn expect_fill(&self, ends: &[Option<i64>]) {
        self.with(|windows| windows.read_started(ends.iter().filter(|end| end.is_none()).count()));
    }

    /// Counts the last day's records before `ends`, at most the newest two million. A later call counts partitions
    /// without an end. Blocks until they are read or `stop` is cancelled.
    pub fn fill(&self, history: &History, ends: &[Option<i64>], stop: &CancellationToken) {
        let ends: Vec<i64> = ends.iter().map(|end| end.unwrap_or(0)).collect();
        let counted = self.read_day(history, &ends, stop);
        if stop.is_cancelled() {
            return;
        }
        let since_ms = counted.unwrap_or_else(|error| {
            tracing::warn!(error = %error, "the statistics of the last day are incomplete");
            now_ms()
        });
        self.with(|windows| {
            // After a cancellation these may be the windows of another topic.
            if !stop.is_cancelled() {
                windows.read_ended(since_ms);
            }
        });
    }

    /// Returns since when every event is counted.
    fn read_day(&self, history: &History, ends: &[i64], stop: &CancellationToken) -> Result<i64, HistoryError> {
        let day_ago = now_ms() - DAY;
        let wanted: Vec<i32> = (0..).zip(ends).filter(|(_, end)| **end > 0).map(|(partition, _)| partition).collect();
        if wanted.is_empty() {
            return Ok(day_ago);
        }
        let starts = match history.offsets_since_of(day_ago, &wanted) {
            // The embedded broker keeps little.
            Err(HistoryError::NoTimeIndex) => vec![0; ends.len()],
            found => found?,
        };
        let most = COUNTED / ends.len().max(1) as i64;
        let from: Vec<i64> = starts.iter().zip(ends).map(|(begin, end)| *begin.max(&(end - most))).collect();
        let (mut since_ms, now) = (day_ago, now_ms());
        let mut started = vec![false; ends.len()];
        history.read_until(stop, &from, ends, |record| {
            let partition = record.partition() as usize;
            // The read starts later than the day did.
            if !std::mem::replace(&mut started[partition], true) && from[partition] > starts[partition] {
                since_ms = since_ms.max(record.timestamp_ms().unwrap_or(day_ago).min(now));
            }
            self.observe(&record);
            ControlFlow::Continue(())
        })?;
        Ok(since_ms)
    }

    /// Drops everything after the topic was recreated.
    pub fn clear(&self) {
        self.with(|windows| *windows = Windows { started: true, ..Windows::new() });
    }

    pub fn snapshot(&self) -> StatsSnapshot {
        let now = now_ms();
        self.with(|windows| windows.snapshot(now))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Windows) -> T) -> T {
        work(&mut self.windows.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Windows {
    fn new() -> Self {
        Windows {
            minutes: VecDeque::new(),
            quarters: VecDeque::new(),
            fine: Timeline::new(5000, QUARTER),
            coarse: Timeline::new(5 * MINUTE, DAY),
            since_ms: now_ms(),
            started: false,
            reads: 0,
            unknown: 0,
            filled: false,
        }
    }

    /// Notes the start of a read of the last day, and how many partitions have no leader.
    fn read_started(&mut self, unknown: usize) {
        self.started = true;
        self.reads += 1;
        self.unknown = unknown;
    }

    /// Notes the end of a read: of its partitions every event since then is counted.
    fn read_ended(&mut self, since_ms: i64) {
        self.reads = self.reads.saturating_sub(1);
        self.since_ms = if self.filled { self.since_ms.max(since_ms) } else { since_ms };
        self.filled = true;
    }

    fn is_filling(&self) -> bool {
        !self.started || self.reads > 0 || self.unknown > 0
    }

    fn count(&mut self, ms: i64, user: Option<&str>, action: Option<&str>) {
        self.fine.count(ms);
        self.coarse.count(ms);
        let minute = ms / MINUTE;
        if self.minutes.back().is_none_or(|newest| newest.number < minute) {
            self.minutes.push_back(Period::new(minute));
            while self.minutes.front().is_some_and(|oldest| oldest.number <= minute - 16) {
                if let Some(old) = self.minutes.pop_front() {
                    period(&mut self.quarters, old.number * MINUTE / QUARTER).merge(&old);
                }
            }
            let oldest = ms / QUARTER - DAY / QUARTER;
            self.quarters.retain(|quarter| quarter.number >= oldest);
        }
        let oldest = self.minutes.back().map_or(minute, |newest| newest.number) - 15;
        match minute >= oldest {
            true => period(&mut self.minutes, minute).count(user, action),
            false => period(&mut self.quarters, ms / QUARTER).count(user, action),
        }
    }

    fn snapshot(&self, now: i64) -> StatsSnapshot {
        let minutes = |from: i64| self.minutes.iter().filter(move |period| period.number > now / MINUTE - from);
        let quarters = self.quarters.iter().filter(|period| period.number >= (now - DAY) / QUARTER);
        let fine = self.fine.points(now);
        let recent: u64 = fine.counts.iter().rev().take(2).sum();
        StatsSnapshot {
            now: format_ms(now),
            since: format_ms(self.since_ms.max(now - DAY)),
            filling: self.is_filling(),
            events_per_second: recent as f64 / 10.0,
            users_now: users(minutes(2)),
            quarter: period_stats(minutes(15)),
            day: period_stats(quarters.chain(self.minutes.iter().filter(|period| period.number * MINUTE > now - DAY))),
            fine,
            coarse: self.coarse.points(now),
        }
    }
}

/// Returns the period of a number; inserts it in order if it is missing.
fn period(periods: &mut VecDeque<Period>, number: i64) -> &mut Period {
    let place = periods.partition_point(|period| period.number < number);
    if periods.get(place).is_none_or(|period| period.number != number) {
        periods.insert(place, Period::new(number));
    }
    &mut periods[place]
}

fn users<'a>(periods: impl Iterator<Item = &'a Period>) -> DistinctUsers {
    let mut union = HllUnion::new(LG_REGISTERS).expect("between 4 and 21");
    periods.for_each(|period| union.update(&period.users));
    DistinctUsers::from(&union)
}

fn period_stats<'a>(periods: impl Iterator<Item = &'a Period>) -> PeriodStats {
    let mut sum = Period::new(0);
    let mut union = HllUnion::new(LG_REGISTERS).expect("between 4 and 21");
    for period in periods {
        sum.events += period.events;
        union.update(&period.users);
        sum.top_users.merge(&period.top_users);
        sum.top_actions.merge(&period.top_actions);
    }
    let top = |names: &FrequentItemsSketch<String>| {
        let mut rows: Vec<NameCount> = names
            .frequent_items(ErrorType::NoFalseNegatives)
            .iter()
            .map(|row| NameCount {
                name: row.item().clone(),
                count: row.upper_bound(),
                error: row.upper_bound() - row.lower_bound(),
            })
            .collect();
        rows.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.name.cmp(&b.name)));
        rows.truncate(TOP);
        rows
    };
    PeriodStats {
        events: sum.events,
        users: DistinctUsers::from(&union),
        top_actions: top(&sum.top_actions),
        top_users: top(&sum.top_users),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(windows: &mut Windows, ms: i64, user: &str, action: &str) {
        windows.count(ms, Some(user), Some(action));
    }

    #[test]
    fn events_are_counted_by_their_time_in_any_order() {
        let now = 1_795_435_200_000;
        let mut windows = Windows::new();
        for minutes_ago in [0, 1, 3, 200, 14, 700, 20, 1439, 2] {
            for n in 0..10 {
                count(&mut windows, now - minutes_ago * MINUTE, &format!("u{n}"), "view");
            }
        }
        let statistics = windows.snapshot(now);
        assert_eq!((statistics.quarter.events, statistics.day.events), (50, 90));
        assert_eq!(
            (statistics.users_now.estimate, statistics.quarter.users.estimate, statistics.day.users.estimate),
            (10, 10, 10)
        );
        assert_eq!((statistics.quarter.top_actions[0].count, statistics.day.top_actions[0].count), (50, 90));
        assert_eq!(statistics.day.top_users[0].count, 9);
        assert_eq!(statistics.coarse.counts.iter().sum::<u64>(), 80, "the current step is left out");
        // Old minutes are part of their quarters.
        count(&mut windows, now + 60 * MINUTE, "later", "view");
        let statistics = windows.snapshot(now + 60 * MINUTE);
        assert_eq!((statistics.quarter.events, statistics.day.events, statistics.day.users.estimate), (1, 81, 11));
    }

    #[test]
    fn the_last_day_is_filled_when_all_its_reads_have_ended() {
        // A long read while a partition has no leader, and a short one of that partition.
        for since in [[10, 20], [20, 10]] {
            let mut windows = Windows::new();
            assert!(windows.is_filling(), "the tail has not started");
            windows.read_started(1);
            windows.read_started(0);
            windows.read_ended(since[0]);
            assert!(windows.is_filling(), "one read is running");
            windows.read_ended(since[1]);
            assert_eq!((windows.is_filling(), windows.since_ms), (false, 20));
        }
        let mut windows = Windows::new();
        windows.read_started(1);
        windows.read_ended(10);
        assert!(windows.is_filling(), "a partition has no leader yet");
        windows.read_started(0);
        windows.read_ended(10);
        assert!(!windows.is_filling());
        let stats = Stats::new(false);
        stats.clear();
        assert!(!stats.snapshot().filling, "all of a new topic comes from the tail");
    }

    #[test]
    fn a_million_users_take_little_memory_and_are_estimated_within_the_bounds() {
        let now = 1_795_435_200_000;
        let mut windows = Windows::new();
        for n in 0..1_000_000 {
            let user = if n % 10 == 0 { "often".to_owned() } else { format!("user-{n}") };
            count(&mut windows, now - n % (10 * MINUTE), &user, "view");
        }
        let statistics = windows.snapshot(now);
        assert_eq!(statistics.quarter.events, 1_000_000);
        let users = &statistics.quarter.users;
        assert!((users.low..=users.high).contains(&900_001), "{users:?}");
        assert!(users.estimate.abs_diff(900_001) < 50_000, "{users:?}");
        let often = &statistics.quarter.top_users[0];
        assert_eq!(often.name, "often");
        assert!(often.count >= 100_000 && often.count - often.error <= 100_000, "{often:?}");
        let size: usize = windows
            .minutes
            .iter()
            .map(|period| period.users.estimated_size() + period.top_users.estimated_size())
            .sum();
        assert!(size < 1 << 20, "{size} bytes");
    }
}
