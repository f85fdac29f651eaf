//! The ring: blocks of records, as the tail published them. Each block is encoded at most once per dialect and filter.
//!
//! The only writer is the tail's thread. Readers are subscriptions; they hold a block only while they copy it.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use footfall_core::Pointer;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use super::column::Column;
use super::encodings::{Cache, EncodingSlot, Encodings};
use super::index::Index;
use super::waiters::{Waiter, Waiters};
use super::waves::{WaveClock, Waves};
use super::{Cursor, Dialect, Filter, Frames, Gap, GapReason, UNKNOWN};
use crate::bounds::BLOCK_BYTES;
use crate::event::Record;

/// Most records in one block, so that eviction moves in steps that are small beside the ring. A block has fewer if the
/// ring is smaller than this, or if this many are a large part of the ring's bytes.
const BLOCK: usize = 1000;
/// The ring's bytes have room for at least this many blocks.
const BLOCKS: usize = 32;
/// At most one part in this many of the ring is filled before the streams are woken, so that those that keep up lose
/// nothing to eviction.
const UNANNOUNCED: usize = 4;

/// Encodings get one part in this many of the feed's bytes; records get the rest.
const ENCODINGS: usize = 4;

/// Approximate bytes of one entry of the filtered encodings or of the columns, without its content and its key.
const ENTRY: usize = 128;

/// The feed's metrics.
#[derive(Debug, Default, Clone)]
pub struct FeedMetrics {
    pub streams: Gauge,
    pub records: Counter,
    /// How often the streams were woken for new records.
    pub waves: Counter,
    /// Seconds between two waves while records come, from their measured duration.
    pub pace: Gauge<f64, AtomicU64>,
    pub dropped: Counter,
    pub gaps: Counter,
}

/// What [`Feed::each_matching`] has looked at.
pub struct Looked {
    /// Number of the block from which on a later call continues.
    pub next: u64,
    /// Whether memory still had all the blocks that were asked for.
    pub is_whole: bool,
    /// The oldest record, whether it matches or not.
    pub oldest: Option<Record>,
}

/// Records that were published together.
pub(super) struct Block {
    /// Number of the block, counted from the start of the process.
    pub number: u64,
    /// How many records were published before this block, plus how many of them expired before they could be read.
    pub before: u64,
    pub records: Box<[Record]>,
    /// The cursors before and after the block.
    pub start: Arc<Cursor>,
    pub end: Arc<Cursor>,
    /// Partitions that still had no leader when the block was published. Clients that know no offset in one of them get
    /// [`UNKNOWN`] for it in their cursors; `start` and `end` have 0 there.
    unknown: Arc<[i32]>,
    /// The cursor after the block, as such clients get it.
    client_end: Arc<Cursor>,
    /// A gap before the block: records that expired or belong to a topic that was deleted.
    pub gap: Option<Gap>,
    /// Set on the block from which on a partition is read that had no leader when reading started.
    pub partition_start: Option<PartitionStart>,
    size: usize,
    encodings: Arc<EncodingSlot>,
}

/// The answer to a look-up of a block by its number.
pub(super) enum Lookup {
    Found(Arc<Block>),
    /// The block was evicted; a reader may continue at `resume`.
    Evicted {
        resume: Arc<Block>,
    },
    /// The block was not published yet.
    NotYet,
}

/// Where reading of a partition starts that had no leader at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartitionStart {
    pub partition: i32,
    /// The first offset that the tail reads.
    pub from: i64,
    /// The offset at which readers continue that knew no offset in the partition.
    pub since: i64,
}

impl Block {
    /// The value of `before` for the next block.
    pub fn after(&self) -> u64 {
        let missed = self.gap.as_ref().and_then(|gap| gap.missed).unwrap_or(0);
        self.before + self.records.len() as u64 + missed
    }

    /// The cursor before the block, for clients that know no offset in any of the unknown partitions.
    pub fn client_start(&self) -> Cursor {
        with_unknown(&self.start, &self.unknown)
    }

