//! Segment's protocol: its messages become events, and a request is written as a whole or not at all.

use serde_json::{Value, json};

use crate::common::http::Request;
use crate::common::{Application, Broker};

const AUTHORIZATION: &str = "Basic d3JpdGUta2V5Og=="; // write-key:

fn call(app: &Application, call: &str, body: &Value) -> Request {
    app.request("POST", &format!("/v1/{call}")).header("Authorization", AUTHORIZATION).json(body)
}

fn values(app: &Application) -> Vec<Value> {
    let records = app.get("/api/v1/events?from=beginning").expect(200).json();
    records["events"].as_array().expect("events").iter().map(|record| record["value"].clone()).collect()
}

#[test]
fn each_call_is_an_event_with_all_of_its_message() {
    let app = Application::on(Broker::Embedded).start();
    for (name, message, expected) in [
        (
            "track",
            json!({"messageId": "m-1", "userId": "Ann", "event": "Signed Up", "properties": {"plan": "pro"}}),
            json!({"id": "m-1", "user": "Ann", "action": "Signed Up", "type": "track", "properties": {"plan": "pro"}}),
        ),
        (
            "identify",
            json!({"userId": "Ann", "anonymousId": "5a", "traits": {"age": 7}}),
            json!({"user": "Ann", "anonymousId": "5a", "action": "identify", "type": "identify", "traits": {"age": 7}}),
        ),
        (
            "page",
            json!({"userId": null, "anonymousId": "5a", "name": "Home"}),
            json!({"user": "5a", "action": "page", "type": "page", "name": "Home"}),
        ),
        ("screen", json!({"userId": "Ann"}), json!({"user": "Ann", "action": "screen", "type": "screen"})),
        (
            "group",
            json!({"userId": "Ann", "groupId": "g", "timestamp": "2026-11-27T12:00:00.000Z", "writeKey": "secret"}),
            json!({
                "user": "Ann", "action": "group", "type": "group", "groupId": "g", "time": "2026-11-27T12:00:00.000Z",
            }),
        ),
        (
            "alias",
            json!({"userId": "Ann", "previousId": "5a"}),
            json!({"user": "Ann", "action": "alias", "type": "alias", "previousId": "5a"}),
        ),
    ] {
        let before = values(&app).len();
        assert_eq!(call(&app, name, &message).send().expect(200).json(), json!({"success": true}), "{name}");
        let after = values(&app);
        assert_eq!((after.len(), after.contains(&expected)), (before + 1, true), "{name}: {after:?}");
    }
    assert!(
        app.get("/api/v1/events?from=beginning").expect(200).text().contains("\"time\":\"2026-11-27T12:00:00.000Z\"")
    );
}

#[test]
fn a_batch_is_written_once_however_often_it_is_sent() {
    let app = Application::on(Broker::Embedded).start();
    let messages: Vec<Value> = (0..100)
        .map(|n| json!({"type": "track", "messageId": format!("m-{n}"), "userId": "Ann", "event": "Clicked", "n": n}))
        .collect();
    let batch = json!({"batch": messages, "sentAt": "2026-11-27T12:00:00Z", "context": {"library": {"name": "test"}}});
    for _ in 0..3 {
        assert_eq!(call(&app, "batch", &batch).send().expect(200).json(), json!({"success": true}));
    }
    let written = values(&app);
    assert_eq!(written.len(), 100);
    assert!(written.iter().all(|value| value["context"]["library"]["name"] == "test"), "{written:?}");
}

#[test]
fn one_message_that_is_no_event_refuses_its_batch_with_what_the_sdks_read() {
    let app = Application::on(Broker::Embedded).start();
    let good = json!({"type": "track", "messageId": "m-1", "userId": "Ann", "event": "Clicked"});
    for (name, body, status, part) in [
        ("batch", json!({"batch": [good, {"type": "track", "event": "Clicked"}]}), 422, "/user"),
        ("batch", json!({"batch": [good, 7]}), 422, "object"),
        ("batch", json!({"messages": [good]}), 422, "`batch`, an array of messages"),
        ("batch", json!({"batch": []}), 400, "array"),
        ("track", json!([good]), 422, "one message"),
        ("track", json!({"event": "Clicked"}), 422, "/user"),
        ("track", json!({"userId": "Ann", "event": "Clicked", "user": "Bob"}), 422, "user"),
        ("track", json!({"userId": "Ann", "event": "Clicked", "timestamp": "yesterday"}), 422, "/time"),
    ] {
        let answer = call(&app, name, &body).send().expect(status);
        let problem = answer.json();
        assert!(answer.text().contains(part), "{body}: {problem}");
        assert_eq!((&problem["code"], &problem["message"]), (&problem["type"], &problem["detail"]), "{problem}");
    }
    assert_eq!(values(&app), Vec::<Value>::new());
    let text = app.request("POST", "/v1/track").body("text/plain", good.to_string());
    assert!(text.send().expect(415).text().contains("application/json"));
    call(&app, "import", &good).send().expect(404);
    let problem = app.post(&json!({"action": "login"})).expect(422).json();
    assert!(problem.get("code").is_none(), "only Segment's calls have it: {problem}");
}
