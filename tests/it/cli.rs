//! The command line: consume, topics, check, help, and the exit codes.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::common::acl::DESCRIBE;
use crate::common::wait::{PATIENCE, eventually, within};
use crate::common::{Application, Broker, Kafka, NewRecord, Process, Topic, User, application, assert_same_set, kafka};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Runs the binary to its end, in an empty folder.
#[track_caller]
fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let folder = TempDir::new().expect("a temporary folder");
    run_in(folder.path(), arguments, environment)
}

#[track_caller]
fn run_in(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = application::command(folder);
    command.args(arguments).envs(environment.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary can be run");
    let ended = within(PATIENCE, "it ends", || child.try_wait().expect("a child process"));
    let output = child.wait_with_output().expect("its output");
    assert_eq!(output.status, ended);
    output
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

#[track_caller]
fn succeeds(output: &Output) -> &str {
    assert!(output.status.success(), "{}: {}", output.status, text(&output.stderr));
    text(&output.stdout)
}

/// Returns the one line that says why it was rejected.
#[track_caller]
fn refused(output: &Output) -> &str {
    assert_eq!(output.status.code(), Some(2), "{}{}", text(&output.stdout), text(&output.stderr));
    let error = text(&output.stderr);
    assert_eq!(error.lines().count(), 1, "{error}");
    assert_eq!(text(&output.stdout), "");
    error.trim_end()
}

// --- consume ---------------------------------------------------------------------------------------------------------

fn consume_command(topic: &Topic, arguments: &[&str]) -> Command {
    let mut command = application::command(Path::new(env!("CARGO_TARGET_TMPDIR")));
    command.arg("consume").args(arguments);
    command.env("KAFKA_BOOTSTRAP_SERVERS", topic.servers()).env("KAFKA_TOPIC", topic.name());
    command
}

/// Returns a group without other members.
fn consume(topic: &Topic, group: &str, arguments: &[&str]) -> Process {
    Process::start(&mut consume_command(topic, &[&["--group", group, "--format", "json"], arguments].concat()))
}

fn topic_with(records: usize) -> Topic {
    let topic = Topic::create(kafka::shared(), 3, &[]);
    write(&topic, 0, records);
    topic
}

/// Writes records with `n` from `first` on, to the partitions in turn.
fn write(topic: &Topic, first: usize, count: usize) {
    let record = |n: usize| {
        let value = json!({"user": format!("user-{n}"), "action": "step", "n": n}).to_string();
        NewRecord::new().key(format!("user-{n}")).value(value).partition((n % 3) as i32)
    };
    topic.produce_all(&(first..first + count).map(record).collect::<Vec<_>>());
}

fn numbers(lines: &[String]) -> Vec<u64> {
    lines
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["value"]["n"].as_u64().expect("n"))
        .collect()
}

#[test]
fn consume_prints_what_the_group_has_not_read() {
    let topic = topic_with(60);
    let group = crate::common::unique("group");
    let mut consumer = consume(&topic, &group, &[]);
    assert_same_set(0..60, numbers(&consumer.some_lines(60)));
    write(&topic, 60, 30);
    assert_same_set(60..90, numbers(&consumer.some_lines(30)));
    consumer.signal("TERM");
    assert!(consumer.wait(PATIENCE).success());
    assert!(consumer.remaining_lines().is_empty());
    write(&topic, 90, 30);
    let consumer = consume(&topic, &group, &[]);
    assert_same_set(90..120, numbers(&consumer.some_lines(30)));
}

#[test]
fn consume_can_start_from_the_beginning_and_another_group_has_its_own_offsets() {
    let topic = topic_with(30);
    let group = crate::common::unique("group");
    for arguments in [&[][..], &["--from-beginning"], &["--from-beginning"]] {
        let mut consumer = consume(&topic, &group, arguments);
        assert_same_set(0..30, numbers(&consumer.some_lines(30)));
        consumer.signal("INT");
        assert!(consumer.wait(PATIENCE).success());
    }
    let consumer = consume(&topic, &crate::common::unique("group"), &[]);
    assert_same_set(0..30, numbers(&consumer.some_lines(30)));
}

#[test]
fn the_group_of_the_tutorial_is_the_default() {
    let topic = topic_with(3);
    let mut consumer = Process::start(&mut consume_command(&topic, &[]));
    consumer.some_lines(3);
    consumer.signal("TERM");
    assert!(consumer.wait(PATIENCE).success());
    assert!(succeeds(&run(&["consume", "--help"], &[])).contains("user_activity_group"));
}

#[test]
fn three_consumers_share_the_partitions() {
    let topic = topic_with(0);
    let group = crate::common::unique("group");
    let mut consumers: Vec<Process> = (0..3).map(|_| consume(&topic, &group, &[])).collect();
    // Written one by one until each of the three has its own partition.
    let mut n = 0;
    let seen = std::cell::RefCell::new(vec![Vec::new(); 3]);
    let partitions = |lines: &[String]| -> HashSet<u64> {
        lines
            .iter()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["partition"].as_u64().expect("a number"))
            .collect()
    };
    within(Duration::from_secs(40), "the partitions are shared out", || {
        write(&topic, n, 3);
        n += 3;
        let mut latest = HashSet::new();
        for (lines, consumer) in seen.borrow_mut().iter_mut().zip(&consumers) {
            let new = consumer.lines_so_far();
            latest.insert(partitions(&new).into_iter().collect::<Vec<_>>());
            lines.extend(new);
        }
        (latest.len() == 3 && latest.iter().all(|partitions| partitions.len() == 1)).then_some(())
    });
    write(&topic, n, 300);
    for (lines, consumer) in seen.borrow_mut().iter_mut().zip(&mut consumers) {
        let shared = (n..n + 300).filter(|n| n % 3 == 0).count();
        while numbers(lines).iter().filter(|number| **number >= n as u64).count() < shared {
            lines.push(consumer.line());
        }
        consumer.signal("TERM");
        assert!(consumer.wait(PATIENCE).success());
    }
    let all: Vec<u64> = seen.borrow().iter().flat_map(|lines| numbers(lines)).collect();
    let after: Vec<u64> = all.iter().copied().filter(|number| *number >= n as u64).collect();
    assert_same_set(n as u64..n as u64 + 300, after);
    // While partitions moved between them: at least once.
    let once: HashSet<u64> = all.into_iter().collect();
    assert_same_set(0..n as u64 + 300, once);
}

