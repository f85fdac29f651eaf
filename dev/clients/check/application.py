"""Footfall and Apache Kafka, as processes of their own."""

import json
import os
import random
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 30  # seconds


def wait_until(what, condition, patience=PATIENCE):
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {patience} s still not: {what}")
        time.sleep(0.02)


def free_port():
    """A port below those that Linux gives out by itself, so that a server that is down finds it free again."""
    while True:
        port = random.randrange(30000, 32700)
        try:
            socket.create_server(("127.0.0.1", port)).close()
            return port
        except OSError:
            continue


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)


class Application:
    """The application on a port of its own. Settings are named as in the README: `feed.retry`."""

    def __init__(self, kafka=None, topic=None, environment=None, **settings):
        self.port = free_port()
        self.topic = topic or f"interop-{uuid.uuid4()}"
        self._kafka = kafka
        self._settings = settings
        self._environment = environment or {}
        self._folder = tempfile.TemporaryDirectory(prefix="footfall-")
        self._process = None

    def start(self, wait=True, **settings):
        """Starts it, with other settings where some are given, and waits until it takes events."""
        self._settings.update(settings)
        environment = unconfigured()
        environment |= {"ROCKET_ADDRESS": "127.0.0.1", "ROCKET_PORT": str(self.port), "KAFKA_TOPIC": self.topic}
        if self._kafka:
            environment["KAFKA_BOOTSTRAP_SERVERS"] = self._kafka
        for name, value in self._settings.items():
            environment["FOOTFALL_" + name.replace(".", "__").upper()] = str(value)
        environment |= self._environment
        self.log = Path(self._folder.name) / "log"
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                [binary()], cwd=self._folder.name, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        if wait:
            wait_until("Footfall is ready", self._is_ready)
        else:
            wait_until("Footfall listens", self._listens)
        return self

    def _is_ready(self):
        return self._listens() and self.get("/readyz").status == 200

    def _listens(self):
        if self._process.poll() is not None:
            raise RuntimeError(f"Footfall ended with {self._process.returncode}: {self.log.read_text()}")
        try:
            self.get("/livez")
            return True
        except OSError:
            return False

    def stop(self, how=signal.SIGTERM):
        if self._process and self._process.poll() is None:
            self._process.send_signal(how)
            self._process.wait(PATIENCE)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop(signal.SIGKILL)
        self._folder.cleanup()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def request(self, method, path, body=None, **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, data=body, headers=headers, method=method)
        try:
            with _OPENER.open(request, timeout=PATIENCE) as answer:
                return Answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as answer:
            with answer:
                return Answer(answer.code, answer.headers, answer.read())

    def get(self, path, **headers):
        return self.request("GET", path, **headers)

    def post(self, events):
        """Posts events that must be taken, and gives their receipts. Sends them again while Kafka does not answer, which
        on a busy machine may be."""
        events = [{"id": str(uuid.uuid4())} | event for event in events]
        body = json.dumps(events).encode()
        answer = self.insist("POST", "/api/v1/events", 201, body, Content_Type="application/json")
        return answer.json()["results"]

    def insist(self, method, path, status, body=None, **headers):
        """A request that is sent again as long as the answer says that this may help."""
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = self.request(method, path, body, **headers)
            if answer.status == status:
                return answer
            if answer.status not in (207, 503, 504) or time.monotonic() > deadline:
                raise RuntimeError(f"{method} {path} was answered {answer.status}: {answer.body!r}")
            time.sleep(0.5)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects)


def unconfigured():
    """The environment, without what would configure Footfall."""
    ours = ("FOOTFALL_", "ROCKET_", "KAFKA_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def binary():
    """What FOOTFALL_BINARY names, otherwise the debug build."""
    if given := os.environ.get("FOOTFALL_BINARY"):
        return Path(given).resolve()
    return Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").resolve() / "debug" / "footfall"


class Kafka:
    """One broker of Apache Kafka, or the cluster that KAFKA_BOOTSTRAP_SERVERS names."""

    def __enter__(self):
        self._folder = None
        self.servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
        if not self.servers:
            self._folder = tempfile.mkdtemp(prefix="footfall-kafka-")
            start = ["start", "--dir", self._folder, "--port", "0", "--owner", str(os.getpid())]
            output = subprocess.run([ROOT / "dev/kafka", *start], check=True, capture_output=True, text=True).stdout
            self.servers = output.strip().splitlines()[-1].removeprefix("KAFKA_BOOTSTRAP_SERVERS=")
        return self

    def kill(self):
        """Kills the broker (SIGKILL)."""
        self._do("kill")

    def restart(self):
        """Starts the killed broker, and waits until it answers."""
        self._do("restart")

    def _do(self, command):
        if not self._folder:
            raise RuntimeError("a cluster that KAFKA_BOOTSTRAP_SERVERS names is not killed")
        command = [ROOT / "dev/kafka", command, "1", "--dir", self._folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def __exit__(self, *_):
        if self._folder:
            subprocess.run([ROOT / "dev/kafka", "stop", "--dir", self._folder], check=True)
            subprocess.run(["rm", "-rf", self._folder], check=True)
