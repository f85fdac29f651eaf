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
        let (map, wanted) = match (filter.users.is_empty(), filter.actions.is_empty()) {
            (false, _) => (&self.users, &filter.users),
            (true, false) => (&self.actions, &filter.actions),
            (true, true) => return None,
        };
        let mut places: Vec<u32> = wanted.iter().filter_map(|name| map.get(name.as_str())).flatten().copied().collect();
        // A single list is sorted already; a filter may repeat a name.
        if wanted.len() > 1 {
            places.sort_unstable();
            places.dedup();
        }
        Some(places)
    }
}

#[cfg(test)]
mod tests {
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
        for (users, actions) in [
            (&["u3"][..], &[][..]),
            (&["u6", "u3", "u3"], &[]),
            (&["u1"], &["a2", "a0"]),
            (&[], &["a1"]),
            (&["nobody"], &[]),
            (&["nobody"], &["a1"]),
        ] {
            let filter = Filter { users: names(users), actions: names(actions), ..Filter::default() };
            let expected: Vec<i64> = records.iter().filter(|r| filter.matches(r)).map(Record::offset).collect();
            let places = index.candidates(&filter).expect("it asks for one of the fields");
            let found = places.iter().map(|place| &records[*place as usize]);
            let found: Vec<i64> = found.filter(|r| filter.matches(r)).map(Record::offset).collect();
            assert_eq!(found, expected, "{users:?} {actions:?}");
        }
        assert_eq!(index.candidates(&Filter::default()), None);
    }
}
