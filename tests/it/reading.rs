//! Readers while Kafka serves only a part, and what they cost: partitions without a leader, revoked rights, clients
//! that hang up, fall behind, or send invalid cursors.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::acl::{DESCRIBE, READ, WRITE};
use crate::common::http::{Connection, encoded};
use crate::common::wait::{PATIENCE, eventually, within};
use crate::common::{Application, Broker, Cursor, Frame, HEALING, Kafka, NewRecord, Resources, Topic, User};
use serde_json::{Value, json};

fn reads(app: &Application, kind: &str) -> f64 {
    app.metric(&format!("footfall_reads{{kind=\"{kind}\"}}")).expect("a series of every kind")
}

/// Writes records into each of three partitions.
fn write(topic: &Topic, each: usize, size: usize) {
    let record = |n: usize| {
        let value = json!({"user": format!("user-{}", n % 7), "action": "view", "n": n, "pad": "x".repeat(size)});
        NewRecord::new().value(value.to_string()).partition((n % 3) as i32)
    };
    let at_once = (8_000_000 / (size + 100)).max(1);
    for chunk in (0..3 * each).collect::<Vec<_>>().chunks(at_once) {
        topic.produce_all(&chunk.iter().map(|n| record(*n)).collect::<Vec<_>>());
    }
}

fn write_to(topic: &Topic, partition: i32, action: &str) {
    topic.produce(&NewRecord::event("Ann", action).partition(partition));
}

fn place(record: &Value) -> (i64, i64) {
    (record["partition"].as_i64().expect("a partition"), record["offset"].as_i64().expect("an offset"))
}

// --- Partitions without a leader ---------------------------------------------------------------------------------------

