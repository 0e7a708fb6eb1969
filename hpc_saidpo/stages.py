"""A run, and the stages of one iteration: each calls the stage.py of one box. `loop.py` defines their order."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from . import difficulty
from .clusters.kernel import write_explained_draw
from .clusters.stage import Clustered
from .doctor import tryout
from .dpo.stage import Round, load_round, train_round, write_pairs
from .errors import Ended
from .evaluate.benchmarks import Benchmark
from .evaluate.intervals import accuracy
from .evaluate.table import percent
from .metrics import iteration, signatures
from .policy.cache import load_policy
from .policy.locate import fingerprint
from .policy.stage import model_folder
from .pool.pool import Pool
from .progress import log
from .records import Draw, Explored, Outcome, Pairs, Prompts, Question, Rollouts, pick, seeded
from .rollouts.chunks import expected_tokens
from .rollouts.prompts import Renderer
from .rollouts.request import Request, load_rollouts
from .rollouts.rounds import collect_in_rounds
from .rollouts.stage import collect_rollouts
from .sampler import Sampler
from .sampler.probe import choose
from .sampler.stage import load_draw
from .settings.rollouts import Sampling
from .settings.whole import Evaluation, Settings
from .store.run import RunDir
from .store.stage import Stage

if TYPE_CHECKING:
    from .policy.model import Policy

T = TypeVar("T")
HOW_TO_CONTINUE = " (loop.stop_after): start again without it to continue"


@dataclass
class Job:
    """A run: its fixed parts, and its progress. Every method is collective.

    Attributes:
        pool, benchmarks, clustered: results of the preparation (`prepare.Prepared`).
        policy_path: the newest policy, a Hugging Face folder.
        before, scores, best: accuracy by benchmark before the first iteration, now, and the best so far.
        drawn, records, unfinished: the last draw; figures of finished iterations, as on disk; of the one in progress.
        on_finished: called on root with the number of each finished iteration.
    """

    settings: Settings
    run: RunDir
    pool: Pool
    benchmarks: list[Benchmark]
    clustered: Clustered
    policy_path: str = ""
    before: dict[str, dict] = field(default_factory=dict)
    scores: dict[str, dict] = field(default_factory=dict)
    best: dict[str, dict] = field(default_factory=dict)
    drawn: Draw | None = None
    records: list[dict] = field(default_factory=list)
    unfinished: dict[str, Any] = field(default_factory=dict)
    on_finished: Callable[[int], None] = field(default=lambda t: None)

    @property
    def n_iterations(self) -> int:
        return self.settings.loop.iterations

    def start(self) -> str:
        """Locate the first policy and evaluate it. Returns its folder.

        Raises:
            Ended: loop.stop_after is reached.
        """
        self.policy_path = model_folder(self.settings.policy.path, self.run)
        if self.settings.loop.stop_after == "prepare":
            raise Ended("the preparation" + HOW_TO_CONTINUE)
        base = Stages(self.settings, self.run, self.pool, self.benchmarks, "base", self.policy_path)
        self.before = self.scores = self.best = base.scores()
        if self.settings.loop.stop_after == "base":
            raise Ended("the base evaluation" + HOW_TO_CONTINUE)
        return self.policy_path

    def sampler(self) -> Sampler:
        """Return the dynamic sampler over the pool's questions."""
        config, k = self.settings, self.settings.rollouts.k
        return self.clustered.sampler(config.sampler, config.run.seed, None, k, config.difficulty, self.pool.too_long)

    def iteration(self, t: int, policy_path: str) -> Iteration:
        """Return the stages of iteration t."""
        facts = {"t": t, "before": self.drawn, "clusters_kind": self.clustered.kind}
        self.unfinished = {"iteration": t}
        return Iteration(self.settings, self.run, self.pool, self.benchmarks, t, policy_path, self, facts)

    def outcome(self, ended: Ended | None = None) -> Outcome:
        """Return the end of the run. `ended`: the exception that ended it early."""
        stopped, paused = (str(ended), "") if ended and ended.is_failure else ("", str(ended or ""))
        return Outcome(self.before, self.records, self.policy_path, stopped, paused, self.clustered.health)


