//! What can be set: one struct per concern, each with its defaults, checked before anything starts.
//!
//! Values come from `Rocket.toml`, then `FOOTFALL_<TABLE>__<KEY>`, then the two aliases `KAFKA_BOOTSTRAP_SERVERS` and
//! `KAFKA_TOPIC`; a later one wins. An unknown key, a wrong unit or a contradiction is one line that says which key,
//! where it was set and what would be right.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use rocket::data::ByteUnit;
use rocket::figment::providers::{Env, Format, Serialized, Toml};
use rocket::figment::value::{Map, Num, Value};
use rocket::figment::{Figment, Metadata, Profile, Source};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::event::time::parse_duration;

/// All settings of Footfall; Rocket keeps its own (`address`, `port`, `limits`, `shutdown` …) beside them.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Settings {
    pub kafka: KafkaSettings,
    pub ingest: IngestSettings,
    pub feed: FeedSettings,
    pub log: LogSettings,
}

/// Which cluster and topic, and how to talk to it.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaSettings {
    /// `host:port`, separated by commas. Empty: the embedded broker.
    pub bootstrap_servers: String,
    pub topic: String,
    /// Whether the topic is created at start if it is missing.
    pub create_topic: bool,
    /// Partitions of a topic that we create.
    pub partitions: i32,
    /// Replicas of a topic that we create; -1 is the broker's default.
    pub replication: i32,
    /// `plaintext`, `ssl`, `sasl_plaintext` or `sasl_ssl`; empty leaves it to `properties`.
    pub security_protocol: String,
    pub sasl_mechanism: String,
    pub sasl_username: String,
    pub sasl_password: Secret,
    pub sasl_password_file: Option<PathBuf>,
    pub ssl_ca_location: String,
    pub ssl_certificate_location: String,
    pub ssl_key_location: String,
    pub ssl_key_password: Secret,
    pub ssl_key_password_file: Option<PathBuf>,
    /// Any property of librdkafka, for all clients; what the promises rest on cannot be set here.
    pub properties: BTreeMap<String, Property>,
}

impl Default for KafkaSettings {
    fn default() -> Self {
        KafkaSettings {
            bootstrap_servers: String::new(),
            topic: "user_activity".into(),
            create_topic: true,
            partitions: 3,
            replication: -1,
            security_protocol: String::new(),
            sasl_mechanism: String::new(),
            sasl_username: String::new(),
            sasl_password: Secret::default(),
            sasl_password_file: None,
            ssl_ca_location: String::new(),
            ssl_certificate_location: String::new(),
            ssl_key_location: String::new(),
            ssl_key_password: Secret::default(),
            ssl_key_password_file: None,
            properties: BTreeMap::new(),
        }
    }
}

impl KafkaSettings {
    /// Whether the broker inside the process serves.
    pub fn embedded(&self) -> bool {
        self.bootstrap_servers.is_empty()
    }
}

/// Accepting events.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngestSettings {
    /// Largest body, also after decompression.
    pub max_body: ByteUnit,
    /// Largest event.
    pub max_event: ByteUnit,
    /// Most events in one array.
    pub max_batch: usize,
    /// How long Kafka may take to acknowledge before the answer is 504.
    #[serde(with = "unit")]
    pub deadline: Duration,
    /// How many ids are remembered, and for how long, to answer a retry with the first receipt.
    pub ids: usize,
    #[serde(with = "unit")]
    pub ids_for: Duration,
    /// Events a second that one client address may send; 0 is no limit.
    pub rate_limit: u32,
    /// `ce_source` and `ce_type` of events that don't bring their own.
    pub source: String,
    pub event_type: String,
    /// `none`, `gzip`, `snappy`, `lz4` or `zstd`.
    pub compression: String,
    /// How long the producer waits for company before it sends (`linger.ms`).
    #[serde(with = "unit")]
    pub linger: Duration,
    /// Events that wait for Kafka at most; beyond it the answer is 503.
    pub queue_messages: u32,
    /// Requests that wait for Kafka at most; beyond it the answer is 503.
    pub concurrency: usize,
}

