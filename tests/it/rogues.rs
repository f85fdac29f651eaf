//! The worst that anonymous clients are known to do, all at once, next to ordinary clients.
//!
//! The rogues come from another address (127.0.0.2) than the ordinary clients (127.0.0.1). This file has one test, so
//! that nothing else runs beside it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use crate::common::http::Request;
use crate::common::sse::{Frame, Subscription};
use crate::common::wait::{PATIENCE, within};
use crate::common::{Application, Broker, Cursor, Follower, Load, NewRecord, Resources, Retries, Servers};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

/// Bytes in the topic before the rogues come, in records of 31 kB.
const TOPIC: usize = 500 << 20;
const RECORD: usize = 31_000;
/// How long they last.
const FOR: Duration = Duration::from_secs(20);
/// Memory above that of the idle process (docs/guarantees.md).
const MEMORY_KIB: usize = 400 << 10;
/// The slowest answer of `/livez` that an ordinary client may see on two cores. Without optimisation all work takes
/// several times as long.
const LIVEZ: Duration = Duration::from_millis(if cfg!(debug_assertions) { 3000 } else { 250 });
/// The same of a post.
const POST: Duration = Duration::from_secs(if cfg!(debug_assertions) { 10 } else { 5 });

/// A client that keeps to no rule.
#[derive(Clone, Copy)]
struct Rogue<'a> {
    server: SocketAddr,
    over: &'a AtomicBool,
    /// Answers that a rogue should not get.
    wrong: &'a Mutex<Vec<String>>,
    attempts: &'a AtomicUsize,
}

impl<'a> Rogue<'a> {
    const ACTS: [fn(Rogue<'a>); 11] = [
        Rogue::sends_thousands_of_extensions,
        Rogue::hangs_up_while_it_catches_up,
        Rogue::reads_nothing_of_large_pages,
        Rogue::is_always_behind,
        Rogue::reads_exports_slowly,
        Rogue::filters_by_many_texts,
        Rogue::pings_and_never_reads,
        Rogue::comes_from_another_site,
        Rogue::searches_for_nothing,
        Rogue::posts_without_waiting,
        Rogue::never_ends_its_requests,
    ];

    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    /// A connection from the rogues' address; `None` if the server refuses it.
    fn connect(&self) -> Option<TcpStream> {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into()).expect("an address of this machine");
        socket.connect_timeout(&self.server.into(), Duration::from_secs(2)).ok()?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
        stream.set_write_timeout(Some(Duration::from_secs(2))).expect("a timeout");
        Some(stream)
    }

    fn send(&self, bytes: &[u8]) -> Option<TcpStream> {
        let mut stream = self.connect()?;
        stream.write_all(bytes).ok()?;
        Some(stream)
    }

    fn get(&self, target: &str) -> Option<TcpStream> {
        self.get_with(target, "")
    }

    fn get_with(&self, target: &str, headers: &str) -> Option<TcpStream> {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", self.server).as_bytes())
    }

