"""A running example, whose lines can be waited for."""

import array
import fcntl
import subprocess
import termios
import threading

from postkeeperd import until


class Program:
    """Its output is collected by threads, so that it never waits for us; with `lines_max` no more lines are read than
    that, so that it must wait, as for a slow reader, until it is killed."""

    def __init__(self, command, environment, lines_max=None):
        self.lines_max = lines_max
        self.process = subprocess.Popen(command, env=environment, text=True, encoding="utf-8", stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.lines, self.errors = [], []
        self.changed = threading.Condition()
        self.is_ended = False   # the process; what it has written may still be read
        self.is_silent = False  # nothing more comes on its standard output
        self.threads = [threading.Thread(target=self._collect, args=(stream, lines))
                        for stream, lines in ((self.process.stdout, self.lines), (self.process.stderr, self.errors))]
        for thread in self.threads:
            thread.start()

    def _collect(self, stream, lines):
        with stream:
            for line in stream:
                with self.changed:
                    lines.append(line.rstrip("\n"))
                    self.changed.notify_all()
                    if lines is self.lines and len(lines) == self.lines_max:
                        self.changed.wait_for(lambda: self.is_ended)
        with self.changed:
            self.is_silent = self.is_silent or lines is self.lines
            self.changed.notify_all()

    def feed(self, lines):
        """Some lines of its standard input."""
        self.process.stdin.write("".join(f"{line}\n" for line in lines))
        self.process.stdin.flush()

    def wait_for(self, is_enough, timeout_s=60):
        """The lines so far, as soon as is_enough(lines)."""
        with self.changed:
            self.changed.wait_for(lambda: is_enough(self.lines) or self.is_silent, timeout_s)
            if not is_enough(self.lines):
                raise AssertionError(f"what was waited for did not come; {len(self.lines)} lines, the last ones: "
                                     f"{self.lines[-5:]} {self.errors}")
            return list(self.lines)

    def wait_for_lines(self, count, timeout_s=60):
        return self.wait_for(lambda lines: len(lines) >= count, timeout_s)

    def wait_until_held(self):
        """Until it has filled the pipe behind lines_max and waits for us to read on, in the middle of its work."""
        def is_full():
            unread = array.array("i", [0])
            fcntl.ioctl(self.process.stdout, termios.FIONREAD, unread)
            return unread[0] > 0.9 * fcntl.fcntl(self.process.stdout, fcntl.F_GETPIPE_SZ)
        until(is_full, "the program is held up")

    def wait_for_error(self, text, timeout_s=60):
        with self.changed:
            if not self.changed.wait_for(lambda: any(text in line for line in self.errors), timeout_s):
                raise AssertionError(f"no {text!r} on standard error: {self.errors}")

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        """As a crash does; returns what it had printed."""
        self.process.kill()
        self.join()
        return self.lines

    def join(self, timeout_s=60):
        """Its exit code. No more input comes."""
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        code = self.process.wait(timeout_s)
        with self.changed:
            self.is_ended = True
            self.changed.notify_all()
        for thread in self.threads:
            thread.join()
        return code

    def close(self):
        self.process.kill()
        self.join()
