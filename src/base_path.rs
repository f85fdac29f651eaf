//! The path under which clients reach Footfall (`http.base_path`), for a proxy that serves several applications under one
//! name.
//!
//! The server removes it from the paths of requests before Rocket sees them, and everything that writes an address puts it
//! in front. Requests without it are served too: those of probes, of programs inside the cluster, and of a proxy that
//! removes the path itself. A process has one base path, so it is set once, at the start: a row of the feed is rendered
//! once for all readers, far from any request.

use std::sync::OnceLock;

use serde::{Serialize, Serializer};

/// Most characters of a base path.
const LONGEST: usize = 200;

static SERVED: OnceLock<BasePath> = OnceLock::new();

/// An absolute path without a slash at its end; empty if Footfall is at the root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BasePath(String);

impl BasePath {
    /// Parses `/footfall` or `/tools/footfall/`. An empty text and `/` are the root.
    ///
    /// # Errors
    ///
    /// Says what was expected: at most 200 characters, and segments of letters, digits and `-._~`, because other characters
    /// have several spellings in an address (RFC 3986, section 6.2.2.2).
    pub fn parse(text: &str) -> Result<Self, String> {
        let path = text.strip_suffix('/').unwrap_or(text);
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let is_segment =
            |segment: &str| !segment.is_empty() && !matches!(segment, "." | "..") && segment.bytes().all(is_plain);
        let is_path = path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_segment));
        if path.len() <= LONGEST && (path.is_empty() || is_path) {
            return Ok(BasePath(path.to_owned()));
        }
        Err(format!(
            "`{text}` is not a base path; expected one such as /footfall: a slash, then letters, digits and any of -._~, at \
             most {LONGEST} characters"
        ))
    }

    /// Makes this the base path of the process. The first call counts.
    pub fn serve(self) {
        let _ = SERVED.set(self); // a second application in one process is at the same path
    }

    fn strip<'a>(&self, path: &'a str) -> &'a str {
        match path.strip_prefix(&self.0) {
            Some("") => "/",
            Some(rest) if rest.starts_with('/') => rest,
            _ => path,
        }
    }
}

impl Serialize for BasePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// Returns what comes before `/history` in an address: such as `/footfall`, or nothing.
pub fn base_path() -> &'static str {
    SERVED.get().map_or("", |base| &base.0)
}

/// Returns the path of a request without the base path. A path that does not begin with it stays as it is.
pub fn without_base(path: &str) -> &str {
    SERVED.get().map_or(path, |base| base.strip(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_path_is_written_in_one_way() {
        for (text, path) in [("", ""), ("/", ""), ("/footfall", "/footfall"), ("/a/b-c.d_e~1/", "/a/b-c.d_e~1")] {
            assert_eq!(BasePath::parse(text).map(|base| base.0).as_deref(), Ok(path));
        }
        let long = format!("/{}", "a".repeat(LONGEST));
        for text in ["footfall", "//", "/a//b", "/..", "/a/./b", "/ä", "/a b", "/a%20b", "/a?b", "/a#b", "/<a>", &long]
        {
            assert!(BasePath::parse(text).is_err_and(|why| why.contains("expected one such as /footfall")), "{text}");
        }
    }

    #[test]
    fn only_whole_segments_are_removed() {
        let base = BasePath::parse("/app").expect("a base path");
        for (path, rest) in [
            ("/app", "/"),
            ("/app/", "/"),
            ("/app/history", "/history"),
            ("/app//x", "//x"),
            ("/apple", "/apple"),
            ("/history", "/history"),
            ("/app/app/x", "/app/x"),
        ] {
            assert_eq!(base.strip(path), rest);
        }
        assert_eq!(BasePath::default().strip("/"), "/");
    }
}
