//! One reader of the feed: its place, its filter, and what it is told when it cannot have everything.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::ring::{Block, Feed};
use super::{Cursor, Dialect, Filter, Frames, Gap};

/// Blocks that one read looks at, at most, before others have their turn: on a quiet topic each record is a block.
const STRIDE: usize = 256;

/// Where a subscription begins.
#[derive(Debug, Clone, PartialEq)]
pub enum Start {
    Now,
    /// After what this cursor has seen.
    After(Cursor),
    /// A cursor that is none: as it came.
    Malformed(String),
    /// Milliseconds since 1970.
    Since(i64),
    /// With the last so many records that match.
    Last(usize),
}

/// What a subscription has for its client.
#[derive(Debug)]
pub enum Next {
    Frames(Bytes),
    /// Memory does not reach back so far, and the client has never had everything: what lies between must be read
    /// elsewhere, then `resume` goes on behind it.
    Behind {
        to: Arc<Cursor>,
    },
    /// Nothing so far, after many blocks: it is to be asked again when others have had their turn.
    Onward,
}

impl Next {
    fn is_nothing(&self) -> bool {
        matches!(self, Next::Frames(bytes) if bytes.is_empty())
    }
}

/// A place in the feed that moves at its client's pace. It owns nothing but that place.
pub struct Subscription {
    feed: Feed,
    published: watch::Receiver<u64>,
    dialect: Dialect,
    filter: Filter,
    key: Arc<str>,
    /// After what the client has.
    place: Arc<Cursor>,
    /// The topic that the place is in, by the block that told it was made anew.
    topic: Option<u64>,
    /// Number of the next block, and what lies before it as [`Block::before`] has it; `None` while the place is outside
    /// memory.
    next: Option<(u64, u64)>,
    /// Set while blocks may hold records that the client has already: those before this place.
    floor: Option<Arc<Cursor>>,
    /// Whether the client had everything once. Until then memory that moves on makes it go on elsewhere, and lose nothing.
    live: bool,
    waiting: Waiting,
}

/// How many events wait in the blocks from the next one on, so that none is looked at for each event before it.
#[derive(Default)]
struct Waiting {
    /// Number of the first block that is not counted.
    to: u64,
    events: usize,
}

impl Subscription {
    /// A reader that has seen everything before `place`.
    pub fn new(feed: &Feed, dialect: Dialect, filter: Filter, place: Cursor) -> Self {
        let mut subscription = Subscription {
            feed: feed.clone(),
            published: feed.published(),
            dialect,
            key: filter.key().into(),
            filter,
            place: Arc::default(),
            topic: feed.renewed(),
            next: None,
            floor: None,
            live: false,
            waiting: Waiting::default(),
        };
        subscription.resume(place);
        subscription
    }

    /// The same with a place that was found while the topic was this one ([`Feed::renewed`]): if it was made anew since, the
    /// client is told.
    pub fn of_topic(mut self, topic: Option<u64>) -> Self {
        self.topic = topic;
        self.next = self.locate().ok();
        self
    }

    /// The topic that its place is in.
    pub fn topic(&self) -> Option<u64> {
        self.topic
    }

    /// After what the client has.
    pub fn place(&self) -> &Cursor {
        &self.place
    }

    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Goes on as one who has seen everything before `place`.
    pub fn resume(&mut self, place: Cursor) {
        let place = Arc::new(place);
        self.floor = Some(place.clone());
        self.place = place;
        self.waiting = Waiting::default();
        self.next = self.locate().ok();
    }

    /// The block to go on with, and what lies before it; `Err` is a place in memory, if it does not reach back so far.
    fn locate(&self) -> Result<(u64, u64), Arc<Cursor>> {
        let found = self.feed.locate(&self.place);
        match self.feed.renewed() {
            // The place says nothing about this topic: first the client must be told.
            Some(renewed) if self.topic != Some(renewed) => Ok((renewed, 0)),
            _ => found,
        }
    }

