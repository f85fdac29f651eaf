//! The tracker: a script that other sites include, and the route to which it posts what it has tracked.
//!
//! `routes.rs` mounts both under the name that `ingest.tracker` sets.

use std::sync::Arc;

use rocket::{State, get, post};

use super::events::{EventHead, max_body};
use crate::event::tracker;
use crate::event::{BodyFormat, Refused};
use crate::ingest::{Ack, Events, Handling, Ingest, Shape};
use crate::kafka::Connection;
use crate::limits::HeavyWork;
use crate::web::answer::Answer;
use crate::web::assets::{self, Asset};
use crate::web::body::RequestBody;
use crate::web::guards::Origin;
use crate::web::openapi;
use crate::web::problem::{Kind, Problem};
use crate::web::receipt;

/// The tracker's script for other sites
///
/// `<script src="https://footfall.example/track.js" defer></script>` on a page of an origin in `ingest.origins` sends page
/// views, clicks and what the page tracks itself. `ingest.tracker` may give the script another name.
#[utoipa::path(
    operation_id = "trackerScript",
    tag = "events",
    responses(
        (
            status = 200,
            description = "The script. Any site may load it, and caches may keep it for an hour.",
            body = String,
            content_type = "text/javascript",
        ),
        (status = 304, description = "`If-None-Match` names the current script."),
    )
)]
#[get("/track.js")]
pub fn script() -> Asset {
    assets::tracker()
}

/// Send what the tracker has tracked
///
/// Events, and how many the tracker discarded before they were sent. The events are answered as those of an array at
/// `/api/v1/events`. Losses are counted in `footfall_tracker_discarded_total`, once for each `id`. The path is that of the
/// script without `.js`. A body of another form is answered 400; 422 is about the events.
#[utoipa::path(
    operation_id = "sendTracked",
    tag = "events",
    request_body(
        description = "At most 512 KiB, also after decompression. From a page also as `text/plain`.",
        content = openapi::Tracked,
        example = json!({
            "id": "5j0mzk1a9",
            "events": openapi::several_events(),
            "discarded": [{"reason": "queue_full", "quantity": 3}],
        }),
    ),
    responses(
        (status = 200, description = "There were no events.", body = receipt::Results, example = json!({"results": []})),
        (status = 201, description = "Every event is acknowledged by Kafka.", body = receipt::Results),
        (status = 207, description = "The events have different statuses.", body = receipt::Results),
        openapi::BadBody,
        openapi::TooLarge,
        openapi::UnsupportedType,
        openapi::InvalidEvents,
        openapi::TooMany,
        openapi::UnavailableEvents,
        openapi::UnknownEvents,
    )
)]
#[post("/track")]
pub async fn submit(
    ingest: &State<Arc<Ingest>>,
    connection: &State<Connection>,
    head: EventHead<'_>,
    origin: Origin<'_>,
    heavy: &State<HeavyWork>,
    body: RequestBody<'_>,
) -> Result<Answer, Problem> {
    head.only_json()?;
    let body = body.plain(max_body(ingest)).await?;
    let tracked = heavy.parse(origin.client, body, |body| tracker::read(&body)).await?.map_err(of_the_body)?;
    ingest.count_losses(&tracked.report, origin.client)?;
    let Some(bytes) = tracked.events else { return Ok(receipt::nothing()) };
    let events = Events::Body { bytes, format: BodyFormat::Json, shape: Shape::Array };
    let verdicts = ingest.submit(origin.submission(events, Ack::All, None)).await?;
    receipt::answer(connection.topic(), verdicts, Handling::Lenient)
}

/// Returns the problem of a body that is not of the tracker's form. The status is never 422: that tells the tracker that
/// each of its events was refused and counted.
fn of_the_body(refused: Refused) -> Problem {
    match refused {
        Refused::WrongType(detail) => Problem::new(Kind::BadRequest, detail),
        refused => refused.into(),
    }
}