#[test]
fn a_partition_without_a_leader_does_not_block_the_others() {
    let kafka = Kafka::start_brokers(3);
    let [topic, busy] = [(); 2].map(|()| Topic::create_on(kafka.servers(), &[1, 2, 3]));
    write(&topic, 5, 10);
    write(&busy, 5, 10);
    kafka.kill(2);

    // It starts while partition 1 has no leader.
    let app = Application::at(kafka.servers()).topic(&topic).start_without_waiting_for_kafka();
    let small = Application::at(kafka.servers()).topic(&busy).env("FOOTFALL_FEED__EVENTS", "200");
    let small = small.start_without_waiting_for_kafka();
    for app in [&app, &small] {
        within(HEALING, "it is ready", || (app.get("/readyz").status() == 200).then_some(()));
    }
    let ready = app.get("/readyz?verbose").expect(200);
    assert!(ready.text().contains("leader-missing: partition 1 has no leader"), "{}", ready.text());
    let started = Instant::now();
    let unknown = format!("0-5.1-{}.2-5", i64::MAX);
    let (mut live, mut socket) = (app.stream(""), app.socket(""));
    let mut informed = [app.stream("?user=nobody"), app.stream("?partition=0&user=nobody")];
    assert_eq!(live.next_frame(), Frame::position(&unknown));
    assert!(
        live.status("impaired")["reason"].as_str().is_some_and(|reason| reason.contains("partition 1 has no leader"))
    );
    socket.status("impaired");
    let mut resumed = app.stream_after("0-1.1-3.2-0");
    let mut found: Vec<_> = resumed.records(9).iter().map(place).collect();
    found.sort_unstable();
    let expected = (1..5).map(|offset| (0, offset)).chain((0..5).map(|offset| (2, offset)));
    assert_eq!(found, expected.collect::<Vec<_>>());
    // By time, missing records are announced.
    let mut since = app.stream("?since=-1h");
    let gap = since.control("gap").json();
    assert_eq!((&gap["reason"], &gap["missed"]), (&json!("no leader"), &Value::Null), "{gap}");
    assert_eq!(since.records(10).len(), 10);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    write_to(&topic, 0, "meanwhile");
    for record in [live.record(), socket.record(), resumed.record(), since.record()] {
        assert_eq!(place(&record), (0, 5));
    }

    // Answers that include that partition report it, and the others can be requested.
    for target in [
        "/api/v1/events",
        "/api/v1/events.ndjson",
        "/api/v1/events.csv?q=x",
        "/api/v1/events?partition=1",
        "/history/search?q=x",
        "/api/v1/users/Ann?partitions=all",
        "/api/v1/events?since=-1h",
    ] {
        let problem = app.get(target).expect(503).problem();
        assert!(problem["detail"].as_str().is_some_and(|it| it.contains("partition 1 has no leader")), "{problem}");
    }
    let page = app.request("GET", "/history").header("Accept", "text/html").send().expect(200);
    assert!(page.text().contains("partition 1 has no leader"), "{}", page.text());
    let others = app.get("/api/v1/events?partition=0&partition=2").expect(200).json();
    assert_eq!((others["events"].as_array().map(Vec::len), &others["next"]), (Some(11), &Value::Null), "{others}");
    assert_eq!(app.get("/api/v1/events.ndjson?partition=2").expect(200).text().lines().count(), 5);

    // It has a leader again: clients that started meanwhile get the records written since and a gap, clients that
    // resumed get what they missed.
    let restart = || kafka.restart(2);
    streams_miss_nothing_silently_while_a_partition_gets_its_leader(&small, &busy, restart);
    drop(small);
    informed.iter_mut().for_each(|stream| drop(stream.status("up")));
    for gap in [live.control("gap").json(), since.control("gap").json(), socket.control("gap")] {
        assert_eq!((&gap["reason"], &gap["missed"]), (&json!("no leader"), &Value::Null), "{gap}");
        assert_eq!(gap["resumed"], "0-6.1-5.2-5", "{gap}");
    }
    let mut missing: Vec<_> = resumed.records(2).iter().map(place).collect();
    missing.sort_unstable();
    assert_eq!(missing, [(1, 3), (1, 4)]);
    write_to(&topic, 1, "again");
    for record in [live.record(), socket.record(), resumed.record(), since.record()] {
        assert_eq!(place(&record), (1, 5));
    }
    within(HEALING, "all is read", || (app.get("/readyz").text() == "ok\n").then_some(()));
    // So does a client with an older cursor.
    let mut late = app.stream_after(&unknown);
    let gap = late.control("gap").json();
    assert_eq!((&gap["reason"], &gap["resumed"]), (&json!("no leader"), &json!("0-5.1-5.2-5")), "{gap}");
    let mut found: Vec<_> = late.records(2).iter().map(place).collect();
    found.sort_unstable();
    assert_eq!(found, [(0, 5), (1, 5)]);
    let stats = eventually("the last day was read", || {
        Some(app.get("/api/v1/stats").expect(200).json()).filter(|stats| stats["filling"] == false)
    });
    assert_eq!(stats["last_24h"]["events"], 17, "{stats}");

    // It loses its leader while a client catches up from Kafka.
    write(&topic, 200, 10);
    let small = app.replica().env("FOOTFALL_FEED__EVENTS", "100").start();
    // Under load a record may be written twice.
    let end = Cursor::parse(&topic.end());
    kafka.kill(3);
    within(HEALING, "it is known", || {
        small.get("/readyz").text().contains("leader-missing: partition 2 has no leader").then_some(())
    });
    // A filter for other partitions is not affected.
    let mut only = small.stream("?partition=0&after=0-0.1-0.2-0");
    let mut behind = small.stream_after("0-0.1-0.2-0");
    only.records(end.get(0) as usize);
    let records = behind.records((end.get(0) + end.get(1)) as usize);
    assert!(records.iter().all(|record| record["partition"] != 2), "partition 2 cannot be read");
    let gap = behind.control("gap").json();
    assert_eq!(gap["reason"], "no leader", "{gap}");
    let missed = gap["missed"].as_i64().expect("a number");
    assert!((1..=end.get(2)).contains(&missed), "{gap}");
    write_to(&topic, 0, "live");
    assert_eq!(only.record()["value"]["action"], "live");
    // Its records in memory follow the gap.
    let left = end.get(2) - missed;
    let rest = behind.records(left as usize + 1);
    assert_eq!(rest.iter().filter(|record| record["partition"] == 2).count() as i64, left);
    assert_eq!([app.panics(), small.panics()].concat(), Vec::<String>::new());
}

