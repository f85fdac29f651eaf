//! A chart of counts over time: stacked columns as SVG, with axes, links and a table. `chart.js` adds the crosshair and
//! the choice of a time range.
//!
//! A page makes a `Chart` and writes `{{ chart|safe }}`. To update it, it renders the chart again and `patch.js` changes
//! the old one in place.

use std::fmt::Write;

use askama::Template;
use footfall_core::query_string::QueryBuilder;

use super::address::history_page;
use super::format::{Stamp, count_of, duration, explicit, thousands};
use super::zone::Zone;
use crate::colours::Colour;

/// Width of a column in the drawing's units. The drawing is stretched to the width of the page.
const COLUMN: usize = 10;
/// Most ticks of the time axis, and most rows of the table.
const MOST_TICKS: usize = 6;
const MOST_ROWS: usize = 24;

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Round lengths of time, for columns and ticks.
const STEPS: [i64; 24] = [
    SECOND,
    2 * SECOND,
    5 * SECOND,
    10 * SECOND,
    15 * SECOND,
    30 * SECOND,
    MINUTE,
    2 * MINUTE,
    3 * MINUTE,
    5 * MINUTE,
    10 * MINUTE,
    15 * MINUTE,
    30 * MINUTE,
    HOUR,
    2 * HOUR,
    3 * HOUR,
    4 * HOUR,
    6 * HOUR,
    12 * HOUR,
    DAY,
    2 * DAY,
    7 * DAY,
    14 * DAY,
    28 * DAY,
];

/// A chart of counts over time.
#[derive(Template)]
#[template(path = "_chart.html")]
pub struct Chart {
    /// Its id in the page.
    pub id: &'static str,
    /// What it shows, for screen readers: `Events by action, last 15 minutes`.
    pub label: String,
    /// What is counted, in the singular: `event`.
    pub unit: &'static str,
    /// The columns: of one length, one after the other.
    pub spans: Vec<Span>,
    /// What is stacked in a column, from the bottom up; each with a value per column.
    pub series: Vec<Series>,
    /// The totals of the same columns in the period before, as a dashed line; empty for none.
    pub previous: Vec<u64>,
    /// Its height in pixels.
    pub height: usize,
    /// Whether it has axes, a legend and a table. A strip without them shows its numbers elsewhere.
    pub axes: bool,
    /// Parameters of the history to which its columns lead, beside `since` and `until`: `action=login`.
    pub query: String,
    /// The zone of its times.
    pub zone: Zone,
}

/// A piece of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its start and its end, in milliseconds since 1970.
    pub from_ms: i64,
    pub to_ms: i64,
    pub state: SpanState,
}

/// What is known of a piece of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanState {
    Complete,
    /// It is not over, or not all of it is counted: its count may rise.
    Filling,
    /// Nothing is known of it, or it is before the first record: its count is not zero.
    NoData,
    /// It is in the future.
    Ahead,
}

/// Counts of one name.
#[derive(Debug, Clone)]
pub struct Series {
    pub name: String,
    pub colour: Colour,
    /// One per column.
    pub values: Vec<u64>,
    /// The address to which its name in the legend leads.
    pub link: Option<String>,
}

impl Series {
    /// Returns the named series and, on top of them, the `others`, if anything of `all` is left for them. Counts of names may
    /// be a little too high: they are cut to what is left.
    pub fn stack(all: Vec<u64>, mut named: Vec<Series>, others: &str) -> Vec<Series> {
        let mut left = all;
        for series in &mut named {
            for (left, count) in left.iter_mut().zip(&mut series.values) {
                *count = (*count).min(*left);
                *left -= *count;
            }
        }
        if left.iter().any(|count| *count > 0) {
            named.push(Series { name: others.to_owned(), colour: Colour::OTHERS, values: left, link: None });
        }
        named
    }
}

