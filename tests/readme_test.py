"""The README and the tour tell the truth: every block marked `sh` is run, in order, in one shell for each page, and prints
what the page says.

A block marked `text` right behind one marked `sh` is its output. Ids, times, durations, rates and the width of columns
may differ; a line "..." stands for one or more lines. The shell stops at the first command that fails. It runs with
settings of its own (a data directory in a temporary folder, free ports instead of 7410 to 7419), so that it harms no
server of the person who runs the test.
"""

import concurrent.futures
import contextlib
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/support"))

from postkeeperd import clean_environment, find_program  # noqa: E402

README, TOUR = ROOT / "README.md", ROOT / "docs/TOUR.md"
FENCE = re.compile(r"^```(\w*)$")
BLOCKS_TIMEOUT_S = 120
DEMO_TIMEOUT_S = 500
# These two build. ./dev test is what runs this test; ./dev demo has a test of its own.
FRONT_DOOR = ("./dev test", "./dev demo")

PORT = re.compile(r"\b741[0-9]\b")
VARYING = (
    (re.compile(r"\b[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z\b"), "TIME"),
    (re.compile(r"\b(?=[\w-]*([0-9]|[a-z][A-Z]))[A-Za-z0-9_-]{20,}"), "ID"),
    (re.compile(r"\b[0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h)\b"), "DURATION"),
    (re.compile(r"\b[0-9]+(\.[0-9]+)?/s\b"), "RATE"),
    (re.compile(r"  +"), " "),
)


def read_blocks(text):
    """[(line number, sh text, expected output or None)], in order."""
    blocks, lines, i = [], text.split("\n"), 0
    while i < len(lines):
        match = FENCE.match(lines[i])
        if match is None:
            i += 1
            continue
        end = lines.index("```", i + 1)
        body = "\n".join(lines[i + 1:end])
        if match[1] == "sh":
            blocks.append([i + 1, body, None])
        elif match[1] == "text" and blocks and blocks[-1][2] is None and not "".join(lines[last_end + 1:i]).strip():
            blocks[-1][2] = body
        i, last_end = end + 1, end
    return blocks


def without_varying(text):
    for pattern, name in VARYING:
        text = pattern.sub(name, text)
    return text


def matches(expected, actual):
    """Line by line; "..." in `expected` stands for one or more lines."""
    pattern = "\n".join("(?:.*\n)*?.*" if line == "..." else re.escape(without_varying(line))
                        for line in expected.strip("\n").split("\n"))
    return re.fullmatch(pattern, "\n".join(map(without_varying, actual.strip("\n").split("\n")))) is not None


