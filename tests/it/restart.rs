//! The end of a process, and the next process that takes its place: no connection is refused or reset.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::common::application::{Builder, INHERIT, command_after, signal};
use crate::common::http::Chunks;
use crate::common::wait::{PATIENCE, within};
use crate::common::{Application, Broker, Load, Retries, Servers, Topic};
use serde_json::json;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

/// A process may take this long to end beside `ingest.deadline`, and a busy machine as long again.
const END: Duration = Duration::from_secs(6);

/// Replaces a process three times while clients post, each time over a new connection, and read. Every attempt is answered,
/// and what is acknowledged is in the topic.
#[track_caller]
fn replace_under_load(topic: &Topic, first: Application, next: impl Fn() -> Builder) {
    let mut running = first;
    let reads = Reads::start(&running);
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
    reads.assert_answered();
    let attempts = ledger.attempts();
    let unanswered: Vec<_> = attempts.iter().filter(|attempt| attempt.status.is_none()).collect();
    assert!(unanswered.is_empty(), "{} of {}: {unanswered:?}", unanswered.len(), attempts.len());
    assert_eq!(ledger.count(201) + ledger.count(503), attempts.len());
    ledger.assert_truthful(topic);
}

/// Threads that read all the time: half of them each time over a new connection, the others over one connection until the
/// server announces its end.
struct Reads {
    stopped: Arc<AtomicBool>,
    threads: Vec<JoinHandle<(usize, usize)>>,
}

impl Reads {
    fn start(app: &Application) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let address = app.address;
        let read_all_the_time = |thread: usize| {
            let stopped = stopped.clone();
            thread::spawn(move || {
                let (mut answered, mut unanswered, mut kept) = (0, 0, None);
                while !stopped.load(Ordering::Relaxed) {
                    match read(address, &mut kept, thread.is_multiple_of(2)) {
                        Ok(()) => answered += 1,
                        Err(error) => {
                            eprintln!("not answered: {error}");
                            unanswered += 1;
                        }
                    }
                }
                (answered, unanswered)
            })
        };
        let threads = (0..4).map(read_all_the_time).collect();
        Reads { stopped, threads }
    }

    #[track_caller]
    fn assert_answered(mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let counts = self.threads.drain(..).map(|thread| thread.join().expect("no panic"));
        let (answered, unanswered) = counts.fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
        assert!(answered > 100 && unanswered == 0, "{unanswered} unanswered, {answered} answered");
    }
}

/// Reads `/livez`, over a connection that was kept if there is one. Keeps the connection if both sides want to.
fn read(address: SocketAddr, kept: &mut Option<TcpStream>, keep: bool) -> io::Result<()> {
    let connect = || -> io::Result<TcpStream> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    };
    let mut stream = kept.take().map_or_else(connect, Ok)?;
    let close = if keep { "" } else { "Connection: close\r\n" };
    stream.write_all(format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{close}\r\n").as_bytes())?;
    let (mut received, mut buffer) = (Vec::new(), [0; 4096]);
    while !received.ends_with(b"\r\n\r\nok\n") {
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => received.extend_from_slice(&buffer[..count]),
        }
    }
    let head = String::from_utf8_lossy(&received).to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    if keep && !head.contains("\r\nconnection: close\r\n") {
        *kept = Some(stream);
    }
    Ok(())
}

impl Drop for Reads {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
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
    let reads = Reads::start(&older);
    let ledger = Load::new(&Servers::of(&older), "/api/v1/events", Retries::Never).beside(|load| {
        for _ in 0..3 {
            let newer = newer();
            load.wait_for(100, 201);
            newer.stop();
            load.wait_for(100, 201);
        }
    });
    reads.assert_answered();
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
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
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

    /// While the old process still accepts what is queued, the kernel passes all new connections to the new one.
    #[test]
    fn a_process_that_ends_gets_no_new_connections_of_a_shared_port() {
        let before = Application::on(Broker::Kafka).start();
        let shared = || before.replica().env("FOOTFALL_HTTP__REUSE_PORT", "true");
        for oldest_ends in [true, false] {
            let older = shared().start();
            let port = older.address.port().to_string();
            let newer = shared().env("ROCKET_PORT", &port).start_without_waiting_for_kafka();
            let (ends, stays) = if oldest_ends { (older, newer) } else { (newer, older) };
            ends.terminate();
            // The one that ends would answer 503.
            let ready = || ends.request("GET", "/readyz").try_send().is_some_and(|answer| answer.status() == 200);
            within(Duration::from_millis(700), "all go to the other one", || (0..30).all(|_| ready()).then_some(()));
            assert!(ends.is_running(), "it has ended before its queue was empty");
            assert!(ends.wait_for_exit(PATIENCE).success());
            assert!((0..30).all(|_| ready()));
            stays.stop();
        }
    }

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

