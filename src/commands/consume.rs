//! `footfall consume`: prints the topic's records as a member of a consumer group.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use footfall::config::Settings;
use footfall::event::{Record, json, time};
use footfall::kafka::{self, Options, WorkerError};

use super::signals::stop_on_signals;
use super::{OutputFormat, connect, fail};

pub fn run(settings: &Settings, options: Options, format: OutputFormat) -> ExitCode {
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
            OutputFormat::Json => json::write(&mut line, connection.topic(), record),
            OutputFormat::Text => text(&mut line, record),
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

/// Appends time, partition, offset, key and value, separated by tabs. Control characters are escaped.
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
