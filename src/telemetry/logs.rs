//! Structured log lines on standard output: text for a terminal, one JSON object a line for everything else.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::thread::sleep;
use std::time::Duration;

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogFormat, LogSettings};

/// Lines that wait for whoever reads them; what comes beyond that is lost, so that a reader that stands still stops
/// nothing.
const WAITING: usize = 8192;
/// Bytes of lines that are written at once, at most.
const BUFFER: usize = 64 << 10;
/// How long lines gather after some were written. Meanwhile nobody who logs has to wake the thread that writes.
const PAUSE: Duration = Duration::from_millis(10);

/// Installs the process's subscriber; a second call changes nothing. `to_stderr` keeps standard output for a command's
/// own result. What waits is written out when the guard is dropped, within a second.
pub fn install(settings: &LogSettings, to_stderr: bool) -> WorkerGuard {
    // The level was checked with the other settings. Rocket logs every request in several lines of its own, and what its
    // server calls an error is a client's doing, such as a path that is none, or a panic, which is told on standard error.
    let quiet = "rocket=error,rocket::server=off,hyper=error,rdkafka=error";
    let filter = EnvFilter::try_new(format!("{quiet},{}", settings.level)).unwrap_or_else(|_| EnvFilter::new("info"));
    let (terminal, output): (bool, Box<dyn Write + Send>) = match to_stderr {
        true => (io::stderr().is_terminal(), Box::new(io::stderr())),
        // Its own buffer is written at the end of each line; this one when no line waits.
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
    // A line that cannot be written (a full disk, a closed pipe) is lost. To say so on standard error ends whoever logs, if
    // that cannot be written either.
    let builder = tracing_subscriber::fmt().log_internal_errors(false).with_writer(writer);
    let builder = builder.with_env_filter(filter).with_target(false).with_ansi(terminal);
    let _ = match json {
        true => builder.json().flatten_event(true).with_current_span(false).finish().try_init(),
        false => builder.finish().try_init(),
    };
    // Rocket's lines below this level would only be formatted to be thrown away.
    log::set_max_level(log::LevelFilter::Warn);
    guard
}

/// Is flushed when no line waits, and takes its time over that.
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
