//! What the inputs of a page suggest: the users, actions and fields of the newest records in memory.

use std::collections::HashMap;

use footfall_core::Pointer;

use crate::event::Record;
use crate::feed::{Feed, Filter};
use crate::web::views::members;

/// Most names of a list.
const NAMES: usize = 20;
/// Records that are looked at, and most bytes of them, because they are parsed.
const LOOKED_AT: usize = 500;
const LOOKED_AT_BYTES: usize = 1 << 20;
/// Longer names are not suggested.
const NAME_CHARS: usize = 200;

/// The most frequent users, actions and fields, the most frequent first.
#[derive(Default)]
pub struct Suggestions {
    pub users: Vec<Counted>,
    pub actions: Vec<Counted>,
    /// Names of members of the event; a name that begins with a slash is written as a pointer.
    pub fields: Vec<Counted>,
}

/// A name, and how often it occurs.
pub struct Counted {
    pub name: String,
    pub count: usize,
}

impl Suggestions {
    /// Counts the newest records in memory. Parses them.
    pub fn of(feed: &Feed) -> Self {
        let (latest, _) = feed.latest(&Filter::default(), LOOKED_AT);
        let (mut users, mut actions, mut fields) = (Counts::default(), Counts::default(), Counts::default());
        let mut bytes = 0;
        let within = |record: &&Record| {
            bytes += record.size();
            bytes <= LOOKED_AT_BYTES
        };
        for record in latest.iter().take_while(within) {
            let columns = record.user_and_action();
            columns.user.iter().for_each(|user| users.add(user));
            columns.action.iter().for_each(|action| actions.add(action));
            for (name, _) in record.event_json().and_then(members).unwrap_or_default() {
                match &*name {
                    "user" | "action" => {}
                    name if name.starts_with('/') => fields.add(&Pointer::to_member(name).to_string()),
                    name => fields.add(name),
                }
            }
        }
        Suggestions { users: users.most(), actions: actions.most(), fields: fields.most() }
    }
}

#[derive(Default)]
struct Counts(HashMap<String, usize>);

impl Counts {
    fn add(&mut self, name: &str) {
        match self.0.get_mut(name) {
            Some(count) => *count += 1,
            None if name.is_empty() || name.chars().count() > NAME_CHARS => {}
            None => _ = self.0.insert(name.to_owned(), 1),
        }
    }

    fn most(self) -> Vec<Counted> {
        let mut names: Vec<Counted> = self.0.into_iter().map(|(name, count)| Counted { name, count }).collect();
        names.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.name.cmp(&b.name)));
        names.truncate(NAMES);
        names
    }
}
