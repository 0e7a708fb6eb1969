"""Files of one submission, in RUN.ROOT/slurm/NAME-TIME: what waits in the queue reads only them.

run-0.yaml ...       the whole configuration of each run; evaluate-0.yaml ... and prepare-0.yaml ... likewise
run.sbatch ...       the job scripts, with the settings of the site
code/                a copy of the checkout (snapshot=false: none, jobs use the checkout itself)
submit.sh            the submission; to submit a task again, start a line of it with another --array
logs/                the output of the jobs
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from submit_sweep import Composer, Sweep

from hpc_saidpo.errors import RunError, shown
from hpc_saidpo.names import as_name
from hpc_saidpo.settings.whole import Settings
from hpc_saidpo.store.layout import PREPARATION

NOT_RUN = ("tests/", "tools/")  # parts of the checkout that no job needs
CODE = (".py", ".yaml")  # endings of files that git does not track, but that a run may need: a user's own modules
RIVALS = {"mem": ("mem-per-cpu", "mem-per-gpu"), "mem-per-cpu": ("mem", "mem-per-gpu"),
          "mem-per-gpu": ("mem", "mem-per-cpu")}  # fmt: skip


@dataclass(frozen=True)
class Frozen:
    """The configurations of a submission.

    Attributes:
        root: run.root of all runs, as a whole path.
        runs, evaluations: one for each array task.
        preparations: one for each pool, tagging and clustering.
        settings: the checked settings of each run.
        evaluated: the checked settings of the last evaluation.
    """

    root: Path
    runs: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]
    preparations: list[dict[str, Any]]
    settings: list[Settings]
    evaluated: Settings

    def files(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The name and the content of each file of a configuration."""
        for kind, configs in (("run", self.runs), ("evaluate", self.evaluations), ("prepare", self.preparations)):
            yield from ((f"{kind}-{number}.yaml", config) for number, config in enumerate(configs))


def freeze(sweep: Sweep, for_evaluation: Sequence[str], name: str) -> Frozen:
    """Compose every run's configuration and that of its evaluation: a typo shall not wait in a queue.

    Args:
        for_evaluation: overrides of the evaluations alone.
        name: of the submission; the preparation is a run folder of its own.

    Raises:
        RunError: a line is wrong (the message names it, and what is valid); two lines have the same run.name; the lines
            have different run.root.
    """
    composer, numbers, every = Composer(), {}, []
    runs, evaluations, prepared = [], [], {}
    for number, line in enumerate(sweep.lines):
        try:
            settings, plain = composer.settings([*sweep.common, *line])
            evaluated, for_it = composer.settings([*sweep.common, *line, *for_evaluation])
        except RunError as error:
            raise RunError(f"array task {number} of {shown(sweep.name)} ({shown(' '.join(line))}): {error}") from error
        if settings.run.name in numbers:
            raise RunError(
                f"array tasks {numbers[settings.run.name]} and {number} of {shown(sweep.name)} are both called "
                f"{shown(settings.run.name)}: two jobs may not write one run; give each line another run.name=..."
            )
        numbers[settings.run.name] = number
        every.append(settings)
        root = _whole(every[0].run.root)
        if _whole(settings.run.root) != root:
            raise RunError(
                f"array task {number} of {shown(sweep.name)} has run.root={shown(settings.run.root)}, array task 0 has "
                f"run.root={shown(every[0].run.root)}: the runs of one sweep need one run.root"
            )
        runs.append(_with(plain, run={"root": str(root)}))
        where = {"root": str(root / "evaluate"), "name": as_name(f"{settings.run.name}-{number}")}
        evaluations.append(_with(for_it, run=where, policy={"path": str(root / settings.run.name)}))
        prepared[repr((settings.pool, settings.tags, settings.clusters))] = runs[-1]
    preparing = {"run": {"name": as_name(f"{PREPARATION}{name}")}, "loop": {"stop_after": "prepare"}}
    return Frozen(root, runs, evaluations, [_with(plain, **preparing) for plain in prepared.values()], every, evaluated)


def _whole(folder: str) -> Path:
    """The whole path of a folder that may begin with ~."""
    return Path(folder).expanduser().absolute()


def _with(plain: Mapping[str, Any], **changes: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with other values of some keys, by group."""
    return {group: {**plain[group], **changes[group]} if group in changes else plain[group] for group in plain}


def job_script(home: Path, step: str, options: Mapping[str, str | None], variables: Mapping[str, str]) -> str:
    """A script of slurm/ for one submission: without the options that the user replaces or drops, with the variables.

    Args:
        options: sbatch's options by name, with dashes; None drops an option.
        variables: environment variables of the job.
    """
    dropped = {*options, *(rival for name in options for rival in RIVALS.get(name, ()) if options[name] is not None)}
    lines = []
    for line in (home / "slurm" / f"{step}.sbatch").read_text(encoding="utf-8").splitlines():
        match = re.match(r"#SBATCH --([\w-]+)", line)
        if match and match[1] in dropped:
            continue
        if line.startswith("set -"):
            lines += [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
        lines.append(line)
    return "\n".join(lines) + "\n"


def is_git(home: Path) -> bool:
    """Whether the checkout is one of git, and git is there."""
    command = ["git", "-C", str(home), "rev-parse", "--show-toplevel"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return False
    return done.returncode == 0 and Path(done.stdout.strip()) == home


def copy_code(home: Path, target: Path) -> None:
    """Copy the checkout as it is now: what git tracks, and further modules and configurations.

    Raises:
        RunError: it is no checkout of git.
    """
    if not is_git(home):
        raise RunError(
            f"snapshot=true: {shown(home)} is no git checkout. Use snapshot=false, and leave the code alone meanwhile"
        )

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(home), *words], capture_output=True, text=True, check=True).stdout

    tracked = git("ls-files", "-z").split("\0")
    others = git("ls-files", "-z", "--others", "--exclude-standard").split("\0")
    for name in [*tracked, *(other for other in others if other.endswith(CODE))]:
        source = home / name
        if name and not name.startswith(NOT_RUN) and source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)
    (target / ".commit").write_text(git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"))


def write(folder: Path, frozen: Frozen, scripts: Mapping[str, str]) -> None:
    """Write a submission's configurations and scripts into a new folder.

    Args:
        scripts: text by file name.

    Raises:
        RunError: the folder cannot be made.
    """
    try:
        (folder / "logs").mkdir(parents=True)
        for name, config in frozen.files():
            (folder / name).write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
        for name, text in scripts.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(f"cannot write the submission to {shown(folder)}: {error.strerror}") from error
