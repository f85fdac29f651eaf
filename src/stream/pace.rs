//! Limits the rate of events for a client that asked for that.

use std::time::Duration;

use tokio::time::Instant;

/// How often a stream that is over its rate gets the newest events. Sent one by one they would be unreadable.
const SKIP_EVERY: Duration = Duration::from_millis(500);

/// A token bucket with the events of two seconds.
pub struct Pace {
    /// Events per second, at least 1.
    rate: usize,
    /// Events that may be sent now.
    pub allowance: usize,
    refilled: Instant,
}

impl Pace {
    pub fn new(rate: usize) -> Self {
        Pace { rate, allowance: 2 * rate, refilled: Instant::now() }
    }

    /// The most events that may be sent at once.
    pub fn burst(&self) -> usize {
        2 * self.rate
    }

    /// Refills the bucket. If it is still empty, returns how long to wait before the next read.
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
