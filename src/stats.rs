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

use crate::colours;
use crate::event::Record;
use crate::event::time::{format_ms, now_ms};
use crate::kafka::{History, HistoryError};

const MINUTE: i64 = 60_000;
const QUARTER: i64 = 15 * MINUTE;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// The exact counts are by steps of 5 seconds.
const STEP: i64 = 5_000;
/// Actions of the last 15 minutes are counted by steps of 15 seconds, each with at most so many names.
const FINE: i64 = 15_000;
const FINE_NAMES: usize = 64;
/// Minutes in memory: an hour, and the hour before.
const MINUTES: i64 = 120;
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
    /// All events, exactly.
    counts: Timeline,
    /// The actions of the last 15 minutes.
    fine: VecDeque<Step>,
    /// The last two hours by the minute.
    minutes: VecDeque<Period>,
    /// The last day, without the newest of the minutes: it is merged when it is over.
    quarters: VecDeque<Period>,
    /// The time of the oldest event, in milliseconds since 1970.
    first_ms: Option<i64>,
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

/// The actions of 15 seconds.
struct Step {
    number: i64,
    actions: FrequentItemsSketch<String>,
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

/// Exact counts of the last day, by steps of 5 seconds.
struct Timeline {
    /// By the step's number modulo the length: the number counted there, and its count.
    steps: Vec<(u32, u32)>,
}

impl Timeline {
    fn new() -> Self {
        // The oldest quarter of an hour as a whole, and the current one.
        Timeline { steps: vec![(0, 0); ((DAY + 2 * QUARTER) / STEP) as usize] }
    }

    fn count(&mut self, ms: i64) {
        let number = (ms / STEP) as u32; // enough until 2650
        let length = self.steps.len();
        let step = &mut self.steps[number as usize % length];
        if step.0 < number {
            *step = (number, 0);
        }
        if step.0 == number {
            step.1 = step.1.saturating_add(1);
        }
    }

    /// The counts of the steps from `from_ms` up to `to_ms`, which are starts of steps.
    fn steps(&self, from_ms: i64, to_ms: i64) -> impl Iterator<Item = u64> {
        (from_ms / STEP..to_ms / STEP).map(|number| {
            let (counted, count) = self.steps[number as usize % self.steps.len()];
            if i64::from(counted) == number { count.into() } else { 0 }
        })
    }

    fn sum(&self, from_ms: i64, to_ms: i64) -> u64 {
        self.steps(from_ms, to_ms).sum()
    }

    /// The counts of the last `length` steps of `step_ms` that are over.
    fn points(&self, now: i64, step_ms: i64, length: i64) -> Points {
        let first = now / step_ms - length;
        let count = |number: i64| self.sum(number * step_ms, (number + 1) * step_ms);
        let counts = (first..first + length).map(count).collect();
        Points { start: format_ms(first * step_ms), step_s: step_ms / 1000, counts }
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

/// The events of the last five minutes, by columns of 15 seconds.
#[derive(Debug, Clone)]
pub struct RecentCounts {
    pub now_ms: i64,
    /// Start and end; the end is in the future.
    pub from_ms: i64,
    pub to_ms: i64,
    /// Before that, nothing is known, or there was no event yet.
    pub known_from_ms: i64,
    /// All events.
    pub columns: Vec<u64>,
    /// Those of the most frequent actions, most frequent first. Together they may be a little higher than `columns`.
    pub actions: Vec<(String, Vec<u64>)>,
}

impl RecentCounts {
    /// The length of a column, in milliseconds.
    pub const STEP: i64 = FINE;
    /// The number of columns; the last one is not over.
    pub const COLUMNS: i64 = 20;
    /// Most actions that are counted one by one.
    pub const ACTIONS: usize = 5;

    /// Returns the last five minutes without events.
    pub fn empty(now_ms: i64, known_from_ms: i64) -> Self {
        let to_ms = (now_ms / Self::STEP + 1) * Self::STEP;
        let from_ms = to_ms - Self::COLUMNS * Self::STEP;
        let columns = vec![0; Self::COLUMNS as usize];
        RecentCounts { now_ms, from_ms, to_ms, known_from_ms, columns, actions: Vec::new() }
    }
}

/// A period up to now that the overview shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Window {
    Quarter,
    Hour,
    Day,
}

impl Window {
    pub const ALL: [Window; 3] = [Window::Quarter, Window::Hour, Window::Day];

