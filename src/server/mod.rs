//! The HTTP/1.1 server. It owns all sockets: it accepts connections, reads requests with hyper, applies deadlines and size
//! limits, and dispatches each request to the Rocket application through Rocket's local client. Routes, guards, catchers
//! and fairings remain Rocket's.
//!
//! The server reads a request's body before it dispatches the request; a handler gets the body from [`take_body`]. It
//! dispatches a request that it must refuse too, as a [`refusal`], so that the answer has the same headers, log line and
//! metrics as every other. A handler passes on a stream with [`body::stream`], and a connection after a 101 with
//! [`body::upgrade`]; both take the connection over from hyper, see [`takeover`].

pub mod body;
mod connection;
mod deadline;
mod exchange;
mod listener;
mod request;
mod socket;
mod state;
mod takeover;
mod tls;
mod transport;

pub use listener::{Listener, inherited_socket};
pub use request::{LATE_BODY, Refusal, Unread, method, method_label, refusal, take_body};
pub use tls::{ClientAuthorities, Tls, TlsFiles};

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use rocket::local::asynchronous::Client;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::select;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;

use crate::bounds::{self, Address, Busy, Shares};
use exchange::Application;
use listener::{Origin, Queue};
use socket::Socket;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ShutdownStage {
    Serving,
    /// Responses in flight are sent, and a request that is on its way is answered, as the last of its connection.
    Draining,
    /// Requests that end with their client are cut; the others (POST) are still answered.
    Cutting,
    Ended,
}

/// Metrics of connections; those of requests belong to the application.
#[derive(Debug, Clone)]
pub struct ServerMetrics {
    /// Open connections.
    pub open: Gauge,
    /// Connections refused at once, by the limit that was reached: `address` or `total`.
    pub refused: Family<[(&'static str, &'static str); 1], Counter>,
    /// Connections and requests that a deadline ended, by the part for which it is: `handshake` (of TLS), `head` and `body`
    /// of a request, `idle` (no further request), `write` (an answer that the client does not read).
    pub timeouts: Family<[(&'static str, &'static str); 1], Counter>,
    /// When the certificate of TLS expires, in seconds since 1970.
    pub certificate_expiry: Option<Gauge>,
}

const ADDRESS: [(&str, &str); 1] = [("reason", "address")];
const TOTAL: [(&str, &str); 1] = [("reason", "total")];
const HANDSHAKE: [(&str, &str); 1] = [("part", "handshake")];
const HEAD: [(&str, &str); 1] = [("part", "head")];
const BODY: [(&str, &str); 1] = [("part", "body")];
const IDLE: [(&str, &str); 1] = [("part", "idle")];
const WRITE: [(&str, &str); 1] = [("part", "write")];

impl Default for ServerMetrics {
    /// Creates all series of counters, at 0.
    fn default() -> Self {
        let metrics = ServerMetrics {
            open: Gauge::default(),
            refused: Family::default(),
            timeouts: Family::default(),
            certificate_expiry: None,
        };
        [ADDRESS, TOTAL].iter().for_each(|label| drop(metrics.refused.get_or_create(label)));
        [HANDSHAKE, HEAD, BODY, IDLE, WRITE].iter().for_each(|label| drop(metrics.timeouts.get_or_create(label)));
        metrics
    }
}

/// How much a connection and a request may use.
#[derive(Debug, Clone)]
pub struct Limits {
    pub deadlines: Deadlines,
    /// Most bytes of a request's head.
    pub head: usize,
    /// Most bytes of a request's body.
    pub body: usize,
    /// How many bytes of a body extend its deadline by a second.
    pub body_rate: u64,
    /// Most open connections.
    pub connections: usize,
    /// How many of them one address may have.
    pub connections_each: usize,
}

/// How long the steps of a connection may take.
#[derive(Debug, Clone)]
pub struct Deadlines {
    /// From the first to the last byte of a head, and from connecting to the first byte.
    pub head: Duration,
    /// For a body of no bytes; see [`Limits::body_rate`].
    pub body: Duration,
    /// From an answer to the first byte of the next request. Zero closes the connection after each request.
    pub idle: Duration,
    /// From when a write has to wait for the client until the client accepts bytes.
    pub write: Duration,
}

/// The application, as the server needs it to answer.
pub struct Answers {
    pub client: Client,
    pub limits: Limits,
    /// Makes the response, head and body, for a connection beyond the limit.
    pub too_many: fn() -> Vec<u8>,
    /// Encrypts the connections.
    pub tls: Option<Tls>,
    /// Makes the response, head and body, to plain HTTP where TLS is expected.
    pub speaks_https: fn() -> Vec<u8>,
}

impl Listener {
    /// Listens, accepts connections, and answers their requests until [`Server::end`].
    pub fn serve(self, answers: Answers, metrics: ServerMetrics) -> io::Result<Server> {
        let Answers { client, limits, too_many, tls, speaks_https } = answers;
        let places = Shares::new(limits.connections, limits.connections_each);
        let application = Arc::new(Application { client, limits, metrics, too_many, speaks_https });
        let (stage, stages) = watch::channel(ShutdownStage::Serving);
        let connections = TaskTracker::new();
        if let Some(tls) = tls.clone() {
            tokio::spawn(tls.follow(stages.clone()));
        }
        let accepting = Accepting { application, tls, places, connections: connections.clone(), stage: stages };
        let origin = self.origin;
        let accepting = connections.spawn(accepting.run(self.listen()?, origin));
        Ok(Server { stage, connections, accepting })
    }
}

