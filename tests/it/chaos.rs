//! No acknowledged event is ever lost, and no record is missed silently: under load and with open streams, one fault
//! after the other, and finally a random sequence of faults.
//!
//! `dev/test` runs the short form. `dev/chaos` runs the same for longer, with more streams and more of each fault.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::wait::{PATIENCE, eventually, within};
use crate::common::{
    Application, Broker, HEALING, Kafka, Ledger, Load, Output, Proxy, Resources, Retries, Servers, Watchers, Weather,
    random,
};
use serde_json::json;

/// `ingest.deadline`, where a test sets no shorter one.
const DEADLINE: Duration = Duration::from_secs(10);

/// Whether this is the long form (`dev/chaos`).
fn long() -> bool {
    std::env::var("FOOTFALL_CHAOS").is_ok_and(|form| form == "long")
}

/// How often a fault is repeated.
fn rounds(short: usize) -> usize {
    if long() { 5 * short } else { short }
}

fn streams() -> usize {
    if long() { 50 } else { 4 }
}

/// Runs `scenario` with a load that retries and with streams, and compares all answers with the topic. The caller
/// checks how long the answers took.
#[track_caller]
fn assert_nothing_is_lost(
    app: &Application,
    servers: &Servers,
    retries: Retries,
    allowed: &'static [&'static str],
    scenario: impl FnOnce(&Load),
) -> Ledger {
    let mut ledger = None;
    let followers = Watchers::beside(streams(), servers, app.topic(), allowed, || {
        ledger = Some(Load::new(servers, "/api/v1/events", retries).beside(scenario));
    });
    let ledger = ledger.expect("the load has run");
    ledger.assert_truthful(app.topic());
    if long() {
        ledger.assert_console_consumer_agrees(app.topic());
    }
    if allowed.is_empty() {
        assert!(followers.iter().all(|follower| follower.dropped == 0), "a stream that reads was too slow");
    }
    ledger
}

// --- The application -------------------------------------------------------------------------------------------------

#[test]
fn kill_9_and_restart_in_a_loop_loses_nothing() {
    let first = Application::on(Broker::Kafka).start();
    let servers = Servers::of(&first);
    let mut running = first.replica().start();
    servers.set(0, running.address);
    assert_nothing_is_lost(&first, &servers, Retries::ById, &[], |load| {
        for _ in 0..rounds(4) {
            load.wait_for(50, 201);
            running.kill();
            running = first.replica().start();
            servers.set(0, running.address);
        }
        load.wait_for(50, 201);
    })
    .assert_within(DEADLINE);
}

#[test]
fn sigterm_and_restart_in_a_loop_loses_nothing_and_cuts_off_no_answer() {
    let first = Application::on(Broker::Kafka).start();
    let servers = Servers::of(&first);
    let mut running = first.replica().start();
    servers.set(0, running.address);
    assert_nothing_is_lost(&first, &servers, Retries::ById, &[], |load| {
        for _ in 0..rounds(3) {
            load.wait_for(50, 201);
            running.stop();
            running = first.replica().start();
            servers.set(0, running.address);
        }
        load.wait_for(50, 201);
    })
    .assert_within(DEADLINE);
}

#[test]
fn a_paused_application_continues() {
    let app = Application::on(Broker::Kafka).start();
    assert_nothing_is_lost(&app, &Servers::of(&app), Retries::ById, &[], |load| {
        for _ in 0..rounds(1) {
            load.wait_for(50, 201);
            crate::common::application::signal(app.process_id(), "STOP");
            thread::sleep(Duration::from_secs(2));
            crate::common::application::signal(app.process_id(), "CONT");
        }
        load.wait_for(50, 201);
    })
    .assert_within(DEADLINE);
}

