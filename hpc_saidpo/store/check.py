"""Check a run folder for damage. A repair sets damaged files aside and deletes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from ..errors import RunError, shown, words_of
from ..reading import parse_json, parse_yaml, read_text
from ..records import Rollouts
from . import files, tables
from .contents import unfinished
from .layout import iterations_of
from .lock import Lock
from .stage import Stage, stages_of
from .tables import Damaged

REMEDY = "set it aside (--repair) and start the run again: {} computed again, and nothing else"


@dataclass(frozen=True)
class Finding:
    """One problem in a run folder.

    Attributes:
        path: the file.
        problem: the problem, as the end of a sentence that begins with the path.
        remedy: the action that the user has to take.
        stage: the stage that will be computed again in part; None if --repair cannot help.
    """

    path: Path
    problem: str
    remedy: str
    stage: Stage | None = None


@dataclass
class Report:
    """Numbers and findings of `check`."""

    n_stages: int = 0
    n_unfinished: int = 0
    n_files: int = 0
    n_rollouts: int = 0
    n_temporary: int = 0
    findings: list[Finding] = field(default_factory=list)


def check(run: Path) -> Report:
    """Read a whole run folder and compare it with its checksums. The run may be in progress.

    Raises:
        RunError: the folder is not a run folder.
    """
    if not (run / "config.yaml").is_file():
        raise RunError(f"{shown(run)} is no run folder: it has no config.yaml")
    report = Report(n_temporary=len(unfinished(run)))
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
    """Set damaged files aside, so that the next start computes them again. Return (from, to) of every moved file.

    Raises:
        RunError: a job uses the run.
    """
    lock = Lock(run / "lock")
    lock.acquire(print)
    try:
        return list(_set_aside(findings))
    finally:
        lock.release()


def _set_aside(findings: list[Finding]) -> Iterator[tuple[Path, Path]]:
    for finding in findings:
        if finding.stage is None:
            continue
        # DONE first: after a kill in between, the stage is unfinished and not complete without its file.
        for path in (finding.stage.path / "DONE", finding.path):
            if path.exists():
                kept = files.old_name(path, "damaged")
                files.move(path, kept)
                yield path, kept


def _unreadable(run: Path) -> Iterator[Finding]:
    """Check the files of the run that belong to no stage."""
    for path, parse in ((run / "config.yaml", parse_yaml), (run / "env.json", parse_json)):
        try:
            if path.exists() and not parse(read_text(path)):
                raise ValueError("it is empty")
        except (ValueError, OSError) as error:
            problem = f"is not readable ({words_of(error)})"
            yield Finding(path, problem, "put back a copy, or move it away and start again")

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
            parse_json(read_text(path))
        elif path.suffix == ".safetensors":
            with safe_open(path, "np") as file:
                file.keys()
    except Damaged as damage:
        if path.exists():  # a run in progress may have sealed the chunk a moment ago
            yield _damaged(stage, path, damage.problem)
    except RunError as error:
        yield Finding(path, str(error), "see the message")
    except (OSError, ValueError, SafetensorError) as error:
        yield _damaged(stage, path, f"is not readable ({words_of(error)})")


def _check_manifest(stage: Stage) -> Iterator[Finding]:
    try:
        known = stage.manifest()
    except Damaged as damage:
        yield _damaged(stage, damage.path, damage.problem)
        return
    except RunError as error:
        yield Finding(stage.path / "DONE", str(error), "see the message")
        return
    present = {str(path.relative_to(stage.path)): path for path in stage.contents()}
    try:
        discarded = stage.discarded()
    except Damaged as damage:
        yield Finding(damage.path, damage.problem, "put back a copy, or remove it and restore the files that it named")
        return
    for name, facts in known.items():
        path = present.pop(name, None)
        if Path(name).parts[0] in discarded:
            continue
        if path is None:
            yield _damaged(stage, stage.path / name, "is missing")
        elif path.stat().st_size != facts["bytes"]:
            yield _damaged(stage, path, f"has {path.stat().st_size} bytes where it was finished with {facts['bytes']}")
        elif files.sha256(path) != facts["sha256"]:
            yield _damaged(stage, path, "has other content than at the end of its stage: SHA-256 does not fit")
    for path in present.values():
        yield Finding(path, "is not part of this run: the manifest does not list it", "move it away; it is not read")


def _check_rows(stage: Stage, report: Report) -> Iterator[Finding]:
    """Check that no rollout occurs twice and no chunk is missing."""
    try:
        chunks = stage.finished_chunks()
        table = stage.read_chunks(Rollouts) if chunks else None
    except RunError:
        return  # the damaged file is among the findings
    if table is None:
        return
    report.n_rollouts += len(table)
    if stage.done and chunks != set(range(len(chunks))):
        lacking = sorted(set(range(max(chunks) + 1)) - chunks)
        yield Finding(
            stage.path / "DONE", f"exists, but chunks {lacking} are missing", REMEDY.format("they are"), stage
        )
    rows = np.stack([table.question_R, table.sample_R])
    twice = len(table) - np.unique(rows, axis=1).shape[1]
    if twice:
        yield Finding(stage.path, f"holds {twice} rollouts twice", "report it as a bug")


def _damaged(stage: Stage, path: Path, problem: str) -> Finding:
    lost = "its chunks are" if path.name.startswith(("chunk-", "shard-")) else f"{path.parent.name} is"
    return Finding(path, problem, REMEDY.format(lost), stage)
