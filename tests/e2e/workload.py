"""The work of a run: producers, consumers, publishers and subscribers on some queues and topics, through all replicas."""

import random
import threading
import time

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException
from kazoo.handlers.threading import KazooTimeoutError

from client import foreign
from consumers import PollingConsumer, StreamingConsumer, Subscriber
from doors import Doors, grpc
from history import Mishap
from producers import CallingProducer, StreamingProducer

QUEUES = ("orders", "mails", "jobs")
TOPICS = ("news", "prices")
SUBSCRIBERS_PER_TOPIC = 2

ADMIN_TIMEOUT_S = 120
# So long nothing may move once all faults are healed. Far above any pause of the service, for machines that stand still.
STANDSTILL_S = 180
STORE_TIMEOUT_S = 30
OWNER_PATH = "/postkeeper/data/{uid}/owner"


def epoch_of(record):
    """Of an OwnerRecord (storage/v1/records.proto): its second field, a varint."""
    at = 0
    while at < len(record):
        tag, at = _varint(record, at)
        if tag & 7 == 0:
            value, at = _varint(record, at)
            if tag >> 3 == 2:
                return value
        else:  # the record has no other kinds than varints and bytes
            length, at = _varint(record, at)
            at += length
    return 0


def _varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


class Load:
    """start(), stop_producing(), work_off(), end(), in this order, by one thread. close() after whatever."""

    def __init__(self, history, replicas, zookeeper_hosts, seed):
        """`replicas`: (name, address) of each."""
        for name in ("Status", "ErrorInfo", "BadRequest", "RetryInfo"):
            foreign(f"google.rpc.{name}")  # before there are threads: it runs protoc
        self.history, self.queues, self.topics = history, QUEUES, TOPICS
        self.doors = Doors(replicas)
        self.stops_producing, self.gives_up, self.is_over = (threading.Event() for _ in range(3))
        self.zookeeper_hosts, self.store, self.store_lock = zookeeper_hosts, None, threading.Lock()
        rng = random.Random(seed)

        def make(kind, log, name, *more):
            return kind(self, log, f"{log}-{name}", random.Random(rng.random()), *more)
        self.producers = []
        for log in QUEUES + TOPICS:
            self.producers += [make(CallingProducer, log, "plain", False), make(CallingProducer, log, "with-id", True),
                               make(StreamingProducer, log, "stream", False),
                               make(StreamingProducer, log, "stream-with-id", True)]
        self.consumers = []
        for queue in QUEUES:
            self.consumers += [make(StreamingConsumer, queue, "consumer-1"), make(StreamingConsumer, queue, "consumer-2"),
                               make(PollingConsumer, queue, "poller")]
        self.subscribers = [make(Subscriber, topic, f"subscriber-{i}") for topic in TOPICS
                            for i in range(1, SUBSCRIBERS_PER_TOPIC + 1)]

    def start(self):
        client = self.doors.doors[0].client
        for queue in QUEUES:
            client.create_queue(queue)
        for topic in TOPICS:
            client.create_topic(topic)
        for worker in self.subscribers + self.consumers + self.producers:
            worker.start()

    def stop_producing(self):
        """Returns when every call is answered or given up. Consumers go on, and only ack from now on."""
        self.stops_producing.set()
        give_up_at = time.monotonic() + STANDSTILL_S
        for producer in self.producers:
            producer.join(max(0.1, give_up_at - time.monotonic()))
        self.gives_up.set()
        for producer in self.producers:
            producer.join(STANDSTILL_S)
            if producer.is_alive():
                self.history.add(Mishap, what=f"{producer.name} has a call that never ends")

    def work_off(self):
        """Until nothing is left; a Mishap if nothing moves any more before that."""
        moved_at, progress = time.monotonic(), None
        while left := self.left():
            if (now_at := self.history.progress()) != progress:
                moved_at, progress = time.monotonic(), now_at
            if time.monotonic() > moved_at + STANDSTILL_S:
                for what, bodies in left.items():
                    self.history.add(Mishap, what=f"all is healed, and for {STANDSTILL_S} s nothing moved: {what}",
                                     bodies=tuple(sorted(bodies)[:5]))
                return
            time.sleep(0.2)

    def left(self):
        """{what: bodies} that is not worked off."""
        found = {}
        for queue in QUEUES:
            if bodies := self.history.left_to_settle(queue):
                found[f"{len(bodies)} accepted messages of {queue} are not settled"] = bodies
        for subscriber in self.subscribers:
            if bodies := self.history.left_to_receive(subscriber.topic, subscriber.name):
                found[f"{len(bodies)} messages did not reach {subscriber.name}"] = bodies
        return found or self.counted()

    def counted(self):
        """What the queues themselves say is left: what nobody knows to have been accepted counts, too."""
        found = {}
        for queue in QUEUES:
            try:
                counts = self.doors.pick(random).client.counts(queue)
            except grpc.RpcError as error:
                counts = error.details()
            if counts != (0, 0, 0):
                found[f"{queue} has (ready, delayed, leased) = {counts}"] = set()
        return found

    def end(self):
        self.is_over.set()
        for worker in self.consumers + self.subscribers:
            worker.join(STANDSTILL_S)
            if worker.is_alive():
                self.history.add(Mishap, what=f"{worker.name} has a call that never ends")

    def owner_epoch(self, uid):
        """As the store says now; 0 if it does not."""
        with self.store_lock:
            try:
                if self.store is None:
                    self.store = KazooClient(self.zookeeper_hosts, timeout=STORE_TIMEOUT_S)
                    self.store.start(timeout=STORE_TIMEOUT_S)
                self.store.sync(OWNER_PATH.format(uid=uid))
                return epoch_of(self.store.get(OWNER_PATH.format(uid=uid))[0])
            except (KazooException, KazooTimeoutError):
                return 0

    def close(self):
        self.stops_producing.set()
        self.gives_up.set()
        self.is_over.set()
        if self.store is not None:
            self.store.stop()
            self.store.close()
        self.doors.close()
