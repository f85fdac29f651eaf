//! The files of `static/`, embedded and sent with gzip if the client accepts it. An address with the content's hash may
//! be cached for ever; a plain one is revalidated each time, which costs a 304.

use std::borrow::Cow;
use std::io::{Cursor, Read};
use std::sync::OnceLock;

use flate2::read::GzEncoder;
use flate2::{Compression, Crc};
use rocket::get;
use rocket::http::{ContentType, Header, Status};
use rocket::request::Request;
use rocket::response::{self, Responder, Response};

use super::problem::{Kind, Problem};
use crate::base_path::base_path;

struct File {
    name: &'static str,
    bytes: &'static [u8],
}

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(File { name: $name, bytes: include_bytes!(concat!("../../static/", $name)) }),*]
    };
}

const FILES: &[File] = files![
    "account.js",
    "app.css",
    "app.js",
    "backlog.js",
    "buffering.js",
    "chart.js",
    "copy.js",
    "explain.js",
    "feed.js",
    "filters.js",
    "form.js",
    "histogram.js",
    "history.js",
    "json.js",
    "keys.js",
    "like.js",
    "overview.js",
    "patch.js",
    "record.js",
    "refresh.js",
    "search.js",
    "stream.js",
    "strip.js",
    "time.js",
    "track.js",
    "user.js",
    "words.js",
    "favicon.svg",
    "favicon-away.svg",
    "favicon-live.svg",
    "favicon-waiting.svg",
];

/// The script for pages of other sites.
const TRACKER: &str = "track.js";

/// Hexadecimal digits of a file's hash in its address.
const HASH: usize = 8;

/// A file as it is sent, with its hash and its gzip encoding, computed at its first use.
struct PreparedFile {
    bytes: Cow<'static, [u8]>,
    hash: String,
    gzip: Vec<u8>,
}

fn made() -> &'static [PreparedFile] {
    static MADE: OnceLock<Vec<PreparedFile>> = OnceLock::new();
    MADE.get_or_init(|| {
        let make = |file: &File| {
            let bytes: Cow<[u8]> = match file.name {
                TRACKER => without_comments(file.bytes).into(),
                _ => file.bytes.into(),
            };
            let mut gzip = Vec::new();
            let mut encoder = GzEncoder::new(&*bytes, Compression::best());
            encoder.read_to_end(&mut gzip).expect("memory can be read and written");
            PreparedFile { hash: content_hash(&bytes), bytes, gzip }
        };
        FILES.iter().map(make).collect()
    })
}

/// Returns a script without its indentation, its empty lines and the lines that are comments (`//`). No string in it may
/// have several lines.
fn without_comments(script: &[u8]) -> Vec<u8> {
    let lines = script.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let code: Vec<&[u8]> = lines.filter(|line| !line.is_empty() && !line.starts_with(b"//")).collect();
    code.join(&b'\n')
}

/// Returns the CRC-32 of a file's content, in hexadecimal. It is the same in every build, so that replicas of different
/// builds give an unchanged file the same address.
fn content_hash(bytes: &[u8]) -> String {
    let mut crc = Crc::new();
    crc.update(bytes);
    format!("{:08x}", crc.sum())
}

/// Returns the address that changes with the content, such as `/static/app.1f2e3d4c.css`.
pub fn address(name: &str) -> String {
    format!("{}/static/{}", base_path(), with_hash(name))
}

/// Returns `app.1f2e3d4c.css` for `app.css`.
fn with_hash(name: &str) -> String {
    let hash = FILES.iter().position(|file| file.name == name).map(|index| &made()[index].hash);
    match (name.rsplit_once('.'), hash) {
        (Some((stem, extension)), Some(hash)) => format!("{stem}.{hash}.{extension}"),
        _ => name.to_owned(),
    }
}

pub struct Asset {
    index: usize,
    caching: Caching,
}

/// How long caches may keep a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caching {
    /// For ever: its address changes with its content.
    Immutable,
    /// They ask each time whether it has changed.
    Revalidated,
    /// For an hour, because pages of other sites load it too.
    Hour,
}

#[get("/static/<name>")]
pub fn hashed(name: &str) -> Result<Asset, Problem> {
    let plain = |index: &usize| FILES[*index].name == name;
    let hashed = |index: &usize| with_hash(FILES[*index].name) == name;
    let found = |wanted: &dyn Fn(&usize) -> bool| (0..FILES.len()).find(|index| wanted(index));
    if let Some(index) = found(&hashed) {
        return Ok(Asset { index, caching: Caching::Immutable });
    }
    // During an update, the page may come from one replica and its files from another. Another version is better than
    // nothing, but must not be cached.
    let current = without_hash(name);
    let plain = found(&|index| plain(index) || current.as_deref() == Some(FILES[*index].name));
    match plain {
        Some(index) => Ok(Asset { index, caching: Caching::Revalidated }),
        None => Err(Problem::new(Kind::NotFound, format!("no file {name}"))),
    }
}

