"""Comparisons of runs: rows, means over seeds, damage, figures, files."""

import copy
import csv
import json
import shutil
from itertools import pairwise

import numpy as np
import pytest
import yaml
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from scipy import stats
from support.make import make_rollouts

from hpc_saidpo.cli.compare import main
from hpc_saidpo.compare import comparison, evaluations, marks, paired, tables
from hpc_saidpo.compare.page import write
from hpc_saidpo.compare.paired import pair
from hpc_saidpo.compare.read import read_runs
from hpc_saidpo.errors import RunError
from hpc_saidpo.evaluate.intervals import mean_rate
from hpc_saidpo.records import CORRECT, UNGRADABLE, WRONG, Difficulty, Rollouts
from hpc_saidpo.store.stage import Stage

NO_ROLLOUTS = dict.fromkeys(
    ["rollout_tokens", "hours", "tokens_per_usable_pair"]
    + [f"rho_{name}{where}" for where in ("", "_in_band") for name in ("steps", "tokens", "seconds")]
)
PROGRESS = {
    "written": 1.0, "beat_s": 10.0, "state": "complete", "message": "", "iterations": 2, "place": "", "place_s": 0.0,
    "done": None, "total": None, "done_before": None, "task_s": None, "counts": {}, "waits_for": "", "silent": [],
    "spent_s": {"clusters": 1800.0, "iter-000/probe": 3600.0},
}  # fmt: skip
BASE = {
    "run": {"seed": 0, "threads": 0},
    "loop": {"iterations": 2, "stop_after": None},
    "clusters": {"n": 50, "seed": 0},
    "policy": {"path": "models/base"},
    "sampler": {"rule": "error", "alpha": 2.0},
    "difficulty": {"order": ["pass_rate", "steps"], "too_hard": 0.0, "too_easy": 1.0},
    "pairs": {"budget": None},
    "evaluate": {"benchmarks": ["held_out"]},
}


def score(accuracy):
    return {"accuracy": accuracy, "low95": accuracy - 0.125, "high95": accuracy + 0.125, "n_questions": 8}


def lines_of(*accuracies, signatures=()):
    """The metrics of a run whose accuracy on held_out was this before, and after each iteration."""
    return [
        {
            "iteration": t, "explored_questions": 10 + t, "pairs": 4 + t, "pair_yield": 0.25 * (t + 1),
            "entropy_share": 0.5, "signatures": list(signatures), "cluster_weight": [1.0],
            "scores_before": {"held_out": score(before)}, "scores": {"held_out": score(after)},
        }
        for t, (before, after) in enumerate(pairwise(accuracies))
    ]  # fmt: skip


