#!/usr/bin/env python3
"""Does dynamic sampling pay? Every system at its best, on fresh pools, at equal generation budgets.

    tools/bench/bench_claim.py --quick
    tools/bench/bench_claim.py --minutes 5            # one sitting; the same command continues later
    tools/bench/bench_claim.py --json claim.json --plot claim.png

The policy is the micro Llama of this package: right about every third time on step-by-step arithmetic of eight topics,
with a habit that pairs can correct, because it was made so (`tools/make_micro_model.py`). Pools are as pools are: of
85/10/5 (per cent), 85 are far too hard for it, 10 in its range, 5 far too easy; of 10/50/40 most are of use. The
questions that it is evaluated on are in no pool, and it has never seen them.

Every system generates the same number of tokens in each of its iterations, probe included: it explores its drawn
questions in their order until they are spent. Its iterations are those of the library (`loop.iterate`). Clusters come
from knowledge points in free wordings, sentence embeddings and K-Means, with the number of clusters that
`hpc-saidpo clusters` suggests.

Parts, in this order:
  tuning     learning rate, epochs and pairs per step of every system on each pool, on seeds from 100
  forms      other forms of our default, on the same seeds
  headlines  each system at its best on the reporting seeds, with pools, held-out questions and clusters of their own
  rules      all rules with equal settings, on three pools
  clusters   our default with 24, 50, 100 and 150 clusters
  smollm2    the same on a real language model: runs of the program with SmolLM2-135M (`claim_smollm2`), the learning
             rate chosen on seed 100, three reporting seeds; about a quarter of an hour a run

Shown are means over seeds with their 95 % interval (Student's t), differences from IDPO seed by seed, and the tokens
after which a system has IDPO's final accuracy, as a share of IDPO's. Finished trials are kept in
tools/bench/results/claim/ (`claim_trials`); figures of which trials are missing are null. It needs the extra `demo`.
--quick: one seed, two iterations, small pools, a twentieth of the tokens, two choices to tune, fewer systems: it shows
that all runs.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import common

common.start("sentence_transformers", threads=1)

import claim_smollm2
import claim_trials
from claim_figures import Figures, Table, gain_of, interval, plot, show, tokens_share
from claim_plan import (
    ADAPTIVE,
    BASELINE,
    BOTH,
    FIRST_TUNING_SEED,
    MAIN_POOLS,
    OURS,
    PUBLISHED,
    REAL_GRID,
    RULES,
    SIMILAR,
    UNPROBED,
    Plan,
    Unfinished,
)
from claim_trials import KERNEL, SMOLLM2, Setup, Training, Trial, missing

from hpc_saidpo import settings

PARTS = ("tuning", "forms", "headlines", "rules", "clusters", "smollm2")
NUMBERS_OF_CLUSTERS = (24, 50, 100, 150)
QUICK = Setup(2, 1_500, 10, held_out=24, samples=1, curve_samples=1)
# Systems in the picture of the headlines, and their names there.
DRAWN = {
    BASELINE: "IDPO: uniform",
    PUBLISHED: "published form",
    OURS: "ours (default)",
    BOTH: "ours, experiment=frugal",
}
_labs: list = []  # this process's


def main() -> int:
    parser = common.parser(__doc__, "one seed, two iterations, small pools", repeats=10)
    parser.add_argument(
        "--plot", type=Path, help="draw the curves into this PNG or SVG: those of headlines and smollm2"
    )
    parser.add_argument("--seeds", type=int, dest="repeats", help="the same as --repeats: reporting seeds")
    parser.add_argument("--first-seed", type=int, default=0, help="the first reporting seed (default %(default)s)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="parts to make and show")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="begin no trial after so many minutes; 0: show what is kept"
    )
    parser.add_argument("--processes", type=int, default=2, help="trials at a time (default %(default)s)")
    arguments = parser.parse_args()
    if arguments.first_seed + common.repeats_of(arguments) > FIRST_TUNING_SEED:
        parser.error(f"reporting seeds must be below {FIRST_TUNING_SEED}: systems are tuned on those")
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan(gain, Setup(), common.repeats_of(arguments), first_seed=arguments.first_seed)
        real = Plan(gain, claim_smollm2.SETUP, 3, REAL_GRID, (len(REAL_GRID),), (SMOLLM2,), beside=())
        if arguments.quick:
            claim_trials.RESULTS = Path(folder)
            choices = (Training(1e-4, 1, 8), Training(3e-4, 1, 8))
            small, third = [f"{pool} small" for pool in MAIN_POOLS], "70/15/15 small"
            plan = Plan(gain, QUICK, 1, choices, (2,), small, third, (UNPROBED, BOTH))
            real = Plan(gain, claim_smollm2.QUICK, 1, REAL_GRID[:1], (1,), (SMOLLM2,), beside=())
        parts = parts_of(plan, real, arguments.parts)
        end = time.monotonic() + 60 * arguments.minutes
        is_complete = make_all(parts, arguments.processes, end)
        report(plan, parts, arguments)
    if not is_complete:
        print("\nnot all trials are made: start the same command again")
    return 0


def gain(trial: Trial) -> float:
    """Points that a trial gained. Raises KeyError: it has not been made."""
    records = trial.load()
    if records is None:
        raise KeyError(trial)
    return gain_of(records)


def parts_of(plan: Plan, real: Plan, names: Sequence[str]) -> dict[str, Callable[[], Iterable[Trial]]]:
    """The trials of each part, as far as they can be known.

    Args:
        real: the plan with the real language model.
    """
    known = {
        "tuning": plan.tuning, "forms": plan.forms, "headlines": plan.headlines, "rules": plan.rules,
        "clusters": lambda: plan.clusters(NUMBERS_OF_CLUSTERS), "smollm2": real.headlines,
    }  # fmt: skip
    return {name: known[name] for name in PARTS if name in names}


def make_all(parts: Mapping[str, Callable[[], Iterable[Trial]]], processes: int, end: float) -> bool:
    """Make the missing trials of the parts, one part after the other. Returns whether none is missing."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(processes, mp_context=context) as pool:
        for name, trials_of in parts.items():
            while True:
                try:
                    trials = missing(trials_of())
                except Unfinished as unfinished:
                    trials = missing(unfinished.trials)
                if not trials:
                    break
                print(f"{name}: {len(trials)} trials are missing", flush=True)
                if not make(trials, pool, processes, end):
                    return False
    return True


