//! The API for programs.

pub mod ephemeral;
pub mod events;
pub mod history;
pub mod operations;
pub mod rejects;
pub mod segment;
pub mod stats;
pub mod stream;
pub mod topics;
pub mod tracker;
pub mod users;
pub mod ws;
