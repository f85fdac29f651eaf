//! Distributes the records that the tail reads.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::event::Record;
use crate::feed::{UNKNOWN, Writer};
use crate::hot_keys::HotKeys;
use crate::ingest::Ingest;
use crate::kafka::{History, Sink, TopicId};
use crate::stats::Stats;

/// Passes each record of the tail to the feed and the statistics, and its id to the memory of ids.
pub struct TailSink {
    writer: Writer,
    ingest: Arc<Ingest>,
    stats: Arc<Stats>,
    hot_keys: Arc<HotKeys>,
    history: Arc<History>,
    closing: CancellationToken,
    /// Cancels the read of the records before those that the tail reads.
    filling: CancellationToken,
    /// By partition, whether it still has no leader.
    unknown: Vec<bool>,
}

impl TailSink {
    pub fn new(
        writer: Writer,
        ingest: Arc<Ingest>,
        stats: Arc<Stats>,
        hot_keys: Arc<HotKeys>,
        history: Arc<History>,
        closing: CancellationToken,
    ) -> Self {
        let filling = closing.child_token();
        TailSink { writer, ingest, stats, hot_keys, history, closing, filling, unknown: Vec::new() }
    }

    /// Counts the records of the last day before those that the tail reads, on a thread of its own.
    fn count_what_lies_before(&self, ends: Vec<Option<i64>>) {
        let (stats, history, stop) = (self.stats.clone(), self.history.clone(), self.filling.clone());
        stats.expect_fill(&ends);
        let work = move || stats.fill(&history, &ends, &stop);
        if let Err(error) = std::thread::Builder::new().name("stats".into()).spawn(work) {
            tracing::error!(error = %error, "the last day is not counted");
        }
    }
}

impl Sink for TailSink {
    fn start(&mut self, positions: &[Option<i64>], ends: &[i64]) {
        let places: Vec<i64> = positions.iter().map(|position| position.unwrap_or(UNKNOWN)).collect();
        self.writer.start(&places, ends);
        self.unknown = positions.iter().map(Option::is_none).collect();
        self.filling.cancel();
        self.filling = self.closing.child_token();
        self.count_what_lies_before(positions.to_vec());
    }

    fn start_partition(&mut self, partition: i32, from: i64, since: i64, end: i64) {
        self.writer.start_partition(partition, from, since, end);
        let index = partition as usize;
        if let Some(unknown) = self.unknown.get_mut(index) {
            *unknown = false;
            // Only this partition: the others are counted already, or will be once they have a leader.
            let mut ends: Vec<_> = self.unknown.iter().map(|unknown| (!unknown).then_some(0)).collect();
            ends[index] = Some(from);
            self.count_what_lies_before(ends);
        }
    }

    fn caught_up(&mut self, topic: TopicId) {
        self.ingest.open(topic);
    }

    fn add_partitions(&mut self, partitions: usize) {
        self.writer.add_partitions(partitions);
    }

    fn skip(&mut self, partition: i32, next: i64) {
        self.writer.skip(partition, next);
    }

    fn topic_deleted(&mut self) {
        self.ingest.topic_recreated(&[]);
    }

    fn restart(&mut self, positions: &[i64]) {
        self.ingest.topic_recreated(positions); // drops ids that a post to the old topic added meanwhile
        self.writer.restart(positions);
        self.filling.cancel();
        self.stats.clear();
        self.hot_keys.clear();
    }

    fn push(&mut self, record: Record) {
        self.ingest.observe(&record);
        self.stats.observe(&record);
        self.hot_keys.observe(&record, self.stats.time_of(&record));
        self.writer.push(record);
    }

    fn publish(&mut self) -> Duration {
        self.writer.publish()
    }
}
