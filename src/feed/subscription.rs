//! One reader of the feed: its position, its filter, and the messages about records that it does not get.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;

use super::ring::{Block, Feed, Lookup, PartitionStart};
use super::waiters::Waiter;
use super::{Cursor, Dialect, Filter, Frames, Gap, GapReason, UNKNOWN};
use crate::bounds::{NEWEST_BYTES, SLICE};

/// Most blocks that one read looks at before other tasks run: on a quiet topic each record is a block of its own.
const STRIDE: usize = 256;
/// A read looks through at least this many bytes before other tasks run.
const SLICE_BYTES: usize = 64 << 10;

/// One in this many subscriptions, chosen at random, measures waves. If few streams have none of them, the pace is the
/// shortest, which is right for few.
const SAMPLE: usize = 8;

/// What a read of a subscription returns.
#[derive(Debug)]
pub enum Next {
    Frames(Bytes),
    /// The next records were evicted before the client caught up: the caller reads the records up to `to` from Kafka,
    /// and then continues with `restart` or `resume`.
    Behind {
        to: Arc<Cursor>,
    },
    /// Nothing yet after many blocks: read again after other tasks have run.
    Onward,
}

impl Next {
    fn is_nothing(&self) -> bool {
        matches!(self, Next::Frames(bytes) if bytes.is_empty())
    }
}

/// The blocks that one read has looked through without a match, in bytes and time.
#[derive(Default)]
struct Slice {
    bytes: usize,
    started: Option<Instant>,
}

impl Slice {
    /// Adds bytes that were looked through. The time limit decides, but only after enough bytes to make a look at the
    /// clock worthwhile.
    fn is_over(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        let started = self.started.get_or_insert_with(Instant::now);
        self.bytes >= SLICE_BYTES && started.elapsed() >= SLICE
    }
}

/// A position in the feed that advances at its client's pace. It holds no records.
pub struct Subscription {
    feed: Feed,
    waiter: Waiter,
    dialect: Dialect,
    filter: Filter,
    frames: Frames,
    /// Tells the filter and the frames apart from others.
    key: Arc<str>,
    /// The client has everything before this cursor.
    place: Arc<Cursor>,
    /// Which incarnation of the topic `place` belongs to.
    incarnation: Option<u64>,
    /// Number of the next block, and its [`Block::before`]; `None` while the next records are not in memory.
    next: Option<(u64, u64)>,
    /// Set while blocks may hold records that the client has already: those before this cursor.
    floor: Option<Arc<Cursor>>,
    /// True once the reader has reached the head. Before that, an eviction sends it back to Kafka instead of dropping
    /// records.
    caught_up: bool,
    waiting: WaitingEvents,
    /// Bytes of the last block that was read.
    looked_at: usize,
    /// Whether this subscription helps to measure waves: some of many are enough.
    is_sample: bool,
    /// Whether it waits for a wave: only then the wave is what wakes its reader.
    waits: bool,
}

/// How many matching records wait in the blocks from the next one on, so that each block is counted only once.
#[derive(Default)]
struct WaitingEvents {
    /// Number of the first block that is not counted.
    to: u64,
    events: usize,
}

impl Subscription {
    /// Makes a reader that has everything before `place`.
    pub fn new(feed: &Feed, dialect: Dialect, filter: Filter, place: Cursor) -> Self {
        let mut subscription = Subscription {
            feed: feed.clone(),
            waiter: feed.waiter(),
            dialect,
            key: filter.key().into(),
            filter,
            frames: feed.frames().clone(),
            place: Arc::default(),
            incarnation: feed.incarnation(),
            next: None,
            floor: None,
            caught_up: false,
            waiting: WaitingEvents::default(),
            looked_at: 0,
            is_sample: fastrand::usize(..SAMPLE) == 0,
            waits: false,
        };
        subscription.resume(place);
        subscription
    }

    /// Encodes records with other frames than those of the feed.
    pub fn encode_with(mut self, frames: Frames) -> Self {
        self.key = format!("{}{}", self.filter.key(), frames.key()).into();
        self.frames = frames;
        self
    }

    /// The client has everything before this cursor.
    pub fn place(&self) -> &Arc<Cursor> {
        &self.place
    }

    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    pub fn frames(&self) -> &Frames {
        &self.frames
    }

