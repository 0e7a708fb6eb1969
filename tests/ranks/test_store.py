"""The run folder: stages, resume, configuration, shared artefacts."""

import errno
import json
import os
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import h5py
import pytest
from support.make import make_rollouts

from hpc_saidpo import settings
from hpc_saidpo.errors import RunError, TryAgain
from hpc_saidpo.records import CORRECT, WRONG, Draw, Rollouts
from hpc_saidpo.store import disk
from hpc_saidpo.store.ragged import attributes
from hpc_saidpo.store.run import RunDir
from hpc_saidpo.store.stage import Stage

pytestmark = pytest.mark.mpi
RESOLVED = {"run": {"root": "r", "name": "n", "seed": 0}, "dpo": {"lr": 1e-6}, "pool": {"path": "a"}}
ROLLOUTS = make_rollouts(
    [(1, 0, CORRECT, 3, 1, True, "½ × \x00"), (0, 1, WRONG, 4, 2, False, ""), (0, 0, WRONG, 4, 2, True, "b")]
)


def write_one(stage, world):
    world.on_root(lambda: stage.write_chunk(0, ROLLOUTS))


@contextmanager
def open_run(folder, world, resolved=RESOLVED, name="run", report=print, **config):
    with RunDir.open(
        settings.Run(root=str(folder), name=name, **config), resolved, {"started": "now"}, world, report
    ) as run:
        yield run
    world.barrier()  # the lock is free again for every rank


def refused(folder, world, resolved, match, **config):
    with pytest.raises(RunError, match=match) as refusal, open_run(folder, world, resolved, **config):
        pass
    return str(refusal.value)


def changed(section, key, value):
    return {**RESOLVED, section: {**RESOLVED[section], key: value}}


def test_a_stage_is_computed_once_and_then_loaded(folder, world):
    calls = []

    def compute(stage):
        calls.append(world.rank)
        stage.write_chunk(world.rank, ROLLOUTS)

    def load(stage):
        return stage.read_chunks(Rollouts).sorted()

    with open_run(folder, world) as run:
        first = run.stage(0, "probe", compute, load)
    with open_run(folder, world) as run:
        again = run.stage(0, "probe", compute, load)
    assert calls == [world.rank]
    assert len(first) == 3 * world.size and first.equals(again)


def test_tables_come_back_as_they_were_on_every_rank(folder, world):
    with open_run(folder, world) as run:
        back = run.stage(0, "probe", lambda s: write_one(s, world), lambda s: s.read_chunks(Rollouts))
    assert back.equals(ROLLOUTS)
    assert back.sorted().text_R == ["b", "", "½ × \x00"]


def test_files_say_where_they_come_from(folder, world):
    with open_run(folder, world, seed=7) as run:
        stage = run.stage(3, "probe", lambda s: write_one(s, world), lambda s: s, policy_hash="abc")
    with h5py.File(stage.path / "chunk-000000.h5") as file:
        origin = attributes(file)
        assert (origin["run"], origin["iteration"], origin["stage"], origin["seed"]) == ("run", 3, "probe", 7)
        assert origin["policy_hash"] == "abc" and len(origin["config_hash"]) == 16 and origin["schema_version"] == 3
        assert attributes(file["n_tokens"])["unit"] == "tokens" and "response" in attributes(file["text"])["meaning"]
        assert all(
            file[name].fletcher32 for name in ("question", "seconds", "text/bytes", "text/lengths", "tokens/lengths")
        )


def test_the_configuration_hash_is_of_what_matters(folder, world):
    def hash_in_file(name, resolved):
        with open_run(folder, world, resolved, name=name) as run:
            stage = run.stage(0, "probe", lambda s: write_one(s, world), lambda s: s)
        with h5py.File(stage.path / "chunk-000000.h5") as file:
            return attributes(file)["config_hash"]

    assert (
        hash_in_file("a", RESOLVED)
        == hash_in_file("b", changed("run", "name", "other"))
        != hash_in_file("c", changed("dpo", "lr", 1.0))
    )


