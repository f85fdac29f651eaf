//! Streams as responses: Server-Sent Events for programs and for the page.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use rocket::http::{ContentType, Header};
use rocket::request::{FromRequest, Outcome, Request};
use rocket::response::{self, Responder, Response};
use rocket::{State, get};

use crate::bounds::Address;
use crate::feed::{Dialect, Filter, Frames};
use crate::server::body;
use crate::stream::{Follower, Start, StreamRequest, Streams};
use crate::web::openapi;
use crate::web::problem::Problem;
use crate::web::query::Parameters;
use crate::web::views::{Listing, frames};

/// Events per second of a page, unless it asks for another rate: nobody reads faster.
const PAGE_RATE: usize = 50;
/// Most records for `last=`.
const MOST_LAST: usize = 1000;

/// The position after which a client resumes, from its header `Last-Event-ID` (WHATWG HTML, section 9.2.4).
pub struct LastEventId(Option<Start>);

#[rocket::async_trait]
impl<'r> FromRequest<'r> for LastEventId {
    type Error = Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Infallible> {
        let id = request.headers().get_one("Last-Event-ID").filter(|id| !id.is_empty());
        Outcome::Success(LastEventId(id.map(Start::after)))
    }
}

/// Follow the topic
///
/// Server-Sent Events. Events have no name: `data` is a `Record` as one line, `id` the cursor after it. Control events are
/// named: `position` (`Position`), which comes first and whenever only the place has moved, `gap` (`Gap`), `dropped`
/// (`Dropped`), `skipped` (`Dropped`), `status` (`Status`), `bye` (`Bye`). A heartbeat is a comment. Starts at the first
/// given of `Last-Event-ID`, `after`, `since`, `last`, else now.
#[utoipa::path(
    operation_id = "followEvents",
    tag = "streams",
    params(openapi::Follow),
    responses(
        (
            status = 200,
            description = "The stream, until either side closes.",
            content_type = "text/event-stream",
            body = openapi::StreamEvent,
            example = json!(openapi::STREAM),
        ),
        openapi::FollowFailures,
    )
)]
#[get("/api/v1/stream")]
pub async fn api(
    streams: &State<Arc<Streams>>,
    client: Address,
    last: LastEventId,
    parameters: Parameters,
) -> Result<SseResponse, Problem> {
    open(streams, client, Dialect::Json, last, &parameters, None).await.map(SseResponse)
}

/// The page's stream
///
/// As `/api/v1/stream`, but `data` is a row of HTML, `status` (`Status`) comes first, and a heartbeat, every 4 to 5 s, is
/// an event too (`Heartbeat`). For Footfall's own page; may change in any version.
#[utoipa::path(
    operation_id = "pageStream",
    tag = "pages",
    params(openapi::Follow, openapi::Columns),
    responses(
        (status = 200, description = "The stream.", content_type = "text/event-stream", body = openapi::PageStreamEvent),
        openapi::FollowFailures,
    )
)]
#[get("/stream")]
pub async fn page(
    streams: &State<Arc<Streams>>,
    client: Address,
    last: LastEventId,
    parameters: Parameters,
) -> Result<SseResponse, Problem> {
    let frames = frames(&Listing::of_rows(parameters.filters()?, parameters.columns()?));
    open(streams, client, Dialect::Html, last, &parameters, frames).await.map(SseResponse)
}

/// Opens the requested stream. If several starts are given, the header comes first, then `after`, `since`, `last`.
pub(super) async fn open(
    streams: &Arc<Streams>,
    address: Address,
    dialect: Dialect,
    last_event_id: LastEventId,
    parameters: &Parameters,
    frames: Option<Frames>,
) -> Result<Follower, Problem> {
    let filter = Filter::from(&parameters.filters()?);
    let (since, last) = (parameters.time("since")?, parameters.number("last", 1..=MOST_LAST)?);
    let max_rate = match (parameters.number("max_rate", 0..=100_000)?, dialect) {
        (None, Dialect::Html) => Some(PAGE_RATE),
        (rate, _) => rate.filter(|rate| *rate > 0),
    };
    let after = || parameters.get("after").map(Start::after);
    let start = last_event_id.0.or_else(after).or(since.map(Start::Since)).or(last.map(Start::Last));
    let start = start.unwrap_or(Start::Now);
    let strict = parameters.flag("strict");
    Ok(streams.follow(StreamRequest { address, dialect, filter, frames, start, max_rate, strict }).await?)
}

/// A stream as a response.
pub struct SseResponse(Follower);

impl Stream for SseResponse {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        self.0.poll_next(cx).map(|bytes| bytes.map(Ok))
    }
}

impl<'r> Responder<'r, 'static> for SseResponse {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'static> {
        body::stream(request, Box::pin(self));
        Response::build()
            .header(ContentType::EventStream)
            .header(Header::new("Cache-Control", "no-cache, no-store, no-transform"))
            .header(Header::new("X-Accel-Buffering", "no"))
            .ok()
    }
}
