//! Answers one request: dispatches hyper's request to Rocket, and converts Rocket's response for hyper.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_LENGTH, DATE, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Version};
use rocket::http::uri::Origin;
use rocket::http::{Header, Status};
use rocket::local::asynchronous::{Client, LocalResponse};
use tokio::io::AsyncReadExt;
use tokio::select;
use tokio::sync::{mpsc, oneshot};

use super::body::{BodyReader, Exchange, HandedOver, ResponseBody, ResponseSlot, Source};
use super::request::{self, Known, Refusal, Unread};
use super::state::{BusyConnection, ConnectionPhase};
use super::takeover::{Framing, Next};
use super::transport::Refusing;
use super::{Limits, ServerMetrics};
use crate::base_path::without_base;

/// Bytes to read at once from a Rocket body without a known size.
const CHUNK: usize = 64 * 1024;

/// The application, and the limits of its requests.
pub(super) struct Application {
    pub client: Client,
    pub limits: Limits,
    pub metrics: ServerMetrics,
    /// Makes the response, head and body, for a connection beyond the limit.
    pub too_many: fn() -> Vec<u8>,
    /// Makes the response, head and body, to plain HTTP where TLS is expected.
    pub speaks_https: fn() -> Vec<u8>,
}

/// A request with its body, before it is dispatched.
struct Arrived {
    head: Parts,
    known: Known,
    /// Whether to close the connection after the answer, because the rest of the request was not read.
    close: bool,
}

/// Rocket's response: the head for hyper, and where the body comes from.
struct RocketResponse {
    head: Response<()>,
    body: RocketBody,
}

enum RocketBody {
    Nothing,
    Full(Bytes),
    Reader(mpsc::Receiver<io::Result<Bytes>>),
    /// What takes the connection over.
    HandedOver(HandedOver),
}

/// Answers a request.
///
/// A POST continues if its client leaves: an accepted event must be counted, and its id remembered. All other requests are
/// cancelled when their client leaves.
pub(super) async fn answer(
    application: Arc<Application>,
    busy: BusyConnection,
    remote: SocketAddr,
    request: Request<Incoming>,
) -> io::Result<Response<ResponseBody>> {
    let state = busy.state();
    let (mut head, body) = request.into_parts();
    let mut unread = Some(body);
    let (is_post, is_http_1_1) = (head.method == Method::POST, head.version >= Version::HTTP_11);
    if !is_http_1_1 {
        head.headers.remove(UPGRADE); // HTTP/1.0 cannot upgrade
    }
    let arrived = arrive(&application, head, &mut unread).await;
    if arrived.close {
        state.leave_unread();
    }
    state.set_phase(if is_post { ConnectionPhase::Write } else { ConnectionPhase::Read });
    let (sender, mut receiver) = oneshot::channel();
    let exchange = Box::pin(exchange(application, remote, arrived, sender));
    let mut under_way = UnderWay { exchange: Some(exchange), continues: is_post };
    let answer = select! {
        biased;
        () = &mut under_way => receiver.await,
        answer = &mut receiver => answer,
    };
    let exchange = under_way.exchange.take();
    let RocketResponse { mut head, body } = answer.map_err(|_| io::Error::other("the request was abandoned"))?;
    let source = match body {
        RocketBody::Nothing => Source::Nothing,
        RocketBody::Full(bytes) => Source::Full(Some(bytes)),
        RocketBody::Reader(chunks) => Source::Reader(BodyReader { chunks, exchange }),
        RocketBody::HandedOver(HandedOver::Conversation(conversation)) => {
            state.hand_over(Next::Conversation(conversation));
            Source::Nothing
        }
        RocketBody::HandedOver(HandedOver::Chunks(chunks)) => {
            let framing = if is_http_1_1 { Framing::Chunked } else { Framing::Close };
            state.hand_over(Next::Stream(chunks, framing));
            Source::HandedOver
        }
    };
    if !is_http_1_1 && matches!(source, Source::Reader(_)) {
        state.set_close_delimited();
    }
    if state.is_ending() && head.status() != StatusCode::SWITCHING_PROTOCOLS {
        head.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    state.answer();
    Ok(head.map(|()| ResponseBody::new(source, unread, busy)))
}

/// A request that is being answered by its connection's task. If that task ends first and the request `continues`, it gets
/// a task of its own.
struct UnderWay {
    /// `None` when it is done.
    exchange: Option<Exchange>,
    continues: bool,
}

impl Future for UnderWay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(exchange) = &mut self.exchange else { return Poll::Ready(()) };
        let polled = exchange.as_mut().poll(cx);
        if polled.is_ready() {
            self.exchange = None;
        }
        polled
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(exchange) = self.exchange.take()
            && self.continues
            && !std::thread::panicking()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(exchange);
        }
    }
}

/// Checks a request and reads its body.
async fn arrive(application: &Application, head: Parts, unread: &mut Option<Incoming>) -> Arrived {
    let method = Some(head.method.clone());
    if let Some(refusal) = request::refuse(&head) {
        let has_body = unread.as_ref().is_some_and(|body| !hyper::body::Body::is_end_stream(body));
        let close = has_body || matches!(refusal.status, 400 | 414);
        return Arrived { known: Known { method, refusal: Some(refusal), ..Known::default() }, head, close };
    }
    let body = request::receive(&head.headers, unread, &application.limits).await;
    if body == Err(Unread::TimedOut) {
        application.metrics.timeouts.get_or_create(&super::BODY).inc();
    }
    let close = body.is_err();
    let refusal = match &body {
        // A POST handler reports the error itself; handlers of other methods never look at the body.
        Err(unread) if head.method != Method::POST => Some(Refusal::of(unread, application.limits.body)),
        _ => None,
    };
    let differs = refusal.is_some() || request::rocket_method(&head.method).is_none();
    let known = Known { method: method.filter(|_| differs), refusal, body: Mutex::new(Some(body)) };
    Arrived { head, known, close }
}

