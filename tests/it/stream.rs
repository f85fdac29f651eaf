//! Following the events: Server-Sent Events for programs and for the page.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::http::{Arrival, Chunks, encoded};
use crate::common::sse::Parser;
use crate::common::wait::{PATIENCE, eventually};
use crate::common::{
    Application, Broker, Builder, Cursor, Follower, Frame, NewRecord, SseMessage, on_every_broker, on_three_brokers,
    random,
};
use serde_json::{Value, json};

on_every_broker! {
    the_first_bytes_carry_retry_and_a_full_cursor,
    an_event_reaches_an_open_stream_as_a_record,
    every_id_is_the_cursor_after_its_event,
    two_streams_see_the_same_records,
    a_cut_stream_resumes_from_memory,
    a_cut_stream_resumes_from_kafka_beyond_memory,
    a_stream_starts_with_the_last_n_records,
    last_event_id_wins_over_after_and_after_over_last,
    filters_select_the_events,
    the_cursor_moves_past_filtered_records,
    a_heartbeat_is_a_comment_unless_the_position_has_changed,
    an_unknown_partition_is_a_gap,
    a_cursor_beyond_the_end_is_a_gap,
    a_malformed_cursor_is_a_gap,
    a_cursor_too_far_behind_is_a_gap,
    a_partition_that_the_cursor_does_not_name_starts_at_0,
    strict_returns_400_instead_of_a_gap,
    a_stream_ends_with_bye_after_its_maximum_age,
    a_slow_client_gets_the_exact_dropped_count,
    max_rate_skips_events_and_counts_them_exactly,
    a_slow_client_does_not_delay_another,
    the_pages_stream_has_rows_of_html,
    nothing_is_lost_between_the_page_and_its_stream,
    shutdown_says_bye_and_ends_the_stream,
    a_client_cut_off_a_hundred_times_misses_and_repeats_nothing,
}

on_three_brokers! {
    every_id_is_the_cursor_after_its_event,
    a_cut_stream_resumes_from_kafka_beyond_memory,
    a_stream_starts_with_the_last_n_records,
    a_client_cut_off_a_hundred_times_misses_and_repeats_nothing,
}

// --- The wire ------------------------------------------------------------------------------------------------------

fn the_first_bytes_carry_retry_and_a_full_cursor(broker: Broker) {
    let app = Application::on(broker).start();
    let mut stream = app.stream("");
    assert_eq!(stream.next_frame(), Frame::position("0-0.1-0.2-0"));
    assert_eq!(stream.retry(), Some(Duration::from_millis(3000)));

    app.post_events(30);
    app.wait_for_the_feed();
}

#[test]
fn stream_headers_disable_caches_and_proxy_buffering() {
    let app = Application::on(Broker::Embedded).start();
    for target in ["/api/v1/stream", "/stream"] {
        let stream = crate::common::Subscription::open_with(app.address, target, &[("Accept-Encoding", "gzip, br")]);
        let cache_control = stream.head.header("Cache-Control").unwrap_or_default();
        assert!(cache_control.contains("no-cache") && cache_control.contains("no-transform"), "{:?}", stream.head);
        assert_eq!(stream.head.header("X-Accel-Buffering"), Some("no"));
        assert_eq!(stream.head.header("Content-Encoding"), None);
        assert_eq!(stream.head.header("Content-Length"), None);
    }
}

