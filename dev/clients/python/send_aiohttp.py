"""aiohttp, with aiohttp-retry. Usage: send_aiohttp URL SENDER COUNT"""

import asyncio
import sys

from aiohttp_retry import ExponentialRetry, RetryClient
from turns import batches


async def main(url, sender, count):
    retry = ExponentialRetry(attempts=100, start_timeout=0.2, max_timeout=2, statuses={429})
    async with RetryClient(retry_options=retry, raise_for_status=True) as client:
        for events in batches(sender, count):
            async with client.post(f"{url}/api/v1/events", json=events, headers={"Prefer": "handling=strict"}):
                pass


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
