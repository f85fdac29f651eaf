//! CloudEvents 1.0.2: over HTTP in all modes, and as records of the topic. The first part has the cases of the HTTP and the
//! Kafka protocol binding of <https://github.com/cloudevents/conformance> (features/*.feature).

use crate::common::http::{Request, Response};
use crate::common::wait::eventually;
use crate::common::{Application, Broker, NewRecord, on_every_broker};
use serde_json::{Value, json};

on_every_broker! {
    conformance_http_binary_content_mode,
    conformance_http_structured_content_mode,
    conformance_kafka_binary_content_mode,
    conformance_kafka_structured_content_mode,
    the_record_is_a_cloud_event_in_binary_mode,
    a_cloud_event_becomes_headers_and_value,
    a_batch_of_cloud_events_is_answered_item_by_item,
    a_cloud_event_in_binary_mode_is_the_same_record,
    a_retry_in_binary_mode_after_a_cut_connection_writes_nothing,
    the_same_id_of_another_source_is_another_event,
}

fn post(app: &Application, content_type: &str, body: impl Into<Vec<u8>>) -> Response {
    app.request("POST", "/api/v1/events").body(content_type, body).send()
}

fn structured(app: &Application, event: &Value) -> Response {
    post(app, "application/cloudevents+json", event.to_string())
}

/// A request in binary mode with the four required attributes, and others.
fn binary(app: &Application, id: &str, headers: &[(&str, &str)], body: &str) -> Request {
    let request = app.request("POST", "/api/v1/events").body("application/json", body);
    let required =
        [("ce-specversion", "1.0"), ("ce-id", id), ("ce-source", "/shop"), ("ce-type", "com.example.checkout")];
    [&required, headers].concat().iter().fold(request, |request, (name, value)| request.header(name, value))
}

fn place(receipt: &Value) -> (i32, i64) {
    let number = |member: &str| receipt[member].as_i64().unwrap_or_else(|| panic!("no {member} in {receipt}"));
    (number("partition") as i32, number("offset"))
}

/// The record as the API has it.
fn read_out(app: &Application, (partition, offset): (i32, i64)) -> Value {
    app.get(&format!("/api/v1/events/{partition}/{offset}")).expect(200).json()
}

// --- The conformance cases -----------------------------------------------------------------------------------------

/// The data of all cases, as they write it.
const HELLO: &str = "{\n    \"message\": \"Hello World!\"\n}";

/// The attributes of all cases except `datacontenttype`, as JSON in a record.
#[track_caller]
fn assert_has_the_attributes(record: &Value) {
    for (member, value) in [
        ("id", "1234-1234-1234"),
        ("type", "com.example.someevent"),
        ("source", "/mycontext/subcontext"),
        ("time", "2018-04-05T03:56:24.000Z"),
    ] {
        assert_eq!(record[member], value, "{member} of {record}");
    }
}

/// The event in structured mode.
fn some_event() -> Value {
    json!({
        "specversion": "1.0",
        "type": "com.example.someevent",
        "time": "2018-04-05T03:56:24Z",
        "id": "1234-1234-1234",
        "source": "/mycontext/subcontext",
        "datacontenttype": "application/json",
        "data": {"message": "Hello World!"},
    })
}

/// The case has neither `subject` nor a user in its data. Footfall needs a user, so the test adds the subject.
fn conformance_http_binary_content_mode(broker: Broker) {
    for content_type in ["application/json", "application/json; charset=utf-8"] {
        let app = Application::on(broker).start();
        let request = app
            .request("POST", "/api/v1/events")
            .header("ce-specversion", "1.0")
            .header("ce-type", "com.example.someevent")
            .header("ce-time", "2018-04-05T03:56:24Z")
            .header("ce-id", "1234-1234-1234")
            .header("ce-source", "/mycontext/subcontext")
            .header("ce-subject", "Ann")
            .body(content_type, HELLO);
        let place = place(&request.send().expect(201).json());
        let record = read_out(&app, place);
        assert_has_the_attributes(&record);
        assert_eq!(record["value"], json!({"message": "Hello World!"}));
        assert_is_written(&app, place, content_type);
        assert_eq!(app.topic().record_at(place.0, place.1).text(), HELLO);
    }
}

