#!/usr/bin/python3
"""The figures of ZooKeeper that postkeeper's limits and its advice on sizing rest on, measured within loose bounds.

    zookeeper_figures.py [FiguresTest.test_reading_back ...]

Each test prints what it measured. The bounds leave room for slower machines and other releases: what breaks one of them
makes a limit of ours wrong.
"""

import os
import pathlib
import signal
import socket
import sys
import time
import unittest

from kazoo.client import KazooClient

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from postkeeperd import until  # noqa: E402
from zookeeper import Zookeeper  # noqa: E402

MIB = 2**20
BATCH = 512 * 1024
BATCHES = 450
HEAP_MIB = 1536
IN_FLIGHT = 1000


def attach_socket(pid):
    return pathlib.Path(f"/tmp/.java_pid{pid}")


def live_heap_bytes(pid):
    """What the Java process holds after a full collection, asked as jcmd does, which needs a JDK."""
    address = attach_socket(pid)
    if not address.exists():
        wish = pathlib.Path(f"/tmp/.attach_pid{pid}")
        wish.touch()
        os.kill(pid, signal.SIGQUIT)
        until(address.exists, "Java can be asked")
        wish.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(address))
        connection.sendall(b"1\0inspectheap\0-live\0\0\0")
        answer = b""
        while part := connection.recv(65536):
            answer += part
    label, _, size = answer.decode().split("\n")[-2].split()
    assert label == "Total", answer
    return int(size)


class FiguresTest(unittest.TestCase):
    def setUp(self):
        self.zookeeper = Zookeeper(heap_mib=HEAP_MIB)
        # A killed Java leaves the socket behind on which it can be asked.
        self.addCleanup(attach_socket(self.zookeeper.process.pid).unlink, missing_ok=True)
        self.addCleanup(self.zookeeper.close)
        self.client = self.connect()

    def connect(self):
        client = KazooClient(self.zookeeper.hosts, timeout=30)
        client.start(timeout=60)
        self.addCleanup(client.stop)
        return client

    def heap(self):
        return live_heap_bytes(self.zookeeper.process.pid)

    def pipeline(self, calls, in_flight=IN_FLIGHT):
        """Sends without waiting for each answer; returns the seconds that it took. Each call gives an asynchronous result."""
        began = time.monotonic()
        pending = []
        for call in calls:
            pending.append(call)
            if len(pending) > in_flight:
                pending.pop(0).get(timeout=60)
        for one in pending:
            one.get(timeout=60)
        return time.monotonic() - began

    def tell(self, text):
        print(f"{self._testMethodName}: {text}", flush=True)

    def test_heap_is_three_times_what_is_stored(self):
        """Beside the znodes the server keeps the last 500 requests, twice, and 400 replies; deletes free only a part."""
        empty = self.heap()
        self.client.create("/b")
        self.pipeline((self.client.create_async(f"/b/{i}", os.urandom(BATCH)) for i in range(BATCHES)), in_flight=8)
        written = self.heap() - empty
        self.pipeline((self.client.get_async(f"/b/{i}") for i in range(BATCHES)), in_flight=8)
        read = self.heap() - empty
        self.pipeline((self.client.delete_async(f"/b/{i}") for i in range(BATCHES)))
        deleted = self.heap() - empty
        stored = BATCHES * BATCH
        self.tell(f"{stored // MIB} MiB stored: {written // MIB} MiB of heap when written, {read // MIB} when read too, "
                  f"{deleted // MIB} when all is deleted")
        self.assertGreater(written, 1.5 * stored)
        self.assertLess(read, 5.5 * stored)
        self.assertGreater(deleted, 0.5 * stored)

    def test_a_small_znode_costs_500_bytes(self):
        count = 50_000
        self.client.create("/small")
        empty = self.heap()
        self.pipeline(self.client.create_async(f"/small/{i:032x}", b"x" * 50) for i in range(count))
        each = (self.heap() - empty) / count
        self.tell(f"{each:.0f} bytes of heap for each small znode")
        self.assertGreater(each, 250)
        self.assertLess(each, 800)

    def test_ten_thousand_queues(self):
        """What they hold, and how long a new owner needs for all of them: get, set, stat of the log, watch."""
        queues = 10_000
        parts = ["", "/owner", "/head", "/log", "/log/1", "/producers", "/producers/a", "/cursors", "/cursors/a"]
        self.client.create("/q")
        empty = self.heap()
        created_s = self.pipeline(self.client.create_async(f"/q/{i}{part}", b"x" * 50)
                                  for i in range(queues) for part in parts)
        held = self.heap() - empty

        def take_over():
            for i in range(queues):
                yield self.client.get_async(f"/q/{i}/owner")
                yield self.client.set_async(f"/q/{i}/owner", b"me", version=0)
                yield self.client.exists_async(f"/q/{i}/log/1")
                yield self.client.exists_async(f"/q/{i}/log/1/b-0000000000", watch=lambda event: None)

        taken_s = self.pipeline(take_over())
        self.tell(f"{queues} queues of {len(parts)} znodes: created in {created_s:.1f} s, {held // MIB} MiB of heap, "
                  f"taken over in {taken_s:.1f} s")
        self.assertLess(held, 100 * MIB)
        self.assertLess(taken_s, 45)

    def test_reading_back(self):
        """The batches of a log, as a new owner reads them."""
        self.client.create("/b")
        self.pipeline((self.client.create_async(f"/b/{i}", os.urandom(BATCH)) for i in range(BATCHES)), in_flight=8)
        reader = self.connect()
        took_s = self.pipeline((reader.get_async(f"/b/{i}") for i in range(BATCHES)), in_flight=16)
        speed = BATCHES * BATCH / MIB / took_s
        self.tell(f"{speed:.0f} MiB/s read back")
        self.assertGreater(speed, 25)

    def write_behind(self, batches):
        """The seconds that a small write takes behind so many batches on the same session."""
        pending = [self.client.set_async("/big", bytes(BATCH)) for _ in range(batches)]
        began = time.monotonic()
        self.client.set("/small", b"x")
        took = time.monotonic() - began
        for one in pending:
            one.get(timeout=60)
        return took

    def test_a_small_write_waits_behind_large_ones(self):
        """Why a session has no more than 8 MiB in flight."""
        self.client.create("/big")
        self.client.create("/small")
        self.write_behind(16)  # the machine gets warm
        idle, window, many = (min(self.write_behind(batches) for _ in range(3)) for batches in (0, 16, 400))
        self.tell(f"a small write takes {1000 * idle:.1f} ms alone, {1000 * window:.0f} ms behind 8 MiB, "
                  f"{1000 * many:.0f} ms behind 200 MiB")
        self.assertGreater(many, 0.2)
        self.assertLess(window, many / 3)
        self.assertLess(idle, many / 10)


if __name__ == "__main__":
    unittest.main(verbosity=0, warnings="ignore")  # kazoo leaves sockets to be collected
