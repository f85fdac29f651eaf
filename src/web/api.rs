//! What programs call: events in, records out.

use std::net::IpAddr;

use rocket::data::Data;
use rocket::http::{ContentType, Header, Status};
use rocket::request::{FromRequest, Outcome, Request};
use rocket::response::{self, Responder, Response};
use rocket::{get, post};
use serde::Serialize;
use serde_json::json;

use super::App;
use super::body;
use super::guards::{Origin, Shared};
use super::problem::{self, Kind, Problem};
use super::query::{Parameters, bad};
use super::reading::{self, SCAN, Wanted};
use crate::event::{Event, EventId, FieldError, Format, Limits, Parsed, json as record_json, parse, time, trace};
use crate::feed::Cursor;
use crate::ingest::{Outcome as Became, Receipt, Written};

/// Bytes of what is answered about one event of many, about.
const RESULT: usize = 200;

/// What of a request's head matters to a submission.
#[derive(Clone, Copy)]
pub struct Head<'r> {
    content_type: Option<&'r str>,
    encoding: Option<&'r str>,
    idempotency_key: Option<&'r str>,
    trace: [Option<&'r str>; 2],
    client: Option<IpAddr>,
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Head<'r> {
    type Error = std::convert::Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Self::Error> {
        let header = |name| request.headers().get_one(name);
        Outcome::Success(Head {
            content_type: header("Content-Type"),
            encoding: header("Content-Encoding"),
            idempotency_key: header("Idempotency-Key"),
            trace: trace::context(header(trace::PARENT), header(trace::STATE)),
            client: request.client_ip(),
        })
    }
}

impl<'r> Head<'r> {
    /// The same for one of the submissions that a request makes one after another.
    pub fn with_key(self, idempotency_key: Option<&'r str>) -> Self {
        Head { idempotency_key, ..self }
    }

    fn format(&self) -> Result<Format, Problem> {
        let essence = self.content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        match essence.to_ascii_lowercase().as_str() {
            "application/json" => Ok(Format::Json),
            "application/cloudevents+json" => Ok(Format::CloudEvent),
            "application/cloudevents-batch+json" => Ok(Format::CloudEventBatch),
            _ => {
                let given = if essence.is_empty() { "none".to_owned() } else { format!("`{essence}`") };
                let detail = format!(
                    "expected the content type application/json, application/cloudevents+json or \
                     application/cloudevents-batch+json, not {given}"
                );
                Err(Problem::new(Kind::UnsupportedType, detail))
            }
        }
    }
}

/// An answer in JSON with a status and a few headers.
pub struct Answer {
    status: u16,
    body: Vec<u8>,
    headers: Vec<(&'static str, String)>,
}

impl Answer {
    pub fn json(status: u16, body: &impl Serialize) -> Self {
        // What is answered here has text for keys, and no number that JSON lacks.
        Answer { status, body: serde_json::to_vec(body).unwrap_or_default(), headers: Vec::new() }
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// A problem beside its status, as it stands in the answer to an array.
    pub fn of(problem: &Problem) -> Self {
        let answer = Answer::json(problem.kind.status(), &FailedBody { status: None, ..FailedBody::from(problem) });
        match problem.retry_after() {
            Some(seconds) => answer.header("Retry-After", seconds),
            None => answer,
        }
    }

    pub fn status(&self) -> u16 {
        self.status
    }

    pub fn body(&self) -> &[u8] {
        &self.body
    }

    pub fn get(&self, header: &str) -> Option<&str> {
        self.headers.iter().find(|(name, _)| *name == header).map(|(_, value)| value.as_str())
    }
}

impl<'r> Responder<'r, 'static> for Answer {
    fn respond_to(self, _: &'r Request<'_>) -> response::Result<'static> {
        let mut builder = Response::build();
        builder.status(Status::new(self.status)).header(ContentType::JSON);
        for (name, value) in self.headers {
            builder.header(Header::new(name, value));
        }
        builder.sized_body(self.body.len(), std::io::Cursor::new(self.body)).ok()
    }
}

#[post("/api/v1/events", data = "<data>")]
pub async fn submit(
    app: Shared,
    head: Head<'_>,
    origin: Origin,
    parameters: Parameters,
    data: Data<'_>,
) -> Result<Answer, Problem> {
    origin.check_if_cookie()?;
    let wait = waits(parameters.get("ack"))?;
    let format = head.format()?;
    accept(&app, &head, read(&app, &head, format, data).await?, wait).await
}

/// Whether the answer waits for Kafka.
pub fn waits(ack: Option<&str>) -> Result<bool, Problem> {
    match ack {
        None | Some("all") => Ok(true),
        Some("none") => Ok(false),
        Some(other) => Err(bad("ack", format!("expected all or none, not `{other}`"))),
    }
}

/// Submits what was parsed, and says what became of it.
pub async fn accept(app: &App, head: &Head<'_>, parsed: Parsed, wait: bool) -> Result<Answer, Problem> {
    match parsed {
        Parsed::One(checked) => one(app, head, *checked, wait).await,
        Parsed::Many(items) => many(app, head, items, wait).await,
    }
}

