"""The ways of a run's clients to the replicas, and what an error says about the call that got it."""

import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from client import Client, Refusal, grpc  # noqa: E402
from history import REFUSED, UNEXPECTED, UNKNOWN  # noqa: E402

CONNECTIONS_PER_REPLICA = 3
AVOIDED_S = 1.0

# "After any other error nothing was written": protos/postkeeper/v1/message.proto.
NOT_DONE = ("ZOOKEEPER_UNAVAILABLE", "NO_OWNER", "REPLICA_DRAINING", "TOO_MANY_CALLS", "TOO_MANY_STREAMS", "QUEUE_FULL",
            "STORE_FULL")
# What gRPC itself says of broken connections and spent deadlines.
BROKEN = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "INTERNAL", "UNKNOWN")


def outcome_of(error):
    """(outcome, detail) of a call that failed."""
    refused = Refusal(error)
    detail = f"{refused.code} {refused.reason}: {refused.text}"[:300]
    if refused.reason == "OUTCOME_UNKNOWN" or not refused.reason and refused.code in BROKEN:
        return UNKNOWN, detail
    return (REFUSED if refused.reason in NOT_DONE else UNEXPECTED), detail


class Door:
    """One connection to one replica."""

    def __init__(self, name, address, avoided_until):
        self.name, self.client, self.avoided_until = name, Client(address), avoided_until

    def avoid(self):
        """The whole replica, for a while: it has just failed."""
        self.avoided_until[self.name] = time.monotonic() + AVOIDED_S


class Doors:
    """Thread-safe."""

    def __init__(self, replicas):
        """`replicas`: (name, address) of each."""
        self.avoided_until = {name: 0.0 for name, _ in replicas}
        self.doors = [Door(name, address, self.avoided_until) for name, address in replicas
                      for _ in range(CONNECTIONS_PER_REPLICA)]

    def pick(self, rng):
        """Any, those that have just failed only if there is no other."""
        now = time.monotonic()
        good = [door for door in self.doors if self.avoided_until[door.name] <= now]
        return rng.choice(good or self.doors)

    def close(self):
        for door in self.doors:
            door.client.close()


__all__ = ["Doors", "grpc", "outcome_of"]
