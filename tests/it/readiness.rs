//! `/readyz`, the metrics, the page and the answer to a post report the same about Kafka, and correctly: whatever
//! rights are missing, whatever the topic rejects, and whenever that changes.

use std::time::Duration;

use crate::common::acl::{DESCRIBE, DESCRIBE_CONFIGS, READ, WRITE};
use crate::common::wait::{eventually, within};
use crate::common::{Application, HEALING, Kafka, NewRecord, Topic, User, kafka};
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, FromClientConfig};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};

fn event() -> Value {
    json!({"user": "Ann", "action": "look"})
}

/// Waits until `/readyz` is 503 for this cause; gives its sentence.
#[track_caller]
fn unready(app: &Application, cause: &str) -> String {
    let ready = within(HEALING, &format!("not ready: {cause}"), || {
        let answer = app.get("/readyz");
        (answer.status() == 503 && answer.text().contains(&format!("{cause}: "))).then_some(answer)
    });
    let line = ready.text().lines().find_map(|line| line.strip_prefix(&format!("{cause}: ")));
    line.expect("the sentence").to_owned()
}

/// Waits until a post is accepted, and checks that `/readyz` agrees.
#[track_caller]
fn recovers(app: &Application) {
    within(HEALING, "a post is taken", || (app.post(&event()).status() == 201).then_some(()));
    within(HEALING, "it is ready", || (app.get("/readyz").text() == "ok\n").then_some(()));
    app.get("/readyz").expect(200);
    assert_eq!(app.metric("footfall_ready"), Some(1.0));
}

/// Checks that a post is rejected with this sentence, for a reason other than the event.
#[track_caller]
fn refused(app: &Application, words: &str) {
    for body in [event(), json!([event(), event()])] {
        let answer = app.post(&body).expect(503);
        assert!(answer.text().contains(words) && answer.text().contains("\"retryable\":true"), "{}", answer.text());
    }
}

