"""For mutate.py: which functions of the package each test executes, and runs of chosen tests.

A plugin of pytest, configured by two environment variables. `RECORD_TO` names a file: each test appends a line to it
with the functions that it has executed, in its threads and forked processes too. `CHOSEN_IN` names a JSON list of test
ids: these tests alone are run, in this order.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import threading
from pathlib import Path

import pytest

RECORD_TO, CHOSEN_IN = "MUTATE_RECORD_TO", "MUTATE_CHOSEN_IN"
PACKAGE = "hpc_saidpo"


class Recorder:
    """Appends {"test", "seconds" of CPU time, "functions", "outcome"} to a file after each test.

    A function is "path:first line". A fixture that several tests share is executed once: its functions count as
    executed by each of these tests.
    """

    def __init__(self, root: Path, file: Path):
        self._package, self._n_root, self._file = f"{root}/{PACKAGE}/", len(f"{root}/"), file
        self._seen: set = set()
        self._calls = os.memfd_create("calls", os.MFD_CLOEXEC)
        fcntl.fcntl(self._calls, fcntl.F_SETFL, os.O_APPEND)
        self._shared: dict[str, set[str]] = {}
        self._outcome = ""

    def _trace(self, frame, event, argument):
        code = frame.f_code
        if code not in self._seen:
            self._seen.add(code)
            if code.co_filename.startswith(self._package):
                # Into a file, not into memory: forked processes write to it as well.
                os.write(self._calls, f"{code.co_filename[self._n_root :]}:{code.co_firstlineno}\n".encode())

    def _begin(self) -> None:
        self._seen.clear()
        os.ftruncate(self._calls, 0)
        threading.settrace(self._trace)
        sys.settrace(self._trace)

    def _end(self) -> set[str]:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]
        return set(os.pread(self._calls, 1 << 24, 0).decode().split("\n")) - {""}

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef, request):
        if fixturedef.scope == "function":
            return (yield)
        before = self._end()
        self._begin()
        try:
            return (yield)
        finally:
            self._shared[fixturedef.argname] = self._end()
            self._begin()
            os.write(self._calls, "\n".join([*before, ""]).encode())

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item):
        started, self._outcome = os.times(), "passed"
        self._begin()
        try:
            return (yield)
        finally:
            functions = self._end().union(*(self._shared.get(name, set()) for name in item.fixturenames))
            seconds = sum(os.times()[:4]) - sum(started[:4])
            line = {"test": item.nodeid, "seconds": round(seconds, 3), "outcome": self._outcome}
            with self._file.open("a") as file:
                file.write(json.dumps({**line, "functions": sorted(functions)}) + "\n")

    def pytest_runtest_logreport(self, report):
        if report.outcome != "passed":
            self._outcome = report.outcome


class Chooser:
    """Runs the tests of a list alone, in its order."""

    def __init__(self, chosen: list[str]):
        self._place = {test: i for i, test in enumerate(chosen)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        missing = self._place.keys() - {item.nodeid for item in items}
        if missing:  # a fault may change the names of tests: then it is noticed
            raise pytest.UsageError(f"{len(missing)} chosen tests do not exist, e.g. {sorted(missing)[0]}")
        items[:] = sorted((i for i in items if i.nodeid in self._place), key=lambda item: self._place[item.nodeid])


def pytest_configure(config):
    if RECORD_TO in os.environ:
        file = Path(f"{os.environ[RECORD_TO]}.{os.getpid()}")  # each rank has a file of its own
        config.pluginmanager.register(Recorder(config.rootpath, file))
    if CHOSEN_IN in os.environ:
        config.pluginmanager.register(Chooser(json.loads(Path(os.environ[CHOSEN_IN]).read_text())))