impl Span {
    /// Returns the piece from a time to another. What is before `known_from_ms` has no data; the piece with `now_ms` is
    /// filling.
    pub fn new(from_ms: i64, to_ms: i64, known_from_ms: i64, now_ms: i64) -> Span {
        let state = match () {
            () if from_ms > now_ms => SpanState::Ahead,
            () if to_ms <= known_from_ms => SpanState::NoData,
            () if to_ms > now_ms => SpanState::Filling,
            () => SpanState::Complete,
        };
        Span { from_ms, to_ms, state }
    }

    /// Returns the pieces of `step_ms` that cover `from_ms` to `to_ms`, each starting at a multiple of `step_ms`.
    pub fn all(from_ms: i64, to_ms: i64, step_ms: i64, known_from_ms: i64, now_ms: i64) -> Vec<Span> {
        Span::all_from(0, from_ms, to_ms, step_ms, known_from_ms, now_ms)
    }

    /// The same, but they start at multiples of `step_ms` on a clock that is `offset_ms` ahead of UTC.
    pub fn all_from(
        offset_ms: i64,
        from_ms: i64,
        to_ms: i64,
        step_ms: i64,
        known_from_ms: i64,
        now_ms: i64,
    ) -> Vec<Span> {
        let first = (from_ms + offset_ms).div_euclid(step_ms);
        let last = (to_ms + offset_ms - 1).div_euclid(step_ms).max(first);
        let at = |number: i64| number * step_ms - offset_ms;
        (first..=last).map(|number| Span::new(at(number), at(number + 1), known_from_ms, now_ms)).collect()
    }

    /// Returns the shortest round length for which at most `most` columns cover `length_ms`.
    pub fn step(length_ms: i64, most: usize) -> i64 {
        let most = most.max(2) as i64 - 1; // one more, because columns start at round times
        let longest = (length_ms / most / DAY + 1) * DAY;
        STEPS.into_iter().find(|step| step * most >= length_ms).unwrap_or(longest)
    }
}

/// A column, for the link and the tooltip.
struct Column {
    x: usize,
    span: Span,
    address: String,
    /// The values of all series, as `3,0,1`.
    values: String,
}

/// A label of the time axis.
struct Tick {
    stamp: Stamp,
    text: String,
}

/// A row of the table.
struct TableRow {
    stamp: Stamp,
    address: String,
    /// Of each series, and their sum; `None` where there is no data.
    counts: Option<(Vec<u64>, u64)>,
}

impl Chart {
    /// The sum of a column.
    fn total(&self, index: usize) -> u64 {
        self.series.iter().filter_map(|series| series.values.get(index)).sum()
    }

    fn totals(&self) -> impl Iterator<Item = u64> {
        (0..self.spans.len()).map(|index| self.total(index))
    }

    /// The count at the top: the next of 1, 2, 2.5 and 5 times a power of ten.
    fn top(&self) -> u64 {
        top(self.totals().chain(self.previous.iter().copied()).max().unwrap_or(0))
    }

    /// The labels of the value axis, from the top down: round numbers.
    fn values(&self) -> Vec<String> {
        let top = self.top();
        let middle = if top.is_multiple_of(2) { thousands(top / 2) } else { String::new() };
        vec![thousands(top), middle, "0".to_owned()]
    }

    fn width(&self) -> usize {
        self.spans.len().max(1) * COLUMN
    }

    /// The height of a count in the drawing.
    fn rise(&self, count: u64) -> f64 {
        count as f64 / self.top() as f64 * self.height as f64
    }

    fn start_ms(&self) -> i64 {
        self.spans.first().map_or(0, |span| span.from_ms)
    }

    fn step_ms(&self) -> i64 {
        self.spans.first().map_or(SECOND, |span| (span.to_ms - span.from_ms).max(1))
    }

