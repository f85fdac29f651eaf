//! The streams: Server-Sent Events for programs and for the page, and what a WebSocket is told.
//!
//! Each is a state machine that is asked for its next bytes when the client took the last ones: it holds a place in the
//! feed, not a queue. What memory no longer has it reads from Kafka; what Kafka no longer has it tells as a gap.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::pending;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use rocket::get;
use rocket::http::{ContentType, Header};
use rocket::request::{FromRequest, Outcome, Request};
use rocket::response::stream::stream;
use rocket::response::{self, Responder, Response};
use serde_json::json;
use tokio::select;
use tokio::sync::{mpsc, watch};
use tokio::task::yield_now;
use tokio::time::{Instant, Interval, Sleep, interval_at, sleep};
use tokio_util::io::StreamReader;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::App;
use super::guards::Shared;
use super::problem::{Kind, Problem};
use super::query::{Parameters, bad};
use crate::event::Record;
use crate::event::time::format_ms;
use crate::feed::{Cursor, Dialect, Filter, Frames, Gap, Next, OpenStream, Start, Subscription};
use crate::kafka::{History, HistoryError, Query, State};

/// Bytes that are handed to the connection at once, at most.
const CHUNK: usize = 64 * 1024;
/// Bytes that a read from Kafka is ahead of its client, at most: this many chunks.
const READ_AHEAD: usize = 2;
/// Records that a filter hides between two places told, at most.
const HIDDEN: u32 = 10_000;
/// How long a read from Kafka waits for its client to take something.
const UNTAKEN: Duration = Duration::from_secs(10);
/// How long it waits for its client in all, until others have their turn.
const TAKEN_SLOWLY: Duration = Duration::from_secs(30);
/// Between two questions to a Kafka that is away.
const AGAIN: Duration = Duration::from_millis(500);
/// Events a second that a page gets, unless it asks for another rate: more than that nobody reads.
const PAGE_RATE: usize = 50;
/// A stream that gets less than there is gets the newest this often.
const SKIP_EVERY: Duration = Duration::from_millis(500);
/// Records that `last=` asks for, at most.
const MOST_LAST: usize = 1000;

/// Where the client wants to begin.
pub struct Begin(Start);

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Begin {
    type Error = Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Infallible> {
        let id = request.headers().get_one("Last-Event-ID").filter(|id| !id.is_empty());
        Outcome::Success(Begin(id.map_or(Start::Now, after)))
    }
}

fn after(text: &str) -> Start {
    text.parse().map_or_else(|_| Start::Malformed(text.chars().take(200).collect()), Start::After)
}

#[get("/api/v1/stream")]
pub async fn api_stream(app: Shared, begin: Begin, parameters: Parameters) -> Result<Live, Problem> {
    open(app.0, Dialect::Json, begin, &parameters).await
}

#[get("/stream")]
pub async fn page_stream(app: Shared, begin: Begin, parameters: Parameters) -> Result<Live, Problem> {
    open(app.0, Dialect::Html, begin, &parameters).await
}

/// A stream that begins where its client wants, if there may be one more.
pub(super) async fn open(
    app: Arc<App>,
    dialect: Dialect,
    Begin(begin): Begin,
    parameters: &Parameters,
) -> Result<Live, Problem> {
    let filter = Filter::from(&parameters.filters()?);
    let (since, last) = (parameters.time("since")?, parameters.number("last", 1..=MOST_LAST)?);
    let rate = match (parameters.number("max_rate", 0..=100_000)?, dialect) {
        (None, Dialect::Html) => Some(PAGE_RATE),
        (rate, _) => rate.filter(|rate| *rate > 0),
    };
    let start = match (begin, parameters.get("after"), since, last) {
        (Start::Now, Some(text), ..) => after(text),
        (Start::Now, None, Some(ms), _) => Start::Since(ms),
        (Start::Now, None, None, Some(count)) => Start::Last(count),
        (begin, ..) => begin,
    };
    // Before any place is: one of a topic that is made anew in between means nothing in the new one.
    let topic = app.feed.renewed();
    // "Now" is decided before the answer's head is on its way: who has seen that may count on what comes after it.
    let start = match (start, app.feed.now()) {
        (Start::Now, Some(now)) => Start::After(now),
        (start, _) => start,
    };
    let most = app.settings.feed.max_streams;
    let full = || Problem::new(Kind::Unavailable, format!("{most} streams are open already"));
    let stream = app.feed.open(most).ok_or_else(full)?;
    if app.ingest.is_closing() {
        return Err(Problem::new(Kind::Unavailable, "shutting down"));
    }
    if parameters.flag("strict") {
        strictly(&app, &start).await?;
    }
    let pulse = Pulse::new(&app, dialect);
    let pace = rate.map(Pace::new);
    Ok(Live { client: Client { app, dialect, filter, pulse, pace, stream, topic }, start })
}

