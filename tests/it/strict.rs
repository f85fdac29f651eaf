//! `Prefer: handling=strict` (RFC 7240): all events of a request are written, or none.

use std::time::Duration;

use crate::common::http::{Request, Response};
use crate::common::wait::{eventually, within};
use crate::common::{Application, Broker, HEALING, Kafka, Topic, kafka, on_every_broker};
use serde_json::{Value, json};

on_every_broker! {
    a_strict_array_is_written_as_a_whole,
    a_refused_event_refuses_the_whole_strict_request,
}

const BATCH: &str = "application/cloudevents-batch+json";

fn strict(app: &Application, content_type: &str, body: impl Into<Vec<u8>>) -> Request {
    app.request("POST", "/api/v1/events").body(content_type, body).header("Prefer", "handling=strict")
}

fn strict_json(app: &Application, body: &Value) -> Request {
    strict(app, "application/json", body.to_string())
}

fn is_applied(answer: &Response) -> bool {
    match answer.header("Preference-Applied") {
        None => false,
        Some("handling=strict") => true,
        Some(other) => panic!("Preference-Applied: {other}"),
    }
}

fn statuses(body: &Value) -> Vec<u64> {
    let results = body["results"].as_array().unwrap_or_else(|| panic!("no results in {body}"));
    results.iter().map(|result| result["status"].as_u64().unwrap_or_else(|| panic!("no status in {result}"))).collect()
}

/// Returns the actions of the topic's events, as a reader of the API finds them.
fn actions(app: &Application) -> Vec<String> {
    let page = app.get("/api/v1/events?from=beginning&limit=1000").expect(200).json();
    let events = page["events"].as_array().expect("events");
    events.iter().map(|record| record["value"]["action"].as_str().expect("an action").to_owned()).collect()
}

fn event(action: &str) -> Value {
    json!({"user": "Ann", "action": action})
}

fn named(id: &str, action: &str) -> Value {
    json!({"id": id, "user": "Ann", "action": action})
}

fn cloud_event(id: &str, data: &Value) -> Value {
    json!({"specversion": "1.0", "id": id, "source": "/shop", "type": "t", "data": data})
}

fn a_strict_array_is_written_as_a_whole(broker: Broker) {
    let app = Application::on(broker).start();
    for (content_type, body) in [
        ("application/json", json!([event("1"), event("2")]).to_string()),
        (BATCH, json!([cloud_event("3", &event("3")), cloud_event("4", &event("4"))]).to_string()),
        ("application/x-ndjson", format!("{}\n\n{}\n", event("5"), event("6"))),
    ] {
        let answer = strict(&app, content_type, body).send().expect(201);
        assert!(is_applied(&answer), "{content_type}");
        assert_eq!(statuses(&answer.json()), [201, 201], "{content_type}");
    }
    // One event is all of its request.
    assert!(is_applied(&strict_json(&app, &event("7")).send().expect(201)));
    assert_eq!(actions(&app), ["1", "2", "3", "4", "5", "6", "7"]);
}

