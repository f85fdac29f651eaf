//! Serves one connection, from its first byte to its last.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rocket::http::Status;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::select;
use tokio::sync::watch;
use tokio::time::timeout;

use super::exchange::{self, Application};
use super::socket::Socket;
use super::state::{BusyConnection, ConnectionPhase, ConnectionState};
use super::transport::Transport;
use super::{ServerMetrics, ShutdownStage};
use crate::bounds;

/// Serves a connection until the client or the server ends it.
pub(super) async fn serve(
    socket: Socket,
    remote: SocketAddr,
    application: Arc<Application>,
    mut stage: watch::Receiver<ShutdownStage>,
) {
    let state = Arc::new(ConnectionState::default());
    let refuse = {
        let application = application.clone();
        Box::new(move |status| exchange::refuse(application.clone(), remote, status))
    };
    let transport = Transport::new(socket, state.clone(), application.keep_alive, refuse);
    let metrics = application.metrics.clone();
    let keep_alive = !application.keep_alive.is_zero();
    let service = service_fn({
        let state = state.clone();
        // `BusyConnection` marks the connection busy now, not at the first poll of the future.
        move |request| exchange::answer(application.clone(), BusyConnection::new(state.clone()), remote, request)
    });
    let keep_alive = *stage.borrow_and_update() == ShutdownStage::Serving && keep_alive;
    let mut connection = Builder::new()
        .keep_alive(keep_alive)
        .max_header_size(bounds::HEAD_BYTES)
        .max_buf_size(bounds::HEAD_BYTES)
        .header_read_timeout(None) // the transport has the deadlines
        .serve_connection(TokioIo::new(transport), service)
        .with_upgrades();
    let mut ended = false;
    while !ended {
        select! {
            biased;
            result = &mut connection => {
                ended = true;
                if let Err(error) = result {
                    tracing::debug!(error = %error, "connection ended with an error");
                }
            }
            _ = stage.changed() => match *stage.borrow_and_update() {
                ShutdownStage::Serving => {}
                ShutdownStage::Draining => Pin::new(&mut connection).graceful_shutdown(),
                ShutdownStage::Cutting if state.phase() == ConnectionPhase::Write => {}
                ShutdownStage::Cutting | ShutdownStage::Ended => return,
            },
        }
    }
    if let Some((upgrade, conversation)) = state.take_upgrade() {
        let Ok(io) = upgrade.await else { return };
        let conversation = conversation(TokioIo::new(io));
        select! {
            () = conversation => {}
            _ = stage.wait_for(|stage| *stage == ShutdownStage::Ended) => {}
        }
        return;
    }
    if let Some(parts) = connection.into_parts() {
        leave(parts.io.into_inner(), &state, &metrics).await;
    }
}

/// Ends a connection after hyper has finished with it. If the client's head timed out, sends 408 first.
async fn leave(mut transport: Transport, state: &ConnectionState, metrics: &ServerMetrics) {
    if transport.left_a_head_unfinished() {
        metrics.timeouts.get_or_create(&super::HEAD).inc();
        let answer = transport.refusing(Status::RequestTimeout).await;
        let socket = transport.socket();
        let last = async {
            socket.write_all(&answer).await?;
            socket.shutdown().await
        };
        let _ = timeout(bounds::LINGER, last).await; // best effort: the client may be gone
    } else if state.has_unread() {
        // Closing a socket with unread bytes resets the connection, and the client may lose the answer: read them first.
        let socket = transport.socket();
        let rest = async {
            socket.shutdown().await?;
            tokio::io::copy(&mut socket.take(bounds::LINGER_BYTES), &mut tokio::io::sink()).await
        };
        let _ = timeout(bounds::LINGER, rest).await; // best effort: the client may be gone
    }
}
