"""Makes events and filters up, and says which events each filter selects: an evaluation that shares nothing with Footfall's.

Prints JSON: `events`, each with the `value` in Kafka and, if it is sent by HTTP, its `type`; `queries`, each with the indices
of the events that it selects, in order.
"""

import json
import random
import sys
from decimal import Decimal
from urllib.parse import quote

NAMES = ["total", "page", "ok", "a/b", "m~n", "x:y", "50%", "", "Zoë", "0", "items"]
USERS = ["Ann", "annabel", "ANN", "Bob", "Zoë & Co", "straße 7", "STRASSE 8", "a,b"]
ACTIONS = ["login", "Login", "logout", "log in", "page_view"]
NUMBERS = ["0", "-0.0", "1", "1.0", "10e-1", "31.5", "31.50", "-2", "1e3", "1000", "1e300", "9007199254740992",
           "9007199254740993", "123456789012345678901234567890", "0.1", "0.10000000000000001"]  # fmt: skip
TEXTS = ["", "a", "A", "ab", "31.5", "1", "true", "null", "/cart", "/Cart/2", "Zoë", "ZOË", "Straße", "🔥 hot", "عربي",
         'say "hi"', "a\\b", "a,b", "x:y", "50%", "\t"]  # fmt: skip

rng = random.Random(int(sys.argv[1]))


def text(value):
    """Writes a string, with or without escapes."""
    return json.dumps(value, ensure_ascii=rng.random() < 0.5)


def scalar():
    kind = rng.random()
    if kind < 0.4:
        return rng.choice(NUMBERS)
    if kind < 0.8:
        return text(rng.choice(TEXTS))
    return rng.choice(["true", "false", "null"])


def tree(depth=2):
    kind = rng.random()
    if depth == 0 or kind < 0.7:
        return scalar()
    if kind < 0.85:
        return "[" + ", ".join(tree(depth - 1) for _ in range(rng.randrange(3))) + "]"
    return members([], depth)


def members(fixed, depth):
    # A name may come twice: the last one counts.
    made = [f"{text(rng.choice(NAMES))}: {tree(depth - 1)}" for _ in range(rng.randrange(6))]
    return "{" + ",".join(fixed + made) + "}"


def event():
    """Returns the value of a record, and its media type if it is sent by HTTP."""
    fixed = [f'"user":{text(rng.choice(USERS))}', f'"action":{text(rng.choice(ACTIONS))}']
    kind = rng.random()
    if kind < 0.6:
        return members(fixed, 3), "application/json"
    if kind < 0.8:
        # The subject and the type replace a missing user and action.
        envelope = {"specversion": "1.0", "id": f"{rng.random()}", "source": "/test"}
        envelope |= {"type": rng.choice(ACTIONS), "subject": rng.choice(USERS)}
        data = members(rng.sample(fixed, rng.randrange(3)), 3)
        return json.dumps(envelope)[:-1] + f', "data": {data}}}', "application/cloudevents+json"
    # Other programs write what they want.
    return rng.choice([members(fixed[:1], 3), members([], 3), members(fixed, 3)[:-1], "[1, {}]", "7", "plain", ""]), None


def parse(json_text):
    def constant(name):
        raise ValueError(name)

    return json.loads(json_text, parse_int=Decimal, parse_float=Decimal, parse_constant=constant)


def value_of(written):
    try:
        return parse(written)
    except ValueError:
        return written


MISSING = object()


def find(document, pointer):
    for name in pointer:
        if isinstance(document, dict) and name in document:
            document = document[name]
        elif isinstance(document, list) and name.isdigit() and str(int(name)) == name and int(name) < len(document):
            document = document[int(name)]
        else:
            return MISSING
    return document


def same(left, right):
    return type(left) is type(right) and left == right


def fold(value):
    return "".join(lower for one in value for upper in one.upper() for lower in upper.lower())


def holds(condition, document, exact):
    pointer, operator, value = condition
    found = find(document, pointer) if document is not MISSING else MISSING
    if operator == "exists":
        return (found is not MISSING) == (value != "false")
    if operator in ("contains", "prefix"):
        wanted = value_of(value)
        wanted = wanted if isinstance(wanted, str) else value
        if not isinstance(found, str):
            return False
        if not exact:
            found, wanted = fold(found), fold(wanted)
        return found.startswith(wanted) if operator == "prefix" else wanted in found
    if operator == "in":
        return any(same(found, one) for one in value_of(value))
    wanted = value_of(value)
    if operator == "eq":
        return same(found, wanted)
    if operator == "ne":
        return not same(found, wanted)
    if type(found) is not type(wanted) or not isinstance(found, (str, Decimal)):
        return False
    return found < wanted if operator == "lt" else found > wanted


