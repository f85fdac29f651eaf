//! `footfall send`: sends the lines of a file or of standard input as events.
//!
//! Every line is written once, rejected and reported, or the exit code says that the end was not reached. Lines that are
//! sent again have the same ids, so the server recognises them for as long as it remembers ids. The resume file is for
//! longer: it has the place up to which every line is written or rejected.

mod deliver;
mod events;
mod lines;

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use footfall::event::EventId;
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use self::deliver::{Outcome, Sender};
use self::events::{Format, Ids, Rejected};
use self::lines::{Chunk, Position, ReadError};
use super::client::{Client, ClientOptions, OneLine};
use super::signals::cancelled_by_signals;
use super::state::{Identity, StateFile, check_distinct};
use super::{duration, misconfigured, report};

/// The exit code if lines were rejected and all others are written.
const REJECTED: u8 = 1;

/// The exit code if not every line was written or rejected.
const INCOMPLETE: u8 = 3;

/// The time between two updates of the progress on a terminal.
const PROGRESS: Duration = Duration::from_millis(200);

#[derive(Args)]
pub struct SendOptions {
    /// The file to send; without it, or with `-`, standard input
    file: Option<PathBuf>,
    /// `json`: an event, or a record of an NDJSON export, on each line; `text`: each line becomes the `message` of an event
    #[arg(long, value_enum, default_value = "json")]
    format: InputFormat,
    /// The events' user, for `--format text`
    #[arg(long, required_if_eq("format", "text"))]
    user: Option<String>,
    /// The events' action, for `--format text`
    #[arg(long, required_if_eq("format", "text"))]
    action: Option<String>,
    /// Start of the ids of lines without one, instead of the file's name: 1 to 80 letters, digits, `.`, `-`, `_` or `~`
    #[arg(long, value_name = "NAME", value_parser = id_prefix)]
    id_prefix: Option<String>,
    /// Keep in this file how far all lines are done, and continue there in the next run
    #[arg(long, value_name = "FILE")]
    resume_file: Option<PathBuf>,
    /// Append the rejected lines to this file
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// Requests in flight: 1 to 16. With more than 1, events of one user may be written in another order
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u8).range(1..=16))]
    concurrency: u8,
    /// Stop after this time without progress. Above 10m the server may have forgotten the ids, by its defaults
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    give_up_after: Duration,
    #[command(flatten)]
    client: ClientOptions,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum InputFormat {
    Json,
    Text,
}

/// The content of a resume file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resume {
    url: String,
    ids: Ids,
    /// Up to here every line is written or rejected. Without it nothing is.
    done: Option<Position>,
}

fn id_prefix(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'~');
    match (1..=80).contains(&text.len()) && text.bytes().all(allowed) {
        true => Ok(text.to_owned()),
        false => Err("expected 1 to 80 letters, digits, `.`, `-`, `_` or `~`".to_owned()),
    }
}

/// Sends every line. Returns 0 if all are written, 1 if some were rejected, 2 for wrong arguments, 3 if the end was not
/// reached.
pub fn run(options: SendOptions) -> ExitCode {
    let run = match Run::prepare(options) {
        Ok(run) => run,
        Err(error) => return misconfigured(error),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return incomplete(error),
    };
    let code = runtime.block_on(run.send());
    runtime.shutdown_background();
    code
}

fn incomplete(error: impl std::fmt::Display) -> ExitCode {
    report(error);
    ExitCode::from(INCOMPLETE)
}

/// A run whose options are checked and whose files are open.
struct Run {
    chunks: mpsc::Receiver<Result<Chunk, ReadError>>,
    format: Format,
    ids: Ids,
    client: Client,
    give_up_after: Duration,
    concurrency: usize,
    record: Ledger,
}

