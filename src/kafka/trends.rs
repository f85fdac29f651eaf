//! What happened to the topic and its consumer groups in the last 15 minutes: rates, lags, changes of members, and the
//! state of a group by rule.
//!
//! Each snapshot and each background sample is added. Memory is bounded: at most [`SAMPLES`] samples of
//! [`SAMPLED_PARTITIONS`] partitions and of [`SAMPLED_GROUPS`] groups, and [`CHANGES`] changes of each group, together
//! under 2 MB. The module asks nobody; `snapshot` adds the samples and `/kafka` shows the results.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::admin::groups::{Group, GroupMember};
use crate::bounds::{CHANGES, SAMPLED_GROUPS, SAMPLED_PARTITIONS};

const SECOND: i64 = 1000;
/// How far the samples go back.
const MEMORY_MS: i64 = 15 * 60 * SECOND;
/// The least time between two samples that are kept. The newest one is always kept.
const SPACING_MS: i64 = 5 * SECOND;
/// Most samples in memory.
const SAMPLES: usize = (MEMORY_MS / SPACING_MS) as usize + 2;
/// How many points a line has.
pub const POINTS: usize = 30;
const POINT_MS: i64 = MEMORY_MS / POINTS as i64;
/// A group is up to date with a lag of at most this long.
const UP_TO_DATE_MS: i64 = 5 * SECOND;
/// Over how long a trend is judged, and after how long without a commit a group is stuck.
const TREND_MS: i64 = 30 * SECOND;
/// Samples of less time than this show no trend.
const TREND_AT_LEAST_MS: i64 = 15 * SECOND;
/// A lag that changes by less than this part of it over [`TREND_MS`] is steady.
const STEADY: f64 = 0.02;
/// Most characters of a client or a host in a change.
const NAME_CHARS: usize = 60;
/// Most members that one sample reports as joined or left.
const NAMED_MEMBERS: usize = 3;

/// What a consumer group is doing, by rule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Progress {
    /// The lag is at most 5 s.
    UpToDate,
    /// The lag has fallen for 30 s. At this rate the group is up to date in so many milliseconds.
    CatchingUp { ready_in_ms: i64 },
    /// The lag has risen for 30 s, by so many records per second.
    FallingBehind { per_second: f64 },
    /// There is a lag of more than 5 s, and no trend, or not enough samples for one.
    Behind,
    /// A member has a partition with a lag and has not committed for this many milliseconds, at least 30 s.
    Stuck { partition: i32, for_ms: i64 },
    /// Members have partitions, and the group has committed no offset. So many records are in them.
    NothingCommitted { up_to: i64 },
    /// The group has no members. So many records wait for it.
    NoMembers { lag: Option<i64> },
    /// The brokers do not report offsets from which the lag could be told.
    Unknown,
}

/// How long ago the next record that a group reads was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LagTime {
    Exactly(i64),
    /// The record is older than the samples, which cover so many milliseconds.
    Over(i64),
}

impl LagTime {
    fn ms(self) -> i64 {
        match self {
            LagTime::Exactly(ms) | LagTime::Over(ms) => ms,
        }
    }
}

/// A change of a group: a member joined or left, a rebalance began or ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupChange {
    /// When the sample was taken that shows it, in milliseconds since 1970.
    pub at_ms: i64,
    pub what: String,
}

/// What is remembered of a group.
#[derive(Debug, Clone)]
pub struct GroupTrend {
    pub progress: Progress,
    /// Of our topic: the sum of the lags whose partitions are known.
    pub lag: Option<i64>,
    /// The largest of its partitions.
    pub lag_time: Option<LagTime>,
    /// The lag over the last 15 minutes by 30 s, oldest first.
    pub lags: Vec<Option<u64>>,
    /// The newest first.
    pub changes: Vec<GroupChange>,
}

/// What is remembered of the topic and its groups.
#[derive(Debug, Clone, Default)]
pub struct TrendSnapshot {
    /// How far the samples go back, in milliseconds; 15 minutes at most.
    pub covered_ms: i64,
    /// By partition number: records per second over the last 15 minutes by 30 s, oldest first.
    pub rates: Vec<Vec<Option<f64>>>,
    pub groups: BTreeMap<String, GroupTrend>,
}

/// The samples.
#[derive(Default)]
pub(super) struct Trends {
    ends: VecDeque<Ends>,
    groups: HashMap<String, GroupSamples>,
}

