//! A connection that hyper no longer serves: after a 101, or for the rest of a streamed response.
//!
//! hyper keeps a stream's connection only until the response's head has reached the socket. What remains of a stream is
//! one task with the socket and the source of its chunks; it writes each chunk with one write, vectored and without a copy unless the chunk is small.
//! Every such response says `Connection: close`, so requests that the client sent behind it are not answered (RFC 9112,
//! section 9.6): their bytes are discarded.

use std::future::poll_fn;
use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::select;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::body::{Chunks, Conversation};
use super::deadline::WriteDeadline;
use super::exchange::Application;
use super::socket::Socket;
use super::{ShutdownStage, WRITE};
use crate::bounds;

/// Chunks of at most so many bytes are written from one buffer instead of a vectored write.
const JOINED: usize = 4096;

/// A connection taken from hyper, with what continues on it.
pub(super) struct Takeover {
    pub taken: Taken,
    pub next: Next,
    pub application: Arc<Application>,
    pub stage: watch::Receiver<ShutdownStage>,
}

/// What continues on a connection after the response's head.
pub(super) enum Next {
    Stream(Chunks, Framing),
    Conversation(Conversation),
}

/// How the client knows where a streamed body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// The chunked transfer coding (RFC 9112, section 7.1).
    Chunked,
    /// The end of the connection: HTTP/1.0.
    Close,
}

/// A socket without hyper. Reading from it starts with the bytes that hyper had read already.
pub struct Taken {
    socket: Socket,
    received: Bytes,
    application: Arc<Application>,
    write_deadline: WriteDeadline,
}

impl Taken {
    pub(super) fn new(socket: Socket, received: Bytes, application: Arc<Application>) -> Self {
        Taken { socket, received, application, write_deadline: WriteDeadline::default() }
    }

    fn within_deadline<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.write_deadline.check(cx, written, &self.socket, &self.application)
    }
}

impl Takeover {
    /// Runs until either side ends the connection.
    pub async fn run(self) {
        let Takeover { taken, next, application, mut stage } = self;
        match next {
            Next::Stream(chunks, framing) => {
                StreamWriter::new(taken, framing, application, stage).send_all(chunks).await;
            }
            Next::Conversation(conversation) => select! {
                () = conversation(taken) => {}
                _ = stage.wait_for(|stage| *stage == ShutdownStage::Ended) => {}
            },
        }
    }
}

/// Why a stream ended before its last chunk.
#[derive(Debug, PartialEq, Eq)]
enum Broken {
    /// The client has left.
    Gone,
    /// The client took no bytes for too long.
    Stalled,
    /// The server ends, and the client is too slow to get the rest.
    Cut,
}

impl Broken {
    /// Why a read or write failed. The kernel has the same deadline on Linux (`TCP_USER_TIMEOUT`).
    fn by(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::TimedOut { Broken::Stalled } else { Broken::Gone }
    }
}

/// Sends the chunks of a stream.
struct StreamWriter {
    socket: Socket,
    framing: Framing,
    application: Arc<Application>,
    stage: watch::Receiver<ShutdownStage>,
    /// Bytes that the client sent after its request.
    unread: usize,
    /// When the stream ends, because the client has closed its sending side.
    gone_at: Option<Instant>,
}

impl StreamWriter {
    fn new(
        taken: Taken,
        framing: Framing,
        application: Arc<Application>,
        stage: watch::Receiver<ShutdownStage>,
    ) -> Self {
        let Taken { socket, received, .. } = taken;
        if framing == Framing::Close {
            // Only a reset tells the client that the body is incomplete.
            socket.reset_at_close(true);
        }
        StreamWriter { socket, framing, application, stage, unread: received.len(), gone_at: None }
    }

    async fn send_all(mut self, mut chunks: Chunks) {
        loop {
            let next = select! {
                biased;
                chunk = chunks.next() => chunk,
                broken = self.left() => return self.break_off(&broken),
            };
            let sent = match next {
                Some(Ok(chunk)) => self.send(&chunk).await,
                Some(Err(error)) => {
                    tracing::warn!(error = %error, "response broken off");
                    return;
                }
                None => break,
            };
            if let Err(broken) = sent {
                return self.break_off(&broken);
            }
        }
        drop(chunks);
        self.end().await;
    }

    /// Ends the connection before the end of the body.
    fn break_off(&self, broken: &Broken) {
        if *broken == Broken::Stalled {
            self.socket.reset_at_close(true); // frees what the kernel holds for the client
            self.application.metrics.timeouts.get_or_create(&WRITE).inc();
        }
    }

    /// Sends one chunk.
    async fn send(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        if bytes.is_empty() {
            return Ok(()); // as a chunk it would be the last
        }
        let mut size = [0; 2 * size_of::<usize>() + 2];
        let unused = {
            let mut size = &mut size[..];
            let _ = write!(size, "{:x}\r\n", bytes.len()); // has room for any length
            size.len()
        };
        let size = &size[..size.len() - unused];
        let mut chunk = [IoSlice::new(size), IoSlice::new(bytes), IoSlice::new(b"\r\n")];
        let rest = match self.framing {
            Framing::Chunked => &mut chunk[..],
            Framing::Close => &mut chunk[1..2],
        };
        self.write(rest).await
    }

