"""Atomic writes: which failures count as the disk's."""

import os
from pathlib import Path

import pytest

from hpc_saidpo.errors import RunError
from hpc_saidpo.store.files import make_folder, write_bytes
from hpc_saidpo.store.stage import Stage


def test_errors_of_the_program_are_not_taken_for_the_disks(folder):
    def fail(_):
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        Stage(folder).write_folder("model", fail)
    assert list(folder.iterdir()) == []


def test_files_of_a_folder_may_be_read_by_all_that_the_umask_allows(folder):
    """Libraries write some for their owner alone: safetensors does."""
    before = os.umask(0o027)
    try:
        Stage(folder).write_folder("model", lambda path: os.close(os.open(path / "weights", os.O_CREAT, 0o600)))
    finally:
        os.umask(before)
    assert (folder / "model" / "weights").stat().st_mode & 0o777 == 0o640


def test_a_file_system_that_refuses_new_folders_is_named():
    """/proc answers mkdir with "no such file", as an automounter does."""
    with pytest.raises(RunError, match=r"cannot write /proc/runs/x: No such file.*refuses new folders.*run\.root"):
        make_folder(Path("/proc/runs/x"))


def test_writing_leaves_no_file_open(tmp_path):
    def n_open():
        return len(list(Path("/proc/self/fd").iterdir()))

    before = n_open()
    write_bytes(tmp_path / "a", b"content")
    make_folder(tmp_path / "b" / "c")
    assert n_open() == before and (tmp_path / "a").read_bytes() == b"content"