impl Default for IngestSettings {
    fn default() -> Self {
        IngestSettings {
            max_body: ByteUnit::Kibibyte(512),
            max_event: ByteUnit::Kibibyte(32),
            max_batch: 500,
            deadline: Duration::from_secs(10),
            ids: 100_000,
            ids_for: Duration::from_secs(600),
            rate_limit: 0,
            source: "/footfall".into(),
            event_type: "footfall.user_activity".into(),
            // Every client can read it: kafka-python, for one, needs further packages for all but gzip.
            compression: "none".into(),
            linger: Duration::ZERO,
            queue_messages: 100_000,
            concurrency: 1000,
        }
    }
}

/// The live feed.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct FeedSettings {
    /// Most records kept in memory, and most bytes of them.
    pub events: usize,
    pub bytes: ByteUnit,
    #[serde(with = "unit")]
    pub heartbeat: Duration,
    /// A stream is ended after this long, less up to a fifth, so that clients spread over replicas.
    #[serde(with = "unit")]
    pub max_age: Duration,
    /// What a browser waits before it connects again.
    #[serde(with = "unit")]
    pub retry: Duration,
    /// Streams open at once; beyond it the answer is 503.
    pub max_streams: usize,
    /// A connection whose client takes nothing for this long is closed.
    #[serde(with = "unit")]
    pub stalled: Duration,
    /// Most records that one resume reads from Kafka; beyond it there is a gap.
    pub max_catch_up: u64,
}

impl Default for FeedSettings {
    fn default() -> Self {
        FeedSettings {
            events: 50_000,
            bytes: ByteUnit::Mebibyte(32),
            heartbeat: Duration::from_secs(15),
            max_age: Duration::from_secs(900),
            retry: Duration::from_secs(3),
            max_streams: 20_000,
            stalled: Duration::from_secs(60),
            max_catch_up: 1_000_000,
        }
    }
}

/// Logging, to standard output.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    pub format: LogFormat,
    /// A level (`error`, `warn`, `info`, `debug`, `trace`) or the directives of `tracing_subscriber::EnvFilter`.
    pub level: String,
    /// One line a request.
    pub requests: bool,
}

impl Default for LogSettings {
    fn default() -> Self {
        LogSettings { format: LogFormat::Auto, level: "info".into(), requests: true }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    Text,
    Json,
}

/// A value that never prints itself.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The value itself, for the one place that hands it to Kafka's client.
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
        // An all-digit password in the environment is read as a number, and must not show up in the error either.
        Property::deserialize(deserializer)
            .map(|p| Secret(p.0))
            .map_err(|_| serde::de::Error::custom("expected a string"))
    }
}

/// A librdkafka property: text, also when it is written as a number or a boolean.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Property(pub String);

impl fmt::Debug for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"…\"") // may be a password
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

fn number_text(number: &Num) -> String {
    let whole = number.to_i128().map(|n| n.to_string()).or_else(|| number.to_u128().map(|n| n.to_string()));
    whole.or_else(|| number.to_f64().map(|n| n.to_string())).unwrap_or_default()
}

/// Durations as a number with its unit: `250ms`, `10s`, `15m`, `2h`.
mod unit {
    use super::*;

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = Property::deserialize(deserializer)?.0;
        parse_duration(&text).ok_or_else(|| {
            serde::de::Error::custom(format_args!(
                "`{text}` is no duration; expected a number with its unit, such as 250ms, 10s, 15m or 2h"
            ))
        })
    }

    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        let ms = duration.as_millis();
        let text = if ms.is_multiple_of(1000) { format!("{}s", ms / 1000) } else { format!("{ms}ms") };
        serializer.serialize_str(&text)
    }
}

/// Why the configuration is refused: one line that names the key, where it was set, and what would be right.
#[derive(Debug, thiserror::Error)]
#[error("configuration: {0}")]
pub struct Invalid(String);

