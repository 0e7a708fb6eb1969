"""The pool of a run: read from files once and stored on disk, or generated."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import settings
from ..errors import RunError
from ..progress import log
from ..records import Question, Questions
from ..store.run import RunDir
from ..store.stage import Stage
from . import columns, generated, leaks, marks, sources, writer
from .decontaminate import Filter
from .pool import Pool, by_subject
from .questions import read_questions

_KINDS = {"equal": "equal", "contained": "in other sentences", "ngrams": "by n-grams", "numbers": "with other numbers"}
LAYOUT = 4  # version of the stored layout; part of the key


def load_pool(config: settings.Pool, run: RunDir, benchmarks: Mapping[str, Sequence[Question]] | None = None) -> Pool:
    """Load or generate the pool. Collective: the same pool on every rank.

    All ranks together read, check and write a pool from files, once for all runs that share it; its texts stay on disk.
    Root makes a generated pool.

    Args:
        benchmarks: the questions of each evaluated benchmark; they are removed from the pool.

    Raises:
        RunError: a file is missing or damaged; rows are bad and `on_bad` is fail; no question is left; a setting is
            wrong. Names the file and line, or the setting.
    """
    avoided = {name: _texts(questions) for name, questions in (benchmarks or {}).items()}
    if isinstance(config, settings.Files):
        return _load_files(config, run, avoided if config.decontaminate else {})
    return run.world.on_root(lambda: _without_leaks(generated.make(config), _filter(config, avoided)))


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


def separate_examples(
    pool: Pool, config: settings.Pool, run: RunDir, benchmarks: Mapping[str, Sequence[Question]]
) -> Pool:
    """Remove few-shot examples that ask a benchmark's question: every prompt would show its answer. Collective.

    The log names them.
    """
    if isinstance(config, settings.Files) and not config.decontaminate:
        return pool

    def on_root() -> dict[str, list[Question]]:
        known = _filter(config, {name: _texts(questions) for name, questions in benchmarks.items()})
        kept: dict[str, list[Question]] = {subject: [] for subject in pool.examples}
        for subject, examples in pool.examples.items():
            for example, match in zip(examples, known.match([e.text for e in examples]), strict=True):
                if match:
                    benchmark, id = known.named[match.number]
                    says = "few-shot example %s left out: question %s of %s is the same (%s)"
                    log.warning(says, example.id, id, benchmark, match.kind)
                else:
                    kept[subject].append(example)
        return kept

    return replace(pool, examples=run.world.on_root(on_root)) if pool.examples else pool


def _filter(config: settings.Pool, avoided: Mapping[str, Sequence[tuple[str, str]]]) -> Filter:
    is_set = isinstance(config, settings.Files)
    return Filter(avoided, config.ngram_words, config.overlap) if is_set else Filter(avoided)


def _texts(questions: Sequence[Question]) -> list[tuple[str, str]]:
    return [(question.id, question.text) for question in questions]


def _without_leaks(pool: Pool, known: Filter) -> Pool:
    """Return a generated pool without the questions of benchmarks.

    Raises:
        RunError: no question is left.
    """
    parts, n_removed = [], 0
    for questions in (pool.questions, pool.held_out):
        matches = known.match([question.text for question in questions])
        parts.append([question for question, match in zip(questions, matches, strict=True) if not match])
        n_removed += len(questions) - len(parts[-1])
    if not n_removed:
        return pool
    if not parts[0]:
        raise RunError(
            "the question pool is empty: all generated questions are in evaluate.benchmarks; change one of both"
        )
    texts = repr([question.text for part in parts for question in part])
    note = f"pool: {n_removed} generated questions left out, because they are in a benchmark"
    fingerprint = hashlib.sha256(texts.encode()).hexdigest()
    return replace(pool, questions=parts[0], held_out=parts[1], notes=(*pool.notes, note), fingerprint=fingerprint)


def _load_files(config: settings.Files, run: RunDir, benchmarks: Mapping[str, Sequence[tuple[str, str]]]) -> Pool:
    world = run.world

    def on_root() -> tuple[list[Path], dict[str, list[Question]], dict[str, Sequence[tuple[str, str]]], str]:
        paths = sources.resolve(columns.as_tuple(config.path), columns.as_tuple(config.files))
        names = [path.name for path in paths]
        contents = list(zip(sources.labels(paths), names, run.sha256s(paths), strict=True))
        examples = read_questions(config.examples, limits=config.limits) if config.examples else []
        avoided = dict(benchmarks)
        if examples and config.decontaminate:
            avoided[leaks.EXAMPLES] = _texts(examples)
        return paths, by_subject(examples), avoided, _key(config, contents, avoided)

    paths, examples, avoided, key = world.on_root(on_root)
    pool = run.shared("pool", key, lambda stage: writer.write_pool(config, paths, avoided, stage, world), read_pool)
    return replace(pool, examples=examples)


def _key(config: settings.Files, contents: Sequence[tuple[str, ...]], avoided: Mapping[str, Any]) -> str:
    """Return a text with everything that the stored pool depends on: not the place of its files, nor their times.

    Args:
        contents: label, name and SHA-256 of each file.
        avoided: (id, text) of the questions of each benchmark.
    """
    texts = hashlib.sha256(repr(avoided).encode()).hexdigest()
    limits = [config.limits] if config.limits != settings.Limits() else []
    return repr((LAYOUT, replace(config, path="-", files=None, examples=None), contents, texts, *limits))


def read_pool(stage: Stage) -> Pool:
    """Open the pool that `writer.write_pool` wrote; texts stay on disk."""
    split, counts = stage.read("split", marks.Split), stage.read_json("counts", dict)
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
    kinds = ", ".join(
        f"{n[f'in_benchmark_{kind}']} {words}" for kind, words in _KINDS.items() if n[f"in_benchmark_{kind}"]
    )
    leaked = f"{n['in_benchmark']} in a benchmark" + (f" ({kinds})" if kinds else "")
    leaked += f", {n['in_examples']} in pool.examples" * bool(n["in_examples"])
    leaked += f", {n['near_held_out']} as in held_out" * bool(n["near_held_out"])
    notes = [f"pool: {n['read']} rows read, {n['kept']} kept; left out: {left_out}, {leaked}"]
    if n["duplicate"] or n["conflict"] or n["bad"]:
        notes.append(f"  left out: {folder / 'rejects.jsonl'}")
    if n["in_benchmark"] or n["in_examples"] or n["near_held_out"]:
        notes.append(f"  asked elsewhere too: {folder / 'contaminated.jsonl'}")
    if n["other_numbers"]:
        file = folder / "other_numbers.jsonl"
        notes.append(f"  {n['other_numbers']} kept that differ from such questions in numbers only: {file}")
    unfilled = n["unfilled"]
    return (*notes, *(f"  pool.columns.{name}={value}: no question has one" for name, value in unfilled.items()))
