//! `footfall serve` and `footfall demo`.

use std::fs::File;
use std::future::pending;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::process::ExitCode;

use footfall::config::Settings;
use footfall::demo::Traffic;
use rocket::figment::Figment;
use tokio::sync::oneshot;
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
        let (embedded, ephemeral) = (settings.kafka.embedded(), settings.ephemeral);
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
            if ephemeral {
                return tokio::select! {
                    () = asked_to_end() => {}
                    () = input_closed() => tracing::info!("standard input was closed"),
                };
            }
            let Some(traffic) = traffic else { return asked_to_end().await };
            let Traffic { rate, users } = traffic;
            tracing::warn!(rate, users, "demo: events are generated, and each has \"demo\":true");
            traffic.run(&ingest, asked_to_end()).await;
        };
        let code = match parts.serve(rocket, inherited, ephemeral.then_some(announce), stop).await {
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

/// Prints the address for the program that has started this process. A line that cannot be written is lost.
fn announce(url: &str) {
    let mut output = io::stdout();
    let _ = writeln!(output, "{}", serde_json::json!({ "url": url })).and_then(|()| output.flush());
}

/// Resolves when the standard input ends, if it is a pipe or a socket: then the program that has started this process has
/// ended, or wants this process to end.
async fn input_closed() {
    let input = File::from(match io::stdin().as_fd().try_clone_to_owned() {
        Ok(input) => input,
        Err(_) => return pending().await,
    });
    let kind = input.metadata().map(|metadata| metadata.file_type());
    if !kind.is_ok_and(|kind| kind.is_fifo() || kind.is_socket()) {
        return pending().await;
    }
    let (ended, end) = oneshot::channel();
    let read = move || {
        let _ = io::copy(&mut &input, &mut io::sink());
        let _ = ended.send(()); // fails if the process ends already
    };
    match std::thread::Builder::new().name("input".into()).spawn(read) {
        Ok(_) => drop(end.await),
        Err(_) => pending().await,
    }
}
