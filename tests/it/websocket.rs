//! The WebSocket: the stream's records as messages, and events posted through it.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::application::signal;
use crate::common::http::Response;
use crate::common::wait::{PATIENCE, eventually};
use crate::common::{Application, Broker, Cursor, Follower, Kafka, Socket, on_every_broker, on_three_brokers, random};
use serde_json::{Value, json};
use tungstenite::Message as Frame;

on_every_broker! {
    the_first_message_is_the_position,
    a_socket_sends_the_same_as_a_stream,
    filters_select_the_events,
    a_socket_starts_at_the_requested_position,
    a_start_that_cannot_be_resumed_is_a_gap,
    strict_returns_400_instead_of_a_gap,
    a_heartbeat_is_a_position_and_a_ping,
    max_rate_skips_events,
    a_socket_ends_with_bye_after_its_maximum_age,
    a_posted_event_gets_the_receipt_of_http_and_is_streamed,
    an_array_is_answered_item_by_item,
    the_value_is_kept_byte_for_byte,
    a_retry_gets_the_first_receipt,
    an_idempotency_key_is_the_id_of_an_event_without_one,
    ack_none_is_answered_202_and_delivers,
    many_posts_at_once_are_all_answered,
    one_users_events_keep_their_order_if_each_receipt_is_awaited,
    a_post_is_written_even_if_the_client_closes_without_waiting,
    a_slow_client_gets_the_exact_dropped_count,
    a_socket_cut_off_repeatedly_misses_and_repeats_nothing,
    shutdown_says_bye_and_closes,
}

on_three_brokers! {
    many_posts_at_once_are_all_answered,
    a_socket_cut_off_repeatedly_misses_and_repeats_nothing,
}

const BEGINNING: &str = "0-0.1-0.2-0";

fn event(user: &str) -> Value {
    json!({"user": user, "action": "step"})
}

/// Returns the members of an answer without those that only a message has.
fn body(answer: &Value) -> Value {
    let mut body = answer.clone();
    for name in ["type", "ref", "status"] {
        body.as_object_mut().expect("an object").remove(name);
    }
    body
}

// --- Messages ------------------------------------------------------------------------------------------------------

fn the_first_message_is_the_position(broker: Broker) {
    let app = Application::on(broker).start();
    assert_eq!(app.socket("").next_message(), json!({"type": "position", "cursor": BEGINNING}));
    app.post_events(30);
    app.wait_for_the_feed();
}

#[test]
fn there_is_no_cursor_before_kafka_answers() {
    let app = Application::at("127.0.0.1:9")
        .env("FOOTFALL_FEED__HEARTBEAT", "200ms")
        .env("FOOTFALL_FEED__MAX_STREAMS", "2")
        .start_without_waiting_for_kafka();
    let mut socket = app.socket("?last=3");
    for _ in 0..3 {
        assert_eq!(socket.next_message(), json!({"type": "position", "cursor": null}));
    }
    let receipt = socket.ask(&json!({"type": "post", "ref": 1, "event": event("a")}));
    assert_eq!((&receipt["type"], &receipt["status"]), (&json!("receipt"), &json!(503)));
    assert_eq!((&receipt["retryable"], &receipt["retry_after"]), (&json!(true), &json!(1)));
    assert_eq!(receipt["problem"]["type"], "/problems/unavailable");
    // Sockets and streams are counted together.
    let _stream = app.stream("");
    let refused = upgrade(&app, &[]).expect(503);
    assert_eq!(refused.problem()["type"], "/problems/unavailable");
    assert!(refused.header("Retry-After").is_some());
    socket.close();
    eventually("there is room again", || {
        (app.request("GET", "/api/v1/stream").open().head().status == 200).then_some(())
    });
}

fn a_socket_sends_the_same_as_a_stream(broker: Broker) {
    let app = Application::on(broker).start();
    let (mut socket, mut stream) = (app.socket(""), app.stream(""));
    app.post_events(200);
    app.request("POST", "/api/v1/events")
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .body("application/json", "{\"user\":\"Zoë\",\n \"action\":\"login\",\"note\":\"two\\nlines\"}")
        .send()
        .expect(201);
    app.topic().produce(&crate::common::NewRecord::new().value("no \n JSON").key("k").partition(1));
    let mut follower = Follower::from(BEGINNING);
    for _ in 0..202 {
        let message = socket.next();
        follower.take(&message);
        let same = stream.next();
        assert_eq!((message.json(), message.last_event_id), (same.json(), same.last_event_id));
    }
}

