//! Structured log lines on standard output: text for a terminal, one JSON object a line for everything else.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogFormat, LogSettings};

/// Installs the process's subscriber; a second call changes nothing. `to_stderr` keeps standard output for a command's
/// own result.
pub fn install(settings: &LogSettings, to_stderr: bool) {
    // The level was checked with the other settings. Rocket logs every request in several lines of its own.
    let quiet = "rocket=error,_=error,hyper=error,rdkafka=error";
    let filter = EnvFilter::try_new(format!("{quiet},{}", settings.level)).unwrap_or_else(|_| EnvFilter::new("info"));
    let terminal = if to_stderr { std::io::stderr().is_terminal() } else { std::io::stdout().is_terminal() };
    let json = match settings.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !terminal,
    };
    // A line that cannot be written (a full disk, a closed pipe) is lost. To say so on standard error ends whoever logs, if
    // that cannot be written either.
    let builder = tracing_subscriber::fmt().log_internal_errors(false);
    let builder = builder.with_env_filter(filter).with_target(false).with_ansi(terminal);
    let _ = match (json, to_stderr) {
        (true, false) => builder.json().flatten_event(true).with_current_span(false).finish().try_init(),
        (true, true) => {
            builder.json().flatten_event(true).with_current_span(false).with_writer(std::io::stderr).finish().try_init()
        }
        (false, false) => builder.finish().try_init(),
        (false, true) => builder.with_writer(std::io::stderr).finish().try_init(),
    };
    // Rocket's lines below this level would only be formatted to be thrown away.
    log::set_max_level(log::LevelFilter::Warn);
}
