"""The systems of bench_claim at work: `loop.iterate` on a policy in memory, with a budget of tokens per iteration."""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from claim_trials import CLUSTERING, HOME, POLICY, POOLS, Trial, compose_settings, meaning_hash
from claim_words import SPAN, knowledge_points

from hpc_saidpo import difficulty, loop, progress, settings
from hpc_saidpo.clusters.embed import embed, load, texts
from hpc_saidpo.clusters.fit import fit
from hpc_saidpo.clusters.health import health
from hpc_saidpo.clusters.suggest import suggest
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
from hpc_saidpo.rollouts.effort import Effort
from hpc_saidpo.rollouts.prompts import Renderer
from hpc_saidpo.rollouts.waves import in_waves
from hpc_saidpo.sampler import Sampler
from hpc_saidpo.sampler.probe import choose
from hpc_saidpo.settings.whole import Settings

NUMBERS_OF_CLUSTERS = (24, 50, 100, 150)
FIRST_BLOCK, LEAST_BLOCK = 64, 8  # questions explored before the tokens are counted again
CACHE = HOME / "runs" / "claim"  # clusters of the pools, which take as long as a trial


@functools.lru_cache(maxsize=64)
def settings_of(trial: Trial) -> Settings:
    """The settings of a trial's run."""
    (n, _), setup, training = POOLS[trial.pool], trial.setup, trial.training
    values = {
        "probe.fraction": setup.probe / n, "clusters.seed": trial.seed, "rollouts.generate.rows": 512,
        "dpo.lr": training.lr, "dpo.epochs": training.epochs, "dpo.batch_pairs": training.batch_pairs,
    }  # fmt: skip
    return compose_settings(trial.experiment, [*(f"{key}={value}" for key, value in values.items()), *trial.overrides])


class Lab:
    """The first policy, and the pools with their clusters, shared by the trials of one process."""

    def __init__(self):
        torch.set_num_threads(1)
        progress.log.disabled = True
        progress.columns = lambda: 0  # no bars: several trials run at once
        self.grader = Grader()
        self.base = Policy.load(str(POLICY), settings.Policy(path=str(POLICY)), torch.device("cpu"))
        self._before: dict[tuple, dict[str, float]] = {}
        self._first: dict[tuple, Rollouts] = {}  # rollouts of the first policy by their requests, in the present place
        self._place: tuple | None = None  # pool and seed of the last trial

    @functools.lru_cache(maxsize=2)  # noqa: B019 - a lab lives as long as its process
    def pool(self, name: str, seed: int, held_out: int) -> Pool:
        n, shares = POOLS[name]
        by_span = dict(zip(SPAN, shares, strict=True))
        return generated.make(settings.Arithmetic(n=n, shares=by_span, held_out=held_out, seed=seed))

    def clusters(self, trial: Trial) -> np.ndarray:
        """The cluster of each question, by K-Means over knowledge points; from CACHE where it is there."""
        config = settings_of(trial).clusters
        if config.n == 1:  # an experiment without clusters
            return np.zeros(POOLS[trial.pool][0], dtype=np.int64)
        text_N = texts(knowledge_points(self.pool(trial.pool, trial.seed, trial.setup.held_out).questions, trial.seed))
        made_by = meaning_hash((*CLUSTERING, "tools/bench/claim_lab.py"))
        known = (text_N, config.encoder, config.seed, NUMBERS_OF_CLUSTERS, trial.setup.probe, made_by)
        key = hashlib.sha256(repr(known).encode()).hexdigest()
        path = CACHE / f"clusters-{key[:16]}.npz"
        if not path.exists():
            CACHE.mkdir(parents=True, exist_ok=True)
            new = path.with_suffix(f".{time.time_ns()}.npz")
            np.savez_compressed(new, **cluster(text_N, config, trial.setup.probe))
            new.replace(path)
        with np.load(path) as known:
            return known[f"n{trial.clusters or int(known['suggested'])}"].astype(np.int64)

    def play(self, trial: Trial) -> list[dict]:
        """One record per iteration, and one of the first policy before them."""
        pool = self.pool(trial.pool, trial.seed, trial.setup.held_out)
        place = (trial.pool, trial.seed, trial.setup.held_out, trial.setup.samples)
        if place != self._place:
            self._first.clear()
            self._place = place
        run = Run(trial, copy.deepcopy(self.base), pool, self.grader, self._first)
        if place not in self._before:
            self._before[place] = run.scores(trial.setup.samples)
        config, cluster_N = settings_of(trial), self.clusters(trial)
        sampler = Sampler(cluster_N, config.sampler, trial.seed, k=config.rollouts.k, band=config.difficulty)
        records = [{"tokens": 0, "clusters": int(cluster_N.max()) + 1, **self._before[place]}]
        for t in range(trial.setup.iterations):
            step = Step(run, t, sampler)
            loop.iterate(step, sampler)
            records.append(step.record)
        return records


def cluster(text_N: Sequence[str], config: settings.Clusters, n_probed: int) -> dict[str, Any]:
    """The cluster of each question for several numbers of clusters, and the suggested number."""
    embedding = embed(sorted(set(text_N)), load(config.encoder, torch.device("cpu")), config.batch)
    found, rows, probed = {}, [], n_probed / len(text_N)
    for n in NUMBERS_OF_CLUSTERS:
        clustering = fit(text_N, embedding, dataclasses.replace(config, n=n))
        cluster_N = clustering.assignment.cluster_N
        rows.append({"n": n, **health(cluster_N, [()] * len(text_N), n, probed, clustering.facts)})
        found[f"n{n}"] = cluster_N.astype(np.uint8)
    return {**found, "suggested": np.array(suggest(rows)[0])}


