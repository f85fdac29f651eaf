//! The tools of all tests: a running application, its brokers, a topic seen from outside, and strict clients for HTTP,
//! Server-Sent Events and the WebSocket. Nothing here uses the product's internals.

pub mod acl;
pub mod application;
pub mod browser;
pub mod cursor;
pub mod fake;
pub mod http;
pub mod kafka;
pub mod ledger;
pub mod nginx;
pub mod process;
pub mod proxy;
pub mod python;
pub mod schema;
pub mod socket;
pub mod sse;
pub mod tls;
pub mod topic;
pub mod wait;

pub use acl::User;
pub use application::{Application, Builder, Output};
pub use browser::Browser;
pub use cursor::{Cursor, Follower};
pub use fake::FakeServer;
pub use footfall_core::checks::event_stream;
pub use kafka::{Broker, Kafka};
pub use ledger::{Attempt, HEALING, Ledger, Load, Resources, Retries, Servers, Watchers};
pub use process::Process;
pub use proxy::{Proxy, Weather};
pub use schema::Description;
pub use socket::Socket;
pub use sse::{Frame, SseMessage, Subscription};
pub use topic::{NewRecord, Topic};

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

/// Makes two tests of each function named: with the embedded broker and with Apache Kafka.
macro_rules! on_every_broker {
    ($($test:ident),+ $(,)?) => {
        mod embedded {
            $(#[test] fn $test() { super::$test($crate::common::Broker::Embedded) })+
        }
        mod apache_kafka {
            $(#[test] fn $test() { super::$test($crate::common::Broker::Kafka) })+
        }
    };
}
pub(crate) use on_every_broker;

/// Makes one more test of each named function, with three brokers of Apache Kafka, for tests in which leaders on
/// several brokers or replication matter.
macro_rules! on_three_brokers {
    ($($test:ident),+ $(,)?) => {
        mod three_brokers {
            $(#[test] fn $test() { super::$test($crate::common::Broker::Cluster) })+
        }
    };
}
pub(crate) use on_three_brokers;

/// Compares two lists; panics with the missing, doubled and unexpected items only.
#[track_caller]
pub fn assert_same_set<T: Eq + Hash + Debug + Clone>(
    expected: impl IntoIterator<Item = T>,
    found: impl IntoIterator<Item = T>,
) {
    let expected: HashSet<T> = expected.into_iter().collect();
    let mut seen = HashSet::new();
    let (mut doubled, mut unexpected) = (Vec::new(), Vec::new());
    for item in found {
        if !expected.contains(&item) {
            unexpected.push(item.clone());
        }
        if !seen.insert(item.clone()) {
            doubled.push(item);
        }
    }
    let missing: Vec<&T> = expected.difference(&seen).collect();
    assert!(
        missing.is_empty() && doubled.is_empty() && unexpected.is_empty(),
        "of {} expected: missing {missing:?}; doubled {doubled:?}; unexpected {unexpected:?}",
        expected.len()
    );
}

/// Random numbers whose seed a failing test shows, so that it can be repeated with FOOTFALL_TEST_SEED.
pub fn random() -> fastrand::Rng {
    let seed = match std::env::var("FOOTFALL_TEST_SEED") {
        Ok(seed) => seed.parse().expect("FOOTFALL_TEST_SEED is a number"),
        Err(_) => fastrand::u64(..),
    };
    println!("FOOTFALL_TEST_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// Returns a name that no other test uses.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}-{}", uuid::Uuid::now_v7().simple())
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    (time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000) as i64
}
