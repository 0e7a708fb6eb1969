"""Idle shares from the ranks' times of work."""

import itertools

import pytest

from hpc_saidpo.parallel import idle


def test_idle_is_the_time_without_work_between_the_first_start_and_the_last_end():
    # (started, ended, at work) seconds ago: the second one came 2 s late, the last one ended 4 s before the others
    assert idle.idle_shares([(11, 1, 10), (9, 1, 6), (11, 5, 6)]) == pytest.approx([0.0, 0.4, 0.4])
    assert idle.idle_shares([(1, 1, 0), (1, 1, 0)]) == [0.0, 0.0]  # there was nothing to do


def test_work_is_the_time_between_two_items(monkeypatch):
    clock = itertools.count(0, 1.0)
    monkeypatch.setattr(idle.time, "monotonic", lambda: next(clock))
    work = idle.Work()  # at 0; three items that are begun at 1, 3, 5 and done at 2, 4, 6
    assert list(work.measure(range(3))) == [0, 1, 2]
    assert work.elapsed() == (7.0, 1.0, 3.0)
