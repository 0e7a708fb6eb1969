"""Crashes, full disks, and what they leave: nothing is lost, nothing is counted twice."""

import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys

import pytest
from support.mini_run import work
from support.program import command, start, user_environment, warm
from torture_run import seed_of_commit

from hpc_saidpo.store.check import check
from hpc_saidpo.store.compare import compare
from hpc_saidpo.store.lock import Lock
from hpc_saidpo.store.stage import Stage
from hpc_saidpo.store.temporaries import is_temporary

# Everything by which the store changes a disk, besides writing into a file that has no name yet.
OPERATIONS = ("replace", "rename", "unlink", "link", "mkdir", "rmdir", "fsync")


def crash_at(n, folder) -> bool:
    """Do the work in a process of its own that dies just before its n-th operation; False when it lived."""
    child = os.fork()
    if child == 0:
        try:
            _die_before(n)
            work(folder)
            os._exit(0)
        finally:  # whatever happens, this process is not pytest's
            os._exit(3)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


def _die_before(n):
    count = 0

    def counted(operation):
        def call(*arguments, **options):
            nonlocal count
            count += 1
            if count == n:
                os.kill(os.getpid(), signal.SIGKILL)
            return operation(*arguments, **options)

        return call

    for name in OPERATIONS:
        setattr(os, name, counted(getattr(os, name)))


def assert_whole(folder, reference):
    differences, report = compare(folder / "run", reference / "run"), check(folder / "run")
    assert not differences.notes and not report.findings
    assert [p for p in (folder / "run").rglob("*") if is_temporary(p)] == []
    # No file more and none less, but for a model that a crash overtook: it is kept under another name.
    names = [sorted(p.name for p in (f / "run").rglob("*") if ".old-" not in str(p)) for f in (folder, reference)]
    assert names[0] == names[1]


@pytest.fixture
def reference(tmp_path):
    assert not crash_at(10**6, tmp_path / "reference")
    return tmp_path / "reference"


def test_a_crash_before_any_operation_loses_nothing(tmp_path, reference):
    """Before every third operation: the first, the second or the third to begin with, as the commit has it."""
    n = seed_of_commit() % 3 - 2
    crashed = True
    while crashed:
        n += 3
        crashed = crash_at(n, tmp_path / f"{n}")
        assert not crash_at(10**6, tmp_path / f"{n}")
        assert_whole(tmp_path / f"{n}", reference)
    assert n > 60


def test_crash_upon_crash_loses_nothing(tmp_path, reference):
    rng = random.Random(0)
    for life in range(8):
        for _ in range(6):
            crash_at(rng.randrange(1, 60), tmp_path / f"{life}")
        assert not crash_at(10**6, tmp_path / f"{life}")
        assert_whole(tmp_path / f"{life}", reference)


def test_finished_chunks_of_a_crashed_stage_are_kept(tmp_path):
    crashes = iter(range(1, 200))
    while not list(tmp_path.rglob("chunk-000001.h5")):
        crash_at(next(crashes), tmp_path)
    made = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("chunk-*.h5")}
    lock = Lock(tmp_path / "run" / "lock")
    lock.acquire()  # the lock of its dead owner is replaced
    lock.release()
    assert made and {p: p.stat().st_mtime_ns for p in tmp_path.rglob("chunk-*.h5")} == made


LIMITED = """
import resource, sys
from pathlib import Path
from hpc_saidpo.errors import RunError
from hpc_saidpo.store.stage import Stage
from safetensors.torch import save_file
import torch
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
stage = Stage(Path(sys.argv[1]))
stage.write_json("small", [1])
for write in (
    lambda: stage.write_json("value", list(range(10_000))),
    lambda: stage.write_folder("tensors", lambda folder: save_file({"w": torch.ones(100_000)}, folder / "w")),
    lambda: stage.write_folder("model", lambda folder: (folder / "w").write_bytes(bytes(100_000))),
):
    try:
        write()
    except RunError as error:
        print(error)
"""


def test_a_file_size_limit_is_reported_and_leaves_what_was_there(folder):
    stage = Stage(folder)
    stage.write_json("value", ["before"])
    stage.write_folder("model", lambda f: (f / "w").write_text("before"))
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(folder)], capture_output=True, text=True, env=user_environment()
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stdout + done.stderr
    for line, name in zip(lines, ("value.json", "tensors", "model"), strict=True):
        assert f"cannot write {folder}/{name}: File too large" in line and "ulimit -f" in line
        assert "start the same command again" in line
    assert stage.read_json("value") == ["before"] and (folder / "model" / "w").read_text() == "before"
    assert sorted(p.name for p in folder.iterdir()) == ["model", "small.json", "value.json"]


