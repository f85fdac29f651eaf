//! Bounded reads of the topic, beside the tail: a page of history, one record, and what a stream missed.
//!
//! Everything here blocks, for at most a few seconds without progress. Consumers are kept for the next read, as
//! connecting one costs more than most reads.

use std::collections::{BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::watch;

use super::cluster::TopicId;
use super::fetch::Fetcher;
use super::{Connection, QUESTION, Quiet, State, TopicState, partition_of, topics};
use crate::event::Record;

/// Consumers that wait for the next read; each costs threads and sockets.
const KEPT: usize = 4;
/// Records of a partition that a search reads at a time, at most.
const MOST_AT_ONCE: i64 = 20_000;
/// Bytes of records that a search keeps at a time, about, over all partitions.
const KEPT_BYTES: usize = 8 << 20;
/// A read that gets nothing for this long is given up.
const STALLED: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    #[error("kafka is away: {0}")]
    Away(String),
    /// Retention deleted what was asked for, while it was read.
    #[error("records expired while they were read")]
    Expired,
    /// The embedded broker has no index by time.
    #[error("the embedded broker cannot search by time; it can with Apache Kafka (kafka.bootstrap_servers)")]
    NoTimeIndex,
    #[error("kafka: {0}")]
    Client(#[from] KafkaError),
}

/// A bounded read in order of time.
pub struct Query {
    /// First offset of every partition, and the one after the last. Equal or crossed bounds read nothing.
    pub from: Vec<i64>,
    pub to: Vec<i64>,
    pub newest_first: bool,
    /// Records to return at most.
    pub limit: usize,
    /// Records to look at, about, before it stops with what it has.
    pub scan: u64,
}

/// Its answer.
pub struct Page {
    /// Partitions are merged by time; within a partition the order is the offsets'.
    pub records: Vec<Record>,
    pub end: End,
}

/// How far a search went.
pub struct End {
    /// Where to go on: `from` of the next query if oldest came first, `to` if newest did. `None`: there is no more.
    pub next: Option<Vec<i64>>,
    pub scanned: u64,
}

/// What a search tells on its way.
pub enum Step {
    Found(Record),
    Progress {
        scanned: u64,
        /// As in [`End`]; what was found so far has been told.
        next: Vec<i64>,
        /// The time up to which everything was looked at, in milliseconds since 1970.
        reached_ms: Option<i64>,
    },
}

impl Query {
    /// Records between the bounds.
    pub fn total(&self) -> u64 {
        self.from.iter().zip(&self.to).map(|(from, to)| (to - from).max(0) as u64).sum()
    }
}

/// A consumer that waits for the next read, and the topic that it knows, its id and number of partitions: one that knew an
/// earlier topic of the name cannot read this one, and one that knew fewer partitions denies the others until it looks again.
type Idle = ((TopicId, usize), Fetcher<Quiet>);

pub struct History {
    config: ClientConfig,
    topic: Arc<str>,
    embedded: bool,
    state: watch::Receiver<State>,
    idle: Mutex<Vec<Idle>>,
}

impl History {
    pub fn new(connection: &Connection, state: watch::Receiver<State>) -> Self {
        let mut config = connection.reader(&[
            // It never waits for what is still to come, and the next read would wait for this one's last fetch.
            ("fetch.wait.max.ms", "10"),
            ("queued.min.messages", "50000"),
            ("queued.max.messages.kbytes", "4096"),
        ]);
        config.set("enable.partition.eof", "true");
        History {
            config,
            topic: connection.topic.clone(),
            embedded: connection.is_embedded(),
            state,
            idle: Mutex::new(Vec::new()),
        }
    }

    /// The partition where those who use Kafka's usual partitioner put the records of a key.
    pub fn partition_of(&self, key: &[u8]) -> Result<i32, HistoryError> {
        Ok(partition_of(key, self.topic_state()?.partitions.len()))
    }

    /// First and next offset of every partition.
    pub fn bounds(&self) -> Result<Vec<(i64, i64)>, HistoryError> {
        let partitions = self.topic_state()?.partitions.len();
        self.ask(|consumer| topics::watermarks(consumer, &self.topic, partitions))
    }

    /// The first offset of every partition whose record's timestamp is at or after a time, in milliseconds since 1970.
    pub fn offsets_since(&self, ms: i64) -> Result<Vec<i64>, HistoryError> {
        if self.embedded {
            return Err(HistoryError::NoTimeIndex);
        }
        let bounds = self.bounds()?;
        let found = self.ask(|consumer| {
            let mut times = TopicPartitionList::with_capacity(bounds.len());
            for partition in 0..bounds.len() {
                times.add_partition_offset(&self.topic, partition as i32, Offset::Offset(ms.max(0)))?;
            }
            consumer.offsets_for_times(times, QUESTION)
        })?;
        let offset = |partition: usize| found.find_partition(&self.topic, partition as i32).map(|p| p.offset());
        Ok(bounds
            .iter()
            .enumerate()
            .map(|(partition, (_, end))| match offset(partition) {
                Some(Offset::Offset(offset)) if offset >= 0 => offset,
                _ => *end,
            })
            .collect())
    }

    /// One record; `None` if there is none at that offset.
    pub fn record(&self, partition: i32, offset: i64) -> Result<Option<Record>, HistoryError> {
        let bounds = self.bounds()?;
        let Some((low, high)) = usize::try_from(partition).ok().and_then(|index| bounds.get(index)) else {
            return Ok(None);
        };
        if !(*low..*high).contains(&offset) {
            return Ok(None);
        }
        let (mut from, mut to) = (vec![0; bounds.len()], vec![0; bounds.len()]);
        from[partition as usize] = offset;
        to[partition as usize] = offset + 1;
        let mut found = None;
        self.read(&from, &to, |record| {
            found = Some(record);
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// The record of an event's id, among those of its user since a time: in the partition of that key, also in the one
    /// that was it while the topic had fewer. Clocks may differ by a minute.
    pub fn find(&self, id: &str, user: &[u8], since_ms: i64) -> Result<Option<Record>, HistoryError> {
        let at_first = self.topic_state()?.partitions_at_first;
        let ends: Vec<i64> = self.bounds()?.into_iter().map(|(_, high)| high).collect();
        let begins = match self.offsets_since(since_ms - 60_000) {
            Ok(offsets) => offsets,
            Err(HistoryError::NoTimeIndex) => vec![0; ends.len()],
            Err(error) => return Err(error),
        };
        let mut from = ends.clone();
        for partition in partitions_of(user, at_first, ends.len()) {
            // The topic may have grown between two of these questions.
            if let (Some(from), Some(begin)) = (from.get_mut(partition), begins.get(partition)) {
                *from = *begin;
            }
        }
        let mut found = None;
        self.read(&from, &ends, |record| {
            if record.id().as_deref() == Some(id) {
                found = Some(record);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// Reads `[from, to)` of every partition in the order in which it arrives, until `visit` breaks off.
    pub fn read(
        &self,
        from: &[i64],
        to: &[i64],
        mut visit: impl FnMut(Record) -> ControlFlow<()>,
    ) -> Result<(), HistoryError> {
        let mut assignment = TopicPartitionList::new();
        let mut open = vec![false; to.len()];
        for (partition, (from, to)) in from.iter().zip(to).enumerate() {
            if from < to {
                assignment.add_partition_offset(&self.topic, partition as i32, Offset::Offset(*from))?;
                open[partition] = true;
            }
        }
        let mut left = assignment.count();
        if left == 0 {
            return Ok(());
        }
        self.with_fetcher(|fetcher| {
            fetcher.assign(&assignment)?;
            let mut progress = Instant::now();
            'reading: while left > 0 {
                let mut nothing = true;
                for fetched in fetcher.fetch(Duration::from_millis(100)) {
                    nothing = false;
                    let ended = match fetched {
                        Ok(message) => {
                            let (partition, offset) = (message.partition(), message.offset());
                            let index = partition as usize;
                            if !open.get(index).is_some_and(|open| *open) {
                                progress = Instant::now();
                                continue;
                            }
                            if offset < to[index] && visit(message.record()).is_break() {
                                break 'reading;
                            }
                            // Only now: a visitor may wait for a client that takes its time.
                            progress = Instant::now();
                            (offset + 1 >= to[index]).then_some(partition)
                        }
                        Err(KafkaError::PartitionEOF(partition)) => Some(partition),
                        Err(error) => match error.rdkafka_error_code() {
                            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                                return Err(HistoryError::Expired);
                            }
                            _ if progress.elapsed() > STALLED => return Err(HistoryError::Away(error.to_string())),
                            _ => None,
                        },
                    };
                    if let Some(partition) = ended
                        && std::mem::take(&mut open[partition as usize])
                    {
                        left -= 1;
                        let mut done = TopicPartitionList::with_capacity(1);
                        done.add_partition(&self.topic, partition);
                        fetcher.consumer().pause(&done)?;
                    }
                }
                if nothing && progress.elapsed() > STALLED {
                    return Err(HistoryError::Away(format!("nothing came for {} s", STALLED.as_secs())));
                }
            }
            // A pause outlives the assignment. Undone before, it might fetch behind the end, and the next read would hear of it.
            fetcher.consumer().unassign()?;
            fetcher.consumer().resume(&assignment)?;
            // What was fetched and not wanted would keep its memory, and the client from ending.
            while fetcher.fetch(Duration::ZERO).next().is_some() {}
            Ok(())
        })
    }

    /// A page in order of time.
    pub fn page(&self, query: &Query, keep: impl Fn(&Record) -> bool) -> Result<Page, HistoryError> {
        let mut records = Vec::new();
        let end = self.search(query, keep, |step| {
            if let Step::Found(record) = step {
                records.push(record);
            }
            ControlFlow::Continue(())
        })?;
        Ok(Page { records, end })
    }

    /// Searches in order of time: partitions are read chunk by chunk and merged. A record is told as soon as no partition
    /// can still have one that comes before it. What is kept meanwhile is bounded in bytes.
    pub fn search(
        &self,
        query: &Query,
        keep: impl Fn(&Record) -> bool,
        mut tell: impl FnMut(Step) -> ControlFlow<()>,
    ) -> Result<End, HistoryError> {
        let newest_first = query.newest_first;
        let mut lanes: Vec<Lane> =
            query.from.iter().zip(&query.to).map(|(from, to)| Lane::new(*from, (*to).max(*from))).collect();
        let (mut found, mut scanned) = (0, 0);
        let at_first = query.limit.clamp(100, 1000) as i64;
        let mut chunk = at_first;
        let place = |lanes: &[Lane]| lanes.iter().map(|lane| lane.next(newest_first)).collect::<Vec<_>>();
        while found < query.limit {
            let time = |lane: &Lane| lane.found.front().map(|record| self.order_ms(record));
            let full = lanes.iter().enumerate().filter(|(_, lane)| !lane.found.is_empty());
            let best = match newest_first {
                true => full.max_by_key(|(_, lane)| time(lane)),
                false => full.min_by_key(|(_, lane)| time(lane)),
            };
            let best = best.map(|(index, lane)| (index, time(lane).unwrap_or(i64::MIN)));
            let open: Vec<usize> =
                (0..lanes.len()).filter(|index| lanes[*index].may_have_before(best, newest_first)).collect();
            if open.is_empty() {
                let Some(record) = best.and_then(|(index, _)| lanes[index].found.pop_front()) else { break };
                found += 1;
                if tell(Step::Found(record)).is_break() {
                    break;
                }
                continue;
            }
            if scanned >= query.scan {
                break;
            }
            let Some((looked_at, kept)) = self.load(&mut lanes, &open, chunk, newest_first, &keep)? else {
                chunk = (chunk / 4).max(1);
                continue;
            };
            scanned += looked_at;
            // Few matches: look at more at a time. Many: at as few as in the beginning.
            if kept < query.limit.min(1000) / 10 + 1 {
                chunk = (chunk * 2).min(MOST_AT_ONCE);
            } else if kept > query.limit.min(1000) {
                chunk = chunk.min((chunk / 2).max(at_first));
            }
            let edges = lanes.iter().filter(|lane| lane.from < lane.to).map(|lane| lane.edge_ms);
            let reached_ms = if newest_first { edges.flatten().max() } else { edges.flatten().min() };
            if tell(Step::Progress { scanned, next: place(&lanes), reached_ms }).is_break() {
                break;
            }
        }
        let more = lanes.iter().any(|lane| lane.from < lane.to || !lane.found.is_empty());
        Ok(End { next: more.then(|| place(&lanes)), scanned })
    }

    /// Reads the next chunk of some lanes, and says how many records it looked at and kept. `None`, and nothing is read, if
    /// what is to be kept is too much for a chunk of more than one record.
    fn load(
        &self,
        lanes: &mut [Lane],
        which: &[usize],
        chunk: i64,
        newest_first: bool,
        keep: &impl Fn(&Record) -> bool,
    ) -> Result<Option<(u64, usize)>, HistoryError> {
        let before: Vec<_> = lanes.iter().map(|lane| (lane.from, lane.to, lane.edge_ms)).collect();
        let room = KEPT_BYTES / lanes.len() * which.len();
        let (mut from, mut to) = (vec![0; lanes.len()], vec![0; lanes.len()]);
        for index in which {
            (from[*index], to[*index]) = lanes[*index].take(chunk, newest_first);
        }
        let (mut scanned, mut kept, mut bytes) = (0, 0, 0);
        let (mut begun, mut found) = (vec![false; lanes.len()], vec![Vec::new(); lanes.len()]);
        self.read(&from, &to, |record| {
            scanned += 1;
            let index = record.partition() as usize;
            // The record that lies next to what was not read yet.
            if !newest_first || !std::mem::replace(&mut begun[index], true) {
                lanes[index].edge_ms = Some(self.order_ms(&record));
            }
            if keep(&record) {
                kept += 1;
                bytes += record.size();
                found[index].push(record);
            }
            if bytes > room && chunk > 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if bytes > room && chunk > 1 {
            for (lane, before) in lanes.iter_mut().zip(before) {
                (lane.from, lane.to, lane.edge_ms) = before;
            }
            return Ok(None);
        }
        for (lane, found) in lanes.iter_mut().zip(found) {
            match newest_first {
                true => lane.found.extend(found.into_iter().rev()),
                false => lane.found.extend(found),
            }
        }
        Ok(Some((scanned, kept)))
    }

    /// By what pages are ordered: Kafka's timestamp; the embedded broker's is a constant, so there it is the event's.
    fn order_ms(&self, record: &Record) -> i64 {
        let ms = if self.embedded { record.time_ms() } else { record.timestamp_ms() };
        ms.unwrap_or(i64::MIN)
    }

    fn topic_state(&self) -> Result<Arc<TopicState>, HistoryError> {
        match &*self.state.borrow() {
            State::Up(topic) => Ok(topic.clone()),
            State::Connecting { reason, .. } | State::Away { reason, .. } => Err(HistoryError::Away(reason.clone())),
        }
    }

    /// Asks once more, with a consumer made for it, where one that waited was wrong: it may know the leaders of before, and
    /// librdkafka denies the partitions of a broker that went.
    fn ask<T>(&self, question: impl Fn(&BaseConsumer<Quiet>) -> KafkaResult<T>) -> Result<T, HistoryError> {
        let begun = Instant::now();
        match self.with_fetcher(|fetcher| Ok(question(fetcher.consumer())?)) {
            Err(HistoryError::Client(error)) if begun.elapsed() < QUESTION => {
                tracing::debug!(kafka.topic = &*self.topic, error = %error, "asked once more");
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).drain(..).for_each(end);
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
        stale.into_iter().for_each(end);
        let fetcher = match kept {
            Some((_, fetcher)) => fetcher,
            None => Fetcher::new(&self.config, Quiet)?,
        };
        let result = work(&fetcher);
        // One that failed may be in any state.
        if result.is_ok() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < KEPT {
                idle.push((topic, fetcher));
                return result;
            }
        }
        end((topic, fetcher));
        result
    }
}

/// Ending a client waits for its threads, which nobody who reads should have to.
fn end(idle: Idle) {
    let _ = std::thread::Builder::new().name("kafka-end".into()).spawn(move || drop(idle));
}

/// The partitions where the records of a key may be, of a topic that grew from one number of partitions to another.
fn partitions_of(key: &[u8], at_first: usize, now: usize) -> BTreeSet<usize> {
    (at_first.clamp(1, now.max(1))..=now).map(|count| partition_of(key, count) as usize).collect()
}

/// A partition's part of a page.
struct Lane {
    /// What was not read yet.
    from: i64,
    to: i64,
    /// What was found and not handed out yet, the next one first.
    found: VecDeque<Record>,
    /// The time of the record where reading goes on; `None` before the first.
    edge_ms: Option<i64>,
}

impl Lane {
    fn new(from: i64, to: i64) -> Self {
        Lane { from, to, found: VecDeque::new(), edge_ms: None }
    }

    /// Whether what was not read yet may come before the best that was found; offsets being in order of time.
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

    /// Cuts the next chunk off what was not read.
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
    fn a_key_of_a_topic_that_grew_may_be_in_the_partition_of_before() {
        for user in ["Ann", "John", "Zoë"] {
            let [before, now] = [3, 5].map(|count| partition_of(user.as_bytes(), count) as usize);
            assert_eq!(partitions_of(user.as_bytes(), 5, 5), BTreeSet::from([now]));
            let all = partitions_of(user.as_bytes(), 3, 5);
            assert!(all.contains(&before) && all.contains(&now) && all.len() <= 3, "{user}: {all:?}");
        }
    }
}
