//! The description of the interface, `/api/openapi.json`, against what the application answers to requests that are made of
//! it: right ones, and ones that are wrong in every way that the description can tell.

mod common;

use std::path::Path;
use std::process::Stdio;

use common::{Application, Broker};
use serde_json::json;

/// Streams and searches, which Schemathesis would wait for the end of.
const WITHOUT_END: &str = "(stream|/search|/ws|/count)($|/)";
/// Requests that are made up for each operation, beside those that the description's edges give.
const MADE_UP: &str = "25";

#[test]
fn every_answer_is_one_that_the_description_has() {
    let app = Application::on(Broker::Embedded).start();
    for user in ["John", "Ann"] {
        app.accept(&json!({"user": user, "action": "login", "page": "/cart"}));
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/schemathesis.toml");
    let base = format!("http://{}", app.address);
    // The same requests each time: what a run finds must not depend on luck.
    let run = common::python::command()
        .current_dir(folder.path())
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(config)
        .args(["run", &format!("{base}/api/openapi.json"), "--url", &base, "--no-color", "--seed", "1"])
        .args(["--exclude-path-regex", WITHOUT_END, "--max-examples", MADE_UP])
        .stdin(Stdio::null())
        .output()
        .expect("Python can be run");
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}\n{}", String::from_utf8_lossy(&run.stderr));
    assert!(said.contains("POST /api/v1/events") || said.contains("generated"), "it did nothing: {said}");
    app.post(&json!({"user": "John", "action": "logout"})).expect(201);
}
