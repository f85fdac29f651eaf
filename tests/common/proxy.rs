//! A network that can be disturbed: a proxy for TCP between an application and Kafka, or between a client and an application.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

/// What the network does to every connection, those that are open already among them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Weather {
    Fair,
    /// Every byte arrives so much later, and up to `jitter` more.
    Delay {
        latency: Duration,
        jitter: Duration,
    },
    /// Bytes a second, for each connection and direction.
    Throttle(u64),
    /// A connection is cut when so many bytes more have gone one way, wherever in a message that is.
    CutAfter(u64),
    /// Connections are accepted, and nothing gets through.
    BlackHole,
    /// Connections are closed at once.
    Refuse,
}

/// What a connection has read and not sent on, at most, in chunks.
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
    /// Listens on a port of its own; where to is said later.
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

    /// New connections go there from now on.
    pub fn forward_to(&self, upstream: SocketAddr) {
        self.network.upstream.send_replace(Some(upstream));
    }

    pub fn set(&self, weather: Weather) {
        self.network.weather.send_replace(weather);
    }

    pub fn heal(&self) {
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
    let _ = weather.wait_for(|weather| *weather != Weather::BlackHole).await; // the sender lives as long as we
    let upstream = *network.upstream.borrow();
    let Some(Ok(server)) = (match upstream {
        Some(address) => Some(TcpStream::connect(address).await),
        None => None,
    }) else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true)); // only a matter of speed
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::select! {
        () = forward(from_client, to_server, &network) => {}
        () = forward(from_server, to_client, &network) => {}
    }
}

/// Forwards one direction until either side ends or the network cuts it.
async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, network: &Network) {
    let mut weather = network.weather.subscribe();
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(IN_FLIGHT);
    let read = async {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let limit = match *weather.borrow_and_update() {
                // A tenth of a second's worth, so that it trickles.
                Weather::Throttle(rate) => (rate as usize / 10).clamp(1, buffer.len()),
                _ => buffer.len(),
            };
            let count = tokio::select! {
                read = from.read(&mut buffer[..limit]) => match read {
                    Ok(count @ 1..) => count,
                    _ => return,
                },
                changed = weather.changed() => match changed {
                    Ok(()) if *weather.borrow() != Weather::Refuse => continue,
                    _ => return,
                },
            };
            let due = match *weather.borrow() {
                Weather::Delay { latency, jitter } => {
                    let chance = f64::from(uuid::Uuid::now_v7().as_u128() as u16) / f64::from(u16::MAX);
                    Instant::now() + latency + jitter.mul_f64(chance)
                }
                _ => Instant::now(),
            };
            if sender.send((due, buffer[..count].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let mut weather = network.weather.subscribe();
    let write = async {
        let mut left = None;
        while let Some((due, bytes)) = receiver.recv().await {
            sleep_until(due).await;
            let Ok(now) = weather.wait_for(|weather| *weather != Weather::BlackHole).await.map(|weather| *weather)
            else {
                return;
            };
            let budget = match now {
                Weather::CutAfter(bytes) => Some(*left.get_or_insert(bytes)),
                _ => None,
            };
            if budget.is_none() {
                left = None;
            }
            let taken = budget.map_or(bytes.len(), |budget| bytes.len().min(budget as usize));
            if to.write_all(&bytes[..taken]).await.is_err() {
                return;
            }
            if let Some(budget) = budget {
                left = Some(budget - taken as u64);
                if budget <= bytes.len() as u64 {
                    network.cuts.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            }
            if let Weather::Throttle(rate) = now {
                sleep(Duration::from_secs_f64(taken as f64 / rate as f64)).await;
            }
        }
    };
    // What was read before the end is still written.
    let mut read = std::pin::pin!(read);
    let mut write = std::pin::pin!(write);
    tokio::select! {
        () = &mut read => {}
        () = &mut write => {}
    }
}
