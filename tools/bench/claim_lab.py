"""The systems of bench_claim at work: `loop.iterate` on a policy in memory, with a budget of tokens per iteration."""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hpc_saidpo import difficulty, loop, progress, settings
from hpc_saidpo.cli import compose
from hpc_saidpo.clusters.embed import embed, load, texts
from hpc_saidpo.clusters.fit import fit
from hpc_saidpo.dpo.examples import examples_of
from hpc_saidpo.dpo.pairs import select
from hpc_saidpo.dpo.train import Lesson, train
from hpc_saidpo.grader.grader import Grader
from hpc_saidpo.parallel.world import World
from hpc_saidpo.policy.cache import release_engines
from hpc_saidpo.policy.model import Policy
from hpc_saidpo.pool import generated
from hpc_saidpo.pool.pool import Pool
from hpc_saidpo.records import Draw, Explored, Pairs, Question, Rollouts, seeded
from hpc_saidpo.rollouts.prompts import Renderer
from hpc_saidpo.rollouts.waves import in_waves
from hpc_saidpo.sampler import Sampler
from hpc_saidpo.sampler.probe import choose
from hpc_saidpo.settings.rollouts import Sampling
from hpc_saidpo.settings.whole import Settings

POOLS = {  # questions; shares of far too hard ones, of those in the policy's range, of far too easy ones
    "85/10/5": (9_600, (0.85, 0.10, 0.05)),
    "70/15/15": (3_200, (0.70, 0.15, 0.15)),
    "10/50/40": (1_200, (0.10, 0.50, 0.40)),
}
TOPIC = {
    "addition": ("addition", "adding two numbers", "sums of integers"),
    "subtraction": ("subtraction", "subtracting numbers", "differences of integers"),
    "multiplication": ("multiplication", "multiplying two numbers", "products of integers"),
    "chain": ("order of operations", "addition and subtraction in a row", "multi-step expressions"),
    "doubling": ("doubling", "doubling and adding", "twice a number plus another"),
    "remainder": ("modular arithmetic", "remainder of a division", "division with remainder"),
    "gap": ("absolute difference", "distance between two numbers", "gap between numbers"),
    "sequence": ("arithmetic sequences", "next term of a sequence", "number patterns"),
}
SPAN = {
    "hard": ("numbers in the millions", "multi-digit arithmetic", "very large numbers"),
    "trained": ("two-digit numbers", "numbers up to one hundred", "mental arithmetic with two digits"),
    "small": ("one-digit numbers", "basic facts", "very small numbers"),
}
UNSIZED = 0.1  # share of the questions whose knowledge points do not name the size
BLOCK = 64  # questions explored before the tokens are counted again
EVALUATED = 800  # held-out questions
EVERY = 3  # iterations from one evaluation to the next
LR = 3e-5


@dataclass(frozen=True)
class Setup:
    """What all systems have in common.

    Attributes:
        tokens: generated in each iteration by every system, probe included.
        probe: probed questions.
        clusters: K-Means clusters.
        samples, base_samples: responses to a held-out question; more of the base policy's, which are in every gain.
        base_steps: supervised fine-tuning steps of the first policy; 0: the policy that the package ships.
    """

    iterations: int = 6
    tokens: int = 60_000
    probe: int = 200
    clusters: int = 150
    k: int = 8
    lr: float = LR
    samples: int = 8
    base_samples: int = 32
    base_steps: int = 3_000


