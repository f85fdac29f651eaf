//! The process from start to end: serve, drain, flush, exit.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rocket::local::asynchronous::Client;
use rocket::{Build, Rocket};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ingest::Ingest;
use crate::kafka::{Cluster, Connection, Producer, Tail, Uncommitted};
use crate::server::{self, Listener};
use crate::{bounds, web};

/// How long accepted events may take to be delivered after the last request.
const FLUSH: Duration = Duration::from_secs(5);

/// How long the Kafka clients may take to close: closing waits for a broker that does not answer.
const CLOSE: Duration = Duration::from_secs(1);

/// The parts that outlive requests.
pub struct Parts {
    pub(crate) producer: Arc<Producer>,
    pub(crate) ingest: Arc<Ingest>,
    pub(crate) requests: TaskTracker,
    pub(crate) closing: CancellationToken,
    /// How much a connection and a request may use.
    pub(crate) limits: server::Limits,
    pub(crate) connections: server::ServerMetrics,
    pub(crate) _behind: Uncommitted,
    pub(crate) _tail: Tail,
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
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("some accepted events were not delivered to Kafka in time")]
    Undelivered,
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

    /// Serves until `stop` resolves. Then, in bounded time: refuses new connections and new posts, ends the streams with a
    /// `bye`, answers the requests in flight, and delivers the accepted events to Kafka.
    pub async fn serve(self, rocket: Rocket<Build>, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
        let failed = |error: rocket::Error| ServeError::Rocket(error.to_string());
        let rocket = rocket.ignite().await.map_err(failed)?;
        let address = SocketAddr::new(rocket.config().address, rocket.config().port);
        let listener = Listener::bind(address, self.limits.deadlines.write).await;
        let listener = listener.map_err(|source| ServeError::Listen { address, source })?;
        let client = Client::untracked(rocket).await.map_err(failed)?;
        tracing::info!(address = format!("http://{}", listener.address()), "listening");
        let answers = server::Answers { client, limits: self.limits.clone(), too_many: web::too_many_connections };
        let server = listener.serve(answers, self.connections.clone());
        stop.await;
        tracing::info!("shutting down");
        self.ingest.close();
        self.closing.cancel();
        self.requests.close();
        let within = self.ingest.settings().deadline + bounds::DRAIN;
        let answered = async {
            if tokio::time::timeout(within, self.requests.wait()).await.is_err() {
                tracing::warn!(requests = self.requests.len(), "requests did not end in time");
            }
        };
        server.end(bounds::DRAIN, answered).await;
        // Accepted events are delivered.
        let producer = self.producer.clone();
        let flushed = tokio::task::spawn_blocking(move || producer.flush(FLUSH)).await;
        let (ended, end) = oneshot::channel();
        let close = move || {
            drop(self);
            let _ = ended.send(()); // fails if the waiter has given up
        };
        if std::thread::Builder::new().name("end".into()).spawn(close).is_ok() {
            let _ = tokio::time::timeout(CLOSE, end).await; // nothing is lost if it takes longer
        }
        match flushed {
            Ok(true) => Ok(()),
            _ => Err(ServeError::Undelivered),
        }
    }
}
