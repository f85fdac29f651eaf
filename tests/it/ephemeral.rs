//! `footfall serve --ephemeral`, the test double for tracking.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::application::{command, remove_settings, signal};
use crate::common::http::{Request, Response};
use crate::common::wait::eventually;
use crate::common::{Application, Broker, Subscription, python};

/// A test double, started as a test of another project starts it. Killed when the test is over.
struct Double {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    address: SocketAddr,
    _folder: TempDir,
}

impl Double {
    #[track_caller]
    fn start() -> Self {
        let folder = TempDir::with_prefix("footfall-").expect("a temporary folder");
        let mut command = command(folder.path());
        // The double takes a port of its own, whatever is configured.
        command.args(["serve", "--ephemeral"]).env("ROCKET_PORT", "1").env("ROCKET_ADDRESS", "0.0.0.0");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the binary can be run");
        let input = child.stdin.take();
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        output.read_line(&mut line).expect("text");
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
        assert_eq!(ready.as_object().map(|members| members.len()), Some(1), "{line}");
        let url = ready["url"].as_str().expect("an address");
        let address = url.strip_prefix("http://").and_then(|address| address.parse().ok());
        let address: SocketAddr = address.unwrap_or_else(|| panic!("{url}"));
        assert_eq!(address.ip().to_string(), "127.0.0.1");
        Double { child, input, output, address, _folder: folder }
    }

    fn request(&self, method: &str, target: &str) -> Request {
        Request::new(self.address, method, target)
    }

    #[track_caller]
    fn post(&self, event: &Value, status: u16) -> Response {
        self.request("POST", "/api/v1/events").json(event).send().expect(status)
    }

    #[track_caller]
    fn list(&self, what: &str) -> Vec<Value> {
        let answer = self.request("GET", &format!("/api/v1/{what}")).send().expect(200).json();
        answer[what].as_array().expect("a list").clone()
    }

    #[track_caller]
    fn forget(&self) {
        assert!(self.request("DELETE", "/api/v1/events").send().expect(204).body.is_empty());
    }

