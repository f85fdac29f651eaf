//! The WebSocket: a stream's frames as messages, and events in the other direction.
//!
//! Only the framing is here: a `stream::Follower` makes the bytes of the stream, and `ingest` handles the posts. One
//! task serves a socket, so a client that does not read is not read from either, and costs only its buffers.

use std::borrow::Cow;
use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt, StreamExt};
use rocket::http::{Header, Status};
use rocket::request::{FromRequest, Outcome, Request};
use rocket::response::{self, Responder, Response};
use rocket::{Orbit, Rocket, get};
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
use tokio_util::task::TaskTracker;

use super::events;
use super::stream::{self, LastEventId};
use crate::bounds::{Address, POSTED_BYTES};
use crate::event::{BodyFormat, FieldError};
use crate::feed::Dialect;
use crate::ingest::{Ack, Events, Handling, Ingest, Shape, Submission, SubmitError};
use crate::kafka::Connection;
use crate::limits::HeavyWork;
use crate::rejects::{Refusal, Rejects};
use crate::server::body;
use crate::stream::{Follower, Streams};
use crate::web::answer::Answer;
use crate::web::guards::{self, Origin, unquoted};
use crate::web::openapi;
use crate::web::problem::{Kind, Problem};
use crate::web::query::Parameters;
use crate::web::receipt;
use crate::web::rejects::{self, Sent};

/// Most posts of one socket in flight; beyond that the socket is not read.
const POSTS: usize = 16;
/// Bytes that are collected before they are written, and bytes read at once.
const WRITTEN_AT_ONCE: usize = 64 * 1024;
const READ_AT_ONCE: usize = 4 * 1024;
/// How long a client may read nothing of what it is sent.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// Heartbeats without a sign of life from the client.
const SILENT: u32 = 2;
/// How long closing may take, from the close message to the end of the connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes read and discarded from a client whose connection is closed in the middle of a message: a connection with
/// unread bytes is reset, and the client would not get the reason.
const DRAIN_LIMIT: u64 = 16 * 1024 * 1024;

/// Returns the key of a WebSocket handshake (RFC 6455, section 4.2.2); `None` if the request is not one.
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

/// Follow the topic and send events over a WebSocket
///
/// A WebSocket (RFC 6455, version 13) whose text messages are JSON objects with a `type`. From the server:
/// `SocketMessage`; it starts as the stream does. From the client: `SocketPost`.
#[utoipa::path(
    operation_id = "openSocket",
    tags = ["streams", "events"],
    params(openapi::Follow),
    responses(
        (
            status = 101,
            description = "The connection is a WebSocket. It is closed with 1000 after the maximum age and 1001 at \
                           shutdown, both after a `bye`; with 1002, 1007 or 1009 if the client's frames are not \
                           valid, not UTF-8 or too large.",
            headers(("Sec-WebSocket-Accept" = String)),
        ),
        openapi::FollowFailures,
        openapi::UpgradeRequired,
    )
)]
#[get("/api/v1/ws")]
pub async fn socket(
    parts: SocketParts,
    origin: Origin<'_>,
    handshake: Handshake,
    last: LastEventId,
    parameters: Parameters,
) -> Result<Socket, Problem> {
    let accept = handshake.accept()?;
    let follower = stream::open(&parts.streams, origin.client, Dialect::Lines, last, &parameters, None).await?;
    let sender = Poster { client: origin.client, trace: origin.trace.map(|value| value.map(str::to_owned)) };
    Ok(Socket { parts, sender, accept, follower })
}

/// The parts that a socket uses after its request.
pub struct SocketParts {
    ingest: Arc<Ingest>,
    streams: Arc<Streams>,
    /// Parses large messages.
    heavy: HeavyWork,
    topic: String,
    rejects: Arc<Rejects>,
    /// Counts the posts that are not answered yet; the process waits for them before it ends.
    requests: TaskTracker,
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for SocketParts {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        let parts = |rocket: &Rocket<Orbit>| {
            Some(SocketParts {
                ingest: rocket.state::<Arc<Ingest>>()?.clone(),
                streams: rocket.state::<Arc<Streams>>()?.clone(),
                heavy: rocket.state::<HeavyWork>()?.clone(),
                topic: rocket.state::<Connection>()?.topic().to_owned(),
                rejects: rocket.state::<Arc<Rejects>>()?.clone(),
                requests: rocket.state::<TaskTracker>()?.clone(),
            })
        };
        guards::part(parts(request.rocket()))
    }
}

