"""Trained tokens are those that were drawn: odd tokenizers, several ends, stop strings, half characters."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from support.make import make_pairs, make_rollouts
from support.odd_tokenizers import KINDS, policy_of

from hpc_saidpo import difficulty, settings
from hpc_saidpo.dpo.examples import Examples, examples_of, key_of, tokenise
from hpc_saidpo.dpo.logps import ResponseLogps
from hpc_saidpo.dpo.pairs import candidates, select
from hpc_saidpo.policy.model import Policy
from hpc_saidpo.records import CORRECT, WRONG, Pairs, Prompts, Question, Rollouts, seed_of
from hpc_saidpo.rollouts.engine.engine import generate
from hpc_saidpo.rollouts.engine.sampling import Response
from hpc_saidpo.rollouts.prompts import Renderer
from hpc_saidpo.settings.rollouts import Sampling
from hpc_saidpo.store.stage import Stage

QUESTIONS = [Question(str(i), f"{i}+{i}=?\n", str(2 * i)) for i in range(3, 7)]
PLAIN = settings.Prompt(chat=False)
STOP = ("b", "2\n")  # "b" also ends inside the token "abc", and before the end of "bc"
K = 96


@dataclass
class Case:
    """Responses of a random policy, and pairs of them, by way of the disk; `drawn` is by question and sample."""

    policy: Policy
    stop: tuple[str, ...]
    prompts: Prompts
    drawn: dict[tuple[int, int], Response]
    pairs: Pairs
    examples: Examples


def rollouts_of(responses: list[list[Response]]) -> Rollouts:
    """A table of responses. Every second one that ended by itself is called correct."""
    return Rollouts.from_rows(
        (q, s, CORRECT if s % 2 and r.finished else WRONG, len(r.tokens), 1, r.finished, 0, r.seconds, str(q), r.text,
         r.tokens)
        for q, of_q in enumerate(responses) for s, r in enumerate(of_q)
    )  # fmt: skip


@pytest.fixture(scope="module", params=[(kind, stop) for kind in KINDS for stop in ((), STOP)], ids=str)
def case(request, tmp_path_factory) -> Case:
    kind, stop = request.param
    policy, stage = policy_of(KINDS[kind]()), Stage(tmp_path_factory.mktemp("stage"))
    prompts = Renderer(QUESTIONS, {}, policy, PLAIN).table(range(len(QUESTIONS)))
    seeds = [[seed_of(0, 0, "test", q, s) for s in range(K)] for q in range(len(QUESTIONS))]
    responses = generate(policy, [ids.tolist() for ids in prompts.tokens_Q], seeds, Sampling(1.0, 1.0, 14, stop))
    stage.write_chunk(0, rollouts_of(responses))
    stage.write("prompts", prompts)
    rollouts = stage.read_chunks(Rollouts)
    hardest, config = difficulty.measure(rollouts), settings.Pairs(per_question=40)
    stage.write("pairs", select(rollouts, hardest, np.zeros(9, int), stage.read("prompts", Prompts), config, 0, 0))
    pairs = stage.read("pairs", Pairs)
    drawn = {(q, s): r for q, of_q in enumerate(responses) for s, r in enumerate(of_q)}
    return Case(policy, stop, prompts, drawn, pairs, examples_of(pairs, policy, False, stop))


def responses_of(case: Case) -> list[tuple[list[int], str, Response]]:
    """(trained tokens, text of the pair, response) of each response of each pair."""
    pairs, examples = case.pairs, case.examples
    return [
        (tokens, text, case.drawn[int(q), int(s)])
        for ids, texts, sample_B in (
            (examples.chosen, pairs.chosen_B, pairs.chosen_sample_B),
            (examples.rejected, pairs.rejected_B, pairs.rejected_sample_B),
        )
        for tokens, text, q, s in zip(ids, texts, pairs.question_B, sample_B, strict=True)
    ]


def test_the_trained_tokens_are_the_drawn_ones(case):
    rows = responses_of(case)
    assert len(case.pairs) > 100 and {r.finished for *_, r in rows} == {True, False}
    assert all(tokens == r.tokens and text == r.text for tokens, text, r in rows)
    assert all(
        ids == case.prompts.tokens_Q[q].tolist() and text == case.prompts.text_Q[q]
        for ids, text, q in zip(case.examples.prompt, case.pairs.prompt_B, case.pairs.question_B, strict=True)
    )


def test_their_log_probability_is_the_one_of_the_engine(case):
    module, examples = ResponseLogps(case.policy.model), case.examples
    with torch.no_grad():
        sum_B2 = torch.cat([examples.logps(module, range(i, i + 1)).sum_BR for i in range(len(examples))]).numpy()
    pairs = case.pairs
    for side, sample_B in enumerate((pairs.chosen_sample_B, pairs.rejected_sample_B)):
        responses = [case.drawn[int(q), int(s)] for q, s in zip(pairs.question_B, sample_B, strict=True)]
        n_tokens_B = np.array([len(r.tokens) for r in responses])
        drawn_B = np.array([r.logp for r in responses])
        assert np.abs(sum_B2[:, side] - drawn_B).max() > 0 or np.ptp(drawn_B) > 0
        assert (np.abs(sum_B2[:, side] - drawn_B) / n_tokens_B).max() < 1e-4


def test_texts_alone_would_train_other_tokens(case):
    """Each kind of response for which the ids are kept occurs here."""
    rows, tokenizer = responses_of(case), case.policy.tokenizer
    ends = {tokens[-1] for tokens, _, r in rows if r.finished}
    by_text = tokenise(case.pairs, case.policy, False, case.stop)
    assert by_text.prompt == case.examples.prompt
    assert by_text.chosen != case.examples.chosen and by_text.rejected != case.examples.rejected
    assert any("\ufffd" in text for _, text, _ in rows)  # half a character
    think = tokenizer.convert_tokens_to_ids("</think>")
    assert any(think in tokens[:-1] for tokens, *_ in rows)
    assert all(text.count("</think>") == tokens.count(think) for tokens, text, r in rows if not case.stop)
    if not case.stop:
        assert ends == case.policy.eos_ids and len(ends) == 2  # each end token ended some response
        return
    assert not any(stop in text for _, text, _ in rows for stop in case.stop)
    inside = [tokenizer.decode([end]) for end in ends - case.policy.eos_ids]
    assert any(piece.endswith("c") for piece in inside) and any(piece.startswith("a") for piece in inside)


def test_pairs_of_texts_alone_are_tokenised(case, caplog):
    policy, pairs = case.policy, case.pairs
    alone = replace(pairs, prompt_tokens_B=None, chosen_tokens_B=None, rejected_tokens_B=None)
    assert not any(map(len, alone.chosen_tokens_B)) and len(alone) == len(pairs)
    assert examples_of(alone, policy, False, case.stop) == tokenise(pairs, policy, False, case.stop)
    assert key_of(alone) != key_of(pairs) and key_of(pairs) == key_of(pairs.take(np.arange(len(pairs))))
    other = replace(pairs, chosen_tokens_B=pairs.rejected_tokens_B)
    assert key_of(other) != key_of(pairs)


def test_equal_tokens_are_never_a_pair(case):
    rollouts = rollouts_of([[r for (q, _), r in case.drawn.items() if q == 0] * 2])
    for chosen, rejected in candidates(rollouts):
        assert not np.array_equal(rollouts.tokens_R[chosen], rollouts.tokens_R[rejected])


def test_a_table_without_ids_has_empty_rows():
    assert [len(ids) for ids in make_pairs(3).chosen_tokens_B] == [0, 0, 0]
    assert make_rollouts([(1, 0, CORRECT, 3, 1, True, "x")]).tokens_R[0].dtype == np.int32
