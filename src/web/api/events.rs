//! Events in, from programs.

use std::sync::Arc;

use rocket::http::{ContentType, HeaderMap};
use rocket::request::{FromRequest, Outcome, Request};
use rocket::{State, get, post};
use serde::Serialize;
use utoipa::ToSchema;

use crate::event::cloudevents::{self, HTTP_PREFIX, HTTP_REQUIRED};
use crate::event::{BodyFormat, FieldError, Parsed};
use crate::ingest::{Ack, Events, Handling, Ingest, Shape, Submission, SubmitError};
use crate::kafka::Connection;
use crate::web::answer::Answer;
use crate::web::body::RequestBody;
use crate::web::guards::{Origin, unquoted};
use crate::web::openapi::{self, Description};
use crate::web::prefer;
use crate::web::problem::{Kind, Problem};
use crate::web::query::{Parameters, bad};
use crate::web::receipt;

/// The headers that decide how a body is parsed.
pub struct EventHead<'r> {
    content_type: Option<&'r str>,
    /// Whether a browser sent it, for a page of this server or of a listed origin: the access check refuses other pages.
    is_from_a_page: bool,
    idempotency_key: Option<&'r str>,
    /// The headers of a request that is a CloudEvent in binary mode.
    headers: Option<&'r HeaderMap<'r>>,
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for EventHead<'r> {
    type Error = std::convert::Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Self::Error> {
        let header = |name| request.headers().get_one(name);
        let is_binary = HTTP_REQUIRED.iter().any(|name| request.headers().contains(name));
        Outcome::Success(EventHead {
            headers: is_binary.then(|| request.headers()),
            content_type: header("Content-Type"),
            is_from_a_page: ["Sec-Fetch-Site", "Origin"].iter().any(|name| header(name).is_some()),
            idempotency_key: header("Idempotency-Key").map(unquoted),
        })
    }
}

impl<'r> EventHead<'r> {
    fn format(&self) -> Result<BodyFormat, Problem> {
        let essence = cloudevents::media_type(self.content_type.unwrap_or_default());
        match essence.to_ascii_lowercase().as_str() {
            "application/json" => Ok(BodyFormat::Json),
            // What `navigator.sendBeacon` makes of a string (W3C Beacon, section 3.1).
            "text/plain" if self.is_from_a_page => Ok(BodyFormat::Json),
            "application/cloudevents+json" => Ok(BodyFormat::CloudEvent),
            "application/cloudevents-batch+json" => Ok(BodyFormat::CloudEventBatch),
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Ok(BodyFormat::JsonLines),
            _ => {
                let given = if essence.is_empty() { "none".to_owned() } else { format!("`{essence}`") };
                let detail = format!(
                    "expected the content type application/json, application/cloudevents+json, \
                     application/cloudevents-batch+json or application/x-ndjson, not {given}"
                );
                Err(Problem::new(Kind::UnsupportedType, detail).header("Accept", ACCEPTED))
            }
        }
    }

    /// Refuses every content type but `application/json`.
    pub(super) fn only_json(&self) -> Result<(), Problem> {
        if self.format().ok() == Some(BodyFormat::Json) {
            return Ok(());
        }
        let given = self.content_type.map_or_else(|| "none".to_owned(), |given| format!("`{given}`"));
        let detail = format!("expected the content type application/json, not {given}");
        Err(Problem::new(Kind::UnsupportedType, detail).header("Accept", "application/json"))
    }

    /// Returns the headers of a CloudEvent in binary mode, if the request is one (HTTP protocol binding, section 3).
    /// The content type decides the two other modes.
    fn binary(&self) -> Result<Option<&'r HeaderMap<'r>>, Problem> {
        let Some(headers) = self.headers else { return Ok(None) };
        match self.content_type {
            Some(content_type) if content_type.trim_start().to_ascii_lowercase().starts_with(CLOUDEVENTS) => Ok(None),
            Some(content_type) if !cloudevents::is_json(content_type) => {
                let detail = format!("expected JSON as the data of a CloudEvent in binary mode, not `{content_type}`");
                Err(Problem::new(Kind::UnsupportedType, detail).header("Accept", ACCEPTED))
            }
            _ => Ok(Some(headers)),
        }
    }

