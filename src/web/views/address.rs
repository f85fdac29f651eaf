//! Addresses of pages.

use footfall_core::query_string::encode;

/// Returns the address of a user's page; `None` for a name that a path cannot have.
pub fn user_page(user: &str) -> Option<String> {
    (!matches!(user, "" | "." | "..")).then(|| format!("/users/{}", encode(user)))
}
