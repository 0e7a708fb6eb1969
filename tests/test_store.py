import dataclasses
import json

import h5py
import numpy as np
import pytest
from conftest import make_rollouts

from hpc_saidpo.records import CORRECT, WRONG, Draw, Rollouts, RunError
from hpc_saidpo.store import Config, RunDir

pytestmark = pytest.mark.mpi
RESOLVED = {"run": {"root": "r", "name": "n", "seed": 0}, "dpo": {"lr": 1e-6}, "pool": {"path": "a"}}
ROLLOUTS = make_rollouts(
    [(1, 0, CORRECT, 3, 1, True, "½ × \x00"), (0, 1, WRONG, 4, 2, False, ""), (0, 0, WRONG, 4, 2, True, "b")]
)


def write_one(stage, world):
    world.on_root(lambda: stage.write_chunk(0, ROLLOUTS))


def open_run(folder, world, resolved=RESOLVED, **config):
    return RunDir.open(Config(root=str(folder), name="run", **config), resolved, {"started": "now"}, world)


def changed(section, key, value):
    return {**RESOLVED, section: {**RESOLVED[section], key: value}}


def same(a, b):
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))


def test_a_stage_is_computed_once_and_then_loaded(folder, world):
    run = open_run(folder, world)
    calls = []

    def compute(stage):
        calls.append(world.rank)
        stage.write_chunk(world.rank, ROLLOUTS)

    def load(stage):
        return stage.read_chunks(Rollouts).sorted()

    first = run.stage(0, "probe", compute, load)
    again = open_run(folder, world).stage(0, "probe", compute, load)
    assert calls == [world.rank]
    assert len(first) == 3 * world.size and same(first, again)


def test_tables_come_back_as_they_were(folder, world):
    run = open_run(folder, world)
    back = run.stage(
        0, "probe", lambda s: world.on_root(lambda: s.write_chunk(0, ROLLOUTS)), lambda s: s.read_chunks(Rollouts)
    )
    assert same(back, ROLLOUTS)
    assert back.sorted().text_R == ["b", "", "½ × \x00"]


def test_an_empty_table_is_a_table(folder, world):
    run = open_run(folder, world)
    empty = run.stage(
        0, "draw", lambda s: world.on_root(lambda: s.write("d", Draw.concat([]))), lambda s: s.read("d", Draw)
    )
    assert len(empty) == 0


def test_a_stage_that_failed_is_not_done_but_keeps_its_chunks(folder, world):
    run = open_run(folder, world)

    def fail(stage):
        stage.write_chunk(world.rank, ROLLOUTS)
        raise KeyError("killed")

    with pytest.raises(KeyError):
        run.stage(0, "probe", fail, lambda s: None)
    world.barrier()
    seen = run.stage(0, "probe", lambda s: None, lambda s: s.finished_chunks())
    assert seen == set(range(world.size))


def test_another_configuration_is_refused_by_key_with_the_way_out(folder, world):
    open_run(folder, world).stage(0, "probe", lambda s: write_one(s, world), lambda s: None)
    with pytest.raises(RunError, match=r"dpo\.lr: 1e-06 in the run, 0\.1 now") as refusal:
        open_run(folder, world, changed("dpo", "lr", 0.1))
    assert "run.name=" in str(refusal.value) and "run.accept_changes=true" in str(refusal.value)
    with pytest.raises(RunError, match=r"pool\.path") as refusal:
        open_run(folder, world, changed("pool", "path", "b"), accept_changes=True)
    assert "run.accept_changes" not in str(refusal.value)  # never possible: indices would mean other questions


def test_a_folder_in_which_nothing_was_made_takes_any_configuration(folder, world):
    open_run(folder, world, changed("pool", "path", "misspelt"))
    run = open_run(folder, world)
    with pytest.raises(KeyError):  # one chunk is something
        run.stage("base", "evaluate/x", lambda s: (s.write_chunk(world.rank, ROLLOUTS), {}["killed"]), lambda s: None)
    world.barrier()
    with pytest.raises(RunError, match=r"pool\.path"):
        open_run(folder, world, changed("pool", "path", "b"))


def test_accepted_changes_redo_the_unfinished_iteration_and_lose_nothing(folder, world):
    run = open_run(folder, world)
    for t in ("base", 0, 1):
        run.stage(t, "probe", lambda s: write_one(s, world), lambda s: None)
    run.finish_iteration(0, {"iteration": 0})
    run = open_run(folder, world, changed("dpo", "lr", 0.1), accept_changes=True)
    kept = run.stage(0, "probe", lambda s: pytest.fail("iteration 0 was finished"), lambda s: s.finished_chunks())
    redone = run.stage(1, "probe", lambda s: None, lambda s: s.finished_chunks())
    assert kept == {0} and redone == set()
    assert (run.path / "iter-001.old-1" / "probe" / "chunk-000000.h5").exists()
    assert (run.path / "config.yaml.old-1").exists()
    assert (run.path / "base").exists()  # iteration 0 builds on it


def test_before_the_first_iteration_accepted_changes_redo_the_base_too(folder, world):
    run = open_run(folder, world)
    run.stage("base", "evaluate/x", lambda s: write_one(s, world), lambda s: None)
    run = open_run(folder, world, changed("dpo", "lr", 0.1), accept_changes=True)
    assert (run.path / "base.old-1").exists() and not (run.path / "base").exists()


def test_more_iterations_are_no_other_configuration(folder, world):
    resolved = {**RESOLVED, "loop": {"iterations": 2}}
    open_run(folder, world, resolved).stage(0, "probe", lambda s: None, lambda s: None)
    open_run(folder, world, {**RESOLVED, "loop": {"iterations": 5}})


def test_metrics_hold_one_line_per_iteration_however_often_it_resumes(folder, world):
    run = open_run(folder, world)
    for t in (0, 1, 1, 0):
        run.finish_iteration(t, {"iteration": t})
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == [0, 1]


@pytest.mark.parametrize("damage", ["truncated", "empty", "foreign", "missing"])
def test_a_damaged_file_is_named(folder, world, damage):
    run = open_run(folder, world)
    stage = run.stage(0, "draw", lambda s: world.on_root(lambda: s.write("draw", ROLLOUTS)), lambda s: s)
    path = stage.path / "draw.h5"

    def spoil():
        content = path.read_bytes()
        if damage == "truncated":
            path.write_bytes(content[: len(content) // 2])
        elif damage == "empty":
            path.write_bytes(b"")
        elif damage == "missing":
            path.unlink()
        else:
            with h5py.File(path, "w") as file:
                file["x"] = 1

    world.on_root(spoil)
    with pytest.raises(RunError, match=r"draw\.h5"):
        stage.read("draw", Rollouts)


def test_shared_artefacts_are_made_once_for_all_runs(folder, world):
    calls = []

    def compute(stage):
        calls.append(1)
        stage.write_json("x", {"made": True})

    for name in ("one", "two"):
        run = RunDir.open(Config(root=str(folder), name=name), RESOLVED, {}, world)
        assert run.shared("embedding", "key", compute, lambda s: s.read_json("x")) == {"made": True}
    assert len(calls) == (1 if world.is_root else 0)
    assert run.shared("embedding", "other key", compute, lambda s: s.read_json("x"))
    assert len(calls) == (2 if world.is_root else 0)
