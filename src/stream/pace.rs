//! How many events a client gets that asked for no more than a rate.

use std::time::Duration;

use tokio::time::Instant;

/// How often a stream that gets less than there is gets the newest: row by row they would be as unreadable as all.
const SKIP_EVERY: Duration = Duration::from_millis(500);

/// A token bucket of two seconds' worth of events.
pub struct Pace {
    /// Events a second, at least 1.
    rate: usize,
    /// Events that the client may get now.
    pub allowance: usize,
    refilled: Instant,
}

impl Pace {
    pub fn new(rate: usize) -> Self {
        Pace { rate, allowance: 2 * rate, refilled: Instant::now() }
    }

    /// Events that the client may get at once.
    pub fn burst(&self) -> usize {
        2 * self.rate
    }

    /// Refills the bucket. If it is empty all the same, returns how long to wait before anything is read for the client.
    pub fn wait(&mut self) -> Option<Duration> {
        let earned = (self.refilled.elapsed().as_secs_f64() * self.rate as f64) as usize;
        if earned > 0 {
            self.allowance = (self.allowance + earned).min(self.burst());
            self.refilled = Instant::now();
        }
        let enough = (SKIP_EVERY.as_secs_f64() * self.rate as f64).ceil();
        (self.allowance == 0).then(|| Duration::from_secs_f64(enough / self.rate as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_bucket_waits_for_half_a_second_of_events_and_for_at_least_one() {
        for (rate, wait) in [(50, 0.5), (3, 2.0 / 3.0), (1, 1.0)] {
            let mut pace = Pace::new(rate);
            assert_eq!((pace.allowance, pace.wait()), (2 * rate, None));
            pace.allowance = 0;
            pace.refilled = Instant::now();
            assert_eq!(pace.wait(), Some(Duration::from_secs_f64(wait)), "{rate} events a second");
        }
    }

    #[test]
    fn a_bucket_holds_no_more_than_two_seconds_of_events() {
        let mut pace = Pace::new(10);
        pace.allowance = 0;
        pace.refilled = Instant::now() - Duration::from_secs(60);
        assert_eq!((pace.wait(), pace.allowance), (None, pace.burst()));
    }
}
