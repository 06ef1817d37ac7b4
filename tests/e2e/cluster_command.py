#!/usr/bin/python3
"""./dev cluster up [--port N] | status | down: three postkeeperd before a ZooKeeper ensemble of three, to try things on.

  up [--port N]   starts them in the background; the replicas listen at N, N+1 and N+2 (default: free ports)
  status          each process: address, pid, role
  down            ends what `up` started, and removes its data

All of it is on the loopback interface; what it knows and keeps is in build/cluster.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

from cluster import SIZE, STOP_TIMEOUT_S, Cluster, require_programs, role_at
from processes import POLL_S, end_recorded, is_free, is_stopped, start_ticks

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build/cluster"
PORT_MIN, PORT_MAX = 1024, 65535 - SIZE + 1
HEALTH_TIMEOUT_S = 20


class Refusal(Exception):
    """One line for the person who typed."""


def state_file(folder):
    return folder / "state.json"


def read_state(folder):
    """What `up` started: [{name, address, pid, ticks, kind}]; empty if there is nothing."""
    try:
        return json.loads(state_file(folder).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except json.JSONDecodeError:
        raise Refusal(f"{state_file(folder)} cannot be read; end its processes by hand and remove {folder}") from None


def write_state(folder, state):
    """Whole or not at all: what is running must not be forgotten."""
    made = state_file(folder).with_suffix(".new")
    made.write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
    os.replace(made, state_file(folder))


def running(state):
    return [entry for entry in state if start_ticks(entry["pid"]) == entry["ticks"]]


def end_all(state):
    """Replicas first, in good order, then the ensemble; how many were there."""
    ended = 0
    for kind, sign in (("postkeeperd", signal.SIGTERM), ("zookeeper", signal.SIGKILL)):
        entries = running([entry for entry in state if entry["kind"] == kind])
        for entry in entries:
            end_recorded(entry["pid"], entry["ticks"], signal.SIGCONT)  # one that was stopped hears nothing else
            ended += end_recorded(entry["pid"], entry["ticks"], sign)
        give_up_at = time.monotonic() + STOP_TIMEOUT_S
        while running(entries):
            if time.monotonic() > give_up_at:
                for entry in entries:
                    end_recorded(entry["pid"], entry["ticks"], signal.SIGKILL)
            time.sleep(POLL_S)
    return ended


def up(folder, port):
    if running(read_state(folder)):
        raise Refusal("the cluster is up already. See: ./dev cluster status")
    ports = list(range(port, port + SIZE)) if port else None
    for wanted in ports or ():
        if not is_free(wanted):
            raise Refusal(f"port {wanted} is taken. Give another: ./dev cluster up --port N, or none for free ones")
    try:
        require_programs()
    except RuntimeError as error:
        raise Refusal(str(error)) from None
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    cluster, state = Cluster(folder, replica_ports=ports, is_lasting=True), []

    def note(process):
        kind = process.name.rpartition("-")[0]
        state.append({"name": process.name, "address": process.address, "pid": process.pid,
                      "ticks": start_ticks(process.pid), "kind": kind})
        write_state(folder, state)
    try:
        cluster.start(note)
    except BaseException as error:
        cluster.close()
        write_state(folder, [])
        if isinstance(error, RuntimeError):
            raise Refusal(f"it did not start: {error}. Logs are in {folder}") from None
        raise
    show(state)


def role(entry):
    """What it is at the moment."""
    if start_ticks(entry["pid"]) != entry["ticks"]:
        return "ended"
    if is_stopped(entry["pid"]):
        return "paused (SIGSTOP)"
    if entry["kind"] == "zookeeper":
        return role_at(int(entry["address"].rpartition(":")[2])) or "does not serve"
    postkeeper = shutil.which("postkeeper")
    if postkeeper is None:
        return "replica"
    try:
        asked = subprocess.run([postkeeper, "--address", entry["address"], "health"], stdin=subprocess.DEVNULL,
                               capture_output=True, timeout=HEALTH_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return "replica, does not answer"
    return "replica, ready" if asked.returncode == 0 else "replica, not ready"


def show(state):
    lines = [("PROCESS", "ADDRESS", "PID", "ROLE")]
    lines += [(entry["name"], entry["address"], str(entry["pid"]), role(entry)) for entry in state]
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    for line in lines:
        print("  ".join([*(text.ljust(width) for text, width in zip(line, widths)), line[3]]))
    replicas = [entry["address"] for entry in state if entry["kind"] == "postkeeperd"]
    print(f"\nnow type:    {postkeeper_path()} --address {replicas[0]} cluster ls\nor stop it:  ./dev cluster down")


def postkeeper_path():
    """As a person types it who stands in the project's folder; ./dev has a PATH of its own."""
    path = pathlib.Path(shutil.which("postkeeper") or ROOT / "build/release/postkeeper")
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def status(folder):
    state = read_state(folder)
    if not running(state):
        raise Refusal("the cluster is not up. Start it: ./dev cluster up")
    show(state)


def down(folder):
    state = read_state(folder)
    if not running(state):
        shutil.rmtree(folder, ignore_errors=True)
        raise Refusal("the cluster is not up: nothing to end")
    ended = end_all(state)
    shutil.rmtree(folder)
    print(f"ended {ended} processes; {folder} is removed")


def main():
    parser = argparse.ArgumentParser(prog="./dev cluster", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("up", "status", "down"))
    parser.add_argument("--port", type=int, help="of the first replica; for up")
    parser.add_argument("--folder", type=pathlib.Path, default=FOLDER, help="instead of build/cluster")
    arguments = parser.parse_args()
    if arguments.port is not None and not PORT_MIN <= arguments.port <= PORT_MAX:
        parser.error(f"--port: {PORT_MIN} to {PORT_MAX}")
    if arguments.port is not None and arguments.what != "up":
        parser.error("--port is for up")
    folder = arguments.folder.resolve()
    try:
        if arguments.what == "up":
            up(folder, arguments.port)
        else:
            {"status": status, "down": down}[arguments.what](folder)
    except Refusal as refusal:
        print(f"cluster: {refusal}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
