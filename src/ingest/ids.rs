//! The memory of ids: a retry is answered with the first receipt, and nothing is written twice.
//!
//! Bounded in number and time. Also fed by the tail, which sees every record of every replica: so a retry may reach
//! another replica, or this one after a restart.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Written;
use super::batch::Batch;
use crate::event::{Event, Record};

/// What an id stands for. Ids and values are compared by their hashes (128 and 64 bits, keyed anew in each process).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(u128);

/// So that those who write and the tail seldom wait for each other.
const SHARDS: usize = 16;

pub struct Ids {
    hashers: [RandomState; 2],
    /// Entries of each shard at most.
    most: usize,
    age: Duration,
    shards: [Mutex<Memory>; SHARDS],
}

#[derive(Default)]
struct Memory {
    entries: HashMap<Key, Entry, BuildHasherDefault<Hashed>>,
    /// In the order in which they were made, which is the order in which they are forgotten. One that was released is
    /// not an entry any more, or was made again since with another number.
    order: VecDeque<(Key, u64, Instant)>,
    made: u64,
}

/// A key is a hash already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only keys are hashed, each as one number")
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0 as u64);
    }
}

struct Entry {
    /// Its number in `order`.
    number: u64,
    value: u64,
    state: State,
}

enum State {
    /// Under way: this batch will know.
    Pending(Arc<Batch>, usize),
    Known(Written),
    /// In Kafka, but where? It was produced after this time, in milliseconds since 1970.
    Placeless {
        since_ms: i64,
    },
    /// Kafka did not say. It was produced after this time, in milliseconds since 1970.
    Unknown {
        since_ms: i64,
    },
}

/// What an event's id means for it.
pub enum Claim {
    /// It is new: produce it.
    New,
    /// The same event is under way already.
    Pending(Arc<Batch>, usize),
    /// The same event is in Kafka already.
    Known(Written),
    /// The same event may be in Kafka; the topic has to be asked.
    Doubtful,
    /// The id belongs to another event.
    Reused,
}

impl Ids {
    pub fn new(most: usize, age: Duration) -> Self {
        let hashers = [RandomState::new(), RandomState::new()];
        Ids { hashers, most: most.div_ceil(SHARDS), age, shards: Default::default() }
    }

    pub fn key(&self, id: &str) -> Key {
        let [high, low] = [0, 1].map(|n| self.hashers[n].hash_one(id));
        Key(u128::from(high) << 64 | u128::from(low))
    }

    /// Looks an event's id up, and takes it for the event if it is free.
    pub fn claim(&self, key: Key, event: &Event, batch: &Arc<Batch>, index: usize) -> Claim {
        let value = self.hashers[0].hash_one(&event.value[..]);
        let mut memory = self.lock(key);
        match memory.entries.get(&key) {
            Some(entry) if entry.value != value => Claim::Reused,
            Some(Entry { state: State::Known(written), .. }) => Claim::Known(*written),
            Some(Entry { state: State::Pending(batch, index), .. }) => Claim::Pending(batch.clone(), *index),
            Some(Entry { state: State::Placeless { .. } | State::Unknown { .. }, .. }) => Claim::Doubtful,
            None => {
                let state = State::Pending(batch.clone(), index);
                self.insert(&mut memory, key, value, state, batch.begun());
                Claim::New
            }
        }
    }

    /// The event of an id is in Kafka.
    pub fn settle(&self, key: Key, written: Written) {
        if let Some(entry) = self.lock(key).entries.get_mut(&key) {
            entry.state = State::Known(written);
        }
    }

    /// The event of an id was certainly not written: the id is free again.
    pub fn release(&self, key: Key) {
        self.lock(key).forget(key);
    }

    /// The topic was asked, and has no event of an id that was in doubt since `since_ms`: the id is free again. A newer
    /// attempt may be in doubt meanwhile, of which the topic was not asked.
    pub fn clear(&self, key: Key, since_ms: i64) {
        let mut memory = self.lock(key);
        let asked = |entry: &Entry| matches!(entry.state, State::Unknown { since_ms: since } if since == since_ms);
        if memory.entries.get(&key).is_some_and(asked) {
            memory.forget(key);
        }
    }

