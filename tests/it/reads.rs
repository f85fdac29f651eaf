//! Bounded reads of the topic: a read that ends early reports that, and one client's reads leave room for others.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::common::http::{Arrival, Chunks, Connection, Request};
use crate::common::wait::{PATIENCE, eventually, within};
use crate::common::{Application, Broker, NewRecord, Topic, assert_same_set, now_ms};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};

/// Records of about so many bytes, spread over three partitions.
fn write(topic: &Topic, count: usize, size: usize) {
    let record = |n: usize| {
        let value = json!({"user": format!("user-{}", n % 7), "action": "view", "n": n, "pad": "x".repeat(size)});
        NewRecord::new().value(value.to_string()).partition((n % 3) as i32)
    };
    let at_once = (8_000_000 / (size + 100)).max(1);
    for chunk in (0..count).collect::<Vec<_>>().chunks(at_once) {
        topic.produce_all(&chunk.iter().map(|n| record(*n)).collect::<Vec<_>>());
    }
}

fn page(app: &Application, query: &str) -> (Vec<Value>, Option<String>) {
    let answer = app.get(&format!("/api/v1/events?{query}")).expect(200).json();
    (answer["events"].as_array().expect("events").clone(), answer["next"].as_str().map(str::to_owned))
}

fn numbers(records: &[Value]) -> Vec<i64> {
    records.iter().map(|record| record["value"]["n"].as_i64().expect("n")).collect()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn get(app: &Application, target: &str) -> Request {
    app.request("GET", target)
}

/// Sends a request from another address of this machine.
fn from_elsewhere(app: &Application, target: &str) -> Connection {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into()).expect("an address");
    socket.connect(&app.address.into()).expect("a connection");
    Connection::over(TcpStream::from(socket), &get(app, target))
}

fn resident_mib(process: u32) -> u64 {
    let mut status = String::new();
    std::fs::File::open(format!("/proc/{process}/status"))
        .and_then(|mut file| file.read_to_string(&mut status))
        .expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}

// --- Times -------------------------------------------------------------------------------------------------------------