#[test]
fn rights_granted_and_revoked_at_run_time_are_reported_and_recover() {
    let (kafka, secured) = Kafka::start_with_acls();
    let topic = Topic::create(kafka.servers(), 1, &[]);
    let name = topic.name();
    let user = User::create(kafka.servers(), "app", "one");

    // Nothing is granted at first; then one right after the other.
    let app = Application::at(&secured).login(&user, "one").topic(&topic).start_without_waiting_for_kafka();
    let words = unready(&app, "describe-denied");
    assert_eq!(words, format!("user `app` may not see topic `{name}`: grant DESCRIBE, READ and WRITE on it"));
    refused(&app, &words);
    user.grant(name, &[DESCRIBE]);
    let words = unready(&app, "read-denied");
    assert_eq!(words, format!("user `app` may not read topic `{name}`: grant READ on it"));
    user.grant(name, &[READ]);
    let words = unready(&app, "write-denied");
    assert_eq!(words, format!("user `app` may not write topic `{name}`: grant WRITE on it"));
    refused(&app, &words);
    assert_eq!(app.metric("footfall_ready"), Some(0.0));
    assert_eq!(app.metric("footfall_trouble{cause=\"write-denied\"}"), Some(1.0));
    let page = app.request("GET", "/").header("Accept", "text/html").send().expect(200);
    assert!(page.text().contains(&format!("Kafka connected, but {words}")), "{}", page.text());
    app.log_line("the log says it", |line| line["cause"] == "write-denied" && line["reason"] == words.as_str());
    user.grant(name, &[WRITE]);
    recovers(&app);
    // Reading needs no right to a consumer group.
    app.get("/api/v1/events").expect(200);
    assert!(!app.log().iter().any(|line| line.to_string().contains("Group authorization")), "{:?}", app.log());

    // WRITE is revoked and granted. Streams continue, and records of other producers are read.
    user.revoke(name, &[WRITE]);
    within(HEALING, "a post is refused", || (app.post(&event()).status() == 503).then_some(()));
    refused(&app, &unready(&app, "write-denied"));
    let mut stream = app.stream("");
    topic.produce(&NewRecord::event("Bob", "elsewhere"));
    assert_eq!(stream.record()["value"]["action"], "elsewhere");
    user.grant(name, &[WRITE]);
    recovers(&app);

    // READ is revoked and granted. Posts are written, and streams get them later.
    user.revoke(name, &[READ]);
    unready(&app, "read-denied");
    app.accept(&json!({"user": "Ann", "action": "unread"}));
    user.grant(name, &[READ]);
    recovers(&app);
    let unread = |stream: &mut crate::common::Subscription| stream.record()["value"]["action"] == "unread";
    eventually("the stream gets it", || unread(&mut stream).then_some(()));

    // The brokers accept smaller batches, and the setting is not visible: small events are still written.
    user.grant(name, &[DESCRIBE_CONFIGS]);
    let brokers = ["configs", "--alter", "--entity-type", "brokers", "--entity-default", "--add-config"];
    for (limit, may_ask) in [("100000", true), ("20000", false)] {
        if !may_ask {
            user.revoke(name, &[DESCRIBE_CONFIGS]);
        }
        kafka::tool(kafka.servers(), &[&brokers[..], &[&format!("message.max.bytes={limit}")]].concat());
        let first = topic.records().len();
        let pad = "y".repeat(600);
        let many: Vec<Value> =
            (0..300).map(|n| json!({"user": "Mia", "action": "small", "n": n, "pad": pad})).collect();
        app.post(&many.into()).expect(201);
        let mut numbers: Vec<Option<u64>> =
            topic.records()[first..].iter().map(|record| record.json()["n"].as_u64()).collect();
        // Each once. Their order is kept unless librdkafka makes several batches of them and the first one is too large:
        // docs/guarantees.md, "What is not promised".
        numbers.sort_unstable();
        assert_eq!(numbers, (0..300).map(Some).collect::<Vec<_>>(), "{limit}");
        let large = json!({"user": "Mia", "action": "large", "pad": "z".repeat(25_000)});
        app.post(&large).expect(if may_ask { 201 } else { 422 });
        assert_eq!(app.get("/readyz").expect(200).text(), "ok\n");
    }

    // All of them are revoked and granted.
    user.revoke(name, &[DESCRIBE, READ, WRITE]);
    unready(&app, "describe-denied");
    user.grant(name, &[DESCRIBE, READ, WRITE]);
    recovers(&app);
    assert_eq!(app.panics(), Vec::<String>::new());

    // The password changes: existing connections stay, new ones get the reason.
    user.set_password("two");
    let late = Application::at(&secured).login(&user, "one").topic(&topic).start_without_waiting_for_kafka();
    let words = unready(&late, "login-failed");
    assert!(words.contains("uthentication failed"), "{words}");
    refused(&late, &words);
    user.set_password("one");
    recovers(&late);
}

/// Sets configurations of a topic.
fn configure(topic: &Topic, entries: &[(&str, &str)]) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", topic.servers());
    let admin: AdminClient<DefaultClientContext> = AdminClient::from_config(&config).expect("an admin client");
    let mut change = AlterConfig::new(ResourceSpecifier::Topic(topic.name()));
    for (name, value) in entries {
        change = change.set(name, value);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let changed = runtime.block_on(admin.alter_configs(&[change], &AdminOptions::new())).expect("an answer");
    changed.into_iter().for_each(|changed| drop(changed.expect("changed")));
}