impl SocketParts {
    /// Adds a refusal to the rejects, if there was one, and returns the answer.
    fn note(&self, sender: &Poster, answered: Answered, sent: &Sent) -> Message {
        if let Some(refusal) = answered.refusal {
            rejects::add(&self.rejects, "WebSocket /api/v1/ws", sender.client, *refusal, None, sent);
        }
        answered.message
    }
}

/// The answer to a message.
struct Answered {
    message: Message,
    /// Why the message, or events of it, were refused.
    refusal: Option<Box<Refusal>>,
}

/// The sender of a socket's events, from its handshake.
struct Poster {
    client: Address,
    trace: [Option<String>; 2],
}

/// A socket as a response.
pub struct Socket {
    parts: SocketParts,
    sender: Poster,
    accept: String,
    follower: Follower,
}

impl<'r> Responder<'r, 'static> for Socket {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'static> {
        let accept = self.accept.clone();
        body::upgrade(request, self.conversation());
        Response::build()
            .status(Status::SwitchingProtocols)
            .header(Header::new("Connection", "Upgrade"))
            .header(Header::new("Upgrade", "websocket"))
            .header(Header::new("Sec-WebSocket-Accept", accept))
            .ok()
    }
}

impl Socket {
    fn conversation(self) -> body::Conversation {
        let Socket { parts, sender, follower, .. } = self;
        Box::new(move |io| Box::pin(Socket::talk(parts, sender, follower, io)))
    }

    async fn talk(parts: SocketParts, sender: Poster, follower: Follower, io: body::Taken) {
        let most = Some(parts.ingest.settings().max_body.as_u64() as usize);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_AT_ONCE)
            .write_buffer_size(WRITTEN_AT_ONCE)
            .max_message_size(most)
            .max_frame_size(most);
        let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        run_connection(Connected { parts: &parts, socket, silent: 0 }, &sender, follower).await;
    }
}

/// Sends the stream and handles posts until the stream or the client ends the connection.
async fn run_connection(mut line: Connected<'_>, sender: &Poster, mut follower: Follower) {
    let parts = line.parts;
    let heartbeat = parts.streams.heartbeat();
    let mut ping = interval_at(Instant::now() + heartbeat, heartbeat);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut posts = FuturesUnordered::new();
    // Bytes of the posts that are not answered yet.
    let mut posted = 0;
    let end = {
        loop {
            let reads = posts.len() < POSTS && posted < POSTED_BYTES;
            let sent = select! {
                frames = follower.next() => match frames {
                    Some(frames) => line.send(messages(frames)).await,
                    None => break SocketEnd::StreamEnded,
                },
                message = line.socket.next(), if reads => {
                    line.silent = 0;
                    match message {
                        Some(Ok(Message::Text(text))) => {
                            let size = text.len();
                            posted += size;
                            posts.push(async move {
                                let message = Bytes::from(text);
                                let sent = Sent::new(&message);
                                let answered = match Post::of(parts, sender.client, message).await {
                                    Ok(post) => post.submit(parts, sender).await,
                                    Err(refused) => refused,
                                };
                                (parts.note(sender, answered, &sent), size)
                            });
                            Ok(())
                        }
                        Some(Ok(Message::Binary(bytes))) => {
                            let answered = refusal(None, &bad("a message must be text"));
                            line.send([parts.note(sender, answered, &Sent::new(&bytes))]).await
                        }
                        Some(Ok(Message::Close(_))) | None => break SocketEnd::Gone,
                        // tungstenite has queued the answer to a ping; read nothing more until the client has read it.
                        Some(Ok(_)) => line.send([]).await,
                        Some(Err(error)) => break SocketEnd::of(error),
                    }
                }
                Some((answer, size)) = posts.next() => {
                    posted -= size;
                    line.send([answer]).await
                }
                _ = ping.tick(), if reads => match line.silent {
                    SILENT.. => break SocketEnd::Gone,
                    _ => {
                        line.silent += 1;
                        line.send([Message::Ping(Bytes::new())]).await
                    }
                },
            };
            if let Err(Gone) = sent {
                break SocketEnd::Gone;
            }
        }
    };
    // Read nothing more. Posts in flight are finished, and answered if possible.
    match end {
        SocketEnd::Gone => {
            line.hang_up().await;
            while posts.next().await.is_some() {}
        }
        SocketEnd::StreamEnded => {
            while let Some((receipt, _)) = posts.next().await {
                if line.send([receipt]).await.is_err() {
                    break;
                }
            }
            let code = if parts.streams.is_closing() { CloseCode::Away } else { CloseCode::Normal };
            line.close(code, "bye").await;
            while posts.next().await.is_some() {}
        }
        SocketEnd::Refused(code, reason) => {
            line.refuse(code, reason).await;
            while posts.next().await.is_some() {}
        }
    }
}

