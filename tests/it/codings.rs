//! Compressed bodies: each coding of `Content-Encoding` with each format, and its bounds.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::common::http::{Request, Response};
use crate::common::{Application, Broker, Resources};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::{Value, json};

const CODINGS: [&str; 3] = ["gzip", "deflate", "zstd"];

/// Compresses a body by the coding of this name.
fn coded(coding: &str, body: &[u8]) -> Vec<u8> {
    match coding.trim().to_ascii_lowercase().as_str() {
        "gzip" | "x-gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(body).expect("memory");
            encoder.finish().expect("memory")
        }
        "deflate" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(body).expect("memory");
            encoder.finish().expect("memory")
        }
        "zstd" => {
            let mut coded = Vec::with_capacity(zstd_safe::compress_bound(body.len()));
            zstd_safe::compress(&mut coded, body, 3).expect("memory");
            coded
        }
        "" | "identity" => body.to_vec(),
        other => panic!("no encoder for {other}"),
    }
}

fn request(app: &Application, coding: &str, content_type: &str, body: Vec<u8>) -> Request {
    app.request("POST", "/api/v1/events").body(content_type, body).header("Content-Encoding", coding)
}

fn post(app: &Application, coding: &str, body: Vec<u8>) -> Response {
    request(app, coding, "application/json", body).send()
}

const EVENT: &[u8] = br#"{"user":"Ann","action":"look"}"#;

/// A zstd frame of raw blocks that may refer back as many bytes as this window says (RFC 8878, section 3.1.1.1.2).
fn zstd_frame(window: u8, body: &[u8]) -> Vec<u8> {
    let last_raw_block = (body.len() as u32) << 3 | 1;
    let head = [&[0x28, 0xb5, 0x2f, 0xfd, 0, window][..], &last_raw_block.to_le_bytes()[..3]].concat();
    [&head, body].concat()
}

#[test]
fn every_coding_of_every_format_is_the_same_as_none() {
    let app = Application::on(Broker::Embedded).start();
    let cloud = |name: &str| json!({"specversion": "1.0", "id": name, "source": "/s", "type": "t", "data": {"user": name, "action": "look"}});
    let event = |name: &str| json!({"user": name, "action": "look"});
    let mut sent = Vec::new();
    for coding in ["", "identity", "gzip", "x-gzip", "deflate", "zstd", " ZSTD ", "Identity, GZIP"] {
        for (format, content_type) in [
            "application/json",
            "application/json; charset=utf-8",
            "application/cloudevents+json",
            "application/cloudevents-batch+json",
            "application/x-ndjson",
            "application/ndjson",
            "application/jsonl",
        ]
        .into_iter()
        .enumerate()
        {
            let names = [format!("{coding}-{format}-1"), format!("{coding}-{format}-2")];
            let names = names.map(|name| name.replace([' ', ','], "_"));
            let several = |one: &dyn Fn(&str) -> Value| json!([one(&names[0]), one(&names[1])]).to_string();
            let (body, count) = match content_type {
                "application/json" => (several(&event), 2),
                "application/cloudevents-batch+json" => (several(&cloud), 2),
                "application/cloudevents+json" => (cloud(&names[0]).to_string(), 1),
                "application/json; charset=utf-8" => (event(&names[0]).to_string(), 1),
                _ => (format!("{}\n{}\n", event(&names[0]), event(&names[1])), 2),
            };
            let codec = coding.rsplit(',').next().expect("a name");
            let answer = request(&app, coding, content_type, coded(codec, body.as_bytes())).send();
            assert_eq!(answer.status(), 201, "{coding} {content_type}: {}", answer.text());
            sent.extend(names.into_iter().take(count));
        }
    }
    let page = app.get("/api/v1/events?from=beginning&limit=1000").expect(200).json();
    let events = page["events"].as_array().expect("events");
    let mut found: Vec<String> =
        events.iter().map(|record| record["value"]["user"].as_str().expect("a user").to_owned()).collect();
    found.sort_unstable();
    sent.sort_unstable();
    assert_eq!(found, sent);
}

#[test]
fn the_tutorials_call_takes_every_coding() {
    let app = Application::on(Broker::Embedded).start();
    for coding in CODINGS {
        app.request("POST", "/send-message/")
            .body("application/json", coded(coding, EVENT))
            .header("Content-Encoding", coding)
            .send()
            .expect(200);
    }
}

