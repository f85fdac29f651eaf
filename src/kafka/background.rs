//! A background thread that ends with the part that owns it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle, Thread};

/// A thread. Dropping it asks the thread to stop and waits until it has ended.
#[derive(Default)]
pub(super) struct BackgroundThread {
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

/// Whether a thread should stop.
#[derive(Clone, Default)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(super) fn is_requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl BackgroundThread {
    /// Starts a thread, which ends soon after a stop is requested. It may park: a request to stop unparks it.
    pub(super) fn start(name: &str, work: impl FnOnce(Stop) + Send + 'static) -> io::Result<Self> {
        let stop = Stop::default();
        let requested = stop.clone();
        let thread = Builder::new().name(name.to_owned()).spawn(move || work(requested))?;
        Ok(BackgroundThread { stop, thread: Some(thread) })
    }

    /// Returns the thread, to unpark it.
    pub(super) fn thread(&self) -> Option<Thread> {
        self.thread.as_ref().map(|thread| thread.thread().clone())
    }

    /// Asks the thread to stop, and does not wait.
    pub(super) fn request_stop(&self) {
        self.stop.0.store(true, Ordering::Relaxed);
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for BackgroundThread {
    fn drop(&mut self) {
        self.request_stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic of it was printed
        }
    }
}
