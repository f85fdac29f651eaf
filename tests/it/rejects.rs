//! Refused submissions: each door shows them in `/api/v1/rejects`, on the page and on the live page.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::http::Request;
use crate::common::wait::eventually;
use crate::common::{Application, Broker, Browser, Subscription};

fn rejects(app: &Application) -> Vec<Value> {
    app.get("/api/v1/rejects").expect(200).json()["rejects"].as_array().expect("an array").clone()
}

/// Sends a request that is refused, and returns what the list says of it.
#[track_caller]
fn refused(app: &Application, status: u16, request: Request) -> Value {
    let before = count(app);
    request.send().expect(status);
    assert_eq!(count(app), before + 1, "one reject for one request");
    rejects(app)[0].clone()
}

fn count(app: &Application) -> u64 {
    app.get("/api/v1/rejects?limit=1").expect(200).json()["count"].as_u64().expect("a count")
}

#[test]
fn every_door_lists_what_it_refuses_and_why() {
    let app = Application::on(Broker::Embedded).start();
    assert_eq!(app.get("/api/v1/rejects").expect(200).json(), json!({"count": 0, "rejects": []}));
    let post = |path: &str| app.request("POST", path);
    let ndjson = "{\"user\":\"Ann\",\"action\":\"a\"}\n\n{\"user\":\"Bob\"}\n";
    let event = json!({"user": "Ann", "action": "login"});
    for (request, route, status, kind, pointer, index) in [
        (post("/api/v1/events").body("application/json", "{"), "/api/v1/events", 400, "not-json", None, None),
        (
            post("/api/v1/events").body("application/json", "x".repeat(600 << 10)),
            "/api/v1/events",
            413,
            "too-large",
            None,
            None,
        ),
        (post("/api/v1/events").body("image/png", "a picture"), "/api/v1/events", 415, "unsupported-type", None, None),
        (post("/api/v1/events?ack=2").json(&event), "/api/v1/events", 400, "bad-parameter", None, None),
        (
            post("/api/v1/events").json(&json!({"user": "Ann"})),
            "/api/v1/events",
            422,
            "invalid-event",
            Some("/action"),
            Some(0),
        ),
        (
            post("/api/v1/events").json(&json!([event, {"user": "Bob"}])),
            "/api/v1/events",
            207,
            "invalid-event",
            Some("/action"),
            Some(1),
        ),
        (
            post("/api/v1/events").json(&json!([{"user": "Bob"}])),
            "/api/v1/events",
            422,
            "invalid-event",
            Some("/action"),
            Some(0),
        ),
        (
            post("/api/v1/events").body("application/x-ndjson", ndjson),
            "/api/v1/events",
            207,
            "invalid-event",
            Some("/action"),
            Some(2),
        ),
        (
            post("/api/v1/events").header("ce-specversion", "1.0").json(&json!({})),
            "/api/v1/events",
            422,
            "invalid-event",
            Some(""),
            None,
        ),
        (
            post("/send-message/").json(&json!({"action": "a"})),
            "/send-message",
            422,
            "invalid-event",
            Some("/user"),
            Some(0),
        ),
        (post("/v1/track").json(&json!({"event": "a"})), "/v1/<call>", 422, "invalid-event", Some("/user"), Some(0)),
        (post("/v1/import").json(&json!({})), "/v1/<call>", 404, "not-found", None, None),
        (
            post("/events").form(&[("user", "Ann"), ("action", "")]).header("Accept", "text/html"),
            "/events",
            422,
            "invalid-event",
            Some("/action"),
            Some(0),
        ),
        (
            post("/events").form(&[("user", "Ann"), ("action", "")]).header("Accept", "application/json"),
            "/events",
            422,
            "invalid-event",
            Some("/action"),
            Some(0),
        ),
        (post("/api/events").json(&event), "/api/events", 404, "not-found", None, None),
        (post("/api/v1/stats").json(&event), "/api/v1/stats", 405, "method-not-allowed", None, None),
    ] {
        let reject = refused(&app, status, request);
        let at = format!("{route} {status}: {reject}");
        // An array with valid events is answered 207; the refused event has a status of its own.
        assert_eq!(reject["status"], if status == 207 { 422 } else { status }, "{at}");
        assert_eq!(
            (&reject["route"], &reject["type"]),
            (&json!(format!("POST {route}")), &json!(format!("/problems/{kind}"))),
            "{at}"
        );
        if pointer != Some("") {
            assert_eq!((&reject["pointer"], &reject["index"]), (&json!(pointer), &json!(index)), "{at}");
        }
        assert_eq!(reject["client"], "127.0.0.0/24", "{at}");
        assert!(reject["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{at}");
    }
    let excerpts: Vec<Value> = rejects(&app).into_iter().map(|reject| reject["excerpt"].clone()).collect();
    assert!(excerpts.contains(&json!(r#"{"user":"Bob"}"#)), "the event of an array or a line, alone: {excerpts:?}");
    assert!(excerpts.contains(&json!("a picture")), "a body that was not parsed: {excerpts:?}");
    assert!(app.metric(r#"footfall_rejects_total{reason="invalid-event"}"#).is_some_and(|count| count > 5.0));
    assert!(app.get("/rejects").expect(200).text().contains("POST /api/events"));
    assert!(app.get("/overview").expect(200).text().contains(r#"<a href="/rejects">16</a>"#));
}

#[test]
fn posts_over_a_socket_are_listed_too() {
    let app = Application::on(Broker::Embedded).start();
    let mut socket = app.socket("");
    socket.ask(&json!({"type": "post", "ref": 1, "event": {"user": "Ann"}}));
    socket.ask(&json!({"type": "publish", "ref": 2}));
    let list = rejects(&app);
    assert_eq!(list.len(), 2, "{list:?}");
    assert_eq!(
        (&list[0]["type"], &list[1]["type"]),
        (&json!("/problems/bad-request"), &json!("/problems/invalid-event"))
    );
    assert_eq!((&list[1]["route"], &list[1]["pointer"]), (&json!("WebSocket /api/v1/ws"), &json!("/action")));
}

#[test]
fn answers_after_which_a_retry_makes_sense_are_no_rejects() {
    let app = Application::on(Broker::Embedded).env("FOOTFALL_INGEST__RATE_LIMIT", "1").start();
    eventually("the rate is limited", || {
        (app.post(&json!({"user": "Ann", "action": "login"})).status() == 429).then_some(())
    });
    app.get("/nothing-there").expect(404);
    assert_eq!(count(&app), 0);
}

#[test]
fn the_list_is_bounded_and_shows_no_long_or_secret_value() {
    let app = Application::on(Broker::Embedded).start();
    let private = "p".repeat(200);
    let body = json!({"note": private, "password": "hunter2", "token": {"a": 1}});
    let request = app.request("POST", "/api/v1/events").header("Authorization", "Bearer abc123").json(&body);
    let reject = refused(&app, 422, request);
    let excerpt = reject["excerpt"].as_str().expect("text");
    assert!(excerpt.contains(&format!("{}…", "p".repeat(24))) && !excerpt.contains(&"p".repeat(25)), "{excerpt}");
    assert!(!reject.to_string().contains("hunter2") && !reject.to_string().contains("abc123"), "{reject}");
    let binary = app.request("POST", "/api/v1/events").body("application/json", vec![0xff, 0, 1, 2]);
    assert!(refused(&app, 400, binary)["excerpt"].as_str().is_some_and(|text| text.contains('\u{fffd}')));
    let large = app.request("POST", "/api/v1/events").json(&json!({"many": vec!["0123456789"; 5_000]}));
    assert!(refused(&app, 413, large)["excerpt"].as_str().is_some_and(|text| text.len() <= 512));
    let before = count(&app);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let request = || app.request("POST", "/api/events").header("Connection", "keep-alive").json(&body);
                let mut connection = request().open();
                for _ in 1..2_500 {
                    connection.next_response("POST").expect(404);
                    connection.send_request(&request());
                }
                connection.next_response("POST").expect(404);
            });
        }
    });
    assert_eq!(count(&app), before + 10_000);
    assert_eq!(rejects(&app).len(), 256);
    assert_eq!(app.get("/api/v1/rejects?limit=3").expect(200).json()["rejects"].as_array().map(Vec::len), Some(3));
    app.get("/api/v1/rejects?limit=257").expect(400);
}

#[test]
fn the_pages_stream_reports_rejects_and_the_programs_stream_does_not() {
    let app = Application::on(Broker::Embedded).start();
    app.wait_until_ready();
    let mut page = Subscription::open(app.address, "/stream");
    page.status("up");
    let mut program = app.stream("");
    app.request("POST", "/api/events").json(&json!({"user": "Ann"})).send().expect(404);
    let report = page.control("rejected").json();
    assert_eq!((&report["count"], &report["latest"]["route"]), (&json!(1), &json!("POST /api/events")));
    app.accept(&json!({"user": "Ann", "action": "login"}));
    assert_eq!(program.record()["value"]["user"], "Ann");
    let mut late = Subscription::open(app.address, "/stream");
    late.status("up");
    assert_eq!(late.control("rejected").json()["count"], 1, "a page that reconnects gets the count");
}

#[test]
fn the_empty_feed_shows_within_a_second_why_the_first_request_was_refused() {
    let app = Application::on(Broker::Embedded).start();
    let browser = Browser::start();
    browser.open(&app, "/rejects");
    assert!(browser.text("#rejects").is_some_and(|words| words.contains("Nothing was rejected")));
    browser.open_live(&app, "/");
    assert!(browser.text("#rejected").is_none(), "it is hidden");
    app.request("POST", "/api/v1/events").json(&json!({"user": "Ann"})).send().expect(422);
    let sent = Instant::now();
    browser.wait_for_text("#rejected", "1 rejected");
    assert!(sent.elapsed() < Duration::from_secs(1), "{:?}", sent.elapsed());
    browser.wait_for_text("#rejected", "422 Invalid event: /action is missing");
    browser.click("#rejected a");
    browser.wait_for_text("#rejects", "POST /api/v1/events");
    app.request("POST", "/api/%3Cb%3E").json(&json!({"user": "<i>"})).send();
    browser.wait_for_text("#rejects", "<i>");
    assert_eq!(browser.complaints(), Vec::<String>::new());
    let plain = Browser::without_scripts();
    plain.open(&app, "/");
    assert!(plain.text("#rejected").is_some_and(|words| words.contains("2 rejected")));
}
