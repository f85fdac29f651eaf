//! Properties that hold for every input: each function takes any bytes and panics if a property fails.
//!
//! The unit tests call them with inputs that `proptest` generates and with the seeds in `fuzz/seeds`, the targets in
//! `fuzz/targets` with inputs that libFuzzer generates.

pub mod event_stream;
mod events;
pub mod json;
mod records;
pub mod streams;

pub use events::{cloud_event, cloud_events, events, json_lines};
pub use records::{foreign_record, record, record_of, structured_record_of};
pub use streams::stream;

use std::path::Path;

use crate::event::time;
use crate::query_string::QueryString;
use crate::{Cursor, Filter};

/// A text that parses as a cursor is written back identically.
pub fn cursor(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(cursor) = text.parse::<Cursor>() else { return };
    assert_eq!(cursor.to_string(), text);
    assert!(cursor.positions().iter().all(|next| *next >= 0), "{text}");
    assert!(cursor.covers(&Cursor::default()) && cursor.distance(&cursor) == 0, "{text}");
    assert_eq!(cursor.max(&Cursor::default()), cursor);
}

/// Any query is parsed or rejected, and the parts that an address keeps have the same meaning there.
pub fn query(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(parameters) = QueryString::parse(text) else { return };
    let parse = |query: &str| QueryString::parse(query).expect("a query that was written here");
    let again = parse(&parameters.with(&[]));
    for name in [
        "user",
        "user_prefix",
        "not_user",
        "action",
        "q",
        "f",
        "case",
        "partition",
        "since",
        "until",
        "from",
        "to",
        "after",
        "limit",
        "last",
        "offset",
    ] {
        assert_eq!(parameters.get(name), again.get(name), "{name} of {text}");
    }
    let changed = parse(&parameters.with(&[("limit", "7"), ("user", "")]));
    assert_eq!((changed.get("limit"), changed.get("user")), (Some("7"), None), "{text}");
    for name in ["since", "until"] {
        assert_eq!(parameters.time(name).is_ok(), again.time(name).is_ok(), "{name} of {text}");
        if let Ok(Some(ms)) = parameters.time(name) {
            time::format_ms(ms);
        }
    }
    for name in ["limit", "last", "offset"] {
        let number = parameters.number(name, 1..=1000);
        assert_eq!(number, again.number(name, 1..=1000));
        assert!(number.ok().flatten().is_none_or(|number| (1..=1000).contains(&number)));
    }
    for name in ["from", "to", "after"] {
        assert_eq!(parameters.cursor(name), again.cursor(name));
    }
    assert_eq!(parameters.filters().is_ok(), again.filters().is_ok());
    let Ok(filters) = parameters.filters() else { return };
    let through_the_page = parse(&filters.query()).filters().expect("the filters of an address");
    let (filter, same) = (Filter::from(&filters), Filter::from(&through_the_page));
    assert_eq!(filter.key(), same.key(), "{text}");
    assert_eq!(filter.is_empty(), filters.is_empty());
}

/// Calls `check` with each input in `fuzz/seeds/<target>`, and prints the path of each first, so that a failure names it.
///
/// # Panics
///
/// Panics if there are no seeds.
pub fn for_each_seed(target: &str, check: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let seeds = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut count = 0;
    for seed in seeds {
        let path = seed.expect("a seed").path();
        println!("{}", path.display());
        check(&std::fs::read(path).expect("a file"));
        count += 1;
    }
    assert!(count > 0, "no seeds in {}", folder.display());
}

/// Returns the parts of an input, separated by 0x1E: bytes after a `+`, or null if the part is empty.
fn parts(data: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    data.split(|byte| *byte == 0x1e).map(|part| part.strip_prefix(b"+"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    macro_rules! every_seed_keeps_its_promise {
        ($($target:ident),+ $(,)?) => {
            /// One test for each target of `fuzz/`.
            mod seeds {
                $(#[test] fn $target() { super::super::for_each_seed(stringify!($target), super::super::$target) })+
            }
        };
    }
    every_seed_keeps_its_promise!(
        events,
        json_lines,
        cloud_event,
        cloud_events,
        cursor,
        query,
        record,
        foreign_record,
        stream
    );

    proptest! {
        #[test]
        fn any_query_is_parsed_or_rejected(text in r"((user|not_user|user_prefix|q|f|case|since|until|limit|from|last|partition|x)=(/[~01a:%]{0,5}:(eq|ne|lt|gt|in|exists|contains|prefix):)?([-.0-9a-zA-Z%+ ]|\\PC){0,12}&?){0,6}") {
            super::query(text.as_bytes());
        }
    }
}
