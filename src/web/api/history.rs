//! Records of the topic, for programs: pages of history, single records, and exports.

use footfall_core::query_string::QueryString;
use rocket::http::ContentType;
use rocket::{State, get};

use crate::bounds::{Address, PAGE_SCAN};
use crate::event::json;
use crate::feed::{Cursor, Filter};
use crate::kafka::Connection;
use crate::search::{Bound, Csv, Ndjson, Order, SearchRequest, Searches};
use crate::web::guards::RequestId;
use crate::web::long_answer::{LongBody, Streamed, Whole};
use crate::web::openapi;
use crate::web::problem::{Kind, Problem};
use crate::web::query::{Parameters, bad};

/// Makes the search request of these parameters; `limit` is at most `most`.
pub fn request(parameters: &QueryString, default: usize, most: usize) -> Result<SearchRequest, Problem> {
    let filters = parameters.filters()?;
    let limit = parameters.number("limit", 1..=most)?;
    let last = parameters.number("last", 1..=most)?;
    let (since, until) = (parameters.time("since")?, parameters.time("until")?);
    let (from, latest) = match parameters.get("from") {
        Some("beginning") => (Some(Cursor::default()), false),
        None | Some("latest") => (None, true),
        Some(_) => (parameters.cursor("from")?, false),
    };
    let to = parameters.cursor("to")?;
    let offset = match (parameters.number("offset", 0..=i64::MAX as usize)?, filters.partition.as_slice()) {
        (None, _) => None,
        (Some(offset), [partition]) => Some((*partition, offset as i64)),
        (Some(_), _) => return Err(bad("offset", "needs exactly one partition".to_owned())),
    };
    let forward = since.is_some() || offset.is_some() || (!latest && last.is_none());
    let order = match (parameters.get("order"), forward, last) {
        (Some("newest"), ..) | (None, false, _) => Order::NewestFirst,
        (Some("oldest"), _, None) | (None, true, None) => Order::OldestFirst,
        (Some("oldest"), _, Some(_)) | (None, true, Some(_)) => Order::NewestReversed,
        (Some(other), ..) => return Err(bad("order", format!("must be newest or oldest, not \"{other}\""))),
    };
    // The record at the offset is the first one in either direction.
    let (from_offset, to_offset) = match order {
        Order::NewestFirst => (None, offset.map(|(partition, offset)| (partition, offset.saturating_add(1)))),
        Order::OldestFirst | Order::NewestReversed => (offset, None),
    };
    Ok(SearchRequest {
        filter: Filter::from(&filters),
        from: Bound { cursor: from, offset: from_offset },
        to: Bound { cursor: to, offset: to_offset },
        since,
        until,
        order,
        limit: last.or(limit).unwrap_or(default),
    })
}

/// A page of the topic's records
#[utoipa::path(
    operation_id = "readHistory",
    tag = "events",
    params(openapi::HistoryPage),
    responses(
        (status = 200, description = "The records, and where to go on.", body = openapi::Page),
        openapi::SearchFailures,
    )
)]
#[get("/api/v1/events")]
pub async fn history(
    searches: &State<Searches>,
    connection: &State<Connection>,
    client: Address,
    parameters: Parameters,
) -> Result<Whole, Problem> {
    let request = request(&parameters, 100, 1000)?;
    let topic = connection.topic().to_owned();
    let read = searches.read(client, request, PAGE_SCAN, move |reader| {
        let mut body = LongBody::default();
        let mut separator: &[u8] = b"";
        body.write(|out| out.extend_from_slice(b"{\"events\":["));
        let page = reader.page(|record| {
            body.write(|out| {
                out.extend_from_slice(std::mem::replace(&mut separator, b","));
                json::write(out, &topic, &record);
            })
        })?;
        body.write(|out| {
            out.extend_from_slice(b"],\"next\":");
            match page.end.next {
                Some(next) => json::string(out, &Cursor::new(next).to_string()),
                None => out.extend_from_slice(b"null"),
            }
            out.push(b'}');
        });
        Ok(body)
    });
    let (body, permit) = read.await?;
    Ok(Whole::json(searches, client, body, permit).await?)
}

