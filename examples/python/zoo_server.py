"""A durable queue of tasks on postkeeper: first_program.py shows all of it."""

import atexit
import sys
import threading
import time
import uuid
import warnings

import connection  # first: it makes postkeeper.v1 importable
import grpc
from google.protobuf import duration_pb2
from postkeeper.v1 import admin_pb2, message_pb2
from task_json import TaskError, decode, encode, register
from zoo_client import ZooClient

__all__ = ["Empty", "TaskError", "ZooServer", "register"]

DEADLINE_S = 30
WAIT_S = 2


class Empty(Exception):
    """There is no task, and none is held by another program that could give it back."""


class ZooServer:
    """A queue of tasks that outlives programs and servers. A task is an object of a plain class.

    The program holds at most one task: the one get_task returned last. The next get_task, is_empty or the program's
    normal end (also by sys.exit) acks it; then it never comes again. If an exception ends the program the task is given
    back and tried again, at once or by another program. If the program is killed, its task comes again within
    lease_seconds. So a task can be executed twice, never not at all.

    For one thread; a second one in the background keeps the lease while a task is executed, however long that takes.
    Raises grpc.RpcError when the service fails a call for good; the same call may then be made again.
    """

    def __init__(self, queue="zoo-tasks", client=None, lease_seconds=30):
        self._queue = queue
        self._client = client or ZooClient()
        self._owns_client = client is None
        self._lease_s = lease_seconds
        self._lease = duration_pb2.Duration(seconds=lease_seconds)
        self._held = None  # the lease token of the task in hand
        self._lock = threading.Lock()  # of _held, and of talking about it
        try:
            self._client.admin.CreateQueue(
                admin_pb2.CreateQueueRequest(queue=admin_pb2.Queue(name=queue)), timeout=DEADLINE_S)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.ALREADY_EXISTS:  # with somebody's own settings: fine
                raise
        threading.Thread(target=self._keep_lease, daemon=True).start()
        atexit.register(self._finish)

    def add_task(self, task):
        """Returns when the task is durable. TaskError if it is of no kind that can travel."""
        message = message_pb2.Message(body=encode(task), content_type="application/json")
        # With the request_id the channel's retries do not add it twice, unless the server is restarted in between.
        self._client.messages.Enqueue(
            message_pb2.EnqueueRequest(queue=self._queue, messages=[message], request_id=str(uuid.uuid4())),
            timeout=DEADLINE_S)

    def get_task(self, timeout=None):
        """Acks the task before, and returns the next one; waits for it if others hold tasks that may come again.

        Empty if there is none and nobody holds one, or after `timeout` seconds. TaskError if the next message is no
        task that this program knows: it is given back for others, and the next get_task takes the one behind it.
        """
        give_up_at = None if timeout is None else time.monotonic() + timeout
        while True:
            wait_s = WAIT_S if timeout is None else min(WAIT_S, max(0, give_up_at - time.monotonic()))
            delivery = self._dequeue(wait_s)
            if delivery is not None:
                break
            if self.is_empty():
                raise Empty(f"{self._queue} is empty")
            if timeout is not None and time.monotonic() >= give_up_at:
                raise Empty(f"no task in {self._queue} was free within {timeout} s")
        try:
            return decode(delivery.message.body)
        except TaskError as error:
            self._give_back(f"TaskError: {error}")
            raise TaskError(f"message {delivery.message_id} in {self._queue}: {error}") from None

    def is_empty(self):
        """Acks the task before. False while any task is ready, delayed, or held by another program."""
        self._ack()
        stats = self._client.admin.GetStats(admin_pb2.GetStatsRequest(source=self._queue), timeout=DEADLINE_S)
        return stats.ready + stats.delayed + stats.leased == 0

    def _dequeue(self, wait_s):
        wait = duration_pb2.Duration(nanos=int(wait_s % 1 * 1e9), seconds=int(wait_s))
        with self._lock:
            response = self._client.messages.Dequeue(
                message_pb2.DequeueRequest(
                    source=self._queue, max_messages=1, wait=wait, lease_duration=self._lease, consumer="zoo_server",
                    ack_tokens=[self._held] if self._held else []),
                timeout=wait_s + DEADLINE_S)
            self._held = None
            _warn_of(response.failures)
            if not response.deliveries:
                return None
            self._held = response.deliveries[0].lease_token
            return response.deliveries[0]

    def _ack(self):
        with self._lock:
            if self._held:
                response = self._client.messages.Ack(
                    message_pb2.AckRequest(source=self._queue, lease_tokens=[self._held]), timeout=DEADLINE_S)
                self._held = None
                _warn_of(response.failures)

    def _give_back(self, reason):
        with self._lock:
            if self._held:
                nacks = message_pb2.Nacks(lease_tokens=[self._held], reason=reason[:250])
                self._client.messages.Nack(message_pb2.NackRequest(source=self._queue, nacks=nacks), timeout=DEADLINE_S)
                self._held = None

    def _keep_lease(self):
        while True:
            time.sleep(self._lease_s / 3)
            with self._lock:
                if not self._held:
                    continue
                extensions = message_pb2.Extensions(lease_tokens=[self._held], lease_duration=self._lease)
                try:
                    self._client.messages.Extend(
                        message_pb2.ExtendRequest(source=self._queue, extensions=extensions), timeout=self._lease_s / 3)
                except grpc.RpcError:
                    pass  # tried again soon; if the lease lapses meanwhile, the ack tells

    def _finish(self):
        """At the program's end."""
        failure = getattr(sys, "last_value", None)  # set when an exception has ended the program
        try:
            if failure is None:
                self._ack()
            else:
                self._give_back(f"the program ended with {type(failure).__name__}: {failure}")
        except grpc.RpcError as error:
            print(f"zoo_server: the last task may come again: {connection.explain(error)}", file=sys.stderr)
        self._held = None
        if self._owns_client:
            self._client.close()


def _warn_of(failures):
    for failure in failures:
        if failure.error != message_pb2.SETTLE_ERROR_ALREADY_SETTLED:  # by an earlier try of the same ack
            warnings.warn(f"a task was not acked, so it may be executed twice: {failure.detail}", stacklevel=4)