/// As a record in binary mode of the Kafka protocol binding.
#[track_caller]
fn assert_is_written(app: &Application, (partition, offset): (i32, i64), content_type: &str) {
    let record = app.topic().record_at(partition, offset);
    for (name, value) in [
        ("ce_specversion", "1.0"),
        ("ce_id", "1234-1234-1234"),
        ("ce_type", "com.example.someevent"),
        ("ce_source", "/mycontext/subcontext"),
        ("ce_time", "2018-04-05T03:56:24Z"),
        ("content-type", content_type),
    ] {
        assert_eq!(record.header(name), Some(value), "{name}");
    }
    assert_eq!(record.json(), json!({"message": "Hello World!"}));
}

/// With the subject, as in binary mode.
fn conformance_http_structured_content_mode(broker: Broker) {
    for content_type in ["application/cloudevents+json", "application/cloudevents+json; charset=utf-8"] {
        let app = Application::on(broker).start();
        let mut event = some_event();
        event["subject"] = json!("Ann");
        let place = place(&post(&app, content_type, event.to_string()).expect(201).json());
        let record = read_out(&app, place);
        assert_has_the_attributes(&record);
        assert_eq!(record["value"], json!({"message": "Hello World!"}));
        assert_is_written(&app, place, "application/json");
    }
}

fn conformance_kafka_binary_content_mode(broker: Broker) {
    let app = Application::on(broker).start();
    let written = NewRecord::new()
        .value(r#"{"message": "Hello World!"}"#)
        .header("ce_specversion", "1.0")
        .header("ce_id", "1234-1234-1234")
        .header("ce_type", "com.example.someevent")
        .header("ce_source", "/mycontext/subcontext")
        .header("ce_time", "2018-04-05T03:56:24Z")
        .header("content-type", "application/json");
    let mut stream = app.stream("");
    let record = read_out(&app, app.topic().produce(&written));
    assert_has_the_attributes(&record);
    assert_eq!(record["value"], json!({"message": "Hello World!"}));
    assert_eq!(record.get("headers"), None, "other members tell them: {record}");
    assert_eq!(stream.record(), record);
}

fn conformance_kafka_structured_content_mode(broker: Broker) {
    for content_type in ["application/cloudevents+json", "application/cloudevents+json; charset=utf-8"] {
        let app = Application::on(broker).start();
        let mut stream = app.stream("");
        let written = NewRecord::new().value(some_event().to_string()).header("content-type", content_type);
        let record = read_out(&app, app.topic().produce(&written));
        assert_has_the_attributes(&record);
        assert_eq!(record["value"], some_event());
        assert_eq!(stream.record(), record);
    }
}

// --- What is written -----------------------------------------------------------------------------------------------

fn the_record_is_a_cloud_event_in_binary_mode(broker: Broker) {
    let app = Application::on(broker).start();
    let receipt = app.accept(&json!({"user": "John", "action": "login"}));
    let record = app.topic().records().remove(0);
    let mut names: Vec<&str> = record.headers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["ce_id", "ce_source", "ce_specversion", "ce_time", "ce_type", "content-type"]);
    assert_eq!(record.header("ce_specversion"), Some("1.0"));
    assert_eq!(record.header("ce_source"), Some("/footfall"));
    assert_eq!(record.header("ce_type"), Some("footfall.user_activity"));
    assert_eq!(record.header("content-type"), Some("application/json"));
    assert_eq!(record.header("ce_time"), receipt["time"].as_str());
    let id: uuid::Uuid = record.header("ce_id").and_then(|id| id.parse().ok()).expect("a UUID");
    assert_eq!(id.get_version_num(), 7);
    assert_eq!(record.key.as_deref(), Some(&b"John"[..]));
}

fn a_cloud_event_becomes_headers_and_value(broker: Broker) {
    let app = Application::on(broker).start();
    let body = r#"{"specversion":"1.0","id":"order-977","source":"/shop","type":"com.example.checkout","time":"2026-01-02T03:04:05Z",
        "datacontenttype":"application/json","tenant":"blue","attempt":3,"data":{"user":"Ann",  "action":"checkout"}}"#;
    let receipt = post(&app, "application/cloudevents+json", body).expect(201).json();
    assert_eq!((&receipt["id"], &receipt["time"]), (&json!("order-977"), &json!("2026-01-02T03:04:05.000Z")));
    let record = app.topic().records().remove(0);
    assert_eq!(record.text(), r#"{"user":"Ann",  "action":"checkout"}"#);
    assert_eq!(record.key.as_deref(), Some(&b"Ann"[..]));
    for (name, value) in [
        ("ce_specversion", "1.0"),
        ("ce_id", "order-977"),
        ("ce_source", "/shop"),
        ("ce_type", "com.example.checkout"),
        ("ce_time", "2026-01-02T03:04:05Z"),
        ("ce_tenant", "blue"),
        ("ce_attempt", "3"),
        ("content-type", "application/json"),
    ] {
        assert_eq!(record.header(name), Some(value), "{name}");
    }
}

