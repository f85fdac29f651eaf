//! Sending events as NDJSON: one on each line.

use crate::common::http::Response;
use crate::common::wait::eventually;
use crate::common::{Application, Broker};
use serde_json::{Value, json};

fn post(app: &Application, body: impl Into<Vec<u8>>) -> Response {
    app.request("POST", "/api/v1/events").body("application/x-ndjson", body).send()
}

/// Returns what the topic has, as it was sent.
fn values(app: &Application) -> Vec<String> {
    app.topic().records().iter().map(|record| record.text().to_owned()).collect()
}

fn numbers(results: &Value, name: &str) -> Vec<u64> {
    let results = results["results"].as_array().unwrap_or_else(|| panic!("no results in {results}"));
    results.iter().map(|result| result[name].as_u64().unwrap_or_else(|| panic!("no {name} in {result}"))).collect()
}

#[test]
fn each_line_is_an_event_whatever_ends_it() {
    let app = Application::on(Broker::Embedded).start();
    let (one, two) = (r#"{"user":"Ann","action":"login"}"#, r#"{"user" : "Ann", "action":"logout" }"#);
    let bodies = [
        (format!("{one}\n{two}\n"), [0, 1]),
        (format!("{one}\n{two}"), [0, 1]),
        (format!("{one}\r\n{two}\r\n"), [0, 1]),
        (format!("\u{feff}{one}\n{two}"), [0, 1]),
        (format!("\n\r\n{one}\n \t\r\n\n  {two}\t\r\n\n\n"), [2, 5]),
    ];
    for (body, indexes) in &bodies {
        let results = post(&app, body.as_str()).expect(201).json();
        assert_eq!(numbers(&results, "index"), indexes, "{body:?}");
        assert_eq!(numbers(&results, "status"), [201, 201], "{body:?}");
    }
    assert_eq!(values(&app), [one, two].repeat(bodies.len()));
}

#[test]
fn it_has_three_content_types() {
    let app = Application::on(Broker::Embedded).start();
    let line = "{\"user\":\"Ann\",\"action\":\"login\"}\n";
    let types = ["application/x-ndjson", "application/ndjson", "application/jsonl", "Application/JSONL; charset=utf-8"];
    for content_type in types {
        let answer = app.request("POST", "/api/v1/events").body(content_type, line).send().expect(201);
        // One line is answered as several are.
        assert_eq!(numbers(&answer.json(), "index"), [0], "{content_type}");
    }
    assert_eq!(values(&app).len(), 4);
    let refused = app.request("POST", "/api/v1/events").body("text/plain", line).send().expect(415);
    for content_type in ["application/x-ndjson", "application/ndjson", "application/jsonl"] {
        assert!(refused.head.lists("Accept", content_type), "{:?}", refused.head);
    }
    app.request("POST", "/send-message/").body("application/x-ndjson", line).send().expect(415).problem();
}

#[test]
fn a_wrong_line_is_named_by_its_number_and_does_not_affect_the_others() {
    let app = Application::on(Broker::Embedded).start();
    let lines: [&[u8]; 9] = [
        br#"{"user":"Ann","action":"login"}"#,
        b"",
        br#"{"user":"Ann","action":"#,
        b"7",
        b"{\"user\":\"\xff\",\"action\":\"b\"}",
        br#"[{"user":"Ann","action":"login"}]"#,
        br#"{"user":"Ann"}"#,
        br#"{"user":"Ann","action":"x"} {"user":"Ann","action":"y"}"#,
        br#"{"user":"Ann","action":"logout"}"#,
    ];
    let results = post(&app, lines.join(&b'\n')).expect(207).json();
    assert_eq!(numbers(&results, "index"), [0, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(numbers(&results, "status"), [201, 422, 422, 422, 422, 422, 422, 201]);
    let errors: Vec<(u64, &str, &str)> = results["results"]
        .as_array()
        .expect("results")
        .iter()
        .filter_map(|result| {
            let error = result.pointer("/problem/errors/0")?;
            Some((error["index"].as_u64()?, error["pointer"].as_str()?, error["detail"].as_str()?))
        })
        .collect();
    assert_eq!(
        errors,
        [
            (2, "", "the line is not JSON: EOF while parsing a value at column 23"),
            (3, "", "must be a JSON object with `user` and `action`"),
            (4, "", "the line is not UTF-8: invalid byte at position 9"),
            (5, "", "must be a JSON object with `user` and `action`"),
            (6, "/action", "is missing: expected a string of 1 to 200 characters"),
            (7, "", "the line is not JSON: trailing characters at column 29"),
        ]
    );
    assert_eq!(values(&app), [lines[0], lines[8]].map(|line| String::from_utf8(line.to_vec()).expect("UTF-8")));

    let problem = post(&app, "\n{\n\n{}\n").expect(422).problem();
    let errors = problem["errors"].as_array().expect("errors");
    let indexes: Vec<u64> = errors.iter().filter_map(|error| error["index"].as_u64()).collect();
    assert_eq!(indexes, [1, 3, 3]);
}

#[test]
fn its_bounds_are_those_of_arrays() {
    let app = Application::on(Broker::Embedded).start();
    for empty in ["", "\n", "\r\n \t\n", "\u{feff}\n"] {
        let problem = post(&app, empty).expect(400).problem();
        let detail = problem["detail"].as_str().expect("a detail");
        assert_eq!(detail, "the body has no lines; expected 1 to 500 events, JSON objects, one per line", "{empty:?}");
    }
    let event = r#"{"user":"a","action":"b"}"#;
    post(&app, format!("{event}\n\n").repeat(501)).expect(413).problem();
    let large =
        format!("{event}\n\n{{\"user\":\"a\",\"action\":\"b\",\"x\":\"{}\"}}\n{event}\n", "x".repeat(32 * 1024));
    let problem = post(&app, large).expect(413).problem();
    assert_eq!(problem["errors"][0]["index"], 2, "{problem}");
    post(&app, format!("{event}\n") + &"\n".repeat(512 * 1024)).expect(413).problem();
    let keyed = app.request("POST", "/api/v1/events").body("application/x-ndjson", event);
    keyed.header("Idempotency-Key", "order-977").send().expect(400).problem();
    assert_eq!(values(&app), Vec::<String>::new());

    let blank_lines = "\n".repeat(512 * 1024 - 500 * (event.len() + 1));
    let results = post(&app, format!("{event}\n").repeat(499) + &blank_lines + event).expect(201).json();
    let last = *numbers(&results, "index").last().expect("results");
    assert_eq!(last, 499 + blank_lines.len() as u64);
    assert_eq!(values(&app).len(), 500);
}

#[test]
fn ack_none_queues_the_valid_lines() {
    let app = Application::on(Broker::Embedded).start();
    let body = "{\"user\":\"Ann\",\"action\":\"a\"}\n\n{\"user\":\"Ann\",\"action\":\"b\"}\n";
    let answer = app.request("POST", "/api/v1/events?ack=none").body("application/x-ndjson", body).send();
    let results = answer.expect(202).json();
    assert_eq!((numbers(&results, "index"), numbers(&results, "status")), (vec![0, 2], vec![202, 202]));
    eventually("they are delivered", || (values(&app).len() == 2).then_some(()));
}

#[test]
fn a_retry_of_lines_with_ids_writes_nothing_twice() {
    let app = Application::on(Broker::Embedded).start();
    let line = |id: &str| format!("{}\n", json!({"id": id, "user": "Ann", "action": "login"}));
    let first = post(&app, line("one") + &line("two")).expect(201).json();
    let again = post(&app, line("one") + "\n" + &line("two") + &line("three")).expect(201).json();
    assert_eq!(numbers(&again, "index"), [0, 2, 3]);
    let results = again["results"].as_array().expect("results");
    assert!(results[0]["replayed"] == true && results[1]["replayed"] == true, "{again}");
    assert_eq!(results[1]["offset"], first["results"][1]["offset"]);
    assert_eq!(values(&app).len(), 3);
}
