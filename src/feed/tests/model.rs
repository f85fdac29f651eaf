//! Compares the ring and its subscriptions with a model: whatever the order of the steps, every matching record arrives
//! once and in order, or a `gap`, `dropped` or `skipped` reports exactly that it does not.
//!
//! Why not loom: ring and readers share a `RwLock`, a block's frames are in std's `OnceLock` and `Mutex`, and tasks are
//! woken by `AtomicWaker`. Beside those only two atomics order anything: the number of waves, which a reader reads after
//! it has left its waker (as `AtomicWaker` demands), and the number of the last block of a wave. One read takes the lock a
//! few times. A change by the writer in between (append, evict, recreate) could also
//! come before the next read, so these tests cover every order that matters. The last test of this file checks that
//! readers on other threads get everything too and are always woken.

use std::future::poll_fn;
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use tokio::runtime;
use tokio::time::timeout;

use footfall_core::checks::event_stream::{Frame, SseMessage};

use crate::event::Record;
use crate::feed::{Cursor, Dialect, Feed, Filter, Frames, Next, Subscription, UNKNOWN, Writer};

/// Records that the ring keeps: few, so that it evicts all the time.
const RING: usize = 6;

/// The partition that has no leader at first, and the users of its records.
const LATE: usize = 2;
const BEFORE: [u8; 4] = [0, 1, 1, 0];

/// One step of a test case.
#[derive(Debug, Clone)]
enum Step {
    /// The tail reads a record of a partition.
    Push(Index, u8),
    /// The writer publishes the pending records.
    Publish,
    /// Records of a partition expire before they were read.
    Skip(Index, u8),
    /// The topic is recreated.
    Restart(u8),
    /// A partition is added.
    Grow,
    /// The partition without a leader gets one. The tail reads its last records, as many as the first number; the
    /// second number is how many of them were written since the other partitions are read.
    Begin(u8, u8),
    /// A client subscribes at this distance from the head of each partition.
    Subscribe(Vec<i8>, Option<u8>),
    /// A client subscribes with the last records, this many.
    Last(u8, Option<u8>),
    Read(Index),
    ReadNewest(Index, u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let user = || proptest::option::of(0..2_u8);
    let step = prop_oneof![
        12 => (any::<Index>(), 0..2_u8).prop_map(|(partition, user)| Step::Push(partition, user)),
        6 => Just(Step::Publish),
        1 => (any::<Index>(), 1..4_u8).prop_map(|(partition, count)| Step::Skip(partition, count)),
        1 => (0..3_u8).prop_map(Step::Restart),
        1 => Just(Step::Grow),
        1 => (0..5_u8, 0..5_u8).prop_map(|(last, since)| Step::Begin(last, since)),
        3 => (proptest::collection::vec(-6..3_i8, 1..4), user()).prop_map(|(apart, user)| Step::Subscribe(apart, user)),
        1 => (0..8_u8, user()).prop_map(|(count, user)| Step::Last(count, user)),
        8 => any::<Index>().prop_map(Step::Read),
        8 => (any::<Index>(), 0..5_u8).prop_map(|(reader, allowance)| Step::ReadNewest(reader, allowance)),
    ];
    proptest::collection::vec(step, 1..80)
}

/// What the topic has at an offset.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Slot {
    /// A record, by its user.
    Of(u8),
    Expired,
}

/// A client and what it has received.
struct Client {
    subscription: Subscription,
    user: Option<u8>,
    /// Its last event id.
    place: Cursor,
    /// The topic that `place` belongs to, counted from 0.
    topic: usize,
    /// Whether it has caught up once: until then it may lose nothing.
    live: bool,
}

struct World {
    feed: Feed,
    writer: Writer,
    /// The topics so far, each with its partitions.
    topics: Vec<Vec<Vec<Slot>>>,
    clients: Vec<Client>,
    /// Whether all partitions have leaders.
    led: bool,
}

