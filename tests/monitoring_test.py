"""What the chart brings for Prometheus and Grafana: every expression is one and names metrics that there are, every alert
has its tests and its page, every panel tells what it shows. tests/nightly/dashboards.py asks a real Prometheus."""

import json
import pathlib
import re
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "support"))

from expressions import ALERTS, DASHBOARDS, ROOT, dashboard_expressions, metrics_in, panels_of, with_values  # noqa: E402
from metrics_page import documented_samples, promtool  # noqa: E402

ALERT_TESTS = sorted((ROOT / "tests/alerts").glob("*.yaml"))
COLUMNS = 24


def alerts():
    """{name: its part of the rule file}"""
    found = {}
    for path in ALERTS:
        for part in path.read_text(encoding="utf-8").split("- alert: ")[1:]:
            found[part.split("\n")[0]] = part
    return found


class AlertsTest(unittest.TestCase):
    # Prometheus reads the rules as they are, and each fires and keeps quiet as its tests say.
    def test_promtool_is_content(self):
        self.assertGreater(len(ALERTS) * len(ALERT_TESTS), 0)
        code, said = promtool("check", "rules", *map(str, ALERTS))
        self.assertEqual(code, 0, said)
        code, said = promtool("test", "rules", *map(str, ALERT_TESTS))
        self.assertEqual(code, 0, said)

    # Each alert has a test in which it fires, and one moment at which it does not.
    def test_each_alert_is_tested(self):
        tests = "".join(path.read_text(encoding="utf-8") for path in ALERT_TESTS)
        for name in alerts():
            self.assertRegex(tests, rf"alertname: {name}\n +exp_alerts: \[\]", name)
            self.assertRegex(tests, rf"alertname: {name}\n +exp_alerts:\n", name)

    # Each alert names a page that there is, and each page an alert.
    def test_each_alert_has_its_runbook(self):
        for name, part in alerts().items():
            self.assertIn(f"runbook_url: docs/runbooks/{name}.md\n", part)
            for annotation in ("summary:", "description:", "severity:"):
                self.assertIn(annotation, part)
        pages = {path.stem for path in (ROOT / "docs/runbooks").glob("*.md")} - {"README"}
        self.assertEqual(pages, set(alerts()))
        index = (ROOT / "docs/runbooks/README.md").read_text(encoding="utf-8")
        for name in alerts():
            self.assertIn(f"({name}.md)", index)

    # Rules and runbooks name only metrics that postkeeperd has.
    def test_every_metric_exists(self):
        known = documented_samples()
        for path in [*ALERTS, *(ROOT / "docs/runbooks").glob("*.md"), *ALERT_TESTS]:
            self.assertEqual(metrics_in(path.read_text(encoding="utf-8")) - known, set(), path.name)


class DashboardsTest(unittest.TestCase):
    # Prometheus takes every expression for one.
    def test_every_expression_parses(self):
        expressions = dashboard_expressions()
        self.assertGreater(len(expressions), 50)
        rules = {"groups": [{"name": "dashboards", "rules": [
            {"record": f"expression:{number}", "expr": with_values(expression)}
            for number, (_, expression) in enumerate(expressions)]}]}
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            json.dump(rules, file)  # which YAML can read
            file.flush()
            code, said = promtool("check", "rules", file.name)
        self.assertEqual(code, 0, said)

    # Dashboards show only what postkeeperd has.
    def test_every_metric_exists(self):
        known, queries = documented_samples(), []
        for where, expression in dashboard_expressions():
            self.assertEqual(metrics_in(expression) - known, set(), where)
        for path in DASHBOARDS:
            for variable in json.loads(path.read_text(encoding="utf-8"))["templating"]["list"]:
                if variable["type"] == "query":
                    queries.append(variable["definition"])
                    self.assertEqual(metrics_in(variable["definition"]) - known, set(), path.name)
        self.assertEqual(len(queries), 8)

    # A page that nobody scrapes is named by no panel or alert: what is measured is also looked at, or is left out here with
    # its reason.
    def test_what_is_measured_is_shown(self):
        unseen = {
            "grpc_server_msg_received_total", "grpc_server_msg_sent_total",  # for those who look into one stream
            "postkeeper_queue_deleted_messages_total", "postkeeper_topic_deleted_messages_total",  # gone with their series
            "postkeeper_batch_bytes", "process_virtual_memory_bytes",
        }
        shown = set()
        for text in [*(expression for _, expression in dashboard_expressions()),
                     *(path.read_text(encoding="utf-8") for path in ALERTS)]:
            shown |= {re.sub("_(bucket|sum|count)$", "", name) for name in metrics_in(text)}
        page = (ROOT / "docs/METRICS.md").read_text(encoding="utf-8")
        self.assertEqual(set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) - shown, unseen)

    # Every panel has a title, a description, a unit and something to say when there is nothing; none covers another.
    def test_panels_are_complete(self):
        for path in DASHBOARDS:
            dashboard = json.loads(path.read_text(encoding="utf-8"))
            covered, ids = set(), [panel["id"] for panel in dashboard["panels"]]
            self.assertEqual(len(set(ids)), len(ids))
            for panel in dashboard["panels"]:
                place = panel["gridPos"]
                self.assertLessEqual(place["x"] + place["w"], COLUMNS)
                cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                         for y in range(place["y"], place["y"] + place["h"])}
                self.assertFalse(cells & covered, panel["title"])
                covered |= cells
            for panel in panels_of(dashboard):
                defaults = panel["fieldConfig"]["defaults"]
                self.assertTrue(panel["title"] and panel["description"].endswith("."), panel["title"])
                self.assertTrue(defaults["unit"] and defaults["noValue"], panel["title"])
                self.assertTrue(panel["targets"], panel["title"])

    # The variables that people choose by.
    def test_variables(self):
        for path in DASHBOARDS:
            dashboard = json.loads(path.read_text(encoding="utf-8"))
            names = [variable["name"] for variable in dashboard["templating"]["list"]]
            wanted = ["datasource", "namespace", "instance"]
            self.assertEqual(names, wanted if path.stem == "overview" else wanted + [path.stem])
            self.assertEqual(dashboard["uid"], f"postkeeper-{path.stem}")


if __name__ == "__main__":
    unittest.main()
