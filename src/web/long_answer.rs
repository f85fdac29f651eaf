//! Answers with records, which may be large: complete ones, sent in pieces, and streamed exports.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use askama::Template;
use bytes::{Buf, Bytes};
use rocket::http::{ContentType, Header, Status};
use rocket::request::Request;
use rocket::response::stream::stream;
use rocket::response::{self, Responder, Response};
use tokio::io::{AsyncRead, ReadBuf};

use super::problem::{Kind, Problem};
use super::trace::Trace;
use crate::bounds::{self, Address, Share};
use crate::search::{Chunks, SearchError, Searches};
use crate::server::body;

/// The body of an answer in pieces. Each is freed when it was sent.
#[derive(Default)]
pub struct LongBody {
    pieces: VecDeque<Bytes>,
    last: Vec<u8>,
    size: usize,
}

impl LongBody {
    /// Appends the output of `write`, and returns its length.
    pub fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        let before = self.last.len();
        write(&mut self.last);
        let written = self.last.len().saturating_sub(before);
        self.size += written;
        if self.last.len() >= bounds::CHUNK {
            // A copy of the exact size, because the buffer may be twice as large.
            self.pieces.push_back(Bytes::copy_from_slice(&self.last));
            self.last.clear();
        }
        written
    }

    /// Renders a page of HTML.
    pub fn page(page: &impl Template) -> Result<Self, Problem> {
        match page.render() {
            Ok(text) => Ok(LongBody { size: text.len(), pieces: VecDeque::from([text.into()]), last: Vec::new() }),
            Err(error) => Err(Problem::new(Kind::Internal, format!("the page cannot be rendered: {error}"))),
        }
    }

    fn end(&mut self) {
        if !self.last.is_empty() {
            self.pieces.push_back(Bytes::copy_from_slice(&self.last));
            self.last = Vec::new();
        }
    }
}

/// A complete answer. A large one holds a permit until its client has read it.
pub struct Whole {
    content_type: ContentType,
    body: LongBody,
    permit: Option<Share>,
}

impl Whole {
    /// Answers with JSON. The permit of the read is held until a large answer has one of its own.
    pub async fn json(searches: &Searches, client: Address, body: LongBody, read: Share) -> Result<Self, SearchError> {
        let permit = match body.size > bounds::SMALL_ANSWER {
            true => Some(searches.answer(client).await?),
            false => None,
        };
        drop(read);
        Ok(Whole { content_type: ContentType::JSON, body, permit })
    }

    /// The same with HTML.
    pub async fn html(searches: &Searches, client: Address, body: LongBody, read: Share) -> Result<Self, SearchError> {
        Ok(Whole { content_type: ContentType::HTML, ..Whole::json(searches, client, body, read).await? })
    }

    /// Answers with small HTML.
    pub fn small_html(body: LongBody) -> Self {
        Whole { content_type: ContentType::HTML, body, permit: None }
    }
}

impl<'r> Responder<'r, 'static> for Whole {
    fn respond_to(mut self, request: &'r Request<'_>) -> response::Result<'static> {
        self.body.end();
        let mut builder = Response::build();
        builder.status(Status::Ok).header(self.content_type).header(Header::new("Cache-Control", "no-store"));
        let pieces = self.body.pieces;
        match self.permit {
            // Without a length: with one, a server may take the body at once and release the permit too early.
            Some(permit) => {
                let request_id = Trace::of(request).id.clone();
                builder.streamed_body(Pieces { pieces, _permit: permit, started_at: Instant::now(), request_id });
                builder.max_chunk_size(bounds::CHUNK).ok()
            }
            None => {
                let bytes: Vec<u8> = pieces.into_iter().flatten().collect();
                builder.sized_body(bytes.len(), io::Cursor::new(bytes)).ok()
            }
        }
    }
}

/// A body that is being sent.
struct Pieces {
    pieces: VecDeque<Bytes>,
    _permit: Share,
    started_at: Instant,
    request_id: String,
}

impl AsyncRead for Pieces {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.started_at.elapsed() > bounds::ANSWER_TIME {
            let why = format!("the client did not read the answer within {} s", bounds::ANSWER_TIME.as_secs());
            tracing::warn!(request.id = self.request_id, why, "an answer ended early");
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)));
        }
        if let Some(piece) = self.pieces.front_mut() {
            let count = piece.len().min(out.remaining());
            out.put_slice(&piece[..count]);
            piece.advance(count);
            if piece.is_empty() {
                self.pieces.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The streamed answer of an export.
pub struct Streamed {
    content_type: ContentType,
    /// The name of the file to save it in.
    name: Option<String>,
    chunks: Chunks,
}

impl Streamed {
    /// Returns an answer to save as a file, named after the topic.
    pub fn file(content_type: ContentType, topic: &str, extension: &str, chunks: Chunks) -> Self {
        // The name of a topic consists of [A-Za-z0-9._-].
        Streamed { content_type, name: Some(format!("{topic}.{extension}")), chunks }
    }

    /// Server-Sent Events for a page.
    pub fn events(chunks: Chunks) -> Self {
        Streamed { content_type: ContentType::EventStream, name: None, chunks }
    }
}

impl<'r> Responder<'r, 'static> for Streamed {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'static> {
        let Streamed { content_type, name, mut chunks } = self;
        let chunks = stream! {
            while let Some(chunk) = chunks.next().await {
                let is_last = chunk.is_err();
                yield chunk.map_err(io::Error::other);
                if is_last {
                    break;
                }
            }
        };
        body::stream(request, Box::pin(chunks));
        let mut builder = Response::build();
        builder.header(content_type).header(Header::new("Cache-Control", "no-store, no-transform"));
        builder.header(Header::new("X-Accel-Buffering", "no"));
        if let Some(name) = name {
            builder.header(Header::new("Content-Disposition", format!("attachment; filename=\"{name}\"")));
        }
        builder.ok()
    }
}
