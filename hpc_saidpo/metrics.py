"""What an iteration did -> one flat record of figures with units, and the failure signatures it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from . import training
from .difficulty import in_band, measure, pass_at_k
from .evaluate import wilson
from .records import UNGRADABLE, ClusterCounts, Difficulty, Draw, Pairs, Rollouts
from .sampler import Config, entropy_share, events, posterior_rate

LOW_YIELD = 0.05  # under one pair in twenty explored questions, a round trains on almost nothing
NEAR_UNIFORM = 0.999  # share of the uniform entropy above which the weights say nothing
MIN_PROBES_PER_CLUSTER = 2
MANY_UNGRADABLE = 0.05
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
    config: Config,
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
        "cluster_weight": weight_C.tolist(),
        "cluster_drawn": np.bincount(draw.cluster_Q, minlength=len(weight_C)).tolist(),
        "clusters_probed": int((counts.n_C > 0).sum()),
        "entropy_share": entropy_share(weight_C, size_C),
        "draw_overlap": overlap,
    }


def of_explore(rollouts: Rollouts, difficulty: Difficulty, config, pairs: Pairs, k: int) -> dict:
    """Figures of exploration: pass rate, pair yield, tokens; what was not drawn because it was decided before.

    Args:
        k: responses to a question that is not decided before.
    """
    usable = in_band(difficulty, config)
    undrawn, saved_tokens = not_drawn(rollouts, k)
    return {
        "explored_questions": len(difficulty),
        "explored_pass_rate": float(difficulty.pass_rate_Q.mean()) if len(difficulty) else None,
        "pair_yield": float(usable.mean()) if len(usable) else 0.0,
        "pairs": len(pairs),
        "rollout_tokens": int(rollouts.n_tokens_R.sum()),
        "undrawn_responses": undrawn,
        "saved_tokens": saved_tokens,
        "truncated_share": float(1 - rollouts.finished_R.mean()) if len(rollouts) else None,
        "ungradable_share": float((rollouts.verdict_R == UNGRADABLE).mean()) if len(rollouts) else None,
        "rollout_s": float(rollouts.seconds_R.sum()),
    }


def not_drawn(rollouts: Rollouts, k: int) -> tuple[int, float]:
    """(responses short of k for each question, tokens that these would have had at their question's mean length)."""
    _, inverse_R, n_Q = np.unique(rollouts.question_R, return_inverse=True, return_counts=True)
    mean_Q = np.bincount(inverse_R, weights=rollouts.n_tokens_R, minlength=len(n_Q)) / n_Q
    return int((k - n_Q).sum()), float(((k - n_Q) * mean_Q).sum())


def of_training(steps: Sequence[Mapping]) -> dict:
    """Figures of the DPO round, by the names that TRL gives them: means over its steps, and the last step's."""
    names = [name for name in (*TRAINING, "tokens_per_s") if name in steps[0]]  # rounds of earlier versions have fewer
    facts = {f"dpo/{name}": float(np.mean([step[name] for step in steps])) for name in names}
    last = {f"dpo/{name}_last": steps[-1][name] for name in names if name != "tokens_per_s"}
    return {"dpo/steps": len(steps), **facts, **last}


def of_iteration(t, config, cluster_N, probed, evidence, draws, explored, pairs, steps, scores) -> dict:
    """Everything measured in iteration t, one record.

    Args:
        config: the run's configuration.
        probed, explored: the rollouts of both stages.
        evidence: (counts, weight) per cluster at the time of the draw.
        draws: (this iteration's, the last one's or None).
        steps: figures of each optimizer step.
        scores: accuracy by benchmark (after this iteration, before it).
    """
    seen, hard = measure(probed), measure(explored)
    record = {
        "iteration": t,
        "sampler_rule": config.sampler.rule,
        **of_probe(seen, in_band(seen, config.difficulty)),
        **of_draw(*evidence, config.sampler, cluster_N, *draws),
        **of_explore(explored, hard, config.difficulty, pairs, config.rollouts.k),
        **of_training(steps),
        "scores": scores[0],
        "scores_before": scores[1],
    }
    return {**record, "signatures": [*signatures(record, scores[1]), *training.signatures(steps)]}


def signatures(now: Mapping, before: Mapping | None) -> list[str]:
    """The failure signatures that an iteration shows, each with what to do."""
    found = []
    if now["pair_yield"] < LOW_YIELD:
        found.append(
            f"depletion: {now['pair_yield']:.1%} of the explored questions give a pair; raise rollouts.k or "
            "rollouts.temperature, or use an easier pool"
        )
    if now["sampler_rule"] != "uniform" and len(now["cluster_weight"]) > 1 and now["entropy_share"] > NEAR_UNIFORM:
        found.append(
            "stagnation: the cluster weights are nearly uniform; raise probe.fraction or sampler.alpha, or lower "
            "clusters.n"
        )
    if now["probe_questions"] < MIN_PROBES_PER_CLUSTER * len(now["cluster_weight"]):
        found.append(
            f"stagnation: {now['probe_questions']} probed questions for {len(now['cluster_weight'])} clusters say "
            "little about each; raise probe.fraction or lower clusters.n"
        )
    share = max(now["cluster_drawn"]) / max(1, sum(now["cluster_drawn"]))
    if len(now["cluster_drawn"]) > 1 and share > 0.8:
        found.append(f"collapse: one cluster takes {share:.0%} of the draws; lower sampler.alpha or raise clusters.n")
    if (now["ungradable_share"] or 0) > MANY_UNGRADABLE:
        found.append(
            f"grading: {now['ungradable_share']:.1%} of the responses are ungradable and were left out; look at the "
            "gold answers of the pool (the log tells how many are doubtful), or raise rollouts.grader.cpu_s"
        )
    for name, scores in now["scores"].items():
        earlier = (before or {}).get(name)
        if earlier and scores["accuracy"] is not None and scores["high95"] < earlier["low95"]:
            found.append(
                f"collapse: {name} fell from {earlier['accuracy']:.1%} to {scores['accuracy']:.1%}; lower dpo.lr or "
                "raise dpo.nll, and go on from the last good policy (policy.path)"
            )
    return found
