"""No declared field is silently ignored: a walk over everything that postkeeper.v1 declares.

Every RPC and every field of its request, at every place where it can stand, is either on GetServerInfo.unserved, and
then it is refused when it is used; or it is in EFFECTS, which names the check that shows what it does. What is in
neither fails the test, so a new field cannot be forgotten.
"""

import pathlib
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from google.protobuf import field_mask_pb2, timestamp_pb2  # noqa: E402
from google.protobuf.descriptor import FieldDescriptor  # noqa: E402

from client import (STALE_LEASE, ServerTest, admin_pb2, bodies, cluster_pb2, connection, duration,  # noqa: E402
                    message_pb2, messages, refusal, tokens, until)

EFFECTS = {}


def shows(*places):
    """Marks a check of ServedTest as the one that shows the effect of these: "Enqueue.messages.body"."""
    def mark(check):
        for place in places:
            assert place not in EFFECTS, f"{place} has two checks"
            EFFECTS[place] = check.__name__
        return check
    return mark


def of_each(rpcs, *fields):
    return [f"{rpc}.{field}" for rpc in rpcs for field in fields]


APPENDS = {"Enqueue": "queue", "Publish": "topic", "EnqueueStream": "queue", "PublishStream": "topic"}
FILES = (message_pb2, admin_pb2, cluster_pb2)


def methods():
    return [method for file in FILES for service in file.DESCRIPTOR.services_by_name.values()
            for method in service.methods]


def walk(message, path=()):
    """Every field of a request and of what it holds: (path, descriptor)."""
    for field in message.fields:
        yield path + (field.name,), field
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        if field.message_type is not None and not is_map and field.message_type.full_name.startswith("postkeeper."):
            yield from walk(field.message_type, path + (field.name,))


def set_field(message, path, value=None):
    """Sets what `path` names to something that is not its default, and what is above it to something."""
    field = message.DESCRIPTOR.fields_by_name[path[0]]
    is_repeated = field.label == FieldDescriptor.LABEL_REPEATED
    if field.message_type is None:
        made = value
        if made is None:
            made = {FieldDescriptor.CPPTYPE_STRING: "x", FieldDescriptor.CPPTYPE_BOOL: True}.get(field.cpp_type, 1)
        if is_repeated:
            getattr(message, path[0]).append(made)
        else:
            setattr(message, path[0], made)
        return
    child = getattr(message, path[0]).add() if is_repeated else getattr(message, path[0])
    child.SetInParent()
    if len(path) > 1:
        set_field(child, path[1:], value)
    elif "seconds" in child.DESCRIPTOR.fields_by_name:
        child.seconds = 1


