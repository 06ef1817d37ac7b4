"""Two postkeeperd on one ZooKeeper: each registers itself once, and each sees both, until one has gone."""

import json
import pathlib
import re
import signal
import socket
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from client import Client, cluster_pb2, connection, until  # noqa: E402
from postkeeperd import Postkeeperd  # noqa: E402
from zookeeper import Zookeeper  # noqa: E402

SESSION_TIMEOUT_S = 2
# ZooKeeper expires sessions at its ticks, and this machine may be busy.
EXPIRY_MAX_S = SESSION_TIMEOUT_S + 8


def list_replicas(client, **fields):
    return client.cluster.ListReplicas(cluster_pb2.ListReplicasRequest(**fields), timeout=20)


def owned_by(listed, server):
    return next(replica.sources_owned for replica in listed.replicas if replica.address == server.address)


class ReplicasTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.zookeeper = Zookeeper()
        cls.addClassCleanup(cls.zookeeper.close)

    @property
    def root(self):
        """A store of this test's own."""
        return f"/{self.id().rpartition('.')[2]}"

    def start_replica(self, *flags, balance_after="1h"):
        server = Postkeeperd("--zookeeper", self.zookeeper.hosts, "--root", self.root, "--auto-create", "on",
                             "--session-timeout", f"{SESSION_TIMEOUT_S}s", "--balance-after", balance_after, *flags)
        self.addCleanup(server.close)
        client = Client(server.address)
        self.addCleanup(client.close)
        return server, client

    def wait_for_addresses(self, client, *servers, timeout_s=10):
        """Until ListReplicas names exactly these; returns it."""
        wanted = sorted(server.address for server in servers)

        def look():
            listed = list_replicas(client).replicas
            return listed if sorted(replica.address for replica in listed) == wanted else None
        return until(look, f"the replicas are {wanted}", timeout_s)

    # Each of two replicas lists both, with all that there is to know of them.
    def test_both_are_listed_on_either(self):
        before = time.time()
        one, one_client = self.start_replica()
        two, two_client = self.start_replica()
        version = (connection.ROOT / "VERSION").read_text(encoding="utf-8").strip()
        for client in (one_client, two_client):
            listed = self.wait_for_addresses(client, one, two)
            self.assertEqual([replica.name for replica in listed], sorted(replica.name for replica in listed))
            for replica in listed:
                self.assertRegex(replica.name, "^r[A-Za-z0-9_-]{22}$")
                self.assertEqual(replica.version, version)
                self.assertGreaterEqual(replica.start_time.ToMilliseconds() / 1000, before - 1)
                self.assertLessEqual(replica.start_time.ToMilliseconds() / 1000, time.time() + 1)
        names = {replica.address: replica.name for replica in listed}
        for server, client in ((one, one_client), (two, two_client)):
            info = client.cluster.GetServerInfo(cluster_pb2.GetServerInfoRequest(), timeout=20)
            self.assertEqual(info.replica, names[server.address])

    # The list comes in pages, each replica once; a token that is not of this list is refused.
    def test_pages(self):
        one, client = self.start_replica()
        two, _ = self.start_replica()
        both = self.wait_for_addresses(client, one, two)
        first = list_replicas(client, page_size=1)
        self.assertEqual(list(first.replicas), [both[0]])
        second = list_replicas(client, page_size=1, page_token=first.next_page_token)
        self.assertEqual((list(second.replicas), second.next_page_token), ([both[1]], ""))

    # How many queues and topics each owns is counted, and follows when they are created and deleted.
    def test_what_each_owns(self):
        one, client = self.start_replica()

        def owned():
            return sum(replica.sources_owned for replica in list_replicas(client).replicas)

        self.assertEqual(owned(), 0)
        for name in ("a", "b", "c"):
            client.enqueue(name, "x")
        client.publish("t", "x")
        until(lambda: owned() == 4, "four are owned")
        one.cli("queue", "rm", "a")
        until(lambda: owned() == 3, "three are owned")
        self.start_replica()
        until(lambda: len(list_replicas(client).replicas) == 2, "both are there")
        self.assertEqual(owned(), 3)

    # kill -9 of one: the other lists it until its session has expired, and then no more.
    def test_killed_one_disappears_after_its_session(self):
        one, client = self.start_replica()
        two, _ = self.start_replica()
        self.wait_for_addresses(client, one, two)
        two.kill()
        self.assertEqual(len(list_replicas(client).replicas), 2)
        self.wait_for_addresses(client, one, timeout_s=EXPIRY_MAX_S)
        one.wait_for_log(rf"info a replica has gone\b.*\baddress={re.escape(two.address)}\b")

    # A clean stop of one: the other does not list it any more from the moment it has ended, long before a session ends.
    def test_stopped_one_disappears_at_once(self):
        one, client = self.start_replica()
        two, _ = self.start_replica()
        self.wait_for_addresses(client, one, two)
        self.assertEqual(two.stop(), 0)
        ended_at = time.monotonic()
        self.wait_for_addresses(client, one)
        self.assertLess(time.monotonic() - ended_at, SESSION_TIMEOUT_S / 2)

    # Whatever it does, a process has one ephemeral: ZooKeeper cannot close a session that has too many.
    def test_one_ephemeral_per_process(self):
        one, client = self.start_replica()
        two, _ = self.start_replica()
        listed = self.wait_for_addresses(client, one, two)
        client.create_queue("q0")
        consumer = client.consume("q0", 10)
        self.addCleanup(consumer.cancel)
        for i in range(20):
            client.enqueue(f"q{i}", "x")
            client.publish(f"t{i}", "x")
        until(lambda: sum(replica.sources_owned for replica in list_replicas(client).replicas) == 40, "all are owned")
        sessions = {session: paths for session, paths in self.zookeeper.ephemerals().items()
                    if any(path.startswith(f"{self.root}/") for path in paths)}
        self.assertEqual([len(paths) for paths in sessions.values()], [1, 1], sessions)
        for paths in sessions.values():
            self.assertRegex(paths[0], f"^{self.root}/replicas/[0-9a-f]{{32}}$")
        self.assertEqual(len(listed), 2)

    # Its session lost while it was cut off, a replica registers again by itself, still once.
    def test_registers_again_under_a_new_session(self):
        one, client = self.start_replica()
        two, two_client = self.start_replica()
        before = self.wait_for_addresses(client, one, two)
        two.process.send_signal(signal.SIGSTOP)
        try:
            self.wait_for_addresses(client, one, timeout_s=EXPIRY_MAX_S)
        finally:
            two.process.send_signal(signal.SIGCONT)
        self.assertEqual(list(self.wait_for_addresses(client, one, two)), list(before))
        self.wait_for_addresses(two_client, one, two)

    # A replica that joins gets its share of the queues, and both serve all of them meanwhile.
    def test_shares_the_queues(self):
        one, client = self.start_replica(balance_after="1s")
        for i in range(24):
            client.create_queue(f"q{i}")
        two, _ = self.start_replica(balance_after="1s")
        client, two_client = (Client(server.address, retries=True) for server in (one, two))
        self.addCleanup(client.close)
        self.addCleanup(two_client.close)

        def owned():
            return [replica.sources_owned for replica in list_replicas(client).replicas]

        def works():
            for i in range(24):
                client.enqueue(f"q{i}", "x")
                two_client.ack(f"q{i}", two_client.take(f"q{i}", wait=20))
            return sum(owned()) == 24 and len(owned()) == 2 and min(owned()) >= 4

        until(works, "both have their share", timeout_s=120)
        handed_over = len(re.findall("info handed a queue over", one.log()))
        self.assertGreaterEqual(handed_over, owned_by(list_replicas(client), two))
        for i in range(24):
            self.assertEqual(two_client.counts(f"q{i}"), (0, 0, 0))

    # A replica that is registered and cannot be reached is named in the log of the others.
    def test_unreachable_one_is_told(self):
        one, _ = self.start_replica()
        with socket.create_server(("127.0.0.1", 0)) as silent:
            address = f"127.0.0.1:{silent.getsockname()[1]}"
            self.start_replica("--advertise", address)
            one.wait_for_log(rf"warning cannot reach the replica\b.*\baddress={re.escape(address)}\b")

    # What --advertise says is what others are told, whatever the replica listens on.
    def test_advertised_address(self):
        one, client = self.start_replica("--advertise", "replica-one.example:7411")
        listed = until(lambda: list_replicas(client).replicas, "it is listed")
        self.assertEqual([replica.address for replica in listed], ["replica-one.example:7411"])
        self.assertIn("advertised=replica-one.example:7411", one.log())

    # The command line lists them, for people and for programs.
    def test_command_line(self):
        one, client = self.start_replica()
        two, _ = self.start_replica()
        self.wait_for_addresses(client, one, two)
        lines = one.cli("cluster", "ls").splitlines()
        self.assertRegex(lines[0], "^REPLICA +ADDRESS +VERSION +STARTED +OWNS$")
        self.assertEqual(sorted(line.split()[1] for line in lines[1:]), sorted([one.address, two.address]))
        replicas = [json.loads(line) for line in two.cli("cluster", "ls", "--output", "json").splitlines()]
        self.assertEqual(sorted(replica["address"] for replica in replicas), sorted([one.address, two.address]))


if __name__ == "__main__":
    unittest.main()