/// For `strict=1`: 400 instead of a gap.
async fn strictly(app: &Arc<App>, start: &Start) -> Result<(), Problem> {
    let gap = match start {
        Start::Malformed(_) | Start::After(_) => {
            let resolved = tokio::time::timeout(Duration::from_secs(5), resolve(app, start, &Filter::default())).await;
            let away = |_| Problem::new(Kind::Unavailable, "Kafka is away, so the cursor cannot be checked");
            resolved.map_err(away)?.gap
        }
        _ => None,
    };
    match gap {
        Some(gap) => Err(bad("after", format!("`{}` cannot be resumed: {}", gap.requested, gap.reason))),
        None => Ok(()),
    }
}

/// A stream as an answer.
pub struct Live {
    client: Client,
    start: Start,
}

impl Live {
    /// Everything that its client gets, as long as it takes it.
    pub(super) fn frames(self) -> impl Stream<Item = io::Result<Bytes>> {
        frames(self.client, self.start)
    }
}

impl<'r> Responder<'r, 'static> for Live {
    fn respond_to(self, _: &'r Request<'_>) -> response::Result<'static> {
        Response::build()
            .header(ContentType::EventStream)
            .header(Header::new("Cache-Control", "no-cache, no-transform"))
            .header(Header::new("X-Accel-Buffering", "no"))
            .streamed_body(StreamReader::new(Box::pin(self.frames())))
            .max_chunk_size(CHUNK)
            .ok()
    }
}

/// Everything that a client gets, as long as it takes it.
fn frames(client: Client, start: Start) -> impl Stream<Item = io::Result<Bytes>> {
    let Client { app, dialect, filter, mut pulse, mut pace, stream: open, mut topic } = client;
    stream! {
        let _open = open;
        let mut start = start;
        let (bytes, mut place) = first_bytes(&app, dialect, &start);
        yield Ok(bytes);
        loop {
            // Where to begin: Kafka must say, or the tail must have started.
            let resolved = {
                let mut resolving = Box::pin(resolve(&app, &start, &filter));
                loop {
                    let beat = select! {
                        resolved = &mut resolving => break resolved,
                        beat = pulse.beat() => beat,
                    };
                    yield Ok(beat.bytes(dialect, place.as_ref()));
                    if beat.ends() {
                        return;
                    }
                }
            };
            if let Some(gap) = &resolved.gap {
                app.feed.metrics().gaps.inc();
                yield Ok(gap_bytes(dialect, gap));
            } else if place.as_ref() != Some(&resolved.place) {
                yield Ok(position_bytes(dialect, &resolved.place));
            }
            let mut subscription = Subscription::new(&app.feed, dialect, filter.clone(), resolved.place).of_topic(topic);
            loop {
                subscription.mark_seen();
                if let Some(wait) = pace.as_mut().and_then(Pace::wait) {
                    let beat = select! {
                        () = sleep(wait) => continue,
                        beat = pulse.beat() => beat,
                    };
                    yield Ok(beat.bytes(dialect, Some(subscription.place())));
                    if beat.ends() {
                        return;
                    }
                    continue;
                }
                let next = match &mut pace {
                    Some(pace) => subscription.read_newest(&mut pace.allowance),
                    None => subscription.read(),
                };
                match next {
                    Some(Next::Frames(bytes)) => yield Ok(bytes),
                    Some(Next::Onward) => yield_now().await,
                    None => {
                        let beat = select! {
                            () = subscription.changed() => None,
                            beat = pulse.beat() => Some(beat),
                        };
                        if let Some(beat) = beat {
                            yield Ok(beat.bytes(dialect, Some(subscription.place())));
                            if beat.ends() {
                                return;
                            }
                        }
                    }
                    Some(Next::Behind { to }) if subscription.place().distance(&to) > app.settings.feed.max_catch_up => {
                        // Farther than is read for one: the new beginning tells it so.
                        (start, place, topic) = from_there(&subscription);
                        break;
                    }
                    Some(Next::Behind { to }) => {
                        let mut chunks = read_from_kafka(&app, &subscription, &to, pace.as_ref().map(|pace| pace.burst()));
                        let failed = loop {
                            let step = select! {
                                chunk = chunks.recv() => Ok(chunk),
                                beat = pulse.beat() => Err(beat),
                            };
                            match step {
                                Ok(Some(Chunk::Frames(bytes, place))) => {
                                    subscription.resume(place);
                                    if !bytes.is_empty() {
                                        yield Ok(bytes);
                                    }
                                }
                                Ok(Some(Chunk::Done)) => {
                                    let place = subscription.place().max(&to);
                                    subscription.resume(place);
                                    break false;
                                }
                                Ok(Some(Chunk::Failed(error))) => {
                                    tracing::debug!(error = %error, "a stream's read from Kafka broke off");
                                    break true;
                                }
                                // Given up while this client took nothing, or little.
                                Ok(None) => break true,
                                Err(beat) => {
                                    yield Ok(beat.bytes(dialect, Some(subscription.place())));
                                    if beat.ends() {
                                        return;
                                    }
                                }
                            }
                        };
                        if failed {
                            // Kafka went away, or retention was faster: find out anew where we stand.
                            (start, place, topic) = from_there(&subscription);
                            break;
                        }
                    }
                }
            }
            sleep(AGAIN).await;
        }
    }
}