fn a_batch_of_cloud_events_is_answered_item_by_item(broker: Broker) {
    let app = Application::on(broker).start();
    let event = |id: &str| json!({"specversion": "1.0", "id": id, "source": "/shop", "type": "t", "data": {"user": "Ann", "action": "b"}});
    let batch = |events: Value| post(&app, "application/cloudevents-batch+json", events.to_string());
    let answer = batch(json!([event("one"), {"specversion": "1.0", "id": "two"}, event("three")])).expect(207).json();
    let statuses: Vec<u64> =
        answer["results"].as_array().expect("results").iter().filter_map(|r| r["status"].as_u64()).collect();
    assert_eq!(statuses, [201, 422, 201]);
    let pointers: Vec<&str> = answer["results"][1]["problem"]["errors"]
        .as_array()
        .expect("errors")
        .iter()
        .filter_map(|error| error["pointer"].as_str())
        .collect();
    assert_eq!(pointers, ["/source", "/type", "/data"]);
    batch(json!([event("four"), event("five")])).expect(201);
    assert_eq!(app.topic().records().len(), 4);
    // One event is no batch, and a batch is no event.
    batch(event("six")).expect(422).problem();
    post(&app, "application/cloudevents+json", json!([event("seven")]).to_string()).expect(422).problem();
}

fn a_cloud_event_in_binary_mode_is_the_same_record(broker: Broker) {
    let app = Application::on(broker).start();
    let data = r#"{"user":"Ann",  "action":"checkout"}"#;
    let headers = [
        ("ce-time", "2026-01-02T03:04:05Z"),
        ("ce-subject", "Zo%C3%AB%20%25"),
        ("ce-dataschema", "https://example.com/schema.json"),
        ("ce-tenant", "\"blue \\\"green\\\"\""),
        ("CE-Attempt", "3"),
    ];
    let receipt = binary(&app, "order-977", &headers, data).send().expect(201).json();
    assert_eq!((&receipt["id"], &receipt["time"]), (&json!("order-977"), &json!("2026-01-02T03:04:05.000Z")));
    let record = app.topic().records().remove(0);
    assert_eq!(record.text(), data);
    assert_eq!(record.key.as_deref(), Some(&b"Ann"[..]));
    let mut headers: Vec<(&str, Option<&str>)> =
        record.headers.iter().map(|(name, _)| (name.as_str(), record.header(name))).collect();
    headers.sort_unstable();
    assert_eq!(
        headers,
        [
            ("ce_attempt", Some("3")),
            ("ce_dataschema", Some("https://example.com/schema.json")),
            ("ce_id", Some("order-977")),
            ("ce_source", Some("/shop")),
            ("ce_specversion", Some("1.0")),
            ("ce_subject", Some("Zoë %")),
            ("ce_tenant", Some("blue \"green\"")),
            ("ce_time", Some("2026-01-02T03:04:05Z")),
            ("ce_type", Some("com.example.checkout")),
            ("content-type", Some("application/json")),
        ]
    );
}

