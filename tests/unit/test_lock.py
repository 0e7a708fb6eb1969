"""One job at a time in a run folder."""

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import pytest
from support.program import user_environment

from hpc_saidpo import settings
from hpc_saidpo.errors import RunError
from hpc_saidpo.parallel.world import World
from hpc_saidpo.store import disk
from hpc_saidpo.store import lock as lock_module
from hpc_saidpo.store.lock import Lock
from hpc_saidpo.store.owner import is_alive, process_start, this_process
from hpc_saidpo.store.run import RunDir

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


def dead_process():
    """Facts about a process of this machine that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return {**this_process(), "pid": process.pid, "process_start": 1}


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


def test_looks_during_a_stall_do_not_count(path, monkeypatch):
    """The disk stops for longer than the limit, and goes on for the challenger first."""
    path.write_text(json.dumps({**this_process(), "machine": "another boot"}))
    lock, ended, looks = patient(path), threading.Event(), []

    def slow_look(path):
        looks.append(path)
        if len(looks) == 20:  # of 40 looks
            time.sleep(1.5)
            threading.Timer(0.3, beat).start()  # the owner's disk goes on a little later
        return touched(path)

    def beat():
        while not ended.wait(0.02):
            os.utime(path)

    touched = lock_module._touched
    monkeypatch.setattr(lock_module, "_touched", slow_look)
    try:
        assert "in use by another job" in lock.try_acquire()
    finally:
        ended.set()
    assert len(looks) > 20


def test_a_stall_makes_the_challenger_count_its_looks_again(path, monkeypatch):
    path.write_text(json.dumps({**this_process(), "machine": "another boot"}))
    looks, touched = [], lock_module._touched

    def slow_look(path):
        looks.append(path)
        time.sleep(0.1 * (len(looks) == 40))
        return touched(path)

    monkeypatch.setattr(lock_module, "_touched", slow_look)
    lock = patient(path)
    lock.acquire()
    assert len(looks) >= 79  # all 40 looks in a row were quick ones
    lock.release()


def test_the_guard_of_a_dead_process_is_replaced_too(path):
    path.write_text(json.dumps(dead_process()))
    for name in ("lock.guard", "lock.guard.guard"):
        path.with_name(name).write_text(json.dumps(dead_process()))
    lock = Lock(path)
    lock.acquire()
    lock.check()
    assert [p.name for p in path.parent.iterdir()] == ["lock"]
    lock.release()
    assert not list(path.parent.iterdir())


def test_while_a_living_process_holds_the_guard_nothing_is_replaced(path):
    dead = json.dumps(dead_process())
    path.write_text(dead)
    path.with_name("lock.guard").write_text(json.dumps(this_process()))
    assert f"pid {os.getpid()}" in patient(path).try_acquire()
    assert path.read_text() == dead


def test_a_job_that_lost_its_lock_while_it_was_suspended_does_not_remove_the_next_one(path):
    first = Lock(path)
    first.acquire()
    path.write_text(json.dumps({**first.owner, "token": "of another job"}))
    first.release()
    assert json.loads(path.read_text())["token"] == "of another job"


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ESHUTDOWN])
@pytest.mark.parametrize("name", ["link", "replace", "unlink", "fsync"])
@pytest.mark.parametrize("is_done", [False, True])
def test_an_error_that_passes_does_not_keep_a_job_from_the_lock(path, monkeypatch, name, code, is_done):
    """On a network the operation may have been done before its answer was lost."""
    path.write_text(json.dumps(dead_process()))
    operation, calls = getattr(os, name), []

    def fail_once(*arguments, **options):
        calls.append(arguments)
        if len(calls) > 1:
            return operation(*arguments, **options)
        if is_done:
            operation(*arguments, **options)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(disk, "PAUSES_S", (0.01, 0.01))
    monkeypatch.setattr(os, name, fail_once)
    lock = Lock(path)
    lock.acquire()
    lock.check()
    lock.release()
    assert calls and not path.exists()
    second = Lock(path)
    second.acquire(report=lambda message: pytest.fail("it need not wait"))
    second.release()


def test_a_lock_that_is_replaced_while_it_is_read_is_read_again(path, monkeypatch):
    """NFS: the file was opened, and another node has replaced it."""
    lock = Lock(path)
    lock.acquire()
    monkeypatch.setattr(lock_module, "LOOK_EVERY_S", 0.01)
    stale, read = [True], lock_module.read_text

    def read_text(file, *arguments, **options):
        if file == path and stale:
            stale.pop()
            raise OSError(errno.ESTALE, "Stale file handle")
        return read(file, *arguments, **options)

    monkeypatch.setattr(lock_module, "read_text", read_text)
    lock.check()
    assert not stale
    lock.release()


def test_a_file_system_without_hard_links(path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    path.write_text(json.dumps(dead_process()))
    lock = Lock(path)
    lock.acquire()
    with pytest.raises(RunError, match="in use by another job"):
        Lock(path).acquire()
    lock.release()
    assert not list(path.parent.iterdir())


# Root holds the lock, and another user, from whom /proc hides it, tries to acquire it while it lives and afterwards.
HIDDEN = """
import os, signal, subprocess, sys, time
from pathlib import Path
from hpc_saidpo.store.lock import Lock
subprocess.run(["mount", "-t", "proc", "-o", "hidepid=2", "proc", "/proc"], check=True)
path = Path(sys.argv[1])
os.chmod(path.parent, 0o777)

