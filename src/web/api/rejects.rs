//! The latest refused submissions, for programs.

use std::sync::Arc;

use rocket::{State, get};
use serde::Serialize;
use utoipa::ToSchema;

use crate::rejects::{KEPT, Reject, Rejects};
use crate::web::answer::Answer;
use crate::web::openapi;
use crate::web::problem::Problem;
use crate::web::query::Parameters;

/// The latest refused submissions of this process.
#[derive(Serialize, ToSchema)]
#[schema(examples(json!({
    "count": 1,
    "rejects": [{
        "time": "2026-11-27T12:00:00.000Z",
        "route": "POST /api/v1/events",
        "client": "192.0.2.0/24",
        "status": 422,
        "type": "/problems/invalid-event",
        "title": "Invalid event",
        "detail": "is missing: expected a string of 1 to 200 characters",
        "pointer": "/action",
        "index": 0,
        "events": 1,
        "excerpt": "{\"user\":\"Ann\"}",
    }],
})))]
struct RejectList<'a> {
    /// Refused since the process started.
    count: u64,
    /// Newest first.
    rejects: Vec<&'a Reject>,
}

/// The latest refused submissions, and why
///
/// Of this process, in memory: at most 256. Answers after which a retry makes sense, such as 429 and 503, are not listed.
#[utoipa::path(
    operation_id = "listRejects",
    tag = "operations",
    params(openapi::RejectsSize),
    responses(
        (status = 200, description = "Newest first.", body = RejectList),
        openapi::BadParameter,
    )
)]
#[get("/api/v1/rejects")]
pub fn rejects(rejects: &State<Arc<Rejects>>, parameters: Parameters) -> Result<Answer, Problem> {
    let limit = parameters.number("limit", 1..=KEPT)?.unwrap_or(KEPT);
    let (kept, count) = rejects.latest(limit);
    let list = RejectList { count, rejects: kept.iter().map(Arc::as_ref).collect() };
    Ok(Answer::json(200, &list).header("Cache-Control", "no-store"))
}
