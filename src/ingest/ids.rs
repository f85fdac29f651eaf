//! The memory of ids: a retry gets the receipt of the first attempt, and nothing is written twice.
//!
//! Bounded in number and age. The tail adds the ids of every record of every replica, so a retry may reach another
//! replica, or this one after a restart. The tail does not see the records after the start of another writer's open
//! transaction; the ids of those come from a reader of their own, and are removed if the transaction is aborted.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Written;
use super::batch::Batch;
use crate::event::{Attributes, Event, Record};

/// Identifies an event. Ids and values are compared by their hashes (128 and 64 bits), with keys that differ in each
/// process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdHash(u128);

/// Shards, so that requests and the tail seldom wait for each other.
const SHARDS: usize = 16;

pub struct Ids {
    /// The source of events that have none.
    source: String,
    hashers: [RandomState; 2],
    /// Most entries of each shard.
    most: usize,
    age: Duration,
    shards: [Mutex<Memory>; SHARDS],
}

#[derive(Default)]
struct Memory {
    entries: HashMap<IdHash, Entry, BuildHasherDefault<Hashed>>,
    /// The entries in order of creation, which is the order of eviction. Released entries stay in it for a while; an id
    /// that was claimed again has another number.
    order: VecDeque<(IdHash, u64, Instant)>,
    made: u64,
    /// By partition: the offset at which the topic starts, if it was recreated.
    starts: Box<[i64]>,
}

/// The hash of an [`IdHash`] is a part of it.
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

impl Hash for IdHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0 as u64);
    }
}

struct Entry {
    /// The entry's number in `order`.
    number: u64,
    value: u64,
    state: IdState,
    /// Whether it comes from a record that the tail has not read yet. It is removed if the tail does not get that
    /// record.
    undecided: bool,
}

enum IdState {
    /// In flight: this batch will get the outcome. A record with this id may have been seen meanwhile.
    Pending(Arc<Batch>, usize, Option<Box<Seen>>),
    Known(Written),
    /// Written, but at an unknown offset. Produced after this time, in milliseconds since 1970.
    OffsetUnknown {
        since_ms: i64,
    },
    /// Kafka did not report the outcome. Produced after this time, in milliseconds since 1970.
    Unknown {
        since_ms: i64,
    },
    /// A record of another writer has this id, perhaps in a transaction that is still open.
    HeldUp,
}

/// A record that was seen while an event of its id was in flight. It counts if that event is not written.
struct Seen {
    value: u64,
    state: IdState,
    undecided: bool,
}

/// What the memory knows about an event's id.
pub enum Claim {
    /// The id is new: produce the event.
    New,
    /// The same event is in flight.
    Pending(Arc<Batch>, usize),
    /// The same event is in Kafka.
    Known(Written),
    /// The same event may be in Kafka; look it up in the topic first.
    Doubtful,
    /// Another event has this id.
    Reused,
    /// A record that may yet be aborted has this id.
    HeldUp,
}

/// An id from a record that the tail has not read yet.
pub struct Undecided {
    key: IdHash,
    number: u64,
}

impl Ids {
    pub fn new(source: &str, most: usize, age: Duration) -> Self {
        let hashers = [RandomState::new(), RandomState::new()];
        Ids { source: source.to_owned(), hashers, most: most.div_ceil(SHARDS), age, shards: Default::default() }
    }

    /// Returns the key of an event: its source together with its id (CloudEvents 1.0.2, section "Required Attributes").
    pub fn key(&self, source: Option<&str>, id: &str) -> IdHash {
        let source = source.unwrap_or(&self.source);
        let [high, low] = [0, 1].map(|n| self.hashers[n].hash_one((source, id)));
        IdHash(u128::from(high) << 64 | u128::from(low))
    }

    /// Returns the key of a record; `None` if it has no id.
    pub fn key_of(&self, record: &Record) -> Option<IdHash> {
        let Attributes { id: Some(id), source, .. } = record.attributes() else { return None };
        Some(self.key(source.as_deref(), &id))
    }

