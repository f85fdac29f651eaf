//! Where a stream starts: the starts that a client may request, and their positions in the topic.

use std::ops::ControlFlow;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::Streams;
use super::follower::RETRY_AFTER;
use crate::bounds::Address;
use crate::event::Record;
use crate::event::time::format_ms;
use crate::feed::{Cursor, Filter, Gap, GapReason, UNKNOWN};
use crate::kafka::{History, HistoryError, HistoryRange, Marks, ReadError, ReadKind};

/// Most characters of a malformed cursor that its gap repeats.
const REPEATED: usize = 200;
/// How many records in Kafka are searched for the last matching ones.
const LAST_SCAN: u64 = 100_000;

/// The start that a client requests.
#[derive(Debug, Clone, PartialEq)]
pub enum Start {
    /// After the newest record.
    Now,
    /// After this cursor.
    After(Cursor),
    /// After a malformed cursor, with its text. The stream starts now, with a gap.
    Malformed(String),
    /// At the first record at or after a time, in milliseconds since 1970.
    Since(i64),
    /// Before this many of the last matching records.
    Last(usize),
}

impl Start {
    /// Parses a cursor that a client sent.
    pub fn after(text: &str) -> Self {
        text.parse().map_or_else(|_| Start::Malformed(text.chars().take(REPEATED).collect()), Start::After)
    }
}

/// The position where a stream starts.
#[derive(Debug)]
pub struct Resolved {
    pub place: Cursor,
    /// The requested records that the client does not get.
    pub gap: Option<Gap>,
}

impl From<Cursor> for Resolved {
    fn from(place: Cursor) -> Self {
        Resolved { place, gap: None }
    }
}

/// Finds the position of a start. Waits until the tail has started, and as long as necessary for Kafka if only Kafka
/// knows the position.
pub async fn resolve(streams: &Streams, address: Address, start: &Start, filter: &Filter) -> Resolved {
    let now = streams.feed.started().await;
    let place = match start {
        Start::Now => return now.into(),
        Start::Malformed(text) => {
            let gap =
                Gap { requested: text.clone(), resumed: now.clone(), missed: None, reason: GapReason::MalformedCursor };
            return Resolved { place: now, gap: Some(gap) };
        }
        Start::Last(count) => return last(streams, address, filter, *count).await.into(),
        Start::Since(ms) if streams.embedded => {
            let (feed, ms) = (streams.feed.clone(), *ms);
            return spawn_blocking(move || feed.since(ms)).await.unwrap_or(now).into();
        }
        Start::Since(ms) => return since(streams, address, *ms, now).await,
        Start::After(cursor) => cursor.clone(),
    };
    locate(streams, address, place, &now).await
}

/// Returns the position of a time. In a partition without a leader, whose records cannot be looked up, it is the feed's
/// position.
async fn since(streams: &Streams, address: Address, ms: i64, now: Cursor) -> Resolved {
    let offsets = ask(streams, address, move |history| history.offsets_since_led(ms)).await;
    let is_whole = offsets.iter().all(Option::is_some);
    let offset = |(partition, offset): (i32, Option<i64>)| offset.unwrap_or_else(|| now.get(partition));
    let place = Cursor::new((0..).zip(offsets).map(offset).collect::<Vec<_>>());
    let resolved = locate(streams, address, place, &now).await;
    if is_whole || resolved.gap.is_some() {
        return resolved;
    }
    let resumed = resolved.place;
    let gap = Gap { requested: format_ms(ms), resumed: resumed.clone(), missed: None, reason: GapReason::NoLeader };
    Resolved { place: resumed, gap: Some(gap) }
}