/// The settings of every provider, in the order in which a later one wins. As `rocket::Config::figment`, with defaults
/// of our own.
pub fn figment() -> Figment {
    let rocket = rocket::Config {
        // Any client can send the header that Rocket believes by default.
        ip_header: None,
        // Our own lines take their place.
        log_level: rocket::config::LogLevel::Off,
        ..rocket::Config::default()
    };
    Figment::from(rocket)
        .merge(Toml::file(config_file()).nested())
        .merge(Env::prefixed("ROCKET_").ignore(&["PROFILE", "CONFIG"]).global())
        .select(Profile::from_env_or("ROCKET_PROFILE", rocket::Config::DEFAULT_PROFILE))
        .merge(Env::prefixed("FOOTFALL_").split("__").global())
        .merge(alias("KAFKA_BOOTSTRAP_SERVERS", "kafka.bootstrap_servers"))
        .merge(alias("KAFKA_TOPIC", "kafka.topic"))
}

fn config_file() -> String {
    Env::var_or("ROCKET_CONFIG", "Rocket.toml")
}

fn alias(variable: &'static str, key: &'static str) -> Env {
    Env::raw().only(&[variable]).map(move |_| key.into()).global()
}

impl Settings {
    /// Reads and checks the settings of a figment.
    pub fn extract(figment: &Figment) -> Result<Settings, Invalid> {
        unknown_tables(figment)?;
        let figment = Figment::from(defaults()).merge(figment.clone()).select(figment.profile().clone());
        let mut settings: Settings = figment.extract().map_err(|e| explain(&figment, e))?;
        let kafka = &mut settings.kafka;
        from_file(&figment, "kafka.sasl_password", &mut kafka.sasl_password, kafka.sasl_password_file.as_ref())?;
        from_file(
            &figment,
            "kafka.ssl_key_password",
            &mut kafka.ssl_key_password,
            kafka.ssl_key_password_file.as_ref(),
        )?;
        settings.check(&figment)?;
        Ok(settings)
    }

