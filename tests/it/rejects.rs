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
    let list = rejects(&app);
    let alone = list.iter().filter(|reject| reject["excerpt_is_event"] == true);
    let alone: Vec<&Value> = alone.map(|reject| &reject["excerpt"]).collect();
    assert_eq!(alone, [&json!(r#"{"user":"Bob"}"#); 3], "the event of an array or a line, alone");
    let picture = list.iter().find(|reject| reject["content_type"] == "image/png").expect("it is listed");
    assert_eq!((&picture["bytes"], &picture["excerpt"]), (&json!(9), &Value::Null), "{picture}");
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
    let cut = app.request("POST", "/api/v1/events").header("Content-Type", "application/json").send_head(100);
    cut.end_sending();
    cut.response("POST").expect(408);
    app.get("/nothing-there").expect(404);
    assert_eq!(count(&app), 0);
}

/// A page of any site could otherwise fill the list.
#[test]
fn what_another_site_has_caused_is_counted_and_not_listed() {
    let app = Application::on(Broker::Embedded).env("FOOTFALL_INGEST__ORIGINS", "https://shop.example").start();
    let event = json!({"user": "Ann"});
    let post = || app.request("POST", "/api/v1/events").json(&event);
    post().header("Sec-Fetch-Site", "cross-site").send().expect(403);
    post().header("Origin", "https://elsewhere.example").send().expect(403);
    app.request("POST", "/nothing").header("Origin", "https://elsewhere.example").json(&event).send().expect(403);
    let foreign = app.request("POST", "/api/v1/events").header("Host", "elsewhere.example").json(&event);
    foreign.send().expect(421);
    assert_eq!(app.get("/api/v1/rejects").expect(200).json(), json!({"count": 0, "rejects": []}));
    for (reason, count) in [("cross-site", 3.0), ("misdirected", 1.0)] {
        assert_eq!(app.metric(&format!("footfall_rejects_total{{reason=\"{reason}\"}}")), Some(count));
    }
    post().header("Origin", "https://shop.example").send().expect(422);
    assert_eq!(count(&app), 1, "a listed origin");
    let read = |name, value| app.request("GET", "/api/v1/rejects").header(name, value).send();
    for (name, value, status) in [
        ("Sec-Fetch-Site", "cross-site", 403),
        ("Origin", "https://elsewhere.example", 403),
        ("Origin", "https://shop.example", 403),
    ] {
        let answer = read(name, value);
        assert_eq!(answer.header("Access-Control-Allow-Origin"), None, "{value}");
        answer.expect(status);
    }
}

#[test]
fn all_refused_events_of_a_request_are_counted() {
    let app = Application::on(Broker::Embedded).start();
    let good = json!({"user": "Ann", "action": "login"});
    let bad = json!({"user": "Ann"});
    let strict = app.request("POST", "/api/v1/events").header("Prefer", "handling=strict");
    let reject = refused(&app, 422, strict.json(&json!([good, bad, bad, bad])));
    assert_eq!((&reject["events"], &reject["index"]), (&json!(3), &json!(1)), "{reject}");
    assert_eq!((&reject["excerpt"], &reject["excerpt_is_event"]), (&json!(r#"{"user":"Ann"}"#), &json!(true)));
    let each = json!({"a": {}, "user": 1, "action": 2, "id": 3, "time": 4});
    let many = app.request("POST", "/api/v1/events").json(&json!(vec![each; 500]));
    assert_eq!(refused(&app, 422, many)["events"], 500, "also beyond the errors of an answer");
    let message = json!({"type": "track", "event": "a"});
    let batch = json!({"batch": [message, message, {"type": "track", "event": "a", "userId": "Ann"}]});
    let reject = refused(&app, 422, app.request("POST", "/v1/batch").json(&batch));
    assert_eq!((&reject["events"], &reject["index"]), (&json!(2), &json!(0)), "{reject}");
    assert_eq!(reject["excerpt_is_event"], false, "the body has its events in a member: {reject}");
}

/// However a value under the name of a secret is sent: it is not in the list.
#[test]
fn no_secret_is_listed() {
    let app = Application::on(Broker::Embedded).start();
    let (form, text) = ("application/x-www-form-urlencoded", "text/plain");
    let (json, lines) = ("application/json", "application/x-ndjson");
    for name in ["password", "api key", "API-Key", "access.token", "an_unusually_long_name_of_a_password", "writeKey"] {
        for (content_type, body) in [
            (json, format!(r#"{{"{name}":"mArKeR"}}"#)),
            (json, format!(r#"[{{"user":"Ann"}},{{"{name}":["mArKeR"]}}]"#)),
            (json, format!(r#"{{"user":"Ann,"{name}":"mArKeR"}}"#)),
            (json, format!(r#"{{"payload":"{{\"{name}\":\"mArKeR\"}}"}}"#)),
            (json, format!(r#"{{"user":"{name}: mArKeR"}}"#)),
            (json, format!(r#"{{"{name} mArKeR":1}}"#)),
            (lines, format!("{{\"user\":\"Ann\"}}\n{{\"{name}\":\"mArKeR\"}}\n")),
            (form, format!("{name}=mArKeR&user=Ann")),
            (form, format!("user=Ann&details=5\"&{name}=mArKeR")),
            (form, format!("{name}=correct%2CmArKeR&user=Ann")),
            (form, format!("user=Ann&action=a&details=%7B%22{name}%22%3A%22mArKeR%22")),
            (form, format!(r#"{{"{name}":"mArKeR"}}"#)),
            (text, format!("{name}: mArKeR")),
            ("application/xml", format!("<{name}>mArKeR</{name}>")),
            (
                "multipart/form-data; boundary=b",
                format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\nmArKeR\r\n--b--\r\n"),
            ),
        ] {
            for path in ["/api/v1/events", "/events", "/send-message", "/v1/track", "/v1/batch", "/api/events"] {
                app.request("POST", path).body(content_type, body.clone()).send();
            }
        }
        let list = app.get("/api/v1/rejects").expect(200).text().to_owned();
        assert!(list.contains("Ann") && !list.contains("mArKeR"), "{name}: {list}");
    }
    for path in ["/services/T1/B2/mArKeR", "/token/mArKeR", "/bot123456789:aaaaaaaaaaaaaaaaaaaaaaaamArKeR/send"] {
        let reject = refused(&app, 404, app.request("POST", path).json(&json!({"user": "Ann"})));
        assert!(!reject.to_string().contains("mArKeR"), "{reject}");
    }
    assert!(!app.get("/rejects").expect(200).text().contains("mArKeR"));
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
    assert_eq!(refused(&app, 400, binary)["excerpt"], Value::Null);
    let long = app.request("POST", "/api/v1/events").json(&json!({"many": vec!["0123456789"; 4_000]}));
    assert!(refused(&app, 413, long)["excerpt"].as_str().is_some_and(|text| text.len() <= 512));
    let large = app.request("POST", "/api/v1/events").json(&json!({"many": vec!["0123456789"; 9_000]}));
    let large = refused(&app, 413, large);
    assert!(large["excerpt"].is_null() && large["bytes"].as_u64() > Some(64 << 10), "{large}");
    let before = count(&app);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let request = || app.request("POST", "/api/events").header("Connection", "keep-alive").json(&body);
                let mut connection = request().open();
                for _ in 1..500 {
                    connection.next_response("POST").expect(404);
                    connection.send_request(&request());
                }
                connection.next_response("POST").expect(404);
            });
        }
    });
    assert_eq!(count(&app), before + 2_000);
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
    app.request("POST", "/api/v1/events").body("text/<i>", "a").send().expect(415);
    browser.wait_for_text("#rejects", "<i>");
    assert_eq!(browser.complaints(), Vec::<String>::new());
    let plain = Browser::without_scripts();
    plain.open(&app, "/");
    assert!(plain.text("#rejected").is_some_and(|words| words.contains("2 rejected")));
}
