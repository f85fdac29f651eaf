//! Readers of the topic that belong to no consumer group: the tail, the reader of uncommitted records, and what they
//! share.

pub mod fetch;
pub mod tail;
pub mod uncommitted;