fn filters_select_the_events(broker: Broker) {
    // This client answers no ping while it posts, and a connection ends after three heartbeats without a message from
    // the client.
    let app = Application::on(broker).env("FOOTFALL_FEED__HEARTBEAT", "1s").start();
    let mut socket = app.socket("?user=Ann&action=step");
    for user in ["Bob", "Ann", "annabel", "Ann"] {
        app.accept(&event(user));
    }
    let last = app.accept(&event("Bob"));
    assert_eq!((socket.record()["key"].clone(), socket.record()["key"].clone()), (json!("Ann"), json!("Ann")));
    // The cursor moves over filtered records.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let position = socket.next_until(deadline).expect("a position");
        assert_eq!(position["type"], "position");
        let place = Cursor::parse(position["cursor"].as_str().expect("a cursor"));
        if place.get(last["partition"].as_i64().expect("a number")) > last["offset"].as_i64().expect("a number") {
            break;
        }
    }
}

fn a_socket_starts_at_the_requested_position(broker: Broker) {
    let app = Application::on(broker).start();
    app.topic().produce_all(&vec![crate::common::NewRecord::event("a", "b").partition(0); 9]);
    app.wait_for_the_feed();
    let query = "?after=0-5.1-0.2-0&last=1";
    assert_eq!(app.socket(query).record()["offset"], 5);
    let header = [("Last-Event-ID", "0-3.1-0.2-0")];
    assert_eq!(Socket::open_with(app.address, query, &header).record()["offset"], 3);
    assert_eq!(app.socket("?last=2").record()["offset"], 7);
    assert_eq!(app.socket("?since=-15m").record()["offset"], 0);
}

fn a_start_that_cannot_be_resumed_is_a_gap(broker: Broker) {
    let app = Application::on(broker).start();
    for (cursor, reason) in [("x", "malformed cursor"), ("0-0.1-0.2-0.3-7", "unknown partition")] {
        let mut socket = app.socket(&format!("?after={cursor}"));
        assert_eq!(
            socket.control("gap"),
            json!({"type": "gap", "cursor": BEGINNING, "requested": cursor, "resumed": BEGINNING, "missed": null, "reason": reason})
        );
    }
    let mut socket = Socket::open_with(app.address, "", &[("Last-Event-ID", "nonsense")]);
    assert_eq!(socket.control("gap")["requested"], "nonsense");
    app.accept(&event("a"));
    socket.record();
}

fn strict_returns_400_instead_of_a_gap(broker: Broker) {
    let app = Application::on(broker).start();
    for query in ["strict=1&after=x", "strict=1&after=0-0.1-0.2-0.3-7", "last=0", "since=noon", "partition=x"] {
        let problem = upgrade_to(&app, &format!("/api/v1/ws?{query}"), &[]).expect(400).problem();
        assert_eq!(problem["type"], "/problems/bad-parameter", "{query}");
    }
    app.socket("?strict=1&after=0-0.1-0.2-0").next_message();
}

fn a_heartbeat_is_a_position_and_a_ping(broker: Broker) {
    let app = Application::on(broker).env("FOOTFALL_FEED__HEARTBEAT", "200ms").start();
    app.accept(&event("a"));
    let mut socket = app.socket("?last=1");
    socket.record();
    let after = socket.cursor.clone();
    let start = Instant::now();
    for _ in 0..8 {
        assert_eq!(socket.next_message(), json!({"type": "position", "cursor": after}));
    }
    assert!(start.elapsed() >= Duration::from_millis(1400), "eight heartbeats in {:?}", start.elapsed());
    // A busy server skips a late ping.
    eventually("as many pings", || {
        assert_eq!(socket.next_message(), json!({"type": "position", "cursor": after}));
        (socket.pings >= 8).then_some(())
    });
}

#[test]
fn a_client_that_answers_no_ping_is_closed() {
    let app = Application::on(Broker::Embedded).env("FOOTFALL_FEED__HEARTBEAT", "200ms").start();
    let silent = app.socket("");
    let mut alive = app.socket("");
    eventually("they are counted", || (streams(&app) == 2).then_some(()));
    eventually("the silent one is given up", || {
        alive.next_message();
        (streams(&app) == 1).then_some(())
    });
    for _ in 0..5 {
        alive.next_message();
    }
    drop(silent);
}

