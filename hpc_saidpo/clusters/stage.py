"""Embeddings and clusters of the pool, shared by all runs under one run.root."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .. import progress, settings
from ..parallel.task import Units
from ..progress import log
from ..sampler import Sampler
from ..store.run import RunDir
from ..store.stage import Stage
from . import embed
from .fit import ALGORITHM, Assignment, fit
from .health import health
from .kernel import KernelSampler
from .neighbours import Neighbours


@dataclass(frozen=True)
class Clustered:
    """The pool's clusters, and with clusters.kind=kernel its neighbours.

    Attributes:
        cluster_N: cluster of each question.
        health: of the clustering (`clusters.health`).
        kind: clusters.kind.
        neighbours: on root, with clusters.kind=kernel; else None.
    """

    cluster_N: np.ndarray
    health: dict[str, Any]
    kind: str = "kmeans"
    neighbours: Neighbours | None = None

    def sampler(self, *others: Any) -> Sampler:
        """The sampler over these questions; `others` are the arguments of `Sampler` behind the first."""
        if self.kind == "kernel":
            return KernelSampler(self.neighbours, self.cluster_N, *others)
        return Sampler(self.cluster_N, *others)


def cluster(points: Sequence[Sequence[str]], config: settings.Clusters, probed: float, run: RunDir) -> Clustered:
    """Cluster the pool's questions. Collective.

    Embeddings and clusterings are shared between runs and keyed by their inputs: clusterings with many n need one
    embedding, and results from a GPU are used on a node without one.

    Args:
        points: knowledge points of each question; only root's value is used.
        probed: share of the pool that an iteration probes (probe.fraction).

    Raises:
        RunError: no sentence encoder, more clusters than questions, or clusters.backend cannot run here.
    """
    world, neighbours = run.world, None
    if config.n == 1:
        cluster_N, facts = world.on_root(lambda: (np.zeros(len(points), dtype=np.int64), {}))
    else:
        text_N = world.kept_on_root(lambda: embed.texts(points)) or []
        embedding = embed_all(text_N, config, run)
        cluster_N, facts = assign(text_N, embedding, config, run)
        if config.kind == "kernel":
            neighbours = world.kept_on_root(lambda: _neighbours(text_N, embedding, config, world.device))
    described = world.on_root(lambda: health(cluster_N, points, config.n, probed, facts))
    if config.kind == "kernel":  # the clusters are for tables only: nothing is drawn by them
        described = {**described, "warnings": []}
    return Clustered(cluster_N, described, config.kind, neighbours)


def _neighbours(text_N: Sequence[str], embedding: Stage, config: settings.Clusters, device: torch.device) -> Neighbours:
    found = embedding.read_chunks(embed.Embedding)
    return Neighbours.of(text_N, found.text_U, found.vector_UD, config.neighbours, device)


def embed_all(text_N: Sequence[str], config: settings.Clusters, run: RunDir) -> Stage:
    """Compute the vectors of the distinct texts on all ranks. Returns a stage of `Embedding` in chunks. Collective.

    Only root's texts are used.

    Raises:
        RunError: no sentence encoder.
    """
    world = run.world
    chunks = world.on_root(lambda: embed.chunks(text_N))
    encoder = functools.cache(lambda: embed.load(config.encoder, world.device))

    def write(stage: Stage) -> None:
        done = world.on_root(stage.finished_chunks)
        todo = [index for index in range(len(chunks)) if index not in done]

        def write_chunk(i: int) -> None:
            stage.write_chunk(todo[i], embed.embed(chunks[todo[i]], encoder(), config.batch))

        units = Units("texts", sum(map(len, chunks)), [len(chunks[index]) for index in todo])
        label = f"embedding: {sum(map(len, chunks))} texts"
        with progress.show(label, len(chunks), world.is_root, len(chunks) - len(todo), todo, units) as task:
            world.spread(len(todo), write_chunk, task)

    key = repr((world.on_root(lambda: embed.weights_hash(config.encoder, run.sha256s)), chunks))
    return run.shared("embedding", key, write, lambda stage: stage, resumes=True)


def assign(text_N: Sequence[str], embedding: Stage, config: settings.Clusters, run: RunDir) -> tuple[np.ndarray, dict]:
    """Return the cluster of each question and `Clustering.facts`. Collective; root computes.

    Args:
        text_N: only root's value is used.
        embedding: the stage that `embed_all` returned for these texts.
    """

    def write(stage: Stage) -> None:
        def on_root() -> None:
            vectors = embedding.read_chunks(embed.Embedding)
            clustering = fit(text_N, vectors, config, run.world.device)
            log.info("clusters by %s: %s", clustering.facts["backend"], clustering.facts["why"])
            stage.write("assignment", clustering.assignment)
            stage.write_json("facts", clustering.facts)

        run.world.on_root(on_root)

    texts = run.world.on_root(lambda: hashlib.sha256("\0".join(text_N).encode()).hexdigest())
    return run.shared(
        "clusters",
        repr((embedding.path.name, texts, config.n, config.seed, ALGORITHM)),
        write,
        lambda stage: (stage.read("assignment", Assignment).cluster_N, stage.read_json("facts", dict)),
    )
