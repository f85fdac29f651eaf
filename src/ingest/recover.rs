//! Doubtful events: without an acknowledgement it is unknown whether Kafka has an event, so the topic is searched for it,
//! before the answer if there is time, and at a retry.

use std::collections::HashMap;
use std::ops::ControlFlow;

use tokio::time::{Instant, timeout_at};

use super::Ingest;
use super::ids::IdHash;
use crate::event::Event;

impl Ingest {
    /// Searches the topic for events that an earlier attempt may have written, before they are written again. Claims
    /// use the results that are found before the deadline.
    pub(super) async fn resolve_doubts(&self, events: &[Event], deadline: Instant) {
        let given = events.iter().filter(|event| event.id_was_given);
        if let Ok(missing) = timeout_at(deadline, self.look_up(given)).await {
            missing.into_iter().for_each(|(key, since_ms)| self.ids.clear(key, since_ms));
        }
    }

    /// Searches the topic once for all doubtful events. Learns the ids of those that are found; returns the keys of the
    /// others, each with the time in milliseconds since 1970 at which the search started.
    pub(super) async fn look_up(&self, events: impl Iterator<Item = &Event>) -> Vec<(IdHash, i64)> {
        let (mut sought, mut users) = (HashMap::new(), Vec::new());
        for event in events {
            let key = self.key(event);
            if let Some(since_ms) = self.ids.doubtful_since(key) {
                sought.insert(key, since_ms);
                users.push(event.user.clone());
            }
        }
        let Some(since_ms) = sought.values().min().copied() else { return Vec::new() };
        // The thread may outlive the deadline, and keeps the permit until it ends.
        let Ok(permit) = self.look_ups.clone().acquire_owned().await else { return Vec::new() };
        let (history, ids) = (self.history.clone(), self.ids.clone());
        let find = move || {
            let _permit = permit;
            let users = users.iter().map(|user| user.as_bytes());
            let read = history.find(users, since_ms, |record| {
                if ids.key_of(&record).is_some_and(|key| sought.remove(&key).is_some()) {
                    ids.observe(&record);
                }
                if sought.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            read.map(|()| sought.into_iter().collect())
        };
        match tokio::task::spawn_blocking(find).await {
            Ok(Ok(missing)) => missing,
            Ok(Err(_)) | Err(_) => Vec::new(), // the events stay in doubt
        }
    }
}
