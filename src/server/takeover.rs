//! A connection that hyper no longer serves: after a 101, or for the rest of a streamed response.
//!
//! hyper keeps a stream's connection only until the response's head has reached the socket. What remains of a stream is
//! one task with the socket and the source of its chunks; it writes each chunk with one write. A small chunk is copied once on
//! each thread, for the streams that send it one after the other; a large one is not copied.
//! Every such response says `Connection: close`, so requests that the client sent behind it are not answered (RFC 9112,
//! section 9.6): their bytes are discarded.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::select;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::ShutdownStage;
use super::body::{Chunks, Conversation};
use super::deadline::WriteDeadline;
use super::exchange::Application;
use super::socket::Socket;
use crate::bounds;

/// Chunks of at most so many bytes are written from one buffer instead of a vectored write.
const JOINED: usize = 16 * 1024;

/// A connection taken from hyper, with what continues on it.
pub(super) struct Takeover {
    pub taken: Taken,
    pub next: Next,
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
        let received = if received.is_empty() { Bytes::new() } else { received }; // frees hyper's buffer
        Taken { socket, received, application, write_deadline: WriteDeadline::default() }
    }

    fn within_deadline<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.write_deadline.check(cx, written, &self.socket, &self.application)
    }
}

impl Takeover {
    /// Runs until either side ends the connection.
    pub async fn run(self) {
        let Takeover { taken, next, mut stage } = self;
        match next {
            Next::Stream(chunks, framing) => {
                if let Err(error) = StreamWriter::new(taken, framing, stage).send_all(chunks).await {
                    tracing::debug!(error = %error, "stream ended before its last chunk");
                }
            }
            Next::Conversation(conversation) => select! {
                () = conversation(taken) => {}
                _ = stage.wait_for(|stage| *stage == ShutdownStage::Ended) => {}
            },
        }
    }
}

/// Sends the chunks of a stream.
struct StreamWriter {
    connection: Taken,
    framing: Framing,
    stage: watch::Receiver<ShutdownStage>,
    /// Bytes that the client sent after its request.
    unread: usize,
    /// When the stream ends, because the client has closed its sending side.
    gone_at: Option<Instant>,
}

impl StreamWriter {
    fn new(connection: Taken, framing: Framing, stage: watch::Receiver<ShutdownStage>) -> Self {
        if framing == Framing::Close {
            // Only a reset tells the client that the body is incomplete.
            connection.socket.reset_at_close(true);
        }
        StreamWriter { connection, framing, stage, unread: 0, gone_at: None }
    }

    /// Sends all chunks, and ends the connection. After an error the connection ends before the end of the body.
    async fn send_all(mut self, mut chunks: Chunks) -> io::Result<()> {
        loop {
            let next = select! {
                biased;
                chunk = chunks.next() => chunk,
                left = self.left() => return Err(left),
            };
            match next {
                Some(Ok(chunk)) => self.send(chunk).await?,
                Some(Err(error)) => {
                    tracing::warn!(error = %error, "response broken off");
                    return Err(error);
                }
                None => break,
            }
        }
        drop(chunks);
        self.end().await
    }

    /// Sends one chunk.
    async fn send(&mut self, chunk: Bytes) -> io::Result<()> {
        // Futures of their own, so that they take memory only while they are needed.
        let mut written = 0;
        match self.framing {
            _ if chunk.is_empty() => return Ok(()), // as a chunk it would be the last
            Framing::Close => return Box::pin(self.write(chunk)).await,
            Framing::Chunked if chunk.len() > JOINED => {}
            Framing::Chunked => {
                let mut at_once = |cx: &mut Context<'_>| as_chunk(&chunk, |framed| self.write_at_once(cx, framed));
                match poll_fn(|cx| Poll::Ready(at_once(cx))).await? {
                    None => return Ok(()),
                    Some(count) => written = count,
                }
            }
        }
        let size = Bytes::from(format!("{:x}\r\n", chunk.len()));
        let mut rest = size.chain(chunk).chain(&b"\r\n"[..]);
        rest.advance(written);
        Box::pin(self.write(rest)).await
    }

