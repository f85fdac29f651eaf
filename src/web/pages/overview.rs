//! The overview page: rendered here, and updated by a stream of the same rendering.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use askama::Template;
use bytes::Bytes;
use footfall_core::query_string::QueryBuilder;
use futures_util::Stream;
use rocket::http::{ContentType, Header, Status};
use rocket::request::Request;
use rocket::response::stream::stream;
use rocket::response::{self, Responder, Response};
use rocket::{State, get};
use tokio::select;
use tokio::time::sleep;

use super::{Html, html};
use crate::bounds::Address;
use crate::feed::{Dialect, Frames};
use crate::rejects::Rejects;
use crate::server::body;
use crate::stats::{DistinctUsers, NameCount, PeriodStats, Points, Stats, StatsSnapshot};
use crate::stream::Streams;
use crate::web::openapi;
use crate::web::problem::Problem;
use crate::web::query::Parameters;
use crate::web::views::{BrokerStatus, PageFrame, count_of, live_page, rate, thousands, user_page};

/// Time between two snapshots: each takes a moment, and nobody reads faster.
const EVERY: Duration = Duration::from_secs(1);

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    frame: PageFrame,
    shown: ShownStats,
}

/// The part of the page that is updated.
#[derive(Template)]
#[template(path = "_overview.html")]
struct ShownStats {
    snapshot: Arc<StatsSnapshot>,
    /// Submissions refused since the process started.
    rejected: u64,
}

/// The latest snapshot and its rendering, shared by all viewers.
pub struct Overviews {
    stats: Arc<Stats>,
    rejects: Arc<Rejects>,
    latest: Mutex<Option<Overview>>,
}

#[derive(Clone)]
struct Overview {
    at: Instant,
    snapshot: Arc<StatsSnapshot>,
    rejected: u64,
    /// As a frame of the stream.
    frame: Bytes,
}

impl Overviews {
    pub fn new(stats: Arc<Stats>, rejects: Arc<Rejects>) -> Self {
        Overviews { stats, rejects, latest: Mutex::default() }
    }

    /// Returns the snapshot of the last second.
    pub fn snapshot(&self) -> Arc<StatsSnapshot> {
        self.latest().snapshot
    }

    fn latest(&self) -> Overview {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(overview) = &*latest
            && overview.at.elapsed() < EVERY
        {
            return overview.clone();
        }
        let snapshot = Arc::new(self.stats.snapshot());
        let rejected = self.rejects.news().borrow().count;
        let mut frame = Vec::new();
        // Writing into a String cannot fail, and the template calls nothing that can.
        Frames::data(&mut frame, &ShownStats { snapshot: snapshot.clone(), rejected }.render().unwrap_or_default());
        latest.insert(Overview { at: Instant::now(), snapshot, rejected, frame: frame.into() }).clone()
    }
}

/// Rate, top actions, top and active users
#[utoipa::path(operation_id = "overviewPage", tag = "pages", responses(openapi::Html, openapi::BadParameter,))]
#[get("/overview")]
pub fn page(overviews: &State<Arc<Overviews>>, frame: PageFrame) -> Result<Html, Problem> {
    let Overview { snapshot, rejected, .. } = overviews.latest();
    let shown = ShownStats { snapshot, rejected };
    html(Status::Ok, &OverviewPage { frame, shown })
}

/// Updates of the overview, about once a second, as Server-Sent Events
///
/// May change in any version.
#[utoipa::path(
    operation_id = "overviewStream",
    tag = "pages",
    responses(
        (
            status = 200,
            description = "The stream, until either side closes.",
            content_type = "text/event-stream",
            body = openapi::OverviewEvent,
        ),
        openapi::NoStream,
    )
)]
#[get("/stream/overview")]
pub fn stream(
    streams: &State<Arc<Streams>>,
    overviews: &State<Arc<Overviews>>,
    client: Address,
    _parameters: Parameters,
) -> Result<StatsStream, Problem> {
    let permit = streams.admit(client)?;
    let mut pulse = streams.pulse();
    let overviews = Arc::clone(overviews);
    Ok(StatsStream(Box::pin(stream! {
        let _permit = permit;
        // In the block of the first event, because some parsers dispatch a block without data.
        yield Ok(Bytes::from_static(b"retry: 3000\n"));
        let mut sent = Bytes::new();
        loop {
            let bytes = overviews.latest().frame;
            if bytes != sent {
                sent = bytes.clone();
                yield Ok(bytes);
            }
            let beat = select! {
                () = sleep(EVERY) => continue,
                beat = pulse.beat() => beat,
            };
            yield Ok(beat.bytes(Dialect::Json, None));
            if beat.is_last() {
                return;
            }
        }
    })))
}

/// The stream of updates.
pub struct StatsStream(Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>);

impl<'r> Responder<'r, 'static> for StatsStream {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'static> {
        body::stream(request, self.0);
        Response::build()
            .header(ContentType::EventStream)
            .header(Header::new("Cache-Control", "no-cache, no-store, no-transform"))
            .header(Header::new("X-Accel-Buffering", "no"))
            .ok()
    }
}

/// Height and width of a chart's drawing, in its own units.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 100.0;

/// Steps per row of its table: one minute in the chart of 15 minutes, one hour in that of a day.
const A_ROW: usize = 12;

