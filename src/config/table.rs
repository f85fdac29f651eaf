//! Describes the settings once: the macro [`settings!`] makes the struct of a table, its defaults and its description.
//!
//! Everything that lists settings reads the descriptions: the checks of bounds, `footfall check`, the types of environment
//! variables, `Rocket.toml` and `docs/configuration.md`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use rocket::data::ByteUnit;
use rocket::figment::value::{Num, Value};
use serde::{Deserialize, Deserializer};

use super::secret::{Property, Secret};
use crate::base_path::BasePath;
use crate::event::time::parse_duration;
use crate::hosts::Hosts;
use crate::origins::Origins;

/// One table of `Rocket.toml`.
pub struct Table {
    /// The name after `default.`; the second part of the names of environment variables.
    pub name: &'static str,
    /// What the settings of the table are about, a line of the source per item.
    pub about: &'static [&'static str],
    pub keys: &'static [SettingKey],
}

impl Table {
    /// Returns the keys that have a value, not a table below this one.
    pub(super) fn values(&self) -> impl Iterator<Item = &SettingKey> {
        self.keys.iter().filter(|key| key.kind != SettingKind::Table)
    }
}

/// One setting of a table.
pub struct SettingKey {
    pub name: &'static str,
    /// What the setting does, a line of the source per item.
    pub doc: &'static [&'static str],
    pub kind: SettingKind,
    /// The smallest and the largest value, as an operator would write them.
    pub bounds: Option<[&'static str; 2]>,
    /// Why these are the bounds, where it is not plain.
    pub reason: &'static str,
}

/// How the value of a setting is written and shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingKind {
    /// The text of a variable is the value, without blanks around it.
    Text,
    /// The text of a variable is the value. It is never shown.
    Secret,
    Duration,
    Size,
    Number,
    Switch,
    /// Host names or origins: a list, or one text with commas.
    Names,
    /// A table of its own. Its values are never shown, because they may be passwords.
    Properties,
    /// A table below this one, with a description of its own.
    Table,
}

/// A type that a setting can have.
pub(super) trait Setting {
    const KIND: SettingKind;
}

macro_rules! kinds {
    ($($kind:ident: $($type:ty),+;)+) => { $($(impl Setting for $type { const KIND: SettingKind = SettingKind::$kind; })+)+ };
}

kinds! {
    Text: String, Option<PathBuf>, super::LogFormat, BasePath;
    Secret: Secret;
    Duration: Duration;
    Size: ByteUnit;
    Number: i32, u32, u64, usize;
    Switch: bool;
    Names: Hosts, Origins;
    Properties: BTreeMap<String, Property>;
    Table: super::MutualTlsSettings;
}

