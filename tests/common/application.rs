//! The application as a user runs it: the binary, configured by its environment, on a port of its own.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::acl::User;
use super::http::{Request, Response};
use super::kafka::{self, Broker};
use super::nginx;
use super::socket::Socket;
use super::sse::{Frame, Subscription};
use super::topic::Topic;
use super::wait::{PATIENCE, eventually, within};

/// How the application is started.
pub struct Builder {
    servers: Option<String>,
    topic: Topic,
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
    /// Options of `ulimit`, if it may have less than this process.
    limits: Vec<String>,
    /// A listening socket that it inherits, as from systemd.
    inherited: Option<OwnedFd>,
    output: Output,
}

/// Where the application's standard output and standard error go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// To the test.
    Read,
    /// To a device without free space.
    FullDisk,
    /// To a pipe without a reader.
    ClosedPipe,
    /// To a pipe whose reader reads nothing.
    FullPipe,
}

impl Builder {
    fn new(servers: Option<String>, topic: Topic) -> Self {
        Builder {
            servers,
            topic,
            environment: Vec::new(),
            arguments: Vec::new(),
            limits: Vec::new(),
            inherited: None,
            output: Output::Read,
        }
    }

    /// Most files and sockets that it may have open at once (`ulimit -n`).
    pub fn open_files(mut self, most: u32) -> Self {
        self.limits.push(format!("-n {most}"));
        self
    }

    /// Lets it serve on a socket of this process, as systemd does (sd_listen_fds(3)).
    pub fn inherits(mut self, listener: &TcpListener) -> Self {
        self.inherited = Some(listener.try_clone().expect("a descriptor").into());
        self
    }

    /// Most memory that it may allocate (`ulimit -v`); a failed allocation ends it.
    pub fn address_space(mut self, most_kib: usize) -> Self {
        self.limits.push(format!("-v {most_kib}"));
        self
    }

    /// Sets the output of its log. Unless it is `Read`, the log is unknown, and with it the embedded broker's address.
    pub fn output(mut self, output: Output) -> Self {
        self.output = output;
        self
    }

    /// A variable of the application's environment, such as `FOOTFALL_FEED__HEARTBEAT`.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Logs in to Kafka with SASL as this user.
    pub fn login(self, user: &User, password: &str) -> Self {
        self.env("FOOTFALL_KAFKA__SECURITY_PROTOCOL", "sasl_plaintext")
            .env("FOOTFALL_KAFKA__SASL_MECHANISM", "SCRAM-SHA-256")
            .env("FOOTFALL_KAFKA__SASL_USERNAME", user.name())
            .env("FOOTFALL_KAFKA__SASL_PASSWORD", password)
    }

    /// Its command line: without one it serves.
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        self
    }

    /// Uses an existing topic, or one with a given name.
    pub fn topic(mut self, topic: &Topic) -> Self {
        self.topic = topic.borrowed();
        self
    }

    /// Starts it and waits until it accepts events.
    #[track_caller]
    pub fn start(self) -> Application {
        let application = self.start_without_waiting_for_kafka();
        application.wait_until_ready();
        application
    }

    /// Starts it and waits until it listens; Kafka may be unreachable.
    #[track_caller]
    pub fn start_without_waiting_for_kafka(self) -> Application {
        let folder = TempDir::with_prefix("footfall-").expect("a temporary folder");
        let mut before: Vec<String> = self.limits.iter().map(|limit| format!("ulimit {limit} && ")).collect();
        if self.inherited.is_some() {
            before.push(INHERIT.into());
        }
        let mut command = command_after(folder.path(), &before.concat());
        if let Some(socket) = self.inherited {
            command.stdin(socket);
        }
        command.args(&self.arguments);
        command.env("ROCKET_ADDRESS", "127.0.0.1").env("FOOTFALL_LOG__FORMAT", "json");
        // Without its log the port must be known before.
        let port = if self.output == Output::Read { 0 } else { free_port() };
        command.env("ROCKET_PORT", port.to_string());
        command.env("KAFKA_TOPIC", self.topic.name());
        if let Some(servers) = &self.servers {
            command.env("KAFKA_BOOTSTRAP_SERVERS", servers);
        }
        command.env("FOOTFALL_BASE_PATH", nginx::base_path());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let output = || match self.output {
            Output::FullDisk => File::create("/dev/full").expect("a device").into(),
            Output::Read | Output::ClosedPipe | Output::FullPipe => Stdio::piped(),
        };
        let mut child = command.stdout(output()).stderr(output()).spawn().expect("the binary can be run");
        let log = Log::default();
        let mut unread = None;
        match (self.output, child.stdout.take(), child.stderr.take()) {
            (Output::Read, Some(stdout), Some(stderr)) => {
                log.follow("", stdout);
                log.follow("stderr: ", stderr);
            }
            (Output::FullPipe, stdout, stderr) => unread = Some((stdout, stderr)),
            (_, stdout, stderr) => drop((stdout, stderr)),
        }
        let running = Running { child: Mutex::new(child), log, _unread: unread, _folder: folder };
        let address = match port {
            0 => running.wait_until_it_listens(),
            port => running.wait_until_it_listens_at(port),
        };
        if self.servers.is_none() {
            self.topic.reached_at(&running.embedded_broker());
        }
        Application { running, address, topic: self.topic, servers: self.servers }
    }
}

