//! Measures catching up: the tail after a pause, clients that resume far behind, and a search through the topic.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use crate::http::{self, Connection};
use crate::publish::{KafkaPublisher, Publishing, user_of};
use crate::sse::{self, Checker, Seen, Stream};
use crate::stats::{CpuClock, Histogram, Process, round};

/// The longest wait in these runs.
const BOUND: Duration = Duration::from_secs(120);

#[derive(Args)]
pub struct Tail {
    #[arg(long, default_value = "127.0.0.1:8000")]
    address: SocketAddr,
    /// The server's process: it is stopped while the topic is filled, so that it reads alone afterwards
    #[arg(long)]
    pid: u32,
    #[command(flatten)]
    fill: Fill,
}

pub async fn tail(args: Tail) -> Result<Value, String> {
    let before = metric(args.address, "footfall_feed_records_total").await?;
    signal(args.pid, "STOP")?;
    let Fill { kafka, topic, records } = args.fill;
    let filled = fill(&kafka, &topic, records).await;
    let server = Process(args.pid);
    let clock = CpuClock::start(Some(server));
    let started = Instant::now();
    signal(args.pid, "CONT")?;
    filled?;
    let read = async {
        while metric(args.address, "footfall_feed_records_total").await? < before + records as f64 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok::<_, String>(started.elapsed().as_secs_f64())
    };
    let seconds = tokio::time::timeout(BOUND, read).await.map_err(|_| "the tail did not catch up in time")??;
    let cpu = clock.server().unwrap_or(f64::NAN);
    Ok(json!({
        "run": "tail",
        "records": records,
        "seconds": round(seconds),
        "records_per_s": round(records as f64 / seconds),
        "server_cpu_s_per_million": round(cpu / records as f64 * 1e6),
        "server_rss_kb": {"end": server.rss(), "peak": server.peak()},
    }))
}

#[derive(Args)]
pub struct CatchUp {
    #[arg(long, default_value = "127.0.0.1:8000")]
    address: SocketAddr,
    #[arg(long, default_value = "/api/v1/stream")]
    path: String,
    #[arg(long)]
    pid: Option<u32>,
    #[arg(long, default_value = "127.0.0.1:9092")]
    kafka: String,
    #[arg(long, default_value = "user_activity")]
    topic: String,
    /// How far the clients are behind
    #[arg(long, default_value_t = 200_000)]
    records: u64,
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// Events a second that come meanwhile
    #[arg(long, default_value_t = 100)]
    rate: u64,
}

pub async fn catch_up(args: CatchUp) -> Result<Value, String> {
    let before = head(args.address, &args.path).await?;
    fill(&args.kafka, &args.topic, args.records).await?;
    let full: u64 = before.iter().sum::<u64>() + args.records;
    let reached = async {
        while head(args.address, &args.path).await?.iter().sum::<u64>() < full {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok::<_, String>(())
    };
    tokio::time::timeout(BOUND, reached).await.map_err(|_| "the tail did not catch up in time")??;

    let server = args.pid.map(Process);
    let rss_before = server.map(Process::rss);
    let clock = CpuClock::start(server);
    let publisher = KafkaPublisher::new(&args.kafka, &args.topic, 0).map_err(|error| error.to_string())?;
    let publishing = Publishing::to_kafka(publisher, args.rate, 1000);
    let after: Vec<String> = before.iter().enumerate().map(|(partition, next)| format!("{partition}-{next}")).collect();
    let path = format!("{}?after={}", args.path, after.join("."));
    let started = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..args.clients {
        let checker = Arc::new(Mutex::new(Checker { next: before.clone(), ..Checker::default() }));
        let (theirs, address, path, wanted) = (checker.clone(), args.address, path.clone(), args.records);
        let (done, caught_up) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            let mut done = Some(done);
            let mut stream = Stream::open(address, &path).await?;
            while stream.next(|bytes| theirs.lock().unwrap_or_else(PoisonError::into_inner).take(bytes)).await? {
                if theirs.lock().unwrap_or_else(PoisonError::into_inner).seen.events >= wanted
                    && let Some(done) = done.take()
                {
                    let _ = done.send(started.elapsed());
                }
            }
            Ok::<_, std::io::Error>(())
        });
        clients.push((checker, caught_up, task));
    }
    let mut times = Histogram::default();
    let mut checkers = Vec::new();
    let mut tasks = Vec::new();
    for (checker, caught_up, task) in clients {
        let time = tokio::time::timeout(BOUND, caught_up).await;
        match time {
            Ok(Ok(time)) => times.record(time.as_micros() as u64),
            Ok(Err(_)) => return Err(format!("a stream ended: {:?}", task.await)),
            Err(_) => return Err("a client did not catch up in time".into()),
        }
        checkers.push(checker);
        tasks.push(task);
    }
    let seconds = started.elapsed().as_secs_f64();
    let cpu = clock.server();
    // Continue in the live feed for a while, to check that nothing is lost or doubled at the switch.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let live = tokio::task::spawn_blocking(|| publishing.finish()).await.map_err(|error| error.to_string())??;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    tasks.iter().for_each(|task| task.abort());
    let mut seen = Seen::default();
    checkers.iter().for_each(|checker| seen.merge(&checker.lock().unwrap_or_else(PoisonError::into_inner).seen));
    let all = args.clients as u64 * args.records;
    Ok(json!({
        "run": "catchup",
        "clients": args.clients,
        "records": args.records,
        "live_rate": args.rate,
        "time_ms": times.json(),
        "records_per_s_and_client": round(args.records as f64 / (times.quantile(0.5) as f64 / 1e6)),
        "records_per_s_in_all": round(all as f64 / seconds),
        "missing": (args.clients as u64 * (args.records + live)) as i64 - seen.events as i64,
        "gaps": seen.gaps,
        "repeats": seen.repeats,
        "wrong_cursors": seen.wrong_cursors,
        "told_gaps": seen.told_gaps,
        "told_drops": seen.told_drops,
        "server_cpu_s_per_million": cpu.map(|cpu| round(cpu / all as f64 * 1e6)),
        "server_rss_kb": {"before": rss_before, "end": server.map(Process::rss), "peak": server.map(Process::peak)},
    }))
}

