use std::cell::OnceCell;

use crate::{Condition, Part, Record, Text};

/// Which records a subscription or a search returns. Values and prefixes of the same field are alternatives; different
/// fields, exclusions and conditions must all match.
#[derive(Debug, Default, Clone)]
pub struct Filter {
    pub users: Vec<String>,
    pub user_prefixes: Vec<Part>,
    /// Users that do not match. A record without a user does.
    pub not_users: Vec<String>,
    pub actions: Vec<String>,
    pub action_prefixes: Vec<Part>,
    /// Actions that do not match. A record without an action does.
    pub not_actions: Vec<String>,
    pub partitions: Vec<i32>,
    /// Texts in the value.
    pub texts: Vec<Text>,
    /// Conditions on the fields of the event's JSON.
    pub conditions: Vec<Condition>,
}

impl Filter {
    /// Whether every record matches.
    pub fn is_empty(&self) -> bool {
        self.partitions.is_empty() && !self.reads_records()
    }

    /// Whether what a record says decides, and not its partition alone.
    pub fn reads_records(&self) -> bool {
        self.reads_fields() || !self.texts.is_empty() || !self.conditions.is_empty()
    }

    /// Whether it compares users or actions.
    fn reads_fields(&self) -> bool {
        self.asks_for_users() || self.asks_for_actions() || !self.not_users.is_empty() || !self.not_actions.is_empty()
    }

    /// Whether only records with some users match.
    pub fn asks_for_users(&self) -> bool {
        !self.users.is_empty() || !self.user_prefixes.is_empty()
    }

    /// Whether only records with some actions match.
    pub fn asks_for_actions(&self) -> bool {
        !self.actions.is_empty() || !self.action_prefixes.is_empty()
    }

    pub fn matches(&self, record: &Record) -> bool {
        let json = OnceCell::new();
        self.matches_found(record, |place| {
            let json = *json.get_or_init(|| record.event_json());
            self.conditions.get(place)?.pointer().find(json?)
        })
    }

    /// Does the same, where `found` returns the JSON of the field of the condition with this index.
    pub fn matches_found<'a>(&self, record: &Record, found: impl Fn(usize) -> Option<&'a str>) -> bool {
        if !self.partitions.is_empty() && !self.partitions.contains(&record.partition()) {
            return false;
        }
        if !self.texts.is_empty() {
            let value = record.value().unwrap_or_default();
            if !self.texts.iter().any(|text| text.is_in(value)) {
                return false;
            }
        }
        if self.reads_fields() && !self.matches_fields(record) {
            return false;
        }
        self.conditions.iter().enumerate().all(|(place, condition)| condition.matches(found(place)))
    }

    fn matches_fields(&self, record: &Record) -> bool {
        let fields = record.user_and_action();
        let among = |names: &[String], prefixes: &[Part], field: Option<&str>| {
            let is_one = |field: &str| {
                names.iter().any(|name| name == field) || prefixes.iter().any(|prefix| prefix.begins(field))
            };
            (names.is_empty() && prefixes.is_empty()) || field.is_some_and(is_one)
        };
        let is_none_of =
            |names: &[String], field: Option<&str>| field.is_none_or(|field| names.iter().all(|name| name != field));
        let (user, action) = (fields.user.as_deref(), fields.action.as_deref());
        among(&self.users, &self.user_prefixes, user)
            && among(&self.actions, &self.action_prefixes, action)
            && is_none_of(&self.not_users, user)
            && is_none_of(&self.not_actions, action)
    }

    /// Returns a text that is equal for equal filters, so that subscriptions can share encodings.
    pub fn key(&self) -> String {
        let mut parts: Vec<String> = Vec::new();
        for (letter, names) in
            [('u', &self.users), ('a', &self.actions), ('v', &self.not_users), ('b', &self.not_actions)]
        {
            parts.extend(names.iter().map(|name| format!("{letter}{name:?}")));
        }
        for (letter, prefixes) in [('U', &self.user_prefixes), ('A', &self.action_prefixes)] {
            parts.extend(prefixes.iter().map(|prefix| format!("{letter}{prefix:?}")));
        }
        let condition = |one: &Condition| format!("f{:?}{}", one.to_string(), one.is_exact());
        parts.extend(self.conditions.iter().map(condition));
        parts.extend(self.partitions.iter().map(|partition| format!("p{partition}")));
        parts.extend(self.texts.iter().map(|text| format!("q{text:?}")));
        parts.sort();
        parts.dedup();
        parts.concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: &'static [u8]) -> Record {
        Record::new(1, 0, None, None, Some(value), std::iter::empty())
    }

    #[test]
    fn one_field_means_or_and_different_fields_mean_and() {
        let john = record(br#"{"user":"John","action":"login","page":"/cart"}"#);
        let filter = |users: &[&str], actions: &[&str], q: &[&str]| Filter {
            users: users.iter().map(|s| s.to_string()).collect(),
            actions: actions.iter().map(|s| s.to_string()).collect(),
            texts: q.iter().map(|q| Text::seen(q)).collect(),
            ..Filter::default()
        };
        assert!(filter(&["Ann", "John"], &[], &[]).matches(&john));
        assert!(filter(&["John"], &["login"], &["/cart"]).matches(&john));
        assert!(!filter(&["John"], &["logout"], &[]).matches(&john));
        assert!(filter(&[], &[], &["/CART"]).matches(&john));
        assert!(!filter(&[], &[], &["/card"]).matches(&john));
        assert!(!filter(&["John"], &[], &[]).matches(&record(b"\xff")));
        assert!(filter(&[], &[], &[]).matches(&record(b"\xff")));
    }

    #[test]
    fn an_exclusion_leaves_records_without_the_field() {
        let filter = Filter { not_users: vec!["John".into()], not_actions: vec!["login".into()], ..Filter::default() };
        assert!(!filter.matches(&record(br#"{"user":"John","action":"pay"}"#)));
        assert!(!filter.matches(&record(br#"{"action":"login"}"#)));
        assert!(filter.matches(&record(br#"{"user":"john"}"#)) && filter.matches(&record(b"plain")));
    }

    #[test]
    fn partitions_are_compared_with_the_records_own() {
        let filter = Filter { partitions: vec![0, 1], ..Filter::default() };
        assert!(filter.matches(&record(b"")));
        assert!(!Filter { partitions: vec![0], ..Filter::default() }.matches(&record(b"")));
    }

    #[test]
    fn the_key_does_not_depend_on_the_order() {
        let one = Filter { users: vec!["a".into(), "b".into()], ..Filter::default() };
        let other = Filter { users: vec!["b".into(), "a".into()], ..Filter::default() };
        assert_eq!(one.key(), other.key());
        assert_ne!(
            Filter { texts: vec![Text::seen("a")], ..Filter::default() }.key(),
            Filter { texts: vec![Text::exact("a")], ..Filter::default() }.key()
        );
        let names = vec!["a".to_owned(), "b".to_owned()];
        assert_ne!(one.key(), Filter { actions: names.clone(), ..Filter::default() }.key());
        assert_ne!(one.key(), Filter { not_users: names, ..Filter::default() }.key());
        let of = |text: &str, exact, partitions: &[i32]| {
            let conditions = vec![Condition::parse(text, exact).expect("a condition")];
            Filter { conditions, partitions: partitions.to_vec(), ..Filter::default() }.key()
        };
        assert_ne!(of("/a:prefix:b", false, &[]), of("/a:prefix:b", true, &[]));
        assert_ne!(of("/a:eq:b", false, &[1]), of("/a:eq:bp1", false, &[]));
    }
}
