"""Whatever comes in is answered clearly, and harms nobody else: another client's work goes on meanwhile."""

import os
import pathlib
import socket
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from google.protobuf import duration_pb2, timestamp_pb2  # noqa: E402

from client import (MALFORMED_TOKEN, Consumer, Frames, Outgoing, ServerTest, admin_pb2, bodies, cluster_pb2,  # noqa: E402
                    duration, grpc, message_pb2, messages, refusal, tokens)

KIB = 1024
MESSAGE_BYTES_MAX = 512 * KIB
HUGE = (1 << 62)
NAMES = ["Orders", "a b", "a/b", "-a", "a-", ".a", "a..b", "a" * 64, "ä", "a\n", "namespaces/x/queues/", "queues/A",
         "namespaces/N/queues/a", "namespaces/a/b/queues/c", "\x00", "../../owner", "topics/t/subscriptions/"]


def sized(total):
    """A message of exactly so many bytes, encoded."""
    message = message_pb2.Message(body=b"x" * (total - 6))
    message.body += b"x" * (total - message.ByteSize())
    assert message.ByteSize() == total
    return message


class BadInputTest(ServerTest):
    def enqueue_request(self, **fields):
        return message_pb2.EnqueueRequest(**{"queue": self.name, "messages": messages("x"), **fields})

    def refuse(self, rpc, request, reason, field="", code="INVALID_ARGUMENT", **metadata):
        """One call of a stub's method; streams get it as their only frame."""
        service = self.client.stub if hasattr(self.client.stub, rpc) else self.client.admin
        is_stream = rpc in ("EnqueueStream", "PublishStream", "Consume")
        with self.subTest(rpc, reason=reason, field=field):
            sent = iter([request]) if is_stream else request
            return self.assert_refused(lambda: getattr(service, rpc)(sent, timeout=20), code, reason, field, **metadata)

    # Names that break the rules are refused by every call that takes one.
    def test_illegal_names(self):
        with self.somebody_else_works():
            for name in NAMES:
                self.refuse("Enqueue", self.enqueue_request(queue=name), "INVALID_NAME", "queue")
                self.refuse("CreateQueue", admin_pb2.CreateQueueRequest(queue=admin_pb2.Queue(name=name)),
                            "INVALID_NAME")
            for rpc, request in (
                    ("Publish", message_pb2.PublishRequest(topic="A", messages=messages("x"))),
                    ("EnqueueStream", message_pb2.EnqueueStreamRequest(queue="A", messages=messages("x"))),
                    ("PublishStream", message_pb2.PublishStreamRequest(messages=messages("x"))),
                    ("Dequeue", message_pb2.DequeueRequest(source="A")),
                    ("Ack", message_pb2.AckRequest(lease_tokens=["x"])),
                    ("Nack", message_pb2.NackRequest(source="A", nacks=message_pb2.Nacks(lease_tokens=["x"]))),
                    ("Extend", message_pb2.ExtendRequest(source="topics/t",
                                                         extensions=message_pb2.Extensions(lease_tokens=["x"]))),
                    ("Consume", message_pb2.ConsumeRequest(open=message_pb2.Open(source="A"))),
                    ("Subscribe", message_pb2.SubscribeRequest(topic="queues/a")),
                    ("GetQueue", admin_pb2.GetQueueRequest(name="A")),
                    ("GetTopic", admin_pb2.GetTopicRequest(name="A")),
                    ("CreateTopic", admin_pb2.CreateTopicRequest()),
                    ("DeleteQueue", admin_pb2.DeleteQueueRequest(name="A")),
                    ("DeleteTopic", admin_pb2.DeleteTopicRequest(name="A")),
                    ("PurgeQueue", admin_pb2.PurgeQueueRequest(name="A")),
                    ("GetStats", admin_pb2.GetStatsRequest(source="A")),
                    ("ListQueues", admin_pb2.ListQueuesRequest(parent="A"))):
                self.refuse(rpc, request, "INVALID_NAME")

    # The largest message is accepted, one byte more is refused with limit and actual size; the same for a request.
    def test_sizes(self):
        with self.somebody_else_works():
            self.client.stub.Enqueue(self.enqueue_request(messages=[sized(MESSAGE_BYTES_MAX)]), timeout=20)
            self.refuse("Enqueue", self.enqueue_request(messages=[sized(MESSAGE_BYTES_MAX + 1)]), "MESSAGE_TOO_LARGE",
                        "messages[0]", limit=MESSAGE_BYTES_MAX, actual=MESSAGE_BYTES_MAX + 1)
            half = MESSAGE_BYTES_MAX // 2
            self.refuse("Enqueue", self.enqueue_request(messages=[sized(half), sized(half + 1)]), "REQUEST_TOO_LARGE",
                        "messages", limit=MESSAGE_BYTES_MAX, actual=MESSAGE_BYTES_MAX + 1)
            self.refuse("Enqueue", self.enqueue_request(messages=messages(*range(4097))), "REQUEST_TOO_LARGE",
                        "messages", limit=4096, actual=4097)
            self.refuse("EnqueueStream", message_pb2.EnqueueStreamRequest(
                queue=self.name, messages=[sized(MESSAGE_BYTES_MAX + 1)]), "MESSAGE_TOO_LARGE")
            self.refuse("Publish", message_pb2.PublishRequest(topic=self.name, messages=[sized(MESSAGE_BYTES_MAX + 1)]),
                        "MESSAGE_TOO_LARGE")
            # Above 4 MiB gRPC itself says no, before we have seen it.
            refused = refusal(lambda: self.client.raw("MessageService/Enqueue", b"x" * ((4 << 20) + 1)))
            self.assertEqual((refused.code, refused.reason), ("RESOURCE_EXHAUSTED", ""))
        delivery = self.client.take(self.name)
        self.assertEqual(delivery.message.ByteSize(), MESSAGE_BYTES_MAX)

    # Empty batches are no success.
    def test_empty_batches(self):
        with self.somebody_else_works():
            self.refuse("Enqueue", self.enqueue_request(messages=[]), "INVALID_FIELD", "messages")
            self.refuse("Publish", message_pb2.PublishRequest(topic=self.name), "INVALID_FIELD", "messages")
            self.refuse("Ack", message_pb2.AckRequest(source=self.name), "INVALID_FIELD", "lease_tokens")
            self.refuse("Nack", message_pb2.NackRequest(source=self.name), "INVALID_FIELD", "nacks.lease_tokens")
            self.refuse("Extend", message_pb2.ExtendRequest(source=self.name), "INVALID_FIELD",
                        "extensions.lease_tokens")
            self.refuse("CreateQueue", admin_pb2.CreateQueueRequest(), "INVALID_NAME")

    # Numbers and times out of bounds name their field; nothing overflows.
    def test_numbers(self):
        far = duration_pb2.Duration(seconds=315_576_000_000)
        negative = duration_pb2.Duration(seconds=-1)
        broken = duration_pb2.Duration(seconds=1, nanos=-1)
        dequeue = lambda **fields: message_pb2.DequeueRequest(source=self.name, **fields)
        first = lambda **fields: message_pb2.ConsumeRequest(open=message_pb2.Open(source=self.name, **fields))
        with self.somebody_else_works():
            for number in (-1, 1001, (1 << 31) - 1, -(1 << 31)):
                self.refuse("Dequeue", dequeue(max_messages=number), "INVALID_FIELD", "max_messages", actual=number)
            self.refuse("Dequeue", dequeue(max_bytes=-1), "INVALID_FIELD", "max_bytes")
            for wrong in (negative, far, broken, duration(61)):
                self.refuse("Dequeue", dequeue(wait=wrong), "INVALID_FIELD", "wait")
                self.refuse("Consume", first(heartbeat_interval=wrong), "INVALID_FIELD", "open.heartbeat_interval")
                self.refuse("Subscribe", message_pb2.SubscribeRequest(topic=self.name, heartbeat_interval=wrong),
                            "INVALID_FIELD", "heartbeat_interval")
            for wrong in (negative, far, broken, duration(0.5), duration(12 * 3600 + 1)):
                self.refuse("Dequeue", dequeue(lease_duration=wrong), "INVALID_FIELD", "lease_duration")
            for wrong in (negative, far, broken):
                message = message_pb2.Message(delay=wrong)
                self.refuse("Enqueue", self.enqueue_request(messages=[message]), "INVALID_FIELD", "messages[0].delay")
                nacks = message_pb2.Nacks(lease_tokens=["x"], delay=wrong)
                self.refuse("Nack", message_pb2.NackRequest(source=self.name, nacks=nacks), "INVALID_FIELD",
                            "nacks.delay")
            for seconds in (HUGE, -HUGE):
                message = message_pb2.Message(deliver_at=timestamp_pb2.Timestamp(seconds=seconds))
                self.refuse("Enqueue", self.enqueue_request(messages=[message]), "INVALID_FIELD",
                            "messages[0].deliver_at")
                start = message_pb2.Start(time=timestamp_pb2.Timestamp(seconds=seconds))
                self.refuse("Subscribe", message_pb2.SubscribeRequest(topic=self.name, start=start), "INVALID_FIELD",
                            "start.time")
            for settings, field in (({"max_messages": -1}, "queue.max_messages"),
                                    ({"max_bytes": HUGE}, "queue.max_bytes"),
                                    ({"lease_duration": far}, "queue.lease_duration"),
                                    ({"retry_backoff": duration(0.05)}, "queue.retry_backoff"),
                                    ({"retry_backoff": duration(700)}, "queue.retry_backoff")):
                request = admin_pb2.CreateQueueRequest(queue=admin_pb2.Queue(name=self.name, **settings))
                self.refuse("CreateQueue", request, "INVALID_FIELD", field)
            for number in (-1, 1001):
                self.refuse("ListQueues", admin_pb2.ListQueuesRequest(page_size=number), "INVALID_FIELD", "page_size")

    # Texts that are too long, or reserved.
    def test_texts(self):
        with self.somebody_else_works():
            self.refuse("Enqueue", self.enqueue_request(request_id="x" * 65), "INVALID_FIELD", "request_id", limit=64)
            self.refuse("Dequeue", message_pb2.DequeueRequest(source=self.name, consumer="x" * 129), "INVALID_FIELD",
                        "consumer")
            for attributes in ({"": "x"}, {"k" * 129: "x"}, {"k": "x" * 1025}, {"postkeeper-x": "y"},
                               {f"k{i}": "" for i in range(65)}):
                message = message_pb2.Message(attributes=attributes)
                refused = self.refuse("Enqueue", self.enqueue_request(messages=[message]), "INVALID_FIELD")
                self.assertIn("messages[0].attributes", refused.field)
            message = message_pb2.Message(content_type="x" * 129)
            self.refuse("Enqueue", self.enqueue_request(messages=[message]), "INVALID_FIELD",
                        "messages[0].content_type")
            nacks = message_pb2.Nacks(lease_tokens=["x"], reason="x" * 1025)
            self.refuse("Nack", message_pb2.NackRequest(source=self.name, nacks=nacks), "INVALID_FIELD", "nacks.reason")
            self.refuse("Ack", message_pb2.AckRequest(source=self.name, lease_tokens=["x"] * 1001), "INVALID_FIELD",
                        "lease_tokens")
            # The longest names in an error still leave room for its details.
            refused = self.refuse("Enqueue", self.enqueue_request(queue="ü" * 100_000), "INVALID_NAME", "queue")
            self.assertLess(len(refused.text), 1000)

    # Lease tokens that are malformed, damaged, foreign or of a deleted queue are told one by one and settle nothing.
    def test_tokens(self):
        self.client.enqueue(self.name, "a")
        self.client.enqueue(f"{self.name}-2", "b")
        own, foreign = self.client.take(self.name).lease_token, self.client.take(f"{self.name}-2").lease_token
        damaged = [own[:i] + ("A" if own[i] != "A" else "B") + own[i + 1:] for i in range(0, len(own), 7)]
        bad = [*damaged, foreign, "", "x", "t", own + "A", own[:-1], own.upper(), "' OR 1=1 --", "ü", "x" * 128, "\n"]
        with self.somebody_else_works():
            self.assertEqual(self.client.ack(self.name, bad), [MALFORMED_TOKEN] * len(bad))
            self.assertEqual(self.client.nack(self.name, bad), [MALFORMED_TOKEN] * len(bad))
            self.assertEqual(self.client.extend(self.name, bad), [MALFORMED_TOKEN] * len(bad))
            answer = self.client.dequeue(self.name, ack_tokens=bad)
            self.assertEqual([failure.lease_token for failure in answer.failures], bad)
            self.assertEqual(self.consume(self.name).ack(bad), [MALFORMED_TOKEN] * len(bad))
            self.assertEqual(self.client.counts(self.name), (0, 0, 1))
            self.assertEqual(self.client.counts(f"{self.name}-2"), (0, 0, 1))
            self.assertEqual(self.client.ack(self.name, *bad, own), [MALFORMED_TOKEN] * len(bad))
        self.assertEqual(self.client.counts(self.name), (0, 0, 0))

    # Positions: malformed, of another or a deleted topic, of the future.
    def test_positions(self):
        self.client.publish(self.name, "a")
        self.client.publish(f"{self.name}-2", "a")
        own = self.subscribe(self.name, earliest=True).messages(1)[0].position
        foreign = self.subscribe(f"{self.name}-2", earliest=True).messages(1)[0].position
        def start(after):
            return message_pb2.SubscribeRequest(topic=self.name, start=message_pb2.Start(after=after))
        with self.somebody_else_works():
            for text in ("", "x", own[:-1], own + "0", own.upper(), "z" * 26, "' OR 1=1", "\n" * 26):
                self.refuse("Subscribe", start(text), "MALFORMED_POSITION", "start.after")
            self.refuse("Subscribe", start(own[:13] + "v" * 13), "MALFORMED_POSITION")
            self.refuse("Subscribe", start(foreign), "POSITION_OF_DELETED_TOPIC", code="FAILED_PRECONDITION")
            for field in ("latest", "earliest"):
                request = message_pb2.SubscribeRequest(topic=self.name, start=message_pb2.Start(**{field: False}))
                self.refuse("Subscribe", request, "INVALID_FIELD", f"start.{field}")
            self.client.admin.DeleteTopic(admin_pb2.DeleteTopicRequest(name=self.name), timeout=20)
            self.refuse("Subscribe", start(own), "POSITION_OF_DELETED_TOPIC", code="FAILED_PRECONDITION")

    # Bytes that are no such message, and text that is not UTF-8, are MALFORMED_REQUEST in every RPC.
    def test_unparsable_bytes(self):
        info = self.client.cluster.GetServerInfo(cluster_pb2.GetServerInfoRequest(), timeout=20)
        unserved = set(info.unserved)
        with self.somebody_else_works():
            for file in (message_pb2, admin_pb2, cluster_pb2):
                for service in file.DESCRIPTOR.services_by_name.values():
                    for method in service.methods:
                        if method.full_name in unserved:
                            continue  # refused unread
                        path = f"/{service.full_name}/{method.name}"
                        for data in (b"\xff", b"\x0a\xff", bytes(range(250, 256)) + b"\xff" * 20):
                            if method.client_streaming:
                                call = lambda: list(self.client.channel.stream_stream(path)(iter([data]), timeout=20))
                            elif method.server_streaming:
                                call = lambda: list(self.client.channel.unary_stream(path)(data, timeout=20))
                            else:
                                call = lambda: self.client.channel.unary_unary(path)(data, timeout=20)
                            with self.subTest(method.name, data=data):
                                refused = self.assert_refused(call, "INVALID_ARGUMENT", "MALFORMED_REQUEST")
                                self.assertIn(method.input_type.name.removesuffix("Request"), refused.text)
            not_utf8 = b"\x0a\x02\xc3\x28"
            for rpc in ("Enqueue", "Publish", "Dequeue", "Ack"):
                self.assert_refused(lambda: self.client.raw(f"MessageService/{rpc}", not_utf8), "INVALID_ARGUMENT",
                                    "MALFORMED_REQUEST")
            # A content_type that is not UTF-8, deep inside, and a message that is none.
            name = self.name.encode()
            for inner in (b"\x1a\x02\xc3\x28", b"\xff\xff", b"\x12\x04\x0a\x02\xc3\x28"):
                data = b"\x0a" + bytes([len(name)]) + name + b"\x12" + bytes([len(inner)]) + inner
                self.assert_refused(lambda: self.client.raw("MessageService/Enqueue", data), "INVALID_ARGUMENT",
                                    "MALFORMED_REQUEST", "messages[0]")

    # An RPC and a service that nobody knows.
    def test_unknown_methods(self):
        for method in ("MessageService/Nothing", "Nothing/Enqueue"):
            refused = refusal(lambda: self.client.raw(method, b""))
            self.assertEqual(refused.code, "UNIMPLEMENTED")

    # Garbage on the port: whatever is spoken there, the connection ends and nobody else notices. A connection that says
    # nothing is nobody's trouble either.
    def test_garbage_on_the_port(self):
        host, port = self.server.address.split(":")
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        settings = b"\0\0\0\x04\0\0\0\0\0"
        silent = socket.create_connection((host, int(port)), timeout=10)
        self.addCleanup(silent.close)
        with self.somebody_else_works():
            for said in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                         b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 500,
                         os.urandom(100_000), b"\0" * 100_000, preface[:10] + b"\xff" * 100,
                         preface + b"\xff" * 10_000, preface + settings + b"\0\0\x05\x01\x25\0\0\0\x01garbage" * 500,
                         preface + settings + b"\xff\xff\xff\0\0\0\0\0\x01"):
                for _ in range(3):
                    with socket.create_connection((host, int(port)), timeout=10) as connection:
                        try:
                            connection.sendall(said)
                            connection.shutdown(socket.SHUT_WR)
                            while connection.recv(65536):
                                pass
                        except OSError:  # the server was faster, and has ended it
                            pass
        self.assertEqual(self.client.health(), "SERVING")

    # The rules of Consume's frames: each break ends that stream with the field, and nothing of the frame is done.
    def test_consume_frames(self):
        self.client.enqueue(self.name, "a")
        opening = message_pb2.Open(source=self.name)
        credit = lambda **fields: message_pb2.Credit(**fields)
        first = lambda **fields: message_pb2.ConsumeRequest(open=message_pb2.Open(source=self.name, **fields))
        with self.somebody_else_works():
            self.refuse("Consume", message_pb2.ConsumeRequest(), "INVALID_FIELD", "open")
            self.refuse("Consume", message_pb2.ConsumeRequest(sequence=1, ack_tokens=["x"]), "INVALID_FIELD", "open")
            self.refuse("Consume", first(credit=credit(messages=10_001)), "INVALID_FIELD", "open.credit.messages")
            self.refuse("Consume", first(credit=credit(messages=-1)), "INVALID_FIELD", "open.credit.messages")
            self.refuse("Consume", first(credit=credit(bytes=(64 << 20) + 1)), "INVALID_FIELD", "open.credit.bytes")
            for later, field in ((message_pb2.ConsumeRequest(open=opening), "open"),
                                 (message_pb2.ConsumeRequest(ack_tokens=["x"]), "sequence"),
                                 (message_pb2.ConsumeRequest(ack_tokens=["x"], sequence=-5), "sequence"),
                                 (message_pb2.ConsumeRequest(credit=credit(messages=-1)), "credit.messages"),
                                 (message_pb2.ConsumeRequest(credit=credit(messages=9_950)), "credit"),
                                 (message_pb2.ConsumeRequest(credit=credit(messages=1, bytes=64 << 20)), "credit"),
                                 (message_pb2.ConsumeRequest(ack_tokens=["x"] * 10_001, sequence=1), "ack_tokens"),
                                 (message_pb2.ConsumeRequest(nacks=[message_pb2.Nacks()], sequence=1), "nacks[0]")):
                with self.subTest(field, later=str(later)[:80]):
                    consumer = self.consume(f"{self.name}-empty")
                    consumer.out.send(later)
                    refused = self.assert_refused(lambda: consumer, "INVALID_ARGUMENT", "INVALID_FIELD")
                    self.assertIn(field, refused.field)
            # A sequence that does not rise: what was before it is answered, what it carries is not done.
            consumer = self.consume(self.name)
            token = tokens(consumer.deliveries(1))[0]
            consumer.send(ack_tokens=["x"], sequence=7)
            consumer.send(ack_tokens=[token], sequence=7)
            self.assertEqual(consumer.next_of("settled").sequence, 7)
            self.assert_refused(lambda: consumer, "INVALID_ARGUMENT", "INVALID_FIELD", "sequence")
            self.assertEqual(self.client.counts(self.name), (0, 0, 1))
            self.assertEqual(self.client.ack(self.name, token), [])

    # A stream that sends nothing, or ends before its first frame, costs nobody anything.
    def test_streams_without_frames(self):
        with self.somebody_else_works():
            for rpc in ("EnqueueStream", "PublishStream", "Consume"):
                self.assertEqual(list(getattr(self.client.stub, rpc)(iter([]), timeout=20)), [])
            out = Outgoing()
            stream = Frames(self.client.stub.EnqueueStream(iter(out)))
            out.send(message_pb2.EnqueueStreamRequest(queue=self.name, messages=messages("x")))
            stream.next()
            out.send(message_pb2.EnqueueStreamRequest(queue=f"{self.name}-2", messages=messages("x")))
            self.assert_refused(stream.next, "INVALID_ARGUMENT", "INVALID_FIELD", "queue")
            out.half_close()
        self.assertEqual(bodies(self.client.drain(self.name)), ["x"])

    # Settings that differ from those that are there, page tokens of nowhere, masks that name nothing.
    def test_administration(self):
        self.client.create_queue(self.name, max_messages=5)
        with self.somebody_else_works():
            self.assertEqual(self.client.create_queue(self.name, max_messages=5).max_messages, 5)
            self.assert_refused(lambda: self.client.create_queue(self.name, max_messages=6), "ALREADY_EXISTS",
                                "OTHER_SETTINGS", "max_messages")
            for token in ("x", "p", "' OR 1=1", "x" * 200):
                self.refuse("ListQueues", admin_pb2.ListQueuesRequest(page_token=token), "INVALID_FIELD", "page_token")
            for path in ("name", "uid", "etag", "create_time", "nothing", ""):
                request = admin_pb2.UpdateQueueRequest(queue=admin_pb2.Queue(name=self.name, max_messages=7))
                request.update_mask.paths.append(path)
                self.refuse("UpdateQueue", request, "INVALID_FIELD")
            queue = admin_pb2.Queue(name=self.name, etag="garbage", max_messages=7)
            self.refuse("UpdateQueue", admin_pb2.UpdateQueueRequest(queue=queue), "INVALID_FIELD", "queue.etag")
        self.assertEqual(self.client.create_queue(self.name, max_messages=5).max_messages, 5)

    # A flood of bad calls at once is answered one by one, and the good ones among them are done.
    def test_flood(self):
        self.client.create_queue(self.name)
        with self.somebody_else_works():
            calls = []
            for i in range(1000):
                request = self.enqueue_request(queue=self.name if i % 10 == 0 else "BAD")
                calls.append(self.client.stub.Enqueue.future(request, timeout=30))
            codes = [call.code() for call in calls]
        self.assertEqual(codes.count(grpc.StatusCode.OK), 100)
        self.assertEqual(codes.count(grpc.StatusCode.INVALID_ARGUMENT), 900)
        self.assertEqual(len(self.client.drain(self.name)), 100)


