"""Idle shares from the ranks' times of work."""

import pytest

from hpc_saidpo.parallel import idle


def test_idle_is_the_time_without_work_between_the_first_start_and_the_last_end():
    # (started, ended, at work) seconds ago: the second one came 2 s late, the last one ended 4 s before the others
    assert idle.idle_shares([(11, 1, 10), (9, 1, 6), (11, 5, 6)]) == pytest.approx([0.0, 0.4, 0.4])
    assert idle.idle_shares([(1, 1, 0), (1, 1, 0)]) == [0.0, 0.0]  # there was nothing to do


def test_work_is_the_time_with_at_least_one_item(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(idle.time, "monotonic", lambda: clock[0])
    work = idle.Work()
    for time, note in ((1, work.begin), (2, work.end), (3, work.begin), (4, work.begin), (5, work.end), (7, work.end)):
        clock[0] = float(time)
        note()
    clock[0] = 8.0
    assert work.elapsed() == (8.0, 1.0, 5.0)  # at work from 1 to 2, and from 3 to 7
