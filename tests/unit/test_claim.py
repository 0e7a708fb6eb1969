"""The plan, the kept trials and the figures of tools/bench/bench_claim.py, without a trial."""

import argparse
import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hpc_saidpo import settings
from hpc_saidpo.pool import generated

BENCH = Path(__file__).parents[2] / "tools" / "bench"


@pytest.fixture
def parts(monkeypatch):
    """Its modules: plan, trials, figures, words."""
    monkeypatch.syspath_prepend(str(BENCH))
    names = ("claim_plan", "claim_trials", "claim_figures", "claim_words")
    yield [importlib.import_module(name) for name in names]
    for name in names:
        sys.modules.pop(name, None)


def gain_of(trial):
    """What a pretended trial gains: lr 1e-4 is best for IDPO, 3e-4 for the others; more so on later seeds."""
    best = 1e-4 if trial.system == "IDPO" else 3e-4
    return (trial.training.lr == best) + 0.1 * trial.training.epochs + 0.001 * trial.training.batch_pairs


def test_tuning_halves_the_choices_and_looks_at_no_reporting_seed(parts):
    plan_, trials, *_ = parts
    made = {}
    plan = plan_.Plan(made.__getitem__, trials.Setup(), 10)
    sizes = []
    while todo := [trial for trial in dict.fromkeys(plan.tuning()) if trial not in made]:
        with pytest.raises(plan_.Unfinished):
            plan.headlines()
        sizes.append(len(todo))
        made |= {trial: gain_of(trial) for trial in todo}
    assert sizes == [2 * (3 * 12 + 4 * 8), 14 * 4, 14 * 2]  # three systems on two pools, four with fewer learning rates
    assert {trial.seed for trial in made} == {100, 101, 102}
    best = trials.Training(3e-4, 4, 32)
    assert plan.best("85/10/5", "ours") == best == plan.best("10/50/40", "published")
    assert plan.best("85/10/5", "IDPO").lr == 1e-4
    reported = [*plan.headlines(), *plan.rules(), *plan.clusters((24, 50))]
    assert {trial.seed for trial in reported} == set(range(10))
    assert all(trial.training == best for trial in reported if trial.system in ("ours", "published", *plan_.RULES))
    assert plan.best("85/10/5", plan_.SIMILAR) == trials.Training(3e-5, 4, 32)  # 1e-4 is as good, 3e-4 not tried
    assert {trial.seed for trial in plan.forms()} == {100, 101, 102}


def test_a_plan_with_one_choice_needs_no_tuning(parts):
    plan_, trials, *_ = parts
    one, pools = trials.Training(1e-4, 1, 8), ("85/10/5 small", "10/50/40 small")
    plan = plan_.Plan({}.__getitem__, trials.Setup(), 1, (one,), (1,), pools, "70/15/15 small", beside=())
    assert list(plan.tuning()) == [] and {trial.seed for trial in plan.headlines()} == {0}
    assert {trial.pool for trial in plan.clusters((24,))} == {pools[0]}


def test_on_the_third_pool_rules_have_the_training_settings_of_the_first(parts):
    plan_, trials, *_ = parts
    low, high = trials.Training(3e-5, 1, 8), trials.Training(1e-4, 1, 8)

    def gain(trial):  # high is best for IDPO on the first pool, and for the others on the second
        return float((trial.training == high) == ((trial.system == "IDPO") == (trial.pool == "85/10/5")))

    plan = plan_.Plan(gain, trials.Setup(), 1, (low, high), (2,))
    rules = plan.rules()
    assert len(rules) == 3 * (2 + len(plan_.RULES))
    of = {(trial.pool, trial.system == "IDPO"): set() for trial in rules}
    for trial in rules:
        of[trial.pool, trial.system == "IDPO"].add(trial.training)
    assert of == {
        ("85/10/5", True): {high}, ("85/10/5", False): {low}, ("10/50/40", True): {low},
        ("10/50/40", False): {high}, ("70/15/15", True): {high}, ("70/15/15", False): {low},
    }  # fmt: skip


