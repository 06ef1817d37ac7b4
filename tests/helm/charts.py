"""Renders the Helm chart and checks manifests, for tests: with helm where it is installed, else with render.go.

What has to be built or fetched (render.go's program; Kubernetes' types, from npm's registry) is kept in build/chart-tools.
"""

import os
import pathlib
import shutil
import subprocess
import tempfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/postkeeper"
HERE = pathlib.Path(__file__).resolve().parent
TOOLS = ROOT / "build/chart-tools"
VALUE_SETS = sorted(path.stem for path in (HERE / "values").glob("*.yaml"))
NAMESPACE = "queues"


class RenderError(Exception):
    """The chart refuses the values."""


def _run(*command, cwd=None, env=None, timeout=300):
    return subprocess.run(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=timeout)


def _renderer():
    """The program of render.go, built if it is older than its source."""
    source, program = HERE / "render.go", TOOLS / "render"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        TOOLS.mkdir(parents=True, exist_ok=True)
        env = {**os.environ, "GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOCACHE": str(TOOLS / "go-cache"),
               "GOFLAGS": ""}
        done = _run("go", "build", "-o", program, source, env=env)
        if done.returncode != 0:
            raise RuntimeError(f"render.go does not build:\n{done.stderr}")
    return program


def _helm(what, release, chart, values_file):
    if shutil.which("helm") is None:
        command = [_renderer(), what, release, chart]
    elif what == "notes":
        command = ["helm", "install", release, chart, "--dry-run=client"]
    else:
        command = ["helm", "template", release, chart]
    done = _run(*command, "--namespace", NAMESPACE, "--values", values_file)
    if done.returncode != 0:
        raise RenderError(done.stderr)
    return done.stdout


def value_set(name):
    return yaml.safe_load((HERE / f"values/{name}.yaml").read_text(encoding="utf-8"))


def render_text(values=None, release="pk", chart=CHART, what="template"):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        yaml.safe_dump(values or {}, file)
        file.flush()
        return _helm(what, release, chart, file.name)


def render(values=None, **more):
    """The manifests, as a list of maps."""
    return [manifest for manifest in yaml.safe_load_all(render_text(values, **more)) if manifest]


def notes(values=None):
    return render_text(values, what="notes")


def find(manifests, kind, name):
    found = [manifest for manifest in manifests if manifest["kind"] == kind and manifest["metadata"]["name"] == name]
    if len(found) != 1:
        raise AssertionError(f"{len(found)} of {kind} {name}: "
                             f"{[(manifest['kind'], manifest['metadata']['name']) for manifest in manifests]}")
    return found[0]


def container(manifest, name):
    return next(one for one in manifest["spec"]["template"]["spec"]["containers"] if one["name"] == name)


def _install_types():
    lock, installed = HERE / "package-lock.json", TOOLS / "package-lock.json"
    if installed.exists() and installed.read_bytes() == lock.read_bytes():
        return
    TOOLS.mkdir(parents=True, exist_ok=True)
    installed.unlink(missing_ok=True)
    staging = TOOLS / "npm"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    for name in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copy(HERE / name, staging / name)
    done = _run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=staging)
    if done.returncode != 0:
        raise RuntimeError(f"npm cannot fetch Kubernetes' types (it needs the network once):\n{done.stderr}")
    shutil.copy(lock, installed)


def complaints(documents):
    """What is wrong with these manifests (texts by name), by Kubernetes' own types; a list of lines, the last one counts."""
    _install_types()
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for name, text in documents.items():
            files.append(pathlib.Path(folder) / f"{name}.yaml")
            files[-1].write_text(text, encoding="utf-8")
        done = _run("node", HERE / "check_manifests.mjs", *files, cwd=TOOLS / "npm")
    if done.stderr or not done.stdout:
        raise RuntimeError(f"check_manifests.mjs: {done.stderr or 'says nothing'}")
    return done.stdout.splitlines()
