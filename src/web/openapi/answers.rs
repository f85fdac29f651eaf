//! What several routes answer, and examples of answers.

#![expect(dead_code, reason = "the fields describe")]

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::IntoResponses;
use utoipa::openapi::{RefOr, Response};

use super::failures::{BadParameter, NoStream, ReadUnavailable};

/// The page.
#[derive(IntoResponses)]
#[response(status = 200, content_type = "text/html")]
pub struct Html(String);

/// The page; also, with a sentence why there is nothing, while the broker is unreachable.
#[derive(IntoResponses)]
#[response(status = 200, content_type = "text/html")]
pub struct HtmlOrNotice(String);

macro_rules! groups {
    ($($(#[$doc:meta])* $name:ident: $($member:ident)+;)+) => {
        $(
            $(#[$doc])*
            pub enum $name {}

            impl IntoResponses for $name {
                fn responses() -> BTreeMap<String, RefOr<Response>> {
                    [$($member::responses()),+].into_iter().flatten().collect()
                }
            }
        )+
    };
}

groups! {
    /// Why a search of the topic fails.
    SearchFailures: BadParameter ReadUnavailable;
    /// Why a stream is not opened.
    FollowFailures: BadParameter NoStream;
}

/// The description of an export.
pub const EXPORT: &str = "All that matches, as it is found. It ends early, and not as HTTP says that an answer ends, if it \
                          could not be read whole.";

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
