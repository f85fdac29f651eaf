//! The socket that hyper reads and writes. It adds deadlines for heads and for writes, a grace period for clients that half-close the
//! connection, and replaces hyper's bare error responses with the application's.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use memchr::memchr;
use rocket::http::Status;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::deadline::{WriteDeadline, poll_deadline};
use super::exchange::Application;
use super::socket::Socket;
use super::state::{ConnectionPhase, ConnectionState};
use crate::bounds;

/// Makes the response to an invalid request: head and body, as bytes.
pub(super) type Refuse = Box<dyn Fn(Status) -> Refusing + Send + Sync>;
pub(super) type Refusing = Pin<Box<dyn Future<Output = Bytes> + Send>>;

pub(super) struct Transport {
    socket: Socket,
    state: Arc<ConnectionState>,
    application: Arc<Application>,
    refuse: Refuse,
    /// Bytes received of the current head.
    head: usize,
    /// Bytes received of its first line, and whether the line has ended.
    line: usize,
    line_ended: bool,
    /// By when the client must have sent the rest of the head, or the first byte of the next one.
    deadline: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    timed_out: bool,
    /// Whether the phase was not [`ConnectionPhase::Head`] at the last read.
    was_busy: bool,
    write_deadline: WriteDeadline,
    /// The grace period after a half-close, during which the client may still be answered.
    ending: Option<Pin<Box<Sleep>>>,
    /// Whether everything that hyper passed to the last write was written.
    flushed: bool,
    refusal: Option<SwappedResponse>,
}

/// The application's response, which replaces one of hyper's.
struct SwappedResponse {
    making: Option<Refusing>,
    bytes: Bytes,
}

impl Transport {
    pub fn new(socket: Socket, state: Arc<ConnectionState>, application: Arc<Application>, refuse: Refuse) -> Self {
        Transport {
            socket,
            state,
            deadline: Instant::now() + application.limits.deadlines.head,
            application,
            refuse,
            head: 0,
            line: 0,
            line_ended: false,
            timer: None,
            timed_out: false,
            was_busy: false,
            write_deadline: WriteDeadline::default(),
            ending: None,
            flushed: true,
            refusal: None,
        }
    }

    /// Whether the client started a head and did not complete it in time.
    pub fn left_a_head_unfinished(&self) -> bool {
        self.timed_out && self.head > 0
    }

    /// Whether the client sent no request in time.
    pub fn was_idle(&self) -> bool {
        self.timed_out && self.head == 0
    }

    /// Makes the application's response with this status.
    pub fn refusing(&self, status: Status) -> Refusing {
        (self.refuse)(status)
    }

    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    pub fn socket_mut(&mut self) -> &mut Socket {
        &mut self.socket
    }

    pub fn into_socket(self) -> Socket {
        self.socket
    }

    /// Returns whether the connection waits for a head; resets the head's counters when a new head starts.
    fn reads_head(&mut self) -> bool {
        let phase = self.state.phase();
        if phase != ConnectionPhase::Head {
            self.was_busy = true;
            return false;
        }
        if self.was_busy {
            self.was_busy = false;
            self.head = 0;
            self.line = 0;
            self.line_ended = false;
            self.deadline = Instant::now() + self.application.limits.deadlines.idle;
        }
        true
    }

    /// Counts received bytes of a head. The first byte starts the head's deadline.
    fn note(&mut self, bytes: &[u8]) {
        if self.head == 0 {
            self.deadline = Instant::now() + self.application.limits.deadlines.head;
        }
        self.head += bytes.len();
        if !self.line_ended {
            let end = memchr(b'\n', bytes);
            self.line += end.unwrap_or(bytes.len());
            self.line_ended = end.is_some();
        }
    }

