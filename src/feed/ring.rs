//! The ring: blocks of records as the tail published them, each encoded at most once for each way to look at it.
//!
//! The writer is one thread (the tail's); readers are subscriptions, which hold a block only while they copy it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::watch;

use super::index::Index;
use super::{Cursor, Dialect, Filter, Frames, Gap};
use crate::event::Record;

/// Time between two publications, for each subscription: with many of them, each gets more in one write.
const PACE_PER_STREAM: Duration = Duration::from_micros(20);
/// Also with few or none: a block for each of a hundred thousand records a second would cost more than they do.
const FASTEST_PACE: Duration = Duration::from_micros(500);
const SLOWEST_PACE: Duration = Duration::from_millis(100);
/// Records in one block at most, so that memory moves on in steps that are small beside the ring; fewer if the ring is
/// smaller than that, or if so many are a large part of its bytes.
const BLOCK: usize = 1000;
/// Blocks that the ring's bytes are enough for, at least.
const BLOCKS: usize = 32;

/// Bytes of what a filter found beside its frames and its key, about.
const ENTRY: usize = 128;

/// What the feed counts.
#[derive(Debug, Default, Clone)]
pub struct Metrics {
    pub streams: Gauge,
    pub records: Counter,
    pub dropped: Counter,
    pub gaps: Counter,
}

/// Records that were published together.
pub(super) struct Block {
    /// Its number, counted over the process's life.
    pub number: u64,
    /// Records that were published before it, and those that nobody will get any more.
    pub before: u64,
    pub records: Box<[Record]>,
    /// The places before and after it.
    pub start: Arc<Cursor>,
    pub end: Arc<Cursor>,
    /// What nobody will get any more lies before this block.
    pub gap: Option<Gap>,
    size: usize,
    /// Bytes of its frames and its index, and of those of all blocks.
    encoded: AtomicUsize,
    all_encoded: Arc<AtomicUsize>,
    json: OnceLock<Bytes>,
    html: OnceLock<Bytes>,
    lines: OnceLock<Bytes>,
    filtered: Mutex<HashMap<(Dialect, Arc<str>), Bytes>>,
    index: OnceLock<Index>,
}

impl Block {
    /// As `before`, for the block after it.
    pub fn after(&self) -> u64 {
        let missed = self.gap.as_ref().and_then(|gap| gap.missed).unwrap_or(0);
        self.before + self.records.len() as u64 + missed
    }

    /// All its frames, encoded by whoever comes first.
    pub fn frames(&self, frames: &Frames, topic: &str, dialect: Dialect) -> Bytes {
        let cell = match dialect {
            Dialect::Json => &self.json,
            Dialect::Html => &self.html,
            Dialect::Lines => &self.lines,
        };
        cell.get_or_init(|| self.encode(frames, topic, dialect, |_, _| true)).clone()
    }

    /// The frames that a filter lets through, encoded once for all who share it; empty if there are none.
    pub fn filtered(&self, frames: &Frames, topic: &str, dialect: Dialect, key: &Arc<str>, filter: &Filter) -> Bytes {
        let candidates = self.candidates(filter);
        if candidates.as_ref().is_some_and(Vec::is_empty) {
            return Bytes::new();
        }
        let known = |map: &HashMap<_, Bytes>| map.get(&(dialect, key.clone())).cloned();
        if let Some(bytes) = known(&self.filtered.lock().unwrap_or_else(PoisonError::into_inner)) {
            return bytes;
        }
        let matching = self.among(candidates, filter);
        if matching.is_empty() {
            // Not kept: of many filters most find nothing in a block.
            return Bytes::new();
        }
        let mut matching = matching.into_iter().peekable();
        let bytes = self.encode(frames, topic, dialect, |place, _| matching.next_if_eq(&place).is_some());
        self.count(ENTRY + key.len());
        let mut map = self.filtered.lock().unwrap_or_else(PoisonError::into_inner);
        map.entry((dialect, key.clone())).or_insert(bytes).clone()
    }

