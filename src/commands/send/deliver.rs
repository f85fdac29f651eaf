//! Sends the events of a chunk until each is written or rejected.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::events::{Item, Kind, Rejected};
use crate::commands::client::{Answer, Backoff, Client, NoAnswer, OneLine, explain, is_retryable};
use crate::commands::report;

/// The type of the problem of an event.
const INVALID_EVENT: &str = "/problems/invalid-event";

/// How long requests in flight may take after a signal.
const GRACE: Duration = Duration::from_secs(5);

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
    client: Client,
    /// How long to try without progress.
    give_up_after: Duration,
    /// Cancelled by the first signal.
    stop: CancellationToken,
    /// Cancelled [`GRACE`] later.
    abort: CancellationToken,
    /// The problem that was reported last; `None` after a success.
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
    #[serde(rename = "type", default)]
    kind: String,
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
        let abort = CancellationToken::new();
        let (signal, late) = (stop.clone(), abort.clone());
        tokio::spawn(async move {
            signal.cancelled().await;
            sleep(GRACE).await;
            late.cancel();
        });
        Sender { client, give_up_after, stop, abort, trouble: RefCell::default() }
    }

    /// Sends the items in their order: one request follows the answer to the one before. If that ends early, the outcome
    /// has what was decided until then.
    pub async fn deliver(&self, items: Vec<Item>, outcome: &mut Outcome) -> Result<(), Ended> {
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
            let left = self.give_up_after.saturating_sub(progress.elapsed());
            let attempt = timeout(left, self.post(&items));
            let (why, retry_after, rest) = match self.abort.run_until_cancelled(attempt).await {
                None => return Err(Ended::Interrupted),
                Some(Err(_)) => {
                    let why = "the server does not answer".to_owned();
                    return Err(Ended::GaveUp { after: self.give_up_after, why });
                }
                Some(Ok(Err(error))) => (error.to_string(), None, items),
                Some(Ok(Ok(answer))) => {
                    let before = items.len();
                    match self.settle(&answer, items, outcome)? {
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
                        Left::Split(parts) => {
                            progress = Instant::now();
                            parts.into_iter().rev().for_each(|part| requests.push_front(part));
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
        Ok(())
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
        // Only Footfall itself judges events: another server's 400 has other reasons.
        let mut problem = serde_json::from_slice::<Problem>(&answer.body).ok().filter(|it| it.is_about_events());
        if let Some(Problem { detail, errors, .. }) = problem.as_mut().filter(|it| it.kind == INVALID_EVENT) {
            // No item is a valid event.
            let mut of_items: BTreeMap<usize, Vec<FieldError>> = BTreeMap::new();
            for error in std::mem::take(errors) {
                of_items.entry(error.index.unwrap_or(0)).or_default().push(error);
            }
            let before = items.len();
            let mut rest = Vec::new();
            for (index, item) in items.into_iter().enumerate() {
                match of_items.remove(&index) {
                    Some(reasons) => outcome.rejected.push(item.rejected(reasons_of(&reasons))),
                    None => rest.push(item),
                }
            }
            // The server names at most 1,000 reasons: it is asked again for the other items.
            if rest.len() < before {
                return Ok(Left::Split(if rest.is_empty() { vec![] } else { vec![rest] }));
            }
            return Ok(split(rest, |item| outcome.rejected.push(item.rejected(detail.clone()))));
        }
        if let Some(Problem { detail, .. }) = problem {
            return Ok(split(items, |item| outcome.rejected.push(item.rejected(detail))));
        }
        if status == StatusCode::PAYLOAD_TOO_LARGE && items.len() > 1 {
            return Ok(split(items, drop)); // a proxy may take less than Footfall
        }
        Err(Ended::Refused(match status.is_success() {
            true => format!("the server answered {status} without the results of the events: is it Footfall?"),
            false => explain(answer),
        }))
    }

    /// Reports a problem, unless it is the one that was reported last.
    fn report(&self, why: String) {
        let mut trouble = self.trouble.borrow_mut();
        if trouble.as_ref() != Some(&why) {
            report(format!("{why}; trying again"));
            *trouble = Some(why);
        }
    }
}

/// What remains to be sent after an answer.
enum Left {
    /// These, after a wait. Empty: nothing.
    Retry(Vec<Item>),
    /// These at once, each part in a request.
    Split(Vec<Vec<Item>>),
}

/// Halves a request of which one item may be the reason for its refusal. Passes the last one to `refuse`.
fn split(mut items: Vec<Item>, refuse: impl FnOnce(Item)) -> Left {
    let second = items.split_off(items.len().div_ceil(2));
    if !second.is_empty() {
        return Left::Split(vec![items, second]);
    }
    items.into_iter().next().map(refuse);
    Left::Retry(Vec::new())
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
    /// Whether Footfall refuses the events, and not the request.
    fn is_about_events(&self) -> bool {
        [INVALID_EVENT, "/problems/not-json", "/problems/too-large"].contains(&&*self.kind)
    }

    /// The reasons, or else the sentence.
    fn text(&self) -> String {
        match self.errors.is_empty() {
            true => self.detail.clone(),
            false => reasons_of(&self.errors),
        }
    }
}

fn reasons_of(errors: &[FieldError]) -> String {
    let reason = |error: &FieldError| match error.pointer.is_empty() {
        true => error.detail.clone(),
        false => format!("{} {}", error.pointer, error.detail),
    };
    errors.iter().map(reason).collect::<Vec<_>>().join("; ")
}

impl Item {
    fn rejected(self, why: String) -> Rejected {
        Rejected { line: self.line, source: Some(self.source), why }
    }
}
