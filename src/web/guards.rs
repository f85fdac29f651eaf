//! What handlers ask for before they run.

use rocket::http::Status;
use rocket::request::{FromRequest, Outcome, Request};
use tokio::sync::watch;

use super::trace::Trace;
use crate::bounds::Address;
use crate::event::trace;
use crate::ingest::{Ack, Events, Submission};
use crate::kafka::State;

/// The state of the cluster, as it changes.
pub type KafkaState = watch::Receiver<State>;

/// The outcome of a guard that gathers parts of the application: they are absent only if it was put together wrongly.
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

/// The id of a request, for what is logged after its answer has begun.
pub struct RequestId(pub String);

#[rocket::async_trait]
impl<'r> FromRequest<'r> for RequestId {
    type Error = std::convert::Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Self::Error> {
        Outcome::Success(RequestId(Trace::of(request).id.clone()))
    }
}

/// Where the events of a request come from.
pub struct Origin<'r> {
    pub client: Address,
    /// The values of `traceparent` and `tracestate`, as far as they are well-formed.
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
        Submission { events, ack, idempotency_key, client: Some(self.client), trace: self.trace }
    }
}

/// The value of an `Idempotency-Key`: the draft writes it as a quoted string, most clients don't.
pub fn unquoted(key: &str) -> &str {
    key.trim().trim_matches('"')
}
