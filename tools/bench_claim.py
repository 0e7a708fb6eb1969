#!/usr/bin/env python3
"""Does dynamic sampling pay? The method's systems on a small, real learning problem, at equal generation budgets.

    python tools/bench_claim.py --quick
    python tools/bench_claim.py --json claim.json --plot claim.png

The policy is a micro Llama as this package ships one, but trained twice as long (`tools/make_micro_model.py --steps
3000`, four CPU-minutes; made at the first start): right about every second time on step-by-step arithmetic of eight
topics, with a habit that pairs can correct. Pools are as pools are: of 85/10/5 (per cent), 85 are far too hard for it,
10 in its range, 5 far too easy; of 10/50/40 most are of use. The questions of its range that it is evaluated on are in
no pool, and it has never seen them.

Every system has the same number of tokens to generate in each of its iterations, probe included: it explores its drawn
questions in their order until they are spent. It is configured by `experiment=[tiny,NAME]`, and made of the library's
own parts: probe, sampler, rollouts, pairs, DPO round. IDPO probes as the others do, though it makes nothing of it;
beside it stands IDPO that spends next to nothing (one question) on a probe. Clusters come from knowledge points,
sentence embeddings and K-Means. A question's knowledge points are its topic and the size of its numbers in one of
several wordings, sometimes without the size, as a tagger would have them; `true labels` is topic × range in their
place.

Shown are means over seeds with their 95 % interval (Student's t), and differences from IDPO seed by seed:
accuracy and its gain (held-out questions, one response at temperature 1, mean of 8), greedy accuracy, accuracy of the
worst topic, pair yield (share of explored questions that give a pair), and tokens generated per usable pair.
What is done is kept in --keep, and not done again: after a change of the code, name another folder.
--quick: the model that ships, one seed, two iterations, a tenth of the tokens: it shows that all runs.
It needs the extra `demo`.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import copy
import functools
import hashlib
import json
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(HOME), str(HOME / "tools")]
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import make_micro_model
import numpy as np
import torch
from scipy import stats

from hpc_saidpo import difficulty, progress, settings
from hpc_saidpo.cli import compose
from hpc_saidpo.clusters.embed import embed, load, texts
from hpc_saidpo.clusters.fit import fit
from hpc_saidpo.dpo import pairs, train
from hpc_saidpo.dpo.examples import tokenise
from hpc_saidpo.grader.grader import Grader
from hpc_saidpo.parallel.world import World
from hpc_saidpo.policy import model
from hpc_saidpo.pool import generated
from hpc_saidpo.records import Rollouts, seeded
from hpc_saidpo.rollouts import prompts, waves
from hpc_saidpo.rollouts.engine.vllm import free
from hpc_saidpo.sampler import probe
from hpc_saidpo.sampler.sampler import Sampler
from hpc_saidpo.settings import whole
from hpc_saidpo.settings.rollouts import Sampling

POOLS = {  # questions; shares of far too hard ones, of those in the policy's range, of far too easy ones
    "85/10/5": (9_600, (0.85, 0.10, 0.05)),
    "70/15/15": (3_200, (0.70, 0.15, 0.15)),
    "10/50/40": (1_200, (0.10, 0.50, 0.40)),
}
LR, OTHER_LR = 3e-5, 1e-4
SYSTEMS = {
    "IDPO": "idpo", "published": "saidpo", "ours": "saidpo_history", "frontier": "frontier",
    "frontier_error": "frontier_error", "- difficulty": "no_difficulty",
}  # fmt: skip
BASELINE, OURS, PUBLISHED, BOLD = "IDPO", "ours", "published", "frontier_error"
NO_CLUSTERS = "- clusters"  # every question weighs 1: IDPO, draw by draw
NOT_RULES = (BASELINE, "- difficulty", NO_CLUSTERS)
QUARTER = "ours, a quarter of the probe"
UNPROBED = "IDPO, no probe"
BOLDER = "ours, kappa 1, history 0.8"  # what makes `frontier_error` bold, for the rule `error`
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
UNSIZED = 0.1  # share of the questions whose knowledge points say nothing of the size
BLOCK = 64  # questions explored before the tokens are counted again
EVALUATED = 800  # held-out questions
EVERY = 3  # iterations from one evaluation to the next


@dataclass(frozen=True)
class Setup:
    """What all systems have in common.

    Attributes:
        tokens: generated in each iteration by every system, probe included.
        probe: probed questions.
        clusters: K-Means clusters.
        samples, base_samples: responses to a held-out question; more of the base policy's, which are in every gain.
        base_steps: of supervised fine-tuning that the policy has behind it; 0: the one that ships.
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
    """One run of an experiment.

    Attributes:
        labels: clusters are topic × range, as known to who made them.
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
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]

    @functools.cached_property
    def config(self) -> whole.Settings:
        n, _ = POOLS[self.pool]
        told = {
            "probe.fraction": self.setup.probe / n, "clusters.n": self.setup.clusters, "rollouts.k": self.setup.k,
            "rollouts.generate.rows": 512, "dpo.lr": self.setup.lr,
        }  # fmt: skip
        plain = [f"{key}={value}" for key, value in told.items()]
        return compose.from_overrides([f"experiment=[tiny,{self.experiment}]", *plain, *self.overrides])


class Lab:
    """The policy, and the pools with their clusters: what trials of one process share."""

    def __init__(self, base: Path):
        torch.set_num_threads(1)
        progress.log.disabled = True
        self.grader, self._before = Grader(), {}
        self.base = model.Policy.load(str(base), settings.Policy(path=str(base)), torch.device("cpu"))

    @functools.lru_cache(maxsize=4)  # noqa: B019 - a lab lives as long as its process
    def pool(self, name: str):
        n, shares = POOLS[name]
        return generated.make(settings.Arithmetic(n=n, shares=dict(zip(SPAN, shares, strict=True)), held_out=EVALUATED))

    def clusters(self, trial: Trial) -> np.ndarray:
        """The cluster of each question: by K-Means over knowledge points, or its label."""
        questions = self.pool(trial.pool).questions
        if trial.labels:
            return labels(questions)
        return self._k_means(trial.pool, trial.config.clusters)

    @functools.lru_cache(maxsize=8)  # noqa: B019
    def _k_means(self, pool: str, settings: settings.Clusters) -> np.ndarray:
        text_N = texts(knowledge_points(self.pool(pool).questions))
        encoder = load(settings.encoder, torch.device("cpu"))
        embedding = embed(sorted(set(text_N)), encoder, settings.batch)
        return fit(text_N, embedding, settings).assignment.cluster_N

    def play(self, trial: Trial) -> list[dict]:
        """One record per iteration, and one of the base policy before them; each EVERY-th has scores."""
        run = Run(trial, copy.deepcopy(self.base), self.pool(trial.pool), self.clusters(trial), self.grader)
        if trial.pool not in self._before:
            self._before[trial.pool] = run.scores(trial.setup.base_samples)
        records, last = [{"tokens": 0, **self._before[trial.pool]}], trial.setup.iterations
        for t in range(last):
            records.append(run.iterate(t))
            if (t + 1) % EVERY == 0 or t + 1 == last:
                records[-1] |= run.scores(trial.setup.samples)
        return records


def knowledge_points(questions) -> list[tuple[str, ...]]:
    """Topic and size of numbers of each question, in wordings drawn at random."""
    rng = np.random.default_rng(0)
    found = []
    for question in questions:
        topic, span = TOPIC[question.subject], SPAN[question.level]
        topic, span = topic[rng.integers(len(topic))], span[rng.integers(len(span))]
        found.append((topic,) if rng.random() < UNSIZED else (topic, span))
    return found


def labels(questions) -> np.ndarray:
    names = sorted({(q.subject, q.level) for q in questions})
    return np.array([names.index((q.subject, q.level)) for q in questions])


class Run:
    """One system's iterations."""

    def __init__(self, trial: Trial, own: model.Policy, pool, cluster_N: np.ndarray, grader: Grader):
        self.trial, self.config, self.policy, self.pool, self.grader = trial, trial.config, own, pool, grader
        told = self.config
        self.sampler = Sampler(cluster_N, told.sampler, trial.seed, k=told.rollouts.k, band=told.difficulty)

    def iterate(self, t: int) -> dict:
        """Probe, draw, explore until the tokens are spent, pair, train."""
        config, seed = self.config, self.trial.seed
        self.sampler.begin(t)
        probed = self.roll(t, "probe", probe.choose(self.sampler.cluster_N, compose.probe, seeded(seed, t, "choose")))
        self.update(probed)
        tables, spent, drawn = [], int(probed.n_tokens_R.sum()), []
        while spent < self.trial.setup.tokens:
            block = self.sampler.draw(BLOCK)
            tables.append(self.roll(t, "explore", np.setdiff1d(block, probed.question_R)))
            spent += int(tables[-1].n_tokens_R.sum())
            drawn.append(block)
        fresh = Rollouts.concat(tables)
        self.update(fresh)
        again = probed.take(np.flatnonzero(np.isin(probed.question_R, np.concatenate(drawn))))
        explored = Rollouts.concat([fresh, again]).sorted()
        hard = difficulty.measure(explored)
        usable_Q = difficulty.in_band(hard, compose.difficulty)
        order = difficulty.hardest_first(hard, compose.difficulty, seeded(seed, t, "order"))
        hardest = hard.take([i for i in order if usable_Q[i]])
        text, cluster_N = self.prompts(self.pool.questions).text, self.sampler.cluster_N
        chosen = pairs.select(explored, hardest, cluster_N, text, compose.pairs, seed, t)
        self.train(t, chosen)
        facts = {"explored": len(hard), "usable": int(usable_Q.sum()), "pairs": len(chosen), "tokens": spent}
        return facts

    def prompts(self, questions) -> prompts.Prompts:
        return prompts.Prompts(questions, {}, self.policy, self.config.rollouts.prompt)

    def roll(self, t: int, stage: str, question_Q: np.ndarray) -> Rollouts:
        config = self.config.rollouts
        return self.answer(self.pool.questions, question_Q, compose.k, compose.sampling(), (self.trial.seed, t, stage))

    def answer(self, questions, question_Q, k: int, how: Sampling, seed: tuple[int, int, str]) -> Rollouts:
        prompts = self.prompts(questions)
        token_Q = {int(q): prompts.tokens(int(q)) for q in question_Q}
        return waves.in_waves((k,), token_Q, prompts, how, self.config.rollouts, seed, self.grader)

    def update(self, graded: Rollouts) -> None:
        seen = difficulty.measure(graded)
        self.sampler.update(seen.question_Q, seen.n_correct_Q, seen.n_tried_Q)

    def train(self, t: int, chosen) -> None:
        if not len(chosen):
            return
        free()
        examples = tokenise(chosen, self.policy, self.config.rollouts.prompt.chat, self.config.rollouts.stop)
        settings, world, silent = self.config.dpo, World(), functools.partial(progress.stage, is_root=False)
        train.train(self.policy, chosen, examples, settings, world, self.trial.seed, t, False, silent)
        self.policy.model.eval()
        free()

    def scores(self, samples: int) -> dict:
        """Of the held-out questions: the same ones, and the same random streams, for every system."""
        questions, config = self.pool.held_out, self.config.rollouts
        everything, topic_N = np.arange(len(questions)), np.array([q.subject for q in questions])
        drawn = self.answer(questions, everything, samples, compose.sampling(), (0, 0, "evaluate"))
        rate_N = difficulty.measure(drawn).pass_rate_Q
        greedy = self.answer(
            questions, everything, 1, Sampling(0.0, 1.0, compose.max_new_tokens, compose.stop), (0, 0, "greedy")
        )
        return {
            "accuracy": float(rate_N.mean()),
            "greedy": float(difficulty.measure(greedy).pass_rate_Q.mean()),
            "worst_topic": min(float(rate_N[topic_N == topic].mean()) for topic in set(topic_N)),
        }


