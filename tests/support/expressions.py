"""The expressions in the chart's alerts and dashboards, for tests."""

import json
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
ALERTS = sorted((ROOT / "helm/postkeeper/alerts").glob("*.yaml"))
DASHBOARDS = sorted((ROOT / "helm/postkeeper/dashboards").glob("*.json"))

METRIC = re.compile(r"\b(?:postkeeper|grpc_server|process)_[a-z0-9_]+\b")


def panels_of(dashboard):
    """All but the headings."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def dashboard_expressions():
    """(where it stands, expression with Grafana's variables) of all dashboards."""
    found = []
    for path in DASHBOARDS:
        for panel in panels_of(json.loads(path.read_text(encoding="utf-8"))):
            for target in panel["targets"]:
                found.append((f"{path.name}, {panel['title']}, {target['refId']}", target["expr"]))
    return found


def with_values(expression, queue="q", topic="t", rate="1m"):
    """As Grafana sends it when everything is chosen."""
    values = {"$namespace": ".*", "$instance": ".*", "$queue": queue, "$topic": topic, "$__rate_interval": rate}
    for variable, value in values.items():
        expression = expression.replace(variable, value)
    if "$" in expression:
        raise ValueError(f"a variable that nobody sets: {expression}")
    return expression


def metrics_in(text):
    return set(METRIC.findall(text))
