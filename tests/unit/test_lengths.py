"""Questions that are too long for the policy: found before the first rollout, exactly, and never drawn."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.make import MICRO
from transformers import AutoModelForCausalLM, MptConfig

from hpc_saidpo import settings
from hpc_saidpo.errors import RunError
from hpc_saidpo.parallel.world import World
from hpc_saidpo.policy.model import Policy, max_positions
from hpc_saidpo.records import Question
from hpc_saidpo.rollouts import lengths
from hpc_saidpo.rollouts.prompts import Renderer
from hpc_saidpo.rollouts.stage import find_too_long
from hpc_saidpo.sampler.history import check_enough
from hpc_saidpo.sampler.sampler import Sampler
from hpc_saidpo.store.run import RunDir

PLAIN = settings.Rollouts(max_new_tokens=40, prompt=settings.Prompt(chat=False, question="{question}\n", system=""))
TEXTS = ["7 + 5", "é" * 100, "1 + " * 120 + "1", "ﷺ" * 30, "9" * 250, " " * 400, "12345 * 2 " * 30, ""]


@pytest.fixture(scope="module")
def policy():
    return Policy.without_weights(MICRO)


def questions(texts=TEXTS):
    return [Question(f"q{i}", text, "1", subject=f"s{i % 2}") for i, text in enumerate(texts)]


def exact(policy, some, examples, config):
    prompts = Renderer(some, examples, policy, config.prompt)
    n_tokens = np.array([len(prompts.tokens(i)) for i in range(len(some))])
    return np.flatnonzero(n_tokens + config.max_new_tokens > max_positions(policy)).tolist()


@pytest.mark.parametrize("max_new_tokens", [1, 40, 120, 200, 250])
@pytest.mark.parametrize("shots", [0, 2])
def test_they_are_those_whose_prompts_are_too_long(policy, max_new_tokens, shots):
    prompt = replace(PLAIN.prompt, shots=shots, question="{question} again: {question}\n" if shots else "{question}\n")
    config = replace(PLAIN, max_new_tokens=max_new_tokens, prompt=prompt)
    examples = {f"s{i}": questions(["1 + 1", "2 + 2 + " * i + "1"]) for i in range(2)}
    some = questions()
    limit = int(max_positions(policy))
    found = lengths.examine_lengths(some, range(len(some)), examples, policy, config, limit)
    assert found.question_Q.tolist() == exact(policy, some, examples, config)
    assert found.id_Q == [f"q{i}" for i in found.question_Q] and set(found.n_positions_Q) <= {limit}


def test_short_texts_are_not_encoded(policy, monkeypatch):
    """Of a large pool only long texts are worth the time."""
    encoded = []
    encode = policy.encode_prompt
    monkeypatch.setattr(policy, "encode_prompt", lambda text, chat: encoded.append(text) or encode(text, chat))
    some = questions(["1 + 1"] * 1000 + ["1 + " * 200])
    found = lengths.examine_lengths(some, range(len(some)), {}, policy, PLAIN, int(max_positions(policy)))
    assert found.question_Q.tolist() == [1000] and len(encoded) == 2  # one to measure what surrounds a question


def test_they_are_found_once_and_listed(tmp_path):
    run = RunDir(tmp_path / "runs" / "a", World(), {}, print)
    some = questions(["1 + 1"] * 7 + ["1 + " * 150, "1 + " * 200])
    found, file = find_too_long(some, "pool", {}, MICRO, PLAIN, run)
    assert [json.loads(line)["id"] for line in Path(file).read_text().splitlines()] == ["q7", "q8"] == list(found.id_Q)
    text = found.describe(len(some), PLAIN.max_new_tokens)
    assert text.startswith("2 of 9 questions are too long for the 256 positions of the policy")
    assert f"max_new_tokens=40, q8 needs {found.n_tokens_Q[1] + 40}, q7 needs" in text
    again, _ = find_too_long([], "pool", {}, MICRO, PLAIN, run)  # the same key: nothing is examined again
    assert again.question_Q.tolist() == [7, 8]
    fewer, _ = find_too_long(some, "pool", {}, MICRO, replace(PLAIN, max_new_tokens=250), run)
    assert len(fewer) == 2 or len(fewer) == 9


def test_the_sampler_never_draws_them():
    cluster_N = np.arange(40) % 3
    sampler = Sampler(cluster_N, settings.Sampler(n_questions=9), seed=1, never_Q=np.array([3, 4, 30]))
    free = Sampler(cluster_N, settings.Sampler(n_questions=37), seed=1, never_Q=[3, 4, 30])
    drawn = set()
    for t in range(30):
        sampler.begin(t)
        drawn |= set(sampler.draw().tolist())
    assert drawn == set(range(40)) - {3, 4, 30} == set(free.draw().tolist())
    with pytest.raises(RunError, match="only 37 of 40 questions may be drawn"):
        Sampler(cluster_N, settings.Sampler(n_questions=38), never_Q=[3, 4, 30]).draw()


@pytest.mark.parametrize(
    "n_allowed, iterations, exclude, is_enough",
    [(10, 3, 0, True), (9, 3, 0, False), (20, 3, 1, True), (19, 3, 1, False), (19, 1, 1, True), (30, 3, 7, True)],
)
def test_the_pool_must_be_large_enough_for_every_draw(n_allowed, iterations, exclude, is_enough):
    config = settings.Sampler(n_questions=10, exclude_iterations=exclude)
    if is_enough:
        check_enough(n_allowed, iterations, config)
        return
    with pytest.raises(RunError, match=rf"sampler\.n_questions=10 .* but has {n_allowed}: lower sampler\.n_questions"):
        check_enough(n_allowed, iterations, config)


def test_the_length_of_a_row_is_limited_under_another_name(policy):
    """MPT's biases are computed for max_seq_len positions."""
    config = MptConfig(d_model=16, n_heads=2, n_layers=1, vocab_size=99, max_seq_len=40)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert max_positions(replace(policy, model=model)) == 40
