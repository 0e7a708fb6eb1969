"""Is a run folder sound? What is not, is named; repairing it sets it aside, and deletes nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml
from safetensors import SafetensorError, safe_open

from ..errors import RunError
from ..records import Rollouts
from . import files, tables
from .layout import iterations_of
from .lock import Lock
from .stage import Stage, stages_of
from .tables import Damaged

REDONE = "set it aside (--repair) and start the run again: {} made again, and nothing else"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong in a run folder.

    Attributes:
        path: the file.
        what: what happened to it.
        remedy: what to do.
        stage: the stage that has to be done again in part; None when --repair cannot help.
    """

    path: Path
    what: str
    remedy: str
    stage: Stage | None = None


@dataclass
class Report:
    """What `check` saw."""

    n_stages: int = 0
    n_unfinished: int = 0
    n_files: int = 0
    n_rollouts: int = 0
    n_temporary: int = 0
    findings: list[Finding] = field(default_factory=list)


def check(run: Path) -> Report:
    """Read everything in a run folder and compare it with its checksums. A run that is going on may be checked too.

    Raises:
        RunError: there is no such run folder.
    """
    if not (run / "config.yaml").is_file():
        raise RunError(f"{run} is no run folder: it has no config.yaml")
    report = Report(n_temporary=sum(map(files.is_temporary, run.rglob(".*.tmp"))))
    report.findings += _unreadable(run)
    for stage in stages_of(run):
        report.n_stages += 1
        report.n_unfinished += not stage.done
        for path in stage.contents():
            report.n_files += 1
            report.findings += _check_file(stage, path)
        report.findings += _check_manifest(stage) if stage.done else []
        report.findings += _check_rows(stage, report)
    report.findings = list({finding.path: finding for finding in reversed(report.findings)}.values())[::-1]
    return report


def repair(run: Path, findings: list[Finding]) -> list[tuple[Path, Path]]:
    """Set aside what is damaged, so that the next start makes it again; (from, to) of every file that was moved.

    Raises:
        RunError: a job uses the run now.
    """
    lock = Lock(run / "lock")
    lock.acquire(print)
    try:
        return list(_set_aside(findings))
    finally:
        lock.release()


def _set_aside(findings) -> Iterator[tuple[Path, Path]]:
    for finding in findings:
        if finding.stage is None:
            continue
        # The stage first: what is killed in between still says that something is missing.
        for path in (finding.stage.path / "DONE", finding.path):
            if path.exists():
                kept = files.old_name(path, "damaged")
                os.replace(path, kept)
                yield path, kept


def _unreadable(run: Path) -> Iterator[Finding]:
    """Files of the run that belong to no stage."""
    for path, parse in ((run / "config.yaml", yaml.safe_load), (run / "env.json", json.loads)):
        try:
            if path.exists() and not parse(path.read_text()):
                raise ValueError("it is empty")
        except (ValueError, yaml.YAMLError, OSError) as error:
            yield Finding(path, f"is not readable ({error})", "put back a copy, or move it away and start again")

    for _, folder in iterations_of(run):
        iteration, metrics = Stage(folder), folder / "metrics.json"
        if metrics.exists():
            yield from _check_file(iteration, metrics)
        elif iteration.done:
            yield _damaged(iteration, metrics, "is missing")


def _check_file(stage: Stage, path: Path) -> Iterator[Finding]:
    try:
        if path.suffix == ".h5":
            stage.check_attributes(path, tables.check(path))
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".safetensors":
            with safe_open(path, "np") as file:
                file.keys()
    except Damaged as damage:
        if path.exists():  # not one that a run going on has just put into a shard
            yield _damaged(stage, path, damage.what)
    except RunError as error:
        yield Finding(path, str(error), "see there")
    except (OSError, ValueError, SafetensorError) as error:
        yield _damaged(stage, path, f"is not readable ({error})")


def _check_manifest(stage: Stage) -> Iterator[Finding]:
    try:
        known = stage.manifest()
    except Damaged as damage:
        yield _damaged(stage, damage.path, damage.what)
        return
    except RunError as error:
        yield Finding(stage.path / "DONE", str(error), "see there")
        return
    present = {str(path.relative_to(stage.path)): path for path in stage.contents()}
    for name, facts in known.items():
        path = present.pop(name, None)
        if path is None:
            yield _damaged(stage, stage.path / name, "is missing")
        elif path.stat().st_size != facts["bytes"]:
            yield _damaged(stage, path, f"has {path.stat().st_size} bytes where it was finished with {facts['bytes']}")
        elif files.sha256(path) != facts["sha256"]:
            yield _damaged(stage, path, "has other content than when it was finished: SHA-256 does not fit")
    for path in present.values():
        yield Finding(path, "is not of this run: the finished stage does not know it", "move it away; it is not read")


def _check_rows(stage: Stage, report: Report) -> Iterator[Finding]:
    """No rollout twice, no chunk missing."""
    try:
        chunks = stage.finished_chunks()
        table = stage.read_chunks(Rollouts) if chunks else None
    except RunError:
        return  # its file is named already
    if table is None:
        return
    report.n_rollouts += len(table)
    if stage.done and chunks != set(range(len(chunks))):
        lacking = sorted(set(range(max(chunks) + 1)) - chunks)
        yield Finding(
            stage.path / "DONE", f"counts, but chunks {lacking} are missing", REDONE.format("they are"), stage
        )
    rows = np.stack([table.question_R, table.sample_R])
    twice = len(table) - np.unique(rows, axis=1).shape[1]
    if twice:
        yield Finding(stage.path, f"holds {twice} rollouts twice", "report it: this must not happen")


def _damaged(stage: Stage, path: Path, what: str) -> Finding:
    made_again = "its chunks are" if path.name.startswith(("chunk-", "shard-")) else f"{path.parent.name} is"
    return Finding(path, what, REDONE.format(made_again), stage)
