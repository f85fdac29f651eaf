//! What the server knows about a request beyond Rocket's `Request`: the body, the original method, and why it is refused.

use std::error::Error;
use std::io;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{
    CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderMap, HeaderValue, REFERER, TRANSFER_ENCODING, USER_AGENT,
};
use hyper::http::request::Parts;
use hyper::{Method, Version};
use rocket::Request;
use rocket::data::ByteUnit;
use rocket::http::uri::Host;
use tokio::select;
use tokio::time::{Instant, sleep_until};

use super::Limits;
use crate::bounds;

/// Why a body was not read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unread {
    /// Larger than the limit.
    TooLarge,
    /// Arrived more slowly than its deadline allows.
    TimedOut,
    /// The client ended the connection before the end of the body.
    Cut(String),
    /// Invalid transfer coding.
    Malformed(String),
}

/// Why the server refuses a request before any route sees it.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// 4xx, or 204 for `OPTIONS *`.
    pub status: u16,
    pub detail: String,
}

/// What a client is told whose body arrived too slowly.
pub const LATE_BODY: &str = "the body did not arrive in time";

impl Refusal {
    pub(super) fn new(status: u16, detail: impl Into<String>) -> Self {
        Refusal { status, detail: detail.into() }
    }

    /// The refusal for a body that was not read; `limit` is the largest body, in bytes.
    pub(super) fn of(unread: &Unread, limit: usize) -> Self {
        match unread {
            Unread::TooLarge => Refusal::new(413, format!("the body is larger than {}", ByteUnit::Byte(limit as u64))),
            Unread::TimedOut => Refusal::new(408, LATE_BODY),
            Unread::Cut(error) => Refusal::new(408, format!("the body ended early: {error}")),
            Unread::Malformed(error) => Refusal::new(400, format!("the body ended early: {error}")),
        }
    }
}

/// What the server passes along with a Rocket request, in its local cache.
#[derive(Default)]
pub(super) struct Known {
    /// The method that the client sent, if Rocket sees another one.
    pub method: Option<Method>,
    pub refusal: Option<Refusal>,
    pub body: Mutex<Option<Result<Bytes, Unread>>>,
}

impl Known {
    fn of<'r>(request: &'r Request<'_>) -> &'r Known {
        request.local_cache(Known::default)
    }
}

/// Takes the body of a request. Empty if the request has none, or if it was taken before.
pub fn take_body(request: &Request<'_>) -> Result<Bytes, Unread> {
    let body = Known::of(request).body.lock().unwrap_or_else(PoisonError::into_inner).take();
    body.unwrap_or_else(|| Ok(Bytes::new()))
}

/// Returns why the server refuses this request; only the `CONNECT` route in `web/refusal.rs` answers such a request.
pub fn refusal<'r>(request: &'r Request<'_>) -> Option<&'r Refusal> {
    Known::of(request).refusal.as_ref()
}

/// Returns the method that the client sent. Rocket sees `CONNECT` for a refused request and for a method it does not know.
pub fn method<'r>(request: &'r Request<'_>) -> &'r str {
    Known::of(request).method.as_ref().map_or_else(|| request.method().as_str(), Method::as_str)
}

/// Returns the method as a metrics label; all methods that Rocket does not know are `other`.
pub fn method_label(request: &Request<'_>) -> &'static str {
    match &Known::of(request).method {
        None => request.method().as_str(),
        Some(method) => rocket_method(method).map_or("other", |method| method.as_str()),
    }
}

pub(super) fn rocket_method(method: &Method) -> Option<rocket::http::Method> {
    use rocket::http::Method::{Connect, Delete, Get, Head, Options, Patch, Post, Put, Trace};
    Some(match *method {
        Method::GET => Get,
        Method::POST => Post,
        Method::HEAD => Head,
        Method::PUT => Put,
        Method::DELETE => Delete,
        Method::OPTIONS => Options,
        Method::PATCH => Patch,
        Method::TRACE => Trace,
        Method::CONNECT => Connect,
        _ => return None,
    })
}

/// Returns the host of a request: from its target (RFC 9112, section 3.2.2), else from `Host`.
pub(super) fn host(head: &Parts) -> Option<Host<'_>> {
    let authority = head.uri.authority().map(|authority| authority.as_str());
    let given = || head.headers.get(HOST).and_then(|host| host.to_str().ok());
    authority.or_else(given).and_then(|host| Host::parse(host).ok())
}

/// Checks a request that hyper has parsed; returns why it is refused.
pub(super) fn refuse(head: &Parts) -> Option<Refusal> {
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if target > bounds::TARGET_BYTES {
        return Some(Refusal::new(414, format!("the request target is longer than {} bytes", bounds::TARGET_BYTES)));
    }
    if let Some(wrong) = wrong_host(head) {
        return Some(Refusal::new(400, wrong));
    }
    // hyper refuses a coding that is not `chunked` at its end, and ignores those before it.
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    let is_chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    if !codings.next().is_none_or(is_chunked) || codings.next().is_some() {
        return Some(Refusal::new(400, "the only transfer coding that is understood is chunked, once"));
    }
    if head.method == Method::CONNECT {
        return Some(Refusal::new(405, "CONNECT is for proxies; this server is not a proxy"));
    }
    match head.uri.path() {
        "*" if head.method == Method::OPTIONS => return Some(Refusal::new(204, "")),
        path if path.starts_with('/') => {}
        path => return Some(Refusal::new(400, format!("the request target {path:?} does not start with /"))),
    }
    let foreign = head.headers.iter().find(|(name, value)| {
        ![USER_AGENT, REFERER, COOKIE].contains(name) && std::str::from_utf8(value.as_bytes()).is_err()
    });
    foreign.map(|(name, _)| Refusal::new(400, format!("the header {name} is not UTF-8")))
}