def free_ports():
    """{a port as pages name it: a free one}, both in the same order."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(10)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        free = sorted(probe.getsockname()[1] for probe in probes)
    return {str(7410 + i): str(port) for i, port in enumerate(free)}


class PagesTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="postkeeper-readme-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def make_checkout(self, folder):
        """A folder that looks like this one, but whose build/release is the one on the PATH, and that may be written."""
        checkout = folder / "postkeeper"
        (checkout / "build").mkdir(parents=True)
        for entry in ROOT.iterdir():
            if entry.name not in ("build", ".git"):
                (checkout / entry.name).symlink_to(entry)
        (checkout / "build/release").symlink_to(pathlib.Path(find_program("postkeeperd")).resolve().parent)
        return checkout

    def run_blocks(self, blocks, env, folder):
        """Runs the blocks in one shell. Returns the outputs of those that were begun, the shell's exit code and own words."""
        script = ["set -euo pipefail"]
        for number, (_, body, _) in enumerate(blocks):
            script += [f"exec >'{folder}/out.{number}' 2>&1", body]
        # Whatever a failing block left running ends with the shell.
        script.insert(0, "trap 'code=$?; trap - EXIT; kill $(jobs -p) 2>/dev/null || true; wait; exit $code' EXIT")
        shell = subprocess.Popen(["bash", "-c", "\n".join(script)], cwd=self.make_checkout(folder), env=env, text=True,
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                 start_new_session=True)
        try:
            words, _ = shell.communicate(timeout=BLOCKS_TIMEOUT_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
        outputs = []
        while (out := folder / f"out.{len(outputs)}").exists():
            outputs.append(out.read_text(encoding="utf-8"))
        return outputs, shell.returncode, words

    def check_page(self, page):
        """Each block does what the page says that it does."""
        folder = self.folder / page.stem
        ports = free_ports()
        shown = {free: port for port, free in ports.items()}
        env = clean_environment(
            POSTKEEPER_LISTEN=f"127.0.0.1:{ports['7411']}", POSTKEEPER_ADDRESS=f"127.0.0.1:{ports['7411']}",
            POSTKEEPER_METRICS_LISTEN=f"127.0.0.1:{ports['7412']}", POSTKEEPER_DATA_DIR=str(folder / "data"),
            LC_ALL="C.UTF-8")
        blocks = [(line, PORT.sub(lambda match: ports[match[0]], body), expected)
                  for line, body, expected in read_blocks(page.read_text(encoding="utf-8"))
                  if body.strip() not in FRONT_DOOR]
        self.assertGreater(len(blocks), 5)
        outputs, code, words = self.run_blocks(blocks, env, folder)
        for (line, body, expected), output in zip(blocks, outputs):
            output = re.sub("|".join(shown), lambda match: shown[match[0]], output)
            if expected is not None and not matches(expected, output):
                self.fail(f"{page.name}:{line} says that\n{body}\nprints\n{expected}\nbut it prints\n{output}")
        if code != 0:
            line, body, _ = blocks[len(outputs) - 1]
            self.fail(f"{page.name}:{line} fails with {code}:\n{body}\n{outputs[-1]}\n{words}")
        self.assertEqual(len(outputs), len(blocks))

    # Each block of the README and of the tour does what is said there. Side by side, since both mostly wait.
    def test_blocks(self):
        with concurrent.futures.ThreadPoolExecutor() as pool:
            running = {page: pool.submit(self.check_page, page) for page in (README, TOUR)}
        for page, run in running.items():
            with self.subTest(page=page.name):
                run.result()

    # The README begins with the two commands that do everything; the demo is run as it is told there.
    def test_demo(self):
        blocks = read_blocks(README.read_text(encoding="utf-8"))
        self.assertEqual([body for _, body, _ in blocks[:2]], ["./dev demo", "./dev test"])
        programs = pathlib.Path(find_program("postkeeperd")).resolve().parent
        is_release = programs == ROOT / "build/release"
        command = ["./dev", "demo"] if is_release else ["scripts/demo.sh", "--bin", programs]
        done = subprocess.run(command, cwd=ROOT, env=clean_environment(TMPDIR=str(self.folder)), timeout=DEMO_TIMEOUT_S,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn("nothing is left running", done.stdout)
        self.assertEqual(os.listdir(self.folder), [], "the demo left files behind")

    # What is linked is there, in all pages.
    def test_links(self):
        pages = [README, *(ROOT / "docs").glob("*.md")]
        links = [(page, link) for page in pages
                 for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")) if "://" not in link]
        self.assertGreater(len(links), 50)
        self.assertEqual([(page.name, link) for page, link in links if not (page.parent / link).exists()], [])

    # The program shown is the one that is run.
    def test_first_program_is_shown_as_it_is(self):
        program = (ROOT / "examples/python/first_program.py").read_text(encoding="utf-8")
        self.assertIn(f"```python\n{program}```\n", README.read_text(encoding="utf-8"))

    # The comparison itself: what may vary may, the rest may not.
    def test_comparison(self):
        self.assertTrue(matches("ready:  3\noldest:  12ms", "ready:  3\noldest:  7s\n"))
        self.assertTrue(matches("a\n...\nz", "a\nb\nc\nz\n"))
        self.assertTrue(matches("a\n...\nz", "a\nb\nz\n"))
        self.assertTrue(matches('{"id":"AAAAAAAAAAAAAAAAAAAAAA0"}', '{"id":"BBBBBBBBBBBBBBBBBBBBB-BBBBB7"}'))
        self.assertTrue(matches("mMxicyNNG9MOkOQpWEdoVsQAAAAEAAAAAAAE", "mqMQPLmffsqruyiLppfpOMwAAAAEAAAAAAAE"))
        self.assertFalse(matches("ready:  3", "ready:  4"))
        self.assertFalse(matches("a\n...\nz", "a\nb"))
        self.assertFalse(matches("a", "a\nb"))
        self.assertFalse(matches("ready:  3", ""))


if __name__ == "__main__":
    unittest.main()