/// A running server.
pub struct Server {
    stage: watch::Sender<ShutdownStage>,
    connections: TaskTracker,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Accepts the connections that the kernel has queued, unless another process will (see `listener.rs`), and sends the
    /// responses in flight. After `patience` it closes connections whose request ends with its client; after `answered` has
    /// resolved and [`bounds::LAST_BYTES`] have passed, all others.
    pub async fn end(self, patience: Duration, answered: impl Future<Output = ()>) {
        self.stage.send_replace(ShutdownStage::Draining);
        self.connections.close();
        let cut = async {
            tokio::time::sleep(patience).await;
            self.stage.send_replace(ShutdownStage::Cutting);
            std::future::pending::<()>().await;
        };
        let all = async {
            let _ = tokio::join!(self.accepting, answered); // a panic in accepting was logged
            let _ = tokio::time::timeout(bounds::LAST_BYTES, self.connections.wait()).await;
        };
        select! {
            () = self.connections.wait() => {}
            () = all => {}
            () = cut => {}
        }
        if !self.connections.is_empty() {
            tracing::warn!(connections = self.connections.len(), "connections did not end in time");
        }
        self.stage.send_replace(ShutdownStage::Ended);
        // All end now, except a stream that waits for events.
        let _ = tokio::time::timeout(bounds::CUT, self.connections.wait()).await;
    }
}

struct Accepting {
    application: Arc<Application>,
    tls: Option<Tls>,
    places: Shares,
    connections: TaskTracker,
    stage: watch::Receiver<ShutdownStage>,
}

impl Accepting {
    async fn run(mut self, listener: TcpListener, origin: Origin) {
        loop {
            select! {
                biased;
                _ = self.stage.changed() => break,
                accepted = listener.accept() => match accepted {
                    Ok((socket, remote)) => self.take(socket, remote),
                    Err(error) => self.failed(&error).await,
                }
            }
        }
        let last = match origin {
            Origin::Inherited => return, // the next process accepts what is queued
            Origin::Opened => bounds::LAST_ACCEPTS,
            Origin::PortShared => bounds::LAST_ACCEPTS_STEERED,
        };
        match Queue::new(listener) {
            Ok(queue) => self.take_queued(&queue, origin, last).await,
            Err(error) => tracing::warn!(error = %error, "cannot accept the last connections"),
        }
    }

    /// Takes the connections that are queued or complete their handshake within `last`.
    async fn take_queued(&self, queue: &Queue, origin: Origin, last: Duration) {
        let until = Instant::now() + last;
        if origin == Origin::PortShared {
            queue.steer_away().await.into_iter().for_each(|(socket, remote)| self.take_std(socket, remote));
        }
        loop {
            match queue.next() {
                Ok(Some((socket, remote))) => {
                    self.take_std(socket, remote);
                    // Clients that connect without end do not keep the process alive.
                    if Instant::now() >= until + bounds::LAST_ACCEPTS {
                        return;
                    }
                    yield_now().await;
                }
                Ok(None) if Instant::now() >= until => return,
                Ok(None) => sleep(bounds::ACCEPT_LAST).await,
                Err(error) => {
                    self.failed(&error).await;
                    if Instant::now() >= until {
                        return;
                    }
                }
            }
        }
    }

    async fn failed(&self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
        if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
            // Out of file descriptors or memory.
            tracing::warn!(error = %error, "cannot accept connections");
            sleep(bounds::ACCEPT_AGAIN).await;
        }
    }

    fn take_std(&self, socket: std::net::TcpStream, remote: SocketAddr) {
        let socket = socket.set_nonblocking(true).and_then(|()| TcpStream::from_std(socket));
        match socket {
            Ok(socket) => self.take(socket, remote),
            Err(error) => tracing::warn!(error = %error, "cannot take a connection"),
        }
    }

    fn take(&self, socket: TcpStream, remote: SocketAddr) {
        let place = match self.places.try_acquire(Address::new(Some(remote.ip()))) {
            Ok(place) => place,
            Err(busy) => {
                tracing::debug!(client.ip = %remote.ip(), reason = %busy, "connection refused");
                let label = if busy == Busy::Total { &TOTAL } else { &ADDRESS };
                self.application.metrics.refused.get_or_create(label).inc();
                if self.tls.is_none() {
                    // Best effort: the response fits into an empty send buffer, or is not worth waiting for.
                    let _ = socket.try_write(&(self.application.too_many)());
                }
                let _ = SockRef::from(&socket).shutdown(std::net::Shutdown::Write);
                return;
            }
        };
        let _ = socket.set_nodelay(true); // a failure only costs latency
        let (application, stage, tls) = (self.application.clone(), self.stage.clone(), self.tls.clone());
        let open = Open::new(&application.metrics.open);
        let connections = self.connections.clone();
        self.connections.spawn(async move {
            let counted = (place, open);
            let socket = match tls {
                None => Some(Socket::Plain(socket)),
                // In a box, so that it takes memory only until it has ended.
                Some(tls) => Box::pin(tls.accept(socket, remote, &application, stage.clone())).await,
            };
            let Some(socket) = socket else { return };
            if let Some(takeover) = connection::serve(socket, remote, application, stage).await {
                // A task of its own, because this one keeps the memory that it needed for hyper.
                connections.spawn(async move {
                    takeover.run().await;
                    drop(counted);
                });
            }
        });
    }
}

/// Counts a connection as open until it is dropped.
struct Open(Gauge);

impl Open {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Open(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
