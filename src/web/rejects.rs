//! Refused submissions: what of a request and of its answer is kept, for the page *Rejected*.
//!
//! An answer notes its refusal with the request, and [`NoteRejects`] adds it to `rejects` with what the request says: one
//! place for all routes, and for paths without a route. The WebSocket, whose posts are no requests, calls [`add`] itself.
//! 429, 503 and other answers after which a retry makes sense are no rejects.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rocket::fairing::{Fairing, Info, Kind};
use rocket::http::RawStr;
use rocket::{Request, Response};

use super::views::cut;
use crate::bounds::{Address, SMALL_BODY};
use crate::event::time;
use crate::rejects::{Refusal, Reject, Rejects};
use crate::server;

/// Most characters of a path, of an error's text and of a pointer.
const ROUTE_CHARS: usize = 120;
const DETAIL_CHARS: usize = 300;
const POINTER_CHARS: usize = 200;
/// Most bytes of an excerpt, and of a larger body that are kept until its answer is made.
const EXCERPT: usize = 512;
const BODY_START: usize = 4 * 1024;
/// Strings of more characters are shortened to so many.
const STRING_CHARS: usize = 32;
const SHORT_CHARS: usize = 24;
/// Members whose values are left out.
const SECRETS: [&str; 8] =
    ["password", "passwd", "secret", "token", "apikey", "authorization", "writekey", "credentials"];

/// Notes with a request why it is refused, if it is a submission.
pub fn note(request: &Request<'_>, refusal: Option<Refusal>) {
    if server::method(request) == "POST" && refusal.is_some() {
        request.local_cache(|| Noted(refusal));
    }
}

/// The refusal of the answer to a request.
struct Noted(Option<Refusal>);

/// The start of a request's body, or all of a small one, as handlers read it: decompressed.
#[derive(Default)]
pub struct BodyStart(Mutex<Bytes>);

impl BodyStart {
    pub fn of<'r>(request: &'r Request<'_>) -> &'r Self {
        request.local_cache(BodyStart::default)
    }

    /// Keeps the start of a body. It replaces one that was kept before.
    pub fn keep(&self, body: &Bytes) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = start(body);
    }

    fn get(&self) -> Bytes {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A small body as it is, or a copy of the start of a large one, whose memory is then not held.
pub fn start(body: &Bytes) -> Bytes {
    if body.len() <= SMALL_BODY { body.clone() } else { Bytes::copy_from_slice(&body[..BODY_START]) }
}

/// Adds the refused submissions to the list.
pub struct NoteRejects(pub Arc<Rejects>);

#[rocket::async_trait]
impl Fairing for NoteRejects {
    fn info(&self) -> Info {
        Info { name: "Rejects", kind: Kind::Response }
    }

    async fn on_response<'r>(&self, request: &'r Request<'_>, _: &mut Response<'r>) {
        let Some(refusal) = request.local_cache(|| Noted(None)).0.clone() else { return };
        let mut body = BodyStart::of(request).get();
        if body.is_empty() {
            // No handler read it.
            body = server::take_body(request).unwrap_or_default();
        }
        if request.content_type().is_some_and(|kind| kind.is_form()) {
            // So that names and values are recognised in the details, which are JSON.
            body = RawStr::new(&String::from_utf8_lossy(&start(&body))).url_decode_lossy().into_owned().into();
        }
        let route = request.route().filter(|route| route.rank > isize::MIN);
        let path = route.map_or_else(|| request.uri().path().to_string(), |route| route.uri.path().to_owned());
        add(&self.0, &format!("POST {path}"), Address::new(request.client_ip()), refusal, &body);
    }
}

/// Adds a refused submission. `body` is at least its start.
pub fn add(rejects: &Rejects, route: &str, client: Address, refusal: Refusal, body: &[u8]) {
    let Refusal { status, kind, title, detail, index, pointer, events } = refusal;
    rejects.add(Reject {
        time: time::format_ms(time::now_ms()),
        route: cut(route, ROUTE_CHARS),
        client: client.network(),
        status,
        kind,
        title,
        detail: cut(&detail, DETAIL_CHARS),
        pointer: pointer.map(|pointer| cut(&pointer, POINTER_CHARS)),
        index,
        events,
        excerpt: excerpt(item(body, index.unwrap_or(0)).unwrap_or(body)),
    });
}

/// Returns the item of an array, or a line. `None` if the body is neither, or if only its start is there.
fn item(body: &[u8], index: usize) -> Option<&[u8]> {
    let body = body.trim_ascii();
    if body.starts_with(b"[") {
        let items: Vec<&serde_json::value::RawValue> = serde_json::from_slice(body).ok()?;
        return Some(items.get(index)?.get().as_bytes());
    }
    if index == 0 {
        return None;
    }
    body.split(|byte| *byte == b'\n').nth(index)
}