/// To begin once more where a subscription stands: what to begin with, the place told last, and its topic.
fn from_there(subscription: &Subscription) -> (Start, Option<Cursor>, Option<u64>) {
    let place = subscription.place();
    (Start::After(place.clone()), Some(place.clone()), subscription.topic())
}

/// One client's stream before it begins.
struct Client {
    app: Arc<App>,
    dialect: Dialect,
    filter: Filter,
    pulse: Pulse,
    pace: Option<Pace>,
    stream: OpenStream,
    /// The topic in which its place is found.
    topic: Option<u64>,
}

/// How many events a client gets that asked for no more than a rate.
struct Pace {
    /// Events a second.
    rate: usize,
    /// Events that it may get now.
    allowance: usize,
    refilled: Instant,
}

impl Pace {
    fn new(rate: usize) -> Self {
        Pace { rate, allowance: 2 * rate, refilled: Instant::now() }
    }

    /// Events that it may get at once.
    fn burst(&self) -> usize {
        2 * self.rate
    }

    /// How long to wait before anything is read for it.
    fn wait(&mut self) -> Option<Duration> {
        let passed = self.refilled.elapsed();
        let earned = (passed.as_secs_f64() * self.rate as f64) as usize;
        if earned > 0 {
            self.allowance = (self.allowance + earned).min(self.burst());
            self.refilled = Instant::now();
        }
        // Row by row the newest would be as unreadable as all.
        let enough = (SKIP_EVERY.as_secs_f64() * self.rate as f64).ceil() as usize;
        (self.allowance == 0).then(|| Duration::from_secs_f64(enough as f64 / self.rate as f64))
    }
}

/// What a stream says by itself, without an event.
pub(super) struct Pulse {
    heartbeat: Interval,
    /// When it ends so that the client resumes, perhaps elsewhere.
    end: Pin<Box<Sleep>>,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    /// The page is told whether the broker is there.
    kafka: Option<watch::Receiver<State>>,
    told: Option<bool>,
}

pub(super) enum Beat {
    Heartbeat,
    Status(serde_json::Value),
    Bye(&'static str),
}

impl Pulse {
    pub(super) fn new(app: &App, dialect: Dialect) -> Self {
        let feed = &app.settings.feed;
        // Less up to a fifth, by chance, so that clients that came together don't come again together.
        let chance = (RandomState::new().hash_one(()) % 1000) as f64 / 1000.0;
        let age = feed.max_age.mul_f64(1.0 - chance / 5.0);
        Pulse {
            heartbeat: interval_at(Instant::now() + feed.heartbeat, feed.heartbeat),
            end: Box::pin(sleep(age)),
            closing: Box::pin(app.closing.clone().cancelled_owned()),
            kafka: (dialect == Dialect::Html).then(|| app.kafka.clone()),
            told: None,
        }
    }

    pub(super) async fn beat(&mut self) -> Beat {
        if self.told.is_none()
            && let Some(status) = self.status()
        {
            return Beat::Status(status);
        }
        loop {
            let changed = async {
                match &mut self.kafka {
                    Some(kafka) => kafka.changed().await.is_ok() || pending().await,
                    None => pending().await,
                }
            };
            select! {
                _ = self.heartbeat.tick() => return Beat::Heartbeat,
                () = &mut self.end => return Beat::Bye("max age"),
                () = &mut self.closing => return Beat::Bye("shutdown"),
                _ = changed => {}
            }
            if let Some(status) = self.status() {
                return Beat::Status(status);
            }
        }
    }

