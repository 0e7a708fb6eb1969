"""K graded rollouts per question, spread over the ranks (README, method steps 1, 5 and 8)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field

from . import generate as engine
from . import prompt as prompt_module
from .generate import Response, Sampling
from .grader import Grader, Limits
from .parallel import World
from .policy import Policy, check_length
from .records import Question, Rollouts, seed_of, settings
from .steps import PARAGRAPH, check_rule, count_steps
from .store import Stage


@settings()
class Config:
    k: Annotated[int, Field(ge=2)] = 8
    temperature: Annotated[float, Field(gt=0)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    min_p: Annotated[float, Field(ge=0, lt=1)] = 0.0
    max_new_tokens: Annotated[int, Field(ge=1)] = 1024
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    chunk_questions: Annotated[int, Field(ge=1)] = 8
    steps: Annotated[str, AfterValidator(check_rule)] = PARAGRAPH
    prompt: prompt_module.Config = Field(default_factory=prompt_module.Config)
    generate: engine.Config = Field(default_factory=engine.Config)
    grader: Limits = Field(default_factory=Limits)

    def sampling(self) -> Sampling:
        """How the method's rollouts are drawn."""
        return Sampling(self.temperature, self.top_p, self.max_new_tokens, self.stop, self.top_k, self.min_p)


class Prompts:
    """The prompt of each question of a pool or benchmark, for one policy."""

    def __init__(
        self,
        questions: Sequence[Question],
        examples: Mapping[str, Sequence[Question]],
        policy: Policy,
        config: prompt_module.Config,
    ):
        self.questions, self.examples, self.policy, self.config = questions, examples, policy, config

    def text(self, index: int) -> str:
        return prompt_module.render(self.questions[index], self.examples, self.config, self.policy.chat_template)

    def shown(self, index: int, stop: Sequence[str]) -> str:
        """A prompt as it is, each of its lines between bars, and what ends a response: for the log."""
        lines = "\n".join(f"  |{line}|" for line in self.text(index).split("\n"))
        name = self.policy.tokenizer.convert_ids_to_tokens
        ends = [*map(name, sorted(self.policy.eos_ids)), *(repr(text)[1:-1] for text in stop)]
        return f"the first prompt, its lines between bars:\n{lines}\n  a response ends with {' or '.join(ends)}"

    def family(self, index: int) -> str:
        """What prompts that show the same few-shot examples have in common; "" when none are shown."""
        return self.questions[index].subject if self.config.shots else ""

    def tokens(self, index: int) -> list[int]:
        return self.policy.encode_prompt(self.text(index), self.config.chat)


def collect(
    stage: Stage,
    prompts: Prompts,
    question_Q: np.ndarray,
    k: int,
    how: Sampling,
    config: Config,
    world: World,
    seed: tuple[int, int, str],
    progress: Callable[[str, int], Callable],
    grader: Grader,
) -> None:
    """Write k graded rollouts of each question into the stage, one chunk of questions at a time. Collective.

    Chunks hold the same questions whatever the number of ranks; those already on disk are not made again.

    Args:
        question_Q: indices into `prompts.questions`.
        seed: (run seed, iteration, stage name).
        progress: (label, total) -> context that gives a tick function.
        grader: this rank's.
    """
    token_Q = {int(q): prompts.tokens(int(q)) for q in question_Q}
    if token_Q:
        check_length(prompts.policy, max(map(len, token_Q.values())) + how.max_new_tokens)
    chunks = cut(token_Q, prompts.family, config.chunk_questions)
    finished = world.on_root(stage.finished_chunks)
    shards = stage.shards(len(chunks), config.chunk_questions * k)
    todo = [i for i in range(len(chunks)) if i not in finished]
    prompts.policy.model.eval()
    with progress(f"{seed[2]}: {len(question_Q)} questions × {k}", len(todo)) as tick:
        for i in world.claim(len(todo), tick):
            chunk = chunks[todo[i]]
            seeds = [[seed_of(*seed, q, sample) for sample in range(k)] for q in chunk]
            responses = engine.generate(prompts.policy, [token_Q[q] for q in chunk], seeds, how, config.generate)
            asked = [prompts.questions[q] for q in chunk]
            stage.write_chunk(todo[i], grade(chunk, asked, seeds, responses, grader, config.steps))
    world.barrier()
    for i in world.claim(len(shards)):
        stage.seal(shards[i], Rollouts)


def cut(token_Q: Mapping[int, list[int]], family: Callable[[int], str], size: int) -> list[list[int]]:
    """Questions in chunks of at most `size`, the same for any number of ranks.

    A chunk holds prompts of one family, which start alike: the engine computes their common start once. Within a family
    like lengths stand together, for less padding.
    """
    order = sorted(token_Q, key=lambda q: (family(q), -len(token_Q[q]), q))
    families = (list(own) for _, own in itertools.groupby(order, key=family))
    return [own[i : i + size] for own in families for i in range(0, len(own), size)]


def grade(
    index_Q: Sequence[int],
    questions: Sequence[Question],
    seeds: Sequence[Sequence[int]],
    responses: Sequence[Sequence[Response]],
    grader: Grader,
    step: str = PARAGRAPH,
) -> Rollouts:
    """Responses as graded rollouts; a truncated response is graded like any other.

    Args:
        index_Q, questions: the questions, by index in their pool and themselves.
        seeds, responses: K of each for every question.
        grader: gives the verdicts.
        step: what counts as a reasoning step (`steps.count_steps`).
    """

    def verdict(response: str, question: Question) -> int:
        return grader.grade(response, question.answer, question.alt_answers).verdict

    return Rollouts.of(
        (
            *(q, sample, verdict(r.text, question), len(r.tokens), count_steps(r.text, step), r.finished),
            *(own_seeds[sample], r.seconds, question.id, r.text),
        )
        for q, question, own_seeds, own in zip(index_Q, questions, seeds, responses, strict=True)
        for sample, r in enumerate(own)
    )


def load(stage: Stage) -> Rollouts:
    """Every rollout of a finished stage, sorted by question and sample; texts stay on disk until they are read."""
    return stage.read_chunks(Rollouts).sorted()
