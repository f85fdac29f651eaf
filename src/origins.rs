//! The origins of other sites whose pages may send events (`ingest.origins`).
//!
//! An origin (RFC 6454) is a scheme, a host and a port; browsers send it as `Origin`. The module knows neither HTTP nor
//! where settings come from.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::hosts::Authority;

/// An origin of a web page. Two spellings of one origin are equal.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    is_https: bool,
    /// In lower case.
    host: String,
    port: u16,
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let is_https = match scheme {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        // `Authority` ignores a final dot, but `shop.example.` is another origin.
        let host = authority.split_once(':').map_or(authority, |(host, _)| host);
        if host.ends_with('.') {
            return None;
        }
        let authority = Authority::parse(authority)?;
        let port = authority.port().unwrap_or(usual_port(is_https));
        Some(Origin { is_https, host: authority.host().to_ascii_lowercase(), port })
    }
}

fn usual_port(is_https: bool) -> u16 {
    if is_https { 443 } else { 80 }
}

/// A text that is not an origin. It holds the text.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is not an origin; expected http:// or https://, a host and perhaps a port, without a path, such as \
     https://shop.example; a name of other letters than a to z in its xn-- form"
)]
pub struct InvalidOrigin(String);

/// The origins of other sites that the operator has listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(Vec<Origin>);

impl Origins {
    /// Parses each text as an origin.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidOrigin> {
        let origin = |text: &str| Origin::parse(text.trim()).ok_or_else(|| InvalidOrigin(text.to_owned()));
        texts.into_iter().map(origin).collect::<Result<_, _>>().map(Origins)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the value of an `Origin` header is one of these. `null`, of a page without an origin, is none.
    pub fn contains(&self, origin: &str) -> bool {
        !self.is_empty() && Origin::parse(origin).is_some_and(|origin| self.0.contains(&origin))
    }
}

impl Serialize for Origins {
    /// Writes the origins as one text, separated by commas.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let texts: Vec<String> = self.0.iter().map(Origin::to_string).collect();
        serializer.serialize_str(&texts.join(", "))
    }
}

impl fmt::Display for Origin {
    /// Writes the origin as browsers do (RFC 6454, section 6.2).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.host)?;
        if self.port == usual_port(self.is_https) { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_compared_by_scheme_host_and_port() {
        let list = ["https://Shop.example", " http://127.0.0.1:8080 ", "http://[0::1]:3000", "https://a.example:443"];
        let origins = Origins::parse(list).expect("origins");
        for origin in [
            "https://shop.example",
            "https://shop.example:443",
            "http://127.0.0.1:8080",
            "http://[::1]:3000",
            "https://a.example",
        ] {
            assert!(origins.contains(origin), "{origin}");
        }
        for other in [
            "",
            "null",
            "*",
            "http://shop.example",
            "https://shop.example:8443",
            "https://shop.example.evil.example",
            "https://evil.example/https://shop.example",
            "https://www.shop.example",
            "https://shop.example@evil.example",
            "http://127.0.0.1",
            "http://[::1]",
            "HTTPS://shop.example",
            "https://shop.example.",
            "https://shop.example.:443",
            "http://127.0.0.1.:8080",
        ] {
            assert!(!origins.contains(other), "{other}");
        }
        assert!(!Origins::default().contains("null"));
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for text in [
            "",
            "*",
            "null",
            "shop.example",
            "https://",
            "https://*",
            "https://*.example",
            "https://shop.example/",
            "https://shop.example/track",
            "https://shop.example?x",
            "https://shop.example#x",
            "https://user@shop.example",
            "https://shop.example:x",
            "https://shop.example:99999",
            "ftp://shop.example",
            "file:///tmp",
            "https://b\u{fc}cher.example",
            "https://shop.example.",
            "https://shop.example.:8443",
            "https://127.0.0.1.",
            "https://a.example https://b.example",
        ] {
            assert!(
                Origins::parse([text]).is_err_and(|it| it.to_string().contains("such as https://shop.example")),
                "{text}"
            );
        }
    }
}
