//! Where a value came from, and what is wrong with it: the texts of `footfall check` and of errors.

use rocket::figment::error::{Actual, Kind as ErrorKind};
use rocket::figment::value::Value;
use rocket::figment::{Figment, Metadata, Source};

use super::table::SettingKind;
use super::{InvalidConfig, Settings, all_keys, config_file, defaults, environment};

/// Returns every setting as its key, its value and where the value came from. Secrets are not shown.
pub fn explain_all(figment: &Figment, settings: &Settings) -> Vec<(String, String, String)> {
    let values = Value::serialize(settings).unwrap_or_else(|_| Value::from(false));
    let from = |path: &str| origin(figment, path).or_else(|| origin(figment, &format!("{path}_file")));
    let line = |path: String, value| {
        let origin = from(&path).unwrap_or_else(|| "default".into());
        (path, value, origin)
    };
    let mut lines = Vec::new();
    for (path, key) in all_keys() {
        let Some(value) = values.find_ref(&path) else { continue };
        match (key.kind, value) {
            (SettingKind::Properties, Value::Dict(_, properties)) => {
                lines.extend(properties.keys().map(|property| line(format!("{path}.{property}"), "…".into())));
            }
            _ => lines.push(line(path, key.show(value))),
        }
    }
    lines.sort();
    lines
}

/// Turns an error of figment into one line that names the key, its origin and what was expected.
pub(super) fn explain(figment: &Figment, error: rocket::figment::Error) -> InvalidConfig {
    let Some(first) = error.into_iter().next() else { return InvalidConfig("could not be read".into()) };
    let mut path = first.path.join(".");
    if let ErrorKind::UnknownField(field, known) = &first.kind {
        if !path.ends_with(field.as_str()) {
            path = format!("{path}.{field}");
        }
        let origin = origin(figment, &path).map_or_else(String::new, |origin| format!(" ({origin})"));
        return InvalidConfig(format!("`{path}`{origin} is not known; expected one of {}", known.join(", ")));
    }
    if path.is_empty() {
        return InvalidConfig(match &first.metadata {
            Some(metadata) => format!("{} ({})", first.kind, describe(metadata, "")),
            // Only a file that is not TOML has no metadata. Its error quotes the line, which may hold a secret.
            None => format!("{}: {}", config_file(), without_excerpt(&first.kind.to_string())),
        });
    }
    let mut words = in_words(&first.kind, path.starts_with("kafka"));
    if path == "address" {
        words.push_str("; expected an IP address, such as 127.0.0.1 or 0.0.0.0");
    }
    InvalidConfig(format!("{}: {words}", located(figment, &path)))
}

/// Says what was found and what was expected in an operator's words: serde names Rust's types. A value that may be secret is
/// not shown.
fn in_words(kind: &ErrorKind, secret: bool) -> String {
    let expected = |what: &str| match what {
        "u16" => "a whole number from 0 to 65535".into(),
        "u8" | "u32" | "u64" | "usize" => "a whole number that is not negative".into(),
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
        ErrorKind::InvalidType(found, what) => format!("found {}, expected {}", shown(found), expected(what)),
        ErrorKind::InvalidValue(found, what) => format!("found {}, expected {}", shown(found), expected(what)),
        ErrorKind::UnknownVariant(found, known) => format!("`{found}` is none of {}", known.join(", ")),
        other => other.to_string(),
    }
}

/// Puts a TOML error into one line, without the lines that quote the file.
fn without_excerpt(error: &str) -> String {
    let quotes = |line: &&str| !line.trim_start_matches(|c: char| c == ' ' || c.is_ascii_digit()).starts_with('|');
    let lines: Vec<&str> = error.lines().filter(quotes).map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("; ")
}

/// Names a key as errors do: with where it was set.
pub(super) fn located(figment: &Figment, key: &str) -> String {
    let origin = origin(figment, key).or_else(|| origin(figment, &format!("{key}_file")));
    format!("`{key}`{}", origin.map_or_else(String::new, |origin| format!(" ({origin})")))
}

/// Returns where a key was set; `None` for a default.
fn origin(figment: &Figment, key: &str) -> Option<String> {
    let metadata = match figment.find_metadata(key) {
        Some(metadata) => metadata,
        // The name of a property contains dots, at which figment would split the path.
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

/// Names the source of a key's value: a file or a variable.
pub(super) fn describe(metadata: &Metadata, key: &str) -> String {
    match &metadata.source {
        Some(Source::File(path)) => path.display().to_string(),
        _ if metadata.name.contains("FOOTFALL_") => {
            // One variable may hold the whole table.
            let tables = [key, key.rsplit_once('.').map_or(key, |(table, _)| table), "kafka.properties"];
            let names = tables.map(|key| format!("FOOTFALL_{}", key.replace('.', "__").to_ascii_uppercase()));
            let set = names.iter().find(|name| std::env::var_os(name).is_some()).cloned();
            // An unknown table is only known by the beginning of the variable's name.
            let begins = |name: &String| name.starts_with(&names[0]);
            let set = set.or_else(|| std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).find(begins));
            format!("environment variable {}", set.unwrap_or_else(|| names[0].clone()))
        }
        _ if metadata.name.contains("ROCKET_") => {
            let table = key.split('.').next().unwrap_or(key);
            format!("environment variable ROCKET_{}", table.to_ascii_uppercase())
        }
        _ => match environment::alias_of(key) {
            Some(variable) => format!("environment variable {variable}"),
            None => metadata.name.replace('`', ""),
        },
    }
}
