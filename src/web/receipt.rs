//! Answers to submissions: what became of an event, or of each of several.

use serde::Serialize;

use super::answer::Answer;
use super::problem::{Problem, status};
use crate::bounds::ERRORS;
use crate::event::{EventId, time};
use crate::ingest::{Verdict, Verdicts, Written};

/// Bytes of the answer about one event of many, about.
const RESULT: usize = 200;

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
            let answer = Answer::json(201, &ReceiptBody::alone(topic, &id, at)).header("Location", location);
            Ok(if replayed { answer.header("Idempotent-Replayed", "true") } else { answer })
        }
        Verdict::Queued { id, time_ms } => Ok(Answer::json(202, &QueuedBody::new(topic, &id, time_ms, None))),
        Verdict::Invalid(errors) => Err(Problem::invalid(0, errors)),
        Verdict::Failed { id, failure } => Err(Problem::of_failure(&failure, &id)),
    }
}

fn many(topic: &str, verdicts: Vec<Verdict>) -> Result<Answer, Problem> {
    if verdicts.iter().all(|verdict| matches!(verdict, Verdict::Invalid(_))) {
        return Err(Problem::all_invalid(verdicts));
    }
    let first = status(&verdicts[0]);
    // All for the same reason, good or bad: the request's own status says it.
    let status = if verdicts.iter().all(|verdict| status(verdict) == first) { first } else { 207 };
    let mut body = Vec::with_capacity(16 + verdicts.len() * RESULT);
    let mut errors_left = ERRORS;
    body.extend_from_slice(b"{\"results\":[");
    for (index, verdict) in verdicts.into_iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        write_item(&mut body, topic, index, verdict, &mut errors_left);
    }
    body.extend_from_slice(b"]}");
    let answer = Answer::raw(status, body);
    Ok(if status == 503 { answer.header("Retry-After", "1") } else { answer })
}

/// Appends what became of one event of an array.
fn write_item(out: &mut Vec<u8>, topic: &str, index: usize, verdict: Verdict, errors_left: &mut usize) {
    let problem = match verdict {
        // Writing into a Vec cannot fail.
        Verdict::Written { id, at, replayed } => {
            let _ = serde_json::to_writer(out, &ReceiptBody::item(topic, &id, at, replayed));
            return;
        }
        Verdict::Queued { id, time_ms } => {
            let _ = serde_json::to_writer(out, &QueuedBody::new(topic, &id, time_ms, Some(202)));
            return;
        }
        Verdict::Invalid(mut errors) => {
            errors.truncate((*errors_left).max(1));
            *errors_left = errors_left.saturating_sub(errors.len());
            Problem::invalid(index, errors)
        }
        Verdict::Failed { id, failure } => Problem::of_failure(&failure, &id),
    };
    let _ = serde_json::to_writer(out, &problem.body_of_result(Some(problem.kind.status())));
}

/// A receipt as it is answered.
#[derive(Serialize)]
pub struct ReceiptBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    id: &'a str,
    topic: &'a str,
    partition: i32,
    offset: i64,
    time: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    replayed: bool,
}

impl<'a> ReceiptBody<'a> {
    /// On its own: a retry gets the same body as the first attempt, and a header says that it is a replay.
    pub fn alone(topic: &'a str, id: &'a EventId, Written { partition, offset, time_ms }: Written) -> Self {
        let time = time::format_ms(time_ms);
        ReceiptBody { status: None, id: id.as_str(), topic, partition, offset, time, replayed: false }
    }

    /// One of many.
    fn item(topic: &'a str, id: &'a EventId, at: Written, replayed: bool) -> Self {
        ReceiptBody { status: Some(201), replayed, ..Self::alone(topic, id, at) }
    }
}

/// An event that is in the queue to Kafka.
#[derive(Serialize)]
struct QueuedBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    id: &'a str,
    topic: &'a str,
    time: String,
}

impl<'a> QueuedBody<'a> {
    fn new(topic: &'a str, id: &'a EventId, time_ms: i64, status: Option<u16>) -> Self {
        QueuedBody { status, id: id.as_str(), topic, time: time::format_ms(time_ms) }
    }
}
