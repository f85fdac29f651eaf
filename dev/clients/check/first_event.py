"""Runs the programs that the empty feed page shows for a first event, exactly as they are there."""

import re
import subprocess
import tempfile
from html import unescape
from pathlib import Path

from .application import Application
from .clients import INSTALLED, pypi_version

CLIENT = "first event"

# The ids of the page's tabs, and how a reader would run each.
PROGRAMS = {
    "curl": ("first.sh", ["sh", "-e"]),
    "javascript": ("first.mjs", ["node"]),
    "python": ("first.py", [str(INSTALLED / "python/bin/python")]),
    "go": ("first.go", ["go", "run"]),
    "segment": ("first.py", [str(INSTALLED / "python/bin/python")]),
}


def check(report):
    with Application() as application:
        page = application.get("/", Accept="text/html").body.decode()
        shown = {found[1]: unescape(re.sub(r"<[^>]*>", "", found[2])) for found in _code(page)}
    report(CLIENT, "", "the tabs of the empty page", None if set(shown) == set(PROGRAMS) else f"they are {list(shown)}")
    for name, program in shown.items():
        version = pypi_version("segment-analytics-python") if name == "segment" else ""
        report(CLIENT, version, f"{name}, as the page shows it", _run(name, program))


def _code(page):
    return re.finditer(r'<pre id="code-(\w+)"[^>]*>(.*?)</pre>', page, re.S)


def _run(name, program):
    file, command = PROGRAMS[name]
    with Application() as application, tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / file
        place.write_text(re.sub(r"http://127\.0\.0\.1:\d+", application.url, program))
        ran = subprocess.run([*command, str(place)], cwd=folder, capture_output=True, text=True, timeout=120)
        if ran.returncode:
            return f"it ended with {ran.returncode}: {ran.stderr[-500:]}"
        events = application.get("/api/v1/events").json()["events"]
        sent = [(event["value"]["user"], event["value"]["action"]) for event in events]
        return None if sent == [("Ann", "login")] else f"the topic has {sent}; it printed {ran.stdout[-500:]}"
