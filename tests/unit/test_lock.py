"""One job at a time in a run folder."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from support.program import user_environment

from hpc_saidpo.errors import RunError
from hpc_saidpo.store.lock import Lock
from hpc_saidpo.store.owner import is_alive, process_start

HOLDER = """
import sys, time
from pathlib import Path
from hpc_saidpo.store.lock import Lock
Lock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def path(folder):
    return folder / "lock"


@pytest.fixture
def holder(path):
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env=user_environment(SLURM_JOB_ID="4711"),
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def elsewhere(path, **changes):
    """Make the lock look as if a job on another node held it."""
    owner = {**json.loads(path.read_text()), "machine": "another boot", "host": "node7", **changes}
    path.write_text(json.dumps(owner))


def patient(path):
    return Lock(path, beat_s=0.05, dead_after_s=1.0)


def test_a_second_job_is_refused_by_host_pid_and_slurm_job(path, holder):
    with pytest.raises(RunError, match="in use by another job") as refusal:
        Lock(path).acquire()
    said = str(refusal.value)
    assert f"host {socket.gethostname()}, pid {holder.pid}, Slurm job 4711" in said
    assert "run.name" in said and str(path) in said
    assert json.loads(path.read_text())["pid"] == holder.pid


def test_a_released_lock_is_free_and_a_foreign_one_is_not_released(path):
    first = Lock(path)
    first.acquire()
    first.release()
    assert not path.exists()
    second = Lock(path)
    second.acquire()
    first.release()
    second.check()
    assert path.exists()
    second.release()


def test_a_dead_owner_on_this_machine_is_seen_at_once(path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    lock = Lock(path)
    lock.acquire(report=lambda message: pytest.fail("it need not wait"))
    assert json.loads(path.read_text())["pid"] == os.getpid()
    lock.release()


def test_another_process_that_got_the_dead_owners_pid_is_not_taken_for_it(path, holder):
    """It has another start time. (Not so the parent of these tests: it may have started in the same clock tick.)"""
    owner = json.loads(path.read_text())
    assert process_start(holder.pid) == owner["process_start"] != process_start(os.getpid())
    path.write_text(json.dumps({**owner, "pid": os.getpid()}))
    lock = Lock(path)
    lock.acquire(report=lambda message: pytest.fail("it need not wait"))
    lock.release()


def test_an_owner_elsewhere_without_a_sign_of_life_is_dead(path, holder):
    holder.kill()
    elsewhere(path)
    reported = []
    lock = patient(path)
    lock.acquire(reported.append)
    assert len(reported) == 1 and "node7" in reported[0] and "waiting up to 1 s for a sign of life" in reported[0]
    assert json.loads(path.read_text())["pid"] == os.getpid()
    lock.release()


def test_an_owner_elsewhere_that_lives_is_respected(path, holder):
    elsewhere(path)
    ended = threading.Event()

    def beat():
        while not ended.wait(0.05):
            os.utime(path)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(RunError, match="host node7"):
            patient(path).acquire()
    finally:
        ended.set()
        thread.join()


def test_the_owner_touches_its_lock(path):
    lock = patient(path)
    lock.acquire()
    first = path.stat().st_mtime_ns
    deadline = time.monotonic() + 20
    while path.stat().st_mtime_ns == first and time.monotonic() < deadline:
        time.sleep(0.01)
    assert path.stat().st_mtime_ns > first
    lock.release()


def test_a_requeued_job_recognises_the_lock_of_its_earlier_start(path, holder, monkeypatch):
    holder.kill()
    elsewhere(path, slurm_job="99", slurm_restart=0)
    monkeypatch.setenv("SLURM_JOB_ID", "99")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    lock = Lock(path)
    lock.acquire(report=lambda message: pytest.fail("it need not wait"))
    lock.release()


def test_two_steps_of_one_slurm_job_are_two_jobs(path, holder, monkeypatch):
    elsewhere(path, slurm_job="99", slurm_restart=1)
    monkeypatch.setenv("SLURM_JOB_ID", "99")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert is_alive(json.loads(path.read_text())) is None  # undecided: it must be watched


def test_a_job_that_was_suspended_while_another_took_over_stops(path):
    first = Lock(path)
    first.acquire()
    first.check()
    path.unlink()
    second = Lock(path)
    second.acquire()
    with pytest.raises(RunError, match="this job lost its lock"):
        first.check()
    first.release()
    second.check()
    second.release()


def test_of_many_that_find_a_dead_owner_exactly_one_takes_over(path, holder):
    holder.kill()
    holder.wait()
    program = (
        "import sys; from pathlib import Path; from hpc_saidpo.store.lock import Lock; from hpc_saidpo.errors import "
        "RunError\ntry:\n    Lock(Path(sys.argv[1])).acquire(); print('taken', flush=True); sys.stdin.read()\n"
        "except RunError as error: print('refused', flush=True)"
    )
    contenders = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(path)],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
            env=user_environment(),
        )
        for _ in range(4)
    ]
    said = [process.stdout.readline().strip() for process in contenders]
    for process in contenders:
        process.communicate()
    assert sorted(said) == ["refused"] * 3 + ["taken"]


def test_a_lock_whose_writer_died_before_it_could_write_is_taken_over(path):
    path.touch()
    reported = []
    lock = patient(path)
    lock.acquire(reported.append)
    assert len(reported) == 1 and json.loads(path.read_text())["pid"] == os.getpid()
    lock.release()


def test_something_else_under_that_name_is_not_removed(path):
    path.write_text("my notes")
    with pytest.raises(RunError, match="is no lock of this program"):
        Lock(path).acquire()
    assert path.read_text() == "my notes"
