"""Signs of life of a run, and what `status` makes of them."""

import contextlib
import hashlib
import json
import threading
import time

import pytest

from hpc_saidpo import progress, settings
from hpc_saidpo.cli import status as program
from hpc_saidpo.errors import RunError
from hpc_saidpo.parallel.stop import Stopped
from hpc_saidpo.parallel.task import Units
from hpc_saidpo.parallel.world import World
from hpc_saidpo.report.status import duration, read_states, table, time_left
from hpc_saidpo.store import life
from hpc_saidpo.store.lock import Lock
from hpc_saidpo.store.run import RunDir

RESOLVED = {"loop": {"iterations": 3}}
SLURM = {"SLURM_JOB_ID": "71", "SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": "4"}


def open_run(root, name="a", **env):
    return RunDir.open(settings.Run(root=str(root), name=name), RESOLVED, {"hosts": ["n1"], **env}, World())


def state_of(root):
    (state,) = read_states(root)
    return state


def put(folder, **facts):
    """Change the signs of life of a run."""
    path = folder / life.PROGRESS
    path.write_text(json.dumps({**life.read(path), **facts}))


def test_a_run_at_work_shows_its_stage_chunks_tokens_and_yield(tmp_path):
    seen = []

    def explore(stage):
        stage.write_json("nothing", [])
        world = World()
        with progress.show("explore", 10, True, n_done=4, names=range(6)) as task:
            for index in world.claim(6, task):
                world.count(tokens=50, questions=8, usable=2)
                time.sleep(0.01)
                if index == 3:
                    run._life._write()
                    seen.append(state_of(tmp_path))

    with open_run(tmp_path, slurm=SLURM) as run:
        run.stage(1, "explore", explore, lambda stage: None)
    (state,) = seen
    assert (state.name, state.state, state.stage) == ("a", "running", "iter-001/explore")
    assert (state.done, state.total, state.pair_yield) == (7, 10, 0.25)
    assert 0 < state.tokens_per_s < 150 / 0.03 and state.left_s > 0 and state.left_is_least
    assert (state.iteration, state.iterations, state.job, state.restarts, state.hosts) == (0, 3, "70_4", 0, ["n1"])
    assert state.seen_s < 60 and state.message == "" and state.silent == []


@pytest.mark.parametrize(
    "error, note, state, says",
    [
        (None, "", "complete", ""),
        (None, "depletion in iteration 0", "stopped", "depletion in iteration 0"),
        (Stopped("SIGUSR1"), "", "stopped", "stopped by SIGUSR1"),
        (RunError("the disk is full"), "", "failed", "rank 0 on"),
        (ZeroDivisionError("a bug"), "", "failed", "ZeroDivisionError: a bug"),
    ],
)
def test_the_end_of_a_start_is_said(tmp_path, error, note, state, says):
    with contextlib.suppress(Stopped, RunError, ZeroDivisionError), open_run(tmp_path) as run:
        run.note_end(note)
        if error:
            raise error
    found = state_of(tmp_path)
    assert found.state == state and says in found.message and (says or not found.message)


def test_a_killed_run_is_silent_and_its_time_is_kept(tmp_path):
    with open_run(tmp_path):
        pass
    put(tmp_path / "a", state="running", place="iter-000/probe", place_s=40.0, written=time.time() - 59)
    assert state_of(tmp_path).state == "running"
    put(tmp_path / "a", written=time.time() - 61)
    found = state_of(tmp_path)
    assert found.state == "silent" and "no sign of life" in found.message and 61 <= found.seen_s < 70
    with open_run(tmp_path) as run:
        assert life.read(run.path / life.PROGRESS)["spent_s"] == {"iter-000/probe": 40.0}
    assert state_of(tmp_path).restarts == 1


def test_a_rank_that_fails_alone_is_named_until_the_next_start(tmp_path):
    with open_run(tmp_path) as run:
        world = World()
        world.rank, world.hosts = 1, ["n1", "n2"]
        life.Life(run.path, world).end(ValueError("odd"))
        found = state_of(tmp_path)
    assert (found.state, found.message) == ("failed", "rank 1 on n2: ValueError: odd")
    with open_run(tmp_path):
        assert state_of(tmp_path).state == "running"


def test_the_work_of_each_rank_is_added_up_over_starts(tmp_path):
    def explore(stage):
        with progress.show("explore", 2, True) as task:
            for rank in (0, 1):
                task.begin(rank, rank)
                task.end(rank, rank, {"tokens": 50})
        raise Stopped("SIGTERM")

    for _ in range(2):
        with contextlib.suppress(Stopped), open_run(tmp_path) as run:
            run.stage(0, "explore", explore, lambda stage: None)
    work = life.read_work(tmp_path / "a")
    assert {rank: tokens for rank, (_, tokens) in work["iter-000/explore"].items()} == {0: 100, 1: 100}
    (tmp_path / "a" / life.WORK).write_text(json.dumps({"x": [[0, 1]], "y": 3, "z": [[1, 2.0, 3]]}))
    assert life.read_work(tmp_path / "a") == {"z": {1: (2.0, 3)}}


