//! A connection whose client has gone without a word, or takes nothing, is closed after a bounded time, and costs little
//! until then.
//!
//! Neither hyper nor Rocket has a timeout for writing, and Rocket shows nobody its sockets. But what is set on a listening
//! socket holds for every connection that it accepts (Linux), so the kernel is told there, and it closes the connection
//! (`TCP_USER_TIMEOUT`, tcp(7)): sent data that is not acknowledged, or a window that stays shut, for that long.

use std::io;
use std::time::Duration;

/// A sign of life is asked for on a connection that was quiet for this long, and that often.
#[cfg(target_os = "linux")]
const ASK: Duration = Duration::from_secs(15);

/// What the kernel keeps for a client beyond what is on the way to it, in bytes, about (`TCP_NOTSENT_LOWAT`, tcp(7)). It
/// would keep megabytes for each client that does not read, and filling those takes the time of the others.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 128 << 10;

/// Bounds how long a client of ours may take nothing, and what is kept for it meanwhile; `port` is the one that this
/// process listens on.
#[cfg(target_os = "linux")]
pub fn bound(port: u16, stalled: Duration) -> io::Result<()> {
    use std::os::fd::BorrowedFd;

    use socket2::{SockRef, TcpKeepalive};

    for entry in std::fs::read_dir("/proc/self/fd")? {
        let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // SAFETY: it is only asked what it is; the one that is ours stays open as long as it is served.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        let socket = SockRef::from(&descriptor);
        let listens = socket.is_listener().is_ok_and(|listens| listens);
        let ours = || socket.local_addr().is_ok_and(|local| local.as_socket().is_some_and(|it| it.port() == port));
        if listens && ours() {
            socket.set_tcp_user_timeout(Some(stalled))?;
            let ask = ASK.min(stalled).max(Duration::from_secs(1));
            socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(ask).with_interval(ask))?;
            return socket.set_tcp_notsent_lowat(UNSENT);
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "the listening socket was not found"))
}

/// Elsewhere it is left to the kernel's own patience.
#[cfg(not(target_os = "linux"))]
pub fn bound(_: u16, _: Duration) -> io::Result<()> {
    Ok(())
}
