//! `footfall tail`: the stream on a terminal or in a file, across broken connections, restarts and crashes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::common::application::free_port;
use crate::common::fake::answer;
use crate::common::nginx::base_path;
use crate::common::process::run;
use crate::common::wait::{PATIENCE, eventually, within};
use crate::common::{
    Application, Broker, FakeServer, NewRecord, Process, Proxy, Weather, application, assert_same_set,
};
use serde_json::{Value, json};
use tempfile::TempDir;

fn folder() -> TempDir {
    TempDir::with_prefix("footfall-tail-").expect("a temporary folder")
}

fn tail(folder: &TempDir, server: SocketAddr, arguments: &[&str]) -> Command {
    let mut command = application::command(folder.path());
    command.args(["tail", "--url", &format!("http://{server}{}", base_path())]).args(arguments);
    command
}

/// Asserts the exit code, and returns what it printed and what it reported.
#[track_caller]
fn ended(output: &Output, code: i32) -> (Vec<&str>, &str) {
    let [lines, errors] = [&output.stdout, &output.stderr].map(|bytes| str::from_utf8(bytes).expect("text"));
    assert_eq!(output.status.code(), Some(code), "{lines}\n{errors}");
    (lines.lines().collect(), errors)
}

/// The numbers of the events in lines of JSON.
fn numbers(lines: &[&str]) -> Vec<u64> {
    let number = |line: &&str| serde_json::from_str::<Value>(line).expect("JSON")["value"]["n"].as_u64().expect("n");
    lines.iter().map(number).collect()
}

const JSON: [&str; 2] = ["--format", "json"];

#[test]
fn records_that_match_are_printed_as_json_or_text() {
    let (app, folder) = (Application::on(Broker::Embedded).start(), folder());
    for (user, action) in [("Ann", "log in"), ("Bob", "log in"), ("Ann & Eve", "pay=1"), ("Ann", "log out")] {
        app.accept(&json!({"user": user, "action": action, "time": "2026-11-27T12:00:00Z"}));
    }
    let large = json!({"user": "Zoe", "action": "big", "text": "ü\u{1b}[31m".repeat(60_000)}).to_string();
    app.topic().produce(&NewRecord::new().key("Zoe").value(large));
    app.wait_for_the_feed();
    let history = app.get("/api/v1/events.ndjson?from=beginning").expect(200).text().to_owned();
    for (arguments, users) in [
        (&["--last", "2", "--user", "Ann", "--count", "2"][..], &["Ann", "Ann"][..]),
        (&["--since", "100h", "--user", "Ann & Eve", "--user", "Bob", "--count", "2"], &["Ann & Eve", "Bob"]),
        (&["--since", "2026-11-20T00:00:00Z", "--action", "pay=1", "--count", "1"], &["Ann & Eve"]),
        (&["--last", "1000", "--q", "g o", "--count", "1"], &["Ann"]),
        (&["--last", "1", "--user", "Zoe", "--count", "1"], &["Zoe"]),
        (&["--last", "9", "--user-prefix", "ANN", "--not-user", "Ann", "--count", "1"], &["Ann & Eve"]),
        (&["--last", "9", "--action-prefix", "Log", "--not-action", "log in", "--count", "1"], &["Ann"]),
        (&["--last", "9", "--field", "/action:eq:log in", "--field", "/user:gt:B", "--count", "1"], &["Bob"]),
    ] {
        let output = run(&mut tail(&folder, app.address, &[&JSON, arguments].concat()), "");
        let (lines, errors) = ended(&output, 0);
        assert_eq!(errors, "");
        assert!(lines.iter().all(|line| history.lines().any(|record| record == *line)), "{lines:?}");
        let mut found: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        found.sort_by_key(|record| record["key"].to_string());
        let expected: Vec<Value> = users.iter().map(|user| json!(user)).collect();
        let found: Vec<&Value> = found.iter().map(|record| &record["key"]).collect();
        assert_eq!(found, expected.iter().collect::<Vec<_>>(), "{arguments:?}");
    }
    let output = run(&mut tail(&folder, app.address, &["--last", "1", "--user", "Bob", "--count", "1"]), "");
    let value = r#"{"action":"log in","time":"2026-11-27T12:00:00Z","user":"Bob"}"#;
    assert_eq!(ended(&output, 0).0, [format!("2026-11-27T12:00:00.000Z\tBob\tlog in\t{value}")]);
    let output = run(&mut tail(&folder, app.address, &["--last", "1", "--user", "Zoe", "--count", "1"]), "");
    assert!(!ended(&output, 0).0.concat().contains('\u{1b}'), "a record cannot control the terminal");
}

