//! Finding a text in a record's value or in one of its fields.

use std::fmt;
use std::ops::Range;

use memchr::memchr;
use memchr::memmem::Finder;

/// A text that a filter looks for.
#[derive(Clone)]
pub enum Text {
    /// These bytes.
    Exact(Finder<'static>),
    /// The text as people see it, folded: see [`Text::seen`].
    Seen(Finder<'static>),
}

impl Text {
    /// Finds the bytes of `text` as they are, so upper and lower case differ.
    pub fn exact(text: &str) -> Self {
        Text::Exact(Finder::new(text).into_owned())
    }

    /// Finds `text` in the value as it is written and as it reads once the escapes of JSON are decoded (RFC 8259,
    /// section 7), without regard to case: each character is compared as the lower case of its upper case, in every
    /// script that has both. Composed and decomposed characters are not the same.
    pub fn seen(text: &str) -> Self {
        let folded: String = text.chars().flat_map(fold).collect();
        Text::Seen(Finder::new(&folded).into_owned())
    }

    /// Whether the value has the text. A value that is not UTF-8 can have it too, in its parts that are.
    pub fn is_in(&self, value: &[u8]) -> bool {
        match self {
            Text::Exact(finder) => finder.find(value).is_some(),
            Text::Seen(finder) => {
                if finder.find(&value.to_ascii_lowercase()).is_some() {
                    return true;
                }
                let is_read_as_written = value.is_ascii() && memchr(b'\\', value).is_none();
                !is_read_as_written && finder.find(read(value).as_bytes()).is_some()
            }
        }
    }
}

/// Equal for texts that find the same.
impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, finder) = match self {
            Text::Exact(finder) => ("exact", finder),
            Text::Seen(finder) => ("seen", finder),
        };
        write!(f, "{name} {:?}", finder.needle())
    }
}

/// What a decoded text contains or begins with.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// This text, upper and lower case distinct.
    Exact(String),
    /// This text, folded as [`Text::seen`] does it.
    Folded(String),
}

impl Part {
    pub fn exact(text: &str) -> Self {
        Part::Exact(text.to_owned())
    }

    pub fn folded(text: &str) -> Self {
        Part::Folded(text.chars().flat_map(fold).collect())
    }

    /// Whether `text` begins with it.
    pub fn begins(&self, text: &str) -> bool {
        match self {
            Part::Exact(part) => text.starts_with(part.as_str()),
            Part::Folded(part) => {
                let mut folded = text.chars().flat_map(fold);
                part.chars().all(|character| folded.next() == Some(character))
            }
        }
    }

    /// Returns where `text` contains it, from left to right and without overlap; nowhere if it is empty.
    pub fn places(&self, text: &str) -> Vec<Range<usize>> {
        match self {
            Part::Exact(part) if part.is_empty() => Vec::new(),
            Part::Exact(part) => text.match_indices(part.as_str()).map(|(at, part)| at..at + part.len()).collect(),
            Part::Folded(part) => folded_places(part, text),
        }
    }

    /// Returns the start of `text` that is this text; `None` if `text` does not begin with it, or it is empty.
    pub fn start(&self, text: &str) -> Option<Range<usize>> {
        self.places(text).into_iter().next().filter(|place| place.start == 0)
    }

    /// Whether `text` contains it.
    pub fn is_in(&self, text: &str) -> bool {
        match self {
            Part::Exact(part) => text.contains(part.as_str()),
            Part::Folded(part) => text.chars().flat_map(fold).collect::<String>().contains(part.as_str()),
        }
    }
}

/// Returns the whole characters of `text` whose folded form contains `part`.
fn folded_places(part: &str, text: &str) -> Vec<Range<usize>> {
    // The folded text, and for each of its bytes the character it comes from.
    let (mut folded, mut origins) = (String::new(), Vec::new());
    for (start, character) in text.char_indices() {
        folded.extend(fold(character));
        origins.resize(folded.len(), start..start + character.len_utf8());
    }
    if part.is_empty() {
        return Vec::new();
    }
    let mut places: Vec<Range<usize>> = Vec::new();
    for (at, _) in folded.match_indices(part) {
        let place = origins[at].start..origins[at + part.len() - 1].end;
        // Two matches may share a character of which each has a half.
        match places.last_mut() {
            Some(last) if last.end > place.start => last.end = place.end,
            _ => places.push(place),
        }
    }
    places
}

fn fold(character: char) -> impl Iterator<Item = char> {
    character.to_uppercase().flat_map(char::to_lowercase)
}

/// Returns the value with the escapes of JSON decoded, folded.
fn read(value: &[u8]) -> String {
    let value = String::from_utf8_lossy(value);
    let mut folded = String::with_capacity(value.len());
    let mut rest = &*value;
    while let Some(character) = rest.chars().next() {
        let (character, length) = match character {
            '\\' => escaped(rest),
            other => (other, other.len_utf8()),
        };
        match character.is_ascii() {
            true => folded.push(character.to_ascii_lowercase()),
            false => folded.extend(fold(character)),
        }
        rest = &rest[length..];
    }
    folded
}

