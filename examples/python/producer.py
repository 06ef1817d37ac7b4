#!/usr/bin/python3
"""Puts each line of standard input into a queue: producer.py QUEUE [NAME]

Lines travel in batches. Each batch has a request_id, so a batch whose answer got lost is sent again without being
written twice. NAME names this input: if the program is killed and run again within ten minutes with the same input and
the same NAME, what was already in is not written again.
"""

import argparse
import sys
import time
import uuid

import connection
import grpc
from postkeeper.v1 import message_pb2, message_pb2_grpc

BATCH_LINES = 500
BATCH_BYTES = 256 * 1024
DEADLINE_S = 30
PAUSE_S = 1
PATIENCE_S = 300  # with a server that is gone or full; less than the ten minutes for which it knows a request_id


def batches(lines):
    """The same lines make the same batches, which is what lets NAME work."""
    batch, size = [], 0
    for line in lines:
        if batch and (len(batch) == BATCH_LINES or size + len(line) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(message_pb2.Message(body=line, content_type="text/plain"))
        size += len(line)
    if batch:
        yield batch


def enqueue(stub, request):
    """Sends the very same request until it is in. gRPC repeats a lost call by itself; this is for longer troubles."""
    give_up_at = time.monotonic() + PATIENCE_S
    while True:
        try:
            return stub.Enqueue(request, timeout=DEADLINE_S)
        except grpc.RpcError as error:
            if not connection.is_worth_repeating(error) or time.monotonic() > give_up_at:
                raise
            print(f"producer: trying again; {connection.explain(error)}", file=sys.stderr)
            time.sleep(PAUSE_S)


def produce(queue, name, lines):
    """Returns how many messages are durably in the queue."""
    with connection.open_channel() as channel:
        connection.require_server(channel)
        stub = message_pb2_grpc.MessageServiceStub(channel)
        count = 0
        for number, batch in enumerate(batches(lines)):
            request = message_pb2.EnqueueRequest(queue=queue, messages=batch, request_id=f"{name}-{number}")
            count += len(enqueue(stub, request).message_ids)
        return count


def main():
    parser = argparse.ArgumentParser(description="Put each line of standard input into a queue.")
    parser.add_argument("queue")
    parser.add_argument("name", nargs="?", default=str(uuid.uuid4()),
                        help="of this input, to resume it; default: random")
    arguments = parser.parse_args()
    lines = (line.rstrip(b"\r\n") for line in sys.stdin.buffer)
    try:
        print(f"{produce(arguments.queue, arguments.name, lines)} messages enqueued")
    except (ConnectionError, grpc.RpcError) as error:
        sys.exit(f"producer: {connection.explain(error)}")


if __name__ == "__main__":
    main()
