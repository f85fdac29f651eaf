//! Records the answers that clients get, and compares them with the topic.
//!
//! A [`Load`] posts and retries by id as the API documentation says; a [`Watcher`] follows a stream and resumes it
//! after every cut. At the end [`Ledger::assert_truthful`] compares all answers with the topic as an independent Kafka
//! client reads it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::cursor::{Cursor, Follower};
use super::http::Request;
use super::sse::{Frame, Subscription};
use super::topic::{StoredRecord, Topic};
use super::wait::within;
use super::{Application, assert_same_set, kafka, unique};

/// How long a broker or an application may take to restart and to be noticed: as long as a JVM starts beside other
/// tests.
pub const HEALING: Duration = Duration::from_secs(60);

/// The result of one request.
#[derive(Debug, Clone)]
pub struct Attempt {
    pub id: String,
    /// `None`: no answer.
    pub status: Option<u16>,
    /// Partition and offset, from the receipt.
    pub place: Option<(i64, i64)>,
    pub started: Instant,
    pub took: Duration,
}

/// Where clients find an application. The port changes with each restart.
#[derive(Default)]
pub struct Servers(Mutex<Vec<SocketAddr>>);

impl Servers {
    pub fn of(app: &Application) -> Self {
        Servers(Mutex::new(vec![app.address]))
    }

    pub fn at(addresses: &[SocketAddr]) -> Self {
        Servers(Mutex::new(addresses.to_vec()))
    }

    pub fn set(&self, index: usize, address: SocketAddr) {
        self.0.lock().expect("no panic")[index] = address;
    }

    /// Returns the one for a client's attempt with this number.
    pub fn pick(&self, number: usize) -> SocketAddr {
        let addresses = self.0.lock().expect("no panic");
        addresses[number % addresses.len()]
    }
}

/// All answers so far.
#[derive(Default)]
pub struct Ledger {
    attempts: Mutex<Vec<Attempt>>,
    /// The exact bytes that were sent, by id.
    bodies: Mutex<HashMap<String, String>>,
}

impl Ledger {
    pub fn attempts(&self) -> Vec<Attempt> {
        self.attempts.lock().expect("no panic").clone()
    }

    pub fn count(&self, status: u16) -> usize {
        let attempts = self.attempts.lock().expect("no panic");
        attempts.iter().filter(|attempt| attempt.status == Some(status)).count()
    }

    /// Waits for this many more answers with a status.
    #[track_caller]
    pub fn wait_for(&self, count: usize, status: u16) {
        let wanted = self.count(status) + count;
        within(HEALING, &format!("{count} more answers {status}"), || (self.count(status) >= wanted).then_some(()));
    }

    fn post(&self, server: SocketAddr, target: &str, id: &str, body: &str) -> Attempt {
        let started = Instant::now();
        let answer = Request::new(server, "POST", target).body("application/json", body).try_send();
        let place = answer.as_ref().filter(|answer| answer.status() == 201).map(|answer| {
            let receipt = answer.json();
            (receipt["partition"].as_i64().expect("a partition"), receipt["offset"].as_i64().expect("an offset"))
        });
        let status = answer.map(|answer| answer.status());
        let attempt = Attempt { id: id.into(), status, place, started, took: started.elapsed() };
        self.attempts.lock().expect("no panic").push(attempt.clone());
        attempt
    }

    /// Checks that every answer arrived in time: `ingest.deadline` and 2 s.
    #[track_caller]
    pub fn assert_within(&self, deadline: Duration) {
        let limit = deadline + Duration::from_secs(2);
        let attempts = self.attempts.lock().expect("no panic");
        let late: Vec<_> = attempts.iter().filter(|attempt| attempt.took > limit).collect();
        assert!(late.is_empty(), "later than {limit:?}: {late:?}");
    }

    /// Checks that every event that was answered with success is in the topic once, as it was sent and at the offset of
    /// its receipt, however often it was sent; that no event that was always rejected is there; and that events with an
    /// unknown outcome are there at most once.
    #[track_caller]
    pub fn assert_truthful(&self, topic: &Topic) {
        self.assert_records(&topic.records(), self.attempts());
    }

    /// Checks the same for events that were only sent, or accepted, after the topic was recreated. The others may be
    /// gone with the old topic, but none may be there twice.
    #[track_caller]
    pub fn assert_truthful_since(&self, recreated: Instant, topic: &Topic) {
        let records = topic.records();
        let mut attempts = self.attempts();
        let before = |attempt: &&Attempt| attempt.started < recreated && attempt.status != Some(503);
        let old: HashSet<String> = attempts.iter().filter(before).map(|attempt| attempt.id.clone()).collect();
        attempts.retain(|attempt| !old.contains(&attempt.id));
        let mut found = HashSet::new();
        for id in records.iter().map(|record| record.header("ce_id").expect("an id")).filter(|id| old.contains(*id)) {
            assert!(found.insert(id), "{id} is there twice");
        }
        self.assert_records(&records, attempts);
    }

