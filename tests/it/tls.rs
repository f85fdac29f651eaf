//! HTTPS: everything works over it, which clients get a connection, and certificates that change.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::tls::{Authority, Client, Files, Identity, Tunnel, connect, exchange, get};
use crate::common::wait::{PATIENCE, eventually};
use crate::common::{Application, Broker, application};
use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, date_time_ymd};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{AlertDescription, Error, HandshakeKind, ProtocolVersion, version};

/// An application that speaks HTTPS. Its `address` is that of a tunnel.
struct Secured {
    app: Application,
    server: SocketAddr,
    client: Client,
    files: Files,
    authority: Authority,
    identity: Identity,
    _tunnel: Tunnel,
}

impl Secured {
    #[track_caller]
    fn start() -> Self {
        Secured::start_with(|builder, _| builder)
    }

    #[track_caller]
    fn start_with(change: impl FnOnce(application::Builder, &Files) -> application::Builder) -> Self {
        let authority = Authority::new("Servers");
        let identity = authority.identity();
        let files = Files::with(&identity);
        let builder = Application::on(Broker::Embedded)
            .env("FOOTFALL_TLS__CERTS", &files.path("certs.pem"))
            .env("FOOTFALL_TLS__KEY", &files.path("key.pem"));
        let mut app = change(builder, &files).start_without_waiting_for_kafka();
        let (server, client) = (app.address, authority.client());
        let tunnel = Tunnel::to(server, &client);
        app.address = tunnel.address;
        app.wait_until_ready();
        Secured { app, server, client, files, authority, identity, _tunnel: tunnel }
    }

    /// The certificate that a new connection gets.
    #[track_caller]
    fn certificate(&self) -> CertificateDer<'static> {
        let connection = self.client.connect(self.server);
        connection.conn.peer_certificates().expect("a certificate")[0].clone()
    }

    /// The lines of the log with this message.
    fn logged(&self, message: &str) -> Vec<Value> {
        self.app.log().into_iter().filter(|line| line["message"] == message).collect()
    }
}

const LOADED: &str = "new connections get the changed certificate";
const UNUSABLE: &str = "the changed certificate cannot be used, the previous one stays";

/// Returns why rustls ended a connection.
fn reason(error: &std::io::Error) -> Option<&Error> {
    error.get_ref().and_then(|error| error.downcast_ref())
}

#[test]
fn pages_posts_streams_and_sockets_work_over_tls() {
    let secured = Secured::start();
    let app = &secured.app;
    let line = app.log_line("it listens", |line| line["message"] == "listening");
    assert_eq!(line["address"], format!("https://{}", secured.server));
    let own = format!("https://{}", app.address);
    assert!(app.get("/").expect(200).text().contains(&format!("class=\"base\">{own}<")), "the line for a terminal");
    let mut stream = app.stream("");
    let mut socket = app.socket("");
    app.accept(&json!({"user": "Ann", "action": "login"}));
    assert_eq!(stream.record()["value"]["user"], "Ann");
    assert_eq!(socket.record()["value"]["user"], "Ann");
    let receipt = socket.ask(&json!({"type": "post", "ref": 1, "event": {"user": "Bob", "action": "login"}}));
    assert_eq!(receipt["type"], "receipt", "{receipt}");
    assert_eq!(stream.record()["value"]["user"], "Bob");
    // Much, also for a client that comes back.
    let cursor = stream.last_event_id().to_owned();
    app.post_events(5000);
    let numbers = |records: Vec<Value>| -> Vec<u64> {
        let mut numbers: Vec<u64> = records.iter().filter_map(|record| record["value"]["n"].as_u64()).collect();
        numbers.sort_unstable();
        numbers
    };
    let all: Vec<u64> = (0..5000).collect();
    assert_eq!(numbers(stream.records(5000)), all);
    assert_eq!(numbers(app.stream_after(&cursor).records(5000)), all);
    let export = app.get("/api/v1/events.ndjson?from=beginning").expect(200);
    assert_eq!(export.text().lines().count(), 5002);
    // Several requests on one connection, and a body of many TLS records.
    let mut kept = app.request("GET", "/livez").header("Connection", "keep-alive").open();
    kept.next_response("GET").expect(200);
    let large = json!(vec![json!({"user": "Ann", "action": "large", "x": "x".repeat(30_000)}); 15]);
    kept.send_request(&app.request("POST", "/api/v1/events").header("Connection", "keep-alive").json(&large));
    kept.next_response("POST").expect(201);
    socket.close();
}

