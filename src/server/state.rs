//! The state of a connection, shared by its transport, its current request and its task.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use super::takeover::Next;
use futures_util::task::AtomicWaker;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum ConnectionPhase {
    /// Waits for a request's head.
    Head,
    /// Reads a request's body.
    Body,
    /// Answers a request that is cancelled if the client leaves.
    Read,
    /// Answers a request (POST) that continues if the client leaves.
    Write,
}

#[derive(Default)]
pub(super) struct ConnectionState {
    phase: AtomicU8,
    /// True from when hyper gets a response until its first byte is written.
    answered: AtomicBool,
    /// Whether the response in flight has neither a length nor chunks, so that only a reset shows that it is incomplete.
    close_delimited: AtomicBool,
    /// Whether hyper has all of its body.
    complete: AtomicBool,
    /// Whether the client may still be sending bytes that the server will not read.
    unread: AtomicBool,
    /// Whether the next response is the last.
    ending: AtomicBool,
    /// Wakes the transport's task when the connection waits for a head again.
    ended: AtomicWaker,
    /// What takes the connection over.
    next: Mutex<Option<Next>>,
    handover: AtomicU8,
}

/// hyper has the head of a response that takes the connection over, and writes it with its next flush.
const OFFERED: u8 = 1;
/// All bytes that hyper has written have reached the socket since then.
const HANDED_OVER: u8 = 2;

impl ConnectionState {
    pub fn phase(&self) -> ConnectionPhase {
        match self.phase.load(Ordering::Relaxed) {
            0 => ConnectionPhase::Head,
            1 => ConnectionPhase::Body,
            2 => ConnectionPhase::Read,
            _ => ConnectionPhase::Write,
        }
    }

    pub fn set_phase(&self, phase: ConnectionPhase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Notes that hyper is about to write a response of the application.
    pub fn answer(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    /// Returns whether [`answer`](Self::answer) was called since the last time, and resets it.
    pub fn take_answer(&self) -> bool {
        self.answered.load(Ordering::Relaxed) && self.answered.swap(false, Ordering::Relaxed)
    }

    /// Registers the task to wake when the connection waits for a head again.
    pub fn wake_at_next_head(&self, waker: &Waker) {
        self.ended.register(waker);
    }

    pub fn set_close_delimited(&self) {
        self.close_delimited.store(true, Ordering::Relaxed);
    }

    /// Whether the connection must end in a reset if it ends now.
    pub fn must_reset(&self) -> bool {
        self.close_delimited.load(Ordering::Relaxed)
    }

    /// Notes that the next response is the last.
    pub fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    pub fn leave_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    pub fn has_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// Notes what takes the connection over after the response's head.
    pub fn hand_over(&self, next: Next) {
        if let Next::Conversation(_) = next {
            self.handover.store(OFFERED, Ordering::Relaxed); // a 101 has no body that hyper would ask for
        }
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(next);
    }

    /// Notes that hyper asks for the body of a response that takes the connection over: the head is in its buffer. Returns
    /// whether it is the first time.
    pub fn offer(&self) -> bool {
        self.handover.compare_exchange(0, OFFERED, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Notes that everything that hyper has written has reached the socket.
    pub fn flushed(&self) {
        if self.complete.load(Ordering::Relaxed) {
            self.complete.store(false, Ordering::Relaxed);
            self.close_delimited.store(false, Ordering::Relaxed);
        }
        if self.handover.load(Ordering::Relaxed) == OFFERED {
            self.handover.store(HANDED_OVER, Ordering::Relaxed);
        }
    }

    /// Whether a response takes the connection over.
    pub fn is_offered(&self) -> bool {
        self.handover.load(Ordering::Relaxed) != 0
    }

    /// Whether the connection can be taken from hyper now, with nothing unsent.
    pub fn is_handed_over(&self) -> bool {
        self.handover.load(Ordering::Relaxed) == HANDED_OVER
    }

    pub fn take_next(&self) -> Option<Next> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Marks a connection as answering a request. Dropping it makes the connection wait for the next head.
pub(super) struct BusyConnection(Arc<ConnectionState>);

impl BusyConnection {
    pub fn new(state: Arc<ConnectionState>) -> Self {
        state.set_phase(ConnectionPhase::Body);
        BusyConnection(state)
    }

    pub fn state(&self) -> &Arc<ConnectionState> {
        &self.0
    }

    /// Notes that hyper has all of the response: after its next flush the connection may end without a reset.
    pub fn completed(&self) {
        self.0.complete.store(true, Ordering::Relaxed);
    }
}

impl Drop for BusyConnection {
    fn drop(&mut self) {
        self.0.set_phase(ConnectionPhase::Head);
        self.0.ended.wake();
    }
}
