"""Judges of a recorded history, one for each promise of docs/GUARANTEES.md that clients can see kept or broken.

A checker says what it judged, and every violation that it found, with the bodies, ids and tokens to look for in the
history. One that judged nothing has proved nothing: the run fails then, too.
"""

import collections
import dataclasses

from history import (ACK, ALREADY_SETTLED, OK, REFUSED, UNEXPECTED, UNKNOWN, Answered, Delivered, Mishap, Received, Sent,
                     Settled, SettleSent, StreamEnded, Token)


@dataclasses.dataclass(frozen=True)
class Violation:
    text: str
    keys: tuple = ()


@dataclasses.dataclass
class Verdict:
    promise: str
    judged: int = 0
    violations: list = dataclasses.field(default_factory=list)
    # Figures for the report, beside those that every checker has.
    counts: dict = dataclasses.field(default_factory=dict)

    def violate(self, text, *keys):
        self.violations.append(Violation(text, keys))


@dataclasses.dataclass
class Call:
    """One call of a producer, all its tries together."""
    name: str
    log: str
    bodies: tuple
    has_id: bool
    first_sent_at: float
    streams: list
    tries: int = 0
    outcomes: list = dataclasses.field(default_factory=list)
    ids: tuple = ()
    answered_at: float = 0.0

    @property
    def outcome(self):
        """OK if any try was; REFUSED only if every one was."""
        if OK in self.outcomes:
            return OK
        if UNEXPECTED in self.outcomes:
            return UNEXPECTED
        return REFUSED if self.tries == len(self.outcomes) and set(self.outcomes) == {REFUSED} else UNKNOWN


class Reading:
    """A history, indexed once for all checkers."""

    def __init__(self, events):
        self.events = events
        self.calls = {}
        self.call_of_body = {}
        self.deliveries = [event for event in events if isinstance(event, Delivered)]
        self.received = [event for event in events if isinstance(event, Received)]
        self.settled = [event for event in events if isinstance(event, Settled)]
        self.copies = collections.defaultdict(dict)  # body: {(message id, position)}, each with its log
        self.position_of = {}  # message id: (log, position)
        for event in events:
            if isinstance(event, Sent):
                call = self.calls.setdefault(event.call, Call(event.call, event.log, event.bodies, bool(event.request_id),
                                                              event.at, []))
                call.tries += 1
                call.streams.append(event.stream)
                for body in event.bodies:
                    self.call_of_body[body] = call
            elif isinstance(event, Answered):
                call = self.calls[event.call]
                call.outcomes.append(event.outcome)
                if event.outcome == OK:
                    call.ids, call.answered_at = event.message_ids, event.at
        for event in self.deliveries:
            self._found(event.body, event.message_id, event.source, Token.read(event.token).position)
        for event in self.received:
            self._found(event.body, event.message_id, event.topic, event.position)

    def _found(self, body, message_id, log, position):
        self.copies[body][message_id, position] = log
        self.position_of[message_id] = log, position

    def accepted(self):
        """(call, body, message id) of every message of a call that was answered OK."""
        for call in self.calls.values():
            if call.outcome == OK:
                yield from ((call, body, message_id) for body, message_id in zip(call.bodies, call.ids, strict=True))


def nothing_is_lost(reading, topics):
    verdict = Verdict("G1, G2: what was accepted is delivered until it is acked")
    acked = {event.message_id for event in reading.settled
             if event.verb == ACK and event.outcome in (OK, ALREADY_SETTLED)}
    tried = {event.message_id for event in reading.events if isinstance(event, SettleSent) and event.verb == ACK}
    for call, body, message_id in reading.accepted():
        verdict.judged += 1
        if message_id not in reading.position_of:
            other = [found for found, _ in reading.copies.get(body, ())]
            verdict.violate(f"{body} was accepted as {message_id} and never delivered" +
                            (f", but as {other}" if other else ""), body, message_id)
        elif call.log not in topics and message_id not in acked:
            verdict.violate(f"{body} was accepted and delivered, and is gone without an ack", body, message_id)
    for event in reading.settled:
        if event.outcome == ALREADY_SETTLED and event.message_id not in tried:
            verdict.violate(f"{event.message_id} is called settled, and nobody has acked it", event.message_id)
    return verdict


