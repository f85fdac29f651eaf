//! `footfall send`: each line of a file becomes an event once, whatever ends meanwhile; and how the two clients reach the
//! server.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::common::application::{free_port, signal};
use crate::common::fake::answer;
use crate::common::nginx::base_path;
use crate::common::process::run;
use crate::common::tls::{Authority, Files, Tunnel};
use crate::common::wait::{PATIENCE, eventually};
use crate::common::{
    Application, Broker, FakeServer, NewRecord, Process, Proxy, Topic, Weather, application, assert_same_set,
};
use serde_json::{Value, json};
use tempfile::TempDir;

fn folder() -> TempDir {
    TempDir::with_prefix("footfall-send-").expect("a temporary folder")
}

/// Returns a command for a server at this address.
fn client(folder: &TempDir, command: &str, server: SocketAddr, arguments: &[&str]) -> Command {
    let mut client = application::command(folder.path());
    client.args([command, "--url", &format!("http://{server}{}", base_path())]).args(arguments);
    client
}

fn send(folder: &TempDir, server: SocketAddr, arguments: &[&str]) -> Command {
    client(folder, "send", server, arguments)
}

/// Asserts the exit code, and returns the standard error.
#[track_caller]
fn ended(output: &Output, code: i32) -> &str {
    let errors = str::from_utf8(&output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(code), "{errors}");
    assert_eq!(output.stdout, b"");
    errors
}

/// The lines of events with numbers, of seven users.
fn events(numbers: std::ops::Range<usize>) -> String {
    let event = |n: usize| json!({"user": format!("user-{}", n % 7), "action": "step", "n": n}).to_string();
    numbers.map(|n| event(n) + "\n").collect()
}

/// Asserts that the topic has each of the events once, and those of a user in order.
#[track_caller]
fn assert_written(topic: &Topic, numbers: std::ops::Range<usize>, in_order: bool) {
    let mut of_users: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for record in topic.records() {
        let event = record.json();
        of_users.entry(event["user"].to_string()).or_default().push(event["n"].as_u64().expect("a number"));
    }
    for found in of_users.values().filter(|_| in_order) {
        assert!(found.is_sorted(), "{found:?}");
    }
    assert_same_set(numbers.map(|n| n as u64), of_users.into_values().flatten());
}

#[test]
fn each_line_is_written_once_in_order_and_a_second_run_writes_nothing() {
    let (app, folder) = (Application::on(Broker::Embedded).start(), folder());
    // Lines may be blank and end with CR LF, the last one with the file.
    let text = events(0..1200).replacen('\n', "\r\n \n", 3);
    fs::write(folder.path().join("events.ndjson"), text.trim_end()).expect("a file");
    for (arguments, replayed) in [(vec!["events.ndjson"], 0), (vec!["./events.ndjson"], 1200), (vec![], 1200)] {
        let mut command = send(&folder, app.address, &arguments);
        // A shell's `< events.ndjson`: the same file, so the same ids.
        command.stdin(File::open(folder.path().join("events.ndjson")).expect("a file"));
        let output = command.stdout(Stdio::piped()).output().expect("its output");
        let sums = format!("1203 lines: 1200 written ({replayed} of them already written), 0 rejected");
        assert!(ended(&output, 0).contains(&sums), "{output:?}");
        assert_written(app.topic(), 0..1200, true);
    }
}

