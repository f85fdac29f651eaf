//! What currently keeps posts from being written or streams from getting records.
//!
//! Each [`Trouble`] has one sentence, the same in the log, in `/readyz`, on the page and in the answer to a rejected
//! post. Its [`Cause`] has one name, the same in `/readyz` and in the metrics.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::sync::watch;

use super::connection_errors;
use super::watch::{ClusterState, TopicState};
use crate::bounds::BATCH_BYTES;
use crate::event::time::now_ms;

/// The end of the reason until anything is known.
pub(super) const YET: &str = " yet";
/// How long a rejected write counts as the present state, if only another write could disprove it. It ends earlier with
/// a successful write or with a change of the topic's settings.
const REFUSED_FOR: Duration = Duration::from_secs(30);
/// How long a rejected read counts after the topic's description says that reading is allowed again. The tail reads
/// again by then, but on a quiet topic no record shows it.
const READ_REFUSED_FOR: Duration = Duration::from_secs(3);
/// How long a failed login explains why no broker answers. librdkafka reports the same failure once in 30 s.
const LOGIN_FAILED_FOR: Duration = Duration::from_secs(35);

/// The kinds of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    ShuttingDown,
    /// The tail has not yet read the records that the topic held at the start.
    NotReadYet,
    /// No broker answers.
    Unreachable,
    LoginFailed,
    TopicMissing,
    DescribeDenied,
    WriteDenied,
    ReadDenied,
    LeaderMissing,
    /// Fewer replicas in sync than `min.insync.replicas`.
    ReplicasMissing,
    /// librdkafka's producer had a fatal error and is being replaced.
    ProducerFailed,
    /// The topic rejects the timestamps of our records.
    ClockRefused,
    /// An open transaction hides newer records from readers.
    HeldUp,
}

impl Cause {
    pub const ALL: [Cause; 13] = [
        Cause::ShuttingDown,
        Cause::NotReadYet,
        Cause::Unreachable,
        Cause::LoginFailed,
        Cause::TopicMissing,
        Cause::DescribeDenied,
        Cause::WriteDenied,
        Cause::ReadDenied,
        Cause::LeaderMissing,
        Cause::ReplicasMissing,
        Cause::ProducerFailed,
        Cause::ClockRefused,
        Cause::HeldUp,
    ];

    /// The name in `/readyz` and in the metrics.
    pub fn name(self) -> &'static str {
        match self {
            Cause::ShuttingDown => "shutting-down",
            Cause::NotReadYet => "not-read-yet",
            Cause::Unreachable => "unreachable",
            Cause::LoginFailed => "login-failed",
            Cause::TopicMissing => "topic-missing",
            Cause::DescribeDenied => "describe-denied",
            Cause::WriteDenied => "write-denied",
            Cause::ReadDenied => "read-denied",
            Cause::LeaderMissing => "leader-missing",
            Cause::ReplicasMissing => "replicas-missing",
            Cause::ProducerFailed => "producer-failed",
            Cause::ClockRefused => "clock-refused",
            Cause::HeldUp => "held-up",
        }
    }

    /// Returns whether posts are rejected because of this.
    pub fn stops_posts(self) -> bool {
        !matches!(self, Cause::ReadDenied | Cause::HeldUp)
    }

    /// Returns whether streams get no records because of this.
    pub fn stops_streams(self) -> bool {
        !matches!(
            self,
            Cause::WriteDenied | Cause::ReplicasMissing | Cause::ProducerFailed | Cause::ClockRefused | Cause::HeldUp
        )
    }
}

/// Something that keeps posts from being written or streams from getting records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    pub cause: Cause,
    /// The partition that it concerns; `None`: all of them.
    pub partition: Option<i32>,
    /// Only a write can show whether it is over, so posts are attempted.
    pub tried: bool,
    /// One sentence without a full stop: what is wrong, and what to do about it.
    pub detail: String,
}

