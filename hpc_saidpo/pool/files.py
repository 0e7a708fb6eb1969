"""A pool from files: read, checked, decontaminated and written once, by all ranks; each opens what was written."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..records import Question, Questions
from ..store import RunDir, Stage
from . import clean, columns, marks, shards, sources
from .pools import Pool, by_subject
from .settings import Config

LAYOUT = 3  # of what is written; part of its key


def load(config: Config, store: RunDir, benchmarks: Mapping[str, Sequence[Question]]) -> Pool:
    """The pool, its texts on disk. Collective; all ranks read, and only once for all runs that share it.

    Args:
        benchmarks: what is evaluated, by name, root's count: its questions leave the pool.

    Raises:
        RunError: a file is missing or damaged; rows are bad and `on_bad` is fail; nothing is left.
    """
    world = store.world
    avoided = {n: [(q.id, q.text) for q in own] for n, own in benchmarks.items()} if config.decontaminate else {}

    def on_root():
        paths = sources.resolve(columns.names(config.path), columns.names(config.files))
        return paths, _key(config, paths, avoided)

    paths, key = world.on_root(on_root)
    loaded = store.shared("pool", key, lambda stage: shards.make(config, paths, avoided, stage, world), opened)
    examples = world.on_root(lambda: by_subject(read_questions(config.examples)) if config.examples else {})
    return replace(loaded, examples=examples)


def read_questions(path: str, config: columns.Config | None = None) -> list[Question]:
    """The questions of a benchmark or of examples, in memory; repeated ones stay.

    Raises:
        RunError: no such file; a line that is no question, or repeats an id: file and line named.
    """
    files, found, bad = sources.resolve([path]), [], []
    where_of: dict[str, str] = {}
    for file, label in zip(files, sources.labels(files), strict=True):
        for line, row in clean.rows(file, label, config or columns.Config()):
            where = f"{file}:{line}"
            if isinstance(row, clean.Problem):
                bad.append(row)
            elif row[clean.ID] in where_of:
                bad.append(clean.Problem(where, "bad", clean.used(row[clean.ID], where_of[row[clean.ID]]), ""))
            else:
                where_of[row[clean.ID]] = where
                found.append(row)
    if bad:
        raise clean.told(bad, len(bad), len(bad) + len(found), "mend the file")
    return list(Questions.of(found))


def _key(config: Config, paths: Sequence[Path], avoided: Mapping[str, Sequence[tuple[str, str]]]) -> str:
    """What the written pool depends on."""
    facts = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    texts = hashlib.sha256(repr(avoided).encode()).hexdigest()
    return repr((LAYOUT, replace(config, examples=None), facts, texts))


def opened(stage: Stage) -> Pool:
    """The pool that `make` wrote; texts stay on disk."""
    split, counts = stage.read("split", marks.Split), stage.read_json("counts")
    return Pool(
        stage.read_chunks(Questions, split.row_N[~split.held_out_N]),
        stage.read_chunks(Questions, split.row_N[split.held_out_N]) if split.held_out_N.any() else [],
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
