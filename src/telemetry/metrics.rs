//! The series of `/metrics`, in the OpenMetrics text format. What is counted belongs to those who count.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::feed::Feed;
use crate::ingest::Ingest;
use crate::kafka::{Producer, State};

/// How a request is told apart: its route, not its address, so that the number of series is bounded.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Labels {
    pub method: &'static str,
    pub route: String,
    pub status: u16,
}

#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    seconds: Histogram,
}

impl Metrics {
    pub fn new(
        ingest: &Ingest,
        feed: &Feed,
        producer: Arc<Producer>,
        kafka: watch::Receiver<State>,
        lag: Arc<AtomicU64>,
    ) -> Self {
        let mut registry = Registry::with_prefix("footfall");
        let requests = Family::<Labels, Counter>::default();
        // 0.25 ms to 16 s
        let seconds = Histogram::new(exponential_buckets(0.000_25, 2.0, 17));
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version that runs", version);
        registry.register("requests", "Requests answered, by route and status", requests.clone());
        registry.register(
            "request_duration_seconds",
            "Time from a request's head to its answer's head",
            seconds.clone(),
        );
        registry.register("events", "Events submitted, by what became of them", ingest.metrics().events.clone());
        registry.register(
            "produce_duration_seconds",
            "Time from handing the events of a request to the producer to the last acknowledgement",
            ingest.metrics().produce_seconds.clone(),
        );
        registry.register("feed_records", "Records that the tail read from the topic", feed.metrics().records.clone());
        registry.register("streams", "Streams that are open", feed.metrics().streams.clone());
        registry.register(
            "stream_dropped",
            "Records not sent to clients that read too slowly",
            feed.metrics().dropped.clone(),
        );
        registry.register("stream_gaps", "Gaps told to clients", feed.metrics().gaps.clone());
        registry.register_collector(Box::new(Readings { producer, kafka, lag }));
        Metrics { registry, requests, seconds }
    }

    pub fn request(&self, labels: &Labels, seconds: f64) {
        self.requests.get_or_create(labels).inc();
        self.seconds.observe(seconds);
    }

    /// All series as text.
    pub fn encode(&self) -> String {
        let mut out = String::new();
        // Writing into a String cannot fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

/// What is read when it is asked for.
struct Readings {
    producer: Arc<Producer>,
    kafka: watch::Receiver<State>,
    lag: Arc<AtomicU64>,
}

impl std::fmt::Debug for Readings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Readings")
    }
}

impl Collector for Readings {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let up = i64::from(self.kafka.borrow().topic().is_some());
        for (name, help, value) in [
            ("kafka_up", "Whether Kafka answers and has the topic", up),
            (
                "tail_lag_records",
                "Records in the topic that the tail has not read yet",
                self.lag.load(Ordering::Relaxed) as i64,
            ),
            (
                "produce_in_flight",
                "Events handed to the producer and not settled yet",
                self.producer.in_flight() as i64,
            ),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}
