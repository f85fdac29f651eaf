//! Who may post: our own pages and programs, not other sites' pages; and how much.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use rocket::http::Status;
use rocket::request::{FromRequest, Outcome, Request};

use super::App;
use super::problem::{Kind, Problem};

/// A request that no other site's page has caused.
///
/// `Sec-Fetch-Site` decides where the browser sends it (Fetch Metadata), else `Origin` against `Host`. A program sends
/// neither and passes.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    cross_site: bool,
    has_cookie: bool,
}

impl Origin {
    /// For what a browser sends along with a form.
    pub fn check(self) -> Result<(), Problem> {
        if self.cross_site {
            return Err(Problem::new(Kind::CrossSite, "this was sent by a page of another site"));
        }
        Ok(())
    }

    /// For programs' calls: only a browser's cookie makes the other site's page act for its user.
    pub fn check_if_cookie(self) -> Result<(), Problem> {
        if self.has_cookie { self.check() } else { Ok(()) }
    }
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Origin {
    type Error = std::convert::Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Self::Error> {
        let headers = request.headers();
        let cross_site = match (headers.get_one("Sec-Fetch-Site"), headers.get_one("Origin")) {
            (Some(site), _) => !matches!(site, "same-origin" | "none"),
            (None, Some(origin)) => {
                let host = headers.get_one("Host").unwrap_or_default();
                origin.split_once("://").is_none_or(|(_, authority)| !authority.eq_ignore_ascii_case(host))
            }
            (None, None) => false,
        };
        Outcome::Success(Origin { cross_site, has_cookie: headers.contains("Cookie") })
    }
}

/// Events a second that an address may send.
pub struct RateLimit(Option<DefaultKeyedRateLimiter<IpAddr>>);

impl RateLimit {
    /// 0 is no limit. A burst of one second's worth is allowed, and in any case of one full array.
    pub fn new(per_second: u32, batch: usize) -> Self {
        let quota = |n| Quota::per_second(n).allow_burst(n.max(NonZeroU32::new(batch as u32).unwrap_or(n)));
        RateLimit(NonZeroU32::new(per_second).map(|n| RateLimiter::keyed(quota(n))))
    }

    /// Counts events of an address.
    pub fn check(&self, client: Option<IpAddr>, events: usize) -> Result<(), Problem> {
        let (Some(limiter), Some(client)) = (&self.0, client) else { return Ok(()) };
        let Some(events) = NonZeroU32::new(events as u32) else { return Ok(()) };
        let wait = match limiter.check_key_n(&client, events) {
            Ok(Ok(())) => {
                // Addresses that came once must not be kept for ever.
                if limiter.len() > 10_000 {
                    limiter.retain_recent();
                }
                return Ok(());
            }
            Ok(Err(until)) => until.wait_time_from(DefaultClock::default().now()).as_secs() + 1,
            Err(too_many) => {
                let detail = format!("{events} events at once; {} a second are allowed", too_many.0);
                return Err(Problem::new(Kind::TooManyRequests, detail));
            }
        };
        let problem = Problem::new(Kind::TooManyRequests, "this address sends more events than are allowed");
        Err(problem.header("Retry-After", wait.to_string()))
    }
}

/// What the handlers share, as a guard: absent only if the application was put together wrongly.
pub struct Shared(pub Arc<App>);

impl std::ops::Deref for Shared {
    type Target = App;

    fn deref(&self) -> &App {
        &self.0
    }
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Shared {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        match request.rocket().state::<Arc<App>>() {
            Some(app) => Outcome::Success(Shared(app.clone())),
            None => Outcome::Error((Status::InternalServerError, ())),
        }
    }
}