    /// The cursor after the block, for the same clients.
    pub fn client_end(&self) -> &Arc<Cursor> {
        &self.client_end
    }

    /// Returns whether a client that has everything before `floor` has nothing of this block yet, and gets the same
    /// cursors as other clients.
    pub fn starts_behind(&self, floor: &Cursor) -> bool {
        match self.unknown.is_empty() {
            true => self.start.covers(floor),
            false => self.knows_as_little(floor) && self.client_start().covers(floor),
        }
    }

    /// Returns the same for the blocks after this one.
    pub fn ends_behind(&self, floor: &Cursor) -> bool {
        self.knows_as_little(floor) && self.client_end.covers(floor)
    }

    fn knows_as_little(&self, floor: &Cursor) -> bool {
        self.unknown.iter().all(|partition| floor.get(*partition) == UNKNOWN)
    }

    /// Approximate bytes of its records.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Returns all frames of the block. The first reader encodes them; the others share the bytes.
    pub fn frames(&self, frames: &Frames, topic: &str, dialect: Dialect) -> Bytes {
        let encodings = self.encodings.encodings();
        let cell = match dialect {
            Dialect::Json => &encodings.json,
            Dialect::Html => &encodings.html,
            Dialect::Lines => &encodings.lines,
        };
        let mut made = 0;
        let bytes = cell.get_or_init(|| {
            let (bytes, size) = self.encode(frames, topic, dialect, |_, _| true);
            made = size;
            bytes
        });
        if made > 0 {
            self.encodings.count(&encodings, made);
        }
        bytes.clone()
    }

    /// Returns the frames that match a filter, encoded once for all subscriptions with the same filter; empty if none
    /// match.
    pub fn filtered(&self, frames: &Frames, topic: &str, dialect: Dialect, key: &Arc<str>, filter: &Filter) -> Bytes {
        let encodings = self.encodings.encodings();
        let candidates = self.candidates(&encodings, filter);
        if candidates.as_ref().is_some_and(Vec::is_empty) {
            return Bytes::new();
        }
        let filtered = || encodings.filtered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = filtered().get(&(dialect, key.clone())) {
            return bytes.clone();
        }
        let matching = self.among(candidates, filter);
        if matching.is_empty() {
            // Not cached: most filters match nothing in a block.
            return Bytes::new();
        }
        let mut matching = matching.into_iter().peekable();
        let (bytes, size) = self.encode(frames, topic, dialect, |place, _| matching.next_if_eq(&place).is_some());
        let before = filtered().insert((dialect, key.clone()), bytes.clone());
        // Two readers may have encoded the same frames at the same time.
        if before.is_none() {
            self.encodings.count(&encodings, size + ENTRY + key.len());
        }
        bytes
    }

    /// Returns the indices of the records that match a filter.
    pub fn matching(&self, filter: &Filter) -> Vec<usize> {
        match filter.is_empty() {
            true => (0..self.records.len()).collect(),
            false => self.among(self.candidates(&self.encodings.encodings(), filter), filter),
        }
    }

    /// Returns the indices outside of which nothing matches, if the index can tell.
    fn candidates(&self, encodings: &Arc<Encodings>, filter: &Filter) -> Option<Vec<u32>> {
        if !filter.asks_for_users() && !filter.asks_for_actions() {
            return None;
        }
        let mut made = 0;
        let index = encodings.index.get_or_init(|| {
            let index = Index::new(&self.records);
            made = index.size();
            index
        });
        if made > 0 {
            self.encodings.count(encodings, made);
        }
        index.candidates(filter)
    }

