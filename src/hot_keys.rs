//! The most frequent key of each partition in the last minutes. A partition with a hot key gets more records than the
//! others, and a group cannot share them among its members.
//!
//! The tail's records are counted by a frequent-items sketch per partition and 5 minutes, for at most
//! [`bounds::SAMPLED_PARTITIONS`] partitions: 2 sketches of at most 48 keys of 200 bytes each, so at most 20 kB for a
//! partition.

use std::sync::{Mutex, PoisonError};

use datasketches::frequencies::{ErrorType, FrequentItemsSketch};

use crate::bounds;
use crate::event::Record;
use crate::event::time::now_ms;

/// The length of a part in milliseconds. The current one and the one before it count.
const PART_MS: i64 = 5 * 60_000;
/// How far a clock may be ahead.
const AHEAD_MS: i64 = 60_000;
/// Size of a sketch: up to three quarters of it are counted exactly.
const KEYS: usize = 64;
/// Longer keys count, and are not named.
const KEY_BYTES: usize = 200;

/// Counts the keys of the records that the tail reads.
#[derive(Default)]
pub struct HotKeys {
    partitions: Mutex<Vec<[Part; 2]>>,
}

/// The keys of 5 minutes.
#[derive(Default)]
struct Part {
    number: i64,
    records: u64,
    keys: Option<FrequentItemsSketch<String>>,
}

/// A key and how much of its partition it is.
#[derive(Debug, Clone, PartialEq)]
pub struct HotKey {
    pub key: String,
    /// At least so many of the records have it.
    pub count: u64,
    /// All records of the partition in that time.
    pub records: u64,
}

impl HotKeys {
    /// Counts a record of the last minutes. `ms` is the time at which it counts.
    pub fn observe(&self, record: &Record, ms: i64) {
        let now = now_ms();
        let partition = record.partition() as usize;
        if ms <= now - 2 * PART_MS || ms > now + AHEAD_MS || partition >= bounds::SAMPLED_PARTITIONS {
            return;
        }
        let key = record.key().filter(|key| key.len() <= KEY_BYTES).and_then(|key| std::str::from_utf8(key).ok());
        let mut partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        if partitions.len() <= partition {
            partitions.resize_with(partition + 1, Default::default);
        }
        let number = ms.min(now) / PART_MS;
        let part = &mut partitions[partition][(number % 2) as usize];
        if part.number != number {
            *part = Part { number, ..Part::default() };
        }
        part.records += 1;
        if let Some(key) = key {
            let new = || FrequentItemsSketch::new(KEYS).expect("a power of two");
            part.keys.get_or_insert_with(new).update_ref(key);
        }
    }

    /// Forgets everything: the topic was recreated.
    pub fn clear(&self) {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Returns the most frequent key of a partition in the last 5 to 10 minutes; `None` if no key is known to be frequent.
    pub fn top(&self, partition: i32) -> Option<HotKey> {
        let partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        let current = now_ms() / PART_MS;
        let parts = partitions.get(usize::try_from(partition).ok()?)?;
        let parts = || parts.iter().filter(|part| current - part.number <= 1);
        let mut keys = FrequentItemsSketch::new(KEYS).ok()?;
        parts().filter_map(|part| part.keys.as_ref()).for_each(|counted| keys.merge(counted));
        let rows = keys.frequent_items(ErrorType::NoFalsePositives);
        let top = rows.iter().max_by_key(|row| row.lower_bound())?;
        let records = parts().map(|part| part.records).sum();
        Some(HotKey { key: top.item().clone(), count: top.lower_bound(), records })
    }
}
