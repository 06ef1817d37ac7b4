#!/usr/bin/python3
"""Adds up the test reports in a folder: count_tests.py FOLDER. The last line printed is "N passed, N failed".

Each program of tests that ran left NAME.exit (its exit code) and, unless it died, NAME.json (GoogleTest's JSON report,
or the same counts from run_python_test.py). A program that died, or that failed although no test of it did (a leak
found at exit), counts as one more failure, by name. So does a skipped test: this project has none. Exit code 0 only
if something passed and nothing failed.
"""

import json
import pathlib
import sys


def gtest_skipped(report):
    return sum(test.get("result") == "SKIPPED" for suite in report.get("testsuites", [])
               for test in suite.get("testsuite", []))


def count(name, exit_code, report):
    """Returns passed, failed and what to tell about it. `report` is None when the program left none."""
    if report is None:
        return 0, 1, [f"{name} ended with exit code {exit_code} before it could report; its tests are not counted"]
    told = []
    skipped = report.get("skipped", 0) + report.get("disabled", 0) + gtest_skipped(report)
    failed = report["failures"] + report.get("errors", 0)
    passed = report["tests"] - failed - skipped
    if skipped:
        told.append(f"{name}: {skipped} skipped, counted as failed")
        failed += skipped
    if exit_code != 0 and failed == 0:
        told.append(f"{name}: every test passed, but the program ended with exit code {exit_code}")
        failed += 1
    return passed, failed, told


def read_report(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def main():
    folder = pathlib.Path(sys.argv[1])
    passed = failed = 0
    for exit_file in sorted(folder.glob("*.exit")):
        code = int(exit_file.read_text(encoding="utf-8"))
        more_passed, more_failed, told = count(exit_file.stem, code, read_report(exit_file.with_suffix(".json")))
        passed += more_passed
        failed += more_failed
        for line in told:
            print(line)
    if passed + failed == 0:
        print("no tests ran")
    print(f"{passed} passed, {failed} failed")
    return 0 if passed and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
