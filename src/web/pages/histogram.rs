//! The histogram of the history page: the records of a time range, counted by Kafka's index. The page loads it beside its
//! rows, and its script adds the matches that a search finds.

use std::time::Duration;

use askama::Template;
use rocket::http::Status;
use rocket::{State, get};
use tokio::time::timeout;

use super::{Html, history_request, html};
use crate::bounds::{Address, LOOKUPS};
use crate::colours::Colour;
use crate::event::time::now_ms;
use crate::kafka::TimeCounts;
use crate::search::{SearchRequest, Searches};
use crate::web::openapi;
use crate::web::problem::{Kind, Problem};
use crate::web::query::Parameters;
use crate::web::views::{Chart, Series, Span, Zone, count_of, sentence};

/// Columns of a histogram, fewer for a topic with many partitions.
const COLUMNS: usize = 60;
const FEWEST_COLUMNS: usize = 12;
/// How long a page without script waits for its histogram.
const WITHIN: Duration = Duration::from_secs(2);

/// The fragment of the page.
#[derive(Template)]
#[template(path = "_histogram.html")]
pub struct Histogram {
    chart: Option<Chart>,
    /// What the chart shows, or why there is none, as a sentence.
    words: String,
}

impl Histogram {
    /// Counts the records in the range of a request, whatever its filters say, except that of partitions.
    async fn of(
        searches: &Searches,
        client: Address,
        request: &SearchRequest,
        parameters: &Parameters,
        zone: &Zone,
    ) -> Result<Self, Problem> {
        let (range, now_ms) = ((request.since, request.until), now_ms());
        let clock = zone.clone();
        let edges = move |oldest_ms, partitions| {
            let spans = spans(range, oldest_ms, most_columns(partitions), now_ms, &clock);
            spans.first().map(|first| first.from_ms).into_iter().chain(spans.iter().map(|span| span.to_ms)).collect()
        };
        let partitions = request.filter.partitions.clone();
        let counts = searches.counts_over_time(client, partitions, edges).await?;
        let Some(oldest_ms) = counts.oldest_ms else { return Ok(Histogram::without("No records yet.".to_owned())) };
        let spans: Vec<Span> = match &*counts.edges_ms {
            [_, _, ..] => {
                let edges = counts.edges_ms.windows(2);
                edges.map(|edge| Span::new(edge[0], edge[1], oldest_ms, now_ms)).collect()
            }
            _ => return Ok(Histogram::without("The time range is empty.".to_owned())),
        };
        let is_filtered = request.filter.reads_records();
        let words = words(&counts, is_filtered);
        let others = |name: &str| Series {
            name: name.to_owned(),
            colour: Colour::OTHERS,
            values: counts.counts.clone(),
            link: None,
        };
        let series = match is_filtered {
            true => {
                let matches = Series {
                    name: "matches so far".to_owned(),
                    colour: Colour::numbered(0),
                    values: vec![0; spans.len()],
                    link: None,
                };
                vec![matches, others("other records")]
            }
            false => vec![others("records")],
        };
        let removed = ["since", "until", "from", "to", "offset", "chart"].map(|name| (name, ""));
        let chart = Chart {
            id: "history",
            label: "Records over time".to_owned(),
            unit: "record",
            spans,
            series,
            previous: Vec::new(),
            height: 120,
            axes: true,
            query: parameters.with(&removed),
            zone: zone.clone(),
        };
        Ok(Histogram { chart: Some(chart), words })
    }

    fn without(words: String) -> Self {
        Histogram { chart: None, words }
    }

    /// Counts the records of a page. If they cannot be counted now, the histogram says why.
    async fn or_why(
        searches: &Searches,
        client: Address,
        request: &SearchRequest,
        parameters: &Parameters,
        zone: &Zone,
    ) -> Result<Self, Problem> {
        match Histogram::of(searches, client, request, parameters, zone).await {
            Err(problem) if problem.kind == Kind::Unavailable => {
                Ok(Histogram::without(sentence(&format!("the records could not be counted: {}", problem.detail()))))
            }
            histogram => histogram,
        }
    }

