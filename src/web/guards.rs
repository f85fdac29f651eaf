//! Guards that several handlers use.

use rocket::http::Status;
use rocket::request::{FromRequest, Outcome, Request};
use tokio::sync::watch;

use super::trace::Trace;
use crate::bounds::Address;
use crate::event::trace;
use crate::ingest::{Ack, Events, Handling, Submission};
use crate::kafka::ClusterState;

/// The state of the cluster, and its changes.
pub type KafkaState = watch::Receiver<ClusterState>;

/// Returns the outcome of a guard that collects parts of the application. They are missing only if `app.rs` forgot one.
pub fn part<T>(part: Option<T>) -> Outcome<T, ()> {
    match part {
        Some(part) => Outcome::Success(part),
        None => Outcome::Error((Status::InternalServerError, ())),
    }
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Address {
    type Error = std::convert::Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Self::Error> {
        Outcome::Success(Address::new(request.client_ip()))
    }
}

/// The id of a request, for log lines after the response has started.
pub struct RequestId(pub String);

#[rocket::async_trait]
impl<'r> FromRequest<'r> for RequestId {
    type Error = std::convert::Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Self::Error> {
        Outcome::Success(RequestId(Trace::of(request).id.clone()))
    }
}

/// The origin of a request's events.
pub struct Origin<'r> {
    pub client: Address,
    /// The values of `traceparent` and `tracestate`, if they are well-formed.
    pub trace: [Option<&'r str>; 2],
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Origin<'r> {
    type Error = std::convert::Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Self::Error> {
        let header = |name| request.headers().get_one(name);
        let trace = trace::context(header(trace::PARENT), header(trace::STATE));
        Outcome::Success(Origin { client: Address::new(request.client_ip()), trace })
    }
}

impl<'r> Origin<'r> {
    pub fn submission(&self, events: Events, ack: Ack, idempotency_key: Option<&'r str>) -> Submission<'r> {
        let (handling, client) = (Handling::Lenient, Some(self.client));
        Submission { events, ack, handling, idempotency_key, client, trace: self.trace }
    }
}

/// Returns the value of an `Idempotency-Key`. The draft makes it a quoted string, but most clients do not quote it.
pub fn unquoted(key: &str) -> &str {
    key.trim().trim_matches('"')
}
