#!/usr/bin/python3
"""The Grafana dashboards of the chart, from the lists below: dashboards.py check | write.

They are written as JSON to helm/postkeeper/dashboards; ./dev check compares, ./dev fix writes. Change them here: what was
changed in Grafana's editor and exported would be lost. tests/dashboards_test.py checks that each expression is one, and that
each metric exists.

In expressions, SELECTED stands for the labels that the variables choose, QUEUE and TOPIC for these and the one queue or
topic, and RATE for the range of rates.
"""

import json
import pathlib
import sys

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "helm/postkeeper/dashboards"

REPLACED = {
    "SELECTED": 'namespace=~"$namespace", instance=~"$instance"',
    "QUEUE": 'namespace=~"$namespace", instance=~"$instance", queue="$queue"',
    "TOPIC": 'namespace=~"$namespace", instance=~"$instance", topic="$topic"',
    "RATE": "$__rate_interval",
}

COLUMNS = 24
GRAPH_WIDTH, GRAPH_HEIGHT = 8, 8
STAT_WIDTH, STAT_HEIGHT = 4, 4
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

OUR_CALLS = 'grpc_service=~"postkeeper[.].*", SELECTED'


# ---- What a panel is

def row(title):
    return {"kind": "row", "title": title}


def graph(title, description, unit, *targets, **more):
    """`targets` are (expression, legend)."""
    return {"kind": "graph", "title": title, "description": description, "unit": unit, "targets": targets, **more}


def stat(title, description, unit, expression, bad_from=None, good_from=None):
    """A number; red from `bad_from` on, or below `good_from`."""
    return {"kind": "stat", "title": title, "description": description, "unit": unit, "targets": ((expression, ""),),
            "bad_from": bad_from, "good_from": good_from}


def quantiles(metric, labels, by="", *shares):
    """Targets for these shares of a histogram."""
    sum_by = f"le, {by}" if by else "le"
    legend = f"{{{{{by}}}}} " if by else ""
    return [(f"histogram_quantile({share}, sum by ({sum_by}) (rate({metric}_bucket{{{labels}}}[RATE])))",
             f"{legend}p{round(share * 100)}") for share in shares]


# ---- The dashboards

