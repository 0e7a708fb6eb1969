"""What an iteration did -> one flat record of figures with units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import fdtrc

from .. import settings
from ..difficulty import in_band, measure, pass_at_k
from ..evaluate.intervals import wilson
from ..records import UNGRADABLE, ClusterCounts, Difficulty, Draw, Pairs, Rollouts
from ..sampler.weights import entropy_share, events, posterior_rate
from . import signatures, training

TRAINING = (
    "loss", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "logps/chosen",
    "logps/rejected", "ref_logps/chosen", "ref_logps/rejected", "grad_norm",
)  # fmt: skip


def of_probe(difficulty: Difficulty, usable_Q: np.ndarray) -> dict:
    """Figures of the probe: pass rate with its interval, pass@k, share of usable questions."""
    n_tried = int(difficulty.n_tried_Q.sum())
    low, high = wilson(float(difficulty.n_correct_Q.sum()), n_tried)
    k = int(difficulty.n_tried_Q.min()) if len(difficulty) else 0
    return {
        "probe_questions": len(difficulty),
        "probe_pass_rate": float(difficulty.n_correct_Q.sum() / n_tried) if n_tried else None,
        "probe_pass_rate_low95": low,
        "probe_pass_rate_high95": high,
        "probe_pass_at_k": float(pass_at_k(difficulty.n_tried_Q, difficulty.n_correct_Q, k).mean()) if k else None,
        "probe_usable_share": float(usable_Q.mean()) if len(usable_Q) else None,
    }


def of_draw(
    counts: ClusterCounts,
    weight_C: np.ndarray,
    config: settings.Sampler,
    cluster_N: np.ndarray,
    draw: Draw,
    before: Draw | None,
) -> dict:
    """Figures of the draw: error rate of each cluster with its interval, weights, entropy, overlap."""
    size_C = np.bincount(cluster_N, minlength=len(weight_C))
    # Whatever the rule weighs by, errors are shown: in the band, unless the rule counts them all.
    error_C = events(counts, "error_all" if config.rule == "error_all" else "error")
    rate_C = posterior_rate(error_C, counts.n_C, config.kappa)
    interval_C = [wilson(min(e, n), n) for e, n in zip(error_C, counts.n_C, strict=True)]
    overlap = None if before is None else len(np.intersect1d(draw.question_Q, before.question_Q)) / len(draw)
    return {
        "cluster_error_rate": [None if np.isnan(r) else float(r) for r in rate_C],
        "cluster_error_low95": [low for low, _ in interval_C],
        "cluster_error_high95": [high for _, high in interval_C],
        "cluster_questions": counts.n_C.tolist(),
        "cluster_difference_p": difference_p(counts),
        "cluster_weight": weight_C.tolist(),
        "cluster_drawn": np.bincount(draw.cluster_Q, minlength=len(weight_C)).tolist(),
        "clusters_probed": int((counts.n_C > 0).sum()),
        "entropy_share": entropy_share(weight_C, size_C),
        "draw_overlap": overlap,
    }


def difference_p(counts: ClusterCounts) -> float | None:
    """Probability of clusters that differ so much in their errors in the band if they were all alike.

    The F-test of a one-way analysis of variance over the questions tried; None with too few to tell.
    """
    probed = counts.take(np.flatnonzero(counts.n_C > 0))
    n, between_df = probed.n_C.sum(), len(probed) - 1
    within_df = n - len(probed)
    if between_df < 1 or within_df <= 0:
        return None
    mean_C = probed.error_C / probed.n_C
    between = (probed.n_C * (mean_C - probed.error_C.sum() / n) ** 2).sum() / between_df
    within = (probed.error2_C - probed.n_C * mean_C**2).sum() / within_df
    if within <= 1e-12:  # no question differs from its cluster's others
        return 0.0 if between > 1e-12 else 1.0
    return float(fdtrc(between_df, within_df, between / within))


def of_explore(rollouts: Rollouts, difficulty: Difficulty, band: settings.Difficulty, pairs: Pairs, k: int) -> dict:
    """Figures of exploration: pass rate, pair yield, tokens; what was not drawn because it was decided before.

    Args:
        k: responses to a question that is not decided before.
    """
    usable = in_band(difficulty, band)
    undrawn, saved_tokens = not_drawn(rollouts, k)
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
        "ungradable_share": float((rollouts.verdict_R == UNGRADABLE).mean()) if len(rollouts) else None,
        "rollout_s": float(rollouts.seconds_R.sum()),
    }


def _share(holds_Q: np.ndarray) -> float:
    return float(holds_Q.mean()) if len(holds_Q) else 0.0


def not_drawn(rollouts: Rollouts, k: int) -> tuple[int, float]:
    """(responses short of k for each question, tokens that these would have had at their question's mean length)."""
    _, inverse_R, n_Q = np.unique(rollouts.question_R, return_inverse=True, return_counts=True)
    mean_Q = np.bincount(inverse_R, weights=rollouts.n_tokens_R, minlength=len(n_Q)) / n_Q
    return int((k - n_Q).sum()), float(((k - n_Q) * mean_Q).sum())


def saved_by_early_decision(fresh: Rollouts, k: int) -> str:
    """What rollouts.adaptive has saved, in words."""
    undrawn, tokens = not_drawn(fresh, k)
    share = tokens / max(1, tokens + fresh.n_tokens_R.sum())
    return (
        f"decided early: {undrawn} of {undrawn + len(fresh)} responses not drawn, {100 * share:.0f} % of the tokens "
        "saved (at each question's mean length)"
    )


def of_training(steps: Sequence[Mapping]) -> dict:
    """Figures of the DPO round, by the names that TRL gives them: means over its steps, and the last step's."""
    names = [name for name in (*TRAINING, "tokens_per_s") if name in steps[0]]  # rounds of earlier versions have fewer
    facts = {f"dpo/{name}": float(np.mean([step[name] for step in steps])) for name in names}
    last = {f"dpo/{name}_last": steps[-1][name] for name in names if name != "tokens_per_s"}
    return {"dpo/steps": len(steps), **facts, **last}


def best_of(best: Mapping[str, dict], after: Mapping[str, dict]) -> dict[str, dict]:
    """By benchmark, the score with the highest accuracy so far; one without questions does not count."""
    scored = {name: score for name, score in after.items() if score["accuracy"] is not None}
    known = {name: score for name, score in best.items() if score["accuracy"] is not None}
    return {
        name: max(filter(None, (known.get(name), scored.get(name))), key=lambda score: score["accuracy"])
        for name in {**known, **scored}
    }


@dataclass(frozen=True)
class IterationFacts:
    """What an iteration did.

    Attributes:
        t: its number.
        probed, explored: the rollouts of both stages.
        counts, weight_C: evidence and weight of each cluster at the time of the draw.
        before: the draw of the iteration before; None in the first.
        steps: figures of each optimizer step.
        scores, scores_before, best: accuracy by benchmark after this iteration, before it, and the best before it.
    """

    t: int
    probed: Rollouts
    counts: ClusterCounts
    weight_C: np.ndarray
    draw: Draw
    before: Draw | None
    explored: Rollouts
    pairs: Pairs
    steps: Sequence[Mapping]
    scores: Mapping[str, dict]
    scores_before: Mapping[str, dict]
    best: Mapping[str, dict]


def of_iteration(
    done: IterationFacts, sampler: settings.Sampler, band: settings.Difficulty, k: int, cluster_N: np.ndarray
) -> dict:
    """Everything measured in an iteration, one flat record.

    Args:
        k: responses to a question that is not decided early.
        cluster_N: the cluster of each question of the pool.
    """
    seen, hard = measure(done.probed), measure(done.explored)
    record = {
        "iteration": done.t,
        "sampler_rule": sampler.rule,
        **of_probe(seen, in_band(seen, band)),
        **of_draw(done.counts, done.weight_C, sampler, cluster_N, done.draw, done.before),
        **of_explore(done.explored, hard, band, done.pairs, k),
        **of_training(done.steps),
        "scores": done.scores,
        "scores_before": done.scores_before,
    }
    return {**record, "signatures": [*signatures.of_iteration(record, done.best), *training.signatures(done.steps)]}