impl Run {
    fn prepare(options: SendOptions) -> Result<Self, String> {
        let client = Client::new(options.client)?;
        let format = match (options.format, options.user, options.action) {
            (InputFormat::Text, Some(user), Some(action)) => Format::Text { user, action },
            (InputFormat::Text, ..) => return Err("--format text needs --user and --action".to_owned()),
            (InputFormat::Json, None, None) => Format::Json,
            (InputFormat::Json, ..) => return Err("--user and --action are for --format text".to_owned()),
        };
        let path = options.file.filter(|file| file.as_os_str() != "-");
        let input = match &path {
            Some(file) => File::open(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?,
            None => standard_input()?,
        };
        let metadata = input.metadata().map_err(|error| format!("cannot read the input: {error}"))?;
        if metadata.is_dir() {
            return Err("the input is a folder: expected a file".to_owned());
        }
        let files = [("--resume-file", options.resume_file.as_deref()), ("--rejects", options.rejects.as_deref())];
        check_distinct(Identity::of(&metadata), &files)?;
        let resume = options.resume_file.map(StateFile::lock).transpose()?;
        let earlier: Option<Resume> = resume.as_ref().map_or(Ok(None), StateFile::read)?;
        let shown = resume.as_ref().map_or_else(String::new, |file| file.path().display().to_string());
        let url = client.server();
        let (ids, done) = match (earlier, options.id_prefix) {
            (Some(known), _) if known.url != url => {
                return Err(format!("{shown} belongs to {}, not {url}: name another resume file", known.url));
            }
            (Some(known), Some(prefix)) if known.ids != Ids::new(&prefix, &prefix) => {
                return Err(format!("{shown} has other ids than --id-prefix {prefix}: leave the option out"));
            }
            (Some(known), _) => (known.ids, known.done),
            (None, prefix) => (ids(prefix, path), None),
        };
        let rejects = options.rejects.map(|path| {
            let opened = OpenOptions::new().append(true).create(true).open(&path);
            opened.map_err(|error| format!("cannot write {}: {error}", path.display()))
        });
        let rejects = rejects.transpose()?;
        if let Some(file) = &resume {
            let written = file.write(&Resume { url: url.clone(), ids: ids.clone(), done: done.clone() });
            written.map_err(|error| format!("cannot write {shown}: {error}"))?;
        }
        let record = Ledger {
            total: metadata.is_file().then_some(metadata.len()),
            before: done.clone(),
            resume,
            url,
            ids: ids.clone(),
            rejects,
            lines: done.as_ref().map_or(0, |done| done.lines),
            bytes: done.as_ref().map_or(0, |done| done.bytes),
            written: 0,
            replayed: 0,
            rejected: 0,
            started: Instant::now(),
            shown: io::stderr().is_terminal().then(Instant::now),
        };
        Ok(Run {
            chunks: lines::read(input, done).map_err(|error| error.to_string())?,
            format,
            ids,
            client,
            give_up_after: options.give_up_after,
            concurrency: options.concurrency.into(),
            record,
        })
    }

    async fn send(mut self) -> ExitCode {
        let stop = cancelled_by_signals();
        let sender = Sender::new(self.client, self.give_up_after, stop.clone());
        let chunks = stream::unfold(self.chunks, |mut chunks| async {
            let chunk = stop.run_until_cancelled(chunks.recv()).await??;
            Some((chunk, chunks))
        });
        let (format, ids) = (&self.format, &self.ids);
        let deliveries = chunks.map(|chunk| deliver(chunk, &sender, format, ids)).buffered(self.concurrency);
        let mut deliveries = std::pin::pin!(deliveries);
        let mut failure = None;
        while let Some(delivery) = deliveries.next().await {
            let (outcome, end) = delivery;
            self.record.written += outcome.written;
            self.record.replayed += outcome.replayed;
            let noted = end.and_then(|end| self.record.note(outcome.rejected, end));
            if let Err(error) = noted {
                failure = Some(error);
                break; // what is in flight behind it is sent again by the next run
            }
        }
        if failure.is_none() && stop.is_cancelled() {
            failure = Some(deliver::Ended::Interrupted.to_string());
        }
        self.record.finish();
        match failure {
            Some(error) => incomplete(error),
            None if self.record.rejected > 0 => ExitCode::from(REJECTED),
            None => ExitCode::SUCCESS,
        }
    }
}

/// Delivers the lines of a chunk. Returns what became of them, the rejected ones in order, and the chunk's end or why not
/// every line is decided.
async fn deliver(
    chunk: Result<Chunk, ReadError>,
    sender: &Sender,
    format: &Format,
    ids: &Ids,
) -> (Outcome, Result<Position, String>) {
    let mut outcome = Outcome::default();
    let chunk = match chunk {
        Ok(chunk) => chunk,
        Err(error) => return (outcome, Err(error.to_string())),
    };
    let mut items = Vec::new();
    for line in &chunk.lines {
        match events::item(line, format, ids) {
            Ok(item) => items.extend(item),
            Err(_) if chunk.end.unterminated && format.is_incomplete(line) => {
                let why = format!("line {} is incomplete: the input ended in the middle of it", line.number);
                return (outcome, Err(why));
            }
            Err(rejected) => outcome.rejected.push(rejected),
        }
    }
    let delivered = sender.deliver(items, &mut outcome).await;
    outcome.rejected.sort_by_key(|rejected| rejected.line);
    (outcome, delivered.map(|()| chunk.end).map_err(|error| error.to_string()))
}

/// Returns the ids of an input: of its name, or else of this run only.
fn ids(prefix: Option<String>, path: Option<PathBuf>) -> Ids {
    if let Some(prefix) = prefix {
        return Ids::new(&prefix, &prefix);
    }
    // Linux says which file a shell has opened as standard input.
    let path = match path {
        Some(path) => path.canonicalize().ok(),
        None => std::fs::read_link("/proc/self/fd/0").ok(),
    };
    match path.filter(|path| path.is_file()) {
        Some(path) => Ids::new(&path.file_name().unwrap_or_default().to_string_lossy(), &path.to_string_lossy()),
        None => {
            let run = EventId::new();
            Ids::new(run.as_str(), run.as_str())
        }
    }
}

/// Returns standard input without a buffer of its own.
fn standard_input() -> Result<File, String> {
    use std::os::fd::AsFd;
    let duplicate = io::stdin().as_fd().try_clone_to_owned();
    duplicate.map(File::from).map_err(|error| format!("cannot read standard input: {error}"))
}

/// What was done: on the terminal, in the resume file and in the file of rejected lines.
struct Ledger {
    /// The bytes of the input, of a file.
    total: Option<u64>,
    before: Option<Position>,
    resume: Option<StateFile>,
    url: String,
    ids: Ids,
    rejects: Option<File>,
    lines: u64,
    bytes: u64,
    written: u64,
    replayed: u64,
    rejected: u64,
    started: Instant,
    /// When the progress was shown; `None` if standard error is no terminal.
    shown: Option<Instant>,
}

impl Ledger {
    /// Notes a chunk whose lines are all written or rejected.
    fn note(&mut self, rejected: Vec<Rejected>, end: Position) -> Result<(), String> {
        let mut rejects = Vec::new();
        for Rejected { line, source, why } in rejected {
            self.rejected += 1;
            self.clear();
            report(format!("line {line}: {}", OneLine(&why)));
            rejects.extend(source.map(|source| [&*source, b"\n"].concat()).unwrap_or_default());
        }
        if let Some(file) = self.rejects.as_mut().filter(|_| !rejects.is_empty()) {
            file.write_all(&rejects).map_err(|error| format!("cannot write the rejected lines: {error}"))?;
            let _ = file.sync_data(); // it may be a pipe
        }
        (self.lines, self.bytes) = (end.lines, end.bytes);
        if let Some(file) = &self.resume {
            let resume = Resume { url: self.url.clone(), ids: self.ids.clone(), done: Some(end) };
            let written = file.write(&resume);
            written.map_err(|error| format!("cannot write {}: {error}", file.path().display()))?;
        }
        if let Some(shown) = &mut self.shown
            && shown.elapsed() >= PROGRESS
        {
            *shown = Instant::now();
            let percent = self.total.filter(|total| *total > 0).map(|total| self.bytes.min(total) * 100 / total);
            let percent = percent.map(|percent| format!("{percent} %, ")).unwrap_or_default();
            let _ = write!(io::stderr(), "\r\x1b[K{percent}{}", self.summary());
        }
        Ok(())
    }

    /// Removes the progress from the terminal.
    fn clear(&self) {
        if self.shown.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }

    /// Reports the sums.
    fn finish(&self) {
        self.clear();
        report(self.summary());
    }

    fn summary(&self) -> String {
        let before = self.before.as_ref().map_or(0, |before| before.lines);
        let lines = self.lines - before;
        let seconds = self.started.elapsed().as_secs_f64().max(0.001);
        let (written, replayed, rejected) = (self.written, self.replayed, self.rejected);
        let continued = match before {
            0 => String::new(),
            before => format!(", after {before} of earlier runs"),
        };
        let rate = (lines as f64 / seconds).round();
        format!(
            "{lines} lines{continued}: {written} written ({replayed} of them already written), {rejected} rejected, {rate} a second"
        )
    }
}

/// Bytes in hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
