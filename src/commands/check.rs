//! `footfall check`: prints every setting with its origin. Makes the Kafka client's configuration, but does not connect.

use std::process::ExitCode;

use footfall::config::{self, Settings};
use footfall::kafka::Connection;
use rocket::figment::Figment;

use super::{misconfigured, print};

pub fn run(figment: &Figment, settings: &Settings) -> ExitCode {
    let lines = config::explain_all(figment, settings);
    let width = |pick: fn(&(String, String, String)) -> usize| lines.iter().map(pick).max().unwrap_or(0);
    let (keys, values) = (width(|line| line.0.len()), width(|line| line.1.chars().count().min(40)));
    let mut out = String::new();
    for (key, value, origin) in &lines {
        out.push_str(&format!("{key:keys$}  {value:values$}  {origin}\n"));
    }
    if let Err(error) = Connection::check(&settings.kafka) {
        return misconfigured(error);
    }
    let not_asked = match settings.kafka.embedded() {
        true => "",
        false => "; whether Kafka answers was not asked: `footfall topics` does that",
    };
    print(&format!("{out}the configuration is valid{not_asked}\n"))
}
