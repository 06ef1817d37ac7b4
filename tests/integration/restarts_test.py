"""Nothing is lost, and nothing comes back, when postkeeperd or its ZooKeeper ends in whatever way."""

import os
import pathlib
import signal
import sys
import threading
import time
import unittest
import uuid

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from client import Client, bodies, grpc, message_pb2, messages, tokens, until  # noqa: E402
from postkeeperd import Postkeeperd  # noqa: E402


class Load:
    """Producers and consumers that go on until they are stopped, and note what was answered OK."""

    def __init__(self, address, queue, producers=3, consumers=2):
        self.address, self.queue = address, queue
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.tried, self.enqueued, self.delivered, self.acked, self.held = set(), set(), [], set(), {}
        self.threads = [threading.Thread(target=self.produce, args=(i,)) for i in range(producers)]
        self.threads += [threading.Thread(target=self.consume) for _ in range(consumers)]
        for thread in self.threads:
            thread.start()

    def produce(self, number):
        client, i = Client(self.address), 0
        while not self.stop.is_set():
            batch = [f"{number}.{i + j}" for j in range(5)]
            i += 5
            with self.lock:
                self.tried |= set(batch)
            try:
                client.enqueue(self.queue, *batch, timeout=10)
            except grpc.RpcError:
                self.stop.wait(0.05)
                continue
            with self.lock:
                self.enqueued |= set(batch)
        client.close()

    def consume(self):
        client = Client(self.address)
        while not self.stop.is_set():
            try:
                deliveries = client.dequeue(self.queue, 20, wait=1, lease=120, timeout=10).deliveries
                with self.lock:
                    self.delivered += bodies(deliveries)
                    self.held.update({item.message.body.decode(): item.lease_token for item in deliveries})
                done = deliveries[::2]
                if done and not client.ack(self.queue, done, timeout=10):
                    with self.lock:
                        self.acked |= set(bodies(done))
                        for body in bodies(done):
                            del self.held[body]
            except grpc.RpcError:
                self.stop.wait(0.05)
        client.close()

    def counts(self):
        with self.lock:
            return len(self.enqueued), len(self.acked)

    def finish(self):
        self.stop.set()
        for thread in self.threads:
            thread.join()


