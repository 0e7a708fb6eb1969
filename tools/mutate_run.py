"""For mutate.py: a copy of a checkout, faults planted in it, and runs of its tests.

The slow imports, those of libraries, are done once, in this process. Each run of tests on one rank is a fork of it, and
imports the package from the copy.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from mutate_faults import Fault
from mutate_tests import CHOSEN_IN, PACKAGE, RECORD_TO

PRELOADED = (
    "pytest", "numpy", "torch", "torch.distributed.fsdp", "transformers", "transformers.models.llama", "h5py",
    "hdf5plugin", "hydra", "pydantic", "scipy.stats", "sklearn.cluster", "sklearn.metrics", "matplotlib.figure",
    "sentence_transformers", "hypothesis", "pyarrow.parquet", "mpmath", "sympy", "peft",
)  # fmt: skip
OPTIONS = ("-q", "-p", "no:cacheprovider", "-p", "mutate_tests", "-m")
UNMARKED, RANKS = "not slurm and not e2e", "mpi"
SLOWER = 4.0  # times of CPU time that tests may take with a fault
WAITING = 15.0  # times of it that may pass, on a machine that does other work too
NO_TESTS = 5  # exit code of pytest
START_S = 30.0  # CPU time of a start
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
    "REQUIRE_SANDBOX": "1",  # a sandbox that a fault has broken is no reason to skip its tests
}  # fmt: skip


class Runner:
    """Runs tests in a copy of a checkout.

    Attributes:
        copy: the folder of the copy.
    """

    def __init__(self, copy: Path):
        self.copy = copy
        self._temporary = copy.parent / "temporary"
        os.environ |= ENVIRONMENT | {"PYTHONPATH": f"{copy}:{copy}/tools"}
        for name in PRELOADED:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        assert PACKAGE not in sys.modules, "the package is to be imported from the copy"

    @classmethod
    def copied(cls, checkout: Path, folder: Path) -> Runner:
        """Clone a checkout below `folder`, with its uncommitted changes and new files, and its .venv as a link."""
        copy = folder / "copy"
        subprocess.run(["git", "clone", "--quiet", str(checkout), str(copy)], check=True)
        git = ["git", "-C", str(checkout), "ls-files", "-z", "--modified", "--others", "--exclude-standard"]
        names = subprocess.run(git, check=True, capture_output=True, text=True).stdout.split("\0")
        for name in filter(None, names):
            (copy / name).unlink(missing_ok=True)
            if (checkout / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(checkout / name, copy / name, follow_symlinks=False)
        if (checkout / ".venv").exists() and not (copy / ".venv").exists():
            (copy / ".venv").symlink_to((checkout / ".venv").resolve())
        return cls(copy)

    @contextlib.contextmanager
    def planted(self, fault: Fault) -> Iterator[None]:
        """Have a fault in the copy, for as long as the context lasts."""
        file = self.copy / fault.path
        source, status = file.read_bytes(), file.stat()
        file.write_bytes(fault.applied(source))
        try:
            yield
        finally:
            file.write_bytes(source)
            os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # its compiled form is valid again

    def record(self, files: list[str], ranks: int) -> list[dict]:
        """Run all tests of some files and record what they execute (mutate_tests.Recorder), skipped tests left out.

        Raises:
            SystemExit: a test fails.
        """
        to = self._fresh() / "record"
        why = self._outcome([*OPTIONS, RANKS if ranks > 1 else UNMARKED, *files], ranks, {RECORD_TO: str(to)}, 600.0)
        if why and why != f"exit code {NO_TESTS}":  # all are marked slurm or e2e
            raise SystemExit(f"mutate: without a fault, {why} in {' '.join(files)}. Mend that first")
        merged: dict[str, dict] = {}
        for file in to.parent.glob("record.*"):
            for line in map(json.loads, file.read_text().splitlines()):
                if line.pop("outcome") == "passed":
                    known = merged.setdefault(line["test"], line)
                    known["seconds"] = max(known["seconds"], line["seconds"])
                    known["functions"] = sorted({*known["functions"], *line["functions"]})
        return [*merged.values()]

    def run(self, tests: list[str], ranks: int, expected_s: float) -> str:
        """Run tests until one fails. Return which, "too long" or how the run ended; "" if all pass.

        Args:
            tests: their ids, in the order in which they are to be run.
            expected_s: the CPU time that they take without a fault.
        """
        files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
        chosen = self._fresh() / "chosen"
        chosen.write_text(json.dumps(tests))
        arguments = ["-x", *OPTIONS, RANKS if ranks > 1 else UNMARKED, *files]
        # What a fault changes in the copy's compiled files must not outlive it.
        variables = {CHOSEN_IN: str(chosen), "PYTHONDONTWRITEBYTECODE": "1"}
        return self._outcome(arguments, ranks, variables, expected_s)

    def _fresh(self) -> Path:
        """Make an empty temporary folder; what earlier tests have left is removed."""
        shutil.rmtree(self._temporary, ignore_errors=True)
        shutil.rmtree(self.copy / ".hypothesis", ignore_errors=True)  # the inputs that failed with another fault
        self._temporary.mkdir(exist_ok=True)
        return self._temporary

    def _outcome(self, arguments: list[str], ranks: int, variables: dict[str, str], expected_s: float) -> str:
        log = self._temporary / "log"
        arguments = [f"--basetemp={self._temporary}/pytest", *arguments]
        limit_s = START_S + SLOWER * expected_s
        if ranks > 1:
            code = self._on_ranks(arguments, ranks, variables, log, limit_s)
        else:
            child = multiprocessing.get_context("fork").Process(
                target=_tests, args=(self.copy, arguments, variables, log, limit_s)
            )
            child.start()
            assert child.pid
            try:
                child.join(START_S + WAITING * expected_s + 60)
                code = child.exitcode
            finally:
                _kill(child.pid)  # with what its tests have left behind
                child.join()
        if code in (None, -signal.SIGXCPU):
            return "too long"
        seen = [line for line in log.read_text(errors="replace").splitlines() if line.startswith(("FAILED", "ERROR"))]
        return (" ".join([*seen, f"exit code {code}"][0].split())[:160]) if code else ""

    def _on_ranks(self, arguments: list[str], ranks: int, variables: dict[str, str], log: Path, limit_s: float):
        mpiexec = Path(sys.executable).with_name("mpiexec")
        command = [str(mpiexec), "-n", str(ranks), sys.executable, "-m", "mpi4py", "-m", "pytest", *arguments]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=self.copy, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, env={**os.environ, **variables},
            )  # fmt: skip
        try:
            return process.wait(limit_s * 4)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _kill(process.pid)
            process.wait()


def _kill(group: int) -> None:
    """End what is left of a process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _tests(copy: Path, arguments: list[str], variables: dict[str, str], log: Path, limit_s: float) -> None:
    """Run pytest in this process, and end it."""
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.chdir(copy)
    sys.path[:0] = [str(copy), str(copy / "tools")]
    sys.modules.pop("mutate_tests")  # imported again, from the copy
    os.environ |= variables
    sys.dont_write_bytecode = "PYTHONDONTWRITEBYTECODE" in variables
    resource.setrlimit(resource.RLIMIT_CPU, (int(limit_s), resource.getrlimit(resource.RLIMIT_CPU)[1]))
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdin = open(os.devnull)  # noqa: SIM115 - lives as long as the process
    code = importlib.import_module("pytest").main(arguments)
    sys.stdout.flush()
    os._exit(code)
