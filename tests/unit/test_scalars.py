"""The figures of a run for other programs: CSV, TensorBoard, Weights & Biases."""

import csv
import json
import sys

import pytest

from hpc_saidpo.cli.export import main
from hpc_saidpo.errors import RunError
from hpc_saidpo.report.scalars import follow, read_scalars, write_tensorboard
from hpc_saidpo.store.stage import Stage


def put_iteration(run, t, before, after):
    """A finished iteration with two optimizer steps."""
    record = {
        "iteration": t, "pair_yield": 0.5 + t / 4, "pairs": 3, "sampler_rule": "error", "cluster_weight": [1.0],
        "draw_overlap": None, "scores_before": {"exam": {"accuracy": before}}, "scores": {"exam": {"accuracy": after}},
        "signatures": [],
    }  # fmt: skip
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
    stage = Stage(run / f"iter-{t:03d}" / "policy", {"iteration": t, "stage": "policy"})
    stage.prepare()
    stage.write_json("steps", [{"step": i, "loss": 0.5 + i / 4 + t, "length_correlation": None} for i in range(2)])
    stage.mark_done()


@pytest.fixture
def run(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    (path / "config.yaml").write_text("run: {seed: 1}\n")
    put_iteration(path, 0, 0.25, 0.5)
    put_iteration(path, 1, 0.5, 0.75)
    return path


EXPECTED = {
    "pair_yield": [(0, 0.5), (1, 0.75)],
    "pairs": [(0, 3), (1, 3)],
    "accuracy/exam": [(0, 0.25), (1, 0.5), (2, 0.75)],  # by finished rounds of training
    "train/loss": [(0, 0.5), (1, 0.75), (2, 1.5), (3, 1.75)],  # by optimizer steps of the whole run
}


def test_scalars_have_a_tag_a_step_and_a_value(run):
    found = {}
    for scalars in read_scalars(run):
        for tag, step, value in [*scalars.iteration, *scalars.steps]:
            found.setdefault(tag, []).append((step, value))
    assert found == EXPECTED
    (last,) = read_scalars(run, 1)
    assert last.t == 1 and [step for _, step, _ in last.steps] == [2, 3]


def test_csv_has_a_row_for_each_iteration(run, tmp_path, capsys):
    assert main([str(run), "--what", "metrics", "--format", "csv", "--out", str(tmp_path / "m.csv")]) == 0
    assert capsys.readouterr().out == f"metrics of 2 iterations -> {tmp_path}/m.csv\n"
    with (tmp_path / "m.csv").open() as file:
        first, second = csv.DictReader(file)
    assert first == {
        "iteration": "0", "pair_yield": "0.5", "pairs": "3.0", "accuracy/exam/before": "0.25", "accuracy/exam": "0.5"
    }  # fmt: skip
    assert (second["iteration"], second["accuracy/exam"], second["accuracy/exam/before"]) == ("1", "0.75", "")


def test_tensorboard_reads_the_event_files_while_they_are_added(run, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = tmp_path / "events"
    assert write_tensorboard(run, folder, 0) == 1
    first = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(first) == 1 and write_tensorboard(run, folder) == 2 and len(list(folder.iterdir())) == 2
    assert all(path.stat().st_mtime_ns == time for path, time in first.items())  # one that is there stays
    follow(run, 1)
    assert [path.name for path in (run / "tensorboard").iterdir()] == [max(path.name for path in folder.iterdir())]
    events = accumulator.EventAccumulator(str(folder)).Reload()
    assert {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]} == EXPECTED


@pytest.mark.others
def test_wandb_has_an_offline_run(run, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    out = tmp_path / "out"
    assert main([str(run), "--what", "metrics", "--format", "wandb", "--out", str(out)]) == 0
    (offline,) = (out / "wandb").glob("offline-run-*/run-*.wandb")
    content = offline.read_bytes()
    assert all(tag.encode() in content for tag in EXPECTED)


@pytest.mark.parametrize(
    ("form", "missing"), [("tensorboard", "tensorboard.compat.proto.event_pb2"), ("wandb", "wandb")]
)
def test_a_package_that_is_missing_is_named_with_the_way_to_get_it(run, tmp_path, monkeypatch, capsys, form, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    out = tmp_path / "out"
    assert main([str(run), "--what", "metrics", "--format", form, "--out", str(out)]) == 2
    assert f"pip install 'hpc_saidpo[{form}]'" in capsys.readouterr().err and not out.exists()


def test_what_can_be_mended_is_one_message(run, tmp_path, capsys):
    (tmp_path / "new").mkdir()
    with pytest.raises(RunError, match="has no finished iteration, so there are no metrics"):
        list(read_scalars(tmp_path / "new"))
    with pytest.raises(RunError, match="has no finished iteration 7"):
        list(read_scalars(run, 7))
    assert main([str(run), "--what", "metrics", "--format", "parquet"]) == 2
    assert "--what metrics has the formats csv, tensorboard, wandb, not parquet" in capsys.readouterr().err
    assert main([str(run), "--what", "pairs", "--format", "csv"]) == 2
    (run / "metrics.jsonl").write_text("3\n")
    with pytest.raises(RunError, match="has a line that is no record of an iteration"):
        list(read_scalars(run))
