//! The subcommands, a file for each: what runs after the arguments and the configuration are known to be valid.
//!
//! A command returns the exit code: 0 done, 1 failed while running, [`USAGE`] wrong configuration or arguments. `send` and
//! `tail` have more.

pub mod check;
mod client;
pub mod consume;
pub mod describe;
pub mod groups;
pub mod healthcheck;
pub mod send;
pub mod serve;
mod signals;
mod state;
pub mod tail;
pub mod topics;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;
use footfall::config::Settings;
use footfall::event::time::parse_duration;
use footfall::kafka::Connection;
use serde::Serialize;

/// The exit code for wrong configuration or arguments.
pub const USAGE: u8 = 2;

/// How a command prints its results.
#[derive(Clone, Copy, ValueEnum)]
pub enum OutputFormat {
    Text,
    Json,
}

/// Parses a duration of the command line.
fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "expected a duration such as 500ms, 30s, 5m or 1h".to_owned())
}

/// Writes a message to standard error, if that can be written.
pub fn report(message: impl Display) {
    let _ = writeln!(io::stderr(), "footfall: {message}");
}

/// Reports an error and returns the exit code for it.
pub fn fail(error: impl Display) -> ExitCode {
    report(&error);
    ExitCode::FAILURE
}

/// Reports a wrong configuration and returns the exit code for it.
pub fn misconfigured(error: impl Display) -> ExitCode {
    report(&error);
    ExitCode::from(USAGE)
}

/// Writes text to standard output. A closed pipe is no error: its reader wants no more.
fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => fail(error),
        _ => ExitCode::SUCCESS,
    }
}

/// Prints each item as a line of JSON.
fn print_json(items: &[impl Serialize]) -> ExitCode {
    let lines = items.iter().filter_map(|item| serde_json::to_string(item).ok());
    print(&lines.map(|line| line + "\n").collect::<String>())
}

/// Connects to the Kafka that is configured. Reports why if that is impossible.
fn connect(settings: &Settings) -> Result<Connection, ExitCode> {
    if settings.kafka.embedded() {
        return Err(misconfigured(
            "no Kafka is configured: set KAFKA_BOOTSTRAP_SERVERS, such as 127.0.0.1:9092 (the embedded broker exists only \
             inside a running `footfall serve`)",
        ));
    }
    Connection::new(&settings.kafka).map_err(misconfigured)
}