@dataclass(frozen=True)
class Trial:
    """One run of a system.

    Attributes:
        labels: the clusters are topic × range, the labels that the pool's maker assigned.
        overrides: of the experiment's settings.
    """

    pool: str
    system: str
    experiment: str
    seed: int
    setup: Setup
    labels: bool = False
    overrides: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """A name of the trial's file: a hash of all its fields."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]

    @functools.cached_property
    def settings(self) -> Settings:
        n, _ = POOLS[self.pool]
        values = {
            "probe.fraction": self.setup.probe / n, "clusters.n": self.setup.clusters, "rollouts.k": self.setup.k,
            "rollouts.generate.rows": 512, "dpo.lr": self.setup.lr,
        }  # fmt: skip
        plain = [f"{key}={value}" for key, value in values.items()]
        return compose.from_overrides([f"experiment=[tiny,{self.experiment}]", *plain, *self.overrides])


class Lab:
    """The policy, and the pools with their clusters, shared by the trials of one process.

    Args:
        base: folder of the policy that every trial begins with.
    """

    def __init__(self, base: Path):
        torch.set_num_threads(1)
        progress.log.disabled = True
        progress.columns = lambda: 0  # no bars: several trials run at once
        self.grader = Grader()
        self._before: dict[str, dict[str, float]] = {}
        self.base = Policy.load(str(base), settings.Policy(path=str(base)), torch.device("cpu"))

    @functools.lru_cache(maxsize=4)  # noqa: B019 - a lab lives as long as its process
    def pool(self, name: str) -> Pool:
        n, shares = POOLS[name]
        return generated.make(settings.Arithmetic(n=n, shares=dict(zip(SPAN, shares, strict=True)), held_out=EVALUATED))

    def clusters(self, trial: Trial) -> np.ndarray:
        """The cluster of each question: by K-Means over knowledge points, or its label."""
        if trial.labels:
            return labels(self.pool(trial.pool).questions)
        return self._k_means(trial.pool, trial.settings.clusters)

    @functools.lru_cache(maxsize=8)  # noqa: B019
    def _k_means(self, pool: str, config: settings.Clusters) -> np.ndarray:
        text_N = texts(knowledge_points(self.pool(pool).questions))
        encoder = load(config.encoder, torch.device("cpu"))
        embedding = embed(sorted(set(text_N)), encoder, config.batch)
        return fit(text_N, embedding, config).assignment.cluster_N

    def play(self, trial: Trial) -> list[dict]:
        """One record per iteration, and one of the base policy before them; each EVERY-th has scores."""
        run = Run(trial, copy.deepcopy(self.base), self.pool(trial.pool), self.grader)
        if trial.pool not in self._before:
            self._before[trial.pool] = run.scores(trial.setup.base_samples)
        config = trial.settings
        cluster_N = self.clusters(trial)
        sampler = Sampler(cluster_N, config.sampler, trial.seed, k=config.rollouts.k, band=config.difficulty)
        records = [{"tokens": 0, **self._before[trial.pool]}]
        for t in range(trial.setup.iterations):
            step = Step(run, t, cluster_N)
            loop.iterate(step, sampler)
            records.append(step.record)
        return records


def knowledge_points(questions: Sequence[Question]) -> list[tuple[str, ...]]:
    """Topic and size of numbers of each question, in wordings drawn at random."""
    rng = np.random.default_rng(0)
    points = []
    for question in questions:
        topics, spans = TOPIC[question.subject], SPAN[question.level]
        topic, span = topics[rng.integers(len(topics))], spans[rng.integers(len(spans))]
        points.append((topic,) if rng.random() < UNSIZED else (topic, span))
    return points


def labels(questions: Sequence[Question]) -> np.ndarray:
    """Topic × range of each question, numbered."""
    names = sorted({(q.subject, q.level) for q in questions})
    return np.array([names.index((q.subject, q.level)) for q in questions])


@dataclass
class Run:
    """One system's policy, in memory, and what it does; `Step` says when."""

    trial: Trial
    policy: Policy
    pool: Pool
    grader: Grader

    def renderer(self, questions: Sequence[Question]) -> Renderer:
        return Renderer(questions, {}, self.policy, self.trial.settings.rollouts.prompt)

    def answer(
        self,
        questions: Sequence[Question],
        question_Q: np.ndarray,
        k: int,
        sampling: Sampling,
        seed: tuple[int, int, str],
    ) -> Rollouts:
        """K graded rollouts of each of these questions."""
        renderer = self.renderer(questions)
        token_Q = {int(q): renderer.tokens(int(q)) for q in question_Q}
        return in_waves((k,), token_Q, renderer, sampling, self.trial.settings.rollouts, seed, self.grader)

    def scores(self, samples: int) -> dict[str, float]:
        """Of the held-out questions: the same ones, and the same random streams, for every system."""
        questions, config = self.pool.held_out, self.trial.settings.rollouts
        everything, topic_N = np.arange(len(questions)), np.array([q.subject for q in questions])
        drawn = self.answer(questions, everything, samples, config.sampling(), (0, 0, "evaluate"))
        greedy = Sampling(0.0, 1.0, config.max_new_tokens, config.stop)
        best = self.answer(questions, everything, 1, greedy, (0, 0, "greedy"))
        rate_N = difficulty.measure(drawn).pass_rate_Q
        return {
            "accuracy": float(rate_N.mean()),
            "greedy": float(difficulty.measure(best).pass_rate_Q.mean()),
            "worst_topic": min(float(rate_N[topic_N == topic].mean()) for topic in set(topic_N)),
        }


