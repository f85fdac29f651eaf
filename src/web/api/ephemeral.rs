//! What only a test double answers (`footfall serve --ephemeral`).

use rocket::http::Status;
use rocket::{State, delete};

use crate::ephemeral::Ephemeral;
use crate::web::problem::{Kind, Problem};
use crate::web::query::Parameters;

/// Forgets all events and rejects.
#[delete("/api/v1/events")]
pub async fn forget(ephemeral: &State<Ephemeral>, parameters: Parameters) -> Result<Status, Problem> {
    if !parameters.filters()?.is_empty() {
        return Err(Problem::new(Kind::BadParameter, "all events are forgotten; expected no filter"));
    }
    ephemeral.forget().await?;
    Ok(Status::NoContent)
}
