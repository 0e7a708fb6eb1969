"""The settings of the group `rollouts`."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from .base import Count, Positive, group

LARGEST_CHUNK = 64  # questions, where chunk_questions is not set
# Arguments of vLLM that a run sets itself: another value would sample another policy, or run code of its folder.
VLLM_FIXED = {"model", "dtype", "logprobs_mode", "seed", "trust_remote_code", "tensor_parallel_size"}
PARAGRAPH, LINE, MARKER = RULES = ("paragraph", "line", "marker")  # definitions of a reasoning step


def check_rule(rule: str) -> str:
    """Return the rule that splits a response into steps, if it is valid.

    Raises:
        ValueError: it is neither one of RULES nor a /regular expression/ that separates steps.
    """
    if rule in RULES:
        return rule
    if len(rule) < 3 or not (rule.startswith("/") and rule.endswith("/")):
        raise ValueError(f"{rule!r} is none of {', '.join(RULES)}, and no /regular expression/ between slashes")
    try:
        matches_nothing = compiled(rule).search("") is not None
    except re.error as error:
        raise ValueError(f"{rule} is no regular expression: {error}") from None
    if matches_nothing:
        raise ValueError(f"{rule} matches the empty text, and would make every character a step")
    return rule


@functools.cache
def compiled(rule: str) -> re.Pattern:
    """Compile a /regular expression/ between slashes."""
    return re.compile(rule[1:-1])


@dataclass(frozen=True)
class Sampling:
    """The sampling of responses.

    Attributes:
        temperature: 0 is greedy.
        top_p: nucleus sampling; 1 keeps the whole distribution.
        stop: strings that end a response, besides the end-of-sequence token; the response's text does not contain them.
        top_k: keep only the k most probable tokens; 0 keeps all.
        min_p: keep only tokens with at least this share of the highest probability; 0 keeps all.
    """

    temperature: float
    top_p: float
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    top_k: int = 0
    min_p: float = 0.0


# TeX's commands that begin with n: in them a backslash and an n are meant.
_TEX_N = (
    r"(?:abla|atural|cong|earrow|e|eg|eq|ewcommand|ewline|exists|geq|i|leq|mid|oindent|olimits|onumber|orm|ot|"
    r"otin|parallel|rightarrow|leftarrow|Rightarrow|Leftarrow|sim|subseteq|supseteq|u|warrow|prec|succ)(?![a-zA-Z])"
)
_BACKSLASH_N = re.compile(rf"\\n(?!{_TEX_N})")


def check_line_breaks(text: str) -> str:
    """Return a text that goes into prompts or ends responses, if no line break in it is written as backslash and n.

    Raises:
        ValueError: it has a backslash and an n, which do not begin a command of TeX such as \\neq.
    """
    if _BACKSLASH_N.search(text):
        raise ValueError(
            "has a backslash and an n where a line break must be. Write a line break on the command line (bash) like "
            r"""$'rollouts.stop=["\n"]', and in YAML as "\n" between double quotes"""
        )
    return text


Text = Annotated[str, AfterValidator(check_line_breaks)]


@group
class Prompt:
    """The template of a prompt."""

    chat: bool = True
    system: Text = ""
    question: Text = "{question}"
    answer: Text = "{answer}"
    separator: Text = "\n\n"
    shots: Count = 0
    template_args: dict[str, Any] = Field(default_factory=dict)

    def __post_init__(self):
        if "{question}" not in self.question:
            raise ValueError("question must contain {question}")
        fixed = sorted({"conversation", "messages", "tokenize", "add_generation_prompt"} & set(self.template_args))
        if fixed:
            raise ValueError(f"template_args must not contain {', '.join(fixed)}: the program sets them")


@group
class Engine:
    """The rollout engine, which decodes responses (rollouts.generate)."""

    engine: Literal["shared", "hf", "vllm"] = "shared"
    rows: Positive | None = None
    linears: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    graphs: bool = False
    vllm_memory: Annotated[float, Field(gt=0, lt=1)] = 0.4
    vllm_arguments: dict[str, Any] = Field(default_factory=dict)

    def __post_init__(self):
        fixed = sorted(VLLM_FIXED & set(self.vllm_arguments))
        if fixed:
            raise ValueError(f"vllm_arguments must not contain {', '.join(fixed)}: the program sets them")
        if self.compile and self.linears == "bfloat16":
            raise ValueError("compile and linears=bfloat16 exclude each other")
        if self.compile and self.graphs:
            raise ValueError("compile and graphs exclude each other")


@group
class Grader:
    """Limits on the grading of one response (rollouts.grader).

    Attributes:
        cpu_s: CPU time, s. It does not depend on the load of the machine, so neither does a verdict. For a program and
            for its tests the kernel counts whole seconds, rounded up.
        wall_s: elapsed time, s, for a process that waits without using CPU.
        memory_gib: address space of a process, GiB.
        code_unsandboxed: run programs in responses even where the kernel cannot confine them.
        reason_chars: of the reason of a verdict that are kept.
    """

    cpu_s: Annotated[float, Field(gt=0)] = 3.0
    wall_s: Annotated[float, Field(gt=0)] = 30.0
    memory_gib: Annotated[float, Field(gt=0)] = 4.0
    code_unsandboxed: bool = False
    reason_chars: Annotated[int, Field(ge=20)] = 300


@group
class Rollouts:
    """K rollouts of each question: sampling, prompts, cutting into chunks, grading."""

    k: Annotated[int, Field(ge=2)] = 8
    temperature: Annotated[float, Field(gt=0)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Count = 0
    min_p: Annotated[float, Field(ge=0, lt=1)] = 0.0
    max_new_tokens: Positive = 1024
    stop: tuple[Annotated[Text, Field(min_length=1)], ...] = ()
    chunk_questions: Positive | None = None
    min_chunk_questions: Positive = 8
    steps: Annotated[str, AfterValidator(check_rule)] = PARAGRAPH
    prompt: Prompt = Field(default_factory=Prompt)
    adaptive: bool = False
    adaptive_probe: bool = False
    waves: Annotated[tuple[Positive, ...], Field(min_length=1)] = (2, 2, 4)
    min_chance: Annotated[float, Field(ge=0, lt=1)] = 0.0
    k_max: Positive | None = None
    generate: Engine = Field(default_factory=Engine)
    grader: Grader = Field(default_factory=Grader)

    def __post_init__(self):
        if self.adaptive and sum(self.waves) != self.k:
            raise ValueError(f"waves {list(self.waves)} are {sum(self.waves)} responses, not k={self.k}")
        if not self.adaptive and (self.min_chance or self.k_max or self.adaptive_probe):
            raise ValueError("min_chance, k_max and adaptive_probe need adaptive=true")
        if self.k_max is not None and self.k_max < self.k:
            raise ValueError(f"k_max={self.k_max} is below k={self.k}")
        largest = max(self.waves_of("explore")[1:], default=0)
        if self.min_chance * largest >= 1:
            raise ValueError(
                f"min_chance={self.min_chance:g} for each response of a wave of {largest} is a chance of "
                f"{self.min_chance * largest:g}: no question would get this wave. Set it below 1/{largest}, or make "
                "waves smaller"
            )

    def waves_of(self, stage: str) -> tuple[int, ...]:
        """Return the number of responses to a question in each wave; () for a stage that draws all K at once.

        After each wave a question that needs no more responses is left out. All waves together make K. In `explore`
        further waves, as large as the last one, make k_max.
        """
        if not self.adaptive or stage not in ("explore", "probe") or (stage == "probe" and not self.adaptive_probe):
            return ()
        n_more = (self.k_max or self.k) - self.k if stage == "explore" else 0
        whole, rest = divmod(n_more, self.waves[-1])
        return self.waves + (self.waves[-1],) * whole + (rest,) * bool(rest)

    @property
    def max_responses(self) -> int:
        """Responses to a question in `explore`, at most."""
        return (self.k_max or self.k) if self.adaptive else self.k

    def n_fixed(self, stage: str) -> int:
        """Return the responses that every question of a stage receives, whatever they are."""
        return (self.waves_of(stage) or (self.k,))[0]

    def chunk_bounds(self, stage: str) -> tuple[int, int]:
        """Return the largest and the smallest number of questions in a chunk of a stage.

        They are equal if chunk_questions is set. Otherwise chunks become smaller towards the end of the stage.
        """
        if self.chunk_questions is not None:
            return self.chunk_questions, self.chunk_questions
        # A wave decodes only some of a question's rows, so more questions are needed to fill a batch.
        smallest = self.min_chunk_questions * self.k // self.n_fixed(stage)
        return max(LARGEST_CHUNK, self.min_chunk_questions), smallest

    def sampling(self) -> Sampling:
        """Return the sampling of the method's rollouts."""
        return Sampling(self.temperature, self.top_p, self.max_new_tokens, self.stop, self.top_k, self.min_p)
