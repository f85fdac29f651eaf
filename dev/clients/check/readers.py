"""Follows one topic with all readers of Server-Sent Events at once, while the server is restarted, killed, and ends its
streams. Another process of Footfall writes the events, also while that server is down."""

import json
import signal
import subprocess
import threading
import time
from collections import Counter

from kafka import KafkaProducer

from .application import PATIENCE, Application, wait_until
from .clients import go, go_version, node, npm_version, pypi_version, python
from .proxy import Proxy

READERS = {
    "eventsource (npm)": (lambda: npm_version("eventsource"), lambda: node("read-eventsource.mjs")),
    "eventsource-client (npm)": (lambda: npm_version("eventsource-client"), lambda: node("read-eventsource-client.mjs")),
    "@microsoft/fetch-event-source (npm)": (
        lambda: npm_version("@microsoft/fetch-event-source"),
        lambda: node("read-fetch-event-source.mjs"),
    ),
    "httpx-sse (PyPI)": (lambda: pypi_version("httpx-sse"), lambda: python("read_httpx_sse.py")),
    "sseclient-py (PyPI)": (lambda: pypi_version("sseclient-py"), lambda: python("read_sseclient_py.py")),
    "aiohttp-sse-client (PyPI)": (
        lambda: pypi_version("aiohttp-sse-client"),
        lambda: python("read_aiohttp_sse_client.py"),
    ),
    "launchdarkly/eventsource (Go)": (
        lambda: go_version("github.com/launchdarkly/eventsource"),
        lambda: go("read-launchdarkly"),
    ),
    "r3labs/sse (Go)": (lambda: go_version("github.com/r3labs/sse/v2"), lambda: go("read-r3labs")),
}

HEARTBEAT, POSITION, BYE = b": heartbeat\n", b"event: position\n", b"event: bye\n"

# How often each reader is cut off, at least. r3labs/sse waits longer each time.
CUTS = 5

# How often each reader's stream ends with `bye`, at least.
BYES = 3

# How long after the last event a double would still be noticed, and a client that reconnects for ever.
QUIET = 1.5


