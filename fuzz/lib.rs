//! The modules of Footfall that take what anybody sends, without Kafka and without HTTP, and what holds for them: so that a
//! target is built in a minute. They name each other as they do in the crate itself.

// What only the rest of the crate uses.
#![allow(dead_code, unused_imports)]

#[path = "../src/event/mod.rs"]
pub mod event;
#[path = "../src/feed/mod.rs"]
pub mod feed;

pub mod checks;

#[path = "../src/web"]
pub mod web {
    pub mod csv;
    pub mod parameters;
    pub mod view;
}
