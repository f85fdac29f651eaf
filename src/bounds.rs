//! The most that one request, one connection, one client address and the process may use.
//!
//! Whatever an anonymous client can make grow has its bound here, or in [`Settings`](crate::config::Settings) if an operator
//! may need another value. The bounds of one event and of a query are in the core. docs/guarantees.md lists the bounds with the test of each and adds up the memory that they allow.
//! The module knows neither HTTP nor Kafka.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// Most bytes of records that one bounded read of the topic keeps: a page of history, a search, a stream that catches up.
/// A page that reaches the bound ends early and names where the next one starts. A single larger record is kept anyway.
pub const READ_BYTES: usize = 8 << 20;

/// Most bytes of records that a read buffers beside its answer to merge the partitions by time, plus one record of each
/// partition.
pub const MERGE_BYTES: usize = 1 << 20;

/// Most short reads of the topic (pages without a filter, single records, offsets) that run at once. Each uses a Kafka
/// consumer.
pub const READS: usize = 8;
/// How many of them one address may have, so that others get some.
pub const READS_EACH: usize = 4;

/// Most reads of many records (filtered pages, a user's counts, searches, exports) that run at once. They have a limit of
/// their own, so that a page without a filter does not wait for them.
pub const SCANS: usize = 4;
/// How many of them one address may have.
pub const SCANS_EACH: usize = 2;
/// How long a search or an export reads before it gives others a turn.
pub const SCAN_TURN: Duration = Duration::from_millis(500);

/// Most open searches and exports, whether they read, wait for their turn, or wait for their client.
pub const EXPORTS: usize = 32;
/// How many of them one address may have.
pub const EXPORTS_EACH: usize = 8;

/// About how many records one page reads. If the filter matches few of them, the client continues with `next`.
pub const PAGE_SCAN: u64 = 200_000;
/// How many records are read before an HTML page is sent. A search that needs more continues while the page is open.
pub const FIRST_LOOK: u64 = 50_000;
/// How long a page reads before it ends with what it has found and names where the next one starts.
pub const PAGE_TIME: Duration = Duration::from_secs(10);
/// Lookups of an offset by time that a histogram makes: a time in one partition is one.
pub const LOOKUPS: usize = 6000;

/// Most answers with records that are larger than [`SMALL_ANSWER`] and wait in memory until their clients have read them.
pub const ANSWERS: usize = 8;
/// How many of them one address may have.
pub const ANSWERS_EACH: usize = 4;
/// Most bytes of an answer that does not count: the buffer of the socket holds as many.
pub const SMALL_ANSWER: usize = 64 << 10;
/// How long a client may take to read an answer that counts before its connection is reset.
pub const ANSWER_TIME: Duration = Duration::from_secs(120);

/// About how many bytes of an export are handed to the connection at once.
pub const CHUNK: usize = 32 << 10;
/// How many chunks of an export wait for its client.
pub const CHUNKS_AHEAD: usize = 4;
/// How long the client of an export may read nothing.
pub const UNTAKEN: Duration = Duration::from_secs(60);
/// How long an export waits for its client in total. An export whose client reads without delay may last longer.
pub const EXPORT_WAITS: Duration = Duration::from_secs(15 * 60);

/// Most streams that catch up from Kafka at once. Each uses a Kafka consumer and at most [`READ_BYTES`].
pub const CATCH_UPS: usize = 8;
/// How many of them one address may have.
pub const CATCH_UPS_EACH: usize = 4;

/// How long a stream that catches up waits for a partition without a leader. Then it continues without the rest of that
/// partition and reports it to the client.
pub const LEADERLESS: Duration = Duration::from_secs(10);

/// Most bytes of recent records that a stream with a rate buffers. Beyond that it drops more records than its rate
/// requires.
pub const NEWEST_BYTES: usize = 2 << 20;

/// Returns how many of all streams, or of all posts in flight, one address may have: three quarters. One client never uses
/// all of them, and the clients behind one proxy still have room.
pub fn part_of_one_address(all: usize) -> usize {
    (all * 3).div_ceil(4)
}

/// Returns how much of the queue to Kafka may hold events whose client does not wait (`?ack=none`): half.
pub fn part_of_unawaited(queue: usize) -> usize {
    queue / 2
}

/// About how many bytes of events with `?ack=none` go into one batch. Events whose client waits are delayed until that
/// batch is written.
pub const UNAWAITED_BATCH_BYTES: usize = 256 << 10;