fn a_refused_event_refuses_the_whole_strict_request(broker: Broker) {
    let app = Application::on(broker).start();
    app.accept(&named("used", "first"));
    let array = |items: &[Value]| ("application/json", json!(items).to_string());
    let (valid, invalid) = (event("valid"), json!({"user": "Ann", "action": " "}));
    let (used, known) = (named("used", "other"), named("used", "first"));
    /// The type of the problem; index and pointer of its first error; the statuses of the results.
    type Refusal<'a> = (&'a str, Option<(u64, &'a str)>, &'a [u64]);
    let cases: [((&str, String), Refusal); 10] = [
        (array(&[valid.clone(), invalid.clone()]), ("invalid-event", Some((1, "/action")), &[424, 422])),
        (array(&[json!(7), valid.clone(), invalid.clone()]), ("invalid-event", Some((0, "")), &[422, 424, 422])),
        (array(&[invalid.clone(), invalid.clone()]), ("invalid-event", Some((0, "/action")), &[422, 422])),
        (array(&[valid.clone(), used.clone(), valid.clone()]), ("id-reused", None, &[424, 422, 424])),
        (array(std::slice::from_ref(&used)), ("id-reused", None, &[422])),
        (array(&[named("new", "a"), named("new", "b"), valid.clone()]), ("id-reused", None, &[424, 422, 424])),
        // The event that is there is said to be there; the request wrote nothing.
        (array(&[known.clone(), valid.clone(), used.clone()]), ("id-reused", None, &[201, 424, 422])),
        // Invalid events are found before any id is looked up.
        (array(&[known.clone(), invalid.clone()]), ("invalid-event", Some((1, "/action")), &[424, 422])),
        (
            (BATCH, json!([cloud_event("1", &valid), cloud_event("2", &json!({"user": 7}))]).to_string()),
            ("invalid-event", Some((1, "/data/user")), &[424, 422]),
        ),
        (
            ("application/x-ndjson", format!("{valid}\n\n{{\n{valid}\n")),
            ("invalid-event", Some((2, "")), &[424, 422, 424]),
        ),
    ];
    for ((content_type, body), (slug, error, expected)) in cases {
        let answer = strict(&app, content_type, body.clone()).send();
        assert_eq!(answer.status(), 422, "{body}: {}", answer.text());
        assert!(is_applied(&answer), "{body}");
        let problem = answer.problem();
        assert_eq!(problem["type"], format!("/problems/{slug}"), "{body}");
        assert_eq!(problem["retryable"], false, "{body}");
        assert!(problem["detail"].as_str().is_some_and(|text| text.starts_with("nothing was written")), "{problem}");
        let found = problem["errors"]
            .get(0)
            .map(|error| (error["index"].as_u64().expect("an index"), error["pointer"].as_str().expect("a pointer")));
        assert_eq!(found, error, "{body}");
        assert_eq!(statuses(&problem), expected, "{body}");
        for result in problem["results"].as_array().expect("results") {
            match result["status"].as_u64() {
                Some(424) => assert_eq!(
                    (&result["retryable"], &result["problem"]["type"]),
                    (&json!(true), &json!("/problems/withheld"))
                ),
                Some(422) => assert_eq!(result["retryable"], false),
                _ => assert_eq!(result["replayed"], true),
            }
        }
    }
    assert_eq!(actions(&app), ["first"]);
    assert!(app.metric("footfall_events_total{outcome=\"withheld\"}").is_some_and(|count| count >= 11.0));
}

#[test]
fn without_the_preference_the_valid_events_are_written() {
    let app = Application::on(Broker::Embedded).start();
    let body = json!([event("valid"), {"user": "Ann"}]);
    for prefer in [None, Some("handling=lenient"), Some("return=minimal, wait=10"), Some("handling=odd"), Some(",;\"")]
    {
        let request = app.request("POST", "/api/v1/events").json(&body);
        let request = prefer.iter().fold(request, |request, prefer| request.header("Prefer", prefer));
        let answer = request.send().expect(207);
        assert!(!is_applied(&answer), "{prefer:?}");
        assert_eq!(statuses(&answer.json()), [201, 422], "{prefer:?}");
    }
    assert_eq!(actions(&app).len(), 5);
    // In any list, and with unknown ones beside it.
    for prefer in ["respond-async, handling=strict", "Handling = \"strict\"; x=1, wait=1"] {
        let request = app.request("POST", "/api/v1/events").json(&body).header("Prefer", prefer);
        assert!(is_applied(&request.send().expect(422)), "{prefer}");
    }
    assert_eq!(actions(&app).len(), 5);
}

#[test]
fn an_answer_that_refuses_a_strict_request_before_its_events_are_read_says_so_too() {
    let app = Application::on(Broker::Embedded).env("FOOTFALL_INGEST__RATE_LIMIT", "1").start();
    let many = json!(vec![event("x"); 501]);
    for (request, status) in [
        (strict(&app, "application/json", "["), 400),
        (strict(&app, "application/json", "[]"), 400),
        (strict(&app, "text/plain", "[]"), 415),
        (strict(&app, "application/json", "[]").header("Content-Encoding", "br"), 415),
        (strict_json(&app, &many), 413),
        (strict_json(&app, &json!({"user": "Ann"})), 422),
    ] {
        let answer = request.send().expect(status);
        assert!(is_applied(&answer), "{status}");
        answer.problem();
    }
    assert_eq!(actions(&app), Vec::<String>::new());
    // A refused request takes nothing from the allowance of the rate limit; a written one does.
    let full = json!(vec![event("x"); 500]);
    strict_json(&app, &full).send().expect(201);
    let answer = strict_json(&app, &full).send().expect(429);
    assert!(is_applied(&answer) && answer.header("Retry-After").is_some());
    assert_eq!(actions(&app).len(), 500);
}

