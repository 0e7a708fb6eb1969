import numpy as np
import pytest
from support.make import make_rollouts

from hpc_saidpo.evaluate import score, table
from hpc_saidpo.evaluate.intervals import accuracy, difference, wilson
from hpc_saidpo.evaluate.score import votes
from hpc_saidpo.records import CORRECT, UNGRADABLE, WRONG, Difficulty, Question


def difficulty(n_correct, k):
    n = len(n_correct)
    return Difficulty(np.arange(n), np.full(n, k), np.array(n_correct), *np.ones((3, n)))


def test_wilson_against_published_values():
    # Newcombe 1998, table I: 81 of 263, and 0 of 20
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_greedy_accuracy():
    score = accuracy(difficulty([1, 0, 1, 1], 1))
    assert score["accuracy"] == 0.75 and score["n_questions"] == 4 and score["n_samples"] == 1
    assert score["low95"] < 0.75 < score["high95"]


def test_an_interval_over_many_questions_is_that_of_their_mean():
    # Eight samples of one question are not eight questions: the interval comes from the questions' spread.
    rng = np.random.default_rng(0)
    score = accuracy(difficulty(rng.binomial(8, rng.beta(0.5, 0.5, 2000)), 8))
    rate = rng.binomial(8, rng.beta(0.5, 0.5, 2000)) / 8
    assert score["high95"] - score["low95"] == pytest.approx(2 * 1.96 * rate.std(ddof=1) / 2000**0.5, rel=0.03)


def test_a_change_is_measured_question_by_question():
    before, after = difficulty([1] * 50 + [0] * 50, 1), difficulty([1] * 60 + [0] * 40, 1)
    mean, low, high = difference(before, after)
    assert mean == pytest.approx(0.1) and 0 < low < mean < high < 0.2  # ten questions gained, none lost
    unpaired = accuracy(after)["low95"] - accuracy(before)["high95"]
    assert low > unpaired
    same = difference(before, before)
    assert same[0] == 0 and -0.05 < same[1] < 0 < same[2] < 0.05  # not: certainly no change
    assert difference(before.take(range(50)), after.take(range(50, 100))) is None


def test_the_interval_of_a_change_covers_it():
    rng, n, hits = np.random.default_rng(3), 60, 0
    for _ in range(400):
        first = rng.random(n) < 0.4
        second = np.where(rng.random(n) < 0.2, rng.random(n) < 0.9, first)  # expected change 0.2 · (0.9 - 0.4)
        _, low, high = difference(difficulty(first.astype(int), 1), difficulty(second.astype(int), 1))
        hits += low <= 0.1 <= high
    assert 0.93 <= hits / 400 <= 0.99


def mixture(of, shares):
    return lambda rng, n: rng.choice(of, p=shares, size=n)


@pytest.mark.parametrize(
    "mean, n, k, least, rates",
    [
        (0.375, 100, 8, 0.93, lambda rng, n: rng.beta(0.3, 0.5, n)),
        (0.1, 100, 8, 0.93, mixture([0.0, 0.5, 1.0], [0.85, 0.10, 0.05])),
        (0.5, 100, 8, 0.93, lambda rng, n: rng.beta(2, 2, n)),
        (0.05, 30, 16, 0.93, lambda rng, n: rng.beta(0.1, 1.9, n)),
        (0.05, 30, 16, 0.93, mixture([0.0, 1.0], [0.95, 0.05])),
        (0.3, 40, 1, 0.93, lambda rng, n: np.full(n, 0.3)),
    ],
)
def test_intervals_cover(mean, n, k, least, rates):
    rng, n_hits = np.random.default_rng(1), 0
    for _ in range(600):
        score = accuracy(difficulty(rng.binomial(k, rates(rng, n)), k))
        n_hits += score["low95"] <= mean <= score["high95"]
    assert n_hits / 600 > least - 0.015  # 1.5 standard errors of the simulation


def test_nothing_to_grade():
    assert accuracy(difficulty([], 1))["accuracy"] is None


def test_a_bound_changes_little_from_none_to_one_correct_response():
    high = [accuracy(difficulty([s] + [0] * 29, 16))["high95"] for s in range(17)]
    assert high == sorted(high) and high[0] > 0.05 and high[1] < 1.1 * high[0]
    low = [accuracy(difficulty([16 - s] + [16] * 29, 16))["low95"] for s in range(17)]
    assert low == pytest.approx([1 - bound for bound in high])
    assert accuracy(difficulty([0], 8))["high95"] > 0.7
    assert wilson(0, 1e-200) == pytest.approx((0, 1))


def graded(*questions):
    """Rollouts of questions by their responses: "7+" is correct, "7-" wrong, "7?" ungradable, "" has no answer."""
    verdicts = {"+": CORRECT, "-": WRONG, "?": UNGRADABLE, "": WRONG}
    return make_rollouts([
        (q, k, verdicts[r[-1:]], 10 * (q + 1), 1, bool(r), f"so\n\\boxed{{{r[:-1]}}}" if r else "no\nidea")
        for q, responses in enumerate(questions)
        for k, r in enumerate(responses)
    ])  # fmt: skip


