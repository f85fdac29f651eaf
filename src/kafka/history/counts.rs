//! How many records a topic has over time. Kafka's index by time answers it: no record is read.

use std::ops::ControlFlow;

use rdkafka::consumer::Consumer;
use tokio_util::sync::CancellationToken;

use super::{History, HistoryError, Marks, led};
use crate::kafka::QUESTION;
use crate::kafka::admin::topics;

/// How many records lie between times.
#[derive(Debug, Default)]
pub struct TimeCounts {
    /// The time of the oldest record, in milliseconds since 1970; `None` if there is none with a time.
    pub oldest_ms: Option<i64>,
    /// The times between which records were counted, and the records from each to the next.
    pub edges_ms: Vec<i64>,
    pub counts: Vec<u64>,
    /// Whether each record was counted by its own time. Otherwise the counts are differences of offsets, which include
    /// offsets that compaction or transactions left empty. A record with an earlier time than one before it in its partition
    /// is then counted with that one.
    pub is_exact: bool,
}

impl History {
    /// Counts the records of these partitions, or of all if none is named. `edges` gets the time of the oldest record, if
    /// there is one, and the number of partitions; it returns the times between which to count, in their order. Blocks for
    /// a few seconds at most.
    pub fn counts_over_time(
        &self,
        wanted: &[i32],
        stop: &CancellationToken,
        edges: impl FnOnce(Option<i64>, usize) -> Vec<i64>,
    ) -> Result<TimeCounts, HistoryError> {
        let bounds = self.bounds_of(wanted)?;
        match self.embedded {
            true => self.count_by_reading(&bounds, stop, edges),
            false => self.count_by_index(wanted, &bounds, edges),
        }
    }

    /// Reads all records: the embedded broker keeps few, and has no index by time.
    fn count_by_reading(
        &self,
        bounds: &[Marks],
        stop: &CancellationToken,
        edges: impl FnOnce(Option<i64>, usize) -> Vec<i64>,
    ) -> Result<TimeCounts, HistoryError> {
        let (from, to): (Vec<i64>, Vec<i64>) = bounds.iter().copied().unzip();
        let mut times = Vec::new();
        self.read_until(stop, &from, &to, |record| {
            times.extend(self.time_ms(&record));
            ControlFlow::Continue(())
        })?;
        times.sort_unstable();
        let oldest_ms = times.first().copied();
        let edges_ms = edges(oldest_ms, bounds.len());
        let before: Vec<usize> = edges_ms.iter().map(|edge| times.partition_point(|at| at < edge)).collect();
        let counts = before.windows(2).map(|pair| (pair[1] - pair[0]) as u64).collect();
        Ok(TimeCounts { oldest_ms, edges_ms, counts, is_exact: true })
    }

    /// Asks Kafka for the first offset at or after each edge: the differences are the counts.
    fn count_by_index(
        &self,
        wanted: &[i32],
        bounds: &[Marks],
        edges: impl FnOnce(Option<i64>, usize) -> Vec<i64>,
    ) -> Result<TimeCounts, HistoryError> {
        let all = led(&*self.topic_state()?, wanted)?;
        let ends =
            |partition: &i32| bounds.get(*partition as usize).filter(|(first, end)| first < end).map(|(_, end)| *end);
        // Partitions with records.
        let (asked, ends): (Vec<i32>, Vec<i64>) =
            all.iter().filter_map(|partition| Some((*partition, ends(partition)?))).unzip();
        let ask = |times_ms: &[i64]| {
            self.with_fetcher(|fetcher| {
                topics::first_records(fetcher.consumer().client(), &self.topic, &asked, times_ms, QUESTION)
                    .map_err(|error| HistoryError::Unreachable(error.to_string()))
            })
        };
        let oldest_ms = match asked.is_empty() {
            true => None,
            false => ask(&[0])?.into_iter().flatten().flatten().map(|(_, at)| at).min(),
        };
        let edges_ms = edges(oldest_ms, all.len());
        if asked.is_empty() {
            let counts = vec![0; edges_ms.len().saturating_sub(1)];
            return Ok(TimeCounts { oldest_ms, edges_ms, counts, is_exact: false });
        }
        // Per edge: the records before it.
        let offset = |(found, end): (Option<topics::Found>, &i64)| found.map_or(*end, |(offset, _)| offset.min(*end));
        let before = ask(&edges_ms)?.into_iter().map(|found| found.into_iter().zip(&ends).map(offset).sum());
        let before: Vec<i64> = before.collect();
        // Retention may delete records between the answers.
        let counts = before.windows(2).map(|pair| (pair[1] - pair[0]).max(0) as u64).collect();
        Ok(TimeCounts { oldest_ms, edges_ms, counts, is_exact: false })
    }
}
