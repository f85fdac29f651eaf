//! Cross-origin resource sharing (WHATWG Fetch, section 3.3): pages of listed origins may send events and read the
//! answers to them.
//!
//! `access.rs` decides before any handler whether a page may send a request at all. This module writes that decision into
//! the answers, so that the browser passes them to the page.

use rocket::fairing::{Fairing, Info, Kind};
use rocket::http::{Header, Method};
use rocket::{Request, Response};

use super::access::Sharing;

/// The request headers that a page may send: those that routes for events read, without the headers of a CloudEvent
/// (`ce-…`), which [`allow`] adds.
const ALLOWED: &str =
    "Authorization, Content-Encoding, Content-Type, Idempotency-Key, Prefer, X-Request-Id, traceparent, tracestate";

/// The headers of an answer that a page may read, beside those that it may always read.
const EXPOSED: &str =
    "Accept, Accept-Encoding, Allow, Idempotent-Replayed, Location, Preference-Applied, Retry-After, X-Request-Id";

/// How many seconds a browser may remember the answer to a preflight. Each request is checked again, so that an origin
/// that is no longer listed is refused at once. No browser remembers it for longer than a day, and Chromium for two hours.
const MAX_AGE: &str = "7200";

/// Most headers of CloudEvents that the answer to a preflight repeats.
const CLOUDEVENT_HEADERS: usize = 100;

/// Adds the headers of CORS to answers.
pub struct Cors;

#[rocket::async_trait]
impl Fairing for Cors {
    fn info(&self) -> Info {
        Info { name: "Cross-origin resource sharing", kind: Kind::Response | Kind::Singleton }
    }

    async fn on_response<'r>(&self, request: &'r Request<'_>, response: &mut Response<'r>) {
        let sharing = Sharing::of(request);
        if *sharing == Sharing::Closed {
            return;
        }
        // A cache must not give the answer for one origin to another one.
        let varies = match response.headers().get_one("Vary") {
            Some(others) => format!("{others}, Origin"),
            None => "Origin".to_owned(),
        };
        response.set_header(Header::new("Vary", varies));
        let Sharing::With(origin) = sharing else { return };
        response.set_header(Header::new("Access-Control-Allow-Origin", origin.as_str()));
        response.set_header(Header::new("Access-Control-Expose-Headers", EXPOSED));
        if request.method() == Method::Options && request.headers().contains("Access-Control-Request-Method") {
            allow(request, response);
        }
    }
}

/// Answers a preflight. The browser compares the answer with the request that it wants to send.
fn allow(request: &Request, response: &mut Response) {
    let names = request.headers().get("Access-Control-Request-Headers").flat_map(|names| names.split(','));
    let is_attribute = |name: &&str| {
        let rest = name.strip_prefix("ce-").unwrap_or_default();
        !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    let attributes = names.map(str::trim).filter(is_attribute).take(CLOUDEVENT_HEADERS);
    let allowed = std::iter::once(ALLOWED).chain(attributes).collect::<Vec<_>>().join(", ");
    response.set_header(Header::new("Access-Control-Allow-Methods", "POST"));
    response.set_header(Header::new("Access-Control-Allow-Headers", allowed));
    response.set_header(Header::new("Access-Control-Max-Age", MAX_AGE));
    // A site of the internet may send to a Footfall in a private network: the operator has listed it (WICG draft Private
    // Network Access, section 3.1.2).
    if request.headers().get_one("Access-Control-Request-Private-Network") == Some("true") {
        response.set_header(Header::new("Access-Control-Allow-Private-Network", "true"));
    }
}
