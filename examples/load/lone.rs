//! Measures a single post to an idle server: the time until it is acknowledged, and until an open stream has it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use crate::http::{self, Connection};
use crate::publish::event;
use crate::sse::{Checker, Stream};
use crate::stats::{Histogram, round};

#[derive(Args)]
pub struct Lone {
    #[arg(long, default_value = "127.0.0.1:8000")]
    address: SocketAddr,
    #[arg(long, default_value = "/api/v1/events")]
    path: String,
    /// Empty for a server that has none
    #[arg(long, default_value = "/api/v1/stream")]
    stream: String,
    /// Milliseconds between two posts
    #[arg(long, default_value_t = 50)]
    every: u64,
    #[arg(long, default_value_t = 200)]
    posts: u64,
}

/// The first ones open connections and files, and are not counted.
const WARM_UP: u64 = 20;

pub async fn run(args: Lone) -> Result<Value, String> {
    let failed = |error: std::io::Error| error.to_string();
    let stream = match args.stream.as_str() {
        "" => None,
        path => Some(Stream::open(args.address, path).await.map_err(failed)?),
    };
    let checker = Arc::new(Mutex::new(Checker { timed_from_us: u64::MAX, ..Checker::default() }));
    let theirs = checker.clone();
    let streams = stream.is_some();
    let reading = tokio::spawn(async move {
        let Some(mut stream) = stream else { return };
        while let Ok(true) =
            stream.next(|bytes| theirs.lock().unwrap_or_else(PoisonError::into_inner).take(bytes)).await
        {}
    });
    let mut connection = Connection::open(args.address).await.map_err(failed)?;
    let mut latency = Histogram::default();
    for n in 0..args.posts + WARM_UP {
        if n == WARM_UP {
            checker.lock().unwrap_or_else(PoisonError::into_inner).timed_from_us = crate::stats::now_us();
        }
        let started = Instant::now();
        let request = http::post(args.address, &args.path, &event(n % 100, n));
        let answer = connection.exchange(&request).await.map_err(failed)?;
        if !(200..300).contains(&answer.status) {
            return Err(format!("status {}: {}", answer.status, String::from_utf8_lossy(&answer.body)));
        }
        if n >= WARM_UP {
            latency.record(started.elapsed().as_micros() as u64);
        }
        tokio::time::sleep(Duration::from_millis(args.every).saturating_sub(started.elapsed())).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    reading.abort();
    let seen = checker.lock().unwrap_or_else(PoisonError::into_inner).seen.clone();
    Ok(json!({
        "run": "lone",
        "posts": args.posts,
        "post_ms": latency.json(),
        "post_to_stream_ms": seen.latency.json(),
        "missing": streams.then_some(args.posts as i64 - seen.latency.count() as i64),
        "gaps": seen.gaps,
        "repeats": seen.repeats,
        "load_cpu_s": round(crate::stats::Process(std::process::id()).cpu()),
    }))
}
