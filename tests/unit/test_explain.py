"""Explanations of each kind of question, in a run that is written without a model."""

import dataclasses
import shutil

import numpy as np
import pytest
import yaml
from support.make import make_prompts, make_rollouts

from hpc_saidpo import difficulty, settings
from hpc_saidpo.cli import compose
from hpc_saidpo.cli.explain import main
from hpc_saidpo.dpo import pairs
from hpc_saidpo.errors import RunError
from hpc_saidpo.records import CORRECT, UNGRADABLE, WRONG, Draw, Rollouts
from hpc_saidpo.report.explain import explain
from hpc_saidpo.sampler.evidence import describe_clusters, describe_questions
from hpc_saidpo.sampler.history import History, excluded
from hpc_saidpo.sampler.inclusion import inclusion
from hpc_saidpo.sampler.weights import Plan, log_cluster_weights, log_weights, shown
from hpc_saidpo.store.stage import Stage

CLUSTER = np.repeat([0, 1], [8, 4])
C, W, U = CORRECT, WRONG, UNGRADABLE
# question -> verdicts, whether its responses are finished, whether all texts are the same
PROBED = {0: (C, W, W, W), 3: (C, C, W, C), 7: (W, W, W, W), 9: (W, C, W, W)}
EXPLORED = {1: (C, W, C, W), 2: (W, W, W, W), 4: (C, C, C, C), 5: (U, U, U, U), 6: (C, W, W, W), 8: (C, C, W, W)}
TRUNCATED, DRAWN = 6, (8, 0, 1, 2, 4, 5, 6)


def rollouts_of(verdicts) -> Rollouts:
    return make_rollouts(
        [(q, k, v, 5 + q, 2, q != TRUNCATED, f"{q} {k}") for q, of_q in verdicts.items() for k, v in enumerate(of_q)]
    )


def write(stage: Stage, **tables):
    stage.prepare()
    for name, table in tables.items():
        stage.write_chunk(0, table) if isinstance(table, Rollouts) else stage.write(name, table)
    stage.mark_done()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    config = compose.from_overrides(
        ["experiment=tiny", "sampler.rule=frontier", "sampler.exclude_iterations=1", "pairs.budget=2"]
    )
    path.mkdir()
    plain = {"run": {"seed": 0}, "rollouts": {"k": 4}, "pairs": {"budget": 2}}
    plain["sampler"] = dataclasses.asdict(config.sampler)
    plain["difficulty"] = {"order": ["pass_rate", "steps", "tokens"], "too_hard": 0.0, "too_easy": 1.0}
    (path / "config.yaml").write_text(yaml.safe_dump(plain))

    def stage(name):
        return Stage(path / "iter-001" / name, {"iteration": 1, "stage": name})

    probed, explored = rollouts_of(PROBED), rollouts_of(EXPLORED)
    history = History.empty(len(CLUSTER), 2).note_drawn(0, np.array([3]))
    for t, table in ((0, rollouts_of({0: (C, C, C, C)})), (1, probed)):
        seen = difficulty.measure(table)
        history = history.discounted(0.5).observe(t, seen, CLUSTER, config.difficulty)
    plan = Plan(config.sampler, 4)
    weight_N = shown(log_weights(history, CLUSTER, 1, plan))
    weight_C = shown(log_cluster_weights(history.counts, plan))
    question_Q = np.array(DRAWN)
    write(
        stage("draw"),
        draw=Draw(question_Q, weight_N[question_Q], CLUSTER[question_Q]),
        history=describe_questions(history, CLUSTER, weight_N),
        clusters=describe_clusters(history.counts, CLUSTER, weight_C),
    )
    write(stage("probe"), rollouts=probed)
    write(stage("explore"), rollouts=explored)
    both = Rollouts.concat([explored, probed.take(np.flatnonzero(np.isin(probed.question_R, question_Q)))]).sorted()
    hard = difficulty.measure(both)
    usable = np.flatnonzero(difficulty.in_band(hard, config.difficulty))
    order = difficulty.hardest_first(hard, config.difficulty, np.random.default_rng(0))
    hardest = hard.take([i for i in order if i in usable])
    prompts = make_prompts(hardest.question_Q)
    write(stage("pairs"), pairs=pairs.select(both, hardest, CLUSTER, prompts, config.pairs, 0, 1))
    return path, weight_N, history


def explained(run, question):
    return dict(explain(run[0], 1, f"q{question}"))


@pytest.mark.parametrize(
    "question, why",
    [
        (2, "none: too hard: no response is correct"),
        (4, "none: too easy: every response is correct"),
        (5, "none: no response could be graded"),
        (6, "none: every correct response is truncated"),
        (7, "none: it was probed, not explored"),
        (1, "none: harder questions took all of pairs.budget=2"),
        (0, "1 made: sample 0 over sample "),
    ],
)
def test_what_came_of_a_question(run, question, why):
    assert explained(run, question)["pair"].startswith(why)