    /// Returns the histogram for a page that contains it; says so if that takes too long.
    pub async fn in_time(
        searches: &Searches,
        client: Address,
        request: &SearchRequest,
        parameters: &Parameters,
        zone: &Zone,
    ) -> Result<Self, Problem> {
        match timeout(WITHIN, Histogram::or_why(searches, client, request, parameters, zone)).await {
            Ok(histogram) => histogram,
            Err(_) => Ok(Histogram::without("Kafka did not count the records in time.".to_owned())),
        }
    }
}

fn most_columns(partitions: usize) -> usize {
    (LOOKUPS / partitions.max(1)).clamp(FEWEST_COLUMNS, COLUMNS)
}

/// Returns the columns of a range: from its start or the oldest record to its end or now, from round times of the zone on.
/// Empty without a start.
fn spans(
    (since, until): (Option<i64>, Option<i64>),
    oldest_ms: Option<i64>,
    most: usize,
    now_ms: i64,
    zone: &Zone,
) -> Vec<Span> {
    // No record is older than 1970: Kafka's timestamps are not negative.
    let Some(from_ms) = since.or(oldest_ms).map(|ms| ms.max(0)) else { return Vec::new() };
    let to_ms = until.unwrap_or(now_ms).min(now_ms);
    if to_ms <= from_ms {
        return Vec::new();
    }
    // One more, because columns start at round times.
    let step = Span::step(to_ms - from_ms, most + 1);
    let of = |offset_ms| Span::all_from(offset_ms, from_ms, to_ms, step, oldest_ms.unwrap_or(i64::MAX), now_ms);
    let spans = of(zone.offset_ms(from_ms));
    // A time before 1970 would have another meaning for Kafka.
    if spans[0].from_ms < 0 { of(0) } else { spans }
}

fn words(counts: &TimeCounts, is_filtered: bool) -> String {
    let records = count_of(counts.counts.iter().sum(), "record");
    let before_filters = if is_filtered { " before filters" } else { "" };
    match counts.is_exact {
        true => format!("{records}{before_filters}."),
        false => format!("≈ {records}{before_filters}, from Kafka's index by time."),
    }
}

/// The histogram of the history page
///
/// HTML to put into the page. May change in any version.
#[utoipa::path(
    operation_id = "historyHistogram",
    tag = "pages",
    params(openapi::HistoryPage),
    responses(openapi::HtmlOrNotice, openapi::BadParameter,)
)]
#[get("/history/histogram")]
pub async fn fragment(
    searches: &State<Searches>,
    client: Address,
    parameters: Parameters,
    zone: Zone,
) -> Result<Html, Problem> {
    let request = history_request(&parameters)?;
    html(Status::Ok, &Histogram::or_why(searches, client, &request, &parameters, &zone).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_795_435_200_000;

    #[test]
    fn a_range_has_columns_of_a_round_length_up_to_now() {
        let of = |range, oldest| spans(range, oldest, 60, NOON, &Zone::default());
        let whole = of((None, None), Some(NOON - 3_600_000));
        assert!((30..=60).contains(&whole.len()), "{}", whole.len());
        assert!(whole[0].from_ms <= NOON - 3_600_000 && whole[whole.len() - 1].to_ms >= NOON);
        assert_eq!(of((Some(NOON - 900_000), None), None).len(), 60);
        assert!(of((None, None), None).is_empty());
        // Later than now, or the wrong way round.
        assert!(of((Some(NOON + 1), None), Some(0)).is_empty());
        assert!(of((Some(NOON - 1), Some(NOON - 2)), Some(0)).is_empty());
        assert_eq!(of((Some(i64::MIN), None), Some(0))[0].from_ms, 0);
        let future = of((Some(NOON - 900_000), Some(i64::MAX)), Some(0));
        assert!(future.len() <= 61, "{}", future.len());
    }

    #[test]
    fn columns_start_at_round_times_of_the_zone() {
        let kathmandu = Zone::parse("Asia/Kathmandu").expect("a zone");
        let of = |since| spans((Some(since), None), Some(0), 60, NOON, &kathmandu);
        let local = of(NOON - 40 * 3_600_000)[0].from_ms + kathmandu.offset_ms(NOON);
        assert_eq!(local.rem_euclid(3_600_000), 0);
        assert!(of(0)[0].from_ms >= 0);
    }

    #[test]
    fn a_topic_with_many_partitions_has_fewer_columns() {
        assert_eq!([0, 1, 3, 1000].map(most_columns), [60, 60, 60, FEWEST_COLUMNS]);
    }
}
