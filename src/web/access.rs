//! Which requests are answered: those that name this server, that no page of another site has caused unless it may, and
//! whose target is text.
//!
//! The check runs before every route and the catcher, before any handler or guard, so that no route can omit it and a
//! rejected request costs little.

use footfall_core::query_string;
use rocket::http::Method;
use rocket::route::{Handler, Outcome, Route};
use rocket::{Data, Request};

use super::problem::{Kind, Problem};
use super::{query, rejects};
use crate::hosts::{Authority, Hosts};
use crate::origins::Origins;

/// Whether the server itself speaks HTTPS. If not, a proxy in front of it may.
#[derive(Debug, Clone, Copy)]
pub struct Https(pub bool);

/// The purpose of a route. It decides which origins may request it, and with which methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteKind {
    /// Answers a probe under any host name, as long as there is no query: it reveals nothing of the events.
    Probe,
    /// A page or bounded JSON. A link of another site may lead to it.
    Page,
    /// A stream, a search or an export. No other site may start it: any page could do so again and again without its
    /// user noticing.
    Long,
    /// Takes events as JSON. Pages of listed origins may send them (`ingest.origins`).
    Submit,
    /// Takes the page's form. Only Footfall's own pages may send it.
    Form,
    /// Takes a form that changes what a browser sees, and no events. Only Footfall's own pages may send it.
    Setting,
    /// A script that pages of any site may load: it is the same for all, and the server does nothing for it.
    Script,
    /// A file of the pages.
    File,
}

impl RouteKind {
    /// Whether a link of another site may lead to the route.
    pub fn is_linkable(self) -> bool {
        matches!(self, RouteKind::Probe | RouteKind::Page)
    }

    /// Whether pages of listed origins may request the route and read its answers.
    fn is_shared(self) -> bool {
        matches!(self, RouteKind::Submit | RouteKind::Script)
    }

    /// Returns the kind of the first route that had a request, [`RouteKind::Page`] if none had it.
    pub fn of(request: &Request) -> RouteKind {
        *request.local_cache(|| RouteKind::Page)
    }

    /// The methods that work where a handler takes `method`, as `Allow` names them.
    pub fn methods(self, method: Method) -> &'static [&'static str] {
        match (method, self) {
            (Method::Post, _) => &["POST"],
            (Method::Delete, _) => &["DELETE"],
            (_, RouteKind::Long) => &["GET"],
            _ => &["GET", "HEAD"],
        }
    }
}

/// Which pages of other origins may read the answer to a request (WHATWG Fetch, section 3.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sharing {
    /// None.
    Closed,
    /// Those of listed origins, but this request does not come from one.
    Listed,
    /// That of this listed origin.
    With(String),
}

impl Sharing {
    /// Returns what the check has found.
    pub fn of<'r>(request: &'r Request<'_>) -> &'r Sharing {
        request.local_cache(|| Sharing::Closed)
    }

    /// Records whether a request to a shared route comes from a page of a listed origin.
    fn record<'r>(request: &'r Request<'_>) -> &'r Sharing {
        request.local_cache(|| {
            let origins = request.rocket().state::<Origins>().filter(|origins| !origins.is_empty());
            let Some(origins) = origins else { return Sharing::Closed };
            let mut sent = request.headers().get("Origin");
            match (sent.next(), sent.next()) {
                (Some(origin), None) if origins.contains(origin) => Sharing::With(origin.to_owned()),
                _ => Sharing::Listed,
            }
        })
    }
}

/// Adds the check to a route.
pub fn guard(kind: RouteKind, mut route: Route) -> Route {
    route.handler = Box::new(Guarded { kind, handler: route.handler });
    route
}

#[derive(Clone)]
struct Guarded {
    kind: RouteKind,
    handler: Box<dyn Handler>,
}

#[rocket::async_trait]
impl Handler for Guarded {
    async fn handle<'r>(&self, request: &'r Request<'_>, data: Data<'r>) -> Outcome<'r> {
        request.local_cache(|| self.kind);
        if self.kind == RouteKind::Setting {
            rejects::ignore(request);
        }
        match check(request, self.kind) {
            Ok(()) => self.handler.handle(request, data).await,
            Err(problem) => Outcome::from(request, problem),
        }
    }
}