def put_config(path, settings=None):
    config = copy.deepcopy(BASE)
    for key, value in {"run.root": str(path.parent), "run.name": path.name, **(settings or {})}.items():
        group, name = key.split(".")
        config[group][name] = value
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def put_run(path, lines, settings=None):
    """A run folder as the program leaves it, without its stages."""
    put_config(path, settings)
    for line in lines:
        folder = path / f"iter-{line['iteration']:03d}"
        folder.mkdir()
        (folder / "DONE").touch()
    if lines:
        (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def put_evaluation(path, policy, n_correct_of_two, done=True):
    """A stand-alone evaluation of held_out: two samples of each question, so many of them correct."""
    put_config(path, {"policy.path": policy})
    stage = Stage(path / "base/evaluate/held_out", {"iteration": -1, "stage": "evaluate/held_out"})
    stage.prepare()
    verdicts = {0: (WRONG, WRONG), 1: (WRONG, CORRECT), 2: (CORRECT, CORRECT), None: (UNGRADABLE, UNGRADABLE)}
    rows = [(q, k, v, 1, 1, True, "t") for q, n in enumerate(n_correct_of_two) for k, v in enumerate(verdicts[n])]
    stage.write_chunk(0, make_rollouts(rows))
    if done:
        stage.seal(range(1), Rollouts)
        stage.mark_done()
    return stage


def grid(root, skip=()):
    """clusters.n in 50, 100 × three seeds: accuracies 0.5, 0.6, 0.7 and 0.7, 0.8, 0.9."""
    for n, first in ((50, 5), (100, 7)):
        for seed in range(3):
            if (n, seed) not in skip:
                lines = lines_of(0.25, 0.375, (first + seed) / 10)
                put_run(root / f"c-{n}-seed-{seed}", lines, {"clusters.n": n, "run.seed": seed})


def by_name(rows):
    return {row["name"]: row for row in rows}


def test_row_of_a_run(tmp_path):
    skipped, last = lines_of(0.25, 0.5, 0.75)
    skipped["scores"], last["scores_before"] = {}, {}  # evaluate.every=2
    put_run(tmp_path / "a", [skipped, last], {"sampler.rule": "uniform", "run.threads": 4, "run.seed": 1})
    put_run(tmp_path / "b", [], {"difficulty.order": ["random"], "loop.stop_after": "base"})
    sweep = read_runs(tmp_path)
    assert sweep.keys == ["run.seed", "sampler.rule", "difficulty.order"]
    assert tables.run_rows(sweep) == [
        {
            "name": "a", "run.seed": "1", "sampler.rule": "uniform", "difficulty.order": "[pass_rate, steps]",
            "iterations_finished": 2, "iterations_asked": 2,
            "held_out_before": 0.25, "held_out_after": 0.75, "held_out_low95": 0.625, "held_out_high95": 0.875,
            "mean_pair_yield": 0.375, "pairs": 9, "explored_questions": 21, "failure_signatures": 0, **NO_ROLLOUTS,
            "state": "complete",
        },
        {
            "name": "b", "run.seed": "0", "sampler.rule": "error", "difficulty.order": "[random]",
            "iterations_finished": 0, "iterations_asked": 2,
            "held_out_before": None, "held_out_after": None, "held_out_low95": None, "held_out_high95": None,
            "mean_pair_yield": None, "pairs": 0, "explored_questions": 0, "failure_signatures": 0, **NO_ROLLOUTS,
            "state": "no iteration yet",
        },
    ]  # fmt: skip


def test_state_of_a_prolonged_and_of_an_unfinished_run(tmp_path):
    put_run(tmp_path / "prolonged", lines_of(0.1, 0.2, 0.3, 0.4))  # its config.yaml still says 2
    put_run(tmp_path / "short", lines_of(0.1, 0.2, signatures=["depletion: raise rollouts.k"]), {"run.seed": 1})
    stage = Stage(tmp_path / "short/iter-001/probe")
    stage.prepare()
    stage.mark_done()
    sweep = read_runs(tmp_path)
    rows = by_name(tables.run_rows(sweep))
    assert (rows["prolonged"]["state"], rows["prolonged"]["iterations_asked"]) == ("complete", 3)
    assert (rows["short"]["state"], rows["short"]["failure_signatures"]) == ("unfinished", 1)
    assert tables.notes(sweep) == [
        "short: unfinished: 1 of 2 iterations, last finished stage iter-001/probe",
        "short: iteration 0: depletion: raise rollouts.k",
    ]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("metrics.jsonl", '{"iteration": 0, "pai', "line 1"),
        ("metrics.jsonl", json.dumps({**lines_of(0.1, 0.2)[0], "pairs": None}), "line 1: pairs: "),
        ("metrics.jsonl", "\xff", "metrics.jsonl is not readable"),
        ("metrics.jsonl", "", "metrics.jsonl is empty"),
        ("metrics.jsonl", json.dumps(lines_of(0.1, 0.2)[0]), "1 of 2 finished iterations"),
        ("config.yaml", "run: [", "config.yaml is not readable"),
        ("config.yaml", "only a text", "config.yaml has no loop.iterations"),
    ],
)
def test_a_damaged_run_is_named_and_stops_nothing(tmp_path, file, content, message):
    grid(tmp_path)
    (tmp_path / "c-50-seed-1" / file).write_bytes(content.encode("latin-1"))
    sweep = read_runs(tmp_path)
    rows = by_name(tables.run_rows(sweep))
    assert [name for name, row in rows.items() if row["state"] == "damaged"] == ["c-50-seed-1"]
    assert sum(row["state"] == "complete" for row in rows.values()) == 5
    (note,) = tables.notes(sweep)
    assert note.startswith("c-50-seed-1: ") and message in note
    assert message in tables.text(sweep, None) and len(write(sweep, None, tmp_path / "sweep")) == 5


