//! The table of routes: each handler once, with its kind. Path and method are the handler's own attribute, its
//! description is its doc comment.
//!
//! What depends on the routes is built from the table: what Rocket mounts, 405 with `Allow`, which routes other sites may
//! link to, the description (`openapi/`) and the list in `docs/api.md`. A new route is one line here.

use std::collections::BTreeMap;

use footfall_core::schema::Condition;
use footfall_core::{Dropped, Gap, Position};
use rocket::Route;
use rocket::http::Method;
use rocket::route::dummy_handler;
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;

use super::access::{RouteKind, guard};
use super::method_not_allowed::not_allowed;
use super::pages::progress::{FailureMessage, ProgressMessage};
use super::receipt::{Queued, Receipt};
use super::{api, assets, pages};
use crate::rejects::Rejected;
use crate::stream::{Bye, Heartbeat, Status};

macro_rules! table {
    (described { $($kind:ident $($handler:ident)::+;)+ } bare { $($bare_kind:ident $($bare:ident)::+;)+ }) => {
        fn table() -> Vec<(RouteKind, Route)> {
            let routes = [
                $((RouteKind::$kind, rocket::routes![$($handler)::+]),)+
                $((RouteKind::$bare_kind, rocket::routes![$($bare)::+]),)+
            ];
            routes.into_iter().flat_map(|(kind, routes)| routes.into_iter().map(move |route| (kind, route))).collect()
        }

        /// The described routes as operations.
        #[derive(utoipa::OpenApi)]
        #[openapi(
            paths($($($handler)::+),+),
            // Those that only parameters and schemas written by hand name.
            components(schemas(
                Bye,
                Condition,
                Dropped,
                FailureMessage,
                Gap,
                Heartbeat,
                Position,
                ProgressMessage,
                Queued,
                Receipt,
                Rejected,
                Status,
            )),
        )]
        pub struct Operations;
    };
}

table! {
    described {
        Page   pages::live::page;
        Page   pages::strip::fragment;
        Form   pages::form::submit;
        Long   api::stream::page;
        Page   pages::overview::page;
        Long   pages::overview::stream;
        Page   pages::history::page;
        Page   pages::histogram::fragment;
        Long   pages::history::search;
        Page   pages::record::record;
        Page   pages::record::again_page;
        Page   pages::compare::page;
        Page   pages::user::page;
        Long   pages::user::count;
        Page   pages::rejects::page;
        Page   pages::kafka::page;
        Setting pages::zone::choose;

        Submit api::events::submit;
        Page   api::history::history;
        Page   api::history::record;
        Long   api::history::ndjson;
        Long   api::history::csv;
        Long   api::stream::api;
        Long   api::ws::socket;
        Page   api::users::user;
        Page   api::stats::stats;
        Page   api::rejects::rejects;
        Page   api::topics::topics;
        Page   api::topics::groups;
        Submit api::events::tutorial;
        Submit api::segment::call;
        Submit api::tracker::submit;
        Script api::tracker::script;
        Page   api::events::description;

        Probe  api::operations::livez;
        Probe  api::operations::readyz;
        Page   api::operations::metrics;
    }
    bare {
        File   assets::hashed;
        File   assets::favicon;
    }
}

/// The paths of the tracker in the table.
const SCRIPT: &str = "/track.js";
const TRACKED: &str = "/track";

/// Returns the path to which the tracker posts; `script` is the path of its script.
fn tracked(script: &str) -> &str {
    script.strip_suffix(".js").unwrap_or(script)
}

/// Whether another route is at a path of the tracker, if its script is at this path.
pub fn is_taken(script: &str) -> bool {
    let is_at = |route: &Route, path: &str| route.uri.path() == path && ![SCRIPT, TRACKED].contains(&path);
    table().iter().any(|(_, route)| is_at(route, script) || is_at(route, tracked(script)))
}

/// Returns the description of the routes, with the tracker's script at this path.
pub fn description(script: &str) -> OpenApi {
    let mut description = Operations::openapi();
    for (path, renamed) in [(SCRIPT, script), (TRACKED, tracked(script))] {
        if let Some(item) = description.paths.paths.remove(path) {
            description.paths.paths.insert(renamed.to_owned(), item);
        }
    }
    description
}

/// Returns every route behind the access check, and the routes that answer 405. The tracker's script is at this path. A test
/// double (`is_ephemeral`) has one more.
pub fn routes(script: &str, is_ephemeral: bool) -> Vec<Route> {
    let mut table = table();
    if is_ephemeral {
        // Not in the description, which is that of every other process.
        table.extend(rocket::routes![api::ephemeral::forget].into_iter().map(|route| (RouteKind::Page, route)));
    }
    for (_, route) in &mut table {
        let renamed = match route.uri.path() {
            SCRIPT => script,
            TRACKED => tracked(script),
            _ => continue,
        };
        route.uri = Route::new(route.method, renamed, dummy_handler).uri;
    }
    let mut paths: BTreeMap<String, (Vec<RouteKind>, Vec<&str>)> = BTreeMap::new();
    for (kind, route) in &table {
        let (kinds, allow) = paths.entry(route.uri.path().to_owned()).or_default();
        kinds.push(*kind);
        allow.extend(kind.methods(route.method));
    }
    let others = paths.into_iter().flat_map(|(path, (kinds, mut allow))| {
        allow.sort_unstable();
        let kind = move |method: Method| match method {
            // The preflight of a page that may post.
            Method::Options if kinds.contains(&RouteKind::Submit) => RouteKind::Submit,
            _ if kinds.contains(&RouteKind::Probe) => RouteKind::Probe,
            // A link that leads to a method of another kind gets 405, whichever site it is on.
            _ => RouteKind::Page,
        };
        not_allowed(&path, &allow).into_iter().map(move |route| (kind(route.method), route)).collect::<Vec<_>>()
    });
    table.into_iter().chain(others).map(|(kind, route)| guard(kind, route)).collect()
}
