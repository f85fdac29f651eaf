//! Answers to submissions: the outcome of each event.

use footfall_core::schema::{Offset, Partition};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::answer::Answer;
use super::openapi;
use super::problem::{self, Kind, Problem, status};
use crate::base_path::base_path;
use crate::bounds::ERRORS;
use crate::event::{EventId, time};
use crate::ingest::{Failure, Handling, Verdict, Verdicts, Written};
use crate::rejects::Refusal;

/// Approximate bytes of the result of one event of an array.
const RESULT: usize = 200;

/// Where Kafka put the event.
#[derive(Serialize, ToSchema)]
#[schema(examples(openapi::receipt))]
pub struct Receipt<'a> {
    id: EventId,
    topic: &'a str,
    #[schema(value_type = Partition)]
    partition: i32,
    #[schema(value_type = Offset)]
    offset: i64,
    /// As submitted or the server's, in UTC.
    #[schema(format = DateTime)]
    time: String,
}

/// The answer to `ack=none`: the event is on its way to Kafka.
#[derive(Serialize, ToSchema)]
#[schema(examples(openapi::queued))]
pub struct Queued<'a> {
    id: EventId,
    topic: &'a str,
    #[schema(format = DateTime)]
    time: String,
}

/// What became of one item of an array: a receipt, or why not. `status` is what a request with this event alone would have
/// been answered.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum ItemResult<'a> {
    Written {
        #[schema(minimum = 201, maximum = 201)]
        status: u16,
        /// Of NDJSON: the number of the event's line, counted from 0.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(nullable = false)]
        index: Option<usize>,
        #[serde(flatten)]
        receipt: Receipt<'a>,
        /// True if the event was written before; nothing was written now.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        replayed: bool,
    },
    Queued {
        #[schema(minimum = 202, maximum = 202)]
        status: u16,
        /// Of NDJSON: the number of the event's line, counted from 0.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(nullable = false)]
        index: Option<usize>,
        #[serde(flatten)]
        queued: Queued<'a>,
    },
    Failed {
        #[schema(minimum = 400, maximum = 599)]
        status: u16,
        /// Of NDJSON: the number of the event's line, counted from 0.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(nullable = false)]
        index: Option<usize>,
        /// Whether sending the item again can help.
        retryable: bool,
        #[schema(value_type = problem::ProblemBody)]
        problem: Problem,
    },
}

/// What became of each event of an array.
#[derive(Serialize, ToSchema)]
#[schema(examples(json!({"results": [
    openapi::receipt_of_many(),
    {
        "status": 422,
        "retryable": false,
        "problem": {
            "type": "/problems/invalid-event",
            "title": "Invalid event",
            "status": 422,
            "detail": "one field is invalid",
            "retryable": false,
            "errors": [
                {"index": 1, "pointer": "/action", "detail": "is missing: expected a string of 1 to 200 characters"},
            ],
        },
    },
]})))]
pub struct Results<'a> {
    /// In the order sent.
    results: Vec<ItemResult<'a>>,
}

/// The answer to a submission: what became of its event, or of each of its events.
pub fn answer(topic: &str, verdicts: Verdicts, handling: Handling) -> Result<Answer, Problem> {
    let items = match verdicts {
        Verdicts::One(verdict) => return one(topic, verdict),
        Verdicts::Many(verdicts) => Items { numbers: None, verdicts },
        Verdicts::Lines(lines) => {
            let (numbers, verdicts) = lines.into_iter().unzip();
            Items { numbers: Some(numbers), verdicts }
        }
    };
    match handling {
        Handling::Lenient => items.answer(topic),
        Handling::Strict => items.all_or_nothing(topic),
    }
}

/// The answer to a request without events, as to an array.
pub fn nothing() -> Answer {
    Answer::json(200, &Results { results: Vec::new() })
}

fn one(topic: &str, verdict: Verdict) -> Result<Answer, Problem> {
    match verdict {
        Verdict::Written { id, at, replayed } => {
            let location = format!("{}/api/v1/events/{}/{}", base_path(), at.partition, at.offset);
            // A retry gets the same body as the first attempt.
            let answer = Answer::json(201, &Receipt::new(topic, id, at)).header("Location", location);
            Ok(if replayed { answer.header("Idempotent-Replayed", "true") } else { answer })
        }
        Verdict::Queued { id, time_ms } => Ok(Answer::json(202, &Queued::new(topic, id, time_ms))),
        Verdict::Invalid(errors) => Err(Problem::invalid(0, errors)),
        Verdict::Failed { id, failure } => Err(Problem::of_failure(&failure, &id)),
    }
}

/// The verdicts on the events of an array or of lines.
struct Items {
    /// The numbers of the lines, counted from 0; `None` for an array.
    numbers: Option<Vec<usize>>,
    verdicts: Vec<Verdict>,
}

impl Items {
    /// Returns the index of an item in errors: its place in the array, or the number of its line.
    fn index(&self, place: usize) -> usize {
        self.number(place).unwrap_or(place)
    }

    fn number(&self, place: usize) -> Option<usize> {
        self.numbers.as_ref()?.get(place).copied()
    }