/// Checks RFC 9112, section 3.2: HTTP/1.1 needs exactly one valid `Host`.
fn wrong_host(head: &Parts) -> Option<String> {
    let mut hosts = head.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if head.version < Version::HTTP_11 => None,
        (None, _) => Some("the header Host is missing".into()),
        (Some(_), Some(_)) => Some("the header Host appears more than once".into()),
        (Some(host), None) => {
            let valid = |host: &str| host.is_empty() || !host.contains('@') && Host::parse(host).is_ok();
            let text = String::from_utf8_lossy(host.as_bytes());
            let target = head.uri.authority().map_or("", |authority| authority.as_str());
            let header = (!valid(&text)).then(|| format!("the header Host is not a valid host: {text:?}"));
            header
                .or_else(|| (!valid(target)).then(|| format!("the host of the request target is invalid: {target:?}")))
        }
    }
}

/// Reads a body within the limits. Reads and discards part of a larger body, so that the client gets to read the
/// answer. If the client waits for `100 Continue`, the body stays in `held`, unread, so that the client does not send it.
pub(super) async fn receive(
    headers: &HeaderMap,
    held: &mut Option<Incoming>,
    limits: &Limits,
) -> Result<Bytes, Unread> {
    let Some(body) = held.take_if(|body| !body.is_end_stream()) else {
        return Ok(Bytes::new());
    };
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limits.body as u64) {
        let waits =
            headers.get(EXPECT).is_some_and(|expected| expected.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        match waits {
            true => *held = Some(body),
            false => drain(body).await,
        }
        return Err(Unread::TooLarge);
    }
    receive_frames(body, limits).await
}

async fn receive_frames<B>(mut body: B, limits: &Limits) -> Result<Bytes, Unread>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Error + 'static,
{
    let mut first = Bytes::new();
    let mut all: Vec<u8> = Vec::new();
    let deadline = Instant::now() + limits.deadlines.body;
    let mut timer = pin!(sleep_until(deadline));
    loop {
        let received = first.len() + all.len();
        let frame = select! {
            biased;
            frame = body.frame() => frame,
            () = &mut timer => {
                let extended = deadline + Duration::from_millis(received as u64 * 1000 / limits.body_rate);
                if Instant::now() >= extended {
                    return Err(Unread::TimedOut);
                }
                timer.as_mut().reset(extended);
                continue;
            }
        };
        let Some(frame) = frame else { break };
        let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() else { continue };
        if received + data.len() > limits.body {
            drop(all);
            drain(body).await;
            return Err(Unread::TooLarge);
        }
        // Most bodies arrive in one frame, which is not copied.
        if received == 0 {
            first = data;
        } else {
            if all.is_empty() {
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&data);
        }
    }
    Ok(if all.is_empty() { first } else { all.into() })
}

/// Reads and discards the rest of a body, up to [`bounds::DRAINED_BYTES`]. Best effort: the answer is the same in any case.
async fn drain<B: Body<Data = Bytes> + Unpin>(mut body: B) {
    let all = async {
        let mut read = 0;
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.data_ref().map_or(0, Bytes::len);
            if read > bounds::DRAINED_BYTES {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(bounds::DRAINED_TIME, all).await;
}

/// Classifies an error: a broken connection is [`Unread::Cut`] (408), an invalid transfer coding [`Unread::Malformed`] (400).
fn broken(error: &(dyn Error + 'static)) -> Unread {
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    let was_cut = |error: &io::Error| {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof};
        matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe | TimedOut)
    };
    match causes.any(|cause| cause.downcast_ref().is_some_and(was_cut)) {
        true => Unread::Cut(error.to_string()),
        false => Unread::Malformed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::super::Deadlines;
    use super::*;

    /// A body of these frames. It ends after them if they exceed `LIMIT`; otherwise it stays open.
    fn unfinished(pieces: &[usize]) -> impl Body<Data = Bytes, Error = io::Error> + Unpin + use<> {
        let frame = |size: usize| Ok(Frame::data(Bytes::from(vec![b'x'; size])));
        let frames = stream::iter(pieces.iter().map(|size| frame(*size)).collect::<Vec<_>>());
        let ends = pieces.iter().sum::<usize>() > LIMIT;
        let rest = stream::iter((!ends).then_some(stream::pending()));
        let rest = futures_util::StreamExt::flatten(rest);
        StreamBody::new(Box::pin(futures_util::StreamExt::chain(frames, rest)))
    }

    const LIMIT: usize = 1000;

    /// Limits of a body whose deadline is 20 ms, and a millisecond more for each byte.
    fn limits() -> Limits {
        let deadlines = [30_000, 20, 75_000, 60_000].map(Duration::from_millis);
        let [head, body, idle, write] = deadlines;
        let deadlines = Deadlines { head, body, idle, write };
        Limits { deadlines, head: 8192, body: LIMIT, body_rate: 1000, connections: 1, connections_each: 1 }
    }

    #[tokio::test]
    async fn a_body_is_too_large_or_late() {
        for (pieces, expected) in [(&[600, 401][..], Unread::TooLarge), (&[6, 4], Unread::TimedOut)] {
            let received = receive_frames(unfinished(pieces), &limits()).await;
            assert_eq!(received, Err(expected));
        }
    }

    #[tokio::test]
    async fn bytes_of_a_body_extend_its_deadline() {
        let started = Instant::now();
        assert_eq!(receive_frames(unfinished(&[100, 50]), &limits()).await, Err(Unread::TimedOut));
        assert!(started.elapsed() >= Duration::from_millis(170), "{:?}", started.elapsed());
    }
}