impl Trouble {
    /// A trouble that concerns all partitions.
    pub fn new(cause: Cause, detail: impl Into<String>) -> Self {
        Trouble { cause, partition: None, tried: false, detail: detail.into() }
    }

    pub(super) fn of(partition: usize, cause: Cause, detail: String) -> Self {
        Trouble { cause, partition: Some(partition as i32), tried: false, detail }
    }
}

/// Returns the trouble that stops all partitions, among those for which `stops` is true.
pub fn stops_all(troubles: &[Trouble], partitions: usize, stops: impl Fn(&Trouble) -> bool) -> Option<&Trouble> {
    let mut stopping = troubles.iter().filter(|trouble| stops(trouble));
    if let Some(trouble) = stopping.clone().find(|trouble| trouble.partition.is_none()) {
        return Some(trouble);
    }
    let mut stopped = vec![false; partitions];
    for partition in stopping.clone().filter_map(|trouble| trouble.partition) {
        if let Some(stopped) = stopped.get_mut(partition as usize) {
            *stopped = true;
        }
    }
    if stopped.iter().all(|stopped| *stopped) { stopping.next() } else { None }
}

/// A partition whose newest records readers get only when a transaction of another writer has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldUp {
    pub partition: i32,
    /// The offset up to which it can be read.
    pub readable: i64,
    /// Offsets from there to the end.
    pub records: i64,
}

/// The topic's settings that matter here.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct TopicConfig {
    /// `min.insync.replicas`; 0 until that is known.
    pub min_in_sync: usize,
    /// `max.message.bytes`: the size of the largest batch.
    pub max_batch: Option<usize>,
    /// The topic's settings for timestamps, as text.
    pub timestamps: Option<String>,
}

/// This client's rights on the topic; `None` if the brokers do not report them.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Rights {
    pub read: Option<bool>,
    pub write: Option<bool>,
}

/// What a reader reads: committed records, or the records after the start of an open transaction.
#[derive(Debug, Clone, Copy)]
pub(super) enum ReadMode {
    Committed,
    Uncommitted,
}

/// What the clients of this process have found out, in addition to the topic's description.
#[derive(Default)]
struct Findings {
    rights: Rights,
    config: TopicConfig,
    /// One for each of librdkafka's producers.
    producers: [Option<Trouble>; 2],
    /// The last rejected write that was not the record's fault, and when it happened.
    refused: Option<(Trouble, Instant)>,
    /// Why the tail cannot read, and since when that is known.
    reading: Option<(Trouble, Instant)>,
    /// By [`ReadMode`]: the partitions that had no leader when the others were read, and are not read yet.
    unread: [Vec<i32>; 2],
    held_up: Vec<HeldUp>,
    login_failed: Option<(String, Instant)>,
}

/// The state of Kafka, shared by all clients of this process: their callbacks know of a killed broker long before a
/// request to it times out.
#[derive(Clone)]
pub(super) struct Health(Arc<Inner>);

struct Inner {
    state: watch::Sender<ClusterState>,
    servers: Box<str>,
    topic: Arc<str>,
    /// How messages name this client: `user `x`` or `this client`.
    client: String,
    findings: Mutex<Findings>,
    /// Whether the findings hold a rejected write.
    refusing: AtomicBool,
    /// Whether a rejected write suggests that the topic's settings have changed.
    doubtful_config: AtomicBool,
    batch_bytes: AtomicUsize,
}

impl Health {
    pub fn new(state: watch::Sender<ClusterState>, servers: &str, topic: &Arc<str>, user: Option<&str>) -> Self {
        Health(Arc::new(Inner {
            state,
            servers: servers.into(),
            topic: topic.clone(),
            client: user.map_or_else(|| "this client".to_owned(), |user| format!("user `{user}`")),
            findings: Mutex::default(),
            refusing: AtomicBool::new(false),
            doubtful_config: AtomicBool::new(false),
            batch_bytes: AtomicUsize::new(BATCH_BYTES),
        }))
    }

