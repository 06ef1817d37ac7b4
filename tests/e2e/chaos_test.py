"""Promises are kept on a real cluster under real faults: 90 seconds of ./dev chaos, with at least ten faults."""

import pathlib
import shutil
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

import chaos  # noqa: E402

SECONDS, FAULTS_MIN = 90, 10
# The same faults each time, at least as far as a machine is quick enough; ./dev nightly takes new ones.
SEED = 1


class ChaosTest(unittest.TestCase):
    # No promise is broken, every kind of fault took effect, and every checker had something to judge. Nothing here is
    # measured in time: a slow machine makes a longer run.
    def test_promises_under_faults(self):
        told = []
        result = chaos.run(SECONDS, SEED, FAULTS_MIN, tell=told.append)
        chaos.tell_result(result, told.append)
        self.assertTrue(result.is_good, "\n".join(told))
        shutil.rmtree(result.folder)


if __name__ == "__main__":
    unittest.main()
