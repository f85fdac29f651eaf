//! Errors as problem details (RFC 9457), and the only table from error to status.
//!
//! Names no page: for browsers, `pages/error.rs` replaces the JSON by a page.

use rocket::Request;
use rocket::http::{ContentType, Header, Status};
use rocket::response::{Responder, Result};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::openapi::schema::ArrayBuilder;
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::answer::Answer;
use super::rejects;
use super::trace::Trace;
use crate::ephemeral::ForgetError;
use crate::event::{EventId, FieldError, Refused};
use crate::ingest::{Failure, SubmitError, Verdict};
use crate::kafka::{HistoryError, InspectError, ReadError};
use crate::limits::HeavyWorkError;
use crate::rejects::Refusal;
use crate::search::SearchError;
use crate::stream::OpenError;

macro_rules! kinds {
    ($($kind:ident $slug:tt $status:literal $title:literal $retryable:literal;)+) => {
        /// What went wrong. More types may be added: treat an unknown one by its `status`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
        #[schema(as = ProblemType)]
        pub enum Kind {
            $(#[serde(rename = $slug)] $kind),+
        }

        impl Kind {
            /// Status, title, and whether the same request may succeed later.
            fn facts(self) -> (u16, &'static str, bool) {
                match self {
                    $(Kind::$kind => ($status, $title, $retryable)),+
                }
            }

            /// The `type` of its problems.
            pub fn slug(self) -> &'static str {
                match self {
                    $(Kind::$kind => $slug),+
                }
            }
        }
    };
}

kinds! {
    NotJson "/problems/not-json" 400 "Not JSON" false;
    BadParameter "/problems/bad-parameter" 400 "Invalid parameter" false;
    BadRequest "/problems/bad-request" 400 "Invalid request" false;
    CrossSite "/problems/cross-site" 403 "Cross-site request blocked" false;
    NotFound "/problems/not-found" 404 "Not found" false;
    MethodNotAllowed "/problems/method-not-allowed" 405 "Method not allowed" false;
    RequestTimeout "/problems/request-timeout" 408 "Request timed out" true;
    TooLarge "/problems/too-large" 413 "Too large" false;
    UriTooLong "/problems/uri-too-long" 414 "URI too long" false;
    UnsupportedType "/problems/unsupported-type" 415 "Content type not supported" false;
    Misdirected "/problems/misdirected" 421 "Unknown host name" false;
    Withheld "/problems/withheld" 424 "Another event of the request was refused" true;
    UpgradeRequired "/problems/upgrade-required" 426 "WebSocket only" false;
    InvalidEvent "/problems/invalid-event" 422 "Invalid event" false;
    IdReused "/problems/id-reused" 422 "Id already used by another event" false;
    Refused "/problems/refused-by-kafka" 422 "Rejected by Kafka" false;
    TooManyRequests "/problems/too-many-requests" 429 "Too many events" true;
    HeadersTooLarge "/problems/headers-too-large" 431 "Headers too large" false;
    Internal "/problems/internal" 500 "Internal error" true;
    NotImplemented "/problems/not-possible-here" 501 "Not supported by this broker" false;
    Unavailable "/problems/unavailable" 503 "Temporarily unavailable" true;
    HeldUp "/problems/held-up" 503 "Blocked by an open transaction" true;
    Timeout "/problems/timeout" 504 "No answer from Kafka in time" true;
}

impl Kind {
    pub fn status(self) -> u16 {
        self.facts().0
    }

    pub fn title(self) -> &'static str {
        self.facts().1
    }

    /// Whether the same request may succeed later.
    pub fn retryable(self) -> bool {
        self.facts().2
    }

    /// Whether it is the fault of what was sent: the same request never succeeds.
    fn is_refusal(self) -> bool {
        !self.retryable() && self.status() < 500
    }

    fn of_failure(failure: &Failure) -> Self {
        match failure {
            Failure::IdReused => Kind::IdReused,
            Failure::Unavailable(_) => Kind::Unavailable,
            Failure::Unknown => Kind::Timeout,
            Failure::Refused(_) => Kind::Refused,
            Failure::Withheld => Kind::Withheld,
        }
    }
}

/// Whether an event is refused for good.
pub fn is_refused(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Written { .. } | Verdict::Queued { .. } => false,
        Verdict::Invalid(_) => true,
        Verdict::Failed { failure, .. } => Kind::of_failure(failure).is_refusal(),
    }
}