/// Why a connection ends.
enum SocketEnd {
    StreamEnded,
    /// The client has closed the connection, or is unreachable.
    Gone,
    /// The client broke the protocol, or sent too much.
    Refused(CloseCode, &'static str),
}

impl SocketEnd {
    /// RFC 6455, section 7.4.1.
    fn of(error: Error) -> Self {
        tracing::debug!(error = %error, "a WebSocket failed");
        match error {
            Error::Capacity(_) => SocketEnd::Refused(CloseCode::Size, "the message is too large"),
            Error::Utf8(_) => SocketEnd::Refused(CloseCode::Invalid, "the message is not UTF-8"),
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => SocketEnd::Gone,
            Error::Protocol(_) => SocketEnd::Refused(CloseCode::Protocol, "not a valid frame"),
            _ => SocketEnd::Gone,
        }
    }
}

/// The client does not read.
struct Gone;

/// A connection with a client.
struct Connected<'a> {
    parts: &'a SocketParts,
    socket: WebSocketStream<body::Taken>,
    /// Heartbeats since the client's last sign of life.
    silent: u32,
}

impl Connected<'_> {
    /// Sends messages in as few writes as their size allows.
    async fn send(&mut self, messages: impl IntoIterator<Item = Message>) -> Result<(), Gone> {
        for message in messages {
            self.until_taken(|socket, cx| socket.poll_ready_unpin(cx)).await?;
            self.socket.start_send_unpin(message).map_err(|_| Gone)?;
        }
        self.until_taken(|socket, cx| socket.poll_flush_unpin(cx)).await
    }

    /// Waits for a step of a write, at most for [`SEND_TIMEOUT`].
    async fn until_taken(
        &mut self,
        mut step: impl FnMut(&mut WebSocketStream<body::Taken>, &mut Context<'_>) -> Poll<Result<(), Error>>,
    ) -> Result<(), Gone> {
        let mut waited = false;
        let taken = poll_fn(|cx| {
            let taken = step(&mut self.socket, cx);
            waited |= taken.is_pending();
            taken
        });
        let streams = &self.parts.streams;
        let patience = async {
            select! {
                () = sleep(SEND_TIMEOUT) => {}
                () = async { streams.closing().await; sleep(CLOSE_TIMEOUT).await } => {}
            }
        };
        select! {
            biased;
            taken = taken => taken.map_err(|_| Gone)?,
            () = patience => return Err(Gone),
        }
        if waited {
            // The client reads, so it is alive.
            self.silent = 0;
        }
        Ok(())
    }

    /// Closes the connection with a reason, and waits for the client to confirm.
    async fn close(mut self, code: CloseCode, reason: &'static str) {
        let frame = CloseFrame { code, reason: reason.into() };
        let close = async {
            self.socket.send(Message::Close(Some(frame))).await?;
            while let Some(Ok(_)) = self.socket.next().await {}
            self.socket.get_mut().shutdown().await.map_err(Error::Io)
        };
        let _ = timeout(CLOSE_TIMEOUT, close).await; // best effort: the client may be gone
    }

    /// Closes the connection in the middle of a message whose rest cannot be parsed.
    async fn refuse(mut self, code: CloseCode, reason: &'static str) {
        let frame = CloseFrame { code, reason: reason.into() };
        let close = async {
            self.socket.send(Message::Close(Some(frame))).await?;
            let io = self.socket.get_mut();
            io.shutdown().await?;
            Ok::<_, Error>(tokio::io::copy(&mut io.take(DRAIN_LIMIT), &mut tokio::io::sink()).await?)
        };
        let _ = timeout(CLOSE_TIMEOUT, close).await; // best effort: the client may be gone
    }

    /// Confirms the close of the client, if it sent one.
    async fn hang_up(mut self) {
        let close = async {
            let _ = self.socket.flush().await;
            self.socket.get_mut().shutdown().await
        };
        let _ = timeout(CLOSE_TIMEOUT, close).await; // best effort: the client may be gone
    }
}

/// Makes messages of frames, without copying them.
fn messages(frames: Bytes) -> impl Iterator<Item = Message> {
    let mut rest = frames;
    std::iter::from_fn(move || {
        let end = memchr::memchr(b'\n', &rest)?;
        let mut line = rest.split_to(end + 1);
        line.truncate(end);
        Some(text(line))
    })
}

/// A text message; the bytes must be UTF-8.
fn text(json: Bytes) -> Message {
    Message::Frame(Frame::message(json, OpCode::Data(Data::Text), true))
}

/// What a client sends.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SocketMessage<'a> {
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