#[test]
fn the_content_type_of_binary_mode_is_any_json_or_none() {
    let app = Application::on(Broker::Embedded).start();
    let send = |id: &str, content_type: Option<&str>| {
        let request = app.request("POST", "/api/v1/events").body_only(r#"{"user":"Ann","action":"checkout"}"#);
        let request = request.header("ce-specversion", "1.0").header("ce-id", id).header("ce-source", "/shop");
        let request = request.header("ce-type", "t");
        content_type.into_iter().fold(request, |request, text| request.header("Content-Type", text)).send()
    };
    for (id, content_type) in [
        ("one", "application/json"),
        ("two", "application/vnd.shop+json"),
        ("three", "Application/JSON; charset=utf-8"),
    ] {
        let (partition, offset) = place(&send(id, Some(content_type)).expect(201).json());
        assert_eq!(app.topic().record_at(partition, offset).header("content-type"), Some(content_type));
    }
    // Without one the data is JSON (the Python SDK sends that unless `datacontenttype` is set).
    let (partition, offset) = place(&send("four", None).expect(201).json());
    assert_eq!(app.topic().record_at(partition, offset).header("ce_id"), Some("four"));
    for content_type in ["text/plain", "application/xml", "application/x-www-form-urlencoded"] {
        send("five", Some(content_type)).expect(415).problem();
    }
    assert_eq!(app.topic().records().len(), 4);
}

#[test]
fn subject_and_type_replace_missing_user_and_action() {
    let app = Application::on(Broker::Embedded).start();
    let mut stream = app.stream("?user=Ann&action=com.example.paid");
    let event = |id: &str, data: Value| json!({"specversion": "1.0", "id": id, "source": "/shop", "type": "com.example.paid", "subject": "Ann", "data": data});
    let receipt = structured(&app, &event("one", json!({"total": 3}))).expect(201).json();
    assert_eq!((&stream.record()["id"], place(&receipt)), (&json!("one"), place(&receipt)));
    let record = app.topic().records().remove(0);
    assert_eq!((record.key.as_deref(), record.text()), (Some(&b"Ann"[..]), r#"{"total":3}"#));
    let headers = [("ce-subject", "Ann")];
    let request = binary(&app, "two", &headers, r#"{"action":"com.example.paid"}"#);
    request.send().expect(201);
    assert_eq!(stream.record()["id"], "two");
    // The data's own members take precedence.
    structured(&app, &event("three", json!({"user": "Bob", "action": "login"}))).expect(201);
    let found = app.get("/api/v1/events?from=beginning&user=Bob&action=login").expect(200).json();
    assert_eq!(found["events"][0]["id"], "three");
    assert_eq!(found["events"].as_array().map(Vec::len), Some(1));
    let ann = app.get("/api/v1/events?from=beginning&user=Ann").expect(200).json();
    assert_eq!(ann["events"].as_array().map(Vec::len), Some(2));
    // Nothing replaces a member that the data has and that is invalid.
    let problem = structured(&app, &event("four", json!({"user": 7}))).expect(422).problem();
    assert_eq!(problem["errors"][0]["pointer"], "/data/user");
    // An event without a user anywhere has none.
    let problem = binary(&app, "five", &[], r#"{"action":"x"}"#).send().expect(422).problem();
    assert_eq!(problem["type"], "/problems/invalid-event");
}

// --- Attributes ----------------------------------------------------------------------------------------------------

#[test]
fn an_attribute_that_is_null_is_not_set() {
    let app = Application::on(Broker::Embedded).start();
    let event = json!({
        "specversion": "1.0", "id": "one", "source": "/shop", "type": "t", "subject": null, "time": null,
        "datacontenttype": null, "dataschema": null, "tenant": null, "data_base64": null,
        "data": {"user": "Ann", "action": "checkout"},
    });
    structured(&app, &event).expect(201);
    let record = app.topic().records().remove(0);
    for name in ["ce_subject", "ce_dataschema", "ce_tenant"] {
        assert_eq!(record.header(name), None, "{name}");
    }
    assert_eq!(record.header("content-type"), Some("application/json"));
    assert!(record.header("ce_time").is_some(), "the time is the server's");
    for required in ["specversion", "id", "source", "type", "data"] {
        let mut event = event.clone();
        event[required] = Value::Null;
        let problem = structured(&app, &event).expect(422).problem();
        assert_eq!(problem["errors"][0]["pointer"], format!("/{required}"), "{problem}");
    }
}

#[test]
fn an_attribute_that_is_empty_or_malformed_is_422_and_named() {
    let app = Application::on(Broker::Embedded).start();
    for (attribute, value) in [
        ("specversion", "0.3"),
        ("specversion", ""),
        ("id", ""),
        ("source", ""),
        ("source", "a b"),
        ("type", ""),
        ("subject", ""),
        ("dataschema", ""),
        ("dataschema", "/no-scheme"),
        ("time", ""),
        ("time", "noon"),
        ("Upper", "x"),
        ("under_score", "x"),
    ] {
        let mut event = json!({
            "specversion": "1.0", "id": "one", "source": "/shop", "type": "t",
            "data": {"user": "Ann", "action": "checkout"},
        });
        event[attribute] = json!(value);
        let problem = structured(&app, &event).expect(422).problem();
        let found: Vec<&Value> =
            problem["errors"].as_array().into_iter().flatten().map(|error| &error["pointer"]).collect();
        assert_eq!(found, [&json!(format!("/{attribute}"))], "{attribute}={value:?}: {problem}");
    }
    assert!(app.topic().records().is_empty());
}

#[test]
fn an_error_in_binary_mode_is_422_and_names_the_header() {
    let app = Application::on(Broker::Embedded).start();
    const DATA: &str = r#"{"user":"Ann","action":"checkout"}"#;
    let error_of = |request: Request| request.send().expect(422).problem()["errors"][0]["detail"].to_string();
    for (header, value) in [
        ("ce-subject", ""),
        ("ce-dataschema", ""),
        ("ce-time", "noon"),
        ("ce-id", "two"),
        ("ce-tenant", "%ff"),
        ("ce-under_score", "x"),
        ("ce-data", "x"),
        ("ce-datacontenttype", "application/json"),
    ] {
        let detail = error_of(binary(&app, "one", &[(header, value)], DATA));
        assert!(detail.contains(&format!("`{header}`")), "{header}: {detail}");
    }
    for missing in ["ce-specversion", "ce-id", "ce-source", "ce-type"] {
        let mut request = app.request("POST", "/api/v1/events").body("application/json", DATA);
        for (name, value) in [("ce-specversion", "1.0"), ("ce-id", "one"), ("ce-source", "/shop"), ("ce-type", "t")] {
            if name != missing {
                request = request.header(name, value);
            }
        }
        let detail = error_of(request);
        assert!(detail.contains(&format!("`{missing}` is missing")), "{missing}: {detail}");
    }
    let names: Vec<String> = (0..65).map(|n| format!("ce-x{n}")).collect();
    let extensions: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    binary(&app, "two", &extensions[..64], DATA).send().expect(201);
    assert!(error_of(binary(&app, "three", &extensions, DATA)).contains("64 extensions"));
    assert_eq!(app.topic().records().len(), 1);
}

// --- Identity ------------------------------------------------------------------------------------------------------

fn a_retry_in_binary_mode_after_a_cut_connection_writes_nothing(broker: Broker) {
    let app = Application::on(broker).start();
    let request = || binary(&app, "order-977", &[], r#"{"user":"Ann","action":"checkout"}"#);
    let connection = request().open();
    eventually("the event is written", || (app.topic().records().len() == 1).then_some(()));
    drop(connection);
    let answer = request().send().expect(201);
    assert_eq!(answer.header("Idempotent-Replayed"), Some("true"));
    assert_eq!(answer.json()["id"], "order-977");
    // The same event in structured mode too: its data has the same bytes.
    let event = r#"{"specversion":"1.0","id":"order-977","source":"/shop","type":"com.example.checkout","data":{"user":"Ann","action":"checkout"}}"#;
    let answer = post(&app, "application/cloudevents+json", event).expect(201);
    assert_eq!(answer.header("Idempotent-Replayed"), Some("true"));
    assert_eq!(app.topic().records().len(), 1);
    // Other data with the same id is rejected.
    let problem = binary(&app, "order-977", &[], r#"{"user":"Ann","action":"other"}"#).send().expect(422).problem();
    assert_eq!(problem["type"], "/problems/id-reused");
}

fn the_same_id_of_another_source_is_another_event(broker: Broker) {
    let app = Application::on(broker).start();
    let event = |source: &str, action: &str| json!({"specversion": "1.0", "id": "order-977", "source": source, "type": "t", "data": {"user": "Ann", "action": action}});
    let replayed = |answer: &Response| answer.header("Idempotent-Replayed") == Some("true");
    assert!(!replayed(&structured(&app, &event("/shop", "checkout")).expect(201)));
    assert!(!replayed(&structured(&app, &event("/other", "something else")).expect(201)));
    // An event that is not a CloudEvent has the configured source.
    let plain = json!({"id": "order-977", "user": "Ann", "action": "plain"});
    app.accept(&plain);
    assert_eq!(app.topic().records().len(), 3);
    for source in ["/shop", "/other"] {
        let action = if source == "/shop" { "checkout" } else { "something else" };
        assert!(replayed(&structured(&app, &event(source, action)).expect(201)), "{source}");
        structured(&app, &event(source, "changed")).expect(422).problem();
    }
    assert!(replayed(&app.post(&plain).expect(201)));
    assert_eq!(app.topic().records().len(), 3);
    // The same applies to records of other writers.
    let foreign = NewRecord::event("Ann", "foreign").header("ce_id", "foreign-1").header("ce_source", "/foreign");
    let place = app.topic().produce(&foreign);
    eventually("the record is read", || (app.stream("?last=1").record()["id"] == "foreign-1").then_some(()));
    let mut ours = event("/foreign", "ours");
    ours["id"] = json!("foreign-1");
    structured(&app, &ours).expect(422).problem();
    ours["source"] = json!("/shop");
    structured(&app, &ours).expect(201);
    assert_eq!(read_out(&app, place)["source"], "/foreign");
}