    /// Waits for the end, and returns the exit code and what was printed after the first line.
    #[track_caller]
    fn end(mut self) -> (Option<i32>, String) {
        let status = eventually("it ends", || self.child.try_wait().expect("a child"));
        let mut printed = String::new();
        self.output.read_to_string(&mut printed).expect("text");
        (status.code(), printed)
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_says_where_it_is_when_it_accepts_events() {
    let double = Double::start();
    double.post(&json!({"user": "Ann", "action": "login"}), 201); // not 503
    let events = double.list("events");
    assert_eq!((events.len(), &events[0]["value"]["user"]), (1, &json!("Ann")));
    signal(double.child.id(), "TERM");
    assert_eq!(double.end(), (Some(0), String::new()));
}

#[test]
fn it_ends_with_the_program_that_started_it() {
    let mut double = Double::start();
    drop(double.input.take());
    assert_eq!(double.end(), (Some(0), String::new()));
}

#[test]
fn it_forgets_events_rejects_and_ids() {
    let double = Double::start();
    let event = json!({"id": "once", "user": "Ann", "action": "login"});
    for round in 1..=3 {
        let receipt = double.post(&event, 201);
        assert_eq!(receipt.header("Idempotent-Replayed"), None, "round {round}: the id was forgotten");
        let old = format!("/api/v1/events/{}/{}", receipt.json()["partition"], receipt.json()["offset"]);
        double.request("GET", &old).send().expect(200);
        double.post(&json!({"user": "Ann"}), 422);
        assert_eq!((double.list("events").len(), double.list("rejects").len()), (1, 1), "round {round}");
        double.forget();
        assert_eq!((double.list("events"), double.list("rejects")), (vec![], vec![]), "round {round}");
        double.request("GET", &old).send().expect(404);
        let count = |target: &str, pointer: &str| {
            let answer = double.request("GET", target).send().expect(200).json();
            answer.pointer(pointer).cloned().unwrap_or_else(|| panic!("no {pointer}: {answer}"))
        };
        assert_eq!(count("/api/v1/users/Ann", "/events"), 0, "round {round}");
        assert_eq!(count("/api/v1/stats", "/last_24h/events"), 0, "round {round}");
        assert_eq!(count("/api/v1/topics", "/topics/0/records"), 0, "round {round}");
    }
    double.forget();
    double.forget();
    double.request("DELETE", "/api/v1/events?user=Ann").send().expect(400);
    let put = double.request("PUT", "/api/v1/events").send().expect(405);
    assert_eq!(put.header("Allow"), Some("DELETE, GET, HEAD, POST"));
}

#[test]
fn open_streams_continue_after_events_were_forgotten() {
    let double = Double::start();
    let mut stream = Subscription::open(double.address, "/api/v1/stream?last=10");
    for round in 0..3 {
        double.post(&json!({"user": "Ann", "action": "login", "round": round}), 201);
        assert_eq!(stream.record()["value"]["round"], round);
        double.forget();
        assert_eq!(stream.control("gap").json()["reason"], "topic recreated");
    }
    let mut late = Subscription::open(double.address, "/api/v1/stream?last=10");
    double.post(&json!({"user": "Bob", "action": "login"}), 201);
    assert_eq!((&stream.record()["value"]["user"], &late.record()["value"]["user"]), (&json!("Bob"), &json!("Bob")));
}

#[test]
fn events_that_arrive_meanwhile_are_kept_or_forgotten_whole() {
    let double = Double::start();
    let rounds = std::thread::scope(|scope| {
        let posts = scope.spawn(|| {
            (0..200)
                .filter(|n| {
                    let event = json!({"id": format!("n-{n}"), "user": "Ann", "action": "login"});
                    double.request("POST", "/api/v1/events").json(&event).send().status() == 201
                })
                .count()
        });
        let mut rounds = 0;
        while !posts.is_finished() {
            double.forget();
            rounds += 1;
        }
        assert!(posts.join().expect("no panic") > 0);
        rounds
    });
    assert!(rounds > 0);
    double.forget();
    double.post(&json!({"id": "last", "user": "Ann", "action": "login"}), 201);
    let ids: Vec<Value> = double.list("events").into_iter().map(|event| event["id"].clone()).collect();
    assert_eq!(ids, [json!("last")]);
}

#[test]
fn it_refuses_a_kafka_of_others() {
    let folder = TempDir::with_prefix("footfall-").expect("a temporary folder");
    let mut command = command(folder.path());
    let ran = command.args(["serve", "--ephemeral"]).env("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9").output();
    let ran = ran.expect("the binary can be run");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert_eq!((ran.status.code(), said.lines().count(), ran.stdout.len()), (Some(2), 1, 0), "{said}");
    assert!(said.contains("KAFKA_BOOTSTRAP_SERVERS") && said.contains("--ephemeral"), "{said}");
}

#[test]
fn other_processes_forget_nothing() {
    let app = Application::on(Broker::Embedded).start();
    let answer = app.request("DELETE", "/api/v1/events").send().expect(405);
    assert_eq!(answer.header("Allow"), Some("GET, HEAD, POST"));
}

#[test]
fn the_example_for_pytest_passes() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/tracking/test_tracking.py");
    let mut pytest = python::command();
    pytest.args(["-B", "-m", "pytest", "-q", "-p", "no:cacheprovider"]).arg(example);
    remove_settings(&mut pytest);
    // The plugins of other packages take a second to load.
    pytest.env("FOOTFALL", env!("CARGO_BIN_EXE_footfall")).env("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1");
    let ran = pytest.output().expect("Python can be run");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && said.contains("2 passed"), "{said}\n{}", String::from_utf8_lossy(&ran.stderr));
}
