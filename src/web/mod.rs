//! HTTP: routes that parse a request, call one function of another module, and answer.

mod access;
mod answer;
mod api;
mod assets;
mod body;
mod catcher;
mod cors;
mod guards;
mod headers;
mod long_answer;
mod method_not_allowed;
mod openapi;
mod pages;
mod prefer;
mod problem;
mod query;
mod receipt;
mod refusal;
mod rejects;
mod request_log;
mod routes;
mod trace;
pub mod views;

pub use access::Https;
pub use refusal::{speaks_https, too_many_connections};
pub use routes::is_taken;

use std::sync::Arc;

use rocket::shield::Shield;
use rocket::{Build, Rocket, catchers};

use crate::ephemeral::Ephemeral;
use crate::rejects::Rejects;
use crate::telemetry::Metrics;

pub use pages::form::form_bytes;
pub use pages::overview::Overviews;

/// Adds routes, catchers and fairings to a Rocket that manages the parts. `log_requests` is whether each request gets a
/// line in the log; `tracker` is the path of the tracker's script. Rocket does not launch if a handler uses the `State` of
/// a part that is not managed.
pub fn mount(
    rocket: Rocket<Build>,
    metrics: Arc<Metrics>,
    rejects: Arc<Rejects>,
    log_requests: bool,
    tracker: &str,
) -> Rocket<Build> {
    let is_ephemeral = rocket.state::<Ephemeral>().is_some();
    let script = tracker.to_owned();
    rocket
        .attach(rejects::NoteRejects(rejects.clone()))
        .attach(request_log::RequestLog { metrics, lines: log_requests })
        .attach(pages::error::ErrorPages)
        // Our headers replace Rocket's own.
        .attach(Shield::new())
        .attach(headers::Security)
        .manage(rejects)
        .attach(cors::Cors)
        .manage(openapi::Description::new(move || openapi::text(routes::description(&script))))
        .mount("/", routes::routes(tracker, is_ephemeral))
        .mount("/", refusal::routes())
        .register("/", catchers![catcher::catch])
}
