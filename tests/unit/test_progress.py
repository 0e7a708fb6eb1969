"""What a person sees of a task, and when."""

import re
import time

from hpc_saidpo import progress
from hpc_saidpo.parallel.task import Task, Units
from hpc_saidpo.parallel.world import World


class Response:
    def __init__(self, n_tokens, finished):
        self.tokens, self.finished = [0] * n_tokens, finished


def test_units_tokens_shares_and_the_time_left_are_shown():
    task = Task("explore", 4, 1, units=Units("questions", 32, [8, 8, 8]))
    task.begin(2, 1)
    task.started -= 10
    assert progress.facts_of(task) == ["8 of 32 questions"]
    task.end(2, 1, {"tokens": 1000, "questions": 8, "usable": 2, "responses": 64, "cut": 16})
    assert progress.facts_of(task) == [
        "16 of 32 questions", "100 tokens/s", "pair yield 25%", "cut 25%", "20s left",
    ]  # fmt: skip
    progress.estimate_by(lambda: 2520.0)
    try:
        assert progress.facts_of(task)[-1] == "run 42m left"
    finally:
        progress.estimate_by(None)


def test_a_chunk_in_flight_counts_as_far_as_it_is():
    task = Task("evaluate/x", 1, 0, units=Units("questions", 8, [8]))
    task.begin(0, 0)
    task.started -= 10
    done, half = [Response(30, True), Response(20, True)], [Response(40, True), Response(10, False)]
    with progress.drawing([done, half]):
        assert progress.facts_of(task) == ["1 of 8 questions", "10 tokens/s", "70s left"]
    assert progress.facts_of(task) == ["0 of 8 questions"]


def test_a_log_file_has_a_line_with_a_clock(monkeypatch, caplog):
    monkeypatch.setattr(progress, "columns", lambda: 0)
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.01)
    world = World()
    caplog.set_level("INFO", logger="hpc_saidpo")
    with progress.show("explore: 4 questions", 4, True, units=Units("questions", 4, [1] * 4)) as task:
        for _ in world.claim(4, task):
            while not re.search(rf"\d\d:\d\d:\d\d  explore: 4 questions: {task.n_units} of 4", caplog.text):
                time.sleep(0.005)
    assert caplog.messages[-1].startswith("  explore: 4 questions: done in")
    assert progress.take_finished() == [task] and progress.take_finished() == []
    assert task.work[0][0] > 0