/// The next offsets at one moment, by partition number.
struct Ends {
    at_ms: i64,
    ends: Vec<Option<i64>>,
}

#[derive(Default)]
struct GroupSamples {
    /// Time and lag.
    lags: VecDeque<(i64, Option<i64>)>,
    /// By partition with a lag: the committed offset, and since when it is that.
    still: BTreeMap<i32, (Option<i64>, i64)>,
    /// Id and words of each member, and its partitions.
    members: BTreeMap<String, (String, Vec<i32>)>,
    is_rebalancing: bool,
    changes: VecDeque<GroupChange>,
    seen_ms: i64,
}

impl Trends {
    /// Adds the partitions' next offsets, by partition number.
    pub fn add_ends(&mut self, at_ms: i64, ends: impl Iterator<Item = Option<i64>>) {
        let ends = Ends { at_ms, ends: ends.take(SAMPLED_PARTITIONS).collect() };
        push(&mut self.ends, ends, |ends| ends.at_ms);
    }

    /// Adds the groups that read the topic. Each call has all those groups that are known.
    pub fn add_groups<'a>(&mut self, at_ms: i64, topic: &str, groups: impl Iterator<Item = &'a Group>) {
        for group in groups.filter(|group| group.problem.is_none()) {
            let is_full = self.groups.len() >= SAMPLED_GROUPS;
            if is_full && !self.groups.contains_key(&group.group) && !self.evict(at_ms) {
                continue;
            }
            self.groups.entry(group.group.clone()).or_default().add(at_ms, topic, group);
        }
        self.groups.retain(|_, samples| at_ms - samples.seen_ms <= MEMORY_MS);
    }

    /// Removes the group that has not been seen for the longest time; returns false if all were seen a moment ago.
    fn evict(&mut self, now_ms: i64) -> bool {
        let oldest = self.groups.iter().min_by_key(|(_, samples)| samples.seen_ms);
        let oldest = oldest.filter(|(_, samples)| now_ms - samples.seen_ms > TREND_MS).map(|(name, _)| name.clone());
        oldest.is_some_and(|name| self.groups.remove(&name).is_some())
    }

    /// Returns what is known at a moment, which is not before the newest sample.
    pub fn snapshot<'a>(&self, now_ms: i64, topic: &str, groups: impl Iterator<Item = &'a Group>) -> TrendSnapshot {
        let partitions = self.ends.back().map_or(0, |newest| newest.ends.len());
        let trend = |group: &Group| Some((group.group.clone(), self.trend(now_ms, topic, group)?));
        TrendSnapshot {
            covered_ms: self.ends.front().map_or(0, |oldest| (now_ms - oldest.at_ms).min(MEMORY_MS)),
            rates: (0..partitions).map(|partition| self.rates(now_ms, partition)).collect(),
            groups: groups.filter_map(trend).collect(),
        }
    }

    fn trend(&self, now_ms: i64, topic: &str, group: &Group) -> Option<GroupTrend> {
        let samples = self.groups.get(&group.group)?;
        let ours = || group.partitions.iter().filter(|partition| partition.topic == topic);
        let lag = ours().filter_map(|partition| partition.lag).reduce(|sum, lag| sum + lag);
        let time = |partition: &super::GroupPartition| match partition.lag? {
            0 => Some(LagTime::Exactly(0)),
            _ => self.lag_time(now_ms, partition.partition, partition.committed?.max(partition.first?)),
        };
        let lag_time = ours().filter_map(time).max_by_key(|time| time.ms());
        let unread = || ours().filter_map(|partition| Some(partition.end? - partition.first?)).sum::<i64>();
        let progress = match (lag, lag_time) {
            _ if group.members.is_empty() => Progress::NoMembers { lag },
            (None, _) if ours().any(|partition| partition.committed.is_some()) => Progress::Unknown,
            (None, _) => Progress::NothingCommitted { up_to: unread() },
            (Some(lag), time) => samples.progress(now_ms, lag, time),
        };
        let changes = samples.changes.iter().rev().cloned().collect();
        Some(GroupTrend { progress, lag, lag_time, lags: samples.line(now_ms), changes })
    }

    /// Returns how long ago the record at an offset was written: between the last sample without it and the next one, in
    /// proportion to the offsets.
    fn lag_time(&self, now_ms: i64, partition: i32, offset: i64) -> Option<LagTime> {
        let index = usize::try_from(partition).ok()?;
        let mut after: Option<(i64, i64)> = None;
        for sample in self.ends.iter().rev() {
            let Some(end) = sample.ends.get(index).copied().flatten() else { continue };
            if end <= offset {
                let (at, written) = after?; // nothing was written after the offset
                let part = (offset - end) as f64 / (written - end).max(1) as f64;
                let written_at = sample.at_ms + ((at - sample.at_ms) as f64 * part) as i64;
                return Some(LagTime::Exactly((now_ms - written_at).max(0)));
            }
            after = Some((sample.at_ms, end));
        }
        after.map(|(at, _)| LagTime::Over(now_ms - at))
    }

    fn rates(&self, now_ms: i64, partition: usize) -> Vec<Option<f64>> {
        let at = |ms: i64| self.end_at(ms, partition);
        let rate = |point: usize| {
            let to = now_ms - (POINTS - 1 - point) as i64 * POINT_MS;
            let written = at(to)? - at(to - POINT_MS)?;
            Some(written.max(0.0) / (POINT_MS / SECOND) as f64)
        };
        (0..POINTS).map(rate).collect()
    }

    /// Returns a partition's end at a time, in proportion between two samples.
    fn end_at(&self, ms: i64, partition: usize) -> Option<f64> {
        let end = |sample: &Ends| Some((sample.at_ms, sample.ends.get(partition).copied().flatten()?));
        let later = self.ends.partition_point(|sample| sample.at_ms <= ms);
        let (from_ms, from) = self.ends.get(later.checked_sub(1)?).and_then(end)?;
        let Some((to_ms, to)) = self.ends.get(later).and_then(end) else {
            return (ms - from_ms <= POINT_MS).then_some(from as f64);
        };
        Some(from as f64 + (to - from) as f64 * (ms - from_ms) as f64 / (to_ms - from_ms).max(1) as f64)
    }
}