    fn check(&self, figment: &Figment) -> Result<(), Invalid> {
        let refuse = |key: &str, what: String| Err(Invalid(format!("{}: {what}", located(figment, key))));
        let kafka = &self.kafka;
        let topic_ok = (1..=249).contains(&kafka.topic.len())
            && kafka.topic != "."
            && kafka.topic != ".."
            && kafka.topic.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if !topic_ok {
            return refuse(
                "kafka.topic",
                format!("`{}` is no topic's name; expected 1 to 249 of a-z A-Z 0-9 . _ -", kafka.topic),
            );
        }
        if !(1..=1000).contains(&kafka.partitions) {
            return refuse("kafka.partitions", format!("expected 1 to 1000, not {}", kafka.partitions));
        }
        if kafka.replication != -1 && !(1..=100).contains(&kafka.replication) {
            return refuse(
                "kafka.replication",
                format!("expected -1 (the broker's default) or 1 to 100, not {}", kafka.replication),
            );
        }
        for server in kafka.bootstrap_servers.split(',').filter(|_| !kafka.embedded()) {
            let port = server.trim().rsplit_once(':').map(|(host, port)| (host.is_empty(), port.parse::<u16>()));
            if !matches!(port, Some((false, Ok(1..)))) {
                return refuse(
                    "kafka.bootstrap_servers",
                    format!("`{server}` is no address; expected host:port, separated by commas"),
                );
            }
        }
        let protocol = kafka.security_protocol.to_ascii_lowercase();
        if !["", "plaintext", "ssl", "sasl_plaintext", "sasl_ssl"].contains(&protocol.as_str()) {
            return refuse(
                "kafka.security_protocol",
                format!("`{}` is none of plaintext, ssl, sasl_plaintext, sasl_ssl", kafka.security_protocol),
            );
        }
        let sasl = protocol.starts_with("sasl")
            || kafka.properties.get("security.protocol").is_some_and(|p| p.0.to_ascii_lowercase().starts_with("sasl"));
        for (key, set) in [
            ("kafka.sasl_mechanism", !kafka.sasl_mechanism.is_empty()),
            ("kafka.sasl_username", !kafka.sasl_username.is_empty()),
            ("kafka.sasl_password", !kafka.sasl_password.reveal().is_empty()),
        ] {
            if set && !sasl {
                return refuse(key, "needs kafka.security_protocol to be sasl_ssl or sasl_plaintext".into());
            }
        }
        for (key, path) in [
            ("kafka.ssl_ca_location", &kafka.ssl_ca_location),
            ("kafka.ssl_certificate_location", &kafka.ssl_certificate_location),
            ("kafka.ssl_key_location", &kafka.ssl_key_location),
        ] {
            if !path.is_empty() && !protocol.ends_with("ssl") {
                return refuse(key, "needs kafka.security_protocol to be ssl or sasl_ssl".into());
            }
        }
        for key in kafka.properties.keys() {
            if let Some((_, instead)) = RESERVED.iter().find(|(reserved, _)| reserved == key) {
                return refuse(&format!("kafka.properties.{key}"), format!("cannot be set here: {instead}"));
            }
        }
        if kafka.embedded() && (!protocol.is_empty() || !kafka.properties.is_empty()) {
            return refuse(
                if protocol.is_empty() { "kafka.properties" } else { "kafka.security_protocol" },
                "needs kafka.bootstrap_servers: without it the embedded broker serves, which has no such settings"
                    .into(),
            );
        }
        let ingest = &self.ingest;
        if ingest.max_event.as_u64() == 0 || ingest.max_event > ByteUnit::Kibibyte(900) {
            return refuse(
                "ingest.max_event",
                format!("expected 1 B to 900 KiB (Kafka's default takes messages of 1 MB), not {}", ingest.max_event),
            );
        }
        if ingest.max_body < ingest.max_event || ingest.max_body > ByteUnit::Mebibyte(64) {
            return refuse(
                "ingest.max_body",
                format!(
                    "expected at least ingest.max_event ({}) and at most 64 MiB, not {}",
                    ingest.max_event, ingest.max_body
                ),
            );
        }
        bounded(figment, "ingest.max_batch", ingest.max_batch as u64, 1, 10_000)?;
        bounded(figment, "ingest.ids", ingest.ids as u64, 0, 10_000_000)?;
        bounded(
            figment,
            "ingest.queue_messages",
            u64::from(ingest.queue_messages),
            ingest.max_batch as u64,
            10_000_000,
        )?;
        bounded(figment, "ingest.concurrency", ingest.concurrency as u64, 1, 1_000_000)?;
        within(figment, "ingest.deadline", ingest.deadline, "100ms", "5m")?;
        within(figment, "ingest.ids_for", ingest.ids_for, "0s", "24h")?;
        within(figment, "ingest.linger", ingest.linger, "0s", "1s")?;
        if ingest.linger >= ingest.deadline {
            return refuse("ingest.linger", format!("must be shorter than ingest.deadline ({:?})", ingest.deadline));
        }
        if !["none", "gzip", "snappy", "lz4", "zstd"].contains(&ingest.compression.as_str()) {
            return refuse(
                "ingest.compression",
                format!("`{}` is none of none, gzip, snappy, lz4, zstd", ingest.compression),
            );
        }
        for (key, text) in [("ingest.source", &ingest.source), ("ingest.event_type", &ingest.event_type)] {
            if text.is_empty() || text.chars().any(char::is_control) {
                return refuse(key, "must not be empty or hold control characters".into());
            }
        }
        let feed = &self.feed;
        bounded(figment, "feed.events", feed.events as u64, 10, 10_000_000)?;
        bounded(figment, "feed.max_streams", feed.max_streams as u64, 1, 1_000_000)?;
        bounded(figment, "feed.max_catch_up", feed.max_catch_up, 0, 1_000_000_000)?;
        if !(ByteUnit::Mebibyte(1)..=ByteUnit::Gibibyte(16)).contains(&feed.bytes) {
            return refuse("feed.bytes", format!("expected 1 MiB to 16 GiB, not {}", feed.bytes));
        }
        within(figment, "feed.heartbeat", feed.heartbeat, "100ms", "5m")?;
        within(figment, "feed.max_age", feed.max_age, "1s", "24h")?;
        within(figment, "feed.stalled", feed.stalled, "1s", "24h")?;
        within(figment, "feed.retry", feed.retry, "100ms", "5m")?;
        if tracing_subscriber::EnvFilter::try_new(&self.log.level).is_err() {
            return refuse(
                "log.level",
                format!("`{}` is no level; expected error, warn, info, debug or trace", self.log.level),
            );
        }
        Ok(())
    }
}

