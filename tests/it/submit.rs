//! Sending events as JSON: the answers, and the records in Kafka.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::http::{Request, Response};
use crate::common::wait::eventually;
use crate::common::{Application, Broker, Resources, on_every_broker, on_three_brokers};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

on_every_broker! {
    one_event_is_answered_201_with_partition_and_offset,
    an_array_is_answered_item_by_item_in_the_order_sent,
    one_users_events_of_an_array_keep_their_order,
    invalid_items_of_an_array_do_not_affect_the_others,
    ack_none_is_answered_202_and_delivers,
    the_value_is_kept_byte_for_byte,
    id_and_time_of_the_event_are_kept,
    trace_context_is_passed_on_unchanged,
    a_gzip_body_is_the_same_as_a_plain_one,
    users_are_partitioned_as_by_the_java_client,
    the_tutorials_call_works_unchanged,
    five_hundred_events_go_in_one_request,
    refused_events_are_not_in_the_topic,
}

on_three_brokers! {
    one_event_is_answered_201_with_partition_and_offset,
    an_array_is_answered_item_by_item_in_the_order_sent,
    one_users_events_of_an_array_keep_their_order,
    ack_none_is_answered_202_and_delivers,
    users_are_partitioned_as_by_the_java_client,
    five_hundred_events_go_in_one_request,
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body).expect("memory");
    encoder.finish().expect("memory")
}

fn post(app: &Application, content_type: &str, body: impl Into<Vec<u8>>) -> Response {
    app.request("POST", "/api/v1/events").body(content_type, body).send()
}

fn post_json(app: &Application, body: impl Into<Vec<u8>>) -> Response {
    post(app, "application/json", body)
}

fn post_gzip(app: &Application, body: &[u8]) -> Response {
    app.request("POST", "/api/v1/events").body("application/json", body).header("Content-Encoding", "gzip").send()
}

/// An event of exactly that many bytes.
fn event_of(bytes: usize) -> String {
    let frame = r#"{"user":"a","action":"b","x":""}"#;
    let event = frame.replace(r#""""#, &format!(r#""{}""#, "x".repeat(bytes - frame.len())));
    assert_eq!(event.len(), bytes);
    event
}

// --- What is taken -------------------------------------------------------------------------------------------------

fn one_event_is_answered_201_with_partition_and_offset(broker: Broker) {
    let app = Application::on(broker).start();
    let answer = app.post(&json!({"user": "John", "action": "login"})).expect(201);
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    let receipt = answer.json();
    let mut names: Vec<&str> = receipt.as_object().expect("an object").keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["id", "offset", "partition", "time", "topic"]);
    assert_eq!(receipt["topic"], app.topic().name());
    let place = format!("/api/v1/events/{}/{}", receipt["partition"], receipt["offset"]);
    assert_eq!(answer.header("Location"), Some(place.as_str()));
    assert_eq!(answer.header("Idempotent-Replayed"), None);

    let records = app.topic().records();
    assert_eq!(records.len(), 1);
    assert_eq!(
        (json!(records[0].partition), json!(records[0].offset)),
        (receipt["partition"].clone(), receipt["offset"].clone())
    );
    assert_eq!(records[0].header("ce_id"), receipt["id"].as_str());
    let again = app.get(&place).expect(200).json();
    assert_eq!((&again["id"], &again["value"]["user"]), (&receipt["id"], &json!("John")));
}

fn an_array_is_answered_item_by_item_in_the_order_sent(broker: Broker) {
    let app = Application::on(broker).start();
    let users: Vec<String> = (0..20).map(|n| format!("user-{n}")).collect();
    let events: Vec<Value> = users.iter().map(|user| json!({"user": user, "action": "login"})).collect();
    let answer = app.post(&json!(events)).expect(201);
    assert_eq!(answer.header("Location"), None);
    let results = answer.json()["results"].as_array().expect("results").clone();
    assert_eq!(results.len(), users.len());
    let records = app.topic().records();
    for (user, result) in users.iter().zip(&results) {
        assert_eq!(result["status"], 201, "{result}");
        let there =
            records.iter().find(|r| json!(r.partition) == result["partition"] && json!(r.offset) == result["offset"]);
        let there = there.unwrap_or_else(|| panic!("{result} is not in the topic"));
        assert_eq!(there.json()["user"].as_str(), Some(user.as_str()));
        assert_eq!(there.header("ce_id"), result["id"].as_str());
    }
}

fn one_users_events_of_an_array_keep_their_order(broker: Broker) {
    let app = Application::on(broker).start();
    for batch in 0..5 {
        let events: Vec<Value> =
            (0..100).map(|n| json!({"user": "Ann", "action": "step", "n": batch * 100 + n})).collect();
        app.post(&json!(events)).expect(201);
    }
    let order: Vec<i64> = app.topic().records().iter().map(|record| record.json()["n"].as_i64().expect("n")).collect();
    assert_eq!(order, (0..500).collect::<Vec<i64>>());
}

