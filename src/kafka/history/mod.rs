//! Bounded reads of the topic, beside the tail: a page of history, one record, and the records that a stream missed.
//!
//! Every function that reads blocks, for at most a few seconds without progress. Consumers are kept for the next read,
//! because connecting one costs more than most reads.

mod counts;

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::admin::topics;
use super::consumer::fetch::{FetchError, Fetcher};
use super::watch::TopicId;
use super::{ClusterState, Connection, QUESTION, Quiet, TopicState, partition_of};
use crate::bounds::MERGE_BYTES;
use crate::event::Record;

pub use counts::TimeCounts;

/// Most consumers that are kept for the next read; each costs threads and sockets.
const KEPT: usize = 4;
/// Most offsets of a partition that a search reads at a time.
const MOST_AT_ONCE: i64 = 20_000;
/// Approximate bytes of records that a search looks at between two progress reports.
const LOOKED_AT_ONCE: usize = 16 << 20;
/// A read without a record for this long fails.
const STALLED: Duration = Duration::from_secs(5);
/// How long a read waits for messages before it checks whether it was cancelled.
const CHECK_EVERY: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    #[error("Kafka is unreachable: {0}")]
    Unreachable(String),
    /// Retention deleted records while they were read: how many offsets, where that is known.
    #[error("{} deleted by retention while they were read", Deleted(*.0))]
    Expired(Option<u64>),
    #[error("the topic was deleted or recreated while it was read")]
    Recreated,
    /// The partition cannot be read until one of its replicas becomes the leader.
    #[error("partition {0} has no leader, so it cannot be read now; others can, with `partition=`")]
    Leaderless(i32),
    /// The log ends earlier than when the read started: a leader without the latest records, or another topic.
    #[error("partition {partition} ends at offset {end} now, before offset {to}")]
    CutOff { partition: i32, end: i64, to: i64 },
    /// The record is written, but lies after the offset up to which the partition can be read.
    #[error(
        "partition {partition} can be read up to offset {readable} only: a transaction of another writer is open. The record \
         at offset {offset} is written, and can be read when that transaction has ended, unless it is a part of it that is \
         aborted"
    )]
    HeldUp { partition: i32, readable: i64, offset: i64 },
    /// The caller no longer waits for the read.
    #[error("the read was cancelled")]
    Cancelled,
    #[error("Kafka: {0}")]
    Client(#[from] KafkaError),
}

struct Deleted(Option<u64>);

impl fmt::Display for Deleted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(1) => f.write_str("1 record was"),
            Some(count) => write!(f, "{count} records were"),
            None => f.write_str("records were"),
        }
    }
}

/// First and next offset of a partition.
pub type Marks = (i64, i64);

/// What a bounded read in order of time looks at.
#[derive(Clone)]
pub struct HistoryRange {
    /// First offset of every partition, and the offset after the last. Equal or crossed bounds read nothing.
    pub from: Vec<i64>,
    pub to: Vec<i64>,
    pub newest_first: bool,
    /// Most records to return.
    pub limit: usize,
    /// The search stops after about this many records.
    pub scan: u64,
}

/// How far a search went.
pub struct SearchEnd {
    /// Where to continue: `from` of the next range if oldest came first, `to` if newest did. `None`: every record in
    /// the range was looked at.
    pub next: Option<Vec<i64>>,
    /// Records that were looked at.
    pub scanned: u64,
}

/// Where the newest matching records start.
pub struct LastMatches {
    /// The first offset of every partition.
    pub place: Vec<i64>,
    pub found: usize,
    /// Whether `found` is the requested number, or all there are.
    pub whole: bool,
    /// Records that were looked at.
    pub scanned: u64,
}

/// A report of a search in progress.
pub enum SearchReport {
    Found(Record),
    Progress {
        scanned: u64,
        /// As in [`SearchEnd`]; the records found so far have been reported.
        next: Vec<i64>,
        /// The time up to which every record was looked at, in milliseconds since 1970.
        reached_ms: Option<i64>,
    },
}

