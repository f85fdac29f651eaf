//! The measurements of a run: latencies, and the server's CPU time and memory from `/proc`.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// Microseconds since 1970: the stamp in an event, comparable between the processes of one machine.
pub fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64)
}

/// Latencies in microseconds, to 0.1 % each.
#[derive(Clone)]
pub struct Histogram(hdrhistogram::Histogram<u64>);

impl Default for Histogram {
    fn default() -> Self {
        Histogram(hdrhistogram::Histogram::new(3).expect("three digits are a valid precision"))
    }
}

impl Histogram {
    pub fn record(&mut self, us: u64) {
        self.0 += us;
    }

    pub fn merge(&mut self, other: &Histogram) {
        self.0 += &other.0;
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    pub fn quantile(&self, q: f64) -> u64 {
        self.0.value_at_quantile(q)
    }

    /// Milliseconds: median, 99th percentile, worst.
    pub fn json(&self) -> Value {
        match self.count() {
            0 => json!({"count": 0}),
            count => json!({
                "count": count,
                "p50": ms(self.quantile(0.5)),
                "p99": ms(self.quantile(0.99)),
                "max": ms(self.0.max()),
            }),
        }
    }
}

fn ms(us: u64) -> f64 {
    us as f64 / 1e3
}

/// Rounds to four digits for printing.
pub fn round(value: f64) -> f64 {
    match value.abs() {
        v if v >= 1000.0 => value.round(),
        v if v >= 10.0 => (value * 10.0).round() / 10.0,
        _ => (value * 1e4).round() / 1e4,
    }
}

/// Reads a process's figures from `/proc`.
#[derive(Clone, Copy)]
pub struct Process(pub u32);

impl Process {
    /// CPU seconds so far, of all threads, in user and kernel mode.
    pub fn cpu(self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap_or_default();
        // The name in brackets may hold blanks; what is counted here begins with field 3.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok()).unwrap_or(f64::NAN);
        // USER_HZ is 100 on every architecture that Linux supports today.
        (ticks(11) + ticks(12)) / 100.0
    }

    /// KB resident now.
    pub fn rss(self) -> u64 {
        self.status("VmRSS:")
    }

    /// KB resident at the most.
    pub fn peak(self) -> u64 {
        self.status("VmHWM:")
    }

    pub fn threads(self) -> u64 {
        self.status("Threads:")
    }

    fn status(self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or(0)
    }
}

/// CPU seconds of the server and of this load, from one moment to another.
pub struct CpuClock {
    server: Option<(Process, f64)>,
    own: f64,
}

impl CpuClock {
    pub fn start(server: Option<Process>) -> Self {
        CpuClock { server: server.map(|process| (process, process.cpu())), own: Process(std::process::id()).cpu() }
    }

    pub fn server(&self) -> Option<f64> {
        self.server.map(|(process, before)| process.cpu() - before)
    }

    pub fn own(&self) -> f64 {
        Process(std::process::id()).cpu() - self.own
    }
}