/// Returns how many streams may scan much of memory at the same time: half of the workers.
pub fn labours() -> usize {
    std::thread::available_parallelism().map_or(1, |workers| (workers.get() / 2).max(1))
}

/// Most bytes of a body that an async worker parses. A larger body is parsed on another thread; [`parsers`] bounds how many
/// at a time.
pub const SMALL_BODY: usize = 64 << 10;
/// Most bytes of a compressed body that an async worker decompresses. They may expand a thousandfold, or consist of
/// [`COMPRESSED_MEMBERS`] members.
pub const SMALL_COMPRESSED: usize = 4 << 10;
/// Most members of a gzip body (RFC 1952, section 2.2) and frames of a zstd body (RFC 8878, section 3). Each takes time even
/// if it is empty. Tools that compress in blocks write one for about 64 KiB.
pub const COMPRESSED_MEMBERS: usize = 1024;
/// The binary logarithm of the most bytes that a zstd body may refer back: 8 MiB, which RFC 9659 has every sender keep to.
/// The decoder allocates as many as the body asks for.
pub const ZSTD_WINDOW_LOG: u32 = 23;

/// Returns how many large bodies are decompressed or parsed at the same time, and how many of them may come from one
/// address: one for each processor, and half of that.
pub fn parsers() -> (usize, usize) {
    let processors = std::thread::available_parallelism().map_or(1, |processors| processors.get()).max(2);
    (processors, processors / 2)
}

/// How many reports of losses are remembered, so that one that is sent again is not counted twice. The oldest are evicted
/// first.
pub const LOSS_REPORTS: usize = 4096;

/// Bytes of unanswered posts at which Footfall stops reading from their WebSocket.
pub const POSTED_BYTES: usize = 1 << 20;

/// Most bytes of records that the feed publishes together. A single larger record is published alone.
pub const BLOCK_BYTES: usize = 512 << 10;

/// About how many bytes of records one batch to a partition has: librdkafka's bound of a request (`batch.size`). A topic may
/// accept less (`max.message.bytes`).
pub const BATCH_BYTES: usize = 1_000_000;

/// How long a request waits for its turn to read before it is refused.
pub const TURN: Duration = Duration::from_secs(5);

/// How long work on an async worker runs before it yields.
pub const SLICE: Duration = Duration::from_millis(2);

/// Most connections that the kernel queues until the server accepts them (listen(2)). The kernel caps this at
/// `net.core.somaxconn`, 4,096 by default. A client that finds the queue full retries after a second.
pub const BACKLOG: i32 = 4096;

/// Most bytes of a request's target. A longer target is answered 414.
pub const TARGET_BYTES: usize = 32 << 10;
/// How often the files of the certificate are read again. New ones are used when two reads agree.
pub const TLS_RELOAD: Duration = Duration::from_secs(2);
/// Most TLS sessions that are remembered so that clients can resume them. The oldest are forgotten first.
pub const TLS_SESSIONS: usize = 4096;
/// Most bytes of an answer that are encrypted before the socket takes them.
pub const TLS_UNSENT_BYTES: usize = 32 << 10;

/// How long an idle connection stays open for its next request by default (`keep_alive`).
pub const IDLE: Duration = Duration::from_secs(75);

/// Most bytes that are read and discarded of a body that is too large, so that its client reads the answer instead of
/// seeing a reset connection.
pub const DRAINED_BYTES: usize = 16 << 20;
/// How long reading and discarding may take.
pub const DRAINED_TIME: Duration = Duration::from_secs(10);

/// How long a client that has closed its sending side can still get the answer to a stream or an export. After that
/// Footfall treats it as disconnected.
pub const HALF_CLOSED: Duration = Duration::from_millis(100);

/// Most bytes that the client of a stream may send after its request; Footfall discards them. Beyond that it closes the
/// connection.
pub const UNASKED_BYTES: usize = 64 << 10;

/// How long, and for how many bytes, Footfall reads and discards what a refused client still sends before it closes the
/// connection.
pub const LINGER: Duration = Duration::from_secs(2);
pub const LINGER_BYTES: u64 = 1 << 20;

