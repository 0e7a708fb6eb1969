#!/usr/bin/env python3
"""Does dynamic sampling pay? Every system at its best, on fresh pools, at equal generation budgets.

    tools/bench/bench_claim.py --quick
    tools/bench/bench_claim.py --minutes 0            # show the kept trials, make no new one
    tools/bench/bench_claim.py --minutes 5            # one sitting; the same command continues later
    tools/bench/bench_claim.py --parts headlines --json claim.json --plot claim.png

The policy is the micro Llama of this package: right about every third time on step-by-step arithmetic of eight topics,
with a habit that pairs can correct, because it was made so (`tools/make_micro_model.py`). Pools are as pools are: of
85/10/5 (per cent), 85 are far too hard for it, 10 in its range, 5 far too easy; of 10/50/40 half are of use. The
questions that it is evaluated on are in no pool, and it has never seen them.

Every system has the same number of tokens in each of its iterations, probe included: it explores its drawn questions in
their order until they are spent, or all questions of the pool are explored. Its iterations are those of the library
(`loop.iterate`). Clusters come from knowledge points in free wordings, sentence embeddings and K-Means, with the number
of clusters that `hpc-saidpo clusters` suggests.

Parts, in this order:
  tuning     learning rate, epochs and pairs per step of every system on each pool, on seeds from 100
  forms      other forms of our default, on the same seeds
  beyond     a third of the smallest learning rate, and twice the epochs, on the first of these seeds
  headlines  each system at its best on the reporting seeds, with pools, held-out questions and clusters of their own
  rules      all rules with equal settings, on three pools
  clusters   our default with 24, 50, 100 and 150 clusters
  smollm2    the same on a real language model: runs of the program with SmolLM2-135M (`claim_smollm2`), the learning
             rate chosen on seed 100, three reporting seeds; about a quarter of an hour a run

Shown are means over seeds with their 95 % interval (Student's t), differences from IDPO seed by seed, and the tokens
after which a system has IDPO's final accuracy, as a share of IDPO's. Finished trials are kept in
tools/bench/results/claim/ (`claim_trials`). In the JSON file, figures are null of which trials are missing, or that are
infinite, or an interval from one seed. It needs the extra `demo`.
--quick: one seed, one iteration, small pools, few tokens, two choices to tune, fewer systems, not smollm2 (which
takes two minutes more: --quick --parts smollm2): it shows that all runs.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import common

common.start("sentence_transformers", threads=1)

import claim_smollm2
import claim_trials
from claim_figures import Figures, Table, gain_of, plot, show, show_pairs, show_spent
from claim_named import NAMES, headline_figures, real_figures, rule_figures
from claim_plan import (
    ADAPTIVE,
    BASELINE,
    BEYOND,
    BOTH,
    FIRST_TUNING_SEED,
    MAIN_POOLS,
    OURS,
    PUBLISHED,
    REAL_GRID,
    SIMILAR,
    UNIFORM_ADAPTIVE,
    UNPROBED,
    Plan,
    Unfinished,
)
from claim_trials import HOME, KERNEL, SMOLLM2, Setup, Training, Trial, missing

PARTS = ("tuning", "forms", "beyond", "headlines", "rules", "clusters", "smollm2")
NUMBERS_OF_CLUSTERS = (24, 50, 100, 150)
QUICK = Setup(1, 1_500, 10, held_out=24, samples=1, curve_samples=1)
# Systems in the picture of the headlines, and their names there.
DRAWN = {
    BASELINE: "IDPO: uniform",
    PUBLISHED: "published form",
    OURS: "ours (default)",
    BOTH: "ours, experiment=frugal",
}
# What early decision adds to each way of drawing, then what each way adds to others.
COMPARED = [
    (UNIFORM_ADAPTIVE, UNPROBED), (ADAPTIVE, OURS), (BOTH, SIMILAR), (ADAPTIVE, UNIFORM_ADAPTIVE),
    (BOTH, UNIFORM_ADAPTIVE), (SIMILAR, OURS), (PUBLISHED, UNPROBED), (PUBLISHED, OURS),
]  # fmt: skip
_labs: list = []  # this process's


def main() -> int:
    arguments = arguments_of()
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan(gain, Setup(), common.repeats_of(arguments), first_seed=arguments.first_seed)
        real = Plan(gain, claim_smollm2.SETUP, 3, REAL_GRID, (len(REAL_GRID),), (SMOLLM2,), beside=())
        if arguments.quick:
            claim_trials.RESULTS = Path(folder)
            choices = (Training(1e-4, 1, 8), Training(3e-4, 1, 8))
            small, third = [f"{pool} small" for pool in MAIN_POOLS], "70/15/15 small"
            plan = Plan(gain, QUICK, 1, choices, (2,), small, third, (UNPROBED, BOTH), more=BEYOND[:1])
            real = Plan(gain, claim_smollm2.QUICK, 1, REAL_GRID[:1], (1,), (SMOLLM2,), beside=())
        parts = parts_of(plan, real, arguments.parts)
        end, stopped = time.monotonic() + 60 * arguments.minutes, False
        try:
            make_all(parts, arguments.processes, end)
        except KeyboardInterrupt:
            stopped = True
        report(plan, parts, arguments)
    return 130 if stopped else 0


def arguments_of() -> argparse.Namespace:
    """The command line, checked."""
    parser = common.parser(__doc__, "one seed, one iteration, small pools; not smollm2", repeats=10)
    parser.add_argument(
        "--plot", type=Path, help="draw the curves into this PNG or SVG: those of headlines and smollm2"
    )
    parser.add_argument(
        "--seeds", type=common.positive, dest="repeats", help="the same as --repeats: reporting seeds; smollm2 has 3"
    )
    parser.add_argument(
        "--first-seed", type=int, default=0, help="the first reporting seed (default %(default)s); smollm2 has 0"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="parts to make and show (default: all)")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="begin no trial after so many minutes; 0: show what is kept"
    )
    parser.add_argument("--processes", type=common.positive, default=2, help="trials at a time (default %(default)s)")
    arguments = parser.parse_args()
    arguments.parts = arguments.parts or PARTS[: -1 if arguments.quick else None]
    if not 0 <= arguments.first_seed <= FIRST_TUNING_SEED - common.repeats_of(arguments):
        parser.error(f"reporting seeds are from 0 to {FIRST_TUNING_SEED - 1}: systems are tuned on those from there on")
    for path in filter(None, (arguments.json, arguments.plot)):
        if not path.absolute().parent.is_dir():
            parser.error(f"{path}: there is no folder {path.absolute().parent}")
    if arguments.plot and arguments.plot.suffix not in (".png", ".svg"):
        parser.error(f"{arguments.plot}: the name must end with .png or .svg")
    return arguments


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
        "tuning": plan.tuning, "forms": plan.forms, "beyond": plan.beyond, "headlines": plan.headlines,
        "rules": plan.rules, "clusters": lambda: plan.clusters(NUMBERS_OF_CLUSTERS), "smollm2": real.headlines,
    }  # fmt: skip
    return {name: known[name] for name in PARTS if name in names}


def needed(trials_of: Callable[[], Iterable[Trial]]) -> list[Trial]:
    """The missing trials of a part that can be made now; of a finished part none."""
    try:
        return missing(trials_of())
    except Unfinished as unfinished:
        return missing(unfinished.trials)


def make_all(parts: Mapping[str, Callable[[], Iterable[Trial]]], processes: int, end: float) -> None:
    """Make the missing trials of the parts, one part after the other, until time is up.

    Raises:
        SystemExit: no trial could be kept.
    """
    if time.monotonic() >= end or not any(map(needed, parts.values())):
        return
    for folder in (claim_trials.RESULTS, HOME / "runs"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            sys.exit(f"{folder}: trials are kept there, but no file can be written ({error}); --minutes 0 makes none")
    context = multiprocessing.get_context("spawn")
    end_at_ctrl_c = (signal.SIGINT, signal.SIG_DFL)
    with concurrent.futures.ProcessPoolExecutor(processes, context, signal.signal, end_at_ctrl_c) as pool:
        for name, trials_of in parts.items():
            while trials := needed(trials_of):
                print(f"{name}: {len(trials)} trials are missing", flush=True)
                if not make(trials, pool, processes, end):
                    return


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
        first, last = min(trial.seed for trial in trials), max(trial.seed for trial in trials)
        seeds = f"seed {first}" if first == last else f"seeds {first} to {last}"
        tables = {pool: table_of(trials, pool) for pool in dict.fromkeys(trial.pool for trial in trials)}
        if name in ("rules", "forms") and (common_ones := set.intersection(*map(set, tables.values()))):
            of_all = [system for system in next(iter(tables.values())) if system in common_ones]
            tables["mean of the pools"] = {s: Figures.mean_of([t[s] for t in tables.values()]) for s in of_all}
        for pool, table in tables.items():
            baselines = [system for system in (BASELINE, OURS if name == "rules" else UNPROBED) if system in table]
            if table:
                show(f"{name}, pool {pool}, {seeds}", table, baselines)
                show_pairs(f"{name}, pool {pool}", table, COMPARED if name in ("headlines", "smollm2") else ())
            if name == "headlines" and BASELINE in table:
                show_spent(f"{name}, pool {pool}", table, BASELINE, plan.setup.tokens * plan.setup.iterations)
        if name == "headlines":
            figures |= headline_figures([tables.get(pool, {}) for pool in plan.pools])
            curves |= {f"pool {pool}": table for pool, table in tables.items() if set(DRAWN) <= set(table)}
        if name == "rules":
            figures |= rule_figures(tables.get("mean of the pools", {}))
        if name == "smollm2":
            figures |= real_figures(tables)
            curves |= {f"{pool}, tasks in its range": table for pool, table in tables.items()}
            curves |= {
                f"{pool}, all tasks": {system: row.on_all_tasks() for system, row in table.items()}
                for pool, table in tables.items()
            }
    if curves and arguments.plot:
        plot(curves, arguments.plot, DRAWN, one_scale="smollm2" not in parts)
    elif arguments.plot:
        print(f"\n{arguments.plot} is not drawn: it needs all trials of `headlines` or `smollm2`")
    common.show_figures(figures)
    common.write_figures(figures, arguments)
    unfinished = {name: len(trials) for name, trials_of in parts.items() if (trials := needed(trials_of))}
    if unfinished:
        print("\nTrials that can be made now:", ", ".join(f"{name} {n}" for name, n in unfinished.items()))
        print("Start the same command again" + ", with more --minutes" * (arguments.minutes == 0) + ".")


def table_of(trials: Sequence[Trial], pool: str) -> Table:
    """The figures of each system on a pool; of those all of whose trials exist."""
    grouped: dict[tuple[str, Training], list[Trial]] = {}
    for trial in trials:
        if trial.pool == pool:
            name = trial.system + f", {trial.clusters} clusters" * (trial.clusters is not None)
            grouped.setdefault((name, trial.training), []).append(trial)
    has_one = len({name for name, _ in grouped}) == len(grouped)  # training settings of each system
    found = {
        name if has_one else f"{name}, {training}": [trial.load() for trial in some]
        for (name, training), some in grouped.items()
    }
    return {name: Figures.of([r for r in runs if r]) for name, runs in found.items() if all(runs)}


if __name__ == "__main__":
    sys.exit(main())
