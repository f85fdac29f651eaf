//! Sends the events of a chunk until each is written or rejected.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;
use serde::Deserialize;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::events::{Item, Kind, Rejected};
use crate::commands::client::{Answer, Backoff, Client, NoAnswer, OneLine, explain, is_retryable};
use crate::commands::report;

/// What became of the events of a chunk.
#[derive(Default)]
pub struct Outcome {
    /// Kafka has them.
    pub written: u64,
    /// Of them: those that an earlier request wrote.
    pub replayed: u64,
    pub rejected: Vec<Rejected>,
}

/// Why sending ended before every event was written or rejected.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    #[error("gave up after {} s without progress: {why}", .after.as_secs_f64())]
    GaveUp { after: Duration, why: String },
    #[error("{0}")]
    Refused(String),
    #[error("interrupted")]
    Interrupted,
}

/// Sends events, and tries again what may succeed later.
pub struct Sender {
    pub client: Client,
    /// How long to try without progress.
    pub give_up_after: Duration,
    pub stop: CancellationToken,
    /// The trouble that was reported last; none after a success.
    trouble: RefCell<Option<String>>,
}

#[derive(Deserialize)]
struct Results {
    results: Vec<ItemResult>,
}

#[derive(Deserialize)]
struct ItemResult {
    status: u16,
    #[serde(default)]
    replayed: bool,
    #[serde(default)]
    retryable: bool,
    problem: Option<Problem>,
}

#[derive(Deserialize)]
struct Problem {
    detail: String,
    #[serde(default)]
    errors: Vec<FieldError>,
}

#[derive(Deserialize)]
struct FieldError {
    index: Option<usize>,
    pointer: String,
    detail: String,
}

impl Sender {
    pub fn new(client: Client, give_up_after: Duration, stop: CancellationToken) -> Self {
        Sender { client, give_up_after, stop, trouble: RefCell::default() }
    }

    /// Sends the items in their order: one request follows the answer to the one before.
    pub async fn deliver(&self, items: Vec<Item>) -> Result<Outcome, Ended> {
        let mut outcome = Outcome::default();
        // Requests of one kind of item each.
        let mut requests: VecDeque<Vec<Item>> = VecDeque::new();
        for item in items {
            match requests.back_mut() {
                Some(request) if request.last().is_some_and(|last| last.kind == item.kind) => request.push(item),
                _ => requests.push_back(vec![item]),
            }
        }
        let mut backoff = Backoff::default();
        let mut progress = Instant::now();
        while let Some(items) = requests.pop_front() {
            let (why, retry_after, rest) = match self.post(&items).await {
                Err(error) => (error.to_string(), None, items),
                Ok(answer) => {
                    let before = items.len();
                    match self.settle(&answer, items, &mut outcome)? {
                        Left::Retry(rest) => {
                            if rest.len() < before {
                                progress = Instant::now();
                                backoff.reset();
                            }
                            if rest.is_empty() {
                                self.trouble.replace(None);
                                continue;
                            }
                            (explain_any(&answer), answer.retry_after, rest)
                        }
                        Left::Split(first, second) => {
                            requests.push_front(second);
                            requests.push_front(first);
                            continue;
                        }
                    }
                }
            };
            requests.push_front(rest);
            let wait = backoff.next(retry_after);
            if progress.elapsed() + wait > self.give_up_after {
                return Err(Ended::GaveUp { after: self.give_up_after, why });
            }
            self.report(why);
            if self.stop.run_until_cancelled(sleep(wait)).await.is_none() {
                return Err(Ended::Interrupted);
            }
        }
        Ok(outcome)
    }

    async fn post(&self, items: &[Item]) -> Result<Answer, NoAnswer> {
        let (content_type, start, between, end) = match items.first().map(|item| item.kind) {
            Some(Kind::CloudEvent) => ("application/cloudevents-batch+json", "[", ",", "]"),
            _ => ("application/x-ndjson", "", "\n", "\n"),
        };
        let bodies: Vec<&[u8]> = items.iter().map(|item| &*item.body).collect();
        let body = [start.as_bytes(), &bodies.join(between.as_bytes()), end.as_bytes()].concat();
        self.client.post("/api/v1/events", &[(CONTENT_TYPE, content_type)], Bytes::from(body)).await
    }

