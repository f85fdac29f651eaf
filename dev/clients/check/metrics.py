"""Gives /metrics, in the text format of Prometheus, to `promtool check metrics`."""

import shutil
import subprocess

from .application import Application
from .clients import INSTALLED

CLIENT = "promtool"


def check(report):
    promtool = shutil.which("promtool") or str(INSTALLED / "bin/promtool")
    printed = subprocess.run([promtool, "--version"], capture_output=True, text=True, check=True)
    version = (printed.stdout + printed.stderr).split()[2].split("+")[0]
    with Application() as application:
        # Some series exist only after the first request of their kind.
        application.post([{"user": "Ann", "action": "login"}])
        application.get("/")
        answer = application.get("/metrics")
    problem = None
    if not answer.headers["Content-Type"].startswith("text/plain; version=0.0.4"):
        problem = f"not tried: /metrics is {answer.headers['Content-Type']}"
    elif b"\nfootfall_events_total{" not in answer.body:
        problem = f"not tried: /metrics has no series of events: {answer.body!r}"
    else:
        done = subprocess.run([promtool, "check", "metrics"], input=answer.body, capture_output=True)
        if done.returncode != 0 or done.stdout.strip() or done.stderr.strip():
            problem = f"it ended with {done.returncode}: {(done.stdout + done.stderr).decode().strip()}"
    report(CLIENT, version, "check metrics on /metrics", problem)
