#!/usr/bin/python3
"""Runs one file of unittest tests and writes how many passed: run_python_test.py FILE REPORT.

The report is the part of GoogleTest's JSON report that count_tests.py reads; of its tests only those that failed. Exit code 0 if all passed.
"""

import importlib.util
import json
import os
import sys
import traceback
import unittest


class CountingResult(unittest.TextTestResult):
    """Counts tests, not events: a test with three failing subtests, or that fails and then fails to clean up, is one."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.finished = set()
        self.failed = {}  # what each said
        self.skipped_tests = set()

    def stopTest(self, test):
        super().stopTest(test)
        self.finished.add(test.id())

    def addError(self, test, err):
        super().addError(test, err)
        self.note_failure(test, err)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.note_failure(test, err)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.note_failure(test, err)

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.failed.setdefault(test.id(), []).append("succeeded, and should not have")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.skipped_tests.add(test.id())

    def note_failure(self, test, err):
        self.failed.setdefault(test.id(), []).append("".join(traceback.format_exception(*err)))


def report_of(result):
    # What fails outside a test (setUpModule, setUpClass) has no stopTest.
    ran = result.finished | result.failed.keys() | result.skipped_tests
    suites = {}
    for name, messages in sorted(result.failed.items()):
        suite, _, test = name.rpartition(".")
        suites.setdefault(suite, []).append({"name": test, "failures": [{"failure": message} for message in messages]})
    return {"tests": len(ran), "failures": len(result.failed), "skipped": len(result.skipped_tests - result.failed.keys()),
            "testsuites": [{"name": suite, "testsuite": tests} for suite, tests in suites.items()]}


def load(path):
    """Imports the file under its own name, with its folder importable, as `python3 FILE` would."""
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return unittest.defaultTestLoader.loadTestsFromModule(module)


def main():
    path, report = sys.argv[1:]
    runner = unittest.TextTestRunner(verbosity=2, resultclass=CountingResult)
    result = runner.run(load(path))
    counts = report_of(result)
    with open(report, "w", encoding="utf-8") as out:
        json.dump(counts, out)
    return 0 if counts["tests"] and not counts["failures"] else 1


if __name__ == "__main__":
    sys.exit(main())