    /// Continues as a reader that has everything before `place`.
    pub fn resume(&mut self, place: Cursor) {
        let place = Arc::new(place);
        self.floor = Some(place.clone());
        self.place = place;
        self.waiting = WaitingEvents::default();
        self.next = self.locate().ok();
    }

    /// Starts over at `place` as a new reader: until it has caught up, an eviction sends it back to Kafka instead of
    /// dropping records. `place` belongs to the incarnation that this reader knows; if the topic was recreated since,
    /// the client gets a gap.
    pub fn restart(&mut self, place: Cursor) {
        self.caught_up = false;
        self.resume(place);
    }

    /// Finds the next block and what was published before it. The error is the cursor in memory up to which the records
    /// must be read from Kafka.
    fn locate(&self) -> Result<(u64, u64), Arc<Cursor>> {
        let found = self.feed.locate(&self.place);
        match self.feed.incarnation() {
            // The cursor means nothing in this topic: first the client must get the gap.
            Some(recreation) if self.incarnation != Some(recreation) => Ok((recreation, 0)),
            _ => found,
        }
    }

    /// Returns what is available now; `None` if the client has everything.
    pub fn read(&mut self) -> Option<Next> {
        let mut slice = Slice::default();
        for _ in 0..STRIDE {
            let next = self.step()?;
            if !next.is_nothing() {
                return Some(next);
            }
            if slice.is_over(self.looked_at) {
                break;
            }
        }
        Some(Next::Onward)
    }

    /// Sets the offset of partitions that had no leader and are read now, for a client that knew no offset in them. The
    /// client gets a gap, because it is unknown whether it missed records before that offset.
    fn settle(&mut self) -> Option<Bytes> {
        if !self.place.positions().contains(&UNKNOWN) {
            return None;
        }
        let mut place = Cursor::clone(&self.place);
        if !self.feed.settle(&mut place) {
            return None;
        }
        let gap = Gap {
            requested: self.place.to_string(),
            resumed: place.clone(),
            missed: None,
            reason: GapReason::NoLeader,
        };
        let mut out = Vec::new();
        Frames::gap(&mut out, self.dialect, &gap);
        self.feed.metrics().gaps.inc();
        self.resume(place);
        Some(out.into())
    }

    /// Reads the next block, or a message that comes before it. It may be empty for this client.
    fn step(&mut self) -> Option<Next> {
        if let Some(gap) = self.settle() {
            return Some(Next::Frames(gap));
        }
        let Some((number, seen)) = self.next else {
            return Some(match self.locate() {
                Ok(found) => {
                    self.next = Some(found);
                    Next::Frames(Bytes::new())
                }
                Err(to) => Next::Behind { to },
            });
        };
        if number >= self.feed.announced() {
            self.mark_caught_up();
            return None;
        }
        let bytes = match self.feed.block(number) {
            Lookup::Found(block) => {
                self.looked_at = block.size();
                self.next = Some((block.number + 1, block.after()));
                if number < self.waiting.to {
                    self.waiting.events -= self.matching(&block).len();
                }
                self.encode(&block)
            }
            // Memory never had the older records of a partition that had no leader; Kafka has them.
            Lookup::Evicted { resume } => match self.settle() {
                Some(gap) => gap,
                None if self.caught_up && !self.feed.starts_before(&self.place) => self.drop_until(&resume, seen),
                None => {
                    self.return_to_kafka();
                    Bytes::new()
                }
            },
            Lookup::NotYet => {
                self.mark_caught_up();
                return None;
            }
        };
        Some(Next::Frames(bytes))
    }

    /// Like [`read`](Self::read), but returns at most `allowance` events and subtracts them from it. If more are
    /// waiting, it returns the newest ones and the exact number of those that were left out.
    pub fn read_newest(&mut self, allowance: &mut usize) -> Option<Next> {
        let mut slice = Slice::default();
        for _ in 0..STRIDE {
            if let Some(gap) = self.settle() {
                return Some(Next::Frames(gap));
            }
            if !self.count_waiting(&mut slice) {
                break;
            }
            let count = self.waiting.events;
            if count > *allowance {
                match self.next.and_then(|(number, _)| self.feed.blocks(number..self.waiting.to)) {
                    Some(blocks) => return Some(self.skip_to_newest(&blocks, count, std::mem::take(allowance))),
                    // Those blocks were just evicted.
                    None => continue,
                }
            }
            let counted_to = self.waiting.to;
            let next = self.step()?;
            // After an eviction the step has read no event.
            if self.waiting.to == counted_to {
                *allowance -= count - self.waiting.events;
            }
            if !next.is_nothing() {
                return Some(next);
            }
            if slice.is_over(self.looked_at) {
                break;
            }
        }
        Some(Next::Onward)
    }

