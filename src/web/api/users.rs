//! A user's counts, for programs.

use footfall_core::schema::Partition;
use rocket::{State, get};
use serde::Serialize;
use utoipa::ToSchema;

use crate::bounds::{Address, PAGE_SCAN};
use crate::feed::Cursor;
use crate::search::{Counts, Scope, SearchRequest, Searches, UserCounts};
use crate::web::answer::Answer;
use crate::web::openapi;
use crate::web::problem::Problem;
use crate::web::query::{Parameters, bad};

/// What one user did.
#[derive(Serialize, ToSchema)]
struct UserSummary<'a> {
    user: &'a str,
    /// The partition of the user's key.
    #[schema(value_type = Partition)]
    partition: i32,
    #[serde(flatten)]
    counts: Counts,
    /// Records that were looked at.
    scanned: u64,
    /// The partitions that were looked at.
    #[schema(value_type = Vec<Partition>)]
    partitions: Vec<i32>,
    /// Whether every record of every partition, or every one before `to`, was looked at.
    complete: bool,
    /// The `to` of the next request; null if there is nothing left in the partitions that are looked at.
    #[schema(required)]
    next: Option<Cursor>,
}

/// Parses the partitions in which to count: `partitions=all`, or none.
pub fn scope(searches: &Searches, user: &str, parameters: &Parameters) -> Result<Scope, Problem> {
    // An invalid parameter is an error even if Kafka is unreachable.
    match parameters.get("partitions") {
        None => Ok(Scope::Own(searches.partition_of(user)?)),
        Some("all") => Ok(Scope::All(searches.partitions()?)),
        Some(other) => Err(bad("partitions", format!("must be all, not \"{other}\""))),
    }
}

/// One user's events, counted by action
///
/// Reads the partition of the user's key, or all, from the end, about 200,000 records at most. A user without events is
/// answered with zeros.
#[utoipa::path(
    operation_id = "countUser",
    tag = "events",
    params(openapi::User, openapi::CountUpTo, openapi::Partitions),
    responses(
        (status = 200, description = "The sums, and where to go on.", body = UserSummary),
        openapi::BadParameter,
        openapi::ReadUnavailable,
    )
)]
#[get("/api/v1/users/<user>")]
pub async fn user(
    searches: &State<Searches>,
    client: Address,
    user: &str,
    parameters: Parameters,
) -> Result<Answer, Problem> {
    let to = parameters.cursor("to")?;
    let scope = scope(searches, user, &parameters)?;
    let partition = searches.partition_of(user)?;
    let request = SearchRequest::of_user(user, scope.partition(), to);
    let read = searches.read(client, request, PAGE_SCAN, |reader| {
        let mut counts = UserCounts::default();
        let page = reader.each(|record| counts.observe(record))?;
        Ok((page, counts.sum()))
    });
    let ((page, counts), _) = read.await?;
    let (count, scanned) = (page.range.to.len(), page.end.scanned);
    let next = page.end.next.map(Cursor::new);
    let partitions: Vec<i32> = scope.partition().map_or_else(|| (0..count as i32).collect(), |one| vec![one]);
    let complete = next.is_none() && partitions.len() == count;
    let body = UserSummary { user, partition, counts, scanned, partitions, complete, next };
    Ok(Answer::json(200, &body).header("Cache-Control", "no-store"))
}
