//! A request's body, bounded in size, also after decompression.

use std::fmt::Display;
use std::io::Read;

use bytes::Bytes;
use flate2::bufread::GzDecoder;
use flate2::{Decompress, FlushDecompress, Status};
use rocket::Request;
use rocket::data::ByteUnit;
use rocket::request::{FromRequest, Outcome};
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::guards;
use super::problem::{Kind, Problem};
use super::rejects::BodyStart;
use crate::bounds::{self, Address};
use crate::limits::HeavyWork;
use crate::server::{self, LATE_BODY, Unread};

/// The body of a request, or why it did not arrive.
pub struct RequestBody<'r> {
    bytes: Result<Bytes, Unread>,
    /// The values of all `Content-Encoding` headers, with commas between them.
    encoding: String,
    client: Address,
    /// Decompresses large bodies.
    heavy: &'r HeavyWork,
    /// Keeps the start of the body: at first as it was sent, then decompressed.
    start: &'r BodyStart,
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for RequestBody<'r> {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        let (bytes, start) = (server::take_body(request), BodyStart::of(request));
        if let Ok(bytes) = &bytes {
            start.keep(bytes);
        }
        guards::part(request.rocket().state().map(|heavy| RequestBody {
            bytes,
            encoding: request.headers().get("Content-Encoding").collect::<Vec<_>>().join(","),
            client: Address::new(request.client_ip()),
            heavy,
            start,
        }))
    }
}

impl RequestBody<'_> {
    /// Returns the body as it was sent, or a problem if it has more than `limit` bytes.
    pub fn read(self, limit: usize) -> Result<Bytes, Problem> {
        let raw = self.bytes.map_err(|unread| unread_problem(&unread, limit))?;
        if raw.len() > limit { Err(too_large(limit)) } else { Ok(raw) }
    }

    /// Returns the body decompressed (RFC 9110, section 8.4). `limit` bounds it before and after that.
    pub async fn plain(self, limit: usize) -> Result<Bytes, Problem> {
        let Some(coding) = Coding::of(&self.encoding)? else { return self.read(limit) };
        let (client, heavy, start) = (self.client, self.heavy, self.start);
        let raw = self.read(limit)?;
        let plain = match raw.len() <= bounds::SMALL_COMPRESSED {
            true => coding.decode(&raw, limit),
            false => heavy.run(client, move || coding.decode(&raw, limit)).await?,
        }?;
        start.keep(&plain);
        Ok(plain)
    }
}

/// A content coding (RFC 9110, section 8.4.1; RFC 8878, section 7.2).
#[derive(Debug, Clone, Copy)]
enum Coding {
    Gzip,
    Deflate,
    Zstd,
}

/// The codings that a request may use (RFC 9110, section 12.5.3, in an answer).
const CODINGS: &str = "gzip, deflate, zstd";

impl Coding {
    /// Returns the coding that the values of `Content-Encoding` name; `None` if the body is as it was sent.
    fn of(values: &str) -> Result<Option<Self>, Problem> {
        let names: Vec<String> = values.split(',').map(|name| name.trim().to_ascii_lowercase()).collect();
        let mut names = names.iter().map(String::as_str).filter(|name| !matches!(*name, "" | "identity"));
        match (names.next(), names.next()) {
            (None, _) => Ok(None),
            (Some("gzip" | "x-gzip"), None) => Ok(Some(Coding::Gzip)),
            (Some("deflate"), None) => Ok(Some(Coding::Deflate)),
            (Some("zstd"), None) => Ok(Some(Coding::Zstd)),
            _ => {
                let detail = format!(
                    "Content-Encoding `{}` is not supported; expected one of {CODINGS}, or none",
                    values.trim()
                );
                // RFC 9110, section 15.5.16: the header says that the coding is the problem.
                Err(Problem::new(Kind::UnsupportedType, detail).header("Accept-Encoding", CODINGS))
            }
        }
    }

    /// Decompresses a whole body, to at most `limit` bytes.
    fn decode(self, raw: &[u8], limit: usize) -> Result<Bytes, Problem> {
        match self {
            Coding::Gzip => gunzip(raw, limit),
            Coding::Deflate => inflate(raw, limit),
            Coding::Zstd => unzstd(raw, limit),
        }
    }

    /// The problem of a body that is not of this coding.
    fn malformed(self, why: impl Display) -> Problem {
        let name = match self {
            Coding::Gzip => "gzip",
            Coding::Deflate => "deflate (the zlib format)",
            Coding::Zstd => "zstd",
        };
        Problem::new(Kind::NotJson, format!("the body is not {name}: {why}"))
    }
}