def test_an_empty_table_is_a_table(folder, world):
    with open_run(folder, world) as run:
        empty = run.stage(
            0, "draw", lambda s: world.on_root(lambda: s.write("d", Draw.concat([]))), lambda s: s.read("d", Draw)
        )
    assert len(empty) == 0


def test_a_stage_that_failed_is_not_done_but_keeps_its_chunks(folder, world):
    def fail(stage):
        stage.write_chunk(world.rank, ROLLOUTS)
        raise KeyError("killed")

    with open_run(folder, world) as run:
        with pytest.raises(KeyError):
            run.stage(0, "probe", fail, lambda s: None)
        world.barrier()
        seen = run.stage(0, "probe", lambda s: None, lambda s: s.finished_chunks())
    assert seen == set(range(world.size))


def test_a_finished_stage_that_lacks_a_file_is_named(folder, world):
    with open_run(folder, world) as run:
        stage = run.stage(0, "probe", lambda s: write_one(s, world), lambda s: s)
        world.barrier()
        world.on_root((stage.path / "chunk-000000.h5").unlink)
        with pytest.raises(RunError, match=r"chunk-000000\.h5: is missing.*--repair"):
            run.stage(0, "probe", lambda s: None, lambda s: s.read_chunks(Rollouts))


def test_a_chunk_of_another_stage_is_named(folder, world):
    with open_run(folder, world) as run:
        stage = run.stage(0, "probe", lambda s: write_one(s, world), lambda s: s)

        def copy(other):
            def on_root():
                (other.path / "chunk-000001.h5").write_bytes((stage.path / "chunk-000000.h5").read_bytes())

            world.on_root(on_root)

        with pytest.raises(RunError, match=r"chunk-000001\.h5: belongs to stage probe, not explore"):
            run.stage(0, "explore", copy, lambda s: s.read_chunks(Rollouts))
        with pytest.raises(RunError, match=r"chunk-000001\.h5: holds the chunks 0 to 0, not those of its name"):
            world.on_root(lambda: (copy_here(stage), stage.read_chunks(Rollouts)))


def copy_here(stage):
    (stage.path / "DONE").unlink()
    (stage.path / "chunk-000001.h5").write_bytes((stage.path / "chunk-000000.h5").read_bytes())


def test_another_configuration_is_refused_by_key_with_the_way_out(folder, world):
    with open_run(folder, world) as run:
        run.stage(0, "probe", lambda s: write_one(s, world), lambda s: None)
    said = refused(folder, world, changed("dpo", "lr", 0.1), r"dpo\.lr: 1e-06 in the run, 0\.1 now")
    assert "run.name=" in said and "run.accept_changes=true" in said
    said = refused(folder, world, changed("pool", "path", "b"), r"pool\.path", accept_changes=True)
    assert "run.accept_changes" not in said  # never possible: indices would mean other questions


def test_a_folder_in_which_nothing_was_made_takes_any_configuration(folder, world):
    with open_run(folder, world, changed("pool", "path", "misspelt")):
        pass
    with open_run(folder, world) as run, pytest.raises(KeyError):  # one chunk is something
        run.stage("base", "evaluate/x", lambda s: (s.write_chunk(world.rank, ROLLOUTS), {}["killed"]), lambda s: None)
    world.barrier()
    refused(folder, world, changed("pool", "path", "b"), r"pool\.path")


