"""The facts of an iteration -> one flat record of figures with units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .. import settings
from ..difficulty import in_band, measure, pass_at_k
from ..evaluate.intervals import mean_rate
from ..records import UNGRADABLE, Difficulty, Draw, Pairs, Rollouts
from ..sampler.counts import ClusterCounts
from ..sampler.rules import find_rule
from ..sampler.spread import difference_p, rate_intervals
from ..sampler.weights import posterior_rate
from . import signatures, training

TRAINING = (
    "loss", "preference_loss", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies",
    "logps/chosen", "logps/rejected", "ref_logps/chosen", "ref_logps/rejected", "grad_norm",
)  # fmt: skip


def describe_probe(difficulty: Difficulty, usable_Q: np.ndarray) -> dict:
    """Figures of the probe: pass rate with its interval, pass@k, share of usable questions."""
    rate, low, high = mean_rate(difficulty) if len(difficulty) else (None, 0.0, 1.0)
    k = int(difficulty.n_tried_Q.min()) if len(difficulty) else 0
    return {
        "probe_questions": len(difficulty),
        "probe_pass_rate": rate,
        "probe_pass_rate_low95": low,
        "probe_pass_rate_high95": high,
        "probe_pass_at_k": float(pass_at_k(difficulty.n_tried_Q, difficulty.n_correct_Q, k).mean()) if k else None,
        "probe_usable_share": float(usable_Q.mean()) if len(usable_Q) else None,
    }


def describe_draw(
    counts: ClusterCounts,
    weight_C: np.ndarray,
    config: settings.Sampler,
    cluster_N: np.ndarray,
    draw: Draw,
    before: Draw | None,
) -> dict:
    """Figures of the draw: error rate of each cluster with its interval, weights, entropy, overlap."""
    error_C = find_rule(config.rule).errors(counts)
    rate_C = posterior_rate(error_C, counts.n_C, config.kappa)
    low_C, high_C = rate_intervals(counts, error_C, config.kappa)
    overlap = None if before is None else len(np.intersect1d(draw.question_Q, before.question_Q)) / len(draw)
    return {
        "cluster_error_rate": [None if np.isnan(r) else float(r) for r in rate_C],
        "cluster_error_low95": low_C.tolist(),
        "cluster_error_high95": high_C.tolist(),
        "cluster_questions": counts.n_C.tolist(),
        "cluster_difference_p": difference_p(counts),
        "cluster_weight": weight_C.tolist(),
        "cluster_drawn": np.bincount(draw.cluster_Q, minlength=len(weight_C)).tolist(),
        "cluster_size": np.bincount(cluster_N, minlength=len(weight_C)).tolist(),
        "clusters_probed": int((counts.n_C > 0).sum()),
        "draw_overlap": overlap,
    }


def describe_exploration(
    rollouts: Rollouts, difficulty: Difficulty, band: settings.Difficulty, pairs: Pairs, config: settings.Rollouts
) -> dict:
    """Figures of exploration: pass rate, pair yield, tokens, savings by early decision."""
    usable = in_band(difficulty, band)
    undrawn, saved_tokens = count_undrawn(rollouts, config.k)
    return {
        "explored_questions": len(difficulty),
        "explored_pass_rate": float(difficulty.pass_rate_Q.mean()) if len(difficulty) else None,
        "explored_too_hard_share": _share(difficulty.pass_rate_Q <= band.too_hard),
        "explored_too_easy_share": _share(difficulty.pass_rate_Q >= band.too_easy),
        "pair_yield": _share(usable),
        "pairs": len(pairs),
        "rollout_tokens": int(rollouts.n_tokens_R.sum()),
        "undrawn_responses": undrawn,
        "saved_tokens": saved_tokens,
        "truncated_share": float(1 - rollouts.finished_R.mean()) if len(rollouts) else None,
        "max_new_tokens": config.max_new_tokens,
        "ungradable_share": float((rollouts.verdict_R == UNGRADABLE).mean()) if len(rollouts) else None,
        "rollout_s": float(rollouts.seconds_R.sum()),
    }


def _share(holds_Q: np.ndarray) -> float:
    return float(holds_Q.mean()) if len(holds_Q) else 0.0


def count_undrawn(rollouts: Rollouts, k: int) -> tuple[int, float]:
    """(responses that are missing to k per question, their tokens at the mean length of their question)."""
    _, inverse_R, n_Q = np.unique(rollouts.question_R, return_inverse=True, return_counts=True)
    mean_Q = np.bincount(inverse_R, weights=rollouts.n_tokens_R, minlength=len(n_Q)) / n_Q
    undrawn_Q = np.maximum(k - n_Q, 0)  # with rollouts.k_max some questions have more
    return int(undrawn_Q.sum()), float((undrawn_Q * mean_Q).sum())


def describe_savings(fresh: Rollouts, k: int) -> str:
    """The savings of rollouts.adaptive, in words."""
    undrawn, tokens = count_undrawn(fresh, k)
    share = tokens / max(1, tokens + fresh.n_tokens_R.sum())
    return (
        f"decided early: {undrawn} of {undrawn + len(fresh)} responses not drawn, {100 * share:.0f} % of the tokens "
        "saved (at each question's mean length)"
    )


def describe_training(steps: Sequence[Mapping]) -> dict:
    """Figures of the DPO round, by their names in TRL: means over its steps, and values of the last step."""
    names = [
        name for name in (*TRAINING, "tokens_per_s") if all(name in step for step in steps)
    ]  # rounds that an earlier version made or began have fewer figures
    facts = {f"dpo/{name}": float(np.mean([step[name] for step in steps])) for name in names}
    last = {f"dpo/{name}_last": steps[-1][name] for name in names if name != "tokens_per_s"}
    return {"dpo/steps": len(steps), **facts, **last}


def update_best(best: Mapping[str, dict], after: Mapping[str, dict]) -> dict[str, dict]:
    """By benchmark, the score with the highest accuracy so far. A score without questions does not count."""
    scored = {name: score for name, score in after.items() if score["accuracy"] is not None}
    earlier = {name: score for name, score in best.items() if score["accuracy"] is not None}
    return {
        name: max(filter(None, (earlier.get(name), scored.get(name))), key=lambda score: score["accuracy"])
        for name in {**earlier, **scored}
    }


@dataclass(frozen=True)
class IterationFacts:
    """The facts of an iteration.

    Attributes:
        t: its number.
        probed, explored: the rollouts of both stages.
        counts, weight_C: evidence and weight of each cluster at the draw.
        entropy_share: of the draw (`sampler.weights.entropy_share`).
        before: the draw of the previous iteration; None in the first.
        steps: figures of each optimizer step.
        scores, scores_before, best: accuracy by benchmark after this iteration, before it, and the best before it.
    """

    t: int
    probed: Rollouts
    counts: ClusterCounts
    weight_C: np.ndarray
    entropy_share: float
    draw: Draw
    before: Draw | None
    explored: Rollouts
    pairs: Pairs
    steps: Sequence[Mapping]
    scores: Mapping[str, dict]
    scores_before: Mapping[str, dict]
    best: Mapping[str, dict]
    clusters_kind: str = "kmeans"


def describe_iteration(
    done: IterationFacts,
    sampler: settings.Sampler,
    band: settings.Difficulty,
    rollouts: settings.Rollouts,
    cluster_N: np.ndarray,
) -> dict:
    """All figures of an iteration, as one flat record.

    Args:
        cluster_N: the cluster of each question of the pool that may be drawn.
    """
    seen, hard = measure(done.probed), measure(done.explored)
    record = {
        "iteration": done.t,
        "sampler_rule": sampler.rule,
        "clusters_kind": done.clusters_kind,
        **describe_probe(seen, in_band(seen, band)),
        **describe_draw(done.counts, done.weight_C, sampler, cluster_N, done.draw, done.before),
        "entropy_share": done.entropy_share,
        **describe_exploration(done.explored, hard, band, done.pairs, rollouts),
        **describe_training(done.steps),
        "scores": done.scores,
        "scores_before": done.scores_before,
    }
    return {
        **record,
        "signatures": [*signatures.find_signatures(record, done.best), *training.find_signatures(done.steps)],
    }
