#!/usr/bin/env python3
"""Does dynamic sampling pay? The method's systems on a small, real learning problem, at equal generation budgets.

    tools/bench/bench_claim.py --quick
    tools/bench/bench_claim.py --json claim.json --plot claim.png

The policy is a micro Llama as this package ships one, but trained twice as long (`tools/make_micro_model.py --steps
3000`, four CPU-minutes; made at the first start): right about every second time on step-by-step arithmetic of eight
topics, with a habit that pairs can correct. Pools are as pools are: of 85/10/5 (per cent), 85 are far too hard for it,
10 in its range, 5 far too easy; of 10/50/40 most are of use. The questions of its range that it is evaluated on are in
no pool, and it has never seen them.

Every system has the same number of tokens to generate in each of its iterations, probe included: it explores its drawn
questions in their order until they are spent. It is configured by `experiment=[tiny,NAME]`. Its iterations are those of
the library (`loop.iterate`): probe, draw, explore, pair, train, evaluate. IDPO probes as the others do, though it makes
nothing of it; beside it is IDPO that spends next to nothing (one question) on a probe. Clusters come from knowledge
points, sentence embeddings and K-Means. A question's knowledge points are its topic and the size of its numbers in one
of several wordings, sometimes without the size, as a tagger would have them; `true labels` is topic × range in their
place.

Shown are means over seeds with their 95 % interval (Student's t), and differences from IDPO seed by seed:
accuracy and its gain (held-out questions, one response at temperature 1, mean of 8), greedy accuracy, accuracy of the
worst topic, pair yield (share of explored questions that give a pair), and tokens generated per usable pair.
Finished runs are kept in --keep, and not done again: after a change of the code, name another folder.
--quick: the model that ships, one seed, two iterations, a tenth of the tokens: it shows that all runs.
It needs the extra `demo`.
"""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import common

common.start("sentence_transformers")

import make_micro_model
from claim_figures import (
    BASELINE,
    BOLD,
    BOLDER,
    NOT_RULES,
    OURS,
    QUARTER,
    SYSTEMS,
    UNPROBED,
    figures_of,
    plot,
    show,
    tables,
)  # fmt: skip
from claim_lab import POOLS, Lab, Setup, Trial

OTHER_LR = 1e-4
QUICK = Setup(2, 6_000, 40, samples=1, base_samples=1, base_steps=0)
_lab: list[Lab] = []  # this process's


def main() -> int:
    parser = common.parser(__doc__, "one seed, two iterations, a tenth of the tokens", repeats=5)
    parser.add_argument("--plot", type=Path, help="draw the curves into this PNG")
    parser.add_argument("--seeds", type=int, dest="repeats", help="the same as --repeats: runs of each system")
    parser.add_argument("--pools", nargs="+", choices=POOLS, default=["85/10/5", "10/50/40"], metavar="HARD/OWN/SMALL")
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, a thread each (default %(default)s)")
    kept = common.HOME / "runs" / "claim"
    parser.add_argument("--keep", type=Path, default=kept, help="finished runs (default runs/claim)")
    arguments = parser.parse_args()
    setup, seeds = (QUICK, 1) if arguments.quick else (Setup(), common.repeats_of(arguments))
    arguments.keep.mkdir(parents=True, exist_ok=True)
    make_base(arguments.keep, setup)
    played = play_all(trials_of(setup, seeds, arguments.pools), arguments.keep, arguments.processes)
    by_place = tables(played)
    for (pool, labels), table in by_place.items():
        show(pool, labels, table, by_place[pool, False][BASELINE])
    figures = figures_of(by_place, arguments.pools)
    common.show_figures(figures)
    if arguments.plot:
        plot(by_place, arguments.plot)
    common.write_figures(figures, arguments)
    return 0


def trials_of(setup: Setup, seeds: int, pools: Sequence[str]) -> list[Trial]:
    """All on the first pool, by real clusters and by labels; on the others the rules beside IDPO."""
    quarter, faster = replace(setup, probe=setup.probe // 4), replace(setup, lr=OTHER_LR)
    trials = []
    for seed in range(seeds):
        trials += [Trial(pools[0], system, name, seed, setup) for system, name in SYSTEMS.items()]
        trials.append(Trial(pools[0], QUARTER, SYSTEMS[OURS], seed, quarter))
        trials.append(Trial(pools[0], UNPROBED, SYSTEMS[BASELINE], seed, replace(setup, probe=1)))
        bolder = ("sampler.kappa=1", "sampler.history=0.8")
        trials.append(Trial(pools[0], BOLDER, SYSTEMS[OURS], seed, setup, overrides=bolder))
        trials += [Trial(pools[0], f"{s}, lr {OTHER_LR}", SYSTEMS[s], seed, faster) for s in (BASELINE, BOLD)]
        trials += [Trial(pools[0], s, SYSTEMS[s], seed, setup, labels=True) for s in (OURS, BOLD)]
        rules = [s for s in SYSTEMS if s not in NOT_RULES[1:]]
        trials += [Trial(pool, s, SYSTEMS[s], seed, setup) for pool in pools[1:] for s in rules]
    return trials


def play_all(trials: Sequence[Trial], folder: Path, processes: int) -> dict[Trial, list[dict]]:
    """The records of every trial."""
    records = {}
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(processes, mp_context=context) as pool:
        going = {pool.submit(play, trial, folder): trial for trial in trials}
        for i, done in enumerate(concurrent.futures.as_completed(going), 1):
            trial = going[done]
            records[trial] = done.result()
            gain = 100 * (records[trial][-1]["accuracy"] - records[trial][0]["accuracy"])
            line = f"{i:3} of {len(going)}: {trial.pool} {trial.system}, seed {trial.seed}: {gain:+.1f} points"
            print(line, flush=True)
    return records


def play(trial: Trial, folder: Path) -> list[dict]:
    """The trial's records; from the folder where they exist."""
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
    """Folder of the policy that every trial begins with."""
    if setup.base_steps:
        return folder / f"base-{setup.base_steps}"
    return common.HOME / "hpc_saidpo" / "data" / "micro_llama"


def make_base(folder: Path, setup: Setup) -> None:
    """Train the policy that every trial begins with, unless it exists."""
    path = base_in(folder, setup)
    if path.exists():
        return
    new = path.with_suffix(".new")
    for part in make_micro_model.make(setup.base_steps, 0):
        part.save_pretrained(new)
    new.rename(path)


if __name__ == "__main__":
    sys.exit(main())
