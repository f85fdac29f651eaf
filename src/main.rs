//! The command line: arguments, and which command runs. Exit codes: 0 done, 1 failed while running, 2 wrong configuration or
//! arguments. `send` and `tail` have more.

mod commands;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use footfall::config::{self, Settings};
use footfall::demo::Traffic;
use footfall::kafka::Options;
use footfall::telemetry;

use commands::{OutputFormat, check, consume, describe, groups, healthcheck, send, serve, tail, topics};

/// User-activity events in, live feed out, on Apache Kafka.
#[derive(Parser)]
#[command(
    name = "footfall",
    version = env!("FOOTFALL_VERSION"),
    about,
    after_help = "Configuration: Rocket.toml, FOOTFALL_<TABLE>__<KEY>, KAFKA_BOOTSTRAP_SERVERS, KAFKA_TOPIC.\n\
    `footfall check` shows every value and where it came from."
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the page and the API (the default)
    Serve {
        /// Be a test double for tracking: on a free port, with a broker in memory that `DELETE /api/v1/events` empties. When
        /// ready, print {"url":"http://127.0.0.1:PORT"} to standard output; the log goes to standard error
        #[arg(long)]
        ephemeral: bool,
    },
    /// Serve, with made-up events of a small shop
    Demo {
        /// Events per second on average: 0.1 to 10000
        #[arg(long, default_value = "20", value_parser = rate)]
        rate: f64,
        /// Number of users: 1 to 1000000
        #[arg(long, default_value = "200", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        users: u32,
    },
    /// Send the lines of a file or of standard input as events, to a running server
    ///
    /// Exit codes: 0 every line is written, 1 some were rejected and the others are written, 2 wrong arguments, 3 the end of
    /// the input was not reached: run it again.
    Send(Box<send::SendOptions>),
    /// Print the events of a running server as they arrive, across broken connections and restarts
    ///
    /// Exit codes: 0 ended as asked, 1 cannot write, 2 wrong arguments, 3 the server refused the request, or no connection
    /// within --give-up-after, 4 records are missing (--fail-on-gap).
    Tail(Box<tail::TailOptions>),
    /// Print the topic's records as a member of a consumer group, one per line, at least once
    Consume {
        /// Members of the same group share the partitions
        #[arg(long, default_value = "user_activity_group", value_parser = clap::builder::NonEmptyStringValueParser::new())]
        group: String,
        /// Read everything again, including what the group has read
        #[arg(long)]
        from_beginning: bool,
        /// `text`: time, partition, offset, key and value, between tabs; `json`: the whole record
        #[arg(long, value_enum, default_value = "text")]
        format: OutputFormat,
    },
    /// List the topics with their partitions and the records they hold
    Topics {
        #[arg(long, value_enum, default_value = "text")]
        format: OutputFormat,
    },
    /// List the consumer groups with their state, members and lag
    Groups {
        /// `text`: a table; `json`: one JSON object per group and line
        #[arg(long, value_enum, default_value = "text")]
        format: OutputFormat,
    },
    /// Validate the configuration without asking Kafka, and show every value and where it came from
    Check,
    /// Ask the server with this configuration whether it is alive; for containers
    Healthcheck,
    /// Print a script that completes commands and options in a shell
    Completions { shell: Shell },
    /// Print the manual page, in roff
    Man,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.1..=10_000.0).contains(rate));
    rate.ok_or_else(|| "expected 0.1 to 10000 events per second".to_owned())
}

fn main() -> ExitCode {
    let command = Cli::parse().command.unwrap_or(Command::Serve { ephemeral: false });
    // These need no configuration.
    let command = match command {
        Command::Completions { shell } => return describe::completions(Cli::command(), shell),
        Command::Man => return describe::man(Cli::command()),
        Command::Send(options) => return send::run(*options),
        Command::Tail(options) => return tail::run(*options),
        command => command,
    };
    let is_ephemeral = matches!(command, Command::Serve { ephemeral: true });
    let mut figment = config::figment();
    if is_ephemeral {
        figment = config::ephemeral(figment);
    }
    let settings = Settings::extract(&figment);
    let settings = match settings.and_then(|it| if is_ephemeral { it.into_ephemeral(&figment) } else { Ok(it) }) {
        Ok(settings) => settings,
        Err(error) => return commands::misconfigured(error),
    };
    let logs_to_stdout = matches!(command, Command::Serve { ephemeral: false } | Command::Demo { .. });
    let logs = telemetry::install_logs(&settings.log, !logs_to_stdout);
    match command {
        Command::Serve { .. } => serve::run(figment, settings, None, logs),
        Command::Demo { rate, users } => serve::run(figment, settings, Some(Traffic { rate, users }), logs),
        Command::Check => check::run(&figment, &settings),
        Command::Healthcheck => healthcheck::run(&figment, &settings),
        Command::Consume { group, from_beginning, format } => {
            consume::run(&settings, Options { group, from_beginning }, format)
        }
        Command::Topics { format } => topics::run(&settings, format),
        Command::Groups { format } => groups::run(&settings, format),
        Command::Completions { .. } | Command::Man | Command::Send(_) | Command::Tail(_) => ExitCode::SUCCESS, // ran above
    }
}
