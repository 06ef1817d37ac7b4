"""ZooKeeper goes and comes back: calls are answered in time, the process lives, everything recovers by itself."""

import pathlib
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from client import Client, Refusal, bodies, grpc, message_pb2, messages, until  # noqa: E402
from postkeeperd import Postkeeperd  # noqa: E402
from zookeeper import Zookeeper  # noqa: E402

ANSWER_S = 2
BUSY_S = 1  # for a machine with other things to do


class ZookeeperLossTest(unittest.TestCase):
    def setUp(self):
        self.zookeeper = Zookeeper()
        self.addCleanup(self.zookeeper.close)

    def start(self, *flags, waits=True):
        self.server = Postkeeperd("--zookeeper", self.zookeeper.hosts, "--auto-create", "on", *flags, waits=waits)
        self.addCleanup(self.server.close)
        self.client = Client(self.server.address)
        self.addCleanup(self.client.close)

    def wait_for_health(self, status):
        until(lambda: self.client.health() == status, f"readiness is {status}", 40)
        self.assertEqual(self.client.health("liveness"), "SERVING")

    def calls(self, delivery, timeout):
        """One of each kind, begun now."""
        stub = self.client.stub
        return {
            "Enqueue": stub.Enqueue.future(
                message_pb2.EnqueueRequest(queue="q", messages=messages("maybe")), timeout=timeout),
            "Enqueue with request_id": stub.Enqueue.future(
                message_pb2.EnqueueRequest(queue="q", messages=messages("once"), request_id="r"), timeout=timeout),
            "Publish": stub.Publish.future(
                message_pb2.PublishRequest(topic="t", messages=messages("maybe")), timeout=timeout),
            "Ack": stub.Ack.future(
                message_pb2.AckRequest(source="q", lease_tokens=[delivery.lease_token]), timeout=timeout),
            "Enqueue to a new queue": stub.Enqueue.future(
                message_pb2.EnqueueRequest(queue="new", messages=messages("maybe")), timeout=timeout),
        }

    def assert_answered(self, calls, since, within_s):
        for name, call in calls.items():
            with self.subTest(name):
                refused = Refusal(call.exception())
                self.assertLess(time.monotonic() - since, within_s, refused)
                unknown = refused.reason == "OUTCOME_UNKNOWN"
                self.assertTrue(unknown or refused.reason == "ZOOKEEPER_UNAVAILABLE", refused)
                is_repeated_blindly = unknown and name in ("Enqueue", "Publish", "Enqueue to a new queue")
                self.assertEqual(refused.code, "ABORTED" if is_repeated_blindly else "UNAVAILABLE", refused)
                self.assertEqual(refused.retry_s is not None, refused.code == "UNAVAILABLE", refused)
                self.assertEqual(refused.pushback_ms is not None, refused.code == "UNAVAILABLE", refused)

    # ZooKeeper is killed: calls that were begun before and after are answered within 2 s, streams and waiting calls
    # stay, and when ZooKeeper is back everything goes on with nothing lost.
    def test_killed_and_back(self):
        self.start()
        self.client.enqueue("q", *range(100))
        self.client.publish("t", "before")
        delivery = self.client.take("q", lease=600)
        consumer = self.client.consume("other")
        consumer.next_of("opened")
        subscriber = self.client.subscribe("t", earliest=True)
        self.assertEqual(bodies(subscriber.messages(1)), ["before"])
        self.client.create_queue("empty")
        waiting = self.client.stub.Dequeue.future(self.client.dequeue_request("empty", wait=60), timeout=90)
        self.client.wait_for_consumers("empty", 1)

        self.zookeeper.pause()  # so that the calls are on their way when it goes
        calls = self.calls(delivery, timeout=20)
        lost_at = time.monotonic()
        self.zookeeper.kill()
        self.assert_answered(calls, lost_at, ANSWER_S + BUSY_S)
        self.wait_for_health("NOT_SERVING")
        begun = time.monotonic()
        self.assert_answered(self.calls(delivery, timeout=20), begun, ANSWER_S + BUSY_S)
        begun = time.monotonic()
        with self.assertRaises(grpc.RpcError) as raised:  # no later than its deadline
            self.client.enqueue("q", "maybe", timeout=0.5)
        self.assertLess(time.monotonic() - begun, 1 + BUSY_S)
        self.assertIn(raised.exception.code(), (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE))
        self.assertFalse(waiting.done())

        self.zookeeper.start()
        self.wait_for_health("SERVING")
        once = self.client.enqueue("q", "once", request_id="r")
        self.assertEqual(self.client.enqueue("q", "once", request_id="r"), once)
        self.assertIn(self.client.ack("q", delivery), ([], [message_pb2.SETTLE_ERROR_ALREADY_SETTLED]))
        left = bodies(self.client.drain("q"))
        self.assertEqual([body for body in left if body.isdigit()], [str(i) for i in range(1, 100)])
        self.assertEqual(left.count("once"), 1)
        self.assertLessEqual(left.count("maybe"), 3)
        self.client.enqueue("empty", "at last")
        self.assertEqual(bodies(waiting.result()), ["at last"])
        self.client.enqueue("other", "for the stream")
        self.assertEqual(bodies(consumer.deliveries(1)), ["for the stream"])
        self.client.publish("t", "after")
        while bodies(subscriber.messages(1)) != ["after"]:
            pass

    # ZooKeeper hangs until the session is over: a call ends at its deadline at the latest; afterwards there is a new
    # session, and the same messages, leases and streams.
    def test_hangs_until_the_session_expires(self):
        self.start("--session-timeout", "2s")
        self.client.enqueue("q", *range(10))
        delivery = self.client.take("q", lease=600)
        consumer = self.client.consume("other")
        consumer.next_of("opened")
        self.zookeeper.pause()
        begun = time.monotonic()
        for call in self.calls(delivery, timeout=1).values():
            self.assertIsNotNone(call.exception())
        self.assertLess(time.monotonic() - begun, ANSWER_S + BUSY_S)
        self.wait_for_health("NOT_SERVING")
        until(lambda: time.monotonic() - begun > 3.5, "the session is over for ZooKeeper, too")
        self.zookeeper.resume()
        self.wait_for_health("SERVING")
        until(lambda: self.tries(lambda: self.client.enqueue("other", "after", timeout=5)), "writes are accepted")
        self.assertEqual(bodies(consumer.deliveries(1)), ["after"])
        self.assertIn(self.client.ack("q", delivery), ([], [message_pb2.SETTLE_ERROR_ALREADY_SETTLED]))
        left = bodies(self.client.drain("q"))
        self.assertEqual([body for body in left if body.isdigit()], [str(i) for i in range(1, 10)])

    @staticmethod
    def tries(call):
        try:
            call()
            return True
        except grpc.RpcError:
            return False

    # Started before its ZooKeeper: it says so, refuses calls in time, and becomes ready when ZooKeeper is there.
    def test_started_before_zookeeper(self):
        self.zookeeper.kill()
        self.start(waits=False)
        self.wait_for_health("NOT_SERVING")
        begun = time.monotonic()
        refused = Refusal(self.client.stub.Enqueue.future(
            message_pb2.EnqueueRequest(queue="q", messages=messages("x")), timeout=20).exception())
        self.assertEqual((refused.code, refused.reason), ("UNAVAILABLE", "ZOOKEEPER_UNAVAILABLE"), refused)
        self.assertLess(time.monotonic() - begun, ANSWER_S + BUSY_S)
        self.server.wait_for_log("warning .*ZooKeeper")
        self.zookeeper.start()
        self.wait_for_health("SERVING")
        self.client.enqueue("q", "a")
        self.assertEqual(bodies(self.client.drain("q")), ["a"])

    # Without ZooKeeper it ends in order, too.
    def test_stops_without_zookeeper(self):
        self.start("--drain-timeout", "5s")
        self.client.enqueue("q", "a")
        self.zookeeper.kill()
        self.wait_for_health("NOT_SERVING")
        begun = time.monotonic()
        self.assertEqual(self.server.stop(), 0)
        self.assertLess(time.monotonic() - begun, 10)


if __name__ == "__main__":
    unittest.main()