    /// Looks an event's id up, and claims it for the event if it is free.
    pub fn claim(&self, key: IdHash, event: &Event, batch: &Arc<Batch>, index: usize) -> Claim {
        let value = self.hashers[0].hash_one(&event.value[..]);
        let mut memory = self.lock(key);
        match memory.entries.get(&key) {
            Some(Entry { state: IdState::HeldUp, .. }) => Claim::HeldUp,
            Some(entry) if entry.value != value => Claim::Reused,
            Some(Entry { state: IdState::Known(written), .. }) => Claim::Known(*written),
            Some(Entry { state: IdState::Pending(batch, index, _), .. }) => Claim::Pending(batch.clone(), *index),
            Some(Entry { state: IdState::OffsetUnknown { .. } | IdState::Unknown { .. }, .. }) => Claim::Doubtful,
            None => {
                let state = IdState::Pending(batch.clone(), index, None);
                self.insert(&mut memory, key, value, state, batch.started_at());
                Claim::New
            }
        }
    }

    /// Notes that the event of an id is in Kafka. If it was written before the topic was emptied, nobody finds it, and the
    /// id is free again.
    pub fn settle(&self, key: IdHash, written: Written) {
        let mut memory = self.lock(key);
        if memory.starts.get(written.partition as usize).is_some_and(|start| written.offset < *start) {
            memory.release(key);
        } else if let Some(entry) = memory.entries.get_mut(&key) {
            entry.state = IdState::Known(written);
        }
    }

    /// Notes that the event of an id was certainly not written: the id is free again, unless the topic has a record with it.
    pub fn release(&self, key: IdHash) {
        self.lock(key).release(key);
    }

    /// Notes that the topic has no event of an id that was in doubt since `since_ms`: the id is free again, unless a
    /// newer attempt is in doubt, which was not looked up.
    pub fn clear(&self, key: IdHash, since_ms: i64) {
        let mut memory = self.lock(key);
        let asked = |entry: &Entry| matches!(entry.state, IdState::Unknown { since_ms: since } if since == since_ms);
        if memory.entries.get(&key).is_some_and(asked) {
            memory.release(key);
        }
    }

    /// Forgets what was written to the old topic after the topic was recreated. Events in flight stay, and events that
    /// may still be in flight stay in doubt. The new topic has no offsets before `starts`.
    pub fn topic_recreated(&self, starts: &[i64]) {
        for shard in &self.shards {
            let mut memory = shard.lock().unwrap_or_else(PoisonError::into_inner);
            memory.starts = starts.into();
            memory.entries.retain(|_, entry| {
                match &mut entry.state {
                    IdState::OffsetUnknown { since_ms } => entry.state = IdState::Unknown { since_ms: *since_ms },
                    IdState::Pending(_, _, seen) => *seen = None,
                    _ => {}
                }
                !matches!(entry.state, IdState::Known(_) | IdState::HeldUp)
            });
        }
    }

    /// Notes that the event of an id, produced after `since_ms`, may or may not have been written.
    pub fn doubt(&self, key: IdHash, since_ms: i64) {
        if let Some(entry) = self.lock(key).entries.get_mut(&key)
            && matches!(entry.state, IdState::Pending(..))
            && !entry.fall_back()
        {
            entry.state = IdState::Unknown { since_ms };
        }
    }

    /// Notes that the event of an id, produced after `since_ms`, is in Kafka at an unknown offset.
    pub fn mark_offset_unknown(&self, key: IdHash, since_ms: i64) {
        if let Some(entry) = self.lock(key).entries.get_mut(&key)
            && matches!(entry.state, IdState::Pending(..))
            && !entry.fall_back()
        {
            entry.state = IdState::OffsetUnknown { since_ms };
        }
    }

    /// Returns where the event of an id is in Kafka, if that is known.
    pub fn written(&self, key: IdHash) -> Option<Written> {
        match self.lock(key).entries.get(&key)?.state {
            IdState::Known(written) => Some(written),
            _ => None,
        }
    }

    /// Returns since when an event may be in the topic, if that is in doubt: then the topic is to be searched before
    /// the id is claimed.
    pub fn doubtful_since(&self, key: IdHash) -> Option<i64> {
        match self.lock(key).entries.get(&key)?.state {
            IdState::OffsetUnknown { since_ms } | IdState::Unknown { since_ms } => Some(since_ms),
            _ => None,
        }
    }

