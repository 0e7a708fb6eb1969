#!/usr/bin/env python
"""Are the kept trials of bench_claim those of this code? Make some of them again and compare all that they recorded.

    tools/bench/claim_again.py --parts headlines rules --trials 12

Another kind of CPU rounds otherwise: then some responses differ, and the points that are shown tell by how much.

Kept trials belong to a hash of the code that decides a result (`claim_trials.code_hash`). When that code changes and
results do not (a fault on other inputs is mended, a function moves), make one trial of each system again with the new
code, and those that differ with the old code on the same machine. If the two are the same, name the new hash in
`claim_trials.SAME`: the trials stay valid.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import multiprocessing
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from bench_claim import gain, parts_of, records_of
from claim_figures import gain_of
from claim_plan import Plan, Unfinished
from claim_trials import Setup, Trial, rounded


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("forms", "headlines", "rules", "clusters")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts, help="parts to choose from")
    parser.add_argument("--trials", type=int, default=12, help="number of trials (default %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="trials at a time (default %(default)s)")
    arguments = parser.parse_args()
    plan = Plan(gain, Setup(), 10)
    trials: dict[Path, Trial] = {}
    for trials_of in parts_of(plan, plan, arguments.parts).values():
        try:
            trials |= {trial.path: trial for trial in trials_of() if trial.path.exists()}
        except Unfinished:
            continue
    chosen = choose(list(trials.values()), arguments.trials)
    with concurrent.futures.ProcessPoolExecutor(
        arguments.processes, mp_context=multiprocessing.get_context("spawn")
    ) as pool:
        found = list(pool.map(difference, chosen))
    for trial, text in zip(chosen, found, strict=True):
        print(f"{trial.pool} {trial.system}, seed {trial.seed}: {text or 'the same'}")
    print(f"{found.count('')} of {len(found)} are the same")
    return int(any(found))


def choose(trials: Sequence[Trial], n: int) -> list[Trial]:
    """At most n of the trials: of each system in turn one, at random but always the same."""
    order = np.random.default_rng(0).permutation(len(trials))
    turns: dict[str, int] = {}
    placed = []
    for i in order:
        trial = trials[i]
        turns[trial.system] = turn = turns.get(trial.system, 0) + 1
        placed.append((turn, trial.system, trial))
    return [trial for *_, trial in sorted(placed, key=lambda place: place[:2])][:n]


def difference(trial: Trial) -> str:
    """What differs between a kept trial and the same one made now; "" if nothing does.

    The number of clusters of IDPO is not compared: it draws by none.
    """
    kept, made = trial.load(), json.loads(json.dumps(rounded(records_of(trial))))
    if kept is None or len(kept) != len(made):
        return f"{len(made)} records, kept are {len(kept or [])}"
    left = {"clusters"} if trial.experiment == "idpo" else set()
    pairs = zip(kept, made, strict=True)
    names = [name for one, other in pairs for name in one if name not in left and one[name] != other.get(name)]
    points = f"{100 * gain_of(kept):+.2f} points kept, {100 * gain_of(made):+.2f} made now"
    return f"differs in {', '.join(dict.fromkeys(names))}; {points}" if names else ""


if __name__ == "__main__":
    sys.exit(main())
