//! A network with faults: a TCP proxy between an application and Kafka, or between a client and an application.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

/// The faults of all connections, including open ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Weather {
    Fair,
    /// Each byte is delayed by this, and up to `jitter` more.
    Delay {
        latency: Duration,
        jitter: Duration,
    },
    /// Bytes per second, for each connection and direction.
    Throttle(u64),
    /// A connection is cut after this many more bytes in one direction, wherever in a message that is.
    CutAfter(u64),
    /// Connections are accepted, but no data passes.
    BlackHole,
    /// Connections are closed at once.
    Refuse,
    /// Server-Sent Events are held back until there are so many bytes of them, as nginx does with `proxy_buffering on`.
    Buffer(usize),
}

/// Most chunks that were read from a connection and not forwarded.
const IN_FLIGHT: usize = 64;

pub struct Proxy {
    address: SocketAddr,
    network: Arc<Network>,
    /// Its tasks end with it.
    _runtime: Runtime,
}

struct Network {
    upstream: watch::Sender<Option<SocketAddr>>,
    weather: watch::Sender<Weather>,
    cuts: AtomicU64,
}

impl Proxy {
    /// Listens on its own port; the target is set later.
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let network = Arc::new(Network {
            upstream: watch::Sender::new(None),
            weather: watch::Sender::new(Weather::Fair),
            cuts: AtomicU64::new(0),
        });
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("an address");
        runtime.spawn(accept(listener, network.clone()));
        Proxy { address, network, _runtime: runtime }
    }

    pub fn to(upstream: SocketAddr) -> Self {
        let proxy = Proxy::start();
        proxy.forward_to(upstream);
        proxy
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the target of new connections.
    pub fn forward_to(&self, upstream: SocketAddr) {
        self.network.upstream.send_replace(Some(upstream));
    }

    pub fn set(&self, weather: Weather) {
        self.network.weather.send_replace(weather);
    }

    pub fn restore(&self) {
        self.set(Weather::Fair);
    }

    /// Connections that were cut or refused so far.
    pub fn cuts(&self) -> u64 {
        self.network.cuts.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, network: Arc<Network>) {
    while let Ok((client, _)) = listener.accept().await {
        tokio::spawn(connect(client, network.clone()));
    }
}

async fn connect(client: TcpStream, network: Arc<Network>) {
    let mut weather = network.weather.subscribe();
    if *weather.borrow() == Weather::Refuse {
        network.cuts.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let _ = weather.wait_for(|weather| *weather != Weather::BlackHole).await; // the sender outlives this task
    let upstream = *network.upstream.borrow();
    let Some(Ok(server)) = (match upstream {
        Some(address) => Some(TcpStream::connect(address).await),
        None => None,
    }) else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true)); // affects only latency
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let (up, down) = (forward(from_client, to_server, &network), forward(from_server, to_client, &network));
    let (mut up, mut down) = (std::pin::pin!(up), std::pin::pin!(down));
    // The end of one direction leaves the other one open; a cut ends both.
    tokio::select! {
        end = &mut up => if end == End::Orderly {
            down.await;
        },
        end = &mut down => if end == End::Orderly {
            up.await;
        },
    }
}

#[derive(Debug, PartialEq)]
enum End {
    /// One side has sent everything.
    Orderly,
    Cut,
}

/// Forwards one direction until its sender ends or the network cuts it.
async fn forward(from: OwnedReadHalf, mut to: OwnedWriteHalf, network: &Network) -> End {
    let (sender, receiver) = mpsc::channel(IN_FLIGHT);
    // Bytes that were read before the end are still written.
    let (read, written) = tokio::join!(receive(from, sender, network), send(receiver, &mut to, network));
    match (read, written) {
        (End::Orderly, End::Orderly) => {
            let _ = to.shutdown().await; // it may have left
            End::Orderly
        }
        _ => End::Cut,
    }
}

async fn receive(mut from: OwnedReadHalf, sender: mpsc::Sender<(Instant, Vec<u8>)>, network: &Network) -> End {
    let mut weather = network.weather.subscribe();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let limit = match *weather.borrow_and_update() {
            Weather::Refuse => return End::Cut,
            // A tenth of a second's worth, so that it trickles.
            Weather::Throttle(rate) => (rate as usize / 10).clamp(1, buffer.len()),
            _ => buffer.len(),
        };
        let count = tokio::select! {
            read = from.read(&mut buffer[..limit]) => match read {
                Ok(0) => return End::Orderly,
                Ok(count) => count,
                Err(_) => return End::Cut,
            },
            () = sender.closed() => return End::Cut,
            Ok(()) = weather.changed() => continue,
        };
        let due = match *weather.borrow() {
            Weather::Delay { latency, jitter } => Instant::now() + latency + jitter.mul_f64(fastrand::f64()),
            _ => Instant::now(),
        };
        if sender.send((due, buffer[..count].to_vec())).await.is_err() {
            return End::Cut;
        }
    }
}

async fn send(mut chunks: mpsc::Receiver<(Instant, Vec<u8>)>, to: &mut OwnedWriteHalf, network: &Network) -> End {
    let mut weather = network.weather.subscribe();
    // Bytes until the cut, if there is one.
    let mut left: Option<u64> = None;
    let (mut is_stream, mut held) = (false, Vec::new());
    while let Some((due, mut bytes)) = chunks.recv().await {
        sleep_until(due).await;
        let Ok(now) = weather.wait_for(|weather| *weather != Weather::BlackHole).await.map(|weather| *weather) else {
            return End::Cut;
        };
        left = match now {
            Weather::CutAfter(bytes) => left.or(Some(bytes)),
            _ => None,
        };
        is_stream |= bytes.starts_with(b"HTTP/1.1 ") && memmem::find(&bytes, b"text/event-stream").is_some();
        if is_stream {
            held.append(&mut bytes);
            if matches!(now, Weather::Buffer(size) if held.len() < size) {
                continue;
            }
            bytes = std::mem::take(&mut held);
        }
        let taken = left.map_or(bytes.len(), |left| bytes.len().min(left as usize));
        if to.write_all(&bytes[..taken]).await.is_err() {
            return End::Cut;
        }
        if let Some(left) = &mut left {
            *left -= taken as u64;
            if *left == 0 {
                network.cuts.fetch_add(1, Ordering::Relaxed);
                return End::Cut;
            }
        }
        if let Weather::Throttle(rate) = now {
            sleep(Duration::from_secs_f64(taken as f64 / rate as f64)).await;
        }
    }
    End::Orderly
}