    #[test]
    fn requests_that_are_on_their_way_are_answered_at_the_end() {
        let app = Application::on(Broker::Embedded).start();
        let mut client = TcpStream::connect(app.address).expect("a connection");
        client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let idle = TcpStream::connect(app.address).expect("a connection");
        let posting = app.request("POST", "/api/v1/events").header("Content-Type", "application/json").send_head(100);
        let held = || (app.metric("footfall_http_connections") == Some(4.0)).then_some(());
        within(PATIENCE, "all are accepted", held);
        let asked = Instant::now();
        app.terminate();
        app.log_line("it ends", |line| line["message"] == "shutting down");
        client.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("an open connection");
        let event = json!({"user": "Ann", "action": "late"}).to_string();
        let mut posting = posting;
        posting.send(format!("{event:100}").as_bytes()).expect("an open connection");
        posting.response("POST").expect(201);
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("an end without a reset");
        let answer = answer.to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 200 ") && answer.contains("\r\nconnection: close\r\n"), "{answer}");
        assert!(app.wait_for_exit(PATIENCE).success());
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
        drop(idle);
    }

    /// Larger than the 4 MB that the kernel takes, so that the server has a part of it that it could not write yet.
    #[test]
    fn an_answer_that_is_being_sent_at_the_end_arrives_whole() {
        let app = Application::on(Broker::Embedded).start();
        let batch = json!(vec![json!({"user": "Ann", "action": "big", "x": "x".repeat(30_000)}); 15]);
        (0..20).for_each(|_| drop(app.post(&batch).expect(201)));
        let clients = ["1.1", "1.0"].map(|version| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            socket.set_recv_buffer_size(64 * 1024).expect("SO_RCVBUF");
            socket.connect(&app.address.into()).expect("a connection");
            let mut client = TcpStream::from(socket);
            let request =
                format!("GET /api/v1/events?from=beginning&limit=1000 HTTP/{version}\r\nHost: localhost\r\n\r\n");
            client.write_all(request.as_bytes()).expect("an open connection");
            client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            client.read_exact(&mut [0; 1]).expect("the first byte");
            client
        });
        app.terminate();
        app.log_line("it ends", |line| line["message"] == "shutting down");
        for mut client in clients {
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).expect("an end without a reset");
            let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head");
            let mut rest = answer.split_off(head + 4);
            let mut body = Vec::new();
            if String::from_utf8_lossy(&answer).to_ascii_lowercase().contains("transfer-encoding: chunked") {
                let mut chunks = Chunks::default();
                chunks.decode(&mut rest, &mut body);
                assert!(chunks.is_complete(), "no last chunk");
            } else {
                body = rest;
            }
            let answer: serde_json::Value = serde_json::from_slice(&body).expect("a whole body");
            assert!(body.len() > 9 << 19 && answer["events"].is_array(), "{} bytes", body.len());
        }
        assert!(app.wait_for_exit(PATIENCE).success());
    }

    #[test]
    fn clients_that_connect_without_end_do_not_keep_a_process_alive() {
        let app = Application::on(Broker::Embedded).start();
        let (address, done) = (app.address, Arc::new(AtomicBool::new(false)));
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let done = done.clone();
                thread::spawn(move || {
                    let mut count = 0;
                    while !done.load(Ordering::Relaxed) {
                        count += usize::from(TcpStream::connect(address).is_ok());
                    }
                    count
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(200));
        let asked = Instant::now();
        app.terminate();
        let ended = app.wait_for_exit(PATIENCE);
        let took = asked.elapsed();
        done.store(true, Ordering::Relaxed);
        let connected: usize = clients.into_iter().map(|client| client.join().expect("a client")).sum();
        assert!(ended.success() && connected > 100, "{ended}, {connected} connections");
        assert!(took < END, "{took:?}");
    }

    /// An `EventSource` reconnects after a stream that ends, and gives up for ever after a 503.
    #[test]
    fn a_stream_that_is_requested_at_the_end_says_bye_as_any_other() {
        let app = Application::on(Broker::Embedded).start();
        app.post(&json!({"user": "Ann", "action": "before"})).expect(201);
        let paths = ["/api/v1/stream", "/api/v1/stream?after=0-0", "/stream", "/stream/overview"];
        let clients: Vec<_> = paths.iter().map(|_| TcpStream::connect(app.address).expect("a connection")).collect();
        let held = || (app.metric("footfall_http_connections") >= Some(paths.len() as f64)).then_some(());
        within(PATIENCE, "all are accepted", held);
        app.terminate();
        app.log_line("it ends", |line| line["message"] == "shutting down");
        for (mut client, path) in clients.iter().zip(paths) {
            client.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).expect("written");
        }
        for (mut client, path) in clients.iter().zip(paths) {
            client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            let mut answer = String::new();
            client.read_to_string(&mut answer).expect("an end without a reset");
            assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
            let bye = answer.contains("event: bye\n") && answer.contains("data: {\"reason\":\"shutdown\"}\n");
            assert!(bye && answer.ends_with("\r\n0\r\n\r\n"), "{path}: {answer}");
            assert!(answer.contains("\nretry: ") && !answer.contains("event: gap"), "{path}: {answer}");
        }
        assert!(app.wait_for_exit(PATIENCE).success());
    }
}