/// Decodes the escape at the start of the text; returns its character and its bytes. A backslash that starts none is
/// itself; half of a surrogate pair is U+FFFD.
fn escaped(text: &str) -> (char, usize) {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16).ok())?
    };
    let character = match text.as_bytes().get(1) {
        Some(byte @ (b'"' | b'\\' | b'/')) => char::from(*byte),
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        _ => {
            let Some(first) = unit(0) else { return ('\\', 1) };
            let pair = || char::decode_utf16([first, unit(6)?]).next()?.ok().filter(|c| c.len_utf16() == 2);
            return match char::from_u32(first.into()) {
                Some(character) => (character, 6),
                None => pair().map_or((char::REPLACEMENT_CHARACTER, 6), |character| (character, 12)),
            };
        }
    };
    (character, 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_is_found_as_it_is_written_and_as_it_reads() {
        let python = br#"{"note": "\ud83d\udd25 \u0639\u0631\u0628\u064a", "path": "C:\\temp", "q": "say \"Hi\""}"#;
        for needle in ["🔥", "عربي", "🔥 ع", "NOTE", "\\ud83D", r"c:\TEMP", "say \"hi\"", r#"say \"hi"#] {
            assert!(Text::seen(needle).is_in(python), "{needle}");
        }
        for needle in ["🔥🔥", "hi!", "\u{fffd}", "d83e"] {
            assert!(!Text::seen(needle).is_in(python), "{needle}");
        }
        let plain = "{\"user\":\"ZOË\",\"street\":\"Große Straße\",\"word\":\"ὈΔΥΣΣΕΎΣ\"}".as_bytes();
        for needle in ["zoë", "GROSSE STRASSE", "große", "ὀδυσσεύς", "\"user\":\"zoë"] {
            assert!(Text::seen(needle).is_in(plain), "{needle}");
        }
        assert!(!Text::seen("zoe").is_in(plain));
        assert!(Text::seen(r"\temp").is_in(br"C:\temp") && Text::seen("lone \u{fffd}").is_in(br#""lone \ud83d""#));
        assert!(Text::seen("ok").is_in(b"\xff\xfe OK") && Text::seen("").is_in(b""));
        assert!(
            Text::exact("Hi").is_in(python) && !Text::exact("hi").is_in(python) && !Text::exact("🔥").is_in(python)
        );
    }

    #[test]
    fn a_part_is_compared_with_or_without_case() {
        let folded = Part::folded("straSSE");
        assert!(folded.begins("Straße 1") && folded.is_in("Große STRASSE") && !folded.begins("Die Straße"));
        assert!(Part::folded("").begins("") && !Part::folded("a").begins(""));
        let exact = Part::exact("Jo");
        assert!(exact.begins("John") && exact.is_in("Mary Jo") && !exact.begins("john") && !exact.is_in("banjo"));
    }

    #[test]
    fn the_places_of_a_part_are_whole_characters() {
        let found = |part: &Part, text: &'static str| -> Vec<&str> {
            part.places(text).into_iter().map(|place| &text[place]).collect()
        };
        assert_eq!(found(&Part::folded("an"), "Ann an BANANA"), ["An", "an", "AN", "AN"]);
        assert_eq!(found(&Part::folded("ss"), "Straße, SS"), ["ß", "SS"]);
        assert_eq!(found(&Part::folded("s"), "ß"), ["ß"]);
        assert_eq!(found(&Part::folded("ZOË"), "zoë Zoe"), ["zoë"]);
        assert_eq!(found(&Part::exact("an"), "Ann an"), ["an"]);
        assert_eq!(Part::folded("jo").start("John Jo"), Some(0..2));
        assert_eq!((Part::folded("hn").start("John"), Part::exact("").start("John")), (None, None));
        assert!(Part::folded("").places("a").is_empty());
    }

    proptest! {
        #[test]
        fn every_place_of_a_part_is_found(text in "\\PC{0,12}", part in "\\PC{1,2}", upper in any::<bool>()) {
            let whole = format!("{text}{part}{text}");
            let typed = if upper { part.to_uppercase() } else { part };
            let places = Part::folded(&typed).places(&whole);
            prop_assert!(!places.is_empty(), "{typed:?} in {whole:?}");
            for place in places {
                prop_assert!(Part::folded(&typed).is_in(&whole[place]));
            }
        }

        #[test]
        fn every_part_of_a_text_is_found_however_json_escapes_it(
            text in proptest::collection::vec(any::<char>(), 1..20),
            escapes in proptest::collection::vec(any::<bool>(), 20),
            upper in any::<bool>(),
            start in 0..20_usize,
            length in 1..20_usize,
        ) {
            let mut json = String::from("{\"a\":\"");
            for (character, escape) in text.iter().zip(escapes) {
                if escape || (*character as u32) < 32 || matches!(character, '"' | '\\') {
                    let mut units = [0; 2];
                    character.encode_utf16(&mut units).iter().for_each(|unit| json += &format!("\\u{unit:04x}"));
                } else {
                    json.push(*character);
                }
            }
            json += "\"}";
            let part: String = text.iter().skip(start % text.len()).take(length).collect();
            let typed = if upper { part.to_uppercase() } else { part };
            prop_assert!(Text::seen(&typed).is_in(json.as_bytes()), "{typed:?} in {json}");
        }
    }
}
