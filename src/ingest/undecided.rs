//! The ids of records after the start of another writer's open transaction, until each record is committed or aborted.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::ids::Undecided;
use super::{Ingest, is_ours};
use crate::event::Record;
use crate::kafka::UncommittedSink;

/// Adds the ids of uncommitted records to the memory of ids, and removes those of aborted records.
pub struct UndecidedIds {
    ingest: Arc<Ingest>,
    /// By partition: offsets and ids, in order.
    learnt: HashMap<i32, VecDeque<(i64, Undecided)>>,
    count: usize,
}

impl UndecidedIds {
    pub fn new(ingest: Arc<Ingest>) -> Self {
        UndecidedIds { ingest, learnt: HashMap::new(), count: 0 }
    }
}

impl UncommittedSink for UndecidedIds {
    fn push(&mut self, record: &Record) {
        // More ids than the memory keeps would be useless.
        if self.count >= self.ingest.settings.ids {
            let oldest = self.learnt.values_mut().find(|learnt| !learnt.is_empty());
            self.count -= usize::from(oldest.and_then(VecDeque::pop_front).is_some());
        }
        if let Some(undecided) = self.ingest.ids.observe_undecided(record, is_ours(record)) {
            self.learnt.entry(record.partition()).or_default().push_back((record.offset(), undecided));
            self.count += 1;
        }
    }

    fn decided(&mut self, reached: &[i64]) {
        for (partition, learnt) in &mut self.learnt {
            let reached = reached.get(*partition as usize).copied().unwrap_or(0);
            let passed = learnt.partition_point(|(offset, _)| *offset < reached);
            learnt.drain(..passed).for_each(|(_, undecided)| self.ingest.ids.forget_undecided(&undecided));
            self.count -= passed;
        }
        self.learnt.retain(|_, learnt| !learnt.is_empty());
    }

    fn caught_up(&mut self) {
        self.ingest.read_behind.store(true, Ordering::Relaxed);
    }

    fn restart(&mut self) {
        self.ingest.read_behind.store(false, Ordering::Relaxed);
        self.learnt.clear(); // the memory of ids drops them when the tail starts over
        self.count = 0;
    }
}
