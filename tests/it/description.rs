//! The description of the API, `/api/openapi.json`: Schemathesis makes valid requests out of it, and invalid ones of
//! every kind, and it is complete.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use crate::common::event_stream::{Frame, Parser, SseMessage};
use crate::common::http::Response;
use crate::common::wait::PATIENCE;
use crate::common::{Application, Broker, Description, NewRecord};
use serde_json::{Value, json};

/// Number of generated requests for each operation, in addition to those at the limits of the schemas.
const MADE_UP: &str = "15";

fn python(file: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(file)
}

/// With Apache Kafka, because the embedded broker does not support everything described. Streams end after a second.
#[test]
fn every_answer_is_one_that_the_description_has() {
    let app = Application::on(Broker::Kafka)
        .env("FOOTFALL_FEED__MAX_AGE", "1s")
        .env("FOOTFALL_FEED__HEARTBEAT", "100ms")
        .start();
    for user in ["John", "Ann"] {
        app.accept(&json!({"user": user, "action": "login", "page": "/cart"}));
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let base = format!("http://{}", app.address);
    // The same requests each time: the result of a run must not depend on chance.
    let run = crate::common::python::command()
        .current_dir(folder.path())
        .env("SCHEMATHESIS_HOOKS", python("hooks.py"))
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(python("schemathesis.toml"))
        .args(["run", &format!("{base}/api/openapi.json"), "--url", &base, "--no-color", "--seed", "1"])
        .args(["--max-examples", MADE_UP])
        .stdin(Stdio::null())
        .output()
        .expect("Python can be run");
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}\n{}", String::from_utf8_lossy(&run.stderr));
    let word_before = |word: &str| {
        let line = said.lines().find(|line| line.contains(word)).unwrap_or_else(|| panic!("no word of {word}: {said}"));
        let words: Vec<&str> = line.split_whitespace().collect();
        let place = words.iter().position(|found| *found == word).expect("the word");
        words[place - 1].parse::<usize>().expect("a number")
    };
    assert!(word_before("generated,") > 1000, "it did little: {said}");
    // From a receipt to its record, the record's page, its user and so on.
    assert!(word_before("covered") >= 3, "it followed few links: {said}");
    app.post(&json!({"user": "John", "action": "logout"})).expect(201);
}

fn description() -> Value {
    serde_json::from_str(include_str!("../../docs/openapi.json")).expect("JSON")
}

/// Answers of the server or the guards, before every route.
#[test]
fn every_operation_has_the_answers_that_any_route_may_give() {
    let description = description();
    let mut operations = 0;
    for (path, methods) in description["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            operations += 1;
            let answers = operation["responses"].as_object().expect("responses");
            for status in ["400", "403", "405", "408", "413", "414", "421", "431", "500", "503"] {
                assert!(answers.contains_key(status), "{method} {path} does not have {status}");
            }
        }
    }
    assert!(operations > 20, "{operations}");
}

#[test]
fn every_type_of_problem_is_in_the_documentation() {
    let description = description();
    let types = description["components"]["schemas"]["ProblemType"]["enum"].as_array().expect("types");
    let described: BTreeSet<String> =
        types.iter().map(|text| text.as_str().expect("text").trim_start_matches("/problems/").to_owned()).collect();
    assert!(described.len() > 15 && described.contains("id-reused"), "{described:?}");
    let documentation = include_str!("../../docs/api.md");
    let documented: BTreeSet<String> = documentation
        .lines()
        .skip_while(|line| *line != "#### Types of problems")
        .filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned()))
        .take_while(|slug| described.contains(slug))
        .collect();
    assert_eq!(documented, described);
}

