"""Gives the HTML of all pages, in all states in which the server renders them, to the Nu Html Checker."""

import json
import signal
import subprocess
import tempfile
import time
import urllib.parse
from pathlib import Path

from kafka import KafkaConsumer, KafkaProducer

from .application import Application, ROOT, wait_until
from .clients import INSTALLED, npm_version

CLIENT = "vnu-jar (Nu Html Checker)"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
KAFKA_AWAY = "127.0.0.1:9"  # nothing listens there
JAR = INSTALLED / "node/node_modules/vnu-jar/build/dist/vnu.jar"


class Pages:
    """Pages as files in a folder."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.states = {}

    def take(self, state, answer, status, *words):
        """Keeps a page, which must have the status and the words of that state."""
        problem = _not_in_that_state(answer, status, words)
        if problem:
            raise AssertionError(f"{state}: {problem}")
        file = f"{len(self.states):02}.html"
        self.states[file] = state
        (self.folder / file).write_bytes(answer.body)

    def get(self, application, state, path, status, *words, **headers):
        """Waits until the page has the words: what was written a moment ago may not be shown yet."""
        deadline = time.monotonic() + 5
        while True:
            answer = application.get(path, Accept=BROWSER, **headers)
            if not _not_in_that_state(answer, status, words) or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        self.take(state, answer, status, *words)


def _not_in_that_state(answer, status, words):
    html = answer.body.decode()
    main = html[html.find("<main") :][:1000]
    if answer.status != status:
        return f"the status is {answer.status} and not {status}: {main}"
    if not answer.headers["Content-Type"].startswith("text/html"):
        return f"it is {answer.headers['Content-Type']}"
    missing = [word for word in words if word not in html]
    return f"the page does not have {missing}: {main}" if missing else None


def check(kafka, report):
    with tempfile.TemporaryDirectory(prefix="footfall-pages-") as folder:
        pages = Pages(folder)
        with Application() as application:
            _of_an_empty_topic(pages, application)
        with Application(kafka) as application:
            _of_the_form(pages, application)
            _of_records(pages, application, kafka)
            _of_errors(pages, application)
            _of_the_kafka_page(pages, application, kafka)
            _of_a_long_topic(pages, application, kafka)
        with Application(**{"ingest.rate_limit": 1, "ingest.max_batch": 1}) as application:
            application.post([{"user": "Ann", "action": "login"}])
            pages.take("form: too many events", _submitted(application, FORM), 429, "Not sent")
        _of_kafka_away(pages)
        problem = _validate(pages)
    report(CLIENT, npm_version("vnu-jar"), f"{len(pages.states)} pages: no error, no warning", problem)


def _of_an_empty_topic(pages, application):
    pages.get(application, "live: empty, embedded broker", "/", 200, "Listening for events", "Embedded broker")
    pages.get(application, "history: empty", "/history", 200, "No events here")
    pages.get(application, "overview: empty", "/overview", 200, "None.")
    pages.get(application, "rejected: none", "/rejects", 200, "Nothing was rejected")
    application.request("POST", "/api/events", b'{"user": "<b>"}', Content_Type="application/json")
    application.request("POST", "/api/v1/events", b'{"user": "<b>"}', Content_Type="application/json")
    pages.get(application, "rejected: two", "/rejects", 200, "POST /api/events", "/action")
    pages.get(application, "live: empty, with rejects", "/", 200, "2 rejected")
    pages.get(application, "user: no events", "/users/nobody", 200, "No events from this user")
    pages.get(application, "Kafka: embedded broker", "/kafka", 200, "Embedded broker")


FORM = {"user": "Ann", "action": "checkout", "details": '{"page": "/cart", "total": 31.5}'}
ODD = '<b>"quoted" & \'odd\'</b> </textarea><script>x()</script>'


def _of_the_form(pages, application):
    answer = _submitted(application, FORM)
    if answer.status != 303:
        raise AssertionError(f"the form was answered {answer.status}: {answer.body!r}")
    pages.get(application, "form: sent", answer.headers["Location"], 200, "Saved to Kafka")
    for state, fields in [
        ("no user", {"user": "", "action": "login"}),
        ("no action", {"user": ODD, "action": " "}),
        ("details that are no JSON", {"user": "Ann", "action": ODD, "details": ODD}),
        ("nothing", {}),
        ("a user that is not UTF-8", b"user=Jos%E9&action=login"),
        ("a user that is too long", {"user": "x" * 201, "action": "login"}),
    ]:
        pages.take(f"form: {state}", _submitted(application, fields), 422, "Not sent", "aria-invalid")
    other_site = {"Sec_Fetch_Site": "cross-site", "Origin": "http://other.test"}
    pages.take("form: from another site", _submitted(application, FORM, **other_site), 403)
    pages.take("form: too large", _submitted(application, b"user=" + b"x" * 500_000), 413)
    pages.take("form: another content type", _submitted(application, b"{}", Content_Type="application/json"), 415)


def _of_records(pages, application, kafka):
    application.post(
        [{"user": "Ann", "action": "view", "page": n, "nested": {"a": [1, {"b": None}]}} for n in range(5)]
        + [{"user": "Zoë 🦊", "action": "تسجيل الدخول", "text": "x" * 20_000, "time": "2020-02-29T12:00:00Z"}]
        + [{"user": ODD, "action": ODD, "details": ODD}]
    )
    event = {"specversion": "1.0", "id": "c-1", "source": "/shop", "type": "com.example.paid", "subject": "Bob"}
    event |= {"shard": 7, "data": {"total": 31.5}}
    body, content_type = json.dumps(event).encode(), "application/cloudevents+json"
    place = application.insist("POST", "/api/v1/events", 201, body, Content_Type=content_type).json()
    pages.get(application, "record: CloudEvent", f"/events/{place['partition']}/{place['offset']}", 200, "com.example.paid")
    producer = KafkaProducer(bootstrap_servers=kafka)
    for state, key, value, headers, words in [
        ("no JSON", b"their-key", b"plain text", [], ["plain text"]),
        ("binary", b"\xff", b"\x00\x9f\x92\x96", [], []),
        ("tombstone", b"their-key", None, [], []),
        ("empty, without a key", None, b"", [], []),
        ("large", None, b'{"user":"Ann","action":"big","text":"' + b"y" * 200_000 + b'"}', [], ["…"]),
        ("odd headers", None, ODD.encode(), [(ODD, ODD.encode()), ("raw", b"\xff")], ["&#60;b"]),
    ]:
        place = producer.send(application.topic, key=key, value=value, headers=headers).get(10)
        pages.get(application, f"record: {state}", f"/events/{place.partition}/{place.offset}", 200, *words)
    producer.close()
    oldest = application.insist("GET", "/api/v1/events?user=Ann&limit=1&from=beginning", 200).json()
    first = oldest["events"][0]
    path = f"/events/{first['partition']}/{first['offset']}"
    pages.get(application, "record: the first of its partition", path, 200, "Send again", "oldest record")
    pages.get(application, "record: the question before it is sent again", f"{path}/again", 200, "again?")
    place = f"{first['partition']}-{first['offset']}"
    pages.get(application, "compare: two records", f"/compare?a={place}&b={place}", 200, "All fields are the same")
    pages.get(application, "compare: a place that is none", f"/compare?a={place}&b=x", 400, "wrong-b")

    query = "user=Ann&user=John&action=login&q=nothing"
    pages.get(application, "live: records", "/", 200, "&#60;script&#62;", "their-key")
    pages.get(application, "live: filters that match", "/?user=Ann&action=view", 200, "Ann")
    pages.get(application, "live: filters that match nothing", f"/?{query}", 200, "Nothing matches yet", "chip")
    pages.get(application, "history: records", "/history", 200, "their-key", "&#60;script&#62;")
    pages.get(application, "history: filters that match nothing", f"/history?{query}&partition=0", 200, "No events match these filters")
    pages.get(application, "history: one row of more", "/history?limit=1", 200, "Older events")
    pages.get(application, "history: oldest first", "/history?limit=1&order=oldest&from=beginning", 200, "Next events")
    times = "/history?since=-1h&until=2100-01-01T00:00:00Z"
    pages.get(application, "history: between two times", times, 200, "their-key")
    pages.get(application, "history: from an offset", "/history?partition=0&offset=0", 200, "from")
    for state, path in [
        ("a time that is none", "/history?since=nonsense"),
        ("an offset without a partition", "/history?offset=0"),
        ("a limit that is none", "/history?limit=many"),
    ]:
        pages.get(application, f"history: {state}", path, 400, "<h1")
    # The overview counts in the background.
    wait_until("the events are counted", lambda: application.get("/api/v1/stats").json()["last_24h"]["events"] > 5)
    pages.get(application, "overview: records", "/overview", 200, "Ann")
    pages.get(application, "user: records", "/users/Ann", 200, "view", "Count all partitions")
    pages.get(application, "user: in all partitions", "/users/Ann?partitions=all", 200, "view")
    pages.get(application, "user: odd name", "/users/" + urllib.parse.quote(ODD, safe=""), 200, "&#60;script&#62;")


def _of_errors(pages, application):
    pages.get(application, "error: no such page", "/nothing-there", 404, "<h1")
    pages.get(application, "error: no such record", "/events/0/999999", 404, "<h1")
    pages.get(application, "error: no such partition", "/events/99/0", 404, "<h1")
    pages.get(application, "error: an offset that is none", "/events/0/x", 404, "<h1")
    pages.get(application, "live: a filter that is none", "/?partition=x&f=nonsense", 400, "wrong-partition", "wrong-f")
    pages.get(application, "overview: a period that is none", "/overview?period=3d", 400, "wrong-period")
    pages.get(application, "error: another site", "/stream", 403, "<h1", Sec_Fetch_Site="cross-site")
    pages.get(application, "error: a target that is too long", "/?q=" + "x" * 40_000, 414, "<h1")
    pages.get(application, "error: another host", "/", 421, "<h1", Host="other.test")
    pages.take("error: another method", application.request("DELETE", "/", Accept=BROWSER), 405, "<h1")


def _of_the_kafka_page(pages, application, kafka):
    pages.get(application, "Kafka: no groups", "/kafka", 200, application.topic)
    group = KafkaConsumer(
        application.topic, bootstrap_servers=kafka, group_id="reader", auto_offset_reset="earliest", client_id=ODD[:3]
    )
    wait_until("the group has read", lambda: group.poll(2000), patience=60)
    group.commit()
    pages.get(application, "Kafka: a group", "/kafka", 200, "reader", "Lag, offsets")
    group.close()
    pages.get(application, "Kafka: a group without members", "/kafka", 200, "reader", "unassigned")
    other = KafkaProducer(bootstrap_servers=kafka, transactional_id=f"{application.topic}-open")
    other.init_transactions()
    other.begin_transaction()
    other.send(application.topic, key=b"Ann", value=b"{}").get(10)
    held_up = "Kafka connected, but "
    wait_until("the open transaction is noticed", lambda: held_up in application.get("/", Accept=BROWSER).body.decode())
    pages.get(application, "live: an open transaction", "/", 200, held_up)
    pages.get(application, "Kafka: an open transaction", "/kafka", 200, "transaction")
    other.abort_transaction()
    other.close()


def _of_a_long_topic(pages, application, kafka):
    """More records than a page looks at by itself."""
    subprocess.run(
        [ROOT / "dev/kafka", "tool", "org.apache.kafka.tools.ProducerPerformance"]
        + ["--topic", application.topic, "--num-records", "240000", "--record-size", "10", "--throughput", "-1"]
        + ["--producer-props", f"bootstrap.servers={kafka}", "linger.ms=0", "batch.size=1000"],
        check=True,
        capture_output=True,
    )
    pages.get(application, "history: a search that continues", "/history?user=nobody", 200, 'id="search"', "Continue search")
    pages.get(application, "user: a count that continues", "/users/nobody", 200, 'id="search"')


def _of_kafka_away(pages):
    application = Application(KAFKA_AWAY)
    try:
        application.start(wait=False)
        pages.get(application, "live: Kafka unreachable", "/", 200, "Kafka unreachable")
        pages.get(application, "history: Kafka unreachable", "/history", 200, 'class="notice"')
        pages.get(application, "overview: Kafka unreachable", "/overview", 200)
        pages.get(application, "Kafka: Kafka unreachable", "/kafka", 200, "Nothing to show")
        pages.get(application, "user: Kafka unreachable", "/users/Ann", 200, "can’t be loaded")
        pages.get(application, "record: Kafka unreachable", "/events/0/0", 503, "<h1")
        pages.take("form: Kafka unreachable", _submitted(application, FORM), 503, "Not sent")
    finally:
        application.stop(signal.SIGKILL)


def _submitted(application, form, **headers):
    """Posts the page's form as a browser without JavaScript does."""
    body = form if isinstance(form, bytes) else urllib.parse.urlencode(form).encode()
    headers = {"Content_Type": "application/x-www-form-urlencoded", "Sec_Fetch_Site": "same-origin"} | headers
    return application.request("POST", "/events", body, Accept=BROWSER, **headers)


def _validate(pages):
    # The checker needs a larger stack than Java's default (its own documentation).
    command = ["java", "-Xss2m", "-jar", str(JAR), "--format", "json", str(pages.folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        messages = json.loads(done.stderr)["messages"]
    except ValueError:
        return f"the checker ended with {done.returncode}: {done.stdout}{done.stderr}"
    problems = []
    for message in messages:
        state = pages.states.get(message.get("url", "").rsplit("/", 1)[-1], "no page")
        kind = message.get("subType", message["type"])
        problems.append(f"{state}: {kind}: {message['message']} {message.get('extract', '').strip()!r}")
    return "\n  ".join(["", *problems]) if problems else None
