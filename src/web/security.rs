//! Headers that keep a browser from doing what the page never asks for.

use rocket::http::Header;
use rocket::shield::{Frame, NoSniff, Policy, Referrer, Shield};

/// Everything from here, nothing inline, no frames around us.
#[derive(Default)]
pub struct ContentSecurityPolicy;

impl Policy for ContentSecurityPolicy {
    const NAME: &'static str = "Content-Security-Policy";

    fn header(&self) -> Header<'static> {
        Header::new(
            Self::NAME,
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
             form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        )
    }
}

pub fn shield() -> Shield {
    Shield::new().enable(NoSniff::Enable).enable(Frame::Deny).enable(Referrer::SameOrigin).enable(ContentSecurityPolicy)
}
