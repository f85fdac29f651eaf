//! Measures fan-out: many streams, events at a fixed rate, every delivery counted, a sample checked frame by frame.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::publish::{KafkaPublisher, Publishing, user_of};
use crate::sse::{Checker, Counter, Seen, Stream};
use crate::stats::{CpuClock, Histogram, Process, now_us, round};

#[derive(Args)]
pub struct Fanout {
    #[arg(long, default_value = "127.0.0.1:8000")]
    address: SocketAddr,
    #[arg(long, default_value = "/api/v1/stream")]
    path: String,
    /// The server's process, to count its CPU and memory
    #[arg(long)]
    pid: Option<u32>,
    #[arg(long, default_value_t = 1000)]
    clients: usize,
    /// Events a second
    #[arg(long, default_value_t = 1000)]
    rate: u64,
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Before anything is timed
    #[arg(long, default_value_t = 2.0)]
    warm_up: f64,
    /// How events get in; `none` if the server makes its own
    #[arg(long, value_enum, default_value = "kafka")]
    publish: Publish,
    /// Where `--publish kafka` writes
    #[arg(long, default_value = "127.0.0.1:9092")]
    kafka: String,
    #[arg(long, default_value = "user_activity")]
    topic: String,
    /// Where `--publish post` writes
    #[arg(long, default_value = "/api/v1/events")]
    post_path: String,
    /// The publisher's `linger.ms`
    #[arg(long, default_value_t = 0)]
    linger_ms: u32,
    /// Streams of which every frame is checked
    #[arg(long, default_value_t = 32)]
    sample: usize,
    /// Different users in the events
    #[arg(long, default_value_t = 1000)]
    users: u64,
    /// `each`: client n wants `user=` the n-th user; `same`: all want the first; `field`: client n wants the n-th user by a
    /// condition on the field, and each client's condition is different
    #[arg(long, value_enum, default_value = "none")]
    filter: Filtered,
    /// More connections a second that come and go meanwhile
    #[arg(long, default_value_t = 0)]
    connects: u64,
    /// More streams, whose clients never read; they are not counted
    #[arg(long, default_value_t = 0)]
    stalled: usize,
}

#[derive(Clone, Copy, ValueEnum, PartialEq)]
enum Publish {
    Kafka,
    Post,
    None,
}

#[derive(Clone, Copy, ValueEnum, PartialEq)]
enum Filtered {
    None,
    Each,
    Same,
    Field,
}

/// If nothing arrives for this long, the missing deliveries will not arrive.
const QUIET: Duration = Duration::from_secs(3);
/// How long the server may take to catch up at the end.
const LATE: Duration = Duration::from_secs(30);

/// The open streams.
struct Clients {
    counts: Arc<Vec<AtomicU64>>,
    sample: Vec<Arc<Mutex<Checker>>>,
    tasks: JoinSet<()>,
    opening: Duration,
    failed: usize,
    /// Streams that ended before the run did.
    ended: Arc<AtomicU64>,
}

impl Clients {
    async fn open(args: &Fanout) -> Self {
        let started = Instant::now();
        // As many connects at once as fit into any listen backlog.
        let turns = Arc::new(Semaphore::new(128));
        let mut opening = JoinSet::new();
        for index in 0..args.clients {
            let (turns, address, path) = (turns.clone(), args.address, args.path(index));
            opening.spawn(async move {
                let _turn = turns.acquire().await;
                (index, Stream::open(address, &path).await)
            });
        }
        let counts: Arc<Vec<AtomicU64>> = Arc::new((0..args.clients).map(|_| AtomicU64::new(0)).collect());
        let ended = Arc::new(AtomicU64::new(0));
        let every = args.clients.div_ceil(args.sample.max(1)).max(1);
        let mut clients =
            Clients { counts, sample: Vec::new(), tasks: JoinSet::new(), opening: Duration::ZERO, failed: 0, ended };
        while let Some(opened) = opening.join_next().await {
            match opened {
                Ok((index, Ok(stream))) => clients.follow(index, stream, index % every == 0, args),
                Ok((index, Err(error))) => {
                    if clients.failed == 0 {
                        eprintln!("load: client {index}: {error}");
                    }
                    clients.failed += 1;
                }
                Err(error) => eprintln!("load: {error}"),
            }
        }
        clients.opening = started.elapsed();
        clients
    }