fn invalid_items_of_an_array_do_not_affect_the_others(broker: Broker) {
    let app = Application::on(broker).start();
    let answer = app.post(&json!([
        {"user": "Ann", "action": "login"},
        {"user": "Ann"},
        7,
        {"user": "Ann", "action": "logout"},
    ]));
    let results = answer.expect(207).json()["results"].clone();
    let statuses: Vec<u64> = results.as_array().expect("results").iter().filter_map(|r| r["status"].as_u64()).collect();
    assert_eq!(statuses, [201, 422, 422, 201]);
    assert_eq!(results[1]["retryable"], false);
    assert_eq!(results[1]["problem"]["type"], "/problems/invalid-event");
    assert_eq!(results[1]["problem"]["errors"][0]["index"], 1);
    assert_eq!(results[1]["problem"]["errors"][0]["pointer"], "/action");
    assert_eq!(results[2]["problem"]["errors"][0]["index"], 2);
    let actions: Vec<Value> = app.topic().records().iter().map(|record| record.json()["action"].clone()).collect();
    assert_eq!(actions, ["login", "logout"]);
}

fn ack_none_is_answered_202_and_delivers(broker: Broker) {
    let app = Application::on(broker).start();
    let request = |body: Value| app.request("POST", "/api/v1/events?ack=none").json(&body).send();
    let one = request(json!({"user": "John", "action": "scroll"})).expect(202).json();
    assert!(one["id"].is_string() && one.get("offset").is_none() && one.get("partition").is_none(), "{one}");
    let several =
        request(json!([{"user": "John", "action": "scroll"}, {"user": "Ann", "action": "scroll"}])).expect(202).json();
    let results = several["results"].as_array().expect("results");
    assert!(
        results.iter().all(|r| r["status"] == 202 && r["id"].is_string() && r.get("offset").is_none()),
        "{several}"
    );
    request(json!({"user": "John"})).expect(422).problem();
    eventually("three events are delivered", || (app.topic().records().len() == 3).then_some(()));
}

fn five_hundred_events_go_in_one_request(broker: Broker) {
    let app = Application::on(broker).start();
    let events: Vec<Value> = (0..500).map(|n| json!({"user": format!("user-{n}"), "action": "login"})).collect();
    let answer = app.post(&json!(events)).expect(201).json();
    assert_eq!(answer["results"].as_array().map(Vec::len), Some(500));
    assert_eq!(app.topic().records().len(), 500);
}

