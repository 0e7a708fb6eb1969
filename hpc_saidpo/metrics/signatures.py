"""Failure signatures of an iteration, from its figures: what is wrong, and what to do. Pure.

They show collapse, stagnation and depletion; `training` has those of the DPO round itself. Each function reads the
record of an iteration (`iteration.describe_iteration`) and returns a message, or "".
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..errors import shown
from ..records import CORRECT, UNGRADABLE, WRONG, Rollouts
from ..sampler.rules import find_rule

LOW_YIELD = 0.05  # with less than one pair in twenty explored questions, a round trains on almost nothing
MANY_EASY = 0.5  # share of explored questions that every response solves; above it, the draw is trivial
ONE_CLUSTER = 0.8  # share of the draws, of those beyond the cluster's share of the pool
NEAR_UNIFORM = 0.999  # share of the uniform entropy; above it, the weights make no difference
MIN_EVIDENCE = 2.0  # questions tried, per cluster
CHANCE = 0.05  # probability; above it, chance alone may explain the differences between clusters
MANY_UNGRADABLE = 0.05
MANY_TRUNCATED = 0.5  # share of the responses
RESPONSE_CHARS = 600  # of a response that a message shows


def find_signatures(now: Mapping, best: Mapping | None) -> list[str]:
    """The failure signatures of an iteration, each with what to do.

    Args:
        now: the record of the iteration.
        best: by benchmark, the best score of the run before it.
    """
    messages = [_depletion(now) or _truncation(now), _trivial(now), _one_cluster(now), _ungradable(now)]
    if not find_rule(now["sampler_rule"]).is_uniform and len(now["cluster_weight"]) > 1:
        messages += [_uniform(now), "" if _is_by_kernel(now) else _little_evidence(now) or _noise(now)]
    messages += [_fall(name, score, (best or {}).get(name)) for name, score in now["scores"].items()]
    return [text for text in messages if text]


def stops(record: dict, on_signature: str, config_hash: str) -> str:
    """The reason why a finished iteration ends the run, and what to do; "" if it does not.

    An iteration of another configuration does not end the run: the run was continued because something was changed.

    Args:
        record: the record of the iteration, from disk.
        on_signature: loop.on_signature.
        config_hash: hash of the present configuration.
    """
    if on_signature != "stop" or not record["signatures"] or record.get("config_hash") != config_hash:
        return ""
    shown = "".join(f"\n  {text}" for text in record["signatures"])
    return (
        f"stopped after iteration {record['iteration']}, which is complete, by loop.on_signature=stop:{shown}\n"
        "Continue this run with another setting and run.accept_changes=true, or unchanged with loop.on_signature=warn"
    )


def no_pairs(t: int, figures: Mapping, rollouts: Rollouts) -> str:
    """The message when an iteration without a single pair stops the run: the reason, and what to do.

    Args:
        figures: those of its exploration (`iteration.describe_exploration`).
        rollouts: of the same; one is shown.
    """
    n, too_hard, too_easy = (
        figures[name] for name in ("explored_questions", "explored_too_hard_share", "explored_too_easy_share")
    )
    cut = _cut(figures)
    if cut:
        advice = f"{cut}, or set strings that end a response (rollouts.stop)"
    elif too_hard >= too_easy:
        advice = (
            "an easier pool needs a new run, so first try a larger rollouts.k, more sampler.n_questions, or a better "
            "prompt (rollouts/prompt)"
        )
    else:
        advice = "a higher rollouts.temperature or rollouts.k; a harder pool needs a new run"
    return (
        f"depletion in iteration {t}: none of the {n} explored questions yields a preference pair "
        f"({round(too_hard * n)} always wrong, {round(too_easy * n)} always right; "
        f"{figures['truncated_share'] or 0:.0%} of the responses were cut, "
        "and such a response is never chosen). Continue this run with another setting and run.accept_changes=true: "
        f"{advice}\n{typical(rollouts)}"
    )


def typical(rollouts: Rollouts) -> str:
    """One response as an example of what went wrong: a cut one if more than half are, else an ungradable or wrong one.

    Returns:
        A line with its question, its verdict and its text.
    """
    is_cut_R = ~rollouts.finished_R
    kinds = (
        ("cut", is_cut_R & (is_cut_R.mean() > MANY_TRUNCATED if len(rollouts) else False)),
        ("ungradable", rollouts.verdict_R == UNGRADABLE),
        ("wrong", rollouts.verdict_R == WRONG),
        ("correct", rollouts.verdict_R == CORRECT),
    )
    found = next(((name, rows[0]) for name, holds_R in kinds if len(rows := np.flatnonzero(holds_R))), None)
    if found is None:
        return "there is no response to show"
    kind, row = found
    one = rollouts.take([int(row)])
    return f"one response, to question {shown(one.id_R[0])} ({kind}): {shown(one.text_R[0], RESPONSE_CHARS)}"


def _cut(now: Mapping) -> str:
    """The advice if most responses were cut: nothing else can be judged before; "" if they were not."""
    share, limit = now.get("truncated_share") or 0, now.get("max_new_tokens")
    if share <= MANY_TRUNCATED:
        return ""
    at = f"={limit}" if limit else ""
    return f"{share:.0%} of the responses were cut at rollouts.max_new_tokens{at}: raise it"


def _depletion(now: Mapping) -> str:
    if now["pair_yield"] >= LOW_YIELD or now["explored_too_hard_share"] < now["explored_too_easy_share"]:
        return ""
    advice = "raise rollouts.k or rollouts.temperature, lower difficulty.too_hard, or use an easier pool"
    return (
        f"depletion: {now['pair_yield']:.1%} of the explored questions are in the band, "
        f"{now['explored_too_hard_share']:.0%} are too hard for the policy; {_cut(now) or advice}"
    )


def _truncation(now: Mapping) -> str:
    cut = _cut(now)
    return f"truncation: {cut}, or check whether the policy ends its responses (rollouts.prompt)" if cut else ""


def _trivial(now: Mapping) -> str:
    if now["explored_too_easy_share"] <= MANY_EASY:
        return ""
    return (
        f"collapse: the explored questions have become trivial, {now['explored_too_easy_share']:.0%} are too easy for "
        "the policy; raise rollouts.k, rollouts.temperature or sampler.alpha, or use a harder pool"
    )


def _one_cluster(now: Mapping) -> str:
    drawn, n = now["cluster_drawn"], max(1, sum(now["cluster_drawn"]))
    largest = max(range(len(drawn)), key=drawn.__getitem__)
    share, of_pool = drawn[largest] / n, now["cluster_size"][largest] / sum(now["cluster_size"])
    # A cluster that is most of the pool takes most of a random draw: what counts is the share of the rest.
    if len(drawn) < 2 or share - of_pool <= ONE_CLUSTER * (1 - of_pool):
        return ""
    return (
        f"collapse: one cluster takes {share:.0%} of the draws, with {of_pool:.0%} of the pool; lower sampler.alpha"
        + ("" if _is_by_kernel(now) else " or raise clusters.n")
    )


def _is_by_kernel(now: Mapping) -> bool:
    """Whether questions learned from their neighbours: then clusters are for tables only, and do not decide a draw."""
    return now.get("clusters_kind") == "kernel"


def _uniform(now: Mapping) -> str:
    if now["entropy_share"] <= NEAR_UNIFORM:
        return ""
    size = "clusters.neighbours" if _is_by_kernel(now) else "clusters.n"
    return (
        "stagnation: the weights are nearly uniform; raise sampler.alpha or probe.fraction, or lower sampler.kappa or "
        f"{size}"
    )


def _little_evidence(now: Mapping) -> str:
    n, n_clusters = sum(now["cluster_questions"]), len(now["cluster_questions"])
    if n >= MIN_EVIDENCE * n_clusters:
        return ""
    return (
        f"stagnation: {n:.1f} questions tried (older ones discounted) say little about {n_clusters} clusters; raise "
        "probe.fraction or sampler.history, or lower clusters.n"
    )


def _noise(now: Mapping) -> str:
    p = now["cluster_difference_p"]
    if p is None or p <= CHANCE:
        return ""
    return (
        f"stagnation: the clusters' error rates differ no more than chance alone would make them (p = {p:.2f}): the "
        "probe is too noisy, or the clusters are alike; raise probe.fraction, rollouts.k or sampler.history, or lower "
        "clusters.n"
    )


def _ungradable(now: Mapping) -> str:
    share = now["ungradable_share"] or 0
    if share <= MANY_UNGRADABLE:
        return ""
    return (
        f"grading: {share:.1%} of the responses are ungradable and were left out; look at the gold answers of the pool "
        "(the log shows how many are doubtful), or raise rollouts.grader.cpu_s"
    )


def _fall(name: str, score: Mapping, best: Mapping | None) -> str:
    if not best or score["accuracy"] is None or score["high95"] >= best["low95"]:
        return ""
    return (
        f"collapse: {name} fell from {best['accuracy']:.1%} to {score['accuracy']:.1%}; lower dpo.lr or raise dpo.nll, "
        "and continue from the last good policy (policy.path)"
    )