#[test]
fn a_crash_of_consume_repeats_records_and_skips_none() {
    let topic = topic_with(3000);
    let group = crate::common::unique("group");
    let folder = TempDir::new().expect("a temporary folder");
    // The group notices a crashed member after this time.
    let quick = "[default.kafka.properties]\n\"session.timeout.ms\" = \"6000\"\n\"heartbeat.interval.ms\" = \"500\"\n";
    std::fs::write(folder.path().join("Rocket.toml"), quick).expect("a file");
    let start = || {
        let mut command = consume_command(&topic, &["--group", &group, "--format", "json"]);
        Process::start(command.current_dir(folder.path()))
    };
    let crashed = start();
    let mut lines = crashed.some_lines(1000);
    crashed.signal("KILL");
    lines.extend(crashed.remaining_lines());
    let again = start();
    let mut found: HashSet<u64> = numbers(&lines).into_iter().collect();
    let deadline = Instant::now() + Duration::from_secs(40);
    while found.len() < 3000 {
        assert!(Instant::now() < deadline, "{} of 3000", found.len());
        let line = again.lines_so_far();
        found.extend(numbers(&line));
        std::thread::yield_now();
    }
}

#[test]
fn consume_writes_text_for_people() {
    let topic = Topic::create(kafka::shared(), 1, &[]);
    topic.produce(
        &NewRecord::new()
            .key("John")
            .value("{\"user\":\"John\",\n\t\"action\":\"log in\"}")
            .timestamp(1_795_435_200_123),
    );
    topic.produce(&NewRecord::new().key(vec![255]).value("\u{1b}[31mred\u{7}"));
    topic.produce(&NewRecord::new());
    let mut consumer = Process::start(&mut consume_command(&topic, &["--group", &crate::common::unique("group")]));
    let lines = consumer.some_lines(3);
    assert_eq!(lines[0], "2026-11-23T12:00:00.123Z\t0\t0\tJohn\t{\"user\":\"John\",\\n\\t\"action\":\"log in\"}");
    for line in &lines {
        assert_eq!(line.split('\t').count(), 5, "{line:?}");
        assert!(!line.chars().any(|c| c.is_control() && c != '\t'), "{line:?} could play tricks with a terminal");
    }
    consumer.signal("TERM");
    assert!(consumer.wait(PATIENCE).success());
}

#[test]
fn consume_writes_json_as_the_api_does() {
    let app = Application::on(Broker::Kafka).start();
    let mut stream = app.stream("");
    app.accept(&json!({"user": "John", "action": "login"}));
    app.topic().produce(&NewRecord::new().key(vec![255]).value(vec![254]).null_header("h"));
    let mut expected = stream.records(2);
    let consumer = consume(app.topic(), &crate::common::unique("group"), &[]);
    let mut found: Vec<Value> =
        consumer.some_lines(2).iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for records in [&mut expected, &mut found] {
        records.sort_by_key(ToString::to_string);
    }
    assert_eq!(found, expected);
}

/// `footfall consume | head -n 1`
#[test]
fn consume_ends_cleanly_when_its_reader_has_enough() {
    let topic = topic_with(3);
    let mut command = consume_command(&topic, &["--group", &crate::common::unique("group")]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary can be run");
    let mut output = BufReader::new(child.stdout.take().expect("its standard output"));
    output.read_line(&mut String::new()).expect("a line");
    drop(output);
    let mut n = 3;
    let status = eventually("it ends", || {
        write(&topic, n, 3);
        n += 3;
        child.try_wait().expect("a child process")
    });
    let output = child.wait_with_output().expect("its output");
    assert!(status.success(), "{status}: {}", text(&output.stderr));
    assert!(!text(&output.stderr).contains("panicked"), "{}", text(&output.stderr));
}

#[test]
fn consume_topics_and_groups_need_a_cluster() {
    for command in ["consume", "topics", "groups"] {
        assert!(refused(&run(&[command], &[])).contains("KAFKA_BOOTSTRAP_SERVERS"));
    }
}

// --- topics ----------------------------------------------------------------------------------------------------------

#[test]
fn topics_lists_partitions_and_records() {
    let topic = topic_with(42);
    let environment = [("KAFKA_BOOTSTRAP_SERVERS", topic.servers())];
    let listed = run(&["topics"], &environment);
    let listed = succeeds(&listed);
    let header: Vec<&str> = listed.lines().next().expect("a header").split_whitespace().collect();
    assert_eq!(header, ["TOPIC", "PARTITIONS", "RECORDS"]);
    let line = listed.lines().find(|line| line.starts_with(topic.name())).expect("the topic");
    assert_eq!(line.split_whitespace().skip(1).collect::<Vec<_>>(), ["3", "42"]);
    assert!(!listed.contains("__consumer_offsets"), "Kafka's own topics are not listed: {listed}");

    let listed = run(&["topics", "--format", "json"], &environment);
    let lines: Vec<Value> = succeeds(&listed).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(lines.contains(&json!({"topic": topic.name(), "partitions": 3, "records": 42})), "{lines:?}");
}

#[test]
fn topics_says_in_bounded_time_that_no_broker_answers() {
    let started = Instant::now();
    let output = run(&["topics"], &[("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9")]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("127.0.0.1:9"), "{}", text(&output.stderr));
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
}

// --- groups ----------------------------------------------------------------------------------------------------------

#[test]
fn groups_lists_state_members_and_lag() {
    let topic = topic_with(30);
    let group = crate::common::unique("group");
    let consumer = consume(&topic, &group, &[]);
    consumer.some_lines(30);
    let environment = [("KAFKA_BOOTSTRAP_SERVERS", topic.servers())];
    let line = || {
        let listed = run(&["groups"], &environment);
        let listed = succeeds(&listed);
        let header: Vec<&str> = listed.lines().next().expect("a header").split_whitespace().collect();
        assert_eq!(header, ["GROUP", "STATE", "MEMBERS", "LAG"]);
        let line = listed.lines().find(|line| line.starts_with(&group))?;
        Some(line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>())
    };
    eventually("it has committed all", || (line()? == ["Stable", "1", "0"]).then_some(()));
    // A paused member keeps its partitions.
    consumer.signal("STOP");
    write(&topic, 30, 12);
    eventually("the lag is counted", || (line()? == ["Stable", "1", "12"]).then_some(()));
    let listed = run(&["groups", "--format", "json"], &environment);
    let groups: Vec<Value> = succeeds(&listed).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let found = groups.iter().find(|found| found["group"] == group.as_str()).expect("the group");
    assert_eq!((&found["lag"], &found["partitions"][2]["lag"]), (&json!(12), &json!(4)), "{found}");
}

#[test]
fn groups_says_in_bounded_time_that_no_broker_answers() {
    let started = Instant::now();
    let output = run(&["groups"], &[("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9")]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("127.0.0.1:9"), "{}", text(&output.stderr));
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
}

/// Servers, further settings, and a part of the reason.
type Unreachable<'a> = (&'a str, Vec<(&'a str, &'a str)>, &'a str);

const SASL: [(&str, &str); 3] = [
    ("FOOTFALL_KAFKA__SECURITY_PROTOCOL", "sasl_plaintext"),
    ("FOOTFALL_KAFKA__SASL_MECHANISM", "SCRAM-SHA-256"),
    ("FOOTFALL_KAFKA__SASL_USERNAME", "me"),
];

fn login(password: &str) -> Vec<(&'static str, &str)> {
    [&SASL[..], &[("FOOTFALL_KAFKA__SASL_PASSWORD", password)]].concat()
}

/// The server logs the same.
#[test]
fn the_reason_why_kafka_cannot_be_reached_is_shown() {
    let (kafka, secured) = Kafka::start_with_acls();
    // Nothing listens where the broker directs its clients.
    let (advertising, upstream) = Kafka::start_advertising(9);
    let _topic = Topic::create(advertising.servers(), 1, &[]);
    let (plain, upstream) = (kafka.servers(), upstream.to_string());
    let cases: [Unreachable; 6] = [
        ("127.0.0.1:9", vec![], "refused"),
        (plain, vec![("FOOTFALL_KAFKA__SECURITY_PROTOCOL", "ssl")], "SSL"),
        (plain, login("correct-horse"), "SASL"),
        (&secured, login("correct-horse"), "uthentication failed"),
        (&secured, vec![], "it may expect a login or TLS (kafka.security_protocol)"),
        (&upstream, vec![], "advertised.listeners"),
    ];
    std::thread::scope(|scope| {
        for (servers, more, cause) in &cases {
            for command in ["topics", "groups"] {
                scope.spawn(move || {
                    let environment = [&[("KAFKA_BOOTSTRAP_SERVERS", *servers)], &more[..]].concat();
                    let output = run(&[command], &environment);
                    let error = text(&output.stderr);
                    assert_eq!(output.status.code(), Some(1), "{command} {servers} {more:?}: {error}");
                    assert!(error.contains(cause) && !error.contains("correct-horse"), "{command} {servers}: {error}");
                });
            }
            scope.spawn(move || {
                let app = more.iter().fold(Application::at(servers), |app, (name, value)| app.env(name, value));
                let app = app.start_without_waiting_for_kafka();
                eventually("the server says it", || app.get("/readyz").text().contains(cause).then_some(()));
            });
        }
        scope.spawn(|| consume_says_why_it_reads_nothing(&secured));
    });
}

/// A consumer keeps trying if a broker may come back, and does not repeat the reason; it ends if only an operator can
/// help.
fn consume_says_why_it_reads_nothing(secured: &str) {
    let consume = |more: &[(&str, &str)]| {
        let mut command = application::command(Path::new(env!("CARGO_TARGET_TMPDIR")));
        command.arg("consume").envs(more.iter().copied()).env("KAFKA_BOOTSTRAP_SERVERS", secured);
        Process::start(&mut command)
    };
    let mut refused = consume(&login("correct-horse"));
    assert_eq!(refused.wait(PATIENCE).code(), Some(1));
    eventually("it says why", || refused.errors().contains("uthentication failed").then_some(()));
    let unheard = consume(&[]);
    eventually("it says why", || unheard.errors().contains("kafka.security_protocol").then_some(()));
    std::thread::sleep(Duration::from_secs(2));
    assert!(unheard.errors().lines().count() < 10, "{}", unheard.errors());
}

// --- check -----------------------------------------------------------------------------------------------------------

#[test]
fn check_shows_every_default() {
    insta::assert_snapshot!("check", succeeds(&run(&["check"], &[])));
}

#[test]
fn check_says_where_each_value_came_from() {
    let folder = TempDir::new().expect("a temporary folder");
    let file = "[default.feed]\nheartbeat = \"20s\"\nevents = 500\n[default.kafka]\ntopic = \"from_the_file\"\n";
    std::fs::write(folder.path().join("Rocket.toml"), file).expect("a file");
    let environment = [
        ("FOOTFALL_FEED__EVENTS", "600"),
        ("KAFKA_TOPIC", "from_the_alias"),
        ("KAFKA_BOOTSTRAP_SERVERS", "kafka-1:9092"),
    ];
    let output = run_in(folder.path(), &["check"], &environment);
    let shown = succeeds(&output);
    let line = |key: &str| shown.lines().find(|line| line.split_whitespace().next() == Some(key)).expect("the key");
    assert!(line("feed.heartbeat").contains("20s") && line("feed.heartbeat").contains("Rocket.toml"), "{shown}");
    assert!(line("feed.events").contains("600") && line("feed.events").contains("FOOTFALL_"), "{shown}");
    assert!(line("kafka.topic").contains("from_the_alias") && line("kafka.topic").contains("KAFKA_TOPIC"), "{shown}");
    assert!(line("kafka.bootstrap_servers").contains("KAFKA_BOOTSTRAP_SERVERS"), "{shown}");
    assert!(line("kafka.partitions").ends_with("default"), "{shown}");
    let end = "the configuration is valid; whether Kafka answers was not asked: `footfall topics` does that\n";
    assert!(shown.ends_with(end), "{shown}");
}

#[test]
fn a_text_setting_is_the_text_of_its_variable() {
    let environment = [
        ("KAFKA_BOOTSTRAP_SERVERS", "kafka-1:9092"),
        ("KAFKA_TOPIC", "2024"),
        ("FOOTFALL_KAFKA__SECURITY_PROTOCOL", "sasl_ssl"),
        ("FOOTFALL_KAFKA__SASL_MECHANISM", "PLAIN"),
        ("FOOTFALL_KAFKA__SASL_USERNAME", "007"),
        ("FOOTFALL_KAFKA__SASL_PASSWORD", "0123"),
        ("FOOTFALL_INGEST__SOURCE", "{a=1}"),
        ("FOOTFALL_INGEST__EVENT_TYPE", "true"),
    ];
    let output = run(&["check"], &environment);
    let shown = succeeds(&output);
    for (key, value, variable) in [
        ("kafka.topic", "\"2024\"", "KAFKA_TOPIC"),
        ("kafka.sasl_username", "\"007\"", "FOOTFALL_KAFKA__SASL_USERNAME"),
        ("ingest.source", "\"{a=1}\"", "FOOTFALL_INGEST__SOURCE"),
        ("ingest.event_type", "\"true\"", "FOOTFALL_INGEST__EVENT_TYPE"),
    ] {
        let line = shown.lines().find(|line| line.split_whitespace().next() == Some(key)).expect("the key");
        assert!(line.contains(value) && line.contains(variable), "{line}");
    }
    let output = run(&["check"], &[("FOOTFALL_KAFKA__TOPIC", "007")]);
    assert!(succeeds(&output).contains("\"007\""));
    let folder = TempDir::new().expect("a temporary folder");
    let latin_1 = std::ffi::OsStr::from_bytes(b"Jos\xe9");
    let output =
        application::command(folder.path()).arg("check").env("FOOTFALL_KAFKA__SASL_PASSWORD", latin_1).output();
    let error = refused(&output.expect("it can be run")).to_owned();
    assert!(error.contains("FOOTFALL_KAFKA__SASL_PASSWORD is not UTF-8") && !error.contains("Jos"), "{error}");
}

#[test]
fn a_password_is_the_text_of_its_variable() {
    let (kafka, secured) = Kafka::start_with_acls();
    let topic = Topic::create(kafka.servers(), 1, &[]);
    let user = User::create(kafka.servers(), "0042", "0123");
    user.grant(topic.name(), &[DESCRIBE]);
    for password in ["0123", "1e3", "true", "[x]", "\"x\"", "{a=1}", "a = 'b', "] {
        user.set_password(password);
        let environment = [
            ("KAFKA_BOOTSTRAP_SERVERS", &*secured),
            ("FOOTFALL_KAFKA__SECURITY_PROTOCOL", "sasl_plaintext"),
            ("FOOTFALL_KAFKA__SASL_MECHANISM", "SCRAM-SHA-256"),
            ("FOOTFALL_KAFKA__SASL_USERNAME", user.name()),
            ("FOOTFALL_KAFKA__SASL_PASSWORD", password),
        ];
        // The broker may apply the new password a moment later.
        eventually("it can log in", || {
            let output = run(&["topics"], &environment);
            (output.status.success() && text(&output.stdout).contains(topic.name())).then_some(())
        });
    }
}

/// Each with the key that the one line must name, and a part of the valid values.
#[test]
fn an_invalid_configuration_stops_the_start_with_one_line() {
    let sasl = ("KAFKA_BOOTSTRAP_SERVERS", "kafka-1:9092");
    type Case<'a> = (Vec<(&'a str, &'a str)>, &'a str, &'a str);
    let cases: Vec<Case> = vec![
        (vec![("FOOTFALL_FEED__HEARTBEET", "1s")], "feed.heartbeet", "heartbeat"),
        (vec![("FOOTFALL_FEDE__HEARTBEAT", "1s")], "fede", "feed"),
        (vec![("FOOTFALL_FEED__HEARTBEAT", "15")], "feed.heartbeat", "10s"),
        (vec![("FOOTFALL_FEED__HEARTBEAT", "1 parsec")], "feed.heartbeat", "15m"),
        (vec![("FOOTFALL_FEED__HEARTBEAT", "1ms")], "feed.heartbeat", "100ms"),
        (vec![("FOOTFALL_FEED__EVENTS", "many")], "feed.events", "whole number"),
        (vec![("FOOTFALL_FEED__EVENTS", "-1")], "feed.events", "not negative"),
        (vec![("FOOTFALL_FEED__BYTES", "10 bananas")], "feed.bytes", "16MiB"),
        (
            vec![("FOOTFALL_INGEST__MAX_EVENT", "2MiB")],
            "ingest.max_event",
            "expected 1B to 900KiB (a Kafka broker accepts messages up to 1 MB by default), not 2MiB",
        ),
        (vec![("FOOTFALL_INGEST__MAX_BODY", "1KiB")], "ingest.max_body", "ingest.max_event"),
        (
            vec![("FOOTFALL_INGEST__LINGER", "1s"), ("FOOTFALL_INGEST__DEADLINE", "500ms")],
            "ingest.linger",
            "ingest.deadline",
        ),
        (vec![("FOOTFALL_INGEST__COMPRESSION", "rar")], "ingest.compression", "zstd"),
        (vec![("KAFKA_TOPIC", "no spaces")], "kafka.topic", "a-z"),
        (vec![("KAFKA_BOOTSTRAP_SERVERS", "kafka-1")], "kafka.bootstrap_servers", "host:port"),
        (vec![("FOOTFALL_KAFKA__PARTITIONS", "0")], "kafka.partitions", "1"),
        (vec![sasl, ("FOOTFALL_KAFKA__SECURITY_PROTOCOL", "tls")], "kafka.security_protocol", "sasl_ssl"),
        (vec![sasl, ("FOOTFALL_KAFKA__SASL_USERNAME", "me")], "kafka.sasl_username", "kafka.security_protocol"),
        (vec![("FOOTFALL_KAFKA__SECURITY_PROTOCOL", "ssl")], "kafka.security_protocol", "kafka.bootstrap_servers"),
        (vec![sasl, ("FOOTFALL_KAFKA__PROPERTIES", r#"{"acks"="1"}"#)], "kafka.properties.acks", ""),
        (vec![sasl, ("FOOTFALL_KAFKA__PROPERTIES", r#"{"no.such.property"="1"}"#)], "no.such.property", ""),
        (
            vec![sasl, ("FOOTFALL_KAFKA__PROPERTIES", r#"{"delivery.report.only.error"="true"}"#)],
            "kafka.properties.delivery.report.only.error",
            "cannot be set",
        ),
        (vec![("FOOTFALL_HTTP__HOSTS", "https://a.example")], "http.hosts", "footfall.example.com"),
        (vec![("FOOTFALL_HTTP__HOSTS", "a.example, b.example:80")], "http.hosts", "without scheme and port"),
        (vec![("FOOTFALL_HTTP__HOSTS", "{a=1}")], "http.hosts", "list"),
        (vec![("FOOTFALL_INGEST__ORIGINS", "https://a.example, b.example")], "ingest.origins", "https://shop.example"),
        (vec![("FOOTFALL_INGEST__ORIGINS", "*")], "ingest.origins", "without a path"),
        (vec![("FOOTFALL_INGEST__ORIGINS", "7")], "ingest.origins", "a list of origins"),
        (vec![("FOOTFALL_INGEST__TRACKER", "/a/b.js")], "ingest.tracker", "such as /track.js"),
        (vec![("FOOTFALL_INGEST__TRACKER", "/events.js")], "ingest.tracker", "choose another name"),
        (vec![("ROCKET_PORT", "nonsense")], "`port` (environment variable ROCKET_PORT)", "65535"),
        (vec![("ROCKET_PORT", "70000")], "port", "65535"),
        (vec![("ROCKET_PORT", "-1")], "port", "65535"),
        (vec![("ROCKET_ADDRESS", "nowhere")], "address", "127.0.0.1"),
        (vec![("ROCKET_WORKERS", "many")], "workers", "whole number"),
        (vec![("ROCKET_LIMITS", "{json=\"1 banana\"}")], "limits", "size"),
        (vec![("ROCKET_PROT", "80")], "prot", "ROCKET_PROT"),
        (
            vec![("ROCKET_TLS", r#"{certs="a.pem", key="b.pem"}"#)],
            "`tls.certs` (environment variable ROCKET_TLS)",
            "a.pem",
        ),
        (vec![("FOOTFALL_LOG__FORMAT", "xml")], "log.format", "json"),
        (vec![("FOOTFALL_LOG__LEVEL", "loud=very")], "log.level", "info"),
        (
            vec![
                sasl,
                ("FOOTFALL_KAFKA__SECURITY_PROTOCOL", "sasl_ssl"),
                ("FOOTFALL_KAFKA__SASL_PASSWORD_FILE", "/nowhere"),
            ],
            "kafka.sasl_password",
            "/nowhere",
        ),
    ];
    for (environment, key, right) in cases {
        for command in ["check", "serve"] {
            let output = run(&[command], &environment);
            let error = refused(&output);
            assert!(error.contains(key) && error.contains(right), "{environment:?}: {error}");
        }
    }
}

#[test]
fn an_error_in_the_configuration_file_names_the_file() {
    let folder = TempDir::new().expect("a temporary folder");
    let write = |text: &str| std::fs::write(folder.path().join("Rocket.toml"), text).expect("a file");
    write("[default.feed]\nheartbeet = \"15s\"\n");
    let output = run_in(folder.path(), &["check"], &[]);
    let error = refused(&output);
    assert!(error.contains("feed.heartbeet") && error.contains("Rocket.toml"), "{error}");
    write("[default.kafka\nsasl_password = \"secret\"\n");
    let output = run_in(folder.path(), &["check"], &[]);
    let error = refused(&output);
    assert!(error.contains("Rocket.toml") && error.contains("line 1"), "{error}");
    // The line with the mistake may be the one with the secret.
    write("[default.kafka]\nsasl_password = \"secret\n");
    let output = run_in(folder.path(), &["check"], &[]);
    let error = refused(&output);
    assert!(error.contains("line 2") && !error.contains("secret"), "{error}");
}

/// Not in the output of `check`, in errors, or in the most verbose log.
#[test]
fn secrets_are_never_printed() {
    let secret = "correct-horse-battery-staple";
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("password");
    std::fs::write(&file, format!("{secret}\n")).expect("a file");
    let file = file.to_str().expect("a path");
    let cluster = ("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9");
    let sasl = [
        cluster,
        ("FOOTFALL_KAFKA__SECURITY_PROTOCOL", "sasl_plaintext"),
        ("FOOTFALL_KAFKA__SASL_MECHANISM", "PLAIN"),
        ("FOOTFALL_KAFKA__SASL_USERNAME", "me"),
    ];
    let key = format!("{{\"ssl.key.password\"=\"{secret}\"}}");
    let odd = format!("{{a=\"{secret}\"}}");
    let mistyped = format!("{{\"ssl.key.passwrod\"=\"{secret}\"}}");
    let of_java = format!("{{\"sasl.jaas.config\"=\"PlainLoginModule required password={secret};\"}}");
    let no_table = format!("sasl.password={secret}");
    for more in [
        vec![("FOOTFALL_KAFKA__SASL_PASSWORD", secret)],
        vec![("FOOTFALL_KAFKA__SASL_PASSWORD_FILE", file)],
        vec![("FOOTFALL_KAFKA__SASL_PASSWORD", secret), ("FOOTFALL_KAFKA__SASL_PASSWORD_FILE", file)],
        vec![("FOOTFALL_KAFKA__SASL_PASSWORD", odd.as_str())],
        vec![("FOOTFALL_KAFKA__SASL_PASSWORD", secret), ("FOOTFALL_KAFKA__PROPERTIES", key.as_str())],
        vec![("FOOTFALL_KAFKA__SASL_PASSWORD", secret), ("FOOTFALL_FEED__EVENTS", "wrong")],
        vec![("FOOTFALL_KAFKA__PROPERTIES", mistyped.as_str())],
        vec![("FOOTFALL_KAFKA__PROPERTIES", of_java.as_str())],
        vec![("FOOTFALL_KAFKA__PROPERTIES", no_table.as_str())],
        vec![("FOOTFALL_KAFKA", secret)],
        vec![("FOOTFALL_KAFKA__PARTITIONS", secret)],
    ] {
        let output = run(&["check"], &[&sasl[..], &more].concat());
        let printed = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert!(!printed.is_empty() && !printed.contains(secret), "{more:?}: {printed}");
    }
    let mut command = application::command(folder.path());
    command.envs(sasl).envs([
        ("FOOTFALL_KAFKA__SASL_PASSWORD", secret),
        ("FOOTFALL_LOG__LEVEL", "trace"),
        ("ROCKET_PORT", "0"),
    ]);
    let mut serving = Process::start(&mut command);
    let mut printed = Vec::new();
    // The client has tried the broker by then.
    eventually("it logs that Kafka is unreachable", || {
        printed.extend(serving.lines_so_far());
        printed.iter().any(|line| line.contains("kafka is unreachable")).then_some(())
    });
    serving.signal("TERM");
    serving.wait(PATIENCE);
    printed.extend(serving.remaining_lines());
    printed.push(serving.errors());
    assert!(!printed.concat().contains(secret), "{}", printed.join("\n"));
}

// --- serve and the rest ----------------------------------------------------------------------------------------------

#[test]
fn help_lists_commands_and_options() {
    let commands = ["", "serve", "demo", "send", "tail", "consume", "topics", "groups", "check", "healthcheck"];
    for command in commands.into_iter().chain(["completions", "man"]) {
        let arguments: Vec<&str> = [command, "--help"].into_iter().filter(|argument| !argument.is_empty()).collect();
        let name = format!("help {command}").trim_end().replace(' ', "_");
        insta::assert_snapshot!(name, succeeds(&run(&arguments, &[])));
    }
    assert_eq!(succeeds(&run(&["--version"], &[])), format!("footfall {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_variables_of_send_and_tail_are_not_settings() {
    let printed = run(&["check"], &[("FOOTFALL_URL", "http://127.0.0.1:1"), ("FOOTFALL_TOKEN", "secret")]);
    assert_eq!(succeeds(&printed), succeeds(&run(&["check"], &[])));
}

/// Also where no configuration can be read.
#[test]
fn completions_and_the_manual_page_have_every_command_and_option() {
    let wrong = [("FOOTFALL_NONSENSE__X", "1")];
    let commands = ["serve", "demo", "send", "tail", "consume", "topics", "groups", "check", "healthcheck"];
    let options = ["from-beginning", "rate"];
    let parts = || commands.iter().chain(&options);
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let printed = run(&["completions", shell], &wrong);
        let script = succeeds(&printed);
        assert!(parts().all(|part| script.contains(part)), "{shell}: {script}");
    }
    let printed = run(&["man"], &wrong);
    let page = succeeds(&printed).replace("\\-", "-");
    assert!(page.contains(".TH footfall 1"), "{page}");
    for part in commands.map(|command| format!(".SS footfall {command}")) {
        assert!(page.contains(&part), "no {part} in {page}");
    }
    for part in options.map(|option| format!("--{option}")) {
        assert!(page.contains(&part), "no {part} in {page}");
    }
    assert_eq!(page.matches(".SH OPTIONS").count(), 1, "{page}");
}

#[test]
fn an_invalid_argument_is_exit_code_2() {
    for arguments in [
        &["swerve"][..],
        &["--port", "80"],
        &["consume", "--format", "xml"],
        &["topics", "extra"],
        &["consume", "--group", ""],
        &["demo", "--rate", "0"],
    ] {
        let output = run(arguments, &[]);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains("--help"), "{}", text(&output.stderr));
    }
}

#[test]
fn the_health_check_asks_the_server_with_the_same_configuration() {
    let app = Application::on(Broker::Embedded).start();
    let port = app.address.port().to_string();
    succeeds(&run(&["healthcheck"], &[("ROCKET_PORT", &port)]));
    // As in a container, where the server listens on all addresses.
    succeeds(&run(&["healthcheck"], &[("ROCKET_PORT", &port), ("ROCKET_ADDRESS", "0.0.0.0")]));

    application::signal(app.process_id(), "TERM");
    app.wait_for_exit(PATIENCE);
    let ended = run(&["healthcheck"], &[("ROCKET_PORT", &port)]);
    assert_eq!(ended.status.code(), Some(1), "{}", text(&ended.stderr));
    assert!(text(&ended.stderr).contains(&format!("http://127.0.0.1:{port}/livez: ")), "{}", text(&ended.stderr));

    assert!(refused(&run(&["healthcheck"], &[("ROCKET_PORT", "0")])).contains("port: "));
}

#[test]
fn the_health_check_does_not_wait_for_a_server_that_hangs() {
    // The kernel completes the handshake; nobody answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("an address").port().to_string();
    let before = Instant::now();
    let output = run(&["healthcheck"], &[("ROCKET_PORT", &port)]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(before.elapsed() < Duration::from_secs(10), "it took {:?}", before.elapsed());
}

#[test]
fn an_occupied_port_is_reported_with_exit_code_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let output = run(&["serve"], &[("ROCKET_PORT", &port)]);
    assert_eq!(output.status.code(), Some(1), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(
        text(&output.stderr).contains(&port) || text(&output.stderr).contains("in use"),
        "{}",
        text(&output.stderr)
    );
    assert!(text(&output.stderr).lines().count() <= 2, "{}", text(&output.stderr));
}

#[test]
fn both_signals_end_the_server_with_exit_code_0() {
    for name in ["INT", "TERM"] {
        let app = Application::on(Broker::Embedded).start();
        application::signal(app.process_id(), name);
        assert_eq!(app.wait_for_exit(PATIENCE).code(), Some(0), "SIG{name}");
    }
}