fn max_rate_skips_events(broker: Broker) {
    let app = Application::on(broker).start();
    let mut socket = app.socket("?max_rate=10&user=user-3");
    socket.next_message();
    app.post_events(3400);
    let (mut shown, mut skipped) = (0, 0);
    while shown + skipped < 200 {
        let message = socket.next();
        match message.event.as_str() {
            "skipped" => skipped += message.json()["count"].as_u64().expect("a count"),
            "message" => shown += 1,
            other => panic!("{other}"),
        }
    }
    assert_eq!(shown + skipped, 200);
    assert!((20..100).contains(&shown), "{shown} shown");
}

fn a_socket_ends_with_bye_after_its_maximum_age(broker: Broker) {
    let app = Application::on(broker).env("FOOTFALL_FEED__MAX_AGE", "1s").start();
    let mut socket = app.socket("");
    let bye = socket.control("bye");
    assert_eq!(bye, json!({"type": "bye", "cursor": BEGINNING, "reason": "max age"}));
    let start = Instant::now();
    assert_eq!(socket.close_code(), 1000);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    app.accept(&event("between"));
    socket.reconnect(BEGINNING);
    assert_eq!(socket.record()["key"], "between");
}

// --- What is posted ------------------------------------------------------------------------------------------------

fn a_posted_event_gets_the_receipt_of_http_and_is_streamed(broker: Broker) {
    let app = Application::on(broker).start();
    let mut socket = app.socket("");
    let receipt = socket.ask(&json!({"type": "post", "ref": "first", "event": {"user": "John", "action": "login"}}));
    let mut names: Vec<&str> = receipt.as_object().expect("an object").keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["id", "offset", "partition", "ref", "status", "time", "topic", "type"]);
    assert_eq!((&receipt["type"], &receipt["status"]), (&json!("receipt"), &json!(201)));
    let record = socket.record();
    for name in ["id", "topic", "partition", "offset", "time"] {
        assert_eq!(record[name], receipt[name], "{name}");
    }
    assert_eq!(record["value"], json!({"user": "John", "action": "login"}));

    for reference in [json!(0), json!(-1.5e3), json!(""), json!("\"é\\\n"), json!(12345678901234567890u64)] {
        assert_eq!(socket.ask(&json!({"type": "post", "ref": reference, "event": event("a")}))["status"], 201);
    }
    socket.send(&json!({"type": "post", "event": event("a")}));
    let answer = socket.answer();
    assert_eq!((&answer["status"], answer.get("ref")), (&json!(201), None));

    // With the same errors as over HTTP.
    for wrong in [json!({"user": "Ann"}), json!({"user": "", "action": "b"}), json!(7), json!("text")] {
        let over_http = app.post(&wrong);
        let receipt = socket.ask(&json!({"type": "post", "ref": 1, "event": wrong}));
        let mut problem = over_http.problem();
        problem.as_object_mut().expect("an object").remove("request_id");
        assert_eq!(body(&receipt), json!({"retryable": false, "problem": problem}), "{wrong}");
        assert_eq!((&receipt["type"], &receipt["status"]), (&json!("receipt"), &json!(over_http.status())));
    }
    assert_eq!(app.topic().records().len(), 7);
}

fn an_array_is_answered_item_by_item(broker: Broker) {
    let app = Application::on(broker).start();
    let mut socket = app.socket("");
    let receipt =
        socket.ask(&json!({"type": "post", "ref": 1, "events": [event("Ann"), {"user": "Ann"}, event("Bob")]}));
    assert_eq!(receipt["status"], 207);
    let statuses: Vec<&Value> =
        receipt["results"].as_array().expect("results").iter().map(|item| &item["status"]).collect();
    assert_eq!(statuses, [201, 422, 201]);
    assert_eq!(receipt["results"][1]["problem"]["errors"][0]["pointer"], "/action");
    assert_eq!(receipt["results"][1]["problem"]["errors"][0]["index"], 1);

    let all = vec![event("Ann"); 500];
    assert_eq!(socket.ask(&json!({"type": "post", "ref": 2, "events": all}))["status"], 201);
    for (events, status, kind) in [
        (json!([]), 400, "not-json"),
        (json!(vec![event("Ann"); 501]), 413, "too-large"),
        (json!([{"user": "Ann"}, 7]), 422, "invalid-event"),
        (event("Ann"), 422, "invalid-event"),
    ] {
        let receipt = socket.ask(&json!({"type": "post", "ref": 3, "events": events}));
        assert_eq!((&receipt["type"], &receipt["status"]), (&json!("receipt"), &json!(status)), "{receipt}");
        assert_eq!(receipt["problem"]["type"], format!("/problems/{kind}"));
    }
    let receipt = socket.ask(&json!({"type": "post", "ref": 4, "event": [event("Ann")]}));
    assert_eq!((&receipt["type"], &receipt["status"]), (&json!("receipt"), &json!(422)));
    let large = json!({"user": "a", "action": "b", "x": "x".repeat(33_000)});
    assert_eq!(socket.ask(&json!({"type": "post", "ref": 5, "event": large}))["status"], 413);
    assert_eq!(app.topic().records().len(), 502);
}