def test_what_a_run_waits_for_is_said(tmp_path):
    """Another job computes an artefact that the run needs."""
    path = tmp_path / ".shared" / f"vectors-{hashlib.sha256(b'key').hexdigest()[:16]}"
    path.parent.mkdir()
    other = Lock(path.with_name(f".{path.name}.lock"), guarded="the vectors")
    other.acquire()
    with open_run(tmp_path) as run:
        arguments = ("vectors", "key", lambda stage: stage.write_json("x", 1), lambda stage: stage.read_json("x"))
        waiting = threading.Thread(target=run.shared, args=arguments)
        waiting.start()
        until = time.monotonic() + 30
        while (found := state_of(tmp_path)).state != "waiting" and time.monotonic() < until:
            run._life._write()
        other.release()
        waiting.join()
        run._life._write()
        assert found.state == "waiting" and found.stage == "vectors" and "in use by another job" in found.message
        assert state_of(tmp_path).state == "running"


def record(place, **facts):
    spent = {"iter-000/probe": 10, "iter-000/draw": 1, "iter-000/explore": 30, "iter-000/pairs": 1}
    spent |= {"iter-000/policy": 20, "iter-000/evaluate/x": 8, "base/evaluate/x": 6, "pool": 500}
    nothing = {"done": None, "total": None, "done_before": None, "task_s": None}
    return {"place": place, "place_s": 0.0, "iterations": 3, "spent_s": spent, **nothing, **facts}


def test_the_time_left_is_that_of_the_items_and_of_later_stages():
    busy = {"done": 6, "done_before": 2, "total": 8, "task_s": 20.0}
    # 2 of 4 items in 20 s are left: 10 s; then pairs 1, policy 20, evaluation 7; then an iteration of 69
    assert time_left(record("iter-001/explore", **busy)) == (10 + 28 + 69, False)
    assert time_left(record("iter-002/explore", place_s=25.0)) == (5 + 28, False)
    assert time_left(record("iter-002/evaluate/x", place_s=2.0)) == (5, False)


def test_the_end_of_a_stage_in_rounds_is_not_known(tmp_path):
    with open_run(tmp_path) as run:
        for is_part, done in ((False, 1), (True, None)):
            with progress.show("explore", 2, True, units=Units("questions", 2, [1, 1], is_part)) as task:
                task.begin(0, 0)
                task.end(0, 0)
                timing = run._life._timing(task)
                assert timing["done"] == done and timing["total"] == (done and 2) and timing["task_s"] is not None


def test_a_time_left_without_measurements_is_a_bound_from_below():
    busy = {"done": 1, "done_before": 0, "total": 2, "task_s": 3.0, "spent_s": {"base/evaluate/x": 6}}
    assert time_left(record("iter-000/probe", **busy)) == (3 + 3 * 6, True)
    assert time_left(record("base/evaluate/y", spent_s={})) == (0, True)
    assert time_left(record("pool")) == (None, True)


@pytest.mark.parametrize(
    "seconds, text",
    [(0, "0s"), (99.4, "99s"), (720, "12m"), (5999, "100m"), (9000, "2.5h"), (90_000, "25h"), (300_000, "3.5d")],
)
def test_durations_are_short(seconds, text):
    assert duration(seconds) == text and len(text) <= 4


def test_a_line_for_each_run_fits_80_columns(tmp_path):
    for name in ("a", "a-very-long-name-of-a-run,clusters.n=150"):
        with open_run(tmp_path, name, slurm=SLURM):
            pass
        busy = {"done": 123456, "done_before": 0, "total": 222222, "task_s": 3.0, "counts": {"tokens": 10**7}}
        silent = ["rank 511 on a-long-host-name: silent at chunk 17 of iter-001/explore for 340 s " * 2]
        put(tmp_path / name, state="running", place="iter-001/evaluate/held_out", silent=silent, **busy)
    lines = table(read_states(tmp_path)).splitlines()
    assert len(lines) >= 7 and max(map(len, lines)) <= 80
    assert "eval held_" in lines[1] and "70_4" in lines[1] and lines[2].startswith("a-very-")


def test_folders_of_other_kinds_are_left_out_and_evaluations_found(tmp_path):
    (tmp_path / ".shared" / "pool-1").mkdir(parents=True)
    (tmp_path / "notes").mkdir()
    with pytest.raises(RunError, match="no run in it"):
        read_states(tmp_path)
    with open_run(tmp_path / "evaluate", "b"), open_run(tmp_path, "c"):
        assert [state.name for state in read_states(tmp_path)] == ["c", "evaluate/b"]
    (tmp_path / "c" / life.PROGRESS).write_text("{ half a fi")
    assert [state.state for state in read_states(tmp_path)] == ["unknown", "complete"]


def test_a_disk_that_refuses_signs_of_life_does_not_end_the_run(tmp_path):
    with open_run(tmp_path) as run:
        (run.path / life.PROGRESS).unlink()
        (run.path / life.PROGRESS).mkdir()
        run._life._write()
        run.stage(0, "draw", lambda stage: stage.write_json("x", 1), lambda stage: stage.read_json("x"))


def test_the_program_prints_json_and_refuses_a_folder_without_runs(tmp_path, capsys):
    with open_run(tmp_path):
        assert program.main([str(tmp_path), "--json"]) == 0
    (state,) = json.loads(capsys.readouterr().out)
    assert (state["name"], state["state"], state["iterations"]) == ("a", "running", 3)
    assert program.main([str(tmp_path / "a")]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["a", "0/3", "complete"]
    assert program.main([str(tmp_path / "nothing")]) == 2
    assert "no such folder" in capsys.readouterr().err