def ack_is_final(reading, _):
    """G3's exception is judged by what is in the tokens: a delivery that was made before the one that was acked is only
    late; one by an owner that the store knows to be deposed is excused, unless it can be settled (see held_by_one)."""
    verdict = Verdict("G3: once Ack has returned OK, the message is not delivered again")
    verdict.counts["late deliveries of what was acked"] = 0
    acked = {}
    newest = collections.defaultdict(int)  # source: the latest epoch that any delivery has shown so far
    for event in reading.events:
        if isinstance(event, Settled) and event.verb == ACK and event.outcome == OK:
            verdict.judged += 1
            acked.setdefault(event.message_id, Token.read(event.token))
        elif isinstance(event, Delivered):
            token = Token.read(event.token)
            newest[event.source] = max(newest[event.source], token.epoch)
            before = acked.get(event.message_id)
            if before is None:
                continue
            is_late = token.order <= before.order
            if is_late or token.epoch < max(newest[event.source], event.owner_epoch):
                verdict.counts["late deliveries of what was acked"] += 1
                continue
            verdict.violate(f"{event.body} was delivered (epoch {token.epoch}, number {token.number}) after its ack "
                            f"(epoch {before.epoch}, number {before.number}) was answered OK; owner's epoch "
                            f"{event.owner_epoch or 'unknown'}", event.body, event.message_id)
    return verdict


def held_by_one(reading, _):
    verdict = Verdict("G6: a late ack never settles somebody else's delivery; each message is settled once")
    settled_by = {}
    for event in reading.settled:
        if event.verb != ACK or event.outcome != OK:
            continue
        verdict.judged += 1
        first = settled_by.setdefault(event.message_id, event.token)
        if first != event.token:
            verdict.violate(f"{event.message_id} was settled by two deliveries: {Token.read(first)} and "
                            f"{Token.read(event.token)}", event.message_id)
    return verdict


def written_once(reading, _):
    verdict = Verdict("G4: nothing is written twice")
    for body, copies in reading.copies.items():
        verdict.judged += 1
        if len(copies) == 1:
            continue
        call = reading.call_of_body[body]
        verdict.violate(f"{body} was written {len(copies)} times, though it was sent {call.tries} time(s)"
                        f"{' with a request_id' if call.has_id else ''}: {sorted(copies)}", body)
    return verdict


def calls_are_whole(reading, _):
    verdict = Verdict("Enqueue, Publish: all messages of a call are written, or none")
    for call in reading.calls.values():
        if len(call.bodies) == 1:
            continue
        verdict.judged += 1
        there = [body for body in call.bodies if body in reading.copies]
        if 0 < len(there) < len(call.bodies) and call.outcome != OK:  # else it is lost, which is told elsewhere
            missing = sorted(set(call.bodies) - set(there))
            verdict.violate(f"of one call {there} were delivered and {missing} were not", *call.bodies)
    return verdict


def log_order(reading, _):
    """Positions are compared, which are the order of the log, whoever was given the messages."""
    verdict = Verdict("G5: a log is in order of commit; inside one stream in the order sent")
    by_log = collections.defaultdict(list)
    for call in reading.calls.values():
        places = [reading.position_of.get(message_id) for message_id in call.ids]
        if call.outcome != OK or not places or None in places:
            continue
        if [position for _, position in places] != sorted({position for _, position in places}):
            verdict.violate(f"the messages of one call are out of order: {call.bodies}", *call.bodies)
        by_log[call.log].append((places[0][1], call))
    for calls in by_log.values():
        calls.sort(key=lambda pair: pair[0])
        latest = None  # of those before in the log: the one that was sent last
        last_of_stream = {}
        for _, call in calls:
            verdict.judged += 1
            if latest is not None and call.answered_at < latest.first_sent_at:
                verdict.violate(f"{latest.bodies[0]} was sent after {call.bodies[0]} had been accepted, and stands before "
                                "it in the log", latest.bodies[0], call.bodies[0])
            if latest is None or call.first_sent_at > latest.first_sent_at:
                latest = call
            if call.tries == 1 and call.streams[0]:
                before = last_of_stream.get(call.streams[0])
                if before is not None and before.first_sent_at > call.first_sent_at:
                    verdict.violate(f"in stream {call.streams[0]} {call.bodies[0]} was sent before {before.bodies[0]}, and "
                                    "stands behind it in the log", call.bodies[0], before.bodies[0])
                last_of_stream[call.streams[0]] = call
    return verdict