def test_accepted_changes_redo_the_unfinished_iteration_and_lose_nothing(folder, world):
    with open_run(folder, world) as run:
        for t in ("base", 0, 1):
            run.stage(t, "probe", lambda s: write_one(s, world), lambda s: None)
        run.finish_iteration(0, {"iteration": 0, "signatures": []})
    with open_run(folder, world, changed("dpo", "lr", 0.1), accept_changes=True) as run:
        kept = run.stage(0, "probe", lambda s: pytest.fail("iteration 0 was finished"), lambda s: s.finished_chunks())
        redone = run.stage(1, "probe", lambda s: None, lambda s: s.finished_chunks())
    assert kept == {0} and redone == set()
    assert (run.path / "iter-001.old-1" / "probe" / "chunk-000000.h5").exists()
    assert (run.path / "config.yaml.old-1").exists()
    assert (run.path / "base").exists()  # iteration 0 builds on it


def test_before_the_first_iteration_accepted_changes_redo_the_base_too(folder, world):
    with open_run(folder, world) as run:
        run.stage("base", "evaluate/x", lambda s: write_one(s, world), lambda s: None)
    with open_run(folder, world, changed("dpo", "lr", 0.1), accept_changes=True) as run:
        assert (run.path / "base.old-1").exists() and not (run.path / "base").exists()


@pytest.mark.parametrize(
    "section, key",
    [("loop", "iterations"), ("loop", "stop_after"), ("dpo", "checkpoint_minutes"), ("dpo", "strategy")],
)
def test_what_changes_no_result_is_no_other_configuration(folder, world, section, key):
    with open_run(folder, world, {**RESOLVED, section: {key: 2}}) as run:
        run.stage(0, "probe", lambda s: write_one(s, world), lambda s: None)
    with open_run(folder, world, {**RESOLVED, section: {key: 5}}):
        pass


def test_metrics_hold_one_line_per_iteration_however_often_it_resumes(folder, world):
    with open_run(folder, world) as run:
        for t in (0, 1, 1, 0):
            run.finish_iteration(t, {"iteration": t, "signatures": []})
        assert run.has_finished(1) and not run.has_finished(2)
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == [0, 1]


def test_the_first_start_of_a_run_decides_its_date(folder, world):
    with open_run(folder, world) as run:
        assert run.started() is None  # "now" is no time
    first = "2024-02-29T23:59:00+0100"
    world.on_root(lambda: (run.path / "env.json").write_text(json.dumps([{"started": first}])))
    world.barrier()
    with open_run(folder, world) as run:
        assert run.started() == datetime.fromisoformat(first) and run.started().strftime("%d %b") == "29 Feb"
        assert len(json.loads((run.path / "env.json").read_text())) == 2


def relabel(path):
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 2}))


@pytest.mark.parametrize("name", ["config.yaml", "env.json"])
@pytest.mark.parametrize("content", ["", "{["])
def test_unreadable_files_of_the_run_are_named(folder, world, name, content):
    with open_run(folder, world) as run:
        run.stage(0, "probe", lambda s: write_one(s, world), lambda s: None)
    world.on_root(lambda: (run.path / name).write_text(content))
    world.barrier()
    assert "put back a copy" in refused(folder, world, RESOLVED, rf"{name} is (empty|not readable)")


def test_a_run_of_the_layout_before_is_refused_by_name(folder, world):
    with open_run(folder, world) as run:
        stage = run.stage(0, "probe", lambda s: write_one(s, world), lambda s: s)
        world.on_root(lambda: relabel(stage.path / "DONE"))
        with pytest.raises(RunError, match=r"DONE: has layout 2, this version resumes 3"):
            run.stage(0, "probe", lambda s: None, lambda s: None)


def test_shared_artefacts_are_made_once_for_all_runs(folder, world):
    calls = []

    def compute(stage):
        calls.append(1)
        world.on_root(lambda: stage.write_json("x", {"made": True}))

    for name in ("one", "two"):
        with open_run(folder, world, name=name) as run:
            assert run.shared("embedding", "key", compute, lambda s: s.read_json("x")) == {"made": True}
    assert len(calls) == 1
    with open_run(folder, world, name="two") as run:
        assert run.shared("embedding", "other key", compute, lambda s: s.read_json("x"))
    assert len(calls) == 2