/// What `sh` does so that the binary inherits the standard input as systemd passes sockets on: as descriptor 3.
pub const INHERIT: &str = "exec 3<&0 0</dev/null && export LISTEN_FDS=1 LISTEN_PID=$$ && ";

/// Returns a command for the binary without this process's configuration, in a folder of its own.
pub fn command(folder: &Path) -> Command {
    command_after(folder, "")
}

/// Like [`command`], after these commands of `sh`, each with `&&` at its end.
pub fn command_after(folder: &Path, before: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_footfall"));
    if !before.is_empty() {
        command = Command::new("sh");
        command.args(["-c", &format!("{before}exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_footfall")]);
    }
    remove_settings(&mut command);
    command.env_remove("RUST_LOG").current_dir(folder).stdin(Stdio::null());
    command
}

/// Removes this process's configuration of the application from the environment of a command that starts it.
pub fn remove_settings(command: &mut Command) {
    let ours = |name: &str| ["FOOTFALL_", "ROCKET_", "KAFKA_"].iter().any(|prefix| name.starts_with(prefix));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(ours) {
            command.env_remove(name);
        }
    }
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// A running application. It is killed when the test is over; its log is shown when the test fails.
pub struct Application {
    running: Running,
    pub address: SocketAddr,
    topic: Topic,
    servers: Option<String>,
}

impl Application {
    /// Starts it with a fresh topic, on one of the two brokers.
    pub fn on(broker: Broker) -> Builder {
        match broker {
            Broker::Embedded => Builder::new(None, Topic::in_the_application()),
            Broker::Kafka => Application::at(kafka::shared()),
            Broker::Cluster => Application::at(kafka::shared_cluster()),
        }
    }

    /// Starts it with a fresh topic, on these brokers.
    pub fn at(servers: &str) -> Builder {
        Builder::new(Some(servers.into()), Topic::named_by_chance(servers))
    }

    /// Starts another one on the same topic. Not with the embedded broker.
    pub fn replica(&self) -> Builder {
        let servers = self.servers.clone().expect("a broker that both can reach");
        Builder::new(Some(servers), self.topic.borrowed())
    }