def test_evaluations(tmp_path):
    put_run(tmp_path / "runs/a", lines_of(0.25, 0.5, 0.75))
    under, policy = tmp_path / "runs/evaluate", str(tmp_path / "runs/a/iter-001/policy/model")
    put_evaluation(under / "base-0", "models/base", [0, 0, 0, 2])
    put_evaluation(under / "a-0", policy, [2, 1, 0, 1, None])
    put_evaluation(under / "a-1", policy, [2, 2])  # fewer rollouts: not the one that counts
    put_evaluation(under / "b-0", str(tmp_path / "runs/b"), [2], done=False)
    damaged = put_evaluation(under / "c-0", str(tmp_path / "runs/c"), [2])
    damaged.contents()[0].write_bytes(b"")
    put_evaluation(under / "e-0", str(tmp_path / "runs/e"), [2]).contents()[0].unlink()
    put_config(under / "d-0")  # its evaluation has not begun
    sweep = read_runs(tmp_path / "runs")
    rows = by_name(sweep.evaluations)
    interval = mean_rate(Difficulty(np.arange(4), np.full(4, 2), np.array([2, 1, 0, 1]), *np.ones((3, 4))))[1:]
    assert rows["a-0"] == {
        "name": "a-0", "policy": policy, "benchmark": "held_out", "n_questions": 4, "samples": 2,
        "accuracy": 0.5, "low95": pytest.approx(interval[0]), "high95": pytest.approx(interval[1]), "state": "done",
    }  # fmt: skip
    assert {name: row["state"].split(":")[0] for name, row in rows.items()} == {
        "a-0": "done", "a-1": "done", "b-0": "unfinished", "base-0": "done", "c-0": "damaged", "d-0": "unfinished",
        "e-0": "damaged",
    }  # fmt: skip
    assert rows["b-0"]["accuracy"] is None and "is missing" in rows["e-0"]["state"]
    assert len(tables.notes(sweep)) == 4
    sweep.evaluations.extend({**rows["b-0"], "benchmark": name, "state": name} for name in ("unfinished", "done"))
    assert comparison.benchmarks(sweep) == ["held_out", "done"]
    assert evaluations.accuracies(sweep.evaluations, sweep.runs[0], "held_out") == (0.25, 0.5)
    moved = (tmp_path / "runs").rename(tmp_path / "moved")
    sweep = read_runs(moved)
    assert evaluations.accuracies(sweep.evaluations, sweep.runs[0], "held_out") == (0.25, 0.5)


def test_values_are_compared_by_their_means_over_seeds(tmp_path):
    grid(tmp_path, skip=[(100, 2)])
    put_run(tmp_path / "c-100-seed-2", lines_of(0.25, 0.9), {"clusters.n": 100, "run.seed": 2})  # unfinished
    put_run(tmp_path / "a-200-seed-0", lines_of(0.25, 0.5, 0.5), {"clusters.n": 200})
    few, many, most = comparison.rows(read_runs(tmp_path, ["clusters.n"]))
    assert [row["clusters.n"] for row in (few, many, most)] == ["50", "100", "200"]  # as numbers, not as their names
    assert [(row["runs"], row["complete"]) for row in (few, many, most)] == [(3, 3), (3, 2), (1, 1)]
    gain = [few[f"held_out_gain_{what}"] for what in ("mean", "low95", "high95")]
    assert gain == pytest.approx([0.35, 0.35 - 0.2484138, 0.35 + 0.2484138])
    assert (many["held_out_before_mean"], many["held_out_after_mean"]) == pytest.approx((0.25, 0.75))
    assert (few["pair_yield_mean"], few["pairs_mean"]) == pytest.approx((0.375, 9))
    assert (most["held_out_gain_mean"], most["held_out_gain_low95"]) == (0.25, None)  # one run has no interval
    assert not [key for key in few if "tokens" in key]  # no rollouts are there
    header, *shown = comparison.table(read_runs(tmp_path))
    assert header[:6] == ["system", "clusters.n", "runs", "held_out before, %", "after, %", "gain, points"]
    assert [row[:6] for row in shown] == [
        ["c-50", "50", "3", "25.0 ± 0.0", "60.0 ± 24.8", "+35.0 ± 24.8"],
        ["c-100", "100", "2 of 3", "25.0 ± 0.0", "75.0 ± 63.5", "+50.0 ± 63.5"],
        ["a-200", "200", "1", "25.0", "50.0", "+25.0"],
    ]