#[test]
fn new_records_are_printed_until_a_signal() {
    let (app, folder) = (Application::on(Broker::Embedded).start(), folder());
    for name in ["INT", "TERM"] {
        let mut tail = Process::start(&mut tail(&folder, app.address, &[&JSON[..], &["--last", "1"]].concat()));
        app.post_events(1);
        tail.line();
        app.post_events(1);
        tail.line();
        tail.signal(name);
        assert_eq!((tail.wait(PATIENCE).code(), &*tail.errors()), (Some(0), ""));
    }
}

#[test]
fn a_run_continues_behind_the_one_before() {
    let (app, folder) = (Application::on(Broker::Embedded).start(), folder());
    app.post_events(100);
    let mut found = Vec::new();
    for count in ["30", "1", "69"] {
        let arguments = [&JSON[..], &["--since", "1h", "--resume-file", "resume.json", "--count", count]].concat();
        let output = run(&mut tail(&folder, app.address, &arguments), "");
        found.extend(numbers(&ended(&output, 0).0));
    }
    assert_same_set(0..100, found);
}

#[test]
fn a_tail_and_a_server_that_are_killed_leave_each_record_once_in_the_output() {
    let (app, folder) = (Application::on(Broker::Kafka).start(), folder());
    let proxy = Proxy::to(app.address);
    let arguments = ["--since", "1h", "--output", "records.ndjson", "--resume-file", "resume.json"];
    let arguments = [&JSON[..], &arguments].concat();
    let start = || Process::start(&mut tail(&folder, proxy.address(), &arguments));
    let output = folder.path().join("records.ndjson");
    let length = || fs::metadata(&output).map_or(0, |file| file.len());
    let (topic, enough) = (app.topic(), AtomicBool::new(false));
    let mut replicas: Vec<Application> = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let record =
                |n: usize| NewRecord::event(&format!("user-{}", n % 17), "step").key(format!("user-{}", n % 17));
            let started = Instant::now();
            // It also ends if the test fails.
            while !enough.load(Ordering::Relaxed) && started.elapsed() < 3 * PATIENCE {
                topic.produce_all(&(0..50).map(record).collect::<Vec<_>>());
            }
        });
        for round in 0..5 {
            let (before, tail) = (length(), start());
            within(2 * PATIENCE, "it has written more", || (length() > before + 20_000).then_some(()));
            if round % 2 == 1 {
                replicas.last().unwrap_or(&app).kill();
                replicas.push(app.replica().start());
                proxy.forward_to(replicas[replicas.len() - 1].address);
                let again = || tail.errors().contains("connected again").then_some(());
                within(2 * PATIENCE, "it has connected again", again);
            }
            tail.signal("KILL");
        }
        enough.store(true, Ordering::Relaxed);
    });
    let expected: Vec<(u64, u64)> = topic.records().iter().map(|r| (r.partition as u64, r.offset as u64)).collect();
    let mut last = start();
    let lines = || fs::read_to_string(&output).expect("text");
    eventually("it has the rest", || (lines().lines().count() >= expected.len()).then_some(()));
    last.signal("TERM");
    assert_eq!(last.wait(PATIENCE).code(), Some(0), "{}", last.errors());
    let place = |line: &str| {
        let record: Value = serde_json::from_str(line).expect("JSON");
        (record["partition"].as_u64().expect("a number"), record["offset"].as_u64().expect("a number"))
    };
    let found: Vec<(u64, u64)> = lines().lines().map(place).collect();
    for partition in 0..3 {
        assert!(found.iter().filter(|(of, _)| *of == partition).is_sorted(), "partition {partition} is in order");
    }
    assert_same_set(expected, found);
}

#[test]
fn a_gap_is_reported_and_ends_with_4_if_that_is_asked() {
    let folder = folder();
    let resume = [&JSON[..], &["--since", "1h", "--resume-file", "resume.json"]].concat();
    let app = Application::on(Broker::Embedded).start();
    let proxy = Proxy::to(app.address);
    app.post_events(20);
    ended(&run(&mut tail(&folder, proxy.address(), &[&resume[..], &["--count", "20"]].concat()), ""), 0);
    app.stop();
    // The embedded broker has lost everything.
    let app = Application::on(Broker::Embedded).start();
    proxy.forward_to(app.address);
    app.post_events(2);
    for _ in 0..2 {
        let output = run(&mut tail(&folder, proxy.address(), &[&resume[..], &["--fail-on-gap"]].concat()), "");
        let (lines, errors) = ended(&output, 4);
        assert!(lines.is_empty() && errors.contains("gap: ") && errors.contains("(topic recreated)"), "{errors}");
    }
    let output = run(&mut tail(&folder, proxy.address(), &[&resume[..], &["--count", "2"]].concat()), "");
    let (lines, errors) = ended(&output, 0);
    assert!(lines.len() == 2 && errors.contains("gap: "), "{lines:?} {errors}");
}

