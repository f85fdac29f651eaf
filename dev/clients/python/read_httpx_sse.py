"""httpx-sse: does not reconnect by itself, so a loop does, from the last id."""

import sys
import time

import httpx
from httpx_sse import connect_sse

headers = {}
retry = 3.0

# httpx gives up after 5 s without a byte; between heartbeats are 15 s.
with httpx.Client(timeout=httpx.Timeout(5, read=60)) as client:
    while True:
        try:
            with connect_sse(client, "GET", sys.argv[1], headers=headers) as event_source:
                for sse in event_source.iter_sse():
                    data = sse.json()
                    if sse.event == "message":
                        print(data["partition"], data["offset"], flush=True)
                    if sse.id:
                        headers["Last-Event-ID"] = sse.id
                    if sse.retry is not None:
                        retry = sse.retry / 1000
        except httpx.TransportError:
            pass
        time.sleep(retry)
