//! JSON as text: members, strings and depth, without building a tree of values.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Whether well-formed JSON has more than this many levels of nesting; `{}` is one level.
pub fn is_deeper(json: &str, levels: usize) -> bool {
    // Most JSON has few brackets, and counting them is much faster than following them.
    json.bytes().filter(|b| matches!(b, b'{' | b'[')).count() > levels && depth(json) > levels
}

fn depth(json: &str) -> usize {
    let (mut now, mut most, mut in_string, mut escaped) = (0usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                now += 1;
                most = most.max(now);
            }
            b'}' | b']' => now = now.saturating_sub(1),
            _ => {}
        }
    }
    most
}

/// A member name or a string, borrowed if it has no escapes.
pub(crate) struct Text<'a>(pub Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyText;
        impl<'de> Visitor<'de> for AnyText {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(AnyText)
    }
}

/// A member's value: a string, or the name of its type.
pub(crate) enum MemberValue<'a> {
    Text(Cow<'a, str>),
    Other(&'static str),
}

impl<'a> MemberValue<'a> {
    pub fn read(json: &'a RawValue) -> Self {
        let json = json.get();
        // By the first byte, because serde_json rejects numbers such as 1e999, which are valid JSON.
        match json.as_bytes().first() {
            Some(b'"') => match serde_json::from_str(json) {
                Ok(Text(text)) => MemberValue::Text(text),
                Err(_) => MemberValue::Other("text with half of a surrogate pair"),
            },
            Some(b'{') => MemberValue::Other("an object"),
            Some(b'[') => MemberValue::Other("an array"),
            Some(b't' | b'f') => MemberValue::Other("a boolean"),
            Some(b'n') => MemberValue::Other("null"),
            _ => MemberValue::Other("a number"),
        }
    }
}

/// Calls `each` with the name and the JSON of every member of the object `json`, in their order.
///
/// # Errors
///
/// Fails if `json` is not an object (`is_data`), not JSON, or has a name that is not Unicode (half of a surrogate
/// pair). `each` may have been called before that.
pub fn for_each_member<'a>(
    json: &'a str,
    each: impl FnMut(Cow<'a, str>, &'a RawValue),
) -> Result<(), serde_json::Error> {
    struct ObjectVisitor<F>(F);
    impl<'de, F: FnMut(Cow<'de, str>, &'de RawValue)> Visitor<'de> for ObjectVisitor<F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("a JSON object")
        }

        fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
            while let Some(Text(name)) = map.next_key()? {
                (self.0)(name, map.next_value()?);
            }
            Ok(())
        }
    }
    let mut parser = serde_json::Deserializer::from_str(json);
    parser.deserialize_map(ObjectVisitor(each))?;
    parser.end()
}

/// Calls `each` with the index and the JSON of every element of the array `json`, in their order.
///
/// # Errors
///
/// Fails if `json` is not an array, or not JSON. `each` may have been called before that.
pub fn for_each_element<'a>(json: &'a str, each: impl FnMut(usize, &'a RawValue)) -> Result<(), serde_json::Error> {
    struct ArrayVisitor<F>(F);
    impl<'de, F: FnMut(usize, &'de RawValue)> Visitor<'de> for ArrayVisitor<F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("a JSON array")
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
            let mut index = 0;
            while let Some(element) = seq.next_element()? {
                (self.0)(index, element);
                index += 1;
            }
            Ok(())
        }
    }
    let mut parser = serde_json::Deserializer::from_str(json);
    parser.deserialize_seq(ArrayVisitor(each))?;
    parser.end()
}

/// Compares two JSON numbers by their value, exactly, however many digits they have. Exponents beyond 10^18 count as
/// that.
pub(crate) fn compare_numbers(left: &str, right: &str) -> Ordering {
    if left == right {
        return Ordering::Equal;
    }
    let (left, right) = (Decimal::read(left), Decimal::read(right));
    match (left.is_negative, right.is_negative) {
        (false, true) => Ordering::Greater,
        (true, false) => Ordering::Less,
        (false, false) => left.compare_magnitude(&right),
        (true, true) => right.compare_magnitude(&left),
    }
}

/// A JSON number as 0.DIGITS times 10^`exponent`, the first digit not zero; zero has no digits.
struct Decimal<'a> {
    is_negative: bool,
    exponent: i64,
    /// The digits, in two parts, without zeros at the start.
    digits: [&'a str; 2],
}

impl<'a> Decimal<'a> {
    fn read(number: &'a str) -> Self {
        const MOST: i64 = 1_000_000_000_000_000_000;
        let (is_negative, number) = match number.strip_prefix('-') {
            Some(number) => (true, number),
            None => (false, number),
        };
        let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
        let overflow = if exponent.starts_with('-') { -MOST } else { MOST };
        let exponent = exponent.parse().unwrap_or(overflow).clamp(-MOST, MOST);
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let whole = whole.trim_start_matches('0');
        let significant = fraction.trim_start_matches('0');
        let (digits, shift) = match whole {
            "" => ([significant, ""], significant.len() as i64 - fraction.len() as i64),
            whole => ([whole, fraction], whole.len() as i64),
        };
        if digits.iter().all(|digits| digits.bytes().all(|digit| digit == b'0')) {
            return Decimal { is_negative: false, exponent: i64::MIN, digits: ["", ""] };
        }
        Decimal { is_negative, exponent: exponent + shift, digits }
    }

    fn compare_magnitude(&self, other: &Self) -> Ordering {
        let digits = |number: &Self| number.digits.into_iter().flat_map(str::bytes);
        let length = |number: &Self| number.digits.iter().map(|digits| digits.len()).sum::<usize>();
        let most = length(self).max(length(other));
        let padded = |digits| Iterator::chain(digits, std::iter::repeat(b'0')).take(most);
        self.exponent.cmp(&other.exponent).then_with(|| padded(digits(self)).cmp(padded(digits(other))))
    }
}

/// Appends a JSON string.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    // Writing a str into a Vec<u8> cannot fail.
    let _ = serde_json::to_writer(out, text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_by_value() {
        let sorted = [
            "-1e400",
            "-10",
            "-9.5",
            "-0.1",
            "0",
            "1e-400",
            "0.09",
            "0.1",
            "0.11",
            "1",
            "1.5",
            "9007199254740992",
            "9007199254740993",
            "1e99",
            "1e400",
            "1.1e400",
            "1e99999999999999999999",
        ];
        for (i, left) in sorted.iter().enumerate() {
            for (j, right) in sorted.iter().enumerate() {
                assert_eq!(compare_numbers(left, right), i.cmp(&j), "{left} and {right}");
            }
        }
        for (left, right) in
            [("1", "1.0"), ("10", "1e1"), ("0.1", "1E-1"), ("-0", "0.00e5"), ("100", "0.001e5"), ("1.50", "15e-1")]
        {
            assert_eq!(compare_numbers(left, right), Ordering::Equal, "{left} and {right}");
        }
    }
}
