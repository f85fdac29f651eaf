//! The WebSocket: a stream's frames as messages, and events in the other direction.
//!
//! Only the framing is here: what the client is told is what `live` says, what it posts goes the way of `api`. One task
//! serves a socket, so a client that takes nothing is not read from either, and costs no more than its buffers.

use std::borrow::Cow;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt, StreamExt};
use rocket::data::{IoHandler, IoStream};
use rocket::get;
use rocket::http::{Header, Status};
use rocket::request::{FromRequest, Outcome, Request};
use rocket::response::{self, Responder, Response};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::select;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::App;
use super::api::{self, Answer, Head};
use super::guards::{Origin, Shared};
use super::live::{self, Begin, Live};
use super::problem::{Kind, Problem};
use super::query::Parameters;
use crate::event::{FieldError, Format, Parsed, parse};
use crate::feed::Dialect;

/// Posts of one socket that are under way at once; beyond it nothing more is read.
const POSTS: usize = 16;
/// Bytes that are gathered before they are written, and what is read at once.
const WRITTEN_AT_ONCE: usize = 64 * 1024;
const READ_AT_ONCE: usize = 4 * 1024;
/// How long a client may leave what it is sent.
const UNTAKEN: Duration = Duration::from_secs(60);
/// Heartbeats without a sign of life from the client.
const SILENT: u32 = 2;
/// How long the end may take, from the close message to the end of the connection.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// What is still read of a client that is closed in the middle of what it says: a connection with unread bytes is reset,
/// and the client would not get to know why.
const DRAINED: u64 = 16 * 1024 * 1024;

/// The key that a WebSocket's handshake is answered with (RFC 6455, section 4.2.2); `None` if the request is none.
pub struct Handshake(Option<String>);

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Handshake {
    type Error = Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Infallible> {
        let lists = |name, wanted: &str| {
            let mut tokens = request.headers().get(name).flat_map(|list| list.split(','));
            tokens.any(|token| token.trim().eq_ignore_ascii_case(wanted))
        };
        let asks = lists("Connection", "upgrade")
            && lists("Upgrade", "websocket")
            && request.headers().get_one("Sec-WebSocket-Version") == Some("13");
        let key = request.headers().get_one("Sec-WebSocket-Key").filter(|_| asks);
        Outcome::Success(Handshake(key.map(|key| derive_accept_key(key.as_bytes()))))
    }
}

impl Handshake {
    fn accept(self) -> Result<String, Problem> {
        let detail = "expected a WebSocket's handshake (RFC 6455), version 13; GET /api/v1/stream needs none";
        let plain = || {
            Problem::new(Kind::UpgradeRequired, detail)
                .header("Upgrade", "websocket")
                .header("Connection", "Upgrade")
                .header("Sec-WebSocket-Version", "13")
        };
        self.0.ok_or_else(plain)
    }
}

#[get("/api/v1/ws")]
pub async fn socket<'r>(
    app: Shared,
    head: Head<'r>,
    origin: Origin,
    handshake: Handshake,
    begin: Begin,
    parameters: Parameters,
) -> Result<Socket<'r>, Problem> {
    // No other rule keeps another site's page from a WebSocket.
    origin.check()?;
    let accept = handshake.accept()?;
    let live = live::open(app.0.clone(), Dialect::Lines, begin, &parameters).await?;
    Ok(Socket { app: app.0, head, accept, live })
}

/// A socket as an answer. It is a part of its request, which is counted as open until the socket has ended.
pub struct Socket<'r> {
    app: Arc<App>,
    head: Head<'r>,
    accept: String,
    live: Live,
}

impl<'r> Responder<'r, 'r> for Socket<'r> {
    fn respond_to(self, _: &'r Request<'_>) -> response::Result<'r> {
        Response::build()
            .status(Status::SwitchingProtocols)
            .header(Header::new("Sec-WebSocket-Accept", self.accept.clone()))
            .upgrade("websocket", self)
            .ok()
    }
}

