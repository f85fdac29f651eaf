//! The settings: a file for each table with its struct, defaults, description and checks.
//!
//! Values come from `Rocket.toml`, then from `FOOTFALL_<TABLE>__<KEY>`, then from `KAFKA_BOOTSTRAP_SERVERS`, `KAFKA_TOPIC` and
//! `FOOTFALL_BASE_PATH`; the later one wins. A variable of a text setting is that text, whatever it looks like: a password may
//! be `0123`, `true` or `[x]`. [`Settings::extract`] refuses an unknown key, a wrong unit or a contradiction with one line that
//! says which key, where it was set and what was expected.
//!
//! `Rocket.toml` and the tables of `docs/configuration.md` are generated from the descriptions in [`TABLES`] and [`ROCKET`].
//! After a change of one: `UPDATE=1 cargo test --lib config::reference`.

mod environment;
mod feed;
mod http;
mod ingest;
mod kafka;
mod log;
mod provenance;
#[cfg(test)]
mod reference;
mod rocket_keys;
mod secret;
mod table;
mod tls;

pub use feed::FeedSettings;
pub use http::HttpSettings;
pub use ingest::IngestSettings;
pub use kafka::KafkaSettings;
pub use log::{LogFormat, LogSettings};
pub use provenance::explain_all;
pub use rocket_keys::ROCKET;
pub use secret::{Property, Secret};
pub use table::{SettingKey, SettingKind, Table};
pub use tls::{MutualTlsSettings, TlsSettings};

use std::fmt::Display;

use rocket::figment::providers::{Env, Format, Serialized, Toml};
use rocket::figment::value::{Map, Value};
use rocket::figment::{Figment, Profile, Provider};
use serde::{Deserialize, Serialize};

use provenance::{describe, explain, located};

/// All settings of Footfall. Rocket has keys of its own beside them: see [`ROCKET`].
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Settings {
    pub kafka: KafkaSettings,
    pub ingest: IngestSettings,
    pub feed: FeedSettings,
    pub http: HttpSettings,
    pub tls: TlsSettings,
    pub log: LogSettings,
    /// Whether the process is a test double (`--ephemeral`), which can forget its events. The command line decides that.
    #[serde(skip)]
    pub ephemeral: bool,
}

/// The descriptions of the tables of [`Settings`].
pub const TABLES: &[Table] = &[
    KafkaSettings::TABLE,
    IngestSettings::TABLE,
    FeedSettings::TABLE,
    HttpSettings::TABLE,
    TlsSettings::TABLE,
    MutualTlsSettings::TABLE,
    LogSettings::TABLE,
];

/// Returns each setting with its key, such as `feed.heartbeat` or `tls.mutual.mandatory`.
fn all_keys() -> impl Iterator<Item = (String, &'static SettingKey)> {
    TABLES.iter().flat_map(|table| table.values().map(|key| (format!("{}.{}", table.name, key.name), key)))
}

/// Why the configuration is refused: one line that names the key, where it was set, and what was expected.
#[derive(Debug, thiserror::Error)]
#[error("configuration: {0}")]
pub struct InvalidConfig(String);

impl InvalidConfig {
    /// Refuses the value of a key for a reason that only its user can know.
    pub fn at(figment: &Figment, key: &str, why: impl Display) -> Self {
        InvalidConfig(format!("{}: {why}", located(figment, key)))
    }
}

/// A value that a table refuses. It becomes [`InvalidConfig`] where the origin of the value is known.
struct InvalidValue {
    key: String,
    why: String,
}

impl InvalidValue {
    fn because(key: &str, why: impl Into<String>) -> Result<(), InvalidValue> {
        Err(InvalidValue { key: key.to_owned(), why: why.into() })
    }
}

/// Returns the settings of all providers, in the order in which a later one wins: as `rocket::Config::figment`, with
/// Footfall's defaults and variables.
pub fn figment() -> Figment {
    let figment = Figment::from(rocket_keys::defaults())
        .merge(Toml::file(config_file()).nested())
        .merge(Env::prefixed("ROCKET_").ignore(&["PROFILE", "CONFIG"]).global())
        .select(Profile::from_env_or("ROCKET_PROFILE", rocket::Config::DEFAULT_PROFILE));
    environment::providers().fold(figment, Figment::merge)
}

/// Returns the figment of a test double: it listens on any free port of this machine, whatever is configured.
pub fn ephemeral(figment: Figment) -> Figment {
    figment.merge(Serialized::global("address", "127.0.0.1")).merge(Serialized::global("port", 0))
}

fn config_file() -> String {
    Env::var_or("ROCKET_CONFIG", "Rocket.toml")
}

/// Returns the description of a key such as `feed.heartbeat`.
fn key(path: &str) -> Option<&'static SettingKey> {
    let (table, name) = path.rsplit_once('.')?;
    TABLES.iter().find(|known| known.name == table)?.keys.iter().find(|key| key.name == name)
}

impl Settings {
    /// Reads and checks the settings of a figment.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] for the first mistake found.
    pub fn extract(figment: &Figment) -> Result<Settings, InvalidConfig> {
        environment::refuse_illegible()?;
        unknown_tables(figment)?;
        let figment = Figment::from(defaults()).merge(figment.clone()).select(figment.profile().clone());
        let mut settings: Settings = figment.extract().map_err(|error| explain(&figment, error))?;
        let checked = settings.kafka.read_secrets().and_then(|()| settings.check());
        checked.map_err(|InvalidValue { key, why }| InvalidConfig::at(&figment, &key, why))?;
        rocket_keys::check(&figment)?;
        Ok(settings)
    }

    /// Turns these settings into those of a test double.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] if a Kafka is configured: nobody's events there may be forgotten.
    pub fn into_ephemeral(self, figment: &Figment) -> Result<Settings, InvalidConfig> {
        if !self.kafka.embedded() {
            let why = "contradicts --ephemeral, which starts a broker of its own; remove one of the two";
            return Err(InvalidConfig::at(figment, "kafka.bootstrap_servers", why));
        }
        Ok(Settings { ephemeral: true, ..self })
    }

    fn check(&self) -> Result<(), InvalidValue> {
        self.kafka.check()?;
        self.check_bounds()?;
        self.ingest.check()?;
        self.tls.check()?;
        self.log.check()
    }

    /// Compares every value with the bounds of its key.
    fn check_bounds(&self) -> Result<(), InvalidValue> {
        let values = Value::serialize(self).unwrap_or_else(|_| Value::from(false));
        for (path, key) in all_keys() {
            let checked = values.find_ref(&path).map_or(Ok(()), |value| key.check(value));
            checked.or_else(|why| InvalidValue::because(&path, why))?;
        }
        Ok(())
    }
}

fn defaults() -> Serialized<Settings> {
    Serialized::defaults(Settings::default())
}

fn unknown_tables(figment: &Figment) -> Result<(), InvalidConfig> {
    let data: Map<Profile, Map<String, Value>> = Provider::data(figment).map_err(|e| explain(figment, e))?;
    for keys in data.values() {
        for (key, value) in keys {
            if rocket_keys::is_known(key) || TABLES.iter().any(|table| table.name == key) {
                continue;
            }
            let origin = figment.get_metadata(value.tag()).map(|metadata| describe(metadata, key));
            let origin = origin.map_or_else(String::new, |origin| format!(" ({origin})"));
            let known = TABLES.iter().map(|table| table.name).collect::<Vec<_>>().join("`, `");
            return Err(InvalidConfig(format!(
                "`{key}`{origin} is not known; Footfall's tables are `{known}`, beside Rocket's own keys"
            )));
        }
    }
    Ok(())
}
