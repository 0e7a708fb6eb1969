#!/usr/bin/env python3
"""Measure what starting costs: CPU-seconds of one rank, and file-system calls.

    tools/bench/bench_start.py --quick
    tools/bench/bench_start.py --json bench.json

CPU-seconds (user and system, children included; medians of the repeats, cases in turn, the first start of each left
out) of:

- misspelt_s: the program with a misspelt key;
- help_s: its `--help`;
- settings_s: `import hpc_saidpo.settings`;
- submit_s: `tools/submit.py clusters --dry-run`, 15 lines;
- finished_s: a start of a run that is finished (`experiment=tiny` on 60 questions, one iteration).

file_calls_start: file-system calls of such a start that name a file, by `strace -f`; only where strace is installed.
file_calls_start_image: those that do not go to the environment, when a job has unpacked it on its node
(`tools/setup.sh --tar`, env.SAIDPO_IMAGE): what the shared file system sees of such a start.
Each is compared with its limit; the exit code is 1 when one is exceeded. --quick: one repeat.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import common

common.start()

LIMITS = {
    "misspelt_s": 0.6, "help_s": 0.5, "settings_s": 0.4, "submit_s": 2.0, "finished_s": 5.0, "file_calls_start": 60_000,
    "file_calls_start_image": 20_000,
}  # fmt: skip
_CALL = re.compile(r"\d+ +\w+\(")  # a line of strace; not "... resumed", and no signal
PROGRAM = (sys.executable, "-m", "hpc_saidpo")
TINY = (
    "experiment=tiny", "pool.n=60", "pool.held_out=8", "sampler.n_questions=16", "clusters.n=3", "rollouts.k=4",
    "rollouts.max_new_tokens=24", "loop.iterations=1", "run.threads=1",
)  # fmt: skip


def main() -> int:
    arguments = common.parser(__doc__, "one repeat", repeats=5).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tiny = (*PROGRAM, *TINY, f"run.root={folder}")
        run(tiny, (0,))  # a run that ends for lack of pairs is not finished, and starts with more imports
        cases = {
            "misspelt_s": lambda _: cpu_s((*PROGRAM, "experiment=tiny", "sampler.alhpa=1"), (2,)),
            "help_s": lambda _: cpu_s((*PROGRAM, "--help")),
            "settings_s": lambda _: cpu_s((sys.executable, "-c", "import hpc_saidpo.settings")),
            "submit_s": lambda _: cpu_s(("tools/submit.py", "clusters", "--dry-run", "--", "experiment=tiny")),
            "finished_s": lambda _: cpu_s(tiny),
        }
        common.in_turn(cases, 1)  # byte code and caches
        figures: dict[str, float] = common.medians(common.in_turn(cases, common.repeats_of(arguments)))
        if shutil.which("strace"):
            figures["file_calls_start"] = file_calls(tiny, Path(folder) / "calls")
            unpacked = Path(folder) / "unpacked"
            shutil.copytree(sys.prefix, unpacked, symlinks=True)
            local = (str(unpacked / "bin" / "python"), *tiny[1:])
            run(local, (0,))
            figures["file_calls_start_image"] = file_calls(local, Path(folder) / "calls", unpacked)
    for name, value in figures.items():
        verdict = "within" if value <= LIMITS[name] else "ABOVE"
        print(f"{name:24}{value:12,.2f}   {verdict} {LIMITS[name]:,}")
    common.write_figures(figures, arguments)
    return int(any(value > LIMITS[name] for name, value in figures.items()))


def run(words: Sequence[str], codes: Sequence[int]) -> None:
    """Run a program of the checkout to its end.

    Raises:
        SystemExit: its exit code is not one of these.
    """
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": path, "PYTHONPATH": str(common.HOME)}
    done = subprocess.run(words, cwd=common.HOME, env=environment, capture_output=True, text=True)
    if done.returncode not in codes:
        sys.exit(f"{' '.join(words)} ended with exit code {done.returncode}:\n{done.stdout}{done.stderr}")


def cpu_s(words: Sequence[str], codes: Sequence[int] = (0,)) -> float:
    """CPU-seconds of a program and its children, user and system."""

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = spent()
    run(words, codes)
    return spent() - before


def file_calls(words: Sequence[str], log: Path, but: Path | None = None) -> int:
    """File-system calls of a program and its children that name a file, but not those below a folder."""
    run(("strace", "-f", "-o", str(log), "-e", "trace=%file", *words), (0,))
    with log.open(errors="replace") as lines:
        return sum(bool(_CALL.match(line)) and (but is None or f'"{but}/' not in line) for line in lines)


if __name__ == "__main__":
    sys.exit(main())
