import pytest

from hpc_saidpo.metrics.training import find_signatures

STEP = {
    "pairs": 16, "rewards/margins": 0.0, "rewards/accuracies": 0.7, "logps/chosen": -50.0, "ref_logps/chosen": -50.0,
    "length_correlation": 0.1,
}  # fmt: skip


def steps(n=9, **ends):
    """Steps whose figures go from the first to the second value in a line."""
    lines = {name: (a, b) for name, (a, b) in ends.items()}
    return [{**STEP, **{k: a + (b - a) * i / (n - 1) for k, (a, b) in lines.items()}} for i in range(n)]


def named(found):
    return [text.split(":")[0] for text in found]


def test_a_round_as_it_should_be_shows_nothing():
    grows = {"rewards/margins": (0.0, 0.6), "rewards/accuracies": (0.5, 0.9)}
    assert find_signatures(steps(**grows)) == []
    assert find_signatures(steps(**grows, **{"logps/chosen": (-50.0, -55.0)})) == []  # DPO does that
    assert find_signatures(steps(**grows, **{"logps/chosen": (-50.0, -30.0)})) == []
    assert find_signatures(steps()[:1]) == []


def test_collapse_of_the_chosen_is_a_fall_against_the_reference_while_margins_grow():
    fall = {"logps/chosen": (-50.0, -90.0)}
    found = find_signatures(steps(**fall, **{"rewards/margins": (0.0, 2.0)}))
    assert named(found) == ["chosen log-probability collapse"] and "dpo.nll" in found[0] and "-50.0" in found[0]
    assert find_signatures(steps(**fall, **{"rewards/margins": (0.0, -2.0)})) == []  # that is no preference at all
    # Harder pairs come later: policy and reference fall alike.
    assert find_signatures(steps(**fall, **{"ref_logps/chosen": (-50.0, -90.0), "rewards/margins": (0.0, 2.0)})) == []
    short = {"logps/chosen": (-0.5, -1.2), "ref_logps/chosen": (-0.5, -0.5), "rewards/margins": (0.0, 0.05)}
    assert find_signatures(steps(**short)) == []  # of so little, a third is nothing


@pytest.mark.parametrize(
    "margins, accuracy, expected",
    [
        ((0.0, 0.5), 0.5, ["margin without accuracy"]),
        ((0.0, 0.5), 0.7, []),
        ((0.0, 0.05), 0.5, []),
        ((2.0, 2.0), 0.5, []),  # large from the first step on
    ],
)
def test_margins_may_not_grow_without_accuracy(margins, accuracy, expected):
    found = find_signatures(steps(**{"rewards/margins": margins, "rewards/accuracies": (accuracy, accuracy)}))
    assert named(found) == expected
    assert all("dpo.loss=ipo" in text for text in found)


def test_margins_that_follow_the_length_are_reported_with_their_direction():
    for value, word in ((0.8, "longer"), (-0.8, "shorter")):
        (found,) = find_signatures(steps(length_correlation=(value, value)))
        assert found.startswith("length drift") and f"prefer {word} responses" in found and "sigmoid_norm" in found
    few = [{**step, "pairs": 4} for step in steps(length_correlation=(0.8, 0.8))]
    unknown = [{**step, "length_correlation": None} for step in steps()]
    assert find_signatures(few) == find_signatures(unknown) == []


def test_pairs_weigh_equally_not_steps():
    rest = {**STEP, "pairs": 1, "rewards/margins": 50.0, "rewards/accuracies": 0.0}
    assert find_signatures([STEP, STEP, STEP, STEP, STEP, rest]) == [] == find_signatures([STEP] * 6)
    assert named(find_signatures([STEP, rest])) == ["margin without accuracy"]


def test_figures_of_an_earlier_version_say_nothing():
    assert find_signatures([{"step": 0, "loss": 0.7, "margin": 0.1, "accuracy": 0.5}]) == []