OVERVIEW = [
    stat("Replicas", "Replicas that are registered, as the one that sees most sees it.", "short",
         "max(postkeeper_replicas{SELECTED})", good_from=1),
    stat("Logs without owner", "Queues and topics that no replica works for. Calls for them wait.", "short",
         "sum(max by (namespace, job, kind) (postkeeper_logs{SELECTED})"
         " - sum by (namespace, job, kind) (postkeeper_logs_owned{SELECTED}))", bad_from=1),
    stat("Without ZooKeeper", "Replicas that have no session with ZooKeeper.", "short",
         "count(postkeeper_zookeeper_connected{SELECTED} == 0) or vector(0)", bad_from=1),
    stat("Ready messages", "Messages that wait for a consumer, in all queues.", "short",
         'sum(postkeeper_queue_messages{state="ready", SELECTED})'),
    stat("Oldest message", "Age of the oldest message that is not settled, in any queue.", "s",
         "max(postkeeper_queue_oldest_age_seconds{SELECTED})", bad_from=3600),
    stat("Failing calls", "Share of the calls that end with an error that is not the caller's.", "percentunit",
         f'sum(rate(grpc_server_handled_total{{grpc_type="unary", grpc_code=~"Unknown|Unavailable|Internal|DataLoss|'
         f'DeadlineExceeded", {OUR_CALLS}}}[RATE])) / (sum(rate(grpc_server_handled_total{{grpc_type="unary", {OUR_CALLS}}}'
         "[RATE])) > 0) or vector(0)", bad_from=0.05),

    row("Traffic"),
    graph("Messages", "What goes in and out, of all queues and topics.", "mps",
          ("sum(rate(postkeeper_queue_enqueued_messages_total{SELECTED}[RATE]))", "enqueued"),
          ("sum(rate(postkeeper_queue_delivered_messages_total{SELECTED}[RATE]))", "delivered"),
          ("sum(rate(postkeeper_queue_acked_messages_total{SELECTED}[RATE]))", "acked"),
          ("sum(rate(postkeeper_topic_published_messages_total{SELECTED}[RATE]))", "published"),
          ("sum(rate(postkeeper_topic_delivered_messages_total{SELECTED}[RATE]))", "sent to subscribers")),
    graph("Bytes written", "Bytes of messages that were written durably.", "Bps",
          ("sum(rate(postkeeper_queue_enqueued_bytes_total{SELECTED}[RATE]))", "queues"),
          ("sum(rate(postkeeper_topic_published_bytes_total{SELECTED}[RATE]))", "topics")),
    graph("Calls", "Calls begun, and streams opened, by method.", "reqps",
          (f"sum by (grpc_method) (rate(grpc_server_started_total{{{OUR_CALLS}}}[RATE])) > 0", "{{grpc_method}}")),
    graph("Open streams", "Streams that are open now, by method.", "short",
          (f'sum by (grpc_method) (postkeeper_calls_in_progress{{grpc_type!="unary", {OUR_CALLS}}})', "{{grpc_method}}")),
    graph("Messages in a batch", "Mean number of messages in one write to ZooKeeper: more is cheaper.", "short",
          ("sum(rate(postkeeper_batch_messages_sum{SELECTED}[RATE])) / sum(rate(postkeeper_batch_messages_count{SELECTED}"
           "[RATE]))", "messages")),
    graph("Relayed", "Calls and streams that came to a replica that does not work for their log, by how they ended.", "reqps",
          ("sum by (result) (rate(postkeeper_relayed_calls_total{SELECTED}[RATE]))", "calls {{result}}"),
          ("sum by (result) (rate(postkeeper_relayed_streams_total{SELECTED}[RATE]))", "streams {{result}}")),

    row("Errors"),
    graph("Calls that failed, by code", "Everything that did not end with OK; who has to act differs by code.", "reqps",
          (f'sum by (grpc_code) (rate(grpc_server_handled_total{{grpc_code!="OK", {OUR_CALLS}}}[RATE])) > 0',
           "{{grpc_code}}")),
    graph("Calls that failed, by method", "Share of the calls of each method that did not end with OK.", "percentunit",
          (f'sum by (grpc_method) (rate(grpc_server_handled_total{{grpc_code!="OK", {OUR_CALLS}}}[RATE])) / '
           f"(sum by (grpc_method) (rate(grpc_server_handled_total{{{OUR_CALLS}}}[RATE])) > 0)", "{{grpc_method}}")),
    graph("Messages again", "What consumers are given not for the first time, and why.", "mps",
          ("sum(rate(postkeeper_queue_redelivered_messages_total{SELECTED}[RATE]))", "redelivered"),
          ("sum by (kind) (rate(postkeeper_queue_nacked_messages_total{SELECTED}[RATE]))", "given back ({{kind}})"),
          ("sum(rate(postkeeper_queue_lapsed_leases_total{SELECTED}[RATE]))", "leases lapsed")),

    row("Latency"),
    graph("Calls, p99", "One call in a hundred takes longer. Dequeue may wait for messages.", "s",
          *quantiles("grpc_server_handling_seconds", f'grpc_type="unary", {OUR_CALLS}', "grpc_method", 0.99)),
    graph("Calls, median", "Half of the calls take longer.", "s",
          *quantiles("grpc_server_handling_seconds", f'grpc_type="unary", {OUR_CALLS}', "grpc_method", 0.5)),
    graph("Time in the queue", "From the append of a message to its ack, over all queues.", "s",
          *quantiles("postkeeper_queue_time_seconds", "SELECTED", "", 0.5, 0.99)),

    row("Saturation"),
    graph("Calls and streams of what is allowed", "At 100% a replica refuses further ones.", "percentunit",
          ('sum by (instance) (postkeeper_calls_in_progress{grpc_type="unary", SELECTED}) / '
           'on (instance) postkeeper_limit{limit="calls", SELECTED}', "{{instance}} calls"),
          ('sum by (instance) (postkeeper_calls_in_progress{grpc_type!="unary", SELECTED}) / '
           'on (instance) postkeeper_limit{limit="streams", SELECTED}', "{{instance}} streams")),
    graph("Stored bytes of what is allowed", "At 100% Enqueue and Publish are refused with STORE_FULL.", "percentunit",
          ('postkeeper_stored_bytes{SELECTED} / ignoring (limit) postkeeper_limit{limit="stored_bytes", SELECTED}',
           "{{instance}}")),
    graph("CPU", "Cores that each replica uses.", "short",
          ("rate(process_cpu_seconds_total{SELECTED}[RATE]) and on (instance) postkeeper_build_info", "{{instance}}")),
    graph("Memory", "Resident memory of each replica, without its embedded ZooKeeper.", "bytes",
          ("process_resident_memory_bytes{SELECTED} and on (instance) postkeeper_build_info", "{{instance}}")),
    graph("Open files of what is allowed", "Each connection is a file; at 100% no further one is accepted.", "percentunit",
          ("process_open_fds{SELECTED} / process_max_fds{SELECTED} and on (instance) postkeeper_build_info",
           "{{instance}}")),

    row("ZooKeeper"),
    graph("Requests", "Requests that ended, by operation.", "reqps",
          ("sum by (operation) (rate(postkeeper_zookeeper_requests_total{SELECTED}[RATE]))", "{{operation}}")),
    graph("Time of a request, p99", "One request in a hundred takes longer. Every Enqueue and every ack waits for a multi.",
          "s", *quantiles("postkeeper_zookeeper_request_seconds", "SELECTED", "operation", 0.99)),
    graph("Results other than ok", "no_node and bad_version belong to normal work; connection_loss does not.", "reqps",
          ('sum by (code) (rate(postkeeper_zookeeper_requests_total{code!="ok", SELECTED}[RATE]))', "{{code}}")),
    graph("Requests in flight", "Sent and not yet answered, by replica.", "short",
          ("postkeeper_zookeeper_requests_in_flight{SELECTED}", "{{instance}}")),
    graph("Watches", "Watches set by each replica, and logs that are polled since there is no room for one.", "short",
          ("postkeeper_zookeeper_watches{SELECTED}", "{{instance}} watches"),
          ("postkeeper_logs_polling{SELECTED}", "{{instance}} polled")),
    graph("Bytes of watched paths", "A client sends them all when it connects again; ZooKeeper takes at most 1 MiB.", "bytes",
          ("postkeeper_zookeeper_watched_path_bytes{SELECTED}", "{{instance}}")),
    graph("Sessions", "1 = the replica has a session; and sessions that expired.", "short",
          ("postkeeper_zookeeper_connected{SELECTED}", "{{instance}}"),
          ("increase(postkeeper_zookeeper_session_expirations_total{SELECTED}[RATE])", "{{instance}} expired")),

    row("Replicas and ownership"),
    graph("Logs owned", "Queues and topics that each replica works for.", "short",
          ("sum by (instance) (postkeeper_logs_owned{SELECTED})", "{{instance}}")),
    graph("Changes of ownership", "Logs that replicas have taken, taken again, handed over or lost.", "short",
          ("sum by (change) (increase(postkeeper_log_ownership_changes_total{SELECTED}[RATE]))", "{{change}}")),
    graph("Time without an owner", "From when the taker saw that a log had no owner to its serving it; and how much of it was "
          "loading.", "s",
          *quantiles("postkeeper_log_ownerless_seconds", "SELECTED", "", 0.5, 0.99),
          ("histogram_quantile(0.99, sum by (le) (rate(postkeeper_log_loading_seconds_bucket{SELECTED}[RATE])))",
           "loading p99")),
    graph("Replicas", "Registered, as each replica sees it, and of them those that it cannot reach.", "short",
          ("postkeeper_replicas{SELECTED}", "{{instance}} registered"),
          ("postkeeper_unreachable_replicas{SELECTED}", "{{instance}} unreachable")),
    graph("Uptime", "Since when each replica runs.", "s",
          ("time() - process_start_time_seconds{SELECTED} and on (instance) postkeeper_build_info", "{{instance}}")),
    graph("Versions", "Replicas by the version that they run.", "short",
          ("count by (version) (postkeeper_build_info{SELECTED})", "{{version}}")),
]

