//! `footfall serve` and `footfall demo`.

use std::process::ExitCode;

use footfall::config::Settings;
use footfall::demo::Traffic;
use rocket::figment::Figment;
use tracing_appender::non_blocking::WorkerGuard;

use super::signals::asked_to_end;
use super::{misconfigured, report};

/// Serves until a signal asks the process to end; with `traffic`, also submits made-up events.
pub fn run(figment: Figment, settings: Settings, traffic: Option<Traffic>, logs: WorkerGuard) -> ExitCode {
    // Before the threads of librdkafka, which read the environment.
    let inherited = match footfall::inherited_socket() {
        Ok(inherited) => inherited,
        Err(error) => return misconfigured(format_args!("LISTEN_FDS: {error}")),
    };
    rocket::async_main(async move {
        let embedded = settings.kafka.embedded();
        let (rocket, parts) = match footfall::rocket(figment, settings) {
            Ok(built) => built,
            Err(error) => return misconfigured(error),
        };
        if embedded {
            tracing::warn!(
                kafka.servers = parts.servers(),
                "embedded broker: events are kept in memory until the process ends"
            );
        }
        let ingest = parts.ingest();
        let stop = async move {
            let Some(traffic) = traffic else { return asked_to_end().await };
            let Traffic { rate, users } = traffic;
            tracing::warn!(rate, users, "demo: events are generated, and each has \"demo\":true");
            traffic.run(&ingest, asked_to_end()).await;
        };
        let code = match parts.serve(rocket, inherited, stop).await {
            Ok(()) => 0,
            Err(error) => {
                report(&error);
                1
            }
        };
        drop(logs);
        // Dropping the runtime would wait for reads of Kafka whose results are no longer needed.
        std::process::exit(code)
    })
}
