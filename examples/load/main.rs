//! The load of `dev/bench`: raw TCP, thousands of connections, and a check of every frame on a sample of them.
//!
//! Each run prints one JSON object. Exit code 1 if the run failed, or if something was missing, doubled or out of order.

mod behind;
mod fanout;
mod heads;
mod http;
mod idle;
mod ingest;
mod lone;
mod publish;
mod sse;
mod stats;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde_json::Value;

#[derive(Parser)]
struct Cli {
    /// Threads of this load
    #[arg(long, global = true, default_value_t = 4)]
    threads: usize,
    #[command(subcommand)]
    run: Run,
}

#[derive(Subcommand)]
enum Run {
    /// Posts one request after the other on each connection
    Ingest(ingest::Ingest),
    /// Publishes at a fixed rate and counts what all streams get
    Fanout(fanout::Fanout),
    /// Posts now and then to an idle server with one open stream
    Lone(lone::Lone),
    /// Fills the topic while the server is stopped, and times how fast it reads afterwards
    Tail(behind::Tail),
    /// Lets clients come back far behind
    Catchup(behind::CatchUp),
    /// Searches the topic for what is not there
    History(behind::History),
    /// Only fills the topic
    Fill(behind::Fill),
    /// Opens streams and looks at the server's memory
    Idle(idle::Idle),
    /// Posts and reads beside connections whose heads never end
    Heads(heads::Heads),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(cli.threads).enable_all().build();
    let result = match runtime {
        Err(error) => Err(error.to_string()),
        Ok(runtime) => runtime.block_on(async {
            match cli.run {
                Run::Ingest(args) => Ok(ingest::run(args).await),
                Run::Fanout(args) => fanout::run(args).await,
                Run::Lone(args) => lone::run(args).await,
                Run::Tail(args) => behind::tail(args).await,
                Run::Catchup(args) => behind::catch_up(args).await,
                Run::History(args) => behind::history(args).await,
                Run::Fill(args) => behind::fill_topic(args).await,
                Run::Idle(args) => idle::run(args).await,
                Run::Heads(args) => heads::run(args).await,
            }
        }),
    };
    match result {
        Ok(report) => {
            println!("{report}");
            if flawless(&report) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything arrived once and in order, as far as the run checks it.
fn flawless(report: &Value) -> bool {
    let zero = |value: &Value| value.is_null() || value.as_i64() == Some(0);
    [report, &report["checked"]].iter().all(|part| {
        ["missing", "gaps", "repeats", "wrong_cursors", "told_gaps", "told_drops", "ended_early", "failed"]
            .iter()
            .all(|name| zero(&part[name]))
    })
}
