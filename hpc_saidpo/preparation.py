"""What a run does before its first iteration: load the pool, check its gold answers, cluster its questions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from . import clusters, pool
from .grader import self_check, together
from .parallel import World
from .progress import log
from .records import Question, Questions
from .store import RunDir, Stage


def check_golds(named: Mapping[str, Sequence[Question]], world: World) -> None:
    """Check every gold answer against itself, each rank its share, and tell the rate. Collective."""
    for name, questions in named.items():
        begin, end = (len(questions) * r // world.size for r in (world.rank, world.rank + 1))
        own = questions[begin:end]
        golds = (
            zip(own.id_N, own.answer_N, strict=True) if isinstance(own, Questions) else ((q.id, q.answer) for q in own)
        )
        log.info("%s: %s", name, together(world.gather(self_check(golds))).text())


def load_pool(config, store: RunDir, read: Mapping[str, Sequence[Question]]) -> pool.Pool:
    """The pool without the questions of the benchmarks; the same one as when the run began. Collective.

    Args:
        read: the questions of benchmarks, by name (`benchmarks.read`).

    Raises:
        RunError: as `pool.load` does; or the run was made with other questions.
    """
    loaded = pool.load(config.pool, store, read)
    for note in loaded.notes:
        log.info(note)
    if loaded.fingerprint:
        remedy = (
            "its question files or the benchmarks that they are compared with were changed: change them back, or "
            "start another run with run.name=..."
        )
        store.hold_to("pool", {"fingerprint": loaded.fingerprint, "questions": len(loaded.questions)}, remedy)
    return loaded


def cluster(points: Sequence[Sequence[str]], config: clusters.Config, world: World, store: RunDir) -> np.ndarray:
    """The cluster of each question; embeddings and clusters are shared between runs, keyed by content."""
    if config.n == 1:
        return np.zeros(len(points), dtype=np.int64)
    text_N = clusters.texts(points)
    distinct = sorted(set(text_N))
    row_of = {text: row for row, text in enumerate(distinct)}
    order = hashlib.sha256(np.fromiter(map(row_of.get, text_N), np.int64, len(text_N)).tobytes()).hexdigest()
    device = world.device.type

    def write_embedding(stage: Stage):
        world.on_root(lambda: stage.write("embedding", clusters.embed(distinct, config.encoder, device)))

    def write_assignment(stage: Stage):
        world.on_root(lambda: stage.write("assignment", clusters.fit(text_N, embedding, config)))

    embedding = store.shared(
        "embedding",
        repr((config.encoder, distinct)),
        write_embedding,
        lambda stage: stage.read("embedding", clusters.Embedding),
    )
    assignment = store.shared(
        "clusters",
        repr((config, distinct, order)),
        write_assignment,
        lambda stage: stage.read("assignment", clusters.Assignment),
    )
    return assignment.cluster_N
