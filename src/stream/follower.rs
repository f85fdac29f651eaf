//! A follower: the state machine that produces the bytes of a stream.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::yield_now;
use tokio::time::sleep;

use super::catch_up::{CHUNK, CatchUp, Chunk, Reach};
use super::last_id::LastId;
use super::pace::Pace;
use super::start::{Resolved, Start, resolve};
use super::{Beat, OpenPermit, Pulse, Streams};
use crate::bounds::{Address, Share};
use crate::feed::{Cursor, Dialect, Feed, Filter, Frames, Gap, Next, Subscription};

/// Pause before a follower asks Kafka again after Kafka could not answer.
pub const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How long a follower waits for a permit to read from Kafka before it looks at memory again.
const PERMIT_WITHIN: Duration = Duration::from_secs(60);

/// One client's stream. Dropping it leaves every queue, cancels its read, and no longer counts it as open.
pub struct Follower {
    pulse: Pulse,
    reader: FollowerReader,
    has_ended: bool,
    _permit: OpenPermit,
}

/// What a follower is doing.
enum Phase {
    /// Nothing was sent yet.
    Opening(Start),
    /// Finding the start: the tail must have started, and some starts need an answer from Kafka.
    Resolving(Pin<Box<dyn Future<Output = Resolved> + Send>>),
    /// Reading memory, up to the newest record.
    Live(LiveReader),
    /// Waiting for its turn to look through more of memory.
    Queued(Pin<Box<dyn Future<Output = LiveReader> + Send>>),
    /// Waiting before it reads memory: for its rate, or behind memory for a permit to read from Kafka.
    Waiting(Pin<Box<dyn Future<Output = LiveReader> + Send>>),
    /// Behind memory, reading from Kafka.
    CatchingUp(CatchUp),
}

#[derive(Default)]
struct LiveReader {
    /// Frames that were read but not sent yet.
    frames: Bytes,
    /// The permit to read from Kafka, if the next look at memory says that this is still necessary.
    permit: Option<Share>,
    /// Held by a read of memory that follows one that stopped after much work: such reads take turns.
    turn: Option<OwnedSemaphorePermit>,
}

/// Reads the records that a follower sends.
struct FollowerReader {
    streams: Arc<Streams>,
    address: Address,
    /// The client's position, in memory or before it. Unknown while the phase is `Opening` or `Resolving`.
    subscription: Subscription,
    phase: Phase,
    pace: Option<Pace>,
    last_id: LastId,
}

impl Follower {
    /// Returns a reader of memory without a position, in the current incarnation of the topic.
    pub(super) fn subscription(feed: &Feed, dialect: Dialect, filter: Filter) -> Subscription {
        Subscription::new(feed, dialect, filter, Cursor::default())
    }

    pub(super) fn new(
        streams: &Arc<Streams>,
        address: Address,
        subscription: Subscription,
        start: Start,
        pulse: Pulse,
        pace: Option<Pace>,
        permit: OpenPermit,
    ) -> Self {
        let last_id = LastId::new(subscription.dialect(), subscription.filter());
        let (streams, phase) = (streams.clone(), Phase::Opening(start));
        let reader = FollowerReader { streams, address, subscription, phase, pace, last_id };
        Follower { pulse, reader, has_ended: false, _permit: permit }
    }

    /// Waits for the next bytes of the stream; `None` after the last ones. Cancel safe.
    pub async fn next(&mut self) -> Option<Bytes> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`next`](Self::next).
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        while !self.has_ended {
            // The pulse comes first, so that a client that always has something to read also gets its heartbeats and its
            // end.
            let has_opened = self.reader.has_opened();
            if has_opened && let Some(beat) = self.pulse.due() {
                self.has_ended = beat.is_last();
                return Poll::Ready(Some(self.reader.beat(&beat)));
            }
            match self.reader.poll_advance(cx) {
                Poll::Ready(Some(bytes)) => return Poll::Ready(Some(bytes)),
                Poll::Ready(None) => {}
                Poll::Pending if !has_opened => return Poll::Pending,
                // The feed wakes it for both.
                Poll::Pending if self.reader.waits_for_the_feed() => {
                    if !self.pulse.has_alert() {
                        ready!(self.pulse.poll_timer(cx));
                    }
                }
                Poll::Pending => ready!(self.pulse.poll_changed(cx)),
            }
        }
        Poll::Ready(None)
    }
}

