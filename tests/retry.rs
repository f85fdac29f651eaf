//! Safe retries: the same id and the same bytes are one event, whoever asks again, when and where.

mod common;

use std::thread;

use common::http::Response;
use common::wait::eventually;
use common::{Application, Broker, NewRecord, Topic, kafka, on_every_broker};
use serde_json::{Value, json};

on_every_broker! {
    a_retry_gets_the_first_receipt_and_writes_nothing,
    an_idempotency_key_is_the_id_of_an_event_without_one,
    retries_at_the_same_time_write_one_record,
    the_same_id_with_other_bytes_is_422,
    a_retried_array_gets_its_first_receipts,
    the_same_id_twice_in_an_array_is_one_event,
    an_id_written_by_someone_else_is_known,
}

fn post_with_key(app: &Application, key: &str, body: &str) -> Response {
    app.request("POST", "/api/v1/events").body("application/json", body).header("Idempotency-Key", key).send()
}

fn replayed(answer: &Response) -> bool {
    match answer.header("Idempotent-Replayed") {
        None => false,
        Some("true") => true,
        Some(other) => panic!("Idempotent-Replayed: {other}"),
    }
}

fn a_retry_gets_the_first_receipt_and_writes_nothing(broker: Broker) {
    let app = Application::on(broker).start();
    let event = json!({"user": "Ann", "action": "checkout", "id": "order-977"});
    let first = app.post(&event).expect(201);
    assert!(!replayed(&first));
    for _ in 0..3 {
        let again = app.post(&event).expect(201);
        assert!(replayed(&again));
        assert_eq!(again.json(), first.json());
        assert_eq!(again.header("Location"), first.header("Location"));
    }
    assert_eq!(app.topic().records().len(), 1);
}

fn an_idempotency_key_is_the_id_of_an_event_without_one(broker: Broker) {
    let app = Application::on(broker).start();
    let body = r#"{"user":"Ann","action":"checkout"}"#;
    let first = post_with_key(&app, "order-977", body).expect(201);
    assert_eq!(first.json()["id"], "order-977");
    let again = post_with_key(&app, "order-977", body).expect(201);
    assert!(replayed(&again));
    assert_eq!(again.json(), first.json());
    let records = app.topic().records();
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].header("ce_id"), records[0].text()), (Some("order-977"), body));
    // The event's own id is the more exact one to name it.
    let own = post_with_key(&app, "order-978", r#"{"user":"Ann","action":"checkout","id":"mine"}"#).expect(201);
    assert_eq!(own.json()["id"], "mine");
}

fn retries_at_the_same_time_write_one_record(broker: Broker) {
    let app = Application::on(broker).start();
    for round in 0..10 {
        let event = json!({"user": "Ann", "action": "checkout", "id": format!("order-{round}")});
        let answers: Vec<Response> = thread::scope(|scope| {
            let posts: Vec<_> = (0..8).map(|_| scope.spawn(|| app.post(&event))).collect();
            posts.into_iter().map(|post| post.join().expect("an answer").expect(201)).collect()
        });
        assert_eq!(answers.iter().filter(|answer| !replayed(answer)).count(), 1, "one is the first");
        assert!(answers.iter().all(|answer| answer.json() == answers[0].json()));
    }
    assert_eq!(app.topic().records().len(), 10);
}

fn the_same_id_with_other_bytes_is_422(broker: Broker) {
    let app = Application::on(broker).start();
    app.accept(&json!({"id": "order-977", "user": "Ann", "action": "checkout"}));
    for body in [
        r#"{"id":"order-977","user":"Ann","action":"cancel"}"#,
        r#"{"id":"order-977","user":"Bob","action":"checkout"}"#,
        r#"{"id":"order-977", "user":"Ann","action":"checkout"}"#,
    ] {
        let answer = app.request("POST", "/api/v1/events").body("application/json", body).send().expect(422);
        let problem = answer.problem();
        assert_eq!((problem["type"].as_str(), &problem["retryable"]), (Some("/problems/id-reused"), &json!(false)));
        assert!(!replayed(&answer));
    }
    assert_eq!(app.topic().records().len(), 1);
}

fn a_retried_array_gets_its_first_receipts(broker: Broker) {
    let app = Application::on(broker).start();
    let events = json!([
        {"id": "one", "user": "Ann", "action": "checkout"},
        {"id": "two", "user": "Bob", "action": "checkout"},
    ]);
    let places = |answer: &Response| -> Vec<(Value, Value, Value)> {
        let results = answer.json()["results"].as_array().expect("results").clone();
        results.iter().map(|r| (r["id"].clone(), r["partition"].clone(), r["offset"].clone())).collect()
    };
    let first = app.post(&events).expect(201);
    let again = app.post(&events).expect(201);
    assert_eq!(places(&again), places(&first));
    // What was cut off before it was complete: the rest is written now.
    let more = json!([events[0], events[1], {"id": "three", "user": "Cid", "action": "checkout"}]);
    let third = app.post(&more).expect(201);
    assert_eq!(places(&third)[..2], places(&first)[..]);
    assert_eq!(app.topic().records().len(), 3);
}

fn the_same_id_twice_in_an_array_is_one_event(broker: Broker) {
    let app = Application::on(broker).start();
    let event = json!({"id": "one", "user": "Ann", "action": "checkout"});
    let results = app.post(&json!([event, event])).expect(201).json()["results"].clone();
    assert_eq!((&results[0]["partition"], &results[0]["offset"]), (&results[1]["partition"], &results[1]["offset"]));
    let other = json!({"id": "one", "user": "Ann", "action": "cancel"});
    let results = app.post(&json!([event, other])).expect(207).json()["results"].clone();
    assert_eq!((&results[0]["status"], &results[1]["status"]), (&json!(201), &json!(422)));
    assert_eq!(results[1]["problem"]["type"], "/problems/id-reused");
    assert_eq!(app.topic().records().len(), 1);
}

