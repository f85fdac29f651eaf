//! `[default.log]`: logging to standard output.

use serde::{Deserialize, Serialize};

use super::InvalidValue;
use super::table::settings;

settings! {
    "log";
    /// Logging, to standard output.
    pub struct LogSettings {
        /// `text`, `json`, or `auto`: text on a terminal, JSON elsewhere.
        pub format: LogFormat = LogFormat::Auto;
        /// `error`, `warn`, `info`, `debug` or `trace`, or directives such as `info,footfall::kafka=debug`.
        pub level: String = "info".into();
        /// Whether Footfall logs one line for each request.
        pub requests: bool = true;
    }
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    Text,
    Json,
}

impl LogSettings {
    pub(super) fn check(&self) -> Result<(), InvalidValue> {
        match tracing_subscriber::EnvFilter::try_new(&self.level) {
            Ok(_) => Ok(()),
            Err(_) => {
                let why = format!("`{}` is not a level; expected error, warn, info, debug or trace", self.level);
                InvalidValue::because("log.level", why)
            }
        }
    }
}
