"""websockets, over `/api/v1/ws`. It connects again by itself; what was not answered is sent again.
Usage: send_websockets URL SENDER COUNT"""

import asyncio
import json
import sys

from turns import batches
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

# As many as a socket may have in flight.
IN_FLIGHT = 16


async def main(url, sender, count):
    unanswered = {}
    posts = iter(enumerate(batches(sender, count)))
    left = True

    async def send(socket, ref):
        await socket.send(json.dumps({"type": "post", "ref": ref, "events": unanswered[ref]}))

    async for socket in connect(url.replace("http", "ws", 1) + "/api/v1/ws?user=nobody"):
        try:
            for ref in list(unanswered):
                await send(socket, ref)
            while left or unanswered:
                if left and len(unanswered) < IN_FLIGHT:
                    # In a thread: the socket answers pings meanwhile.
                    post = await asyncio.to_thread(next, posts, None)
                    left = post is not None
                    if left:
                        unanswered[post[0]] = post[1]
                        await send(socket, post[0])
                if not unanswered:
                    continue
                answer = json.loads(await socket.recv())
                if answer["type"] != "receipt":
                    continue
                if answer["status"] == 201:
                    del unanswered[answer["ref"]]
                elif answer["status"] in (207, 429, 503, 504):
                    await asyncio.sleep(0.5)
                    await send(socket, answer["ref"])
                else:
                    sys.exit(f"{answer}")
            return
        except ConnectionClosed:
            pass


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
