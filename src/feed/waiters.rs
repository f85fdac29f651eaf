//! The tasks that wait for the next wave.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use slab::Slab;

/// How many waiters are woken under one lock.
const PART: usize = 64;

/// Counts the waves, and wakes the waiters. A channel would do the same, but its receivers enter and leave a list under a
/// lock for each wave; with many streams that took as long as the rest of their work in user space.
#[derive(Default)]
pub(super) struct Waiters {
    waves: AtomicU64,
    wakers: Mutex<Slab<Arc<AtomicWaker>>>,
}

impl Waiters {
    /// Begins a wave.
    pub fn begin_wave(&self) {
        self.waves.fetch_add(1, Ordering::AcqRel);
        self.wake();
    }

    /// Wakes every waiter without a wave: each looks again what else it waits for.
    pub fn wake(&self) {
        // In parts, so that streams that come and go wait for no more than one of them.
        for from in (0..).step_by(PART) {
            let wakers = self.wakers();
            (from..from + PART).filter_map(|key| wakers.get(key)).for_each(|waker| waker.wake());
            if from + PART >= wakers.capacity() {
                return;
            }
        }
    }

    /// Returns a waiter for waves after this call.
    pub fn join(self: &Arc<Self>) -> Waiter {
        let waker = Arc::new(AtomicWaker::new());
        let key = self.wakers().insert(waker.clone());
        Waiter { seen: self.count(), waiters: self.clone(), waker, key }
    }

    fn count(&self) -> u64 {
        self.waves.load(Ordering::Acquire)
    }

    fn wakers(&self) -> MutexGuard<'_, Slab<Arc<AtomicWaker>>> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for waves, in one task at a time.
pub(super) struct Waiter {
    waiters: Arc<Waiters>,
    waker: Arc<AtomicWaker>,
    key: usize,
    /// Number of waves up to the last one that was seen.
    seen: u64,
}

impl Waiter {
    /// Whether there was a wave since the last call.
    pub fn take_wave(&mut self) -> bool {
        let before = std::mem::replace(&mut self.seen, self.waiters.count());
        self.seen != before
    }

    /// Waits for a wave.
    pub async fn wave(&mut self) {
        poll_fn(|cx| self.poll_wave(cx)).await;
        self.take_wave();
    }

    /// Ready if there was a wave that [`take_wave`](Self::take_wave) has not told.
    pub fn poll_wave(&mut self, cx: &Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        // After that, because a wave may have begun in between.
        if self.waiters.count() == self.seen { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.waiters.wakers().remove(self.key);
    }
}