/// How long a connection is silent before the kernel sends TCP keep-alive probes, and the time between the probes.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// About how many unsent bytes the kernel buffers for a client (`TCP_NOTSENT_LOWAT`, tcp(7)). By default it would buffer
/// megabytes for each client that does not read, and filling those takes time from the other clients.
pub const UNSENT_BYTES: u32 = 128 << 10;

/// How long the server waits before it accepts connections again after it ran out of descriptors.
pub const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// At shutdown: how long the process may take in all, beside `ingest.deadline`. The parts below fit into it.
pub const END: Duration = Duration::from_secs(3);
/// At shutdown: how long connections are accepted whose handshake was under way, and how long if other processes get the
/// new ones: a client that is far away takes up to about a second.
pub const LAST_ACCEPTS: Duration = Duration::from_millis(250);
pub const LAST_ACCEPTS_STEERED: Duration = Duration::from_secs(1);
/// At shutdown: how long a connection without a request waits for one.
pub const LAST_HEAD: Duration = Duration::from_millis(500);
/// How often the server looks for such connections.
pub const ACCEPT_LAST: Duration = Duration::from_millis(5);
/// How long a connection of the process to its own address may take.
pub const PROBE: Duration = Duration::from_millis(50);
/// At shutdown: how long a response that depends on its client's pace may take.
pub const DRAIN: Duration = Duration::from_secs(2);
/// At shutdown: how long the answers to posts may take, beside `ingest.deadline`.
pub const ANSWERED: Duration = Duration::from_millis(750);
/// At shutdown: how long the last bytes of the responses, such as a stream's `bye`, may take.
pub const LAST_BYTES: Duration = Duration::from_millis(750);
/// At shutdown: how long connections may take to end that are cut.
pub const CUT: Duration = Duration::from_millis(100);
/// At shutdown: how long the Kafka clients may take to close: closing waits for a broker that does not answer.
pub const CLOSE: Duration = Duration::from_millis(300);
/// How long a process that shares its address with another waits until it can accept events, before it accepts connections
/// nevertheless; and how often it looks.
pub const READY: Duration = Duration::from_secs(10);
pub const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Returns how many connections may be open: the descriptors that the process may have (`ulimit -n`), less some for Kafka
/// clients and files, or `wanted` if that is less. 0 wants as many as possible.
pub fn connections(wanted: usize) -> usize {
    let descriptors = descriptors();
    let possible = descriptors - (descriptors / 4).min(512);
    if wanted == 0 { possible } else { possible.min(wanted) }
}

/// Returns how many of `total` connections one address may have: `wanted`, or all but a sixteenth if that is 0. The share is
/// large because all clients may come from the address of one proxy.
pub fn connections_each(total: usize, wanted: usize) -> usize {
    if wanted == 0 { total - (total / 16) } else { total.min(wanted) }
}

/// Returns how many descriptors the process may have open (`RLIMIT_NOFILE`, getrlimit(2)).
#[cfg(unix)]
fn descriptors() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit writes to `limit`, which outlives the call.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } {
        0 => usize::try_from(limit.rlim_cur).unwrap_or(MOST_DESCRIPTORS).min(MOST_DESCRIPTORS),
        _ => 1024,
    }
}

#[cfg(not(unix))]
fn descriptors() -> usize {
    MOST_DESCRIPTORS
}

/// The number of descriptors assumed if the system sets no limit, and the most that is used of a larger limit.
const MOST_DESCRIPTORS: usize = 1 << 20;

/// Most actions of a user that are counted separately, and most bytes of the name of one.
pub const ACTIONS: usize = 10_000;
pub const ACTION_BYTES: usize = 800;

/// How long a snapshot of the cluster is reused, so that a thousand viewers cost Kafka as much as one.
pub const CLUSTER_FRESH: Duration = Duration::from_secs(1);
/// Most topics whose records one snapshot counts.
pub const TOPICS: usize = 500;
/// Most groups that one snapshot describes. Each costs its coordinator two requests.
pub const GROUPS: usize = 100;
/// Most topics, and most groups, whose names one snapshot lists.
pub const LISTED: usize = 20_000;
/// Most partitions of other topics whose records one snapshot counts.
pub const COUNTED_PARTITIONS: usize = 5_000;
/// Most topics, and most groups, beyond those that viewers have found and that the next snapshots count and describe too, and
/// for how long.
pub const WANTED: usize = 100;
pub const WANTED_FOR: Duration = Duration::from_secs(30);
/// How often the topic's ends and the groups on it are sampled when nobody looks.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(10);
/// Most partitions of our topic, and most groups on it, whose last 15 minutes are remembered: 180 samples of 16 bytes
/// for each.
pub const SAMPLED_PARTITIONS: usize = 256;
pub const SAMPLED_GROUPS: usize = 50;
/// Most groups of other topics that one background sample describes, to notice when they read ours.
pub const SAMPLED_OTHERS: usize = 50;
/// Most changes of its members and rebalances that are remembered of a group.
pub const CHANGES: usize = 20;