    /// What there is now; `None` if the client has everything.
    pub fn read(&mut self) -> Option<Next> {
        for _ in 0..STRIDE {
            let next = self.step()?;
            if !next.is_nothing() {
                return Some(next);
            }
        }
        Some(Next::Onward)
    }

    /// Takes in the next block, or what is to be told before it. It may be nothing to this client.
    fn step(&mut self) -> Option<Next> {
        let Some((number, seen)) = self.next else {
            return Some(match self.locate() {
                Ok(found) => {
                    self.next = Some(found);
                    Next::Frames(Bytes::new())
                }
                Err(to) => Next::Behind { to },
            });
        };
        let Some(block) = self.feed.block(number) else {
            self.has_everything();
            return None;
        };
        let bytes = match block {
            Ok(block) => {
                self.next = Some((block.number + 1, block.after()));
                if number < self.waiting.to {
                    self.waiting.events -= self.matching(&block).len();
                }
                self.frames(&block)
            }
            Err(block) if self.live => self.drop_until(&block, seen),
            Err(_) => {
                (self.next, self.waiting) = (None, Waiting::default());
                Bytes::new()
            }
        };
        Some(Next::Frames(bytes))
    }

    /// As [`read`](Self::read), but no more events than `allowance`, which it takes from: of more than that the newest are
    /// read, and how many are left out is told exactly.
    pub fn read_newest(&mut self, allowance: &mut usize) -> Option<Next> {
        for _ in 0..STRIDE {
            if !self.count_waiting() {
                break;
            }
            let count = self.waiting.events;
            if count > *allowance {
                match self.next.and_then(|(number, _)| self.feed.blocks(number..self.waiting.to)) {
                    Some(blocks) => return Some(self.skip_to_newest(&blocks, count, std::mem::take(allowance))),
                    // Memory has just moved on.
                    None => continue,
                }
            }
            let counted_to = self.waiting.to;
            let next = self.step()?;
            // Where memory has just moved on it was no event.
            if self.waiting.to == counted_to {
                *allowance -= count - self.waiting.events;
            }
            if !next.is_nothing() {
                return Some(next);
            }
        }
        Some(Next::Onward)
    }

    /// Of the `count` events that wait, the newest so many.
    fn skip_to_newest(&mut self, waiting: &[Arc<Block>], count: usize, allowance: usize) -> Next {
        let from = self.place.clone();
        let mut left_out = count - allowance;
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
        self.waiting = Waiting::default();
        self.has_everything();
        Next::Frames(out.into())
    }

    /// It has, or has been told of, all that memory holds: all there is, unless the tail is still reading what it found.
    fn has_everything(&mut self) {
        self.live = self.live || self.feed.is_level();
    }

    /// Counts what waits in blocks that were not counted yet, up to where the next thing to tell is another; false if there
    /// may be more.
    fn count_waiting(&mut self) -> bool {
        let Some((number, _)) = self.next else { return true };
        let events = |block: &Block, number| block.number == number && block.gap.is_none();
        let is_there = matches!(self.feed.block(number), Some(Ok(block)) if events(&block, number));
        if self.waiting.to < number || !is_there {
            self.waiting = Waiting { to: number, events: 0 };
        }
        for _ in 0..STRIDE {
            match self.feed.block(self.waiting.to) {
                Some(Ok(block)) if events(&block, self.waiting.to) => {
                    self.waiting.events += self.matching(&block).len();
                    self.waiting.to += 1;
                }
                _ => return true,
            }
        }
        false
    }

