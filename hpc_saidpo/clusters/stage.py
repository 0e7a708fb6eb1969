"""Embeddings and clusters of the pool, shared by all runs under one root."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence

import numpy as np

from .. import settings
from ..progress import log
from ..store.run import RunDir
from ..store.stage import Stage
from . import embed
from .fit import ALGORITHM, Assignment, fit
from .health import health


def cluster(
    points: Sequence[Sequence[str]], config: settings.Clusters, probed: float, run: RunDir
) -> tuple[np.ndarray, dict]:
    """The cluster of each question, and the health of the clustering. Collective.

    Embeddings and clusterings are shared between runs, keyed by what they are made of: clusterings of many n embed
    once, and what a GPU made counts on a node without one.

    Args:
        points: knowledge points of each question.
        probed: share of the pool that an iteration probes (probe.fraction).

    Raises:
        RunError: no sentence encoder, more clusters than questions, or clusters.backend cannot run here.
    """
    if config.n == 1:
        cluster_N, facts = np.zeros(len(points), dtype=np.int64), {}
    else:
        text_N = embed.texts(points)
        cluster_N, facts = assign(text_N, embed_all(text_N, config, run), config, run)
    return cluster_N, health(cluster_N, points, config.n, probed, facts)


def embed_all(text_N: Sequence[str], config: settings.Clusters, run: RunDir) -> Stage:
    """The vectors of the distinct texts, made by all ranks: a stage of `clusters.Embedding` in chunks. Collective.

    Raises:
        RunError: no sentence encoder.
    """
    world = run.world
    chunks = world.on_root(lambda: embed.chunks(text_N))
    encoder = functools.cache(lambda: embed.load(config.encoder, world.device))

    def write(stage: Stage):
        done = world.on_root(stage.finished_chunks)
        todo = [index for index in range(len(chunks)) if index not in done]

        def write_chunk(i: int):
            stage.write_chunk(todo[i], embed.embed(chunks[todo[i]], encoder(), config.batch))

        world.spread(len(todo), write_chunk)

    key = repr((world.on_root(lambda: embed.weights_hash(config.encoder)), chunks))
    return run.shared("embedding", key, write, lambda stage: stage, resumes=True)


def assign(text_N: Sequence[str], embedding: Stage, config: settings.Clusters, run: RunDir) -> tuple[np.ndarray, dict]:
    """The cluster of each question, and `clusters.Found.facts`. Collective; root computes.

    Args:
        embedding: what `embed_all` returned for these texts.
    """

    def write(stage: Stage):
        def on_root():
            vectors = embedding.read_chunks(embed.Embedding)
            found = fit(text_N, vectors, config, run.world.device)
            log.info("clusters by %s: %s", found.facts["backend"], found.facts["why"])
            stage.write("assignment", found.assignment)
            stage.write_json("facts", found.facts)

        run.world.on_root(on_root)

    texts = hashlib.sha256("\0".join(text_N).encode()).hexdigest()
    return run.shared(
        "clusters",
        repr((embedding.path.name, texts, config.n, config.seed, ALGORITHM)),
        write,
        lambda stage: (stage.read("assignment", Assignment).cluster_N, stage.read_json("facts")),
    )