#[derive(Args)]
pub struct History {
    #[arg(long, default_value = "127.0.0.1:8000")]
    address: SocketAddr,
    #[arg(long)]
    pid: Option<u32>,
    /// What is looked for; the default is in no event of this load, so that everything is read
    #[arg(long, default_value = "q=nowhere-to-be-found")]
    filter: String,
    /// Records of the topic, whose first offsets are 0
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
}

/// Searches the topic from its beginning, page by page as a program would.
pub async fn history(args: History) -> Result<Value, String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut connection = Connection::open(args.address).await.map_err(failed)?;
    let clock = CpuClock::start(args.pid.map(Process));
    let started = Instant::now();
    let (mut from, mut read, mut pages) = ("beginning".to_owned(), 0, 0);
    let mut found = 0;
    while read < args.records && started.elapsed() < BOUND {
        let path = format!("/api/v1/events?from={from}&order=oldest&limit=1000&{}", args.filter);
        let answer = connection.exchange(&http::get(args.address, &path)).await.map_err(failed)?;
        if answer.status != 200 {
            return Err(format!("status {}: {}", answer.status, String::from_utf8_lossy(&answer.body)));
        }
        let body: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
        pages += 1;
        found += body["events"].as_array().map_or(0, Vec::len);
        let Some(next) = body["next"].as_str() else {
            read = args.records;
            break;
        };
        let place: u64 = sse::cursor(next.as_bytes()).unwrap_or_default().iter().sum();
        read = place;
        from = next.to_owned();
    }
    let seconds = started.elapsed().as_secs_f64();
    Ok(json!({
        "run": "history",
        "filter": args.filter,
        "pages": pages,
        "records": read,
        "found": found,
        "seconds": round(seconds),
        "records_per_s": round(read as f64 / seconds),
        "server_cpu_s_per_million": clock.server().map(|cpu| round(cpu / read as f64 * 1e6)),
    }))
}

#[derive(Args)]
pub struct Fill {
    #[arg(long, default_value = "127.0.0.1:9092")]
    kafka: String,
    #[arg(long, default_value = "user_activity")]
    topic: String,
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
}

pub async fn fill_topic(args: Fill) -> Result<Value, String> {
    let started = Instant::now();
    fill(&args.kafka, &args.topic, args.records).await?;
    let rate = args.records as f64 / started.elapsed().as_secs_f64();
    Ok(json!({"run": "fill", "records": args.records, "records_per_s": round(rate)}))
}

/// Writes events to the topic as fast as Kafka accepts them.
async fn fill(kafka: &str, topic: &str, records: u64) -> Result<(), String> {
    let publisher = KafkaPublisher::new(kafka, topic, 20).map_err(|error| error.to_string())?;
    let filling = tokio::task::spawn_blocking(move || {
        for n in 0..records {
            publisher.send(user_of(n, 1000), n)?;
            if n % 1000 == 0 {
                publisher.poll();
            }
        }
        publisher.flush()
    });
    filling.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// The current position of the live feed: the first cursor of a new stream.
async fn head(address: SocketAddr, path: &str) -> Result<Vec<u64>, String> {
    let found = async {
        let mut stream = Stream::open(address, path).await.map_err(|error| error.to_string())?;
        let mut checker = Checker::default();
        while checker.next.is_empty() && stream.next(|bytes| checker.take(bytes)).await.map_err(|e| e.to_string())? {}
        Ok(checker.next)
    };
    tokio::time::timeout(Duration::from_secs(10), found).await.map_err(|_| "no cursor within 10 s")?
}

/// A series without labels from `/metrics`.
async fn metric(address: SocketAddr, name: &str) -> Result<f64, String> {
    let exchanged = async { Connection::open(address).await?.exchange(&http::get(address, "/metrics")).await };
    let answer = exchanged.await.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&answer.body);
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.trim().parse().ok()).ok_or_else(|| format!("no series {name}"))
}

fn signal(pid: u32, name: &str) -> Result<(), String> {
    let status = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("kill -{name} {pid}: {other:?}")),
    }
}
