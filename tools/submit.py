#!/usr/bin/env python3
"""Submit a sweep to Slurm: prepare, then an array of runs, then their evaluation, then a report of them all.

    tools/submit.py SWEEP [NAME=VALUE ...] [--dry-run] -- OVERRIDE ... [-- OVERRIDE of the evaluation ...]

SWEEP is a file of Hydra overrides, one run a line, each with its run.name (slurm/sweeps/). The overrides after `--`
hold for every run; a line's own come after them. Before anything is submitted, every line is composed and checked.

NAME=VALUE are sbatch's options, for all steps (partition=gpu time=24:00:00) or for one (evaluate.time=02:00:00);
at_once=N, how many tasks of an array may run at a time; steps=prepare,run,evaluate,report, which of them to submit; and
env.SAIDPO_...=VALUE, what slurm/env.sh reads.

--dry-run prints the very text that would be run, for bash. If a submission fails, those before it are cancelled.

    tools/submit.py slurm/sweeps/clusters.txt partition=gpu nodes=2 at_once=4 \\
        -- experiment=paper_qwen7b pool.path=/data/pool.jsonl run.root=/scratch/me/clusters \\
           'pool.benchmarks=[math500,aime24]' evaluate.folder=/data/benchmarks \\
        -- 'evaluate.benchmarks=[math500,aime24]'
"""

from __future__ import annotations

import difflib
import itertools
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from hpc_saidpo.cli import compose
from hpc_saidpo.doctor import inputs
from hpc_saidpo.errors import RunError

HOME = Path(__file__).resolve().parent.parent
STEPS = ("prepare", "run", "evaluate", "report")
OPTIONS = (
    "account", "comment", "constraint", "cpus_per_task", "exclude", "exclusive", "gpu_bind", "gpus_per_task",
    "gres", "licenses", "mail_type", "mail_user", "mem", "mem_per_cpu", "mem_per_gpu", "nice", "nodelist", "nodes",
    "ntasks_per_node", "output", "partition", "qos", "reservation", "signal", "switches", "time",
)  # fmt: skip
OF_GPUS = ("gpus_per_task", "gpu_bind", "mem_per_gpu")  # the report has no use for one
VARIABLES = ("SAIDPO_BIND", "SAIDPO_BUNDLE", "SAIDPO_CONTAINER", "SAIDPO_MODULES", "SAIDPO_MPI", "SAIDPO_PYTHON",
             "SAIDPO_RESTARTS", "SAIDPO_SRUN")  # fmt: skip
PREPARED = ("pool.", "tags.", "clusters.", "pool=", "tags=", "clusters=")  # what a preparation depends on


def main(arguments: Sequence[str]) -> int:
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0 if arguments else 2
    try:
        own, common, for_evaluation = (*_split(arguments), [], [])[:3]
        dry, own = "--dry-run" in own, [word for word in own if word != "--dry-run"]
        sweep = Path(own[0])
        lines = read_sweep(sweep)
        text = script(sweep.resolve(), lines, settings(own[1:]), common, for_evaluation)
        check(sweep, lines, common, for_evaluation)
    except RunError as error:
        print(f"submit: {error}", file=sys.stderr)
        return 2
    if dry:
        print(text, end="")
        return 0
    return subprocess.run(["bash", "-c", text]).returncode


def _split(words: Sequence[str]) -> list[list[str]]:
    """The words between the `--`."""
    return [list(part) for is_bar, part in itertools.groupby(words, "--".__eq__) if not is_bar]


def read_sweep(path: Path) -> list[list[str]]:
    """The overrides of each run; comments and empty lines do not count.

    Raises:
        RunError: no such file, no run in it, or two with one name.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except OSError as error:
        known = ", ".join(sorted(str(p.relative_to(HOME)) for p in (HOME / "slurm" / "sweeps").glob("*.txt")))
        raise RunError(f"sweep file {path}: {error.strerror}; there are {known}") from error
    lines = [line.split() for line in content.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        raise RunError(f"sweep file {path} has no line with overrides")
    return lines


def settings(words: Iterable[str]) -> dict[str, str]:
    """NAME=VALUE words as a mapping.

    Raises:
        RunError: a word is no NAME=VALUE, or its name is unknown; lists the valid ones.
    """
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        name = name.replace("-", "_")
        step, _, option = name.rpartition(".")
        valid = VARIABLES if step == "env" else OPTIONS if step else (*OPTIONS, "at_once", "steps")
        if step not in ("", "env", *STEPS):
            raise RunError(f"{word!r}: {step!r} is no step. Valid: {', '.join(STEPS)}, env")
        if not equals or option not in valid:
            near = difflib.get_close_matches(option, valid, n=1)
            hint = f" did you mean {near[0]!r}?" if near else ""
            raise RunError(f"{word!r} is no NAME=VALUE of those known;{hint} Valid names: {', '.join(valid)}")
        found[name] = value
    unknown = set(found.get("steps", "run").split(",")) - set(STEPS)
    if unknown:
        raise RunError(f"steps={found['steps']}: there is no {', '.join(unknown)}. Valid: {', '.join(STEPS)}")
    for name, value in found.items():
        if name.rpartition(".")[2] == "time" and name != "report.time" and _seconds(value) <= _margin_s(found):
            raise RunError(
                f"{name}={value}: jobs are warned {_margin_s(found)} s before their end and then go back into the "
                "queue: they would do so at once. Give more time, or a later warning (signal=B:USR1@60)"
            )
    return found


def _seconds(time: str) -> float:
    """sbatch's time: minutes, minutes:seconds, hours:minutes:seconds, days-hours[:minutes[:seconds]]; else no limit."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", time)
    if not match:
        return float("inf")
    days, first, second, third = match.groups()
    if days is not None:
        parts = (int(days), int(first), int(second or 0), int(third or 0))
    elif third is not None:
        parts = (0, int(first), int(second), int(third))
    else:
        parts = (0, 0, int(first), int(second or 0))
    return ((24 * parts[0] + parts[1]) * 60 + parts[2]) * 60 + parts[3]