/// Another writer writes as soon as partition 1 has a leader, and clients arrive with cursors that do not know it:
/// before that, while the tail does not read it yet, and afterwards.
fn streams_miss_nothing_silently_while_a_partition_gets_its_leader(
    app: &Application,
    topic: &Topic,
    restart: impl FnOnce(),
) {
    // The position is older than memory.
    topic.produce_all(&vec![NewRecord::event("Ann", "before").partition(0); 400]);
    let written = Frame::position(&format!("0-405.1-{}.2-5", i64::MAX));
    within(HEALING, "they are read", || (app.stream("").next_frame() == written).then_some(()));
    let unknown = format!("0-5.1-{}.2-5", i64::MAX);
    let mut readers = vec![app.stream_after(&unknown), app.stream("")];
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                topic.produce_all(&vec![NewRecord::event("Ann", "at once").partition(1); 5]);
                thread::sleep(Duration::from_millis(50));
            }
        });
        restart();
        within(HEALING, "partition 1 is read", || {
            if readers.len() < 40 {
                readers.push(app.stream_after(&unknown));
            }
            thread::sleep(Duration::from_millis(50));
            (app.get("/readyz").text() == "ok\n").then_some(())
        });
        readers.push(app.stream_after(&unknown));
        stop.store(true, Ordering::Relaxed);
    });
    let end = Cursor::parse(&topic.end()).get(1);
    for mut reader in readers {
        let (mut gaps, mut next) = (0, None);
        while next != Some(end) {
            let message = reader.next();
            match &*message.event {
                "gap" => {
                    let gap = message.json();
                    assert_eq!((&gap["reason"], &gap["missed"]), (&json!("no leader"), &Value::Null), "{gap}");
                    next = gap["resumed"].as_str().map(|place| Cursor::parse(place).get(1));
                    assert_eq!(next, Some(5), "{gap}");
                    gaps += 1;
                }
                "message" if message.json()["partition"] == 1 => {
                    assert_eq!(Some(place(&message.json()).1), next, "{message:?}");
                    next = next.map(|next| next + 1);
                }
                "message" => {}
                other => panic!("{other}: {message:?}"),
            }
        }
        assert_eq!(gaps, 1);
    }
    assert_eq!(app.panics(), Vec::<String>::new());
}

// --- Rights ------------------------------------------------------------------------------------------------------------

