//! Baseline B of `dev/bench`: ingest with Rocket and rdkafka alone. No validation, ids, metrics or log. A body is one event,
//! or an array with one event on each line.
//!
//! Usage: spike <bootstrap servers> <topic> [full], on the port in ROCKET_PORT. With `full` (baseline C) each record has the same
//! headers as Footfall's, and the process reads the topic back.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use rocket::data::{Data, ToByteUnit};
use rocket::http::Status;
use rocket::{State, post, routes};
use tokio::sync::oneshot;

struct Deliveries;

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<oneshot::Sender<bool>>;

    fn delivery(&self, result: &DeliveryResult<'_>, answer: Self::DeliveryOpaque) {
        let _ = answer.send(result.is_ok());
    }
}

struct Topic {
    producer: ThreadedProducer<Deliveries>,
    name: String,
    full: bool,
}

/// The same deadline as Footfall's.
const HEADERS: [(&str, &str); 6] = [
    ("ce_specversion", "1.0"),
    ("ce_id", "01a21079-646f-752b-acfe-1fcf9edccf30"),
    ("ce_source", "/footfall"),
    ("ce_type", "footfall.user_activity"),
    ("ce_time", "2026-11-25T02:00:16.484Z"),
    ("content-type", "application/json"),
];

/// Reads new records of every partition and drops them.
fn read_back(servers: &str, topic: &str) -> Result<(), Box<dyn std::error::Error>> {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", servers).set("group.id", "spike").create()?;
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(5))?;
    let mut partitions = TopicPartitionList::new();
    for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
        partitions.add_partition_offset(topic, partition.id(), Offset::End)?;
    }
    consumer.assign(&partitions)?;
    std::thread::spawn(move || {
        loop {
            consumer.poll(Duration::from_millis(100));
        }
    });
    Ok(())
}

impl Topic {
    fn send(&self, value: &[u8]) -> Option<oneshot::Receiver<bool>> {
        let (answer, answered) = oneshot::channel();
        // The load's events begin {"user":"user-000123"
        let key = value.get(9..20).unwrap_or(value);
        let mut record = BaseRecord::with_opaque_to(&self.name, Box::new(answer)).key(key).payload(value);
        if self.full {
            let empty = OwnedHeaders::new_with_capacity(HEADERS.len());
            let insert = |headers: OwnedHeaders, (key, value)| headers.insert(Header { key, value: Some(value) });
            record = record.headers(HEADERS.into_iter().fold(empty, insert));
        }
        self.producer.send(record).ok().map(|()| answered)
    }
}

#[post("/", data = "<body>")]
async fn submit(topic: &State<Arc<Topic>>, body: Data<'_>) -> Status {
    let Ok(body) = body.open(1.mebibytes()).into_bytes().await else { return Status::BadRequest };
    let trimmed = body.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]")).unwrap_or(&body);
    let waiting: Vec<_> = trimmed.split(|byte| *byte == b'\n').map(|line| topic.send(line)).collect();
    for answered in waiting {
        let Some(answered) = answered else { return Status::ServiceUnavailable };
        if answered.await != Ok(true) {
            return Status::ServiceUnavailable;
        }
    }
    Status::Created
}

#[rocket::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let full = arguments.pop_if(|last| last == "full").is_some();
    let [servers, name] =
        <[String; 2]>::try_from(arguments).map_err(|_| "usage: spike <bootstrap servers> <topic> [full]")?;
    if full {
        read_back(&servers, &name)?;
    }
    let producer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "0")
        .create_with_context(Deliveries)?;
    let figment = rocket::Config::figment().merge(("log_level", "off"));
    let topic = Arc::new(Topic { producer, name, full });
    rocket::custom(figment).manage(topic).mount("/", routes![submit]).launch().await?;
    Ok(())
}
