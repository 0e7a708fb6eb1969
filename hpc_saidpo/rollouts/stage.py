"""K graded rollouts of each question as a stage of a run, computed by all ranks (method, steps 1, 5 and 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .. import progress, settings
from ..grader.grader import shared_grader
from ..parallel.task import Units
from ..parallel.world import World
from ..policy.locate import hash_of
from ..progress import log, log_lines
from ..records import CORRECT, Prompts, Question, Rollouts
from ..store.run import RunDir
from ..store.stage import Stage
from .chunks import cut, longest_first, starts
from .effort import Effort, decided
from .lengths import TooLong, write_too_long
from .prompts import describe
from .request import Request, write_prompts

_shown: list[bool] = []  # whether this process has shown a prompt

LENGTHS = 1  # version of the examination of lengths; part of the key of its result
_DESCRIBING = (".json", ".jinja", ".model", ".txt")  # files of a policy's folder that are no weights


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
    place = name if request.round is None else f"{name}, round {request.round + 1}"
    label = f"{place}: {len(request.question_Q)} questions × {request.k}"
    units = Units("questions", len(request.question_Q), [len(chunks[i]) for i in todo], request.round is not None)
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
        RunError: as `write_prompts`.
    """
    write_prompts(stage, request)
    prompts = stage.read("prompts", Prompts)
    if len(prompts) and not _shown:
        _shown.append(True)
        log_lines(describe(prompts, request.renderer.policy, request.sampling.stop))
    return {q: ids.tolist() for q, ids in zip(prompts.question_Q.tolist(), prompts.tokens_Q, strict=True)}


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
