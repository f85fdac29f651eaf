"""Sends events with each client, all at the same time. Meanwhile an answer of each is lost, the broker is killed and Footfall
restarts: each event is in Kafka once."""

import json
import os
import re
import subprocess
import tempfile
import threading
import time
from collections import Counter, defaultdict
from contextlib import ExitStack
from pathlib import Path

from .application import PATIENCE, ROOT, Application, wait_until
from .clients import INSTALLED, go, go_version, node, npm_version, pypi_version, python, shell
from .proxy import Proxy

# Events of one line that a program reads; turns.py and its like have the same number.
TURN = 20
# Over how many seconds the second half of the events is sent: from before the kill until after the restart.
OUTAGE = 10
# Seconds for the rest after the outages: the SDKs wait longer after each failure. And for each event, on a busy machine.
WITHIN = 120
WITHIN_EACH = 0.1

# With so many events of each sender, the table of the document is written.
FULL = 10_000
DOCUMENT = ROOT / "docs/senders.md"


class Program:
    """A client of dev/clients, which sends a turn's events for each line on its input."""

    def __init__(self, version, command, protocol, retries, target="{proxy}", is_cut=True):
        self.version, self.protocol, self.retries = version, protocol, retries
        self.is_cut = is_cut
        self._command, self._target = command, target

    def start(self, sender, application, kafka, count):
        self.proxy = Proxy(application.port, cut_answers=int(self.is_cut))
        addresses = {
            "proxy": f"http://{self.proxy.address}",
            "footfall": application.url,
            "kafka": f"{kafka.servers}/{application.topic}",
        }
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [*self._command(), self._target.format(**addresses), sender, str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def turn(self, numbers):
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except OSError:
            pass  # it has ended; `finish` says how

    def finish(self, _, deadline):
        """Waits until it has sent everything; returns what went wrong, if anything did."""
        try:
            printed, _ = self._process.communicate(timeout=max(1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return "it has not ended in time"
        self._errors.seek(0)
        if self._process.returncode or printed.strip():
            return f"it ended with {self._process.returncode}: {(printed + self._errors.read()).strip()[-500:]}"
        return None

    def stop(self):
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
        self._errors.close()
        self.proxy.close()


class SyslogNg:
    """syslog-ng with the configuration of docs/api.md, of which only the path of the file and the address are changed."""

    EXTRACTED = INSTALLED / "syslog-ng"
    protocol, retries, is_cut = "NDJSON", "itself, without end", True

    def version(self):
        printed = subprocess.run([self._program(), "--version"], env=self._environment(), capture_output=True, text=True)
        return re.search(r"^syslog-ng \d \((\S+?)\)", printed.stdout, re.M)[1]

    def start(self, sender, application, _, __):
        self.proxy = Proxy(application.port, cut_answers=1)
        self._sender = sender
        self._folder = tempfile.TemporaryDirectory(prefix="footfall-syslog-ng-")
        folder = Path(self._folder.name)
        section = (ROOT / "docs/api.md").read_text().partition("\n### syslog-ng\n")[2]
        text = re.search(r"```text\n(.*?)```", section, re.S)[1]
        for old, new in [("/var/log/shop/", f"{folder}/"), ("127.0.0.1:8000", self.proxy.address)]:
            if old not in text:
                raise RuntimeError(f"the configuration of docs/api.md has no {old}")
            text = text.replace(old, new)
        (folder / "syslog-ng.conf").write_text(text)
        self._lines = open(folder / "events.log", "a")
        command = [self._program(), "--foreground", "--no-caps", f"--cfgfile={folder}/syslog-ng.conf"]
        command += [f"--persist-file={folder}/persist", f"--pidfile={folder}/pid", f"--control={folder}/control"]
        if self.EXTRACTED.is_dir():
            command.append(f"--module-path={self.EXTRACTED}/usr/lib/syslog-ng/3.38")
        self._log = open(folder / "log", "w+")
        self._process = subprocess.Popen(
            command, env=self._environment(), stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
        )

    def _program(self):
        return str(self.EXTRACTED / "usr/sbin/syslog-ng") if self.EXTRACTED.is_dir() else "syslog-ng"

    def _environment(self):
        machine = f"{os.uname().machine}-linux-gnu"
        folders = [self.EXTRACTED / folder for folder in ("usr/lib/syslog-ng", f"usr/lib/{machine}", f"lib/{machine}")]
        return os.environ | {"LD_LIBRARY_PATH": ":".join(map(str, folders))}

    def turn(self, numbers):
        for number in numbers:
            event = {"user": f"{self._sender}-{number % 7}", "action": "Clicked", "number": number}
            self._lines.write(json.dumps(event) + "\n")
        self._lines.flush()

    def finish(self, has_all, deadline):
        # If time runs out, the count says what is missing.
        while self._process.poll() is None and time.monotonic() < deadline and not has_all():
            time.sleep(1)
        if self._process.poll() is None:
            return None
        self._log.seek(0)
        return f"it ended with {self._process.returncode}: {self._log.read()[-500:]}"

    def stop(self):
        self._process.kill()
        self._process.wait()
        self._lines.close()
        self._log.close()
        self._folder.cleanup()
        self.proxy.close()


def _pypi(package, program, *rest, **more):
    return Program(lambda: pypi_version(package), lambda: python(program), *rest, **more)


def _npm(package, program, *rest):
    return Program(lambda: npm_version(package), lambda: node(program), *rest)


def _go(module, program, *rest):
    return Program(lambda: go_version(module), lambda: go(program), *rest)


def _curl_version():
    return subprocess.run(["curl", "--version"], capture_output=True, text=True).stdout.split()[1]


# What is sent beside its name in the table: the protocol, and what sends again.
SENDERS = {
    "segment-analytics-python (PyPI)": _pypi("segment-analytics-python", "send_segment.py", "Segment", "itself, 100 times"),
    "@segment/analytics-node (npm)": _npm("@segment/analytics-node", "send-segment.mjs", "Segment", "itself, 100 times"),
    "segmentio/analytics-go (Go)": _go(
        "gopkg.in/segmentio/analytics-go.v3", "send-segment", "Segment", "itself, 10 times after 3 s each"
    ),
    "rudder-sdk-python (PyPI)": _pypi("rudder-sdk-python", "send_rudderstack.py", "Segment", "itself, 100 times"),
    "cloudevents (PyPI)": _pypi("cloudevents", "send_cloudevents.py", "CloudEvents", "requests with urllib3's `Retry`"),
    "cloudevents (npm)": _npm("cloudevents", "send-cloudevents.mjs", "CloudEvents", "the program: no receipt, send again"),
    "cloudevents/sdk-go (Go)": _go(
        "github.com/cloudevents/sdk-go/v2", "send-cloudevents", "CloudEvents", "itself, with its option"
    ),
    "requests (PyPI)": _pypi("requests", "send_requests.py", "JSON arrays", "urllib3's `Retry`"),
    "httpx (PyPI)": _pypi("httpx", "send_httpx.py", "JSON arrays", "httpx-retries"),
    "aiohttp (PyPI)": _pypi("aiohttp", "send_aiohttp.py", "JSON arrays", "aiohttp-retry"),
    "axios (npm)": _npm("axios", "send-axios.mjs", "JSON arrays", "axios-retry"),
    "got (npm)": _npm("got", "send-got.mjs", "JSON arrays", "itself, with its option"),
    "undici (npm)": _npm("undici", "send-undici.mjs", "JSON arrays", "its `RetryAgent`"),
    "go-retryablehttp (Go)": _go("github.com/hashicorp/go-retryablehttp", "send-retryablehttp", "JSON arrays", "itself"),
    "curl (Debian)": Program(_curl_version, lambda: shell("send-curl.sh"), "NDJSON", "itself, with `--retry`"),
    "syslog-ng (Debian)": SyslogNg(),
    "websockets (PyPI)": _pypi(
        "websockets",
        "send_websockets.py",
        "WebSocket",
        "it reconnects; the program sends again what has no receipt",
        target="{footfall}",
        is_cut=False,
    ),
    "kafka-python (PyPI)": _pypi(
        "kafka-python", "send_kafka.py", "Kafka, into the topic itself", "itself", target="{kafka}", is_cut=False
    ),
}


def check(names, kafka, report, count):
    # The broker takes a moment to be itself again; requests meanwhile are the point.
    with Application(kafka.servers, **{"ingest.deadline": "2s"}) as application, ExitStack() as stack:
        runs = {}
        for name in names:
            runs[name] = SENDERS[name]
            runs[name].start(_slug(name), application, kafka, count)
            stack.callback(runs[name].stop)
        turns = [range(first, min(first + TURN, count)) for first in range(0, count, TURN)]
        before, meanwhile = turns[: len(turns) // 2], turns[len(turns) // 2 :]
        for numbers in before:
            for run in runs.values():
                run.turn(numbers)
        for name in names:
            wait_until(f"an event of {name}", lambda: _has_written(application, name))
        pacing = threading.Thread(target=_hand_out, args=(meanwhile, list(runs.values())), daemon=True)
        pacing.start()
        time.sleep(0.5)
        kafka.kill()
        time.sleep(1)
        kafka.restart()
        application.stop()
        time.sleep(1)
        application.start()
        pacing.join()
        deadline = time.monotonic() + WITHIN + count * WITHIN_EACH
        problems = {}
        # syslog-ng does not end by itself, so the others end first.
        for name in sorted(names, key=lambda name: isinstance(runs[name], SyslogNg)):
            problems[name] = runs[name].finish(lambda: len(_written(application)[_slug(name)]) >= count, deadline)
        written = _written(application)
        rows, results = [], []
        for name in names:
            run, records = runs[name], written[_slug(name)]
            times = Counter(number for number, _ in records)
            lost, twice = count - len(times), sum(1 for each in times.values() if each > 1)
            what = f"{count} events, {'an answer lost, ' if run.is_cut else ''}the broker killed, Footfall restarted"
            problem = problems[name] or _wrong(name, run, records)
            if lost or twice:
                problem = f"{lost} lost, {twice} twice. {problem or ''}"
            rows.append((name, run.version(), run.protocol, run.retries, count, lost, twice))
            results.append((name, run.version(), what, problem))
        if count >= FULL and len(rows) == len(SENDERS):
            _write_table(rows)
        for row, (*result, problem) in zip(rows, results):
            report(*result, problem or _undocumented(row))


def _slug(name):
    return re.sub(r"[^a-z]+", "-", name.lower()).strip("-")


def _hand_out(turns, runs):
    for numbers in turns:
        for run in runs:
            run.turn(numbers)
        time.sleep(OUTAGE / len(turns))


def _has_written(application, name):
    answer = application.get(f"/api/v1/events?from=beginning&limit=1&user={_slug(name)}-0")
    return b'"offset"' in answer.body


def _written(application):
    """The numbers of each sender's events in the topic, each with its record."""
    lines = application.insist("GET", "/api/v1/events.ndjson?from=beginning", 200).body.decode().splitlines()
    written = defaultdict(list)
    for line in lines:
        record = json.loads(line)
        value = record["value"]
        sender, _, part = value["user"].rpartition("-")
        # syslog-ng writes numbers as text.
        number = int(value.get("properties", value)["number"])
        if number % 7 != int(part) or value["action"] != "Clicked":
            raise RuntimeError(f"not what was sent: {line}")
        written[sender].append((number, record))
    return written


def _wrong(name, run, records):
    """What is wrong with a client's requests or its records, beside their number."""
    sent, received = bytes(run.proxy.sent).lower(), bytes(run.proxy.received)
    if run.is_cut:
        if run.proxy.to_cut:
            return "not tried: no answer was lost"
        if b"HTTP/1.1 503 " not in received and b"HTTP/1.1 504 " not in received:
            return "not tried: no request came while the broker was down"
    if run.protocol == "CloudEvents":
        if b"\nce-id: " not in sent or b"application/cloudevents+json" not in sent:
            return "not tried: it did not send in both modes"
        if b"idempotent-replayed: true" not in received.lower():
            return "the event whose answer was lost was not recognised"
        stored = {(record["source"].rpartition("/")[0], record["type"]) for _, record in records}
        if stored != {("/interop", "com.example.click")}:
            return f"source and type in Kafka are {stored}"
    if run.protocol == "Segment" and {record["value"]["type"] for _, record in records} != {"track"}:
        return "not all are of the type track"
    return None


def _undocumented(row):
    """A row of the document must be there for this version; Debian's differ between machines."""
    cells = _cells(row)
    if "(Debian)" in row[0] or cells[: cells.index(row[3])] in DOCUMENT.read_text():
        return None
    return f"{DOCUMENT.name} is of another version: dev/interop --events 10000 senders"


def _cells(row):
    return f"| {' | '.join(f'{cell:,}' if isinstance(cell, int) else cell for cell in row)} |"


def _write_table(rows):
    """Writes the table of the document."""
    head = ["client", "version", "protocol", "what sends again", "sent", "lost", "twice"]
    table = "\n".join([f"| {' | '.join(head)} |", "|---|---|---|---|--:|--:|--:|", *map(_cells, rows)])
    text = DOCUMENT.read_text()
    between = re.compile(r"(<!-- generated: senders -->\n).*?(<!-- end -->)", re.S)
    DOCUMENT.write_text(between.sub(lambda found: f"{found[1]}{table}\n{found[2]}", text))