fn the_value_is_kept_byte_for_byte(broker: Broker) {
    let app = Application::on(broker).start();
    let mut socket = app.socket("");
    let values = [
        "{ \"user\" : \"J\\u006fhn\",\"action\":\"login\", \"n\":1.0e+2, \"big\":12345678901234567890123 }",
        "{\"action\":\"b\",\r\n\t\"user\":\"é \\ud83d\\ude00 \\/\",\"a\":1,\"a\":2}",
    ];
    for value in values {
        socket.send_text(&format!(" {{\"event\" : {value}\n, \"ref\":1,\"type\":\"post\"}} "));
        assert_eq!(socket.answer()["status"], 201);
    }
    socket.send_text(&format!("{{\"type\":\"post\",\"ref\":2,\"events\":[ {} , {} ]}}", values[0], values[1]));
    assert_eq!(socket.answer()["status"], 201);
    let mut stored: Vec<Vec<u8>> = app.topic().records().into_iter().filter_map(|record| record.value).collect();
    stored.sort();
    let mut expected: Vec<Vec<u8>> = values.iter().chain(&values).map(|value| value.as_bytes().to_vec()).collect();
    expected.sort();
    assert_eq!(stored, expected);
}

fn a_retry_gets_the_first_receipt(broker: Broker) {
    let app = Application::on(broker).start();
    let post = json!({"type": "post", "ref": 1, "event": {"id": "order-1", "user": "Ann", "action": "buy"}});
    let mut socket = app.socket("");
    let first = socket.ask(&post);
    assert_eq!((&first["status"], first.get("replayed")), (&json!(201), None));
    // On this socket, on another one, and over HTTP.
    let mut other = app.socket("");
    for again in [socket.ask(&post), other.ask(&post)] {
        let mut expected = first.clone();
        expected["replayed"] = json!(true);
        assert_eq!(again, expected);
    }
    let over_http = app.post(&post["event"]).expect(201);
    assert_eq!(over_http.header("Idempotent-Replayed"), Some("true"));
    assert_eq!(over_http.json(), body(&first));
    let array = socket.ask(&json!({"type": "post", "ref": 2, "events": [post["event"]]}));
    assert_eq!(array["results"][0]["replayed"], true);
    // With another body.
    let reused =
        socket.ask(&json!({"type": "post", "ref": 3, "event": {"id": "order-1", "user": "Bob", "action": "buy"}}));
    assert_eq!((&reused["status"], &reused["problem"]["type"]), (&json!(422), &json!("/problems/id-reused")));
    assert_eq!(app.topic().records().len(), 1);
}

fn an_idempotency_key_is_the_id_of_an_event_without_one(broker: Broker) {
    let app = Application::on(broker).start();
    // The traceparent of the handshake does not apply to all of them.
    let mut socket = Socket::open_with(app.address, "", &[("Idempotency-Key", "of-the-handshake")]);
    let plain = json!({"type": "post", "ref": 0, "event": event("Ann")});
    assert_ne!(socket.ask(&plain)["id"], "of-the-handshake");
    let post = json!({"type": "post", "ref": 1, "event": event("Ann"), "idempotency_key": "order-977"});
    let first = socket.ask(&post);
    assert_eq!((&first["status"], &first["id"]), (&json!(201), &json!("order-977")));
    assert_eq!(socket.ask(&post)["replayed"], true);
    for wrong in [
        json!({"type": "post", "ref": 2, "event": event("Ann"), "idempotency_key": "with blanks"}),
        json!({"type": "post", "ref": 2, "events": [event("Ann")], "idempotency_key": "order-978"}),
    ] {
        let receipt = socket.ask(&wrong);
        assert_eq!((&receipt["type"], &receipt["status"]), (&json!("receipt"), &json!(400)), "{receipt}");
    }
    assert_eq!(app.topic().records().len(), 2);
}