impl GroupSamples {
    fn add(&mut self, at_ms: i64, topic: &str, group: &Group) {
        let ours = || group.partitions.iter().filter(|partition| partition.topic == topic);
        let lag = ours().filter_map(|partition| partition.lag).reduce(|sum, lag| sum + lag);
        push(&mut self.lags, (at_ms, lag), |(at_ms, _)| *at_ms);
        let mut still = BTreeMap::new();
        let read = ours().filter(|partition| partition.member.is_some() && partition.lag.is_some_and(|lag| lag > 0));
        for partition in read.take(SAMPLED_PARTITIONS) {
            let before = self.still.get(&partition.partition).filter(|(known, _)| *known == partition.committed);
            still.insert(partition.partition, before.copied().unwrap_or((partition.committed, at_ms)));
        }
        self.still = still;
        self.note_changes(at_ms, topic, group);
        self.seen_ms = at_ms;
    }

    /// Compares the members with those of the sample before.
    fn note_changes(&mut self, at_ms: i64, topic: &str, group: &Group) {
        let members: BTreeMap<String, (String, Vec<i32>)> = group
            .members
            .iter()
            .take(SAMPLED_PARTITIONS)
            .map(|member| (member.id.clone(), (words(member), partitions(member, topic))))
            .collect();
        let is_rebalancing = !matches!(group.state.as_str(), "Stable" | "Empty" | "Dead" | "");
        if self.seen_ms > 0 {
            let ids = |members: &BTreeMap<String, _>| members.keys().cloned().collect::<BTreeSet<String>>();
            let (old, new) = (ids(&self.members), ids(&members));
            let (left, joined) = (old.difference(&new), new.difference(&old));
            let mut what = named(left.map(|id| &self.members[id].0), "left");
            what.extend(named(joined.map(|id| &members[id].0), "joined"));
            if is_rebalancing && !self.is_rebalancing {
                what.push("rebalance started".to_owned());
            }
            if !is_rebalancing && (self.is_rebalancing || members != self.members) && !members.is_empty() {
                what.push("rebalanced: partitions assigned".to_owned());
            }
            for what in what {
                self.changes.push_back(GroupChange { at_ms, what });
            }
            while self.changes.len() > CHANGES {
                self.changes.pop_front();
            }
        }
        (self.members, self.is_rebalancing) = (members, is_rebalancing);
    }

