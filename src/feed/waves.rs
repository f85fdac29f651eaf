//! How often the feed wakes its streams.
//!
//! A *wave* is one wake-up of all streams that wait: each reads what is new and writes it to its socket. What a wave
//! costs depends on the streams, the network and on what else the machine does, so the feed measures it: every stream
//! notes when it was woken, and the last of them tells how long the wave took. The next wave begins after
//! [`REST`] + 1 times that, so that waves take at most a fixed part of the machine, however many streams there are. On a
//! busy machine a wave takes longer, and the waves become fewer and larger by themselves.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Between two waves the machine has this many times the duration of a wave for other work: waves take at most a fifth
/// of its time.
const REST: u32 = 4;
/// The shortest time between two waves, also with few streams or none: at 100,000 records a second, one block per record
/// would cost more than the records.
const SHORTEST: Duration = Duration::from_micros(500);
/// The longest time between two waves.
const LONGEST: Duration = Duration::from_secs(1);
/// The estimate moves this part of the way to each measured wave, so that a single late stream changes little.
const SMOOTHING: u32 = 4;

/// What the streams report of the current wave.
pub(super) struct WaveClock {
    base: Instant,
    /// When the wave began, in nanoseconds after `base`.
    began: AtomicU64,
    /// Nanoseconds from then until a stream was woken, of the stream that was woken last.
    last_woken: AtomicU64,
}

impl WaveClock {
    pub fn new() -> Self {
        WaveClock { base: Instant::now(), began: AtomicU64::new(0), last_woken: AtomicU64::new(0) }
    }

    /// Notes that a wave has reached a stream.
    pub fn woken(&self) {
        let now = self.now();
        // The latest is the longest. Two at the same time may be stored in either order, which is no difference.
        self.last_woken.store(now.saturating_sub(self.began.load(Ordering::Relaxed)), Ordering::Relaxed);
    }

    /// Begins a wave. Returns how long the one before took; 0 if it reached no stream.
    fn begin(&self) -> Duration {
        let took = self.last_woken.swap(0, Ordering::Relaxed);
        self.began.store(self.now(), Ordering::Relaxed);
        Duration::from_nanos(took)
    }

    fn now(&self) -> u64 {
        self.base.elapsed().as_nanos() as u64
    }
}

/// Decides when the next wave begins.
#[derive(Default)]
pub(super) struct Waves {
    began: Option<Instant>,
    /// The estimated duration of a wave.
    duration: Duration,
}

impl Waves {
    /// The time between the beginnings of two waves.
    pub fn pace(&self) -> Duration {
        (self.duration * (REST + 1)).clamp(SHORTEST, LONGEST)
    }

    /// How long to wait for the next wave; zero if it may begin.
    pub fn wait(&self) -> Duration {
        self.began.map_or(Duration::ZERO, |began| self.pace().saturating_sub(began.elapsed()))
    }

    pub fn begin(&mut self, clock: &WaveClock) {
        self.note(clock.begin());
        self.began = Some(Instant::now());
    }

    fn note(&mut self, took: Duration) {
        self.duration = (self.duration * (SMOOTHING - 1) + took) / SMOOTHING;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waves_take_at_most_a_fifth_of_the_time() {
        let mut waves = Waves::default();
        (0..100).for_each(|_| waves.note(Duration::from_millis(10)));
        let pace = waves.pace().as_secs_f64();
        assert!((0.049..0.051).contains(&pace), "{pace}");
    }

    #[test]
    fn the_pace_has_bounds_and_one_late_stream_changes_it_little() {
        let mut waves = Waves::default();
        assert_eq!((waves.pace(), waves.wait()), (SHORTEST, Duration::ZERO));
        waves.note(Duration::from_millis(4));
        assert_eq!(waves.pace(), Duration::from_millis(5));
        (0..100).for_each(|_| waves.note(Duration::from_secs(10)));
        assert_eq!(waves.pace(), LONGEST);
        (0..100).for_each(|_| waves.note(Duration::ZERO));
        assert_eq!(waves.pace(), SHORTEST);
    }

    #[test]
    fn a_wave_lasts_until_its_last_stream_is_woken() {
        let (clock, mut waves) = (WaveClock::new(), Waves::default());
        waves.begin(&clock);
        clock.woken();
        std::thread::sleep(Duration::from_millis(20));
        clock.woken();
        waves.begin(&clock);
        assert!(waves.duration >= Duration::from_millis(20) / SMOOTHING, "{:?}", waves.duration);
        assert!(waves.wait() > Duration::ZERO);
        // Nobody was woken.
        let before = waves.duration;
        waves.begin(&clock);
        assert!(waves.duration < before);
    }
}