def test_further_differences_between_the_runs_of_a_row_are_reported(tmp_path):
    for i, (n, rule) in enumerate(((5, "a"), (5, "b"), (7, "a"), (7, "b"))):
        put_run(tmp_path / f"{i}", lines_of(0.1, 0.2, 0.3), {"clusters.n": n, "sampler.rule": rule, "run.seed": i})
    assert any("sampler.rule too" in note for note in comparison.notes(read_runs(tmp_path, ["clusters.n"])))
    both = read_runs(tmp_path, ["sampler.rule", "clusters.n"])
    assert [group.values for group in both.groups()] == [("a", "5"), ("b", "5"), ("a", "7"), ("b", "7")]
    assert not any("too: --by" in note for note in comparison.notes(both))
    with pytest.raises(
        RunError, match=r"--by clusters\.m: .* Did you mean clusters\.n\? The runs differ in run\.seed, clus"
    ):
        read_runs(tmp_path, ["clusters.m"])


@pytest.mark.parametrize(
    ("limit", "is_reported"),
    [({}, True), ({"pairs.budget": 6}, True), ({"pairs.budget": 5}, False), ({"pairs.share": 0.5}, False)],
)
def test_an_order_that_decided_nothing_is_reported(tmp_path, limit, is_reported):
    for order in (["steps"], ["tokens"]):
        settings = {"difficulty.order": order, **limit}
        put_run(tmp_path / order[0], lines_of(0.1, 0.2, 0.3), settings)  # iterations of 4 and 5 pairs
    assert (comparison.ORDER_WITHOUT_EFFECT in comparison.notes(read_runs(tmp_path))) == is_reported


def put_rollouts(run, t, name, rows):
    """A finished stage with these rollouts: (question, sample, verdict, tokens, steps)."""
    stage = Stage(run / f"iter-{t:03d}" / name, {"iteration": t, "stage": name})
    stage.prepare()
    stage.write_chunk(0, make_rollouts([(*row, True, "t") for row in rows]))
    stage.seal(range(1), Rollouts)
    stage.mark_done()
    return stage


def graded(rng, questions):
    return [(q, k, int(rng.random() < q / 10), int(rng.integers(3, 30)), 1) for q in questions for k in range(4)]


def test_what_rollouts_cost_and_how_proxies_agree(tmp_path):
    rng, stages, tables_of = np.random.default_rng(0), [], []
    put_run(tmp_path / "a", lines_of(0.1, 0.2, 0.3), {"difficulty.order": ["tokens"], "run.seed": 1})
    put_run(tmp_path / "b", lines_of(0.1, 0.2, 0.3), {"difficulty.order": ["steps"]})
    for t in range(2):
        tables_of.append([graded(rng, range(0, 6)), graded(rng, range(6, 11))])
        stages += [
            put_rollouts(tmp_path / "a", t, *both) for both in zip(("probe", "explore"), tables_of[t], strict=True)
        ]
    (row, without) = tables.run_rows(read_runs(tmp_path))
    assert row["rollout_tokens"] == sum(tokens for both in tables_of for table in both for *_, tokens, _ in table)
    # Iteration t has explored 10 + t questions with a pair yield of (t + 1) / 4.
    assert row["tokens_per_usable_pair"] == pytest.approx(row["rollout_tokens"] / (10 / 4 + 11 / 2))
    for where, band in (("", (0, 1)), ("_in_band", (0.1, 0.9))):
        rho = []
        for probed, explored in tables_of:
            by_question = {
                q: [(v, n) for question, _, v, n, _ in probed + explored if question == q] for q in range(11)
            }
            means = np.array([np.mean(rows, axis=0) for rows in by_question.values()])
            means = means[(means[:, 0] >= band[0]) & (means[:, 0] <= band[1])]
            rho.append(stats.spearmanr(*means.T).statistic)
        assert row[f"rho_tokens{where}"] == pytest.approx(np.mean(rho))
    assert row["rho_steps"] is None  # the same for all
    assert {key: without[key] for key in NO_ROLLOUTS} == NO_ROLLOUTS
    sweep = read_runs(tmp_path)
    header, row, _ = comparison.table(sweep)
    assert row[header.index("1,000 tokens")] == format(tables.run_rows(sweep)[0]["rollout_tokens"] / 1000, ",.0f")
    assert "ρ tokens" in header and comparison.ABOUT_PROXIES in comparison.notes(sweep)
    stages[-1].contents()[0].write_bytes(b"")
    sweep = read_runs(tmp_path)
    assert sweep.runs[0].state == "complete" and tables.run_rows(sweep)[0]["rollout_tokens"] is None
    assert any(note.startswith("a: ") and "explore" in note for note in tables.notes(sweep))