/// Why a compressed body is incomplete.
const CUT_OFF: &str = "it ends early";

/// Decompresses all members of a gzip body (RFC 1952), at most `limit` bytes in all.
fn gunzip(raw: &[u8], limit: usize) -> Result<Bytes, Problem> {
    let (mut plain, mut rest) = (Vec::new(), raw);
    for _ in 0..bounds::COMPRESSED_MEMBERS {
        let mut member = GzDecoder::new(rest);
        let room = (limit - plain.len()) as u64 + 1;
        (&mut member).take(room).read_to_end(&mut plain).map_err(|error| Coding::Gzip.malformed(error))?;
        if plain.len() > limit {
            return Err(too_large(limit));
        }
        rest = member.into_inner();
        if rest.is_empty() {
            return Ok(plain.into());
        }
    }
    Err(too_many_members("gzip", "members"))
}

/// Decompresses a body in the zlib format (RFC 1950), which HTTP calls deflate (RFC 9110, section 8.4.1.2).
fn inflate(raw: &[u8], limit: usize) -> Result<Bytes, Problem> {
    let (mut plain, mut decoder) = (Vec::new(), Decompress::new(true));
    loop {
        reserve(&mut plain, raw.len());
        let rest = raw.get(decoder.total_in() as usize..).unwrap_or_default();
        let status = decoder.decompress_vec(rest, &mut plain, FlushDecompress::None);
        let status = status.map_err(|error| Coding::Deflate.malformed(error))?;
        if plain.len() > limit {
            return Err(too_large(limit));
        }
        let is_read = decoder.total_in() >= raw.len() as u64;
        match status {
            Status::StreamEnd if is_read => return Ok(plain.into()),
            Status::StreamEnd => return Err(Coding::Deflate.malformed("bytes follow its end")),
            // It had room, so it waits for bytes that are not there.
            _ if is_read && plain.len() < plain.capacity() => return Err(Coding::Deflate.malformed(CUT_OFF)),
            _ => {}
        }
    }
}

/// Decompresses all frames of a zstd body (RFC 8878), at most `limit` bytes in all.
fn unzstd(raw: &[u8], limit: usize) -> Result<Bytes, Problem> {
    let malformed = |code| Coding::Zstd.malformed(zstd_safe::get_error_name(code));
    let no_memory = || Problem::new(Kind::Unavailable, "no memory to decompress the body");
    let mut decoder = DCtx::try_create().ok_or_else(no_memory)?;
    decoder.set_parameter(DParameter::WindowLogMax(bounds::ZSTD_WINDOW_LOG)).map_err(malformed)?;
    let (mut plain, mut input, mut frames) = (Vec::new(), InBuffer::around(raw), 0);
    loop {
        reserve(&mut plain, raw.len());
        let end = plain.len();
        let left = decoder.decompress_stream(&mut OutBuffer::around_pos(&mut plain, end), &mut input);
        let left = left.map_err(malformed)?;
        if plain.len() > limit {
            return Err(too_large(limit));
        }
        let is_read = input.pos() == raw.len();
        match left {
            0 if is_read => return Ok(plain.into()),
            0 => frames += 1,
            // It had room, so it waits for bytes that are not there.
            _ if is_read && plain.len() < plain.capacity() => return Err(Coding::Zstd.malformed(CUT_OFF)),
            _ => {}
        }
        if frames >= bounds::COMPRESSED_MEMBERS {
            return Err(too_many_members("zstd", "frames"));
        }
    }
}

/// Makes room for more decompressed bytes, of a body that was sent with so many.
fn reserve(plain: &mut Vec<u8>, sent: usize) {
    if plain.len() == plain.capacity() {
        plain.reserve(plain.len().max(4 * sent).clamp(1 << 10, 1 << 20));
    }
}

fn too_many_members(coding: &str, members: &str) -> Problem {
    let detail = format!("the body is {coding} of more than {} {members}", bounds::COMPRESSED_MEMBERS);
    Problem::new(Kind::TooLarge, detail)
}

fn unread_problem(unread: &Unread, limit: usize) -> Problem {
    match unread {
        Unread::TooLarge => too_large(limit),
        Unread::TimedOut => Problem::new(Kind::RequestTimeout, LATE_BODY),
        Unread::Cut(error) => Problem::new(Kind::RequestTimeout, format!("the body ended early: {error}")),
        Unread::Malformed(error) => Problem::new(Kind::BadRequest, format!("the body ended early: {error}")),
    }
}

fn too_large(limit: usize) -> Problem {
    Problem::new(Kind::TooLarge, format!("a body of more than {}", ByteUnit::Byte(limit as u64)))
}
