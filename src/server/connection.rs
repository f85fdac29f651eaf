//! Serves one connection, from its first byte to its last or until a stream takes it over.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use hyper::server::conn::http1::{Builder, Parts};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rocket::http::Status;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::select;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::exchange::{self, Application};
use super::socket::Socket;
use super::state::{BusyConnection, ConnectionPhase, ConnectionState};
use super::takeover::{Taken, Takeover};
use super::transport::Transport;
use super::{ServerMetrics, ShutdownStage};
use crate::bounds;

/// Serves a connection until the client or the server ends it, or until a response takes it over.
pub(super) async fn serve(
    socket: Socket,
    remote: SocketAddr,
    application: Arc<Application>,
    mut stage: watch::Receiver<ShutdownStage>,
) -> Option<Takeover> {
    let state = Arc::new(ConnectionState::default());
    let refuse = {
        let application = application.clone();
        Box::new(move |status| exchange::refuse(application.clone(), remote, status))
    };
    let transport = Transport::new(socket, state.clone(), application.clone(), refuse);
    let head_bytes = application.limits.head;
    let keep_alive = !application.limits.deadlines.idle.is_zero();
    let service = service_fn({
        let (application, state) = (application.clone(), state.clone());
        // `BusyConnection` marks the connection busy now, not at the first poll of the future.
        move |request| {
            let busy = BusyConnection::new(state.clone());
            Box::pin(exchange::answer(application.clone(), busy, remote, request))
        }
    });
    let is_serving = *stage.borrow_and_update() == ShutdownStage::Serving;
    let keep_alive = is_serving && keep_alive;
    // At shutdown, a connection without a request waits for one for a while: it may have been sent already. hyper would close
    // the connection.
    let last_request = || Some(Box::pin(sleep(bounds::LAST_HEAD)));
    let mut awaited = if is_serving { None } else { last_request() };
    let mut connection = Builder::new()
        .keep_alive(keep_alive)
        .max_header_size(head_bytes)
        .max_buf_size(head_bytes)
        .header_read_timeout(None) // the transport has the deadlines
        .serve_connection(TokioIo::new(transport), service);
    let mut cut = false;
    loop {
        // hyper's last step only flushes (see `Transport`): the socket may be taken over, or `leave` closes it.
        let served = poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
            Poll::Pending if state.is_handed_over() => Poll::Ready(Ok(())),
            served => served,
        });
        select! {
            biased;
            served = served => {
                if let Err(error) = served {
                    tracing::debug!(error = %error, "connection ended with an error");
                }
                break;
            }
            _ = stage.changed() => match *stage.borrow_and_update() {
                ShutdownStage::Serving => {}
                ShutdownStage::Draining if state.phase() == ConnectionPhase::Head => {
                    state.end();
                    awaited = last_request();
                }
                // To be taken over; hyper would end it without the bytes that a full socket has not taken yet.
                ShutdownStage::Draining if state.is_offered() => {}
                ShutdownStage::Draining => Pin::new(&mut connection).graceful_shutdown(),
                ShutdownStage::Cutting if state.phase() == ConnectionPhase::Write => {}
                ShutdownStage::Cutting | ShutdownStage::Ended => {
                    cut = true;
                    break;
                }
            },
            () = async { if let Some(timer) = &mut awaited { timer.await } }, if awaited.is_some() => {
                awaited = None;
                if !state.is_offered() {
                    Pin::new(&mut connection).graceful_shutdown();
                }
            }
        }
    }
    let Parts { io, read_buf, .. } = connection.into_parts();
    let transport = io.into_inner();
    match state.take_next() {
        Some(next) if state.is_handed_over() => {
            let taken = Taken::new(transport.into_socket(), read_buf, application);
            Some(Takeover { taken, next, stage })
        }
        _ => {
            if state.must_reset() {
                transport.socket().reset_at_close(true);
            } else if !cut {
                leave(transport, &state, read_buf, &application.metrics).await;
            }
            None
        }
    }
}

/// Ends a connection after hyper has finished with it. If the client's head timed out, sends 408 first.
async fn leave(mut transport: Transport, state: &ConnectionState, read: Bytes, metrics: &ServerMetrics) {
    if transport.left_a_head_unfinished() {
        metrics.timeouts.get_or_create(&super::HEAD).inc();
        let answer = transport.refusing(Status::RequestTimeout).await;
        let socket = transport.socket_mut();
        let last = async {
            socket.write_all(&answer).await?;
            socket.shutdown().await
        };
        let _ = timeout(bounds::LINGER, last).await; // best effort: the client may be gone
        return;
    }
    if transport.was_idle() {
        metrics.timeouts.get_or_create(&super::IDLE).inc();
    }
    let socket = transport.socket_mut();
    let last = async {
        socket.shutdown().await?;
        match state.has_unread() || !read.is_empty() {
            // Closing a socket with unread bytes resets the connection, and the client may lose the answer: read them
            // first.
            true => tokio::io::copy(&mut socket.take(bounds::LINGER_BYTES), &mut tokio::io::sink()).await,
            false => Ok(0),
        }
    };
    let _ = timeout(bounds::LINGER, last).await; // best effort: the client may be gone
}
