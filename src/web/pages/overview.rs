//! The overview page: rendered here, and updated by a stream of the same rendering.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
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

use super::wrong::separate;
use super::{Html, html};
use crate::base_path::base_path;
use crate::bounds::Address;
use crate::colours::{self, Colour};
use crate::feed::{Dialect, Frames};
use crate::rejects::Rejects;
use crate::server::body;
use crate::stats::{Compared, NameStats, Stats, StatsSnapshot, Window, WindowStats};
use crate::stream::Streams;
use crate::web::openapi;
use crate::web::problem::{Kind, Problem};
use crate::web::query::{self, Parameters};
use crate::web::views::{
    BrokerStatus, Chart, PageFrame, Series, Span, WrongParameters, Zone, explicit, history_page, live_page, rate,
    spark, thousands, user_page,
};

/// Time between two snapshots: each takes a moment, and nobody reads faster.
const EVERY: Duration = Duration::from_secs(1);
/// Actions with a series of their own in the chart.
const SERIES: usize = 5;
/// Most points of the small line of a name.
const POINTS: usize = 24;
/// Most different choices that are shown in one second.
const CHOICES: usize = 32;
/// Most renderings in one second, of all choices in all zones.
const RENDERINGS: usize = 128;
/// How often the page asks again for a place, four times a second.
const WAITS: usize = 12;

/// What a viewer wants to see.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Choice {
    window: Window,
    /// The action that the page is about; all if there is none.
    action: Option<String>,
}

impl Choice {
    fn of(parameters: &Parameters) -> Result<Self, Problem> {
        let window = match parameters.get("period") {
            None => Window::Quarter,
            Some(name) => Window::ALL
                .into_iter()
                .find(|window| short_name(*window) == name)
                .ok_or_else(|| query::bad("period", format!("must be 15m, 1h or 24h, not \"{name}\"")))?,
        };
        let action = parameters.get("action").filter(|action| !action.is_empty()).map(str::to_owned);
        Ok(Choice { window, action })
    }

    /// The address of the page that shows this.
    fn address(&self) -> String {
        format!("{}/overview?{}", base_path(), self.query())
    }

    fn query(&self) -> String {
        let mut query = QueryBuilder::default();
        query.add("period", short_name(self.window));
        if let Some(action) = &self.action {
            query.add("action", action);
        }
        query.text()
    }
}

/// As in the address.
fn short_name(window: Window) -> &'static str {
    match window {
        Window::Quarter => "15m",
        Window::Hour => "1h",
        Window::Day => "24h",
    }
}

/// To follow "last".
fn long_name(window: Window) -> &'static str {
    match window {
        Window::Quarter => "15 minutes",
        Window::Hour => "hour",
        Window::Day => "24 hours",
    }
}

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    frame: PageFrame,
    choice: Choice,
    shown: Arc<ShownStats>,
    wrong: WrongParameters,
}

impl OverviewPage {
    /// Name, address, and whether it is the shown one, of each period.
    fn periods(&self) -> [(&'static str, String, bool); 3] {
        Window::ALL.map(|window| {
            let choice = Choice { window, ..self.choice.clone() };
            (short_name(window), choice.address(), window == self.choice.window)
        })
    }
}

/// The part of the page that is updated.
#[derive(Template)]
#[template(path = "_overview.html")]
struct ShownStats {
    stats: Arc<WindowStats>,
    choice: Choice,
    chart: Chart,
    /// Submissions refused since the process started.
    rejected: u64,
}

/// The latest statistics and their renderings, shared by all viewers.
pub struct Overviews {
    stats: Arc<Stats>,
    rejects: Arc<Rejects>,
    snapshot: Mutex<Option<(Instant, Arc<StatsSnapshot>)>>,
    latest: Mutex<HashMap<Choice, Latest>>,
}

impl Overviews {
    pub fn new(stats: Arc<Stats>, rejects: Arc<Rejects>) -> Self {
        Overviews { stats, rejects, snapshot: Mutex::default(), latest: Mutex::default() }
    }

