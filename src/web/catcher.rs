//! Answers requests that no handler answered.

use rocket::http::Status;
use rocket::{Request, catch};

use super::access::{self, RouteKind};
use super::problem::{Kind, Problem};

#[catch(default)]
pub fn catch(status: Status, request: &Request) -> Problem {
    // Nothing is at the path, or the route forwarded the request.
    if let Err(problem) = access::check(request, RouteKind::of(request)) {
        return problem;
    }
    let path = request.uri().path();
    match status.code {
        404 if path.starts_with("/api/") => Problem::new(Kind::NotFound, format!("no route at {path}")),
        404 => Problem::new(Kind::NotFound, format!("no page at {path}")),
        405 => Problem::new(Kind::MethodNotAllowed, "this route does not support that method"),
        408 => Problem::new(Kind::RequestTimeout, "the request did not arrive in time"),
        413 => Problem::new(Kind::TooLarge, "the request is too large"),
        415 => Problem::new(Kind::UnsupportedType, "this route does not support that content type"),
        422 => Problem::new(Kind::BadParameter, "a parameter is malformed"),
        503 => Problem::new(Kind::Unavailable, "shutting down"),
        400..500 => Problem::new(Kind::BadRequest, "the request is malformed"),
        _ => Problem::new(Kind::Internal, "an unexpected error; look for the request id in the log"),
    }
}