fn ack_none_is_answered_202_and_delivers(broker: Broker) {
    let app = Application::on(broker).start();
    let mut socket = app.socket("");
    let receipt = socket.ask(&json!({"type": "post", "ref": 1, "event": event("Ann"), "ack": "none"}));
    assert_eq!((&receipt["status"], receipt.get("offset")), (&json!(202), None));
    assert_eq!(socket.record()["id"], receipt["id"]);
    let receipt = socket.ask(&json!({"type": "post", "ref": 2, "events": [event("Ann"), event("Bob")], "ack": "none"}));
    assert_eq!((&receipt["status"], &receipt["results"][1]["status"]), (&json!(202), &json!(202)));
    let receipt = socket.ask(&json!({"type": "post", "ref": 3, "event": event("Ann"), "ack": "all"}));
    assert_eq!(receipt["status"], 201);
}

fn many_posts_at_once_are_all_answered(broker: Broker) {
    let app = Application::on(broker).start();
    let mut socket = app.socket("?user=Nobody");
    for n in 0..500 {
        socket.send(&json!({"type": "post", "ref": n, "event": {"id": format!("e-{n}"), "user": format!("user-{n}"), "action": "b"}}));
    }
    for n in 0..500 {
        let receipt = socket.answer_to(&json!(n));
        assert_eq!((&receipt["status"], &receipt["id"]), (&json!(201), &json!(format!("e-{n}"))));
    }
    assert_eq!(app.topic().records().len(), 500);
}

fn one_users_events_keep_their_order_if_each_receipt_is_awaited(broker: Broker) {
    let app = Application::on(broker).start();
    thread::scope(|scope| {
        for user in ["Ann", "Bob"] {
            let mut socket = app.socket("?user=Nobody");
            scope.spawn(move || {
                for n in 0..50 {
                    let event = json!({"user": user, "action": "step", "n": n});
                    assert_eq!(socket.ask(&json!({"type": "post", "ref": n, "event": event}))["status"], 201);
                }
            });
        }
    });
    for user in ["Ann", "Bob"] {
        let mut socket = app.socket(&format!("?after={BEGINNING}&user={user}"));
        let numbers: Vec<Value> = (0..50).map(|_| socket.record()["value"]["n"].clone()).collect();
        assert_eq!(numbers, (0..50).map(Value::from).collect::<Vec<_>>());
    }
}

fn a_post_is_written_even_if_the_client_closes_without_waiting(broker: Broker) {
    let app = Application::on(broker).start();
    for n in 0..20 {
        let mut socket = app.socket("?user=Nobody");
        // A connection that is closed with unread bytes is reset, and bytes in flight to the client are lost.
        assert_eq!(socket.next_message()["type"], "position");
        socket.send(&json!({"type": "post", "event": {"id": format!("e-{n}"), "user": "a", "action": "b"}}));
        if n % 2 == 0 { socket.close() } else { drop(socket) }
    }
    eventually("all are in the topic", || (app.topic().records().len() == 20).then_some(()));
}

#[test]
fn too_many_events_from_one_address_are_429() {
    let app = Application::on(Broker::Embedded)
        .env("FOOTFALL_INGEST__RATE_LIMIT", "20")
        .env("FOOTFALL_INGEST__MAX_BATCH", "20")
        .start();
    let mut socket = app.socket("");
    let twenty = vec![event("a"); 20];
    assert_eq!(socket.ask(&json!({"type": "post", "ref": 1, "events": twenty}))["status"], 201);
    let refused = socket.ask(&json!({"type": "post", "ref": 2, "events": twenty}));
    assert_eq!((&refused["status"], &refused["problem"]["type"]), (&json!(429), &json!("/problems/too-many-requests")));
    assert!(refused["retry_after"].as_u64().is_some_and(|seconds| seconds >= 1), "{refused}");
}

// --- What is refused -----------------------------------------------------------------------------------------------