    fn among(&self, candidates: Option<Vec<u32>>, filter: &Filter) -> Vec<usize> {
        if let Some(places) = candidates {
            let matches = |place: &usize| filter.matches(&self.records[*place]);
            return places.into_iter().map(|place| place as usize).filter(matches).collect();
        }
        let columns: Vec<_> = filter.conditions.iter().map(|condition| self.column(condition.pointer())).collect();
        let matches = |(place, record): (usize, &Record)| {
            let found = |condition: usize| columns.get(condition)?.get()?.get(record, place);
            filter.matches_found(record, found).then_some(place)
        };
        self.records.iter().enumerate().filter_map(matches).collect()
    }

    /// Returns where the records have a field.
    fn column(&self, pointer: &Pointer) -> Arc<OnceLock<Column>> {
        let encodings = self.encodings.encodings();
        let cell = {
            let mut columns = encodings.columns.lock().unwrap_or_else(PoisonError::into_inner);
            match columns.get(pointer) {
                Some(cell) => cell.clone(),
                None => columns.entry(pointer.clone()).or_default().clone(),
            }
        };
        let mut made = 0;
        cell.get_or_init(|| {
            let column = Column::new(&self.records, pointer);
            made = ENTRY + pointer.size() + column.size();
            column
        });
        if made > 0 {
            self.encodings.count(&encodings, made);
        }
        cell
    }

    /// Encodes the records that `wants` selects. Returns the frames and the bytes that they take in memory.
    fn encode(
        &self,
        frames: &Frames,
        topic: &str,
        dialect: Dialect,
        mut wants: impl FnMut(usize, &Record) -> bool,
    ) -> (Bytes, usize) {
        let mut out = Vec::new();
        let mut cursor = self.client_start();
        for (place, record) in self.records.iter().enumerate() {
            cursor.set(record.partition(), record.offset() + 1);
            if wants(place, record) {
                frames.event(&mut out, dialect, topic, record, &cursor);
            }
        }
        let size = out.capacity();
        (out.into(), size)
    }
}

/// Returns the cursor with [`UNKNOWN`] in these partitions, for clients that know no offset in them.
fn with_unknown(place: &Cursor, unknown: &[i32]) -> Cursor {
    let mut place = place.clone();
    unknown.iter().for_each(|partition| place.set(*partition, UNKNOWN));
    place
}

/// The blocks in memory.
struct Ring {
    blocks: VecDeque<Arc<Block>>,
    /// The block that announces the topic's last recreation. Not subject to eviction: cursors of the old topic are
    /// meaningless, so every old reader must see it.
    recreation: Option<Arc<Block>>,
    /// The cursor after the newest record.
    head: Arc<Cursor>,
    /// Number of the next block, and its [`Block::before`].
    next: u64,
    published: u64,
    /// Records in memory, and their bytes.
    records: usize,
    bytes: usize,
    /// Partitions that still have no leader.
    unknown: Arc<[i32]>,
    /// Partitions that had no leader when reading started, and are read now.
    late_starts: Vec<PartitionStart>,
    /// Where the topic ended when reading started. Until the tail has read up to there, "now" is this cursor and not
    /// the head.
    ends: Cursor,
    started: bool,
}

struct Bounds {
    records: usize,
    bytes: usize,
}

/// The live feed. Cheap to clone.
#[derive(Clone)]
pub struct Feed {
    shared: Arc<Shared>,
}

struct Shared {
    topic: Box<str>,
    frames: Frames,
    bounds: Bounds,
    encodings: Arc<Cache>,
    ring: RwLock<Ring>,
    /// Number of the block after the last wave's: no reader needs to look for it before the next wave.
    announced: AtomicU64,
    waiters: Arc<Waiters>,
    waves: WaveClock,
    streams: AtomicUsize,
    metrics: FeedMetrics,
}

