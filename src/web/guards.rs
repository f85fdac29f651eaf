//! Who may post: our own pages and programs, not other sites' pages; and how much.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

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

/// Addresses that are kept whether they come again or not.
const ADDRESSES: usize = 10_000;
/// How often those that came once are forgotten: it takes a look at all of them.
const CLEANED_EVERY: Duration = Duration::from_secs(1);

/// Events a second that an address may send.
pub struct RateLimit(Option<Limiter>);

struct Limiter {
    buckets: DefaultKeyedRateLimiter<IpAddr>,
    cleaned: Mutex<Instant>,
}

impl RateLimit {
    /// 0 is no limit. A burst of one second's worth is allowed, and in any case of one full array.
    pub fn new(per_second: u32, batch: usize) -> Self {
        let quota = |n| Quota::per_second(n).allow_burst(n.max(NonZeroU32::new(batch as u32).unwrap_or(n)));
        RateLimit(
            NonZeroU32::new(per_second)
                .map(|n| Limiter { buckets: RateLimiter::keyed(quota(n)), cleaned: Mutex::new(Instant::now()) }),
        )
    }

    /// Counts events of an address.
    pub fn check(&self, client: Option<IpAddr>, events: usize) -> Result<(), Problem> {
        let (Some(limiter), Some(client)) = (&self.0, client) else { return Ok(()) };
        let Some(events) = NonZeroU32::new(events as u32) else { return Ok(()) };
        let wait = match limiter.buckets.check_key_n(&network(client), events) {
            Ok(Ok(())) => {
                limiter.clean();
                return Ok(());
            }
            Ok(Err(until)) => until.wait_time_from(DefaultClock::default().now()).as_secs() + 1,
            Err(_) => 1, // more than the burst, which takes any array
        };
        let problem = Problem::new(Kind::TooManyRequests, "this address sends more events than are allowed");
        Err(problem.header("Retry-After", wait.to_string()))
    }
}

impl Limiter {
    /// Addresses that came once must not be kept for ever.
    fn clean(&self) {
        if self.buckets.len() > ADDRESSES
            && let Ok(mut cleaned) = self.cleaned.try_lock()
            && cleaned.elapsed() > CLEANED_EVERY
        {
            self.buckets.retain_recent();
            *cleaned = Instant::now();
        }
    }
}

/// What counts as one address: of IPv6 the network, since every client has all addresses of one.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_with_a_network_of_addresses_is_one() {
        let limit = RateLimit::new(1, 1);
        let first = |address: &str| limit.check(address.parse().ok(), 1).is_ok();
        assert!(first("2001:db8:0:1::1") && !first("2001:db8:0:1:ffff::2"));
        assert!(first("2001:db8:0:2::1"));
        assert!(first("192.0.2.1") && !first("::ffff:192.0.2.1") && first("192.0.2.2"));
    }
}