/// A page of `http://` may come from anyone in the network.
#[test]
fn a_form_is_accepted_only_from_pages_of_https() {
    let Secured { app, .. } = &Secured::start();
    for (origin, status) in [(format!("https://{}", app.address), 303), (format!("http://{}", app.address), 403)] {
        let form = app.request("POST", "/events").form(&[("user", "Ann"), ("action", "login")]);
        form.header("Origin", &origin).send().expect(status);
    }
}

#[test]
fn tls_1_2_and_1_3_and_http_1_1_are_negotiated() {
    let Secured { server, client, .. } = &Secured::start();
    let versions = [(&version::TLS12, ProtocolVersion::TLSv1_2), (&version::TLS13, ProtocolVersion::TLSv1_3)];
    for (offered, expected) in versions {
        for (alpn, chosen) in
            [(&[][..], None), (&["http/1.1"], Some("http/1.1")), (&["h2", "http/1.1"], Some("http/1.1"))]
        {
            let mut connection = client.clone().version(offered).alpn(alpn).connect(*server);
            assert_eq!(connection.conn.protocol_version(), Some(expected));
            assert_eq!(connection.conn.alpn_protocol(), chosen.map(str::as_bytes), "{alpn:?}");
            let answer = exchange(&mut connection, &get("/livez")).expect("an answer and an end");
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
        let refused = connect(&client.clone().version(offered).alpn(&["h2"]).config(), *server);
        let error = refused.expect_err("nothing but HTTP/2 is offered");
        assert_eq!(reason(&error), Some(&Error::AlertReceived(AlertDescription::NoApplicationProtocol)), "{error}");
    }
}

#[test]
fn a_changed_certificate_is_for_new_connections_and_open_streams_continue() {
    let secured = Secured::start();
    let Secured { app, server, client, files, authority, identity, .. } = &secured;
    let mut stream = app.stream("");
    let resuming = client.clone().version(&version::TLS12).config();
    let kind = || {
        let mut connection = connect(&resuming, *server).expect("a connection");
        exchange(&mut connection, &get("/livez")).expect("an answer");
        connection.conn.handshake_kind()
    };
    assert_eq!(secured.certificate(), identity.der());
    assert_eq!((kind(), kind()), (Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)));
    let expiry = || app.metric("footfall_tls_certificate_expiry_seconds").expect("a certificate");
    assert_eq!(expiry(), 67_090_118_400.0, "4096-01-01");
    // As Kubernetes does, and in place, one file after the other.
    let renewed = authority.identity_with(KeyPair::generate().expect("a key"), |params| {
        params.not_after = date_time_ymd(2100, 1, 1);
    });
    files.replace(&renewed);
    eventually("a new connection gets the new one", || (secured.certificate() == renewed.der()).then_some(()));
    assert_eq!(expiry(), 4_102_444_800.0);
    assert_eq!(kind(), Some(HandshakeKind::Full), "a session does not outlive its certificate");
    let again = authority.identity();
    std::fs::write(files.path("certs.pem"), &again.certificate).expect("a file");
    std::fs::write(files.path("key.pem"), &again.key).expect("a file");
    eventually("a new connection gets the next one", || (secured.certificate() == again.der()).then_some(()));
    eventually("the log has both", || (secured.logged(LOADED).len() == 2).then_some(()));
    assert_eq!(secured.logged(UNUSABLE), Vec::<Value>::new());
    app.accept(&json!({"user": "Ann", "action": "login"}));
    assert_eq!(stream.record()["value"]["user"], "Ann", "the first connection is still open");
}

#[test]
fn an_unusable_changed_certificate_is_logged_once_and_the_previous_one_stays() {
    let secured = Secured::start();
    let Secured { files, authority, identity, .. } = &secured;
    let other = authority.identity();
    for (changed, expected) in [
        (&[("certs.pem", other.certificate.as_str()), ("key.pem", identity.key.as_str())][..], "does not belong"),
        (&[("certs.pem", other.certificate.as_str())], "cannot read"),
        (&[("certs.pem", ""), ("key.pem", other.key.as_str())], "no certificate"),
    ] {
        let before = secured.logged(UNUSABLE).len();
        files.replace_all(changed);
        let lines = || Some(secured.logged(UNUSABLE)).filter(|lines| lines.len() > before);
        let lines = eventually("the log says why", lines);
        assert_eq!(lines.len(), before + 1);
        assert!(lines[before]["error"].as_str().is_some_and(|error| error.contains(expected)), "{}", lines[before]);
        assert_eq!(secured.certificate(), identity.der());
    }
    files.replace(&other);
    eventually("a usable one is used", || (secured.certificate() == other.der()).then_some(()));
    eventually("the log has it", || (secured.logged(LOADED).len() == 1).then_some(()));
    assert_eq!(secured.logged(UNUSABLE).len(), 3);
}