impl Feed {
    /// Makes a feed that keeps at most this many records, and this many bytes of records and encodings.
    pub fn new(topic: &str, frames: Frames, records: usize, bytes: usize) -> Self {
        let ring = Ring {
            blocks: VecDeque::new(),
            recreation: None,
            head: Arc::default(),
            next: 0,
            published: 0,
            records: 0,
            bytes: 0,
            unknown: Arc::default(),
            late_starts: Vec::new(),
            ends: Cursor::default(),
            started: false,
        };
        let shared = Shared {
            topic: topic.into(),
            frames,
            bounds: Bounds { records, bytes: bytes - bytes / ENCODINGS },
            encodings: Cache::new(bytes / ENCODINGS),
            ring: RwLock::new(ring),
            announced: AtomicU64::new(0),
            waiters: Arc::default(),
            waves: WaveClock::new(),
            streams: AtomicUsize::new(0),
            metrics: FeedMetrics::default(),
        };
        Feed { shared: Arc::new(shared) }
    }

    pub fn topic(&self) -> &str {
        &self.shared.topic
    }

    pub fn frames(&self) -> &Frames {
        &self.shared.frames
    }

    pub fn metrics(&self) -> &FeedMetrics {
        &self.shared.metrics
    }

    /// Returns a writer. A feed has only one.
    pub fn writer(&self) -> Writer {
        Writer { feed: self.clone(), pending: Vec::new(), bytes: 0, unannounced: (0, 0), waves: Waves::default() }
    }

    /// Returns the cursor of the live end; `None` until the tail has started. A partition that still has no leader is
    /// at [`UNKNOWN`].
    pub fn now(&self) -> Option<Cursor> {
        self.read(|ring| ring.started.then(|| ring.place().max(&ring.ends)))
    }

    /// Returns how many records are in memory, their bytes, and the bytes of their encodings.
    pub fn kept(&self) -> (usize, usize, usize) {
        let (records, bytes) = self.read(|ring| (ring.records, ring.bytes));
        (records, bytes, self.shared.encodings.bytes())
    }

    /// Returns whether the tail has read all records that the topic held when the tail started.
    pub(super) fn has_caught_up(&self) -> bool {
        self.read(|ring| ring.started && ring.head.covers(&ring.ends))
    }

    /// Waits until the tail has started. Returns the cursor of the live end at that moment.
    pub async fn started(&self) -> Cursor {
        let mut waiter = self.waiter();
        loop {
            if let Some(now) = self.now() {
                return now;
            }
            waiter.wave().await;
        }
    }

    /// The cursor after the newest record in memory.
    pub fn head(&self) -> Cursor {
        self.read(Ring::place)
    }

    /// The cursor before the oldest record in memory.
    pub fn oldest(&self) -> Cursor {
        self.read(Ring::oldest)
    }

    /// Replaces [`UNKNOWN`] for partitions that are read by now. Returns whether there were any: then the reader must
    /// get a gap, because it is unknown whether records lie between its old position and the new offset.
    pub fn settle(&self, place: &mut Cursor) -> bool {
        self.read(|ring| {
            let mut settled = false;
            for partition_start in &ring.late_starts {
                if place.get(partition_start.partition) == UNKNOWN {
                    place.set(partition_start.partition, partition_start.since);
                    settled = true;
                }
            }
            settled
        })
    }

    /// Returns whether a cursor lies before the first offset that was read of a partition that had no leader at first.
    pub(super) fn starts_before(&self, place: &Cursor) -> bool {
        self.read(|ring| {
            ring.late_starts.iter().any(|partition_start| place.get(partition_start.partition) < partition_start.from)
        })
    }

    /// Returns whether memory has every record after a cursor.
    pub fn remembers(&self, place: &Cursor) -> bool {
        self.locate(place).is_ok()
    }

    /// Waits until the tail has read the record at this offset.
    pub async fn reaches(&self, partition: i32, offset: i64) {
        let mut waiter = self.waiter();
        while !self.read(|ring| ring.started && ring.head.get(partition) > offset) {
            waiter.wave().await;
        }
    }

