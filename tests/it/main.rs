//! The tests: what a user, a client or an operator can reach, one file per capability.
//!
//! Tests whose limits of time, memory or processor the load of other tests could break are in modules `alone`, and in
//! `rogues`: `dev/test` without arguments runs them after the others, one at a time.

#[path = "../common/mod.rs"]
mod common;

mod base_path;
mod browser;
mod chaos;
mod cli;
mod cloudevents;
mod codings;
mod demo;
mod description;
mod ephemeral;
mod faults;
mod filters;
mod foreign;
mod form;
mod history;
mod house;
mod kafka_page;
mod ndjson;
mod operations;
mod origins;
mod overview;
mod python;
mod readiness;
mod reading;
mod readme;
mod reads;
mod rejects;
mod restart;
mod retry;
mod rogues;
mod segment;
mod send;
mod server;
mod stream;
mod strict;
mod submit;
mod tail;
mod takeover;
mod text;
mod tls;
mod tracker;
mod user;
mod websocket;
mod zone;