    /// The topic is another one: what was written into the one before is free again. What is under way stays, and what may
    /// be under way yet stays in doubt.
    pub fn start_anew(&self) {
        for shard in &self.shards {
            let mut memory = shard.lock().unwrap_or_else(PoisonError::into_inner);
            memory.entries.retain(|_, entry| {
                if let State::Placeless { since_ms } = entry.state {
                    entry.state = State::Unknown { since_ms };
                }
                !matches!(entry.state, State::Known(_))
            });
        }
    }

    /// Nobody knows whether the event of an id was written, which was produced after `since_ms`.
    pub fn doubt(&self, key: Key, since_ms: i64) {
        if let Some(entry) = self.lock(key).entries.get_mut(&key)
            && matches!(entry.state, State::Pending(..))
        {
            entry.state = State::Unknown { since_ms };
        }
    }

    /// The event of an id, which was produced after `since_ms`, is in Kafka, which did not say where.
    pub fn misplace(&self, key: Key, since_ms: i64) {
        if let Some(entry) = self.lock(key).entries.get_mut(&key)
            && matches!(entry.state, State::Pending(..))
        {
            entry.state = State::Placeless { since_ms };
        }
    }

    /// Where the event of an id stands, if that is known.
    pub fn written(&self, key: Key) -> Option<Written> {
        match self.lock(key).entries.get(&key)?.state {
            State::Known(written) => Some(written),
            _ => None,
        }
    }

    /// Since when an event's id may be in the topic, if that is not known: to be looked up before it is claimed.
    pub fn doubtful_since(&self, key: Key) -> Option<i64> {
        match self.lock(key).entries.get(&key)?.state {
            State::Placeless { since_ms } | State::Unknown { since_ms } => Some(since_ms),
            _ => None,
        }
    }

    /// A record that stands in the topic, whoever wrote it.
    pub fn observe(&self, record: &Record) {
        let Some(id) = record.id() else { return };
        let key = self.key(&id);
        // Most are our own, and their delivery reports have said the same or are about to.
        let known = |entry: &Entry| !matches!(entry.state, State::Placeless { .. } | State::Unknown { .. });
        if self.lock(key).entries.get(&key).is_some_and(known) {
            return;
        }
        let Some(value) = record.value() else { return };
        let value = self.hashers[0].hash_one(value);
        let (partition, offset) = (record.partition(), record.offset());
        let written = Written { partition, offset, time_ms: record.time_ms().unwrap_or(0) };
        let mut memory = self.lock(key);
        match memory.entries.get_mut(&key) {
            Some(entry) if known(entry) => {}
            Some(entry) => entry.state = State::Known(written),
            None => self.insert(&mut memory, key, value, State::Known(written), Instant::now()),
        }
    }

    fn insert(&self, memory: &mut Memory, key: Key, value: u64, state: State, now: Instant) {
        if self.most == 0 {
            return;
        }
        while let Some((oldest, number, made)) = memory.order.front().copied() {
            if memory.has(oldest, number) {
                if memory.entries.len() < self.most && now.duration_since(made) < self.age {
                    break;
                }
                memory.entries.remove(&oldest);
            }
            memory.order.pop_front();
        }
        // What was released in between must not add up, nor take the place of what is remembered.
        if memory.order.len() >= 2 * self.most {
            let Memory { entries, order, .. } = memory;
            order.retain(|(key, number, _)| entries.get(key).is_some_and(|entry| entry.number == *number));
        }
        memory.made += 1;
        memory.entries.insert(key, Entry { number: memory.made, value, state });
        memory.order.push_back((key, memory.made, now));
    }

    fn lock(&self, key: Key) -> MutexGuard<'_, Memory> {
        let shard = (key.0 >> 64) as usize % SHARDS;
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// Whether a place in the order is that of an entry.
    fn has(&self, key: Key, number: u64) -> bool {
        self.entries.get(&key).is_some_and(|entry| entry.number == number)
    }

