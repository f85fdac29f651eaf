"""Runs the checks and prints a table of client, version, what was checked, and the result. Started by dev/interop."""

import argparse
import signal
import sys
import time

from . import first_event, metrics, pages, proxies, readers, senders, tracking
from .application import Kafka, binary

# The clients, and the name by which all of a kind can be chosen.
CLIENTS = {
    **dict.fromkeys(readers.READERS, "readers"),
    **dict.fromkeys(senders.SENDERS, "senders"),
    **dict.fromkeys(proxies.PROXIES, "proxies"),
    **{client: client for client in [pages.CLIENT, first_event.CLIENT, tracking.CLIENT, metrics.CLIENT]},
}
# Events of each sender, unless --events gives another number.
EVENTS = 500


class Table:
    WIDTHS = (36, 9, 76)

    def __init__(self):
        self.passed, self.failed = 0, []
        self.clients = set()  # that have a row
        self._row("client", "version", "what was checked", "result")
        self._row(*("-" * width for width in self.WIDTHS), "------")

    def _row(self, *cells):
        print(*(cell.ljust(width) for cell, width in zip(cells, self.WIDTHS)), cells[-1], flush=True)

    def report(self, client, version, what, problem):
        """Adds a row; `problem` is `None` if what was checked holds."""
        self.clients.add(client)
        if problem is None:
            self.passed += 1
            self._row(client, version, what, "passed")
        else:
            self.failed.append((client, version, what, f"FAILED: {problem}"))
            self._row(*self.failed[-1])

    def summary(self):
        """Shows the rows that failed again, because the table is long."""
        for row in self.failed:
            self._row(*row)
        print(f"{self.passed} passed, {len(self.failed)} failed")


def chosen(words):
    """The clients whose names have one of the words in them, or whose kind is one; without words all."""
    for word in words:
        if not any(word in client or word == kind for client, kind in CLIENTS.items()):
            sys.exit(f"dev/interop: no client {word}; there are {', '.join(CLIENTS)}")
    return [
        client
        for client, kind in CLIENTS.items()
        if not words or any(word in client or word == kind for word in words)
    ]


def main(words, events):
    start = time.monotonic()
    clients = chosen(words)
    if not binary().is_file():
        sys.exit(f"dev/interop: no {binary()}")
    table = Table()

    def attempt(names, check, *arguments):
        names = [name for name in clients if name in names]
        if not names:
            return
        try:
            check(*arguments)
        except Exception as error:
            for name in names:
                table.report(name, "", "all of it", f"{type(error).__name__}: {error}")

    following = [name for name in clients if name in readers.READERS]
    sending = [name for name in clients if name in senders.SENDERS]
    passing_on = [name for name in clients if name in proxies.PROXIES]
    with Kafka() as kafka:
        attempt(following, readers.check, following, kafka.servers, table.report)
        attempt(sending, senders.check, sending, kafka, table.report, events)
        attempt([pages.CLIENT], pages.check, kafka.servers, table.report)
        attempt(passing_on, proxies.check, passing_on, kafka.servers, table.report)
    attempt([first_event.CLIENT], first_event.check, table.report)
    attempt([tracking.CLIENT], tracking.check, table.report)
    attempt([metrics.CLIENT], metrics.check, table.report)

    for client in clients:
        if client not in table.clients:
            table.report(client, "", "all of it", "nothing was checked")
    print(f"\n{time.monotonic() - start:.0f} s")
    table.summary()
    return 1 if table.failed else 0


# So that what was started is stopped.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
arguments = argparse.ArgumentParser(prog="dev/interop")
arguments.add_argument("--events", type=int, default=EVENTS)
arguments.add_argument("words", nargs="*")
given = arguments.parse_args()
sys.exit(main(given.words, given.events))