    /// The columns of a series, on top of those before it.
    fn bars(&self, series: &usize) -> String {
        let mut path = String::new();
        for index in 0..self.spans.len() {
            let count = |series: &Series| series.values.get(index).copied().unwrap_or(0);
            let below: u64 = self.series[..*series].iter().map(count).sum();
            let own = count(&self.series[*series]);
            if own > 0 {
                let (base, rise) = (self.height as f64 - self.rise(below), self.rise(own));
                // Writing into a String cannot fail.
                _ = write!(path, "M{} {base:.1}h{COLUMN}v-{rise:.1}h-{COLUMN}z", index * COLUMN);
            }
        }
        path
    }

    /// The gaps between columns, as high as the lower of their neighbours.
    fn gaps(&self) -> String {
        let totals: Vec<u64> = self.totals().collect();
        let mut path = String::new();
        for (index, pair) in totals.windows(2).enumerate() {
            let rise = self.rise(pair[0].min(pair[1]));
            if rise > 0.0 {
                _ = write!(path, "M{} {}v-{rise:.1}", (index + 1) * COLUMN, self.height);
            }
        }
        path
    }

    /// The period before, as a line of steps.
    fn before(&self) -> String {
        let mut path = String::new();
        for (index, count) in self.previous.iter().take(self.spans.len()).enumerate() {
            let y = self.height as f64 - self.rise(*count);
            let go = if index == 0 { format!("M0 {y:.1}") } else { format!("V{y:.1}") };
            _ = write!(path, "{go}h{COLUMN}");
        }
        path
    }

    /// Start and width of the stretches of columns in a state.
    fn stretches(&self, state: SpanState) -> Vec<(usize, usize)> {
        let mut stretches: Vec<(usize, usize)> = Vec::new();
        for (index, _) in self.spans.iter().enumerate().filter(|(_, span)| span.state == state) {
            match stretches.last_mut() {
                Some((x, width)) if *x + *width == index * COLUMN => *width += COLUMN,
                _ => stretches.push((index * COLUMN, COLUMN)),
            }
        }
        stretches
    }

    fn no_data(&self) -> Vec<(usize, usize)> {
        self.stretches(SpanState::NoData)
    }

    fn filling(&self) -> Vec<(usize, usize)> {
        self.stretches(SpanState::Filling)
    }

    fn columns(&self) -> Vec<Column> {
        let values = |index: usize| {
            let values = self.series.iter().map(|series| series.values.get(index).unwrap_or(&0).to_string());
            values.collect::<Vec<_>>().join(",")
        };
        let column = |(index, span): (usize, &Span)| Column {
            x: index * COLUMN,
            span: *span,
            address: self.address(span.from_ms, span.to_ms),
            values: values(index),
        };
        self.spans.iter().enumerate().filter(|(_, span)| span.state != SpanState::Ahead).map(column).collect()
    }

    /// The history of a time range.
    fn address(&self, from_ms: i64, to_ms: i64) -> String {
        let mut range = QueryBuilder::default();
        for (name, ms) in [("since", from_ms), ("until", to_ms)] {
            range.add(name, &explicit(ms));
        }
        history_page(self.query_and(&range.text()))
    }

    /// The history, to which the script adds a time range.
    fn base(&self) -> String {
        history_page(&self.query)
    }

    fn query_and(&self, range: &str) -> String {
        if self.query.is_empty() { range.to_owned() } else { format!("{}&{range}", self.query) }
    }

    /// The names of the series, as a JSON array for the script.
    fn names(&self) -> String {
        let names: Vec<&str> = self.series.iter().map(|series| &*series.name).collect();
        serde_json::to_string(&names).unwrap_or_default()
    }

    /// The classes of the series' colours, for the script.
    fn classes(&self) -> String {
        self.series.iter().map(|series| series.colour.class()).collect::<Vec<_>>().join(" ")
    }

