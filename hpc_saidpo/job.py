"""A run's stages: each joins the pure parts, the model and the store. `loop.py` says in which order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from . import (
    benchmarks,
    chunks,
    clusters,
    difficulty,
    evaluate,
    inputs,
    metrics,
    pairs,
    policy,
    pool,
    preparation,
    probe,
    progress,
    rollouts,
    round,
    sampler,
)
from .generate import Sampling
from .loaded import grader_of, load_policy
from .parallel import World
from .progress import log
from .records import Columns, Difficulty, Draw, Pairs, Rollouts, pick, seed_of, seeded
from .store import RunDir, Stage

_shown: list[bool] = []  # whether this process has shown a prompt


class StageReached(Exception):
    """The stage that loop.stop_after names is done; `value` is what it gave."""

    def __init__(self, message: str, value=None):
        super().__init__(message)
        self.value = value


@dataclass(frozen=True)
class Job:
    """A run's fixed parts, and its stages. Every method is collective."""

    config: object
    world: World
    store: RunDir
    pool: pool.Pool
    benchmarks: list[benchmarks.Benchmark]
    cluster_N: np.ndarray
    health: dict

    @classmethod
    def prepare(cls, config, world, store) -> Job:
        """Load the pool and the benchmarks; tag, embed and cluster the pool's questions.

        Raises:
            RunError: something that the run will read is not there; or what is there is wrong.
            tags.Exported: questions were written to a file, to be tagged elsewhere (tags.mode=export).
        """
        world.on_root(lambda: inputs.check(config))
        read = world.on_root(lambda: benchmarks.read(config))
        questions = preparation.load_pool(config, store, read)
        evaluated = world.on_root(lambda: benchmarks.load(config.evaluate, questions.held_out, read))
        points: list[tuple[str, ...]] = [()] * len(questions.questions)
        if config.clusters.n > 1:
            points = preparation.tag(questions.questions, config, world, store)
        cluster_N, health = preparation.cluster(points, config, world, store)
        n_pool, n_held_out = len(questions.questions), len(questions.held_out)
        log.info("pool: %d questions, %d held out; %s", n_pool, n_held_out, clusters.told(health))
        early = pairs.changed_by_early_decision(config.pairs) if config.rollouts.adaptive else []
        for warning in [*health["warnings"], *early]:
            log.warning("  %s", warning)
        golds = {"pool": questions.questions, **{b.name: b.questions for b in evaluated}}
        preparation.check_golds(golds, world, grader_of(config.rollouts.grader))
        return cls(config, world, store, questions, evaluated, cluster_N, health)

    @classmethod
    def to_evaluate(cls, config, world, store) -> Job:
        """A job that only evaluates: of the pool it has the few-shot examples and held-out questions, if asked for.

        Raises:
            RunError: something that the evaluation will read is not there; or what is there is wrong.
        """
        world.on_root(lambda: inputs.check(config))
        questions = pool.load(config.pool, store) if config.pool else pool.Pool([])
        evaluated = world.on_root(lambda: benchmarks.load(config.evaluate, questions.held_out))
        preparation.check_golds({b.name: b.questions for b in evaluated}, world, grader_of(config.rollouts.grader))
        return cls(config, world, store, questions, evaluated, np.zeros(0, dtype=np.int64), {})

    @property
    def n_clusters(self) -> int:
        return self.health["n_clusters"]

    @property
    def seed(self) -> int:
        return self.config.run.seed

    def first_policy(self) -> str:
        """Where the policy of iteration 0 lies, as a Hugging Face folder (a GGUF file is converted once)."""
        return preparation.model_folder(self.config.policy.path, self.world, self.store)

    def probe(self, t: int, policy_path: str, history: sampler.History) -> Rollouts:
        """K rollouts of a small sample of the pool with the current policy."""
        question_P = probe.choose(self.cluster_N, self.config.probe, seeded(self.seed, t, "choose"))
        return self._of_pool(t, "probe", policy_path, question_P, history)

    def observe(self, history: sampler.History, t: int, seen: Difficulty) -> sampler.History:
        """Add graded questions to what the run knows about clusters and questions."""
        return history.observe(t, seen, self.cluster_N, difficulty.in_band(seen, self.config.difficulty))

    def cluster_weights(self, t: int, history: sampler.History) -> np.ndarray:
        """W(i) at the draw of iteration t."""
        seed = seed_of(self.seed, t, "thompson", 0)
        return sampler.cluster_weights(history.counts, self.config.sampler, self.config.rollouts.k, seed)

    def draw(self, t: int, history: sampler.History) -> Draw:
        """The questions that this iteration explores; beside them is written what the draw knew."""
        config, seed = self.config.sampler, seed_of(self.seed, t, "thompson", 0)
        weight_N = sampler.weights(history, self.cluster_N, t, config, self.config.rollouts.k, seed)

        def compute(stage: Stage):
            excluded_N = sampler.excluded(history, t, config)
            question_Q = sampler.draw(weight_N, config.n_questions, seed_of(self.seed, t, "draw", 0), excluded_N)
            weight_C = self.cluster_weights(t, history)
            for name, table in (
                ("draw", Draw(question_Q, weight_N[question_Q], self.cluster_N[question_Q])),
                ("history", sampler.of_questions(history, self.cluster_N, weight_N)),
                ("clusters", sampler.of_clusters(history.counts, self.cluster_N, weight_C)),
            ):
                self._write(stage, name, table)

        return self._stage(t, "draw", compute, lambda stage: stage.read("draw", Draw))

    def explore(
        self, t: int, policy_path: str, drawn: Draw, probed: Rollouts, history: sampler.History
    ) -> tuple[Rollouts, Rollouts]:
        """K rollouts of each drawn question; those that the probe made already are used again.

        Returns:
            (rollouts of all drawn questions, the ones made now).
        """
        again = np.isin(probed.question_R, drawn.question_Q)
        todo_Q = np.sort(drawn.question_Q[~np.isin(drawn.question_Q, probed.question_R)])
        fresh = self._of_pool(t, "explore", policy_path, todo_Q, history)
        if self.config.rollouts.adaptive:
            undrawn, tokens = metrics.not_drawn(fresh, self.config.rollouts.k)
            share = tokens / max(1, tokens + fresh.n_tokens_R.sum())
            log.info(
                "  decided early: %d of %d responses not drawn, %.0f %% of the tokens saved (at each question's "
                "mean length)",
                undrawn,
                undrawn + len(fresh),
                100 * share,
            )
        return Rollouts.concat([fresh, probed.take(np.flatnonzero(again))]).sorted(), fresh

    def pair(self, t: int, policy_path: str, explored: Rollouts, hard: Difficulty) -> Pairs:
        """Preference pairs from the explored questions in the band, hardest first."""
        config = self.config

        def compute(stage: Stage):
            prompts = self._prompts(self.pool.questions, hard.question_Q, policy_path)

            def on_root():
                order = difficulty.hardest_first(hard, config.difficulty, seeded(self.seed, t, "order"))
                usable_Q = difficulty.in_band(hard, config.difficulty)
                hardest = hard.take([i for i in order if usable_Q[i]])
                found = pairs.select(explored, hardest, self.cluster_N, prompts.text, config.pairs, self.seed, t)
                stage.write("pairs", found)

            self.world.on_root(on_root)

        return self._stage(t, "pairs", compute, lambda stage: stage.read("pairs", Pairs), policy_path)

    def train(self, t: int, policy_path: str, chosen: Pairs) -> tuple[str, list[dict]]:
        """One DPO round on the pairs. Returns where the new policy lies, and the figures of each step."""

        def compute(stage: Stage):
            round.train(stage, t, policy_path, chosen, self.config, self.world, self.store, self._progress)

        return self._stage(t, "policy", compute, round.load, policy_path)

    def evaluate(self, t: int | str, policy_path: str) -> dict[str, dict]:
        """Accuracy of a policy on every benchmark; {} in iterations that skip it (evaluate.every)."""
        every = self.config.evaluate.every
        if t != "base" and (t + 1) % every and t + 1 != self.config.loop.iterations:
            return {}
        return {b.name: evaluate.accuracy(difficulty.measure(graded)) for b, graded in self.answer(t, policy_path)}

    def answer(self, t: int | str, policy_path: str) -> Iterator[tuple[benchmarks.Benchmark, Rollouts]]:
        """A policy's graded rollouts of every benchmark, one after the other."""
        config = self.config.rollouts
        for benchmark in self.benchmarks:
            asked = benchmark.how
            how = Sampling(asked.temperature, asked.top_p, config.max_new_tokens, config.stop)
            question_Q = np.arange(len(benchmark.questions))
            stage = f"evaluate/{benchmark.name}"
            graded = self._rollouts(t, stage, policy_path, benchmark.questions, question_Q, asked.samples, how)
            score = evaluate.accuracy(difficulty.measure(graded))["accuracy"]
            log.info("  %s: accuracy %s", benchmark.name, evaluate.percent(score))
            yield benchmark, graded

    def finish(self, t: int, record: dict) -> dict:
        """Record what iteration t did; from now on it is finished. Gives the record as it is on disk."""
        record = self.store.finish_iteration(t, {**record, "config_hash": self.store.config_hash})
        for warning in record["signatures"]:
            log.warning("  %s", warning)
        return record

    def _of_pool(self, t, stage_name, policy_path, question_Q, history) -> Rollouts:
        """K rollouts of questions of the pool, as long as they were before or their clusters' are."""
        expected_Q = chunks.expected_tokens(history.tokens_N, self.cluster_N, question_Q)
        return self._rollouts(t, stage_name, policy_path, self.pool.questions, question_Q, expected_Q=expected_Q)

    def _rollouts(
        self, t, stage_name, policy_path, questions, question_Q, k=None, how=None, expected_Q=None
    ) -> Rollouts:
        config = self.config.rollouts

        def compute(stage: Stage):
            rollouts.collect(
                stage,
                self._prompts(questions, question_Q, policy_path),
                question_Q,
                k or config.k,
                how or config.sampling(),
                config,
                self.world,
                (self.seed, -1 if t == "base" else t, stage_name),
                self._progress,
                grader_of(config.grader),
                expected_Q,
            )

        return self._stage(t, stage_name, compute, rollouts.load, policy_path)

    def _stage(self, t, name, compute, load, policy_path=None):
        """A stage of the store; its tables tell the hash of the policy at work.

        Raises:
            StageReached: it is done, and is the one that loop.stop_after names.
        """
        facts = {}
        if policy_path:
            facts["policy_hash"] = self.world.on_root(lambda: policy.fingerprint(policy_path))
        value = self.store.stage(t, name, compute, load, **facts)
        if name == self.config.loop.stop_after and not self.store.has_finished(t):
            raise StageReached(f"{name} of iteration {t}", value)
        return value

    def _prompts(self, questions, question_Q, policy_path) -> rollouts.Prompts:
        some = pick(questions, question_Q)
        prompts = rollouts.Prompts(some, self.pool.examples, self._policy(policy_path), self.config.rollouts.prompt)
        if len(question_Q) and not _shown:
            _shown.append(True)
            log.info("%s", prompts.shown(int(question_Q[0]), self.config.rollouts.stop))
        return prompts

    def _policy(self, path: str) -> policy.Policy:
        return load_policy(path, self.config.policy, self.world.device)

    def _progress(self, label: str, total: int):
        return progress.stage(label, total, self.world.is_root)

    def _write(self, stage: Stage, name: str, table: Columns):
        self.world.on_root(lambda: stage.write(name, table))
