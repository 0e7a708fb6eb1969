"""The stages of one policy: its graded responses to questions of the pool and of benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from . import difficulty
from .doctor import tryout
from .evaluate.benchmarks import Benchmark
from .evaluate.intervals import accuracy
from .evaluate.table import percent
from .policy.cache import load_policy
from .policy.locate import fingerprint
from .pool.pool import Pool
from .progress import log
from .records import Question, Rollouts, pick
from .rollouts.prompts import Renderer
from .rollouts.stage import Request, collect_rollouts, load_rollouts
from .settings.rollouts import Sampling
from .settings.whole import Evaluation, Settings
from .store.run import RunDir
from .store.stage import Stage

if TYPE_CHECKING:
    from .policy.model import Policy

T = TypeVar("T")


@dataclass(frozen=True)
class Stages:
    """The stages of one policy in one iteration, or before the first (t="base"). Every method is collective.

    Attributes:
        after: called with the name of each stage that was computed.
    """

    settings: Settings | Evaluation
    run: RunDir
    pool: Pool
    benchmarks: list[Benchmark]
    t: int | str
    policy_path: str
    after: Callable[[str], None] = field(default=lambda name: None, kw_only=True)

    def scores(self) -> dict[str, dict]:
        """Return the accuracy of the policy on every benchmark."""
        return {benchmark.name: accuracy(difficulty.measure(graded)) for benchmark, graded in self.answers()}

    def answers(self) -> Iterator[tuple[Benchmark, Rollouts]]:
        """Yield the policy's graded rollouts of one benchmark after the other."""
        config = self.settings.rollouts
        for benchmark in self.benchmarks:
            plan = benchmark.plan
            sampling = Sampling(plan.temperature, plan.top_p, config.max_new_tokens, config.stop)
            question_Q = np.arange(len(benchmark.questions))
            name = f"evaluate/{benchmark.name}"
            graded = self._rollouts(name, benchmark.questions, question_Q, plan.samples, sampling)
            log.info("  %s: accuracy %s", benchmark.name, percent(accuracy(difficulty.measure(graded))["accuracy"]))
            yield benchmark, graded

    def _rollouts(
        self,
        name: str,
        questions: Sequence[Question],
        question_Q: np.ndarray,
        k: int,
        sampling: Sampling,
        expected_Q: dict[int, float] | None = None,
    ) -> Rollouts:
        def compute(stage: Stage) -> None:
            seed = (self.settings.run.seed, -1 if isinstance(self.t, str) else self.t, name)
            request = Request(self._renderer(questions, question_Q), question_Q, k, sampling, seed, expected_Q or {})
            collect_rollouts(stage, request, self.settings.rollouts, self.run.world)

        return self._stage(name, compute, load_rollouts, uses_policy=True)

    def _renderer(self, questions: Sequence[Question], question_Q: np.ndarray) -> Renderer:
        needed, config = pick(questions, question_Q), self.settings
        return Renderer(needed, self.pool.examples, self._policy(), config.rollouts.prompt, self.run.started())

    def _policy(self) -> Policy:
        """Load the policy and try it out, before anything is computed with it."""
        policy = load_policy(self.policy_path, self.settings.policy, self.run.world.device)
        tryout.keep(self.run, policy, self.settings.rollouts.generate, isinstance(self.settings, Settings))
        return policy

    def _stage(
        self, name: str, compute: Callable[[Stage], None], load: Callable[[Stage], T], uses_policy: bool = False
    ) -> T:
        """Compute a stage unless it is done, and load it.

        Args:
            uses_policy: store the policy's hash in its tables.
        """
        is_new: list[bool] = []

        def compute_and_note(stage: Stage) -> None:
            is_new.append(True)
            compute(stage)

        facts = {"policy_hash": lambda: fingerprint(self.policy_path, self.run.sha256s)} if uses_policy else {}
        result = self.run.stage(self.t, name, compute_and_note, load, **facts)
        if is_new:
            self.after(name)
        return result
