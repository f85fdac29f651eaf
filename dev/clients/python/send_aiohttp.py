"""aiohttp, with aiohttp-retry, which does not retry after exceptions by default. Usage: send_aiohttp URL SENDER COUNT"""

import asyncio
import sys

import aiohttp
from aiohttp_retry import ExponentialRetry, RetryClient
from turns import batches


async def main(url, sender, count):
    failures = {aiohttp.ClientError, asyncio.TimeoutError}
    retry = ExponentialRetry(attempts=100, start_timeout=0.2, max_timeout=2, statuses={429}, exceptions=failures)
    async with RetryClient(retry_options=retry, raise_for_status=True) as client:
        for events in batches(sender, count):
            async with client.post(f"{url}/api/v1/events", json=events, headers={"Prefer": "handling=strict"}):
                pass


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
