//! The registry behind `/metrics`, in the text formats of OpenMetrics and Prometheus. Every part owns its metrics; this
//! module registers them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::feed::Feed;
use crate::ingest::Ingest;
use crate::kafka::{Cause, ClusterState, HeldUp, Producer, stops_all};
use crate::rejects::Rejects;
use crate::server;

/// Returns the partitions that an open transaction holds up.
pub type HeldUps = Box<dyn Fn() -> Vec<HeldUp> + Send + Sync>;

/// Returns the number of reads that hold a permit, by kind.
pub type HeldReads = Box<dyn Fn() -> Vec<(&'static str, usize)> + Send + Sync>;

/// The labels of a request. The route, not the path, so that the number of series is bounded.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    pub method: &'static str,
    pub route: String,
    pub status: u16,
}

#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    seconds: Histogram,
}

impl Metrics {
    pub fn new(sources: Sources, connections: &server::ServerMetrics) -> Self {
        let Sources { ingest, feed, rejects, .. } = &sources;
        let mut registry = Registry::with_prefix("footfall");
        let requests = Family::<RequestLabels, Counter>::default();
        // 0.25 ms to 16 s
        let seconds = Histogram::new(exponential_buckets(0.000_25, 2.0, 17));
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The running version", version);
        registry.register("requests", "Requests answered, by route and status", requests.clone());
        registry.register(
            "request_duration_seconds",
            "Time from a request's head to its answer's head",
            seconds.clone(),
        );
        registry.register("events", "Events submitted, by outcome", ingest.metrics().events.clone());
        registry.register(
            "rejects",
            "Submissions refused for good, by the type of the problem",
            rejects.counter().clone(),
        );
        registry.register(
            "tracker_discarded",
            "Events that trackers discarded before they were sent, as they report, by reason",
            ingest.metrics().discarded.clone(),
        );
        registry.register(
            "produce_duration_seconds",
            "Time from handing the events of a request to the producer to the last acknowledgement",
            ingest.metrics().produce_seconds.clone(),
        );
        registry.register("feed_records", "Records that the tail read from the topic", feed.metrics().records.clone());
        registry.register(
            "feed_waves",
            "How often the streams were woken for new records",
            feed.metrics().waves.clone(),
        );
        registry.register(
            "feed_pace_seconds",
            "Time between two wake-ups of the streams while records come; follows from what one costs",
            feed.metrics().pace.clone(),
        );
        registry.register("streams", "Open streams and WebSockets", feed.metrics().streams.clone());
        registry.register(
            "stream_dropped",
            "Records not sent to clients that read too slowly",
            feed.metrics().dropped.clone(),
        );
        registry.register("stream_gaps", "Gaps sent to clients", feed.metrics().gaps.clone());
        registry.register("http_connections", "Open connections", connections.open.clone());
        registry.register(
            "http_connections_refused",
            "Connections refused at once, by the limit that was reached",
            connections.refused.clone(),
        );
        registry.register(
            "http_timeouts",
            "Connections and requests that a deadline ended, by the part for which it is",
            connections.timeouts.clone(),
        );
        if let Some(expiry) = &connections.certificate_expiry {
            registry.register(
                "tls_certificate_expiry_seconds",
                "When the certificate of HTTPS expires, in seconds since 1970",
                expiry.clone(),
            );
        }
        registry.register_collector(Box::new(sources));
        Metrics { registry, requests, seconds }
    }

    pub fn request(&self, labels: &RequestLabels, seconds: f64) {
        self.requests.get_or_create(labels).inc();
        self.seconds.observe(seconds);
    }

