//! Generates `Rocket.toml` and the tables of `docs/configuration.md`. The tests fail if the committed files differ.

use std::path::Path;

use rocket::figment::Figment;
use rocket::figment::providers::{Format, Toml};
use rocket::figment::value::Value;

use super::{ROCKET, SettingKey, SettingKind, Settings, TABLES, Table, all_keys, rocket_keys};

const BEGIN: &str = "<!-- generated from src/config: begin -->\n";
const END: &str = "<!-- generated from src/config: end -->\n";

const ROCKET_TOML_HEAD: &str = "\
# Footfall starts without this file. A line that starts with `#` and a key shows the default of that key: remove the `#` to
# set it. The environment takes precedence: FOOTFALL_<TABLE>__<KEY>, such as FOOTFALL_KAFKA__TOPIC=clicks, and ROCKET_<KEY>
# for the keys in [default]. `footfall check` shows every value and where it came from.
# This file is generated from src/config.

[default]
";

fn read(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("a file of the project")
}

/// Fails if a file differs from this text. With the variable `UPDATE`, writes the text first.
fn assert_current(file: &str, text: &str) {
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(file), text).expect("the file can be written");
    }
    let is_current = read(file) == text;
    assert!(is_current, "{file} is stale; write it with: UPDATE=1 cargo test --lib config::reference");
}

fn default(table: &Table, key: &SettingKey) -> String {
    let value = match table.name {
        "" => Value::serialize(rocket_keys::defaults()).expect("values").find(key.name),
        name => Value::serialize(Settings::default()).expect("values").find(&format!("{name}.{}", key.name)),
    };
    let value = value.unwrap_or_else(|| panic!("{} has no default", key.name));
    match key.kind {
        SettingKind::Size => format!("{:?}", key.show(&value)),
        SettingKind::Names => "[]".into(),
        SettingKind::Properties => "{}".into(),
        SettingKind::Switch if matches!(value, Value::Empty(..)) => "false".into(),
        _ if matches!(value, Value::Empty(..)) => "\"\"".into(),
        _ => key.show(&value),
    }
}

fn bounds(key: &SettingKey) -> Option<String> {
    key.bounds.map(|[least, most]| format!("{} to {}", grouped(least), grouped(most)))
}

/// A number with commas between its thousands; any other text as it is.
fn grouped(text: &str) -> String {
    let mut out = String::new();
    for (index, c) in text.char_indices() {
        if index > 0 && (text.len() - index).is_multiple_of(3) && text.bytes().all(|b| b.is_ascii_digit()) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

fn rocket_toml() -> String {
    let mut out = ROCKET_TOML_HEAD.to_owned();
    for table in std::iter::once(&ROCKET).chain(TABLES) {
        if !table.name.is_empty() {
            out += &format!("\n[default.{}]\n", table.name);
        }
        for key in table.values() {
            if key.kind == SettingKind::Properties {
                out += &format!("\n[default.{}.{}]\n", table.name, key.name);
            }
            key.doc.iter().for_each(|line| out += &format!("#{line}\n"));
            if let Some(bounds) = bounds(key) {
                out += &format!("# From {bounds}.\n");
            }
            if key.kind != SettingKind::Properties {
                out += &format!("#{} = {}\n", key.name, default(table, key));
            }
        }
    }
    out
}

fn reference() -> String {
    let mut out = String::new();
    for table in std::iter::once(&ROCKET).chain(TABLES) {
        let (title, prefix) = match table.name {
            "" => ("Rocket's keys".to_owned(), String::new()),
            name => (format!("`{name}`"), format!("{name}.")),
        };
        let about = table.about.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
        out += &format!("\n## {title}\n\n{about}\n\n| key | default | bounds | meaning |\n|---|---|---|---|\n");
        for key in table.values() {
            let meaning = key.doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
            let (default, bounds) = (default(table, key), bounds(key).unwrap_or_default());
            out += &format!("| `{prefix}{}` | `{default}` | {bounds} | {meaning} |\n", key.name);
        }
    }
    out + "\n"
}

#[test]
fn the_commented_rocket_toml_is_current() {
    assert_current("Rocket.toml", &rocket_toml());
}

#[test]
fn the_configuration_reference_is_current() {
    let document = read("docs/configuration.md");
    let (before, rest) = document.split_once(BEGIN).expect("the mark where the tables begin");
    let (_, after) = rest.split_once(END).expect("the mark where the tables end");
    assert_current("docs/configuration.md", &format!("{before}{BEGIN}{}{END}{after}", reference()));
}

/// A line of `Rocket.toml` that shows a default, without its `#`.
fn uncommented(line: &str) -> &str {
    match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest,
        _ => line,
    }
}

#[test]
fn every_default_of_the_rocket_toml_is_the_default() {
    let file = rocket_toml();
    let whole: Vec<&str> = file.lines().map(uncommented).collect();
    let figment = Figment::from(rocket::Config::default()).merge(Toml::string(&whole.join("\n")).nested());
    let read = Settings::extract(&figment).expect("valid settings");
    assert_eq!(Value::serialize(&read), Value::serialize(Settings::default()));
    let read: rocket::Config = figment.extract().expect("Rocket's keys");
    let expected = rocket_keys::defaults();
    assert_eq!((read.address, read.port), (expected.address, expected.port));
    assert_eq!((read.keep_alive, read.ip_header), (expected.keep_alive, expected.ip_header));
}

#[test]
fn every_setting_has_a_description() {
    let settings = Value::serialize(Settings::default()).expect("values").into_dict().expect("tables");
    let mut serialised = Vec::new();
    for (table, keys) in settings {
        for (key, value) in keys.into_dict().expect("keys") {
            match value.into_dict().filter(|below| !below.is_empty()) {
                Some(below) => serialised.extend(below.into_keys().map(|name| format!("{table}.{key}.{name}"))),
                None => serialised.push(format!("{table}.{key}")),
            }
        }
    }
    let mut described: Vec<String> = all_keys().map(|(key, _)| key).collect();
    described.sort();
    assert_eq!(described, serialised);
}
