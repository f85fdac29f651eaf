//! Response bodies, and what a handler passes on beside its Rocket response: a stream, or a conversation after a 101.
//!
//! A responder calls [`stream`] or [`upgrade`], and the server sends the chunks without another copy. Rocket's own bodies
//! (`sized_body`, `streamed_body`) work too; a body without a known size is read in chunks.
//!
//! **A stream that yields `Err` breaks the connection**: the server sends no last chunk, and a response without chunks
//! (HTTP/1.0) ends with a TCP reset. No client can mistake such a response for a complete one.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use rocket::Request;
use tokio::sync::mpsc;

use super::state::BusyConnection;
pub use super::takeover::Taken;

/// The chunks of a body; an `Err` breaks the connection.
pub type Chunks = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// What runs on a connection after its 101. The future ends when the connection does.
pub type Conversation = Box<dyn FnOnce(Taken) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// Where a responder leaves a stream or conversation for the server. One for each request, in its local cache.
#[derive(Clone, Default)]
pub(super) struct ResponseSlot(Arc<Mutex<Option<HandedOver>>>);

pub(super) enum HandedOver {
    Chunks(Chunks),
    Conversation(Conversation),
}

impl ResponseSlot {
    fn put(&self, what: HandedOver) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(what);
    }

    pub(super) fn take(&self) -> Option<HandedOver> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Makes `chunks` the body of the response to this request. The response itself is built without a body. The connection
/// ends with the body.
pub fn stream(request: &Request<'_>, chunks: Chunks) {
    request.local_cache(ResponseSlot::default).put(HandedOver::Chunks(chunks));
}

/// Runs `conversation` on the connection after the response to this request, whose status must be 101 and whose headers
/// must have `Connection: Upgrade` and `Upgrade`.
pub fn upgrade(request: &Request<'_>, conversation: Conversation) {
    request.local_cache(ResponseSlot::default).put(HandedOver::Conversation(conversation));
}

/// A response body for hyper.
pub struct ResponseBody {
    source: Source,
    /// The request's body, if it must not be read: when it is dropped, hyper reads it or closes the connection.
    _unread: Option<Incoming>,
    /// Marks the connection busy while this body exists.
    busy: BusyConnection,
}

pub(super) enum Source {
    /// No body, and no length beyond what the headers say: HEAD, 204, 304, 101.
    Nothing,
    Full(Option<Bytes>),
    /// A stream that takes the connection over once the response's head is sent.
    HandedOver,
    /// A Rocket body without a known size.
    Reader(BodyReader),
}

/// Reads a Rocket body. The body borrows from its request; `exchange` owns both and sends `chunks` while it is polled.
pub(super) struct BodyReader {
    pub chunks: mpsc::Receiver<io::Result<Bytes>>,
    /// `None` once it has ended.
    pub exchange: Option<Exchange>,
}

pub(super) type Exchange = Pin<Box<dyn Future<Output = ()> + Send>>;

impl ResponseBody {
    pub(super) fn new(source: Source, unread: Option<Incoming>, busy: BusyConnection) -> Self {
        ResponseBody { source, _unread: unread, busy }
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let body = self.get_mut();
        let next = match &mut body.source {
            Source::Nothing => None,
            Source::Full(bytes) => bytes.take().map(Ok),
            Source::HandedOver => {
                if body.busy.state().offer() {
                    cx.waker().wake_by_ref(); // hyper may have flushed before, and would not flush again
                }
                return Poll::Pending;
            }
            Source::Reader(reader) => ready!(reader.poll_next(cx)),
        };
        match &next {
            Some(Err(error)) => {
                tracing::warn!(error = %error, "response broken off");
            }
            None => body.busy.completed(),
            Some(Ok(_)) => {}
        }
        Poll::Ready(next.map(|chunk| chunk.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.source, Source::Full(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            _ => SizeHint::default(),
        }
    }
}

impl BodyReader {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if let Some(exchange) = &mut self.exchange
            && exchange.as_mut().poll(cx).is_ready()
        {
            self.exchange = None;
        }
        self.chunks.poll_recv(cx)
    }
}
