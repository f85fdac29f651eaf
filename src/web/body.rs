//! A request's body, bounded in size (also after decompression) and in time.

use std::io::Read;
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
    let broken = |error: std::io::Error| Problem::new(Kind::BadRequest, format!("the body broke off: {error}"));
    while stream.read_buf(&mut body).await.map_err(broken)? > 0 {
        if body.len() > limit {
            // Best effort: the answer is the same whether the rest comes or not.
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            return Err(too_large(limit));
        }
    }
    Ok(body)
}

fn too_large(limit: usize) -> Problem {
    Problem::new(Kind::TooLarge, format!("a body of more than {}", ByteUnit::Byte(limit as u64)))
}