#[test]
fn open_streams_get_the_status_of_missing_rights_or_topic_and_continue_afterwards() {
    let (kafka, secured) = Kafka::start_with_acls();
    let topic = Topic::create(kafka.servers(), 1, &[]);
    let user = User::create(kafka.servers(), "app", "secret");
    let all = [DESCRIBE, READ, WRITE];
    user.grant(topic.name(), &all);
    let app = Application::at(&secured).login(&user, "secret").topic(&topic).env("FOOTFALL_FEED__EVENTS", "10").start();
    (0..200).for_each(|n| drop(app.accept(&json!({"user": "Ann", "action": "before", "n": n}))));
    eventually("all are in memory", || app.get("/readyz?verbose").text().contains("reads, at 0-200\n").then_some(()));
    let (mut stream, mut socket) = (app.stream(""), app.socket(""));
    let mut page = crate::common::Subscription::open(app.address, "/stream");
    page.status("up");
    let ready = || app.get("/readyz").status() == 200;
    let words = format!("user `app` may not read topic `{}`: grant READ on it", topic.name());
    for (next, (withdrawn, broker)) in (200..).zip([(&[READ][..], "impaired"), (&all[..], "away")]) {
        user.revoke(topic.name(), withdrawn);
        for status in [stream.status(broker), socket.status(broker), page.status(broker)] {
            let reason = status["reason"].as_str().expect("a reason");
            assert!(broker != "impaired" || reason == words, "{status}");
        }
        assert!(!ready());
        // A new client gets the same status at once, even if it must catch up.
        let mut behind = app.stream_after("0-0");
        behind.status(broker);
        let mut also = app.socket("?after=0-0");
        also.status(broker);
        // Nothing is written: recovery must be visible without that.
        user.grant(topic.name(), withdrawn);
        within(HEALING, "it is ready", || ready().then_some(()));
        for status in [stream.status("up"), socket.status("up"), page.status("up")] {
            assert_eq!(status["reason"], Value::Null);
        }
        let offsets: Vec<i64> = behind.records(next as usize).iter().map(|record| place(record).1).collect();
        assert_eq!(offsets, (0..next).collect::<Vec<_>>());
        (0..next).for_each(|offset| assert_eq!(place(&also.record()).1, offset));
        app.accept(&json!({"user": "Ann", "action": "after"}));
        for record in [stream.record(), socket.record(), behind.record(), also.record()] {
            assert_eq!(place(&record).1, next);
        }
        page.row();
    }

    // The topic is deleted under streams that are live and under one that catches up, and recreated.
    let mut behind = app.stream_after("0-0");
    behind.record();
    topic.delete();
    for status in [stream.status("away"), socket.status("away"), page.status("away")] {
        assert!(status["reason"].as_str().is_some_and(|reason| reason.contains("does not exist")), "{status}");
    }
    assert!(!ready());
    topic.make(1);
    within(HEALING, "it is ready", || ready().then_some(()));
    app.accept(&json!({"user": "Ann", "action": "again"}));
    let gap = stream.control("gap").json();
    assert_eq!((&gap["reason"], &gap["resumed"]), (&json!("topic recreated"), &json!("0-0")), "{gap}");
    assert_eq!(stream.record()["value"]["action"], "again");
    assert_eq!(socket.control("gap")["reason"], "topic recreated");
    assert_eq!(socket.record()["value"]["action"], "again");
    // It gets the remaining records before the gap.
    let gap = within(HEALING, "the gap comes", || Some(behind.next()).filter(|message| message.event == "gap"));
    assert_eq!(gap.json()["reason"], "topic recreated");
    assert_eq!(behind.record()["value"]["action"], "again");
    assert_eq!(app.panics(), Vec::<String>::new());
}

// --- Clients that hang up ----------------------------------------------------------------------------------------------

/// How soon abandoned work ends. Without optimisation each step takes several times as long.
const SOON: Duration = Duration::from_millis(if cfg!(debug_assertions) { 400 } else { 200 });

/// A request whose answer is not read.
fn send(app: &Application, target: &str, headers: &str) -> TcpStream {
    let mut client = TcpStream::connect(app.address).expect("a connection");
    let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    client.write_all(head.as_bytes()).expect("an open connection");
    client
}

const WEBSOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[test]
fn one_address_leaves_streams_of_the_overview_to_others() {
    let app = Application::on(Broker::Embedded).env("FOOTFALL_FEED__MAX_STREAMS", "4").start();
    let open: Vec<_> = (0..3).map(|_| crate::common::Subscription::open(app.address, "/stream/overview")).collect();
    let problem = app.get("/stream/overview").expect(503).problem();
    assert!(problem["detail"].as_str().is_some_and(|it| it.contains("3 streams of this address")), "{problem}");
    drop(open);
    eventually("there is room again", || {
        let status = Connection::open(app.request("GET", "/stream/overview")).head().status;
        (status == 200).then_some(())
    });
}

// --- Memory ------------------------------------------------------------------------------------------------------------