#[test]
fn rejected_lines_are_named_and_kept_and_the_others_are_written() {
    let (app, folder) = (Application::on(Broker::Embedded).start(), folder());
    let good = [0, 1, 2].map(|n| json!({"user": "Ann", "action": "a", "n": n}).to_string());
    let large = json!({"user": "Ann", "action": "a", "text": "x".repeat(40_000)}).to_string();
    let long = json!({"user": "Ann", "action": "a", "text": "x".repeat(1 << 20)}).to_string();
    let lines: [(&[u8], &str); 9] = [
        (good[0].as_bytes(), ""),
        (br#"{"user":"Ann"}"#, "/action is missing"),
        (b"user Ann", "expected a JSON object"),
        (b"{\"user\":\"\xff\"}", "not UTF-8"),
        (large.as_bytes(), "maximum is 32768"),
        (good[1].as_bytes(), ""),
        (long.as_bytes(), "too long"),
        (br#"{"user":"Ann","action":"a","id":"two words"}"#, "/id"),
        (good[2].as_bytes(), ""),
    ];
    let input = lines.map(|(line, _)| line).join(&b'\n');
    let output = run(&mut send(&folder, app.address, &["-", "--rejects", "rejects", "--id-prefix", "first"]), input);
    let errors = ended(&output, 1);
    let mut reports = errors.lines();
    let rejected = (1..).zip(&lines).filter(|(_, (_, why))| !why.is_empty());
    for (number, (_, why)) in rejected.clone() {
        let report = reports.next().unwrap_or_default();
        assert!(report.starts_with(&format!("footfall: line {number}: ")) && report.contains(why), "{errors}");
    }
    assert!(
        reports.next().is_some_and(|sums| sums.contains("3 written (0 of them already written), 6 rejected")),
        "{errors}"
    );
    let kept: Vec<u8> =
        rejected.filter(|(n, _)| *n != 7).flat_map(|(_, (line, _))| [line, &b"\n"[..]].concat()).collect();
    assert_eq!(fs::read(folder.path().join("rejects")).expect("a file"), kept);
    assert_written(app.topic(), 0..3, true);

    // Also if no event of a request is valid.
    let output = run(&mut send(&folder, app.address, &[]), "{}\n\n{\"action\":\"a\"}\n");
    let errors = ended(&output, 1);
    for part in
        ["line 1: /user is missing", "line 3: /user is missing", "0 written (0 of them already written), 2 rejected"]
    {
        assert!(errors.contains(part), "{errors}");
    }
}

#[test]
fn lines_of_text_become_messages() {
    let (app, folder) = (Application::on(Broker::Embedded).start(), folder());
    let text = ["--format", "text", "--user", "web-1", "--action", "access"];
    let output = run(&mut send(&folder, app.address, &text), "GET / \"a\"\n\n{\"user\":\"x\"}\n");
    ended(&output, 0);
    let mut messages: Vec<Value> = app.topic().records().iter().map(|record| record.json()).collect();
    messages.iter().for_each(|event| assert!(event["id"].is_string(), "{event}"));
    messages.iter_mut().for_each(|event| drop(event.as_object_mut().expect("an object").remove("id")));
    let event = |message: &str| json!({"user": "web-1", "action": "access", "message": message});
    assert_eq!(messages, [event("GET / \"a\""), event("{\"user\":\"x\"}")]);

    let output = run(&mut send(&folder, app.address, &text), "");
    assert!(ended(&output, 0).contains("0 lines: 0 written"), "{output:?}");
    // The same lines of another pipe are other events.
    ended(&run(&mut send(&folder, app.address, &text), "GET / \"a\"\n"), 0);
    assert_eq!(app.topic().records().len(), 3);
    for wrong in [&["--format", "text"][..], &["--user", "Ann"], &["no-such-file"], &["--concurrency", "0"]] {
        let output = run(&mut send(&folder, app.address, wrong), "");
        ended(&output, 2);
    }
}

#[test]
fn an_export_is_sent_with_its_times_ids_and_attributes() {
    let (from, to, folder) =
        (Application::on(Broker::Embedded).start(), Application::on(Broker::Embedded).start(), folder());
    from.accept(&json!({"user": "Ann", "action": "a", "time": "2026-11-20T12:00:00Z", "id": "order-1"}));
    let cloud_event = r#"{"specversion":"1.0","id":"c-1","source":"/shop","type":"paid","subject":"Eve","tenant":"t",
        "time":"2026-11-20T13:00:00Z","datacontenttype":"application/vnd.shop+json","data":{"total": 31.50}}"#;
    for (content_type, event) in [
        ("application/json", r#"{"user":"Bob",  "action":"b","n":1.50}"#),
        ("application/cloudevents+json", cloud_event),
    ] {
        from.request("POST", "/api/v1/events").body(content_type, event).send().expect(201);
    }
    // Of another program, without any attribute.
    from.topic().produce(&NewRecord::event("Dan", "d").key("Dan").timestamp(1_795_435_200_123));
    eventually("it is read", || from.get("/api/v1/events?user=Dan").text().contains("Dan").then_some(()));
    let export = |app: &Application| app.get("/api/v1/events.ndjson?from=beginning").expect(200).text().to_owned();
    let exported = export(&from);
    assert_eq!(exported.lines().count(), 4);
    for _ in 0..2 {
        ended(&run(&mut send(&folder, to.address, &["--id-prefix", "backfill"]), exported.clone()), 0);
    }
    let records = |text: &str| -> Vec<Value> {
        let mut records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        records.sort_by_key(|record| record["key"].to_string());
        records
    };
    let arrived = export(&to);
    assert_eq!(arrived.lines().count(), 4, "{arrived}");
    assert!(
        arrived.contains(r#",  "action":"b","n":1.50}"#) && arrived.contains(r#"{"total": 31.50}"#),
        "the same bytes: {arrived}"
    );
    for (before, mut after) in records(&exported).into_iter().zip(records(&arrived)) {
        for place in ["partition", "offset", "timestamp", "topic"] {
            after[place] = before[place].clone();
        }
        if before["key"] == "Dan" {
            assert_eq!(after["time"], "2026-11-23T12:00:00.123Z");
            assert!(after["value"]["id"].as_str().is_some_and(|id| id.starts_with("backfill:")), "{after}");
            continue;
        }
        assert_eq!(after, before);
    }
}

#[test]
fn a_server_that_is_killed_and_restarted_gets_each_line_once() {
    let (app, folder) = (Application::on(Broker::Kafka).start(), folder());
    let proxy = Proxy::to(app.address);
    let mut command = send(&folder, proxy.address(), &["--concurrency", "4"]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary can be run");
    let mut input = child.stdin.take().expect("its standard input");
    input.write_all(events(0..5000).as_bytes()).expect("it reads");
    eventually("something is written", || (!app.topic().records().is_empty()).then_some(()));
    app.kill();
    let writer = std::thread::spawn(move || input.write_all(events(5000..10_000).as_bytes()));
    let again = app.replica().start();
    proxy.forward_to(again.address);
    writer.join().expect("a thread").expect("it reads");
    let output = child.wait_with_output().expect("its output");
    let errors = ended(&output, 0);
    assert!(errors.contains("trying again") && errors.contains("10000 lines: 10000 written"), "{errors}");
    assert_written(app.topic(), 0..10_000, false);
}

#[test]
fn a_sender_that_is_killed_in_a_loop_sends_each_line_once() {
    let (app, folder) = (Application::on(Broker::Embedded).start(), folder());
    fs::write(folder.path().join("events.ndjson"), events(0..20_000)).expect("a file");
    let resume = folder.path().join("resume.json");
    let position = || fs::read(&resume).unwrap_or_default();
    let start = || Process::start(&mut send(&folder, app.address, &["events.ndjson", "--resume-file", "resume.json"]));
    let mut rng = crate::common::random();
    for _ in 0..8 {
        if String::from_utf8_lossy(&position()).contains("\"lines\":20000") {
            break; // a fast machine has sent everything
        }
        let (before, sender) = (position(), start());
        eventually("it has sent more", || (position() != before).then_some(()));
        std::thread::sleep(Duration::from_micros(rng.u64(..10_000))); // so that the kill falls anywhere
        sender.signal("KILL");
    }
    let mut last = start();
    assert_eq!(last.wait(PATIENCE).code(), Some(0), "{}", last.errors());
    eventually("its sums", || last.errors().contains("of earlier runs: ").then_some(()));
    assert_written(app.topic(), 0..20_000, true);
}

#[test]
fn a_run_that_was_interrupted_continues_in_the_same_input_only() {
    let (app, folder) = (Application::on(Broker::Embedded).start(), folder());
    let arguments = ["--resume-file", "resume.json"];
    let mut child = send(&folder, app.address, &arguments)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary can be run");
    let mut input = child.stdin.take().expect("its standard input");
    input.write_all(events(0..10).as_bytes()).expect("it reads");
    eventually("the lines of a pipe that stays open are sent", || (app.topic().records().len() == 10).then_some(()));
    eventually("they are noted", || {
        fs::read_to_string(folder.path().join("resume.json")).ok()?.contains("lines\":10").then_some(())
    });
    signal(child.id(), "TERM");
    let output = child.wait_with_output().expect("its output");
    assert!(ended(&output, 3).contains("interrupted"), "{output:?}");
    drop(input);

    let other = events(1..20);
    let output = run(&mut send(&folder, app.address, &arguments), other);
    assert!(ended(&output, 3).contains("give the same input"), "{output:?}");
    let output = run(&mut send(&folder, app.address, &arguments), events(0..20));
    assert!(
        ended(&output, 0).contains("10 lines, after 10 of earlier runs: 10 written (0 of them already written)"),
        "{output:?}"
    );
    assert_written(app.topic(), 0..20, true);
}

#[test]
fn a_server_that_wants_to_wait_is_asked_again() {
    let (app, folder) = (Application::on(Broker::Embedded).env("FOOTFALL_INGEST__RATE_LIMIT", "500").start(), folder());
    let output = run(&mut send(&folder, app.address, &[]), events(0..1000));
    let errors = ended(&output, 0);
    assert_eq!(errors.matches("429").count(), 1, "reported once: {errors}");
    assert_written(app.topic(), 0..1000, true);
}

#[test]
fn sending_ends_with_3_if_there_is_no_server_or_it_refuses() {
    let (app, folder) = (Application::on(Broker::Embedded).start(), folder());
    let nowhere = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let output = run(&mut send(&folder, nowhere, &["--give-up-after", "300ms"]), events(0..3));
    let errors = ended(&output, 3);
    assert!(errors.contains("gave up after 0.3 s") && errors.contains("cannot connect to 127.0.0.1:"), "{errors}");
    assert!(errors.contains("0 written"), "{errors}");
    let elsewhere = format!("http://{}/elsewhere/", app.address);
    let output = run(application::command(folder.path()).args(["send"]).env("FOOTFALL_URL", elsewhere), events(0..3));
    assert!(ended(&output, 3).contains("the server answered 404"), "{output:?}");
    assert_written(app.topic(), 0..0, true);
}

#[test]
fn both_clients_use_https_with_a_private_authority() {
    let (authority, folder) = (Authority::new("Private"), folder());
    let files = Files::with(&authority.identity());
    let builder = Application::on(Broker::Embedded)
        .env("FOOTFALL_TLS__CERTS", &files.path("certs.pem"))
        .env("FOOTFALL_TLS__KEY", &files.path("key.pem"));
    let mut app = builder.start_without_waiting_for_kafka();
    let server = app.address;
    let tunnel = Tunnel::to(server, &authority.client());
    app.address = tunnel.address;
    app.wait_until_ready();
    let client = |command: &str, arguments: &[&str]| {
        let mut client = application::command(folder.path());
        let url = format!("https://localhost:{}{}", server.port(), base_path());
        client.args([command, "--url", &url, "--give-up-after", "500ms"]).args(arguments);
        client
    };
    fs::write(folder.path().join("ca.pem"), &authority.pem).expect("a file");
    ended(&run(&mut client("send", &["--ca-file", "ca.pem"]), events(0..5)), 0);
    let output = run(&mut client("tail", &["--ca-file", "ca.pem", "--last", "5", "--count", "5"]), "");
    assert!(output.status.success() && output.stdout.iter().filter(|b| **b == b'\n').count() == 5, "{output:?}");
    // Nothing but that authority is trusted.
    fs::write(folder.path().join("other.pem"), &Authority::new("Other").pem).expect("a file");
    for command in ["send", "tail"] {
        let output = run(&mut client(command, &["--ca-file", "other.pem"]), events(5..6));
        assert!(ended(&output, 3).contains("certificate"), "{output:?}");
        fs::write(folder.path().join("empty.pem"), "").expect("a file");
        let output = run(&mut client(command, &["--ca-file", "empty.pem"]), "");
        assert!(ended(&output, 2).contains("empty.pem"), "{output:?}");
    }
    assert_written(app.topic(), 0..5, true);
}

/// Lets a client ask a server that knows nothing. Returns the request.
fn request_of(folder: &Path, arguments: &[&str], token: Option<&str>) -> (String, Output) {
    let server = FakeServer::start(&[answer("404 Not Found", "text/plain", "")]);
    let mut command = application::command(folder);
    command.args(arguments).env("FOOTFALL_URL", format!("http://{}/base/", server.address));
    let output = run(command.envs(token.map(|token| ("FOOTFALL_TOKEN", token))), "");
    (server.requests().concat(), output)
}

#[test]
fn tokens_and_headers_are_sent_and_not_shown() {
    let folder = folder();
    let file = folder.path().join("token");
    fs::write(&file, "from-a-file\n").expect("a file");
    fs::write(folder.path().join("events"), events(0..1)).expect("a file");
    for (arguments, target) in [
        (["send", "events", "--header", "X-Tenant: shop"], "POST /base/api/v1/events HTTP/1.1\r\n"),
        (
            ["tail", "--user=Ann & Bob", "--header", "X-Tenant: shop"],
            "GET /base/api/v1/stream?user=Ann%20%26%20Bob HTTP/1.1\r\n",
        ),
    ] {
        let (head, output) = request_of(folder.path(), &arguments, Some("from-the-environment"));
        assert!(head.starts_with(target), "{head}");
        assert!(head.contains("\r\nx-tenant: shop\r\n"), "{head}");
        assert!(head.contains("\r\nauthorization: Bearer from-the-environment\r\n"), "{head}");
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let with_file = [&arguments[..], &["--token-file", "token"]].concat();
        let (head, again) = request_of(folder.path(), &with_file, Some("from-the-environment"));
        assert!(head.contains("\r\nauthorization: Bearer from-a-file\r\n"), "{head}");
        for shown in [output.stderr, again.stderr] {
            assert!(!String::from_utf8_lossy(&shown).contains("from-"), "{shown:?}");
        }
    }
    fs::write(&file, "\n").expect("a file");
    for wrong in [
        &["--token-file", "token"][..],
        &["--token-file", "missing"],
        &["--header", "no colon"],
        &["--url", "127.0.0.1:8000"],
        &["--url", "http://user:secret@127.0.0.1/"],
        &["--url", "http://127.0.0.1:80000"],
        &["--url", "http://127.0.0.1:0"],
        &["--url", "http://localhost:secret"],
        &["--header", "Authorization Bearer secret"],
        &["--header", "X-Key: secret\nX: y"],
        &["--header", "Content-Encoding: gzip"],
        &["--header", "Idempotency-Key: secret"],
    ] {
        for command in ["send", "tail"] {
            let output = run(application::command(folder.path()).arg(command).args(wrong), "");
            assert!(!ended(&output, 2).contains("secret"), "{output:?}");
        }
    }
    for command in ["send", "tail"] {
        let url = "http://user:hunter2@127.0.0.1/";
        let output = run(application::command(folder.path()).args([command, "--help"]).env("FOOTFALL_URL", url), "");
        assert!(!String::from_utf8_lossy(&output.stdout).contains("hunter2"), "{output:?}");
    }
}

#[test]
fn only_footfall_can_reject_lines() {
    let folder = folder();
    for (status, content_type, body) in [
        ("400 Bad Request", "text/html", "<h1>No</h1>"),
        ("413 Payload Too Large", "text/html", ""),
        ("422 Unprocessable Content", "application/json", r#"{"detail":"no","errors":[]}"#),
        ("400 Bad Request", "application/problem+json", r#"{"type":"/problems/bad-parameter","detail":"no"}"#),
    ] {
        let server = FakeServer::start(&[answer(status, content_type, body)]);
        let output = run(&mut send(&folder, server.address, &["--rejects", "rejects"]), events(0..4));
        let errors = ended(&output, 3);
        assert!(errors.contains("0 lines: 0 written") && errors.contains(" 0 rejected"), "{status}: {errors}");
        assert_eq!(fs::read(folder.path().join("rejects")).expect("a file"), b"");
    }
    let to = "HTTP/1.1 308 Permanent Redirect\r\nLocation: https://new.example.com/\r\nConnection: close\r\n\r\n";
    let output = run(&mut send(&folder, FakeServer::start(&[to.to_owned()]).address, &[]), events(0..1));
    assert!(ended(&output, 3).contains("refers to https://new.example.com/"), "{output:?}");
}

#[test]
fn what_may_succeed_later_is_sent_again_alone() {
    let folder = folder();
    let server = FakeServer::start(&[
        answer("520 Web Server Returns an Unknown Error", "text/html", ""),
        answer(
            "207 Multi-Status",
            "application/json",
            r#"{"results":[{"status":503},{"status":201},{"status":504,"retryable":true}]}"#,
        ),
        // The server has no room for the reason of the second one.
        answer(
            "422 Unprocessable Content",
            "application/problem+json",
            r#"{"type":"/problems/invalid-event","detail":"2 events","errors":[{"index":0,"pointer":"/n","detail":"odd"}]}"#,
        ),
        answer("201 Created", "application/json", r#"{"results":[{"status":201}]}"#),
    ]);
    let output = run(&mut send(&folder, server.address, &[]), events(0..3));
    let errors = ended(&output, 1);
    assert!(errors.contains("line 1: /n odd") && errors.contains("3 lines: 2 written"), "{errors}");
    let numbers = |request: &String| -> Vec<u64> {
        let (_, body) = request.split_once("\r\n\r\n").expect("a body");
        let event = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["n"].as_u64().expect("n");
        body.lines().map(event).collect()
    };
    let requests: Vec<Vec<u64>> = server.requests().iter().map(numbers).collect();
    assert_eq!(requests, [vec![0, 1, 2], vec![0, 1, 2], vec![0, 2], vec![2]]);
}

#[test]
fn a_server_that_stalls_is_given_up_and_a_signal_ends_the_wait() {
    let (app, folder) = (Application::on(Broker::Embedded).start(), folder());
    fs::write(folder.path().join("events"), events(0..5)).expect("a file");
    let proxy = Proxy::to(app.address);
    proxy.set(Weather::BlackHole);
    let arguments = ["events", "--resume-file", "resume"];
    let mut stalled = Process::start(&mut send(&folder, proxy.address(), &arguments));
    let output = run(&mut send(&folder, proxy.address(), &["events", "--give-up-after", "500ms"]), "");
    assert!(ended(&output, 3).contains("gave up after 0.5 s"), "{output:?}");
    stalled.signal("INT");
    assert_eq!(stalled.wait(PATIENCE).code(), Some(3));
    eventually("its reason", || stalled.errors().contains("interrupted").then_some(()));

    proxy.set(Weather::Refuse);
    let mut retrying = Process::start(&mut send(&folder, proxy.address(), &arguments));
    eventually("it tries again", || retrying.errors().contains("trying again").then_some(()));
    retrying.signal("TERM");
    assert_eq!(retrying.wait(PATIENCE).code(), Some(3));
    proxy.restore();
    ended(&run(&mut send(&folder, proxy.address(), &arguments), ""), 0);
    assert_written(app.topic(), 0..5, true);
}

#[test]
fn a_file_that_grows_continues_behind_its_last_line_only() {
    let (app, folder) = (Application::on(Broker::Embedded).start(), folder());
    let file = folder.path().join("events");
    let send = || run(&mut send(&folder, app.address, &["events", "--resume-file", "resume"]), "");
    let (text, end) = (events(0..3), events(0..2).len());
    // In the middle of a line.
    fs::write(&file, &text[..end + 10]).expect("a file");
    let output = send();
    assert!(ended(&output, 3).contains("line 3 is incomplete"), "{output:?}");
    assert_written(app.topic(), 0..2, true);
    // The whole line, then its end, then more.
    for more in [text.trim_end(), &text, &events(0..4)] {
        fs::write(&file, more).expect("a file");
        ended(&send(), 0);
        assert_written(app.topic(), 0..more.lines().count(), true);
    }
    fs::write(&file, events(0..5).trim_end()).expect("a file");
    ended(&send(), 0);
    fs::write(&file, format!("{} {}", events(0..5).trim_end(), events(5..6))).expect("a file");
    let output = send();
    assert!(ended(&output, 3).contains("line 5 was sent before it was complete"), "{output:?}");
    assert_written(app.topic(), 0..5, true);
}

#[test]
fn a_resume_file_belongs_to_one_run_one_server_and_one_input() {
    let (app, folder) = (Application::on(Broker::Embedded).start(), folder());
    let mut first = send(&folder, app.address, &["--resume-file", "resume", "--id-prefix", "a"]);
    let mut first = first.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary can be run");
    eventually("it has started", || folder.path().join("resume").exists().then_some(()));
    let again = |server: SocketAddr, arguments: &[&str]| {
        let arguments = [&["--resume-file", "resume"], arguments].concat();
        run(&mut send(&folder, server, &arguments), events(0..3))
    };
    let output = again(app.address, &[]);
    assert!(ended(&output, 2).contains("another run uses resume"), "{output:?}");
    drop(first.stdin.take());
    assert!(first.wait().expect("its end").success());

    let elsewhere = Proxy::to(app.address);
    fs::write(folder.path().join("events"), events(0..3)).expect("a file");
    fs::hard_link(folder.path().join("events"), folder.path().join("other-name")).expect("a link");
    for (server, arguments, why) in [
        (elsewhere.address(), &[][..], "resume belongs to http://127.0.0.1:"),
        (app.address, &["--id-prefix", "b"], "has other ids"),
        (app.address, &["--rejects", "./resume"], "--resume-file and --rejects are the same file"),
        (app.address, &["events", "--rejects", "other-name"], "the input and --rejects are the same file"),
        (app.address, &["."], "is a folder"),
    ] {
        let output = again(server, arguments);
        assert!(ended(&output, 2).contains(why), "{arguments:?}: {output:?}");
    }
    let output = run(&mut send(&folder, app.address, &["--resume-file", "new", "--rejects", "./new"]), "");
    ended(&output, 2);
    assert!(!folder.path().join("new").exists());
    ended(&again(app.address, &["--id-prefix", "a"]), 0);
    assert_written(app.topic(), 0..3, true);
}