/// Most records of each partition that one snapshot reads, one for each group with lag, and how long that may take.
pub const NEXT_RECORDS: usize = 4;
pub const NEXT_RECORDS_TIME: Duration = Duration::from_secs(2);

/// Most causes that `/readyz` lists. There may be one for each partition.
pub const TROUBLES: usize = 20;

/// Most characters of a text value, and bytes of a binary value, that the page of a record shows. The record as JSON has all
/// of it.
pub const SHOWN_CHARS: usize = 100_000;
pub const SHOWN_BYTES: usize = 512;

/// Number of addresses above which the rate limiter removes those that have sent nothing for a while.
pub const RATED_ADDRESSES: usize = 10_000;

/// Most kibibytes of events that wait for Kafka by default (`queue.buffering.max.kbytes`). The setting
/// `ingest.queue_messages` bounds their number.
pub const QUEUE_KIB: usize = 256 * 1024;

/// Most errors reported in one answer.
pub const ERRORS: usize = 1000;

/// What counts as one client: an IPv4 address, or the /64 network of an IPv6 address, because one client usually has a whole
/// network. A client without a known address counts as 0.0.0.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address(IpAddr);

impl Address {
    pub fn new(ip: Option<IpAddr>) -> Self {
        Address(match ip.map(|ip| ip.to_canonical()) {
            Some(IpAddr::V6(ip)) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
            Some(ip) => ip,
            None => Ipv4Addr::UNSPECIFIED.into(),
        })
    }

    /// The network of the address, for people: /24 of IPv4, /48 of IPv6.
    pub fn network(&self) -> String {
        match self.0 {
            IpAddr::V4(ip) => format!("{}/24", Ipv4Addr::from_bits(ip.to_bits() >> 8 << 8)),
            IpAddr::V6(ip) => format!("{}/48", Ipv6Addr::from_bits(ip.to_bits() >> 80 << 80)),
        }
    }
}

/// A number of permits, of which one address may hold only a part.
///
/// A request waits first for a permit of its address and then for one of the total, so that requests of one address wait
/// for each other and do not block those of other addresses.
#[derive(Clone)]
pub struct Shares(Arc<Permits>);

struct Permits {
    most: usize,
    total: Arc<Semaphore>,
    each: usize,
    /// The permits of each address that holds a permit or waits for one.
    addresses: Mutex<HashMap<Address, Arc<Semaphore>>>,
}

/// A permit, released when it is dropped. Hold it until the work has ended, even if that is on another thread.
pub struct Share {
    // Fields drop in this order: the permits are released before the address may be removed.
    _total: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
    _place: AddressUse,
}

/// Why there was no permit: none became free in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    #[error("this address has {0} of them already")]
    Address(usize),
    #[error("all places are taken")]
    Total,
}

impl Shares {
    /// Makes `total` permits, of which one address holds at most `each`.
    pub fn new(total: usize, each: usize) -> Self {
        let free = Arc::new(Semaphore::new(total));
        Shares(Arc::new(Permits { most: total, total: free, each, addresses: Mutex::default() }))
    }

    /// Waits at most `patience` for a permit. A caller whose future is dropped leaves the queue.
    pub async fn acquire(&self, address: Address, patience: Duration) -> Result<Share, Busy> {
        let until = Instant::now() + patience;
        let place = self.place(address);
        let own = timeout_at(until, place.own.clone().acquire_owned()).await.map_err(|_| Busy::Address(self.0.each))?;
        let total = timeout_at(until, self.0.total.clone().acquire_owned()).await.map_err(|_| Busy::Total)?;
        match (own, total) {
            (Ok(own), Ok(total)) => Ok(Share { _total: total, _own: own, _place: place }),
            _ => Err(Busy::Total), // the semaphores are never closed
        }
    }

    /// Takes a permit if one is free now.
    pub fn try_acquire(&self, address: Address) -> Result<Share, Busy> {
        self.try_acquire_many(address, 1)
    }

