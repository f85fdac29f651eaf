//! A request's body, bounded in size, also after decompression.

use std::io::{self, Read};

use bytes::Bytes;
use flate2::bufread::GzDecoder;
use rocket::Request;
use rocket::data::ByteUnit;
use rocket::request::{FromRequest, Outcome};

use super::guards;
use super::problem::{Kind, Problem};
use crate::bounds::{self, Address};
use crate::limits::HeavyWork;
use crate::server::{self, LATE_BODY, Unread};

/// The body of a request, or why it did not arrive.
pub struct RequestBody<'r> {
    bytes: Result<Bytes, Unread>,
    encoding: Option<&'r str>,
    client: Address,
    /// Decompresses large bodies.
    heavy: &'r HeavyWork,
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for RequestBody<'r> {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        guards::part(request.rocket().state().map(|heavy| RequestBody {
            bytes: server::take_body(request),
            encoding: request.headers().get_one("Content-Encoding"),
            client: Address::new(request.client_ip()),
            heavy,
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
        match self.encoding.map(|encoding| encoding.trim().to_ascii_lowercase()).as_deref() {
            None | Some("" | "identity") => return self.read(limit),
            Some("gzip" | "x-gzip") => {}
            Some(other) => {
                let detail = format!("Content-Encoding `{other}` is not supported; expected gzip or none");
                // RFC 9110, section 15.5.16: the header says that the coding is the problem.
                return Err(Problem::new(Kind::UnsupportedType, detail).header("Accept-Encoding", "gzip"));
            }
        }
        let (client, heavy) = (self.client, self.heavy);
        let raw = self.read(limit)?;
        match raw.len() <= bounds::SMALL_GZIP {
            true => decompressed(&raw, limit),
            false => heavy.run(client, move || decompressed(&raw, limit)).await?,
        }
    }
}

/// Decompresses all members of a gzip body, at most `limit` bytes in all.
fn decompressed(raw: &[u8], limit: usize) -> Result<Bytes, Problem> {
    let not_gzip = |error: io::Error| Problem::new(Kind::NotJson, format!("the body is not gzip: {error}"));
    let (mut plain, mut rest) = (Vec::new(), raw);
    for _ in 0..bounds::GZIP_MEMBERS {
        let mut member = GzDecoder::new(rest);
        let room = (limit - plain.len()) as u64 + 1;
        (&mut member).take(room).read_to_end(&mut plain).map_err(not_gzip)?;
        if plain.len() > limit {
            return Err(too_large(limit));
        }
        rest = member.into_inner();
        if rest.is_empty() {
            return Ok(plain.into());
        }
    }
    let detail = format!("the body is gzip of more than {} members", bounds::GZIP_MEMBERS);
    Err(Problem::new(Kind::TooLarge, detail))
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
