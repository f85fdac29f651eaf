//! The description of the HTTP interface (OpenAPI 3.1): `/api/openapi.json` and `docs/openapi.json`.
//!
//! utoipa generates it. An operation comes from a handler in the table of routes: path and method from Rocket's attribute,
//! texts from the doc comment, parameters and responses from `#[utoipa::path]`. A schema comes from the type that is
//! serialised (`utoipa::ToSchema`); only types that are parsed or written by hand have schemas written by hand
//! (`schemas.rs`, `schemas.json`).
//!
//! This module adds what every route has: the responses that any route may give, the header `X-Request-Id`, links, and HTML
//! as the second media type of the problems of pages.

mod answers;
mod failures;
mod parameters;
mod schemas;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::LazyLock;

use serde_json::{Map, Value, json};
use utoipa::openapi::OpenApi;

use crate::base_path::base_path;
pub use answers::*;
pub use failures::*;
pub use parameters::*;
pub use schemas::*;

/// A reference to a component.
fn reference(section: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{section}/{name}")})
}

/// The description as it is served, generated at the first request.
pub struct Description(LazyLock<String, Make>);

type Make = Box<dyn FnOnce() -> String + Send>;

impl Description {
    /// The description that `make` generates.
    pub fn new(make: impl FnOnce() -> String + Send + 'static) -> Self {
        Description(LazyLock::new(Box::new(make)))
    }

    pub fn text(&self) -> &str {
        &self.0
    }
}

/// Returns the description of these operations as indented JSON.
pub fn text(operations: OpenApi) -> String {
    format!("{:#}\n", document(operations))
}

fn document(operations: OpenApi) -> Value {
    let mut document = json!(operations);
    document["info"] = json!({
        "title": "Footfall",
        "version": env!("CARGO_PKG_VERSION"),
        "summary": "User-activity events in, live feed out, on Apache Kafka.",
        "description": "How to retry, how to resume and what is promised: docs/api.md. An empty query parameter counts as \
                        one that is not there, except for `verbose` and `strict`, which need no value.",
        "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
    });
    document["servers"] = json!([{"url": if base_path().is_empty() { "/" } else { base_path() }}]);
    document["security"] = json!([]);
    document["tags"] = json!([{"name": "events"}, {"name": "streams"}, {"name": "operations"}, {"name": "pages"}]);
    for (path, methods) in members(&mut document["paths"]) {
        let page = !path.starts_with("/api/");
        for operation in members(methods).values_mut() {
            complete(operation, page);
        }
    }
    document["components"]["headers"] = headers();
    for (name, schema) in members(&mut schemas::written_by_hand()) {
        document["components"]["schemas"][name] = schema.take();
    }
    join_lines(&mut document);
    let text = document.to_string();
    for failure in ANY_ROUTE.iter().chain(SOME_ROUTES) {
        for (name, page) in [(failure.name.to_owned(), false), (format!("{}Page", failure.name), true)] {
            if text.contains(&format!("\"#/components/responses/{name}\"")) {
                document["components"]["responses"][name] = failure.response(page);
            }
        }
    }
    document
}

/// The members of an object. Replaces a value that is not an object by an empty one.
fn members(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("it is an object now")
}

/// Joins the lines of each paragraph of the descriptions, which have the line breaks of the source.
fn join_lines(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(text) if name == "description" => {
                        let paragraphs = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " "));
                        *text = paragraphs.collect::<Vec<_>>().join("\n\n");
                    }
                    value => join_lines(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(join_lines),
        _ => {}
    }
}

/// Adds what every operation has, and removes what utoipa adds too much.
fn complete(operation: &mut Value, page: bool) {
    // utoipa adds the parameters of the path a second time, from the arguments of the handler.
    let mut described = HashSet::new();
    if let Some(parameters) = operation["parameters"].as_array_mut() {
        let place = |parameter: &Value| (parameter["in"].to_string(), parameter["name"].to_string());
        parameters.retain(|parameter| described.insert(place(parameter)));
    }
    for parameter in operation["parameters"].as_array_mut().into_iter().flatten() {
        // An empty value counts as a missing parameter. A parameter with several values is repeated instead.
        if parameter["in"] == "query" && parameter["schema"]["type"] != "array" {
            parameter["allowEmptyValue"] = json!(true);
            // The server parses numbers of any size: `minimum` and `maximum` are the bounds, not the width of a type.
            if parameter["schema"]["type"] == "integer" {
                members(&mut parameter["schema"]).remove("format");
            }
        }
        // Only the parameters of a path are required.
        if parameter["in"] != "path" {
            members(parameter).remove("required");
        }
    }
    if operation["parameters"].is_null() {
        members(operation).remove("parameters");
    }
    let described_headers = headers();
    let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
    let responses = members(&mut operation["responses"]);
    for failure in ANY_ROUTE {
        responses.entry(failure.status()).or_insert_with(|| reference("responses", failure.name));
    }
    for (status, response) in responses {
        match response.get_mut("$ref") {
            Some(Value::String(location)) if page => location.push_str("Page"),
            Some(_) => {}
            None => {
                response["headers"]["X-Request-Id"] = Value::Null;
                for (name, header) in members(&mut response["headers"]) {
                    if !described_headers[name].is_null() {
                        *header = reference("headers", name);
                    }
                }
                let links = links(&id, status);
                if !links.is_empty() {
                    response["links"] = Value::Object(links);
                }
            }
        }
    }
}

