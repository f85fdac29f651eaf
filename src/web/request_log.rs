//! A request's id, its one log line, and its place in the metrics.

use std::sync::Arc;
use std::time::Instant;

use rocket::fairing::{Fairing, Info, Kind};
use rocket::http::Header;
use rocket::{Data, Request, Response};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::App;
use crate::event::EventId;
use crate::telemetry::Labels;

pub struct RequestLog;

/// What is kept with a request.
pub struct Trace {
    pub id: String,
    begun: Instant,
    /// Until the answer is sent, to its last byte.
    _open: Option<TaskTrackerToken>,
}

impl Trace {
    /// The client's `X-Request-Id`, if it is 1 to 128 visible ASCII characters, else a new one.
    pub fn of<'r>(request: &'r Request<'_>) -> &'r Trace {
        request.local_cache(|| {
            let given = request.headers().get_one("X-Request-Id").filter(|id| EventId::is_valid(id));
            let app = request.rocket().state::<Arc<App>>();
            Trace {
                id: given.map_or_else(|| EventId::new().to_string(), str::to_owned),
                begun: Instant::now(),
                _open: app.map(|app| app.requests.token()),
            }
        })
    }
}

#[rocket::async_trait]
impl Fairing for RequestLog {
    fn info(&self) -> Info {
        Info { name: "Request log", kind: Kind::Request | Kind::Response }
    }

    async fn on_request(&self, request: &mut Request<'_>, _: &mut Data<'_>) {
        Trace::of(request);
    }

    async fn on_response<'r>(&self, request: &'r Request<'_>, response: &mut Response<'r>) {
        let trace = Trace::of(request);
        let seconds = trace.begun.elapsed().as_secs_f64();
        response.set_header(Header::new("X-Request-Id", trace.id.as_str()));
        let Some(app) = request.rocket().state::<Arc<App>>() else { return };
        let route = request.route().filter(|route| route.rank < super::methods::RANK);
        let status = response.status().code;
        app.metrics.request(
            &Labels {
                method: request.method().as_str(),
                route: route.map_or_else(|| "none".into(), |route| route.uri.path().to_owned()),
                status,
            },
            seconds,
        );
        if app.settings.log.requests {
            tracing::info!(
                http.method = request.method().as_str(),
                http.path = request.uri().path().as_str(),
                http.status = status,
                duration_ms = (seconds * 1e6).round() / 1e3,
                client.ip = request.client_ip().map(tracing::field::display),
                request.id = trace.id,
                "request"
            );
        }
    }
}
