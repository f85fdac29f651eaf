//! A stream takes its connection over from the HTTP library after the response's head: nothing that was unsent or unread
//! at that moment is lost or misread, whatever came before or behind the request.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::http::{Chunks, Connection, Request};
use crate::common::wait::{PATIENCE, eventually, within};
use crate::common::{Application, Broker};

/// A connection on which the request for a stream was sent, with these bytes before and behind it.
fn follow(app: &Application, before: &[u8], behind: &[u8]) -> Connection {
    let stream = TcpStream::connect(app.address).expect("a connection");
    let (first, rest) = match before {
        [] => (Request::new(app.address, "GET", "/api/v1/stream"), Vec::new()),
        _ => (Request::new(app.address, "GET", "/livez"), get("/api/v1/stream")),
    };
    let mut connection = Connection::over(stream, &first.header("Connection", "keep-alive"));
    connection.send(&[before, &rest, behind].concat()).expect("an open connection");
    connection
}

fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

/// Reads the stream's head and its chunks until they contain `text`, or until the last chunk.
#[track_caller]
fn read_until(connection: &mut Connection, chunks: &mut Chunks, body: &mut Vec<u8>, text: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        chunks.decode(&mut connection.received, body);
        let all = String::from_utf8_lossy(body);
        if all.contains(text) {
            return;
        }
        assert!(!chunks.is_complete(), "the stream ended: {all}");
        assert!(Instant::now() < deadline, "no {text} in {all}");
        connection.receive(deadline, usize::MAX);
    }
}

#[test]
fn a_stream_follows_other_requests_on_its_connection_and_ends_it() {
    let app = Application::on(Broker::Embedded).start();
    let mut connection = follow(&app, &[get("/nothing"), get("/")].concat(), b"");
    for status in [200, 404, 200] {
        connection.next_response("GET").expect(status);
    }
    let head = connection.head();
    assert_eq!((head.status, head.header("Transfer-Encoding")), (200, Some("chunked")));
    assert!(head.lists("Connection", "close"), "{head:?}");
    let (mut chunks, mut body) = (Chunks::default(), Vec::new());
    read_until(&mut connection, &mut chunks, &mut body, "position");
    app.accept(&json!({"user": "Ann", "action": "first"}));
    read_until(&mut connection, &mut chunks, &mut body, "first");
    app.terminate();
    read_until(&mut connection, &mut chunks, &mut body, "event: bye");
    let deadline = Instant::now() + PATIENCE;
    while !chunks.is_complete() {
        connection.receive(deadline, usize::MAX);
        chunks.decode(&mut connection.received, &mut body);
    }
    assert!(app.wait_for_exit(PATIENCE).success());
}

#[test]
fn requests_behind_a_stream_are_not_answered_and_do_not_disturb_it() {
    let app = Application::on(Broker::Embedded).start();
    for late in [false, true] {
        let behind = [get("/livez"), b"POST /api/v1/events HTTP/1.1\r\nContent-Length: 3\r\n\r\n{}x".to_vec()].concat();
        let mut connection = follow(&app, b"", if late { b"" } else { &behind });
        let head = connection.head();
        assert!(head.lists("Connection", "close"), "{head:?}");
        let (mut chunks, mut body) = (Chunks::default(), Vec::new());
        read_until(&mut connection, &mut chunks, &mut body, "position");
        if late {
            connection.send(&behind).expect("an open connection");
        }
        let action = format!("after-{late}");
        app.accept(&json!({"user": "Ann", "action": action}));
        read_until(&mut connection, &mut chunks, &mut body, &action);
        let body = String::from_utf8(body).expect("UTF-8");
        assert!(!body.contains("HTTP/1.1"), "{body}");
    }
    assert_eq!(
        app.metric("footfall_requests_total{method=\"POST\",route=\"/api/v1/events\",status=\"201\"}"),
        Some(2.0)
    );
}

