#!/usr/bin/env python3
"""Submit a sweep to Slurm: prepare, then an array of runs, then their evaluation, then a report of them all.

    tools/submit.py SWEEP [NAME=VALUE ...] [--dry-run] -- OVERRIDE ... [-- OVERRIDE of the evaluation ...]

SWEEP is a name in conf/sweep (clusters, systems, ...), or a file of overrides, one run a line, each with its run.name.
The overrides after `--` hold for every run. They replace values that conf/sweep defines, and several values
(run.seed=0,1) are swept too; in a file, a line's overrides replace them. Before anything is submitted, every line is
composed and checked.

NAME=VALUE are sbatch's options, for all steps (partition=gpu time=24:00:00) or for one (evaluate.time=02:00:00). An
option without a value is written as NAME=true (exclusive=true); NAME=null drops an option (gpus_per_task=null).
Further: at_once=N, how many tasks of an array may run at a time; steps=prepare,run,evaluate,report, which of them to
submit; env.SAIDPO_...=VALUE, what slurm/env.sh reads; snapshot=false, to let the jobs use the checkout itself instead
of a copy of it.

A submission writes everything that its jobs read to a folder RUN.ROOT/slurm/SWEEP-TIME: later changes of the sweep, of
conf/ and of the code do not reach it. --dry-run prints what would be written there and run, and does neither. If a
submission fails, those before it are cancelled.

    tools/submit.py clusters partition=gpu nodes=2 at_once=4 \\
        -- experiment=paper_qwen7b pool.path=/data/pool.jsonl run.root=/scratch/me/clusters \\
           'pool.benchmarks=[math500,aime24]' evaluate.folder=/data/benchmarks \\
        -- 'evaluate.benchmarks=[math500,aime24]'
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import interpreter

interpreter.require()

import submit_freeze
from submit_freeze import Frozen
from submit_options import Options, read_options
from submit_sweep import read_sweep

from hpc_saidpo import terminal
from hpc_saidpo.doctor import foresight, inputs, room
from hpc_saidpo.errors import RunError, shown
from hpc_saidpo.names import as_name
from hpc_saidpo.rollouts.chunks import too_many_ranks
from hpc_saidpo.settings.pool import compared_benchmarks
from hpc_saidpo.settings.whole import Settings

HOME = interpreter.HOME
WARNING_CHARS = 2000
DEPENDENCY = {"run": "afterok", "evaluate": "aftercorr", "report": "afterany"}  # on the step before


def main(arguments: Sequence[str]) -> int:
    """Submit, or print what would be submitted. Returns the exit code: 0, 2 (wrong input), or bash's."""
    terminal.guard()
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0 if arguments else 2
    try:
        words, common, for_evaluation = (*_split(arguments), [], [])[:3]
        is_dry, words = "--dry-run" in words, [word for word in words if word != "--dry-run"]
        options = read_options(words[1:], HOME)
        stem = re.sub(r"[^A-Za-z0-9_.-]+", "_", Path(words[0]).stem)
        name = as_name(f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}")
        frozen = submit_freeze.freeze(read_sweep(words[0], common), for_evaluation, name)
        for warning in warnings(frozen, options):
            terminal.complain("submit: warning", shown(warning, WARNING_CHARS))
        n_runs = len(frozen.runs)
        text, problem = room.compare(frozen.root, room.needed(frozen.settings), n_runs)
        print(
            f"submit: {'warning: ' * bool(problem)}{shown(frozen.root)}: {text}{': ' * bool(problem)}{problem}",
            file=sys.stderr,
        )
        folder = frozen.root / "slurm" / name
        with_code = options.snapshot if options.snapshot is not None else submit_freeze.is_git(HOME)
        scripts = job_scripts(folder, options, folder / "code" if with_code else HOME)
        scripts["submit.sh"] = chain(folder, len(frozen.runs), options)
        if is_dry:
            print(describe(folder, frozen, scripts), end="")
            return 0
        submit_freeze.write(folder, frozen, scripts)
        if with_code:
            submit_freeze.copy_code(HOME, folder / "code")
    except RunError as error:
        terminal.complain("submit", error)
        return 2
    return subprocess.run(["bash", str(folder / "submit.sh")]).returncode


