"""The CloudEvents SDK for Python, over requests. Usage: send_cloudevents URL ID binary|structured"""

import sys

import requests
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

url, id, mode = sys.argv[1:]

event = CloudEvent(
    {"id": id, "source": "/interop/python", "type": "com.example.login"},
    {"user": "Zoë", "action": "login"},
)
message = to_binary_event(event) if mode == "binary" else to_structured_event(event)

for attempt in range(1, 6):
    try:
        response = requests.post(url, data=message.body, headers=message.headers, timeout=30)
        response.raise_for_status()
        print(response.text)
        break
    except requests.ConnectionError:
        if attempt == 5:
            raise
