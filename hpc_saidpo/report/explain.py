"""Explain from a run's store why a question was drawn or not, and whether it became a preference pair."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from .. import difficulty, settings
from ..clusters.kernel import Neighbourhood
from ..dpo import pairs
from ..errors import RunError, shown, words_of
from ..evaluate.table import interval
from ..reading import parse_yaml
from ..records import CORRECT, UNGRADABLE, WRONG, Draw, Pairs, Rollouts, seeded
from ..sampler.betabinomial import fit
from ..sampler.evidence import ClusterEvidence, QuestionEvidence, chances
from ..sampler.rules import RULES, find_rule
from ..sampler.spread import rate_intervals
from ..sampler.weights import posterior_rate
from ..store.files import read_parsed
from ..store.layout import folder_of
from ..store.stage import Stage
from ..table import Columns

T = TypeVar("T", bound=Columns)
_OF_SAMPLER = ("rule", "history", "kappa", "alpha", "thompson", "exclude_iterations")


@dataclass(frozen=True)
class Iteration:
    """The finished stages of one iteration of a run.

    Attributes:
        t: number of the iteration.
        settings: the run's configuration, plain values.
    """

    run: Path
    t: int
    settings: dict[str, Any]

    @classmethod
    def open(cls, run: Path, t: int) -> Iteration:
        """Open an iteration that has a finished draw.

        Raises:
            RunError: there is no such run, or the iteration has no finished draw.
        """
        if not (run / "config.yaml").is_file():
            raise RunError(f"{shown(run)} is no run folder: it has no config.yaml")
        iteration = cls(run, t, _configuration(run / "config.yaml"))
        draw = iteration.stage("draw")
        if not draw.done:
            raise RunError(
                f"{shown(run / folder_of(t))} has no finished draw: resume the run, or name another --iteration"
            )
        if "history.h5" not in draw.manifest():
            raise RunError(
                f"{shown(draw.path)} has no history.h5: an earlier version made the draw and did not store it"
            )
        return iteration

    def stage(self, name: str) -> Stage:
        """A stage of this iteration."""
        return Stage(self.run / folder_of(self.t) / name, {"iteration": self.t, "stage": name})

    def table(self, name: str, cls: type[T]) -> T:
        """A table of the draw."""
        return self.stage("draw").read(name, cls)

    @cached_property
    def rollouts(self) -> Rollouts:
        """The rollouts of the probe and of the exploration, as far as they are finished."""
        done = [stage for stage in map(self.stage, ("probe", "explore")) if stage.done]
        return Rollouts.concat([stage.read_chunks(Rollouts) for stage in done]).sorted()

    @cached_property
    def draw(self) -> Draw:
        return self.table("draw", Draw)

    @cached_property
    def explored(self) -> Draw:
        """The drawn questions that were explored: all of them, unless sampler.budget ended the exploration."""
        return self.draw.explored(self.rollouts.question_R) if self.stage("explore").done else self.draw

    @cached_property
    def questions(self) -> QuestionEvidence:
        return self.table("history", QuestionEvidence)

    @property
    def is_by_kernel(self) -> bool:
        """Whether questions learned from their neighbours, not from their clusters (clusters.kind at the draw)."""
        return "neighbourhoods.h5" in self.stage("draw").manifest()

    @cached_property
    def neighbourhoods(self) -> Neighbourhood:
        return self.table("neighbourhoods", Neighbourhood)

    @cached_property
    def clusters(self) -> ClusterEvidence:
        return self.table("clusters", ClusterEvidence)


def _configuration(path: Path) -> dict[str, Any]:
    """Return a run's configuration as plain values.

    Raises:
        RunError: it is damaged, or lacks a setting that an explanation needs.
    """
    config = read_parsed(path, parse_yaml, dict) or {}
    try:
        settings.Run(seed=config["run"]["seed"])
        settings.Rollouts(k=config["rollouts"]["k"])
        settings.Sampler(**{key: config["sampler"][key] for key in _OF_SAMPLER})
        settings.Difficulty(**config["difficulty"])
        settings.Pairs(**config["pairs"])
    except (ValueError, LookupError, TypeError) as error:
        raise RunError(f"{shown(path)} is no configuration of a run ({words_of(error)}): put back a copy") from error
    return config


def explain(run: Path, t: int, question_id: str, imports: bool = True) -> list[tuple[str, str]]:
    """Explain a question that an iteration probed or explored, in the order of the pipeline.

    Args:
        t: number of the iteration.
        question_id: id of the question in the pool.
        imports: import the module of a rule that is none of the package's.

    Returns:
        (subject, text) of each line.

    Raises:
        RunError: no such run, iteration or question; or a file is damaged.
    """
    iteration = Iteration.open(run, t)
    question = find(iteration, question_id)
    seen = np.flatnonzero(iteration.questions.question_Q == question)
    drawn = np.flatnonzero(iteration.draw.question_Q == question)
    # A question without a row of evidence was new to the sampler: it has rollouts only because it was drawn.
    cluster = int(iteration.questions.cluster_Q[seen[0]] if len(seen) else iteration.draw.cluster_Q[drawn[0]])
    rollouts = iteration.rollouts.take(np.flatnonzero(iteration.rollouts.question_R == question))
    return [
        ("question", f"{shown(question_id)}, number {question} of the pool; iteration {t} of {run}"),
        *_of_cluster(iteration, cluster, imports),
        *_of_weight(iteration, question, cluster, seen, drawn),
        *_of_rollouts(iteration, question, rollouts),
        ("pair", _outcome(iteration, question, rollouts)),
    ]


def find(iteration: Iteration, question_id: str) -> int:
    """Return the index of a question that an iteration has rollouts of.

    Raises:
        RunError: the iteration has no rollouts of it; names some questions that it has rollouts of.
    """
    ids = list(iteration.rollouts.id_R)
    if question_id in ids:
        return int(iteration.rollouts.question_R[ids.index(question_id)])
    some = ", ".join(shown(id, 80) for id in dict.fromkeys(ids[:400:40])) or "none yet"
    raise RunError(
        f"no question with the id {shown(repr(question_id))} was probed or explored in iteration {iteration.t} of "
        f"{shown(iteration.run)}; some that were: {some}"
    )


def _of_cluster(iteration: Iteration, cluster: int, imports: bool) -> Iterator[tuple[str, str]]:
    own, whole, config = iteration.clusters.take([cluster]), iteration.clusters, iteration.settings["sampler"]
    n = float(own.n_C[0])
    yield "cluster", f"{cluster}: {own.size_C[0]:,} of {whole.size_C.sum():,} questions"
    yield (
        "evidence",
        f"{n:.2f} questions tried (discounted by sampler.history={config['history']}): {own.error_C[0]:.2f} errors in "
        f"the band, {own.usable_C[0]:.2f} usable, {own.passed_C[0]:.2f} passed",
    )
    if config["rule"] not in RULES and not imports:
        yield "model", f"unknown: {config['rule']} is a rule of another module, which --import-rule imports"
        return
    rule = find_rule(config["rule"])
    if rule.expected is not None and not iteration.is_by_kernel:
        beta_C, _ = fit(whole, config["kappa"])
        a, b, k = beta_C.a[cluster], beta_C.b[cluster], iteration.settings["rollouts"]["k"]
        band = settings.Difficulty(**iteration.settings["difficulty"])
        shown_rules = {name: r for name, r in RULES.items() if r.takes_band} | {config["rule"]: rule}
        values = {name: r.value(k, a, b, band) for name, r in shown_rules.items()}
        expected = ", ".join(f"{name} {float(value):.3f}" for name, value in values.items())
        yield "model", f"pass rates ~ Beta({a:.3g}, {b:.3g}); expected of {k} rollouts of a new question: {expected}"
    error_C = rule.errors(whole)
    low_C, high_C = rate_intervals(whole, error_C, config["kappa"])
    rate = posterior_rate(error_C, whole.n_C, config["kappa"])[cluster]
    pooled = error_C.sum() / max(whole.n_C.sum(), 1e-9)
    yield "error rate", f"{interval(rate, low_C[cluster], high_C[cluster])}, pooled {pooled:.1%}"


def _of_weight(
    iteration: Iteration, question: int, cluster: int, seen: np.ndarray, drawn: np.ndarray
) -> Iterator[tuple[str, str]]:
    """History, weight, chance and draw of a question.

    Args:
        seen: its row in the evidence of questions; empty for a question that was new to the sampler.
        drawn: its place in the draw; empty for a question that was not drawn.
    """
    evidence, config = iteration.questions.take(seen), iteration.settings["sampler"]
    yield "history", _past(evidence)
    by = f"sampler.rule={config['rule']}, alpha {config['alpha']}" + ", rates by Thompson draws" * config["thompson"]
    n, since = len(iteration.draw), iteration.t - config["exclude_iterations"]
    of_cluster = f"W of its cluster {iteration.clusters.weight_C[cluster]:.4g}"
    if iteration.is_by_kernel:
        known = iteration.neighbourhoods
        own = known.take(np.flatnonzero(known.question_Q == question))
        weight, chance = float(own.weight_Q[0]), float(own.chance_Q[0])
        yield (
            "neighbours",
            f"{own.n_Q[0]:.2f} questions of evidence among the most similar ones (clusters.kind=kernel): pass rate of "
            f"this question ~ Beta({own.a_Q[0]:.3g}, {own.b_Q[0]:.3g}), its own counts included",
        )
        of_cluster = f"mean of its cluster {iteration.clusters.weight_C[cluster]:.4g}"
    else:
        weight = float(evidence.weight_Q[0] if len(seen) else iteration.clusters.weight_C[cluster])
        chance_Q, chance_C = chances(iteration.questions, iteration.clusters, n, since)
        chance = float(chance_Q[seen[0]] if len(seen) else chance_C[cluster])
    yield "weight", f"{weight:.4g}; {of_cluster} ({by})"
    yield (
        "chance",
        f"{chance:.2%} to be among the {n:,} drawn: 1 - exp(-weight × tau), with tau such that the chances of the pool "
        f"add up to {n:,}; exact up to about {1 / n:.1g} of it",
    )
    if len(drawn):
        n_explored = len(iteration.explored)
        left = f", not explored: sampler.budget was spent after number {n_explored:,}" if drawn[0] >= n_explored else ""
        yield "draw", f"drawn as number {drawn[0] + 1:,} of {n:,}{left}"
    elif evidence.drawn_at_Q[0] >= max(0, since):
        yield "draw", f"not drawn: excluded by sampler.exclude_iterations={config['exclude_iterations']}"
    else:
        yield "draw", "not drawn"


def _past(evidence: QuestionEvidence) -> str:
    """The rollouts and draws of a question before the draw."""
    if len(evidence) == 0:
        return "never rolled out or drawn before the draw"
    seen, drawn = int(evidence.seen_at_Q[0]), int(evidence.drawn_at_Q[0])
    graded = f"{evidence.n_correct_Q[0]} of {evidence.n_tried_Q[0]} correct in iteration {seen}"
    if evidence.n_tried_Q[0] == 0:
        graded = f"rolled out in iteration {seen}, but no response could be graded: it is not drawn again"
    rolled = graded if seen >= 0 else "never graded"
    return f"last {rolled}; " + (f"last drawn in iteration {drawn}" if drawn >= 0 else "never drawn")


def _of_rollouts(iteration: Iteration, question: int, rollouts: Rollouts) -> Iterator[tuple[str, str]]:
    """Verdicts of a question's rollouts, and its difficulty."""
    n_correct, n_wrong, n_ungradable = (
        (rollouts.verdict_R == verdict).sum() for verdict in (CORRECT, WRONG, UNGRADABLE)
    )
    verdicts = f"{n_correct} correct, {n_wrong} wrong, {n_ungradable} ungradable"
    yield "rollouts", f"{len(rollouts)}: {verdicts}; {(~rollouts.finished_R).sum()} truncated"
    hard = difficulty.measure(rollouts)
    if len(hard) == 0:
        yield "difficulty", "unknown: no response could be graded"
        return
    text = f"pass rate {hard.pass_rate_Q[0]:.3g}, {hard.steps_Q[0]:.1f} steps, {hard.tokens_Q[0]:.1f} tokens"
    rank, n = _hardness(iteration, question)
    yield "difficulty", text + (f"; number {rank:,} of {n:,} explored, hardest first" if rank else "")