/// Every setting as `key`, value and where it came from, for `footfall check`. Secrets stay covered.
pub fn explain_all(figment: &Figment, settings: &Settings) -> Vec<(String, String, String)> {
    let shown = Value::serialize(settings).ok().and_then(Value::into_dict).unwrap_or_default();
    let mut lines = Vec::new();
    for (table, keys) in shown {
        for (key, value) in keys.into_dict().unwrap_or_default() {
            let name = format!("{table}.{key}");
            if name == "kafka.properties" {
                for property in value.into_dict().unwrap_or_default().into_keys() {
                    let name = format!("{name}.{property}");
                    let origin = origin(figment, &name).unwrap_or_else(|| "default".into());
                    lines.push((name, "…".into(), origin));
                }
                continue;
            }
            let origin = [name.clone(), format!("{name}_file")].iter().find_map(|name| origin(figment, name));
            let value = match value {
                Value::String(_, text) => format!("{text:?}"),
                Value::Empty(..) => "none".into(),
                Value::Bool(_, yes) => yes.to_string(),
                Value::Num(_, number) => number_text(&number),
                other => format!("{other:?}"),
            };
            let value = if matches!(name.as_str(), "feed.bytes" | "ingest.max_body" | "ingest.max_event") {
                value.parse().map_or(value, |bytes: u64| ByteUnit::Byte(bytes).to_string())
            } else {
                value
            };
            lines.push((name, value, origin.unwrap_or_else(|| "default".into())));
        }
    }
    lines
}

/// What Footfall sets itself, and what to use instead.
const RESERVED: &[(&str, &str)] = &[
    ("bootstrap.servers", "use kafka.bootstrap_servers"),
    ("metadata.broker.list", "use kafka.bootstrap_servers"),
    ("acks", "a 201 means that all in-sync replicas have the event"),
    ("request.required.acks", "a 201 means that all in-sync replicas have the event"),
    ("enable.idempotence", "it is always on, so that a retry inside the client writes nothing twice"),
    ("message.timeout.ms", "it is 2 minutes, longer than ingest.deadline, so that nothing is written twice"),
    ("delivery.timeout.ms", "it is 2 minutes, longer than ingest.deadline, so that nothing is written twice"),
    ("request.timeout.ms", "it follows ingest.deadline"),
    ("delivery.report.only.error", "an event is answered when its delivery is reported"),
    ("enable.gapless.guarantee", "one event that Kafka refuses would be the last that is taken"),
    ("linger.ms", "use ingest.linger"),
    ("queue.buffering.max.ms", "use ingest.linger"),
    ("queue.buffering.max.messages", "use ingest.queue_messages"),
    ("compression.type", "use ingest.compression"),
    ("compression.codec", "use ingest.compression"),
    ("partitioner", "it is murmur2_random, so that every client puts a user into the same partition"),
    ("transactional.id", "Footfall does not use transactions"),
    ("group.id", "use footfall consume --group"),
    ("auto.commit.enable", "the feed commits nothing, and consume commits what it has written out"),
    ("enable.auto.commit", "the feed commits nothing, and consume commits what it has written out"),
    ("enable.auto.offset.store", "consume stores an offset after the record was written out"),
    ("auto.offset.reset", "an offset that is gone is told as a gap"),
    ("enable.partition.eof", "the readers rely on it"),
    ("allow.auto.create.topics", "use kafka.create_topic"),
    ("statistics.interval.ms", "footfall_tail_lag_records comes from them"),
];