def test_interval_over_runs():
    assert comparison.mean_interval([0.5, 0.6, 0.7]) == pytest.approx((0.6, 0.6 - 0.2484138, 0.6 + 0.2484138))
    assert comparison.mean_interval([1, 3]) == pytest.approx((2, 2 - 12.7062047, 2 + 12.7062047))


@pytest.mark.parametrize(
    ("systems", "expected"),
    [
        ([{"clusters.n": n} for n in (50, 100)], ("clusters.n", [])),
        ([{"sampler.rule": r, "clusters.n": n} for r in "ab" for n in (5, 7)], ("clusters.n", ["sampler.rule"])),
        ([{"sampler.alpha": 1}, {"clusters.n": 1}, {"sampler.rule": "a"}], None),
        ([{"sampler.rule": "a"}, {"sampler.rule": "b"}], None),
        ([{"run.seed": 1}, {"clusters.seed": 2}], None),
    ],
)
def test_a_number_is_an_axis_only_where_there_is_a_curve_over_it(tmp_path, systems, expected):
    for i, settings in enumerate(systems):
        put_run(tmp_path / f"{i}", lines_of(0.1, 0.2), settings)
    sweep = read_runs(tmp_path)
    without_seeds = [key for key in sweep.keys if not key.endswith("seed")]
    assert marks.axes_of(sweep) == (expected or (None, without_seeds))


def test_what_is_drawn(tmp_path):
    grid(tmp_path, skip=[(100, 2)])
    put_run(tmp_path / "c-100-seed-2", lines_of(0.25, 0.9), {"clusters.n": 100, "run.seed": 2})  # unfinished
    sweep = read_runs(tmp_path)
    (after,) = [measure for measure in comparison.measures(sweep) if measure.key == "held_out_after"]
    axis = Figure().subplots()
    marks.Marks(sweep).draw_groups(axis, after, 0.25)
    dots = [dot for dot in axis.collections if isinstance(dot, PathCollection)]
    assert len(dots) == 6
    (hollow,) = [dot.get_offsets().tolist() for dot in dots if not len(dot.get_facecolor())]
    assert hollow == [[1, 90]]
    drawn = [line.get_ydata() for line in axis.lines]
    assert any(list(y) == pytest.approx([60, 75]) for y in drawn)  # the means; without the unfinished run's 90
    assert list(drawn[-1]) == pytest.approx([25, 25])  # before
    assert [label.get_text() for label in axis.get_xticklabels()] == ["50", "100"]


def test_systems_are_named_after_their_runs(tmp_path):
    for name, rule in (("idpo", "uniform"), ("saidpo", "error")):
        for seed in range(2):
            put_run(tmp_path / f"{name}-seed-{seed}", lines_of(0.1, 0.2), {"sampler.rule": rule, "run.seed": seed})
    assert marks.Marks(read_runs(tmp_path)).ticks == ["idpo", "saidpo"]
    for name in ("big,idpo", "big,saidpo"):
        put_run(tmp_path / "shared" / name, lines_of(0.1, 0.2), {"sampler.rule": name})
    assert [group.label for group in read_runs(tmp_path / "shared").groups()] == ["idpo", "saidpo"]
    put_run(tmp_path / "alone" / "big,idpo", lines_of(0.1, 0.2))
    assert [group.label for group in read_runs(tmp_path / "alone").groups()] == ["big,idpo"]


def test_the_verb_writes_its_files_and_changes_no_run(tmp_path, capsys):
    root = tmp_path / "runs"
    grid(root)
    put_evaluation(root / "evaluate/a-0", str(root / "c-50-seed-0"), [2, 0])
    (root / ".shared/clusters-0").mkdir(parents=True)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    for out, arguments in ((tmp_path / "out", ["--out", str(tmp_path / "out")]), (root / "sweep", [])):
        assert main([str(root), *arguments]) == 0
        printed = capsys.readouterr()
        assert printed.err == ""
        assert {p.name for p in out.iterdir()} == {
            "comparison.csv", "paired.csv", "sweep.csv", "evaluations.csv", "sweep.html"
        }  # fmt: skip
        with (out / "sweep.csv").open() as file:
            names = [row["name"] for row in csv.DictReader(file)]
        assert names == [f"c-{n}-seed-{s}" for n in (50, 100) for s in range(3)]
        assert all(name in text for name in names for text in (printed.out, (out / "sweep.html").read_text()))
        assert str(out / "sweep.html") in printed.out
        if out != root / "sweep":
            assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_the_verb_without_runs(tmp_path, capsys):
    with pytest.raises(RunError, match="holds no run"):
        read_runs(tmp_path / "nowhere")
    assert main([str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert printed.err.startswith("compare: ") and not list(tmp_path.iterdir())
    grid(tmp_path / "runs")
    (tmp_path / "file").touch()
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "file")]) == 2
    assert "name another folder by --out" in capsys.readouterr().err


