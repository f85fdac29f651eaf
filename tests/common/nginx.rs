//! nginx in front of an application, with the file of `examples/proxy/path`. If `FOOTFALL_TEST_NGINX` names the program, all
//! applications are under its path, and browsers reach them through it: `dev/interop` runs the tests of the pages so.

use std::net::SocketAddr;
use std::path::Path;
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
    folder: TempDir,
}

impl Nginx {
    /// Starts nginx in front of an application, if this run of the tests wants it.
    #[track_caller]
    pub fn in_front_of(application: SocketAddr) -> Option<Self> {
        let program = program()?;
        // A connection of another test may take the free port first; nginx then ends.
        let started = (0..5).find_map(|_| Nginx::try_start(&program, application));
        Some(started.expect("nginx starts; its messages are above"))
    }

    #[track_caller]
    fn try_start(program: &str, application: SocketAddr) -> Option<Self> {
        let folder = TempDir::with_prefix("footfall-nginx-").expect("a temporary folder");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, configuration(folder.path(), address, application)).expect("a file");
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
        let mut nginx = Nginx { address, child, folder };
        let listens = eventually("nginx listens, or has ended", || {
            let ended = nginx.child.try_wait().expect("a child process").is_some();
            // nginx writes it when it listens.
            (ended || nginx.folder.path().join("pid").exists()).then_some(!ended)
        });
        listens.then_some(nginx)
    }
}

/// The file of `examples/proxy/path` with these addresses and without TLS, in a complete configuration.
fn configuration(folder: &Path, address: SocketAddr, application: SocketAddr) -> String {
    let place = folder.display();
    let site = include_str!("../../examples/proxy/path/nginx.conf");
    let mut text = format!(
        "daemon off; master_process off; pid {place}/pid; error_log stderr;\n\
         events {{}}\n\
         http {{ access_log off;\n"
    );
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        text += &format!("{kind}_temp_path {place}/{kind};\n");
    }
    for line in site.lines().filter(|line| !line.contains("listen 443") && !line.contains("ssl_")) {
        text += &line
            .replace("127.0.0.1:8000", &application.to_string())
            .replace("listen 80;", &format!("listen {address};"));
        text += "\n";
    }
    text + "}\n"
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended already
        let _ = self.child.wait();
    }
}