def make(trials: Sequence[Trial], pool: concurrent.futures.Executor, processes: int, end: float) -> bool:
    """Make trials, those of one pool and seed after the other. Returns False if time is up."""
    waiting = sorted(trials, key=lambda trial: (trial.seed, trial.pool))
    going: set[concurrent.futures.Future] = set()
    while waiting or going:
        while waiting and len(going) < processes and time.monotonic() < end:
            going.add(pool.submit(play, waiting.pop(0), str(claim_trials.RESULTS)))
        if not going:
            return False
        done, going = concurrent.futures.wait(going, return_when=concurrent.futures.FIRST_COMPLETED)
        for future in done:
            print(f"  {future.result()}", flush=True)
    return True


def play(trial: Trial, results: str) -> str:
    """Make one trial and keep it, in a process of its own. Returns a line about it."""
    claim_trials.RESULTS = Path(results)
    before = sum(os.times()[:4])
    records = records_of(trial)
    cpu_s = sum(os.times()[:4]) - before  # children too: the program
    trial.keep(records, cpu_s)
    points = f"{100 * gain_of(records):+.1f} points, {cpu_s:.0f} CPU-seconds"
    return f"{trial.pool} {trial.system}, seed {trial.seed}, {trial.training}: {points}"


def records_of(trial: Trial) -> list[dict]:
    """The records of a trial that is made here and now."""
    if trial.pool == SMOLLM2:
        return claim_smollm2.play(trial)
    import claim_kernel
    import claim_lab

    if not _labs:
        _labs.append(claim_lab.Lab())
    return claim_kernel.play(_labs[0], trial) if KERNEL in trial.overrides else _labs[0].play(trial)


def report(plan: Plan, parts: Mapping[str, Callable[[], Iterable[Trial]]], arguments) -> None:
    """Print a table of each part whose trials exist, and write figures and curves."""
    figures: dict[str, float | str | None] = dict.fromkeys(NAMES)
    curves: dict[str, Table] = {}
    for name in [name for name in parts if name != "tuning"]:
        try:
            trials = list(parts[name]())
        except Unfinished:
            continue
        tables = {pool: table_of(trials, pool) for pool in dict.fromkeys(trial.pool for trial in trials)}
        for pool, table in tables.items():
            if table:
                baselines = [system for system in (BASELINE, UNPROBED) if system in table]
                show(f"{name}, pool {pool}", table, baselines or [next(iter(table))])
        if name == "headlines":
            figures |= headline_figures([tables.get(pool, {}) for pool in plan.pools])
            curves |= {f"pool {pool}": table for pool, table in tables.items() if set(DRAWN) <= set(table)}
        if name == "rules":
            figures["best_rule"] = best_rule(tables)
        if name == "smollm2":
            figures |= real_figures(tables)
            curves |= {f"{pool}, tasks in its range": table for pool, table in tables.items()}
            curves |= {
                f"{pool}, all tasks": {system: row.on_all_tasks() for system, row in table.items()}
                for pool, table in tables.items()
            }
    if arguments.plot and curves:
        plot(curves, arguments.plot, DRAWN, one_scale="smollm2" not in parts)
    common.show_figures(figures)
    common.write_figures(figures, arguments)


