"""A pool from files: read, checked, decontaminated and written once, on root; every rank opens what was written."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..records import Question, Questions
from ..store import RunDir, Stage
from . import clean, columns, shards, sources
from .pools import Pool, by_subject
from .settings import Config

LAYOUT = 1  # of what is written; part of its key


def load(config: Config, store: RunDir, benchmarks: Mapping[str, Sequence[Question]]) -> Pool:
    """The pool, its texts on disk. Collective; only root reads the files, and only once for all runs that share them.

    Args:
        benchmarks: what is evaluated, by name: its questions leave the pool.

    Raises:
        RunError: a file is missing or damaged; rows are bad and `on_bad` is fail; nothing is left.
    """
    paths, avoided = [], {}

    def on_root():
        nonlocal paths, avoided
        paths = sources.resolve(columns.names(config.path), columns.names(config.files))
        avoided = benchmarks if config.decontaminate else {}
        return _key(config, paths, avoided)

    key = store.world.on_root(on_root)
    loaded = store.shared("pool", key, lambda stage: shards.make(config, paths, avoided, stage), opened)
    examples = store.world.on_root(lambda: by_subject(read_questions(config.examples)) if config.examples else {})
    return replace(loaded, examples=examples)


def read_questions(path: str, config: columns.Config | None = None) -> list[Question]:
    """The questions of a benchmark or of examples, in memory.

    Raises:
        RunError: no such file; a line that is no question, or repeats an id: file and line named.
    """
    found = list(clean.rows(sources.resolve([path]), config or columns.Config(), keep_duplicates=True))
    bad = [item for item in found if isinstance(item, clean.Problem)]
    if bad:
        raise clean.told(bad, len(bad), len(found), "mend the file")
    return list(Questions.of(found))


def _key(config: Config, paths: Sequence[Path], avoided: Mapping[str, Sequence[Question]]) -> str:
    """What the written pool depends on."""
    facts = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    texts = [(name, q.id, q.text) for name, questions in avoided.items() for q in questions]
    return repr((LAYOUT, replace(config, examples=None), facts, hashlib.sha256(repr(texts).encode()).hexdigest()))


def opened(stage: Stage) -> Pool:
    """The pool that `make` wrote; texts stay on disk."""
    table, held_out = stage.read_chunks(Questions), stage.read("split", shards.Split).held_out_N
    counts = stage.read_json("counts")
    if not held_out.any():
        return Pool(table, notes=_notes(counts, stage.path), fingerprint=counts["fingerprint"])
    return Pool(
        table.take(np.flatnonzero(~held_out)),
        table.take(np.flatnonzero(held_out)),
        notes=_notes(counts, stage.path),
        fingerprint=counts["fingerprint"],
    )


def _notes(counts: dict, folder: Path) -> tuple[str, ...]:
    """What happened to the rows, in words."""
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