#[test]
fn the_ids_of_a_refused_request_stay_free() {
    let app = Application::on(Broker::Embedded).start();
    app.accept(&named("used", "first"));
    let items = [named("one", "1"), named("two", "2")];
    strict_json(&app, &json!([items[0], items[1], named("used", "other")])).send().expect(422);
    let answer = strict_json(&app, &json!(items)).send().expect(201).json();
    assert!(answer["results"].as_array().expect("results").iter().all(|result| result.get("replayed").is_none()));
    assert_eq!(actions(&app), ["first", "1", "2"]);
}

#[test]
fn an_idempotency_key_makes_the_ids_of_a_strict_array() {
    let app = Application::on(Broker::Embedded).start();
    let keyed = |request: Request, key: &str| request.header("Idempotency-Key", key).send();
    let ids = |answer: &Response| -> Vec<String> {
        let results = answer.json()["results"].as_array().expect("results").clone();
        results.iter().map(|result| result["id"].as_str().expect("an id").to_owned()).collect()
    };
    let array = json!([event("1"), named("own", "2"), event("3")]);
    let lines = format!("{}\n\n{}\n", event("4"), event("5"));
    for retry in [false, true] {
        for (request, expected) in [
            (strict_json(&app, &array), &["batch-7.0", "own", "batch-7.2"][..]),
            (strict(&app, "application/x-ndjson", lines.as_str()), &["lines-1.0", "lines-1.2"]),
        ] {
            let key = expected[0].trim_end_matches(".0");
            let answer = keyed(request, &format!("\"{key}\"")).expect(201);
            assert_eq!(ids(&answer), expected);
            let results = answer.json()["results"].as_array().expect("results").clone();
            assert!(results.iter().all(|result| (result["replayed"] == true) == retry), "{results:?}");
        }
    }
    assert_eq!(actions(&app), ["1", "2", "3", "4", "5"]);
    // The same key with other events.
    keyed(strict_json(&app, &json!([event("other")])), "batch-7").expect(422).problem();
    for key in ["", "with space", &"x".repeat(118)] {
        let problem = keyed(strict_json(&app, &array), key).expect(400).problem();
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("1 to 117")), "{problem}");
    }
    keyed(strict_json(&app, &json!([event("6")])), &"x".repeat(117)).expect(201);
    keyed(app.request("POST", "/api/v1/events").json(&array), "batch-7").expect(400).problem();
    assert_eq!(actions(&app).len(), 6);
}

#[test]
fn with_ack_none_all_are_queued_or_none() {
    let app = Application::on(Broker::Embedded).start();
    app.accept(&named("used", "first"));
    let post = |body: &Value| {
        let request = app.request("POST", "/api/v1/events?ack=none").json(body);
        request.header("Prefer", "handling=strict").send()
    };
    for refused in [
        json!([event("no"), 7]),
        json!([event("no"), named("used", "other")]),
        json!([event("no"), named("used", "first"), named("used", "other")]),
    ] {
        assert!(is_applied(&post(&refused).expect(422)), "{refused}");
    }
    let answer = post(&json!([event("yes"), event("yes")])).expect(202);
    assert!(is_applied(&answer));
    assert_eq!(statuses(&answer.json()), [202, 202]);
    eventually("they are delivered", || (actions(&app).len() == 3).then_some(()));
    assert_eq!(actions(&app), ["first", "yes", "yes"]);
}

