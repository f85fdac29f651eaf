//! A topic seen by an independent Kafka client: any bytes can be written to it, and it is read to its end.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, FromClientConfig, FromClientConfigAndContext};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::ledger::HEALING;
use super::wait::{PATIENCE, eventually, within};
use super::{kafka, unique};

const ANSWER: Duration = Duration::from_secs(10);

/// A topic and its brokers.
pub struct Topic {
    servers: OnceLock<String>,
    name: String,
    /// Whether dropping this value deletes it.
    owned: bool,
    producer: OnceLock<ThreadedProducer<Deliveries>>,
}

impl Topic {
    /// A name for the embedded broker's topic; its address is known when it runs.
    pub(super) fn in_the_application() -> Self {
        Topic { servers: OnceLock::new(), name: "user_activity".into(), owned: false, producer: OnceLock::new() }
    }

    /// A name for a topic that the application creates.
    pub fn named_by_chance(servers: &str) -> Self {
        let mut topic = Topic::named(servers, &unique("test"));
        topic.owned = true;
        topic
    }

    pub fn named(servers: &str, name: &str) -> Self {
        Topic {
            servers: OnceLock::from(servers.to_owned()),
            name: name.into(),
            owned: false,
            producer: OnceLock::new(),
        }
    }

    /// Creates a topic, before any application starts.
    #[track_caller]
    pub fn create(servers: &str, partitions: i32, properties: &[(&str, &str)]) -> Self {
        let topic = Topic::named_by_chance(servers);
        topic.make_with(partitions, properties);
        topic
    }

    /// Creates a topic whose partitions have one replica each, on the named broker.
    #[track_caller]
    pub fn create_on(servers: &str, brokers: &[i32]) -> Self {
        let topic = Topic::named_by_chance(servers);
        let (name, partitions) = (topic.name.clone(), brokers.len() as i32);
        let brokers: Vec<[i32; 1]> = brokers.iter().map(|broker| [*broker]).collect();
        topic.administer(async move |admin, options| {
            let brokers: Vec<&[i32]> = brokers.iter().map(|broker| broker.as_slice()).collect();
            let new = NewTopic::new(&name, partitions, TopicReplication::Variable(&brokers));
            let new = new.set("min.insync.replicas", "1");
            admin.create_topics([&new], &options).await
        });
        eventually("the topic has its partitions", || (topic.partitions() == Some(partitions)).then_some(()));
        topic
    }

