//! The time zone in which a page shows times and reads those without a zone.

use std::fmt::Write;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone, TimeZoneDatabase};

use crate::event::time;

const SECOND: i64 = 1000;
const HOUR: i64 = 3600 * SECOND;
/// Most bytes of a zone's name. The longest of the IANA database has 32.
const MOST_BYTES: usize = 64;
/// Most hours between a fixed offset and UTC. No clock is further away.
const MOST_HOURS: i32 = 14;

/// A time zone: UTC, a fixed offset, or a zone of the IANA database.
#[derive(Debug, Clone, Default)]
pub struct Zone(Option<Arc<Rules>>);

/// A zone other than UTC.
#[derive(Debug)]
struct Rules {
    name: String,
    zone: TimeZone,
}

/// Which instant is meant by a time that the clock shows twice or, where it is set forward, not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// The earlier one: a range starts at it.
    Since,
    /// The later one: a range ends at it.
    Until,
}

impl Zone {
    /// Parses `UTC`, a name such as `Europe/Berlin`, or an offset such as `+05:30`.
    pub fn parse(text: &str) -> Option<Self> {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'_' | b'-' | b'+' | b':');
        if text.len() > MOST_BYTES || !text.bytes().all(known) {
            return None;
        }
        if text == "UTC" {
            return Some(Zone::default());
        }
        if text.starts_with(['+', '-']) {
            let zone = TimeZone::fixed(Offset::from_seconds(60 * minutes(text)?).ok()?);
            return Some(Zone(Some(Arc::new(Rules { name: text.to_owned(), zone }))));
        }
        let zone = zones().get(text).ok()?;
        let name = zone.iana_name()?.to_owned();
        Some(Zone(Some(Arc::new(Rules { name, zone }))))
    }

    /// Returns the name by which [`Zone::parse`] finds the zone.
    pub fn name(&self) -> &str {
        self.0.as_ref().map_or("UTC", |rules| &rules.name)
    }

    /// Returns the distance of the zone's clock from UTC at a time, both in milliseconds.
    pub fn offset_ms(&self, ms: i64) -> i64 {
        let offset = |rules: &Rules| Some(rules.zone.to_offset(Timestamp::from_millisecond(ms).ok()?));
        self.0.as_deref().and_then(offset).map_or(0, |offset| i64::from(offset.seconds()) * SECOND)
    }

    /// Returns the distance from UTC at the current time, for people: `UTC+1`.
    pub fn now(&self) -> String {
        label(self.offset_ms(time::now_ms()))
    }

    /// Reads a time without a zone, or with one as pages show it (`2026-11-23 12:00:00.120 UTC+1`), into milliseconds since
    /// 1970; `None` for any other text.
    pub fn read(&self, text: &str, bound: Bound) -> Option<i64> {
        let text = text.trim().replace('\u{a0}', " ");
        if let Some((text, offset)) = text.rsplit_once(" UTC") {
            return time::parse_local(text)?.checked_sub(label_ms(offset)?);
        }
        let local = time::parse_local(&text)?;
        let Some(rules) = &self.0 else { return Some(local) };
        let clock = Offset::UTC.to_datetime(Timestamp::from_millisecond(local).ok()?);
        let instant = rules.zone.to_ambiguous_timestamp(clock);
        let instant = match bound {
            Bound::Since => instant.earlier(),
            Bound::Until => instant.later(),
        };
        Some(instant.ok()?.as_millisecond())
    }
}

impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

/// Returns the zones of the IANA database. The binary contains them, so all replicas know the same.
fn zones() -> &'static TimeZoneDatabase {
    static ZONES: OnceLock<TimeZoneDatabase> = OnceLock::new();
    ZONES.get_or_init(TimeZoneDatabase::bundled)
}

/// Reads `+05:30`.
fn minutes(text: &str) -> Option<i32> {
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    let number = |text: &str| if text.len() == 2 { text.parse::<u8>().ok().map(i32::from) } else { None };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let all = hours * 60 + minutes;
    let sign = if text.starts_with('-') { -1 } else { 1 };
    (minutes < 60 && all <= MOST_HOURS * 60).then_some(sign * all)
}

