"""What the clients of a run saw, in order, as the checkers read it.

An event is recorded when it is known: a call before it is sent, an answer when it has come. All clients live in one
process, so one clock orders them. Times are seconds since the beginning of the run.
"""

import base64
import dataclasses
import json
import threading
import time

# What became of a call that writes.
OK = "ok"
UNKNOWN = "unknown"  # it may have been done
REFUSED = "refused"  # the service said that it was not
UNEXPECTED = "unexpected"  # an answer that no promise covers

# What became of a token; beside OK and UNKNOWN.
ALREADY_SETTLED = "already settled"
STALE_LEASE = "stale lease"

ACK, NACK, RELEASE = "ack", "nack", "release"


@dataclasses.dataclass(slots=True, frozen=True)
class Sent:
    """A call or a frame of a stream that appends `bodies` to a log; a repeat has the same `call`."""
    at: float
    call: str
    log: str
    replica: str
    bodies: tuple
    request_id: str = ""
    stream: str = ""  # "" for a unary call


@dataclasses.dataclass(slots=True, frozen=True)
class Answered:
    at: float
    call: str
    outcome: str
    message_ids: tuple = ()
    detail: str = ""


@dataclasses.dataclass(slots=True, frozen=True)
class Delivered:
    """By a queue."""
    at: float
    source: str
    consumer: str
    stream: str  # "" for Dequeue
    replica: str
    body: str
    message_id: str
    token: str
    attempt: int
    # Read from the store after a delivery of what was acked already; 0 = not read.
    owner_epoch: int = 0


@dataclasses.dataclass(slots=True, frozen=True)
class SettleSent:
    at: float
    source: str
    consumer: str
    message_id: str
    token: str
    verb: str


@dataclasses.dataclass(slots=True, frozen=True)
class Settled:
    at: float
    source: str
    consumer: str
    message_id: str
    token: str
    verb: str
    outcome: str
    detail: str = ""


@dataclasses.dataclass(slots=True, frozen=True)
class Received:
    """By a subscriber of a topic."""
    at: float
    topic: str
    subscriber: str
    stream: str
    replica: str
    body: str
    message_id: str
    position: str


@dataclasses.dataclass(slots=True, frozen=True)
class StreamEnded:
    at: float
    who: str
    replica: str
    detail: str


@dataclasses.dataclass(slots=True, frozen=True)
class FaultBegan:
    at: float
    number: int
    kind: str
    target: str
    is_alone: bool
    detail: str = ""


@dataclasses.dataclass(slots=True, frozen=True)
class FaultEnded:
    at: float
    number: int
    kind: str
    had_effect: bool


@dataclasses.dataclass(slots=True, frozen=True)
class Mishap:
    """What must not happen, and is no client's to see: a program that ended by itself, work that never ends."""
    at: float
    what: str
    bodies: tuple = ()


@dataclasses.dataclass(slots=True, frozen=True, order=True)
class Token:
    """What a lease token says. Clients must not look into it; a checker may."""
    epoch: int
    position: int
    number: int
    source: str = dataclasses.field(compare=False)

    @staticmethod
    def read(text):
        data = base64.urlsafe_b64decode(text[1:] + "=" * (-len(text[1:]) % 4))
        return Token(int.from_bytes(data[16:24], "big"), int.from_bytes(data[24:32], "big"),
                     int.from_bytes(data[32:36], "big"), data[:16].hex())

    @property
    def order(self):
        """Rises with every giving-out of one message."""
        return self.epoch, self.number


class History:
    """Thread-safe. `events` is to be read when the writers have ended."""

    def __init__(self):
        self.began = time.monotonic()
        self.lock = threading.Lock()
        self.events = []
        self.acked = set()  # message ids with an ack answered OK
        self.settled_bodies = set()
        self.accepted = {}  # log: bodies of calls answered OK
        self.bodies_of_call = {}
        self.body_of_id = {}
        self.received = {}  # subscriber: bodies

    def now(self):
        return time.monotonic() - self.began

    def add(self, kind, /, **fields):
        """Records an event of this class as happening now, and keeps the sums that tell when a run is through."""
        with self.lock:
            event = kind(at=self.now(), **fields)
            self.events.append(event)
            if kind is Sent:
                self.bodies_of_call[event.call] = (event.log, event.bodies)
            elif kind is Answered and event.outcome == OK:
                log, bodies = self.bodies_of_call[event.call]
                self.accepted.setdefault(log, set()).update(bodies)
            elif kind is Delivered:
                self.body_of_id[event.message_id] = event.body
            elif kind is Settled and event.verb == ACK and event.outcome in (OK, ALREADY_SETTLED):
                self.settled_bodies.add(self.body_of_id.get(event.message_id))
                if event.outcome == OK:
                    self.acked.add(event.message_id)
            elif kind is Received:
                self.received.setdefault(event.subscriber, set()).add(event.body)
        return event

    def left_to_settle(self, queue):
        with self.lock:
            return self.accepted.get(queue, set()) - self.settled_bodies

    def left_to_receive(self, topic, subscriber):
        with self.lock:
            return self.accepted.get(topic, set()) - self.received.get(subscriber, set())

    def progress(self):
        with self.lock:
            return len(self.settled_bodies), sum(map(len, self.received.values()))

    def write(self, path):
        """One event a line, as JSON."""
        with open(path, "w", encoding="utf-8") as out:
            for event in self.events:
                out.write(told(event) + "\n")


def told(event):
    return json.dumps({"event": type(event).__name__} |
                      {field.name: getattr(event, field.name) for field in dataclasses.fields(event)})


def lines_about(events, keys):
    """The events that name one of these bodies, ids, calls or tokens; and the faults around them."""
    keys = set(keys)
    calls = {event.call for event in events if isinstance(event, Sent) and keys & set(event.bodies)}
    found = []
    for event in events:
        named = {getattr(event, name, None) for name in ("call", "body", "message_id", "token")}
        named |= set(getattr(event, "message_ids", ()))
        if named & (keys | calls):
            found.append(event)
    if not found:
        return []
    first, last = found[0].at - 2, found[-1].at + 2
    found += [event for event in events if isinstance(event, (FaultBegan, FaultEnded)) and first <= event.at <= last]
    return sorted(found, key=lambda event: event.at)