/// Checks whether the records after a position are still available; if not, finds the position from which they are.
async fn locate(streams: &Streams, address: Address, place: Cursor, now: &Cursor) -> Resolved {
    let requested = place.to_string();
    let gap = |resumed: Cursor, missed, reason| Resolved {
        place: resumed.clone(),
        gap: Some(Gap { requested: requested.clone(), resumed, missed, reason }),
    };
    if place.partitions() > now.partitions() {
        return gap(now.clone(), None, GapReason::UnknownPartition);
    }
    let mut place = place;
    place.grow(now.partitions());
    // The ends of these partitions at the start of the client's stream are unknown. Of a partition that had no leader
    // when this process started, the client gets the records written since.
    let mut settled = streams.feed.settle(&mut place);
    let is_unknown = |place: &Cursor, partition: &i32| place.get(*partition) == UNKNOWN;
    let has_leader_now = |partition: &i32| is_unknown(&place, partition) && !is_unknown(now, partition);
    for partition in (0..now.partitions() as i32).filter(has_leader_now).collect::<Vec<_>>() {
        place.set(partition, now.get(partition));
        settled = true;
    }
    if settled {
        return gap(place, None, GapReason::NoLeader);
    }
    if streams.feed.remembers(&place) && now.covers(&place) {
        return place.into();
    }
    let bounds = ask(streams, address, History::bounds_led).await;
    let (lows, highs): (Vec<i64>, Vec<i64>) = bounds_at(&place, bounds).into_iter().unzip();
    let (lows, highs) = (Cursor::new(lows), Cursor::new(highs));
    if !highs.covers(&place) {
        // It has offsets that the topic never had: so it belongs to another topic of the same name.
        return gap(lows, None, GapReason::TopicRecreated);
    }
    if place.distance(&highs) > streams.settings.max_catch_up {
        let resumed = streams.feed.oldest().max(&place);
        let missed = place.distance(&resumed);
        return gap(resumed, Some(missed), GapReason::TooFarBehind);
    }
    if place.covers(&lows) {
        return place.into();
    }
    let missed = place.distance(&lows);
    gap(place.max(&lows), Some(missed), GapReason::Expired)
}

/// Returns the offsets between which `place` must lie. The bounds of a partition without a leader, or of one that the
/// cursor does not know, are the cursor's own: the stream continues there once the partition is read.
fn bounds_at(place: &Cursor, bounds: Vec<Option<Marks>>) -> Vec<Marks> {
    let bound = |(partition, marks): (i32, Option<Marks>)| match place.get(partition) {
        UNKNOWN => (UNKNOWN, UNKNOWN),
        next => marks.unwrap_or((next, next)),
    };
    (0..).zip(bounds).map(bound).collect()
}

/// Returns the position before the last `count` matching records. Without Kafka, only memory is searched.
async fn last(streams: &Streams, address: Address, filter: &Filter, count: usize) -> Cursor {
    let (feed, wanted) = (streams.feed.clone(), filter.clone());
    let Ok((place, found)) = spawn_blocking(move || feed.back(&wanted, count)).await else {
        return streams.feed.head();
    };
    if found >= count {
        return place;
    }
    let (filter, to) = (filter.clone(), streams.feed.head().positions().to_vec());
    let read = streams.reads.run(address, ReadKind::Scan, move |history, stop| {
        // Partitions without a leader, or not read yet, are not searched.
        let low = |(marks, to): (Option<Marks>, &i64)| match *to {
            UNKNOWN => UNKNOWN,
            to => marks.map_or(to, |(low, _)| low.min(to)),
        };
        let from = history.bounds_led()?.into_iter().zip(&to).map(low).collect();
        let range = HistoryRange { from, to, newest_first: true, limit: count, scan: LAST_SCAN };
        let matches = |record: &Record| filter.matches(record);
        let last = history.place_of_last(&range, stop, matches, |_| ControlFlow::Continue(()))?;
        Ok::<_, ReadError>(Cursor::new(last.place))
    });
    read.await.map_or(place, |(place, _)| place)
}

/// Asks Kafka until it answers.
async fn ask<T: Send + 'static>(
    streams: &Streams,
    address: Address,
    question: impl Fn(&History) -> Result<T, HistoryError> + Clone + Send + 'static,
) -> T {
    loop {
        let question = question.clone();
        let work = move |history: &History, _: &_| question(history).map_err(ReadError::from);
        match streams.reads.run(address, ReadKind::Page, work).await {
            Ok((answer, _)) => return answer,
            Err(_) => sleep(RETRY_AFTER).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_cursor_is_repeated_in_part() {
        assert_eq!(Start::after("0-5"), Start::After(Cursor::new([5])));
        assert_eq!(Start::after("0-5.7"), Start::Malformed("0-5.7".into()));
        assert_eq!(Start::after(&"ä".repeat(1000)), Start::Malformed("ä".repeat(REPEATED)));
    }

    #[test]
    fn a_place_that_does_not_know_a_partition_is_within_its_bounds() {
        let place = Cursor::new([5, UNKNOWN, 7, UNKNOWN]);
        let bounds = bounds_at(&place, vec![Some((1, 9)), Some((2, 8)), None, None]);
        assert_eq!(bounds, [(1, 9), (UNKNOWN, UNKNOWN), (7, 7), (UNKNOWN, UNKNOWN)]);
    }
}
