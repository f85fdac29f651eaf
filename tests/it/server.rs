//! Connections and HTTP/1.1: requests refused before a route sees them, deadlines, clients that leave, and shutdown.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::application::signal;
use crate::common::http::Head;
use crate::common::wait::{PATIENCE, eventually, within};
use crate::common::{Application, Broker};
use serde_json::json;

/// A connection on which these bytes were sent.
fn send(app: &Application, bytes: &[u8]) -> TcpStream {
    let mut client = TcpStream::connect(app.address).expect("a connection");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    client.write_all(bytes).expect("an open connection");
    client
}

/// Reads everything until the server closes, which it must.
#[track_caller]
fn rest(mut client: TcpStream) -> String {
    let mut received = Vec::new();
    client.read_to_end(&mut received).expect("an end without a reset");
    String::from_utf8(received).expect("UTF-8")
}

/// Returns the status of an answer that has the usual headers, and the answer in lower case.
#[track_caller]
fn checked(answer: &str) -> u16 {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let head = head.to_ascii_lowercase();
    for name in
        ["content-security-policy: ", "x-content-type-options: ", "x-request-id: ", "date: ", "x-frame-options: "]
    {
        assert!(head.contains(&format!("\r\n{name}")), "no {name}in {answer}");
    }
    let status = head.strip_prefix("http/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).expect("a status");
    if status >= 400 {
        let problem: serde_json::Value = serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {answer}"));
        assert_eq!(problem["status"], status, "{answer}");
    }
    status
}

/// The request, and the status of the answer, after which the connection is closed.
#[track_caller]
fn answered(app: &Application, request: &[u8]) -> u16 {
    checked(&rest(send(app, request)))
}

#[test]
fn invalid_http_is_refused_with_the_usual_headers() {
    let app = Application::on(Broker::Embedded).start();
    let long = |n: usize| "x".repeat(n);
    let post = "POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    for (request, status) in [
        ("what is this\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/9.9\r\nHost: localhost\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n".into(), 400),
        ("G{T / HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), 400),
        (format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", long(40_000)), 414),
        (format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", long(66_000)), 414),
        (format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", long(400_000)), 414),
        (format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: {}\r\n\r\n", long(70_000)), 431),
        (format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: {}\r\n\r\n", long(400_000)), 431),
        (format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X-Many: 1\r\n".repeat(101)), 431),
        // RFC 9112, section 6: framing that two parsers may interpret differently.
        (format!("{post}Content-Length: 3\r\nContent-Length: 4\r\n\r\n{{}}"), 400),
        (format!("{post}Content-Length: x\r\n\r\n{{}}"), 400),
        (format!("{post}Content-Length: -1\r\n\r\n{{}}"), 400),
        (format!("{post}Transfer-Encoding: gzip\r\n\r\n{{}}"), 400),
        (format!("{post}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), 400),
        ("POST / HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(), 400),
    ] {
        assert_eq!(answered(&app, request.as_bytes()), status, "{:?}", &request[..request.len().min(200)]);
    }
    // Both framings: the chunks count (RFC 9112, section 6.3), and nothing after them is read as a request.
    let body = json!({"user": "Ann", "action": "a"}).to_string();
    let both =
        format!("{post}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let answer = rest(send(&app, format!("{both}GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()));
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert_eq!(checked(&answer), 201);
}

#[test]
fn a_request_must_name_exactly_one_host() {
    let app = Application::on(Broker::Embedded).start();
    for (request, status) in [
        ("GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
        ("GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nConnection: close\r\n\r\n", 400),
        ("GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: b\r\nConnection: close\r\n\r\n", 400),
        ("GET /livez HTTP/1.1\r\nHost: a b\r\nConnection: close\r\n\r\n", 400),
        ("GET /livez HTTP/1.1\r\nHost: u@a\r\nConnection: close\r\n\r\n", 400),
        ("GET /livez HTTP/1.1\r\nHost: a:8000\r\nConnection: close\r\n\r\n", 200),
        ("GET /livez HTTP/1.1\r\nHost: [::1]:8000\r\nConnection: close\r\n\r\n", 200),
        ("GET http://a/livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 200),
        ("GET http://u@localhost/livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 400),
        ("GET http://localhost/livez HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
        // If there are two names, the one in the target counts (RFC 9112, section 3.2.2).
        ("GET http://evil.example/api/v1/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 421),
        ("GET http://localhost/api/v1/events HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", 200),
        ("GET http://localhost/api/v1/events HTTP/1.0\r\nHost: evil.example\r\n\r\n", 200),
        ("GET /livez HTTP/1.0\r\n\r\n", 200),
        ("GET /livez HTTP/1.0\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
    ] {
        let answer = rest(send(&app, request.as_bytes())).replace("HTTP/1.0 ", "HTTP/1.1 ");
        assert_eq!(checked(&answer), status, "{request:?}");
    }
    let latin = answered(
        &app,
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: Jos\xE9\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(latin, 400);
    let agent =
        answered(&app, b"GET /livez HTTP/1.1\r\nHost: localhost\r\nUser-Agent: Jos\xE9\r\nConnection: close\r\n\r\n");
    assert_eq!(agent, 200, "no code reads that header");
}

#[test]
fn an_unsupported_method_is_405_with_allow() {
    let app = Application::on(Broker::Embedded).start();
    let close = "HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    for method in ["QUERY", "PROPFIND", "CONNECT", "get", "TRACE", "DELETE"] {
        let target = if method == "CONNECT" { "a:80" } else { "/api/v1/events" };
        let answer = rest(send(&app, format!("{method} {target} {close}").as_bytes()));
        assert_eq!(checked(&answer), 405, "{method}");
        assert!(answer.contains("allow: GET, HEAD, POST\r\n"), "{answer}");
        if method != "CONNECT" {
            assert_eq!(answered(&app, format!("{method} /nothing {close}").as_bytes()), 404, "{method}");
        }
    }
    let all = rest(send(&app, format!("OPTIONS * {close}").as_bytes()));
    assert_eq!(checked(&all), 204);
    assert!(all.contains("allow: "), "{all}");
    let line = app.log_line("the request's line", |line| line["http.method"] == "QUERY");
    assert_eq!((&line["http.path"], &line["http.status"]), (&json!("/api/v1/events"), &json!(405)));
    let series = "footfall_requests_total{method=\"other\",route=\"none\",status=\"405\"}";
    assert_eq!(app.metric(series), Some(3.0), "the number of series is bounded");
}

#[test]
fn continue_is_sent_only_for_an_acceptable_body() {
    let app = Application::on(Broker::Embedded).start();
    let head = |length: usize| {
        format!(
            "POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n\
             Content-Length: {length}\r\n\r\n"
        )
    };
    let answer = rest(send(&app, head(10_000_000).as_bytes()));
    assert_eq!(checked(&answer), 413);
    assert!(answer.to_ascii_lowercase().contains("connection: close\r\n"), "{answer}");
    let body = json!({"user": "Ann", "action": "a"}).to_string();
    let mut taken = send(&app, head(body.len()).as_bytes());
    let mut said = [0; 25];
    taken.read_exact(&mut said).expect("an answer before the body");
    assert_eq!(&said, b"HTTP/1.1 100 Continue\r\n\r\n");
    taken.write_all(body.as_bytes()).expect("an open connection");
    taken.shutdown(Shutdown::Write).expect("an open connection");
    assert_eq!(checked(&rest(taken)), 201);
}

#[test]
fn a_body_that_is_too_large_is_413_whatever_the_method() {
    let app = Application::on(Broker::Embedded).start();
    let body = vec![b'x'; 600_000];
    for (method, target, status) in [
        ("POST", "/api/v1/events", 413),
        ("GET", "/livez", 413),
        ("DELETE", "/api/v1/events", 413),
        ("TRACE", "/", 413),
        ("QUERY", "/", 413),
    ] {
        let request = app.request(method, target).header("Content-Type", "application/json");
        request.body_only(body.clone()).send().expect(status).problem();
    }
    // A small body that a route does not use is no reason to reject the request, nor to close the connection.
    let mut kept = app.request("GET", "/livez").header("Connection", "keep-alive").body_only("hello").open();
    kept.next_response("GET").expect(200);
    kept.send_request(&app.request("GET", "/livez"));
    kept.next_response("GET").expect(200);
    // Cut off in the middle of it.
    for method in ["GET", "DELETE", "QUERY"] {
        let cut = app.request(method, "/livez").send_head(100);
        cut.end_sending();
        cut.response(method).expect(408).problem();
    }
}

#[test]
fn a_client_that_leaves_ends_its_stream_before_the_next_heartbeat() {
    let app = Application::on(Broker::Embedded).env("FOOTFALL_FEED__HEARTBEAT", "60s").start();
    let streams = || app.metric("footfall_streams");
    for target in ["/api/v1/stream", "/stream", "/stream/overview"] {
        let mut client = send(&app, format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        client.read_exact(&mut [0; 100]).expect("the stream has started");
        assert_eq!(streams(), Some(1.0));
        drop(client);
        within(Duration::from_secs(2), "the stream ends", || (streams() == Some(0.0)).then_some(()));
    }
    let socket = app.socket("");
    eventually("the socket is counted", || (streams() == Some(1.0)).then_some(()));
    drop(socket);
    within(Duration::from_secs(2), "the socket ends", || (streams() == Some(0.0)).then_some(()));
}

#[test]
fn a_client_that_half_closes_after_its_request_is_answered() {
    let app = Application::on(Broker::Embedded).start();
    let body = json!({"user": "Ann", "action": "a"}).to_string();
    let post = format!(
        "POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    for (request, status) in [("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", 200), (post.as_str(), 201)] {
        let client = send(&app, request.as_bytes());
        client.shutdown(Shutdown::Write).expect("an open connection");
        assert_eq!(checked(&rest(client)), status, "{request}");
    }
}

#[test]
fn a_post_whose_client_leaves_is_counted_and_its_id_is_remembered() {
    let app = Application::on(Broker::Embedded).env("FOOTFALL_INGEST__LINGER", "500ms").start();
    let event = json!({"id": "left", "user": "Ann", "action": "a"});
    let body = event.to_string();
    let head = "POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    drop(send(&app, format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()));
    let acknowledged = "footfall_events_total{outcome=\"acknowledged\"}";
    eventually("it is counted", || (app.metric(acknowledged) == Some(1.0)).then_some(()));
    let again = app.post(&event).expect(201);
    assert_eq!(again.header("Idempotent-Replayed"), Some("true"));
}

#[test]
fn pipelined_requests_are_answered_in_their_order_and_head_has_no_body() {
    let app = Application::on(Broker::Embedded).start();
    let mut connection = app.request("HEAD", "/livez").header("Connection", "keep-alive").open();
    let head: Head = connection.next_response("HEAD").expect(200).head;
    assert_eq!(head.header("Content-Length"), Some("3"));
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let requests =
        [get("/livez"), get("/nothing"), "HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), get("/readyz")].concat();
    connection.send(requests.as_bytes()).expect("an open connection");
    for (method, status) in [("GET", 200), ("GET", 404), ("HEAD", 200), ("GET", 200)] {
        connection.next_response(method).expect(status);
    }
    // In chunks, in pieces.
    let body = json!({"user": "Ann", "action": "a"}).to_string();
    let (first, second) = body.split_at(7);
    let post = "POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    for piece in [post.to_owned(), format!("7\r\n{first}\r\n"), format!("{:x}\r\n{second}\r\n0\r\n\r\n", second.len())]
    {
        connection.send(piece.as_bytes()).expect("an open connection");
    }
    connection.next_response("POST").expect(201);
}

#[test]
fn shutdown_waits_for_no_reader() {
    let app = Application::on(Broker::Embedded).start();
    let batch = json!(vec![json!({"user": "Ann", "action": "big", "x": "x".repeat(30_000)}); 15]);
    (0..40).for_each(|_| drop(app.post(&batch).expect(201)));
    // Exports and streams that are not read, and heads and bodies that do not end.
    let get = |target: &str, version: &str| {
        send(&app, format!("GET {target} HTTP/{version}\r\nHost: localhost\r\n\r\n").as_bytes())
    };
    let exports =
        [get("/api/v1/events.ndjson?from=beginning", "1.1"), get("/api/v1/events.ndjson?from=beginning", "1.0")];
    let others = [
        get("/api/v1/stream?after=0-0.1-0.2-0", "1.1"),
        send(&app, b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Never: ends"),
        send(&app, b"POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"),
    ];
    let open = "footfall_requests_total{method=\"GET\",route=\"/api/v1/events.ndjson\",status=\"200\"}";
    eventually("the exports have started", || (app.metric(open) == Some(2.0)).then_some(()));
    let asked = Instant::now();
    app.terminate();
    assert!(app.wait_for_exit(PATIENCE).success());
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    drop(others);
    // None of them looks complete.
    let [mut chunked, mut delimited] = exports;
    let mut received = Vec::new();
    let _ = chunked.read_to_end(&mut received);
    assert!(!received.ends_with(b"0\r\n\r\n"), "the last chunk was sent");
    let error = delimited.read_to_end(&mut Vec::new()).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn unfinished_heads_cost_little_and_one_address_leaves_connections_to_others() {
    let app = Application::on(Broker::Embedded).open_files(400).start();
    let slow: Vec<TcpStream> = (0..250)
        .map(|_| send(&app, format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: {}", "x".repeat(60_000)).as_bytes()))
        .collect();
    app.get("/livez").expect(200);
    // More than one address may have: 400, less 100 for other files, less a sixteenth.
    let more: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(app.address).expect("a connection")).collect();
    let refused = eventually("one is refused", || more.iter().find(|client| has_arrived(client)));
    let mut answer = String::new();
    let mut refused: &TcpStream = refused;
    refused.read_to_string(&mut answer).expect("an end");
    assert_eq!(checked(&answer), 503);
    assert!(answer.contains("too many connections"), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let problem: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!((&problem["type"], &problem["retryable"]), (&json!("/problems/unavailable"), &json!(true)), "{problem}");
    assert!(head.contains(&format!("X-Request-Id: {}", problem["request_id"].as_str().expect("an id"))), "{answer}");
    for line in
        ["Retry-After: 1", "Connection: close", "Cache-Control: no-store", "Content-Type: application/problem+json"]
    {
        assert!(head.lines().any(|other| other == line), "no {line} in {answer}");
    }
    drop((slow, more));
    eventually("others are served again", || app.request("GET", "/livez").try_send().filter(|it| it.status() == 200));
    let refused = app.metric("footfall_http_connections_refused_total{reason=\"address\"}");
    assert!(refused.is_some_and(|count| count >= 1.0), "{refused:?}");
    assert_eq!(app.metric("footfall_http_connections_refused_total{reason=\"total\"}"), Some(0.0));
    // Only the one that asks.
    eventually("they are closed", || (app.metric("footfall_http_connections") == Some(1.0)).then_some(()));
}

#[test]
fn idle_connections_are_kept_for_keep_alive() {
    let get = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for (keep_alive, kept) in [("0", Duration::ZERO), ("2", Duration::from_secs(2))] {
        let app = Application::on(Broker::Embedded).env("ROCKET_KEEP_ALIVE", keep_alive).start();
        let mut client = send(&app, get);
        let started = Instant::now();
        let mut first = vec![0; 12];
        client.read_exact(&mut first).expect("an answer");
        let answer = String::from_utf8(first).expect("UTF-8") + &rest(client);
        assert_eq!(checked(&answer), 200);
        let says_so = answer.to_ascii_lowercase().contains("\r\nconnection: close\r\n");
        assert_eq!(says_so, kept.is_zero(), "{answer}");
        assert!((kept..kept + Duration::from_secs(2)).contains(&started.elapsed()), "{:?}", started.elapsed());
    }
}

fn has_arrived(client: &TcpStream) -> bool {
    client.set_nonblocking(true).expect("a socket");
    let arrived = client.peek(&mut [0; 1]).is_ok();
    client.set_nonblocking(false).expect("a socket");
    arrived
}

/// A client whose connection finds the kernel's queue full waits for a second before it tries again.
#[test]
fn hundreds_of_clients_that_connect_to_a_busy_server_need_no_retransmission() {
    let app = Application::on(Broker::Embedded).open_files(4096).start();
    signal(app.process_id(), "STOP");
    let connect =
        |_| TcpStream::connect_timeout(&app.address, Duration::from_millis(500)).map_err(|error| error.kind());
    let clients: Result<Vec<TcpStream>, _> = (0..500).map(connect).collect();
    signal(app.process_id(), "CONT");
    let clients = clients.expect("a place in the queue for each");
    for mut client in &clients {
        client
            .write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .expect("an open connection");
    }
    for client in clients {
        let answer = rest(client);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

/// The deadlines are half a minute: all of them in one test, in parallel.
#[test]
fn a_late_head_or_body_is_408() {
    let app = Application::on(Broker::Embedded).start();
    let started = Instant::now();
    let clients: Vec<_> = [
        "GET / HTTP/1.1\r\nHost: localhost\r\nX-Never: ends",
        "GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nx",
        "DELETE / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        "QUERY / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nx",
        "POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\nx",
        "",
    ]
    .into_iter()
    .map(|request| {
        let client = send(&app, request.as_bytes());
        client.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        thread::spawn(move || (request, rest(client)))
    })
    .collect();
    for client in clients {
        let (request, answer) = client.join().expect("an answer");
        match request {
            "" => assert_eq!(answer, "", "a client that sends nothing gets no answer"),
            _ => assert_eq!(checked(&answer), 408, "{request:?}"),
        }
    }
    assert!(started.elapsed() >= Duration::from_secs(25), "{:?}", started.elapsed());
    for (part, count) in [("head", 1.0), ("body", 4.0)] {
        assert_eq!(app.metric(&format!("footfall_http_timeouts_total{{part=\"{part}\"}}")), Some(count), "{part}");
    }
}
