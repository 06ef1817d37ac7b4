"""What postkeeperd serves for Prometheus, for tests."""

import pathlib
import re
import subprocess
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
SAMPLE = re.compile(r'^([a-z_][a-z0-9_]*)(?:\{(.*)\})? (\S+)$')
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')


class MetricsPage:
    """The page at one moment."""

    def __init__(self, text):
        self.text = text
        self.families = set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))
        self.samples = []
        for line in text.splitlines():
            if not line.startswith("#") and (match := SAMPLE.match(line)):
                self.samples.append((match[1], dict(LABEL.findall(match[2] or "")), float(match[3])))

    @classmethod
    def of(cls, server):
        """Of a Postkeeperd that was started with metrics_listen."""
        address = server.wait_for_log(r"\bmetrics=(\S+)")[1]
        # No proxy of the environment is on the way to it.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{address}/metrics", timeout=30) as answer:
            return cls(answer.read().decode())

    def sum(self, name, **labels):
        """Of all series that have these labels, whatever others they have; KeyError if there is none."""
        values = [value for sample, with_labels, value in self.samples
                  if sample == name and labels.items() <= with_labels.items()]
        if not values:
            raise KeyError(f"no {name} with {labels}")
        return sum(values)


def documented_metrics():
    """The names in docs/METRICS.md."""
    page = (ROOT / "docs/METRICS.md").read_text(encoding="utf-8")
    return set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))


def documented_samples():
    """The same as an expression may name them: a histogram by its parts."""
    page = (ROOT / "docs/METRICS.md").read_text(encoding="utf-8")
    names = set()
    for name, kind in re.findall(r"^\| `(\w+)` \| (\w+) \|", page, re.MULTILINE):
        names |= {f"{name}_{part}" for part in ("bucket", "count", "sum")} if kind == "histogram" else {name}
    return names


def promtool(*arguments, stdin=""):
    """(exit code, output) of Prometheus's own tool."""
    done = subprocess.run(["promtool", *arguments], input=stdin, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr
