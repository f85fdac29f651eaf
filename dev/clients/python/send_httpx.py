"""httpx, with httpx-retries. Usage: send_httpx URL SENDER COUNT"""

import sys

import httpx
from httpx_retries import Retry, RetryTransport
from turns import batches

url, sender, count = sys.argv[1], sys.argv[2], int(sys.argv[3])

retry = Retry(total=100, allowed_methods=["POST"], backoff_factor=0.2, max_backoff_wait=2)
with httpx.Client(transport=RetryTransport(retry=retry), timeout=30) as client:
    for events in batches(sender, count):
        response = client.post(f"{url}/api/v1/events", json=events, headers={"Prefer": "handling=strict"})
        response.raise_for_status()