    /// Learns the id of a record that the tail has read, whoever wrote it.
    pub fn observe(&self, record: &Record) {
        let Some((key, written)) = self.place_of(record) else { return };
        let is_settled = |entry: &Entry| match &entry.state {
            IdState::OffsetUnknown { .. } | IdState::Unknown { .. } | IdState::HeldUp => false,
            IdState::Pending(_, _, seen) => seen.as_ref().is_some_and(|seen| !seen.undecided),
            IdState::Known(_) => !entry.undecided,
        };
        // Most records are our own, and their delivery reports have brought the same.
        if self.lock(key).entries.get(&key).is_some_and(is_settled) {
            return;
        }
        let Some(value) = record.value() else { return };
        let value = self.hashers[0].hash_one(value);
        let mut memory = self.lock(key);
        match memory.entries.get_mut(&key) {
            Some(entry) if is_settled(entry) => {}
            // The event in flight may be this record. If it is another one and is not written, this one counts.
            Some(Entry { state: IdState::Pending(_, _, seen), .. }) => {
                *seen = Some(Box::new(Seen { value, state: IdState::Known(written), undecided: false }));
            }
            Some(entry) => {
                if std::mem::take(&mut entry.undecided) {
                    entry.value = value;
                }
                entry.state = IdState::Known(written);
            }
            None => {
                self.insert(&mut memory, key, value, IdState::Known(written), Instant::now());
            }
        }
    }

    /// Learns the id of a record that is written and that the tail has not read yet. A record that may belong to a
    /// transaction blocks its id; one that `is_ours` does not, because Footfall uses no transactions. Returns what to
    /// pass to [`Ids::forget_undecided`] if the tail does not get the record.
    pub fn observe_undecided(&self, record: &Record, is_ours: bool) -> Option<Undecided> {
        let (key, written) = self.place_of(record)?;
        let value = self.hashers[0].hash_one(record.value()?);
        let mut memory = self.lock(key);
        let state = if is_ours { IdState::Known(written) } else { IdState::HeldUp };
        match memory.entries.get_mut(&key) {
            Some(Entry { state: IdState::Pending(_, _, seen @ None), number, .. }) => {
                *seen = Some(Box::new(Seen { value, state, undecided: true }));
                return Some(Undecided { key, number: *number });
            }
            Some(_) => return None,
            None => {}
        }
        let number = self.insert(&mut memory, key, value, state, Instant::now())?;
        memory.entries.get_mut(&key)?.undecided = true;
        Some(Undecided { key, number })
    }

    /// Removes an id after the tail has passed its record without getting it: the record was aborted. Changes nothing
    /// if the tail did get it.
    pub fn forget_undecided(&self, undecided: &Undecided) {
        let mut memory = self.lock(undecided.key);
        let Some(entry) = memory.entries.get_mut(&undecided.key).filter(|entry| entry.number == undecided.number)
        else {
            return;
        };
        match &mut entry.state {
            IdState::Pending(_, _, seen) if seen.as_ref().is_some_and(|seen| seen.undecided) => *seen = None,
            _ if entry.undecided => memory.release(undecided.key),
            _ => {}
        }
    }

    /// Returns a record's key and where it is; `None` if it has no id.
    fn place_of(&self, record: &Record) -> Option<(IdHash, Written)> {
        let Attributes { id: Some(id), source, time_ms, .. } = record.attributes() else { return None };
        let (partition, offset) = (record.partition(), record.offset());
        let written = Written { partition, offset, time_ms: time_ms.unwrap_or(0) };
        Some((self.key(source.as_deref(), &id), written))
    }

    /// Returns the number of the new entry; `None` if nothing is kept.
    fn insert(&self, memory: &mut Memory, key: IdHash, value: u64, state: IdState, now: Instant) -> Option<u64> {
        if self.most == 0 {
            return None;
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
        // Released entries must not accumulate, nor take the place of entries that are kept.
        if memory.order.len() >= 2 * self.most {
            let Memory { entries, order, .. } = memory;
            order.retain(|(key, number, _)| entries.get(key).is_some_and(|entry| entry.number == *number));
        }
        memory.made += 1;
        memory.entries.insert(key, Entry { number: memory.made, value, state, undecided: false });
        memory.order.push_back((key, memory.made, now));
        Some(memory.made)
    }

    fn lock(&self, key: IdHash) -> MutexGuard<'_, Memory> {
        let shard = (key.0 >> 64) as usize % SHARDS;
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// Replaces an event in flight by the record that was seen meanwhile. Returns whether there was one.
    fn fall_back(&mut self) -> bool {
        let IdState::Pending(_, _, seen) = &mut self.state else { return false };
        let Some(seen) = seen.take() else { return false };
        (self.value, self.state, self.undecided) = (seen.value, seen.state, seen.undecided);
        true
    }
}

impl Memory {
    /// Returns whether an item of the order belongs to an entry.
    fn has(&self, key: IdHash, number: u64) -> bool {
        self.entries.get(&key).is_some_and(|entry| entry.number == number)
    }