#[test]
fn every_example_fits_its_schema() {
    let (described, description) = (description(), Description::read());
    let schemas = described["components"]["schemas"].as_object().expect("schemas");
    let examples: Vec<(&String, &Value)> = schemas
        .iter()
        .flat_map(|(name, schema)| schema["examples"].as_array().into_iter().flatten().map(move |value| (name, value)))
        .collect();
    assert!(examples.len() > 15, "{examples:?}");
    for (name, value) in examples {
        description.expect(name, value);
    }
}

/// Records of other programs, with every member that a record may have.
fn foreign_records() -> [NewRecord; 3] {
    [
        NewRecord::new().key("Ann"),
        NewRecord::new().key(vec![255]).value(vec![0, 159]).header("text", "1").header("bytes", vec![255]),
        NewRecord::event("Ann", "login").header("twice", "1").header("twice", "2").null_header("null"),
    ]
}

#[test]
fn every_answer_about_a_posted_event_fits_its_schema() {
    let (app, description) = (Application::on(Broker::Embedded).start(), Description::read());
    app.topic().produce_all(&foreign_records());
    let check = |operation: &str, response: Response, status: u16| {
        description.expect_answer(operation, &response.expect(status))
    };
    let post = |target: &str, body: &Value| app.request("POST", target).json(body).send();
    let event = json!({"user": "John", "action": "login", "page": "/cart", "id": "once"});
    let receipt = check("sendEvents", app.post(&event), 201);
    check("sendEvents", app.post(&event), 201);
    check("sendEvents", app.post(&json!([event, {"user": "Ann", "action": "login"}])), 201);
    let results = check("sendEvents", app.post(&json!([event, {"user": "Ann"}, {"user": "A", "action": "b"}])), 207);
    assert_eq!((&results["results"][0]["replayed"], &results["results"][1]["status"]), (&json!(true), &json!(422)));
    check("sendEvents", post("/api/v1/events?ack=none", &json!({"user": "Ann", "action": "scroll"})), 202);
    check("sendEvents", post("/api/v1/events?ack=none", &json!([{"user": "Ann", "action": "scroll"}])), 202);
    check("sendEvents", app.post(&json!([{"user": "Ann"}, {"user": 1, "action": ""}])), 422);
    check("sendMessage", post("/send-message", &json!({"user": "Ann", "action": "login"})), 200);
    let form = app.request("POST", "/events").form(&[("user", "Ann"), ("action", "login")]);
    check("sendForm", form.header("Accept", "application/json").send(), 201);

    let place = format!("/api/v1/events/{}/{}", receipt["partition"], receipt["offset"]);
    let record = check("readRecord", app.get(&place), 200);
    assert_eq!((&record["value"]["user"], &record["id"]), (&json!("John"), &json!("once")));
    let all = check("readHistory", app.get("/api/v1/events?from=beginning"), 200);
    let has = |name: &str| all["events"].as_array().expect("events").iter().any(|record| record.get(name).is_some());
    assert!(["key_raw", "raw", "headers"].into_iter().all(has), "{all}");
    for (operation, target, status) in [
        ("readHistory", "/api/v1/events?limit=1", 200),
        ("readHistory", "/api/v1/events?limit=0", 400),
        ("readRecord", "/api/v1/events/0/99999", 404),
        ("countUser", "/api/v1/users/Ann?partitions=all", 200),
        ("countUser", "/api/v1/users/Nobody", 200),
        ("readStats", "/api/v1/stats", 200),
        ("listRejects", "/api/v1/rejects", 200),
        ("listRejects", "/api/v1/rejects?limit=0", 400),
        ("listTopics", "/api/v1/topics", 200),
        ("listGroups", "/api/v1/groups", 501),
    ] {
        check(operation, app.get(target), status);
    }
}

