//! The schemas of what is parsed or written by hand, from `schemas.json`: events, records, frames of streams. A type with
//! the name of a schema stands for it in the attributes of handlers and of types that are serialised.

use serde_json::{Value, json};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// All of them, by name.
pub fn written_by_hand() -> Value {
    serde_json::from_str(include_str!("schemas.json")).expect("schemas.json is JSON: a test reads it")
}

macro_rules! written_by_hand {
    ($($name:ident)+) => {
        $(
            pub enum $name {}

            // A name for a reference: the schema itself is put in from the file.
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

written_by_hand! {
    Ack AllPartitions CloudEvent CloudEvents ContentEncoding Cursor OpenApiDocument Event EventId Events Form From
    Groups MovingEvent Offset Order Page PageStreamEvent Partition Person Problem QueuedOrResults Receipt
    ReceiptOrResults Record Results Rows SearchEvent Stats StreamEvent Time Topics TutorialAnswer
}

/// The receipt of the examples.
pub fn receipt() -> Value {
    json!({
        "id": "019ab0b6-7d78-7c52-a4d0-3f1f6b8f7a10",
        "topic": "user_activity",
        "partition": 1,
        "offset": 812,
        "time": "2026-11-23T12:00:00.120Z",
    })
}

/// The same among the results of an array.
pub fn receipt_of_many() -> Value {
    let mut receipt = receipt();
    receipt["status"] = json!(201);
    receipt
}

/// The answer to `ack=none` of the examples.
pub fn queued() -> Value {
    json!({
        "id": "019ab0b6-7d78-7c52-a4d0-3f1f6b8f7a10",
        "topic": "user_activity",
        "time": "2026-11-23T12:00:00.120Z",
    })
}

/// Two events of the examples.
pub fn several_events() -> Value {
    json!([
        {"user": "Ann", "action": "login"},
        {"user": "Ann", "action": "checkout", "total": 31.5},
    ])
}

/// The beginning and the end of a stream.
pub const STREAM: &str = concat!(
    "retry: 3000\n",
    "event: position\n",
    "data: {}\n",
    "id: 0-978.1-812.2-455\n",
    "\n",
    "data: {\"topic\":\"user_activity\",\"partition\":1,\"offset\":812,\"timestamp\":\"2026-11-23T12:00:00.123Z\",\"key\":\"John\",\"id\":\"019ab0b6-7d78-7c52-a4d0-3f1f6b8f7a10\",\"time\":\"2026-11-23T12:00:00.120Z\",\"headers\":{\"traceparent\":\"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\"},\"value\":{\"user\":\"John\",\"action\":\"login\"}}\n",
    "id: 0-978.1-813.2-455\n",
    "\n",
    "event: bye\n",
    "data: {\"reason\":\"shutdown\"}\n",
    "id: 0-978.1-813.2-455\n",
    "\n",
);

/// An answer of `/readyz?verbose`.
pub const READY: &str = concat!(
    "[+] kafka: embedded broker answers\n",
    "[+] topic: user_activity, 3 partitions, 3 with a leader\n",
    "[+] tail: reads, at 0-812.1-790.2-455\n",
    "[!] embedded broker: events are kept in memory until the process ends\n",
    "[+] posts: ok\n",
    "[+] streams: ok\n",
);

#[test]
fn every_name_has_a_schema() {
    let schemas = written_by_hand();
    for name in NAMES {
        assert!(schemas[name].is_object(), "schemas.json does not have {name}");
    }
}