    /// Frees an id, unless the topic has a record with it.
    fn release(&mut self, key: IdHash) {
        if self.entries.get_mut(&key).is_some_and(Entry::fall_back) {
            return;
        }
        let Some(entry) = self.entries.remove(&key) else { return };
        if self.order.back().is_some_and(|(_, number, _)| *number == entry.number) {
            self.order.pop_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::IngestMetrics;
    use super::*;
    use crate::event::{BodyFormat, Limits, Parsed, parse};

    /// Entries that each shard keeps.
    const KEPT: usize = 2;

    #[derive(Debug, Clone)]
    enum Step {
        Claim(u8, u8),
        Settle(u8),
        Release(u8),
        Doubt(u8),
        Clear(u8, i64),
        TopicRecreated,
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
            1 => Just(Step::TopicRecreated),
            2 => (id(), value()).prop_map(|(id, value)| Step::Observe(id, value)),
        ];
        proptest::collection::vec(step, 1..200)
    }

    /// The state of an id.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Expected {
        New,
        Pending,
        Known(Written),
        Doubtful,
        Reused,
        HeldUp,
    }

    impl From<Claim> for Expected {
        fn from(claim: Claim) -> Self {
            match claim {
                Claim::New => Expected::New,
                Claim::Pending(..) => Expected::Pending,
                Claim::Known(written) => Expected::Known(written),
                Claim::Doubtful => Expected::Doubtful,
                Claim::Reused => Expected::Reused,
                Claim::HeldUp => Expected::HeldUp,
            }
        }
    }