#[test]
fn an_invalid_message_is_a_problem_and_the_socket_stays_open() {
    let app = Application::on(Broker::Embedded).start();
    let mut socket = app.socket("");
    let deep = format!("{{\"type\":\"post\",\"event\":{}{}}}", "[".repeat(5000), "]".repeat(5000));
    for (text, reference, kind) in [
        ("", None, "not-json"),
        ("nonsense", None, "not-json"),
        ("{\"type\":\"post\"", None, "not-json"),
        ("{} {}", None, "not-json"),
        ("7", None, "bad-request"),
        ("[]", None, "bad-request"),
        ("[\"post\",1,{\"user\":\"a\",\"action\":\"b\"}]", None, "bad-request"),
        ("{\"type\":\"post\",\"ref\":1} x", None, "not-json"),
        ("null", None, "bad-request"),
        ("{}", None, "bad-request"),
        ("{\"ref\":\"r\"}", Some(json!("r")), "bad-request"),
        ("{\"type\":7,\"ref\":1}", Some(json!(1)), "bad-request"),
        ("{\"type\":\"subscribe\",\"ref\":1,\"user\":\"Ann\"}", Some(json!(1)), "bad-request"),
        ("{\"type\":\"post\",\"ref\":1}", Some(json!(1)), "bad-request"),
        ("{\"type\":\"post\",\"ref\":1,\"event\":null}", Some(json!(1)), "bad-request"),
        ("{\"type\":\"post\",\"ref\":1,\"event\":{},\"events\":[]}", Some(json!(1)), "bad-request"),
        ("{\"type\":\"post\",\"ref\":1,\"event\":{},\"events\":[],\"event\":{}}", Some(json!(1)), "bad-request"),
        ("{\"type\":\"post\",\"ref\":1,\"evnet\":{}}", Some(json!(1)), "bad-request"),
        ("{\"type\":\"post\",\"ref\":1,\"event\":{},\"ack\":7}", Some(json!(1)), "bad-request"),
        ("{\"type\":\"post\",\"ref\":1,\"event\":{},\"ack\":\"one\"}", Some(json!(1)), "bad-parameter"),
        ("{\"type\":\"post\",\"ref\":{},\"event\":{}}", None, "bad-request"),
        ("{\"type\":\"post\",\"ref\":true,\"event\":{}}", None, "bad-request"),
    ] {
        socket.send_text(text);
        let answer = socket.answer();
        assert_eq!((&answer["type"], answer.get("ref")), (&json!("problem"), reference.as_ref()), "{text}: {answer}");
        assert_eq!((&answer["status"], &answer["retryable"]), (&json!(400), &json!(false)), "{text}");
        assert_eq!(answer["problem"]["type"], format!("/problems/{kind}"), "{text}: {answer}");
        assert_eq!(answer["problem"]["status"], 400, "{text}");
    }
    socket.send_text(&deep);
    assert!(matches!(socket.answer()["status"].as_u64(), Some(400 | 422)));
    socket.try_send(Frame::binary(event("a").to_string())).expect("an open socket");
    assert_eq!(socket.answer()["type"], "problem");
    socket.try_send(Frame::Ping("hello".into())).expect("an open socket");
    assert_eq!(socket.ask(&json!({"type": "post", "ref": 9, "event": event("a")}))["status"], 201);
    assert_eq!(socket.pongs, 1);
    assert_eq!(app.topic().records().len(), 1);
}

#[test]
fn a_too_large_message_closes_with_a_readable_1009() {
    let app = Application::on(Broker::Embedded).start();
    for size in [512 * 1024 + 1, 5_000_000] {
        let mut socket = app.socket("");
        // The server may close before it has read everything.
        let _ = socket.try_send(Frame::text("x".repeat(size)));
        assert_eq!(socket.close_code(), 1009, "{size} bytes");
    }
    // In fragments.
    let mut socket = app.socket("");
    let mut piece = vec![0x01, 0x80 | 126, 0xff, 0xff, 0, 0, 0, 0];
    piece.extend([b'x'; 0xffff]);
    for n in 0..9 {
        piece[0] = if n == 0 { 0x01 } else { 0x00 };
        socket.send_raw(&piece);
    }
    assert_eq!(socket.close_code(), 1009);
    // The largest accepted message.
    let mut socket = app.socket("");
    socket.send_text(&format!("{{\"type\":\"post\",\"ref\":1{}}}", " ".repeat(512 * 1024 - 23)));
    assert_eq!(socket.answer()["ref"], 1);
}

#[test]
fn a_protocol_violation_closes_the_socket() {
    let app = Application::on(Broker::Embedded).start();
    for (bytes, code) in [
        // Not masked; a reserved opcode; a continuation without a start; a fragmented control frame.
        (&[0x81, 0x02, b'{', b'}'][..], 1002),
        (&[0x83, 0x80, 0, 0, 0, 0], 1002),
        (&[0x80, 0x80, 0, 0, 0, 0], 1002),
        (&[0x09, 0x80, 0, 0, 0, 0], 1002),
        // Text that is not UTF-8.
        (&[0x81, 0x81, 0, 0, 0, 0, 0xff], 1007),
    ] {
        let mut socket = app.socket("");
        socket.send_raw(bytes);
        assert_eq!(socket.close_code(), code, "{bytes:x?}");
    }
    eventually("none is left", || (streams(&app) == 0).then_some(()));
    let complaints: Vec<Value> = app.log().into_iter().filter(|line| line["level"] == "ERROR").collect();
    assert_eq!(complaints, Vec::<Value>::new());
}