def _split(words: Sequence[str]) -> list[list[str]]:
    """The words between the `--`."""
    return [list(part) for is_bar, part in itertools.groupby(words, "--".__eq__) if not is_bar]


def describe(folder: Path, frozen: Frozen, scripts: Mapping[str, str]) -> str:
    """What a submission would write and run, for reading."""
    names = [f"# {folder}/{name}: run.name={shown(config['run']['name'])}" for name, config in frozen.files()]
    return "\n".join([*names, *(f"\n# {folder}/{name}:\n{text}" for name, text in scripts.items())])


def warnings(frozen: Frozen, options: Options) -> list[str]:
    """What is probably a mistake, or cannot be seen from here."""
    config, evaluated = frozen.settings[-1], frozen.evaluated
    found = []
    if unseen := _not_compared(config, evaluated):
        found.append(
            f"{', '.join(unseen)}: evaluated, but the pool is not compared with them. Give the runs "
            f"'pool.benchmarks=[{','.join(unseen)}]', with the evaluation's evaluate.folder"
        )
    questions = config.sampler.explored_at_once
    found.append(too_many_ranks(options.n_ranks("run"), questions, config.rollouts, "explore"))
    both = (*inputs.list_inputs(config), *inputs.list_inputs(evaluated))
    seen = (f for settings in (config, evaluated) for f in foresight.foresee(settings) if f.remedy)
    found += dict.fromkeys(f"{f.name}: {f.text}: {f.remedy}" for f in seen)
    found += dict.fromkeys(f"from here: {i.key}={i.value}: {i.problem}" for i in both if i.problem)
    return [text for text in found if text]


def _not_compared(config: Settings, evaluated: Settings) -> list[str]:
    """The benchmarks of the evaluation whose questions may be in the pool that is trained on."""
    if config.pool.kind != "files" or not config.pool.decontaminate:
        return []
    compared = {*config.evaluate.plan(), *config.evaluate.plan(compared_benchmarks(config.pool))}
    return [name for name, plan in evaluated.evaluate.plan().items() if plan.file and name not in compared]


def job_scripts(folder: Path, options: Options, code: Path) -> dict[str, str]:
    """The job scripts of the submitted steps, by file name.

    Args:
        code: the folder of the code that the jobs use.
    """
    variables = {"SAIDPO_HOME": str(code), **options.variables}
    if not {"SAIDPO_CONTAINER", "SAIDPO_PYTHON"} & {*variables, *os.environ}:
        variables["SAIDPO_PYTHON"] = sys.executable
    return {
        f"{step}.sbatch": submit_freeze.job_script(HOME, step, options.of(step), variables) for step in options.steps
    }


def chain(folder: Path, n_runs: int, options: Options) -> str:
    """The submissions as bash: each waits for the one before, and is cancelled if it can never run."""
    text = [
        "set -euo pipefail",
        f"cd {shlex.quote(str(Path.cwd()))}",
        f"folder={shlex.quote(str(folder))}",
        "trap 'scancel $submitted' ERR",
        'submitted=""',
    ]
    before = ""
    for step in options.steps:
        is_array = step in ("run", "evaluate")
        own = {"output": f"{folder}/logs/%x-{'%A_%a' if is_array else '%j'}.out", **options.of(step)}
        if is_array:
            own = {"array": f"0-{n_runs - 1}{options.at_once}", **own}
        # aftercorr pairs array tasks; what follows a single job waits for all of it.
        kind = "afterok" if step == "evaluate" and before == "prepare" else DEPENDENCY.get(step)
        users = own.pop("dependency", None)
        waits = [*([f'{kind}:"${before}"'] if before else []), *([shlex.quote(users)] if users else [])]
        flags = [f"--{name}" if value == "true" else f"--{name}={value}" for name, value in own.items() if value]
        command = " ".join([
            *map(shlex.quote, flags),
            *([f"--dependency={','.join(waits)}", "--kill-on-invalid-dep=yes"] if waits else []),
            f'"$folder/{step}.sbatch"',
            shlex.quote(str(folder.parent.parent)) if step == "report" else '"$folder"',
        ])  # fmt: skip
        text += [f"{step}=$(sbatch --parsable {command})", f'{step}=${{{step}%%;*}} submitted+=" ${step}"']
        text += [f'echo "{step} ${step}"']
        before = step
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
