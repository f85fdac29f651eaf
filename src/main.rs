//! The command line. Exit codes: 0 done, 1 failed while running, 2 wrong configuration or arguments.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Parser, Subcommand, ValueEnum};
use footfall::config::{self, Settings};
use footfall::demo::Traffic;
use footfall::event::{Record, json, time};
use footfall::kafka::{self, Connection, Options, WorkerError};
use footfall::telemetry;
use rocket::figment::Figment;
use tracing_appender::non_blocking::WorkerGuard;

/// User-activity events in, live feed out, on Apache Kafka.
#[derive(Parser)]
#[command(
    version,
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
    Serve,
    /// Serve, with made-up events of a small shop to look at
    Demo {
        /// Events a second, on average: 0.1 to 10000
        #[arg(long, default_value = "20", value_parser = rate)]
        rate: f64,
        /// Users that they are of: 1 to 1000000
        #[arg(long, default_value = "200", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        users: u32,
    },
    /// Print the topic's records as a member of a consumer group, one a line, at least once
    Consume {
        /// Members of the same group share the partitions
        #[arg(long, default_value = "user_activity_group")]
        group: String,
        /// Read everything again, also what the group has read before
        #[arg(long)]
        from_beginning: bool,
        /// `text`: time, partition, offset, key and value, between tabs; `json`: the whole record
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// List the topics with their partitions and the records they hold
    Topics {
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// List the consumer groups with their state, members and lag
    Groups {
        /// `text`: a table; `json`: all that is known of a group, one a line
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Validate the configuration and show every value and where it came from
    Check,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.1..=10_000.0).contains(rate));
    rate.ok_or_else(|| "expected 0.1 to 10000 events a second".to_owned())
}

/// Wrong configuration or arguments.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let command = Cli::parse().command.unwrap_or(Command::Serve);
    let figment = config::figment();
    let settings = match Settings::extract(&figment) {
        Ok(settings) => settings,
        Err(error) => {
            tell(&error);
            return ExitCode::from(USAGE);
        }
    };
    let logs = telemetry::install_logs(&settings.log, !matches!(command, Command::Serve | Command::Demo { .. }));
    match command {
        Command::Serve => serve(figment, settings, None, logs),
        Command::Demo { rate, users } => serve(figment, settings, Some(Traffic { rate, users }), logs),
        Command::Check => check(&figment, &settings),
        Command::Consume { group, from_beginning, format } => {
            consume(&settings, Options { group, from_beginning }, format)
        }
        Command::Topics { format } => topics(&settings, format),
        Command::Groups { format } => groups(&settings, format),
    }
}

/// On standard error, if that can be written.
fn tell(what: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "footfall: {what}");
}

fn fail(error: impl std::fmt::Display) -> ExitCode {
    tell(&error);
    ExitCode::FAILURE
}

/// Serves, and makes traffic up if asked to, until the process is asked to end.
fn serve(figment: Figment, settings: Settings, traffic: Option<Traffic>, logs: WorkerGuard) -> ExitCode {
    rocket::async_main(async move {
        let embedded = settings.kafka.embedded();
        let (rocket, parts) = match footfall::rocket(figment, settings) {
            Ok(built) => built,
            Err(error) => {
                tell(&error);
                return ExitCode::from(USAGE);
            }
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
            tracing::warn!(rate, users, "demo: events are made up, and each says \"demo\":true");
            traffic.run(&ingest, asked_to_end()).await;
        };
        let code = match parts.serve(rocket, stop).await {
            Ok(()) => 0,
            Err(error) => {
                tell(&error);
                1
            }
        };
        drop(logs);
        // The runtime would wait for reads of Kafka that nobody waits for any more, however long they take.
        std::process::exit(code)
    })
}

/// SIGINT or SIGTERM; from then on a second one ends the process at once.
async fn asked_to_end() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        tracing::error!("signals cannot be received");
        return std::future::pending().await;
    };
    let mut next = async move || {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    next().await;
    tokio::spawn(async move {
        next().await;
        std::process::exit(130);
    });
}

fn check(figment: &Figment, settings: &Settings) -> ExitCode {
    let lines = config::explain_all(figment, settings);
    let width = |pick: fn(&(String, String, String)) -> usize| lines.iter().map(pick).max().unwrap_or(0);
    let (keys, values) = (width(|line| line.0.len()), width(|line| line.1.chars().count().min(40)));
    let mut out = String::new();
    for (key, value, origin) in &lines {
        out.push_str(&format!("{key:keys$}  {value:values$}  {origin}\n"));
    }
    if let Err(error) = Connection::check(&settings.kafka) {
        tell(&error);
        return ExitCode::from(USAGE);
    }
    print(&format!("{out}the configuration is valid\n"))
}

/// A closed pipe is the reader's way to say that it has enough.
fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => fail(error),
        _ => ExitCode::SUCCESS,
    }
}

