"""Two replicas in front of one ZooKeeper: any of them serves any call, and one works on when the other has gone."""

import pathlib
import signal
import sys
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from client import (ALREADY_SETTLED, Refusal, admin_pb2, bodies, duration, grpc, message_pb2, messages,  # noqa: E402
                    refusal, tokens, until)
from replicas import TwoReplicasTest  # noqa: E402


class RoutingTest(TwoReplicasTest):
    # Unary calls through the replica that does not work for the queue do what they do through the one that does.
    def test_calls_on_a_queue(self):
        ids = self.there.enqueue("q", "a", "b", "c", "d")
        self.assertEqual(self.here.counts("q"), (4, 0, 0))
        self.assertEqual(self.there.counts("q"), (4, 0, 0))
        taken = self.there.dequeue("q", 3).deliveries
        self.assertEqual(bodies(taken), ["a", "b", "c"])
        self.assertEqual([delivery.message_id for delivery in taken], ids[:3])
        self.assertEqual(self.there.ack("q", taken[0]), [])
        self.assertEqual(self.here.ack("q", taken[0]), [ALREADY_SETTLED])
        self.assertEqual(self.there.nack("q", taken[1]), [])
        self.assertEqual(self.there.extend("q", taken[2], lease=600), [])
        self.assertEqual(bodies(self.here.drain("q")), ["d"])
        self.assertEqual(self.there.take("q").attempt, 2)
        purged = self.there.admin.PurgeQueue(admin_pb2.PurgeQueueRequest(name="q", leased_too=True), timeout=30)
        self.assertEqual(purged.purged, 2)
        self.assertEqual(self.here.counts("q"), (0, 0, 0))

    # A request_id is one and the same through all replicas.
    def test_request_ids(self):
        first = self.there.enqueue("q", "once", request_id="r")
        self.assertEqual(self.here.enqueue("q", "once", request_id="r"), first)
        self.assertEqual(self.there.enqueue("q", "once", request_id="r"), first)
        self.assertEqual(bodies(self.here.drain("q")), ["once"])

    # A Dequeue that waits elsewhere gets the message, and one whose caller has gone takes none.
    def test_long_poll(self):
        waiting = self.there.stub.Dequeue.future(self.there.dequeue_request("q", wait=30), timeout=60)
        gone = self.there.stub.Dequeue.future(self.there.dequeue_request("q", wait=30), timeout=60)
        self.here.wait_for_consumers("q", 2)
        gone.cancel()
        self.here.wait_for_consumers("q", 1)
        self.here.enqueue("q", "a")
        self.assertEqual(bodies(waiting.result()), ["a"])

    # What is wrong with a call is said in the same words, with the same details.
    def test_refusals(self):
        for client in (self.here, self.there):
            refused = refusal(lambda c=client: c.ack("nowhere", "x"))
            self.assertEqual((refused.code, refused.reason), ("NOT_FOUND", "QUEUE_NOT_FOUND"), refused)
        self.here.admin.UpdateQueue(admin_pb2.UpdateQueueRequest(
            queue=admin_pb2.Queue(name="q", max_messages=1), update_mask={"paths": ["max_messages"]}), timeout=30)
        self.here.enqueue("q", "a")
        self.here.wait_for_counts("q", 1, 0, 0)
        one, other = (refusal(lambda c=client: c.enqueue("q", "b")) for client in (self.here, self.there))
        self.assertEqual((one.code, one.reason, one.text, one.metadata), (other.code, other.reason, other.text,
                                                                          other.metadata))
        self.assertEqual(one.reason, "QUEUE_FULL")

    # New settings given to one replica count at once at the other, which works for the queue; so does a deletion.
    def test_settings_and_deletion(self):
        queue = admin_pb2.Queue(name="q", lease_duration=duration(77))
        self.there.admin.UpdateQueue(admin_pb2.UpdateQueueRequest(queue=queue, update_mask={"paths": ["lease_duration"]}),
                                     timeout=30)
        self.there.enqueue("q", "a")
        answer = self.here.dequeue("q")
        self.assertEqual(answer.lease_duration.seconds, 77)
        self.there.admin.DeleteQueue(admin_pb2.DeleteQueueRequest(name="q"), timeout=30)
        for client in (self.here, self.there):
            refused = refusal(lambda c=client: c.enqueue("q", "b"))
            self.assertEqual(refused.reason, "QUEUE_NOT_FOUND", refused)
        self.there.create_queue("q")
        self.there.enqueue("q", "new")
        self.assertEqual(bodies(self.here.drain("q")), ["new"])
        for _ in range(3):  # one replica deletes and creates, the other hears of it
            self.here.admin.DeleteQueue(admin_pb2.DeleteQueueRequest(name="q"), timeout=30)
            self.here.create_queue("q")
            self.here.enqueue("q", "newer")
            until(lambda: bodies(self.there.drain("q")) == ["newer"], "the queue of this name is another one")

    # EnqueueStream keeps the order sent, frame by frame, and answers each frame.
    def test_enqueue_stream(self):
        frames = [message_pb2.EnqueueStreamRequest(queue="q" if i == 0 else "", messages=messages(f"{i}a", f"{i}b"))
                  for i in range(200)]
        answers = list(self.there.stub.EnqueueStream(iter(frames), timeout=60))
        self.assertEqual([len(answer.message_ids) for answer in answers], [2] * 200)
        self.assertEqual(bodies(self.here.drain("q")), [f"{i}{letter}" for i in range(200) for letter in "ab"])
        bad = [message_pb2.EnqueueStreamRequest(queue="q", messages=messages("ok")), message_pb2.EnqueueStreamRequest()]
        refused = refusal(lambda: self.there.stub.EnqueueStream(iter(bad), timeout=60))
        self.assertEqual(refused.code, "INVALID_ARGUMENT", refused)

    # A Consume stream gives out, takes acks and credit, drains and ends as it does at the owner.
    def test_consume(self):
        consumer = self.there.consume("q", 2, credit_bytes=1 << 20)
        consumer.next_of("opened")
        self.here.enqueue("q", *range(5))
        first = consumer.deliveries(2)
        self.assertEqual(bodies(first), ["0", "1"])
        sequence = consumer.send(ack_tokens=tokens(first))
        settled = consumer.next_of("settled")
        self.assertEqual((settled.sequence, list(settled.failures)), (sequence, []))
        consumer.send(credit=message_pb2.Credit(messages=3, bytes=1 << 20))
        self.assertEqual(bodies(consumer.deliveries(3)), ["2", "3", "4"])
        consumer.send(drain=True)
        consumer.out.half_close()
        with self.assertRaises(StopIteration):
            while True:
                consumer.next()
        self.here.wait_for_counts("q", 3, 0, 0)  # a drain that is half-closed behind releases at once

    # A consumer that goes away without a word is forgotten by the owner.
    def test_consumer_goes_away(self):
        consumer = self.there.consume("q", 10, credit_bytes=1 << 20)
        consumer.next_of("opened")
        self.here.wait_for_consumers("q", 1)
        consumer.cancel()
        self.here.wait_for_consumers("q", 0)

    # Topics: publish here and there, subscribe here and there; a subscriber that leaves is forgotten.
    def test_topics(self):
        near, far = self.here.subscribe("t", earliest=True), self.there.subscribe("t", earliest=True)
        self.there.publish("t", "a")
        self.here.publish("t", "b")
        frames = [message_pb2.PublishStreamRequest(topic="t" if i == 0 else "", messages=messages(i)) for i in range(50)]
        self.assertEqual(len(list(self.there.stub.PublishStream(iter(frames), timeout=60))), 50)
        expected = ["a", "b", *map(str, range(50))]
        self.assertEqual(bodies(near.messages(52)), expected)
        self.assertEqual(bodies(far.messages(52)), expected)
        far.cancel()
        self.here.publish("t", "c")
        self.assertEqual(bodies(near.messages(1)), ["c"])

    # A call that was relayed once is not relayed again: two replicas that disagree don't send it to and fro.
    def test_one_hop(self):
        request = message_pb2.EnqueueRequest(queue="q", messages=messages("a"))
        self.there.enqueue("q", "learn who owns it")
        refused = refusal(lambda: self.there.stub.Enqueue(request, timeout=30, metadata=[("postkeeper-relayed", "x")]))
        self.assertEqual((refused.code, refused.reason), ("UNAVAILABLE", "NO_OWNER"), refused)
        self.assertIn(self.owner.address, refused.text)
        self.here.stub.Enqueue(request, timeout=30, metadata=[("postkeeper-relayed", "x")])
        self.assertEqual(bodies(self.here.drain("q")), ["learn who owns it", "a"])