DRAIN_TIME = ('sum(postkeeper_queue_messages{state=~"ready|leased", QUEUE}) / '
              "(sum(rate(postkeeper_queue_acked_messages_total{QUEUE}[5m])) > 0)")

QUEUE = [
    stat("Ready", "Messages that wait for a consumer.", "short", 'sum(postkeeper_queue_messages{state="ready", QUEUE})'),
    stat("Leased", "Messages that consumers have and have not settled.", "short",
         'sum(postkeeper_queue_messages{state="leased", QUEUE})'),
    stat("Delayed", "Messages that are due later.", "short", 'sum(postkeeper_queue_messages{state="delayed", QUEUE})'),
    stat("Oldest message", "Age of the oldest message that is not settled.", "s",
         "max(postkeeper_queue_oldest_age_seconds{QUEUE})", bad_from=3600),
    stat("Time to drain", "How long what is there takes at the rate of the last five minutes; nothing while that is 0.", "s",
         DRAIN_TIME),
    stat("Consumers", "Consume streams that are open and Dequeue calls that wait.", "short",
         "sum(postkeeper_queue_consumers{QUEUE})"),

    row("Depth"),
    graph("Messages by state", "Ready, due later, and leased.", "short",
          ("sum by (state) (postkeeper_queue_messages{QUEUE})", "{{state}}"), stacked=True),
    graph("Bytes", "Of all messages in the queue.", "bytes", ("sum(postkeeper_queue_bytes{QUEUE})", "bytes")),
    graph("Oldest message", "Age of the oldest message that is not settled; it rises with the clock while one is stuck.", "s",
          ("max(postkeeper_queue_oldest_age_seconds{QUEUE})", "age")),

    row("Rates"),
    graph("Messages", "In, out, and done.", "mps",
          ("sum(rate(postkeeper_queue_enqueued_messages_total{QUEUE}[RATE]))", "enqueued"),
          ("sum(rate(postkeeper_queue_delivered_messages_total{QUEUE}[RATE]))", "delivered"),
          ("sum(rate(postkeeper_queue_acked_messages_total{QUEUE}[RATE]))", "acked")),
    graph("Bytes enqueued", "Bytes of messages that were written durably.", "Bps",
          ("sum(rate(postkeeper_queue_enqueued_bytes_total{QUEUE}[RATE]))", "enqueued")),
    graph("Time to drain", "How long what is there takes at the rate of the last five minutes.", "s", (DRAIN_TIME, "time")),
    graph("Time in the queue", "From the append of a message to its ack.", "s",
          *quantiles("postkeeper_queue_time_seconds", "QUEUE", "", 0.5, 0.9, 0.99)),
    graph("Dropped", "Messages that were purged.", "mps",
          ("sum(rate(postkeeper_queue_purged_messages_total{QUEUE}[RATE]))", "purged")),

    row("Retries"),
    graph("Why messages come back", "Given back as failed (retry) or untried (release), or not answered in time.", "mps",
          ("sum by (kind) (rate(postkeeper_queue_nacked_messages_total{QUEUE}[RATE]))", "{{kind}}"),
          ("sum(rate(postkeeper_queue_lapsed_leases_total{QUEUE}[RATE]))", "lease lapsed")),
    graph("Deliveries that are repeats", "Share of the deliveries that are not the first of their message.", "percentunit",
          ("sum(rate(postkeeper_queue_redelivered_messages_total{QUEUE}[RATE])) / "
           "(sum(rate(postkeeper_queue_delivered_messages_total{QUEUE}[RATE])) > 0)", "repeats")),

    row("Consumers"),
    graph("Consumers and credit", "All, and those that have credit left and would get the next message: idle workers. None "
          "of them while messages are ready: all are busy.", "short",
          ("sum(postkeeper_queue_consumers{QUEUE})", "consumers"),
          ("sum(postkeeper_queue_consumers_with_credit{QUEUE})", "with credit left")),
    graph("Leased messages for each consumer", "What one consumer holds on average.", "short",
          ('sum(postkeeper_queue_messages{state="leased", QUEUE}) / (sum(postkeeper_queue_consumers{QUEUE}) > 0)', "leased")),
]