    fn within_deadline<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.write_deadline.check(cx, written, &self.socket, &self.application)
    }

    /// Called when the client has half-closed the connection; ready when the connection may end. Some clients half-close
    /// after their request and still read the answer.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let phase = self.state.phase();
        if phase == ConnectionPhase::Head {
            return Poll::Ready(());
        }
        self.state.wake_at_next_head(cx.waker());
        match phase {
            ConnectionPhase::Write => Poll::Pending, // a POST is answered in any case
            _ => self.ending.get_or_insert_with(|| Box::pin(sleep(bounds::HALF_CLOSED))).as_mut().poll(cx),
        }
    }

    /// Returns the status if these bytes start a response that hyper made itself, for a head it cannot parse.
    fn is_of_hyper(&mut self, bytes: &[u8]) -> Option<Status> {
        if !self.flushed || self.state.take_answer() || self.state.phase() != ConnectionPhase::Head {
            return None;
        }
        let code = std::str::from_utf8(bytes.strip_prefix(b"HTTP/1.1 ")?.get(..3)?).ok()?.parse().ok()?;
        match code {
            // hyper answers 431 for any oversized head, also if its target is what is too long.
            431 if !self.line_ended || self.line > bounds::TARGET_BYTES => Some(Status::UriTooLong),
            400..500 => Some(Status::new(code)),
            _ => None,
        }
    }

    /// Writes the application's response in place of hyper's.
    fn poll_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(refusal) = &mut self.refusal else { return Poll::Ready(Ok(())) };
        if let Some(making) = &mut refusal.making {
            refusal.bytes = ready!(making.as_mut().poll(cx));
            refusal.making = None;
        }
        while !refusal.bytes.is_empty() {
            let written = ready!(Pin::new(&mut self.socket).poll_write(cx, &refusal.bytes))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            refusal.bytes.advance(written);
        }
        self.refusal = None;
        Poll::Ready(Ok(()))
    }

    /// Writes `length` bytes that start with `first`, or the application's response in their place.
    fn poll_written(
        &mut self,
        cx: &mut Context<'_>,
        first: &[u8],
        length: usize,
        write: impl FnOnce(Pin<&mut Socket>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if self.refusal.is_none()
            && let Some(status) = self.is_of_hyper(first)
        {
            self.state.leave_unread();
            self.refusal = Some(SwappedResponse { making: Some((self.refuse)(status)), bytes: Bytes::new() });
        }
        if self.refusal.is_some() {
            let refused = self.poll_refusal(cx).map_ok(|()| length);
            return self.within_deadline(cx, refused);
        }
        let written = write(Pin::new(&mut self.socket), cx);
        let written = self.within_deadline(cx, written);
        self.flushed = matches!(written, Poll::Ready(Ok(written)) if written == length);
        written
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let transport = self.get_mut();
        let reads_head = transport.reads_head();
        let before = buf.filled().len();
        let read = Pin::new(&mut transport.socket).poll_read(cx, buf);
        match read {
            Poll::Ready(Ok(())) if buf.filled().len() == before && buf.remaining() > 0 => {
                ready!(transport.poll_end(cx));
            }
            Poll::Ready(Ok(())) if reads_head => transport.note(&buf.filled()[before..]),
            Poll::Pending if reads_head => {
                ready!(poll_deadline(&mut transport.timer, transport.deadline, cx));
                transport.timed_out = true;
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            // Without this, nothing would check the next head's deadline before its first byte arrives.
            Poll::Pending => transport.state.wake_at_next_head(cx.waker()),
            _ => {}
        }
        read
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_written(cx, buf, buf.len(), |socket, cx| socket.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).sum();
        let first = bufs.first().map_or(&[][..], |first| first);
        self.get_mut().poll_written(cx, first, length, |socket, cx| socket.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper flushes only after it has written all that it has.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let transport = self.get_mut();
        let flushed = Pin::new(&mut transport.socket).poll_flush(cx);
        ready!(transport.within_deadline(cx, flushed))?;
        transport.state.flushed();
        Poll::Ready(Ok(()))
    }

    /// Only flushes: the socket may be taken over, and `connection::leave` closes it.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}