    pub fn topic(&self) -> &str {
        &self.0.topic
    }

    /// Handles an error from librdkafka's error callback.
    pub fn on_client_error(&self, error: &KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) => self.mark_unreachable(),
            Some(RDKafkaErrorCode::BrokerTransportFailure) => self.on_connection_failed(reason),
            // An operator must fix these: without that, Kafka stays unreachable.
            Some(
                code @ (RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::SaslAuthenticationFailed
                | RDKafkaErrorCode::SSL
                | RDKafkaErrorCode::Resolve),
            ) => {
                let reason = connection_errors::plain(reason).to_owned();
                let login =
                    matches!(code, RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed);
                if login {
                    self.findings().login_failed = Some((reason.clone(), Instant::now()));
                }
                if self.0.state.borrow().topic().is_none() {
                    self.mark_unavailable(if login { Cause::LoginFailed } else { Cause::Unreachable }, reason);
                }
            }
            _ => {}
        }
    }

    /// Notes that no broker answers, without a reason. Keeps a reason that is known already.
    pub fn mark_unreachable(&self) {
        let first = match &*self.0.state.borrow() {
            ClusterState::Up(_) => true,
            ClusterState::Connecting { reason, .. } => reason.ends_with(YET),
            ClusterState::Unreachable { .. } => false,
        };
        if !first {
            return;
        }
        let login_failed = self.findings().login_failed.clone();
        match login_failed.filter(|(_, at)| at.elapsed() < LOGIN_FAILED_FOR) {
            Some((reason, _)) => self.mark_unavailable(Cause::LoginFailed, reason),
            None => self.mark_unavailable(Cause::Unreachable, self.no_answer()),
        }
    }

    fn no_answer(&self) -> String {
        format!("no answer from {}", self.0.servers)
    }

    /// Notes that a connection failed. Keeps the first reason while no broker answers: each broker may have another
    /// one.
    pub fn on_connection_failed(&self, message: &str) {
        let no_answer = self.no_answer();
        let (unexplained, at_first) = match &*self.0.state.borrow() {
            ClusterState::Up(_) => (false, false),
            ClusterState::Connecting { reason, .. } => (*reason == no_answer || reason.ends_with(YET), true),
            // A broker that shuts down closes its connections too.
            ClusterState::Unreachable { reason, .. } => {
                (*reason == no_answer && !message.contains("Disconnected"), false)
            }
        };
        if unexplained {
            let reason = connection_errors::plain(message);
            // If Kafka was reachable before, address and login are right.
            let hint = connection_errors::hint(reason)
                .filter(|_| at_first)
                .map_or_else(String::new, |hint| format!("; {hint}"));
            self.mark_unavailable(Cause::Unreachable, format!("{no_answer}: {reason}{hint}"));
        }
    }

    pub fn mark_unavailable(&self, cause: Cause, reason: String) {
        let log = |reason: &str| {
            let (servers, topic) = (&*self.0.servers, &*self.0.topic);
            tracing::warn!(
                kafka.servers = servers,
                kafka.topic = topic,
                cause = cause.name(),
                reason,
                "kafka is unreachable"
            );
        };
        self.0.state.send_if_modified(|state| match state {
            ClusterState::Up(_) => {
                log(&reason);
                *state = ClusterState::Unreachable { since_ms: now_ms(), cause, reason };
                true
            }
            ClusterState::Connecting { reason: known, cause: before, .. }
            | ClusterState::Unreachable { reason: known, cause: before, .. }
                if *known != reason =>
            {
                log(&reason);
                (*known, *before) = (reason, cause);
                true
            }
            _ => false,
        });
    }

    /// Takes the topic's description and this client's rights on it.
    pub fn on_description(&self, mut topic: TopicState, rights: Rights) {
        let mut findings = self.findings();
        let granted = rights.write == Some(true) && findings.rights.write != Some(true);
        findings.rights = rights;
        let over = |(trouble, at): &(Trouble, Instant)| {
            at.elapsed() > REFUSED_FOR || granted && trouble.cause == Cause::WriteDenied
        };
        if findings.refused.as_ref().is_some_and(over) {
            findings.refused = None;
        }
        let read_again =
            |(_, at): &mut (Trouble, Instant)| rights.read == Some(true) && at.elapsed() > READ_REFUSED_FOR;
        findings.reading.take_if(read_again);
        topic.min_in_sync = findings.config.min_in_sync;
        topic.troubles = self.troubles(&topic, &findings);
        if !topic.partitions.is_empty() && topic.partitions.iter().all(|partition| partition.leader.is_none()) {
            drop(findings);
            return self
                .mark_unavailable(Cause::LeaderMissing, format!("no partition of `{}` has a leader", self.0.topic));
        }
        self.publish(&findings, topic, true);
    }

    /// Takes the topic's settings.
    pub fn configured(&self, config: TopicConfig) {
        let batch = config.max_batch.map_or(BATCH_BYTES, |most| most.saturating_sub(BATCH_HEAD).clamp(1, BATCH_BYTES));
        self.0.batch_bytes.store(batch, Ordering::Relaxed);
        self.change(|findings| {
            if findings.config.timestamps != config.timestamps {
                findings.refused.take_if(|(trouble, _)| trouble.cause == Cause::ClockRefused);
            }
            findings.config = config;
        });
    }

    /// Returns whether the topic's settings should be requested again, and resets that.
    pub fn take_doubt_of_config(&self) -> bool {
        self.0.doubtful_config.swap(false, Ordering::Relaxed)
    }

    pub fn max_batch(&self) -> Option<usize> {
        self.findings().config.max_batch
    }

    /// Most bytes of records in one batch to a partition, unless a single record is larger.
    pub fn batch_bytes(&self) -> usize {
        self.0.batch_bytes.load(Ordering::Relaxed)
    }

    pub fn rights(&self) -> Rights {
        self.findings().rights
    }

    /// Takes the state of one of librdkafka's producers: its fatal error and reason, or `None` if it works.
    pub fn producer(&self, number: usize, failed: Option<(RDKafkaErrorCode, &str)>) {
        self.change(|findings| {
            findings.producers[number] = failed.map(|(code, reason)| match code {
                RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed => {
                    self.write_denied(code, findings.rights)
                }
                _ => Trouble::new(Cause::ProducerFailed, format!("the producer failed and is replaced: {reason}")),
            });
        });
    }

    /// Returns why there is no producer at the moment.
    pub fn producer_words(&self) -> String {
        let findings = self.findings();
        if findings.rights.write == Some(false) {
            return self.write_denied(RDKafkaErrorCode::TopicAuthorizationFailed, findings.rights).detail;
        }
        let trouble = findings.producers.iter().flatten().next();
        trouble.map_or_else(|| "the producer is being replaced".to_owned(), |trouble| trouble.detail.clone())
    }

    /// Notes that a write was rejected for a missing right. Returns the sentence that names it.
    pub fn denied(&self, code: RDKafkaErrorCode) -> String {
        let rights = self.rights();
        self.refused(self.write_denied(code, rights))
    }

    /// Notes that a write was rejected for its timestamp. Returns the sentence that says what the topic accepts.
    pub fn clock_refused(&self) -> String {
        let settings = self.findings().config.timestamps.clone();
        let settings = settings.map_or_else(String::new, |settings| format!(" ({settings})"));
        self.refused(Trouble::new(
            Cause::ClockRefused,
            format!(
                "topic `{}` rejects the timestamps of new records{settings}: compare the clock of this server with the brokers', \
                 and check these settings of the topic",
                self.0.topic
            ),
        ))
    }

    fn refused(&self, trouble: Trouble) -> String {
        let (detail, trouble) = (trouble.detail.clone(), Trouble { tried: true, ..trouble });
        self.doubt_config();
        let again = |findings: &mut Findings| match &mut findings.refused {
            Some((known, at)) if *known == trouble => {
                *at = Instant::now();
                true
            }
            _ => false,
        };
        // Usually the same as before: many records are rejected together.
        if !again(&mut self.findings()) {
            self.0.refusing.store(true, Ordering::Relaxed);
            self.change(|findings| findings.refused = Some((trouble, Instant::now())));
        }
        detail
    }

    /// Notes that the topic's settings have probably changed, because a write was rejected.
    pub fn doubt_config(&self) {
        self.0.doubtful_config.store(true, Ordering::Relaxed);
    }

    /// Notes that a record was written.
    pub fn written(&self) {
        if self.0.refusing.load(Ordering::Relaxed) && self.0.refusing.swap(false, Ordering::Relaxed) {
            self.change(|findings| findings.refused = None);
        }
    }

    /// Takes whether the tail can read: `None` if it can.
    pub fn reading(&self, error: Option<&KafkaError>) {
        let denied = error.and_then(KafkaError::rdkafka_error_code) == Some(RDKafkaErrorCode::TopicAuthorizationFailed);
        let trouble = denied.then(|| self.read_denied());
        self.change(|findings| findings.reading = trouble.map(|trouble| (trouble, Instant::now())));
    }

    /// Takes the partitions that had no leader when this reader read the others, and that it has not read yet.
    pub fn unread(&self, reading: ReadMode, partitions: Vec<i32>) {
        let is_new = self.findings().unread[reading as usize] != partitions;
        if is_new {
            self.change(|findings| findings.unread[reading as usize] = partitions);
        }
    }

    /// Takes the partitions that can be read only up to an open transaction.
    pub fn hold_up(&self, held_up: Vec<HeldUp>) {
        self.change(|findings| findings.held_up = held_up);
    }

    pub fn held_up(&self) -> Vec<HeldUp> {
        self.findings().held_up.clone()
    }

    pub fn describe_denied(&self) {
        let (client, topic) = (&self.0.client, &self.0.topic);
        self.mark_unavailable(
            Cause::DescribeDenied,
            format!("{client} may not see topic `{topic}`: grant DESCRIBE, READ and WRITE on it"),
        );
    }

    fn write_denied(&self, code: RDKafkaErrorCode, rights: Rights) -> Trouble {
        let (client, topic) = (&self.0.client, &self.0.topic);
        let detail = match code {
            // Brokers before 2.8 require it of every idempotent producer.
            RDKafkaErrorCode::ClusterAuthorizationFailed if rights.write == Some(true) => {
                format!("{client} may not write idempotently: grant IDEMPOTENT_WRITE on the cluster")
            }
            _ => format!("{client} may not write topic `{topic}`: grant WRITE on it"),
        };
        Trouble::new(Cause::WriteDenied, detail)
    }

    fn read_denied(&self) -> Trouble {
        let (client, topic) = (&self.0.client, &self.0.topic);
        Trouble::new(Cause::ReadDenied, format!("{client} may not read topic `{topic}`: grant READ on it"))
    }

    fn findings(&self) -> MutexGuard<'_, Findings> {
        self.0.findings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the findings, and publishes the topic's state if that changes it.
    fn change(&self, change: impl FnOnce(&mut Findings)) {
        let mut findings = self.findings();
        change(&mut findings);
        let topic = self.0.state.borrow().topic().cloned();
        if let Some(topic) = topic {
            let topic = TopicState { min_in_sync: findings.config.min_in_sync, ..(*topic).clone() };
            let troubles = self.troubles(&topic, &findings);
            self.publish(&findings, TopicState { troubles, ..topic }, false);
        }
    }

    /// Publishes a state. The caller holds the lock of the findings, so that the last published state is the latest.
    /// `answers` is true if Kafka has just described the topic; otherwise a Kafka that has become unreachable stays so.
    fn publish(&self, _: &Findings, topic: TopicState, answers: bool) {
        let topic = Arc::new(topic);
        let (servers, name) = (&*self.0.servers, &*self.0.topic);
        self.0.state.send_if_modified(|state| {
            let before = match state {
                ClusterState::Up(before) if *before == topic => return false,
                ClusterState::Up(before) => before.troubles.clone(),
                _ if !answers => return false,
                _ => {
                    tracing::info!(kafka.servers = servers, kafka.topic = name, "kafka is reachable");
                    Vec::new()
                }
            };
            for Trouble { cause, detail, .. } in topic.troubles.iter().filter(|trouble| !before.contains(trouble)) {
                tracing::warn!(kafka.topic = name, cause = cause.name(), reason = detail, "kafka is impaired");
            }
            for Trouble { cause, detail, .. } in before.iter().filter(|trouble| !topic.troubles.contains(trouble)) {
                tracing::info!(kafka.topic = name, cause = cause.name(), reason = detail, "resolved");
            }
            *state = ClusterState::Up(topic.clone());
            true
        });
    }

    fn troubles(&self, topic: &TopicState, findings: &Findings) -> Vec<Trouble> {
        let Findings { rights, producers, refused, reading, unread, held_up, .. } = findings;
        let mut troubles: Vec<Trouble> = Vec::new();
        if rights.write == Some(false) {
            troubles.push(self.write_denied(RDKafkaErrorCode::TopicAuthorizationFailed, *rights));
        } else {
            troubles.extend(producers.iter().flatten().cloned());
            troubles.extend(refused.iter().map(|(trouble, _)| trouble.clone()));
            troubles.dedup_by(|a, b| a.cause == b.cause);
        }
        match rights.read {
            Some(false) => troubles.push(self.read_denied()),
            _ => troubles.extend(reading.iter().map(|(trouble, _)| trouble.clone())),
        }
        for (number, partition) in topic.partitions.iter().enumerate() {
            if partition.leader.is_none() {
                let detail = format!("partition {number} has no leader: no broker that has its records is up");
                troubles.push(Trouble::of(number, Cause::LeaderMissing, detail));
            } else if partition.in_sync < topic.min_in_sync {
                let (in_sync, least) = (partition.in_sync, topic.min_in_sync);
                let detail = format!(
                    "partition {number} has {in_sync} of the {least} in-sync replicas that a write needs (min.insync.replicas)"
                );
                troubles.push(Trouble::of(number, Cause::ReplicasMissing, detail));
            }
            if partition.leader.is_some() && unread.iter().flatten().any(|it| *it == number as i32) {
                let detail = format!("partition {number} had no leader, and its records have not been read yet");
                troubles.push(Trouble::of(number, Cause::NotReadYet, detail));
            }
        }
        troubles.extend(held_up.iter().map(|HeldUp { partition, readable, .. }| {
            let detail = format!(
                "partition {partition} can be read up to offset {readable} only: a transaction of another writer is open, \
                 and newer records are not readable before it ends"
            );
            Trouble::of(*partition as usize, Cause::HeldUp, detail)
        }));
        troubles
    }
}

/// Bytes of a batch beside its records (61, KIP-98), and what a compressor without gain may add.
const BATCH_HEAD: usize = 128;

/// Describes the first three troubles, and says how many more there are; `None` if there is none.
pub fn describe_troubles(troubles: &[Trouble]) -> Option<String> {
    let first: Vec<&str> = troubles.iter().take(3).map(|trouble| trouble.detail.as_str()).collect();
    let more = troubles.len() - first.len();
    let more = if more > 0 { format!("; and {more} more, see /readyz?verbose") } else { String::new() };
    (!first.is_empty()).then(|| first.join("; ") + &more)
}
