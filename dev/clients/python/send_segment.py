"""Segment's SDK for Python. Usage: send_segment URL SENDER COUNT. Ends when all of its messages were taken."""

import sys

from segment.analytics.client import Client
from turns import turns

url, sender, count = sys.argv[1], sys.argv[2], int(sys.argv[3])

# 100 messages a request, gzip, and as patient as the outages that it meets.
client = Client(
    "write-key", host=url, max_queue_size=count + 1, upload_size=100, gzip=True, max_retries=100, on_error=print
)
for numbers in turns(count):
    for number in numbers:
        client.track(f"{sender}-{number % 7}", "Clicked", {"number": number})
client.shutdown()
