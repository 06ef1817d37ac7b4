"""How the examples of each language are built and started. What is built and fetched goes to build/examples/."""

import filecmp
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
BUILD = ROOT / "build/examples"
BUILD_TIMEOUT_S = 600


def run(*command, cwd=ROOT, **environment):
    done = subprocess.run([str(part) for part in command], cwd=cwd, env={**os.environ, **environment}, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=BUILD_TIMEOUT_S)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}")
    return done.stdout


class Python:
    name = "python"
    environment = {}

    def build(self):
        """The examples make their stubs by themselves."""

    def command(self, program):
        return [sys.executable, EXAMPLES / f"python/{program}.py"]


class Node:
    """npm compares what it fetches with the checksums in package-lock.json; nothing of it is run while it installs."""

    name = "node"
    modules = BUILD / "node"
    environment = {"NODE_PATH": str(modules / "node_modules")}

    def build(self):
        names = ("package.json", "package-lock.json", ".npmrc")
        installed, lock = self.modules / "installed.json", EXAMPLES / "node/package-lock.json"
        if installed.exists() and filecmp.cmp(lock, installed, shallow=False):
            return
        shutil.rmtree(self.modules, ignore_errors=True)
        self.modules.mkdir(parents=True)
        for name in names:
            shutil.copy(EXAMPLES / "node" / name, self.modules)
        run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retry-mintimeout=1000",
            "--fetch-retry-maxtimeout=5000", cwd=self.modules)
        shutil.copy(lock, installed)

    def command(self, program):
        return ["node", EXAMPLES / f"node/{program}.js"]


class Cpp:
    """Built as by somebody who has copied the folder and installed the package: against the protos that it installs."""

    name = "cpp"
    environment = {}
    work = BUILD / "cpp-installed"

    def build(self):
        source, protos = self.work / "source", self.work / "usr/share/postkeeper/protos"
        for original, copy in ((EXAMPLES / "cpp", source), (ROOT / "protos/postkeeper/v1", protos / "postkeeper/v1")):
            # With their times, so that only what has changed is built again.
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(original, copy)
        launcher = ["-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"] if shutil.which("ccache") else []
        # As in cmake/Toolchain.cmake and scripts/common.sh: one clone's build serves the next, and where ccache can't
        # write it stays out of the way.
        cache = {"CCACHE_BASEDIR": str(ROOT), "CCACHE_NOHASHDIR": "1",
                 "CCACHE_SLOPPINESS": "include_file_mtime,include_file_ctime"}
        if not self.has_cache_folder():
            cache = {"CCACHE_DISABLE": "1"}
        run("cmake", "-S", source, "-B", self.work / "build", "-G", "Ninja", f"-DPOSTKEEPER_PROTOS={protos}",
            "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror", *launcher, **cache)
        run("cmake", "--build", self.work / "build", "--parallel", "2", **cache)

    @staticmethod
    def has_cache_folder():
        home = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
        folder = pathlib.Path(os.environ.get("CCACHE_DIR") or home / "ccache")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return False
        return os.access(folder, os.W_OK)

    def command(self, program):
        return [self.work / "build" / program]


class Go:
    name = "go"
    environment = {}

    def build(self):
        run(EXAMPLES / "go/build.sh")

    def command(self, program):
        return [BUILD / "go/bin" / program]


class Java:
    name = "java"
    environment = {}

    def build(self):
        run(EXAMPLES / "java/build.sh")

    def command(self, program):
        return ["java", f"@{BUILD}/java/path", program.capitalize()]


def environment_of(language, server_environment):
    return {**server_environment, **language.environment, "PATH": os.environ["PATH"]}
