//! Deadlines whose timers are made and set as rarely as possible.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

use super::WRITE;
use super::exchange::Application;
use super::socket::Socket;

/// Ready once the deadline has passed. Makes the timer if there is none.
pub(super) fn poll_deadline(timer: &mut Option<Pin<Box<Sleep>>>, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
    let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
    // Resetting a timer is costly: if the deadline has moved later, the timer is reset only when it fires.
    if deadline < timer.deadline() {
        timer.as_mut().reset(deadline);
    }
    while timer.as_mut().poll(cx).is_ready() {
        if Instant::now() >= deadline {
            return Poll::Ready(());
        }
        timer.as_mut().reset(deadline);
    }
    Poll::Pending
}

/// The deadline of the writes to a socket: how long one may wait for its client to accept bytes.
#[derive(Default)]
pub(super) struct WriteDeadline {
    /// For a write that waits.
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    passed: bool,
}

impl WriteDeadline {
    /// Passes on the outcome of a write. A write that waits for too long fails, and the socket will be reset.
    pub fn check<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
        socket: &Socket,
        application: &Application,
    ) -> Poll<io::Result<T>> {
        match written {
            Poll::Pending => {
                let deadline = *self.at.get_or_insert_with(|| Instant::now() + application.limits.deadlines.write);
                ready!(poll_deadline(&mut self.timer, deadline, cx));
            }
            // The kernel's own deadline, which counts the same time (`TCP_USER_TIMEOUT`).
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::TimedOut => {}
            Poll::Ready(written) => {
                if self.at.take().is_some() {
                    self.timer = None;
                }
                return Poll::Ready(written);
            }
        }
        self.pass(socket, application);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Passes on the outcome of a read, which may be what tells of the kernel's deadline.
    pub fn check_read<T>(
        &mut self,
        read: Poll<io::Result<T>>,
        socket: &Socket,
        application: &Application,
    ) -> Poll<io::Result<T>> {
        if matches!(&read, Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::TimedOut) {
            self.pass(socket, application);
        }
        read
    }

    fn pass(&mut self, socket: &Socket, application: &Application) {
        if !self.passed {
            self.passed = true;
            socket.reset_at_close(true); // frees what the kernel holds for the client
            application.metrics.timeouts.get_or_create(&WRITE).inc();
        }
    }
}
