"""What a run does before its first iteration: load the pool, check its gold answers, cluster its questions."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from . import clusters, policy, pool, progress, tags
from . import grader as grading
from .grader import Grader, Limits
from .loaded import load_policy
from .parallel import World
from .progress import log
from .records import Question, Questions, RunError, joined, pick
from .store import RunDir, Stage

GRADED_GOLDS = 256  # of a rank's share that are graded, where that takes a process; evenly spread


def check_golds(named: Mapping[str, Sequence[Question]], world: World, grader: Grader) -> None:
    """Check every gold answer against itself, each rank its share, and tell the rate. Collective.

    Mathematics by text, all of it; what takes a process to grade on GRADED_GOLDS questions of each rank at most.

    Raises:
        RunError: a verifier that questions ask for cannot grade here.
    """
    for name, questions in named.items():
        begin, end = (len(questions) * r // world.size for r in (world.rank, world.rank + 1))
        own = questions[begin:end]
        table = own if isinstance(own, Questions) else None
        verifier_N = np.array(table.verifier_N if table else [q.verifier for q in own], dtype=object)
        check_verifiers(set(verifier_N), world, grader.limits)
        golds = zip(table.id_N, table.answer_N, strict=True) if table else ((q.id, q.answer) for q in own)
        is_math_N = verifier_N == "math"
        by_text = grading.self_check(gold for gold, is_math in zip(golds, is_math_N, strict=True) if is_math)
        others = np.flatnonzero(~is_math_N)
        some = others[:: max(1, -(-len(others) // GRADED_GOLDS))]
        graded = grading.by_grading(pick(own, some).values(), grader)
        reports = world.gather(grading.together([by_text, graded]))
        log.info("%s: %s", name, grading.together(reports).text())


def check_verifiers(own: Collection[str], world: World, limits: Limits) -> None:
    """Refuse to start where a verifier that a rank needs cannot grade on some rank. Collective.

    Raises:
        RunError: on every rank; names the verifier, the first such rank, and what to do.
    """
    needed, problem = sorted(set().union(*world.gather(set(own)))), ""
    try:
        grading.check(needed, limits)
    except RunError as error:
        problem = str(error)
    for rank, told in enumerate(world.gather(problem)):
        if told:
            raise RunError(f"rank {rank}: {told}")


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


def model_folder(path: str, world: World, store: RunDir) -> str:
    """Where a model lies, as a Hugging Face folder; a GGUF file is converted once. Collective."""
    located = world.on_root(lambda: policy.locate(path))
    if not policy.is_gguf(located):
        return located

    def convert(stage: Stage):
        world.on_root(lambda: stage.write_folder("model", functools.partial(policy.convert_gguf, located)))

    name = f"{Path(located).name} {Path(located).stat().st_size}"
    return store.shared("policy", name, convert, lambda stage: str(stage.path / "model"))


def tag(questions: Sequence[Question], config, world: World, store: RunDir) -> list[tuple[str, ...]]:
    """The knowledge points of each question, as `config.tags` says; a tagger's replies are shared between runs.

    Raises:
        RunError: a question has none in the pool, the tagger cannot answer, or the run was made with other answers.
        tags.Exported: requests were written to a file (tags.mode=export).
    """
    own = config.tags
    if own.mode == "column":
        return tags.of(questions)
    local = None
    if own.mode == "model":
        folder = model_folder(own.model, world, store)
        fingerprint = world.on_root(lambda: policy.fingerprint(folder))
        chosen = replace(config.policy, path=folder)
        load = functools.partial(load_policy, folder, chosen, world.device)
        local = tags.Local(fingerprint, load, config.rollouts.generate, own.max_new_tokens)
    shown = functools.partial(progress.stage, is_root=world.is_root)
    points = tags.Tagging(own, store, shown, local).of(questions)
    digest = world.on_root(lambda: _digest(points))
    remedy = (
        "its replies were made again, or other ones imported: start another run with run.name=..., or go on with "
        "run.accept_changes=true"
    )
    store.hold_to("tags", {"model": own.model, "points": digest}, remedy, config.run.accept_changes)
    return points


def _digest(points: Sequence[Sequence[str]]) -> str:
    return hashlib.sha256("\n".join(map(joined, points)).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def cluster(points: Sequence[Sequence[str]], config, world: World, store: RunDir) -> tuple[np.ndarray, dict]:
    """The cluster of each question, and the health of the clustering. Collective.

    Embeddings and clusterings are shared between runs, keyed by what they are made of: clusterings of many n embed
    once, and what a GPU made counts on a node without one.

    Args:
        points: knowledge points of each question.

    Raises:
        RunError: no sentence encoder, more clusters than questions, or clusters.backend cannot run here.
    """
    if config.clusters.n == 1:
        cluster_N, facts = np.zeros(len(points), dtype=np.int64), {}
    else:
        text_N = clusters.texts(points)
        cluster_N, facts = assign(text_N, embed(text_N, config.clusters, world, store), config.clusters, world, store)
    return cluster_N, clusters.health(cluster_N, points, config.clusters.n, config.probe.fraction, facts)


def embed(text_N: Sequence[str], config: clusters.Config, world: World, store: RunDir) -> Stage:
    """The vectors of the distinct texts, made by all ranks: a stage of `clusters.Embedding` in chunks. Collective.

    Raises:
        RunError: no sentence encoder.
    """
    chunks = world.on_root(lambda: clusters.chunks(text_N))
    encoder = functools.cache(lambda: clusters.load(config.encoder, world.device))

    def write(stage: Stage):
        done = world.on_root(stage.finished_chunks)
        todo = [index for index in range(len(chunks)) if index not in done]

        def write_chunk(i: int):
            stage.write_chunk(todo[i], clusters.embed(chunks[todo[i]], encoder(), config.batch))

        world.spread(len(todo), write_chunk)

    key = repr((world.on_root(lambda: clusters.weights_hash(config.encoder)), chunks))
    return store.shared("embedding", key, write, lambda stage: stage, resumes=True)


def assign(
    text_N: Sequence[str], embedding: Stage, config: clusters.Config, world: World, store: RunDir
) -> tuple[np.ndarray, dict]:
    """The cluster of each question, and `clusters.Found.facts`. Collective; root computes.

    Args:
        embedding: what `embed` gave for these texts.
    """

    def write(stage: Stage):
        def on_root():
            vectors = embedding.read_chunks(clusters.Embedding)
            found = clusters.fit(text_N, vectors, config, world.device)
            log.info("clusters by %s: %s", found.facts["backend"], found.facts["why"])
            stage.write("assignment", found.assignment)
            stage.write_json("facts", found.facts)

        world.on_root(on_root)

    texts = hashlib.sha256("\0".join(text_N).encode()).hexdigest()
    return store.shared(
        "clusters",
        repr((embedding.path.name, texts, config.n, config.seed, clusters.ALGORITHM)),
        write,
        lambda stage: (stage.read("assignment", clusters.Assignment).cluster_N, stage.read_json("facts")),
    )
