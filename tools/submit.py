#!/usr/bin/env python3
"""Submit a sweep to Slurm: prepare, then an array of runs, then their evaluation, then a report of them all.

    tools/submit.py SWEEP [NAME=VALUE ...] [--dry-run] -- OVERRIDE ... [-- OVERRIDE of the evaluation ...]

SWEEP is a name in conf/sweep (clusters, systems, ...), or a file of overrides, one run a line, each with its run.name.
The overrides after `--` hold for every run. They replace values that conf/sweep defines, and several values
(run.seed=0,1) are swept too; in a file, a line's overrides replace them. Before anything is submitted, every line is
composed and checked.

NAME=VALUE are sbatch's options, for all steps (partition=gpu time=24:00:00) or for one (evaluate.time=02:00:00);
at_once=N, how many tasks of an array may run at a time; steps=prepare,run,evaluate,report, which of them to submit; and
env.SAIDPO_...=VALUE, what slurm/env.sh reads.

--dry-run prints the very text that would be run, for bash. If a submission fails, those before it are cancelled.

    tools/submit.py clusters partition=gpu nodes=2 at_once=4 \\
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

import interpreter

interpreter.require()

from submit_sweep import Composer, Sweep, read_sweep

from hpc_saidpo.doctor import inputs
from hpc_saidpo.errors import RunError
from hpc_saidpo.settings.pool import compared_benchmarks
from hpc_saidpo.settings.whole import Settings

HOME = interpreter.HOME
STEPS = ("prepare", "run", "evaluate", "report")
DEPENDENCY = {"run": "afterok", "evaluate": "aftercorr", "report": "afterany"}  # on the step before
OPTIONS = (
    "account", "comment", "constraint", "cpus_per_task", "exclude", "exclusive", "gpu_bind", "gpus_per_task",
    "gres", "licenses", "mail_type", "mail_user", "mem", "mem_per_cpu", "mem_per_gpu", "nice", "nodelist", "nodes",
    "ntasks_per_node", "output", "partition", "qos", "reservation", "signal", "switches", "time",
)  # fmt: skip
OF_REPORT = ("account", "partition", "qos", "reservation")  # the options for all steps that the report uses
VARIABLES = ("SAIDPO_BIND", "SAIDPO_BUNDLE", "SAIDPO_CONTAINER", "SAIDPO_MODULES", "SAIDPO_MPI", "SAIDPO_PYTHON",
             "SAIDPO_RESTARTS", "SAIDPO_SRUN")  # fmt: skip
PREPARED = re.compile(r"\+?(pool|tags|clusters|experiment)(?=[.=@])")  # overrides that a preparation may depend on


def main(arguments: Sequence[str]) -> int:
    """Submit, or print what would be submitted. Returns the exit code: 0, 2 (wrong input), or bash's."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0 if arguments else 2
    try:
        words, common, for_evaluation = (*_split(arguments), [], [])[:3]
        is_dry, words = "--dry-run" in words, [word for word in words if word != "--dry-run"]
        options = sbatch_options(words[1:])
        sweep = read_sweep(words[0], common)
        text = script(sweep, check(sweep, for_evaluation), options, for_evaluation)
    except RunError as error:
        print(f"submit: {error}", file=sys.stderr)
        return 2
    if is_dry:
        print(text, end="")
        return 0
    return subprocess.run(["bash", "-c", text]).returncode


def _split(words: Sequence[str]) -> list[list[str]]:
    """The words between the `--`."""
    return [list(part) for is_bar, part in itertools.groupby(words, "--".__eq__) if not is_bar]


def sbatch_options(words: Iterable[str]) -> dict[str, str]:
    """NAME=VALUE words as a mapping.

    Raises:
        RunError: a word is no NAME=VALUE, or its name is unknown; lists the valid ones.
    """
    options = {}
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
            raise RunError(f"{word!r} is no NAME=VALUE with a valid name;{hint} Valid names: {', '.join(valid)}")
        options[name] = value
    unknown = set(options.get("steps", "run").split(",")) - set(STEPS)
    if unknown:
        raise RunError(f"steps={options['steps']}: there is no {', '.join(unknown)}. Valid: {', '.join(STEPS)}")
    for name, value in options.items():
        if name.rpartition(".")[2] == "time" and name != "report.time" and _seconds(value) <= _margin_s(options):
            raise RunError(
                f"{name}={value}: jobs are warned {_margin_s(options)} s before their end and then go back into the "
                "queue: they would do so at once. Set a longer time, or a later warning (signal=B:USR1@60)"
            )
    return options


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


def _margin_s(options: dict[str, str]) -> int:
    """Seconds before its end when a job is warned: by the option `signal`, else by the scripts."""
    default = re.search(r"--signal=(\S+)", (HOME / "slurm" / "run.sbatch").read_text())
    signal = options.get("signal") or (default[1] if default else "")
    return int(signal.rpartition("@")[2]) if "@" in signal else 60


