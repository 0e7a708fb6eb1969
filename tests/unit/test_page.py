"""The pictures and lines of a run's report: exact figures at exact places."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from hpc_saidpo.records import Outcome
from hpc_saidpo.report import clusters, page


def score(accuracy):
    return {"accuracy": accuracy, "low95": accuracy - 0.1, "high95": accuracy + 0.05, "n_questions": 40}


def record(t, before, after):
    return {
        "iteration": t, "probe_pass_rate": 0.5 + t / 10, "pair_yield": 0.25, "cluster_weight": [0.5, 2.0, 1.0],
        "cluster_error_rate": [0.25, None, 0.75], "explored_questions": 30, "pairs": 7, "dpo/loss": 0.625,
        "scores_before": {"exam": score(before)}, "scores": {"exam": score(after)},
    }  # fmt: skip


OUTCOME = Outcome({"exam": score(0.4)}, [record(0, 0.4, 0.5), record(1, 0.5, 0.6)], "runs/policy")


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn."""
    figures, save = [], Figure.savefig

    def keep(figure, *arguments, **options):
        figures.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def points(line):
    return [*map(list, zip(*line.get_data(), strict=True))]


def test_curves_show_accuracy_by_rounds_and_the_rest_by_iterations(drawn):
    assert page.curves(OUTCOME).startswith(b"\x89PNG")
    accuracy, rates, weights, dpo = drawn[0].axes
    mean, low, high = accuracy.lines
    assert np.allclose(points(mean), [[0, 40], [1, 50], [2, 60]])  # before training, after one round, after two
    low_y, high_y = (np.asarray(line.get_ydata(), float) for line in (low, high))
    assert np.allclose(low_y, [30, 40, 50]) and np.allclose(high_y, [45, 55, 65])
    assert [points(line) for line in rates.lines] == [[[0, 50], [1, 60]], [[0, 25], [1, 25]]]
    assert [points(line) for line in weights.lines[:2]] == [[[1, 2.0], [2, 1.0], [3, 0.5]]] * 2
    assert set(weights.lines[2].get_ydata()) == {1}  # the weight of the whole pool
    assert points(dpo.lines[0]) == [[0, 0.625], [1, 0.625]]
    assert [len(axis.get_legend().texts) for axis in (accuracy, rates, weights, dpo)] == [1, 2, 2, 3]
    assert [axis.get_title() for axis in drawn[0].axes] == [
        "Benchmark accuracy, 95 % interval", "Pass rate and pair yield", "Cluster weights, ranked",
        "DPO, mean over steps",
    ]  # fmt: skip


def test_sizes_of_clusters_are_drawn_with_their_cumulative_share(drawn):
    assert clusters.sizes({"sizes": [5, 3, 2]}).startswith(b"\x89PNG")
    left, right = drawn[0].axes
    assert [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in left.patches] == [(1, 5), (2, 3), (3, 2)]
    assert left.lines[0].get_ydata()[0] == pytest.approx(10 / 3) and left.get_title() == "Questions of each cluster"
    assert np.allclose(points(right.lines[0]), [[1, 50], [2, 80], [3, 100]])
    assert np.allclose(points(right.lines[1]), [[1, 100 / 3], [2, 200 / 3], [3, 100]])


def test_the_table_has_a_line_for_each_iteration_and_the_gain_of_the_run():
    header, body = page.rows(OUTCOME)
    assert header[0] == "iteration" and header[-1] == "exam before → after"
    assert [row[0] for row in body] == ["0", "1"] and body[1][-1] == "50.0 % → 60.0 %"
    assert body[0][1:6] == ["50.0 %", "0.25/0.50/0.75", "30", "25.0 %", "-"]
    assert page.gains(OUTCOME) == [
        "exam: 40.0 % [30.0, 45.0] before, 60.0 % [50.0, 65.0] after: +20.0 points (40 questions)"
    ]
    lines = page.table(OUTCOME).split("\n")
    assert lines[-1] == "policy: runs/policy" and len({len(line) for line in lines[1:4]}) == 1