    fn follow(&mut self, index: usize, mut stream: Stream, sampled: bool, args: &Fanout) {
        let (counts, ended) = (self.counts.clone(), self.ended.clone());
        if sampled {
            let filtered = args.filter != Filtered::None;
            let checker = Checker { filtered, timed_from_us: u64::MAX, ..Checker::default() };
            let checker = Arc::new(Mutex::new(checker));
            self.sample.push(checker.clone());
            self.tasks.spawn(async move {
                while let Ok(true) = stream
                    .next(|bytes| {
                        let mut checker = checker.lock().unwrap_or_else(PoisonError::into_inner);
                        checker.take(bytes);
                        counts[index].store(checker.seen.events, Ordering::Release);
                    })
                    .await
                {}
                ended.fetch_add(1, Ordering::Relaxed);
            });
        } else {
            self.tasks.spawn(async move {
                let mut counter = Counter::default();
                while let Ok(true) = stream
                    .next(|bytes| {
                        counts[index].fetch_add(counter.count(bytes), Ordering::Release);
                    })
                    .await
                {}
                ended.fetch_add(1, Ordering::Relaxed);
            });
        }
    }

    fn delivered(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Acquire)).sum()
    }

    fn time_from(&self, us: u64) {
        for checker in &self.sample {
            checker.lock().unwrap_or_else(PoisonError::into_inner).timed_from_us = us;
        }
    }

    fn seen(&self) -> Seen {
        let mut all = Seen::default();
        for checker in &self.sample {
            all.merge(&checker.lock().unwrap_or_else(PoisonError::into_inner).seen);
        }
        all
    }
}

impl Fanout {
    fn path(&self, client: usize) -> String {
        let path = &self.path;
        let user = client as u64 % self.users;
        match self.filter {
            Filtered::None => path.clone(),
            Filtered::Each => format!("{path}?user=user-{user:06}"),
            Filtered::Same => format!("{path}?user=user-000000"),
            Filtered::Field => format!("{path}?f=/user:in:user-{user:06},client-{client}"),
        }
    }

    /// The number of deliveries expected for this many events.
    fn expected(&self, sent: u64) -> u64 {
        let clients = self.clients as u64;
        let of_user =
            |wanted: &dyn Fn(u64) -> bool| (0..sent).filter(|n| wanted(user_of(*n, self.users))).count() as u64;
        match self.filter {
            Filtered::None => sent * clients,
            Filtered::Each | Filtered::Field => {
                (clients / self.users) * sent + of_user(&|user| user < clients % self.users)
            }
            Filtered::Same => clients * of_user(&|user| user == 0),
        }
    }

    fn publishing(&self) -> Result<Option<Publishing>, String> {
        Ok(match self.publish {
            Publish::None => None,
            Publish::Post => Some(Publishing::to_http(self.address, self.post_path.clone(), self.rate, self.users)),
            Publish::Kafka => {
                let publisher = KafkaPublisher::new(&self.kafka, &self.topic, self.linger_ms);
                let publisher = publisher.map_err(|error| format!("no producer: {error}"))?;
                Some(Publishing::to_kafka(publisher, self.rate, self.users))
            }
        })
    }
}

