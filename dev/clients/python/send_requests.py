"""requests, with urllib3's retries. Usage: send_requests URL SENDER COUNT"""

import sys

import requests
from requests.adapters import HTTPAdapter
from turns import batches
from urllib3.util import Retry

url, sender, count = sys.argv[1], sys.argv[2], int(sys.argv[3])

session = requests.Session()
retry = Retry(total=100, backoff_factor=0.2, backoff_max=2, status_forcelist=[429, 502, 503, 504], allowed_methods=None)
session.mount("http://", HTTPAdapter(max_retries=retry))

for events in batches(sender, count):
    response = session.post(
        f"{url}/api/v1/events", json=events, headers={"Prefer": "handling=strict"}, timeout=30
    )
    response.raise_for_status()
