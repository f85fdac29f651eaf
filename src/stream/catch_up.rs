//! Catching up: reads from Kafka, for one stream, the records that memory no longer has.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Streams;
use crate::bounds::{self, Share};
use crate::event::Record;
use crate::feed::{Cursor, Dialect, Filter, Frames, Gap, GapReason, Subscription, UNKNOWN};
use crate::kafka::{Cause, ClusterState, HistoryError};

/// Approximate bytes of frames that are handed to the connection at once.
pub const CHUNK: usize = 64 * 1024;
/// Most chunks that the read is ahead of its client, in addition to the one that it fills.
const READ_AHEAD: usize = 1;
/// Most records hidden by the filter between two reports of the position.
const HIDDEN: u32 = 10_000;
/// How long the read waits for its client to take one chunk.
const UNTAKEN: Duration = Duration::from_secs(10);
/// How long the read waits for its client in total, before others get its permit.
const TAKEN_SLOWLY: Duration = Duration::from_secs(30);

/// How far Kafka can currently be read for a client that is behind.
#[derive(Debug, PartialEq)]
pub enum Reach {
    /// Up to this position.
    To(Arc<Cursor>),
    /// Not at all: the client waits for permissions or for leaders.
    Nothing,
    /// The filter hides everything that cannot be read: the client continues at this position.
    Past(Cursor),
    /// It is unknown when the records in this gap can be read again: the client continues without them.
    Never(Gap),
}

impl Reach {
    /// A partition without a leader does not delay the others. Most get a leader again soon, so the client waits
    /// [`bounds::LEADERLESS`] before it continues without that partition's records.
    pub fn of(streams: &Streams, subscription: &Subscription, to: &Arc<Cursor>) -> Self {
        let topic = match &*streams.kafka.borrow() {
            ClusterState::Up(topic) if !topic.troubles.iter().any(|trouble| trouble.cause == Cause::ReadDenied) => {
                topic.clone()
            }
            _ => return Reach::Nothing,
        };
        let partitions = (0..).zip(&topic.partitions).filter(|(_, partition)| partition.leader.is_none());
        let waits = |since: std::time::Instant| since.elapsed() < bounds::LEADERLESS;
        let leaderless: Vec<(i32, bool)> =
            partitions.map(|(number, it)| (number, it.leaderless_since.is_some_and(waits))).collect();
        reach(subscription.filter(), subscription.place(), to, &streams.feed.head(), &leaderless)
    }
}

/// As [`Reach::of`]. `head` is the position after the newest record; `leaderless` has each partition without a leader,
/// and whether the client still waits for it.
fn reach(filter: &Filter, place: &Cursor, to: &Arc<Cursor>, head: &Cursor, leaderless: &[(i32, bool)]) -> Reach {
    let behind = |(partition, _): &&(i32, bool)| place.get(*partition) < to.get(*partition);
    if !leaderless.iter().any(|it| behind(&it)) {
        return Reach::To(to.clone());
    }
    let is_hidden = |partition: &i32| !filter.partitions.is_empty() && !filter.partitions.contains(partition);
    if leaderless.iter().filter(behind).any(|(partition, _)| is_hidden(partition)) {
        let mut past = place.clone();
        let hidden = leaderless.iter().filter(behind).map(|(partition, _)| *partition).filter(is_hidden);
        hidden.for_each(|partition| past.set(partition, to.get(partition)));
        return Reach::Past(past);
    }
    // The other partitions up to the newest record, because memory is not read for this client meanwhile.
    let mut newest = Cursor::clone(to);
    for (partition, next) in (0..).zip(head.positions()).filter(|(_, next)| **next != UNKNOWN) {
        newest.set(partition, newest.get(partition).max(*next));
    }
    leaderless.iter().for_each(|(partition, _)| newest.set(*partition, place.get(*partition)));
    if leaderless.iter().filter(behind).any(|(_, waits)| *waits) {
        return if place.covers(&newest) { Reach::Nothing } else { Reach::To(Arc::new(newest)) };
    }
    // New records arrive all the time; it is enough to reach a position that memory has.
    let has_others = |p: i32| place.get(p) >= to.get(p) || leaderless.iter().any(|(leaderless, _)| *leaderless == p);
    if !(0..to.partitions() as i32).all(has_others) {
        return Reach::To(Arc::new(newest));
    }
    let resumed = place.max(to);
    let missed = Some(place.distance(&resumed));
    Reach::Never(Gap { requested: place.to_string(), resumed, missed, reason: GapReason::NoLeader })
}

