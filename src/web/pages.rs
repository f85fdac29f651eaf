//! The pages for people: rendered here, working without script, moved on live by it.

use std::collections::HashSet;

use askama::Template;
use rocket::form::{Form, FromForm};
use rocket::http::{ContentType, Header, RawStr, Status};
use rocket::request::{FromRequest, Outcome, Request};
use rocket::response::Redirect;
use rocket::{Data, Responder, get, post};

use super::api::{Answer, ReceiptBody, limits};
use super::guards::{Origin, Shared};
use super::problem::{Kind, Problem};
use super::query::Parameters;
use super::view::{Broker, FormError, Frame, LivePage, Receipt, Row, SendForm};
use super::{App, assets, body};
use crate::event::{Event, EventId, FieldError, Record, parse_form};
use crate::feed::Filter;
use crate::ingest::{Failure, Outcome as Became, Receipt as Taken, Written};
use crate::kafka::State;

/// Rows at first paint, and on a page of history.
pub const ROWS: usize = 50;
/// Suggestions for user and action, out of so many of the latest records.
const SUGGESTIONS: usize = 20;
const LOOKED_AT: usize = 500;
/// How much more than an event a form may be, so that what is somewhat too large is told beside its field.
const FORM_BESIDE_EVENT: usize = 64 * 1024;

pub type Html = (Status, (ContentType, String));

pub fn html(status: Status, page: &impl Template) -> Result<Html, Problem> {
    match page.render() {
        Ok(text) => Ok((status, (ContentType::HTML, text))),
        Err(error) => Err(Problem::new(Kind::Internal, format!("the page cannot be rendered: {error}"))),
    }
}

/// What stands around every page.
pub fn frame(app: &App) -> Frame {
    let broker = match &*app.kafka.borrow() {
        State::Up(_) => Broker::Up,
        State::Connecting { since_ms, reason } | State::Away { since_ms, reason } => {
            Broker::Away { since_ms: *since_ms, reason: reason.clone() }
        }
    };
    Frame {
        css: assets::address("app.css"),
        js: assets::address("app.js"),
        icon: assets::address("favicon.svg"),
        topic: app.connection.topic().to_owned(),
        servers: app.connection.servers().to_owned(),
        embedded: app.connection.is_embedded(),
        broker,
    }
}

/// Scheme and authority as the browser used them.
pub struct Base(pub String);

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Base {
    type Error = std::convert::Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Self::Error> {
        let scheme = if request.rocket().config().tls_enabled() { "https" } else { "http" };
        let host = request.host().map_or_else(|| "127.0.0.1:8000".to_owned(), ToString::to_string);
        Outcome::Success(Base(format!("{scheme}://{host}")))
    }
}

#[get("/")]
pub async fn live(app: Shared, base: Base, parameters: Parameters) -> Result<Html, Problem> {
    let receipt = parameters.get("sent").and_then(|sent| {
        let (partition, offset) = sent.split_once('-')?;
        Some(Receipt { partition: partition.parse().ok()?, offset: offset.parse().ok()? })
    });
    let user = parameters.get("as").unwrap_or_default().to_owned();
    let form = SendForm { user, ..SendForm::default() };
    live_page(&app, base, &parameters, form, receipt, Status::Ok).await
}

async fn live_page(
    app: &App,
    base: Base,
    parameters: &Parameters,
    mut form: SendForm,
    receipt: Option<Receipt>,
    status: Status,
) -> Result<Html, Problem> {
    let filters = parameters.filters()?;
    if form.id.is_empty() {
        form.id = EventId::new().to_string();
    }
    if let Some(sent) = &receipt {
        // Whoever was sent here by the form wants to see the row: the tail is milliseconds behind.
        let _ =
            tokio::time::timeout(std::time::Duration::from_millis(500), app.feed.reaches(sent.partition, sent.offset))
                .await;
    }
    let (records, cursor) = app.feed.latest(&Filter::from(&filters), ROWS);
    let (latest, _) = app.feed.latest(&Filter::default(), LOOKED_AT);
    (form.users, form.actions) = suggestions(&latest);
    let page = LivePage {
        frame: frame(app),
        filters,
        rows: records.iter().map(Row::new).collect(),
        cursor: cursor.map(|cursor| cursor.to_string()).unwrap_or_default(),
        form,
        receipt,
        deadline_ms: app.settings.ingest.deadline.as_millis(),
        base: base.0,
    };
    html(status, &page)
}

/// The last users and actions, most recent first.
fn suggestions(latest: &[Record]) -> (Vec<String>, Vec<String>) {
    let (mut users, mut actions) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    for record in latest {
        let told = record.who_and_what();
        for (list, text, which) in [(&mut users, told.user, 0), (&mut actions, told.action, 1)] {
            if let Some(text) = text
                && list.len() < SUGGESTIONS
                && text.chars().count() <= 200
                && seen.insert((which, text.to_string()))
            {
                list.push(text.into_owned());
            }
        }
    }
    (users, actions)
}

#[derive(FromForm)]
struct Typed {
    #[field(default = String::new())]
    user: String,
    #[field(default = String::new())]
    action: String,
    #[field(default = String::new())]
    details: String,
    #[field(default = String::new())]
    id: String,
}