    /// Writes what the client takes without waiting. Returns how much that was, unless it was all.
    fn write_at_once(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<Option<usize>> {
        let written = match Pin::new(&mut self.connection).poll_write(cx, bytes) {
            Poll::Ready(written) => written?,
            Poll::Pending => 0,
        };
        if written == bytes.len() && Pin::new(&mut self.connection).poll_flush(cx)?.is_ready() {
            return Ok(None);
        }
        Ok(Some(written))
    }

    /// Writes all bytes, at the client's pace.
    async fn write(&mut self, mut bytes: impl Buf) -> io::Result<()> {
        let (connection, stage) = (&mut self.connection, &mut self.stage);
        let written = async {
            connection.write_all_buf(&mut bytes).await?;
            connection.flush().await
        };
        let cut = stage.wait_for(|stage| matches!(stage, ShutdownStage::Cutting | ShutdownStage::Ended));
        select! {
            biased;
            written = written => written,
            _ = cut => Err(io::Error::other("the server ends")),
        }
    }

    /// Resolves when the client has left. TCP does not distinguish a client that has closed only its sending side from one
    /// that has left; it gets [`bounds::HALF_CLOSED`] more of the stream, or all chunks that are ready. Cancel safe.
    async fn left(&mut self) -> io::Error {
        let mut buffer = [0; 64];
        while self.gone_at.is_none() {
            match self.connection.read(&mut buffer).await {
                Ok(0) => self.gone_at = Some(Instant::now() + bounds::HALF_CLOSED),
                Ok(count) => {
                    self.unread += count;
                    if self.unread > bounds::UNASKED_BYTES {
                        return io::Error::other("too much after the request");
                    }
                }
                Err(error) => return error,
            }
        }
        if let Some(gone_at) = self.gone_at {
            sleep_until(gone_at).await;
        }
        io::ErrorKind::UnexpectedEof.into()
    }

    /// Ends a complete body, and the connection.
    async fn end(mut self) -> io::Result<()> {
        match self.framing {
            Framing::Close => self.connection.socket.reset_at_close(false),
            Framing::Chunked => Box::pin(self.write(&b"0\r\n\r\n"[..])).await?,
        }
        let connection = &mut self.connection;
        let last = async {
            connection.shutdown().await?;
            // Closing a socket with unread bytes resets the connection, and the client may lose the end.
            let unread = self.unread > 0 || matches!(connection.socket.tcp().try_read(&mut [0; 64]), Ok(1..));
            match unread {
                false => Ok(0),
                true => tokio::io::copy(&mut connection.take(bounds::LINGER_BYTES), &mut tokio::io::sink()).await,
            }
        };
        let _ = timeout(bounds::LINGER, last).await; // best effort: the client may be gone
        Ok(())
    }
}

thread_local! {
    /// The last chunk of this thread, and the bytes that send it: the streams of a wave send the same, one after the other. It
    /// keeps the frames of a block, also after the block left the feed, until this thread sends another chunk.
    static LAST: RefCell<(Bytes, Vec<u8>)> = RefCell::default();
}

/// Passes the bytes of a chunk to `write` (RFC 9112, section 7.1). That is faster than a vectored write of its parts.
fn as_chunk<T>(chunk: &Bytes, write: impl FnOnce(&[u8]) -> T) -> T {
    LAST.with_borrow_mut(|(last, framed)| {
        // No other bytes can be at this address while this thread keeps these.
        if (last.as_ptr(), last.len()) != (chunk.as_ptr(), chunk.len()) {
            *last = chunk.clone();
            framed.clear();
            let _ = write!(framed, "{:x}\r\n", chunk.len()); // a vector takes all
            framed.extend_from_slice(chunk);
            framed.extend_from_slice(b"\r\n");
        }
        write(framed)
    })
}

impl AsyncRead for Taken {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let taken = self.get_mut();
        if taken.received.is_empty() {
            let read = Pin::new(&mut taken.socket).poll_read(cx, buf);
            return taken.write_deadline.check_read(read, &taken.socket, &taken.application);
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