    fn post(&self, target: &str, content_type: &str, body: &str) -> Option<TcpStream> {
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
            self.server,
            body.len()
        );
        self.send(&[head.as_bytes(), body.as_bytes()].concat())
    }

    /// Reads an answer's status, and notes an unexpected one. A closed connection is no answer.
    fn expect(&self, what: &str, stream: Option<TcpStream>, expected: &[u16]) {
        let Some(mut stream) = stream else { return };
        let mut head = [0; 12];
        if stream.read_exact(&mut head).is_err() {
            return;
        }
        let status = std::str::from_utf8(&head).ok().and_then(|head| head.get(9..)?.parse().ok());
        if !status.is_some_and(|status| expected.contains(&status)) {
            let head = String::from_utf8_lossy(&head).into_owned();
            self.wrong.lock().expect("no panic").push(format!("{what}: {head}"));
        }
    }

    fn pause(&self, ms: u64) {
        let until = Instant::now() + Duration::from_millis(ms);
        while self.goes_on() && Instant::now() < until {
            sleep(Duration::from_millis(10));
        }
    }

    /// Row 2.1: CloudEvents with thousands of extensions, which four differently filtered streams would encode.
    fn sends_thousands_of_extensions(self) {
        let filters = ["user=a", "action=x", "q=a", "partition=0"];
        let _streams: Vec<_> = filters.iter().map(|filter| self.get(&format!("/api/v1/stream?{filter}"))).collect();
        let extensions: serde_json::Map<String, Value> = (0..3900).map(|n| (format!("e{n}"), json!("1"))).collect();
        let event = |id: usize| {
            let mut event = extensions.clone();
            let required = json!({"specversion": "1.0", "id": format!("many-{id}"), "source": "/rogue", "type": "x",
                "data": {"user": "a", "action": "x"}});
            event.extend(required.as_object().expect("an object").clone());
            Value::Object(event)
        };
        let body = json!((0..8).map(event).collect::<Vec<_>>()).to_string();
        while self.goes_on() {
            let answer = self.post("/api/v1/events", "application/cloudevents-batch+json", &body);
            self.expect("3,900 extensions", answer, &[413, 422, 503]);
            self.pause(100);
        }
    }

    /// Rows 2.2 and 2.3: streams from the beginning whose clients hang up at once.
    fn hangs_up_while_it_catches_up(self) {
        while self.goes_on() {
            for rate in [100_000, 1] {
                let target = format!("/api/v1/stream?max_rate={rate}&after=0-0.1-0.2-0");
                let clients: Vec<_> = (0..20).map(|_| self.get(&target)).collect();
                drop(clients);
                self.pause(500);
            }
        }
    }

    /// Pages of large records that are never read.
    fn reads_nothing_of_large_pages(self) {
        while self.goes_on() {
            let _clients: Vec<_> = (0..10).map(|_| self.get("/api/v1/events?limit=1000&from=beginning")).collect();
            self.pause(4000);
        }
    }

    /// Rows 2.5 and 2.8: streams with different filters that match everything, read slowly or not at all.
    fn is_always_behind(self) {
        let streams: Vec<_> =
            (0..40).map(|n| self.get(&format!("/api/v1/stream?after=0-0.1-0.2-0&q=u&q=unlikely{n}"))).collect();
        let mut buffer = vec![0; 64 << 10];
        while self.goes_on() {
            for stream in streams.iter().flatten().take(10) {
                let _ = (&*stream).read(&mut buffer); // it may be closed by now
                if !self.goes_on() {
                    break;
                }
            }
            self.pause(100);
        }
    }

    /// Row 2.6: exports that are read slowly.
    fn reads_exports_slowly(self) {
        let exports: Vec<_> = (0..6).map(|_| self.get("/api/v1/events.ndjson?from=beginning")).collect();
        let mut buffer = vec![0; 4 << 10];
        while self.goes_on() {
            for stream in exports.iter().flatten() {
                stream.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
                let _ = (&*stream).read(&mut buffer); // it may be refused or closed
            }
            self.pause(100);
        }
    }

    /// Row 2.9: filters with as many texts as are allowed.
    fn filters_by_many_texts(self) {
        let texts = |count: usize| (0..count).map(|n| format!("q=nothing-of-this-{n}")).collect::<Vec<_>>().join("&");
        self.expect("100 texts", self.get(&format!("/api/v1/stream?{}", texts(100))), &[400]);
        let target = format!("/api/v1/stream?after=0-0.1-0.2-0&{}", texts(10));
        let _streams: Vec<_> = (0..20).map(|_| self.get(&target)).collect();
        while self.goes_on() {
            self.pause(100);
        }
    }

    /// Row 2.10: WebSockets that ping and never read.
    fn pings_and_never_reads(self) {
        // A masked ping of 100 bytes, with the mask 0.
        let ping = [&[0x89, 0x80 | 100, 0, 0, 0, 0][..], &[b'p'; 100]].concat();
        let pings = ping.repeat(500);
        while self.goes_on() {
            let handshake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
            let sockets: Vec<_> = (0..4).filter_map(|_| self.get_with("/api/v1/ws", handshake)).collect();
            for _ in 0..200 {
                for mut socket in &sockets {
                    socket.set_write_timeout(Some(Duration::from_millis(20))).expect("a timeout");
                    let _ = socket.write(&pings); // fails if the connection is full or closed
                }
                if !self.goes_on() {
                    break;
                }
            }
            self.pause(500);
        }
    }

    /// Rows 2.11 and 2.12: a page of another site, under a name of its own or its visitor's.
    fn comes_from_another_site(self) {
        while self.goes_on() {
            let evil = b"GET /api/v1/events?limit=1000 HTTP/1.1\r\nHost: evil.example\r\n\r\n";
            self.expect("another host", self.send(evil), &[421]);
            let cross_site = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n";
            for target in ["/api/v1/events.ndjson?from=beginning", "/api/v1/stream", "/api/v1/events?limit=1000"] {
                self.expect(target, self.get_with(target, cross_site), &[403]);
            }
            self.pause(200);
        }
    }

    /// Searches that match nothing.
    fn searches_for_nothing(self) {
        while self.goes_on() {
            let _searches: Vec<_> =
                (0..60).map(|n| self.get(&format!("/api/v1/events?q=not-there-{n}&from=beginning"))).collect();
            self.pause(3000);
        }
    }

    /// Row 2.13: events that it does not wait for.
    fn posts_without_waiting(self) {
        let body = json!(vec![json!({"user": "rogue", "action": "flood", "pad": "x".repeat(31_000)}); 15]).to_string();
        while self.goes_on() {
            let answer = self.post("/api/v1/events?ack=none", "application/json", &body);
            self.expect("events without waiting", answer, &[202, 429, 503]);
            self.pause(50);
        }
    }

    /// Row 2.14: heads and bodies that never end.
    fn never_ends_its_requests(self) {
        let header = format!("X-Long: {}\r\n", "x".repeat(60_000));
        let head = format!("GET / HTTP/1.1\r\nHost: {}\r\n{header}", self.server);
        let body = format!(
            "POST /api/v1/events HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: 524288\r\n\r\n",
            self.server
        );
        let mut connections = Vec::new();
        for _ in 0..1000 {
            connections.push(self.send(head.as_bytes()));
            if !self.goes_on() {
                return;
            }
        }
        connections.extend((0..50).map(|_| self.send(&[body.as_bytes(), &vec![b' '; 400_000]].concat())));
        while self.goes_on() {
            self.pause(100);
        }
    }
}

