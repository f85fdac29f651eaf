"""sseclient-py over requests: does not reconnect by itself, so a loop does, from the last id."""

import json
import sys
import time

import requests
import sseclient

headers = {}
retry = 3.0

while True:
    try:
        response = requests.get(sys.argv[1], headers=headers, stream=True, timeout=60)
        response.raise_for_status()
        for event in sseclient.SSEClient(response).events():
            data = json.loads(event.data)
            if event.event == "message":
                print(data["partition"], data["offset"], flush=True)
            if event.id:
                headers["Last-Event-ID"] = event.id
            if event.retry:
                retry = int(event.retry) / 1000
    except requests.RequestException:
        pass
    time.sleep(retry)
