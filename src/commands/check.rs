//! `footfall check`: prints every setting with its origin. Makes the Kafka client's configuration and reads the
//! certificate of HTTPS, but does not connect.

use std::process::ExitCode;

use footfall::config::{self, Settings};
use footfall::kafka::Connection;
use footfall::{Tls, check_tracker, load_tls};
use rocket::figment::Figment;

use super::{misconfigured, print, report};

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
    if let Err(error) = check_tracker(figment, &settings.ingest) {
        return misconfigured(error);
    }
    match load_tls(figment, &settings.tls) {
        Ok(tls) => {
            tls.as_ref().and_then(Tls::warning).into_iter().for_each(|warning| report(format!("warning: {warning}")))
        }
        Err(error) => return misconfigured(error),
    }
    let not_asked = match settings.kafka.embedded() {
        true => "",
        false => "; whether Kafka answers was not asked: `footfall topics` does that",
    };
    print(&format!("{out}the configuration is valid{not_asked}\n"))
}
