//! Logs and metrics: installed once, before anything that logs or counts.

mod logs;
mod metrics;

pub use logs::install as install_logs;
pub use metrics::{Metrics, RequestLabels, Sources};