#[test]
fn clients_that_switch_between_two_replicas_of_which_one_dies_lose_nothing() {
    let first = Application::on(Broker::Kafka).start();
    // Streams end every second, and their clients reconnect to the other replica.
    let start = || first.replica().env("FOOTFALL_FEED__MAX_AGE", "1s").start();
    let mut replicas = [start(), start()];
    let servers = Servers::at(&[replicas[0].address, replicas[1].address]);
    assert_nothing_is_lost(&first, &servers, Retries::Elsewhere, &[], |load| {
        for round in 0..rounds(3) {
            load.wait_for(100, 201);
            replicas[round % 2].kill();
            load.wait_for(20, 201);
            replicas[round % 2] = start();
            servers.set(round % 2, replicas[round % 2].address);
        }
        load.wait_for(100, 201);
    })
    .assert_within(DEADLINE);
}

#[test]
fn an_unwritable_log_stops_nothing() {
    // A full pipe is full after 64 KiB.
    for (output, events) in [(Output::FullDisk, 100), (Output::ClosedPipe, 100), (Output::FullPipe, 600)] {
        let app = Application::on(Broker::Kafka).output(output).start();
        assert_nothing_is_lost(&app, &Servers::of(&app), Retries::ById, &[], |load| load.wait_for(rounds(events), 201))
            .assert_within(DEADLINE);
        app.post(&json!({"user": "Ann"})).expect(422);
        let before = Resources::of(app.process_id()).ticks;
        thread::sleep(Duration::from_secs(1));
        let used = Resources::of(app.process_id()).ticks - before;
        assert!(used < 50, "{output:?}: it spins: {used} ticks of 10 ms in a second");
        app.stop();
    }
}

// --- The network -----------------------------------------------------------------------------------------------------

#[test]
fn a_bad_network_to_kafka_loses_nothing() {
    let proxy = Proxy::start();
    let kafka = Kafka::start_behind(&proxy);
    let app = Application::at(kafka.servers()).start();
    let servers = Servers::of(&app);
    let app_behind = app.replica().env("KAFKA_BOOTSTRAP_SERVERS", &proxy.address().to_string());
    let app_behind = app_behind.env("FOOTFALL_INGEST__DEADLINE", "3s").start();
    servers.set(0, app_behind.address);
    app.kill();
    let ms = Duration::from_millis;
    let second = Duration::from_secs(1);
    assert_nothing_is_lost(&app, &servers, Retries::ById, &[], |load| {
        load.wait_for(50, 201);
        for _ in 0..rounds(1) {
            // Slow, but it works.
            proxy.set(Weather::Delay { latency: ms(100), jitter: ms(100) });
            load.wait_for(10, 201);
            proxy.set(Weather::Throttle(20_000));
            load.wait_for(10, 201);
            // Cut in the middle of any message.
            for bytes in [1, 100, 1000, 5000] {
                let cuts = proxy.cuts();
                proxy.set(Weather::CutAfter(bytes));
                within(HEALING, "connections are cut", || (proxy.cuts() > cuts + 2).then_some(()));
                proxy.restore();
                load.wait_for(20, 201);
            }
            proxy.set(Weather::BlackHole);
            let refused = |what: &str| {
                within(HEALING, what, || (app_behind.get("/readyz").status() == 503).then_some(()));
                let started = Instant::now();
                app_behind.post(&json!({"user": "Ann", "action": "refused"})).expect(503);
                assert!(started.elapsed() < second, "{:?}", started.elapsed());
            };
            refused("it is noticed that Kafka does not answer");
            proxy.restore();
            load.wait_for(20, 201);
            proxy.set(Weather::Refuse);
            refused("it is noticed that nothing can be reached");
            proxy.restore();
            load.wait_for(20, 201);
        }
    })
    .assert_within(DEADLINE);
    assert_eq!(app_behind.panics(), Vec::<String>::new());
}