    /// The broker's state, if it is another one than the page was told.
    fn status(&mut self) -> Option<serde_json::Value> {
        let (up, status) = match &*self.kafka.as_mut()?.borrow_and_update() {
            State::Up(_) => (true, json!({"broker": "up", "since": null, "reason": null})),
            State::Connecting { since_ms, reason } | State::Away { since_ms, reason } => {
                (false, json!({"broker": "away", "since": format_ms(*since_ms), "reason": reason}))
            }
        };
        (self.told.replace(up) != Some(up)).then_some(status)
    }
}

impl Beat {
    pub(super) fn bytes(&self, dialect: Dialect, place: Option<&Cursor>) -> Bytes {
        let mut out = Vec::new();
        match self {
            Beat::Heartbeat => Frames::position(&mut out, dialect, place),
            Beat::Status(status) => Frames::control(&mut out, dialect, "status", place, status),
            Beat::Bye(reason) => Frames::control(&mut out, dialect, "bye", place, &json!({"reason": reason})),
        }
        out.into()
    }

    pub(super) fn ends(&self) -> bool {
        matches!(self, Beat::Bye(_))
    }
}

/// At once, whatever Kafka does: how long to wait before connecting again, and the place where that is known already.
fn first_bytes(app: &App, dialect: Dialect, start: &Start) -> (Bytes, Option<Cursor>) {
    let place = match (start, app.feed.now()) {
        (Start::After(cursor), Some(now)) if cursor.partitions() <= now.partitions() => {
            let mut cursor = cursor.clone();
            cursor.grow(now.partitions());
            Some(cursor)
        }
        // As the client has it: a parser that begins anew with each connection (WHATWG HTML, section 9.2.6) would forget it
        // at the first frame without an id, and the client would come back without it.
        (Start::After(cursor), None) => Some(cursor.clone()),
        _ => None,
    };
    let mut out = Vec::new();
    Frames::first(&mut out, dialect, app.settings.feed.retry, place.as_ref());
    (out.into(), place)
}

fn position_bytes(dialect: Dialect, place: &Cursor) -> Bytes {
    let mut out = Vec::new();
    Frames::position(&mut out, dialect, Some(place));
    out.into()
}

fn gap_bytes(dialect: Dialect, gap: &Gap) -> Bytes {
    let mut out = Vec::new();
    Frames::gap(&mut out, dialect, gap);
    out.into()
}

/// Where a stream begins, after all that had to be found out.
struct Resolved {
    place: Cursor,
    gap: Option<Gap>,
}

impl From<Cursor> for Resolved {
    fn from(place: Cursor) -> Self {
        Resolved { place, gap: None }
    }
}

/// Finds the place to begin with; waits for Kafka as long as it takes.
async fn resolve(app: &Arc<App>, start: &Start, filter: &Filter) -> Resolved {
    let now = app.feed.started().await;
    let place = match start {
        Start::Now => return now.into(),
        Start::Malformed(text) => {
            let gap = Gap { requested: text.clone(), resumed: now.clone(), missed: None, reason: "malformed cursor" };
            return Resolved { place: now, gap: Some(gap) };
        }
        Start::Last(count) => return last(app, filter, *count).await.into(),
        Start::Since(ms) if app.connection.is_embedded() => return app.feed.since(*ms).into(),
        Start::Since(ms) => {
            let ms = *ms;
            Cursor::new(insist(app, move |history| history.offsets_since(ms)).await)
        }
        Start::After(cursor) => cursor.clone(),
    };
    locate(app, place, &now).await
}

/// Whether what a place has not seen can be had, and from where it can if not.
async fn locate(app: &Arc<App>, place: Cursor, now: &Cursor) -> Resolved {
    let requested = place.to_string();
    let gap = |resumed: Cursor, missed, reason| Resolved {
        place: resumed.clone(),
        gap: Some(Gap { requested: requested.clone(), resumed, missed, reason }),
    };
    if place.partitions() > now.partitions() {
        return gap(now.clone(), None, "unknown partition");
    }
    let mut place = place;
    place.grow(now.partitions());
    if app.feed.remembers(&place) && now.covers(&place) {
        return place.into();
    }
    let bounds = insist(app, |history| history.bounds()).await;
    let lows = Cursor::new(bounds.iter().map(|(low, _)| *low).collect::<Vec<_>>());
    let highs = Cursor::new(bounds.iter().map(|(_, high)| *high).collect::<Vec<_>>());
    if !highs.covers(&place) {
        // It names offsets that the topic never had: another topic of the same name.
        return gap(lows, None, "topic recreated");
    }
    if place.distance(&highs) > app.settings.feed.max_catch_up {
        let resumed = app.feed.oldest().max(&place);
        let missed = place.distance(&resumed);
        return gap(resumed, Some(missed), "too far behind");
    }
    if place.covers(&lows) {
        return place.into();
    }
    let missed = place.distance(&lows);
    gap(place.max(&lows), Some(missed), "expired")
}

/// The place before the last so many records that match.
async fn last(app: &Arc<App>, filter: &Filter, count: usize) -> Cursor {
    let (place, found) = app.feed.back(filter, count);
    if found >= count {
        return place;
    }
    let (filter, now) = (filter.clone(), app.feed.head());
    let read = super::reading::blocking(app, move |history| {
        let from = history.bounds()?.into_iter().map(|(low, _)| low).collect();
        let to = now.positions().to_vec();
        let query = Query { from, to, newest_first: true, limit: count, scan: 100_000 };
        let mut place = now;
        for record in history.page(&query, |record| filter.matches(record))?.records {
            place.set(record.partition(), record.offset());
        }
        Ok(place)
    });
    // Without Kafka, what memory has is the best there is.
    read.await.unwrap_or(place)
}

/// Asks Kafka until it answers.
async fn insist<T: Send + 'static>(
    app: &Arc<App>,
    ask: impl Fn(&History) -> Result<T, HistoryError> + Clone + Send + 'static,
) -> T {
    loop {
        match super::reading::blocking(app, ask.clone()).await {
            Ok(answer) => return answer,
            Err(_) => sleep(AGAIN).await,
        }
    }
}

