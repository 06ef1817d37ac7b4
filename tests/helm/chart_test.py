"""The Helm chart: what it renders is valid, hangs together, is taken by a real postkeeperd, and refuses wrong values."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

import charts  # noqa: E402
from postkeeperd import Postkeeperd, clean_environment, find_program  # noqa: E402

WORKLOADS = ("Deployment", "StatefulSet", "Pod")


def pod_of(manifest):
    """(labels, spec) of the pods of a workload."""
    template = manifest if manifest["kind"] == "Pod" else manifest["spec"]["template"]
    return template["metadata"]["labels"], template["spec"]


def port_names(pod):
    return {port["name"] for one in pod["containers"] for port in one.get("ports", [])}


class RenderedTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.texts = {name: charts.render_text(charts.value_set(name)) for name in charts.VALUE_SETS}
        cls.sets = {name: [one for one in charts.yaml.safe_load_all(text) if one] for name, text in cls.texts.items()}

    def each(self):
        self.assertGreaterEqual(len(self.sets), 9)
        for name, manifests in self.sets.items():
            with self.subTest(values=name):
                yield manifests

    # Every manifest of every set of values is one that Kubernetes knows: fields, types, what is required.
    def test_valid(self):
        lines = charts.complaints(self.texts)
        self.assertEqual(lines[:-1], [])
        self.assertGreater(int(lines[-1].split()[0]), 100)

    # The check of manifests finds what it is there to find.
    def test_check_has_teeth(self):
        good = self.texts["default"]
        for old, new, found in (("  minReadySeconds: 0", "  minReadySecond: 0", 'no field "minReadySecond"'),
                                ("  minReadySeconds: 0", "  minReadySeconds: soon", "has to be a number"),
                                ("      containers:\n        - name: postkeeperd", "      containers:\n        - nome: postkeeperd",
                                 "name"),
                                ("  selector:\n    matchLabels:", "  selekt:\n    matchLabels:", "selector"),
                                ("kind: PodDisruptionBudget", "kind: PodDisruptionBadget", "PodDisruptionBadget")):
            with self.subTest(new=new):
                self.assertIn(old, good)
                try:
                    lines = charts.complaints({"bad": good.replace(old, new)})
                except RuntimeError as error:
                    lines = [str(error), "1 complaint"]
                self.assertIn(found, "\n".join(lines[:-1]))

    # With no values: two replicas before an ensemble of three, and nothing of what is off by default.
    def test_default(self):
        kinds = sorted(manifest["kind"] for manifest in self.sets["default"])
        self.assertEqual(kinds, sorted(["ConfigMap"] * 2 + ["Deployment", "StatefulSet", "ServiceAccount", "Pod"] +
                                       ["PodDisruptionBudget"] * 2 + ["Service"] * 6))
        deployment = charts.find(self.sets["default"], "Deployment", "pk-postkeeper")
        ensemble = charts.find(self.sets["default"], "StatefulSet", "pk-postkeeper-zookeeper")
        self.assertEqual((deployment["spec"]["replicas"], ensemble["spec"]["replicas"]), (2, 3))
        claim = ensemble["spec"]["volumeClaimTemplates"][0]["spec"]
        self.assertEqual(claim["resources"]["requests"]["storage"], "10Gi")

    # With an ensemble of one's own nothing of ZooKeeper's is made.
    def test_external_zookeeper(self):
        manifests = self.sets["external_zookeeper"]
        self.assertNotIn("StatefulSet", [manifest["kind"] for manifest in manifests])
        self.assertEqual([one for one in manifests if "zookeeper" in one["metadata"]["name"]], [])
        arguments = charts.container(charts.find(manifests, "Deployment", "pk-postkeeper"), "postkeeperd")["args"]
        self.assertIn("--zookeeper=zk1.example:2181,zk2.example:2181,zk3.example:2181/queues", arguments)

    # Each selector finds the pods that it is meant for and no others; the ports that are named are there.
    def test_selectors(self):
        for manifests in self.each():
            pods = [pod_of(manifest) for manifest in manifests if manifest["kind"] in WORKLOADS]
            for manifest in manifests:
                spec, kind = manifest.get("spec", {}), manifest["kind"]
                if kind == "Service":
                    selector, ports = dict(spec["selector"]), [port["targetPort"] for port in spec["ports"]]
                    self.assertIn(selector.pop("statefulset.kubernetes.io/pod-name", manifest["metadata"]["name"]),
                                  manifest["metadata"]["name"])
                elif kind in ("PodDisruptionBudget", "Deployment", "StatefulSet"):
                    selector, ports = spec["selector"]["matchLabels"], []
                elif kind == "NetworkPolicy":
                    selector = spec["podSelector"]["matchLabels"]
                    ports = [port["port"] for rule in spec["ingress"] for port in rule["ports"]]
                else:
                    continue
                found = [(labels, pod) for labels, pod in pods if selector.items() <= labels.items()]
                self.assertEqual(len(found), 1, (kind, manifest["metadata"]["name"]))
                component = manifest["metadata"]["labels"]["app.kubernetes.io/component"]
                self.assertEqual(found[0][0]["app.kubernetes.io/component"], component)
                self.assertLessEqual(set(ports), port_names(found[0][1]))

    # A ServiceMonitor finds exactly one Service with a port of the name that it reads, so each replica is read once.
    def test_service_monitor(self):
        manifests = self.sets["everything_on"]
        spec = charts.find(manifests, "ServiceMonitor", "pk-postkeeper")["spec"]
        labels = spec["selector"]["matchLabels"].items()
        services = [one for one in manifests if one["kind"] == "Service" and labels <= one["metadata"]["labels"].items()
                    and spec["endpoints"][0]["port"] in [port["name"] for port in one["spec"]["ports"]]]
        self.assertEqual([one["metadata"]["name"] for one in services], ["pk-postkeeper-headless"])
        self.assertEqual(spec["namespaceSelector"]["matchNames"], [charts.NAMESPACE])

    # Each alert says where its page is: a path in the sources, behind the prefix that was given; and the page is there.
    def test_runbooks(self):
        for values, prefix in (({"prometheusRule": {"enabled": True}}, ""),
                               (charts.value_set("everything_on"), "https://git.example/tools/postkeeper/blob/main/")):
            groups = charts.find(charts.render(values), "PrometheusRule", "pk-postkeeper")["spec"]["groups"]
            rules = [rule for group in groups for rule in group["rules"]]
            self.assertGreater(len(rules), 10)
            for rule in rules:
                path = f"docs/runbooks/{rule['alert']}.md"
                self.assertEqual(rule["annotations"]["runbook_url"], prefix + path)
                self.assertTrue((charts.ROOT / path).is_file(), path)

    # No container may be root, write to its root file system or gain rights; none gets a token or the Services' variables.
    def test_confined(self):
        for manifests in self.each():
            for manifest in manifests:
                if manifest["kind"] not in WORKLOADS:
                    continue
                pod = pod_of(manifest)[1]
                self.assertTrue(pod["securityContext"]["runAsNonRoot"])
                self.assertEqual(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault")
                self.assertFalse(pod["automountServiceAccountToken"])
                self.assertFalse(pod["enableServiceLinks"])
                for one in pod["containers"]:
                    if one["name"] == "proxy":  # the user's own
                        continue
                    self.assertTrue(one["securityContext"]["readOnlyRootFilesystem"])
                    self.assertFalse(one["securityContext"]["allowPrivilegeEscalation"])
                    self.assertEqual(one["securityContext"]["capabilities"], {"drop": ["ALL"]})
                    self.assertIn("requests", one["resources"])

    # Pods are given time for more than the drain, and no longer accept calls long before they are restarted.
    def test_stopping(self):
        for manifests in self.each():
            for manifest in manifests:
                if manifest["kind"] == "Deployment":
                    text = next(one for one in manifests if one["kind"] == "ConfigMap")["data"]["postkeeper.toml"]
                    drain = re.search(r'drain-timeout = "(\d+)([sm])"', text)
                    drain_s = 25 if drain is None else int(drain[1]) * (60 if drain[2] == "m" else 1)
                    self.assertGreaterEqual(pod_of(manifest)[1]["terminationGracePeriodSeconds"], drain_s + 5)

    # Another setting replaces the pods; another release of the chart alone does not.
    def test_checksum(self):
        def template(values, kind="Deployment", name="pk-postkeeper", **more):
            return charts.find(charts.render(values, **more), kind, name)["spec"]["template"]

        self.assertNotEqual(template({})["metadata"]["annotations"],
                            template({"config": {"threads": "3"}})["metadata"]["annotations"])
        member = ("StatefulSet", "pk-postkeeper-zookeeper")
        self.assertNotEqual(template({}, *member)["metadata"]["annotations"],
                            template({"zookeeper": {"snapRetainCount": 4}}, *member)["metadata"]["annotations"])
        with tempfile.TemporaryDirectory() as folder:
            chart = pathlib.Path(folder) / "postkeeper"
            shutil.copytree(charts.CHART, chart)
            meta = (chart / "Chart.yaml").read_text(encoding="utf-8")
            (chart / "Chart.yaml").write_text(re.sub(r"(?m)^version: .*", "version: 99.0.0", meta), encoding="utf-8")
            for which in ((), member):
                self.assertEqual(template({}, *which), template({}, *which, chart=chart))

    # The heap follows from what may be stored, and memory from the heap.
    def test_heap(self):
        for values, heap, memory in ((None, "1518", "2153Mi"), ("one_node", "283", "609Mi"), ("large", "12000", "16Gi"),
                                     ({"config": {"stored-bytes-max": "4GiB"}}, "6894", "8873Mi"),
                                     ({"config": {"batch-bytes-max": "524288"}}, "2268", "3091Mi")):
            with self.subTest(values=values):
                given = charts.value_set(values) if isinstance(values, str) else values
                member = charts.container(charts.find(charts.render(given), "StatefulSet", "pk-postkeeper-zookeeper"),
                                          "zookeeper")
                self.assertEqual(next(one["value"] for one in member["env"] if one["name"] == "ZK_SERVER_HEAP"), heap)
                self.assertEqual(member["resources"]["limits"]["memory"], memory)

    # Names stay within what Kubernetes takes, however long the release's is.
    def test_long_names(self):
        for manifest in charts.render({}, release="a-release-with-a-name-that-is-much-too-long-here"):
            self.assertLessEqual(len(manifest["metadata"]["name"]), 63)

    # NOTES.txt names the address and the commands, and warns where something is left open.
    def test_notes(self):
        text = charts.notes({})
        self.assertIn("pk-postkeeper.queues.svc:7411", text)
        self.assertIn("helm test pk --namespace queues", text)
        self.assertIn("Nothing checks who calls", text)
        self.assertNotIn("Nothing checks who calls", charts.notes({"networkPolicy": {"enabled": True}}))
        self.assertIn("One ZooKeeper is for trying", charts.notes({"zookeeper": {"replicas": 1}}))

    # The chart has the version of the product.
    def test_version(self):
        meta = charts.yaml.safe_load((charts.CHART / "Chart.yaml").read_text(encoding="utf-8"))
        version = (charts.ROOT / "VERSION").read_text(encoding="utf-8").strip()
        self.assertEqual((meta["version"], meta["appVersion"]), (version, version))


class WrongValuesTest(unittest.TestCase):
    # What isn't a value, or not of its kind, is refused before anything is made; the message names it.
    def test_schema(self):
        for values, named in (({"replica": 3}, "replica"), ({"replicas": 0}, "replicas"), ({"replicas": "2"}, "replicas"),
                              ({"replicas": 2.5}, "replicas"),
                              ({"image": {"repository": "postkeeper:1"}}, "image.repository"),
                              ({"image": {"tag": 1.0}}, "image.tag"),
                              ({"image": {"pullPolicy": "Sometimes"}}, "image.pullPolicy"),
                              ({"config": {"drain-timeout": "25"}}, "drain-timeout"),
                              ({"config": {"threads": 4}}, "threads"), ({"config": {"thread": "4"}}, "thread"),
                              ({"config": {"listen": "0.0.0.0:1"}}, "listen"),
                              ({"config": {"stored-bytes-max": "1GB"}}, "stored-bytes-max"),
                              ({"config": {"log-format": "xml"}}, "log-format"),
                              ({"service": {"type": "ExternalName"}}, "service.type"),
                              ({"service": {"port": 70000}}, "service.port"),
                              ({"zookeeper": {"hosts": "zk1"}}, "zookeeper.hosts"),
                              ({"zookeeper": {"hosts": "zk1:2181, zk2:2181"}}, "zookeeper.hosts"),
                              ({"zookeeper": {"replicas": 2}}, "zookeeper.replicas"),
                              ({"zookeeper": {"snapRetainCount": 1}}, "zookeeper.snapRetainCount"),
                              ({"zookeeper": {"persistence": {"size": "10G"}}}, "zookeeper.persistence.size"),
                              ({"zookeeper": {"extraConfig": {"a": "b\nc=d"}}}, "zookeeper.extraConfig.a"),
                              ({"extraEnv": [{"value": "x"}]}, "extraEnv"), ({"extraEnv": {"A": "b"}}, "extraEnv"),
                              ({"podLabels": {"a": 1}}, "podLabels"), ({"tolerations": "all"}, "tolerations"),
                              ({"topologySpreadConstraints": [{"maxSkew": 1}]}, "topologySpreadConstraints"),
                              ({"podDisruptionBudget": {"maxUnavailable": "half"}}, "podDisruptionBudget.maxUnavailable"),
                              ({"serviceMonitor": {"interval": "often"}}, "serviceMonitor.interval"),
                              ({"prometheusRule": {"runbookUrlPrefix": "git.example/"}}, "prometheusRule.runbookUrlPrefix"),
                              ({"prometheusRule": {"runbookUrlPrefix": "https://git.example"}}, "runbookUrlPrefix"),
                              ({"dashboards": {"label": ""}}, "dashboards.label"),
                              ({"nameOverride": "Not_A_Name"}, "nameOverride")):
            with self.subTest(values=values):
                with self.assertRaises(charts.RenderError) as refused:
                    charts.render(values)
                self.assertIn("don't meet the specifications", str(refused.exception))
                self.assertIn(named, str(refused.exception))

    # So is what only fits each value by itself.
    def test_values_that_do_not_fit_together(self):
        for values, said in (({"config": {"drain-timeout": "40s"}}, "must be at least 5 above config.drain-timeout"),
                             ({"config": {"drain-timeout": "1m"}, "terminationGracePeriodSeconds": 64}, "(1m)"),
                             ({"zookeeper": {"heapMiB": 1000}}, "zookeeper.heapMiB (1000) must be at least 1518"),
                             ({"autoscaling": {"enabled": True, "minReplicas": 7}}, "more than autoscaling.maxReplicas")):
            with self.subTest(values=values):
                with self.assertRaises(charts.RenderError) as refused:
                    charts.render(values)
                self.assertIn(said, str(refused.exception))


class FilesTest(unittest.TestCase):
    """Dashboards and alerts that lie in the chart's folders."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.chart = pathlib.Path(folder.name) / "postkeeper"
        shutil.copytree(charts.CHART, self.chart, ignore=shutil.ignore_patterns("dashboards", "alerts"))
        self.values = {"prometheusRule": {"enabled": True}, "dashboards": {"enabled": True}}

    # Empty folders make nothing.
    def test_nothing_there(self):
        kinds = [manifest["kind"] for manifest in charts.render(self.values, chart=self.chart)]
        self.assertNotIn("PrometheusRule", kinds)
        self.assertEqual(kinds.count("ConfigMap"), 2)

    # A dashboard comes through as it is, braces and all; the groups of all files of alerts make one PrometheusRule.
    def test_some_there(self):
        dashboard = json.dumps({"title": "One queue", "legend": "{{instance}} {{ queue }}", "n": 1000000}, indent=2) + "\n"
        for name, text in (("dashboards/one_queue.json", dashboard),
                           ("alerts/queues.yaml", "groups: [{name: a, rules: [{alert: A, expr: up == 0, for: 5m, "
                            "annotations: {summary: '{{ $labels.queue }}'}}]}]"),
                           ("alerts/zookeeper.yaml", "groups: [{name: b, rules: [{alert: B, expr: up == 1}]}]")):
            (self.chart / name).parent.mkdir(exist_ok=True)
            (self.chart / name).write_text(text, encoding="utf-8")
        text = charts.render_text(self.values, chart=self.chart)
        self.assertEqual(charts.complaints({"files": text})[:-1], [])
        manifests = list(charts.yaml.safe_load_all(text))
        made = charts.find(manifests, "ConfigMap", "pk-postkeeper-one-queue")
        self.assertEqual(made["data"], {"one_queue.json": dashboard})
        self.assertEqual(made["metadata"]["labels"]["grafana_dashboard"], "1")
        self.assertEqual(made["metadata"]["annotations"], {"grafana_folder": "postkeeper"})
        groups = charts.find(manifests, "PrometheusRule", "pk-postkeeper")["spec"]["groups"]
        self.assertEqual([group["name"] for group in groups], ["a", "b"])
        self.assertEqual(groups[0]["rules"][0]["annotations"], {"summary": "{{ $labels.queue }}"})