    /// Returns up to `count` records that match, newest first, and the cursor after the newest record in memory.
    pub fn latest(&self, filter: &Filter, count: usize) -> (Vec<Record>, Option<Cursor>) {
        let (head, blocks) = self.newest_first();
        let records = blocks.flat_map(|block| {
            let matching = block.matching(filter).into_iter().rev();
            matching.map(move |index| block.records[index].clone())
        });
        (records.take(count).collect(), self.read(|ring| ring.started).then_some(head))
    }

    /// Returns the cursor after the newest record, and an iterator over the blocks, newest first. The iterator takes
    /// the read lock per step, so a long scan never blocks the writer; blocks that are evicted meanwhile are skipped.
    fn newest_first(&self) -> (Cursor, impl Iterator<Item = Arc<Block>>) {
        let (head, mut number) = self.read(|ring| (ring.place(), ring.next));
        let blocks = std::iter::from_fn(move || {
            number = number.checked_sub(1)?;
            self.read(|ring| {
                let place = number.checked_sub(ring.blocks.front()?.number)?;
                ring.blocks.get(place as usize).cloned()
            })
        });
        (head, blocks)
    }

    /// Calls `each` with the matching records in memory, newest first: those of the blocks from number `from` on, or all. The
    /// read lock is taken for each block.
    pub fn each_matching(&self, filter: &Filter, from: Option<u64>, mut each: impl FnMut(&Record)) -> Looked {
        let (_, blocks) = self.newest_first();
        let mut looked = Looked { next: from.unwrap_or(0), is_whole: false, oldest: None };
        for block in blocks {
            looked.next = looked.next.max(block.number + 1);
            if from.is_some_and(|from| block.number < from) {
                looked.is_whole = true;
                break;
            }
            block.matching(filter).into_iter().rev().for_each(|index| each(&block.records[index]));
            looked.oldest = block.records.first().cloned().or(looked.oldest);
            looked.is_whole = from == Some(block.number);
        }
        looked
    }

    /// Returns the mean bytes of key, value and headers of the latest `count` records, by partition. Partitions without
    /// one of them are left out.
    pub fn mean_sizes(&self, count: usize) -> BTreeMap<i32, f64> {
        let mut sums: BTreeMap<i32, (usize, usize)> = BTreeMap::new();
        self.read(|ring| {
            let newest_first = ring.blocks.iter().rev().flat_map(|block| block.records.iter().rev());
            for record in newest_first.take(count) {
                let (bytes, records) = sums.entry(record.partition()).or_default();
                *bytes += record.data_size();
                *records += 1;
            }
        });
        sums.into_iter().map(|(partition, (bytes, records))| (partition, bytes as f64 / records as f64)).collect()
    }

    /// Returns the cursor after which the last `count` matching records in memory come, and how many there are.
    pub fn back(&self, filter: &Filter, count: usize) -> (Cursor, usize) {
        let (mut place, blocks) = self.newest_first();
        let mut found = 0;
        for block in blocks {
            for index in block.matching(filter).into_iter().rev() {
                if found == count {
                    return (place, found);
                }
                let record = &block.records[index];
                place.set(record.partition(), record.offset());
                found += 1;
            }
        }
        (place, found)
    }

    /// Returns the cursor before the first record in memory whose time is at or after `ms` (milliseconds since 1970).
    pub fn since(&self, ms: i64) -> Cursor {
        let (mut place, blocks) = self.newest_first();
        for block in blocks {
            for record in block.records.iter().rev() {
                if record.time_ms().is_some_and(|time| time >= ms) {
                    place.set(record.partition(), record.offset());
                }
            }
        }
        place
    }

    /// The number of open streams.
    pub fn streams(&self) -> usize {
        self.shared.streams.load(Ordering::Relaxed)
    }

    /// Counts a stream as open until the guard is dropped. Returns `None` if `most` streams are open already.
    pub fn open(&self, most: usize) -> Option<OpenStream> {
        let more = |open| (open < most).then_some(open + 1);
        self.shared.streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        self.shared.metrics.streams.inc();
        Some(OpenStream { feed: self.clone() })
    }