    /// Returns the snapshot of the last second.
    pub fn snapshot(&self) -> Arc<StatsSnapshot> {
        let mut latest = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        match &*latest {
            Some((at, snapshot)) if at.elapsed() < EVERY => snapshot.clone(),
            _ => latest.insert((Instant::now(), Arc::new(self.stats.snapshot()))).1.clone(),
        }
    }

    /// Returns what was shown of a choice in a zone in the last second, also as a frame of the stream. Statistics are made while
    /// records wait to be counted, so `None` if this second has had as many different choices or renderings as are allowed.
    fn shown(&self, choice: &Choice, zone: &Zone) -> Option<(Arc<ShownStats>, Bytes)> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.retain(|_, latest| latest.at.elapsed() < EVERY);
        let rendered: usize = latest.values().map(|latest| latest.rendered.len()).sum();
        let choices = latest.len();
        let latest = match latest.entry(choice.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(_) if choices >= CHOICES => return None,
            Entry::Vacant(new) => {
                let stats = Arc::new(self.stats.window(choice.window, choice.action.as_deref()));
                new.insert(Latest { at: Instant::now(), stats, rendered: HashMap::new() })
            }
        };
        if let Some((shown, frame)) = latest.rendered.get(zone.name()) {
            return Some((shown.clone(), frame.clone()));
        }
        if rendered >= RENDERINGS {
            return None;
        }
        let (stats, rejected) = (latest.stats.clone(), self.rejects.news().borrow().count);
        let shown = ShownStats { chart: chart(&stats, choice, zone), stats, choice: choice.clone(), rejected };
        let mut frame = Vec::new();
        // Writing into a String cannot fail, and the template calls nothing that can.
        Frames::data(&mut frame, &shown.render().unwrap_or_default());
        let (shown, frame) = (Arc::new(shown), Bytes::from(frame));
        latest.rendered.insert(zone.name().to_owned(), (shown.clone(), frame.clone()));
        Some((shown, frame))
    }
}

/// What was shown of a choice.
struct Latest {
    at: Instant,
    stats: Arc<WindowStats>,
    /// By the name of the zone. Viewers in one zone share a rendering.
    rendered: HashMap<String, (Arc<ShownStats>, Bytes)>,
}

/// Counts, chart, actions and users of a period
#[utoipa::path(
    operation_id = "overviewPage",
    tag = "pages",
    params(openapi::Overview),
    responses(openapi::Html, openapi::BadParameter,)
)]
#[get("/overview")]
pub async fn page(
    overviews: &State<Arc<Overviews>>,
    frame: PageFrame,
    parameters: Parameters,
) -> Result<Html, Problem> {
    let choice = Choice::of(&parameters)?;
    // A place becomes free within a second, if not too many wait for it.
    let mut shown = overviews.shown(&choice, &frame.zone);
    for _ in 0..WAITS {
        if shown.is_some() {
            break;
        }
        sleep(EVERY / 4).await;
        shown = overviews.shown(&choice, &frame.zone);
    }
    let Some((shown, _)) = shown else {
        let detail = "too many different overviews were asked for in the last seconds";
        return Err(Problem::new(Kind::Unavailable, detail));
    };
    html(Status::Ok, &OverviewPage { frame, choice, shown, wrong: WrongParameters::default() })
}

/// Returns the page of a request whose parameters are wrong, for people.
pub fn with_errors(request: &Request, parameters: &Parameters) -> Option<String> {
    let overviews = request.rocket().state::<Arc<Overviews>>()?;
    let (choice, wrong) = separate(parameters, Choice::of)?;
    let frame = super::frame_of(request)?;
    let (shown, _) = overviews.shown(&choice, &frame.zone)?;
    OverviewPage { frame, choice, shown, wrong }.render().ok()
}