fn the_tutorials_call_works_unchanged(broker: Broker) {
    let app = Application::on(broker).start();
    for path in ["/send-message/", "/send-message"] {
        // fetch() in a page of the same origin.
        let answer = app
            .request("POST", path)
            .header("Content-Type", "application/json")
            .header("Origin", &format!("http://{}", app.address))
            .header("Sec-Fetch-Site", "same-origin")
            .header("Sec-Fetch-Mode", "cors")
            .header("Accept", "*/*")
            .body_only(r#"{"user":"John","action":"login"}"#)
            .send()
            .expect(200);
        assert_eq!(answer.json(), json!({"message": "Sent to Kafka!"}));
    }
    let values: Vec<String> = app.topic().records().iter().map(|record| record.text().to_owned()).collect();
    assert_eq!(values, [r#"{"user":"John","action":"login"}"#; 2]);
    let refused = app.request("POST", "/send-message/").json(&json!({"user": "John"})).send().expect(422).problem();
    assert_eq!(refused["errors"][0]["pointer"], "/action");
}

// --- The records in Kafka ------------------------------------------------------------------------------------------

fn the_value_is_kept_byte_for_byte(broker: Broker) {
    let app = Application::on(broker).start();
    let values = [
        "{\"user\" : \"J\\u006fhn\",\n\t\"action\":\"log\\/in\", \"n\":1.0e+2,\"n\":2, \"big\":123456789012345678901234567890 }",
        "{\"z\":{\"y\":[1,2.50,null,true]},\"action\":\"a\",\"user\":\"Zoë 🙂 \u{202e}\u{feff}\"}",
    ];
    for value in values {
        post_json(&app, value).expect(201);
    }
    post_json(&app, format!(" \r\n[ {} , {} ]\n", values[0], values[1])).expect(201);
    let mut found: Vec<String> = app.topic().records().iter().map(|record| record.text().to_owned()).collect();
    found.sort_unstable();
    let mut expected = [values, values].concat();
    expected.sort_unstable();
    assert_eq!(found, expected);
    let keys: Vec<Vec<u8>> = app.topic().records().into_iter().filter_map(|record| record.key).collect();
    assert_eq!(keys.iter().filter(|key| *key == b"John").count(), 2);
    assert_eq!(keys.iter().filter(|key| *key == "Zoë 🙂 \u{202e}\u{feff}".as_bytes()).count(), 2);
}

fn id_and_time_of_the_event_are_kept(broker: Broker) {
    let app = Application::on(broker).start();
    let event = json!({"user": "John", "action": "login", "id": "order-977", "time": "2020-02-29T23:59:59.5+02:00"});
    let receipt = app.accept(&event);
    assert_eq!((&receipt["id"], &receipt["time"]), (&event["id"], &json!("2020-02-29T21:59:59.500Z")));
    let record = app.topic().records().remove(0);
    assert_eq!(record.header("ce_id"), Some("order-977"));
    assert_eq!(record.header("ce_time"), Some("2020-02-29T23:59:59.5+02:00"));
}

fn trace_context_is_passed_on_unchanged(broker: Broker) {
    let app = Application::on(broker).start();
    let (parent, state) =
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7");
    let traced =
        |request: Request| request.header("traceparent", parent).header("tracestate", state).send().expect(201);
    traced(app.request("POST", "/api/v1/events").json(&json!({"user": "a", "action": "b"})));
    traced(
        app.request("POST", "/api/v1/events")
            .json(&json!([{"user": "a", "action": "b"}, {"user": "a", "action": "c"}])),
    );
    let records = app.topic().records();
    assert_eq!(records.len(), 3);
    for record in records {
        assert_eq!((record.header("traceparent"), record.header("tracestate")), (Some(parent), Some(state)));
    }
}

#[test]
fn invalid_trace_context_is_left_out() {
    let app = Application::on(Broker::Embedded).start();
    let long = "x".repeat(30_000);
    let request = app.request("POST", "/api/v1/events").json(&json!(vec![json!({"user": "a", "action": "b"}); 500]));
    request.header("traceparent", &long).header("tracestate", &long).send().expect(201);
    let records = app.topic().records();
    assert!(records.iter().all(|record| (record.header("traceparent"), record.header("tracestate")) == (None, None)));
    assert_eq!(records.len(), 500);
}

fn a_gzip_body_is_the_same_as_a_plain_one(broker: Broker) {
    let app = Application::on(broker).start();
    let body = r#"[{"user":"Ann","action":"login"},{"user":"Ann","action":"logout"}]"#;
    let answer = post_gzip(&app, &gzip(body.as_bytes())).expect(201).json();
    assert_eq!(answer["results"].as_array().map(Vec::len), Some(2));
    let values: Vec<String> = app.topic().records().iter().map(|record| record.text().to_owned()).collect();
    assert_eq!(values, [r#"{"user":"Ann","action":"login"}"#, r#"{"user":"Ann","action":"logout"}"#]);
}

/// The hashes are those of `UtilsTest.testMurmur2` of Apache Kafka; the partition is `toPositive(hash) % partitions`.
fn users_are_partitioned_as_by_the_java_client(broker: Broker) {
    let app = Application::on(broker).start();
    for (user, hash) in [
        ("21", -973_932_308_i32),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ("abc", 479_470_107),
    ] {
        let receipt = app.accept(&json!({"user": user, "action": "login"}));
        assert_eq!(receipt["partition"], (hash & 0x7fff_ffff) % 3, "{user}");
    }
}

// --- What is refused -----------------------------------------------------------------------------------------------

fn refused_events_are_not_in_the_topic(broker: Broker) {
    let app = Application::on(broker).start();
    for body in ["{", "[]", "7", r#"{"user":"a"}"#, r#"[{"user":"a"},{"action":"b"}]"#] {
        assert!((400..500).contains(&post_json(&app, body).status()), "{body}");
    }
    let too_many: Vec<Value> = vec![json!({"user": "a", "action": "b"}); 501];
    app.post(&json!(too_many)).expect(413);
    app.post(&json!([{"user": "a", "action": "b"}, {"user": "a", "action": "x".repeat(40_000)}])).expect(413);
    let accepted = app.accept(&json!({"user": "a", "action": "the only one"}));
    let records = app.topic().records();
    assert_eq!(records.len(), 1);
    assert_eq!(json!(records[0].offset), accepted["offset"]);
}

#[test]
fn an_unparsable_body_is_400() {
    let app = Application::on(Broker::Embedded).start();
    let bodies: [&[u8]; 11] = [
        b"",
        b" \r\n\t ",
        b"{",
        b"[]",
        b"[ ]",
        b"{\"user\":\"a\",\"action\":\"b\"",
        b"{\"user\":\"a\",\"action\":\"b\"} x",
        b"{\"user\":\"a\",\"action\":\"b\",}",
        b"user=a&action=b",
        b"{\"user\":\"\xff\",\"action\":\"b\"}",
        b"[{\"user\":\"a\",\"action\":\"b\"},",
    ];
    for body in bodies {
        let problem = post_json(&app, body).expect(400).problem();
        assert_eq!(problem["retryable"], false);
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{problem}");
    }
}

#[test]
fn invalid_gzip_is_400() {
    let app = Application::on(Broker::Embedded).start();
    let whole = gzip(br#"{"user":"a","action":"b"}"#);
    let mut wrong_checksum = whole.clone();
    let at = wrong_checksum.len() - 8;
    wrong_checksum[at] ^= 1;
    for body in [
        b"no gzip at all".to_vec(),
        whole[..whole.len() - 4].to_vec(),
        whole[..12].to_vec(),
        Vec::new(),
        wrong_checksum,
    ] {
        post_gzip(&app, &body).expect(400).problem();
    }
}

#[test]
fn an_invalid_event_is_422_with_pointers() {
    let app = Application::on(Broker::Embedded).start();
    let long = "é".repeat(201);
    let tomorrow = time::OffsetDateTime::now_utc() + time::Duration::hours(25);
    let tomorrow = tomorrow.format(&time::format_description::well_known::Rfc3339).expect("a time");
    let cases: Vec<(String, &[&str])> = vec![
        ("7".into(), &[""]),
        ("null".into(), &[""]),
        ("\"text\"".into(), &[""]),
        ("{}".into(), &["/user", "/action"]),
        (r#"{"user":"a"}"#.into(), &["/action"]),
        (r#"{"action":"b"}"#.into(), &["/user"]),
        (r#"{"user":null,"action":"b"}"#.into(), &["/user"]),
        (r#"{"user":7,"action":["b"]}"#.into(), &["/user", "/action"]),
        (r#"{"user":"","action":"b"}"#.into(), &["/user"]),
        (r#"{"user":" \u00a0\u2003 ","action":"b"}"#.into(), &["/user"]),
        (r#"{"user":"a\u0000","action":"b"}"#.into(), &["/user"]),
        (r#"{"user":"a","action":"b\n"}"#.into(), &["/action"]),
        (r#"{"user":"a","action":"b\u0085"}"#.into(), &["/action"]),
        (format!(r#"{{"user":"{long}","action":"b"}}"#), &["/user"]),
        (format!(r#"{{"user":"a","action":"{long}"}}"#), &["/action"]),
        (r#"{"user":"a","action":"b","user":"c"}"#.into(), &["/user"]),
        (r#"{"user":"a","action":"b","id":"1","id":"1"}"#.into(), &["/id"]),
        (r#"{"user":"a","action":"b","id":7}"#.into(), &["/id"]),
        (r#"{"user":"a","action":"b","id":""}"#.into(), &["/id"]),
        (r#"{"user":"a","action":"b","id":"a b"}"#.into(), &["/id"]),
        (r#"{"user":"a","action":"b","id":"é"}"#.into(), &["/id"]),
        (format!(r#"{{"user":"a","action":"b","id":"{}"}}"#, "x".repeat(129)), &["/id"]),
        (r#"{"user":"a","action":"b","time":"noon"}"#.into(), &["/time"]),
        (r#"{"user":"a","action":"b","time":"2026-01-02T03:04:05"}"#.into(), &["/time"]),
        (r#"{"user":"a","action":"b","time":"2026-02-30T00:00:00Z"}"#.into(), &["/time"]),
        (r#"{"user":"a","action":"b","time":1795435200}"#.into(), &["/time"]),
        (format!(r#"{{"user":"a","action":"b","time":"{tomorrow}"}}"#), &["/time"]),
    ];
    for (body, pointers) in cases {
        let problem = post_json(&app, body.as_str()).expect(422).problem();
        assert_eq!(
            (problem["type"].as_str(), &problem["retryable"]),
            (Some("/problems/invalid-event"), &json!(false)),
            "{body}"
        );
        let errors = problem["errors"].as_array().unwrap_or_else(|| panic!("no errors for {body}: {problem}"));
        let found: Vec<&str> = errors.iter().filter_map(|error| error["pointer"].as_str()).collect();
        assert_eq!(found, pointers, "{body}");
        assert!(
            errors.iter().all(|e| e["index"] == 0 && e["detail"].as_str().is_some_and(|d| !d.is_empty())),
            "{problem}"
        );
    }
}

#[test]
fn an_array_without_a_valid_event_is_422_with_every_index() {
    let app = Application::on(Broker::Embedded).start();
    let problem = app.post(&json!([{"user": "a"}, 7, {"user": "", "action": "b"}])).expect(422).problem();
    let found: Vec<(u64, &str)> = problem["errors"]
        .as_array()
        .expect("errors")
        .iter()
        .filter_map(|error| Some((error["index"].as_u64()?, error["pointer"].as_str()?)))
        .collect();
    assert_eq!(found, [(0, "/action"), (1, ""), (2, "/user")]);
}

#[test]
fn nesting_is_accepted_to_a_depth_of_32() {
    let app = Application::on(Broker::Embedded).start();
    let nested = |depth: usize| {
        format!(r#"{{"user":"a","action":"b","x":{}1{}}}"#, "[".repeat(depth - 1), "]".repeat(depth - 1))
    };
    post_json(&app, nested(32)).expect(201);
    let problem = post_json(&app, nested(33)).expect(422).problem();
    assert_eq!(problem["errors"].as_array().map(Vec::len), Some(1), "{problem}");
    // Deep enough to exhaust a stack, if nesting were followed by recursion.
    post_json(&app, nested(15_000)).expect(422).problem();
}

#[test]
fn sizes_are_accepted_up_to_the_exact_limit() {
    let app = Application::on(Broker::Embedded).start();
    post_json(&app, event_of(32 * 1024)).expect(201);
    post_json(&app, event_of(32 * 1024 + 1)).expect(413).problem();

    let body_of = |bytes: usize| {
        let mut items = vec![event_of(32 * 1024 - 1); 15];
        items.push(event_of(32 * 1024 - 2));
        let body = format!("[{}]", items.join(","));
        assert!(body.len() <= bytes);
        body.clone() + &" ".repeat(bytes - body.len())
    };
    let answer = post_json(&app, body_of(512 * 1024)).expect(201).json();
    assert_eq!(answer["results"].as_array().map(Vec::len), Some(16));
    post_json(&app, body_of(512 * 1024 + 1)).expect(413).problem();
    post_gzip(&app, &gzip(body_of(512 * 1024).as_bytes())).expect(201);
    post_gzip(&app, &gzip(body_of(512 * 1024 + 1).as_bytes())).expect(413).problem();

    let many = |count: usize| json!(vec![json!({"user": "a", "action": "b"}); count]);
    app.post(&many(500)).expect(201);
    app.post(&many(501)).expect(413).problem();
}

#[test]
fn a_gzip_bomb_is_413_and_costs_little() {
    let app = Application::on(Broker::Embedded).start();
    let before = resident_bytes(&app);
    let bomb = gzip(&vec![b' '; 64 << 20]);
    assert!(bomb.len() < 512 * 1024);
    for _ in 0..4 {
        post_gzip(&app, &bomb).expect(413).problem();
    }
    let grown = resident_bytes(&app).saturating_sub(before);
    assert!(grown < 32 << 20, "grew by {grown} bytes");
}

fn resident_bytes(app: &Application) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", app.process_id())).expect("/proc");
    let kilobytes =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kilobytes.expect("VmRSS") * 1024
}

/// A client that writes everything before it reads must not find the connection reset.
#[test]
fn a_client_that_is_still_sending_can_read_the_413() {
    let app = Application::on(Broker::Embedded).start();
    for announced in [true, false] {
        let size = 4 << 20;
        let head = app.request("POST", "/api/v1/events").header("Content-Type", "application/json");
        let mut connection = match announced {
            true => head.send_head(size),
            false => head.header("Transfer-Encoding", "chunked").open(),
        };
        let piece = vec![b' '; 64 * 1024];
        for _ in 0..size / piece.len() {
            if !announced {
                connection.send(format!("{:x}\r\n", piece.len()).as_bytes()).expect("the connection is open");
            }
            connection.send(&piece).expect("the connection is open");
            if !announced {
                connection.send(b"\r\n").expect("the connection is open");
            }
        }
        if !announced {
            connection.send(b"0\r\n\r\n").expect("the connection is open");
        }
        connection.response("POST").expect(413).problem();
    }
}

/// `navigator.sendBeacon` of a string is `text/plain`. Other programs that send it may mean something else.
#[test]
fn text_of_a_page_of_this_server_is_json_and_any_other_text_is_refused() {
    let app = Application::on(Broker::Embedded).start();
    let own = format!("http://{}", app.address);
    for (headers, status) in [
        (&[("Origin", &*own)][..], 201),
        (&[("Sec-Fetch-Site", "same-origin"), ("Origin", &own)], 201),
        (&[], 415),
        (&[("Origin", "http://elsewhere.example")], 403),
        (&[("Sec-Fetch-Site", "cross-site"), ("Origin", &own)], 403),
    ] {
        let request =
            app.request("POST", "/api/v1/events").body("text/plain;charset=UTF-8", r#"{"user":"a","action":"b"}"#);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(name, value));
        assert_eq!(request.send().status(), status, "{headers:?}");
    }
}

#[test]
fn another_content_type_or_encoding_is_415() {
    let app = Application::on(Broker::Embedded).start();
    let event = r#"{"user":"a","action":"b"}"#;
    for content_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
        "nonsense",
    ] {
        let problem = post(&app, content_type, event).expect(415).problem();
        assert_eq!(problem["retryable"], false);
    }
    app.request("POST", "/api/v1/events").body_only(event).send().expect(415).problem();
    for encoding in ["br", "gzip, gzip"] {
        app.request("POST", "/api/v1/events")
            .body("application/json", event)
            .header("Content-Encoding", encoding)
            .send()
            .expect(415)
            .problem();
    }
    post(&app, "application/json; charset=utf-8", event).expect(201);
    post(&app, "Application/JSON", event).expect(201);
    app.request("POST", "/api/v1/events")
        .body("application/json", event)
        .header("Content-Encoding", "identity")
        .send()
        .expect(201);
}

#[test]
fn an_unsupported_method_is_405_and_names_the_supported_ones() {
    let app = Application::on(Broker::Embedded).start();
    for (path, methods) in [
        ("/api/v1/events", &["GET", "POST"][..]),
        ("/api/v1/events/0/0", &["GET"]),
        ("/api/v1/stream", &["GET"]),
        ("/stream", &["GET"]),
        ("/send-message/", &["POST"]),
        ("/send-message", &["POST"]),
        ("/events", &["POST"]),
        ("/", &["GET"]),
        ("/livez", &["GET"]),
        ("/readyz", &["GET"]),
        ("/metrics", &["GET"]),
        ("/api/openapi.json", &["GET"]),
    ] {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            if methods.contains(&method) {
                continue;
            }
            let answer = app.request(method, path).json(&json!({"user": "a", "action": "b"})).send();
            assert_eq!(answer.status(), 405, "{method} {path}");
            for allowed in methods {
                assert!(answer.head.lists("Allow", allowed), "{method} {path}: {:?}", answer.head);
            }
            assert!(!answer.head.lists("Allow", method), "{method} {path}: {:?}", answer.head);
            answer.problem();
        }
    }
}

#[test]
fn an_unknown_route_is_404() {
    let app = Application::on(Broker::Embedded).start();
    for (method, path) in [
        ("GET", "/api/v1/nothing"),
        ("POST", "/api/v2/events"),
        ("GET", "/nothing"),
        ("GET", "/api"),
        ("DELETE", "/nothing"),
    ] {
        let problem = app.request(method, path).send().expect(404).problem();
        assert_eq!(problem["retryable"], false);
    }
}

#[test]
fn browsers_get_a_page_and_programs_a_problem() {
    let app = Application::on(Broker::Embedded).start();
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let with_accept = |path: &str, accept: &str| app.request("GET", path).header("Accept", accept).send();
    let page = with_accept("/nothing", browser).expect(404);
    assert_eq!(page.header("Content-Type"), Some("text/html; charset=utf-8"));
    assert!(
        page.text().contains("<!doctype html>") && page.text().contains(page.header("X-Request-Id").expect("an id"))
    );
    for accept in ["application/json", "application/problem+json", "*/*", "application/json, text/html;q=0.5"] {
        with_accept("/nothing", accept).expect(404).problem();
    }
    // Under /api it is a problem for every client.
    with_accept("/api/nothing", browser).expect(404).problem();
}

#[test]
fn too_many_events_from_one_address_are_429() {
    let app = Application::on(Broker::Embedded)
        .env("FOOTFALL_INGEST__RATE_LIMIT", "20")
        .env("FOOTFALL_INGEST__MAX_BATCH", "20")
        .start();
    let event = json!({"user": "a", "action": "b"});
    let refused = eventually("the limit is reached", || Some(app.post(&event)).filter(|answer| answer.status() != 201));
    let problem = refused.expect(429).problem();
    assert_eq!(problem["retryable"], true);
    assert!(refused_for(&app.post(&json!(vec![event.clone(); 20]))) >= 1);
    // It is temporary, not a ban.
    eventually("events are taken again", || (app.post(&event).status() == 201).then_some(()));

    fn refused_for(answer: &Response) -> u64 {
        assert_eq!(answer.status(), 429);
        answer.header("Retry-After").and_then(|seconds| seconds.parse().ok()).expect("Retry-After in seconds")
    }
}

#[test]
fn json_from_another_site_is_403() {
    let app = Application::on(Broker::Embedded).start();
    let post = |path: &str, headers: &[(&str, &str)]| {
        let request = app.request("POST", path).json(&json!({"user": "a", "action": "b"}));
        headers.iter().fold(request, |request, (name, value)| request.header(name, value)).send().status()
    };
    for path in ["/api/v1/events", "/api/v1/events?ack=none", "/send-message/"] {
        let cookie = ("Cookie", "session=1");
        let here = format!("http://{}", app.address);
        for site in
            [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Site", "same-site"), ("Origin", "http://evil.example")]
        {
            assert_eq!(post(path, &[site]), 403, "{path} {site:?}");
            assert_eq!(post(path, &[cookie, site]), 403, "{path} {site:?}");
        }
        let taken = match path {
            "/send-message/" => 200,
            "/api/v1/events" => 201,
            _ => 202,
        };
        assert_eq!(post(path, &[cookie, ("Sec-Fetch-Site", "same-origin"), ("Origin", &here)]), taken);
        assert_eq!(post(path, &[cookie, ("Origin", &here)]), taken);
        assert_eq!(post(path, &[cookie]), taken);
        assert_eq!(post(path, &[]), taken);
    }
}

/// Many requests on one connection, as connection pools send them; rejected ones do not affect it.
#[test]
fn a_connection_is_reused_after_any_answer() {
    let app = Application::on(Broker::Embedded).start();
    let mut connection = app.request("GET", "/livez").header("Connection", "keep-alive").open();
    connection.next_response("GET").expect(200);
    let event = json!({"user": "a", "action": "b"});
    for (method, path, body, status) in [
        ("POST", "/api/v1/events", event.to_string(), 201),
        ("POST", "/api/v1/events", "{".into(), 400),
        ("POST", "/api/v1/events", "{}".into(), 422),
        ("POST", "/api/v1/events", event_of(40_000), 413),
        ("PUT", "/api/v1/events", event.to_string(), 405),
        ("GET", "/nothing", String::new(), 404),
        ("POST", "/api/v1/events", event.to_string(), 201),
    ] {
        let request = app.request(method, path).header("Connection", "keep-alive").body("application/json", body);
        connection.send_request(&request);
        connection.next_response(method).expect(status);
    }
}

#[test]
fn a_cut_off_body_is_retryable_and_a_malformed_one_is_not() {
    let app = Application::on(Broker::Embedded).start();
    let post = || app.request("POST", "/api/v1/events").header("Content-Type", "application/json");
    let mut cut = post().send_head(100);
    cut.send(b"{\"user\":\"Ann\",\"action\"").expect("an open connection");
    cut.end_sending();
    let answer = cut.response("POST").expect(408);
    assert_eq!(answer.problem()["retryable"], true);
    let mut malformed = post().header("Transfer-Encoding", "chunked").open();
    malformed.send(b"zz\r\n").expect("an open connection");
    let answer = malformed.response("POST").expect(400);
    assert_eq!(answer.problem()["retryable"], false);
}

#[test]
fn extensions_and_errors_are_bounded() {
    let app = Application::on(Broker::Embedded).start();
    let event = |id: usize, extensions: usize, value: Value| {
        let mut event = json!({"specversion": "1.0", "id": format!("{id}"), "source": "/shop", "type": "login",
            "data": {"user": "Ann", "action": "login"}});
        (0..extensions).for_each(|n| event[format!("e{n}")] = value.clone());
        event
    };
    let post = |body: Value| {
        let kind = if body.is_array() { "application/cloudevents-batch+json" } else { "application/cloudevents+json" };
        app.request("POST", "/api/v1/events").body(kind, body.to_string()).send()
    };
    post(event(1, 64, json!("x"))).expect(201);
    let refused = post(event(2, 65, json!("x"))).expect(422).problem();
    assert!(refused.to_string().contains("at most 64 extensions"), "{refused}");
    let errors = |problem: &Value| problem["errors"].as_array().expect("errors").len();
    // An extension is no object.
    assert_eq!(errors(&post(event(3, 40, json!({}))).expect(422).problem()), 20);

    let many: Vec<Value> = (10..210).map(|id| event(id, 40, json!({}))).collect();
    assert_eq!(errors(&post(many.clone().into()).expect(422).problem()), 1000);
    // Beside a valid one, each has its own answer.
    let mixed: Vec<Value> = many.into_iter().chain([event(4, 0, Value::Null)]).collect();
    let results = post(mixed.into()).expect(207).json();
    let errors: Vec<usize> = results["results"].as_array().expect("results")[..200]
        .iter()
        .map(|result| errors(&result["problem"]))
        .collect();
    assert!(errors.iter().all(|count| (1..=20).contains(count)), "{errors:?}");
    assert_eq!(errors.iter().sum::<usize>(), 1000 + 150, "50 events with 20 each, and one for each of the others");
}

/// Each member takes time, even an empty one, and 500 kB hold 25,000 of them.
#[test]
fn a_gzip_body_of_many_members_is_413() {
    let app = Application::on(Broker::Embedded).start();
    let member = gzip(b"");
    let event = br#"{"user":"Ann","action":"look"}"#;
    for (members, status) in [(1, 201), (1000, 201), (1023, 201), (1024, 413), (500_000 / member.len(), 413)] {
        let body = [member.repeat(members), gzip(event)].concat();
        let started = Instant::now();
        let answer = app
            .request("POST", "/api/v1/events")
            .header("Content-Encoding", "gzip")
            .body("application/json", body)
            .send()
            .expect(status);
        assert!(started.elapsed() < Duration::from_secs(2), "{members}: {:?}", started.elapsed());
        if status == 413 {
            assert!(answer.text().contains("more than 1024 members"), "{}", answer.text());
        }
    }
}

/// Tests whose limits the load of other tests could break: `dev/test` without arguments runs them alone.
mod alone {
    use super::*;

    /// The live page shows records of others, which may have the largest size and many members.
    #[test]
    fn live_pages_asked_for_at_once_cost_bounded_memory() {
        let app = Application::on(Broker::Embedded).env("FOOTFALL_FEED__EVENTS", "200").start();
        let members: Vec<String> = (0..900).map(|n| format!("\"member-{n}\":\"{}\"", "x".repeat(18))).collect();
        for n in 0..120 {
            let event = format!("{{\"user\":\"user-{n}\",\"action\":\"look\",{}}}", members.join(","));
            app.request("POST", "/api/v1/events").body("application/json", event).send().expect(201);
        }
        app.get("/").expect(200);
        let idle = Resources::of(app.process_id());
        std::thread::scope(|scope| {
            for _ in 0..100 {
                // One address waits for its own pages, and for 5 s at most.
                scope.spawn(|| assert!(matches!(app.get("/").status(), 200 | 503)));
            }
            for _ in 0..20 {
                let started = Instant::now();
                app.get("/livez").expect(200);
                assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
            }
        });
        let used = Resources::of(app.process_id()).peak_kib.saturating_sub(idle.resident_kib);
        println!("{used} KiB more at the peak");
        assert!(used < 100 << 10, "{used} KiB more at the peak");
    }

    /// Bodies that take long to decompress and parse do not occupy the workers that answer others.
    #[test]
    fn large_bodies_do_not_delay_others() {
        let fields: Vec<String> = (0..3000).map(|n| format!("\"{n}\":[[[{n}]]]")).collect();
        let event = format!("{{\"user\":\"\",\"action\":\"\",{}}}", fields.join(","));
        assert!(event.len() < 60_000, "{}", event.len());
        let app = Application::on(Broker::Embedded).env("FOOTFALL_INGEST__MAX_EVENT", "60KiB");
        let app = app.env("FOOTFALL_INGEST__MAX_BODY", "8MiB").start();
        let body = format!("[{}]", vec![event; 130].join(","));
        let zipped = gzip(body.as_bytes());
        let over = AtomicBool::new(false);
        let (mut waited, mut longest) = (Vec::new(), Duration::ZERO);
        std::thread::scope(|scope| {
            let posts: Vec<_> = (0..6)
                .map(|n| {
                    let (over, body, zipped, app) = (&over, &body, &zipped, &app);
                    scope.spawn(move || {
                        let mut longest = Duration::ZERO;
                        while !over.load(Ordering::Relaxed) {
                            let post = app.request("POST", "/api/v1/events");
                            let post = match n % 2 {
                                0 => post.body("application/json", body.as_bytes()),
                                _ => post.header("Content-Encoding", "gzip").body("application/json", zipped.clone()),
                            };
                            let started = Instant::now();
                            let status = post.send().status();
                            assert!(matches!(status, 422 | 503), "{status}");
                            longest = longest.max(started.elapsed());
                        }
                        longest
                    })
                })
                .collect();
            for _ in 0..100 {
                let started = Instant::now();
                app.get("/livez").expect(200);
                waited.push(started.elapsed());
                std::thread::sleep(Duration::from_millis(20));
            }
            over.store(true, Ordering::Relaxed);
            posts.into_iter().for_each(|post| longest = longest.max(post.join().expect("no panic")));
        });
        waited.sort_unstable();
        println!("livez: median {:?}, slowest {:?}; slowest post {longest:?}", waited[50], waited[99]);
        assert!(waited[50] < Duration::from_millis(100), "{:?}", waited[50]);
    }
}
