#!/usr/bin/env python3
"""Plant small faults into the package, one at a time, and count how many its tests notice.

    python tools/mutate.py --seed 1 --count 150 --json faults.jsonl

It works on a copy of the checkout in a temporary folder. First every test is run without a fault, and the functions
that it executes are recorded (minutes, or an hour on a busy machine; kept in faults.tests.jsonl for later starts). Then
each fault is tried against the tests that execute the faulty function, those that execute the fewest functions first,
until one of them fails: killed. A fault that no test on one rank notices is also tried on two ranks. Tests that run
too long or forever notice a fault too.

Results are appended to the file of --json, one line each. An interrupted start is continued by the same command.
Tests marked slurm or e2e, and those in tests/program that start the program, are left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from interpreter import HOME
from mutate_faults import Fault, draw, faults_of
from mutate_run import Runner
from mutate_tests import PACKAGE

# The last one runs whole iterations in the process of the test; what a test starts is not seen.
TESTS = ("tests/unit/test_*.py", "tests/slow/test_*.py", "tests/ranks/test_*.py", "tests/program/test_signatures.py")


@dataclass(frozen=True)
class Test:
    """A test that passes without a fault, on a number of ranks.

    Attributes:
        id: as pytest names it.
        seconds: of CPU time.
        functions: what it executes, "path:first line".
    """

    id: str
    seconds: float
    functions: frozenset[str]

    @property
    def file(self) -> str:
        return self.id.partition("::")[0]


def measured(runner: Runner, kept: Path, most_ranks: int) -> dict[int, list[Test]]:
    """Run every test without a fault; return the tests for each number of ranks.

    Args:
        kept: results of earlier starts; used where neither the tests nor the package has changed since.

    Raises:
        SystemExit: a test fails.
    """
    files = [path for pattern in TESTS for path in sorted(runner.copy.glob(pattern))]
    groups = [([str(file.relative_to(runner.copy))], 1) for file in files]
    if most_ranks > 1:
        groups.append(([name for (name,), _ in groups if name.startswith("tests/ranks")], 2))
    shared = [*(runner.copy / PACKAGE).rglob("*.py"), *(runner.copy / "tests/support").rglob("*.py")]
    earlier = {line["digest"]: line["tests"] for line in lines(kept)}
    tests: dict[int, list[Test]] = {1: [], 2: []}
    for names, ranks in groups:
        content = b"".join(path.read_bytes() for path in sorted([*shared, *(runner.copy / name for name in names)]))
        digest = hashlib.sha256(f"{names} {ranks}".encode() + content).hexdigest()
        if digest not in earlier:
            earlier[digest] = runner.record(names, ranks)
            append(kept, {"digest": digest, "tests": earlier[digest]})
            print(f"without a fault: {len(earlier[digest])} tests pass, {' '.join(names)}", flush=True)
        tests[ranks] += [Test(t["test"], t["seconds"], frozenset(t["functions"])) for t in earlier[digest]]
    return tests


def chosen(fault: Fault, tests: list[Test], limit_s: float) -> list[Test]:
    """Return the tests to try a fault against, for at most `limit_s` of CPU time in all.

    First come the tests that execute the faulty function, the most specific first. Other processes that tests start,
    and results that tests share, are not seen: so then come the other tests in files that name the module. Last, for
    code that no test is seen to execute, and code that an import executes, tests that execute another function of it;
    among these, those of which it is the largest part come first.
    """
    naming = files_that_name(fault.path, {test.file for test in tests})

    def place(test: Test) -> tuple[int, float]:
        if f"{fault.path}:{fault.function}" in test.functions:
            return 0, len(test.functions)
        share = sum(f.startswith(f"{fault.path}:") for f in test.functions) / max(1, len(test.functions))
        return 1 if test.file in naming else 2 if share else 3, -share

    found = sorted((test for test in tests if place(test)[0] < 3), key=place)
    if found and place(found[0])[0] == 0:
        found = [test for test in found if place(test)[0] < 2]
    total, within = 0.0, []
    for test in found:
        total += test.seconds
        if total <= limit_s or not within:
            within.append(test)
    return within


def files_that_name(path: str, files: set[str]) -> set[str]:
    """Return the test files that import a module of the package, or are named after it or its folder."""
    folder, module = Path(path).parent.name, Path(path).stem
    name = re.compile(rf"test_({folder}|{module})(_|\b)")
    words = re.compile(rf"\b{folder}\.{module}\b|\b{folder} import [^\n]*\b{module}\b")
    return {file for file in files if name.search(file) or words.search((HOME / file).read_text(encoding="utf-8"))}


def tried(runner: Runner, fault: Fault, tests: dict[int, list[Test]], limit_s: float) -> dict:
    """Plant a fault, run the tests, remove it. Return the line for the file of results."""
    started, n_tests, why = time.monotonic(), 0, ""
    with runner.planted(fault):
        for ranks in (1, 2):
            found = chosen(fault, tests[ranks], limit_s) if not why else []
            if ranks > 1:  # a start on several ranks is dear
                found = [test for test in found if f"{fault.path}:{fault.function}" in test.functions]
            if found:
                n_tests += len(found)
                why = runner.run([t.id for t in found], ranks, sum(t.seconds for t in found))
    result = {"result": "killed" if why else "survived", "by": why, "tests": n_tests}
    return {**dataclasses.asdict(fault), **result, "seconds": round(time.monotonic() - started, 1)}


def lines(file: Path) -> Iterator[dict]:
    """Read the complete lines of a JSON-lines file, none if it does not exist."""
    if file.exists():
        for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                yield json.loads(line)


def append(file: Path, line: dict) -> None:
    """Append a line, after a line that an interruption has cut."""
    cut = file.exists() and file.stat().st_size and not file.read_bytes().endswith(b"\n")
    if cut:
        file.write_bytes(file.read_bytes().rpartition(b"\n")[0] + b"\n")
    with file.open("a", encoding="utf-8") as opened:
        opened.write(json.dumps(line) + "\n")


def shown(result: dict) -> str:
    """Return a result in one line."""
    change = " ".join(f"{result['before']} -> {result['after']}".split())
    return f"{result['result']:8} {result['path']}:{result['line']} {result['kind']}: {change[:120]}  {result['by']}"


def report(results: list[dict]) -> str:
    """Return the survivors, and the shares of killed faults of each folder and of all."""
    n, n_killed = Counter(), Counter()
    for result in results:
        n[os.path.dirname(result["path"])] += 1
        n_killed[os.path.dirname(result["path"])] += result["result"] == "killed"
    survivors = [shown(result) for result in results if result["result"] != "killed"]
    folders = [f"{n_killed[folder]:4} of {n[folder]:4}  {folder}" for folder in sorted(n)]
    share = n_killed.total() / max(1, n.total())
    return "\n".join([*survivors, *folders, f"killed: {n_killed.total()} of {n.total()} ({share:.2f})"])


def key(fault: dict) -> tuple:
    return fault["path"], fault["start"], fault["stop"], fault["after"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="decides which faults are drawn (default: 1)")
    parser.add_argument("--count", type=int, default=150, help="number of faults (default: 150)")
    parser.add_argument("--json", type=Path, required=True, help="results, one line per fault; continued if it exists")
    parser.add_argument("--again", action="store_true", help="try the faults that survived again, e.g. with new tests")
    parser.add_argument("--ranks", type=int, choices=(1, 2), default=2, help="1: do not try faults on two ranks")
    parser.add_argument("--limit-s", type=float, default=40.0, help="CPU time of the tests for one fault (default: 40)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the copy is removed
    rng = random.Random(options.seed)
    paths = sorted(p for p in (HOME / PACKAGE).rglob("*.py") if not p.name.startswith("_"))
    every = [f for p in paths for f in faults_of(str(p.relative_to(HOME)), p.read_bytes(), rng)]
    faults = draw(every, options.count, rng)
    results = {key(line): line for line in lines(options.json)}
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        runner = Runner.copied(HOME, Path(folder))
        tests = measured(runner, options.json.with_suffix(".tests.jsonl"), options.ranks)
        for i, fault in enumerate(faults, 1):
            before = results.get(key(dataclasses.asdict(fault)), {}).get("result")
            if before == "killed" or (before == "survived" and not options.again):
                continue
            line = tried(runner, fault, tests, options.limit_s)
            results[key(line)] = line
            append(options.json, line)
            print(f"{i:4} {line['seconds']:6.1f} s  {shown(line)}", flush=True)
    print(f"{len(every)} faults are possible, {len(faults)} were drawn")
    print(report([results[key(dataclasses.asdict(fault))] for fault in faults]))


if __name__ == "__main__":
    main()
