//! What those who run it look at: health, metrics, log lines, headers, the description of the interface.

mod common;

use std::collections::BTreeSet;
use std::io::Read;

use common::wait::eventually;
use common::{Application, Broker};
use serde_json::{Value, json};

#[test]
fn livez_says_ok_while_kafka_is_away() {
    let app = Application::at("127.0.0.1:1").start_without_waiting_for_kafka();
    assert_eq!(app.get("/livez").expect(200).text(), "ok\n");
}

#[test]
fn readyz_is_true_to_what_a_post_is_answered() {
    let app = Application::on(Broker::Embedded).start();
    app.get("/readyz").expect(200);
    app.post(&json!({"user": "John", "action": "login"})).expect(201);

    let away = Application::at("127.0.0.1:1").start_without_waiting_for_kafka();
    let answer = away.get("/readyz").expect(503);
    assert!(answer.text().contains("Kafka is away"), "{}", answer.text());
    away.post(&json!({"user": "John", "action": "login"})).expect(503);
}

#[test]
fn readyz_lists_its_checks_when_asked() {
    let app = Application::on(Broker::Kafka).start();
    let answer = app.get("/readyz?verbose").expect(200);
    for check in [
        "[+] kafka: ",
        "[+] topic: ",
        "3 partitions, 3 with a leader",
        "[+] tail: reads, at 0-0.1-0.2-0",
        "[+] posts: ok",
    ] {
        assert!(answer.text().contains(check), "no {check:?} in {}", answer.text());
    }
    let embedded = Application::on(Broker::Embedded).start();
    let text = "embedded broker: events are kept in memory until the process ends";
    assert!(embedded.get("/readyz?verbose").expect(200).text().contains(text));
}