impl HistoryRange {
    /// Returns the offsets that are left when a search continues at `next`; at least the number of records.
    pub fn left(&self, next: &[i64]) -> u64 {
        let (from, to) = if self.newest_first { (&*self.from, next) } else { (next, &*self.to) };
        from.iter().zip(to).map(|(from, to)| to.saturating_sub(*from).max(0) as u64).sum()
    }
}

/// An idle consumer with the topic id and partition count it was made for. It is useless after either changes.
type Idle = ((TopicId, usize), Fetcher<Quiet>);

pub struct History {
    config: ClientConfig,
    topic: Arc<str>,
    embedded: bool,
    state: watch::Receiver<ClusterState>,
    idle: Mutex<Vec<Idle>>,
    /// The same history with uncommitted records; `None` in that one itself.
    uncommitted: Option<Arc<History>>,
}

impl History {
    pub fn new(connection: &Connection, state: watch::Receiver<ClusterState>) -> Self {
        let mut uncommitted = Self::committed(connection, state.clone());
        uncommitted.config.set("isolation.level", "read_uncommitted");
        History { uncommitted: Some(Arc::new(uncommitted)), ..Self::committed(connection, state) }
    }

    fn committed(connection: &Connection, state: watch::Receiver<ClusterState>) -> Self {
        let mut config = connection.reader(&[
            // A read never waits for new records, and the next read would wait for this one's last fetch.
            ("fetch.wait.max.ms", "10"),
            ("queued.min.messages", "50000"),
            // librdkafka also limits a fetch to this. A consumer with what it fetched takes a few MiB.
            ("queued.max.messages.kbytes", "1024"),
        ]);
        config.set("enable.partition.eof", "true");
        History {
            config,
            topic: connection.topic.clone(),
            embedded: connection.is_embedded(),
            state,
            idle: Mutex::new(Vec::new()),
            uncommitted: None,
        }
    }

    /// Returns the same history, but including records after the start of another writer's open transaction, and
    /// aborted ones. Our own records are in no transaction: they are in the topic for good once Kafka has acknowledged
    /// them.
    pub fn uncommitted(self: &Arc<Self>) -> Arc<Self> {
        self.uncommitted.as_ref().unwrap_or(self).clone()
    }

    /// Returns the partition in which producers with Kafka's default partitioner put the records of a key.
    pub fn partition_of(&self, key: &[u8]) -> Result<i32, HistoryError> {
        Ok(partition_of(key, self.topic_state()?.partitions.len()))
    }

    /// Returns the number of partitions.
    pub fn partitions(&self) -> Result<usize, HistoryError> {
        Ok(self.topic_state()?.partitions.len())
    }

    /// Returns the first and next offset of these partitions, or of all if none is named; both are 0 for the others.
    /// Fails if one of them has no leader.
    pub fn bounds_of(&self, wanted: &[i32]) -> Result<Vec<Marks>, HistoryError> {
        let topic = self.topic_state()?;
        let bounds = self.marks(&topic, &led(&topic, wanted)?)?;
        Ok(bounds.into_iter().map(Option::unwrap_or_default).collect())
    }

    /// Returns the first and next offset of every partition; `None` for partitions without a leader.
    pub fn bounds_led(&self) -> Result<Vec<Option<Marks>>, HistoryError> {
        let topic = self.topic_state()?;
        self.marks(&topic, &topic.led())
    }

    /// Returns the first and next offset of the partitions in `asked`, as a list with one entry per partition.
    fn marks(&self, topic: &TopicState, asked: &[i32]) -> Result<Vec<Option<Marks>>, HistoryError> {
        let marks = self.ask(|consumer| topics::watermarks(consumer, &self.topic, asked, QUESTION))?;
        let mut bounds = vec![None; topic.partitions.len()];
        for (partition, marks) in asked.iter().zip(marks) {
            bounds[*partition as usize] = Some(topic.marks(*partition, marks));
        }
        Ok(bounds)
    }

