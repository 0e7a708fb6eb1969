"""K graded rollouts per question, spread over the ranks (README, method steps 1, 5 and 8)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field

from . import chunks as chunking
from . import generate as engine
from . import prompt as prompt_module
from .generate import Response, Sampling
from .grader import Grader, Limits
from .parallel import World
from .policy import Policy, check_length
from .progress import log
from .records import CORRECT, WRONG, Question, Rollouts, seed_of, settings
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
    chunk_questions: Annotated[int, Field(ge=1)] = 64
    min_chunk_questions: Annotated[int, Field(ge=1)] = 8
    steps: Annotated[str, AfterValidator(check_rule)] = PARAGRAPH
    prompt: prompt_module.Config = Field(default_factory=prompt_module.Config)
    adaptive: bool = False
    adaptive_probe: bool = False
    waves: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (2, 2, 4)
    generate: engine.Config = Field(default_factory=engine.Config)
    grader: Limits = Field(default_factory=Limits)

    def __post_init__(self):
        if self.adaptive and sum(self.waves) != self.k:
            raise ValueError(f"waves {list(self.waves)} are {sum(self.waves)} responses, not k={self.k}")

    def waves_of(self, stage: str) -> tuple[int, ...]:
        """How many responses to a question are drawn before it is looked at again; the last is the K-th."""
        adaptive = self.adaptive and (stage == "explore" or (stage == "probe" and self.adaptive_probe))
        return self.waves if adaptive else ()

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
    expected_Q: Mapping[int, float] | None = None,
) -> None:
    """Write k graded rollouts of each question into the stage, one chunk of questions at a time. Collective.

    Chunks hold the same questions whatever the number of ranks; those already on disk are not made again. The one that
    is expected to take longest is begun first.

    Args:
        question_Q: indices into `prompts.questions`.
        seed: (run seed, iteration, stage name).
        progress: (label, total) -> context that gives a tick function.
        grader: this rank's.
        expected_Q: tokens of a response, as far as they are known (`chunks.expected_tokens`).
    """
    token_Q = {int(q): prompts.tokens(int(q)) for q in question_Q}
    if token_Q:
        check_length(prompts.policy, max(map(len, token_Q.values())) + how.max_new_tokens)
    waves = config.waves_of(seed[2]) or (k,)
    # A wave is a part of a question's rows only: more questions fill the batches as well.
    smallest = config.min_chunk_questions * k // waves[0]
    chunks = chunking.cut(token_Q, prompts.family, config.chunk_questions, smallest)
    finished = world.on_root(stage.finished_chunks)
    todo = [i for i in chunking.longest_first(chunks, token_Q, expected_Q or {}) if i not in finished]
    prompts.policy.model.eval()
    with progress(f"{seed[2]}: {len(question_Q)} questions × {k}", len(todo)) as tick:
        for i in world.claim(len(todo), tick):
            own = {q: token_Q[q] for q in chunks[todo[i]]}
            stage.write_chunk(todo[i], in_waves(waves, own, prompts, how, config, seed, grader))
    idle_W = world.idle_shares()
    if world.size > 1:
        log.info("  ranks idle %.0f %% of the stage, at most %.0f %%", 100 * np.mean(idle_W), 100 * max(idle_W))
    shards = stage.shards([len(chunk) * k for chunk in chunks])
    for i in world.claim(len(shards)):
        stage.seal(shards[i], Rollouts)


def in_waves(
    waves: Sequence[int],
    token_Q: Mapping[int, list[int]],
    prompts: Prompts,
    how: Sampling,
    config: Config,
    seed: tuple[int, int, str],
    grader: Grader,
) -> Rollouts:
    """Graded rollouts of these questions, wave after wave; a question that is decided is drawn no more.

    Sample j of a question is the same one however many waves there are. So the questions that have both a correct and a
    wrong response are those that have them among all K, and which responses come with that does not depend on what else
    they are: the pairs are those of K fixed responses (README, early decision, says for which rules this holds).
    """
    drawn, first, left = [], 0, list(token_Q)
    for n in waves:
        seeds = [[seed_of(*seed, q, sample) for sample in range(first, first + n)] for q in left]
        responses = engine.generate(prompts.policy, [token_Q[q] for q in left], seeds, how, config.generate)
        asked = [prompts.questions[q] for q in left]
        drawn.append(grade(left, asked, seeds, responses, grader, config.steps, first))
        settled = decided(Rollouts.concat(drawn))
        left, first = [q for q in left if q not in settled], first + n
        if not left:
            break
    return Rollouts.concat(drawn).sorted()


def decided(rollouts: Rollouts) -> set[int]:
    """The questions that can give a pair: with a correct response that ended by itself, and a wrong one."""
    good = (rollouts.verdict_R == CORRECT) & rollouts.finished_R
    bad = rollouts.verdict_R == WRONG
    return set(rollouts.question_R[good].tolist()) & set(rollouts.question_R[bad].tolist())


def grade(
    index_Q: Sequence[int],
    questions: Sequence[Question],
    seeds: Sequence[Sequence[int]],
    responses: Sequence[Sequence[Response]],
    grader: Grader,
    step: str = PARAGRAPH,
    first: int = 0,
) -> Rollouts:
    """Responses as graded rollouts; a truncated response is graded like any other.

    Args:
        index_Q, questions: the questions, by index in their pool and themselves.
        seeds, responses: K of each for every question.
        grader: gives the verdicts.
        step: what counts as a reasoning step (`steps.count_steps`).
        first: number of the first sample.
    """
    return Rollouts.of(
        (
            *(q, first + sample, grader.judge(r.text, question).verdict, len(r.tokens), count_steps(r.text, step)),
            *(r.finished, own_seeds[sample], r.seconds, question.id, r.text),
        )
        for q, question, own_seeds, own in zip(index_Q, questions, seeds, responses, strict=True)
        for sample, r in enumerate(own)
    )


def load(stage: Stage) -> Rollouts:
    """Every rollout of a finished stage, sorted by question and sample; texts stay on disk until they are read."""
    return stage.read_chunks(Rollouts).sorted()