#[test]
fn all_misbehaviour_at_once_leaves_others_served_and_memory_bounded() {
    let app = Application::on(Broker::Kafka).start();
    fill(&app);
    // The records pass through the feed, and the memory of that belongs to the idle process.
    let end = app.topic().end();
    within(PATIENCE, "the feed is at the end", || {
        let ready = app.get("/readyz?verbose");
        ready.text().contains(&end).then_some(())
    });
    sleep(Duration::from_secs(1));
    let idle = Resources::of(app.process_id());
    let (over, wrong, attempts) = (AtomicBool::new(false), Mutex::default(), AtomicUsize::new(0));
    let rogue = Rogue { server: app.address, over: &over, wrong: &wrong, attempts: &attempts };
    let servers = Servers::of(&app);
    let load = Load::new(&servers, "/api/v1/events", Retries::ById);
    let slowest = Mutex::new(Duration::ZERO);
    let stream = app.stream("");
    let (ledger, follower) = thread::scope(|scope| {
        let (over, slowest) = (&over, &slowest);
        let follower = scope.spawn(move || follow(stream, over));
        let ledger = load.beside(|load| {
            scope.spawn(move || watch_livez(app.address, over, slowest));
            load.wait_for(20, 201);
            for act in Rogue::ACTS {
                scope.spawn(move || act(rogue));
            }
            sleep(FOR);
            over.store(true, Ordering::Relaxed);
            load.wait_for(20, 201);
        });
        (ledger, follower.join().expect("the stream is whole"))
    });
    let now = Resources::of(app.process_id());
    let slowest = *slowest.lock().expect("no panic");
    let slowest_post = ledger.attempts().iter().map(|attempt| attempt.took).max().unwrap_or_default();
    println!(
        "{} connections of rogues; memory {} KiB idle, {} KiB at the peak; slowest /livez {slowest:?}, post {slowest_post:?}; \
         {} records on the stream",
        attempts.load(Ordering::Relaxed),
        idle.resident_kib,
        now.peak_kib,
        follower.records.len(),
    );
    assert_eq!(app.panics(), Vec::<String>::new());
    assert_eq!(*wrong.lock().expect("no panic"), Vec::<String>::new(), "answers to rogues");
    assert_ordinary_clients_lost_nothing(&app, &ledger, follower);
    assert!(slowest < LIVEZ, "the slowest /livez took {slowest:?}");
    assert!(slowest_post < POST, "the slowest post took {slowest_post:?}");
    let used = now.peak_kib.saturating_sub(idle.resident_kib);
    assert!(used < MEMORY_KIB, "{used} KiB above the idle process");
}

