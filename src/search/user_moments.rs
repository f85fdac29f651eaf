//! The moments of one user's events: how they spread over time, in sessions, and in which order actions come.

use std::collections::HashMap;

use crate::bounds::{ACTION_BYTES, FIRST_LOOK};
use crate::event::Record;

/// A session ends with a pause as long as this, in milliseconds.
pub const PAUSE: i64 = 30 * 60_000;
/// Most events that are kept; a page reads about as many records.
const MOST: usize = FIRST_LOOK as usize * 2;
/// Later times are mistakes, and sums of them could overflow. In milliseconds since 1970.
const YEAR_10000: i64 = 253_402_300_800_000;
/// Most actions that are told apart.
const NAMES: usize = 64;
/// The number of all other actions.
const OTHER: u16 = u16::MAX;
/// How often an order must occur to be called usual.
const USUAL: u64 = 3;

/// The times and actions of a user's events, in the order in which they were observed: newest first.
#[derive(Default)]
pub struct UserMoments {
    names: Vec<String>,
    numbers: HashMap<String, u16>,
    /// The time in milliseconds since 1970, and the number of the action.
    all: Vec<(i64, u16)>,
}

/// Events without a pause between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// The index of its newest event.
    pub start: usize,
    pub events: usize,
    /// From its oldest event to its newest, in milliseconds.
    pub length_ms: i64,
    /// From its newest event to the oldest one of the next session; `None` for the newest session.
    pub pause_ms: Option<i64>,
}

impl UserMoments {
    /// Adds an event, unless it has no time that can be true or there are too many.
    pub fn observe(&mut self, record: &Record) {
        let is_kept = |ms: &i64| (0..YEAR_10000).contains(ms) && self.all.len() < MOST;
        let Some(ms) = record.time_ms().filter(is_kept) else { return };
        let action = record.user_and_action().action;
        let number = action.filter(|action| action.len() <= ACTION_BYTES).map_or(OTHER, |action| self.number(&action));
        self.all.push((ms, number));
    }

    fn number(&mut self, action: &str) -> u16 {
        if let Some(number) = self.numbers.get(action) {
            return *number;
        }
        if self.names.len() == NAMES {
            return OTHER;
        }
        let number = self.names.len() as u16;
        self.names.push(action.to_owned());
        self.numbers.insert(action.to_owned(), number);
        number
    }

    /// Times and actions; `None` for those that are not told apart.
    pub fn iter(&self) -> impl Iterator<Item = (i64, Option<&str>)> {
        self.all.iter().map(|(ms, number)| (*ms, self.names.get(usize::from(*number)).map(String::as_str)))
    }

    /// The time from the event before to this one, in milliseconds; `None` for the oldest, and where clocks disagree.
    pub fn since_previous(&self, index: usize) -> Option<i64> {
        let (own, before) = (self.all.get(index)?.0, self.all.get(index + 1)?.0);
        Some(own.saturating_sub(before)).filter(|ms| *ms >= 0)
    }

    /// The sessions, newest first.
    pub fn sessions(&self) -> Vec<Session> {
        let mut sessions: Vec<Session> = Vec::new();
        for (index, (ms, _)) in self.all.iter().enumerate() {
            let pause_ms = index.checked_sub(1).and_then(|newer| self.since_previous(newer)).filter(|ms| *ms >= PAUSE);
            match sessions.last_mut() {
                Some(session) if pause_ms.is_none() => {
                    session.events += 1;
                    session.length_ms = session.length_ms.max(self.all[session.start].0.saturating_sub(*ms));
                }
                _ => sessions.push(Session { start: index, events: 1, length_ms: 0, pause_ms }),
            }
        }
        sessions
    }

    /// The most frequent order of three different actions that come one after the other in a session, however often each is
    /// repeated, and how often it occurs. `None` if none is frequent or two are equally so.
    pub fn usual_order(&self) -> Option<([&str; 3], u64)> {
        let mut counts: HashMap<[u16; 3], u64> = HashMap::new();
        for session in self.sessions() {
            let mut actions: Vec<u16> = self.all[session.start..session.start + session.events]
                .iter()
                .rev()
                .map(|(_, number)| *number)
                .collect();
            actions.dedup();
            for order in actions.windows(3).filter_map(|window| <[u16; 3]>::try_from(window).ok()) {
                if order[0] != order[2] && !order.contains(&OTHER) {
                    *counts.entry(order).or_default() += 1;
                }
            }
        }
        let (order, most) = counts.iter().max_by_key(|(_, count)| **count)?;
        let is_alone = counts.values().filter(|count| *count == most).count() == 1;
        (*most >= USUAL && is_alone).then(|| (order.map(|number| &*self.names[usize::from(number)]), *most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    /// The moments of events that happened at these minutes, oldest first.
    fn moments(events: &[(i64, &str)]) -> UserMoments {
        let mut moments = UserMoments::default();
        for (minute, action) in events.iter().rev() {
            let value = format!(r#"{{"user":"Ann","action":"{action}"}}"#);
            let ms = Some(minute * MINUTE);
            moments.observe(&Record::new(0, 0, ms, None, Some(value.as_bytes()), std::iter::empty()));
        }
        moments
    }

    #[test]
    fn a_pause_of_half_an_hour_ends_a_session() {
        let moments = moments(&[(0, "a"), (6, "b"), (35, "c"), (65, "d"), (66, "e")]);
        let sessions = moments.sessions();
        let expected = [
            Session { start: 0, events: 2, length_ms: MINUTE, pause_ms: None },
            Session { start: 2, events: 3, length_ms: 35 * MINUTE, pause_ms: Some(30 * MINUTE) },
        ];
        assert_eq!(sessions, expected);
        assert_eq!((moments.since_previous(0), moments.since_previous(4)), (Some(MINUTE), None));
        assert!(UserMoments::default().sessions().is_empty());
    }

    #[test]
    fn an_order_is_usual_if_no_other_is_as_frequent() {
        let day = |start: i64, actions: &[&'static str]| -> Vec<(i64, &'static str)> {
            actions.iter().enumerate().map(|(minute, action)| (start + minute as i64, *action)).collect()
        };
        let three: Vec<_> =
            (0..3).flat_map(|n| day(n * 1_000, &["login", "page_view", "page_view", "add_to_cart"])).collect();
        assert_eq!(moments(&three).usual_order(), Some((["login", "page_view", "add_to_cart"], 3)));
        assert_eq!(moments(&three[..8]).usual_order(), None, "twice is not usual");
        let both: Vec<_> = (0..3).flat_map(|n| day(n * 1_000, &["a", "b", "c", "d"])).collect();
        assert_eq!(moments(&both).usual_order(), None, "two are equally frequent");
        let apart: Vec<_> = (0..9).map(|n| (n * 100, ["a", "b", "c"][n as usize % 3])).collect();
        assert_eq!(moments(&apart).usual_order(), None, "each is a session");
    }

    #[test]
    fn memory_is_bounded_and_clocks_may_disagree() {
        let many: Vec<String> = (0..200).map(|n| format!("action {n}")).collect();
        let events: Vec<(i64, &str)> = many.iter().map(|name| (5, &**name)).chain([(3, "late")]).collect();
        let moments = moments(&events);
        assert_eq!(moments.names.len(), NAMES);
        assert_eq!(moments.iter().count(), 201);
        assert_eq!(moments.since_previous(0), None);
        assert_eq!(moments.sessions().len(), 1);
    }
}