/// The socket takes nothing more long before the stream's head is written.
#[test]
fn nothing_is_lost_when_the_socket_is_full_at_the_hand_over() {
    let app = Application::on(Broker::Embedded).start();
    let page = app.get("/api/openapi.json").expect(200).body;
    let count = (8 << 20) / page.len() + 1;
    let mut requests = Vec::new();
    (0..count).for_each(|_| requests.extend(get("/api/openapi.json")));
    let mut client = TcpStream::connect(app.address).expect("a connection");
    let mut sender = client.try_clone().expect("a socket");
    let sending = thread::spawn(move || {
        sender.write_all(&[requests, get("/api/v1/stream?last=5")].concat()).expect("an open connection");
    });
    let requested = "footfall_requests_total{method=\"GET\",route=\"/api/openapi.json\",status=\"200\"}";
    let mut before = -1.0;
    eventually("the server cannot write more", || {
        let now = app.metric(requested).unwrap_or_default();
        thread::sleep(Duration::from_millis(300));
        (std::mem::replace(&mut before, now) == now && now > 1.0).then_some(())
    });
    assert!(before < count as f64, "the socket was never full");
    app.accept(&json!({"user": "Ann", "action": "meanwhile"}));
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    // Slowly at first, so that the head meets a socket that is almost full.
    let mut received = vec![0; 1 << 20];
    for piece in received.chunks_mut(4096) {
        client.read_exact(piece).expect("an open connection");
        thread::sleep(Duration::from_micros(200));
    }
    let mut connection = Connection::over(client, &Request::new(app.address, "GET", "/livez")); // behind the stream
    connection.received = received;
    for answer in 0..count {
        let body = connection.next_response("GET").expect(200).body;
        assert!(body == page, "answer {answer} of {count} differs");
    }
    assert_eq!(connection.head().status, 200);
    let (mut chunks, mut body) = (Chunks::default(), Vec::new());
    read_until(&mut connection, &mut chunks, &mut body, "meanwhile");
    app.accept(&json!({"user": "Ann", "action": "later"}));
    read_until(&mut connection, &mut chunks, &mut body, "later");
    sending.join().expect("all requests were sent");
}

#[test]
fn a_stream_over_http_1_0_has_no_chunks_and_ends_with_its_connection() {
    let app = Application::on(Broker::Embedded).start();
    let mut client = TcpStream::connect(app.address).expect("a connection");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    client.write_all(b"GET /api/v1/stream HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("an open connection");
    eventually("it is open", || (app.metric("footfall_streams") == Some(1.0)).then_some(()));
    app.accept(&json!({"user": "Ann", "action": "old"}));
    let mut answer = Vec::new();
    eventually("the event", || {
        let mut buffer = [0; 4096];
        let count = client.read(&mut buffer).expect("an open connection");
        answer.extend_from_slice(&buffer[..count]);
        String::from_utf8_lossy(&answer).contains("\"old\"").then_some(())
    });
    app.terminate();
    client.read_to_end(&mut answer).expect("an end without a reset");
    let answer = String::from_utf8(answer).expect("UTF-8");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "{head}");
    assert!(body.starts_with("retry:") && body.contains("\"old\"") && body.contains("event: bye"), "{body}");
    assert!(body.ends_with("\n\n"), "{body}");
}

#[test]
fn a_client_that_sends_without_end_behind_its_stream_is_closed() {
    let app = Application::on(Broker::Embedded).start();
    let mut connection = follow(&app, b"", b"");
    assert_eq!(connection.head().status, 200);
    // A little is discarded.
    connection.send(&[b'x'; 10_000]).expect("an open connection");
    app.accept(&json!({"user": "Ann", "action": "still"}));
    let (mut chunks, mut body) = (Chunks::default(), Vec::new());
    read_until(&mut connection, &mut chunks, &mut body, "still");
    let _ = connection.send(&vec![b'x'; 200_000]); // fails once the server has closed
    within(Duration::from_secs(2), "the stream ends", || (app.metric("footfall_streams") == Some(0.0)).then_some(()));
}

/// The frame comes in the same packet as the handshake.
#[test]
fn a_websocket_message_behind_the_handshake_is_read() {
    let app = Application::on(Broker::Embedded).start();
    let handshake = "GET /api/v1/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let message = br#"{"type":"post","ref":7,"event":{"user":"Ann","action":"early"}}"#;
    // Text, complete, masked with zeros (RFC 6455, section 5.2).
    let frame = [&[0x81, 0x80 | message.len() as u8, 0, 0, 0, 0][..], message].concat();
    let mut client = TcpStream::connect(app.address).expect("a connection");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    client.write_all(&[get("/livez"), handshake.into(), frame].concat()).expect("an open connection");
    let mut received = Vec::new();
    eventually("a receipt", || {
        let mut buffer = [0; 4096];
        let count = client.read(&mut buffer).expect("an open connection");
        received.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&received);
        (text.contains("\"ref\":7") && text.contains("\"status\":201")).then_some(())
    });
    let text = String::from_utf8_lossy(&received);
    assert!(text.starts_with("HTTP/1.1 200 ") && text.contains("HTTP/1.1 101 "), "{text}");
}