/// One record
#[utoipa::path(
    operation_id = "readRecord",
    tag = "events",
    params(openapi::Place),
    responses(
        (status = 200, description = "The record.", body = openapi::Record),
        openapi::NotFound,
        openapi::ReadUnavailable,
    )
)]
#[get("/api/v1/events/<partition>/<offset>")]
pub async fn record(
    searches: &State<Searches>,
    connection: &State<Connection>,
    client: Address,
    partition: &str,
    offset: &str,
) -> Result<Whole, Problem> {
    let missing = format!("there is no record at partition {partition}, offset {offset}");
    let missing = Problem::new(Kind::NotFound, missing);
    let (Ok(partition), Ok(offset)) = (partition.parse(), offset.parse()) else { return Err(missing) };
    let topic = connection.topic().to_owned();
    let read = searches.record(client, partition, offset, move |found| {
        let (record, _) = found?;
        let mut body = LongBody::default();
        body.write(|out| json::write(out, &topic, &record));
        Some(body)
    });
    let (body, permit) = read.await?;
    Ok(Whole::json(searches, client, body.ok_or(missing)?, permit).await?)
}

/// Export of all matches as NDJSON
#[utoipa::path(
    operation_id = "exportNdjson",
    tag = "events",
    params(openapi::Export),
    responses(
        (status = 200, description = openapi::EXPORT, content_type = "application/x-ndjson", body = String),
        openapi::SearchFailures,
    )
)]
#[get("/api/v1/events.ndjson")]
pub async fn ndjson(
    searches: &State<Searches>,
    connection: &State<Connection>,
    client: Address,
    id: RequestId,
    parameters: Parameters,
) -> Result<Streamed, Problem> {
    let request = request(&parameters, usize::MAX, usize::MAX)?;
    let export = searches.export(client, request, id.0).await?;
    let format = Ndjson { topic: connection.topic().to_owned() };
    Ok(Streamed::file(ContentType::new("application", "x-ndjson"), connection.topic(), "ndjson", export.run(format)))
}

/// Export of all matches as CSV (RFC 4180)
#[utoipa::path(
    operation_id = "exportCsv",
    tag = "events",
    params(openapi::Export),
    responses(
        (status = 200, description = openapi::EXPORT, content_type = "text/csv", body = String),
        openapi::SearchFailures,
    )
)]
#[get("/api/v1/events.csv")]
pub async fn csv(
    searches: &State<Searches>,
    connection: &State<Connection>,
    client: Address,
    id: RequestId,
    parameters: Parameters,
) -> Result<Streamed, Problem> {
    let request = request(&parameters, usize::MAX, usize::MAX)?;
    let export = searches.export(client, request, id.0).await?;
    let csv = ContentType::CSV.with_params(("charset", "utf-8"));
    Ok(Streamed::file(csv, connection.topic(), "csv", export.run(Csv)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &str) -> SearchRequest {
        request(&QueryString::parse(query).expect("a query"), 50, 1000)
            .unwrap_or_else(|problem| panic!("{query}: {problem:?}"))
    }

    #[test]
    fn the_newest_records_come_first_unless_a_start_is_given() {
        for (query, order, limit) in [
            ("", Order::NewestFirst, 50),
            ("from=latest&limit=7", Order::NewestFirst, 7),
            ("from=beginning", Order::OldestFirst, 50),
            ("since=0", Order::OldestFirst, 50),
            ("partition=1&offset=5", Order::OldestFirst, 50),
            ("order=oldest", Order::OldestFirst, 50),
            ("from=beginning&order=newest", Order::NewestFirst, 50),
            ("last=3", Order::NewestFirst, 3),
            ("last=3&limit=7", Order::NewestFirst, 3),
            ("last=3&order=oldest", Order::NewestReversed, 3),
            ("last=3&since=0", Order::NewestReversed, 3),
            ("last=3&order=newest", Order::NewestFirst, 3),
        ] {
            let request = asked(query);
            assert_eq!((request.order, request.limit), (order, limit), "{query}");
        }
    }

    #[test]
    fn the_record_at_an_offset_comes_first_in_either_direction() {
        let forward = asked("partition=1&offset=5");
        assert_eq!((forward.from.offset, forward.to.offset), (Some((1, 5)), None));
        let back = asked("partition=1&offset=5&order=newest");
        assert_eq!((back.from.offset, back.to.offset), (None, Some((1, 6))));
        for query in ["offset=5", "partition=1&partition=2&offset=5"] {
            assert!(request(&QueryString::parse(query).expect("a query"), 50, 1000).is_err(), "{query}");
        }
    }
}
