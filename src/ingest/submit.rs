//! The only entry for events: parses, checks, writes and counts every submission, whatever its transport.
//!
//! HTTP, the form, the WebSocket, the tutorial's call and `demo` call [`Ingest::submit`]. A check that every event has
//! to pass (a key, its scope, a schema) is one more line there. This module knows no HTTP: its callers turn a
//! [`SubmitError`] or the [`Verdict`]s into their answers.

use bytes::Bytes;

use super::{Failure, Ingest, Verdict};
use crate::bounds::Address;
use crate::event::{BodyFormat, Checked, Event, EventId, FieldError, Limits, Parsed, Refused, parse, time, trace};
use crate::limits::HeavyWorkError;

/// The events of a request, with what the request says about them.
pub struct Submission<'a> {
    pub events: Events,
    pub ack: Ack,
    pub handling: Handling,
    /// The id of the event, unless it has one itself. The ids of an array's events are made of it; only with
    /// [`Handling::Strict`].
    pub idempotency_key: Option<&'a str>,
    /// The client's address; `None` for events that this process generates, which have no rate limit.
    pub client: Option<Address>,
    /// The values of `traceparent` and `tracestate` (W3C Trace Context), which become headers of the records.
    pub trace: [Option<&'a str>; 2],
}

pub enum Events {
    /// A body as it was sent.
    Body { bytes: Bytes, format: BodyFormat, shape: Shape },
    /// Events of a format that only the caller knows: a CloudEvent in the headers of a request.
    Parsed(Parsed),
    /// The event of the page's form. If the form was changed since its key was used, it is a new event with a new id.
    Form(Box<Checked>),
}

/// How many events a body may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Any,
    One,
    Array,
}

/// What the client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, utoipa::ToSchema)]
#[schema(rename_all = "lowercase", default = "all")]
pub enum Ack {
    /// The acknowledgement of all in-sync replicas.
    All,
    /// A place in the queue to Kafka.
    None,
}

/// What a refused event means for the others of its submission (RFC 7240, section 4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handling {
    /// The others are written.
    Lenient,
    /// No event is sent to Kafka if one is refused before that.
    Strict,
}

/// The verdicts on a submission, in the order of its events.
#[derive(Debug)]
pub enum Verdicts {
    One(Verdict),
    Many(Vec<Verdict>),
    /// The verdicts on the lines of a body, with their numbers, counted from 0.
    Lines(Vec<(usize, Verdict)>),
}

/// Why a submission is rejected as a whole. None of its events was sent to Kafka.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The body has no readable events, too many, or too large ones.
    #[error(transparent)]
    Body(#[from] Refused),
    #[error("expected {}", if *.0 == Shape::Array { "an array of events" } else { "one event" })]
    WrongShape(Shape),
    #[error("`Idempotency-Key` must be 1 to {} visible ASCII characters", EventId::MAX)]
    BadKey,
    #[error("`Idempotency-Key` of an array must be 1 to {ARRAY_KEY} visible ASCII characters")]
    BadKeyForArray,
    #[error(
        "`Idempotency-Key` is for a single event, or for an array with `Prefer: handling=strict`; give each event of an \
         array an `id`"
    )]
    KeyForArray,
    #[error("too many events from this address (`ingest.rate_limit`)")]
    RateLimited { retry_after_s: u64 },
    /// A large body was not parsed.
    #[error(transparent)]
    NotParsed(#[from] HeavyWorkError),
    #[error("no event came back")]
    NoVerdict,
}

impl Ingest {
    /// Accepts events and returns the outcome of each. Ends within `ingest.deadline` after the body is parsed,
    /// or twice that for a form whose fields changed.
    pub async fn submit(&self, submission: Submission<'_>) -> Result<Verdicts, SubmitError> {
        let Submission { events, ack, handling, idempotency_key, client, trace } = submission;
        let address = client.unwrap_or_else(|| Address::new(None));
        let is_form = matches!(events, Events::Form(_));
        let parsed = self.parse(events, address).await?;
        let (mut items, layout) = Layout::of(parsed);
        let renews_id = is_form && matches!(&items[..], [Ok(event)] if !event.id_was_given);
        match (idempotency_key, &layout, handling) {
            (None, ..) => {}
            (Some(key), Layout::One, _) => name_by_key(&mut items, key)?,
            (Some(_), _, Handling::Lenient) => return Err(SubmitError::KeyForArray),
            (Some(key), layout, Handling::Strict) => name_all_by_key(&mut items, layout, key)?,
        }
        let (mut events, invalid) = separate(items);
        let mut verdicts = Vec::new();
        if handling == Handling::Strict && !invalid.is_empty() {
            verdicts = events.into_iter().map(|event| withheld(event.id)).collect();
        } else if !events.is_empty() {
            if let Some(client) = client
                && let Err(retry_after_s) = self.rate_limit.check(client, events.len())
            {
                self.metrics.count_rate_limited(events.len(), invalid.len());
                return Err(SubmitError::RateLimited { retry_after_s });
            }
            add_trace(&mut events, trace);
            let again = renews_id.then(|| events.clone());
            verdicts = self.deliver(events, ack, handling, address).await;
            if let (Some(mut events), [Verdict::Failed { failure: Failure::IdReused, .. }]) = (again, &verdicts[..]) {
                events.iter_mut().for_each(|event| event.id = EventId::new());
                verdicts = self.deliver(events, ack, handling, address).await;
            }
        }
        for (index, errors) in invalid {
            verdicts.insert(index, Verdict::Invalid(errors));
        }
        self.metrics.count(&verdicts);
        match layout {
            Layout::One => verdicts.pop().map(Verdicts::One).ok_or(SubmitError::NoVerdict),
            Layout::Array => Ok(Verdicts::Many(verdicts)),
            Layout::Lines(numbers) => Ok(Verdicts::Lines(numbers.into_iter().zip(verdicts).collect())),
        }
    }

