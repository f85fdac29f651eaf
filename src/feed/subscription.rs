//! One reader of the feed: its place, its filter, and what it is told when it cannot have everything.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::ring::{Block, Feed};
use super::{Cursor, Dialect, Filter, Frames};
use crate::event::Record;

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
    /// Memory does not reach back so far: what lies between must be read elsewhere, then `resume` goes on behind it.
    Behind {
        to: Arc<Cursor>,
    },
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
    /// Number of the next block, and the records published before it; `None` while the place is outside memory.
    next: Option<(u64, u64)>,
    /// Set while blocks may hold records that the client has already: those before this place.
    floor: Option<Arc<Cursor>>,
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
            next: None,
            floor: None,
        };
        subscription.resume(place);
        subscription
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
        self.next = self.feed.locate(&place).ok();
        self.floor = Some(place.clone());
        self.place = place;
    }

    /// What there is now; `None` if the client has everything.
    pub fn read(&mut self) -> Option<Next> {
        loop {
            let Some((number, seen)) = self.next else {
                match self.feed.locate(&self.place) {
                    Ok(found) => self.next = Some(found),
                    Err(to) => return Some(Next::Behind { to }),
                }
                continue;
            };
            match self.feed.block(number)? {
                Ok(block) => {
                    let bytes = self.frames(&block);
                    self.next = Some((number + 1, block.before + block.records.len() as u64));
                    if !bytes.is_empty() {
                        return Some(Next::Frames(bytes));
                    }
                }
                Err(block) => return Some(Next::Frames(self.drop_until(&block, seen))),
            }
        }
    }

    /// As [`read`](Self::read), but no more events than `allowance`, which it takes from: of more than that the newest are
    /// read, and how many are left out is told exactly.
    pub fn read_newest(&mut self, allowance: &mut usize) -> Option<Next> {
        let waiting = self.waiting();
        let count: usize = waiting.iter().map(|(_, matching)| matching.len()).sum();
        if count <= *allowance {
            *allowance -= waiting.first().map_or(0, |(_, matching)| matching.len());
            return self.read();
        }
        let from = self.place.clone();
        let mut left_out = count - std::mem::take(allowance);
        let skipped = left_out as u64;
        let mut out = Vec::new();
        for (block, matching) in &waiting {
            let mut matching = matching.iter().peekable();
            let mut place = self.beginning(block);
            for (index, record) in block.records.iter().enumerate() {
                if self.has(record) {
                    continue;
                }
                place.set(record.partition(), record.offset() + 1);
                if matching.next_if_eq(&&index).is_none() {
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
            self.next = Some((block.number + 1, block.before + block.records.len() as u64));
        }
        Some(Next::Frames(out.into()))
    }

    /// The blocks that are there to be read, with what of them matches; none where the next thing to tell is another.
    fn waiting(&self) -> Vec<(Arc<Block>, Vec<usize>)> {
        let mut waiting = Vec::new();
        let Some((mut number, _)) = self.next else { return waiting };
        while let Some(Ok(block)) = self.feed.block(number)
            && block.gap.is_none()
        {
            let mut matching = block.matching(&self.filter);
            matching.retain(|index| !self.has(&block.records[*index]));
            waiting.push((block, matching));
            number += 1;
        }
        waiting
    }

    /// Whether the client has a record of a block already.
    fn has(&self, record: &Record) -> bool {
        self.floor.as_ref().is_some_and(|floor| record.offset() < floor.get(record.partition()))
    }

    /// The place before what the client does not have of a block.
    fn beginning(&self, block: &Block) -> Cursor {
        self.floor.as_ref().map_or_else(|| Cursor::clone(&block.start), |floor| block.start.max(floor))
    }

    /// Moves to the end of a block.
    fn pass(&mut self, block: &Block) {
        self.place = match &self.floor {
            Some(floor) => Arc::new(floor.max(&block.end)),
            None => block.end.clone(),
        };
        self.floor = self.floor.take().filter(|floor| !block.end.covers(floor));
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
        let (frames, topic) = (self.feed.frames(), self.feed.topic());
        if let Some(gap) = &block.gap {
            let mut out = Vec::new();
            Frames::gap(&mut out, self.dialect, gap);
            self.feed.metrics().gaps.inc();
            // Of a topic made anew the old offsets mean nothing.
            self.floor = self.floor.take().filter(|_| gap.missed.is_some());
            self.place = block.end.clone();
            return out.into();
        }
        self.floor = self.floor.take().filter(|floor| !block.start.covers(floor));
        if self.floor.is_some() {
            return self.above_floor(block);
        }
        self.place = block.end.clone();
        match self.filter.is_empty() {
            true => block.frames(frames, topic, self.dialect),
            false => block.filtered(frames, topic, self.dialect, &self.key, &self.filter),
        }
    }

    /// The frames of a block of which the client has a part, with its own cursors.
    fn above_floor(&mut self, block: &Block) -> Bytes {
        let mut out = Vec::new();
        let mut place = self.beginning(block);
        for record in block.records.iter().filter(|record| !self.has(record)) {
            place.set(record.partition(), record.offset() + 1);
            if self.filter.matches(record) {
                self.feed.frames().event(&mut out, self.dialect, self.feed.topic(), record, &place);
            }
        }
        self.pass(block);
        out.into()
    }

    /// The client was too slow: memory moved on. Says exactly how many records it does not get.
    fn drop_until(&mut self, block: &Block, seen: u64) -> Bytes {
        let count = match self.floor {
            // Some of what was published it had already.
            Some(_) => self.place.distance(&block.start),
            None => block.before - seen,
        };
        let mut out = Vec::new();
        let to = match &self.floor {
            Some(floor) => Arc::new(floor.max(&block.start)),
            None => block.start.clone(),
        };
        Frames::dropped(&mut out, self.dialect, count, &self.place, &to);
        self.feed.metrics().dropped.inc_by(count);
        self.place = to;
        self.next = Some((block.number, block.before));
        out.into()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
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
            let Next::Frames(bytes) = next else { panic!("behind") };
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
        assert_eq!(to.to_string(), "0-2.1-0");
        late.resume(Cursor::clone(&to));
        assert_eq!(ids(&mut late), ["0-3.1-0", "0-4.1-0"]);
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
