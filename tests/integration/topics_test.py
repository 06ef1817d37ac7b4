"""Publish and Subscribe on a real postkeeperd with a real ZooKeeper."""

import pathlib
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from google.protobuf import timestamp_pb2  # noqa: E402

from client import ServerTest, admin_pb2, bodies, message_pb2, messages, until  # noqa: E402


class TopicsTest(ServerTest):
    @property
    def full_name(self):
        return f"namespaces/default/topics/{self.name}"

    # Every subscriber gets every message, in order, with all that the producer gave.
    def test_everybody_gets_everything(self):
        subscribers = [self.subscribe(self.name, latest=True) for _ in range(3)]
        sent = message_pb2.Message(body=bytes(range(256)), attributes={"k": "v"}, content_type="x/y")
        ids = self.client.stub.Publish(message_pb2.PublishRequest(topic=self.name, messages=[sent, sent])).message_ids
        ids = [*ids, *self.client.publish(self.name, "third")]
        for subscriber in subscribers:
            got = subscriber.messages(3)
            self.assertEqual([message.message_id for message in got], ids)
            self.assertEqual([message.message for message in got], [sent, sent, *messages("third")])
            self.assertEqual({message.topic for message in got}, {self.full_name})
            positions = [message.position for message in got]
            self.assertEqual(positions, sorted(set(positions)))
            self.assertEqual({len(position) for position in positions}, {26})
            for message in got:
                self.assertAlmostEqual(message.publish_time.ToNanoseconds() / 1e9, time.time(), delta=20)

    # The first response comes at once and empty; it says where the stream stands, also on an empty topic.
    def test_opening(self):
        subscriber = self.subscribe(self.name)
        self.assertEqual(list(subscriber.opening.messages), [])
        self.assertEqual(subscriber.opening.position, subscriber.opening.tail)
        self.client.publish(self.name, "a", "b")
        last = subscriber.messages(2)[-1]
        self.assertEqual(subscriber.position, last.position)
        late = self.subscribe(self.name, earliest=True)
        self.assertLess(late.opening.position, late.opening.tail)
        self.assertEqual(late.opening.tail, last.position)

    # A late joiner: latest (also by default) sees only what comes, earliest all that is kept.
    def test_late_joiners(self):
        self.client.publish(self.name, "1", "2")
        late = [self.subscribe(self.name), self.subscribe(self.name, latest=True)]
        everything = self.subscribe(self.name, earliest=True)
        self.client.publish(self.name, "3")
        for subscriber in late:
            self.assertEqual(bodies(subscriber.messages(1)), ["3"])
        self.assertEqual(bodies(everything.messages(3)), ["1", "2", "3"])

    # start.after resumes right behind any message, also in the middle of a batch, and behind a response.
    def test_resume_after_a_position(self):
        self.client.publish(self.name, *range(5))
        self.client.publish(self.name, *range(5, 8))
        first = self.subscribe(self.name, earliest=True)
        got = first.messages(8)
        for i, message in enumerate(got):
            resumed = self.subscribe(self.name, after=message.position)
            self.assertEqual(bodies(resumed.messages(7 - i)), [str(j) for j in range(i + 1, 8)])
        first.cancel()
        self.client.publish(self.name, "8")
        self.assertEqual(bodies(self.subscribe(self.name, after=first.position).messages(1)), ["8"])
        # The opening's position works as well: behind earliest is everything.
        again = self.subscribe(self.name, after=first.opening.position)
        self.assertEqual(bodies(again.messages(9)), [str(i) for i in range(9)])

    # start.time: the first batch appended at or after it; before the oldest = all; after the newest = what comes.
    def test_start_at_a_time(self):
        self.client.publish(self.name, "1")
        first = self.subscribe(self.name, earliest=True).messages(1)[0]
        until(lambda: time.time_ns() - first.publish_time.ToNanoseconds() > 50_000_000, "the clock has moved on")
        self.client.publish(self.name, "2", "3")
        second = self.subscribe(self.name, after=first.position).messages(2)[0]
        between = timestamp_pb2.Timestamp()
        between.FromNanoseconds((first.publish_time.ToNanoseconds() + second.publish_time.ToNanoseconds()) // 2)
        self.assertEqual(bodies(self.subscribe(self.name, time=between).messages(2)), ["2", "3"])
        long_ago = timestamp_pb2.Timestamp(seconds=1)
        self.assertEqual(bodies(self.subscribe(self.name, time=long_ago).messages(3)), ["1", "2", "3"])
        far_ahead = timestamp_pb2.Timestamp(seconds=int(time.time()) + 10_000)
        subscriber = self.subscribe(self.name, time=far_ahead)
        self.client.publish(self.name, "4")
        self.assertEqual(bodies(subscriber.messages(1)), ["4"])

    # While nothing is published, empty responses say that the stream lives.
    def test_heartbeats(self):
        subscriber = self.subscribe(self.name, heartbeat=1)
        opened_at = subscriber.received_at
        beat = subscriber.next()
        self.assertEqual((list(beat.messages), beat.position, beat.tail),
                         ([], subscriber.position, subscriber.position))
        self.assertAlmostEqual(subscriber.received_at - opened_at, 1, delta=0.9)

    # PublishStream keeps the order sent and answers each frame; whoever reads gets that order.
    def test_publish_stream(self):
        subscriber = self.subscribe(self.name)
        frames = [message_pb2.PublishStreamRequest(topic=self.name if i == 0 else "",
                                                   messages=messages(f"{i}a", f"{i}b"))
                  for i in range(300)]
        answers = list(self.client.stub.PublishStream(iter(frames), timeout=60))
        got = subscriber.messages(600)
        self.assertEqual(bodies(got), [f"{i}{letter}" for i in range(300) for letter in "ab"])
        self.assertEqual([message.message_id for message in got],
                         [message_id for answer in answers for message_id in answer.message_ids])

    # The same request_id again gets the first answer, and subscribers see the message once.
    def test_request_id(self):
        first = self.client.publish(self.name, "a", request_id="r")
        self.assertEqual(self.client.publish(self.name, "a", request_id="r"), first)
        frame = message_pb2.PublishStreamRequest(topic=self.name, messages=messages("a"), request_id="r")
        answers = self.client.stub.PublishStream(iter([frame]), timeout=30)
        self.assertEqual([list(answer.message_ids) for answer in answers], [first])
        self.client.publish(self.name, "b")
        self.assertEqual(bodies(self.subscribe(self.name, earliest=True).messages(2)), ["a", "b"])

    # Past max_messages the oldest whole batches are trimmed: earliest begins later, and who stands before it is told
    # where the oldest is.
    def test_trimming(self):
        self.client.create_topic(self.name, max_messages=5)
        for i in range(12):
            self.client.publish(self.name, i)
            if i == 0:
                first = self.subscribe(self.name, earliest=True)
                position = first.messages(1)[0].position
                first.cancel()

        def kept():
            subscriber = self.client.subscribe(self.name, earliest=True).open()
            try:
                got = []
                while subscriber.position < subscriber.opening.tail:
                    got += subscriber.messages(1)
                got = bodies(got + subscriber.kept)
                return got if len(got) <= 5 else None
            finally:
                subscriber.cancel()

        self.assertEqual(until(kept, "the topic is trimmed"), ["7", "8", "9", "10", "11"])
        refused = self.assert_refused(lambda: self.client.subscribe(self.name, after=position), "OUT_OF_RANGE",
                                      "POSITION_TRIMMED", resource=self.full_name)
        resumed = self.subscribe(self.name, after=refused.metadata["oldest_position"])
        self.assertEqual(bodies(resumed.messages(5)), ["7", "8", "9", "10", "11"])

    # Deleting a topic ends its streams, and its positions are refused by the next one of that name.
    def test_delete(self):
        self.client.publish(self.name, "a")
        subscriber = self.subscribe(self.name, earliest=True)
        position = subscriber.messages(1)[0].position
        self.client.admin.DeleteTopic(admin_pb2.DeleteTopicRequest(name=self.name), timeout=30)
        self.assert_refused(lambda: subscriber, "NOT_FOUND", "TOPIC_NOT_FOUND", resource=self.full_name)
        self.client.create_topic(self.name)
        self.assert_refused(lambda: self.client.subscribe(self.name, after=position), "FAILED_PRECONDITION",
                            "POSITION_OF_DELETED_TOPIC", resource=self.full_name)
        self.client.publish(self.name, "b")
        self.assertEqual(bodies(self.subscribe(self.name, earliest=True).messages(1)), ["b"])

    # Many messages reach many subscribers, whole and in order, while they are published.
    def test_many(self):
        count = 5000
        subscribers = [self.subscribe(self.name) for _ in range(4)]
        frames = (message_pb2.PublishStreamRequest(topic=self.name, messages=messages(*range(i, i + 50)))
                  for i in range(0, count, 50))
        answers = self.client.stub.PublishStream(frames, timeout=60)
        for subscriber in subscribers:
            self.assertEqual(bodies(subscriber.messages(count)), [str(i) for i in range(count)])
        self.assertEqual(len(list(answers)), count // 50)

    # A subscriber that reads nothing holds up nobody, and has missed nothing when it reads again.
    def test_a_subscriber_that_does_not_read(self):
        body = b"x" * (200 << 10)
        request = message_pb2.SubscribeRequest(topic=self.name, start=message_pb2.Start(earliest=True))
        stuck = self.connect().stub.Subscribe(request)
        self.addCleanup(stuck.cancel)
        other = self.subscribe(self.name, earliest=True)
        with self.somebody_else_works():
            for _ in range(40):
                self.client.publish(self.name, body)
            self.assertEqual(len(other.messages(40)), 40)
        got = 0
        for response in stuck:
            got += len(response.messages)
            if got == 40:
                break
        self.assertEqual(response.position, other.position)


if __name__ == "__main__":
    unittest.main()