@dataclass
class Step:
    """One iteration of a run, as `loop.Step` describes it; `record` holds its figures in the end."""

    run: Run
    t: int
    cluster_N: np.ndarray

    def __post_init__(self):
        self.config, self.seed = self.run.trial.settings, self.run.trial.seed
        self.record: dict[str, float] = {}

    def probe(self, sampler: Sampler) -> Rollouts:
        """K rollouts of a small sample of the pool."""
        return self._roll("probe", choose(self.cluster_N, self.config.probe, seeded(self.seed, self.t, "choose")))

    def draw(self, sampler: Sampler) -> Draw:
        """The first block of questions; `explore` draws more of them."""
        question_Q = np.asarray(sampler.draw(BLOCK))
        weight_Q = sampler.weights()[question_Q]
        return Draw(question_Q, weight_Q, self.cluster_N[question_Q])

    def explore(self, drawn: Draw, probed: Rollouts, sampler: Sampler) -> Explored:
        """Explore block after block until the iteration's tokens are spent."""
        spent, tables, blocks = int(probed.n_tokens_R.sum()), [], [drawn.question_Q]
        while True:
            tables.append(self._roll("explore", np.setdiff1d(blocks[-1], probed.question_R)))
            spent += int(tables[-1].n_tokens_R.sum())
            if spent >= self.run.trial.setup.tokens:
                break
            blocks.append(np.asarray(sampler.draw(BLOCK)))
        fresh = Rollouts.concat(tables)
        again = probed.take(np.flatnonzero(np.isin(probed.question_R, np.concatenate(blocks))))
        self.record["tokens"] = spent
        return Explored(Rollouts.concat([fresh, again]).sorted(), fresh, self.config.rollouts.k)

    def pair(self, explored: Explored) -> Pairs:
        """Preference pairs from the explored questions in the band, hardest first."""
        measured = difficulty.measure(explored.rollouts)
        usable_Q = difficulty.in_band(measured, self.config.difficulty)
        order = difficulty.hardest_first(measured, self.config.difficulty, seeded(self.seed, self.t, "order"))
        hardest = measured.take([i for i in order if usable_Q[i]])
        prompts = self.run.renderer(self.run.pool.questions).table(hardest.question_Q)
        pairs = select(explored.rollouts, hardest, self.cluster_N, prompts, self.config.pairs, self.seed, self.t)
        self.record |= {"explored": len(measured), "usable": int(usable_Q.sum()), "pairs": len(pairs)}
        return pairs

    def train(self, pairs: Pairs) -> str:
        """One DPO round, which changes the run's policy in memory; without pairs there is none."""
        policy, rollouts = self.run.policy, self.config.rollouts
        if len(pairs):
            release_engines()
            lesson = Lesson(pairs, examples_of(pairs, policy, rollouts.prompt.chat, rollouts.stop), self.seed, self.t)
            train(policy, lesson, self.config.dpo, World())
            policy.model.eval()
            release_engines()
        return policy.path

    def evaluate(self, policy_path: str) -> dict[str, dict]:
        """Accuracy on the held-out questions; {} in iterations that skip it."""
        setup = self.run.trial.setup
        if (self.t + 1) % EVERY and self.t + 1 != setup.iterations:
            return {}
        return {"held_out": self.run.scores(setup.samples)}

    def finish(self, scores: dict[str, dict]) -> None:
        """Add the scores to the record."""
        self.record |= scores.get("held_out", {})

    def _roll(self, stage: str, question_Q: np.ndarray) -> Rollouts:
        config = self.config.rollouts
        seed = (self.seed, self.t, stage)
        return self.run.answer(self.run.pool.questions, question_Q, config.k, config.sampling(), seed)
