"""The tutorial's producer: a class round KafkaProducer that sends dictionaries as JSON."""

import json
import sys

from kafka import KafkaProducer


class ActivityProducer:
    def __init__(self, servers):
        self.producer = KafkaProducer(
            bootstrap_servers=servers,
            value_serializer=lambda value: json.dumps(value).encode("utf-8"),
        )

    def send(self, topic, message, key=None):
        future = self.producer.send(topic, value=message, key=key)
        self.producer.flush()
        return future.get(timeout=10)


if __name__ == "__main__":
    servers, topic, users = sys.argv[1], sys.argv[2], sys.argv[3:]
    producer = ActivityProducer(servers)
    producer.send(topic, {"user": "John", "action": "login"})
    for user in users:
        place = producer.send(topic, {"user": user, "action": "login"}, key=user.encode("utf-8"))
        print(json.dumps({"user": user, "partition": place.partition}), flush=True)
