"""A client of postkeeperd for tests: short calls, errors taken apart, streams whose frames can be waited for."""

import contextlib
import functools
import pathlib
import queue
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "examples/python"))

import connection  # noqa: E402  first: it makes postkeeper.v1 importable
import grpc  # noqa: E402
from google.protobuf import descriptor_pb2, descriptor_pool, duration_pb2, message_factory  # noqa: E402
from postkeeper.v1 import (admin_pb2, admin_pb2_grpc, cluster_pb2, cluster_pb2_grpc, message_pb2,  # noqa: E402
                           message_pb2_grpc)
from postkeeperd import Postkeeperd, until  # noqa: E402

__all__ = ["ALREADY_SETTLED", "LEASE_LIMIT", "MALFORMED_TOKEN", "STALE_LEASE", "Client", "Consumer", "Frames",
           "Outgoing", "Refusal", "ServerTest", "Subscriber", "admin_pb2", "bodies", "cluster_pb2", "connection", "duration",
           "flat_tokens", "grpc", "message_pb2", "messages", "refusal", "tokens", "until"]

CALL_TIMEOUT_S = 30
FRAME_TIMEOUT_S = 30

ALREADY_SETTLED = message_pb2.SETTLE_ERROR_ALREADY_SETTLED
STALE_LEASE = message_pb2.SETTLE_ERROR_STALE_LEASE
MALFORMED_TOKEN = message_pb2.SETTLE_ERROR_MALFORMED_TOKEN
LEASE_LIMIT = message_pb2.SETTLE_ERROR_LEASE_LIMIT


@functools.lru_cache
def foreign_messages():
    """The descriptors of protos/third_party, and what makes classes of them."""
    files = ["google/rpc/status.proto", "google/rpc/error_details.proto", "grpc/health/v1/health.proto",
             "keda/externalscaler.proto"]
    with tempfile.NamedTemporaryFile() as out:
        subprocess.run(["protoc", f"-I{connection.PROTOS}/third_party", "--include_imports",
                        f"--descriptor_set_out={out.name}", *files], check=True)
        described = descriptor_pb2.FileDescriptorSet.FromString(out.read())
    pool = descriptor_pool.DescriptorPool()
    for file in described.file:
        pool.Add(file)
    return pool, message_factory.MessageFactory(pool)


def foreign(full_name):
    """A message class of protos/third_party, which has no generated Python."""
    pool, factory = foreign_messages()
    return factory.GetPrototype(pool.FindMessageTypeByName(full_name))


class Refusal:
    """What an error of the service says: code, reason, metadata, text; field, retry_s where there are any."""

    def __init__(self, error):
        self.code = error.code().name
        self.text = error.details()
        self.reason, self.domain, self.metadata, self.field, self.retry_s = "", "", {}, "", None
        trailers = {name: value for name, value in error.trailing_metadata() or ()}
        self.pushback_ms = trailers.get("grpc-retry-pushback-ms")
        status = foreign("google.rpc.Status").FromString(trailers.get("grpc-status-details-bin", b""))
        for detail in status.details:
            value = foreign(detail.type_url.rpartition("/")[2]).FromString(detail.value)
            if detail.type_url.endswith("ErrorInfo"):
                self.reason, self.domain, self.metadata = value.reason, value.domain, dict(value.metadata)
            elif detail.type_url.endswith("BadRequest"):
                self.field = value.field_violations[0].field
            elif detail.type_url.endswith("RetryInfo"):
                self.retry_s = value.retry_delay.seconds + value.retry_delay.nanos / 1e9

    def __repr__(self):
        return f"{self.code} {self.reason} {self.field} {self.metadata}: {self.text}"


def refusal(call):
    """Calls, and returns the Refusal; AssertionError if it was not refused."""
    try:
        answer = call()
        if hasattr(answer, "__next__"):  # a stream says it at its end
            answer = list(answer)
    except grpc.RpcError as error:
        return Refusal(error)
    raise AssertionError(f"not refused: {answer!r}")


