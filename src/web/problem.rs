//! Answers that are no success: RFC 9457 for programs, a page for people. The one table from failure to status.

use std::sync::Arc;

use askama::Template;
use rocket::http::{ContentType, Header, Status};
use rocket::response::{Responder, Result};
use rocket::{Request, catch};
use serde::Serialize;

use super::App;
use super::request_log::Trace;
use super::view::ErrorPage;
use crate::event::{FieldError, Refused};
use crate::ingest::Failure;
use crate::kafka::{HistoryError, InspectError};

/// What went wrong, as `type` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    NotJson,
    BadParameter,
    BadRequest,
    CrossSite,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    TooLarge,
    UnsupportedType,
    UpgradeRequired,
    InvalidEvent,
    IdReused,
    Refused,
    TooManyRequests,
    Internal,
    NotImplemented,
    Unavailable,
    Timeout,
}

impl Kind {
    /// Slug of `type`, status, title, and whether the same request may succeed later.
    fn facts(self) -> (&'static str, u16, &'static str, bool) {
        match self {
            Kind::NotJson => ("not-json", 400, "Not JSON", false),
            Kind::BadParameter => ("bad-parameter", 400, "A parameter is wrong", false),
            Kind::BadRequest => ("bad-request", 400, "Not a valid request", false),
            Kind::CrossSite => ("cross-site", 403, "From another site", false),
            Kind::NotFound => ("not-found", 404, "Not found", false),
            Kind::MethodNotAllowed => ("method-not-allowed", 405, "Method not allowed", false),
            Kind::RequestTimeout => ("request-timeout", 408, "The request did not arrive in time", true),
            Kind::TooLarge => ("too-large", 413, "Too large", false),
            Kind::UnsupportedType => ("unsupported-type", 415, "Content type not supported", false),
            Kind::UpgradeRequired => ("upgrade-required", 426, "Only for WebSockets", false),
            Kind::InvalidEvent => ("invalid-event", 422, "Not a valid event", false),
            Kind::IdReused => ("id-reused", 422, "The id belongs to another event", false),
            Kind::Refused => ("refused-by-kafka", 422, "Kafka refuses the event", false),
            Kind::TooManyRequests => ("too-many-requests", 429, "Too many events", true),
            Kind::Internal => ("internal", 500, "A fault of ours", true),
            Kind::NotImplemented => ("not-possible-here", 501, "Not possible with this broker", false),
            Kind::Unavailable => ("unavailable", 503, "Not available now", true),
            Kind::Timeout => ("timeout", 504, "Kafka did not answer in time", true),
        }
    }

    pub fn status(self) -> u16 {
        self.facts().1
    }

    /// Whether the same request may succeed later.
    pub fn retryable(self) -> bool {
        self.facts().3
    }
}

#[derive(Debug, Serialize)]
pub struct IndexedError {
    pub index: usize,
    #[serde(flatten)]
    pub error: FieldError,
}

/// A problem details object.
#[derive(Debug)]
pub struct Problem {
    pub kind: Kind,
    detail: String,
    errors: Vec<IndexedError>,
    /// The id to retry with, where the outcome is unknown.
    id: Option<String>,
    headers: Vec<(&'static str, String)>,
}

#[derive(Serialize)]
pub struct Body<'a> {
    #[serde(rename = "type")]
    slug: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    retryable: bool,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [IndexedError],
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

impl Problem {
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let mut problem = Problem { kind, detail: detail.into(), errors: Vec::new(), id: None, headers: Vec::new() };
        if matches!(kind, Kind::Unavailable | Kind::TooManyRequests) {
            problem.headers.push(("Retry-After", "1".into()));
        }
        problem
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The errors of an event, by its index in what was sent.
    pub fn invalid(index: usize, errors: Vec<FieldError>) -> Self {
        let detail = match errors.len() {
            1 => "one field is wrong".to_owned(),
            n => format!("{n} fields are wrong"),
        };
        Self::all_invalid(detail, vec![(index, errors)])
    }

    pub fn all_invalid(detail: String, items: Vec<(usize, Vec<FieldError>)>) -> Self {
        let mut problem = Problem::new(Kind::InvalidEvent, detail);
        problem.errors = items
            .into_iter()
            .flat_map(|(index, errors)| errors.into_iter().map(move |error| IndexedError { index, error }))
            .collect();
        problem
    }