#[test]
fn each_records_own_time_decides_whether_it_is_in_a_range() {
    let topic = Topic::create(
        crate::common::kafka::shared(),
        3,
        &[("message.timestamp.after.max.ms", "9223372036854775807"), ("retention.ms", "-1")],
    );
    let minutes_ago = |minutes: i64| now_ms() - minutes * 60_000;
    let in_2099 = 4_070_908_800_000;
    let times = [minutes_ago(120), in_2099, minutes_ago(60), 1000, minutes_ago(30), in_2099, minutes_ago(5)];
    for (n, time) in times.into_iter().enumerate() {
        topic.produce(&NewRecord::new().value(json!({"n": n}).to_string()).timestamp(time).partition(0));
    }
    let app = Application::at(topic.servers()).topic(&topic).start();
    let found = |query: &str| {
        let (records, next) = page(&app, query);
        assert_eq!(next, None, "{query}");
        numbers(&records)
    };
    assert_eq!(found("since=-90m&until=-10m"), [2, 4]);
    assert_eq!(found("since=-90m&until=-10m&order=newest"), [4, 2]);
    assert_eq!(found("since=-10m"), [1, 5, 6]);
    assert_eq!(found("until=-10m&order=oldest"), [0, 2, 3, 4]);
    assert_eq!(found("until=-10m"), [4, 3, 2, 0]);
    assert_eq!(numbers(&page(&app, "until=-90m&last=1").0), [3]);
    let exported = app.get("/api/v1/events.ndjson?since=-90m&until=-10m").expect(200);
    assert_eq!(numbers(&lines(exported.text())), [2, 4]);
    let html = app.get("/history?since=-90m&until=-10m").expect(200);
    assert_eq!(html.text().matches(r#"<li class="event""#).count(), 2);
    // The future is not the last 15 minutes, and 1970 is not the last day.
    let stats = eventually("the last day was read", || {
        let stats = app.get("/api/v1/stats").expect(200).json();
        (stats["filling"] == false && stats["last_24h"]["events"] == 4).then_some(stats)
    });
    assert_eq!(stats["last_15m"]["events"], 1, "{stats}");
}

// --- Where it ends -----------------------------------------------------------------------------------------------------

#[test]
fn offsets_without_records_at_the_end_cause_no_empty_page() {
    let topic = Topic::create(crate::common::kafka::shared(), 1, &[]);
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", topic.servers())
        .set("transactional.id", topic.name())
        .create()
        .expect("a producer");
    let limit = Duration::from_secs(20);
    producer.init_transactions(limit).expect("transactions");
    // Each transaction leaves a marker, and the aborted one its records too.
    for (n, commits) in [(0, true), (1, false), (2, true), (3, false)] {
        producer.begin_transaction().expect("a transaction");
        for _ in 0..3 {
            let value = json!({"user": "Ann", "action": "pay", "n": n}).to_string();
            producer.send(BaseRecord::<(), _>::to(topic.name()).payload(&value)).expect("room");
        }
        producer.flush(limit).expect("delivered");
        let ended = if commits { producer.commit_transaction(limit) } else { producer.abort_transaction(limit) };
        ended.expect("an end of the transaction");
    }
    let app = Application::at(topic.servers()).topic(&topic).start();
    let (records, next) = page(&app, "from=beginning&limit=6");
    assert_eq!((numbers(&records), next), (vec![0, 0, 0, 2, 2, 2], None));
    let (records, next) = page(&app, "from=beginning&limit=5");
    assert_eq!((records.len(), next.is_some()), (5, true));
    // Only readable records count: 6 records, at 16 offsets.
    let user = app.get("/api/v1/users/Ann").expect(200).json();
    assert_eq!((&user["events"], &user["scanned"], &user["complete"]), (&json!(6), &json!(6), &json!(true)), "{user}");
    assert!(app.get("/users/Ann").expect(200).text().contains("Counted all 6 records in partition 0."));
    let search = app.get("/history/search?order=oldest&q=absent").expect(200);
    let done = search.text().split("event: done\ndata: ").nth(1).and_then(|rest| rest.lines().next()).expect("its end");
    let done: Value = serde_json::from_str(done).expect("JSON");
    assert_eq!((&done["scanned"], &done["total"], &done["next"]), (&json!(6), &json!(6), &Value::Null), "{done}");
}

#[test]
fn the_last_n_records_are_exported_in_the_requested_order() {
    let app = Application::on(Broker::Embedded).start();
    write(app.topic(), 60, 10);
    let places = |query: &str| -> Vec<(i64, i64)> {
        let exported = app.get(&format!("/api/v1/events.ndjson?{query}")).expect(200);
        let place = |record: &Value| (record["partition"].as_i64().expect("p"), record["offset"].as_i64().expect("o"));
        lines(exported.text()).iter().map(place).collect()
    };
    let (newest, oldest) = (places("last=9"), places("last=9&order=oldest"));
    assert_eq!((newest.len(), oldest.len()), (9, 9));
    assert_same_set(newest, oldest.clone());
    for partition in 0..3 {
        let offsets: Vec<i64> = oldest.iter().filter(|(p, _)| *p == partition).map(|(_, offset)| *offset).collect();
        assert!(offsets.is_sorted(), "partition {partition}: {offsets:?}");
    }
}

#[test]
fn an_exports_head_comes_before_the_first_match() {
    let app = Application::on(Broker::Kafka).start();
    write(app.topic(), 60_000, 10);
    for (target, first) in [("/api/v1/events.csv?q=absent", "time,timestamp,"), ("/api/v1/events.ndjson?q=absent", "")]
    {
        let mut connection = Connection::open(get(&app, target));
        assert_eq!(connection.head().status, 200);
        let (mut chunks, mut body) = (Chunks::default(), Vec::new());
        while body.len() < first.len() {
            chunks.decode(&mut connection.received, &mut body);
            if body.len() < first.len() {
                assert_eq!(connection.receive(Instant::now() + PATIENCE, usize::MAX), Arrival::Bytes);
            }
        }
        assert!(body.starts_with(first.as_bytes()), "{}", String::from_utf8_lossy(&body));
    }
}

#[test]
fn any_start_parameter_is_accepted_or_named_in_a_400() {
    let app = Application::on(Broker::Embedded).start();
    write(app.topic(), 3, 10);
    for text in ["%FF%FE", "%00", "0-1%0D%0A", "0-99999999999999999999", "0--1", "1-0", "0-1.0-1", "%F0%9F%A6%8A"] {
        for (route, name) in [
            ("/api/v1/events", "from"),
            ("/api/v1/events", "to"),
            ("/api/v1/events.ndjson", "from"),
            ("/api/v1/events.csv", "to"),
            ("/history/search", "to"),
            ("/api/v1/users/Ann", "to"),
            ("/users/Ann/count", "to"),
        ] {
            let problem = app.get(&format!("{route}?{name}={text}")).expect(400).problem();
            assert!(
                problem["detail"].as_str().is_some_and(|detail| detail.contains(name)),
                "{route} {text}: {problem}"
            );
        }
    }
    let last = i64::MAX;
    for query in [
        format!("from=0-{last}.1-{last}.2-{last}"),
        format!("to=0-{last}&order=newest"),
        format!("partition=0&offset={last}&order=newest"),
        "from=0-0.1-0.2-0.3-5.4-7".to_owned(),
        "partition=999999".to_owned(),
    ] {
        app.get(&format!("/api/v1/events?{query}")).expect(200);
        app.get(&format!("/api/v1/events.ndjson?{query}")).expect(200);
    }
    assert_eq!(app.panics(), Vec::<String>::new());
}

/// An export of 30 MB of which only the first bytes were read.
fn started_export(app: &Application, target: &str) -> Connection {
    let mut connection = Connection::open(get(app, target));
    assert_eq!(connection.head().status, 200);
    while connection.received.len() < 100_000 {
        assert_eq!(connection.receive(Instant::now() + PATIENCE, 64 * 1024), Arrival::Bytes);
    }
    connection
}

/// The log has the reason, and the connection ends without the last chunk.
fn assert_reset(app: &Application, connection: Connection, why: &str) {
    // Read meanwhile: some causes show only when there is room for more.
    let rest = std::thread::spawn(move || rest_of(connection));
    let line = app.log_line("the log says why", |line| line["message"] == "an export or a search ended early");
    assert_eq!(line["level"], "WARN", "{line}");
    assert!(line["why"].as_str().is_some_and(|reason| reason.contains(why)), "{why}: {line}");
    assert!(line["request.id"].is_string(), "{line}");
    assert_eq!(rest.join().expect("no panic").map(|body| body.len()), None, "it looks whole: {why}");
}

#[test]
fn an_export_that_retention_overtakes_is_reset() {
    for target in ["/api/v1/events.ndjson?from=beginning", "/api/v1/events.csv?from=beginning&q=xxx"] {
        let app = Application::on(Broker::Kafka).start();
        write(app.topic(), 12_000, 2500);
        let export = started_export(&app, target);
        (0..3).for_each(|partition| app.topic().delete_before(partition, 4000));
        assert_reset(&app, export, "deleted by retention while they were read");
    }
}

#[test]
fn an_export_of_a_deleted_topic_is_reset() {
    let app = Application::on(Broker::Kafka).start();
    write(app.topic(), 12_000, 2500);
    let export = started_export(&app, "/api/v1/events.ndjson?order=newest");
    app.topic().delete();
    assert_reset(&app, export, "");
}

#[test]
fn an_export_cut_by_shutdown_is_reset() {
    let app = Application::on(Broker::Kafka).start();
    write(app.topic(), 12_000, 2500);
    let export = started_export(&app, "/api/v1/events.csv?from=beginning");
    app.terminate();
    assert_reset(&app, export, "shutting down");
    assert!(app.wait_for_exit(Duration::from_secs(10)).success());
}

// --- Bounds ------------------------------------------------------------------------------------------------------------

#[test]
fn a_page_of_large_records_ends_early_with_next() {
    let app = Application::on(Broker::Kafka).start();
    write(app.topic(), 24, 900_000);
    for (first, bound) in [("from=beginning", "order=oldest&from"), ("order=newest", "order=newest&to")] {
        let (mut found, mut query, mut pages) = (Vec::new(), first.to_owned(), 0);
        loop {
            let answer = app.get(&format!("/api/v1/events?limit=1000&{query}")).expect(200);
            assert!(answer.body.len() < 10 << 20, "{} bytes", answer.body.len());
            let answer = answer.json();
            found.extend(numbers(answer["events"].as_array().expect("events")));
            pages += 1;
            let Some(next) = answer["next"].as_str() else { break };
            query = format!("{bound}={next}");
        }
        assert!(pages >= 3, "{pages} pages");
        assert_same_set(0..24, found);
    }
    // The same if the last records are reversed.
    let (records, next) = page(&app, "last=20&order=oldest");
    assert!(records.len() < 20 && next.is_some(), "{} records", records.len());
}

#[test]
fn slowly_read_exports_leave_room_for_others() {
    let app = Application::on(Broker::Kafka).start();
    write(app.topic(), 9000, 3000);
    let mut slow: Vec<Connection> = (0..6)
        .map(|_| {
            let mut connection = Connection::open(get(&app, "/api/v1/events.ndjson?from=beginning"));
            assert_eq!(connection.head().status, 200);
            connection
        })
        .collect();
    for target in ["/api/v1/events.csv?limit=5", "/api/v1/events?user=user-3", "/api/v1/users/user-3"] {
        eventually("the same client is served", || (app.get(target).status() == 200).then_some(()));
        assert_eq!(from_elsewhere(&app, target).response("GET").status(), 200, "{target}");
    }
    // Each continues where it waited, and is complete.
    let whole = slow.swap_remove(0);
    let body = rest_of(whole).expect("all of it");
    assert_eq!(body.iter().filter(|byte| **byte == b'\n').count(), 9000);
    // As many as one address may have; those that hang up no longer count.
    slow.extend((0..3).map(|_| Connection::open(get(&app, "/api/v1/events.ndjson?from=beginning"))));
    slow.iter_mut().skip(5).for_each(|connection| assert_eq!(connection.head().status, 200));
    let problem = app.get("/api/v1/events.ndjson").expect(503).problem();
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("this address has 8")), "{problem}");
    drop(slow);
    within(Duration::from_secs(5), "those that hung up are over", || {
        (get(&app, "/api/v1/events.csv?limit=1").send().status() == 200).then_some(())
    });
}

