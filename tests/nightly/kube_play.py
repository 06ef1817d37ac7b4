#!/usr/bin/python3
"""Runs the chart's Deployment as it is rendered, with `podman kube play`: it serves a client, and stops in order.

Before it stands ZooKeeper from the dev image, with the zoo.cfg that the chart renders for one member. Then the script of
`helm test` runs in the small image. All containers share one network namespace that has a loopback only, so nothing is
left behind in this machine's. Three things differ from a cluster: the image's name has "localhost/" before it, podman
knows no status.podIP, and it doesn't ask the probes; so this asks what they would ask.

Needs root. The images are built if they aren't there: ./dev image --build-only
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/helm"))

import charts  # noqa: E402

PATIENCE_S = 120
os.environ["CONTAINERS"] = "podman"
VERSION = (ROOT / "VERSION").read_text(encoding="utf-8").strip()
ZOOKEEPER, POD, WORK = "postkeeper-play-zookeeper", "pk-postkeeper-pod", "postkeeper-play-work"
SERVER = f"{POD}-postkeeperd"


def containers(*arguments, check=True):
    """podman as ./dev image uses it."""
    done = subprocess.run(["bash", "-c", "source scripts/containers.sh; containers \"$@\"", "containers", *map(str, arguments)],
                          cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, arguments))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout if check else done.returncode


def until(condition, what):
    give_up_at = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > give_up_at:
            raise AssertionError(f"not within {PATIENCE_S} s: {what}\n{containers('logs', SERVER)}")
        time.sleep(0.3)


def start_zookeeper(folder):
    """One member, with the chart's zoo.cfg and what the chart's command and the official image's entry point do."""
    manifests = charts.render({"zookeeper": {"replicas": 1}})
    text = charts.find(manifests, "ConfigMap", "pk-postkeeper-zookeeper")["data"]["zoo.cfg"]
    (folder / "zoo.cfg").write_text(text, encoding="utf-8")
    containers("run", "--detach", "--name", ZOOKEEPER, "--network", "none", "--read-only", "--cap-drop", "ALL",
               "--tmpfs", "/data:mode=1777", "--volume", f"{folder}/zoo.cfg:/conf/zoo.cfg:ro", "--entrypoint", "bash",
               f"postkeeper:{VERSION}-dev", "-c", "echo 1 >/data/myid; exec java -Xmx256m -XX:-UsePerfData "
               "-cp /usr/share/java/zookeeper.jar org.apache.zookeeper.server.quorum.QuorumPeerMain /conf/zoo.cfg")
    return containers("inspect", "--format", "{{.State.Pid}}", ZOOKEEPER).strip()


def manifests_to_play():
    """The ConfigMap and the Deployment."""
    values = {"zookeeper": {"hosts": "127.0.0.1:2181"}, "image": {"repository": "localhost/postkeeper"}}
    manifests = charts.render(values)
    deployment = charts.find(manifests, "Deployment", "pk-postkeeper")
    for variable in charts.container(deployment, "postkeeperd")["env"]:
        if variable["name"] == "POD_IP":
            assert variable.pop("valueFrom") == {"fieldRef": {"fieldPath": "status.podIP"}}
            variable["value"] = "127.0.0.1"
    work = charts.find(manifests, "Pod", "pk-postkeeper-test")["spec"]["containers"][0]
    return [charts.find(manifests, "ConfigMap", "pk-postkeeper"), deployment], work


def play(folder):
    namespace = f"ns:/proc/{start_zookeeper(folder)}/ns/net"
    documents, work = manifests_to_play()
    # JSON is YAML.
    (folder / "play.yaml").write_text("\n---\n".join(json.dumps(document) for document in documents), encoding="utf-8")
    containers("kube", "play", "--network", namespace, folder / "play.yaml")
    for probe in ("readinessProbe", "livenessProbe"):
        service = charts.container(documents[1], "postkeeperd")[probe]["grpc"]["service"]
        asked = ("--service", service) if service else ()
        until(lambda asked=asked: containers("exec", SERVER, "postkeeper", "health", *asked, check=False) == 0, probe)
    user = containers("exec", SERVER, "id", "-u").strip()
    assert user == "65532", user
    assert containers("exec", SERVER, "touch", "/etc/postkeeper/x", check=False) != 0
    assert containers("exec", SERVER, "touch", "/tmp/x", check=False) != 0
    replicas = containers("exec", SERVER, "postkeeper", "cluster", "ls")
    assert "127.0.0.1:7411" in replicas, replicas

    said = containers("run", "--name", WORK, "--network", namespace, "--read-only", "--cap-drop", "ALL",
                      "--env", "POSTKEEPER_ADDRESS=127.0.0.1:7411", "--entrypoint", json.dumps(work["command"]),
                      f"localhost/postkeeper:{VERSION}")
    print(said, end="")
    assert said.endswith("postkeeper serves\n"), said

    containers("stop", "--time", "40", SERVER)
    assert containers("inspect", "--format", "{{.State.ExitCode}}", SERVER).strip() == "0"


def clean_up():
    containers("pod", "rm", "--force", POD, check=False)
    containers("rm", "--force", "--volumes", WORK, ZOOKEEPER, check=False)
    containers("volume", "rm", "--force", "pk-postkeeper", check=False)  # of the ConfigMap


def main():
    subprocess.run(["bash", "-c", "source scripts/containers.sh; prepare_containers"], cwd=ROOT, check=True)
    if any(containers("image", "inspect", name, check=False) != 0
           for name in (f"postkeeper:{VERSION}", f"postkeeper:{VERSION}-dev")):
        subprocess.run(["./dev", "image", "--build-only"], cwd=ROOT, check=True)
    clean_up()
    with tempfile.TemporaryDirectory() as folder:
        try:
            play(pathlib.Path(folder))
        finally:
            clean_up()
    print("the Deployment of the chart serves, as podman plays it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
