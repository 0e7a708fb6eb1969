"""Atomic writes: which failures count as the disk's."""

import pytest

from hpc_saidpo.store.stage import Stage


def test_errors_of_the_program_are_not_taken_for_the_disks(folder):
    def fail(_):
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        Stage(folder).write_folder("model", fail)
    assert list(folder.iterdir()) == []
