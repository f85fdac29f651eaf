//! The request of a search.

use std::ops::ControlFlow;

use tokio_util::sync::CancellationToken;

use crate::event::Record;
use crate::feed::{Cursor, Filter};
use crate::kafka::{History, HistoryError, HistoryRange, LastMatches, ReadKind};

/// Which records to return: filter, range of positions and times, order and number.
#[derive(Clone)]
pub struct SearchRequest {
    pub filter: Filter,
    /// The position to start at, and the position to end before.
    pub from: Bound,
    pub to: Bound,
    /// Only records whose time ([`History::time_ms`]) is at or after `since` and before `until`, in milliseconds since 1970.
    pub since: Option<i64>,
    pub until: Option<i64>,
    pub order: Order,
    /// Most records to return.
    pub limit: usize,
}

/// One end of the range of positions. If it has a cursor and an offset, the narrower one counts.
#[derive(Clone, Default)]
pub struct Bound {
    pub cursor: Option<Cursor>,
    /// An offset in a single partition. The filter must exclude the other partitions.
    pub offset: Option<(i32, i64)>,
}

impl Bound {
    fn of(&self, partition: i32) -> impl Iterator<Item = i64> {
        let offset = self.offset.filter(|(own, _)| *own == partition).map(|(_, offset)| offset);
        self.cursor.as_ref().map(|cursor| cursor.get(partition)).into_iter().chain(offset)
    }
}

/// The order of the records, and which ones are left out if more than the limit match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    NewestFirst,
    OldestFirst,
    /// The newest records, oldest first. The topic is searched twice: for where they begin, and for the records.
    NewestReversed,
}

impl SearchRequest {
    /// Makes a request for all events of one user before a position, newest first, in one partition or in all.
    pub fn of_user(user: &str, partition: Option<i32>, to: Option<Cursor>) -> Self {
        let partitions = partition.into_iter().collect();
        SearchRequest {
            filter: Filter { users: vec![user.to_owned()], partitions, ..Filter::default() },
            from: Bound::default(),
            to: Bound { cursor: to, offset: None },
            since: None,
            until: None,
            order: Order::NewestFirst,
            limit: usize::MAX,
        }
    }

    pub fn is_newest_first(&self) -> bool {
        self.order == Order::NewestFirst
    }

    /// Whether many records may have to be read to find few.
    pub(super) fn kind(&self) -> ReadKind {
        if self.filter.reads_records() || self.until.is_some() { ReadKind::Scan } else { ReadKind::Page }
    }

    /// Whether a record with this time ([`History::time_ms`]) matches. Clocks differ, so records between two offsets may
    /// have times out of range: each record's own time decides. A record without a time is before all times.
    pub(super) fn matches(&self, record: &Record, time_ms: Option<i64>) -> bool {
        let at = time_ms.unwrap_or(i64::MIN);
        self.since.is_none_or(|since| at >= since)
            && self.until.is_none_or(|until| at < until)
            && self.filter.matches(record)
    }

    /// Returns the offsets to search, in the topic as it is now; about `scan` records are read. Blocks.
    ///
    /// `since` gives the start, because no record before that offset is as late. `until` does not give the end: a later
    /// record may have an earlier timestamp.
    pub(super) fn range(&self, history: &History, scan: u64) -> Result<HistoryRange, HistoryError> {
        let wanted = &self.filter.partitions;
        let since = self.since.map(|ms| history.offsets_since_of(ms, wanted)).transpose()?.map(Cursor::new);
        let bounds = history.bounds_of(wanted)?;
        let since = |partition| since.as_ref().map(|since| since.get(partition));
        let part = |(partition, (low, high)): (i32, (i64, i64))| {
            let from = self.from.of(partition).chain(since(partition)).fold(low, i64::max);
            let to = self.to.of(partition).fold(high, i64::min);
            (from.clamp(low, high), to.clamp(low, high))
        };
        let (from, to) = (0..).zip(bounds).map(part).unzip();
        Ok(HistoryRange { from, to, newest_first: self.is_newest_first(), limit: self.limit, scan })
    }

    /// For [`Order::NewestReversed`]: moves the start of the range to where the last `limit` records that match begin, unless
    /// `more` breaks off. Blocks.
    pub(super) fn find_last(
        &self,
        history: &History,
        stop: &CancellationToken,
        range: &mut HistoryRange,
        more: impl FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Option<LastMatches>, HistoryError> {
        if self.order != Order::NewestReversed {
            return Ok(None);
        }
        let last = history.place_of_last(range, stop, |record| self.matches(record, history.time_ms(record)), more)?;
        range.from.clone_from(&last.place);
        Ok(Some(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrower_of_a_cursor_and_an_offset_counts_in_its_partition_only() {
        let bound = Bound { cursor: Some(Cursor::new([10, 20])), offset: Some((1, 15)) };
        let of = |partition| bound.of(partition).collect::<Vec<_>>();
        assert_eq!((of(0), of(1)), (vec![10], vec![20, 15]));
        assert_eq!(Bound::default().of(0).count(), 0);
    }

    #[test]
    fn a_records_own_timestamp_decides_whether_it_is_between_two_times() {
        let request = SearchRequest { since: Some(10), until: Some(20), ..SearchRequest::of_user("Ann", None, None) };
        let record = |ms| Record::new(0, 0, ms, None, Some(br#"{"user":"Ann"}"#), std::iter::empty());
        let matching = [Some(9), Some(10), Some(19), Some(20), None].map(|ms| request.matches(&record(ms), ms));
        assert_eq!(matching, [false, true, true, false, false]);
    }
}
