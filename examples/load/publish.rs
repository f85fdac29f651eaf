//! Where a run's events come from: straight to Kafka, or through `POST` in batches.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::http::{self, Connection};
use crate::stats::now_us;

/// An event of about 100 bytes with its creation time.
pub fn event(user: u64, n: u64) -> String {
    format!(
        r#"{{"user":"user-{user:06}","action":"page_view","t":{:016},"n":"{n:09}","path":"/products/4711/reviews"}}"#,
        now_us()
    )
}

/// Writes to Kafka as another program would: keyed by the user, with the headers that Footfall writes.
pub struct KafkaPublisher {
    producer: BaseProducer,
    topic: String,
    /// Makes the ids of different runs differ.
    run: u64,
}

impl KafkaPublisher {
    pub fn new(servers: &str, topic: &str, linger_ms: u32) -> Result<Self, KafkaError> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", servers)
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", linger_ms.to_string())
            .set("queue.buffering.max.messages", "1000000")
            .create()?;
        Ok(KafkaPublisher { producer, topic: topic.to_owned(), run: now_us() })
    }

    /// Queues one event; waits while the queue is full.
    pub fn send(&self, user: u64, n: u64) -> Result<(), KafkaError> {
        let value = event(user, n);
        let key = &value[9..20];
        let id = format!("{:016x}-{n:019}", self.run);
        let headers = [
            ("ce_specversion", "1.0"),
            ("ce_id", &id),
            ("ce_source", "/load"),
            ("ce_type", "footfall.user_activity"),
            ("ce_time", "2026-11-23T12:00:00.120Z"),
            ("content-type", "application/json"),
        ];
        let headers = headers.iter().fold(OwnedHeaders::new_with_capacity(6), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(*value) })
        });
        let mut record = BaseRecord::to(&self.topic).key(key).payload(value.as_str()).headers(headers);
        loop {
            match self.producer.send::<str, str>(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    self.producer.poll(Duration::from_millis(10));
                    record = back;
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    pub fn poll(&self) {
        self.producer.poll(Duration::ZERO);
    }

    pub fn flush(&self) -> Result<(), KafkaError> {
        self.producer.flush(Duration::from_secs(60))
    }
}

/// Which event belongs to which user: spread evenly, and the same in every run.
pub fn user_of(n: u64, users: u64) -> u64 {
    n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % users
}

/// A publisher at a fixed rate on its own thread.
pub struct Publishing {
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), String>>,
}

impl Publishing {
    /// Straight to Kafka.
    pub fn to_kafka(publisher: KafkaPublisher, rate: u64, users: u64) -> Self {
        Self::start(move |sent, stop| {
            paced(rate, stop, |n| {
                sent.store(n + 1, Ordering::Release);
                publisher.poll();
                publisher.send(user_of(n, users), n).map_err(|error| error.to_string())
            })?;
            publisher.flush().map_err(|error| error.to_string())
        })
    }

    /// Through `POST`: everything that is due in one array, at most every 10 ms.
    pub fn to_http(address: SocketAddr, path: String, rate: u64, users: u64) -> Self {
        Self::start(move |sent, stop| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| error.to_string())?;
            runtime.block_on(async {
                let mut connection = Connection::open(address).await.map_err(|error| error.to_string())?;
                let (started, mut n) = (Instant::now(), 0);
                while !stop.load(Ordering::Relaxed) {
                    let due = due(rate, started).min(n + 500);
                    if due == n {
                        tokio::time::sleep(Duration::from_micros(200)).await;
                        continue;
                    }
                    let events: Vec<String> = (n..due).map(|n| event(user_of(n, users), n)).collect();
                    n = due;
                    sent.store(n, Ordering::Release);
                    let request = http::post(address, &path, &format!("[{}]", events.join(",")));
                    let answer = connection.exchange(&request).await.map_err(|error| error.to_string())?;
                    if answer.status != 201 {
                        return Err(format!("status {} to a batch", answer.status));
                    }
                    tokio::time::sleep(Duration::from_millis(if rate > 200 { 10 } else { 0 })).await;
                }
                Ok(())
            })
        })
    }

    fn start(run: impl FnOnce(&AtomicU64, &AtomicBool) -> Result<(), String> + Send + 'static) -> Self {
        let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end) = (sent.clone(), stop.clone());
        Publishing { sent, stop, thread: std::thread::spawn(move || run(&count, &end)) }
    }

    /// Stops after the events in flight; returns the number of published events.
    pub fn finish(self) -> Result<u64, String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the publisher panicked".to_owned())??;
        Ok(self.sent.load(Ordering::Acquire))
    }
}

fn due(rate: u64, started: Instant) -> u64 {
    (started.elapsed().as_secs_f64() * rate as f64) as u64
}

/// Calls `send` with 0, 1, 2… as often as the rate says, each at its time and not in bursts of a tick.
fn paced(rate: u64, stop: &AtomicBool, mut send: impl FnMut(u64) -> Result<(), String>) -> Result<(), String> {
    let (started, mut n) = (Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        while n < due(rate, started) {
            send(n)?;
            n += 1;
        }
        let next = Duration::from_secs_f64((n + 1) as f64 / rate as f64);
        std::thread::sleep(
            next.saturating_sub(started.elapsed()).clamp(Duration::from_micros(100), Duration::from_millis(20)),
        );
    }
    Ok(())
}
