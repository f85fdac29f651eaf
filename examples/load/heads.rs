//! Measures posts and reads while other connections never complete the head of their request.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::http::{self, Connection};
use crate::publish::event;
use crate::stats::{Histogram, Process, round};

#[derive(Args)]
pub struct Heads {
    #[arg(long, default_value = "127.0.0.1:8000")]
    address: SocketAddr,
    #[arg(long)]
    pid: u32,
    /// Connections with an unfinished head
    #[arg(long, default_value_t = 10_000)]
    unfinished: usize,
    /// Seconds between two bytes of such a head
    #[arg(long, default_value_t = 5.0)]
    every: f64,
    /// Connections that post, and as many that read
    #[arg(long, default_value_t = 8)]
    connections: u64,
    /// Milliseconds between two requests of each of them
    #[arg(long, default_value_t = 20)]
    pause: u64,
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
}

pub async fn run(args: Heads) -> Result<Value, String> {
    let server = Process(args.pid);
    let rss_before = server.rss();
    let mut unfinished = JoinSet::new();
    for _ in 0..args.unfinished {
        let mut stream = begun(args.address).await.map_err(|error| error.to_string())?;
        let (address, every) = (args.address, Duration::from_secs_f64(args.every));
        unfinished.spawn(async move {
            loop {
                // In turn, not all at once.
                sleep(every.mul_f64(fastrand::f64() * 2.0)).await;
                if stream.write_all(b"x").await.is_err() || stream.try_read(&mut [0; 1]).is_ok() {
                    let Ok(next) = begun(address).await else { return };
                    stream = next;
                }
            }
        });
    }
    sleep(Duration::from_secs(2)).await;
    let rss = server.rss();
    let cpu = server.cpu();
    let until = Instant::now() + Duration::from_secs_f64(args.seconds);
    let (mut posting, mut reading) = (JoinSet::new(), JoinSet::new());
    for worker in 0..args.connections {
        let (address, pause) = (args.address, Duration::from_millis(args.pause));
        let post = move |n: u64| http::post(address, "/api/v1/events", &event(worker, worker << 32 | n));
        posting.spawn(ask(address, post, 201, pause, until));
        let read = move |_| http::get(address, "/api/v1/events?limit=10");
        reading.spawn(ask(address, read, 200, pause, until));
    }
    let (posts, reads) = (all(posting).await?, all(reading).await?);
    Ok(json!({
        "run": "heads",
        "unfinished": args.unfinished,
        "post_ms": posts.json(),
        "read_ms": reads.json(),
        "requests": posts.count() + reads.count(),
        "rss_kb_a_head": round((rss as f64 - rss_before as f64) / args.unfinished.max(1) as f64),
        "server_cpu_s": round(server.cpu() - cpu),
        "failed": args.unfinished - unfinished.len(),
    }))
}

/// A connection with an unfinished head.
async fn begun(address: SocketAddr) -> std::io::Result<TcpStream> {
    let mut stream = http::connect(address).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Never: ").await?;
    Ok(stream)
}

/// Asks again and again on one connection.
async fn ask(
    address: SocketAddr,
    request: impl Fn(u64) -> Vec<u8>,
    status: u16,
    pause: Duration,
    until: Instant,
) -> Result<Histogram, String> {
    let mut latency = Histogram::default();
    let mut connection = Connection::open(address).await.map_err(|error| error.to_string())?;
    let mut n = 0;
    while Instant::now() < until {
        let started = Instant::now();
        let answer = connection.exchange(&request(n)).await.map_err(|error| error.to_string())?;
        if answer.status != status {
            return Err(format!("status {}: {}", answer.status, String::from_utf8_lossy(&answer.body)));
        }
        latency.record(started.elapsed().as_micros() as u64);
        n += 1;
        sleep_until(started + pause).await;
    }
    Ok(latency)
}

async fn all(mut asking: JoinSet<Result<Histogram, String>>) -> Result<Histogram, String> {
    let mut all = Histogram::default();
    while let Some(asked) = asking.join_next().await {
        all.merge(&asked.map_err(|error| error.to_string())??);
    }
    Ok(all)
}
