#!/usr/bin/python3
"""Puts each line of standard input into a queue: producer.py QUEUE

Lines travel in batches. Each batch has a request_id, so a batch whose answer got lost is sent again without being
written twice (unless the server was restarted in between); the retries themselves are in the service config.
"""

import argparse
import sys
import uuid

import connection
import grpc
from postkeeper.v1 import message_pb2, message_pb2_grpc

BATCH_LINES = 500
BATCH_BYTES = 256 * 1024
DEADLINE_S = 30


def batches(lines):
    batch, size = [], 0
    for line in lines:
        if batch and (len(batch) == BATCH_LINES or size + len(line) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(message_pb2.Message(body=line, content_type="text/plain"))
        size += len(line)
    if batch:
        yield batch


def produce(queue, lines):
    """Returns how many messages are durably in the queue."""
    with connection.open_channel() as channel:
        connection.require_server(channel)
        stub = message_pb2_grpc.MessageServiceStub(channel)
        count = 0
        for batch in batches(lines):
            request = message_pb2.EnqueueRequest(queue=queue, messages=batch, request_id=str(uuid.uuid4()))
            count += len(stub.Enqueue(request, timeout=DEADLINE_S).message_ids)
        return count


def main():
    parser = argparse.ArgumentParser(description="Put each line of standard input into a queue.")
    parser.add_argument("queue")
    queue = parser.parse_args().queue
    lines = (line.rstrip(b"\r\n") for line in sys.stdin.buffer)
    try:
        print(f"{produce(queue, lines)} messages enqueued")
    except (ConnectionError, grpc.RpcError) as error:
        sys.exit(f"producer: {connection.explain(error)}")


if __name__ == "__main__":
    main()