/// Makes the struct of a table, its `Default`, and its description as `TABLE`. A key is written
/// `pub name: Type = default, in least..=most, because reason;`, where bounds and reason may be missing.
macro_rules! settings {
    (
        $table:literal;
        $(#[doc = $about:literal])+
        pub struct $Name:ident {
            $(
                $(#[doc = $doc:literal])+
                $(#[serde($($serde:tt)+)])?
                pub $key:ident: $Type:ty = $default:expr $(, in $least:literal..=$most:literal)? $(, because $reason:literal)?;
            )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, serde::Deserialize, serde::Serialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $Name {
            $(
                $(#[doc = $doc])+
                $(#[doc = concat!("\n\nBounds: `", $least, "` to `", $most, "`.")])?
                #[doc = concat!("\n\nDefault: `", stringify!($default), "`.")]
                $(#[serde($($serde)+)])?
                pub $key: $Type,
            )+
        }

        impl Default for $Name {
            fn default() -> Self {
                $Name { $($key: $default),+ }
            }
        }

        impl $Name {
            /// The description of the table.
            pub const TABLE: $crate::config::Table = $crate::config::Table {
                name: $table,
                about: &[$($about),+],
                keys: &[$($crate::config::SettingKey {
                    name: stringify!($key),
                    doc: &[$($doc),+],
                    kind: <$Type as $crate::config::table::Setting>::KIND,
                    bounds: settings!(@bounds $($least, $most)?),
                    reason: concat!($($reason)?),
                }),+],
            };
        }
    };
    (@bounds) => { None };
    (@bounds $least:literal, $most:literal) => { Some([concat!($least), concat!($most)]) };
}
pub(super) use settings;

impl SettingKey {
    /// Compares a value with the bounds of the key. If the value is outside, returns what was expected.
    pub(super) fn check(&self, value: &Value) -> Result<(), String> {
        let Some([least, most]) = self.bounds else { return Ok(()) };
        let within = match (self.measure(least), self.measure(most)) {
            (Some(least), Some(most)) => self.measure(&self.show(value)).is_some_and(|n| (least..=most).contains(&n)),
            _ => false,
        };
        if within {
            return Ok(());
        }
        let text = self.show(value);
        let reason = if self.reason.is_empty() { String::new() } else { format!(" ({})", self.reason) };
        Err(format!("expected {least} to {most}{reason}, not {}", text.trim_matches('"')))
    }

    /// A value as a number: nanoseconds of a duration, bytes of a size.
    fn measure(&self, text: &str) -> Option<i128> {
        let text = text.trim_matches('"');
        match self.kind {
            SettingKind::Duration => parse_duration(text).and_then(|duration| duration.as_nanos().try_into().ok()),
            SettingKind::Size => text.parse().ok().map(|size: ByteUnit| size.as_u64().into()),
            _ => text.parse().ok(),
        }
    }

    /// The serialised value of the key as `footfall check` shows it.
    pub(super) fn show(&self, value: &Value) -> String {
        match (self.kind, value) {
            (SettingKind::Size, Value::Num(_, bytes)) => {
                ByteUnit::Byte(bytes.to_u128().and_then(|bytes| bytes.try_into().ok()).unwrap_or(u64::MAX)).to_string()
            }
            (_, Value::String(_, text)) => format!("{text:?}"),
            (_, Value::Empty(..)) => "none".into(),
            (_, Value::Bool(_, yes)) => yes.to_string(),
            (_, Value::Num(_, number)) => number_text(number),
            (_, other) => format!("{other:?}"),
        }
    }
}

/// Reads a list of texts, or one text with commas between them.
pub(super) fn names<'de, D: Deserializer<'de>>(deserializer: D, expected: &str) -> Result<Vec<String>, D::Error> {
    let name = |value: &Value| value.as_str().map(str::to_owned);
    let names = match <Value as Deserialize>::deserialize(deserializer)? {
        Value::String(_, text) if text.trim().is_empty() => Some(Vec::new()),
        Value::String(_, text) => Some(text.split(',').map(str::to_owned).collect()),
        Value::Array(_, values) => values.iter().map(name).collect(),
        _ => None,
    };
    names.ok_or_else(|| serde::de::Error::custom(format_args!("expected {expected}")))
}

/// A number as it is written in decimal.
pub(super) fn number_text(number: &Num) -> String {
    let whole = number.to_i128().map(|n| n.to_string()).or_else(|| number.to_u128().map(|n| n.to_string()));
    whole.or_else(|| number.to_f64().map(|n| n.to_string())).unwrap_or_default()
}

/// Durations as a number with its unit: `250ms`, `10s`, `15m`, `2h`.
pub(super) mod unit {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::{Property, parse_duration};

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = Property::deserialize(deserializer)?.0;
        parse_duration(&text).ok_or_else(|| {
            serde::de::Error::custom(format_args!(
                "`{text}` is not a duration; expected a number with its unit, such as 250ms, 10s, 15m or 2h"
            ))
        })
    }

    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        let ms = duration.as_millis();
        let units = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
        let largest = units.into_iter().find(|(_, unit)| ms > 0 && ms.is_multiple_of(*unit));
        let (name, unit) = largest.unwrap_or(("s", 1000));
        serializer.serialize_str(&format!("{}{name}", ms / unit))
    }
}
