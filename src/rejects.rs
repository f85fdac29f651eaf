//! The latest refused submissions, so that a sender's mistake is seen where one looks for its events.
//!
//! `web` decides what counts as refused, and shortens what it adds. This module keeps the latest in memory, counts all, and
//! tells the live pages. Other replicas, and the process after a restart, know nothing of them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;

/// Most rejects in memory. Each is a few kilobytes at most.
pub const KEPT: usize = 256;

/// A refused submission. Its texts have a bounded length.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Reject {
    #[schema(format = DateTime)]
    pub time: String,
    /// Method and path: of the route, or as sent if there is none.
    pub route: String,
    /// The network of the client: /24 of IPv4, /48 of IPv6.
    pub client: String,
    pub status: u16,
    /// As in a problem: `/problems/invalid-event`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub title: &'static str,
    pub detail: String,
    /// JSON Pointer to the member that is wrong, in the event.
    #[schema(required)]
    pub pointer: Option<String>,
    /// The place of the refused event in the array, or its line, counted from 0; of several the first one's.
    #[schema(required)]
    pub index: Option<usize>,
    /// How many events of the request were refused; 1 if its events could not be counted.
    pub events: usize,
    /// The start of the refused event or of the body, with long strings shortened.
    pub excerpt: String,
}

/// Why a submission was refused, or events of it.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Status, type and title of the problem.
    pub status: u16,
    pub kind: &'static str,
    pub title: &'static str,
    pub detail: String,
    /// Index of the first refused event.
    pub index: Option<usize>,
    /// JSON Pointer into that event.
    pub pointer: Option<String>,
    /// How many events were refused.
    pub events: usize,
}

/// `event: rejected`. How many submissions were refused, and the latest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub struct Rejected {
    /// Since the process started.
    pub count: u64,
    #[schema(required)]
    pub latest: Option<Latest>,
}

/// The latest reject in a few words.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = LatestReject)]
pub struct Latest {
    pub route: String,
    pub status: u16,
    pub title: &'static str,
    pub detail: String,
    #[schema(required)]
    pub pointer: Option<String>,
}

/// The label of the counter: the problem's type, without its prefix.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    pub reason: &'static str,
}

/// The latest refused submissions of this process.
#[derive(Default)]
pub struct Rejects {
    /// Newest last.
    kept: Mutex<VecDeque<Arc<Reject>>>,
    news: watch::Sender<Rejected>,
    counter: Family<ReasonLabel, Counter>,
}

impl Rejects {
    /// Adds a reject, and drops the oldest one beyond [`KEPT`].
    pub fn add(&self, reject: Reject) {
        let reason = reject.kind.trim_start_matches("/problems/");
        self.counter.get_or_create(&ReasonLabel { reason }).inc();
        let latest = Latest {
            route: reject.route.clone(),
            status: reject.status,
            title: reject.title,
            detail: reject.detail.clone(),
            pointer: reject.pointer.clone(),
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back(Arc::new(reject));
        // Under the lock, so that `latest` is the last one.
        self.news.send_modify(|news| {
            news.count += 1;
            news.latest = Some(latest);
        });
    }

    /// Forgets all rejects and their number. The counter of the metrics never decreases.
    pub fn clear(&self) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.clear();
        self.news.send_replace(Rejected::default());
    }

    /// Returns the latest rejects, newest first, and how many there were since the process started.
    pub fn latest(&self, most: usize) -> (Vec<Arc<Reject>>, u64) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        (kept.iter().rev().take(most).cloned().collect(), self.news.borrow().count)
    }

    /// Returns how many submissions were refused, and its changes.
    pub fn news(&self) -> watch::Receiver<Rejected> {
        self.news.subscribe()
    }

    /// The counter of refused submissions, by reason.
    pub fn counter(&self) -> &Family<ReasonLabel, Counter> {
        &self.counter
    }
}
