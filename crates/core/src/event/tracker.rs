//! What Footfall's tracker sends: events, and how many it discarded before they were sent.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::EventId;
use super::refused::{Refused, body_text, not_an_object};
use crate::value::{MemberValue, for_each_member};

/// Most entries of a report of losses.
pub const LOSSES: usize = 20;
/// Most events of one entry. A larger quantity counts as this one.
pub const QUANTITY: u64 = 1_000_000;

const EXPECTED: &str = "expected a JSON object with `id`, `events` and perhaps `discarded`";

/// The body of a tracker's request.
#[derive(Debug)]
pub struct Tracked {
    /// A JSON array, a part of the body; `None` if it is empty.
    pub events: Option<Bytes>,
    pub report: LossReport,
}

/// The events that a tracker discarded. A report that is sent again has the same id.
#[derive(Debug, PartialEq, Eq)]
pub struct LossReport {
    pub id: EventId,
    pub losses: Vec<Loss>,
}

/// Events that a tracker discarded for one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    pub reason: LossReason,
    pub quantity: u64,
}

/// Why a tracker discarded an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LossReason {
    /// The queue of the page was full.
    QueueFull,
    /// The event is larger than the tracker or the server allows.
    TooLarge,
    /// The event cannot be written as JSON.
    Invalid,
    /// The server refused the request with the event.
    Refused,
    /// Any other reason, also one that this version does not know.
    Other,
}

impl LossReason {
    pub const ALL: [LossReason; 5] =
        [LossReason::QueueFull, LossReason::TooLarge, LossReason::Invalid, LossReason::Refused, LossReason::Other];

    /// The name in a report and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            LossReason::QueueFull => "queue_full",
            LossReason::TooLarge => "too_large",
            LossReason::Invalid => "invalid",
            LossReason::Refused => "refused",
            LossReason::Other => "other",
        }
    }

    fn parse(text: &str) -> Self {
        LossReason::ALL.into_iter().find(|reason| reason.name() == text).unwrap_or(LossReason::Other)
    }
}

/// Reads the body of a tracker's request. The events are not read yet.
///
/// # Errors
///
/// Fails if the body is not a JSON object, if `id` or `events` is missing or of the wrong type, if a member is there
/// twice, or if `discarded` is no array of objects or has more than [`LOSSES`] entries. An entry of no event is ignored,
/// and one of more than [`QUANTITY`] counts as that many: what a tracker counts wrongly must not cost it its events.
pub fn read(body: &Bytes) -> Result<Tracked, Refused> {
    let text = body_text(body)?;
    let (mut id, mut events, mut discarded, mut is_double) = (None, None, None, false);
    for_each_member(text, |name, value| {
        let member = match &*name {
            "id" => &mut id,
            "events" => &mut events,
            "discarded" => &mut discarded,
            _ => return,
        };
        is_double |= member.replace(value).is_some();
    })
    .map_err(|error| not_an_object(&error, EXPECTED))?;
    if is_double {
        return Err(wrong("`id`, `events` and `discarded` must not be there twice"));
    }
    let id = id.and_then(event_id).ok_or_else(|| wrong("`id` must be 1 to 128 visible ASCII characters"))?;
    let events: &RawValue = events.ok_or_else(|| wrong("`events` is missing; expected an array of events"))?;
    let inside = events.get().strip_prefix('[').ok_or_else(|| wrong("`events` must be an array of events"))?;
    let is_empty = inside.trim_start().starts_with(']');
    let events = (!is_empty).then(|| body.slice_ref(events.get().as_bytes()));
    let losses = discarded.map_or_else(|| Ok(Vec::new()), losses)?;
    Ok(Tracked { events, report: LossReport { id, losses } })
}

fn wrong(detail: impl Into<String>) -> Refused {
    Refused::WrongType(detail.into())
}

fn event_id(value: &RawValue) -> Option<EventId> {
    match MemberValue::read(value) {
        MemberValue::Text(text) => EventId::parse(&text),
        MemberValue::Other(_) => None,
    }
}

