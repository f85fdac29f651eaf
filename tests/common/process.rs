//! Other programs that a test runs. Their output is read as it arrives, and they end with the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::application::signal;
use super::wait::{PATIENCE, within};

/// Runs a program to its end, with this as its standard input.
#[track_caller]
pub fn run(command: &mut Command, input: impl Into<Vec<u8>>) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it can be run");
    let (id, mut stdin, input) = (child.id(), child.stdin.take().expect("its standard input"), input.into());
    std::thread::spawn(move || stdin.write_all(&input)); // it may end before it has read everything
    let (sender, ended) = channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let output = ended.recv_timeout(2 * PATIENCE).unwrap_or_else(|_| {
        signal(id, "KILL");
        panic!("it does not end");
    });
    output.expect("its output")
}

/// A program that runs beside the test.
pub struct Process {
    child: Child,
    lines: Receiver<String>,
    errors: Arc<Mutex<String>>,
}

impl Process {
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it can be run");
        let (sender, lines) = channel();
        let output = BufReader::new(child.stdout.take().expect("its standard output"));
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let errors = Arc::new(Mutex::new(String::new()));
        let (log, mut stderr) = (errors.clone(), child.stderr.take().expect("its standard error"));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stderr.read(&mut buffer) {
                log.lock().unwrap_or_else(PoisonError::into_inner).push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        Process { child, lines, errors }
    }

    /// The next line of its standard output.
    #[track_caller]
    pub fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("no line: {e}; {}", self.errors()))
    }

    #[track_caller]
    pub fn some_lines(&self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.line()).collect()
    }

    /// Returns the lines that have arrived, and the remaining ones if it has ended.
    pub fn lines_so_far(&self) -> Vec<String> {
        self.lines.try_iter().collect()
    }

    /// Returns everything that it writes until it ends.
    #[track_caller]
    pub fn remaining_lines(&self) -> Vec<String> {
        self.lines.iter().collect()
    }

    /// What it wrote to its standard error so far.
    pub fn errors(&self) -> String {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends a signal by its short name.
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        within(limit, "it ends", || self.child.try_wait().expect("a child process"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended already
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- standard error of a program:\n{}---", self.errors());
        }
    }
}
