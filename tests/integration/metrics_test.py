"""The metrics page of two real postkeeperd at work: all that docs/METRICS.md names, and numbers that are true."""

import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from client import Client, message_pb2, until  # noqa: E402
from metrics_page import MetricsPage, documented_metrics, promtool  # noqa: E402
from postkeeperd import Postkeeperd  # noqa: E402
from zookeeper import Zookeeper  # noqa: E402

QUEUES = 6


class MetricsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.zookeeper = Zookeeper()
        cls.addClassCleanup(cls.zookeeper.close)

    def start_replica(self):
        root = f"/{self.id().rpartition('.')[2]}"
        server = Postkeeperd("--zookeeper", self.zookeeper.hosts, "--root", root, "--auto-create", "on",
                             "--session-timeout", "2s", "--balance-after", "1h", metrics_listen="127.0.0.1:0")
        self.addCleanup(server.close)
        client = Client(server.address)
        self.addCleanup(client.close)
        return server, client

    def wait_for(self, server, value, name, **labels):
        def look():
            try:
                return MetricsPage.of(server).sum(name, **labels) == value
            except KeyError:
                return False
        until(look, f"{name} {labels} is {value}")

    # What a real page shows is exactly what docs/METRICS.md lists, and Prometheus's linter has nothing to say.
    def test_the_page_is_what_the_documentation_says(self):
        server, client = self.start_replica()
        client.enqueue("q", "x")
        client.publish("t", "x")
        page = MetricsPage.of(server)
        own = {name for name in page.families if not name.startswith("exposer_")}
        self.assertEqual(own, documented_metrics())
        self.assertEqual(promtool("check", "metrics", stdin=page.text), (0, ""))

    # Streams, consumers with and without credit, subscribers and watches are counted while they are there.
    def test_what_is_open(self):
        server, client = self.start_replica()
        client.create_queue("q")
        client.create_topic("t")
        consumer = client.consume("q", 5, manual_credit=True)
        idle = client.consume("q", 0, manual_credit=True)
        subscriber = client.subscribe("t").open()
        consumer.next_of("opened")
        idle.next_of("opened")
        queue, topic = "namespaces/default/queues/q", "namespaces/default/topics/t"
        self.wait_for(server, 2, "postkeeper_queue_consumers", queue=queue)
        self.wait_for(server, 1, "postkeeper_queue_consumers_with_credit", queue=queue)
        self.wait_for(server, 1, "postkeeper_topic_subscribers", topic=topic)
        self.wait_for(server, 0, "postkeeper_topic_subscribers_behind", topic=topic)
        self.wait_for(server, 2, "postkeeper_calls_in_progress", grpc_method="Consume")
        self.wait_for(server, 1, "postkeeper_calls_in_progress", grpc_method="Subscribe")
        client.publish("t", "x")
        subscriber.messages(1)
        self.wait_for(server, 1, "postkeeper_topic_delivery_age_seconds_count", topic=topic)
        self.wait_for(server, 0, "postkeeper_topic_subscribers_behind", topic=topic)
        page = MetricsPage.of(server)
        self.assertGreater(page.sum("postkeeper_zookeeper_watches"), 0)
        self.assertGreater(page.sum("postkeeper_zookeeper_watched_path_bytes"), page.sum("postkeeper_zookeeper_watches"))
        self.assertEqual(page.sum("postkeeper_logs_polling"), 0)
        self.assertGreater(page.sum("postkeeper_stored_bytes"), 0)
        for stream in (consumer, idle, subscriber):
            stream.cancel()
        self.wait_for(server, 0, "postkeeper_queue_consumers", queue=queue)
        self.wait_for(server, 0, "postkeeper_queue_consumers_with_credit", queue=queue)
        self.wait_for(server, 0, "postkeeper_calls_in_progress", grpc_method="Consume")
        self.assertEqual(MetricsPage.of(server).sum("postkeeper_limit", limit="message_bytes"), 512 << 10)

    # A subscriber whose client reads nothing is behind, until it reads.
    def test_a_subscriber_that_does_not_read(self):
        server, client = self.start_replica()
        client.create_topic("t")
        reader, topic = Client(server.address), "namespaces/default/topics/t"
        self.addCleanup(reader.close)
        call = reader.stub.Subscribe(message_pb2.SubscribeRequest(topic="t"))
        self.addCleanup(call.cancel)
        next(call)
        # More than what the connection and its buffers hold.
        for _ in range(40):
            client.publish("t", b"x" * (500 << 10))
        self.wait_for(server, 1, "postkeeper_topic_subscribers_behind", topic=topic)
        read = 0
        while read < 40:
            read += len(next(call).messages)
        self.wait_for(server, 0, "postkeeper_topic_subscribers_behind", topic=topic)

    # A call that waits in vain for a message is no consumer any more, with or without credit.
    def test_a_call_that_has_ended_is_no_consumer(self):
        server, client = self.start_replica()
        client.create_queue("q")
        for _ in range(20):
            client.dequeue("q", wait=0)
        client.dequeue("q", wait=1)
        page = MetricsPage.of(server)
        self.assertEqual(page.sum("postkeeper_queue_consumers"), 0)
        self.assertEqual(page.sum("postkeeper_queue_consumers_with_credit"), 0)

    # Each log is owned once; calls and streams that come to the wrong replica are counted as relayed; when the owner
    # stops, it has handed over what the other one takes, and that one knows how long it took.
    def test_ownership_and_relays(self):
        one, client = self.start_replica()
        names = [f"q{i}" for i in range(QUEUES)]
        for name in names:
            client.enqueue(name, "x")
        client.publish("t", "x")
        self.wait_for(one, QUEUES, "postkeeper_logs_owned", kind="queue")
        two, other = self.start_replica()
        self.wait_for(two, QUEUES, "postkeeper_logs", kind="queue")
        self.wait_for(two, 1, "postkeeper_logs", kind="topic")
        self.assertEqual(MetricsPage.of(two).sum("postkeeper_logs_owned", kind="queue"), 0)
        for name in names:
            self.assertEqual(other.counts(name), (1, 0, 0))
        self.wait_for(two, QUEUES, "postkeeper_relayed_calls_total", result="answered")
        consumer = other.consume("q0", 1)
        consumer.deliveries(1)
        consumer.cancel()
        self.wait_for(two, 1, "postkeeper_relayed_streams_total")
        taken = MetricsPage.of(one)
        self.assertEqual(taken.sum("postkeeper_log_ownership_changes_total", change="taken"), QUEUES + 1)
        self.assertEqual(taken.sum("postkeeper_log_loading_seconds_count"), QUEUES + 1)
        self.assertEqual(taken.sum("postkeeper_log_ownerless_seconds_count"), 0, "they were new")
        self.assertEqual(one.stop(), 0)
        self.wait_for(two, QUEUES, "postkeeper_logs_owned", kind="queue")
        self.wait_for(two, 1, "postkeeper_logs_owned", kind="topic")
        page = MetricsPage.of(two)
        self.assertEqual(page.sum("postkeeper_log_ownership_changes_total", change="taken"), QUEUES + 1)
        self.assertEqual(page.sum("postkeeper_log_ownership_changes_total", change="lost"), 0)
        self.assertEqual(page.sum("postkeeper_log_ownerless_seconds_count"), QUEUES + 1)
        self.assertGreater(page.sum("postkeeper_log_ownerless_seconds_sum"), 0)

    # A replica that gives some of its logs to one that has joined counts them as handed over; together they hold then what
    # the one held before, each message counted once.
    def test_hand_over_is_counted(self):
        root = f"/{self.id().rpartition('.')[2]}"

        def start():
            server = Postkeeperd("--zookeeper", self.zookeeper.hosts, "--root", root, "--auto-create", "on",
                                 "--balance-after", "1s", metrics_listen="127.0.0.1:0")
            self.addCleanup(server.close)
            return server
        one = start()
        client = Client(one.address)
        self.addCleanup(client.close)
        for i in range(10):
            client.enqueue(f"q{i}", "x")
            client.publish(f"t{i}", "x")
        names = ("postkeeper_queue_messages", "postkeeper_queue_bytes", "postkeeper_topic_messages", "postkeeper_topic_bytes",
                 "postkeeper_stored_bytes")
        self.wait_for(one, 10, "postkeeper_queue_messages")
        self.wait_for(one, 10, "postkeeper_topic_messages")
        page = MetricsPage.of(one)
        before = [page.sum(name) for name in names]
        two = start()

        def is_shared():
            pages = [MetricsPage.of(one), MetricsPage.of(two)]
            given = pages[0].sum("postkeeper_log_ownership_changes_total", change="handed_over")
            owned = pages[1].sum("postkeeper_logs_owned")
            held = [sum(page.sum(name) for page in pages) for name in names]
            return 0 < given == owned and held == before
        until(is_shared, "what one has handed over, the other has")


if __name__ == "__main__":
    unittest.main()