#[test]
fn events_of_every_stream_fit_their_schemas() {
    let app = Application::on(Broker::Embedded)
        .env("FOOTFALL_FEED__MAX_AGE", "2s")
        .env("FOOTFALL_FEED__HEARTBEAT", "500ms")
        .start();
    let description = Description::read();
    app.topic().produce_all(&foreign_records());
    for n in 0..20 {
        app.accept(&json!({"user": "John", "action": "login", "n": n}));
    }
    app.post(&json!({"user": "John"})).expect(422);
    for (schema, target, names) in [
        ("StreamEvent", "/api/v1/stream?last=30", &["position", "message", "bye"][..]),
        ("StreamEvent", "/api/v1/stream?after=yesterday", &["position", "gap", "bye"]),
        ("StreamEvent", "/api/v1/stream?after=0-0&max_rate=1", &["skipped", "message"]),
        ("PageStreamEvent", "/stream?last=30", &["status", "rejected", "position", "message", "heartbeat", "bye"]),
        ("OverviewEvent", "/stream/overview", &["message", "bye"]),
        ("SearchEvent", "/history/search?q=login", &["message", "done"]),
        ("SearchEvent", "/users/John/count?limit=3", &["message", "done"]),
    ] {
        let mut parser = Parser::default();
        parser.feed(&app.get(target).expect(200).body);
        let mut seen = BTreeSet::new();
        for frame in parser.frames {
            let Frame::Message(SseMessage { event, data, last_event_id }) = frame else { continue };
            let mut fields = json!({"event": event, "data": data});
            if !last_event_id.is_empty() {
                fields["id"] = json!(last_event_id);
            }
            description.expect(schema, &fields);
            seen.insert(event);
        }
        assert!(names.iter().all(|name| seen.contains(*name)), "{target}: {seen:?}");
    }
}

#[test]
fn every_message_of_a_websocket_fits_its_schema() {
    let (app, description) = (Application::on(Broker::Embedded).start(), Description::read());
    let mut socket = app.socket("?after=yesterday");
    let event = json!({"user": "John", "action": "login", "id": "once"});
    for (message, status) in [
        (json!({"type": "post", "ref": 1, "event": event}), 201),
        (json!({"type": "post", "ref": 2, "event": event}), 201),
        (json!({"type": "post", "ref": 3, "events": [event, {"user": "Ann"}]}), 207),
        (json!({"type": "post", "ref": 4, "event": {"user": "Ann", "action": "scroll"}, "ack": "none"}), 202),
        (json!({"type": "post", "ref": "five", "event": {}}), 422),
        (json!({"type": "question", "ref": 6}), 400),
    ] {
        let answer = socket.ask(&message);
        assert_eq!(answer["status"], status, "{answer}");
        description.expect("SocketMessage", &answer);
    }
    let mut seen = BTreeSet::new();
    let mut check = |message: Value| {
        description.expect("SocketMessage", &message);
        seen.insert(message["type"].as_str().expect("a type").to_owned());
        message["type"] == "event"
    };
    while !check(socket.next_message()) {}
    app.terminate();
    while let Some(message) = socket.next_until(Instant::now() + PATIENCE) {
        check(message);
    }
    assert!(["bye", "event", "gap", "position"].into_iter().all(|name| seen.contains(name)), "{seen:?}");
}

/// The server takes exactly the members that the description has: it names them where it rejects another one.
#[test]
fn the_members_of_a_post_over_a_websocket_are_those_of_its_schema() {
    let app = Application::on(Broker::Embedded).start();
    let answer = app.socket("").ask(&json!({"type": "post", "ref": 1, "unknown": 1}));
    let detail = answer["problem"]["detail"].as_str().expect("a detail");
    let (_, expected) = detail.split_once("expected one of ").unwrap_or_else(|| panic!("{answer}"));
    let taken: BTreeSet<&str> = expected.split('`').skip(1).step_by(2).collect();
    let description = description();
    let schema = &description["components"]["schemas"]["SocketPost"];
    let described: BTreeSet<&str> =
        schema["properties"].as_object().expect("properties").keys().map(String::as_str).collect();
    assert_eq!(taken, described);
    assert_eq!(schema["additionalProperties"], false);
}