    /// Returns the events of the body.
    async fn events(&self, ingest: &Ingest, body: RequestBody<'_>) -> Result<Events, Problem> {
        let Some(headers) = self.binary()? else {
            let format = self.format()?;
            let bytes = body.plain(max_body(ingest)).await?;
            return Ok(Events::Body { bytes, format, shape: Shape::Any });
        };
        let body = body.plain(max_body(ingest)).await?;
        let own = headers.iter().filter(|header| {
            let name = header.name.as_str();
            name.get(..HTTP_PREFIX.len()).is_some_and(|prefix| prefix.eq_ignore_ascii_case(HTTP_PREFIX))
        });
        let own: Vec<_> = own.map(|header| (header.name.as_str().to_owned(), header.value)).collect();
        let own = own.iter().map(|(name, value)| (name.as_str(), &**value));
        let checked = cloudevents::binary(&body, own, self.content_type, &ingest.limits())?;
        Ok(Events::Parsed(Parsed::One(Box::new(checked))))
    }
}

/// The content types of a post (RFC 9110, section 12.5.1, in an answer).
const ACCEPTED: &str = "application/json, application/cloudevents+json, application/cloudevents-batch+json, \
    application/x-ndjson, application/ndjson, application/jsonl";
/// The prefix of the content types of CloudEvents in structured and batch mode.
const CLOUDEVENTS: &str = "application/cloudevents";

pub(super) fn max_body(ingest: &Ingest) -> usize {
    ingest.settings().max_body.as_u64() as usize
}

/// Send one event or up to 500
///
/// An event, an array of events, or CloudEvents 1.0 in all modes of their HTTP binding: structured and batch by their
/// content types; binary if one of `ce-specversion`, `ce-id`, `ce-source` and `ce-type` is there, which then are all
/// required. In binary mode the body is the data, and `Content-Type`, `application/json` or a type that ends in `+json`, is
/// its `datacontenttype`; every other `ce-<name>` header is an extension. Headers of attributes are percent-encoded.
///
/// Or NDJSON: an event on each line; blank lines are skipped. With `Prefer: handling=strict` an array, and NDJSON, is
/// written as a whole or refused as a whole.
#[utoipa::path(
    operation_id = "sendEvents",
    tag = "events",
    params(openapi::AckParameter, openapi::SubmissionHeaders),
    request_body(
        description = "At most 512 KiB, also after decompression.",
        content(
            (
                openapi::Events = "application/json",
                examples(
                    ("one" = (value = json!({"user": "John", "action": "login"}))),
                    ("several" = (value = json!(openapi::several_events()))),
                ),
            ),
            (openapi::CloudEvent = "application/cloudevents+json"),
            (openapi::CloudEvents = "application/cloudevents-batch+json"),
            (openapi::EventLines = "application/x-ndjson", example = json!(openapi::several_events())),
            (openapi::EventLines = "application/ndjson", example = json!(openapi::several_events())),
            (openapi::EventLines = "application/jsonl", example = json!(openapi::several_events())),
        ),
    ),
    responses(
        (
            status = 201,
            description = "Every event is acknowledged by Kafka. A single event also gets `Location`.",
            body = openapi::ReceiptOrResults,
            headers(("Location" = String), ("Idempotent-Replayed" = String), ("Preference-Applied" = String)),
            examples(
                ("one" = (value = json!(openapi::receipt()))),
                ("several" = (value = json!({"results": [openapi::receipt_of_many()]}))),
            ),
        ),
        (
            status = 202,
            description = "`ack=none`: every event is valid and queued.",
            body = openapi::QueuedOrResults,
            headers(("Idempotent-Replayed" = String), ("Preference-Applied" = String)),
            examples(("one" = (value = json!(openapi::queued())))),
        ),
        (status = 207, description = "The items of an array have different statuses.", body = receipt::Results),
        openapi::BadBody,
        openapi::TooLarge,
        openapi::UnsupportedType,
        openapi::InvalidEvents,
        openapi::TooMany,
        openapi::UnavailableEvents,
        openapi::UnknownEvents,
    )
)]
#[post("/api/v1/events")]
pub async fn submit(
    ingest: &State<Arc<Ingest>>,
    connection: &State<Connection>,
    head: EventHead<'_>,
    handling: Handling,
    origin: Origin<'_>,
    parameters: Parameters,
    body: RequestBody<'_>,
) -> Result<Answer, Problem> {
    let answer = async {
        let ack = ack(parameters.get("ack"))?;
        let events = head.events(ingest, body).await?;
        let submission = Submission { handling, ..origin.submission(events, ack, head.idempotency_key) };
        receipt::answer(connection.topic(), ingest.submit(submission).await?, handling)
    };
    let ((name, value), answer) = (prefer::APPLIED, answer.await);
    match handling {
        Handling::Lenient => answer,
        Handling::Strict => {
            answer.map(|answer| answer.header(name, value)).map_err(|problem| problem.header(name, value))
        }
    }
}

