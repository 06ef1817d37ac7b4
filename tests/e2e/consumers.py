"""Those who empty queues and read topics. Whatever ends a stream, they open the next one, through any replica."""

import queue
import threading
import time

from client import ALREADY_SETTLED, STALE_LEASE, duration, flat_tokens, message_pb2
from doors import grpc, outcome_of
from history import ACK, NACK, OK, RELEASE, UNEXPECTED, Delivered, Mishap, Received, Settled, SettleSent, StreamEnded, Token
from history import ALREADY_SETTLED as SETTLED_BEFORE
from history import STALE_LEASE as STALE

LEASE_S = 3
CREDIT = 20
HEARTBEAT_S = 1
SILENCE_S = 6 * HEARTBEAT_S  # then the stream is taken for dead
CALL_TIMEOUT_S = 25
REOPEN_AFTER_S = 0.2
REPEAT_AFTER_S = 0.2
STREAM_S = (10, 40)
NACK_DELAY_S = 0.2
# Of a hundred deliveries so many are given back, released, and left to lapse.
NACKED, RELEASED, LAPSING = 6, 2, 2


def outcome_of_failure(failure):
    return {ALREADY_SETTLED: SETTLED_BEFORE, STALE_LEASE: STALE}.get(failure.error, UNEXPECTED)


class Settler(threading.Thread):
    """Settles by calls, and repeats each until it is answered."""

    def __init__(self, consumer):
        super().__init__(name=f"{consumer.name}-settler", daemon=True)
        self.consumer, self.load, self.todo = consumer, consumer.load, queue.Queue()

    def settle(self, verb, items):
        """`items`: (token, message id)."""
        if items:
            self.todo.put((verb, items))

    def run(self):
        while (work := self.todo.get()) is not None:
            while not self.once(*work) and not self.load.is_over.wait(REPEAT_AFTER_S):
                pass

    def once(self, verb, items):
        door = self.load.doors.pick(self.consumer.rng)
        self.consumer.note_sent(verb, items)
        tokens = [token for token, _ in items]
        request = message_pb2.AckRequest(source=self.consumer.queue, lease_tokens=tokens)
        call = door.client.stub.Ack
        if verb != ACK:
            request = message_pb2.NackRequest(source=self.consumer.queue, nacks=self.consumer.nacks(verb, tokens))
            call = door.client.stub.Nack
        try:
            failures = call(request, timeout=CALL_TIMEOUT_S).failures
        except grpc.RpcError as error:
            door.avoid()
            outcome, detail = outcome_of(error)
            self.consumer.note_settled(verb, items, {}, outcome, detail)
            return outcome == UNEXPECTED
        self.consumer.note_settled(verb, items, {failure.lease_token: failure for failure in failures})
        return True


class Consumer(threading.Thread):
    """Takes from one queue; acks most, gives some back, lets some leases lapse. Subclasses say how it takes."""

    def __init__(self, load, queue_name, name, rng):
        super().__init__(name=name, daemon=True)
        self.load, self.history, self.queue, self.rng = load, load.history, queue_name, rng
        self.streams = 0
        self.settler = Settler(self)
        self.settler.start()

    @staticmethod
    def nacks(verb, tokens):
        if verb == RELEASE:
            return message_pb2.Nacks(lease_tokens=tokens, kind=message_pb2.NACK_KIND_RELEASE)
        return message_pb2.Nacks(lease_tokens=tokens, reason="not now", delay=duration(NACK_DELAY_S))

    def run(self):
        while not self.load.is_over.is_set():
            self.streams += 1
            self.take()
        self.settler.todo.put(None)
        self.settler.join()

    def note_delivered(self, delivery, stream, door):
        """Records it, and returns what to do with it: a verb, or None = nothing."""
        owner_epoch = 0
        if delivery.message_id in self.history.acked:
            owner_epoch = self.load.owner_epoch(Token.read(delivery.lease_token).source)
        self.history.add(Delivered, source=self.queue, consumer=self.name, stream=stream, replica=door.name,
                         body=delivery.message.body.decode(), message_id=delivery.message_id,
                         token=delivery.lease_token, attempt=delivery.attempt, owner_epoch=owner_epoch)
        lot = self.rng.randrange(100)
        if self.load.stops_producing.is_set() or lot >= NACKED + RELEASED + LAPSING:
            return ACK
        return NACK if lot < NACKED else RELEASE if lot < NACKED + RELEASED else None

    def note_sent(self, verb, items):
        for token, message_id in items:
            self.history.add(SettleSent, source=self.queue, consumer=self.name, message_id=message_id, token=token,
                             verb=verb)

    def note_settled(self, verb, items, failures, outcome=OK, detail=""):
        """`failures` by token win over `outcome`, which is of all others."""
        for token, message_id in items:
            failure = failures.get(token)
            self.history.add(Settled, source=self.queue, consumer=self.name, message_id=message_id, token=token, verb=verb,
                             outcome=outcome_of_failure(failure) if failure else outcome,
                             detail=failure.detail if failure else detail)

    def note_end(self, door, error):
        """A stream or a waiting call has failed."""
        outcome, detail = outcome_of(error)
        self.history.add(StreamEnded, who=self.name, replica=door.name, detail=detail)
        if outcome == UNEXPECTED:
            self.history.add(Mishap, what=f"{self.name} was told {detail}")
        door.avoid()

    def by_verb(self, deliveries, stream, door):
        chosen = {}
        for delivery in deliveries:
            verb = self.note_delivered(delivery, stream, door)
            if verb is not None:
                chosen.setdefault(verb, []).append((delivery.lease_token, delivery.message_id))
        return chosen


