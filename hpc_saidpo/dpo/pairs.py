"""Graded rollouts -> (chosen, rejected) preference pairs (README, method step 6)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .. import settings
from ..records import CORRECT, WRONG, Difficulty, Pairs, Rollouts, seeded


def changed_by_early_decision(config: settings.Pairs) -> list[str]:
    """Where pairs differ from those of K fixed responses when questions stop at their first pair (rollouts.adaptive).

    Which questions give a pair, and the distribution of a random correct and a random wrong response, do not differ:
    the decision looks at verdicts only. What needs all K responses, or compares pass rates, does.
    """
    found = {
        "pairs.choice=closest_length finds fewer responses to choose from": config.choice == "closest_length",
        f"pairs.per_question={config.per_question} finds fewer responses": config.per_question > 1,
        f"pairs.budget={config.budget} cuts by pass rates, which lean to one half": config.budget is not None,
    }
    return [
        f"with rollouts.adaptive, {text}: other pairs than of k responses" for text, is_so in found.items() if is_so
    ]


def candidates(rollouts: Rollouts) -> list[tuple[int, int]]:
    """Every (chosen row, rejected row) of one question's rollouts that may be a pair.

    A truncated response is never chosen, and identical texts are never a pair.
    """
    chosen = np.flatnonzero((rollouts.verdict_R == CORRECT) & rollouts.finished_R)
    rejected = np.flatnonzero(rollouts.verdict_R == WRONG)
    text = list(rollouts.text_R)
    return [(int(c), int(r)) for c in chosen for r in rejected if text[c].strip() != text[r].strip()]


def why_none(rollouts: Rollouts, in_band: bool, config: settings.Pairs) -> str:
    """Why a question gave no pair, in words.

    Args:
        rollouts: all of that question, one or more.
        in_band: whether it is neither too hard nor too easy (`difficulty.in_band`).
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
    return f"harder questions took all of pairs.budget={config.budget}"


def pick(candidate: list[tuple[int, int]], rollouts: Rollouts, config: settings.Pairs, rng: np.random.Generator):
    """At most `per_question` of the candidates, each response in as few pairs as can be."""
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
    prompt: Callable[[int], str],
    config: settings.Pairs,
    seed: int,
    iteration: int,
) -> Pairs:
    """The pairs of an iteration, hardest question first, cut at `config.budget`.

    Args:
        rollouts: sorted by question.
        hardest: the questions in the band, in the order of preference.
        prompt: question index -> the prompt that its rollouts continued.
    """
    tables = []
    n_pairs = 0
    for i, question in enumerate(hardest.question_Q.tolist()):
        first, last = np.searchsorted(rollouts.question_R, [question, question + 1])
        own = rollouts.take(np.arange(first, last))
        picked = pick(candidates(own), own, config, seeded(seed, iteration, "pairs", question))
        if config.budget is not None:
            picked = picked[: config.budget - n_pairs]
        if picked:
            tables.append(_pairs(own, picked, hardest.take([i]), int(cluster_N[question]), prompt(question), iteration))
        n_pairs += len(picked)
    return Pairs.concat(tables)


def _pairs(own: Rollouts, picked, hardness: Difficulty, cluster: int, prompt: str, iteration: int) -> Pairs:
    """Picked pairs of one question; `hardness` is its row."""
    chosen, rejected = (own.take(rows) for rows in np.array(picked).T)
    n = len(picked)
    return Pairs(
        question_B=chosen.question_R,
        iteration_B=np.full(n, iteration),
        chosen_sample_B=chosen.sample_R,
        rejected_sample_B=rejected.sample_R,
        chosen_finished_B=chosen.finished_R,
        rejected_finished_B=rejected.finished_R,
        cluster_B=np.full(n, cluster),
        pass_rate_B=np.full(n, hardness.pass_rate_Q[0]),
        steps_B=np.full(n, hardness.steps_Q[0]),
        tokens_B=np.full(n, hardness.tokens_Q[0]),
        id_B=list(chosen.id_R),
        prompt_B=[prompt] * n,
        chosen_B=list(chosen.text_R),
        rejected_B=list(rejected.text_R),
    )
