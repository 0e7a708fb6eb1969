"""The preparation of a run, in this process: refusals before anything is generated."""

import json

import hydra
import pytest
from support.make import MICRO

from hpc_saidpo.cli.compose import build
from hpc_saidpo.errors import RunError
from hpc_saidpo.parallel.world import World
from hpc_saidpo.prepare import prepare_run
from hpc_saidpo.settings.keys import conf_folder
from hpc_saidpo.store.run import RunDir

LONG = "1 + " * 120 + "1"  # over 256 tokens of the micro model


def prepared(folder, *overrides):
    words = [
        "experiment=tiny", "pool=jsonl", f"pool.path={folder}/pool.jsonl", f"policy.path={MICRO}", "clusters.n=1",
        "pool.held_out=0", "evaluate.benchmarks=[]", f"run.root={folder}", "run.name=a", *overrides,
    ]  # fmt: skip
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
        settings, plain = build(hydra.compose("config", overrides=words))
    with RunDir.open(settings.run, plain, {}, World(), lambda words: None) as run:
        return prepare_run(settings, run)


@pytest.fixture
def folder(tmp_path):
    """A pool of 20 questions that fit the policy, and 10 that are too long for it."""
    texts = [*(f"{i} + {i}" for i in range(20)), *(f"{LONG} + {i}" for i in range(10))]
    rows = [{"id": f"q{i}", "question": text, "answer": str(total(text))} for i, text in enumerate(texts)]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def total(text):
    return sum(map(int, text.split(" + ")))


def test_too_long_questions_do_not_count_as_questions_that_may_be_drawn(folder):
    with pytest.raises(RunError, match="needs 21 questions that may be drawn, but has 20: lower"):
        prepared(folder, "sampler.n_questions=21")
    found = prepared(folder, "sampler.n_questions=20")
    assert len(found.pool.questions) == 30 and [int(q) for q in found.pool.too_long] == [*range(20, 30)]
    assert found.clustered.cluster_N.tolist() == [0] * 30 and found.clustered.health["n_clusters"] == 1


def test_questions_of_several_iterations_are_counted(folder):
    with pytest.raises(RunError, match="needs 62 questions that may be drawn, but has 30"):
        prepared(folder, "sampler.n_questions=31", "sampler.exclude_iterations=1")
