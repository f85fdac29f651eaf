//! The parameters of a request, for its handler.

use std::convert::Infallible;

use rocket::request::{FromRequest, Outcome, Request};

use super::parameters::BadParameter;
pub use super::parameters::Parameters;
use super::problem::{Kind, Problem};

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Parameters {
    type Error = Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Infallible> {
        Outcome::Success(Parameters::parse(request.uri().query().map_or("", |query| query.as_str())))
    }
}

impl From<BadParameter> for Problem {
    fn from(bad: BadParameter) -> Self {
        Problem::new(Kind::BadParameter, bad.to_string())
    }
}

pub fn bad(name: &str, detail: String) -> Problem {
    Problem::new(Kind::BadParameter, format!("`{name}`: {detail}"))
}
