#!/usr/bin/python3
"""Adds up the test reports in a folder: count_tests.py FOLDER. The last line printed is "N passed, N failed".

Each program of tests that ran left NAME.exit (its exit code) and, unless it died, NAME.json (GoogleTest's JSON report,
or the same counts from run_python_test.py). A program that died, or that failed although no test of it did (a leak
found at exit), counts as one more failure, by name. So does a skipped test: this project has none. Exit code 0 only
if something passed and nothing failed.

Each failed test is named with what it said, so that the end of a log tells why. What failed while the machine stood still ran again, as a whole or only the tests that had failed, and left NAME.again.exit
and NAME.again.json: then that is what counts of them, and is told.

count_tests.py --failed REPORT prints GoogleTest's filter for the tests that failed in one of its reports; for all of them
if none did.
"""

import json
import pathlib
import sys

SHOWN_LINES = 20


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


def count_files(folder, name):
    code = int((folder / f"{name}.exit").read_text(encoding="utf-8"))
    report = read_report(folder / f"{name}.json")
    return (*count(name, code, report), report)


def failed_tests(report):
    """Name and messages of each, if the report tells (the simulator's doesn't: its traces do)."""
    for suite in (report or {}).get("testsuites", []):
        for test in suite.get("testsuite", []):
            if test.get("failures"):
                yield f"{suite['name']}.{test['name']}", "\n".join(failure["failure"] for failure in test["failures"])


def tell_failed(name, report):
    """At most SHOWN_LINES of each, the last ones: there a traceback says what went wrong."""
    for test, message in failed_tests(report):
        yield f"FAILED {name}: {test}"
        yield from (f"    {line}" for line in message.splitlines()[-SHOWN_LINES:])


def count_program(folder, name):
    """Passed, failed and what to tell, of a program and of its second run if there was one."""
    passed, failed, told, report = count_files(folder, name)
    again = f"{name}.again"
    told.extend(tell_failed(name, report))
    if not (folder / f"{again}.exit").exists():
        return passed, failed, told
    told.append(f"{name}: {failed} failed while the machine stood still, and ran again")
    again_passed, again_failed, again_told, again_report = count_files(folder, again)
    again_told.extend(tell_failed(again, again_report))
    if report is not None:  # else nothing of the first run counts
        again_passed = report["tests"] - again_failed
    return again_passed, again_failed, told + again_told


def failed_filter(report):
    return ":".join(test for test, _ in failed_tests(report)) or "*"


def main():
    if sys.argv[1] == "--failed":
        print(failed_filter(read_report(pathlib.Path(sys.argv[2]))))
        return 0
    folder = pathlib.Path(sys.argv[1])
    passed = failed = 0
    for name in sorted(path.stem for path in folder.glob("*.exit") if not path.stem.endswith(".again")):
        more_passed, more_failed, told = count_program(folder, name)
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
