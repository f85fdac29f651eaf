//! The responses that are problems: when each is given, and an example that the server's own code generates.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::IntoResponses;
use utoipa::openapi::{Ref, RefOr, Response};

use super::reference;
use crate::event::{EventId, FieldError, Refused};
use crate::ingest::Failure;
use crate::web::problem::{Kind, Problem};

/// The id in examples.
const ID: &str = "019ab0b6-7d78-7c52-a4d0-3f1f6b8f7a10";
const REQUEST_ID: &str = "019ab0b6-7d7a-7f00-9d3e-0c8a1b2c3d4e";

/// A response that is a problem, a component of the description.
pub struct Described {
    pub name: &'static str,
    says: &'static str,
    problem: fn() -> Problem,
    /// The schema of the response, as `application/json`, where every item of an array failed for this reason.
    results: Option<&'static str>,
}

macro_rules! failures {
    (
        any route { $($any:ident: $any_says:literal, $any_problem:expr;)+ }
        some routes { $($name:ident: $says:literal, $problem:expr $(, or $results:literal)?;)+ }
    ) => {
        $(
            #[doc = $says]
            pub enum $name {}

            impl IntoResponses for $name {
                fn responses() -> BTreeMap<String, RefOr<Response>> {
                    let status = $problem.kind.status().to_string();
                    let location = concat!("#/components/responses/", stringify!($name));
                    BTreeMap::from([(status, RefOr::Ref(Ref::new(location)))])
                }
            }
        )+

        /// The responses that any route may give before its handler sees the request.
        pub const ANY_ROUTE: &[Described] = &[$(Described {
            name: stringify!($any),
            says: $any_says,
            problem: || $any_problem,
            results: None,
        }),+];

        /// The responses of the handlers that name them.
        pub const SOME_ROUTES: &[Described] = &[$(Described {
            name: stringify!($name),
            says: $says,
            problem: || $problem,
            results: [$(Some($results),)? None][0],
        }),+];
    };
}

