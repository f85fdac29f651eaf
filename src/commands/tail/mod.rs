//! `footfall tail`: prints the server's stream, and resumes it by its cursor whenever it breaks.
//!
//! No record is left out without a message. What a process that is killed may print again is said in `output.rs`.

mod events;
mod output;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use footfall::event::time::{format_ms, now_ms, parse_duration, parse_ms};
use footfall_core::Condition;
use footfall_core::query_string::encode;
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, HeaderName};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep, timeout};

use self::events::{Event, Parser};
use self::output::{Followed, Output};
use super::client::{Answer, Backoff, Client, ClientOptions, OneLine, explain, is_retryable};
use super::signals::cancelled_by_signals;
use super::{OutputFormat, duration, fail, misconfigured, report};

/// The exit code if the server refused the request, or nothing came for `--give-up-after`.
const GAVE_UP: u8 = 3;

/// The exit code of `--fail-on-gap` at a gap.
const GAP: u8 = 4;

/// The time without a byte after which the connection is taken for broken: four heartbeats of the server, by the default
/// of its `feed.heartbeat`.
const SILENCE: Duration = Duration::from_secs(60);

/// How long the reader of standard output may take for the last lines after a signal.
const LAST_WRITE: Duration = Duration::from_secs(1);

/// How long a stream has to last so that the wait before the next one is short again.
const STEADY: Duration = Duration::from_secs(5);

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

#[derive(Args)]
pub struct TailOptions {
    /// Only events of this user; several times: of any of them
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    user: Vec<String>,
    /// Only events with this action; several times: with any of them
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    action: Vec<String>,
    /// Only events of users that begin so, in upper or lower case; also beside --user: of any of them
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    user_prefix: Vec<String>,
    /// Only events with actions that begin so, in upper or lower case; also beside --action: with any of them
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    action_prefix: Vec<String>,
    /// No events of this user
    #[arg(long, value_name = "USER", value_parser = NonEmptyStringValueParser::new())]
    not_user: Vec<String>,
    /// No events with this action
    #[arg(long, value_name = "ACTION", value_parser = NonEmptyStringValueParser::new())]
    not_action: Vec<String>,
    /// Only records whose value contains this text
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    q: Vec<String>,
    /// Only events with such a field: POINTER:OP:VALUE, such as /total:gt:30; several times: all of them must match
    #[arg(long, value_name = "CONDITION", value_parser = condition)]
    field: Vec<String>,
    /// Start at a time: a duration ago, such as 90s, 15m or 1h, or 2026-11-23T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = since, conflicts_with = "last")]
    since: Option<String>,
    /// Start with the newest records that match: 1 to 1000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    last: Option<u16>,
    /// `text`: time, user, action and value, between tabs; `json`: the whole record
    #[arg(long, value_enum, default_value = "text")]
    format: OutputFormat,
    /// Keep the position in this file, and continue there in the next run, whatever --since and --last say
    #[arg(long, value_name = "FILE")]
    resume_file: Option<PathBuf>,
    /// Write to this file instead of standard output: each record once, also if this process is killed
    #[arg(long, value_name = "FILE", requires = "resume_file")]
    output: Option<PathBuf>,
    /// End after this many records
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End with exit code 4 where records are missing, before those that follow
    #[arg(long)]
    fail_on_gap: bool,
    /// Stop after this time without a connection; without it, try for ever
    #[arg(long, value_name = "TIME", value_parser = duration)]
    give_up_after: Option<Duration>,
    #[command(flatten)]
    client: ClientOptions,
}

/// Returns a point in time, so that every connection starts at the same one.
fn since(text: &str) -> Result<String, String> {
    if let Some(ago) = parse_duration(text.strip_prefix('-').unwrap_or(text)) {
        let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
        return Ok(format_ms(now_ms().saturating_sub(ago)));
    }
    match parse_ms(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err("expected a duration such as 90s, 15m or 1h, or a time such as 2026-11-23T12:00:00Z".to_owned()),
    }
}

/// Checks a condition, so that a wrong one is reported before the server is asked.
fn condition(text: &str) -> Result<String, String> {
    Condition::parse(text, false).map(|_| text.to_owned())
}

