//! The end of a process, and the next process that takes its place: no connection is refused or reset.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::common::application::{Builder, INHERIT, command_after, signal};
use crate::common::wait::{PATIENCE, within};
use crate::common::{Application, Broker, Load, Retries, Servers, Topic};
use serde_json::json;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

/// A process may take this long to end beside `ingest.deadline`, and a busy machine as long again.
const END: Duration = Duration::from_secs(6);

/// Replaces a process three times while clients connect anew for each post. Every attempt is answered, and what is
/// acknowledged is in the topic.
#[track_caller]
fn replace_under_load(topic: &Topic, first: Application, next: impl Fn() -> Builder) {
    let mut running = first;
    let ledger = Load::new(&Servers::of(&running), "/api/v1/events", Retries::Never).beside(|load| {
        load.wait_for(100, 201);
        for _ in 0..3 {
            // It listens when it accepts events.
            let new = next().start_without_waiting_for_kafka();
            load.wait_for(100, 201);
            let old = std::mem::replace(&mut running, new);
            let asked = Instant::now();
            old.terminate();
            assert!(old.wait_for_exit(PATIENCE).success());
            assert!(asked.elapsed() < END, "{:?}", asked.elapsed());
            load.wait_for(100, 201);
        }
    });
    let attempts = ledger.attempts();
    let unanswered: Vec<_> = attempts.iter().filter(|attempt| attempt.status.is_none()).collect();
    assert!(unanswered.is_empty(), "{} of {}: {unanswered:?}", unanswered.len(), attempts.len());
    assert_eq!(ledger.count(201) + ledger.count(503), attempts.len());
    ledger.assert_truthful(topic);
}

#[test]
fn processes_that_inherit_a_socket_replace_each_other_without_a_refused_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let before = Application::on(Broker::Kafka).start();
    let next = || before.replica().inherits(&listener);
    let first = next().start();
    assert_eq!(first.address, listener.local_addr().expect("an address"));
    let line = first.log_line("where the socket comes from", |line| line["message"] == "listening");
    assert_eq!(line["socket"], "inherited (LISTEN_FDS)");
    replace_under_load(before.topic(), first, next);
}

#[test]
fn processes_that_share_a_port_replace_each_other_without_a_refused_connection() {
    let before = Application::on(Broker::Kafka).start();
    let shared = || before.replica().env("FOOTFALL_HTTP__REUSE_PORT", "true");
    let first = shared().start();
    let port = first.address.port().to_string();
    replace_under_load(before.topic(), first, || shared().env("ROCKET_PORT", &port));
}

#[test]
fn the_newer_of_two_processes_can_end_without_a_refused_connection() {
    let before = Application::on(Broker::Kafka).start();
    let shared = || before.replica().env("FOOTFALL_HTTP__REUSE_PORT", "true");
    let older = shared().start();
    let newer = || shared().env("ROCKET_PORT", &older.address.port().to_string()).start_without_waiting_for_kafka();
    let ledger = Load::new(&Servers::of(&older), "/api/v1/events", Retries::Never).beside(|load| {
        for _ in 0..3 {
            let newer = newer();
            load.wait_for(100, 201);
            newer.stop();
            load.wait_for(100, 201);
        }
    });
    let unanswered = ledger.attempts().into_iter().filter(|attempt| attempt.status.is_none()).count();
    assert_eq!(unanswered, 0);
    ledger.assert_truthful(before.topic());
}

/// The process is stopped until both the connections and the signal are there.
#[test]
fn what_the_kernel_has_queued_is_answered_at_the_end() {
    let app = Application::on(Broker::Embedded).start();
    signal(app.process_id(), "STOP");
    let request = |target: &str| {
        let mut client = TcpStream::connect(app.address).expect("a place in the queue");
        client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        write!(client, "GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("an open connection");
        client
    };
    let clients: Vec<TcpStream> = (0..200).map(|_| request("/livez")).collect();
    let asked = Instant::now();
    app.terminate();
    signal(app.process_id(), "CONT");
    for mut client in clients {
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("an end without a reset");
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nok\n"), "{answer:?}");
    }
    assert!(app.wait_for_exit(PATIENCE).success());
    assert!(asked.elapsed() < END, "{:?}", asked.elapsed());
    let refused = TcpStream::connect(app.address).expect_err("nothing listens");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_socket_on_which_footfall_cannot_serve_is_refused_with_one_line() {
    let run = |sockets: &str, inherited: OwnedFd| {
        let folder = TempDir::new().expect("a temporary folder");
        let before = INHERIT.replace("LISTEN_FDS=1", &format!("LISTEN_FDS={sockets}"));
        let mut command = command_after(folder.path(), &before);
        command.stdin(inherited).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary can be run");
        within(PATIENCE, "it ends", || child.try_wait().expect("a child process"));
        let output = child.wait_with_output().expect("its output");
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(output.stdout, b"");
        String::from_utf8(output.stderr).expect("text")
    };
    let listener = || TcpListener::bind("127.0.0.1:0").expect("a free port");
    let datagrams = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let connected = TcpStream::connect(listener().local_addr().expect("an address")).expect("a connection");
    let bound = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    for (sockets, inherited, why) in [
        ("2", listener().into(), "expected one socket, not 2"),
        ("1", datagrams.into(), "fd 3 is not a valid tcp socket"),
        ("1", connected.into(), "the socket does not listen (is it of `Accept=yes`?)"),
        ("1", bound.into(), "the socket does not listen (is it of `Accept=yes`?)"),
        ("1", tempfile::tempfile().expect("a file").into(), "fd 3 is not a socket"),
    ] {
        assert_eq!(run(sockets, inherited), format!("footfall: LISTEN_FDS: {why}\n"));
    }
}

#[test]
fn a_port_that_is_not_shared_belongs_to_one_process() {
    let app = Application::on(Broker::Embedded).start();
    let port = app.address.port().to_string();
    for reuse_port in ["false", "true"] {
        let folder = TempDir::new().expect("a temporary folder");
        let mut command = command_after(folder.path(), "");
        command.env("ROCKET_PORT", &port).env("FOOTFALL_HTTP__REUSE_PORT", reuse_port);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary can be run");
        within(PATIENCE, "it ends", || child.try_wait().expect("a child process"));
        let output = child.wait_with_output().expect("its output");
        assert_eq!(output.status.code(), Some(1));
        let error = String::from_utf8(output.stderr).expect("text");
        assert!(error.starts_with(&format!("footfall: cannot listen on 127.0.0.1:{port}: ")), "{error}");
    }
}

/// Tests whose limits the load of other tests could break: `dev/test` without arguments runs them alone.
mod alone {
    use super::*;

    #[test]
    fn readiness_is_503_and_streams_get_bye_within_a_second_of_sigterm() {
        let app = Application::on(Broker::Embedded).start();
        let streams: Vec<_> = (0..200).map(|_| app.stream("")).collect();
        let asked = Instant::now();
        app.terminate();
        let ready = within(Duration::from_millis(200), "it is not ready", || {
            let answer = app.request("GET", "/readyz").try_send()?;
            (answer.status() == 503).then_some(answer)
        });
        assert!(ready.text().contains("shutting down"), "{}", ready.text());
        for mut stream in streams {
            assert_eq!(stream.control("bye").json(), json!({"reason": "shutdown"}));
        }
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
        assert!(app.wait_for_exit(PATIENCE).success());
        assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    }
}