/// The tutorial's call: the same event, another answer.
#[post("/send-message", data = "<data>")]
pub async fn tutorial(app: Shared, head: Head<'_>, origin: Origin, data: Data<'_>) -> Result<Answer, Problem> {
    origin.check()?;
    match read(&app, &head, Format::Json, data).await? {
        Parsed::One(checked) => {
            one(&app, &head, *checked, true).await?;
            Ok(Answer::json(200, &json!({"message": "Sent to Kafka!"})))
        }
        Parsed::Many(_) => {
            let wrong = FieldError::new("", "must be one JSON object with `user` and `action`, not an array");
            Err(Problem::invalid(0, vec![wrong]))
        }
    }
}

async fn read(app: &App, head: &Head<'_>, format: Format, data: Data<'_>) -> Result<Parsed, Problem> {
    let body = body::read(data, app.settings.ingest.max_body.as_u64() as usize, head.encoding).await?;
    Ok(parse(&body, format, &limits(app))?)
}

pub fn limits(app: &App) -> Limits {
    let ingest = &app.settings.ingest;
    Limits { event: ingest.max_event.as_u64() as usize, batch: ingest.max_batch, now_ms: time::now_ms() }
}

async fn one(
    app: &App,
    head: &Head<'_>,
    checked: Result<Event, Vec<FieldError>>,
    wait: bool,
) -> Result<Answer, Problem> {
    let mut event = checked.map_err(|errors| {
        app.ingest.metrics().count(Became::invalid, 1);
        Problem::invalid(0, errors)
    })?;
    if let Some(key) = head.idempotency_key {
        // The draft writes it as a quoted string; most clients don't.
        let key = key.trim().trim_matches('"');
        match EventId::parse(key) {
            Some(id) if !event.id_was_given => {
                event.id = id;
                event.id_was_given = true;
            }
            Some(_) => {}
            None => {
                let detail = format!("`Idempotency-Key` must be 1 to {} visible ASCII characters", EventId::MAX);
                return Err(Problem::new(Kind::BadParameter, detail));
            }
        }
    }
    let mut events = vec![event];
    admit(app, head, &mut events)?;
    let id = events[0].id.clone();
    if !wait {
        let queued = app.ingest.enqueue(events).await.into_iter().next();
        return match queued {
            Some(Ok(event)) => Ok(Answer::json(202, &QueuedBody::new(app, &event, None))),
            Some(Err(failure)) => Err(Problem::of_failure(failure, id.as_str())),
            None => Err(Problem::new(Kind::Internal, "no event came back")),
        };
    }
    match app.ingest.accept(events).await.into_iter().next() {
        Some(Ok(receipt)) => {
            let location = format!("/api/v1/events/{}/{}", receipt.written.partition, receipt.written.offset);
            let answer = Answer::json(201, &ReceiptBody::alone(app, &receipt)).header("Location", location);
            Ok(if receipt.replayed { answer.header("Idempotent-Replayed", "true") } else { answer })
        }
        Some(Err(failure)) => Err(Problem::of_failure(failure, id.as_str())),
        None => Err(Problem::new(Kind::Internal, "no event came back")),
    }
}

async fn many(
    app: &App,
    head: &Head<'_>,
    items: Vec<Result<Event, Vec<FieldError>>>,
    wait: bool,
) -> Result<Answer, Problem> {
    if head.idempotency_key.is_some() {
        let detail = "`Idempotency-Key` is for a single event; give each event of an array an `id`";
        return Err(Problem::new(Kind::BadParameter, detail));
    }
    let count = items.len();
    let mut valid = Vec::with_capacity(count);
    let mut wrong = Vec::new();
    for (index, item) in items.into_iter().enumerate() {
        match item {
            Ok(event) => valid.push(event),
            Err(errors) => wrong.push((index, errors)),
        }
    }
    app.ingest.metrics().count(Became::invalid, wrong.len());
    if valid.is_empty() {
        return Err(Problem::all_invalid(format!("{count} events, none of them valid"), wrong));
    }
    admit(app, head, &mut valid)?;
    let ids: Vec<EventId> = valid.iter().map(|event| event.id.clone()).collect();
    let failed = |failure, id: &EventId| Item::Failed(Box::new(Problem::of_failure(failure, id.as_str())));
    let mut items: Vec<Item> = if wait {
        let results = app.ingest.accept(valid).await.into_iter().zip(&ids);
        results.map(|(result, id)| result.map_or_else(|failure| failed(failure, id), Item::Taken)).collect()
    } else {
        let results = app.ingest.enqueue(valid).await.into_iter().zip(&ids);
        results
            .map(|(result, id)| {
                result.map_or_else(|failure| failed(failure, id), |event| Item::Queued(Box::new(event)))
            })
            .collect()
    };
    for (index, errors) in wrong {
        items.insert(index, Item::Failed(Box::new(Problem::invalid(index, errors))));
    }
    let first = items[0].status();
    // All for the same reason, good or bad: the request's own status says it.
    let status = if items.iter().all(|item| item.status() == first) { first } else { 207 };
    let mut body = Vec::with_capacity(16 + items.len() * RESULT);
    body.extend_from_slice(b"{\"results\":[");
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        item.write(app, &mut body);
    }
    body.extend_from_slice(b"]}");
    let answer = Answer { status, body, headers: Vec::new() };
    Ok(if status == 503 { answer.header("Retry-After", "1") } else { answer })
}