    /// Its topic, as seen by any client of the broker.
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    pub fn request(&self, method: &str, target: &str) -> Request {
        Request::new(self.address, method, target)
    }

    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        self.request("GET", target).send()
    }

    /// Posts JSON to `/api/v1/events`.
    #[track_caller]
    pub fn post(&self, body: &Value) -> Response {
        self.request("POST", "/api/v1/events").json(body).send()
    }

    /// Posts an event that must be accepted, and returns its receipt.
    #[track_caller]
    pub fn accept(&self, event: &Value) -> Value {
        self.post(event).expect(201).json()
    }

    /// Posts that many events of various users, in arrays.
    #[track_caller]
    pub fn post_events(&self, count: usize) {
        let event = |n: usize| json!({"user": format!("user-{}", n % 17), "action": "step", "n": n});
        for batch in (0..count).map(event).collect::<Vec<_>>().chunks(500) {
            self.post(&json!(batch)).expect(201);
        }
    }

    /// Waits until the feed's memory ends where the topic ends.
    #[track_caller]
    pub fn wait_for_the_feed(&self) {
        let position = Frame::position(&self.topic().end());
        eventually("the feed has read the topic", || (self.stream("").next_frame() == position).then_some(()));
    }

    /// A value of `/metrics`, by its name with labels.
    #[track_caller]
    pub fn metric(&self, series: &str) -> Option<f64> {
        let text = self.get("/metrics").expect(200).text().to_owned();
        let line = text.lines().find(|line| line.rsplit_once(' ').is_some_and(|(name, _)| name == series))?;
        line.rsplit_once(' ')?.1.parse().ok()
    }

    /// Opens a stream; the target is behind `/api/v1/stream`.
    #[track_caller]
    pub fn stream(&self, query: &str) -> Subscription {
        Subscription::open(self.address, &format!("/api/v1/stream{query}"))
    }

    /// Opens a WebSocket; the query is appended to `/api/v1/ws`.
    #[track_caller]
    pub fn socket(&self, query: &str) -> Socket {
        Socket::open(self.address, query)
    }

    /// Opens a stream at the cursor of a client that was disconnected.
    #[track_caller]
    pub fn stream_after(&self, last_event_id: &str) -> Subscription {
        Subscription::open_with(self.address, "/api/v1/stream", &[("Last-Event-ID", last_event_id)])
    }

    #[track_caller]
    pub fn wait_until_ready(&self) {
        eventually("the application is ready", || (self.get("/readyz").status() == 200).then_some(()));
    }

    /// The lines of the log so far that are JSON objects.
    pub fn log(&self) -> Vec<Value> {
        self.running.log.json()
    }

    /// Waits for the first line of the log that matches.
    #[track_caller]
    pub fn log_line(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.running.line(what, wanted)
    }

    /// Returns log lines about a panic; there must be none.
    pub fn panics(&self) -> Vec<String> {
        self.running.log.lines().into_iter().filter(|line| line.contains("panicked")).collect()
    }

    pub fn process_id(&self) -> u32 {
        self.running.child().id()
    }

    /// Sends SIGTERM, as an orchestrator does.
    pub fn terminate(&self) {
        signal(self.process_id(), "TERM");
    }

    pub fn is_running(&self) -> bool {
        self.running.exit_status().is_none()
    }

    /// Waits until it has ended.
    #[track_caller]
    pub fn wait_for_exit(&self, limit: Duration) -> ExitStatus {
        within(limit, "the application ends", || self.running.exit_status())
    }

    /// Sends SIGTERM and waits for the end. The topic stays until `self` is dropped.
    #[track_caller]
    pub fn stop(&self) {
        self.terminate();
        let status = self.wait_for_exit(PATIENCE);
        assert!(status.success(), "it ended with {status}");
    }

    /// A crash (SIGKILL).
    pub fn kill(&self) {
        let mut child = self.running.child();
        child.kill().expect("the process can be killed");
        child.wait().expect("a child process");
    }
}

/// Sends a signal by its short name.
pub fn signal(process_id: u32, name: &str) {
    let sent =
        Command::new("sh").args(["-c", &format!("kill -s {name} {process_id}")]).status().expect("sh can be run");
    assert!(sent.success(), "no signal {name} to {process_id}");
}

struct Running {
    child: Mutex<Child>,
    log: Log,
    /// Its outputs, if they are discarded.
    _unread: Option<(Option<ChildStdout>, Option<ChildStderr>)>,
    _folder: TempDir,
}

impl Running {
    #[track_caller]
    fn wait_until_it_listens(&self) -> SocketAddr {
        let line = self.line("the log says that it listens", |line| line["message"] == "listening");
        let address = line["address"].as_str().and_then(|address| address.split_once("://")?.1.parse().ok());
        address.unwrap_or_else(|| panic!("no address in {line}"))
    }

    #[track_caller]
    fn wait_until_it_listens_at(&self, port: u16) -> SocketAddr {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        eventually("it listens", || {
            assert_eq!(self.exit_status(), None, "it ended");
            TcpStream::connect(address).ok()
        });
        address
    }

    /// Reads the embedded broker's address from the log.
    #[track_caller]
    fn embedded_broker(&self) -> String {
        let line = self.line("the log names the embedded broker", |line| {
            line["message"].as_str().is_some_and(|text| text.starts_with("embedded broker"))
        });
        line["kafka.servers"].as_str().unwrap_or_else(|| panic!("no address in {line}")).to_owned()
    }

    #[track_caller]
    fn line(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(what, || {
            // Checked before the log is read, because the last lines may be the expected ones.
            let ended = self.exit_status();
            let found = self.log.json().into_iter().find(|line| wanted(line));
            match (found, ended) {
                (None, Some(status)) => panic!("{what}: it ended with {status}"),
                (found, _) => found,
            }
        })
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn exit_status(&self) -> Option<ExitStatus> {
        self.child().try_wait().expect("a child process")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child().kill(); // it may have ended already
        let _ = self.child().wait();
        if std::thread::panicking() {
            eprintln!("--- the application's log:\n{}\n---", self.log.lines().join("\n"));
        }
    }
}

/// The lines that a process has written.
#[derive(Clone, Default)]
struct Log {
    lines: Arc<Mutex<Vec<String>>>,
}

impl Log {
    fn follow(&self, prefix: &'static str, output: impl Read + Send + 'static) {
        let log = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                log.lines.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{prefix}{line}"));
            }
        });
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn json(&self) -> Vec<Value> {
        self.lines().iter().filter_map(|line| serde_json::from_str(line).ok()).filter(Value::is_object).collect()
    }
}
