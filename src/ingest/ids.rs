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
    /// In the order in which they were made, which is the order in which they are forgotten. One that was released may
    /// have been made again since, with another number.
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
            Some(Entry { state: State::Unknown { .. }, .. }) => Claim::Doubtful,
            None => {
                let state = State::Pending(batch.clone(), index);
                self.insert(&mut memory, key, value, state);
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
        self.lock(key).entries.remove(&key);
    }

    /// The topic was asked, and has no event of an id that was in doubt: the id is free again.
    pub fn clear(&self, key: Key) {
        let mut memory = self.lock(key);
        if memory.entries.get(&key).is_some_and(|entry| matches!(entry.state, State::Unknown { .. })) {
            memory.entries.remove(&key);
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

    /// Since when an event's id may be in the topic, if that is not known: to be looked up before it is claimed.
    pub fn doubtful_since(&self, key: Key) -> Option<i64> {
        match self.lock(key).entries.get(&key)?.state {
            State::Unknown { since_ms } => Some(since_ms),
            _ => None,
        }
    }

    /// A record that stands in the topic, whoever wrote it.
    pub fn observe(&self, record: &Record) {
        let Some(id) = record.id() else { return };
        let key = self.key(&id);
        // Most are our own, and their delivery reports have said the same or are about to.
        let known = |entry: &Entry| !matches!(entry.state, State::Unknown { .. });
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
            None => self.insert(&mut memory, key, value, State::Known(written)),
        }
    }

    fn insert(&self, memory: &mut Memory, key: Key, value: u64, state: State) {
        if self.most == 0 {
            return;
        }
        let now = Instant::now();
        while let Some((oldest, number, made)) = memory.order.front() {
            if memory.order.len() < self.most && now.duration_since(*made) < self.age {
                break;
            }
            if memory.entries.get(oldest).is_some_and(|entry| entry.number == *number) {
                memory.entries.remove(oldest);
            }
            memory.order.pop_front();
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