def in_process(do, uid):
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([]), os.setgid(uid), os.setuid(uid)
            do()
            sys.stdout.flush()
        finally:
            os._exit(0)
    return child

def hold():
    Lock(path).acquire()
    time.sleep(600)

def challenge():
    lock = Lock(path)
    print("visible" if os.path.exists(f"/proc/{holder}") else "hidden")
    print(lock.try_acquire(print) or "taken")
    lock.release()

holder = in_process(hold, 0)
while not path.exists():
    time.sleep(0.01)
os.waitpid(in_process(challenge, 65534), 0)
os.kill(holder, signal.SIGKILL)
os.waitpid(holder, 0)
os.waitpid(in_process(challenge, 65534), 0)
"""
IN_NAMESPACE = ("unshare", "--mount", "--pid", "--fork")


def may_hide_processes() -> bool:
    probe = [*IN_NAMESPACE, "sh", "-c", "mount -t proc -o hidepid=2 proc /proc"]
    return shutil.which("unshare") is not None and subprocess.run(probe, capture_output=True).returncode == 0


@pytest.mark.skipif(os.getuid() != 0 or not may_hide_processes(), reason="not run: only root can hide processes")
def test_a_process_of_another_user_that_proc_hides_is_alive():
    with tempfile.TemporaryDirectory() as folder:  # not below a folder that other users may not enter
        command = [*IN_NAMESPACE, sys.executable, "-c", HIDDEN, f"{folder}/lock"]
        done = subprocess.run(command, capture_output=True, text=True, env=user_environment())
    said = done.stdout.splitlines()
    assert len(said) == 4, done.stdout + done.stderr
    assert said[0] == "hidden" and "in use by another job" in said[1]
    assert said[2:] == ["hidden", "taken"]


def test_a_disk_that_refuses_the_lock_is_reported(path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(RunError, match=r"cannot write .*/lock: Read-only file system"):
        Lock(path).acquire()


def test_an_iteration_is_not_finished_by_a_job_that_lost_its_lock(tmp_path):
    config = settings.Run(root=str(tmp_path), name="run")
    with RunDir.open(config, {"run": {"name": "run"}}, {"started": "now"}, World()) as run:
        (run.path / "lock").unlink()
        with pytest.raises(RunError, match=r"this job lost its lock: .*lock is gone"):
            run.finish_iteration(0, {"iteration": 0, "signatures": []})
        assert run.finished_iterations() == [] and not (run.path / "metrics.jsonl").exists()
