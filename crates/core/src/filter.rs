use crate::{Record, Text};

/// Which records a subscription or a search returns. Values of the same field are alternatives; different fields must
/// all match.
#[derive(Debug, Default, Clone)]
pub struct Filter {
    pub users: Vec<String>,
    pub actions: Vec<String>,
    pub partitions: Vec<i32>,
    /// Texts in the value.
    pub texts: Vec<Text>,
}

impl Filter {
    /// Whether every record matches.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.actions.is_empty() && self.partitions.is_empty() && self.texts.is_empty()
    }

    pub fn matches(&self, record: &Record) -> bool {
        if !self.partitions.is_empty() && !self.partitions.contains(&record.partition()) {
            return false;
        }
        if !self.texts.is_empty() {
            let value = record.value().unwrap_or_default();
            if !self.texts.iter().any(|text| text.is_in(value)) {
                return false;
            }
        }
        if self.users.is_empty() && self.actions.is_empty() {
            return true;
        }
        let fields = record.user_and_action();
        let among = |wanted: &[String], field: Option<&str>| {
            wanted.is_empty() || field.is_some_and(|field| wanted.iter().any(|one| one == field))
        };
        among(&self.users, fields.user.as_deref()) && among(&self.actions, fields.action.as_deref())
    }

    /// Returns a text that is equal for equal filters, so that subscriptions can share encodings.
    pub fn key(&self) -> String {
        let mut parts: Vec<String> = Vec::new();
        parts.extend(self.users.iter().map(|user| format!("u{user:?}")));
        parts.extend(self.actions.iter().map(|action| format!("a{action:?}")));
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
            partitions: Vec::new(),
            texts: q.iter().map(|q| Text::seen(q)).collect(),
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
        assert_ne!(one.key(), Filter { actions: vec!["a".into(), "b".into()], ..Filter::default() }.key());
    }
}