    fn length_ms(self) -> i64 {
        match self {
            Window::Quarter => QUARTER,
            Window::Hour => HOUR,
            Window::Day => DAY,
        }
    }

    /// The length of a column of its chart.
    pub fn step_ms(self) -> i64 {
        match self {
            Window::Quarter => FINE,
            Window::Hour => MINUTE,
            Window::Day => QUARTER,
        }
    }

    /// The length of its parts for users, whose numbers are periods in memory.
    fn part_ms(self) -> i64 {
        match self {
            Window::Quarter | Window::Hour => MINUTE,
            Window::Day => QUARTER,
        }
    }

    /// Start and end in milliseconds since 1970. The last part is the current one, so it may not be over.
    fn range(self, now: i64) -> (i64, i64) {
        let end = (now / self.part_ms() + 1) * self.part_ms();
        (end - self.length_ms(), end)
    }
}

/// The statistics of a period up to now, compared with the period before. Only the parts of a period that are over are
/// compared, with the same parts of the period before.
#[derive(Debug, Clone)]
pub struct WindowStats {
    pub window: Window,
    pub now_ms: i64,
    /// Start and end; the end may be in the future.
    pub from_ms: i64,
    pub to_ms: i64,
    /// Before that, nothing is known, or there was no event yet.
    pub known_from_ms: i64,
    /// Whether the last day is still being read from Kafka.
    pub is_filling: bool,
    /// Events by columns of [`Window::step_ms`].
    pub columns: Vec<u64>,
    /// The same of the period before; `None` if not all of it is known.
    pub columns_before: Option<Vec<u64>>,
    pub events: Compared,
    /// Events per second in the last seconds, if that is known.
    pub rate: Option<f64>,
    /// The most events in 5 seconds, per second.
    pub peak: f64,
    pub users: DistinctUsers,
    pub users_compared: Compared,
    /// The number of actions, and whether more were seen than are counted one by one.
    pub actions: usize,
    pub more_actions: bool,
    /// How many of them are not in the period before.
    pub new_actions: Option<usize>,
    /// The most frequent first.
    pub top_actions: Vec<NameStats>,
    pub top_users: Vec<NameStats>,
    /// The action that was asked for.
    pub action: Option<NameStats>,
}

/// A count of a period, and those of its parts that are over, in this period and in the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compared {
    pub count: u64,
    complete: u64,
    before: Option<u64>,
}

impl Compared {
    /// Returns by how many hundredths the count rose or fell; `None` if the period before is not known or had none.
    pub fn percent(&self) -> Option<i64> {
        let before = self.before.filter(|before| *before > 0)?;
        Some(((self.complete as f64 / before as f64 - 1.0) * 100.0).round() as i64)
    }

    /// Whether the period before is known.
    pub fn is_compared(&self) -> bool {
        self.before.is_some()
    }

    /// Whether the period before is known to have had none.
    pub fn is_new(&self) -> bool {
        self.before == Some(0) && self.count > 0
    }
}

/// The counts of a name in a period.
#[derive(Debug, Clone)]
pub struct NameStats {
    pub name: String,
    pub events: Compared,
    /// How far the count may be too high.
    pub error: u64,
    /// By columns for actions, by parts for users.
    pub columns: Vec<u64>,
}

impl Stats {
    pub fn new(embedded: bool) -> Self {
        Stats { windows: Mutex::new(Windows::new()), embedded }
    }

    /// Counts a record, wherever in the last day it belongs.
    pub fn observe(&self, record: &Record) {
        let ms = self.time_of(record);
        let now = now_ms();
        if ms <= now - DAY || ms > now + AHEAD {
            return;
        }
        let ms = ms.min(now);
        let statistics = record.user_and_action();
        self.with(|windows| windows.count(ms, statistics.user.as_deref(), statistics.action.as_deref()));
    }