#[rocket::async_trait]
impl IoHandler for Socket<'_> {
    async fn io(self: Pin<Box<Self>>, io: IoStream) -> io::Result<()> {
        let Socket { app, head, live, .. } = *Pin::into_inner(self);
        let most = Some(app.settings.ingest.max_body.as_u64() as usize);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_AT_ONCE)
            .write_buffer_size(WRITTEN_AT_ONCE)
            .max_message_size(most)
            .max_frame_size(most);
        let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        converse(Line { app: &app, socket, silent: 0 }, head, live).await;
        Ok(())
    }
}

/// Tells and listens until one of the two ends it.
async fn converse(mut line: Line<'_>, head: Head<'_>, live: Live) {
    let app = line.app;
    let heartbeat = app.settings.feed.heartbeat;
    let mut ping = interval_at(Instant::now() + heartbeat, heartbeat);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut posts = FuturesUnordered::new();
    let end = {
        let mut frames = pin!(live.frames());
        loop {
            let reads = posts.len() < POSTS;
            let sent = select! {
                frames = frames.next() => match frames {
                    Some(Ok(frames)) => line.send(messages(frames)).await,
                    // It has said bye.
                    Some(Err(_)) | None => break End::OverAndOut,
                },
                message = line.socket.next(), if reads => {
                    line.silent = 0;
                    match message {
                        Some(Ok(Message::Text(text))) => match Post::read(text.into()) {
                            Ok(post) => {
                                posts.push(post.submit(app, head));
                                Ok(())
                            }
                            Err(refusal) => line.send([refusal]).await,
                        },
                        Some(Ok(Message::Binary(_))) => line.send([refusal(None, &bad("a message must be text"))]).await,
                        Some(Ok(Message::Close(_))) | None => break End::Gone,
                        Some(Ok(_)) => Ok(()),
                        Some(Err(error)) => break End::of(error),
                    }
                }
                Some(receipt) = posts.next() => line.send([receipt]).await,
                _ = ping.tick(), if reads => match line.silent {
                    SILENT.. => break End::Gone,
                    _ => {
                        line.silent += 1;
                        line.send([Message::Ping(Bytes::new())]).await
                    }
                },
            };
            if let Err(Gone) = sent {
                break End::Gone;
            }
        }
    };
    // Nothing more is read, but what was posted is on its way, and is answered where that is possible.
    match end {
        End::Gone => {
            line.hang_up().await;
            while posts.next().await.is_some() {}
        }
        End::OverAndOut => {
            while let Some(receipt) = posts.next().await {
                if line.send([receipt]).await.is_err() {
                    break;
                }
            }
            let code = if app.closing.is_cancelled() { CloseCode::Away } else { CloseCode::Normal };
            line.close(code, "bye").await;
            while posts.next().await.is_some() {}
        }
        End::Refused(code, reason) => {
            line.refuse(code, reason).await;
            while posts.next().await.is_some() {}
        }
    }
}

/// Why a conversation is over.
enum End {
    /// The stream has ended.
    OverAndOut,
    /// The client has closed, or cannot be reached.
    Gone,
    /// What the client sent is none of the protocol, or too much.
    Refused(CloseCode, &'static str),
}

impl End {
    /// RFC 6455, section 7.4.1.
    fn of(error: Error) -> Self {
        tracing::debug!(error = %error, "a WebSocket broke off");
        match error {
            Error::Capacity(_) => End::Refused(CloseCode::Size, "the message is too large"),
            Error::Utf8(_) => End::Refused(CloseCode::Invalid, "the message is not UTF-8"),
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => End::Gone,
            Error::Protocol(_) => End::Refused(CloseCode::Protocol, "not a valid frame"),
            _ => End::Gone,
        }
    }
}

/// The client does not take what it is sent.
struct Gone;

/// A connection with a client.
struct Line<'a> {
    app: &'a App,
    socket: WebSocketStream<IoStream>,
    /// Heartbeats since the client's last sign of life.
    silent: u32,
}