def _margin_s(given: dict[str, str]) -> int:
    """How long before its end a job is warned, as the scripts say or as it is given."""
    signal = given.get("signal") or re.search(r"--signal=(\S+)", (HOME / "slurm" / "run.sbatch").read_text())[1]
    return int(signal.rpartition("@")[2]) if "@" in signal else 60


def check(sweep: Path, lines: Sequence[Sequence[str]], common: Sequence[str], for_evaluation: Sequence[str]) -> None:
    """Compose every run's configuration as its job will: a typo shall not wait in a queue.

    Raises:
        RunError: a line is wrong; names it, and what is valid.
    """
    names = {}
    for number, line in enumerate(lines):
        try:
            config = compose.from_overrides([*common, *line])
            evaluated = compose.from_overrides([*common, *line, *for_evaluation])
        except RunError as error:
            raise RunError(f"array task {number} of {sweep} ({' '.join(line)}): {error}") from error
        where = (config.run.root, config.run.name)
        if where in names:
            raise RunError(
                f"array tasks {names[where]} and {number} of {sweep} are both called {config.run.name}: two jobs may "
                "not write one run; give each line a run.name=... of its own"
            )
        names[where] = number
    if unseen := _not_avoided(config, evaluated):
        print(
            f"submit: warning: {', '.join(unseen)}: evaluated, but the pool is not compared with them. Give the runs "
            f"'pool.benchmarks=[{','.join(unseen)}]', with the evaluation's evaluate.folder",
            file=sys.stderr,
        )
    for missing in dict.fromkeys(i for i in (*inputs.list_inputs(config), *inputs.list_inputs(evaluated)) if i.problem):
        print(f"submit: warning, from here: {missing.key}={missing.value}: {missing.problem}", file=sys.stderr)


def _not_avoided(config, evaluated) -> list[str]:
    """The benchmarks of the evaluation whose questions may be in the pool that is trained on."""
    if config.pool.kind != "files" or not config.pool.decontaminate:
        return []
    avoided = {*config.evaluate.plan(), *config.evaluate.plan(config.pool.benchmarks)}
    return [name for name, how in evaluated.evaluate.plan().items() if how.file and name not in avoided]


def script(
    sweep: Path,
    lines: Sequence[Sequence[str]],
    given: dict[str, str],
    common: Sequence[str],
    for_evaluation: Sequence[str],
) -> str:
    """The submissions as bash: each waits for the one before, and is cancelled if it can never run."""
    root = next((w.partition("=")[2] for w in reversed(common) if w.startswith("run.root=")), "runs")
    array = f"0-{len(lines) - 1}" + (f"%{given['at_once']}" if "at_once" in given else "")
    plan = {
        "prepare": ([], [*preparation(common, lines)]),
        "run": ([f"--array={array}"], [str(sweep), *common]),
        "evaluate": ([f"--array={array}"], [str(sweep), *common, *for_evaluation]),
        "report": ([], [root]),
    }
    how = {"run": "afterok", "evaluate": "aftercorr", "report": "afterany"}
    text = [
        "set -euo pipefail",
        f"cd {shlex.quote(str(HOME))}",
        f"export SAIDPO_HOME={shlex.quote(str(HOME))}",
        *(f"export {k.removeprefix('env.')}={shlex.quote(v)}" for k, v in given.items() if k.startswith("env.")),
        f"mkdir -p {shlex.quote(root + '/slurm')}",
        "trap 'scancel $submitted' ERR",
        'submitted=""',
    ]
    before = ""
    for step in (s for s in STEPS if s in given.get("steps", ",".join(STEPS)).split(",")):
        extra, words = plan[step]
        output = f"{root}/slurm/%x-{'%A_%a' if extra else '%j'}.out"
        options = [f"--{k.replace('_', '-')}={v}" for k, v in {"output": output, **_of(step, given)}.items()]
        # aftercorr pairs array tasks; what follows a single job waits for all of it.
        kind = "afterok" if step == "evaluate" and before == "prepare" else how.get(step)
        chain = [f'--dependency={kind}:"${before}"', "--kill-on-invalid-dep=yes"] if before else []
        command = [*map(shlex.quote, [*options, *extra]), *chain, f"slurm/{step}.sbatch", *map(shlex.quote, words)]
        text += [f"{step}=$(sbatch --parsable {' '.join(command)})", f'{step}=${{{step}%%;*}} submitted+=" ${step}"']
        text += [f'echo "{step} ${step}"']
        before = step
    return "\n".join(text) + "\n"


def _of(step: str, given: dict[str, str]) -> dict[str, str]:
    """sbatch's options for a step: those for all, then its own."""
    everyones = {k: v for k, v in given.items() if "." not in k and k not in ("at_once", "steps")}
    if step == "report":
        everyones = {k: v for k, v in everyones.items() if k in ("account", "partition", "qos", "reservation")}
    return {**everyones, **{k.partition(".")[2]: v for k, v in given.items() if k.startswith(step + ".")}}


def preparation(common: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """Overrides for one multirun that prepares what all lines need: every value of what they vary of it."""
    values: dict[str, list[str]] = {}
    for word in itertools.chain(*lines):
        key, _, value = word.partition("=")
        if word.startswith(PREPARED) and value not in values.setdefault(key, []):
            values[key].append(value)
    return [*common, *(f"{key}={','.join(found)}" for key, found in values.items())]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
