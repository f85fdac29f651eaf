//! nginx in front of an application, with the file of `examples/proxy/path`. If `FOOTFALL_TEST_NGINX` names the program, all
//! applications are under its path, and browsers reach them through it: `dev/interop` runs the tests of the pages so.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::application::free_port;
use super::wait::eventually;

/// The base path of the file.
const BASE: &str = "/footfall";

fn program() -> Option<String> {
    std::env::var("FOOTFALL_TEST_NGINX").ok()
}

/// The base path of every application in this run of the tests.
pub fn base_path() -> &'static str {
    if program().is_some() { BASE } else { "" }
}

/// An nginx, which ends with the test.
pub struct Nginx {
    pub address: SocketAddr,
    child: Child,
    _folder: TempDir,
}

impl Nginx {
    /// Starts nginx in front of an application, if this run of the tests wants it.
    #[track_caller]
    pub fn in_front_of(application: SocketAddr) -> Option<Self> {
        let program = program()?;
        let folder = TempDir::with_prefix("footfall-nginx-").expect("a temporary folder");
        let place = folder.path().display();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let site: String = include_str!("../../examples/proxy/path/nginx.conf")
            .replace("127.0.0.1:8000", &application.to_string())
            .replace("listen 80;", &format!("listen {address};"))
            .lines()
            .filter(|line| !line.contains("443") && !line.contains("ssl_"))
            .fold(String::new(), |text, line| text + line + "\n");
        let mut text = String::from("daemon off; master_process off; events {}\n");
        writeln!(text, "pid {place}/pid; error_log {place}/errors; http {{ access_log off;").expect("memory");
        for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            write!(text, "{kind}_temp_path {place}/{kind};").expect("memory");
        }
        text += &site;
        text += "}\n";
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, text).expect("a file");
        let child = Command::new(program)
            .arg("-p")
            .arg(folder.path())
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("nginx can be run");
        let nginx = Nginx { address, child, _folder: folder };
        eventually("nginx listens", || std::net::TcpStream::connect(address).ok());
        Some(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended already
        let _ = self.child.wait();
    }
}