/// Prints the stream until it is asked to end. Returns 0 then, 1 if it cannot write, 2 for wrong arguments, 3 if the server
/// refuses the request, 4 at a gap with `--fail-on-gap`.
pub fn run(options: TailOptions) -> ExitCode {
    let parameters = [
        ("user", &options.user),
        ("action", &options.action),
        ("user_prefix", &options.user_prefix),
        ("action_prefix", &options.action_prefix),
        ("not_user", &options.not_user),
        ("not_action", &options.not_action),
        ("q", &options.q),
        ("f", &options.field),
    ];
    let parameters = parameters.into_iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
    let mut query: Vec<String> = parameters.map(|(name, value)| format!("{name}={}", encode(value))).collect();
    let prepared = Client::new(options.client).and_then(|client| {
        let followed = Followed { url: client.server(), filter: query.join("&") };
        let output = Output::open(options.output.as_deref(), options.resume_file, followed, options.since)?;
        Ok((client, output))
    });
    let (client, output) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return misconfigured(error),
    };
    match (output.since(), options.last) {
        (Some(since), _) => query.push(format!("since={}", encode(since))),
        (None, Some(last)) => query.push(format!("last={last}")),
        (None, None) => {}
    }
    // A write may wait for the reader of a pipe, while another thread receives signals.
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(error),
    };
    let tail = Tail {
        client,
        target: format!("/api/v1/stream?{}", query.join("&")),
        format: options.format,
        fail_on_gap: options.fail_on_gap,
        left: options.count.unwrap_or(u64::MAX),
        give_up_after: options.give_up_after,
        cursor: output.cursor().map(str::to_owned),
        trouble: None,
        held_up: None,
        heard: false,
    };
    let code = runtime.block_on(async {
        let stop = cancelled_by_signals();
        let asked = stop.clone();
        // A signal ends it between two writes.
        let followed = async move { asked.run_until_cancelled(tail.follow(output)).await.unwrap_or(End::Asked) };
        tokio::select! {
            end = tokio::spawn(followed) => end.map_or(ExitCode::FAILURE, End::code),
            () = async { stop.cancelled().await; sleep(LAST_WRITE).await } => ExitCode::SUCCESS,
        }
    });
    runtime.shutdown_background();
    code
}

/// Why `tail` ends.
enum End {
    /// By a signal, or because `--count` is reached.
    Asked,
    Gap,
    GaveUp(String),
    Failed(io::Error),
}

impl End {
    fn code(self) -> ExitCode {
        match self {
            End::Asked => ExitCode::SUCCESS,
            End::Gap => ExitCode::from(GAP),
            // The reader of standard output has ended.
            End::Failed(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            End::Failed(error) => fail(format!("cannot write: {error}")),
            End::GaveUp(why) => {
                report(why);
                ExitCode::from(GAVE_UP)
            }
        }
    }
}

/// Why a stream ends, after which the next one starts.
enum Cut {
    /// The server has asked for it.
    Bye,
    Broken(String),
}

struct Tail {
    client: Client,
    target: String,
    format: OutputFormat,
    fail_on_gap: bool,
    /// The records to print before the end.
    left: u64,
    give_up_after: Option<Duration>,
    /// Where the next stream starts.
    cursor: Option<String>,
    /// The problem of the connection that was reported last; `None` while a connection works.
    trouble: Option<String>,
    /// Why no records arrive, as the server has said last.
    held_up: Option<String>,
    /// Whether the current stream has had an event.
    heard: bool,
}

/// What follows from the events of one read.
#[derive(Default)]
struct Step {
    lines: Vec<u8>,
    end: Option<End>,
    cut: Option<Cut>,
}

#[derive(Deserialize)]
struct GapData {
    missed: Option<u64>,
    reason: String,
    resumed: String,
}

#[derive(Deserialize)]
struct StatusData {
    broker: String,
    reason: Option<String>,
}

impl Tail {
    /// Follows streams, one after the other.
    async fn follow(mut self, mut output: Output) -> End {
        let mut backoff = Backoff::default();
        let mut connected = Instant::now();
        loop {
            let cursor = self.cursor.clone();
            let mut headers = vec![(ACCEPT, "text/event-stream")];
            headers.extend(cursor.as_deref().map(|cursor| (LAST_EVENT_ID, cursor)));
            let gave_up =
                |limit: Duration, why: &str| End::GaveUp(format!("gave up after {} s: {why}", limit.as_secs_f64()));
            let limit = self.give_up_after.unwrap_or(Duration::MAX);
            let left = limit.saturating_sub(connected.elapsed());
            let Ok(answer) = timeout(left, self.client.stream(&self.target, &headers)).await else {
                return gave_up(limit, "the server does not answer");
            };
            let (why, retry_after) = match answer {
                Ok(Ok(stream)) => {
                    self.heard = false;
                    let started = Instant::now();
                    let cut = match self.read(stream, &mut output, &mut backoff).await {
                        Ok(cut) => cut,
                        Err(end) => return end,
                    };
                    if self.heard {
                        connected = Instant::now();
                        if started.elapsed() > STEADY {
                            backoff.reset();
                        }
                    }
                    match cut {
                        Cut::Bye => (None, None),
                        Cut::Broken(why) => (Some(why), None),
                    }
                }
                Ok(Err(answer)) if answer.status == StatusCode::OK => {
                    return End::GaveUp("the server answered 200 without an event stream: is it Footfall?".to_owned());
                }
                Ok(Err(answer)) if !is_retryable(answer.status) => return End::GaveUp(explain(&answer)),
                Ok(Err(answer @ Answer { retry_after, .. })) => (Some(explain(&answer)), retry_after),
                Err(error) => (Some(error.to_string()), None),
            };
            let wait = backoff.next(retry_after);
            if let Some(why) = &why
                && connected.elapsed() + wait > limit
            {
                return gave_up(limit, why);
            }
            if let Some(why) = why {
                self.report(why);
            }
            sleep(wait).await;
        }
    }