/// Returns a distance from UTC for people: `UTC`, `UTC+1`, `UTC-4`, `UTC+5:45`.
pub fn label(offset_ms: i64) -> String {
    let mut text = "UTC".to_owned();
    if offset_ms == 0 {
        return text;
    }
    let (sign, length) = (if offset_ms < 0 { '-' } else { '+' }, offset_ms.abs());
    let (hours, minutes, seconds) = (length / HOUR, length / (60 * SECOND) % 60, length / SECOND % 60);
    // Writing into a String cannot fail.
    _ = write!(text, "{sign}{hours}");
    if (minutes, seconds) != (0, 0) {
        _ = write!(text, ":{minutes:02}");
    }
    if seconds != 0 {
        _ = write!(text, ":{seconds:02}");
    }
    text
}

/// Reads what follows `UTC` in a label.
fn label_ms(text: &str) -> Option<i64> {
    let mut parts = text.get(1..).unwrap_or_default().split(':').map(|part| part.parse::<u8>().ok());
    let mut next = || parts.next().unwrap_or(Some(0)).map(i64::from);
    let sign = match text.as_bytes().first() {
        None => return Some(0),
        Some(b'+') => 1,
        Some(b'-') => -1,
        Some(_) => return None,
    };
    let length = next()? * HOUR + next()? * 60 * SECOND + next()? * SECOND;
    Some(sign * length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> i64 {
        time::parse_ms(text).expect("a time")
    }

    fn zone(name: &str) -> Zone {
        Zone::parse(name).expect("a zone")
    }

    #[test]
    fn a_zone_has_a_name_or_an_offset() {
        for (text, name) in [
            ("UTC", "UTC"),
            ("Europe/Berlin", "Europe/Berlin"),
            ("asia/kathmandu", "Asia/Kathmandu"),
            ("+05:30", "+05:30"),
            ("-04:00", "-04:00"),
        ] {
            assert_eq!(zone(text).name(), name);
        }
        let long = "A".repeat(MOST_BYTES + 1);
        for text in ["", "Berlin", "../etc/passwd", "Europe/Berlin;x", "+5", "+15:00", "+01:60", "<b>", "é", &long] {
            assert_eq!(Zone::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_distance_from_utc_follows_the_season() {
        let labels = |name: &str| {
            ["2026-01-15T12:00:00Z", "2026-07-15T12:00:00Z"].map(|time| label(zone(name).offset_ms(ms(time))))
        };
        assert_eq!(labels("Europe/Berlin"), ["UTC+1", "UTC+2"]);
        assert_eq!(labels("America/New_York"), ["UTC-5", "UTC-4"]);
        assert_eq!(labels("Asia/Kathmandu"), ["UTC+5:45", "UTC+5:45"]);
        assert_eq!(labels("Europe/London"), ["UTC", "UTC+1"]);
        assert_eq!(zone("Europe/Berlin").offset_ms(i64::MAX), 0);
    }

    #[test]
    fn a_time_that_comes_twice_or_never_makes_a_range_longer() {
        let berlin = zone("Europe/Berlin");
        let read = |text: &str| [Bound::Since, Bound::Until].map(|bound| berlin.read(text, bound).expect("a time"));
        assert_eq!(read("2026-07-15T12:00:00"), [ms("2026-07-15T10:00:00Z"); 2]);
        // Clocks are set back from 3 to 2, so 02:30 is first UTC+2, then UTC+1.
        assert_eq!(read("2026-10-25 02:30"), [ms("2026-10-25T00:30:00Z"), ms("2026-10-25T01:30:00Z")]);
        // Clocks are set forward from 2 to 3, so there is no 02:30: it is 01:30 UTC+1, or 03:30 UTC+2.
        assert_eq!(read("2026-03-29 02:30"), [ms("2026-03-29T00:30:00Z"), ms("2026-03-29T01:30:00Z")]);
    }

    #[test]
    fn a_time_with_the_zone_that_a_page_shows_is_read_in_that_zone() {
        let berlin = zone("Europe/Berlin");
        let noon = Some(ms("2026-11-23T12:00:00.120Z"));
        for text in [
            "2026-11-23\u{a0}13:00:00.120",
            "2026-11-23 12:00:00.120 UTC",
            "2026-11-23 07:00:00.120 UTC-5",
            "2026-11-23 17:45:00.120 UTC+5:45",
        ] {
            assert_eq!(berlin.read(text, Bound::Since), noon, "{text}");
        }
        for text in ["2026-11-23T12:00:00Z", "-15m", "1795435200000", "2026-11-23", "x UTC+1", "2026-11-23 12:00 UTCx"]
        {
            assert_eq!(berlin.read(text, Bound::Since), None, "{text}");
        }
    }
}