    /// Checks that Kafka's own ConsoleConsumer reads the same set of ids.
    #[track_caller]
    pub fn assert_console_consumer_agrees(&self, topic: &Topic) {
        let ours = topic.records().into_iter().map(|record| record.header("ce_id").expect("an id").to_owned());
        let theirs = kafka::console_consumer(topic.servers(), topic.name());
        let id = |line: String| {
            let from = line.find("ce_id:").unwrap_or_else(|| panic!("no id in {line}")) + "ce_id:".len();
            line[from..].split([',', '\t']).next().unwrap_or_default().to_owned()
        };
        assert_same_set(ours, theirs.into_iter().map(id));
    }

    #[track_caller]
    fn assert_records(&self, records: &[StoredRecord], attempts: Vec<Attempt>) {
        let of_a_load = |attempt: &&Attempt| matches!(attempt.status, None | Some(201 | 202 | 408 | 503 | 504));
        let all = self.attempts();
        let other: Vec<&Attempt> = all.iter().filter(|attempt| !of_a_load(attempt)).collect();
        assert!(other.is_empty(), "answers that no load should get: {other:?}");
        let mut written: HashMap<&str, Vec<&StoredRecord>> = HashMap::new();
        for record in records {
            written.entry(record.header("ce_id").expect("an id")).or_default().push(record);
        }
        let mut by_id: HashMap<String, Vec<Attempt>> = HashMap::new();
        for attempt in attempts {
            by_id.entry(attempt.id.clone()).or_default().push(attempt);
        }
        let bodies = self.bodies.lock().expect("no panic");
        for (id, attempts) in by_id {
            let found = written.get(&*id).map_or(&[][..], Vec::as_slice);
            let had = |wanted: fn(Option<u16>) -> bool| attempts.iter().any(|attempt| wanted(attempt.status));
            if had(|status| matches!(status, Some(201 | 202))) {
                assert_eq!(found.len(), 1, "{attempts:?}: {found:?}");
                let place = (i64::from(found[0].partition), found[0].offset);
                assert!(
                    attempts.iter().all(|a| a.place.is_none_or(|place_of| place_of == place)),
                    "{attempts:?}: {place:?}"
                );
                assert_eq!(found[0].text(), bodies[&id], "{attempts:?}");
            } else if had(|status| matches!(status, None | Some(504))) {
                assert!(found.len() <= 1, "{attempts:?}: {found:?}");
            } else {
                assert!(found.is_empty(), "{attempts:?}: {found:?}");
            }
        }
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attempts = self.attempts.lock().expect("no panic");
        let count = |status| attempts.iter().filter(|attempt| attempt.status == status).count();
        let slowest = attempts.iter().map(|attempt| attempt.took).max().unwrap_or_default();
        let (all, taken, refused) = (attempts.len(), count(Some(201)), count(Some(503)));
        let (unknown, cut) = (count(Some(504)), count(None));
        write!(f, "{all} requests: {taken} x 201, {refused} x 503, {unknown} x 504, {cut} cut; slowest {slowest:?}")
    }
}

/// Posts from several threads until it is stopped.
pub struct Load<'a> {
    servers: &'a Servers,
    target: &'a str,
    retries: Retries,
    pub ledger: Ledger,
    stopped: AtomicBool,
}

/// How a client reacts to an answer other than 201.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retries {
    Never,
    /// Sends the same event again until it is accepted or the load is stopped. After a broken connection or a 504 it
    /// stays with the same server, as the API documentation says; after a 503 it uses the next one.
    ById,
    /// The same, but it also uses the next server after a broken connection, like a client that retries after a second.
    Elsewhere,
}

impl<'a> Load<'a> {
    pub const THREADS: usize = 4;

    pub fn new(servers: &'a Servers, target: &'a str, retries: Retries) -> Self {
        Load { servers, target, retries, ledger: Ledger::default(), stopped: AtomicBool::new(false) }
    }

    /// Runs `scenario` under the load, which is stopped at its end, even after a panic.
    pub fn beside(self, scenario: impl FnOnce(&Load)) -> Ledger {
        thread::scope(|scope| {
            for thread in 0..Load::THREADS {
                let load = &self;
                scope.spawn(move || load.post_all_the_time(thread));
            }
            let _stop = Stop(&self.stopped);
            scenario(&self);
        });
        println!("{}", self.ledger);
        self.ledger
    }

    fn post_all_the_time(&self, mut server: usize) {
        while !self.stopped.load(Ordering::Relaxed) {
            let id = unique("id");
            let body = json!({"id": id, "user": id, "action": "load"}).to_string();
            self.ledger.bodies.lock().expect("no panic").insert(id.clone(), body.clone());
            loop {
                let attempt = self.ledger.post(self.servers.pick(server), self.target, &id, &body);
                if matches!(attempt.status, Some(201 | 202)) {
                    break;
                }
                if self.retries == Retries::Never || self.stopped.load(Ordering::Relaxed) {
                    // Otherwise immediate answers would cause a flood.
                    thread::sleep(Duration::from_millis(10));
                    break;
                }
                if attempt.status == Some(503) || self.retries == Retries::Elsewhere {
                    server += 1;
                }
                thread::sleep(match self.retries {
                    Retries::Elsewhere => Duration::from_secs(1),
                    _ => Duration::from_millis(250),
                });
            }
            server += 1;
        }
    }
}