#[test]
fn a_bad_network_to_the_clients_loses_nothing() {
    let app = Application::on(Broker::Kafka).start();
    let proxy = Proxy::to(app.address);
    let ms = Duration::from_millis;
    assert_nothing_is_lost(&app, &Servers::at(&[proxy.address()]), Retries::ById, &[], |load| {
        load.wait_for(50, 201);
        for _ in 0..rounds(2) {
            // Within a request's head, within its body, within the answer, within a stream.
            for bytes in [0, 60, 200, 320, 500, 3000] {
                let cuts = proxy.cuts();
                proxy.set(Weather::CutAfter(bytes));
                within(HEALING, "connections are cut", || (proxy.cuts() > cuts + 6).then_some(()));
                proxy.restore();
                load.wait_for(10, 201);
            }
            proxy.set(Weather::Delay { latency: ms(50), jitter: ms(100) });
            load.wait_for(20, 201);
            proxy.set(Weather::Throttle(20_000));
            load.wait_for(20, 201);
            proxy.set(Weather::Refuse);
            let cuts = proxy.cuts();
            within(HEALING, "connections are refused", || (proxy.cuts() > cuts + 6).then_some(()));
            proxy.restore();
            load.wait_for(20, 201);
        }
    });
    assert_eq!(app.panics(), Vec::<String>::new());
}

// --- Kafka -----------------------------------------------------------------------------------------------------------

#[test]
fn a_cluster_whose_brokers_fail_loses_nothing() {
    let kafka = Kafka::start_brokers(3);
    let app = Application::at(kafka.servers()).env("FOOTFALL_INGEST__DEADLINE", "3s").start();
    assert_nothing_is_lost(&app, &Servers::of(&app), Retries::ById, &[], |load| {
        load.wait_for(50, 201);
        for round in 0..rounds(1) {
            // One is paused, with its connections open.
            let frozen = kafka.freeze(round % 3 + 1);
            thread::sleep(Duration::from_secs(3));
            drop(frozen);
            load.wait_for(50, 201);
            // The controller is killed: other brokers take over its partitions, and one of them the cluster.
            let controller = kafka.controller();
            kafka.kill(controller);
            load.wait_for(100, 201);
            // Without a majority nothing is acknowledged, and every client gets an answer in time.
            let second = controller % 3 + 1;
            kafka.kill(second);
            let started = Instant::now();
            within(HEALING, "posts are refused at once", || {
                let started = Instant::now();
                let answer = app.post(&json!({"user": "Ann", "action": "no majority"}));
                assert!(matches!(answer.status(), 503 | 504), "{}", answer.status());
                assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
                (answer.status() == 503).then_some(())
            });
            println!("two of three down: 503 after {:?}", started.elapsed());
            assert_eq!(app.get("/readyz").status(), 503);
            kafka.restart(second);
            kafka.restart(controller);
            load.wait_for(50, 201);
        }
        if long() {
            // A rolling restart.
            for broker in 1..=3 {
                kafka.restart(broker);
                load.wait_for(100, 201);
            }
        }
    })
    .assert_within(DEADLINE);
    assert_eq!(app.panics(), Vec::<String>::new());
}

#[test]
fn partitions_that_move_to_other_brokers_lose_nothing() {
    let app = Application::on(Broker::Cluster).start();
    assert_nothing_is_lost(&app, &Servers::of(&app), Retries::ById, &[], |load| {
        load.wait_for(50, 201);
        for _ in 0..rounds(1) {
            // Move each partition to two brokers, whichever leads it; in the long form also from one of them to the
            // third, with all its records, and back to all three.
            app.topic().reassign(&[&[1, 2], &[2, 3], &[3, 1]]);
            load.wait_for(50, 201);
            if long() {
                app.topic().reassign(&[&[2, 3], &[3, 1], &[1, 2]]);
                load.wait_for(50, 201);
                app.topic().reassign(&[&[1, 2, 3], &[2, 3, 1], &[3, 1, 2]]);
            }
            app.topic().elect_preferred_leaders();
            load.wait_for(50, 201);
        }
    })
    .assert_within(DEADLINE);
    assert_eq!(app.panics(), Vec::<String>::new());
}