/// A message of the read.
pub enum Chunk {
    /// Frames, and the position after them.
    Frames(Bytes, Cursor),
    /// Everything up to the requested position has been read.
    Done,
    Failed(HistoryError),
}

/// A read from Kafka for one client. Dropping it cancels the read.
pub struct CatchUp {
    chunks: mpsc::Receiver<Chunk>,
    /// The position up to which it reads.
    to: Arc<Cursor>,
    _cancels: DropGuard,
}

impl CatchUp {
    /// Reads the records between a subscription's position and `to` on a thread that may block, a little ahead of the
    /// client. With `most`, the client gets only that many of the newest matching records, and at most
    /// [`bounds::NEWEST_BYTES`] of them.
    pub fn start(
        streams: &Arc<Streams>,
        share: Share,
        subscription: &Subscription,
        to: Arc<Cursor>,
        most: Option<usize>,
    ) -> Self {
        let (sender, chunks) = mpsc::channel(READ_AHEAD);
        let stop = CancellationToken::new();
        let _cancels = stop.clone().drop_guard();
        let read = Read {
            streams: streams.clone(),
            dialect: subscription.dialect(),
            filter: subscription.filter().clone(),
            frames: subscription.frames().clone(),
            from: Cursor::clone(subscription.place()),
            to: to.clone(),
            stop,
        };
        let outlet = ChunkSender { chunks: sender, runtime: Handle::current(), waited: Duration::ZERO };
        spawn_blocking(move || {
            let _share = share;
            match most {
                Some(most) => read.newest(most, outlet),
                None => read.all(outlet),
            }
        });
        CatchUp { chunks, to, _cancels }
    }

    /// Returns the position up to which it reads.
    pub fn to(&self) -> &Cursor {
        &self.to
    }

    /// Ready with the next chunk. `None` if the read gave up because its client read nothing, or too little.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Chunk>> {
        self.chunks.poll_recv(cx)
    }
}

struct Read {
    streams: Arc<Streams>,
    dialect: Dialect,
    filter: Filter,
    frames: Frames,
    from: Cursor,
    to: Arc<Cursor>,
    stop: CancellationToken,
}

