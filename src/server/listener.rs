//! The listening socket. It comes from one of three places, which decides how it is given up at the end so that no
//! connection is reset:
//!
//! - Footfall has opened it alone: what the kernel has queued is answered, then it is closed.
//! - Footfall has opened it with `SO_REUSEPORT`, and the next process has one of its own: the kernel passes new connections
//!   to that one, what it has queued here is answered, then this one is closed.
//! - A service manager has opened it and keeps it open: Footfall stops accepting, and the next process continues.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use listenfd::ListenFd;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use crate::bounds;

/// Where a listening socket comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Opened,
    /// Other processes may listen on the same port.
    PortShared,
    Inherited,
}

/// A socket with an address on which the server can listen.
pub struct Listener {
    pub(super) socket: Socket,
    pub(super) origin: Origin,
    address: SocketAddr,
}

/// Takes the listening socket that a service manager has opened for this process, if there is one (`LISTEN_FDS` and
/// `LISTEN_PID`, sd_listen_fds(3)), and removes these variables. Call it before there are threads of other languages, which
/// could be reading the environment.
///
/// # Errors
///
/// If there are several sockets, or one that does not listen for TCP connections.
pub fn inherited_socket() -> io::Result<Option<std::net::TcpListener>> {
    let mut sockets = ListenFd::from_env();
    if sockets.len() > 1 {
        let why = format!("expected one socket, not {}", sockets.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let Some(socket) = sockets.take_tcp_listener(0)? else { return Ok(None) };
    // Only some systems can say whether a socket listens.
    #[cfg(target_os = "linux")]
    if !socket2::SockRef::from(&socket).is_listener()? {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the socket does not listen (is it of `Accept=yes`?)"));
    }
    Ok(Some(socket))
}

impl Listener {
    /// Opens a socket with this address; port 0 takes any free port. On Linux, the kernel closes a connection whose client
    /// reads nothing for `stalled`.
    ///
    /// The socket listens at once, so that only one process can have the port; with `share_port` (`SO_REUSEPORT`) it listens
    /// when it starts to serve.
    pub fn bind(address: SocketAddr, share_port: bool, stalled: Duration) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        #[cfg(unix)] // elsewhere it would allow a second server on the same port
        socket.set_reuse_address(true)?;
        if share_port {
            reuse_port(&socket)?;
        }
        socket.bind(&address.into())?;
        if !share_port {
            socket.listen(bounds::BACKLOG)?;
        }
        let origin = if share_port { Origin::PortShared } else { Origin::Opened };
        Listener::prepared(socket, origin, stalled)
    }

    /// Uses a socket from [`inherited_socket`].
    pub fn inherit(socket: std::net::TcpListener, stalled: Duration) -> io::Result<Self> {
        Listener::prepared(socket.into(), Origin::Inherited, stalled)
    }

    fn prepared(socket: Socket, origin: Origin, stalled: Duration) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        prepare(&socket, stalled)?;
        let address = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Listener { socket, origin, address })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether another process may be accepting the connections to this address, or will be.
    pub fn is_shared(&self) -> bool {
        self.origin != Origin::Opened
    }

    /// Returns where the socket comes from, for the log.
    pub fn origin(&self) -> &'static str {
        match self.origin {
            Origin::Opened => "opened",
            Origin::PortShared => "opened, port shared (http.reuse_port)",
            Origin::Inherited => "inherited (LISTEN_FDS)",
        }
    }

    /// Listens, if it does not yet.
    pub(super) fn listen(self) -> io::Result<TcpListener> {
        if self.origin == Origin::PortShared {
            self.socket.listen(bounds::BACKLOG)?;
            // A process that has ended may have left its filter, which would keep connections from this socket or others.
            steering::reset(&self.socket);
        }
        TcpListener::from_std(self.socket.into())
    }
}

#[cfg(unix)]
fn reuse_port(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_port(true)
}

#[cfg(not(unix))]
fn reuse_port(_: &Socket) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "http.reuse_port needs a Unix"))
}

/// Sets options that Linux passes on to every accepted connection: the kernel closes a connection whose client has vanished
/// or reads nothing (`TCP_USER_TIMEOUT`, tcp(7)), and buffers little for it until then.
#[cfg(target_os = "linux")]
fn prepare(socket: &Socket, stalled: Duration) -> io::Result<()> {
    use socket2::TcpKeepalive;

    socket.set_tcp_user_timeout(Some(stalled))?;
    let ask = bounds::KEEP_ALIVE.min(stalled).max(Duration::from_secs(1));
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(ask).with_interval(ask))?;
    socket.set_tcp_notsent_lowat(bounds::UNSENT_BYTES)
}