    /// Returns a copy, which does not delete the topic.
    pub fn borrowed(&self) -> Self {
        Topic { servers: self.servers.clone(), name: self.name.clone(), owned: false, producer: OnceLock::new() }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn reached_at(&self, servers: &str) {
        let _ = self.servers.set(servers.to_owned()); // it may be known already
    }

    pub fn servers(&self) -> &str {
        self.servers.get().expect("the broker's address")
    }

    // --- Administration ------------------------------------------------------------------------------------------

    /// Creates it under its name.
    #[track_caller]
    pub fn make(&self, partitions: i32) {
        self.make_with(partitions, &[]);
    }

    #[track_caller]
    fn make_with(&self, partitions: i32, properties: &[(&str, &str)]) {
        let name = self.name.clone();
        self.administer(async move |admin, options| {
            let topic = NewTopic::new(&name, partitions, TopicReplication::Fixed(-1));
            let topic = properties.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
            admin.create_topics([&topic], &options).await
        });
        eventually("the topic has its partitions", || (self.partitions() == Some(partitions)).then_some(()));
    }

    #[track_caller]
    pub fn delete(&self) {
        let name = self.name.clone();
        self.administer(async move |admin, options| admin.delete_topics(&[&name], &options).await);
        eventually("the topic is gone", || self.partitions().is_none().then_some(()));
    }

    #[track_caller]
    pub fn grow_to(&self, partitions: usize) {
        let name = self.name.clone();
        self.administer(async move |admin, options| {
            admin.create_partitions(&[NewPartitions::new(&name, partitions)], &options).await
        });
        eventually("the topic has its new partitions", || (self.partitions() == Some(partitions as i32)).then_some(()));
    }

    /// Deletes the records before an offset, as retention does.
    #[track_caller]
    pub fn delete_before(&self, partition: i32, offset: i64) {
        let name = self.name.clone();
        self.administer(async move |admin, options| {
            let mut offsets = TopicPartitionList::new();
            offsets.add_partition_offset(&name, partition, Offset::Offset(offset))?;
            admin.delete_records(&offsets, &options).await.map(|_| vec![])
        });
    }

    /// Moves each partition to these brokers, the leader first, and waits until that is done.
    #[track_caller]
    pub fn reassign(&self, brokers: &[&[u32]]) {
        let partitions = brokers
            .iter()
            .zip(0..)
            .map(|(brokers, partition)| json!({"topic": self.name, "partition": partition, "replicas": brokers}));
        let file = json_file(&json!({"version": 1, "partitions": partitions.collect::<Vec<_>>()}));
        let tool = |what: &str| {
            kafka::tool(self.servers(), &["reassign-partitions", "--reassignment-json-file", path(&file), what])
        };
        tool("--execute");
        within(HEALING, "the partitions have moved", || (!tool("--verify").contains("in progress")).then_some(()));
    }

    /// Elects the first broker of each partition as its leader.
    #[track_caller]
    pub fn elect_preferred_leaders(&self) {
        let partitions = 0..self.partitions().expect("a topic");
        let partitions = partitions.map(|partition| json!({"topic": self.name, "partition": partition}));
        let file = json_file(&json!({"partitions": partitions.collect::<Vec<_>>()}));
        let which = ["leader-election", "--election-type", "preferred", "--path-to-json-file", path(&file)];
        kafka::tool(self.servers(), &which);
    }

    /// The number of partitions; `None` if there is no such topic.
    pub fn partitions(&self) -> Option<i32> {
        let metadata = self.consumer().fetch_metadata(Some(&self.name), ANSWER).ok()?;
        let topic = metadata.topics().first()?;
        (topic.error().is_none() && !topic.partitions().is_empty()).then_some(topic.partitions().len() as i32)
    }

    /// rdkafka's administration is asynchronous; it runs on a thread of its own because a test may be in a runtime.
    #[track_caller]
    fn administer<F>(&self, work: F)
    where
        F: AsyncFnOnce(
                &AdminClient<DefaultClientContext>,
                AdminOptions,
            ) -> rdkafka::error::KafkaResult<Vec<rdkafka::admin::TopicResult>>
            + Send,
    {
        let config = self.client();
        let results = std::thread::scope(|scope| {
            let done = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                let admin = AdminClient::from_config(&config).expect("an admin client");
                let options = AdminOptions::new().operation_timeout(Some(ANSWER)).request_timeout(Some(ANSWER));
                runtime.block_on(work(&admin, options))
            });
            done.join().expect("no panic")
        });
        for result in results.expect("an answer of the broker") {
            result.unwrap_or_else(|(name, code)| panic!("{name}: {code}"));
        }
    }

    // --- Writing -------------------------------------------------------------------------------------------------

    /// Writes a record unchanged, and returns its partition and offset.
    #[track_caller]
    pub fn produce(&self, record: &NewRecord) -> (i32, i64) {
        let (sender, receiver) = sync_channel(1);
        self.send(record, sender);
        receiver.recv_timeout(PATIENCE).expect("a delivery report").expect("the broker takes it")
    }

    /// Writes many records, without waiting for each one.
    #[track_caller]
    pub fn produce_all(&self, records: &[NewRecord]) -> Vec<(i32, i64)> {
        let (sender, receiver) = sync_channel(records.len());
        records.iter().for_each(|record| self.send(record, sender.clone()));
        let report = || receiver.recv_timeout(PATIENCE).expect("a delivery report").expect("the broker takes it");
        records.iter().map(|_| report()).collect()
    }

    #[track_caller]
    fn send(&self, record: &NewRecord, report: SyncSender<Result<(i32, i64), String>>) {
        let producer = self.producer.get_or_init(|| {
            let mut config = self.client();
            config.set("linger.ms", "0").set("partitioner", "murmur2_random").set("message.max.bytes", "1500000");
            ThreadedProducer::from_config_and_context(&config, Deliveries).expect("a producer")
        });
        let mut headers = OwnedHeaders::new();
        for (key, value) in &record.headers {
            headers = headers.insert(Header { key, value: value.as_ref() });
        }
        let mut message: BaseRecord<Vec<u8>, Vec<u8>, Box<Report>> =
            BaseRecord::with_opaque_to(&self.name, Box::new(Report(report))).headers(headers);
        if let Some(key) = &record.key {
            message = message.key(key);
        }
        if let Some(value) = &record.value {
            message = message.payload(value);
        }
        if let Some(partition) = record.partition {
            message = message.partition(partition);
        }
        if let Some(timestamp) = record.timestamp {
            message = message.timestamp(timestamp);
        }
        producer.send(message).unwrap_or_else(|(error, _)| panic!("{error}"));
    }

    // --- Reading -------------------------------------------------------------------------------------------------

    /// All records of the topic, by partition and offset.
    #[track_caller]
    pub fn records(&self) -> Vec<StoredRecord> {
        let partitions = eventually("the topic is there", || self.partitions());
        let mut assignment = TopicPartitionList::new();
        let mut left = BTreeMap::new();
        for partition in 0..partitions {
            let (low, high) = self.watermarks(partition);
            if low < high {
                assignment.add_partition_offset(&self.name, partition, Offset::Offset(low)).expect("an offset");
                left.insert(partition, high);
            }
        }
        let mut records = Vec::new();
        if left.is_empty() {
            return records;
        }
        let consumer = self.consumer();
        consumer.assign(&assignment).expect("an assignment");
        let deadline = Instant::now() + PATIENCE;
        while !left.is_empty() {
            assert!(Instant::now() < deadline, "the topic was not read to its end: {left:?}");
            let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
            let Some(high) = left.get(&message.partition()).copied() else { continue };
            if message.offset() < high {
                records.push(StoredRecord::new(&message));
            }
            if message.offset() + 1 >= high {
                left.remove(&message.partition());
            }
        }
        records.sort_by_key(|record| (record.partition, record.offset));
        records
    }

    /// Returns the record at this position.
    #[track_caller]
    pub fn record_at(&self, partition: i32, offset: i64) -> StoredRecord {
        let found = self.records().into_iter().find(|r| (r.partition, r.offset) == (partition, offset));
        found.unwrap_or_else(|| panic!("no record at {partition}-{offset}"))
    }

    /// Returns the ends of all partitions, as a cursor.
    #[track_caller]
    pub fn end(&self) -> String {
        let next = |partition| self.watermarks(partition).1;
        let positions: Vec<String> = (0..eventually("the topic is there", || self.partitions()))
            .map(|partition| format!("{partition}-{}", next(partition)))
            .collect();
        positions.join(".")
    }

    /// Returns the first and next offset. A broker that has just restarted may lead nothing yet, and a client may cache
    /// that for a while, so each request uses a new client.
    #[track_caller]
    fn watermarks(&self, partition: i32) -> (i64, i64) {
        let ask = || self.consumer().fetch_watermarks(&self.name, partition, ANSWER).ok();
        within(3 * PATIENCE, "a partition's bounds are known", ask)
    }

    fn consumer(&self) -> BaseConsumer {
        let mut config = self.client();
        config.set("group.id", "footfall-tests").set("enable.auto.commit", "false").set("auto.offset.reset", "error");
        config.set("fetch.wait.max.ms", "10").set("fetch.error.backoff.ms", "10");
        BaseConsumer::from_config(&config).expect("a consumer")
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.servers()).set("allow.auto.create.topics", "false");
        config
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        if !self.owned {
            return;
        }
        let (config, name) = (self.client(), self.name.clone());
        // The broker may be gone with the test, and a leftover topic does no harm.
        let _ = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            let admin: AdminClient<DefaultClientContext> = AdminClient::from_config(&config).ok()?;
            let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(1)));
            runtime.block_on(admin.delete_topics(&[&name], &options)).ok()
        })
        .join();
    }
}

