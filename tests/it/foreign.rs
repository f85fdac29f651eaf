//! Records of other programs: any bytes become a record in every stream, in history and on the page, and no stream
//! stops.

use std::collections::BTreeMap;

use crate::common::http::encoded;
use crate::common::{Application, Broker, NewRecord, Subscription, on_every_broker, on_three_brokers};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

on_every_broker! {
    every_odd_record_is_returned_everywhere,
    html_in_a_record_stays_text_on_the_page,
    a_huge_record_is_an_ordinary_row,
    many_odd_records_stop_nothing,
    q_finds_what_people_see_wherever_records_are_read,
}

on_three_brokers! {
    every_odd_record_is_returned_everywhere,
}

/// Records of every odd kind, each with the expected members.
fn odd_records() -> Vec<(&'static str, NewRecord, Value)> {
    let base64 = |bytes: &[u8]| BASE64.encode(bytes);
    let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let envelope = json!({
        "specversion": "1.0", "id": "ce-1", "source": "/other", "type": "t", "time": "2026-01-02T03:04:05Z",
        "data": {"user": "Enveloped", "action": "wrapped"},
    });
    vec![
        (
            "no key",
            NewRecord::event("Ann", "login"),
            json!({"key": null, "id": null, "value": {"user": "Ann", "action": "login"}}),
        ),
        ("tombstone", NewRecord::new().key("Ann"), json!({"key": "Ann", "value": null})),
        ("nothing at all", NewRecord::new(), json!({"key": null, "value": null})),
        ("empty value", NewRecord::new().key("").value(""), json!({"key": "", "value": null, "raw": ""})),
        (
            "binary",
            NewRecord::new().value(vec![0, 159, 146, 150, 255]),
            json!({"value": null, "raw": base64(&[0, 159, 146, 150, 255])}),
        ),
        (
            "binary key",
            NewRecord::new().key(vec![255, 254]).value("1"),
            json!({"key": null, "key_raw": base64(&[255, 254]), "value": 1}),
        ),
        ("text", NewRecord::new().value("not JSON"), json!({"value": null, "raw": base64(b"not JSON")})),
        (
            "invalid UTF-8 in JSON",
            NewRecord::new().value(b"{\"user\":\"\xff\",\"action\":\"x\"}".to_vec()),
            json!({"value": null, "raw": base64(b"{\"user\":\"\xff\",\"action\":\"x\"}")}),
        ),
        ("half of JSON", NewRecord::new().value("{\"user\":"), json!({"value": null, "raw": base64(b"{\"user\":")})),
        ("two of JSON", NewRecord::new().value("{} {}"), json!({"value": null, "raw": base64(b"{} {}")})),
        ("a number", NewRecord::new().value("-1.5e+3"), json!({"value": -1500.0, "raw": null})),
        ("a string", NewRecord::new().value("\"text\""), json!({"value": "text"})),
        ("null as JSON", NewRecord::new().value("null"), json!({"value": null, "raw": null})),
        ("an array", NewRecord::new().value("[1,2]"), json!({"value": [1, 2]})),
        (
            "user is no string",
            NewRecord::new().value(r#"{"user":7,"action":null}"#),
            json!({"value": {"user": 7, "action": null}}),
        ),
        ("nested 100 deep", NewRecord::new().value(nested(100)), json!({"raw": null})),
        (
            "nested 100,000 deep",
            NewRecord::new().value(nested(100_000)),
            json!({"value": null, "raw": base64(nested(100_000).as_bytes())}),
        ),
        (
            "pretty-printed with all line ends",
            NewRecord::new().value("{\r\n  \"user\": \"Ann\",\r  \"action\":\n \"x\"\n}\n"),
            json!({"value": {"user": "Ann", "action": "x"}, "raw": null}),
        ),
        (
            "control characters",
            NewRecord::new()
                .key("a\u{0}\u{1b}[31m\r\nid: 9\n\ndata: x")
                .value(r#"{"user":"\u0000\u001b[2J\r\n","action":"\u2028\u202e"}"#),
            json!({
                "key": "a\u{0}\u{1b}[31m\r\nid: 9\n\ndata: x",
                "value": {"user": "\u{0}\u{1b}[2J\r\n", "action": "\u{2028}\u{202e}"},
            }),
        ),
        (
            "raw control characters",
            NewRecord::new().value("{\"user\":\"a\nb\"}"),
            json!({"value": null, "raw": base64(b"{\"user\":\"a\nb\"}")}),
        ),
        (
            "odd headers",
            NewRecord::event("Ann", "headers")
                .header("plain", "text")
                .header("binary", vec![255, 0])
                .null_header("null")
                .header("empty", "")
                .header("twice", "first")
                .header("twice", vec![254])
                .header("", "no name")
                .header("line\nbreak", "a\r\nb"),
            json!({"headers": {
                "plain": "text", "binary": {"raw": base64(&[255, 0])}, "null": null, "empty": "",
                "twice": ["first", {"raw": base64(&[254])}], "": "no name", "line\nbreak": "a\r\nb",
            }}),
        ),
        (
            "CloudEvents headers that are none",
            NewRecord::event("Ann", "headers").header("ce_id", vec![255]).header("ce_time", "yesterday"),
            json!({"id": null}),
        ),
        ("an id that is none", NewRecord::event("Ann", "x").header("ce_id", "two words"), json!({"id": null})),
        (
            "structured mode",
            NewRecord::new()
                .value(envelope.to_string())
                .header("content-type", "application/cloudevents+json; charset=utf-8"),
            json!({"id": "ce-1", "time": "2026-01-02T03:04:05.000Z", "value": envelope}),
        ),
        (
            "structured mode that is none",
            NewRecord::new().value("[]").header("content-type", "application/cloudevents+json"),
            json!({"id": null, "value": []}),
        ),
        (
            "another content type",
            NewRecord::event("a", "b").header("content-type", "text/x"),
            json!({"headers": {"content-type": "text/x"}}),
        ),
    ]
}

/// Checks every expected member; `null` also means that a member is missing.
#[track_caller]
fn assert_reads(name: &str, record: &Value, expected: &Value) {
    for (member, value) in expected.as_object().expect("an object") {
        assert_eq!(&record[member], value, "{name}: {member} of {record}");
    }
}

fn every_odd_record_is_returned_everywhere(broker: Broker) {
    let app = Application::on(broker).start();
    let mut live = app.stream("");
    let mut rows = Subscription::open(app.address, "/stream?after=0-0.1-0.2-0");
    let records = odd_records();
    let mut written = BTreeMap::new();
    for (index, (name, record, expected)) in records.iter().enumerate() {
        let place = app.topic().produce(&record.clone().partition((index % 3) as i32));
        written.insert(place, (name, expected));
    }
    let place = |record: &Value| {
        (record["partition"].as_i64().expect("a partition") as i32, record["offset"].as_i64().expect("an offset"))
    };
    let check = |source: &str, found: Vec<Value>| {
        assert_eq!(found.len(), written.len(), "{source}");
        for record in &found {
            let (name, expected) = &written[&place(record)];
            assert_reads(&format!("{source}, {name}"), record, expected);
        }
    };
    check("stream", live.records(records.len()));
    check("stream from Kafka", app.stream_after("0-0.1-0.2-0").records(records.len()));
    let history = app.get("/api/v1/events?from=beginning&limit=1000").expect(200).json();
    check("history", history["events"].as_array().expect("events").clone());
    for ((partition, offset), (name, expected)) in &written {
        let record = app.get(&format!("/api/v1/events/{partition}/{offset}")).expect(200).json();
        assert_reads(&format!("record, {name}"), &record, expected);
    }
    let mut shown: Vec<String> = (0..records.len()).map(|_| row_id(&rows.row().data)).collect();
    shown.sort_unstable();
    let mut expected: Vec<String> = written.keys().map(|(partition, offset)| format!("{partition}-{offset}")).collect();
    expected.sort_unstable();
    assert_eq!(shown, expected);
    for path in ["/", "/history"] {
        let page = app.request("GET", path).header("Accept", "text/html").send().expect(200);
        for id in &expected {
            assert!(page.text().contains(&format!("id=\"e-{id}\"")), "{id} is not on {path}");
        }
    }
    // Filters handle them, and the stream continues.
    assert_eq!(app.stream("?after=0-0.1-0.2-0&user=Enveloped&action=wrapped").record()["id"], "ce-1");
    app.accept(&json!({"user": "Ann", "action": "after all of them"}));
    assert_eq!(live.record()["value"]["action"], "after all of them");
}

fn row_id(html: &str) -> String {
    html.split("id=\"e-")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .unwrap_or_else(|| panic!("no id in {html}"))
        .to_owned()
}

fn html_in_a_record_stays_text_on_the_page(broker: Broker) {
    let app = Application::on(broker).start();
    let mut rows = Subscription::open(app.address, "/stream");
    let nasty = "<img src=x onerror=alert(1)>\"'></li><script>alert(2)</script>";
    let records = [
        NewRecord::new().value(json!({"user": nasty, "action": nasty, nasty: nasty}).to_string()),
        NewRecord::new().key(nasty).value(nasty),
        NewRecord::new().key(nasty),
        NewRecord::event("a", "b").header(nasty, nasty),
        NewRecord::new().value(json!([nasty]).to_string()),
    ];
    app.topic().produce_all(&records);
    let mut pages: Vec<String> = records.iter().map(|_| rows.row().data).collect();
    for path in ["/", "/history", "/?user=%3Cscript%3E&q=%22%3E%3Cscript%3E", "/history?action=%3Cimg%20src%3E"] {
        pages.push(app.request("GET", path).header("Accept", "text/html").send().expect(200).text().to_owned());
    }
    for page in pages {
        assert!(
            !page.contains("<img") && !page.contains("<script>") && !page.contains("onerror=alert(1)>\"'"),
            "{page}"
        );
    }
}

fn a_huge_record_is_an_ordinary_row(broker: Broker) {
    let app = Application::on(broker).start();
    let mut live = app.stream("");
    let mut rows = Subscription::open(app.address, "/stream");
    let text = "x".repeat(900_000);
    app.topic().produce(&NewRecord::new().value(json!({"user": "Ann", "action": "huge", "text": text}).to_string()));
    app.topic().produce(&NewRecord::new().value(vec![255; 900_000]));
    app.topic().produce(&NewRecord::new().key(vec![b'k'; 400_000]).header("h", vec![b'h'; 400_000]));
    app.accept(&json!({"user": "Ann", "action": "after"}));
    let records = live.records(4);
    assert!(records.iter().any(|record| record["value"]["text"] == json!(text)));
    assert!(records.iter().any(|record| record["raw"].as_str().is_some_and(|raw| raw.len() == 1_200_000)));
    assert!(records.iter().any(|record| record["key"].as_str().is_some_and(|key| key.len() == 400_000)));
    for _ in 0..4 {
        let row = rows.row();
        assert!(row.data.len() < 20_000, "a row of {} bytes", row.data.len());
    }
    let page = app.request("GET", "/").header("Accept", "text/html").send().expect(200);
    assert!(page.body.len() < 200_000, "a page of {} bytes", page.body.len());
}

fn many_odd_records_stop_nothing(broker: Broker) {
    let app = Application::on(broker).start();
    let mut live = app.stream("");
    let odd: Vec<NewRecord> = odd_records().into_iter().map(|(_, record, _)| record).collect();
    let many: Vec<NewRecord> = odd.iter().cycle().take(odd.len() * 8).cloned().collect();
    app.topic().produce_all(&many);
    app.accept(&json!({"user": "Ann", "action": "after"}));
    let records = live.records(many.len() + 1);
    assert!(records.iter().any(|record| record["value"]["action"] == "after"));
}

/// As Python's `json.dumps` writes it.
const FROM_PYTHON: &str =
    r#"{"user": "Zo\u00eb", "action": "Checkout", "note": "\ud83d\udd25 \u0639\u0631\u0628\u064a"}"#;

fn q_finds_what_people_see_wherever_records_are_read(broker: Broker) {
    let app = Application::on(broker).start();
    app.topic().produce(&NewRecord::new().value(FROM_PYTHON));
    app.topic().produce(&NewRecord::event("Ann", "login"));
    app.wait_for_the_feed();
    for (query, found) in [
        ("q=🔥", true),
        ("q=عربي", true),
        ("q=ZOË", true),
        ("q=checkout", true),
        (r"q=\ud83d", true),
        ("q=🔥&case=exact", false),
        ("q=checkout&case=exact", false),
        ("q=Checkout&case=exact", true),
        ("q=absent", false),
    ] {
        let (name, text) = query.split_once('=').expect("a name");
        let (text, case) = text.split_once('&').unwrap_or((text, ""));
        let query = format!("{name}={}&{case}", encoded(text));
        let count = |target: &str, what: &str| app.get(target).expect(200).text().matches(what).count();
        let times = usize::from(found);
        assert_eq!(count(&format!("/api/v1/events?{query}"), "Checkout"), times, "{query}");
        assert_eq!(count(&format!("/api/v1/events.ndjson?{query}"), "Checkout"), times, "{query}");
        assert_eq!(count(&format!("/history/search?order=oldest&{query}"), "<li"), times, "{query}");
        for page in ["/", "/history"] {
            assert_eq!(count(&format!("{page}?{query}"), r#"<li class="event""#), times, "{page}?{query}");
        }
        if found {
            assert_eq!(app.stream(&format!("?last=5&{query}")).record()["value"]["action"], "Checkout", "{query}");
            assert_eq!(app.socket(&format!("?last=5&{query}")).record()["value"]["action"], "Checkout", "{query}");
        }
    }
    let problem = app.get("/api/v1/events?q=a&case=maybe").expect(400).problem();
    assert_eq!(problem["detail"], "case must be exact or ignore, not \"maybe\"");
}
