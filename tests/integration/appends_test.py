"""Two replicas in front of one ZooKeeper: appends without ids go through any of them, whoever works for the log."""

import pathlib
import signal
import sys
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from client import Refusal, admin_pb2, bodies, grpc, message_pb2, messages, refusal, until  # noqa: E402
from replicas import TwoReplicasTest  # noqa: E402

# Far below what waiting for an owner takes.
AT_ONCE_S = 2


class AppendsTest(TwoReplicasTest):
    session_s = 6

    def setUp(self):
        super().setUp()
        self.there.counts("q")  # its way to the owner is open

    def pause_owner(self):
        self.owner.process.send_signal(signal.SIGSTOP)
        self.addCleanup(self.resume_owner)

    def resume_owner(self):
        if self.owner.process.poll() is None:
            self.owner.process.send_signal(signal.SIGCONT)

    def append_at_once(self, append):
        began = time.monotonic()
        append()
        self.assertLess(time.monotonic() - began, AT_ONCE_S)

    # The owner stands still: appends through the other replica, single ones and streams, succeed at once. It goes on, and
    # everything comes once and in order.
    def test_owner_stands_still(self):
        self.there.enqueue("q", "before")
        subscriber = self.there.subscribe("t", earliest=True)
        self.there.publish("t", "before")
        self.assertEqual(bodies(subscriber.messages(1)), ["before"])
        self.pause_owner()
        for number in range(20):
            self.append_at_once(lambda n=number: self.there.enqueue("q", n))
            self.append_at_once(lambda n=number: self.there.publish("t", n))
        frames = [message_pb2.EnqueueStreamRequest(queue="q" if i == 20 else "", messages=messages(i))
                  for i in range(20, 120)]
        self.append_at_once(lambda: self.assertEqual(
            len(list(self.there.stub.EnqueueStream(iter(frames), timeout=30))), 100))
        self.resume_owner()
        self.assertEqual(bodies(subscriber.messages(20)), [str(i) for i in range(20)])
        taken = until(lambda: self.there.drain("q"), "the owner goes on")
        self.assertEqual(bodies(taken), ["before", *(str(i) for i in range(120))])

    # The owner is killed: nobody works for the queue, and appends succeed at once. The next owner gives everything out,
    # once and in order.
    def test_owner_is_killed(self):
        self.there.enqueue("q", "before")
        self.owner.kill()
        for number in range(50):
            self.append_at_once(lambda n=number: self.there.enqueue("q", n))
        self.append_at_once(lambda: self.there.publish("t", "m"))
        self.assertEqual(bodies(self.there.subscribe("t", earliest=True).messages(1)), ["m"])
        self.there.enqueue("q", "after")
        self.assertEqual(bodies(self.there.drain("q")), ["before", *(str(i) for i in range(50)), "after"])

    # A stream goes through the owner from its first frame with a request_id on: the order holds, and its request_ids are
    # known to all.
    def test_a_stream_turns_to_the_owner(self):
        for first_with_id in (0, 1, 7, 63, 64, 200):
            frames = [message_pb2.EnqueueStreamRequest(
                queue="q" if i == 0 else "", messages=messages(i),
                request_id=f"{first_with_id}:{i}" if i >= first_with_id and (i + first_with_id) % 3 == 0 else "")
                for i in range(200)]
            answers = list(self.there.stub.EnqueueStream(iter(frames), timeout=60))
            self.assertEqual(len(answers), 200)
            self.assertEqual(bodies(self.here.drain("q")), [str(i) for i in range(200)], first_with_id)
            for frame, answer in zip(frames, answers):
                if frame.request_id:
                    again = self.here.enqueue("q", "again", request_id=frame.request_id)
                    self.assertEqual(again, list(answer.message_ids))
                    break
            self.assertEqual(bodies(self.here.drain("q")), [])

    # The same from the first frame with a dedup_id on. Frames are sent without waiting for answers, and a message is sent
    # again while the first is on its way: it is written once, nothing overtakes it, and each answer names the first.
    def test_dedup_ids_in_a_stream(self):
        def frame(number):
            sent = [message_pb2.Message(body=str(number).encode())]
            if number >= 20:  # each of ten messages comes ten times
                name = str(1000 + number % 10)
                sent.append(message_pb2.Message(body=name.encode(), dedup_id=name))
            return message_pb2.EnqueueStreamRequest(queue="q" if number == 0 else "", messages=sent)
        for client in (self.there, self.here):
            answers = list(client.stub.EnqueueStream((frame(number) for number in range(120)), timeout=60))
            self.assertEqual(len(answers), 120)
            is_known = client is self.here
            for number, answer in list(enumerate(answers))[20:]:
                self.assertEqual(list(answer.duplicates), [1] if number >= 30 or is_known else [], number)
                self.assertEqual(answer.message_ids[1], answers[20 + number % 10].message_ids[1])
            expected = [str(i) for i in range(20)]
            for number in range(20, 120):
                expected += [str(number)] if number >= 30 or is_known else [str(number), str(1000 + number % 10)]
            self.assertEqual(bodies(self.here.drain("q")), expected)

    # Many calls at once with one dedup_id, through both replicas: the message is written once, and all get its id.
    def test_a_dedup_id_at_once(self):
        request = message_pb2.EnqueueRequest(queue="q", messages=[message_pb2.Message(body=b"a", dedup_id="d")])
        calls = [client.stub.Enqueue.future(request, timeout=30) for _ in range(25) for client in (self.here, self.there)]
        answers = [call.result() for call in calls]
        self.assertEqual(len({answer.message_ids[0] for answer in answers}), 1)
        self.assertEqual(sum(list(answer.duplicates) == [0] for answer in answers), len(answers) - 1)
        self.assertEqual(bodies(self.there.drain("q")), ["a"])

    # A client that waits for each answer before it sends the next frame, and half-closes at once behind one with an id.
    def test_a_stream_frame_by_frame(self):
        def frames():
            for number in range(6):
                yield message_pb2.EnqueueStreamRequest(queue="q" if number == 0 else "", messages=messages(number),
                                                       request_id=f"r{number}" if number in (3, 5) else "")
                self.assertTrue(answered.acquire(timeout=30))
        answered = threading.Semaphore(0)
        count = 0
        for _ in self.there.stub.EnqueueStream(frames(), timeout=60):
            count += 1
            answered.release()
        self.assertEqual(count, 6)
        self.assertEqual(bodies(self.there.drain("q")), [str(i) for i in range(6)])

    # Two replicas fill a queue to its bound, one that is too small to append to without asking: none goes beyond it.
    def test_a_small_queue_is_exact(self):
        self.here.create_queue("small", max_messages=10)
        accepted = 0
        for _ in range(20):
            for client in (self.there, self.here):
                try:
                    client.enqueue("small", "m")
                    accepted += 1
                except grpc.RpcError as error:
                    self.assertEqual(Refusal(error).reason, "QUEUE_FULL")
        self.assertEqual(accepted, 10)
        self.assertEqual(self.there.counts("small"), (10, 0, 0))

    # The queue is deleted and made again, over and over, while others append through the other replica: no call gets
    # another answer than OK or NOT_FOUND, and what is in the last incarnation was accepted, once, and in order.
    def test_deleted_and_made_again(self):
        accepted, trouble, ends = [], [], threading.Event()

        def produce():
            number = 0
            while not ends.is_set():
                number += 1
                try:
                    self.there.enqueue("q", number)
                    accepted.append(number)
                except grpc.RpcError as error:
                    if Refusal(error).reason != "QUEUE_NOT_FOUND":
                        trouble.append(Refusal(error))
        producer = threading.Thread(target=produce)
        producer.start()
        for _ in range(10):
            until(lambda seen=len(accepted): len(accepted) > seen + 5, "the producer goes on")
            self.here.admin.DeleteQueue(admin_pb2.DeleteQueueRequest(name="q"), timeout=30)
            self.here.create_queue("q")
        made_at = len(accepted)
        until(lambda: len(accepted) > made_at + 5, "the producer goes on")
        ends.set()
        producer.join()
        self.assertEqual(trouble, [])
        left = [int(body) for body in bodies(self.there.drain("q"))]
        self.assertEqual(left, sorted(set(left)))
        self.assertLessEqual(set(left), set(accepted))
        self.assertLessEqual(set(accepted[made_at + 1:]), set(left))
        self.here.admin.DeleteQueue(admin_pb2.DeleteQueueRequest(name="q"), timeout=30)
        self.assertEqual(refusal(lambda: self.there.enqueue("q", "x")).reason, "QUEUE_NOT_FOUND")

    # A replica that stops while it appends to the log of another one: accepted is there, refused is not.
    def test_a_stopping_replica_finishes(self):
        accepted, refused = [], []

        def produce(name):
            for number in range(100000):
                body = f"{name}.{number}"
                try:
                    self.there.enqueue("q", body)
                    accepted.append(body)
                except grpc.RpcError as error:
                    refused.append((body, Refusal(error).code))
                    return
        producers = [threading.Thread(target=produce, args=(name,)) for name in range(4)]
        for producer in producers:
            producer.start()
        until(lambda: len(accepted) > 50, "the producers go on")
        self.other.stop()
        for producer in producers:
            producer.join()
        self.assertEqual({code for _, code in refused}, {"UNAVAILABLE"}, refused)
        self.assertEqual(sorted(bodies(self.here.drain("q"))), sorted(accepted))


if __name__ == "__main__":
    unittest.main()
