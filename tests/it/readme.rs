//! The examples of README.md, docs/api.md and docs/cli.md, run unchanged.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use crate::common::wait::{PATIENCE, eventually};
use crate::common::{Application, Broker, Browser};

/// A fenced block after `<!-- test: name -->`.
struct Example {
    name: String,
    language: String,
    text: String,
}

fn examples(document: &str) -> Vec<Example> {
    let mut lines = document.lines();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("<!-- test: ").and_then(|rest| rest.strip_suffix(" -->")) else { continue };
        let fence = lines.next().unwrap_or_default();
        let language = fence.strip_prefix("```").unwrap_or_else(|| panic!("no fenced block behind `{name}`"));
        let text: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        found.push(Example { name: name.into(), language: language.into(), text: text.join("\n") });
    }
    found
}

/// Runs a shell example against an application; a stream is cut off after its first event.
fn run(example: &Example, app: &Application) -> String {
    let url = format!("http://{}", app.address);
    let mut script = example.text.replace("http://127.0.0.1:8000", &url);
    if example.name == "send" {
        script.insert_str(0, "exec 2>&1\n"); // its sums are on standard error
    }
    let binaries = Path::new(env!("CARGO_BIN_EXE_footfall")).parent().expect("a folder").display();
    let mut child = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &script])
        .env("PATH", format!("{binaries}:{}", std::env::var("PATH").expect("a path")))
        .env("FOOTFALL_URL", url)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("bash");
    let endless = example.name.starts_with("stream");
    let mut stdout = child.stdout.take().expect("its standard output");
    let (sender, pieces) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stdout.read(&mut buffer) {
            if sender.send(buffer[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    let mut output = String::new();
    loop {
        match pieces.recv_timeout(PATIENCE) {
            Ok(piece) => output.push_str(&String::from_utf8_lossy(&piece)),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(error) => panic!("`{}`: {error} after {output:?}", example.name),
        }
        if endless && output.contains("\ndata: {\"topic\":") {
            crate::common::application::signal(child.id(), "KILL");
            let _ = Command::new("pkill").args(["-KILL", "-P", &child.id().to_string()]).status();
            let _ = child.wait();
            return output;
        }
    }
    let status = child.wait().expect("its end");
    assert!(status.success(), "`{}` ended with {status} after {output:?}", example.name);
    output
}

/// Runs a script on the live page, like its console. Returns the logged lines once they contain the expected ones.
fn run_on_the_page(example: &Example, app: &Application) -> String {
    let browser = Browser::start();
    browser.open_live(app, "/");
    browser.js("window.logged = []; console.log = (...words) => logged.push(words.map((word) => JSON.stringify(word)).join(' '))");
    browser.js(&example.text);
    let logged = eventually("it logs what is expected", || {
        let logged = browser.js("return logged.join('\\n')").as_str().unwrap_or_default().to_owned();
        let lower = logged.to_lowercase();
        expected(&example.name).iter().all(|part| lower.contains(&part.to_lowercase())).then_some(logged)
    });
    assert_eq!(browser.complaints(), Vec::<String>::new());
    logged
}

fn expected(name: &str) -> &'static [&'static str] {
    match name {
        "form" => &["HTTP/1.1 303", "location: /?sent="],
        "one-event" | "api-one" => &["HTTP/1.1 201", "location: /api/v1/events/", "\"offset\":"],
        "batch" => &["HTTP/1.1 201", "\"id\":\"order-977-paid\"", "\"id\":\"order-977-mail\""],
        "api-batch" => &["HTTP/1.1 207", "\"status\":201", "\"pointer\":\"/action\""],
        "api-ndjson" => &["HTTP/1.1 207", "\"status\":201,\"index\":0", "\"status\":422,\"index\":2"],
        "api-strict" => {
            &["HTTP/1.1 422", "preference-applied: handling=strict", "\"status\":424", "\"pointer\":\"/action\""]
        }
        "api-track" => &["HTTP/1.1 201", "\"id\":\"view-1\""],
        "api-ack-none" => &["HTTP/1.1 202", "\"id\":"],
        "api-retry" => &["HTTP/1.1 201", "idempotent-replayed: true"],
        "eventsource" => &["\"0-", "{\"topic\":", "\"user\":\"john\""],
        "stream" | "stream-api" | "stream-resume" => &["retry: 3000", "\nid: 0-", "\ndata: {\"topic\":"],
        "websocket" => &["\"event\" {", "\"record\":{\"topic\":", "\"receipt\" {", "\"ref\":1", "\"status\":201"],
        "history" | "api-history" => &["{\"events\":[{\"topic\":", "\"next\":"],
        "api-conditions" => &["{\"events\":[{\"topic\":", "\"user\":\"john\",\"action\":\"login\""],
        "user" | "api-user" => &["{\"user\":\"John\",\"partition\":", "\"complete\":"],
        "one-record" | "api-record" => &["{\"topic\":", "\"partition\":0,\"offset\":0"],
        "api-export" => &["{\"topic\":", "\"user\":\"john\""],
        "api-stats" => &["\"last_15m\":{\"events\":", "\"line_24h\":"],
        "send" => &["footfall: 2 lines: 2 written (0 of them already written), 0 rejected, "],
        "tail" => &["\tJohn\tlogin\t{"],
        "api-ready" => &["HTTP/1.1 200", "[+] kafka"],
        "topics" | "api-topics" => &["{\"topics\":[", "\"next_offset\":", "\"brokers\":["],
        "tutorial" => &["HTTP/1.1 200", "{\"message\":\"Sent to Kafka!\"}"],
        other => panic!("no expectation for the example `{other}`"),
    }
}

fn every_example_of(document: &str) {
    let app = Application::on(Broker::Kafka).start();
    // The examples read events of other examples, and one record at partition 0.
    app.topic().produce(&crate::common::NewRecord::event("John", "login").partition(0));
    app.accept(&serde_json::json!({"user": "John", "action": "first"}));
    let examples = examples(document);
    assert!(examples.len() > 1, "the document has its examples");
    for example in &examples {
        let output = match example.language.as_str() {
            "sh" => run(example, &app),
            "js" => run_on_the_page(example, &app),
            other => panic!("the example `{}` is of the language {other}", example.name),
        };
        let output = output.to_lowercase();
        for part in expected(&example.name) {
            assert!(output.contains(&part.to_lowercase()), "`{}`: no {part:?} in {output}", example.name);
        }
    }
}

#[test]
fn the_examples_of_the_readme_work() {
    every_example_of(include_str!("../../README.md"));
}

#[test]
fn the_examples_of_the_clients_docs_work() {
    every_example_of(include_str!("../../docs/cli.md"));
}

#[test]
fn the_examples_of_the_api_docs_work() {
    every_example_of(include_str!("../../docs/api.md"));
}
