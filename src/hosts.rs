//! The names under which the server answers, and the hosts that `Host` and `Origin` name.
//!
//! The owner of any site can point a name of that site at the address of this server (DNS rebinding). A browser then treats
//! the server as part of that site. So the server answers a request only if the request names it by an IP address, by
//! `localhost`, or by a name that the operator has set. The module knows neither HTTP nor where settings come from.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use serde::{Serialize, Serializer};

/// Most characters of a host name (RFC 1035, section 2.3.4).
const LONGEST: usize = 253;

/// A host with its port, as `Host` names it (RFC 9110, section 7.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authority<'a> {
    /// Without the brackets of an IPv6 address and without a final dot.
    host: &'a str,
    address: Option<IpAddr>,
    port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Parses `host`, `host:port` or `[address]:port`. Returns `None` for anything else, such as `user@host`.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                let address = IpAddr::V6(host.parse::<Ipv6Addr>().ok()?);
                return Some(Authority { host, address: Some(address), port: parse_port(port)? });
            }
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let host = host.strip_suffix('.').unwrap_or(host);
        let port = parse_port(port)?;
        if let Ok(address) = host.parse() {
            return Some(Authority { host, address: Some(IpAddr::V4(address)), port });
        }
        is_name(host).then_some(Authority { host, address: None, port })
    }

    /// Returns the host without its port, an IPv6 address in brackets and in its shortest form.
    pub fn host(&self) -> String {
        Authority { port: None, ..*self }.to_string()
    }

    pub fn port(&self) -> Option<u16> {
        self.port
    }

    fn is(&self, name: &str) -> bool {
        self.host.eq_ignore_ascii_case(name)
    }

    /// Whether the host is a subdomain of `name`, at any depth.
    fn is_below(&self, name: &str) -> bool {
        let dot = self.host.len().checked_sub(name.len() + 1);
        dot.is_some_and(|dot| {
            let (host, name) = (self.host.as_bytes(), name.as_bytes());
            host[dot] == b'.' && host[dot + 1..].eq_ignore_ascii_case(name)
        })
    }

    /// Whether the host is the client's own machine. Browsers trust its pages as they trust HTTPS.
    pub fn is_loopback(&self) -> bool {
        let is_address = self.address.is_some_and(|address| address.to_canonical().is_loopback());
        is_address || self.is("localhost") || self.is_below("localhost")
    }
}

impl fmt::Display for Authority<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(IpAddr::V6(address)) => write!(f, "[{address}]")?,
            _ => f.write_str(self.host)?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// Parses what follows a host: nothing, or a colon and a port, which may be empty (RFC 3986, section 3.2.3).
fn parse_port(text: &str) -> Option<Option<u16>> {
    match text.strip_prefix(':') {
        None => text.is_empty().then_some(None),
        Some("") => Some(None),
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok().map(Some),
        Some(_) => None,
    }
}

/// Whether a text is a host name. Other spellings of an IPv4 address, such as `127.1` or `0x7f000001`, are not.
fn is_name(text: &str) -> bool {
    let label =
        |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    // A browser parses the host as an address if the last label is a number (WHATWG URL, section 3.5).
    let last = text.rsplit('.').next().unwrap_or_default();
    let number = |digits: &str, hexadecimal: bool| {
        digits.bytes().all(|b| if hexadecimal { b.is_ascii_hexdigit() } else { b.is_ascii_digit() })
    };
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    let is_number = hexadecimal.map_or_else(|| number(last, false), |digits| number(digits, true));
    text.len() <= LONGEST && text.split('.').all(label) && !is_number
}

/// The names of the server, beside IP addresses and `localhost`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts(Vec<Pattern>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    /// `*`
    Any,
    /// `footfall.example.com`
    Name(String),
    /// `*.example.com`, stored as `example.com`.
    Below(String),
}

/// A text that is not a host name. It holds the text.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is not a host name; expected a name without scheme and port, such as footfall.example.com, or *.example.com, or *"
)]
pub struct InvalidHost(String);

impl Hosts {
    /// Parses each text as a name, as `*.` and a name, or as `*`.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidHost> {
        let pattern = |text: &str| {
            let trimmed = text.trim();
            let name = |name: &str| {
                Authority::parse(name).filter(|it| it.port.is_none() && !name.contains(':')).map(|it| it.to_string())
            };
            let found = match (trimmed, trimmed.strip_prefix("*.")) {
                ("*", _) => Some(Pattern::Any),
                (_, Some(parent)) => name(parent).filter(|parent| is_name(parent)).map(Pattern::Below),
                (own, None) => name(own).map(Pattern::Name),
            };
            found.ok_or_else(|| InvalidHost(text.to_owned()))
        };
        texts.into_iter().map(pattern).collect::<Result<_, _>>().map(Hosts)
    }

    /// Whether this is a name of the server. No other site can have it, unless the operator has allowed every name.
    pub fn contains(&self, host: &Authority) -> bool {
        let configured = |pattern: &Pattern| match pattern {
            Pattern::Any => true,
            Pattern::Name(name) => host.is(name),
            Pattern::Below(parent) => host.is_below(parent),
        };
        host.address.is_some() || host.is_loopback() || self.0.iter().any(configured)
    }

    /// Whether pages of this origin (RFC 6454) are Footfall's own, for a request to `host`. They are if the origin is that
    /// host, or a name that is configured in full, at the default port: a proxy may have changed `Host`.
    pub fn is_own(&self, origin: &str, host: Option<&Authority>) -> bool {
        let Some((scheme, authority)) = origin.split_once("://") else { return false };
        let Some(theirs) = Authority::parse(authority) else { return false };
        let usual = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return false,
        };
        let port = |authority: &Authority| authority.port.unwrap_or(usual);
        let same = |host: &Authority| {
            let same_host = match (theirs.address, host.address) {
                (None, None) => theirs.is(host.host),
                (theirs, host) => theirs == host,
            };
            same_host && port(&theirs) == port(host)
        };
        let configured = |pattern: &Pattern| matches!(pattern, Pattern::Name(name) if theirs.is(name));
        host.is_some_and(same) || (port(&theirs) == usual && self.0.iter().any(configured))
    }
}