TOPIC = [
    stat("Kept messages", "Messages that a new subscriber could still read.", "short",
         "sum(postkeeper_topic_messages{TOPIC})"),
    stat("Kept bytes", "Bytes of these.", "bytes", "sum(postkeeper_topic_bytes{TOPIC})"),
    stat("Published", "Messages published each second.", "mps",
         "sum(rate(postkeeper_topic_published_messages_total{TOPIC}[RATE]))"),
    stat("Subscribers", "Subscribe streams that are open.", "short", "sum(postkeeper_topic_subscribers{TOPIC})"),
    stat("Behind", "Subscribers that have not taken all there is.", "short",
         "sum(postkeeper_topic_subscribers_behind{TOPIC})"),

    row("Publishing"),
    graph("Messages", "Published, sent to all subscribers together, and forgotten by the retention.", "mps",
          ("sum(rate(postkeeper_topic_published_messages_total{TOPIC}[RATE]))", "published"),
          ("sum(rate(postkeeper_topic_delivered_messages_total{TOPIC}[RATE]))", "sent"),
          ("sum(rate(postkeeper_topic_trimmed_messages_total{TOPIC}[RATE]))", "forgotten")),
    graph("Bytes published", "Bytes of messages that were written durably.", "Bps",
          ("sum(rate(postkeeper_topic_published_bytes_total{TOPIC}[RATE]))", "published")),
    graph("Kept", "Messages that are kept.", "short", ("sum(postkeeper_topic_messages{TOPIC})", "messages")),

    row("Subscribers"),
    graph("Subscribers", "All, and those that have not taken all there is.", "short",
          ("sum(postkeeper_topic_subscribers{TOPIC})", "subscribers"),
          ("sum(postkeeper_topic_subscribers_behind{TOPIC})", "behind")),
    graph("Lag", "Age of what is being sent: how far behind the publishers the subscribers are. High too while one reads "
          "again what is old.", "s", *quantiles("postkeeper_topic_delivery_age_seconds", "TOPIC", "", 0.5, 0.99)),
    graph("Messages for each subscriber", "What one subscriber gets each second, on average.", "mps",
          ("sum(rate(postkeeper_topic_delivered_messages_total{TOPIC}[RATE])) / "
           "(sum(postkeeper_topic_subscribers{TOPIC}) > 0)", "messages")),
]