/// Returns the start of a text as it may be shown: long strings are shortened and the values of secrets left out. It need
/// not be JSON: a word between delimiters is treated as a string is.
fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(BODY_START)]);
    let (mut out, mut rest) = (String::new(), &*text);
    // The last word, if it may be the name of a member, and the secret whose value follows.
    let (mut name, mut secret) = (String::new(), Secret::default());
    while let Some(first) = rest.chars().next() {
        if out.len() > EXCERPT {
            break;
        }
        let length = match first {
            '"' => string_length(rest),
            _ if is_delimiter(first) => {
                secret.pass(first, &name);
                out.push(if first.is_control() { ' ' } else { first });
                rest = &rest[first.len_utf8()..];
                continue;
            }
            _ => rest.find(|c| c == '"' || is_delimiter(c)).unwrap_or(rest.len()),
        };
        let (word, after) = rest.split_at(length);
        let bare = word.strip_prefix('"').unwrap_or(word);
        let bare = bare.strip_suffix('"').unwrap_or(bare);
        match first {
            '"' if secret.is_open() => out += "\"…\"",
            _ if secret.is_open() => out.push('…'),
            '"' => out += &format!("\"{}\"", shortened(bare)),
            _ => out += &shortened(bare),
        }
        name = if bare.len() <= STRING_CHARS { bare.to_owned() } else { String::new() };
        rest = after;
    }
    if out.len() > EXCERPT || bytes.len() > BODY_START {
        out.truncate(out.floor_char_boundary(EXCERPT - '…'.len_utf8()));
        out.push('…');
    }
    out
}

/// Whether the text that is read belongs to the value of a secret. The value of a member may be an object or an array.
#[derive(Default)]
struct Secret {
    /// How many brackets are open.
    depth: usize,
    /// How many were open at the secret's name.
    since: Option<usize>,
}

impl Secret {
    fn is_open(&self) -> bool {
        self.since.is_some()
    }

    /// Reads a delimiter, after a word that may be a name.
    fn pass(&mut self, delimiter: char, name: &str) {
        match delimiter {
            ':' | '=' if !self.is_open() && is_secret(name) => self.since = Some(self.depth),
            '{' | '[' => self.depth += 1,
            '}' | ']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        let is_end = match delimiter {
            ',' | '&' => self.since.is_some_and(|since| self.depth <= since),
            '}' | ']' => self.since.is_some_and(|since| self.depth < since),
            _ => false,
        };
        if is_end {
            self.since = None;
        }
    }
}

/// The bytes of a JSON string at the start of a text, with its quotes; all of the text if the string does not end.
fn string_length(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn is_delimiter(c: char) -> bool {
    c.is_whitespace() || matches!(c, ',' | ':' | ';' | '=' | '&' | '{' | '}' | '[' | ']' | '(' | ')')
}

fn is_secret(name: &str) -> bool {
    let name = name.replace(['_', '-'], "").to_ascii_lowercase();
    SECRETS.iter().any(|secret| name.contains(secret))
}

/// Returns a string as it is, or the start of a long one.
fn shortened(text: &str) -> String {
    cut(text, if text.chars().count() > STRING_CHARS { SHORT_CHARS } else { STRING_CHARS })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_strings_and_secrets_are_left_out_of_an_excerpt() {
        let long = "x".repeat(33);
        let short = format!("{}…", "x".repeat(24));
        for (body, expected) in [
            (r#"{"user":"Ann","n":7}"#.to_owned(), r#"{"user":"Ann","n":7}"#.to_owned()),
            (format!(r#"{{"note":"{long}"}}"#), format!(r#"{{"note":"{short}"}}"#)),
            (format!(r#"{{"note":"{long}"#), format!(r#"{{"note":"{short}""#)),
            (format!("user={long}&action=a"), format!("user={short}&action=a")),
            (long.clone(), short.clone()),
            (r#"{"a":"\"{\"","b":1}"#.to_owned(), r#"{"a":"\"{\"","b":1}"#.to_owned()),
            (
                r#"{"api_key":"k1","writeKey": "w1","a":2}"#.to_owned(),
                r#"{"api_key":"…","writeKey": "…","a":2}"#.to_owned(),
            ),
            (r#"{"token":{"a":["x",{"b":1}]},"c":3}"#.to_owned(), r#"{"token":{"…":["…",{"…":…}]},"c":3}"#.to_owned()),
            ("Authorization: Bearer abc".to_owned(), "Authorization: … …".to_owned()),
            ("password=p&a=1".to_owned(), "password=…&a=1".to_owned()),
        ] {
            assert_eq!(excerpt(body.as_bytes()), expected, "{body}");
        }
        assert!(excerpt(&[0xff, 0, 1, b'a']).contains('\u{fffd}'));
        let many = excerpt("[1],".repeat(5000).as_bytes());
        assert!(many.len() <= EXCERPT && many.ends_with('…'), "{many}");
    }

    #[test]
    fn an_item_is_found_by_its_index() {
        assert_eq!(item(br#" [{"a":1}, {"b":2}]"#, 1), Some(&br#"{"b":2}"#[..]));
        assert_eq!(item(b"{\"a\":1}\n\n{\"b\":2}\n", 2), Some(&br#"{"b":2}"#[..]));
        assert_eq!(item(b"[1, 2", 1), None);
        assert_eq!(item(b"{}", 0), None);
    }
}