def test_a_trial_of_other_code_or_settings_has_another_file(parts, monkeypatch, tmp_path):
    plan_, trials, *_ = parts
    trial = plan_.Plan({}.__getitem__, trials.Setup(), 1).trial("85/10/5", "ours", 3, trials.Training(1e-4, 1, 8))
    monkeypatch.setattr(trials, "RESULTS", tmp_path)
    assert trials.missing([trial, trial]) == [trial] and trial.load() is None
    trial.keep([{"accuracy": 1 / 3, "tokens": 7}], 2.0)
    assert trials.missing([trial]) == [] and trial.load() == [{"accuracy": 0.33333, "tokens": 7}]
    name = trial.path.name
    monkeypatch.setattr(trials, "code_hash", lambda: "other code")
    assert trial.path.name != name and trials.missing([trial]) == [trial]
    monkeypatch.undo()
    same = replace(trial, system="another name", experiment="frontier_error", overrides=("sampler.temper=false",))
    other = replace(trial, overrides=("sampler.temper=true",))
    assert same.path == trial.path != other.path  # the settings count, however they were written


def test_comments_and_docstrings_do_not_change_the_hash_of_code(parts):
    _, trials, *_ = parts
    one = 'def f(x):\n    """Add one."""\n    return x + 1  # more\n'
    assert trials.meaning_of(one) == trials.meaning_of("# Other words.\ndef f(x):\n    return (x + 1)\n")
    assert trials.meaning_of(one) != trials.meaning_of(one.replace("x + 1", "x + 2"))
    assert trials.meaning_of('X = """not a docstring"""') != trials.meaning_of('X = ""')
    # File names depend on this text. It must not change with the version of Python.
    assert trials.meaning_of("def f(x):\n    return f'{x:{3}}'") == (
        "Module(body=[FunctionDef(name='f',args=arguments(args=[arg(arg='x')]),body=[Return(value=JoinedStr(values=["
        "FormattedValue(value=Name(id='x',ctx=Load()),conversion=-1,format_spec=JoinedStr(values=[FormattedValue("
        "value=Constant(value=3),conversion=-1)]))]))])])"
    )


@pytest.mark.parametrize("content", ["", '{"trial": {', "[]", '{"trial": 1}', "half"])
def test_a_damaged_file_of_a_trial_is_named(parts, monkeypatch, tmp_path, content):
    plan_, trials, *_ = parts
    monkeypatch.setattr(trials, "RESULTS", tmp_path)
    trial = plan_.Plan({}.__getitem__, trials.Setup(), 1).trial("85/10/5", "ours", 3, trials.Training(1e-4, 1, 8))
    trial.keep([{"accuracy": 0.3}, {"tokens": 5}], 1.0)  # half: a record without its accuracy
    if content != "half":
        trial.path.write_text(content)
    with pytest.raises(SystemExit, match=f"{trial.path.name} is damaged .*: restore it"):
        trial.load()


def test_the_share_of_tokens_is_read_off_the_mean_curves(parts):
    *_, figures, _ = parts

    def runs(*curves):
        return figures.Figures.of([
            [{"accuracy": value, "worst_topic": 0.0, "tokens": 100 * (i > 0), "usable": 1, "explored": 2, "distinct": 2}
             for i, value in enumerate(curve)] for curve in curves])  # fmt: skip

    slow = runs((0.30, 0.32, 0.34, 0.36), (0.30, 0.32, 0.34, 0.40))  # ends at 38 % after 300 tokens
    fast = runs((0.30, 0.36, 0.40, 0.41), (0.30, 0.36, 0.40, 0.43))  # 38 % half-way between 100 and 200 tokens
    share, low, high = figures.tokens_share(fast, slow)
    assert share == pytest.approx(0.5)
    assert (low, high) == pytest.approx((1 / 3, 2 / 3))  # of two seeds, what each of them shows alone
    assert figures.tokens_share(slow, fast)[0] == float("inf")
    assert figures.tokens_share(slow, slow)[0] == pytest.approx(1.0)
    assert (fast.gain - slow.gain).tolist() == pytest.approx([5.0, 3.0])
    mean, low, high = figures.interval(np.array([5.0, 3.0]))
    assert (mean, high - mean) == (4.0, pytest.approx(12.706, abs=0.001))


