//! Safe retries: the same id and the same bytes are one event, whoever retries, when and where.

use std::thread;
use std::time::Duration;

use crate::common::application::signal;
use crate::common::http::Response;
use crate::common::wait::{eventually, within};
use crate::common::{
    Application, Broker, HEALING, Kafka, NewRecord, Topic, kafka, on_every_broker, on_three_brokers, unique,
};
use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};

on_every_broker! {
    a_retry_gets_the_first_receipt_and_writes_nothing,
    an_idempotency_key_is_the_id_of_an_event_without_one,
    retries_at_the_same_time_write_one_record,
    the_same_id_with_other_bytes_is_422,
    a_retried_array_gets_its_first_receipts,
    the_same_id_twice_in_an_array_is_one_event,
    an_id_written_by_another_producer_is_known,
}

on_three_brokers! {
    a_retry_gets_the_first_receipt_and_writes_nothing,
    retries_at_the_same_time_write_one_record,
    a_retried_array_gets_its_first_receipts,
    an_id_written_by_another_producer_is_known,
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
    // The event's own id takes precedence.
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
    // The rest of a batch that was cut off is written now.
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
fn an_id_written_by_another_producer_is_known(broker: Broker) {
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

const ANSWER: Duration = Duration::from_secs(20);
/// How long docs/api.md asks clients to wait before they use another replica.
const OTHER_REPLICA: Duration = Duration::from_secs(1);

/// Another writer of a topic, with an open transaction in a partition that has one record: an event with an id.
struct Transaction(BaseProducer);

impl Transaction {
    fn begin(topic: &Topic, id: &str, body: &str) -> Self {
        Transaction::begin_in(0, topic, id, body)
    }

    fn begin_in(partition: i32, topic: &Topic, id: &str, body: &str) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", topic.servers()).set("transactional.id", unique("other-writer"));
        config.set("transaction.timeout.ms", "300000"); // longer than a broker takes to start
        let producer: BaseProducer = config.create().expect("a producer");
        producer.init_transactions(ANSWER).expect("a coordinator");
        producer.begin_transaction().expect("a transaction");
        let headers = OwnedHeaders::new().insert(Header { key: "ce_id", value: Some(id) });
        let record = BaseRecord::to(topic.name()).partition(partition).key("Zoe").payload(body).headers(headers);
        producer.send(record).expect("room in the queue");
        producer.flush(ANSWER).expect("a receipt");
        Transaction(producer)
    }

    fn abort(self) {
        self.0.abort_transaction(ANSWER).expect("an end");
    }

    fn commit(self) {
        self.0.commit_transaction(ANSWER).expect("an end");
    }
}

/// Returns the readable records with an id. Writes another one first, because a topic is read up to its last record
/// here, and the marker of a transaction is not a record.
/// transaction's mark is none.
fn count(topic: &Topic, id: &str) -> usize {
    topic.produce(&NewRecord::event("Zoe", "the last one").partition(0));
    topic.records().iter().filter(|record| record.header("ce_id") == Some(id)).count()
}

#[test]
fn an_id_behind_an_open_transaction_is_known_to_another_replica_and_after_a_restart() {
    let topic = Topic::create(kafka::shared(), 1, &[]);
    let first = Application::at(kafka::shared()).topic(&topic).start();
    let replica = first.replica().start();
    let before = first.accept(&json!({"id": "pay-0", "user": "Bob", "action": "pay"}));
    let open = Transaction::begin(&topic, "another", "{}");
    let event = json!({"id": "pay-1", "user": "Bob", "action": "pay"});
    let first_answer = first.post(&event).expect(201);
    let receipt = first_answer.json();
    let is_first = |answer: Response| {
        let answer = answer.expect(201);
        assert!(replayed(&answer));
        assert_eq!(answer.json(), receipt);
    };
    thread::sleep(OTHER_REPLICA);
    is_first(replica.post(&event));
    let other = json!({"id": "pay-1", "user": "Bob", "action": "refund"});
    replica.post(&other).expect(422);
    // Records written after the transaction's start are learned at once.
    let late = json!({"id": "pay-2", "user": "Bob", "action": "pay"});
    let late_receipt = replica.accept(&late);
    thread::sleep(OTHER_REPLICA);
    assert_eq!(first.post(&late).expect(201).json(), late_receipt);

    first.kill();
    let restarted = replica.replica().start_without_waiting_for_kafka();
    let post = |event: &Value| {
        eventually("the restarted process takes events", || {
            Some(restarted.post(event)).filter(|answer| answer.status() != 503)
        })
    };
    is_first(post(&event));
    // The first id is known earlier, because a reader of its own learns ids behind open transactions.
    let again = post(&json!({"id": "pay-0", "user": "Bob", "action": "pay"})).expect(201);
    assert_eq!(again.json(), before);

    // The record exists, and its answer says why it cannot be read yet.
    let location = first_answer.header("Location").expect("a Location").to_owned();
    let unread = replica.get(&location).expect(503);
    assert_eq!(unread.header("Retry-After"), Some("1"));
    let problem = unread.problem();
    assert_eq!((&problem["type"], &problem["retryable"]), (&json!("/problems/held-up"), &json!(true)));
    let words = "partition 0 can be read up to offset 1 only: a transaction of another writer is open";
    assert!(problem["detail"].as_str().expect("a detail").contains(words), "{problem}");
    let page = location.trim_start_matches("/api/v1");
    let page = replica.request("GET", page).header("Accept", "text/html").send().expect(503);
    // The page begins its sentence with a capital letter.
    assert!(page.text().contains(words.trim_start_matches('p')), "{}", page.text());
    replica.get("/api/v1/events/0/999").expect(404);

    open.abort();
    let read = eventually("it can be read", || Some(replica.get(&location)).filter(|answer| answer.status() == 200));
    assert_eq!(read.json()["id"], "pay-1");
    for app in [&replica, &restarted] {
        is_first(app.post(&event));
    }
    assert_eq!((count(&topic, "pay-1"), count(&topic, "pay-2")), (1, 1));
}

#[test]
fn an_id_behind_an_open_transaction_is_known_once_its_partition_has_a_leader() {
    let kafka = Kafka::start_brokers(3);
    let topic = Topic::create_on(kafka.servers(), &[1, 2, 3]);
    let app = Application::at(kafka.servers()).topic(&topic).start();
    // The tail has nothing to read there, and is ready at once.
    let elsewhere = Topic::create(kafka.servers(), 3, &[]);
    let other = Application::at(kafka.servers()).topic(&elsewhere).start();
    let is_there = |user: &String| other.accept(&json!({"user": user, "action": "look"}))["partition"] == 1;
    let user = (0..100).map(|n| format!("user-{n}")).find(is_there).expect("a user of partition 1");
    let _open = Transaction::begin_in(1, &topic, "another", "{}");
    let event = json!({"id": "pay-1", "user": user, "action": "pay"});
    let receipt = app.accept(&event);
    app.kill();
    kafka.kill(2);
    let app = app.replica().start_without_waiting_for_kafka();
    within(HEALING, "the others are read", || (app.get("/readyz").status() == 200).then_some(()));
    let ready = app.get("/readyz?verbose").expect(200);
    assert!(ready.text().contains("partition 1 has no leader"), "{}", ready.text());
    app.post(&event).expect(503);
    let answer = thread::scope(|scope| {
        let post = || Some(app.post(&event)).filter(|answer| answer.status() != 503);
        let posts = scope.spawn(move || within(HEALING, "it takes events", post));
        kafka.restart(2);
        posts.join().expect("an answer")
    });
    assert!(replayed(&answer.expect(201)), "it was written a second time");
    assert_eq!(app.post(&event).expect(201).json(), receipt);
}

#[test]
fn an_id_behind_an_open_transaction_is_known_after_the_topic_was_recreated() {
    let topic = Topic::create(kafka::shared(), 1, &[]);
    let app = Application::at(kafka::shared()).topic(&topic).start();
    app.accept(&json!({"user": "Bob", "action": "something of before"}));
    // It notices nothing before the event is written.
    signal(app.process_id(), "STOP");
    topic.delete();
    topic.make(1);
    let replica = app.replica().start();
    let _open = Transaction::begin(&topic, "another", "{}");
    let event = json!({"id": "pay-1", "user": "Bob", "action": "pay"});
    let receipt = replica.accept(&event);
    signal(app.process_id(), "CONT");
    app.log_line("it notices", |line| line["message"] == "the topic was deleted and recreated");
    let post = || Some(app.post(&event)).filter(|answer| answer.status() != 503);
    let answer = within(HEALING, "it takes events", post).expect(201);
    assert!(replayed(&answer), "it was written a second time");
    assert_eq!(answer.json(), receipt);
}

/// The answer is lost, and readers of committed records cannot see whether the event was written.
#[test]
fn an_event_that_was_answered_504_under_an_open_transaction_is_written_once() {
    let kafka = Kafka::start();
    let topic = Topic::create(kafka.servers(), 1, &[]);
    let app = Application::at(kafka.servers()).topic(&topic).env("FOOTFALL_INGEST__DEADLINE", "1s").start();
    let replica = app.replica().start();
    app.accept(&json!({"user": "Bob", "action": "before"}));
    let open = Transaction::begin(&topic, "another", "{}");
    let frozen = kafka.freeze(1);
    let event = json!({"id": "pay-1", "user": "Bob", "action": "pay"});
    app.post(&event).expect(504);
    drop(frozen);
    let taken = |app: &Application| {
        within(HEALING, "the retry is taken", || Some(app.post(&event)).filter(|answer| answer.status() == 201)).json()
    };
    let receipt = taken(&app);
    thread::sleep(OTHER_REPLICA);
    assert_eq!(taken(&replica), receipt);
    open.abort();
    let place = format!("/api/v1/events/0/{}", receipt["offset"]);
    let record =
        within(HEALING, "it can be read", || Some(app.get(&place)).filter(|answer| answer.status() == 200)).json();
    assert_eq!(record["id"], "pay-1");
    assert_eq!(count(&topic, "pay-1"), 1);
}

#[test]
fn an_id_in_an_open_transaction_is_decided_when_the_transaction_ends() {
    let topic = Topic::create(kafka::shared(), 1, &[]);
    let app = Application::at(kafka::shared()).topic(&topic).start();
    for aborts in [true, false] {
        let event = json!({"id": format!("pay-{aborts}"), "user": "Zoe", "action": "pay"});
        let id = event["id"].as_str().expect("an id");
        let open = Transaction::begin(&topic, id, &event.to_string());
        thread::sleep(OTHER_REPLICA);
        let restarted = app.replica().start();
        for app in [&app, &restarted] {
            for body in [event.clone(), json!({"id": id, "user": "Zoe", "action": "something else"})] {
                let problem = app.post(&body).expect(503).problem();
                let detail = problem["detail"].as_str().expect("a detail");
                assert!(detail.contains("open transaction of another writer"), "{detail}");
            }
        }
        app.accept(&json!({"user": "Zoe", "action": "something without an id"}));
        if aborts {
            open.abort();
        } else {
            open.commit();
        }
        let decided =
            |app: &Application| eventually("it is decided", || Some(app.post(&event)).filter(|it| it.status() != 503));
        let answer = decided(&app).expect(201);
        assert_eq!(replayed(&answer), !aborts, "{id}");
        thread::sleep(OTHER_REPLICA);
        assert!(replayed(&decided(&restarted).expect(201)), "{id}");
        assert_eq!(count(&topic, id), 1);
    }
}

#[test]
fn an_id_expires_and_the_retry_is_a_new_event() {
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
        // Records read from the topic are remembered too.
        stream.record();
    }
    assert!(!replayed(&app.post(&event(0)).expect(201)), "the oldest is forgotten");
    assert!(replayed(&app.post(&event(300)).expect(201)), "the newest is known");
}

/// A restarted process must not take a retry for a new event before it has read the topic.
#[test]
fn a_starting_process_accepts_nothing_before_it_knows_the_latest_ids() {
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
fn refused_posts_do_not_evict_written_ids() {
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
fn a_malformed_idempotency_key_is_400() {
    let app = Application::on(Broker::Embedded).start();
    for key in ["two words", "", &"x".repeat(129)] {
        let answer = post_with_key(&app, key, r#"{"user":"Ann","action":"checkout"}"#);
        assert!(matches!(answer.status(), 400 | 422), "{key:?}: {}", answer.status());
        answer.problem();
    }
    assert!(app.topic().records().is_empty());
}
