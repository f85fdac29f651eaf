//! The fields of an event: as JSON whose objects can be folded, and compared with those of another event.

use askama::Template;
use footfall_core::Pointer;
use footfall_core::value::{for_each_element, for_each_member};

use super::format::cut;
use super::listing::{Listing, name};
use crate::event::Record;

/// Most fields that are listed, most levels that they are deep, and most characters of a name or a value.
const MOST_FIELDS: usize = 100;
const DEEPEST: usize = 8;
const SHOWN_CHARS: usize = 200;

/// The members of an object, or the elements of an array, as a list. Written with `{{ tree|safe }}`.
#[derive(Template)]
#[template(path = "_json.html")]
pub struct FieldTree {
    fields: Vec<TreeField>,
}

/// A field as a line of the list.
struct TreeField {
    /// `page`, `basket.items.0`
    path: String,
    name: String,
    /// Whether it is a member of an object, and not an element of an array.
    is_member: bool,
    value: TreeValue,
}

enum TreeValue {
    Leaf {
        text: String,
        /// A class for its colour.
        kind: &'static str,
        /// Addresses of only the events with this value, and of those without it; `None` for values that cannot be compared.
        narrowed: Option<[String; 2]>,
        /// Address with the field as a column.
        column: String,
    },
    Inner {
        opens: char,
        closes: char,
        count: usize,
        tree: FieldTree,
    },
}

impl FieldTree {
    /// Returns the fields of an event; `None` if it has none. The second is whether some were left out or cut.
    pub fn of(record: &Record, listing: &Listing) -> Option<(Self, bool)> {
        let json = record.event_json().filter(|_| record.json().is_some())?;
        let mut reader = TreeReader { listing, names: Vec::new(), room: MOST_FIELDS, is_cut: false };
        let tree = reader.inner(json, inner(json)?);
        (!tree.fields.is_empty()).then_some((tree, reader.is_cut))
    }
}

struct TreeReader<'l> {
    listing: &'l Listing,
    /// The names on the way to the present value.
    names: Vec<String>,
    /// How many more lines there may be.
    room: usize,
    is_cut: bool,
}

impl TreeReader<'_> {
    fn inner(&mut self, json: &str, inner: Vec<(String, &str)>) -> FieldTree {
        let is_member = json.starts_with('{');
        let mut fields = Vec::new();
        for (name, value) in inner {
            if self.room == 0 {
                self.is_cut = true;
                break;
            }
            self.room -= 1;
            self.names.push(name.clone());
            let pointer = Pointer::to(&self.names);
            let path = cut(&super::listing::name(&pointer), SHOWN_CHARS);
            fields.push(TreeField {
                path,
                name: cut(&name, SHOWN_CHARS),
                is_member,
                value: self.value(&pointer, value),
            });
            self.names.pop();
        }
        FieldTree { fields }
    }

    fn value(&mut self, pointer: &Pointer, json: &str) -> TreeValue {
        if let Some(inner) = inner(json).filter(|_| self.names.len() < DEEPEST) {
            let (opens, closes) = if json.starts_with('{') { ('{', '}') } else { ('[', ']') };
            return TreeValue::Inner { opens, closes, count: inner.len(), tree: self.inner(json, inner) };
        }
        let text = shown(json);
        self.is_cut |= text.chars().count() > SHOWN_CHARS;
        TreeValue::Leaf {
            text: cut(&text, SHOWN_CHARS),
            kind: match json.as_bytes().first() {
                Some(b'"') => "text",
                Some(b'0'..=b'9' | b'-') => "number",
                _ => "word",
            },
            narrowed: self.listing.narrowed(pointer, json),
            column: self.listing.with_column(pointer),
        }
    }
}

/// Returns the members of an object, or the elements of an array, each with its JSON. `None` if there are none.
fn inner(json: &str) -> Option<Vec<(String, &str)>> {
    let mut inner = Vec::new();
    let read = match json.as_bytes().first() {
        Some(b'{') => for_each_member(json, |name, value| inner.push((name.into_owned(), value.get()))),
        Some(b'[') => for_each_element(json, |index, value| inner.push((index.to_string(), value.get()))),
        _ => return None,
    };
    (read.is_ok() && !inner.is_empty()).then_some(inner)
}

