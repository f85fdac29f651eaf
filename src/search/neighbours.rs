//! One record with those of the same user around it, found in a bounded part of its partition.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{SearchError, SearchRequest, Searches};
use crate::bounds::{Address, Share};
use crate::event::Record;
use crate::feed::Filter;
use crate::kafka::{History, HistoryRange, Marks, ReadKind, SearchReport};

/// About how many records before and after a record are looked at, and for how long.
const LOOKED_AT: u64 = 2_000;
const LOOK_TIME: Duration = Duration::from_millis(500);

/// The nearest record of the same user, before or after a record, in the same partition.
pub enum Neighbour {
    Found(Box<Record>),
    /// The partition has none.
    None,
    /// There is none among so many records that were looked at, and there are more.
    Farther(u64),
    /// It could not be looked for.
    Unknown,
}

/// The records of the same user around a record.
pub struct Neighbours {
    pub before: Neighbour,
    pub after: Neighbour,
}

impl Searches {
    /// Reads one record, the first and next offset of its partition and, if `around`, its neighbours, and runs `work` on the
    /// same thread.
    pub async fn record_among<T: Send + 'static>(
        &self,
        client: Address,
        (partition, offset): (i32, i64),
        around: bool,
        work: impl FnOnce(Option<(Record, Marks, Option<Neighbours>)>) -> T + Send + 'static,
    ) -> Result<(T, Share), SearchError> {
        let run = move |history: &History, stop: &CancellationToken| {
            let found = history.record(partition, offset)?.map(|(record, marks)| {
                let neighbours = around.then(|| Neighbours::of(history, stop, &record, marks)).flatten();
                (record, marks, neighbours)
            });
            Ok(work(found))
        };
        self.reads.run(client, ReadKind::Page, run).await
    }
}

impl Neighbours {
    /// Looks for the neighbours of a record; `None` if it has no user. Blocks.
    fn of(history: &History, stop: &CancellationToken, record: &Record, (low, high): Marks) -> Option<Self> {
        let user = record.user_and_action().user?;
        let filter = SearchRequest::of_user(&user, Some(record.partition()), None).filter;
        let look = |from, to, newest_first| {
            Neighbour::find(history, stop, &filter, record.partition(), (from, to), newest_first)
        };
        let (before, after) = (look(low, record.offset(), true), look(record.offset() + 1, high, false));
        Some(Neighbours { before, after })
    }
}

impl Neighbour {
    fn find(
        history: &History,
        stop: &CancellationToken,
        filter: &Filter,
        partition: i32,
        (from, to): Marks,
        newest_first: bool,
    ) -> Self {
        let started_at = Instant::now();
        let place = |offset| {
            let mut all = vec![0; partition as usize + 1];
            all[partition as usize] = offset;
            all
        };
        let range = HistoryRange { from: place(from), to: place(to), newest_first, limit: 1, scan: LOOKED_AT };
        let mut found = None;
        let end = history.search(
            &range,
            stop,
            |record| filter.matches(record),
            |step| match step {
                SearchReport::Found(record) => {
                    found = Some(record);
                    ControlFlow::Break(())
                }
                SearchReport::Progress { .. } if started_at.elapsed() > LOOK_TIME => ControlFlow::Break(()),
                SearchReport::Progress { .. } => ControlFlow::Continue(()),
            },
        );
        match (found, end) {
            (Some(record), _) => Neighbour::Found(Box::new(record)),
            (None, Ok(end)) if end.next.is_none() => Neighbour::None,
            (None, Ok(end)) => Neighbour::Farther(end.scanned),
            (None, Err(_)) => Neighbour::Unknown,
        }
    }
}
