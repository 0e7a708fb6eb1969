#!/usr/bin/env python3
"""Are the kept trials of bench_claim those of this code? Make some of them again and compare all that they recorded.

    tools/bench/claim_again.py --trials 12      # checks trials that this version of the code made
    tools/bench/claim_again.py --adopt          # checks trials that other versions made, and renames them
    git worktree add ../before COMMIT; tools/bench/claim_again.py --adopt --before ../before

The name of a kept trial has a hash of the code that decides a result (`claim_trials`). When that code changes and
results do not (a fault on other inputs is mended, a function moves), --adopt makes one trial of each system again, and
gives the trials of every system for which nothing differs the names of this code. Runs of the real language model are
not made again: they follow the same system on the micro model, and keep their names if code of theirs alone changed.

Another kind of CPU rounds differently: some responses differ, and the points that are shown tell by how much. So
give --before a checkout of the earlier code: trials that differ from the kept ones are made by both on this machine.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import itertools
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import common

common.start("sentence_transformers", threads=1)

import claim_trials
import numpy as np
from bench_claim import records_of
from claim_figures import gain_of
from claim_trials import SMOLLM2, Trial, code_of, rounded, trial_of

MAKE = """
import json, sys
from bench_claim import records_of
from claim_trials import Setup, Training, Trial, rounded
t = json.load(open(sys.argv[1]))["trial"]
training, setup, overrides = Training(**t["training"]), Setup(**t["setup"]), tuple(t["overrides"])
print(json.dumps(rounded(records_of(Trial(**{**t, "training": training, "setup": setup, "overrides": overrides})))))
"""


@dataclass(frozen=True)
class Kept:
    """A kept trial: its file, the hash of the code that only a part of the trials uses, its records."""

    path: Path
    trial: Trial
    more: str
    records: list[dict]

    @property
    def is_current(self) -> bool:
        """Whether it has the name of this code."""
        return self.path == self.trial.path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--adopt", action="store_true", help="compare the trials of other code; rename if nothing differs"
    )
    parser.add_argument("--before", type=Path, help="a checkout with the code that made the trials")
    parser.add_argument("--systems", nargs="+", help="only these systems")
    parser.add_argument("--trials", type=common.positive, help="number of trials (default: one of each system)")
    parser.add_argument("--processes", type=common.positive, default=2, help="trials at a time (default %(default)s)")
    arguments = parser.parse_args()
    kept = [k for k in read_all() if k.is_current != arguments.adopt]
    kept = [k for k in kept if not arguments.systems or k.trial.system in arguments.systems]
    again = [k for k in kept if k.trial.pool != SMOLLM2]
    if not again:
        print("there is no such trial")
        return 0
    chosen = choose(again, arguments.trials or len({k.trial.system for k in again}))
    found = compare(chosen, arguments.processes, arguments.before)
    if arguments.adopt:
        adopt(kept, found)
    return int(any(found.values()))


def read_all() -> list[Kept]:
    """All kept trials. Raises: as `claim_trials.read`."""
    read = [(path, claim_trials.read(path)) for path in sorted(claim_trials.RESULTS.glob("*.json"))]
    return [Kept(path, trial_of(whole), whole["more"], whole["records"]) for path, whole in read]


def choose(kept: Sequence[Kept], n: int) -> list[Kept]:
    """At most n of the trials: of each system in turn one, at random but always the same."""
    order = np.random.default_rng(0).permutation(len(kept))
    turns: dict[str, int] = {}
    placed = []
    for i in order:
        system = kept[i].trial.system
        turns[system] = turn = turns.get(system, 0) + 1
        placed.append((turn, system, kept[i]))
    return [one for *_, one in sorted(placed, key=lambda place: place[:2])][:n]


def compare(chosen: Sequence[Kept], processes: int, before: Path | None) -> dict[str, list[str]]:
    """Make trials again, and print what differs. Returns what differs of each system: an empty list if nothing does."""
    found: dict[str, list[str]] = {one.trial.system: [] for one in chosen}
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(processes, mp_context=context) as pool:
        for one, text in zip(chosen, pool.map(difference, chosen, itertools.repeat(before)), strict=True):
            trial = one.trial
            print(f"{trial.pool} {trial.system}, seed {trial.seed}: {text or 'the same'}", flush=True)
            found[trial.system] += [text] * bool(text)
    print(f"{sum(not texts for texts in found.values())} of {len(found)} systems: all trials are the same")
    return found


def difference(kept: Kept, before: Path | None = None) -> str:
    """What differs between a kept trial and the same one made now; "" if nothing does.

    The number of clusters of IDPO is not compared: it draws by none.

    Args:
        before: a checkout. If something differs, the trial is made by its code too and takes the place of the kept one.
    """
    made = json.loads(json.dumps(rounded(records_of(kept.trial))))
    found = _difference(kept.trial, kept.records, made)
    return _difference(kept.trial, _made_by(before, kept.path), made) if found and before else found


def _difference(trial: Trial, earlier: list[dict], made: list[dict]) -> str:
    if len(earlier) != len(made):
        return f"{len(made)} records, there were {len(earlier)}"
    left = {"clusters"} if trial.experiment == "idpo" else set()
    pairs = zip(earlier, made, strict=True)
    names = [name for one, other in pairs for name in one if name not in left and one[name] != other.get(name)]
    points = f"{100 * gain_of(earlier):+.2f} points then, {100 * gain_of(made):+.2f} now"
    return f"differs in {', '.join(dict.fromkeys(names))}; {points}" if names else ""


def _made_by(folder: Path, path: Path) -> list[dict]:
    """The records of a kept trial, made by the code of a checkout."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (folder, folder / "tools" / "bench")))}
    command = [sys.executable, "-c", MAKE, path.resolve()]
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def adopt(kept: Sequence[Kept], found: Mapping[str, Sequence[str]]) -> None:
    """Give the trials of systems of which nothing differs the names of this code.

    Those of the real language model are left where code changed that only they use.
    """
    of_same = [one for one in kept if found.get(one.trial.system) == []]
    of_same = [one for one in of_same if one.trial.pool != SMOLLM2 or one.more == one.trial.more_hash]
    for one in of_same:
        if not one.trial.path.exists():
            whole = claim_trials.read(one.path)
            claim_trials.write(one.trial.path, {**whole, **code_of(one.trial)})
        elif claim_trials.read(one.trial.path)["records"] != one.records:
            print(f"{one.path} is left: {one.trial.path.name}, the same trial, has other records")
            continue
        one.path.unlink()
    print(f"{len(of_same)} of {len(kept)} trials have the names of this code now")


if __name__ == "__main__":
    sys.exit(main())