/// Returns a value as it reads: the escapes of a text are decoded where they need not be.
fn shown(json: &str) -> String {
    match serde_json::from_str::<String>(json) {
        Ok(text) => serde_json::Value::from(text).to_string(),
        Err(_) => json.to_owned(),
    }
}

/// A field in two events.
pub struct ComparedField {
    pub name: String,
    /// Its values; `None` where an event does not have it.
    pub values: [Option<String>; 2],
    pub is_same: bool,
}

/// Compares the fields of two events, at most so many; those that differ come first, each part in the order of the events.
/// A value that is not JSON is one field.
pub fn compare(first: &Record, second: &Record) -> Vec<ComparedField> {
    let (first, second) = (leaves(first), leaves(second));
    let find = |leaves: &[(String, String)], name: &str| {
        leaves.iter().find(|(own, _)| own == name).map(|(_, value)| value.clone())
    };
    let only_second = second.iter().filter(|(name, _)| find(&first, name).is_none());
    let mut compared: Vec<ComparedField> = first
        .iter()
        .chain(only_second)
        .map(|(name, _)| {
            let values = [find(&first, name), find(&second, name)];
            let is_same = values[0] == values[1];
            let values = values.map(|value| value.map(|value| cut(&shown(&value), SHOWN_CHARS)));
            ComparedField { name: cut(name, SHOWN_CHARS), values, is_same }
        })
        .collect();
    compared.sort_by_key(|field| field.is_same);
    compared
}

/// Returns the values that have no members or elements, by path.
fn leaves(record: &Record) -> Vec<(String, String)> {
    let mut found = Vec::new();
    match record.event_json().filter(|_| record.json().is_some()) {
        Some(json) => descend(json, &mut Vec::new(), &mut found),
        None if record.value().is_none() => {}
        None => {
            let text = String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned();
            found.push(("value".to_owned(), text));
        }
    }
    found
}

fn descend(json: &str, names: &mut Vec<String>, found: &mut Vec<(String, String)>) {
    if found.len() >= MOST_FIELDS {
        return;
    }
    match inner(json).filter(|_| names.len() < DEEPEST) {
        Some(inner) => {
            for (own, value) in inner {
                names.push(own);
                descend(value, names, found);
                names.pop();
            }
        }
        None if names.is_empty() => found.push(("value".to_owned(), json.to_owned())),
        None => found.push((name(&Pointer::to(names)), json.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: &str) -> Record {
        Record::new(0, 0, None, None, Some(value.as_bytes()), std::iter::empty())
    }

    #[test]
    fn fields_that_differ_come_first() {
        let first = record(r#"{"user":"Ann","n":1,"basket":{"items":[1,2]},"gone":true}"#);
        let second = record(r#"{"user":"Ann","n":2,"basket":{"items":[1,3]},"more":null}"#);
        let compared = compare(&first, &second);
        let names: Vec<(&str, bool)> = compared.iter().map(|field| (&*field.name, field.is_same)).collect();
        let expected = [
            ("n", false),
            ("basket.items.1", false),
            ("gone", false),
            ("more", false),
            ("user", true),
            ("basket.items.0", true),
        ];
        assert_eq!(names, expected);
        assert_eq!(compared[3].values, [None, Some("null".to_owned())]);
    }

    #[test]
    fn a_tree_has_a_bounded_number_of_lines() {
        let many: Vec<String> = (0..5_000).map(|n| format!("\"f{n}\":{{\"a\":[{n}]}}")).collect();
        let (tree, is_cut) =
            FieldTree::of(&record(&format!("{{{}}}", many.join(","))), &Listing::default()).expect("a tree");
        let html = tree.render().expect("a list");
        assert!(is_cut && html.matches("<li").count() <= MOST_FIELDS, "{}", html.len());
        let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
        let (tree, _) = FieldTree::of(&record(&deep), &Listing::default()).expect("a tree");
        assert!(tree.render().expect("a list").matches("<li").count() <= DEEPEST);
        assert!(FieldTree::of(&record("not JSON"), &Listing::default()).is_none());
    }
}
