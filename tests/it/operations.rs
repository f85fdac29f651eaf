//! For operators: health, metrics, log lines, headers, the OpenAPI document.

use std::collections::BTreeSet;
use std::io::Read;

use crate::common::wait::eventually;
use crate::common::{Application, Broker};
use serde_json::{Value, json};

#[test]
fn livez_is_200_while_kafka_is_unreachable() {
    let app = Application::at("127.0.0.1:1").start_without_waiting_for_kafka();
    assert_eq!(app.get("/livez").expect(200).text(), "ok\n");
}

#[test]
fn readyz_agrees_with_the_answers_to_posts() {
    let app = Application::on(Broker::Embedded).start();
    app.get("/readyz").expect(200);
    app.post(&json!({"user": "John", "action": "login"})).expect(201);

    let unreachable = Application::at("127.0.0.1:1").start_without_waiting_for_kafka();
    let answer = unreachable.get("/readyz").expect(503);
    assert!(answer.text().contains("Kafka is unreachable"), "{}", answer.text());
    unreachable.post(&json!({"user": "John", "action": "login"})).expect(503);
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
        "[+] streams: ok",
    ] {
        assert!(answer.text().contains(check), "no {check:?} in {}", answer.text());
    }
    let embedded = Application::on(Broker::Embedded).start();
    let text = "embedded broker: events are kept in memory until the process ends";
    assert!(embedded.get("/readyz?verbose").expect(200).text().contains(text));
}

#[test]
fn the_series_of_metrics_have_these_names() {
    let app = Application::on(Broker::Embedded).start();
    app.accept(&json!({"user": "John", "action": "login"}));
    let text = text_of_metrics(&app, "application/openmetrics-text");
    let series: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    insta::assert_snapshot!(series.into_iter().collect::<Vec<_>>().join("\n"), @r"
    footfall_build info
    footfall_events counter
    footfall_feed_encoded_bytes gauge
    footfall_feed_kept_bytes gauge
    footfall_feed_kept_records gauge
    footfall_feed_pace_seconds gauge
    footfall_feed_records counter
    footfall_feed_waves counter
    footfall_http_connections gauge
    footfall_http_connections_refused counter
    footfall_http_timeouts counter
    footfall_kafka_up gauge
    footfall_partition_held_up_records gauge
    footfall_produce_duration_seconds histogram
    footfall_produce_in_flight gauge
    footfall_reads gauge
    footfall_ready gauge
    footfall_request_duration_seconds histogram
    footfall_requests counter
    footfall_stream_dropped counter
    footfall_stream_gaps counter
    footfall_streams gauge
    footfall_tail_lag_records gauge
    footfall_trouble gauge
    ");
}

/// Returns the answer to a client with this `Accept`.
fn text_of_metrics(app: &Application, accept: &str) -> String {
    app.request("GET", "/metrics").header("Accept", accept).send().expect(200).text().to_owned()
}

#[test]
fn metrics_come_in_the_requested_format() {
    let app = Application::on(Broker::Embedded).start();
    app.accept(&json!({"user": "John", "action": "login"}));
    // The first is Prometheus 2.42's, the second Prometheus 3's.
    let open = [
        "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
         text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
         text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
        "application/openmetrics-text",
    ];
    let plain = [
        "*/*",
        "text/plain",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "application/openmetrics-text;q=0",
        "application/openmetrics-text;version=2.0.0",
        "text/plain;version=0.0.4,application/openmetrics-text;q=0.5",
        "application/json",
    ];
    for accept in open {
        let answer = app.request("GET", "/metrics").header("Accept", accept).send().expect(200);
        let format = Some("application/openmetrics-text; version=1.0.0; charset=utf-8");
        assert_eq!((answer.header("Content-Type"), answer.header("Vary")), (format, Some("Accept")), "{accept}");
        assert!(answer.text().ends_with("\n# EOF\n") && answer.text().contains("\n# TYPE footfall_build info\n"));
    }
    for accept in plain {
        let answer = app.request("GET", "/metrics").header("Accept", accept).send().expect(200);
        let format = Some("text/plain; version=0.0.4; charset=utf-8");
        assert_eq!((answer.header("Content-Type"), answer.header("Vary")), (format, Some("Accept")), "{accept}");
    }
    let text = app.get("/metrics").expect(200).text().to_owned();
    // Each line belongs to a series whose type was declared, under its own name.
    let mut types = std::collections::HashMap::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            types.insert(name, kind);
        } else if !line.starts_with("# HELP ") {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
            let kind =
                types.get(name).or_else(|| types.get(of_histogram?)).unwrap_or_else(|| panic!("no type: {line}"));
            assert_eq!(*kind == "counter", name.ends_with("_total"), "{line}");
        }
    }
    assert_eq!(types.get("footfall_build_info"), Some(&"gauge"));
    assert!(!text.contains("# EOF") && text.contains("# HELP footfall_events_total Events submitted"), "{text}");
    // Both have the same values.
    let samples = |text: &str| -> BTreeSet<String> {
        let names = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(' ').next());
        names.map(str::to_owned).collect()
    };
    assert_eq!(samples(&text), samples(&text_of_metrics(&app, "application/openmetrics-text")));
}