/// The tables that Rocket itself knows (Rocket 0.5, `rocket::Config`), beside ours.
const ROCKET: &[&str] = &[
    "address",
    "port",
    "workers",
    "max_blocking",
    "ident",
    "ip_header",
    "proxy_proto_header",
    "limits",
    "temp_dir",
    "keep_alive",
    "tls",
    "secret_key",
    "shutdown",
    "log_level",
    "cli_colors",
    "profile",
    "template_dir",
];
const OURS: &[&str] = &["kafka", "ingest", "feed", "log"];

fn defaults() -> Serialized<Settings> {
    Serialized::defaults(Settings::default())
}

fn unknown_tables(figment: &Figment) -> Result<(), Invalid> {
    let data: Map<Profile, Map<String, Value>> =
        rocket::figment::Provider::data(figment).map_err(|e| explain(figment, e))?;
    for keys in data.values() {
        for (key, value) in keys {
            if ROCKET.contains(&key.as_str()) || OURS.contains(&key.as_str()) {
                continue;
            }
            let origin = figment.get_metadata(value.tag()).map(|metadata| describe(metadata, key));
            let origin = origin.map_or_else(String::new, |origin| format!(" ({origin})"));
            let known = OURS.join("`, `");
            return Err(Invalid(format!(
                "`{key}`{origin} is not known; Footfall's tables are `{known}`, beside Rocket's own keys"
            )));
        }
    }
    Ok(())
}

fn explain(figment: &Figment, error: rocket::figment::Error) -> Invalid {
    let Some(first) = error.into_iter().next() else { return Invalid("could not be read".into()) };
    let mut path = first.path.join(".");
    if let rocket::figment::error::Kind::UnknownField(field, known) = &first.kind {
        if !path.ends_with(field.as_str()) {
            path = format!("{path}.{field}");
        }
        let origin = origin(figment, &path).map_or_else(String::new, |origin| format!(" ({origin})"));
        return Invalid(format!("`{path}`{origin} is not known; expected one of {}", known.join(", ")));
    }
    if path.is_empty() {
        return Invalid(match &first.metadata {
            Some(metadata) => format!("{} ({})", first.kind, describe(metadata, "")),
            // Only a file that is no TOML: the error shows the line, in which a secret may be.
            None => format!("{}: {}", config_file(), without_excerpt(&first.kind.to_string())),
        });
    }
    Invalid(format!("{}: {}", located(figment, &path), in_words(&first.kind, path.starts_with("kafka"))))
}

/// What was expected in place of a value, for people: serde speaks of Rust's types. A value that may be secret is not
/// shown.
fn in_words(kind: &rocket::figment::error::Kind, secret: bool) -> String {
    use rocket::figment::error::{Actual, Kind};
    let expected = |what: &str| match what {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number that is not negative".into(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".into(),
        "byte unit string" => "a size with its unit, such as 512KiB or 16MiB".into(),
        other => other.to_owned(),
    };
    let shown = |found: &Actual| match found {
        Actual::Bool(_) if secret => "a boolean".into(),
        Actual::Unsigned(_) | Actual::Signed(_) | Actual::Float(_) if secret => "a number".into(),
        Actual::Char(_) | Actual::Str(_) if secret => "a string".into(),
        Actual::Bytes(_) | Actual::Other(_) if secret => "something else".into(),
        other => other.to_string(),
    };
    match kind {
        Kind::InvalidType(found, what) => format!("found {}, expected {}", shown(found), expected(what)),
        Kind::InvalidValue(found, what) => format!("found {}, expected {}", shown(found), expected(what)),
        Kind::UnknownVariant(found, known) => format!("`{found}` is none of {}", known.join(", ")),
        other => other.to_string(),
    }
}

