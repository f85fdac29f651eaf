//! `footfall healthcheck`: asks the server that has this configuration whether it is alive. For the health check of a
//! container, whose image has no other program.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use footfall::config::Settings;
use rocket::figment::Figment;

use super::{fail, misconfigured};

/// The longest that connecting and the answer may take.
const PATIENCE: Duration = Duration::from_secs(3);

pub fn run(figment: &Figment, settings: &Settings) -> ExitCode {
    let (ip, port) = match (figment.extract_inner("address"), figment.extract_inner("port")) {
        (Ok(_), Ok(0)) => return misconfigured("port: the system chooses it (0); expected a number that is known"),
        (Ok(ip), Ok(port)) => (ip, port),
        (Err(error), _) | (_, Err(error)) => return misconfigured(error),
    };
    let address = SocketAddr::new(reachable(ip), port);
    // The server answers plain HTTP on a port for HTTPS with 400: it is alive, whatever its certificate.
    let expected = if settings.tls.certs.is_some() { "400" } else { "200" };
    match status(address) {
        Ok(status) if status == expected => ExitCode::SUCCESS,
        Ok(status) => fail(format_args!("http://{address}/livez answered {status}; expected {expected}")),
        Err(error) => fail(format_args!("http://{address}/livez: {error}")),
    }
}

/// Returns an address of this machine at which a server that listens on `ip` is reached.
fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// Returns the status of the answer, as text.
fn status(address: SocketAddr) -> io::Result<String> {
    let deadline = Instant::now() + PATIENCE;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    // Of "HTTP/1.1 200 OK".
    let mut start = [0; 12];
    let mut read = 0;
    while read < start.len() {
        // A timeout of zero is an error.
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut start[read..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => read += more,
        }
    }
    Ok(String::from_utf8_lossy(&start[9..]).into_owned())
}