impl Line<'_> {
    /// Sends messages in as few writes as their size allows.
    async fn send(&mut self, messages: impl IntoIterator<Item = Message>) -> Result<(), Gone> {
        for message in messages {
            self.until_taken(|socket, cx| socket.poll_ready_unpin(cx)).await?;
            self.socket.start_send_unpin(message).map_err(|_| Gone)?;
        }
        self.until_taken(|socket, cx| socket.poll_flush_unpin(cx)).await
    }

    /// Waits for a step of a write, but not for ever.
    async fn until_taken(
        &mut self,
        mut step: impl FnMut(&mut WebSocketStream<IoStream>, &mut Context<'_>) -> Poll<Result<(), Error>>,
    ) -> Result<(), Gone> {
        let mut waited = false;
        let taken = poll_fn(|cx| {
            let taken = step(&mut self.socket, cx);
            waited |= taken.is_pending();
            taken
        });
        let closing = &self.app.closing;
        let patience = async {
            select! {
                () = sleep(UNTAKEN) => {}
                () = async { closing.cancelled().await; sleep(LAST_WORDS).await } => {}
            }
        };
        select! {
            biased;
            taken = taken => taken.map_err(|_| Gone)?,
            () = patience => return Err(Gone),
        }
        if waited {
            // There is room again: somebody reads.
            self.silent = 0;
        }
        Ok(())
    }

    /// Says why, and ends the connection when the client has answered that.
    async fn close(mut self, code: CloseCode, reason: &'static str) {
        let frame = CloseFrame { code, reason: reason.into() };
        let last_words = async {
            self.socket.send(Message::Close(Some(frame))).await?;
            while let Some(Ok(_)) = self.socket.next().await {}
            self.socket.get_mut().shutdown().await.map_err(Error::Io)
        };
        let _ = timeout(LAST_WORDS, last_words).await; // best effort: the client may be gone
    }

    /// The same in the middle of what the client says, whose rest cannot be understood.
    async fn refuse(mut self, code: CloseCode, reason: &'static str) {
        let frame = CloseFrame { code, reason: reason.into() };
        let last_words = async {
            self.socket.send(Message::Close(Some(frame))).await?;
            let io = self.socket.get_mut();
            io.shutdown().await?;
            Ok::<_, Error>(tokio::io::copy(&mut io.take(DRAINED), &mut tokio::io::sink()).await?)
        };
        let _ = timeout(LAST_WORDS, last_words).await; // best effort: the client may be gone
    }

    /// Answers the client's close, if it was one.
    async fn hang_up(mut self) {
        let last_words = async {
            let _ = self.socket.flush().await;
            self.socket.get_mut().shutdown().await
        };
        let _ = timeout(LAST_WORDS, last_words).await; // best effort: the client may be gone
    }
}

/// Frames as messages, without a copy of their own.
fn messages(frames: Bytes) -> impl Iterator<Item = Message> {
    let mut rest = frames;
    std::iter::from_fn(move || {
        let end = memchr::memchr(b'\n', &rest)?;
        let mut line = rest.split_to(end + 1);
        line.truncate(end);
        Some(text(line))
    })
}

/// A message of what is known to be UTF-8.
fn text(json: Bytes) -> Message {
    Message::Frame(Frame::message(json, OpCode::Data(Data::Text), true))
}

/// What a client sends.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(rename = "ref", borrow)]
    reference: Option<&'a RawValue>,
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    #[serde(borrow)]
    events: Option<&'a RawValue>,
    #[serde(borrow)]
    ack: Option<Cow<'a, str>>,
    #[serde(borrow)]
    idempotency_key: Option<Cow<'a, str>>,
}

/// What can be told of a message that is none of ours.
#[derive(Deserialize)]
struct Stranger<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Option<&'a RawValue>,
    #[serde(rename = "ref", borrow, default)]
    reference: Option<&'a RawValue>,
}

/// Events on their way from a client.
struct Post {
    /// The client's name for it, as JSON.
    reference: Option<Box<str>>,
    /// The bytes of the event, or of the array of them.
    body: Bytes,
    is_array: bool,
    wait: bool,
    idempotency_key: Option<String>,
}

