//! JSON answers with a status and a few headers.

use std::io::Cursor;

use rocket::http::{ContentType, Header, Status};
use rocket::request::Request;
use rocket::response::{self, Responder, Response};
use serde::Serialize;

use super::rejects;
use crate::rejects::Refusal;

pub struct Answer {
    status: u16,
    body: Vec<u8>,
    headers: Vec<(&'static str, String)>,
    /// Why events of the request were refused, if any were.
    refusal: Option<Refusal>,
}

impl Answer {
    pub fn json(status: u16, body: &impl Serialize) -> Self {
        // Serialisation cannot fail: the keys are text, and there is no NaN or infinity.
        Answer::raw(status, serde_json::to_vec(body).unwrap_or_default())
    }

    /// An answer whose body is JSON already.
    pub fn raw(status: u16, body: Vec<u8>) -> Self {
        Answer { status, body, headers: Vec::new(), refusal: None }
    }

    /// Notes why events of the request were refused.
    pub fn refused(mut self, refusal: Option<Refusal>) -> Self {
        self.refusal = refusal;
        self
    }

    pub fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_ref()
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn status(&self) -> u16 {
        self.status
    }

    pub fn body(&self) -> &[u8] {
        &self.body
    }

    pub fn get(&self, header: &str) -> Option<&str> {
        self.headers.iter().find(|(name, _)| *name == header).map(|(_, value)| value.as_str())
    }
}

impl<'r> Responder<'r, 'static> for Answer {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'static> {
        rejects::note(request, self.refusal);
        let mut builder = Response::build();
        builder.status(Status::new(self.status)).header(ContentType::JSON);
        for (name, value) in self.headers {
            builder.header(Header::new(name, value));
        }
        builder.sized_body(self.body.len(), Cursor::new(self.body)).ok()
    }
}