#[test]
fn a_body_that_is_not_of_its_coding_is_400_and_names_it() {
    let app = Application::on(Broker::Embedded).start();
    for coding in CODINGS {
        let whole = coded(coding, EVENT);
        let mut cases: Vec<Vec<u8>> = (0..whole.len()).map(|end| whole[..end].to_vec()).collect();
        cases.push(EVENT.to_vec());
        cases.push([&whole[..], b"x"].concat());
        cases.push([&whole[..], b"not a second member"].concat());
        if coding != "zstd" {
            let mut wrong_checksum = whole.clone();
            let at = whole.len() - if coding == "gzip" { 8 } else { 1 };
            wrong_checksum[at] ^= 1;
            cases.push(wrong_checksum);
        }
        for body in cases {
            let answer = post(&app, coding, body.clone());
            assert_eq!(answer.status(), 400, "{coding} {body:?}: {}", answer.text());
            let problem = answer.problem();
            assert_eq!((&problem["type"], &problem["retryable"]), (&json!("/problems/not-json"), &json!(false)));
            let detail = problem["detail"].as_str().expect("a detail");
            assert!(detail.starts_with(&format!("the body is not {coding}")), "{coding} {body:?}: {detail}");
        }
        // An empty body is what it says, not an empty event.
        post(&app, coding, coded(coding, b"")).expect(400).problem();
    }
    // Deflate is the zlib format (RFC 9110, section 8.4.1.2), not bare deflate.
    let mut bare = flate2::write::DeflateEncoder::new(Vec::new(), Compression::best());
    bare.write_all(EVENT).expect("memory");
    let problem = post(&app, "deflate", bare.finish().expect("memory")).expect(400).problem();
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("zlib")), "{problem}");
}

#[test]
fn an_unknown_coding_or_two_are_415_and_name_the_supported_ones() {
    let app = Application::on(Broker::Embedded).start();
    for coding in ["br", "compress", "gzip;q=1", "gzip, gzip", "gzip,zstd", "deflate, identity, gzip", "x"] {
        let answer = post(&app, coding, EVENT.to_vec()).expect(415);
        assert_eq!(answer.header("Accept-Encoding"), Some("gzip, deflate, zstd"), "{coding}");
        let problem = answer.problem();
        assert_eq!(problem["type"], "/problems/unsupported-type");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("gzip, deflate, zstd")), "{problem}");
    }
    // Two headers are one list (RFC 9110, section 5.3).
    for (second, status) in [("zstd", 415), ("gzip", 415), ("identity", 201)] {
        let request = request(&app, "gzip", "application/json", coded("gzip", EVENT));
        request.header("Content-Encoding", second).send().expect(status);
    }
}

#[test]
fn a_body_of_any_coding_may_have_exactly_the_most_bytes() {
    let app = Application::on(Broker::Embedded).start();
    let event = format!(r#"{{"user":"a","action":"b","x":"{}"}}"#, "x".repeat(30_000));
    let body_of = |bytes: usize| {
        let body = format!("[{}]", vec![event.as_str(); 16].join(","));
        body.clone() + &" ".repeat(bytes - body.len())
    };
    for coding in CODINGS {
        post(&app, coding, coded(coding, body_of(512 * 1024).as_bytes())).expect(201);
        post(&app, coding, coded(coding, body_of(512 * 1024 + 1).as_bytes())).expect(413).problem();
    }
}

#[test]
fn a_bomb_of_any_coding_is_413_and_costs_little() {
    let app = Application::on(Broker::Embedded).start();
    post(&app, "zstd", coded("zstd", EVENT)).expect(201);
    let before = Resources::of(app.process_id());
    let nothing = vec![b' '; 64 << 20];
    for coding in CODINGS {
        let bomb = coded(coding, &nothing);
        assert!(bomb.len() < 512 * 1024, "{coding}: {} bytes", bomb.len());
        for content_type in ["application/json", "application/x-ndjson", "application/cloudevents-batch+json"] {
            let started = Instant::now();
            request(&app, coding, content_type, bomb.clone()).send().expect(413).problem();
            assert!(started.elapsed() < Duration::from_secs(2), "{coding}: {:?}", started.elapsed());
        }
    }
    let grown = Resources::of(app.process_id()).peak_kib.saturating_sub(before.peak_kib);
    assert!(grown < 32 << 10, "grew by {grown} KiB");
}

/// The decoder allocates as many bytes as the frame may refer back.
#[test]
fn the_window_of_zstd_is_bounded() {
    let app = Application::on(Broker::Embedded).start();
    // A window of 8 MiB is what every sender may use (RFC 9659).
    post(&app, "zstd", zstd_frame((23 - 10) << 3, EVENT)).expect(201);
    for window in [(23 - 10) << 3 | 1, (24 - 10) << 3, (31 - 10) << 3, 0xff] {
        let problem = post(&app, "zstd", zstd_frame(window, EVENT)).expect(400).problem();
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("zstd: ")), "{problem}");
    }
}

/// Each frame takes time, even an empty one.
#[test]
fn a_zstd_body_of_many_frames_is_413() {
    let app = Application::on(Broker::Embedded).start();
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"xxx"].concat();
    for frame in [coded("zstd", b""), skippable] {
        for (frames, status) in [(1, 201), (1000, 201), (1023, 201), (1024, 413), (500_000 / frame.len(), 413)] {
            let started = Instant::now();
            let answer = post(&app, "zstd", [frame.repeat(frames), coded("zstd", EVENT)].concat());
            assert_eq!(answer.status(), status, "{frames}: {}", answer.text());
            assert!(started.elapsed() < Duration::from_secs(2), "{frames}: {:?}", started.elapsed());
            if status == 413 {
                assert!(answer.text().contains("more than 1024 frames"), "{}", answer.text());
            }
        }
    }
}
