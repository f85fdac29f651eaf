//! 405 with `Allow` where a path is right and the method is not: Rocket itself would answer 404.

use rocket::http::{Header, Method, Status};
use rocket::route::{Handler, Outcome, Route};
use rocket::{Data, Request, Response};

use super::problem::{Kind, Problem};

/// Behind every other route.
pub const RANK: isize = 100;

const PATHS: &[(&str, &str)] = &[
    ("/", "GET, HEAD"),
    ("/history", "GET, HEAD"),
    ("/history/search", "GET"),
    ("/overview", "GET, HEAD"),
    ("/stream/overview", "GET"),
    ("/api/v1/stats", "GET, HEAD"),
    ("/users/<_>", "GET, HEAD"),
    ("/users/<_>/count", "GET"),
    ("/api/v1/users/<_>", "GET, HEAD"),
    ("/kafka", "GET, HEAD"),
    ("/events", "POST"),
    ("/events/<_>/<_>", "GET, HEAD"),
    ("/stream", "GET"),
    ("/api/v1/events", "GET, HEAD, POST"),
    ("/api/v1/events/<_>/<_>", "GET, HEAD"),
    ("/api/v1/events.ndjson", "GET"),
    ("/api/v1/events.csv", "GET"),
    ("/api/v1/stream", "GET"),
    ("/api/v1/ws", "GET"),
    ("/api/v1/topics", "GET, HEAD"),
    ("/api/v1/groups", "GET, HEAD"),
    ("/send-message", "POST"),
    ("/livez", "GET, HEAD"),
    ("/readyz", "GET, HEAD"),
    ("/metrics", "GET, HEAD"),
    ("/api/openapi.json", "GET, HEAD"),
    ("/static/<_..>", "GET, HEAD"),
];

#[derive(Clone)]
struct NotAllowed(&'static str);

#[rocket::async_trait]
impl Handler for NotAllowed {
    async fn handle<'r>(&self, request: &'r Request<'_>, data: Data<'r>) -> Outcome<'r> {
        if request.method() == Method::Options {
            let answer = Response::build().status(Status::NoContent).header(Header::new("Allow", self.0)).finalize();
            return Outcome::Success(answer);
        }
        let problem =
            Problem::new(Kind::MethodNotAllowed, format!("this route takes {}", self.0)).header("Allow", self.0);
        drop(data);
        Outcome::from(request, problem)
    }
}

pub fn not_allowed() -> Vec<Route> {
    use Method::{Delete, Get, Options, Patch, Post, Put, Trace};
    let methods = [Get, Put, Post, Delete, Patch, Options, Trace];
    let routes = PATHS.iter().flat_map(|(path, allow)| {
        let others = methods.iter().filter(|method| !allow.contains(method.as_str()));
        others.map(|method| Route::ranked(RANK, *method, path, NotAllowed(allow)))
    });
    routes.collect()
}
