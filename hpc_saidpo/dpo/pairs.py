"""Graded rollouts -> (chosen, rejected) preference pairs (method, step 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .. import settings
from ..records import CORRECT, WRONG, Difficulty, Pairs, Prompts, Rollouts, seeded


def changed_by_early_decision(config: settings.Pairs) -> list[str]:
    """Warnings about settings that change the pairs when questions stop at their first pair (rollouts.adaptive).

    The decision uses verdicts only. So the questions with a pair are those of K fixed responses, and so is the
    distribution of a random correct and a random wrong response. Settings that need all K responses, or compare pass
    rates, change the pairs.
    """
    warnings = {
        "pairs.choice=closest_length finds fewer responses to choose from": config.choice == "closest_length",
        f"pairs.per_question={config.per_question} finds fewer responses": config.per_question > 1,
        f"pairs.share={config.share} cuts by pass rates, which lean to one half": config.share < 1,
        f"pairs.budget={config.budget} cuts by pass rates, which lean to one half": config.budget is not None,
    }
    return [
        f"with rollouts.adaptive, {text}: other pairs than of k responses"
        for text, applies in warnings.items()
        if applies
    ]


def candidates(rollouts: Rollouts) -> list[tuple[int, int]]:
    """The possible pairs of one question's rollouts: (chosen row, rejected row).

    A truncated response is never chosen. Identical texts are never a pair; identical tokens have identical texts.
    """
    chosen = np.flatnonzero((rollouts.verdict_R == CORRECT) & rollouts.finished_R)
    rejected = np.flatnonzero(rollouts.verdict_R == WRONG)
    text = list(rollouts.text_R)
    return [(int(c), int(r)) for c in chosen for r in rejected if text[c].strip() != text[r].strip()]


def why_none(rollouts: Rollouts, in_band: bool, config: settings.Pairs) -> str:
    """Explain why a question has no pair.

    Args:
        rollouts: all rollouts of the question, at least one.
        in_band: whether the question is neither too hard nor too easy (`difficulty.in_band`).
    """
    n_correct, n_wrong = ((rollouts.verdict_R == verdict).sum() for verdict in (CORRECT, WRONG))
    if n_correct + n_wrong == 0:
        return "no response could be graded"
    if n_correct == 0:
        return "too hard: no response is correct"
    if n_wrong == 0:
        return "too easy: every response is correct"
    if not in_band:
        return "its pass rate lies outside the band of difficulty.too_hard and difficulty.too_easy"
    if not candidates(rollouts):
        return "every correct response is truncated, or is the same text as a wrong one"
    limits = [f"pairs.share={config.share}"] * (config.share < 1)
    limits += [f"pairs.budget={config.budget}"] * (config.budget is not None)
    return f"harder questions took all of {' and '.join(limits)}"


def pick(
    candidate: list[tuple[int, int]], rollouts: Rollouts, config: settings.Pairs, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Pick at most `per_question` candidates, each response in as few pairs as possible."""
    order = [candidate[i] for i in rng.permutation(len(candidate))]
    if config.choice == "closest_length":
        n_tokens_R = rollouts.n_tokens_R
        order.sort(key=lambda pair: abs(int(n_tokens_R[pair[0]]) - int(n_tokens_R[pair[1]])))
    used = np.zeros(len(rollouts), dtype=int)
    picked = []
    while order and len(picked) < config.per_question:
        pair = min(order, key=lambda p: used[p[0]] + used[p[1]])
        order.remove(pair)
        used[list(pair)] += 1
        picked.append(pair)
    return picked


def select(
    rollouts: Rollouts,
    hardest: Difficulty,
    cluster_N: np.ndarray,
    prompts: Prompts,
    config: settings.Pairs,
    seed: int,
    iteration: int,
) -> Pairs:
    """Select the pairs of an iteration, hardest question first.

    They are of the hardest `config.share` of the questions that yield a pair, rounded up, and at most `config.budget`.

    Args:
        rollouts: sorted by question.
        hardest: the questions in the band, in the order of preference.
        cluster_N: cluster of each question of the pool.
        prompts: of every question in `hardest`, in any order: those that the rollouts continue.
    """
    tables, n_pairs, all_picked = [], 0, []
    row_of = {question: row for row, question in enumerate(prompts.question_Q.tolist())}
    for i, question in enumerate(hardest.question_Q.tolist()):
        first, last = np.searchsorted(rollouts.question_R, [question, question + 1])
        of_question = rollouts.take(np.arange(first, last))
        picked = pick(candidates(of_question), of_question, config, seeded(seed, iteration, "pairs", question))
        if picked:
            all_picked.append((i, question, of_question, picked))
    for i, question, of_question, picked in all_picked[: math.ceil(config.share * len(all_picked))]:
        if config.budget is not None:
            picked = picked[: config.budget - n_pairs]
        if picked:
            measured, cluster = hardest.take([i]), int(cluster_N[question])
            prompt = prompts.take([row_of[question]])
            tables.append(_pairs(of_question, picked, measured, cluster, prompt, iteration))
        n_pairs += len(picked)
    return Pairs.concat(tables)


def _pairs(
    rollouts: Rollouts,
    picked: Sequence[tuple[int, int]],
    measured: Difficulty,
    cluster: int,
    prompt: Prompts,
    iteration: int,
) -> Pairs:
    """The table of one question's picked pairs; `measured` and `prompt` are of the question, one row each."""
    chosen, rejected = (rollouts.take(rows) for rows in np.array(picked).T)
    n = len(picked)
    return Pairs(
        question_B=chosen.question_R,
        iteration_B=np.full(n, iteration),
        chosen_sample_B=chosen.sample_R,
        rejected_sample_B=rejected.sample_R,
        chosen_finished_B=chosen.finished_R,
        rejected_finished_B=rejected.finished_R,
        cluster_B=np.full(n, cluster),
        pass_rate_B=np.full(n, measured.pass_rate_Q[0]),
        steps_B=np.full(n, measured.steps_Q[0]),
        tokens_B=np.full(n, measured.tokens_Q[0]),
        id_B=list(chosen.id_R),
        prompt_B=[prompt.text_Q[0]] * n,
        chosen_B=list(chosen.text_R),
        rejected_B=list(rejected.text_R),
        prompt_tokens_B=[prompt.tokens_Q[0]] * n,
        chosen_tokens_B=list(chosen.tokens_R),
        rejected_tokens_B=list(rejected.tokens_R),
    )
