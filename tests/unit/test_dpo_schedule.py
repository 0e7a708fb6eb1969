import itertools

import numpy as np
import pytest

from hpc_saidpo import settings
from hpc_saidpo.dpo.schedule import batches, rate


@pytest.mark.parametrize("cut", [{"micro_pairs": 3}, {"micro_tokens": 30}])
def test_the_schedule_covers_every_pair_once_an_epoch(cut):
    width_B = np.arange(5, 26)
    schedule = batches(width_B, settings.Dpo(batch_pairs=8, epochs=2, **cut), 0, 0)
    assert [sum(map(len, step)) for step in schedule] == [8, 8, 5, 8, 8, 5]
    epochs = [sorted(i for step in half for micro in step for i in micro) for half in (schedule[:3], schedule[3:])]
    assert epochs == [list(range(21))] * 2
    assert schedule[:3] != schedule[3:]


def test_a_token_budget_holds_and_cuts_pairs_of_like_length_together_from_the_same_batches():
    width_B = np.random.default_rng(0).integers(5, 90, size=64)
    by_pairs, by_tokens = (
        batches(width_B, settings.Dpo(batch_pairs=16, **cut), 0, 0) for cut in ({}, {"micro_tokens": 80})
    )
    assert [sorted(i for m in step for i in m) for step in by_pairs] == [
        sorted(i for m in step for i in m) for step in by_tokens
    ]
    for step in by_tokens:
        assert any(len(micro) > 1 for micro in step)
        for micro, following in itertools.pairwise(step):
            assert width_B[micro].min() >= width_B[following].max()
            widest = width_B[micro].max()
            assert len(micro) * widest <= 80 or len(micro) == 1  # a pair longer than the budget is alone
            # and no micro-batch is smaller than it has to be
            assert (len(micro) + 1) * widest > 80 or width_B[following].max() < 0.75 * widest


def test_pairs_of_unlike_length_are_cut_apart_at_most_micro_pairs_together():
    config = settings.Dpo(batch_pairs=7, micro_pairs=3)
    ((*micro_batches,),) = batches(np.array([100, 30, 80, 75, 74, 20, 90]), config, 0, 0)
    assert micro_batches == [[0, 6, 2], [3, 4], [1], [5]]


def test_the_rate_warms_up_and_falls_to_zero_without_ever_being_it():
    rates = [rate(i, 20, 0.2) for i in range(20)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert all(a > b for a, b in itertools.pairwise(rates[4:])) and 0 < rates[-1] < 0.05
    assert rate(0, 1, 0.1) == 1.0
