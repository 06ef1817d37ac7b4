"""Several replicas in front of one ZooKeeper, each with a client of its own."""

import unittest

from client import Client
from postkeeperd import Postkeeperd
from zookeeper import Zookeeper


class ReplicasTest(unittest.TestCase):
    """Owners keep what they have: nothing is balanced."""

    session_s = 4

    def setUp(self):
        self.zookeeper = Zookeeper()
        self.addCleanup(self.zookeeper.close)

    def replica(self):
        """One more, and its client."""
        server = Postkeeperd("--zookeeper", self.zookeeper.hosts, "--session-timeout", f"{self.session_s}s",
                             "--balance-after", "1h")
        self.addCleanup(server.close)
        client = Client(server.address)
        self.addCleanup(client.close)
        return server, client


class TwoReplicasTest(ReplicasTest):
    """`self.here` has made the queue q and the topic t, and works for them; `self.there` does not."""

    def setUp(self):
        super().setUp()
        self.owner, self.here = self.replica()
        self.here.create_queue("q")
        self.here.create_topic("t")
        self.other, self.there = self.replica()