impl FollowerReader {
    fn has_opened(&self) -> bool {
        !matches!(self.phase, Phase::Opening(_))
    }

    fn waits_for_the_feed(&self) -> bool {
        matches!(self.phase, Phase::Live(_))
    }

    fn beat(&mut self, beat: &Beat) -> Bytes {
        // Its client may take long to read this: it must not keep the turn of others meanwhile.
        if matches!(&self.phase, Phase::Queued(_) | Phase::Live(LiveReader { turn: Some(_), .. })) {
            self.queue();
        }
        let place = match &self.phase {
            Phase::Opening(_) | Phase::Resolving(_) => None,
            Phase::Live(live) if !live.frames.is_empty() => None,
            Phase::Live(_) | Phase::Queued(_) | Phase::Waiting(_) | Phase::CatchingUp(_) => {
                Some(self.subscription.place())
            }
        };
        self.last_id.beat(beat, place)
    }

    /// Takes the next step, and returns bytes to send, if there are any.
    fn poll_advance(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        Poll::Ready(match &mut self.phase {
            Phase::Opening(start) => {
                let start = std::mem::replace(start, Start::Now);
                Some(self.open(start))
            }
            Phase::Resolving(resolved) => {
                let resolved = ready!(resolved.as_mut().poll(cx));
                self.start_at(resolved)
            }
            Phase::Live(live) if !live.frames.is_empty() => Some(self.send_part()),
            Phase::Live(_) => return self.poll_memory(cx),
            Phase::Queued(live) | Phase::Waiting(live) => {
                // Memory may have evicted more meanwhile.
                self.phase = Phase::Live(ready!(live.as_mut().poll(cx)));
                None
            }
            Phase::CatchingUp(read) => {
                let chunk = ready!(read.poll_next(cx));
                self.caught_up_to(chunk)
            }
        })
    }

    fn queue(&mut self) {
        let labours = self.streams.labours.clone();
        self.phase = Phase::Queued(Box::pin(async move {
            yield_now().await;
            let turn = labours.acquire_owned().await.ok();
            LiveReader { turn, ..LiveReader::default() }
        }));
    }

    fn wait_for(&mut self, live: impl Future<Output = LiveReader> + Send + 'static) {
        self.phase = Phase::Waiting(Box::pin(live));
    }

    /// Returns the first bytes, even without Kafka: the reconnection time, and the position if it is known already.
    fn open(&mut self, start: Start) -> Bytes {
        let place = match (&start, self.streams.feed.now()) {
            (Start::After(cursor), Some(now)) if cursor.partitions() <= now.partitions() => {
                let mut cursor = cursor.clone();
                cursor.grow(now.partitions());
                Some(cursor)
            }
            // In the client's own form: a parser that starts afresh with each connection (WHATWG HTML, section 9.2.6)
            // would lose it at the first frame without an id, and the client would reconnect without it.
            (Start::After(cursor), None) => Some(cursor.clone()),
            _ => None,
        };
        let mut out = Vec::new();
        Frames::first(&mut out, self.subscription.dialect(), self.streams.settings.retry, place.as_ref());
        if let Some(place) = place {
            self.last_id.set(&Arc::new(place));
        }
        self.phase = self.resolving(start, Duration::ZERO);
        out.into()
    }

    fn resolving(&self, start: Start, delay: Duration) -> Phase {
        let (streams, address, filter) = (self.streams.clone(), self.address, self.subscription.filter().clone());
        Phase::Resolving(Box::pin(async move {
            if !delay.is_zero() {
                sleep(delay).await;
            }
            resolve(&streams, address, &start, &filter).await
        }))
    }

    /// Starts to read at a position, and sends it to the client.
    fn start_at(&mut self, Resolved { place, gap }: Resolved) -> Option<Bytes> {
        self.subscription.restart(place);
        self.phase = Phase::Live(LiveReader::default());
        match gap {
            Some(gap) => Some(self.send_gap(&gap)),
            None if self.last_id.is(self.subscription.place()) => None,
            None => Some(self.last_id.position(self.subscription.place())),
        }
    }

    /// Reports a gap that ends at the subscription's position.
    fn send_gap(&mut self, gap: &Gap) -> Bytes {
        self.streams.feed.metrics().gaps.inc();
        self.last_id.set(self.subscription.place());
        let mut out = Vec::new();
        Frames::gap(&mut out, self.subscription.dialect(), gap);
        out.into()
    }

