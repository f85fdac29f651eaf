//! One reader of the feed: its position, its filter, and the messages about records that it does not get.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::watch;

use super::ring::{Block, Feed, Lookup, PartitionStart};
use super::{Cursor, Dialect, Filter, Frames, Gap, GapReason, UNKNOWN};
use crate::bounds::{NEWEST_BYTES, SLICE};

/// Most blocks that one read looks at before other tasks run: on a quiet topic each record is a block of its own.
const STRIDE: usize = 256;
/// A read looks through at least this many bytes before other tasks run.
const SLICE_BYTES: usize = 64 << 10;

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
    published: watch::Receiver<u64>,
    dialect: Dialect,
    filter: Filter,
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
            published: feed.published(),
            dialect,
            key: filter.key().into(),
            filter,
            place: Arc::default(),
            incarnation: feed.incarnation(),
            next: None,
            floor: None,
            caught_up: false,
            waiting: WaitingEvents::default(),
            looked_at: 0,
        };
        subscription.resume(place);
        subscription
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
        let bytes = match self.feed.block(number) {
            Lookup::Found(block) => {
                self.looked_at = block.size();
                self.next = Some((block.number + 1, block.after()));
                if number < self.waiting.to {
                    self.waiting.events -= self.matching(&block).len();
                }
                self.frames(&block)
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
                    self.feed.frames().event(&mut out, self.dialect, self.feed.topic(), record, &place);
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

    /// Waits until there may be more.
    pub async fn changed(&mut self) {
        // The sender lives in the feed, which the subscription holds.
        let _ = self.published.changed().await;
    }

    /// Ignores publications so far: only a later one wakes `changed`.
    pub fn mark_seen(&mut self) {
        self.published.borrow_and_update();
    }

    fn frames(&mut self, block: &Block) -> Bytes {
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
        let (frames, topic) = (self.feed.frames(), self.feed.topic());
        match self.filter.is_empty() {
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
                self.feed.frames().event(&mut out, self.dialect, self.feed.topic(), record, &place);
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
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::event::Record;
    use crate::feed::Writer;

    fn record(partition: i32, offset: i64) -> Record {
        let value = format!(r#"{{"user":"u{}","action":"a"}}"#, offset % 2);
        Record::new(partition, offset, Some(offset), None, Some(value.as_bytes()), std::iter::empty())
    }

    fn feed(records: usize) -> (Feed, Writer) {
        let feed = Feed::new("t", Frames::new(|_| "<li>".into()), records, 1 << 20);
        let mut writer = feed.writer();
        writer.start(&[0, 0], &[0, 0]);
        (feed, writer)
    }

    /// Publishes each record as a block of its own.
    fn publish(writer: &mut Writer, records: &[(i32, i64)]) {
        for (partition, offset) in records {
            writer.push(record(*partition, *offset));
            while writer.publish() != Duration::MAX {}
        }
    }

    fn subscribe(feed: &Feed, place: &str) -> Subscription {
        Subscription::new(feed, Dialect::Json, Filter::default(), place.parse().expect("a cursor"))
    }

    fn ids(subscription: &mut Subscription) -> Vec<String> {
        let mut ids = Vec::new();
        while let Some(next) = subscription.read() {
            let Next::Frames(bytes) = next else { panic!("{next:?}") };
            let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
            ids.extend(text.lines().filter_map(|line| line.strip_prefix("id: ")).map(str::to_owned));
        }
        ids
    }

    #[test]
    fn everything_after_a_place_is_read_in_order() {
        let (feed, mut writer) = feed(100);
        publish(&mut writer, &[(0, 0), (1, 0), (0, 1)]);
        assert_eq!(ids(&mut subscribe(&feed, "0-0.1-0")), ["0-1.1-0", "0-1.1-1", "0-2.1-1"]);
        let mut live = subscribe(&feed, "0-2.1-1");
        assert!(live.read().is_none());
        publish(&mut writer, &[(1, 1)]);
        assert_eq!(ids(&mut live), ["0-2.1-2"]);
    }

    #[test]
    fn a_place_of_another_replicas_order_gets_what_is_missing_and_nothing_twice() {
        let (feed, mut writer) = feed(100);
        publish(&mut writer, &[(0, 0), (1, 0), (0, 1), (1, 1)]);
        // The other replica saw both records of partition 1 first.
        assert_eq!(ids(&mut subscribe(&feed, "0-0.1-2")), ["0-1.1-2", "0-2.1-2"]);
    }

    #[test]
    fn a_place_ahead_of_this_replica_waits_for_what_comes_after_it() {
        let (feed, mut writer) = feed(100);
        let mut ahead = subscribe(&feed, "0-2.1-0");
        publish(&mut writer, &[(0, 0), (0, 1)]);
        assert_eq!(ids(&mut ahead), Vec::<String>::new());
        publish(&mut writer, &[(0, 2)]);
        assert_eq!(ids(&mut ahead), ["0-3.1-0"]);
    }

    #[test]
    fn a_place_before_memory_is_behind() {
        let (feed, mut writer) = feed(2);
        publish(&mut writer, &[(0, 0), (0, 1), (0, 2), (0, 3)]);
        let mut late = subscribe(&feed, "0-0.1-0");
        let Some(Next::Behind { to }) = late.read() else { panic!("not behind") };
        assert_eq!(to.to_string(), "0-3.1-0");
        late.resume(Cursor::clone(&to));
        assert_eq!(ids(&mut late), ["0-4.1-0"]);
    }

    #[test]
    fn a_reader_that_has_not_caught_up_returns_to_kafka_after_an_eviction() {
        let (feed, mut writer) = feed(4);
        publish(&mut writer, &[(0, 0), (0, 1)]);
        let mut late = subscribe(&feed, "0-0.1-0");
        assert!(text_of(late.read()).contains("id: 0-1.1-0"));
        publish(&mut writer, &(2..11).map(|offset| (0, offset)).collect::<Vec<_>>());
        let Some(Next::Behind { to }) = late.read() else { panic!("not behind") };
        assert_eq!((late.place().to_string().as_str(), to.to_string().as_str()), ("0-1.1-0", "0-9.1-0"));
        late.resume(Cursor::clone(&to));
        assert_eq!(ids(&mut late), ["0-10.1-0", "0-11.1-0"]);
        // From now on it loses records that it is too slow for.
        publish(&mut writer, &(11..21).map(|offset| (0, offset)).collect::<Vec<_>>());
        assert!(text_of(late.read()).contains(r#"{"count":8,"from":"0-11.1-0","to":"0-19.1-0"}"#));
    }

    #[test]
    fn a_slow_reader_gets_the_exact_count_and_continues_half_a_ring_behind() {
        let (feed, mut writer) = feed(4);
        publish(&mut writer, &[(0, 0)]);
        let mut slow = subscribe(&feed, "0-0.1-0");
        assert_eq!(ids(&mut slow), ["0-1.1-0"]);
        publish(&mut writer, &(1..11).map(|offset| (0, offset)).collect::<Vec<_>>());
        let Some(Next::Frames(bytes)) = slow.read() else { panic!("no frames") };
        let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
        assert!(text.contains(r#"{"count":8,"from":"0-1.1-0","to":"0-9.1-0"}"#), "{text}");
        assert_eq!(ids(&mut slow), ["0-10.1-0", "0-11.1-0"]);
    }

    #[test]
    fn a_reader_that_connects_before_the_tail_has_caught_up_returns_to_kafka_after_an_eviction() {
        let feed = Feed::new("t", Frames::new(|_| "<li>".into()), 4, 1 << 20);
        let mut writer = feed.writer();
        writer.start(&[0], &[10]);
        let mut early = subscribe(&feed, "0-2");
        assert!(early.read().is_none());
        publish(&mut writer, &(0..10).map(|offset| (0, offset)).collect::<Vec<_>>());
        assert!(matches!(early.read(), Some(Next::Behind { .. })));
    }

    #[test]
    fn the_cursor_advances_over_filtered_records() {
        let (feed, mut writer) = feed(100);
        let filter = Filter { users: vec!["u1".into()], ..Filter::default() };
        let mut some = Subscription::new(&feed, Dialect::Json, filter, Cursor::new([0, 0]));
        publish(&mut writer, &[(0, 0), (0, 1), (0, 2)]);
        assert_eq!(ids(&mut some), ["0-2.1-0"]);
        assert_eq!(some.place().to_string(), "0-3.1-0");
    }

    #[test]
    fn a_gap_is_sent_once_and_in_its_place() {
        let (feed, mut writer) = feed(100);
        let mut live = subscribe(&feed, "0-0.1-0");
        publish(&mut writer, &[(0, 0)]);
        writer.skip(0, 5);
        publish(&mut writer, &[(0, 5)]);
        assert_eq!(ids(&mut live), ["0-1.1-0", "0-5.1-0", "0-6.1-0"]);
        writer.restart(&[0, 0]);
        publish(&mut writer, &[(0, 0)]);
        assert_eq!(ids(&mut live), ["0-0.1-0", "0-1.1-0"]);
    }

    /// The text of one read's frames.
    fn text_of(next: Option<Next>) -> String {
        let Some(Next::Frames(bytes)) = next else { panic!("no frames: {next:?}") };
        String::from_utf8(bytes.to_vec()).expect("UTF-8")
    }

    #[test]
    fn records_read_before_a_gap_come_before_it() {
        let (feed, mut writer) = feed(100);
        let mut live = subscribe(&feed, "0-0.1-0");
        writer.push(record(1, 0)); // not published yet
        writer.skip(0, 5);
        assert_eq!(ids(&mut live), ["0-0.1-1", "0-5.1-1"]);
        assert_eq!(feed.head().to_string(), "0-5.1-1");
    }

    #[test]
    fn a_gap_counts_only_what_a_client_of_another_replica_misses() {
        let (feed, mut writer) = feed(100);
        let mut ahead = subscribe(&feed, "0-2.1-3");
        let mut far_ahead = subscribe(&feed, "0-9.1-0");
        writer.skip(0, 5);
        assert!(
            text_of(ahead.read())
                .contains(r#"{"missed":3,"reason":"expired","requested":"0-2.1-3","resumed":"0-5.1-3"}"#)
        );
        assert_eq!(ahead.place().to_string(), "0-5.1-3");
        assert!(far_ahead.read().is_none());
        assert_eq!(far_ahead.place().to_string(), "0-9.1-0");
    }

    #[test]
    fn expired_records_count_as_dropped_too() {
        let (feed, mut writer) = feed(2);
        let mut slow = subscribe(&feed, "0-0.1-0");
        publish(&mut writer, &[(0, 0)]);
        assert_eq!(ids(&mut slow), ["0-1.1-0"]);
        writer.skip(0, 5);
        publish(&mut writer, &(5..9).map(|offset| (0, offset)).collect::<Vec<_>>());
        assert!(text_of(slow.read()).contains(r#"{"count":7,"from":"0-1.1-0","to":"0-8.1-0"}"#));
    }

    #[test]
    fn a_slow_reader_gets_the_recreation_gap_even_after_its_block_was_evicted() {
        let (feed, mut writer) = feed(2);
        let mut slow = subscribe(&feed, "0-0.1-0");
        publish(&mut writer, &[(0, 0)]);
        assert_eq!(ids(&mut slow), ["0-1.1-0"]);
        writer.restart(&[0, 0]);
        publish(&mut writer, &(0..6).map(|offset| (0, offset)).collect::<Vec<_>>());
        assert!(text_of(slow.read()).contains("topic recreated"));
        assert!(text_of(slow.read()).contains(r#"{"count":5,"from":"0-0.1-0","to":"0-5.1-0"}"#));
    }

    #[test]
    fn a_reader_in_kafka_gets_a_gap_when_the_topic_is_recreated() {
        let (feed, mut writer) = feed(2);
        publish(&mut writer, &(0..6).map(|offset| (0, offset)).collect::<Vec<_>>());
        let mut late = subscribe(&feed, "0-0.1-0");
        assert!(matches!(late.read(), Some(Next::Behind { .. })));
        writer.restart(&[0, 0]);
        publish(&mut writer, &[(0, 0)]);
        late.resume(Cursor::new([4, 0]));
        assert_eq!(ids(&mut late), ["0-0.1-0", "0-1.1-0"]);
    }

    #[test]
    fn a_cursor_found_before_the_topic_was_recreated_leads_to_a_gap() {
        let (feed, mut writer) = feed(100);
        publish(&mut writer, &[(0, 0), (0, 1), (0, 2)]);
        let mut late = Subscription::new(&feed, Dialect::Json, Filter::default(), Cursor::default());
        let place = feed.head();
        writer.restart(&[0, 0]);
        publish(&mut writer, &[(0, 0)]);
        late.restart(place);
        assert!(text_of(late.read()).contains("topic recreated"));
        assert_eq!(ids(&mut late), ["0-1.1-0"]);
        assert_eq!(late.incarnation, feed.incarnation());
    }

    #[test]
    fn events_after_filtered_records_count_against_the_allowance() {
        let (feed, mut writer) = feed(100);
        let filter = Filter { users: vec!["u1".into()], ..Filter::default() };
        let mut page = Subscription::new(&feed, Dialect::Json, filter, Cursor::new([0, 0]));
        publish(&mut writer, &[(0, 0), (0, 1)]);
        let mut allowance = 3;
        assert!(text_of(page.read_newest(&mut allowance)).contains("id: 0-2.1-0"));
        assert_eq!(allowance, 2);
    }

    #[test]
    fn an_allowance_holds_for_a_cursor_inside_a_block() {
        let (feed, mut writer) = feed(100);
        let records: Vec<(i32, i64)> = (0..10).map(|offset| (0, offset)).collect();
        records.iter().for_each(|(partition, offset)| writer.push(record(*partition, *offset)));
        writer.flush();
        let mut page = subscribe(&feed, "0-2.1-0");
        let text = text_of(page.read_newest(&mut 2));
        assert!(text.contains(r#"{"count":6,"from":"0-2.1-0","to":"0-8.1-0"}"#), "{text}");
        assert_eq!(text.matches("\"offset\"").count(), 2);
    }

    #[test]
    fn beyond_the_allowance_the_newest_are_read_and_the_rest_is_counted() {
        let (feed, mut writer) = feed(100);
        let filter = Filter { users: vec!["u1".into()], ..Filter::default() };
        let mut page = Subscription::new(&feed, Dialect::Json, filter, Cursor::new([0, 0]));
        let records: Vec<(i32, i64)> = (0..20).map(|offset| (0, offset)).collect();
        publish(&mut writer, &records);
        let mut allowance = 3;
        let Some(Next::Frames(bytes)) = page.read_newest(&mut allowance) else { panic!("frames") };
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains(r#"{"count":7,"from":"0-0.1-0","to":"0-14.1-0"}"#), "{text}");
        let ids: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
        assert_eq!(ids, ["0-14.1-0", "0-16.1-0", "0-18.1-0", "0-20.1-0"]);
        assert_eq!((allowance, page.read_newest(&mut 5).is_none()), (0, true));
        publish(&mut writer, &[(0, 20), (0, 21)]);
        allowance = 2;
        assert!(matches!(page.read_newest(&mut allowance), Some(Next::Frames(_))));
        assert_eq!(page.place().to_string(), "0-22.1-0");
    }

    /// Reads until there is nothing more. Returns how often frames came, and how often other tasks could run.
    fn read_out(mut read: impl FnMut() -> Option<Next>) -> (usize, usize) {
        let (mut frames, mut turns) = (0, 0);
        loop {
            match read() {
                Some(Next::Frames(_)) => frames += 1,
                Some(Next::Onward) => turns += 1,
                Some(next) => panic!("{next:?}"),
                None => return (frames, turns),
            }
        }
    }

    #[test]
    fn many_blocks_of_one_record_are_read_quickly_and_let_other_tasks_run() {
        const RECORDS: i64 = 10_000;
        let feed = Feed::new("t", Frames::new(|_| "<li>".into()), RECORDS as usize, usize::MAX);
        let mut writer = feed.writer();
        writer.start(&[0], &[0]);
        for offset in 0..RECORDS {
            writer.push(record(0, offset));
            writer.flush();
        }
        let started = std::time::Instant::now();
        let filtered = |text: &str| {
            let filter = Filter { texts: vec![Filter::text(text)], ..Filter::default() };
            Subscription::new(&feed, Dialect::Json, filter, Cursor::new([0]))
        };
        let strides = RECORDS as usize / STRIDE;
        let mut nobody = filtered("nobody");
        let (frames, turns) = read_out(|| nobody.read());
        assert!(frames == 0 && turns >= strides, "{frames} {turns}");
        let (mut nobody, mut allowance) = (filtered("nobody"), 100);
        let (frames, turns) = read_out(|| nobody.read_newest(&mut allowance));
        assert!(frames == 0 && turns >= strides && allowance == 100, "{frames} {turns} {allowance}");
        assert_eq!(**nobody.place(), feed.head());
        let (mut half, mut allowance) = (filtered("u1"), RECORDS as usize);
        let (frames, turns) = read_out(|| half.read_newest(&mut allowance));
        assert!(frames == 5000 && turns >= strides && allowance == 5000, "{frames} {turns} {allowance}");
        // A read per block over all blocks would take a minute.
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    }

    #[test]
    fn records_evicted_after_counting_do_not_use_up_the_allowance() {
        let (feed, mut writer) = feed(4);
        let mut page = subscribe(&feed, "0-0.1-0");
        let mut allowance = 10;
        assert!(page.read_newest(&mut allowance).is_none());
        publish(&mut writer, &[(0, 0), (0, 1), (0, 2)]);
        assert!(text_of(page.read_newest(&mut allowance)).contains("id: 0-1.1-0"));
        publish(&mut writer, &(3..11).map(|offset| (0, offset)).collect::<Vec<_>>());
        assert!(text_of(page.read_newest(&mut allowance)).contains(r#"{"count":8,"from":"0-1.1-0","to":"0-9.1-0"}"#));
        assert_eq!(allowance, 9);
        assert!(text_of(page.read_newest(&mut allowance)).contains("id: 0-10.1-0"));
        assert_eq!(allowance, 8);
    }

    #[test]
    fn only_the_part_of_a_block_that_a_client_lacks_counts() {
        let (feed, mut writer) = feed(100);
        (0..10).for_each(|offset| writer.push(record(0, offset)));
        while writer.publish() != Duration::MAX {}
        let mut page = subscribe(&feed, "0-5.1-0");
        let Some(Next::Frames(bytes)) = page.read_newest(&mut 2) else { panic!("frames") };
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains(r#"{"count":3,"from":"0-5.1-0","to":"0-8.1-0"}"#), "{text}");
        let ids: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
        assert_eq!(ids, ["0-8.1-0", "0-9.1-0", "0-10.1-0"]);
        assert!(page.read_newest(&mut 5).is_none());
    }

    /// A feed whose partition 1 has no leader at first.
    fn feed_without_a_leader() -> (Feed, Writer) {
        let feed = Feed::new("t", Frames::new(|_| "<li>".into()), 100, 1 << 20);
        let mut writer = feed.writer();
        writer.start(&[0, UNKNOWN], &[0, 0]);
        (feed, writer)
    }

    /// The gap for a reader that knew no offset in partition 1.
    fn no_leader(from: &str, to: &str) -> String {
        let data = format!(r#"{{"missed":null,"reason":"no leader","requested":"{from}","resumed":"{to}"}}"#);
        format!("event: gap\ndata: {data}\nid: {to}\n\n")
    }

    #[test]
    fn a_partition_without_a_leader_does_not_block_the_others() {
        let (feed, mut writer) = feed_without_a_leader();
        let now = feed.now().expect("it has started");
        assert_eq!(now.to_string(), format!("0-0.1-{UNKNOWN}"));
        let mut live = Subscription::new(&feed, Dialect::Json, Filter::default(), now.clone());
        let slow = Subscription::new(&feed, Dialect::Json, Filter::default(), now.clone());
        publish(&mut writer, &[(0, 0)]);
        assert_eq!(ids(&mut live), [format!("0-1.1-{UNKNOWN}")]);
        // The partition has a leader: a reader gets what was written since the start, and a gap because there may be
        // more.
        writer.start_partition(1, 5, 7, 8);
        publish(&mut writer, &[(1, 5), (1, 6), (1, 7), (0, 1)]);
        assert_eq!(text_of(live.read()), no_leader(&format!("0-1.1-{UNKNOWN}"), "0-1.1-7"));
        assert_eq!(ids(&mut live), ["0-1.1-8", "0-2.1-8"]);
        assert_eq!(feed.now(), Some(feed.head()));
        // So do a slow reader, and one that connects later with the old cursor.
        for mut reader in [slow, Subscription::new(&feed, Dialect::Json, Filter::default(), now)] {
            assert_eq!(text_of(reader.read()), no_leader(&format!("0-0.1-{UNKNOWN}"), "0-0.1-7"));
            assert_eq!(ids(&mut reader), ["0-1.1-7", "0-1.1-8", "0-2.1-8"]);
        }
    }

    #[test]
    fn frames_are_shared_also_while_a_partition_has_no_leader() {
        let (feed, mut writer) = feed_without_a_leader();
        let now = feed.now().expect("it has started");
        let all = || Subscription::new(&feed, Dialect::Json, Filter::default(), now.clone());
        let some = || {
            let filter = Filter { users: vec!["u0".into()], ..Filter::default() };
            Subscription::new(&feed, Dialect::Json, filter, now.clone())
        };
        let (mut readers, mut knows) = ([all(), all(), some(), some()], subscribe(&feed, "0-0.1-3"));
        writer.push(record(0, 0));
        writer.push(record(0, 1));
        writer.flush();
        let read = |reader: &mut Subscription| {
            let Some(Next::Frames(bytes)) = reader.read() else { panic!("no frames") };
            bytes
        };
        let [first, second, third, fourth] = readers.each_mut().map(read);
        assert_eq!((first.as_ptr(), third.as_ptr()), (second.as_ptr(), fourth.as_ptr()), "each is encoded once");
        let all = String::from_utf8_lossy(&first);
        assert!([1, 2].iter().all(|next| all.contains(&format!("id: 0-{next}.1-{UNKNOWN}\n"))), "{all}");
        assert!(String::from_utf8_lossy(&third).ends_with(&format!("id: 0-1.1-{UNKNOWN}\n\n")));
        assert_eq!(ids(&mut knows), ["0-1.1-3", "0-2.1-3"]);
        for reader in &readers {
            assert_eq!(reader.place().to_string(), format!("0-2.1-{UNKNOWN}"));
        }
        // Each gets a gap when the partition is read.
        writer.start_partition(1, 5, 5, 6);
        publish(&mut writer, &[(1, 5)]);
        for reader in &mut readers {
            assert_eq!(text_of(reader.read()), no_leader(&format!("0-2.1-{UNKNOWN}"), "0-2.1-5"));
        }
        assert_eq!(ids(&mut readers[0]), ["0-2.1-6"]);
    }

    #[test]
    fn beyond_the_allowance_the_newest_are_read_while_a_partition_has_no_leader() {
        let (feed, mut writer) = feed_without_a_leader();
        let now = feed.now().expect("it has started");
        let mut some = Subscription::new(&feed, Dialect::Json, Filter::default(), now);
        publish(&mut writer, &[(0, 0)]);
        assert_eq!(ids(&mut some), [format!("0-1.1-{UNKNOWN}")]);
        publish(&mut writer, &(1..9).map(|offset| (0, offset)).collect::<Vec<_>>());
        let text = text_of(some.read_newest(&mut 2));
        let skipped = format!(r#"{{"count":6,"from":"0-1.1-{UNKNOWN}","to":"0-7.1-{UNKNOWN}"}}"#);
        assert!(text.contains(&skipped) && text.ends_with(&format!("id: 0-9.1-{UNKNOWN}\n\n")), "{text}");
        assert_eq!(some.place().to_string(), format!("0-9.1-{UNKNOWN}"));
        // A reader that is too slow gets the same cursors.
        publish(&mut writer, &(9..300).map(|offset| (0, offset)).collect::<Vec<_>>());
        let dropped = text_of(some.read());
        assert!(dropped.contains(&format!(r#""from":"0-9.1-{UNKNOWN}","#)), "{dropped}");
        assert!(some.place().to_string().ends_with(&format!(".1-{UNKNOWN}")));
    }

    #[test]
    fn records_written_before_a_partition_was_read_come_from_kafka() {
        let (feed, mut writer) = feed_without_a_leader();
        let now = feed.now().expect("it has started");
        let mut live = Subscription::new(&feed, Dialect::Json, Filter::default(), now.clone());
        let mut newest = Subscription::new(&feed, Dialect::Json, Filter::default(), now);
        assert!(live.read().is_none() && newest.read_newest(&mut 9).is_none());
        writer.start_partition(1, 5, 2, 7);
        publish(&mut writer, &[(1, 5), (1, 6), (0, 0)]);
        let gap = no_leader(&format!("0-0.1-{UNKNOWN}"), "0-0.1-2");
        assert_eq!(text_of(live.read()), gap);
        assert_eq!(text_of(newest.read_newest(&mut 9)), gap);
        for next in [live.read(), newest.read_newest(&mut 9)] {
            let Some(Next::Behind { to }) = next else { panic!("not behind: {next:?}") };
            assert_eq!(to.get(1), 6);
        }
    }

    #[test]
    fn a_place_in_a_partition_without_a_leader_is_kept_until_it_has_one() {
        let (feed, mut writer) = feed_without_a_leader();
        let [mut behind, mut within, mut ahead] = [2, 6, 9].map(|offset| subscribe(&feed, &format!("0-0.1-{offset}")));
        publish(&mut writer, &[(0, 0)]);
        for (reader, offset) in [(&mut behind, 2), (&mut within, 6), (&mut ahead, 9)] {
            assert_eq!(ids(reader), [format!("0-1.1-{offset}")]);
        }
        writer.start_partition(1, 5, 8, 8);
        publish(&mut writer, &[(1, 5), (1, 6), (1, 7), (0, 1)]);
        assert_eq!(ids(&mut within), ["0-1.1-7", "0-1.1-8", "0-2.1-8"]);
        assert_eq!(ids(&mut ahead), ["0-2.1-9"]);
        // Memory never had the older records; Kafka has them, also for a client that had everything else.
        let Some(Next::Behind { to }) = behind.read().filter(|next| !next.is_nothing()).or_else(|| behind.read())
        else {
            panic!("not behind")
        };
        assert_eq!(to.get(1), 6);
        assert!(!feed.remembers(behind.place()) && feed.remembers(&to.max(behind.place())));
        behind.resume(to.max(behind.place()));
        assert_eq!(ids(&mut behind), ["0-1.1-7", "0-1.1-8", "0-2.1-8"]);
    }

    #[test]
    fn a_slow_reader_gets_from_kafka_what_it_missed_of_a_partition_that_had_no_leader() {
        let feed = Feed::new("t", Frames::new(|_| "<li>".into()), 2, 1 << 20);
        let mut writer = feed.writer();
        writer.start(&[0, UNKNOWN], &[0, 0]);
        let mut slow = Subscription::new(&feed, Dialect::Json, Filter::default(), feed.now().expect("it has started"));
        assert!(slow.read().is_none());
        writer.start_partition(1, 5, 7, 7);
        publish(&mut writer, &(5..12).map(|offset| (1, offset)).collect::<Vec<_>>());
        assert_eq!(text_of(slow.read()), no_leader(&format!("0-0.1-{UNKNOWN}"), "0-0.1-7"));
        let Some(Next::Behind { to }) = slow.read() else { panic!("not behind") };
        assert_eq!(to.get(1), 11);
        slow.resume(Cursor::clone(&to));
        assert_eq!(ids(&mut slow), ["0-0.1-12"]);
    }

    #[test]
    fn encodings_evict_no_records() {
        let feed = Feed::new("t", Frames::new(|_| "<li>".into()), 1000, 64 << 10);
        let mut writer = feed.writer();
        writer.start(&[0], &[0]);
        publish(&mut writer, &(0..100).map(|offset| (0, offset)).collect::<Vec<_>>());
        for n in 0..40 {
            let filter =
                Filter { texts: vec![Filter::text("u"), Filter::text(&format!("no {n}"))], ..Filter::default() };
            let mut reader = Subscription::new(&feed, Dialect::Json, filter, Cursor::new([0]));
            assert_eq!(ids(&mut reader).len(), 100);
        }
        publish(&mut writer, &[(0, 100)]);
        let (records, _, encoded) = feed.kept();
        assert_eq!(records, 101);
        assert!((1..=16 << 10).contains(&encoded), "{encoded}");
        assert!(feed.remembers(&Cursor::new([0])));
    }

    #[test]
    fn the_last_records_are_found_by_cursor() {
        let (feed, mut writer) = feed(100);
        publish(&mut writer, &[(0, 0), (1, 0), (0, 1), (1, 1)]);
        let (place, found) = feed.back(&Filter::default(), 2);
        assert_eq!((place.to_string().as_str(), found), ("0-1.1-1", 2));
    }
}
