"""docs/ZOOKEEPER_FACTS.md names only tests that are there."""

import pathlib
import re
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent


def tests_that_are_there():
    """Suite.Name of the C++ tests, and the names of the Python tests."""
    found = set()
    for folder in ("tests", "zkstore"):
        for path in (ROOT / folder).rglob("*_test.cc"):
            pairs = re.findall(r"^TEST(?:_F|_P)?\((\w+), (\w+)\)", path.read_text(encoding="utf-8"), re.MULTILINE)
            found.update(f"{suite}.{name}" for suite, name in pairs)
        for path in (ROOT / folder).rglob("*.py"):
            found.update(re.findall(r"^    def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    return found


def tests_named(page):
    """`Suite.Name`, a later `.Name` of the same suite, and `test_name`."""
    suite = None
    for one_suite, name, python_name in re.findall(r"`(?:(\w*)\.([A-Z]\w+)|(test_\w+))`", page):
        if python_name:
            yield python_name
        else:
            suite = one_suite or suite
            yield f"{suite}.{name}"


class FactsTest(unittest.TestCase):
    # A test that is renamed or removed takes its line of the page with it.
    def test_every_test_named_is_there(self):
        named = set(tests_named((ROOT / "docs/ZOOKEEPER_FACTS.md").read_text(encoding="utf-8")))
        self.assertGreater(len(named), 30)
        self.assertEqual(named - tests_that_are_there(), set())


if __name__ == "__main__":
    unittest.main()
