"""Runs the example that tests a page's tracking with Playwright, in the Chromium of this system."""

import shutil
import subprocess

from .application import ROOT, binary, unconfigured
from .clients import INSTALLED, npm_version

CLIENT = "playwright-core (npm)"
EXAMPLE = ROOT / "examples/tracking/tracking.test.mjs"
CHROMIUM = ["chromium", "chromium-browser", "google-chrome"]


def check(report):
    browser = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if not browser:
        raise FileNotFoundError(f"none of {', '.join(CHROMIUM)} is installed")
    # Node.js looks for packages beside the program, so the program is copied to them.
    copy = INSTALLED / "node" / EXAMPLE.name
    copy.write_text(EXAMPLE.read_text())
    environment = unconfigured() | {"FOOTFALL": str(binary()), "CHROMIUM": browser}
    command = ["node", "--test", "--test-reporter=tap", str(copy)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    passed = ran.returncode == 0 and "# pass 2" in ran.stdout
    problem = None if passed else f"it ended with {ran.returncode}: {ran.stdout[-1000:]}"
    report(CLIENT, npm_version("playwright-core"), "examples/tracking: what a page sends, read by its test", problem)
