"""Arguments, environment, turns, memory, tables and JSON of all benchmarks.

A benchmark imports this module right after the standard library and calls `start()` before it imports anything else.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import kept

HOME = Path(__file__).resolve().parents[2]
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
PEAK, NOW = "VmHWM", "VmRSS"  # in /proc/self/status
T = TypeVar("T")


def start(*packages: str, threads: int | None = None) -> None:
    """Prepare this process: the right Python, the checkout's package, no network, a number of threads.

    Args:
        packages: what the benchmark needs besides the project's requirements.
        threads: of numerical libraries; None: as many as they choose.
    """
    sys.path.insert(0, str(HOME / "tools"))
    import interpreter

    interpreter.require(*packages)
    if threads is not None:
        os.environ.update(dict.fromkeys(THREADS, str(threads)))
    import hpc_saidpo.cli.environment  # noqa: F401 - the environment variables of a run, offline mode among them


def parser(
    description: str | None, quick: str, repeats: int | None = None, quick_repeats: int = 1
) -> argparse.ArgumentParser:
    """The arguments that every benchmark has.

    Args:
        description: the benchmark's docstring.
        quick: what --quick does.
        repeats: number of repeats without --quick; None: the benchmark has none.
    """
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help=quick)
    made.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE too, as one flat object")
    made.add_argument("--record", action="store_true", help="keep the figures in tools/bench/results/, for comparison")
    if repeats is not None:
        made.add_argument(
            "--repeats", type=positive, help=f"of each case (default: {repeats}, with --quick {quick_repeats})"
        )
        made.set_defaults(default_repeats=(repeats, quick_repeats))
    return made


def positive(word: str) -> int:
    """A number of things of which at least one is needed, from the command line."""
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is not a whole number above 0")
    return int(word)


def repeats_of(arguments: argparse.Namespace) -> int:
    """Number of repeats: as requested, or the benchmark's default."""
    return arguments.repeats or arguments.default_repeats[arguments.quick]


def in_turn(cases: Mapping[str, Callable[[int], T]], repeats: int) -> dict[str, list[T]]:
    """Results of each case, one for each repeat. Each repeat runs every case once, so that all meet the same load.

    A case is called with the number of the repeat.
    """
    results: dict[str, list[T]] = {name: [] for name in cases}
    for repeat in range(repeats):
        for name, case in cases.items():
            results[name].append(case(repeat))
    return results


def cpu_s(action: Callable[[], T]) -> tuple[float, T]:
    """CPU-seconds of this process during an action, and the action's result."""
    started = time.process_time()
    result = action()
    return time.process_time() - started, result


def wall_s(action: Callable[[], T]) -> tuple[float, T]:
    """Seconds on the clock during an action, and the action's result."""
    started = time.perf_counter()
    result = action()
    return time.perf_counter() - started, result


def medians(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The median of each case."""
    return {name: statistics.median(some) for name, some in values.items()}


def memory_gib(key: str = PEAK) -> float:
    """Memory of this process, GiB: its peak so far (since `reset_peak`), or with NOW at this moment."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[key].split()[0]) / 2**20


def reset_peak() -> None:
    """Let the peak of this process's memory count from here."""
    Path("/proc/self/clear_refs").write_text("5")


def in_new_process(script: str, *words: object, **environment: str) -> str:
    """The last line that a benchmark prints when it is started with these arguments.

    Raises:
        SystemExit: it failed; the message is its output.
    """
    return _last_line([sys.executable, script, *words], environment)


def on_ranks(script: str, n_ranks: int, *words: object, **environment: str) -> str:
    """The last line that a benchmark prints on new MPI ranks. Raises: as `in_new_process`."""
    launcher = Path(sys.executable).parent / "mpiexec"
    line = [launcher if launcher.exists() else "mpiexec", "-n", n_ranks, sys.executable, "-m", "mpi4py", script, *words]
    return _last_line(line, {**dict.fromkeys(THREADS[:2], "1"), **environment})


def _last_line(line: Iterable[object], environment: Mapping[str, str]) -> str:
    words = list(map(str, line))
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout.splitlines()[-1]


def show_figures(figures: Mapping[str, float | str | None], width: int = 38) -> None:
    """Print every figure by its name."""
    print()
    for name, value in figures.items():
        print(f"{name:{width}}{value if isinstance(value, str | None) else format(value, '12.4g')}")


def write_figures(figures: Mapping[str, float | str | None], arguments: argparse.Namespace, name: str = "") -> None:
    """Compare the figures with the kept ones, and write them where the arguments say so; those not finite become null.

    Args:
        arguments: of `parser`.
        name: of the kept file; empty: the benchmark's.
    """
    plain = {figure: value if is_finite(value) else None for figure, value in figures.items()}
    name = name or Path(sys.argv[0]).stem
    if not arguments.quick:
        kept.show_moved(name, plain)
        if arguments.record:
            kept.record(name, plain)
    if arguments.json:
        arguments.json.write_text(json.dumps(plain, indent=1) + "\n")


def is_finite(value: float | str | None) -> bool:
    """Whether JSON has a word for the value: it has none for infinity and not-a-number."""
    return not isinstance(value, float) or math.isfinite(value)