    /// Takes this many permits if they are free now, or as many as one address may have if that is less.
    pub fn try_acquire_many(&self, address: Address, permits: usize) -> Result<Share, Busy> {
        let place = self.place(address);
        let permits = permits.min(self.0.each) as u32;
        let own = place.own.clone().try_acquire_many_owned(permits).map_err(|_| Busy::Address(self.0.each))?;
        let total = self.0.total.clone().try_acquire_many_owned(permits).map_err(|_| Busy::Total)?;
        Ok(Share { _total: total, _own: own, _place: place })
    }

    /// Returns how many permits are held.
    pub fn held(&self) -> usize {
        self.0.most.saturating_sub(self.0.total.available_permits())
    }

    fn place(&self, address: Address) -> AddressUse {
        let mut addresses = self.0.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let own = addresses.entry(address).or_insert_with(|| Arc::new(Semaphore::new(self.0.each))).clone();
        AddressUse { shares: self.0.clone(), address, own }
    }
}

/// Keeps an address in the table while it holds or waits for a permit.
struct AddressUse {
    shares: Arc<Permits>,
    address: Address,
    own: Arc<Semaphore>,
}

impl Drop for AddressUse {
    fn drop(&mut self) {
        let mut addresses = self.shares.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        // Only the table and `self` refer to it: no other request of the address is left.
        if Arc::strong_count(&self.own) == 2 {
            addresses.remove(&self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::new(text.parse().ok())
    }

    const NOW: Duration = Duration::from_millis(20);

    #[test]
    fn people_see_the_network_of_an_address() {
        assert_eq!(address("192.0.2.77").network(), "192.0.2.0/24");
        assert_eq!(address("::ffff:192.0.2.77").network(), "192.0.2.0/24");
        assert_eq!(address("2001:db8:7:1::1").network(), "2001:db8:7::/48");
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_are_one_client() {
        assert_eq!(address("2001:db8:0:1::1"), address("2001:db8:0:1:ffff::2"));
        assert_ne!(address("2001:db8:0:1::1"), address("2001:db8:0:2::1"));
        assert_eq!(address("192.0.2.1"), address("::ffff:192.0.2.1"));
        assert_ne!(address("192.0.2.1"), address("192.0.2.2"));
    }

    #[tokio::test]
    async fn an_address_at_its_limit_leaves_permits_to_others() {
        let shares = Shares::new(3, 2);
        let (greedy, other) = (address("192.0.2.1"), address("192.0.2.2"));
        let held = [shares.acquire(greedy, NOW).await, shares.acquire(greedy, NOW).await];
        assert!(held.iter().all(Result::is_ok));
        assert_eq!(shares.acquire(greedy, NOW).await.err(), Some(Busy::Address(2)));
        let theirs = shares.try_acquire(other);
        assert!(theirs.is_ok());
        assert_eq!(shares.try_acquire(other).err(), Some(Busy::Total));
        drop(held);
        assert!(shares.acquire(greedy, NOW).await.is_ok());
    }

    #[test]
    fn many_permits_are_taken_at_once_or_not_at_all() {
        let shares = Shares::new(10, 6);
        let (greedy, other) = (address("192.0.2.1"), address("192.0.2.2"));
        let held = shares.try_acquire_many(greedy, 100).expect("all that one address may have");
        assert_eq!(shares.try_acquire(greedy).err(), Some(Busy::Address(6)));
        assert_eq!(shares.try_acquire_many(other, 5).err(), Some(Busy::Total));
        assert!(shares.try_acquire_many(other, 4).is_ok());
        drop(held);
        assert_eq!(shares.held(), 0);
    }

    #[tokio::test]
    async fn a_caller_that_stops_waiting_leaves_no_permit_and_no_address_behind() {
        let shares = Shares::new(1, 1);
        let (first, second) = (address("192.0.2.1"), address("192.0.2.2"));
        let held = shares.try_acquire(first).expect("free");
        let waits = tokio::spawn({
            let shares = shares.clone();
            async move { shares.acquire(second, Duration::from_secs(60)).await }
        });
        tokio::task::yield_now().await;
        waits.abort();
        assert!(waits.await.is_err());
        drop(held);
        assert_eq!(shares.held(), 0);
        assert!(shares.0.addresses.lock().expect("not poisoned").is_empty());
    }
}