def seen():
    """Returns the place of a field that some record has, and its value."""
    document = rng.choice([document for document, *_ in records if isinstance(document, dict) and document])
    name = rng.choice(list(document))
    return [name], document[name]


def condition():
    pointer, value = seen()
    operator = rng.choice(["eq", "eq", "ne", "lt", "gt", "contains", "prefix", "in"])
    if rng.random() < 0.3 or isinstance(value, (list, dict)) or (value in (None, True, False) and operator in ("lt", "gt")):
        return any_condition()
    if operator in ("contains", "prefix"):
        start = rng.randrange(3) if operator == "contains" else 0
        value = str(value)[start : start + rng.randrange(1, 9)].swapcase()
        return pointer, operator, text(value) if rng.random() < 0.5 else value
    written = str(value) if isinstance(value, Decimal) else text(value)
    return pointer, operator, f"[{written},{scalar()}]" if operator == "in" else written


def any_condition():
    pointer = rng.choice([["user"], ["action"], [rng.choice(NAMES)], [rng.choice(NAMES), rng.choice([*NAMES, "1"])], []])
    operator = rng.choice(["eq", "ne", "lt", "gt", "exists", "contains", "prefix", "in"])
    bares = USERS + ACTIONS + [one for one in TEXTS if one]
    if operator == "exists":
        value = rng.choice([None, "true", "false"])
    elif operator in ("lt", "gt"):
        value = rng.choice([rng.choice(NUMBERS), text(rng.choice(TEXTS))])
    elif operator in ("contains", "prefix"):
        value = rng.choice([rng.choice(bares), text(rng.choice(bares)), rng.choice(NUMBERS)])
    elif operator == "in":
        value = "[" + ",".join(rng.choice([scalar(), text(rng.choice(bares))]) for _ in range(rng.randrange(1, 5))) + "]"
    else:
        value = rng.choice([scalar(), scalar(), text(rng.choice(bares)), rng.choice(bares)])
    return pointer, operator, value


def written(condition):
    pointer, operator, value = condition
    escapes = [("~", "~0"), ("/", "~1"), ("%", "%25"), (":", "%3A")]
    names = []
    for name in pointer:
        for character, escaped in escapes:
            name = name.replace(character, escaped)
        names.append("/" + name)
    return "".join(names) + f":{operator}" + ("" if value is None else f":{value}")


def query():
    """Returns parameters, and a function that says whether a record is selected."""
    parameters, tests = [], []

    def field(place, name, values):
        if rng.random() < 0.25:
            exact = rng.sample(values, rng.randrange(3))
            prefixes = [one[: rng.randrange(1, 4)].swapcase() for one in rng.sample(values, rng.randrange(2))]
            if exact or prefixes:
                parameters.extend([(name, one) for one in exact] + [(f"{name}_prefix", one) for one in prefixes])
                starts = [fold(prefix) for prefix in prefixes]
                tests.append(
                    lambda record: record[place] is not None
                    and (record[place] in exact or any(fold(record[place]).startswith(start) for start in starts))
                )
        if rng.random() < 0.2:
            excluded = rng.sample(values, rng.randrange(1, 3))
            parameters.extend((f"not_{name}", one) for one in excluded)
            tests.append(lambda record: record[place] not in excluded)

    field(1, "user", USERS)
    field(2, "action", ACTIONS)
    exact = rng.random() < 0.3
    if exact:
        parameters.append(("case", "exact"))
    for one in [condition() for _ in range(rng.choice([0, 1, 1, 1, 2, 3]))]:
        parameters.append(("f", written(one)))
        tests.append(lambda record, one=one: holds(one, record[0], exact))
    rng.shuffle(parameters)
    address = "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters)
    return address, lambda record: all(test(record) for test in tests)


def read(value, kind):
    """Returns the document of a record, its user and its action."""
    try:
        document = parse(value)
    except ValueError:
        return MISSING, None, None
    subject, event_type = None, None
    if kind == "application/cloudevents+json":
        subject, event_type, document = document["subject"], document["type"], document["data"]
    fields = document if isinstance(document, dict) else {}
    user, action = fields.get("user", subject), fields.get("action", event_type)
    return document, user, action


events = [event() for _ in range(80)]
records = [read(*one) for one in events]
queries = []
for _ in range(300):
    address, selects = query()
    queries.append({"query": address, "expected": [n for n, record in enumerate(records) if selects(record)]})
json.dump({"events": [{"value": value, "type": kind} for value, kind in events], "queries": queries}, sys.stdout)