#[test]
fn one_address_that_searches_does_not_delay_others() {
    let app = Application::on(Broker::Kafka).start();
    write(app.topic(), 60_000, 10);
    let searches: Vec<Connection> =
        (0..60).map(|_| Connection::open(get(&app, "/api/v1/events?q=absent&limit=1"))).collect();
    // The same client's page without a filter, and another client's with one.
    app.get("/api/v1/events?limit=10").expect(200);
    let started = Instant::now();
    assert_eq!(from_elsewhere(&app, "/api/v1/events?user=user-3&limit=10").response("GET").status(), 200);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    drop(searches);
}

/// Returns the rest of an export; `None` if it was reset before its end.
fn rest_of(mut connection: Connection) -> Option<Vec<u8>> {
    let (mut chunks, mut body) = (Chunks::default(), Vec::new());
    loop {
        chunks.decode(&mut connection.received, &mut body);
        if chunks.is_complete() {
            return Some(body);
        }
        match connection.receive(Instant::now() + PATIENCE, usize::MAX) {
            Arrival::Bytes => {}
            Arrival::End => return None,
            Arrival::Nothing => panic!("nothing came"),
        }
    }
}

/// Tests whose limits the load of other tests could break: `dev/test` without arguments runs them alone.
mod alone {
    use super::*;

    #[test]
    fn unread_answers_are_bounded() {
        let app = Application::on(Broker::Kafka).start();
        write(app.topic(), 1000, 31_000);
        app.get("/api/v1/events?limit=1000").expect(200);
        let before = resident_mib(app.process_id());
        let mut untaken: Vec<Connection> =
            (0..10).map(|_| Connection::open(get(&app, "/api/v1/events?limit=1000"))).collect();
        let statuses: Vec<u16> = untaken.iter_mut().map(|connection| connection.head().status).collect();
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 4, "{statuses:?}");
        let grown = resident_mib(app.process_id()).saturating_sub(before);
        assert!(grown < 100, "{grown} MiB more");
        // Others are answered, and so is the same client for small requests.
        app.get("/api/v1/events?limit=1").expect(200);
        assert_eq!(from_elsewhere(&app, "/api/v1/events?limit=1000").response("GET").status(), 200);
        drop(untaken);
        eventually("what was held is given back", || {
            (get(&app, "/api/v1/events?limit=1000").send().status() == 200).then_some(())
        });
    }
}
