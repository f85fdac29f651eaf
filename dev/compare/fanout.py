"""Fanning out as one would in Python: Starlette, one aiokafka consumer a process, a queue for each client.

KAFKA_BOOTSTRAP_SERVERS=... KAFKA_TOPIC=... uvicorn --workers 1 fanout:app
"""

import asyncio
import json
import os
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

clients = set()
positions = {}


def frame(topic, message):
    positions[message.partition] = message.offset + 1
    cursor = ".".join(f"{partition}-{positions[partition]}" for partition in sorted(positions))
    value = message.value.decode("utf-8")
    key = json.dumps((message.key or b"").decode("utf-8"))
    return (
        f'id: {cursor}\ndata: {{"topic":"{topic}","partition":{message.partition},"offset":{message.offset},'
        f'"timestamp":{message.timestamp},"key":{key},"value":{value}}}\n\n'
    ).encode("utf-8")


async def consume(topic):
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=os.environ["KAFKA_BOOTSTRAP_SERVERS"])
    await consumer.start()
    try:
        async for message in consumer:
            encoded = frame(topic, message)
            for queue in clients:
                queue.put_nowait(encoded)
    finally:
        await consumer.stop()


async def events(queue):
    clients.add(queue)
    try:
        while True:
            parts = [await queue.get()]
            while not queue.empty():
                parts.append(queue.get_nowait())
            yield b"".join(parts)
    finally:
        clients.discard(queue)


async def stream(request):
    return StreamingResponse(events(asyncio.Queue()), media_type="text/event-stream")


@asynccontextmanager
async def lifespan(app):
    task = asyncio.create_task(consume(os.environ["KAFKA_TOPIC"]))
    yield
    task.cancel()


async def ready(request):
    return PlainTextResponse("ok")


app = Starlette(routes=[Route("/stream", stream), Route("/readyz", ready)], lifespan=lifespan)