_lab: list[Lab] = []


def played(trial: Trial, folder: Path) -> list[dict]:
    """The trial's records; from the folder where they are there."""
    path = folder / f"{trial.key}.json"
    if not path.exists():
        if not _lab:
            _lab.append(Lab(base_in(folder, trial.setup)))
        records = _lab[0].play(trial)
        new = path.with_suffix(".new")
        new.write_text(json.dumps({"trial": asdict(trial), "records": records}, indent=1) + "\n")
        new.replace(path)
    return json.loads(path.read_text())["records"]


def base_in(folder: Path, setup: Setup) -> Path:
    """Where the policy that all begin with lies."""
    return folder / f"base-{setup.base_steps}" if setup.base_steps else HOME / "hpc_saidpo" / "data" / "micro_llama"


def make_base(folder: Path, setup: Setup) -> None:
    """Train the policy that all begin with, unless it is there."""
    path = base_in(folder, setup)
    if path.exists():
        return
    new = path.with_suffix(".new")
    for part in make_micro_model.make(setup.base_steps, 0):
        part.save_pretrained(new)
    new.rename(path)


def play_all(trials: Sequence[Trial], folder: Path, processes: int) -> dict[Trial, list[dict]]:
    found = {}
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(processes, mp_context=context) as pool:
        going = {pool.submit(played, trial, folder): trial for trial in trials}
        for i, done in enumerate(concurrent.futures.as_completed(going), 1):
            trial = going[done]
            found[trial] = done.result()
            gain = 100 * (found[trial][-1]["accuracy"] - found[trial][0]["accuracy"])
            print(
                f"{i:3} of {len(going)}: {trial.pool} {trial.system}, seed {trial.seed}: {gain:+.1f} points", flush=True
            )
    return found


