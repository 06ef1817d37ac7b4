"""A Consume stream while its queue changes the owner: it stays open, and what its client holds stays held."""

import pathlib
import signal
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from client import bodies, duration, flat_tokens, grpc, message_pb2, until  # noqa: E402
from replicas import ReplicasTest  # noqa: E402

# A clean stop is a matter of milliseconds, a kill one of the session and a second; and this machine may be busy.
PAUSE_AFTER_STOP_MAX_S = 5
PAUSE_AFTER_KILL_MAX_S = ReplicasTest.session_s + 10
HELD = 20


class Worker:
    """A stream that holds what it is given until it is told to settle."""

    def __init__(self, client):
        self.stream = client.consume("q", HELD // 2, credit_bytes=1 << 20, lease=600, heartbeat_interval=duration(1))
        self.stream.next_of("opened")
        self.held = []

    def take(self, count):
        self.held += self.stream.deliveries(count, timeout_s=60)

    def settle(self):
        """Returns the errors."""
        errors = self.stream.ack(*self.held)
        self.held = []
        return errors


class ConsumeMovesTest(ReplicasTest):
    """Three replicas. The owner has no consumers of its own; of the others, one will be the next owner."""

    def setUp(self):
        super().setUp()
        self.owner, self.at_owner = self.replica()
        self.at_owner.create_queue("q")
        self.others = [self.replica(), self.replica()]
        self.workers = [Worker(client) for _, client in self.others]
        for worker in self.workers:
            self.addCleanup(worker.stream.cancel)

    def enqueue(self, *texts):
        """Through a replica that stays."""
        client = self.others[0][1]

        def tries():
            try:
                return client.enqueue("q", *texts, request_id=texts[0])
            except grpc.RpcError as error:
                self.assertEqual(error.code(), grpc.StatusCode.UNAVAILABLE, error)
                return None
        until(tries, "it is enqueued", 60)

    def hold(self):
        """Each worker holds what it may."""
        self.enqueue(*(f"before-{i}" for i in range(HELD)))
        for worker in self.workers:
            worker.take(HELD // 2)

    def assert_nothing_was_lost(self, pause_max_s, since):
        """What is new comes to the streams that were open before, and nothing that they hold; all tokens are good."""
        self.enqueue(*(f"after-{i}" for i in range(HELD)))
        for worker in self.workers:
            worker.stream.send(credit=message_pb2.Credit(messages=HELD // 2, bytes=1 << 20))
        for worker in self.workers:
            worker.take(HELD // 2)
        pause_s = time.monotonic() - since
        print(f"{self.id().rpartition('.')[2]}: new messages after {pause_s:.2f} s", file=sys.stderr)
        self.assertLess(pause_s, pause_max_s)
        seen = [body for worker in self.workers for body in bodies(worker.held)]
        self.assertEqual(sorted(seen), sorted(f"{when}-{i}" for when in ("before", "after") for i in range(HELD)))
        for worker in self.workers:
            self.assertEqual(worker.settle(), [])
        self.others[0][1].wait_for_counts("q", 0, 0, 0)

    # The owner stops in good order: the streams of the next owner and of the replica that only relays go on, nothing held
    # comes again, and all tokens are good.
    def test_owner_stops(self):
        self.hold()
        stopped_at = time.monotonic()
        self.assertEqual(self.owner.stop(), 0)
        self.assert_nothing_was_lost(PAUSE_AFTER_STOP_MAX_S, stopped_at)

    # The owner is killed: both replicas announce what their clients hold, and none of it comes again.
    def test_owner_is_killed(self):
        self.hold()
        self.owner.kill()
        self.assert_nothing_was_lost(PAUSE_AFTER_KILL_MAX_S, time.monotonic())

    # Frames that nobody has answered when the owner dies are answered by the next one, in order, as done.
    def test_frames_without_an_answer(self):
        self.hold()
        self.owner.process.send_signal(signal.SIGSTOP)
        sequences = {}
        for worker in self.workers:
            sequences[worker] = [worker.stream.send(ack_tokens=flat_tokens([delivery])) for delivery in worker.held]
        self.owner.kill()
        for worker in self.workers:
            for sequence in sequences[worker]:
                settled = worker.stream.next_of("settled", 60)
                self.assertEqual((settled.sequence, list(settled.failures)), (sequence, []))
        self.others[0][1].wait_for_counts("q", 0, 0, 0)

    # Heartbeats go on while there is no owner, and say so; then there is one again.
    def test_heartbeats_without_an_owner(self):
        self.hold()
        self.owner.kill()
        until(lambda: not self.workers[0].stream.next_of("heartbeat", 30).has_owner, "there is no owner", 30)
        until(lambda: self.workers[0].stream.next_of("heartbeat", 30).has_owner, "there is an owner again", 60)
        self.assert_nothing_was_lost(60, time.monotonic())

    # The replica that a client is connected to is another matter: killed, it ends the stream with UNAVAILABLE.
    def test_losing_the_own_replica(self):
        self.hold()
        self.others[0][0].kill()
        with self.assertRaises(grpc.RpcError) as raised:
            while True:
                self.workers[0].stream.next()
        self.assertEqual(raised.exception.code(), grpc.StatusCode.UNAVAILABLE)
        self.assertEqual(self.workers[1].settle(), [])

    # Asked to leave, a client of a replica that only relays is told by Draining, and can still settle.
    def test_own_replica_drains(self):
        self.hold()
        self.others[0][0].process.terminate()
        draining = self.workers[0].stream.next_of("draining", 30)
        self.assertGreater(draining.grace.seconds, 0)
        self.assertEqual(self.workers[0].settle(), [])
        self.workers[0].stream.half_close()
        self.assertEqual(self.others[0][0].process.wait(60), 0)


if __name__ == "__main__":
    unittest.main()
