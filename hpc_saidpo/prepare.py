"""The preparation of a run or an evaluation: the pool, its benchmarks, its clusters (method, step 0)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from .clusters.health import describe
from .clusters.stage import Clustered, cluster
from .doctor import foresight, inputs
from .dpo.pairs import changed_by_early_decision
from .errors import RunError
from .evaluate import benchmarks
from .evaluate.benchmarks import Benchmark
from .grader.grader import shared_grader
from .grader.stage import check_golds
from .policy.stage import model_folder
from .pool.pool import Pool
from .pool.stage import load_pool, load_pool_again, separate_examples
from .progress import log
from .records import Question, pick
from .rollouts.engine.machine import check_machine
from .rollouts.stage import find_too_long
from .sampler.history import check_enough
from .sampler.rules import find_rule
from .settings.evaluate import HELD_OUT
from .settings.pool import compared_benchmarks
from .settings.rollouts import Rollouts
from .settings.whole import Evaluation, Settings
from .store.run import RunDir
from .tags.stage import tag

REMEDY = "lower rollouts.max_new_tokens or rollouts.prompt.shots, use a policy with more positions, or shorten the file"


@dataclass(frozen=True)
class Prepared:
    """The fixed parts of a run or an evaluation.

    Attributes:
        clustered: the pool's questions by knowledge points; of none for an evaluation.
    """

    pool: Pool
    benchmarks: list[Benchmark]
    clustered: Clustered = field(default_factory=lambda: Clustered(np.zeros(0, dtype=np.int64), {}))


def prepare_run(settings: Settings, run: RunDir) -> Prepared:
    """Load the pool and the benchmarks; tag, embed and cluster the pool's questions. Collective.

    Raises:
        RunError: a file that the run reads is missing or wrong; the pool is too small; or the policy cannot be trained,
            or not answer a benchmark, as the settings say.
        Ended: requests for tags were written to a file, to be answered elsewhere (tags.mode=export).
    """
    world = run.world
    world.on_root(lambda: (inputs.check(settings), foresight.require(settings)))
    if settings.loop.stop_after != "prepare" and not run.has_finished(settings.loop.iterations - 1):
        world.everywhere(lambda: check_machine(settings.rollouts.generate, world.device))
    files = world.on_root(lambda: benchmarks.read(settings.evaluate, compared_benchmarks(settings.pool)))
    pool = load_pool_again(settings.pool, run, files)
    pool = separate_examples(pool, settings.pool, run, files)
    check_enough(len(pool.questions), settings.loop.iterations, settings.sampler)
    policy = model_folder(settings.policy.path, run)
    if not run.has_finished(settings.loop.iterations - 1):
        world.on_root(lambda: _check_policy(policy, settings))
    lengths = Lengths(policy, pool.examples, settings.rollouts, run)
    pool = lengths.leave_out(pool, repr((pool.fingerprint, settings.pool)) if pool.fingerprint else "")
    check_enough(len(pool.questions) - len(pool.too_long), settings.loop.iterations, settings.sampler)
    evaluated = world.on_root(lambda: benchmarks.load(settings.evaluate, pool.held_out, files))
    lengths.refuse(evaluated)
    points: list[tuple[str, ...]] = [()] * len(pool.questions)
    if settings.clusters.n > 1:
        engine, accept = settings.rollouts.generate, settings.run.accept_changes
        points = tag(pool.questions, settings.tags, settings.policy, engine, run, accept)
    clustered = cluster(points, settings.clusters, settings.probe.fraction, run)
    health = clustered.health
    log.info("pool: %d questions, %d held out; %s", len(pool.questions), len(pool.held_out), describe(health))
    for warning in [*health["warnings"], *early_decision_warnings(settings)]:
        log.warning("  %s", warning)
    golds = {"pool": pool.questions, **{b.name: b.questions for b in evaluated}}
    check_golds(golds, world, shared_grader(settings.rollouts.grader))
    return Prepared(pool, evaluated, clustered)


def early_decision_warnings(settings: Settings) -> list[str]:
    """Warnings about settings that lead to other pairs or draws when questions stop early (rollouts.adaptive)."""
    if not settings.rollouts.adaptive:
        return []
    sampler, band = settings.sampler, (settings.difficulty.too_hard, settings.difficulty.too_easy)
    rule = find_rule(sampler.rule)
    warnings = {
        f"difficulty.too_hard={band[0]:g} and too_easy={band[1]:g} compare pass rates, which lean to one half: so "
        "other pairs arise than from k responses": band != (0, 1),
        f"sampler.rule={sampler.rule} compares shares of questions in the band, which the first "
        f"{settings.rollouts.waves[0]} responses find less often than the k of the probe: explored clusters weigh too "
        "little; set sampler.history=0, or a rule that fits pass rates (frontier_error)": (
            not rule.is_uniform and rule.expected is None and sampler.history > 0
        ),
    }
    found = [f"with rollouts.adaptive, {text}" for text, applies in warnings.items() if applies]
    return changed_by_early_decision(settings.pairs) + found


def prepare_evaluation(settings: Evaluation, run: RunDir) -> Prepared:
    """Load the benchmarks of a stand-alone evaluation, and the pool if one is needed. Collective.

    Raises:
        RunError: a file that the evaluation reads is missing or wrong, or a question is too long for the policy.
    """
    world = run.world
    world.on_root(lambda: (inputs.check(settings), foresight.require(settings)))
    world.everywhere(lambda: check_machine(settings.rollouts.generate, world.device))
    policy = model_folder(settings.policy.path, run)
    files = world.on_root(lambda: benchmarks.read(settings.evaluate))
    pool = Pool([])
    if settings.pool:
        pool = separate_examples(load_pool(settings.pool, run), settings.pool, run, files)
    lengths = Lengths(policy, pool.examples, settings.rollouts, run)
    pool = lengths.leave_out(pool, None)
    evaluated = world.on_root(lambda: benchmarks.load(settings.evaluate, pool.held_out, files))
    lengths.refuse(evaluated)
    check_golds({b.name: b.questions for b in evaluated}, world, shared_grader(settings.rollouts.grader))
    return Prepared(pool, evaluated)


def _check_policy(path: str, settings: Settings) -> None:
    """Check without weights that the policy can be trained as the settings say. Not collective."""
    from .dpo.trainable import check_trainable  # imports transformers: a finished run needs none of it
    from .policy.read import skeleton

    check_trainable(skeleton(path), path, settings.dpo)


@dataclass(frozen=True)
class Lengths:
    """The search for questions whose prompt and response do not fit into the policy's positions.

    Attributes:
        path: folder of the policy.
        examples: few-shot examples by subject.
    """

    path: str
    examples: Mapping[str, Sequence[Question]]
    rollouts: Rollouts
    run: RunDir

    def find(self, name: str, questions: Sequence[Question], identity: str = "") -> tuple[np.ndarray, str]:
        """Return the indices of the questions that are too long, and a message about them. Collective.

        Args:
            name: name of the pool or benchmark.
            identity: a text that differs for other questions; "" for a hash of them.
        """
        texts = ((question.subject, question.text) for question in questions)
        identity = identity or hashlib.sha256(repr([*texts]).encode("utf-8", "surrogatepass")).hexdigest()
        found, file = find_too_long(questions, identity, self.examples, self.path, self.rollouts, self.run)
        if not len(found):
            return found.question_Q, ""
        text = found.describe(len(questions), self.rollouts.max_new_tokens)
        return found.question_Q, f"{name}: {text}; all of them: {file}"

    def leave_out(self, pool: Pool, identity: str | None) -> Pool:
        """Leave out the pool's questions that are too long; the log has their number and the longest ones. Collective.

        The pool's questions keep their indices. Held-out questions are removed.

        Args:
            identity: as in `find`; None: only held-out questions are needed.

        Raises:
            RunError: no question of the pool is left.
        """
        if identity is not None:
            too_long, message = self.find("pool", pool.questions, identity)
            if len(too_long) == len(pool.questions):
                raise RunError(f"{message}. None is left: {REMEDY}")
            pool = replace(pool, too_long=too_long)
            _warn(message)
        too_long, message = self.find(HELD_OUT, pool.held_out)
        _warn(message)
        kept = np.delete(np.arange(len(pool.held_out)), too_long)
        return replace(pool, held_out=list(pick(pool.held_out, kept).values())) if message else pool

    def refuse(self, benchmarks: Sequence[Benchmark]) -> None:
        """Refuse a benchmark with questions that are too long: without them its figures could not be compared.

        Raises:
            RunError: there is one.
        """
        for benchmark in benchmarks:
            if benchmark.name != HELD_OUT:  # `leave_out` has examined it
                _, message = self.find(benchmark.name, benchmark.questions)
                if message:
                    raise RunError(f"{message}. Questions of a benchmark are never left out: {REMEDY}")


def _warn(message: str) -> None:
    if message:
        log.warning("%s: they are left out", message)
