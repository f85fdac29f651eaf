//! Following the topic, from the requested start to the bytes of the stream.
//!
//! A [`Follower`] joins memory (`feed`) and Kafka (`kafka`): it reads from memory, reads from Kafka what memory no
//! longer has, and reports as a gap what neither has. It holds a position in the topic, not a queue, and produces bytes
//! when its client is ready for them. `web` opens streams and sends their bytes; this folder knows no HTTP.

mod catch_up;
mod follower;
mod last_id;
mod pace;
mod pulse;
mod start;
#[cfg(test)]
mod tests;

use std::future::pending;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::select;
use tokio::sync::{Semaphore, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

pub use follower::Follower;
pub use pulse::{Beat, Bye, Heartbeat, Pulse, Status};
pub use start::Start;

use crate::bounds::{self, Address, Busy, Share, Shares};
use crate::config::FeedSettings;
use crate::feed::{Dialect, Feed, Filter, Frames, GapReason, OpenStream};
use crate::kafka::{ClusterState, Reads};
use crate::rejects::Rejected;
use pace::Pace;

/// How long a strict request waits for Kafka to check its cursor.
const STRICT_WITHIN: Duration = Duration::from_secs(5);

/// Least time between two reports of rejects to the pages: each wakes all streams.
const REJECTS_EVERY: Duration = Duration::from_millis(500);

/// The parts that all streams share.
pub struct Streams {
    feed: Feed,
    reads: Reads,
    kafka: watch::Receiver<ClusterState>,
    /// How many submissions were refused.
    rejects: watch::Receiver<Rejected>,
    /// Whether the broker is the embedded one, which cannot search by time.
    embedded: bool,
    open: Shares,
    /// Streams that read from Kafka, at the pace of their clients.
    catch_ups: Shares,
    /// Streams that look through much of memory: some workers always remain for the others.
    labours: Arc<Semaphore>,
    /// Cancelled when the process is asked to end; every stream then sends `bye`.
    closing: CancellationToken,
    /// See [`Pulse`]; made with the first stream.
    alerts: OnceLock<watch::Receiver<bool>>,
    settings: FeedSettings,
}

/// What a client requests.
pub struct StreamRequest {
    pub address: Address,
    pub dialect: Dialect,
    pub filter: Filter,
    /// Other frames than those of the feed.
    pub frames: Option<Frames>,
    pub start: Start,
    /// Most events per second; `None` means no limit.
    pub max_rate: Option<usize>,
    /// Whether to refuse a cursor that cannot be resumed, instead of a stream that starts with a gap.
    pub strict: bool,
}

/// A stream that was not opened.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum OpenError {
    /// The client's address has as many streams as one address may have.
    #[error("{0} streams of this address are open already")]
    AddressFull(usize),
    /// There are as many as the settings allow (`feed.max_streams`).
    #[error("{0} streams are open already")]
    Full(usize),
    /// A strict request whose cursor only Kafka can check.
    #[error("Kafka is unreachable, so the cursor cannot be checked")]
    Unchecked,
    /// A strict request whose cursor leads to a gap.
    #[error("`{requested}` cannot be resumed: {reason}")]
    NotResumable { requested: String, reason: GapReason },
}

/// Counts a stream as open until it is dropped.
pub struct OpenPermit {
    _share: Share,
    _stream: OpenStream,
}

impl Streams {
    pub fn new(
        feed: Feed,
        reads: Reads,
        kafka: watch::Receiver<ClusterState>,
        rejects: watch::Receiver<Rejected>,
        embedded: bool,
        closing: CancellationToken,
        settings: FeedSettings,
    ) -> Self {
        Streams {
            feed,
            reads,
            kafka,
            rejects,
            embedded,
            open: Shares::new(settings.max_streams, bounds::part_of_one_address(settings.max_streams)),
            catch_ups: Shares::new(bounds::CATCH_UPS, bounds::CATCH_UPS_EACH),
            labours: Arc::new(Semaphore::new(bounds::labours())),
            closing,
            alerts: OnceLock::new(),
            settings,
        }
    }