failures! {
    any route {
        BadRequest: "Not a valid HTTP request: no or several `Host`, a target that is no path, a header that is not UTF-8.",
            Problem::new(Kind::BadRequest, "the header Host appears more than once");
        Forbidden: "From a page of another site: by `Sec-Fetch-Site`, or else by `Origin`.",
            Problem::new(Kind::CrossSite, "this was sent by a page of another site");
        MethodNotAllowed: "Another method; `Allow` names those that work here.",
            Problem::new(Kind::MethodNotAllowed, "this route takes GET, HEAD, POST").header("Allow", "GET, HEAD, POST");
        Slow: "The head or the body of the request did not arrive in time (30 s by default), or the body was cut off.",
            Problem::new(Kind::RequestTimeout, "the body did not arrive in time");
        BodyTooLarge: "A body of more than 512 KiB: also where none is expected.",
            Problem::new(Kind::TooLarge, "the body is larger than 512KiB");
        UriTooLong: "A request target of more than 32 KiB.",
            Problem::new(Kind::UriTooLong, "the request target is longer than 32768 bytes");
        Misdirected: "`Host` is no name of this server: an IP address, `localhost`, or a name of `http.hosts`.",
            Problem::new(
                Kind::Misdirected,
                "`Host` is `evil.example`, which is no name of this server; expected an IP address, localhost, or a name that \
                 is listed in http.hosts (FOOTFALL_HTTP__HOSTS)"
            );
        HeadersTooLarge: "A head of more than 64 KiB, or of more than 100 headers.",
            Problem::new(Kind::HeadersTooLarge, "the request's headers are too large or too many");
        Internal: "An internal error.",
            Problem::new(Kind::Internal, "an unexpected error; look for the request id in the log");
        Busy: "Too many connections are open, or the server is shutting down.",
            Problem::new(Kind::Unavailable, "too many connections are open");
    }
    some routes {
        // Reads
        BadParameter: "A malformed parameter, one of a single value that appears twice, or a query that is not UTF-8 after \
                       percent-decoding (`bad-parameter`); or not a valid HTTP request (`bad-request`).",
            Problem::new(Kind::BadParameter, "limit must be 1 to 1000, not \"5000\"");
        UnknownCall: "No call of Segment's protocol.",
            Problem::new(Kind::NotFound, crate::web::api::segment::UNKNOWN_CALL);
        NotFound: "No such record.",
            Problem::new(Kind::NotFound, "there is no record at partition 1, offset 812");
        UpgradeRequired: "The request is no WebSocket's handshake of version 13.",
            Problem::new(
                Kind::UpgradeRequired,
                "expected a WebSocket's handshake (RFC 6455), version 13; GET /api/v1/stream needs none"
            ).header("Upgrade", "websocket").header("Sec-WebSocket-Version", "13");
        NoGroups: "The embedded broker, which cannot list consumer groups.",
            Problem::new(
                Kind::NotImplemented,
                "the embedded broker cannot list consumer groups; it can with Apache Kafka (kafka.bootstrap_servers)"
            );
        NoStream: "Too many streams or connections are open; with `strict`, also if Kafka does not answer.",
            Problem::new(Kind::Unavailable, "20000 streams are open already");
        ReadUnavailable: "The broker is unreachable, a partition has no leader, retention deleted what was read, too many reads \
                          are in flight, too many connections are open, the server is shutting down, or (of a single record, \
                          type `/problems/held-up`) the record is written and an open transaction of another writer keeps \
                          readers from it.",
            Problem::new(Kind::Unavailable, "Kafka is unreachable: no answer from kafka-1:9092");

        // Submissions
        BadBody: "Not JSON, not UTF-8, not of its `Content-Encoding`, an empty body or an empty array (`not-json`); a malformed \
                  `ack` or `Idempotency-Key`, or an `Idempotency-Key` beside an array without `Prefer: handling=strict` \
                  (`bad-parameter`); or not a valid HTTP request, or for the tracker a body of another form (`bad-request`).",
            Problem::new(Kind::NotJson, "the body is not JSON: expected value at line 1 column 1");
        BadForm: "Not a form, not UTF-8, or not a valid HTTP request.",
            Problem::new(Kind::BadRequest, "the form is not UTF-8");
        TooLarge: "Body over 512 KiB, an event over 32 KiB, or more than 500 events. Nothing was taken.",
            Problem::from(Refused::TooLarge { index: 0, size: 33_037, max: 32_768 });
        UnsupportedType: "Another Content-Type or Content-Encoding.",
            Problem::new(
                Kind::UnsupportedType,
                "expected the content type application/json, application/cloudevents+json, \
                 application/cloudevents-batch+json or application/x-ndjson, not `text/plain`"
            );
        Invalid: "JSON, but no valid event; an `id` that was used with another body (`id-reused`); or Kafka will never take it \
                  (`refused-by-kafka`).",
            invalid();
        InvalidEvents: "JSON, but no valid event; an `id` that was used with another body (`id-reused`); or Kafka will never \
                        take it (`refused-by-kafka`). For an array of which every item failed so: `results`. With `Prefer: \
                        handling=strict`, also if one item failed so; nothing was written.",
            invalid(), or "Results";
        InvalidForm: "The form as typed, with the errors beside the fields; a problem for a client that asks for \
                      `application/json`.",
            invalid();
        TooMany: "More events than `ingest.rate_limit` allows.",
            Problem::new(Kind::TooManyRequests, "too many events from this address (`ingest.rate_limit`)");
        Unavailable: "Kafka cannot take the event now (the `detail` is the sentence of `/readyz`), the queue is full, too many \
                      requests or connections are open, or the server is shutting down. Nothing was written.",
            unavailable();
        UnavailableEvents: "Kafka cannot take the events now (the `detail` is the sentence of `/readyz`), the queue is full, too \
                            many requests or connections are open, or the server is shutting down. Nothing was written. For an \
                            array of which every item failed so: `results`. With `Prefer: handling=strict`, also if not \
                            all items are certainly written.",
            unavailable(), or "Results";
        Unknown: "No acknowledgement within the deadline: the event may or may not have been written. Retry with the same id.",
            unknown();
        UnknownEvents: "No acknowledgement within the deadline: the event may or may not have been written. Retry with the same \
                        id. For an array of which every item failed so: `results`.",
            unknown(), or "Results";
    }
}

fn invalid() -> Problem {
    Problem::invalid(0, vec![FieldError::new("/user", "must not be blank")])
}

fn unavailable() -> Problem {
    Problem::new(Kind::Unavailable, "Kafka is unreachable: no answer from kafka-1:9092")
}

fn unknown() -> Problem {
    let id = EventId::parse(ID).expect("the id of the examples is one");
    Problem::of_failure(&Failure::Unknown, &id)
}

impl Described {
    pub fn status(&self) -> String {
        (self.problem)().kind.status().to_string()
    }

    /// The response. That of a page may also be HTML.
    pub fn response(&self, page: bool) -> Value {
        let problem = (self.problem)();
        let mut headers = json!({"X-Request-Id": reference("headers", "X-Request-Id")});
        for name in problem.header_names() {
            headers[name] = reference("headers", name);
        }
        let example = json!(problem.body(Some(REQUEST_ID)));
        let mut content = json!({
            "application/problem+json": {"schema": reference("schemas", "Problem"), "example": example},
        });
        if let Some(schema) = self.results {
            content["application/json"] = json!({"schema": reference("schemas", schema)});
        }
        let mut says = self.says.to_owned();
        if page {
            content["text/html"] = json!({"schema": {"type": "string"}});
            says.push_str(" A page for a client that prefers HTML.");
        }
        json!({"description": says, "headers": headers, "content": content})
    }
}
