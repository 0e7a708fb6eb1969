#!/usr/bin/env python3
"""Kill a run at random moments of every stage, resume it, and compare it with an uninterrupted run.

    python tools/torture_run.py --kills 200 --json torture.json

A reference run is made first. Then come the lives of other runs: in each, the same command is started again and again
on one, two or three ranks, and killed in a random stage at a random moment. SIGKILL, SIGTERM or SIGUSR2 is sent to one
rank or to all. The last start of a life runs to its end. Then every draw, rollout, pair, weight and metric must equal
those of the reference.

Printed, and written by --json: kills, resumes, lost, duplicated, different (rows, against the reference), redone
(rollouts that were on disk at a kill and were generated again), damaged (files), temporary (files left behind).
Exit code 0 if all of these but the first two are zero. Further arguments are Hydra overrides.

    python tools/torture_run.py --locks --rounds 200 --json locks.json

kills no run: many processes fight for the lock of a dead owner on a slow file system (torture_locks.py).
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torture_locks
from torture_start import Start

from hpc_saidpo.records import Rollouts
from hpc_saidpo.store.check import check
from hpc_saidpo.store.compare import compare
from hpc_saidpo.store.contents import unfinished
from hpc_saidpo.store.stage import stages_of

# `tiny` with many files to write and little to compute.
OVERRIDES = (
    "experiment=tiny", "loop.iterations=2", "pool.n=240", "pool.held_out=24", "clusters.n=6", "probe.fraction=0.15",
    "sampler.n_questions=60", "rollouts.k=4", "rollouts.chunk_questions=4", "dpo.batch_pairs=4", "dpo.micro_pairs=4",
    "dpo.checkpoint_minutes=0",
)  # fmt: skip
# Which processes of a start receive which signal.
ATTACKS = [(who, number) for who in ("one", "all") for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGUSR2)]
KILLS_PER_LIFE = 5
DEFAULT_SEED = 0  # outside a git checkout


@dataclass
class Tally:
    """Counts over all lives; `where` and `signals` count the kills by stage and by signal."""

    kills: int = 0
    resumes: int = 0
    lost: int = 0
    duplicated: int = 0
    different: int = 0
    redone: int = 0
    damaged: int = 0
    temporary: int = 0
    where: Counter = field(default_factory=Counter)
    signals: Counter = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        return not (self.lost + self.duplicated + self.different + self.redone + self.damaged + self.temporary)


def durations(run: Path) -> dict[str, float]:
    """Return the duration of each stage of a run in seconds, in their order, from the times of the DONE files."""
    marks = sorted(((s.path / "DONE").stat().st_mtime, str(s.path.relative_to(run))) for s in stages_of(run))
    before = (run / "env.json").stat().st_mtime
    took_s = {}
    for done, name in marks:
        took_s[name], before = max(0.02, done - before), done
    return took_s


def read_rollouts(run: Path) -> dict[tuple, float]:
    """Return the generation time of every rollout on disk by its place. No two generations take the same time."""
    rows = {}
    for stage in stages_of(run):
        if stage.finished_chunks():
            table, name = stage.read_chunks(Rollouts), str(stage.path.relative_to(run))
            keys = zip(table.question_R.tolist(), table.sample_R.tolist(), table.seconds_R.tolist(), strict=True)
            rows |= {(name, question, sample): seconds for question, sample, seconds in keys}
    return rows


def wait_for_opening(start: Start, run: Path, n_starts: int) -> None:
    """Wait until this start has opened the run folder (env.json has one entry per start) or has ended."""
    while not start.ended() and count_starts(run) == n_starts:
        time.sleep(0.002)


def count_starts(run: Path) -> int:
    """Return the number of starts that have opened a run folder."""
    return len(json.loads((run / "env.json").read_text())) if (run / "env.json").exists() else 0


def wait_for_stage(start: Start, stage: Path) -> None:
    """Wait until the stage has begun or the program has ended."""
    while not start.ended() and not stage.exists():
        time.sleep(0.002)


def wait_in_stage(start: Start, stage: Path, longest_s: float) -> None:
    """Wait for a time, but not longer than the stage or the program takes: a busy machine makes all times differ."""
    deadline = time.monotonic() + longest_s
    while not start.ended() and not (stage / "DONE").exists() and time.monotonic() < deadline:
        time.sleep(0.002)


def draw_stages(n_stages: int, n: int, rng: random.Random) -> list[int]:
    """Draw n of the stages -1 .. n_stages - 1 in ascending order, each about equally often. -1: before the first."""
    stages, drawn = range(-1, n_stages), []
    while len(drawn) < n:
        drawn += rng.sample(stages, min(len(stages), n - len(drawn)))
    return sorted(drawn)


def live(
    run: Path, reference: Path, command: list[str], ranks: list[int], n_kills: int, rng: random.Random, tally: Tally
) -> None:
    """Live one life of a run: n_kills starts that are killed, and one that runs to its end."""
    took_s = durations(reference)
    names = list(took_s)
    log = run.with_suffix(".log")
    seen: dict[tuple, float] = {}
    for stage in draw_stages(len(names), n_kills, rng):
        undone = [name for name in names if not (run / name / "DONE").exists()]
        n_starts, start = count_starts(run), Start(command, rng.choice(ranks), log)
        if stage < 0:  # while it opens the run folder
            wait_for_stage(start, run)
            time.sleep(rng.uniform(0, 0.2))
        else:  # in this stage, or in the next one if a start before has finished it
            name = names[stage] if names[stage] in undone or not undone else undone[0]
            wait_for_opening(start, run, n_starts)
            wait_for_stage(start, run / name)
            wait_in_stage(start, run / name, rng.uniform(0, took_s[name]))
        who, number = rng.choice(ATTACKS)
        at = next((name for name in names if not (run / name / "DONE").exists()), "the end")
        if start.kill(who, number, rng):
            tally.kills += 1
            tally.where[at if run.exists() and stage >= 0 else "opening"] += 1
            tally.signals[f"{number.name} of {who}"] += 1
        seen |= {key: seconds for key, seconds in read_rollouts(run).items() if key not in seen}
    if Start(command, rng.choice(ranks), log).wait() != 0:
        raise SystemExit(f"torture_run: the run does not resume; see {log}\n{log.read_text()[-2000:]}")
    tally.resumes += n_kills
    examine(run, reference, seen, tally)


def examine(run: Path, reference: Path, seen: dict[tuple, float], tally: Tally) -> None:
    """Compare a finished life with the reference, and add what is wrong to the tally."""
    differences, report, final = compare(run, reference), check(run), read_rollouts(run)
    tally.lost += differences.lost
    tally.duplicated += differences.duplicated
    tally.different += differences.different
    tally.redone += sum(final.get(key) != seconds for key, seconds in seen.items())
    tally.damaged += len(report.findings)
    tally.temporary += len(unfinished(run))
    tally.notes += [f"{run.name}: {note}" for note in differences.notes]
    tally.notes += [f"{finding.path}: {finding.problem}" for finding in report.findings]


def seed_of_commit() -> int:
    """Return the first digits of HEAD's hash as a number, so that every commit is tried in another way."""
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False
    )
    return int(done.stdout[:8], 16) if done.returncode == 0 else DEFAULT_SEED


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--places", type=int, default=1, help="kill on until so many different places were hit")
    parser.add_argument("--ranks", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2, 3])
    parser.add_argument("--seed", type=int, default=seed_of_commit(), help="default: from the hash of the commit")
    parser.add_argument("--folder", type=Path, help="folder of the runs; a temporary one if not set")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--python", metavar="COMMAND", help="start the Python of a rank by this command line")
    parser.add_argument("--locks", action="store_true", help="torture the lock instead of runs")
    parser.add_argument("--rounds", type=int, default=200, help="of --locks")
    parser.add_argument("--jobs", type=int, default=12, help="of --locks: challengers")
    parser.add_argument("--delay-ms", type=float, default=4.0, help="of --locks: added to each operation on a file")
    arguments, overrides = parser.parse_known_args()
    if arguments.locks:
        delay_s = arguments.delay_ms / 1000
        return torture_locks.main(arguments.rounds, arguments.jobs, delay_s, arguments.seed, arguments.json)
    Start.python = tuple(shlex.split(arguments.python)) if arguments.python else Start.python
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="torture-"))
    rng, tally = random.Random(arguments.seed), Tally()
    print(
        f"seed {arguments.seed}: repeat these kills with --kills {arguments.kills} --seed {arguments.seed}", flush=True
    )

    def command(name: str) -> list[str]:
        return [*OVERRIDES, *overrides, f"run.root={folder}", f"run.name={name}"]

    log = folder / "reference.log"
    folder.mkdir(parents=True, exist_ok=True)
    if Start(command("reference"), 2, log).wait() != 0:
        raise SystemExit(f"torture_run: the reference run failed\n{log.read_text()[-2000:]}")
    life = 0
    while tally.kills < arguments.kills or len(tally.where) < arguments.places:
        life += 1
        n_kills = min(KILLS_PER_LIFE, max(3, arguments.kills - tally.kills))
        run = folder / f"life-{life:03d}"
        live(run, folder / "reference", command(run.name), arguments.ranks, n_kills, rng, tally)
        print(f"life {life}: {tally.kills} kills, {'sound' if tally.sound else 'NOT SOUND'}", flush=True)
    print("killed in:", ", ".join(f"{name} {n}" for name, n in sorted(tally.where.items())))
    print("killed by:", ", ".join(f"{name} {n}" for name, n in sorted(tally.signals.items())))
    print(*tally.notes, sep="\n", end="\n" * bool(tally.notes))
    figures = {
        name: getattr(tally, name)
        for name in ("kills", "resumes", "lost", "duplicated", "different", "redone", "damaged", "temporary")
    }
    print(", ".join(f"{n} {name}" for name, n in figures.items()))
    if arguments.json:
        arguments.json.write_text(
            json.dumps({**figures, "lives": life, "stages_hit": len(tally.where), "seed": arguments.seed}, indent=1)
            + "\n"
        )
    if arguments.folder is None and tally.sound:
        shutil.rmtree(folder)
    return 0 if tally.sound else 1


if __name__ == "__main__":
    sys.exit(main())