/// `footfall tail | head -n 1`
#[test]
fn a_closed_pipe_ends_it_without_a_message() {
    let (app, folder) = (Application::on(Broker::Embedded).start(), folder());
    app.post_events(1);
    let mut command = tail(&folder, app.address, &["--last", "1"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary can be run");
    let mut output = BufReader::new(child.stdout.take().expect("its standard output"));
    output.read_line(&mut String::new()).expect("a line");
    drop(output);
    eventually("it ends", || {
        app.post_events(1);
        child.try_wait().expect("a child process")
    });
    let output = child.wait_with_output().expect("its output");
    assert_eq!(ended(&output, 0), (vec![], ""));
}

#[test]
fn it_waits_for_a_server_or_gives_up_after_a_time() {
    let folder = folder();
    let proxy = Proxy::start();
    let mut waiting =
        Process::start(&mut tail(&folder, proxy.address(), &[&JSON[..], &["--last", "1", "--count", "1"]].concat()));
    eventually("it says so", || waiting.errors().contains("trying again").then_some(()));
    let app = Application::on(Broker::Embedded).start();
    app.post_events(1);
    proxy.forward_to(app.address);
    waiting.line();
    assert_eq!(waiting.wait(PATIENCE).code(), Some(0));
    assert!(waiting.errors().ends_with("connected again\n"), "{}", waiting.errors());

    let nowhere = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let output = run(&mut tail(&folder, nowhere, &["--give-up-after", "300ms"]), "");
    assert!(ended(&output, 3).1.contains("gave up after 0.3 s: cannot connect to 127.0.0.1:"), "{output:?}");
    proxy.set(Weather::BlackHole);
    let output = run(&mut tail(&folder, proxy.address(), &["--give-up-after", "500ms"]), "");
    assert!(ended(&output, 3).1.contains("gave up after 0.5 s: the server does not answer"), "{output:?}");
    let elsewhere = format!("http://{}/elsewhere", app.address);
    let output = run(application::command(folder.path()).args(["tail", "--url", &elsewhere]), "");
    assert!(ended(&output, 3).1.contains("the server answered 404"), "{output:?}");
}

#[test]
fn files_that_do_not_belong_together_are_refused_and_stay_as_they_are() {
    let (app, folder) = (Application::on(Broker::Embedded).start(), folder());
    app.post_events(3);
    let write = |name: &str| fs::write(folder.path().join(name), "notes\n").expect("a file");
    let tail_to = |arguments: &[&str]| {
        run(&mut tail(&folder, app.address, &[&JSON[..], &["--since", "1h", "--count", "3"], arguments].concat()), "")
    };
    write("notes");
    ended(&tail_to(&["--output", "records", "--resume-file", "r1"]), 0);
    ended(&tail_to(&["--resume-file", "r2"]), 0);
    for (arguments, why) in [
        (&["--output", "new"][..], "--resume-file"),
        (&["--output", "notes", "--resume-file", "new"], "is not empty"),
        (&["--output", "notes", "--resume-file", "r1"], "was written with --output"),
        (&["--resume-file", "r1"], "was written with --output"),
        (&["--output", "new", "--resume-file", "r2"], "was written without --output"),
        (&["--resume-file", "notes"], "is not a resume file"),
        (&["--last", "1"], "--since"),
        (&["--resume-file", "r2", "--user", "Ann"], "r2 belongs to http://"),
        (&["--output", "new", "--resume-file", "./new"], "are the same file"),
        (&["--user", ""], "--user"),
        (&["--action", ""], "--action"),
        (&["--q", ""], "--q"),
        (&["--field", "/total:over:30"], "one of eq, ne"),
    ] {
        let output = tail_to(arguments);
        assert!(ended(&output, 2).1.contains(why), "{arguments:?}: {output:?}");
        assert!(!folder.path().join("new").exists(), "{arguments:?}");
    }
    let running = Process::start(&mut tail(&folder, app.address, &["--resume-file", "r3"]));
    eventually("it has started", || folder.path().join("r3").exists().then_some(()));
    let output = tail_to(&["--resume-file", "r3"]);
    assert!(ended(&output, 2).1.contains("another run uses r3"), "{output:?}");
    drop(running);
    assert_eq!(fs::read_to_string(folder.path().join("notes")).expect("a file"), "notes\n");
    let records = fs::read_to_string(folder.path().join("records")).expect("a file");
    assert_same_set(0..3, numbers(&records.lines().collect::<Vec<_>>()));
}

/// A line that is not complete and one of which the resume file does not know come again.
#[test]
fn what_a_crash_left_behind_the_last_position_is_replaced() {
    let (app, folder) = (Application::on(Broker::Embedded).start(), folder());
    app.post_events(10);
    let arguments = [&JSON[..], &["--since", "1h", "--output", "records", "--resume-file", "r"]].concat();
    ended(&run(&mut tail(&folder, app.address, &[&arguments[..], &["--count", "4"]].concat()), ""), 0);
    let records = folder.path().join("records");
    let text = fs::read_to_string(&records).expect("text");
    let first = text.lines().next().expect("a line");
    fs::write(&records, format!("{text}{first}\n{}", &first[..20])).expect("a file");
    ended(&run(&mut tail(&folder, app.address, &[&arguments[..], &["--count", "6"]].concat()), ""), 0);
    let text = fs::read_to_string(&records).expect("text");
    assert_same_set(0..10, numbers(&text.lines().collect::<Vec<_>>()));
}

fn stream_of(events: &str) -> String {
    answer("200 OK", "text/event-stream", &format!("retry: 3000\nevent: position\ndata: {{}}\n{events}"))
}

#[test]
fn a_stream_that_the_server_ends_is_resumed_at_once_without_a_message() {
    let folder = folder();
    let record = |n: u64| format!("data: {{\"value\":{{\"n\":{n}}}}}\nid: 0-{n}\n\n");
    let server = FakeServer::start(&[
        stream_of(&format!("id: 0-0\n\n{}event: dropped\ndata: {{}}\nid: 0-9\n\n", record(1))),
        stream_of(&format!("id: 0-1\n\n{}event: bye\ndata: {{}}\n\n", record(2))),
        stream_of(&format!("id: 0-2\n\n{}", record(3))),
    ]);
    let output = run(&mut tail(&folder, server.address, &[&JSON[..], &["--count", "3"]].concat()), "");
    let (lines, errors) = ended(&output, 0);
    assert_eq!((numbers(&lines), errors), (vec![1, 2, 3], ""));
    let cursor = |request: &String| request.split("last-event-id: ").nth(1)?.lines().next().map(str::to_owned);
    let cursors: Vec<Option<String>> = server.requests().iter().map(cursor).collect();
    assert_eq!(cursors, [None, Some("0-1".to_owned()), Some("0-2".to_owned())]);

    // A server that shuts down is asked less and less often.
    let bye = stream_of("id: 0-0\n\nevent: bye\ndata: {}\n\n");
    let server = FakeServer::start(&[vec![bye; 5], vec![stream_of(&format!("id: 0-0\n\n{}", record(1)))]].concat());
    let started = Instant::now();
    ended(&run(&mut tail(&folder, server.address, &["--count", "1"]), ""), 0);
    assert!(started.elapsed().as_millis() > 1500, "{:?}", started.elapsed());
}

#[test]
fn an_answer_that_is_no_event_stream_is_refused() {
    let folder = folder();
    let server = FakeServer::start(&[answer("200 OK", "text/html", "<p>Hello</p>")]);
    let output = run(&mut tail(&folder, server.address, &[]), "");
    assert!(ended(&output, 3).1.contains("without an event stream"), "{output:?}");
    // Without an event there is no connection.
    let server = FakeServer::start(&[answer("200 OK", "text/event-stream", "\n")]);
    let output = run(&mut tail(&folder, server.address, &["--give-up-after", "500ms"]), "");
    assert!(ended(&output, 3).1.contains("gave up after 0.5 s"), "{output:?}");
}

#[test]
fn a_relative_start_is_the_same_time_in_every_run() {
    let folder = folder();
    let server = FakeServer::start(&[answer("404 Not Found", "text/plain", "")]);
    for _ in 0..2 {
        let output = run(&mut tail(&folder, server.address, &["--since", "1h", "--resume-file", "resume"]), "");
        ended(&output, 3);
    }
    let requests = server.requests();
    let targets: Vec<&str> = requests.iter().filter_map(|request| request.lines().next()).collect();
    assert!(targets.len() == 2 && targets[0] == targets[1] && targets[0].contains("?since=20"), "{targets:?}");
}