/// What a read from Kafka hands over.
enum Chunk {
    /// Frames, and the place after them.
    Frames(Bytes, Cursor),
    /// All that was asked for has been read.
    Done,
    Failed(HistoryError),
}

/// Reads what lies between a subscription's place and another one, in the background, a little ahead of the client; of
/// what matches the newest `most`.
fn read_from_kafka(
    app: &Arc<App>,
    subscription: &Subscription,
    to: &Arc<Cursor>,
    most: Option<usize>,
) -> mpsc::Receiver<Chunk> {
    let (sender, receiver) = mpsc::channel::<Chunk>(READ_AHEAD);
    let (app, to) = (app.clone(), to.clone());
    let (mut place, dialect, filter) =
        (subscription.place().clone(), subscription.dialect(), subscription.filter().clone());
    let runtime = tokio::runtime::Handle::current();
    tokio::spawn(async move {
        let Ok(permit) = app.catch_ups.clone().acquire_owned().await else { return };
        let work = move || {
            let _permit = permit;
            let mut waited = Duration::ZERO;
            // A client that takes nothing, or little, must not keep a consumer: it is read for again when it comes back.
            let mut send = |chunk| {
                let begun = Instant::now();
                let taken = runtime.block_on(sender.send_timeout(chunk, UNTAKEN)).is_ok();
                waited += begun.elapsed();
                taken && waited < TAKEN_SLOWLY
            };
            let encode = |out: &mut Vec<u8>, record: &Record, place: &Cursor| {
                app.feed.frames().event(out, dialect, app.feed.topic(), record, place);
            };
            let mut taken = true;
            let (mut out, mut hidden) = (Vec::new(), 0);
            let from = place.clone();
            let mut newest = VecDeque::new();
            let (mut skipped, mut skipped_to) = (0, Cursor::default());
            let read = app.history.read(from.positions(), to.positions(), |record| {
                place.set(record.partition(), record.offset() + 1);
                match (filter.matches(&record), most) {
                    (true, None) => encode(&mut out, &record, &place),
                    (true, Some(most)) => {
                        newest.push_back((record, place.clone()));
                        if newest.len() > most {
                            skipped += 1;
                            skipped_to = newest.pop_front().map(|(_, place)| place).unwrap_or_default();
                        }
                    }
                    (false, _) => hidden += 1,
                }
                if most.is_some() && !sender.is_closed() || out.len() < CHUNK && hidden < HIDDEN {
                    return ControlFlow::Continue(());
                }
                hidden = 0;
                taken = send(Chunk::Frames(std::mem::take(&mut out).into(), place.clone()));
                if taken { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            if skipped > 0 {
                Frames::skipped(&mut out, dialect, skipped, &from, &skipped_to);
            }
            newest.iter().for_each(|(record, place)| encode(&mut out, record, place));
            if taken && send(Chunk::Frames(out.into(), place)) {
                send(read.map_or_else(Chunk::Failed, |()| Chunk::Done));
            }
        };
        let _ = tokio::task::spawn_blocking(work).await; // a panic of it was printed, and closes the channel
    });
    receiver
}
