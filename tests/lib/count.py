#!/usr/bin/env python3
"""count.py FILE...: sums up JUnit files as "PASSED FAILED SKIPPED".

pytest writes one entry per test.  ctest writes one per program; where that is
a cmocka program its output says how many tests it ran, and those are counted; one
that prints "skipped: WHY" and ends well counts as such.
A file that is missing or broken is one failure.
"""
import re
import sys
import xml.etree.ElementTree as ElementTree

RAN = re.compile(r"\[=+\][^\n]*?(\d+) test\(s\) run")
PASSED = re.compile(r"\[  PASSED  \] (\d+) test\(s\)")
SKIPPED = re.compile(r"\[  SKIPPED \] (\d+) test\(s\)")


def total(pattern, output):
    return sum(int(n) for n in pattern.findall(output))


def count_case(case):
    """(passed, failed, skipped) of one entry."""
    output = case.findtext("system-out") or ""
    failed = case.find("failure") is not None or case.find("error") is not None
    if RAN.search(output):
        passed, skipped = total(PASSED, output), total(SKIPPED, output)
        rest = total(RAN, output) - passed - skipped
        return passed, max(rest, int(failed)), skipped
    if failed:
        return 0, 1, 0
    if case.find("skipped") is not None or output.startswith("skipped: "):
        return 0, 0, 1
    return 1, 0, 0


def count_file(path):
    try:
        cases = ElementTree.parse(path).iter("testcase")
        return [sum(column) for column in zip((0, 0, 0), *map(count_case, cases))]
    except (OSError, ElementTree.ParseError) as error:
        print(f"{path}: {error}", file=sys.stderr)
        return [0, 1, 0]


def main():
    counts = [sum(column) for column in zip((0, 0, 0), *map(count_file, sys.argv[1:]))]
    print(*counts)


if __name__ == "__main__":
    main()