/// Returns the status for the outcome of an event.
pub fn status(verdict: &Verdict) -> u16 {
    match verdict {
        Verdict::Written { .. } => 201,
        Verdict::Queued { .. } => 202,
        Verdict::Invalid(_) => Kind::InvalidEvent.status(),
        Verdict::Failed { failure, .. } => Kind::of_failure(failure).status(),
    }
}

/// One thing that is wrong with an event.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FieldError)]
struct IndexedError {
    /// The event's place in the array; 0 for one event.
    index: usize,
    /// JSON Pointer into the event.
    pointer: String,
    detail: String,
}

impl IndexedError {
    fn new(index: usize, FieldError { pointer, detail }: FieldError) -> Self {
        IndexedError { index, pointer, detail }
    }
}

/// A problem details object.
#[derive(Debug)]
pub struct Problem {
    pub kind: Kind,
    detail: String,
    errors: Vec<IndexedError>,
    /// The id to retry with, where the outcome is unknown.
    id: Option<EventId>,
    /// What became of each event of an array, as JSON.
    results: Option<Box<RawValue>>,
    /// Of an array: the index of the first refused event, and how many were refused.
    refused: Option<Box<(usize, usize)>>,
    /// Whether the body has what Segment's SDKs look for.
    for_segment: bool,
    headers: Vec<(&'static str, String)>,
}

/// A problem (RFC 9457). Decide by `status`, and by `type` where a status has several; docs/api.md lists the types.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem, examples(json!({
    "type": "/problems/invalid-event",
    "title": "Invalid event",
    "status": 422,
    "detail": "one field is invalid",
    "retryable": false,
    "errors": [{"index": 0, "pointer": "/user", "detail": "must not be blank"}],
    "request_id": "019ab0b6-7d7a-7f00-9d3e-0c8a1b2c3d4e",
})))]
pub struct ProblemBody<'a> {
    #[serde(rename = "type")]
    kind: Kind,
    title: &'static str,
    status: u16,
    detail: &'a str,
    retryable: bool,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [IndexedError],
    /// With 504: the event may or may not have been written.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    outcome: Option<Outcome>,
    /// With 504: the id to retry with, as `Idempotency-Key` if the body has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    id: Option<&'a EventId>,
    /// With `Prefer: handling=strict`: what became of each event of an array.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = ItemResults, nullable = false, required = false)]
    results: Option<&'a RawValue>,
    /// Of Segment's calls: `type`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    code: Option<Kind>,
    /// Of Segment's calls: `detail`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    request_id: Option<&'a str>,
}

/// The results of the events of an array. `receipt.rs` writes them.
enum ItemResults {}

impl PartialSchema for ItemResults {
    fn schema() -> RefOr<Schema> {
        ArrayBuilder::new().items(Ref::from_schema_name("ItemResult")).into()
    }
}

impl ToSchema for ItemResults {}

/// What is known of an event for which there was no acknowledgement.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Unknown,
}

impl Problem {
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let (errors, headers) = (Vec::new(), Vec::new());
        let mut problem = Problem {
            kind,
            detail: detail.into(),
            errors,
            id: None,
            results: None,
            refused: None,
            for_segment: false,
            headers,
        };
        if matches!(kind, Kind::Unavailable | Kind::HeldUp | Kind::TooManyRequests) {
            problem.headers.push(("Retry-After", "1".into()));
        }
        problem
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The errors of an event, with its index in the request.
    pub fn invalid(index: usize, errors: Vec<FieldError>) -> Self {
        let detail = match errors.len() {
            1 => "one field is invalid".to_owned(),
            n => format!("{n} fields are invalid"),
        };
        Problem::new(Kind::InvalidEvent, detail).with_errors(index, errors)
    }

    /// An array of events that are all invalid, with their indexes.
    pub fn all_invalid(verdicts: Vec<(usize, Verdict)>) -> Self {
        let detail = format!("{} events, none of them valid", verdicts.len());
        let mut problem = Problem::new(Kind::InvalidEvent, detail);
        problem.refused = verdicts.first().map(|(index, _)| Box::new((*index, verdicts.len())));
        for (index, verdict) in verdicts {
            if let Verdict::Invalid(errors) = verdict {
                problem = problem.with_errors(index, errors);
            }
        }
        problem
    }

