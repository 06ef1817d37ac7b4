#!/usr/bin/python3
"""What many queues cost when nothing happens, and what a message takes when something does, with real processes.

    many_sources.py [--queues 5000] [--messages 2000]

Two replicas share --queues queues on one ZooKeeper. Prints for each replica the processor time and the requests to
ZooKeeper per second while all is idle, and the bytes of watched paths; then how long a message takes from the call of
Enqueue to the answer of a Dequeue that waits for it, through both replicas in turn; then how long it takes until a
message goes through again after ZooKeeper was killed and started.

Exit code 1 if the paths watched exceed 512 KiB in any session (the C client sends them all in one packet when it
connects again, and ZooKeeper takes 1 MiB), a message does not come, or the session does not survive the restart.
"""

import argparse
import os
import pathlib
import re
import sys
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from client import Client, admin_pb2, grpc  # noqa: E402
from postkeeperd import Postkeeperd, until  # noqa: E402
from zookeeper import Zookeeper, free_port  # noqa: E402

WATCHED_BYTES_MAX = 512 * 1024
IDLE_S = 30
CREATING_AT_A_TIME = 64
PATIENCE_S = 300


class Replica:
    def __init__(self, zookeeper):
        self.metrics_address = f"127.0.0.1:{free_port()}"
        self.server = Postkeeperd("--zookeeper", zookeeper.hosts, "--session-timeout", "20s", "--balance-after", "3s",
                                  metrics_listen=self.metrics_address)
        self.client = Client(self.server.address, retries=True)

    def metric(self, name):
        """The sum over all label values."""
        with urllib.request.urlopen(f"http://{self.metrics_address}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))

    def cpu_s(self):
        fields = pathlib.Path(f"/proc/{self.server.process.pid}/stat").read_text(encoding="ascii").split()
        return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")

    def close(self):
        self.client.close()
        self.server.close()


def create(client, count):
    names = [f"q{i}" for i in range(count)]
    for first in range(0, count, CREATING_AT_A_TIME):
        calls = [client.admin.CreateQueue.future(admin_pb2.CreateQueueRequest(queue=admin_pb2.Queue(name=name)), timeout=60)
                 for name in names[first:first + CREATING_AT_A_TIME]]
        for call in calls:
            call.result()
    return names


def time_one(sender, receiver, queue):
    """Seconds from Enqueue to the delivery to a Dequeue that waits."""
    waiting = receiver.stub.Dequeue.future(receiver.dequeue_request(queue, wait=30), timeout=60)
    time.sleep(0.002)
    sent_at = time.monotonic()
    sender.enqueue(queue, "x")
    answer = waiting.result()
    took_s = time.monotonic() - sent_at
    if len(answer.deliveries) != 1:
        raise AssertionError(f"nothing came from {queue}")
    receiver.ack(queue, answer.deliveries[0])
    return took_s


def works(replica, queue):
    try:
        time_one(replica.client, replica.client, queue)
        return True
    except grpc.RpcError:
        return False


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--queues", type=int, default=5000)
    parser.add_argument("--messages", type=int, default=2000)
    options = parser.parse_args()
    zookeeper = Zookeeper(heap_mib=1024)
    replicas = [Replica(zookeeper), Replica(zookeeper)]
    try:
        names = create(replicas[0].client, options.queues)
        until(lambda: len(re.findall("info took a queue ", replicas[1].server.log())) >= options.queues * 0.45,
              "both have their share", PATIENCE_S)
        time.sleep(10)

        before = [(replica.cpu_s(), replica.metric("postkeeper_zookeeper_requests_total")) for replica in replicas]
        time.sleep(IDLE_S)
        good = True
        for number, (replica, (cpu_s, requests)) in enumerate(zip(replicas, before), start=1):
            watched = replica.metric("postkeeper_zookeeper_watched_path_bytes")
            print(f"replica {number}, idle: {100 * (replica.cpu_s() - cpu_s) / IDLE_S:.1f} % of a core, "
                  f"{(replica.metric('postkeeper_zookeeper_requests_total') - requests) / IDLE_S:.0f} requests/s, "
                  f"{watched / 1024:.0f} KiB of paths watched", flush=True)
            good = good and watched <= WATCHED_BYTES_MAX

        times = sorted(time_one(replicas[i % 2].client, replicas[i // 2 % 2].client, names[i * 7 % len(names)])
                       for i in range(options.messages))
        print(f"Enqueue to delivery: p50 {1000 * times[len(times) // 2]:.1f} ms, "
              f"p99 {1000 * times[int(len(times) * 0.99)]:.1f} ms, max {1000 * times[-1]:.1f} ms", flush=True)

        zookeeper.kill()
        zookeeper.start()
        started_at = time.monotonic()
        for replica in replicas:
            until(lambda replica=replica: works(replica, names[0]), "it works again", PATIENCE_S)
        print(f"after a restart of ZooKeeper: works again {time.monotonic() - started_at:.1f} s after ZooKeeper does")
        expirations = sum(replica.metric("postkeeper_zookeeper_session_expirations_total") for replica in replicas)
        print(f"sessions expired: {expirations:.0f}")
        return 0 if good and expirations == 0 else 1
    finally:
        for replica in replicas:
            replica.close()
        zookeeper.close()


if __name__ == "__main__":
    sys.exit(main())