    /// Reads a stream to its end.
    async fn read(&mut self, mut stream: Incoming, output: &mut Output, backoff: &mut Backoff) -> Result<Cut, End> {
        let mut parser = Parser::default();
        loop {
            let frame = match timeout(SILENCE, stream.frame()).await {
                Err(_) => return Ok(Cut::Broken(format!("no heartbeat for {} s", SILENCE.as_secs()))),
                Ok(None) => return Ok(Cut::Broken("the server ended the stream".to_owned())),
                Ok(Some(Err(error))) => return Ok(Cut::Broken(format!("the connection broke: {error}"))),
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(bytes) = frame.into_data() else { continue };
            let events = parser.take(&bytes).map_err(|error| End::GaveUp(error.to_string()))?;
            let mut step = Step::default();
            for event in events {
                self.heard = true;
                if event.is_record() {
                    backoff.reset(); // a server that shuts down sends other events, and `bye`
                }
                if self.trouble.take().is_some() {
                    report("connected again");
                }
                self.event(event, &mut step);
                if step.end.is_some() || step.cut.is_some() {
                    break;
                }
            }
            let written = tokio::task::block_in_place(|| output.write(&step.lines, self.cursor.as_deref()));
            written.map_err(End::Failed)?;
            match (step.end, step.cut) {
                (Some(end), _) => return Err(end),
                (None, Some(cut)) => return Ok(cut),
                (None, None) => {}
            }
        }
    }

    fn event(&mut self, event: Event, step: &mut Step) {
        match &*event.name {
            _ if event.is_record() => {
                self.held_up = None;
                match self.format {
                    OutputFormat::Json => step.lines.extend_from_slice(event.data.as_bytes()),
                    OutputFormat::Text => step.lines.extend_from_slice(text(&event.data).as_bytes()),
                }
                step.lines.push(b'\n');
                self.left -= 1;
                if self.left == 0 {
                    step.end = Some(End::Asked);
                }
            }
            "gap" => {
                let message = match serde_json::from_str::<GapData>(&event.data) {
                    Err(_) => "records are missing".to_owned(),
                    Ok(GapData { missed, reason, resumed }) => {
                        let missed = missed.map_or("an unknown number of".to_owned(), |missed| missed.to_string());
                        format!(
                            "gap: {missed} records are missing ({}); continues at {}",
                            OneLine(&reason),
                            OneLine(&resumed)
                        )
                    }
                };
                report(message);
                if self.fail_on_gap {
                    step.end = Some(End::Gap);
                    return; // the next run meets the gap again
                }
            }
            "dropped" => {
                // The server keeps what a client is behind by only for a while. From the cursor it reads Kafka.
                step.cut = Some(Cut::Bye);
                return;
            }
            "bye" => step.cut = Some(Cut::Bye),
            "status" => {
                if let Ok(status) = serde_json::from_str::<StatusData>(&event.data) {
                    let why = match (&*status.broker, status.reason) {
                        ("up", _) => None,
                        (_, Some(reason)) => Some(format!("no records arrive: {}", OneLine(&reason))),
                        (broker, None) => Some(format!("no records arrive: the broker is {}", OneLine(broker))),
                    };
                    if why != self.held_up {
                        report(why.as_deref().unwrap_or("records can arrive again"));
                        self.held_up = why;
                    }
                }
            }
            _ => {}
        }
        if event.id.is_some() {
            self.cursor = event.id;
        }
    }

    /// Reports a problem, unless it is the one that was reported last.
    fn report(&mut self, why: String) {
        if self.trouble.as_ref() != Some(&why) {
            report(format!("{why}; trying again"));
            self.trouble = Some(why);
        }
    }
}

/// Returns time, user, action and value, separated by tabs. Control characters are escaped.
fn text(record: &str) -> String {
    #[derive(Deserialize)]
    struct Shown<'a> {
        time: Option<String>,
        key: Option<String>,
        r#type: Option<String>,
        #[serde(borrow)]
        value: &'a RawValue,
    }
    let Ok(shown) = serde_json::from_str::<Shown>(record) else { return OneLine(record).to_string() };
    let value: Value = serde_json::from_str(shown.value.get()).unwrap_or_default();
    let member = |name: &str| value[name].as_str().or_else(|| value["data"][name].as_str()).map(str::to_owned);
    let user = member("user").or(shown.key).unwrap_or_default();
    let action = member("action").or(shown.r#type).unwrap_or_default();
    let time = shown.time.unwrap_or_default();
    format!("{}\t{}\t{}\t{}", OneLine(&time), OneLine(&user), OneLine(&action), OneLine(shown.value.get()))
}