fn an_event_reaches_an_open_stream_as_a_record(broker: Broker) {
    let app = Application::on(broker).start();
    let mut stream = app.stream("");
    let receipt = app
        .request("POST", "/api/v1/events")
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .body("application/json", "{\"user\":\"John\",\n \"action\":\"login\"}")
        .send()
        .expect(201)
        .json();
    let message = stream.next();
    assert_eq!(message.event, "message", "so that onmessage gets it");
    let mut record = message.json();
    let timestamp = record["timestamp"].take();
    let timestamp = timestamp.as_str().expect("a timestamp");
    assert!(timestamp.len() == 24 && timestamp.ends_with('Z'), "{timestamp}");
    assert_eq!(
        record,
        json!({
            "topic": app.topic().name(), "partition": receipt["partition"], "offset": receipt["offset"], "timestamp": null,
            "key": "John", "id": receipt["id"], "time": receipt["time"], "source": "/footfall", "type": "footfall.user_activity",
            "headers": {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
            "value": {"user": "John", "action": "login"},
        })
    );
}

fn every_id_is_the_cursor_after_its_event(broker: Broker) {
    let app = Application::on(broker).start();
    let mut stream = app.stream("");
    let mut follower = Follower::from("0-0.1-0.2-0");
    app.post_events(300);
    follower.take_until(300, || stream.next());
    assert_eq!(follower.dropped, 0);
    assert_eq!(follower.place.to_string(), app.topic().end());
}

fn two_streams_see_the_same_records(broker: Broker) {
    let app = Application::on(broker).start();
    let (mut one, mut other) = (app.stream(""), app.stream(""));
    app.post_events(200);
    assert_eq!(one.records(200), other.records(200));
}

fn a_heartbeat_is_a_comment_unless_the_position_has_changed(broker: Broker) {
    let app = Application::on(broker).env("FOOTFALL_FEED__HEARTBEAT", "200ms").start();
    let mut stream = app.stream("?user=a");
    stream.next_frame();
    app.accept(&json!({"user": "a", "action": "b"}));
    stream.record();
    let (start, before) = (Instant::now(), stream.comments());
    while stream.comments() < before + 3 {
        assert_eq!(stream.take_in(Instant::now() + PATIENCE, usize::MAX), Arrival::Bytes);
        assert_eq!(stream.received_frames(), [], "the client has the place already");
    }
    assert!(start.elapsed() >= Duration::from_millis(400), "three heartbeats in {:?}", start.elapsed());
    // Filtered records move the position.
    app.accept(&json!({"user": "hidden", "action": "b"}));
    assert_eq!(stream.next_frame(), Frame::position(&app.topic().end()));
    // So do filtered records after an event, and only once.
    app.post(&json!([{"user": "a", "action": "b"}, {"user": "hidden", "action": "b"}])).expect(201);
    stream.record();
    if stream.last_event_id() != app.topic().end() {
        assert_eq!(stream.next_frame(), Frame::position(&app.topic().end()));
    }
    let before = stream.comments();
    while stream.comments() < before + 2 {
        assert_eq!(stream.take_in(Instant::now() + PATIENCE, usize::MAX), Arrival::Bytes);
        assert_eq!(stream.received_frames(), []);
    }
}

/// Like `@microsoft/fetch-event-source` and `httpx-sse`: an empty line ends an event, whatever came before it.
#[test]
fn a_lax_parser_can_parse_every_event_as_json() {
    let app = Application::on(Broker::Embedded)
        .env("FOOTFALL_FEED__HEARTBEAT", "100ms")
        .env("FOOTFALL_FEED__MAX_AGE", "2s")
        .start();
    for target in
        ["/api/v1/stream", "/api/v1/stream?user=Ann", "/api/v1/stream?after=nonsense", "/api/v1/stream?max_rate=1"]
    {
        let mut connection = app.request("GET", target).open();
        assert_eq!(connection.head().status, 200);
        app.post_events(30);
        app.accept(&json!({"user": "Ann", "action": "b"}));
        let (mut chunks, mut text) = (Chunks::default(), Vec::new());
        let deadline = Instant::now() + PATIENCE;
        while !chunks.is_complete() && connection.receive(deadline, usize::MAX) == Arrival::Bytes {
            chunks.decode(&mut connection.received, &mut text);
        }
        let text = String::from_utf8(text).expect("UTF-8");
        let events: Vec<&str> = text.split_terminator("\n\n").collect();
        assert!(text.contains("\n: heartbeat\n") && text.contains("event: bye\n"), "{text}");
        for event in events {
            let data: Vec<&str> = event.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
            let data = data.join("\n");
            assert!(serde_json::from_str::<Value>(&data).is_ok(), "{target}: {event:?}");
        }
    }
}

/// `@microsoft/fetch-event-source` stores an id as soon as it has read its line. If the connection breaks before the
/// event's end, it resumes after an event that it has not received, unless the id's line is the last one.
#[test]
fn the_id_of_an_event_is_its_last_line() {
    let app = Application::on(Broker::Embedded).env("FOOTFALL_FEED__MAX_AGE", "1s").start();
    for target in ["/api/v1/stream?after=0-0.1-0.2-0.3-0", "/api/v1/stream?max_rate=1", "/stream"] {
        let mut connection = app.request("GET", target).open();
        assert_eq!(connection.head().status, 200);
        app.post_events(30);
        let (mut chunks, mut text) = (Chunks::default(), Vec::new());
        let deadline = Instant::now() + PATIENCE;
        while !chunks.is_complete() && connection.receive(deadline, usize::MAX) == Arrival::Bytes {
            chunks.decode(&mut connection.received, &mut text);
        }
        let text = String::from_utf8(text).expect("UTF-8");
        let is_id = |line: &str| line.starts_with("id: ");
        let with_id: Vec<&str> = text.split_terminator("\n\n").filter(|event| event.lines().any(is_id)).collect();
        assert!(with_id.len() >= 3 && text.contains("event: bye\n"), "{target}: {text}");
        for event in with_id {
            assert!(event.lines().last().is_some_and(is_id), "{target}: {event:?}");
        }
    }
}

// --- Resuming ------------------------------------------------------------------------------------------------------

fn a_cut_stream_resumes_from_memory(broker: Broker) {
    let app = Application::on(broker).start();
    let mut stream = app.stream("");
    let mut follower = Follower::from("0-0.1-0.2-0");
    app.post_events(50);
    for _ in 0..20 {
        follower.take(&stream.next());
    }
    stream.received_frames(); // lost with the connection, from the client's position on
    let mut stream = app.stream_after(&follower.place.to_string());
    app.post_events(50);
    follower.take_until(100, || stream.next());
    assert_eq!(follower.dropped, 0);
}

fn a_cut_stream_resumes_from_kafka_beyond_memory(broker: Broker) {
    let app = Application::on(broker).env("FOOTFALL_FEED__EVENTS", "10").start();
    app.post_events(1000);
    app.wait_for_the_feed();
    let mut stream = app.stream_after("0-0.1-0.2-0");
    let mut follower = Follower::from("0-0.1-0.2-0");
    follower.take_until(1000, || stream.next());
    // It is live from there on.
    app.accept(&json!({"user": "a", "action": "b"}));
    follower.take(&stream.next());
    assert_eq!(follower.dropped, 0);
}

#[test]
fn a_cut_stream_resumes_after_a_restart_and_on_another_replica() {
    let first = Application::on(Broker::Kafka).start();
    let mut stream = first.stream("");
    let mut follower = Follower::from("0-0.1-0.2-0");
    first.post_events(60);
    for _ in 0..25 {
        follower.take(&stream.next());
    }
    let place = follower.place.to_string();
    first.kill();
    let second = first.replica().start();
    second.post_events(40);
    let third = first.replica().start();
    for app in [&second, &third] {
        let mut stream = app.stream_after(&place);
        let mut follower = Follower::from(&place);
        follower.take_until(75, || stream.next());
    }
}

fn a_partition_that_the_cursor_does_not_name_starts_at_0(broker: Broker) {
    let app = Application::on(broker).start();
    let topic = app.topic();
    for partition in 0..3 {
        topic.produce_all(&vec![NewRecord::event("a", "b").partition(partition); 4]);
    }
    let mut stream = app.stream_after("0-2");
    let mut follower = Follower::from("0-2.1-0.2-0");
    follower.take_until(10, || stream.next());
}

fn a_stream_starts_with_the_last_n_records(broker: Broker) {
    let app = Application::on(broker).start();
    for n in 0..30 {
        app.accept(&json!({"user": format!("user-{n}"), "action": "step", "n": n}));
    }
    app.wait_for_the_feed();
    let end = Cursor::parse(&app.topic().end());
    for (query, count) in [("?last=1", 1), ("?last=5", 5), ("?last=1000", 30)] {
        let records = app.stream(query).records(count);
        // The newest of every partition, up to its end and without a hole.
        for partition in 0..3 {
            let offsets: Vec<i64> =
                records.iter().filter(|r| r["partition"] == partition).filter_map(|r| r["offset"].as_i64()).collect();
            let count = offsets.len() as i64;
            assert_eq!(offsets, (end.get(partition) - count..end.get(partition)).collect::<Vec<_>>(), "{query}");
        }
    }
    // The newest that match.
    let records = app.stream("?last=2&user=user-3&user=user-8&user=user-19").records(2);
    let numbers: Vec<i64> = records.iter().filter_map(|record| record["value"]["n"].as_i64()).collect();
    assert!(numbers.contains(&19), "{numbers:?}");
}

fn last_event_id_wins_over_after_and_after_over_last(broker: Broker) {
    let app = Application::on(broker).start();
    app.topic().produce_all(&vec![NewRecord::event("a", "b").partition(0); 9]);
    app.wait_for_the_feed();
    let target = "/api/v1/stream?after=0-5.1-0.2-0&last=1";
    assert_eq!(crate::common::Subscription::open(app.address, target).record()["offset"], 5);
    let header = [("Last-Event-ID", "0-3.1-0.2-0")];
    assert_eq!(crate::common::Subscription::open_with(app.address, target, &header).record()["offset"], 3);
}

/// Embedded: by the event's own time, as far as memory reaches. Kafka: by the record's timestamp.
#[test]
fn a_stream_starts_at_a_time_in_the_past() {
    let now = time::OffsetDateTime::now_utc();
    let minutes = |n: i64| now - time::Duration::minutes(n);
    let rfc3339 =
        |time: time::OffsetDateTime| time.format(&time::format_description::well_known::Rfc3339).expect("a time");
    let ms = |time: time::OffsetDateTime| (time.unix_timestamp_nanos() / 1_000_000) as i64;

    for broker in [Broker::Embedded, Broker::Kafka] {
        let app = Application::on(broker).start();
        let mut live = app.stream("");
        for age in [120, 60, 30, 5] {
            match broker {
                Broker::Embedded => {
                    app.accept(&json!({"user": "a", "action": "b", "age": age, "time": rfc3339(minutes(age))}));
                }
                Broker::Kafka | Broker::Cluster => {
                    let value = json!({"user": "a", "action": "b", "age": age}).to_string();
                    app.topic().produce(&NewRecord::new().value(value).key("a").timestamp(ms(minutes(age))));
                }
            }
        }
        live.records(4);
        for since in ["-45m".to_owned(), "-2700s".into(), rfc3339(minutes(45)), ms(minutes(45)).to_string()] {
            let mut stream = app.stream(&format!("?since={}", encoded(&since)));
            let ages: Vec<Value> = stream.records(2).iter().map(|record| record["value"]["age"].clone()).collect();
            assert_eq!(ages, [30, 5], "{broker:?}, since={since}");
        }
        // Of nothing: only new records.
        let mut stream = app.stream("?since=-1s");
        app.accept(&json!({"user": "a", "action": "b", "age": 0}));
        assert_eq!(stream.record()["value"]["age"], 0);
    }
}

// --- Gaps ----------------------------------------------------------------------------------------------------------

#[test]
fn expired_records_are_a_gap_with_the_exact_count() {
    // Memory does not have them any more either.
    let app = Application::on(Broker::Kafka).env("FOOTFALL_FEED__EVENTS", "10").start();
    let topic = app.topic();
    for partition in 0..3 {
        topic.produce_all(&vec![NewRecord::event("a", "b").partition(partition); 40]);
    }
    topic.delete_before(0, 30);
    topic.delete_before(1, 7);
    let mut stream = app.stream_after("0-5.1-0.2-40");
    let gap = stream.control("gap");
    assert_eq!(
        gap.json(),
        json!({"requested": "0-5.1-0.2-40", "resumed": "0-30.1-7.2-40", "missed": 32, "reason": "expired"})
    );
    assert_eq!(gap.last_event_id, "0-30.1-7.2-40");
    let mut follower = Follower::from("0-30.1-7.2-40");
    follower.take_until(43, || stream.next());
}

fn a_cursor_too_far_behind_is_a_gap(broker: Broker) {
    let app =
        Application::on(broker).env("FOOTFALL_FEED__EVENTS", "10").env("FOOTFALL_FEED__MAX_CATCH_UP", "50").start();
    app.topic().produce_all(&vec![NewRecord::event("a", "b").partition(1); 500]);
    app.wait_for_the_feed();
    let mut stream = app.stream_after("0-0.1-0.2-0");
    let gap = stream.control("gap");
    let data = gap.json();
    assert_eq!((&data["requested"], &data["reason"]), (&json!("0-0.1-0.2-0"), &json!("too far behind")));
    let resumed = Cursor::parse(data["resumed"].as_str().expect("a cursor"));
    assert_eq!(data["missed"], resumed.get(1));
    assert!(resumed.get(1) > 0 && resumed.get(1) < 500, "{data}");
    let mut follower = Follower::from(&gap.last_event_id);
    let left = 500 - resumed.get(1);
    follower.take_until(left, || stream.next());
    assert_eq!(follower.dropped, 0);
}

fn an_unknown_partition_is_a_gap(broker: Broker) {
    let app = Application::on(broker).start();
    app.accept(&json!({"user": "a", "action": "b"}));
    app.wait_for_the_feed();
    let mut stream = app.stream_after("0-0.1-0.2-0.3-7");
    let gap = stream.control("gap").json();
    assert_eq!((&gap["requested"], &gap["reason"]), (&json!("0-0.1-0.2-0.3-7"), &json!("unknown partition")));
    assert_eq!(Cursor::parse(gap["resumed"].as_str().expect("a cursor")).0.len(), 3, "{gap}");
    app.accept(&json!({"user": "a", "action": "after the gap"}));
    assert_eq!(stream.record()["value"]["action"], "after the gap");
}

/// As after a topic was recreated: waiting for that offset would lose records silently.
fn a_cursor_beyond_the_end_is_a_gap(broker: Broker) {
    let app = Application::on(broker).start();
    app.accept(&json!({"user": "a", "action": "b"}));
    let mut stream = app.stream_after("0-1000.1-1000.2-1000");
    let gap = stream.control("gap").json();
    assert_eq!(
        gap,
        json!({"requested": "0-1000.1-1000.2-1000", "resumed": "0-0.1-0.2-0", "missed": null, "reason": "topic recreated"})
    );
    assert_eq!(stream.record()["value"]["action"], "b");
    app.accept(&json!({"user": "a", "action": "after the gap"}));
    assert_eq!(stream.record()["value"]["action"], "after the gap");
}

const MALFORMED: [&str; 9] =
    ["x", "0", "0-", "0--1", "1-5", "0-0.2-0", "0-0.0-0", "0-99999999999999999999", "0-0.1-0.2-0 "];

fn a_malformed_cursor_is_a_gap(broker: Broker) {
    let app = Application::on(broker).start();
    for cursor in MALFORMED {
        let mut stream = app.stream(&format!("?after={}", encoded(cursor)));
        let gap = stream.control("gap").json();
        assert_eq!((&gap["requested"], &gap["reason"]), (&json!(cursor), &json!("malformed cursor")));
        assert_eq!((&gap["resumed"], &gap["missed"]), (&json!("0-0.1-0.2-0"), &Value::Null), "{cursor}");
    }
    let mut stream = app.stream_after("nonsense");
    assert_eq!(stream.control("gap").json()["requested"], "nonsense");
    app.accept(&json!({"user": "a", "action": "b"}));
    stream.record();
}

fn strict_returns_400_instead_of_a_gap(broker: Broker) {
    let app = Application::on(broker).start();
    app.accept(&json!({"user": "a", "action": "b"}));
    let strict = |query: &str| app.get(&format!("/api/v1/stream?strict=1{query}"));
    for cursor in MALFORMED.iter().chain(&["0-0.1-0.2-0.3-7", "0-1000.1-1000.2-1000"]) {
        let problem = strict(&format!("&after={}", encoded(cursor))).expect(400).problem();
        assert_eq!(problem["retryable"], false, "{cursor}");
    }
    app.request("GET", "/api/v1/stream?strict=1").header("Last-Event-ID", "nonsense").send().expect(400).problem();
    app.stream("?strict=1&after=0-0.1-0.2-0").record();
}

#[test]
fn a_malformed_parameter_is_400() {
    let app = Application::on(Broker::Embedded).start();
    for query in [
        "last=x",
        "last=-1",
        "last=0",
        "last=1001",
        "since=noon",
        "since=-5",
        "since=-5y",
        "since=2026-01-01",
        "partition=x",
        "partition=-1",
        "f=/a",
        "f=/a~2:eq:1",
    ] {
        for path in ["/api/v1/stream", "/stream"] {
            let mut connection = app.request("GET", &format!("{path}?{query}")).open();
            assert_eq!(connection.head().status, 400, "{path}?{query}");
        }
    }
}

// --- Filters -------------------------------------------------------------------------------------------------------

fn filters_select_the_events(broker: Broker) {
    let app = Application::on(broker).start();
    let events = [
        json!({"n": 0, "user": "Ann", "action": "login"}),
        json!({"n": 1, "user": "Bob", "action": "login", "page": "/cart"}),
        json!({"n": 2, "user": "Ann", "action": "logout", "page": "/cart"}),
        json!({"n": 3, "user": "Zoë & Co", "action": "log in", "page": "/Cart"}),
        json!({"n": 4, "user": "annabel", "action": "login"}),
    ];
    let partitions: Vec<i64> =
        events.iter().map(|event| app.accept(event)["partition"].as_i64().expect("a number")).collect();
    let of_partition = |wanted: i64| (0..5).filter(|n| partitions[*n as usize] == wanted).collect::<Vec<i64>>();
    for (query, expected) in [
        ("user=Ann".to_owned(), vec![0, 2]),
        ("user=Ann&user=Bob".into(), vec![0, 1, 2]),
        ("action=login".into(), vec![0, 1, 4]),
        ("user=Ann&action=login".into(), vec![0]),
        ("user=Ann&user=Bob&action=logout&action=login".into(), vec![0, 1, 2]),
        (format!("user={}", encoded("Zoë & Co")), vec![3]),
        ("action=log+in".into(), vec![3]),
        ("q=/cart".into(), vec![1, 2, 3]),
        ("q=/cart&case=exact".into(), vec![1, 2]),
        (format!("q={}", encoded("\"page\":\"/")), vec![1, 2, 3]),
        ("q=/cart&q=annabel&case=exact".into(), vec![1, 2, 4]),
        ("q=/cart&user=Ann".into(), vec![2]),
        ("user_prefix=ANN".into(), vec![0, 2, 4]),
        ("user_prefix=zo&user=Bob".into(), vec![1, 3]),
        ("action_prefix=log&not_user=Ann&not_user=annabel".into(), vec![1, 3]),
        ("not_action=login".into(), vec![2, 3]),
        ("f=/page:exists&f=/n:lt:3".into(), vec![1, 2]),
        ("f=/page:prefix:/c&case=exact".into(), vec![1, 2]),
        ("f=/user:in:Ann,annabel&action=login".into(), vec![0, 4]),
        (format!("partition={}", partitions[0]), of_partition(partitions[0])),
        ("partition=0&partition=1&partition=2".into(), vec![0, 1, 2, 3, 4]),
        ("user=Nobody".into(), vec![]),
    ] {
        let mut stream = app.stream(&format!("?after=0-0.1-0.2-0&{query}"));
        let mut found: Vec<i64> =
            stream.records(expected.len()).iter().map(|r| r["value"]["n"].as_i64().expect("n")).collect();
        found.sort_unstable();
        assert_eq!(found, expected, "{query}");
    }
    // Later records are filtered in the same way.
    let mut stream = app.stream("?user=Ann&action=login");
    for event in &events {
        app.accept(event);
    }
    app.accept(&json!({"n": 9, "user": "Ann", "action": "login"}));
    let found: Vec<Value> = stream.records(2).iter().map(|record| record["value"]["n"].clone()).collect();
    assert_eq!(found, [0, 9]);
}

fn the_cursor_moves_past_filtered_records(broker: Broker) {
    let app = Application::on(broker).env("FOOTFALL_FEED__HEARTBEAT", "200ms").start();
    let mut stream = app.stream("?user=Nobody");
    app.post_events(100);
    let end = app.topic().end();
    let deadline = Instant::now() + PATIENCE;
    while stream.last_event_id() != end {
        match stream.frame(deadline) {
            Some(Frame::Message(message)) if message.is_position() => {}
            other => panic!("{other:?} in place of a position"),
        }
    }
}

// --- Bounds --------------------------------------------------------------------------------------------------------

fn a_stream_ends_with_bye_after_its_maximum_age(broker: Broker) {
    let app = Application::on(broker).env("FOOTFALL_FEED__MAX_AGE", "1s").start();
    let opened = Instant::now();
    let mut stream = app.stream("");
    app.accept(&json!({"user": "a", "action": "b"}));
    stream.record();
    let bye = stream.control("bye");
    assert!(opened.elapsed() >= Duration::from_millis(700), "{:?}", opened.elapsed());
    assert_eq!(bye.json(), json!({"reason": "max age"}));
    assert!(stream.ends(Instant::now() + PATIENCE));
    app.accept(&json!({"user": "a", "action": "between"}));
    assert_eq!(stream.reconnect().record()["value"]["action"], "between");
}

fn shutdown_says_bye_and_ends_the_stream(broker: Broker) {
    let app = Application::on(broker).start();
    let mut streams: Vec<_> = (0..5).map(|_| app.stream("")).collect();
    let mut page = crate::common::Subscription::open(app.address, "/stream");
    app.accept(&json!({"user": "a", "action": "b"}));
    for stream in &mut streams {
        stream.record();
    }
    page.row();
    let asked = Instant::now();
    app.terminate();
    streams.push(page);
    for stream in &mut streams {
        let bye = stream.control("bye");
        assert_eq!(bye.json(), json!({"reason": "shutdown"}));
        assert!(!bye.last_event_id.is_empty());
        assert!(stream.ends(Instant::now() + PATIENCE), "in an orderly way");
    }
    assert!(app.wait_for_exit(PATIENCE).success());
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}

#[test]
fn streams_beyond_the_limit_are_503() {
    let app = Application::on(Broker::Embedded).env("FOOTFALL_FEED__MAX_STREAMS", "3").start();
    let streams: Vec<_> = ["/api/v1/stream", "/stream", "/api/v1/stream"]
        .map(|target| crate::common::Subscription::open(app.address, target))
        .into_iter()
        .collect();
    let refused = app.get("/api/v1/stream").expect(503);
    assert!(refused.header("Retry-After").is_some_and(|seconds| seconds.parse::<u32>().is_ok()));
    assert_eq!(refused.problem()["retryable"], true);
    drop(streams);
    // A closed client is noticed at the next write.
    eventually("there is room again", || {
        app.post(&json!({"user": "a", "action": "b"})).expect(201);
        let head = app.request("GET", "/api/v1/stream").open().head();
        (head.status == 200).then_some(())
    });
}

/// More than the kernel's buffers of a connection hide.
const FLOOD: usize = 900;

/// Posts 30 kB events, far more than the feed keeps.
fn flood(app: &Application) {
    let text = "x".repeat(30_000);
    let batch: Vec<Value> =
        (0..15).map(|n| json!({"user": format!("user-{n}"), "action": "flood", "text": text})).collect();
    for _ in 0..FLOOD / batch.len() {
        app.post(&json!(batch)).expect(201);
    }
}

fn feed_of_one_megabyte(broker: Broker) -> Application {
    Application::on(broker).env("FOOTFALL_FEED__BYTES", "1MiB").env("FOOTFALL_FEED__EVENTS", "1000").start()
}

fn a_slow_client_gets_the_exact_dropped_count(broker: Broker) {
    let app = feed_of_one_megabyte(broker);
    let mut slow = app.stream("");
    slow.next_frame();
    flood(&app);
    let total = app.topic().records().len() as i64;
    let mut follower = Follower::from("0-0.1-0.2-0");
    follower.take_until(total, || slow.next());
    assert!(follower.dropped > 0, "it was not too slow");
    assert!(!follower.records.is_empty());
    // Dropped records can still be fetched, and the stream is live.
    app.accept(&json!({"user": "a", "action": "after"}));
    follower.take(&slow.next());
    let metrics = app.get("/metrics").expect(200);
    let counted = metrics
        .text()
        .lines()
        .find_map(|line| line.strip_prefix("footfall_stream_dropped_total ")?.parse::<i64>().ok());
    assert_eq!(counted, Some(follower.dropped), "{}", metrics.text());
}

/// Only a client that has caught up once loses records to eviction. The embedded broker keeps too little to show it.
#[test]
fn a_slow_client_that_resumes_loses_nothing() {
    let app = Application::on(Broker::Kafka).env("FOOTFALL_FEED__BYTES", "8MiB").start();
    let big = json!(vec![json!({"user": "Ann", "action": "big", "text": "x".repeat(30_000)}); 15]);
    (0..10).for_each(|_| drop(app.post(&big).expect(201)));
    app.wait_for_the_feed();
    // It begins in memory, which has more for it than any buffer takes.
    let mut slow = app.stream_after("0-0.1-0.2-0");
    slow.next_frame();
    flood(&app);
    let total = app.topic().records().len() as i64;
    let mut follower = Follower::from("0-0.1-0.2-0");
    follower.take_until(total, || slow.next());
    assert_eq!(follower.dropped, 0);
}

fn max_rate_skips_events_and_counts_them_exactly(broker: Broker) {
    // From memory, and from Kafka before that.
    for (memory, before) in [("50000", true), ("1000", false)] {
        let app = Application::on(broker).env("FOOTFALL_FEED__EVENTS", memory).start();
        let query = format!("?max_rate=10&user=user-3&after={}", app.topic().end());
        let live = before.then(|| app.stream(&query));
        app.post_events(3400);
        app.wait_for_the_feed();
        let mut stream = live.unwrap_or_else(|| app.stream(&query));
        let (mut shown, mut skipped, mut place) = (0, 0, None);
        while shown + skipped < 200 {
            let message = stream.next();
            place = Some(message.last_event_id.clone());
            match message.event.as_str() {
                "skipped" => {
                    assert_eq!(message.json()["to"], message.last_event_id.as_str());
                    skipped += message.json()["count"].as_u64().expect("a count");
                }
                "message" => shown += 1,
                other => panic!("{other}"),
            }
        }
        assert_eq!(shown + skipped, 200, "{shown} shown, {skipped} skipped");
        assert!((20..100).contains(&shown), "{shown} shown");
        // Nothing is between the last shown record and the end.
        let rest = app.get(&format!("/api/v1/events?from={}&user=user-3", place.expect("a place"))).expect(200);
        assert_eq!(rest.json()["events"], json!([]));
    }
}

fn a_slow_client_does_not_delay_another(broker: Broker) {
    let app = feed_of_one_megabyte(broker);
    let slow: Vec<_> = (0..5).map(|_| app.stream("")).collect();
    let mut quick = app.stream("?q=marker");
    flood(&app);
    let start = Instant::now();
    app.accept(&json!({"user": "a", "action": "marker"}));
    // If memory evicted records before this machine woke the client, it gets `dropped` first.
    while quick.next().event != "message" {}
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    drop(slow);
}

#[test]
fn clients_that_catch_up_slowly_do_not_block_other_reads() {
    let app = feed_of_one_megabyte(Broker::Kafka);
    flood(&app);
    let slow: Vec<_> = (0..10)
        .map(|_| {
            let mut stream = app.stream_after("0-0.1-0.2-0");
            stream.next();
            stream
        })
        .collect();
    let start = Instant::now();
    app.get("/api/v1/events?from=beginning&limit=1").expect(200);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    drop(slow);
}

/// Reads at a slow pace until the stream ends; returns the text, and how long that took.
fn read_slowly(app: &Application, target: &str, bytes_a_turn: usize, until: Instant) -> String {
    let mut connection = app.request("GET", target).open();
    assert_eq!(connection.head().status, 200);
    let (mut chunks, mut text) = (Chunks::default(), Vec::new());
    while !chunks.is_complete() && connection.receive(until, bytes_a_turn) == Arrival::Bytes {
        chunks.decode(&mut connection.received, &mut text);
        thread::sleep(Duration::from_millis(20));
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn a_client_that_is_always_behind_gets_heartbeats_and_its_end() {
    let app = Application::on(Broker::Kafka)
        .env("FOOTFALL_FEED__BYTES", "1MiB")
        .env("FOOTFALL_FEED__HEARTBEAT", "200ms")
        .env("FOOTFALL_FEED__MAX_AGE", "3s")
        .start();
    flood(&app);
    for target in ["/api/v1/stream?after=0-0.1-0.2-0", "/api/v1/stream?after=0-0.1-0.2-0&max_rate=100000"] {
        let started = Instant::now();
        let text = read_slowly(&app, target, 64 * 1024, started + PATIENCE);
        assert!(started.elapsed() < Duration::from_secs(8), "{target}: {:?}", started.elapsed());
        assert!(text.contains(": heartbeat\n") || text.contains("event: position\n"), "{target}");
        let last = text.trim_end().rsplit("\n\n").next().unwrap_or_default();
        assert!(last.contains("event: bye\ndata: {\"reason\":\"max age\"}"), "{target}: {last:.200}");
    }
}

#[test]
fn a_client_that_hangs_up_while_it_catches_up_frees_its_permit() {
    let app = Application::on(Broker::Kafka)
        .env("FOOTFALL_FEED__BYTES", "1MiB")
        .env("FOOTFALL_FEED__HEARTBEAT", "200ms")
        .start();
    flood(&app);
    for _ in 0..30 {
        let mut connection = app.request("GET", "/api/v1/stream?after=0-0.1-0.2-0&max_rate=1").open();
        assert_eq!(connection.head().status, 200);
    }
    let started = Instant::now();
    let mut stream = app.stream_after("0-0.1-0.2-0");
    stream.record();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

// --- The page's stream ---------------------------------------------------------------------------------------------

fn the_pages_stream_has_rows_of_html(broker: Broker) {
    let app = Application::on(broker).start();
    let mut rows = crate::common::Subscription::open(app.address, "/stream?user=Ann");
    app.accept(&json!({"user": "Bob", "action": "hidden"}));
    let receipt = app.accept(&json!({"user": "Ann", "action": "<script>alert(1)</script>", "note": "one\r\ntwo"}));
    let row = rows.row();
    let id = format!("id=\"e-{}-{}\"", receipt["partition"], receipt["offset"]);
    assert!(row.data.starts_with("<li") && row.data.contains(&id) && row.data.ends_with("</li>"), "{row:?}");
    assert!(!row.data.contains("<script"), "{row:?}");
    assert_eq!(row.last_event_id, app.topic().end());
    // The same row as the server renders for the first paint.
    let page = app.request("GET", "/?user=Ann").header("Accept", "text/html").send().expect(200);
    assert!(page.text().contains(row.data.trim()), "{}\n{}", row.data, page.text());
}

fn nothing_is_lost_between_the_page_and_its_stream(broker: Broker) {
    let app = Application::on(broker).start();
    app.post_events(20);
    let page = app.request("GET", "/").header("Accept", "text/html").send().expect(200);
    let cursor = page.text().split("data-cursor=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a cursor");
    let rendered: Vec<&str> = page.text().split("id=\"e-").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    app.post_events(20);
    let mut stream = crate::common::Subscription::open(app.address, &format!("/stream?after={cursor}"));
    let mut rows: Vec<String> = rendered.iter().map(|id| (*id).to_owned()).collect();
    while rows.len() < 40 {
        let row = stream.row();
        rows.push(row.data.split("id=\"e-").nth(1).and_then(|rest| rest.split('"').next()).expect("an id").to_owned());
    }
    crate::common::assert_same_set(
        app.topic().records().iter().map(|record| format!("{}-{}", record.partition, record.offset)),
        rows,
    );
}

// --- Cut off at random ---------------------------------------------------------------------------------------------

/// A thread that posts while another one reads, as fast as it can.
#[derive(Default)]
struct Writer {
    may_write: AtomicI64,
    written: AtomicI64,
    stopped: AtomicBool,
}

impl Writer {
    /// Posts until it is stopped; returns the number of events.
    fn run(&self, app: &Application) -> i64 {
        let mut written = 0;
        while !self.stopped.load(Ordering::Relaxed) {
            if written >= self.may_write.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(1));
                continue;
            }
            let event = |n: i64| json!({"user": format!("user-{n}"), "action": "step"});
            let batch: Vec<Value> = (written..written + 20).map(event).collect();
            app.post(&json!(batch)).expect(201);
            written += 20;
            self.written.store(written, Ordering::Relaxed);
        }
        written
    }

    fn let_write(&self, events: i64) {
        self.may_write.store(events, Ordering::Relaxed);
    }

    fn written(&self) -> i64 {
        self.written.load(Ordering::Relaxed)
    }
}

/// Stops the writer even if the reader panics.
struct Stop<'a>(&'a Writer);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stopped.store(true, Ordering::Relaxed);
    }
}