/// On other systems the kernel's own timeouts apply.
#[cfg(not(target_os = "linux"))]
fn prepare(_: &Socket, _: Duration) -> io::Result<()> {
    Ok(())
}

/// A listening socket that is being given up: it accepts what the kernel has queued.
pub(super) struct Queue {
    socket: std::net::TcpListener,
}

/// A connection from the queue, not yet known to the runtime.
pub(super) type Queued = (std::net::TcpStream, SocketAddr);

impl Queue {
    pub fn new(listener: TcpListener) -> io::Result<Self> {
        Ok(Queue { socket: listener.into_std()? })
    }

    /// Takes the next connection; `None` if there is none now.
    pub fn next(&self) -> io::Result<Option<Queued>> {
        match self.socket.accept() {
            Ok(accepted) => Ok(Some(accepted)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the kernel pass new connections to another socket of the same port, if it can and there is one. Returns the
    /// connections that it has accepted meanwhile.
    pub async fn steer_away(&self) -> Vec<Queued> {
        let mut accepted = Vec::new();
        // A socket's index in its group is unknown, but it cannot be both: a connection of our own shows whether it is 1.
        for index in [1, 0] {
            if let Err(error) = steering::to(&self.socket, index) {
                tracing::debug!(error = %error, "cannot pass new connections to another process");
                break;
            }
            match self.gets_own_connection(&mut accepted).await {
                Some(true) => {}
                Some(false) => break,
                None => {
                    // The kernel chooses among all sockets, which is better than this one alone.
                    steering::reset(&self.socket);
                    break;
                }
            }
        }
        accepted
    }

    /// Connects to the own address, and returns whether this socket gets the connection; `None` if that cannot be found
    /// out. Others go to `accepted`.
    async fn gets_own_connection(&self, accepted: &mut Vec<Queued>) -> Option<bool> {
        let address = self.socket.local_addr().ok()?;
        let address = SocketAddr::new(reachable(address.ip()), address.port());
        let probe = timeout(bounds::PROBE, TcpStream::connect(address)).await.ok()?.ok()?;
        let own = probe.local_addr().ok()?;
        let until = Instant::now() + bounds::PROBE;
        while Instant::now() < until {
            match self.next() {
                Ok(Some((_, from))) if from == own => return Some(true),
                Ok(Some(other)) => accepted.push(other),
                Ok(None) => sleep(bounds::PROBE / 10).await,
                Err(_) => return None, // the caller's next attempt reports it
            }
        }
        Some(false)
    }
}

/// Returns an address of this machine at which a socket that listens on `ip` is reached.
fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// Which socket of a port the kernel passes new connections to (`SO_ATTACH_REUSEPORT_CBPF`, socket(7)).
#[cfg(target_os = "linux")]
mod steering {
    use std::io;
    use std::os::fd::{AsFd, AsRawFd};

    use libc::{c_int, c_void, socklen_t};

    /// Passes them to the socket with this index; the kernel counts the sockets of a port in the order in which they began
    /// to listen. If there is no such socket, it chooses as if there were no filter.
    pub fn to(socket: &impl AsFd, index: u32) -> io::Result<()> {
        // The program of the filter: return `index`.
        let code = (libc::BPF_RET | libc::BPF_K) as u16;
        let mut program = [libc::sock_filter { code, jt: 0, jf: 0, k: index }];
        let filter = libc::sock_fprog { len: 1, filter: program.as_mut_ptr() };
        set(socket, libc::SO_ATTACH_REUSEPORT_CBPF, &filter)
    }

    /// Removes the filter. There may be none; and kernels before 5.3 cannot, where it stays until all sockets are closed.
    pub fn reset(socket: &impl AsFd) {
        let _ = set(socket, libc::SO_DETACH_REUSEPORT_BPF, &(0 as c_int));
    }

    fn set<T>(socket: &impl AsFd, option: c_int, value: &T) -> io::Result<()> {
        let (descriptor, size) = (socket.as_fd().as_raw_fd(), size_of::<T>() as socklen_t);
        // SAFETY: the descriptor is open while `socket` is borrowed, and the kernel reads `size` bytes of `value` and, of a
        // filter, its program, which outlives the call.
        match unsafe {
            libc::setsockopt(descriptor, libc::SOL_SOCKET, option, (&raw const *value).cast::<c_void>(), size)
        } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod steering {
    use std::io;

    pub fn to<S>(_: &S, _: u32) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub fn reset<S>(_: &S) {}
}
