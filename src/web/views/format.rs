//! Times, sizes and texts as people read them.

use time::{Date, Month};

use super::zone::{Zone, label};
use crate::event::time as event_time;

/// A time, for a page, in the page's zone.
pub struct Stamp {
    /// `2026-11-23T12:04:31.120Z`
    pub iso: String,
    /// The same with the clock of the zone: `2026-11-23T13:04:31.120Z`. `None` if that is UTC.
    local: Option<String>,
    offset_ms: i64,
}

impl Stamp {
    pub fn new(ms: i64, zone: &Zone) -> Self {
        let offset_ms = zone.offset_ms(ms);
        let local = (offset_ms != 0).then(|| event_time::format_ms(ms.saturating_add(offset_ms)));
        Stamp { iso: event_time::format_ms(ms), local, offset_ms }
    }

    /// `2026-11-23 12:04:31.120 UTC`
    pub fn exact(&self) -> String {
        format!("{} {} {}", self.date(), self.part(11..23), self.zone())
    }

    /// The distance from UTC: `UTC+1`
    pub fn zone(&self) -> String {
        label(self.offset_ms)
    }

    /// `2026-11-23`
    pub fn date(&self) -> &str {
        self.part(0..10)
    }

    /// `12:04:31`
    pub fn clock(&self) -> &str {
        self.part(11..19)
    }

    /// `12:04:31.120`
    pub fn to_millisecond(&self) -> &str {
        self.part(11..23)
    }

    /// `2026-11-23 12:04:31`
    pub fn to_second(&self) -> String {
        format!("{} {}", self.date(), self.clock())
    }

    /// As an input of date and time has it: `2026-11-23T12:04:31`
    pub fn input(&self) -> &str {
        self.part(0..19)
    }

    /// `Mon 23 Nov`
    pub fn day(&self) -> String {
        let number = |range| self.part(range).parse::<i32>().unwrap_or_default();
        let (year, month, day) = (number(0..4), number(5..7), number(8..10));
        let known = Month::try_from(month as u8).and_then(|month| Date::from_calendar_date(year, month, day as u8));
        let short = |name: String| name.chars().take(3).collect::<String>();
        match known {
            Ok(date) => format!("{} {day} {}", short(date.weekday().to_string()), short(date.month().to_string())),
            Err(_) => self.date().to_owned(),
        }
    }

    fn part(&self, range: std::ops::Range<usize>) -> &str {
        self.local.as_ref().unwrap_or(&self.iso).get(range).unwrap_or_default()
    }
}

/// Returns a time for an address, the same in every zone: `2026-11-23T12:04:31Z`.
pub fn explicit(ms: i64) -> String {
    event_time::format_ms(ms).replace(".000Z", "Z")
}

/// Returns at most `chars` characters, with invisible ones made visible.
pub fn cut(text: &str, chars: usize) -> String {
    let mut rest = text.chars();
    let mut short: String = rest.by_ref().take(chars).map(visible).collect();
    if rest.next().is_some() {
        short.push('…');
    }
    short
}

fn visible(c: char) -> char {
    match c {
        '\t' | '\n' | '\r' | '\u{2028}' | '\u{2029}' => ' ',
        '\0'..='\x1f' => char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{fffd}'),
        '\x7f' => '\u{2421}',
        // C1 controls, and those that change the direction of text: a name must not read backwards.
        '\u{80}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        _ => c,
    }
}

/// Whether a text is readable. UTF-8 that is mostly control characters counts as binary.
pub fn is_text(text: &str) -> bool {
    let head = text.chars().take(1000);
    let (mut all, mut control) = (0, 0);
    for c in head {
        all += 1;
        control += u32::from(c.is_control() && !c.is_ascii_whitespace());
    }
    control * 10 <= all
}

/// An error's text as a sentence: `Kafka is unreachable.`
pub fn sentence(text: &str) -> String {
    let mut rest = text.chars();
    let stop = if text.ends_with(['.', '!', '?', '…']) { "" } else { "." };
    rest.next().map_or_else(String::new, |first| format!("{}{}{stop}", first.to_uppercase(), rest.as_str()))
}

