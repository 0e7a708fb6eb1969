"""Failure signatures, each provoked in a real run of the micro model, and what a run does that shows one."""

import json

import hydra
import pytest

from hpc_saidpo.cli.compose import build
from hpc_saidpo.cli.loop import run_to_end
from hpc_saidpo.errors import RunError
from hpc_saidpo.parallel.world import World
from hpc_saidpo.records import Outcome
from hpc_saidpo.report.writer import Writer
from hpc_saidpo.settings.keys import conf_folder
from hpc_saidpo.store.run import RunDir

TINY = (
    "experiment=tiny", "loop.iterations=1", "pool.n=240", "pool.held_out=60", "clusters.n=6", "probe.fraction=0.25",
    "sampler.n_questions=40", "rollouts.k=4", "dpo.batch_pairs=8", "evaluate.benchmarks=[]",
)  # fmt: skip
CLEAN = ("probe.fraction=1", "sampler.alpha=1")
HARD, EASY = "pool.shares={hard: 0.96, trained: 0.04, small: 0}", "pool.shares={hard: 0, trained: 0, small: 1}"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """One folder of runs: embeddings are made once."""
    return tmp_path_factory.mktemp("runs")


def run(root, name, *overrides) -> Outcome:
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
        composed = hydra.compose("config", overrides=[*TINY, f"run.root={root}", f"run.name={name}", *overrides])
    config, plain = build(composed)
    with RunDir.open(config.run, plain, {}, World(), lambda words: None) as store:
        return run_to_end(config, store, Writer(store, plain))


def shown(outcome) -> list[str]:
    return outcome.iterations[-1]["signatures"]


def test_a_run_as_it_should_be_shows_none(root):
    assert shown(run(root, "clean", *CLEAN)) == []


@pytest.mark.parametrize(
    "name, overrides, signature, remedy",
    [
        ("trivial", (EASY, "sampler.rule=uniform", "sampler.n_questions=100"), "collapse: the explored", "harder pool"),
        ("one_cluster", ("sampler.alpha=30", "sampler.n_questions=12"), "collapse: one cluster takes", "sampler.alpha"),
        ("fall", ("evaluate.benchmarks=[held_out]", "dpo.lr=0.1"), "collapse: held_out fell", "dpo.lr"),
        ("uniform", ("sampler.rule=error", "sampler.kappa=1e6"), "stagnation: the weights are", "sampler.alpha"),
        ("small_probe", ("probe.fraction=0.02",), "stagnation: 5.0 questions tried", "probe.fraction"),
        ("noisy_probe", (EASY,), "stagnation: the clusters' error rates differ no more", "rollouts.k"),
        ("too_hard", (HARD, "sampler.rule=uniform", "sampler.n_questions=160"), "depletion: 2.", "easier pool"),
    ],
)  # fmt: skip
def test_each_is_provoked(root, name, overrides, signature, remedy):
    found = [text for text in shown(run(root, name, *overrides)) if text.startswith(signature)]
    assert len(found) == 1 and remedy in found[0].split(";", 1)[1]


def test_a_run_stops_at_one_and_continues_on_request(root):
    again = (*CLEAN, "sampler.rule=error", "sampler.kappa=1e6", "loop.iterations=3", "loop.on_signature=stop")
    lines = root / "stops" / "metrics.jsonl"
    for _ in range(2):  # started again, it stops again, and does nothing anew
        outcome = run(root, "stops", *again)
        assert len(outcome.iterations) == 1 and "after iteration 0, which is complete" in outcome.stopped
        assert "stagnation: the weights are" in outcome.stopped and "loop.on_signature=warn" in outcome.stopped
        assert outcome.policy_path == str(root / "stops" / "iter-000" / "policy" / "model")
        assert len(lines.read_text().splitlines()) == 1 and not (root / "stops" / "iter-001").exists()
    changed = (*again, "sampler.kappa=4", "run.accept_changes=true")
    with pytest.raises(RunError, match=r"sampler\.kappa: 1000000\.0 in the run, 4 now"):
        run(root, "stops", *changed[:-1])
    first = json.loads(lines.read_text().splitlines()[0])
    outcome = run(root, "stops", *changed)
    assert outcome.stopped == "" and [r["iteration"] for r in outcome.iterations] == [0, 1, 2]
    assert outcome.iterations[0] == first  # what it was then, not what it would be now


def test_a_warning_is_not_held_against_a_run_that_went_on(root):
    overrides = (*CLEAN, "sampler.rule=error", "sampler.kappa=1e6")
    assert run(root, "warns", *overrides, "loop.iterations=2").stopped == ""
    outcome = run(root, "warns", *overrides, "loop.iterations=3", "loop.on_signature=stop")
    assert "after iteration 1" in outcome.stopped and len(outcome.iterations) == 2
    assert run(root, "warns", *overrides, "loop.iterations=3").stopped == ""