/// The members that are read to answer an unknown message.
#[derive(Deserialize)]
struct UnknownMessage<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Option<&'a RawValue>,
    #[serde(rename = "ref", borrow, default)]
    reference: Option<&'a RawValue>,
}

/// A message that posts events.
struct Post {
    /// The client's reference for it, as JSON.
    reference: Option<Box<str>>,
    /// The bytes of the event, or of the array.
    body: Bytes,
    shape: Shape,
    ack: Ack,
    idempotency_key: Option<String>,
}

impl Post {
    /// Parses a message. The error is the answer to an invalid one.
    async fn of(parts: &SocketParts, client: Address, message: Bytes) -> Result<Self, Answered> {
        let read = parts.heavy.parse(client, message, Post::read).await;
        read.unwrap_or_else(|error| Err(refusal(None, &error.into())))
    }

    fn read(message: Bytes) -> Result<Self, Answered> {
        let not_json = |error: serde_json::Error| {
            refusal(None, &Problem::new(Kind::NotJson, format!("the message is not JSON: {error}")))
        };
        if !message.trim_ascii_start().starts_with(b"{") {
            serde_json::from_slice::<IgnoredAny>(&message).map_err(not_json)?;
            return Err(refusal(None, &bad("expected a JSON object with a `type`")));
        }
        let envelope: SocketMessage = match serde_json::from_slice(&message) {
            Ok(envelope) => envelope,
            Err(error) => {
                let unknown_message: UnknownMessage = serde_json::from_slice(&message).map_err(not_json)?;
                let problem = match unknown_message.kind.map(RawValue::get) {
                    Some(r#""post""#) => bad(format!("not a valid post: {error}")),
                    Some(kind) => unknown(kind),
                    None => bad("expected a JSON object with a `type`"),
                };
                return Err(refusal(name(unknown_message.reference).unwrap_or_default(), &problem));
            }
        };
        let reference = name(envelope.reference).map_err(|problem| refusal(None, &problem))?;
        let refuse = |problem: Problem| refusal(reference, &problem);
        if envelope.kind != "post" {
            return Err(refuse(unknown(&format!("{:?}", envelope.kind))));
        }
        let (body, shape) = match (envelope.event, envelope.events) {
            (Some(event), None) => (event, Shape::One),
            (None, Some(events)) => (events, Shape::Array),
            _ => return Err(refuse(bad("a post has either `event`, an object, or `events`, an array of them"))),
        };
        let ack = events::ack(envelope.ack.as_deref()).map_err(refuse)?;
        Ok(Post {
            reference: reference.map(Into::into),
            body: message.slice_ref(body.get().as_bytes()),
            shape,
            ack,
            idempotency_key: envelope.idempotency_key.map(Cow::into_owned),
        })
    }

    /// Submits the events, and returns the message with their outcomes.
    async fn submit(self, parts: &SocketParts, sender: &Poster) -> Answered {
        // The process waits for it before it ends.
        let _open = parts.requests.token();
        let submission = Submission {
            events: Events::Body { bytes: self.body, format: BodyFormat::Json, shape: self.shape },
            ack: self.ack,
            handling: Handling::Lenient,
            idempotency_key: self.idempotency_key.as_deref().map(unquoted),
            client: Some(sender.client),
            trace: sender.trace.each_ref().map(Option::as_deref),
        };
        let answer = match parts.ingest.submit(submission).await {
            Ok(verdicts) => receipt::answer(&parts.topic, verdicts, Handling::Lenient),
            Err(SubmitError::WrongShape(expected)) => Err(wrong_shape(expected)),
            Err(error) => Err(error.into()),
        };
        let (answer, refusal) = match answer {
            Ok(answer) => {
                let refusal = answer.refusal().cloned().map(Box::new);
                (answer, refusal)
            }
            Err(problem) => (problem.answer(), problem.refusal().map(Box::new)),
        };
        Answered { message: say("receipt", self.reference.as_deref(), &answer), refusal }
    }
}

fn wrong_shape(expected: Shape) -> Problem {
    let expected = match expected {
        Shape::Array => "must be an array of JSON objects: one is `event`",
        Shape::One | Shape::Any => "must be one JSON object: an array of them is `events`",
    };
    Problem::invalid(0, vec![FieldError::new("", expected)])
}

/// The client's reference for its message: a string or a number, returned as JSON.
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

/// Answers a message that posts no events.
fn refusal(reference: Option<&str>, problem: &Problem) -> Answered {
    Answered { message: say("problem", reference, &problem.answer()), refusal: problem.refusal().map(Box::new) }
}

/// Makes a message of an answer: status and headers become members before those of the body.
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