def check(sweep: Sweep, for_evaluation: Sequence[str]) -> list[Settings]:
    """Compose every run's configuration as its job will: a typo shall not wait in a queue. Returns them.

    Raises:
        RunError: a line is wrong; names it, and what is valid.
    """
    composer, names, every = Composer(), {}, []
    for number, line in enumerate(sweep.lines):
        try:
            config = composer.settings([*sweep.common, *line])
            evaluated = composer.settings([*sweep.common, *line, *for_evaluation]) if for_evaluation else config
        except RunError as error:
            raise RunError(f"array task {number} of {sweep.name} ({' '.join(line)}): {error}") from error
        place = (config.run.root, config.run.name)
        if place in names:
            raise RunError(
                f"array tasks {names[place]} and {number} of {sweep.name} are both called {config.run.name}: two jobs "
                "may not write one run; give each line another run.name=..."
            )
        names[place] = number
        every.append(config)
    if unseen := _not_compared(config, evaluated):
        print(
            f"submit: warning: {', '.join(unseen)}: evaluated, but the pool is not compared with them. Give the runs "
            f"'pool.benchmarks=[{','.join(unseen)}]', with the evaluation's evaluate.folder",
            file=sys.stderr,
        )
    for missing in dict.fromkeys(i for i in (*inputs.list_inputs(config), *inputs.list_inputs(evaluated)) if i.problem):
        print(f"submit: warning, from here: {missing.key}={missing.value}: {missing.problem}", file=sys.stderr)
    return every


def _not_compared(config: Settings, evaluated: Settings) -> list[str]:
    """The benchmarks of the evaluation whose questions may be in the pool that is trained on."""
    if config.pool.kind != "files" or not config.pool.decontaminate:
        return []
    compared = {*config.evaluate.plan(), *config.evaluate.plan(compared_benchmarks(config.pool))}
    return [name for name, plan in evaluated.evaluate.plan().items() if plan.file and name not in compared]


def script(sweep: Sweep, configs: Sequence[Settings], options: dict[str, str], for_evaluation: Sequence[str]) -> str:
    """The submissions as bash: each waits for the one before, and is cancelled if it can never run."""
    root = next((w.partition("=")[2] for w in reversed(sweep.common) if w.startswith("run.root=")), "runs")
    array = f"0-{len(sweep.lines) - 1}" + (f"%{options['at_once']}" if "at_once" in options else "")
    file = sweep.file(root)
    plan = {
        "prepare": ([], [*sweep.common, *preparation(sweep.lines, configs)]),
        "run": ([f"--array={array}"], [file, *sweep.common]),
        "evaluate": ([f"--array={array}"], [file, *sweep.common, *for_evaluation]),
        "report": ([], [root]),
    }
    text = [
        "set -euo pipefail",
        f"cd {shlex.quote(str(HOME))}",
        f"export SAIDPO_HOME={shlex.quote(str(HOME))}",
        *(f"export {k.removeprefix('env.')}={shlex.quote(v)}" for k, v in options.items() if k.startswith("env.")),
        f"mkdir -p {shlex.quote(root + '/slurm')}",
        *([] if sweep.path else [f"cat >{shlex.quote(file)} <<'END'\n{sweep.text}END"]),
        "trap 'scancel $submitted' ERR",
        'submitted=""',
    ]
    before = ""
    for step in (s for s in STEPS if s in options.get("steps", ",".join(STEPS)).split(",")):
        extra, words = plan[step]
        output = f"{root}/slurm/%x-{'%A_%a' if extra else '%j'}.out"
        own = {"output": output, **_options_of(step, options)}
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in own.items()]
        # aftercorr pairs array tasks; what follows a single job waits for all of it.
        kind = "afterok" if step == "evaluate" and before == "prepare" else DEPENDENCY.get(step)
        chain = [f'--dependency={kind}:"${before}"', "--kill-on-invalid-dep=yes"] if before else []
        command = [*map(shlex.quote, [*flags, *extra]), *chain, f"slurm/{step}.sbatch", *map(shlex.quote, words)]
        text += [f"{step}=$(sbatch --parsable {' '.join(command)})", f'{step}=${{{step}%%;*}} submitted+=" ${step}"']
        text += [f'echo "{step} ${step}"']
        before = step
    return "\n".join(text) + "\n"


def _options_of(step: str, options: dict[str, str]) -> dict[str, str]:
    """sbatch's options for a step: those for all steps, then those for this one."""
    general = {k: v for k, v in options.items() if "." not in k and k not in ("at_once", "steps")}
    if step == "report":
        general = {k: v for k, v in general.items() if k in OF_REPORT}
    return {**general, **{k.partition(".")[2]: v for k, v in options.items() if k.startswith(step + ".")}}


def preparation(lines: Sequence[Sequence[str]], configs: Sequence[Settings]) -> list[str]:
    """Overrides for one multirun that prepares what all lines need: each value that changes pool, tags or clusters.

    Args:
        configs: the settings of each line.
    """
    pairs = zip(reversed(lines), reversed(configs), strict=True)
    needed = {repr((c.pool, c.tags, c.clusters)): line for line, c in pairs}
    values: dict[str, list[str]] = {}
    for word in itertools.chain(*reversed(needed.values())):
        key, _, value = word.partition("=")
        if PREPARED.match(word) and value not in values.setdefault(key, []):
            values[key].append(value)
    return [f"{key}={','.join(several)}" for key, several in values.items()]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
