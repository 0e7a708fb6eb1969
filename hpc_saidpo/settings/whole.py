"""The settings of a whole run, and of a stand-alone evaluation."""

from __future__ import annotations

from pydantic import Field

from .base import group
from .clusters import Clusters
from .difficulty import Difficulty
from .dpo import Dpo
from .evaluate import Evaluate
from .loop import Loop
from .pairs import Pairs
from .policy import Policy
from .pool import Pool
from .probe import Probe
from .report import Report
from .rollouts import Rollouts
from .run import Run
from .sampler import Sampler
from .tags import Tags


@group
class Settings:
    """Every setting of a run."""

    run: Run
    loop: Loop
    pool: Pool
    tags: Tags
    clusters: Clusters
    policy: Policy
    rollouts: Rollouts
    probe: Probe
    difficulty: Difficulty
    sampler: Sampler
    pairs: Pairs
    dpo: Dpo
    evaluate: Evaluate
    report: Report = Field(default_factory=Report)

    def __post_init__(self):
        if self.run.deterministic and self.dpo.strategy == "fsdp":
            raise ValueError(
                "run.deterministic=true requires bit-identical weights on any number of ranks, which dpo.strategy=fsdp "
                "cannot guarantee: use ddp or single, or run.deterministic=false"
            )
        if self.tags.mode == "export" and self.clusters.n == 1:
            raise ValueError("tags.mode=export has nothing to write: a run with clusters.n=1 needs no knowledge points")


@group
class Evaluation:
    """Every setting of a stand-alone evaluation. The pool is needed for few-shot examples and `held_out` only."""

    run: Run
    loop: Loop
    policy: Policy
    rollouts: Rollouts
    evaluate: Evaluate
    pool: Pool | None