fn a_client_cut_off_a_hundred_times_misses_and_repeats_nothing(broker: Broker) {
    const CUTS: usize = 100;
    let mut random = random();
    // Memory holds less than is written during some of the cuts, so that both ways of resuming are taken.
    let start = |builder: Builder| builder.env("FOOTFALL_FEED__EVENTS", "200").start();
    let app = start(Application::on(broker));
    let replica = (broker != Broker::Embedded).then(|| start(app.replica()));
    let addresses: Vec<_> = [Some(&app), replica.as_ref()].into_iter().flatten().map(|app| app.address).collect();

    let writer = Writer::default();
    let follower = thread::scope(|scope| {
        let writing = scope.spawn(|| writer.run(&app));
        let stop = Stop(&writer);
        let mut follower = Follower::from("0-0.1-0.2-0");
        let mut stream = app.stream_after("0-0.1-0.2-0");
        for _ in 0..CUTS {
            // Some bytes, and a cut anywhere in them.
            let deadline = Instant::now() + PATIENCE;
            let mut bytes = random.usize(..40_000);
            while bytes > 0 {
                writer.let_write(follower.seen() + 80);
                let piece = bytes.min(random.usize(1..=3000));
                bytes -= piece;
                assert_eq!(stream.take_in(deadline, piece), Arrival::Bytes);
                for frame in stream.received_frames() {
                    if let Frame::Message(message) = frame {
                        follower.take(&message);
                    }
                }
            }
            let meanwhile = writer.written() + random.i64(0..4) * 80;
            writer.let_write(meanwhile);
            eventually("events are written while the client is away", || (writer.written() >= meanwhile).then_some(()));
            let address = addresses[random.usize(..addresses.len())];
            stream = stream.reconnect_to(address);
        }
        drop(stop);
        let written = writing.join().expect("the writer ends");
        println!(
            "{written} events are written, the topic ends at {}, the client is at {}",
            app.topic().end(),
            follower.place
        );
        follower.take_until(written, || stream.next());
        follower
    });
    assert_eq!(follower.dropped, 0);
    crate::common::assert_same_set(
        app.topic().records().iter().map(|record| (i64::from(record.partition), record.offset)),
        follower.records.iter().map(|(partition, offset, _)| (*partition, *offset)),
    );
    assert!(follower.place.0.iter().all(|next| *next > 0), "three partitions are written to: {}", follower.place);
}