    /// Which records of a block match and the client has not.
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
        // The sender lives in the feed, which we hold.
        let _ = self.published.changed().await;
    }

    /// Forgets changes so far: what comes after this wakes `changed`.
    pub fn mark_seen(&mut self) {
        self.published.borrow_and_update();
    }

    fn frames(&mut self, block: &Block) -> Bytes {
        if let Some(gap) = &block.gap {
            return self.gap(block, gap);
        }
        if self.floor.as_ref().is_some_and(|floor| block.start.covers(floor)) {
            self.floor = None;
        }
        if self.floor.is_some() {
            return self.above_floor(block);
        }
        self.place = block.end.clone();
        let (frames, topic) = (self.feed.frames(), self.feed.topic());
        match self.filter.is_empty() {
            true => block.frames(frames, topic, self.dialect),
            false => block.filtered(frames, topic, self.dialect, &self.key, &self.filter),
        }
    }

    /// What of a gap this client misses: another replica may have given it some of that, or more.
    fn gap(&mut self, block: &Block, gap: &Gap) -> Bytes {
        let (resumed, missed) = match gap.missed {
            Some(_) => {
                let resumed = self.place.max(&gap.resumed);
                let missed = self.place.distance(&resumed);
                (resumed, Some(missed))
            }
            // Of a topic made anew the old offsets mean nothing.
            None => {
                self.floor = None;
                self.topic = Some(block.number);
                (gap.resumed.clone(), None)
            }
        };
        let told = Gap { requested: self.place.to_string(), resumed: resumed.clone(), missed, reason: gap.reason };
        self.place = Arc::new(resumed);
        let mut out = Vec::new();
        if missed != Some(0) {
            Frames::gap(&mut out, self.dialect, &told);
            self.feed.metrics().gaps.inc();
        }
        out.into()
    }

    /// The frames of a block of which the client has a part, with its own cursors.
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

    /// This client's place before a block.
    fn before(&self, block: &Block) -> Cursor {
        match &self.floor {
            Some(floor) => block.start.max(floor),
            None => Cursor::clone(&block.start),
        }
    }

    /// Goes on behind a block.
    fn pass(&mut self, block: &Block) {
        self.place = match &self.floor {
            Some(floor) => Arc::new(block.end.max(floor)),
            None => block.end.clone(),
        };
        self.floor = self.floor.take().filter(|floor| !block.end.covers(floor));
        self.next = Some((block.number + 1, block.after()));
    }

    /// The client was too slow: memory moved on. Says exactly how many records it does not get.
    fn drop_until(&mut self, block: &Block, seen: u64) -> Bytes {
        let (to, count) = match &self.floor {
            // Some of what was published it had already.
            Some(floor) => {
                let to = Arc::new(floor.max(&block.start));
                let count = self.place.distance(&to);
                (to, count)
            }
            None => (block.start.clone(), block.before - seen),
        };
        let mut out = Vec::new();
        if count > 0 {
            Frames::dropped(&mut out, self.dialect, count, &self.place, &to);
            self.feed.metrics().dropped.inc_by(count);
        }
        self.place = to;
        self.waiting = Waiting::default();
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

    /// Publishes each as a block of its own.
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
        // The other replica saw both of partition 1 first.
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
    fn who_has_not_had_everything_yet_goes_on_elsewhere_when_memory_moves_on() {
        let (feed, mut writer) = feed(4);
        publish(&mut writer, &[(0, 0), (0, 1)]);
        let mut late = subscribe(&feed, "0-0.1-0");
        assert!(told(late.read()).contains("id: 0-1.1-0"));
        publish(&mut writer, &(2..11).map(|offset| (0, offset)).collect::<Vec<_>>());
        let Some(Next::Behind { to }) = late.read() else { panic!("not behind") };
        assert_eq!((late.place().to_string().as_str(), to.to_string().as_str()), ("0-1.1-0", "0-9.1-0"));
        late.resume(Cursor::clone(&to));
        assert_eq!(ids(&mut late), ["0-10.1-0", "0-11.1-0"]);
        // From now on it loses what it is too slow for.
        publish(&mut writer, &(11..21).map(|offset| (0, offset)).collect::<Vec<_>>());
        assert!(told(late.read()).contains(r#"{"count":8,"from":"0-11.1-0","to":"0-19.1-0"}"#));
    }

    #[test]
    fn a_slow_reader_is_told_the_exact_count_and_goes_on_half_a_ring_behind() {
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
    fn who_comes_while_memory_is_filled_for_the_first_time_has_not_had_everything() {
        let feed = Feed::new("t", Frames::new(|_| "<li>".into()), 4, 1 << 20);
        let mut writer = feed.writer();
        writer.start(&[0], &[10]);
        let mut early = subscribe(&feed, "0-2");
        assert!(early.read().is_none());
        publish(&mut writer, &(0..10).map(|offset| (0, offset)).collect::<Vec<_>>());
        assert!(matches!(early.read(), Some(Next::Behind { .. })));
    }

    #[test]
    fn the_place_moves_on_over_what_the_filter_hides() {
        let (feed, mut writer) = feed(100);
        let filter = Filter { users: vec!["u1".into()], ..Filter::default() };
        let mut some = Subscription::new(&feed, Dialect::Json, filter, Cursor::new([0, 0]));
        publish(&mut writer, &[(0, 0), (0, 1), (0, 2)]);
        assert_eq!(ids(&mut some), ["0-2.1-0"]);
        assert_eq!(some.place().to_string(), "0-3.1-0");
    }

    #[test]
    fn a_gap_is_told_once_and_in_its_place() {
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

    /// The text that one read gives.
    fn told(next: Option<Next>) -> String {
        let Some(Next::Frames(bytes)) = next else { panic!("no frames: {next:?}") };
        String::from_utf8(bytes.to_vec()).expect("UTF-8")
    }

    #[test]
    fn what_was_read_before_a_gap_keeps_its_place() {
        let (feed, mut writer) = feed(100);
        let mut live = subscribe(&feed, "0-0.1-0");
        writer.push(record(1, 0)); // not published yet
        writer.skip(0, 5);
        assert_eq!(ids(&mut live), ["0-0.1-1", "0-5.1-1"]);
        assert_eq!(feed.head().to_string(), "0-5.1-1");
    }

    #[test]
    fn a_gap_tells_a_client_of_another_replica_only_what_it_misses() {
        let (feed, mut writer) = feed(100);
        let mut ahead = subscribe(&feed, "0-2.1-3");
        let mut far_ahead = subscribe(&feed, "0-9.1-0");
        writer.skip(0, 5);
        assert!(
            told(ahead.read()).contains(r#"{"missed":3,"reason":"expired","requested":"0-2.1-3","resumed":"0-5.1-3"}"#)
        );
        assert_eq!(ahead.place().to_string(), "0-5.1-3");
        assert!(far_ahead.read().is_none());
        assert_eq!(far_ahead.place().to_string(), "0-9.1-0");
    }

    #[test]
    fn what_expired_counts_where_it_was_dropped_too() {
        let (feed, mut writer) = feed(2);
        let mut slow = subscribe(&feed, "0-0.1-0");
        publish(&mut writer, &[(0, 0)]);
        assert_eq!(ids(&mut slow), ["0-1.1-0"]);
        writer.skip(0, 5);
        publish(&mut writer, &(5..9).map(|offset| (0, offset)).collect::<Vec<_>>());
        assert!(told(slow.read()).contains(r#"{"count":7,"from":"0-1.1-0","to":"0-8.1-0"}"#));
    }

    #[test]
    fn a_slow_reader_is_told_that_the_topic_was_made_anew_also_when_that_is_forgotten() {
        let (feed, mut writer) = feed(2);
        let mut slow = subscribe(&feed, "0-0.1-0");
        publish(&mut writer, &[(0, 0)]);
        assert_eq!(ids(&mut slow), ["0-1.1-0"]);
        writer.restart(&[0, 0]);
        publish(&mut writer, &(0..6).map(|offset| (0, offset)).collect::<Vec<_>>());
        assert!(told(slow.read()).contains("topic recreated"));
        assert!(told(slow.read()).contains(r#"{"count":5,"from":"0-0.1-0","to":"0-5.1-0"}"#));
    }

    #[test]
    fn who_reads_from_kafka_while_the_topic_is_made_anew_is_told() {
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
    fn who_comes_with_a_place_that_was_found_before_the_topic_was_made_anew_is_told() {
        let (feed, mut writer) = feed(100);
        publish(&mut writer, &[(0, 0), (0, 1), (0, 2)]);
        let (topic, place) = (feed.renewed(), feed.head());
        writer.restart(&[0, 0]);
        publish(&mut writer, &[(0, 0)]);
        let mut late = Subscription::new(&feed, Dialect::Json, Filter::default(), place).of_topic(topic);
        assert!(told(late.read()).contains("topic recreated"));
        assert_eq!(ids(&mut late), ["0-1.1-0"]);
        assert_eq!(late.topic(), feed.renewed());
    }

    #[test]
    fn events_behind_what_the_filter_hides_are_taken_from_the_allowance() {
        let (feed, mut writer) = feed(100);
        let filter = Filter { users: vec!["u1".into()], ..Filter::default() };
        let mut page = Subscription::new(&feed, Dialect::Json, filter, Cursor::new([0, 0]));
        publish(&mut writer, &[(0, 0), (0, 1)]);
        let mut allowance = 3;
        assert!(told(page.read_newest(&mut allowance)).contains("id: 0-2.1-0"));
        assert_eq!(allowance, 2);
    }

    #[test]
    fn an_allowance_holds_also_for_a_place_in_the_middle() {
        let (feed, mut writer) = feed(100);
        let records: Vec<(i32, i64)> = (0..10).map(|offset| (0, offset)).collect();
        records.iter().for_each(|(partition, offset)| writer.push(record(*partition, *offset)));
        writer.flush();
        let mut page = subscribe(&feed, "0-2.1-0");
        let text = told(page.read_newest(&mut 2));
        assert!(text.contains(r#"{"count":6,"from":"0-2.1-0","to":"0-8.1-0"}"#), "{text}");
        assert_eq!(text.matches("\"offset\"").count(), 2);
    }

    #[test]
    fn of_more_than_the_allowance_the_newest_are_read_and_the_rest_is_counted() {
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

    /// Reads until there is nothing more: the frames that came, and how often others had their turn.
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
    fn many_blocks_of_one_record_are_read_in_a_moment_and_others_have_their_turn() {
        const RECORDS: i64 = 10_000;
        let feed = Feed::new("t", Frames::new(|_| "<li>".into()), RECORDS as usize, usize::MAX);
        let mut writer = feed.writer();
        writer.start(&[0], &[0]);
        for offset in 0..RECORDS {
            writer.push(record(0, offset));
            writer.flush();
        }
        let begun = std::time::Instant::now();
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
        assert_eq!(nobody.place(), &feed.head());
        let (mut half, mut allowance) = (filtered("u1"), RECORDS as usize);
        let (frames, turns) = read_out(|| half.read_newest(&mut allowance));
        assert!(frames == 5000 && turns >= strides && allowance == 5000, "{frames} {turns} {allowance}");
        // Block by block against all blocks it would be a minute.
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }

    #[test]
    fn what_was_counted_and_then_forgotten_is_not_taken_from_the_allowance() {
        let (feed, mut writer) = feed(4);
        let mut page = subscribe(&feed, "0-0.1-0");
        let mut allowance = 10;
        assert!(page.read_newest(&mut allowance).is_none());
        publish(&mut writer, &[(0, 0), (0, 1), (0, 2)]);
        assert!(told(page.read_newest(&mut allowance)).contains("id: 0-1.1-0"));
        publish(&mut writer, &(3..11).map(|offset| (0, offset)).collect::<Vec<_>>());
        assert!(told(page.read_newest(&mut allowance)).contains(r#"{"count":8,"from":"0-1.1-0","to":"0-9.1-0"}"#));
        assert_eq!(allowance, 9);
        assert!(told(page.read_newest(&mut allowance)).contains("id: 0-10.1-0"));
        assert_eq!(allowance, 8);
    }

    #[test]
    fn of_a_block_of_which_the_client_has_a_part_the_rest_counts() {
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

    #[test]
    fn the_last_so_many_are_found_by_their_place() {
        let (feed, mut writer) = feed(100);
        publish(&mut writer, &[(0, 0), (1, 0), (0, 1), (1, 1)]);
        let (place, found) = feed.back(&Filter::default(), 2);
        assert_eq!((place.to_string().as_str(), found), ("0-1.1-1", 2));
    }
}
