//! Measures the memory of idle streams.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::sse::Stream;
use crate::stats::{Process, round};

#[derive(Args)]
pub struct Idle {
    #[arg(long, default_value = "127.0.0.1:8000")]
    address: SocketAddr,
    #[arg(long, default_value = "/api/v1/stream")]
    path: String,
    #[arg(long)]
    pid: u32,
    #[arg(long, default_value_t = 1000)]
    streams: usize,
    /// Between opening the last one and looking
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

pub async fn run(args: Idle) -> Result<Value, String> {
    let server = Process(args.pid);
    let (rss_before, threads_before) = (server.rss(), server.threads());
    let started = Instant::now();
    let turns = Arc::new(Semaphore::new(128));
    let mut opening = JoinSet::new();
    for _ in 0..args.streams {
        let (turns, address, path) = (turns.clone(), args.address, args.path.clone());
        opening.spawn(async move {
            let _turn = turns.acquire().await;
            Stream::open(address, &path).await
        });
    }
    let (mut failed, mut reading) = (0, JoinSet::new());
    while let Some(opened) = opening.join_next().await {
        match opened {
            Ok(Ok(mut stream)) => {
                reading.spawn(async move { while let Ok(true) = stream.next(|_| ()).await {} });
            }
            _ => failed += 1,
        }
    }
    let opened = started.elapsed().as_secs_f64();
    tokio::time::sleep(Duration::from_secs_f64(args.seconds)).await;
    let rss = server.rss();
    let cpu = server.cpu();
    let watched = Instant::now();
    tokio::time::sleep(Duration::from_secs_f64(args.seconds)).await;
    let cpu_idle = (server.cpu() - cpu) / watched.elapsed().as_secs_f64();
    let open = args.streams - failed;
    Ok(json!({
        "run": "idle",
        "streams": open,
        "failed": failed,
        "open_all_s": round(opened),
        "connects_per_s": round(open as f64 / opened),
        "rss_kb": {"before": rss_before, "open": rss},
        "rss_kb_a_stream": round((rss as f64 - rss_before as f64) / open as f64),
        "threads": {"before": threads_before, "open": server.threads()},
        "server_cpu_s_a_second": round(cpu_idle),
    }))
}
