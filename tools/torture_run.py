#!/usr/bin/env python3
"""Kill a run at random moments of every stage, resume it, and compare it with one that was left alone.

    python tools/torture_run.py --kills 200 --json torture.json

A reference run is made first. Then lives: in each, the same command is started again and again on one, two or three
ranks and killed in a random stage at a random moment: SIGKILL of one rank or of all, SIGTERM or SIGUSR2 of one or all.
The last start of a life runs to its end; then every draw, rollout, pair, weight and metric must equal the reference's.

Printed, and written by --json: kills, resumes, lost, duplicated, different (rows, against the reference), redone
(rollouts that were on disk at a kill and were generated again all the same), damaged (files), temporary (left behind).
Exits 0 when all of these but the first two are zero. Further arguments are Hydra overrides.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
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

from hpc_saidpo.records import Rollouts
from hpc_saidpo.store.check import check
from hpc_saidpo.store.compare import compare
from hpc_saidpo.store.files import is_temporary
from hpc_saidpo.store.stage import stages_of

# `tiny`, with as much to write and as little to compute as can be.
OVERRIDES = (
    "experiment=tiny", "loop.iterations=2", "pool.n=240", "pool.held_out=24", "clusters.n=6", "probe.fraction=0.15",
    "sampler.n_questions=60", "rollouts.k=4", "rollouts.chunk_questions=4", "dpo.batch_pairs=4", "dpo.micro_pairs=4",
    "dpo.checkpoint_minutes=0",
)  # fmt: skip
# How a start is killed: which processes, which signal.
WAYS = [(who, how) for who in ("one", "all") for how in (signal.SIGKILL, signal.SIGTERM, signal.SIGUSR2)]
KILLS_PER_LIFE = 10
HANGS_AFTER_S = 120.0


@dataclass
class Tally:
    kills: int = 0
    resumes: int = 0
    lost: int = 0
    duplicated: int = 0
    different: int = 0
    redone: int = 0
    damaged: int = 0
    temporary: int = 0
    where: Counter = field(default_factory=Counter)
    how: Counter = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        return not (self.lost + self.duplicated + self.different + self.redone + self.damaged + self.temporary)


class Start:
    """One start of the program, in a process group of its own."""

    def __init__(self, arguments, ranks: int, log: Path):
        runner = [str(Path(sys.executable).parent / "mpiexec"), "-n", str(ranks)] if ranks > 1 else []
        module = ["-m", "mpi4py"] if ranks > 1 else []
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [*runner, sys.executable, *module, "-m", "hpc_saidpo", *arguments],
                cwd=Path(__file__).parent.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

    def ended(self) -> bool:
        return self.process.poll() is not None

    def family(self) -> list[int]:
        """Every living process of this start: the launcher first."""
        parents = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            except OSError:  # it ended this moment
                continue
            if state != "Z":
                parents[int(stat.parent.name)] = int(parent)
        found = [self.process.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found

    def ranks(self) -> list[int]:
        """The processes that compute."""
        return [pid for pid in self.family() if b"hpc_saidpo" in _command(pid) and b"mpiexec" not in _command(pid)]

    def kill(self, who: str, how: signal.Signals, rng: random.Random) -> bool:
        """Send the signal; False when there was nobody left to send it to. Returns when everybody is dead."""
        family, ranks = self.family(), self.ranks()
        if self.ended() or not ranks:
            self.wait()
            return False
        # SIGKILL of "all" is a node that goes down: the launcher goes with it.
        everybody = family if how == signal.SIGKILL else ranks
        for pid in [rng.choice(ranks)] if who == "one" else everybody:
            _signal(pid, how)
        self.wait()
        for pid in family:  # what a dead launcher left
            _signal(pid, signal.SIGKILL)
        while any(_command(pid) for pid in family):
            time.sleep(0.01)
        return True

    def wait(self) -> int:
        try:
            return self.process.wait(HANGS_AFTER_S)
        except subprocess.TimeoutExpired:
            for pid in self.family():
                _signal(pid, signal.SIGKILL)
            raise SystemExit(f"torture_run: the job hangs {HANGS_AFTER_S:.0f} s after it was killed") from None


def _signal(pid, how):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, how)


def _command(pid) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def durations(run: Path) -> dict[str, float]:
    """How long each stage of a run took, in seconds, in their order; from the times of its DONE marks."""
    marks = sorted(((s.path / "DONE").stat().st_mtime, str(s.path.relative_to(run))) for s in stages_of(run))
    before = (run / "env.json").stat().st_mtime
    found = {}
    for done, name in marks:
        found[name], before = max(0.02, done - before), done
    return found


def on_disk(run: Path) -> dict[tuple, float]:
    """Every rollout that is on disk: its place, and how long it took, which no two generations share."""
    rows = {}
    for stage in stages_of(run):
        if stage.finished_chunks():
            table, name = stage.read_chunks(Rollouts), str(stage.path.relative_to(run))
            keys = zip(table.question_R.tolist(), table.sample_R.tolist(), table.seconds_R.tolist(), strict=True)
            rows |= {(name, question, sample): seconds for question, sample, seconds in keys}
    return rows


def wait_for_stage(start: Start, stage: Path) -> None:
    """Until the stage has begun, or the program has ended."""
    while not start.ended() and not stage.exists():
        time.sleep(0.002)


def live(
    run: Path, reference: Path, arguments, ranks: list[int], n_kills: int, rng: random.Random, tally: Tally
) -> None:
    """One life of a run: n_kills starts that are killed, and one that ends."""
    took = durations(reference)
    names = list(took)
    log = run.with_suffix(".log")
    seen: dict[tuple, float] = {}
    for stage in sorted(rng.choices(range(-1, len(names)), k=n_kills)):
        start = Start(arguments, rng.choice(ranks), log)
        if stage < 0:  # while it opens the run folder
            wait_for_stage(start, run)
            time.sleep(rng.uniform(0, 0.2))
        else:
            wait_for_stage(start, run / names[stage])
            time.sleep(rng.uniform(0, took[names[stage]]))
        who, how = rng.choice(WAYS)
        at = next((name for name in names if not (run / name / "DONE").exists()), "the end")
        if start.kill(who, how, rng):
            tally.kills += 1
            tally.where[at if run.exists() and stage >= 0 else "opening"] += 1
            tally.how[f"{how.name} of {who}"] += 1
        seen |= {key: seconds for key, seconds in on_disk(run).items() if key not in seen}
    if Start(arguments, rng.choice(ranks), log).wait() != 0:
        raise SystemExit(f"torture_run: the run does not go on; see {log}\n{log.read_text()[-2000:]}")
    tally.resumes += n_kills
    examine(run, reference, seen, tally)


def examine(run: Path, reference: Path, seen: dict[tuple, float], tally: Tally) -> None:
    """What of a finished life is not as it should be."""
    found, report, final = compare(run, reference), check(run), on_disk(run)
    tally.lost += found.lost
    tally.duplicated += found.duplicated
    tally.different += found.different
    tally.redone += sum(final.get(key) != seconds for key, seconds in seen.items())
    tally.damaged += len(report.findings)
    tally.temporary += sum(map(is_temporary, run.rglob(".*.tmp")))
    tally.notes += [f"{run.name}: {note}" for note in found.notes]
    tally.notes += [f"{finding.path}: {finding.problem}" for finding in report.findings]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--ranks", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2, 3])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the runs lie; a temporary folder if not given")
    parser.add_argument("--json", type=Path)
    arguments, overrides = parser.parse_known_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="torture-"))
    rng, tally = random.Random(arguments.seed), Tally()

    def command(name):
        return [*OVERRIDES, *overrides, f"run.root={folder}", f"run.name={name}"]

    log = folder / "reference.log"
    folder.mkdir(parents=True, exist_ok=True)
    if Start(command("reference"), 2, log).wait() != 0:
        raise SystemExit(f"torture_run: the reference run failed\n{log.read_text()[-2000:]}")
    life = 0
    while tally.kills < arguments.kills:
        life += 1
        n_kills = min(KILLS_PER_LIFE, arguments.kills - tally.kills)
        run = folder / f"life-{life:03d}"
        live(run, folder / "reference", command(run.name), arguments.ranks, n_kills, rng, tally)
        print(f"life {life}: {tally.kills} kills, {'sound' if tally.sound else 'NOT SOUND'}", flush=True)
    print("killed in:", ", ".join(f"{name} {n}" for name, n in sorted(tally.where.items())))
    print("killed by:", ", ".join(f"{name} {n}" for name, n in sorted(tally.how.items())))
    print(*tally.notes, sep="\n", end="\n" * bool(tally.notes))
    figures = {
        name: getattr(tally, name)
        for name in ("kills", "resumes", "lost", "duplicated", "different", "redone", "damaged", "temporary")
    }
    print(", ".join(f"{n} {name}" for name, n in figures.items()))
    if arguments.json:
        arguments.json.write_text(
            json.dumps({**figures, "lives": life, "stages_hit": len(tally.where)}, indent=1) + "\n"
        )
    if arguments.folder is None and tally.sound:
        shutil.rmtree(folder)
    return 0 if tally.sound else 1


if __name__ == "__main__":
    sys.exit(main())
