//! `footfall groups`: lists the consumer groups with state, members and lag.

use std::process::ExitCode;

use footfall::config::Settings;
use footfall::kafka;

use super::{OutputFormat, connect, fail, print, print_json, report};

pub fn run(settings: &Settings, format: OutputFormat) -> ExitCode {
    // The name of a group may contain any character.
    let shown = |name: &str| name.replace(char::is_control, "\u{fffd}");
    let listed = match connect(settings).and_then(|connection| kafka::groups(&connection).map_err(fail)) {
        Ok(listed) => listed,
        Err(code) => return code,
    };
    let end = |printed: ExitCode| listed.problem.as_ref().map_or(printed, fail);
    if listed.left_out > 0 {
        report(format_args!("{} more groups are not described", listed.left_out));
    }
    report("share groups and streams groups are not listed");
    for group in &listed.groups {
        let name = shown(&group.group);
        if let Some(problem) = &group.problem {
            report(format_args!("group {name}: {problem}"));
        }
        for place in group.partitions.iter().filter(|place| place.committed.is_some()) {
            if let Some(problem) = &place.problem {
                report(format_args!("group {name}, topic {}, partition {}: {problem}", place.topic, place.partition));
            }
        }
    }
    let list = &listed.groups;
    if let OutputFormat::Json = format {
        return end(print_json(list));
    }
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
    end(print(&out))
}