impl std::ops::Deref for Load<'_> {
    type Target = Ledger;

    fn deref(&self) -> &Ledger {
        &self.ledger
    }
}

/// Set when the scenario has ended.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Streams that are followed from the beginning of the topic, and resumed with their cursors after every cut.
pub struct Watchers {
    stopped: AtomicBool,
    cuts: AtomicUsize,
}

impl Watchers {
    /// Runs `scenario` with this many streams. At its end each must have received everything up to the topic's end:
    /// every record once and in order, or reported as dropped or as a gap for an allowed reason, with the exact count.
    #[track_caller]
    pub fn beside(
        count: usize,
        servers: &Servers,
        topic: &Topic,
        allowed: &'static [&'static str],
        scenario: impl FnOnce(),
    ) -> Vec<Follower> {
        let watchers = Watchers { stopped: AtomicBool::new(false), cuts: AtomicUsize::new(0) };
        let end = Mutex::new(None);
        let followers: Vec<Follower> = thread::scope(|scope| {
            let (watchers, end) = (&watchers, &end);
            let threads: Vec<_> =
                (0..count).map(|number| scope.spawn(move || watchers.follow(servers, number, allowed, end))).collect();
            {
                let _stop = Stop(&watchers.stopped);
                scenario();
                *end.lock().expect("no panic") = Some(Cursor::parse(&topic.end()));
            }
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        let (records, dropped, missed) = followers.iter().fold((0, 0, 0), |sum, follower| {
            (sum.0 + follower.records.len(), sum.1 + follower.dropped, sum.2 + follower.missed)
        });
        let cuts = watchers.cuts.load(Ordering::Relaxed);
        println!("{count} streams: {records} records, {dropped} dropped, {missed} missed, resumed {cuts} times");
        followers
    }

    fn follow(
        &self,
        servers: &Servers,
        number: usize,
        allowed: &'static [&'static str],
        end: &Mutex<Option<Cursor>>,
    ) -> Follower {
        let mut follower = Follower::from("0-0").allowing(allowed);
        let mut server = number;
        let mut overdue: Option<Instant> = None;
        loop {
            let id = follower.place.to_string();
            let stream = Subscription::try_open(servers.pick(server), "/api/v1/stream", &[("Last-Event-ID", &id)]);
            let mut stream = match stream {
                Some(stream) => stream,
                None => {
                    thread::sleep(Duration::from_millis(50));
                    server += 1;
                    if self.is_over(end, &follower, &mut overdue) {
                        return follower;
                    }
                    continue;
                }
            };
            loop {
                match stream.frame_or_cut(Instant::now() + Duration::from_millis(200)) {
                    Ok(Some(Frame::Message(message))) if message.is_position() => {
                        follower.check_silent(&message.last_event_id);
                    }
                    Ok(Some(Frame::Message(message))) => follower.take(&message),
                    Ok(Some(Frame::Silent { .. })) => panic!("lax parsers dispatch a block without data"),
                    Ok(None) => {}
                    Err(_) => break,
                }
                if self.is_over(end, &follower, &mut overdue) {
                    return follower;
                }
            }
            self.cuts.fetch_add(1, Ordering::Relaxed);
            server += 1;
        }
    }

    /// Whether a follower has received everything available; panics if it does not get it.
    fn is_over(&self, end: &Mutex<Option<Cursor>>, follower: &Follower, overdue: &mut Option<Instant>) -> bool {
        if !self.stopped.load(Ordering::Relaxed) {
            return false;
        }
        let end = end.lock().expect("no panic").clone();
        // Without an end the scenario has failed.
        let Some(end) = end else { return true };
        if follower.place.covers(&end) {
            return true;
        }
        let since = *overdue.get_or_insert_with(Instant::now);
        assert!(since.elapsed() < HEALING, "a stream stalls at {}, the topic ends at {end}", follower.place);
        false
    }
}

/// Processes that a test inspects through /proc.
#[derive(Debug, Clone, Copy)]
pub struct Resources {
    pub threads: usize,
    pub descriptors: usize,
    pub resident_kib: usize,
    pub peak_kib: usize,
    /// Processor time that it used, in ticks of 10 ms.
    pub ticks: u64,
}

impl Resources {
    #[track_caller]
    pub fn of(process: u32) -> Self {
        let entries = |kind: &str| std::fs::read_dir(format!("/proc/{process}/{kind}")).expect("a process").count();
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("a process");
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
            line.trim().trim_end_matches(" kB").parse().expect("a number")
        };
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("a process");
        let fields: Vec<&str> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
        let ticks = |index: usize| fields[index].parse::<u64>().expect("ticks");
        Resources {
            threads: entries("task"),
            descriptors: entries("fd"),
            resident_kib: number("VmRSS:"),
            peak_kib: number("VmHWM:"),
            ticks: ticks(11) + ticks(12),
        }
    }
}