#[test]
fn an_event_is_rejected_for_its_own_size_only() {
    let topic = Topic::create(kafka::shared(), 1, &[("max.message.bytes", "100000")]);
    let app = Application::at(kafka::shared()).topic(&topic).start();
    let many = |action: &str| -> Vec<Value> {
        let pad = "y".repeat(600);
        (0..300).map(|n| json!({"user": "Mia", "action": action, "n": n, "pad": pad})).collect()
    };
    let numbers = || -> Vec<Value> { topic.records().iter().map(|record| record.json()["n"].clone()).collect() };
    let expected: Vec<Value> = (0..300).map(Value::from).collect();
    app.post(&many("known").into()).expect(201);
    assert_eq!(numbers(), expected, "in their order");

    // The limit is lowered at run time, and no write has shown that yet.
    configure(&topic, &[("max.message.bytes", "20000")]);
    app.post(&many("smaller").into()).expect(201);
    assert_eq!(numbers()[300..], expected, "in their order");

    // An event that is too large for the topic is rejected alone, whatever is in its batch, and its id stays free.
    let large = json!({"id": "large", "user": "Mia", "action": "large", "pad": "z".repeat(25_000)});
    let mut beside = many("beside")[..20].to_vec();
    beside.insert(10, large.clone());
    let results = app.post(&beside.into()).expect(207).json();
    for (index, result) in results["results"].as_array().expect("results").iter().enumerate() {
        assert_eq!(result["status"], if index == 10 { 422 } else { 201 }, "{index}: {result}");
    }
    assert!(results.to_string().contains("max.message.bytes"), "{results}");
    let expected: Vec<Value> = (0..20).map(Value::from).collect();
    assert_eq!(numbers()[600..], expected, "in their order");
    app.post(&large).expect(422);
    configure(&topic, &[("max.message.bytes", "100000")]);
    eventually("it is taken", || (app.post(&large).status() == 201).then_some(()));
}

#[test]
fn a_topic_that_rejects_our_timestamps_is_503_with_its_settings() {
    let topic = Topic::create(kafka::shared(), 1, &[]);
    let app = Application::at(kafka::shared()).topic(&topic).start();
    app.accept(&event());
    // The broker considers all of our records too old.
    configure(&topic, &[("message.timestamp.before.max.ms", "0")]);
    within(HEALING, "posts are refused", || (app.post(&event()).status() == 503).then_some(()));
    let words = unready(&app, "clock-refused");
    assert!(words.contains(topic.name()) && words.contains("clock"), "{words}");
    let one = app.post(&event());
    let many = app.post(&vec![event(); 100].into());
    // A record that reaches the broker within its millisecond is accepted.
    for answer in [one, many] {
        assert!([503, 201, 207].contains(&answer.status()), "{}", answer.text());
        assert!(!answer.text().contains("422"), "{}", answer.text());
    }
    configure(&topic, &[("message.timestamp.before.max.ms", "9223372036854775807")]);
    recovers(&app);
}

#[test]
fn a_partition_that_a_transaction_holds_up_is_named() {
    let topic = Topic::create(kafka::shared(), 1, &[]);
    let app = Application::at(kafka::shared()).topic(&topic).start();
    app.accept(&event());
    let writer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka::shared())
        .set("transactional.id", crate::common::unique("held-up"))
        .create()
        .expect("a producer");
    writer.init_transactions(Duration::from_secs(20)).expect("a coordinator");
    writer.begin_transaction().expect("a transaction");
    writer.send(BaseRecord::to(topic.name()).key("Zoe").payload("{}")).expect("room in the queue");
    writer.flush(Duration::from_secs(20)).expect("a receipt");
    app.accept(&json!({"user": "Ann", "action": "behind it"}));

    let words = "partition 0 can be read up to offset 1 only: a transaction of another writer is open";
    within(HEALING, "it is named", || app.get("/readyz?verbose").expect(200).text().contains(words).then_some(()));
    assert!(app.get("/readyz").expect(200).text().starts_with("ok\nheld-up: partition 0"));
    assert_eq!(app.metric("footfall_partition_held_up_records{partition=\"0\"}"), Some(2.0));
    let page = app.request("GET", "/kafka").header("Accept", "text/html").send().expect(200);
    assert!(page.text().contains(words), "{}", page.text());
    app.accept(&json!({"user": "Ann", "action": "posts are taken"}));

    writer.abort_transaction(Duration::from_secs(20)).expect("an end");
    recovers(&app);
    // The mark of the transaction is no record that waits.
    within(HEALING, "no lag", || (app.metric("footfall_tail_lag_records") == Some(0.0)).then_some(()));
}