class RestartsTest(unittest.TestCase):
    def setUp(self):
        self.server = Postkeeperd()
        self.addCleanup(self.server.close)
        self.client = self.connect()

    def connect(self, **options):
        client = Client(self.server.address, **options)
        self.addCleanup(client.close)
        return client

    def wait_until_serving(self):
        def is_serving():
            try:
                return self.client.health() == "SERVING"
            except grpc.RpcError:
                return False
        until(is_serving, "the server serves")

    # A restart in order: everything is there, leases and their tokens live on, attempts are known, delays hold.
    def test_restart(self):
        self.client.enqueue("q", *range(1000))
        held = self.client.dequeue("q", 10, lease=120).deliveries
        nacked, later, again = self.client.dequeue("q", 3).deliveries
        self.client.nack("q", nacked, delay=0)
        self.client.nack("q", later, delay=600)
        self.client.ack("q", again)
        self.server.restart()
        self.wait_until_serving()
        self.client.wait_for_counts("q", 988, 1, 10)
        self.assertEqual(self.client.ack("q", held), [])
        deliveries = self.client.drain("q")
        self.assertEqual(bodies(item for item in deliveries if item.attempt == 1), [str(i) for i in range(13, 1000)])
        self.assertEqual(bodies(item for item in deliveries if item.attempt == 2), ["10"])
        self.assertEqual(self.client.counts("q"), (0, 1, 0))

    # Subscribers resume where they were; a restart loses nothing of a topic.
    def test_restart_and_topics(self):
        self.client.publish("t", "1", "2")
        subscriber = self.client.subscribe("t", earliest=True)
        self.assertEqual(bodies(subscriber.messages(1)), ["1"])
        first = subscriber.messages(1)[0]
        self.server.restart()
        self.wait_until_serving()
        self.client.publish("t", "3")
        self.assertEqual(bodies(self.client.subscribe("t", after=first.position).messages(1)), ["3"])
        self.assertEqual(bodies(self.client.subscribe("t", earliest=True).messages(3)), ["1", "2", "3"])

    # kill -9 under load: what was answered OK is there, what was acked does not come again, nothing comes that was not
    # sent; and what was held can still be acked with the tokens of before.
    def test_kill_under_load(self):
        load = Load(self.server.address, "q")
        self.addCleanup(load.finish)
        until(lambda: min(load.counts()) > 300, "some hundred messages are enqueued and acked", 60)
        self.server.kill()
        load.finish()
        self.server.start()
        self.wait_until_serving()
        held = dict(load.held)
        self.assertGreater(len(held), 0)
        # An ack whose answer was lost may have been done: then it is settled already, which is success.
        failures = self.client.stub.Ack(message_pb2.AckRequest(source="q", lease_tokens=list(held.values())[:1000]),
                                        timeout=30).failures
        self.assertEqual({failure.error for failure in failures} - {message_pb2.SETTLE_ERROR_ALREADY_SETTLED}, set())
        acked = load.acked | set(list(held)[:1000])
        left = bodies(self.client.drain("q"))
        self.assertEqual(len(left), len(set(left)))
        self.assertEqual(set(left) & acked, set(), "acked, and yet delivered")
        self.assertEqual(load.enqueued - acked - set(left), set(), "answered OK, and lost")
        self.assertEqual((set(left) | acked) - load.tried, set(), "never sent")

    # The embedded ZooKeeper is killed under load: it runs again, and nothing was lost or came back.
    def test_zookeeper_killed_under_load(self):
        load = Load(self.server.address, "q")
        self.addCleanup(load.finish)
        until(lambda: min(load.counts()) > 200, "some hundred messages are enqueued and acked", 60)
        for _ in range(2):
            before = self.server.zookeeper_pid()
            os.kill(before, signal.SIGKILL)
            until(lambda before=before: self.server.zookeeper_pid() != before, "ZooKeeper runs again")
            enqueued, acked = load.counts()
            until(lambda: load.counts()[0] > enqueued + 100 and load.counts()[1] > acked + 100, "the work goes on", 60)
        load.finish()
        self.wait_until_serving()
        delivered_before = list(load.delivered)
        failures = self.client.ack("q", list(load.held.values())[:1000])
        self.assertEqual(set(failures) - {message_pb2.SETTLE_ERROR_ALREADY_SETTLED}, set())
        acked = load.acked | set(list(load.held)[:1000])
        left = bodies(self.client.drain("q"))
        self.assertEqual(set(left) & acked, set(), "acked, and yet delivered")
        self.assertEqual(load.enqueued - acked - set(left), set(), "answered OK, and lost")
        self.assertEqual(len(delivered_before), len(set(delivered_before)), "held by one, and yet delivered to another")

    # kill -9 between a call and its repeat: the repeat gets the first answer, whether the message is still there or was
    # acked and is gone, and nothing is written twice. A stream's frames are answered in order, known or new.
    def test_request_ids_survive_a_kill(self):
        kept = self.client.enqueue("q", "kept", request_id="kept")
        settled = self.client.enqueue("done", "a", "b", request_id="settled")
        self.assertEqual(bodies(self.client.drain("done")), ["a", "b"])
        published = self.client.publish("t", "m", request_id="published")
        for _ in range(2):
            self.server.kill()
            self.server.start()
            self.wait_until_serving()
            self.assertEqual(self.client.enqueue("done", "a", "b", request_id="settled"), settled)
            self.assertEqual(self.client.publish("t", "m", request_id="published"), published)
            frames = [message_pb2.EnqueueStreamRequest(queue="q", messages=messages("kept"), request_id="kept"),
                      message_pb2.EnqueueStreamRequest(messages=messages("without")),
                      message_pb2.EnqueueStreamRequest(messages=messages("new"), request_id="new")]
            answers = [list(answer.message_ids) for answer in self.client.stub.EnqueueStream(iter(frames), timeout=60)]
            self.assertEqual([len(ids) for ids in answers], [1, 1, 1])
            self.assertEqual(answers[0], kept)
        self.assertEqual(bodies(self.client.drain("done")), [])
        self.assertEqual(bodies(self.client.drain("q")), ["kept", "without", "new", "without"])
        self.client.publish("t", "end")
        self.assertEqual(bodies(self.client.subscribe("t", earliest=True).messages(2)), ["m", "end"])

    # With request_id and the service config's retries a producer need not know of any of this: each message is there
    # once, and the consumer of a stream sees them in order.
    def test_retries_bridge_a_restart(self):
        client = self.connect(retries=True)
        sent = [str(i) for i in range(300)]
        def produce():
            for body in sent:
                client.enqueue("q", body, request_id=str(uuid.uuid4()), timeout=60)
        producer = threading.Thread(target=produce)
        producer.start()
        until(lambda: self.client.stats("q").ready > 50 if self.is_there("q") else False, "some are there")
        self.server.restart()
        producer.join()
        self.assertEqual(bodies(client.drain("q")), sent)

    def is_there(self, queue):
        try:
            self.client.stats(queue)
            return True
        except grpc.RpcError:
            return False

    # A call that is made while nobody listens waits for the server, within its deadline.
    def test_calls_wait_for_the_server(self):
        client = self.connect(retries=True)
        client.enqueue("q", "before")
        self.assertEqual(self.server.stop(), 0)
        request = message_pb2.EnqueueRequest(queue="q", messages=messages("meanwhile"), request_id="r")
        waiting = client.stub.Enqueue.future(request, timeout=60)
        started = time.monotonic()
        self.server.start()
        self.assertEqual(len(waiting.result().message_ids), 1)
        self.assertLess(time.monotonic() - started, 60)
        self.assertEqual(bodies(client.drain("q")), ["before", "meanwhile"])

    # A crash between two deliveries: the attempts that were told are not told again as fewer.
    def test_attempts_survive_a_crash(self):
        self.client.enqueue("q", "a")
        for _ in range(3):
            self.client.nack("q", self.client.take("q"), delay=0)
        delivery = self.client.take("q")
        self.assertEqual(delivery.attempt, 4)
        self.server.kill()
        self.server.start()
        self.wait_until_serving()
        again = self.client.take("q")
        self.assertEqual(again.attempt, 5)
        self.assertEqual(self.client.ack("q", delivery), [message_pb2.SETTLE_ERROR_STALE_LEASE])
        self.assertEqual(self.client.ack("q", tokens([again])), [])


if __name__ == "__main__":
    unittest.main()
