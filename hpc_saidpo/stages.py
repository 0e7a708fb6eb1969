"""A run, and the stages of one iteration: each is a call of a box's own stage.py. `loop.py` says in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from . import difficulty
from .clusters.health import describe
from .clusters.stage import cluster
from .doctor import inputs
from .dpo.pairs import changed_by_early_decision
from .dpo.stage import Round, load_round, train_round, write_pairs
from .errors import Ended
from .evaluate import benchmarks
from .evaluate.benchmarks import Benchmark
from .evaluate.intervals import accuracy
from .evaluate.table import percent
from .grader.grader import grader_of
from .grader.stage import check_golds
from .metrics import signatures
from .metrics.iteration import IterationFacts, best_of, of_iteration, saved_by_early_decision
from .policy.cache import load_policy
from .policy.locate import fingerprint
from .policy.stage import model_folder
from .pool.pool import Pool
from .pool.stage import load_pool, load_pool_again
from .progress import log
from .records import Draw, Explored, Outcome, Pairs, Question, Rollouts, pick, seeded
from .rollouts.chunks import expected_tokens
from .rollouts.prompts import Prompts
from .rollouts.stage import Request, collect_rollouts, load_rollouts
from .sampler import Sampler
from .sampler.probe import choose
from .sampler.stage import load_draw, write_draw
from .settings.pool import compared_benchmarks
from .settings.rollouts import Sampling
from .settings.whole import Evaluation, Settings
from .store.run import RunDir
from .store.stage import Stage
from .tags.stage import tag

T = TypeVar("T")
AGAIN = " (loop.stop_after): start again without it to go on"
_shown: list[bool] = []  # whether this process has shown a prompt


def prepare(settings: Settings, run: RunDir) -> Job:
    """Load the pool and the benchmarks; tag, embed and cluster the pool's questions. Collective.

    Raises:
        RunError: a file that the run reads is missing or wrong.
        Ended: questions were written to a file, to be tagged elsewhere (tags.mode=export).
    """
    world = run.world
    world.on_root(lambda: inputs.check(settings))
    read = world.on_root(lambda: benchmarks.read(settings.evaluate, compared_benchmarks(settings.pool)))
    pool = load_pool_again(settings.pool, run, read)
    evaluated = world.on_root(lambda: benchmarks.load(settings.evaluate, pool.held_out, read))
    points: list[tuple[str, ...]] = [()] * len(pool.questions)
    if settings.clusters.n > 1:
        engine, accept = settings.rollouts.generate, settings.run.accept_changes
        points = tag(pool.questions, settings.tags, settings.policy, engine, run, accept)
    cluster_N, health = cluster(points, settings.clusters, settings.probe.fraction, run)
    log.info("pool: %d questions, %d held out; %s", len(pool.questions), len(pool.held_out), describe(health))
    early = changed_by_early_decision(settings.pairs) if settings.rollouts.adaptive else []
    for warning in [*health["warnings"], *early]:
        log.warning("  %s", warning)
    golds = {"pool": pool.questions, **{b.name: b.questions for b in evaluated}}
    check_golds(golds, world, grader_of(settings.rollouts.grader))
    return Job(settings, run, pool, evaluated, cluster_N, health)


def prepare_evaluation(settings: Evaluation, run: RunDir) -> Stages:
    """The stages of a stand-alone evaluation of policy.path. Collective.

    Raises:
        RunError: a file that the evaluation reads is missing or wrong.
    """
    world = run.world
    world.on_root(lambda: inputs.check(settings))
    pool = load_pool(settings.pool, run) if settings.pool else Pool([])
    evaluated = world.on_root(lambda: benchmarks.load(settings.evaluate, pool.held_out))
    check_golds({b.name: b.questions for b in evaluated}, world, grader_of(settings.rollouts.grader))
    return Stages(settings, run, pool, evaluated, "base", model_folder(settings.policy.path, run))


@dataclass
class Job:
    """A run: its fixed parts, and how far it has come. Every method is collective.

    Attributes:
        health: of the clusters (`clusters.health.health`).
        policy_path: the newest policy, a Hugging Face folder.
        before, scores, best: accuracy by benchmark before the first iteration, now, and the best so far.
        drawn: the last draw.
        records: figures of the finished iterations, as they are on disk.
    """

    settings: Settings
    run: RunDir
    pool: Pool
    benchmarks: list[Benchmark]
    cluster_N: np.ndarray
    health: dict
    policy_path: str = ""
    before: dict[str, dict] = field(default_factory=dict)
    scores: dict[str, dict] = field(default_factory=dict)
    best: dict[str, dict] = field(default_factory=dict)
    drawn: Draw | None = None
    records: list[dict] = field(default_factory=list)

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
            raise Ended("the preparation" + AGAIN)
        base = Stages(self.settings, self.run, self.pool, self.benchmarks, "base", self.policy_path)
        self.before = self.scores = self.best = base.scores()
        if self.settings.loop.stop_after == "base":
            raise Ended("the base evaluation" + AGAIN)
        return self.policy_path

    def sampler(self) -> Sampler:
        """The dynamic sampler over the pool's questions."""
        own = self.settings
        return Sampler(self.cluster_N, own.sampler, own.run.seed, k=own.rollouts.k, band=own.difficulty)

    def iteration(self, t: int, policy_path: str) -> Iteration:
        """The stages of iteration t."""
        return Iteration(self.settings, self.run, self.pool, self.benchmarks, t, policy_path, self)

    def outcome(self, ended: Ended | None = None) -> Outcome:
        """How the run ended."""
        stopped, paused = (str(ended), "") if ended and ended.is_failure else ("", str(ended or ""))
        return Outcome(self.before, self.records, self.policy_path, stopped, paused, self.health)