#[test]
fn metrics_count_what_happened() {
    let app = Application::on(Broker::Embedded).start();
    app.accept(&json!({"user": "John", "action": "login", "id": "one"}));
    app.accept(&json!({"user": "John", "action": "login", "id": "one"}));
    app.post(&json!({"user": "John"})).expect(422);
    for (outcome, count) in [("acknowledged", 1.0), ("replayed", 1.0), ("invalid", 1.0)] {
        assert_eq!(app.metric(&format!("footfall_events_total{{outcome=\"{outcome}\"}}")), Some(count), "{outcome}");
    }
    let posts = "footfall_requests_total{method=\"POST\",route=\"/api/v1/events\",status=\"201\"}";
    assert_eq!(app.metric(posts), Some(2.0));
    eventually("the tail has read it", || (app.metric("footfall_feed_records_total") == Some(1.0)).then_some(()));

    let stream = app.stream("");
    eventually("the stream is counted", || (app.metric("footfall_streams") == Some(1.0)).then_some(()));
    drop(stream);
    // A disconnected client is noticed at the next write.
    app.accept(&json!({"user": "John", "action": "logout"}));
    app.accept(&json!({"user": "John", "action": "login"}));
    eventually("its end too", || (app.metric("footfall_streams") == Some(0.0)).then_some(()));
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
    assert!(!line.to_string().contains("secret"), "queries may have confidential values: {line}");

    let made = app.get("/livez").expect(200).header("X-Request-Id").map(str::to_owned).expect("an id");
    app.log_line("its line", |line| line["request.id"] == made.as_str());
    let bad = app.request("GET", "/livez").header("X-Request-Id", "two words").send().expect(200);
    assert_ne!(bad.header("X-Request-Id"), Some("two words"));
}

#[test]
fn a_clients_failed_request_is_no_error_in_the_log() {
    let app = Application::on(Broker::Embedded).start();
    app.request("POST", "/nothing-here").send().expect(404);
    app.request("POST", "/livez").send().expect(405);
    app.request("GET", "/livez").header("X-Request-Id", "the-last").send().expect(200);
    app.log_line("the last request's line", |line| line["request.id"] == "the-last");
    let errors: Vec<Value> = app.log().into_iter().filter(|line| line["level"] == "ERROR").collect();
    assert_eq!(errors, Vec::<Value>::new());
}

