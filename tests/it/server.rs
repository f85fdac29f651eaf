//! Connections and HTTP/1.1: requests refused before a route sees them, deadlines, clients that leave, and shutdown.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::application::signal;
use crate::common::http::Head;
use crate::common::wait::{PATIENCE, eventually, within};
use crate::common::{Application, Broker};
use serde_json::json;
use socket2::{Domain, Socket, Type};

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
        (format!("{post}Content-Length: x\r\n\r\n{{}}"), 400),
        (format!("{post}Content-Length: -1\r\n\r\n{{}}"), 400),
        (format!("{post}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), 400),
        ("POST / HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(), 400),
    ] {
        assert_eq!(answered(&app, request.as_bytes()), status, "{:?}", &request[..request.len().min(200)]);
    }
}

/// The statuses of all answers, in their order.
fn statuses(answers: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answers);
    let heads = text.match_indices("HTTP/1.").filter_map(|(at, _)| {
        let (version, rest) = text[at + "HTTP/1.".len()..].split_at_checked(2)?;
        matches!(version, "0 " | "1 ").then(|| rest.get(..3)?.parse().ok())?
    });
    heads.collect()
}

/// Whether the server goes on reading after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Open,
    Closed,
}
use After::{Closed, Open};

/// Requests whose bytes two parsers could understand differently (RFC 9112, section 11), and other forms of the grammar.
/// Each is followed at once by another request, which is answered only if the connection stays open.
#[test]
fn every_form_of_a_request_has_one_meaning() {
    let app = Application::on(Broker::Embedded).start();
    let get = |rest: &str| format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{rest}");
    let post = |rest: &str| {
        format!("POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{rest}")
    };
    let body = json!({"user": "Ann", "action": "a"}).to_string();
    let n = body.len();
    let chunks = format!("{n:x}\r\n{body}\r\n0\r\n\r\n");
    let sized = |length: &str| post(&format!("Content-Length: {length}\r\n\r\n{body}"));
    let coded = |coding: &str| post(&format!("Transfer-Encoding: {coding}\r\n\r\n{chunks}"));
    let chunked = |chunks: &str| post(&format!("Transfer-Encoding: chunked\r\n\r\n{chunks}"));
    let long = |n: usize| "x".repeat(n);
    let table: Vec<(&str, String, &[u16], After)> = vec![
        // Two framings.
        ("both framings", post(&format!("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}")), &[201], Closed),
        ("both, reversed", post(&format!("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n{chunks}")), &[201], Closed),
        ("two lengths", post(&format!("Content-Length: {n}\r\nContent-Length: 3\r\n\r\n{body}")), &[400], Closed),
        ("one length twice", post(&format!("Content-Length: {n}\r\nContent-Length: {n}\r\n\r\n{body}")), &[201], Open),
        ("a list of two lengths", sized(&format!("{n}, 3")), &[400], Closed),
        ("a list of one length twice", sized(&format!("{n}, {n}")), &[400], Closed),
        ("a length with a sign", sized(&format!("+{n}")), &[400], Closed),
        ("a hexadecimal length", sized("0x1b"), &[400], Closed),
        ("a length with a blank", sized("2 7"), &[400], Closed),
        ("no length", sized(""), &[400], Closed),
        ("a length of 2^64", sized("18446744073709551616"), &[400], Closed),
        ("a length of 2^64 - 1", sized("18446744073709551615"), &[431], Closed),
        ("a length of 2^63 - 1", sized("9223372036854775807"), &[413], Closed),
        ("a body that a route does not need", get("Content-Length: 5\r\n\r\nhello"), &[200], Open),
        ("no body in chunks", get("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), &[200], Open),
        // Transfer codings.
        ("chunked in capitals", coded("CHUNKED"), &[201], Open),
        ("chunked after a tab", coded("\tchunked"), &[201], Open),
        ("chunked twice", coded("chunked, chunked"), &[400], Closed),
        ("chunked not last", coded("chunked, identity"), &[400], Closed),
        ("identity", coded("identity"), &[400], Closed),
        ("an unknown coding", coded("xchunked"), &[400], Closed),
        ("a coding before chunked", coded("gzip, chunked"), &[400], Closed),
        ("chunked in two headers", post(&format!("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n{chunks}")), &[400], Closed),
        ("a coding of HTTP/1.0", "POST /api/v1/events HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(), &[400], Closed),
        // Chunks.
        ("an extension", chunked(&format!("{n:x};a=b\r\n{body}\r\n0;c\r\n\r\n")), &[201], Open),
        ("a quoted extension", chunked(&format!("{n:x};a=\"b\"\r\n{body}\r\n0\r\n\r\n")), &[201], Open),
        ("an extension with a bare LF", chunked(&format!("{n:x};a\nb\r\n{body}\r\n0\r\n\r\n")), &[400], Closed),
        ("extensions of 20 KB", chunked(&format!("{n:x};{}\r\n{body}\r\n0\r\n\r\n", long(20_000))), &[400], Closed),
        ("a size of 2^64", chunked("10000000000000000\r\n"), &[400], Closed),
        ("a size with a sign", chunked(&format!("+{n:x}\r\n{body}\r\n0\r\n\r\n")), &[400], Closed),
        ("a size with 0x", chunked(&format!("0x{n:x}\r\n{body}\r\n0\r\n\r\n")), &[400], Closed),
        ("no size", chunked("\r\n"), &[400], Closed),
        ("a size that ends with a bare LF", chunked(&format!("{n:x}\n{body}\r\n0\r\n\r\n")), &[400], Closed),
        ("a chunk longer than its size", chunked(&format!("3\r\n{body}\r\n0\r\n\r\n")), &[400], Closed),
        ("a chunk that ends with a bare LF", chunked(&format!("{n:x}\r\n{body}\n0\r\n\r\n")), &[400], Closed),
        ("trailers", chunked(&format!("{n:x}\r\n{body}\r\n0\r\nX-Sum: 1\r\nContent-Length: 7\r\n\r\n")), &[201], Open),
        ("a malformed trailer", chunked(&format!("{n:x}\r\n{body}\r\n0\r\nX Sum\r\n\r\n")), &[400], Closed),
        ("trailers of 70 KB", chunked(&format!("{n:x}\r\n{body}\r\n0\r\nX: {}\r\n\r\n", long(70_000))), &[400], Closed),
        // Lines and headers.
        ("bare LFs", "GET /livez HTTP/1.1\nHost: localhost\n\n".into(), &[200], Open),
        ("bare CRs", "GET /livez HTTP/1.1\rHost: localhost\r\r".into(), &[400], Closed),
        ("an empty line before", format!("\r\n{}", get("\r\n")), &[200], Open),
        ("a blank before", format!(" {}", get("\r\n")), &[400], Closed),
        ("a folded header", get("X-A: a\r\n b\r\n\r\n"), &[400], Closed),
        ("a header after a blank", "GET /livez HTTP/1.1\r\n Host: localhost\r\n\r\n".into(), &[400], Closed),
        ("a blank before a colon", post(&format!("Content-Length : {n}\r\n\r\n{body}")), &[400], Closed),
        ("a blank before the colon of a coding", post(&format!("Transfer-Encoding : chunked\r\n\r\n{chunks}")), &[400], Closed),
        ("a header without a name", get(": a\r\n\r\n"), &[400], Closed),
        ("a name with a blank", get("X A: a\r\n\r\n"), &[400], Closed),
        ("a name that is no token", get("X@: a\r\n\r\n"), &[400], Closed),
        ("a CR in a value", get("X-A: a\rb\r\n\r\n"), &[400], Closed),
        ("a NUL in a value", get("X-A: a\0b\r\n\r\n"), &[400], Closed),
        ("a tab in a value", get("X-A: a\tb\r\n\r\n"), &[200], Open),
        ("no value", get("X-A:\r\n\r\n"), &[200], Open),
        // Targets and versions.
        ("an absolute target", "GET http://localhost/livez HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), &[200], Open),
        ("an asterisk", "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), &[204], Open),
        ("an asterisk of GET", "GET * HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), &[400], Closed),
        ("an authority", "GET localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), &[400], Closed),
        ("no target", "GET  HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), &[400], Closed),
        ("a target with a blank", "GET /live z HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), &[400], Closed),
        ("a target with a tab", "GET /live\tz HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), &[400], Closed),
        ("no version", "GET /livez\r\n\r\n".into(), &[400], Closed),
        ("HTTP/1.2", "GET /livez HTTP/1.2\r\nHost: localhost\r\n\r\n".into(), &[400], Closed),
        ("HTTP/2.0", "GET /livez HTTP/2.0\r\nHost: localhost\r\n\r\n".into(), &[400], Closed),
        ("a version in small letters", "GET /livez http/1.1\r\nHost: localhost\r\n\r\n".into(), &[400], Closed),
        ("HTTP/1.0", "GET /livez HTTP/1.0\r\n\r\n".into(), &[200], Closed),
        ("HTTP/1.0 that stays", "GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".into(), &[200], Open),
        ("HTTP/1.1 that ends", get("Connection: close\r\n\r\n"), &[200], Closed),
        // Expectations.
        ("100-continue with the body", post(&format!("Expect: 100-continue\r\nContent-Length: {n}\r\n\r\n{body}")), &[100, 201], Open),
        ("100-continue without a body", get("Expect: 100-continue\r\n\r\n"), &[200], Open),
        ("100-continue of HTTP/1.0", "GET /livez HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab".into(), &[200], Closed),
        ("another expectation", get("Expect: gold\r\n\r\n"), &[200], Open),
        // Several requests at once.
        ("a request after 404", format!("GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n{}", get("\r\n")), &[404, 200], Open),
        ("a request after one that is refused", format!("{}{}", get("X-A: a\rb\r\n\r\n"), get("\r\n")), &[400], Closed),
        ("a request after a body that is too large", format!("{}{}", post("Content-Length: 10000000\r\n\r\n"), get("\r\n")), &[413], Closed),
        // Upgrades.
        ("an upgrade that nothing offers", get("Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"), &[200], Open),
        ("a WebSocket without a key", "GET /api/v1/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n".into(), &[426], Open),
        ("a WebSocket without an upgrade", "GET /api/v1/ws HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), &[426], Open),
    ];
    // At the same time, because the body of one that is too large is awaited for a while.
    let answered = |request: &str| {
        let mut client = send(&app, request.as_bytes());
        // May fail: the server may have closed.
        let _ = client.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let mut received = Vec::new();
        let ended = client.read_to_end(&mut received).err();
        (statuses(&received), ended.map(|error| error.kind()))
    };
    let wrong = thread::scope(|scope| {
        let answered = &answered;
        let answers: Vec<_> = table.iter().map(|(_, request, ..)| scope.spawn(move || answered(request))).collect();
        let mut wrong = Vec::new();
        for ((what, _, expected, after), answer) in table.iter().zip(answers) {
            let expected = [*expected, if *after == Open { &[200] } else { &[] }].concat();
            let answer = answer.join().expect("no panic");
            if answer != (expected.clone(), None) {
                wrong.push(format!("{what}: {answer:?} instead of {expected:?}"));
            }
        }
        wrong
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
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
        assert_eq!(timeouts(&app, "idle"), if kept.is_zero() { 0.0 } else { 1.0 });
    }
}

#[test]
fn the_deadline_and_the_size_of_a_head_are_settings() {
    let app = Application::on(Broker::Embedded)
        .env("FOOTFALL_HTTP__HEAD_DEADLINE", "1s")
        .env("FOOTFALL_HTTP__MAX_HEAD", "8KiB")
        .start();
    let head = |bytes: usize| {
        format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Long: {}\r\n\r\n", "x".repeat(bytes))
    };
    assert_eq!(answered(&app, head(7000).as_bytes()), 200);
    assert_eq!(answered(&app, head(9000).as_bytes()), 431);
    let started = Instant::now();
    assert_eq!(answered(&app, b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Never: ends"), 408);
    assert_eq!(rest(send(&app, b"")), "");
    let took = started.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(10)).contains(&took), "{took:?}");
    assert_eq!([timeouts(&app, "head"), timeouts(&app, "idle")], [1.0, 1.0]);
}

fn timeouts(app: &Application, part: &str) -> f64 {
    app.metric(&format!("footfall_http_timeouts_total{{part=\"{part}\"}}")).expect("a series")
}

#[test]
fn a_slow_upload_is_taken_and_a_stalled_one_is_408() {
    let app = Application::on(Broker::Embedded)
        .env("FOOTFALL_HTTP__BODY_DEADLINE", "1s")
        .env("FOOTFALL_HTTP__BODY_RATE", "50B")
        .start();
    let body = json!({"user": "Ann", "action": "a", "text": "x".repeat(400)}).to_string();
    let request = |method: &str, piece: usize| {
        let mut client = send(
            &app,
            format!(
                "{method} /api/v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                 Connection: close\r\nContent-Length: {}\r\n\r\n",
                body.len()
            )
            .as_bytes(),
        );
        let started = Instant::now();
        for piece in body.as_bytes().chunks(piece) {
            if client.write_all(piece).is_err() || has_arrived(&client) {
                break;
            }
            thread::sleep(Duration::from_millis(200));
        }
        (checked(&rest(client)), started.elapsed())
    };
    thread::scope(|scope| {
        for (method, piece, status) in [("POST", 40, 201), ("POST", 1, 408), ("PUT", 1, 408), ("QUERY", 1, 408)] {
            scope.spawn(move || {
                let (answer, took) = request(method, piece);
                assert_eq!(answer, status, "{method} by {piece}");
                assert!(took >= Duration::from_secs(1), "{took:?}");
            });
        }
    });
    assert_eq!(timeouts(&app, "body"), 3.0);
}

#[test]
fn connections_are_bounded_in_total_and_for_each_address() {
    let app = Application::on(Broker::Embedded)
        .env("FOOTFALL_HTTP__MAX_CONNECTIONS", "4")
        .env("FOOTFALL_HTTP__MAX_CONNECTIONS_PER_ADDRESS", "2")
        .start();
    let from = |last: u8| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from(([127, 0, 0, last], 0)).into()).expect("an address of this machine");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket.connect(&app.address.into()).expect("a connection");
        TcpStream::from(socket)
    };
    let refused = |client| {
        let answer = rest(client);
        assert_eq!(checked(&answer), 503, "{answer}");
    };
    eventually("the earlier ones are closed", || (app.metric("footfall_http_connections") == Some(1.0)).then_some(()));
    let held = [from(1), from(1), from(2), from(2)];
    refused(from(1));
    refused(from(3));
    drop(held);
    let metric = |reason: &str| {
        let series = format!("footfall_http_connections_refused_total{{reason=\"{reason}\"}}");
        app.request("GET", "/metrics").try_send().filter(|it| it.status() == 200)?;
        app.metric(&series)
    };
    eventually("others are served again", || (metric("address") >= Some(1.0)).then_some(()));
    assert!(metric("total") >= Some(1.0));
}

/// One of the clients reads nothing, the other one little: too little for the next write.
#[test]
fn an_answer_that_its_client_does_not_read_ends() {
    let app = Application::on(Broker::Embedded).env("FOOTFALL_FEED__STALLED", "1s").start();
    let batch = json!(vec![json!({"user": "Ann", "action": "big", "x": "x".repeat(30_000)}); 15]);
    (0..20).for_each(|_| drop(app.post(&batch).expect(201)));
    let export = || send(&app, b"GET /api/v1/events.ndjson?from=beginning HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let (unread, mut slow) = (export(), export());
    let open = || app.metric("footfall_http_connections");
    eventually("both have ended", || {
        let _ = slow.read(&mut [0; 100]); // ends with a reset
        (open() == Some(1.0)).then_some(())
    });
    assert_eq!(timeouts(&app, "write"), 2.0);
    drop((unread, slow));
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
    assert_eq!(["head", "body", "idle", "write"].map(|part| timeouts(&app, part)), [1.0, 4.0, 1.0, 0.0]);
}