@pytest.mark.parametrize(
    "responses, worth",
    [
        (["7+", "8-", "7+", "9-"], 1),
        (["7+", "8-", "8-", "9-"], 0),
        (["7+", "7+", "8-", "8-"], 1 / 2),
        (["7+", "8-", "9-", "6-"], 1 / 4),
        (["7+", "", "", ""], 1),
        (["", "", "", ""], 0),
        (["1,000+", " 1000 +", "$1000$+", "5-"], 1),  # one answer, written otherwise
        (["5-", "5-", "7+", "3?"], 0),
    ],
)
def test_majority_vote(responses, worth):
    questions = [Question(str(i), "x", "1") for i in range(3)]
    assert votes(graded(responses), questions).tolist() == [pytest.approx(worth)]
    with_others = votes(graded(["1-"] * 4, responses, ["3?"] * 4), questions)
    assert with_others.tolist() == [0, pytest.approx(worth)]  # a question that cannot be graded is in no mean


QUESTIONS = [
    Question("a", "x", "1", subject="Algebra", level="10"),
    Question("b", "x", "1", subject="Algebra", level="9"),
    Question("c", "x", "1", subject="Geometry", level="9"),
    Question("d", "x", "\\text{see figure", subject="Geometry"),
]
ANSWERS = graded(["1+", "1+", "2-", "3-"], ["2-", "2-", "1+", ""], ["1+"] * 4, ["1?"] * 4)


def test_figures_of_a_benchmark_its_subjects_and_levels():
    whole, *parts = score.rows(ANSWERS, QUESTIONS)
    assert [(row["by"], row["value"], row["n_questions"], row["ungradable"]) for row in parts] == [
        ("subject", "Algebra", 2, 0), ("subject", "Geometry", 1, 1),
        ("level", "", 0, 1), ("level", "9", 2, 0), ("level", "10", 1, 0),
    ]  # fmt: skip
    assert [row["accuracy"] for row in parts] == [3 / 8, 1.0, None, 5 / 8, 1 / 2]
    assert (whole["by"], whole["n_questions"], whole["n_samples"], whole["ungradable"]) == ("all", 3, 4, 1)
    assert whole["accuracy"] == pytest.approx((1 / 2 + 1 / 4 + 1) / 3)
    assert whole["low95"] < whole["accuracy"] < whole["high95"] < 1
    # of four responses two, one and four are correct: pass@2 is 1 - C(2,2)/C(4,2), 1 - C(3,2)/C(4,2), 1
    assert whole["pass_at_2"] == pytest.approx((5 / 6 + 1 / 2 + 1) / 3) and whole["pass_at_4"] == 1
    assert whole["majority"] == pytest.approx(2 / 3)
    assert whole["truncated"] == 1 / 16 and whole["tokens"] == 25
    assert all(set(row) == set(whole) for row in parts)


def test_one_greedy_response_is_pass_at_1_alone():
    (row,) = score.rows(graded(["1+"], ["2-"]), [Question("a", "x", "1"), Question("b", "x", "1")])
    assert row["accuracy"] == 0.5 and row["majority"] is None and not [key for key in row if key.startswith("pass")]
    (row,) = score.rows(graded(["1?"]), [Question("a", "x", "1")])
    assert row["accuracy"] is None and row["ungradable"] == 1 and row["n_questions"] == 0


def test_the_table_is_markdown_and_lines_up():
    how = {"benchmark": "own|x", "temperature": 0.6, "top_p": 1.0}
    rows = [{**how, **row} for row in score.rows(ANSWERS, QUESTIONS)]
    text = table.text("models/m", rows, ["of note"])
    assert text.startswith("# Evaluation of models/m\n") and "- of note" in text
    assert "## own|x by subject" in text and "## own|x by level" in text
    assert "| own/x     |         3 |  4 at 0.6 | 58.3 % [7.4, 96.1] | 100.0 % (k=4) |" in text
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 3 and all(len({len(line) for line in lines}) == 1 for lines in blocks)
    (row,) = score.rows(graded(["1+"]), QUESTIONS[:1])
    greedy = table.text("m", [{**how, **row, "temperature": 0.0}], [])
    assert "1 greedy" in greedy and "pass@k" not in greedy and "majority" not in greedy and "ungradable" not in greedy


@pytest.mark.parametrize("change, text", [(0.5875 - 0.375, "+21.3"), (0.375 - 0.5875, "-21.3"), (0.2125, "+21.3")])
def test_a_change_reads_the_same_wherever_it_is_computed(change, text):
    assert table.points(change) == text and table.points(abs(change), "") == "21.3"
