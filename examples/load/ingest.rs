//! Measures ingest: each connection posts one request after the other, as fast as they are answered.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use crate::http::{self, Connection};
use crate::publish::event;
use crate::stats::{CpuClock, Histogram, Process, round};

#[derive(Args)]
pub struct Ingest {
    #[arg(long, default_value = "127.0.0.1:8000")]
    address: SocketAddr,
    #[arg(long, default_value = "/api/v1/events")]
    path: String,
    /// The server's process, to count its CPU
    #[arg(long)]
    pid: Option<u32>,
    #[arg(long, default_value_t = 64)]
    connections: u64,
    /// Events a request; more than one makes an array, one event a line
    #[arg(long, default_value_t = 1)]
    batch: u64,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Before anything is counted
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
}

#[derive(Default)]
struct Counted {
    requests: u64,
    latency: Histogram,
    /// Answers that are not 2xx by their status, and connections that broke by what happened.
    errors: BTreeMap<String, u64>,
    cpu: Option<f64>,
}

pub async fn run(args: Ingest) -> Value {
    let started = Instant::now();
    let from = started + Duration::from_secs_f64(args.warm_up);
    let until = from + Duration::from_secs_f64(args.seconds);
    let clock = tokio::spawn(async move {
        tokio::time::sleep_until(from.into()).await;
        let clock = CpuClock::start(args.pid.map(Process));
        tokio::time::sleep_until(until.into()).await;
        (clock.server(), clock.own())
    });
    let (address, path, batch) = (args.address, args.path.clone(), args.batch);
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..args.connections {
        workers.spawn(post(address, path.clone(), worker, batch, from, until));
    }
    let mut all = Counted::default();
    while let Some(Ok(counted)) = workers.join_next().await {
        all.requests += counted.requests;
        all.latency.merge(&counted.latency);
        for (what, count) in counted.errors {
            *all.errors.entry(what).or_default() += count;
        }
    }
    let (server, own) = clock.await.unwrap_or_default();
    all.cpu = server;
    let events = (all.requests * args.batch) as f64;
    json!({
        "run": "ingest",
        "connections": args.connections,
        "batch": args.batch,
        "seconds": args.seconds,
        "requests_per_s": round(all.requests as f64 / args.seconds),
        "events_per_s": round(events / args.seconds),
        "latency_ms": all.latency.json(),
        "errors": all.errors,
        "server_cpu_s": all.cpu.map(round),
        "server_cpu_s_per_100k_events": all.cpu.map(|cpu| round(cpu / events * 1e5)),
        "load_cpu_s": round(own),
    })
}

async fn post(address: SocketAddr, path: String, worker: u64, batch: u64, from: Instant, until: Instant) -> Counted {
    let mut counted = Counted::default();
    let mut connection = None;
    let mut n = worker * 10_000_000;
    while Instant::now() < until {
        let body = match batch {
            1 => event(n % 1000, n),
            _ => format!("[{}]", (n..n + batch).map(|n| event(n % 1000, n)).collect::<Vec<_>>().join(",\n")),
        };
        n += batch;
        let request = http::post(address, &path, &body);
        let started = Instant::now();
        let exchanged = async {
            let connection = match &mut connection {
                Some(connection) => connection,
                none => none.insert(Connection::open(address).await?),
            };
            connection.exchange(&request).await
        };
        let answer = tokio::time::timeout(Duration::from_secs(20), exchanged).await;
        let ended = Instant::now();
        let counts = started >= from && ended <= until;
        match answer {
            Ok(Ok(answer)) if (200..300).contains(&answer.status) => {
                if counts {
                    counted.requests += 1;
                    counted.latency.record((ended - started).as_micros() as u64);
                }
            }
            Ok(Ok(answer)) => *counted.errors.entry(answer.status.to_string()).or_default() += 1,
            Ok(Err(error)) => {
                *counted.errors.entry(error.to_string()).or_default() += 1;
                connection = None;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(_) => {
                *counted.errors.entry("no answer within 20 s".into()).or_default() += 1;
                connection = None;
            }
        }
    }
    counted
}