def duration(seconds):
    return duration_pb2.Duration(seconds=int(seconds // 1), nanos=int(round(seconds % 1 * 1e9)))


def messages(*body_texts):
    return [message_pb2.Message(body=body if isinstance(body, bytes) else str(body).encode()) for body in body_texts]


def bodies(response):
    """Of anything with deliveries, or of a list of them or of topic messages."""
    return [item.message.body.decode() for item in getattr(response, "deliveries", response)]


def tokens(response):
    return [delivery.lease_token for delivery in getattr(response, "deliveries", response)]


class Client:
    """One connection. By itself it repeats nothing; with `retries` it does as the service config says."""

    def __init__(self, address, retries=False):
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0),
                   ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500),
                   # gRPC connects again only after it has resolved the name again, by default at most every 30 s.
                   ("grpc.dns_min_time_between_resolutions_ms", 100)]
        if retries:
            options.append(("grpc.service_config", connection.SERVICE_CONFIG.read_text(encoding="utf-8")))
        else:
            options.append(("grpc.enable_retries", 0))
        self.channel = grpc.insecure_channel(address, options=options)
        self.stub = message_pb2_grpc.MessageServiceStub(self.channel)
        self.admin = admin_pb2_grpc.AdminServiceStub(self.channel)
        self.cluster = cluster_pb2_grpc.ClusterServiceStub(self.channel)

    def close(self):
        self.channel.close()

    # ---- MessageService

    def enqueue(self, queue, *body_texts, timeout=CALL_TIMEOUT_S, request_id="", **fields):
        """The message ids. `fields` are of each message."""
        sent = messages(*body_texts)
        for message in sent:
            message.MergeFrom(message_pb2.Message(**fields))
        request = message_pb2.EnqueueRequest(queue=queue, messages=sent, request_id=request_id)
        return list(self.stub.Enqueue(request, timeout=timeout).message_ids)

    def publish(self, topic, *body_texts, timeout=CALL_TIMEOUT_S, request_id="", **fields):
        sent = messages(*body_texts)
        for message in sent:
            message.MergeFrom(message_pb2.Message(**fields))
        request = message_pb2.PublishRequest(topic=topic, messages=sent, request_id=request_id)
        return list(self.stub.Publish(request, timeout=timeout).message_ids)

    def dequeue_request(self, source, max_messages=1, wait=0, lease=None, **fields):
        return message_pb2.DequeueRequest(source=source, max_messages=max_messages,
                                          wait=None if wait is None else duration(wait),
                                          lease_duration=None if lease is None else duration(lease), **fields)

    def dequeue(self, source, max_messages=1, wait=0, lease=None, timeout=90, **fields):
        return self.stub.Dequeue(self.dequeue_request(source, max_messages, wait, lease, **fields), timeout=timeout)

    def take(self, source, wait=10, **more):
        """One delivery, which must come."""
        deliveries = self.dequeue(source, 1, wait, **more).deliveries
        if not deliveries:
            raise AssertionError(f"nothing came from {source} within {wait} s")
        return deliveries[0]

    def drain(self, source):
        """Takes and acks what is ready, and returns the deliveries."""
        taken = []
        while deliveries := self.dequeue(source, 1000).deliveries:
            taken += deliveries
            if failures := self.ack(source, deliveries):
                raise AssertionError(failures)
        return taken

    def ack(self, source, *settled, timeout=CALL_TIMEOUT_S):
        """Of tokens, deliveries or lists of these; returns the errors."""
        request = message_pb2.AckRequest(source=source, lease_tokens=flat_tokens(settled))
        return [failure.error for failure in self.stub.Ack(request, timeout=timeout).failures]

    def nack(self, source, *settled, delay=None, **fields):
        nacks = message_pb2.Nacks(lease_tokens=flat_tokens(settled), delay=None if delay is None else duration(delay),
                                  **fields)
        request = message_pb2.NackRequest(source=source, nacks=nacks)
        return [failure.error for failure in self.stub.Nack(request, timeout=CALL_TIMEOUT_S).failures]

    def extend(self, source, *extended, lease=None):
        extensions = message_pb2.Extensions(lease_tokens=flat_tokens(extended),
                                            lease_duration=None if lease is None else duration(lease))
        request = message_pb2.ExtendRequest(source=source, extensions=extensions)
        return [failure.error for failure in self.stub.Extend(request, timeout=CALL_TIMEOUT_S).failures]

    def consume(self, source, messages_max=None, credit_bytes=0, lease=None, **fields):
        credit = None if messages_max is None else message_pb2.Credit(messages=messages_max, bytes=credit_bytes)
        opening = message_pb2.Open(source=source, credit=credit,
                                   lease_duration=None if lease is None else duration(lease), **fields)
        return Consumer(self, message_pb2.ConsumeRequest(open=opening))

    def subscribe(self, topic, heartbeat=1, subscriber="", **start):
        request = message_pb2.SubscribeRequest(topic=topic, heartbeat_interval=duration(heartbeat),
                                               subscriber=subscriber,
                                               start=message_pb2.Start(**start) if start else None)
        return Subscriber(self.stub.Subscribe(request))

    # ---- AdminService, ClusterService, health

    def create_queue(self, name, **settings):
        request = admin_pb2.CreateQueueRequest(queue=admin_pb2.Queue(name=name, **settings))
        return self.admin.CreateQueue(request, timeout=CALL_TIMEOUT_S).queue

    def create_topic(self, name, **settings):
        request = admin_pb2.CreateTopicRequest(topic=admin_pb2.Topic(name=name, **settings))
        return self.admin.CreateTopic(request, timeout=CALL_TIMEOUT_S).topic

    def stats(self, source):
        return self.admin.GetStats(admin_pb2.GetStatsRequest(source=source), timeout=CALL_TIMEOUT_S)

    def counts(self, source):
        """(ready, delayed, leased)"""
        stats = self.stats(source)
        return stats.ready, stats.delayed, stats.leased

    def wait_for_counts(self, source, ready, delayed, leased, timeout_s=30):
        until(lambda: self.counts(source) == (ready, delayed, leased),
              f"{source} has {ready} ready, {delayed} delayed, {leased} leased", timeout_s)

    def wait_for_consumers(self, source, count):
        until(lambda: self.stats(source).consumers == count, f"{source} has {count} consumers")

    def health(self, service="", timeout=10):
        """SERVING, NOT_SERVING; "" = ready, "liveness" = alive."""
        check = self.channel.unary_unary("/grpc.health.v1.Health/Check",
                                         foreign("grpc.health.v1.HealthCheckRequest").SerializeToString,
                                         foreign("grpc.health.v1.HealthCheckResponse").FromString)
        answer = check(foreign("grpc.health.v1.HealthCheckRequest")(service=service), timeout=timeout)
        return answer.DESCRIPTOR.fields_by_name["status"].enum_type.values_by_number[answer.status].name

    def raw(self, method, data, timeout=CALL_TIMEOUT_S):
        """A unary call with any bytes, by its name: MessageService/Enqueue."""
        return self.channel.unary_unary(f"/postkeeper.v1.{method}")(data, timeout=timeout)