    /// A failure of the event with this id.
    pub fn of_failure(failure: Failure, id: &str) -> Self {
        let kind = match failure {
            Failure::IdReused => Kind::IdReused,
            Failure::Unavailable(_) => Kind::Unavailable,
            Failure::Unknown => Kind::Timeout,
            Failure::Refused(_) => Kind::Refused,
        };
        let mut problem = Problem::new(kind, failure.to_string());
        problem.id = (kind == Kind::Timeout).then(|| id.to_owned());
        problem
    }

    /// Seconds after which another attempt makes sense.
    pub fn retry_after(&self) -> Option<&str> {
        self.headers.iter().rev().find(|(name, _)| *name == "Retry-After").map(|(_, value)| value.as_str())
    }

    pub fn detail(&self) -> &str {
        &self.detail
    }

    pub fn body<'a>(&'a self, request_id: Option<&'a str>) -> Body<'a> {
        let (slug, status, title, retryable) = self.kind.facts();
        Body {
            slug: format!("/problems/{slug}"),
            title,
            status,
            detail: &self.detail,
            retryable,
            errors: &self.errors,
            outcome: (self.kind == Kind::Timeout).then_some("unknown"),
            id: self.id.as_deref(),
            request_id,
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let kind = match refused {
            Refused::Empty | Refused::NotUtf8(_) | Refused::NotJson(_) | Refused::EmptyArray(_) => Kind::NotJson,
            Refused::WrongType(_) => Kind::InvalidEvent,
            Refused::TooMany { .. } | Refused::TooLarge { .. } => Kind::TooLarge,
        };
        let mut problem = Problem::new(kind, refused.to_string());
        match refused {
            Refused::WrongType(detail) => {
                problem.errors.push(IndexedError { index: 0, error: FieldError::new("", detail) });
            }
            Refused::TooLarge { index, .. } => {
                problem.errors.push(IndexedError { index, error: FieldError::new("", refused.to_string()) });
            }
            _ => {}
        }
        problem
    }
}

impl From<HistoryError> for Problem {
    fn from(error: HistoryError) -> Self {
        let kind = match error {
            HistoryError::NoTimeIndex => Kind::NotImplemented,
            HistoryError::Away(_) | HistoryError::Expired | HistoryError::Client(_) => Kind::Unavailable,
        };
        Problem::new(kind, error.to_string())
    }
}

impl From<InspectError> for Problem {
    fn from(error: InspectError) -> Self {
        let kind = match error {
            InspectError::NoGroups => Kind::NotImplemented,
            InspectError::Away(_) => Kind::Unavailable,
        };
        Problem::new(kind, error.to_string())
    }
}

impl<'r> Responder<'r, 'static> for Problem {
    fn respond_to(self, request: &'r Request<'_>) -> Result<'static> {
        let status = Status::new(self.kind.status());
        let id = &Trace::of(request).id;
        let mut response = match request.rocket().state::<Arc<App>>().filter(|_| wants_html(request)) {
            Some(app) => {
                let page = ErrorPage {
                    frame: super::pages::frame(app),
                    status: status.code,
                    title: self.kind.facts().2.to_owned(),
                    detail: self.detail.clone(),
                    request_id: id.clone(),
                };
                let html = page.render().map_err(|_| Status::InternalServerError)?;
                (ContentType::HTML, html).respond_to(request)?
            }
            None => {
                let body = serde_json::to_vec(&self.body(Some(id))).map_err(|_| Status::InternalServerError)?;
                (ContentType::new("application", "problem+json"), body).respond_to(request)?
            }
        };
        response.set_status(status);
        for (name, value) in self.headers {
            response.set_header(Header::new(name, value));
        }
        Ok(response)
    }
}

/// Whether a person asks: a browser's navigation, outside the API.
pub fn wants_html(request: &Request) -> bool {
    !request.uri().path().starts_with("/api/") && request.accept().is_some_and(|accept| accept.preferred().is_html())
}

/// What no handler answered.
#[catch(default)]
pub fn catch(status: Status, request: &Request) -> Problem {
    let path = request.uri().path();
    match status.code {
        404 => Problem::new(Kind::NotFound, format!("there is nothing at {path}")),
        405 => Problem::new(Kind::MethodNotAllowed, "this route does not take that method"),
        408 => Problem::new(Kind::RequestTimeout, "the request took too long"),
        413 => Problem::new(Kind::TooLarge, "the request is too large"),
        415 => Problem::new(Kind::UnsupportedType, "this route does not take that content type"),
        422 => Problem::new(Kind::BadParameter, "a parameter is not of its form"),
        503 => Problem::new(Kind::Unavailable, "shutting down"),
        400..500 => Problem::new(Kind::BadRequest, "the request is not one that can be understood"),
        _ => Problem::new(Kind::Internal, "something failed that should not; the log has the request's id"),
    }
}
