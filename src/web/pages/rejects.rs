//! The page of the latest refused submissions.

use std::sync::Arc;

use askama::Template;
use rocket::http::Status;
use rocket::{State, get};

use super::{Html, html};
use crate::event::time::parse_ms;
use crate::rejects::{KEPT, Reject, Rejects};
use crate::web::openapi;
use crate::web::problem::Problem;
use crate::web::views::{BrokerStatus, PageFrame, Stamp, count_of};

#[derive(Template)]
#[template(path = "rejects.html")]
struct RejectsPage {
    frame: PageFrame,
    /// Newest first.
    rejects: Vec<Arc<Reject>>,
    /// Since the process started.
    count: u64,
}

impl RejectsPage {
    /// `3 submissions rejected since this process started`, and how many of them are shown if not all.
    fn summary(&self) -> String {
        let all = format!("{} rejected since this process started", count_of(self.count, "submission"));
        match self.rejects.len() {
            shown if self.count > shown as u64 => format!("{all}; these are the latest {shown}"),
            _ => all,
        }
    }

    /// `2026-11-27 12:00:00.120 UTC`
    fn time(&self, reject: &Reject) -> String {
        parse_ms(&reject.time).map_or_else(String::new, |ms| Stamp::new(ms, &self.frame.zone).exact())
    }

    /// What is said of a body that is not shown: `image/png, 9 bytes`.
    fn size(&self, reject: &Reject) -> String {
        let length = reject.bytes.map(|bytes| count_of(bytes as u64, "byte"));
        let parts = [reject.content_type.clone(), length];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// The place of an event that is not the only one, or the first.
    fn place(&self, reject: &Reject) -> Option<usize> {
        reject.index.filter(|index| *index > 0)
    }
}

/// The latest refused submissions, and why
#[utoipa::path(operation_id = "rejectsPage", tag = "pages", responses(openapi::Html, openapi::BadParameter,))]
#[get("/rejects")]
pub fn page(rejects: &State<Arc<Rejects>>, frame: PageFrame) -> Result<Html, Problem> {
    let (rejects, count) = rejects.latest(KEPT);
    html(Status::Ok, &RejectsPage { frame, rejects, count })
}
