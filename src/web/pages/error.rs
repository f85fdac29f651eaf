//! Turns a problem into a page for browsers.

use std::io::Cursor;

use askama::Template;
use rocket::fairing::{Fairing, Info, Kind as FairingKind};
use rocket::http::ContentType;
use rocket::{Request, Response};

use crate::web::access::Sharing;
use crate::web::problem::{Kind, Problem};
use crate::web::query::Parameters;
use crate::web::trace::Trace;
use crate::web::views::{BrokerStatus, PageFrame, sentence};

/// Replaces the JSON body of a problem by a page, if the client prefers HTML.
pub struct ErrorPages;

#[rocket::async_trait]
impl Fairing for ErrorPages {
    fn info(&self) -> Info {
        Info { name: "Error pages", kind: FairingKind::Response }
    }

    async fn on_response<'r>(&self, request: &'r Request<'_>, response: &mut Response<'r>) {
        let page = Problem::of(request).filter(|_| wants_html(request)).and_then(|problem| page(request, problem));
        if let Some(html) = page {
            response.set_header(ContentType::HTML);
            response.set_sized_body(html.len(), Cursor::new(html));
        }
    }
}

/// Whether a browser navigates to a page, outside the API. A page of a listed origin could read the answer, and a page of
/// Footfall names the Kafka brokers.
fn wants_html(request: &Request) -> bool {
    !request.uri().path().starts_with("/api/")
        && !matches!(Sharing::of(request), Sharing::With(_))
        && request.accept().is_some_and(|accept| accept.preferred().is_html())
}

/// The page of a problem; `None` if it cannot be rendered.
fn page(request: &Request, problem: &Problem) -> Option<String> {
    let (title, detail) = (problem.kind.title(), sentence(problem.detail()));
    if problem.kind == Kind::Misdirected {
        return MisdirectedPage { title, detail }.render().ok();
    }
    if let Some(page) = filled(request, problem) {
        return Some(page);
    }
    let page = ErrorPage {
        frame: super::frame_of(request)?,
        status: problem.kind.status(),
        title: title.to_owned(),
        detail,
        request_id: Trace::of(request).id.clone(),
    };
    page.render().ok()
}

/// The page that was asked for, with its form as it was sent and what is wrong in it; `None` if it has no form for that.
fn filled(request: &Request, problem: &Problem) -> Option<String> {
    let (frame, parameters) = (super::frame_of(request)?, Parameters::of(request)?);
    match (request.route()?.uri.path(), problem.kind) {
        ("/", Kind::BadParameter) => super::live::with_errors(request, &parameters),
        ("/overview", Kind::BadParameter) => super::overview::with_errors(request, &parameters),
        ("/history", Kind::BadParameter) => super::history::with_errors(frame, &parameters),
        ("/compare", Kind::BadParameter | Kind::NotFound) => super::compare::with_error(frame, &parameters, problem),
        ("/users/<user>", Kind::BadParameter) => {
            let user = request.param::<&str>(1)?.ok()?;
            super::user::with_error(frame, user, &parameters, problem)
        }
        _ => None,
    }
}

/// The page of a problem, such as 404 or 500.
#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage {
    frame: PageFrame,
    status: u16,
    title: String,
    detail: String,
    request_id: String,
}

/// The answer to a browser that used an unknown host name. Another site's page may read it, so it shows nothing of the
/// configuration.
#[derive(Template)]
#[template(path = "misdirected.html")]
struct MisdirectedPage<'a> {
    title: &'a str,
    detail: String,
}