def put_systems(root, gains, iterations=2):
    """Runs of systems, one of each seed: label -> accuracy after the run by seed; None for an unfinished run."""
    for label, after in gains.items():
        for seed, accuracy in enumerate(after):
            before = 0.2 + seed / 10
            lines = lines_of(before, *([before] * (iterations - 1)), accuracy) if accuracy else lines_of(before, before)
            rule = {"idpo": "uniform", "saidpo": "error"}.get(label, "frontier")
            put_run(root / f"{label}-{seed}", lines, {"sampler.rule": rule, "run.seed": seed})


def test_systems_are_compared_by_pairs_of_runs_of_one_seed(tmp_path):
    """The seeds differ by 10 points, the systems by 2 to 4 for each seed: only pairs show that."""
    put_systems(
        tmp_path, {"idpo": (0.3, 0.4, 0.5, None), "saidpo": (0.32, 0.43, 0.54, 0.9), "bold": (0.29, 0.40, 0.48)}
    )
    sweep = read_runs(tmp_path)
    pairing = pair(sweep, None)
    assert pairing.baseline.label == "idpo"  # uniform sampling
    half = 2.4841377  # t of 2 degrees of freedom · 1 / √3
    assert paired.sentence(pairing) == "Of 2 systems, saidpo beats idpo by 3.0 ± 2.5 points, 3 seeds, paired."
    header, best, worst = paired.table(pairing)
    assert header[:4] == ["minus idpo", "pairs of runs", "held_out, points", "pair yield, %"]
    assert best[:4] == ["saidpo", "3", "+3.0 ± 2.5", "+0.0 ± 0.0"] and worst[:3] == ["bold", "3", "-1.0 ± 2.5"]
    rows = {(row["name"], row["measure"]): row for row in paired.rows(pairing)}
    row = rows["saidpo", "held_out_gain"]
    assert [row[key] for key in ("mean", "low95", "high95")] == pytest.approx([3, 3 - half, 3 + half])
    assert (row["baseline"], row["pairs"]) == ("idpo", 3)
    assert paired.sentence(pair(sweep, "saidpo")).startswith("Of 2 systems, idpo loses to saidpo by 3.0 ± 2.5 points")
    for name in ("sampler.rule=error", "saidpo-1"):
        assert pair(sweep, name).baseline.label == "saidpo"
    with pytest.raises(RunError, match=r"--baseline idp: no system is called that: did you mean idpo\? there are "):
        pair(sweep, "idp")


@pytest.mark.parametrize(
    ("gains", "sentence"),
    [
        ({"idpo": (0.3, 0.5), "saidpo": (0.32, 0.58)}, "saidpo is ahead of idpo by 5.0 ± 38.1 points, 2 seeds, paired: "
         "the interval includes 0, so 2 seeds do not decide."),
        ({"idpo": (0.3,), "saidpo": (0.27,)}, "saidpo is behind idpo by 3.0 points, one seed: without an interval, it "
         "may be chance."),
        ({"idpo": (0.3, None), "saidpo": (None, 0.4)}, "No complete run has a partner among those of idpo: same seed, "
         "same other settings, an accuracy."),
    ],
)  # fmt: skip
def test_the_sentence_claims_no_more_than_the_pairs_show(tmp_path, gains, sentence):
    put_systems(tmp_path, gains)
    pairing = pair(read_runs(tmp_path), "idpo")
    assert paired.sentence(pairing) == sentence
    assert tables.text(read_runs(tmp_path), pairing).startswith(sentence + "\n")


