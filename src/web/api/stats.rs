//! Statistics of the topic's events, for programs.

use std::sync::Arc;

use rocket::{State, get};

use crate::stats::StatsSnapshot;
use crate::web::answer::Answer;
use crate::web::pages::overview::Overviews;

/// Statistics of the last 24 hours
#[utoipa::path(
    operation_id = "readStats",
    tag = "operations",
    responses(
        (status = 200, description = "Counts as of now.", body = StatsSnapshot),
    )
)]
#[get("/api/v1/stats")]
pub fn stats(overviews: &State<Arc<Overviews>>) -> Answer {
    Answer::json(200, &*overviews.snapshot()).header("Cache-Control", "no-store")
}