# name: (title, what it shows, variables besides those that all have, panels)
DASHBOARDS = {
    "overview": ("postkeeper: overview", "The whole service: traffic, errors, latency, saturation, ZooKeeper, replicas.", (),
                 OVERVIEW),
    "queue": ("postkeeper: queue", "One queue.", (("queue", "postkeeper_queue_bytes"),), QUEUE),
    "topic": ("postkeeper: topic", "One topic.", (("topic", "postkeeper_topic_bytes"),), TOPIC),
}


# ---- From the lists to Grafana's JSON

def replaced(expression):
    for word, text in REPLACED.items():
        expression = expression.replace(word, text)
    return expression


def thresholds(panel):
    steps = [{"color": "green", "value": None}]
    if panel.get("good_from") is not None:
        steps = [{"color": "red", "value": None}, {"color": "green", "value": panel["good_from"]}]
    if panel.get("bad_from") is not None:
        steps.append({"color": "red", "value": panel["bad_from"]})
    return {"mode": "absolute", "steps": steps}


def made_panel(number, panel, place):
    if panel["kind"] == "row":
        return {"id": number, "type": "row", "title": panel["title"], "collapsed": False, "gridPos": place, "panels": []}
    is_stat = panel["kind"] == "stat"
    defaults = {"unit": panel["unit"], "noValue": "no data", "min": 0, "thresholds": thresholds(panel)}
    if is_stat:
        defaults["color"] = {"mode": "thresholds"}
        options = {"colorMode": "value", "graphMode": "area", "justifyMode": "auto", "orientation": "auto",
                   "textMode": "auto", "wideLayout": True, "showPercentChange": False, "percentChangeColorMode": "standard",
                   "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
    else:
        defaults["color"] = {"mode": "palette-classic"}
        defaults["custom"] = {"drawStyle": "line", "fillOpacity": 10, "lineWidth": 1, "showPoints": "never",
                              "stacking": {"group": "A", "mode": "normal" if panel.get("stacked") else "none"}}
        options = {"legend": {"calcs": ["lastNotNull", "max"], "displayMode": "table", "placement": "bottom",
                              "showLegend": True},
                   "tooltip": {"mode": "multi", "sort": "desc"}}
    return {
        "id": number,
        "type": "stat" if is_stat else "timeseries",
        "title": panel["title"],
        "description": panel["description"],
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [{"refId": chr(ord("A") + i), "datasource": DATASOURCE, "editorMode": "code", "range": True,
                     "expr": replaced(expression), "legendFormat": legend or "__auto"}
                    for i, (expression, legend) in enumerate(panel["targets"])],
    }


def laid_out(panels):
    """With ids and places: from left to right, rows over the whole width."""
    made, x, y, height = [], 0, 0, 0
    for number, panel in enumerate(panels, 1):
        width, panel_height = {"row": (COLUMNS, 1), "stat": (STAT_WIDTH, STAT_HEIGHT),
                               "graph": (GRAPH_WIDTH, GRAPH_HEIGHT)}[panel["kind"]]
        if x + width > COLUMNS or panel["kind"] == "row":
            x, y, height = 0, y + height, 0
        made.append(made_panel(number, panel, {"x": x, "y": y, "w": width, "h": panel_height}))
        x, height = x + width, max(height, panel_height)
    return made


def label_variable(name, metric, label, selected="", is_multi=True):
    query = f"label_values({metric}{{{selected}}}, {label})"
    variable = {"name": name, "label": name, "type": "query", "datasource": DATASOURCE, "definition": query,
                "query": {"query": query, "refId": name}, "refresh": 2, "sort": 1, "multi": is_multi,
                "includeAll": is_multi}
    if is_multi:
        # Also where the label is not there, outside of Kubernetes.
        variable |= {"allValue": ".*", "current": {"selected": True, "text": "All", "value": "$__all"}}
    return variable


def dashboard(name):
    title, description, variables, panels = DASHBOARDS[name]
    namespace = 'namespace=~"$namespace"'
    listed = [{"name": "datasource", "label": "data source", "type": "datasource", "query": "prometheus"},
              label_variable("namespace", "postkeeper_build_info", "namespace"),
              label_variable("instance", "postkeeper_build_info", "instance", namespace)]
    listed += [label_variable(label, metric, label, namespace, is_multi=False) for label, metric in variables]
    return {
        "uid": f"postkeeper-{name}",
        "title": title,
        "description": f"{description} Made by tools/dashboards.py.",
        "tags": ["postkeeper"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "links": [{"title": "postkeeper", "type": "dashboards", "tags": ["postkeeper"], "asDropdown": True,
                   "icon": "external link", "includeVars": True, "keepTime": True, "targetBlank": False, "tooltip": "",
                   "url": ""}],
        "annotations": {"list": []},
        "templating": {"list": listed},
        "panels": laid_out(panels),
    }


def main():
    if sys.argv[1:] not in (["check"], ["write"]):
        print("usage: dashboards.py check|write", file=sys.stderr)
        return 2
    code = 0
    for name in DASHBOARDS:
        path = FOLDER / f"{name}.json"
        text = json.dumps(dashboard(name), indent=2) + "\n"
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        if sys.argv[1] == "write":
            path.write_text(text, encoding="utf-8")
        else:
            print(f"{path.name} is not what tools/dashboards.py makes; ./dev fix makes it anew")
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