class ServedTest(ServerTest):
    flags = ("--log-level", "debug")

    @property
    def unserved(self):
        return set(self.client.cluster.GetServerInfo(cluster_pb2.GetServerInfoRequest(), timeout=30).unserved)

    def call(self, method, request):
        """Calls any RPC with one request, and takes the first answer."""
        path = f"/{method.containing_service.full_name}/{method.name}"
        data = request.SerializeToString()
        if method.client_streaming:
            return next(self.client.channel.stream_stream(path)(iter([data]), timeout=20))
        if method.server_streaming:
            return next(self.client.channel.unary_stream(path)(data, timeout=20))
        return self.client.channel.unary_unary(path)(data, timeout=20)

    # ---- The walk

    # Each declared RPC and field is either on the list of what is not served, or has a check.
    def test_everything_declared_is_served_or_refused(self):
        unserved, missing, walked = self.unserved, [], set()
        for method in methods():
            if method.full_name in unserved:
                continue
            walked.add(method.name)
            if method.name not in EFFECTS and not list(walk(method.input_type)):
                missing.append(method.full_name)
            for path, field in walk(method.input_type):
                place = ".".join((method.name,) + path)
                walked.add(place)
                if (field.full_name in unserved) == (place in EFFECTS):
                    missing.append(place)
        self.assertEqual(missing, [], "neither refused nor shown, or both")
        self.assertEqual(sorted(set(EFFECTS) - walked), [], "these checks show what is not declared")

    # What is on the list is declared, and is refused wherever it is used; the error names it.
    def test_what_is_not_served_is_refused(self):
        unserved, seen = self.unserved, set()
        for method in methods():
            request = getattr(sys.modules[f"{method.input_type.file.name[:-6].replace('/', '.')}_pb2"],
                              method.input_type.name)
            if method.full_name in unserved:
                seen.add(method.full_name)
                with self.subTest(method.full_name):
                    self.assert_refused(lambda: self.call(method, request()), "UNIMPLEMENTED", "METHOD_NOT_SERVED",
                                        resource=method.full_name)
                continue
            for path, field in walk(method.input_type):
                if field.full_name in unserved:
                    seen.add(field.full_name)
                    with self.subTest(method.name, path=path):
                        self.refuses_field(method, request, path)
                for number in field.enum_type.values if field.enum_type else ():
                    # A value stands beside its enum; Debian's protobuf does not know its full name.
                    full_name = f"{field.enum_type.full_name.rpartition('.')[0]}.{number.name}"
                    if full_name in unserved:
                        seen.add(full_name)
                        with self.subTest(method.name, path=path, number=number.name):
                            self.refuses_field(method, request, path, number.number)
        self.assertEqual(unserved - seen, set(), "on the list, but not declared")

    def refuses_field(self, method, request, path, value=None):
        filled = request()
        required = {"queue": self.name, "topic": self.name, "source": self.name, "name": self.name}
        for name, text in required.items():
            field = filled.DESCRIPTOR.fields_by_name.get(name)
            if field is not None and field.message_type is None:
                setattr(filled, name, text)
            elif field is not None:
                getattr(filled, name).name = text
        if method.name == "Consume":
            filled.open.source = self.name
            filled.sequence = 1
        if path[0] == "nacks":
            nacks = filled.nacks.add() if method.name == "Consume" else filled.nacks
            nacks.lease_tokens.append("x")
            setattr(nacks, path[1], value)
        else:
            set_field(filled, path, value)
        refused = refusal(lambda: self.call(method, filled))
        self.assertEqual((refused.code, refused.reason), ("UNIMPLEMENTED", "FIELD_NOT_SERVED"), refused)
        self.assertIn(path[-1], refused.metadata["field"])
        self.assertIn(path[-1], refused.text)

    # A field and an enum value that no version declares yet, as a newer client sends them, are refused as well.
    def test_what_is_newer_than_this_build_is_refused(self):
        field_1000 = b"\xc0\x3e\x01"
        for method in methods():
            if method.full_name in self.unserved:
                continue
            with self.subTest(method.name):
                path = f"/{method.containing_service.full_name}/{method.name}"
                channel = self.client.channel
                call = {(False, False): channel.unary_unary, (False, True): channel.unary_stream,
                        (True, True): channel.stream_stream}[method.client_streaming, method.server_streaming]
                refused = refusal(lambda: call(path)(iter([field_1000]) if method.client_streaming else field_1000,
                                                     timeout=20))
                # A required name that is missing has precedence.
                self.assertIn(refused.reason, ("FIELD_NOT_SERVED", "INVALID_NAME", "INVALID_FIELD"), refused)
        enqueue = message_pb2.EnqueueRequest(queue=self.name, messages=messages("x")).SerializeToString()
        self.assert_refused(lambda: self.client.raw("MessageService/Enqueue", enqueue + field_1000), "UNIMPLEMENTED",
                            "FIELD_NOT_SERVED", "field 1000")
        inner = message_pb2.Message(body=b"x").SerializeToString() + field_1000
        enqueue = message_pb2.EnqueueRequest(queue=self.name).SerializeToString()
        enqueue += b"\x12" + bytes([len(inner)]) + inner
        self.assert_refused(lambda: self.client.raw("MessageService/Enqueue", enqueue), "UNIMPLEMENTED",
                            "FIELD_NOT_SERVED", "messages[0].field 1000")
        nacks = message_pb2.Nacks(lease_tokens=["x"])
        nacks.kind = 77
        self.assert_refused(lambda: self.client.stub.Nack(message_pb2.NackRequest(source=self.name, nacks=nacks)),
                            "UNIMPLEMENTED", "FIELD_NOT_SERVED", "nacks.kind")

    # ---- Appending

    def append(self, rpc, name, sent, **fields):
        """Appends by any of the four RPCs; returns the ids."""
        return list(self.answer(rpc, name, sent, **fields).message_ids)

    def answer(self, rpc, name, sent, **fields):
        request_type = message_pb2.DESCRIPTOR.services_by_name["MessageService"].methods_by_name[rpc].input_type.name
        request = getattr(message_pb2, request_type)(**{APPENDS[rpc]: name}, messages=sent, **fields)
        if rpc.endswith("Stream"):
            return list(getattr(self.client.stub, rpc)(iter([request]), timeout=20))[0]
        return getattr(self.client.stub, rpc)(request, timeout=20)

    def read(self, rpc, name, count):
        """What is there now: [(id, message, when appended)]."""
        if APPENDS[rpc] == "queue":
            got = []
            while len(got) < count:
                delivery = self.client.take(name)
                self.client.ack(name, delivery)
                got.append((delivery.message_id, delivery.message))
            return got
        return [(item.message_id, item.message) for item in self.subscribe(name, earliest=True).messages(count)]

    @shows(*of_each(APPENDS, "messages", "messages.body", "messages.attributes", "messages.content_type"),
           "Enqueue.queue", "EnqueueStream.queue", "Publish.topic", "PublishStream.topic")
    def test_contents(self):
        sent = [message_pb2.Message(body=b"\0\xff", attributes={"a": "b", "c": ""}, content_type="text/plain"),
                message_pb2.Message(body=b"second")]
        for rpc in APPENDS:
            with self.subTest(rpc):
                name = f"{self.name}-{rpc}".lower()
                ids = self.append(rpc, name, sent)
                self.assertEqual(self.read(rpc, name, 2), list(zip(ids, sent)))

    # On a queue it waits; a topic shows the log as it was written, with what was asked for.
    @shows(*of_each(APPENDS, "messages.delay", "messages.deliver_at"))
    def test_delays(self):
        far = timestamp_pb2.Timestamp(seconds=int(time.time()) + 3600)
        sent = [message_pb2.Message(body=b"d", delay=duration(3600)), message_pb2.Message(body=b"t", deliver_at=far)]
        for rpc in APPENDS:
            with self.subTest(rpc):
                name = f"{self.name}-{rpc}".lower()
                self.append(rpc, name, sent)
                if APPENDS[rpc] == "queue":
                    self.assertEqual(self.client.counts(name), (0, 2, 0))
                else:
                    self.assertEqual([message for _, message in self.read(rpc, name, 2)], sent)

    @shows(*of_each(APPENDS, "request_id"))
    def test_request_ids(self):
        for rpc in APPENDS:
            with self.subTest(rpc):
                name = f"{self.name}-{rpc}".lower()
                first = self.append(rpc, name, messages("a"), request_id="r")
                self.assertEqual(self.append(rpc, name, messages("a"), request_id="r"), first)
                self.assertNotEqual(self.append(rpc, name, messages("a"), request_id="s"), first)

    @shows(*of_each(APPENDS, "messages.dedup_id"))
    def test_dedup_ids(self):
        one, two, three = [message_pb2.Message(body=body.encode(), dedup_id=body) for body in ("one", "two", "three")]
        plain = message_pb2.Message(body=b"plain")
        for rpc in APPENDS:
            with self.subTest(rpc):
                name = f"{self.name}-{rpc}".lower()
                first = self.answer(rpc, name, [one, plain, two])
                self.assertEqual(list(first.duplicates), [])
                again = self.answer(rpc, name, [two, plain, three, three])
                self.assertEqual(list(again.duplicates), [0, 3])
                self.assertEqual(again.message_ids[0], first.message_ids[2])
                self.assertEqual(again.message_ids[3], again.message_ids[2])
                self.assertEqual(list(self.answer(rpc, f"{name}-other", [one, two]).duplicates), [])
                written = [(first.message_ids[i], sent) for i, sent in enumerate([one, plain, two])]
                written += [(again.message_ids[1], plain), (again.message_ids[2], three)]
                self.assertEqual(self.read(rpc, name, 5), written)

    # ---- Dequeue, Ack, Nack, Extend

    @shows("Dequeue.source", "Dequeue.max_messages", "Dequeue.max_bytes", "Dequeue.lease_duration")
    def test_dequeue(self):
        self.client.enqueue(self.name, *["x" * 100] * 6)
        self.assertEqual(len(self.client.dequeue(self.name, 3).deliveries), 3)
        self.assertEqual(len(self.client.dequeue(self.name, 3, max_bytes=210).deliveries), 2)
        self.assertEqual(self.client.dequeue(self.name, lease=77).lease_duration, duration(77))

    @shows("Dequeue.wait")
    def test_wait(self):
        self.client.create_queue(self.name)
        for wait in (0, 1):
            started = time.monotonic()
            self.client.dequeue(self.name, wait=wait)
            self.assertEqual(time.monotonic() - started > 0.99, wait == 1)

    @shows("Dequeue.ack_tokens", "Ack.source", "Ack.lease_tokens")
    def test_acks(self):
        self.client.enqueue(self.name, "a", "b", "c")
        a, b, c = tokens(self.client.dequeue(self.name, 3))
        self.client.dequeue(self.name, ack_tokens=[a])
        self.assertEqual(self.client.counts(self.name), (0, 0, 2))
        self.client.ack(self.name, b, c)
        self.assertEqual(self.client.counts(self.name), (0, 0, 0))

    # A name for the log.
    @shows("Dequeue.consumer", "Consume.open.consumer", "Subscribe.subscriber")
    def test_names_of_consumers(self):
        self.client.create_queue(self.name)
        self.client.dequeue(self.name, consumer="somebody-dequeues")
        self.consume(self.name, consumer="somebody-consumes")
        self.subscribe(self.name, subscriber="somebody-subscribes")
        self.server.wait_for_log(rf"debug .*queues/{self.name} .*somebody-dequeues")
        self.server.wait_for_log(rf"debug .*queues/{self.name} .*somebody-consumes")
        self.server.wait_for_log(rf"debug .*topics/{self.name} .*somebody-subscribes")

    @shows("Nack.source", "Nack.nacks", "Nack.nacks.lease_tokens", "Nack.nacks.kind", "Nack.nacks.reason",
           "Nack.nacks.delay")
    def test_nack(self):
        self.client.enqueue(self.name, "retry", "release", "later")
        retry, release, later = tokens(self.client.dequeue(self.name, 3))
        self.client.nack(self.name, retry, delay=0, kind=message_pb2.NACK_KIND_RETRY, reason="one")
        self.client.nack(self.name, release, kind=message_pb2.NACK_KIND_RELEASE, reason="two")
        self.client.nack(self.name, later, delay=3600)
        self.assertEqual(self.client.counts(self.name), (2, 1, 0))
        got = {item.message.body: (item.attempt, item.last_reason) for item in self.client.drain(self.name)}
        self.assertEqual(got, {b"retry": (2, "one"), b"release": (1, "two")})

    @shows("Extend.source", "Extend.extensions", "Extend.extensions.lease_tokens", "Extend.extensions.lease_duration")
    def test_extend(self):
        self.client.enqueue(self.name, "a")
        delivery = self.client.take(self.name, lease=3600)
        self.assertEqual(self.client.extend(self.name, delivery, lease=1), [])
        self.assertEqual(self.client.take(self.name, wait=20).attempt, 2)
        self.assertEqual(self.client.ack(self.name, delivery), [STALE_LEASE])

    # ---- Consume

    @shows("Consume.open", "Consume.open.source", "Consume.open.lease_duration", "Consume.sequence",
           "Consume.ack_tokens", "Consume.nacks", "Consume.nacks.lease_tokens", "Consume.nacks.kind",
           "Consume.nacks.reason", "Consume.nacks.delay", "Consume.extensions", "Consume.extensions.lease_tokens",
           "Consume.extensions.lease_duration")
    def test_consume(self):
        self.client.enqueue(self.name, "ack", "retry", "release", "shorten")
        consumer = self.consume(self.name, 4, manual_credit=True, lease=3600)
        self.assertEqual(consumer.opened.lease_duration, duration(3600))
        ack, retry, release, shorten = tokens(consumer.deliveries(4))
        nacks = [message_pb2.Nacks(lease_tokens=[retry], reason="one", delay=duration(0)),
                 message_pb2.Nacks(lease_tokens=[release], kind=message_pb2.NACK_KIND_RELEASE)]
        shorter = message_pb2.Extensions(lease_tokens=[shorten], lease_duration=duration(1))
        consumer.send(sequence=41, ack_tokens=[ack], nacks=nacks, extensions=[shorter])
        self.assertEqual(consumer.next_of("settled"), message_pb2.Settled(sequence=41))
        got = {}
        while len(got) < 3:
            item = self.client.take(self.name, wait=20)
            got[item.message.body] = (item.attempt, item.last_reason)
            self.client.ack(self.name, item)
        self.assertEqual(got, {b"retry": (2, "one"), b"release": (1, ""), b"shorten": (2, "lease lapsed")})
        self.assertEqual(self.client.counts(self.name), (0, 0, 0))

    @shows("Consume.open.credit", "Consume.open.credit.messages", "Consume.open.credit.bytes",
           "Consume.open.manual_credit", "Consume.credit", "Consume.credit.messages", "Consume.credit.bytes",
           "Consume.open.heartbeat_interval")
    def test_credit(self):
        self.client.create_queue(self.name)
        consumer = self.consume(self.name, 2, credit_bytes=1000, manual_credit=True, heartbeat_interval=duration(1))
        opened_at = consumer.received_at
        left = consumer.next_of("heartbeat").credit_left
        self.assertAlmostEqual(consumer.received_at - opened_at, 1, delta=0.9)
        self.assertEqual((left.messages, left.bytes), (2, 1000))
        consumer.send(credit=message_pb2.Credit(messages=3, bytes=500))
        left = consumer.next_of("heartbeat").credit_left
        self.assertEqual((left.messages, left.bytes), (5, 1500))
        self.client.enqueue(self.name, "a")
        consumer.ack(consumer.deliveries(1))
        self.assertEqual(consumer.next_of("heartbeat").credit_left.messages, 4)
        automatic = self.consume(self.name, 2, heartbeat_interval=duration(1))
        consumer.cancel()
        self.client.enqueue(self.name, "b")
        automatic.ack(automatic.deliveries(1))
        self.assertEqual(automatic.next_of("heartbeat").credit_left.messages, 2)

    @shows("Consume.open.keep_leases")
    def test_keep_leases(self):
        self.client.enqueue(self.name, "kept", "lapses")
        keeper = self.consume(self.name, 1, lease=1, keep_leases=True, manual_credit=True)
        keeper.deliveries(1)
        other = self.consume(self.name, 1, lease=1)
        self.assertEqual([item.attempt for item in other.deliveries(3)], [1, 2, 3])
        self.assertEqual(keeper.kept, [])
        self.assertTrue(keeper.is_idle())

    @shows("Consume.drain")
    def test_drain(self):
        self.client.enqueue(self.name, "a")
        consumer = self.consume(self.name)
        consumer.deliveries(1)
        consumer.send(drain=True)
        self.assertEqual(consumer.finish(), [])
        self.assertEqual(self.client.take(self.name).attempt, 1)

    # ---- Subscribe

    @shows("Subscribe.topic", "Subscribe.start", "Subscribe.start.latest", "Subscribe.start.earliest",
           "Subscribe.start.after", "Subscribe.start.time", "Subscribe.heartbeat_interval")
    def test_subscribe(self):
        self.client.publish(self.name, "1", "2")
        first = self.subscribe(self.name, earliest=True).messages(2)[0]
        after = self.subscribe(self.name, after=first.position)
        self.assertEqual(bodies(after.messages(1)), ["2"])
        at_once = self.subscribe(self.name, time=timestamp_pb2.Timestamp(seconds=1))
        self.assertEqual(bodies(at_once.messages(2)), ["1", "2"])
        latest = self.subscribe(self.name, latest=True)
        opened_at = latest.received_at
        self.assertEqual(list(latest.next().messages), [])
        self.assertAlmostEqual(latest.received_at - opened_at, 1, delta=0.9)
        self.client.publish(self.name, "3")
        self.assertEqual(bodies(latest.messages(1)), ["3"])

    # ---- Administration

    QUEUE = {"lease_duration": duration(7), "retry_backoff": duration(2), "retry_backoff_max": duration(9),
             "max_messages": 1234, "max_bytes": 123456}
    TOPIC = {"retention": duration(7200), "max_messages": 1234, "max_bytes": 123456}

    @shows(*of_each(["CreateQueue", "UpdateQueue"], "queue", "queue.name", "queue.lease_duration",
                    "queue.retry_backoff", "queue.retry_backoff_max", "queue.max_messages", "queue.max_bytes"),
           *of_each(["CreateTopic", "UpdateTopic"], "topic", "topic.name", "topic.retention", "topic.max_messages",
                    "topic.max_bytes"), "GetQueue.name", "GetTopic.name")
    def test_settings(self):
        for kind, settings in (("Queue", self.QUEUE), ("Topic", self.TOPIC)):
            for verb in ("Create", "Update"):
                for field, value in settings.items():
                    with self.subTest(f"{verb}{kind}", field=field):
                        name = f"{self.name}-{verb}-{kind}-{field}".lower().replace("_", "-")
                        wanted = {field: value}
                        if field == "retry_backoff_max":
                            wanted["retry_backoff"] = duration(1)
                        if verb == "Update":
                            self.administer("Create", kind, name)
                        answered = self.administer(verb, kind, name, **wanted)
                        shown = self.administer("Get", kind, name)
                        self.assertEqual(answered, shown)
                        self.assertEqual(getattr(shown, field), value)
                        self.assertTrue(shown.name.endswith(f"s/{name}"))
        self.client.create_queue(self.name, lease_duration=duration(7))
        self.client.enqueue(self.name, "x")
        self.assertEqual(self.client.dequeue(self.name).lease_duration, duration(7))

    def administer(self, verb, kind, name, request=None, **settings):
        """Create, Update or Get of a queue or topic; returns it."""
        if verb == "Get":
            asked = getattr(admin_pb2, f"Get{kind}Request")(name=name)
        else:
            thing = getattr(admin_pb2, kind)(name=name, **settings)
            asked = getattr(admin_pb2, f"{verb}{kind}Request")(**{kind.lower(): thing}, **(request or {}))
        return getattr(getattr(self.client.admin, f"{verb}{kind}")(asked, timeout=20), kind.lower())

    # The proto says of these that they are given by the server and ignored in requests; the answer shows that.
    @shows("CreateQueue.queue.uid", "CreateQueue.queue.etag", "CreateQueue.queue.create_time", "UpdateQueue.queue.uid",
           "UpdateQueue.queue.create_time", "CreateTopic.topic.uid", "CreateTopic.topic.etag",
           "CreateTopic.topic.create_time", "UpdateTopic.topic.uid", "UpdateTopic.topic.create_time")
    def test_given_by_the_server(self):
        for kind in ("Queue", "Topic"):
            theirs = {"uid": "uMine", "create_time": timestamp_pb2.Timestamp(seconds=1)}
            created = self.administer("Create", kind, self.name, etag="eMine", **theirs)
            updated = self.administer("Update", kind, self.name, max_messages=5, **theirs)
            for answer in (created, updated):
                self.assertEqual((answer.uid, answer.create_time), (created.uid, created.create_time))
                self.assertNotIn(answer.uid, ("", "uMine"))
                self.assertNotEqual(answer.etag, "eMine")
                self.assertGreater(answer.create_time.seconds, 1_000_000)
            self.assertEqual(updated.max_messages, 5)

    @shows("UpdateQueue.queue.etag", "UpdateTopic.topic.etag", "UpdateQueue.update_mask", "UpdateTopic.update_mask",
           "UpdateQueue.allow_missing", "UpdateTopic.allow_missing", "DeleteQueue.name", "DeleteQueue.etag",
           "DeleteQueue.allow_missing", "DeleteTopic.name", "DeleteTopic.etag", "DeleteTopic.allow_missing")
    def test_updates_and_deletes(self):
        for kind in ("Queue", "Topic"):
            with self.subTest(kind):
                first = self.administer("Update", kind, self.name, request={"allow_missing": True}, max_messages=9)
                mask = field_mask_pb2.FieldMask(paths=["max_bytes"])
                second = self.administer("Update", kind, self.name, request={"update_mask": mask}, max_messages=3,
                                         max_bytes=77777)
                self.assertEqual((second.max_messages, second.max_bytes), (9, 77777))
                self.assert_refused(lambda: self.administer("Update", kind, self.name, etag=first.etag, max_messages=4),
                                    "ABORTED", "ETAG_MISMATCH")
                self.assertEqual(
                    self.administer("Update", kind, self.name, etag=second.etag, max_messages=4).max_messages, 4)
                request = getattr(admin_pb2, f"Delete{kind}Request")
                delete = getattr(self.client.admin, f"Delete{kind}")
                self.assert_refused(lambda: delete(request(name=self.name, etag=second.etag), timeout=20), "ABORTED",
                                    "ETAG_MISMATCH")
                delete(request(name=self.name), timeout=20)
                not_found = f"{kind.upper()}_NOT_FOUND"
                self.assert_refused(lambda: delete(request(name=self.name), timeout=20), "NOT_FOUND", not_found)
                self.assert_refused(lambda: self.administer("Update", kind, self.name, max_messages=4), "NOT_FOUND",
                                    not_found)
                delete(request(name=self.name, allow_missing=True), timeout=20)

    @shows(*of_each(["ListQueues", "ListTopics"], "parent", "page_size", "page_token"))
    def test_lists(self):
        for kind in ("Queue", "Topic"):
            names = [f"namespaces/lists/{kind.lower()}s/{self.name}-{i}" for i in range(5)]
            for name in reversed(names):
                self.administer("Create", kind, name)
            request = getattr(admin_pb2, f"List{kind}sRequest")
            page = getattr(self.client.admin, f"List{kind}s")
            listed, token = [], ""
            while True:
                answer = page(request(parent="namespaces/lists", page_size=2, page_token=token), timeout=20)
                found = [item.name for item in getattr(answer, f"{kind.lower()}s")]
                self.assertLessEqual(len(found), 2)
                listed += found
                token = answer.next_page_token
                if not token:
                    break
            self.assertEqual(listed, names)
            self.assertEqual(len(getattr(page(request(parent="namespaces/empty"), timeout=20), f"{kind.lower()}s")), 0)

    @shows("PurgeQueue.name", "PurgeQueue.leased_too", "GetStats.source")
    def test_purge_and_stats(self):
        self.client.enqueue(self.name, "a", "b")
        self.client.take(self.name)
        purge = self.client.admin.PurgeQueue
        self.assertEqual(purge(admin_pb2.PurgeQueueRequest(name=self.name), timeout=20).purged, 1)
        self.assertEqual(self.client.counts(self.name), (0, 0, 1))
        self.assertEqual(purge(admin_pb2.PurgeQueueRequest(name=self.name, leased_too=True), timeout=20).purged, 1)
        self.assertEqual(self.client.counts(self.name), (0, 0, 0))

    # GetStats answers what its manual says, all of it.
    def test_every_number_of_stats(self):
        self.client.enqueue(self.name, "a", "b", "c")
        self.client.enqueue(self.name, "later", delay=duration(3600))
        delivery = self.client.take(self.name)
        self.client.ack(self.name, self.client.take(self.name))
        consumer = self.consume(self.name, 0, manual_credit=True)
        stats = until(lambda: self.stats_with_rates(), "the rates are counted")
        self.assertEqual((stats.ready, stats.delayed, stats.leased, stats.consumers), (1, 1, 1, 1))
        self.assertEqual(stats.bytes, sum(message.ByteSize() for message in messages("a", "c")) +
                         message_pb2.Message(body=b"later", delay=duration(3600)).ByteSize())
        self.assertGreater(stats.oldest_age.ToNanoseconds(), 0)
        consumer.cancel()
        self.client.ack(self.name, delivery)

    def stats_with_rates(self):
        stats = self.client.stats(self.name)
        return stats if stats.enqueue_rate > 0 and stats.settle_rate > 0 else None

    # What the server says of itself; the RPC has no fields.
    @shows("GetServerInfo")
    def test_server_info(self):
        info = self.client.cluster.GetServerInfo(cluster_pb2.GetServerInfoRequest(), timeout=20)
        version = (connection.ROOT / "VERSION").read_text(encoding="utf-8").strip()
        self.assertEqual((info.version, info.store_format), (version, 1))
        self.assertRegex(info.replica, "^r[A-Za-z0-9_-]+$")
        self.assertEqual(list(info.unserved), sorted(info.unserved))
        self.assertEqual(info.limits["message_bytes"], 512 << 10)
        self.assertEqual(info.limits["request_messages"], 4096)
        self.assertEqual(info.replica, self.consume(self.name).opened.replica)

    # A page token is given by the server; here there is one replica, so none is given. tests/integration/replicas_test.py
    # turns pages.
    @shows("ListReplicas.page_size", "ListReplicas.page_token")
    def test_list_replicas(self):
        info = self.client.cluster.GetServerInfo(cluster_pb2.GetServerInfoRequest(), timeout=20)
        list_replicas = self.client.cluster.ListReplicas
        answer = list_replicas(cluster_pb2.ListReplicasRequest(page_size=1), timeout=20)
        self.assertEqual([replica.name for replica in answer.replicas], [info.replica])
        self.assertEqual((answer.replicas[0].version, answer.next_page_token), (info.version, ""))
        self.assert_refused(lambda: list_replicas(cluster_pb2.ListReplicasRequest(page_size=1001), timeout=20),
                            "INVALID_ARGUMENT", "INVALID_FIELD", field="page_size")
        self.assert_refused(lambda: list_replicas(cluster_pb2.ListReplicasRequest(page_token="pX"), timeout=20),
                            "INVALID_ARGUMENT", "INVALID_FIELD", field="page_token")
        self.client.enqueue(self.name, "x")

        def owned():
            return list_replicas(cluster_pb2.ListReplicasRequest(), timeout=20).replicas[0].sources_owned
        until(lambda: owned() > 0, "it owns the queue")


if __name__ == "__main__":
    unittest.main()