pub async fn run(args: Fanout) -> Result<Value, String> {
    let server = args.pid.map(Process);
    let rss_before = server.map(Process::rss);
    let clients = Clients::open(&args).await;
    if clients.failed > 0 {
        return Err(format!("{} of {} clients were not served", clients.failed, args.clients));
    }
    let stalled = stall(&args).await.map_err(|error| format!("a stream that is not read: {error}"))?;
    let rss_open = server.map(Process::rss);
    let publishing = args.publishing()?;
    tokio::time::sleep(Duration::from_secs_f64(args.warm_up)).await;

    let (started, before) = (Instant::now(), clients.delivered());
    clients.time_from(now_us());
    let clock = CpuClock::start(server);
    let churn = tokio::spawn(churn(args.address, args.path.clone(), args.connects, args.seconds));
    tokio::time::sleep(Duration::from_secs_f64(args.seconds)).await;
    let (in_time, window) = (clients.delivered() - before, started.elapsed());
    let sent = match publishing {
        Some(publishing) => {
            Some(tokio::task::spawn_blocking(|| publishing.finish()).await.map_err(|e| e.to_string())??)
        }
        None => None,
    };

    // Deliveries in flight still count, with their latency.
    let expected = sent.map(|sent| args.expected(sent));
    let (mut last, mut progress) = (clients.delivered(), Instant::now());
    let published = Instant::now();
    while expected.is_some_and(|expected| last < expected) && progress.elapsed() < QUIET && published.elapsed() < LATE {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let now = clients.delivered();
        if now > last {
            (last, progress) = (now, Instant::now());
        }
    }
    let all = if expected.is_some() { last - before } else { in_time };
    let time = if expected.is_some() { progress - started } else { window };
    let (cpu, own) = (clock.server(), clock.own());
    let seen = clients.seen();
    let churn = churn.await.unwrap_or_default();
    drop(stalled);
    let per_client = clients.counts.iter().map(|count| count.load(Ordering::Acquire));
    Ok(json!({
        "run": "fanout",
        "clients": args.clients,
        "rate": args.rate,
        "seconds": args.seconds,
        "open_all_s": round(clients.opening.as_secs_f64()),
        "deliveries": all,
        "deliveries_per_s": round(all as f64 / time.as_secs_f64()),
        "late_s": round((progress - published).as_secs_f64()),
        "missing": expected.map(|expected| expected as i64 - last as i64),
        "least_of_a_client": per_client.clone().min(),
        "most_of_a_client": per_client.max(),
        "ended_early": clients.ended.load(Ordering::Relaxed),
        "latency_ms": seen.latency.json(),
        "checked": {
            "streams": clients.sample.len(),
            "events": seen.events,
            "frame_bytes": seen.bytes.checked_div(seen.events),
            "gaps": seen.gaps,
            "repeats": seen.repeats,
            "wrong_cursors": seen.wrong_cursors,
            "told_gaps": seen.told_gaps,
            "told_drops": seen.told_drops,
            "byes": seen.byes,
        },
        "churn": (args.connects > 0).then_some(churn),
        "server_cpu_s": cpu.map(round),
        "server_cpu_s_per_million_deliveries": cpu.map(|cpu| round(cpu / all as f64 * 1e6)),
        "server_cpu_s_per_100k_events": cpu.map(|cpu| round(cpu / (args.rate as f64 * time.as_secs_f64()) * 1e5)),
        "server_rss_kb": {"before": rss_before, "open": rss_open, "end": server.map(Process::rss), "peak": server.map(Process::peak)},
        "server_threads": server.map(Process::threads),
        "load_cpu_s": round(own),
    }))
}

/// Opens streams and never reads them.
async fn stall(args: &Fanout) -> std::io::Result<Vec<Stream>> {
    let mut stalled = Vec::with_capacity(args.stalled);
    for _ in 0..args.stalled {
        stalled.push(Stream::open(args.address, &args.path).await?);
    }
    Ok(stalled)
}

/// Opens streams at a rate and leaves each after its first bytes.
async fn churn(address: SocketAddr, path: String, rate: u64, seconds: f64) -> Value {
    let started = Instant::now();
    let mut visits = JoinSet::new();
    let mut opened = 0;
    while rate > 0 && started.elapsed().as_secs_f64() < seconds {
        let due = (started.elapsed().as_secs_f64() * rate as f64) as u64;
        while opened < due {
            let path = path.clone();
            visits.spawn(async move {
                let started = Instant::now();
                let mut stream = Stream::open(address, &path).await?;
                stream.next(|_| ()).await?;
                Ok::<_, std::io::Error>(started.elapsed())
            });
            opened += 1;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let (mut latency, mut failed) = (Histogram::default(), 0);
    while let Some(visit) = visits.join_next().await {
        match visit {
            Ok(Ok(time)) => latency.record(time.as_micros() as u64),
            _ => failed += 1,
        }
    }
    json!({"opened": opened, "failed": failed, "first_bytes_ms": latency.json()})
}
