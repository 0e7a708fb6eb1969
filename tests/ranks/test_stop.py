"""Told to stop by a signal: the ranks end what is in flight, keep it, and the same command goes on."""

import os
import signal
import subprocess
import sys
import time

import pytest
from support.program import command, start, user_environment
from test_loop import SMALL, assert_same, root, small2  # noqa: F401

from hpc_saidpo.parallel.stop import Stopped
from hpc_saidpo.parallel.world import World

LONG = (*SMALL, "rollouts.chunk_questions=2", "dpo.batch_pairs=2", "dpo.micro_pairs=1")


@pytest.fixture
def told(world):
    yield world.told
    world.told.by = ""


@pytest.mark.mpi
def test_a_told_world_hands_out_nothing_more_and_every_rank_knows(world, told):
    own = []
    with pytest.raises(Stopped, match="SIGUSR1"):
        for index in world.claim(1000):
            own.append(index)
            time.sleep(0.001)
            if world.rank == world.size - 1 and len(own) == 3:
                told.by = "SIGUSR1"
    claimed = sorted(index for part in world.gather(own) for index in part)
    assert claimed == list(range(len(claimed))) and 3 <= len(claimed) < 1000
    assert world.stopping() == "SIGUSR1"


@pytest.mark.mpi
def test_told_when_everything_is_handed_out_the_work_is_done(world, told):
    own = []
    for index in world.claim(world.size):
        own.append(index)
        told.by = "SIGTERM"
        world.barrier() if world.size == 1 else time.sleep(0.05)
    assert sorted(index for part in world.gather(own) for index in part) == list(range(world.size))
    with pytest.raises(Stopped):
        world.stop_if_told()


@pytest.mark.mpi
def test_told_ranks_that_take_turns_end_the_same_turn(world, told):
    own = []
    with pytest.raises(Stopped, match="SIGUSR1"):
        for index in world.turns(100):
            own.append(index)
            if world.rank == world.size - 1 and len(own) == 2:
                told.by = "SIGUSR1"
    assert [len(part) for part in world.gather(own)] == [2] * world.size


@pytest.mark.mpi
def test_nobody_told(world):
    assert world.stopping() == ""
    world.stop_if_told()


BUSY = """
import hashlib, os, signal, sys
from hpc_saidpo.parallel import World
world = World()
world.listen(grace_s=float(sys.argv[1]))
os.kill(os.getpid(), signal.SIGUSR1)
hashlib.pbkdf2_hmac("sha256", b"long", b"call", 10_000_000)  # seconds in which Python runs nothing of its own
print("ended by itself, told by", world.told.by)
"""


@pytest.mark.parametrize("grace_s, code", [("600", 0), ("0.1", 75)])
def test_a_signal_is_seen_inside_a_long_call_and_given_up_after_the_grace(grace_s, code):
    done = subprocess.run(
        [sys.executable, "-c", BUSY, grace_s], capture_output=True, text=True, env=user_environment(), timeout=100
    )
    assert done.returncode == code, done.stderr
    assert ("ended by itself, told by SIGUSR1" in done.stdout) == (code == 0)
    assert ("SIGUSR1: not done after 0 s, what is in flight is given up" in done.stderr) == (code != 0)


def test_a_handler_that_is_there_is_left_alone():
    before = {s: signal.getsignal(s) for s in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)}
    calls = []
    try:
        for number in before:
            signal.signal(number, lambda *_: calls.append(1))
        world = World()
        world.listen(0.0)
        os.kill(os.getpid(), signal.SIGUSR2)
        assert calls == [1] and not world.told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_at(folder, sign, how, who, *overrides):
    """Start on two ranks, send a signal to `who` of them once a file that matches `sign` is there; (code, output)."""
    process = subprocess.Popen(
        command(*overrides, ranks=2), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=user_environment(), stdin=subprocess.DEVNULL,
    )  # fmt: skip
    while process.poll() is None and not list(folder.glob(sign)):
        time.sleep(0.005)
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    ranks = [pid for parent in found for pid in subprocess.run(["pgrep", "-P", parent], capture_output=True, text=True)
             .stdout.split()]  # fmt: skip
    assert len(ranks) == 2, (found, ranks)
    for pid in ranks[:who]:
        os.kill(int(pid), how)
    output, _ = process.communicate(timeout=200)
    return process.returncode, output


@pytest.mark.e2e
def test_a_stopped_run_keeps_everything_and_goes_on(root):  # noqa: F811
    run = root / "stopped"
    arguments = (*LONG, f"run.root={root}", "run.name=stopped")
    code, output = stop_at(run, "iter-000/explore/chunk-*.h5", signal.SIGUSR1, 1, *arguments)
    assert code == 75, output
    assert output.count("stopped by SIGUSR1: what is finished is on disk, the same command goes on from there") == 1
    assert "Traceback" not in output and not (run / "lock").exists()
    chunks = {p: p.stat().st_mtime_ns for p in run.glob("iter-000/explore/*.h5")}
    assert chunks and not (run / "iter-000" / "explore" / "DONE").exists()
    code, output = stop_at(run, "iter-000/policy", signal.SIGTERM, 2, *arguments)
    assert code == 75, output
    assert (run / "iter-000" / "pairs" / "DONE").exists() and not (run / "iter-000" / "policy" / "DONE").exists()
    done = start(*arguments, ranks=2)
    assert done.returncode == 0, done.stdout + done.stderr
    reference = start(*LONG, f"run.root={root}", "run.name=unstopped", ranks=2)
    assert reference.returncode == 0, reference.stderr
    assert_same(run, root / "unstopped")


UNSHOWABLE = """
import time
from hpc_saidpo.parallel import connect
world = connect()
def tick(index):
    if index == 3:
        raise OSError("the terminal is gone")
for index in world.claim(20, tick):
    time.sleep(0.05 if world.rank else 5)
"""


@pytest.mark.e2e
def test_a_failure_while_work_is_handed_out_ends_the_job():
    done = start(ranks=2, program=("-c", UNSHOWABLE), timeout_s=60)
    assert done.returncode != 0 and "the terminal is gone" in done.stderr