impl Read {
    /// Sends every matching record.
    fn all(self, mut outlet: ChunkSender) {
        let (mut out, mut hidden, mut place, mut abandoned) = (Vec::new(), 0, self.from.clone(), false);
        let read = self.each(|record| {
            place.set(record.partition(), record.offset() + 1);
            match self.filter.matches(&record) {
                true => self.encode(&mut out, &record, &place),
                false => hidden += 1,
            }
            if out.len() < CHUNK && hidden < HIDDEN {
                return ControlFlow::Continue(());
            }
            hidden = 0;
            abandoned = !outlet.send_frames(&mut out, &place);
            if abandoned { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if !abandoned && outlet.send_frames(&mut out, &place) {
            outlet.send_end(read);
        }
    }

    /// Sends the newest `most` matching records, after all were read.
    fn newest(self, most: usize, mut outlet: ChunkSender) {
        let (mut newest, mut place) = (Newest::new(most, self.from.clone()), self.from.clone());
        let read = self.each(|record| {
            place.set(record.partition(), record.offset() + 1);
            if self.filter.matches(&record) {
                newest.push(record);
            }
            ControlFlow::Continue(())
        });
        if self.stop.is_cancelled() {
            return;
        }
        let Newest { records, skipped, before: mut at, .. } = newest;
        let mut out = Vec::new();
        if skipped > 0 {
            Frames::skipped(&mut out, self.dialect, skipped, &self.from, &at);
        }
        for record in records {
            at.set(record.partition(), record.offset() + 1);
            self.encode(&mut out, &record, &at);
            if out.len() >= CHUNK && !outlet.send_frames(&mut out, &at) {
                return;
            }
        }
        if outlet.send_frames(&mut out, &place) {
            outlet.send_end(read);
        }
    }

    fn each(&self, visit: impl FnMut(Record) -> ControlFlow<()>) -> Result<(), HistoryError> {
        self.streams.reads.history().read_until(&self.stop, self.from.positions(), self.to.positions(), visit)
    }

    fn encode(&self, out: &mut Vec<u8>, record: &Record, place: &Cursor) {
        self.frames.event(out, self.dialect, self.streams.feed.topic(), record, place);
    }
}

struct ChunkSender {
    chunks: mpsc::Sender<Chunk>,
    runtime: Handle,
    /// How long the client has kept the read waiting.
    waited: Duration,
}

impl ChunkSender {
    /// Sends a chunk. Returns false if the client reads nothing, or too little: such a client must not keep a Kafka
    /// consumer. A new read starts when it reads again.
    fn send(&mut self, chunk: Chunk) -> bool {
        let sent_at = Instant::now();
        let taken = self.runtime.block_on(self.chunks.send_timeout(chunk, UNTAKEN)).is_ok();
        self.waited += sent_at.elapsed();
        taken && self.waited < TAKEN_SLOWLY
    }

    fn send_frames(&mut self, out: &mut Vec<u8>, place: &Cursor) -> bool {
        self.send(Chunk::Frames(std::mem::take(out).into(), place.clone()))
    }

    fn send_end(&mut self, read: Result<(), HistoryError>) {
        self.send(read.map_or_else(Chunk::Failed, |()| Chunk::Done));
    }
}

/// The newest records, and how many came before them.
struct Newest {
    records: VecDeque<Record>,
    most: usize,
    bytes: usize,
    skipped: u64,
    /// The position before the first of `records`.
    before: Cursor,
}

impl Newest {
    fn new(most: usize, before: Cursor) -> Self {
        Newest { records: VecDeque::new(), most, bytes: 0, skipped: 0, before }
    }

    fn push(&mut self, record: Record) {
        self.bytes += record.size();
        self.records.push_back(record);
        while self.records.len() > 1
            && (self.records.len() > self.most || self.bytes > bounds::NEWEST_BYTES)
            && let Some(oldest) = self.records.pop_front()
        {
            self.bytes -= oldest.size();
            self.skipped += 1;
            self.before.set(oldest.partition(), oldest.offset() + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_waits_for_a_partition_without_a_leader_and_then_continues_under_load() {
        let (to, head) = (Arc::new(Cursor::new([50, 60, 70])), Cursor::new([100, 110, 120]));
        let reach = |place: [i64; 3], waits| reach(&Filter::default(), &Cursor::new(place), &to, &head, &[(1, waits)]);
        let others = |of_1| Reach::To(Arc::new(Cursor::new([100, of_1, 120])));
        // The other partitions are read first, up to the newest record.
        for waits in [true, false] {
            assert_eq!(reach([0, 5, 0], waits), others(5));
            assert_eq!(reach([0, 60, 0], waits), Reach::To(to.clone()));
        }
        // Newer records have arrived meanwhile.
        assert_eq!(reach([90, 5, 90], true), others(5));
        assert_eq!(reach([100, 5, 120], true), Reach::Nothing);
        let gap = Gap {
            requested: "0-90.1-5.2-90".into(),
            resumed: Cursor::new([90, 60, 90]),
            missed: Some(55),
            reason: GapReason::NoLeader,
        };
        assert_eq!(reach([90, 5, 90], false), Reach::Never(gap));
    }

    #[test]
    fn a_partition_without_a_leader_that_the_filter_hides_is_passed() {
        let filter = Filter { partitions: vec![0], ..Filter::default() };
        let to = Arc::new(Cursor::new([50, 60]));
        let reach = reach(&filter, &Cursor::new([7, 5]), &to, &Cursor::new([50, 60]), &[(1, false)]);
        assert_eq!(reach, Reach::Past(Cursor::new([7, 60])));
    }

    #[test]
    fn of_many_records_the_newest_are_kept_with_the_place_before_them() {
        let mut newest = Newest::new(2, Cursor::new([10, 20]));
        for (partition, offset) in [(0, 10), (1, 20), (0, 11), (1, 21)] {
            newest.push(Record::new(partition, offset, None, None, Some(b"x"), std::iter::empty()));
        }
        let kept: Vec<i64> = newest.records.iter().map(Record::offset).collect();
        assert_eq!((kept, newest.skipped, newest.before), (vec![11, 21], 2, Cursor::new([11, 21])));
    }
}
