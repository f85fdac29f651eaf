//! The process from start to end: serve, drain, flush, exit.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;

use rocket::local::asynchronous::Client;
use rocket::{Build, Rocket};
use tokio::select;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ingest::Ingest;
use crate::kafka::{Cluster, Connection, Producer, Sampler, Tail, Uncommitted};
use crate::server::{self, Listener, Server, Tls};
use crate::{bounds, web};

/// The parts that outlive requests.
pub struct Parts {
    pub(crate) producer: Arc<Producer>,
    pub(crate) ingest: Arc<Ingest>,
    pub(crate) requests: TaskTracker,
    pub(crate) closing: CancellationToken,
    /// Whether other processes may listen on the same port.
    pub(crate) reuse_port: bool,
    /// How much a connection and a request may use.
    pub(crate) limits: server::Limits,
    pub(crate) connections: server::ServerMetrics,
    /// Encrypts the connections.
    pub(crate) tls: Option<Tls>,
    pub(crate) _behind: Uncommitted,
    pub(crate) _tail: Tail,
    pub(crate) _sampler: Sampler,
    pub(crate) _cluster: Cluster,
    /// Keeps the embedded broker until all accepted events are delivered; dropped last.
    pub(crate) connection: Connection,
}

/// Why the server did not start, or did not end in order.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// One line: the Debug output of Rocket's error would print the configuration with its secrets.
    #[error("{0}")]
    Rocket(String),
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("some accepted events were not delivered to Kafka in time")]
    Undelivered,
    #[error("events are not accepted: {0}")]
    NotReady(String),
}

impl Parts {
    /// Accepts events from a caller in this process.
    pub fn ingest(&self) -> Arc<Ingest> {
        self.ingest.clone()
    }

    /// Returns the addresses at which Kafka clients reach the broker, also the embedded one.
    pub fn servers(&self) -> &str {
        self.connection.addresses()
    }

    /// Serves until `stop` resolves, on the address of Rocket's configuration, or on an `inherited` socket. `announce` gets the
    /// address, such as `http://127.0.0.1:8000`, once events are accepted. Then, within
    /// `ingest.deadline` and 3 s: answers the connections that the kernel has queued, ends the streams with a
    /// `bye`, answers the requests in flight, and delivers the accepted events to Kafka.
    pub async fn serve(
        self,
        rocket: Rocket<Build>,
        inherited: Option<TcpListener>,
        announce: Option<impl FnOnce(&str)>,
        stop: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        let failed = |error: rocket::Error| ServeError::Rocket(error.to_string());
        let rocket = rocket.ignite().await.map_err(failed)?;
        let address = SocketAddr::new(rocket.config().address, rocket.config().port);
        let unusable = |source| ServeError::Listen { address, source };
        let stalled = self.limits.deadlines.write;
        let listener = match inherited {
            Some(socket) => Listener::inherit(socket, stalled),
            None => Listener::bind(address, self.reuse_port, stalled),
        };
        let listener = listener.map_err(unusable)?;
        let client = Client::untracked(rocket).await.map_err(failed)?;
        let (mut stop, mut stopped) = (pin!(stop), false);
        if listener.is_shared() || announce.is_some() {
            select! {
                () = &mut stop => stopped = true,
                () = self.accepts_events() => {}
            }
            if !stopped
                && announce.is_some()
                && let Some(why) = self.ingest.unavailable()
            {
                return Err(ServeError::NotReady(why));
            }
        }
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let (address, socket) = (format!("{scheme}://{}", listener.address()), listener.origin());
        if let Some(warning) = self.tls.as_ref().and_then(Tls::warning) {
            tracing::warn!("{warning}");
        }
        let answers = server::Answers {
            client,
            limits: self.limits.clone(),
            too_many: web::too_many_connections,
            tls: self.tls.clone(),
            speaks_https: web::speaks_https,
        };
        let server = listener.serve(answers, self.connections.clone()).map_err(unusable)?;
        tracing::info!(address, socket, "listening");
        if !stopped {
            if let Some(announce) = announce {
                announce(&address);
            }
            stop.await;
        }
        self.end(server).await
    }

    /// Waits until posts are accepted, at most [`bounds::READY`]: until then, another process that listens on the same
    /// address may accept them, or nobody knows the address.
    async fn accepts_events(&self) {
        let ready = async {
            while self.ingest.unavailable().is_some() {
                sleep(bounds::LOOK_AGAIN).await;
            }
        };
        let _ = timeout(bounds::READY, ready).await; // then this process answers why it cannot
    }

    async fn end(self, server: Server) -> Result<(), ServeError> {
        tracing::info!("shutting down");
        let (now, deadline) = (Instant::now(), self.ingest.settings().deadline);
        let (answered_by, end) = (now + deadline + bounds::ANSWERED, now + deadline + bounds::END);
        self.ingest.announce_end();
        self.closing.cancel();
        self.requests.close();
        self.answer_the_last(server, answered_by).await;
        // Accepted events are delivered. Closing the clients, and the end of the process, may take as long again.
        let (producer, flush_by) = (self.producer.clone(), end - 2 * bounds::CLOSE);
        let within = flush_by.saturating_duration_since(Instant::now());
        let flushed = tokio::task::spawn_blocking(move || producer.flush(within)).await;
        let (ended, closed) = oneshot::channel();
        let close = move || {
            drop(self);
            let _ = ended.send(()); // fails if the waiter has given up
        };
        if std::thread::Builder::new().name("end".into()).spawn(close).is_ok() {
            let _ = timeout(bounds::CLOSE, closed).await; // nothing is lost if it takes longer
        }
        match flushed {
            Ok(true) => Ok(()),
            _ => Err(ServeError::Undelivered),
        }
    }

    /// Ends the server. Posts that are on their way are accepted for [`bounds::LAST_HEAD`].
    async fn answer_the_last(&self, server: Server, answered_by: Instant) {
        let answered = async {
            sleep(bounds::LAST_HEAD).await;
            self.ingest.close();
            if timeout_at(answered_by, self.requests.wait()).await.is_err() {
                tracing::warn!(requests = self.requests.len(), "requests did not end in time");
            }
        };
        server.end(bounds::DRAIN, answered).await;
        self.ingest.close(); // also if all connections have ended before
    }
}
