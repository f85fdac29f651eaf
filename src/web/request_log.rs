//! Logs each request, counts it in the metrics, and adds its id to the answer.

use std::sync::Arc;

use rocket::fairing::{Fairing, Info, Kind};
use rocket::http::Header;
use rocket::{Data, Request, Response};

use super::trace::Trace;
use crate::server;
use crate::telemetry::{Metrics, RequestLabels};

pub struct RequestLog {
    pub metrics: Arc<Metrics>,
    /// Whether each request gets a line in the log.
    pub lines: bool,
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
        let seconds = trace.started().elapsed().as_secs_f64();
        response.set_header(Header::new("X-Request-Id", trace.id.as_str()));
        let ours = |rank| rank < super::method_not_allowed::RANK && rank > isize::MIN;
        let route = request.route().filter(|route| ours(route.rank));
        let status = response.status().code;
        self.metrics.request(
            &RequestLabels {
                method: server::method_label(request),
                route: route.map_or_else(|| "none".into(), |route| route.uri.path().to_owned()),
                status,
            },
            seconds,
        );
        if self.lines {
            tracing::info!(
                http.method = server::method(request),
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
