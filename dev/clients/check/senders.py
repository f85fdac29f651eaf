"""Sends a CloudEvent with each SDK, in both modes. The connection is cut when the answer is on its way, and the SDK sends
the same event again: it is in Kafka once."""

import subprocess
import uuid

from .application import Application, PATIENCE
from .clients import go, go_version, node, npm_version, pypi_version, python
from .proxy import Proxy

SENDERS = {
    "cloudevents (PyPI)": ("python", lambda: pypi_version("cloudevents"), lambda: python("send_cloudevents.py")),
    "cloudevents (npm)": ("javascript", lambda: npm_version("cloudevents"), lambda: node("send-cloudevents.mjs")),
    "cloudevents/sdk-go (Go)": (
        "go",
        lambda: go_version("github.com/cloudevents/sdk-go/v2"),
        lambda: go("send-cloudevents"),
    ),
}


def check(names, kafka, report):
    with Application(kafka) as application:
        for name in names:
            source, version, command = SENDERS[name]
            for mode in ["binary", "structured"]:
                try:
                    problem = _send(application, command(), f"/interop/{source}", mode)
                except Exception as error:
                    problem = f"{type(error).__name__}: {error}"
                report(name, version(), f"{mode} mode, sent again after the answer was cut off: written once", problem)


def _send(application, command, source, mode):
    id = f"{mode}-{uuid.uuid4()}"
    proxy = Proxy(application.port, cut_answers=1)
    url = f"http://{proxy.address}/api/v1/events"
    done = subprocess.run(command + [url, id, mode], capture_output=True, text=True, timeout=PATIENCE)
    proxy.close()
    if done.returncode != 0:
        return f"it ended with {done.returncode}: {done.stderr.strip()} (answers: {bytes(proxy.received)!r})"
    head = bytes(proxy.sent).partition(b"\r\n\r\n")[0].lower()
    if (b"\nce-id: " in head) != (mode == "binary") or (b"application/cloudevents+json" in head) == (mode == "binary"):
        return f"not tried: the request is not in {mode} mode: {head!r}"
    answers = bytes(proxy.received).lower().split(b"http/1.1 ")[1:]
    if [answer[:3] for answer in answers] != [b"201", b"201"]:
        return f"the answers are {answers!r}"
    if b"idempotent-replayed" in answers[0] or b"idempotent-replayed: true" not in answers[1]:
        return f"the second answer is not the first one again: {answers!r}"
    events = application.insist("GET", "/api/v1/events?from=beginning&limit=1000", 200).json()["events"]
    events = [event for event in events if event["id"] == id]
    stored = [(event["source"], event["type"], event["value"]) for event in events]
    if stored != [(source, "com.example.login", {"user": "Zoë", "action": "login"})]:
        return f"in Kafka is {events!r}"
    return None
