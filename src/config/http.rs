//! `[default.http]`: the names of the server, and the deadlines and limits of connections.

use std::time::Duration;

use rocket::data::ByteUnit;
use serde::{Deserialize, Deserializer};

use super::table::{names, settings, unit};
use crate::base_path::BasePath;
use crate::hosts::Hosts;

settings! {
    "http";
    /// How clients reach Footfall, and how much time and memory a connection may take. Address, port and `keep_alive` are
    /// Rocket's own keys.
    pub struct HttpSettings {
        /// Host names under which clients reach Footfall, beside IP addresses and `localhost`. For example
        /// `["footfall.example.com", "*.apps.example.com"]`; in a variable also with commas between them. `["*"]` allows
        /// every name. A request for another name is answered 421: without this rule any web page could point its own host
        /// name at Footfall's address and read everything through a visitor's browser (DNS rebinding).
        #[serde(deserialize_with = "hosts")]
        pub hosts: Hosts = Hosts::default();
        /// The path under which clients reach Footfall, such as `/footfall`, if a proxy serves other applications under the
        /// same name. It is in every address that Footfall writes. Requests are served with it and without it, so the
        /// proxy may remove it or leave it.
        #[serde(deserialize_with = "base_path")]
        pub base_path: BasePath = BasePath::default();
        /// How long a client may take from the first to the last byte of a request's head (its request line and headers),
        /// and from connecting to the first byte. After that the answer is 408; a client that has sent nothing gets none.
        #[serde(with = "unit")]
        pub head_deadline: Duration = Duration::from_secs(30), in "100ms"..="10m";
        /// Largest head of a request. A larger one is answered 431.
        pub max_head: ByteUnit = ByteUnit::Kibibyte(64), in "8KiB"..="1MiB";
        /// How long the body of a request may take to arrive, whatever the method. The body bytes that arrive extend it: see
        /// `http.body_rate`. After that the answer is 408.
        #[serde(with = "unit")]
        pub body_deadline: Duration = Duration::from_secs(30), in "100ms"..="10m";
        /// How many bytes of a body extend its deadline by one second. A client that sends at least as many a second is
        /// never cut off, however large its body is.
        pub body_rate: ByteUnit = ByteUnit::Kibibyte(1), in "1B"..="1GiB";
        /// Most open connections. Beyond that the answer is 503, and the connection is closed. 0: as many as the limit of
        /// open files (`ulimit -n`) allows, less a quarter (at most 512). A larger number than that has no effect.
        pub max_connections: usize = 0, in 0..=1_000_000;
        /// Most open connections of one client address (for IPv6: one /64 network). 0: fifteen sixteenths of all, because
        /// all clients of a proxy come from its address.
        pub max_connections_per_address: usize = 0, in 0..=1_000_000;
        /// Whether a new process may listen on the same port while the old one still runs (`SO_REUSEPORT`), so that the new one
        /// takes over without a refused connection. Any process of the same user may then listen on the port.
        pub reuse_port: bool = false;
    }
}

fn base_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BasePath, D::Error> {
    BasePath::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

fn hosts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Hosts, D::Error> {
    let names = names(deserializer, "a list of host names")?;
    Hosts::parse(names.iter().map(String::as_str)).map_err(serde::de::Error::custom)
}
