"""Consume streams on a real postkeeperd with a real ZooKeeper."""

import pathlib
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from client import (ALREADY_SETTLED, LEASE_LIMIT, MALFORMED_TOKEN, STALE_LEASE, Outgoing, ServerTest, bodies,  # noqa: E402
                    duration, message_pb2, tokens, until)


class ConsumeTest(ServerTest):
    def settled(self, consumer):
        """The next Settled: (sequence, errors)."""
        settled = consumer.next_of("settled")
        return settled.sequence, [failure.error for failure in settled.failures]

    # A stream is opened at once, also if nothing is there, and gets what comes, in order.
    def test_opening_and_deliveries(self):
        consumer = self.consume(self.name, lease=7)
        self.assertRegex(consumer.opened.replica, "^r")
        self.assertEqual(consumer.opened.lease_duration, duration(7))
        ids = self.client.enqueue(self.name, *range(50))
        deliveries = consumer.deliveries(50)
        self.assertEqual(bodies(deliveries), [str(i) for i in range(50)])
        self.assertEqual([delivery.message_id for delivery in deliveries], ids)
        self.assertEqual({delivery.attempt for delivery in deliveries}, {1})
        self.assertEqual(consumer.ack(deliveries), [])
        self.assertEqual(self.client.counts(self.name), (0, 0, 0))

    # By itself credit comes back when a delivery is settled: what is held at a time is bounded, the work goes on.
    def test_automatic_credit(self):
        self.client.enqueue(self.name, *range(20))
        consumer = self.consume(self.name, 3)
        seen = []
        while len(seen) < 20:
            self.assertEqual(self.client.stats(self.name).leased, min(3, 20 - len(seen)))
            deliveries = consumer.deliveries(min(3, 20 - len(seen)))
            seen += bodies(deliveries)
            self.assertEqual(consumer.ack(deliveries), [])
        self.assertEqual(seen, [str(i) for i in range(20)])

    # Manual credit is used up: settling gives none back, only the client's frames add to it.
    def test_manual_credit(self):
        self.client.enqueue(self.name, *range(10))
        consumer = self.consume(self.name, 2, manual_credit=True, heartbeat_interval=duration(1))
        deliveries = consumer.deliveries(2)
        self.assertEqual(consumer.ack(deliveries), [])
        heartbeat = consumer.next_of("heartbeat")
        self.assertEqual((heartbeat.credit_left.messages, heartbeat.ready, consumer.kept), (0, 8, []))
        consumer.send(credit=message_pb2.Credit(messages=3))
        self.assertEqual(bodies(consumer.deliveries(3)), ["2", "3", "4"])
        heartbeat = consumer.next_of("heartbeat")
        self.assertEqual((heartbeat.credit_left.messages, heartbeat.ready, consumer.kept), (0, 5, []))

    # Credit in bytes: one message is sent while any byte is left.
    def test_credit_in_bytes(self):
        self.client.enqueue(self.name, *["x" * 1000] * 5)
        consumer = self.consume(self.name, 100, credit_bytes=1500, manual_credit=True, heartbeat_interval=duration(1))
        first = consumer.deliveries(1)
        if not consumer.next_of("heartbeat").credit_left.bytes == 0:
            first += consumer.deliveries(1)
            self.assertEqual(consumer.next_of("heartbeat").credit_left.bytes, 0)
        held = len(first) + len(consumer.kept)
        self.assertIn(held, (1, 2))
        self.assertEqual(self.client.counts(self.name), (5 - held, 0, held))
        consumer.send(credit=message_pb2.Credit(messages=0, bytes=1 << 20))
        consumer.deliveries(len(consumer.kept) + 5 - held)
        self.client.wait_for_counts(self.name, 0, 0, 5)

    # One Settled per frame that settles, in the order of the frames, each with what of that frame failed.
    def test_settled_in_order(self):
        self.client.enqueue(self.name, *range(200))
        consumer = self.consume(self.name, 1000)
        deliveries = consumer.deliveries(200)
        for i, delivery in enumerate(deliveries):
            again = [deliveries[i - 1].lease_token] if i % 10 == 9 else []
            consumer.send(ack_tokens=[delivery.lease_token, *again], sequence=10 * i + 10)
        for i in range(200):
            self.assertEqual(self.settled(consumer), (10 * i + 10, [ALREADY_SETTLED] if i % 10 == 9 else []))
        self.assertEqual(self.client.counts(self.name), (0, 0, 0))

    # A frame can ack, give back, release and extend at once; each does what the unary call does.
    def test_everything_in_one_frame(self):
        self.client.enqueue(self.name, "ack", "retry", "release", "extend", "too long")
        consumer = self.consume(self.name, 5, manual_credit=True, lease=30)
        ack, retry, release, extend, too_long = tokens(consumer.deliveries(5))
        nacks = [message_pb2.Nacks(lease_tokens=[retry], reason="why not", delay=duration(0)),
                 message_pb2.Nacks(lease_tokens=[release], kind=message_pb2.NACK_KIND_RELEASE)]
        extensions = [message_pb2.Extensions(lease_tokens=[extend], lease_duration=duration(60)),
                      message_pb2.Extensions(lease_tokens=[too_long], lease_duration=duration(12 * 3600)),
                      message_pb2.Extensions(lease_tokens=["foreign"])]
        sequence = consumer.send(ack_tokens=[ack], nacks=nacks, extensions=extensions)
        self.assertEqual(self.settled(consumer), (sequence, [LEASE_LIMIT, MALFORMED_TOKEN]))
        again = {body: (item.attempt, item.last_reason) for body, item in
                 ((item.message.body.decode(), item) for item in self.client.drain(self.name))}
        self.assertEqual(again, {"retry": (2, "why not"), "release": (1, "")})
        self.assertEqual(self.client.counts(self.name), (0, 0, 2))

    # A lease that lapses brings the message again, also to the stream that held it, and its credit back.
    def test_lapsed_leases_come_again(self):
        self.client.enqueue(self.name, "a")
        consumer = self.consume(self.name, 1, lease=1)
        first = consumer.deliveries(1)[0]
        second = consumer.deliveries(1)[0]
        self.assertEqual((second.message_id, second.attempt, second.last_reason),
                         (first.message_id, 2, "lease lapsed"))
        self.assertEqual(consumer.ack(first), [STALE_LEASE])
        self.assertEqual(consumer.ack(second), [])

    # keep_leases: held as long as the stream lives, far beyond the lease, and not longer.
    def test_keep_leases(self):
        self.client.enqueue(self.name, "a")
        consumer = self.consume(self.name, 1, lease=1, keep_leases=True, heartbeat_interval=duration(1))
        first = consumer.deliveries(1)[0]
        for _ in range(3):
            self.assertEqual(consumer.next_of("heartbeat").leased, 1)
        self.assertEqual(consumer.kept, [])
        consumer.cancel()
        again = self.client.take(self.name, wait=20)
        self.assertEqual((again.message_id, again.attempt), (first.message_id, 2))

    # A broken stream releases nothing; its tokens settle on any other connection.
    def test_tokens_outlive_their_stream(self):
        self.client.enqueue(self.name, "a", "b")
        client = self.connect()
        consumer = self.consume(self.name, client=client)
        first, second = consumer.deliveries(2)
        client.close()
        self.client.wait_for_consumers(self.name, 0)
        self.assertEqual(self.client.counts(self.name), (0, 0, 2))
        self.assertEqual(self.client.ack(self.name, first), [])
        self.assertEqual(self.consume(self.name).ack(second), [])

    # Heartbeats come once per interval and say how the source and the stream stand.
    def test_heartbeats(self):
        self.client.enqueue(self.name, *range(5))
        self.client.enqueue(self.name, "later", delay=duration(600))
        consumer = self.consume(self.name, 2, heartbeat_interval=duration(1))
        consumer.deliveries(2)
        heartbeat = consumer.next_of("heartbeat")
        first_at = consumer.received_at
        self.assertEqual((heartbeat.ready, heartbeat.delayed, heartbeat.leased, heartbeat.has_owner), (3, 1, 2, True))
        self.assertEqual(heartbeat.credit_left.messages, 0)
        consumer.next_of("heartbeat")
        self.assertAlmostEqual(consumer.received_at - first_at, 1, delta=0.9)

    # Drain: nothing more is delivered; settle, half-close; what is left is free at once, uncounted.
    def test_drain(self):
        self.client.enqueue(self.name, "a", "b")
        consumer = self.consume(self.name)
        first, _ = consumer.deliveries(2)
        consumer.send(drain=True)
        self.assertEqual(consumer.ack(first), [])  # answered behind the drain
        self.client.enqueue(self.name, "c")
        self.assertEqual(consumer.finish(), [])
        left = [self.client.take(self.name, wait=20) for _ in range(2)]
        self.assertEqual(bodies(left), ["b", "c"])
        self.assertEqual([delivery.attempt for delivery in left], [1, 1])

    # A stream that breaks off behind a drain releases nothing: the client may still be at work, and its token is good.
    # (It is a matter of which thread hears of it first, so many times.)
    def test_break_behind_a_drain(self):
        for _ in range(30):
            self.client.enqueue(self.name, "a", "b")
            consumer = self.consume(self.name)
            held, other = consumer.deliveries(2)
            consumer.send(drain=True)
            self.assertEqual(consumer.ack(other), [])  # answered behind the drain
            consumer.cancel()
            self.client.wait_for_consumers(self.name, 0)
            self.assertEqual(self.client.counts(self.name), (0, 0, 1))
            self.assertEqual(self.client.ack(self.name, held), [])

    # A half-close without drain ends the stream in order, and releases nothing: leases lapse.
    def test_half_close_without_drain(self):
        self.client.enqueue(self.name, "a")
        consumer = self.consume(self.name, lease=2)
        consumer.deliveries(1)
        self.assertEqual(consumer.finish(), [])
        self.assertEqual(bodies(self.client.dequeue(self.name)), [])
        self.assertEqual(self.client.take(self.name, wait=20).attempt, 2)

    # Acks sent right before the half-close are all done and answered before the stream ends.
    def test_acks_before_the_half_close_count(self):
        self.client.enqueue(self.name, *range(100))
        consumer = self.consume(self.name)
        sequences = [consumer.send(ack_tokens=[delivery.lease_token]) for delivery in consumer.deliveries(100)]
        frames = [frame.settled for frame in consumer.finish() if frame.WhichOneof("frame") == "settled"]
        self.assertEqual([frame.sequence for frame in frames], sequences)
        self.assertEqual(self.client.counts(self.name), (0, 0, 0))

    # The work is shared: several streams get every message once, and none gets all.
    def test_streams_share(self):
        self.client.create_queue(self.name)
        streams = [self.consume(self.name, 10) for _ in range(4)]
        self.client.wait_for_consumers(self.name, 4)
        self.client.enqueue(self.name, *range(40))
        self.assertEqual(sorted(int(body) for stream in streams for body in bodies(stream.deliveries(10))),
                         list(range(40)))

    # A client that reads nothing holds up its own stream only.
    def test_a_client_that_does_not_read(self):
        body = b"x" * (200 << 10)
        self.client.create_queue(self.name)
        out = Outgoing()
        out.send(message_pb2.ConsumeRequest(open=message_pb2.Open(
            source=self.name, credit=message_pb2.Credit(messages=20, bytes=8 << 20))))
        stuck = self.connect().stub.Consume(iter(out))
        self.addCleanup(out.half_close)
        self.addCleanup(stuck.cancel)
        self.client.wait_for_consumers(self.name, 1)
        with self.somebody_else_works():
            for _ in range(30):
                self.client.enqueue(self.name, body)
            until(lambda: self.client.stats(self.name).leased == 20, "the stuck stream has its 20")
            quick = self.consume(self.name)
            self.assertEqual(len(quick.ack(quick.deliveries(10))), 0)

    # Thousands of messages through one stream while they are being enqueued: each once, in order.
    def test_many(self):
        count = 20_000
        consumer = self.consume(self.name, 2000)
        requests = (message_pb2.EnqueueStreamRequest(queue=self.name, messages=[
            message_pb2.Message(body=str(i).encode()) for i in range(start, start + 100)])
            for start in range(0, count, 100))
        answers = self.client.stub.EnqueueStream(requests, timeout=60)
        seen = []
        started = time.monotonic()
        while len(seen) < count:
            deliveries = consumer.deliveries(1) + consumer.kept
            consumer.kept = []
            seen += [int(delivery.message.body) for delivery in deliveries]
            consumer.send(ack_tokens=tokens(deliveries))
            self.assertLess(time.monotonic() - started, 50)
        self.assertEqual(seen, list(range(count)))
        self.assertEqual(len(list(answers)), count // 100)
        consumer.half_close()
        acked = [frame.settled for frame in consumer if frame.WhichOneof("frame") == "settled"]
        self.assertTrue(all(not settled.failures for settled in acked))
        self.assertEqual(self.client.counts(self.name), (0, 0, 0))

    # Deleting the queue ends its streams and says so.
    def test_delete_ends_streams(self):
        self.client.create_queue(self.name)
        consumer = self.consume(self.name)
        self.server.cli("queue", "rm", self.name)
        self.assert_refused(consumer.next, "NOT_FOUND", "QUEUE_NOT_FOUND",
                            resource=f"namespaces/default/queues/{self.name}")


if __name__ == "__main__":
    unittest.main()