def trials_of(setup: Setup, seeds: int, pools: Sequence[str]) -> list[Trial]:
    """All on the first pool, by real clusters and by labels; on the others the rules beside IDPO."""
    quarter, faster = replace(setup, probe=setup.probe // 4), replace(setup, lr=OTHER_LR)
    found = []
    for seed in range(seeds):
        found += [Trial(pools[0], system, name, seed, setup) for system, name in SYSTEMS.items()]
        found.append(Trial(pools[0], QUARTER, SYSTEMS[OURS], seed, quarter))
        found.append(Trial(pools[0], UNPROBED, SYSTEMS[BASELINE], seed, replace(setup, probe=1)))
        bolder = ("sampler.kappa=1", "sampler.history=0.8")
        found.append(Trial(pools[0], BOLDER, SYSTEMS[OURS], seed, setup, overrides=bolder))
        found += [Trial(pools[0], f"{s}, lr {OTHER_LR}", SYSTEMS[s], seed, faster) for s in (BASELINE, BOLD)]
        found += [Trial(pools[0], s, SYSTEMS[s], seed, setup, labels=True) for s in (OURS, BOLD)]
        rules = [s for s in SYSTEMS if s not in NOT_RULES[1:]]
        found += [Trial(pool, s, SYSTEMS[s], seed, setup) for pool in pools[1:] for s in rules]
    return found


@dataclass(frozen=True)
class Figures:
    """What the seeds of one system on one pool give, an array per figure, ordered by seed."""

    gain: np.ndarray
    greedy_gain: np.ndarray
    worst_topic: np.ndarray
    pair_yield: np.ndarray
    tokens_per_pair: np.ndarray
    accuracy: np.ndarray  # [seed, evaluation]
    tokens: np.ndarray  # generated by then, mean over the seeds

    @classmethod
    def of(cls, runs: Sequence[list[dict]]) -> Figures:
        first, last = [r[0] for r in runs], [r[-1] for r in runs]
        total = {
            name: np.array([sum(row[name] for row in r[1:]) for r in runs]) for name in ("usable", "explored", "tokens")
        }
        return cls(
            gain=100 * np.array([b["accuracy"] - a["accuracy"] for a, b in zip(first, last, strict=True)]),
            greedy_gain=100 * np.array([b["greedy"] - a["greedy"] for a, b in zip(first, last, strict=True)]),
            worst_topic=100 * np.array([b["worst_topic"] for b in last]),
            pair_yield=total["usable"] / total["explored"],
            tokens_per_pair=total["tokens"] / np.maximum(1, total["usable"]),
            accuracy=100 * np.array([[row["accuracy"] for row in r if "accuracy" in row] for r in runs]),
            tokens=np.mean([evaluated_at(r) for r in runs], axis=0),
        )


def evaluated_at(records: Sequence[Mapping]) -> list[int]:
    """Tokens generated before each evaluation."""
    spent = np.cumsum([row["tokens"] for row in records])
    return [int(n) for n, row in zip(spent, records, strict=True) if "accuracy" in row]


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and its 95 % interval by Student's t; of one value no interval."""
    mean = float(values.mean())
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


Table = dict[str, Figures]  # by system


def tables(found: Mapping[Trial, list[dict]]) -> dict[tuple[str, bool], Table]:
    """The figures of each system, by (pool, whether its clusters are the true labels)."""
    grouped: dict[tuple[str, bool], dict[str, list]] = {}
    for trial, records in sorted(found.items(), key=lambda item: item[0].seed):
        grouped.setdefault((trial.pool, trial.labels), {}).setdefault(trial.system, []).append(records)
    found_by = {where: {system: Figures.of(runs) for system, runs in own.items()} for where, own in grouped.items()}
    for (_, labels), table in found_by.items():
        if not labels:
            table[NO_CLUSTERS] = table[BASELINE]
    return found_by


def show(pool: str, labels: bool, table: Table, baseline: Figures) -> None:
    print(
        f"\npool {pool}, clusters are {'the true labels' if labels else 'K-Means of knowledge points'}; points, ± 95 %"
    )
    heads = ("gain", f"- {BASELINE}'s", "greedy gain", "worst topic", "pair yield", "tokens per pair")
    print(f"{'system':30}" + "".join(f"{head:>18}" for head in heads))
    for system, own in table.items():
        columns = own.gain, own.gain - baseline.gain, own.greedy_gain, own.worst_topic
        cells = [spread(column) for column in columns]
        cells += [spread(own.pair_yield, 3), spread(own.tokens_per_pair, 0)]
        print(f"{system:30}" + "".join(f"{cell:>18}" for cell in cells))


def spread(values: np.ndarray, digits: int = 1) -> str:
    mean, low, _ = interval(values)
    return f"{mean:.{digits}f}" + f" ± {mean - low:.{digits}f}" * (len(values) > 1)


def figures_of(found: dict[tuple[str, bool], Table], pools: Sequence[str]) -> dict[str, float | str]:
    """The flat figures: of the pool that is mostly out of reach, and of the last one, mostly in reach (in_band)."""
    table, last = found[pools[0], False], found[pools[-1], False]
    base, uniform = table[BASELINE], last[BASELINE]
    rules = [system for system in SYSTEMS if system not in NOT_RULES]
    best = max(rules, key=lambda system: table[system].gain.mean())
    gain = {system: own.gain.mean() / base.gain.mean() for system, own in table.items()}
    share = {system: own.pair_yield.mean() / base.pair_yield.mean() for system, own in table.items()}
    _, low, _ = interval(table[best].gain - base.gain)
    _, low_published, _ = interval(table[best].gain - table[PUBLISHED].gain)
    _, low_ours, _ = interval(table[OURS].gain - base.gain)
    _, low_ours_published, _ = interval(table[OURS].gain - table[PUBLISHED].gain)
    _, low_in_band, high_in_band = interval(last[best].gain - uniform.gain)
    return {
        "best_rule": best,
        "yield_ratio_error": share[OURS],
        "yield_ratio_frontier": share["frontier"],
        "gain_ratio_best": gain[best],
        "gain_ratio_ours": gain[OURS],
        "gain_ratio_published": gain[PUBLISHED],
        "gain_ratio_quarter_probe": gain[QUARTER],
        "gain_ratio_bolder": gain[BOLDER],
        "gain_ratio_best_to_unprobed": table[best].gain.mean() / table[UNPROBED].gain.mean(),
        "paired_gain_low95_best": low,
        "paired_gain_low95_ours": low_ours,
        "paired_vs_published_low95": low_published,
        "paired_vs_published_low95_ours": low_ours_published,
        "paired_gain_low95_in_band": low_in_band,
        "paired_gain_high95_in_band": high_in_band,
        "gain_idpo": float(base.gain.mean()),
        "gain_ours": float(table[OURS].gain.mean()),
        "gain_best": float(table[best].gain.mean()),
    }


def plot(found: dict[tuple[str, bool], Table], path: Path) -> None:
    """Accuracy over what was generated, mean and 95 % interval, a panel per pool and kind of clusters."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(found), 5), layout="constrained")
    panels = figure.subplots(1, len(found), squeeze=False, sharey=True)[0]
    systems = dict.fromkeys(system for table in found.values() for system in table)
    colour = {system: colormaps["tab20"](i) for i, system in enumerate(systems)}
    for axes, ((pool, labels), table) in zip(panels, found.items(), strict=True):
        for system, own in table.items():
            middle, low, high = np.array([interval(column) for column in own.accuracy.T]).T
            axes.plot(
                own.tokens / 1000, middle, color=colour[system], label=system, ls="-" if system in SYSTEMS else ":"
            )
            axes.fill_between(own.tokens / 1000, low, high, color=colour[system], alpha=0.12, linewidth=0)
        axes.set_title(f"pool {pool}, {'true labels' if labels else 'real clusters'}")
        axes.set_xlabel("tokens generated, thousands")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("accuracy on held-out questions, %")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=8)
    figure.savefig(path, dpi=120)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, two iterations, a tenth of the tokens")
    parser.add_argument("--json", type=Path, help="write the figures to this file too, as one flat object")
    parser.add_argument("--plot", type=Path, help="draw the curves into this PNG")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each system (default %(default)s)")
    parser.add_argument("--pools", nargs="+", choices=POOLS, default=["85/10/5", "10/50/40"], metavar="HARD/OWN/SMALL")
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, a thread each (default %(default)s)")
    parser.add_argument(
        "--keep", type=Path, default=HOME / "runs" / "claim", help="runs that are done (default runs/claim)"
    )
    asked = parser.parse_args()
    quick = Setup(2, 6_000, 40, samples=1, base_samples=1, base_steps=0)
    setup, seeds = (quick, 1) if asked.quick else (Setup(), asked.seeds)
    asked.keep.mkdir(parents=True, exist_ok=True)
    make_base(asked.keep, setup)
    trials = trials_of(setup, seeds, asked.pools)
    found = tables(play_all(trials, asked.keep, asked.processes))
    for (pool, labels), table in found.items():
        show(pool, labels, table, found[pool, False][BASELINE])
    figures = figures_of(found, asked.pools)
    print()
    for name, value in figures.items():
        print(f"{name:34}{value if isinstance(value, str) else format(value, '12.4g')}")
    if asked.plot:
        plot(found, asked.plot)
    if asked.json:
        known = {name: None if value != value else value for name, value in figures.items()}
        asked.json.write_text(json.dumps(known, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
