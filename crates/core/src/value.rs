//! JSON as text: members, strings and depth, without building a tree of values.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
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

/// Appends a JSON string.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    // Writing a str into a Vec<u8> cannot fail.
    let _ = serde_json::to_writer(out, text);
}