#[test]
fn a_broker_whose_disk_is_full_loses_nothing_that_was_acknowledged() {
    // More than the 10 MiB that Kafka reserves for an index.
    let kafka = Kafka::start_with_files_of(11 * 1024);
    let app = Application::at(kafka.servers()).env("FOOTFALL_INGEST__DEADLINE", "3s").start();
    assert_nothing_is_lost(&app, &Servers::of(&app), Retries::ById, &[], |load| {
        load.wait_for(50, 201);
        let big = json!(vec![json!({"user": "Ann", "action": "big", "x": "x".repeat(30_000)}); 16]);
        within(HEALING, "Kafka finds no more room", || (app.post(&big).status() != 201).then_some(()));
        within(HEALING, "it is noticed", || (app.get("/readyz").status() == 503).then_some(()));
        app.post(&json!({"user": "Ann", "action": "no room"})).expect(503);
        kafka.restart(1);
        load.wait_for(50, 201);
    })
    .assert_within(DEADLINE);
    assert_eq!(app.panics(), Vec::<String>::new());
}

#[test]
fn a_topic_recreated_under_load_is_a_gap_and_receives_everything_after() {
    let app = Application::on(Broker::Kafka).start();
    let servers = Servers::of(&app);
    let mut ledger = None;
    let followers = Watchers::beside(streams(), &servers, app.topic(), &["topic recreated"], || {
        let mut recreated = Instant::now();
        let load = Load::new(&servers, "/api/v1/events", Retries::ById).beside(|load| {
            load.wait_for(50, 201);
            for _ in 0..rounds(1) {
                let so_far = load.count(201);
                app.topic().delete();
                eventually("it is noticed", || (app.get("/readyz").status() == 503).then_some(()));
                app.post(&json!({"user": "Ann", "action": "no topic"})).expect(503);
                if long() {
                    // Until the posts in flight fail too: 30 s.
                    load.wait_for(10, 503);
                }
                app.topic().make(3);
                recreated = Instant::now();
                // More than the previous topics had, so that a stream that has read all of it has been informed of the
                // recreation.
                load.wait_for(2 * so_far, 201);
            }
        });
        ledger = Some((recreated, load));
    });
    let (recreated, ledger) = ledger.expect("the load has run");
    ledger.assert_truthful_since(recreated, app.topic());
    ledger.assert_within(DEADLINE);
    for follower in followers {
        assert_eq!((follower.gaps, follower.dropped), (vec!["topic recreated".to_owned(); rounds(1)], 0));
    }
    assert_eq!(app.panics(), Vec::<String>::new());
}

#[test]
fn partitions_that_are_added_under_load_are_followed() {
    let app = Application::on(Broker::Kafka).start();
    assert_nothing_is_lost(&app, &Servers::of(&app), Retries::ById, &[], |load| {
        load.wait_for(50, 201);
        for more in 0..rounds(1) {
            app.topic().grow_to(5 + 2 * more);
            load.wait_for(200, 201);
        }
        // Also by clients with stale metadata.
        let written = || app.topic().records().iter().any(|record| record.partition > 2);
        within(HEALING, "the new partitions are written to", || written().then_some(()));
    })
    .assert_within(DEADLINE);
}

#[test]
fn records_deleted_by_retention_are_a_gap_with_the_exact_count() {
    let app = Application::on(Broker::Kafka).start();
    let load = Load::new(&Servers::of(&app), "/api/v1/events", Retries::ById).beside(|load| load.wait_for(200, 201));
    load.assert_truthful(app.topic());
    let end = crate::common::Cursor::parse(&app.topic().end());
    let mut deleted = 0;
    for (partition, next) in end.0.iter().enumerate() {
        app.topic().delete_before(partition as i32, next / 2);
        deleted += next / 2;
    }
    let restarted = app.replica().env("FOOTFALL_FEED__EVENTS", "10").start();
    let followers = Watchers::beside(streams(), &Servers::of(&restarted), app.topic(), &["expired"], || {});
    for follower in followers {
        assert_eq!((follower.missed, follower.seen() + follower.missed), (deleted, end.0.iter().sum()));
        assert_eq!(follower.gaps, ["expired"]);
    }
}

