"""The verb `verify`: every damage to a file is named, and a repair computes that file again and no more."""

import dataclasses
import itertools
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.damage import DAMAGE
from support.mini_run import work

from hpc_saidpo.cli import verify
from hpc_saidpo.errors import RunError
from hpc_saidpo.records import Rollouts
from hpc_saidpo.store.check import check, repair
from hpc_saidpo.store.compare import compare
from hpc_saidpo.store.lock import Lock
from hpc_saidpo.store.stage import Stage

FILES = [
    "iter-000/probe/shard-000000-000001.h5",
    "iter-000/probe/shard-000002-000002.h5",
    "iter-000/probe/DONE",
    "iter-000/draw/draw.h5",
    "iter-000/policy/model/model.safetensors",
    "iter-000/policy/steps.json",
    "iter-000/metrics.json",
]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    work(folder)
    return folder


@pytest.fixture
def run(sound, tmp_path):
    shutil.copytree(sound / "run", tmp_path / "run")
    return tmp_path / "run"


def test_a_sound_run_has_no_findings(run):
    report = check(run)
    assert report.findings == [] and (report.n_stages, report.n_unfinished, report.n_rollouts) == (3, 0, 6)
    assert report.n_files == 5


# Without DONE a stage is merely unfinished, and a flipped letter of a name makes another valid text.
UNDAMAGED = {("iter-000/probe/DONE", "missing"), ("iter-000/metrics.json", "flipped")}


@pytest.mark.parametrize("name, damage", sorted({*itertools.product(FILES, DAMAGE)} - UNDAMAGED))
def test_damage_is_named_and_repairing_redoes_that_and_no_more(run, sound, name, damage):
    path = run / name
    intact = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in run.rglob("*") if p.is_file() and p != path}
    DAMAGE[damage](path)
    spoilt = path.read_bytes() if path.exists() else None
    findings = check(run).findings
    assert [f.path for f in findings] == [path], findings
    assert findings[0].problem and "--repair" in findings[0].remedy
    moved = repair(run, findings)
    if spoilt is not None:
        assert path.with_name(f"{path.name}.damaged-1").read_bytes() == spoilt  # set aside, not deleted
    work(run.parent)
    assert check(run).findings == [] and compare(run, sound / "run").notes == []
    redone = path.parent if path.parent.name != "model" else path.parent.parent
    rewritten = ("metrics.jsonl", "env.json", "config.yaml", "progress.json")
    for other, (content, made) in intact.items():
        if redone not in other.parents and other.name not in rewritten:
            assert (other.read_bytes(), other.stat().st_mtime_ns) == (content, made), other
    shards = [p for p in intact if p.name.startswith("shard") and p.parent == path.parent]
    assert all(p.stat().st_mtime_ns == intact[p][1] for p in shards)  # the stage's other shard is not made again
    assert moved


def test_a_missing_metrics_file_is_made_again(run, sound):
    """Its iteration's DONE vouches for it."""
    (run / "iter-000" / "metrics.json").unlink()
    (finding,) = check(run).findings
    assert finding.problem == "is missing" and repair(run, [finding])
    work(run.parent)
    assert compare(run, sound / "run").notes == []


def test_files_of_others_are_named_and_not_touched(run):
    stray = run / "iter-000" / "probe" / "chunk-000009.h5"
    stray.write_bytes((run / "iter-000" / "probe" / "shard-000002-000002.h5").read_bytes())
    notes = run / "iter-000" / "draw" / "notes.txt"
    notes.write_text("mine")
    assert {f.path for f in check(run).findings} >= {stray, notes}
    repair(run, [f for f in check(run).findings if f.path == notes])
    assert notes.read_text() == "mine"


def test_a_run_that_is_going_on_is_checked_but_not_repaired(run):
    lock = Lock(run / "lock")
    lock.acquire()
    try:
        assert check(run).findings == []
        with pytest.raises(RunError, match="in use by another job"):
            repair(run, [])
    finally:
        lock.release()


def test_the_verb_reports_the_findings_and_exits_accordingly(run, tmp_path, capsys):
    def call(*arguments):
        return verify.main([str(a) for a in arguments]), capsys.readouterr()

    code, printed = call(run)
    assert code == 0 and "3 stages (0 unfinished), 5 files, 6 rollouts; 0 damaged" in printed.out
    assert "not counted" not in printed.out
    (run / "iter-000" / "probe" / ".shard.h5.0123456789abcdef.tmp").write_bytes(b"half")
    code, printed = call(run)
    assert code == 0 and "  1 unfinished temporary files: not counted" in printed.out
    shard = run / "iter-000" / "probe" / "shard-000002-000002.h5"
    DAMAGE["truncated"](shard)
    code, printed = call(run, "--repair")
    assert code == 1 and f"{shard}: is truncated" in printed.out
    assert f"renamed: {shard} -> shard-000002-000002.h5.damaged-1" in printed.out
    assert call(run)[0] == 0
    code, printed = call(tmp_path)
    assert code == 2 and "is no run folder" in printed.err


def test_unreadable_configuration_is_named(run):
    (run / "env.json").write_text("{")
    (finding,) = check(run).findings
    assert finding.path.name == "env.json" and repair(run, [finding]) == []
    assert json.loads((run / "iter-000" / "metrics.json").read_text())["iteration"] == 0


def rewritten(run, rows=None, **columns):
    """The run with another first shard: these rows of it, these columns changed."""
    stage = Stage(run / "iter-000" / "probe", {"iteration": 0, "stage": "probe"})
    name = "shard-000000-000001"
    table = stage.read(name, Rollouts)
    table = dataclasses.replace(table if rows is None else table.take(rows), **columns)
    stage.write(name, table, first_chunk=0, last_chunk=1)
    return run


def test_comparing_sees_what_is_lost_duplicated_and_different(run, sound):
    def found(changed):
        seen = compare(changed, sound / "run")
        return seen.lost, seen.duplicated, seen.different

    assert found(run) == (0, 0, 0)
    seconds = np.array([9.0, 9.0, 9.0, 9.0])
    assert found(rewritten(run, seconds_R=seconds)) == (0, 0, 0)  # measured by the clock
    assert found(rewritten(run, text_R=["other", *sound_texts(sound)[1:]])) == (0, 0, 1)
    assert found(rewritten(run, [0, 1, 2, 3], text_R=sound_texts(sound))) == (0, 0, 0)
    assert found(rewritten(run, [0, 1, 2, 3, 3])) == (0, 1, 0)
    assert found(rewritten(run, [0, 1, 2])) == (1, 0, 0)
    save_file({"w": torch.arange(5.0) + 1e-6}, run / "iter-000" / "policy" / "model" / "model.safetensors")
    assert found(run) == (1, 0, 1)
    (run / "iter-000" / "draw" / "DONE").unlink()
    (run / "iter-000" / "metrics.json").write_text('{"iteration": 7}')
    assert found(run) == (2, 0, 2)


def sound_texts(sound):
    stage = Stage(sound / "run" / "iter-000" / "probe")
    return stage.read("shard-000000-000001", Rollouts).text_R