/// What the form's sender gets: a page, or JSON if its script asks.
#[derive(Responder)]
pub enum Submitted {
    Redirect(Box<Redirect>),
    Html(Box<Html>),
    /// The same, and when to try again.
    Later(Box<Html>, Header<'static>),
    Json(Answer),
}

/// What of the head of a form's request matters.
pub struct Sender {
    wants_html: bool,
    encoded: bool,
    client: Option<std::net::IpAddr>,
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Sender {
    type Error = std::convert::Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Self::Error> {
        let json = request.accept().is_some_and(|accept| accept.preferred().is_json());
        Outcome::Success(Sender {
            wants_html: !json,
            encoded: request.content_type().is_some_and(|kind| kind.is_form()),
            client: request.client_ip(),
        })
    }
}

#[post("/events", data = "<data>")]
pub async fn submit(
    app: Shared,
    base: Base,
    origin: Origin,
    sender: Sender,
    parameters: Parameters,
    data: Data<'_>,
) -> Result<Submitted, Problem> {
    origin.check()?;
    if !sender.encoded {
        let detail = "expected the content type application/x-www-form-urlencoded; JSON goes to /api/v1/events";
        return Err(Problem::new(Kind::UnsupportedType, detail));
    }
    let filters = parameters.filters()?.query();
    let limits = limits(&app);
    // Each byte of an event may be written as three.
    let body = body::read(data, 3 * limits.event + FORM_BESIDE_EVENT, None).await?;
    let text = std::str::from_utf8(&body).map_err(|_| Problem::new(Kind::BadRequest, "the form is not UTF-8"))?;
    let mut typed: Typed = Form::<Typed>::parse_encoded(RawStr::new(text))
        .map_err(|errors| Problem::new(Kind::BadRequest, format!("the form cannot be read: {errors}")))?;
    let result = match parse_form(&typed.user, &typed.action, &typed.details, &limits) {
        Ok(event) => match app.limits.check(sender.client, 1) {
            Ok(()) => accept(&app, event, &mut typed.id).await,
            Err(problem) => {
                app.ingest.metrics().count(Became::rate_limited, 1);
                Err(problem)
            }
        },
        Err(errors) => {
            app.ingest.metrics().count(Became::invalid, 1);
            if sender.wants_html {
                let errors = errors.into_iter().map(beside_its_field).collect();
                return refused(&app, base, &parameters, typed, errors, 422, None).await;
            }
            Err(Problem::invalid(0, errors))
        }
    };
    match result {
        Ok(receipt) if sender.wants_html => {
            let user = RawStr::new(&typed.user).percent_encode();
            let and = if filters.is_empty() { "" } else { "&" };
            let Written { partition, offset, .. } = receipt.written;
            let to = format!("/?{filters}{and}sent={partition}-{offset}&as={user}");
            Ok(Submitted::Redirect(Box::new(Redirect::to(to))))
        }
        Ok(receipt) => Ok(Submitted::Json(Answer::json(201, &ReceiptBody::alone(&app, &receipt)))),
        Err(problem) if sender.wants_html => {
            let (status, detail) = (problem.kind.status(), problem.detail().to_owned());
            let after = problem.retry_after().map(str::to_owned);
            refused(&app, base, &parameters, typed, vec![FormError { field: "", detail }], status, after).await
        }
        Err(problem) => Err(problem),
    }
}

/// Submits what was typed, under the form's id if it has none of its own: sent again it is the same event. What was changed
/// since is another one, and the form gets another id.
async fn accept(app: &App, mut event: Event, form_id: &mut String) -> Result<Taken, Problem> {
    let own = event.id_was_given;
    if let Some(id) = EventId::parse(form_id).filter(|_| !own) {
        (event.id, event.id_was_given) = (id, true);
    }
    let mut result = submit_one(app, event.clone()).await;
    if result.as_ref().is_err_and(|failure| *failure == Failure::IdReused) && !own {
        event.id = EventId::new();
        *form_id = event.id.to_string();
        result = submit_one(app, event.clone()).await;
    }
    result.map_err(|failure| Problem::of_failure(failure, event.id.as_str()))
}

async fn submit_one(app: &App, event: Event) -> Result<Taken, Failure> {
    app.ingest.accept(vec![event]).await.into_iter().next().unwrap_or(Err(Failure::Unknown))
}

fn beside_its_field(error: FieldError) -> FormError {
    let field = match error.pointer.as_str() {
        "/user" => "user",
        "/action" => "action",
        _ => "details",
    };
    FormError { field, detail: error.detail }
}

/// The page again, with what was typed and why it was not taken.
async fn refused(
    app: &App,
    base: Base,
    parameters: &Parameters,
    typed: Typed,
    errors: Vec<FormError>,
    status: u16,
    retry_after: Option<String>,
) -> Result<Submitted, Problem> {
    let form = SendForm {
        user: typed.user,
        action: typed.action,
        details: typed.details,
        id: typed.id,
        errors,
        ..SendForm::default()
    };
    let page = live_page(app, base, parameters, form, None, Status::new(status)).await?;
    let page = Box::new(page);
    Ok(match retry_after {
        Some(after) => Submitted::Later(page, Header::new("Retry-After", after)),
        None => Submitted::Html(page),
    })
}
