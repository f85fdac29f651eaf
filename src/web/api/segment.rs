//! Segment's protocol: the calls of its HTTP Tracking API, for its SDKs.
//!
//! `event::segment` turns messages into events; from there on they are events as any other. A request is written as a
//! whole or refused as a whole, because the SDKs take a success for all of it.

use std::sync::Arc;

use bytes::Bytes;
use rocket::{State, post};
use serde::Serialize;
use utoipa::ToSchema;

use super::events::{EventHead, max_body};
use crate::event::BodyFormat;
use crate::event::segment::{self, Call};
use crate::ingest::{Ack, Events, Handling, Ingest, Shape, Submission};
use crate::kafka::Connection;
use crate::limits::HeavyWork;
use crate::web::answer::Answer;
use crate::web::body::RequestBody;
use crate::web::guards::Origin;
use crate::web::openapi;
use crate::web::problem::{Kind, Problem};
use crate::web::receipt;

pub const UNKNOWN_CALL: &str = "expected track, identify, page, screen, group, alias or batch after /v1/";
const CALLS: [Call; 6] = [Call::Track, Call::Identify, Call::Page, Call::Screen, Call::Group, Call::Alias];

/// The answer to Segment's calls.
#[derive(Serialize, ToSchema)]
struct SegmentAnswer {
    success: bool,
}

/// Send messages of Segment's protocol
///
/// One message to `track`, `identify`, `page`, `screen`, `group` or `alias`, or to `batch` an object whose `batch` has up to
/// 500 of them, each with its `type`. `messageId` becomes the event's `id`, `userId` or else `anonymousId` its `user`,
/// `event` or else the call its `action`, `timestamp` its `time`; all other members stay. All messages are written, or the
/// answer is a problem: then none was, or with 503 and 504 perhaps some, and the `messageId`s make it safe to send them
/// again. A write key, as Basic authentication, is not checked.
#[utoipa::path(
    operation_id = "segmentCall",
    tag = "events",
    params((
        "call" = String,
        Path,
        pattern = "^(track|identify|page|screen|group|alias|batch)$",
        example = "batch",
    )),
    request_body(
        content = Object,
        example = json!({
            "batch": [
                {"type": "track", "messageId": "018f5d2c-6f3a", "userId": "Ann", "event": "Signed Up"},
                {"type": "page", "messageId": "018f5d2c-6f3b", "anonymousId": "5a1c", "name": "Home"},
            ],
        }),
    ),
    responses(
        (
            status = 200,
            description = "Every message is acknowledged by Kafka.",
            body = SegmentAnswer,
            example = json!({"success": true}),
        ),
        openapi::BadBody,
        openapi::UnknownCall,
        openapi::TooLarge,
        openapi::UnsupportedType,
        openapi::InvalidEvents,
        openapi::TooMany,
        openapi::UnavailableEvents,
        openapi::Unknown,
    )
)]
#[post("/v1/<call>")]
pub async fn call(
    call: &str,
    ingest: &State<Arc<Ingest>>,
    connection: &State<Connection>,
    head: EventHead<'_>,
    origin: Origin<'_>,
    heavy: &State<HeavyWork>,
    body: RequestBody<'_>,
) -> Result<Answer, Problem> {
    let answer = async {
        let called = CALLS.into_iter().find(|known| known.name() == call);
        if called.is_none() && call != "batch" {
            return Err(Problem::new(Kind::NotFound, UNKNOWN_CALL));
        }
        head.only_json()?;
        let body = body.plain(max_body(ingest)).await?;
        let limits = ingest.limits();
        let convert = move |body: Bytes| match called {
            Some(call) => segment::message(&body, call),
            None => segment::batch(&body, &limits),
        };
        let bytes = heavy.parse(origin.client, body, convert).await??;
        let events = Events::Body { bytes: bytes.into(), format: BodyFormat::Json, shape: Shape::Array };
        let submission = Submission { handling: Handling::Strict, ..origin.submission(events, Ack::All, None) };
        receipt::answer(connection.topic(), ingest.submit(submission).await?, Handling::Strict)
    };
    match answer.await {
        Ok(_) => Ok(Answer::json(200, &SegmentAnswer { success: true })),
        Err(problem) => Err(problem.for_segment()),
    }
}