/// `812 B`, `31 kB`, `1.4 MB`.
pub fn size(bytes: usize) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{} kB", bytes / 1_000),
        _ => format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000),
    }
}

/// `0.04/s`, `2.5/s`, `2,140/s`.
pub fn rate(per_second: f64) -> String {
    match per_second {
        n if n > 0.0 && n < 0.005 => "under 0.01/s".to_owned(),
        n if n > 0.0 && n < 0.1 => format!("{n:.2}/s"),
        n if n > 0.0 && n < 10.0 => format!("{n:.1}/s"),
        n => format!("{}/s", thousands(n.round() as u64)),
    }
}

/// The average rate of a count over a time, in the unit that makes it readable: `2.5/s`, `5.1/min`, `3/h`, `0.2/d`.
pub fn rate_over(count: u64, ms: u64) -> String {
    let per = |unit_ms: u64| count as f64 * unit_ms as f64 / ms.max(1) as f64;
    let (value, unit) = match () {
        () if per(1_000) >= 1.0 => (per(1_000), "s"),
        () if per(60_000) >= 1.0 => (per(60_000), "min"),
        () if per(3_600_000) >= 1.0 => (per(3_600_000), "h"),
        () => (per(86_400_000), "d"),
    };
    if value < 10.0 { format!("{value:.1}/{unit}") } else { format!("{}/{unit}", thousands(value.round() as u64)) }
}

/// `350 ms`, `12 s`, `3 min`, `5 h`, `40 d`.
pub fn duration(ms: u64) -> String {
    match (ms, ms / 1000) {
        (1..1_000, _) => format!("{ms} ms"),
        (_, s @ 0..120) => format!("{s} s"),
        (_, s @ 120..7_200) => format!("{} min", s / 60),
        (_, s @ 7_200..172_800) => format!("{} h", s / 3_600),
        (_, s) => format!("{} d", thousands(s / 86_400)),
    }
}

/// The time from one moment to the next: `+9 ms`, `+1.1 s`, `−3 min`.
pub fn step(ms: i64) -> String {
    let (sign, size) = (if ms < 0 { '−' } else { '+' }, ms.unsigned_abs());
    match size {
        1_000..60_000 if size % 1_000 >= 100 => format!("{sign}{}.{} s", size / 1_000, size % 1_000 / 100),
        0 => format!("{sign}0 ms"),
        _ => format!("{sign}{}", duration(size)),
    }
}

/// `1 event`, `1,204 events`.
pub fn count_of(number: u64, one: &str) -> String {
    format!("{} {one}{}", thousands(number), if number == 1 { "" } else { "s" })
}

/// `1,204`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_a_name() {
        assert_eq!(Stamp::new(1_795_435_200_000, &Zone::default()).day(), "Mon 23 Nov");
    }

    #[test]
    fn a_time_is_that_of_its_zone() {
        let zone = Zone::parse("Pacific/Auckland").expect("a zone");
        let stamp = Stamp::new(1_795_435_200_120, &zone);
        assert_eq!(stamp.iso, "2026-11-23T12:00:00.120Z");
        assert_eq!(stamp.exact(), "2026-11-24 01:00:00.120 UTC+13");
        assert_eq!((stamp.input(), stamp.day().as_str()), ("2026-11-24T01:00:00", "Tue 24 Nov"));
    }

    #[test]
    fn a_rate_has_a_unit_that_makes_it_readable() {
        let rates = [(484, 5_700_000), (20, 10_000), (2, 3_600_000), (1, 86_400_000)].map(|(n, ms)| rate_over(n, ms));
        assert_eq!(rates, ["5.1/min", "2.0/s", "2.0/h", "1.0/d"]);
    }

    #[test]
    fn a_step_has_a_sign_and_a_unit() {
        let steps = [9, 1_120, -1_120, 19_000, 2_460_000, 0].map(step);
        assert_eq!(steps, ["+9 ms", "+1.1 s", "−1.1 s", "+19 s", "+41 min", "+0 ms"]);
    }

    #[test]
    fn thousands_are_separated() {
        assert_eq!([thousands(7), thousands(1_204), thousands(1_000_000)], ["7", "1,204", "1,000,000"]);
    }
}
