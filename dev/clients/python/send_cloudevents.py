"""The CloudEvents SDK for Python, in both modes, over requests. Usage: send_cloudevents URL SENDER COUNT"""

import sys

import requests
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from requests.adapters import HTTPAdapter
from turns import event, turns
from urllib3.util import Retry

url, sender, count = sys.argv[1], sys.argv[2], int(sys.argv[3])

session = requests.Session()
retry = Retry(total=100, backoff_factor=0.2, backoff_max=2, status_forcelist=[429, 502, 503, 504], allowed_methods=None)
session.mount("http://", HTTPAdapter(max_retries=retry))

for numbers in turns(count):
    for number in numbers:
        attributes = {"id": f"{sender}-{number}", "source": "/interop/python", "type": "com.example.click"}
        cloud_event = CloudEvent(attributes, event(sender, number))
        message = to_binary_event(cloud_event) if number % 2 else to_structured_event(cloud_event)
        response = session.post(f"{url}/api/v1/events", data=message.body, headers=message.headers, timeout=30)
        response.raise_for_status()