def flat_tokens(items):
    flat = []
    for item in items:
        if isinstance(item, str):
            flat.append(item)
        elif hasattr(item, "lease_token"):
            flat.append(item.lease_token)
        else:
            flat += flat_tokens(getattr(item, "deliveries", item))
    return flat


class Frames:
    """What a stream has sent, collected by a thread. next() waits; the end of the stream raises its status."""

    def __init__(self, call):
        self.call = call
        self.received = queue.Queue()
        self.thread = threading.Thread(target=self._collect, daemon=True)
        self.thread.start()

    def _collect(self):
        try:
            for frame in self.call:
                self.received.put((time.monotonic(), frame))
            self.received.put((time.monotonic(), StopIteration()))
        except grpc.RpcError as error:
            self.received.put((time.monotonic(), error))

    def next(self, timeout_s=FRAME_TIMEOUT_S):
        try:
            self.received_at, frame = self.received.get(timeout=timeout_s)
        except queue.Empty:
            raise AssertionError(f"no frame within {timeout_s} s") from None
        if isinstance(frame, Exception):
            self.received.put((self.received_at, frame))  # for whoever asks again
            raise frame
        return frame

    def __iter__(self):
        return self

    def __next__(self):
        return self.next()

    def is_idle(self):
        """Nothing has come that was not taken."""
        return self.received.empty()

    def cancel(self):
        self.call.cancel()
        self.thread.join(FRAME_TIMEOUT_S)


class Outgoing:
    """The client's side of a stream."""

    def __init__(self):
        self.frames = queue.Queue()

    def send(self, frame):
        self.frames.put(frame)

    def half_close(self):
        self.frames.put(None)

    def __iter__(self):
        return iter(self.frames.get, None)


class Consumer(Frames):
    """A Consume stream. What comes is passed over until the awaited kind; deliveries are kept for deliveries()."""

    def __init__(self, client, *first_frames):
        self.out = Outgoing()
        for frame in first_frames:
            self.out.send(frame)
        self.sequence = 0
        self.kept = []
        super().__init__(client.stub.Consume(iter(self.out)))

    def send(self, **fields):
        """A frame; one that settles gets the next sequence, which is returned."""
        if {"ack_tokens", "nacks", "extensions"} & set(fields):
            self.sequence += 1
            fields.setdefault("sequence", self.sequence)
        self.out.send(message_pb2.ConsumeRequest(**fields))
        return fields.get("sequence")

    def next_of(self, kind, timeout_s=FRAME_TIMEOUT_S):
        """The next opened, settled, heartbeat or draining."""
        give_up_at = time.monotonic() + timeout_s
        while True:
            frame = self.next(max(0.0, give_up_at - time.monotonic()))
            if frame.WhichOneof("frame") == "deliveries":
                self.kept += frame.deliveries.deliveries
            if frame.WhichOneof("frame") == kind:
                return getattr(frame, kind)

    def deliveries(self, count, timeout_s=FRAME_TIMEOUT_S):
        """The next `count` deliveries; more than that stay for the next time."""
        give_up_at = time.monotonic() + timeout_s
        while len(self.kept) < count:
            self.next_of("deliveries", max(0.0, give_up_at - time.monotonic()))
        taken, self.kept = self.kept[:count], self.kept[count:]
        return taken

    def ack(self, *settled):
        """Sends the frame and waits for its Settled; returns the errors."""
        sequence = self.send(ack_tokens=flat_tokens(settled))
        settled = self.next_of("settled")
        if settled.sequence != sequence:
            raise AssertionError(f"Settled {settled.sequence} instead of {sequence}")
        return [failure.error for failure in settled.failures]

    def half_close(self):
        self.out.half_close()

    def finish(self):
        """Half-closes and waits for the end; returns the frames that came before it."""
        self.half_close()
        return list(self)


