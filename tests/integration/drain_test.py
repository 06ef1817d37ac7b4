"""SIGTERM: the server tells everybody, finishes what is in flight, and ends with 0; a second signal ends it at once."""

import pathlib
import signal
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from client import Client, Frames, Outgoing, Refusal, bodies, grpc, message_pb2, messages, refusal, until  # noqa: E402
from postkeeperd import Postkeeperd  # noqa: E402


class DrainTest(unittest.TestCase):
    def start(self, *flags):
        self.server = Postkeeperd(*flags)
        self.addCleanup(self.server.close)
        self.client = self.connect()

    def connect(self):
        client = Client(self.server.address)
        self.addCleanup(client.close)
        return client

    def signal(self, number=signal.SIGTERM):
        self.signalled_at = time.monotonic()
        self.server.process.send_signal(number)

    def assert_ends(self, code=0, within_s=25):
        """`within_s` counts from the signal."""
        self.assertEqual(self.server.process.wait(within_s + 20), code, self.server.log())
        self.assertLess(time.monotonic() - self.signalled_at, within_s)

    def assert_draining(self, call):
        refused = refusal(call)
        self.assertEqual((refused.code, refused.reason), ("UNAVAILABLE", "REPLICA_DRAINING"), refused)
        self.assertGreater(refused.retry_s, 0)
        return refused

    # The whole: health says so, new calls are refused with when to repeat, streams are asked to leave, settling is
    # still done and answered, and when everybody has left the process ends with 0.
    def test_drain(self):
        self.start()
        self.client.enqueue("q", "a", "b", "c")
        self.client.create_queue("idle")
        consumer = self.client.consume("q")
        deliveries = consumer.deliveries(3)
        subscriber = self.client.subscribe("t").open()
        waiting = self.client.stub.Dequeue.future(self.client.dequeue_request("idle", wait=60), timeout=90)
        self.client.wait_for_consumers("idle", 1)
        out = Outgoing()
        stream = Frames(self.client.stub.EnqueueStream(iter(out)))
        out.send(message_pb2.EnqueueStreamRequest(queue="q", messages=messages("before")))
        self.assertEqual(len(stream.next().message_ids), 1)
        deliveries += consumer.deliveries(1)

        self.signal()
        draining = consumer.next_of("draining")
        self.assertNotEqual(draining.reason, "")
        self.assertGreater(draining.grace.seconds, 5)
        for service in ("", "postkeeper.v1.MessageService"):
            self.assertEqual(self.client.health(service), "NOT_SERVING")
        self.assertEqual(self.client.health("liveness"), "SERVING")
        for client in (self.client, self.connect()):
            refused = self.assert_draining(lambda client=client: client.enqueue("q", "late"))
            self.assertIsNotNone(refused.pushback_ms)
            self.assert_draining(lambda client=client: client.dequeue("q"))
            self.assert_draining(lambda client=client: client.consume("q"))
            self.assert_draining(lambda client=client: client.create_queue("new"))
        self.assert_draining(waiting.result)
        self.assert_draining(lambda: subscriber)
        self.assertEqual(consumer.ack(deliveries[:2]), [])
        self.assertEqual(self.server.process.poll(), None)

        consumer.finish()
        out.half_close()
        end = [frame for frame in self.end_of(stream)]
        self.assertTrue(end in ([], ["REPLICA_DRAINING"]), end)
        self.assert_ends(0)
        self.assertNotIn(" error ", self.server.log())

        self.server.start()
        until(lambda: self.is_serving(), "the server serves again")
        self.client.wait_for_counts("q", 0, 0, 2)  # leases are handed over
        self.assertEqual(self.client.ack("q", deliveries[2:]), [])

    def is_serving(self):
        try:
            return self.client.health() == "SERVING"
        except grpc.RpcError:
            return False

    @staticmethod
    def end_of(stream):
        try:
            return [frame for frame in stream]
        except grpc.RpcError as error:
            return [Refusal(error).reason]

    # Streams that do not leave are ended when the grace is over; the exit code is 0 all the same. SIGINT does the same.
    def test_streams_that_stay(self):
        self.start("--drain-timeout", "4s")
        self.client.enqueue("q", "a")
        consumer = self.client.consume("q")
        consumer.deliveries(1)
        self.signal(signal.SIGINT)
        grace = consumer.next_of("draining").grace
        self.assertLessEqual(grace.seconds + grace.nanos / 1e9, 4)
        self.assert_draining(lambda: consumer)
        self.assert_ends(0, within_s=8)

    # Nobody is there: it ends at once.
    def test_idle(self):
        self.start()
        self.signal()
        self.assert_ends(0, within_s=15)

    # What is in flight is answered: each of the calls is either done or refused for sure, and exactly those that were
    # done are there afterwards.
    def test_writes_in_flight(self):
        self.start()
        self.client.create_queue("q")
        clients = [self.connect() for _ in range(4)]
        calls = {}
        for i in range(400):
            request = message_pb2.EnqueueRequest(queue="q", messages=messages(i))
            calls[str(i)] = clients[i % 4].stub.Enqueue.future(request, timeout=30)
            if i == 300:
                calls["0"].result()  # else a busy machine may not have got to any of them
                self.signal()
        written, refused = set(), set()
        for body, call in calls.items():
            if call.exception() is None:
                written.add(body)
            else:
                refused.add(Refusal(call.exception()).reason)
        self.assert_ends(0)
        self.assertLessEqual(refused, {"REPLICA_DRAINING", ""})  # "": it came when the port was closed
        self.assertGreater(len(written), 0)
        self.server.start()
        until(self.is_serving, "the server serves again")
        self.assertEqual({int(body) for body in bodies(self.client.drain("q"))}, {int(body) for body in written})

    # A second signal ends it at once; what was answered OK is there afterwards.
    def test_second_signal(self):
        self.start()
        self.client.enqueue("q", "a")
        consumer = self.client.consume("q")
        delivery = consumer.deliveries(1)[0]
        self.signal()
        consumer.next_of("draining")
        self.signal()
        self.assert_ends(128 + signal.SIGTERM, within_s=5)
        self.server.start()
        until(self.is_serving, "the server serves again")
        again = self.client.take("q")
        self.assertEqual(again.message_id, delivery.message_id)


if __name__ == "__main__":
    unittest.main()