fn losses(value: &RawValue) -> Result<Vec<Loss>, Refused> {
    #[derive(Deserialize)]
    struct Entry<'a> {
        #[serde(borrow)]
        reason: Cow<'a, str>,
        quantity: u64,
    }
    let unreadable = |why: &str| {
        wrong(format!(
            "`discarded` must be an array of objects with `reason`, a string, and `quantity`, a whole number: {why}"
        ))
    };
    let entries: Vec<&RawValue> = serde_json::from_str(value.get()).map_err(|error| unreadable(&error.to_string()))?;
    if entries.len() > LOSSES {
        return Err(wrong(format!("`discarded` has {} entries; the maximum is {LOSSES}", entries.len())));
    }
    let loss = |entry: &RawValue| {
        // serde would read `["other", 1]` too.
        if !entry.get().starts_with('{') {
            return Err(unreadable(&format!("`{}` is no object", entry.get().chars().take(20).collect::<String>())));
        }
        let Entry { reason, quantity } =
            serde_json::from_str(entry.get()).map_err(|error| unreadable(&error.to_string()))?;
        Ok(Loss { reason: LossReason::parse(&reason), quantity: quantity.min(QUANTITY) })
    };
    let losses = entries.into_iter().map(loss);
    losses.filter(|loss| loss.as_ref().map_or(true, |loss| loss.quantity > 0)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(body: &str) -> Result<Tracked, Refused> {
        super::read(&Bytes::copy_from_slice(body.as_bytes()))
    }

    #[test]
    fn events_stay_as_they_were_sent() {
        let tracked = read(r#" {"id":"b-1", "events" : [ {"user":"a" ,"n":1.0}] ,"sent":7}"#).expect("a body");
        assert_eq!(tracked.events.as_deref(), Some(&br#"[ {"user":"a" ,"n":1.0}]"#[..]));
        assert_eq!((tracked.report.id.as_str(), tracked.report.losses), ("b-1", Vec::new()));
        assert!(read(r#"{"id":"b-1","events":[ ],"discarded":[]}"#).expect("a body").events.is_none());
    }

    proptest! {
        #[test]
        fn any_body_is_read_or_refused(
            start in "[\u{feff} \n]{0,2}",
            id in ".{0,3}",
            events in r#"[\[\]{}:, a1"\\]{0,12}"#,
        ) {
            let body = Bytes::from(format!(r#"{start}{{"id":"{id}","events":{events}}}"#));
            if let Ok(Tracked { events: Some(events), report }) = super::read(&body) {
                let items: Vec<&RawValue> = serde_json::from_slice(&events).expect("an array");
                prop_assert!(!items.is_empty() && EventId::is_valid(report.id.as_str()));
            }
        }
    }

    #[test]
    fn an_unknown_reason_is_another_one_and_quantities_are_bounded() {
        let body = r#"{"id":"b","events":[],"discarded":[
            {"reason":"queue_full","quantity":3},{"quantity":1000000,"reason":"moon\u0020light","more":1},
            {"reason":"refused","quantity":0},{"reason":"invalid","quantity":18446744073709551615}]}"#;
        let losses = [(LossReason::QueueFull, 3), (LossReason::Other, QUANTITY), (LossReason::Invalid, QUANTITY)];
        let expected: Vec<Loss> = losses.iter().map(|&(reason, quantity)| Loss { reason, quantity }).collect();
        assert_eq!(read(body).expect("a body").report.losses, expected);
        for reason in LossReason::ALL {
            assert_eq!(LossReason::parse(reason.name()), reason);
        }
    }

    #[test]
    fn what_is_no_report_is_refused_with_what_was_expected() {
        let many = format!(
            r#"{{"id":"b","events":[],"discarded":[{}]}}"#,
            [r#"{"reason":"other","quantity":1}"#; 21].join(",")
        );
        for (body, part) in [
            ("7", "a JSON object with `id`"),
            ("[]", "a JSON object with `id`"),
            ("{}", "`id` must be"),
            (r#"{"id":7,"events":[]}"#, "`id` must be"),
            (r#"{"id":"a b","events":[]}"#, "visible ASCII"),
            (r#"{"id":"b"}"#, "`events` is missing"),
            (r#"{"id":"b","events":{}}"#, "must be an array"),
            (r#"{"id":"b","events":[],"events":[]}"#, "twice"),
            (r#"{"id":"b","events":[],"discarded":{}}"#, "`discarded` must be an array"),
            (r#"{"id":"b","events":[],"discarded":[{"reason":"other"}]}"#, "quantity"),
            (r#"{"id":"b","events":[],"discarded":[{"reason":"other","quantity":-1}]}"#, "a whole number"),
            (r#"{"id":"b","events":[],"discarded":[["queue_full",3]]}"#, "`[\"queue_full\",3]` is no object"),
            (&many, "21 entries; the maximum is 20"),
        ] {
            let Err(Refused::WrongType(detail)) = read(body) else { panic!("{body}") };
            assert!(detail.contains(part), "{body}: {detail}");
        }
        assert!(matches!(read("{"), Err(Refused::NotJson(_))));
        assert!(matches!(read(" "), Err(Refused::Empty)));
    }
}