    /// Returns the first offset of each of these partitions, or of all if none is named, whose record's time
    /// ([`History::time_ms`]) is at or after `ms`, in milliseconds since 1970. Later records may have earlier times. 0 for
    /// the other partitions. The embedded broker has no index by time and keeps little: there it is the first offset of the
    /// partition, so the caller must compare the records' times in any case.
    pub fn offsets_since_of(&self, ms: i64, wanted: &[i32]) -> Result<Vec<i64>, HistoryError> {
        let bounds = self.bounds_of(wanted)?;
        if self.embedded {
            return Ok(bounds.into_iter().map(|(first, _)| first).collect());
        }
        let asked = led(&*self.topic_state()?, wanted)?;
        let found = self.ask(|consumer| topics::since(consumer, &self.topic, &asked, ms, QUESTION))?;
        let mut offsets: Vec<i64> = bounds.iter().map(|(_, end)| *end).collect();
        for (partition, offset) in asked.into_iter().zip(found) {
            if let (Some(offset), Some(since)) = (offset, offsets.get_mut(partition as usize)) {
                *since = offset;
            }
        }
        Ok(offsets)
    }

    /// Returns the same for every partition; `None` for partitions without a leader.
    pub fn offsets_since_led(&self, ms: i64) -> Result<Vec<Option<i64>>, HistoryError> {
        let led = self.topic_state()?.led();
        let offsets = self.offsets_since_of(ms, &led)?;
        Ok((0..).zip(offsets).map(|(partition, offset)| led.contains(&partition).then_some(offset)).collect())
    }

    /// Whether other writers' transactions may hold records back. The embedded broker has no transactions.
    pub fn has_transactions(&self) -> bool {
        !self.embedded
    }

    /// Returns one record with the first and next offset of its partition; `None` if there is none at that offset.
    /// Fails if the record lies after the start of an open transaction.
    pub fn record(&self, partition: i32, offset: i64) -> Result<Option<(Record, Marks)>, HistoryError> {
        let count = self.topic_state()?.partitions.len();
        let Some(index) = usize::try_from(partition).ok().filter(|index| *index < count) else { return Ok(None) };
        let bounds = self.bounds_of(&[partition])?;
        let Some((low, high)) = bounds.get(index).copied() else { return Ok(None) };
        if offset >= high
            && let Some(uncommitted) = &self.uncommitted
            && uncommitted.record(partition, offset)?.is_some()
        {
            return Err(HistoryError::HeldUp { partition, readable: high, offset });
        }
        if !(low..high).contains(&offset) {
            return Ok(None);
        }
        let (mut from, mut to) = (vec![0; bounds.len()], vec![0; bounds.len()]);
        from[index] = offset;
        to[index] = offset + 1;
        let mut found = None;
        let read = self.read(&from, &to, |record| {
            found = Some((record, (low, high)));
            ControlFlow::Break(())
        });
        match read {
            // Retention has deleted it just now.
            Err(HistoryError::Expired(_)) => Ok(None),
            read => read.map(|()| found),
        }
    }