impl Serialize for Hosts {
    /// Writes the names as one text, separated by commas.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let texts: Vec<String> = self.0.iter().map(Pattern::to_string).collect();
        serializer.serialize_str(&texts.join(", "))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Any => f.write_str("*"),
            Pattern::Name(name) => f.write_str(name),
            Pattern::Below(parent) => write!(f, "*.{parent}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(texts: &[&str]) -> Hosts {
        Hosts::parse(texts.iter().copied()).expect("hosts")
    }

    fn allows(hosts: &Hosts, host: &str) -> bool {
        Authority::parse(host).is_some_and(|authority| hosts.contains(&authority))
    }

    #[test]
    fn addresses_and_localhost_are_names_of_every_server() {
        let none = hosts(&[]);
        for host in [
            "127.0.0.1",
            "127.0.0.1:8000",
            "192.0.2.7:80",
            "127.0.0.1.",
            "0.0.0.0",
            "[::1]",
            "[::1]:8000",
            "[FE80::1]",
            "[::ffff:127.0.0.1]:1",
            "localhost",
            "LOCALHOST:8000",
            "localhost.",
            "localhost.:80",
            "localhost:",
            "a.b.LocalHost:1",
        ] {
            assert!(allows(&none, host), "{host}");
        }
        for host in [
            "",
            ":",
            ":80",
            ".",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evillocalhost",
            ".localhost",
            "a..localhost",
            "user@localhost",
            "evil.example@127.0.0.1",
            "localhost:80:80",
            "localhost:x",
            "localhost:99999",
            "localhost:+80",
            "localhost/",
            "localhost#",
            "localhost?",
            "local host",
            "localhost,evil",
            "[::1",
            "::1",
            "[::1]x",
            "[::1]evil.example",
            "[127.0.0.1]",
            "[v1.x]",
            "[fe80::1%25eth0]",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "127.0.0.0x1",
            "0",
            "localhost..",
            "lo\u{212a}alhost",
            "http://localhost",
        ] {
            assert!(!allows(&none, host), "{host}");
        }
    }

    #[test]
    fn names_are_those_that_are_configured() {
        let some = hosts(&["Feed.Example.com", "*.apps.example."]);
        for host in
            ["feed.example.com", "FEED.example.COM:443", "feed.example.com.", "a.apps.example", "b.a.Apps.Example:8"]
        {
            assert!(allows(&some, host), "{host}");
        }
        for host in ["example.com", "x.feed.example.com", "apps.example", "xapps.example", "feed.example.com.evil"] {
            assert!(!allows(&some, host), "{host}");
        }
        assert!(allows(&hosts(&["*"]), "anything.example"));
        assert!(!allows(&hosts(&["*"]), "user@anything.example"));
        for wrong in
            ["", "http://a", "a:80", "a.*", "*.", "**", "*.*", "a b", "b\u{fc}cher.example", "*.127.0.0.1", "[::1"]
        {
            assert!(Hosts::parse([wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_origin_is_ours_if_it_is_the_host_or_a_configured_name() {
        let host = |text| Authority::parse(text);
        let none = hosts(&[]);
        for (origin, own) in [
            ("http://127.0.0.1:8000", "127.0.0.1:8000"),
            ("https://feed.example", "feed.example"),
            ("https://feed.example", "FEED.example:443"),
            ("http://feed.example:80", "feed.example"),
            ("http://[::1]:8000", "[0::1]:8000"),
        ] {
            assert!(none.is_own(origin, host(own).as_ref()), "{origin} {own}");
        }
        for (origin, other) in [
            ("null", "null"),
            ("http://evil.example", "feed.example"),
            ("http://feed.example:81", "feed.example"),
            ("http://feed.example.evil.example", "feed.example"),
            ("http://user@feed.example", "feed.example"),
            ("ftp://feed.example", "feed.example"),
            ("chrome-extension://feed.example", "feed.example"),
            ("http://127.0.0.1:1", "127.0.0.1:8000"),
        ] {
            assert!(!none.is_own(origin, host(other).as_ref()), "{origin} {other}");
        }
        assert!(!none.is_own("http://feed.example", None));
        let behind_a_proxy = hosts(&["feed.example", "*.apps.example", "*"]);
        let changed = host("127.0.0.1:8000");
        assert!(behind_a_proxy.is_own("https://feed.example", changed.as_ref()));
        for other in ["https://a.apps.example", "https://evil.example", "https://feed.example:8443"] {
            assert!(!behind_a_proxy.is_own(other, changed.as_ref()), "{other}");
        }
    }
}