/// The same for all events of a request: the rate limit, and the trace that they belong to.
fn admit(app: &App, head: &Head<'_>, events: &mut [Event]) -> Result<(), Problem> {
    app.limits.check(head.client, events.len()).inspect_err(|_| {
        app.ingest.metrics().count(Became::rate_limited, events.len());
    })?;
    for (name, value) in [trace::PARENT, trace::STATE].into_iter().zip(head.trace) {
        if let Some(value) = value {
            events.iter_mut().for_each(|event| event.extra_headers.push((name.into(), value.into())));
        }
    }
    Ok(())
}

/// A receipt as it is answered.
#[derive(Serialize)]
pub struct ReceiptBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    id: &'a str,
    topic: &'a str,
    partition: i32,
    offset: i64,
    time: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    replayed: bool,
}

impl<'a> ReceiptBody<'a> {
    /// On its own: the first answer again is the same, and a header says that it is one.
    pub fn alone(app: &'a App, receipt: &'a Receipt) -> Self {
        let Written { partition, offset, time_ms } = receipt.written;
        ReceiptBody {
            status: None,
            id: receipt.id.as_str(),
            topic: app.connection.topic(),
            partition,
            offset,
            time: time::format_ms(time_ms),
            replayed: false,
        }
    }

    /// One of many.
    fn item(app: &'a App, receipt: &'a Receipt) -> Self {
        ReceiptBody { status: Some(201), replayed: receipt.replayed, ..Self::alone(app, receipt) }
    }
}

/// An event that is on its way.
#[derive(Serialize)]
struct QueuedBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    id: &'a str,
    topic: &'a str,
    time: String,
}

impl<'a> QueuedBody<'a> {
    fn new(app: &'a App, event: &'a Event, status: Option<u16>) -> Self {
        let time = time::format_ms(event.time_ms);
        QueuedBody { status, id: event.id.as_str(), topic: app.connection.topic(), time }
    }
}

/// An event of an array that was not taken.
#[derive(Serialize)]
struct FailedBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    retryable: bool,
    problem: problem::Body<'a>,
}

impl<'a> From<&'a Problem> for FailedBody<'a> {
    fn from(problem: &'a Problem) -> Self {
        let status = Some(problem.kind.status());
        FailedBody { status, retryable: problem.kind.retryable(), problem: problem.body(None) }
    }
}

/// What of an array's event is known when the answer is written.
enum Item {
    Taken(Receipt),
    Queued(Box<Event>),
    Failed(Box<Problem>),
}

impl Item {
    fn status(&self) -> u16 {
        match self {
            Item::Taken(_) => 201,
            Item::Queued(_) => 202,
            Item::Failed(problem) => problem.kind.status(),
        }
    }

    fn write(&self, app: &App, out: &mut Vec<u8>) {
        // Writing into a Vec cannot fail.
        let _ = match self {
            Item::Taken(receipt) => serde_json::to_writer(out, &ReceiptBody::item(app, receipt)),
            Item::Queued(event) => serde_json::to_writer(out, &QueuedBody::new(app, event, Some(202))),
            Item::Failed(problem) => serde_json::to_writer(out, &FailedBody::from(&**problem)),
        };
    }
}

#[get("/api/v1/events")]
pub async fn history(app: Shared, parameters: Parameters) -> Result<Answer, Problem> {
    let wanted = Wanted::new(&parameters, 100, 1000)?;
    let page = reading::blocking(&app, move |history| wanted.page(history, &wanted.query(history, SCAN)?)).await?;
    let mut body = b"{\"events\":[".to_vec();
    for (index, record) in page.records.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        record_json::write(&mut body, app.connection.topic(), record);
    }
    body.extend_from_slice(b"],\"next\":");
    match page.end.next {
        Some(next) => record_json::string(&mut body, &Cursor::new(next).to_string()),
        None => body.extend_from_slice(b"null"),
    }
    body.push(b'}');
    Ok(Answer { status: 200, body, headers: vec![("Cache-Control", "no-store".into())] })
}

#[get("/api/v1/events/<partition>/<offset>")]
pub async fn record(app: Shared, partition: &str, offset: &str) -> Result<Answer, Problem> {
    let missing =
        || Problem::new(Kind::NotFound, format!("there is no record at partition {partition}, offset {offset}"));
    let (Ok(partition), Ok(offset)) = (partition.parse::<i32>(), offset.parse::<i64>()) else { return Err(missing()) };
    let found = reading::blocking(&app, move |history| history.record(partition, offset)).await?;
    let mut body = Vec::new();
    record_json::write(&mut body, app.connection.topic(), &found.ok_or_else(missing)?);
    Ok(Answer { status: 200, body, headers: Vec::new() })
}

#[get("/api/openapi.json")]
pub fn openapi() -> (ContentType, &'static str) {
    (ContentType::JSON, include_str!("../../docs/openapi.json"))
}