    /// Notes that a wave has reached a stream.
    pub(super) fn woken(&self) {
        self.shared.waves.woken();
    }

    /// Wakes the streams that wait for records, to look at something else.
    pub fn wake(&self) {
        self.shared.waiters.wake();
    }

    pub(super) fn waiter(&self) -> Waiter {
        self.shared.waiters.join()
    }

    /// Number of the block after the last one for which the streams were woken. A reader step by step waits there; one that
    /// skips to the newest records sees those that are not announced yet too.
    pub(super) fn announced(&self) -> u64 {
        self.shared.announced.load(Ordering::Acquire)
    }

    /// Looks up a block by its number. If it was evicted, the answer has the block in the middle of the ring: a slow
    /// reader that continued at the oldest one would be evicted again at once. A reader whose position is in an older
    /// incarnation of the topic gets the block that announces the recreation.
    pub(super) fn block(&self, number: u64) -> Lookup {
        self.read(|ring| {
            let Some(oldest) = ring.blocks.front().map(|block| block.number) else { return Lookup::NotYet };
            if let Some(recreation) = &ring.recreation
                && number <= recreation.number
            {
                return Lookup::Found(recreation.clone());
            }
            if number < oldest {
                return ring.middle().map_or(Lookup::NotYet, |block| Lookup::Evicted { resume: block.clone() });
            }
            let place = (number - oldest) as usize;
            ring.blocks.get(place).map_or(Lookup::NotYet, |block| Lookup::Found(block.clone()))
        })
    }

    /// Returns the blocks of these numbers, if memory has them all.
    pub(super) fn blocks(&self, numbers: Range<u64>) -> Option<Vec<Arc<Block>>> {
        self.read(|ring| {
            let place = |number: u64| Some(number.checked_sub(ring.blocks.front()?.number)? as usize);
            let (from, to) = (place(numbers.start)?, place(numbers.end)?);
            (from <= to && to <= ring.blocks.len()).then(|| ring.blocks.range(from..to).cloned().collect())
        })
    }

    /// The number of the block that announced the topic's last recreation: it identifies the topic's incarnation.
    pub fn incarnation(&self) -> Option<u64> {
        self.read(|ring| ring.recreation.as_ref().map(|block| block.number))
    }

    /// Finds where a reader continues that has everything before `place`: the number of its next block, and the records
    /// that were published before that block. If those records were evicted, returns the cursor of the middle of the
    /// ring as an error: a reader that catches up to there from Kafka is not evicted again at once.
    pub(super) fn locate(&self, place: &Cursor) -> Result<(u64, u64), Arc<Cursor>> {
        self.read(|ring| {
            let oldest = ring.oldest();
            if !place.covers(&oldest) {
                let middle = ring.middle().map_or(&ring.head, |block| &block.start);
                return Err(if middle.covers(&oldest) { middle.clone() } else { Arc::new(middle.max(&oldest)) });
            }
            let behind = ring.blocks.partition_point(|block| place.covers(&block.end));
            Ok(ring.blocks.get(behind).map_or((ring.next, ring.published), |block| (block.number, block.before)))
        })
    }

