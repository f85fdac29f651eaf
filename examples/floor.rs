//! Baseline A of `dev/bench`: what the kernel, tokio and hyper cost on this machine without a product on top. Not a server
//! for any other use.
//!
//! Usage: floor fanout <address> <events a second> <tick in ms>   Server-Sent Events from slabs that are encoded once
//!        floor answer <address>                                  hyper, a constant answer to whatever comes

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["fanout", address, rate, tick] => fanout(address.parse()?, rate.parse()?, tick.parse()?).await,
        ["answer", address] => answer(address.parse()?).await,
        _ => Err("usage: floor fanout <address> <events a second> <tick in ms> | floor answer <address>".into()),
    }
}

/// All events of one tick, encoded once for every client.
async fn fanout(address: SocketAddr, rate: u64, tick_ms: f64) -> Result<(), Failure> {
    let listener = TcpListener::bind(address).await?;
    let slabs = broadcast::Sender::new(1024);
    let sender = slabs.clone();
    tokio::spawn(async move {
        let started = Instant::now();
        let mut ticks = tokio::time::interval(Duration::from_secs_f64(tick_ms / 1000.0));
        let mut offset = 0;
        loop {
            ticks.tick().await;
            let due = (started.elapsed().as_secs_f64() * rate as f64) as u64;
            if due > offset {
                let _ = sender.send(slab(offset..due)); // fails while no client is connected
                offset = due;
            }
        }
    });
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(follow(stream, slabs.subscribe()));
    }
}

/// Frames of the size and form that Footfall sends, all of them in one HTTP chunk.
fn slab(offsets: std::ops::Range<u64>) -> Bytes {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
    let frames: String = offsets
        .map(|offset| {
            let next = offset + 1;
            format!(
                "data: {{\"topic\":\"user_activity\",\"partition\":0,\"offset\":{offset},\
                 \"timestamp\":\"2026-11-23T12:00:00.123Z\",\"key\":\"user-000123\",\
                 \"id\":\"01a209aa-8bc6-7357-b52b-5b5b035196ec\",\"time\":\"2026-11-23T12:00:00.120Z\",\
                 \"value\":{{\"user\":\"user-000123\",\"action\":\"page_view\",\"t\":{now:016},\"n\":\"{offset:09}\"}}}}\n\
                 id: 0-{next}.1-0.2-0\n\n"
            )
        })
        .collect();
    format!("{:x}\r\n{frames}\r\n", frames.len()).into()
}

async fn follow(mut stream: TcpStream, mut slabs: broadcast::Receiver<Bytes>) -> Result<(), Failure> {
    stream.set_nodelay(true)?;
    let mut head = [0; 1024];
    let _ = stream.read(&mut head).await?;
    let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(answer.as_bytes()).await?;
    loop {
        stream.write_all(&slabs.recv().await?).await?;
    }
}

async fn answer(address: SocketAddr) -> Result<(), Failure> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let serve = service_fn(|request: Request<Incoming>| async move {
            let body = request.into_body().collect().await;
            let answer = Response::new(Full::new(Bytes::from_static(b"{\"id\":\"01a209aa\"}")));
            Ok::<_, Infallible>(if body.is_ok() { answer } else { Response::default() })
        });
        tokio::spawn(async move {
            // A client that leaves is not an error.
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), serve).await;
        });
    }
}
