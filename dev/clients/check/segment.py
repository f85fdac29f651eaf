"""Sends messages with Segment's SDKs while the broker is killed and Footfall restarts: each is in Kafka once."""

import json
import subprocess
import time
from collections import Counter

from .application import Application
from .clients import node, npm_version, pypi_version, python

SDKS = {
    "segment-analytics-python (PyPI)": (
        lambda: pypi_version("segment-analytics-python"),
        lambda: python("send_segment.py"),
    ),
    "@segment/analytics-node (npm)": (
        lambda: npm_version("@segment/analytics-node"),
        lambda: node("send-segment.mjs"),
    ),
}

COUNT = 10_000
# For all of an SDK's messages, with the outages. The SDKs wait longer after each failure.
WITHIN = 300


def check(names, kafka, report):
    for name in names:
        version, command = SDKS[name]
        # The broker takes a moment to be itself again; requests meanwhile are the point.
        with Application(kafka.servers, **{"ingest.deadline": "2s"}) as application:
            sending = subprocess.Popen(
                command() + [application.url, str(COUNT)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            try:
                _wait_for_some(application)
                kafka.kill_and_restart()
                application.stop()
                time.sleep(1)
                application.start()
                output, _ = sending.communicate(timeout=WITHIN)
                problem = f"it printed {output.strip()[-500:]}" if sending.returncode or output.strip() else None
            except subprocess.TimeoutExpired:
                sending.kill()
                problem = f"it has not ended after {WITHIN} s"
            problem = problem or _missing_or_doubled(application)
        report(name, version(), f"{COUNT} messages, the broker killed and Footfall restarted meanwhile", problem)


def _wait_for_some(application):
    deadline = time.monotonic() + 30
    while b'"offset"' not in application.get("/api/v1/events?from=beginning&limit=1").body:
        if time.monotonic() > deadline:
            raise TimeoutError("no message arrived")
        time.sleep(0.01)


def _missing_or_doubled(application):
    lines = application.insist("GET", "/api/v1/events.ndjson?from=beginning", 200).body.decode().splitlines()
    values = [json.loads(line)["value"] for line in lines]
    times = Counter(value["properties"]["number"] for value in values)
    missing = [number for number in range(COUNT) if number not in times]
    doubled = [number for number, count in times.items() if count > 1]
    wrong = [value for value in values if (value["action"], value["type"]) != ("Clicked", "track")]
    if missing or doubled or wrong:
        return f"{len(missing)} missing (such as {missing[:3]}), {len(doubled)} doubled, {len(wrong)} wrong"
    return None