    /// The state of a group with members and a known lag.
    fn progress(&self, now_ms: i64, lag: i64, time: Option<LagTime>) -> Progress {
        let stuck = self.still.iter().map(|(partition, (_, since))| (*partition, now_ms - since));
        let stuck = stuck.filter(|(_, for_ms)| *for_ms >= TREND_MS).max_by_key(|(_, for_ms)| *for_ms);
        if let Some((partition, for_ms)) = stuck {
            return Progress::Stuck { partition, for_ms };
        }
        if lag == 0 || time.is_some_and(|time| time.ms() <= UP_TO_DATE_MS && time != LagTime::Over(time.ms())) {
            return Progress::UpToDate;
        }
        match self.slope(now_ms) {
            Some(slope) if slope < 0.0 => Progress::CatchingUp { ready_in_ms: (lag as f64 / -slope) as i64 * SECOND },
            Some(slope) if slope > 0.0 => Progress::FallingBehind { per_second: slope },
            _ => Progress::Behind,
        }
    }

    /// Returns by how many records per second the lag has changed over the last 30 s (least squares), 0 if that is next to
    /// nothing; `None` if the samples are too few.
    fn slope(&self, now_ms: i64) -> Option<f64> {
        let recent = self.lags.iter().filter(|(at_ms, _)| now_ms - at_ms <= TREND_MS + SPACING_MS);
        let points: Vec<(f64, f64)> =
            recent.filter_map(|(at_ms, lag)| Some(((at_ms - now_ms) as f64 / 1000.0, (*lag)? as f64))).collect();
        let (first, last) = (points.first()?, points.last()?);
        if points.len() < 3 || (last.0 - first.0) * 1000.0 < TREND_AT_LEAST_MS as f64 {
            return None;
        }
        let count = points.len() as f64;
        let mean = |value: fn(&(f64, f64)) -> f64| points.iter().map(value).sum::<f64>() / count;
        let (time, lag) = (mean(|point| point.0), mean(|point| point.1));
        let spread: f64 = points.iter().map(|point| (point.0 - time).powi(2)).sum();
        let slope = points.iter().map(|point| (point.0 - time) * (point.1 - lag)).sum::<f64>() / spread;
        let is_steady = (slope * (TREND_MS / SECOND) as f64).abs() < (lag * STEADY).max(1.0);
        Some(if is_steady { 0.0 } else { slope })
    }

    /// The lag at the end of each 30 s.
    fn line(&self, now_ms: i64) -> Vec<Option<u64>> {
        let lag = |point: usize| {
            let at = now_ms - (POINTS - 1 - point) as i64 * POINT_MS;
            let later = self.lags.partition_point(|(at_ms, _)| *at_ms <= at);
            let (at_ms, lag) = self.lags.get(later.checked_sub(1)?)?;
            (at - at_ms <= POINT_MS).then_some(*lag)?.map(|lag| lag.max(0) as u64)
        };
        (0..POINTS).map(lag).collect()
    }
}

/// Adds a sample. The newest one is always kept; of those before it one per [`SPACING_MS`] is.
fn push<T>(samples: &mut VecDeque<T>, sample: T, at_ms: impl Fn(&T) -> i64) {
    let now = at_ms(&sample);
    let settled = samples.len().checked_sub(2).map(|index| at_ms(&samples[index]));
    if settled.is_some_and(|settled| samples.back().is_some_and(|newest| at_ms(newest) - settled < SPACING_MS)) {
        samples.pop_back();
    }
    samples.push_back(sample);
    // One older sample is kept: what happened until the oldest point is measured from it.
    while samples.len() > SAMPLES || samples.get(1).is_some_and(|second| now - at_ms(second) >= MEMORY_MS) {
        samples.pop_front();
    }
}

fn words(member: &GroupMember) -> String {
    let short = |text: &str| text.chars().take(NAME_CHARS).collect::<String>();
    format!("{} on {}", short(&member.client_id), short(&member.host))
}

fn partitions(member: &GroupMember, topic: &str) -> Vec<i32> {
    let ours = member.partitions.iter().filter(|place| place.topic == topic);
    ours.map(|place| place.partition).take(SAMPLED_PARTITIONS).collect()
}

