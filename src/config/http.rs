//! `[default.http]`: the names of the server.

use rocket::figment::value::Value;
use serde::{Deserialize, Deserializer};

use super::table::settings;
use crate::hosts::Hosts;

settings! {
    "http";
    /// How clients reach Footfall. Address and port are Rocket's own keys.
    pub struct HttpSettings {
        /// Host names under which clients reach Footfall, beside IP addresses and `localhost`. For example
        /// `["footfall.example.com", "*.apps.example.com"]`; in a variable also with commas between them. `["*"]` allows
        /// every name. A request for another name is answered 421: without this rule any web page could point its own host
        /// name at Footfall's address and read everything through a visitor's browser (DNS rebinding).
        #[serde(deserialize_with = "hosts")]
        pub hosts: Hosts = Hosts::default();
    }
}

/// Reads a list of names, or one text with commas between them.
fn hosts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Hosts, D::Error> {
    let name = |value: &Value| value.as_str().map(str::to_owned);
    let names = match <Value as Deserialize>::deserialize(deserializer)? {
        Value::String(_, text) if text.trim().is_empty() => Some(Vec::new()),
        Value::String(_, text) => Some(text.split(',').map(str::to_owned).collect()),
        Value::Array(_, values) => values.iter().map(name).collect(),
        _ => None,
    };
    let names = names.ok_or_else(|| serde::de::Error::custom("expected a list of host names"))?;
    Hosts::parse(names.iter().map(String::as_str)).map_err(serde::de::Error::custom)
}
