"""Atomic writes: which failures count as the disk's."""

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
