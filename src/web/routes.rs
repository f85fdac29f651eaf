//! The table of routes: each handler once, with its kind. Path and method are the handler's own attribute, its
//! description is its doc comment.
//!
//! What depends on the routes is built from the table: what Rocket mounts, 405 with `Allow`, which routes other sites may
//! link to, the description (`openapi/`) and the list in `docs/api.md`. A new route is one line here.

use std::collections::BTreeMap;

use footfall_core::{Dropped, Gap, Position};
use rocket::Route;

use super::access::{RouteKind, guard};
use super::method_not_allowed::not_allowed;
use super::pages::progress::{FailureMessage, ProgressMessage};
use super::receipt::{Queued, Receipt};
use super::{api, assets, pages};
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
            // Those that only schemas written by hand name.
            components(schemas(
                Bye,
                Dropped,
                FailureMessage,
                Gap,
                Heartbeat,
                Position,
                ProgressMessage,
                Queued,
                Receipt,
                Status,
            )),
        )]
        pub struct Operations;
    };
}

table! {
    described {
        Page   pages::live::page;
        Submit pages::form::submit;
        Long   api::stream::page;
        Page   pages::overview::page;
        Long   pages::overview::stream;
        Page   pages::history::page;
        Long   pages::history::search;
        Page   pages::record::record;
        Page   pages::user::page;
        Long   pages::user::count;
        Page   pages::kafka::page;

        Submit api::events::submit;
        Page   api::history::history;
        Page   api::history::record;
        Long   api::history::ndjson;
        Long   api::history::csv;
        Long   api::stream::api;
        Long   api::ws::socket;
        Page   api::users::user;
        Page   api::stats::stats;
        Page   api::topics::topics;
        Page   api::topics::groups;
        Submit api::events::tutorial;
        Submit api::segment::call;
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

/// Returns every route behind the access check, and the routes that answer 405.
pub fn routes() -> Vec<Route> {
    let table = table();
    let mut paths: BTreeMap<String, (RouteKind, Vec<&str>)> = BTreeMap::new();
    for (kind, route) in &table {
        let (_, allow) = paths.entry(route.uri.path().to_owned()).or_insert((*kind, Vec::new()));
        allow.extend(kind.methods(route.method));
    }
    let others = paths.into_iter().flat_map(|(path, (kind, mut allow))| {
        allow.sort_unstable();
        // A link that leads to a method of another kind gets 405, whichever site it is on.
        let kind = if kind == RouteKind::Probe { RouteKind::Probe } else { RouteKind::Page };
        not_allowed(&path, &allow).into_iter().map(move |route| (kind, route)).collect::<Vec<_>>()
    });
    table.into_iter().chain(others).map(|(kind, route)| guard(kind, route)).collect()
}