/// A TOML error in one line, without the lines that quote the file.
fn without_excerpt(error: &str) -> String {
    let quotes = |line: &&str| !line.trim_start_matches(|c: char| c == ' ' || c.is_ascii_digit()).starts_with('|');
    let lines: Vec<&str> = error.lines().filter(quotes).map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("; ")
}

fn located(figment: &Figment, key: &str) -> String {
    let origin = origin(figment, key).or_else(|| origin(figment, &format!("{key}_file")));
    format!("`{key}`{}", origin.map_or_else(String::new, |origin| format!(" ({origin})")))
}

/// Where a key was set; `None` for a default.
fn origin(figment: &Figment, key: &str) -> Option<String> {
    let metadata = match figment.find_metadata(key) {
        Some(metadata) => metadata,
        // A property's name has dots of its own, which a path would split.
        None => {
            let properties = figment.find_value("kafka.properties").ok()?.into_dict()?;
            let value = properties.get(key.strip_prefix("kafka.properties.")?)?;
            figment.get_metadata(value.tag())?
        }
    };
    (metadata.name != defaults_name()).then(|| describe(metadata, key))
}

fn defaults_name() -> String {
    rocket::figment::Provider::metadata(&defaults()).name.into_owned()
}

/// Where a value of a key came from: a file, or a variable by its name.
fn describe(metadata: &Metadata, key: &str) -> String {
    match &metadata.source {
        Some(Source::File(path)) => path.display().to_string(),
        _ if metadata.name.contains("FOOTFALL_") => {
            // One variable may hold the whole table.
            let tables = [key, key.rsplit_once('.').map_or(key, |(table, _)| table), "kafka.properties"];
            let names = tables.map(|key| format!("FOOTFALL_{}", key.replace('.', "__").to_ascii_uppercase()));
            let set = names.iter().find(|name| std::env::var_os(name).is_some()).cloned();
            // Of a table that is not known only the beginning is at hand.
            let begins = |name: &String| name.starts_with(&names[0]);
            let set = set.or_else(|| std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).find(begins));
            format!("environment variable {}", set.unwrap_or_else(|| names[0].clone()))
        }
        _ if key == "kafka.topic" => "environment variable KAFKA_TOPIC".into(),
        _ if key == "kafka.bootstrap_servers" => "environment variable KAFKA_BOOTSTRAP_SERVERS".into(),
        _ => metadata.name.replace('`', ""),
    }
}

fn bounded(figment: &Figment, key: &str, value: u64, least: u64, most: u64) -> Result<(), Invalid> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Invalid(format!("{}: expected {least} to {most}, not {value}", located(figment, key))))
}

fn within(figment: &Figment, key: &str, value: Duration, least: &str, most: &str) -> Result<(), Invalid> {
    let bound = |text| parse_duration(text).unwrap_or_default();
    if (bound(least)..=bound(most)).contains(&value) {
        return Ok(());
    }
    Err(Invalid(format!("{}: expected {least} to {most}, not {value:?}", located(figment, key))))
}

fn from_file(figment: &Figment, key: &str, secret: &mut Secret, file: Option<&PathBuf>) -> Result<(), Invalid> {
    let Some(file) = file else { return Ok(()) };
    let place = format!("{key}_file");
    if !secret.reveal().is_empty() {
        return Err(Invalid(format!("{}: `{key}` is set too; give one of them", located(figment, &place))));
    }
    let text = std::fs::read_to_string(file)
        .map_err(|e| Invalid(format!("{}: cannot read {}: {e}", located(figment, &place), file.display())))?;
    *secret = Secret(text.trim_end_matches(['\r', '\n']).to_owned());
    Ok(())
}
