"""./dev and scripts/packages.sh: what they do with packages present, missing, without root, on another system.

Everything runs on a PATH of its own: a few real tools, and fakes of dpkg-query, apt-get, id and cmake that write down
how they were called. DEV_OS_RELEASE, which only this test sets, stands in for /etc/os-release.
"""

import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
REAL_TOOLS = ("bash", "env", "awk", "cat", "cut", "dirname", "grep", "mkdir", "nproc", "sort", "sed")

FAKES = {
    # Knows every package but those in FAKE_MISSING; those in FAKE_REMOVED have left their configuration behind.
    "dpkg-query": """
for name in "$@"; do
  case "$name" in -*) continue ;; esac
  case " $FAKE_MISSING " in *" $name "*) echo "no packages found matching $name" >&2; code=1; continue ;; esac
  case " $FAKE_REMOVED " in *" $name "*) echo "$name config-files"; continue ;; esac
  echo "$name installed"
done
exit "${code:-0}"
""",
    "apt-get": 'echo "apt-get $*" >>"$FAKE_LOG"; exit "${FAKE_APT_EXIT:-0}"\n',
    "id": 'echo "${FAKE_UID:-0}"\n',
    "cmake": 'echo "cmake $*" >>"$FAKE_LOG"; exit "${FAKE_CMAKE_EXIT:-0}"\n',
}


class DevTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.bin = self.folder / "bin"
        self.bin.mkdir()
        for tool in REAL_TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool, path="/usr/bin:/bin"))
        for name, body in FAKES.items():
            self.add_command(name, body)
        self.log = self.folder / "log"
        self.log.write_text("")
        self.os_release = self.folder / "os-release"
        self.os_release.write_text('PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nID=debian\n')

    def add_command(self, name, body):
        path = self.bin / name
        path.write_text("#!/usr/bin/env bash\n" + body)
        path.chmod(0o755)

    def run_dev(self, *arguments, program="dev", **fakes):
        env = {"PATH": str(self.bin), "HOME": str(self.folder), "FAKE_LOG": str(self.log),
               "DEV_OS_RELEASE": str(self.os_release), "FAKE_MISSING": "", "FAKE_REMOVED": "", **fakes}
        return subprocess.run([ROOT / program, *arguments], env=env, stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=60)

    def calls(self):
        return self.log.read_text().splitlines()

    # With every package there, nothing is installed and nobody is asked for root.
    def test_all_packages_present(self):
        done = self.run_dev("build", FAKE_UID="1000")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([call for call in self.calls() if call.startswith("apt-get")], [])
        self.assertEqual(self.calls()[0], "cmake --preset release --log-level=WARNING")
        self.assertRegex(self.calls()[1],
                         r"^cmake --build --preset release --parallel \d+ --target postkeeperd postkeeper$")

    # Root gets exactly the missing packages; a package that was removed and left its configuration counts as missing.
    def test_root_installs_what_is_missing(self):
        done = self.run_dev("build", FAKE_MISSING="mold shellcheck", FAKE_REMOVED="cmake")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.calls()[:2], ["apt-get update", "apt-get install -y --no-install-recommends cmake mold"])
        self.assertIn("cmake --preset release --log-level=WARNING", self.calls())

    # Who isn't root is told the one line, and nothing is run.
    def test_without_root_says_what_to_type(self):
        done = self.run_dev("build", FAKE_MISSING="mold libasio-dev", FAKE_UID="1000")
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stdout, "")
        self.assertEqual(done.stderr, "Packages are missing. Install them with: sudo apt-get update && "
                         "sudo apt-get install -y --no-install-recommends libasio-dev mold\n")
        self.assertEqual(self.calls(), [])

    # A failing apt-get stops everything; the build doesn't begin on half the packages.
    def test_failed_installation_stops(self):
        done = self.run_dev("build", FAKE_MISSING="mold", FAKE_APT_EXIT="100")
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(self.calls(), ["apt-get update"])

    # Another system is turned away with one line that names it, whatever is installed there.
    def test_other_systems(self):
        for text, name in (('ID=ubuntu\nVERSION_ID="22.04"\n', "ubuntu 22.04"), ('ID=debian\nVERSION_ID="11"\n', "debian 11"),
                           ("ID=debian\n", "debian"), ("", "an unknown system")):
            self.os_release.write_text(text)
            for uid in ("0", "1000"):
                with self.subTest(system=name, uid=uid):
                    done = self.run_dev("build", FAKE_UID=uid, FAKE_MISSING="mold")
                    self.assertEqual(done.returncode, 1)
                    self.assertIn(f"./dev needs Debian 12; this is {name}.", done.stderr)
                    self.assertEqual(done.stderr.count("\n"), 1)
        self.os_release.unlink()
        self.assertIn("an unknown system", self.run_dev("build").stderr)
        self.assertEqual(self.calls(), [])

    # npm is wanted as a command, whichever package it came from.
    def test_command_stands_in_for_a_package(self):
        missing = self.run_dev("missing", "check", program="scripts/packages.sh", FAKE_MISSING="npm")
        self.assertEqual(missing.stdout, "npm\n")
        self.add_command("npm", "exit 0\n")
        missing = self.run_dev("missing", "check", program="scripts/packages.sh", FAKE_MISSING="npm")
        self.assertEqual((missing.returncode, missing.stdout), (0, ""))

    # A section that isn't in the list is an error, not an empty list.
    def test_unknown_section(self):
        done = self.run_dev("list", "run", "bild", program="scripts/packages.sh")
        self.assertEqual(done.returncode, 2)
        self.assertEqual(done.stderr, "packages.sh: no section [bild] in cmake/debian-packages.txt\n")

    # Only the sections asked for, without comments, each package once.
    def test_list(self):
        done = self.run_dev("list", "embedded", program="scripts/packages.sh")
        self.assertEqual(done.stdout, "default-jre-headless\nlibzookeeper-java\n")
        both = self.run_dev("list", "test", "check", program="scripts/packages.sh").stdout.split()
        self.assertEqual(both.count("python3"), 1)
        for name in both:
            self.assertRegex(name, r"^[a-z0-9][a-z0-9.+-]+$")

    # help explains each subcommand in one line, and knows every one that ./dev knows.
    def test_help(self):
        done = self.run_dev("help")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        for word in ("demo", "test", "build", "check", "fix", "cluster", "chaos", "bench", "package", "image", "nightly", "help"):
            self.assertRegex(done.stdout, rf"(?m)^  {word} +\S")

    # What isn't a subcommand gets the usage on stderr and exit code 2.
    def test_usage_errors(self):
        unknown = self.run_dev("biuld")
        self.assertEqual((unknown.returncode, unknown.stdout), (2, ""))
        self.assertIn('./dev: no subcommand "biuld"\nusage: ./dev', unknown.stderr)
        nothing = self.run_dev()
        self.assertEqual((nothing.returncode, nothing.stdout), (2, ""))
        self.assertTrue(nothing.stderr.startswith("usage: ./dev"))

    # A failing build fails ./dev, and says which step.
    def test_failed_build(self):
        done = self.run_dev("build", FAKE_CMAKE_EXIT="3")
        self.assertEqual(done.returncode, 3)
        self.assertIn("configure (failed)", done.stdout)
        self.assertEqual(len(self.calls()), 1)

    # Where ccache couldn't write, it is switched off instead of breaking the build.
    def test_ccache_without_a_home(self):
        self.add_command("cmake", 'echo "disabled=${CCACHE_DISABLE:-0}" >>"$FAKE_LOG"\n')
        self.run_dev("build", HOME="/proc/nowhere")
        self.assertEqual(self.calls()[-1], "disabled=1")
        self.run_dev("build")
        self.assertEqual(self.calls()[-1], "disabled=0")


if __name__ == "__main__":
    unittest.main()