@dataclass
class Stages:
    """One policy at work in one iteration, or ("base") before the first. Every method is collective."""

    settings: Settings | Evaluation
    run: RunDir
    pool: Pool
    benchmarks: list[Benchmark]
    t: int | str
    policy_path: str

    def scores(self) -> dict[str, dict]:
        """Accuracy of the policy on every benchmark."""
        return {benchmark.name: accuracy(difficulty.measure(graded)) for benchmark, graded in self.answers()}

    def answers(self) -> Iterator[tuple[Benchmark, Rollouts]]:
        """The policy's graded rollouts of every benchmark, one after the other."""
        own = self.settings.rollouts
        for benchmark in self.benchmarks:
            plan = benchmark.plan
            sampling = Sampling(plan.temperature, plan.top_p, own.max_new_tokens, own.stop)
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
        def compute(stage: Stage):
            seed = (self.settings.run.seed, -1 if self.t == "base" else self.t, name)
            request = Request(self._prompts(questions, question_Q), question_Q, k, sampling, seed, expected_Q or {})
            collect_rollouts(stage, request, self.settings.rollouts, self.run.world)

        return self._stage(name, compute, load_rollouts, of_policy=True)

    def _prompts(self, questions: Sequence[Question], question_Q: np.ndarray) -> Prompts:
        policy = load_policy(self.policy_path, self.settings.policy, self.run.world.device)
        prompts = Prompts(pick(questions, question_Q), self.pool.examples, policy, self.settings.rollouts.prompt)
        if len(question_Q) and not _shown:
            _shown.append(True)
            log.info("%s", prompts.shown(int(question_Q[0]), self.settings.rollouts.stop))
        return prompts

    def _stage(
        self, name: str, compute: Callable[[Stage], None], load: Callable[[Stage], T], of_policy: bool = False
    ) -> T:
        """A stage of the store.

        Args:
            of_policy: note the policy's hash in its tables.
        """
        facts = {}
        if of_policy:
            facts["policy_hash"] = self.run.world.on_root(lambda: fingerprint(self.policy_path))
        return self.run.stage(self.t, name, compute, load, **facts)


