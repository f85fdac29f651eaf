//! The tutorial's two Python programs, unchanged: they read what Footfall writes, and Footfall reads what they write.

use std::path::Path;
use std::process::Command;

use crate::common::{Application, Broker, Process};
use serde_json::{Value, json};

fn python(script: &str) -> Command {
    let mut command = crate::common::python::command();
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(script));
    command
}

#[test]
fn the_tutorials_consumer_reads_what_footfall_writes() {
    let app = Application::on(Broker::Kafka).start();
    let sent = app
        .request("POST", "/send-message/")
        .body("application/json", r#"{"user":"John","action":"login"}"#)
        .send()
        .expect(200);
    assert_eq!(sent.json(), json!({"message": "Sent to Kafka!"}));
    app.accept(&json!({"user": "Zoë", "action": "check out", "total": 31.5}));
    app.request("POST", "/events").form(&[("user", "Ann"), ("action", "form"), ("details", "")]).send().expect(303);

    let consumer = Process::start(python("consumer.py").args([app.topic().servers(), app.topic().name()]));
    let mut messages: Vec<Value> =
        consumer.some_lines(3).iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    messages.sort_by_key(|message| message["key"].to_string());
    let values: Vec<&Value> = messages.iter().map(|message| &message["value"]).collect();
    assert_eq!(
        values,
        [
            &json!({"user": "Ann", "action": "form"}),
            &json!({"user": "John", "action": "login"}),
            &json!({"user": "Zoë", "action": "check out", "total": 31.5}),
        ]
    );
    for message in &messages {
        assert_eq!(message["key"], message["value"]["user"]);
        assert_eq!(message["headers"]["content-type"], "application/json");
    }
    // It keeps running and gets later records.
    app.accept(&json!({"user": "Ann", "action": "later"}));
    assert!(consumer.line().contains("later"));
}

#[test]
fn records_of_the_tutorials_producer_are_in_the_feed() {
    let app = Application::on(Broker::Kafka).start();
    let mut stream = app.stream("");
    let users = ["John", "Ann", "Zoë", "user-4711", ""];
    let producer = Process::start(python("producer.py").args([app.topic().servers(), app.topic().name()]).args(users));
    // There is no order between partitions.
    let records: Vec<Value> = (0..=users.len()).map(|_| stream.record()).collect();
    let first = records.iter().find(|record| record["key"].is_null()).expect("the one without a key");
    assert_eq!(first["value"], json!({"user": "John", "action": "login"}));
    assert_eq!((&first["id"], &first["time"]), (&Value::Null, &first["timestamp"]));
    for user in users {
        let theirs = |record: &&Value| record["value"]["user"] == user && record["key"] == user;
        assert_eq!(records.iter().filter(theirs).count(), 1, "{user}: {records:?}");
    }
    // One user's events are in one partition, whichever of the two wrote them.
    for (user, line) in users.iter().zip(producer.some_lines(users.len())).filter(|(user, _)| !user.is_empty()) {
        let theirs: Value = serde_json::from_str(&line).expect("JSON");
        let ours = app.accept(&json!({"user": user, "action": "logout"}));
        assert_eq!(ours["partition"], theirs["partition"], "{user}");
    }
    let page = app.request("GET", "/?user=John").header("Accept", "text/html").send().expect(200);
    assert!(page.text().contains("John"), "{}", page.text());
}
