"""The tutorial's consumer: prints records as they arrive."""

import json
import sys

from kafka import KafkaConsumer

consumer = KafkaConsumer(
    sys.argv[2],
    bootstrap_servers=sys.argv[1],
    auto_offset_reset="earliest",
    enable_auto_commit=True,
    group_id="user_activity_group",
    value_deserializer=lambda value: json.loads(value.decode("utf-8")),
)

for message in consumer:
    key = message.key.decode("utf-8") if message.key is not None else None
    headers = {name: value.decode("utf-8") for name, value in message.headers}
    print(json.dumps({"partition": message.partition, "key": key, "value": message.value, "headers": headers}), flush=True)