/// Returns `app.css` for `app.1f2e3d4c.css`, whatever the hash.
fn without_hash(name: &str) -> Option<String> {
    let (rest, extension) = name.rsplit_once('.')?;
    let (stem, hash) = rest.rsplit_once('.')?;
    let is_hash = hash.len() == HASH && hash.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'));
    is_hash.then(|| format!("{stem}.{extension}"))
}

/// The icon that browsers request on their own.
#[get("/favicon.ico")]
pub fn favicon() -> Result<Asset, Problem> {
    hashed("favicon.svg")
}

/// The script for pages of other sites.
pub fn tracker() -> Asset {
    let index = FILES.iter().position(|file| file.name == TRACKER).unwrap_or_default();
    Asset { index, caching: Caching::Hour }
}

impl<'r> Responder<'r, 'static> for Asset {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'static> {
        let (file, made) = (&FILES[self.index], &made()[self.index]);
        let zipped = accepts_gzip(request.headers().get("Accept-Encoding"));
        // A strong tag identifies the exact bytes (RFC 9110, section 8.8.3).
        let tag = if zipped { format!("\"{}-gzip\"", made.hash) } else { format!("\"{}\"", made.hash) };
        let kept = match self.caching {
            Caching::Immutable => "public, max-age=31536000, immutable",
            Caching::Revalidated => "no-cache",
            Caching::Hour => "public, max-age=3600",
        };
        let mut builder = Response::build();
        builder
            .header(Header::new("Cache-Control", kept))
            .header(Header::new("ETag", tag.clone()))
            .header(Header::new("Vary", "Accept-Encoding"));
        if self.caching == Caching::Hour {
            builder.header(Header::new("Cross-Origin-Resource-Policy", "cross-origin"));
        }
        let known = request.headers().get("If-None-Match").any(|tags| tags == "*" || tags.contains(&tag));
        if known {
            return builder.status(Status::NotModified).ok();
        }
        let extension = file.name.rsplit('.').next().unwrap_or_default();
        builder.header(ContentType::from_extension(extension).unwrap_or(ContentType::Binary));
        let bytes: &'static [u8] = if zipped { &made.gzip } else { &made.bytes };
        if zipped {
            builder.header(Header::new("Content-Encoding", "gzip"));
        }
        builder.sized_body(bytes.len(), Cursor::new(bytes)).ok()
    }
}

/// Whether the client accepts gzip (RFC 9110, section 12.5.3). Without `Accept-Encoding` it gets the plain bytes.
fn accepts_gzip<'a>(mut lines: impl Iterator<Item = &'a str>) -> bool {
    lines.any(|line| {
        line.split(',').any(|item| {
            let (coding, weight) = item.split_once(';').unwrap_or((item, ""));
            let refused = weight.trim().strip_prefix("q=").and_then(|q| q.parse().ok()).is_some_and(|q: f32| q <= 0.0);
            coding.trim().eq_ignore_ascii_case("gzip") && !refused
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_in_an_address_depends_only_on_the_content() {
        // The check value of CRC-32 (ISO-HDLC).
        assert_eq!(content_hash(b"123456789"), "cbf43926");
        assert_eq!(content_hash(b"").len(), HASH);
    }

    #[test]
    fn the_tracker_is_small_and_its_comments_are_lines() {
        let index = tracker().index;
        let (source, made) = (FILES[index].bytes, &made()[index]);
        assert!(made.gzip.len() < 2000, "{} bytes with gzip", made.gzip.len());
        // Sites may have any encoding, and `without_comments` knows comments of a line only.
        assert!(source.is_ascii() && made.bytes.len() > 1000);
        let text = String::from_utf8_lossy(&made.bytes);
        assert!(!text.contains("/*") && !text.contains("// "), "{text}");
    }

    #[test]
    fn every_file_of_the_folder_is_listed() {
        let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/static")).expect("the folder");
        let mut files: Vec<_> = folder.map(|file| file.expect("a file").file_name()).collect();
        let mut listed: Vec<_> = FILES.iter().map(|file| file.name).collect();
        files.sort();
        listed.sort_unstable();
        assert_eq!(files, listed);
    }
}
