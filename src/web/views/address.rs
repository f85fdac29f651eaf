//! Addresses of pages, under the base path.

use std::fmt::Display;

use footfall_core::query_string::encode;

use crate::base_path::base_path;
use crate::event::Record;

/// Returns the address of the live page with these parameters.
pub fn live_page(query: impl Display) -> String {
    format!("{}/?{query}", base_path())
}

/// Returns the address of the history with these parameters.
pub fn history_page(query: impl Display) -> String {
    format!("{}/history?{query}", base_path())
}

/// Returns the address of a user's page; `None` for a name that a path cannot have.
pub fn user_page(user: &str) -> Option<String> {
    (!matches!(user, "" | "." | "..")).then(|| format!("{}/users/{}", base_path(), encode(user)))
}

/// Returns the address of a record's page.
pub fn record_page(partition: i32, offset: i64) -> String {
    format!("{}/events/{partition}/{offset}", base_path())
}

/// Returns the address of the page that compares two records.
pub fn compare_page(a: &Record, b: &Record) -> String {
    let place = |record: &Record| format!("{}-{}", record.partition(), record.offset());
    format!("{}/compare?a={}&b={}", base_path(), place(a), place(b))
}
