#!/usr/bin/env python3
"""Let many processes fight for the lock of a dead owner on a slow file system: `torture_run.py --locks`.

In each round the lock has a dead owner, and a number of challengers start at the same moment. Each of them must hold
the lock once: it acquires the lock, holds it for 50 ms, checks that it still holds it, and releases it. Every operation
of a challenger on the lock's folder takes 4 ms longer than on the local disk. The rounds take turns:

    here       the owner was a process of this machine
    elsewhere  the owner was on another machine, and no longer touches the lock
    killed     as `here`, and one challenger is killed by SIGKILL while it takes over
    stall      the owner lives on another machine. The disk of all stops for longer than the limit for a dead owner, and
               the challengers' disk continues first. No challenger may get the lock

two_owners counts moments in which two processes held the lock, lost the locks that a living owner lost, stuck the
challengers that did not get it, errors other failures. All of them must be zero.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from hpc_saidpo.errors import RunError
from hpc_saidpo.store.lock import Lock
from hpc_saidpo.store.owner import this_process

HOLD_S = 0.05
BEAT_S, DEAD_AFTER_S = 0.1, 2.0
STALL_S, CHALLENGERS_FIRST_S = 2.6, 0.3
WITHIN_S = 60.0  # a challenger that did not get the lock by then is stuck
KINDS = ("here", "elsewhere", "killed", "here", "elsewhere", "killed", "here", "elsewhere", "killed", "stall")
OPERATIONS = {"open", "os.link", "os.rename", "os.remove", "os.utime", "os.listdir"}


@dataclass
class Figures:
    """Counts over all rounds."""

    rounds: int = 0
    jobs: int = 0
    holds: int = 0
    killed: int = 0
    stalls: int = 0
    two_owners: int = 0
    lost: int = 0
    stuck: int = 0
    errors: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        return not (self.two_owners + self.lost + self.stuck + self.errors)


class Job:
    """A process that is told by lines of text to acquire the lock, and answers with lines of JSON."""

    def __init__(self, folder: Path, role: str, delay_s: float):
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(folder), role, str(delay_s)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.answer()

    def request(self, word: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict:
        """Wait for the next answer; {} if the process has ended."""
        assert self.process.stdout
        return json.loads(self.process.stdout.readline() or "{}")

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


# ---- in a challenger or owner ----


def slow_down(folder: Path, role: str, delay_s: float) -> None:
    """Make every operation on the lock's folder slow from now on, and wait while the disk of this role is stopped."""
    disk, stopped = str(folder / "disk"), folder / f"stopped-{role}"

    def before(event: str, arguments: tuple) -> None:
        if event in OPERATIONS and str(arguments[0]).startswith(disk):
            time.sleep(random.uniform(0.5, 1.5) * delay_s)
            while os.path.exists(stopped):
                time.sleep(0.005)

    sys.addaudithook(before)


