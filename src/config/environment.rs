//! Settings from environment variables: `FOOTFALL_<TABLE>__<KEY>`, and a few with shorter names.

use rocket::figment::providers::Env;
use rocket::figment::util::nest;
use rocket::figment::value::{Dict, Map, Value};
use rocket::figment::{Metadata, Profile, Provider};

use super::table::SettingKind;
use super::{InvalidConfig, key};

/// How the names of Footfall's variables begin.
const OURS: &str = "FOOTFALL_";

/// Variables with shorter names, and the settings that they set.
const ALIASES: [(&str, &str); 3] = [
    ("KAFKA_BOOTSTRAP_SERVERS", "kafka.bootstrap_servers"),
    ("KAFKA_TOPIC", "kafka.topic"),
    ("FOOTFALL_BASE_PATH", "http.base_path"),
];

/// Variables with the prefix that are not settings: `footfall send` and `footfall tail` read them.
const OF_CLIENTS: [&str; 2] = ["FOOTFALL_URL", "FOOTFALL_TOKEN"];

/// The variables as providers of settings, in the order in which a later one wins.
pub(super) fn providers() -> impl Iterator<Item = Variables> {
    let aliases = ALIASES.map(|(variable, key)| Variables(Env::raw().only(&[variable]).map(move |_| key.into())));
    let is_other = |name: &str| OF_CLIENTS.contains(&name) || ALIASES.iter().any(|(alias, _)| *alias == name);
    let ours =
        Env::prefixed(OURS).filter(move |key| !is_other(&format!("{OURS}{key}").to_ascii_uppercase())).split("__");
    std::iter::once(Variables(ours)).chain(aliases)
}

/// The variable beside `FOOTFALL_<TABLE>__<KEY>` that sets a key.
pub(super) fn alias_of(key: &str) -> Option<&'static str> {
    ALIASES.iter().find(|(_, of)| *of == key).map(|(variable, _)| *variable)
}

/// Variables that apply to all profiles. The text of a text setting is its value; figment alone would read `0123` as a
/// number and `[x]` as a list.
pub(super) struct Variables(Env);

impl Provider for Variables {
    fn metadata(&self) -> Metadata {
        self.0.metadata()
    }

    fn data(&self) -> Result<Map<Profile, Dict>, rocket::figment::Error> {
        let variables = self.0.iter().map(|(key, value)| (key.as_str().to_owned(), value));
        Ok(Profile::Global.collect(settings_of(variables)))
    }
}

/// The settings that keys and the texts of their variables make.
pub(super) fn settings_of(variables: impl Iterator<Item = (String, String)>) -> Dict {
    let mut settings = Dict::new();
    for (key, text) in variables {
        let value = match kind(&key) {
            Some(SettingKind::Secret) => Value::from(text),
            Some(SettingKind::Text | SettingKind::Duration) => Value::from(text.trim()),
            _ => text.parse().unwrap_or_else(|never| match never {}),
        };
        merge(&mut settings, nest(&key, value).into_dict().unwrap_or_default());
    }
    settings
}

/// The kind of a key's value. A property of librdkafka may be a secret.
fn kind(path: &str) -> Option<SettingKind> {
    match path.starts_with("kafka.properties.") {
        true => Some(SettingKind::Secret),
        false => key(path).map(|key| key.kind),
    }
}

fn merge(into: &mut Dict, from: Dict) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Dict(_, table)), Value::Dict(_, more)) => merge(table, more),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// Refuses variables that are not UTF-8. figment would replace bytes of them.
pub(super) fn refuse_illegible() -> Result<(), InvalidConfig> {
    for (name, value) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let is_ours = [OURS, "ROCKET_"].iter().any(|prefix| name.starts_with(prefix))
            || ALIASES.iter().any(|(alias, _)| *alias == name);
        if is_ours && value.to_str().is_none() {
            return Err(InvalidConfig(format!("the environment variable {name} is not UTF-8")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rocket::data::ByteUnit;
    use rocket::figment::Figment;
    use rocket::figment::providers::Serialized;

    use super::*;
    use crate::config::{LogFormat, Settings, defaults};

    fn settings(variables: &[(&str, &str)]) -> Settings {
        let given = settings_of(variables.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let figment = Figment::from(defaults()).merge(Serialized::from(given, Profile::Global));
        figment.extract().unwrap_or_else(|error| panic!("{variables:?}: {error}"))
    }

    #[test]
    fn a_text_setting_is_the_text_of_its_variable() {
        for text in ["0123", "1e3", "true", "[x]", "\"x\"", "'x'", "{a=1}", " two words ", "", "-", "0x1F", "ü"] {
            let variables = [
                ("kafka.sasl_password", text),
                ("kafka.ssl_key_password", text),
                ("kafka.sasl_username", text),
                ("kafka.topic", text),
                ("kafka.properties.retries", text),
                ("kafka.ssl_ca_location", text),
                ("ingest.source", text),
                ("log.level", text),
            ];
            let Settings { kafka, ingest, log, .. } = settings(&variables);
            assert_eq!((kafka.sasl_password.reveal(), kafka.ssl_key_password.reveal()), (text, text));
            assert_eq!(kafka.properties["retries"].0, text);
            let others = [kafka.sasl_username, kafka.topic, kafka.ssl_ca_location, ingest.source, log.level];
            assert!(others.iter().all(|other| other == text.trim()), "{others:?}");
            let file = settings(&[("kafka.sasl_password_file", text)]).kafka.sasl_password_file;
            assert_eq!(file, Some(PathBuf::from(text.trim())));
        }
    }

    #[test]
    fn a_setting_that_is_not_text_is_parsed_by_figment() {
        let read = settings(&[
            ("feed.events", " 600"),
            ("feed.heartbeat", "20s"),
            ("feed.bytes", "16MiB"),
            ("kafka.create_topic", "false"),
            ("http.hosts", r#"["a.example", "b.example"]"#),
            ("log.format", "json"),
            ("kafka.properties", r#"{"client.rack"="0123"}"#),
            ("kafka.properties.debug", "all"),
        ]);
        assert_eq!((read.feed.events, read.feed.heartbeat.as_secs()), (600, 20));
        assert_eq!((read.feed.bytes, read.kafka.create_topic), (ByteUnit::Mebibyte(16), false));
        assert_eq!(
            (format!("{:?}", Value::serialize(&read.http.hosts).ok().and_then(Value::into_string)), read.log.format),
            (r#"Some("a.example, b.example")"#.into(), LogFormat::Json)
        );
        assert_eq!(read.kafka.properties.len(), 2);
        assert_eq!(read.kafka.properties["client.rack"].0, "0123");
    }
}
