"""Those who fill queues and topics: by calls, with and without a request_id, and by streams."""

import collections
import threading
import time
import uuid

from client import Frames, Outgoing, message_pb2, messages
from doors import grpc, outcome_of
from history import OK, UNEXPECTED, UNKNOWN, Answered, Sent

PAUSE_S = 0.5  # between two calls or frames of one producer; the load is bounded by it, not by the machine
MESSAGES_MAX = 4  # in one
CALL_TIMEOUT_S = 25
REPEAT_AFTER_S = 0.3
FRAMES_MAX = 32  # unanswered
STREAM_S = (5, 20)


class Producer(threading.Thread):
    """Sends numbered bodies to one log until told to stop. Subclasses say how.

    Without a request_id nothing is ever sent again; with one, everything that was not answered OK is.
    """

    def __init__(self, load, log, name, rng, has_ids):
        super().__init__(name=name, daemon=True)
        self.load, self.history, self.log, self.rng, self.has_ids = load, load.history, log, rng, has_ids
        self.is_topic = log in load.topics
        self.number = 0
        # An id must be new in each run; what the history says of it need not be.
        self.run_id = uuid.uuid4().hex[:12]

    def next_call(self):
        """(call, bodies, request_id)"""
        self.number += 1
        call = f"{self.name}/{self.number}"
        bodies = tuple(f"{call}.{i}" for i in range(self.rng.randint(1, MESSAGES_MAX)))
        return call, bodies, f"{self.run_id}/{self.number}" if self.has_ids else ""

    def rest(self):
        self.load.stops_producing.wait(self.rng.uniform(0.5, 1.5) * PAUSE_S)


class CallingProducer(Producer):
    """Enqueue or Publish, one call after the other, each through any replica."""

    def run(self):
        while not self.load.stops_producing.is_set():
            self.rest()
            call, bodies, request_id = self.next_call()
            while True:
                outcome = self.send(call, bodies, request_id)
                if outcome == OK or not self.has_ids or self.load.gives_up.wait(REPEAT_AFTER_S):
                    break

    def send(self, call, bodies, request_id):
        door = self.load.doors.pick(self.rng)
        self.history.add(Sent, call=call, log=self.log, replica=door.name, bodies=bodies, request_id=request_id)
        append = door.client.publish if self.is_topic else door.client.enqueue
        try:
            ids = append(self.log, *bodies, timeout=CALL_TIMEOUT_S, request_id=request_id)
        except grpc.RpcError as error:
            door.avoid()
            outcome, detail = outcome_of(error)
            self.history.add(Answered, call=call, outcome=outcome, detail=detail)
            return outcome
        self.history.add(Answered, call=call, outcome=OK, message_ids=tuple(ids))
        return OK


class StreamingProducer(Producer):
    """EnqueueStream or PublishStream, one after the other. With ids, unanswered frames are sent again in the next one."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.streams = 0
        self.left = collections.deque()  # (call, bodies, request_id) to be sent again

    def run(self):
        while not self.load.stops_producing.is_set():
            self.rest()
            self.one_stream()
        while self.left and not self.load.gives_up.wait(REPEAT_AFTER_S):
            self.one_stream()

    def frame(self, bodies, request_id):
        if self.is_topic:
            return message_pb2.PublishStreamRequest(topic=self.log, messages=messages(*bodies), request_id=request_id)
        return message_pb2.EnqueueStreamRequest(queue=self.log, messages=messages(*bodies), request_id=request_id)

    def one_stream(self):
        self.streams += 1
        stream, door = f"{self.name}#{self.streams}", self.load.doors.pick(self.rng)
        stub, out = door.client.stub, Outgoing()
        frames = Frames((stub.PublishStream if self.is_topic else stub.EnqueueStream)(iter(out)))
        unanswered = collections.deque()

        def send(call, bodies, request_id):
            self.history.add(Sent, call=call, log=self.log, replica=door.name, bodies=bodies, request_id=request_id,
                             stream=stream)
            unanswered.append((call, bodies, request_id, time.monotonic()))
            out.send(self.frame(bodies, request_id))
        while self.left:
            send(*self.left.popleft())
        outcome, detail = self.converse(frames, out, send, unanswered)
        if outcome != OK:
            door.avoid()
        out.half_close()
        frames.cancel()
        for call, bodies, request_id, _ in unanswered:
            self.history.add(Answered, call=call, outcome=outcome, detail=detail)
            if request_id:
                self.left.append((call, bodies, request_id))

    def converse(self, frames, out, send, unanswered):
        """Until the stream ends; what became of the frames that were not answered."""
        ends_at, next_at, is_closed = time.monotonic() + self.rng.uniform(*STREAM_S), 0.0, False
        while True:
            now = time.monotonic()
            if not is_closed and (now > ends_at or self.load.stops_producing.is_set()):
                out.half_close()
                is_closed, ends_at = True, now
            if not is_closed and now >= next_at and len(unanswered) < FRAMES_MAX:
                send(*self.next_call())
                next_at = now + self.rng.uniform(0.5, 1.5) * PAUSE_S
            if now > (unanswered[0][3] if unanswered else ends_at) + CALL_TIMEOUT_S:
                return UNKNOWN, "no answer in time"
            try:
                answer = frames.next(0.1)
            except AssertionError:
                continue
            except StopIteration:
                return (UNEXPECTED, "the stream ended OK without answering this") if unanswered else (OK, "")
            except grpc.RpcError as error:
                return outcome_of(error)
            call = unanswered.popleft()[0]
            self.history.add(Answered, call=call, outcome=OK, message_ids=tuple(answer.message_ids))
