//! The bare minimum of taking events in, for `dev/bench`: Rocket and rdkafka, and nothing of what Footfall promises. No
//! validation, no ids, no metrics, no log. A body is an event, or one event a line between brackets.
//!
//! Usage: spike <bootstrap servers> <topic>, on the port in ROCKET_PORT.

use std::sync::Arc;

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
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
}

impl Topic {
    fn send(&self, value: &[u8]) -> Option<oneshot::Receiver<bool>> {
        let (answer, answered) = oneshot::channel();
        // The load's events begin {"user":"user-000123"
        let key = value.get(9..20).unwrap_or(value);
        let record = BaseRecord::with_opaque_to(&self.name, Box::new(answer)).key(key).payload(value);
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
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [servers, name] = <[String; 2]>::try_from(arguments).map_err(|_| "usage: spike <bootstrap servers> <topic>")?;
    let producer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "0")
        .create_with_context(Deliveries)?;
    let figment = rocket::Config::figment().merge(("log_level", "off"));
    let topic = Arc::new(Topic { producer, name });
    rocket::custom(figment).manage(topic).mount("/", routes![submit]).launch().await?;
    Ok(())
}
