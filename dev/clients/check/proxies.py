"""Footfall behind nginx, Caddy and HAProxy, with the configurations of examples/proxy: the same checks over plain HTTP,
over TLS with HTTP/2, and under a path."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from pathlib import Path
from ssl import create_default_context

import aiohttp

from .application import PATIENCE, ROOT, Application, free_port, wait_until
from .clients import INSTALLED

HOST = "feed.example.com"
# How late an event may be that a proxy passes on at once, on a busy machine.
AT_ONCE = 1.0

# Where a client cannot notice that an answer was cut off, which docs/proxy.md says.
LOOKS_COMPLETE = {("Caddy", "http"), ("Caddy", "https"), ("HAProxy", "https")}

EXTRACTED = INSTALLED / "proxies"


def _program(name):
    found = shutil.which(name)
    places = [Path(found)] if found else [EXTRACTED / "usr" / folder / name for folder in ("sbin", "bin")]
    return next((str(place) for place in places if place.is_file()), name)


class Proxy:
    """A proxy with its file from examples/proxy, of which only ports, paths of files and the address of Footfall are
    changed. With a base path, its file is the one in the folder `path`."""

    def __init__(self, name, file, command, application, base=""):
        self.name, self.base = name, base
        self.plain, self.secure = free_port(), free_port()
        self.folder = tempfile.TemporaryDirectory(prefix="footfall-proxy-")
        folder = Path(self.folder.name)
        self.ca = folder / "feed.example.com.crt"
        self._make_certificate(folder)
        text = (ROOT / "examples/proxy" / ("path" if base else "") / file).read_text()
        for old, new in [
            ("127.0.0.1:8000", f"127.0.0.1:{application.port}"),
            ("/etc/ssl/", f"{folder}/"),
            ("listen 80;", f"listen 127.0.0.1:{self.plain};"),
            ("listen 443 ", f"listen 127.0.0.1:{self.secure} "),
            ("bind :80", f"bind 127.0.0.1:{self.plain}"),
            ("bind :443", f"bind 127.0.0.1:{self.secure}"),
        ]:
            text = text.replace(old, new)
        config = folder / file
        config.write_text(text)
        libraries = EXTRACTED / "usr/lib" / f"{os.uname().machine}-linux-gnu"
        environment = os.environ | {
            "XDG_CONFIG_HOME": str(folder),
            "XDG_DATA_HOME": str(folder),
            "LD_LIBRARY_PATH": str(libraries),
        }
        self.log = folder / "log"
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(
                command(self, config), env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _make_certificate(self, folder):
        key = folder / "feed.example.com.key"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
            + ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}", "-keyout", key, "-out", self.ca],
            check=True,
            capture_output=True,
        )
        (folder / "feed.example.com.pem").write_text(self.ca.read_text() + key.read_text())

    def __enter__(self):
        wait_until(f"{self.name} passes requests on", self._is_ready)
        return self

    def _is_ready(self):
        if self._process.poll() is not None:
            raise RuntimeError(f"{self.name} ended with {self._process.returncode}: {self.log.read_text()}")
        status = ["-o", "/dev/null", "-w", "%{http_code}"]
        return all(Side(self, scheme).curl("/readyz", *status).stdout == "200" for scheme in ("http", "https"))

    def __exit__(self, *_):
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.folder.cleanup()


def _nginx(proxy, config):
    folder = proxy.folder.name
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    main = Path(folder) / "main.conf"
    main.write_text(f"events {{}}\nhttp {{ access_log off; {temporary}\ninclude {config}; }}\n")
    settings = f"daemon off; pid {folder}/pid; error_log stderr;"
    return [_program("nginx"), "-p", folder, "-c", main, "-g", settings]


def _caddy(proxy, config):
    options = f"{{\n\tadmin off\n\thttp_port {proxy.plain}\n\thttps_port {proxy.secure}\n\tskip_install_trust\n}}\n"
    config.write_text(options + config.read_text())
    return [_program("caddy"), "run", "--adapter", "caddyfile", "--config", config]


def _haproxy(_, config):
    return [_program("haproxy"), "-db", "-f", config]


PROXIES = {
    "nginx": ("nginx.conf", _nginx, ["-v"]),
    "Caddy": ("Caddyfile", _caddy, ["version"]),
    "HAProxy": ("haproxy.cfg", _haproxy, ["-v"]),
}


def _version(name):
    command = [_program(name.lower()), *PROXIES[name][2]]
    libraries = EXTRACTED / "usr/lib" / f"{os.uname().machine}-linux-gnu"
    environment = os.environ | {"LD_LIBRARY_PATH": str(libraries)}
    printed = subprocess.run(command, capture_output=True, text=True, env=environment)
    words = (printed.stdout + printed.stderr).replace("nginx/", "").split()
    return next((word.split("-")[0] for word in words if word[0].isdigit()), "unknown")


class Side:
    """One of the two ways to reach Footfall through a proxy."""

    def __init__(self, proxy, scheme):
        self.proxy, self.scheme = proxy, scheme
        self.port = proxy.secure if scheme == "https" else proxy.plain
        self.origin = f"{scheme}://{HOST}:{self.port}"
        self.base = proxy.base

    def command(self, path, *more):
        resolve = ["--resolve", f"{HOST}:{self.port}:127.0.0.1", "--noproxy", "*", "--cacert", str(self.proxy.ca)]
        return ["curl", "-sS", "--max-time", str(PATIENCE), *resolve, *more, self.origin + self.base + path]

    def curl(self, path, *more):
        return subprocess.run(self.command(path, *more), capture_output=True, text=True)

    def status(self, path, *more):
        return self.curl(path, "-o", "/dev/null", "-w", "%{http_code} %{http_version}", *more).stdout

    def post(self, action):
        event = json.dumps({"user": "Ann", "action": action})
        return self.status("/api/v1/events", "-H", "Content-Type: application/json", "-d", event)


class Stream:
    """A stream, and when each of its lines arrived."""

    def __init__(self, side, *more):
        command = side.command("/api/v1/stream", "-N", *more)
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.lines = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self._process.stdout:
            self.lines.append((time.monotonic(), line.rstrip("\n")))

    def arrival(self, text, patience=PATIENCE):
        """When a line with this text arrived; `None` if none did."""
        found = []
        try:
            wait_until("", lambda: found.extend(at for at, line in list(self.lines) if text in line) or found, patience)
        except TimeoutError:
            return None
        return found[0]

    def last_id(self):
        return [line for _, line in self.lines if line.startswith("id: ")][-1].removeprefix("id: ")

    def stop(self):
        self._process.kill()
        self._process.wait()


def _pages(side, _):
    page = side.status("/")
    if page != ("200 2" if side.scheme == "https" else "200 1.1"):
        return f"the page was answered {page}"
    if f"{side.origin}{side.base}<" not in side.curl("/").stdout:
        return "the page does not show its own address"
    form = side.status("/events", "-H", f"Origin: {side.origin}", "-d", "user=Ann&action=form")
    foreign = side.status("/events", "-H", "Origin: https://elsewhere.example", "-d", "user=Ann&action=form")
    if (form[:3], foreign[:3]) != ("303", "403"):
        return f"the form was answered {form}, that of another site {foreign}"
    body = Path(side.proxy.folder.name) / "large"
    body.write_text("x" * 1_200_000)
    large = side.status("/api/v1/events", "-H", "Content-Type: application/json", "--data-binary", f"@{body}")
    return None if large.startswith("413") else f"a body of 1.2 MB was answered {large}"


def _streams(side, _):
    stream = Stream(side)
    try:
        if stream.arrival("event: position") is None:
            return "no first event"
        posted = time.monotonic()
        action = str(uuid.uuid4())
        if not side.post(action).startswith("201"):
            return "a post was refused"
        arrived = stream.arrival(action, AT_ONCE * 5)
        if arrived is None or arrived - posted > AT_ONCE:
            return "an event was late" if arrived else "an event did not arrive"
        # Heartbeats come every 200 ms.
        time.sleep(2)
        beats = [at for at, line in stream.lines if line.startswith(":") and at > arrived]
        gaps = [after - before for before, after in zip(beats, beats[1:])]
        if len(beats) < 6 or min(gaps) < 0.05 or max(gaps) > AT_ONCE:
            return f"heartbeats came in clumps: {gaps}"
        wait_until("an id after the event", lambda: stream.last_id())
        last = stream.last_id()
    finally:
        stream.stop()
    missed = str(uuid.uuid4())
    side.post(missed)
    resumed = Stream(side, "-H", f"Last-Event-ID: {last}")
    try:
        if resumed.arrival(missed, 5) is None:
            return "an event from between two connections was lost"
        again = any(action in line for _, line in resumed.lines)
        return "an event came twice" if again else None
    finally:
        resumed.stop()


def _sockets(side, _):
    async def talk():
        context = create_default_context(cafile=side.proxy.ca) if side.scheme == "https" else None
        address = f"{'wss' if context else 'ws'}://127.0.0.1:{side.port}{side.base}/api/v1/ws"
        options = {"headers": {"Host": f"{HOST}:{side.port}"}}
        if context:
            options |= {"ssl": context, "server_hostname": HOST}
        async with aiohttp.ClientSession() as session, session.ws_connect(address, **options) as socket:
            event = {"user": "Ann", "action": str(uuid.uuid4())}
            await socket.send_json({"type": "post", "ref": 7, "event": event})
            seen = set()
            while seen != {"receipt", "event"}:
                message = await asyncio.wait_for(socket.receive_json(), 5)
                if message["type"] == "receipt" or event["action"] in json.dumps(message):
                    seen.add(message["type"])

    try:
        asyncio.run(talk())
    except (aiohttp.ClientError, TimeoutError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _addresses(side, application):
    side.status("/api/v1/events", "-H", "X-Real-IP: 203.0.113.9")

    def addresses():
        lines = [json.loads(line) for line in application.log.read_text().splitlines()]
        return [line["client.ip"] for line in lines if line.get("http.path") == "/api/v1/events" and line["http.method"] == "GET"]

    wait_until("the line of the request", addresses)
    return None if addresses() == ["127.0.0.1"] else f"the clients' addresses were {addresses()}"


def _exports(side, application):
    whole = side.curl("/api/v1/events.ndjson?from=beginning")
    if whole.returncode != 0 or not whole.stdout.endswith("\n"):
        return f"an export ended with {whole.returncode}: {whole.stderr}"
    # One that Footfall cannot end, because it is killed.
    command = side.command("/api/v1/events.ndjson?from=beginning", "--limit-rate", "2M")
    export = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(0.5)
    application.stop(signal.SIGKILL)
    looks_complete = export.wait(2 * PATIENCE) == 0
    known = (side.proxy.name, side.scheme) in LOOKS_COMPLETE
    if looks_complete and not known:
        return "an export that was cut off looked complete"
    return "the client noticed the cut: correct docs/proxy.md" if known and not looks_complete else None


CHECKS = {
    "the page, the form, a body that is too large": _pages,
    "an event at once, heartbeats one by one, exact resume": _streams,
    "a WebSocket in both directions": _sockets,
    "limits apply to the client's own address": _addresses,
    "an export, and one that is cut off": _exports,
}

# Scheme and base path.
WAYS = [
    ("http", "", "HTTP"),
    ("https", "", "HTTPS, HTTP/2"),
    ("https", "/footfall", "under a path"),
]


def check(names, kafka, report):
    for name in names:
        file, command, _ = PROXIES[name]
        version = _version(name)
        settings = {"feed.heartbeat": "200ms", "http.hosts": HOST, "log.format": "json"}
        for scheme, base, how in WAYS:
            # Each with an application of its own, because the last check kills it.
            environment = {"ROCKET_IP_HEADER": "X-Real-IP", "FOOTFALL_BASE_PATH": base}
            with Application(kafka, environment=environment, **settings) as application:
                # More than the kernel's and the proxy's buffers hold of an export.
                for _ in range(100):
                    application.post([{"user": "Ann", "action": "old", "text": "x" * 20_000}] * 20)
                with Proxy(name, file, command, application, base) as proxy:
                    for what, attempt in CHECKS.items():
                        report(name, version, f"{how}: {what}", attempt(Side(proxy, scheme), application))
