//! Values that are never shown: passwords, and properties of librdkafka, which may be passwords.

use std::fmt;

use rocket::figment::value::Value;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::table::number_text;

/// A secret. `Debug` and `Serialize` show only whether it is set.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub(super) String);

impl Secret {
    /// Returns the secret itself. Only the code that configures librdkafka needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "\"\"" } else { "\"…\"" })
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.0.is_empty() { "" } else { "…" })
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // An error of serde would show the value that has the wrong type.
        Property::deserialize(deserializer)
            .map(|p| Secret(p.0))
            .map_err(|_| serde::de::Error::custom("expected a string"))
    }
}

/// The value of a librdkafka property: text, also if it is written as a number or a boolean. `Debug` never shows it.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Property(pub String);

impl fmt::Debug for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"…\"")
    }
}

impl<'de> Deserialize<'de> for Property {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match <Value as Deserialize>::deserialize(deserializer)? {
            Value::String(_, text) => Ok(Property(text)),
            Value::Bool(_, yes) => Ok(Property(yes.to_string())),
            Value::Num(_, number) => Ok(Property(number_text(&number))),
            _ => Err(serde::de::Error::custom("expected a string, a number or a boolean")),
        }
    }
}