fn record(partition: usize, offset: usize, user: u8) -> Record {
    let value = format!(r#"{{"user":"u{user}","action":"a"}}"#);
    Record::new(partition as i32, offset as i64, None, None, Some(value.as_bytes()), std::iter::empty())
}

fn filter(user: Option<u8>) -> Filter {
    Filter { users: user.iter().map(|user| format!("u{user}")).collect(), ..Filter::default() }
}

impl World {
    fn new() -> Self {
        let feed = Feed::new("t", Frames::new(|_| "<li>".into()), RING, usize::MAX);
        let mut writer = feed.writer();
        writer.start(&[0, 0, UNKNOWN], &[0, 0, 0]);
        let topic = vec![Vec::new(), Vec::new(), BEFORE.map(Slot::Of).to_vec()];
        World { feed, writer, topics: vec![topic], clients: Vec::new(), led: false }
    }

    /// Returns whether a partition has no leader: nothing can be written to it, and nothing in it expires.
    fn is_shut(&self, partition: usize) -> bool {
        partition == LATE && !self.led
    }

    fn topic(&mut self) -> &mut Vec<Vec<Slot>> {
        self.topics.last_mut().expect("a topic")
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Push(partition, user) => {
                let partition = partition.index(self.topic().len());
                if self.is_shut(partition) {
                    return;
                }
                let offset = self.topic()[partition].len();
                self.topic()[partition].push(Slot::Of(user));
                self.writer.push(record(partition, offset, user));
            }
            Step::Publish => self.writer.flush(),
            Step::Skip(partition, count) => {
                let partition = partition.index(self.topic().len());
                if self.is_shut(partition) {
                    return;
                }
                let slots = &mut self.topic()[partition];
                slots.resize(slots.len() + usize::from(count), Slot::Expired);
                let next = slots.len() as i64;
                self.writer.skip(partition as i32, next);
            }
            Step::Restart(first) => {
                let first = usize::from(first);
                self.led = true;
                let partitions = self.topic().len();
                self.topics.push(vec![vec![Slot::Expired; first]; partitions]);
                self.writer.restart(&vec![first as i64; partitions]);
            }
            Step::Grow => {
                self.topic().push(Vec::new());
                let partitions = self.topic().len();
                self.writer.add_partitions(partitions);
            }
            Step::Begin(..) if self.led => {}
            Step::Begin(last, since) => {
                self.led = true;
                let [from, since] = [last, since].map(|count| BEFORE.len() - usize::from(count).min(BEFORE.len()));
                self.writer.start_partition(LATE as i32, from as i64, since as i64, BEFORE.len() as i64);
                for (offset, user) in BEFORE.iter().enumerate().skip(from) {
                    self.writer.push(record(LATE, offset, *user));
                }
            }
            Step::Subscribe(apart, user) => {
                let head = self.feed.head();
                let near = |(partition, next): (usize, &i64)| {
                    let apart = i64::from(apart.get(partition).copied().unwrap_or(0));
                    match *next {
                        UNKNOWN if apart < 0 => (BEFORE.len() as i64 + apart).max(0),
                        UNKNOWN => UNKNOWN,
                        next => (next + apart).max(0),
                    }
                };
                let place = Cursor::new(head.positions().iter().enumerate().map(near).collect::<Vec<_>>());
                self.come(place, user);
            }
            Step::Last(count, user) => {
                let count = usize::from(count);
                let (place, found) = self.feed.back(&filter(user), count);
                assert!(found <= count);
                self.come(place, user);
                let got = self.drain(self.clients.len() - 1);
                // Records that were skipped on the way do not count.
                assert_eq!(got, found, "the last {count} of {user:?}");
            }
            Step::Read(reader) if !self.clients.is_empty() => {
                let reader = reader.index(self.clients.len());
                self.read(reader);
            }
            Step::ReadNewest(reader, allowance) if !self.clients.is_empty() => {
                let reader = reader.index(self.clients.len());
                let before = usize::from(allowance);
                let mut allowance = before;
                let next = self.clients[reader].subscription.read_newest(&mut allowance);
                let events = self.check_read(reader, next).unwrap_or(0);
                assert_eq!(before - allowance, events, "the allowance of {before}");
            }
            Step::Read(_) | Step::ReadNewest(..) => {}
        }
    }

    fn come(&mut self, place: Cursor, user: Option<u8>) {
        let subscription = Subscription::new(&self.feed, Dialect::Json, filter(user), place.clone());
        self.clients.push(Client { subscription, user, place, topic: self.topics.len() - 1, live: false });
    }

    /// Lets one reader read once. Returns the events that it got, or `None` if it has everything.
    fn read(&mut self, reader: usize) -> Option<usize> {
        let next = self.clients[reader].subscription.read();
        self.check_read(reader, next)
    }

    /// Lets one reader read everything available. Returns the events that it got.
    fn drain(&mut self, reader: usize) -> usize {
        std::iter::from_fn(|| self.read(reader)).sum()
    }

    /// Compares the result of a read with the model.
    fn check_read(&mut self, reader: usize, next: Option<Next>) -> Option<usize> {
        let (topics, client) = (&self.topics, &mut self.clients[reader]);
        client.live |= next.is_none();
        let bytes = match next? {
            Next::Frames(bytes) => bytes,
            Next::Onward => panic!("a ring of {RING} has no many blocks"),
            Next::Behind { to } => {
                // Kafka has these records: the client gets them from there, with a gap for those that expired.
                assert!(!client.place.covers(&to), "{} is not behind {to}", client.place);
                client.place = client.place.max(&to);
                client.subscription.resume(client.place.clone());
                return Some(0);
            }
        };
        assert!(!bytes.is_empty(), "nothing, as if it were something");
        let mut events = 0;
        for frame in footfall_core::checks::streams::frames(&bytes, bytes.len() / 2) {
            let Frame::Message(message) = frame else { panic!("a frame without data: {frame:?}") };
            events += client.take_message(topics, &message);
        }
        assert!(
            client.subscription.place().covers(&client.place),
            "the cursor is beyond the position of the subscription"
        );
        // The cursor may pass only records that the filter hides.
        client.pass(topics, Cursor::clone(client.subscription.place()), None);
        Some(events)
    }

    /// Publishes and reads everything that was pushed, so that no record is outstanding.
    fn end(mut self) {
        self.writer.flush();
        let head = self.feed.head();
        for reader in 0..self.clients.len() {
            self.drain(reader);
            let client = &self.clients[reader];
            let head = client.known(&head);
            assert!(client.subscription.place().covers(&head), "{} is not at {head}", client.subscription.place());
            assert_eq!(client.topic, self.topics.len() - 1, "no gap after the topic was recreated");
            assert!(self.clients[reader].subscription.read_newest(&mut 5).is_none());
        }
    }
}

