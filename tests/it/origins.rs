//! Pages of other sites whose origins are listed (`ingest.origins`): they may send events as JSON and read the answers to
//! them (CORS), and nothing else.

use serde_json::{Value, json};

use crate::common::http::{Request, Response};
use crate::common::{Application, Broker};

const SHOP: &str = "https://shop.example";

fn with_the_shop() -> Application {
    Application::on(Broker::Embedded)
        .env("FOOTFALL_INGEST__ORIGINS", "https://shop.example, http://127.0.0.1:9")
        .start()
}

/// The routes that take JSON, each with a body and the status of the answer.
fn routes() -> [(&'static str, Value, u16); 5] {
    let event = json!({"user": "Ann", "action": "login"});
    [
        ("/api/v1/events", event.clone(), 201),
        ("/send-message/", event.clone(), 200),
        ("/send-message", event.clone(), 200),
        ("/v1/track", json!({"userId": "Ann", "event": "login"}), 200),
        ("/track", json!({"id": "a", "events": [event]}), 201),
    ]
}

/// A request that a browser makes for a page of another site.
fn of_a_page(request: Request, origin: &str) -> Request {
    request.header("Origin", origin).header("Sec-Fetch-Site", "cross-site").header("Sec-Fetch-Mode", "cors")
}

fn preflight(app: &Application, target: &str, origin: &str) -> Request {
    of_a_page(app.request("OPTIONS", target), origin).header("Access-Control-Request-Method", "POST")
}

fn has_no_cors(answer: &Response, what: &str) {
    for name in ["Allow-Origin", "Allow-Methods", "Allow-Headers", "Allow-Credentials", "Expose-Headers", "Max-Age"] {
        assert_eq!(answer.header(&format!("Access-Control-{name}")), None, "{what}");
    }
}

#[test]
fn a_listed_page_may_post_json_and_read_the_answer() {
    let app = with_the_shop();
    for (target, body, status) in routes() {
        for (origin, content_type) in
            [(SHOP, "application/json"), (SHOP, "text/plain;charset=UTF-8"), ("http://127.0.0.1:9", "text/plain")]
        {
            let request = app.request("POST", target).body(content_type, body.to_string());
            let answer = of_a_page(request, origin).send().expect(status);
            assert_eq!(answer.header("Access-Control-Allow-Origin"), Some(origin), "{target}");
            assert_eq!(answer.header("Access-Control-Allow-Credentials"), None, "{target}");
            for name in ["Location", "Retry-After", "Preference-Applied", "X-Request-Id"] {
                assert!(answer.head.lists("Access-Control-Expose-Headers", name), "{target} hides {name}");
            }
            assert!(answer.head.lists("Vary", "Origin"), "{target}");
        }
    }
    // Other answers vary too, and name no origin.
    let own = app.post(&json!({"user": "Ann", "action": "login"})).expect(201);
    assert!(own.head.lists("Vary", "Origin"));
    has_no_cors(&own, "a program");
}

#[test]
fn a_listed_page_reads_why_it_was_refused_and_when_to_try_again() {
    let app = Application::at("127.0.0.1:9")
        .env("FOOTFALL_INGEST__ORIGINS", SHOP)
        .env("FOOTFALL_INGEST__MAX_BATCH", "1")
        .env("FOOTFALL_INGEST__RATE_LIMIT", "1")
        .start_without_waiting_for_kafka();
    let event = r#"{"user":"Ann","action":"login"}"#;
    for (content_type, body, status) in [
        ("text/plain", "{", 400),
        ("text/plain", r#"{"user":"Ann"}"#, 422),
        ("text/plain", &format!("[{event},{event}]"), 413),
        ("application/xml", event, 415),
        ("text/plain", event, 503),
        ("text/plain", event, 429),
    ] {
        let answer = of_a_page(app.request("POST", "/api/v1/events").body(content_type, body), SHOP).send();
        let answer = answer.expect(status);
        assert_eq!(answer.header("Access-Control-Allow-Origin"), Some(SHOP), "{status}");
        assert!(answer.head.lists("Access-Control-Expose-Headers", "Retry-After"), "{status}");
        assert_eq!(answer.header("Retry-After").is_some(), matches!(status, 429 | 503), "{status}");
    }
}

/// Footfall's pages name the Kafka brokers, and its page of an error is one of them.
#[test]
fn a_listed_page_that_asks_for_html_gets_json() {
    let app = with_the_shop();
    for (target, ..) in routes() {
        let request = || app.request("POST", target).header("Accept", "text/html").body("text/plain", "{");
        let answer = of_a_page(request(), SHOP).send().expect(400);
        assert_eq!(answer.header("Access-Control-Allow-Origin"), Some(SHOP), "{target}");
        assert_eq!(answer.header("Content-Type"), Some("application/problem+json"), "{target}");
        answer.json();
    }
    let own = app.request("POST", "/track").header("Accept", "text/html").body("application/json", "{").send();
    assert!(own.expect(400).text().contains("<html"));
}

#[test]
fn a_preflight_of_a_listed_page_names_what_it_may_send() {
    let app = with_the_shop();
    for (target, ..) in routes() {
        let answer = preflight(&app, target, SHOP).send().expect(204);
        assert_eq!(answer.header("Access-Control-Allow-Origin"), Some(SHOP), "{target}");
        assert_eq!(answer.header("Access-Control-Allow-Methods"), Some("POST"), "{target}");
        assert_eq!(answer.header("Access-Control-Allow-Credentials"), None, "{target}");
        assert_eq!(answer.header("Access-Control-Max-Age"), Some("7200"), "{target}");
        assert_eq!(answer.header("Access-Control-Allow-Private-Network"), None, "{target}");
        assert!(answer.head.lists("Vary", "Origin"), "{target}");
        for name in ["content-type", "content-encoding", "idempotency-key", "prefer", "authorization", "traceparent"] {
            assert!(answer.head.lists("Access-Control-Allow-Headers", name), "{target} forbids {name}");
        }
    }
    let allowed = |asked: &str, name: &str| {
        let answer = preflight(&app, "/api/v1/events", SHOP).header("Access-Control-Request-Headers", asked);
        answer.send().expect(204).head.lists("Access-Control-Allow-Headers", name)
    };
    assert!(allowed("ce-id,ce-specversion", "ce-id") && allowed("ce-id, ce-specversion", "ce-specversion"));
    for name in ["x-other", "ce-", "ce-A", "*", "cookie"] {
        assert!(!allowed(name, name), "{name}");
    }
    let private = preflight(&app, "/track", SHOP).header("Access-Control-Request-Private-Network", "true");
    assert_eq!(private.send().expect(204).header("Access-Control-Allow-Private-Network"), Some("true"));
    // What is no preflight is answered as before.
    let plain = app.request("OPTIONS", "/api/v1/events").send().expect(204);
    assert!(plain.head.lists("Allow", "POST"));
    has_no_cors(&plain, "OPTIONS of a program");
}

#[test]
fn an_unlisted_page_is_refused_and_the_answer_names_the_setting() {
    let (listed, unlisted) = (with_the_shop(), Application::on(Broker::Embedded).start());
    for app in [&listed, &unlisted] {
        for origin in [
            "https://evil.example",
            "http://shop.example",
            "https://shop.example:8443",
            "https://shop.example.",
            "null",
            "*",
            "",
        ] {
            for (target, body, _) in routes() {
                let what = format!("{target} {origin}");
                has_no_cors(&preflight(app, target, origin).send().expect(403), &what);
                for content_type in ["application/json", "text/plain"] {
                    let request = app.request("POST", target).body(content_type, body.to_string());
                    let with_site = of_a_page(request.clone(), origin).send().expect(403);
                    let without = request.header("Origin", origin).send().expect(403);
                    for answer in [with_site, without] {
                        has_no_cors(&answer, &what);
                        assert!(answer.text().contains("ingest.origins"), "{}", answer.text());
                    }
                }
            }
        }
        assert_eq!(app.topic().records().len(), 0);
    }
    let two = of_a_page(listed.request("POST", "/track").json(&json!({"id": "a", "events": []})), SHOP);
    has_no_cors(&two.header("Origin", "https://evil.example").send().expect(403), "two origins");
    let own = unlisted.post(&json!({"user": "Ann", "action": "login"})).expect(201);
    assert_eq!(own.header("Vary"), None, "without listed origins nothing depends on the origin");
}

#[test]
fn a_listed_page_can_do_nothing_else() {
    let app = with_the_shop();
    let receipt = app.accept(&json!({"user": "Ann", "action": "login"}));
    let record = format!("/api/v1/events/{}/{}", receipt["partition"], receipt["offset"]);
    for target in [
        "/",
        "/api/v1/events",
        &record,
        "/api/v1/events.ndjson",
        "/api/v1/stream",
        "/api/v1/users/Ann",
        "/api/v1/stats",
        "/api/openapi.json",
        "/metrics",
        "/livez",
        "/track",
        "/nothing-here",
        "/static/track.js",
    ] {
        has_no_cors(&of_a_page(app.request("GET", target), SHOP).send().expect(403), target);
    }
    for target in ["/api/v1/stats", "/events", "/api/v1/ws", "/nothing-here"] {
        has_no_cors(&preflight(&app, target, SHOP).send().expect(403), target);
    }
    for method in ["PUT", "DELETE", "PATCH"] {
        has_no_cors(&of_a_page(app.request(method, "/api/v1/events"), SHOP).send().expect(403), method);
    }
    let form = app.request("POST", "/events").form(&[("user", "Ann"), ("action", "login")]);
    has_no_cors(&of_a_page(form, SHOP).send().expect(403), "the form");
    // DNS rebinding.
    let elsewhere =
        app.request("POST", "/track").header("Host", "evil.example").json(&json!({"id": "a", "events": []}));
    has_no_cors(&of_a_page(elsewhere, SHOP).send().expect(421), "another host");
    assert_eq!(app.topic().records().len(), 1);
}
