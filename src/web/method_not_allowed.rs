//! 405 with `Allow` where a path is right and the method is not: Rocket itself would answer 404.

use rocket::http::{Header, Method, Status};
use rocket::route::{Handler, Outcome, Route};
use rocket::{Data, Request, Response};

use super::problem::{Kind, Problem};

/// Lower than the rank of every other route.
pub const RANK: isize = 100;

/// The value of `Allow`.
#[derive(Clone)]
struct NotAllowed(String);

#[rocket::async_trait]
impl Handler for NotAllowed {
    async fn handle<'r>(&self, request: &'r Request<'_>, data: Data<'r>) -> Outcome<'r> {
        if request.method() == Method::Options {
            let allow = Header::new("Allow", self.0.clone());
            return Outcome::Success(Response::build().status(Status::NoContent).header(allow).finalize());
        }
        let problem = Problem::new(Kind::MethodNotAllowed, format!("this route takes {}", self.0));
        drop(data);
        Outcome::from(request, problem.header("Allow", self.0.as_str()))
    }
}

/// Returns the routes that answer 405, and `OPTIONS`, on a path that allows the methods in `allow`.
pub fn not_allowed(path: &str, allow: &[&str]) -> Vec<Route> {
    use Method::{Connect, Delete, Get, Options, Patch, Post, Put, Trace};
    // For a method that Rocket does not know, the server dispatches CONNECT.
    let methods = [Get, Put, Post, Delete, Patch, Options, Trace, Connect];
    let others = methods.into_iter().filter(|method| !allow.contains(&method.as_str()));
    others.map(|method| Route::ranked(RANK, method, path, NotAllowed(allow.join(", ")))).collect()
}
