//! Checks every message as a careful client would: the cursor moves exactly over what was sent.

use std::fmt;

use serde_json::Value;

use super::sse::SseMessage;

/// The next offset of every partition, as the contract writes it: `0-812.1-790.2-455`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor(pub Vec<i64>);

impl Cursor {
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        let positions = text.split('.').enumerate().map(|(index, part)| {
            let (partition, next) = part.split_once('-').unwrap_or_else(|| panic!("no cursor: {text:?}"));
            assert_eq!(partition, index.to_string(), "no cursor: {text:?}");
            let next: i64 = next.parse().unwrap_or_else(|_| panic!("no cursor: {text:?}"));
            assert!(next >= 0, "no cursor: {text:?}");
            next
        });
        Cursor(positions.collect())
    }

    pub fn get(&self, partition: i64) -> i64 {
        self.0.get(partition as usize).copied().unwrap_or(0)
    }

    fn set(&mut self, partition: i64, next: i64) {
        if self.0.len() <= partition as usize {
            self.0.resize(partition as usize + 1, 0);
        }
        self.0[partition as usize] = next;
    }

    /// Whether everything before `other` is before this.
    pub fn covers(&self, other: &Cursor) -> bool {
        (0..other.0.len() as i64).all(|partition| self.get(partition) >= other.get(partition))
    }

    pub fn distance(&self, to: &Cursor) -> i64 {
        (0..to.0.len() as i64).map(|partition| to.get(partition) - self.get(partition)).sum()
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> =
            self.0.iter().enumerate().map(|(partition, next)| format!("{partition}-{next}")).collect();
        f.write_str(&parts.join("."))
    }
}

/// Follows a stream without a filter from a known place and panics at anything missing, doubled or out of order.
pub struct Follower {
    pub place: Cursor,
    /// Partition, offset and value of the received records.
    pub records: Vec<(i64, i64, Value)>,
    /// The number of records reported as not sent.
    pub dropped: i64,
    /// The number of records reported as missing in gaps.
    pub missed: i64,
    /// Reasons of the received gaps.
    pub gaps: Vec<String>,
    allowed: &'static [&'static str],
}

impl Follower {
    #[track_caller]
    pub fn from(place: &str) -> Self {
        let place = Cursor::parse(place);
        Follower { place, records: Vec::new(), dropped: 0, missed: 0, gaps: Vec::new(), allowed: &[] }
    }

    /// Gaps for these reasons are allowed.
    pub fn allowing(mut self, reasons: &'static [&'static str]) -> Self {
        self.allowed = reasons;
        self
    }

    /// A frame without data has the cursor of what was sent, and no later one.
    #[track_caller]
    pub fn check_silent(&self, last_event_id: &str) {
        if last_event_id.is_empty() {
            return; // the first bytes while Kafka is unreachable
        }
        let sent = Cursor::parse(last_event_id);
        assert!(sent.covers(&self.place) && self.place.covers(&sent), "{sent} was sent at {}", self.place);
    }

    #[track_caller]
    pub fn take(&mut self, message: &SseMessage) {
        let after = Cursor::parse(&message.last_event_id);
        let data = message.json();
        match message.event.as_str() {
            "message" => {
                let number = |name: &str| data[name].as_i64().unwrap_or_else(|| panic!("no {name}: {data}"));
                let (partition, offset) = (number("partition"), number("offset"));
                assert_eq!(
                    offset,
                    self.place.get(partition),
                    "missing or doubled before {partition}-{offset} at {}",
                    self.place
                );
                self.place.set(partition, offset + 1);
                assert!(after.covers(&self.place) && self.place.covers(&after), "{after} of {partition}-{offset}");
                self.place = after;
                self.records.push((partition, offset, data["value"].clone()));
            }
            "dropped" => {
                let cursor =
                    |name: &str| Cursor::parse(data[name].as_str().unwrap_or_else(|| panic!("no {name}: {data}")));
                assert_eq!(cursor("from"), self.place, "dropped starts where the last message ended");
                let count = data["count"].as_i64().expect("a count");
                assert_eq!(count, self.place.distance(&cursor("to")), "{data} at {}", self.place);
                assert_eq!(after, cursor("to"));
                self.dropped += count;
                self.place = after;
            }
            "gap" if data["reason"].as_str().is_some_and(|reason| self.allowed.contains(&reason)) => {
                let resumed = Cursor::parse(data["resumed"].as_str().expect("a cursor"));
                let requested = Cursor::parse(data["requested"].as_str().expect("a cursor"));
                assert!(requested.covers(&self.place) && self.place.covers(&requested), "{data} at {}", self.place);
                assert_eq!(after, resumed, "{data}");
                if let Some(missed) = data["missed"].as_i64() {
                    assert_eq!(missed, self.place.distance(&resumed), "{data} at {}", self.place);
                    self.missed += missed;
                }
                self.gaps.push(data["reason"].as_str().unwrap_or_default().to_owned());
                self.place = resumed;
            }
            "position" => self.check_silent(&message.last_event_id),
            "bye" | "status" => {}
            other => panic!("unexpected {other}: {data}"),
        }
    }

    /// Takes messages until it has seen this many records.
    pub fn take_until(&mut self, seen: i64, mut next: impl FnMut() -> SseMessage) {
        while self.seen() < seen {
            self.take(&next());
        }
    }

    /// The number of records and drops so far.
    pub fn seen(&self) -> i64 {
        self.records.len() as i64 + self.dropped
    }
}