/// Fills the topic as another producer would.
fn fill(app: &Application) {
    let pad = "x".repeat(RECORD);
    for chunk in (0..TOPIC / RECORD).collect::<Vec<_>>().chunks(1000) {
        let record = |n: &usize| {
            let value = json!({"user": format!("user-{n}"), "action": "fill", "pad": pad});
            NewRecord::new().key(format!("user-{n}")).value(value.to_string())
        };
        app.topic().produce_all(&chunk.iter().map(record).collect::<Vec<_>>());
    }
}

/// Follows the stream as an ordinary client, until it has the end of the topic and all is over.
fn follow(mut stream: Subscription, over: &AtomicBool) -> Follower {
    // Not the stream's own last id: that is of all that has arrived, which may be more.
    let place = match stream.frame(Instant::now() + PATIENCE) {
        Some(Frame::Message(message)) if message.event == "position" => message.last_event_id,
        _ => panic!("the stream does not begin with its position"),
    };
    let mut follower = Follower::from(&place);
    let mut quiet = 0;
    while quiet < 3 {
        match stream.frame(Instant::now() + Duration::from_millis(500)) {
            Some(Frame::Message(message)) => follower.take(&message),
            Some(Frame::Silent { .. }) => {}
            None if over.load(Ordering::Relaxed) => quiet += 1,
            None => {}
        }
    }
    follower
}

fn watch_livez(server: SocketAddr, over: &AtomicBool, slowest: &Mutex<Duration>) {
    while !over.load(Ordering::Relaxed) {
        let started = Instant::now();
        Request::new(server, "GET", "/livez").send().expect(200);
        let took = started.elapsed();
        let mut slowest = slowest.lock().expect("no panic");
        *slowest = took.max(*slowest);
        drop(slowest);
        sleep(Duration::from_millis(20));
    }
}

/// Every event that was answered 201 came over the stream once, at the place of its receipt.
#[track_caller]
fn assert_ordinary_clients_lost_nothing(app: &Application, ledger: &crate::common::Ledger, follower: Follower) {
    assert_eq!(follower.dropped + follower.missed, 0, "the stream reported missing records");
    assert!(follower.place.covers(&Cursor::parse(&app.topic().end())), "the stream ends at {}", follower.place);
    let mut seen: std::collections::HashMap<&str, Vec<(i64, i64)>> = std::collections::HashMap::new();
    for (partition, offset, value) in &follower.records {
        seen.entry(value["id"].as_str().unwrap_or_default()).or_default().push((*partition, *offset));
    }
    let attempts = ledger.attempts();
    let taken: Vec<_> = attempts.iter().filter(|attempt| attempt.status == Some(201)).collect();
    assert!(taken.len() > 40, "ordinary posts were taken: {ledger}");
    for attempt in taken {
        let places = seen.get(&*attempt.id).map_or(&[][..], Vec::as_slice);
        assert_eq!(places, attempt.place.as_slice(), "{attempt:?}");
    }
    let other: Vec<_> = attempts.iter().filter(|attempt| !matches!(attempt.status, Some(201))).collect();
    assert!(other.is_empty(), "ordinary posts that were not answered 201: {other:?}");
}
