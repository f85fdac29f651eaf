//! Brokers for tests: the embedded one, and Apache Kafka started by `dev/kafka`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use super::application::signal;
use super::proxy::Proxy;

/// The broker that a test's application uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broker {
    /// The embedded broker.
    Embedded,
    /// The Apache Kafka that all tests share; each test has its own topic there.
    Kafka,
    /// The same with three brokers; topics are replicated to all of them.
    Cluster,
}

/// An Apache Kafka that belongs to one test, which may kill it.
pub struct Kafka {
    directory: PathBuf,
    servers: String,
    _temporary: TempDir,
}

impl Kafka {
    pub fn start() -> Self {
        Kafka::start_brokers(1)
    }

    pub fn start_brokers(count: u32) -> Self {
        let temporary = TempDir::with_prefix("footfall-kafka-").expect("a temporary folder");
        let directory = temporary.path().to_owned();
        let servers = start(&directory, count);
        Kafka { directory, servers, _temporary: temporary }
    }

    /// Starts one that clients reach through the proxy if they start there; others do not notice it.
    pub fn start_behind(proxy: &Proxy) -> Self {
        let (kafka, upstream) = Kafka::start_advertising(proxy.address().port());
        proxy.forward_to(upstream);
        kafka
    }

    /// Starts one that also listens at the returned address, and that directs clients from there to this port.
    pub fn start_advertising(port: u16) -> (Self, SocketAddr) {
        let temporary = TempDir::with_prefix("footfall-kafka-").expect("a temporary folder");
        let directory = temporary.path().to_owned();
        let (owner, port) = (std::process::id().to_string(), port.to_string());
        let printed = run(&directory, &["start", "--port", "0", "--advertise", &port, "--owner", &owner]);
        let upstream = printed.lines().find_map(|line| line.strip_prefix(&format!("from port {port} to ")));
        let upstream = upstream.and_then(|address| address.parse().ok());
        let upstream = upstream.unwrap_or_else(|| panic!("no address in {printed:?}"));
        (Kafka { servers: address_in(&printed), directory, _temporary: temporary }, upstream)
    }

    /// Starts one whose files cannot grow beyond this many KiB, like a full disk, until it is restarted.
    pub fn start_with_files_of(kib: u32) -> Self {
        let temporary = TempDir::with_prefix("footfall-kafka-").expect("a temporary folder");
        let (directory, owner) = (temporary.path().to_owned(), std::process::id().to_string());
        let mut limited = Command::new("bash");
        limited.args(["-c", &format!("ulimit -f {kib} && exec \"$0\" \"$@\"")]).arg(script());
        let printed =
            printed_by(limited.arg("start").arg("--dir").arg(&directory).args(["--port", "0", "--owner", &owner]));
        Kafka { servers: address_in(&printed), directory, _temporary: temporary }
    }

    /// Starts one that also listens for clients that log in and have ACLs; returns that address.
    pub fn start_with_acls() -> (Self, String) {
        let temporary = TempDir::with_prefix("footfall-kafka-").expect("a temporary folder");
        let (directory, owner) = (temporary.path().to_owned(), std::process::id().to_string());
        let printed = run(&directory, &["start", "--port", "0", "--acl", "--owner", &owner]);
        let secured = printed.lines().find_map(|line| line.strip_prefix("with SCRAM-SHA-256: "));
        let secured = secured.unwrap_or_else(|| panic!("no address in {printed:?}")).to_owned();
        (Kafka { servers: address_in(&printed), directory, _temporary: temporary }, secured)
    }

    /// Returns the broker that is the cluster's active controller.
    pub fn controller(&self) -> u32 {
        let status = tool(&self.servers, &["metadata-quorum", "describe", "--status"]);
        let leader = status.lines().find_map(|line| line.strip_prefix("LeaderId:")?.trim().parse().ok());
        leader.unwrap_or_else(|| panic!("no controller in {status}"))
    }

    /// Bootstrap servers, `host:port` with commas.
    pub fn servers(&self) -> &str {
        &self.servers
    }

    /// Kills a broker, counted from 1.
    pub fn kill(&self, broker: u32) {
        run(&self.directory, &["kill", &broker.to_string()]);
    }

    /// Starts a killed broker again and waits until it answers.
    pub fn restart(&self, broker: u32) {
        run(&self.directory, &["restart", &broker.to_string()]);
    }