    fn write(&self, change: impl FnOnce(&mut Ring)) {
        change(&mut self.shared.ring.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn read<T>(&self, look: impl FnOnce(&Ring) -> T) -> T {
        look(&self.shared.ring.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Counts one open stream until it is dropped.
pub struct OpenStream {
    feed: Feed,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.feed.shared.streams.fetch_sub(1, Ordering::Relaxed);
        self.feed.shared.metrics.streams.dec();
    }
}

/// Fills the feed. Records that arrive in quick succession are published together; a single one is published at once.
pub struct Writer {
    feed: Feed,
    pending: Vec<Record>,
    /// Bytes of the pending records.
    bytes: usize,
    /// Records, and their bytes, that are in the ring and for which the streams were not woken yet.
    unannounced: (usize, usize),
    waves: Waves,
}

impl Writer {
    pub fn push(&mut self, record: Record) {
        self.bytes += record.size();
        self.pending.push(record);
        let bounds = &self.feed.shared.bounds;
        if self.pending.len() >= BLOCK.min(bounds.records) || self.bytes >= (bounds.bytes / BLOCKS).min(BLOCK_BYTES) {
            let most = (bounds.records / UNANNOUNCED, bounds.bytes / UNANNOUNCED);
            self.append();
            if self.unannounced.0 >= most.0 || self.unannounced.1 >= most.1 {
                self.announce();
            }
        }
    }

    /// Publishes the pending records if it is time. Returns how long there is nothing to do.
    pub fn publish(&mut self) -> Duration {
        if self.pending.is_empty() && self.unannounced.0 == 0 {
            return Duration::MAX;
        }
        let wait = self.waves.wait();
        if !wait.is_zero() {
            return wait;
        }
        self.flush();
        Duration::MAX
    }

    /// Sets the offsets at which reading starts, and where the topic ended at that moment. A partition at [`UNKNOWN`]
    /// has no leader; it is read after [`start_partition`](Self::start_partition).
    pub fn start(&mut self, positions: &[i64], ends: &[i64]) {
        self.feed.write(|ring| {
            let unknown = (0..).zip(positions).filter(|(_, position)| **position == UNKNOWN);
            ring.unknown = unknown.map(|(partition, _)| partition).collect();
            let known = |position: &i64| if *position == UNKNOWN { 0 } else { *position };
            ring.head = Arc::new(Cursor::new(positions.iter().map(known).collect::<Vec<_>>()));
            ring.ends = Cursor::new(ends);
            ring.started = true;
        });
        self.announce();
    }

    /// Starts a partition that had no leader when reading started: it is read from the offset `from` on, and ended at
    /// `end` at that moment. Readers that knew no offset in it continue at `since`.
    pub fn start_partition(&mut self, partition: i32, from: i64, since: i64, end: i64) {
        self.flush(); // those records belong before the block
        self.feed.write(|ring| {
            let partition_start = PartitionStart { partition, from, since };
            ring.unknown = ring.unknown.iter().copied().filter(|unknown| *unknown != partition).collect();
            ring.late_starts.push(partition_start);
            ring.ends.set(partition, end);
            let before = ring.head.clone();
            Arc::make_mut(&mut ring.head).set(partition, from);
            ring.append(Box::new([]), before, None, Some(partition_start), &self.feed.shared.encodings);
        });
        self.announce();
    }

    /// Adds partitions, up to this number; each is read from offset 0.
    pub fn add_partitions(&mut self, partitions: usize) {
        self.feed.write(|ring| Arc::make_mut(&mut ring.head).grow(partitions));
        self.announce();
    }

    /// Records that the records of a partition before offset `next` expired before they were read.
    pub fn skip(&mut self, partition: i32, next: i64) {
        self.flush(); // those records belong before the gap
        let mut resumed = self.feed.read(|ring| Cursor::clone(&ring.head));
        let requested = resumed.to_string();
        let missed = (next - resumed.get(partition)).max(0) as u64;
        resumed.set(partition, next);
        self.gap(Gap { requested, resumed, missed: Some(missed), reason: GapReason::Expired }, false);
    }

    /// Starts over after the topic was recreated: drops what is in memory, which belongs to the old topic.
    pub fn restart(&mut self, positions: &[i64]) {
        self.flush();
        let requested = self.feed.read(|ring| ring.head.to_string());
        let gap = Gap { requested, resumed: Cursor::new(positions), missed: None, reason: GapReason::TopicRecreated };
        self.gap(gap, true);
    }

    fn gap(&mut self, gap: Gap, recreated: bool) {
        self.feed.write(|ring| {
            let before = std::mem::replace(&mut ring.head, Arc::new(gap.resumed.clone()));
            let encodings = &self.feed.shared.encodings;
            if !recreated {
                return ring.append(Box::new([]), before, Some(gap), None, encodings);
            }
            ring.blocks.clear();
            (ring.records, ring.bytes) = (0, 0);
            ring.ends = Cursor::default();
            (ring.unknown, ring.late_starts) = (Arc::default(), Vec::new());
            // The cursor before it belongs to the old topic.
            ring.append(Box::new([]), ring.head.clone(), Some(gap), None, encodings);
            ring.recreation = ring.blocks.back().cloned();
        });
        self.announce();
    }

    /// Publishes the pending records now.
    pub(super) fn flush(&mut self) {
        self.append();
        if self.unannounced.0 > 0 {
            self.announce();
        }
    }

    /// Moves the pending records into the ring, as one block.
    fn append(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let records = std::mem::take(&mut self.pending).into_boxed_slice();
        self.unannounced.0 += records.len();
        self.unannounced.1 += std::mem::take(&mut self.bytes);
        self.feed.shared.metrics.records.inc_by(records.len() as u64);
        let bounds = &self.feed.shared.bounds;
        self.feed.write(|ring| {
            let start = ring.head.clone();
            let head = Arc::make_mut(&mut ring.head);
            for record in &records {
                head.set(record.partition(), record.offset() + 1);
            }
            ring.append(records, start, None, None, &self.feed.shared.encodings);
            while ring.blocks.len() > 1 && (ring.records > bounds.records || ring.bytes > bounds.bytes) {
                if let Some(oldest) = ring.blocks.pop_front() {
                    ring.records -= oldest.records.len();
                    ring.bytes -= oldest.size;
                }
            }
        });
    }

    /// Wakes the streams.
    fn announce(&mut self) {
        let (_, bytes) = std::mem::take(&mut self.unannounced);
        let shared = &self.feed.shared;
        self.waves.begin(&shared.waves, bytes);
        shared.metrics.waves.inc();
        shared.metrics.pace.set(self.waves.pace().as_secs_f64());
        shared.announced.store(self.feed.read(|ring| ring.next), Ordering::Release);
        shared.waiters.begin_wave();
    }
}

impl Ring {
    fn middle(&self) -> Option<&Arc<Block>> {
        self.blocks.get(self.blocks.len() / 2)
    }

    /// The cursor after the newest record, for clients that know no offset in the unknown partitions.
    fn place(&self) -> Cursor {
        with_unknown(&self.head, &self.unknown)
    }

    /// The cursor before the oldest record.
    fn oldest(&self) -> Cursor {
        let mut oldest = Cursor::clone(self.blocks.front().map_or(&self.head, |block| &block.start));
        for partition_start in &self.late_starts {
            oldest.set(partition_start.partition, oldest.get(partition_start.partition).max(partition_start.from));
        }
        oldest
    }

    /// Appends a block with the records between `start` and the head.
    fn append(
        &mut self,
        records: Box<[Record]>,
        start: Arc<Cursor>,
        gap: Option<Gap>,
        partition_start: Option<PartitionStart>,
        encodings: &Arc<Cache>,
    ) {
        let count = records.len();
        let client_end = match self.unknown.is_empty() {
            true => self.head.clone(),
            false => Arc::new(self.place()),
        };
        let unknown = if self.unknown.is_empty() { 0 } else { client_end.partitions() };
        let places = (start.partitions() + self.head.partitions() + unknown) * size_of::<i64>();
        let size = size_of::<Block>() + places + records.iter().map(Record::size).sum::<usize>();
        self.blocks.push_back(Arc::new(Block {
            number: self.next,
            before: self.published,
            records,
            start,
            end: self.head.clone(),
            unknown: self.unknown.clone(),
            client_end,
            gap,
            partition_start,
            size,
            encodings: encodings.slot(),
        }));
        self.next += 1;
        self.published = self.blocks.back().map_or(self.published, |block| block.after());
        self.records += count;
        self.bytes += size;
    }
}