fn headers() -> Value {
    json!({
        "X-Request-Id": {
            "description": "The request's own, or one that the server made; also in its log line.",
            "schema": {"type": "string"},
        },
        "Retry-After": {
            "description": "Seconds to wait before the next attempt.",
            "schema": {"type": "integer", "minimum": 0},
        },
        "Allow": {"description": "The methods that work here.", "schema": {"type": "string"}},
        "Location": {
            "description": "The record: /api/v1/events/<partition>/<offset>. After a form, the page.",
            "schema": {"type": "string", "format": "uri-reference"},
        },
        "Idempotent-Replayed": {
            "description": "`true`: an answer given before; nothing was written now.",
            "schema": {"type": "string", "const": "true"},
        },
        "Preference-Applied": {
            "description": "The preference of the request's `Prefer` that was applied.",
            "schema": {"type": "string", "const": "handling=strict"},
        },
        "Upgrade": {"schema": {"type": "string", "const": "websocket"}},
        "Sec-WebSocket-Version": {"schema": {"type": "string", "const": "13"}},
    })
}

/// Values for the parameters of a linked operation.
const PLACE: &[(&str, &str)] = &[("partition", "$response.body#/partition"), ("offset", "$response.body#/offset")];
const SENT_USER: &[(&str, &str)] = &[("path.user", "$request.body#/user")];
const READ_USER: &[(&str, &str)] = &[("path.user", "$response.body#/value/user")];

/// The responses that have the link (operation and status), name, operation it leads to, parameters, description.
type Link = (
    &'static [(&'static str, &'static str)],
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
);

/// The links from responses to other operations (OpenAPI 3.1, Link Object).
const LINKS: &[Link] = &[
    (
        &[("sendEvents", "201"), ("sendForm", "201")],
        "record",
        "readRecord",
        PLACE,
        "The record of a single event: the `Location`.",
    ),
    (&[("sendEvents", "201"), ("sendForm", "201")], "recordPage", "recordPage", PLACE, "Its page."),
    (&[("sendEvents", "201"), ("sendEvents", "202")], "user", "countUser", SENT_USER, "What its user did."),
    (&[("sendEvents", "201"), ("sendEvents", "202")], "userPage", "userPage", SENT_USER, "The user's page."),
    (&[("readRecord", "200")], "page", "recordPage", PLACE, "The same as a page."),
    (&[("readRecord", "200")], "recordsUser", "countUser", READ_USER, "What the user of the record's event did."),
    (&[("readRecord", "200")], "recordsUserPage", "userPage", READ_USER, "That user's page."),
    (
        &[("readHistory", "200")],
        "newer",
        "readHistory",
        &[("from", "$response.body#/next"), ("order", "oldest")],
        "The page that follows, if oldest came first and `next` is not null; the filters stay.",
    ),
    (
        &[("readHistory", "200")],
        "older",
        "readHistory",
        &[("to", "$response.body#/next"), ("order", "newest")],
        "The page that follows, if newest came first and `next` is not null; the filters stay.",
    ),
    (
        &[("countUser", "200")],
        "rest",
        "countUser",
        &[("path.user", "$request.path.user"), ("to", "$response.body#/next")],
        "The next piece, if `next` is not null.",
    ),
];

fn links(operation: &str, status: &str) -> Map<String, Value> {
    let from_here = LINKS.iter().filter(|(from, ..)| from.contains(&(operation, status)));
    let link = |(_, name, to, parameters, description): &Link| {
        let parameters: Map<String, Value> =
            parameters.iter().map(|(name, text)| ((*name).into(), json!(text))).collect();
        let link = json!({"operationId": to, "parameters": parameters, "description": description});
        ((*name).to_owned(), link)
    };
    from_here.map(link).collect()
}
