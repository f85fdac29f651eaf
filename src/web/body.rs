//! A request's body, bounded in size (also after decompression) and in time.

use std::error::Error;
use std::io::{self, Read};
use std::time::Duration;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use rocket::Data;
use rocket::data::ByteUnit;
use tokio::io::AsyncReadExt;

use super::problem::{Kind, Problem};

/// What is read of a body that is too large, so that its client gets to read the answer instead of a reset connection.
const DRAINED: ByteUnit = ByteUnit::Mebibyte(16);
/// A body that does not arrive within this time is given up.
const WITHIN: Duration = Duration::from_secs(30);

/// Reads a body of at most `limit` bytes.
pub async fn read(data: Data<'_>, limit: usize, encoding: Option<&str>) -> Result<Bytes, Problem> {
    let gzip = match encoding.map(|encoding| encoding.trim().to_ascii_lowercase()).as_deref() {
        None | Some("" | "identity") => false,
        Some("gzip" | "x-gzip") => true,
        Some(other) => {
            let detail = format!("Content-Encoding `{other}` is not taken; expected gzip or none");
            return Err(Problem::new(Kind::UnsupportedType, detail));
        }
    };
    let raw = match tokio::time::timeout(WITHIN, receive(data, limit)).await {
        Ok(received) => received?,
        Err(_) => {
            let detail = format!("the body did not arrive within {} s", WITHIN.as_secs());
            return Err(Problem::new(Kind::RequestTimeout, detail));
        }
    };
    if !gzip {
        return Ok(raw.into());
    }
    let mut plain = Vec::new();
    match MultiGzDecoder::new(&raw[..]).take(limit as u64 + 1).read_to_end(&mut plain) {
        Ok(size) if size > limit => Err(too_large(limit)),
        Ok(_) => Ok(plain.into()),
        Err(error) => Err(Problem::new(Kind::NotJson, format!("the body is not gzip: {error}"))),
    }
}

async fn receive(data: Data<'_>, limit: usize) -> Result<Vec<u8>, Problem> {
    let mut stream = data.open(DRAINED + limit);
    let mut body = Vec::with_capacity(1024);
    while stream.read_buf(&mut body).await.map_err(broken)? > 0 {
        if body.len() > limit {
            // Best effort: the answer is the same whether the rest comes or not.
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            return Err(too_large(limit));
        }
    }
    Ok(body)
}

/// A connection that was cut is nothing that the client has done wrong; a transfer coding that cannot be read is.
fn broken(error: io::Error) -> Problem {
    let mut causes = std::iter::successors(Some(&error as &(dyn Error + 'static)), |&error| error.source());
    let was_cut = |error: &io::Error| {
        use io::ErrorKind::*;
        matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe | TimedOut)
    };
    let kind = match causes.any(|cause| cause.downcast_ref().is_some_and(was_cut)) {
        true => Kind::RequestTimeout,
        false => Kind::BadRequest,
    };
    Problem::new(kind, format!("the body broke off: {error}"))
}

fn too_large(limit: usize) -> Problem {
    Problem::new(Kind::TooLarge, format!("a body of more than {}", ByteUnit::Byte(limit as u64)))
}
