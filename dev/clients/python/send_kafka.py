"""kafka-python, which writes to the topic itself. Usage: send_kafka SERVERS/TOPIC SENDER COUNT"""

import json
import sys

from kafka import KafkaProducer
from turns import event, turns

(servers, topic), sender, count = sys.argv[1].split("/"), sys.argv[2], int(sys.argv[3])

producer = KafkaProducer(
    bootstrap_servers=servers,
    acks="all",
    enable_idempotence=True,
    key_serializer=str.encode,
    value_serializer=lambda value: json.dumps(value).encode(),
)
sent = []
for numbers in turns(count):
    for number in numbers:
        value = event(sender, number)
        sent.append(producer.send(topic, key=value["user"], value=value))
for future in sent:
    future.get(timeout=120)
