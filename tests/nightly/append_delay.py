#!/usr/bin/python3
"""How long a message takes from Enqueue to a consumer that waits, through the owner of its queue and through a replica
that is not: what following a log by watches adds. Two replicas, one ZooKeeper, on this machine."""

import argparse
import pathlib
import random
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from client import Client, message_pb2  # noqa: E402
from postkeeperd import Postkeeperd  # noqa: E402
from zookeeper import Zookeeper  # noqa: E402


def replica(zookeeper):
    server = Postkeeperd("--zookeeper", zookeeper.hosts, "--balance-after", "1h")
    return server, Client(server.address)


def percentile(sorted_values, part):
    return sorted_values[min(len(sorted_values) - 1, int(part * len(sorted_values)))]


def measure(producer, consumer, messages, pause_s):
    """Milliseconds from the call of Enqueue to the arrival, and to its own answer."""
    delays, answers = [], []
    for number in range(messages):
        time.sleep(random.uniform(0.2, 1) * pause_s)
        began = time.perf_counter()
        call = producer.stub.Enqueue.future(
            message_pb2.EnqueueRequest(queue="q", messages=[message_pb2.Message(body=str(number).encode())]), timeout=30)
        call.add_done_callback(lambda _, at=began: answers.append(1000 * (time.perf_counter() - at)))
        delivered = consumer.deliveries(1)
        delays.append(1000 * (time.perf_counter() - began))
        call.result()
        assert delivered[0].message.body == str(number).encode()
        consumer.ack(delivered)
    return sorted(delays), sorted(answers)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--pause-ms", type=float, default=20)
    arguments = parser.parse_args()
    zookeeper = Zookeeper()
    servers = []
    try:
        server, here = replica(zookeeper)
        servers.append(server)
        here.create_queue("q")
        server, there = replica(zookeeper)
        servers.append(server)
        there.counts("q")
        consumer = here.consume("q", 100, credit_bytes=1 << 20)
        consumer.next_of("opened")
        print("| enqueued at | delivered: median | p99 | longest | answered: median | p99 |")
        print("| --- | ---: | ---: | ---: | ---: | ---: |")
        for name, producer in (("the owner", here), ("another replica", there)) * 2:
            delays, answers = measure(producer, consumer, arguments.messages // 2, arguments.pause_ms / 1000)
            print(f"| {name} | {percentile(delays, .5):.1f} ms | {percentile(delays, .99):.1f} ms | {delays[-1]:.1f} ms "
                  f"| {percentile(answers, .5):.1f} ms | {percentile(answers, .99):.1f} ms |", flush=True)
    finally:
        for server in servers:
            server.close()
        zookeeper.close()


if __name__ == "__main__":
    main()
