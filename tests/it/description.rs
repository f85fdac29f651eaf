//! The description of the interface, `/api/openapi.json`: what Schemathesis finds when it makes requests out of it, right ones
//! and ones that are wrong in every way that the description can tell, and whether it is complete.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;

use crate::common::{Application, Broker};
use serde_json::{Value, json};

/// Requests that are made up for each operation, beside those that the description's edges give.
const MADE_UP: &str = "15";

fn python(file: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(file)
}

/// With Apache Kafka, because the embedded broker cannot do all that is described. Streams end after a second.
#[test]
fn every_answer_is_one_that_the_description_has() {
    let app = Application::on(Broker::Kafka)
        .env("FOOTFALL_FEED__MAX_AGE", "1s")
        .env("FOOTFALL_FEED__HEARTBEAT", "100ms")
        .start();
    for user in ["John", "Ann"] {
        app.accept(&json!({"user": user, "action": "login", "page": "/cart"}));
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let base = format!("http://{}", app.address);
    // The same requests each time: what a run finds must not depend on luck.
    let run = crate::common::python::command()
        .current_dir(folder.path())
        .env("SCHEMATHESIS_HOOKS", python("hooks.py"))
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(python("schemathesis.toml"))
        .args(["run", &format!("{base}/api/openapi.json"), "--url", &base, "--no-color", "--seed", "1"])
        .args(["--max-examples", MADE_UP])
        .stdin(Stdio::null())
        .output()
        .expect("Python can be run");
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}\n{}", String::from_utf8_lossy(&run.stderr));
    let word_before = |word: &str| {
        let line = said.lines().find(|line| line.contains(word)).unwrap_or_else(|| panic!("no word of {word}: {said}"));
        let words: Vec<&str> = line.split_whitespace().collect();
        let place = words.iter().position(|found| *found == word).expect("the word");
        words[place - 1].parse::<usize>().expect("a number")
    };
    assert!(word_before("generated,") > 1000, "it did little: {said}");
    // From a receipt to its record, the record's page, its user and so on.
    assert!(word_before("covered") >= 3, "it followed few links: {said}");
    app.post(&json!({"user": "John", "action": "logout"})).expect(201);
}

fn description() -> Value {
    serde_json::from_str(include_str!("../../docs/openapi.json")).expect("JSON")
}

/// What the server or the guards answer in front of every route.
#[test]
fn every_operation_has_the_answers_that_any_route_may_give() {
    let description = description();
    let mut operations = 0;
    for (path, methods) in description["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            operations += 1;
            let answers = operation["responses"].as_object().expect("responses");
            for status in ["400", "403", "405", "408", "413", "414", "421", "431", "500", "503"] {
                assert!(answers.contains_key(status), "{method} {path} does not have {status}");
            }
        }
    }
    assert!(operations > 20, "{operations}");
}

#[test]
fn every_type_of_problem_is_in_the_documentation() {
    let description = description();
    let types = description["components"]["schemas"]["ProblemType"]["enum"].as_array().expect("types");
    let described: BTreeSet<String> =
        types.iter().map(|text| text.as_str().expect("text").trim_start_matches("/problems/").to_owned()).collect();
    assert!(described.len() > 15 && described.contains("id-reused"), "{described:?}");
    let documentation = include_str!("../../docs/api.md");
    let documented: BTreeSet<String> = documentation
        .lines()
        .skip_while(|line| *line != "#### Types of problems")
        .filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned()))
        .take_while(|slug| described.contains(slug))
        .collect();
    assert_eq!(documented, described);
}
