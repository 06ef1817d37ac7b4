"""Nothing in helm/ names a metric, a flag or a setting that postkeeperd and postkeeper don't have, and what is generated
from the chart's values is up to date.
"""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from postkeeperd import clean_environment, find_program  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/postkeeper"

METRIC = re.compile(r"(?<![\w/.-])((?:postkeeper|grpc_server|grpc_client|process)_[a-z0-9_]+)\b")
FLAG = re.compile(r"(?<![\w-])--([a-z][a-z0-9-]*)")
VARIABLE = re.compile(r"\bPOSTKEEPER_[A-Z_]+\b")
HISTOGRAM_SUFFIXES = ("_bucket", "_count", "_sum")
# Of kubectl and helm, in what is for people to type.
FLAGS_OF_OTHERS = {"namespace", "set", "wait"}


def said(program, *arguments):
    return subprocess.run([find_program(program), *arguments], env=clean_environment(), check=True, capture_output=True,
                          text=True, timeout=60).stdout


def server_flags():
    settings = re.findall(r"^([a-z-]+) = ", said("postkeeperd", "--print-config"), re.MULTILINE)
    return set(settings) | {"config", "print-config", "help", "help-markdown", "version"}


def client_flags(*command):
    """Those of the command line and of all its commands."""
    text = said("postkeeper", *command, "--help")
    found = set(FLAG.findall(text))
    subcommands = re.search(r"^Subcommands:\n((?:  .*\n)+)", text, re.MULTILINE)
    for name in re.findall(r"^  (\S+)", subcommands[1], re.MULTILINE) if subcommands else ():
        found |= client_flags(*command, name)
    return found


def metrics(root=ROOT):
    """The names of all metrics, as they stand in the code, with those that a histogram adds."""
    found = set()
    for folder in ("metrics", "service"):
        for path in (root / folder).iterdir():
            if path.suffix in (".h", ".cc") and not path.name.endswith("_test.cc"):
                text = path.read_text(encoding="utf-8")
                found |= set(re.findall(r'"((?:postkeeper|grpc_server|process)_[a-z0-9_]+)"', text))
    return found | {name + suffix for name in found for suffix in HISTOGRAM_SUFFIXES}


def unknown(text, known_metrics, known_flags, known_settings):
    """What a text names that isn't there, sorted."""
    variables = {name for name in VARIABLE.findall(text) if name != "POSTKEEPER_ADDRESS"}
    settings = {name: name[len("POSTKEEPER_"):].lower().replace("_", "-") for name in variables}
    return sorted((set(METRIC.findall(text)) - known_metrics) | (set(FLAG.findall(text)) - known_flags) |
                  {name for name, setting in settings.items() if setting not in known_settings})


class NamesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.settings = server_flags()
        cls.known = (metrics(), cls.settings | client_flags() | FLAGS_OF_OTHERS, cls.settings)

    # Every file of the chart, dashboards and alerts among them, names only what is there.
    def test_everything_named_is_there(self):
        files = [path for path in (ROOT / "helm").rglob("*") if path.is_file()]
        self.assertGreater(len(files), 10)
        for path in files:
            with self.subTest(file=str(path.relative_to(ROOT))):
                self.assertEqual(unknown(path.read_text(encoding="utf-8"), *self.known), [])

    # The search finds what it is there to find, and knows what is there.
    def test_search_has_teeth(self):
        for text, expected in (("rate(postkeeper_queue_massages[5m])", ["postkeeper_queue_massages"]),
                               ("sum(postkeeper_queue_messages{state=\"ready\"})", []),
                               ("postkeeper_queue_acked_messages_total", []),
                               ("grpc_server_handling_seconds_bucket / grpc_server_handling_second_sum",
                                ["grpc_server_handling_second_sum"]),
                               ("- --listen=:1 --liste=2", ["liste"]), ("postkeeper health --liveness", []),
                               ("POSTKEEPER_LOG_LEVEL POSTKEEPER_ADDRESS POSTKEEPER_LOUDNESS", ["POSTKEEPER_LOUDNESS"])):
            with self.subTest(text=text):
                self.assertEqual(unknown(text, *self.known), expected)


class ValuesTest(unittest.TestCase):
    """tools/chart_values.py, on a copy of the chart."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.chart = pathlib.Path(folder.name) / "postkeeper"
        shutil.copytree(CHART, self.chart)
        self.help = pathlib.Path(folder.name) / "help.md"
        self.help.write_text(said("postkeeperd", "--help-markdown"), encoding="utf-8")

    def check(self, *arguments):
        done = subprocess.run(["/usr/bin/python3", ROOT / "tools/chart_values.py", "--help-markdown", self.help, *arguments,
                               self.chart], capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    def edit(self, name, old, new):
        text = (self.chart / name).read_text(encoding="utf-8")
        self.assertIn(old, text)
        (self.chart / name).write_text(text.replace(old, new, 1), encoding="utf-8")

    # The table of values, the schema and the flags of this postkeeperd agree. If a flag is new:
    # postkeeperd --help-markdown >F; tools/chart_values.py --fix --help-markdown F
    def test_up_to_date(self):
        self.assertEqual(self.check(), (0, ""))

    # Whatever is changed in one place only is found, and --fix repairs what can be made.
    def test_differences_are_found(self):
        for name, old, new, found, is_fixed in (
                ("values.yaml", "replicas: 2", "replicas: 3", "README.md isn't what", True),
                ("values.yaml", "replicas: 2", "replicas: 2\n\n# New.\nfresh: 1", "doesn't describe fresh", False),
                ("values.yaml", "  # Its value.\n  labelValue", "  labelValue", "dashboards.labelValue has no comment", False),
                ("values.schema.json", '"pullPolicy": {"enum"', '"polPolicy": {"enum"', "which values.yaml doesn't have", False),
                ("values.schema.json", '"threads"', '"treads"', "values.schema.json isn't what", True),
                ("README.md", "How many postkeeperd", "How few postkeeperd", "README.md isn't what", True)):
            with self.subTest(new=new):
                kept = (self.chart / name).read_text(encoding="utf-8")
                self.edit(name, old, new)
                code, text = self.check()
                self.assertEqual(code, 1)
                self.assertIn(found, text)
                self.assertEqual(self.check("--fix")[0] == 0, is_fixed)
                (self.chart / name).write_text(kept, encoding="utf-8")
                self.check("--fix")
                self.assertEqual(self.check(), (0, ""))


if __name__ == "__main__":
    unittest.main()