/// The events that fit into the queue to Kafka are written, so the request has to be sent again.
#[test]
fn a_strict_request_that_fits_only_partly_is_503_and_its_retry_completes_it() {
    let app = Application::on(Broker::Embedded)
        .env("FOOTFALL_INGEST__MAX_BATCH", "100")
        .env("FOOTFALL_INGEST__QUEUE_MESSAGES", "100")
        .env("FOOTFALL_INGEST__LINGER", "1s")
        .start();
    let before: Vec<Value> = (0..60).map(|n| json!({"user": format!("user-{n}"), "action": "before"})).collect();
    // The first events may be delivered before the others come: then again.
    let mut round = 0;
    let (answer, items) = eventually("a request fits only partly", || {
        round += 1;
        let items: Vec<Value> = (0..100).map(|n| named(&format!("{round}-{n}"), &format!("{round}-{n}"))).collect();
        let answer = std::thread::scope(|scope| {
            let first = scope.spawn(|| app.post(&json!(before)));
            eventually("the queue is used", || {
                let used = app.metric("footfall_produce_in_flight") == Some(60.0);
                (used || first.is_finished()).then_some(())
            });
            let answer = strict_json(&app, &json!(items)).send();
            first.join().expect("no panic").expect(201);
            answer
        });
        (answer.status() == 503).then_some((answer, items))
    });
    assert!(is_applied(&answer) && answer.header("Retry-After").is_some());
    let problem = answer.problem();
    assert_eq!((&problem["type"], &problem["retryable"]), (&json!("/problems/unavailable"), &json!(true)));
    let statuses = statuses(&problem);
    let written = statuses.iter().take_while(|status| **status == 201).count();
    assert!((40..100).contains(&written), "{statuses:?}");
    assert_eq!(statuses[written..], [vec![503], [424].repeat(99 - written)].concat());
    let words = format!("{written} of 100 events");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(&words)), "{problem}");
    let rejects = app.get("/api/v1/rejects").expect(200).json();
    assert_eq!(rejects["count"], 0, "503 and 424 are no rejects: {rejects}");

    let answer = eventually("the retry is taken", || {
        let answer = strict_json(&app, &json!(items)).send();
        (answer.status() == 201).then_some(answer)
    });
    let results = answer.json()["results"].as_array().expect("results").clone();
    assert!(results[..written].iter().all(|result| result["replayed"] == true), "{results:?}");
    let prefix = format!("{round}-");
    let written: Vec<String> = actions(&app).into_iter().filter(|action| action.starts_with(&prefix)).collect();
    let expected: Vec<String> = (0..100).map(|n| format!("{prefix}{n}")).collect();
    assert_eq!(written, expected);
}

#[test]
fn a_strict_request_that_kafka_does_not_answer_is_503_and_its_retry_writes_it_once() {
    let kafka = Kafka::start();
    let app = Application::at(kafka.servers()).env("FOOTFALL_INGEST__DEADLINE", "1s").start();
    app.accept(&event("before"));
    let items = json!([named("one", "1"), named("two", "2")]);
    let frozen = kafka.freeze(1);
    let answer = strict_json(&app, &items).send().expect(503);
    assert!(is_applied(&answer) && answer.header("Retry-After").is_some());
    let problem = answer.problem();
    assert_eq!(problem["retryable"], true);
    assert_eq!(statuses(&problem), [504, 504]);
    // Footfall notices it, and from then on answers at once.
    let refused = eventually("posts are refused", || {
        let answer = strict_json(&app, &json!([event("no"), event("no")])).send();
        let known = statuses(&answer.problem()) == [503, 503];
        known.then_some(answer)
    });
    assert!(refused.header("Retry-After").is_some());
    assert!(refused.problem()["detail"].as_str().is_some_and(|text| text.starts_with("nothing was written")));
    drop(frozen);
    within(HEALING, "the retry is taken", || (strict_json(&app, &items).send().status() == 201).then_some(()));
    let written = app.topic().records().into_iter().map(|record| record.json()["action"].clone());
    let written: Vec<Value> = written.filter(|action| action == "1" || action == "2").collect();
    assert_eq!(written, ["1", "2"]);
}

/// Kafka's refusal is known only after other events of the request are written.
#[test]
fn an_event_that_kafka_rejects_is_503_first_and_422_when_the_others_are_written() {
    let topic = Topic::create(kafka::shared(), 1, &[("max.message.bytes", "2000")]);
    let app = Application::at(kafka::shared()).topic(&topic).start();
    let large: String = (0..4000_u32).map(|n| char::from(b'a' + (n * n % 251 % 26) as u8)).collect();
    let items = json!([named("one", "1"), {"id": "large", "user": "Bob", "action": "large", "x": large}]);
    let problem = strict_json(&app, &items).send().expect(503).problem();
    assert_eq!(statuses(&problem), [201, 422]);
    let problem = within(Duration::from_secs(10), "the retry is final", || {
        let answer = strict_json(&app, &items).send();
        (answer.status() == 422).then(|| answer.problem())
    });
    assert_eq!((&problem["type"], &problem["retryable"]), (&json!("/problems/refused-by-kafka"), &json!(false)));
    assert_eq!(statuses(&problem), [201, 422]);
    assert_eq!(topic.records().len(), 1);
}
