//! Addresses of pages.

use footfall_core::query_string::encode;

use crate::base_path::base_path;

/// Returns the address of a user's page; `None` for a name that a path cannot have.
pub fn user_page(user: &str) -> Option<String> {
    (!matches!(user, "" | "." | "..")).then(|| format!("{}/users/{}", base_path(), encode(user)))
}
