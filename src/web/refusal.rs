//! Answers to requests that the server rejects before routing. The application makes these answers, so that they have
//! the usual headers, log line and metrics.

use std::time::SystemTime;

use rocket::http::{Header, Method, Status};
use rocket::route::{Handler, Outcome, Route};
use rocket::{Data, Request, Response};

use super::headers::HEADERS;
use super::problem::{Kind, Problem};
use crate::event::EventId;
use crate::server::{self, Refusal};

/// The methods of all routes, for a request without a path.
const ALLOW: &str = "GET, HEAD, POST";

#[derive(Clone)]
struct Refused;

#[rocket::async_trait]
impl Handler for Refused {
    async fn handle<'r>(&self, request: &'r Request<'_>, data: Data<'r>) -> Outcome<'r> {
        match server::refusal(request) {
            None => Outcome::forward(data, Status::NotFound),
            Some(Refusal { status: 204, .. }) => {
                let answer = Response::build().status(Status::NoContent).header(Header::new("Allow", ALLOW)).finalize();
                Outcome::Success(answer)
            }
            Some(refusal) => Outcome::from(request, problem(refusal)),
        }
    }
}

fn problem(refusal: &Refusal) -> Problem {
    let kind = match refusal.status {
        405 => Kind::MethodNotAllowed,
        408 => Kind::RequestTimeout,
        413 => Kind::TooLarge,
        414 => Kind::UriTooLong,
        431 => Kind::HeadersTooLarge,
        _ => Kind::BadRequest,
    };
    let problem = Problem::new(kind, refusal.detail.clone());
    if kind == Kind::MethodNotAllowed { problem.header("Allow", ALLOW) } else { problem }
}

/// Returns the answer to a connection beyond the limit, head and body.
pub fn too_many_connections() -> Vec<u8> {
    last_answer("503 Service Unavailable\r\nRetry-After: 1", Kind::Unavailable, "too many connections are open")
}

/// Returns the answer to plain HTTP on a port that expects TLS, head and body.
pub fn speaks_https() -> Vec<u8> {
    last_answer("400 Bad Request", Kind::BadRequest, "this port speaks HTTPS")
}

/// Makes an answer after which the connection is closed. It must cost little, so it bypasses the application.
fn last_answer(status: &str, kind: Kind, detail: &'static str) -> Vec<u8> {
    let id = EventId::new();
    let problem = Problem::new(kind, detail);
    // Cannot fail: a problem has text for keys, and no number that JSON lacks.
    let body = serde_json::to_vec(&problem.body(Some(id.as_str()))).unwrap_or_default();
    let mut out = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nDate: {}\r\nX-Request-Id: {id}\r\n\
         Content-Type: application/problem+json\r\nContent-Length: {}\r\n",
        httpdate::fmt_http_date(SystemTime::now()),
        body.len()
    );
    HEADERS.iter().for_each(|(name, value)| out += &format!("{name}: {value}\r\n"));
    out += "\r\n";
    let mut out = out.into_bytes();
    out.extend_from_slice(&body);
    out
}

/// The routes of refused requests, which the server dispatches as CONNECT; they come before every other route.
pub fn routes() -> Vec<Route> {
    vec![Route::ranked(isize::MIN, Method::Connect, "/<_..>", Refused)]
}