class NothingCreatedByItselfTest(ServerTest):
    flags = ("--auto-create", "off")

    # An unknown queue or topic is NOT_FOUND, and the text is the command that creates it; what it says works.
    def test_unknown_names(self):
        enqueue = lambda: self.client.enqueue(self.name, "x")
        for call in (enqueue, lambda: self.client.dequeue(self.name), lambda: self.client.ack(self.name, "x"),
                     lambda: self.client.stats(self.name), lambda: self.client.consume(self.name),
                     lambda: Consumer(self.client, message_pb2.ConsumeRequest(open=message_pb2.Open(source=self.name))),
                     lambda: self.client.admin.GetQueue(admin_pb2.GetQueueRequest(name=self.name)),
                     lambda: self.client.stub.EnqueueStream(iter([message_pb2.EnqueueStreamRequest(
                         queue=self.name, messages=messages("x"))]))):
            refused = self.assert_refused(call, "NOT_FOUND", "QUEUE_NOT_FOUND",
                                          resource=f"namespaces/default/queues/{self.name}")
            self.assertIn(f"Create it: postkeeper queue create {self.name}", refused.text)
        for call in (lambda: self.client.publish(self.name, "x"), lambda: self.client.subscribe(self.name)):
            refused = self.assert_refused(call, "NOT_FOUND", "TOPIC_NOT_FOUND",
                                          resource=f"namespaces/default/topics/{self.name}")
            self.assertIn(f"Create it: postkeeper topic create {self.name}", refused.text)
        self.server.cli(*refusal(enqueue).text.partition("Create it: postkeeper ")[2].split())
        self.assertEqual(len(enqueue()), 1)
        full = f"namespaces/elsewhere/queues/{self.name}"
        text = refusal(lambda: self.client.enqueue(full, "x")).text
        self.server.cli(*text.partition("Create it: postkeeper ")[2].split())
        self.assertEqual(len(self.client.enqueue(full, "x")), 1)


if __name__ == "__main__":
    unittest.main()
