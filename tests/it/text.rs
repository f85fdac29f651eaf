//! Bytes that are not text, wherever text is expected: they are rejected by name, never replaced.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::common::wait::PATIENCE;
use crate::common::{Application, Broker, NewRecord};
use serde_json::{Value, json};

/// Sends a request of these lines and this body; returns the status and the body of the answer.
fn send(app: &Application, head: &[&[u8]], body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(app.address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut request = head.join(&b"\r\n"[..]);
    let rest = format!("\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", app.address, body.len());
    request.extend_from_slice(rest.as_bytes());
    request.extend_from_slice(body);
    stream.write_all(&request).expect("a request is sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let answer = String::from_utf8(answer).expect("an answer in UTF-8");
    let status = answer.get(9..12).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no status in {answer}")), answer)
}

/// Bytes that are not UTF-8 in a query, a form and a path: Latin-1, an overlong form, half of a surrogate pair, and a
/// byte that never occurs.
const NOT_UTF8: [&str; 4] = ["Jos%E9", "%C0%AF", "%ED%A0%80", "%FF"];

#[test]
fn a_target_that_is_not_utf8_is_400() {
    let app = Application::on(Broker::Embedded).start();
    for bytes in NOT_UTF8 {
        for target in [
            format!("/?user={bytes}"),
            format!("/history?q={bytes}"),
            format!("/users/{bytes}"),
            format!("/events/0/{bytes}"),
            format!("/api/v1/users/{bytes}"),
            format!("/api/v1/events/{bytes}/0"),
            format!("/api/v1/events?user={bytes}"),
            format!("/api/v1/events?action={bytes}"),
            format!("/api/v1/events?from={bytes}"),
            format!("/api/v1/events?unknown={bytes}"),
            format!("/api/v1/events?{bytes}=1"),
            format!("/api/v1/events.ndjson?q={bytes}"),
            format!("/api/v1/stream?user={bytes}"),
            format!("/api/v1/stream?after={bytes}"),
            format!("/api/v1/ws?after={bytes}"),
            format!("/nothing/{bytes}"),
            format!("/static/{bytes}"),
        ] {
            let problem = app.get(&target).expect(400).problem();
            assert!(
                problem["detail"].as_str().is_some_and(|detail| detail.contains("not UTF-8")),
                "{target}: {problem}"
            );
        }
        app.request("POST", &format!("/api/v1/events?ack={bytes}")).json(&event()).send().expect(400).problem();
    }
    // A `%` that starts no byte is literal, and NUL is an ordinary character.
    for (target, user) in
        [("/api/v1/users/100%25", "100%"), ("/api/v1/users/%00", "\0"), ("/api/v1/users/a%2Fb", "a/b")]
    {
        assert_eq!(app.get(target).expect(200).json()["user"], user);
    }
    app.accept(&json!({"user": "100%", "action": "%G1"}));
    for query in ["user=100%25", "user=100%&action=%G1"] {
        let found = app.get(&format!("/api/v1/events?{query}")).expect(200).json();
        assert_eq!(found["events"].as_array().map(Vec::len), Some(1), "{query}: {found}");
    }
}

#[test]
fn a_single_value_parameter_that_appears_twice_is_400() {
    let app = Application::on(Broker::Embedded).start();
    for (path, query) in [
        ("/api/v1/events", "limit=1&limit=2"),
        ("/api/v1/events", "limit=1&limit=1"),
        ("/api/v1/events", "from=0-1&from=0-2"),
        ("/api/v1/events", "to=0-1&to=0-2"),
        ("/api/v1/events", "order=oldest&order=newest"),
        ("/api/v1/events", "since=-1m&since=-2m"),
        ("/api/v1/events.csv", "until=-1m&until=-2m"),
        ("/api/v1/events", "partition=0&offset=1&offset=2"),
        ("/api/v1/stream", "after=0-1&after=0-2"),
        ("/api/v1/stream", "max_rate=1&max_rate=2"),
        ("/api/v1/users/Ann", "partitions=all&partitions=all"),
        ("/history", "last=1&last=2"),
        ("/", "sent=0-1&sent=0-2"),
    ] {
        let problem = app.get(&format!("{path}?{query}")).expect(400).problem();
        assert_eq!(problem["type"], "/problems/bad-parameter", "{query}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("twice")), "{query}: {problem}");
    }
    app.request("POST", "/api/v1/events?ack=none&ack=all").json(&event()).send().expect(400).problem();
    assert!(app.topic().records().is_empty());
    // Filters may appear several times; an empty value counts as none.
    app.get("/api/v1/events?user=a&user=b&action=a&action=b&q=a&q=b&partition=0&partition=1").expect(200);
    app.get("/api/v1/events?limit=&limit=2&order=").expect(200);
}

fn event() -> Value {
    json!({"user": "Ann", "action": "look"})
}

#[test]
fn a_form_that_is_not_utf8_or_repeats_a_field_is_422() {
    let app = Application::on(Broker::Embedded).start();
    let send = |body: &[u8], accept: &str| {
        let request = app.request("POST", "/events").body("application/x-www-form-urlencoded", body);
        request.header("Accept", accept).send()
    };
    let mut wrong: Vec<(Vec<u8>, &str, &str)> = Vec::new();
    for bytes in NOT_UTF8 {
        wrong.push((format!("user={bytes}&action=a").into(), "/user", "is not UTF-8"));
        wrong.push((format!("user=u&action={bytes}").into(), "/action", "is not UTF-8"));
        wrong.push((format!("user=u&action=a&details=%7B%22x%22:%22{bytes}%22%7D").into(), "/details", "is not UTF-8"));
        wrong.push((format!("user=u&action=a&id={bytes}").into(), "/id", "is not UTF-8"));
    }
    wrong.push((b"user=Jos\xe9&action=a".to_vec(), "/user", "is not UTF-8"));
    for (body, pointer, words) in [
        ("user=a&user=b&action=c", "/user", "twice"),
        ("user=a&action=b&action=b", "/action", "twice"),
        ("user=a&action=b&details=&details=%7B%7D", "/details", "twice"),
        ("user=a&action=b&id=1&id=2", "/id", "twice"),
        ("user=a&action=b&id=two+words", "/id", "visible ASCII"),
        ("user=a&action=b&id=%C3%A9", "/id", "visible ASCII"),
        ("user=%00&action=b", "/user", "control characters"),
    ] {
        wrong.push((body.into(), pointer, words));
    }
    for (body, pointer, words) in &wrong {
        let shown = String::from_utf8_lossy(body);
        let problem = send(body, "application/json").expect(422).problem();
        let errors = problem["errors"].as_array().expect("errors");
        let is_named =
            |error: &Value| error["pointer"] == *pointer && error["detail"].as_str().expect("text").contains(words);
        assert!(errors.iter().any(is_named), "{shown}: {problem}");
        let page = send(body, "text/html").expect(422);
        assert!(page.text().contains(words), "{shown}: {}", page.text());
    }
    assert!(app.topic().records().is_empty());
    // The page that rejects a form's id has another one, which is accepted.
    let page = send(b"user=a&action=b&id=two+words", "text/html").expect(422);
    let id = page.text().split("name=\"id\" value=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("an id");
    send(format!("user=a&action=b&id={id}").as_bytes(), "text/html").expect(303);
    send(b"user=Jos%C3%A9&action=100%&unknown=%FF", "text/html").expect(303);
    let records = app.topic().records();
    assert!(records.iter().any(|record| record.json() == json!({"user": "José", "action": "100%"})), "{records:?}");
    let many = ["user=a"; 10_000].join("&");
    let problem = send(many.as_bytes(), "application/json").expect(422).problem();
    assert_eq!(problem["errors"].as_array().expect("errors").len(), 1, "once for the field: {problem}");
}

#[test]
fn a_body_or_header_that_is_not_utf8_is_400() {
    let app = Application::on(Broker::Embedded).start();
    let post = &b"POST /api/v1/events HTTP/1.1"[..];
    let json_type = &b"Content-Type: application/json"[..];
    let body = &br#"{"user":"Ann","action":"look"}"#[..];
    for bytes in [
        &b"{\"user\":\"Jos\xe9\",\"action\":\"a\"}"[..],
        b"{\"user\":\"\xc0\xaf\",\"action\":\"a\"}",
        b"\xff\xfe{\0}\0",
    ] {
        for content_type in ["application/json", "application/cloudevents+json", "application/cloudevents-batch+json"] {
            let head = format!("Content-Type: {content_type}");
            let (status, answer) = send(&app, &[post, head.as_bytes()], bytes);
            assert!(status == 400 && answer.contains("not UTF-8"), "{answer}");
        }
        let (status, answer) = send(&app, &[b"POST /send-message/ HTTP/1.1", json_type], bytes);
        assert!(status == 400 && answer.contains("not UTF-8"), "{answer}");
    }
    // A lone surrogate that JSON escapes is not text either.
    let (status, answer) = send(&app, &[post, json_type], br#"{"user":"\ud800","action":"a"}"#);
    assert!(status == 422 && answer.contains("surrogate"), "{answer}");
    // In NDJSON it is an error of the line.
    let (status, answer) =
        send(&app, &[post, b"Content-Type: application/x-ndjson"], b"{\"user\":\"Jos\xe9\",\"action\":\"a\"}");
    assert!(status == 422 && answer.contains("not UTF-8"), "{answer}");
    let (status, _) = send(&app, &[post, b"Content-Type: application/yaml"], body);
    assert_eq!(status, 415);

    let required: [&[u8]; 3] = [b"ce-specversion: 1.0", b"ce-type: t", b"ce-source: /s"];
    for header in [
        &b"ce-id: Jos\xe9"[..],
        b"ce-subject: \xff",
        b"ce-extension: \xc0\xaf",
        b"Idempotency-Key: Jos\xe9",
        b"traceparent: \xe9",
        b"Origin: http://\xe9",
        b"Last-Event-ID: \xe9",
        b"X-Request-Id: \xe9",
    ] {
        let head = [&[post, json_type], &required[..], &[header]].concat();
        let (status, answer) = send(&app, &head, body);
        assert!(status == 400 && answer.contains("not UTF-8"), "{}: {answer}", String::from_utf8_lossy(header));
    }
    for header in ["ce-id: Jos%E9", "ce-subject: %C0%AF", "ce-extension: %ED%A0%80", "ce-time: %FF"] {
        let head =
            [&[post, json_type, b"ce-id: 1"][..usize::from(!header.starts_with("ce-id")) + 2], &required[..]].concat();
        let (status, answer) = send(&app, &[&head[..], &[header.as_bytes()]].concat(), body);
        assert!(status == 422 && answer.contains("must be UTF-8"), "{header}: {answer}");
    }
    assert!(app.topic().records().is_empty());
}

/// A cursor of any bytes is a gap or a 400.
#[test]
fn a_cursor_of_any_text_is_a_gap_or_400() {
    let app = Application::on(Broker::Embedded).start();
    let texts =
        ["", "é", "0-é", "\u{7f}", "0-1.1", "-1", "0--1", "0-18446744073709551616", "1-0", "0-1,1-2", "\"", "{}", "%"];
    for text in texts {
        let encoded = crate::common::http::encoded(text);
        if !text.is_empty() {
            let refused = |target: &str| app.get(&format!("{target}{encoded}")).expect(400).problem();
            refused("/api/v1/stream?strict=1&after=");
            refused("/api/v1/events?from=");
            refused("/api/v1/events?to=");
            let mut stream = app.stream(&format!("?after={encoded}"));
            assert_eq!(stream.control("gap").json()["requested"], text);
            // A header cannot contain control characters.
            if !text.contains(char::is_control) {
                let mut stream = app.stream_after(text);
                assert_eq!(stream.control("gap").json()["requested"], text);
            }
        }
        let mut socket = app.socket(&format!("?after={encoded}"));
        socket.send_text(&format!("{text}\0"));
    }
    for bytes in [&b"0-1\0"[..], b"\x010-1"] {
        let head: [&[u8]; 2] = [b"GET /api/v1/stream?strict=1 HTTP/1.1", &[b"Last-Event-ID: ", bytes].concat()];
        assert_eq!(send(&app, &head, b"").0, 400);
    }
    app.accept(&event());
    assert_eq!(app.panics(), Vec::<String>::new());
}

#[test]
fn invalid_cloud_event_headers_of_foreign_records_are_returned_unchanged() {
    let app = Application::on(Broker::Embedded).start();
    let record = NewRecord::new().key("Ann").value("{}");
    let record =
        record.header("ce_id", "two words").header("ce_source", b"\xff".to_vec()).header("ce_time", "yesterday");
    let (partition, offset) = app.topic().produce(&record);
    let read = app.get(&format!("/api/v1/events/{partition}/{offset}")).expect(200).json();
    assert_eq!((&read["id"], &read["source"]), (&Value::Null, &Value::Null));
    let expected = json!({"ce_id": "two words", "ce_source": {"raw": "/w=="}, "ce_time": "yesterday"});
    assert_eq!(read["headers"], expected);
}

/// Tests whose limits the load of other tests could break: `dev/test` without arguments runs them alone.
mod alone {
    use super::*;

    /// A target has room for thousands of parameters; the time for them must grow only linearly.
    #[test]
    fn thousands_of_parameters_do_not_delay_others() {
        let app = Application::on(Broker::Embedded).start();
        let targets =
            ["a".to_owned(), "a=".into(), "a=1".into()].map(|one| format!("/livez?{}", [&*one; 8000].join("&")));
        for (target, status) in targets.into_iter().zip([200, 200, 400]) {
            assert!(target.len() <= 32 << 10, "{} bytes", target.len());
            let started = Instant::now();
            app.get(&target).expect(status);
            assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
        }
    }
}
