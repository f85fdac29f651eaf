//! `footfall topics`: lists the topics with their partitions and records.

use std::process::ExitCode;

use footfall::config::Settings;
use footfall::kafka;

use super::{OutputFormat, connect, fail, print, print_json};

pub fn run(settings: &Settings, format: OutputFormat) -> ExitCode {
    let listed = match connect(settings).and_then(|connection| kafka::topics(&connection).map_err(fail)) {
        Ok(listed) => listed,
        Err(code) => return code,
    };
    let list = &listed.topics;
    let end = |printed: ExitCode| listed.problem.as_ref().map_or(printed, fail);
    if let OutputFormat::Json = format {
        return end(print_json(list));
    }
    let width = list.iter().map(|topic| topic.topic.len()).max().unwrap_or(0).max("TOPIC".len());
    let mut out = format!("{:width$}  PARTITIONS  RECORDS\n", "TOPIC");
    for topic in list {
        let records = topic.records.map_or_else(|| "?".to_owned(), |n| n.to_string());
        out.push_str(&format!("{:width$}  {:>10}  {records:>7}\n", topic.topic, topic.partitions));
    }
    end(print(&out))
}
