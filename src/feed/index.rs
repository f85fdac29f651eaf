//! Which records of a block have a given user or action. A filter for one of them looks only at those records, so the
//! cost of many filters grows with the number of matches, and not with filters times records.

use std::collections::HashMap;

use super::Filter;
use crate::event::Record;

/// Indices of records by user and by action, which filters compare as a whole.
#[derive(Default)]
pub(super) struct Index {
    users: HashMap<Box<str>, Vec<u32>>,
    actions: HashMap<Box<str>, Vec<u32>>,
}

impl Index {
    pub fn new(records: &[Record]) -> Self {
        let mut index = Index::default();
        for (place, record) in records.iter().enumerate() {
            let fields = record.user_and_action();
            for (map, name) in [(&mut index.users, fields.user), (&mut index.actions, fields.action)] {
                let Some(name) = name else { continue };
                match map.get_mut(&*name) {
                    Some(places) => places.push(place as u32),
                    None => _ = map.insert(name.into(), vec![place as u32]),
                }
            }
        }
        index
    }

    /// Approximate bytes in memory.
    pub fn size(&self) -> usize {
        let entry = size_of::<(Box<str>, Vec<u32>)>();
        let names = |map: &HashMap<Box<str>, Vec<u32>>| -> usize {
            let held = map.iter().map(|(name, places)| name.len() + places.capacity() * size_of::<u32>());
            map.capacity() * entry + held.sum::<usize>()
        };
        size_of::<Self>() + names(&self.users) + names(&self.actions)
    }

    /// Returns sorted indices outside of which no record matches; `None` if the filter asks for neither field. The
    /// records at these indices may still not match.
    pub fn candidates(&self, filter: &Filter) -> Option<Vec<u32>> {
        let (map, names, prefixes) = match (filter.asks_for_users(), filter.asks_for_actions()) {
            (true, _) => (&self.users, &filter.users, &filter.user_prefixes),
            (false, true) => (&self.actions, &filter.actions, &filter.action_prefixes),
            (false, false) => return None,
        };
        let begins = |name: &str| prefixes.iter().any(|prefix| prefix.begins(name));
        let by_name = names.iter().filter_map(|name| map.get(name.as_str()));
        let by_prefix = map.iter().filter(|_| !prefixes.is_empty()).filter(|(name, _)| begins(name));
        let lists: Vec<&Vec<u32>> = by_name.chain(by_prefix.map(|(_, places)| places)).collect();
        let mut places: Vec<u32> = lists.iter().copied().flatten().copied().collect();
        // A single list is sorted already; a filter may select a name twice.
        if lists.len() > 1 {
            places.sort_unstable();
            places.dedup();
        }
        Some(places)
    }
}

#[cfg(test)]
mod tests {
    use footfall_core::Part;

    use super::*;

    #[test]
    fn the_index_finds_what_the_filter_finds() {
        let record = |n: i64| {
            let value = format!(r#"{{"user":"u{}","action":"a{}"}}"#, n % 7, n % 3);
            Record::new(0, n, None, None, Some(value.as_bytes()), std::iter::empty())
        };
        let mut records: Vec<Record> = (0..50).map(record).collect();
        records.push(Record::new(0, 50, None, None, Some(b"\xff"), std::iter::empty()));
        records.push(Record::new(0, 51, None, None, None, std::iter::empty()));
        let index = Index::new(&records);
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let prefixes = |texts: &[&str]| texts.iter().map(|text| Part::folded(text)).collect::<Vec<_>>();
        for (users, actions, user_prefixes, action_prefixes) in [
            (&["u3"][..], &[][..], &[][..], &[][..]),
            (&["u6", "u3", "u3"], &[], &[], &[]),
            (&["u1"], &["a2", "a0"], &[], &[]),
            (&[], &["a1"], &[], &[]),
            (&["nobody"], &[], &[], &[]),
            (&["nobody"], &["a1"], &[], &[]),
            (&["u1"], &[], &["U"], &[]),
            (&[], &[], &["u2", "u"], &["A1"]),
            (&[], &["a1"], &[], &["a", "b"]),
            (&[], &[], &["x"], &[]),
        ] {
            let filter = Filter {
                users: names(users),
                actions: names(actions),
                user_prefixes: prefixes(user_prefixes),
                action_prefixes: prefixes(action_prefixes),
                not_users: names(&["u2"]),
                not_actions: names(&["a0"]),
                ..Filter::default()
            };
            let expected: Vec<i64> = records.iter().filter(|r| filter.matches(r)).map(Record::offset).collect();
            let places = index.candidates(&filter).expect("it asks for one of the fields");
            let found = places.iter().map(|place| &records[*place as usize]);
            let found: Vec<i64> = found.filter(|r| filter.matches(r)).map(Record::offset).collect();
            assert_eq!(found, expected, "{filter:?}");
        }
        assert_eq!(index.candidates(&Filter::default()), None);
    }
}