fn connect(settings: &Settings) -> Result<Connection, ExitCode> {
    if settings.kafka.embedded() {
        tell(
            "no Kafka is configured: set KAFKA_BOOTSTRAP_SERVERS, such as 127.0.0.1:9092 (the embedded broker lives only \
             inside a running `footfall serve`)",
        );
        return Err(ExitCode::from(USAGE));
    }
    Connection::new(&settings.kafka).map_err(|error| {
        tell(&error);
        ExitCode::from(USAGE)
    })
}

fn consume(settings: &Settings, options: Options, format: Format) -> ExitCode {
    let connection = match connect(settings) {
        Ok(connection) => connection,
        Err(code) => return code,
    };
    let stop = match stop_on_signals() {
        Ok(stop) => stop,
        Err(error) => return fail(error),
    };
    let mut line = Vec::new();
    let out = std::cell::RefCell::new(BufWriter::new(io::stdout().lock()));
    let mut write = |record: &Record| {
        line.clear();
        match format {
            Format::Json => json::write(&mut line, connection.topic(), record),
            Format::Text => text(&mut line, record),
        }
        line.push(b'\n');
        out.borrow_mut().write_all(&line)
    };
    let mut flush = || out.borrow_mut().flush();
    match kafka::consume(&connection, &options, &stop, &mut write, &mut flush) {
        Err(WorkerError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => fail(error),
        Ok(()) => ExitCode::SUCCESS,
    }
}

/// Time, partition, offset, key and value, separated by tabs; what would break the line is escaped.
fn text(out: &mut Vec<u8>, record: &Record) {
    let escaped = |bytes: Option<&[u8]>| match bytes {
        None => "null".to_owned(),
        Some(bytes) => {
            let text = String::from_utf8_lossy(bytes);
            text.chars().fold(String::with_capacity(text.len()), |mut line, c| {
                match c.is_control() {
                    true => line.extend(c.escape_default()),
                    false => line.push(c),
                }
                line
            })
        }
    };
    let at = record.time_ms().map(time::format_ms).unwrap_or_default();
    let (partition, offset) = (record.partition(), record.offset());
    let line = format!("{at}\t{partition}\t{offset}\t{}\t{}", escaped(record.key()), escaped(record.value()));
    out.extend_from_slice(line.as_bytes());
}

fn topics(settings: &Settings, format: Format) -> ExitCode {
    let listed = match connect(settings) {
        Ok(connection) => kafka::topics(&connection),
        Err(code) => return code,
    };
    let list = match listed {
        Ok(list) => list,
        Err(error) => return fail(error),
    };
    if let Format::Json = format {
        let lines = list.iter().filter_map(|topic| serde_json::to_string(topic).ok());
        return print(&lines.map(|line| line + "\n").collect::<String>());
    }
    let width = list.iter().map(|topic| topic.topic.len()).max().unwrap_or(0).max("TOPIC".len());
    let mut out = format!("{:width$}  PARTITIONS  RECORDS\n", "TOPIC");
    for topic in &list {
        let records = topic.records.map_or_else(|| "?".to_owned(), |n| n.to_string());
        out.push_str(&format!("{:width$}  {:>10}  {records:>7}\n", topic.topic, topic.partitions));
    }
    print(&out)
}

fn groups(settings: &Settings, format: Format) -> ExitCode {
    let listed = match connect(settings) {
        Ok(connection) => kafka::groups(&connection),
        Err(code) => return code,
    };
    let listed = match listed {
        Ok(listed) => listed,
        Err(error) => return fail(error),
    };
    if let Some(problem) = &listed.problem {
        tell(problem);
    }
    if listed.left_out > 0 {
        tell(format_args!("{} more groups are not described", listed.left_out));
    }
    let list = &listed.groups;
    if let Format::Json = format {
        let lines = list.iter().filter_map(|group| serde_json::to_string(group).ok());
        return print(&lines.map(|line| line + "\n").collect::<String>());
    }
    // A group's name may hold anything.
    let shown = |name: &str| name.replace(char::is_control, "\u{fffd}");
    let width = |pick: fn(&kafka::Group) -> &str, title: &str| {
        list.iter().map(|group| pick(group).chars().count()).max().unwrap_or(0).max(title.len())
    };
    let (names, states) = (width(|group| &group.group, "GROUP"), width(|group| &group.state, "STATE"));
    let mut out = format!("{:names$}  {:states$}  MEMBERS      LAG\n", "GROUP", "STATE");
    for group in list {
        let lag = group.lag.map_or_else(|| "?".to_owned(), |n| n.to_string());
        let (name, members) = (shown(&group.group), group.members.len());
        out.push_str(&format!("{name:names$}  {:states$}  {members:>7}  {lag:>7}\n", group.state));
    }
    print(&out)
}

/// Set when the process is asked to end.
fn stop_on_signals() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let flag = stop.clone();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            asked_to_end().await;
            flag.store(true, Ordering::Relaxed);
            std::future::pending::<()>().await; // for the second signal
        });
    })?;
    Ok(stop)
}
