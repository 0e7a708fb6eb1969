"""Values that many tests need: the micro model, rollouts, pairs."""

from __future__ import annotations

import numpy as np
import torch

from hpc_saidpo import settings
from hpc_saidpo.policy.locate import locate
from hpc_saidpo.policy.model import Policy
from hpc_saidpo.pool import arithmetic
from hpc_saidpo.records import Pairs, Prompts, Rollouts

MICRO = locate("pkg://hpc_saidpo/data/micro_llama")


def load_micro() -> Policy:
    """A fresh copy of the shipped micro model."""
    return Policy.load(MICRO, settings.Policy(path=MICRO), torch.device("cpu"))


def make_rollouts(rows) -> Rollouts:
    """Rollouts from rows (question, sample, verdict, n_tokens, n_steps, finished, text)."""
    question, sample, verdict, n_tokens, n_steps, finished, text = zip(*rows, strict=True)
    return Rollouts(
        np.array(question), np.array(sample), np.array(verdict), np.array(n_tokens), np.array(n_steps),
        np.array(finished, dtype=bool), np.arange(len(rows), dtype=np.uint64), np.ones(len(rows)),
        [f"q{i}" for i in question], list(text),
    )  # fmt: skip


def make_prompts(question_Q) -> Prompts:
    """The prompt of question 7 is "prompt 7", with the token ids 7 and 8."""
    return Prompts.from_rows((int(q), f"prompt {q}", [int(q), int(q) + 1]) for q in question_Q)


def make_pairs(n=20, seed=0) -> Pairs:
    """Right against wrong answers of arithmetic questions; question i of the pool, by index 100 + i, is called q<i>."""
    problems = arithmetic.problems({"trained": 1.0}, n, seed)
    zeros = np.zeros(n, dtype=np.int64)
    yes = np.ones(n, dtype=bool)
    return Pairs(
        100 + np.arange(n), zeros, zeros, zeros + 1, yes, yes, zeros, np.full(n, 0.5), zeros + 2.0, zeros + 9.0,
        [f"q{i}" for i in range(n)],
        [p.text + "\n" for p in problems], [p.solution for p in problems], [p.solution[:-1] + "x" for p in problems],
    )  # fmt: skip
