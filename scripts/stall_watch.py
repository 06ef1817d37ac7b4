#!/usr/bin/python3
"""Tells a machine that stood still from a test that failed.

stall_watch.py watch FILE           notes in FILE whenever this machine stood still, until its parent ends
stall_watch.py longest FILE SINCE   prints the longest stall noted since then (seconds since 1970), in seconds

Tests on real processes have limits in time. A virtual machine can stand still for many seconds: it gets no processor, or
its disk answers nothing. So ten times a second this sleeps for a moment, writes a page through to the disk and reads one
back from it, which takes milliseconds on the busiest machine that moves at all.
"""

import os
import pathlib
import sys
import time

PAUSE_S = 0.1
NOTED_S = 0.25
PAGE = b"\0" * 4096


def measure(fd):
    """Seconds that one round took beyond its pause."""
    started = time.monotonic()
    time.sleep(PAUSE_S)
    os.pwrite(fd, PAGE, 0)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.pread(fd, len(PAGE), 0)
    return time.monotonic() - started - PAUSE_S


def watch(path):
    parent = os.getppid()
    fd = os.open(f"{path}.page", os.O_RDWR | os.O_CREAT)
    with open(path, "a", encoding="utf-8") as out:
        while os.getppid() == parent:
            late_s = measure(fd)
            if late_s >= NOTED_S:
                out.write(f"{time.time():.1f} {late_s:.2f}\n")
                out.flush()


def longest(path, since):
    lines = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return max((float(late_s) for ended_at, late_s in lines if float(ended_at) >= since), default=0.0)


def main():
    match sys.argv[1:]:
        case ["watch", path]:
            watch(pathlib.Path(path))
        case ["longest", path, since]:
            print(f"{longest(pathlib.Path(path), float(since)):.1f}")
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
