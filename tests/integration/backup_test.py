"""Backup and restore of the embedded ZooKeeper, by the very commands of docs/OPERATIONS.md."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from client import Client, admin_pb2, bodies, grpc, until  # noqa: E402
from postkeeperd import Postkeeperd, clean_environment  # noqa: E402
from zookeeper import free_port  # noqa: E402

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs/OPERATIONS.md"


def commands(heading):
    """The block marked `sh` under this heading of the page."""
    section = PAGE.read_text(encoding="utf-8").partition(f"\n### {heading}\n")[2].partition("\n##")[0]
    return re.search(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)[1]


class Producer:
    """Enqueues 0, 1, 2 ... one after the other, until it is stopped. Reading `answered` is safe at any time."""

    def __init__(self, address, queue):
        self.answered = 0
        self.client, self.queue = Client(address), queue
        self.is_stopping = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.is_stopping.is_set():
            self.client.enqueue(self.queue, self.answered)
            self.answered += 1

    def stop(self):
        self.is_stopping.set()
        self.thread.join()
        self.client.close()


class BackupTest(unittest.TestCase):
    def setUp(self):
        self.server = Postkeeperd("--session-timeout", "2s")
        self.addCleanup(self.server.close)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.environment = {"DATA": str(self.server.folder / "data/zookeeper/data/version-2"),
                            "BACKUP": str(self.folder / "backup")}
        self.client = Client(self.server.address)
        self.addCleanup(self.client.close)

    def type(self, heading, **more):
        """What is typed by whoever reads this part of the page; the server's programs are on the PATH."""
        environment = clean_environment(**self.environment, **more)
        text = commands(heading).replace(":7420", f":{free_port()}")
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", text], env=environment, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
        self.assertEqual(done.returncode, 0, done.stdout)
        return done.stdout

    def start(self):
        self.server.start()

        def serves():
            try:
                return self.client.health() == "SERVING"
            except grpc.RpcError:  # of the connection to the one before
                return False
        until(serves, "the server serves")

    # A backup of a server that runs, with a producer at work: it has all that was answered before it began, nothing of
    # what came after it ended, and of what came meanwhile a beginning without gaps. So says a trial of it, beside the server
    # that goes on, which the backup names as a replica that lives; and so it is when it is restored.
    def test_of_a_server_that_runs(self):
        self.client.enqueue("orders", *range(1000))
        self.client.ack("orders", self.client.dequeue("orders", 100))
        self.assertEqual(len(self.client.dequeue("orders", 10, lease=600).deliveries), 10)
        self.client.publish("news", *range(10))
        producer = Producer(self.server.address, "meanwhile")
        self.addCleanup(producer.stop)
        until(lambda: producer.answered > 20, "the producer is at work")
        before = producer.answered
        self.type("Backing up")
        after = producer.answered
        until(lambda: producer.answered > after + 20, "the producer is still at work")
        producer.stop()
        self.client.enqueue("orders", *range(1000, 1500))
        self.client.ack("orders", self.client.dequeue("orders", 200))

        tried = self.type("Trying a backup", TRIAL=str(self.folder / "trial"))
        self.assertRegex(tried, r"(?m)^ready: +900$")
        self.assertEqual(self.client.counts("orders"), (1190, 0, 10))

        self.assertEqual(self.server.stop(), 0)
        self.type("Restoring")
        shutil.rmtree(self.environment["DATA"] + ".before")
        self.start()
        # Leases were in the memory of the server that ran; what nobody had acked is there, all of it.
        self.client.wait_for_counts("orders", 900, 0, 0)
        self.assertEqual(bodies(self.client.drain("orders")), [str(i) for i in range(100, 1000)])
        self.assertEqual(bodies(self.client.subscribe("news", earliest=True).messages(10)), [str(i) for i in range(10)])
        kept = bodies(self.client.drain("meanwhile"))
        self.assertEqual(kept, [str(i) for i in range(len(kept))])
        self.assertGreaterEqual(len(kept), before)
        self.assertLessEqual(len(kept), after + 1)  # one was on its way

    # Of a server that was stopped: what was done after the backup has not happened. Leases of before it count; ids of what is
    # new are new; a call that was repeated since is known or not, as it was then.
    def test_of_a_stopped_server(self):
        kept = self.client.enqueue("orders", *range(1000), request_id="first")
        held = self.client.dequeue("orders", 1, lease=600)
        self.assertEqual(self.server.stop(), 0)
        self.type("Backing up")
        self.start()
        self.assertEqual(self.client.counts("orders"), (999, 0, 1))
        lost = self.client.enqueue("orders", *range(1000, 1100), request_id="second")
        self.client.create_queue("later")
        self.assertEqual(self.client.ack("orders", self.client.dequeue("orders", 500)), [])
        self.assertEqual(self.server.stop(), 0)
        self.type("Restoring")
        self.start()
        self.assertEqual(self.client.counts("orders"), (999, 0, 1))
        listed = self.client.admin.ListQueues(admin_pb2.ListQueuesRequest(), timeout=30).queues
        self.assertEqual([queue.name for queue in listed], ["namespaces/default/queues/orders"])
        self.assertEqual(self.client.enqueue("orders", *range(1000), request_id="first"), kept)
        again = self.client.enqueue("orders", *range(1000, 1100), request_id="second")
        self.assertEqual(set(again) & {*lost, *kept}, set())
        self.assertEqual(self.client.ack("orders", held), [])
        self.assertEqual(bodies(self.client.drain("orders")), [str(i) for i in range(1, 1100)])


if __name__ == "__main__":
    unittest.main()
