//! The tests: what a user, a client or an operator can reach, one file per capability.
//!
//! Tests that measure time, memory or processor are in `tests/alone`, because nothing may run beside them.

#[path = "../common/mod.rs"]
mod common;

mod browser;
mod chaos;
mod cli;
mod cloudevents;
mod demo;
mod description;
mod faults;
mod foreign;
mod form;
mod history;
mod house;
mod kafka_page;
mod operations;
mod overview;
mod python;
mod readiness;
mod reading;
mod readme;
mod reads;
mod retry;
mod rogues;
mod server;
mod stream;
mod submit;
mod text;
mod user;
mod websocket;