/// A value of `/metrics`, by its name with labels.
fn metric(app: &Application, series: &str) -> Option<f64> {
    let text = app.get("/metrics").expect(200).text().to_owned();
    let line = text.lines().find(|line| line.rsplit_once(' ').is_some_and(|(name, _)| name == series))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[test]
fn the_series_of_metrics_have_these_names() {
    let app = Application::on(Broker::Embedded).start();
    app.accept(&json!({"user": "John", "action": "login"}));
    let text = app.get("/metrics").expect(200).text().to_owned();
    assert!(text.ends_with("# EOF\n"), "OpenMetrics ends with EOF");
    let series: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    insta::assert_snapshot!(series.into_iter().collect::<Vec<_>>().join("\n"), @r"
    footfall_build info
    footfall_events counter
    footfall_feed_records counter
    footfall_kafka_up gauge
    footfall_produce_duration_seconds histogram
    footfall_produce_in_flight gauge
    footfall_request_duration_seconds histogram
    footfall_requests counter
    footfall_stream_dropped counter
    footfall_stream_gaps counter
    footfall_streams gauge
    footfall_tail_lag_records gauge
    ");
}

#[test]
fn metrics_count_what_happened() {
    let app = Application::on(Broker::Embedded).start();
    app.accept(&json!({"user": "John", "action": "login", "id": "one"}));
    app.accept(&json!({"user": "John", "action": "login", "id": "one"}));
    app.post(&json!({"user": "John"})).expect(422);
    for (outcome, count) in [("acknowledged", 1.0), ("replayed", 1.0), ("invalid", 1.0)] {
        assert_eq!(metric(&app, &format!("footfall_events_total{{outcome=\"{outcome}\"}}")), Some(count), "{outcome}");
    }
    let posts = "footfall_requests_total{method=\"POST\",route=\"/api/v1/events\",status=\"201\"}";
    assert_eq!(metric(&app, posts), Some(2.0));
    eventually("the tail has read it", || (metric(&app, "footfall_feed_records_total") == Some(1.0)).then_some(()));

    let stream = app.stream("");
    eventually("the stream is counted", || (metric(&app, "footfall_streams") == Some(1.0)).then_some(()));
    drop(stream);
    // A client that is gone is noticed at the next write.
    app.accept(&json!({"user": "John", "action": "logout"}));
    app.accept(&json!({"user": "John", "action": "login"}));
    eventually("its end too", || (metric(&app, "footfall_streams") == Some(0.0)).then_some(()));
}

#[test]
fn a_request_is_one_log_line_with_its_id() {
    let app = Application::on(Broker::Embedded).start();
    let answer = app.request("GET", "/livez?x=secret").header("X-Request-Id", "my-request-1").send().expect(200);
    assert_eq!(answer.header("X-Request-Id"), Some("my-request-1"));
    let line = app.log_line("the request's line", |line| line["request.id"] == "my-request-1");
    assert_eq!(
        (&line["message"], &line["http.method"], &line["http.path"], &line["http.status"]),
        (&json!("request"), &json!("GET"), &json!("/livez"), &json!(200))
    );
    assert!(line["duration_ms"].as_f64().is_some_and(|ms| ms >= 0.0), "{line}");
    assert!(!line.to_string().contains("secret"), "queries may hold what is nobody's business: {line}");

    let made = app.get("/livez").expect(200).header("X-Request-Id").map(str::to_owned).expect("an id");
    app.log_line("its line", |line| line["request.id"] == made.as_str());
    let bad = app.request("GET", "/livez").header("X-Request-Id", "two words").send().expect(200);
    assert_ne!(bad.header("X-Request-Id"), Some("two words"));
}

#[test]
fn what_a_client_asks_for_in_vain_is_no_error_in_the_log() {
    let app = Application::on(Broker::Embedded).start();
    app.request("POST", "/nothing-here").send().expect(404);
    app.request("POST", "/livez").send().expect(405);
    app.request("GET", "/livez").header("X-Request-Id", "the-last").send().expect(200);
    app.log_line("the last request's line", |line| line["request.id"] == "the-last");
    let errors: Vec<Value> = app.log().into_iter().filter(|line| line["level"] == "ERROR").collect();
    assert_eq!(errors, Vec::<Value>::new());
}

#[test]
fn every_answer_has_the_security_headers() {
    let app = Application::on(Broker::Embedded).start();
    for target in ["/", "/livez", "/api/v1/events", "/nothing-here", "/history", "/static/app.css"] {
        let answer = app.get(target);
        let policy = answer.header("Content-Security-Policy").unwrap_or_else(|| panic!("no policy for {target}"));
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"), "{target}");
        assert_eq!(answer.header("X-Frame-Options"), Some("DENY"), "{target}");
        assert_eq!(answer.header("Referrer-Policy"), Some("same-origin"), "{target}");
    }
}

#[test]
fn a_header_of_the_client_does_not_change_its_address() {
    let app = Application::on(Broker::Embedded).start();
    app.request("GET", "/livez").header("X-Real-IP", "203.0.113.7").header("X-Request-Id", "spoof").send().expect(200);
    let line = app.log_line("the request's line", |line| line["request.id"] == "spoof");
    assert_eq!(line["client.ip"], "127.0.0.1");
}

#[test]
fn static_files_are_kept_by_their_hash_and_asked_about_by_their_name() {
    let app = Application::on(Broker::Embedded).start();
    let page = app.get("/").expect(200).text().to_owned();
    let hashed =
        page.split('"').find(|text| text.starts_with("/static/app.") && text.ends_with(".css")).expect("its style");
    let kept = app.get(hashed).expect(200);
    assert!(kept.header("Cache-Control").is_some_and(|value| value.contains("immutable")));
    let plain = app.get("/static/app.css").expect(200);
    assert_eq!(plain.text(), kept.text());
    assert_eq!(plain.header("Cache-Control"), Some("no-cache"));
    let tag = plain.header("ETag").expect("an ETag").to_owned();
    app.request("GET", "/static/app.css").header("If-None-Match", &tag).send().expect(304);
    let zipped = app.request("GET", "/static/app.css").header("Accept-Encoding", "br, gzip").send().expect(200);
    assert_eq!((zipped.header("Content-Encoding"), zipped.header("Vary")), (Some("gzip"), Some("Accept-Encoding")));
    assert_ne!(zipped.header("ETag"), Some(tag.as_str()));
    let mut unzipped = String::new();
    flate2::read::GzDecoder::new(&*zipped.body).read_to_string(&mut unzipped).expect("gzip");
    assert_eq!(unzipped, plain.text());
    let refused = app.request("GET", "/static/app.css").header("Accept-Encoding", "gzip;q=0").send().expect(200);
    assert_eq!(refused.header("Content-Encoding"), None);
    app.get("/static/../Cargo.toml").expect(404);
    app.get("/static/nothing.css").expect(404);
}

#[test]
fn the_description_has_every_route_and_every_route_is_described() {
    let app = Application::on(Broker::Embedded).start();
    let description = app.get("/api/openapi.json").expect(200).json();
    assert_eq!(description["openapi"], "3.1.0");
    let paths: BTreeSet<&str> = description["paths"].as_object().expect("paths").keys().map(String::as_str).collect();
    let expected = BTreeSet::from([
        "/",
        "/api/openapi.json",
        "/api/v1/events",
        "/api/v1/events.csv",
        "/api/v1/events.ndjson",
        "/api/v1/events/{partition}/{offset}",
        "/api/v1/groups",
        "/api/v1/stats",
        "/api/v1/stream",
        "/api/v1/topics",
        "/api/v1/ws",
        "/api/v1/users/{user}",
        "/events",
        "/events/{partition}/{offset}",
        "/history",
        "/history/search",
        "/kafka",
        "/livez",
        "/metrics",
        "/overview",
        "/readyz",
        "/send-message/",
        "/stream",
        "/stream/overview",
        "/users/{user}",
        "/users/{user}/count",
    ]);
    assert_eq!(paths, expected);
    for (path, operations) in description["paths"].as_object().expect("paths") {
        let target = path.replace("{partition}", "0").replace("{offset}", "0").replace("{user}", "Ann");
        let methods = operations.as_object().expect("operations");
        let others = ["GET", "POST", "PUT", "DELETE"].into_iter().filter(|m| !methods.contains_key(&m.to_lowercase()));
        for method in others.chain(["TRACE"]) {
            let answer = app.request(method, &target).send().expect(405);
            let allow = answer.header("Allow").unwrap_or_default().to_owned();
            let described = methods.keys().filter(|name| ["get", "post"].contains(&name.as_str()));
            for known in described {
                assert!(allow.contains(&known.to_uppercase()), "{method} {path}: Allow is {allow:?}");
            }
        }
    }
}

#[test]
fn too_many_streams_are_refused_with_503() {
    let app = Application::on(Broker::Embedded).env("FOOTFALL_FEED__MAX_STREAMS", "1").start();
    let first = app.stream("");
    eventually("the stream is counted", || (metric(&app, "footfall_streams") == Some(1.0)).then_some(()));
    let refused = app.get("/api/v1/stream").expect(503);
    assert!(refused.header("Retry-After").is_some());
    assert_eq!(refused.problem()["type"], "/problems/unavailable");
    drop(first);
}

#[test]
fn a_password_appears_in_no_log_line() {
    let app = Application::at("127.0.0.1:1")
        .env("FOOTFALL_KAFKA__SECURITY_PROTOCOL", "sasl_plaintext")
        .env("FOOTFALL_KAFKA__SASL_MECHANISM", "PLAIN")
        .env("FOOTFALL_KAFKA__SASL_USERNAME", "footfall")
        .env("FOOTFALL_KAFKA__SASL_PASSWORD", "hunter2-in-a-log")
        .env("FOOTFALL_LOG__LEVEL", "trace")
        .start_without_waiting_for_kafka();
    app.get("/readyz?verbose").expect(503);
    app.get("/").expect(200);
    let log = Value::Array(app.log()).to_string();
    assert!(log.contains("listening") && !log.contains("hunter2"), "the password is in the log");
}
