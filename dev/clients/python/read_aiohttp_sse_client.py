"""aiohttp-sse-client: reconnects by itself, from the last id, when the server ends the stream and answers again at
once. When a connection breaks or cannot be made it raises, so a loop continues from the last id."""

import asyncio
import json
import sys

import aiohttp
from aiohttp_sse_client import client as sse_client


async def main(url):
    # With exactly these letters: the client sets the header under this name, beside one of other letters.
    headers = {}
    # aiohttp ends every request after 5 minutes, and refuses lines of more than twice `read_bufsize`, by default 512 KiB.
    options = {"timeout": aiohttp.ClientTimeout(total=None, sock_read=60), "read_bufsize": 1024 * 1024}
    while True:
        try:
            async with sse_client.EventSource(url, headers=headers, **options) as event_source:
                async for event in event_source:
                    data = json.loads(event.data)
                    if event.type is None:
                        print(data["partition"], data["offset"], flush=True)
                    if event.last_event_id:
                        headers["Last-Event-Id"] = event.last_event_id
        except (ConnectionError, aiohttp.ClientError, asyncio.TimeoutError):
            pass
        await asyncio.sleep(1)


asyncio.run(main(sys.argv[1]))
