"""K graded rollouts of each question as a stage of a run, computed by all ranks (method, steps 1, 5 and 8)."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from .. import progress, settings
from ..errors import RunError, shown
from ..grader.grader import shared_grader
from ..parallel.task import Units
from ..parallel.world import World
from ..policy.locate import hash_of
from ..progress import log, log_lines
from ..records import CORRECT, Prompts, Question, Questions, Rollouts
from ..settings.rollouts import Sampling
from ..store.run import RunDir
from ..store.stage import Stage
from .chunks import cut, longest_first, starts
from .effort import Effort, decided
from .lengths import TooLong, write_too_long
from .prompts import Renderer, describe

_shown: list[bool] = []  # whether this process has shown a prompt

LENGTHS = 1  # version of the examination of lengths; part of the key of its result
_DESCRIBING = (".json", ".jinja", ".model", ".txt")  # files of a policy's folder that are no weights


@dataclass(frozen=True)
class Request:
    """A request for the rollouts of one stage.

    Attributes:
        question_Q: indices into `renderer.questions`.
        k: rollouts of each question.
        seed: (run seed, iteration, stage name).
        expected_Q: expected tokens of a response, by question; may be incomplete (`chunks.expected_tokens`).
        prior_Q: what is known of pass rates, by question (`effort.Effort`).
        budget: what ends the exploration before all questions are explored, in their order.
        drained: begin no chunk on a rank before the one before it is complete. Batches, and so their rounding, then do
            not depend on the ranks.
    """

    renderer: Renderer
    question_Q: np.ndarray
    k: int
    sampling: Sampling
    seed: tuple[int, int, str]
    expected_Q: Mapping[int, float] = field(default_factory=dict)
    prior_Q: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    budget: settings.Budget = field(default_factory=settings.Budget)
    drained: bool = False


def collect_rollouts(stage: Stage, request: Request, config: settings.Rollouts, world: World) -> None:
    """Write the prompts and the requested rollouts into the stage, one chunk of questions at a time. Collective.

    Root renders the prompts once; a stage that resumes reads them again. The chunks do not depend on the number of
    ranks. Chunks that exist on disk are not computed again. The chunk with the longest expected time is started first.

    Raises:
        RunError: a prompt cannot be rendered, or with its response is longer than the model supports.
    """
    from ..policy.model import check_length  # imports transformers: a finished stage needs none of it
    from .engine.engine import depends_on_batch, stream
    from .waves import Chunk, Plan, Queue

    renderer, name = request.renderer, request.seed[2]
    token_Q = world.on_root(lambda: _prompt_tokens(stage, request))
    if token_Q:
        check_length(renderer.policy, max(map(len, token_Q.values())) + request.sampling.max_new_tokens)
    effort = Effort(config.waves_of(name) or (request.k,), config.min_chance, request.prior_Q)
    start_Q, grader = starts(token_Q, renderer.family), shared_grader(config.grader)
    plan = Plan(effort, token_Q, start_Q, renderer.questions, config, request.seed, grader)
    chunks = cut(token_Q, renderer.family, *config.chunk_bounds(name))
    finished = world.on_root(stage.finished_chunks)
    todo = [i for i in longest_first(chunks, token_Q, request.expected_Q) if i not in finished]
    renderer.policy.model.eval()
    drained = bool(todo) and (request.drained or depends_on_batch(renderer.policy, config.generate))
    label = f"{name}: {len(request.question_Q)} questions × {request.k}"
    units = Units("questions", len(request.question_Q), [len(chunks[i]) for i in todo])
    with progress.show(label, len(chunks), world.is_root, len(chunks) - len(todo), todo, units) as task:
        claims = world.claims(len(todo), task)
        queue = Queue(lambda item: Chunk(chunks[todo[item]], plan), claims, drained)
        works = stream(renderer.policy, queue.take, plan.load, request.sampling, config.generate)
        for item, table in queue.answers(works):
            stage.write_chunk(todo[item], table)
            claims.end(item, _counts(table, name, len(decided(table))))
        claims.close()
    idle_W = world.idle_shares()
    if world.size > 1:
        log.info("  ranks idle %.0f %% of the stage, at most %.0f %%", 100 * np.mean(idle_W), 100 * max(idle_W))
    shards = stage.shards([len(chunk) * request.k for chunk in chunks])
    for i in world.claim(len(shards)):
        stage.seal(shards[i], Rollouts)


def collect_in_rounds(stage: Stage, request: Request, config: settings.Rollouts, world: World) -> None:
    """Collect rollouts of the questions in their order until the request's budget is spent. Collective.

    They are collected in rounds, whose sizes follow from what the rounds before have found (`Budget.next_round`). A
    round is a stage of its own within the folder, until all are merged: so a stage that resumes finds its rounds, and
    any number of ranks ends after the same one. Without a budget all questions are one round.

    Raises:
        RunError: as `collect_rollouts`.
    """
    budget = request.budget
    if not budget.is_set:
        collect_rollouts(stage, replace(request, question_Q=np.sort(request.question_Q)), config, world)
        return
    rounds: list[Stage] = []
    order, n_explored, n_usable, n_tokens = request.question_Q, 0, 0, 0
    while (n := budget.next_round(len(order), n_explored, n_usable, n_tokens)) or not rounds:
        part = Stage(stage.path / f"round-{len(rounds):04}", stage.facts)
        world.on_root(part.prepare)
        question_Q = np.sort(order[n_explored : n_explored + n])
        collect_rollouts(part, replace(request, question_Q=question_Q), config, world)
        world.barrier()
        usable, tokens = world.on_root(functools.partial(_found, part))
        rounds, n_explored, n_usable, n_tokens = [*rounds, part], n_explored + n, n_usable + usable, n_tokens + tokens
    log.info("  budget: rounds %d, questions that yield a pair %d, tokens %d", len(rounds), n_usable, n_tokens)
    world.on_root(lambda: _merge(stage, rounds))


def _found(part: Stage) -> tuple[int, int]:
    """(questions that yield a pair, generated tokens) of a round."""
    table = load_rollouts(part)
    return len(decided(table)), int(table.n_tokens_R.sum())


def _merge(stage: Stage, rounds: Sequence[Stage]) -> None:
    """Make the tables of the rounds those of the stage, and remove the rounds. Not collective."""
    stage.write("questions", Questions.concat(part.read("questions", Questions) for part in rounds))
    stage.write("prompts", Prompts.concat(part.read("prompts", Prompts) for part in rounds))
    tables = [load_rollouts(part) for part in rounds]
    for number, table in enumerate(tables):
        stage.write_chunk(number, table)
    for chunks in stage.shards([len(table) for table in tables]):
        stage.seal(chunks, Rollouts)
    for part in rounds:
        stage.remove(part.path.name)


def _counts(table: Rollouts, name: str, n_usable: int) -> dict[str, int]:
    """What the display shows of a chunk: pairs are made of the pool's questions, and accuracy is that of benchmarks.

    Args:
        n_usable: questions that make a pair.
    """
    counts = {"tokens": int(table.n_tokens_R.sum()), "questions": len(np.unique(table.question_R))}
    counts |= {"responses": len(table), "cut": int((~table.finished_R).sum())}
    if name.startswith("evaluate/"):
        return counts | {"correct": int((table.verdict_R == CORRECT).sum())}
    return counts | {"usable": n_usable}


def _prompt_tokens(stage: Stage, request: Request) -> dict[int, list[int]]:
    """The prompt of each question as token ids, from the stage's table of prompts, which is made first if need be.

    Not collective. The first prompt of the process is logged.

    Raises:
        RunError: a prompt has no token, or one that the model has no embedding of.
    """
    if not (stage.has("prompts") and stage.has("questions")):
        rendered = request.renderer.table(request.question_Q)
        _check_tokens(rendered, request.renderer)
        # Beside the prompts, in their order: a run folder shows its questions and gold answers wherever it is copied.
        questions = request.renderer.questions
        stage.write("questions", Questions.of(questions[q] for q in rendered.question_Q.tolist()))
        stage.write("prompts", rendered)
    prompts = stage.read("prompts", Prompts)
    if len(prompts) and not _shown:
        _shown.append(True)
        log_lines(describe(prompts, request.renderer.policy, request.sampling.stop))
    return {q: ids.tolist() for q, ids in zip(prompts.question_Q.tolist(), prompts.tokens_Q, strict=True)}


def _check_tokens(prompts: Prompts, renderer: Renderer) -> None:
    from ..policy.read import n_embeddings  # imports transformers: a finished stage needs none of it

    policy = renderer.policy
    n = n_embeddings(policy.model)
    for question, ids in zip(prompts.question_Q.tolist(), prompts.tokens_Q, strict=True):
        if len(ids) == 0:
            raise RunError(
                f"question {renderer.questions[question].id!r}: its prompt has no token, because the tokenizer at "
                f"{shown(policy.path)} knows none of its characters: use the tokenizer of the model, or another policy"
            )
        if max(ids) >= n:
            token = policy.token_name(int(max(ids)))
            raise RunError(
                f"question {renderer.questions[question].id!r}: its prompt has the token {token!r}, and the model at "
                f"{shown(policy.path)} has no embedding of it: remove it from the question, the prompt "
                "(rollouts.prompt) or the chat template"
            )


def find_too_long(
    questions: Sequence[Question],
    identity: str,
    examples: Mapping[str, Sequence[Question]],
    path: str,
    config: settings.Rollouts,
    run: RunDir,
) -> tuple[TooLong, str]:
    """Return the questions whose prompt and response do not fit into the policy's positions, and a file. Collective.

    They are found once for all runs under one root: all ranks and every restart have the same ones. The file lists
    them for readers.

    Args:
        identity: a text that differs for other questions.
        examples: few-shot examples by subject.
        path: folder of the policy.

    Raises:
        RunError: as `lengths.write_too_long`.
    """

    def key() -> str:
        files = [p for p in Path(path).iterdir() if p.is_file() and p.suffix in _DESCRIBING]
        return repr(
            (LENGTHS, identity, dict(examples), hash_of(files, run.sha256s), config.prompt, config.max_new_tokens)
        )

    def write(stage: Stage) -> None:
        write_too_long(stage, questions, examples, path, config, run.world)

    def load(stage: Stage) -> tuple[TooLong, str]:
        return stage.read_chunks(TooLong).sorted(), str(stage.path / "too_long.jsonl")

    return run.shared("lengths", run.world.on_root(key), write, load)


def load_rollouts(stage: Stage) -> Rollouts:
    """Every rollout of a finished stage, sorted by question and sample. Texts and token ids stay on disk until used."""
    return stage.read_chunks(Rollouts).sorted()