@dataclass(frozen=True)
class Stages:
    """The stages of one policy in one iteration, or before the first (t="base"). Every method is collective."""

    settings: Settings | Evaluation
    run: RunDir
    pool: Pool
    benchmarks: list[Benchmark]
    t: int | str
    policy_path: str

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
        self, name: str, questions: Sequence[Question], question_Q: np.ndarray, k: int, sampling: Sampling, **known: Any
    ) -> Rollouts:
        def compute(stage: Stage) -> None:
            run, config, world = self.settings.run, self.settings.rollouts, self.run.world
            seed, needed = (run.seed, -1 if isinstance(self.t, str) else self.t, name), pick(questions, question_Q)
            renderer = Renderer(needed, self.pool.examples, self._policy(), config.prompt, self.run.started())
            request = Request(renderer, question_Q, k, sampling, seed, drained=run.deterministic, **known)
            collect_in_rounds(stage, request, lambda part, of: collect_rollouts(part, of, config, world), world)

        return self._stage(name, compute, load_rollouts, uses_policy=True)

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
        facts = {"policy_hash": lambda: fingerprint(self.policy_path, self.run.sha256s)} if uses_policy else {}
        return self.run.stage(self.t, name, compute, load, **facts)


@dataclass(frozen=True)
class Iteration(Stages):
    """The stages of one iteration of a run, in the order of their work. Every method is collective.

    A method raises `Ended` after its stage when loop.stop_after names that stage.

    Attributes:
        facts: results of its stages so far, by their names in `metrics.iteration.IterationFacts`.
    """

    settings: Settings
    t: int
    job: Job
    facts: dict[str, Any]

    def probe(self, sampler: Sampler) -> Rollouts:
        """Return K rollouts of a small sample of the pool with the current policy."""
        chosen_P = self.run.world.on_root(lambda: self._choose_probed(np.flatnonzero(~sampler.never_N)))
        self.facts["probed"] = probed = self._pool_rollouts("probe", chosen_P, sampler)
        seen = difficulty.measure(probed)
        self.job.unfinished |= iteration.describe_probe(seen, difficulty.in_band(seen, self.settings.difficulty))
        self._stop_after("probe")
        return probed

    def draw(self, sampler: Sampler) -> Draw:
        """Return the questions that this iteration explores."""
        share, weight_C = self.run.world.on_root(lambda: (sampler.entropy_share(), sampler.cluster_weights()))
        self.facts.update(counts=sampler.counts, weight_C=weight_C, entropy_share=share)
        drawn = self._stage("draw", lambda stage: write_explained_draw(stage, sampler, self.run.world), load_draw)
        self._stop_after("draw")
        return drawn

    def explore(self, drawn: Draw, probed: Rollouts, sampler: Sampler) -> Explored:
        """Return K rollouts of each drawn question; rollouts of the probe are used again."""
        new_Q = drawn.question_Q[~np.isin(drawn.question_Q, probed.question_R)]
        fresh = self._pool_rollouts("explore", new_Q, sampler)
        self._stop_after("explore")
        drawn = drawn.explored(np.concatenate([fresh.question_R, probed.question_R]))
        sampler.note_drawn(drawn.question_Q)
        if self.settings.rollouts.adaptive:
            log.info("  %s", iteration.describe_savings(fresh, self.settings.rollouts.k))
        again = np.flatnonzero(np.isin(probed.question_R, drawn.question_Q))
        self.facts["explored"] = whole = Rollouts.concat([fresh, probed.take(again)]).sorted()
        self.facts["draw"] = self.job.drawn = drawn
        return Explored(whole, fresh, self.settings.rollouts.n_fixed("explore"))

    def pair(self, explored: Explored) -> Pairs:
        """Return preference pairs from the explored questions in the band, hardest first.

        Raises:
            Ended: no question yields a pair (depletion).
        """
        config, rollouts = self.settings, explored.rollouts

        def compute(stage: Stage) -> None:
            seed, cluster_N = (config.run.seed, self.t), self.job.clustered.cluster_N
            prompts = functools.partial(self._stored_prompts, ("probe", "explore"))
            write_pairs(stage, rollouts, prompts, cluster_N, config.difficulty, config.pairs, seed, self.run.world)

        pairs = self._stage("pairs", compute, lambda stage: stage.read("pairs", Pairs), uses_policy=True)
        self._stop_after("pairs")
        measured, band = difficulty.measure(rollouts), config.difficulty
        self.job.unfinished |= iteration.describe_exploration(rollouts, measured, band, pairs, config.rollouts)
        if len(pairs) == 0:
            raise Ended(signatures.no_pairs(self.t, self.job.unfinished, rollouts), is_failure=True)
        self.facts["pairs"] = pairs
        return pairs

    def train(self, pairs: Pairs) -> str:
        """Do one DPO round on the pairs. Returns the folder of the new policy."""
        config = self.settings
        round_ = Round(self.policy_path, pairs, config.run.seed, self.t, config.run.deterministic)

        def compute(stage: Stage) -> None:
            self._policy()
            train_round(stage, round_, config.policy, config.rollouts, config.dpo, self.run)

        folder, self.facts["steps"] = self._stage("policy", compute, load_round, uses_policy=True)
        self.job.policy_path = folder
        self._stop_after("policy")
        return folder

    def evaluate(self, policy_path: str) -> dict[str, dict]:
        """Return the accuracy of the new policy on every benchmark; {} in iterations that evaluate.every skips."""
        if (self.t + 1) % self.settings.evaluate.every and self.t + 1 != self.settings.loop.iterations:
            return {}
        return Stages(self.settings, self.run, self.pool, self.benchmarks, self.t, policy_path).scores()

    def finish(self, scores: dict[str, dict]) -> None:
        """Record the iteration's figures. With that the iteration is finished.

        Raises:
            Ended: a failure signature stops the run (loop.on_signature), or loop.stop_after is reached.
        """
        job, config, run = self.job, self.settings, self.run
        done = iteration.IterationFacts(**self.facts, scores=scores, scores_before=job.scores, best=job.best)
        cluster_N = np.delete(job.clustered.cluster_N, job.pool.too_long)
        figures = iteration.describe_iteration(done, config.sampler, config.difficulty, config.rollouts, cluster_N)
        was_finished = run.has_finished(self.t)
        job.scores, job.best = scores or job.scores, iteration.update_best(job.best, scores)
        record = run.finish_iteration(self.t, {**figures, "policy": job.policy_path, "config_hash": run.config_hash})
        job.records, job.unfinished = [*job.records, record], {}
        run.world.on_root(lambda: job.on_finished(self.t))
        for warning in [*record["signatures"], *([signatures.typical(done.explored)] if record["signatures"] else [])]:
            log.warning("  %s", warning)
        for t in [] if run.has_finished(self.t + 1) else run.remove_policies(config.loop.keep):
            log.info("  loop.keep=%s: the policy of iteration %d is removed", config.loop.keep, t)
        stopped = signatures.stops(record, config.loop.on_signature, run.config_hash)
        if stopped and not run.has_finished(self.t + 1):  # an earlier start has already continued after this iteration
            raise Ended(stopped, is_failure=True)
        if config.loop.stop_after == "evaluate" and not was_finished:
            raise Ended(f"iteration {self.t}" + HOW_TO_CONTINUE)

    def _pool_rollouts(self, name: str, question_Q: np.ndarray, sampler: Sampler) -> Rollouts:
        """K rollouts of questions of the pool. Expected lengths come from earlier rollouts, or from the cluster."""
        config, tokens_N = self.settings.rollouts, sampler.history.tokens_N
        known: dict[str, Any] = {"expected_Q": expected_tokens(tokens_N, self.job.clustered.cluster_N, question_Q)}
        if name == "explore":
            prior_Q = self.run.world.on_root(lambda: sampler.priors(question_Q) if config.adaptive else {})
            known |= {"prior_Q": prior_Q, "budget": self.settings.sampler.budget, "band": self.settings.difficulty}
        return self._rollouts(name, self.pool.questions, question_Q, config.k, config.sampling(), **known)

    def _choose_probed(self, allowed: np.ndarray) -> np.ndarray:
        seed = (self.settings.run.seed, self.t, "choose")
        return allowed[choose(self.job.clustered.cluster_N[allowed], self.settings.probe, seeded(*seed))]

    def _stored_prompts(self, names: Sequence[str]) -> Prompts:
        """The prompts of some stages of this iteration. Not collective."""
        return Prompts.concat(self.run.finished_stage(self.t, name).read("prompts", Prompts) for name in names)

    def _stop_after(self, stage: str) -> None:
        """End the run if loop.stop_after names the stage that was done last, and the iteration is not finished."""
        if stage == self.settings.loop.stop_after and not self.run.has_finished(self.t):
            raise Ended(f"{stage} of iteration {self.t}" + HOW_TO_CONTINUE)
