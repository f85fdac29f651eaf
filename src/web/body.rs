//! A request's body, bounded in size (also after decompression) and in time.

use std::error::Error;
use std::io::{self, Read};
use std::time::Duration;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use rocket::Data;
use rocket::data::ByteUnit;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::problem::{Kind, Problem};

/// What is read of a body that is too large, so that its client gets to read the answer instead of a reset connection.
const DRAINED: ByteUnit = ByteUnit::Mebibyte(16);
/// A body that does not arrive within this time is given up.
const WITHIN: Duration = Duration::from_secs(30);
/// The same for the rest of one that is too large already.
const DRAINED_WITHIN: Duration = Duration::from_secs(10);

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
    let raw = receive(&mut data.open(DRAINED + limit), limit, WITHIN, DRAINED_WITHIN).await?;
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

async fn receive(
    stream: &mut (impl AsyncRead + Unpin),
    limit: usize,
    within: Duration,
    drained_within: Duration,
) -> Result<Vec<u8>, Problem> {
    let mut body = Vec::with_capacity(1024);
    let all = async {
        while body.len() <= limit && stream.read_buf(&mut body).await? > 0 {}
        Ok(())
    };
    match tokio::time::timeout(within, all).await {
        Ok(received) => received.map_err(broken)?,
        Err(_) => {
            let detail = format!("the body did not arrive within {} s", within.as_secs());
            return Err(Problem::new(Kind::RequestTimeout, detail));
        }
    }
    if body.len() > limit {
        // Best effort: the answer is the same whether the rest comes or not.
        let mut nowhere = tokio::io::sink();
        let _ = tokio::time::timeout(drained_within, tokio::io::copy(stream, &mut nowhere)).await;
        return Err(too_large(limit));
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn a_body_that_is_too_large_and_slow_is_too_large() {
        let soon = Duration::from_millis(20);
        for (bytes, expected) in [(1001, Kind::TooLarge), (1000, Kind::RequestTimeout)] {
            // Open until the end: nothing more comes.
            let (mut ours, mut theirs) = tokio::io::duplex(2000);
            theirs.write_all(&vec![b'x'; bytes]).await.expect("room");
            let received = receive(&mut ours, 1000, soon, soon).await;
            assert_eq!(received.err().map(|problem| problem.kind), Some(expected));
        }
    }
}