    /// The limits for submissions at this moment. An event without a time gets the current one.
    pub fn limits(&self) -> Limits {
        let event = self.settings.max_event.as_u64() as usize;
        Limits { event, batch: self.settings.max_batch, now_ms: time::now_ms() }
    }

    /// Parses events. A large body is parsed on a thread of its own.
    async fn parse(&self, events: Events, client: Address) -> Result<Parsed, SubmitError> {
        let (bytes, format, shape) = match events {
            Events::Body { bytes, format, shape } => (bytes, format, shape),
            Events::Parsed(parsed) => return Ok(parsed),
            Events::Form(checked) => return Ok(Parsed::One(checked)),
        };
        let limits = self.limits();
        let parsed = self.heavy.parse(client, bytes, move |bytes| parse(&bytes, format, &limits)).await??;
        match (&parsed, shape) {
            (Parsed::One(_), Shape::Array) | (Parsed::Many(_) | Parsed::Lines(_), Shape::One) => {
                Err(SubmitError::WrongShape(shape))
            }
            _ => Ok(parsed),
        }
    }
}

/// How the events of a body were arranged.
enum Layout {
    One,
    Array,
    /// On lines with these numbers.
    Lines(Vec<usize>),
}

impl Layout {
    fn of(parsed: Parsed) -> (Vec<Checked>, Self) {
        match parsed {
            Parsed::One(checked) => (vec![*checked], Layout::One),
            Parsed::Many(items) => (items, Layout::Array),
            Parsed::Lines(lines) => {
                let (numbers, items) = lines.into_iter().unzip();
                (items, Layout::Lines(numbers))
            }
        }
    }

    /// Returns the index that answers give the item at this place.
    fn index(&self, place: usize) -> usize {
        match self {
            Layout::Lines(numbers) => numbers.get(place).copied().unwrap_or(place),
            Layout::One | Layout::Array => place,
        }
    }
}

/// The errors of an event, with its place among the items.
type Invalid = (usize, Vec<FieldError>);

fn separate(items: Vec<Checked>) -> (Vec<Event>, Vec<Invalid>) {
    let (mut events, mut invalid) = (Vec::with_capacity(items.len()), Vec::new());
    for (index, item) in items.into_iter().enumerate() {
        match item {
            Ok(event) => events.push(event),
            Err(errors) => invalid.push((index, errors)),
        }
    }
    (events, invalid)
}

/// The verdict on a valid event of a refused request.
fn withheld(id: EventId) -> Verdict {
    Verdict::Failed { id, failure: Failure::Withheld }
}

/// Makes an `Idempotency-Key` the id of a single event that has none.
fn name_by_key(items: &mut [Checked], key: &str) -> Result<(), SubmitError> {
    for event in items.iter_mut().flatten() {
        name(event, EventId::parse(key).ok_or(SubmitError::BadKey)?);
    }
    Ok(())
}

/// Most characters of the `Idempotency-Key` of an array: a dot and an index of up to 10 digits follow it in an id.
const ARRAY_KEY: usize = EventId::MAX - 11;

/// Makes `<key>.<index>` the ids of events that have none, so that a retry of the array has the same ids.
fn name_all_by_key(items: &mut [Checked], layout: &Layout, key: &str) -> Result<(), SubmitError> {
    if key.len() > ARRAY_KEY {
        return Err(SubmitError::BadKeyForArray);
    }
    for (place, item) in items.iter_mut().enumerate() {
        let id = EventId::parse(&format!("{key}.{}", layout.index(place))).filter(|_| !key.is_empty());
        let id = id.ok_or(SubmitError::BadKeyForArray)?;
        if let Ok(event) = item {
            name(event, id);
        }
    }
    Ok(())
}

fn name(event: &mut Event, id: EventId) {
    if !event.id_was_given {
        (event.id, event.id_was_given) = (id, true);
    }
}

fn add_trace(events: &mut [Event], trace: [Option<&str>; 2]) {
    for (name, value) in [trace::PARENT, trace::STATE].into_iter().zip(trace) {
        if let Some(value) = value {
            events.iter_mut().for_each(|event| event.extra_headers.push((name.into(), value.into())));
        }
    }
}
