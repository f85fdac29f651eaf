"""Taking events in as the tutorial does: Django, a producer class on kafka-python, POST /send-message/.

KAFKA_BOOTSTRAP_SERVERS=... KAFKA_TOPIC=... gunicorn -w 4 -k gthread --threads 64 tutorial:application
"""

import json
import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from kafka import KafkaProducer

settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="of a benchmark",
    DEBUG=False,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
)


class ActivityProducer:
    def __init__(self):
        self.topic = os.environ["KAFKA_TOPIC"]
        self.producer = KafkaProducer(
            bootstrap_servers=os.environ["KAFKA_BOOTSTRAP_SERVERS"],
            value_serializer=lambda value: json.dumps(value).encode("utf-8"),
            acks="all",
        )

    def send(self, message):
        # The answer is to mean that Kafka has it.
        self.producer.send(self.topic, message, key=message["user"].encode("utf-8")).get(timeout=10)


producer = None


@csrf_exempt
def send_message(request):
    global producer
    producer = producer or ActivityProducer()
    producer.send(json.loads(request.body))
    return JsonResponse({"message": "Sent to Kafka!"})


urlpatterns = [path("send-message/", send_message)]
application = get_wsgi_application()
