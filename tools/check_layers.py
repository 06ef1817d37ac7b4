#!/usr/bin/python3
"""Checks that the rooms depend on one another in one direction only: check_layers.py [ROOT].

Reads the #include lines of our own files. The rooms and their arrows are in docs/ARCHITECTURE.md; the tables below are
the same in a form that a machine can check. A new arrow or exception is a decision: add it here with its reason.
"""

import pathlib
import re
import sys

from project_files import project_files

API = ("postkeeper/v1/", "google/rpc/")
RECORDS = ("postkeeper/storage/v1/", "postkeeper/wire/v1/")
GRPC = ("grpcpp/", "grpc/", "grpc++/")
PROTOBUF = ("google/protobuf/",)

# room: (rooms it may include, protos it may include, libraries that only some rooms may know)
ROOMS = {
    "zkstore": (("zkstore",), RECORDS, PROTOBUF + ("zookeeper/",)),
    "metrics": (("metrics",), (), ("prometheus/",)),
    "service": (("service", "zkstore", "metrics"), API + RECORDS + ("grpc/health/", "keda/"),
                GRPC + PROTOBUF + ("spdlog/", "CLI/")),
    "cli": (("cli",), API + ("grpc/health/",), GRPC + PROTOBUF + ("CLI/",)),
    "bench": (("bench", "zkstore"), API + RECORDS, GRPC + PROTOBUF + ("benchmark/", "zookeeper/", "CLI/")),
    "examples": (("examples",), API, GRPC + PROTOBUF),
    "tests": (("tests", "zkstore", "metrics", "service", "cli"), API + RECORDS + ("grpc/health/",),
              GRPC + PROTOBUF + ("zookeeper/", "gtest/", "gmock/")),
}

# Single headers that a room may include besides.
HEADER_ARROWS = {
    ("bench", "service/dispatcher.h"): "the dispatcher is a pure state machine; its cost per message is a ceiling",
}

# Libraries that stand behind few doors of ours; for every other room they are out of reach.
GUARDED_LIBRARIES = GRPC + PROTOBUF + ("zookeeper/", "prometheus/", "spdlog/", "CLI/", "benchmark/", "gtest/", "gmock/")

# Libraries with one door: only these files change with them, and pay for their compile time.
DOORS = {"prometheus/": "metrics/prometheus*", "spdlog/": "service/logging.cc"}

# Headers of zkstore/ and service/ that may include gRPC, generated protobuf code or the ZooKeeper C API. Everybody who
# includes them pays for it, so: only what can't be declared otherwise. Each with its reason.
HEADER_EXCEPTIONS = {
    "zkstore/c_client_*.h": "private to the files of the ZooKeeper C client, which speak the C API",
    "service/unary_call.h": "the reactor and the templates of all unary handlers; for the services only",
    "service/stream_call.h": "the base class of the streams' reactors; for the streams only",
    "service/peers.h": "calls carried to other replicas as they are; for the two above only",
    "service/relayed_consume.h": "frames of streams as bytes; for the streams only",
    "service/field_checks.h": "checks fields of requests; its arguments are protobuf's types",
}

# The in-memory ZooKeeper is for tests; what is shipped must not contain it.
SIMULATION = re.compile(r"zkstore/(simulat\w*|fault_injector\w*)\.h$")
SIMULATION_FILE = re.compile(r"zkstore/(simulat\w*|fault_injector\w*)\.(h|cc)$")

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
PYTHON_STORE = re.compile(r"^\s*(import|from)\s+(kazoo|postkeeper\.(storage|wire))\b")


def is_test(path):
    return path.parts[0] == "tests" or path.stem.endswith("_test")


def is_plain_header(path):
    """A precompiled header is not included by anybody, so what is in it spreads no further."""
    return path.suffix == ".h" and not path.stem.endswith("_pch")


def is_costly(included):
    return included.startswith(GRPC + PROTOBUF + ("zookeeper/",)) or included.endswith(".pb.h")


def judge(path, quote, included):
    """Returns what is wrong with this #include in this file, or None."""
    room = path.parts[0]
    rooms, protos, libraries = ROOMS[room]
    if is_test(path):
        rooms += ("tests",)
        libraries += ("gtest/", "gmock/")
    first = included.split("/")[0]
    if quote == '"' and "/" not in included and room != "examples":  # whose folders are there to be copied
        return "name the room too: #include \"<room>/...\""
    if included.endswith(".pb.h"):
        if not included.startswith(protos + (PROTOBUF if PROTOBUF[0] in libraries else ())):
            return f"{room}/ may not know this proto"
    elif first in ROOMS:
        if first not in rooms and (room, included) not in HEADER_ARROWS:
            return f"{room}/ may not include {first}/"
        if SIMULATION.match(included) and not is_test(path) and not SIMULATION_FILE.match(str(path)):
            return "the simulation is for tests only"
    elif included.startswith(GUARDED_LIBRARIES) and not included.startswith(libraries):
        return f"{room}/ may not know this library"
    for library, door in DOORS.items():
        if included.startswith(library) and not path.match(door) and not is_test(path):
            return f"only {door} may know this library"
    if (room in ("zkstore", "service") and is_plain_header(path) and is_costly(included)
            and not any(path.match(pattern) for pattern in HEADER_EXCEPTIONS)):
        return "a header of ours without gRPC, protobuf or ZooKeeper headers, please (or a reason in HEADER_EXCEPTIONS)"
    return None


def check(root):
    findings = []
    for path in project_files(root):
        room = path.parts[0]
        if room not in ROOMS or path.suffix not in (".h", ".cc", ".py"):
            continue
        for number, line in enumerate((root / path).read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if path.suffix == ".py":
                if room == "examples" and PYTHON_STORE.match(line):
                    findings.append(f"{path}:{number}: examples/ are clients: they know only postkeeper.v1")
                continue
            match = INCLUDE.match(line)
            if not match:
                continue
            wrong = judge(path, *match.groups())
            if wrong:
                findings.append(f"{path}:{number}: {match.group(2)}: {wrong}")
    return findings


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    findings = check(root)
    for finding in findings:
        print(finding)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