#[test]
fn many_filters_leave_the_records_in_memory() {
    let app = Application::on(Broker::Embedded).env("FOOTFALL_FEED__BYTES", "4MiB").start();
    let batch = json!(vec![json!({"user": "Ann", "action": "look", "pad": "x".repeat(2000)}); 100]);
    (0..12).for_each(|_| drop(app.post(&batch).expect(201)));
    eventually("all are in memory", || (app.metric("footfall_feed_kept_records") == Some(1200.0)).then_some(()));
    let mut buffer = vec![0; 256 << 10];
    let streams: Vec<TcpStream> = (0..40)
        .map(|n| {
            let mut stream = send(&app, &format!("/api/v1/stream?after=0-0.1-0.2-0&q=Ann&q=absent-{n}"), "");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            let mut found = 0;
            while found < 1200 {
                let count = stream.read(&mut buffer).expect("more records");
                assert!(count > 0, "the stream ended");
                found += buffer[..count].windows(9).filter(|window| window == b"\"offset\":").count();
                // A name that is split in two is missed now and then.
                found += usize::from(found >= 1190 && count < 64);
            }
            stream
        })
        .collect();
    app.accept(&json!({"user": "Ann", "action": "last"}));
    eventually("it is in memory too", || (app.metric("footfall_feed_kept_records") == Some(1201.0)).then_some(()));
    let [kept, encoded] =
        ["kept", "encoded"].map(|which| app.metric(&format!("footfall_feed_{which}_bytes")).expect(which));
    assert!(kept + encoded <= f64::from(4 << 20), "{kept} + {encoded}");
    let mut late = app.stream_after("0-0.1-0.2-0");
    assert_eq!(late.records(1201).len(), 1201);
    drop(streams);
}

/// A frame of a client with the mask 0.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length: &[u8] = match payload.len() {
        length @ 0..126 => &[0x80 | length as u8],
        length => &[0x80 | 126, (length >> 8) as u8, length as u8],
    };
    [&[first], length, &[0; 4], payload].concat()
}

// --- The end -----------------------------------------------------------------------------------------------------------

