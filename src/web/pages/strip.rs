//! The strip of the live page: the events of the last five minutes by action, as a small chart with a legend that filters.

use std::sync::Arc;

use askama::Template;
use footfall_core::Pointer;
use rocket::http::Status;
use rocket::{State, get};
use serde_json::Value;

use super::{Html, html};
use crate::bounds::Address;
use crate::colours::{self, Colour};
use crate::feed::{Feed, Filter};
use crate::limits::HeavyWork;
use crate::recent::Recents;
use crate::stats::RecentCounts;
use crate::web::openapi;
use crate::web::problem::Problem;
use crate::web::query::Parameters;
use crate::web::views::{Chart, Listing, Series, Span, Zone, rate};

/// Its height in pixels; the style makes it lower on narrow screens.
const HEIGHT: usize = 40;

/// The strip, for the page and as a fragment of it.
#[derive(Template)]
#[template(path = "_strip.html")]
pub struct Strip {
    chart: Chart,
    legend: Vec<Entry>,
    /// The cursor of the live end: the page compares it with its own.
    head: String,
}

/// An action in the legend.
struct Entry {
    name: String,
    colour: Colour,
    rate: String,
    /// Addresses of the page with only this action, and without it; `None` for the others together.
    links: Option<[String; 2]>,
}

impl Strip {
    /// Returns the strip for the filters of a page. Blocks: it may look through memory.
    pub fn new(recents: &Recents, feed: &Feed, listing: &Listing) -> Self {
        let counts = recents.counts(&Filter::from(&listing.filters));
        let series = series(&counts);
        // Until now, without what is not known.
        let known_ms = counts.now_ms - counts.from_ms.max(counts.known_from_ms);
        let entry = |(index, series): (usize, &Series)| Entry {
            name: series.name.clone(),
            colour: series.colour,
            rate: rate(series.values.iter().sum::<u64>() as f64 * 1000.0 / known_ms.max(1000) as f64),
            links: counts.actions.get(index).and_then(|(name, _)| {
                listing.narrowed(&Pointer::to_member("action"), &Value::from(&**name).to_string())
            }),
        };
        Strip {
            legend: series.iter().enumerate().map(entry).collect(),
            chart: Chart {
                id: "strip",
                label: "Events by action, last 5 minutes".to_owned(),
                unit: "event",
                spans: Span::all(counts.from_ms, counts.to_ms, RecentCounts::STEP, counts.known_from_ms, counts.now_ms),
                series,
                previous: Vec::new(),
                height: HEIGHT,
                axes: false,
                zone: listing.zone.clone(),
                query: listing.query(),
            },
            head: feed.now().map(|head| head.to_string()).unwrap_or_default(),
        }
    }
}

/// The actions from the bottom up, and the others, if there are any.
fn series(counts: &RecentCounts) -> Vec<Series> {
    let action = |(name, values): &(String, Vec<u64>)| Series {
        name: name.clone(),
        colour: colours::of(name),
        values: values.clone(),
        link: None,
    };
    Series::stack(counts.columns.clone(), counts.actions.iter().map(action).collect(), "others")
}

/// The strip of the live page
///
/// HTML to put into the page. May change in any version.
#[utoipa::path(
    operation_id = "liveStrip",
    tag = "pages",
    params(openapi::Filter, openapi::Columns),
    responses(openapi::Html, openapi::BadParameter,)
)]
#[get("/strip")]
pub async fn fragment(
    recents: &State<Arc<Recents>>,
    feed: &State<Feed>,
    heavy: &State<HeavyWork>,
    client: Address,
    zone: Zone,
    parameters: Parameters,
) -> Result<Html, Problem> {
    let listing = Listing::of_live(&parameters)?.in_zone(&zone);
    let (recents, feed) = (Arc::clone(recents), Feed::clone(feed));
    let is_filtered = !listing.filters.is_empty();
    let strip = move || html(Status::Ok, &Strip::new(&recents, &feed, &listing));
    // Without a filter it looks through no memory.
    if is_filtered { heavy.run(client, strip).await? } else { strip() }
}