def may_mount() -> bool:
    probe = ["unshare", "--mount", "--map-root-user", "sh", "-c", "mount -t tmpfs -o size=64k tmpfs /mnt"]
    return shutil.which("unshare") is not None and subprocess.run(probe, capture_output=True).returncode == 0


SMALL_DISK = """
set -u
disk=$1 out=$2; shift 2
mount -t tmpfs -o size=500k tmpfs "$disk"
"$@" > "$out/full" 2>&1; echo $? > "$out/full.rc"
until mount -o remount,ro "$disk" 2> /dev/null; do sleep 0.1; done  # a rank may take a moment to be gone
"$@" > "$out/readonly" 2>&1; echo $? > "$out/readonly.rc"
mount -o remount,rw,size=50m "$disk"
"$@" > "$out/free" 2>&1; echo $? > "$out/free.rc"
cp -a "$disk/small" "$out/small"
"""


@pytest.mark.e2e
@pytest.mark.skipif(not may_mount(), reason="not run: this user may not mount a small disk (unshare --mount)")
def test_a_full_disk_and_a_read_only_one_are_reported_and_the_run_resumes(tmp_path):
    small = ("experiment=tiny", "loop.iterations=1", "pool.n=240", "pool.held_out=24", "clusters.n=1",
             "probe.fraction=0.15", "sampler.n_questions=60", "rollouts.k=4", "rollouts.chunk_questions=8")  # fmt: skip
    disk, out = tmp_path / "disk", tmp_path / "out"
    disk.mkdir(), out.mkdir()
    arguments = command(*small, f"run.root={disk}", "run.name=small")  # a warm start would see another disk
    subprocess.run(
        ["unshare", "--mount", "--map-root-user", "bash", "-c", SMALL_DISK, "bash", disk, out, *arguments],
        env=user_environment(), stdin=subprocess.DEVNULL, check=True, timeout=300,
    )  # fmt: skip
    said = {name: (out / name).read_text() for name in ("full", "readonly", "free")}
    codes = {name: int((out / f"{name}.rc").read_text()) for name in said}
    assert codes == {"full": 2, "readonly": 2, "free": 0}, said
    assert "No space left on device" in said["full"] and "MiB free there" in said["full"]
    assert "Read-only file system" in said["readonly"]
    for name in ("full", "readonly"):
        assert "cannot write" in said[name] and "start the same command again" in said[name]
        assert "Traceback" not in said[name]
    whole = start(*small, f"run.root={tmp_path}", "run.name=whole")
    assert whole.returncode == 0, whole.stderr
    assert not compare(out / "small", tmp_path / "whole").notes and not check(out / "small").findings


@pytest.mark.e2e
def test_kills_lose_nothing(tmp_path):
    """Real ranks, killed at random moments of every stage: tools/torture_run.py, which a user may run for longer.

    The seed comes from the commit, so every change is tried with other kills; it is printed.
    """
    figures = tmp_path / "figures.json"
    python = shlex.join(warm().command())
    words = ("--kills", "4", "--places", "3", "--json", str(figures), "--python", python)
    done = start(*words, program=("tools/torture_run.py",), timeout_s=900)
    print(done.stdout)
    assert "repeat these kills with --kills 4 --seed " in done.stdout
    assert done.returncode == 0, done.stdout + done.stderr
    tally = json.loads(figures.read_text())
    assert tally["kills"] >= 4 and tally["resumes"] >= 4 and tally["stages_hit"] >= 3
    for name in ("lost", "duplicated", "different", "redone", "damaged", "temporary"):
        assert tally[name] == 0, name


@pytest.mark.e2e
def test_a_lock_never_has_two_owners(tmp_path):
    """Real processes on a slow and a stopping disk: tools/torture_run.py --locks, which a user may run for longer."""
    figures = tmp_path / "figures.json"
    done = start("--locks", "--rounds", "10", "--json", str(figures), program=("tools/torture_run.py",), timeout_s=900)
    assert done.returncode == 0, done.stdout + done.stderr
    tally = json.loads(figures.read_text())
    assert tally["rounds"] == 10 and tally["holds"] > 90 and tally["killed"] and tally["stalls"]
    for name in ("two_owners", "lost", "stuck", "errors"):
        assert tally[name] == 0, name