@dataclass
class Iteration(Stages):
    """The stages of one iteration of a run, in the order of their work. Every method is collective."""

    settings: Settings
    t: int
    job: Job

    def __post_init__(self):
        self.facts: dict = {"t": self.t, "before": self.job.drawn}

    def probe(self, sampler: Sampler) -> Rollouts:
        """K rollouts of a small sample of the pool with the current policy."""
        question_P = choose(self.job.cluster_N, self.settings.probe, self._seeded("choose"))
        self.facts["probed"] = self._of_pool("probe", question_P, sampler)
        return self.facts["probed"]

    def draw(self, sampler: Sampler) -> Draw:
        """The questions that this iteration explores."""
        self.facts |= {"counts": sampler.counts, "weight_C": sampler.cluster_weights()}
        drawn = self._stage("draw", lambda stage: write_draw(stage, sampler, self.run.world), load_draw)
        sampler.note_drawn(drawn.question_Q)
        self.facts["draw"] = self.job.drawn = drawn
        return drawn

    def explore(self, drawn: Draw, probed: Rollouts, sampler: Sampler) -> Explored:
        """K rollouts of each drawn question; those that the probe made already are used again."""
        again = np.isin(probed.question_R, drawn.question_Q)
        todo_Q = np.sort(drawn.question_Q[~np.isin(drawn.question_Q, probed.question_R)])
        fresh = self._of_pool("explore", todo_Q, sampler)
        if self.settings.rollouts.adaptive:
            log.info("  %s", saved_by_early_decision(fresh, self.settings.rollouts.k))
        whole = Rollouts.concat([fresh, probed.take(np.flatnonzero(again))]).sorted()
        self.facts["explored"] = whole
        return Explored(whole, fresh)

    def pair(self, explored: Explored) -> Pairs:
        """Preference pairs from the explored questions in the band, hardest first.

        Raises:
            Ended: no question gives a pair (depletion).
        """
        own = self.settings

        def compute(stage: Stage):
            prompts = self._prompts(self.pool.questions, np.unique(explored.rollouts.question_R))
            seed = (own.run.seed, self.t)
            cluster_N = self.job.cluster_N
            write_pairs(
                stage, explored.rollouts, prompts.text, cluster_N, own.difficulty, own.pairs, seed, self.run.world
            )

        pairs = self._stage("pairs", compute, lambda stage: stage.read("pairs", Pairs), of_policy=True)
        if len(pairs) == 0:
            raise Ended(signatures.no_pairs(self.t, difficulty.measure(explored.rollouts)), is_failure=True)
        self.facts["pairs"] = pairs
        return pairs

    def train(self, pairs: Pairs) -> str:
        """One DPO round on the pairs. Returns the folder of the new policy."""
        own = self.settings
        round_ = Round(self.policy_path, pairs, own.run.seed, self.t, own.run.deterministic)
        folder, self.facts["steps"] = self._stage(
            "policy",
            lambda stage: train_round(stage, round_, own.policy, own.rollouts, own.dpo, self.run),
            load_round,
            of_policy=True,
        )
        self.job.policy_path = folder
        return folder

    def evaluate(self, policy_path: str) -> dict[str, dict]:
        """Accuracy of the new policy on every benchmark; {} in iterations that skip it (evaluate.every)."""
        if (self.t + 1) % self.settings.evaluate.every and self.t + 1 != self.settings.loop.iterations:
            return {}
        return Stages(self.settings, self.run, self.pool, self.benchmarks, self.t, policy_path).scores()

    def finish(self, scores: dict[str, dict]) -> None:
        """Record the iteration's figures: from now on it is finished.

        Raises:
            Ended: a failure signature stops the run (loop.on_signature), or loop.stop_after is reached.
        """
        job, own, run = self.job, self.settings, self.run
        done = IterationFacts(**self.facts, scores=scores, scores_before=job.scores, best=job.best)
        figures = of_iteration(done, own.sampler, own.difficulty, own.rollouts.k, job.cluster_N)
        was_finished = run.has_finished(self.t)
        job.scores, job.best = scores or job.scores, best_of(job.best, scores)
        record = run.finish_iteration(self.t, {**figures, "policy": job.policy_path, "config_hash": run.config_hash})
        job.records.append(record)
        for warning in record["signatures"]:
            log.warning("  %s", warning)
        stopped = signatures.stops(record, own.loop.on_signature, run.config_hash)
        if stopped and not run.has_finished(self.t + 1):  # where the run has gone on from it before, it goes on
            raise Ended(stopped, is_failure=True)
        if own.loop.stop_after == "evaluate" and not was_finished:
            raise Ended(f"iteration {self.t}" + AGAIN)

    def _of_pool(self, name: str, question_Q: np.ndarray, sampler: Sampler) -> Rollouts:
        """K rollouts of questions of the pool. Expected lengths: as before, or as in their clusters."""
        own = self.settings.rollouts
        expected_Q = expected_tokens(sampler.history.tokens_N, self.job.cluster_N, question_Q)
        return self._rollouts(name, self.pool.questions, question_Q, own.k, own.sampling(), expected_Q)

    def _stage(self, name, compute, load, of_policy=False):
        """Raises:
        Ended: the stage is done, and it is the one that loop.stop_after names.
        """
        value = super()._stage(name, compute, load, of_policy)
        if name == self.settings.loop.stop_after and not self.run.has_finished(self.t):
            if name == "policy":
                self.job.policy_path = value[0]
            raise Ended(f"{name} of iteration {self.t}" + AGAIN)
        return value

    def _seeded(self, stage: str) -> np.random.Generator:
        return seeded(self.settings.run.seed, self.t, stage)