    /// Returns the newest of the `count` waiting events: at most `allowance`, and at most [`NEWEST_BYTES`].
    fn skip_to_newest(&mut self, waiting: &[Arc<Block>], count: usize, allowance: usize) -> Next {
        let from = self.place.clone();
        let mut left_out = count - self.newest_that_fit(waiting, allowance);
        let skipped = left_out as u64;
        let mut out = Vec::new();
        for block in waiting {
            let matching = self.matching(block);
            if matching.len() < left_out || matching.is_empty() {
                left_out -= matching.len();
                self.pass(block);
                continue;
            }
            let mut matching = matching.into_iter().peekable();
            let mut place = self.before(block);
            for (index, record) in block.records.iter().enumerate() {
                let (partition, next) = (record.partition(), record.offset() + 1);
                if next <= place.get(partition) {
                    continue;
                }
                place.set(partition, next);
                if matching.next_if_eq(&index).is_none() {
                    continue;
                }
                if left_out > 0 {
                    left_out -= 1;
                    if left_out == 0 {
                        Frames::skipped(&mut out, self.dialect, skipped, &from, &place);
                    }
                } else {
                    self.frames.event(&mut out, self.dialect, self.feed.topic(), record, &place);
                }
            }
            self.pass(block);
        }
        self.waiting = WaitingEvents::default();
        self.mark_caught_up();
        Next::Frames(out.into())
    }

    /// Returns how many of the newest waiting events fit into `allowance` and [`NEWEST_BYTES`].
    fn newest_that_fit(&self, waiting: &[Arc<Block>], allowance: usize) -> usize {
        let (mut events, mut bytes) = (0, 0);
        for block in waiting.iter().rev() {
            for index in self.matching(block).into_iter().rev() {
                bytes += block.records[index].size();
                if events == allowance || events > 0 && bytes > NEWEST_BYTES {
                    return events;
                }
                events += 1;
            }
        }
        events
    }

    fn return_to_kafka(&mut self) {
        (self.next, self.waiting) = (None, WaitingEvents::default());
    }

    /// Notes that the client has everything in memory. That is all, unless the tail is still reading the records that
    /// the topic held at the start.
    fn mark_caught_up(&mut self) {
        self.caught_up = self.caught_up || self.feed.has_caught_up();
    }

    /// Counts the matching records in blocks that are not counted yet, up to the next gap or partition start. Returns
    /// false if more blocks are to be counted.
    fn count_waiting(&mut self, slice: &mut Slice) -> bool {
        let Some((number, _)) = self.next else { return true };
        let events =
            |block: &Block, number| block.number == number && block.gap.is_none() && block.partition_start.is_none();
        let is_there = matches!(self.feed.block(number), Lookup::Found(block) if events(&block, number));
        if self.waiting.to < number || !is_there {
            self.waiting = WaitingEvents { to: number, events: 0 };
        }
        for _ in 0..STRIDE {
            let block = match self.feed.block(self.waiting.to) {
                Lookup::Found(block) if events(&block, self.waiting.to) => block,
                _ => return true,
            };
            self.waiting.events += self.matching(&block).len();
            self.waiting.to += 1;
            if slice.is_over(block.size()) {
                break;
            }
        }
        false
    }

    /// Returns the indices of the records of a block that match and that the client does not have.
    fn matching(&self, block: &Block) -> Vec<usize> {
        let mut matching = block.matching(&self.filter);
        if let Some(floor) = &self.floor {
            matching.retain(|index| {
                let record = &block.records[*index];
                record.offset() >= floor.get(record.partition())
            });
        }
        matching
    }

    /// Ready if there may be more since [`mark_seen`](Self::mark_seen). [`Feed::wake`] wakes the task too.
    pub fn poll_changed(&mut self, cx: &Context<'_>) -> Poll<()> {
        let wave = self.waiter.poll_wave(cx);
        self.waits = wave.is_pending();
        wave
    }

