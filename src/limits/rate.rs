//! The rate limit: events a second for each address.

use std::num::NonZeroU32;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::bounds::{Address, RATED_ADDRESSES};

/// How often addresses with a full bucket are removed: it takes a look at all of them.
const CLEANED_EVERY: Duration = Duration::from_secs(1);

/// Events a second that an address may send.
pub struct RateLimit(Option<Limiter>);

struct Limiter {
    buckets: DefaultKeyedRateLimiter<Address>,
    cleaned: Mutex<Instant>,
}

impl RateLimit {
    /// 0 is no limit. A burst of one second's worth is allowed, and in any case of one full array of `batch` events.
    pub fn new(per_second: u32, batch: usize) -> Self {
        let quota = |n| Quota::per_second(n).allow_burst(n.max(NonZeroU32::new(batch as u32).unwrap_or(n)));
        RateLimit(
            NonZeroU32::new(per_second)
                .map(|n| Limiter { buckets: RateLimiter::keyed(quota(n)), cleaned: Mutex::new(Instant::now()) }),
        )
    }

    /// Takes so many events from an address's allowance. The error is the time in whole seconds after which the address
    /// may send them.
    pub fn check(&self, client: Address, events: usize) -> Result<(), u64> {
        let Some(limiter) = &self.0 else { return Ok(()) };
        let Some(events) = NonZeroU32::new(events as u32) else { return Ok(()) };
        match limiter.buckets.check_key_n(&client, events) {
            Ok(Ok(())) => {
                limiter.clean();
                Ok(())
            }
            Ok(Err(until)) => Err(until.wait_time_from(DefaultClock::default().now()).as_secs() + 1),
            Err(_) => Err(1), // more than the burst, which takes any array
        }
    }
}

impl Limiter {
    /// Removes addresses that have not sent for a while, so that the table does not grow without end.
    fn clean(&self) {
        if self.buckets.len() > RATED_ADDRESSES
            && let Ok(mut cleaned) = self.cleaned.try_lock()
            && cleaned.elapsed() > CLEANED_EVERY
        {
            self.buckets.retain_recent();
            *cleaned = Instant::now();
        }
    }
}