class Reader:
    """One of the programs, behind a proxy of its own. It prints partition and offset of each event that it is given."""

    def __init__(self, name, port):
        version, command = READERS[name]
        self.name, self.version = name, version()
        self.proxy = Proxy(port)
        self.places, self.errors = [], []
        url = f"http://{self.proxy.address}/api/v1/stream?action=watched"
        self._process = subprocess.Popen(
            command() + [url], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._follow(self._process.stdout, lambda line: self.places.append(tuple(map(int, line.split()))))
        self._follow(self._process.stderr, self.errors.append)

    @staticmethod
    def _follow(pipe, take):
        def read():
            for line in pipe:
                take(line)

        threading.Thread(target=read, daemon=True).start()

    def frames(self, text):
        return self.proxy.received.count(text)

    def has_ended(self):
        return self._process.poll() is not None

    def stop(self):
        self._process.kill()
        self._process.wait()
        self.proxy.close()

    def mark(self):
        """Marks the start of a check."""
        self.places.clear()
        self.errors.clear()
        self._before = self._counts()

    def since_mark(self):
        """Requests, heartbeats, `position` and `bye` events since the mark."""
        return tuple(now - before for now, before in zip(self._counts(), self._before))

    def _counts(self):
        return (self.proxy.requests, self.frames(HEARTBEAT), self.frames(POSITION), self.frames(BYE))

    def problem(self, expected):
        """What is wrong with what it printed and did since the mark, or `None`."""
        errors = "".join(self.errors[-15:]).strip()
        if self.has_ended():
            return f"it ended with {self._process.returncode}: {errors}"
        if errors:
            return f"it complained: {errors}"
        times, wanted = Counter(self.places), set(expected)
        missing = [place for place in expected if place not in times]
        doubled = [place for place, count in times.items() if count > 1]
        unexpected = [place for place in times if place not in wanted]
        if missing or doubled or unexpected:
            some = ", ".join(
                f"{len(places)} {kind}" + (f" (such as {places[:3]})" if places else "")
                for kind, places in [("missing", missing), ("doubled", doubled), ("unexpected", unexpected)]
            )
            return f"of {len(expected)} events {some}"
        for partition in {place[0] for place in expected}:
            offsets = [place[1] for place in self.places if place[0] == partition]
            if offsets != sorted(offsets):
                return f"not in order: partition {partition} as {offsets}"
        return None


class Writer:
    """Posts events of three users, every second of which the readers' filter hides, until it is stopped."""

    def __init__(self, application):
        self._application = application
        self.places = []
        self.error = None
        self._go, self._stop = threading.Event(), threading.Event()
        self._go.set()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        number = 0
        try:
            while not self._stop.is_set():
                self._go.wait()
                number += 1
                receipts = self._application.post(
                    [
                        {"user": f"user-{number % 3}", "action": "watched", "number": number},
                        {"user": f"user-{number % 3}", "action": "hidden"},
                    ]
                )
                self.places.append((receipts[0]["partition"], receipts[0]["offset"]))
                time.sleep(0.03)
        except Exception as error:
            self.error = error

    def pause(self):
        self._go.clear()

    def resume(self):
        self._go.set()

    def stop(self):
        self._stop.set()
        self._go.set()
        self._thread.join(PATIENCE)
        if self.error:
            raise self.error
        return self.places


def check(names, kafka, report):
    settings = {"feed.heartbeat": "200ms", "feed.retry": "200ms"}
    with Application(kafka, **settings) as server, Application(kafka, server.topic) as other:
        readers = [Reader(name, server.port) for name in names]
        try:
            _Check(readers, server, other, kafka, report).run()
        finally:
            for reader in readers:
                reader.stop()


class _Check:
    def __init__(self, readers, server, other, kafka, report):
        self.readers = readers
        self.server = server  # that the readers follow
        self.other = other  # through which events are written
        self.kafka = kafka
        self.report = report

    def run(self):
        self._wait_for(self._connected, PATIENCE)
        for what, act, allowed_requests in [
            ("every event once, beside heartbeats and position events", self._events_and_pauses, _none_beside_heartbeats),
            ("a record of 900 kB, written by another program", self._large_record, lambda _: 0),
            # The server may take a request before it has ended, and while it starts.
            ("exact resume over a restart of the server", self._restart, lambda _: 3),
            ("exact resume after cuts at any byte", self._cut, _one_for_each_cut),
            ("exact resume after the server was killed", self._kill, lambda _: 3),
            ("a stream that is quiet for 6 s is kept", self._quiet, lambda _: 0),
            ("exact resume after `bye`, again and again", self._end_streams, _one_for_each_bye),
        ]:
            self._try(what, act, allowed_requests)

    def _try(self, what, act, allowed_requests):
        """Writes events while `act` runs, and reports for each reader whether it printed each of them once.
        `allowed_requests` says how many requests a reader may make meanwhile, or why this has tried nothing."""
        for reader in self.readers:
            reader.mark()
        writer = Writer(self.other)
        act(writer)
        expected = writer.stop()
        self._wait_for(lambda reader: len(reader.places) >= len(expected), 15)
        time.sleep(QUIET)
        for reader in self.readers:
            problem = reader.problem(expected)
            allowed = allowed_requests(reader)
            if not problem and isinstance(allowed, str):
                problem = allowed
            elif not problem and reader.since_mark()[0] > allowed:
                problem = f"{reader.since_mark()[0]} requests, where {allowed} would do"
            self.report(reader.name, reader.version, f"{what} ({len(expected)} events)", problem)

    def _wait_for(self, condition, patience):
        """Waits until a condition holds for every reader that still runs. One for which it does not is reported by what
        it then lacks."""
        try:
            wait_until("", lambda: all(reader.has_ended() or condition(reader) for reader in self.readers), patience)
        except TimeoutError:
            pass

    def _connected(self, reader):
        return reader.frames(POSITION) and reader.frames(b"\nid: ")

    def _events_and_pauses(self, writer):
        for _ in range(3):
            time.sleep(0.4)
            writer.pause()
            time.sleep(0.8)
            writer.resume()

    def _large_record(self, writer):
        value = json.dumps({"user": "Ann", "action": "watched", "text": "x" * 900_000}).encode()
        producer = KafkaProducer(bootstrap_servers=self.kafka)
        place = producer.send(self.server.topic, value).get(PATIENCE)
        producer.close()
        writer.places.append((place.partition, place.offset))

    def _restart(self, writer):
        time.sleep(0.5)
        self.server.stop()
        time.sleep(0.5)  # events are written meanwhile
        self.server.start()
        time.sleep(0.5)

    def _cut(self, writer):
        for reader in self.readers:
            reader.proxy.cuts = 0
            reader.proxy.cut_after = range(800, 3000)
        # Open connections last until the restart.
        self.server.stop()
        self.server.start()
        self._wait_for(lambda reader: reader.proxy.cuts >= CUTS, PATIENCE)
        for reader in self.readers:
            reader.proxy.cut_after = None
        time.sleep(0.5)

    def _kill(self, writer):
        time.sleep(0.5)
        writer.pause()
        time.sleep(0.5)  # so that the last bytes of each stream are a heartbeat
        self.server.stop(signal.SIGKILL)
        writer.resume()
        time.sleep(0.5)
        self.server.start(**{"feed.heartbeat": "7s"})
        time.sleep(0.5)

    def _quiet(self, writer):
        writer.pause()
        time.sleep(6)  # more than the 5 s that some clients wait for a byte
        writer.resume()
        time.sleep(0.1)

    def _end_streams(self, writer):
        self.server.stop()
        self.server.start(**{"feed.heartbeat": "200ms", "feed.max_age": "1500ms"})
        self._wait_for(lambda reader: reader.since_mark()[3] >= BYES, PATIENCE)


def _none_beside_heartbeats(reader):
    _, heartbeats, positions, _ = reader.since_mark()
    if heartbeats < 5 or positions < 1:
        return f"not tried: {heartbeats} heartbeats and {positions} position events were sent"
    return 0


def _one_for_each_cut(reader):
    cuts = reader.proxy.cuts
    return cuts + 4 if cuts >= CUTS else f"not tried: {cuts} cuts"


def _one_for_each_bye(reader):
    byes = reader.since_mark()[3]
    return byes + 2 if byes >= BYES else f"not tried: {byes} times bye"