    /// Reads the records that may belong to these users since a time, each partition at most once: the partition of
    /// each user's key, and those that it had while the topic had fewer partitions. Allows for clocks that differ by a
    /// minute.
    pub fn find<'u>(
        &self,
        users: impl Iterator<Item = &'u [u8]>,
        since_ms: i64,
        visit: impl FnMut(Record) -> ControlFlow<()>,
    ) -> Result<(), HistoryError> {
        let topic = self.topic_state()?;
        // Only these partitions: one without a leader elsewhere does not matter.
        let wanted: BTreeSet<i32> = users
            .flat_map(|user| partitions_of(user, topic.partitions_at_first, topic.partitions.len()))
            .map(|partition| partition as i32)
            .collect();
        let wanted: Vec<i32> = wanted.into_iter().collect();
        let mut ends: Vec<i64> = self.bounds_of(&wanted)?.into_iter().map(|(_, end)| end).collect();
        let mut from = self.offsets_since_of(since_ms - 60_000, &wanted)?;
        // Partitions may have been added between the two requests.
        from.resize(ends.len(), 0);
        ends.iter_mut().zip(&from).for_each(|(end, from)| *end = (*end).max(*from));
        self.read(&from, &ends, visit)
    }

    /// Reads `[from, to)` of every partition in the order of arrival, until `visit` breaks. Returns `Ok` if it did, or
    /// if every partition was read up to `to`.
    pub fn read(
        &self,
        from: &[i64],
        to: &[i64],
        visit: impl FnMut(Record) -> ControlFlow<()>,
    ) -> Result<(), HistoryError> {
        self.read_until(&CancellationToken::new(), from, to, visit)
    }

    /// Does the same until `stop` is cancelled, which it notices within 50 ms and the time of one `visit`.
    pub fn read_until(
        &self,
        stop: &CancellationToken,
        from: &[i64],
        to: &[i64],
        mut visit: impl FnMut(Record) -> ControlFlow<()>,
    ) -> Result<(), HistoryError> {
        let topic = self.topic_state()?;
        let wanted: Vec<i32> =
            (0..).zip(from.iter().zip(to)).filter(|(_, (from, to))| from < to).map(|(n, _)| n).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        led(&topic, &wanted)?;
        let mut places = from.to_vec();
        let read = self.with_fetcher(|fetcher| {
            let mut assignment = TopicPartitionList::with_capacity(wanted.len());
            for partition in &wanted {
                let from = Offset::Offset(from[*partition as usize]);
                assignment.add_partition_offset(&self.topic, *partition, from)?;
            }
            fetcher.assign(&assignment)?;
            let read = self.fetch_all(fetcher, stop, topic.id, &mut places, to, &mut visit);
            if let Err(HistoryError::Cancelled) | Ok(()) = read {
                // A pause outlives the assignment. If it were undone before, librdkafka might fetch after the end, and
                // the next read would get that.
                fetcher.consumer().unassign()?;
                fetcher.consumer().resume(&assignment)?;
                // Messages that were fetched but not taken would keep their memory, and keep the client from closing.
                while fetcher.fetch(Duration::ZERO).next().is_some() {}
                return Ok(read);
            }
            read.map(Ok)
        });
        match read {
            Ok(read) => read,
            Err(HistoryError::Expired(_)) => Err(HistoryError::Expired(self.deleted(&wanted, &places, to))),
            Err(error) => Err(error),
        }
    }

    /// Takes messages until every partition has been read up to `to`. Advances `places`.
    fn fetch_all(
        &self,
        fetcher: &Fetcher<Quiet>,
        stop: &CancellationToken,
        topic: TopicId,
        places: &mut [i64],
        to: &[i64],
        visit: &mut impl FnMut(Record) -> ControlFlow<()>,
    ) -> Result<(), HistoryError> {
        let mut left = places.iter().zip(to).filter(|(place, to)| place < to).count();
        let mut progress = Instant::now();
        // A partition that ended before `to` was reached.
        let mut cut_off = None;
        while left > 0 {
            for fetched in fetcher.fetch(CHECK_EVERY) {
                if stop.is_cancelled() {
                    return Err(HistoryError::Cancelled);
                }
                let (partition, reached) = match fetched {
                    Ok(message) => {
                        let (partition, offset) = (message.partition(), message.offset());
                        let Some((place, to)) = part(places, to, partition) else { continue };
                        // A message of an earlier read, or of a partition that was read up to its end.
                        if offset < *place || *place >= to {
                            continue;
                        }
                        *place = offset + 1;
                        if offset < to && visit(message.record()).is_break() {
                            return Ok(());
                        }
                        // Only now: `visit` may wait for a slow client.
                        progress = Instant::now();
                        (partition, offset + 1)
                    }
                    Err(FetchError::End { partition, offset }) => {
                        let Some((place, to)) = part(places, to, partition) else { continue };
                        if *place >= to {
                            continue;
                        }
                        if offset < to {
                            cut_off = Some(HistoryError::CutOff { partition, end: offset, to });
                            continue;
                        }
                        *place = offset;
                        (partition, offset)
                    }
                    Err(FetchError::Client(error)) => match error.rdkafka_error_code() {
                        Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                            return Err(HistoryError::Expired(None));
                        }
                        Some(RDKafkaErrorCode::TopicAuthorizationFailed) => return Err(error.into()),
                        _ if progress.elapsed() > STALLED => return Err(HistoryError::Unreachable(error.to_string())),
                        _ => continue,
                    },
                };
                if reached >= to[partition as usize] {
                    left -= 1;
                    let mut done = TopicPartitionList::with_capacity(1);
                    done.add_partition(&self.topic, partition);
                    fetcher.consumer().pause(&done)?;
                }
            }
            if stop.is_cancelled() {
                return Err(HistoryError::Cancelled);
            }
            if self.state.borrow().topic().is_some_and(|known| known.id != topic) {
                return Err(HistoryError::Recreated);
            }
            if progress.elapsed() > STALLED {
                let nothing = || HistoryError::Unreachable(format!("no records for {} s", STALLED.as_secs()));
                return Err(cut_off.unwrap_or_else(nothing));
            }
        }
        Ok(())
    }

    /// Returns how many offsets between `places` and `to` retention has deleted; `None` if Kafka does not say.
    fn deleted(&self, partitions: &[i32], places: &[i64], to: &[i64]) -> Option<u64> {
        let bounds = self.bounds_of(partitions).ok()?;
        let deleted = |partition: &i32| {
            let index = *partition as usize;
            let (low, _) = bounds.get(index)?;
            Some((low.min(&to[index]) - places[index]).max(0) as u64)
        };
        partitions.iter().map(deleted).sum::<Option<u64>>().filter(|deleted| *deleted > 0)
    }

    /// Reads a page in order of time: passes matching records to `take` until that breaks. `next` of the result is
    /// `None` if there are no more records in the range, whatever offsets compaction and transactions have left empty.
    pub fn page(
        &self,
        range: &HistoryRange,
        stop: &CancellationToken,
        keep: impl Fn(&Record) -> bool,
        mut take: impl FnMut(Record) -> ControlFlow<()>,
        mut more: impl FnMut() -> ControlFlow<()>,
    ) -> Result<SearchEnd, HistoryError> {
        let (mut end, searches) = self.search_partitions(range, stop, keep, |step| match step {
            SearchReport::Found(record) => take(record),
            SearchReport::Progress { .. } => more(),
        })?;
        if end.next.is_some()
            && searches.iter().all(|search| search.found.is_empty())
            && !self.has_more(&searches, stop)?
        {
            end.next = None;
        }
        Ok(end)
    }

    /// Returns whether there is a record in the part that was not read yet.
    fn has_more(&self, searches: &[PartitionSearch], stop: &CancellationToken) -> Result<bool, HistoryError> {
        let (from, to): (Vec<i64>, Vec<i64>) = searches.iter().map(|search| (search.from, search.to)).unzip();
        let mut found = false;
        self.read_until(stop, &from, &to, |_| {
            found = true;
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// Finds where the newest `limit` matching records start: the first offset of every partition, for a read that
    /// returns them oldest first. Always searches from the end of the range, whatever its own order. Keeps no records.
    pub fn place_of_last(
        &self,
        range: &HistoryRange,
        stop: &CancellationToken,
        keep: impl Fn(&Record) -> bool,
        mut more: impl FnMut(u64) -> ControlFlow<()>,
    ) -> Result<LastMatches, HistoryError> {
        let (mut place, mut found) = (range.to.clone(), 0);
        let backwards = HistoryRange { newest_first: true, ..range.clone() };
        let end = self.search(&backwards, stop, keep, |step| match step {
            SearchReport::Found(record) => {
                place[record.partition() as usize] = record.offset();
                found += 1;
                ControlFlow::Continue(())
            }
            SearchReport::Progress { scanned, .. } => more(scanned),
        })?;
        Ok(LastMatches { place, found, whole: found >= range.limit || end.next.is_none(), scanned: end.scanned })
    }

    /// Searches in order of time: reads the partitions chunk by chunk and merges them. Reports a record as soon as no
    /// partition can have one that comes before it. The records that are kept meanwhile are bounded in bytes.
    pub fn search(
        &self,
        range: &HistoryRange,
        stop: &CancellationToken,
        keep: impl Fn(&Record) -> bool,
        report: impl FnMut(SearchReport) -> ControlFlow<()>,
    ) -> Result<SearchEnd, HistoryError> {
        self.search_partitions(range, stop, keep, report).map(|(end, _)| end)
    }

    fn search_partitions(
        &self,
        range: &HistoryRange,
        stop: &CancellationToken,
        keep: impl Fn(&Record) -> bool,
        mut report: impl FnMut(SearchReport) -> ControlFlow<()>,
    ) -> Result<(SearchEnd, Vec<PartitionSearch>), HistoryError> {
        let topic = self.topic_state()?.id;
        let newest_first = range.newest_first;
        let mut searches: Vec<PartitionSearch> =
            range.from.iter().zip(&range.to).map(|(from, to)| PartitionSearch::new(*from, (*to).max(*from))).collect();
        let (mut found, mut scanned) = (0, 0);
        let at_first = range.limit.clamp(100, 1000) as i64;
        let mut chunk = at_first;
        let place =
            |searches: &[PartitionSearch]| searches.iter().map(|search| search.next(newest_first)).collect::<Vec<_>>();
        while found < range.limit {
            let time =
                |search: &PartitionSearch| search.found.front().map(|record| self.time_ms(record).unwrap_or(i64::MIN));
            let full = searches.iter().enumerate().filter(|(_, search)| !search.found.is_empty());
            let best = match newest_first {
                true => full.max_by_key(|(_, search)| time(search)),
                false => full.min_by_key(|(_, search)| time(search)),
            };
            let best = best.map(|(index, search)| (index, time(search).unwrap_or(i64::MIN)));
            let open: Vec<usize> =
                (0..searches.len()).filter(|index| searches[*index].may_have_before(best, newest_first)).collect();
            if open.is_empty() {
                let Some(record) = best.and_then(|(index, _)| searches[index].found.pop_front()) else { break };
                found += 1;
                if report(SearchReport::Found(record)).is_break() {
                    break;
                }
                continue;
            }
            if scanned >= range.scan {
                break;
            }
            if self.topic_state()?.id != topic {
                return Err(HistoryError::Recreated);
            }
            let loaded = self.load(&mut searches, &open, chunk, newest_first, stop, &keep)?;
            scanned += loaded.scanned;
            chunk = loaded.next_chunk(chunk, at_first, range.limit.min(1000));
            if loaded.undone {
                continue;
            }
            let edges = searches.iter().filter(|search| search.from < search.to).map(|search| search.edge_ms);
            let reached_ms = if newest_first { edges.flatten().max() } else { edges.flatten().min() };
            if report(SearchReport::Progress { scanned, next: place(&searches), reached_ms }).is_break() {
                break;
            }
        }
        let more = searches.iter().any(|search| search.from < search.to || !search.found.is_empty());
        Ok((SearchEnd { next: more.then(|| place(&searches)), scanned }, searches))
    }

    /// Reads the next chunk of some partitions, or less of it if the records to keep exceed the bound.
    fn load(
        &self,
        searches: &mut [PartitionSearch],
        which: &[usize],
        chunk: i64,
        newest_first: bool,
        stop: &CancellationToken,
        keep: &impl Fn(&Record) -> bool,
    ) -> Result<Loaded, HistoryError> {
        let before: Vec<_> = searches.iter().map(|search| (search.from, search.to, search.edge_ms)).collect();
        let room = MERGE_BYTES / searches.len() * which.len();
        let (mut from, mut to) = (vec![0; searches.len()], vec![0; searches.len()]);
        for index in which {
            (from[*index], to[*index]) = searches[*index].take(chunk, newest_first);
        }
        let mut loaded = Loaded { per_partition: chunk, ..Loaded::default() };
        let (mut reached, mut broken_off) = (from.clone(), false);
        let (mut started, mut found) = (vec![false; searches.len()], vec![Vec::new(); searches.len()]);
        self.read_until(stop, &from, &to, |record| {
            let index = record.partition() as usize;
            reached[index] = record.offset() + 1;
            loaded.scanned += 1;
            loaded.bytes += record.size();
            // The record next to the part that was not read yet.
            if !newest_first || !std::mem::replace(&mut started[index], true) {
                searches[index].edge_ms = Some(self.time_ms(&record).unwrap_or(i64::MIN));
            }
            if keep(&record) {
                loaded.kept += 1;
                loaded.kept_bytes += record.size();
                found[index].push(record);
            }
            broken_off = match newest_first {
                // The newest record of a chunk comes last, so the chunk counts as a whole or not at all.
                true => loaded.kept_bytes > room && chunk > 1,
                false => loaded.kept_bytes > room || loaded.bytes > LOOKED_AT_ONCE,
            };
            if broken_off { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if broken_off {
            loaded.per_partition = (loaded.scanned as i64 / which.len() as i64).max(1);
        }
        if broken_off && newest_first {
            for (search, before) in searches.iter_mut().zip(before) {
                (search.from, search.to, search.edge_ms) = before;
            }
            return Ok(Loaded { undone: true, scanned: 0, ..loaded });
        }
        for index in which {
            if broken_off {
                searches[*index].from = reached[*index];
            }
            let found = std::mem::take(&mut found[*index]);
            match newest_first {
                true => searches[*index].found.extend(found.into_iter().rev()),
                false => searches[*index].found.extend(found),
            }
        }
        Ok(loaded)
    }

    /// Returns the time by which records are ordered and found: Kafka's timestamp, or with the embedded broker (whose
    /// timestamps are constant) the event's time.
    pub fn time_ms(&self, record: &Record) -> Option<i64> {
        if self.embedded { record.time_ms() } else { record.timestamp_ms() }
    }

    fn topic_state(&self) -> Result<Arc<TopicState>, HistoryError> {
        match &*self.state.borrow() {
            ClusterState::Up(topic) => Ok(topic.clone()),
            ClusterState::Connecting { reason, .. } | ClusterState::Unreachable { reason, .. } => {
                Err(HistoryError::Unreachable(reason.clone()))
            }
        }
    }

    /// Asks an idle consumer. Retries once with a new one: an idle consumer may have stale leaders, and librdkafka
    /// rejects the partitions of a broker that left.
    fn ask<T>(&self, question: impl Fn(&BaseConsumer<Quiet>) -> KafkaResult<T>) -> Result<T, HistoryError> {
        let started = Instant::now();
        match self.with_fetcher(|fetcher| Ok(question(fetcher.consumer())?)) {
            Err(HistoryError::Client(error)) if started.elapsed() < QUESTION => {
                tracing::debug!(kafka.topic = &*self.topic, error = %error, "asked once more");
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).drain(..).for_each(drop_in_background);
                self.with_fetcher(|fetcher| Ok(question(fetcher.consumer())?))
            }
            result => result,
        }
    }

    fn with_fetcher<T>(
        &self,
        work: impl FnOnce(&Fetcher<Quiet>) -> Result<T, HistoryError>,
    ) -> Result<T, HistoryError> {
        let topic = self.topic_state()?;
        let topic = (topic.id, topic.partitions.len());
        let (kept, stale) = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let stale: Vec<_> = idle.extract_if(.., |(known, _)| *known != topic).collect();
            (idle.pop(), stale)
        };
        stale.into_iter().for_each(drop_in_background);
        let fetcher = match kept {
            Some((_, fetcher)) => fetcher,
            None => Fetcher::new(&self.config, Quiet)?,
        };
        let result = work(&fetcher);
        // A consumer that failed may be in any state.
        if result.is_ok() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < KEPT {
                idle.push((topic, fetcher));
                return result;
            }
        }
        drop_in_background((topic, fetcher));
        result
    }
}

/// Drops a consumer on a thread of its own, because that joins the consumer's threads.
fn drop_in_background(idle: Idle) {
    let _ = std::thread::Builder::new().name("kafka-end".into()).spawn(move || drop(idle));
}

/// Returns the partitions in which records of a key may be, in a topic that grew from one number of partitions to
/// another.
fn partitions_of(key: &[u8], at_first: usize, now: usize) -> BTreeSet<usize> {
    (at_first.clamp(1, now.max(1))..=now).map(|count| partition_of(key, count) as usize).collect()
}

/// Returns the named partitions, or all if none is named. Fails if one of them has no leader. Ignores partitions that
/// do not exist.
fn led(topic: &TopicState, wanted: &[i32]) -> Result<Vec<i32>, HistoryError> {
    let named = |partition: &i32| wanted.is_empty() || wanted.contains(partition);
    let all: Vec<i32> = (0..topic.partitions.len() as i32).filter(named).collect();
    match all.iter().find(|partition| topic.partitions[**partition as usize].leader.is_none()) {
        Some(partition) => Err(HistoryError::Leaderless(*partition)),
        None => Ok(all),
    }
}

/// Returns the position in a partition's range, and the end of the range.
fn part<'a>(places: &'a mut [i64], to: &[i64], partition: i32) -> Option<(&'a mut i64, i64)> {
    let index = usize::try_from(partition).ok()?;
    Some((places.get_mut(index)?, *to.get(index)?))
}

/// What was read from some partitions.
#[derive(Default)]
struct Loaded {
    /// Records that were read, and their bytes.
    scanned: u64,
    bytes: usize,
    /// Those of them that match, and their bytes.
    kept: usize,
    kept_bytes: usize,
    /// Offsets of each partition that were read.
    per_partition: i64,
    /// The matching records exceeded the bound, so none of them was kept.
    undone: bool,
}

impl Loaded {
    /// Returns how many offsets of a partition to read next: more if few records match, fewer if many do.
    fn next_chunk(&self, chunk: i64, at_first: i64, limit: usize) -> i64 {
        if self.undone {
            return (self.per_partition / 2).clamp(1, (chunk / 2).max(1));
        }
        if self.bytes > LOOKED_AT_ONCE {
            return (chunk / 2).max(1);
        }
        let has_room = self.kept_bytes < MERGE_BYTES / 8 && self.bytes < LOOKED_AT_ONCE / 2;
        if self.kept < limit / 10 + 1 && has_room {
            return (chunk * 2).min(MOST_AT_ONCE);
        }
        if self.kept > limit { chunk.min((chunk / 2).max(at_first)) } else { chunk }
    }
}

struct PartitionSearch {
    /// The offsets that were not read yet.
    from: i64,
    to: i64,
    /// Records that were found and not reported yet, in the order in which they will be.
    found: VecDeque<Record>,
    /// The time of the record where reading continues; `None` before the first one.
    edge_ms: Option<i64>,
}

impl PartitionSearch {
    fn new(from: i64, to: i64) -> Self {
        PartitionSearch { from, to, found: VecDeque::new(), edge_ms: None }
    }

    /// Returns whether the part that was not read yet may have a record that comes before the best one found, provided
    /// that offsets are in order of time.
    fn may_have_before(&self, best: Option<(usize, i64)>, newest_first: bool) -> bool {
        if !self.found.is_empty() || self.from >= self.to {
            return false;
        }
        match (best, self.edge_ms) {
            (Some((_, best)), Some(edge)) => {
                if newest_first {
                    edge >= best
                } else {
                    edge <= best
                }
            }
            _ => true,
        }
    }

    /// Takes the next chunk from the part that was not read.
    fn take(&mut self, chunk: i64, newest_first: bool) -> (i64, i64) {
        if newest_first {
            let start = (self.to - chunk).max(self.from);
            let range = (start, self.to);
            self.to = start;
            range
        } else {
            let end = (self.from + chunk).min(self.to);
            let range = (self.from, end);
            self.from = end;
            range
        }
    }

    fn next(&self, newest_first: bool) -> i64 {
        match (self.found.front(), newest_first) {
            (Some(record), true) => record.offset() + 1,
            (Some(record), false) => record.offset(),
            (None, true) => self.to,
            (None, false) => self.from,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_be_in_the_partition_it_had_before_partitions_were_added() {
        for user in ["Ann", "John", "Zoë"] {
            let [before, now] = [3, 5].map(|count| partition_of(user.as_bytes(), count) as usize);
            assert_eq!(partitions_of(user.as_bytes(), 5, 5), BTreeSet::from([now]));
            let all = partitions_of(user.as_bytes(), 3, 5);
            assert!(all.contains(&before) && all.contains(&now) && all.len() <= 3, "{user}: {all:?}");
        }
    }
}
