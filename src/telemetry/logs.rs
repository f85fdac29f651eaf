//! Structured log lines on standard output: text for a terminal, one JSON object a line for everything else.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::thread::sleep;
use std::time::Duration;

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogFormat, LogSettings};

/// Lines that may wait to be written. Further lines are lost, so that a blocked log reader blocks nothing else.
const WAITING: usize = 8192;
/// The most bytes of lines to write at once.
const BUFFER: usize = 64 << 10;
/// How long the log thread lets lines collect after a write. Meanwhile threads that log need not wake it.
const PAUSE: Duration = Duration::from_millis(10);

/// Installs the process's subscriber; a second call changes nothing. `to_stderr` keeps standard output free for a command's
/// own output. Dropping the guard writes the waiting lines, within a second.
pub fn install(settings: &LogSettings, to_stderr: bool) -> WorkerGuard {
    // The settings' checks have validated the level. Rocket logs several lines for each request, and its server logs as
    // errors what clients cause (such as an invalid path) and panics, which already go to standard error.
    let quiet = "rocket=error,rocket::server=off,hyper=error,rdkafka=error";
    let filter = EnvFilter::try_new(format!("{quiet},{}", settings.level)).unwrap_or_else(|_| EnvFilter::new("info"));
    let (terminal, output): (bool, Box<dyn Write + Send>) = match to_stderr {
        true => (io::stderr().is_terminal(), Box::new(io::stderr())),
        // Stdout flushes its own buffer at each line; this buffer is flushed when no line waits.
        false => (io::stdout().is_terminal(), Box::new(BufWriter::with_capacity(BUFFER, io::stdout()))),
    };
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(WAITING)
        .thread_name("log")
        .finish(Paced(output));
    let json = match settings.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !terminal,
    };
    // A line that cannot be written (full disk, closed pipe) is lost. Reporting that on standard error would panic the thread
    // that logs if standard error cannot be written either.
    let builder = tracing_subscriber::fmt().log_internal_errors(false).with_writer(writer);
    let builder = builder.with_env_filter(filter).with_target(false).with_ansi(terminal);
    let _ = match json {
        true => builder.json().flatten_event(true).with_current_span(false).finish().try_init(),
        false => builder.finish().try_init(),
    };
    // Below this level, Rocket's lines would be formatted only to be filtered out.
    log::set_max_level(log::LevelFilter::Warn);
    guard
}

/// A writer whose flush takes [`PAUSE`], so that lines collect. The log thread flushes when no line waits.
struct Paced<W>(W);

impl<W: Write> Write for Paced<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()?;
        sleep(PAUSE);
        Ok(())
    }
}