    fn forget(&mut self, key: Key) {
        let Some(entry) = self.entries.remove(&key) else { return };
        if self.order.back().is_some_and(|(_, number, _)| *number == entry.number) {
            self.order.pop_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Metrics;
    use super::*;
    use crate::event::{Format, Limits, Parsed, parse};

    /// Entries that each shard keeps.
    const KEPT: usize = 2;

    #[derive(Debug, Clone)]
    enum Step {
        Claim(u8, u8),
        Settle(u8),
        Release(u8),
        Doubt(u8),
        Clear(u8, i64),
        StartAnew,
        Observe(u8, u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let (id, value) = (|| 0..60_u8, || 0..2_u8);
        let step = prop_oneof![
            6 => (id(), value()).prop_map(|(id, value)| Step::Claim(id, value)),
            3 => id().prop_map(Step::Settle),
            2 => id().prop_map(Step::Release),
            1 => id().prop_map(Step::Doubt),
            1 => (id(), 6..8_i64).prop_map(|(id, since_ms)| Step::Clear(id, since_ms)),
            1 => Just(Step::StartAnew),
            2 => (id(), value()).prop_map(|(id, value)| Step::Observe(id, value)),
        ];
        proptest::collection::vec(step, 1..200)
    }

    /// What is remembered of an id.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Told {
        New,
        Pending,
        Known(Written),
        Doubtful,
        Reused,
    }

    impl From<Claim> for Told {
        fn from(claim: Claim) -> Self {
            match claim {
                Claim::New => Told::New,
                Claim::Pending(..) => Told::Pending,
                Claim::Known(written) => Told::Known(written),
                Claim::Doubtful => Told::Doubtful,
                Claim::Reused => Told::Reused,
            }
        }
    }

    fn event(id: u8, value: u8) -> Event {
        let body = format!(r#"{{"user":"u{value}","action":"a","id":"id-{id}"}}"#);
        let limits = Limits { event: 1000, batch: 1, now_ms: 0 };
        match parse(&body.into(), Format::Json, &limits) {
            Ok(Parsed::One(checked)) => checked.expect("an event"),
            other => panic!("{other:?}"),
        }
    }

    fn memory() -> Arc<Ids> {
        Arc::new(Ids::new(KEPT * SHARDS, Duration::MAX))
    }

    /// Claims an id for an event, as a request does.
    fn claim(ids: &Arc<Ids>, id: u8, value: u8) -> Told {
        let event = event(id, value);
        let key = ids.key(event.id.as_str());
        let batch = Arc::new(Batch::new(vec![(key, 0)], ids.clone(), Metrics::default()));
        ids.claim(key, &event, &batch, 0).into()
    }

    /// The same, slowly: the entries of each shard, oldest first.
    #[derive(Default)]
    struct Model(Vec<(usize, u8, u8, Told)>);

    impl Model {
        fn entry(&mut self, id: u8) -> Option<&mut (usize, u8, u8, Told)> {
            self.0.iter_mut().find(|(_, other, ..)| *other == id)
        }

        fn insert(&mut self, shard: usize, id: u8, value: u8, told: Told) {
            if self.0.iter().filter(|(other, ..)| *other == shard).count() == KEPT {
                let oldest = self.0.iter().position(|(other, ..)| *other == shard).expect("one of them");
                self.0.remove(oldest);
            }
            self.0.push((shard, id, value, told));
        }
    }

    proptest! {
        #[test]
        fn an_id_is_remembered_until_newer_ones_need_its_place(steps in steps()) {
            let (ids, mut model) = (memory(), Model::default());
            for (n, step) in steps.into_iter().enumerate() {
                let written = Written { partition: 1, offset: n as i64, time_ms: 0 };
                let key = |id: u8| ids.key(&format!("id-{id}"));
                let shard = |id: u8| (key(id).0 >> 64) as usize % SHARDS;
                match step {
                    Step::Claim(id, value) => {
                        let expected = match model.entry(id) {
                            Some((_, _, other, _)) if *other != value => Told::Reused,
                            Some((.., told)) => *told,
                            None => Told::New,
                        };
                        prop_assert_eq!(claim(&ids, id, value), expected, "id-{}", id);
                        if expected == Told::New {
                            model.insert(shard(id), id, value, Told::Pending);
                        }
                    }
                    Step::Settle(id) => {
                        ids.settle(key(id), written);
                        if let Some((.., told)) = model.entry(id) {
                            *told = Told::Known(written);
                        }
                    }
                    Step::Release(id) => {
                        ids.release(key(id));
                        model.0.retain(|(_, other, ..)| *other != id);
                    }
                    Step::Doubt(id) => {
                        ids.doubt(key(id), 7);
                        if let Some((.., told)) = model.entry(id).filter(|(.., told)| *told == Told::Pending) {
                            *told = Told::Doubtful;
                        }
                        let doubtful = model.entry(id).is_some_and(|(.., told)| *told == Told::Doubtful);
                        prop_assert_eq!(ids.doubtful_since(key(id)), doubtful.then_some(7));
                    }
                    Step::Clear(id, since_ms) => {
                        ids.clear(key(id), since_ms);
                        model.0.retain(|(_, other, _, told)| *other != id || *told != Told::Doubtful || since_ms != 7);
                    }
                    Step::StartAnew => {
                        ids.start_anew();
                        model.0.retain(|(.., told)| !matches!(told, Told::Known(_)));
                    }
                    Step::Observe(id, value) => {
                        let (event, name) = (event(id, value), format!("id-{id}"));
                        let headers = [("ce_id", Some(name.as_bytes()))];
                        ids.observe(&Record::new(1, n as i64, Some(0), None, Some(&event.value), headers.into_iter()));
                        match model.entry(id) {
                            Some((.., told)) if *told == Told::Doubtful => *told = Told::Known(written),
                            Some(_) => {}
                            None => model.insert(shard(id), id, value, Told::Known(written)),
                        }
                    }
                }
                let bound = 2 * KEPT;
                prop_assert!(ids.shards.iter().all(|shard| shard.lock().is_ok_and(|memory| memory.order.len() <= bound)));
            }
        }
    }

    #[test]
    fn events_that_are_refused_meanwhile_do_not_make_an_id_forgotten() {
        let ids = memory();
        let written = Written { partition: 0, offset: 1, time_ms: 0 };
        claim(&ids, 0, 0);
        ids.settle(ids.key("id-0"), written);
        for id in 1..=255 {
            claim(&ids, id, 0);
            ids.release(ids.key(&format!("id-{id}")));
        }
        assert_eq!(claim(&ids, 0, 0), Told::Known(written));
    }

    #[test]
    fn an_id_is_forgotten_when_it_is_old() {
        let ids = Arc::new(Ids::new(KEPT * SHARDS, Duration::ZERO));
        claim(&ids, 0, 0);
        // Those of its own shard make it forgotten.
        (1..=255).for_each(|id| _ = claim(&ids, id, 0));
        assert_eq!(claim(&ids, 0, 0), Told::New);
    }

    /// What is in Kafka for certain is never written again, also if the topic does not show it yet.
    #[test]
    fn an_event_without_a_place_is_not_cleared_and_gets_its_place_from_the_tail() {
        let ids = memory();
        claim(&ids, 7, 0);
        let key = ids.key("id-7");
        ids.misplace(key, 7);
        ids.clear(key, 7);
        assert_eq!((ids.doubtful_since(key), ids.written(key)), (Some(7), None));
        let (event, headers) = (event(7, 0), [("ce_id", Some(&b"id-7"[..]))]);
        ids.observe(&Record::new(2, 81, Some(0), Some(b"u0"), Some(&event.value), headers.into_iter()));
        let place = ids.written(key).map(|written| (written.partition, written.offset));
        assert_eq!((ids.doubtful_since(key), place), (None, Some((2, 81))));
    }
}