def hold_once(lock: Lock, folder: Path, until_released: bool) -> dict:
    """Acquire the lock, hold it, check it, release it. Return what went wrong."""
    result, deadline = {"two_owners": 0, "lost": 0, "stuck": 0}, time.monotonic() + WITHIN_S
    while lock.try_acquire():
        if time.monotonic() > deadline:
            return {**result, "stuck": 1}
    with open(folder / "witness", "w") as witness:
        try:
            fcntl.flock(witness, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel's lock: it ends with the process
        except BlockingIOError:
            result["two_owners"] = 1
        if until_released:
            say({"held": True})
            sys.stdin.readline()
        time.sleep(HOLD_S)
        try:
            lock.check()
        except RunError:
            result["lost"] = 1
    lock.release()
    return result


def work(folder: Path, role: str, delay_s: float) -> None:
    """Answer requests until stdin ends."""
    slow_down(folder, role, delay_s)
    say({})
    for word in sys.stdin:
        lock = Lock(folder / "disk" / "lock", BEAT_S, DEAD_AFTER_S)
        if role == "owner":
            lock.owner["machine"] = "elsewhere"
        try:
            if word.strip() == "try":
                answer = {"taken": not lock.try_acquire()}
                lock.release()
            else:
                answer = hold_once(lock, folder, word.strip() == "hold")
        except (RunError, OSError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        say(answer)


def say(answer: dict) -> None:
    print(json.dumps(answer), flush=True)


# ---- in the tool ----


def leave_lock(path: Path, is_elsewhere: bool) -> None:
    """Write the lock of a dead owner."""
    child = subprocess.Popen(["true"])
    owner = {**this_process(), "pid": child.pid, "process_start": 1}
    child.wait()
    path.write_text(json.dumps({**owner, "machine": "elsewhere"} if is_elsewhere else owner))


def fight(folder: Path, kind: str, jobs: list[Job], delay_s: float, figures: Figures) -> None:
    """Do one round with a dead owner."""
    lock = folder / "disk" / "lock"
    leave_lock(lock, kind == "elsewhere")
    for job in jobs:
        job.request("once")
    if kind == "killed":
        time.sleep(random.uniform(0, 30 * delay_s))
        jobs[0].end()
        jobs[0] = Job(folder, "challenger", delay_s)
        figures.killed += 1
    for job in jobs[kind == "killed" :]:
        tally(job.answer(), figures)
    # The killed one may have died as the owner after the last of the others.
    if lock.exists() and kind != "killed":
        figures.lost += 1
        figures.notes.append(f"round {figures.rounds} ({kind}): the lock was not removed")
    lock.unlink(missing_ok=True)


def stall(folder: Path, owner: Job, jobs: list[Job], figures: Figures) -> None:
    """Do one round with a living owner, while the disk stops for longer than the limit."""
    roles = ("challenger", "owner")
    owner.request("hold")
    assert owner.answer().get("held")
    for job in jobs:
        job.request("try")
    time.sleep(random.uniform(0, 2 * BEAT_S))
    for role in roles:
        (folder / f"stopped-{role}").touch()
    time.sleep(STALL_S)
    for role, pause_s in zip(roles, (CHALLENGERS_FIRST_S, 0), strict=True):
        (folder / f"stopped-{role}").unlink()
        time.sleep(pause_s)
    figures.two_owners += sum(job.answer().get("taken", 0) for job in jobs)
    owner.request("release")
    tally(owner.answer(), figures)
    figures.stalls += 1


def tally(answer: dict, figures: Figures) -> None:
    for name in ("two_owners", "lost", "stuck"):
        setattr(figures, name, getattr(figures, name) + answer.get(name, 0))
    figures.holds += not answer.get("error") and not answer.get("stuck")
    if not answer or answer.get("error"):
        figures.errors += 1
        figures.notes.append(f"round {figures.rounds}: {answer.get('error', 'a challenger ended')}")


def torture(n_rounds: int, n_jobs: int, delay_s: float, seed: int) -> Figures:
    """Do all rounds. Return the counts."""
    random.seed(seed)
    figures = Figures(jobs=n_jobs)
    with tempfile.TemporaryDirectory(prefix="locks-") as name:
        folder = Path(name)
        (folder / "disk").mkdir()
        owner, jobs = Job(folder, "owner", delay_s), [Job(folder, "challenger", delay_s) for _ in range(n_jobs)]
        try:
            while figures.rounds < n_rounds:
                kind = KINDS[figures.rounds % len(KINDS)]
                if kind == "stall":
                    stall(folder, owner, jobs, figures)
                else:
                    fight(folder, kind, jobs, delay_s, figures)
                figures.rounds += 1
        finally:
            for job in (owner, *jobs):
                job.end()
    return figures


def main(n_rounds: int, n_jobs: int, delay_s: float, seed: int, to: Path | None) -> int:
    """Torture the lock; print the counts and write them as JSON. Returns the exit code."""
    figures = torture(n_rounds, n_jobs, delay_s, seed)
    counts = {name: value for name, value in asdict(figures).items() if name != "notes"}
    print(*figures.notes, sep="\n", end="\n" * bool(figures.notes))
    print(", ".join(f"{value} {name}" for name, value in counts.items()))
    if to:
        to.write_text(json.dumps({**counts, "delay_s": delay_s, "seed": seed}, indent=1) + "\n")
    return 0 if figures.sound else 1


if __name__ == "__main__":
    work(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