def table_of(trials: Sequence[Trial], pool: str) -> Table:
    """The figures of each system on a pool; of those all of whose trials exist."""
    grouped: dict[str, list[Trial]] = {}
    for trial in trials:
        if trial.pool == pool:
            name = trial.system if trial.clusters is None else f"{trial.system}, {trial.clusters} clusters"
            grouped.setdefault(name, []).append(trial)
    found = {name: [trial.load() for trial in some] for name, some in grouped.items()}
    return {name: Figures.of([r for r in runs if r]) for name, runs in found.items() if all(runs)}


NAMES = (
    "points_over_idpo", "points_over_idpo_low95", "tokens_to_idpo_share", "tokens_to_idpo_share_high95",
    "points_over_idpo_in_band", "points_over_idpo_in_band_low95", "tokens_to_idpo_share_in_band",
    "tokens_to_idpo_share_in_band_high95", "points_over_idpo_without_probe", "points_over_idpo_without_probe_low95",
    "points_over_published", "points_over_published_low95", "best_rule", "tokens_per_pair_ratio_adaptive",
    "points_of_adaptive", "points_of_adaptive_low95", "points_of_kernel", "points_of_kernel_low95",
    "points_of_kernel_in_band", "points_of_kernel_in_band_low95", "points_of_frugal", "points_of_frugal_low95",
    "points_of_frugal_in_band", "points_of_frugal_in_band_low95", "tokens_per_pair_ratio_frugal",
    "smollm2_points_over_idpo", "smollm2_points_over_idpo_low95", "smollm2_tokens_to_idpo_share",
)  # fmt: skip


def headline_figures(tables: Sequence[Table]) -> dict[str, float | str | None]:
    """The figures by name of the systems that are there, of `Plan.pools`; in_band: on the second pool."""
    figures: dict[str, float | str | None] = {}

    def compare(name: str, table: Table, one: str, other: str) -> None:
        if one in table and other in table:
            figures[name], figures[f"{name}_low95"], _ = interval(table[one].gain - table[other].gain)

    for table, end in zip(tables, ("", "_in_band"), strict=True):
        compare(f"points_over_idpo{end}", table, OURS, BASELINE)
        compare(f"points_of_kernel{end}", table, SIMILAR, OURS)
        compare(f"points_of_frugal{end}", table, BOTH, OURS)
        if OURS in table and BASELINE in table:
            share, _, high = tokens_share(table[OURS], table[BASELINE])
            figures |= {f"tokens_to_idpo_share{end}": share, f"tokens_to_idpo_share{end}_high95": high}
    first = tables[0]
    compare("points_over_idpo_without_probe", first, OURS, UNPROBED)
    compare("points_over_published", first, OURS, PUBLISHED)
    compare("points_of_adaptive", first, ADAPTIVE, OURS)
    for system, name in ((ADAPTIVE, "adaptive"), (BOTH, "frugal")):
        if system in first and OURS in first:
            ratio = first[system].tokens_per_pair.mean() / first[OURS].tokens_per_pair.mean()
            figures[f"tokens_per_pair_ratio_{name}"] = float(ratio)
    return figures


def real_figures(tables: Mapping[str, Table]) -> dict[str, float]:
    """The figures by name of the comparison with the real language model, on the tasks in its range."""
    table = tables.get(SMOLLM2, {})
    if not {OURS, BASELINE} <= set(table):
        return {}
    mean, low, _ = interval(table[OURS].gain - table[BASELINE].gain)
    share, *_ = tokens_share(table[OURS], table[BASELINE])
    names = ("smollm2_points_over_idpo", "smollm2_points_over_idpo_low95", "smollm2_tokens_to_idpo_share")
    return dict(zip(names, (mean, low, share), strict=True))


def best_rule(tables: Mapping[str, Table]) -> str | None:
    """The rule with the largest gain, mean over the pools."""
    rules = [OURS, *RULES]
    if not all(rule in table for table in tables.values() for rule in rules):
        return None
    best = max(rules, key=lambda rule: sum(float(table[rule].gain.mean()) for table in tables.values()))
    return settings.Sampler().rule if best == OURS else best


if __name__ == "__main__":
    sys.exit(main())