    /// For each column the label that starts at it, if one does.
    fn ticks(&self) -> Vec<Option<Tick>> {
        let step = self.step_ms();
        let (Some(first), Some(last)) = (self.spans.first(), self.spans.last()) else { return Vec::new() };
        let length = last.to_ms - first.from_ms;
        let every = STEPS.into_iter().find(|every| every % step == 0 && length / every <= MOST_TICKS as i64);
        let every = every.unwrap_or(length);
        // A label needs room on its right.
        let end = self.spans.len() - self.spans.len() / 16;
        let tick = |(index, span): (usize, &Span)| {
            // Whether the clock of the zone shows a round time in the column. It need not start there: the offsets of zones
            // differ by quarters of an hour, and columns have one length also where clocks are set.
            let local = span.from_ms + self.zone.offset_ms(span.from_ms);
            let is_round = (-local).rem_euclid(every) < step;
            if !is_round || index >= end {
                return None;
            }
            let from = Stamp::new(span.from_ms, &self.zone);
            let text = match every {
                DAY.. => Stamp::new(span.from_ms + step / 2, &self.zone).date().get(5..).unwrap_or_default().to_owned(),
                MINUTE.. => from.clock().get(..5).unwrap_or_default().to_owned(),
                _ => from.clock().to_owned(),
            };
            Some(Tick { stamp: from, text })
        };
        self.spans.iter().enumerate().map(tick).collect()
    }

    /// Where the lines of the ticks are.
    fn tick_lines(&self) -> Vec<usize> {
        let ticks = self.ticks().into_iter().enumerate();
        ticks.filter_map(|(index, tick)| tick.map(|_| index * COLUMN)).collect()
    }

    /// Describes the chart in words.
    fn words(&self) -> String {
        let (all, most) = (self.totals().sum(), self.totals().max().unwrap_or(0));
        let step = duration(self.step_ms().unsigned_abs());
        format!("{}: {}, at most {} in {step}", self.label, count_of(all, self.unit), thousands(most))
    }

    /// The table: several columns of the chart to a row, newest first.
    fn rows(&self) -> Vec<TableRow> {
        let size = self.spans.len().div_ceil(MOST_ROWS).max(1);
        let row = |(chunk, spans): (usize, &[Span])| {
            let known = spans.iter().any(|span| span.state != SpanState::NoData);
            let sum = |series: &Series| series.values.iter().skip(chunk * size).take(spans.len()).sum();
            let counts: Vec<u64> = self.series.iter().map(sum).collect();
            let total = counts.iter().sum();
            let (from_ms, to_ms) = (spans[0].from_ms, spans[spans.len() - 1].to_ms);
            TableRow {
                stamp: Stamp::new(from_ms, &self.zone),
                address: self.address(from_ms, to_ms),
                counts: known.then_some((counts, total)),
            }
        };
        let ahead = |span: &&Span| span.state != SpanState::Ahead;
        let past: Vec<Span> = self.spans.iter().take_while(ahead).copied().collect();
        let mut rows: Vec<TableRow> = past.chunks(size).enumerate().map(row).collect();
        rows.reverse();
        rows
    }

    fn number(&self, number: &u64) -> String {
        thousands(*number)
    }
}

/// The next of 1, 2, 2.5 and 5 times a power of ten that is a whole number, and at least 1.
fn top(peak: u64) -> u64 {
    let mut power = 1u64;
    loop {
        for tenths in [10, 20, 25, 50] {
            // 2.5 is not a whole number.
            let top = power.saturating_mul(tenths) / 10;
            if top >= peak.max(1) && top * 10 == power.saturating_mul(tenths) {
                return top;
            }
        }
        match power.checked_mul(10).filter(|power| power.checked_mul(50).is_some()) {
            Some(next) => power = next,
            None => return u64::MAX,
        }
    }
}

/// Returns the path of a small line without axes, in a drawing of 100 by 20 units.
pub fn spark(values: &[u64]) -> String {
    let most = values.iter().max().copied().unwrap_or(0).max(1) as f64;
    let last = (values.len().max(2) - 1) as f64;
    let mut path = String::new();
    for (index, value) in values.iter().enumerate() {
        let (x, y) = (index as f64 / last * 100.0, 19.0 - *value as f64 / most * 18.0);
        _ = write!(path, "{}{x:.0} {y:.1}", if index == 0 { 'M' } else { 'L' });
    }
    path
}

