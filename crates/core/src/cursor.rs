use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// A position in the topic, the next offset of every partition: `<partition>-<offset>` for each partition in turn from 0 on,
/// joined by dots.
///
/// It needs no server state and means the same on every replica. A partition that a cursor does not name was added later
/// and starts at 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "schema", schema(
    value_type = String,
    pattern = r"^0-(0|[1-9][0-9]{0,17})(\.[1-9][0-9]{0,3}-(0|[1-9][0-9]{0,17}))*$",
    examples("0-812.1-790.2-455"),
))]
pub struct Cursor(Vec<i64>);

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("must be a cursor, the next offset of every partition, such as 0-812.1-790.2-455, not \"{0}\"")]
pub struct BadCursor(String);

/// The offset of a partition whose end is unknown, because it has had no leader since this process started. A stream
/// that starts there begins at the partition's end once it is known.
pub const UNKNOWN: i64 = i64::MAX;

/// Most partitions in one cursor. A cursor comes from outside, and Kafka's own advice stays below this.
const MAX_PARTITIONS: usize = 10_000;

impl Cursor {
    pub fn new(positions: impl Into<Vec<i64>>) -> Self {
        Cursor(positions.into())
    }

    /// Returns the next offset of every partition.
    pub fn positions(&self) -> &[i64] {
        &self.0
    }

    pub fn get(&self, partition: i32) -> i64 {
        usize::try_from(partition).ok().and_then(|index| self.0.get(index)).copied().unwrap_or(0)
    }

    /// Sets the next offset of a partition.
    pub fn set(&mut self, partition: i32, next: i64) {
        if let Ok(index) = usize::try_from(partition) {
            self.grow(index + 1);
            self.0[index] = next;
        }
    }

    pub fn partitions(&self) -> usize {
        self.0.len()
    }

    pub fn grow(&mut self, partitions: usize) {
        if self.0.len() < partitions {
            self.0.resize(partitions, 0);
        }
    }

    /// Whether every partition is at least as far as in `other`, so that nothing before `other` is missing.
    pub fn covers(&self, other: &Cursor) -> bool {
        (0..self.0.len().max(other.0.len()) as i32).all(|partition| self.get(partition) >= other.get(partition))
    }

    /// Returns the farther offset of each partition.
    pub fn max(&self, other: &Cursor) -> Cursor {
        let partitions = self.0.len().max(other.0.len()) as i32;
        Cursor((0..partitions).map(|partition| self.get(partition).max(other.get(partition))).collect())
    }

    /// Returns the number of offsets between this cursor and one that is farther.
    pub fn distance(&self, farther: &Cursor) -> u64 {
        let apart = |p| u64::try_from(farther.get(p).saturating_sub(self.get(p))).unwrap_or(0);
        (0..farther.0.len() as i32).map(apart).fold(0, u64::saturating_add)
    }

    /// Appends the cursor as text.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut digits = itoa::Buffer::new();
        for (partition, next) in self.0.iter().enumerate() {
            if partition > 0 {
                out.push(b'.');
            }
            out.extend_from_slice(digits.format(partition).as_bytes());
            out.push(b'-');
            out.extend_from_slice(digits.format(next.unsigned_abs()).as_bytes());
        }
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(self.0.len() * 12);
        self.write(&mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

impl FromStr for Cursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let bad = || BadCursor(text.chars().take(80).collect());
        let number = |digits: &str| {
            let plain = digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
            plain.then(|| digits.parse::<i64>().ok()).flatten()
        };
        let mut positions = Vec::new();
        for part in text.split('.') {
            let (partition, next) = part.split_once('-').ok_or_else(bad)?;
            if number(partition) != Some(positions.len() as i64) || positions.len() == MAX_PARTITIONS {
                return Err(bad());
            }
            positions.push(number(next).ok_or_else(bad)?);
        }
        Ok(Cursor(positions))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cursor_round_trips() {
        let cursor = Cursor::new([812, 0, i64::MAX]);
        assert_eq!(cursor.to_string(), "0-812.1-0.2-9223372036854775807");
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
    }

    #[test]
    fn invalid_cursors_are_rejected() {
        for text in [
            "",
            "0",
            "0-",
            "-",
            "1-5",
            "0-1.2-3",
            "0--1",
            "0-1.",
            "0-+1",
            "0-01",
            "0-1 ",
            "0-99999999999999999999",
            "0-1.0-2",
            "x",
        ] {
            assert!(text.parse::<Cursor>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_partition_that_is_not_named_starts_at_0() {
        let (short, long) = (Cursor::new([5]), Cursor::new([5, 3]));
        assert!(long.covers(&short) && !short.covers(&long));
        assert_eq!(short.distance(&long), 3);
        assert_eq!(short.max(&long), long);
    }
    /// Generates any cursor that can be written: partitions from 0 up, each with an offset that Kafka could have.
    fn cursors() -> impl Strategy<Value = Cursor> {
        let offsets = prop_oneof![0..5_i64, 0..=i64::MAX];
        proptest::collection::vec(offsets, 1..5).prop_map(Cursor::new)
    }

    proptest! {
        #[test]
        fn any_cursor_round_trips(cursor in cursors()) {
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }

        #[test]
        fn a_parsed_cursor_is_written_identically(text in r"[0-9]{1,2}-[0-9]{1,20}(\.[0-9]{1,2}-[0-9]{1,20}){0,3}|[-.0-9+ ]{0,12}|.{0,12}") {
            crate::checks::cursor(text.as_bytes());
        }

        #[test]
        fn covering_is_an_order(a in cursors(), b in cursors(), c in cursors()) {
            prop_assert!(a.covers(&a) && a.covers(&Cursor::default()));
            prop_assert!(!(a.covers(&b) && b.covers(&c)) || a.covers(&c));
            if a.covers(&b) && b.covers(&a) {
                let partitions = a.partitions().max(b.partitions()) as i32;
                prop_assert!((0..partitions).all(|partition| a.get(partition) == b.get(partition)));
            }
        }

        #[test]
        fn the_farther_of_two_is_the_nearest_place_that_covers_both(a in cursors(), b in cursors(), c in cursors()) {
            let farther = a.max(&b);
            prop_assert!(farther.covers(&a) && farther.covers(&b));
            prop_assert!(!(c.covers(&a) && c.covers(&b)) || c.covers(&farther));
            prop_assert_eq!(&farther, &b.max(&a));
            prop_assert_eq!(farther.max(&c), a.max(&b.max(&c)));
            prop_assert!(!a.covers(&b) || farther.max(&a).to_string() == farther.to_string());
        }

        #[test]
        fn the_distance_is_positive_if_a_cursor_is_not_covered(a in cursors(), b in cursors()) {
            prop_assert_eq!(a.distance(&b) == 0, a.covers(&b));
            prop_assert_eq!(a.distance(&b), a.distance(&a.max(&b)));
        }

        #[test]
        fn distances_add_up(steps in proptest::collection::vec((0..3_i32, 0..1000_i64, 0..1000_i64), 0..8)) {
            let (mut first, mut second) = (Cursor::default(), Cursor::default());
            for (partition, one, more) in steps {
                first.set(partition, one);
                second.set(partition, one + more);
            }
            let origin = Cursor::default();
            prop_assert_eq!(origin.distance(&first) + first.distance(&second), origin.distance(&second));
        }
    }
}