/// Parses `ack`: what the answer waits for.
pub fn ack(text: Option<&str>) -> Result<Ack, Problem> {
    match text {
        None | Some("all") => Ok(Ack::All),
        Some("none") => Ok(Ack::None),
        Some(other) => Err(bad("ack", format!("must be all or none, not \"{other}\""))),
    }
}

/// The answer to the tutorial's call.
#[derive(Serialize, ToSchema)]
struct TutorialAnswer {
    message: TutorialMessage,
}

#[derive(Serialize, ToSchema)]
enum TutorialMessage {
    #[serde(rename = "Sent to Kafka!")]
    Sent,
}

/// Send one event, as in the Django tutorial
///
/// One event; also answered with a slash at the end of the path.
#[utoipa::path(
    operation_id = "sendMessage",
    tag = "events",
    request_body(content = openapi::Event, example = json!({"user": "John", "action": "login"})),
    responses(
        (
            status = 200,
            description = "Acknowledged by Kafka.",
            body = TutorialAnswer,
            example = json!({"message": "Sent to Kafka!"}),
        ),
        openapi::BadBody,
        openapi::TooLarge,
        openapi::UnsupportedType,
        openapi::Invalid,
        openapi::TooMany,
        openapi::Unavailable,
        openapi::Unknown,
    )
)]
#[post("/send-message")]
pub async fn tutorial(
    ingest: &State<Arc<Ingest>>,
    connection: &State<Connection>,
    head: EventHead<'_>,
    origin: Origin<'_>,
    body: RequestBody<'_>,
) -> Result<Answer, Problem> {
    head.only_json()?;
    let bytes = body.plain(max_body(ingest)).await?;
    let events = Events::Body { bytes, format: BodyFormat::Json, shape: Shape::One };
    let submission = origin.submission(events, Ack::All, head.idempotency_key);
    let verdicts = ingest.submit(submission).await.map_err(|error| match error {
        SubmitError::WrongShape(_) => {
            let wrong = FieldError::new("", "must be one JSON object with `user` and `action`, not an array");
            Problem::invalid(0, vec![wrong])
        }
        other => other.into(),
    })?;
    receipt::answer(connection.topic(), verdicts, Handling::Lenient)?;
    Ok(Answer::json(200, &TutorialAnswer { message: TutorialMessage::Sent }))
}

/// This description
#[utoipa::path(
    operation_id = "description",
    tag = "operations",
    responses(
        (status = 200, description = "OpenAPI 3.1.", body = Object),
    )
)]
#[get("/api/openapi.json")]
pub fn description(description: &State<Description>) -> (ContentType, &str) {
    (ContentType::JSON, description.text())
}
