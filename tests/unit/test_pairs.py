import numpy as np
from support.make import make_prompts, make_rollouts

from hpc_saidpo import difficulty, settings
from hpc_saidpo.dpo import pairs
from hpc_saidpo.records import CORRECT, UNGRADABLE, WRONG

ROLLOUTS = make_rollouts(
    [
        (2, 0, CORRECT, 5, 1, True, "right a"),
        (2, 1, CORRECT, 30, 1, False, "right but cut"),
        (2, 2, WRONG, 9, 1, True, "wrong a"),
        (2, 3, WRONG, 6, 1, True, " right a"),  # the same text as the correct one
        (2, 4, UNGRADABLE, 5, 1, True, "unknown"),
        (5, 0, CORRECT, 5, 1, True, "yes"),
        (5, 1, WRONG, 5, 1, True, "no"),
        (5, 2, WRONG, 50, 1, False, "no, cut"),
        (5, 3, CORRECT, 5, 1, True, "yes!"),
        (9, 0, CORRECT, 5, 1, True, "only right"),
        (9, 1, CORRECT, 5, 1, True, "also right"),
    ]
)


def select(order, seed=0, **config):
    measured = difficulty.measure(ROLLOUTS)
    hardest = measured.take([measured.question_Q.tolist().index(q) for q in order])
    return pairs.select(ROLLOUTS, hardest, np.arange(10), make_prompts(order), settings.Pairs(**config), seed, 0)


def test_a_pair_is_a_correct_and_an_incorrect_response():
    for seed in range(20):
        table = select([2, 5], seed=seed)
        assert table.question_B.tolist() == [2, 5]
        assert (table.chosen_B[0], table.rejected_B[0]) == ("right a", "wrong a")  # the only pair allowed
        assert table.chosen_B[1] in ("yes", "yes!") and table.rejected_B[1] in ("no", "no, cut")
        assert table.chosen_finished_B.all()
        assert table.prompt_B == ["prompt 2", "prompt 5"]
        assert table.pass_rate_B.tolist() == [0.5, 0.5]  # of the gradable responses
        assert table.tokens_B.tolist() == [12.5, 16.25] and table.steps_B.tolist() == [1, 1]
        assert table.id_B == ["q2", "q5"] and table.iteration_B.tolist() == [0, 0]
        assert [ROLLOUTS.text_R[r] for r in np.array([0, 5]) + table.chosen_sample_B] == table.chosen_B


def test_a_question_without_both_gives_none():
    assert len(select([9])) == 0
    assert len(select([])) == 0


def test_hardest_first_survives_the_budget():
    assert select([5, 2], budget=1).question_B.tolist() == [5]
    assert select([2, 5], per_question=3, budget=2).question_B.tolist() == [2, 5]


def test_a_share_of_one_half_takes_the_harder_half():
    """By pass rate, then steps, then length; questions without a pair do not count."""
    rows, hard = [], {0: (1, 2, 9), 1: (1, 2, 5), 2: (1, 1, 9), 3: (2, 9, 9), 4: (3, 9, 9), 5: (3, 1, 1), 6: (4, 1, 1)}
    for question, (n_correct, steps, tokens) in hard.items():
        rows += [(question, k, int(k < n_correct), tokens, steps, True, f"{k}") for k in range(4)]
    rollouts, config = make_rollouts(rows), settings.Difficulty()
    measured = difficulty.measure(rollouts)
    usable_Q = difficulty.in_band(measured, config)
    order = [i for i in difficulty.hardest_first(measured, config, np.random.default_rng(1)) if usable_Q[i]]
    prompts = make_prompts(range(7))
    half = settings.Pairs(share=0.5)
    made = pairs.select(rollouts, measured.take(order), np.zeros(7, int), prompts, half, 0, 0)
    assert made.question_B.tolist() == [0, 1, 2]
    assert pairs.why_none(rollouts.take(range(12, 16)), True, half) == "harder questions took all of pairs.share=0.5"


def test_pairs_of_a_question_spread_over_its_responses():
    table = select([5], per_question=2)
    assert len(set(table.chosen_B)) == 2 and len(set(table.rejected_B)) == 2
    assert len(select([5], per_question=9)) == 4  # 2 correct × 2 wrong, no more


def test_every_pair_is_equally_likely():
    seen = [(t.chosen_B[0], t.rejected_B[0]) for t in (select([5], seed=s) for s in range(800))]
    share = [seen.count(pair) / 800 for pair in set(seen)]
    assert len(share) == 4 and max(share) < 0.32 and min(share) > 0.18


def test_closest_length():
    assert {select([5], seed=s, choice="closest_length").rejected_B[0] for s in range(20)} == {"no"}


def test_rules_that_need_all_responses_are_named():
    def named(**config):
        return [text.split(": ")[0] for text in pairs.changed_by_early_decision(settings.Pairs(**config))]

    assert named() == []
    assert [("closest_length" in t, "per_question=2" in t, "budget=9" in t)
            for t in named(choice="closest_length", per_question=2, budget=9)] == [
        (True, False, False), (False, True, False), (False, False, True)
    ]  # fmt: skip