    fn answer(self, topic: &str) -> Result<Answer, Problem> {
        if self.verdicts.iter().all(|verdict| matches!(verdict, Verdict::Invalid(_))) {
            let indexes: Vec<usize> = (0..self.verdicts.len()).map(|place| self.index(place)).collect();
            return Err(Problem::all_invalid(indexes.into_iter().zip(self.verdicts).collect()));
        }
        let first = self.verdicts.first().map_or(207, status);
        // All have the same status, so that is the status of the response.
        let status = if self.verdicts.iter().all(|verdict| status(verdict) == first) { first } else { 207 };
        let refusal = if status < 207 { None } else { self.refusal() };
        let mut body = Vec::with_capacity(16 + self.verdicts.len() * RESULT);
        let _ = serde_json::to_writer(&mut body, &Results { results: self.results(topic) }); // a Vec takes everything
        let answer = Answer::raw(status, body).refused(refusal);
        Ok(if status == 503 { answer.header("Retry-After", "1") } else { answer })
    }

    /// The answer if only success of all events is a success (`Prefer: handling=strict`, RFC 7240, section 4.4). A 4xx
    /// means that the request wrote nothing and that a retry is useless, a 503 that a retry makes sense.
    fn all_or_nothing(self, topic: &str) -> Result<Answer, Problem> {
        let is_success = |verdict: &Verdict| matches!(verdict, Verdict::Written { .. } | Verdict::Queued { .. });
        if self.verdicts.iter().all(is_success) {
            return self.answer(topic);
        }
        // Of an event that an earlier request wrote, this one wrote nothing.
        let may_have_written = |verdict: &&Verdict| {
            matches!(
                verdict,
                Verdict::Written { replayed: false, .. }
                    | Verdict::Queued { .. }
                    | Verdict::Failed { failure: Failure::Unknown, .. }
            )
        };
        let written = self.verdicts.iter().filter(may_have_written).count();
        let items = &self;
        let problems = || (0..items.verdicts.len()).filter_map(|place| items.problem(place));
        let permanent = problems().find(|(_, problem)| !problem.kind.retryable());
        let cause = permanent.or_else(|| problems().find(|(_, problem)| problem.kind != Kind::Withheld));
        let (place, problem) = match cause {
            Some((place, problem)) => (place, problem),
            None => (0, Problem::new(Kind::Unavailable, "another event of the request was refused")),
        };
        let index = self.index(place);
        let count = self.verdicts.len();
        let results = RawValue::from_string(serde_json::to_string(&self.results(topic)).unwrap_or_default());
        let results = results.unwrap_or_default();
        if written == 0 {
            return Err(problem.of_array(&format!("nothing was written, because of event {index}"), results));
        }
        let sentence =
            format!("{written} of {count} events are written or may be; send the request again. Event {index}");
        Err(Problem::new(Kind::Unavailable, problem.detail()).of_array(&sentence, results))
    }

    /// Returns the problem of an item, with its place, unless it succeeded.
    fn problem(&self, place: usize) -> Option<(usize, Problem)> {
        let problem = match self.verdicts.get(place)? {
            Verdict::Written { .. } | Verdict::Queued { .. } => return None,
            Verdict::Invalid(errors) => Problem::invalid(self.index(place), errors.clone()),
            Verdict::Failed { id, failure } => Problem::of_failure(failure, id),
        };
        Some((place, problem))
    }

    /// Returns why items were refused for good: the first of them, and how many there are.
    fn refusal(&self) -> Option<Refusal> {
        let places = 0..self.verdicts.len();
        let mut refused = places.filter_map(|place| {
            let (place, problem) = self.problem(place)?;
            Some((place, problem.refusal()?))
        });
        let (place, first) = refused.next()?;
        Some(Refusal { index: Some(self.index(place)), events: 1 + refused.count(), ..first })
    }

    /// Returns what became of each item. All together have no more errors than [`ERRORS`], and each invalid one at least
    /// one.
    fn results(self, topic: &str) -> Vec<ItemResult<'_>> {
        let Items { numbers, verdicts } = self;
        let mut errors_left = ERRORS;
        let result = |(place, verdict)| {
            let number = numbers.as_ref().and_then(|numbers| numbers.get(place).copied());
            ItemResult::new(topic, place, number, verdict, &mut errors_left)
        };
        verdicts.into_iter().enumerate().map(result).collect()
    }
}

impl<'a> Receipt<'a> {
    pub fn new(topic: &'a str, id: EventId, Written { partition, offset, time_ms }: Written) -> Self {
        Receipt { id, topic, partition, offset, time: time::format_ms(time_ms) }
    }
}

impl<'a> Queued<'a> {
    fn new(topic: &'a str, id: EventId, time_ms: i64) -> Self {
        Queued { id, topic, time: time::format_ms(time_ms) }
    }
}

impl<'a> ItemResult<'a> {
    /// What became of the event at this place of an array, or on the line of this number. All items together have no more
    /// errors than `errors_left`, and each at least one.
    fn new(topic: &'a str, place: usize, index: Option<usize>, verdict: Verdict, errors_left: &mut usize) -> Self {
        let problem = match verdict {
            Verdict::Written { id, at, replayed } => {
                return ItemResult::Written { status: 201, index, receipt: Receipt::new(topic, id, at), replayed };
            }
            Verdict::Queued { id, time_ms } => {
                return ItemResult::Queued { status: 202, index, queued: Queued::new(topic, id, time_ms) };
            }
            Verdict::Invalid(mut errors) => {
                errors.truncate((*errors_left).max(1));
                *errors_left = errors_left.saturating_sub(errors.len());
                Problem::invalid(index.unwrap_or(place), errors)
            }
            Verdict::Failed { id, failure } => Problem::of_failure(&failure, &id),
        };
        ItemResult::Failed { status: problem.kind.status(), index, retryable: problem.kind.retryable(), problem }
    }
}