def test_a_table_compares_gains_seed_by_seed_with_each_baseline(parts, capsys):
    *_, figures, _ = parts

    def runs(*gains):
        return figures.Figures.of([
            [{"accuracy": value, "worst_topic": 0.0, "tokens": 100 * i, "usable": 1, "explored": 2, "distinct": 2}
             for i, value in enumerate((0.3, 0.3 + gain))] for gain in gains])  # fmt: skip

    table = {"IDPO": runs(0.02, 0.04), "IDPO, no probe": runs(0.03, 0.03), "ours": runs(0.05, 0.07)}
    figures.show("pool x", table, ["IDPO", "IDPO, no probe"])
    title, _, heads, _, idpo, _, ours = capsys.readouterr().out.strip().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (heads, idpo, ours)]
    assert title.startswith("pool x") and cells[0][:4] == ["system", "gain", "minus IDPO", "minus IDPO, no probe"]
    assert cells[1][2:4] == ["", "0.0 ± 12.7"] and cells[2][1:4] == ["6.0 ± 12.7", "3.0 ± 0.0", "3.0 ± 12.7"]
    figures.show("clusters", {"ours, 24 clusters": runs(0.02), "ours, 50 clusters": runs(0.03)})
    *_, heads, _, one, other = capsys.readouterr().out.strip().splitlines()
    assert "minus the first row" in heads and "tokens to that of the first row" in heads
    assert [line.split("|")[3].strip() for line in (one, other)] == ["", "1.0"]
    figures.show_pairs("x", table, [("ours", "IDPO"), ("ours", "gone")])
    *_, pair = capsys.readouterr().out.strip().splitlines()
    assert [cell.strip() for cell in pair.strip("|").split("|")] == ["ours − IDPO", "3.0 (3.0 to 3.0)", "", "1.00"]
    figures.show_spent("x", table, "IDPO", 200)  # 100 tokens were generated
    *_, idpo, _, ours = capsys.readouterr().out.strip().splitlines()
    assert [line.split("|")[2:4] for line in (idpo, ours)] == [[f" 1.00{' ' * 37}", " 50 %        "]] * 2
    mean = figures.Figures.mean_of([runs(0.02, 0.04), runs(0.06, 0.02)])
    assert mean.gain == pytest.approx([4.0, 3.0]) and mean.accuracy.shape == (2, 2) and mean.everywhere is None


def test_figures_for_which_json_has_no_word_are_written_as_null(tmp_path, monkeypatch):
    def no_constants(name):
        raise AssertionError(name)

    monkeypatch.syspath_prepend(str(BENCH))
    common = importlib.import_module("common")
    arguments = argparse.Namespace(quick=True, record=False, json=tmp_path / "figures.json")
    common.write_figures({"share": float("inf"), "low95": float("nan"), "points": 2.5, "rule": "error"}, arguments)
    written = json.loads(arguments.json.read_text(), parse_constant=no_constants)
    assert written == {"share": None, "low95": None, "points": 2.5, "rule": "error"}
    for name in ("common", "kept"):
        sys.modules.pop(name)


def test_most_texts_of_knowledge_points_are_distinct(parts):
    words = parts[3]
    assert set(words.SPAN) == {"hard", "trained", "small"} and len(words.TOPIC) == 8

    class Asked:
        subject, level = "addition", "hard"

    texts = words.knowledge_points([Asked()] * 1000, 0)
    assert len(set(texts)) > 900 and words.knowledge_points([Asked()] * 1000, 1) != texts


def test_settings_that_are_off_leave_a_trial_what_it_is_and_a_kernel_does_not(parts):
    _, trials, *_ = parts
    plain = trials.settings_text("", ())
    assert trials.settings_text("", ("clusters.kind=kmeans", "clusters.neighbours=7")) == plain
    for used in ("sampler.exclude_iterations=3", "dpo.lora.rank=8", "rollouts.generate.linears=bfloat16"):
        assert trials.settings_text("", (used,)) != plain
    kernel = trials.settings_text("", (trials.KERNEL,))
    assert len({plain, kernel, trials.settings_text("", (trials.KERNEL, "clusters.neighbours=7"))}) == 3


