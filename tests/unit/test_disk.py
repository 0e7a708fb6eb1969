"""Errors of a file system that pass, and others: what is tried again, and what is reported."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.program import user_environment

from hpc_saidpo.cli.failures import failures_end_the_job
from hpc_saidpo.errors import RunError, TryAgain, decode_failure, encode_failure, input_errors
from hpc_saidpo.parallel.world import World
from hpc_saidpo.pool.read import rows
from hpc_saidpo.records import Draw
from hpc_saidpo.store import disk, files, temporaries
from hpc_saidpo.store.stage import Stage
from hpc_saidpo.store.tables import Damaged

CODES = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ESHUTDOWN, errno.EINTR, errno.ENOTCONN)
TABLE = Draw(np.arange(3), np.ones(3), np.zeros(3))


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(disk, "PAUSES_S", (0.01, 0.01, 0.01))


def finished(folder):
    stage = Stage(folder / "stage")
    stage.prepare()
    stage.write("draw", TABLE)
    stage.write_json("value", [1])
    stage.mark_done()
    return stage


def write_model(folder):
    Stage(folder).write_folder("model", lambda inside: (inside / "w").write_text("new"))
    assert (folder / "model" / "w").read_text() == "new"


def write_model_again(folder):
    (folder / "model").mkdir()
    (folder / "model" / "w").write_text("old")
    write_model(folder)
    assert (folder / "model.old-1" / "w").read_text() == "old"


def append_lines(folder):
    Stage(folder).append_lines("log", ["a"])
    Stage(folder).append_lines("log", ["b", "c"])
    assert (folder / "log.jsonl").read_text() == "a\nb\nc\n"


def write_json(folder):
    Stage(folder).write_json("value", [1])
    assert (folder / "value.json").read_text() == "[\n 1\n]"


def remove_model(folder):
    (folder / "model").mkdir()
    Stage(folder).remove("model")
    assert not (folder / "model").exists()


def remove_file(folder):
    (folder / "file").touch()
    Stage(folder).remove("file")
    assert not (folder / "file").exists()


def make_folders(folder):
    files.make_folder(folder / "a" / "b")
    assert (folder / "a" / "b").is_dir()


def move(folder):
    (folder / "a").write_text("content")
    files.move(folder / "a", folder / "b")
    assert (folder / "b").read_text() == "content"


def fail_once(monkeypatch, name, code, is_done):
    """Let the first call of os.<name> fail, before it has done its work or afterwards."""
    operation, calls = getattr(os, name), []

    def call(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 1 and not is_done:
            raise OSError(code, os.strerror(code))
        result = operation(*arguments, **options)
        if len(calls) == 1:
            raise OSError(code, os.strerror(code))
        return result

    monkeypatch.setattr(os, name, call)
    return calls


WRITES = [
    (write_json, "replace"), (write_json, "fsync"), (write_model, "replace"), (write_model, "fsync"),
    (write_model, "mkdir"), (write_model_again, "replace"), (append_lines, "fsync"), (remove_model, "replace"),
    (remove_file, "unlink"), (make_folders, "mkdir"), (make_folders, "fsync"), (move, "replace"),
]  # fmt: skip


@pytest.mark.parametrize("is_done", [False, True])
@pytest.mark.parametrize(("write", "name"), WRITES)
def test_a_write_that_fails_once_is_tried_again(folder, monkeypatch, write, name, is_done):
    """On a network the operation may have been done before its answer was lost."""
    calls = fail_once(monkeypatch, name, errno.EIO, is_done)
    write(folder)
    assert calls
    assert not [path for path in folder.rglob("*") if temporaries.is_temporary(path)]


@pytest.mark.parametrize("code", CODES)
def test_every_error_that_passes_is_tried_again(folder, monkeypatch, code):
    calls = fail_once(monkeypatch, "replace", code, is_done=False)
    write_json(folder)
    assert len(calls) == 2


@pytest.mark.parametrize("code", CODES)
def test_an_error_that_stays_ends_the_job_with_75(folder, monkeypatch, capsys, code):
    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(SystemExit) as end, failures_end_the_job(World()):
        Stage(folder).write_json("value", [1])
    said = capsys.readouterr().err
    assert end.value.code == 75
    assert os.strerror(code) in said and f"{folder}/value.json" in said and "start the same command again" in said


@pytest.mark.parametrize(
    ("code", "said"), [(errno.EDQUOT, "quota"), (errno.EROFS, "read-only"), (errno.EACCES, "perm")]
)
def test_other_errors_are_reported_at_once(folder, monkeypatch, code, said):
    calls = fail_once(monkeypatch, "replace", code, is_done=False)
    with pytest.raises(RunError, match=said) as refusal:
        Stage(folder).write_json("value", [1])
    assert not isinstance(refusal.value, TryAgain) and len(calls) == 1


def read_all(stage):
    assert stage.done and stage.has("draw")
    stage.check_complete()
    assert stage.read_json("value") == [1] and stage.read("draw", TABLE.__class__).equals(TABLE)
    assert files.sha256(stage.path / "draw.h5") == stage.manifest()["draw.h5"]["sha256"]


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("n_calls", range(1, 12))
def test_a_read_that_fails_once_is_tried_again(folder, monkeypatch, code, n_calls):
    stage = finished(folder)
    fail_at(monkeypatch, n_calls, code)
    read_all(stage)


def fail_at(monkeypatch, n, code):
    """Let the n-th look at a file or opening of one fail."""
    calls, stat, opened = [], os.stat, Path.open

    def counted(operation):
        def call(*arguments, **options):
            calls.append(arguments)
            if len(calls) == n:
                raise OSError(code, os.strerror(code))
            return operation(*arguments, **options)

        return call

    monkeypatch.setattr(os, "stat", counted(stat))
    monkeypatch.setattr(Path, "open", counted(opened))


def test_a_finished_stage_is_not_taken_for_an_unfinished_one(folder, monkeypatch):
    """A stage is computed again if it is not done: an error must not look like an absent file."""
    stage = finished(folder)

    def fail(*_, **__):
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(os, "stat", fail)
    with pytest.raises(TryAgain, match="DONE: Stale file handle"):
        _ = stage.done


def test_a_table_that_cannot_be_read_for_a_moment_is_not_damaged(folder):
    """The kernel answers a read of address 0 by EIO, to HDF5 too."""
    stage = finished(folder)
    (folder / "stage" / "draw.h5").rename(folder / "kept")
    (folder / "stage" / "draw.h5").symlink_to("/proc/self/mem")
    for read in (lambda: stage.read("draw", Draw), lambda: files.sha256(stage.path / "draw.h5")):
        with pytest.raises(TryAgain, match=r"draw\.h5: Input/output error, for 0 s"):
            read()
    (folder / "stage" / "chunk-000000.h5").symlink_to("/proc/self/mem")
    (folder / "stage" / "DONE").unlink()
    with pytest.raises(TryAgain, match="chunk-000000"):
        stage.read_chunks(Draw)


def test_an_empty_table_is_still_damaged(folder):
    stage = finished(folder)
    (stage.path / "draw.h5").write_bytes(b"")
    with pytest.raises(Damaged, match="is empty"):
        stage.read("draw", Draw)


def test_a_half_written_line_is_written_again_as_a_whole(folder, monkeypatch):
    stage = Stage(folder)
    stage.append_lines("log", ["first"])
    sync, calls = os.fsync, []

    def fail(handle):
        calls.append(handle)
        if len(calls) == 1:
            os.truncate(folder / "log.jsonl", 8)  # a part of the line is lost
            raise OSError(errno.EIO, "Input/output error")
        sync(handle)

    monkeypatch.setattr(os, "fsync", fail)
    stage.append_lines("log", ["second"])
    assert (folder / "log.jsonl").read_text() == "first\nsecond\n"


def test_inputs_that_cannot_be_read_for_a_moment_end_the_job_with_75(folder, capsys):
    (folder / "pool.jsonl").symlink_to("/proc/self/mem")
    with pytest.raises(SystemExit) as end, failures_end_the_job(World()):
        list(rows(folder / "pool.jsonl", (("question",),)))
    assert end.value.code == 75 and "pool.jsonl" in capsys.readouterr().err
    with pytest.raises(TryAgain, match="no model"), input_errors("no model", "copy it again"):
        raise OSError("Input/output error (os error 5)")  # as safetensors reports it


def test_any_other_part_of_the_program_that_meets_such_an_error_ends_with_75():
    with pytest.raises(SystemExit) as end, failures_end_the_job(World()):
        raise OSError(errno.ESHUTDOWN, "Cannot send after transport endpoint shutdown")
    assert end.value.code == 75


PASSES = OSError(errno.EIO, "x")


@pytest.mark.parametrize(
    ("error", "kind"),
    [(TryAgain("x"), TryAgain), (RunError("x"), RunError), (PASSES, TryAgain), (KeyError(1), RuntimeError)],
)
def test_other_ranks_raise_the_same_kind_of_failure(error, kind):
    assert type(decode_failure(encode_failure(error, 3, "rank 3 on n1"))) is kind


FEW_INODES = """
mount -t tmpfs -o nr_inodes=20,size=100m tmpfs "$1" && exec "$2" -c "$3" "$1"
"""
WRITE_MANY = """
import sys
from pathlib import Path
from hpc_saidpo.errors import RunError
from hpc_saidpo.store.stage import Stage
try:
    for i in range(30):
        Stage(Path(sys.argv[1])).write_json(f"{i}", [1])
except RunError as error:
    print(error)
"""
IN_NAMESPACE = ("unshare", "--mount", "--map-root-user")


def may_mount() -> bool:
    probe = [*IN_NAMESPACE, "sh", "-c", "mount -t tmpfs -o size=64k tmpfs /mnt"]
    return shutil.which("unshare") is not None and subprocess.run(probe, capture_output=True).returncode == 0


@pytest.mark.skipif(not may_mount(), reason="not run: this user may not mount a small disk (unshare --mount)")
def test_used_up_inodes_are_called_that(folder):
    command = [*IN_NAMESPACE, "sh", "-c", FEW_INODES, "sh", str(folder), sys.executable, WRITE_MANY]
    done = subprocess.run(command, capture_output=True, text=True, env=user_environment())
    assert "cannot write" in done.stdout, done.stderr
    assert "all 20 inodes of the file system are used up (99.9 MiB free there)" in done.stdout
    assert "remove files" in done.stdout and "No space left" not in done.stdout
