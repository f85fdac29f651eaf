//! Times in the formats of the API: RFC 3339, UTC, milliseconds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Returns the current time in milliseconds since 1970.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// Parses an RFC 3339 date-time into milliseconds since 1970; finer digits are cut off.
pub fn parse_ms(text: &str) -> Option<i64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).ok()
}

/// Parses a date and a time of day without a zone, as if they were UTC: `2026-11-23T12:00:00.123`, with a blank instead of the
/// `T`, and without seconds.
pub fn parse_local(text: &str) -> Option<i64> {
    let seconds = if text.len() == "2026-11-23T12:00".len() { ":00" } else { "" };
    parse_ms(&format!("{}{seconds}Z", text.replacen(' ', "T", 1)))
}

/// Parses a duration such as `15m`, as in the configuration and in `since=-15m`. The units are `ms`, `s`, `m` and `h`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let number: f64 = text[..digits].parse().ok()?;
    let seconds = match text[digits..].trim() {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * seconds).ok()
}

/// Formats a time as `2026-11-23T12:00:00.123Z`. Times before year 0 or after 9999, which RFC 3339 cannot represent,
/// become the nearest.
pub fn format_ms(ms: i64) -> String {
    const EARLIEST: i64 = -62_167_219_200_000;
    const LATEST: i64 = 253_402_300_799_999;
    let ms = ms.clamp(EARLIEST, LATEST);
    let Ok(t) = OffsetDateTime::from_unix_timestamp(ms.div_euclid(1000)) else {
        return String::new(); // unreachable: the time is within the bounds of the type
    };
    // The time crate's formatting takes ten times as long, and every event has a time.
    let mut text = *b"0000-00-00T00:00:00.000Z";
    let parts = [
        (0, 4, t.year() as u32),
        (5, 2, u32::from(u8::from(t.month()))),
        (8, 2, u32::from(t.day())),
        (11, 2, u32::from(t.hour())),
        (14, 2, u32::from(t.minute())),
        (17, 2, u32::from(t.second())),
        (20, 3, ms.rem_euclid(1000) as u32),
    ];
    for (start, digits, mut number) in parts {
        for digit in text[start..start + digits].iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_in_any_zone_and_written_in_utc() {
        let ms = parse_ms("2026-11-23T13:00:00.1239+01:00").expect("a time");
        assert_eq!(format_ms(ms), "2026-11-23T12:00:00.123Z");
        assert_eq!(parse_ms("2026-11-23"), None);
        assert_eq!(parse_ms("yesterday"), None);
    }

    #[test]
    fn a_time_out_of_range_is_written_as_the_nearest() {
        assert_eq!(format_ms(i64::MAX), "9999-12-31T23:59:59.999Z");
        assert_eq!(format_ms(i64::MIN), "0000-01-01T00:00:00.000Z");
        assert_eq!(format_ms(-1), "1969-12-31T23:59:59.999Z");
    }
}