impl Client {
    /// Takes one message. Returns how many events it is.
    fn take_message(&mut self, topics: &[Vec<Vec<Slot>>], message: &SseMessage) -> usize {
        let last_id: Cursor = message.last_event_id.parse().expect("a cursor");
        let to = self.known(&last_id);
        let data = message.json();
        let place = |name: &str| data[name].as_str().and_then(|text| text.parse::<Cursor>().ok()).expect("a cursor");
        match message.event.as_str() {
            "message" => {
                let number = |name: &str| data[name].as_i64().expect("a number");
                self.pass(topics, to, Some((number("partition") as usize, number("offset") as usize)));
                return 1;
            }
            "gap" if data["reason"] == "topic recreated" => {
                assert!(self.topic + 1 < topics.len(), "a second gap after the topic was recreated");
                self.pass(topics, place("requested"), None);
                assert_eq!(place("resumed"), last_id);
                assert!(data["missed"].is_null());
                (self.topic, self.place) = (topics.len() - 1, to);
            }
            "gap" if data["reason"] == "no leader" => {
                // The client knew no offset in that partition, so it is owed nothing that was written before the other
                // partitions were read.
                assert_eq!(self.place.get(LATE as i32), UNKNOWN, "{message:?}");
                assert!(to.get(LATE as i32) <= BEFORE.len() as i64 && data["missed"].is_null(), "{message:?}");
                assert_eq!(place("resumed"), last_id);
                self.place.set(LATE as i32, to.get(LATE as i32));
                self.pass(topics, to, None);
            }
            "gap" => {
                self.pass(topics, place("requested"), None);
                assert_eq!(place("resumed"), last_id);
                let lost = self.lost(topics, &to);
                assert!(!lost.is_empty() && lost.iter().all(|slot| *slot == Slot::Expired), "{lost:?} in {message:?}");
                assert_eq!(data["missed"], lost.len());
                self.place = to;
            }
            name @ ("dropped" | "skipped") => {
                assert!(name == "skipped" || self.live, "{message:?} before it had everything");
                self.pass(topics, place("from"), None);
                assert_eq!(place("to"), last_id);
                let mut lost = self.lost(topics, &to);
                if name == "skipped" {
                    self.live = true;
                    assert!(!lost.contains(&Slot::Expired), "{lost:?} in {message:?}");
                    lost.retain(|slot| self.wants(*slot));
                }
                assert_eq!(data["count"], lost.len(), "{lost:?} in {message:?}");
                assert!(!lost.is_empty());
                self.place = to;
            }
            other => panic!("an event called {other}"),
        }
        0
    }

    /// Returns a cursor that the client got, with its own offset in the partition without a leader where the cursor
    /// leaves it unknown.
    fn known(&self, place: &Cursor) -> Cursor {
        let mut place = place.clone();
        if place.get(LATE as i32) == UNKNOWN {
            place.set(LATE as i32, self.place.get(LATE as i32));
        }
        place
    }

    fn wants(&self, slot: Slot) -> bool {
        match slot {
            Slot::Of(user) => self.user.is_none_or(|wanted| wanted == user),
            Slot::Expired => true,
        }
    }

    fn lost(&self, topics: &[Vec<Vec<Slot>>], to: &Cursor) -> Vec<Slot> {
        self.between(topics, to).into_iter().map(|(_, _, slot)| slot).collect()
    }

