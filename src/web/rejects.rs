//! Refused submissions: what of a request and of its answer is kept, for the page *Rejected*.
//!
//! An answer notes its refusal with the request, and [`NoteRejects`] adds it to `rejects` with what the request says: one
//! place for all routes, and for paths without a route. The WebSocket, whose posts are no requests, calls [`add`] itself.
//! 429, 503 and other answers after which a retry makes sense are no rejects.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rocket::fairing::{Fairing, Info, Kind};
use rocket::{Request, Response};

use super::excerpt::{self, excerpt};
use super::views::cut;
use crate::bounds::{Address, SMALL_BODY};
use crate::event::cloudevents::media_type;
use crate::event::time;
use crate::rejects::{Refusal, Reject, Rejects};
use crate::server;

/// Most characters of a path, of an error's text, of a pointer and of a media type.
const ROUTE_CHARS: usize = 120;
const DETAIL_CHARS: usize = 300;
const POINTER_CHARS: usize = 200;
const TYPE_CHARS: usize = 60;

/// Notes with a request why it is refused, if it is a submission.
pub fn note(request: &Request<'_>, refusal: Option<Refusal>) {
    if server::method(request) == "POST" && refusal.is_some() {
        request.local_cache(|| Noted(refusal));
    }
}

/// Notes with a request that it is no submission, whatever its answer.
pub fn ignore(request: &Request<'_>) {
    request.local_cache(|| Noted(None));
}

/// The refusal of the answer to a request.
struct Noted(Option<Refusal>);

/// What is kept of a body until its answer is made.
#[derive(Clone, Default)]
pub struct Sent {
    /// The body, if it is small enough to be parsed on the spot.
    small: Bytes,
    /// `None` if the body did not arrive as a whole.
    length: Option<usize>,
}

impl Sent {
    pub fn new(body: &Bytes) -> Self {
        let small = if body.len() <= SMALL_BODY { body.clone() } else { Bytes::new() };
        Sent { small, length: Some(body.len()) }
    }
}

/// The body of a request as handlers read it: decompressed.
#[derive(Default)]
pub struct BodyKept(Mutex<Option<Sent>>);

impl BodyKept {
    pub fn of<'r>(request: &'r Request<'_>) -> &'r Self {
        request.local_cache(BodyKept::default)
    }

    /// Keeps what was sent. It replaces what was kept before.
    pub fn keep(&self, sent: Sent) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(sent);
    }

    fn get(&self) -> Option<Sent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Adds the refused submissions to the list.
pub struct NoteRejects(pub Arc<Rejects>);

#[rocket::async_trait]
impl Fairing for NoteRejects {
    fn info(&self) -> Info {
        Info { name: "Rejects", kind: Kind::Response }
    }

    async fn on_response<'r>(&self, request: &'r Request<'_>, _: &mut Response<'r>) {
        let Some(mut refusal) = request.local_cache(|| Noted(None)).0.clone() else { return };
        let sent = BodyKept::of(request).get().unwrap_or_else(|| {
            // No handler read it.
            server::take_body(request).map(|body| Sent::new(&body)).unwrap_or_default()
        });
        let path = match request.route().filter(|route| route.rank > isize::MIN) {
            Some(route) => route.uri.path().to_owned(),
            None => {
                let raw = request.uri().path();
                let shown = excerpt::path(raw.as_str());
                // A path that leads nowhere may hold a secret, and the detail may quote it.
                refusal.detail = refusal.detail.replace(raw.as_str(), &shown);
                shown
            }
        };
        let given = request.headers().get_one("Content-Type");
        add(&self.0, &format!("POST {path}"), Address::new(request.client_ip()), refusal, given, &sent);
    }
}

/// Adds a refused submission. A request that a page of another site caused, or that names another host, is only counted: any
/// page could otherwise fill the list, and what it sends is nothing that a user of Footfall looks for.
pub fn add(rejects: &Rejects, route: &str, client: Address, refusal: Refusal, content_type: Option<&str>, sent: &Sent) {
    let Refusal { status, kind, title, detail, index, is_item, pointer, events, is_listed } = refusal;
    if !is_listed {
        return rejects.count(kind);
    }
    let content_type = content_type.map(|text| cut(&media_type(text).to_ascii_lowercase(), TYPE_CHARS));
    let excerpt = excerpt(content_type.as_deref().unwrap_or_default(), &sent.small, index.filter(|_| is_item));
    rejects.add(Reject {
        time: time::format_ms(time::now_ms()),
        route: cut(route, ROUTE_CHARS),
        client: client.network(),
        status,
        kind,
        title,
        detail: cut(&detail, DETAIL_CHARS),
        pointer: pointer.map(|pointer| cut(&pointer, POINTER_CHARS)),
        index,
        events,
        content_type,
        bytes: sent.length,
        excerpt_is_event: excerpt.as_ref().is_some_and(|excerpt| excerpt.is_event),
        excerpt: excerpt.map(|excerpt| excerpt.text),
    });
}