class MovingTest(TwoReplicasTest):
    def tries(self, call):
        try:
            return call()
        except grpc.RpcError as error:
            self.assertEqual(error.code(), grpc.StatusCode.UNAVAILABLE, error)
            return None

    # The owner is stopped: the other takes over within two seconds, leases and tokens stay good, and nothing leased
    # comes again.
    def test_owner_stops(self):
        self.there.enqueue("q", "a", "b", "c")
        held = self.there.dequeue("q", 2, lease=600).deliveries
        consumer = self.there.consume("q", 1, credit_bytes=1 << 20)
        on_stream = consumer.deliveries(1)
        self.assertEqual(bodies(on_stream), ["c"])
        self.owner.stop()
        stopped_at = time.monotonic()
        self.there.enqueue("q", "d")
        self.assertLess(time.monotonic() - stopped_at, 3)
        self.assertEqual(self.there.ack("q", held[0]), [])
        self.assertEqual(bodies(self.there.dequeue("q", 10).deliveries), ["d"])
        self.assertEqual(self.there.ack("q", held[1]), [])
        self.assertEqual(consumer.ack(*on_stream), [])

    # The replica that relays a stream is stopped while frames come as fast as they can: what it took is answered, and
    # REPLICA_DRAINING says truly that nothing more was written.
    def test_relay_stops_under_a_stream(self):
        for round_number in range(3):
            self.there.enqueue("q", "learn who owns it")
            self.here.drain("q")
            ends = threading.Event()

            def frames():
                number = 0
                while not ends.is_set():
                    yield message_pb2.EnqueueStreamRequest(queue="q" if number == 0 else "", messages=messages(number))
                    number += 1
            stream, answered = self.there.stub.EnqueueStream(frames(), timeout=60), 0
            stopping = threading.Timer(0.3, lambda: self.other.process.send_signal(signal.SIGTERM))
            stopping.start()
            with self.assertRaises(grpc.RpcError) as raised:
                for _ in stream:
                    answered += 1
            ends.set()
            refused = Refusal(raised.exception)
            self.assertEqual((refused.code, refused.reason), ("UNAVAILABLE", "REPLICA_DRAINING"), refused)
            self.assertEqual(self.other.process.wait(60), 0)
            self.assertGreater(answered, 0)
            self.assertEqual(bodies(self.here.drain("q")), [str(i) for i in range(answered)], f"round {round_number}")
            self.other.start()

    # The owner is killed: calls wait until its session is over, then the other works on with nothing lost.
    def test_owner_is_killed(self):
        self.there.enqueue("q", *range(100))
        held = self.there.dequeue("q", 10, lease=600).deliveries
        self.assertEqual(self.there.ack("q", held[:5]), [])
        subscriber = self.there.subscribe("t", earliest=True)
        self.there.publish("t", "before")
        self.assertEqual(bodies(subscriber.messages(1)), ["before"])
        self.owner.kill()
        killed_at = time.monotonic()
        # The very call that finds the connection broken cannot know; one with a request_id may be repeated.
        until(lambda: self.tries(lambda: self.there.enqueue("q", "after", request_id="r")), "the other owns the queue")
        self.assertLess(time.monotonic() - killed_at, self.session_s + 4)
        self.assertEqual(self.there.ack("q", held[5]), [])
        left = bodies(self.there.drain("q"))
        self.assertEqual(left, [str(i) for i in range(6, 100)] + ["after"])
        self.there.publish("t", "after")
        again = self.there.subscribe("t", earliest=True)
        self.assertEqual(bodies(again.messages(2)), ["before", "after"])

    # The owner is killed: a repeat through the other replica gets the first answer, whether the messages are still there
    # or are acked and gone.
    def test_request_ids_move_to_the_next_owner(self):
        settled = self.here.enqueue("q", "a", "b", request_id="settled")
        self.assertEqual(bodies(self.here.drain("q")), ["a", "b"])
        kept = self.there.enqueue("q", "c", request_id="kept")
        published = self.there.publish("t", "m", request_id="published")
        self.owner.kill()
        for first, repeat in ((settled, lambda: self.there.enqueue("q", "a", "b", request_id="settled")),
                              (kept, lambda: self.there.enqueue("q", "c", request_id="kept")),
                              (published, lambda: self.there.publish("t", "m", request_id="published"))):
            self.assertEqual(until(lambda call=repeat: self.tries(call), "the other has taken over"), first)
        self.assertEqual(bodies(self.there.drain("q")), ["c"])
        self.there.publish("t", "end")
        self.assertEqual(bodies(self.there.subscribe("t", earliest=True).messages(2)), ["m", "end"])

    # The same of messages under their dedup_ids, alone and beside others: the next owner writes only what is new.
    def test_dedup_ids_move_to_the_next_owner(self):
        settled = self.there.enqueue("q", "a", dedup_id="settled")
        self.assertEqual(bodies(self.there.drain("q")), ["a"])
        kept = self.there.enqueue("q", "b", dedup_id="kept")
        published = self.there.publish("t", "m", dedup_id="published")
        mixed = message_pb2.EnqueueRequest(queue="q", messages=[
            message_pb2.Message(body=b"c"), message_pb2.Message(body=b"a", dedup_id="settled"),
            message_pb2.Message(body=b"d", dedup_id="new"), message_pb2.Message(body=b"b", dedup_id="kept")])
        self.owner.kill()
        repeats = ((settled, lambda: self.there.enqueue("q", "a", dedup_id="settled")),
                   (kept, lambda: self.there.enqueue("q", "b", dedup_id="kept")),
                   (published, lambda: self.there.publish("t", "m", dedup_id="published")))
        for first, repeat in repeats:
            self.assertEqual(until(lambda call=repeat: self.tries(call), "the other has taken over"), first)
        answer = self.there.stub.Enqueue(mixed, timeout=30)
        self.assertEqual(list(answer.duplicates), [1, 3])
        self.assertEqual([answer.message_ids[1], answer.message_ids[3]], settled + kept)
        self.owner.start()
        frames = [message_pb2.EnqueueStreamRequest(queue="q", messages=mixed.messages[1:])]
        answers = list(self.here.stub.EnqueueStream(iter(frames), timeout=30))
        self.assertEqual(list(answers[0].message_ids), list(answer.message_ids[1:]))
        self.assertEqual(list(answers[0].duplicates), [0, 1, 2])
        self.assertEqual(bodies(self.there.drain("q")), ["b", "c", "d"])
        self.there.publish("t", "end")
        self.assertEqual(bodies(self.there.subscribe("t", earliest=True).messages(2)), ["m", "end"])

    # The killed owner comes back at its address: it is a replica like any other, and calls through it are relayed.
    def test_killed_owner_comes_back(self):
        self.there.enqueue("q", "a")
        self.owner.kill()
        until(lambda: self.tries(lambda: self.there.enqueue("q", "b", request_id="r")), "the other owns the queue")
        self.owner.start()
        self.here.enqueue("q", "c")
        self.assertEqual(bodies(self.here.drain("q")), ["a", "b", "c"])


if __name__ == "__main__":
    unittest.main()