/// Runs a command that ends by itself.
#[track_caller]
fn run(command: &str, environment: &[(&str, &str)]) -> Output {
    let folder = TempDir::new().expect("a temporary folder");
    let mut command_line = application::command(folder.path());
    command_line.arg(command).env("ROCKET_PORT", "0").envs(environment.iter().copied());
    command_line.output().expect("the binary can be run")
}

#[test]
fn an_unusable_certificate_stops_the_start_with_one_line() {
    let authority = Authority::new("Servers");
    let (identity, other) = (authority.identity(), authority.identity());
    let folder = TempDir::new().expect("a temporary folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.to_str().expect("UTF-8").to_owned()
    };
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let damaged = identity.certificate.replace("MII", "???");
    let (certs, key) = (file("certs.pem", &identity.certificate), file("key.pem", &identity.key));
    let (empty, other_key) = (file("empty.pem", ""), file("other.pem", &other.key));
    let (encrypted, damaged) = (file("encrypted.pem", encrypted), file("damaged.pem", &damaged));
    let noise = file("noise.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let (c, k) = ("FOOTFALL_TLS__CERTS", "FOOTFALL_TLS__KEY");
    let (ca_certs, mandatory) = ("FOOTFALL_TLS__MUTUAL__CA_CERTS", "FOOTFALL_TLS__MUTUAL__MANDATORY");
    let rocket = format!("{{certs={certs:?}, key=\"/nowhere/key.pem\"}}");
    let mistyped = format!("{{certs={certs:?}, kye={key:?}}}");
    for (environment, expected) in [
        (&[(c, certs.as_str())][..], &["`tls.certs` (environment variable FOOTFALL_TLS__CERTS)", "tls.key"][..]),
        (&[(k, &key)], &["`tls.key` (environment variable FOOTFALL_TLS__KEY)", "tls.certs"]),
        (&[(c, "/nowhere/c.pem"), (k, &key)], &["tls.certs", "FOOTFALL_TLS__CERTS", "cannot read /nowhere/c.pem"]),
        (&[("ROCKET_TLS", &rocket)], &["tls.key", "ROCKET_TLS", "cannot read /nowhere/key.pem"]),
        (&[("ROCKET_TLS", &mistyped)], &["tls.kye", "ROCKET_TLS", "expected one of certs, key, mutual"]),
        (&[(c, &empty), (k, &key)], &["tls.certs", "empty.pem has no certificate"]),
        (&[(c, &damaged), (k, &key)], &["tls.certs", "damaged.pem"]),
        (&[(c, &noise), (k, &key)], &["tls.certs", "noise.pem"]),
        (&[(c, &certs), (k, &certs)], &["tls.key", "certs.pem has no private key"]),
        (&[(c, &certs), (k, &encrypted)], &["tls.key", "encrypted.pem has an encrypted private key"]),
        (&[(c, &certs), (k, &other_key)], &["tls.key", "other.pem does not belong to", "certs.pem"]),
        (&[(ca_certs, &certs)], &["tls.mutual.ca_certs", "tls.key"]),
        (&[(c, &certs), (k, &key), (mandatory, "true")], &["tls.mutual.mandatory", "tls.mutual.ca_certs"]),
        (&[(c, &certs), (k, &key), (ca_certs, &empty)], &["tls.mutual.ca_certs", "empty.pem has no certificate"]),
        (&[(c, &certs), (k, &key), (ca_certs, &noise)], &["tls.mutual.ca_certs", "noise.pem"]),
    ] {
        for command in ["check", "serve"] {
            let output = run(command, environment);
            let error = String::from_utf8_lossy(&output.stderr);
            assert_eq!((output.status.code(), error.lines().count()), (Some(2), 1), "{environment:?}: {error}");
            assert!(expected.iter().all(|part| error.contains(part)), "{environment:?}: {error}");
        }
    }
}

#[test]
fn a_certificate_that_is_not_valid_now_is_a_warning() {
    let authority = Authority::new("Servers");
    for (from, until, words) in [(1990, 1991, "expired on Tue, 01 Jan 1991"), (2100, 2101, "is not valid before Fri")] {
        let identity = authority.identity_with(KeyPair::generate().expect("a key"), |params| {
            params.not_before = date_time_ymd(from, 1, 1);
            params.not_after = date_time_ymd(until, 1, 1);
        });
        let files = Files::with(&identity);
        let (certs, key) = (files.path("certs.pem"), files.path("key.pem"));
        let output = run("check", &[("FOOTFALL_TLS__CERTS", &certs), ("FOOTFALL_TLS__KEY", &key)]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.lines().count() == 1, "{said}");
        assert!(said.contains("`tls.certs`") && said.contains(&certs) && said.contains(words), "{said}");
        let app = Application::on(Broker::Embedded).env("FOOTFALL_TLS__CERTS", &certs).env("FOOTFALL_TLS__KEY", &key);
        let app = app.start_without_waiting_for_kafka();
        app.log_line("a warning", |line| {
            line["level"] == "WARN" && line["message"].as_str().is_some_and(|text| text.contains(words))
        });
    }
}

#[test]
fn private_keys_may_be_of_every_common_kind() {
    let authority = Authority::new("Servers");
    let generated = |kind| authority.identity_with(KeyPair::generate_for(kind).expect("a key"), |_| {});
    let (ecdsa, rsa) = (authority.identity(), authority.identity_of_rsa());
    let p384 = generated(&PKCS_ECDSA_P384_SHA384);
    let traditional = |identity: &Identity, kind| Identity { key: identity.traditional_key(kind), ..identity.clone() };
    let mut all = vec![
        traditional(&ecdsa, "EC PRIVATE KEY"),
        traditional(&rsa, "RSA PRIVATE KEY"),
        traditional(&p384, "EC PRIVATE KEY"),
        generated(&PKCS_ED25519),
    ];
    all.extend([p384, ecdsa, rsa]);
    for identity in all {
        // As in many packages of other software: with text around, and the intermediate certificate behind.
        let certificate = format!("subject=localhost\r\n{}\r\n{}", identity.certificate, authority.pem);
        let files = Files::with(&Identity { certificate, ..identity.clone() });
        let (certs, key) = (files.path("certs.pem"), files.path("key.pem"));
        let app = Application::on(Broker::Embedded).env("FOOTFALL_TLS__CERTS", &certs).env("FOOTFALL_TLS__KEY", &key);
        let app = app.start_without_waiting_for_kafka();
        for version in [&version::TLS12, &version::TLS13] {
            let mut connection = authority.client().version(version).connect(app.address);
            let answer = exchange(&mut connection, &get("/livez")).expect("an answer");
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            assert_eq!(connection.conn.peer_certificates().map(<[_]>::len), Some(2));
        }
    }
}

/// A relative path in `Rocket.toml` starts at that file, as in Rocket.
#[test]
fn the_keys_of_rocket_work_in_its_file() {
    let authority = Authority::new("Servers");
    let (identity, folder) = (authority.identity(), TempDir::new().expect("a temporary folder"));
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("a file");
    write("certs.pem", &identity.certificate);
    write("key.pem", &identity.key);
    write("ca.pem", &authority.pem);
    write(
        "footfall.toml",
        "[default.tls]\ncerts = \"certs.pem\"\nkey = \"key.pem\"\n[default.tls.mutual]\nca_certs = \"ca.pem\"\nmandatory = true\n",
    );
    let file = folder.path().join("footfall.toml");
    let output = run("check", &[("ROCKET_CONFIG", file.to_str().expect("UTF-8"))]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for (key, value) in [("tls.certs", "certs.pem"), ("tls.key", "key.pem"), ("tls.mutual.ca_certs", "ca.pem")] {
        let value = format!("{:?}", folder.path().join(Path::new(value)));
        let is_shown = |line: &str| line.starts_with(&format!("{key} ")) && line.contains(&value);
        assert!(said.lines().any(is_shown), "{key}: {said}");
    }
}

#[test]
fn clients_without_the_right_certificate_are_refused_in_the_handshake() {
    let (clients, strangers) = (Authority::new("Clients"), Authority::new("Strangers"));
    let (right, wrong) = (clients.identity(), strangers.identity());
    let expired = clients.identity_with(KeyPair::generate().expect("a key"), |params| {
        params.not_after = date_time_ymd(2000, 1, 1);
    });
    let servers = Authority::new("Servers");
    let files = Files::with(&servers.identity());
    for mandatory in [false, true] {
        let identity = servers.identity();
        files.replace_all(&[
            ("certs.pem", &identity.certificate),
            ("key.pem", &identity.key),
            ("ca.pem", &clients.pem),
        ]);
        let app = Application::on(Broker::Embedded)
            .env("FOOTFALL_TLS__CERTS", &files.path("certs.pem"))
            .env("FOOTFALL_TLS__KEY", &files.path("key.pem"))
            .env("FOOTFALL_TLS__MUTUAL__CA_CERTS", &files.path("ca.pem"))
            .env("FOOTFALL_TLS__MUTUAL__MANDATORY", &mandatory.to_string())
            .start_without_waiting_for_kafka();
        let client = servers.client();
        for version in [&version::TLS12, &version::TLS13] {
            let client = client.clone().version(version);
            let ask = |client: &Client| {
                let mut connection = connect(&client.config(), app.address)?;
                exchange(&mut connection, &get("/livez"))
            };
            let refused = |client: &Client, expected: &[AlertDescription]| {
                let error = ask(client).expect_err("a refusal");
                let alert = reason(&error).cloned();
                assert!(
                    expected.iter().any(|expected| alert == Some(Error::AlertReceived(*expected))),
                    "{version:?}: {error}"
                );
            };
            assert!(ask(&client.clone().identity(&right)).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 ")));
            refused(&client.clone().identity(&wrong), &[AlertDescription::UnknownCA, AlertDescription::DecryptError]);
            refused(&client.clone().identity(&expired), &[AlertDescription::CertificateExpired]);
            match mandatory {
                true => refused(&client, &[AlertDescription::CertificateRequired, AlertDescription::HandshakeFailure]),
                false => assert!(ask(&client).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))),
            }
        }
        // Another authority, and nobody who was accepted before gets in with an old session.
        let resuming = client.identity(&right).config();
        let ask = || connect(&resuming, app.address).and_then(|mut it| exchange(&mut it, &get("/livez")));
        ask().expect("the right certificate");
        files.replace_all(&[
            ("certs.pem", &identity.certificate),
            ("key.pem", &identity.key),
            ("ca.pem", &strangers.pem),
        ]);
        eventually("the certificate is refused", || ask().err());
    }
}

#[test]
fn plain_http_is_told_so_and_noise_is_closed_without_a_line_in_the_log() {
    let secured = Secured::start();
    let Secured { app, server, .. } = &secured;
    let send = |bytes: &[u8]| {
        let mut client = TcpStream::connect(server).expect("a connection");
        client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        client.write_all(bytes).expect("an open connection");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("an end without a reset");
        answer
    };
    let large = format!("POST /api/v1/events HTTP/1.1\r\nContent-Length: 500000\r\n\r\n{}", "x".repeat(500_000));
    for request in ["GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "get", &large] {
        let answer = send(request.as_bytes());
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 400 ") && head.contains("\r\nConnection: close\r\n"), "{answer}");
        let problem: Value = serde_json::from_str(body).expect("JSON");
        assert_eq!((&problem["status"], &problem["detail"]), (&json!(400), &json!("this port speaks HTTPS")));
    }
    assert_eq!(send(b"\0\0\0\0"), "");
    assert_eq!(send(&[0x80; 100_000]), "");
    // Of the right type, but not TLS: an alert (21), unexpected_message or decode_error.
    for noise in [&[22; 3000][..], b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"] {
        let mut client = TcpStream::connect(server).expect("a connection");
        client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        client.write_all(noise).expect("an open connection");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).expect("an end without a reset");
        assert_eq!(answer.first(), Some(&21), "{answer:?}");
    }
    // `footfall healthcheck` speaks plain HTTP, and knows that answer.
    let mut check = application::command(Path::new(env!("CARGO_TARGET_TMPDIR")));
    check.arg("healthcheck").env("ROCKET_PORT", server.port().to_string());
    check.env("FOOTFALL_TLS__CERTS", secured.files.path("certs.pem"));
    check.env("FOOTFALL_TLS__KEY", secured.files.path("key.pem"));
    let checked = check.output().expect("the binary can be run");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));

    app.get("/livez").expect(200);
    app.log_line("the line of a request", |line| line["http.path"] == "/livez");
    let requests = secured.logged("request");
    assert!(requests.iter().all(|line| line["http.status"] != 400), "{requests:?}");
    assert_eq!(app.log().len(), requests.len() + 3, "Kafka, the embedded broker, listening");
    eventually("they are closed", || (app.metric("footfall_http_connections") == Some(1.0)).then_some(()));
}