    /// Which of its records a filter lets through.
    pub fn matching(&self, filter: &Filter) -> Vec<usize> {
        match filter.is_empty() {
            true => (0..self.records.len()).collect(),
            false => self.among(self.candidates(filter), filter),
        }
    }

    /// Outside of which nothing matches, where the index tells that.
    fn candidates(&self, filter: &Filter) -> Option<Vec<u32>> {
        let is_told = !filter.users.is_empty() || !filter.actions.is_empty();
        is_told.then(|| self.index().candidates(filter)).flatten()
    }

    fn among(&self, candidates: Option<Vec<u32>>, filter: &Filter) -> Vec<usize> {
        let matches = |place: &usize| filter.matches(&self.records[*place]);
        match candidates {
            Some(places) => places.into_iter().map(|place| place as usize).filter(matches).collect(),
            None => (0..self.records.len()).filter(matches).collect(),
        }
    }

    fn index(&self) -> &Index {
        self.index.get_or_init(|| {
            let index = Index::new(&self.records);
            self.count(index.size());
            index
        })
    }

    /// Counts bytes that were made of its records.
    fn count(&self, bytes: usize) {
        for counted in [&self.encoded, &*self.all_encoded] {
            counted.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    fn encode(
        &self,
        frames: &Frames,
        topic: &str,
        dialect: Dialect,
        mut wants: impl FnMut(usize, &Record) -> bool,
    ) -> Bytes {
        let mut out = Vec::new();
        let mut cursor = Cursor::clone(&self.start);
        for (place, record) in self.records.iter().enumerate() {
            cursor.set(record.partition(), record.offset() + 1);
            if wants(place, record) {
                frames.event(&mut out, dialect, topic, record, &cursor);
            }
        }
        self.count(out.capacity());
        out.into()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.all_encoded.fetch_sub(*self.encoded.get_mut(), Ordering::Relaxed);
    }
}

/// The blocks in memory.
struct Ring {
    blocks: VecDeque<Arc<Block>>,
    /// The block that tells that the topic was made anew, the last time it was: it is kept for those who have not been
    /// told yet, as a place in the topic of before says nothing about this one.
    renewed: Option<Arc<Block>>,
    /// The place after the newest record.
    head: Arc<Cursor>,
    /// Number of the next block, and what lies before it as [`Block::before`] has it.
    next: u64,
    published: u64,
    /// Records in memory, their bytes, and those of their frames.
    records: usize,
    bytes: usize,
    encoded: Arc<AtomicUsize>,
    /// Until the tail has read up to where the topic ended at its start, "now" lies there and not at the head.
    ends: Cursor,
    started: bool,
}

struct Bounds {
    records: usize,
    bytes: usize,
}

/// The live feed: cheap to clone.
#[derive(Clone)]
pub struct Feed {
    shared: Arc<Shared>,
}

struct Shared {
    topic: Box<str>,
    frames: Frames,
    bounds: Bounds,
    ring: RwLock<Ring>,
    /// Number of the next block; a change wakes the subscriptions.
    published: watch::Sender<u64>,
    streams: AtomicUsize,
    metrics: Metrics,
}

impl Feed {
    /// A feed that keeps at most so many records, and bytes of them and their frames.
    pub fn new(topic: &str, frames: Frames, records: usize, bytes: usize) -> Self {
        let ring = Ring {
            blocks: VecDeque::new(),
            renewed: None,
            head: Arc::default(),
            next: 0,
            published: 0,
            records: 0,
            bytes: 0,
            encoded: Arc::default(),
            ends: Cursor::default(),
            started: false,
        };
        let shared = Shared {
            topic: topic.into(),
            frames,
            bounds: Bounds { records, bytes },
            ring: RwLock::new(ring),
            published: watch::channel(0).0,
            streams: AtomicUsize::new(0),
            metrics: Metrics::default(),
        };
        Feed { shared: Arc::new(shared) }
    }

    pub fn topic(&self) -> &str {
        &self.shared.topic
    }

    pub fn frames(&self) -> &Frames {
        &self.shared.frames
    }

    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// The one who fills it.
    pub fn writer(&self) -> Writer {
        Writer { feed: self.clone(), pending: Vec::new(), bytes: 0, published: None }
    }

    /// The place where the live feed is now; `None` until the tail has started.
    pub fn now(&self) -> Option<Cursor> {
        self.read(|ring| ring.started.then(|| ring.head.max(&ring.ends)))
    }

    /// Whether the tail has read what stood in the topic when it began.
    pub(super) fn is_level(&self) -> bool {
        self.read(|ring| ring.started && ring.head.covers(&ring.ends))
    }

    /// Waits until the tail has started; the place where the live feed is then.
    pub async fn started(&self) -> Cursor {
        let mut published = self.published();
        loop {
            if let Some(now) = self.now() {
                return now;
            }
            // The sender lives as long as the feed.
            let _ = published.changed().await;
        }
    }

    /// The place after the newest record in memory.
    pub fn head(&self) -> Cursor {
        self.read(|ring| Cursor::clone(&ring.head))
    }

    /// The place before the oldest record in memory.
    pub fn oldest(&self) -> Cursor {
        self.read(|ring| Cursor::clone(ring.blocks.front().map_or(&ring.head, |block| &block.start)))
    }

    /// Whether memory has everything that a place has not seen.
    pub fn remembers(&self, place: &Cursor) -> bool {
        self.locate(place).is_ok()
    }

    /// Waits until a record was read from the topic.
    pub async fn reaches(&self, partition: i32, offset: i64) {
        let mut published = self.published();
        while !self.read(|ring| ring.started && ring.head.get(partition) > offset) {
            // The sender lives as long as the feed.
            let _ = published.changed().await;
        }
    }

    /// The newest records that match, newest first, and the place after the newest of all.
    pub fn latest(&self, filter: &Filter, count: usize) -> (Vec<Record>, Option<Cursor>) {
        let (head, blocks) = self.newest_first();
        let records = blocks.flat_map(|block| {
            let matching = block.matching(filter).into_iter().rev();
            matching.map(move |index| block.records[index].clone())
        });
        (records.take(count).collect(), self.read(|ring| ring.started).then_some(head))
    }

    /// The place after the newest record, and the blocks before it, the newest first. Each is taken when its turn comes,
    /// so that nobody waits for who looks through them; what memory forgets in the meantime is not among them.
    fn newest_first(&self) -> (Cursor, impl Iterator<Item = Arc<Block>>) {
        let (head, mut number) = self.read(|ring| (Cursor::clone(&ring.head), ring.next));
        let blocks = std::iter::from_fn(move || {
            number = number.checked_sub(1)?;
            self.read(|ring| {
                let place = number.checked_sub(ring.blocks.front()?.number)?;
                ring.blocks.get(place as usize).cloned()
            })
        });
        (head, blocks)
    }

    /// Mean bytes of key, value and headers of the latest `count` records, by partition; a partition that has none of them
    /// is left out.
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

    /// The place from which the last `count` matching records are in memory; with it, how many there are.
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

    /// The place before the first record in memory that happened at or after a time (milliseconds since 1970).
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

    /// Streams that are open.
    pub fn streams(&self) -> usize {
        self.shared.streams.load(Ordering::Relaxed)
    }

    /// Counts a stream as open until the guard is dropped; `None` if `most` are open already.
    pub fn open(&self, most: usize) -> Option<OpenStream> {
        let more = |open| (open < most).then_some(open + 1);
        self.shared.streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        self.shared.metrics.streams.inc();
        Some(OpenStream { feed: self.clone() })
    }

    pub(super) fn published(&self) -> watch::Receiver<u64> {
        self.shared.published.subscribe()
    }

    /// The block of a number, and whether memory still reaches back to it: `Err` is the one to go on with where it does
    /// not, half a ring behind the head, so that the reader is not overtaken again at once. Who comes from a topic that was
    /// made anew since gets the block that says so.
    pub(super) fn block(&self, number: u64) -> Option<Result<Arc<Block>, Arc<Block>>> {
        self.read(|ring| {
            let oldest = ring.blocks.front()?.number;
            if let Some(renewed) = &ring.renewed
                && number <= renewed.number
            {
                return Some(Ok(renewed.clone()));
            }
            if number < oldest {
                return ring.middle().cloned().map(Err);
            }
            ring.blocks.get((number - oldest) as usize).cloned().map(Ok)
        })
    }

    /// The blocks of these numbers, if memory has them all.
    pub(super) fn blocks(&self, numbers: Range<u64>) -> Option<Vec<Arc<Block>>> {
        self.read(|ring| {
            let place = |number: u64| Some(number.checked_sub(ring.blocks.front()?.number)? as usize);
            let (from, to) = (place(numbers.start)?, place(numbers.end)?);
            (from <= to && to <= ring.blocks.len()).then(|| ring.blocks.range(from..to).cloned().collect())
        })
    }

    /// Number of the block that says that the topic was made anew, the last time it was.
    pub fn renewed(&self) -> Option<u64> {
        self.read(|ring| ring.renewed.as_ref().map(|block| block.number))
    }

    /// Number of the block with which a reader goes on who has seen everything before a place, and the records that
    /// were published before it. Where memory does not reach back to the place, `Err` is one half the blocks behind the head:
    /// who has read up to there elsewhere is not overtaken again at once.
    pub(super) fn locate(&self, place: &Cursor) -> Result<(u64, u64), Arc<Cursor>> {
        self.read(|ring| {
            let oldest = ring.blocks.front().map_or(&ring.head, |block| &block.start);
            if !place.covers(oldest) {
                return Err(ring.middle().map_or(&ring.head, |block| &block.start).clone());
            }
            let behind = ring.blocks.partition_point(|block| place.covers(&block.end));
            Ok(ring.blocks.get(behind).map_or((ring.next, ring.published), |block| (block.number, block.before)))
        })
    }

    fn read<T>(&self, look: impl FnOnce(&Ring) -> T) -> T {
        look(&self.shared.ring.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One of the open streams.
pub struct OpenStream {
    feed: Feed,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.feed.shared.streams.fetch_sub(1, Ordering::Relaxed);
        self.feed.shared.metrics.streams.dec();
    }
}

/// Fills the feed. Records that come in quick succession are published together; a lone one at once.
pub struct Writer {
    feed: Feed,
    pending: Vec<Record>,
    /// Of those that are pending.
    bytes: usize,
    published: Option<Instant>,
}

impl Writer {
    pub fn push(&mut self, record: Record) {
        self.bytes += record.size();
        self.pending.push(record);
        let bounds = &self.feed.shared.bounds;
        if self.pending.len() >= BLOCK.min(bounds.records) || self.bytes >= bounds.bytes / BLOCKS {
            self.flush();
        }
    }

    /// Publishes if it is time; says how long there will be nothing to do.
    pub fn publish(&mut self) -> Duration {
        if self.pending.is_empty() {
            return Duration::MAX;
        }
        let pace = (PACE_PER_STREAM * self.feed.streams() as u32).clamp(FASTEST_PACE, SLOWEST_PACE);
        let since = self.published.map_or(Duration::MAX, |published| published.elapsed());
        if since >= pace {
            self.flush();
            return Duration::MAX;
        }
        pace - since
    }

    /// Reading begins at these offsets, while the topic ended at `ends`.
    pub fn start(&mut self, positions: &[i64], ends: &[i64]) {
        self.edit(|ring| {
            ring.head = Arc::new(Cursor::new(positions));
            ring.ends = Cursor::new(ends);
            ring.started = true;
        });
    }

    /// Partitions were added, each of them from its offset 0.
    pub fn grow(&mut self, partitions: usize) {
        self.edit(|ring| Arc::make_mut(&mut ring.head).grow(partitions));
    }

    /// The records of a partition up to `next` are gone for good.
    pub fn skip(&mut self, partition: i32, next: i64) {
        self.flush(); // what was read before lies before the gap
        let mut resumed = self.feed.read(|ring| Cursor::clone(&ring.head));
        let requested = resumed.to_string();
        let missed = (next - resumed.get(partition)).max(0) as u64;
        resumed.set(partition, next);
        self.gap(Gap { requested, resumed, missed: Some(missed), reason: "expired" }, false);
    }

    /// The topic was made anew: what is in memory is of another topic.
    pub fn restart(&mut self, positions: &[i64]) {
        self.flush();
        let requested = self.feed.read(|ring| ring.head.to_string());
        let gap = Gap { requested, resumed: Cursor::new(positions), missed: None, reason: "topic recreated" };
        self.gap(gap, true);
    }

    fn gap(&mut self, gap: Gap, forget: bool) {
        self.edit(|ring| {
            let before = std::mem::replace(&mut ring.head, Arc::new(gap.resumed.clone()));
            if !forget {
                return ring.append(Box::new([]), before, Some(gap));
            }
            ring.blocks.clear();
            (ring.records, ring.bytes) = (0, 0);
            ring.ends = Cursor::default();
            // The place before it is one of another topic.
            ring.append(Box::new([]), ring.head.clone(), Some(gap));
            ring.renewed = ring.blocks.back().cloned();
        });
    }

    pub(super) fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let records = std::mem::take(&mut self.pending).into_boxed_slice();
        self.bytes = 0;
        self.feed.shared.metrics.records.inc_by(records.len() as u64);
        let bounds = &self.feed.shared.bounds;
        self.edit(|ring| {
            let start = ring.head.clone();
            let head = Arc::make_mut(&mut ring.head);
            for record in &records {
                head.set(record.partition(), record.offset() + 1);
            }
            ring.append(records, start, None);
            while ring.blocks.len() > 1 && (ring.records > bounds.records || ring.size() > bounds.bytes) {
                if let Some(oldest) = ring.blocks.pop_front() {
                    ring.records -= oldest.records.len();
                    ring.bytes -= oldest.size;
                }
            }
        });
        self.published = Some(Instant::now());
    }

    fn edit(&self, change: impl FnOnce(&mut Ring)) {
        let next = {
            let mut ring = self.feed.shared.ring.write().unwrap_or_else(PoisonError::into_inner);
            change(&mut ring);
            ring.next
        };
        self.feed.shared.published.send_replace(next);
    }
}

impl Ring {
    fn middle(&self) -> Option<&Arc<Block>> {
        self.blocks.get(self.blocks.len() / 2)
    }

    /// Bytes that it takes. A block's frames are made when they are first asked for, so they count a block late.
    fn size(&self) -> usize {
        self.bytes + self.encoded.load(Ordering::Relaxed)
    }

    /// Appends what lies between `start` and the head.
    fn append(&mut self, records: Box<[Record]>, start: Arc<Cursor>, gap: Option<Gap>) {
        let count = records.len();
        let places = (start.partitions() + self.head.partitions()) * size_of::<i64>();
        let size = size_of::<Block>() + places + records.iter().map(Record::size).sum::<usize>();
        self.blocks.push_back(Arc::new(Block {
            number: self.next,
            before: self.published,
            records,
            start,
            end: self.head.clone(),
            gap,
            size,
            encoded: AtomicUsize::new(0),
            all_encoded: self.encoded.clone(),
            json: OnceLock::new(),
            html: OnceLock::new(),
            lines: OnceLock::new(),
            filtered: Mutex::default(),
            index: OnceLock::new(),
        }));
        self.next += 1;
        self.published = self.blocks.back().map_or(self.published, |block| block.after());
        self.records += count;
        self.bytes += size;
    }
}