// --- The client of these tests -------------------------------------------------------------------------------------

/// The examples of the HTML standard, section 9.2.6, and its rules for lines and ids.
#[test]
fn the_client_of_these_tests_follows_the_standard() {
    let parse = |text: &[u8]| {
        let mut parser = Parser::default();
        // One byte at a time: no rule may depend on how the network cuts.
        text.iter().for_each(|byte| parser.feed(&[*byte]));
        parser
    };
    let message = |event: &str, data: &str, id: &str| {
        Frame::Message(SseMessage { event: event.into(), data: data.into(), last_event_id: id.into() })
    };
    let silent = |id: &str| Frame::Silent { last_event_id: id.into() };

    let parser = parse(b"data: YHOO\ndata: +2\ndata: 10\n\n");
    assert_eq!(parser.frames, [message("message", "YHOO\n+2\n10", "")]);
    let parser = parse(b": test stream\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n");
    let expected = [
        message("message", "first event", "1"),
        message("message", "second event", ""),
        message("message", " third event", ""),
    ];
    assert_eq!(parser.frames, expected);
    let parser = parse(b"data\n\ndata\ndata\n\ndata:");
    assert_eq!(parser.frames, [message("message", "", ""), message("message", "\n", "")]);
    // Byte order mark, all three line ends, an id without data, an unfinished frame.
    let parser = parse(b"\xef\xbb\xbfretry: 250\r\nid: 7\r\revent: gap\rdata: {}\n\nid: 8\ndata: cut");
    assert_eq!(parser.frames, [silent("7"), message("gap", "{}", "7")]);
    assert_eq!((parser.retry, parser.last_event_id.as_str()), (Some(Duration::from_millis(250)), "7"));
}

#[test]
fn streams_that_wait_for_kafka_count() {
    let app = Application::at("127.0.0.1:9").env("FOOTFALL_FEED__MAX_STREAMS", "2").start_without_waiting_for_kafka();
    let _streams = [app.stream(""), app.stream("?last=3")];
    app.get("/api/v1/stream").expect(503);
}

#[test]
fn filter_values_beyond_the_limit_are_400() {
    let app = Application::on(Broker::Embedded).start();
    let users = |count: usize| format!("?{}", vec!["user=a"; count].join("&"));
    app.stream(&users(10));
    for target in ["/api/v1/stream", "/stream", "/api/v1/events", "/api/v1/events.ndjson"] {
        let refused = app.get(&format!("{target}{}", users(11))).expect(400).problem();
        let detail = refused["detail"].as_str().unwrap_or_default();
        assert!(detail.contains("user must have at most 10 values, not 11"), "{refused}");
    }
}
