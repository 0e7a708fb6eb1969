"""Old policies are removed, but for those that something still needs."""

import json

import pytest
import yaml
from support.mini_run import RESOLVED

from hpc_saidpo import settings
from hpc_saidpo.parallel.world import World
from hpc_saidpo.store.check import check
from hpc_saidpo.store.compare import compare
from hpc_saidpo.store.retention import best
from hpc_saidpo.store.run import RunDir


def iterate(folder, accuracies, keep="all", name="run"):
    """Do the iterations of a run, or resume it, as the loop does. Return the iterations that still have a policy."""
    with RunDir.open(settings.Run(root=str(folder), name=name), RESOLVED, {"started": "now"}, World()) as run:
        for t, accuracy in enumerate(accuracies):
            run.stage(t, "policy", train, lambda stage: stage.read_json("steps"))
            scores = {} if accuracy is None else {"gsm8k": {"accuracy": accuracy}, "held_out": {"accuracy": None}}
            run.finish_iteration(t, {"iteration": t, "signatures": [], "scores": scores})
            if not run.has_finished(t + 1):
                run.remove_policies(keep)
    return [int(p.parts[-3][-3:]) for p in sorted((folder / name).glob("iter-*/policy/model"))]


def train(stage):
    stage.write_folder("model", lambda inside: (inside / "config.json").write_text("{}"))
    stage.write_json("steps", [1])


@pytest.mark.parametrize(
    ("keep", "accuracies", "left"),
    [
        ("all", [0.1, 0.2, 0.1], [0, 1, 2]),
        ("last", [0.1, 0.2, 0.1], [2]),
        ("best", [0.1, 0.2, 0.1], [1, 2]),
        ("best", [0.1, 0.1, 0.2], [2]),
        ("best", [None, 0.1, None], [1, 2]),
        ("best", [None, None, None], [2]),
    ],
)
def test_which_policies_are_kept(folder, keep, accuracies, left):
    assert iterate(folder, accuracies, keep) == left
    assert iterate(folder, accuracies, keep) == left  # a restart needs none of the others
    assert iterate(folder, [*accuracies, 0.0], "all") == [*left, 3]  # and the run can go on
    assert not check(folder / "run").findings


def test_of_equally_good_policies_the_latest_is_the_best(folder):
    iterate(folder, [0.2, 0.2, 0.1])
    assert best([(t, folder / "run" / f"iter-{t:03d}") for t in range(3)]) == 1


@pytest.mark.parametrize("config", [{"policy": {"path": "{}"}}, {"policy": {"path": "-"}, "tags": {"model": "{}"}}])
def test_a_policy_that_another_run_names_is_kept(folder, monkeypatch, config):
    """By an absolute or relative path."""
    iterate(folder, [0.1, 0.2, 0.3])
    monkeypatch.chdir(folder)
    for other, place in (
        ("other", folder / "run/iter-000/policy/model"),
        ("third", "run/../run/iter-001/policy/model"),
    ):
        (folder / other).mkdir()
        text = yaml.safe_dump(config).replace("{}", str(place))
        (folder / other / "config.yaml").write_text(text)
    assert iterate(folder, [0.1, 0.2, 0.3], "last") == [0, 1, 2]
    (folder / "other" / "config.yaml").unlink()
    assert iterate(folder, [0.1, 0.2, 0.3], "last") == [1, 2]


def test_an_unreadable_configuration_that_may_name_the_policy_keeps_it(folder):
    iterate(folder, [0.1, 0.2])
    (folder / "other").mkdir()
    (folder / "other" / "config.yaml").write_text("policy: {path: run")
    assert iterate(folder, [0.1, 0.2], "last") == [0, 1]


def test_a_removal_that_was_cut_off_is_finished_and_is_no_damage(folder, monkeypatch):
    iterate(folder, [0.1, 0.2])
    with monkeypatch.context() as cut:
        cut.setattr("hpc_saidpo.store.files.remove_folder", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            iterate(folder, [0.1, 0.2], "last")
    assert not check(folder / "run").findings
    assert iterate(folder, [0.1, 0.2], "last") == [1]
    other = json.loads((folder / "run/iter-000/policy/steps.json").read_text())
    assert other == [1] and not check(folder / "run").findings


def test_a_missing_policy_that_was_not_removed_is_damage(folder):
    iterate(folder, [0.1, 0.2], "last")
    (folder / "run/iter-001/policy/model/config.json").unlink()
    assert [f.problem for f in check(folder / "run").findings] == ["is missing"]


def test_a_run_without_its_old_policies_is_compared_by_all_the_rest(folder):
    iterate(folder, [0.1, 0.2], name="whole")
    iterate(folder, [0.1, 0.2], "last")
    assert not compare(folder / "run", folder / "whole").notes