/// `app on 10.0.0.7 joined`, for some members, and how many more there are.
fn named<'a>(members: impl Iterator<Item = &'a String>, did: &str) -> Vec<String> {
    let members: Vec<&String> = members.collect();
    let mut named: Vec<String> = members.iter().take(NAMED_MEMBERS).map(|name| format!("{name} {did}")).collect();
    if members.len() > NAMED_MEMBERS {
        named.push(format!("{} more members {did}", members.len() - NAMED_MEMBERS));
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::{AssignedPartition, GroupPartition};

    const NOW: i64 = 1_795_435_200_000;

    fn member(id: &str, assigned: &[i32]) -> GroupMember {
        let place = |partition: &i32| AssignedPartition { topic: "events".into(), partition: *partition };
        let partitions = assigned.iter().map(place).collect();
        GroupMember { id: id.into(), client_id: id.into(), host: "10.0.0.7".into(), partitions }
    }

    /// A group with one member that has one partition.
    fn group(committed: Option<i64>, end: i64) -> Group {
        let mut group = Group::new("billing".into());
        group.state = "Stable".into();
        group.members = vec![member("app-1", &[0])];
        group.partitions = vec![GroupPartition {
            topic: "events".into(),
            committed,
            first: Some(0),
            end: Some(end),
            lag: committed.map(|committed| end - committed),
            member: Some("app-1".into()),
            ..GroupPartition::default()
        }];
        group
    }

    /// Adds a sample every `every` seconds, and returns what is known at the last one.
    fn after(seconds: i64, every: usize, sample: impl Fn(i64) -> (Option<i64>, i64)) -> GroupTrend {
        let mut trends = Trends::default();
        let mut known = None;
        for second in (0..=seconds).step_by(every) {
            let (committed, end) = sample(second);
            let (group, now) = (group(committed, end), NOW + second * 1000);
            trends.add_ends(now, [Some(end)].into_iter());
            trends.add_groups(now, "events", [&group].into_iter());
            known = trends.snapshot(now, "events", [&group].into_iter()).groups.remove("billing");
        }
        known.expect("a trend")
    }

    #[test]
    fn a_lag_of_at_most_5_s_is_up_to_date() {
        for every in [1, 2, 5, 10] {
            let trend = after(120, every, |second| (Some(second * 100 - 300), second * 100));
            assert_eq!((trend.progress, trend.lag), (Progress::UpToDate, Some(300)), "every {every} s");
            assert_eq!(trend.lag_time, Some(LagTime::Exactly(3000)), "every {every} s");
        }
        let slower = after(120, 1, |second| (Some(second * 100 - 600), second * 100));
        assert_eq!((slower.progress, slower.lag_time), (Progress::Behind, Some(LagTime::Exactly(6000))));
    }

    #[test]
    fn a_falling_lag_is_catching_up_and_says_when_it_is_ready() {
        for every in [1, 2, 5, 10] {
            let trend = after(60, every, |second| (Some(second * 300), 40_000 + second * 100));
            // 28,000 left after a minute, 200 a second less.
            assert_eq!(trend.progress, Progress::CatchingUp { ready_in_ms: 140_000 }, "every {every} s");
        }
    }

    #[test]
    fn a_rising_lag_is_falling_behind() {
        for every in [1, 2, 5, 10] {
            let trend = after(60, every, |second| (Some(second * 80), 1_000 + second * 200));
            let Progress::FallingBehind { per_second } = trend.progress else { panic!("{trend:?}") };
            assert!((per_second - 120.0).abs() < 0.001, "{per_second}/s, every {every} s");
        }
    }

    #[test]
    fn commits_in_steps_are_no_trend() {
        let trend = after(120, 1, |second| (Some((second / 5 * 5) * 100 - 1_000), second * 100));
        assert_eq!(trend.progress, Progress::Behind);
    }

    #[test]
    fn an_offset_that_stands_still_for_30_s_with_a_lag_is_stuck() {
        let at = |seconds| after(seconds, 1, |second| (Some(50), if second < 10 { 50 } else { 60 })).progress;
        assert_eq!(at(9), Progress::UpToDate, "nothing to read");
        assert!(!matches!(at(39), Progress::Stuck { .. } | Progress::UpToDate), "a lag since second 10");
        assert_eq!(at(40), Progress::Stuck { partition: 0, for_ms: 30_000 });
        assert_eq!(at(55), Progress::Stuck { partition: 0, for_ms: 45_000 });
        let moves = after(120, 1, |second| (Some(second / 20), 1_000_000)).progress;
        assert!(!matches!(moves, Progress::Stuck { .. }), "it commits every 20 s: {moves:?}");
    }

    #[test]
    fn a_group_that_committed_nothing_has_all_records_before_it() {
        let trend = after(5, 1, |_| (None, 217_481));
        assert_eq!((trend.progress, trend.lag), (Progress::NothingCommitted { up_to: 217_481 }, None));
    }

    #[test]
    fn a_record_older_than_the_samples_has_no_exact_lag_time() {
        let trend = after(60, 5, |_| (Some(10), 500));
        assert_eq!(trend.lag_time, Some(LagTime::Over(60_000)));
    }

    #[test]
    fn a_burst_is_as_old_as_the_sample_in_which_it_came() {
        // 1,000 records between seconds 19 and 20.
        let trend = after(24, 1, |second| (Some(500), if second < 20 { 500 } else { 1_500 }));
        let Some(LagTime::Exactly(ms)) = trend.lag_time else { panic!("{trend:?}") };
        assert!((4_000..=9_000).contains(&ms), "{ms} ms");
    }

    #[test]
    fn samples_are_bounded_and_cover_15_minutes() {
        let mut trends = Trends::default();
        for second in 0..7200 {
            trends.add_ends(NOW + second * 1000, (0..10_000).map(|_| Some(second * 7)));
            assert!(trends.ends.len() <= SAMPLES, "{}", trends.ends.len());
        }
        let now = NOW + 7199 * 1000;
        let known = trends.snapshot(now, "events", std::iter::empty());
        assert_eq!((known.covered_ms, known.rates.len()), (MEMORY_MS, SAMPLED_PARTITIONS));
        assert_eq!(known.rates[0].len(), POINTS);
        assert!(known.rates[0].iter().all(|rate| rate.is_some_and(|rate| (rate - 7.0).abs() < 0.01)), "{known:?}");
    }

    #[test]
    fn a_line_has_no_points_before_the_first_sample() {
        let trend = after(60, 5, |second| (Some(0), second * 10));
        assert_eq!(trend.lags.iter().filter(|lag| lag.is_some()).count(), 3);
        assert_eq!(trend.lags.last(), Some(&Some(600)));
    }

    #[test]
    fn groups_beyond_the_bound_are_not_sampled_and_take_the_place_of_those_that_vanished() {
        let mut trends = Trends::default();
        let named = |number: usize| Group { group: format!("group-{number}"), ..group(Some(1), 1) };
        let many: Vec<Group> = (0..SAMPLED_GROUPS + 5).map(named).collect();
        trends.add_groups(NOW, "events", many.iter());
        assert_eq!(trends.groups.len(), SAMPLED_GROUPS);
        let other = named(10_000);
        trends.add_groups(NOW + 10_000, "events", [&other].into_iter());
        assert!(!trends.groups.contains_key("group-10000"));
        trends.add_groups(NOW + 60_000, "events", [&other].into_iter());
        assert!(trends.groups.contains_key("group-10000") && trends.groups.len() == SAMPLED_GROUPS);
    }

    #[test]
    fn members_and_rebalances_are_remembered() {
        let mut trends = Trends::default();
        let mut group = group(Some(1), 1);
        let mut sample = |second: i64, state: &str, members: Vec<GroupMember>| {
            (group.state, group.members) = (state.into(), members);
            trends.add_groups(NOW + second * 1000, "events", [&group].into_iter());
            let known = trends.snapshot(NOW + second * 1000, "events", [&group].into_iter());
            known.groups["billing"].changes.iter().map(|change| change.what.clone()).collect::<Vec<_>>()
        };
        assert_eq!(sample(0, "Stable", vec![member("a", &[0, 1])]), Vec::<String>::new());
        let both = || vec![member("a", &[0]), member("b", &[1])];
        sample(1, "PreparingRebalance", both());
        assert_eq!(
            sample(2, "Stable", both()),
            ["rebalanced: partitions assigned", "rebalance started", "b on 10.0.0.7 joined"]
        );
        let left = sample(3, "Stable", vec![member("b", &[0, 1])]);
        assert_eq!(left[..2], ["rebalanced: partitions assigned", "a on 10.0.0.7 left"]);
        for second in 4..200 {
            let id = format!("member-{second}");
            assert!(sample(second, "Stable", vec![member(&id, &[0])]).len() <= CHANGES);
        }
    }
}