def _hardness(iteration: Iteration, question: int) -> tuple[int, int]:
    """Rank of a question among the explored ones, hardest first, from 1, and their number; (0, 0) if not explored."""
    explored = np.isin(iteration.rollouts.question_R, iteration.explored.question_Q)
    hard = difficulty.measure(iteration.rollouts.take(np.flatnonzero(explored)))
    rng = seeded(iteration.settings["run"]["seed"], iteration.t, "order")
    order = difficulty.hardest_first(hard, settings.Difficulty(**iteration.settings["difficulty"]), rng)
    place = np.flatnonzero(hard.question_Q[order] == question)
    return (int(place[0]) + 1, len(hard)) if len(place) else (0, 0)


def _outcome(iteration: Iteration, question: int, rollouts: Rollouts) -> str:
    """The pairs of a question, or the reason why it has none."""
    if question not in iteration.explored.question_Q:
        return "none: it was probed, not explored"
    if not iteration.stage("pairs").done:
        return "not made yet"
    made = iteration.stage("pairs").read("pairs", Pairs)
    made = made.take(np.flatnonzero(made.question_B == question))
    if len(made):
        samples = zip(made.chosen_sample_B, made.rejected_sample_B, strict=True)
        return f"{len(made)} made: " + ", ".join(f"sample {c} over sample {r}" for c, r in samples)
    config = settings.Difficulty(**iteration.settings["difficulty"])
    in_band = difficulty.in_band(difficulty.measure(rollouts), config).any()
    return "none: " + pairs.why_none(rollouts, bool(in_band), settings.Pairs(**iteration.settings["pairs"]))
