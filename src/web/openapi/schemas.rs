//! The schemas of what is parsed or written by hand: events, records, frames of streams. Those of all other types are derived
//! from the types (`utoipa::ToSchema`). Tests check what the server writes against both.

use serde_json::{Value, json};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::reference;

macro_rules! written_by_hand {
    ($($name:ident)+) => {
        $(
            pub enum $name {}

            // Only the name counts, for a reference: `written_by_hand` has the schema.
            impl PartialSchema for $name {
                fn schema() -> RefOr<Schema> {
                    RefOr::default()
                }
            }

            impl ToSchema for $name {}
        )+

        #[cfg(test)]
        const NAMES: &[&str] = &[$(stringify!($name)),+];
    };
}

// A type for each schema that handlers and other types name.
written_by_hand! {
    CloudEvent CloudEvents Event EventLines Events From Name OverviewEvent Page PageStreamEvent QueuedOrResults ReceiptOrResults Record
    SearchEvent StreamEvent Time Tracked
}

/// All schemas that are written by hand, by name.
pub fn written_by_hand() -> Value {
    let mut schemas: Value =
        serde_json::from_str(include_str!("schemas.json")).expect("schemas.json is JSON: a test reads it");
    let controls = [
        ("position", "Position"),
        ("gap", "Gap"),
        ("dropped", "Dropped"),
        ("skipped", "Dropped"),
        ("status", "Status"),
        ("bye", "Bye"),
    ];
    let reports = [("progress", "ProgressMessage"), ("done", "ProgressMessage"), ("failed", "FailureMessage")];
    let html = json!({"type": "string", "contentMediaType": "text/html"});
    let resumable = json!({
        "id": {
            "$ref": "#/components/schemas/Cursor",
            "description": "The cursor after it, which `Last-Event-ID` resumes from.",
        },
        "retry": {
            "type": "integer",
            "minimum": 0,
            "description": "Milliseconds, in the first event: how long to wait before connecting again.",
        },
    });
    schemas["StreamEvent"] = server_sent_event("`/api/v1/stream`", json_text("Record"), &controls, &resumable);
    let of_pages = [&controls[..], &[("heartbeat", "Heartbeat"), ("rejected", "Rejected")]].concat();
    schemas["PageStreamEvent"] = server_sent_event("`/stream`", html.clone(), &of_pages, &resumable);
    schemas["SearchEvent"] = server_sent_event("a page's search or count", html, &reports, &json!({}));
    schemas["SocketMessage"] = socket_message(&controls);
    schemas
}

/// Text that is JSON of this schema.
fn json_text(schema: &str) -> Value {
    json!({
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": reference("schemas", schema),
    })
}

/// An event of a stream, by its fields: one without a name has `message` as its data, one of `controls` the schema that is
/// beside its name. `others` are the fields beside name and data.
fn server_sent_event(stream: &str, message: Value, controls: &[(&str, &str)], others: &Value) -> Value {
    let mut schema = json!({
        "type": "object",
        "description": format!("One event of {stream}, by its fields."),
        "required": ["data"],
        "properties": others,
        "oneOf": [{"properties": {"event": {"const": "message"}, "data": message}}],
    });
    schema["properties"]["data"] = json!({"type": "string"});
    schema["properties"]["event"] = json!({
        "type": "string",
        "default": "message",
        "description": "Its name; left out where it is `message`.",
    });
    let controls = controls.iter().map(|(name, data)| {
        json!({"required": ["event"], "properties": {"event": {"const": name}, "data": json_text(data)}})
    });
    schema["oneOf"].as_array_mut().expect("an array").extend(controls);
    schema
}

/// What a WebSocket sends: a record, or a control message with the members of its schema.
fn socket_message(controls: &[(&str, &str)]) -> Value {
    let head = |kind: &str| {
        json!({
            "type": "object",
            "required": ["type", "cursor"],
            "properties": {
                "type": {"type": "string", "const": kind},
                "cursor": {
                    "oneOf": [reference("schemas", "Cursor"), {"type": "null"}],
                    "description": "The place after this message; null as long as Kafka has not answered since the server \
                                    started.",
                },
            },
        })
    };
    let mut event = head("event");
    event["required"] = json!(["type", "cursor", "record"]);
    event["properties"]["record"] = reference("schemas", "Record");
    let mut messages = vec![event, reference("schemas", "SocketAnswer")];
    messages.extend(controls.iter().map(|(name, data)| match *data {
        "Position" => head(name), // no member beside those of every message
        data => json!({"allOf": [head(name), reference("schemas", data)]}),
    }));
    json!({"description": "What a WebSocket sends.", "oneOf": messages})
}

#[test]
fn every_name_has_a_schema() {
    let schemas = written_by_hand();
    for name in NAMES {
        assert!(schemas[name].is_object(), "schemas.json does not have {name}");
    }
}