    fn event(id: u8, value: u8) -> Event {
        let body = format!(r#"{{"user":"u{value}","action":"a","id":"id-{id}"}}"#);
        let limits = Limits { event: 1000, batch: 1, now_ms: 0 };
        match parse(&body.into(), BodyFormat::Json, &limits) {
            Ok(Parsed::One(checked)) => checked.expect("an event"),
            other => panic!("{other:?}"),
        }
    }

    fn memory() -> Arc<Ids> {
        Arc::new(Ids::new("/own", KEPT * SHARDS, Duration::MAX))
    }

    /// Claims an id for an event, as a request does.
    fn claim(ids: &Arc<Ids>, id: u8, value: u8) -> Expected {
        let event = event(id, value);
        let key = ids.key(None, event.id.as_str());
        let batch = Arc::new(Batch::new(vec![(key, 0)], ids.clone(), IngestMetrics::default()));
        ids.claim(key, &event, &batch, 0).into()
    }

    /// A simple model: the entries of all shards, oldest first, and what was seen of ids in flight.
    #[derive(Default)]
    struct Model(Vec<(usize, u8, u8, Expected)>, HashMap<u8, (u8, Written)>);

    impl Model {
        fn entry(&mut self, id: u8) -> Option<&mut (usize, u8, u8, Expected)> {
            self.0.iter_mut().find(|(_, other, ..)| *other == id)
        }

        fn insert(&mut self, shard: usize, id: u8, value: u8, expected: Expected) {
            if self.0.iter().filter(|(other, ..)| *other == shard).count() == KEPT {
                let oldest = self.0.iter().position(|(other, ..)| *other == shard).expect("one of them");
                self.1.remove(&self.0.remove(oldest).1);
            }
            self.0.push((shard, id, value, expected));
        }

        /// Replaces an event in flight by what was seen of its id.
        fn fall_back(&mut self, id: u8) -> bool {
            let Some((value, written)) = self.1.remove(&id) else { return false };
            let (_, _, other, expected) = self.entry(id).expect("it is in flight");
            (*other, *expected) = (value, Expected::Known(written));
            true
        }
    }

    proptest! {
        #[test]
        fn an_id_is_remembered_until_newer_ones_evict_it(steps in steps()) {
            let (ids, mut model) = (memory(), Model::default());
            for (n, step) in steps.into_iter().enumerate() {
                let written = Written { partition: 1, offset: n as i64, time_ms: 0 };
                let key = |id: u8| ids.key(None, &format!("id-{id}"));
                let shard = |id: u8| (key(id).0 >> 64) as usize % SHARDS;
                match step {
                    Step::Claim(id, value) => {
                        let expected = match model.entry(id) {
                            Some((_, _, other, _)) if *other != value => Expected::Reused,
                            Some((.., expected)) => *expected,
                            None => Expected::New,
                        };
                        prop_assert_eq!(claim(&ids, id, value), expected, "id-{}", id);
                        if expected == Expected::New {
                            model.insert(shard(id), id, value, Expected::Pending);
                        }
                    }
                    Step::Settle(id) => {
                        ids.settle(key(id), written);
                        model.1.remove(&id);
                        if let Some((.., expected)) = model.entry(id) {
                            *expected = Expected::Known(written);
                        }
                    }
                    Step::Release(id) => {
                        ids.release(key(id));
                        if !model.fall_back(id) {
                            model.0.retain(|(_, other, ..)| *other != id);
                        }
                    }
                    Step::Doubt(id) => {
                        ids.doubt(key(id), 7);
                        if !model.fall_back(id)
                            && let Some((.., expected @ Expected::Pending)) = model.entry(id)
                        {
                            *expected = Expected::Doubtful;
                        }
                        let doubtful = model.entry(id).is_some_and(|(.., expected)| *expected == Expected::Doubtful);
                        prop_assert_eq!(ids.doubtful_since(key(id)), doubtful.then_some(7));
                    }
                    Step::Clear(id, since_ms) => {
                        ids.clear(key(id), since_ms);
                        model.0.retain(|(_, other, _, expected)| *other != id || *expected != Expected::Doubtful || since_ms != 7);
                    }
                    Step::TopicRecreated => {
                        ids.topic_recreated(&[]);
                        model.1.clear();
                        model.0.retain(|(.., expected)| !matches!(expected, Expected::Known(_)));
                    }
                    Step::Observe(id, value) => {
                        let (event, name) = (event(id, value), format!("id-{id}"));
                        let headers = [("ce_id", Some(name.as_bytes()))];
                        ids.observe(&Record::new(1, n as i64, Some(0), None, Some(&event.value), headers.into_iter()));
                        match model.entry(id) {
                            Some((.., expected)) if *expected == Expected::Doubtful => *expected = Expected::Known(written),
                            Some((.., Expected::Pending)) => _ = model.1.entry(id).or_insert((value, written)),
                            Some(_) => {}
                            None => model.insert(shard(id), id, value, Expected::Known(written)),
                        }
                    }
                }
                let bound = 2 * KEPT;
                prop_assert!(ids.shards.iter().all(|shard| shard.lock().is_ok_and(|memory| memory.order.len() <= bound)));
            }
        }
    }

    #[test]
    fn events_that_are_rejected_meanwhile_do_not_evict_an_id() {
        let ids = memory();
        let written = Written { partition: 0, offset: 1, time_ms: 0 };
        claim(&ids, 0, 0);
        ids.settle(ids.key(None, "id-0"), written);
        for id in 1..=255 {
            claim(&ids, id, 0);
            ids.release(ids.key(None, &format!("id-{id}")));
        }
        assert_eq!(claim(&ids, 0, 0), Expected::Known(written));
    }

    #[test]
    fn an_id_whose_event_was_written_before_the_topic_was_emptied_is_free() {
        let ids = memory();
        (0..2).for_each(|id| _ = claim(&ids, id, 0));
        ids.topic_recreated(&[5]);
        let written = |offset| Written { partition: 0, offset, time_ms: 0 };
        (0..2).for_each(|id| ids.settle(ids.key(None, &format!("id-{id}")), written(4 + i64::from(id))));
        assert_eq!([0, 1].map(|id| claim(&ids, id, 0)), [Expected::New, Expected::Known(written(5))]);
    }

    #[test]
    fn a_record_that_is_read_while_its_event_is_refused_keeps_its_id() {
        let record = |id: u8, value: u8, offset: i64| {
            let (event, name) = (event(id, value), format!("id-{id}"));
            let headers = [("ce_id", Some(name.as_bytes()))];
            Record::new(0, offset, Some(0), None, Some(&event.value), headers.into_iter())
        };
        let at = |offset| Expected::Known(Written { partition: 0, offset, time_ms: 0 });
        let ids = memory();
        let key = |id: u8| ids.key(None, &format!("id-{id}"));
        (1..=6).for_each(|id| assert_eq!(claim(&ids, id, 0), Expected::New));
        // The same event, another one with its id, one in an open transaction, and one that is aborted.
        ids.observe(&record(1, 0, 1));
        ids.observe(&record(2, 7, 2));
        ids.observe_undecided(&record(3, 0, 3), false).expect("undecided");
        let aborted = ids.observe_undecided(&record(4, 0, 4), true).expect("undecided");
        ids.forget_undecided(&aborted);
        // The outcome of this one is not known, but its record was read; this one was written elsewhere.
        ids.observe(&record(5, 0, 5));
        ids.observe(&record(6, 0, 6));
        assert_eq!([1, 2, 3].map(|id| claim(&ids, id, 0)), [Expected::Pending, Expected::Pending, Expected::Pending]);
        (1..=4).for_each(|id| ids.release(key(id)));
        ids.doubt(key(5), 0);
        ids.settle(key(6), Written { partition: 0, offset: 66, time_ms: 0 });
        let expected = [at(1), Expected::Reused, Expected::HeldUp, Expected::New, at(5), at(66)];
        assert_eq!([1, 2, 3, 4, 5, 6].map(|id| claim(&ids, id, 0)), expected);
    }

    #[test]
    fn an_old_id_is_evicted() {
        let ids = Arc::new(Ids::new("/own", KEPT * SHARDS, Duration::ZERO));
        claim(&ids, 0, 0);
        // Newer ids of its shard evict it.
        (1..=255).for_each(|id| _ = claim(&ids, id, 0));
        assert_eq!(claim(&ids, 0, 0), Expected::New);
    }

    #[test]
    fn an_id_in_a_transaction_stays_only_if_the_tail_gets_its_record() {
        let ids = Arc::new(Ids::new("/own", 100 * SHARDS, Duration::MAX));
        let record = |id: u8, offset: i64| {
            let (event, name) = (event(id, 0), format!("id-{id}"));
            let headers = [("ce_id", Some(name.as_bytes()))];
            Record::new(0, offset, Some(0), None, Some(&event.value), headers.into_iter())
        };
        let at = |offset| Expected::Known(Written { partition: 0, offset, time_ms: 0 });
        // Ours, another writer's, ours that the tail reads at another offset, and one that is known already.
        claim(&ids, 4, 0);
        let undecided = [(1, true), (2, false), (3, true), (4, true)];
        let undecided = undecided.map(|(id, is_ours)| ids.observe_undecided(&record(id, i64::from(id)), is_ours));
        assert_eq!([1, 2, 3, 4].map(|id| claim(&ids, id, 0)), [at(1), Expected::HeldUp, at(3), Expected::Pending]);
        assert_eq!([1, 2].map(|id| claim(&ids, id, 1)), [Expected::Reused, Expected::HeldUp]);
        ids.observe(&record(3, 9));
        undecided.iter().flatten().for_each(|undecided| ids.forget_undecided(undecided));
        assert_eq!([1, 2, 3, 4].map(|id| claim(&ids, id, 0)), [Expected::New, Expected::New, at(9), Expected::Pending]);

        for is_ours in [true, false] {
            let ids = Arc::new(Ids::new("/own", 100 * SHARDS, Duration::MAX));
            let undecided = ids.observe_undecided(&record(5, 5), is_ours).expect("a new id");
            ids.observe(&record(5, 5));
            ids.forget_undecided(&undecided);
            assert_eq!(claim(&ids, 5, 0), at(5));
        }
    }

    /// An event that is certainly in Kafka is never written again, even if the topic does not show it yet.
    #[test]
    fn an_event_at_an_unknown_offset_is_not_cleared_and_gets_its_offset_from_the_tail() {
        let ids = memory();
        claim(&ids, 7, 0);
        let key = ids.key(None, "id-7");
        ids.mark_offset_unknown(key, 7);
        ids.clear(key, 7);
        assert_eq!((ids.doubtful_since(key), ids.written(key)), (Some(7), None));
        let (event, headers) = (event(7, 0), [("ce_id", Some(&b"id-7"[..]))]);
        ids.observe(&Record::new(2, 81, Some(0), Some(b"u0"), Some(&event.value), headers.into_iter()));
        let place = ids.written(key).map(|written| (written.partition, written.offset));
        assert_eq!((ids.doubtful_since(key), place), (None, Some((2, 81))));
    }
}
