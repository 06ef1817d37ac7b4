#!/usr/bin/python3
"""Runs the chart's Deployment with `podman kube play`: it serves a client, and stops in order.

Before it stands ZooKeeper from the dev image, with the zoo.cfg that the chart renders for one member. Then the script of
`helm test` runs in the small image. Each has an address of its own behind a bridge. All this is in a network namespace
made for it, so neither bridges nor rules are left behind in this machine's.

What differs from a cluster: one replica, since podman maps the ports of a pod to the host's; podman knows neither
status.podIP nor $(POD_IP), so the address is put in; and it doesn't ask the probes, so this asks what they would ask.

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
VERSION = (ROOT / "VERSION").read_text(encoding="utf-8").strip()
ZOOKEEPER, POD, WORK = "postkeeper-play-zookeeper", "pk-postkeeper-pod-0", "postkeeper-play-work"
SERVER = f"{POD}-postkeeperd"
# Of podman's default network.
ZOOKEEPER_IP, POD_IP = "10.88.0.10", "10.88.0.11"
os.environ["CONTAINERS"] = "podman"


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


def run_confined(*arguments):
    return containers("run", "--network", "podman", "--read-only", "--cap-drop", "ALL", *arguments)


def start_zookeeper(folder):
    """One member, with the chart's zoo.cfg and what the chart's command and the official image's entry point do."""
    manifests = charts.render({"zookeeper": {"replicas": 1}})
    text = charts.find(manifests, "ConfigMap", "pk-postkeeper-zookeeper")["data"]["zoo.cfg"]
    file = folder / "zoo.cfg"
    file.write_text(text, encoding="utf-8")
    file.chmod(0o644)
    folder.chmod(0o755)
    run_confined("--detach", "--name", ZOOKEEPER, "--ip", ZOOKEEPER_IP, "--tmpfs", "/data:mode=1777",
                 "--volume", f"{file}:/conf/zoo.cfg:ro", "--entrypoint", "bash", f"postkeeper:{VERSION}-dev",
                 "-c", "echo 1 >/data/myid; exec java -Xmx256m -XX:-UsePerfData -cp /usr/share/java/zookeeper.jar "
                 "org.apache.zookeeper.server.quorum.QuorumPeerMain /conf/zoo.cfg")


def manifests_to_play():
    """The ConfigMap and the Deployment."""
    manifests = charts.render({"replicas": 1, "zookeeper": {"hosts": f"{ZOOKEEPER_IP}:2181"}})
    deployment = charts.find(manifests, "Deployment", "pk-postkeeper")
    server = charts.container(deployment, "postkeeperd")
    variable = next(one for one in server["env"] if one["name"] == "POD_IP")
    assert variable.pop("valueFrom") == {"fieldRef": {"fieldPath": "status.podIP"}}
    variable["value"] = POD_IP
    server["args"] = [argument.replace("$(POD_IP)", POD_IP) for argument in server["args"]]
    work = charts.find(manifests, "Pod", "pk-postkeeper-test")["spec"]["containers"][0]
    return [charts.find(manifests, "ConfigMap", "pk-postkeeper"), deployment], work


def play(folder):
    start_zookeeper(folder)
    documents, work = manifests_to_play()
    # JSON is YAML.
    (folder / "play.yaml").write_text("\n---\n".join(json.dumps(document) for document in documents), encoding="utf-8")
    containers("kube", "play", "--network", "podman", "--ip", POD_IP, folder / "play.yaml")
    for probe in ("livenessProbe", "readinessProbe"):
        service = charts.container(documents[1], "postkeeperd")[probe]["grpc"]["service"]
        asked = ("--service", service) if service else ()
        until(lambda asked=asked: containers("exec", SERVER, "postkeeper", "health", *asked, check=False) == 0, probe)
    user = containers("exec", SERVER, "id", "-u").strip()
    assert user == "65532", user
    for folder_of_root in ("/etc/postkeeper", "/tmp", "/var/lib"):
        assert containers("exec", SERVER, "touch", f"{folder_of_root}/x", check=False) != 0, folder_of_root
    replicas = containers("exec", SERVER, "postkeeper", "cluster", "ls")
    assert f"{POD_IP}:7411" in replicas, replicas

    said = run_confined("--name", WORK, "--env", f"POSTKEEPER_ADDRESS={POD_IP}:7411", "--entrypoint",
                        json.dumps(work["command"]), f"postkeeper:{VERSION}")
    print(said, end="")
    assert "\npostkeeper serves\n" in said, said

    containers("stop", "--time", "40", SERVER)
    code = containers("inspect", "--format", "{{.State.ExitCode}}", SERVER).strip()
    assert code == "0", code


def clean_up():
    containers("pod", "rm", "--force", "--ignore", POD, check=False)
    containers("rm", "--force", "--ignore", "--volumes", WORK, ZOOKEEPER, check=False)
    containers("volume", "rm", "--force", "pk-postkeeper", check=False)  # of the ConfigMap


def build_images():
    subprocess.run(["bash", "-c", "source scripts/containers.sh; prepare_containers"], cwd=ROOT, check=True)
    if any(containers("image", "exists", name, check=False) != 0
           for name in (f"postkeeper:{VERSION}", f"postkeeper:{VERSION}-dev")):
        subprocess.run(["./dev", "image", "--build-only"], cwd=ROOT, check=True)


def main():
    if sys.argv[1:] != ["--inside"]:
        build_images()
        os.execvp("unshare", ["unshare", "--net", "--mount", sys.executable, __file__, "--inside"])
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