/// Returns the path of a small line as [`spark`] does, with gaps where nothing is known.
pub fn spark_with_gaps(values: &[Option<f64>]) -> String {
    let most = values.iter().flatten().copied().fold(0.0, f64::max);
    let most = if most > 0.0 { most } else { 1.0 };
    let last = (values.len().max(2) - 1) as f64;
    let (mut path, mut command) = (String::new(), 'M');
    for (index, value) in values.iter().enumerate() {
        let Some(value) = value else {
            command = 'M';
            continue;
        };
        _ = write!(path, "{command}{:.0} {:.1}", index as f64 / last * 100.0, 19.0 - value / most * 18.0);
        command = 'L';
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_795_435_200_000;

    fn series(name: &str, colour: Colour, values: Vec<u64>) -> Series {
        Series { name: name.into(), colour, values, link: None }
    }

    fn chart(values: &[u64], known_from_ms: i64) -> Chart {
        let to_ms = NOON + values.len() as i64 * MINUTE;
        Chart {
            id: "test",
            label: "Events".into(),
            unit: "event",
            spans: Span::all(NOON, to_ms, MINUTE, known_from_ms, to_ms - 1),
            series: vec![
                series("<b>login</b>", Colour::numbered(0), values.to_vec()),
                series("others", Colour::OTHERS, values.iter().map(|value| value * 2).collect()),
            ],
            previous: Vec::new(),
            height: 120,
            axes: true,
            query: "action=a%26b".into(),
            zone: Zone::default(),
        }
    }

    #[test]
    fn counts_of_names_are_cut_to_what_is_left() {
        let named = |values: &[u64]| series("login", Colour::numbered(1), values.to_vec());
        let values = |series: Vec<Series>| series.into_iter().map(|one| (one.name, one.values)).collect::<Vec<_>>();
        let stack = Series::stack(vec![5, 2, 0], vec![named(&[3, 3, 0]), named(&[1, 1, 1])], "others");
        let login = |values: [u64; 3]| ("login".to_owned(), values.to_vec());
        assert_eq!(values(stack), [login([3, 2, 0]), login([1, 0, 0]), ("others".to_owned(), vec![1, 0, 0])]);
        assert_eq!(values(Series::stack(vec![3, 2, 0], vec![named(&[3, 2, 0])], "others")), [login([3, 2, 0])]);
    }

    #[test]
    fn the_top_is_the_next_round_number() {
        let tops = [0, 1, 2, 3, 6, 10, 11, 21, 26, 51, 100, 101, 201, 251, 400, 3_502, u64::MAX].map(top);
        let round = [1, 1, 2, 5, 10, 10, 20, 25, 50, 100, 100, 200, 250, 500, 500, 5_000, u64::MAX];
        assert_eq!(tops, round);
        for peak in 1..5_000 {
            assert!((peak..=peak * 5 / 2 + 1).contains(&top(peak)), "{peak}");
        }
    }

    #[test]
    fn values_are_whole_numbers() {
        let values = |peak| chart(&[peak], NOON).values();
        assert_eq!(values(0), ["1", "", "0"]);
        assert_eq!(values(1), ["5", "", "0"]);
        assert_eq!(values(300), ["1,000", "500", "0"]);
    }

    #[test]
    fn ticks_are_round_clock_times() {
        for minutes in 1..400 {
            let ticks: Vec<String> =
                chart(&vec![1; minutes], NOON).ticks().into_iter().flatten().map(|t| t.text).collect();
            assert!((1..=7).contains(&ticks.len()), "{minutes}: {ticks:?}");
        }
        let quarter: Vec<String> = chart(&[1; 15], NOON).ticks().into_iter().flatten().map(|tick| tick.text).collect();
        assert_eq!(quarter, ["12:00", "12:03", "12:06", "12:09", "12:12"]);
    }

    /// The texts of the ticks of a chart from a time on.
    fn ticks(zone: &str, from_ms: i64, step_ms: i64, columns: i64) -> Vec<String> {
        let zone = Zone::parse(zone).expect("a zone");
        let spans = Span::all_from(zone.offset_ms(from_ms), from_ms, from_ms + columns * step_ms, step_ms, 0, i64::MAX);
        let chart = Chart { spans, zone, ..chart(&[1], NOON) };
        chart.ticks().into_iter().flatten().map(|tick| tick.text).collect()
    }

    #[test]
    fn ticks_are_round_on_the_clock_of_the_zone() {
        // Columns of half an hour, which on Kathmandu's clock are round only if they start there.
        assert_eq!(ticks("Asia/Kathmandu", NOON, HOUR / 2, 12), ["18:00", "19:00", "20:00", "21:00", "22:00", "23:00"]);
        assert_eq!(ticks("Europe/Berlin", NOON, HOUR / 2, 12), ["13:00", "14:00", "15:00", "16:00", "17:00", "18:00"]);
        // Berlin's clocks are set back on 25 October, so columns of a day start at 23:00 from then on.
        let october = NOON - 32 * DAY;
        let days = ticks("Europe/Berlin", october, DAY, 5);
        assert_eq!(days, ["10-22", "10-23", "10-24", "10-25", "10-26", "10-27"]);
        assert_eq!(ticks("UTC", october, DAY, 5), days);
    }

    #[test]
    fn a_column_leads_to_its_time_in_the_history() {
        let html = chart(&[1, 2], NOON).render().expect("a chart");
        let range = "since=2026-11-23T12%3A01%3A00Z&#38;until=2026-11-23T12%3A02%3A00Z";
        assert!(html.contains(&format!("/history?action=a%26b&#38;{range}")), "{html}");
        assert!(html.contains("Events: 9 events, at most 6 in 60 s"), "{html}");
        assert!(!html.contains("<b>login"), "{html}");
    }

    #[test]
    fn what_is_not_known_is_not_zero() {
        let chart = chart(&[0, 0, 4, 0], NOON + 2 * MINUTE);
        let states: Vec<SpanState> = chart.spans.iter().map(|span| span.state).collect();
        assert_eq!(states, [SpanState::NoData, SpanState::NoData, SpanState::Complete, SpanState::Filling]);
        assert_eq!((chart.no_data(), chart.filling()), (vec![(0, 20)], vec![(30, 10)]));
        let html = chart.render().expect("a chart");
        assert_eq!(html.matches("<td class=\"n\">–</td>").count(), 2 * 3, "{html}");
    }

    #[test]
    fn a_chart_may_be_empty_or_have_one_column() {
        for values in [&[][..], &[0], &[7]] {
            let html = chart(values, NOON).render().expect("a chart");
            assert!(!html.contains("NaN") && !html.contains("inf"), "{html}");
        }
    }

    #[test]
    fn columns_start_at_round_times() {
        assert_eq!([Span::step(15 * MINUTE, 61), Span::step(24 * HOUR, 100)], [15 * SECOND, 15 * MINUTE]);
        assert_eq!(Span::step(3_650 * DAY, 61) % DAY, 0);
        for length in (1..400).map(|n| n * n * 7_919) {
            let step = Span::step(length, 60);
            let spans = Span::all(NOON + 123, NOON + 123 + length, step, 0, i64::MAX);
            assert!(spans.len() <= 60, "{length}: {}", spans.len());
            assert!(spans[0].from_ms <= NOON + 123 && spans[0].from_ms % step == 0);
        }
    }

    #[test]
    fn a_spark_line_is_as_wide_as_its_drawing() {
        assert_eq!(spark(&[0, 2]), "M0 19.0L100 1.0");
        assert_eq!((spark(&[]), spark(&[3])), (String::new(), "M0 1.0".to_owned()));
    }
}