// --- All of it, in any order -----------------------------------------------------------------------------------------

/// How long the random sequence lasts in the long form.
fn minutes() -> u64 {
    std::env::var("FOOTFALL_CHAOS_MINUTES").ok().and_then(|minutes| minutes.parse().ok()).unwrap_or(5)
}

#[test]
fn a_random_sequence_of_faults_loses_nothing() {
    let mut random = random();
    let (to_kafka, to_clients) = (Proxy::start(), Proxy::start());
    let kafka = Kafka::start_behind(&to_kafka);
    // Creates the topic, without faults.
    let first = Application::at(kafka.servers()).start();
    first.kill();
    let start = || {
        let behind = first.replica().env("KAFKA_BOOTSTRAP_SERVERS", &to_kafka.address().to_string());
        let app = behind.env("FOOTFALL_INGEST__DEADLINE", "3s").env("FOOTFALL_FEED__MAX_AGE", "5s");
        let app = app.start_without_waiting_for_kafka();
        to_clients.forward_to(app.address);
        app
    };
    let mut app = start();
    let servers = Servers::at(&[to_clients.address()]);
    let until = Instant::now() + if long() { Duration::from_secs(60 * minutes()) } else { Duration::ZERO };
    assert_nothing_is_lost(&first, &servers, Retries::ById, &[], |load| {
        load.wait_for(20, 201);
        let mut steps = 0;
        while steps < 5 || Instant::now() < until {
            steps += 1;
            let ms = |ms| Duration::from_millis(ms);
            let a_while = ms(200 + random.u64(..2000));
            let weather = match random.u64(..5) {
                0 => Weather::Delay { latency: ms(random.u64(..200)), jitter: ms(random.u64(..200)) },
                1 => Weather::Throttle(2_000 + random.u64(..50_000)),
                2 => Weather::CutAfter(random.u64(..5_000)),
                3 => Weather::BlackHole,
                _ => Weather::Refuse,
            };
            let fault = random.u64(..if long() { 8 } else { 6 });
            println!("{steps}: fault {fault}, {weather:?}, {a_while:?}");
            match fault {
                0 | 1 => to_kafka.set(weather),
                2 | 3 => to_clients.set(weather),
                4 => {
                    app.kill();
                    app = start();
                }
                5 => crate::common::application::signal(app.process_id(), "STOP"),
                6 => {
                    app.terminate();
                    app.wait_for_exit(PATIENCE);
                    app = start();
                }
                _ => {
                    kafka.kill(1);
                    kafka.restart(1);
                }
            }
            thread::sleep(a_while);
            crate::common::application::signal(app.process_id(), "CONT");
            // Every other one stays, for the next to come on top of it.
            if random.bool() {
                to_kafka.restore();
                to_clients.restore();
                load.wait_for(5, 201);
            }
        }
        to_kafka.restore();
        to_clients.restore();
        load.wait_for(20, 201);
    });
    assert_eq!(app.panics(), Vec::<String>::new());
}

// --- Clients ---------------------------------------------------------------------------------------------------------

/// A connection that reads almost nothing: without a small buffer the kernel hides megabytes.
fn deaf(address: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("SO_RCVBUF");
    socket.connect(&address.into()).expect("a connection");
    socket.into()
}

