//! The parameters of a request, for handlers.

use std::ops::Deref;

use footfall_core::query_string::{BadParameter, QueryString};
use rocket::http::Status;
use rocket::request::{FromRequest, Outcome, Request};

use super::problem::{Kind, Problem};

/// The request's query string, parsed.
#[derive(Clone)]
pub struct Parameters(QueryString);

impl Deref for Parameters {
    type Target = QueryString;

    fn deref(&self) -> &QueryString {
        &self.0
    }
}

impl Parameters {
    /// Returns the parameters of a request; `None` if they cannot be read.
    pub fn of(request: &Request<'_>) -> Option<Self> {
        of(request).ok().map(Parameters)
    }

    /// Returns the parameters without one value of a name.
    pub fn without(&self, name: &str, value: &str) -> Self {
        Parameters(self.0.without(name, value))
    }
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Parameters {
    type Error = BadParameter;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, BadParameter> {
        match of(request) {
            Ok(query) => Outcome::Success(Parameters(query)),
            Err(bad) => Outcome::Error((Status::BadRequest, bad)), // `access` has rejected it already
        }
    }
}

/// Returns the parameters of a request, parsed once: `access` reads them before the handler does.
pub fn of(request: &Request<'_>) -> Result<QueryString, BadParameter> {
    request.local_cache(|| QueryString::parse(request.uri().query().map_or("", |query| query.as_str()))).clone()
}

impl From<BadParameter> for Problem {
    fn from(bad: BadParameter) -> Self {
        Problem::new(Kind::BadParameter, bad.to_string())
    }
}

pub fn bad(name: &str, detail: String) -> Problem {
    Problem::new(Kind::BadParameter, format!("{name} {detail}"))
}
