"""The words of tools/submit.py before the first bar: sbatch's options, and those of the submission itself."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hpc_saidpo.errors import RunError

STEPS = ("prepare", "run", "evaluate", "report")
# Every option of sbatch (22.05 to 25.05) but those that print something or change how sbatch itself ends.
SBATCH = (
    "account", "acctg_freq", "array", "batch", "bb", "bbf", "begin", "chdir", "cluster_constraint", "clusters",
    "comment", "constraint", "consolidate_segments", "container", "container_id", "contiguous", "core_spec",
    "cores_per_socket", "cpu_freq", "cpus_per_gpu", "cpus_per_task", "deadline", "delay_boot", "dependency",
    "distribution", "error", "exclude", "exclusive", "export", "export_file", "extra", "extra_node_info",
    "get_user_env", "gid", "gpu_bind", "gpu_freq", "gpus", "gpus_per_node", "gpus_per_socket", "gpus_per_task", "gres",
    "gres_flags", "hint", "hold", "job_name", "licenses", "mail_type", "mail_user", "mcs_label", "mem", "mem_bind",
    "mem_per_cpu", "mem_per_gpu", "mincpus", "network", "nice", "no_kill", "no_requeue", "nodefile", "nodelist",
    "nodes", "ntasks", "ntasks_per_core", "ntasks_per_gpu", "ntasks_per_node", "ntasks_per_socket", "open_mode",
    "oom_kill_step", "output", "overcommit", "oversubscribe", "partition", "power", "prefer", "priority", "profile",
    "propagate", "qos", "reboot", "requeue", "reservation", "resv_ports", "segment", "signal", "sockets_per_node",
    "spread_job", "spread_segments", "stepmgr", "switches", "thread_spec", "threads_per_core", "time", "time_min",
    "tmp", "tres_bind", "tres_per_task", "uid", "use_min_nodes", "wait_all_nodes", "wckey", "x11",
)  # fmt: skip
OWN = ("at_once", "snapshot", "steps")
# Of the options for all steps: those that the report uses too, and those for the arrays and for the first step alone.
OF_REPORT = ("account", "begin", "clusters", "comment", "mail_type", "mail_user", "partition", "qos", "reservation",
             "wckey")  # fmt: skip
OF_ARRAYS = ("array",)
OF_FIRST = ("dependency",)
VARIABLES = ("SAIDPO_BIND", "SAIDPO_BUNDLE", "SAIDPO_CONTAINER", "SAIDPO_LAUNCH", "SAIDPO_MODULES", "SAIDPO_MPI",
             "SAIDPO_PYTHON", "SAIDPO_PYTHONPATH", "SAIDPO_RESTARTS", "SAIDPO_SRUN")  # fmt: skip
BEHIND = "Overrides of the runs follow two dashes: -- experiment=... run.root=..."
NOTHING = ("null", "false")  # values that drop an option


@dataclass(frozen=True)
class Options:
    """The options of a submission.

    Attributes:
        general, by_step: sbatch's options for all steps and for one, by name with dashes; None drops an option.
        variables: environment variables of the jobs.
        steps: the steps to submit, in order.
        at_once: the end of sbatch's --array: "%4", or "".
        snapshot: whether jobs use a copy of the code; None: if the checkout is one of git.
        defaults: sbatch's options in the scripts, by step.
    """

    general: Mapping[str, str | None] = field(default_factory=dict)
    by_step: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[str, ...] = STEPS
    at_once: str = ""
    snapshot: bool | None = None
    defaults: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def of(self, step: str) -> dict[str, str | None]:
        """The user's options for a step: those for all steps, then those for this one."""
        general = dict(self.general)
        if step == "report":
            general = {name: value for name, value in general.items() if name.replace("-", "_") in OF_REPORT}
        for names, uses in ((OF_ARRAYS, step in ("run", "evaluate")), (OF_FIRST, step == self.steps[0])):
            general = {name: value for name, value in general.items() if uses or name not in names}
        return {**general, **self.by_step.get(step, {})}

    def value(self, step: str, name: str) -> str:
        """The value of an option of a step; "" where there is none."""
        return {**self.defaults.get(step, {}), **self.of(step)}.get(name) or ""

    def n_ranks(self, step: str) -> int:
        """The number of ranks of a step, as far as its options say it; else 1."""
        n_tasks, nodes = self.value(step, "ntasks"), self.value(step, "nodes").partition("-")[0]
        if n_tasks.isdigit():
            return int(n_tasks)
        per_node = self.value(step, "ntasks-per-node")
        return int(per_node) * (int(nodes) if nodes.isdigit() else 1) if per_node.isdigit() else 1


def read_options(words: Iterable[str], home: Path) -> Options:
    """Read NAME=VALUE words.

    Args:
        home: the checkout, whose scripts have the defaults.

    Raises:
        RunError: a word is no NAME=VALUE, or its name is unknown (the message lists the valid ones); a time limit is
            shorter than the time between the warning and the end.
    """
    general, by_step, variables, own = {}, {}, {}, {}
    for word in words:
        name, equals, value = word.partition("=")
        step, _, option = name.replace("-", "_").rpartition(".")
        valid = VARIABLES if step == "env" else SBATCH if step else (*SBATCH, *OWN)
        if step not in ("", "env", *STEPS):
            raise RunError(f"{word!r}: {step!r} is no step. Valid: {', '.join(STEPS)}, env. {BEHIND}")
        if not equals or option not in valid:
            near = difflib.get_close_matches(option, valid, n=1)
            hint = f" did you mean {near[0]!r}?" if near else ""
            raise RunError(
                f"{word!r} is no NAME=VALUE with a valid name;{hint} {BEHIND}. Valid names: {', '.join(valid)}"
            )
        if step == "env":
            variables[option] = value
        elif not step and option in OWN:
            own[option] = value
        else:
            target = by_step.setdefault(step, {}) if step else general
            target[option.replace("_", "-")] = None if value in NOTHING else value
    steps = tuple(own.get("steps", ",".join(STEPS)).split(","))
    if unknown := set(steps) - set(STEPS):
        raise RunError(f"steps={own['steps']}: there is no {', '.join(unknown)}. Valid: {', '.join(STEPS)}")
    snapshot = own.get("snapshot")
    if snapshot not in (None, "true", "false"):
        raise RunError(f"snapshot={snapshot}: true or false")
    options = Options(
        general=general,
        by_step=by_step,
        variables=variables,
        steps=tuple(step for step in STEPS if step in steps),
        at_once=f"%{own['at_once']}" if "at_once" in own else "",
        snapshot=None if snapshot is None else snapshot == "true",
        defaults={step: script_options(home / "slurm" / f"{step}.sbatch") for step in STEPS},
    )
    for step in options.steps:
        _check_time(step, options)
    return options


def script_options(path: Path) -> dict[str, str]:
    """The options of sbatch in a script."""
    return dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE))


def _check_time(step: str, options: Options) -> None:
    """Refuse a time limit that is over as soon as the job is warned of it."""
    limit, signal = options.value(step, "time"), options.value(step, "signal")
    margin_s = int(signal.rpartition("@")[2]) if "@" in signal else 60
    if signal and _seconds(limit) <= margin_s:
        raise RunError(
            f"{step}: time={limit}: jobs are warned {margin_s} s before their end and then go back into the queue. "
            "They would do so at once. Set a longer time, or a later warning (signal=B:USR1@60)"
        )


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
