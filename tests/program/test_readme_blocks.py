"""The commands of the READMEs run as they are printed.

Every bash block of README.md, and each bash or Python block below `<!-- runnable -->` elsewhere, runs in a copy of the
checkout that has the environment; one below `<!-- runnable after a run -->` finds a run in runs/demo. A Python block
below `<!-- file: NAME -->` is written there first. `MEANS` lists what differs from what a reader would type, and why.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.program import HOME, command, user_environment
from support.readmes import READMES, Block, blocks, commands

AFTER_A_RUN = "runnable after a run"
MICRO = HOME / "hpc_saidpo" / "data" / "micro_llama"


@dataclass(frozen=True)
class Means:
    """How a command of a block is run here.

    Attributes:
        start: of the command.
        before: this text goes before ...
        place: ... the first occurrence of this one; "": before the end.
    """

    start: str
    before: str
    place: str
    why: str


SMALLER = " pool.n=240 pool.held_out=24 sampler.n_questions=60 evaluate.samples=1"
MEANS = (
    Means("tools/demo.sh", " --cfg job", "", "the demo takes minutes: its command line must compose"),
    Means("mpiexec -n 4", " --cfg job", "", "training takes hours: the command line must compose on 4 ranks"),
    Means(".venv/bin/python -m hpc_saidpo experiment=tiny sampler.rule", SMALLER, "", "a smaller pool"),
    Means(".venv/bin/python -m cProfile", SMALLER, "", "a smaller pool"),
    Means("srun ", " --help", "", "doctor is tested elsewhere; srun is a stand-in that starts one process"),
    Means("tools/submit.py", "--dry-run ", "partition=", "there is no Slurm: every run is composed and checked"),
)
# tools/setup.sh would install into the environment of these tests: the copy has one that does nothing.
STAND_INS = {
    "tools/setup.sh": "exit 0",
    "bin/srun": 'while [[ $1 == --* ]]; do shift; done; exec "$1" "${@:4}"  # without -m mpi4py',
    "bin/hpc-saidpo": 'exec .venv/bin/python -m hpc_saidpo "$@"',
}
PLACES = {"/models/Qwen2.5-Math-1.5B": str(MICRO), "/data/": "data/", "/scratch/me/": "scratch/"}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of the checkout with its environment, the stand-ins, a pool, and the files of the READMEs."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("hpc_saidpo", "conf", "slurm", "tools"):
        shutil.copytree(HOME / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(HOME / name, copy)
    (copy / ".venv").symlink_to(Path(sys.prefix))
    for name, text in STAND_INS.items():
        path = copy / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{text}\n")
        path.chmod(0o755)
    (copy / "data").mkdir()
    line = '{{"id": "q{0}", "question": "What is {0} + 3?", "answer": "{1}", "tags": ["addition"]}}\n'
    (copy / "data" / "pool.jsonl").write_text("".join(line.format(i, i + 3) for i in range(2000)))
    for block in all_blocks():
        if block.mark.startswith("file: "):
            (copy / block.mark.removeprefix("file: ")).write_text(block.text)
    return copy


@pytest.fixture(scope="module")
def demo(checkout) -> None:
    """runs/demo, small."""
    small = ("loop.iterations=2", "pool.n=240", "pool.held_out=24", "sampler.n_questions=60", "clusters.n=1")
    words = command("experiment=tiny", "run.name=demo", *small, is_warm=True)
    done = subprocess.run(words, cwd=checkout, env=user_environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def all_blocks() -> Iterator[Block]:
    for readme in READMES:
        yield from blocks(readme)


def runnable() -> list[Block]:
    """The blocks that are executed."""
    first = [b for b in all_blocks() if b.readme == "README.md" and b.language == "bash"]
    return first + [b for b in all_blocks() if b.mark.startswith("runnable")]


def script(text: str) -> str:
    """A bash block as it is run here."""
    lines = []
    for printed in commands(text):
        line, words = printed, printed.removeprefix("source .venv/bin/activate")
        for means in MEANS:
            if words.startswith(means.start):
                at = words.index(means.place) if means.place else len(words)
                line = words[:at] + means.before + words[at:]
        for place, here in PLACES.items():
            line = line.replace(place, here)
        lines.append(line)
    return "\n".join(["set -euo pipefail", *lines])


@pytest.mark.e2e
@pytest.mark.parametrize("block", runnable(), ids=lambda block: f"{block.readme}:{block.line}")
def test_a_block_runs_as_printed(block, checkout, request):
    if block.mark == AFTER_A_RUN:
        request.getfixturevalue("demo")
    program = ["bash", "-c", script(block.text)] if block.language == "bash" else [sys.executable, "-c", block.text]
    path = f"{checkout / 'bin'}:{checkout / '.venv' / 'bin'}:{user_environment()['PATH']}"
    done = subprocess.run(
        program, cwd=checkout, env=user_environment(PATH=path), capture_output=True, text=True, timeout=300,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_means_is_of_use():
    """A command that is no longer printed needs no line here."""
    printed = [command for block in runnable() for command in commands(block.text)]
    assert all(any(command.startswith(means.start) for command in printed) for means in MEANS)


def test_runnable_blocks_exist_outside_the_first_readme():
    assert {block.readme for block in runnable()} > {"README.md"}