    /// All series in the text format of OpenMetrics 1.0.0.
    pub fn encode(&self) -> String {
        let mut out = String::new();
        // Writing into a String cannot fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }

    /// All series in the text format of Prometheus, version 0.0.4.
    pub fn encode_text(&self) -> String {
        prometheus_text(&self.encode())
    }
}

/// Converts OpenMetrics text to Prometheus text. Prometheus names a counter with its suffix `_total`, has no info type (it
/// becomes a gauge with the suffix `_info`), and has neither units nor an end marker.
fn prometheus_text(open_metrics: &str) -> String {
    let kinds: HashMap<&str, &str> = comments(open_metrics, "# TYPE ").collect();
    let mut out = String::with_capacity(open_metrics.len() + 1024);
    for line in open_metrics.lines() {
        let comment = ["# HELP ", "# TYPE "].iter().find_map(|word| Some((*word, line.strip_prefix(word)?)));
        let Some((word, (name, rest))) = comment.and_then(|(word, text)| Some((word, text.split_once(' ')?))) else {
            if !line.starts_with('#') {
                out.push_str(line);
                out.push('\n');
            }
            continue;
        };
        let (suffix, kind) = match kinds.get(name) {
            Some(&"counter") => ("_total", "counter"),
            Some(&"info") => ("_info", "gauge"),
            Some(&"unknown") => ("", "untyped"),
            kind => ("", kind.copied().unwrap_or("untyped")),
        };
        let rest = if word == "# TYPE " { kind } else { rest };
        for part in [word, name, suffix, " ", rest, "\n"] {
            out.push_str(part);
        }
    }
    out
}

/// Returns name and text of each comment that starts with `word`.
fn comments<'a>(text: &'a str, word: &'static str) -> impl Iterator<Item = (&'a str, &'a str)> {
    text.lines().filter_map(move |line| line.strip_prefix(word)?.split_once(' '))
}

/// The parts whose metrics are registered, and the values that are read at each scrape.
pub struct Sources {
    pub ingest: Arc<Ingest>,
    pub feed: Feed,
    pub producer: Arc<Producer>,
    pub kafka: watch::Receiver<ClusterState>,
    /// Records that the tail has not read yet.
    pub lag: Arc<AtomicU64>,
    pub held_up: HeldUps,
    pub rejects: Arc<Rejects>,
    pub reads: HeldReads,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sources")
    }
}

impl Collector for Sources {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let (up, partitions) = match self.kafka.borrow().topic() {
            Some(topic) => (1, topic.partitions.len()),
            None => (0, 0),
        };
        let troubles = self.ingest.troubles();
        let stops = |it: &crate::kafka::Trouble| it.cause.stops_posts() || it.cause.stops_streams();
        let ready = i64::from(stops_all(&troubles, partitions, stops).is_none());
        let (kept, bytes, encoded) = self.feed.kept();
        for (name, help, value) in [
            ("feed_kept_records", "Records in memory, from which streams resume without Kafka", kept as i64),
            ("feed_kept_bytes", "Approximate bytes of the records in memory", bytes as i64),
            ("feed_encoded_bytes", "Approximate bytes of the frames and indexes made from them", encoded as i64),
            ("kafka_up", "1 if Kafka answers and has the topic", up),
            ("ready", "1 if /readyz is 200: posts are written and streams get records", ready),
            (
                "tail_lag_records",
                "Records in the topic that the tail has not read yet",
                self.lag.load(Ordering::Relaxed) as i64,
            ),
            ("produce_in_flight", "Events in flight to Kafka", self.producer.in_flight() as i64),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let help = "Reads of the topic for requests that hold a permit, by kind";
        let mut family = encoder.encode_descriptor("reads", help, None, MetricType::Gauge)?;
        for (kind, held) in (self.reads)() {
            ConstGauge::new(held as i64).encode(family.encode_family(&[("kind", kind)])?)?;
        }
        let help = "Causes that stop posts or streams, as /readyz names them: partitions concerned";
        let mut family = encoder.encode_descriptor("trouble", help, None, MetricType::Gauge)?;
        for cause in Cause::ALL {
            let gauge = ConstGauge::new(troubles.iter().filter(|trouble| trouble.cause == cause).count() as i64);
            gauge.encode(family.encode_family(&[("cause", cause.name())])?)?;
        }
        let help = "Offsets that are unreadable until another writer's transaction ends, by partition";
        let mut family = encoder.encode_descriptor("partition_held_up_records", help, None, MetricType::Gauge)?;
        for HeldUp { partition, records, .. } in (self.held_up)() {
            ConstGauge::new(records).encode(family.encode_family(&[("partition", partition.to_string())])?)?;
        }
        Ok(())
    }
}