/// Counts as a line: events per second over time.
struct Chart<'a> {
    points: &'a Points,
    /// All events of that time, including the current step.
    events: u64,
    /// Events per second at the top of the drawing.
    top: f64,
}

impl<'a> Chart<'a> {
    fn new(points: &'a Points, period: &PeriodStats) -> Self {
        let mut chart = Chart { points, events: period.events, top: 0.0 };
        chart.top = nice(chart.most());
        chart
    }

    fn rate(&self, count: u64) -> f64 {
        count as f64 / self.points.step_s as f64
    }

    /// Events per second of the highest step.
    fn most(&self) -> f64 {
        self.rate(self.points.counts.iter().max().copied().unwrap_or(0))
    }

    fn path(&self) -> String {
        let last = (self.points.counts.len().max(2) - 1) as f64;
        let place = |(index, count): (usize, &u64)| {
            let x = index as f64 / last * WIDTH;
            let y = HEIGHT - self.rate(*count) / self.top * HEIGHT;
            format!("{x:.0} {y:.1}")
        };
        let places: Vec<String> = self.points.counts.iter().enumerate().map(place).collect();
        format!("M{}", places.join("L"))
    }

    fn top(&self) -> String {
        rate(self.top)
    }

    /// Describes the chart in words.
    fn words(&self) -> String {
        let seconds = (self.points.counts.len() as i64 * self.points.step_s).max(1) as f64;
        let mean = rate(self.events as f64 / seconds);
        format!("{} · avg {mean} · peak {}", count_of(self.events, "event"), rate(self.most()))
    }

    /// Rows of its table: time, events, and events per second, newest first.
    fn rows(&self) -> Vec<(String, u64, String)> {
        let Some(start) = crate::event::time::parse_ms(&self.points.start) else { return Vec::new() };
        let mut rows = Vec::new();
        for (index, steps) in self.points.counts.chunks(A_ROW).enumerate() {
            let at = crate::event::time::format_ms(start + (index * A_ROW) as i64 * self.points.step_s * 1000);
            let sum: u64 = steps.iter().sum();
            let seconds = (steps.len() as i64 * self.points.step_s) as f64;
            rows.push((at, sum, rate(sum as f64 / seconds)));
        }
        rows.reverse();
        rows
    }
}

/// The next larger of 1, 2 and 5 times a power of ten, at least 0.1.
fn nice(number: f64) -> f64 {
    let mut top = 0.1;
    loop {
        for step in [1.0, 2.0, 5.0] {
            if top * step >= number {
                return top * step;
            }
        }
        top *= 10.0;
    }
}

impl ShownStats {
    /// Name, id, chart, what a row of its table is, and when it begins.
    fn charts(&self) -> [(&'static str, &'static str, Chart<'_>, &'static str, &'static str); 2] {
        [
            (
                "Last 15 minutes",
                "fine",
                Chart::new(&self.snapshot.fine, &self.snapshot.quarter),
                "minute",
                "15 minutes ago",
            ),
            ("Last 24 hours", "coarse", Chart::new(&self.snapshot.coarse, &self.snapshot.day), "hour", "24 hours ago"),
        ]
    }

    /// The top actions and users of a period.
    fn tops<'a>(&self, period: &'a PeriodStats) -> [(&'static str, &'a [NameCount]); 2] {
        [("Action", &period.top_actions), ("User", &period.top_users)]
    }

    /// The link for a top entry: the feed of an action, or the page of a user.
    fn address(&self, kind: &str, name: &str) -> Option<String> {
        match kind {
            "Action" => {
                let mut query = QueryBuilder::default();
                query.add("action", name);
                Some(live_page(query.text()))
            }
            _ => user_page(name),
        }
    }

    fn rate(&self) -> String {
        rate(self.snapshot.events_per_second)
    }

    /// `1,204 active users`, or `about 1,204` if the sketch estimates.
    fn users(&self, users: &DistinctUsers) -> String {
        let about = if users.low == users.high { "" } else { "about " };
        format!("{about}{}", count_of(users.estimate, "active user"))
    }

    fn events(&self, number: &u64) -> String {
        count_of(*number, "event")
    }

    fn bounds(&self, users: &DistinctUsers) -> Option<String> {
        (users.low != users.high).then(|| format!("{} to {}", thousands(users.low), thousands(users.high)))
    }

    fn number(&self, number: &u64) -> String {
        thousands(*number)
    }

    /// Share of the longest bar, in hundredths.
    fn share(&self, named: &NameCount, all: &[NameCount]) -> u64 {
        named.count * 100 / all.first().map_or(1, |first| first.count.max(1))
    }

    fn periods(&self) -> [(&'static str, &'static str, &PeriodStats); 2] {
        [("last 15 minutes", "quarter", &self.snapshot.quarter), ("last 24 hours", "day", &self.snapshot.day)]
    }

    /// The start of the counted time, if that is less than a day.
    fn short_of_a_day(&self) -> Option<&str> {
        let parse = crate::event::time::parse_ms;
        let day = parse(&self.snapshot.now)? - parse(&self.snapshot.since)?;
        (self.snapshot.filling || day < 24 * 3_600_000 - 60_000).then_some(&self.snapshot.since)
    }
}