/// Every process learns the ids of the records that it reads, whoever wrote them.
fn an_id_written_by_someone_else_is_known(broker: Broker) {
    let app = Application::on(broker).start();
    let mut stream = app.stream("");
    let body = r#"{"user":"Ann","action":"checkout","id":"order-977"}"#;
    let (partition, offset) =
        app.topic().produce(&NewRecord::new().key("Ann").value(body).header("ce_id", "order-977"));
    stream.record();
    let answer = app.request("POST", "/api/v1/events").body("application/json", body).send().expect(201);
    assert!(replayed(&answer));
    assert_eq!((&answer.json()["partition"], &answer.json()["offset"]), (&json!(partition), &json!(offset)));
    app.post(&json!({"id": "order-977", "user": "Ann", "action": "cancel"})).expect(422).problem();
    assert_eq!(app.topic().records().len(), 1);
}

#[test]
fn an_id_is_known_to_another_replica_and_after_a_restart() {
    let first = Application::on(Broker::Kafka).start();
    let replica = first.replica().start();
    let mut stream = replica.stream("");
    let event = json!({"id": "order-977", "user": "Ann", "action": "checkout"});
    let receipt = first.accept(&event);
    assert_eq!(stream.record()["id"], "order-977");
    let answer = replica.post(&event).expect(201);
    assert!(replayed(&answer));
    assert_eq!(answer.json(), receipt);

    first.kill();
    let restarted = replica.replica().start();
    let mut stream = restarted.stream("?last=1");
    stream.record();
    let answer = restarted.post(&event).expect(201);
    assert!(replayed(&answer));
    assert_eq!(answer.json(), receipt);
    assert_eq!(replica.topic().records().len(), 1);
}

#[test]
fn an_id_is_forgotten_after_its_time_and_the_retry_is_a_new_event() {
    let app = Application::on(Broker::Embedded).env("FOOTFALL_INGEST__IDS_FOR", "300ms").start();
    let event = json!({"id": "order-977", "user": "Ann", "action": "checkout"});
    app.accept(&event);
    eventually("the id is forgotten", || {
        app.accept(&json!({"user": "Bob", "action": "something else"}));
        (!replayed(&app.post(&event).expect(201))).then_some(())
    });
    let written = app.topic().records().iter().filter(|record| record.header("ce_id") == Some("order-977")).count();
    assert_eq!(written, 2);
}

#[test]
fn the_memory_of_ids_is_bounded() {
    let app = Application::on(Broker::Embedded).env("FOOTFALL_INGEST__IDS", "100").start();
    let event = |n: usize| json!({"id": format!("id-{n}"), "user": "Ann", "action": "checkout"});
    let mut stream = app.stream("");
    for n in 0..=300 {
        app.accept(&event(n));
        // What is read from the topic is remembered too.
        stream.record();
    }
    assert!(!replayed(&app.post(&event(0)).expect(201)), "the oldest is forgotten");
    assert!(replayed(&app.post(&event(300)).expect(201)), "the newest is known");
}

/// A restarted process must not take a retry for a new event because it has not read so far yet.
#[test]
fn a_process_that_starts_takes_nothing_before_it_knows_the_ids_of_those_before_it() {
    let topic = Topic::create(kafka::shared(), 1, &[]);
    let body = |id: &str| json!({"id": id, "user": "Ann", "action": "checkout", "x": "x".repeat(500)}).to_string();
    let record = |id: &str| NewRecord::new().key("Ann").value(body(id)).header("ce_id", id);
    let records: Vec<NewRecord> = (0..9000).map(|n| record(&format!("id-{n}"))).collect();
    topic.produce_all(&records);
    for _ in 0..3 {
        let app = Application::at(kafka::shared()).topic(&topic).start_without_waiting_for_kafka();
        let answer = eventually("it takes events", || {
            let answer = app.request("POST", "/api/v1/events").body("application/json", body("id-8999")).send();
            (answer.status() != 503).then_some(answer)
        });
        assert!(replayed(&answer.expect(201)), "it was written a second time");
    }
}

#[test]
fn what_is_refused_does_not_push_out_what_was_written() {
    let topic = Topic::create(kafka::shared(), 3, &[]);
    let app = Application::at(kafka::shared()).topic(&topic).env("FOOTFALL_INGEST__IDS", "100").start();
    let event = json!({"id": "order-977", "user": "Ann", "action": "checkout"});
    app.accept(&event);
    topic.delete();
    let refused = |n: usize| json!({"id": format!("id-{n}"), "user": "Ann", "action": "too early"});
    eventually("posts are refused", || (app.get("/readyz").status() == 503).then_some(()));
    for round in 1..10 {
        let events: Vec<Value> = (0..500).map(|n| refused(1000 * round + n)).collect();
        app.post(&json!(events)).expect(503);
    }
    assert!(replayed(&app.post(&event).expect(201)), "it was forgotten");
}

#[test]
fn a_malformed_idempotency_key_is_refused() {
    let app = Application::on(Broker::Embedded).start();
    for key in ["two words", "", &"x".repeat(129)] {
        let answer = post_with_key(&app, key, r#"{"user":"Ann","action":"checkout"}"#);
        assert!(matches!(answer.status(), 400 | 422), "{key:?}: {}", answer.status());
        answer.problem();
    }
    assert!(app.topic().records().is_empty());
}
