//! Filters by prefix, by exclusion and by the fields of events: Python says which of many made-up events each of many made-up
//! filters selects, and Footfall selects the same ones wherever records are read.

use std::collections::HashMap;
use std::path::Path;

use crate::common::http::encoded;
use crate::common::{Application, Broker, NewRecord};
use serde::Deserialize;
use serde_json::{Value, json};

/// Rows of the live page at first paint.
const LIVE_ROWS: usize = 50;

/// What `tests/python/filters.py` prints.
#[derive(Deserialize)]
struct MadeUp {
    events: Vec<MadeUpEvent>,
    queries: Vec<Query>,
}

#[derive(Deserialize)]
struct MadeUpEvent {
    value: String,
    /// The media type of an event that is sent by HTTP; the others are written by another program.
    r#type: Option<String>,
}

#[derive(Deserialize)]
struct Query {
    query: String,
    /// Indices of the events that it selects.
    expected: Vec<usize>,
}

impl MadeUp {
    /// The same ones each time: the result of a run must not depend on chance.
    fn new() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/filters.py");
        let run = crate::common::python::command().arg(script).arg("1").output().expect("Python can be run");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        serde_json::from_slice(&run.stdout).expect("JSON")
    }
}

#[test]
fn filters_select_what_an_independent_evaluation_selects() {
    let MadeUp { events, queries } = MadeUp::new();
    let app = Application::on(Broker::Embedded).start();
    let write = |event: &MadeUpEvent| match &event.r#type {
        Some(media_type) => {
            let receipt = app.request("POST", "/api/v1/events").body(media_type, event.value.as_str()).send();
            let receipt = receipt.expect(201).json();
            (receipt["partition"].as_i64().expect("a number"), receipt["offset"].as_i64().expect("a number"))
        }
        None => {
            let (partition, offset) = app.topic().produce(&NewRecord::new().value(event.value.as_str()));
            (partition.into(), offset)
        }
    };
    let places: HashMap<(i64, i64), usize> =
        events.iter().enumerate().map(|(number, event)| (write(event), number)).collect();
    let numbers = |records: &mut dyn Iterator<Item = Value>| -> Vec<usize> {
        let place = |record: Value| (record["partition"].as_i64(), record["offset"].as_i64());
        let number = |(partition, offset): (Option<i64>, Option<i64>)| places[&(partition.unwrap(), offset.unwrap())];
        let mut numbers: Vec<usize> = records.map(place).map(number).collect();
        numbers.sort_unstable();
        numbers
    };
    app.wait_for_the_feed();
    let matches: usize = queries.iter().map(|query| query.expected.len()).sum();
    assert!(matches > 1000 && matches < queries.len() * events.len() / 2, "{matches} of {} filters", queries.len());
    for (place, Query { query, expected }) in queries.iter().enumerate() {
        let page = app.get(&format!("/api/v1/events?from=beginning&limit=1000&{query}")).expect(200).json();
        let found = page["events"].as_array().expect("events").clone();
        assert_eq!(numbers(&mut found.into_iter()), *expected, "{query}");
        // One search and one match decide in all of them, so a part of the filters is enough.
        if place % 10 > 0 {
            continue;
        }
        let export = app.get(&format!("/api/v1/events.ndjson?from=beginning&{query}")).expect(200);
        let mut lines = export.text().lines().map(|line| serde_json::from_str(line).expect("JSON"));
        assert_eq!(numbers(&mut lines), *expected, "the export of {query}");
        let mut stream = app.stream(&format!("?after=0-0.1-0.2-0&{query}"));
        let records = stream.records(expected.len());
        assert_eq!(numbers(&mut records.into_iter()), *expected, "the stream of {query}");
        let mut socket = app.socket(&format!("?after=0-0.1-0.2-0&{query}"));
        let records: Vec<Value> = expected.iter().map(|_| socket.record()).collect();
        assert_eq!(numbers(&mut records.into_iter()), *expected, "the socket of {query}");
        for (target, most) in [("/?", LIVE_ROWS), ("/history?limit=100&", events.len())] {
            let rows = app.get(&format!("{target}{query}")).expect(200).text().matches("<li class=\"event\"").count();
            assert_eq!(rows, expected.len().min(most), "{target}{query}");
        }
    }
}

#[test]
fn a_condition_that_cannot_be_read_is_400_wherever_filters_are_taken() {
    let app = Application::on(Broker::Embedded).start();
    let many = ["f=/a:exists"; 11].join("&");
    for (query, expected) in [
        ("f=/approved", "f must be POINTER:OP:VALUE, such as /total:gt:30"),
        (
            &*format!("f={}", encoded("/a:eq:[1]")),
            "f must compare with a text, a number, true, false or null, not with an array",
        ),
        (&many, "f must have at most 10 values, not 11"),
        (&["not_user=a"; 11].join("&"), "not_user must have at most 10 values, not 11"),
    ] {
        for path in [
            "/api/v1/events",
            "/api/v1/events.ndjson",
            "/api/v1/events.csv",
            "/api/v1/stream",
            "/stream",
            "/history/search",
        ] {
            let problem = app.get(&format!("{path}?{query}")).expect(400).problem();
            assert_eq!(problem["detail"], expected, "{path}?{query}");
        }
        app.get(&format!("/?{query}")).expect(400);
        app.get(&format!("/history?{query}")).expect(400);
    }
    app.accept(&json!({"user": "Ann", "action": "look"}));
    assert_eq!(app.panics(), Vec::<String>::new());
}