    fn poll_memory(&mut self, cx: &Context<'_>) -> Poll<Option<Bytes>> {
        let Phase::Live(live) = &mut self.phase else { return Poll::Ready(None) };
        self.subscription.mark_seen();
        if live.permit.is_none()
            && let Some(wait) = self.pace.as_mut().and_then(Pace::wait)
        {
            self.wait_for(async move {
                sleep(wait).await;
                LiveReader::default()
            });
            return Poll::Ready(None);
        }
        let next = match &mut self.pace {
            Some(pace) => self.subscription.read_newest(&mut pace.allowance),
            None => self.subscription.read(),
        };
        live.turn = None;
        Poll::Ready(match next {
            Some(Next::Frames(frames)) => {
                (live.frames, live.permit) = (frames, None);
                Some(self.send_part())
            }
            Some(Next::Onward) => {
                self.queue();
                None
            }
            Some(Next::Behind { to }) => {
                let permit = live.permit.take();
                self.fall_behind(to, permit)
            }
            None => {
                live.permit = None;
                ready!(self.subscription.poll_changed(cx));
                None
            }
        })
    }

    /// Sends frames in parts, so that a slow client gets its heartbeats and its end in between.
    fn send_part(&mut self) -> Bytes {
        let Phase::Live(live) = &mut self.phase else { return Bytes::new() };
        let part = Frames::split(&mut live.frames, self.subscription.dialect(), CHUNK);
        match live.frames.is_empty() {
            true => self.last_id.sent(&part, self.subscription.place()),
            false => self.last_id.sent_part(&part),
        }
        part
    }

    /// Continues from Kafka if memory no longer has the client's position. Memory has the position `to`.
    fn fall_behind(&mut self, to: Arc<Cursor>, permit: Option<Share>) -> Option<Bytes> {
        if self.subscription.place().distance(&to) > self.streams.settings.max_catch_up {
            // Too far behind to catch up: it starts over, with a gap.
            self.start_over();
            return None;
        }
        let to = match Reach::of(&self.streams, &self.subscription, &to) {
            Reach::To(to) => to,
            Reach::Nothing => {
                drop(permit);
                self.wait_for(async {
                    sleep(RETRY_AFTER).await;
                    LiveReader::default()
                });
                return None;
            }
            Reach::Past(place) => {
                self.subscription.resume(place);
                return None;
            }
            Reach::Never(gap) => {
                self.subscription.resume(gap.resumed.clone());
                return Some(self.send_gap(&gap));
            }
        };
        match permit {
            Some(permit) => {
                let most = self.pace.as_ref().map(Pace::burst);
                let read = CatchUp::start(&self.streams, permit, &self.subscription, to, most);
                self.phase = Phase::CatchingUp(read);
            }
            None => {
                let (catch_ups, address) = (self.streams.catch_ups.clone(), self.address);
                self.wait_for(async move {
                    let permit = catch_ups.acquire(address, PERMIT_WITHIN).await.ok();
                    LiveReader { permit, ..LiveReader::default() }
                });
            }
        }
        None
    }

    /// Handles a chunk of the read from Kafka.
    fn caught_up_to(&mut self, chunk: Option<Chunk>) -> Option<Bytes> {
        match chunk {
            Some(Chunk::Frames(frames, place)) => {
                self.subscription.resume(place);
                if frames.is_empty() {
                    return None;
                }
                self.last_id.sent(&frames, self.subscription.place());
                return Some(frames);
            }
            Some(Chunk::Done) => {
                if let Phase::CatchingUp(read) = &self.phase {
                    let place = self.subscription.place().max(read.to());
                    self.subscription.resume(place);
                }
                self.phase = Phase::Live(LiveReader::default());
            }
            Some(Chunk::Failed(error)) => {
                // Kafka became unreachable, or retention deleted the records first.
                tracing::debug!(error = %error, "a stream's read from Kafka failed");
                self.start_over();
            }
            None => self.start_over(),
        }
        None
    }

    /// Checks again, after a moment, where the client's position is.
    fn start_over(&mut self) {
        let place = Cursor::clone(self.subscription.place());
        self.phase = self.resolving(Start::After(place), RETRY_AFTER);
    }
}