/// Dispatches a request to Rocket and sends its response to `sender`; then sends the rest of the body, if there is any.
async fn exchange(
    application: Arc<Application>,
    remote: SocketAddr,
    Arrived { head, known, close }: Arrived,
    sender: oneshot::Sender<RocketResponse>,
) {
    let refused = known.refusal.is_some();
    let method = request::rocket_method(&head.method).filter(|_| !refused).unwrap_or(rocket::http::Method::Connect);
    let path = if head.uri.path().starts_with('/') { without_base(head.uri.path()) } else { "/" };
    let mut request = application.client.req(method, Origin::new(path, head.uri.query())).remote(remote);
    // If the target is in absolute form, its host replaces the header's (RFC 9112, section 3.2.2).
    let absolute = head.uri.scheme().and(head.uri.authority()).map(|authority| authority.as_str());
    for (name, value) in head.headers.iter().filter(|(name, _)| absolute.is_none() || *name != HOST) {
        request.inner_mut().add_header(Header::new(name.as_str(), String::from_utf8_lossy(value.as_bytes())));
    }
    if let Some(host) = absolute {
        request.inner_mut().add_header(Header::new("Host", host.to_owned()));
    }
    if let Some(host) = request::host(&head) {
        request.inner_mut().set_host(host);
    }
    let slot = request.inner().local_cache(ResponseSlot::default).clone();
    request.inner().local_cache(move || known);
    let mut response = request.dispatch().await;
    let mut answer = head_of(&response);
    if close {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let is_head = method == rocket::http::Method::Head;
    let (size, is_none) = (response.body().preset_size(), response.body().is_none());
    let body = match slot.take() {
        // The Rocket response can be dropped: a stream or conversation owns everything it needs.
        Some(HandedOver::Chunks(_)) if is_head => RocketBody::Nothing,
        Some(next) => {
            if let HandedOver::Chunks(_) = next {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            RocketBody::HandedOver(next)
        }
        None if is_head || matches!(answer.status().as_u16(), 204 | 304) => {
            if let Some(size) = size.filter(|_| answer.status() != 204) {
                answer.headers_mut().insert(CONTENT_LENGTH, size.into());
            }
            RocketBody::Nothing
        }
        None if is_none => RocketBody::Full(Bytes::new()),
        None if let Some(size) = size => {
            let mut bytes = Vec::with_capacity(size);
            if let Err(error) = response.read_to_end(&mut bytes).await {
                tracing::error!(error = %error, "cannot read a response");
                return;
            }
            RocketBody::Full(bytes.into())
        }
        None => {
            let (chunks, receiver) = mpsc::channel(1);
            if sender.send(RocketResponse { head: answer, body: RocketBody::Reader(receiver) }).is_ok() {
                read(response, chunks).await;
            }
            return;
        }
    };
    drop(response);
    let _ = sender.send(RocketResponse { head: answer, body }); // fails if the client has left
}

fn head_of(response: &LocalResponse<'_>) -> Response<()> {
    let mut head = Response::new(());
    *head.status_mut() = StatusCode::from_u16(response.status().code).unwrap_or_default();
    for header in response.headers().iter() {
        let name = HeaderName::from_bytes(header.name.as_str().as_bytes());
        let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(header.value())) else {
            tracing::error!(header = header.name.as_str(), "cannot send a header");
            continue;
        };
        if name != CONTENT_LENGTH && name != TRANSFER_ENCODING {
            head.headers_mut().append(name, value);
        }
    }
    head
}

/// Reads a Rocket body in chunks, as fast as the client reads them.
async fn read(mut response: LocalResponse<'_>, chunks: mpsc::Sender<io::Result<Bytes>>) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        let chunk = match response.read_buf(&mut buffer).await {
            Ok(0) => return,
            Ok(_) => Ok(buffer.split().freeze()),
            Err(error) => Err(error),
        };
        let is_last = chunk.is_err();
        if chunks.send(chunk).await.is_err() || is_last {
            return;
        }
    }
}

/// Makes the response to bytes that hyper cannot parse as a request.
pub(super) fn refuse(application: Arc<Application>, remote: SocketAddr, status: Status) -> Refusing {
    let detail = match status.code {
        408 => "the request's head did not arrive in time",
        414 => "the request target is too long",
        431 => "the request's headers are too large or too many",
        _ => "the request is not valid HTTP/1.1",
    };
    Box::pin(async move {
        let (mut head, ()) = Request::new(()).into_parts();
        head.method = Method::from_bytes(b"-").unwrap_or_default(); // unknown
        let refusal = Some(Refusal::new(status.code, detail));
        let known = Known { method: Some(head.method.clone()), refusal, ..Known::default() };
        let (sender, receiver) = oneshot::channel();
        exchange(application, remote, Arrived { head, known, close: true }, sender).await;
        match receiver.await {
            Ok(RocketResponse { head, body: RocketBody::Full(body) }) => written(head, &body),
            _ => Bytes::new(),
        }
    })
}

/// Serialises a response as HTTP/1.1.
fn written(head: Response<()>, body: &[u8]) -> Bytes {
    let mut out = format!("HTTP/1.1 {}\r\n", head.status()).into_bytes();
    let mut header = |name: &str, value: &[u8]| {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    };
    for (name, value) in head.headers() {
        header(name.as_str(), value.as_bytes());
    }
    header(CONTENT_LENGTH.as_str(), body.len().to_string().as_bytes());
    header(DATE.as_str(), httpdate::fmt_http_date(std::time::SystemTime::now()).as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
    out.into()
}