@pytest.mark.parametrize("seed", [0, 1, 2, 100])
def test_held_out_questions_of_the_real_model_are_in_no_pool_of_it(parts, tmp_path, seed):
    plan, trials, *_ = parts
    smollm2 = importlib.import_module("claim_smollm2")
    trial = trials.Trial(trials.SMOLLM2, "x", "", seed, plan.REAL_GRID[0], setup=smollm2.SETUP)
    smollm2.write_held_out(tmp_path, trial)
    held_out = [json.loads(line) for path in tmp_path.iterdir() for line in path.read_text().splitlines()]
    pool = generated.make(settings.ReasoningGym(settings=tuple(smollm2.tasks()), seed=seed)).questions
    asked = {generated.expression(question.text) or question.text for question in pool}
    assert len(pool) == 4000 and len(held_out) == smollm2.SETUP.held_out and len({r["id"] for r in held_out}) == 200
    assert not asked & {generated.expression(row["question"]) or row["question"] for row in held_out}
    sys.modules.pop("claim_smollm2")


def test_trials_of_every_system_are_made_again_and_compared(parts, monkeypatch, tmp_path, capsys):
    _, trials, *_ = parts
    again = importlib.import_module("claim_again")
    monkeypatch.setattr(again, "records_of", lambda trial: [{"accuracy": 0.5}, {"accuracy": 0.123456, "tokens": 7}])
    monkeypatch.setattr(trials, "RESULTS", tmp_path)
    made = [
        trials.Trial("85/10/5", system, experiment, seed, trials.Training(1e-4, 1, 8), trials.Setup())
        for system, experiment in (("a", ""), ("b", "saidpo"))
        for seed in range(5)
    ]
    for i, trial in enumerate(made):
        trial.keep([{"accuracy": 0.5}, {"accuracy": 0.12346 + (i >= 5) / 1e5, "tokens": 7}][: 2 - (i == 9)], 1.0)
    kept = again.read_all()
    assert sorted(kept, key=lambda one: made.index(one.trial))[3].trial == made[3]
    assert {one.trial.system for one in again.choose(kept, 2)} == {"a", "b"} and len(again.choose(kept, 99)) == 10
    differs = {one.trial: again.difference(one) for one in kept}
    assert [differs[trial] for trial in (made[0], made[5], made[9])] == [
        "", "differs in accuracy; -37.65 points then, -37.65 now", "2 records, there were 1",
    ]  # fmt: skip
    # The code of a checkout made another trial: that is what counts, not the kept one.
    other = next(one for one in kept if one.trial == made[5])
    (tmp_path / "bench_claim.py").write_text(
        "def records_of(t): return [{'accuracy': 0.5}, {'accuracy': t.seed, 'tokens': 7}]"
    )
    monkeypatch.setattr(again, "MAKE", f"import sys; sys.path.insert(0, {str(tmp_path)!r})" + again.MAKE)
    assert "-50.00 points then, -37.65 now" in again.difference(other, BENCH.parents[1])
    (tmp_path / "bench_claim.py").unlink()
    # Under other code, the trials of the system of which nothing differs get new names.
    monkeypatch.setattr(trials, "code_hash", lambda: "other code")
    assert trials.missing(made) == made
    again.adopt(kept, {"a": [], "b": ["differs"]})
    assert trials.missing(made) == made[5:] and len(list(tmp_path.iterdir())) == 10
    assert [one.trial.system for one in again.read_all() if one.is_current] == ["a"] * 5
    # Trials of the real model keep their names where code of theirs changed; the same trial is not lost.
    real = replace(made[0], pool=trials.SMOLLM2)
    real.keep([{"accuracy": 0.5}] * 2, 1.0)
    (of_real,) = [one for one in again.read_all() if one.trial == real]
    monkeypatch.setattr(trials, "code_hash", lambda: "more code")
    again.adopt([replace(of_real, more="other")], {"a": []})
    assert of_real.path.exists() and not real.path.exists()
    again.adopt([of_real], {"a": []})
    assert not of_real.path.exists() and real.load() == [{"accuracy": 0.5}] * 2
    earlier = replace(of_real, path=of_real.path, records=[{"accuracy": 0.4}] * 2)
    trials.write(earlier.path, trials.read(real.path))
    again.adopt([earlier], {"a": []})
    assert earlier.path.exists() and "the same trial, has other records" in capsys.readouterr().out
    for name in ("claim_again", "bench_claim"):
        sys.modules.pop(name, None)
