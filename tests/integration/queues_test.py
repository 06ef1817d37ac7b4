"""Queues by unary calls and EnqueueStream, on a real postkeeperd with a real ZooKeeper."""

import pathlib
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from client import (ALREADY_SETTLED, LEASE_LIMIT, MALFORMED_TOKEN, STALE_LEASE, Frames, Outgoing, ServerTest, admin_pb2,  # noqa: E402
                    bodies, duration, message_pb2, messages, tokens)


class QueuesTest(ServerTest):
    # What is enqueued comes out unchanged, in order, once, and is gone when it is acked.
    def test_enqueue_dequeue_ack(self):
        before = time.time()
        sent = [message_pb2.Message(body=bytes(range(256)), attributes={"a": "1", "ä": "ö"}, content_type="x/y"),
                message_pb2.Message()]
        ids = self.client.stub.Enqueue(message_pb2.EnqueueRequest(queue=self.name, messages=sent)).message_ids
        self.assertEqual(len(set(ids)), 2)
        answer = self.client.dequeue(self.name, 10)
        self.assertEqual([delivery.message for delivery in answer.deliveries], sent)
        self.assertEqual([delivery.message_id for delivery in answer.deliveries], list(ids))
        self.assertEqual([delivery.attempt for delivery in answer.deliveries], [1, 1])
        self.assertEqual([delivery.last_reason for delivery in answer.deliveries], ["", ""])
        self.assertEqual(answer.lease_duration, duration(30))
        for delivery in answer.deliveries:
            self.assertAlmostEqual(delivery.enqueue_time.ToNanoseconds() / 1e9, before, delta=20)
        self.assertEqual(self.client.counts(self.name), (0, 0, 2))
        self.assertEqual(self.client.ack(self.name, answer), [])
        self.assertEqual(self.client.counts(self.name), (0, 0, 0))
        self.assertEqual(bodies(self.client.dequeue(self.name)), [])

    # A repeated ack is told that the message is gone; a token given twice in one call counts once.
    def test_ack_twice(self):
        self.client.enqueue(self.name, "a", "b")
        first, second = self.client.dequeue(self.name, 2).deliveries
        self.assertEqual(self.client.ack(self.name, first), [])
        self.assertEqual(self.client.ack(self.name, first, second), [ALREADY_SETTLED])
        self.assertIn(self.client.ack(self.name, second, second), ([ALREADY_SETTLED], [ALREADY_SETTLED] * 2))
        self.assertEqual(self.client.counts(self.name), (0, 0, 0))

    # A lease that lapses gives the message to the next one as attempt 2; the late ack of the first is refused and
    # harms nobody.
    def test_lease_expiry(self):
        self.client.enqueue(self.name, "a")
        started = time.monotonic()
        first = self.client.take(self.name, lease=1)
        self.assertEqual(bodies(self.client.dequeue(self.name)), [])
        second = self.client.take(self.name, wait=20)
        self.assertGreater(time.monotonic() - started, 0.99)
        self.assertEqual((second.attempt, second.last_reason), (2, "lease lapsed"))
        self.assertEqual(second.message_id, first.message_id)
        self.assertEqual(self.client.ack(self.name, first), [STALE_LEASE])
        self.assertEqual(self.client.ack(self.name, second), [])

    # An ack by the last holder counts after its deadline as long as nobody else was given the message.
    def test_late_ack(self):
        self.client.enqueue(self.name, "a")
        delivery = self.client.take(self.name, lease=1)
        self.client.wait_for_counts(self.name, 1, 0, 0)
        self.assertEqual(self.client.ack(self.name, delivery), [])
        self.assertEqual(self.client.counts(self.name), (0, 0, 0))

    # A nack with a delay: the message is away for so long, then comes as attempt 2 with the reason.
    def test_nack_with_delay(self):
        self.client.enqueue(self.name, "a")
        delivery = self.client.take(self.name)
        started = time.monotonic()
        self.assertEqual(self.client.nack(self.name, delivery, delay=1, reason="not today"), [])
        self.assertEqual(self.client.counts(self.name), (0, 1, 0))
        again = self.client.take(self.name, wait=20)
        self.assertGreater(time.monotonic() - started, 0.99)
        self.assertEqual((again.attempt, again.last_reason), (2, "not today"))
        self.assertEqual(self.client.nack(self.name, again, delay=0), [])
        self.assertEqual(self.client.take(self.name, wait=0).attempt, 3)

    # Without a delay the queue's backoff holds: it doubles, up to its maximum.
    def test_nack_with_backoff(self):
        self.client.create_queue(self.name, retry_backoff=duration(0.2), retry_backoff_max=duration(0.4))
        self.client.enqueue(self.name, "a")
        delivery = self.client.take(self.name)
        for attempt, backoff_s in ((1, 0.2), (2, 0.4), (3, 0.4)):
            self.assertEqual(delivery.attempt, attempt)
            started = time.monotonic()
            self.assertEqual(self.client.nack(self.name, delivery), [])
            delivery = self.client.take(self.name, wait=20)
            waited = time.monotonic() - started
            self.assertGreater(waited, backoff_s - 0.01)
            self.assertLess(waited, backoff_s + 5)

    # A repeated nack counts no second attempt.
    def test_nack_twice(self):
        self.client.enqueue(self.name, "a")
        delivery = self.client.take(self.name)
        self.client.nack(self.name, delivery, delay=0)
        self.client.nack(self.name, delivery, delay=0)
        self.assertEqual(self.client.take(self.name).attempt, 2)

    # A released message comes again at once, or after the delay, and the attempt is not counted.
    def test_release(self):
        self.client.enqueue(self.name, "a")
        delivery = self.client.take(self.name)
        for delay in (None, None, 1, 0):
            started = time.monotonic()
            released = self.client.nack(self.name, delivery, kind=message_pb2.NACK_KIND_RELEASE, delay=delay)
            self.assertEqual(released, [])
            delivery = self.client.take(self.name, wait=20)
            self.assertEqual(delivery.attempt, 1, f"after a release with delay {delay}")
            self.assertGreater(time.monotonic() - started, (delay or 0) - 0.01)

    # Extend moves the deadline: out of the way of the old one, and also nearer.
    def test_extend(self):
        self.client.enqueue(self.name, "kept", "lapses")
        kept, lapses = self.client.dequeue(self.name, 2, lease=2).deliveries
        self.assertEqual(self.client.extend(self.name, kept, lease=60), [])
        again = self.client.take(self.name, wait=20)
        self.assertEqual((again.message_id, again.attempt), (lapses.message_id, 2))
        self.assertEqual(self.client.counts(self.name), (0, 0, 2))
        self.assertEqual(self.client.extend(self.name, kept, lease=1), [])
        started = time.monotonic()
        self.assertEqual(self.client.take(self.name, wait=20).message_id, kept.message_id)
        self.assertLess(time.monotonic() - started, 10)

    # Nobody holds a message for more than 12 hours; an extension of a lease that was taken over is refused.
    def test_extend_in_vain(self):
        self.client.enqueue(self.name, "a")
        delivery = self.client.take(self.name, lease=1)
        self.assertEqual(self.client.extend(self.name, delivery, lease=12 * 3600), [LEASE_LIMIT])
        again = self.client.take(self.name, wait=20)
        self.assertEqual(self.client.extend(self.name, delivery), [STALE_LEASE])
        self.client.ack(self.name, again)
        self.assertEqual(self.client.extend(self.name, again), [ALREADY_SETTLED])

    # A delayed message is not there before it is due, and does not hold up others.
    def test_delayed_messages(self):
        started = time.time()
        self.client.enqueue(self.name, "later", delay=duration(1))
        due = message_pb2.Message(body=b"at two")
        due.deliver_at.FromNanoseconds(int((started + 2) * 1e9))
        self.client.stub.Enqueue(message_pb2.EnqueueRequest(queue=self.name, messages=[due]))
        self.client.enqueue(self.name, "now")
        self.assertEqual(self.client.counts(self.name), (1, 2, 0))
        for body, seconds in (("now", 0), ("later", 1), ("at two", 2)):
            delivery = self.client.take(self.name, wait=20)
            self.assertEqual(delivery.message.body.decode(), body)
            self.assertGreater(time.time() - started, seconds - 0.02)

    # First attempts come in the order in which an EnqueueStream was sent; there is one answer per frame, in order.
    def test_order_within_enqueue_stream(self):
        frames, sent = 400, []
        def requests():
            for i in range(frames):
                texts = [f"{i}.{j}" for j in range(1 + i % 5)]
                sent.append(texts)
                yield message_pb2.EnqueueStreamRequest(queue=self.name if i % 2 == 0 else "", messages=messages(*texts))
        answers = list(self.client.stub.EnqueueStream(requests(), timeout=60))
        self.assertEqual([len(answer.message_ids) for answer in answers], [len(texts) for texts in sent])
        deliveries = self.client.drain(self.name)
        self.assertEqual(bodies(deliveries), [text for texts in sent for text in texts])
        self.assertEqual([delivery.message_id for delivery in deliveries],
                         [message_id for answer in answers for message_id in answer.message_ids])

    # The first failure ends an EnqueueStream: what was before it is answered, what is behind it is not written.
    def test_enqueue_stream_ends_at_the_first_failure(self):
        out = Outgoing()
        stream = Frames(self.client.stub.EnqueueStream(iter(out)))
        for body in ("before", None, "behind"):
            out.send(message_pb2.EnqueueStreamRequest(queue=self.name, messages=messages(*[body] if body else [])))
        self.assertEqual(len(stream.next().message_ids), 1)
        self.assert_refused(stream.next, "INVALID_ARGUMENT", "INVALID_FIELD", "messages")
        out.half_close()
        self.assertEqual(bodies(self.client.drain(self.name)), ["before"])

    # A waiting Dequeue wakes up as soon as there is something.
    def test_long_poll_wakes(self):
        self.client.create_queue(self.name)
        waiting = self.client.stub.Dequeue.future(self.client.dequeue_request(self.name, wait=30), timeout=60)
        self.client.wait_for_consumers(self.name, 1)
        started = time.monotonic()
        self.client.enqueue(self.name, "a")
        self.assertEqual(bodies(waiting.result()), ["a"])
        self.assertLess(time.monotonic() - started, 5)
        self.assertEqual(self.client.stats(self.name).consumers, 0)

    # Several waiting calls get one message each.
    def test_long_polls_share(self):
        self.client.create_queue(self.name)
        calls = [self.client.stub.Dequeue.future(self.client.dequeue_request(self.name, 100, wait=30), timeout=60)
                 for _ in range(4)]
        self.client.wait_for_consumers(self.name, 4)
        self.client.enqueue(self.name, *range(4))
        self.assertEqual(sorted(body for call in calls for body in bodies(call.result())), ["0", "1", "2", "3"])
        self.assertEqual([len(call.result().deliveries) for call in calls], [1] * 4)

    # A Dequeue that gets nothing is answered OK and empty after `wait`.
    def test_long_poll_ends_after_wait(self):
        self.client.create_queue(self.name)
        started = time.monotonic()
        self.assertEqual(self.client.dequeue(self.name, wait=1), message_pb2.DequeueResponse())
        self.assertGreater(time.monotonic() - started, 0.99)
        self.assertLess(time.monotonic() - started, 5)

    # It ends before the deadline of the call, so that the empty answer still arrives. This holds for the default, too.
    def test_long_poll_ends_before_the_deadline(self):
        self.client.create_queue(self.name)
        for wait in (60, None):
            started = time.monotonic()
            self.assertEqual(self.client.dequeue(self.name, wait=wait, timeout=2), message_pb2.DequeueResponse())
            self.assertGreater(time.monotonic() - started, 1)

    # A Dequeue that is given up takes nothing with it.
    def test_cancelled_long_poll(self):
        self.client.create_queue(self.name)
        waiting = self.client.stub.Dequeue.future(self.client.dequeue_request(self.name, wait=30), timeout=60)
        self.client.wait_for_consumers(self.name, 1)
        waiting.cancel()
        self.client.wait_for_consumers(self.name, 0)
        self.client.enqueue(self.name, "a")
        self.assertEqual(self.client.take(self.name).attempt, 1)

    # Ack the last, take the next, in one call; what could not be acked is told and does not fail the call.
    def test_dequeue_with_ack_tokens(self):
        self.client.enqueue(self.name, "a", "b")
        first = self.client.take(self.name)
        answer = self.client.dequeue(self.name, ack_tokens=[first.lease_token])
        self.assertEqual((bodies(answer), list(answer.failures)), (["b"], []))
        self.assertEqual(self.client.counts(self.name), (0, 0, 1))
        answer = self.client.dequeue(self.name, ack_tokens=[first.lease_token, answer.deliveries[0].lease_token])
        self.assertEqual([(failure.lease_token, failure.error) for failure in answer.failures],
                         [(first.lease_token, ALREADY_SETTLED)])
        self.assertEqual(self.client.counts(self.name), (0, 0, 0))

    # max_messages and max_bytes bound an answer; one message always fits.
    def test_dequeue_takes_no_more_than_asked(self):
        self.client.enqueue(self.name, *["x" * 1000] * 10)
        self.assertEqual(len(self.client.dequeue(self.name, 0).deliveries), 1)
        self.assertEqual(len(self.client.dequeue(self.name, 3).deliveries), 3)
        self.assertEqual(len(self.client.dequeue(self.name, 10, max_bytes=2500).deliveries), 2)
        self.assertEqual(len(self.client.dequeue(self.name, 10, max_bytes=1).deliveries), 1)
        self.assertEqual(len(self.client.dequeue(self.name, 10).deliveries), 3)

    # An answer stays below what clients accept, however much is ready.
    def test_dequeue_answers_stay_small(self):
        body = b"x" * (400 << 10)
        for _ in range(12):
            self.client.enqueue(self.name, body)
        counts = []
        while deliveries := self.client.dequeue(self.name, 1000).deliveries:
            counts.append(len(deliveries))
            self.assertTrue(all(delivery.message.body == body for delivery in deliveries))
        self.assertEqual(sum(counts), 12)
        self.assertLessEqual(max(counts), 7)

    # All messages of a request are written, or none.
    def test_a_request_is_all_or_nothing(self):
        batch = messages("good") + [message_pb2.Message(attributes={"": "x"})]
        request = message_pb2.EnqueueRequest(queue=self.name, messages=batch)
        self.assert_refused(lambda: self.client.stub.Enqueue(request),
                            "INVALID_ARGUMENT", "INVALID_FIELD")
        self.client.enqueue(self.name, *range(4096))
        self.assertEqual(bodies(self.client.drain(self.name)), [str(i) for i in range(4096)])

    # The same request_id again gets the first answer, and nothing is written; on another queue it is another call.
    def test_request_id(self):
        first = self.client.enqueue(self.name, "a", "b", request_id="r1")
        self.assertEqual(self.client.enqueue(self.name, "a", "b", request_id="r1"), first)
        self.assertNotEqual(self.client.enqueue(self.name, "c", request_id="r2"), first)
        self.assertNotEqual(self.client.enqueue(f"{self.name}-2", "a", "b", request_id="r1"), first)
        self.assertEqual(bodies(self.client.drain(self.name)), ["a", "b", "c"])
        self.assertEqual(self.client.enqueue(self.name, "a", "b", request_id="r1"), first)
        self.assertEqual(bodies(self.client.dequeue(self.name)), [])

    # Many calls at once with one request_id are one call.
    def test_request_id_at_once(self):
        self.client.create_queue(self.name)
        request = message_pb2.EnqueueRequest(queue=self.name, messages=messages("a"), request_id="r")
        calls = [self.client.stub.Enqueue.future(request, timeout=30) for _ in range(50)]
        self.assertEqual(len({call.result().message_ids[0] for call in calls}), 1)
        self.assertEqual(bodies(self.client.drain(self.name)), ["a"])

    # It holds between Enqueue and EnqueueStream, too.
    def test_request_id_in_a_stream(self):
        first = self.client.enqueue(self.name, "a", request_id="r1")
        frames = [message_pb2.EnqueueStreamRequest(queue=self.name, messages=messages(body), request_id=request_id)
                  for body, request_id in (("a", "r1"), ("b", "r2"), ("b", "r2"), ("c", ""))]
        answers = [list(answer.message_ids) for answer in self.client.stub.EnqueueStream(iter(frames), timeout=30)]
        self.assertEqual(answers[0], first)
        self.assertEqual(answers[1], answers[2])
        self.assertEqual(bodies(self.client.drain(self.name)), ["a", "b", "c"])

    # A full queue refuses with its limit and when to come again, never settling; what is acked makes room.
    def test_queue_full(self):
        self.client.create_queue(self.name, max_messages=3)
        self.client.enqueue(self.name, "1", "2", "3")
        refused = self.assert_refused(lambda: self.client.enqueue(self.name, "4"), "RESOURCE_EXHAUSTED", "QUEUE_FULL",
                                      resource=f"namespaces/default/queues/{self.name}", limit=3)
        self.assertGreater(refused.retry_s, 0)
        self.assertEqual(self.client.ack(self.name, self.client.take(self.name)), [])
        self.client.enqueue(self.name, "4")
        self.assertEqual(bodies(self.client.drain(self.name)), ["2", "3", "4"])

    # Purge drops what is ready and delayed, with leased_too also what is held; it counts what it drops.
    def test_purge(self):
        def purge(**more):
            return self.client.admin.PurgeQueue(admin_pb2.PurgeQueueRequest(name=self.name, **more), timeout=30).purged

        self.client.enqueue(self.name, "held", "a", "b")
        self.client.enqueue(self.name, "later", delay=duration(60))
        held = self.client.take(self.name)
        self.assertEqual(purge(), 3)
        self.assertEqual(self.client.counts(self.name), (0, 0, 1))
        self.assertEqual(purge(leased_too=True), 1)
        self.assertEqual(self.client.ack(self.name, held), [ALREADY_SETTLED])
        self.assertEqual(self.client.counts(self.name), (0, 0, 0))

    # Every token stands on its own: one that cannot be settled does not keep others from it.
    def test_tokens_stand_on_their_own(self):
        self.client.enqueue(self.name, "a", "b", "c")
        a, b, c = tokens(self.client.dequeue(self.name, 3))
        self.assertEqual(self.client.ack(self.name, b), [])
        self.assertEqual(self.client.ack(self.name, a, b, c), [ALREADY_SETTLED])
        self.assertEqual(self.client.counts(self.name), (0, 0, 0))

    # Deleting a queue takes everything with it: one of the same name begins empty, and old tokens mean nothing there.
    def test_delete_and_create_again(self):
        self.client.enqueue(self.name, "a", "b")
        delivery = self.client.take(self.name)
        self.client.admin.DeleteQueue(admin_pb2.DeleteQueueRequest(name=self.name), timeout=30)
        self.assert_refused(lambda: self.client.ack(self.name, delivery), "NOT_FOUND", "QUEUE_NOT_FOUND")
        self.client.create_queue(self.name)
        self.assertEqual(self.client.counts(self.name), (0, 0, 0))
        self.assertEqual(self.client.ack(self.name, delivery), [MALFORMED_TOKEN])

    # A waiting Dequeue of a queue that is deleted ends at once and says so.
    def test_delete_ends_waiting_calls(self):
        self.client.create_queue(self.name)
        waiting = self.client.stub.Dequeue.future(self.client.dequeue_request(self.name, wait=60), timeout=90)
        self.client.wait_for_consumers(self.name, 1)
        started = time.monotonic()
        self.client.admin.DeleteQueue(admin_pb2.DeleteQueueRequest(name=self.name), timeout=30)
        self.assert_refused(waiting.result, "NOT_FOUND", "QUEUE_NOT_FOUND")
        self.assertLess(time.monotonic() - started, 10)


if __name__ == "__main__":
    unittest.main()