    /// Ignores the waves so far: only a later one makes [`poll_changed`](Self::poll_changed) ready.
    pub fn mark_seen(&mut self) {
        let waited = std::mem::take(&mut self.waits);
        if self.waiter.take_wave() && waited && self.is_sample {
            self.feed.woken();
        }
    }

    fn encode(&mut self, block: &Block) -> Bytes {
        if let Some(gap) = &block.gap {
            return self.gap(block, gap);
        }
        if let Some(partition_start) = &block.partition_start {
            return self.start_partition(partition_start);
        }
        if self.floor.as_ref().is_some_and(|floor| block.starts_behind(floor)) {
            self.floor = None;
        }
        if self.floor.is_some() {
            return self.above_floor(block);
        }
        self.place = block.client_end().clone();
        let (frames, topic) = (&self.frames, self.feed.topic());
        match self.filter.is_empty() && frames.key().is_empty() {
            true => block.frames(frames, topic, self.dialect),
            false => block.filtered(frames, topic, self.dialect, &self.key, &self.filter),
        }
    }

    /// Returns the part of a gap that concerns this client: another replica may have sent it some of those records, or
    /// later ones.
    fn gap(&mut self, block: &Block, gap: &Gap) -> Bytes {
        let (resumed, missed) = match gap.missed {
            Some(_) => {
                let resumed = self.place.max(&gap.resumed);
                let missed = self.place.distance(&resumed);
                (resumed, Some(missed))
            }
            // Offsets of the old topic mean nothing in the new one.
            None => {
                self.floor = None;
                self.incarnation = Some(block.number);
                (gap.resumed.clone(), None)
            }
        };
        let own_gap = Gap { requested: self.place.to_string(), resumed: resumed.clone(), missed, reason: gap.reason };
        self.place = Arc::new(resumed);
        let mut out = Vec::new();
        if missed != Some(0) {
            Frames::gap(&mut out, self.dialect, &own_gap);
            self.feed.metrics().gaps.inc();
        }
        out.into()
    }

    /// Handles the start of a partition that had no leader. A client whose position lies before the first offset in
    /// memory reads the records up to there from Kafka first.
    fn start_partition(&mut self, start: &PartitionStart) -> Bytes {
        if self.place.get(start.partition) < start.from {
            self.return_to_kafka();
        }
        self.floor = Some(self.place.clone());
        self.settle().unwrap_or_default()
    }

    /// Returns the frames of a block of which the client has a part, with the client's own cursors.
    fn above_floor(&mut self, block: &Block) -> Bytes {
        let mut out = Vec::new();
        let mut place = self.before(block);
        for record in &block.records {
            let (partition, next) = (record.partition(), record.offset() + 1);
            if next <= place.get(partition) {
                continue;
            }
            place.set(partition, next);
            if self.filter.matches(record) {
                self.frames.event(&mut out, self.dialect, self.feed.topic(), record, &place);
            }
        }
        self.place = Arc::new(place.max(&block.end));
        out.into()
    }

    /// Returns this client's cursor before a block.
    fn before(&self, block: &Block) -> Cursor {
        match &self.floor {
            Some(floor) => block.start.max(floor),
            None => block.client_start(),
        }
    }

    /// Continues after a block.
    fn pass(&mut self, block: &Block) {
        self.place = match &self.floor {
            Some(floor) => Arc::new(block.end.max(floor)),
            None => block.client_end().clone(),
        };
        self.floor = self.floor.take().filter(|floor| !block.ends_behind(floor));
        self.next = Some((block.number + 1, block.after()));
    }

    /// Skips evicted records of a client that was too slow, and reports their exact number.
    fn drop_until(&mut self, block: &Block, seen: u64) -> Bytes {
        let (to, count) = match &self.floor {
            // The client had some of these records already.
            Some(floor) => {
                let to = Arc::new(floor.max(&block.start));
                let count = self.place.distance(&to);
                (to, count)
            }
            None => (Arc::new(block.client_start()), block.before - seen),
        };
        let mut out = Vec::new();
        if count > 0 {
            Frames::dropped(&mut out, self.dialect, count, &self.place, &to);
            self.feed.metrics().dropped.inc_by(count);
        }
        self.place = to;
        self.waiting = WaitingEvents::default();
        self.next = Some((block.number, block.before));
        out.into()
    }
}

#[cfg(test)]
mod tests;