def test_questions_behind_a_spent_budget_were_drawn_and_not_explored(run, tmp_path):
    shutil.copytree(run[0], tmp_path / "run")
    draw = Stage(tmp_path / "run" / "iter-001" / "draw", {"iteration": 1, "stage": "draw"})
    question_Q = np.array([*DRAWN, 11, 9])  # nobody rolled out 11; the probe rolled out 9
    (draw.path / "DONE").unlink()
    write(draw, draw=Draw(question_Q, run[1][question_Q], CLUSTER[question_Q]))
    about = dict(explain(tmp_path / "run", 1, "q9"))
    assert about["draw"] == "drawn as number 9 of 9, not explored: sampler.budget was spent after number 7"
    assert about["pair"] == "none: it was probed, not explored" and "explored, hardest" not in about["difficulty"]
    assert dict(explain(tmp_path / "run", 1, "q8"))["pair"] == explained(run, 8)["pair"]


def test_the_draw_is_explained(run):
    assert (
        explained(run, 8)["draw"] == "drawn as number 1 of 7" and explained(run, 1)["draw"] == "drawn as number 3 of 7"
    )
    assert explained(run, 9)["draw"] == "not drawn"
    assert explained(run, 3)["draw"] == "not drawn: excluded by sampler.exclude_iterations=1"
    assert explained(run, 3)["chance"].startswith("0.00%")
    assert explained(run, 0)["difficulty"].endswith("number 3 of 6 explored, hardest first")  # after q2, and q6: longer
    assert "explored" not in explained(run, 7)["difficulty"]


def test_history_and_cluster_are_explained(run):
    assert explained(run, 0)["history"] == "last 1 of 4 correct in iteration 1; never drawn"
    assert explained(run, 3)["history"] == "last 3 of 4 correct in iteration 1; last drawn in iteration 0"
    assert explained(run, 1)["history"] == "never rolled out or drawn before the draw"
    assert explained(run, 1)["cluster"] == "0: 8 of 12 questions"
    assert explained(run, 1)["evidence"].startswith("2.50 questions tried")
    assert explained(run, 5)["rollouts"] == "4: 0 correct, 0 wrong, 4 ungradable; 0 truncated"


def test_the_chances_are_those_of_the_whole_pool(run):
    _, weight_N, history = run
    config = settings.Sampler(exclude_iterations=1)
    allowed_N = np.where(excluded(history, 1, config), 0.0, weight_N)
    chance_N = inclusion(allowed_N, np.ones(12), 7)
    assert chance_N.sum() == pytest.approx(7)
    for question in (0, 1, 3, 7, 8, 9):
        assert explained(run, question)["chance"].startswith(f"{chance_N[question]:.2%}")
        assert explained(run, question)["weight"].startswith(f"{weight_N[question]:.4g};")


def test_the_verb_prints_it_or_says_what_is_wrong(run, capsys):
    assert main([str(run[0]), "--iteration", "1", "--question", "q8"]) == 0
    assert "drawn as number 1 of 7" in capsys.readouterr().out
    assert main([str(run[0]), "--iteration", "0", "--question", "q8"]) == 2
    assert "iter-000 has no finished draw" in capsys.readouterr().err
    with pytest.raises(RunError, match="no question with the id 'q11' was probed or explored in iteration 1"):
        explain(run[0], 1, "q11")


@pytest.fixture
def changed(run, tmp_path):
    """A copy of the run with other values in its configuration, by group."""

    def change(**groups):
        copy = shutil.copytree(run[0], tmp_path / "copy")
        plain = yaml.safe_load((copy / "config.yaml").read_text())
        (copy / "config.yaml").write_text(yaml.safe_dump({**plain, **groups}))
        return copy

    return change


def test_the_rule_of_someone_elses_run_is_imported_on_request_only(run, changed, tmp_path, monkeypatch, capsys):
    """The folder that a person is in may be someone else's, too."""
    (tmp_path / "evil_rules.py").write_text(f"open({str(tmp_path / 'was-run')!r}, 'w')\nrule = None\n")
    monkeypatch.syspath_prepend(tmp_path)
    sampler = yaml.safe_load((run[0] / "config.yaml").read_text())["sampler"]
    path = str(changed(sampler={**sampler, "rule": "evil_rules:rule"}))
    words = [path, "--iteration", "1", "--question", "q1"]
    assert main(words) == 0 and "evil_rules:rule is a rule of another module" in capsys.readouterr().out
    assert not (tmp_path / "was-run").exists()
    assert main([*words, "--import-rule"]) == 2 and (tmp_path / "was-run").exists()


@pytest.mark.parametrize(
    "groups",
    [{"sampler": {}}, {"sampler": 1}, {"run": {"seed": "x"}}, {"rollouts": {"k": []}}, {"difficulty": [1]}],
    ids=str,
)
def test_a_configuration_with_other_values_is_refused_in_words(changed, groups, capsys):
    path = str(changed(**groups))
    assert main([path, "--iteration", "1", "--question", "q1"]) == 2
    assert "config.yaml is no configuration of a run" in capsys.readouterr().err