/// Writes a file for one of Kafka's tools.
fn json_file(content: &Value) -> NamedTempFile {
    let file = NamedTempFile::with_prefix("footfall-").expect("a temporary file");
    std::fs::write(file.path(), content.to_string()).expect("a file that can be written");
    file
}

fn path(file: &NamedTempFile) -> &str {
    file.path().to_str().expect("a path in UTF-8")
}

struct Report(SyncSender<Result<(i32, i64), String>>);

struct Deliveries;

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Report>;

    fn delivery(&self, result: &DeliveryResult<'_>, report: Box<Report>) {
        let place = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(error.to_string()),
        };
        let _ = report.0.send(place); // the test may be over
    }
}

/// A record to write, of any bytes.
#[derive(Debug, Clone, Default)]
pub struct NewRecord {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    partition: Option<i32>,
    timestamp: Option<i64>,
}

impl NewRecord {
    /// Without key, value and headers.
    pub fn new() -> Self {
        NewRecord::default()
    }

    /// An event as another producer writes it: only the value.
    pub fn event(user: &str, action: &str) -> Self {
        NewRecord::new().value(json!({"user": user, "action": action}).to_string())
    }

    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    pub fn value(mut self, value: impl Into<Vec<u8>>) -> Self {
        self.value = Some(value.into());
        self
    }

    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.into(), Some(value.into())));
        self
    }

    pub fn null_header(mut self, name: &str) -> Self {
        self.headers.push((name.into(), None));
        self
    }

    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Milliseconds since 1970.
    pub fn timestamp(mut self, ms: i64) -> Self {
        self.timestamp = Some(ms);
        self
    }
}

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl StoredRecord {
    fn new(message: &BorrowedMessage<'_>) -> Self {
        let header = |header: Header<'_, &[u8]>| (header.key.to_owned(), header.value.map(<[u8]>::to_vec));
        StoredRecord {
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: message.headers().map_or_else(Vec::new, |headers| headers.iter().map(header).collect()),
        }
    }

    /// The value as text.
    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(self.value.as_deref().expect("a value")).expect("text")
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(self.text()).expect("JSON")
    }

    /// Returns the text of a header that appears once.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(n, _)| n == name);
        let value =
            found.next().map(|(_, value)| std::str::from_utf8(value.as_deref().expect("a value")).expect("text"));
        assert!(found.next().is_none(), "{name} comes twice");
        value
    }
}