    fn with_errors(mut self, index: usize, errors: Vec<FieldError>) -> Self {
        let room = crate::bounds::ERRORS.saturating_sub(self.errors.len());
        self.errors.extend(errors.into_iter().take(room).map(|error| IndexedError::new(index, error)));
        self
    }

    /// The problem of a whole array: that of one of its events, with a sentence before it, and with what became of each
    /// event, as JSON. `refused` is the place of that event, and how many were refused.
    pub fn of_array(mut self, sentence: &str, results: Box<RawValue>, refused: (usize, usize)) -> Self {
        self.refused = Some(refused.into());
        self.detail = format!("{sentence}: {}", self.detail);
        self.results = Some(results);
        self
    }

    /// Returns the problem of an event that failed.
    pub fn of_failure(failure: &Failure, id: &EventId) -> Self {
        let kind = Kind::of_failure(failure);
        let mut problem = Problem::new(kind, failure.to_string());
        problem.id = (kind == Kind::Timeout).then(|| id.clone());
        problem
    }

    /// Adds `code` and `message`, without which Segment's SDK for Python takes a refusal for a broken connection.
    pub fn for_segment(mut self) -> Self {
        self.for_segment = true;
        self
    }

    /// Returns the answer to a WebSocket message: the body, with the headers that a response would have.
    pub fn answer(&self) -> Answer {
        #[derive(Serialize)]
        struct Message<'a> {
            retryable: bool,
            problem: &'a Problem,
        }
        let body = Message { retryable: self.kind.retryable(), problem: self };
        let answer = Answer::json(self.kind.status(), &body);
        match self.retry_after() {
            Some(seconds) => answer.header("Retry-After", seconds),
            None => answer,
        }
    }

    /// Seconds after which a retry makes sense.
    pub fn retry_after(&self) -> Option<&str> {
        self.headers.iter().rev().find(|(name, _)| *name == "Retry-After").map(|(_, value)| value.as_str())
    }

    /// Returns the names of the problem's own headers.
    pub fn header_names(&self) -> impl Iterator<Item = &'static str> {
        self.headers.iter().map(|(name, _)| *name)
    }

    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Returns what the list of rejects keeps: the first of its errors. `None` if the same request may succeed later, or if
    /// the server is to blame.
    pub fn refusal(&self) -> Option<Refusal> {
        if !self.kind.is_refusal() {
            return None;
        }
        let (status, title, _) = self.kind.facts();
        let first = self.errors.first();
        let (index, events) = match self.refused.as_deref() {
            Some((index, events)) => (Some(*index), *events),
            None => (first.map(|error| error.index), 1),
        };
        Some(Refusal {
            status,
            kind: self.kind.slug(),
            title,
            detail: first.map_or_else(|| self.detail.clone(), |error| error.detail.clone()),
            index,
            is_item: self.refused.is_some(),
            pointer: first.map(|error| error.pointer.clone()),
            events,
            is_listed: !matches!(self.kind, Kind::CrossSite | Kind::Misdirected),
        })
    }

    pub fn body<'a>(&'a self, request_id: Option<&'a str>) -> ProblemBody<'a> {
        let (status, title, retryable) = self.kind.facts();
        ProblemBody {
            kind: self.kind,
            title,
            status,
            detail: &self.detail,
            retryable,
            errors: &self.errors,
            outcome: (self.kind == Kind::Timeout).then_some(Outcome::Unknown),
            id: self.id.as_ref(),
            results: self.results.as_deref(),
            code: self.for_segment.then_some(self.kind),
            message: self.for_segment.then_some(&*self.detail),
            request_id,
        }
    }
}