def test_a_damaged_shared_artefact_is_set_aside_and_made_again(folder, world):
    made = []

    def write(stage):
        world.on_root(lambda: stage.write("x", ROLLOUTS))

    def shared():
        with open_run(folder, world, report=lambda message: made.append(message)) as run:
            return run.shared("embedding", "key", write, lambda s: s.read("x", Rollouts))

    shared()
    (artefact,) = (folder / ".shared").glob("embedding-*")
    world.barrier()
    for spoil in (lambda: (artefact / "x.h5").write_bytes(b""), (artefact / "DONE").unlink):
        world.on_root(spoil)
        assert shared().equals(ROLLOUTS)
    assert world.bcast(made) == [
        f"{artefact}/x.h5: has 0 bytes where it was finished with {size(artefact)}: computed again"
    ]
    assert sorted(p.name for p in (folder / ".shared").iterdir()) == [
        artefact.name, f"{artefact.name}.damaged-1", f"{artefact.name}.damaged-2",
    ]  # fmt: skip


def size(artefact):
    return (artefact / "x.h5").stat().st_size


def test_what_a_killed_job_left_half_written_is_removed_and_never_counted(folder, world):
    with open_run(folder, world) as run:
        stage = run.stage(0, "probe", lambda s: write_one(s, world), lambda s: s)
    leftovers = [
        stage.path / ".chunk-000001.h5.0123456789abcdef.tmp",
        run.path / ".config.yaml.0123456789abcdef.tmp",
        stage.path / ".model.0123456789abcdef.tmp" / "w",
    ]

    def leave():
        (stage.path / ".model.0123456789abcdef.tmp").mkdir()
        for path in leftovers:
            path.write_text("half")

    world.on_root(leave)
    assert [p.name for p in Stage(stage.path).contents()] == ["chunk-000000.h5"]
    world.barrier()
    with open_run(folder, world) as run:
        world.barrier()
        assert not any(path.exists() for path in leftovers)
        assert run.stage(0, "probe", lambda s: None, lambda s: s.finished_chunks()) == {0}


def test_each_rank_syncs_the_files_that_it_wrote(folder, world, monkeypatch):
    """A node cannot flush the memory of another one."""
    sync, synced = os.fsync, []

    def note(handle):
        synced.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        sync(handle)

    def fill(inside):
        (inside / f"of-rank-{world.rank}").write_text("content")

    monkeypatch.setattr(os, "fsync", note)
    Stage(folder).write_folder("checkpoint", fill, world)
    assert f"of-rank-{world.rank}" in synced
    assert len(list((folder / "checkpoint").iterdir())) == world.size


def test_a_moment_of_a_failing_disk_on_one_rank_is_waited_for_by_all(folder, world, monkeypatch):
    monkeypatch.setattr(disk, "PAUSES_S", (0.01, 0.01))
    attempts = []

    def fill(inside):
        attempts.append(inside)
        (inside / f"of-rank-{world.rank}").write_text(f"attempt {len(attempts)}")
        if len(attempts) == 1 and world.rank == world.size - 1:
            raise OSError(errno.EIO, "Input/output error")

    Stage(folder).write_folder("checkpoint", fill, world)
    assert len(attempts) == 2
    assert {p.read_text() for p in (folder / "checkpoint").iterdir()} == {"attempt 2"}


def test_a_disk_of_one_rank_that_goes_on_failing_is_raised_on_every_rank(folder, world, monkeypatch):
    monkeypatch.setattr(disk, "PAUSES_S", (0.01, 0.01))

    def fill(inside):
        if world.rank == world.size - 1:
            raise OSError(errno.ESTALE, "Stale file handle")

    with pytest.raises(TryAgain, match=r"checkpoint: Stale file handle"):
        Stage(folder).write_folder("checkpoint", fill, world)
    world.barrier()
    assert not list(folder.iterdir())
