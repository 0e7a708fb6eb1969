"""Trials of bench_claim with clusters.kind=kernel: pass rates are estimated from the most similar questions."""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Sequence

import numpy as np
import torch
from claim_lab import CACHE, Lab, Run, Step, settings_of
from claim_trials import CLUSTERING, Trial, meaning_hash
from claim_words import knowledge_points

from hpc_saidpo import loop, settings
from hpc_saidpo.clusters.embed import Embedding, embed, load, texts
from hpc_saidpo.clusters.kernel import KernelSampler
from hpc_saidpo.clusters.neighbours import Neighbours


def play(lab: Lab, trial: Trial) -> list[dict]:
    """The records of one trial, as `Lab.play` makes them."""
    pool, config = lab.pool(trial.pool, trial.seed, trial.setup.held_out), settings_of(trial)
    text_N = texts(knowledge_points(pool.questions, trial.seed))
    known, n = embedding_of(text_N, config.clusters), config.clusters.neighbours
    neighbours = Neighbours.of(text_N, known.text_U, known.vector_UD, n, torch.device("cpu"))
    others = (config.sampler, trial.seed, None, config.rollouts.k, config.difficulty)
    sampler = KernelSampler(neighbours, np.zeros(len(text_N), dtype=np.int64), *others)
    run = Run(trial, copy.deepcopy(lab.base), pool, lab.grader, {})
    records = [{"tokens": 0, "clusters": 0, **run.scores(trial.setup.samples)}]
    for t in range(trial.setup.iterations):
        step = Step(run, t, sampler)
        loop.iterate(step, sampler)
        records.append(step.record)
    return records


def embedding_of(text_N: Sequence[str], config: settings.Clusters) -> Embedding:
    """The vectors of the distinct texts; from CACHE where they are there."""
    distinct = sorted(set(text_N))
    key = hashlib.sha256(repr((distinct, config.encoder, meaning_hash(CLUSTERING))).encode()).hexdigest()
    path = CACHE / f"vectors-{key[:16]}.npy"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(f".{time.time_ns()}.npy")
        np.save(new, embed(distinct, load(config.encoder, torch.device("cpu")), config.batch).vector_UD)
        new.replace(path)
    return Embedding(distinct, np.load(path))