    async fn write(&mut self, mut rest: &mut [IoSlice<'_>]) -> Result<(), Broken> {
        let written = poll_fn(|cx| Poll::Ready(self.socket.poll_write_joined(cx, &mut rest))).await;
        match written {
            Poll::Ready(written) => written.map_err(|error| Broken::by(&error)),
            // A future of its own, so that it takes memory only for a client that reads too slowly.
            Poll::Pending => Box::pin(self.write_slowly(rest)).await,
        }
    }

    /// Waits for the client to take bytes, and watches what may end the wait.
    async fn write_slowly(&mut self, mut rest: &mut [IoSlice<'_>]) -> Result<(), Broken> {
        let mut stage = self.stage.clone();
        let mut cut = std::pin::pin!(async move {
            // The sender lives as long as the server.
            let _ = stage.wait_for(|stage| matches!(stage, ShutdownStage::Cutting | ShutdownStage::Ended)).await;
        });
        loop {
            let left = remaining(rest);
            let step = poll_fn(|cx| match self.socket.poll_write_all(cx, &mut rest) {
                Poll::Pending if remaining(rest) < left => Poll::Ready(Ok(false)),
                written => written.map_ok(|()| true),
            });
            let stalled = self.application.limits.deadlines.write;
            select! {
                biased;
                step = step => match step {
                    Ok(true) => return Ok(()),
                    Ok(false) => {}
                    Err(error) => return Err(Broken::by(&error)),
                },
                () = &mut cut => return Err(Broken::Cut),
                () = sleep(stalled) => return Err(Broken::Stalled),
            }
        }
    }

    /// Resolves when the client has left. TCP does not distinguish a client that has closed only its sending side from one
    /// that has left; it gets [`bounds::HALF_CLOSED`] more of the stream, or all chunks that are ready. Cancel safe.
    async fn left(&mut self) -> Broken {
        let mut buffer = [0; 64];
        while self.gone_at.is_none() {
            match self.socket.read(&mut buffer).await {
                Ok(0) => self.gone_at = Some(Instant::now() + bounds::HALF_CLOSED),
                Ok(count) => {
                    self.unread += count;
                    if self.unread > bounds::UNASKED_BYTES {
                        return Broken::Gone;
                    }
                }
                Err(error) => return Broken::by(&error),
            }
        }
        if let Some(gone_at) = self.gone_at {
            sleep_until(gone_at).await;
        }
        Broken::Gone
    }

    /// Ends a complete body, and the connection.
    async fn end(mut self) {
        if self.framing == Framing::Close {
            self.socket.reset_at_close(false);
        } else if let Err(broken) = self.write(&mut [IoSlice::new(b"0\r\n\r\n")]).await {
            return self.break_off(&broken);
        }
        let last = async {
            self.socket.shutdown().await?;
            // Closing a socket with unread bytes resets the connection, and the client may lose the end.
            let unread = self.unread > 0 || matches!(self.socket.tcp().try_read(&mut [0; 64]), Ok(1..));
            match unread {
                false => Ok(0),
                true => {
                    tokio::io::copy(&mut (&mut self.socket).take(bounds::LINGER_BYTES), &mut tokio::io::sink()).await
                }
            }
        };
        let _ = timeout(bounds::LINGER, last).await; // best effort: the client may be gone
    }
}

fn remaining(slices: &[IoSlice<'_>]) -> usize {
    slices.iter().map(|slice| slice.len()).sum()
}

impl Socket {
    /// Does the same as [`poll_write_all`](Self::poll_write_all), but copies few bytes into one buffer first: for them that
    /// takes less time than a vectored write.
    fn poll_write_joined(&mut self, cx: &mut Context<'_>, rest: &mut &mut [IoSlice<'_>]) -> Poll<io::Result<()>> {
        let count = remaining(rest);
        if rest.len() > 1 && count <= JOINED {
            let (mut buffer, mut end) = ([0; JOINED], 0);
            for slice in rest.iter() {
                buffer[end..end + slice.len()].copy_from_slice(slice);
                end += slice.len();
            }
            let written = ready!(Pin::new(&mut *self).poll_write(cx, &buffer[..count]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            IoSlice::advance_slices(rest, written);
        }
        self.poll_write_all(cx, rest)
    }

    /// Writes all of the slices and flushes the socket. `rest` is what is not written yet.
    fn poll_write_all(&mut self, cx: &mut Context<'_>, rest: &mut &mut [IoSlice<'_>]) -> Poll<io::Result<()>> {
        while !rest.is_empty() {
            let written = ready!(Pin::new(&mut *self).poll_write_vectored(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            IoSlice::advance_slices(rest, written);
        }
        Pin::new(self).poll_flush(cx)
    }
}

impl AsyncRead for Taken {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let taken = self.get_mut();
        if taken.received.is_empty() {
            return Pin::new(&mut taken.socket).poll_read(cx, buf);
        }
        let count = taken.received.len().min(buf.remaining());
        buf.put_slice(&taken.received[..count]);
        taken.received.advance(count);
        if taken.received.is_empty() {
            taken.received = Bytes::new(); // frees hyper's buffer
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Taken {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.within_deadline(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.within_deadline(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.socket).poll_flush(cx);
        self.within_deadline(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
