//! Answers to submissions: the outcome of each event.

use footfall_core::schema::{Offset, Partition};
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::Answer;
use super::openapi;
use super::problem::{self, Problem, status};
use crate::bounds::ERRORS;
use crate::event::{EventId, time};
use crate::ingest::{Verdict, Verdicts, Written};

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
        #[serde(flatten)]
        receipt: Receipt<'a>,
        /// True if the event was written before; nothing was written now.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        replayed: bool,
    },
    Queued {
        #[schema(minimum = 202, maximum = 202)]
        status: u16,
        #[serde(flatten)]
        queued: Queued<'a>,
    },
    Failed {
        #[schema(minimum = 400, maximum = 599)]
        status: u16,
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
pub fn answer(topic: &str, verdicts: Verdicts) -> Result<Answer, Problem> {
    match verdicts {
        Verdicts::One(verdict) => one(topic, verdict),
        Verdicts::Many(verdicts) => many(topic, verdicts),
    }
}

fn one(topic: &str, verdict: Verdict) -> Result<Answer, Problem> {
    match verdict {
        Verdict::Written { id, at, replayed } => {
            let location = format!("/api/v1/events/{}/{}", at.partition, at.offset);
            // A retry gets the same body as the first attempt.
            let answer = Answer::json(201, &Receipt::new(topic, id, at)).header("Location", location);
            Ok(if replayed { answer.header("Idempotent-Replayed", "true") } else { answer })
        }
        Verdict::Queued { id, time_ms } => Ok(Answer::json(202, &Queued::new(topic, id, time_ms))),
        Verdict::Invalid(errors) => Err(Problem::invalid(0, errors)),
        Verdict::Failed { id, failure } => Err(Problem::of_failure(&failure, &id)),
    }
}

fn many(topic: &str, verdicts: Vec<Verdict>) -> Result<Answer, Problem> {
    if verdicts.iter().all(|verdict| matches!(verdict, Verdict::Invalid(_))) {
        return Err(Problem::all_invalid(verdicts));
    }
    let first = status(&verdicts[0]);
    // All have the same status, so that is the status of the response.
    let status = if verdicts.iter().all(|verdict| status(verdict) == first) { first } else { 207 };
    let mut body = Vec::with_capacity(16 + verdicts.len() * RESULT);
    let mut errors_left = ERRORS;
    let items = verdicts.into_iter().enumerate();
    let results = items.map(|(index, verdict)| ItemResult::new(topic, index, verdict, &mut errors_left)).collect();
    let _ = serde_json::to_writer(&mut body, &Results { results }); // writing into a Vec cannot fail
    let answer = Answer::raw(status, body);
    Ok(if status == 503 { answer.header("Retry-After", "1") } else { answer })
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
    /// What became of the event at this index of an array. All items together have no more errors than `errors_left`, and
    /// each at least one.
    fn new(topic: &'a str, index: usize, verdict: Verdict, errors_left: &mut usize) -> Self {
        let problem = match verdict {
            Verdict::Written { id, at, replayed } => {
                return ItemResult::Written { status: 201, receipt: Receipt::new(topic, id, at), replayed };
            }
            Verdict::Queued { id, time_ms } => {
                return ItemResult::Queued { status: 202, queued: Queued::new(topic, id, time_ms) };
            }
            Verdict::Invalid(mut errors) => {
                errors.truncate((*errors_left).max(1));
                *errors_left = errors_left.saturating_sub(errors.len());
                Problem::invalid(index, errors)
            }
            Verdict::Failed { id, failure } => Problem::of_failure(&failure, &id),
        };
        ItemResult::Failed { status: problem.kind.status(), retryable: problem.kind.retryable(), problem }
    }
}