/// The deadline is half a minute: all of them in one test, in parallel.
#[test]
fn a_handshake_that_does_not_end_is_closed() {
    let Secured { app, server, client, .. } = &Secured::start();
    let mut hello = Vec::new();
    let name = tokio_rustls::rustls::pki_types::ServerName::IpAddress(server.ip().into());
    let mut tls = tokio_rustls::rustls::ClientConnection::new(client.config(), name).expect("a client");
    tls.write_tls(&mut hello).expect("bytes");
    let started = Instant::now();
    let clients: Vec<_> = [&hello[..0], &hello[..1], &hello[..100], &hello[..]]
        .into_iter()
        .map(|begin| {
            let mut client = TcpStream::connect(server).expect("a connection");
            client.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
            client.write_all(begin).expect("an open connection");
            thread::spawn(move || client.read_to_end(&mut Vec::new()).expect("an end"))
        })
        .collect();
    let received: Vec<usize> = clients.into_iter().map(|client| client.join().expect("an end")).collect();
    assert!(received[..3] == [0, 0, 0] && received[3] > 0, "{received:?}");
    assert!((25..40).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
    for (part, count) in [("handshake", 3.0), ("head", 0.0)] {
        assert_eq!(app.metric(&format!("footfall_http_timeouts_total{{part=\"{part}\"}}")), Some(count), "{part}");
    }
}

#[test]
fn shutdown_ends_streams_with_bye_and_close_notify() {
    let Secured { app, server, client, .. } = &Secured::start();
    let unfinished = TcpStream::connect(server).expect("a connection");
    let mut halfway = TcpStream::connect(server).expect("a connection");
    halfway.write_all(&[22, 3]).expect("an open connection");
    let mut stream = client.connect(*server);
    stream.write_all(get("/api/v1/stream").as_bytes()).expect("an open connection");
    let mut idle = client.connect(*server);
    eventually("the stream is counted", || (app.metric("footfall_streams") == Some(1.0)).then_some(()));
    let asked = Instant::now();
    app.terminate();
    let mut received = String::new();
    stream.read_to_string(&mut received).expect("an end with close_notify");
    assert!(received.contains("event: bye\n") && received.ends_with("0\r\n\r\n"), "{received}");
    assert_eq!(idle.read(&mut [0]).expect("an end with close_notify"), 0);
    assert!(app.wait_for_exit(PATIENCE).success());
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    drop((unfinished, halfway));
}

/// Without `close_notify`, as many clients do.
#[test]
fn a_client_that_leaves_is_noticed_at_once() {
    let Secured { app, server, client, .. } =
        &Secured::start_with(|builder, _| builder.env("FOOTFALL_FEED__HEARTBEAT", "60s"));
    let mut stream = client.connect(*server);
    stream.write_all(get("/api/v1/stream").as_bytes()).expect("an open connection");
    stream.read_exact(&mut [0; 100]).expect("the stream has started");
    assert_eq!(app.metric("footfall_streams"), Some(1.0));
    drop(stream);
    eventually("the stream ends", || (app.metric("footfall_streams") == Some(0.0)).then_some(()));
}

#[test]
fn connections_are_counted_before_the_handshake() {
    let Secured { app, server, .. } = &Secured::start_with(|builder, _| builder.open_files(400));
    let open: Vec<TcpStream> = (0..350).map(|_| TcpStream::connect(server).expect("a connection")).collect();
    let is_closed = |mut client: &TcpStream| {
        client.set_nonblocking(true).expect("a socket");
        match client.read(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    };
    eventually("some are closed", || open.iter().any(is_closed).then_some(()));
    drop(open);
    eventually("others are served again", || app.request("GET", "/livez").try_send().filter(|it| it.status() == 200));
    let refused = app.metric("footfall_http_connections_refused_total{reason=\"address\"}");
    assert!(refused.is_some_and(|count| count >= 1.0), "{refused:?}");
}
