//! The pages for people. They are rendered here, work without script, and are updated live by script.

pub mod compare;
pub mod error;
pub mod form;
pub mod histogram;
pub mod history;
pub mod kafka;
pub mod live;
pub mod overview;
pub mod progress;
pub mod record;
pub mod rejects;
pub mod strip;
mod suggestions;
pub mod user;
mod wrong;
pub mod zone;

use askama::Template;
use footfall_core::query_string::{QueryBuilder, QueryString};
use rocket::http::{ContentType, Status};
use rocket::request::{FromRequest, Outcome, Request};
use rocket::response::Redirect;

use crate::base_path::base_path;
use crate::hosts::Authority;
use crate::kafka::{ClusterState, Connection, describe_troubles};
use crate::search::{Order, SearchRequest};
use crate::web::api::history::request;
use crate::web::guards::{self, KafkaState};
use crate::web::problem::{Kind, Problem};
use crate::web::query::Parameters;
use crate::web::views::{BrokerStatus, PageFrame, typed_condition};
use crate::web::{access, assets};

/// Rows at first paint, and on a page of history.
pub const ROWS: usize = 50;
pub type Html = (Status, (ContentType, String));

pub fn html(status: Status, page: &impl Template) -> Result<Html, Problem> {
    match page.render() {
        Ok(text) => Ok((status, (ContentType::HTML, text))),
        Err(error) => Err(Problem::new(Kind::Internal, format!("the page cannot be rendered: {error}"))),
    }
}

/// Returns the redirect to a page with the condition that its form sent as three fields; `None` if it sent none.
fn to_condition(path: &str, parameters: &Parameters) -> Option<Redirect> {
    let condition = typed_condition(parameters)?;
    let mut query = QueryBuilder::default();
    query.add("f", &condition);
    let others = parameters.with(&[("field", ""), ("op", ""), ("value", "")]);
    let and = if others.is_empty() { "" } else { "&" };
    Some(Redirect::to(format!("{}{path}?{others}{and}{}", base_path(), query.text())))
}

/// Returns the value of a cookie. Anybody may write one.
fn cookie<'r>(request: &'r Request<'_>, name: &str) -> Option<&'r str> {
    let mut pairs = request.headers().get("Cookie").flat_map(|line| line.split(';'));
    pairs.find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

/// Returns the frame of a page: the addresses of its files, the topic, and whether Kafka is reachable.
fn frame_of(request: &Request) -> Option<PageFrame> {
    Some(surround(request, request.rocket().state()?, request.rocket().state()?))
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for PageFrame {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        guards::part(frame_of(request))
    }
}

fn surround(request: &Request, connection: &Connection, kafka: &KafkaState) -> PageFrame {
    let zone = zone::chosen(request);
    let broker = match &*kafka.borrow() {
        ClusterState::Up(topic) => describe_troubles(&topic.troubles).map_or(BrokerStatus::Up, BrokerStatus::Impaired),
        ClusterState::Connecting { since_ms, reason, .. } | ClusterState::Unreachable { since_ms, reason, .. } => {
            BrokerStatus::Unreachable { since_ms: *since_ms, reason: reason.clone() }
        }
    };
    PageFrame {
        css: assets::address("app.css"),
        js: assets::address("app.js"),
        icon: assets::address("favicon.svg"),
        topic: connection.topic().to_owned(),
        servers: connection.servers().to_owned(),
        embedded: connection.is_embedded(),
        broker,
        zone_is_chosen: zone.is_some(),
        zone: zone.unwrap_or_default(),
        here: zone::here(request),
    }
}

/// Scheme, authority and base path as the browser used them.
pub struct Base(pub String);

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Base {
    type Error = std::convert::Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Self::Error> {
        Outcome::Success(Base::of(request))
    }
}

impl Base {
    fn of(request: &Request) -> Self {
        let host = access::host(request);
        let scheme = if is_https(request, host.as_ref()) { "https" } else { "http" };
        let host = host.map_or_else(|| "127.0.0.1:8000".to_owned(), |host| host.to_string());
        Base(format!("{scheme}://{host}{}", base_path()))
    }
}

/// Whether the browser uses HTTPS, perhaps to a proxy. Anyone may send `X-Forwarded-Proto`, because it decides only what its
/// sender is shown. Without that header, and without TLS of our own: browsers send Fetch Metadata only over HTTPS or to
/// their own machine.
fn is_https(request: &Request, host: Option<&Authority>) -> bool {
    let header = |name| request.headers().get_one(name);
    match header("X-Forwarded-Proto").and_then(|list| list.split(',').next()) {
        Some(first) => first.trim().eq_ignore_ascii_case("https"),
        None if access::is_https(request) => true,
        None => header("Sec-Fetch-Site").is_some() && host.is_some_and(|host| !host.is_loopback()),
    }
}

/// Makes the request of the history page: as of programs, but newest first also from a time.
pub fn history_request(parameters: &QueryString) -> Result<SearchRequest, Problem> {
    let mut request = request(parameters, ROWS, 1000)?;
    if request.since.is_some() && ["order", "from", "offset"].into_iter().all(|name| parameters.get(name).is_none()) {
        request.order = Order::NewestFirst;
    }
    Ok(request)
}