class Subscriber(Frames):
    """A Subscribe stream."""

    def __init__(self, call):
        super().__init__(call)
        self.opening = None
        self.position = ""
        self.kept = []

    def open(self):
        """Waits for the first response, which says where the stream stands."""
        if self.opening is None:
            self.opening = self.next()
            self.position = self.opening.position
        return self

    def messages(self, count, timeout_s=FRAME_TIMEOUT_S):
        """The next `count` topic messages."""
        self.open()
        give_up_at = time.monotonic() + timeout_s
        while len(self.kept) < count:
            response = self.next(max(0.0, give_up_at - time.monotonic()))
            self.kept += response.messages
            self.position = response.position
        taken, self.kept = self.kept[:count], self.kept[count:]
        return taken


class ServerTest(unittest.TestCase):
    """Tests that share one server, since they use queues and topics of their own: self.name."""

    flags = ()

    @classmethod
    def setUpClass(cls):
        cls.server = Postkeeperd(*cls.flags)
        cls.addClassCleanup(cls.server.close)
        cls.addClassCleanup(cls.stop_in_order)
        cls.client = Client(cls.server.address)
        cls.addClassCleanup(cls.client.close)

    @classmethod
    def stop_in_order(cls):
        """Whatever the tests have done, the server has lived through it, and ends when it is asked to."""
        code = cls.server.stop()
        if code != 0:
            raise AssertionError(f"postkeeperd ended with {code}:\n{cls.server.log()[-20000:]}")

    @property
    def name(self):
        """Of this test's queue or topic."""
        return self.id().rpartition(".")[2].replace("_", "-")[:60].lower()

    def connect(self, **options):
        """A client of its own."""
        client = Client(self.server.address, **options)
        self.addCleanup(client.close)
        return client

    def consume(self, *arguments, client=None, **fields):
        """A Consume stream that is open."""
        consumer = (client or self.client).consume(*arguments, **fields)
        self.addCleanup(consumer.cancel)
        consumer.opened = consumer.next_of("opened")
        return consumer

    def subscribe(self, *arguments, client=None, **fields):
        """A Subscribe stream that is open."""
        subscriber = (client or self.client).subscribe(*arguments, **fields)
        self.addCleanup(subscriber.cancel)
        return subscriber.open()

    def assert_refused(self, call, code, reason, field="", **metadata):
        """The call fails with code, reason, field and at least this metadata. Returns the Refusal."""
        refused = refusal(call)
        self.assertEqual((refused.code, refused.reason), (code, reason), refused)
        self.assertEqual(refused.domain, "postkeeper", refused)
        if field:
            self.assertEqual(refused.field or refused.metadata.get("field"), field, refused)
        for key, value in metadata.items():
            self.assertEqual(refused.metadata.get(key), str(value), refused)
        self.assertRegex(refused.metadata.get("replica", ""), "^r[A-Za-z0-9_-]+$", refused)
        return refused

    @contextlib.contextmanager
    def somebody_else_works(self):
        """Another client's enqueue, dequeue and ack go on undisturbed, on its own connection, meanwhile and after."""
        other, source, stop, trouble, rounds = self.connect(), f"{self.name}-other"[:63], threading.Event(), [], [0]
        other.create_queue(source)

        def work():
            try:
                while not stop.is_set():
                    sent = other.enqueue(source, "work", timeout=5)
                    delivery = other.take(source, wait=5, timeout=10)
                    if [delivery.message_id] != sent or delivery.attempt != 1 or other.ack(source, delivery, timeout=5):
                        trouble.append(f"{delivery} is not {sent}")
                    rounds[0] += 1
            except Exception as error:  # pylint: disable=broad-except
                trouble.append(error)

        worker = threading.Thread(target=work)
        worker.start()
        try:
            until(lambda: rounds[0] or trouble, "the other client's first round")
            yield
            before = rounds[0]
            until(lambda: rounds[0] > before + 1 or trouble, "the other client's next round")
        finally:
            stop.set()
            worker.join()
        self.assertEqual(trouble, [])