/// Updates of the overview, about once a second, as Server-Sent Events
///
/// May change in any version.
#[utoipa::path(
    operation_id = "overviewStream",
    tag = "pages",
    params(openapi::Overview),
    responses(
        (
            status = 200,
            description = "The stream, until either side closes.",
            content_type = "text/event-stream",
            body = openapi::OverviewEvent,
        ),
        openapi::BadParameter,
        openapi::NoStream,
    )
)]
#[get("/stream/overview")]
pub fn stream(
    streams: &State<Arc<Streams>>,
    overviews: &State<Arc<Overviews>>,
    client: Address,
    zone: Zone,
    parameters: Parameters,
) -> Result<StatsStream, Problem> {
    let choice = Choice::of(&parameters)?;
    let permit = streams.admit(client)?;
    let mut pulse = streams.pulse();
    let overviews = Arc::clone(overviews);
    Ok(StatsStream(Box::pin(stream! {
        let _permit = permit;
        // In the block of the first event, because some parsers dispatch a block without data.
        yield Ok(Bytes::from_static(b"retry: 3000\n"));
        let mut sent = Bytes::new();
        loop {
            // Or the next second.
            if let Some((_, bytes)) = overviews.shown(&choice, &zone)
                && bytes != sent
            {
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

/// Returns the chart of a period: stacked by action, or of one action.
fn chart(stats: &WindowStats, choice: &Choice, zone: &Zone) -> Chart {
    let mut query = QueryBuilder::default();
    let series = match &stats.action {
        Some(action) => {
            query.add("action", &action.name);
            vec![Series {
                name: action.name.clone(),
                colour: colours::of(&action.name),
                values: action.columns.clone(),
                link: None,
            }]
        }
        None => stacked(stats),
    };
    let label = match &choice.action {
        Some(action) => format!("Events of the action {action}, last {}", long_name(choice.window)),
        None => format!("Events by action, last {}", long_name(choice.window)),
    };
    let known_from = if stats.is_filling { stats.now_ms } else { stats.known_from_ms };
    Chart {
        id: "events",
        label,
        unit: "event",
        spans: Span::all(stats.from_ms, stats.to_ms, choice.window.step_ms(), known_from, stats.now_ms),
        series,
        // Those of one action are not kept.
        previous: stats.columns_before.clone().filter(|_| choice.action.is_none()).unwrap_or_default(),
        height: 160,
        axes: true,
        query: query.text(),
        zone: zone.clone(),
    }
}

/// The most frequent actions, and the others.
fn stacked(stats: &WindowStats) -> Vec<Series> {
    if stats.top_actions.is_empty() {
        let values = stats.columns.clone();
        return vec![Series { name: "events".to_owned(), colour: Colour::OTHERS, values, link: None }];
    }
    let series = |action: &NameStats| Series {
        name: action.name.clone(),
        colour: colours::of(&action.name),
        values: action.columns.clone(),
        link: Some(Choice { window: stats.window, action: Some(action.name.clone()) }.address()),
    };
    let named = stats.top_actions.iter().take(SERIES).map(series).collect();
    Series::stack(stats.columns.clone(), named, "others")
}

/// A row of the actions or users.
struct NameRow<'a> {
    name: &'a str,
    /// Where it leads: the page for the action, or that of the user.
    address: Option<String>,
    /// The class of its colour.
    colour: &'static str,
    count: String,
    share: String,
    change: Option<Change>,
    spark: String,
    /// Length of its bar, in hundredths of the longest.
    bar: u64,
}

/// A comparison with the period before.
struct Change {
    /// `▲`, `▼` or nothing.
    mark: &'static str,
    /// For screen readers: `up`.
    direction: &'static str,
    text: String,
}

impl Change {
    fn of(compared: Compared) -> Option<Self> {
        let change = |mark, direction, text| Some(Change { mark, direction, text });
        match compared.percent() {
            Some(0) => change("", "", "±0 %".to_owned()),
            Some(percent) => {
                let (mark, direction) = if percent > 0 { ("▲", "up") } else { ("▼", "down") };
                change(mark, direction, format!("{} %", thousands(percent.unsigned_abs())))
            }
            None if compared.is_new() => change("", "", "new".to_owned()),
            None => None,
        }
    }
}

impl ShownStats {
    /// Whether nothing is known yet: no record was read so far.
    fn is_unread(&self) -> bool {
        self.stats.is_filling && self.stats.events.count == 0
    }

    fn period(&self) -> &'static str {
        long_name(self.stats.window)
    }

    fn events_change(&self) -> Option<Change> {
        Change::of(self.events())
    }

    fn users_change(&self) -> Option<Change> {
        Change::of(self.stats.users_compared)
    }

    /// Of the whole topic, or of the chosen action.
    fn events(&self) -> Compared {
        self.stats.action.as_ref().map_or(self.stats.events, |action| action.events)
    }

    fn count(&self) -> String {
        let about = self.stats.action.as_ref().is_some_and(|action| action.error > 0);
        format!("{}{}", if about { "≈ " } else { "" }, thousands(self.events().count))
    }

    /// The rate of the last seconds, or a dash.
    fn rate(&self) -> String {
        self.stats.rate.map_or_else(|| "–".to_owned(), rate)
    }

    fn peak(&self) -> String {
        rate(self.stats.peak)
    }

    /// Percentage of an action in all events.
    fn share_of_all(&self, count: &u64) -> String {
        let all = self.stats.events.count.max(1);
        match (*count as f64 * 100.0 / all as f64).min(100.0) {
            share if share > 0.0 && share < 0.05 => "under 0.1 %".to_owned(),
            share if share > 0.0 && share < 0.95 => format!("{share:.1} %"),
            share => format!("{share:.0} %"),
        }
    }

    /// `203`, or `≈ 203` if the sketch estimates.
    fn users(&self) -> String {
        let about = if self.stats.users.low == self.stats.users.high { "" } else { "≈ " };
        format!("{about}{}", thousands(self.stats.users.estimate))
    }

    fn has_estimates(&self) -> bool {
        self.stats.top_actions.iter().chain(&self.stats.top_users).any(|named| named.error > 0)
    }

    /// Between which numbers that of users is.
    fn bounds(&self) -> Option<String> {
        let users = &self.stats.users;
        (users.low != users.high).then(|| format!("{} to {}", thousands(users.low), thousands(users.high)))
    }

    fn number(&self, number: &u64) -> String {
        thousands(*number)
    }

    /// The history of the shown period, of the chosen action.
    fn history(&self) -> String {
        let mut query = QueryBuilder::default();
        if let Some(action) = &self.choice.action {
            query.add("action", action);
        }
        query.add("since", &explicit(self.stats.from_ms));
        history_page(query.text())
    }

    /// The live page, of the chosen action.
    fn live(&self) -> String {
        let mut query = QueryBuilder::default();
        query.add("action", self.choice.action.as_deref().unwrap_or_default());
        live_page(query.text())
    }

    /// The page for all actions.
    fn all(&self) -> String {
        Choice { action: None, ..self.choice.clone() }.address()
    }

    fn rows<'a>(&self, names: &'a [NameStats], address: impl Fn(&str) -> Option<String>) -> Vec<NameRow<'a>> {
        let longest = names.iter().map(likely).max().unwrap_or(0).max(1);
        let row = |named: &'a NameStats| NameRow {
            name: &named.name,
            address: address(&named.name),
            colour: "",
            count: format!("{}{}", if named.error > 0 { "≈ " } else { "" }, thousands(likely(named))),
            share: self.share_of_all(&likely(named)),
            // An estimate may change by its error alone.
            change: Change::of(named.events).filter(|_| named.error == 0),
            spark: spark(&grouped(&named.columns)),
            bar: likely(named) * 100 / longest,
        };
        names.iter().map(row).collect()
    }

    fn actions(&self) -> Vec<NameRow<'_>> {
        let choice = |name: &str| Choice { window: self.stats.window, action: Some(name.to_owned()) };
        let mut rows = self.rows(&self.stats.top_actions, |name| Some(choice(name).address()));
        rows.iter_mut().for_each(|row| row.colour = colours::of(row.name).class());
        rows
    }

    /// The rows of both tables.
    fn tops(&self) -> [(&'static str, Vec<NameRow<'_>>); 2] {
        [("Action", self.actions()), ("User", self.rows(&self.stats.top_users, user_page))]
    }
}

/// The count in the middle between its bounds.
fn likely(named: &NameStats) -> u64 {
    named.events.count - named.error / 2
}

/// Sums of neighbouring counts, at most [`POINTS`].
fn grouped(counts: &[u64]) -> Vec<u64> {
    counts.chunks(counts.len().div_ceil(POINTS).max(1)).map(|chunk| chunk.iter().sum()).collect()
}
