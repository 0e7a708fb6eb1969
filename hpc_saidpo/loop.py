"""SAI-DPO: probe, observe, draw, explore, pair, train, evaluate, and repeat (hpc_saidpo/README.md, The method)."""

from __future__ import annotations

from typing import Protocol

from . import difficulty
from .progress import log
from .records import Draw, Explored, Pairs, Rollouts
from .sampler import Sampler


class Step(Protocol):
    """The stages of one iteration with one policy; `stages.Iteration` documents each. Every method is collective."""

    @property
    def t(self) -> int: ...
    def probe(self, sampler: Sampler) -> Rollouts: ...
    def draw(self, sampler: Sampler) -> Draw: ...
    def explore(self, drawn: Draw, probed: Rollouts, sampler: Sampler) -> Explored: ...
    def pair(self, explored: Explored) -> Pairs: ...
    def train(self, pairs: Pairs) -> str: ...
    def evaluate(self, policy_path: str) -> dict[str, dict]: ...
    def finish(self, scores: dict[str, dict]) -> None: ...


class Run(Protocol):
    """A run over a pool. `stages.Job` is one that keeps all results on disk. Every method is collective."""

    @property
    def n_iterations(self) -> int: ...
    def start(self) -> str: ...
    def sampler(self) -> Sampler: ...
    def iteration(self, t: int, policy_path: str) -> Step: ...


def run(job: Run) -> None:
    """Run SAI-DPO to its last iteration. Collective.

    Raises:
        Ended: no question yields a pair, a failure signature ends the run, or loop.stop_after is reached.
    """
    policy_path = job.start()
    sampler = job.sampler()
    for t in range(job.n_iterations):
        log.info("iteration %d of %d, policy %s", t, job.n_iterations, policy_path)
        policy_path = iterate(job.iteration(t, policy_path), sampler)


def iterate(step: Step, sampler: Sampler) -> str:
    """Do one iteration. Returns the folder of the new policy."""
    sampler.begin(step.t)
    probed = step.probe(sampler)
    sampler.observe(difficulty.measure(probed), is_probe=True)
    sampler.note_ungradable(difficulty.ungradable(probed))
    drawn = step.draw(sampler)
    explored = step.explore(drawn, probed, sampler)
    sampler.observe(difficulty.measure(explored.fresh), first_wave=difficulty.measure(explored.first_wave))
    sampler.note_ungradable(difficulty.ungradable(explored.fresh))
    pairs = step.pair(explored)
    policy_path = step.train(pairs)
    step.finish(step.evaluate(policy_path))
    return policy_path