class PollingConsumer(Consumer):
    """Dequeue, then Ack."""

    def take(self):
        door = self.load.doors.pick(self.rng)
        try:
            answer = door.client.dequeue(self.queue, CREDIT, wait=1, lease=LEASE_S, timeout=CALL_TIMEOUT_S)
        except grpc.RpcError as error:
            self.note_end(door, error)
            self.load.is_over.wait(REOPEN_AFTER_S)
            return
        for verb, items in self.by_verb(answer.deliveries, "", door).items():
            self.settler.settle(verb, items)
        self.load.is_over.wait(REOPEN_AFTER_S)


class StreamingConsumer(Consumer):
    """Consume. Settles on the stream; what got no Settled there, by calls."""

    def take(self):
        stream, door = f"{self.name}#{self.streams}", self.load.doors.pick(self.rng)
        consumer = door.client.consume(self.queue, CREDIT, credit_bytes=1 << 20, lease=LEASE_S,
                                       heartbeat_interval=duration(HEARTBEAT_S))
        pending = {}  # sequence: {verb: items}
        try:
            self.converse(consumer, stream, door, pending)
        except AssertionError:
            self.history.add(StreamEnded, who=self.name, replica=door.name, detail=f"silent for {SILENCE_S} s")
            door.avoid()
        except StopIteration:
            pass
        except grpc.RpcError as error:
            self.note_end(door, error)
        consumer.half_close()
        consumer.cancel()
        for settling in pending.values():
            for verb, items in settling.items():
                self.settler.settle(verb, items)
        self.load.is_over.wait(REOPEN_AFTER_S)

    def converse(self, consumer, stream, door, pending):
        """Until we leave, after a while, in good order; or the stream ends."""
        leaves_at, is_drained, is_closed = time.monotonic() + self.rng.uniform(*STREAM_S), False, False
        while not self.load.is_over.is_set():
            if time.monotonic() > leaves_at and not is_closed:
                if not is_drained:
                    consumer.send(drain=True)
                    is_drained = True
                elif not pending:
                    consumer.half_close()
                    is_closed = True
            frame = consumer.next(SILENCE_S)
            kind = frame.WhichOneof("frame")
            if kind == "deliveries":
                chosen = self.by_verb(frame.deliveries.deliveries, stream, door)
                if is_closed:
                    for verb, items in chosen.items():
                        self.settler.settle(verb, items)
                elif chosen:
                    self.settle(consumer, chosen, pending)
            elif kind == "draining":
                is_drained, leaves_at = True, 0.0  # it delivers no more; what is held is settled, then we go elsewhere
                door.avoid()
            elif kind == "settled":
                failures = {failure.lease_token: failure for failure in frame.settled.failures}
                for verb, items in pending.pop(frame.settled.sequence).items():
                    self.note_settled(verb, items, failures)

    def settle(self, consumer, chosen, pending):
        for verb, items in chosen.items():
            self.note_sent(verb, items)
        pending[consumer.sequence + 1] = chosen
        consumer.send(ack_tokens=flat_tokens([token for token, _ in chosen.get(ACK, [])]),
                      nacks=[self.nacks(verb, [token for token, _ in chosen[verb]]) for verb in (NACK, RELEASE)
                             if verb in chosen])


class Subscriber(threading.Thread):
    """Reads a topic from its beginning, and goes on behind its last position whenever a stream has ended."""

    def __init__(self, load, topic, name, rng):
        super().__init__(name=name, daemon=True)
        self.load, self.history, self.topic, self.rng = load, load.history, topic, rng
        self.position, self.streams = "", 0

    def run(self):
        while not self.load.is_over.is_set():
            self.streams += 1
            self.read()
            self.load.is_over.wait(REOPEN_AFTER_S)

    def read(self):
        door = self.load.doors.pick(self.rng)
        start = {"after": self.position} if self.position else {"earliest": True}
        subscriber = door.client.subscribe(self.topic, heartbeat=HEARTBEAT_S, **start)
        leaves_at = time.monotonic() + self.rng.uniform(*STREAM_S)
        try:
            while time.monotonic() < leaves_at and not self.load.is_over.is_set():
                self.note(subscriber.next(SILENCE_S), f"{self.name}#{self.streams}", door)
        except AssertionError:
            self.history.add(StreamEnded, who=self.name, replica=door.name, detail=f"silent for {SILENCE_S} s")
            door.avoid()
        except StopIteration:
            pass
        except grpc.RpcError as error:
            outcome, detail = outcome_of(error)
            self.history.add(StreamEnded, who=self.name, replica=door.name, detail=detail)
            if outcome == UNEXPECTED:
                self.history.add(Mishap, what=f"{self.name} was told {detail}")
            door.avoid()
        subscriber.cancel()

    def note(self, response, stream, door):
        for message in response.messages:
            self.history.add(Received, topic=self.topic, subscriber=self.name, stream=stream, replica=door.name,
                             body=message.message.body.decode(), message_id=message.message_id, position=message.position)
            self.position = message.position
        # That of the response may lie behind the last message's; either is a place to go on from.
        if response.position and self.rng.random() < 0.5:
            self.position = response.position
