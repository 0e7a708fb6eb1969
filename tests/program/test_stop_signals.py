"""Signals to the program's processes: it keeps finished work, and the same command resumes."""

import os
import signal
import subprocess
import sys
import time

import pytest
from support.program import command, start, user_environment
from support.small_run import SMALL, assert_same

LONG = (*SMALL, "rollouts.chunk_questions=2", "dpo.batch_pairs=2", "dpo.micro_pairs=1")

BUSY = """
import hashlib, os, signal, sys
from hpc_saidpo.parallel.world import World
world = World()
world.listen(grace_s=float(sys.argv[1]))
os.kill(os.getpid(), signal.SIGUSR1)
hashlib.pbkdf2_hmac("sha256", b"long", b"call", 10_000_000)  # seconds in which Python runs nothing of its own
print("ended by itself, requested by", world.stop_request.signal_name)
"""


@pytest.mark.parametrize("grace_s, code", [("600", 0), ("0.1", 75)])
def test_a_signal_is_seen_inside_a_long_call_and_given_up_after_the_grace(grace_s, code):
    done = subprocess.run(
        [sys.executable, "-c", BUSY, grace_s], capture_output=True, text=True, env=user_environment(), timeout=100
    )
    assert done.returncode == code, done.stderr
    assert ("ended by itself, requested by SIGUSR1" in done.stdout) == (code == 0)
    assert ("SIGUSR1: not done after 0 s, the work in flight is given up" in done.stderr) == (code != 0)


def children_of(pid):
    done = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True)
    return [int(child) for child in done.stdout.split()]


def stop_at(folder, sign, number, who, *overrides):
    """Start on two ranks, send a signal to `who` of them once a file that matches `sign` is there; (code, output)."""
    process = subprocess.Popen(
        command(*overrides, ranks=2, is_warm=True), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=user_environment(), stdin=subprocess.DEVNULL,
    )  # fmt: skip
    while process.poll() is None and not list(folder.glob(sign)):
        time.sleep(0.005)
    ranks = [pid for proxy in children_of(process.pid) for pid in children_of(proxy)]
    assert len(ranks) == 2, ranks
    for pid in ranks[:who]:
        os.kill(pid, number)
    output, _ = process.communicate(timeout=200)
    return process.returncode, output


@pytest.mark.e2e
def test_a_stopped_run_keeps_everything_and_resumes(tmp_path):
    root = tmp_path
    run = root / "stopped"
    arguments = (*LONG, f"run.root={root}", "run.name=stopped")
    code, output = stop_at(run, "iter-000/explore/chunk-*.h5", signal.SIGUSR1, 1, *arguments)
    assert code == 75 and "Abort" not in output, output
    assert output.count("stopped by SIGUSR1: all finished work is stored, the same command resumes from there") == 1
    assert "Traceback" not in output and not (run / "lock").exists()
    chunks = {p: p.stat().st_mtime_ns for p in run.glob("iter-000/explore/*.h5")}
    assert chunks and not (run / "iter-000" / "explore" / "DONE").exists()
    code, output = stop_at(run, "iter-000/policy", signal.SIGINT, 2, *arguments)
    assert code == 75 and "Traceback" not in output, output
    says = "Ctrl-C: ending the work in flight, which takes at most 240 s; press Ctrl-C again to stop now. All finished "
    assert output.count(says) == 1 and "the same command goes on from there" in output
    page = (run / "report.html").read_text()
    assert "Interrupted:" in page and "stopped by Ctrl-C" in page
    assert (run / "iter-000" / "pairs" / "DONE").exists() and not (run / "iter-000" / "policy" / "DONE").exists()
    done = start(*arguments, ranks=2)
    assert done.returncode == 0, done.stdout + done.stderr
    reference = start(*LONG, f"run.root={root}", "run.name=unstopped", ranks=2)
    assert reference.returncode == 0, reference.stderr
    assert_same(run, root / "unstopped")


PROBE = (
    "import os, runpy, signal, sys\n"
    "sys.argv[1:] = ['experiment=tiny', 'run.root=' + sys.argv[2], 'run.threads=1']\n"
    "def tell(frame, event, argument):\n"
    "    if event == 'call' and frame.f_code.co_name == WHERE:\n"
    "        sys.setprofile(None)\n"
    "        os.kill(os.getpid(), signal.SIGTERM)\n"
    "sys.setprofile(tell)\n"
    "runpy.run_module('hpc_saidpo', run_name='__main__', alter_sys=True)\n"
)


@pytest.mark.e2e
@pytest.mark.parametrize("ranks", [0, 2])
@pytest.mark.parametrize("where", ["import_module", "connect", "work"])
def test_a_signal_during_the_start_ends_all_ranks_to_start_again(tmp_path, where, ranks):
    """The signal comes at the call of a function, on every rank: before MPI, at its start, after it."""
    program = ("-c", f"WHERE = {where!r}\n{PROBE}", "", str(tmp_path))
    done = start(ranks=ranks, program=program, timeout_s=60)
    assert done.returncode == 75, done.stderr
    assert done.stderr.count("SIGTERM: during the start: the same command starts again") == 1
    assert "Traceback" not in done.stderr and not (tmp_path / "tiny" / "lock").exists()


UNSHOWABLE = """
import time
from hpc_saidpo.parallel.launch import connect
from hpc_saidpo.parallel.task import Task
class Unshowable(Task):
    def begin(self, rank, index):
        if index == 3:
            raise OSError("the terminal is gone")
world = connect()
for index in world.claim(20, Unshowable()):
    time.sleep(0.05 if world.rank else 5)
"""


@pytest.mark.e2e
def test_a_failure_while_work_is_handed_out_ends_the_job():
    done = start(ranks=2, program=("-c", UNSHOWABLE), timeout_s=60)
    assert done.returncode != 0 and "the terminal is gone" in done.stderr