    /// Returns a receiver that changes with Kafka's state, with the rejects at most every [`REJECTS_EVERY`], and to true when
    /// the process is asked to end. The streams that wait for records are woken as well.
    fn alerts(&self) -> watch::Receiver<bool> {
        let make = || {
            let (alert, alerts) = watch::channel(self.closing.is_cancelled());
            let (mut kafka, mut rejects) = (self.kafka.clone(), self.rejects.clone());
            let (closing, feed) = (self.closing.clone(), self.feed.clone());
            tokio::spawn(async move {
                let mut pause = interval(REJECTS_EVERY);
                pause.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    let changed = async {
                        // Without a sender, which the tests do not keep, the state stays as it is.
                        kafka.changed().await.is_ok() || pending().await
                    };
                    let refused = async {
                        pause.tick().await;
                        rejects.changed().await.is_ok() || pending().await
                    };
                    select! {
                        biased;
                        () = closing.cancelled() => break,
                        _ = changed => drop(alert.send_replace(false)),
                        _ = refused => drop(alert.send_replace(false)),
                    }
                    feed.wake();
                }
                alert.send_replace(true);
                feed.wake();
                alert.closed().await; // `changed` of a receiver fails at once without a sender
            });
            alerts
        };
        self.alerts.get_or_init(make).clone()
    }

    /// The permits of streams that read from Kafka.
    pub fn catch_ups(&self) -> &Shares {
        &self.catch_ups
    }

    /// Opens a stream. Its start is resolved while it runs; only a strict request waits for that here.
    pub async fn follow(self: &Arc<Self>, request: StreamRequest) -> Result<Follower, OpenError> {
        let StreamRequest { address, dialect, filter, frames, start, max_rate, strict } = request;
        // The reader comes first: it notes the incarnation of the topic to which the start belongs.
        let mut subscription = Follower::subscription(&self.feed, dialect, filter);
        if let Some(frames) = frames {
            subscription = subscription.encode_with(frames);
        }
        // "Now" is resolved before the response's head is sent: a client that has seen the head gets everything after
        // it.
        let start = match (start, self.feed.now()) {
            (Start::Now, Some(now)) => Start::After(now),
            (start, _) => start,
        };
        let permit = self.admit(address)?;
        if strict {
            self.check(address, &start).await?;
        }
        let pulse = Pulse::new(self, Some(dialect));
        Ok(Follower::new(self, address, subscription, start, pulse, max_rate.map(Pace::new), permit))
    }

    /// Counts one more stream, if the limits allow it. Also while the process ends: such a stream starts as any other and
    /// then says `bye`. An `EventSource` reconnects after that, but gives up for ever after a status other than 200 (WHATWG
    /// HTML, section 9.2.3).
    pub fn admit(&self, address: Address) -> Result<OpenPermit, OpenError> {
        let most = self.settings.max_streams;
        let share = self.open.try_acquire(address).map_err(|busy| match busy {
            Busy::Address(each) => OpenError::AddressFull(each),
            Busy::Total => OpenError::Full(most),
        })?;
        let stream = self.feed.open(most).ok_or(OpenError::Full(most))?;
        Ok(OpenPermit { _share: share, _stream: stream })
    }

    /// The time between two heartbeats.
    pub fn heartbeat(&self) -> Duration {
        self.settings.heartbeat
    }

    pub fn is_closing(&self) -> bool {
        self.closing.is_cancelled()
    }

    /// Resolves when the process is asked to end.
    pub async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// Returns the pulse of a stream without records, which reports nothing about Kafka.
    pub fn pulse(&self) -> Pulse {
        Pulse::new(self, None)
    }

    /// Rejects a cursor that leads to a gap.
    async fn check(&self, address: Address, start: &Start) -> Result<(), OpenError> {
        if !matches!(start, Start::Malformed(_) | Start::After(_)) {
            return Ok(());
        }
        let filter = Filter::default();
        let resolved = timeout(STRICT_WITHIN, start::resolve(self, address, start, &filter)).await;
        match resolved.map_err(|_| OpenError::Unchecked)?.gap {
            Some(gap) => Err(OpenError::NotResumable { requested: gap.requested, reason: gap.reason }),
            None => Ok(()),
        }
    }
}
