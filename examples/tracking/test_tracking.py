"""Tests a program's tracking with pytest: `footfall serve --ephemeral` takes its events, and the tests read them.

    pip install pytest && FOOTFALL=path/to/footfall pytest test_tracking.py
"""

import json
import os
import subprocess
import urllib.error
import urllib.request

import pytest


def call(method, url, body=None):
    headers = {"Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=10) as answer:
        text = answer.read()
        return json.loads(text) if text else None


def check_out(collector, user, total):
    """Stands for your program: it does its work, and tracks it."""
    call("POST", f"{collector}/api/v1/events", {"user": user, "action": "checkout", "total": total})


@pytest.fixture(scope="session")
def footfall():
    """The address of a process that serves all tests."""
    command = [os.environ.get("FOOTFALL", "footfall"), "serve", "--ephemeral"]
    # With a pipe as its input it ends with the tests, however they end.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        yield json.loads(process.stdout.readline())["url"]
        process.terminate()


@pytest.fixture
def collector(footfall):
    """The same, without the events of earlier tests."""
    call("DELETE", f"{footfall}/api/v1/events")
    return footfall


def test_a_checkout_is_tracked_once(collector):
    check_out(collector, "Ann", 31.5)
    events = call("GET", f"{collector}/api/v1/events")["events"]
    assert [event["value"]["action"] for event in events] == ["checkout"]
    assert events[0]["value"] == events[0]["value"] | {"user": "Ann", "total": 31.5}


def test_an_event_without_a_user_is_rejected(collector):
    with pytest.raises(urllib.error.HTTPError):
        check_out(collector, "", 31.5)
    [reject] = call("GET", f"{collector}/api/v1/rejects")["rejects"]
    assert (reject["status"], reject["pointer"]) == (422, "/user")
