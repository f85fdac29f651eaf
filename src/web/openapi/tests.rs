//! Whether what is generated is in `docs/`, and leads where it says.

use std::path::Path;

use super::*;
use crate::web::routes::description;

fn operations() -> OpenApi {
    description("/track.js")
}

/// Writes what is generated where `UPDATE` is set, and else compares.
fn generated(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(file);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, text).expect("the file can be written");
    }
    let found = std::fs::read_to_string(&path).expect("the file can be read");
    assert!(found == text, "docs/{file} is stale: run `UPDATE=1 cargo test --lib openapi`");
}

#[test]
fn the_description_in_the_documentation_is_the_generated_one() {
    generated("openapi.json", &text(operations()));
}

/// Method, path and summary of each operation, between two markers.
#[test]
fn the_list_of_routes_in_the_documentation_is_the_generated_one() {
    const BEGIN: &str = "<!-- generated: routes -->\n";
    const END: &str = "<!-- end -->";
    let mut list = String::from("| route | |\n|---|---|\n");
    let document = document(operations());
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let summary = operation["summary"].as_str().unwrap_or_else(|| panic!("{method} {path} has no summary"));
            list += &format!("| `{} {path}` | {summary} |\n", method.to_uppercase());
        }
    }
    let file = include_str!("../../../docs/api.md");
    let (before, rest) = file.split_once(BEGIN).expect("the marker where the list begins");
    let (_, after) = rest.split_once(END).expect("the marker where the list ends");
    generated("api.md", &format!("{before}{BEGIN}{list}{END}{after}"));
}

/// OpenAPI 3.1, Operation Object: the list has no two parameters with the same name and place.
#[test]
fn no_operation_describes_a_parameter_twice() {
    let document = document(operations());
    let operations =
        document["paths"].as_object().expect("paths").values().flat_map(|it| it.as_object().expect("methods"));
    for (method, operation) in operations {
        let mut seen = HashSet::new();
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let place = (parameter["in"].to_string(), parameter["name"].to_string());
            assert!(seen.insert(place), "{method} {} has {parameter} twice", operation["operationId"]);
        }
    }
}

#[test]
fn every_reference_in_the_description_leads_somewhere() {
    fn check(value: &Value, document: &Value) {
        if let Some(location) = value.get("$ref").and_then(Value::as_str) {
            assert!(document.pointer(&location[1..]).is_some(), "{location}");
        }
        match value {
            Value::Object(members) => members.values().for_each(|value| check(value, document)),
            Value::Array(items) => items.iter().for_each(|value| check(value, document)),
            _ => {}
        }
    }
    let document = document(operations());
    check(&document, &document);
}

#[test]
fn every_link_begins_and_ends_at_an_operation() {
    let document = document(operations());
    let operations: Vec<&Value> = document["paths"]
        .as_object()
        .expect("paths")
        .values()
        .flat_map(|it| it.as_object().expect("methods").values())
        .collect();
    let find = |id: &str| operations.iter().find(|operation| operation["operationId"] == id);
    for (from, name, to, ..) in LINKS {
        assert!(find(to).is_some(), "{name} leads to {to}");
        for (id, status) in *from {
            let response = &find(id).unwrap_or_else(|| panic!("no {id}"))["responses"][*status];
            assert!(!response["links"][*name].is_null(), "{id} {status} does not have {name}");
        }
    }
}
