#!/usr/bin/python3
"""Prints what is published on a topic and remembers how far it got: subscriber.py TOPIC POSITION_FILE

Started again with the same file it goes on behind the last message it printed: none is missed, and only what was
printed but not yet noted (a crash between the two) comes again. Without the file it begins at the oldest message kept.
It can be ended at any moment, also with kill -9.
"""

import argparse
import os
import pathlib
import sys
import time

import connection
import grpc
from postkeeper.v1 import message_pb2, message_pb2_grpc

REOPEN_S = 1


def handle(message):
    """The work on one message."""
    print(message.message.body.decode("utf-8", "replace"), flush=True)


def read_position(file):
    try:
        return file.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""


def write_position(file, position):
    """A crash leaves the old position or the new one, whole."""
    new = file.with_name(file.name + ".new")
    with open(new, "w", encoding="ascii") as out:
        print(position, file=out)
        out.flush()
        os.fsync(out.fileno())
    os.replace(new, file)


def subscribe(stub, topic, file):
    """One stream, until it breaks."""
    position = read_position(file)
    start = message_pb2.Start(after=position) if position else message_pb2.Start(earliest=True)
    # No deadline: it lives as long as the subscriber. The channel's pings notice a dead server.
    request = message_pb2.SubscribeRequest(topic=topic, start=start, subscriber="python-subscriber")
    for response in stub.Subscribe(request):
        for message in response.messages:
            handle(message)
        if response.position and response.position != position:
            position = response.position
            write_position(file, position)


def run(topic, file):
    with connection.open_channel() as channel:
        connection.require_server(channel)
        stub = message_pb2_grpc.MessageServiceStub(channel)
        while True:
            try:
                subscribe(stub, topic, file)
            except grpc.RpcError as error:
                if not connection.is_worth_repeating(error):
                    raise
                print(f"subscriber: opening a new stream; {connection.explain(error)}", file=sys.stderr)
            time.sleep(REOPEN_S)


def main():
    parser = argparse.ArgumentParser(description="Print what is published on a topic, resuming where it stopped.")
    parser.add_argument("topic")
    parser.add_argument("position_file", type=pathlib.Path)
    arguments = parser.parse_args()
    try:
        run(arguments.topic, arguments.position_file)
    except KeyboardInterrupt:
        sys.exit(130)
    except grpc.RpcError as error:
        hint = ""
        if error.code() in (grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.FAILED_PRECONDITION):
            hint = f". To begin again at the oldest message kept: rm {arguments.position_file}"
        sys.exit(f"subscriber: {connection.explain(error)}{hint}")
    except ConnectionError as error:
        sys.exit(f"subscriber: {error}")


if __name__ == "__main__":
    main()