    /// Pauses a broker's process, with its connections open, until the value is dropped.
    pub fn freeze(&self, broker: usize) -> Frozen {
        let status = run(&self.directory, &["status"]);
        let line = status.lines().nth(broker - 1).unwrap_or_default();
        let process = line.split("(process ").nth(1).and_then(|rest| rest.split(')').next()?.parse().ok());
        let process = process.unwrap_or_else(|| panic!("no process in {status}"));
        signal(process, "STOP");
        Frozen(process)
    }
}

/// A paused broker.
pub struct Frozen(u32);

impl Drop for Frozen {
    fn drop(&mut self) {
        signal(self.0, "CONT");
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        let stopped = dev_kafka(&self.directory, &["stop"]).output().expect("dev/kafka can be run");
        if !stopped.status.success() && !std::thread::panicking() {
            panic!("{}", String::from_utf8_lossy(&stopped.stderr));
        }
    }
}

/// Returns the bootstrap servers of the Apache Kafka that all tests share: the one of `dev/test`, the one in
/// KAFKA_BOOTSTRAP_SERVERS, or one that this process starts and that ends with it.
pub fn shared() -> &'static str {
    static SHARED: OnceLock<String> = OnceLock::new();
    SHARED.get_or_init(|| {
        given(&["FOOTFALL_TEST_KAFKA", "KAFKA_BOOTSTRAP_SERVERS"]).unwrap_or_else(|| start_for_this_process(1))
    })
}

/// The same with three brokers.
pub fn shared_cluster() -> &'static str {
    static SHARED: OnceLock<String> = OnceLock::new();
    SHARED.get_or_init(|| given(&["FOOTFALL_TEST_CLUSTER"]).unwrap_or_else(|| start_for_this_process(3)))
}

/// Returns the output of one of Kafka's tools.
#[track_caller]
pub fn tool(servers: &str, arguments: &[&str]) -> String {
    let (name, rest) = arguments.split_first().expect("a tool's name");
    printed_by(Command::new(script()).args(["tool", name, "--bootstrap-server", servers]).args(rest))
}

/// Returns the lines that Kafka's ConsoleConsumer prints of a topic, with the headers of each record.
pub fn console_consumer(servers: &str, topic: &str) -> Vec<String> {
    let output = Command::new(script())
        .args(["tool", "console-consumer", "--bootstrap-server", servers, "--topic", topic, "--from-beginning"])
        .args(["--timeout-ms", "10000", "--formatter-property", "print.headers=true"])
        .output()
        .expect("dev/kafka can be run");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().filter(|line| line.contains("ce_id:")).map(str::to_owned).collect()
}

fn given(variables: &[&str]) -> Option<String> {
    variables.iter().find_map(|name| std::env::var(name).ok().filter(|servers| !servers.is_empty()))
}

/// `--owner` ends it with this process; statics are not dropped, so its folder stays in the system's temporary one.
fn start_for_this_process(brokers: u32) -> String {
    let directory = TempDir::with_prefix("footfall-kafka-").expect("a temporary folder").keep();
    start(&directory, brokers)
}

fn start(directory: &Path, brokers: u32) -> String {
    let owner = std::process::id().to_string();
    let printed = run(directory, &["start", "--port", "0", "--brokers", &brokers.to_string(), "--owner", &owner]);
    address_in(&printed)
}

fn address_in(printed: &str) -> String {
    let servers = printed.lines().last().and_then(|line| line.strip_prefix("KAFKA_BOOTSTRAP_SERVERS="));
    servers.unwrap_or_else(|| panic!("no address in {printed:?}")).to_owned()
}

#[track_caller]
fn run(directory: &Path, arguments: &[&str]) -> String {
    printed_by(&mut dev_kafka(directory, arguments))
}

#[track_caller]
fn printed_by(command: &mut Command) -> String {
    let output = command.output().expect("dev/kafka can be run");
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", shown(&output.stdout), shown(&output.stderr));
    shown(&output.stdout)
}

fn dev_kafka(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(script());
    // The folder precedes the operands: everything after a tool's name belongs to the tool.
    command.arg(arguments[0]).arg("--dir").arg(directory).args(&arguments[1..]);
    command
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dev/kafka")
}