#[test]
fn shutdown_does_not_wait_for_clients_that_are_always_behind_and_sends_them_bye() {
    let app = Application::on(Broker::Kafka).env("FOOTFALL_FEED__BYTES", "1MiB").start();
    write(app.topic(), 300, 30_000);
    let targets = [
        ("/api/v1/stream?after=0-0.1-0.2-0", "", "event: bye\ndata: {\"reason\":\"shutdown\"}"),
        ("/api/v1/ws?after=0-0.1-0.2-0", WEBSOCKET, "\"type\":\"bye\""),
    ];
    let readers: Vec<_> = targets
        .into_iter()
        .map(|(target, headers, bye)| {
            let mut client = send(&app, target, headers);
            client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            thread::spawn(move || {
                // 3 MB/s, and the bytes in the socket at the end.
                let (mut text, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
                while let Ok(count) = client.read(&mut buffer)
                    && count > 0
                {
                    text.extend_from_slice(&buffer[..count]);
                    thread::sleep(Duration::from_millis(20));
                }
                let has_bye = text.windows(bye.len()).any(|window| window == bye.as_bytes());
                (target, has_bye, text.len())
            })
        })
        .collect();
    thread::sleep(Duration::from_millis(500));
    let asked = Instant::now();
    app.terminate();
    assert!(app.wait_for_exit(PATIENCE).success());
    let took = asked.elapsed();
    for reader in readers {
        let (target, has_bye, bytes) = reader.join().expect("no panic");
        assert!(has_bye, "{target}: no bye in {bytes} bytes");
        assert!(bytes < 25_000_000, "{target}: it was not behind");
    }
    assert!(took < Duration::from_secs(3), "{took:?}");
}

// --- What is no place --------------------------------------------------------------------------------------------------

#[test]
fn any_cursor_is_resumed_or_announced_as_a_gap() {
    let app = Application::on(Broker::Embedded).start();
    let past = format!("0-{}", i64::MAX - 1);
    let most = format!("0-{}", i64::MAX);
    let long = "0-1.".repeat(17_000);
    let many = (0..3000).map(|n| format!("{n}-0")).collect::<Vec<_>>().join(".");
    for (text, reason) in [
        ("\0", "malformed cursor"),
        ("\u{80}\u{ff}", "malformed cursor"),
        ("0-1\r\nX: y", "malformed cursor"),
        ("0--1", "malformed cursor"),
        ("-1-0", "malformed cursor"),
        ("0-18446744073709551616", "malformed cursor"),
        ("0-9223372036854775808", "malformed cursor"),
        ("0-٣", "malformed cursor"),
        ("0-1.0-2", "malformed cursor"),
        ("1-0", "malformed cursor"),
        ("0-+1", "malformed cursor"),
        ("🦊", "malformed cursor"),
        (" ", "malformed cursor"),
        (&*long, "malformed cursor"),
        (&*many, "unknown partition"),
        ("0-0.1-0.2-0.3-0", "unknown partition"),
        (&*past, "topic recreated"),
        ("0-1", "topic recreated"),
        (&*most, "no leader"),
    ] {
        let shown = text.chars().take(30).collect::<String>();
        let query = format!("after={}", encoded(text));
        if query.len() > 32_000 {
            app.get(&format!("/api/v1/stream?{query}")).expect(414).problem();
        } else {
            let mut stream = app.stream(&format!("?{query}"));
            assert_eq!(stream.control("gap").json()["reason"], reason, "{shown:?}");
            let mut socket = app.socket(&format!("?{query}"));
            assert_eq!(socket.control("gap")["reason"], reason, "{shown:?}");
            app.get(&format!("/api/v1/stream?{query}&strict=1")).expect(400).problem();
        }
        // As a header, if that is possible: each byte unchanged.
        if !text.bytes().any(|byte| byte.is_ascii_control()) && !text.trim().is_empty() {
            let request = app.request("GET", "/api/v1/stream").header("Last-Event-ID", text);
            let mut connection = Connection::open(request);
            let head = connection.head();
            let expected = if text.len() > 60_000 { 431 } else { 200 };
            assert_eq!(head.status, expected, "{shown:?}");
            if expected == 200 {
                let deadline = Instant::now() + PATIENCE;
                while !String::from_utf8_lossy(&connection.received).contains(reason) {
                    assert!(
                        Instant::now() < deadline,
                        "{shown:?}: {:?}",
                        String::from_utf8_lossy(&connection.received)
                    );
                    connection.receive(deadline, usize::MAX);
                }
            }
        }
    }
    // Bytes that are not UTF-8, in the query and in the header, where no standard client puts them.
    app.get("/api/v1/stream?after=%80%FF").expect(400).problem();
    let header = b"GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: 0-\x80\xff\r\n\r\n";
    let mut client = TcpStream::connect(app.address).expect("a connection");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    client.write_all(header).expect("an open connection");
    let mut status = [0; 12];
    client.read_exact(&mut status).expect("an answer");
    assert_eq!(&status, b"HTTP/1.1 400");
    // A cursor is not a message: as the first message of a socket it is a problem.
    for text in ["0-1", "\u{0}", "\"0-1.1-0\"", "{\"type\":\"resume\",\"cursor\":\"0--1\"}"] {
        let mut socket = app.socket("");
        socket.send_text(text);
        assert_eq!(socket.answer()["status"], 400, "{text:?}");
    }
    let mut socket = app.socket("");
    socket.send_raw(&frame(0x81, b"0-\x80\xff"));
    assert_eq!(socket.close_code(), 1007);
    assert_eq!(app.panics(), Vec::<String>::new());
}

/// Tests whose limits the load of other tests could break: `dev/test` without arguments runs them alone.
mod alone {
    use super::*;

    #[test]
    fn abandoned_work_ends_at_once_and_costs_little() {
        let app = Application::on(Broker::Kafka).start();
        write(app.topic(), 2200, 31_000); // 200 MB
        let app = app.replica().start();
        for (kind, target, headers) in [
            ("scan", "/api/v1/events?q=absent&from=beginning", ""),
            ("scan", "/history?q=absent&from=beginning", ""),
            ("scan", "/api/v1/users/absent?partitions=all", ""),
            ("export", "/history/search?q=absent&order=oldest", ""),
            ("export", "/api/v1/events.ndjson?from=beginning", ""),
            ("export", "/api/v1/events.csv?q=absent&from=beginning", ""),
            ("catch_up", "/api/v1/stream?after=0-0.1-0.2-0&q=absent", ""),
            ("catch_up", "/api/v1/stream?after=0-0.1-0.2-0", ""),
            ("catch_up", "/stream?after=0-0.1-0.2-0", ""),
            ("catch_up", "/api/v1/ws?after=0-0.1-0.2-0", WEBSOCKET),
        ] {
            let client = send(&app, target, headers);
            eventually(&format!("{target} reads"), || (reads(&app, kind) == 1.0).then_some(()));
            drop(client);
            let left = Instant::now();
            eventually(&format!("{target} ends"), || (reads(&app, kind) == 0.0).then_some(()));
            assert!(left.elapsed() < SOON, "{target}: {:?}", left.elapsed());
        }

        // Ten at once that may skip most of it, and thirty that may skip nearly all.
        let idle = Resources::of(app.process_id());
        let clients: Vec<_> =
            (0..10).map(|_| send(&app, "/api/v1/stream?max_rate=100000&after=0-0.1-0.2-0", "")).collect();
        eventually("they read", || (reads(&app, "catch_up") >= 1.0).then_some(()));
        drop(clients);
        within(Duration::from_secs(2), "they end", || (reads(&app, "catch_up") == 0.0).then_some(()));
        within(Duration::from_secs(2), "no stream is left", || {
            (app.metric("footfall_streams") == Some(0.0)).then_some(())
        });
        let grown = Resources::of(app.process_id()).peak_kib.saturating_sub(idle.resident_kib);
        assert!(grown < 150 << 10, "{grown} KiB more");
        for _ in 0..30 {
            let mut client = send(&app, "/api/v1/stream?max_rate=1&after=0-0.1-0.2-0", "");
            client.read_exact(&mut [0; 12]).expect("an answer");
        }
        let started = Instant::now();
        app.stream_after("0-0.1-0.2-0").record();
        // What it waits for in addition to its own first chunk.
        assert!(started.elapsed() < SOON + Duration::from_millis(600), "{:?}", started.elapsed());
    }

    #[test]
    fn sockets_that_read_nothing_cost_little() {
        let app = Application::on(Broker::Embedded).start();
        let open = || {
            let mut socket = send(&app, "/api/v1/ws", WEBSOCKET);
            socket.read_exact(&mut [0; 12]).expect("an answer");
            socket.set_nonblocking(true).expect("a socket");
            socket
        };
        let post =
            json!({"type": "post", "event": {"user": "Ann", "action": "flood", "pad": "x".repeat(20_000)}}).to_string();
        let floods = [
            frame(0x89, &[b'p'; 120]).repeat(500),
            frame(0x81, post.as_bytes()),
            frame(0x81, b"{\"type\":\"unknown\"}").repeat(500),
            // A message that never ends.
            frame(0x01, &[b' '; 60_000]),
            frame(0x00, &[b' '; 60_000]),
        ];
        let before = Resources::of(app.process_id());
        let mut sockets: Vec<_> =
            floods[..4].iter().flat_map(|flood| (0..3).map(move |_| flood)).map(|flood| (open(), flood)).collect();
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            for (socket, flood) in &mut sockets {
                let _ = socket.write(flood); // fails if the connection is full or closed
                if *flood == &floods[3] {
                    *flood = &floods[4];
                }
            }
            thread::sleep(Duration::from_millis(1));
        }
        let grown = Resources::of(app.process_id()).peak_kib.saturating_sub(before.resident_kib);
        assert!(grown < (sockets.len() << 10) + (32 << 10), "{grown} KiB for {} sockets", sockets.len());
        app.get("/livez").expect(200);
        drop(sockets);
        // One message in fragments of one byte is one message.
        let mut socket = app.socket("");
        let post =
            json!({"type": "post", "ref": 7, "event": {"user": "Ann", "action": "pieces", "pad": "x".repeat(30_000)}});
        let post = post.to_string().into_bytes();
        let pieces = post.iter().enumerate().map(|(n, byte)| {
            let last = if n + 1 == post.len() { 0x80 } else { 0 };
            frame(last | u8::from(n == 0), &[*byte])
        });
        socket.send_raw(&pieces.collect::<Vec<_>>().concat());
        assert_eq!(socket.answer()["status"], 201);
        assert_eq!(app.panics(), Vec::<String>::new());
    }
}
