//! How often the feed wakes its streams.
//!
//! A *wave* is one wake-up of all streams that wait: each reads what is new and writes it to its socket. What a wave
//! costs depends on the streams, the network and on what else the machine does, so the feed measures it: one in eight
//! streams notes when it was woken, and the last of them tells how long the wave took. The part of that which does not
//! depend on the bytes, for waking and for system calls, is saved by waking less often. It takes at most one part in
//! [`SHARE`] of the machine, however many streams there are. On a busy machine a wave takes longer, and the waves become
//! fewer and larger by themselves.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Waves begin at least this many times the fixed part of their duration apart.
const SHARE: u32 = 3;
/// Bytes to each stream that take as long as the fixed part of a wave: on two cores a write of 600 bytes took 8.8 µs of CPU
/// time and one of 6 KB 10.4 µs. With TLS fewer bytes take as long as the fixed part, so the pace is up to three times longer
/// than necessary. Without this part the pace would grow without end where the bytes alone take more than a third of the
/// machine.
const BYTES: f64 = 32.0 * 1024.0;
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
    /// Bytes that the current wave brings to each stream without a filter.
    bytes: usize,
    /// The estimated fixed part of a wave's duration.
    fixed: Duration,
}

impl Waves {
    /// The time between the beginnings of two waves.
    pub fn pace(&self) -> Duration {
        (self.fixed * SHARE).clamp(SHORTEST, LONGEST)
    }

    /// How long to wait for the next wave; zero if it may begin.
    pub fn wait(&self) -> Duration {
        self.began.map_or(Duration::ZERO, |began| self.pace().saturating_sub(began.elapsed()))
    }

    /// Begins a wave with this many bytes for each stream.
    pub fn begin(&mut self, clock: &WaveClock, bytes: usize) {
        self.note(clock.begin());
        (self.began, self.bytes) = (Some(Instant::now()), bytes);
    }

    /// Notes how long the last wave took.
    fn note(&mut self, took: Duration) {
        let fixed = took.div_f64(1.0 + self.bytes as f64 / BYTES);
        self.fixed = (self.fixed * (SMOOTHING - 1) + fixed) / SMOOTHING;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_fixed_part_takes_at_most_a_third_of_the_time() {
        let mut waves = Waves::default();
        (0..100).for_each(|_| waves.note(10 * MS));
        let pace = waves.pace().as_secs_f64();
        assert!((0.029..0.031).contains(&pace), "{pace}");
    }

    #[test]
    fn the_pace_has_bounds_and_one_late_stream_changes_it_little() {
        let mut waves = Waves::default();
        assert_eq!((waves.pace(), waves.wait()), (SHORTEST, Duration::ZERO));
        waves.note(4 * MS);
        assert_eq!(waves.pace(), 3 * MS);
        (0..100).for_each(|_| waves.note(10_000 * MS));
        assert_eq!(waves.pace(), LONGEST);
        (0..100).for_each(|_| waves.note(Duration::ZERO));
        assert_eq!(waves.pace(), SHORTEST);
    }

    /// 10 ms for the waves themselves, and as much for each 32 KiB of 2 MB a second.
    #[test]
    fn the_pace_does_not_grow_with_the_bytes() {
        let mut waves = Waves::default();
        for _ in 0..100 {
            waves.bytes = (waves.pace().as_secs_f64() * 2e6) as usize;
            waves.note((10 * MS).mul_f64(1.0 + waves.bytes as f64 / BYTES));
        }
        let pace = waves.pace().as_secs_f64();
        assert!((0.029..0.031).contains(&pace), "{pace}");
    }

    #[test]
    fn a_wave_lasts_until_its_last_stream_is_woken() {
        let (clock, mut waves) = (WaveClock::new(), Waves::default());
        waves.begin(&clock, 0);
        clock.woken();
        std::thread::sleep(20 * MS);
        clock.woken();
        waves.begin(&clock, 0);
        assert!(waves.fixed >= 20 * MS / SMOOTHING, "{:?}", waves.fixed);
        assert!(waves.wait() > Duration::ZERO);
        // Nobody was woken.
        let before = waves.fixed;
        waves.begin(&clock, 0);
        assert!(waves.fixed < before);
    }
}