/// Rejects a request under a foreign host name with 421, one from another site's page with 403 unless that may send it, and
/// one whose target is not UTF-8 or repeats a parameter with 400.
pub fn check(request: &Request, kind: RouteKind) -> Result<(), Problem> {
    let Some(hosts) = request.rocket().state::<Hosts>() else {
        return Err(Problem::new(Kind::Internal, "a part of the application is missing"));
    };
    check_host(request, kind, hosts)?;
    let is_listed = kind.is_shared() && matches!(Sharing::record(request), Sharing::With(_));
    if !is_listed && kind != RouteKind::Script {
        check_site(request, kind, hosts)?;
    }
    check_target(request)
}

fn check_target(request: &Request) -> Result<(), Problem> {
    let path = request.uri().path();
    if let Some(segment) = path.raw().split('/').find(|segment| query_string::segment(segment.as_str()).is_none()) {
        let detail = format!("`{segment}` in the path is not UTF-8 after percent-decoding");
        return Err(Problem::new(Kind::BadRequest, detail));
    }
    query::of(request)?;
    Ok(())
}

/// Returns the first `Host` of a request, if it is valid.
pub fn host<'r>(request: &'r Request<'_>) -> Option<Authority<'r>> {
    request.headers().get_one("Host").and_then(Authority::parse)
}

/// Whether the server itself speaks HTTPS.
pub fn is_https(request: &Request) -> bool {
    request.rocket().state().is_some_and(|Https(is_https)| *is_https)
}

/// Every `Host` must name this server. A request of HTTP/1.0 may have none, but no browser sends such a request.
fn check_host(request: &Request, kind: RouteKind, hosts: &Hosts) -> Result<(), Problem> {
    let ours = |text: &str| Authority::parse(text).is_some_and(|host| hosts.contains(&host));
    let Some(foreign) = request.headers().get("Host").find(|text| !ours(text)) else { return Ok(()) };
    if kind == RouteKind::Probe && request.uri().query().is_none() {
        return Ok(());
    }
    let detail = format!(
        "`Host` is `{foreign}`, which is no name of this server; expected an IP address, localhost, or a name that is \
         listed in http.hosts (FOOTFALL_HTTP__HOSTS)"
    );
    Err(Problem::new(Kind::Misdirected, detail))
}

/// `Sec-Fetch-Site` says which site caused the request (W3C Fetch Metadata), otherwise `Origin` does. A program sends
/// neither.
fn check_site(request: &Request, kind: RouteKind, hosts: &Hosts) -> Result<(), Problem> {
    let headers = request.headers();
    let mut sites = headers.get("Sec-Fetch-Site").peekable();
    if sites.peek().is_some() {
        let Some(site) = sites.find(|site| !matches!(*site, "same-origin" | "none")) else { return Ok(()) };
        if kind.is_linkable() && is_link(request) {
            return Ok(());
        }
        let mut detail = format!(
            "this was sent by a page of another site (`Sec-Fetch-Site` is `{site}`), from which only links to pages are \
             followed"
        );
        if kind == RouteKind::Submit {
            detail +=
                ", and events of the origins that are listed in ingest.origins (FOOTFALL_INGEST__ORIGINS) are accepted";
        }
        return Err(Problem::new(Kind::CrossSite, detail));
    }
    let host = host(request);
    // A server of HTTPS has no pages at `http://`: anyone in the network can make such a page.
    let is_plain = |origin: &str| is_https(request) && origin.starts_with("http://");
    let foreign = |origin: &&str| is_plain(origin) || !hosts.is_own(origin, host.as_ref());
    let Some(origin) = headers.get("Origin").find(foreign) else { return Ok(()) };
    let host = headers.get_one("Host").unwrap_or_default();
    let mut detail = format!(
        "this was sent by a page of another site: `Origin` is `{origin}` and `Host` is `{host}`. If both are this server, \
         the proxy in front of it has changed `Host`: let it pass the original one (nginx: `proxy_set_header Host \
         $http_host;`), or list the name in http.hosts"
    );
    if kind == RouteKind::Submit {
        detail += ". If that site may send events, list its origin in ingest.origins (FOOTFALL_INGEST__ORIGINS)";
    }
    Err(Problem::new(Kind::CrossSite, detail))
}

/// Whether the request follows a link and opens a page.
fn is_link(request: &Request) -> bool {
    let is = |name, value| request.headers().get_one(name) == Some(value);
    matches!(request.method(), Method::Get | Method::Head)
        && is("Sec-Fetch-Mode", "navigate")
        && is("Sec-Fetch-Dest", "document")
}