/// Requests a WebSocket with these headers instead of or in addition to those of the handshake; a blank one is left
/// out.
fn upgrade(app: &Application, headers: &[(&str, &str)]) -> Response {
    upgrade_to(app, "/api/v1/ws", headers)
}

fn upgrade_to(app: &Application, target: &str, headers: &[(&str, &str)]) -> Response {
    let handshake = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let given = |name: &str| headers.iter().any(|(other, _)| *other == name);
    let all =
        handshake.iter().filter(|(name, _)| !given(name)).chain(headers.iter().filter(|(_, value)| !value.is_empty()));
    let request = all.fold(app.request("GET", target), |request, (name, value)| request.header(name, value));
    request.open().next_response("GET")
}

#[test]
fn a_request_from_another_site_is_403() {
    let app = Application::on(Broker::Embedded).start();
    for headers in [
        &[("Origin", "http://elsewhere.example")][..],
        &[("Origin", "null")],
        &[("Origin", "http://127.0.0.1:1")],
        &[("Sec-Fetch-Site", "cross-site")],
        &[("Sec-Fetch-Site", "same-site")],
    ] {
        assert_eq!(upgrade(&app, headers).expect(403).problem()["type"], "/problems/cross-site", "{headers:?}");
    }
    let own = format!("http://{}", app.address);
    for headers in [&[("Origin", own.as_str())][..], &[("Sec-Fetch-Site", "same-origin")], &[]] {
        Socket::open_with(app.address, "", headers).next_message();
    }
}

