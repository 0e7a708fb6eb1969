"""Rollouts of a stage in one process, and early decisions."""

import numpy as np
import pytest
from scipy import stats
from support.collecting import QUESTIONS, SAMPLING, collect
from support.make import make_prompts, make_rollouts

from hpc_saidpo import difficulty, settings
from hpc_saidpo.dpo import pairs
from hpc_saidpo.parallel.world import World
from hpc_saidpo.records import CORRECT, UNGRADABLE, WRONG
from hpc_saidpo.rollouts import effort
from hpc_saidpo.rollouts.engine.engine import generate
from hpc_saidpo.store.stage import Stage


def test_the_longest_chunk_is_begun_first(folder, micro, monkeypatch):
    begun = []
    write_chunk = Stage.write_chunk
    monkeypatch.setattr(
        Stage, "write_chunk", lambda s, index, table: begun.append(index) or write_chunk(s, index, table)
    )
    collect(folder / "length", World(), micro, 3, drained=True)
    collect(folder / "expected", World(), micro, 3, expected={4: 500.0, 7: 90.0}, drained=True)
    assert begun == [0, 1, 2, 1, 2, 0]


def test_a_response_can_be_drawn_again_from_its_seed_alone(folder, world, micro):
    table = collect(folder, world, micro, 4)
    row = 7
    question = QUESTIONS[table.question_R[row]]
    assert table.id_R[row] == question.id and len(set(table.seed_R)) == len(table)
    ((again,),) = generate(
        micro, [micro.encode_prompt(question.text + "\n", False)], [[int(table.seed_R[row])]], SAMPLING
    )
    assert again.text == table.text_R[row]


def test_grades_and_counts(folder, world, micro):
    table = collect(folder, world, micro, 4, k=8)
    for row in range(len(table)):
        right = table.text_R[row].splitlines()[-1:] == [f"#### {QUESTIONS[table.question_R[row]].answer}"]
        assert (table.verdict_R[row] == CORRECT) == right
        assert table.n_steps_R[row] == len([line for line in table.text_R[row].splitlines() if line.strip()])
        assert table.n_tokens_R[row] == len(table.tokens_R[row])
        assert micro.tokenizer.decode(table.tokens_R[row], skip_special_tokens=True) == table.text_R[row]


def test_only_requested_stages_are_decided_early():
    config = settings.Rollouts(adaptive=True)
    assert config.waves_of("explore") == (2, 2, 4) and config.waves_of("probe") == config.waves_of("evaluate/x") == ()
    assert settings.Rollouts(adaptive=True, adaptive_probe=True).waves_of("probe") == (2, 2, 4)
    assert settings.Rollouts().waves_of("explore") == ()
    with pytest.raises(ValueError, match=r"waves \[2, 2, 4\] are 8 responses, not k=4"):
        settings.Rollouts(adaptive=True, k=4)


def test_a_question_is_decided_by_a_finished_correct_and_a_wrong_response():
    rows = {1: [(CORRECT, True), (WRONG, False)], 2: [(CORRECT, False), (WRONG, True)],
            3: [(CORRECT, True), (UNGRADABLE, True)], 4: [(WRONG, True), (CORRECT, True), (CORRECT, True)]}  # fmt: skip
    assert effort.decided(table_of(rows)) == {1, 4}


def table_of(rows):
    """Rollouts from question -> (verdict, finished) of each response."""
    return make_rollouts([(q, i, v, 5, 1, f, f"{q} {i}") for q, own in rows.items() for i, (v, f) in enumerate(own)])