def test_copies_and_repeats_of_a_run_count_once(tmp_path, capsys):
    put_systems(tmp_path, {"idpo": (0.3, 0.4), "saidpo": (0.35, 0.45)})
    shutil.copytree(tmp_path / "idpo-0", tmp_path / "a-copy")
    put_run(tmp_path / "repeat", lines_of(0.2, 0.25), {"sampler.rule": "uniform"})  # unfinished
    sweep = read_runs(tmp_path)
    assert [run.name for run in sweep.runs] == ["idpo-0", "idpo-1", "saidpo-0", "saidpo-1"]
    assert sweep.again == {"a-copy": "idpo-0", "repeat": "idpo-0"}
    assert "a-copy has the configuration and seed of idpo-0: counted once" in comparison.notes(sweep)
    assert main([str(tmp_path)]) == 0 and "repeat has the configuration and seed" in capsys.readouterr().out


def test_systems_without_a_common_name_are_called_by_as_few_settings_as_distinguish_them(tmp_path):
    for name, n, alpha in (("a", 5, 1), ("b", 5, 2), ("c", 7, 2)):
        for seed in range(2):
            settings = {"clusters.n": n, "sampler.alpha": alpha, "policy.path": f"m{n}", "run.seed": seed}
            put_run(tmp_path / f"{name}{'xy'[seed]}", lines_of(0.1, 0.2, 0.3), settings)
    sweep = read_runs(tmp_path)
    assert [group.label for group in sweep.groups()] == [
        "clusters.n=5, sampler.alpha=1", "clusters.n=5, sampler.alpha=2", "clusters.n=7, sampler.alpha=2"
    ]  # fmt: skip
    assert tables.headline(sweep, pair(sweep, None)).startswith("3 systems: name the one that the others are")
    assert any("differ in policy.path, too: they start from other policies" in note for note in comparison.notes(sweep))
    put_run(tmp_path / "named-seed-0", lines_of(0.1, 0.2, 0.3), {"clusters.n": 9})
    labels = [group.label for group in read_runs(tmp_path).groups()]
    assert labels[-1] == "named" and labels[0].startswith("clusters.n=5, ")  # one group without a name harms no other


def test_stand_alone_evaluations_are_no_runs(tmp_path):
    put_run(tmp_path / "a", lines_of(0.25, 0.5, 0.75))
    put_evaluation(tmp_path / "evaluate-a-iter-001", str(tmp_path / "a/iter-001/policy/model"), [2, 1])
    config = yaml.safe_load((tmp_path / "evaluate-a-iter-001/config.yaml").read_text())
    kept = {group: config[group] for group in ("run", "loop", "policy", "evaluate")}
    (tmp_path / "evaluate-a-iter-001/config.yaml").write_text(yaml.safe_dump(kept))
    sweep = read_runs(tmp_path)
    assert [run.name for run in sweep.runs] == ["a"] and sweep.keys == []
    assert [(row["name"], row["accuracy"]) for row in sweep.evaluations] == [("evaluate-a-iter-001", 0.75)]


def test_the_page_is_one_file_with_links_to_the_pages_of_the_runs(tmp_path):
    put_systems(tmp_path / "runs", {"idpo": (0.3, 0.4), "saidpo": (0.35, None)})
    (tmp_path / "runs/idpo-1/report.html").touch()
    (tmp_path / "runs/idpo-1/progress.json").write_text(json.dumps(PROGRESS))
    sweep, out = read_runs(tmp_path / "runs"), tmp_path / "else where"
    write(sweep, pair(sweep, None), out)
    page = (out / "sweep.html").read_text()
    assert page.index(paired.sentence(pair(sweep, None))) < page.index("<table>")
    assert '<a href="../runs/idpo-1/report.html">idpo-1</a>' in page and 'report.html">idpo-0' not in page
    assert page.count("<svg") == 5 and "<img" not in page and "<script" not in page
    assert by_name(tables.run_rows(sweep))["idpo-1"]["hours"] == 1.5
    axis = Figure().subplots()
    marks.Marks(sweep).draw_lines(
        axis, {run.name: [(0, 0.1), (1, run.settings["run.seed"] / 4)] for run in sweep.runs}, ""
    )
    assert [line.get_ydata().tolist() for line in axis.lines] == [[10, 12.5], [10, 12.5]]  # means over two seeds
    low, high = (end(band.get_paths()[0].vertices[:, 1]) for band in axis.collections[:1] for end in (min, max))
    assert (low, high) == (0, 25)