    /// Adds to the outcome what an answer decides, and returns the rest.
    fn settle(&self, answer: &Answer, items: Vec<Item>, outcome: &mut Outcome) -> Result<Left, Ended> {
        let status = answer.status;
        if let Ok(Results { results }) = serde_json::from_slice(&answer.body)
            && results.len() == items.len()
        {
            let mut rest = Vec::new();
            for (item, result) in items.into_iter().zip(results) {
                match result.status {
                    200..=299 => {
                        outcome.written += 1;
                        outcome.replayed += u64::from(result.replayed);
                    }
                    _ if result.retryable || result.status >= 500 => rest.push(item),
                    status => {
                        let why = result.problem.map_or_else(|| format!("status {status}"), |problem| problem.text());
                        outcome.rejected.push(item.rejected(why));
                    }
                }
            }
            return Ok(Left::Retry(rest));
        }
        if is_retryable(status) {
            return Ok(Left::Retry(items));
        }
        if status == StatusCode::UNPROCESSABLE_ENTITY
            && let Ok(problem) = serde_json::from_slice::<Problem>(&answer.body)
            && !problem.errors.is_empty()
        {
            // No item is a valid event.
            let mut errors: BTreeMap<usize, Vec<FieldError>> = BTreeMap::new();
            for error in problem.errors {
                errors.entry(error.index.unwrap_or(0)).or_default().push(error);
            }
            for (index, item) in items.into_iter().enumerate() {
                let of_item =
                    Problem { detail: problem.detail.clone(), errors: errors.remove(&index).unwrap_or_default() };
                outcome.rejected.push(item.rejected(of_item.text()));
            }
            return Ok(Left::Retry(Vec::new()));
        }
        if matches!(status.as_u16(), 400 | 413 | 422) {
            // One item may be the reason.
            let mut items = items;
            let second = items.split_off(items.len().div_ceil(2));
            if !second.is_empty() {
                return Ok(Left::Split(items, second));
            }
            outcome.rejected.extend(items.into_iter().map(|item| item.rejected(explain(answer))));
            return Ok(Left::Retry(Vec::new()));
        }
        Err(Ended::Refused(match status.is_success() {
            true => format!("the server answered {status} without the results of the events: is it Footfall?"),
            false => explain(answer),
        }))
    }

    /// Reports trouble, once until it is over or another one.
    fn report(&self, why: String) {
        let mut trouble = self.trouble.borrow_mut();
        if trouble.as_ref() != Some(&why) {
            report(format!("{why}; trying again"));
            *trouble = Some(why);
        }
    }
}

/// What an answer leaves to do.
enum Left {
    /// Send these again. Empty: nothing.
    Retry(Vec<Item>),
    /// Send these in two requests.
    Split(Vec<Item>, Vec<Item>),
}

/// What an answer says, or the first of its results that may succeed later.
fn explain_any(answer: &Answer) -> String {
    let results = serde_json::from_slice::<Results>(&answer.body).map(|it| it.results).unwrap_or_default();
    let failed = results.into_iter().find(|result| result.retryable || result.status >= 500);
    match failed.and_then(|result| Some((result.status, result.problem?))) {
        Some((status, problem)) => format!("the server answered {status}: {}", OneLine(&problem.detail)),
        None => explain(answer),
    }
}

impl Problem {
    /// The reasons, or else the sentence.
    fn text(&self) -> String {
        let reason = |error: &FieldError| match error.pointer.is_empty() {
            true => error.detail.clone(),
            false => format!("{} {}", error.pointer, error.detail),
        };
        match self.errors.is_empty() {
            true => self.detail.clone(),
            false => self.errors.iter().map(reason).collect::<Vec<_>>().join("; "),
        }
    }
}

impl Item {
    fn rejected(self, why: String) -> Rejected {
        Rejected { line: self.line, source: Some(self.source), why }
    }
}
