"""What the programs here send. Each sends a few events at a time and waits for a line on its input before, so that
dev/interop decides when."""

import sys

TURN = 20


def turns(count):
    """The numbers of the events of each turn."""
    for first in range(0, count, TURN):
        sys.stdin.readline()
        yield range(first, min(first + TURN, count))


def event(sender, number):
    return {"user": f"{sender}-{number % 7}", "action": "Clicked", "number": number}


def batches(sender, count):
    """The events of each turn, as `POST /api/v1/events` takes them. With ids, they can be sent again."""
    for numbers in turns(count):
        yield [{"id": f"{sender}-{number}"} | event(sender, number) for number in numbers]