def test_pairs_of_early_decisions_are_distributed_as_those_of_all_responses():
    # Correct responses of 3 lengths, wrong ones of 2: which are paired must not depend on when a question was decided.
    rng = np.random.default_rng(0)
    drawn = [[(rng.random() < p, rng.choice(3)) for _ in range(8)] for p in rng.beta(0.5, 0.5, 6000)]

    def paired(early, abandoned=False):
        kept = []
        for q, own in enumerate(drawn):
            ends = [n for n in (2, 4, 8) if 0 < sum(right for right, _ in own[:n]) < n] if early else [8]
            if abandoned and not any(right for right, _ in own[:2]):
                ends = [2]
            kept += [(q, i, CORRECT if right else WRONG, 1, 1, True, f"{right} {kind} {i}")
                     for i, (right, kind) in enumerate(own[: ends[0] if ends else 8])]  # fmt: skip
        table = make_rollouts(kept)
        hard = difficulty.measure(table)
        usable = hard.take(np.flatnonzero(difficulty.in_band(hard, settings.Difficulty())))
        found = pairs.select(table, usable, np.zeros(6000), make_prompts(usable.question_Q), settings.Pairs(), 0, 0)
        kinds = [c.split()[1] + r.split()[1] for c, r in zip(found.chosen_B, found.rejected_B, strict=True)]
        return found.question_B.tolist(), np.unique(kinds, return_counts=True)[1], len(table)

    (questions, counts, n), (early_questions, early_counts, early_n) = paired(False), paired(True)
    assert questions == early_questions and early_n < 0.9 * n
    assert stats.chi2_contingency([counts, early_counts]).pvalue > 0.01 and len(counts) == 9
    # Abandoned questions give no pair; those of the others are distributed as before.
    fewer, fewer_counts, fewer_n = paired(True, abandoned=True)
    assert set(fewer) < set(questions) and fewer_n < early_n
    assert stats.chi2_contingency([counts, fewer_counts]).pvalue > 0.01


def test_waves_go_on_to_k_max_in_the_exploration_only():
    config = settings.Rollouts(adaptive=True, k_max=15)
    assert config.waves_of("explore") == (2, 2, 4, 4, 3) and config.waves_of("probe") == ()
    assert settings.Rollouts(adaptive=True, k_max=8).waves_of("explore") == (2, 2, 4)
    assert (config.n_fixed("explore"), config.n_fixed("probe")) == (2, 8)
    with pytest.raises(ValueError, match="k_max=7 is below k=8"):
        settings.Rollouts(adaptive=True, k_max=7)
    for alone in ({"min_chance": 0.1}, {"k_max": 16}, {"adaptive_probe": True}):
        with pytest.raises(ValueError, match="need adaptive=true"):
            settings.Rollouts(**alone)
    with pytest.raises(ValueError, match="of a wave of 4 is a chance of"):
        settings.Rollouts(adaptive=True, min_chance=0.3)
    assert settings.Rollouts(adaptive=True, min_chance=0.3, waves=(4, 2, 2)).min_chance == 0.3


@pytest.mark.parametrize(("a", "b", "n", "s"), [(0.3, 0.5, 2, 0), (0.3, 0.5, 2, 2), (2, 1, 8, 0), (0.05, 4, 4, 0)])
def test_the_chance_of_a_pair_is_that_of_a_simulation(a, b, n, s):
    rng = np.random.default_rng(1)
    p = rng.beta(a, b, 2_000_000)
    p = p[rng.binomial(n, p) == s]  # the pass rates of questions with s of n correct
    s_next = rng.binomial(4, p)
    has_pair = s_next > 0 if s == 0 else s_next < 4
    error = has_pair.std() / np.sqrt(len(p)) + 1e-9
    assert abs(effort.pair_chance(a, b, n, s, 4) - has_pair.mean()) < 5 * error


def test_questions_are_abandoned_by_their_chance_of_a_pair():
    wrong, right = [(WRONG, True)] * 2, [(CORRECT, True)] * 2
    table = table_of({1: wrong, 2: wrong, 3: right, 4: [*wrong[:1], *right[:1]], 5: wrong})
    prior_Q = {1: (0.02, 3.0), 2: (1.0, 1.5), 3: (1.0, 1.0), 4: (1.0, 1.0)}  # of question 5 nothing is known
    for min_chance, going in ((0.0, [1, 2, 3, 5]), (0.05, [2, 3, 5]), (0.2, [5])):
        plan = effort.Effort((2, 2, 4), min_chance, prior_Q)
        own = {q: table.take(np.flatnonzero(table.question_R == q)) for q in range(1, 6)}
        assert [q for q in own if plan.goes_on(q, own[q], 2)] == going
