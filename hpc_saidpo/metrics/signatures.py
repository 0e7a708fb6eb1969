"""Failure signatures of an iteration: what its figures say has gone wrong, and what to do. Pure.

Of collapse, stagnation and depletion; those of the DPO round itself are in `training`. Each function looks at the
record of an iteration (`metrics.of_iteration`) and gives what it found in words, or "".
"""

from __future__ import annotations

from collections.abc import Mapping

from ..records import Difficulty

LOW_YIELD = 0.05  # under one pair in twenty explored questions, a round trains on almost nothing
MANY_EASY = 0.5  # more explored questions than this solved by every response: the draw has gone trivial
ONE_CLUSTER = 0.8  # share of the draws
NEAR_UNIFORM = 0.999  # share of the uniform entropy above which the weights say nothing
MIN_EVIDENCE = 2.0  # questions that were tried, by cluster
CHANCE = 0.05  # probability above which differences between clusters may as well be none
MANY_UNGRADABLE = 0.05


def of_iteration(now: Mapping, best: Mapping | None) -> list[str]:
    """The failure signatures that an iteration shows, each with what to do.

    Args:
        best: by benchmark, the best score that the run had before.
    """
    found = [_depletion(now), _trivial(now), _one_cluster(now), _ungradable(now)]
    if now["sampler_rule"] != "uniform" and len(now["cluster_weight"]) > 1:
        found += [_uniform(now), _little_evidence(now) or _noise(now)]
    found += [_fall(name, score, (best or {}).get(name)) for name, score in now["scores"].items()]
    return [text for text in found if text]


def stops(record: dict, on_signature: str, config_hash: str) -> str:
    """Why a finished iteration ends the run, and what to do; "" where it does not.

    One that was made with another configuration does not: the run goes on because something was changed.

    Args:
        record: the iteration's, as it is on disk.
        on_signature: loop.on_signature.
        config_hash: of the configuration at work.
    """
    if on_signature != "stop" or not record["signatures"] or record.get("config_hash") != config_hash:
        return ""
    shown = "".join(f"\n  {text}" for text in record["signatures"])
    return (
        f"stopped after iteration {record['iteration']}, which is complete, by loop.on_signature=stop:{shown}\n"
        "Go on in this run with another setting and run.accept_changes=true, or as it is with loop.on_signature=warn"
    )


def no_pairs(t: int, hard: Difficulty) -> str:
    """Why an iteration without a single pair stops the run, and what to do."""
    too_hard, too_easy = int((hard.n_correct_Q == 0).sum()), int((hard.pass_rate_Q == 1).sum())
    return (
        f"depletion in iteration {t}: none of the {len(hard)} explored questions gives a preference pair ({too_hard} "
        f"always wrong, {too_easy} always right). Go on in this run with another setting and run.accept_changes=true: "
        + (
            "an easier pool needs a new run, so first try a larger rollouts.k, more sampler.n_questions, or a better "
            "prompt (rollouts/prompt)"
            if too_hard >= too_easy
            else "a higher rollouts.temperature or rollouts.k; a harder pool needs a new run"
        )
    )


def _depletion(now) -> str:
    if now["pair_yield"] >= LOW_YIELD or now["explored_too_hard_share"] < now["explored_too_easy_share"]:
        return ""
    return (
        f"depletion: {now['pair_yield']:.1%} of the explored questions are in the band, "
        f"{now['explored_too_hard_share']:.0%} are too hard for the policy; raise rollouts.k or rollouts.temperature, "
        "lower difficulty.too_hard, or use an easier pool"
    )


def _trivial(now) -> str:
    if now["explored_too_easy_share"] <= MANY_EASY:
        return ""
    return (
        f"collapse: the explored questions have become trivial, {now['explored_too_easy_share']:.0%} are too easy for "
        "the policy; raise rollouts.k, rollouts.temperature or sampler.alpha, or use a harder pool"
    )


def _one_cluster(now) -> str:
    share = max(now["cluster_drawn"]) / max(1, sum(now["cluster_drawn"]))
    if len(now["cluster_drawn"]) < 2 or share <= ONE_CLUSTER:
        return ""
    return f"collapse: one cluster takes {share:.0%} of the draws; lower sampler.alpha or raise clusters.n"


def _uniform(now) -> str:
    if now["entropy_share"] <= NEAR_UNIFORM:
        return ""
    return (
        "stagnation: the cluster weights are nearly uniform; raise sampler.alpha or probe.fraction, or lower "
        "sampler.kappa or clusters.n"
    )


def _little_evidence(now) -> str:
    n, n_clusters = sum(now["cluster_questions"]), len(now["cluster_questions"])
    if n >= MIN_EVIDENCE * n_clusters:
        return ""
    return (
        f"stagnation: {n:.1f} questions tried (older ones discounted) say little about {n_clusters} clusters; raise "
        "probe.fraction or sampler.history, or lower clusters.n"
    )


def _noise(now) -> str:
    p = now["cluster_difference_p"]
    if p is None or p <= CHANCE:
        return ""
    return (
        f"stagnation: the clusters' error rates differ no more than chance alone would make them (p = {p:.2f}): the "
        "probe is too noisy, or the clusters are alike; raise probe.fraction, rollouts.k or sampler.history, or lower "
        "clusters.n"
    )


def _ungradable(now) -> str:
    share = now["ungradable_share"] or 0
    if share <= MANY_UNGRADABLE:
        return ""
    return (
        f"grading: {share:.1%} of the responses are ungradable and were left out; look at the gold answers of the pool "
        "(the log tells how many are doubtful), or raise rollouts.grader.cpu_s"
    )


def _fall(name, score, best) -> str:
    if not best or score["accuracy"] is None or score["high95"] >= best["low95"]:
        return ""
    return (
        f"collapse: {name} fell from {best['accuracy']:.1%} to {score['accuracy']:.1%}; lower dpo.lr or raise dpo.nll, "
        "and go on from the last good policy (policy.path)"
    )
