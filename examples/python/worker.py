#!/usr/bin/python3
"""Works on the messages of a queue until SIGTERM or Ctrl-C: worker.py QUEUE

Shows a Consume stream: credit bounds what is held at a time, the server keeps the leases while the stream lives, acks
travel on the stream. A broken stream is opened again and what had no answer is settled again. At SIGTERM the worker
takes no more, finishes the message in hand, settles it and exits with 0; what it held besides is given back uncounted.
Killed with -9, its messages go to other workers when their leases lapse.
"""

import argparse
import os
import queue
import signal
import sys
import threading
import time

import connection
import grpc
from postkeeper.v1 import message_pb2, message_pb2_grpc

HELD_MESSAGES = 10
REOPEN_S = 1
DRAIN_S = 20  # below the 30 s after which Kubernetes kills


def handle(delivery):
    """The work. Raise, and the message is tried again later."""
    if not delivery.message.body:
        raise ValueError("an empty message")
    print(f"attempt {delivery.attempt}: {delivery.message.body.decode('utf-8', 'replace')}", flush=True)


class Worker:
    def __init__(self, source):
        self.source = source
        self.frames = queue.SimpleQueue()  # to be sent; None half-closes. Its put may be called by a signal handler
        self.unanswered = {}               # sequence -> settling frame without a Settled
        self.sequence = 0
        self.is_busy = False
        self.is_stopping = False

    def stop(self, number, _):
        """The signal handler. A second signal ends the program at once."""
        signal.signal(number, signal.SIG_DFL)
        self.is_stopping = True
        timer = threading.Timer(DRAIN_S, self.give_up)
        timer.daemon = True
        timer.start()
        self.drain()

    @staticmethod
    def give_up():
        print(f"worker: not drained within {DRAIN_S} s; what it held comes again", file=sys.stderr, flush=True)
        os._exit(1)

    def drain(self):
        self.frames.put(message_pb2.ConsumeRequest(drain=True))
        if not self.is_busy:
            self.frames.put(None)

    def run(self):
        with connection.open_channel() as channel:
            connection.require_server(channel)
            stub = message_pb2_grpc.MessageServiceStub(channel)
            while True:
                try:
                    # No deadline: it lives as long as the worker. The channel's pings notice a dead server.
                    self.read(stub.Consume(self.opening()))
                except grpc.RpcError as error:
                    if not connection.is_worth_repeating(error):
                        raise
                    print(f"worker: opening a new stream; {connection.explain(error)}", file=sys.stderr)
                finally:
                    self.frames.put(None)
                if self.is_stopping and not self.unanswered:
                    return
                time.sleep(REOPEN_S)

    def opening(self):
        """The frames of a new stream: who we are, what the last stream left unanswered, then what comes."""
        self.frames = queue.SimpleQueue()
        first = message_pb2.ConsumeRequest(open=message_pb2.Open(
            source=self.source, consumer="python-worker", keep_leases=True,
            credit=message_pb2.Credit(messages=HELD_MESSAGES)))
        again = list(self.unanswered.values())
        if self.is_stopping:
            self.drain()
        return self.sent(self.frames, [first, *again])

    @staticmethod
    def sent(frames, at_once):
        yield from at_once
        while (frame := frames.get()) is not None:
            yield frame

    def read(self, responses):
        for response in responses:
            kind = response.WhichOneof("frame")
            if kind == "deliveries":
                self.work_on(response.deliveries.deliveries)
            elif kind == "settled":
                self.unanswered.pop(response.settled.sequence, None)
                for failure in response.settled.failures:
                    if failure.error != message_pb2.SETTLE_ERROR_ALREADY_SETTLED:
                        error = message_pb2.SettleError.Name(failure.error)
                        print(f"worker: not settled, may be done twice: {error}", file=sys.stderr)
            elif kind == "draining":
                self.drain()  # the server goes away, or wants the stream to move; a new stream goes on

    def work_on(self, deliveries):
        self.is_busy = True
        for delivery in deliveries:
            if self.is_stopping:
                break
            try:
                handle(delivery)
            except Exception as error:  # whatever it is, the message must not be lost
                self.settle(nacks=[message_pb2.Nacks(lease_tokens=[delivery.lease_token], reason=str(error)[:250])])
            else:
                self.settle(ack_tokens=[delivery.lease_token])
        self.is_busy = False
        if self.is_stopping:
            self.frames.put(None)

    def settle(self, **what):
        self.sequence += 1
        frame = message_pb2.ConsumeRequest(sequence=self.sequence, **what)
        self.unanswered[self.sequence] = frame
        self.frames.put(frame)


def main():
    parser = argparse.ArgumentParser(description="Work on the messages of a queue until SIGTERM or Ctrl-C.")
    parser.add_argument("queue")
    worker = Worker(parser.parse_args().queue)
    signal.signal(signal.SIGTERM, worker.stop)
    signal.signal(signal.SIGINT, worker.stop)
    try:
        worker.run()
    except (ConnectionError, grpc.RpcError) as error:
        sys.exit(f"worker: {connection.explain(error)}")


if __name__ == "__main__":
    main()
