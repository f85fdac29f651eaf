//! What readers derive from a block's records: frames by dialect and filter, the index, and columns of fields.
//!
//! Encodings have their own share of the feed's memory, so that many filters never evict records. When they exceed it,
//! the oldest are dropped; the next reader that needs them encodes them again.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use bytes::Bytes;
use footfall_core::Pointer;

use super::Dialect;
use super::column::Column;
use super::index::Index;

#[derive(Default)]
pub(super) struct Encodings {
    pub json: OnceLock<Bytes>,
    pub html: OnceLock<Bytes>,
    pub lines: OnceLock<Bytes>,
    pub filtered: Mutex<HashMap<(Dialect, Arc<str>), Bytes>>,
    pub index: OnceLock<Index>,
    pub columns: Mutex<HashMap<Pointer, Arc<OnceLock<Column>>>>,
    size: AtomicUsize,
}

/// The encodings of all blocks.
pub(super) struct Cache {
    most: usize,
    bytes: AtomicUsize,
    /// Slots that have encodings, in the order in which they got the first one.
    slots: Mutex<VecDeque<Weak<EncodingSlot>>>,
}

/// Where a block keeps its encodings.
pub(super) struct EncodingSlot {
    cache: Arc<Cache>,
    held: Mutex<Option<Arc<Encodings>>>,
}

impl Cache {
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Cache { most, bytes: AtomicUsize::new(0), slots: Mutex::default() })
    }

    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Returns a slot for another block.
    pub fn slot(self: &Arc<Self>) -> Arc<EncodingSlot> {
        Arc::new(EncodingSlot { cache: self.clone(), held: Mutex::default() })
    }

    /// Drops the oldest encodings until the bound is met.
    fn make_room(&self) {
        while self.bytes() > self.most {
            let Some(slot) = self.slots().pop_front() else { return };
            if let Some(slot) = slot.upgrade() {
                drop(slot.give_up());
            }
        }
    }

    fn slots(&self) -> MutexGuard<'_, VecDeque<Weak<EncodingSlot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EncodingSlot {
    /// Returns the block's encodings so far.
    pub fn encodings(self: &Arc<Self>) -> Arc<Encodings> {
        let made = {
            let mut held = self.held();
            if let Some(encodings) = &*held {
                return encodings.clone();
            }
            held.insert(Arc::default()).clone()
        };
        let mut slots = self.cache.slots();
        // Slots of blocks that were evicted.
        while slots.front().is_some_and(|slot| slot.strong_count() == 0) {
            slots.pop_front();
        }
        slots.push_back(Arc::downgrade(self));
        made
    }

    /// Adds bytes that were encoded, and drops older encodings to make room.
    pub fn count(&self, encodings: &Arc<Encodings>, bytes: usize) {
        {
            let held = self.held();
            // Encodings that were dropped meanwhile are freed with their last reader.
            if !held.as_ref().is_some_and(|held| Arc::ptr_eq(held, encodings)) {
                return;
            }
            encodings.size.fetch_add(bytes, Ordering::Relaxed);
            self.cache.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        self.cache.make_room();
    }

    fn give_up(&self) -> Option<Arc<Encodings>> {
        let encodings = self.held().take()?;
        self.cache.bytes.fetch_sub(encodings.size.load(Ordering::Relaxed), Ordering::Relaxed);
        Some(encodings)
    }

    fn held(&self) -> MutexGuard<'_, Option<Arc<Encodings>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for EncodingSlot {
    fn drop(&mut self) {
        self.give_up();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_encodings_are_dropped_when_there_are_too_many() {
        let cache = Cache::new(100);
        let slots = [cache.slot(), cache.slot(), cache.slot()];
        let encodings: Vec<_> = slots.iter().map(|slot| slot.encodings()).collect();
        for (slot, encodings) in slots.iter().zip(&encodings) {
            slot.count(encodings, 40);
        }
        assert_eq!(cache.bytes(), 80);
        let same = |n: usize| Arc::ptr_eq(&encodings[n], &slots[n].encodings());
        assert!(!same(0) && same(1) && same(2));
        // Additions to dropped encodings are not counted.
        slots[0].count(&encodings[0], 1000);
        assert_eq!(cache.bytes(), 80);
        drop(slots);
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn encodings_that_are_too_large_alone_are_not_kept() {
        let cache = Cache::new(100);
        let slot = cache.slot();
        slot.count(&slot.encodings(), 101);
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn slots_of_evicted_blocks_are_removed() {
        let cache = Cache::new(100);
        for _ in 0..1000 {
            drop(cache.slot().encodings());
        }
        assert!(cache.slots().len() <= 1);
    }
}