    /// Returns what lies between the client's cursor and a later one, by partition and offset.
    fn between(&self, topics: &[Vec<Vec<Slot>>], to: &Cursor) -> Vec<(usize, usize, Slot)> {
        assert!(to.covers(&self.place), "back from {} to {to}", self.place);
        let topic = &topics[self.topic];
        let each = (0..to.partitions()).flat_map(|partition| {
            let (from, to) = (self.place.get(partition as i32) as usize, to.get(partition as i32) as usize);
            (from..to).map(move |offset| (partition, offset, topic[partition][offset]))
        });
        each.collect()
    }

    /// Advances the client's cursor. Of the records that match, it may pass only the event that the client gets.
    fn pass(&mut self, topics: &[Vec<Vec<Slot>>], to: Cursor, event: Option<(usize, usize)>) {
        let to = self.known(&to);
        let mut wanted = self.between(topics, &to);
        wanted.retain(|(_, _, slot)| self.wants(*slot));
        let wanted: Vec<(usize, usize)> =
            wanted.into_iter().map(|(partition, offset, _)| (partition, offset)).collect();
        let came: Vec<(usize, usize)> = event.into_iter().collect();
        assert_eq!(came, wanted, "between {} and {to} came the one and should the other", self.place);
        self.place = to;
    }
}

proptest! {
    #[test]
    fn no_record_comes_twice_and_every_loss_is_reported(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        world.end();
    }
}

/// How many records the threads pass on: a multiple of the cases that `PROPTEST_CASES` asks for.
fn records_to_pass() -> i64 {
    i64::from(ProptestConfig::default().cases) * 100
}

/// Runs a client on a task of its own, which waits as a stream does and sometimes reconnects at its last id. Returns
/// how many records it got, and how many were reported as lost.
async fn follow(feed: Feed, all: i64, seed: i64) -> (u64, u64) {
    let (mut events, mut lost, mut place) = (0, 0, Cursor::new([0, 0]));
    let mut live = Subscription::new(&feed, Dialect::Json, Filter::default(), place.clone());
    let mut allowance = 0;
    while place.distance(&Cursor::new([all, all])) > 0 {
        live.mark_seen();
        allowance += 7;
        let next = if seed % 2 == 0 { live.read() } else { live.read_newest(&mut allowance) };
        let Some(next) = next else {
            // A lost wake-up would hang here, because nothing else wakes the task.
            timeout(Duration::from_secs(20), poll_fn(|cx| live.poll_changed(cx)))
                .await
                .expect("woken when there is more");
            continue;
        };
        match next {
            Next::Onward => {}
            Next::Behind { to } => {
                lost += place.distance(&to);
                place = place.max(&to);
                live.resume(place.clone());
            }
            Next::Frames(bytes) => {
                for frame in footfall_core::checks::streams::frames(&bytes, 0) {
                    let Frame::Message(message) = frame else { panic!("a frame without data") };
                    let after: Cursor = message.last_event_id.parse().expect("a cursor");
                    let passed = place.distance(&after);
                    assert!(after.covers(&place), "back from {place} to {after}");
                    match message.event.as_str() {
                        "message" => {
                            assert_eq!(passed, 1, "from {place} to {after}");
                            events += 1;
                        }
                        _ => {
                            assert_eq!(message.json()["count"], passed, "{message:?}");
                            lost += passed;
                        }
                    }
                    place = after;
                }
            }
        }
        if (events as i64 + seed) % 97 == 0 {
            // The connection was lost, and the client resumes.
            live = Subscription::new(&feed, Dialect::Json, Filter::default(), place.clone());
        }
    }
    (events, lost)
}

#[test]
fn readers_on_other_threads_get_every_record_or_a_count_and_are_always_woken() {
    let feed = Feed::new("t", Frames::new(|_| "<li>".into()), 500, usize::MAX);
    let mut writer = feed.writer();
    writer.start(&[0, 0], &[0, 0]);
    let all = records_to_pass();
    let runtime = runtime::Builder::new_multi_thread().worker_threads(3).enable_time().build().expect("a runtime");
    let readers: Vec<_> = (0..6).map(|seed| runtime.spawn(follow(feed.clone(), all, seed))).collect();
    let writing = thread::spawn(move || {
        for offset in 0..all as usize {
            writer.push(record(0, offset, 0));
            writer.push(record(1, offset, 1));
            if offset % 7 == 0 {
                writer.flush();
            }
            if offset % 1000 == 0 {
                thread::sleep(Duration::from_millis(1)); // so that readers reach the head and wait
            }
        }
        writer.flush();
    });
    for reader in readers {
        let (events, lost) = runtime.block_on(reader).expect("a reader");
        assert_eq!(events + lost, 2 * all as u64);
    }
    writing.join().expect("the writer");
}