impl Post {
    /// Reads a message, or says what is wrong with it.
    fn read(message: Bytes) -> Result<Self, Message> {
        let not_json = |error: serde_json::Error| {
            refusal(None, &Problem::new(Kind::NotJson, format!("the message is not JSON: {error}")))
        };
        if !message.trim_ascii_start().starts_with(b"{") {
            serde_json::from_slice::<IgnoredAny>(&message).map_err(not_json)?;
            return Err(refusal(None, &bad("expected a JSON object with a `type`")));
        }
        let envelope: Envelope = match serde_json::from_slice(&message) {
            Ok(envelope) => envelope,
            Err(error) => {
                let stranger: Stranger = serde_json::from_slice(&message).map_err(not_json)?;
                let problem = match stranger.kind.map(RawValue::get) {
                    Some(r#""post""#) => bad(format!("not a valid post: {error}")),
                    Some(kind) => unknown(kind),
                    None => bad("expected a JSON object with a `type`"),
                };
                return Err(refusal(name(stranger.reference).unwrap_or_default(), &problem));
            }
        };
        let reference = name(envelope.reference).map_err(|problem| refusal(None, &problem))?;
        let refuse = |problem: Problem| refusal(reference, &problem);
        if envelope.kind != "post" {
            return Err(refuse(unknown(&format!("{:?}", envelope.kind))));
        }
        let (body, is_array) = match (envelope.event, envelope.events) {
            (Some(event), None) => (event, false),
            (None, Some(events)) => (events, true),
            _ => return Err(refuse(bad("a post has either `event`, an object, or `events`, an array of them"))),
        };
        let wait = api::waits(envelope.ack.as_deref()).map_err(refuse)?;
        Ok(Post {
            reference: reference.map(Into::into),
            body: message.slice_ref(body.get().as_bytes()),
            is_array,
            wait,
            idempotency_key: envelope.idempotency_key.map(Cow::into_owned),
        })
    }

    /// Submits it as a request of its own, and gives the answer.
    async fn submit(self, app: &App, head: Head<'_>) -> Message {
        let answer = match self.parse(app) {
            Ok(parsed) => {
                let head = head.with_key(self.idempotency_key.as_deref());
                api::accept(app, &head, parsed, self.wait).await
            }
            Err(problem) => Err(problem),
        };
        let answer = answer.unwrap_or_else(|problem| Answer::of(&problem));
        say("receipt", self.reference.as_deref(), &answer)
    }

    fn parse(&self, app: &App) -> Result<Parsed, Problem> {
        let wrong = |expected: &str| Err(Problem::invalid(0, vec![FieldError::new("", expected)]));
        match (parse(&self.body, Format::Json, &api::limits(app))?, self.is_array) {
            (Parsed::Many(_), false) => wrong("must be one JSON object: an array of them is `events`"),
            (Parsed::One(_), true) => wrong("must be an array of JSON objects: one is `event`"),
            (parsed, _) => Ok(parsed),
        }
    }
}

/// A client's name for its message: a string or a number, whose JSON is given back as it came.
fn name(reference: Option<&RawValue>) -> Result<Option<&str>, Problem> {
    match reference.map(RawValue::get) {
        Some(json) if !json.starts_with(|first: char| matches!(first, '"' | '-' | '0'..='9')) => {
            Err(bad("`ref` must be a string or a number"))
        }
        json => Ok(json),
    }
}

fn bad(detail: impl Into<String>) -> Problem {
    Problem::new(Kind::BadRequest, detail)
}

fn unknown(kind: &str) -> Problem {
    bad(format!("expected the type \"post\", not {}", kind.chars().take(100).collect::<String>()))
}

/// The answer to a message that posts nothing.
fn refusal(reference: Option<&str>, problem: &Problem) -> Message {
    say("problem", reference, &Answer::of(problem))
}

/// An answer as a message: its body's members behind those that HTTP has outside of it.
fn say(kind: &str, reference: Option<&str>, answer: &Answer) -> Message {
    let mut out = format!("{{\"type\":\"{kind}\"");
    if let Some(reference) = reference {
        out += &format!(",\"ref\":{reference}");
    }
    out += &format!(",\"status\":{}", answer.status());
    if answer.get("Idempotent-Replayed").is_some() {
        out += ",\"replayed\":true";
    }
    if let Some(seconds) = answer.get("Retry-After") {
        out += &format!(",\"retry_after\":{seconds}");
    }
    out.push(',');
    let mut out = out.into_bytes();
    out.extend_from_slice(answer.body().strip_prefix(b"{").unwrap_or(b"}"));
    text(out.into())
}
