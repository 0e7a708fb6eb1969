"""The work of `hpc-saidpo --dry-run`: every check of a start, and the plan of the run, without a run folder."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..doctor import disk, foresight, inputs, memory, plan, room
from ..doctor.finding import FAILURE, Finding, judge, table
from ..errors import shown
from ..grader.grader import shared_grader
from ..parallel.launch import connect
from ..parallel.world import World
from ..policy.locate import is_gguf, locate
from ..pool.stage import load_pool
from ..records import VERDICTS, Question, seed_of
from ..rollouts.prompts import Renderer, describe
from ..screen import output_width
from ..settings.whole import Settings
from ..store.run import RunDir
from .compose import from_overrides
from .failures import EXIT_USER, failures_end_the_job

if TYPE_CHECKING:
    from ..policy.model import Policy

SMALL = 500_000_000  # parameters of a model of which one rollout is shown


def main(overrides: Sequence[str]) -> int:
    """Print the checks, the plan, the first prompt and, of a small model, one rollout. Returns the exit code.

    Under a launcher the plan is that of its ranks, and the first of them prints. Collective.
    """
    with failures_end_the_job(None):
        world = connect()
    with failures_end_the_job(world):
        config = from_overrides(overrides)
        missing = world.on_root(lambda: [i for i in inputs.list_inputs(config) if i.problem])
        found = [judge("inputs", f"{i.key}={i.value}", failure=i.problem) for i in missing]
        found += world.on_root(lambda: foresight.foresee(config))
        if not missing:
            found += _planned(config, world)
        return world.on_root(lambda: _print(config, found))


def _print(config: Settings, found: Sequence[Finding]) -> int:
    """Print the findings, and what a run that is possible shows. Returns the exit code."""
    print(table(found, output_width()), flush=True)
    is_possible = not any(finding.state == FAILURE for finding in found)
    if is_possible:
        for text in _shown(config):
            print(f"\n{text}", flush=True)
    end = "the run can start" if is_possible else "the run cannot start like this: see the lines marked failure"
    print(f"\n{end}", flush=True)
    return 0 if is_possible else EXIT_USER


def _planned(config: Settings, world: World) -> list[Finding]:
    """Disk, memory and times of the run on these ranks. Collective."""
    world.use_device(config.run.device)
    model = memory.model_on_root(config, world)
    if isinstance(model, Finding):
        return [model]
    needed = world.on_root(lambda: room.needed([config], room.Weights(model.n_parameters, "F32")))
    return [*disk.check(world, config, needed), *plan.check(world, config, model)]


def _shown(config: Settings) -> Iterator[str]:
    """The pool in words, the first prompt, and one rollout of a small model."""
    from ..policy.cache import load_policy, load_without_weights

    path, world = locate(config.policy.path), World()
    with tempfile.TemporaryDirectory() as folder:
        pool = load_pool(config.pool, RunDir(Path(folder) / "run", world, {}, lambda message: None))
        yield f"pool: {len(pool.questions):,} questions, {len(pool.held_out):,} held out"
        if is_gguf(path):
            yield "the first prompt of a GGUF file is shown in the log of its run, after its conversion"
            return
        is_small = memory.model_at(config.policy.path).n_parameters <= SMALL
        policy = load_policy(path, config.policy, world.device) if is_small else load_without_weights(path)
        prompts = Renderer(pool.questions, pool.examples, policy, config.rollouts.prompt).table([0])
        yield describe(prompts, policy, config.rollouts.stop)
        if is_small:
            yield _one_rollout(config, policy, prompts.tokens_Q[0].tolist(), pool.questions[0])


def _one_rollout(config: Settings, policy: Policy, tokens: list[int], question: Question) -> str:
    """Generate and grade one response. Returns it in words."""
    from ..rollouts.engine.engine import generate

    begun, rollouts = time.monotonic(), config.rollouts
    seeds = [[seed_of(config.run.seed, 0, "dry-run", 0)]]
    ((response,),) = generate(policy, [tokens], seeds, rollouts.sampling(), rollouts.generate)
    judged = shared_grader(rollouts.grader).judge(response.text, question)
    end = "ended by itself" if response.finished else f"cut at rollouts.max_new_tokens={rollouts.max_new_tokens}"
    return (
        f"one rollout: {len(response.tokens)} tokens in {time.monotonic() - begun:.1f} s, {end}, "
        f"{VERDICTS[judged.verdict]} ({judged.reason}); gold answer {shown(question.answer)}:\n{response.text}"
    )
