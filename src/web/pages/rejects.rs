//! The page of the latest refused submissions.

use std::sync::Arc;

use askama::Template;
use rocket::http::Status;
use rocket::{State, get};

use super::{Html, html};
use crate::rejects::{KEPT, Reject, Rejects};
use crate::web::openapi;
use crate::web::problem::Problem;
use crate::web::views::{BrokerStatus, PageFrame, count_of};

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

    /// `2026-11-27 12:00:00.120`, in UTC.
    fn clock(&self, reject: &Reject) -> String {
        reject.time.replace('T', " ").replace('Z', "")
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
