"""The programs of dev/clients, their versions, and how each is run."""

import json
import re

from .application import ROOT

CLIENTS = ROOT / "dev/clients"
INSTALLED = ROOT / ".cache/interop"


def npm_version(package):
    lock = json.loads((CLIENTS / "node/package-lock.json").read_text())
    return lock["packages"][f"node_modules/{package}"]["version"]


def pypi_version(package):
    return re.search(rf"^{re.escape(package)}==(\S+)$", (CLIENTS / "python/requirements.txt").read_text(), re.M)[1]


def go_version(module):
    return re.search(rf"^\s*{re.escape(module)} v(\S+)", (CLIENTS / "go/go.mod").read_text(), re.M)[1]


def node(program):
    # Node.js looks for packages beside the program, so the program is copied to them, with the module that others share.
    for name in {program, "turns.mjs"}:
        (INSTALLED / "node" / name).write_text((CLIENTS / "node" / name).read_text())
    return ["node", str(INSTALLED / "node" / program)]


def python(program):
    return [str(INSTALLED / "python/bin/python"), str(CLIENTS / "python" / program)]


def shell(program):
    return [str(CLIENTS / "shell" / program)]


def go(program):
    return [str(INSTALLED / "bin" / program)]