/// Every GET route with the parameters it needs, and an unknown address.
const EVERYTHING: &[&str] = &[
    "/",
    "/?user=Ann",
    "/history",
    "/history/search?q=x",
    "/overview",
    "/rejects",
    "/kafka",
    "/events/0/0",
    "/users/Ann",
    "/users/Ann/count?before=1-0",
    "/stream",
    "/stream/overview",
    "/api/v1/events",
    "/api/v1/events/0/0",
    "/api/v1/events.ndjson",
    "/api/v1/events.csv",
    "/api/v1/stream",
    "/api/v1/ws",
    "/api/v1/users/Ann",
    "/api/v1/stats",
    "/api/v1/rejects",
    "/api/v1/topics",
    "/api/v1/groups",
    "/api/openapi.json",
    "/metrics",
    "/readyz?verbose",
    "/static/app.css",
    "/favicon.ico",
    "/nothing-here",
    "/api/v1/nothing-here",
];

#[test]
fn every_answer_has_the_security_headers() {
    let app = Application::on(Broker::Embedded).start();
    app.accept(&json!({"user": "Ann", "action": "login"}));
    let check = |what: &str, head: &crate::common::http::Head| {
        let policy = head.header("Content-Security-Policy").unwrap_or_else(|| panic!("no policy for {what}"));
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        for (name, value) in [
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
            ("Referrer-Policy", "same-origin"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Cross-Origin-Opener-Policy", "same-origin"),
        ] {
            assert_eq!(head.header(name), Some(value), "{name} of {what}");
        }
        let kept = head.header("Cache-Control").unwrap_or_default();
        let public = what.contains("/static/") || what.contains("favicon");
        assert_eq!(kept.contains("no-store"), !public, "Cache-Control of {what}: {kept:?}");
    };
    for target in EVERYTHING.iter().chain(&["/livez", "/history?since=nonsense"]) {
        let head = app.request("GET", target).open().head();
        check(&format!("GET {target}"), &head);
        check(
            &format!("GET {target} as a page"),
            &app.request("GET", target).header("Accept", "text/html").open().head(),
        );
    }
    for (method, target) in [
        ("POST", "/livez"),
        ("OPTIONS", "/api/v1/events"),
        ("HEAD", "/"),
        ("DELETE", "/nothing-here"),
        ("POST", "/api/v1/events"),
        ("POST", "/events"),
        ("POST", "/send-message/"),
    ] {
        check(&format!("{method} {target}"), &app.request(method, target).send().head);
    }
    let event = json!({"user": "Ann", "action": "login"});
    check("201", &app.post(&event).expect(201).head);
    check("422", &app.post(&json!({"user": "Ann"})).expect(422).head);
    check("413", &app.post(&json!({"user": "Ann", "action": "x", "pad": "x".repeat(40_000)})).expect(413).head);
    check("421", &app.request("GET", "/").header("Host", "evil.example").send().expect(421).head);
    check("403", &app.request("GET", "/metrics").header("Sec-Fetch-Site", "cross-site").send().expect(403).head);
}

/// DNS rebinding: a site lets its own name point to this server, and the browser takes it for a part of that site.
#[test]
fn a_request_for_an_unknown_host_name_is_421() {
    let app = Application::on(Broker::Embedded).start();
    let port = app.address.port();
    let status = |target: &str, host: &str| app.request("GET", target).header("Host", host).open().head().status;
    for target in EVERYTHING {
        assert_eq!(status(target, "evil.example"), 421, "{target}");
        assert_eq!(status(target, &format!("evil.example:{port}")), 421, "{target}");
    }
    for host in [
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example:80@127.0.0.1",
        "127.1",
        "2130706433",
        "localhost:80:80",
        "[::1].evil.example",
        "xlocalhost",
    ] {
        // An invalid host is a malformed request.
        let expected = if host.contains([':', '@']) { 400 } else { 421 };
        assert_eq!(status("/", host), expected, "{host}");
    }
    for host in [
        "localhost",
        &format!("LOCALHOST:{port}"),
        "localhost.",
        "feed.localhost:80",
        "127.0.0.1",
        "192.0.2.1:8000",
        "[::1]:8000",
        "[2001:db8::1]",
    ] {
        assert_eq!(status("/", host), 200, "{host}");
    }
    // Only `Host` counts.
    let forwarded = app.request("GET", "/").header("Host", "evil.example").header("X-Forwarded-Host", "localhost");
    forwarded.header("Forwarded", "host=localhost").send().expect(421);
    app.request("GET", "/").header("X-Forwarded-Host", "evil.example").send().expect(200);

    for (method, target) in [("POST", "/api/v1/events"), ("POST", "/events"), ("POST", "/send-message/"), ("PUT", "/")]
    {
        let request = app.request(method, target).json(&json!({"user": "Ann", "action": "login"}));
        let refused = request.header("Host", "evil.example").send().expect(421).problem();
        assert_eq!((&refused["type"], &refused["retryable"]), (&json!("/problems/misdirected"), &json!(false)));
    }
    assert!(app.topic().records().is_empty());
}

/// Another site's page can read the answers under its own name.
#[test]
fn the_page_of_a_421_says_what_to_do_and_nothing_about_the_server() {
    let app = Application::on(Broker::Embedded).start();
    let answer =
        app.request("GET", "/").header("Host", "evil.example").header("Accept", "text/html").send().expect(421);
    assert_eq!(answer.header("Content-Type"), Some("text/html; charset=utf-8"));
    assert!(answer.text().contains("evil.example") && answer.text().contains("http.hosts"), "{}", answer.text());
    for secret in [app.topic().name(), app.topic().servers()] {
        assert!(!answer.text().contains(secret), "{secret} in {}", answer.text());
    }
}

#[test]
fn probes_may_use_any_host_name_and_see_only_a_state() {
    let app = Application::on(Broker::Embedded).start();
    for target in ["/livez", "/readyz"] {
        assert_eq!(app.request("GET", target).header("Host", "footfall:8000").send().expect(200).text(), "ok\n");
    }
    app.request("GET", "/readyz?verbose").header("Host", "footfall:8000").send().expect(421);
}

#[test]
fn the_configured_host_names_are_accepted() {
    let status = |app: &Application, host: &str| app.request("GET", "/").header("Host", host).send().status();
    let app = Application::on(Broker::Embedded)
        .env("FOOTFALL_HTTP__HOSTS", "[\"Feed.example.com\", \"*.apps.example\"]")
        .start();
    for host in ["feed.example.com", "FEED.example.com.:443", "a.apps.example", "a.b.apps.example:8", "localhost"] {
        assert_eq!(status(&app, host), 200, "{host}");
    }
    for host in ["example.com", "feed.example.com.evil", "apps.example", "evilapps.example", "a.feed.example.com"] {
        assert_eq!(status(&app, host), 421, "{host}");
    }
    let any = Application::on(Broker::Embedded).env("FOOTFALL_HTTP__HOSTS", "*").start();
    assert_eq!(status(&any, "evil.example"), 200);
}

#[test]
fn requests_from_other_sites_are_403_except_links_to_pages() {
    let app = Application::on(Broker::Embedded).start();
    app.accept(&json!({"user": "Ann", "action": "login"}));
    let get = |target: &str, headers: &[(&str, &str)]| {
        let request = headers.iter().fold(app.request("GET", target), |it, (name, value)| it.header(name, value));
        request.open().head().status
    };
    let foreign = |site: &'static str, mode: &'static str, dest: &'static str| {
        [("Sec-Fetch-Site", site), ("Sec-Fetch-Mode", mode), ("Sec-Fetch-Dest", dest)]
    };
    for target in EVERYTHING.iter().chain(&["/livez", "/readyz"]) {
        for site in ["cross-site", "same-site", "nonsense", ""] {
            assert_eq!(get(target, &[("Sec-Fetch-Site", site)]), 403, "{target} {site}");
        }
        for (mode, dest) in [
            ("no-cors", "image"),
            ("no-cors", "script"),
            ("no-cors", "empty"),
            ("cors", "empty"),
            ("websocket", "websocket"),
            ("navigate", "iframe"),
            ("navigate", "embed"),
        ] {
            assert_eq!(get(target, &foreign("cross-site", mode, dest)), 403, "{target} {mode} {dest}");
        }
        assert_eq!(
            get(target, &[("Origin", "http://evil.example")]),
            403,
            "a browser without Fetch Metadata: {target}"
        );
        assert_eq!(get(target, &[("Origin", "null")]), 403, "{target}");
    }
    let link = foreign("cross-site", "navigate", "document");
    for page in ["/", "/?user=Ann", "/history", "/overview", "/kafka", "/users/Ann", "/api/v1/events", "/livez"] {
        assert_eq!(get(page, &link), 200, "{page}");
        assert_eq!(get(page, &foreign("same-site", "navigate", "document")), 200, "{page}");
    }
    assert_eq!(get("/nothing-here", &link), 404);
    for long in [
        "/api/v1/events.ndjson",
        "/api/v1/events.csv",
        "/api/v1/stream",
        "/stream",
        "/stream/overview",
        "/history/search?q=x",
        "/users/Ann/count?before=1-0",
        "/api/v1/ws",
    ] {
        assert_eq!(get(long, &link), 403, "{long}");
    }
    // The page's own requests, typed addresses, and programs.
    for own in [&[("Sec-Fetch-Site", "same-origin")][..], &[("Sec-Fetch-Site", "none")], &[]] {
        for target in ["/", "/api/v1/events.ndjson", "/api/v1/stream", "/static/app.css"] {
            assert_eq!(get(target, own), 200, "{target} {own:?}");
        }
    }
    // One of two lines is enough.
    assert_eq!(get("/", &[("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "cross-site")]), 403);
    let post = app.request("POST", "/events").form(&[("user", "Ann"), ("action", "login")]);
    let post = link.iter().fold(post, |request, (name, value)| request.header(name, value));
    assert_eq!(post.send().expect(403).problem()["type"], "/problems/cross-site");
    assert_eq!(app.request("OPTIONS", "/api/v1/events").header("Sec-Fetch-Site", "cross-site").send().status(), 403);
    assert_eq!(app.topic().records().len(), 1);
}

#[test]
fn a_client_header_does_not_change_the_client_address() {
    let app = Application::on(Broker::Embedded).start();
    app.request("GET", "/livez").header("X-Real-IP", "203.0.113.7").header("X-Request-Id", "spoof").send().expect(200);
    let line = app.log_line("the request's line", |line| line["request.id"] == "spoof");
    assert_eq!(line["client.ip"], "127.0.0.1");
}

#[test]
fn static_files_are_cached_by_hash_and_revalidated_by_name() {
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

    // During an update, a page of another release requests another hash.
    for other in ["/static/app.0123abcd.css", "/static/app.ffffffff.js", "/static/favicon.00000000.svg"] {
        let current = app.get(other).expect(200);
        assert_eq!(current.header("Cache-Control"), Some("no-cache"), "{other}");
        let (stem, extension) =
            (other.split('.').next().unwrap_or_default(), other.rsplit('.').next().unwrap_or_default());
        assert_eq!(current.text(), app.get(&format!("{stem}.{extension}")).expect(200).text(), "{other}");
    }
    for none in
        ["/static/app.0123abc.css", "/static/app.0123ABCD.css", "/static/nothing.0123abcd.css", "/static/app.0123abcd"]
    {
        app.get(none).expect(404);
    }
}

#[test]
fn the_served_description_is_the_documented_one_and_its_methods_are_those_that_work() {
    let app = Application::on(Broker::Embedded).start();
    let description = app.get("/api/openapi.json").expect(200).json();
    assert_eq!(description["openapi"], "3.1.0");
    let file: Value = serde_json::from_str(include_str!("../../docs/openapi.json")).expect("JSON");
    assert_eq!(description, file);
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
fn too_many_streams_are_503() {
    let app = Application::on(Broker::Embedded).env("FOOTFALL_FEED__MAX_STREAMS", "1").start();
    let first = app.stream("");
    eventually("the stream is counted", || (app.metric("footfall_streams") == Some(1.0)).then_some(()));
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