    /// Returns the time at which a record counts, in milliseconds since 1970.
    pub fn time_of(&self, record: &Record) -> i64 {
        let ms = if self.embedded { record.time_ms() } else { record.timestamp_ms() };
        ms.unwrap_or_else(now_ms)
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
        let starts = history.offsets_since_of(day_ago, &wanted)?;
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
        colours::choose_first([]);
    }

    pub fn snapshot(&self) -> StatsSnapshot {
        let now = now_ms();
        self.with(|windows| windows.snapshot(now))
    }

    /// Returns the events of the last five minutes.
    pub fn recent(&self) -> RecentCounts {
        let now = now_ms();
        self.with(|windows| windows.recent(now))
    }

    /// Returns the statistics of a period, and those of an action in it.
    pub fn window(&self, window: Window, action: Option<&str>) -> WindowStats {
        let now = now_ms();
        self.with(|windows| windows.window(window, action, now))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Windows) -> T) -> T {
        work(&mut self.windows.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Windows {
    fn new() -> Self {
        Windows {
            counts: Timeline::new(),
            fine: VecDeque::new(),
            minutes: VecDeque::new(),
            quarters: VecDeque::new(),
            first_ms: None,
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
        if self.reads == 0 {
            let day = period_stats(self.quarters.iter().chain(self.minutes.back()));
            colours::choose_first(day.top_actions.iter().map(|action| &*action.name));
        }
    }

    fn is_filling(&self) -> bool {
        !self.started || self.reads > 0 || self.unknown > 0
    }

    fn count(&mut self, ms: i64, user: Option<&str>, action: Option<&str>) {
        self.counts.count(ms);
        self.first_ms = Some(self.first_ms.map_or(ms, |first| first.min(ms)));
        self.count_step(ms, action);
        let minute = ms / MINUTE;
        if self.minutes.back().is_none_or(|newest| newest.number < minute) {
            if let Some(over) = self.minutes.back() {
                period(&mut self.quarters, over.number * MINUTE / QUARTER).merge(over);
            }
            self.minutes.push_back(Period::new(minute));
            while self.minutes.front().is_some_and(|oldest| oldest.number <= minute - MINUTES) {
                self.minutes.pop_front();
            }
            let oldest = ms / QUARTER - DAY / QUARTER;
            self.quarters.retain(|quarter| quarter.number >= oldest);
        }
        let newest = self.minutes.back().map_or(minute, |newest| newest.number);
        if minute > newest - MINUTES {
            period(&mut self.minutes, minute).count(user, action);
        }
        if minute < newest {
            period(&mut self.quarters, ms / QUARTER).count(user, action);
        }
    }

    fn count_step(&mut self, ms: i64, action: Option<&str>) {
        let Some(action) = action.filter(|action| action.len() <= LONGEST_NAME) else { return };
        let number = ms / FINE;
        let newest = self.fine.back().map_or(number, |newest| newest.number).max(number);
        // A minute more, because a period starts at the start of a minute.
        let oldest = newest - (QUARTER + MINUTE) / FINE;
        if number < oldest {
            return;
        }
        let place = self.fine.partition_point(|step| step.number < number);
        if self.fine.get(place).is_none_or(|step| step.number != number) {
            let actions = FrequentItemsSketch::new(FINE_NAMES).expect("a power of two");
            self.fine.insert(place, Step { number, actions });
        }
        self.fine[place].actions.update_ref(action);
        while self.fine.front().is_some_and(|step| step.number < oldest) {
            self.fine.pop_front();
        }
    }

    fn snapshot(&self, now: i64) -> StatsSnapshot {
        let minutes = |from: i64| self.minutes.iter().filter(move |period| period.number > now / MINUTE - from);
        let quarters = self.quarters.iter().filter(|period| period.number >= (now - DAY) / QUARTER);
        let newest = self.minutes.back().filter(|period| period.number * MINUTE > now - DAY);
        let fine = self.counts.points(now, STEP, QUARTER / STEP);
        let recent: u64 = fine.counts.iter().rev().take(2).sum();
        StatsSnapshot {
            now: format_ms(now),
            since: format_ms(self.since_ms.max(now - DAY)),
            filling: self.is_filling(),
            events_per_second: recent as f64 / 10.0,
            users_now: users(minutes(2)),
            quarter: period_stats(minutes(15)),
            day: period_stats(quarters.chain(newest)),
            fine,
            coarse: self.counts.points(now, 5 * MINUTE, DAY / (5 * MINUTE)),
        }
    }

    /// The periods from `from_ms` up to `to_ms`, of the length of the window's parts, oldest first.
    fn parts(&self, window: Window, from_ms: i64, to_ms: i64) -> impl Iterator<Item = &Period> {
        let length = window.part_ms();
        let (periods, newest) = match window {
            Window::Quarter | Window::Hour => (&self.minutes, None),
            Window::Day => (&self.quarters, self.minutes.back()),
        };
        let within = move |ms: i64| (from_ms..to_ms).contains(&ms);
        let newest = newest.filter(move |period| within(period.number * MINUTE));
        periods.iter().filter(move |period| within(period.number * length)).chain(newest)
    }

    /// Before that, nothing is known, or there was no event yet.
    fn known_from(&self, now: i64) -> i64 {
        self.first_ms.map_or(now, |first| first.max(self.since_ms.min(now)))
    }

    fn recent(&self, now: i64) -> RecentCounts {
        let known_from = if self.is_filling() { now } else { self.known_from(now) };
        let mut recent = RecentCounts::empty(now, known_from);
        let column = |ms: i64| self.counts.sum(ms, ms + FINE);
        recent.columns = (recent.from_ms..recent.to_ms).step_by(FINE as usize).map(column).collect();
        let index = |step: &Step| usize::try_from(step.number - recent.from_ms / FINE).ok();
        let steps = || self.fine.iter().filter_map(|step| Some((index(step)?, step)));
        let mut names = FrequentItemsSketch::new(NAMES).expect("a power of two");
        steps().for_each(|(_, step)| names.merge(&step.actions));
        for name in top(&names).into_iter().map(|row| row.name).take(RecentCounts::ACTIONS) {
            let mut columns = vec![0; recent.columns.len()];
            for (index, step) in steps() {
                if let Some(column) = columns.get_mut(index) {
                    *column = step.actions.estimate(&name);
                }
            }
            recent.actions.push((name, columns));
        }
        recent
    }

    fn window(&self, window: Window, action: Option<&str>, now: i64) -> WindowStats {
        let (from, to) = window.range(now);
        let length = window.length_ms();
        // Where the part starts that is not over.
        let over = to - window.part_ms();
        let known_from = self.known_from(now);
        let is_filling = self.is_filling();
        let is_known_before = window != Window::Day && !is_filling && known_from <= from - length;
        let before = |count: &dyn Fn() -> u64| is_known_before.then(count);
        let columns = |from: i64| -> Vec<u64> {
            let starts = (from..from + length).step_by(window.step_ms() as usize);
            starts.map(|start| self.counts.sum(start, start + window.step_ms())).collect()
        };
        let all = Sum::of(self.parts(window, from, to));
        let old = Sum::of(self.parts(window, from - length, to - length).take_while(|_| is_known_before));
        let now_columns = columns(from);
        let events = Compared {
            count: now_columns.iter().sum(),
            complete: self.counts.sum(from, over),
            before: before(&|| self.counts.sum(from - length, over - length)),
        };
        let complete_users = users(self.parts(window, from, over));
        let users_before = || users(self.parts(window, from - length, over - length)).estimate;
        let rate = self.rate(now);
        let peak = self.counts.steps(from, to).max().unwrap_or(0) as f64 / (STEP / 1000) as f64;
        let users = DistinctUsers::from(&all.distinct);
        let named = |row: NameCount, names: fn(&Period) -> &FrequentItemsSketch<String>, columns: Vec<u64>| {
            let sum =
                |from: i64, to: i64| self.parts(window, from, to).map(|part| names(part).estimate(&row.name)).sum();
            let current: u64 = sum(over, to);
            NameStats {
                events: Compared {
                    count: row.count,
                    complete: row.count.saturating_sub(current),
                    before: before(&|| sum(from - length, over - length)),
                },
                error: row.error,
                name: row.name,
                columns,
            }
        };
        let of_action = |row: NameCount| {
            let columns = self.action_columns(window, from, &row.name);
            named(row, |part| &part.top_actions, columns)
        };
        let of_user = |row: NameCount| {
            let columns = self.user_parts(window, from, to, &row.name);
            named(row, |part| &part.top_users, columns)
        };
        let (actions, more_actions) = all.actions();
        WindowStats {
            window,
            now_ms: now,
            from_ms: from,
            to_ms: to,
            known_from_ms: known_from,
            is_filling,
            columns: now_columns,
            columns_before: is_known_before.then(|| columns(from - length)),
            events,
            rate,
            peak: peak.max(rate.unwrap_or(0.0)),
            users_compared: Compared {
                count: users.estimate,
                complete: complete_users.estimate,
                before: before(&users_before),
            },
            users,
            actions,
            more_actions,
            new_actions: is_known_before.then(|| all.actions_not_in(&old)),
            top_actions: top(&all.actions).into_iter().map(of_action).collect(),
            top_users: top(&all.users).into_iter().map(of_user).collect(),
            action: action.map(|name| {
                let (high, low) = (all.actions.upper_bound(name), all.actions.lower_bound(name));
                // A name that is not in the sketch has only its error as the upper bound.
                let count = if low == 0 { 0 } else { high };
                of_action(NameCount { name: name.to_owned(), count, error: count - low })
            }),
        }
    }

    /// Events per second in the last ten seconds and more, or since the first event if that is later; `None` within the
    /// first second and while it is not known.
    fn rate(&self, now: i64) -> Option<f64> {
        if !self.started {
            return None;
        }
        let Some(first) = self.first_ms else { return Some(0.0) };
        let from = (now / STEP - 2) * STEP;
        let length = now - from.max(first);
        (length >= 1000).then(|| self.counts.sum(from, now + STEP) as f64 * 1000.0 / length as f64)
    }

    /// The events of an action by columns.
    fn action_columns(&self, window: Window, from: i64, action: &str) -> Vec<u64> {
        let mut columns = vec![0; (window.length_ms() / window.step_ms()) as usize];
        let mut add = |ms: i64, sketch: &FrequentItemsSketch<String>| {
            let index = (ms - from).div_euclid(window.step_ms());
            if let Some(column) = usize::try_from(index).ok().and_then(|index| columns.get_mut(index)) {
                *column += sketch.estimate(action);
            }
        };
        match window {
            Window::Quarter => self.fine.iter().for_each(|step| add(step.number * FINE, &step.actions)),
            Window::Hour => self.minutes.iter().for_each(|part| add(part.number * MINUTE, &part.top_actions)),
            Window::Day => {
                self.quarters.iter().for_each(|part| add(part.number * QUARTER, &part.top_actions));
                self.minutes.back().iter().for_each(|part| add(part.number * MINUTE, &part.top_actions));
            }
        }
        columns
    }

    /// The events of a user by parts.
    fn user_parts(&self, window: Window, from: i64, to: i64, user: &str) -> Vec<u64> {
        let starts = (from..to).step_by(window.part_ms() as usize);
        let sum = |start: i64| {
            let parts = self.parts(window, start, start + window.part_ms());
            parts.map(|part| part.top_users.estimate(user)).sum()
        };
        starts.map(sum).collect()
    }
}

/// The events of several periods.
struct Sum {
    distinct: HllUnion,
    users: FrequentItemsSketch<String>,
    actions: FrequentItemsSketch<String>,
}

impl Sum {
    fn of<'a>(periods: impl Iterator<Item = &'a Period>) -> Self {
        let names = || FrequentItemsSketch::new(NAMES).expect("a power of two");
        let distinct = HllUnion::new(LG_REGISTERS).expect("between 4 and 21");
        let mut sum = Sum { distinct, users: names(), actions: names() };
        for period in periods {
            sum.distinct.update(&period.users);
            sum.users.merge(&period.top_users);
            sum.actions.merge(&period.top_actions);
        }
        sum
    }

    /// The number of actions, and whether there were more.
    fn actions(&self) -> (usize, bool) {
        (self.actions.num_active_items(), self.actions.maximum_error() > 0)
    }

    fn actions_not_in(&self, old: &Sum) -> usize {
        let rows = self.actions.frequent_items(ErrorType::NoFalseNegatives);
        rows.iter().filter(|row| old.actions.estimate(row.item()) == 0).count()
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
    let mut events = 0;
    let sum = Sum::of(periods.inspect(|period| events += period.events));
    PeriodStats {
        events,
        users: DistinctUsers::from(&sum.distinct),
        top_actions: top(&sum.actions),
        top_users: top(&sum.users),
    }
}

/// The most frequent names.
fn top(names: &FrequentItemsSketch<String>) -> Vec<NameCount> {
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

    /// Windows that know the last day.
    fn read_windows(now: i64) -> Windows {
        let mut windows = Windows::new();
        windows.read_started(0);
        windows.read_ended(now - DAY);
        windows
    }

    #[test]
    fn a_period_is_compared_with_the_same_part_of_the_one_before() {
        let now = 1_795_435_200_000 + 40_000; // 40 s after a minute began
        let mut windows = read_windows(now);
        for minute in (0..31).rev() {
            // Ten events a minute in the period before, twelve in this one, of an action that is new.
            let (events, action) = if minute < 15 { (12, "new") } else { (10, "old") };
            for n in 0..events {
                count(&mut windows, now - minute * MINUTE - n, &format!("u{n}"), action);
            }
        }
        let stats = windows.window(Window::Quarter, Some("new"), now);
        assert_eq!((stats.events.count, stats.events.percent()), (180, Some(20)));
        assert_eq!(stats.columns.iter().sum::<u64>(), 180);
        assert_eq!((stats.columns.len(), stats.to_ms - stats.from_ms), (60, QUARTER));
        assert_eq!(stats.columns_before.as_ref().map(|before| before.iter().sum()), Some(150));
        assert_eq!((stats.users.estimate, stats.users_compared.percent()), (12, Some(20)));
        assert_eq!((stats.actions, stats.new_actions), (1, Some(1)));
        let action = stats.action.expect("it was asked for");
        assert_eq!((action.events.count, action.events.is_new()), (180, true));
        assert_eq!((&action.columns, stats.top_actions[0].events.count), (&stats.columns, 180));
        assert_eq!(stats.top_users[0].columns, [1; 15]);
        // The hour before is not known.
        let hour = windows.window(Window::Hour, None, now);
        assert_eq!((hour.events.count, hour.events.percent(), hour.new_actions), (340, None, None));
        assert!(hour.columns_before.is_none() && hour.known_from_ms > hour.from_ms);
    }

    #[test]
    fn the_column_that_is_not_over_counts() {
        let now = 1_795_435_200_000 + 100_000;
        let mut windows = read_windows(now);
        for n in 0..700 {
            count(&mut windows, now - 1 - n * 100, "u", "view");
        }
        for window in Window::ALL {
            let stats = windows.window(window, None, now);
            assert_eq!((stats.columns.iter().sum::<u64>(), stats.events.count), (700, 700), "{window:?}");
            assert_eq!(stats.top_actions[0].columns, stats.columns, "{window:?}");
            assert_eq!((stats.peak, stats.rate), (10.0, Some(10.0)), "{window:?}");
        }
    }

    #[test]
    fn the_rate_is_known_a_second_after_the_first_event() {
        let now = 1_795_435_200_000;
        let mut windows = Windows::new();
        assert_eq!(windows.rate(now), None, "the tail has not started");
        windows.read_started(0);
        windows.read_ended(now - DAY);
        assert_eq!(windows.rate(now), Some(0.0));
        for n in 0..60 {
            count(&mut windows, now + n * 50, "u", "view");
        }
        assert_eq!(windows.rate(now + 500), None);
        assert_eq!(windows.rate(now + 3000), Some(20.0));
        assert_eq!(windows.rate(now + MINUTE), Some(0.0));
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