class RealServerTest(unittest.TestCase):
    """What the chart hands to postkeeperd and asks of it, with a real one."""

    # For each set of values: the flags, the variables and the file that the chart gives are taken, and count.
    def test_configuration_is_taken(self):
        for name in charts.VALUE_SETS:
            with self.subTest(values=name), tempfile.TemporaryDirectory() as folder:
                values = charts.value_set(name)
                manifests = charts.render(values)
                config = next(one for one in manifests if "postkeeper.toml" in one.get("data", {}))["data"]
                file = pathlib.Path(folder) / "postkeeper.toml"
                file.write_text(config["postkeeper.toml"], encoding="utf-8")
                deployment = next(one for one in manifests if one["kind"] == "Deployment")
                server = charts.container(deployment, "postkeeperd")
                env = {one["name"]: one.get("value", "fd00::7" if "ipv6" == name else "10.0.0.7") for one in server["env"]}
                arguments = [argument.replace("$(POD_IP)", env["POD_IP"]) for argument in server["args"]]
                done = subprocess.run([find_program("postkeeperd"), *arguments, "--config", file, "--print-config"],
                                      env=clean_environment(**env), capture_output=True, text=True, timeout=60)
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                for flag, value in {**(values.get("config") or {})}.items():
                    if value is not None:
                        self.assertRegex(done.stdout, rf'(?m)^{flag} = "{re.escape(value)}" +# file$')
                for flag in ("listen", "metrics-listen", "advertise", "zookeeper"):
                    self.assertRegex(done.stdout, rf'(?m)^{flag} = ".*:.*" +# flag$')

    # The services that the probes ask for are there and serve, and the script of `helm test` passes and leaves nothing.
    def test_probes_and_helm_test(self):
        server = Postkeeperd()
        self.addCleanup(server.close)
        manifests = charts.render({})
        probed = charts.container(charts.find(manifests, "Deployment", "pk-postkeeper"), "postkeeperd")
        services = {probed[probe]["grpc"]["service"] for probe in ("readinessProbe", "livenessProbe")}
        self.assertEqual(services, {"", "liveness"})
        for service in services:
            server.cli("health", *(("--service", service) if service else ()))
        work = charts.find(manifests, "Pod", "pk-postkeeper-test")["spec"]["containers"][0]
        path = f"{os.path.dirname(find_program('postkeeper'))}:{os.environ['PATH']}"
        done = subprocess.run(work["command"], env={**server.environment(), "PATH": path}, capture_output=True, text=True,
                              timeout=120)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("postkeeper serves", done.stdout)
        self.assertEqual(server.cli("queue", "ls", "--output", "json").strip(), "")
        self.assertEqual(server.cli("topic", "ls", "--output", "json").strip(), "")


if __name__ == "__main__":
    unittest.main()