/// The body without a request id, as it is among the results of an array and in the messages of a WebSocket.
impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.body(None).serialize(serializer)
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let kind = match refused {
            Refused::Empty
            | Refused::NotUtf8(_)
            | Refused::NotJson(_)
            | Refused::EmptyArray(_)
            | Refused::NoLines(_) => Kind::NotJson,
            Refused::WrongType(_) => Kind::InvalidEvent,
            Refused::TooMany { .. } | Refused::TooLarge { .. } => Kind::TooLarge,
        };
        let mut problem = Problem::new(kind, refused.to_string());
        match refused {
            Refused::WrongType(detail) => {
                problem.errors.push(IndexedError::new(0, FieldError::new("", detail)));
            }
            Refused::TooLarge { index, .. } => {
                problem.errors.push(IndexedError::new(index, FieldError::new("", refused.to_string())));
            }
            _ => {}
        }
        problem
    }
}

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Self {
        let detail = error.to_string();
        match error {
            SubmitError::Body(refused) => refused.into(),
            SubmitError::WrongShape(_) => Problem::invalid(0, vec![FieldError::new("", detail)]),
            SubmitError::BadKey | SubmitError::BadKeyForArray | SubmitError::KeyForArray => {
                Problem::new(Kind::BadParameter, detail)
            }
            SubmitError::RateLimited { retry_after_s } => {
                Problem::new(Kind::TooManyRequests, detail).header("Retry-After", retry_after_s.to_string())
            }
            SubmitError::NotParsed(error) => error.into(),
            SubmitError::NoVerdict => Problem::new(Kind::Internal, detail),
        }
    }
}

impl From<HeavyWorkError> for Problem {
    fn from(error: HeavyWorkError) -> Self {
        let kind = match error {
            HeavyWorkError::Busy(_) => Kind::Unavailable,
            HeavyWorkError::Failed => Kind::Internal,
        };
        Problem::new(kind, error.to_string())
    }
}

impl From<HistoryError> for Problem {
    fn from(error: HistoryError) -> Self {
        let kind = match error {
            HistoryError::HeldUp { .. } => Kind::HeldUp,
            HistoryError::Unreachable(_)
            | HistoryError::Expired(_)
            | HistoryError::Recreated
            | HistoryError::Leaderless(_)
            | HistoryError::CutOff { .. }
            | HistoryError::Cancelled
            | HistoryError::Client(_) => Kind::Unavailable,
        };
        Problem::new(kind, error.to_string())
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Busy(_) => Problem::new(Kind::Unavailable, error.to_string()),
            ReadError::History(error) => error.into(),
            ReadError::Failed => Problem::new(Kind::Internal, error.to_string()),
        }
    }
}

impl From<SearchError> for Problem {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::Read(error) => error.into(),
            SearchError::Exports(_) | SearchError::Answers(_) => Problem::new(Kind::Unavailable, error.to_string()),
            SearchError::LastNotFound { .. } => Problem::new(Kind::BadParameter, format!("`last`: {error}")),
        }
    }
}

impl From<OpenError> for Problem {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::NotResumable { .. } => Problem::new(Kind::BadParameter, format!("`after`: {error}")),
            OpenError::AddressFull(_) | OpenError::Full(_) | OpenError::Unchecked => {
                Problem::new(Kind::Unavailable, error.to_string())
            }
        }
    }
}

impl From<ForgetError> for Problem {
    fn from(error: ForgetError) -> Self {
        match error {
            ForgetError::History(error) => error.into(),
            ForgetError::NotReady => Problem::new(Kind::Unavailable, error.to_string()),
            ForgetError::Failed => Problem::new(Kind::Internal, error.to_string()),
        }
    }
}

impl From<InspectError> for Problem {
    fn from(error: InspectError) -> Self {
        let kind = match error {
            InspectError::NoGroups => Kind::NotImplemented,
            InspectError::Unreachable(_) | InspectError::Unlisted(_) => Kind::Unavailable,
        };
        Problem::new(kind, error.to_string())
    }
}

impl<'r> Responder<'r, 'static> for Problem {
    fn respond_to(self, request: &'r Request<'_>) -> Result<'static> {
        let body = self.body(Some(&Trace::of(request).id));
        let body = serde_json::to_vec(&body).map_err(|_| Status::InternalServerError)?;
        let mut response = (ContentType::new("application", "problem+json"), body).respond_to(request)?;
        response.set_status(Status::new(self.kind.status()));
        for (name, value) in &self.headers {
            response.set_header(Header::new(*name, value.clone()));
        }
        rejects::note(request, self.refusal());
        request.local_cache(|| Some(self));
        Ok(response)
    }
}

impl Problem {
    /// Returns the problem that a request was answered with, if any. Call it after the response is made.
    pub fn of<'r>(request: &'r Request<'_>) -> Option<&'r Problem> {
        request.local_cache(|| None).as_ref()
    }
}