#[test]
fn a_request_without_upgrade_is_426() {
    let app = Application::on(Broker::Embedded).start();
    for missing in [
        &[("Connection", ""), ("Upgrade", "")][..],
        &[("Connection", "close")],
        &[("Upgrade", "h2c")],
        &[("Sec-WebSocket-Version", "8")],
        &[("Sec-WebSocket-Version", "")],
        &[("Sec-WebSocket-Key", "")],
    ] {
        let refused = upgrade(&app, missing).expect(426);
        assert_eq!(refused.header("Upgrade"), Some("websocket"), "{missing:?}");
        assert!(refused.head.lists("Connection", "upgrade"), "{:?}", refused.head);
        assert_eq!(refused.header("Sec-WebSocket-Version"), Some("13"));
        assert_eq!(refused.problem()["type"], "/problems/upgrade-required");
    }
    // RFC 6455, section 1.3.
    let mut connection = app
        .request("GET", "/api/v1/ws")
        .header("Connection", "keep-alive, Upgrade")
        .header("Upgrade", "WebSocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        .open();
    let head = connection.head();
    assert_eq!(head.status, 101);
    assert_eq!(head.header("Sec-WebSocket-Accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    app.log_line("the log has it", |line| line["http.path"] == "/api/v1/ws" && line["http.status"] == 101);
}

// --- Bounds --------------------------------------------------------------------------------------------------------

fn streams(app: &Application) -> usize {
    let metrics = app.get("/metrics").expect(200);
    let value = metrics.text().lines().find_map(|line| line.strip_prefix("footfall_streams "));
    value.and_then(|value| value.parse().ok()).expect("a number")
}

/// More than the kernel's buffers of a connection hide.
const FLOOD: usize = 900;

fn a_slow_client_gets_the_exact_dropped_count(broker: Broker) {
    let app = Application::on(broker).env("FOOTFALL_FEED__BYTES", "1MiB").env("FOOTFALL_FEED__EVENTS", "1000").start();
    let mut slow = app.socket("");
    let mut quick = app.socket("?q=marker");
    slow.next_message();
    let text = "x".repeat(30_000);
    let batch: Vec<Value> =
        (0..15).map(|n| json!({"user": format!("user-{n}"), "action": "flood", "text": text})).collect();
    for _ in 0..FLOOD / batch.len() {
        app.post(&json!(batch)).expect(201);
    }
    // It does not delay others.
    let start = Instant::now();
    app.accept(&json!({"user": "a", "action": "marker"}));
    // On a busy machine it may get `dropped` itself.
    while quick.next().event != "message" {}
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let total = app.topic().records().len() as i64;
    let mut follower = Follower::from(BEGINNING);
    follower.take_until(total, || slow.next());
    assert!(follower.dropped > 0, "it was not too slow");
    assert!(!follower.records.is_empty());
    app.accept(&event("after"));
    follower.take(&slow.next());
}

fn a_socket_cut_off_repeatedly_misses_and_repeats_nothing(broker: Broker) {
    const CUTS: usize = 30;
    let mut random = random();
    // Memory holds more than is written during one round, so that nothing is dropped, and less than during some of the
    // cuts, so that both ways of resuming are tested.
    let app = Application::on(broker).env("FOOTFALL_FEED__EVENTS", "300").start();
    let mut follower = Follower::from(BEGINNING);
    let mut socket = Socket::open_with(app.address, "", &[("Last-Event-ID", BEGINNING)]);
    let mut posted = 0;
    for _ in 0..CUTS {
        let events = 10 * random.i64(0..20);
        let wanted = random.i64(follower.seen()..=posted + events);
        thread::scope(|scope| {
            scope.spawn(|| (0..events / 10).for_each(|_| app.post_events(10)));
            follower.take_until(wanted, || socket.next());
            socket.reconnect(&follower.place.to_string());
        });
        posted += events;
    }
    follower.take_until(posted, || socket.next());
    assert_eq!(follower.dropped, 0);
    crate::common::assert_same_set(
        app.topic().records().iter().map(|record| (i64::from(record.partition), record.offset)),
        follower.records.iter().map(|(partition, offset, _)| (*partition, *offset)),
    );
}

fn shutdown_says_bye_and_closes(broker: Broker) {
    let app = Application::on(broker).start();
    let mut sockets: Vec<_> = (0..5).map(|_| app.socket("")).collect();
    for (n, socket) in sockets.iter_mut().enumerate() {
        socket.send(&json!({"type": "post", "ref": n, "event": event("a")}));
    }
    for (n, socket) in sockets.iter_mut().enumerate() {
        assert_eq!(socket.answer_to(&json!(n))["status"], 201);
        (0..5).for_each(|_| drop(socket.record()));
    }
    let asked = Instant::now();
    app.terminate();
    for socket in &mut sockets {
        let bye = socket.control("bye");
        assert_eq!((&bye["reason"], bye["cursor"].is_string()), (&json!("shutdown"), true));
        assert_eq!(socket.close_code(), 1001);
    }
    assert!(app.wait_for_exit(PATIENCE).success());
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}

#[test]
fn a_post_in_flight_at_shutdown_is_answered_after_bye() {
    let kafka = Kafka::start();
    let app = Application::at(kafka.servers()).env("FOOTFALL_INGEST__DEADLINE", "3s").start();
    let mut socket = app.socket("");
    assert_eq!(socket.ask(&json!({"type": "post", "ref": 0, "event": event("a")}))["status"], 201);
    socket.record();
    let _frozen = kafka.freeze(1);
    socket.send(&json!({"type": "post", "ref": 1, "event": event("a")}));
    // It is read before the end is.
    assert_eq!(socket.ask(&json!({"type": "nothing", "ref": 2}))["type"], "problem");
    app.terminate();
    assert_eq!(socket.control("bye")["reason"], "shutdown");
    let receipt = socket.answer_to(&json!(1));
    assert_eq!((&receipt["status"], &receipt["problem"]["outcome"]), (&json!(504), &json!("unknown")));
    assert_eq!(socket.close_code(), 1001);
    app.wait_for_exit(PATIENCE);
}

#[test]
fn shutdown_ends_in_bounded_time_whatever_the_clients_do() {
    let app = Application::on(Broker::Embedded).env("FOOTFALL_FEED__BYTES", "1MiB").start();
    // One that reads nothing, one that never confirms the close, and one that has vanished.
    let deaf = app.socket("");
    let silent = app.socket("?user=Nobody");
    let frozen = thread::spawn({
        let address = app.address;
        move || TcpStream::connect(address).expect("a connection")
    });
    let frozen = frozen.join().expect("a connection");
    let text = "x".repeat(30_000);
    let batch = vec![json!({"user": "a", "action": "flood", "text": text}); 15];
    for _ in 0..FLOOD / batch.len() {
        app.post(&json!(batch)).expect(201);
    }
    let asked = Instant::now();
    signal(app.process_id(), "TERM");
    assert!(app.wait_for_exit(PATIENCE).success());
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
    drop((deaf, silent, frozen));
}