def delivery_order(reading, _):
    """Within one stream and epoch: what different consumers are given can overtake on the way."""
    verdict = Verdict("G5: first attempts are delivered in log order")
    last = {}
    for event in reading.deliveries:
        token = Token.read(event.token)
        if not event.stream or event.attempt != 1 or token.number != 1:
            continue
        verdict.judged += 1
        before = last.get((event.stream, token.epoch))
        if before is not None and before[0] >= token.position:
            verdict.violate(f"{event.body} came on {event.stream} behind {before[1]}, before which it stands in the log",
                            event.body, before[1])
        last[event.stream, token.epoch] = token.position, event.body
    return verdict


def no_silent_gap(reading, topics):
    verdict = Verdict("G9: a subscriber gets every message in order, none twice")
    logs = {topic: {} for topic in topics}
    by_subscriber = collections.defaultdict(list)
    for event in reading.received:
        logs[event.topic][event.position] = event.body
        by_subscriber[event.topic, event.subscriber].append(event)
    for (topic, subscriber), events in by_subscriber.items():
        last = ""
        for event in events:
            verdict.judged += 1
            if event.position <= last:
                verdict.violate(f"{subscriber} got {event.body} at {event.position} when it stood at {last}", event.body)
            last = max(last, event.position)
        seen = {event.position for event in events}
        for position, body in logs[topic].items():
            if position not in seen and position <= last:
                verdict.violate(f"{subscriber} never got {body} at {position}, which others got", body)
        bodies = {event.body for event in events}
        for call, body, _ in reading.accepted():
            if call.log == topic and body not in bodies:
                verdict.violate(f"{subscriber} never got {body}, which was accepted", body)
    return verdict


def known_or_said(reading, _):
    verdict = Verdict("G11: what was refused is not written; every call ends with a known answer, or with unknown")
    maybe = [call for call in reading.calls.values() if call.outcome == UNKNOWN]
    verdict.counts["maybe: messages whose outcome was unknown"] = sum(len(call.bodies) for call in maybe)
    verdict.counts["maybe: of these, written"] = sum(body in reading.copies for call in maybe for body in call.bodies)
    for call in reading.calls.values():
        verdict.judged += call.outcome != OK
        if len(call.outcomes) < call.tries:
            verdict.violate(f"{call.name} was never answered", *call.bodies)
        if call.outcome == UNEXPECTED:
            verdict.violate(f"{call.name} was answered in a way that no promise covers", call.name)
        if call.outcome == REFUSED:
            for body in call.bodies:
                if body in reading.copies:
                    verdict.violate(f"{body} was refused, and was delivered", body)
    for event in reading.settled:
        verdict.judged += event.outcome == UNKNOWN
        if event.outcome == UNEXPECTED:
            verdict.violate(f"{event.verb} of {event.message_id}: {event.detail}", event.message_id)
    return verdict


def all_goes_on(reading, _):
    verdict = Verdict("all goes on: streams are opened again, programs end only when told to, all is worked off")
    verdict.judged = sum(isinstance(event, StreamEnded) for event in reading.events)
    for event in reading.events:
        if isinstance(event, Mishap):
            verdict.violate(event.what, *event.bodies)
    return verdict


CHECKERS = (nothing_is_lost, ack_is_final, held_by_one, written_once, calls_are_whole, log_order, delivery_order,
            no_silent_gap, known_or_said, all_goes_on)


def judge(events, topics):
    """{checker's name: verdict}"""
    reading = Reading(events)
    return {checker.__name__: checker(reading, topics) for checker in CHECKERS}
