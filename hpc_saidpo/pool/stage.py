"""The pool of a run: read from files once and stored on disk, or generated."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import settings
from ..progress import log
from ..records import Question, Questions
from ..store.run import RunDir
from ..store.stage import Stage
from . import columns, generated, marks, sources, writer
from .pool import Pool, by_subject
from .questions import read_questions

LAYOUT = 3  # version of the stored layout; part of the key


def load_pool(config: settings.Pool, run: RunDir, benchmarks: Mapping[str, Sequence[Question]] | None = None) -> Pool:
    """Load or generate the pool. Collective: the same pool on every rank.

    All ranks together read, check and write a pool from files, once for all runs that share it; its texts stay on disk.
    Root makes a generated pool.

    Args:
        benchmarks: the questions of each evaluated benchmark; they are removed from a pool from files.

    Raises:
        RunError: a file is missing or damaged; rows are bad and `on_bad` is fail; no question is left; a setting is
            wrong. Names the file and line, or the setting.
    """
    if isinstance(config, settings.Files):
        return _load_files(config, run, (benchmarks or {}) if config.decontaminate else {})
    return run.world.on_root(lambda: generated.make(config))


def load_pool_again(config: settings.Pool, run: RunDir, benchmarks: Mapping[str, Sequence[Question]]) -> Pool:
    """Load the pool of a run: the same questions as at its start. Logs the number of rows left out. Collective.

    Raises:
        RunError: as `load_pool`; or the run began with other questions.
    """
    pool = load_pool(config, run, benchmarks)
    for note in pool.notes:
        log.info(note)
    if pool.fingerprint:
        remedy = (
            "its question files, or the benchmarks that they are compared with, were changed: change them back, or "
            "start another run with run.name=..."
        )
        run.require_same("pool", {"fingerprint": pool.fingerprint, "questions": len(pool.questions)}, remedy)
    return pool


def _load_files(config: settings.Files, run: RunDir, benchmarks: Mapping[str, Sequence[Question]]) -> Pool:
    world = run.world
    avoided = {name: [(q.id, q.text) for q in questions] for name, questions in benchmarks.items()}

    def on_root() -> tuple[list[Path], str]:
        paths = sources.resolve(columns.as_tuple(config.path), columns.as_tuple(config.files))
        names = [path.name for path in paths]
        contents = list(zip(sources.labels(paths), names, run.sha256s(paths), strict=True))
        return paths, _key(config, contents, avoided)

    paths, key = world.on_root(on_root)
    pool = run.shared("pool", key, lambda stage: writer.write_pool(config, paths, avoided, stage, world), read_pool)
    examples = world.on_root(lambda: by_subject(read_questions(config.examples)) if config.examples else {})
    return replace(pool, examples=examples)


def _key(config: settings.Files, contents: Sequence[tuple[str, ...]], avoided: Mapping[str, Any]) -> str:
    """Return a text with everything that the stored pool depends on: not the place of its files, nor their times.

    Args:
        contents: label, name and SHA-256 of each file.
        avoided: (id, text) of the questions of each benchmark.
    """
    texts = hashlib.sha256(repr(avoided).encode()).hexdigest()
    return repr((LAYOUT, replace(config, path="-", files=None, examples=None), contents, texts))


def read_pool(stage: Stage) -> Pool:
    """Open the pool that `writer.write_pool` wrote; texts stay on disk."""
    split, counts = stage.read("split", marks.Split), stage.read_json("counts")
    return Pool(
        stage.read_chunks(Questions, split.row_N[~split.held_out_N]),
        stage.read_chunks(Questions, split.row_N[split.held_out_N]) if split.held_out_N.any() else [],
        notes=_notes(counts, stage.path),
        fingerprint=counts["fingerprint"],
    )


def _notes(counts: dict, folder: Path) -> tuple[str, ...]:
    """Describe in words how many rows were read, kept and left out."""
    n = counts
    left_out = f"{n['bad']} bad, {n['duplicate']} repeated, {n['conflict']} repeated with another answer"
    notes = [
        f"pool: {n['read']} rows read, {n['kept']} kept; left out: {left_out}, {n['contaminated']} in a benchmark "
        f"({n['exact']} exactly)"
    ]
    if n["duplicate"] or n["conflict"] or n["bad"]:
        notes.append(f"  left out: {folder / 'rejects.jsonl'}")
    if n["contaminated"]:
        notes.append(f"  in a benchmark: {folder / 'contaminated.jsonl'}")
    unfilled = n["unfilled"]
    return (*notes, *(f"  pool.columns.{name}={value}: no question has one" for name, value in unfilled.items()))