fn ask_for_a_stream(mut client: &TcpStream) {
    client.write_all(b"GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
}

/// Waits until the process holds no more than before, but for a few connections of its own to Kafka.
#[track_caller]
fn assert_all_is_as_before(app: &Application, before: Resources, most_kib: usize) {
    let of_its_own = 8;
    let mut now = before;
    let back = || {
        now = Resources::of(app.process_id());
        let is_back = |now: usize, before: usize| now <= before + of_its_own;
        (is_back(now.descriptors, before.descriptors) && is_back(now.threads, before.threads)).then_some(())
    };
    eventually("its descriptors and threads are those of before", back);
    println!("before {before:?}, after {now:?}");
    assert!(now.peak_kib < before.resident_kib + most_kib, "before {before:?}, after {now:?}");
    assert_eq!(app.panics(), Vec::<String>::new());
    app.accept(&json!({"user": "Ann", "action": "still here"}));
}

/// Posts now and then while others misbehave: each post is answered as usual.
#[track_caller]
fn assert_others_are_served(app: &Application) {
    let started = Instant::now();
    app.accept(&json!({"user": "Ann", "action": "beside"}));
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

/// Bytes that the kernel has sent and that the client has not acknowledged.
#[track_caller]
fn kept_for(client: &TcpStream) -> usize {
    let port = |text: &str| u16::from_str_radix(text.rsplit(':').next().expect("a port"), 16).expect("a port");
    let (ours, theirs) = (client.peer_addr().expect("a peer").port(), client.local_addr().expect("an address").port());
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's connections");
    let mut connections = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let its = connections.find(|of| port(of[1]) == ours && port(of[2]) == theirs).expect("its connection");
    let (sending, _receiving) = its[4].split_once(':').expect("two queues");
    usize::from_str_radix(sending, 16).expect("bytes")
}

#[test]
fn the_kernel_buffers_little_for_a_client_that_never_reads() {
    let app = Application::on(Broker::Embedded).start();
    let client = deaf(app.address);
    ask_for_a_stream(&client);
    eventually("its stream is open", || (app.metric("footfall_streams") == Some(1.0)).then_some(()));
    let batch = json!(vec![json!({"user": "Ann", "action": "big", "x": "x".repeat(30_000)}); 16]);
    let mut most = 0;
    for _ in 0..20 {
        app.post(&batch).expect(201);
        most = most.max(kept_for(&client));
    }
    assert!((1..400 * 1024).contains(&most), "{most} bytes");
}

#[test]
fn more_clients_than_descriptors_break_nothing_and_it_recovers() {
    let app = Application::on(Broker::Kafka).open_files(256).start();
    let before = Resources::of(app.process_id());
    let mut stream = app.stream("");
    stream.next_frame();
    // It connected before the others, and keeps its connection.
    let event = |n: usize| json!({"user": "Ann", "action": "kept", "n": n});
    let post = |n| app.request("POST", "/api/v1/events").header("Connection", "keep-alive").json(&event(n));
    let mut kept = post(0).open();
    kept.next_response("POST").expect(201);
    stream.record();
    let crowd: Vec<TcpStream> =
        (0..250).map(|_| TcpStream::connect(app.address).expect("a place in the queue")).collect();
    // 256, less 64 for other files, less the share of other addresses: the rest is rejected.
    eventually("no place is left", || {
        app.request("GET", "/livez").try_send().is_none_or(|it| it.status() == 503).then_some(())
    });
    let (ticks, started) = (Resources::of(app.process_id()).ticks, Instant::now());
    for n in 1..=20 {
        kept.send_request(&post(n));
        kept.next_response("POST").expect(201);
        assert_eq!(stream.record()["value"]["n"], n);
        thread::sleep(Duration::from_millis(50));
    }
    let used = Duration::from_millis(10 * (Resources::of(app.process_id()).ticks - ticks));
    assert!(used < started.elapsed() / 2, "it spins: {used:?} of processor time in {:?}", started.elapsed());
    drop(crowd);
    drop((kept, stream));
    eventually("others are served again", || app.request("GET", "/livez").try_send());
    assert_all_is_as_before(&app, before, 200 * 1024);
}

#[test]
fn misbehaving_clients_do_not_affect_others() {
    let app = Application::on(Broker::Embedded).start();
    app.accept(&json!({"user": "Ann", "action": "first"}));
    let before = Resources::of(app.process_id());
    let post = "POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";

    // Connected and closed.
    for _ in 0..rounds(1000) {
        send(&app, b"");
    }
    assert_others_are_served(&app);

    // Half-closed: they close their side and stay; headers that never end; bodies that stall.
    let mut idle: Vec<TcpStream> = Vec::new();
    for _ in 0..rounds(50) {
        let half = send(&app, b"GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n");
        half.shutdown(std::net::Shutdown::Write).expect("a connection");
        idle.push(half);
        idle.push(send(&app, b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Never: ends"));
        idle.push(send(&app, format!("{post}Content-Length: 100\r\n\r\n{{\"user\"").as_bytes()));
    }
    assert_others_are_served(&app);
    drop(idle);

    // Several requests sent at once are answered in their order.
    let requests: String = (0..50)
        .map(|n| {
            let body = json!({"id": format!("pipelined-{n}"), "user": "Ann", "action": "pipelined"}).to_string();
            format!("{post}Content-Length: {}\r\n\r\n{body}", body.len())
        })
        .collect();
    let mut pipelined = app.request("GET", "/livez").header("Connection", "keep-alive").open();
    pipelined.next_response("GET").expect(200);
    pipelined.send(requests.as_bytes()).expect("an open connection");
    for n in 0..50 {
        assert_eq!(pipelined.next_response("POST").expect(201).json()["id"], format!("pipelined-{n}"));
    }
    drop(pipelined);

    assert_all_is_as_before(&app, before, 100 * 1024);
}

#[test]
fn thousands_of_malformed_requests_leak_nothing() {
    let app = Application::on(Broker::Embedded).start();
    app.accept(&json!({"user": "Ann", "action": "first"}));
    let before = Resources::of(app.process_id());
    let mut random = random();
    let mut noise = |length: usize| (0..length).map(|_| random.u8(..)).collect::<Vec<u8>>();
    let post = "POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    for round in 0..if long() { 100_000 } else { 1000 } {
        let request = match round % 10 {
            0 => noise(200),
            1 => b"GET / HTTP/9.9\r\n\r\n".to_vec(),
            2 => format!("{post}Content-Length: 3\r\nContent-Length: 4\r\n\r\n{{}}").into(),
            3 => [post.as_bytes(), b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", &noise(20)].concat(),
            4 => [post.as_bytes(), b"Content-Length: 40\r\n\r\n", &noise(40)].concat(),
            5 => [post.as_bytes(), b"Content-Encoding: gzip\r\nContent-Length: 40\r\n\r\n", &noise(40)].concat(),
            6 => format!("{post}Content-Length: 18446744073709551616\r\n\r\n{{}}").into(),
            7 => [b"GET /api/v1/events?", &noise(50)[..], b" HTTP/1.1\r\nHost: localhost\r\n\r\n"].concat(),
            8 => format!("{post}{}\r\n", "X-Many: 1\r\n".repeat(150)).into(),
            _ => format!("{post}X-Long: {}\r\n\r\n", "x".repeat(500_000)).into(),
        };
        let client = send(&app, &request);
        if round % 50 < 10 {
            assert_refused(client);
        }
        if round % 10_000 == 0 {
            assert_others_are_served(&app);
        }
    }
    let beside = if long() { 10 } else { 1 };
    assert_eq!(app.topic().records().len(), 1 + beside);
    assert_all_is_as_before(&app, before, 100 * 1024);
}

/// HTTP/2 is not supported: Rocket does not bound the concurrent requests of a connection.
#[test]
fn http_2_is_closed_without_an_answer() {
    let app = Application::on(Broker::Embedded).start();
    let before = Resources::of(app.process_id());
    // A header block without an end, for as many requests as fit, each of them reset at once.
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    };
    let (get, cancel) = ([0x82, 0x84, 0x86, 0x41, 0x01, b'a'], 8_u32.to_be_bytes());
    let resets: Vec<u8> =
        (0..5000).flat_map(|n| [frame(1, 5, 2 * n + 1, &get), frame(3, 0, 2 * n + 1, &cancel)].concat()).collect();
    for _ in 0..rounds(20) {
        let mut client = send(&app, &[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(4, 0, 0, b"")[..], &resets].concat());
        client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut answer = Vec::new();
        match client.read_to_end(&mut answer) {
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "it is left open"),
            Ok(_) => assert_eq!(String::from_utf8_lossy(&answer), ""),
        }
    }
    // An upgrade request is ignored.
    let upgrade = app.request("GET", "/livez").header("Connection", "Upgrade, HTTP2-Settings").header("Upgrade", "h2c");
    assert_eq!(upgrade.header("HTTP2-Settings", "AAMAAABkAAQAAP__").send().expect(200).text(), "ok\n");
    assert_all_is_as_before(&app, before, 20 * 1024);
}

/// Returns a connection on which these bytes were sent, unless it is closed already.
fn send(app: &Application, bytes: &[u8]) -> TcpStream {
    let mut client = TcpStream::connect(app.address).expect("a connection");
    let _ = client.write_all(bytes);
    client
}

/// Checks that it is answered with 4xx, or not at all.
#[track_caller]
fn assert_refused(mut client: TcpStream) {
    let _ = client.shutdown(std::net::Shutdown::Write); // it may have been cut already
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer); // a reset is fine too
    let text = String::from_utf8_lossy(&answer);
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{text}");
}

/// Tests whose limits the load of other tests could break: `dev/test` without arguments runs them alone.
mod alone {
    use super::*;

    #[test]
    fn clients_that_never_read_are_closed_and_do_not_delay_others() {
        let app = Application::on(Broker::Embedded).env("FOOTFALL_FEED__STALLED", "3s").start();
        let before = Resources::of(app.process_id());
        let clients: Vec<TcpStream> = (0..rounds(20)).map(|_| deaf(app.address)).collect();
        clients.iter().for_each(ask_for_a_stream);
        eventually("their streams are open", || {
            (app.metric("footfall_streams") == Some(clients.len() as f64)).then_some(())
        });
        let big = json!({"user": "Ann", "action": "big", "x": "x".repeat(30_000)});
        let mut other = app.stream("");
        other.next_frame();
        // More than the kernel buffers for them.
        within(HEALING, "their connections are closed", || {
            app.accept(&big);
            let started = Instant::now();
            other.record();
            assert!(started.elapsed() < Duration::from_secs(1), "another client waited for {:?}", started.elapsed());
            (app.metric("footfall_streams") == Some(1.0)).then_some(())
        });
        drop((clients, other));
        assert_all_is_as_before(&app, before, 200 * 1024);
    }

    /// Bodies that are almost complete, streams that are not read, and large batches.
    #[test]
    fn slow_clients_and_large_bodies_stay_within_the_stated_memory() {
        let app = Application::on(Broker::Kafka).address_space(2 * 1024 * 1024).start();
        let before = Resources::of(app.process_id());
        let head = "POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 524288\r\n\r\n";
        let nearly = [head.as_bytes(), &vec![b' '; 500 * 1024]].concat();
        let slow: Vec<TcpStream> = (0..100).map(|_| send(&app, &nearly)).collect();
        let deaf: Vec<TcpStream> = (0..50).map(|_| deaf(app.address)).collect();
        deaf.iter().for_each(ask_for_a_stream);
        let batch = json!(vec![json!({"user": "Ann", "action": "big", "x": "x".repeat(30_000)}); 16]);
        for _ in 0..rounds(20) {
            app.post(&batch).expect(201);
        }
        // Twice the body for each, because its buffer doubles when it grows, and 128 MiB for the feed, the queue and the
        // rest.
        let bound = before.resident_kib + (slow.len() + Load::THREADS) * 2 * 512 + 128 * 1024;
        let now = Resources::of(app.process_id());
        println!("before {before:?}, under load {now:?}");
        assert!(now.peak_kib < bound, "{} KiB, and not less than {bound}", now.peak_kib);
        drop((slow, deaf));
        assert_all_is_as_before(&app, before, bound - before.resident_kib);
    }
}