@dataclass
class Run:
    """One system's policy, in memory, and what it does; `Step` says when.

    Attributes:
        first: rollouts of the first policy by their requests, which trials of one pool and seed share.
    """

    trial: Trial
    policy: Policy
    pool: Pool
    grader: Grader
    first: dict[tuple, Rollouts]

    def __post_init__(self):
        self.config = settings_of(self.trial)
        self.explored: set[int] = set()  # questions, in all iterations

    def renderer(self, questions: Sequence[Question]) -> Renderer:
        return Renderer(questions, {}, self.policy, self.config.rollouts.prompt)

    def answer(
        self, questions: Sequence[Question], question_Q: np.ndarray, effort: Effort, seed: tuple[int, int, str]
    ) -> Rollouts:
        """Graded rollouts of each of these questions."""
        renderer, config = self.renderer(questions), self.config.rollouts
        token_Q = {int(q): renderer.tokens(int(q)) for q in question_Q}
        return in_waves(effort, token_Q, renderer, config.sampling(), config, seed, self.grader)

    def scores(self, samples: int) -> dict[str, float]:
        """Of the held-out questions: the same ones, and the same random streams, for every system of the seed."""
        questions = self.pool.held_out
        drawn = self.answer(questions, np.arange(len(questions)), Effort((samples,)), (self.trial.seed, 0, "evaluate"))
        rate_N, topic_N = difficulty.measure(drawn).pass_rate_Q, np.array([q.subject for q in questions])
        worst = min(float(rate_N[topic_N == topic].mean()) for topic in set(topic_N))
        return {"accuracy": float(rate_N.mean()), "worst_topic": worst}


@dataclass
class Step:
    """One iteration of a run, as `loop.Step` describes it; `record` holds its figures in the end."""

    run: Run
    t: int
    sampler: Sampler

    def __post_init__(self):
        self.config, self.seed = self.run.config, self.run.trial.seed
        self.record: dict[str, float] = {}

    def probe(self, sampler: Sampler) -> Rollouts:
        """K rollouts of a small sample of the pool."""
        chosen = choose(sampler.cluster_N, self.config.probe, seeded(self.seed, self.t, "choose"))
        return self._roll("probe", chosen)

    def draw(self, sampler: Sampler) -> Draw:
        """The first block of questions; `explore` draws more of them."""
        question_Q = np.asarray(sampler.draw(FIRST_BLOCK))
        return Draw(question_Q, sampler.weights()[question_Q], sampler.cluster_N[question_Q])

    def explore(self, drawn: Draw, probed: Rollouts, sampler: Sampler) -> Explored:
        """Explore block after block, as large as the tokens left allow, until the iteration's tokens are spent."""
        spent, blocks, tables = int(probed.n_tokens_R.sum()), [drawn.question_Q], []
        before, budget = spent, self.run.trial.setup.tokens
        n_left = len(sampler.cluster_N) - len(drawn.question_Q)
        while True:
            tables.append(self._roll("explore", np.setdiff1d(blocks[-1], probed.question_R)))
            spent += int(tables[-1].n_tokens_R.sum())
            if spent >= budget or n_left == 0:
                break
            per_question = max(1.0, (spent - before) / sum(map(len, blocks)))
            n = min(n_left, max(LEAST_BLOCK, int(0.8 * (budget - spent) / per_question)))
            blocks.append(np.asarray(sampler.draw(n)))
            n_left -= n
        fresh, all_Q = Rollouts.concat(tables), np.concatenate(blocks)
        again = probed.take(np.flatnonzero(np.isin(probed.question_R, all_Q)))
        self.run.explored |= set(all_Q.tolist())
        self.record |= {"tokens": spent, "probe_tokens": before, "distinct": len(self.run.explored)}
        return Explored(Rollouts.concat([fresh, again]).sorted(), fresh, self.config.rollouts.n_fixed("explore"))

    def pair(self, explored: Explored) -> Pairs:
        """Preference pairs from the explored questions in the band, hardest first."""
        measured = difficulty.measure(explored.rollouts)
        usable_Q = difficulty.in_band(measured, self.config.difficulty)
        order = difficulty.hardest_first(measured, self.config.difficulty, seeded(self.seed, self.t, "order"))
        hardest = measured.take([i for i in order if usable_Q[i]])
        prompts = self.run.renderer(self.run.pool.questions).table(hardest.question_Q)
        cluster_N = self.sampler.cluster_N
        pairs = select(explored.rollouts, hardest, cluster_N, prompts, self.config.pairs, self.seed, self.t)
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
        """Accuracy on the held-out questions, with more responses after the last iteration."""
        setup = self.run.trial.setup
        samples = setup.samples if self.t + 1 == setup.iterations else setup.curve_samples
        return {"held_out": self.run.scores(samples)} if samples else {}

    def finish(self, scores: dict[str, dict]) -> None:
        """Add the scores to the record."""
        self.record |= scores.get("held_out", {})

    def _roll(self, stage: str, question_Q: np.ndarray) -> Rollouts:
        config = self.config.rollouts
        prior_Q = self.sampler.priors(question_Q) if stage == "explore" else {}
        effort = Effort(config.waves_of(stage) or (config.k,), config.min_chance, prior_Q)
        request = (question_Q.tobytes(), repr(effort) if effort.min_chance else effort.waves, stage)
        if self.t == 0 and request in self.run.first:
            return self.run.first[request]
        rollouts = self.run.answer(self.run.pool.questions, question_Q, effort, (self.seed, self.t, stage))
        if self.t == 0:
            self.run.first[request] = rollouts
        return rollouts
